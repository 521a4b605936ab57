//! Wire codec and the peer state machines: no sockets, clocks, disk or tasks.
//!
//! Time comes in as [`Duration`](std::time::Duration) since the host's start, randomness as a generator. The byte
//! formats and the rules that peers rely on are in `docs/protocol.md`.
//!
//! - [`codec`]: messages, their limits, the incremental decoder, and bulk record headers.
//! - [`handshake`]: what two devices have in common, found without revealing the rest; opens channels.
//! - [`facts`]: what a state machine reads from its host.
//! - [`folder`]: one folder with all its peers.

pub mod codec;
pub mod facts;
pub mod folder;
pub mod handshake;
