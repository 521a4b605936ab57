//! Whole devices: real processes with homes in temporary folders, driven as a script would drive them.

#![allow(clippy::unwrap_used)]

mod attention;
mod brake;
mod checkpoints;
mod conflicts;
mod daemon;
mod history;
mod keyring;
mod locks;
mod members;
mod node;
mod offload;
mod partitions;
mod private;
mod reader;
mod retention;
mod sync;
