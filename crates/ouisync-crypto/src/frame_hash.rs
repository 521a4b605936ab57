//! Hashes of a pack's frames, and how they merge to the pack's id, so that every frame is verified on its own.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use ouisync_model::{id::PackId, operation::PackSize};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::pack::{FRAME_LENGTH, Frame};

/// The BLAKE3 chaining value of a 64 KiB group at its place in the pack; in a pack of one frame, the pack's id itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FrameHash([u8; 32]);

impl FrameHash {
    /// Wraps raw bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash of `frame` as frame `index` of a pack of `size`.
    pub fn of(size: PackSize, index: u32, frame: &Frame) -> Self {
        if size.frames() == 1 {
            return Self(*blake3::hash(frame).as_bytes());
        }
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(u64::from(index) * FRAME_LENGTH as u64);
        hasher.update(frame);
        Self(hasher.finalize_non_root())
    }
}

impl std::fmt::Debug for FrameHash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "FrameHash({})",
            blake3::Hash::from_bytes(self.0).to_hex().split_at(8).0
        )
    }
}

/// The list of frame hashes isn't the pack's.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum FrameHashError {
    /// Not one hash for each frame of a pack size.
    #[error("{0} frame hashes are not a pack's")]
    Count(usize),
    /// The hashes merge to another id.
    #[error("frame hashes don't belong to pack {0}")]
    OtherPack(PackId),
}

/// The frame hashes of one whole pack, in order; they merge to its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameHashes {
    pack: PackId,
    hashes: Vec<FrameHash>,
}

impl FrameHashes {
    /// Merges the hashes of all frames to the pack's id. Their number must be a power of two from 1 to 256.
    pub fn new(hashes: Vec<FrameHash>) -> Result<Self, FrameHashError> {
        let valid =
            hashes.len().is_power_of_two() && hashes.len() <= PackSize::MAX.frames() as usize;
        if !valid {
            return Err(FrameHashError::Count(hashes.len()));
        }
        let mut level: Vec<[u8; 32]> = hashes.iter().map(|hash| hash.0).collect();
        while level.len() > 2 {
            level = level
                .chunks_exact(2)
                .map(|pair| merge_subtrees_non_root(&pair[0], &pair[1], Mode::Hash))
                .collect();
        }
        let root = match level.as_slice() {
            [left, right] => *merge_subtrees_root(left, right, Mode::Hash).as_bytes(),
            _ => level[0],
        };
        Ok(Self {
            pack: PackId::from_bytes(root),
            hashes,
        })
    }

    /// Accepts a list from outside only if it is that of `pack`.
    pub fn verified(
        pack: PackId,
        size: PackSize,
        hashes: Vec<FrameHash>,
    ) -> Result<Self, FrameHashError> {
        if hashes.len() != size.frames() as usize {
            return Err(FrameHashError::Count(hashes.len()));
        }
        let hashes = Self::new(hashes)?;
        if hashes.pack == pack {
            Ok(hashes)
        } else {
            Err(FrameHashError::OtherPack(pack))
        }
    }

    /// The list of a pack of one frame, which is known from its id.
    pub fn of_single_frame(pack: PackId) -> Self {
        Self {
            pack,
            hashes: vec![FrameHash(*pack.as_bytes())],
        }
    }

    /// The pack's id.
    pub const fn pack(&self) -> PackId {
        self.pack
    }

    /// The hashes in order.
    pub fn as_slice(&self) -> &[FrameHash] {
        &self.hashes
    }

    /// Whether `frame` is frame `index` of the pack; false beyond its end.
    pub fn verifies(&self, index: u32, frame: &Frame) -> bool {
        let size = PackSize::for_frames(self.hashes.len() as u64);
        match (size, self.hashes.get(index as usize)) {
            (Some(size), Some(expected)) => FrameHash::of(size, index, frame) == *expected,
            _ => false,
        }
    }
}
