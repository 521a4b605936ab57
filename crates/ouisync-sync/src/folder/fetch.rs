//! The packs that are missing here and how far each of them is.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, hash_map::Entry},
};

use bytes::Bytes;
use ouisync_crypto::frame_hash::FrameHashes;
use ouisync_model::{
    id::{Lamport, PackId},
    operation::PackSize,
};

use super::PeerKey;
use crate::facts::FrameSet;

/// Order of fetching: what is needed before what is late; small before large, recent before old, but those that continue another in
/// their order behind it.
pub(super) type Key = (u8, Reverse<Lamport>, Lamport, PackId);

/// Packs of at most so many frames (1 MiB) come before larger ones.
const SMALL: u32 = 16;

/// First parts of a [`Key`].
mod rank {
    pub(super) const SMALL: u8 = 0;
    pub(super) const LARGE: u8 = 1;
    pub(super) const LATE: u8 = 2;
}

pub(super) struct Missing {
    pub(super) size: PackSize,
    pub(super) lamport: Lamport,
    /// Its place among packs of the same `lamport`.
    pub(super) turn: Lamport,
    /// History that nobody waits for.
    pub(super) late: bool,
    pub(super) fetch: Option<Box<Fetch>>,
    /// All frames are with the host.
    pub(super) finishing: bool,
}

/// A pack of which frames are here or on their way.
pub(super) struct Fetch {
    pub(super) have: FrameSet,
    pub(super) assigned: FrameSet,
    /// Wanted from a second peer at the end.
    pub(super) doubled: FrameSet,
    pub(super) hashes: Option<FrameHashes>,
    /// Frames that came before the hash list.
    pub(super) held: Vec<(PeerKey, u32, Bytes)>,
}

#[derive(Default)]
pub(super) struct Fetches {
    pub(super) missing: HashMap<PackId, Missing>,
    /// Missing packs with frames to ask for and a peer to ask.
    pub(super) ready: BTreeSet<Key>,
    /// Missing packs with a [`Fetch`].
    pub(super) active: BTreeSet<PackId>,
    /// Bytes of all that isn't late.
    pub(super) bytes: u64,
    /// Number of those that are late.
    pub(super) late: usize,
}

impl Missing {
    fn new(size: PackSize, lamport: Lamport, late: bool) -> Self {
        Self {
            size,
            lamport,
            turn: Lamport::default(),
            late,
            fetch: None,
            finishing: false,
        }
    }

    pub(super) fn key(&self, pack: PackId) -> Key {
        let rank = match self.size.frames() {
            _ if self.late => rank::LATE,
            ..=SMALL => rank::SMALL,
            _ => rank::LARGE,
        };
        (rank, Reverse(self.lamport), self.turn, pack)
    }

    /// Frames that nobody was asked for.
    pub(super) fn next_range(&self, limit: u32) -> Option<(u32, u32)> {
        if self.finishing {
            return None;
        }
        let frames = self.size.frames();
        match &self.fetch {
            None => Some((0, frames.min(limit))),
            Some(fetch) => fetch.have.union(fetch.assigned).gap(frames, limit),
        }
    }
}

impl Fetches {
    /// False when it was known.
    pub(super) fn insert(&mut self, pack: PackId, size: PackSize, lamport: Lamport) -> bool {
        if let Some(missing) = self.missing.get(&pack) {
            if missing.late {
                self.late -= 1;
                self.bytes += size.bytes();
                self.rekey(pack, |missing| {
                    (missing.late, missing.lamport) = (false, lamport);
                });
            } else if missing.lamport < lamport {
                self.reorder(pack, lamport, Lamport::default());
            }
            return false;
        }
        self.missing
            .insert(pack, Missing::new(size, lamport, false));
        self.bytes += size.bytes();
        true
    }

    /// Adds history behind everything else. Nothing changes when the pack is missing already.
    pub(super) fn insert_late(&mut self, pack: PackId, size: PackSize) {
        if let Entry::Vacant(place) = self.missing.entry(pack) {
            place.insert(Missing::new(size, Lamport::default(), true));
            self.late += 1;
        }
    }

    /// Gives a missing pack another place in the order.
    pub(super) fn reorder(&mut self, pack: PackId, lamport: Lamport, turn: Lamport) {
        self.rekey(pack, |missing| {
            (missing.lamport, missing.turn) = (lamport, turn)
        });
    }

    fn rekey(&mut self, pack: PackId, change: impl FnOnce(&mut Missing)) {
        let Some(missing) = self.missing.get_mut(&pack) else {
            return;
        };
        let key = missing.key(pack);
        change(missing);
        let new = missing.key(pack);
        if self.ready.remove(&key) {
            self.ready.insert(new);
        }
    }

    pub(super) fn remove(&mut self, pack: &PackId) -> bool {
        let Some(missing) = self.missing.remove(pack) else {
            return false;
        };
        if missing.late {
            self.late -= 1;
        } else {
            self.bytes -= missing.size.bytes();
        }
        self.ready.remove(&missing.key(*pack));
        self.active.remove(pack);
        true
    }

    /// Bytes of the packs of which frames are here or on their way, and those of them that are not late.
    pub(super) fn begun_bytes(&self) -> (u64, u64) {
        let begun = self.active.iter().filter_map(|pack| self.missing.get(pack));
        begun.fold((0, 0), |(all, needed), missing| {
            let bytes = missing.size.bytes();
            (all + bytes, needed + if missing.late { 0 } else { bytes })
        })
    }

    /// The frames must be asked for again unless they have come.
    pub(super) fn unassign(&mut self, pack: &PackId, frames: impl Iterator<Item = u32>) {
        if let Some(fetch) = self
            .missing
            .get_mut(pack)
            .and_then(|missing| missing.fetch.as_mut())
        {
            for index in frames {
                // A second request for the same frame is still under way.
                if fetch.doubled.contains(index) {
                    fetch.doubled.remove(index);
                } else {
                    fetch.assigned.remove(index);
                }
            }
        }
    }

    /// Throws away what `peer` sent for a pack before any hash list came.
    pub(super) fn drop_held(&mut self, pack: &PackId, peer: PeerKey) {
        let Some(fetch) = self
            .missing
            .get_mut(pack)
            .and_then(|missing| missing.fetch.as_mut())
        else {
            return;
        };
        let mut dropped = Vec::new();
        fetch.held.retain(|(from, first, data)| {
            if *from == peer {
                let count = (data.len() as u64 / PackSize::FRAME) as u32;
                dropped.extend(*first..*first + count);
            }
            *from != peer
        });
        self.unassign(pack, dropped.into_iter());
    }
}
