//! What the nodes of one name in one directory show: which of them unite, and which keeps the name.

use std::collections::{BTreeMap, HashMap};

use crate::{
    id::{ChunkId, NodeId, NodeKind, OpId, Stamp, Timestamp},
    name::Name,
    operation::{ChunkRef, FileContent, FileData, Value},
};

use super::{
    entry::{Entry, RegisterOps},
    state::{ContentValue, MetadataState, NodeState},
};

/// Two values show the same if their keys are equal.
#[derive(PartialEq, Eq, Hash)]
enum ContentKey<'a> {
    Directory,
    Empty,
    Bytes(u64, Vec<ChunkId>),
    Indirect(u64, &'a [ChunkRef]),
    Symlink(&'a [u8]),
}

impl<'a> ContentKey<'a> {
    /// `None` for a value that is not shown.
    fn of(value: &'a Value) -> Option<Self> {
        Some(match value {
            Value::Deleted => return None,
            Value::Directory => Self::Directory,
            Value::Symlink(target) => Self::Symlink(target),
            Value::File(FileContent { size: 0, .. }) => Self::Empty,
            Value::File(FileContent { size, data, .. }) => match data {
                FileData::Inline(chunk, _) => Self::Bytes(*size, vec![*chunk]),
                FileData::Chunks(chunks) => {
                    Self::Bytes(*size, chunks.iter().map(|chunk| chunk.chunk).collect())
                }
                FileData::Indirect(chunks) => Self::Indirect(*size, chunks),
            },
        })
    }
}

impl Value {
    /// Whether the two are shown as one: the same bytes, or the same link. What is deleted is never shown.
    pub fn shows_as(&self, other: &Self) -> bool {
        ContentKey::of(self).is_some_and(|key| Some(key) == ContentKey::of(other))
    }
}

/// The entries that existing `nodes` of one name make, each still under `raw_name`: the first keeps it, the others are marked as
/// conflicts, the greatest stamp first.
pub(super) fn entries(raw_name: &Name, nodes: &BTreeMap<NodeId, NodeState>) -> Vec<Entry> {
    let mut entries = Vec::new();
    let directories: Vec<_> = nodes
        .iter()
        .filter(|(node, _)| node.kind() == NodeKind::Directory)
        .collect();
    if !directories.is_empty() {
        entries.push(entry(raw_name, &directories, |value| *value == Value::Directory).1);
    }
    let leaves: Vec<_> = nodes
        .iter()
        .filter(|(node, _)| node.kind() == NodeKind::Leaf)
        .collect();
    let mut shown: Vec<(Stamp, Entry)> = match leaves.as_slice() {
        [] => Vec::new(),
        // By far the most frequent, and needs no keys.
        [leaf] if leaf.1.live_values == 1 => {
            vec![entry(raw_name, &[*leaf], |value| *value != Value::Deleted)]
        }
        leaves => by_content(raw_name, leaves),
    };
    shown.sort_unstable_by_key(|(stamp, _)| std::cmp::Reverse(*stamp));
    entries.extend(shown.into_iter().map(|(_, entry)| entry));
    let contested = entries.len() > 1;
    for (index, entry) in entries.iter_mut().enumerate() {
        entry.conflict = index > 0;
        entry.contested = contested;
    }
    entries
}

fn by_content(raw_name: &Name, leaves: &[(&NodeId, &NodeState)]) -> Vec<(Stamp, Entry)> {
    let mut classes: HashMap<ContentKey<'_>, BTreeMap<NodeId, &NodeState>> = HashMap::new();
    for (node, state) in leaves {
        for key in state
            .content
            .values()
            .filter_map(|content| ContentKey::of(&content.value))
        {
            classes.entry(key).or_default().insert(**node, state);
        }
    }
    let entries = classes.into_iter().map(|(key, nodes)| {
        let nodes: Vec<_> = nodes.iter().map(|(node, state)| (node, *state)).collect();
        entry(raw_name, &nodes, |value| {
            ContentKey::of(value).as_ref() == Some(&key)
        })
    });
    entries.collect()
}

/// The entry for the values of `nodes`, ascending, that `shows` picks, and the greatest stamp among these. Without any such value
/// (a directory that exists only for what is inside) that stamp is the least.
fn entry(
    raw_name: &Name,
    nodes: &[(&NodeId, &NodeState)],
    shows: impl Fn(&Value) -> bool,
) -> (Stamp, Entry) {
    let mut newest: Option<&ContentValue> = None;
    let mut metadata = MetadataState::default();
    let mut register_ops = Vec::with_capacity(nodes.len());
    for (node, state) in nodes {
        let mut part = RegisterOps {
            node: **node,
            shown: Vec::new(),
            deleted: Vec::new(),
            shared: false,
        };
        for (op, content) in &state.content {
            if content.value == Value::Deleted {
                part.deleted.push(*op);
            } else if shows(&content.value) {
                part.shown.push(*op);
                if newest.is_none_or(|newest| newest.stamp < content.stamp) {
                    newest = Some(content);
                }
            } else {
                part.shared = true;
            }
        }
        register_ops.push(part);
        metadata = metadata.later(state.metadata);
    }
    let stamp = newest.map_or_else(least_stamp, |newest| newest.stamp);
    let mut nodes = register_ops.iter().map(|part| part.node);
    let entry = Entry {
        name: raw_name.clone(),
        raw_name: raw_name.clone(),
        node: nodes.next().unwrap_or(NodeId::ROOT),
        aliases: nodes.collect(),
        op: newest.map(|newest| newest.stamp.op),
        value: newest.map_or(Value::Directory, |newest| newest.value.clone()),
        metadata: metadata.shown(),
        author: newest.map(|newest| newest.author),
        time: newest.map_or_else(Timestamp::default, |newest| newest.time),
        conflict: false,
        contested: false,
        register_ops,
    };
    (stamp, entry)
}

fn least_stamp() -> Stamp {
    let commit = crate::id::CommitId::from_bytes([0; 32]);
    Stamp {
        lamport: crate::id::Lamport(0),
        op: OpId { commit, index: 0 },
    }
}
