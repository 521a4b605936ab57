//! A folder as a plain directory: scan, watch, record local changes, apply remote ones.
//!
//! Start at [`worktree::Worktree`]. Merge rules live in the model; this crate only tells it what a person did and puts on
//! disk what it answers. `docs/guide/worktree.md` is the user's page, `docs/adr/010` to `013` say why it works this way.

pub mod brake;
pub mod error;
pub mod location;
pub mod offload;
pub mod worktree;

mod apply;
mod arrivals;
mod batch;
mod content;
mod directories;
mod disk;
mod drafts;
mod durable;
mod files;
mod fingerprint;
mod hearing;
mod ignored;
mod ledger;
mod place;
mod presence;
mod problems;
mod record;
mod recover;
mod runner;
mod scan;
mod staging;
mod watch;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
