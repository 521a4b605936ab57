//! Checkpoints: what they say is a function of what they cover, and starting from one is as good as having all commits.
#![allow(missing_docs, clippy::unwrap_used, dead_code)]

#[path = "../blind/making.rs"]
mod making;

mod crash;
mod dag;
mod hostile;
mod skeleton;
mod state;
