//! Entries that come to a place: moved from where they are recorded, or made.

use std::{io, os::fd::OwnedFd};

use ouisync_model::{name::Name, operation::Value, tree::entry::Entry};

use crate::{
    apply::Plan,
    directories::{STAGING, Slot},
    disk::{self, Root},
    error::StepError,
    fingerprint::Kind,
    record::{Record, Shown, Stored},
    runner::{Runner, fresh},
    scan::Scope,
};

impl Runner {
    /// Puts an entry at a place that nothing recorded holds; a file's content is left to the caller.
    pub(crate) fn place_new(
        &mut self,
        root: &Root,
        plan: &mut Plan,
        (slot, handle): (Slot, &OwnedFd),
        entry: Entry,
    ) -> Result<Option<(Entry, Option<Record>)>, StepError> {
        if let Some((from, old_name, record)) = self.source(plan, &entry)? {
            let name = entry.name.clone();
            if !self.move_recorded(
                root,
                (from, &old_name),
                (slot, handle),
                &name,
                record.clone(),
            )? {
                return Ok(None);
            }
            let Some(record) = self.stored(slot, &name)?.and_then(|stored| stored.base) else {
                return Ok(None);
            };
            if entry.is_directory() {
                self.follow_directory(slot, &entry, record)?;
                return Ok(None);
            }
            return self.update_leaf((slot, handle), entry, record);
        }
        match &entry.value {
            Value::Directory => self.make_directory(root, (slot, handle), &entry)?,
            Value::Symlink(target) => self.make_symlink(root, (slot, handle), &entry, target)?,
            Value::File(_) => return Ok(Some((entry, None))),
            Value::Deleted => {}
        }
        Ok(None)
    }

    /// Where the thing is recorded that the entry shows at a new place.
    fn source(
        &self,
        plan: &Plan,
        entry: &Entry,
    ) -> Result<Option<(Slot, Name, Record)>, StepError> {
        for node in entry.nodes() {
            if entry.is_directory() {
                let Some(child) = self.tree.of_node(node) else {
                    continue;
                };
                let Some(directory) = self.tree.get(child) else {
                    continue;
                };
                let Some(parent) = directory.parent else {
                    continue;
                };
                if (parent == STAGING || plan.leaving.contains(&(parent, directory.name.clone())))
                    && let Some(record) = self
                        .stored(parent, &directory.name)?
                        .and_then(|stored| stored.base)
                {
                    return Ok(Some((parent, directory.name.clone(), record)));
                }
            } else if let Some(from) = self.tree.of_leaf(node) {
                for (name, stored) in self.records(from)? {
                    if let Some(record) = stored.base
                        && record.group().is_none()
                        && record.shares_node(entry)
                        && (from == STAGING || plan.leaving.contains(&(from, name.clone())))
                    {
                        return Ok(Some((from, name, record)));
                    }
                }
            }
        }
        Ok(None)
    }

    fn make_directory(
        &mut self,
        root: &Root,
        (slot, handle): (Slot, &OwnedFd),
        entry: &Entry,
    ) -> Result<(), StepError> {
        let name = &entry.name;
        let made = match disk::make_directory(handle, name.as_bytes(), 0o777) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => {
                self.cannot_place(slot, name, &error);
                return Ok(());
            }
        };
        let found = disk::stat(handle, name.as_bytes());
        let Some(stat) = found
            .ok()
            .flatten()
            .filter(|stat| stat.fingerprint.kind == Kind::Directory)
        else {
            return self.in_the_way(slot, handle, name);
        };
        let group = fresh()?;
        let record = Record::of(
            entry,
            Shown::Directory { group, husk: false },
            stat.fingerprint,
        );
        let child = self
            .tree
            .add(Some(slot), name.clone(), group, entry.nodes().collect());
        self.record_made(root, slot, name, record)?;
        self.behind.entry(child).or_default();
        self.watch_directory(child);
        let watched = |slot| self.tree.get(slot).is_some_and(|found| found.watched);
        let heard = watched(slot) && watched(child);
        // Somebody may have been quicker than the watch.
        let empty = heard
            && root
                .directory(&self.tree.path(child).unwrap_or_default())
                .and_then(disk::names)
                .is_ok_and(|names| names.is_empty());
        if made && empty {
            self.is_ours(slot, name, stat.fingerprint);
        }
        if !made {
            self.scan_soon(child, Scope::All { deep: true });
        }
        Ok(())
    }

    fn make_symlink(
        &mut self,
        root: &Root,
        (slot, handle): (Slot, &OwnedFd),
        entry: &Entry,
        target: &[u8],
    ) -> Result<(), StepError> {
        let name = &entry.name;
        match rustix::fs::symlinkat(target, handle, name.as_bytes()).map_err(io::Error::from) {
            Ok(()) => {
                if let Ok(Some(stat)) = disk::stat(handle, name.as_bytes()) {
                    let record =
                        Record::of(entry, Shown::Symlink(target.to_vec()), stat.fingerprint);
                    self.record_made(root, slot, name, record)?;
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.in_the_way(slot, handle, name)
            }
            Err(error) => {
                self.cannot_place(slot, name, &error);
                Ok(())
            }
        }
    }

    /// Recorded before it is durable, it would look deleted by a person after a power cut.
    fn record_made(
        &mut self,
        root: &Root,
        slot: Slot,
        name: &Name,
        record: Record,
    ) -> Result<(), StepError> {
        let old = self.stored(slot, name)?;
        let stored = Stored::settled(record);
        self.record_when_durable(root, slot, name, old.as_ref(), stored)
    }
}
