//! What people see of the tree: every existing node under exactly one path per value.

use crate::{
    id::{MemberId, NodeId},
    name::Name,
    operation::Operation,
};

use super::{entry::Entry, store::TreeReader, walk::Walk};

/// A reading view. Directories are named by any of the nodes that they unite, or [`NodeId::ROOT`].
pub struct View<'a, R: TreeReader> {
    reader: &'a R,
    label: &'a dyn Fn(&MemberId) -> String,
}

impl<'a, R: TreeReader> View<'a, R> {
    /// A view of `reader`; `label` names a member in derived names and must answer alike on every device.
    pub const fn new(reader: &'a R, label: &'a dyn Fn(&MemberId) -> String) -> Self {
        Self { reader, label }
    }

    /// The entries of a directory by name; `None` if `directory` is not visible.
    pub fn listing(&self, directory: NodeId) -> Result<Option<Vec<Entry>>, R::Error> {
        let _ = (self.reader, self.label, directory);
        todo!()
    }

    /// The entry of this visible name in a directory.
    pub fn entry(&self, directory: NodeId, name: &Name) -> Result<Option<Entry>, R::Error> {
        let _ = (directory, name);
        todo!()
    }

    /// The entry at a path from the top; `None` for the empty path, as the top directory is no entry.
    pub fn lookup(&self, path: &[Name]) -> Result<Option<Entry>, R::Error> {
        let _ = path;
        todo!()
    }

    /// The smallest node of the visible directory that `directory` is part of; `None` if it is not visible.
    pub fn canonical(&self, directory: NodeId) -> Result<Option<NodeId>, R::Error> {
        let _ = directory;
        todo!()
    }

    /// The entries that show a node: one for a directory, one for each distinct value of a leaf, none for what is not visible.
    pub fn entries_of(&self, node: NodeId) -> Result<Vec<Entry>, R::Error> {
        let _ = node;
        todo!()
    }

    /// The path of the directory that a node is in, empty for the top; `None` if it is not visible.
    pub fn parent_path(&self, node: NodeId) -> Result<Option<Vec<Name>>, R::Error> {
        let _ = node;
        todo!()
    }

    /// The path of a visible directory, empty for the top; of a leaf, the path of its entry with the greatest stamp.
    pub fn path(&self, node: NodeId) -> Result<Option<Vec<Name>>, R::Error> {
        let _ = node;
        todo!()
    }

    /// Whether the visible directory of `ancestor` is that of `node` or holds it at any depth.
    pub fn is_ancestor(&self, ancestor: NodeId, node: NodeId) -> Result<bool, R::Error> {
        let _ = (ancestor, node);
        todo!()
    }

    /// The operations that delete an entry with all that is visible inside.
    pub fn delete_tree(&self, entry: &Entry) -> Result<Vec<Operation>, R::Error> {
        let _ = entry;
        todo!()
    }

    /// All entries below a directory, each directory before what is inside, by name; nothing if it is not visible.
    pub fn walk(&self, directory: NodeId) -> Result<Walk<'a, R>, R::Error> {
        let _ = directory;
        todo!()
    }

    /// At most `limit` entries of the whole tree in the order of [`walk`](Self::walk), from behind the path `after`.
    pub fn page(
        &self,
        after: Option<&[Name]>,
        limit: usize,
    ) -> Result<Vec<(Vec<Name>, Entry)>, R::Error> {
        let _ = (after, limit);
        todo!()
    }

    /// How much is visible. Walks the whole tree.
    pub fn counts(&self) -> Result<Counts, R::Error> {
        todo!()
    }
}

/// How much a tree shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Directories, without the top.
    pub directories: u64,
    /// Files.
    pub files: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Entries under a derived name.
    pub conflicts: u64,
    /// Bytes in files.
    pub bytes: u64,
}
