//! Merging one commit into the registers, and finding out which listings that changed.
//!
//! Placements of directories are left to `directories`, since they must not make cycles.

use std::collections::{BTreeSet, HashMap, HashSet, hash_map};

use crate::{
    id::{CommitId, NodeId, NodeKind, OpId, Stamp},
    name::Name,
    operation::{Operation, Value},
};

use super::{
    Changes, CommitContext, ContentChange, Ignored, IgnoredReason, directories,
    registers::NodeRegisters,
    state::{ContentValue, MetadataState, NodeState, Placement},
    store::TreeStore,
    united::{United, existing_directories},
};

/// Merges `operations` into `store`.
pub(super) fn apply<S: TreeStore>(
    store: &mut S,
    context: &CommitContext,
    operations: &[Operation],
) -> Result<Changes, S::Error> {
    if store.is_applied(&context.commit)? {
        return Ok(Changes::default());
    }
    let mut replaced_early: HashMap<u32, Vec<NodeId>> = HashMap::new();
    for (index, node) in store.take_replaced_early(&context.commit)? {
        replaced_early.entry(index).or_default().push(node);
    }

    let mut working = Working::new(store, *context);
    let mut moves = Vec::new();
    for (index, operation) in (0..).zip(operations) {
        let stamp = context.stamp(index);
        if let Err(reason) = check(operation) {
            working.changes.ignored.push(Ignored {
                op: stamp.op,
                reason,
            });
            continue;
        }
        match operation {
            Operation::Place { node, parent, name } => {
                let placement = Placement {
                    stamp,
                    parent: *parent,
                    name: name.clone(),
                };
                match node.kind() {
                    NodeKind::Leaf => working.place_leaf(*node, placement)?,
                    NodeKind::Directory => moves.push((*node, placement)),
                }
            }
            Operation::Write {
                node,
                value,
                replaces,
            } => {
                let early = replaced_early
                    .get(&index)
                    .is_some_and(|nodes| nodes.contains(node));
                working.write(stamp, *node, (!early).then_some(value), replaces)?;
            }
            Operation::SetMetadata { node, change } => {
                working.set_metadata(*node, MetadataState::set_by(stamp, change))?;
            }
        }
    }
    directories::place(&mut working, moves)?;
    working.finish()
}

/// Whether an operation has any effect, on whatever tree.
pub(super) fn check(operation: &Operation) -> Result<(), IgnoredReason> {
    if operation.node() == NodeId::ROOT {
        return Err(IgnoredReason::Root);
    }
    match operation {
        Operation::Place { parent, .. } if parent.kind() == NodeKind::Leaf => {
            Err(IgnoredReason::ParentIsLeaf)
        }
        Operation::Write { node, value, .. } => match (node.kind(), value) {
            (_, Value::Deleted)
            | (NodeKind::Directory, Value::Directory)
            | (NodeKind::Leaf, Value::File(_) | Value::Symlink(_)) => Ok(()),
            _ => Err(IgnoredReason::WrongKind),
        },
        _ => Ok(()),
    }
}

/// A directory that came to, went from or changed its existence at a place.
type Appearance = (NodeId, Name, NodeId);

/// The states that a commit touches, read once and written once.
pub(super) struct Working<'a, S> {
    pub(super) store: &'a mut S,
    context: CommitContext,
    nodes: HashMap<NodeId, (NodeState, bool)>,
    applied: HashMap<CommitId, bool>,
    changes: Changes,
    appearances: HashSet<Appearance>,
}

impl<'a, S: TreeStore> Working<'a, S> {
    pub(super) fn new(store: &'a mut S, context: CommitContext) -> Self {
        Self {
            store,
            context,
            nodes: HashMap::new(),
            applied: HashMap::new(),
            changes: Changes::default(),
            appearances: HashSet::new(),
        }
    }

    fn slot(&mut self, node: NodeId) -> Result<&mut (NodeState, bool), S::Error> {
        Ok(match self.nodes.entry(node) {
            hash_map::Entry::Occupied(entry) => entry.into_mut(),
            hash_map::Entry::Vacant(entry) => {
                let state = self.store.node(node)?.unwrap_or_default();
                entry.insert((state, false))
            }
        })
    }

    pub(super) fn state(&mut self, node: NodeId) -> Result<&NodeState, S::Error> {
        Ok(&self.slot(node)?.0)
    }

    /// The state, to be written at the end.
    pub(super) fn state_mut(&mut self, node: NodeId) -> Result<&mut NodeState, S::Error> {
        let slot = self.slot(node)?;
        slot.1 = true;
        Ok(&mut slot.0)
    }

    fn is_applied(&mut self, commit: &CommitId) -> Result<bool, S::Error> {
        if let Some(applied) = self.applied.get(commit) {
            return Ok(*applied);
        }
        let applied = *commit == self.context.commit || self.store.is_applied(commit)?;
        self.applied.insert(*commit, applied);
        Ok(applied)
    }

    /// Takes `replaces` out of the register and puts `value` in, unless a commit that came before has replaced it already.
    fn write(
        &mut self,
        stamp: Stamp,
        node: NodeId,
        value: Option<&Value>,
        replaces: &[OpId],
    ) -> Result<(), S::Error> {
        let (author, time) = (self.context.author, self.context.time);
        let state = self.state_mut(node)?;
        let existed = state.exists();
        let mut dropped = Vec::new();
        let mut absent = Vec::new();
        for op in replaces {
            match state.remove_value(op) {
                Some(content) => dropped.push(ContentChange {
                    node,
                    op: *op,
                    value: content.value,
                }),
                None => absent.push(*op),
            }
        }
        if let Some(value) = value {
            state.insert_value(ContentValue {
                stamp,
                author,
                time,
                value: value.clone(),
            });
        }
        let exists = state.exists();
        let parent = state.placement.as_ref().map(|placement| placement.parent);

        self.changes.dropped.append(&mut dropped);
        if let Some(value) = value {
            self.changes.added.push(ContentChange {
                node,
                op: stamp.op,
                value: value.clone(),
            });
        }
        for op in absent {
            // What an applied commit wrote and is not in the register was replaced before, or never was.
            if !self.is_applied(&op.commit)? {
                self.store.put_replaced_early(op, node)?;
            }
        }
        if exists || existed {
            self.changes.directories.extend(parent);
        }
        if exists != existed {
            self.existence_changed(node, exists)?;
        }
        Ok(())
    }

    fn set_metadata(&mut self, node: NodeId, change: MetadataState) -> Result<(), S::Error> {
        let held = self.state(node)?.metadata;
        let metadata = held.later(change);
        if metadata == held {
            return Ok(());
        }
        let state = self.state_mut(node)?;
        state.metadata = metadata;
        if state.exists() {
            let parent = state.placement.as_ref().map(|placement| placement.parent);
            self.changes.directories.extend(parent);
        }
        Ok(())
    }

    fn place_leaf(&mut self, node: NodeId, placement: Placement) -> Result<(), S::Error> {
        let held = &self.state(node)?.placement;
        if held
            .as_ref()
            .is_some_and(|held| held.stamp > placement.stamp)
        {
            return Ok(());
        }
        self.detach(node)?;
        self.attach(node, placement)
    }

    /// Takes a node from its place.
    pub(super) fn detach(&mut self, node: NodeId) -> Result<(), S::Error> {
        let state = self.state(node)?;
        let exists = state.exists();
        if exists {
            self.existence_changed(node, false)?;
        }
        if let Some(placement) = self.state_mut(node)?.placement.take() {
            self.store.unlink(placement.parent, &placement.name, node)?;
        }
        Ok(())
    }

    /// Puts a detached node into its place.
    pub(super) fn attach(&mut self, node: NodeId, placement: Placement) -> Result<(), S::Error> {
        self.store.link(placement.parent, &placement.name, node)?;
        let state = self.state_mut(node)?;
        state.placement = Some(placement);
        if state.exists() {
            self.existence_changed(node, true)?;
        }
        Ok(())
    }

    /// Tells the directories above that `node` came to be or ceased to be where it is placed. Ends, because placements
    /// never make a cycle, not even between two steps of `directories::place`.
    fn existence_changed(&mut self, mut node: NodeId, exists: bool) -> Result<(), S::Error> {
        loop {
            let Some(Placement { parent, name, .. }) = &self.state(node)?.placement else {
                return Ok(());
            };
            let (parent, name) = (*parent, name.clone());
            self.changes.directories.insert(parent);
            if node.kind() == NodeKind::Directory {
                self.appearances.insert((parent, name, node));
            }
            let above = self.state_mut(parent)?;
            let existed = above.exists();
            if exists {
                above.existing_children += 1;
            } else {
                above.existing_children = above.existing_children.saturating_sub(1);
            }
            if above.exists() == existed {
                return Ok(());
            }
            node = parent;
        }
    }

    /// Fills the empty registers of a node; its placement in the tree is known already if it is a directory.
    pub(super) fn load(&mut self, registers: NodeRegisters) -> Result<(), S::Error> {
        let NodeRegisters {
            node,
            placement,
            metadata,
            content,
        } = registers;
        for value in &content {
            self.changes.added.push(ContentChange {
                node,
                op: value.stamp.op,
                value: value.value.clone(),
            });
        }
        let state = self.state_mut(node)?;
        let existed = state.exists();
        state.metadata = metadata;
        for value in content {
            state.insert_value(value);
        }
        let exists = state.exists();
        if exists != existed {
            self.existence_changed(node, exists)?;
        }
        match placement {
            Some(placement) => self.attach(node, placement),
            None => Ok(()),
        }
    }

    /// Ends what merges no commit.
    pub(super) fn write_nodes(self) -> Result<Changes, S::Error> {
        put_nodes(self.store, &self.nodes)?;
        Ok(self.changes)
    }

    fn finish(self) -> Result<Changes, S::Error> {
        let Self {
            store,
            context,
            nodes,
            mut changes,
            appearances,
            ..
        } = self;
        put_nodes(store, &nodes)?;
        store.mark_applied(&context.commit)?;

        let mut united = United::default();
        for (parent, name, node) in appearances {
            let Some(parents) = united.nodes(store, parent)? else {
                continue;
            };
            let mut peers = existing_directories(store, &parents, &name)?;
            peers.retain(|peer| *peer != node);
            if !peers.is_empty() {
                changes
                    .directories
                    .extend(peers.iter().copied().chain([node]));
                changes.subtrees.extend(peers.iter().copied().chain([node]));
            }
        }
        let mut shown = BTreeSet::new();
        for directory in &changes.directories {
            shown.extend(
                united
                    .nodes(store, *directory)?
                    .iter()
                    .flat_map(|nodes| nodes.iter()),
            );
        }
        changes.directories.append(&mut shown);
        Ok(changes)
    }
}

fn put_nodes<S: TreeStore>(
    store: &mut S,
    nodes: &HashMap<NodeId, (NodeState, bool)>,
) -> Result<(), S::Error> {
    for (node, (state, changed)) in nodes {
        if *changed {
            store.put_node(*node, state)?;
        }
    }
    Ok(())
}
