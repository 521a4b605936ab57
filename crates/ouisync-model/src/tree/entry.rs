//! What a listing shows: one directory, file or symbolic link under one name.

use crate::{
    id::{MemberId, NodeId, OpId, Timestamp},
    name::Name,
    operation::{Metadata, Value},
};

/// One visible entry of a directory. Change it through [`edit`](super::edit), which knows what must be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name to show, unique in the listing: `raw_name` or a name derived from it.
    pub name: Name,
    /// The name that the node was given.
    pub raw_name: Name,
    /// The node; the smallest of those that this entry unites.
    pub node: NodeId,
    /// The other nodes that this entry unites: directories of one name, or files of one name and equal content. Ascending.
    pub aliases: Vec<NodeId>,
    /// The operation that wrote the value; the greatest by stamp if several wrote equal ones. `None` for a directory that was
    /// deleted and exists only for what is inside.
    pub op: Option<OpId>,
    /// The value; never [`Value::Deleted`].
    pub value: Value,
    /// The node's metadata; the default when none was ever set.
    pub metadata: Metadata,
    /// Who wrote the value; `None` when `op` is.
    pub author: Option<MemberId>,
    /// When the value was written, by its author's clock.
    pub time: Timestamp,
    /// The entry is shown under a derived name, because another value holds `raw_name`.
    pub conflict: bool,
    /// Other entries were given the same name: this is one side of a conflict, also where it keeps the name.
    pub contested: bool,
    /// For each node of this entry, ascending: the operations that a change of this entry replaces.
    pub register_ops: Vec<RegisterOps>,
}

/// The part of a node's register that an entry stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterOps {
    /// The node.
    pub node: NodeId,
    /// The operations whose values this entry shows.
    pub shown: Vec<OpId>,
    /// Operations that wrote [`Value::Deleted`] and are still in the register.
    pub deleted: Vec<OpId>,
    /// The register also holds values that other entries show.
    pub shared: bool,
}

impl RegisterOps {
    /// Everything that a write replaces.
    pub fn replaces(&self) -> Vec<OpId> {
        self.shown.iter().chain(&self.deleted).copied().collect()
    }
}

impl Entry {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.value == Value::Directory
    }

    /// All nodes that it unites, ascending.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        std::iter::once(self.node).chain(self.aliases.iter().copied())
    }
}
