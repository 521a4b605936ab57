//! The storage that the tree needs, made for sorted key-value stores.
//!
//! All writes of one [`Tree::apply`](super::Tree::apply) belong into one atomic batch, and reads see the writes before them.

use crate::{
    id::{CommitId, NodeId, OpId, Stamp},
    name::Name,
};

use super::state::{DirectoryPlacement, NodeState};

/// What reading the tree needs. A snapshot of the store is enough.
pub trait TreeReader {
    /// Why storage fails.
    type Error;

    /// The state of a node; `None` if none was ever put.
    fn node(&self, node: NodeId) -> Result<Option<NodeState>, Self::Error>;

    /// All links from `parent`, in any order.
    fn children(&self, parent: NodeId) -> Result<Vec<(Name, NodeId)>, Self::Error>;

    /// The links from `parent` with this very name, in any order.
    fn children_named(&self, parent: NodeId, name: &Name) -> Result<Vec<NodeId>, Self::Error>;
}

/// What changing the tree needs.
pub trait TreeStore: TreeReader {
    /// Whether [`mark_applied`](Self::mark_applied) was called for the commit.
    fn is_applied(&self, commit: &CommitId) -> Result<bool, Self::Error>;

    /// Remembers that the commit's operations are in the tree.
    fn mark_applied(&mut self, commit: &CommitId) -> Result<(), Self::Error>;

    /// Sets the state of a node. The default state is as good as none and may be stored as such.
    fn put_node(&mut self, node: NodeId, state: &NodeState) -> Result<(), Self::Error>;

    /// Adds a link; a link (parent, name, child) is there once or not at all.
    fn link(&mut self, parent: NodeId, name: &Name, child: NodeId) -> Result<(), Self::Error>;

    /// Takes a link away.
    fn unlink(&mut self, parent: NodeId, name: &Name, child: NodeId) -> Result<(), Self::Error>;

    /// The records of the placement log with a stamp greater than `after`, greatest first.
    fn placements_after(
        &self,
        after: Stamp,
    ) -> Result<Vec<(Stamp, DirectoryPlacement)>, Self::Error>;

    /// Sets the record at `stamp` of the placement log.
    fn put_placement(
        &mut self,
        stamp: Stamp,
        placement: &DirectoryPlacement,
    ) -> Result<(), Self::Error>;

    /// Remembers that a value of `node`, written by an operation of a commit that has not arrived, is replaced.
    ///
    /// Never called while commits arrive in causal order and authors are honest; a hostile author can make one such record
    /// for each 33 bytes of commit. Idempotent.
    fn put_replaced_early(&mut self, op: OpId, node: NodeId) -> Result<(), Self::Error>;

    /// Takes all such records of `commit` away and returns them: index of the operation, and node.
    fn take_replaced_early(&mut self, commit: &CommitId)
    -> Result<Vec<(u32, NodeId)>, Self::Error>;
}

impl<R: TreeReader + ?Sized> TreeReader for &R {
    type Error = R::Error;

    fn node(&self, node: NodeId) -> Result<Option<NodeState>, Self::Error> {
        (**self).node(node)
    }

    fn children(&self, parent: NodeId) -> Result<Vec<(Name, NodeId)>, Self::Error> {
        (**self).children(parent)
    }

    fn children_named(&self, parent: NodeId, name: &Name) -> Result<Vec<NodeId>, Self::Error> {
        (**self).children_named(parent, name)
    }
}
