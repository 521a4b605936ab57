//! One folder with all its connected peers: roster, commits, inventory, packs.
//!
//! Deterministic: the same calls give the same outputs. Calls only change state and queue outputs; the host drains
//! [`FolderSync::poll_output`] after every call or group of calls.

mod output;

use std::time::Duration;

use bytes::Bytes;
use ouisync_crypto::proof::MemberProof;
use ouisync_model::id::{InvitationId, MemberId, PackId};

pub use self::output::{DropReason, Output, PeerKey};
use crate::{
    codec::{Contact, FolderMessage},
    facts::{CommitFacts, FolderFacts},
};

/// What a peer may do, from the credential that opened its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// It knows the current epoch: blind sync at once.
    Current,
    /// It knows an older epoch: roster only until it proves to be a current member.
    Older,
    /// It holds an invitation: roster only, and it may join.
    Invitation(InvitationId),
}

/// Bounds of memory and traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of control messages given to the host for one peer and not yet [`sent`](FolderSync::sent), above which no
    /// more commits, lists or hashes are made.
    pub unsent: usize,
    /// Bytes of [`Output::Serve`] of one peer not yet [`served`](FolderSync::served).
    pub serving: u64,
    /// Waiting wants of one peer; more drop it.
    pub wants: usize,
    /// Commits sent to one peer and not yet accepted, in bytes.
    pub unaccepted: usize,
    /// Least and greatest number of bytes wanted from one peer at a time.
    pub window: (u64, u64),
    /// Bytes given out in [`Output::WriteFrames`] and not yet written, above which nothing more is wanted.
    pub unwritten: u64,
    /// Frames of one want.
    pub range: u32,
    /// Time without progress after which a peer's ranges are given to others.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unsent: 4 << 20,
            serving: 8 << 20,
            wants: 4096,
            unaccepted: 8 << 20,
            window: (2 << 20, 16 << 20),
            unwritten: 64 << 20,
            range: 32,
            stall: Duration::from_secs(30),
        }
    }
}

/// What is known about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its proven member key.
    pub member: Option<MemberId>,
    /// Both sides have exchanged what they have; the other figures are meaningful.
    pub exchanged: bool,
    /// Live bytes known here that it doesn't hold durably.
    pub missing_bytes: u64,
    /// It has our roster, all our commits and all our live packs, durably.
    pub has_all: bool,
}

/// The state machine of one folder.
pub struct FolderSync<F> {
    facts: F,
}

impl<F: FolderFacts> FolderSync<F> {
    /// A folder without peers. `now` is the time since the host's start.
    pub fn new(facts: F, limits: Limits, now: Duration) -> Self {
        let _ = (limits, now);
        Self { facts }
    }

    /// The host's facts.
    pub fn facts(&self) -> &F {
        &self.facts
    }

    /// The host's facts, to change them; then call what announces the change.
    pub fn facts_mut(&mut self) -> &mut F {
        &mut self.facts
    }

    /// The next thing to do; `None` when all is done for now.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    // Peers

    /// A channel opened. `proof` is our member key and its signature of this connection, if the keys are unlocked.
    pub fn peer_connected(&mut self, peer: PeerKey, rights: Rights, proof: Option<MemberProof>) {
        let _ = (peer, rights, proof);
    }

    /// The channel or its connection closed.
    pub fn peer_disconnected(&mut self, peer: PeerKey) {
        let _ = peer;
    }

    /// A message of the peer, in order.
    pub fn message(&mut self, peer: PeerKey, message: FolderMessage) {
        let _ = (peer, message);
    }

    /// Whole frames of the peer's bulk stream, in order; any part of a record that ends at a frame.
    pub fn bulk_received(&mut self, peer: PeerKey, pack: PackId, first: u32, data: Bytes) {
        let _ = (peer, pack, first, data);
    }

    /// `bytes` of [`Output::Send`] messages (their [`FolderMessage::size_hint`]) left for the network.
    pub fn sent(&mut self, peer: PeerKey, bytes: usize) {
        let _ = (peer, bytes);
    }

    /// An [`Output::Serve`] of `count` frames was written.
    pub fn served(&mut self, peer: PeerKey, count: u32) {
        let _ = (peer, count);
    }

    /// An [`Output::Serve`] could not be read; nothing of it was written.
    pub fn serve_failed(&mut self, peer: PeerKey, pack: PackId, first: u32, count: u32) {
        let _ = (peer, pack, first, count);
    }

    /// The peer's proof is right.
    pub fn member_proven(&mut self, peer: PeerKey, member: MemberId) {
        let _ = (peer, member);
    }

    /// The peer's proof is wrong or its member is removed: it is dropped.
    pub fn member_refused(&mut self, peer: PeerKey, reason: String) {
        let _ = (peer, reason);
    }

    /// Tells a peer where devices are; `None`: every peer that may know. Lists above the limits are cut.
    pub fn send_contacts(&mut self, peer: Option<PeerKey>, contacts: Vec<Contact>) {
        let _ = (peer, contacts);
    }

    // Roster and commits

    /// The roster grew, by own entries or by those of [`Output::AddRosterEntries`]; also the answer to an output that
    /// brought nothing new.
    pub fn roster_changed(&mut self) {}

    /// An entry of the peer is invalid: the peer is dropped.
    pub fn roster_refused(&mut self, peer: PeerKey, reason: String) {
        let _ = (peer, reason);
    }

    /// Own commits are durable.
    pub fn commits_added(&mut self, commits: &[CommitFacts]) {
        let _ = commits;
    }

    /// The oldest unanswered [`Output::AddCommits`] of the peer is checked and durable. `commits`: those of it that were
    /// new. Call it also after the peer has gone.
    pub fn commits_accepted(&mut self, peer: PeerKey, commits: &[CommitFacts]) {
        let _ = (peer, commits);
    }

    /// The oldest unanswered [`Output::AddCommits`] of the peer holds an invalid commit: the peer is dropped.
    /// `accepted`: valid ones before it, durable.
    pub fn commits_refused(&mut self, peer: PeerKey, accepted: &[CommitFacts], reason: String) {
        let _ = (peer, accepted, reason);
    }

    // Packs

    /// The pack is complete and readable.
    pub fn pack_stored(&mut self, pack: PackId) {
        let _ = pack;
    }

    /// These packs are durable.
    pub fn packs_durable(&mut self, packs: &[PackId]) {
        let _ = packs;
    }

    /// The pack is not here after all (damaged, or its writing failed): it is fetched anew.
    pub fn pack_lost(&mut self, pack: PackId) {
        let _ = pack;
    }

    /// These packs are not live any more.
    pub fn packs_released(&mut self, packs: &[PackId]) {
        let _ = packs;
    }

    /// An [`Output::WriteFrames`] of so many bytes is written.
    pub fn frames_written(&mut self, bytes: u64) {
        let _ = bytes;
    }

    // Time and control

    /// Time has passed. Call it at least once a second while peers are connected, and before other calls when `now` is
    /// known cheaply.
    pub fn tick(&mut self, now: Duration) {
        let _ = now;
    }

    /// Stops transfers of commits and packs both ways; rosters still flow.
    pub fn pause(&mut self) {}

    /// Ends a pause.
    pub fn resume(&mut self) {}

    // Status

    /// Connected peers.
    pub fn peers(&self) -> impl Iterator<Item = PeerKey> + '_ {
        std::iter::empty()
    }

    /// What is known about a peer.
    pub fn peer_status(&self, peer: PeerKey) -> Option<PeerStatus> {
        let _ = peer;
        None
    }

    /// The peer has our roster, commits and live packs, durably.
    pub fn peer_has_all_of_ours(&self, peer: PeerKey) -> bool {
        self.peer_status(peer).is_some_and(|status| status.has_all)
    }

    /// Every connected peer has told what it has, and we have it: roster, commits and live packs.
    pub fn we_have_all_announced(&self) -> bool {
        false
    }

    /// Live bytes that we lack.
    pub fn missing_bytes(&self) -> u64 {
        0
    }
}
