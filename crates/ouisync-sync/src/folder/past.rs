//! Bytes of commits that are known here without them: asking every peer for some, and telling peers what is here.
//!
//! Which are wanted is the host's to say, a few hundred at a time. They are of the past, so they come after everything else; a
//! peer has at most one question to answer, and what comes is checked against the ids that were asked for.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use ouisync_model::id::CommitId;

use super::{DropReason, FolderSync, Output, PeerKey};
use crate::{
    codec::{BATCH_BYTES, Blob, FolderMessage, MAX_PAST},
    facts::FolderFacts,
};

/// What one peer is asked, and asks.
#[derive(Default)]
pub(super) struct PeerPast {
    /// It was asked for these and hasn't answered.
    asked: Vec<CommitId>,
    since: Duration,
    /// It took too long: others are asked meanwhile.
    stalled: bool,
    /// Of those wanted now, what it doesn't hold.
    lacks: HashSet<CommitId>,
    /// What it asked for and is owed an answer about.
    question: Vec<CommitId>,
}

impl<F: FolderFacts> FolderSync<F> {
    /// Fetches the bytes of these commits, in this order, and of no others any more; they come as [`Output::KeepPast`]. Peers that
    /// said that they lack some are asked again.
    pub fn want_past(&mut self, commits: impl IntoIterator<Item = CommitId>) {
        self.past = commits.into_iter().collect();
        for state in self.peers.values_mut() {
            state.past.lacks.clear();
        }
    }

    /// How many of the wanted commits some connected peer may still send.
    pub fn past_coming(&self) -> usize {
        let may_come = |commit: &&CommitId| {
            self.peers.values().any(|state| {
                state.exchanged() && !state.past.stalled && !state.past.lacks.contains(*commit)
            })
        };
        self.past.iter().filter(may_come).count()
    }

    /// Asks a peer that has nothing to answer for what nobody else is being asked for.
    pub(super) fn flush_past_wants(&mut self, peer: PeerKey) {
        if self.past.is_empty() {
            return;
        }
        let Some(state) = self.peers.get(&peer) else {
            return;
        };
        if !state.exchanged() || !state.past.asked.is_empty() {
            return;
        }
        let others = self.peers.values().filter(|other| !other.past.stalled);
        let asked: HashSet<CommitId> = others
            .flat_map(|other| &other.past.asked)
            .copied()
            .collect();
        let free = self.past.iter();
        let free = free.filter(|id| !asked.contains(*id) && !state.past.lacks.contains(*id));
        let commits: Vec<CommitId> = free.take(MAX_PAST).copied().collect();
        let now = self.now;
        if let Some(state) = self.peers.get_mut(&peer)
            && !commits.is_empty()
        {
            state.past.asked.clone_from(&commits);
            state.past.since = now;
            self.send(peer, FolderMessage::PastWant { commits });
        }
    }

    pub(super) fn on_past_want(&mut self, peer: PeerKey, commits: Vec<CommitId>) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        if commits.is_empty() || !state.past.question.is_empty() {
            return self.drop_peer(peer, DropReason::ImpossiblePast);
        }
        state.past.question = commits;
    }

    /// Answers a peer when it isn't owed anything newer.
    pub(super) fn flush_past(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        if state.past.question.is_empty() || state.unsent > self.limits.unsent {
            return;
        }
        let question = std::mem::take(&mut state.past.question);
        // Who may not have them, or asks while nothing is sent, hears that they aren't here.
        let closed = self.paused || !state.allowed();
        let (mut commits, mut size, mut answered) = (Vec::new(), 0, 0);
        for id in &question {
            let bytes = (!closed).then(|| self.facts.commit_bytes(id)).flatten();
            let length = bytes.as_ref().map_or(0, Bytes::len);
            if !commits.is_empty() && size + length > BATCH_BYTES {
                break;
            }
            size += length;
            commits.extend(bytes.map(Blob));
            answered += 1;
        }
        self.send(peer, FolderMessage::Past { commits, answered });
    }

    pub(super) fn on_past(&mut self, peer: PeerKey, commits: Vec<Blob>, answered: u32) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        state.past.stalled = false;
        let asked = std::mem::take(&mut state.past.asked);
        let Some(told) = asked
            .get(..answered as usize)
            .filter(|told| !told.is_empty())
        else {
            return self.drop_peer(peer, DropReason::ImpossiblePast);
        };
        let mut left: VecDeque<Bytes> = commits.into_iter().map(|Blob(bytes)| bytes).collect();
        let mut next = left.front().map(id_of);
        let mut held = BTreeSet::new();
        let mut outputs = Vec::new();
        for id in told {
            if next != Some(*id) {
                state.past.lacks.insert(*id);
                continue;
            }
            if let Some(bytes) = left.pop_front()
                && held.insert(*id)
            {
                outputs.push(Output::KeepPast { commit: *id, bytes });
            }
            next = left.front().map(id_of);
        }
        if next.is_some() {
            return self.drop_peer(peer, DropReason::ImpossiblePast);
        }
        let wanted: HashSet<CommitId> = self.past.iter().copied().collect();
        for output in outputs {
            // What came late was had from another peer, or is of no interest any more.
            if matches!(&output, Output::KeepPast { commit, .. } if wanted.contains(commit)) {
                self.outputs.push_back(output);
            }
        }
        self.past.retain(|id| !held.contains(id));
        // It may be asked for the rest at once.
        self.dirty = true;
    }

    /// Others are asked for what a peer doesn't answer.
    pub(super) fn tick_past(&mut self) {
        for state in self.peers.values_mut() {
            let past = &mut state.past;
            past.stalled = !past.asked.is_empty()
                && (past.stalled || self.now.saturating_sub(past.since) >= self.limits.stall);
        }
    }
}

fn id_of(bytes: &Bytes) -> CommitId {
    CommitId::from_bytes(*blake3::hash(bytes).as_bytes())
}
