//! A state's way into an empty index: record by record, checked, in batches.

use std::io::{self, Read};

use ouisync_model::{
    id::{CommitId, Lamport, NodeId, OpId, PackId, Stamp},
    tree::{
        Tree,
        registers::{DirectoryRecord, NodeRegisters},
        store::TreeStore,
    },
};

use super::{Record, StateError, VERSION};
use crate::{
    checkpoint::Skeleton,
    index::{Index, batch::IndexBatch},
};

/// Most bytes of a record: those of the largest commit body, and some.
const MAX_RECORD: u64 = (ouisync_crypto::commit::MAX_PLAIN_BODY + 4096) as u64;
/// Records loaded together, and bytes of changes after which they are committed.
const LOAD_STEP: usize = 512;
const LOAD_BATCH: usize = 8 << 20;

impl Index {
    /// Fills an empty index (see [`Index::clear_tree`]) with a state, in several batches, and marks the commits that the skeleton
    /// says are accepted as applied. Every directory is marked dirty. After an error clear it again. The caller notes in a setting
    /// of its own, before and after, that this is under way: a crash in between leaves half a state.
    pub fn load_state(
        &self,
        source: &mut dyn Read,
        digest: &[u8; 32],
        skeleton: &Skeleton,
    ) -> Result<(), StateError> {
        let mut loading = Loading {
            tree: Tree::new(self.begin()),
            directories: Vec::new(),
            nodes: Vec::new(),
            node: None,
            order: None,
            part: None,
        };
        loading.tree.store_mut().mark_dirty(NodeId::ROOT);
        let mut source = Source {
            source,
            hasher: blake3::Hasher::new(),
        };
        if source.byte()? != Some(VERSION) {
            return Err(StateError::Malformed("version"));
        }
        while let Some(record) = source.record()? {
            loading.take(record)?;
        }
        if source.hasher.finalize().as_bytes() != digest {
            return Err(StateError::OtherDigest);
        }
        loading.end_nodes()?;
        skeleton.visit_accepted(|lamport, commit| loading.mark_applied(lamport, commit))?;
        Ok(loading.tree.into_store().commit()?)
    }
}

/// The stream on its way in.
struct Source<'a> {
    source: &'a mut dyn Read,
    hasher: blake3::Hasher,
}

impl Source<'_> {
    fn byte(&mut self) -> Result<Option<u8>, StateError> {
        let mut byte = [0];
        loop {
            return match self.source.read(&mut byte) {
                Ok(0) => Ok(None),
                Ok(_) => {
                    self.hasher.update(&byte);
                    Ok(Some(byte[0]))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(StateError::Source(error)),
            };
        }
    }

    fn record(&mut self) -> Result<Option<Record>, StateError> {
        let Some(first) = self.byte()? else {
            return Ok(None);
        };
        let (mut byte, mut length) = (first, 0u64);
        for shift in (0..35).step_by(7) {
            length |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            byte = self.byte()?.ok_or(StateError::Malformed("end"))?;
        }
        if byte & 0x80 != 0 || length > MAX_RECORD {
            return Err(StateError::Malformed("length of a record"));
        }
        // Grows with what is really there.
        let mut bytes = Vec::new();
        (&mut *self.source)
            .take(length)
            .read_to_end(&mut bytes)
            .map_err(StateError::Source)?;
        if bytes.len() as u64 != length {
            return Err(StateError::Malformed("end"));
        }
        self.hasher.update(&bytes);
        match postcard::take_from_bytes(&bytes) {
            Ok((record, [])) => Ok(Some(record)),
            _ => Err(StateError::Malformed("record")),
        }
    }
}

/// The place of a record in the order of the stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Directory(Stamp),
    Node(NodeId),
    Replaced(OpId, NodeId),
    Table(PackId, CommitId),
}

struct Loading {
    tree: Tree<IndexBatch>,
    directories: Vec<DirectoryRecord>,
    nodes: Vec<NodeRegisters>,
    /// The node whose values come.
    node: Option<NodeRegisters>,
    order: Option<Order>,
    /// The table that goes on: its add, and the number of its parts.
    part: Option<(PackId, CommitId, u32)>,
}

impl Loading {
    fn take(&mut self, record: Record) -> Result<(), StateError> {
        match record {
            Record::Directory {
                stamp,
                node,
                parent,
                name,
            } => {
                self.follow(Order::Directory(stamp), false)?;
                let record = DirectoryRecord {
                    stamp,
                    node,
                    parent,
                    name,
                };
                sound(record.is_sound())?;
                self.tree.store_mut().mark_dirty(node);
                self.directories.push(record);
                if self.directories.len() == LOAD_STEP {
                    self.end_directories()?;
                }
                Ok(())
            }
            Record::Node {
                node,
                placement,
                metadata,
            } => {
                self.follow(Order::Node(node), false)?;
                self.end_directories()?;
                self.end_node()?;
                self.node = Some(NodeRegisters {
                    node,
                    placement,
                    metadata,
                    content: Vec::new(),
                });
                Ok(())
            }
            Record::Value(value) => {
                let Some(node) = &mut self.node else {
                    return Err(StateError::Malformed("value without node"));
                };
                let last = node.content.last().map(|last| last.stamp.op);
                if last.is_some_and(|last| last >= value.stamp.op) {
                    return Err(StateError::Malformed("order of values"));
                }
                node.content.push(value);
                Ok(())
            }
            Record::Replaced(op, node) => {
                self.follow(Order::Replaced(op, node), false)?;
                self.end_nodes()?;
                Ok(self.tree.store_mut().put_replaced_early(op, node)?)
            }
            Record::Table {
                pack,
                commit,
                round,
                chunks,
            } => {
                self.follow(Order::Table(pack, commit), true)?;
                self.end_nodes()?;
                let part = match self.part {
                    Some((of, by, part)) if (of, by) == (pack, commit) => part + 1,
                    _ => 0,
                };
                self.part = Some((pack, commit, part));
                let batch = self.tree.store_mut();
                batch.add_part(pack, &commit, part, round, &chunks)?;
                self.commit_if_large()
            }
        }
    }

    /// Records ascend; parts of a table have one place.
    fn follow(&mut self, order: Order, or_same: bool) -> Result<(), StateError> {
        let last = self.order.replace(order);
        if last.is_none_or(|last| last < order || (or_same && last == order)) {
            Ok(())
        } else {
            Err(StateError::Malformed("order of records"))
        }
    }

    fn end_directories(&mut self) -> Result<(), StateError> {
        if !self.directories.is_empty() {
            let records = std::mem::take(&mut self.directories);
            self.tree.load_directories(records)?;
        }
        self.commit_if_large()
    }

    fn end_node(&mut self) -> Result<(), StateError> {
        if let Some(node) = self.node.take() {
            sound(node.is_sound())?;
            self.nodes.push(node);
            if self.nodes.len() == LOAD_STEP {
                self.load_nodes()?;
            }
        }
        Ok(())
    }

    fn end_nodes(&mut self) -> Result<(), StateError> {
        self.end_directories()?;
        self.end_node()?;
        if self.nodes.is_empty() {
            Ok(())
        } else {
            self.load_nodes()
        }
    }

    fn load_nodes(&mut self) -> Result<(), StateError> {
        let nodes = std::mem::take(&mut self.nodes);
        let changes = self.tree.load_nodes(nodes)?;
        self.tree.store_mut().account(&changes)?;
        self.commit_if_large()
    }

    fn mark_applied(&mut self, lamport: Lamport, commit: CommitId) -> Result<(), StateError> {
        let batch = self.tree.store_mut();
        batch.note_lamport(lamport);
        TreeStore::mark_applied(batch, &commit)?;
        self.commit_if_large()
    }

    fn commit_if_large(&mut self) -> Result<(), StateError> {
        if self.tree.store().buffered_bytes() > LOAD_BATCH {
            self.tree.store_mut().commit_part()?;
        }
        Ok(())
    }
}

fn sound(sound: bool) -> Result<(), StateError> {
    if sound {
        Ok(())
    } else {
        Err(StateError::Malformed("impossible operation"))
    }
}
