//! What is kept of every operation, so that the tree can be read as it was without the commits' bytes.
//!
//! Owns what is recorded when a commit is applied. Records only grow; reading them is [`past`](super::past).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    id::{CommitId, Lamport, MemberId, NodeId, NodeKind, OpId, Stamp, Timestamp},
    name::Name,
    operation::{MetadataChange, Operation, Value},
};

use super::{
    CommitContext, apply,
    state::{DirectoryPlacement, NodeState, Placement},
    store::{TreeReader, TreeStore},
};

/// What one commit did to one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeChange {
    /// The commit.
    pub commit: CommitId,
    /// Its logical time.
    pub lamport: Lamport,
    /// Who wrote it.
    pub author: MemberId,
    /// When, by the author's clock.
    pub time: Timestamp,
    /// Counts the starts from a checkpoint that this device made before it applied the commit.
    pub era: u32,
    /// The operations with their index in the commit, ascending.
    pub changes: Vec<(u32, Change)>,
    /// The node as the checkpoint had it: in the first record of an era, when the node was in the tree.
    pub before: Option<NodeState>,
}

/// An operation on a node that is known from the context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Placed here.
    Place {
        /// Its directory.
        parent: NodeId,
        /// Its name there.
        name: Name,
    },
    /// Written.
    Write {
        /// The value.
        value: Value,
        /// The values that it took away.
        replaces: Vec<OpId>,
    },
    /// Described.
    SetMetadata(MetadataChange),
}

impl NodeChange {
    /// The stamp of its operation at `index`.
    pub const fn stamp(&self, index: u32) -> Stamp {
        Stamp {
            lamport: self.lamport,
            op: OpId {
                commit: self.commit,
                index,
            },
        }
    }
}

/// How much a commit did, from its operations alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeCounts {
    /// Files and links that were new.
    pub created: u32,
    /// Files and links that got other content.
    pub edited: u32,
    /// Files and links that were deleted.
    pub deleted: u32,
    /// Files and links that were moved or renamed.
    pub moved: u32,
    /// Files and links of which only metadata changed.
    pub described: u32,
    /// Directories that were new.
    pub directories_created: u32,
    /// Directories that were deleted.
    pub directories_deleted: u32,
    /// Directories that were moved or renamed.
    pub directories_moved: u32,
    /// Bytes in the files that were new or got other content.
    pub bytes: u64,
}

impl ChangeCounts {
    /// Counts what one commit did to one node.
    pub fn count(&mut self, kind: NodeKind, changes: &[(u32, Change)]) {
        let (mut placed, mut described) = (false, false);
        let mut written = None;
        for (_, change) in changes {
            match change {
                Change::Place { .. } => placed = true,
                Change::SetMetadata(_) => described = true,
                Change::Write { value, replaces } => {
                    written = Some((value, !replaces.is_empty()));
                }
            }
        }
        if let Some((Value::File(content), _)) = written {
            self.bytes = self.bytes.saturating_add(content.size);
        }
        let counter = match (kind, written) {
            (NodeKind::Leaf, Some((Value::Deleted, _))) => &mut self.deleted,
            (NodeKind::Leaf, Some((_, true))) if !placed => &mut self.edited,
            (NodeKind::Leaf, Some(_)) => &mut self.created,
            (NodeKind::Leaf, None) if placed => &mut self.moved,
            (NodeKind::Leaf, None) if described => &mut self.described,
            (NodeKind::Directory, Some((Value::Deleted, _))) => &mut self.directories_deleted,
            (NodeKind::Directory, Some(_)) => &mut self.directories_created,
            (NodeKind::Directory, None) if placed => &mut self.directories_moved,
            _ => return,
        };
        *counter = counter.saturating_add(1);
    }

    /// Adds what another commit did.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.created, other.created),
            (&mut self.edited, other.edited),
            (&mut self.deleted, other.deleted),
            (&mut self.moved, other.moved),
            (&mut self.described, other.described),
            (&mut self.directories_created, other.directories_created),
            (&mut self.directories_deleted, other.directories_deleted),
            (&mut self.directories_moved, other.directories_moved),
        ];
        for (sum, more) in pairs {
            *sum = sum.saturating_add(more);
        }
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    /// Whether nothing was done that people see.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Reading what was recorded, beside the tree as it is.
pub trait HistoryReader: TreeReader {
    /// All that was recorded of a node, in any order.
    fn changes(&self, node: NodeId) -> Result<Vec<NodeChange>, Self::Error>;

    /// Leaves that were placed in `parent` and may no longer be, in any order; of directories the log tells.
    fn former_children(&self, parent: NodeId) -> Result<Vec<(Name, NodeId)>, Self::Error>;

    /// The same of one name.
    fn former_children_named(
        &self,
        parent: NodeId,
        name: &Name,
    ) -> Result<Vec<NodeId>, Self::Error>;

    /// The whole log of directory placements, in any order.
    fn placements(&self) -> Result<Vec<(Stamp, DirectoryPlacement)>, Self::Error>;
}

/// Recording, in the same batch as the tree's changes.
pub trait HistoryStore: TreeStore + HistoryReader {
    /// Adds what a commit did to a node; the same again changes nothing.
    fn put_change(&mut self, node: NodeId, change: &NodeChange) -> Result<(), Self::Error>;

    /// Remembers that the leaf `child` was placed in `parent` under `name`; the same again changes nothing.
    fn put_former(&mut self, parent: NodeId, name: &Name, child: NodeId)
    -> Result<(), Self::Error>;
}

impl<H: HistoryReader + ?Sized> HistoryReader for &H {
    fn changes(&self, node: NodeId) -> Result<Vec<NodeChange>, Self::Error> {
        (**self).changes(node)
    }

    fn former_children(&self, parent: NodeId) -> Result<Vec<(Name, NodeId)>, Self::Error> {
        (**self).former_children(parent)
    }

    fn former_children_named(
        &self,
        parent: NodeId,
        name: &Name,
    ) -> Result<Vec<NodeId>, Self::Error> {
        (**self).former_children_named(parent, name)
    }

    fn placements(&self) -> Result<Vec<(Stamp, DirectoryPlacement)>, Self::Error> {
        (**self).placements()
    }
}

/// Records a commit that is about to be applied; `None` when it is applied already.
pub(super) fn record<S: HistoryStore>(
    store: &mut S,
    context: &CommitContext,
    era: u32,
    operations: &[Operation],
) -> Result<Option<ChangeCounts>, S::Error> {
    if store.is_applied(&context.commit)? {
        return Ok(None);
    }
    let mut nodes: BTreeMap<NodeId, Vec<(u32, Change)>> = BTreeMap::new();
    for (index, operation) in (0..).zip(operations) {
        if apply::check(operation).is_err() {
            continue;
        }
        let (node, change) = match operation {
            Operation::Place { node, parent, name } => (
                node,
                Change::Place {
                    parent: *parent,
                    name: name.clone(),
                },
            ),
            Operation::Write {
                node,
                value,
                replaces,
            } => (
                node,
                Change::Write {
                    value: value.clone(),
                    replaces: replaces.clone(),
                },
            ),
            Operation::SetMetadata { node, change } => (node, Change::SetMetadata(*change)),
        };
        nodes.entry(*node).or_default().push((index, change));
    }
    let mut counts = ChangeCounts::default();
    for (node, changes) in nodes {
        counts.count(node.kind(), &changes);
        let placed = changes
            .iter()
            .any(|(_, change)| matches!(change, Change::Place { .. }));
        let held = if era > 0 || (placed && node.kind() == NodeKind::Leaf) {
            store.node(node)?
        } else {
            None
        };
        let change = NodeChange {
            commit: context.commit,
            lamport: context.lamport,
            author: context.author,
            time: context.time,
            era,
            changes,
            before: None,
        };
        if placed && node.kind() == NodeKind::Leaf {
            let placement = held.as_ref().and_then(|held| held.placement.clone());
            record_places(store, node, placement, &change)?;
        }
        let mut before = None;
        if era > 0 {
            let mut known = store.changes(node)?;
            known.retain(|known| known.era == era);
            if known.iter().any(|known| known.commit == change.commit) {
                // The tree was emptied since; the record may say how the checkpoint had the node.
                continue;
            }
            before = held.filter(|_| known.is_empty());
        }
        let change = NodeChange { before, ..change };
        store.put_change(node, &change)?;
    }
    Ok(Some(counts))
}

/// Every place of a leaf is either linked in the tree or among the former ones: it loses one only to a greater stamp.
fn record_places<S: HistoryStore>(
    store: &mut S,
    node: NodeId,
    mut held: Option<Placement>,
    change: &NodeChange,
) -> Result<(), S::Error> {
    for (index, place) in &change.changes {
        let Change::Place { parent, name } = place else {
            continue;
        };
        let new = Placement {
            stamp: change.stamp(*index),
            parent: *parent,
            name: name.clone(),
        };
        held = Some(match held {
            None => new,
            Some(held) => {
                let (stays, goes) = if held.stamp > new.stamp {
                    (held, new)
                } else {
                    (new, held)
                };
                store.put_former(goes.parent, &goes.name, node)?;
                stays
            }
        });
    }
    Ok(())
}
