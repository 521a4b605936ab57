//! The running folder or safe: wires store, sync and net together.
//!
//! The boundary is plain data, snapshots and events. Nothing here knows of HTTP, mounts or plain directories.

pub mod engine;
pub mod error;
pub mod status;
pub mod view;
