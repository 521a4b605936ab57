//! The `ouisync` command: one file per command, under [`commands`].
//!
//! Everything but `serve` and `demo` is a client of the daemon's interface and touches no folder itself.

pub mod command_line;
pub mod commands;

mod context;
mod location;
mod output;
mod passphrase;
mod progress;
