//! HTTP data types and typed client of the daemon.
//!
//! The boundary between the daemon and whatever people touch: the command line today, pages and apps later. It knows
//! neither the engine nor the disk's layout beyond the three files that tell a client where the daemon is.

pub mod client;
pub mod conflicts;
pub mod data;
pub mod directory;
pub mod duration;
pub mod endpoint;
pub mod error;
pub mod event;
pub mod history;
pub mod moment;
pub mod retention;
pub mod sse;
