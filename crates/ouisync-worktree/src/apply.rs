//! Remote changes: what the tree shows and the records don't is put on disk.
//!
//! A pass plans over all directories that are behind, so that what left one and came to another is moved, places what is new,
//! and removes last. Nothing on disk is touched unless it still is what is recorded there.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use ouisync_engine::error::ErrorKind;
use ouisync_model::{id::NodeId, name::Name, operation::Value, tree::entry::Entry};

use crate::{
    batch::Handles,
    directories::{STAGING, Slot},
    disk::{self, Root},
    error::StepError,
    fingerprint::Kind,
    ignored,
    place::Staged,
    problems::{Pass, Weight, advice},
    record::{Record, Shown, Stored},
    runner::Runner,
};

/// Entries of listings that a pass keeps rather than read twice.
const KEPT: usize = 20_000;

/// Time that a pass takes at most where it can be divided.
const SHARE: Duration = Duration::from_millis(300);

/// What a pass knows beyond one directory.
#[derive(Default)]
pub(crate) struct Plan {
    /// Recorded places whose thing is no longer shown there.
    pub(crate) leaving: HashSet<(Slot, Name)>,
    /// Recorded nodes that are shown elsewhere now.
    pub(crate) wanted: HashSet<NodeId>,
    listings: HashMap<Slot, Vec<Entry>>,
    removals: Vec<(Slot, Name, Record)>,
    pub(crate) staged: Vec<Staged>,
    pub(crate) staged_bytes: u64,
    /// The staging directory, once it was opened.
    pub(crate) staging: Option<OwnedFd>,
    pub(crate) handles: Handles,
}

impl Runner {
    /// Learns which directories the engine marked.
    pub(crate) fn refresh_behind(&mut self) -> Result<(), StepError> {
        let mut unknown = Vec::new();
        for node in self.view.dirty(1 << 20)? {
            match self.tree.of_node(node) {
                Some(slot) => {
                    let marks = self.behind.entry(slot).or_default();
                    if !marks.contains(&node) {
                        marks.push(node);
                    }
                }
                // Not on disk yet, or no more: its parent's listing tells of it.
                None => unknown.push(node),
            }
        }
        if !unknown.is_empty() {
            self.view.update(Vec::new(), &unknown)?;
        }
        Ok(())
    }

    /// Applies a share of what is owed.
    pub(crate) fn apply(&mut self, root: &Root) -> Result<(), StepError> {
        if !self.behind.is_empty() {
            self.apply_behind(root)?;
        }
        if !self.ready.is_empty() {
            let mut plan = Plan::default();
            for _ in 0..self.options.batch_files {
                let Some((slot, name)) = self.ready.pop_front() else {
                    break;
                };
                self.apply_single(root, &mut plan, slot, &name, false)?;
            }
            self.finish_plan(root, plan, &[])?;
            return Ok(());
        }
        self.apply_large(root)?;
        self.advance_drafts(root)
    }

    fn apply_behind(&mut self, root: &Root) -> Result<(), StepError> {
        let mut behind = std::mem::take(&mut self.behind);
        let mut slots: Vec<_> = behind
            .keys()
            .filter_map(|slot| Some((self.tree.path(*slot)?.len(), *slot)))
            .collect();
        slots.sort_unstable();
        let mut queue: VecDeque<_> = slots.iter().map(|(_, slot)| *slot).collect();
        let mut plan = self.plan(&queue)?;
        for places in self.waiting.values_mut() {
            places.retain(|(slot, _)| !behind.contains_key(slot));
        }
        let mut done = HashSet::new();
        let started = Instant::now();
        while let Some(slot) = queue.pop_front() {
            if self.control.stopping() {
                return Err(StepError::Stopping);
            }
            if plan.leaving.is_empty() && started.elapsed() > SHARE {
                // Nothing moves, so the rest can wait while local changes get their turn.
                queue.push_front(slot);
                break;
            }
            done.insert(slot);
            self.apply_directory(root, &mut plan, slot)?;
            for (child, marks) in std::mem::take(&mut self.behind) {
                if done.contains(&child) || !marks.is_empty() {
                    self.behind.insert(child, marks);
                } else {
                    queue.push_back(child);
                }
            }
        }
        self.waiting.retain(|_, places| !places.is_empty());
        for slot in queue {
            let marks = behind.remove(&slot).unwrap_or_default();
            self.behind.entry(slot).or_default().extend(marks);
        }
        let marks: Vec<_> = behind.into_values().flatten().collect();
        self.finish_plan(root, plan, &marks)
    }

    pub(crate) fn finish_plan(
        &mut self,
        root: &Root,
        mut plan: Plan,
        marks: &[NodeId],
    ) -> Result<(), StepError> {
        self.place_staged(root, &mut plan)?;
        for (slot, name, record) in std::mem::take(&mut plan.removals) {
            let here = self.stored(slot, &name)?.and_then(|stored| stored.base);
            if here.as_ref() != Some(&record) {
                continue;
            }
            if record.nodes().any(|node| plan.wanted.contains(&node))
                && !self.is_elsewhere(&record, slot)
            {
                // Its new place could not be taken: it stays until it can.
                self.blocked.insert(slot);
                continue;
            }
            self.remove_recorded(root, &plan, slot, &name, &record)?;
        }
        if self.blocked.is_empty() {
            self.empty_staging(root, &plan)?;
        }
        self.flush(marks)?;
        self.sync_placed()
    }

    /// Removes what was set aside and is wanted nowhere.
    fn empty_staging(&mut self, root: &Root, plan: &Plan) -> Result<(), StepError> {
        for (name, stored) in self.records(STAGING)? {
            if let Some(record) = stored.base
                && !record.nodes().any(|node| plan.wanted.contains(&node))
            {
                self.remove_recorded(root, plan, STAGING, &name, &record)?;
            }
        }
        Ok(())
    }

    /// Whether the nodes of a record are recorded at another place too.
    fn is_elsewhere(&self, record: &Record, slot: Slot) -> bool {
        record
            .nodes()
            .any(|node| self.tree.of_leaf(node).is_some_and(|other| other != slot))
    }

    fn listing(&self, slot: Slot) -> Result<Vec<Entry>, StepError> {
        match self.tree_node(slot) {
            Some(node) => self.list(node),
            None => Ok(Vec::new()),
        }
    }

    fn list(&self, node: NodeId) -> Result<Vec<Entry>, StepError> {
        match self.view.list(node) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            listed => Ok(listed?),
        }
    }

    fn plan(&mut self, slots: &VecDeque<Slot>) -> Result<Plan, StepError> {
        let mut plan = Plan::default();
        let mut new_directories = Vec::new();
        let mut kept = 0;
        for slot in slots {
            let listing = self.listing(*slot)?;
            let records = self.records(*slot)?;
            let entries: BTreeMap<&Name, &Entry> =
                listing.iter().map(|entry| (&entry.name, entry)).collect();
            for (name, stored) in &records {
                if let Some(base) = &stored.base
                    && !entries
                        .get(name)
                        .is_some_and(|entry| base.shares_node(entry))
                {
                    plan.leaving.insert((*slot, name.clone()));
                }
            }
            for entry in &listing {
                let base = records
                    .get(&entry.name)
                    .and_then(|stored| stored.base.as_ref());
                if !base.is_some_and(|base| base.shares_node(entry)) {
                    self.want(&mut plan, entry, &mut new_directories);
                }
            }
            if kept + listing.len() <= KEPT {
                kept += listing.len();
                plan.listings.insert(*slot, listing);
            }
        }
        // Only a move out of a known place needs to know what is inside new directories.
        while !plan.leaving.is_empty()
            && let Some(node) = new_directories.pop()
        {
            for entry in self.list(node)? {
                self.want(&mut plan, &entry, &mut new_directories);
            }
        }
        Ok(plan)
    }

    fn want(&self, plan: &mut Plan, entry: &Entry, new_directories: &mut Vec<NodeId>) {
        for node in entry.nodes() {
            if self.tree.of_leaf(node).is_some() || self.tree.of_node(node).is_some() {
                plan.wanted.insert(node);
            } else if entry.is_directory() {
                new_directories.push(node);
            }
        }
    }

    fn apply_directory(
        &mut self,
        root: &Root,
        plan: &mut Plan,
        slot: Slot,
    ) -> Result<(), StepError> {
        let Some(path) = self.tree.path(slot) else {
            return Ok(());
        };
        let listing = match plan.listings.remove(&slot) {
            Some(listing) => listing,
            None => self.listing(slot)?,
        };
        self.problems.clear_directory(Pass::Apply, slot);
        let mut records = self.records(slot)?;
        let handle = match plan.handles.get(root, &self.tree, slot) {
            Ok(handle) => handle,
            Err(error) => {
                self.unreachable_directory(slot, &path, &error);
                return Ok(());
            }
        };
        let mut small = Vec::new();
        for entry in listing {
            let mut stored = records.remove(&entry.name);
            if !plan.leaving.is_empty() {
                // What was recorded here may have been moved by now.
                stored = self.stored(slot, &entry.name)?;
            }
            if let Some(waiting) = self.apply_entry(root, plan, (slot, &handle), entry, stored)? {
                small.push(waiting);
            }
        }
        small.sort_by_key(|(entry, _)| size(entry));
        for (entry, replaced) in small {
            self.stage(root, plan, slot, entry, replaced, false)?;
        }
        for (name, stored) in records {
            match stored.base {
                Some(base) if !base.is_husk() => plan.removals.push((slot, name, base)),
                _ => {}
            }
        }
        Ok(())
    }

    fn unreachable_directory(&mut self, slot: Slot, path: &[Name], error: &io::Error) {
        self.blocked.insert(slot);
        if matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        ) {
            // Deleted or replaced here: the scan records that first.
            if let Some((parent, name)) = self
                .tree
                .get(slot)
                .and_then(|directory| Some((directory.parent?, directory.name.clone())))
            {
                self.queue_later(parent, name, self.options.debounce);
            }
            return;
        }
        let message = format!(
            "Changes from others can't be written into this directory ({error}). {}",
            advice(error)
        );
        self.problems.set(
            Pass::Apply,
            slot,
            None,
            disk::shown_path(path),
            message,
            Weight::of(Pass::Apply, error),
        );
    }

    /// Applies a place whose content came, or whose turn came.
    pub(crate) fn apply_single(
        &mut self,
        root: &Root,
        plan: &mut Plan,
        slot: Slot,
        name: &Name,
        large: bool,
    ) -> Result<(), StepError> {
        let Some(node) = self.tree_node(slot) else {
            return Ok(());
        };
        let Some(entry) = self.view.entry(node, name)? else {
            return Ok(());
        };
        let Ok(handle) = plan.handles.get(root, &self.tree, slot) else {
            self.behind.entry(slot).or_default();
            return Ok(());
        };
        self.problems.clear(Pass::Apply, slot, Some(name));
        let stored = self.stored(slot, name)?;
        if let Some((entry, replaced)) =
            self.apply_entry(root, plan, (slot, &handle), entry, stored)?
        {
            self.stage(root, plan, slot, entry, replaced, large)?;
        }
        Ok(())
    }

    /// Applies one entry, but for the content of files: those are returned with what they replace.
    fn apply_entry(
        &mut self,
        root: &Root,
        plan: &mut Plan,
        (slot, handle): (Slot, &OwnedFd),
        entry: Entry,
        stored: Option<Stored>,
    ) -> Result<Option<(Entry, Option<Record>)>, StepError> {
        if ignored::is_own(&entry.name) {
            let message = "The name is reserved for OuiSync's own files: it is not written here. Rename it on another device.";
            self.apply_problem(slot, &entry.name, message.to_owned(), Weight::Note);
            return Ok(None);
        }
        let stored = stored.unwrap_or_default();
        if stored.intent.is_some() {
            // Whether what a crash left here is whole is for the scan to say; until then it must neither be replaced nor forgotten.
            self.unsettled_intent(slot, &entry.name);
            return Ok(None);
        }
        let base = stored.base;
        let Some(record) = base else {
            return self.place_new(root, plan, (slot, handle), entry);
        };
        let directory = record.group().is_some();
        let elsewhere =
            !record.shares_node(&entry) && record.nodes().any(|node| plan.wanted.contains(&node));
        if directory == entry.is_directory() && !elsewhere {
            if directory {
                self.follow_directory(slot, &entry, record)?;
                return Ok(None);
            }
            return self.update_leaf((slot, handle), entry, record);
        }
        let name = entry.name.clone();
        if elsewhere || record.is_husk() {
            if record.is_husk() || !self.set_aside(root, (slot, handle), &name, record)? {
                self.in_the_way(slot, handle, &name)?;
                return Ok(None);
            }
        } else {
            self.remove_recorded(root, plan, slot, &name, &record)?;
            if self.stored(slot, &name)?.is_some() {
                self.in_the_way(slot, handle, &name)?;
                return Ok(None);
            }
        }
        self.place_new(root, plan, (slot, handle), entry)
    }

    /// The directory on disk shows `entry` (now).
    pub(crate) fn follow_directory(
        &mut self,
        slot: Slot,
        entry: &Entry,
        mut record: Record,
    ) -> Result<(), StepError> {
        let nodes_changed = record.nodes().ne(entry.nodes()) || record.is_husk();
        let Some(group) = record.group() else {
            return Ok(());
        };
        let changed = record.follow(entry) || record.is_husk();
        record.shown = Shown::Directory { group, husk: false };
        if let Some(child) = self.tree.child(slot, &entry.name)
            && (nodes_changed
                || self
                    .tree
                    .get(child)
                    .is_some_and(|directory| directory.nodes.is_empty()))
        {
            self.tree.set_nodes(child, record.nodes().collect());
            self.behind.entry(child).or_default();
        }
        if changed {
            self.put(slot, &entry.name, Stored::of(record))?;
        }
        Ok(())
    }

    pub(crate) fn update_leaf(
        &mut self,
        (slot, handle): (Slot, &OwnedFd),
        entry: Entry,
        mut record: Record,
    ) -> Result<Option<(Entry, Option<Record>)>, StepError> {
        if record.offloaded {
            self.follow_offloaded((slot, handle), &entry, record)?;
            return Ok(None);
        }
        let name = entry.name.clone();
        if !record.same_value(&entry.value) {
            if !self.unchanged(slot, handle, &name, &record)? {
                return Ok(None);
            }
            return Ok(Some((entry, Some(record))));
        }
        let changed = record.follow(&entry);
        let described = record.content().is_some() && record.metadata != entry.metadata;
        if described {
            if !self.unchanged(slot, handle, &name, &record)? {
                return Ok(None);
            }
            match describe(handle, &name, &entry, &record) {
                Ok(Some(fingerprint)) => {
                    record.fingerprint = fingerprint;
                    record.metadata = entry.metadata;
                }
                Ok(None) => {
                    self.in_the_way(slot, handle, &name)?;
                    return Ok(None);
                }
                Err(error) => {
                    let message = format!(
                        "Its time or right to execute can't be set ({error}); the content is in step. {}",
                        advice(&error)
                    );
                    self.apply_problem(slot, &name, message, Weight::Note);
                    // Taken as set, so that the difference is not mistaken for this device's wish.
                    record.metadata = entry.metadata;
                }
            }
        }
        if changed || described {
            self.put(slot, &name, Stored::of(record))?;
        }
        Ok(None)
    }

    /// Whether the disk still has what is recorded; if not, the scan comes first.
    fn unchanged(
        &mut self,
        slot: Slot,
        handle: &OwnedFd,
        name: &Name,
        record: &Record,
    ) -> Result<bool, StepError> {
        match disk::is_unchanged(handle, name.as_bytes(), &record.fingerprint) {
            Ok(true) => Ok(true),
            Ok(false) => {
                self.in_the_way(slot, handle, name)?;
                Ok(false)
            }
            Err(error) => {
                let message = format!(
                    "The folder's version can't be put here ({error}). {}",
                    advice(&error)
                );
                self.apply_problem(slot, name, message, Weight::of(Pass::Apply, &error));
                self.blocked.insert(slot);
                Ok(false)
            }
        }
    }

    /// Something that is not recorded is at a place that the tree needs.
    pub(crate) fn in_the_way(
        &mut self,
        slot: Slot,
        handle: impl AsFd,
        name: &Name,
    ) -> Result<(), StepError> {
        self.blocked.insert(slot);
        let found = disk::stat(handle, name.as_bytes())
            .ok()
            .flatten()
            .map(|stat| stat.fingerprint.kind);
        let ignored = self
            .rules
            .is_ignored(&self.tree, slot, name, found == Some(Kind::Directory));
        if found == Some(Kind::Special) || (found.is_some() && (ignored || !self.view.writable())) {
            let message = "Something that is not synced is here, so the folder's version can't be put here. Move it elsewhere.";
            self.apply_problem(slot, name, message.to_owned(), Weight::Note);
            return Ok(());
        }
        self.queue_later(slot, name.clone(), self.options.debounce / 2);
        Ok(())
    }

    /// A file of ours was on its way to this place when the program ended, and the scan has not looked at it yet, or could not.
    fn unsettled_intent(&mut self, slot: Slot, name: &Name) {
        self.blocked.insert(slot);
        if self.problems.has(Pass::Scan, slot, name) {
            let message =
                "What is here can't be examined, so the folder's version can't be put here.";
            self.apply_problem(slot, name, message.to_owned(), Weight::Note);
        } else {
            self.queue_later(slot, name.clone(), self.options.debounce);
        }
    }

    pub(crate) fn apply_problem(
        &mut self,
        slot: Slot,
        name: &Name,
        message: String,
        weight: Weight,
    ) {
        let mut path = self.tree.path(slot).unwrap_or_default();
        path.push(name.clone());
        self.problems.set(
            Pass::Apply,
            slot,
            Some(name),
            disk::shown_path(&path),
            message,
            weight,
        );
    }
}

fn size(entry: &Entry) -> u64 {
    match &entry.value {
        Value::File(content) => content.size,
        _ => 0,
    }
}

/// Sets time and right to execute; `None` when the thing changed meanwhile.
fn describe(
    handle: &OwnedFd,
    name: &Name,
    entry: &Entry,
    record: &Record,
) -> io::Result<Option<crate::fingerprint::Fingerprint>> {
    let file = disk::open_file(handle, name.as_bytes())?;
    let before = disk::stat_handle(&file)?.fingerprint;
    if before != record.fingerprint {
        return Ok(None);
    }
    if entry.metadata.executable != before.metadata().executable {
        disk::set_mode(
            &file,
            disk::with_executable(before.mode, entry.metadata.executable),
        )?;
    }
    disk::set_modified(&file, &entry.metadata)?;
    Ok(Some(disk::stat_handle(&file)?.fingerprint))
}
