//! Targets for fuzzing: every decoder of bytes from peers, from the disk and from users, and the sync state machine by operations.
//!
//! A target is a function of bytes that panics when something is wrong. `cargo xtask fuzz` runs them; see `docs/fuzzing.md`.

mod catalogue;
mod content;
mod operations;
mod roster;
mod sync;
mod tree;
mod users;
mod wire;

/// A target: what it is called, what it does, and inputs to begin with.
pub struct Target {
    /// Its name, also that of its corpus.
    pub name: &'static str,
    /// Panics when something is wrong.
    pub run: fn(&[u8]),
    /// Valid inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    target("wire", wire::wire, wire::wire_seeds),
    target("commit", wire::commit, wire::commit_seeds),
    target("body", wire::body, wire::body_seeds),
    target("tree", tree::tree, tree::seeds),
    target("merge", users::merge, users::merge_seeds),
    target("roster", roster::roster, roster::seeds),
    target("invitation", users::invitation, users::invitation_seeds),
    target("keystore", users::keystore, users::keystore_seeds),
    target("pack", content::pack, content::pack_seeds),
    target("catalogue", catalogue::catalogue, catalogue::seeds),
    target("content", content::content, content::content_seeds),
    target("api", users::api, users::api_seeds),
    target("ignore", users::ignore, users::ignore_seeds),
    target("sync", sync::sync, sync::seeds),
];

const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds }
}

/// Runs a target by its name.
///
/// # Panics
/// When the target finds something, or there is none of that name.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target of that name").run)(data);
}
