//! Tests' world: a seeded network of folders in virtual time, with facts in memory. A dev-dependency only.
//!
//! - [`seed`]: where randomness of a test comes from, and how a failure is replayed.
//! - [`facts`]: a folder in memory, with commits and roster entries that are not signed.
//! - [`network`]: nodes, links, partitions, crashes.

pub mod facts;
pub mod network;
pub mod seed;
