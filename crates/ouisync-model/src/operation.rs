//! What a commit says: operations on the tree, and where chunks lie in packs.

use serde::{Deserialize, Serialize};

use crate::{
    id::{ChunkId, NodeId, OpId, PackId, Timestamp},
    name::Name,
};

/// One change of one register of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Sets where `node` is. The last placement by [`Stamp`](crate::id::Stamp) that makes no cycle holds.
    Place {
        /// The node to place.
        node: NodeId,
        /// Its directory.
        parent: NodeId,
        /// Its name there.
        name: Name,
    },
    /// Adds `value` to the content register of `node` and takes the values in `replaces` away.
    Write {
        /// The node to write.
        node: NodeId,
        /// The new value.
        value: Value,
        /// The values that the author saw and means to replace. What is not named here stays beside `value`.
        replaces: Vec<OpId>,
    },
    /// Sets metadata of `node`. Of each part the last by stamp holds.
    SetMetadata {
        /// The node to describe.
        node: NodeId,
        /// What changes.
        change: MetadataChange,
    },
}

impl Operation {
    /// Whose register it changes.
    pub const fn node(&self) -> NodeId {
        let (Self::Place { node, .. } | Self::Write { node, .. } | Self::SetMetadata { node, .. }) =
            self;
        *node
    }
}

/// A value of a content register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// Deleted, as far as the author saw. A node exists while any other value is in its register.
    Deleted,
    /// A directory; only for nodes of kind `Directory`.
    Directory,
    /// A regular file.
    File(FileContent),
    /// A symbolic link with its target's bytes, never followed by this program.
    Symlink(Vec<u8>),
}

/// The bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileContent {
    /// Length in bytes.
    pub size: u64,
    /// The chunker's size level that cut it; later versions of the file keep it while it grows.
    pub level: u8,
    /// Where the bytes are.
    pub data: FileData,
}

/// Where the bytes of a file are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileData {
    /// At most [`FileData::INLINE_LIMIT`] bytes that travel in the commit, and the id that they have as a chunk.
    Inline(ChunkId, Vec<u8>),
    /// The chunks in order; none for an empty file.
    Chunks(Vec<ChunkRef>),
    /// Chunks whose concatenated plaintext is the postcard encoding of the `Vec<ChunkRef>` of the file.
    Indirect(Vec<ChunkRef>),
}

impl FileData {
    /// Greatest length of inline content in bytes.
    pub const INLINE_LIMIT: usize = 4096;
    /// Greatest number of chunks listed directly.
    pub const DIRECT_LIMIT: usize = 1024;
}

/// A chunk of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChunkRef {
    /// The chunk.
    pub chunk: ChunkId,
    /// Length of its plaintext in bytes.
    pub length: u32,
}

/// What is known of a node beside its place and content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Metadata {
    /// The owner may execute the file.
    pub executable: bool,
    /// Modification time.
    pub modified: Timestamp,
}

/// New metadata; what is `None` stays as it is, so that changes of different parts made apart all hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MetadataChange {
    /// As in [`Metadata`].
    pub executable: Option<bool>,
    /// As in [`Metadata`].
    pub modified: Option<Timestamp>,
}

impl MetadataChange {
    /// What leads from `before` to `after`; `None` when they are equal.
    pub fn between(before: &Metadata, after: &Metadata) -> Option<Self> {
        let change = Self {
            executable: (before.executable != after.executable).then_some(after.executable),
            modified: (before.modified != after.modified).then_some(after.modified),
        };
        (change != Self::default()).then_some(change)
    }
}

impl From<Metadata> for MetadataChange {
    fn from(metadata: Metadata) -> Self {
        Self {
            executable: Some(metadata.executable),
            modified: Some(metadata.modified),
        }
    }
}

/// The encrypted part of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitBody {
    /// Wall time of the author's device.
    pub time: Timestamp,
    /// Changes of the tree.
    pub operations: Vec<Operation>,
    /// Where the chunks of the added packs lie.
    pub tables: Vec<PackTable>,
    /// The state that a checkpoint carries; such a commit has no operations.
    pub checkpoint: Option<CheckpointState>,
    /// The next chunks of a large file that the author is still reading.
    pub draft: Option<DraftPart>,
}

/// Chunks of a large file, told together with their packs and before the operation that will refer to them, so that others can
/// put the file together while the packs come. A hint: it changes nothing, and may come to nothing.
///
/// A member has one draft at a time: a part at offset 0 begins it, and its next commit with operations ends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftPart {
    /// Where in the file the first of the chunks begins: where the part before ended, else the part says nothing.
    pub offset: u64,
    /// The chunks in order.
    pub chunks: Vec<ChunkRef>,
}

impl DraftPart {
    /// Where in the file the last of the chunks ends.
    pub fn end(&self) -> u64 {
        let length: u64 = self
            .chunks
            .iter()
            .map(|chunk| u64::from(chunk.length))
            .sum();
        self.offset.saturating_add(length)
    }
}

/// The tree as of all commits that a checkpoint covers and that count: what a newcomer starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointState {
    /// BLAKE3 of the canonical stream; whoever has the commits can compute it.
    pub digest: [u8; 32],
    /// The stream, stored as a file's content is.
    pub content: FileContent,
}

/// The chunks of a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackTable {
    /// The pack.
    pub pack: PackId,
    /// How often what is in it was repacked: of several places of a chunk that of the greatest round is preferred.
    pub round: u8,
    /// Its chunks by offset.
    pub chunks: Vec<ChunkPlace>,
}

/// Where in a pack's plaintext a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkPlace {
    /// The chunk.
    pub chunk: ChunkId,
    /// First byte in the pack's plaintext.
    pub offset: u32,
    /// Length there in bytes.
    pub stored: u32,
    /// Length of the chunk's plaintext in bytes.
    pub length: u32,
    /// How the chunk is stored.
    pub encoding: Encoding,
}

/// How a chunk is stored in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// As it is.
    Raw,
    /// One zstd frame.
    Zstd,
}

/// The size of a pack: 64 KiB times a power of two, up to 16 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PackSize(u8);

impl PackSize {
    /// Bytes of one sealed frame, the unit of encryption, verification and transfer.
    pub const FRAME: u64 = 64 * 1024;
    /// The greatest size.
    pub const MAX: Self = Self(8);

    /// The size of class `exponent`: `FRAME << exponent` bytes; `None` above 8.
    pub const fn from_exponent(exponent: u8) -> Option<Self> {
        if exponent <= Self::MAX.0 {
            Some(Self(exponent))
        } else {
            None
        }
    }

    /// The smallest size of at least `frames` frames; `None` above 256.
    pub fn for_frames(frames: u64) -> Option<Self> {
        let exponent = frames.max(1).checked_next_power_of_two()?.trailing_zeros();
        Self::from_exponent(u8::try_from(exponent).ok()?)
    }

    /// The power of two: 0 to 8.
    pub const fn exponent(self) -> u8 {
        self.0
    }

    /// Number of frames.
    pub const fn frames(self) -> u32 {
        1 << self.0
    }

    /// Length in bytes.
    pub const fn bytes(self) -> u64 {
        Self::FRAME << self.0
    }
}

impl<'de> Deserialize<'de> for PackSize {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_exponent(u8::deserialize(deserializer)?)
            .ok_or_else(|| serde::de::Error::custom("pack size class above 16 MiB"))
    }
}
