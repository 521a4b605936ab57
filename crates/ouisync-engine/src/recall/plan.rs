//! Restoring: the operations that bring past entries back into the folder, made and committed.
//!
//! A restore is an ordinary change. What it replaces or takes away is in history as after any other; what it writes refers to
//! the old chunks, whose packs it adds again.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use ouisync_model::{
    id::{ChunkId, MemberId, NodeId, PackId, Timestamp},
    name::Name,
    operation::{
        ChunkPlace, FileContent, FileData, Metadata, MetadataChange, Operation, PackSize,
        PackTable, Value,
    },
    tree::{edit, store::TreeReader, view::View},
};
use ouisync_store::{content::ChunkPlaces, index::IndexSnapshot};
use rand::{RngExt, rngs::StdRng};

use super::{
    Recall, RecallPhase, RecallProgress,
    source::{Item, Source},
};
use crate::{
    error::EngineError,
    history::{FolderPath, RestoreRequest, Restored},
    past::{Past, show},
    port::Port,
    status::Role,
};

/// For how long local changes may take to be recorded, or restored files to appear.
const SETTLE: Duration = Duration::from_secs(60);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(50);

impl Recall {
    /// Brings back what `request` says.
    pub(crate) fn restore(
        mut self,
        request: &RestoreRequest,
        progress: &mut dyn RecallProgress,
    ) -> Result<Restored, EngineError> {
        self.check_role()?;
        if !progress.tell(RecallPhase::Looking, 0, 0) {
            return Err(EngineError::Cancelled);
        }
        // What is on disk and not recorded would be in nobody's history.
        if !self.wait_for_view(progress)? {
            return Err(EngineError::TimedOut(
                SETTLE,
                "local changes are still being recorded; nothing was restored".to_owned(),
            ));
        }
        self.past = Past::new(self.readable().clone())?;
        let mut source = self.find_held(&request.path, &request.when, progress)?;
        let target = request.to.as_ref().unwrap_or(&request.path).clone();
        let mut restored = Restored {
            missing: self.fetch_changed(&mut source, &target, request.partial, progress)?,
            ..Restored::default()
        };
        let plan = self.plan(&source, &target, request)?;
        let packs = self.packs_again(&plan.values)?;
        let operations = plan.take(&mut restored);
        if !operations.is_empty() {
            if !progress.tell(RecallPhase::Writing, 0, restored.bytes) {
                return Err(EngineError::Cancelled);
            }
            let port = Port::new(self.shared.clone(), self.store.clone(), self.sender.clone());
            restored.commit = port.commit_with(operations, Vec::new(), packs)?;
            if !progress.tell(RecallPhase::Writing, restored.bytes, restored.bytes) {
                // It is done; only the wait ends.
                return Ok(restored);
            }
        }
        restored.applied = self.wait_for_view(progress).unwrap_or(false);
        Ok(restored)
    }

    fn check_role(&self) -> Result<(), EngineError> {
        let snapshot = self.shared.snapshot();
        match snapshot.role {
            _ if snapshot.removed => Err(EngineError::Removed),
            Some(Role::Owner | Role::Writer) => Ok(()),
            Some(role) => Err(EngineError::Forbidden {
                role: role.as_str(),
                action: "restore into it; 'ouisync browse' writes a past state out elsewhere",
            }),
            None => Err(EngineError::Locked),
        }
    }

    /// Waits until the folder's directory and the tree agree; false when that takes too long.
    fn wait_for_view(&self, progress: &mut dyn RecallProgress) -> Result<bool, EngineError> {
        let surroundings = &self.shared.surroundings;
        let begun = surroundings.now();
        if self.shared.snapshot().paused {
            return Err(EngineError::Paused);
        }
        self.shared.rescan();
        while !self.shared.is_view_settled() {
            if surroundings.now().saturating_duration_since(begun) >= SETTLE {
                return Ok(false);
            }
            if !progress.tell(RecallPhase::Looking, 0, 0) {
                return Err(EngineError::Cancelled);
            }
            if !surroundings.pause(LOOK) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fetches what isn't at its place yet. Takes what can't be had out of the source and returns where it was.
    fn fetch_changed(
        &self,
        source: &mut Source,
        target: &[Name],
        partial: bool,
        progress: &mut dyn RecallProgress,
    ) -> Result<Vec<FolderPath>, EngineError> {
        let mut wanted = Vec::new();
        for (index, item) in source.items.iter().enumerate() {
            if item.content().is_some() {
                let path = [target, &item.path].concat();
                let there = self.past.entry(&path)?;
                if !there.is_some_and(|entry| entry.value.shows_as(&item.value)) {
                    wanted.push(index);
                }
            }
        }
        // What is restored is live again, so it stays.
        self.fetch_items(source, &wanted, partial, progress, &mut Vec::new())
    }

    /// Fetches the content of the items at `wanted`. With `partial` what can't be had leaves the source, and where it was is
    /// returned; otherwise that is an error. Packs that came and that nothing else needs are added to `came`.
    pub(super) fn fetch_items(
        &self,
        source: &mut Source,
        wanted: &[usize],
        partial: bool,
        progress: &mut dyn RecallProgress,
        came: &mut Vec<PackId>,
    ) -> Result<Vec<FolderPath>, EngineError> {
        let contents = wanted
            .iter()
            .filter_map(|index| source.items[*index].content());
        let contents: Vec<&FileContent> = contents.collect();
        let (lost, not_here) = self.fetcher().fetch(&contents, progress, came)?;
        let lost: BTreeSet<usize> = lost.iter().map(|index| wanted[*index]).collect();
        if let (Some(first), false) = (lost.first(), partial) {
            return Err(EngineError::NotReachable {
                path: source.show(&source.items[*first]),
                others: lost.len() - 1,
                not_here,
            });
        }
        let mut missing = Vec::with_capacity(lost.len());
        let mut kept = Vec::with_capacity(source.items.len() - lost.len());
        for (index, item) in std::mem::take(&mut source.items).into_iter().enumerate() {
            if lost.contains(&index) {
                missing.push([source.path.as_slice(), item.path.as_slice()].concat());
            } else {
                kept.push(item);
            }
        }
        source.items = kept;
        Ok(missing)
    }

    fn plan(
        &self,
        source: &Source,
        target: &[Name],
        request: &RestoreRequest,
    ) -> Result<Plan, EngineError> {
        let label = |member: &MemberId| self.past.readable.label(member);
        let mut planning = Planning {
            index: &self.past.index,
            view: View::new(&self.past.index, &label),
            exact: request.exact,
            revive: request.to.is_none(),
            directories: BTreeMap::new(),
            used: HashSet::new(),
            rng: self.shared.surroundings.rng(),
            gone: BTreeSet::new(),
            plan: Plan::default(),
        };
        let mut paths: BTreeSet<FolderPath> = BTreeSet::new();
        for item in &source.items {
            let path = [target, &item.path].concat();
            planning.put(&path, item)?;
            paths.insert(path);
        }
        if request.exact {
            planning.take_away(target, &paths)?;
        }
        Ok(planning.plan)
    }

    /// The packs that hold `values`, to be added again, with the places that are referred to: what an older add told goes when
    /// that one is released.
    fn packs_again(&self, values: &[Value]) -> Result<Vec<(PackTable, PackSize)>, EngineError> {
        let mut packs: BTreeMap<PackId, Vec<ChunkPlace>> = BTreeMap::new();
        let mut seen: HashSet<ChunkId> = HashSet::new();
        for value in values {
            let Value::File(content) = value else {
                continue;
            };
            if matches!(content.data, FileData::Inline(..)) {
                continue;
            }
            let mut chunks: Vec<ChunkId> = Vec::new();
            if let FileData::Indirect(parts) = &content.data {
                chunks.extend(parts.iter().map(|part| part.chunk));
            }
            let mut reader = self.readable().content(content.clone());
            chunks.extend(reader.chunks()?.iter().map(|chunk| chunk.chunk));
            self.readable().give_back(reader.into_reader());
            for chunk in chunks {
                if !seen.insert(chunk) {
                    continue;
                }
                let mut choice: Option<(bool, PackId, ChunkPlace)> = None;
                for (pack, place) in self.readable().index.places(&chunk)? {
                    if !self.store.has_pack(pack)? {
                        continue;
                    }
                    let live = self.store.is_live(pack)?;
                    if choice.is_none_or(|(known, ..)| live && !known) {
                        choice = Some((live, pack, place));
                    }
                }
                let (_, pack, place) = choice.ok_or_else(|| {
                    EngineError::internal("what was fetched for a restore is gone again")
                })?;
                packs.entry(pack).or_default().push(place);
            }
        }
        let mut again = Vec::with_capacity(packs.len());
        for (pack, mut chunks) in packs {
            chunks.sort_unstable_by_key(|place| place.offset);
            let size = self.readable().pack_size(&pack)?;
            let round = self.readable().index.pack_table(&pack)?.round;
            let table = PackTable {
                pack,
                round,
                chunks,
            };
            again.push((table, size));
        }
        Ok(again)
    }
}

/// What a restore does.
#[derive(Default)]
struct Plan {
    operations: Vec<Operation>,
    values: Vec<Value>,
    files: u64,
    directories: u64,
    bytes: u64,
    unchanged: u64,
    removed: u64,
    beside: Vec<(FolderPath, FolderPath)>,
}

impl Plan {
    fn take(self, restored: &mut Restored) -> Vec<Operation> {
        restored.files = self.files;
        restored.directories = self.directories;
        restored.bytes = self.bytes;
        restored.unchanged = self.unchanged;
        restored.removed = self.removed;
        restored.beside = self.beside;
        self.operations
    }
}

struct Planning<'a> {
    index: &'a IndexSnapshot,
    view: View<'a, IndexSnapshot>,
    exact: bool,
    /// Deleted nodes come back themselves, with their history.
    revive: bool,
    /// Directories of the target, there before or made.
    directories: BTreeMap<FolderPath, NodeId>,
    used: HashSet<NodeId>,
    /// Names new nodes.
    rng: StdRng,
    /// What was taken away to make room.
    gone: BTreeSet<FolderPath>,
    plan: Plan,
}

impl Planning<'_> {
    fn put(&mut self, path: &[Name], item: &Item) -> Result<(), EngineError> {
        match &item.value {
            Value::Deleted => Ok(()),
            Value::Directory => self.directory(path, Some(item.node)).map(drop),
            Value::File(_) | Value::Symlink(_) => self.leaf(path, item),
        }
    }

    /// What is at a path now, unless this restore took it away.
    fn there(
        &self,
        path: &[Name],
    ) -> Result<Option<ouisync_model::tree::entry::Entry>, EngineError> {
        let is_gone = (1..=path.len()).any(|length| self.gone.contains(&path[..length]));
        if is_gone {
            return Ok(None);
        }
        Ok(self.view.lookup(path)?)
    }

    /// The directory at a path; made when it isn't there, as `before` if that can be.
    fn directory(&mut self, path: &[Name], before: Option<NodeId>) -> Result<NodeId, EngineError> {
        let Some((name, above)) = path.split_last() else {
            return Ok(NodeId::ROOT);
        };
        if let Some(known) = self.directories.get(path) {
            return Ok(*known);
        }
        let node = match self.there(path)? {
            Some(entry) if entry.is_directory() && (before.is_none() || entry.op.is_some()) => {
                self.plan.unchanged += u64::from(before.is_some());
                entry.node
            }
            Some(entry) if entry.is_directory() => {
                // It was deleted and is shown for what is inside alone: it is to stay also when that goes.
                self.plan
                    .operations
                    .extend(edit::write(&entry, Value::Directory));
                self.plan.directories += 1;
                entry.node
            }
            found => {
                let parent = self.directory(above, None)?;
                if let Some(leaf) = found {
                    // It is in history as any file that made room for a directory.
                    self.plan.operations.extend(edit::delete(&leaf));
                    self.plan.removed += 1;
                    self.gone.insert(path.to_vec());
                }
                self.plan.directories += 1;
                self.make(parent, name, before, &Value::Directory, None)?
            }
        };
        self.directories.insert(path.to_vec(), node);
        Ok(node)
    }

    fn leaf(&mut self, path: &[Name], item: &Item) -> Result<(), EngineError> {
        let Some((name, above)) = path.split_last() else {
            return Err(EngineError::IsDirectory(show(path)));
        };
        let parent = self.directory(above, None)?;
        let size = item.content().map_or(0, |content| content.size);
        match self.there(path)? {
            Some(entry) if entry.is_directory() && !self.exact => {
                let beside = self.free_name(above, name)?;
                let to = [above, std::slice::from_ref(&beside)].concat();
                self.plan.beside.push((path.to_vec(), to));
                self.make(parent, &beside, None, &item.value, Some(item.metadata))?;
            }
            Some(entry) if entry.is_directory() => {
                let operations = self.view.delete_tree(&entry)?;
                self.plan.operations.extend(operations);
                self.plan.removed += 1;
                self.gone.insert(path.to_vec());
                self.make(
                    parent,
                    name,
                    Some(item.node),
                    &item.value,
                    Some(item.metadata),
                )?;
            }
            Some(entry) => {
                let described = edit::set_metadata(&entry, item.metadata);
                if entry.value.shows_as(&item.value) {
                    if described.is_empty() {
                        self.plan.unchanged += 1;
                        return Ok(());
                    }
                    self.plan.operations.extend(described);
                } else {
                    let written = edit::write(&entry, item.value.clone());
                    self.plan.operations.extend(described);
                    self.plan.operations.extend(written);
                    self.plan.values.push(item.value.clone());
                }
            }
            None => {
                self.make(
                    parent,
                    name,
                    Some(item.node),
                    &item.value,
                    Some(item.metadata),
                )?;
            }
        }
        self.plan.files += 1;
        self.plan.bytes = self.plan.bytes.saturating_add(size);
        Ok(())
    }

    /// Makes an entry: `before` itself if it is deleted and wasn't brought back elsewhere, else a fresh node.
    fn make(
        &mut self,
        parent: NodeId,
        name: &Name,
        before: Option<NodeId>,
        value: &Value,
        metadata: Option<Metadata>,
    ) -> Result<NodeId, EngineError> {
        self.plan.values.push(value.clone());
        let kind = match value {
            Value::Directory => ouisync_model::id::NodeKind::Directory,
            _ => ouisync_model::id::NodeKind::Leaf,
        };
        if let Some(node) = before.filter(|node| self.revive && node.kind() == kind)
            && let Some(state) = self.index.node(node)?.filter(|state| !state.exists())
            && self.used.insert(node)
        {
            // Also where it is placed already: placed and written it counts as brought back, written alone as edited.
            self.plan.operations.push(Operation::Place {
                node,
                parent,
                name: name.clone(),
            });
            let held = state.metadata.shown();
            let change = metadata.and_then(|metadata| MetadataChange::between(&held, &metadata));
            let describe = |change| Operation::SetMetadata { node, change };
            self.plan.operations.extend(change.map(describe));
            self.plan.operations.push(Operation::Write {
                node,
                value: value.clone(),
                replaces: state.content.keys().copied().collect(),
            });
            return Ok(node);
        }
        let node = NodeId::new(kind, self.rng.random());
        self.plan.operations.extend(edit::create(
            parent,
            name.clone(),
            node,
            value.clone(),
            metadata,
        ));
        Ok(node)
    }

    /// `STEM (restored DATE).EXTENSION`, with a number where that is taken.
    fn free_name(&self, above: &[Name], name: &Name) -> Result<Name, EngineError> {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let date = Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or_default(),
            nanoseconds: 0,
        }
        .date();
        let (stem, extension) = name.split_extension();
        for number in 1_u64.. {
            let number = match number {
                1 => String::new(),
                number => format!(" {number}"),
            };
            let suffix = format!(" (restored {date}{number})");
            let room = Name::MAX_LENGTH.saturating_sub(suffix.len() + extension.len());
            let mut length = stem.len().min(room);
            // Not within a character, where it is text.
            while std::str::from_utf8(stem).is_ok() && std::str::from_utf8(&stem[..length]).is_err()
            {
                length -= 1;
            }
            let stem = &stem[..length];
            let bytes = [stem, suffix.as_bytes(), extension].concat();
            let candidate = Name::new(bytes)
                .map_err(|error| EngineError::internal(format!("a name for {name}: {error}")))?;
            let path = [above, std::slice::from_ref(&candidate)].concat();
            let taken = self.plan.beside.iter().any(|(_, to)| *to == path);
            if !taken && self.view.lookup(&path)?.is_none() {
                return Ok(candidate);
            }
        }
        Err(EngineError::internal("no free name"))
    }

    /// Takes away what is below `target` and not among `paths`.
    fn take_away(
        &mut self,
        target: &[Name],
        paths: &BTreeSet<FolderPath>,
    ) -> Result<(), EngineError> {
        let start = if target.is_empty() {
            NodeId::ROOT
        } else {
            match self.there(target)? {
                Some(entry) if entry.is_directory() => entry.node,
                _ => return Ok(()),
            }
        };
        let mut walk = self.view.walk(start)?;
        let mut taken: Option<FolderPath> = None;
        while let Some((inside, entry)) = walk.step()? {
            let path = [target, &inside].concat();
            let is_below = taken.as_ref().is_some_and(|taken| path.starts_with(taken));
            if is_below || paths.contains(&path) || self.gone.contains(&path) {
                continue;
            }
            let operations = self.view.delete_tree(&entry)?;
            self.plan.operations.extend(operations);
            self.plan.removed += 1;
            taken = Some(path);
        }
        Ok(())
    }
}
