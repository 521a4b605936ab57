//! Turning what a pass recognised into commits: reading content, making operations, updating records.

use std::{
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ouisync_model::{
    id::{NodeId, NodeKind},
    name::Name,
    operation::{FileContent, MetadataChange, Operation, Value},
    tree::{edit, entry::Entry},
};

use super::{
    Scope,
    pass::Found,
    recognise::{Move, Recognised},
};
use crate::{
    directories::Slot,
    disk::{self, Root},
    error::StepError,
    fingerprint::{Kind, Stat},
    problems::{Pass as ProblemPass, Weight, advice},
    record::{Part, Record, Shown, Stored, outline},
    runner::{Runner, fresh},
};

/// A commit is made at the latest after so many files or bytes, so that others get them early.
const BATCH_FILES: usize = 2000;
const BATCH_BYTES: u64 = 32 << 20;

/// What reading a file gave.
pub(crate) enum Reading {
    /// Its value, and what the disk said before and after.
    Value(Stat, Value),
    /// It is being written.
    Busy,
    /// It is gone, or can't be read; that is reported.
    Nothing,
}

/// Reads a file for the engine, remembering the disk's failure if there is one.
struct Source<'a> {
    file: io::Take<std::fs::File>,
    runner: &'a Runner,
    failure: Option<io::Error>,
    /// The folder was paused meanwhile.
    paused: bool,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.runner.control.stopping() {
            return Err(io::Error::other("stopping"));
        }
        if self.runner.events.pauses() {
            self.paused = true;
            return Err(io::Error::other("paused"));
        }
        self.file.read(buffer).inspect_err(|error| {
            self.failure = Some(
                error
                    .raw_os_error()
                    .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error),
            );
        })
    }
}

/// A copy under a derived name that was renamed.
struct Parted {
    /// Where it was.
    slot: Slot,
    seen: Entry,
    moves: Vec<Operation>,
}

impl Runner {
    /// Commits everything. Renames and deletions first: they need no reading.
    pub(crate) fn record(&mut self, root: &Root, recognised: Recognised) -> Result<(), StepError> {
        let Recognised {
            moves,
            mut edited,
            created,
            deleted,
            deleted_directories,
            ..
        } = recognised;
        let mut parted = Vec::new();
        for moved in moves {
            self.record_move(root, moved, &mut edited, &mut parted)?;
        }
        let mut contested = Vec::new();
        for mut missed in deleted {
            self.resolve(missed.slot, &missed.name, &mut missed.record)?;
            self.is_quiet(missed.slot, &missed.name);
            let Some(seen) = missed.record.seen(&missed.name) else {
                continue;
            };
            if seen.contested {
                contested.push((missed.slot, seen));
            } else {
                self.operations.extend(edit::delete(&seen));
            }
        }
        self.record_partings(parted, &mut contested)?;
        self.record_rejections(contested)?;
        for mut limbo in deleted_directories {
            if !limbo.record.is_husk() {
                self.resolve(limbo.parent, &limbo.name, &mut limbo.record)?;
                self.operations
                    .extend(limbo.record.seen(&limbo.name).iter().flat_map(edit::delete));
            }
            self.forget_directory(limbo.slot);
        }
        self.flush(&[])?;
        let mut handle: Option<(Slot, OwnedFd)> = None;
        let mut changed: Vec<_> = edited.into_iter().chain(created).collect();
        // Small ones first: they are what somebody waits for.
        changed.sort_by_key(|found| found.stat.fingerprint.size >= BATCH_BYTES);
        for found in changed {
            if self.control.stopping() {
                break;
            }
            if self.events.pauses() {
                // The rest is looked for when it goes on.
                self.full_scan = true;
                break;
            }
            if handle.as_ref().is_none_or(|(slot, _)| *slot != found.slot) {
                let Some(path) = self.tree.path(found.slot) else {
                    continue;
                };
                match root.directory(&path) {
                    Ok(opened) => handle = Some((found.slot, opened)),
                    Err(_) => {
                        self.queue_later(found.slot, found.name, self.options.debounce);
                        continue;
                    }
                }
            }
            let Some((_, directory)) = &handle else {
                continue;
            };
            self.record_content(directory.as_fd(), found)?;
            if self.batched.0 >= BATCH_FILES || self.batched.1 >= BATCH_BYTES {
                self.flush(&[])?;
            }
        }
        self.flush(&[])
    }

    /// Sides of conflicts were deleted: what stays of each conflict is what the person chose.
    fn record_rejections(&mut self, mut gone: Vec<(Slot, Entry)>) -> Result<(), StepError> {
        while let Some((slot, seen)) = gone.pop() {
            let Some(conflict) = self.view.conflict(seen.node)? else {
                self.operations.extend(edit::delete(&seen));
                continue;
            };
            let of_it: Vec<_> = gone
                .extract_if(.., |(_, other)| {
                    let nodes = conflict.entries.iter().flat_map(Entry::nodes);
                    nodes.into_iter().any(|node| node == other.node)
                })
                .map(|(_, other)| other)
                .chain([seen])
                .collect();
            self.operations.extend(conflict.reject(&of_it));
            if let Some(kept) = conflict.staying(&of_it) {
                self.goes_on(slot, kept)?;
            }
        }
        Ok(())
    }

    /// Copies under derived names were renamed: they are ordinary files now, and what stays is what the person chose for its name.
    /// One that was put in the place of another side is among the `deleted`.
    fn record_partings(
        &mut self,
        mut parted: Vec<Parted>,
        deleted: &mut Vec<(Slot, Entry)>,
    ) -> Result<(), StepError> {
        while let Some(one) = parted.pop() {
            let (slot, mut moves) = (one.slot, one.moves);
            let mut of_it = vec![one.seen];
            let Some(conflict) = self.view.conflict(of_it[0].node)? else {
                self.operations.extend(moves);
                continue;
            };
            let is_of_it = |seen: &Entry| {
                let mut nodes = conflict.entries.iter().flat_map(Entry::nodes);
                nodes.any(|node| node == seen.node)
            };
            for other in parted.extract_if(.., |other| is_of_it(&other.seen)) {
                of_it.push(other.seen);
                moves.extend(other.moves);
            }
            let gone = deleted.extract_if(.., |(_, seen)| is_of_it(seen));
            let gone: Vec<_> = gone.map(|(_, seen)| seen).collect();
            self.operations.extend(conflict.part(&of_it, moves, &gone));
            for entry in conflict.leaves() {
                self.goes_on(slot, entry)?;
            }
        }
        Ok(())
    }

    /// An edit of what a choice writes again, made at the same time, goes on from the choice.
    fn goes_on(&mut self, slot: Slot, kept: &Entry) -> Result<(), StepError> {
        if let Some(mut stored) = self.stored(slot, &kept.name)?
            && let Some(base) = &mut stored.base
            && base.shares_node(kept)
            && base.same_value(&kept.value)
        {
            base.pending = true;
            self.put(slot, &kept.name, Some(stored))?;
        }
        Ok(())
    }

    fn record_move(
        &mut self,
        root: &Root,
        moved: Move,
        edited: &mut Vec<Found>,
        parted: &mut Vec<Parted>,
    ) -> Result<(), StepError> {
        let Move {
            from,
            mut record,
            to,
        } = moved;
        self.resolve(from.0, &from.1, &mut record)?;
        let parent = self.parent_node(to.slot)?;
        let Some(mut seen) = record.seen(&to.name) else {
            return Ok(());
        };
        if record.conflict && record.parts.iter().any(|part| part.shared) {
            // One of several values becomes a file of its own, so its whole value is needed.
            let reading = match self.tree.path(to.slot).map(|path| root.directory(&path)) {
                Some(Ok(directory)) => {
                    self.read(directory.as_fd(), to.slot, &to.name, record.content())?
                }
                _ => Reading::Nothing,
            };
            match reading {
                Reading::Value(_, value) => seen.value = value,
                Reading::Busy | Reading::Nothing => {
                    self.put(from.0, &from.1, Stored::of(record))?;
                    self.queue_scan(from.0, Scope::Names([from.1].into()));
                    self.queue_later(to.slot, to.name, self.options.debounce);
                    return Ok(());
                }
            }
        }
        let operations = edit::relocate(&seen, parent, &to.name, fresh()?);
        let placed: Vec<NodeId> = operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::Place { node, .. } => Some(*node),
                _ => None,
            })
            .collect();
        let mut parts: Vec<_> = record
            .parts
            .iter()
            .filter(|part| placed.contains(&part.node))
            .cloned()
            .collect();
        let own = placed
            .iter()
            .filter(|node| !record.nodes().any(|known| known == **node));
        parts.extend(own.map(|node| Part::own(*node)));
        record.parts = parts;
        record.pending = true;
        if record.conflict {
            parted.push(Parted {
                slot: from.0,
                seen,
                moves: operations,
            });
        } else {
            self.operations.extend(operations);
        }
        record.conflict = false;
        record.contested = false;
        if record.fingerprint.same_but_renamed(&to.stat.fingerprint) {
            record.fingerprint = to.stat.fingerprint;
        } else {
            edited.push(Found {
                record: Some(record.clone()),
                slot: to.slot,
                name: to.name.clone(),
                stat: to.stat,
            });
        }
        self.put(to.slot, &to.name, Stored::of(record))
    }

    /// Reads a changed or new file or link and makes its operations.
    fn record_content(&mut self, directory: impl AsFd, found: Found) -> Result<(), StepError> {
        let Found {
            slot, name, record, ..
        } = found;
        // The record may have got its operation since.
        let record = match record {
            Some(_) => self.stored(slot, &name)?.and_then(|stored| stored.base),
            None => None,
        };
        let behind = self.behind.contains_key(&slot);
        let parent = self.parent_node(slot)?;
        let entry = match behind {
            true => self
                .view
                .entry(parent, &name)?
                .filter(|entry| !entry.is_directory()),
            false => None,
        };
        let previous = match (&record, entry.as_ref().map(|entry| &entry.value)) {
            (Some(record), _) => record.content().cloned(),
            (None, Some(Value::File(content))) => Some(content.clone()),
            _ => None,
        };
        let (stat, value) = match self.read(directory, slot, &name, previous.as_ref())? {
            Reading::Value(stat, value) => (stat, value),
            Reading::Busy => {
                self.queue_later(slot, name, self.options.debounce);
                return Ok(());
            }
            Reading::Nothing => return Ok(()),
        };
        self.is_quiet(slot, &name);
        let fingerprint = stat.fingerprint;
        let file = fingerprint.kind == Kind::File;
        let metadata = if file {
            fingerprint.metadata()
        } else {
            Default::default()
        };
        let shown = match &value {
            Value::File(content) => Shown::File(outline(content)),
            Value::Symlink(target) => Shown::Symlink(target.clone()),
            Value::Deleted | Value::Directory => return Ok(()),
        };
        let mut new = match record {
            Some(mut record) => {
                self.resolve(slot, &name, &mut record)?;
                let Some(seen) = record.seen(&name) else {
                    return Ok(());
                };
                let described = file
                    && metadata != record.metadata
                    && metadata != record.fingerprint.metadata();
                if record.same_value(&value) {
                    if described {
                        self.operations.extend(edit::set_metadata(&seen, metadata));
                        record.metadata = metadata;
                    }
                    record
                } else if let Some(entry) = entry.filter(|entry| {
                    record.shares_node(entry) && matches_value(&shown, &entry.value)
                }) {
                    // The tree has it already: it was being applied when the program ended.
                    Record {
                        metadata,
                        ..Record::of(&entry, shown, fingerprint)
                    }
                } else {
                    self.operations.extend(edit::write(&seen, value));
                    if file
                        && let Some(change) = MetadataChange::between(&record.metadata, &metadata)
                    {
                        self.operations.push(Operation::SetMetadata {
                            node: seen.node,
                            change,
                        });
                        record.metadata = metadata;
                    }
                    Record {
                        parts: vec![Part::own(seen.node)],
                        pending: true,
                        shown,
                        ..record
                    }
                }
            }
            None => match entry.filter(|entry| matches_value(&shown, &entry.value)) {
                Some(entry) => Record {
                    metadata,
                    ..Record::of(&entry, shown, fingerprint)
                },
                None => {
                    let node = NodeId::new(NodeKind::Leaf, fresh()?);
                    let described = file.then_some(metadata);
                    self.operations.extend(edit::create(
                        parent,
                        name.clone(),
                        node,
                        value,
                        described,
                    ));
                    Record {
                        parts: vec![Part::own(node)],
                        pending: true,
                        conflict: false,
                        contested: false,
                        shown,
                        metadata,
                        fingerprint,
                        offloaded: false,
                    }
                }
            },
        };
        new.fingerprint = fingerprint;
        self.batched.0 += 1;
        self.batched.1 += fingerprint.size;
        self.put(slot, &name, Stored::of(new))
    }

    /// Reads what is at a place now.
    pub(crate) fn read(
        &mut self,
        directory: impl AsFd,
        slot: Slot,
        name: &Name,
        previous: Option<&FileContent>,
    ) -> Result<Reading, StepError> {
        let directory = directory.as_fd();
        let unreadable = |this: &mut Self, error: &io::Error| {
            if error.kind() != io::ErrorKind::NotFound {
                let message = format!(
                    "It can't be read ({error}); the version that was recorded stays. {}",
                    advice(error)
                );
                let weight = Weight::of(ProblemPass::Scan, error);
                this.problem(slot, Some(name), message, weight);
            }
            Ok(Reading::Nothing)
        };
        let before = match disk::stat(directory, name.as_bytes()) {
            Ok(Some(stat)) => stat,
            Ok(None) => return Ok(Reading::Nothing),
            Err(error) => return unreadable(self, &error),
        };
        let value = match before.fingerprint.kind {
            Kind::Symlink => match disk::read_link(directory, name.as_bytes()) {
                Ok(target) => Value::Symlink(target),
                Err(error) => return unreadable(self, &error),
            },
            Kind::File => {
                if is_fresh(&before, self.options.fresh) {
                    return Ok(Reading::Busy);
                }
                let file = match disk::open_file(directory, name.as_bytes()) {
                    Ok(file) => file,
                    Err(error) => return unreadable(self, &error),
                };
                match disk::stat_handle(&file) {
                    Ok(opened) if opened.fingerprint == before.fingerprint => {}
                    Ok(_) => return Ok(Reading::Busy),
                    Err(error) => return unreadable(self, &error),
                }
                let size = before.fingerprint.size;
                // One byte more, so that what grows is noticed.
                let mut source = Source {
                    file: file.take(size.saturating_add(1)),
                    runner: self,
                    failure: None,
                    paused: false,
                };
                let ingested = self.view.ingest(&mut source, size, previous);
                let (failure, paused) = (source.failure.take(), source.paused);
                match (ingested, failure) {
                    (_, Some(error)) => return unreadable(self, &error),
                    (Err(_), None) if self.control.stopping() => return Err(StepError::Stopping),
                    (Err(_), None) if paused => return Ok(Reading::Busy),
                    (Err(error), None) => return Err(error.into()),
                    (Ok(content), None) if content.size != size => return Ok(Reading::Busy),
                    (Ok(content), None) => Value::File(content),
                }
            }
            Kind::Directory | Kind::Special => return Ok(Reading::Nothing),
        };
        match disk::stat(directory, name.as_bytes()) {
            Ok(Some(after)) if after.fingerprint == before.fingerprint => {
                Ok(Reading::Value(after, value))
            }
            _ => Ok(Reading::Busy),
        }
    }

    /// Finds out which operation made what this device recorded itself.
    pub(crate) fn resolve(
        &mut self,
        slot: Slot,
        name: &Name,
        record: &mut Record,
    ) -> Result<(), StepError> {
        let Some(parent) = self.tree_node(slot).filter(|_| record.pending) else {
            return Ok(());
        };
        let value = match record.seen(name) {
            Some(seen) => seen.value,
            None => return Ok(()),
        };
        let fits = |entry: &ouisync_model::tree::entry::Entry| {
            record.shares_node(entry) && record.same_value(&entry.value)
        };
        let entry = match self.view.entry(parent, name)?.filter(fits) {
            Some(entry) => Some(entry),
            // Under a derived name, if it met another.
            None if !matches!(value, Value::Directory) => {
                self.view.list(parent)?.into_iter().find(fits)
            }
            None => None,
        };
        if let Some(entry) = entry {
            record.follow(&entry);
        }
        Ok(())
    }
}

fn matches_value(shown: &Shown, value: &Value) -> bool {
    match (shown, value) {
        (Shown::File(content), Value::File(other)) => crate::record::same_content(content, other),
        (Shown::Symlink(target), Value::Symlink(other)) => target == other,
        _ => false,
    }
}

fn is_fresh(stat: &Stat, limit: Duration) -> bool {
    let changed = stat.fingerprint.changed;
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else {
        return false;
    };
    let Ok(seconds) = u64::try_from(changed.0) else {
        return false;
    };
    // A clock that was set back makes nothing fresh.
    now.checked_sub(Duration::new(seconds, changed.1))
        .is_some_and(|age| age < limit)
}
