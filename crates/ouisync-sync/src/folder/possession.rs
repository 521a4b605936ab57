//! Giving packs up, and showing that one holds them.
//!
//! **Order.** Whoever gives a pack up first counts it as lacking, durably, and from then on shows possession of it to nobody; then it
//! asks others; only then it drops the bytes. So of several devices that give a pack up at the same time, the one that began last
//! finds none of the others among those that show it: those it does find keep the pack. How many must, and who counts, is the host's
//! to decide.

use ouisync_crypto::possession::{GROUP, Nonce, Possession};
use ouisync_model::{
    id::{Lamport, PackId},
    operation::PackSize,
};

use super::{DropReason, FolderSync, Output, PeerKey};
use crate::{
    codec::{FolderMessage, MAX_GROUPS, Sample},
    facts::{FolderFacts, PackFacts, PackState},
};

/// Groups of one frame.
const GROUPS: u32 = (PackSize::FRAME / GROUP as u64) as u32;

impl<F: FolderFacts> FolderSync<F> {
    /// This device gave packs up: peers hear that it lacks them, and they are neither fetched nor served.
    pub fn packs_offloaded(&mut self, packs: &[PackId]) {
        for pack in packs {
            self.fetches.remove(pack);
        }
        for state in self.peers.values_mut().filter(|state| state.commits.ready) {
            state.packs.inventory_owed.extend(packs);
        }
        self.dirty = true;
    }

    /// This device wants packs again that it gave up: those that are still here are held, the others are fetched before all others.
    pub fn packs_taken_back(&mut self, packs: &[PackId]) {
        for pack in packs {
            let Some(PackFacts { size, state, .. }) = self.facts.pack(pack) else {
                continue;
            };
            if state == PackState::Missing {
                self.fetches.insert(*pack, size, Lamport(u64::MAX));
            }
            for peer in self.peers.values_mut().filter(|peer| peer.commits.ready) {
                peer.packs.unavailable.remove(pack);
                match state {
                    PackState::Durable => peer.packs.received_owed.push(*pack),
                    _ => peer.packs.inventory_owed.push_back(*pack),
                }
                if state == PackState::Stored {
                    peer.packs.holds_owed.push(*pack);
                }
            }
            self.refresh(pack);
        }
        self.dirty = true;
    }

    /// The connected peers that say that they hold a live pack durably.
    pub fn holders(&self, pack: &PackId) -> impl Iterator<Item = PeerKey> {
        let holds = |state: &super::Peer| {
            state.exchanged()
                && !state.packs.lacking.contains_key(pack)
                && !state.packs.unavailable.contains(pack)
        };
        let peers = self.peers.iter().filter(move |(_, state)| holds(state));
        peers.map(|(key, _)| *key)
    }

    /// Asks a peer to show that it holds packs, which are in ascending order. It answers by [`Output::Judge`] with the same nonce, unless it goes.
    pub fn challenge(&mut self, peer: PeerKey, nonce: Nonce, samples: Vec<Sample>) {
        // It hears first that we give them up.
        self.flush_inventory(peer);
        self.send(peer, FolderMessage::Challenge { nonce, samples });
    }

    pub(super) fn on_offloaded(&mut self, peer: PeerKey, packs: &[PackId]) {
        if let Some(state) = self.peers.get_mut(&peer) {
            packs.iter().for_each(|pack| state.packs.offload(*pack));
            self.dirty = true;
        }
    }

    pub(super) fn on_challenge(&mut self, peer: PeerKey, nonce: Nonce, samples: Vec<Sample>) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let groups: usize = samples.iter().map(|sample| sample.groups.len()).sum();
        let most = GROUPS * PackSize::MAX.frames();
        let in_order = |sample: &Sample| {
            let ascending = sample.groups.is_sorted_by(|one, next| one < next);
            let last = sample.groups.last();
            ascending && last.is_some_and(|last| u32::from(*last) < most)
        };
        let one_each = samples.is_sorted_by(|one, next| one.pack < next.pack);
        let fits = one_each && groups <= MAX_GROUPS && samples.iter().all(in_order);
        if state.challenged.is_some() || !fits {
            return self.drop_peer(peer, DropReason::ImpossibleChallenge);
        }
        let packs: Vec<PackId> = samples.iter().map(|sample| sample.pack).collect();
        let can_show = |sample: &Sample| {
            let facts = self.facts.pack(&sample.pack).filter(is_held);
            let groups = facts.map_or(0, |facts| GROUPS * facts.size.frames());
            sample.groups.iter().all(|group| u32::from(*group) < groups)
        };
        let samples: Vec<Sample> = samples.into_iter().filter(can_show).collect();
        let refused = self.paused || !state.allowed() || samples.is_empty();
        state.challenged = Some((nonce, packs));
        if refused {
            return self.possession_ready(peer, nonce, &[]);
        }
        self.outputs.push_back(Output::Prove {
            peer,
            nonce,
            samples,
        });
    }

    /// What shows possession of the packs of an [`Output::Prove`], as far as they could be read. What this device has begun to give
    /// up meanwhile is not shown.
    pub fn possession_ready(
        &mut self,
        peer: PeerKey,
        nonce: Nonce,
        shown: &[(PackId, Possession)],
    ) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let Some((_, packs)) = state.challenged.take_if(|(asked, _)| *asked == nonce) else {
            return;
        };
        let proof = |pack: &PackId| {
            let (_, proof) = shown.iter().find(|(of, _)| of == pack)?;
            self.facts.pack(pack).filter(is_held).map(|_| *proof)
        };
        let proofs = packs.iter().map(proof).collect();
        self.send(peer, FolderMessage::Possession { nonce, proofs });
    }

    /// Those of the packs that this device gave up.
    pub(super) fn offloaded_of(&self, packs: &[PackId]) -> Vec<PackId> {
        let offloaded = |pack: &&PackId| self.facts.pack(pack).is_some_and(|facts| facts.offloaded);
        packs.iter().filter(offloaded).copied().collect()
    }

    pub(super) fn send_offloaded(&mut self, peer: PeerKey, packs: Vec<PackId>) {
        if !packs.is_empty() {
            self.send(peer, FolderMessage::Offloaded { packs });
        }
    }
}

/// Others may rely on it: it is kept as long as the folder needs it.
fn is_held(facts: &PackFacts) -> bool {
    facts.live && facts.state == PackState::Durable && !facts.offloaded
}
