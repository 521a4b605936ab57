//! The operations that make a change to what a view shows, so that views need not know the merge rules.
//!
//! Every function returns the operations of one commit; none reads or writes the tree. Entries must come from the tree that the
//! commit's parents make.

use std::collections::BTreeMap;

use crate::{
    id::{NodeId, NodeKind, OpId},
    name::Name,
    operation::{Metadata, MetadataChange, Operation, Value},
};

use super::entry::Entry;

/// Makes `node`, a fresh one of the value's kind, in `parent` (the node of a directory's entry, or the root).
///
/// ```
/// # use ouisync_model::{id::{NodeId, NodeKind}, name::Name, operation::Value, tree::edit};
/// let node = NodeId::new(NodeKind::Directory, [7; 16]); // 16 random bytes
/// let name = Name::new("pictures").expect("a valid name");
/// let operations = edit::create(NodeId::ROOT, name, node, Value::Directory, None);
/// assert_eq!(operations.len(), 2);
/// ```
pub fn create(
    parent: NodeId,
    name: Name,
    node: NodeId,
    value: Value,
    metadata: Option<Metadata>,
) -> Vec<Operation> {
    let mut operations = Vec::with_capacity(3);
    operations.push(Operation::Place { node, parent, name });
    operations.extend(metadata.map(|metadata| describe(node, metadata.into())));
    operations.push(Operation::Write {
        node,
        value,
        replaces: Vec::new(),
    });
    operations
}

/// Gives a file or symbolic link a new value. Other values of the same node stay; united twins become one.
pub fn write(entry: &Entry, value: Value) -> Vec<Operation> {
    settle(entry.node, value, [entry])
}

/// Gives the entry new metadata: only what differs from what it shows is set, so that other parts may change elsewhere.
pub fn set_metadata(entry: &Entry, metadata: Metadata) -> Vec<Operation> {
    let change = MetadataChange::between(&entry.metadata, &metadata);
    let nodes = change
        .into_iter()
        .flat_map(|change| entry.nodes().map(move |node| describe(node, change)));
    nodes.collect()
}

const fn describe(node: NodeId, change: MetadataChange) -> Operation {
    Operation::SetMetadata { node, change }
}

/// Takes what the entry shows away: of a register with several values only this one. A directory stays visible while something
/// is inside; see [`View::delete_tree`](super::view::View::delete_tree).
pub fn delete(entry: &Entry) -> Vec<Operation> {
    entry.register_ops.iter().filter_map(deletion).collect()
}

/// Puts the entry into `parent` under `name`. What the entry stands for moves with all its values if it holds its raw name; of
/// a node with several values, one under a derived name becomes a leaf of its own, made from the random bytes `fresh`.
///
/// The caller has made sure that `parent` is not inside the entry; such a move has no effect.
pub fn relocate(entry: &Entry, parent: NodeId, name: &Name, fresh: [u8; 16]) -> Vec<Operation> {
    let mut operations = Vec::new();
    let mut placed = false;
    for part in &entry.register_ops {
        if entry.conflict && part.shared {
            operations.extend(deletion(part));
        } else {
            placed = true;
            operations.push(Operation::Place {
                node: part.node,
                parent,
                name: name.clone(),
            });
        }
    }
    if !placed {
        let node = NodeId::new(NodeKind::Leaf, fresh);
        let value = entry.value.clone();
        operations.extend(create(
            parent,
            name.clone(),
            node,
            value,
            Some(entry.metadata),
        ));
    }
    operations
}

/// Settles a conflict: `kept` gets `value` (its own, or one merged from all) and `rejected` go. Unlike deleting the others, this
/// keeps what each chose when two devices choose differently at the same time.
pub fn resolve(kept: &Entry, value: Value, rejected: &[Entry]) -> Vec<Operation> {
    settle(kept.node, value, std::iter::once(kept).chain(rejected))
}

fn settle<'a>(
    node: NodeId,
    value: Value,
    entries: impl IntoIterator<Item = &'a Entry>,
) -> Vec<Operation> {
    let mut replaced: BTreeMap<NodeId, Vec<OpId>> = BTreeMap::new();
    for part in entries.into_iter().flat_map(|entry| &entry.register_ops) {
        replaced
            .entry(part.node)
            .or_default()
            .extend(part.replaces());
    }
    let written = with_distinct(replaced.remove(&node).unwrap_or_default());
    let mut operations = vec![Operation::Write {
        node,
        value,
        replaces: written,
    }];
    operations.extend(
        replaced
            .into_iter()
            .map(|(node, replaces)| Operation::Write {
                node,
                value: Value::Deleted,
                replaces: with_distinct(replaces),
            }),
    );
    operations
}

fn with_distinct(mut ops: Vec<OpId>) -> Vec<OpId> {
    ops.sort_unstable();
    ops.dedup();
    ops
}

fn deletion(part: &super::entry::RegisterOps) -> Option<Operation> {
    if part.shown.is_empty() {
        return None;
    }
    Some(Operation::Write {
        node: part.node,
        value: Value::Deleted,
        replaces: with_distinct(part.replaces()),
    })
}
