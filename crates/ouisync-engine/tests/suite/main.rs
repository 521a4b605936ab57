//! Whole devices in one process over loopback: everything between a view and the network.

#![allow(clippy::unwrap_used)]

mod at_rest;
mod bounds;
mod checkpoints;
mod device;
mod drafts;
mod history;
mod hostile;
mod invitations;
mod late;
mod members;
mod merging;
mod offload;
mod repacking;
mod restore;
mod retention;
mod storage;
mod sync;
