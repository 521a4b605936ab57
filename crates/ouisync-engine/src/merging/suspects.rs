//! Where conflicts may have come to be: noted as commits are applied, looked at later.

use std::collections::BTreeSet;

use ouisync_model::id::NodeId;

/// More nodes than this are not noted one by one.
const LIMIT: usize = 10_000;

/// Places to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Suspects {
    /// Everywhere.
    pub(crate) all: bool,
    /// Nodes that operations named.
    pub(crate) nodes: BTreeSet<NodeId>,
    /// Directories below which directories united or parted.
    pub(crate) subtrees: BTreeSet<NodeId>,
}

impl Suspects {
    /// The whole tree.
    pub(crate) fn everything() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.all |= other.all;
        self.nodes.extend(other.nodes);
        self.subtrees.extend(other.subtrees);
        if self.all || self.nodes.len() > LIMIT || self.subtrees.len() > LIMIT {
            *self = Self::everything();
        }
    }
}
