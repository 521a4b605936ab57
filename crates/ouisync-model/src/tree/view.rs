//! What people see of the tree: each existing node under one path for each distinct value, no two entries under one path.

use std::collections::{BTreeMap, HashSet};

use crate::{
    id::{MemberId, NodeId, NodeKind},
    name::Name,
    operation::{Operation, Value},
};

use super::{
    edit,
    entry::Entry,
    names, same_name,
    state::NodeState,
    store::TreeReader,
    united::{United, existing_directories},
    walk::Walk,
};

/// A reading view. Directories are named by any of the nodes that they unite, or [`NodeId::ROOT`].
pub struct View<'a, R: TreeReader> {
    reader: &'a R,
    label: &'a dyn Fn(&MemberId) -> String,
}

impl<R: TreeReader> Clone for View<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: TreeReader> Copy for View<'_, R> {}

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

impl<'a, R: TreeReader> View<'a, R> {
    /// A view of `reader`; `label` names a member in derived names and must answer alike on every device.
    pub const fn new(reader: &'a R, label: &'a dyn Fn(&MemberId) -> String) -> Self {
        Self { reader, label }
    }

    /// The entries of a directory, ascending by name; `None` if `directory` is not visible.
    pub fn listing(&self, directory: NodeId) -> Result<Option<Vec<Entry>>, R::Error> {
        match United::default().nodes(self.reader, directory)? {
            Some(nodes) => Ok(Some(self.listing_of(&nodes)?)),
            None => Ok(None),
        }
    }

    /// The entry of this visible name in a directory. Reads the whole directory only for names that look derived.
    pub fn entry(&self, directory: NodeId, name: &Name) -> Result<Option<Entry>, R::Error> {
        match United::default().nodes(self.reader, directory)? {
            Some(nodes) => self.entry_of(&nodes, name),
            None => Ok(None),
        }
    }

    /// The entry at a path from the top; `None` for the empty path, as the top directory is no entry.
    pub fn lookup(&self, path: &[Name]) -> Result<Option<Entry>, R::Error> {
        let Some((last, above)) = path.split_last() else {
            return Ok(None);
        };
        let mut nodes = vec![NodeId::ROOT];
        for name in above {
            // A directory always keeps the name that it was given.
            nodes = existing_directories(self.reader, &nodes, name)?;
            if nodes.is_empty() {
                return Ok(None);
            }
        }
        self.entry_of(&nodes, last)
    }

    /// The smallest node of the visible directory that `directory` is part of; `None` if it is not visible.
    pub fn canonical(&self, directory: NodeId) -> Result<Option<NodeId>, R::Error> {
        let nodes = United::default().nodes(self.reader, directory)?;
        Ok(nodes.and_then(|nodes| nodes.first().copied()))
    }

    /// The entries that show a node: one for a directory, one for each distinct value of a leaf, none if it is not visible.
    pub fn entries_of(&self, node: NodeId) -> Result<Vec<Entry>, R::Error> {
        let Some((parents, name)) = self.place_of(node)? else {
            return Ok(Vec::new());
        };
        let mut entries = same_name::entries(&name, &self.existing_named(&parents, &name)?);
        if entries.len() > 1 {
            // Derived names depend on what else is there.
            entries = self.listing_of(&parents)?;
        }
        entries.retain(|entry| entry.nodes().any(|shown| shown == node));
        Ok(entries)
    }

    /// The path of a visible directory, empty for the top; of a visible leaf, that of its greatest value by stamp.
    pub fn path(&self, node: NodeId) -> Result<Option<Vec<Name>>, R::Error> {
        let mut names = Vec::new();
        let mut at = node;
        if node.kind() == NodeKind::Leaf {
            let Some(state) = self.existing(node)? else {
                return Ok(None);
            };
            let live = state
                .content
                .values()
                .filter(|content| content.value != Value::Deleted);
            let newest = live
                .max_by_key(|content| content.stamp)
                .map(|content| content.stamp.op);
            let entry = self.entries_of(node)?.into_iter().find(|entry| {
                let mut shown = entry.register_ops.iter().flat_map(|part| &part.shown);
                shown.any(|op| Some(*op) == newest)
            });
            let (Some(entry), Some(placement)) = (entry, state.placement) else {
                return Ok(None);
            };
            names.push(entry.name);
            at = placement.parent;
        }
        while at != NodeId::ROOT {
            let Some(state) = self.existing(at)? else {
                return Ok(None);
            };
            let Some(placement) = state.placement else {
                return Ok(None);
            };
            names.push(placement.name);
            at = placement.parent;
        }
        names.reverse();
        Ok(Some(names))
    }

    /// Whether the visible directory of `ancestor` is that of `node` or holds `node` at any depth.
    pub fn is_ancestor(&self, ancestor: NodeId, node: NodeId) -> Result<bool, R::Error> {
        let Some(nodes) = United::default().nodes(self.reader, ancestor)? else {
            return Ok(false);
        };
        let mut at = node;
        loop {
            if nodes.contains(&at) {
                return Ok(true);
            }
            match self.existing(at)?.and_then(|state| state.placement) {
                Some(placement) => at = placement.parent,
                None => return Ok(false),
            }
        }
    }

    /// The operations that delete an entry with all that is visible inside.
    pub fn delete_tree(&self, entry: &Entry) -> Result<Vec<Operation>, R::Error> {
        let mut operations = edit::delete(entry);
        if entry.is_directory() {
            let mut walk = self.walk(entry.node)?;
            while let Some((_, inner)) = walk.step()? {
                operations.extend(edit::delete(&inner));
            }
        }
        Ok(operations)
    }

    /// All entries below a directory, each directory before what is inside, by name; nothing if it is not visible.
    pub fn walk(&self, directory: NodeId) -> Result<Walk<'a, R>, R::Error> {
        match United::default().nodes(self.reader, directory)? {
            Some(nodes) => Walk::new(*self, &nodes),
            None => Ok(Walk::finished(*self)),
        }
    }

    /// At most `limit` entries of the whole tree in the order of [`walk`](Self::walk), from behind the path `after`, which need
    /// not exist any more.
    pub fn page(
        &self,
        after: Option<&[Name]>,
        limit: usize,
    ) -> Result<Vec<(Vec<Name>, Entry)>, R::Error> {
        let mut walk = self.walk(NodeId::ROOT)?;
        walk.skip_to(after.unwrap_or_default())?;
        let mut page = Vec::new();
        while page.len() < limit {
            match walk.step()? {
                Some(found) => page.push(found),
                None => break,
            }
        }
        Ok(page)
    }

    /// How much is visible. Walks the whole tree.
    pub fn counts(&self) -> Result<Counts, R::Error> {
        let mut counts = Counts::default();
        let mut walk = self.walk(NodeId::ROOT)?;
        while let Some((_, entry)) = walk.step()? {
            counts.conflicts += u64::from(entry.conflict);
            match &entry.value {
                Value::Directory => counts.directories += 1,
                Value::File(content) => {
                    counts.files += 1;
                    counts.bytes = counts.bytes.saturating_add(content.size);
                }
                Value::Symlink(_) => counts.symlinks += 1,
                Value::Deleted => {}
            }
        }
        Ok(counts)
    }

    /// The entries of the directory that unites `nodes`, ascending by name.
    pub(super) fn listing_of(&self, nodes: &[NodeId]) -> Result<Vec<Entry>, R::Error> {
        let mut by_name: BTreeMap<Name, BTreeMap<NodeId, NodeState>> = BTreeMap::new();
        for parent in nodes {
            for (name, child) in self.reader.children(*parent)? {
                if let Some(state) = self.existing(child)? {
                    by_name.entry(name).or_default().insert(child, state);
                }
            }
        }
        let mut listing = Vec::with_capacity(by_name.len());
        let mut losers = Vec::new();
        for (name, children) in &by_name {
            let mut entries = same_name::entries(name, children).into_iter();
            listing.extend(entries.next());
            // The oldest first: a name that was derived stays when newer values come.
            losers.extend(entries.rev());
        }
        if !losers.is_empty() {
            let mut taken: HashSet<Name> = by_name.into_keys().collect();
            for entry in &mut losers {
                names::derive(entry, &mut taken, self.label);
            }
            listing.append(&mut losers);
            listing.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        }
        Ok(listing)
    }

    fn entry_of(&self, parents: &[NodeId], name: &Name) -> Result<Option<Entry>, R::Error> {
        let nodes = self.existing_named(parents, name)?;
        if !nodes.is_empty() {
            return Ok(same_name::entries(name, &nodes).into_iter().next());
        }
        if !names::may_be_derived(name) {
            return Ok(None);
        }
        Ok(self
            .listing_of(parents)?
            .into_iter()
            .find(|entry| entry.name == *name))
    }

    pub(super) const fn reader(&self) -> &'a R {
        self.reader
    }

    pub(super) fn existing(&self, node: NodeId) -> Result<Option<NodeState>, R::Error> {
        Ok(self.reader.node(node)?.filter(NodeState::exists))
    }

    pub(super) fn existing_named(
        &self,
        parents: &[NodeId],
        name: &Name,
    ) -> Result<BTreeMap<NodeId, NodeState>, R::Error> {
        let mut nodes = BTreeMap::new();
        for parent in parents {
            for child in self.reader.children_named(*parent, name)? {
                if let Some(state) = self.existing(child)? {
                    nodes.insert(child, state);
                }
            }
        }
        Ok(nodes)
    }

    /// The nodes of the visible directory that holds an existing node, and its name there.
    pub(super) fn place_of(&self, node: NodeId) -> Result<Option<(Vec<NodeId>, Name)>, R::Error> {
        let Some(placement) = self.existing(node)?.and_then(|state| state.placement) else {
            return Ok(None);
        };
        let parents = United::default().nodes(self.reader, placement.parent)?;
        Ok(parents.map(|parents| (parents.to_vec(), placement.name)))
    }
}
