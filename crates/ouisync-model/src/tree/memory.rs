//! The tree's storage in memory: for tests, and for trees that are rebuilt at will.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    convert::Infallible,
    ops::Bound,
};

use crate::{
    id::{CommitId, NodeId, OpId, Stamp},
    name::Name,
};

use super::{
    history::{HistoryReader, HistoryStore, NodeChange},
    state::{DirectoryPlacement, NodeState},
    store::{TreeReader, TreeStore},
};

/// [`TreeStore`] over maps. Two of them are equal when the trees are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryTree {
    nodes: HashMap<NodeId, NodeState>,
    links: BTreeMap<NodeId, BTreeMap<Name, BTreeSet<NodeId>>>,
    placements: BTreeMap<Stamp, DirectoryPlacement>,
    applied: HashSet<CommitId>,
    replaced_early: BTreeSet<(CommitId, u32, NodeId)>,
    changes: BTreeMap<(NodeId, CommitId), NodeChange>,
    former: BTreeMap<NodeId, BTreeSet<(Name, NodeId)>>,
}

impl MemoryTree {
    /// Nothing but the top directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of nodes that any operation has touched.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Every node's state, in no order.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeState)> {
        self.nodes.iter().map(|(node, state)| (*node, state))
    }

    /// Number of values known to be replaced that have not arrived.
    pub fn replaced_early_count(&self) -> usize {
        self.replaced_early.len()
    }
}

impl TreeReader for MemoryTree {
    type Error = Infallible;

    fn node(&self, node: NodeId) -> Result<Option<NodeState>, Infallible> {
        Ok(self.nodes.get(&node).cloned())
    }

    fn children(&self, parent: NodeId) -> Result<Vec<(Name, NodeId)>, Infallible> {
        let links = self.links.get(&parent).into_iter().flatten();
        Ok(links
            .flat_map(|(name, nodes)| nodes.iter().map(|node| (name.clone(), *node)))
            .collect())
    }

    fn children_named(&self, parent: NodeId, name: &Name) -> Result<Vec<NodeId>, Infallible> {
        let nodes = self.links.get(&parent).and_then(|names| names.get(name));
        Ok(nodes.into_iter().flatten().copied().collect())
    }
}

impl TreeStore for MemoryTree {
    fn is_applied(&self, commit: &CommitId) -> Result<bool, Infallible> {
        Ok(self.applied.contains(commit))
    }

    fn mark_applied(&mut self, commit: &CommitId) -> Result<(), Infallible> {
        self.applied.insert(*commit);
        Ok(())
    }

    fn put_node(&mut self, node: NodeId, state: &NodeState) -> Result<(), Infallible> {
        if *state == NodeState::default() {
            self.nodes.remove(&node);
        } else {
            self.nodes.insert(node, state.clone());
        }
        Ok(())
    }

    fn link(&mut self, parent: NodeId, name: &Name, child: NodeId) -> Result<(), Infallible> {
        self.links
            .entry(parent)
            .or_default()
            .entry(name.clone())
            .or_default()
            .insert(child);
        Ok(())
    }

    fn unlink(&mut self, parent: NodeId, name: &Name, child: NodeId) -> Result<(), Infallible> {
        if let Some(names) = self.links.get_mut(&parent) {
            if let Some(nodes) = names.get_mut(name) {
                nodes.remove(&child);
                if nodes.is_empty() {
                    names.remove(name);
                }
            }
            if names.is_empty() {
                self.links.remove(&parent);
            }
        }
        Ok(())
    }

    fn placements_after(
        &self,
        after: Stamp,
    ) -> Result<Vec<(Stamp, DirectoryPlacement)>, Infallible> {
        let newer = self
            .placements
            .range((Bound::Excluded(after), Bound::Unbounded));
        Ok(newer
            .rev()
            .map(|(stamp, placement)| (*stamp, placement.clone()))
            .collect())
    }

    fn put_placement(
        &mut self,
        stamp: Stamp,
        placement: &DirectoryPlacement,
    ) -> Result<(), Infallible> {
        self.placements.insert(stamp, placement.clone());
        Ok(())
    }

    fn put_replaced_early(&mut self, op: OpId, node: NodeId) -> Result<(), Infallible> {
        self.replaced_early.insert((op.commit, op.index, node));
        Ok(())
    }

    fn take_replaced_early(&mut self, commit: &CommitId) -> Result<Vec<(u32, NodeId)>, Infallible> {
        let first = (*commit, 0, NodeId::from_bytes([0; 16]));
        let last = (*commit, u32::MAX, NodeId::from_bytes([0xff; 16]));
        let taken: Vec<_> = self.replaced_early.range(first..=last).copied().collect();
        for record in &taken {
            self.replaced_early.remove(record);
        }
        Ok(taken
            .into_iter()
            .map(|(_, index, node)| (index, node))
            .collect())
    }
}

impl HistoryReader for MemoryTree {
    fn changes(&self, node: NodeId) -> Result<Vec<NodeChange>, Infallible> {
        let (first, last) = ([0; 32], [0xff; 32]);
        let range = (node, CommitId::from_bytes(first))..=(node, CommitId::from_bytes(last));
        Ok(self.changes.range(range).map(|(_, c)| c.clone()).collect())
    }

    fn former_children(&self, parent: NodeId) -> Result<Vec<(Name, NodeId)>, Infallible> {
        let former = self.former.get(&parent).into_iter().flatten();
        Ok(former.cloned().collect())
    }

    fn former_children_named(
        &self,
        parent: NodeId,
        name: &Name,
    ) -> Result<Vec<NodeId>, Infallible> {
        let former = self.former.get(&parent).into_iter().flatten();
        let named = former.filter(|(known, _)| known == name);
        Ok(named.map(|(_, node)| *node).collect())
    }

    fn placements(&self) -> Result<Vec<(Stamp, DirectoryPlacement)>, Infallible> {
        let all = self.placements.iter();
        Ok(all
            .map(|(stamp, record)| (*stamp, record.clone()))
            .collect())
    }
}

impl HistoryStore for MemoryTree {
    fn put_change(&mut self, node: NodeId, change: &NodeChange) -> Result<(), Infallible> {
        self.changes.insert((node, change.commit), change.clone());
        Ok(())
    }

    fn put_former(&mut self, parent: NodeId, name: &Name, child: NodeId) -> Result<(), Infallible> {
        self.former
            .entry(parent)
            .or_default()
            .insert((name.clone(), child));
        Ok(())
    }
}
