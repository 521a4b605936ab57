//! Answering wants: a bounded queue for each peer, drained as the host writes.

use ouisync_model::{id::PackId, operation::PackSize};

use super::{
    DropReason, FolderSync, Output, PeerKey,
    peer::{Peer, WaitingWant},
};
use crate::{
    codec::FolderMessage,
    facts::{FolderFacts, PackState},
};

impl<F: FolderFacts> FolderSync<F> {
    pub(super) fn on_want(&mut self, peer: PeerKey, want: WaitingWant) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let WaitingWant {
            pack, first, count, ..
        } = want;
        let facts = self.facts.pack(&pack);
        let frames = facts.map_or(PackSize::MAX, |facts| facts.size).frames();
        if count == 0 || first.checked_add(count).is_none_or(|end| end > frames) {
            return self.drop_peer(peer, DropReason::ImpossibleWant { pack });
        }
        if self.paused {
            state.serving.refused.insert(pack);
        }
        let held = facts.is_some_and(|facts| facts.state >= PackState::Stored);
        if !held || self.paused || !state.allowed() {
            return self.send(peer, FolderMessage::Unavailable { pack, first, count });
        }
        state.serving.wants.push_back(want);
        if state.serving.wants.len() > self.limits.wants {
            self.drop_peer(peer, DropReason::WantFlood);
        }
    }

    pub(super) fn flush_serve(&mut self, peer: PeerKey) {
        while let Some(state) = self.peers.get_mut(&peer)
            && state.serving.bytes < self.limits.serving
            && state.unsent <= self.limits.unsent
            && let Some(want) = state.serving.wants.pop_front()
        {
            let WaitingWant {
                pack,
                first,
                count,
                hashes,
            } = want;
            let facts = self
                .facts
                .pack(&pack)
                .filter(|facts| facts.state >= PackState::Stored);
            let list = if hashes {
                self.facts.frame_hashes(&pack)
            } else {
                None
            };
            if facts.is_none() || (hashes && list.is_none()) {
                self.send(peer, FolderMessage::Unavailable { pack, first, count });
                continue;
            }
            state.serving.bytes += serve_bytes(count);
            if let Some(hashes) = list {
                self.send(peer, FolderMessage::Hashes { pack, hashes });
            }
            self.outputs.push_back(Output::Serve {
                peer,
                pack,
                first,
                count,
            });
        }
    }

    /// An [`Output::Serve`] of `count` frames was written.
    pub fn served(&mut self, peer: PeerKey, count: u32) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.serving.bytes = state.serving.bytes.saturating_sub(serve_bytes(count));
        }
    }

    /// An [`Output::Serve`] could not be read; nothing of it was written.
    pub fn serve_failed(&mut self, peer: PeerKey, pack: PackId, first: u32, count: u32) {
        self.served(peer, count);
        self.send(peer, FolderMessage::Unavailable { pack, first, count });
    }

    pub(super) fn refuse_waiting(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        for WaitingWant {
            pack, first, count, ..
        } in std::mem::take(&mut state.serving.wants)
        {
            let Some(state) = self.peers.get_mut(&peer) else {
                return;
            };
            state.serving.refused.insert(pack);
            self.send(peer, FolderMessage::Unavailable { pack, first, count });
        }
    }

    /// After a pause: tells which of the refused packs can be had after all.
    pub(super) fn offer_refused(facts: &F, state: &mut Peer) {
        for pack in std::mem::take(&mut state.serving.refused) {
            match facts.pack(&pack).map(|facts| facts.state) {
                Some(PackState::Durable) => state.packs.received_owed.push(pack),
                Some(PackState::Stored) => state.packs.holds_owed.push(pack),
                _ => {}
            }
        }
    }
}

const fn serve_bytes(count: u32) -> u64 {
    count as u64 * PackSize::FRAME
}
