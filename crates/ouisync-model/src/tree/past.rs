//! The tree as any causally closed set of commits makes it, read from what was recorded; nothing is written.
//!
//! Works node by node as it is asked, so that looking at one path of a large folder costs little. What people saw then is a
//! [`View`](super::view::View) over it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
};

use crate::{
    id::{CommitId, NodeId, NodeKind, OpId},
    name::Name,
    operation::Value,
};

use super::{
    history::{Change, HistoryReader},
    state::{ContentValue, MetadataState, NodeState, Placement},
    store::TreeReader,
};

/// Nodes whose states are kept.
const KEPT: usize = 4096;

/// Which commits count.
pub struct Included<'a> {
    /// Whether a commit counts. With `era` it is only asked of commits that were applied in that era; everything that the
    /// checkpoint covers counts.
    pub counts: &'a dyn Fn(&CommitId) -> bool,
    /// `None` when every commit there ever was is recorded. Otherwise the era that the last start from a checkpoint began:
    /// what was recorded before it is passed over, since it has gaps.
    pub era: Option<u32>,
}

/// The tree at a moment.
pub struct PastTree<'a, H> {
    history: &'a H,
    included: Included<'a>,
    directories: HashMap<NodeId, Placement>,
    /// The directories placed in each directory.
    below: HashMap<NodeId, Vec<NodeId>>,
    nodes: RefCell<HashMap<NodeId, Option<NodeState>>>,
    /// Of directories without a value of their own: whether something inside exists.
    inside: RefCell<HashMap<NodeId, bool>>,
}

impl<'a, H: HistoryReader> PastTree<'a, H> {
    /// The tree that the included commits make. Reads the log of directory placements.
    pub fn new(history: &'a H, included: Included<'a>) -> Result<Self, H::Error> {
        let mut log = history.placements()?;
        log.sort_unstable_by_key(|(stamp, _)| *stamp);
        let mut directories: HashMap<NodeId, Placement> = HashMap::new();
        for (stamp, record) in log {
            if !(included.counts)(&stamp.op.commit) {
                continue;
            }
            let mut at = Some(record.parent);
            while let Some(above) = at
                && above != record.node
            {
                at = directories.get(&above).map(|placement| placement.parent);
            }
            if at.is_none() {
                directories.insert(
                    record.node,
                    Placement {
                        stamp,
                        parent: record.parent,
                        name: record.name,
                    },
                );
            }
        }
        let mut below: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
        for (node, placement) in &directories {
            below.entry(placement.parent).or_default().push(*node);
        }
        Ok(Self {
            history,
            included,
            directories,
            below,
            nodes: RefCell::default(),
            inside: RefCell::default(),
        })
    }

    /// The registers of a node, without knowing what is inside.
    fn registers(&self, node: NodeId) -> Result<Option<NodeState>, H::Error> {
        if let Some(known) = self.nodes.borrow().get(&node) {
            return Ok(known.clone());
        }
        let state = self.read(node)?;
        let mut nodes = self.nodes.borrow_mut();
        if nodes.len() >= KEPT {
            nodes.clear();
        }
        nodes.insert(node, state.clone());
        Ok(state)
    }

    fn read(&self, node: NodeId) -> Result<Option<NodeState>, H::Error> {
        let mut records = self.history.changes(node)?;
        let mut state = NodeState::default();
        if let Some(era) = self.included.era {
            records.retain(|record| record.era == era);
            // What no commit of this era touched is as the checkpoint had it.
            let covered = if records.is_empty() {
                self.history.node(node)?
            } else {
                records.iter_mut().find_map(|record| record.before.take())
            };
            state = covered.unwrap_or_default();
        }
        let mut replaced: BTreeSet<OpId> = BTreeSet::new();
        let mut written: BTreeMap<OpId, ContentValue> = std::mem::take(&mut state.content);
        for record in records {
            if !(self.included.counts)(&record.commit) {
                continue;
            }
            let (author, time, lamport, commit) =
                (record.author, record.time, record.lamport, record.commit);
            for (index, change) in record.changes {
                let stamp = crate::id::Stamp {
                    lamport,
                    op: OpId { commit, index },
                };
                match change {
                    Change::Place { parent, name } => {
                        let held = state.placement.as_ref();
                        if held.is_none_or(|held| held.stamp < stamp) {
                            state.placement = Some(Placement {
                                stamp,
                                parent,
                                name,
                            });
                        }
                    }
                    Change::Write { value, replaces } => {
                        replaced.extend(replaces);
                        let content = ContentValue {
                            stamp,
                            author,
                            time,
                            value,
                        };
                        written.insert(stamp.op, content);
                    }
                    Change::SetMetadata(change) => {
                        let set = MetadataState::set_by(stamp, &change);
                        state.metadata = state.metadata.later(set);
                    }
                }
            }
        }
        written.retain(|op, _| !replaced.contains(op));
        let live = |content: &&ContentValue| content.value != Value::Deleted;
        state.live_values = written.values().filter(live).count() as u64;
        state.content = written;
        if node.kind() == NodeKind::Directory {
            state.placement = self.directories.get(&node).cloned();
        }
        state.existing_children = 0;
        Ok((state != NodeState::default()).then_some(state))
    }

    /// The nodes that were placed in `parent`, whether they existed or not.
    fn placed_in(&self, parent: NodeId) -> Result<BTreeSet<(Name, NodeId)>, H::Error> {
        let now = self.history.children(parent)?;
        let former = self.history.former_children(parent)?;
        let mut placed = BTreeSet::new();
        for (name, node) in now.into_iter().chain(former) {
            if !placed.contains(&(name.clone(), node)) && self.is_leaf_at(node, parent, &name)? {
                placed.insert((name, node));
            }
        }
        placed.extend(self.directories_in(parent));
        Ok(placed)
    }

    fn directories_in(&self, parent: NodeId) -> impl Iterator<Item = (Name, NodeId)> {
        let nodes = self.below.get(&parent).into_iter().flatten();
        nodes.filter_map(|node| Some((self.directories.get(node)?.name.clone(), *node)))
    }

    fn is_leaf_at(&self, node: NodeId, parent: NodeId, name: &Name) -> Result<bool, H::Error> {
        if node.kind() == NodeKind::Directory {
            return Ok(false);
        }
        let placement = self.registers(node)?.and_then(|state| state.placement);
        Ok(
            placement
                .is_some_and(|placement| placement.parent == parent && placement.name == *name),
        )
    }

    /// Whether anything below the directory had a value. No recursion, so that depth overflows nothing.
    fn exists_inside(&self, directory: NodeId) -> Result<bool, H::Error> {
        if let Some(known) = self.inside.borrow().get(&directory) {
            return Ok(*known);
        }
        let mut open = vec![directory];
        let mut seen: HashSet<NodeId> = open.iter().copied().collect();
        while let Some(at) = open.pop() {
            for (_, child) in self.placed_in(at)? {
                let live = self
                    .registers(child)?
                    .is_some_and(|state| state.live_values > 0);
                if live {
                    self.inside.borrow_mut().insert(directory, true);
                    return Ok(true);
                }
                if child.kind() == NodeKind::Directory && seen.insert(child) {
                    open.push(child);
                }
            }
        }
        let mut inside = self.inside.borrow_mut();
        inside.extend(seen.into_iter().map(|empty| (empty, false)));
        Ok(false)
    }
}

impl<H: HistoryReader> TreeReader for PastTree<'_, H> {
    type Error = H::Error;

    fn node(&self, node: NodeId) -> Result<Option<NodeState>, H::Error> {
        let Some(mut state) = self.registers(node)? else {
            return Ok(None);
        };
        if node.kind() == NodeKind::Directory && state.live_values == 0 {
            state.existing_children = u64::from(self.exists_inside(node)?);
        }
        Ok(Some(state))
    }

    fn children(&self, parent: NodeId) -> Result<Vec<(Name, NodeId)>, H::Error> {
        Ok(self.placed_in(parent)?.into_iter().collect())
    }

    fn children_named(&self, parent: NodeId, name: &Name) -> Result<Vec<NodeId>, H::Error> {
        let now = self.history.children_named(parent, name)?;
        let former = self.history.former_children_named(parent, name)?;
        let candidates: BTreeSet<NodeId> = now.into_iter().chain(former).collect();
        let mut placed = Vec::new();
        for node in candidates {
            if self.is_leaf_at(node, parent, name)? {
                placed.push(node);
            }
        }
        let directories = self.directories_in(parent);
        placed.extend(directories.filter_map(|(called, node)| (called == *name).then_some(node)));
        Ok(placed)
    }
}
