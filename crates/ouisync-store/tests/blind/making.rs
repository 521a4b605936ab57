//! Packs and unsigned commits to test with: the blind store checks no signatures.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ouisync_crypto::{
    commit::{Commit, CommitHeader, Dot, LiveDigest, PackAdd, VERSION},
    frame_hash::{FrameHash, FrameHashes},
    pack::FRAME_LENGTH,
};
use ouisync_model::{
    id::{CommitId, EpochId, FolderId, Lamport, MemberId, PackId, RosterEntryId, Sequence},
    operation::PackSize,
};
use ouisync_store::store::StoreOptions;

/// A pack of random bytes.
#[derive(Clone)]
pub(crate) struct Pack {
    pub(crate) id: PackId,
    pub(crate) size: PackSize,
    pub(crate) hashes: FrameHashes,
    pub(crate) bytes: Vec<u8>,
}

impl Pack {
    pub(crate) fn new(label: &str, frames: u64) -> Self {
        let size = PackSize::for_frames(frames).unwrap();
        let mut bytes = vec![0; size.bytes() as usize];
        blake3::Hasher::new()
            .update(label.as_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        let (split, _) = bytes.as_chunks::<FRAME_LENGTH>();
        let hashes = (0..)
            .zip(split)
            .map(|(index, frame)| FrameHash::of(size, index, frame))
            .collect();
        let hashes = FrameHashes::new(hashes).unwrap();
        assert_eq!(hashes.pack().as_bytes(), blake3::hash(&bytes).as_bytes());
        Self {
            id: hashes.pack(),
            size,
            hashes,
            bytes,
        }
    }

    pub(crate) fn add(&self) -> PackAdd {
        PackAdd {
            pack: self.id,
            size: self.size,
        }
    }

    pub(crate) fn frames(&self, first: usize, count: usize) -> &[u8] {
        &self.bytes[first * FRAME_LENGTH..(first + count) * FRAME_LENGTH]
    }
}

pub(crate) fn member(number: u8) -> MemberId {
    MemberId::from_bytes([number; 32])
}

/// A commit with zeros for signature and body.
pub(crate) fn commit(
    author: u8,
    sequence: u64,
    parents: &[&Commit],
    added: &[&Pack],
    released: &[Dot],
) -> Commit {
    forgetting(author, sequence, parents, added, released, &[])
}

/// [`commit`] of an author who waives the retention of some packs.
pub(crate) fn forgetting(
    author: u8,
    sequence: u64,
    parents: &[&Commit],
    added: &[&Pack],
    released: &[Dot],
    forgotten: &[&Pack],
) -> Commit {
    let mut forgotten: Vec<PackId> = forgotten.iter().map(|pack| pack.id).collect();
    forgotten.sort();
    let lamport = 1 + parents
        .iter()
        .map(|parent| parent.header().lamport.0)
        .max()
        .unwrap_or(0);
    let mut parents: Vec<CommitId> = parents.iter().map(|parent| parent.id()).collect();
    let mut added: Vec<PackAdd> = added.iter().map(|pack| pack.add()).collect();
    let mut released = released.to_vec();
    parents.sort();
    parents.dedup();
    added.sort();
    added.dedup();
    released.sort();
    released.dedup();
    let header = CommitHeader {
        version: VERSION,
        folder: FolderId::from_bytes([1; 32]),
        author: member(author),
        sequence: Sequence(sequence),
        lamport: Lamport(lamport),
        parents,
        roster: vec![RosterEntryId::from_bytes([2; 32])],
        epoch: EpochId::from_bytes([2; 32]),
        time_hours: 1,
        added,
        released,
        forgotten,
        live: LiveDigest::default(),
        checkpoint: None,
        salt: [0; 32],
        body: vec![0; 1024],
    };
    let mut bytes = postcard::to_allocvec(&header).unwrap();
    bytes.extend_from_slice(&[0; 64]);
    Commit::decode(bytes).unwrap()
}

pub(crate) fn dot(commit: &Commit, pack: &Pack) -> Dot {
    Dot {
        commit: commit.id(),
        pack: pack.id,
    }
}

/// A clock that tests set.
#[derive(Clone)]
pub(crate) struct Clock(pub(crate) Arc<AtomicU64>);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_800_000_000)))
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }

    pub(crate) fn options(&self) -> StoreOptions {
        let clock = self.clone();
        StoreOptions {
            reserve: 0,
            clock: Arc::new(move || clock.now()),
            ..StoreOptions::default()
        }
    }
}
