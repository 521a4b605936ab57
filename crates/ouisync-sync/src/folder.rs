//! One folder with all its connected peers: roster, commits, inventory, packs.
//!
//! Deterministic: the same calls give the same outputs. Calls only change state and queue outputs; the host drains
//! [`FolderSync::poll_output`] after every call or group of calls.

mod checkpoints;
mod commits;
mod fetch;
mod inventory;
mod output;
mod past;
mod peer;
mod possession;
mod roster;
mod serve;
mod transfer;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use ouisync_crypto::proof::MemberProof;
use ouisync_model::id::{CommitId, InvitationId, MemberId, PackId};

use self::{
    checkpoints::Incoming,
    commits::OwnChain,
    fetch::Fetches,
    peer::{Peer, WaitingWant},
};
pub use self::{
    checkpoints::Verdict,
    output::{DropReason, Output, PeerKey},
};
use crate::{
    codec::{Blob, Contact, FolderMessage, MAX_ADDRESS, MAX_ADDRESSES, MAX_CONTACTS, MAX_MESSAGE},
    facts::FolderFacts,
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
    /// Bytes of a checkpoint's skeleton above which a newcomer starts from it although all commits are at hand. Below, it gets the commits,
    /// and so the history as well.
    pub replay: u64,
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
            replay: 4 << 20,
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
    /// Live bytes known here that it doesn't hold durably, and wants.
    pub missing_bytes: u64,
    /// It has our roster, all our commits and all our live packs, durably, but for those that it offloaded.
    pub has_all: bool,
}

/// The state machine of one folder.
pub struct FolderSync<F> {
    facts: F,
    limits: Limits,
    now: Duration,
    paused: bool,
    peers: BTreeMap<PeerKey, Peer>,
    chains: HashMap<MemberId, OwnChain>,
    fetches: Fetches,
    /// See [`Self::take_offered`].
    offered: BTreeSet<PackId>,
    /// The checkpoint whose skeleton is coming in.
    incoming: Option<Incoming>,
    /// Commits without bytes here whose bytes are wanted.
    past: Vec<CommitId>,
    /// Bytes of frames that the host has not written yet.
    unwritten: u64,
    outputs: VecDeque<Output>,
    dirty: bool,
}

impl<F: FolderFacts> FolderSync<F> {
    /// A folder without peers. `now` is the time since the host's start.
    pub fn new(facts: F, limits: Limits, now: Duration) -> Self {
        let chains = Self::load_chains(&facts);
        let mut fetches = Fetches::default();
        for missing in facts.missing_packs() {
            fetches.insert(missing.pack, missing.size, missing.lamport);
        }
        Self {
            facts,
            limits,
            now,
            paused: false,
            peers: BTreeMap::new(),
            chains,
            fetches,
            offered: BTreeSet::new(),
            incoming: None,
            past: Vec::new(),
            unwritten: 0,
            outputs: VecDeque::new(),
            dirty: true,
        }
    }

    /// The host's facts.
    pub fn facts(&self) -> &F {
        &self.facts
    }

    /// The host's facts, to change them; then call what announces the change.
    pub fn facts_mut(&mut self) -> &mut F {
        &mut self.facts
    }

    /// Ends the state machine.
    pub fn into_facts(self) -> F {
        self.facts
    }

    /// The next thing to do; `None` when all is done for now.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.flush();
        }
        if self.outputs.is_empty() && std::mem::take(&mut self.dirty) {
            return Some(Output::StatusChanged);
        }
        self.outputs.pop_front()
    }

    /// Makes messages of what is owed, as far as peers and host keep up.
    fn flush(&mut self) {
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for peer in peers {
            self.flush_roster(peer);
            // The inventory comes before the Heads that announce its packs, and before what changes it.
            self.flush_inventory(peer);
            self.flush_settled(peer);
            self.flush_heads(peer);
            if !self.paused {
                self.flush_commits(peer);
                self.flush_skeleton(peer);
            }
            self.flush_holds(peer);
            self.flush_accepted(peer);
            if !self.paused {
                self.flush_wants(peer);
                self.flush_serve(peer);
                self.flush_past_wants(peer);
            }
            self.flush_past(peer);
        }
    }

    /// A channel opened. `proof` is our member key's proof in this connection, if the keys are unlocked.
    pub fn peer_connected(&mut self, peer: PeerKey, rights: Rights, proof: Option<MemberProof>) {
        let (least, greatest) = self.limits.window;
        let window = (greatest / 2).max(least);
        self.peers.insert(peer, Peer::new(rights, window, self.now));
        if let Some(proof) = proof {
            self.send(peer, FolderMessage::Member { proof });
        }
        self.greet(peer);
        self.dirty = true;
    }

    /// The folder's epoch changed here, so the same credential of the peer means something else.
    pub fn rights_changed(&mut self, peer: PeerKey, rights: Rights) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.rights = rights;
            self.dirty = true;
            self.roster_changed();
        }
    }

    /// The channel or its connection closed.
    pub fn peer_disconnected(&mut self, peer: PeerKey) {
        if let Some(state) = self.peers.remove(&peer) {
            self.release_requests(peer, &state.requests);
            self.abandon_incoming(peer);
            self.dirty = true;
        }
    }

    /// A message of the peer, in order.
    pub fn message(&mut self, peer: PeerKey, message: FolderMessage) {
        if !self.peers.contains_key(&peer) {
            return;
        }
        match message {
            FolderMessage::Member { proof } => {
                self.outputs.push_back(Output::ProveMember { peer, proof })
            }
            FolderMessage::Roster { heads } => self.on_roster(peer, heads),
            FolderMessage::RosterWant { have } => self.on_roster_want(peer, have),
            FolderMessage::RosterEntries { entries, more: _ } => {
                self.on_roster_entries(peer, entries)
            }
            FolderMessage::Heads { chains } => self.on_heads(peer, chains),
            FolderMessage::AuthorCommits {
                author,
                commits,
                more,
            } => {
                self.on_author_commits(peer, author, &commits, more);
            }
            FolderMessage::Commits { commits, lacking } => self.on_commits(peer, commits, lacking),
            FolderMessage::Accepted { commits } => self.on_accepted(peer, commits),
            FolderMessage::Inventory { lacking } => self.on_inventory(peer, lacking),
            FolderMessage::Holds { packs } => self.on_holds(peer, &packs, false),
            FolderMessage::Received { packs } => self.on_holds(peer, &packs, true),
            FolderMessage::Want {
                pack,
                first,
                count,
                hashes,
            } => {
                self.on_want(
                    peer,
                    WaitingWant {
                        pack,
                        first,
                        count,
                        hashes,
                    },
                );
            }
            FolderMessage::Hashes { pack, hashes } => self.on_hashes(peer, pack, hashes),
            FolderMessage::Unavailable { pack, first, count } => {
                self.on_unavailable(peer, pack, first, count)
            }
            FolderMessage::Checkpoint {
                commit: Blob(commit),
                length,
            } => self.on_checkpoint(peer, commit, length),
            FolderMessage::SkeletonWant { checkpoint, offset } => {
                self.on_skeleton_want(peer, checkpoint, offset)
            }
            FolderMessage::Skeleton {
                checkpoint,
                offset,
                data: Blob(data),
            } => self.on_skeleton(peer, checkpoint, offset, data),
            FolderMessage::Settled {
                checkpoint,
                installed,
            } => self.on_settled(peer, checkpoint, installed),
            FolderMessage::Offloaded { packs } => self.on_offloaded(peer, &packs),
            FolderMessage::Challenge { nonce, samples } => self.on_challenge(peer, nonce, samples),
            FolderMessage::Possession { nonce, proofs } => self.outputs.push_back(Output::Judge {
                peer,
                nonce,
                proofs,
            }),
            FolderMessage::PastWant { commits } => self.on_past_want(peer, commits),
            FolderMessage::Past { commits, answered } => self.on_past(peer, commits, answered),
            FolderMessage::Contacts { contacts } => {
                // Whoever is not let in yet must not make us dial.
                if self.peers.get(&peer).is_some_and(Peer::allowed) {
                    self.outputs.push_back(Output::Contacts { peer, contacts });
                }
            }
        }
    }

    /// `bytes` of [`Output::Send`] messages (their [`FolderMessage::size_hint`]) left for the network.
    pub fn sent(&mut self, peer: PeerKey, bytes: usize) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.unsent = state.unsent.saturating_sub(bytes);
        }
    }

    /// Proves to a connected peer which member we are.
    pub fn prove(&mut self, peer: PeerKey, proof: MemberProof) {
        if self.peers.contains_key(&peer) {
            self.send(peer, FolderMessage::Member { proof });
        }
    }

    /// The peer's proof is right and its member has a role.
    pub fn member_proven(&mut self, peer: PeerKey, member: MemberId) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.member = Some(member);
            self.dirty = true;
            self.roster_changed();
        }
    }

    /// The peer's proof is wrong or its member is removed: it is dropped.
    pub fn member_refused(&mut self, peer: PeerKey, reason: String) {
        self.drop_peer(peer, DropReason::RefusedMember(reason));
    }

    /// The peer's member is removed: it hears of the roster and of nothing else any more, so that it learns why. The host
    /// drops it soon after with [`Self::member_refused`].
    pub fn member_dismissed(&mut self, peer: PeerKey) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.member = None;
            state.rights = Rights::Older;
            self.dirty = true;
            self.refuse_waiting(peer);
        }
    }

    /// Another epoch is the current one: whoever opened its channel with another one must prove itself anew.
    pub fn epoch_changed(&mut self) {
        for state in self
            .peers
            .values_mut()
            .filter(|state| state.rights == Rights::Current)
        {
            state.rights = Rights::Older;
        }
        let peers: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, state)| !state.allowed())
            .map(|(key, _)| *key)
            .collect();
        for peer in peers {
            self.refuse_waiting(peer);
        }
        self.dirty = true;
    }

    /// Tells a peer where devices are; `None`: every peer that may know. Lists above the limits are cut.
    pub fn send_contacts(&mut self, peer: Option<PeerKey>, mut contacts: Vec<Contact>) {
        contacts.truncate(MAX_CONTACTS);
        for contact in &mut contacts {
            contact
                .addresses
                .retain(|address| address.len() <= MAX_ADDRESS);
            contact.addresses.truncate(MAX_ADDRESSES);
        }
        let peers: Vec<_> = self
            .peers
            .iter()
            .filter(|(key, state)| peer.is_none_or(|peer| peer == **key) && state.allowed())
            .map(|(key, _)| *key)
            .collect();
        for peer in peers {
            self.send(
                peer,
                FolderMessage::Contacts {
                    contacts: contacts.clone(),
                },
            );
        }
    }

    /// Time has passed. Call it at least once a second while peers are connected, and before other calls when `now` is
    /// known cheaply.
    pub fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
        self.tick_requests();
        self.tick_incoming();
        self.tick_past();
    }

    /// Stops sending commits, fetching and serving; rosters and lists still flow.
    pub fn pause(&mut self) {
        self.paused = true;
        let peers: Vec<_> = self.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.refuse_waiting(peer));
        self.dirty = true;
    }

    /// Ends a pause.
    pub fn resume(&mut self) {
        self.paused = false;
        for state in self.peers.values_mut() {
            Self::offer_refused(&self.facts, state);
        }
        self.next_incoming();
        self.dirty = true;
    }

    /// Connected peers.
    pub fn peers(&self) -> impl Iterator<Item = PeerKey> + '_ {
        self.peers.keys().copied()
    }

    /// What is known about a peer.
    pub fn peer_status(&self, peer: PeerKey) -> Option<PeerStatus> {
        let state = self.peers.get(&peer)?;
        let exchanged = state.exchanged();
        let has_all = exchanged
            && state.commits.all_accepted()
            && state.checkpoints.offered.is_none()
            && state.packs.awaited == 0
            && self.same_roster(peer);
        Some(PeerStatus {
            member: state.member,
            exchanged,
            missing_bytes: state.packs.awaited_bytes,
            has_all,
        })
    }

    /// The peer has our roster, commits and live packs, durably, but for those that it offloaded.
    pub fn peer_has_all_of_ours(&self, peer: PeerKey) -> bool {
        self.peer_status(peer).is_some_and(|status| status.has_all)
    }

    /// Every connected peer that may exchange commits has told what it has, and we have it: roster, commits and live packs.
    pub fn we_have_all_announced(&self) -> bool {
        let told_all = |state: &Peer| {
            state.exchanged()
                && state.roster.pending == 0
                && state.commits.claimed.is_empty()
                && state.commits.batches.is_empty()
                && state.checkpoints.offer.is_none()
        };
        self.fetches.missing.len() == self.fetches.late
            && self
                .peers
                .values()
                .filter(|state| state.allowed())
                .all(told_all)
    }

    /// Live bytes that we lack, and those of the past that somebody waits for.
    pub fn missing_bytes(&self) -> u64 {
        self.fetches.bytes
    }

    /// Bytes that this state machine keeps waiting for peers and host, a bound for tests and diagnostics.
    pub fn waiting_bytes(&self) -> u64 {
        let peers = self.peers.values();
        let waiting = |state: &Peer| {
            (state.unsent + state.commits.batch_bytes) as u64
                + state.serving.bytes
                + state.requests.outstanding
        };
        self.unwritten + peers.map(waiting).sum::<u64>()
    }

    fn send(&mut self, peer: PeerKey, message: FolderMessage) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        state.unsent += message.size_hint();
        // Lists and batches wait for the peer; small answers can pile up only if it asks without reading.
        if state.unsent > 4 * self.limits.unsent + 2 * MAX_MESSAGE {
            return self.drop_peer(peer, DropReason::Flood);
        }
        self.outputs.push_back(Output::Send { peer, message });
    }

    fn drop_peer(&mut self, peer: PeerKey, reason: DropReason) {
        if self.peers.contains_key(&peer) {
            self.peer_disconnected(peer);
            self.outputs.push_back(Output::Disconnect { peer, reason });
        }
    }
}
