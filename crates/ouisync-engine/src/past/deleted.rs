//! What is deleted and could be brought back.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ouisync_model::{
    id::{MemberId, NodeId, NodeKind, Timestamp},
    name::Name,
    operation::Value,
    tree::{
        history::Change,
        state::{ContentValue, NodeState},
        store::TreeReader,
        view::View,
    },
};

use super::{Past, events::show};
use crate::{
    error::EngineError,
    history::{DeletedEntry, FolderPath, short},
};

/// Deletions of one author that are so far apart at most, in seconds, are one.
const TOGETHER: i64 = 60;

/// A deletion.
#[derive(Clone, Copy)]
struct Deletion {
    author: MemberId,
    time: Timestamp,
    moment: Timestamp,
}

/// A deleted node at its last place.
struct Gone {
    node: NodeId,
    deletion: Deletion,
    last: Option<ContentValue>,
}

impl Past {
    /// What was last below `directory` and isn't there any more, by path; of a deleted directory all that is in it as well.
    pub(crate) fn deleted(&self, directory: &[Name]) -> Result<Vec<DeletedEntry>, EngineError> {
        let gone = self.gone(directory)?;
        let mut entries: BTreeMap<FolderPath, DeletedEntry> = BTreeMap::new();
        for (path, gone) in &gone {
            let is_directory = gone.node.kind() == NodeKind::Directory;
            // Of a file that was deleted before the history held here nothing is known but that.
            let mut bytes = is_directory.then_some(0);
            let (mut here, mut version) = (is_directory, None);
            if let Some(last) = &gone.last {
                (bytes, here) = (Some(0), true);
                version = Some(short(&last.stamp.op.commit));
                if let Value::File(content) = &last.value {
                    bytes = Some(content.size);
                    here = self.readable.packs_of(content)?.is_readable();
                }
            }
            let entry = DeletedEntry {
                path: path.clone(),
                is_directory,
                time: gone.deletion.time,
                last: before(gone.deletion.moment),
                author: gone.deletion.author,
                files: u64::from(!is_directory),
                bytes,
                version: version.filter(|_| !is_directory),
                here,
            };
            entries.insert(path.clone(), entry);
        }
        // What went with a directory counts as part of it.
        let paths: Vec<FolderPath> = entries.keys().cloned().collect();
        for path in paths {
            let Some(entry) = entries.get(&path).cloned() else {
                continue;
            };
            for length in 1..path.len() {
                let Some(above) = entries.get_mut(&path[..length]) else {
                    continue;
                };
                if !entry.is_directory {
                    above.files += 1;
                    let both = above.bytes.zip(entry.bytes);
                    above.bytes = both.map(|(above, more)| above.saturating_add(more));
                    above.here &= entry.here;
                }
                let apart = above.last.seconds.saturating_sub(entry.last.seconds);
                if entry.author == above.author && (0..=TOGETHER).contains(&apart) {
                    above.last = above.last.min(entry.last);
                }
            }
        }
        Ok(entries.into_values().collect())
    }

    /// The last state of what was at `path`, which is deleted: a file's last content, or the moment before a directory went.
    pub(crate) fn last_of_deleted(&self, path: &[Name]) -> Result<DeletedEntry, EngineError> {
        let above = path.split_last().map_or(path, |(_, above)| above);
        let mut deleted = self.deleted(above)?;
        deleted.retain(|entry| entry.path == path);
        deleted
            .pop()
            .ok_or_else(|| EngineError::UnknownPath(show(path)))
    }

    fn gone(&self, directory: &[Name]) -> Result<BTreeMap<FolderPath, Gone>, EngineError> {
        let label = |member: &MemberId| self.readable.label(member);
        let view = View::new(&self.index, &label);
        let mut found: BTreeMap<FolderPath, Gone> = BTreeMap::new();
        // Directories of one path are one, so they are walked together.
        let mut starts: BTreeSet<NodeId> = [NodeId::ROOT].into();
        for name in directory {
            let mut below = BTreeSet::new();
            for start in starts {
                let nodes = self.index.children_named(start, name)?;
                below.extend(
                    nodes
                        .into_iter()
                        .filter(|node| node.kind() == NodeKind::Directory),
                );
            }
            starts = below;
        }
        let mut open: Vec<(FolderPath, NodeId)> = starts
            .into_iter()
            .map(|start| (directory.to_vec(), start))
            .collect();
        let mut seen = HashSet::new();
        while let Some((at, node)) = open.pop() {
            if !seen.insert(node) {
                continue;
            }
            for (name, child) in self.index.children(node)? {
                let mut path = at.clone();
                path.push(name);
                let Some(state) = self.index.node(child)? else {
                    continue;
                };
                if child.kind() == NodeKind::Directory {
                    open.push((path.clone(), child));
                }
                if state.exists() || view.lookup(&path)?.is_some() {
                    continue;
                }
                let Some(deletion) = self.deletion(&state) else {
                    continue;
                };
                let later = found
                    .get(&path)
                    .is_none_or(|known| known.deletion.moment < deletion.moment);
                if later {
                    let last = self.last_value(child)?;
                    let gone = Gone {
                        node: child,
                        deletion,
                        last,
                    };
                    found.insert(path, gone);
                }
            }
        }
        Ok(found)
    }

    /// The last deletion in the register.
    fn deletion(&self, state: &NodeState) -> Option<Deletion> {
        let markers = state.content.values();
        let last = markers.max_by_key(|content| content.stamp)?;
        Some(Deletion {
            author: last.author,
            time: last.time,
            moment: self.timeline.moment(&last.stamp.op.commit),
        })
    }

    /// The last value that was written to a node, save deletions.
    fn last_value(&self, node: NodeId) -> Result<Option<ContentValue>, EngineError> {
        let mut values: Vec<ContentValue> = Vec::new();
        for change in self.changes_of(node)? {
            let covered = change.before.iter();
            values.extend(covered.flat_map(|state| state.content.values().cloned()));
            for (index, part) in &change.changes {
                if let Change::Write { value, .. } = part {
                    values.push(ContentValue {
                        stamp: change.stamp(*index),
                        author: change.author,
                        time: change.time,
                        value: value.clone(),
                    });
                }
            }
        }
        values.retain(|content| content.value != Value::Deleted);
        Ok(values.into_iter().max_by_key(|content| content.stamp))
    }
}

/// The moment just before.
fn before(moment: Timestamp) -> Timestamp {
    match moment.nanoseconds.checked_sub(1) {
        Some(nanoseconds) => Timestamp {
            nanoseconds,
            ..moment
        },
        None => Timestamp {
            seconds: moment.seconds.saturating_sub(1),
            nanoseconds: 999_999_999,
        },
    }
}
