//! The registers out of a tree and into an empty one, without the commits that wrote them.
//!
//! What can be derived (links, counts, cycles broken, what a placement came after) is derived again and never taken from outside, so
//! whatever is loaded is a tree that some set of commits could have made.

use crate::{
    id::{CommitId, Lamport, MemberId, NodeId, NodeKind, Stamp, Timestamp},
    name::Name,
    operation::Value,
};

use super::{
    Changes, CommitContext, Tree,
    apply::Working,
    directories,
    state::{ContentValue, DirectoryPlacement, MetadataState, NodeState, Placement},
    store::TreeStore,
};

/// A placement of a directory, one of all that were ever made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryRecord {
    /// The operation.
    pub stamp: Stamp,
    /// The directory.
    pub node: NodeId,
    /// The directory it is put in.
    pub parent: NodeId,
    /// Its name there.
    pub name: Name,
}

/// The registers of a node, but for the placement of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRegisters {
    /// The node.
    pub node: NodeId,
    /// Where a leaf is.
    pub placement: Option<Placement>,
    /// The last metadata.
    pub metadata: MetadataState,
    /// The values of its content register, ascending by operation.
    pub content: Vec<ContentValue>,
}

impl DirectoryRecord {
    /// The record at a stamp of the placement log.
    pub fn of(stamp: Stamp, record: DirectoryPlacement) -> Self {
        Self {
            stamp,
            node: record.node,
            parent: record.parent,
            name: record.name,
        }
    }

    /// Whether an operation could have made it.
    pub fn is_sound(&self) -> bool {
        self.node != NodeId::ROOT
            && self.node.kind() == NodeKind::Directory
            && self.parent.kind() == NodeKind::Directory
    }
}

impl NodeRegisters {
    /// The registers of a node; `None` if nothing is in them.
    pub fn of(node: NodeId, state: NodeState) -> Option<Self> {
        let leaf = node.kind() == NodeKind::Leaf;
        let registers = Self {
            node,
            placement: state.placement.filter(|_| leaf),
            metadata: state.metadata,
            content: state.content.into_values().collect(),
        };
        let empty = registers.placement.is_none()
            && registers.metadata == MetadataState::default()
            && registers.content.is_empty();
        (!empty).then_some(registers)
    }

    /// Whether operations could have made them.
    pub fn is_sound(&self) -> bool {
        let leaf = self.node.kind() == NodeKind::Leaf;
        let placed = self.placement.as_ref();
        self.node != NodeId::ROOT
            && placed.is_none_or(|at| leaf && at.parent.kind() == NodeKind::Directory)
            && self.content.iter().all(|content| match content.value {
                Value::Deleted => true,
                Value::Directory => !leaf,
                Value::File(_) | Value::Symlink(_) => leaf,
            })
    }
}

impl<S: TreeStore> Tree<S> {
    /// Loads placements of directories, by ascending stamps, into a tree that holds nothing but earlier ones. Unsound ones are
    /// passed over.
    ///
    /// # Errors
    /// Only those of the storage.
    pub fn load_directories(&mut self, records: Vec<DirectoryRecord>) -> Result<(), S::Error> {
        let mut working = Working::new(&mut self.store, NOBODY);
        let moves = records.into_iter().filter(DirectoryRecord::is_sound);
        let moves = moves.map(|record| {
            let DirectoryRecord {
                stamp,
                node,
                parent,
                name,
            } = record;
            let placement = Placement {
                stamp,
                parent,
                name,
            };
            (node, placement)
        });
        directories::place(&mut working, moves.collect())?;
        working.write_nodes()?;
        Ok(())
    }

    /// Loads registers of nodes, each once, when all placements of directories are loaded. Unsound ones are passed over. Of the
    /// changes only [`Changes::added`] is told.
    ///
    /// # Errors
    /// Only those of the storage.
    pub fn load_nodes(&mut self, nodes: Vec<NodeRegisters>) -> Result<Changes, S::Error> {
        let mut working = Working::new(&mut self.store, NOBODY);
        for registers in nodes.into_iter().filter(NodeRegisters::is_sound) {
            working.load(registers)?;
        }
        let added = working.write_nodes()?.added;
        Ok(Changes {
            added,
            ..Changes::default()
        })
    }
}

/// No commit is being merged.
const NOBODY: CommitContext = CommitContext {
    commit: CommitId::from_bytes([0; 32]),
    lamport: Lamport(0),
    author: MemberId::from_bytes([0; 32]),
    time: Timestamp {
        seconds: 0,
        nanoseconds: 0,
    },
};
