//! The state that a checkpoint carries: the tree's registers and the places of chunks, as one canonical stream.
//!
//! Owns its encoding, its way out of an index and into an empty one, both in bounded memory. Must not know how the stream is
//! stored, nor judge whether a checkpoint counts. Format: `docs/format/checkpoints.md`.

use std::{
    collections::BinaryHeap,
    io::{self, Read},
};

use ouisync_model::{
    id::{CommitId, NodeId, OpId, PackId, Stamp},
    name::Name,
    operation::ChunkPlace,
    tree::{
        registers::{DirectoryRecord, NodeRegisters},
        state::{ContentValue, MetadataState, NodeState, Placement},
        store::TreeReader,
    },
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    IndexError, IndexSnapshot, Records,
    contents::{TablePart, part_item},
    decode, encode, table,
    tree::decode_placements,
};
use crate::{
    checkpoint::{CheckpointError, Skeleton},
    error::ErrorKind,
    sealed_map::RecordKey,
};

mod load;

/// Version of the stream.
const VERSION: u8 = 1;
/// Bytes made at a time.
const BLOCK: usize = 64 * 1024;
/// Records of the index read at a time.
const PAGE: usize = 256;
/// Nodes put in order at a time: 16 MiB of ids. More take several passes over the index.
const SORTED: usize = 1 << 20;

/// A record of the stream. They come in the order of the kinds here, values right behind their node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Record {
    /// A placement of a directory, by stamp: all that were ever made, since a late one may undo any of them.
    Directory {
        stamp: Stamp,
        node: NodeId,
        parent: NodeId,
        name: Name,
    },
    /// A node with anything in its registers beside that, by node.
    Node {
        node: NodeId,
        placement: Option<Placement>,
        metadata: MetadataState,
    },
    /// A value in the content register of the node before, by operation.
    Value(ContentValue),
    /// An operation of a commit that isn't in the state, whose value for the node is replaced; by commit, index and node.
    Replaced(OpId, NodeId),
    /// At most 1024 places that the commit tells of the pack, for an add in force; by pack, commit and the order told.
    Table {
        pack: PackId,
        commit: CommitId,
        round: u8,
        chunks: Vec<ChunkPlace>,
    },
}

/// Why a state can't be made or loaded.
#[derive(Debug, Error)]
pub enum StateError {
    /// The stream can't be read.
    #[error("the state can't be read")]
    Source(#[source] io::Error),
    /// The stream breaks the format: the checkpoint's author is faulty or hostile.
    #[error("the state breaks the format: {0}")]
    Malformed(&'static str),
    /// The stream isn't the one that the checkpoint names.
    #[error("the state isn't the one that the checkpoint names")]
    OtherDigest,
    /// The index can't be read or written.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The skeleton can't be read.
    #[error("the skeleton can't be read")]
    Skeleton(#[from] CheckpointError),
}

impl StateError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Source(error) => crate::error::kind_of_io(error),
            Self::Malformed(_) | Self::OtherDigest => ErrorKind::Corruption,
            Self::Index(error) => error.kind(),
            Self::Skeleton(error) => error.kind(),
        }
    }
}

/// The state in an index as a stream: [`Read`] it to its end, for instance by [`Ingest::file`](crate::ingest::Ingest::file).
///
/// The index must have applied exactly the commits that the skeleton says are accepted: then the stream is a function of these
/// alone, the same on every device.
pub struct StateStream<'a> {
    snapshot: &'a IndexSnapshot,
    skeleton: &'a Skeleton,
    stage: Stage,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    at: usize,
}

/// What comes next.
enum Stage {
    /// The placement log from this key on.
    Directories(RecordKey),
    /// Nodes above the last one, which were put in order already; ascending from the end.
    Nodes {
        last: Option<NodeId>,
        next: Vec<NodeId>,
    },
    Replaced,
    /// From this one on.
    Tables(Vec<(PackId, CommitId)>, usize),
    End,
}

impl<'a> StateStream<'a> {
    /// The state in `snapshot`, with the places told by the adds that are in force by `skeleton`.
    pub fn new(snapshot: &'a IndexSnapshot, skeleton: &'a Skeleton) -> Self {
        let (first, _) = log_range(snapshot);
        Self {
            snapshot,
            skeleton,
            stage: Stage::Directories(first),
            hasher: blake3::Hasher::new(),
            buffer: vec![VERSION],
            at: 0,
        }
    }

    /// BLAKE3 of the bytes read so far: of the state, once it is read to its end.
    pub fn digest(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    /// Reads the rest, for its digest alone.
    pub fn finish(mut self) -> Result<[u8; 32], StateError> {
        io::copy(&mut self, &mut io::sink()).map_err(StateError::Source)?;
        Ok(self.digest())
    }

    /// Makes about a block of records; none at the end.
    fn fill(&mut self) -> Result<(), StateError> {
        self.buffer.clear();
        self.at = 0;
        while self.buffer.len() < BLOCK {
            self.stage = match std::mem::replace(&mut self.stage, Stage::End) {
                Stage::Directories(from) => self.directories(from)?,
                Stage::Nodes { last, next } => self.nodes(last, next)?,
                Stage::Replaced => self.replaced()?,
                Stage::Tables(dots, next) => self.tables(dots, next)?,
                Stage::End => return Ok(()),
            };
        }
        Ok(())
    }

    fn put(&mut self, record: &Record) {
        let bytes = encode(record);
        self.buffer.extend(encode(&(bytes.len() as u64)));
        self.buffer.extend(bytes);
    }

    fn directories(&mut self, from: RecordKey) -> Result<Stage, StateError> {
        let (_, last) = log_range(self.snapshot);
        let mut records = Vec::new();
        let mut page = self.page(from, last, PAGE)?;
        let mut next = None;
        if page.len() == PAGE {
            // Keys show a commit's id in part: those that may be of another commit with the same start belong together.
            let start = |key: &RecordKey| key.0[..28].to_vec();
            let common = page.last().map(|(key, _)| start(key)).unwrap_or_default();
            let mut first = RecordKey([0; 32]);
            first.0[..28].copy_from_slice(&common);
            let mut end = RecordKey([0xff; 32]);
            end.0[..28].copy_from_slice(&common);
            page.retain(|(key, _)| start(key) != common);
            page.extend(self.page(first, end, usize::MAX)?);
            next = successor(end);
        }
        for (_, value) in page {
            records.extend(decode_placements(&value)?);
        }
        records.sort_unstable_by_key(|(stamp, _)| *stamp);
        for (stamp, placement) in records {
            let DirectoryRecord {
                stamp,
                node,
                parent,
                name,
            } = DirectoryRecord::of(stamp, placement);
            self.put(&Record::Directory {
                stamp,
                node,
                parent,
                name,
            });
        }
        Ok(match next.filter(|next| *next <= last) {
            Some(next) => Stage::Directories(next),
            None => Stage::Nodes {
                last: None,
                next: Vec::new(),
            },
        })
    }

    fn page(
        &self,
        first: RecordKey,
        last: RecordKey,
        limit: usize,
    ) -> Result<Vec<(RecordKey, Vec<u8>)>, StateError> {
        let page = self.snapshot.values(first, last, limit);
        Ok(page.map_err(IndexError::from)?)
    }

    fn nodes(&mut self, last: Option<NodeId>, mut next: Vec<NodeId>) -> Result<Stage, StateError> {
        if next.is_empty() {
            next = self.nodes_above(last)?;
            next.reverse();
        }
        let Some(node) = next.pop() else {
            return Ok(Stage::Replaced);
        };
        let state = self.snapshot.node(node)?.unwrap_or_default();
        if let Some(registers) = NodeRegisters::of(node, state) {
            self.put(&Record::Node {
                node,
                placement: registers.placement,
                metadata: registers.metadata,
            });
            for value in registers.content {
                self.put(&Record::Value(value));
            }
        }
        Ok(Stage::Nodes {
            last: Some(node),
            next,
        })
    }

    /// The least nodes above `last`, ascending. Records are in the order of no node's id: each pass looks at all.
    fn nodes_above(&self, last: Option<NodeId>) -> Result<Vec<NodeId>, StateError> {
        let (first, end) = self.snapshot.group(table::NODE, &[]).range();
        let mut least = BinaryHeap::new();
        let map = &self.snapshot.shared.map;
        for record in map.range(first..=end, Some(&self.snapshot.snapshot)) {
            let (_, value) = record.map_err(IndexError::from)?;
            let (node, _): (NodeId, NodeState) = decode(table::NODE, &value)?;
            if last.is_some_and(|last| node <= last) {
                continue;
            }
            least.push(node);
            if least.len() > SORTED {
                least.pop();
            }
        }
        Ok(least.into_sorted_vec())
    }

    fn replaced(&mut self) -> Result<Stage, StateError> {
        let mut awaited: Vec<CommitId> = self.snapshot.list(table::AWAITED, &[], usize::MAX)?;
        awaited.sort_unstable();
        for commit in awaited {
            let group = commit.as_bytes();
            let mut records: Vec<(u32, NodeId)> =
                self.snapshot
                    .list(table::REPLACED_EARLY, group, usize::MAX)?;
            records.sort_unstable();
            for (index, node) in records {
                self.put(&Record::Replaced(OpId { commit, index }, node));
            }
        }
        Ok(Stage::Tables(self.skeleton.dots()?, 0))
    }

    fn tables(&mut self, dots: Vec<(PackId, CommitId)>, next: usize) -> Result<Stage, StateError> {
        let Some((pack, commit)) = dots.get(next).copied() else {
            return Ok(Stage::End);
        };
        for part in 0.. {
            let item = part_item(&commit, part);
            let told: Option<TablePart> =
                self.snapshot
                    .get(table::PACK_CHUNKS, pack.as_bytes(), &item)?;
            let Some(told) = told else { break };
            self.put(&Record::Table {
                pack,
                commit,
                round: told.round,
                chunks: told.chunks,
            });
        }
        Ok(Stage::Tables(dots, next + 1))
    }
}

/// The keys of the placement log, of which only the first 8 bytes are the table's.
fn log_range(snapshot: &IndexSnapshot) -> (RecordKey, RecordKey) {
    let (group, _) = snapshot.group(table::PLACEMENT, &[]).range();
    let (mut first, mut last) = (RecordKey([0; 32]), RecordKey([0xff; 32]));
    first.0[..8].copy_from_slice(&group.0[..8]);
    last.0[..8].copy_from_slice(&group.0[..8]);
    (first, last)
}

/// The next key.
fn successor(mut key: RecordKey) -> Option<RecordKey> {
    for byte in key.0.iter_mut().rev() {
        if *byte < u8::MAX {
            *byte += 1;
            return Some(key);
        }
        *byte = 0;
    }
    None
}

impl Read for StateStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.buffer.len() {
            self.fill().map_err(io::Error::other)?;
        }
        let left = &self.buffer[self.at..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.hasher.update(&left[..count]);
        self.at += count;
        Ok(count)
    }
}
