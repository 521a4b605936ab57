//! Authenticated streams between devices and discovery on the LAN, behind our own trait.
//!
//! The only crate that imports `iroh`. It knows devices, sockets and byte streams; it must not know folders, keys of
//! folders or the meaning of a message. No vendor service is ever contacted: no relay, no DNS, no look-up server, no
//! port mapper, no metrics.
//!
//! | Module | Owns |
//! |---|---|
//! | [`key`] | the device's transport key |
//! | [`address`] | device addresses and their text form |
//! | [`endpoint`] | binding, dialling, accepting; the [`endpoint::Transport`] trait |
//! | [`connection`] | one authenticated connection: identity, exporter, closing |
//! | [`control`] | the length-delimited control stream |
//! | [`bulk`] | records of pack frames on one stream each way |
//! | [`lan`] | what multicast discovery sees |
//! | [`duplicate`] | which of two connections between the same devices stays |
//! | [`memory`] | a transport within one process, for tests |

pub mod address;
pub mod bulk;
pub mod connection;
pub mod control;
pub mod duplicate;
pub mod endpoint;
pub mod key;
pub mod lan;
pub mod memory;
mod quic;
pub mod stream;
