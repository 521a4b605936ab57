//! Packs, commits, live set and index on disk: crash safety, garbage collection, checker.

mod aligned;
pub mod backend;
pub mod catalogue;
pub mod checkpoint;
pub mod chunker;
pub mod collect;
mod compress;
pub mod content;
pub mod error;
pub mod index;
pub mod ingest;
pub mod live;
pub mod pack_builder;
mod pack_file;
pub mod released;
pub mod sealed_map;
pub mod store;
pub mod verify;
