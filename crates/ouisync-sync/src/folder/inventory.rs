//! Who lacks which live packs: what peers tell, and what they are told.

use std::collections::BTreeSet;

use ouisync_model::{
    id::{Lamport, PackId},
    operation::PackSize,
};

use super::{FolderSync, PeerKey, peer::Told};
use crate::{
    codec::{FolderMessage, MAX_IDS},
    facts::{FolderFacts, PackFacts, PackState},
};

/// Packs that a peer may list as lacking and that are not live here. More are ignored: the peer tells again when the
/// commits that add them have come.
const MAX_UNKNOWN: usize = 1 << 18;
/// Ids of one list message, so that other messages come between.
const LIST: usize = 8192;
/// Packs of history that peers offer and that the host hasn't looked at.
const MAX_OFFERED: usize = 1024;

impl<F: FolderFacts> FolderSync<F> {
    pub(super) fn on_inventory(&mut self, peer: PeerKey, lacking: Vec<PackId>) {
        for pack in lacking {
            let Some(state) = self.peers.get_mut(&peer) else {
                return;
            };
            match self.facts.pack(&pack).filter(|facts| facts.live) {
                Some(facts) => {
                    // A list doesn't take back that the pack is servable: Holds of the same moment follow it.
                    state.packs.lack(pack, facts.size, Told::LISTED);
                    self.refresh(&pack);
                }
                None if state.packs.unknown_lacking.len() < MAX_UNKNOWN => {
                    state.packs.unknown_lacking.insert(pack, Told::LISTED);
                }
                None => {}
            }
        }
        self.dirty = true;
    }

    pub(super) fn on_holds(&mut self, peer: PeerKey, packs: &[PackId], durable: bool) {
        for pack in packs {
            let Some(state) = self.peers.get_mut(&peer) else {
                return;
            };
            state.packs.unavailable.remove(pack);
            let is_live = state.packs.lacking.contains_key(pack);
            if durable {
                state.packs.forget(pack);
                state.packs.unknown_lacking.remove(pack);
            } else if let Some(lack) = state.packs.lacking.get_mut(pack) {
                lack.told.servable = true;
            } else if let Some(told) = state.packs.unknown_lacking.get_mut(pack) {
                told.servable = true;
            }
            let is_late = |facts: PackFacts| !facts.live && facts.state == PackState::Missing;
            if !is_live
                && self.offered.len() < MAX_OFFERED
                && self.facts.pack(pack).is_some_and(is_late)
            {
                self.offered.insert(*pack);
            }
            self.refresh(pack);
        }
        self.dirty = true;
    }

    /// The pack is complete and readable.
    pub fn pack_stored(&mut self, pack: PackId) {
        self.fetches.remove(&pack);
        for state in self.peers.values_mut().filter(|state| state.commits.ready) {
            state.packs.holds_owed.push(pack);
        }
        self.dirty = true;
    }

    /// These packs are durable.
    pub fn packs_durable(&mut self, packs: &[PackId]) {
        for pack in packs {
            self.fetches.remove(pack);
        }
        for state in self.peers.values_mut().filter(|state| state.commits.ready) {
            state.packs.received_owed.extend(packs);
        }
        self.dirty = true;
    }

    /// The pack is not here after all (damaged, or its writing failed): it is fetched anew.
    pub fn pack_lost(&mut self, pack: PackId) {
        self.fetches.remove(&pack);
        let wanted = |facts: &PackFacts| facts.live && !facts.offloaded;
        let Some(facts) = self.facts.pack(&pack).filter(wanted) else {
            return;
        };
        let lamport = self
            .facts
            .missing_packs()
            .iter()
            .find(|missing| missing.pack == pack)
            .map(|found| found.lamport);
        self.fetches
            .insert(pack, facts.size, lamport.unwrap_or_default());
        for state in self.peers.values_mut().filter(|state| state.commits.ready) {
            state.packs.inventory_owed.push_back(pack);
        }
        self.refresh(&pack);
        self.dirty = true;
    }

    /// These packs, which a commit of time `added` adds, go on with those of an earlier commit, of time `begun`: they are fetched
    /// right behind them and not before, as more recent ones would be.
    pub fn packs_continue(&mut self, packs: &[PackId], begun: Lamport, added: Lamport) {
        for pack in packs {
            self.fetches.reorder(*pack, begun, added);
            self.refresh(pack);
        }
        self.dirty = true;
    }

    /// Fetches packs that are not live from whoever has them, before all others. The host has made room for them. Whoever refused
    /// one before is asked again only when it is wanted `anew`.
    pub fn packs_wanted(&mut self, packs: &[(PackId, PackSize)], anew: bool) {
        for (pack, size) in packs {
            self.fetches.insert(*pack, *size, Lamport(u64::MAX));
            if anew {
                for state in self.peers.values_mut() {
                    state.packs.unavailable.remove(pack);
                }
            }
            self.refresh(pack);
        }
        self.dirty = true;
    }

    /// Fetches history behind everything else, while the quota leaves room for it beside all that is needed. The host has made room
    /// for it, and takes it back with [`Self::packs_unwanted`] when no peer has it; nobody waits for it.
    pub fn late_packs_wanted(&mut self, packs: &[(PackId, PackSize)]) {
        for (pack, size) in packs {
            self.fetches.insert_late(*pack, *size);
            self.refresh(pack);
        }
        self.dirty = true;
    }

    /// Packs that are not live and not here, and that peers said they hold since the last call; at most 1024.
    pub fn take_offered(&mut self) -> BTreeSet<PackId> {
        std::mem::take(&mut self.offered)
    }

    /// These packs, not live, are not wanted any more. Nobody remembers who refused them.
    pub fn packs_unwanted(&mut self, packs: &[PackId]) {
        for pack in packs {
            self.fetches.remove(pack);
            for state in self.peers.values_mut() {
                state.packs.unavailable.remove(pack);
            }
        }
        self.dirty = true;
    }

    /// The connected peers that may have a pack, live or not: those that didn't say otherwise.
    pub fn sources(&self, pack: &PackId) -> impl Iterator<Item = PeerKey> {
        let able = |state: &&super::Peer| state.allowed() && state.can_serve(pack);
        let peers = self.peers.iter().filter(move |(_, state)| able(state));
        peers.map(|(key, _)| *key)
    }

    /// These packs are not live any more: they are neither fetched nor counted.
    pub fn packs_released(&mut self, packs: &[PackId]) {
        for pack in packs {
            self.fetches.remove(pack);
            for state in self.peers.values_mut() {
                state.packs.forget(pack);
                state.packs.unavailable.remove(pack);
            }
        }
        self.dirty = true;
    }

    pub(super) fn flush_inventory(&mut self, peer: PeerKey) {
        while let Some(state) = self.peers.get_mut(&peer)
            && state.unsent <= self.limits.unsent
            && !state.packs.inventory_owed.is_empty()
        {
            let count = state.packs.inventory_owed.len().min(LIST);
            let mut lacking: Vec<_> = state.packs.inventory_owed.drain(..count).collect();
            lacking.retain(|pack| {
                self.facts
                    .pack(pack)
                    .is_some_and(|facts| facts.live && facts.state != PackState::Durable)
            });
            lacking.sort_unstable();
            lacking.dedup();
            if !lacking.is_empty() {
                let offloaded = self.offloaded_of(&lacking);
                self.send(peer, FolderMessage::Inventory { lacking });
                self.send_offloaded(peer, offloaded);
            }
        }
    }

    pub(super) fn flush_holds(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        if !state.exchanged_opening() || state.unsent > self.limits.unsent {
            return;
        }
        let (mut holds, mut received) = (
            std::mem::take(&mut state.packs.holds_owed),
            std::mem::take(&mut state.packs.received_owed),
        );
        let state_of = |pack: &PackId| self.facts.pack(pack).map(|facts| facts.state);
        holds.retain(|pack| state_of(pack) == Some(PackState::Stored));
        received.retain(|pack| state_of(pack) == Some(PackState::Durable));
        for packs in holds.chunks(MAX_IDS) {
            self.send(
                peer,
                FolderMessage::Holds {
                    packs: packs.to_vec(),
                },
            );
        }
        for packs in received.chunks(MAX_IDS) {
            self.send(
                peer,
                FolderMessage::Received {
                    packs: packs.to_vec(),
                },
            );
        }
    }
}
