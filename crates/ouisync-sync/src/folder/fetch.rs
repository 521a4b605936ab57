//! The packs that are missing here and how far each of them is.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use bytes::Bytes;
use ouisync_crypto::frame_hash::FrameHashes;
use ouisync_model::{
    id::{Lamport, PackId},
    operation::PackSize,
};

use super::PeerKey;
use crate::facts::FrameSet;

/// Order of fetching: small before large, recent before old, but those that continue another in their order behind it.
pub(super) type Key = (u8, Reverse<Lamport>, Lamport, PackId);

/// Packs of at most so many frames (1 MiB) come before larger ones.
const SMALL: u32 = 16;

pub(super) struct Missing {
    pub(super) size: PackSize,
    pub(super) lamport: Lamport,
    /// Its place among packs of the same `lamport`.
    pub(super) turn: Lamport,
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
    pub(super) bytes: u64,
}

impl Missing {
    pub(super) fn key(&self, pack: PackId) -> Key {
        (
            u8::from(self.size.frames() > SMALL),
            Reverse(self.lamport),
            self.turn,
            pack,
        )
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
        if let Some(missing) = self.missing.get_mut(&pack) {
            if missing.lamport < lamport {
                self.reorder(pack, lamport, Lamport::default());
            }
            return false;
        }
        self.missing.insert(
            pack,
            Missing {
                size,
                lamport,
                turn: Lamport::default(),
                fetch: None,
                finishing: false,
            },
        );
        self.bytes += size.bytes();
        true
    }

    /// Gives a missing pack another place in the order.
    pub(super) fn reorder(&mut self, pack: PackId, lamport: Lamport, turn: Lamport) {
        let Some(missing) = self.missing.get_mut(&pack) else {
            return;
        };
        let key = missing.key(pack);
        (missing.lamport, missing.turn) = (lamport, turn);
        let new = missing.key(pack);
        if self.ready.remove(&key) {
            self.ready.insert(new);
        }
    }

    pub(super) fn remove(&mut self, pack: &PackId) -> bool {
        let Some(missing) = self.missing.remove(pack) else {
            return false;
        };
        self.bytes -= missing.size.bytes();
        self.ready.remove(&missing.key(*pack));
        self.active.remove(pack);
        true
    }

    /// Bytes of the packs of which frames are here or on their way.
    pub(super) fn begun_bytes(&self) -> u64 {
        let begun = self.active.iter().filter_map(|pack| self.missing.get(pack));
        begun.map(|missing| missing.size.bytes()).sum()
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
