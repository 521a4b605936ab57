//! What happened: to a file, in a directory, in the folder.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ouisync_model::{
    id::{CommitId, NodeId, NodeKind, OpId, Stamp, Timestamp},
    name::Name,
    operation::{Metadata, Value},
    tree::{
        entry::Entry,
        history::{Change, ChangeCounts, HistoryReader, NodeChange},
        state::NodeState,
        store::TreeReader,
        view::View,
    },
};

use super::Past;
use crate::{
    error::EngineError,
    history::{Action, Events, FileVersion, FolderChange, History, HistoryQuery, short},
};

/// What is or was at a path.
#[derive(Default)]
struct Occupants {
    directories: BTreeSet<NodeId>,
    /// Leaves, with the directories of the path as their parents.
    leaves: BTreeSet<NodeId>,
    parents: BTreeSet<NodeId>,
}

impl Past {
    /// What happened.
    pub(crate) fn history(&self, query: &HistoryQuery) -> Result<History, EngineError> {
        let in_time = |moment: Timestamp| {
            query.since.is_none_or(|since| moment >= since)
                && query.until.is_none_or(|until| moment <= until)
        };
        let (events, more) = if query.path.is_empty() {
            let all = self.timeline.commits.values();
            let changes = all.map(|commit| (commit.time.commit, commit.counts));
            let (changes, more) = self.changes(changes, in_time, query.limit);
            (Events::Changes(changes), more)
        } else {
            let entry = self.entry(&query.path)?;
            let found = self.occupants(&query.path)?;
            let is_directory = entry.as_ref().is_some_and(Entry::is_directory)
                || (entry.is_none() && found.leaves.is_empty());
            if is_directory && !found.directories.is_empty() {
                let counts = self.counts_below(&found.directories)?;
                let (changes, more) = self.changes(counts.into_iter(), in_time, query.limit);
                (Events::Changes(changes), more)
            } else {
                let mut versions = self.versions(&query.path)?;
                versions.retain(|version| in_time(version.moment));
                let more = versions.len() > query.limit;
                versions.truncate(query.limit);
                (Events::Versions(versions), more)
            }
        };
        Ok(History {
            events,
            more,
            begins: self.timeline.begins(),
        })
    }

    fn changes(
        &self,
        counts: impl Iterator<Item = (CommitId, ChangeCounts)>,
        in_time: impl Fn(Timestamp) -> bool,
        limit: usize,
    ) -> (Vec<FolderChange>, bool) {
        let mut found: Vec<_> = counts
            .filter(|(commit, counts)| !counts.is_empty() && in_time(self.timeline.moment(commit)))
            .filter_map(|(commit, counts)| Some((self.timeline.commits.get(&commit)?, counts)))
            .map(|(commit, counts)| {
                let time = &commit.time;
                let change = FolderChange {
                    commit: time.commit,
                    time: time.time,
                    moment: self.timeline.moment(&time.commit),
                    author: time.author,
                    counts,
                };
                ((change.moment, time.lamport, time.commit), change)
            })
            .collect();
        found.sort_unstable_by_key(|(key, _)| std::cmp::Reverse(*key));
        let more = found.len() > limit;
        found.truncate(limit);
        (found.into_iter().map(|(_, change)| change).collect(), more)
    }

    /// What each commit did below directories, wherever in them.
    fn counts_below(
        &self,
        directories: &BTreeSet<NodeId>,
    ) -> Result<HashMap<CommitId, ChangeCounts>, EngineError> {
        let places = self.directories()?;
        let mut seen = directories.clone();
        let mut open: Vec<NodeId> = directories.iter().copied().collect();
        let mut nodes: BTreeSet<NodeId> = BTreeSet::new();
        while let Some(at) = open.pop() {
            nodes.insert(at);
            nodes.extend(self.leaves_in(at)?.into_iter().map(|(_, leaf)| leaf));
            for (_, below) in places.get(&at).into_iter().flatten() {
                if seen.insert(*below) {
                    open.push(*below);
                }
            }
        }
        let mut counts: HashMap<CommitId, ChangeCounts> = HashMap::new();
        for node in nodes {
            for change in self.changes_of(node)? {
                let of_commit = counts.entry(change.commit).or_default();
                of_commit.count(node.kind(), &change.changes);
            }
        }
        Ok(counts)
    }

    /// What was recorded of a node by commits that count, in causal order.
    pub(super) fn changes_of(&self, node: NodeId) -> Result<Vec<NodeChange>, EngineError> {
        let mut changes = self.index.changes(node)?;
        changes.retain(|change| self.timeline.commits.contains_key(&change.commit));
        changes.sort_unstable_by_key(|change| (change.lamport, change.commit));
        Ok(changes)
    }

    /// What the folder shows at a path now.
    pub(crate) fn entry(&self, path: &[Name]) -> Result<Option<Entry>, EngineError> {
        let label = |member: &_| self.readable.label(member);
        Ok(View::new(&self.index, &label).lookup(path)?)
    }

    /// The files that are at a path or were last there.
    pub(crate) fn files_at(&self, path: &[Name]) -> Result<BTreeSet<NodeId>, EngineError> {
        let found = self.occupants(path)?;
        let entry = self.entry(path)?;
        let shown = entry.iter().filter(|entry| !entry.is_directory());
        let mut files: BTreeSet<NodeId> = shown.flat_map(Entry::nodes).collect();
        for node in found.leaves {
            let placement = self.index.node(node)?.and_then(|state| state.placement);
            let is_there = placement.is_some_and(|placement| {
                Some(&placement.name) == path.last() && found.parents.contains(&placement.parent)
            });
            if is_there {
                files.insert(node);
            }
        }
        if files.is_empty() {
            return Err(EngineError::UnknownPath(show(path)));
        }
        Ok(files)
    }

    fn occupants(&self, path: &[Name]) -> Result<Occupants, EngineError> {
        let Some((last, above)) = path.split_last() else {
            return Ok(Occupants {
                directories: [NodeId::ROOT].into(),
                ..Occupants::default()
            });
        };
        let places = self.directories()?;
        let named = |parents: &BTreeSet<NodeId>, name: &Name| -> BTreeSet<NodeId> {
            let below = parents.iter().filter_map(|parent| places.get(parent));
            below
                .flatten()
                .filter(|(called, _)| called == name)
                .map(|(_, node)| *node)
                .collect()
        };
        let mut parents: BTreeSet<NodeId> = [NodeId::ROOT].into();
        for name in above {
            parents = named(&parents, name);
        }
        let mut leaves = BTreeSet::new();
        for parent in &parents {
            leaves.extend(self.index.children_named(*parent, last)?);
            leaves.extend(self.index.former_children_named(*parent, last)?);
        }
        leaves.retain(|node| node.kind() == NodeKind::Leaf);
        Ok(Occupants {
            directories: named(&parents, last),
            leaves,
            parents,
        })
    }

    /// All that happened to the file at a path, the newest first: all of what is or was last there, and of files that moved away
    /// what happened up to then.
    pub(crate) fn versions(&self, path: &[Name]) -> Result<Vec<FileVersion>, EngineError> {
        let mut found = self.occupants(path)?;
        let entry = self.entry(path)?;
        let shown = entry.iter().filter(|entry| !entry.is_directory());
        let shown: BTreeSet<NodeId> = shown.flat_map(Entry::nodes).collect();
        found.leaves.extend(&shown);
        let Some(last) = path.last() else {
            return Ok(Vec::new());
        };
        let mut versions = Vec::new();
        for node in &found.leaves {
            let changes = self.changes_of(*node)?;
            let stays = shown.contains(node)
                || self.index.node(*node)?.is_some_and(|state| {
                    state.placement.is_some_and(|placement| {
                        placement.name == *last && found.parents.contains(&placement.parent)
                    })
                });
            let until = if stays {
                None
            } else {
                left(&changes, &found.parents, last)
            };
            let of_node = self.versions_of(*node, changes)?;
            versions.extend(
                of_node
                    .into_iter()
                    .filter(|(stamp, _)| until.is_none_or(|until| *stamp <= until)),
            );
        }
        // What was there only before the history held here has no versions that could be told.
        let is_older = self.timeline.begins().is_some() && !found.leaves.is_empty();
        if versions.is_empty() && !is_older {
            return Err(EngineError::UnknownPath(show(path)));
        }
        versions.sort_by_key(|(stamp, version)| std::cmp::Reverse((version.moment, *stamp)));
        let mut versions: Vec<FileVersion> =
            versions.into_iter().map(|(_, version)| version).collect();
        name_versions(&mut versions);
        Ok(versions)
    }

    /// The history of one leaf, in causal order.
    fn versions_of(
        &self,
        node: NodeId,
        changes: Vec<NodeChange>,
    ) -> Result<Vec<(Stamp, FileVersion)>, EngineError> {
        let now = self.index.node(node)?.unwrap_or_default();
        let mut walk = Walk::new(now);
        let mut versions = Vec::with_capacity(changes.len());
        for change in changes {
            let step = walk.step(&change);
            let (Some((parent, name)), Some(op)) = (walk.place.clone(), step.op) else {
                continue;
            };
            let from = match step.from {
                Some((parent, name)) => Some(self.last_path(parent, &name)?),
                None => None,
            };
            let here = match &step.value {
                Some(Value::File(content)) => self.readable.packs_of(content)?.is_readable(),
                _ => true,
            };
            let stamp = change.stamp(op.index);
            let version = FileVersion {
                node,
                version: String::new(),
                op,
                time: change.time,
                moment: self.timeline.moment(&change.commit),
                author: change.author,
                action: step.action,
                path: self.last_path(parent, &name)?,
                from,
                value: step.value,
                metadata: walk.metadata,
                current: step.current,
                here,
            };
            versions.push((stamp, version));
        }
        Ok(versions)
    }
}

/// Follows the registers of one leaf through its changes.
struct Walk {
    now: NodeState,
    place: Option<(NodeId, Name)>,
    metadata: Metadata,
    values: BTreeMap<OpId, Value>,
    was_live: bool,
}

struct Step {
    action: Action,
    op: Option<OpId>,
    from: Option<(NodeId, Name)>,
    value: Option<Value>,
    current: bool,
}

impl Walk {
    fn new(now: NodeState) -> Self {
        Self {
            now,
            place: None,
            metadata: Metadata::default(),
            values: BTreeMap::new(),
            was_live: false,
        }
    }

    fn is_live(&self) -> bool {
        self.values.values().any(|value| *value != Value::Deleted)
    }

    fn step(&mut self, change: &NodeChange) -> Step {
        if let Some(before) = &change.before {
            let values = before.content.iter();
            self.values = values
                .map(|(op, content)| (*op, content.value.clone()))
                .collect();
            let placement = before.placement.as_ref();
            self.place = placement.map(|placement| (placement.parent, placement.name.clone()));
            self.metadata = before.metadata.shown();
            self.was_live |= self.is_live();
        }
        let (lived, place) = (self.is_live(), self.place.clone());
        let (mut written, mut op) = (None, None);
        for (index, part) in &change.changes {
            let here = change.stamp(*index).op;
            match part {
                Change::Place { parent, name } => {
                    self.place = Some((*parent, name.clone()));
                    op = op.or(Some(here));
                }
                Change::SetMetadata(change) => {
                    let Metadata {
                        executable,
                        modified,
                    } = self.metadata;
                    self.metadata = Metadata {
                        executable: change.executable.unwrap_or(executable),
                        modified: change.modified.unwrap_or(modified),
                    };
                    op = op.or(Some(here));
                }
                Change::Write { value, replaces } => {
                    self.values.retain(|known, _| !replaces.contains(known));
                    self.values.insert(here, value.clone());
                    written = Some((here, value.clone()));
                }
            }
        }
        let is_live = self.is_live();
        let moved = place.filter(|place| self.place.as_ref() != Some(place));
        let action = match &written {
            Some((_, Value::Deleted)) if is_live => Action::Settled,
            Some((_, Value::Deleted)) => Action::Deleted,
            Some(_) if lived => Action::Edited,
            Some(_) if self.was_live => Action::Restored,
            Some(_) => Action::Created,
            None if moved.is_some() => Action::Moved,
            None => Action::Described,
        };
        self.was_live |= is_live;
        let value = match &written {
            Some((_, Value::Deleted)) => None,
            Some((_, value)) => Some(value.clone()),
            None => {
                let live = self.values.values().rev();
                live.into_iter()
                    .find(|value| **value != Value::Deleted)
                    .cloned()
            }
        };
        let current = written.as_ref().is_some_and(|(op, value)| {
            *value != Value::Deleted && self.now.content.contains_key(op)
        });
        Step {
            action,
            op: written.map(|(op, _)| op).or(op),
            from: moved,
            value,
            current,
        }
    }
}

/// When a file last left a path.
fn left(changes: &[NodeChange], parents: &BTreeSet<NodeId>, name: &Name) -> Option<Stamp> {
    let places = changes.iter().flat_map(|change| {
        change
            .changes
            .iter()
            .filter_map(|(index, part)| match part {
                Change::Place { parent, name } => Some((change.stamp(*index), parent, name)),
                _ => None,
            })
    });
    let (mut inside, mut last) = (false, None);
    for (stamp, parent, called) in places {
        let now = called == name && parents.contains(parent);
        if inside && !now {
            last = Some(stamp);
        }
        inside = now;
    }
    last
}

/// Gives versions their names.
fn name_versions(versions: &mut [FileVersion]) {
    let mut seen: BTreeMap<CommitId, u32> = BTreeMap::new();
    for version in versions.iter() {
        *seen.entry(version.op.commit).or_default() += 1;
    }
    for version in versions {
        let commit = version.op.commit;
        version.version = short(&commit);
        if seen.get(&commit).is_some_and(|count| *count > 1) {
            version.version = format!("{}.{}", version.version, version.op.index);
        }
    }
}

/// A path for people.
pub(crate) fn show(path: &[Name]) -> String {
    let names: Vec<String> = path.iter().map(ToString::to_string).collect();
    names.join("/")
}

impl FileVersion {
    /// Whether `text` names this version.
    pub(crate) fn is_named(&self, text: &str) -> bool {
        let (digits, index) = match text.split_once('.') {
            Some((digits, index)) => (digits, Some(index)),
            None => (text, None),
        };
        digits.len() >= super::MIN_DIGITS
            && self.op.commit.to_string().starts_with(digits)
            && index.is_none_or(|index| index == self.op.index.to_string())
    }
}
