//! The running folder or safe: wires store, sync and net together.
//!
//! The boundary is plain data, snapshots and events. Nothing here knows of HTTP, mounts or plain directories.

mod book;
mod command;
mod connection;
mod drafts;
pub mod engine;
pub mod error;
mod facts;
mod flush;
mod folder;
pub mod history;
mod home;
pub mod housekeeping;
pub mod key_ring;
mod keys;
mod merging;
mod network;
pub mod offload;
mod past;
mod port;
mod readable;
pub mod recall;
pub mod repacking;
pub mod retention;
mod shared;
pub mod simulation;
pub mod status;
pub mod surroundings;
mod thinning;
pub mod view;
