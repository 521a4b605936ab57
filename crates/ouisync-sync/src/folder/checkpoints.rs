//! Starting from a checkpoint: offering one to a peer that lacks commits whose bytes are gone, or that has none at all; and
//! taking one from a peer, one at a time.
//!
//! Knows nothing of what checkpoints contain: the host judges and installs them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use bytes::Bytes;
use ouisync_model::id::{CommitId, MemberId, Sequence};

use super::{
    DropReason, FolderSync, Output, PeerKey,
    commits::OwnChain,
    peer::{Offer, Peer},
};
use crate::{
    codec::{Blob, FolderMessage, MAX_SKELETON, SKELETON_PART},
    facts::FolderFacts,
};

const PART: u64 = SKELETON_PART as u64;
/// Bytes of a skeleton that are wanted and not received.
const WINDOW: u64 = 4 * PART;
/// Wanted parts of one peer that are kept.
const MAX_WANTED: usize = 64;

/// What the host thinks of an offered checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Worth fetching.
    Wanted,
    /// Its commit is held, and so everything that it covers.
    Known,
    /// Honest, for all that is known, and of no use here.
    Unusable,
    /// No honest device sends it: the peer is dropped.
    Refused(String),
}

/// A checkpoint on its way from a peer to the host.
pub(super) struct Incoming {
    peer: PeerKey,
    commit: CommitId,
    bytes: Bytes,
    length: u64,
    /// The host wants it.
    wanted: bool,
    asked: u64,
    got: u64,
    /// When the last part came.
    progress: Duration,
}

impl<F: FolderFacts> FolderSync<F> {
    /// Offers the newest checkpoint; false when there is none that the peer hasn't refused, or its skeleton has at most `replay` bytes.
    pub(super) fn offer_checkpoint(&mut self, peer: PeerKey, replay: u64) -> bool {
        let Some(state) = self.peers.get_mut(&peer) else {
            return false;
        };
        let offer = self.facts.checkpoint().filter(|offer| {
            (replay.saturating_add(1)..=MAX_SKELETON).contains(&offer.length)
                && !state.checkpoints.refused.contains(&offer.commit)
        });
        let Some((offer, bytes)) =
            offer.and_then(|offer| Some((offer, self.facts.commit_bytes(&offer.commit)?)))
        else {
            return false;
        };
        state.checkpoints.offered = Some(offer.commit);
        state.checkpoints.wanted.clear();
        self.send(
            peer,
            FolderMessage::Checkpoint {
                commit: Blob(bytes),
                length: offer.length,
            },
        );
        true
    }

    pub(super) fn on_skeleton_want(&mut self, peer: PeerKey, checkpoint: CommitId, offset: u64) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let asked = &mut state.checkpoints;
        if asked.offered != Some(checkpoint)
            || !offset.is_multiple_of(PART)
            || asked.wanted.len() >= MAX_WANTED
        {
            return self.drop_peer(peer, DropReason::ImpossibleCheckpoint);
        }
        asked.wanted.push_back(offset);
    }

    pub(super) fn flush_skeleton(&mut self, peer: PeerKey) {
        while let Some(state) = self.peers.get_mut(&peer)
            && state.allowed()
            && state.unsent <= self.limits.unsent
            && let Some(checkpoint) = state.checkpoints.offered
            && let Some(offset) = state.checkpoints.wanted.pop_front()
        {
            let data = self.facts.skeleton(&checkpoint, offset, SKELETON_PART);
            let Some(data) = data.filter(|data| !data.is_empty()) else {
                return self.drop_peer(peer, DropReason::ImpossibleCheckpoint);
            };
            let data = Blob(data);
            self.send(
                peer,
                FolderMessage::Skeleton {
                    checkpoint,
                    offset,
                    data,
                },
            );
        }
    }

    pub(super) fn on_settled(&mut self, peer: PeerKey, checkpoint: CommitId, installed: bool) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        if state.checkpoints.offered != Some(checkpoint) {
            return self.drop_peer(peer, DropReason::ImpossibleCheckpoint);
        }
        state.checkpoints.offered = None;
        state.checkpoints.wanted.clear();
        self.dirty = true;
        if !installed {
            state.checkpoints.refused.insert(checkpoint);
            return;
        }
        Self::mark_covered(&self.facts, &self.chains, state, &checkpoint);
        // It doesn't know which packs of these commits we lack.
        self.owe_inventory(peer);
    }

    /// The peer has the checkpoint and what it covers.
    fn mark_covered(
        facts: &F,
        own: &HashMap<MemberId, OwnChain>,
        state: &mut Peer,
        checkpoint: &CommitId,
    ) {
        let mut last: BTreeMap<MemberId, Sequence> = BTreeMap::new();
        let mut single: HashMap<MemberId, Vec<CommitId>> = HashMap::new();
        let mut visit = |id: CommitId, author: MemberId, sequence: Sequence| {
            if own.get(&author).is_some_and(|own| own.forked) {
                single.entry(author).or_default().push(id);
            } else {
                let last = last.entry(author).or_default();
                *last = sequence.max(*last);
            }
        };
        facts.visit_covered(checkpoint, &mut visit);
        if let Some(commit) = facts.commit(checkpoint) {
            visit(commit.id, commit.author, commit.sequence);
        }
        for (author, sequence) in last {
            state.commits.advance(author, sequence);
        }
        for (author, ids) in single {
            let known = state.commits.chains.entry(author).or_default();
            let mut known = known.exact.take().unwrap_or_default();
            known.extend(ids);
            state.commits.set_exact(author, known);
        }
    }

    /// Owes the peer the list of all packs that we lack.
    pub(super) fn owe_inventory(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let undurable = self.facts.undurable_packs();
        let owed = &mut state.packs.inventory_owed;
        owed.extend(self.fetches.missing.keys());
        owed.extend(self.facts.offloaded_packs());
        owed.extend(&undurable);
        state.packs.holds_owed.extend(&undurable);
    }

    pub(super) fn on_checkpoint(&mut self, peer: PeerKey, bytes: Bytes, length: u64) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        if !state.commits.ready {
            return self.drop_peer(peer, DropReason::NoRight);
        }
        if state.checkpoints.offer.is_some() || length == 0 || length > MAX_SKELETON {
            return self.drop_peer(peer, DropReason::ImpossibleCheckpoint);
        }
        state.checkpoints.offer = Some(Offer {
            commit: CommitId::from_bytes(*blake3::hash(&bytes).as_bytes()),
            bytes,
            length,
            stalled: false,
        });
        self.dirty = true;
        self.next_incoming();
    }

    /// Turns to the next offer when none is being taken.
    pub(super) fn next_incoming(&mut self) {
        if self.incoming.is_some() || self.paused {
            return;
        }
        let offers = self.peers.iter().filter_map(|(peer, state)| {
            let offer = state.checkpoints.offer.as_ref()?;
            // An answered offer stays until the answer is out.
            state.checkpoints.answer.is_none().then_some((peer, offer))
        });
        let Some((peer, offer)) = offers.min_by_key(|(peer, offer)| (offer.stalled, **peer)) else {
            return;
        };
        let (peer, bytes, length) = (*peer, offer.bytes.clone(), offer.length);
        self.incoming = Some(Incoming {
            peer,
            commit: offer.commit,
            bytes: bytes.clone(),
            length,
            wanted: false,
            asked: 0,
            got: 0,
            progress: self.now,
        });
        self.outputs.push_back(Output::JudgeCheckpoint {
            peer,
            commit: bytes,
            length,
        });
    }

    /// What the host thinks of an [`Output::JudgeCheckpoint`]. Call it also after the peer has gone.
    pub fn checkpoint_judged(&mut self, peer: PeerKey, verdict: Verdict) {
        match verdict {
            Verdict::Wanted => {
                if let Some(incoming) = self.incoming.as_mut().filter(|one| one.peer == peer) {
                    incoming.wanted = true;
                    incoming.progress = self.now;
                    self.ask_parts();
                }
            }
            Verdict::Known => self.settle_offer(peer, true),
            Verdict::Unusable => self.settle_offer(peer, false),
            Verdict::Refused(reason) => self.checkpoint_refused(peer, reason),
        }
    }

    fn ask_parts(&mut self) {
        while let Some(incoming) = &mut self.incoming
            && incoming.asked < incoming.length
            && incoming.asked - incoming.got < WINDOW
        {
            let (peer, checkpoint, offset) = (incoming.peer, incoming.commit, incoming.asked);
            let length = PART.min(incoming.length - offset);
            incoming.asked += length;
            if let Some(state) = self.peers.get_mut(&peer) {
                let asked = &mut state.checkpoints.asked;
                asked.push_back((checkpoint, offset, length));
            }
            self.send(peer, FolderMessage::SkeletonWant { checkpoint, offset });
        }
    }

    pub(super) fn on_skeleton(
        &mut self,
        peer: PeerKey,
        checkpoint: CommitId,
        offset: u64,
        data: Bytes,
    ) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let expected = state.checkpoints.asked.pop_front();
        if expected != Some((checkpoint, offset, data.len() as u64)) {
            return self.drop_peer(peer, DropReason::ImpossibleCheckpoint);
        }
        // Parts that come after another peer's offer was taken up instead are of no use.
        let Some(incoming) = self.incoming.as_mut().filter(|incoming| {
            incoming.peer == peer && incoming.commit == checkpoint && incoming.got == offset
        }) else {
            return;
        };
        incoming.got += data.len() as u64;
        incoming.progress = self.now;
        self.outputs
            .push_back(Output::KeepSkeleton { offset, data });
        if incoming.got == incoming.length {
            let commit = incoming.bytes.clone();
            self.outputs
                .push_back(Output::AddCheckpoint { peer, commit });
        } else {
            self.ask_parts();
        }
    }

    /// The [`Output::AddCheckpoint`] of the peer is installed, durably: its commit is here with all that it covers, and the
    /// facts tell so. Call it also after the peer has gone.
    pub fn checkpoint_installed(&mut self, peer: PeerKey) {
        let commit = self.incoming.as_ref().map(|incoming| incoming.commit);
        let forked: HashSet<MemberId> = Self::load_chains(&self.facts)
            .into_iter()
            .filter(|(_, chain)| chain.forked)
            .map(|(author, _)| author)
            .collect();
        let before = std::mem::replace(&mut self.chains, Self::load_chains(&self.facts));
        let forked = forked
            .into_iter()
            .filter(|author| before.get(author).is_none_or(|chain| !chain.forked));
        let forked: Vec<_> = forked.collect();
        self.forget_released();
        for missing in self.facts.missing_packs() {
            self.fetches
                .insert(missing.pack, missing.size, missing.lamport);
        }
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for key in peers {
            let Some(state) = self.peers.get_mut(&key) else {
                continue;
            };
            let facts = &self.facts;
            state
                .commits
                .claimed
                .retain(|commit| facts.commit(commit).is_none());
            if !state.commits.ready {
                continue;
            }
            for author in &forked {
                let heard = state.commits.heard;
                let chain = state.commits.chains.entry(*author).or_default();
                if chain.exact.is_none() {
                    // Its list tells what it has: it answers ours.
                    chain.awaiting = heard;
                    state.commits.set_exact(*author, HashSet::new());
                    state.commits.owe_list(*author);
                }
            }
            if key == peer
                && let Some(commit) = &commit
            {
                Self::mark_covered(&self.facts, &self.chains, state, commit);
            }
            state.commits.heads_owed.extend(self.chains.keys());
            if state.commits.heard {
                state.commits.behind.extend(self.chains.keys());
            }
            self.compare_packs(key, key == peer);
            self.owe_inventory(key);
        }
        self.refresh_all();
        self.settle_offer(peer, true);
    }

    /// Nothing is fetched or owed of packs that are not live any more.
    fn forget_released(&mut self) {
        let lacked = self
            .peers
            .values()
            .flat_map(|peer| peer.packs.lacking.keys());
        let known: HashSet<_> = self.fetches.missing.keys().chain(lacked).copied().collect();
        let is_dead = |pack: &_| self.facts.pack(pack).is_none_or(|facts| !facts.live);
        let dead: Vec<_> = known.into_iter().filter(is_dead).collect();
        self.packs_released(&dead);
    }

    /// Finds out which of the packs that became live the peer lacks. `has_all`: it has every commit that adds them.
    fn compare_packs(&mut self, peer: PeerKey, has_all: bool) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let listed: Vec<_> = state.packs.unknown_lacking.keys().copied().collect();
        for pack in listed {
            if let Some(facts) = self.facts.pack(&pack).filter(|facts| facts.live)
                && let Some(told) = state.packs.unknown_lacking.remove(&pack)
            {
                state.packs.lack(pack, facts.size, told);
            }
        }
        if has_all || !state.commits.heard {
            return;
        }
        for (pack, size) in self.facts.live_packs() {
            let commits = &state.commits;
            let has_one = self.facts.adds_of(&pack).iter().any(|add| {
                self.facts
                    .commit(add)
                    .is_some_and(|commit| commits.has(&commit))
            });
            if !has_one {
                state.packs.take_to_lack(pack, size);
            }
        }
    }

    /// The [`Output::AddCheckpoint`] of the peer is honest and can't be used here.
    pub fn checkpoint_unusable(&mut self, peer: PeerKey) {
        self.settle_offer(peer, false);
    }

    /// The checkpoint is one that no honest device sends: the peer is dropped.
    pub fn checkpoint_refused(&mut self, peer: PeerKey, reason: String) {
        self.drop_peer(peer, DropReason::RefusedCheckpoint(reason));
        self.dirty = true;
    }

    /// Owes the peer the answer to its offer.
    fn settle_offer(&mut self, peer: PeerKey, installed: bool) {
        if let Some(state) = self.peers.get_mut(&peer)
            && let Some(offer) = &state.checkpoints.offer
        {
            state.checkpoints.answer = Some((offer.commit, installed));
        }
        if self.incoming.as_ref().is_some_and(|one| one.peer == peer) {
            self.incoming = None;
        }
        self.dirty = true;
        self.next_incoming();
    }

    /// Answers an offer, after the inventory that goes with it.
    pub(super) fn flush_settled(&mut self, peer: PeerKey) {
        if let Some(state) = self.peers.get_mut(&peer)
            && state.packs.inventory_owed.is_empty()
            && let Some((checkpoint, installed)) = state.checkpoints.answer.take()
        {
            state.checkpoints.offer = None;
            self.dirty = true;
            self.send(
                peer,
                FolderMessage::Settled {
                    checkpoint,
                    installed,
                },
            );
        }
    }

    /// The peer is gone: its checkpoint is taken from another one.
    pub(super) fn abandon_incoming(&mut self, peer: PeerKey) {
        if self.incoming.as_ref().is_some_and(|one| one.peer == peer) {
            self.incoming = None;
            self.next_incoming();
        }
    }

    /// Turns to another peer's offer when the one being taken makes no progress.
    pub(super) fn tick_incoming(&mut self) {
        let Some(incoming) = &self.incoming else {
            return;
        };
        let waits = incoming.wanted
            && incoming.got < incoming.length
            && self.now.saturating_sub(incoming.progress) >= self.limits.stall;
        let current = incoming.peer;
        let others = self.peers.iter().any(|(peer, state)| {
            let checkpoints = &state.checkpoints;
            let offer = checkpoints.offer.as_ref();
            *peer != current
                && checkpoints.answer.is_none()
                && offer.is_some_and(|offer| !offer.stalled)
        });
        if waits && others {
            if let Some(state) = self.peers.get_mut(&current)
                && let Some(offer) = &mut state.checkpoints.offer
            {
                offer.stalled = true;
            }
            self.incoming = None;
            self.next_incoming();
        }
    }
}
