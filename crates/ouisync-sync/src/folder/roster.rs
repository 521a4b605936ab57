//! Exchange of roster entries: by heads and closure differences. Entries go out before any commit that may name them.

use bytes::Bytes;
use ouisync_model::id::RosterEntryId;

use super::{DropReason, FolderSync, Output, PeerKey};
use crate::{
    codec::{BATCH_BYTES, Blob, FolderMessage, MAX_ROSTER_ENTRIES, MAX_ROSTER_HEADS},
    facts::FolderFacts,
};

/// How often the same announced heads are asked for.
const ASKS: u8 = 3;
/// Batches of entries of one peer that may wait for the host.
const MAX_PENDING: u32 = 256;

impl<F: FolderFacts> FolderSync<F> {
    pub(super) fn greet(&mut self, peer: PeerKey) {
        let heads = self.own_roster_heads();
        if let Some(state) = self.peers.get_mut(&peer) {
            state.roster.told.clone_from(&heads);
        }
        self.send(peer, FolderMessage::Roster { heads });
    }

    pub(super) fn own_roster_heads(&self) -> Vec<RosterEntryId> {
        let mut heads = self.facts.roster_heads();
        heads.sort_unstable();
        heads.truncate(MAX_ROSTER_HEADS);
        heads
    }

    pub(super) fn on_roster(&mut self, peer: PeerKey, mut heads: Vec<RosterEntryId>) {
        heads.sort_unstable();
        heads.dedup();
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        state.roster.heads = Some(heads);
        state.roster.asked = 0;
        self.dirty = true;
        self.settle_roster(peer);
    }

    pub(super) fn on_roster_want(&mut self, peer: PeerKey, have: Vec<RosterEntryId>) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.roster.wanted = Some(have);
        }
    }

    pub(super) fn on_roster_entries(&mut self, peer: PeerKey, entries: Vec<Blob>) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        state.roster.pending += 1;
        if state.roster.pending > MAX_PENDING {
            return self.drop_peer(peer, DropReason::Flood);
        }
        let entries = entries.into_iter().map(|Blob(bytes)| bytes).collect();
        self.outputs
            .push_back(Output::AddRosterEntries { peer, entries });
    }

    /// The roster grew by own entries.
    pub fn roster_changed(&mut self) {
        let heads = self.own_roster_heads();
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for peer in peers {
            let Some(state) = self.peers.get_mut(&peer) else {
                continue;
            };
            if state.roster.told != heads {
                state.roster.told.clone_from(&heads);
                // Before its first Roster the peer's closure is unknown: it will ask.
                if let Some(known) = state.roster.heads.clone() {
                    self.send_entries(peer, &known);
                }
                self.send(
                    peer,
                    FolderMessage::Roster {
                        heads: heads.clone(),
                    },
                );
            }
            self.settle_roster(peer);
        }
        self.dirty = true;
    }

    /// The oldest unanswered [`Output::AddRosterEntries`] of the peer is in the roster, durably; nothing of it need be new.
    pub fn roster_accepted(&mut self, peer: PeerKey) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.roster.pending = state.roster.pending.saturating_sub(1);
        }
        self.roster_changed();
    }

    /// An entry of the peer is invalid: the peer is dropped.
    pub fn roster_refused(&mut self, peer: PeerKey, reason: String) {
        self.drop_peer(peer, DropReason::RefusedRoster(reason));
        self.roster_changed();
    }

    /// Asks for what is unknown; when all is known the peer may send commits.
    fn settle_roster(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let Some(heads) = &state.roster.heads else {
            return;
        };
        if heads.iter().all(|head| self.facts.has_roster_entry(head)) {
            self.open_exchange(peer);
        } else if state.roster.pending == 0 && state.roster.asked < ASKS {
            state.roster.asked += 1;
            let have = self.own_roster_heads();
            self.send(peer, FolderMessage::RosterWant { have });
        }
    }

    pub(super) fn flush_roster(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        if state.unsent <= self.limits.unsent
            && let Some(have) = state.roster.wanted.take()
        {
            self.send_entries(peer, &have);
        }
    }

    fn send_entries(&mut self, peer: PeerKey, have: &[RosterEntryId]) {
        let entries = self.facts.roster_entries_since(have);
        let mut batch: Vec<Blob> = Vec::new();
        let mut size = 0;
        let mut entries = entries.into_iter().peekable();
        while let Some(entry) = entries.next() {
            size += Bytes::len(&entry);
            batch.push(Blob(entry));
            let more = entries.peek().is_some();
            if !more || size >= BATCH_BYTES || batch.len() == MAX_ROSTER_ENTRIES {
                self.send(
                    peer,
                    FolderMessage::RosterEntries {
                        entries: std::mem::take(&mut batch),
                        more,
                    },
                );
                size = 0;
            }
        }
    }

    /// The peer told heads that are ours: it has all that was told it, durably.
    pub fn same_roster(&self, peer: PeerKey) -> bool {
        self.peers.get(&peer).is_some_and(|state| {
            state.roster.pending == 0
                && state
                    .roster
                    .heads
                    .as_ref()
                    .is_some_and(|heads| *heads == state.roster.told)
        })
    }
}
