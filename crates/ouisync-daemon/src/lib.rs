//! Configuration, lifecycle and HTTP server of a running device.
//!
//! Composes the engine with the views of its folders and serves the API of `ouisync-api`. Keeps no rules about
//! folders: what may be done is decided in the engine, what it looks like in the clients.

pub mod home;
pub mod logs;
pub mod serve;
pub mod upkeep;

mod device;
mod http;
mod key_ring;
mod refusal;
mod service;
