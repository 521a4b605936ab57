//! The directories on disk and where recorded things are, in memory: about 60 bytes for each file.
//!
//! Only an index over the records; rebuilt from them at every attaching.

use std::collections::{BTreeSet, HashMap};

use ouisync_model::{id::NodeId, name::Name};

use crate::{
    fingerprint::Identity,
    record::{Group, ROOT_GROUP, Record, STAGING_GROUP},
};

/// A directory on disk; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot(u32);

/// The top directory.
pub(crate) const ROOT: Slot = Slot(0);
/// The staging directory.
pub(crate) const STAGING: Slot = Slot(1);

/// A directory on disk.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    /// `None` for the root, the staging directory, and a directory that was missed at its place and not found elsewhere yet.
    pub(crate) parent: Option<Slot>,
    pub(crate) name: Name,
    pub(crate) group: Group,
    /// The tree's directories that it shows; none for one that is not in the tree (yet).
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) watched: bool,
}

/// All of them.
pub(crate) struct Directories {
    slots: HashMap<Slot, Directory>,
    children: HashMap<Slot, BTreeSet<(Name, Slot)>>,
    by_node: HashMap<NodeId, Slot>,
    /// In which directory a leaf's node has a record.
    leaves: HashMap<NodeId, Slot>,
    /// In which directories things with this inode number have a record.
    inodes: HashMap<u64, Slot>,
    more_inodes: HashMap<u64, Vec<Slot>>,
    next: u32,
}

impl Directories {
    pub(crate) fn new(staging: Name) -> Self {
        let mut this = Self {
            slots: HashMap::new(),
            children: HashMap::new(),
            by_node: HashMap::new(),
            leaves: HashMap::new(),
            inodes: HashMap::new(),
            more_inodes: HashMap::new(),
            next: 0,
        };
        let root = this.add(None, staging.clone(), ROOT_GROUP, vec![NodeId::ROOT]);
        let stage = this.add(None, staging, STAGING_GROUP, Vec::new());
        debug_assert_eq!((root, stage), (ROOT, STAGING));
        this
    }

    pub(crate) fn add(
        &mut self,
        parent: Option<Slot>,
        name: Name,
        group: Group,
        nodes: Vec<NodeId>,
    ) -> Slot {
        let slot = Slot(self.next);
        self.next += 1;
        for node in &nodes {
            self.by_node.insert(*node, slot);
        }
        if let Some(parent) = parent {
            debug_assert!(
                self.child(parent, &name).is_none(),
                "one directory under one name"
            );
            self.children
                .entry(parent)
                .or_default()
                .insert((name.clone(), slot));
        }
        self.slots.insert(
            slot,
            Directory {
                parent,
                name,
                group,
                nodes,
                watched: false,
            },
        );
        slot
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Directory> {
        self.slots.get(&slot)
    }

    /// Every directory but the staging directory.
    pub(crate) fn all(&self) -> impl Iterator<Item = Slot> {
        self.slots.keys().copied().filter(|slot| *slot != STAGING)
    }

    pub(crate) fn set_watched(&mut self, slot: Slot, watched: bool) {
        if let Some(directory) = self.slots.get_mut(&slot) {
            directory.watched = watched;
        }
    }

    pub(crate) fn child(&self, slot: Slot, name: &Name) -> Option<Slot> {
        let children = self.children.get(&slot)?;
        let from = (name.clone(), Slot(0));
        children
            .range(from..)
            .next()
            .filter(|(found, _)| found == name)
            .map(|(_, slot)| *slot)
    }

    pub(crate) fn of_node(&self, node: NodeId) -> Option<Slot> {
        self.by_node.get(&node).copied()
    }

    pub(crate) fn set_nodes(&mut self, slot: Slot, nodes: Vec<NodeId>) {
        if let Some(directory) = self.slots.get_mut(&slot) {
            for node in std::mem::replace(&mut directory.nodes, nodes.clone()) {
                if self.by_node.get(&node) == Some(&slot) {
                    self.by_node.remove(&node);
                }
            }
            for node in nodes {
                self.by_node.insert(node, slot);
            }
        }
    }

    /// Puts a directory elsewhere; `None`: nowhere for now.
    pub(crate) fn relocate(&mut self, slot: Slot, parent: Option<Slot>, name: Name) {
        if let Some(directory) = self.slots.get_mut(&slot) {
            let old = (std::mem::replace(&mut directory.name, name.clone()), slot);
            if let Some(old_parent) = std::mem::replace(&mut directory.parent, parent)
                && let Some(children) = self.children.get_mut(&old_parent)
            {
                children.remove(&old);
            }
            if let Some(parent) = parent {
                debug_assert!(
                    self.child(parent, &name).is_none(),
                    "one directory under one name"
                );
                self.children
                    .entry(parent)
                    .or_default()
                    .insert((name, slot));
            }
        }
    }

    /// Forgets a directory (not what was inside).
    pub(crate) fn remove(&mut self, slot: Slot) {
        if let Some(name) = self.get(slot).map(|directory| directory.name.clone()) {
            self.relocate(slot, None, name);
            self.set_nodes(slot, Vec::new());
            self.slots.remove(&slot);
            self.children.remove(&slot);
        }
    }

    /// The names from the root; `None` when the directory is gone or nowhere.
    pub(crate) fn path(&self, slot: Slot) -> Option<Vec<Name>> {
        let mut names = Vec::new();
        let mut at = slot;
        while at != ROOT {
            let directory = self.get(at)?;
            names.push(directory.name.clone());
            if at == STAGING {
                break;
            }
            at = directory.parent?;
            if names.len() > 100_000 {
                return None;
            }
        }
        names.reverse();
        Some(names)
    }

    /// Whether `slot` is `ancestor` or inside it.
    pub(crate) fn is_inside(&self, slot: Slot, ancestor: Slot) -> bool {
        let mut at = Some(slot);
        while let Some(here) = at {
            if here == ancestor {
                return true;
            }
            at = self.get(here).and_then(|directory| directory.parent);
        }
        false
    }

    /// The directory and all inside, each before what is in it.
    pub(crate) fn subtree(&self, slot: Slot) -> Vec<Slot> {
        let mut found = vec![slot];
        let mut next = 0;
        while let Some(at) = found.get(next).copied() {
            found.extend(
                self.children
                    .get(&at)
                    .into_iter()
                    .flatten()
                    .map(|(_, child)| *child),
            );
            next += 1;
        }
        found
    }

    /// Notes a record that is now in a directory.
    pub(crate) fn note(&mut self, slot: Slot, record: &Record) {
        let inode = record.fingerprint.identity.inode;
        match self.inodes.get(&inode) {
            Some(known) if *known != slot => {
                let more = self.more_inodes.entry(inode).or_default();
                if !more.contains(&slot) {
                    more.push(slot);
                }
            }
            Some(_) => {}
            None => {
                self.inodes.insert(inode, slot);
            }
        }
        if record.group().is_none() {
            for node in record.nodes() {
                self.leaves.insert(node, slot);
            }
        }
    }

    /// Forgets a record of a directory. Other records there with the same inode may be missed afterwards: then a rename is
    /// seen as a new file, which costs a read and nothing else.
    pub(crate) fn forget(&mut self, slot: Slot, record: &Record) {
        let inode = record.fingerprint.identity.inode;
        if self.inodes.get(&inode) == Some(&slot) {
            self.inodes.remove(&inode);
            if let Some(next) = self.more_inodes.get_mut(&inode).and_then(Vec::pop) {
                self.inodes.insert(inode, next);
            }
        } else if let Some(more) = self.more_inodes.get_mut(&inode) {
            more.retain(|other| *other != slot);
        }
        if self.more_inodes.get(&inode).is_some_and(Vec::is_empty) {
            self.more_inodes.remove(&inode);
        }
        if record.group().is_none() {
            for node in record.nodes() {
                if self.leaves.get(&node) == Some(&slot) {
                    self.leaves.remove(&node);
                }
            }
        }
    }

    /// The directories in which something of this inode number is recorded.
    pub(crate) fn with_inode(&self, identity: &Identity) -> Vec<Slot> {
        let more = self.more_inodes.get(&identity.inode).into_iter().flatten();
        self.inodes
            .get(&identity.inode)
            .into_iter()
            .chain(more)
            .copied()
            .collect()
    }

    /// The directory that holds a leaf's record.
    pub(crate) fn of_leaf(&self, node: NodeId) -> Option<Slot> {
        self.leaves.get(&node).copied()
    }
}
