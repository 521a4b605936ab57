//! Tests of the blind store: no keys anywhere.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod backend_conformance;
mod behaviour;
mod crash;
mod kill;
mod live_set;
mod making;
mod offload;
mod retention;
