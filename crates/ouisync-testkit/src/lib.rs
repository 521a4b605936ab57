//! Tests' world: a seeded network of folders in virtual time, with facts in memory, and real hosts in network
//! namespaces. A dev-dependency only.
//!
//! - [`seed`]: where randomness of a test comes from, and how a failure is replayed.
//! - [`facts`]: a folder in memory, with commits and roster entries that are not signed.
//! - [`network`]: nodes, links, partitions, crashes.
//! - [`simulation`]: whole devices, with their real stores and engines, in a world that one seed makes.
//! - [`lan`]: network namespaces with real programs, and a capture of what they send.

pub mod facts;
pub mod lan;
pub mod network;
pub mod seed;
pub mod simulation;
