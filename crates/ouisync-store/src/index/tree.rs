//! The model's tree over the index.
//!
//! A directory's links are a group, one record a name with all nodes of that name. The placement log is sorted by stamp: its keys
//! show the Lamport time and the first bytes of the commit's id, which the commits beside the index show as well.

use ouisync_model::{
    id::{CommitId, NodeId, OpId, Stamp},
    name::Name,
    tree::{
        state::{DirectoryPlacement, NodeState},
        store::{TreeReader, TreeStore},
    },
};
use serde::{Deserialize, Serialize};

use super::{Index, IndexError, IndexSnapshot, Records, batch::IndexBatch, decode, encode, table};
use crate::sealed_map::RecordKey;

/// All links of one name from a directory.
#[derive(Serialize, Deserialize)]
pub(super) struct Links {
    pub(super) name: Name,
    pub(super) nodes: Vec<NodeId>,
}

fn node<R: Records>(records: &R, node: NodeId) -> Result<Option<NodeState>, IndexError> {
    let record: Option<(NodeId, NodeState)> = records.get(table::NODE, &[], node.as_bytes())?;
    Ok(record.map(|(_, state)| state))
}

fn children<R: Records>(records: &R, parent: NodeId) -> Result<Vec<(Name, NodeId)>, IndexError> {
    let all: Vec<Links> = records.list(table::LINK, parent.as_bytes(), usize::MAX)?;
    let links = all.into_iter().flat_map(|links| {
        let name = links.name;
        links
            .nodes
            .into_iter()
            .map(move |node| (name.clone(), node))
    });
    Ok(links.collect())
}

fn children_named<R: Records>(
    records: &R,
    parent: NodeId,
    name: &Name,
) -> Result<Vec<NodeId>, IndexError> {
    let links: Option<Links> = records.get(table::LINK, parent.as_bytes(), name.as_bytes())?;
    Ok(links.map(|links| links.nodes).unwrap_or_default())
}

macro_rules! tree_reader {
    ($type:ty) => {
        impl TreeReader for $type {
            type Error = IndexError;

            fn node(&self, id: NodeId) -> Result<Option<NodeState>, IndexError> {
                node(self, id)
            }

            fn children(&self, parent: NodeId) -> Result<Vec<(Name, NodeId)>, IndexError> {
                children(self, parent)
            }

            fn children_named(
                &self,
                parent: NodeId,
                name: &Name,
            ) -> Result<Vec<NodeId>, IndexError> {
                children_named(self, parent, name)
            }
        }
    };
}

tree_reader!(Index);
tree_reader!(IndexSnapshot);
tree_reader!(IndexBatch);

impl Index {
    /// Whether a commit's operations are in the tree. The ancestors of an applied commit are applied.
    pub fn is_applied(&self, commit: &CommitId) -> Result<bool, IndexError> {
        Ok(self
            .value(&self.key(table::APPLIED, commit.as_bytes(), &[]))?
            .is_some())
    }
}

impl TreeStore for IndexBatch {
    fn is_applied(&self, commit: &CommitId) -> Result<bool, IndexError> {
        Ok(self
            .value(&self.key(table::APPLIED, commit.as_bytes(), &[]))?
            .is_some())
    }

    fn mark_applied(&mut self, commit: &CommitId) -> Result<(), IndexError> {
        let key = self.key(table::APPLIED, commit.as_bytes(), &[]);
        if self.value(&key)?.is_none() {
            self.put_at(key, Vec::new());
            self.meta.position.commits += 1;
        }
        Ok(())
    }

    fn put_node(&mut self, node: NodeId, state: &NodeState) -> Result<(), IndexError> {
        if *state == NodeState::default() {
            self.remove(table::NODE, &[], node.as_bytes());
        } else {
            self.put(table::NODE, &[], node.as_bytes(), &(node, state));
        }
        Ok(())
    }

    fn link(&mut self, parent: NodeId, name: &Name, child: NodeId) -> Result<(), IndexError> {
        let mut nodes = children_named(self, parent, name)?;
        if !nodes.contains(&child) {
            nodes.push(child);
            let links = Links {
                name: name.clone(),
                nodes,
            };
            self.put(table::LINK, parent.as_bytes(), name.as_bytes(), &links);
        }
        Ok(())
    }

    fn unlink(&mut self, parent: NodeId, name: &Name, child: NodeId) -> Result<(), IndexError> {
        let mut nodes = children_named(self, parent, name)?;
        nodes.retain(|node| *node != child);
        if nodes.is_empty() {
            self.remove(table::LINK, parent.as_bytes(), name.as_bytes());
        } else {
            let links = Links {
                name: name.clone(),
                nodes,
            };
            self.put(table::LINK, parent.as_bytes(), name.as_bytes(), &links);
        }
        Ok(())
    }

    fn placements_after(
        &self,
        after: Stamp,
    ) -> Result<Vec<(Stamp, DirectoryPlacement)>, IndexError> {
        if after.lamport > self.meta.last_placement {
            return Ok(Vec::new());
        }
        let first = self.placement_key(after);
        let mut last = RecordKey([0xff; 32]);
        last.0[..8].copy_from_slice(&first.0[..8]);
        let mut placements = Vec::new();
        for (_, value) in self.values(first, last, usize::MAX)? {
            placements.extend(decode_placements(&value)?);
        }
        placements.retain(|(stamp, _)| *stamp > after);
        placements.sort_unstable_by_key(|(stamp, _)| std::cmp::Reverse(*stamp));
        Ok(placements)
    }

    fn put_placement(
        &mut self,
        stamp: Stamp,
        placement: &DirectoryPlacement,
    ) -> Result<(), IndexError> {
        let key = self.placement_key(stamp);
        let mut placements = match self.value(&key)? {
            Some(value) => decode_placements(&value)?,
            None => Vec::new(),
        };
        placements.retain(|(other, _)| *other != stamp);
        placements.push((stamp, placement.clone()));
        self.put_at(key, encode(&placements));
        self.meta.last_placement = self.meta.last_placement.max(stamp.lamport);
        Ok(())
    }

    fn put_replaced_early(&mut self, op: OpId, node: NodeId) -> Result<(), IndexError> {
        let record = (op.index, node);
        self.put(
            table::REPLACED_EARLY,
            op.commit.as_bytes(),
            &encode(&record),
            &record,
        );
        self.put(table::AWAITED, &[], op.commit.as_bytes(), &op.commit);
        Ok(())
    }

    fn take_replaced_early(&mut self, commit: &CommitId) -> Result<Vec<(u32, NodeId)>, IndexError> {
        let (first, last) = self.group(table::REPLACED_EARLY, commit.as_bytes()).range();
        let mut taken = Vec::new();
        for (key, value) in self.values(first, last, usize::MAX)? {
            taken.push(decode(table::REPLACED_EARLY, &value)?);
            self.remove_at(key);
        }
        if !taken.is_empty() {
            self.remove(table::AWAITED, &[], commit.as_bytes());
        }
        taken.sort_unstable();
        Ok(taken)
    }
}

/// Records of the placement log whose stamps share a key: one, but for a forged likeness of commit ids.
pub(super) fn decode_placements(
    value: &[u8],
) -> Result<Vec<(Stamp, DirectoryPlacement)>, IndexError> {
    decode(table::PLACEMENT, value)
}

impl IndexBatch {
    /// Sorts as stamps do: prefix of the table (8 bytes), Lamport time (8), start of the commit's id (12), index (4).
    fn placement_key(&self, stamp: Stamp) -> RecordKey {
        let (RecordKey(mut key), _) = self.group(table::PLACEMENT, &[]).range();
        key[8..16].copy_from_slice(&stamp.lamport.0.to_be_bytes());
        key[16..28].copy_from_slice(&stamp.op.commit.as_bytes()[..12]);
        key[28..].copy_from_slice(&stamp.op.index.to_be_bytes());
        RecordKey(key)
    }
}
