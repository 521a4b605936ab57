//! Ids, names, the replicated tree and its merge rules.
//!
//! Pure data: no I/O, clocks or cryptography.

pub mod id;
pub mod merge;
pub mod name;
pub mod operation;
pub mod tree;
