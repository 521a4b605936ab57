//! Fetching: which ranges are wanted from whom, checking what comes, giving it to the host.

use std::time::Duration;

use bytes::Bytes;
use ouisync_crypto::{
    frame_hash::{FrameHash, FrameHashes},
    pack::Frame,
};
use ouisync_model::{id::PackId, operation::PackSize};

use super::{
    DropReason, FolderSync, Output, PeerKey,
    fetch::{Fetch, Key},
    peer::Request,
};
use crate::{
    codec::FolderMessage,
    facts::{FolderFacts, FrameSet},
};

const FRAME: usize = PackSize::FRAME as usize;
/// Candidates that one search for a range looks at; the next one goes on from there.
const SCAN: usize = 512;
/// Age of a want after which an idle peer is asked for the same.
const ENDGAME_AGE: Duration = Duration::from_secs(2);
const MEASURE: Duration = Duration::from_secs(1);

impl<F: FolderFacts> FolderSync<F> {
    /// Puts the pack among those to ask for, or takes it out.
    pub(super) fn refresh(&mut self, pack: &PackId) {
        let Some(missing) = self.fetches.missing.get(pack) else {
            return;
        };
        let key = missing.key(*pack);
        let wanted =
            missing.next_range(1).is_some() && self.peers.values().any(|peer| peer.can_serve(pack));
        if !wanted {
            self.fetches.ready.remove(&key);
        } else {
            self.fetches.ready.insert(key);
            for peer in self.peers.values_mut() {
                if peer.requests.cursor.is_some_and(|cursor| key < cursor) {
                    peer.requests.cursor = None;
                }
            }
        }
    }

    pub(super) fn refresh_all(&mut self) {
        let packs: Vec<_> = self.fetches.missing.keys().copied().collect();
        packs.iter().for_each(|pack| self.refresh(pack));
    }

    /// Wants as much from the peer as its window allows.
    pub(super) fn flush_wants(&mut self, peer: PeerKey) {
        while let Some(state) = self.peers.get(&peer)
            && !state.requests.stalled
            && state.commits.heard
            && state.unsent <= self.limits.unsent
            && state.requests.outstanding < state.requests.window
            && self.unwritten < self.limits.unwritten
        {
            let Some((pack, first, count)) =
                self.next_range(peer).or_else(|| self.endgame_range(peer))
            else {
                return;
            };
            self.want(peer, pack, first, count);
        }
    }

    fn next_range(&mut self, peer: PeerKey) -> Option<(PackId, u32, u32)> {
        // What was begun has its room already, and what is late leaves the room of all that is needed.
        let (begun, needed) = self.fetches.begun_bytes();
        let room = self.facts.room().map(|room| room.saturating_sub(begun));
        let needed = self.fetches.bytes.saturating_sub(needed);
        let late_room = room.map(|room| room.saturating_sub(needed));
        let state = self.peers.get_mut(&peer)?;
        let cursor = state.requests.cursor.take();
        let candidates: Box<dyn Iterator<Item = &Key>> = match &cursor {
            Some(key) => Box::new(self.fetches.ready.range(key..)),
            None => Box::new(self.fetches.ready.iter()),
        };
        for (index, key) in candidates.enumerate() {
            if index == SCAN {
                state.requests.cursor = Some(*key);
                return None;
            }
            if !state.can_serve(&key.3) {
                continue;
            }
            let Some(missing) = self.fetches.missing.get(&key.3) else {
                continue;
            };
            let room = if missing.late { late_room } else { room };
            if missing.fetch.is_none() && room.is_some_and(|room| missing.size.bytes() > room) {
                continue;
            }
            if let Some((first, count)) = missing.next_range(self.limits.range) {
                state.requests.cursor = cursor.map(|_| *key);
                return Some((key.3, first, count));
            }
        }
        None
    }

    /// A range that another peer was asked for some time ago, when nothing else is left for this one.
    fn endgame_range(&self, peer: PeerKey) -> Option<(PackId, u32, u32)> {
        let state = self.peers.get(&peer)?;
        if state.requests.outstanding > 0 {
            return None;
        }
        for pack in self
            .fetches
            .active
            .iter()
            .filter(|pack| state.can_serve(pack))
        {
            let fetch = self.fetches.missing.get(pack)?.fetch.as_ref()?;
            for (other, other_state) in &self.peers {
                if *other == peer || other_state.requests.stalled {
                    continue;
                }
                let Some(requests) = other_state.requests.open.get(pack) else {
                    continue;
                };
                for request in requests
                    .iter()
                    .filter(|request| self.now >= request.at + ENDGAME_AGE)
                {
                    let mut open = request.open_frames().filter(|index| {
                        !fetch.have.contains(*index) && !fetch.doubled.contains(*index)
                    });
                    if let Some(first) = open.next() {
                        let count = 1 + open
                            .zip(first + 1..)
                            .take_while(|(index, next)| index == next)
                            .count();
                        return Some((*pack, first, (count as u32).min(self.limits.range)));
                    }
                }
            }
        }
        None
    }

    fn want(&mut self, peer: PeerKey, pack: PackId, first: u32, count: u32) {
        if !self.activate(pack) {
            return;
        }
        // What is here already may have filled the range.
        let Some(missing) = self.fetches.missing.get_mut(&pack) else {
            return;
        };
        let frames = missing.size.frames();
        let Some(fetch) = &mut missing.fetch else {
            return;
        };
        if (first..first + count).any(|index| fetch.have.contains(index)) {
            return self.refresh(&pack);
        }
        for index in first..first + count {
            if fetch.assigned.contains(index) {
                fetch.doubled.insert(index);
            } else {
                fetch.assigned.insert(index);
            }
        }
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        // Every peer is asked once for the list until it is known, so that none depends on another.
        let hashes =
            frames > 1 && fetch.hashes.is_none() && !state.requests.open.contains_key(&pack);
        if hashes {
            *state.requests.hashes_due.entry(pack).or_default() += 1;
        }
        if state.requests.outstanding == 0 {
            state.requests.progress = self.now;
            state.requests.measured = self.now;
            state.requests.measured_bytes = 0;
        }
        state.requests.outstanding += u64::from(count) * PackSize::FRAME;
        let request = Request {
            first,
            count,
            got: FrameSet::EMPTY,
            at: self.now,
            hashes,
        };
        state.requests.open.entry(pack).or_default().push(request);
        self.refresh(&pack);
        self.send(
            peer,
            FolderMessage::Want {
                pack,
                first,
                count,
                hashes,
            },
        );
    }

    /// Begins or resumes the pack; false when there is nothing to ask for.
    fn activate(&mut self, pack: PackId) -> bool {
        let Some(missing) = self.fetches.missing.get_mut(&pack) else {
            return false;
        };
        if missing.fetch.is_some() {
            return true;
        }
        let frames = missing.size.frames();
        let hashes = if frames == 1 {
            Some(FrameHashes::of_single_frame(pack))
        } else {
            let stored = self.facts.frame_hashes(&pack);
            stored.and_then(|hashes| FrameHashes::verified(pack, missing.size, hashes).ok())
        };
        // Frames without the list that they were checked against are worth nothing.
        let have = if hashes.is_some() {
            self.facts.present_frames(&pack)
        } else {
            FrameSet::EMPTY
        };
        let fetch = Fetch {
            have,
            assigned: FrameSet::EMPTY,
            doubled: FrameSet::EMPTY,
            hashes,
            held: Vec::new(),
        };
        missing.fetch = Some(Box::new(fetch));
        self.fetches.active.insert(pack);
        !self.finish_if_complete(pack)
    }

    fn finish_if_complete(&mut self, pack: PackId) -> bool {
        let Some(missing) = self.fetches.missing.get_mut(&pack) else {
            return false;
        };
        let Some(fetch) = &missing.fetch else {
            return false;
        };
        if missing.finishing || fetch.have != FrameSet::first(missing.size.frames()) {
            return false;
        }
        missing.finishing = true;
        missing.fetch = None;
        self.fetches.active.remove(&pack);
        self.refresh(&pack);
        self.outputs.push_back(Output::FinishPack { pack });
        true
    }

    pub(super) fn on_hashes(&mut self, peer: PeerKey, pack: PackId, hashes: Vec<FrameHash>) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        match state.requests.hashes_due.get_mut(&pack) {
            Some(due) if *due > 1 => *due -= 1,
            Some(_) => {
                state.requests.hashes_due.remove(&pack);
            }
            None => return self.drop_peer(peer, DropReason::Unrequested { pack }),
        }
        self.progress(peer);
        let Some(missing) = self.fetches.missing.get_mut(&pack) else {
            return;
        };
        let size = missing.size;
        let Some(fetch) = missing
            .fetch
            .as_mut()
            .filter(|fetch| fetch.hashes.is_none())
        else {
            return;
        };
        let Ok(verified) = FrameHashes::verified(pack, size, hashes) else {
            return self.drop_peer(peer, DropReason::WrongHashes { pack });
        };
        let hashes = verified.as_slice().to_vec();
        fetch.hashes = Some(verified);
        let held = std::mem::take(&mut fetch.held);
        self.outputs
            .push_back(Output::StoreHashes { pack, size, hashes });
        for (from, first, data) in held {
            self.verify(from, pack, first, &data);
        }
    }

    /// Whole frames of the peer's bulk stream, in order; any part of a record that ends at a frame.
    pub fn bulk_received(&mut self, peer: PeerKey, pack: PackId, first: u32, data: Bytes) {
        if !self.peers.contains_key(&peer) {
            return;
        }
        let count = (data.len() / FRAME) as u32;
        let end = first
            .checked_add(count)
            .filter(|end| *end <= PackSize::MAX.frames());
        let Some(end) = end.filter(|_| count > 0 && data.len().is_multiple_of(FRAME)) else {
            return self.drop_peer(peer, DropReason::MalformedFrames { pack });
        };
        self.progress(peer);
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let Some(requests) = state.requests.open.get_mut(&pack) else {
            return self.drop_peer(peer, DropReason::Unrequested { pack });
        };
        for index in first..end {
            let request = requests
                .iter_mut()
                .find(|request| request.range().contains(&index) && !request.got.contains(index));
            let Some(request) = request else {
                return self.drop_peer(peer, DropReason::Unrequested { pack });
            };
            request.got.insert(index);
        }
        requests.retain(|request| request.got.len() < request.count);
        if requests.is_empty() {
            state.requests.open.remove(&pack);
        }
        state.requests.outstanding -= data.len() as u64;
        state.requests.measured_bytes += data.len() as u64;
        self.dirty = true;

        let Some(fetch) = self
            .fetches
            .missing
            .get_mut(&pack)
            .and_then(|missing| missing.fetch.as_mut())
        else {
            return;
        };
        if fetch.hashes.is_some() {
            self.verify(peer, pack, first, &data);
        } else if (first..end).all(|index| fetch.assigned.contains(index)) {
            fetch.held.push((peer, first, data));
        }
        // Otherwise the ranges were given up and will come from others.
    }

    /// Checks frames against the hash list and gives the new ones to the host.
    fn verify(&mut self, peer: PeerKey, pack: PackId, first: u32, data: &Bytes) {
        let Some(missing) = self.fetches.missing.get_mut(&pack) else {
            return;
        };
        let Some(fetch) = &mut missing.fetch else {
            return;
        };
        let Some(hashes) = &fetch.hashes else { return };
        let (mut good, mut run, mut wrong) = (Vec::new(), None, None);
        for (index, frame) in (first..).zip(data.chunks_exact(FRAME)) {
            let offset = (index - first) as usize * FRAME;
            let fresh = !fetch.have.contains(index);
            if fresh {
                let valid =
                    <&Frame>::try_from(frame).is_ok_and(|frame| hashes.verifies(index, frame));
                if !valid {
                    wrong = Some(index);
                    break;
                }
                fetch.have.insert(index);
                fetch.assigned.remove(index);
                fetch.doubled.remove(index);
                run.get_or_insert((index, offset));
            } else if let Some((start, from)) = run.take() {
                good.push((start, data.slice(from..offset)));
            }
        }
        if let Some((start, from)) = run {
            let end = wrong.map_or(data.len(), |index| (index - first) as usize * FRAME);
            good.push((start, data.slice(from..end)));
        }
        for (first, data) in good {
            self.unwritten += data.len() as u64;
            self.outputs
                .push_back(Output::WriteFrames { pack, first, data });
        }
        if let Some(frame) = wrong {
            // The request is marked as answered already.
            let rest = frame..first + (data.len() / FRAME) as u32;
            self.fetches.unassign(&pack, rest);
            self.refresh(&pack);
            return self.drop_peer(peer, DropReason::WrongFrame { pack, frame });
        }
        self.finish_if_complete(pack);
    }

    /// An [`Output::WriteFrames`] of so many bytes is written (or failed; then the pack is lost).
    pub fn frames_written(&mut self, bytes: u64) {
        self.unwritten = self.unwritten.saturating_sub(bytes);
    }

    pub(super) fn on_unavailable(&mut self, peer: PeerKey, pack: PackId, first: u32, count: u32) {
        self.progress(peer);
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let Some(requests) = state.requests.open.get_mut(&pack) else {
            return;
        };
        let Some(index) = requests
            .iter()
            .position(|request| request.first == first && request.count == count)
        else {
            return;
        };
        let request = requests.remove(index);
        if requests.is_empty() {
            state.requests.open.remove(&pack);
        }
        let open: Vec<_> = request.open_frames().collect();
        state.requests.outstanding -= open.len() as u64 * PackSize::FRAME;
        if request.hashes {
            // Either the list came before or it never will.
            state.requests.hashes_due.remove(&pack);
            self.fetches.drop_held(&pack, peer);
        }
        // Of what isn't wanted any more nothing is remembered.
        if self.fetches.missing.contains_key(&pack) {
            state.packs.unavailable.insert(pack);
        }
        self.fetches.unassign(&pack, open.into_iter());
        self.refresh(&pack);
        self.dirty = true;
    }

    /// Forgets what was wanted from a peer that is gone.
    pub(super) fn release_requests(&mut self, peer: PeerKey, requests: &super::peer::Requests) {
        if !requests.stalled {
            for (pack, open) in &requests.open {
                for request in open {
                    self.fetches.unassign(pack, request.open_frames());
                }
            }
        }
        let active: Vec<_> = self.fetches.active.iter().copied().collect();
        active
            .iter()
            .for_each(|pack| self.fetches.drop_held(pack, peer));
        self.refresh_all();
    }

    /// The peer answered something; if it had been given up, what it still owes counts again.
    fn progress(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        state.requests.progress = self.now;
        if !std::mem::take(&mut state.requests.stalled) {
            return;
        }
        for (pack, requests) in &mut state.requests.open {
            let Some(fetch) = self
                .fetches
                .missing
                .get_mut(pack)
                .and_then(|missing| missing.fetch.as_mut())
            else {
                continue;
            };
            for request in requests {
                request.at = self.now;
                for index in request.open_frames() {
                    if fetch.assigned.contains(index) {
                        fetch.doubled.insert(index);
                    } else {
                        fetch.assigned.insert(index);
                    }
                }
            }
        }
    }

    /// Gives ranges of peers without progress to others and adapts windows.
    pub(super) fn tick_requests(&mut self) {
        let mut given_up = Vec::new();
        for state in self.peers.values_mut() {
            let requests = &mut state.requests;
            let elapsed = self.now.saturating_sub(requests.measured);
            if elapsed >= MEASURE {
                if requests.measured_bytes > 0 && requests.outstanding > 0 {
                    let rate = requests.measured_bytes as u128 * 1000 / elapsed.as_millis().max(1);
                    let (least, greatest) = self.limits.window;
                    // A second's worth is on its way at a time.
                    requests.window =
                        (u64::try_from(rate).unwrap_or(greatest)).clamp(least, greatest);
                }
                requests.measured = self.now;
                requests.measured_bytes = 0;
            }
            if requests.outstanding > 0
                && !requests.stalled
                && self.now.saturating_sub(requests.progress) >= self.limits.stall
            {
                requests.stalled = true;
                for (pack, open) in &requests.open {
                    for request in open {
                        given_up.push((*pack, request.open_frames().collect::<Vec<_>>()));
                    }
                }
            }
        }
        for (pack, frames) in given_up {
            self.fetches.unassign(&pack, frames.into_iter());
            self.refresh(&pack);
        }
    }
}
