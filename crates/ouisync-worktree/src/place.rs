//! The single steps on disk, each checked right before and after it is done, so that a change of the same instant is kept.
//!
//! Things are put in place by a rename that replaces nothing, and replaced or removed by an exchange with, or a rename into, the
//! staging directory: what came out is looked at before it is dropped.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use ouisync_model::name::Name;

use crate::{
    apply::Plan,
    directories::{STAGING, Slot},
    disk::{self, Root},
    error::StepError,
    fingerprint::Fingerprint,
    record::{Record, Shown, Stored},
    runner::Runner,
    scan::Scope,
};

/// Label of what is kept beside the thing whose name it had.
pub(crate) const KEPT_LABEL: &str = "recovered";

/// A file or link in the staging directory, ready for its place.
pub(crate) struct Staged {
    pub(crate) slot: Slot,
    pub(crate) name: Name,
    /// What will be recorded; the fingerprint is the staged file's.
    pub(crate) record: Record,
    pub(crate) temporary: Vec<u8>,
    pub(crate) replaced: Option<Record>,
}

/// How a step on disk ended.
pub(crate) enum Outcome {
    Done(Fingerprint),
    /// Something else than what is recorded was there; it stayed.
    InTheWay,
}

impl Runner {
    pub(crate) fn temporary_name(&mut self, prefix: &str) -> Vec<u8> {
        self.next_staged = self.next_staged.wrapping_add(1);
        format!("{prefix}-{:016x}", self.next_staged).into_bytes()
    }

    /// A step is about to be done or was done: tests stop here.
    pub(crate) fn checkpoint(&self) -> Result<(), StepError> {
        self.options.checkpoint()
    }

    /// The outer error stops the pass, the inner one concerns this file.
    pub(crate) fn place_one(
        &mut self,
        staging: &OwnedFd,
        directory: &OwnedFd,
        one: &Staged,
    ) -> Result<io::Result<Outcome>, StepError> {
        let name = one.name.as_bytes();
        let new = &one.record.fingerprint;
        let Some(replaced) = &one.replaced else {
            return Ok(
                match disk::move_new(staging, &one.temporary, directory, name) {
                    Ok(()) => Ok(Outcome::Done(after(directory, name, new))),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        Ok(Outcome::InTheWay)
                    }
                    Err(error) => Err(error),
                },
            );
        };
        match disk::is_unchanged(directory, name, &replaced.fingerprint) {
            Ok(true) => {}
            Ok(false) => return Ok(Ok(Outcome::InTheWay)),
            Err(error) => return Ok(Err(error)),
        }
        #[cfg(test)]
        if let Some(meddle) = &self.options.before_replace {
            meddle(&one.name);
        }
        match disk::exchange(staging, &one.temporary, directory, name) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                return Ok(self.replace_in_two_steps(staging, directory, one, replaced));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Ok(Outcome::InTheWay));
            }
            Err(error) => return Ok(Err(error)),
        }
        self.checkpoint()?;
        let came_out = match disk::stat(staging, &one.temporary) {
            Ok(stat) => stat,
            Err(error) => return Ok(Err(error)),
        };
        if came_out.is_some_and(|stat| stat.fingerprint.same_but_renamed(&replaced.fingerprint)) {
            let done = after(directory, name, new);
            if let Err(error) = disk::unlink(staging, &one.temporary) {
                return Ok(Err(error));
            }
            return Ok(Ok(Outcome::Done(done)));
        }
        // A change of the same instant came out: back with it.
        if let Err(error) = disk::exchange(staging, &one.temporary, directory, name) {
            tracing::warn!(%error, "a local change could not be exchanged back");
        }
        let is_ours = disk::stat(staging, &one.temporary)
            .is_ok_and(|stat| stat.is_some_and(|stat| stat.fingerprint.identity == new.identity));
        if !is_ours {
            // Yet another version had been put there: both are kept.
            self.keep_beside(staging, &one.temporary, directory, one.slot, &one.name)?;
        }
        Ok(Ok(Outcome::InTheWay))
    }

    fn replace_in_two_steps(
        &mut self,
        staging: &OwnedFd,
        directory: &OwnedFd,
        one: &Staged,
        replaced: &Record,
    ) -> io::Result<Outcome> {
        let old = self.temporary_name("old");
        let name = one.name.as_bytes();
        disk::move_new(directory, name, staging, &old)?;
        let came_out = disk::stat(staging, &old)?;
        if !came_out.is_some_and(|stat| stat.fingerprint.same_but_renamed(&replaced.fingerprint)) {
            disk::move_new(staging, &old, directory, name)?;
            return Ok(Outcome::InTheWay);
        }
        match disk::move_new(staging, &one.temporary, directory, name) {
            Ok(()) => {
                disk::unlink(staging, &old)?;
                Ok(Outcome::Done(after(
                    directory,
                    name,
                    &one.record.fingerprint,
                )))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // What was there is recorded and safe in the folder's history.
                disk::unlink(staging, &old)?;
                Ok(Outcome::InTheWay)
            }
            Err(error) => {
                disk::move_new(staging, &old, directory, name)?;
                Err(error)
            }
        }
    }

    /// Puts something from the staging directory beside the thing whose name it had, under a name of its own.
    pub(crate) fn keep_beside(
        &mut self,
        staging: impl AsFd,
        temporary: &[u8],
        directory: impl AsFd,
        slot: Slot,
        name: &Name,
    ) -> Result<(), StepError> {
        let (staging, directory) = (staging.as_fd(), directory.as_fd());
        for number in 0..1000 {
            let kept = disk::labelled(name, KEPT_LABEL, number);
            match disk::move_new(staging, temporary, directory, kept.as_bytes()) {
                Ok(()) => {
                    tracing::warn!(%kept, "a version that was not recorded was kept beside the file");
                    self.scan_soon(slot, Scope::Names([kept].into()));
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => {
                    return Err(StepError::Disk {
                        step: "keeping a local version",
                        source,
                    });
                }
            }
        }
        Err(StepError::Disk {
            step: "keeping a local version",
            source: io::ErrorKind::AlreadyExists.into(),
        })
    }

    /// Moves what is recorded at one place to another; the record goes along. `false`: it could not be done (now).
    pub(crate) fn move_recorded(
        &mut self,
        root: &Root,
        (from, old_name): (Slot, &Name),
        (to, handle): (Slot, &OwnedFd),
        name: &Name,
        mut record: Record,
    ) -> Result<bool, StepError> {
        let child = match record.group() {
            Some(_) => self.tree.child(from, old_name),
            None => None,
        };
        if child.is_some_and(|child| self.tree.is_inside(to, child)) {
            self.blocked.insert(to);
            return Ok(false);
        }
        let Some(old_path) = self.tree.path(from) else {
            return Ok(false);
        };
        let opened = root.directory(&old_path);
        let Ok(old_handle) = opened else {
            self.blocked.extend([from, to]);
            return Ok(false);
        };
        if record.offloaded {
            self.move_offloaded((from, &old_handle, old_name), (to, handle, name), record)?;
            return Ok(true);
        }
        if !disk::is_unchanged(&old_handle, old_name.as_bytes(), &record.fingerprint)
            .unwrap_or(false)
        {
            self.in_the_way(from, &old_handle, old_name)?;
            self.blocked.insert(to);
            return Ok(false);
        }
        self.checkpoint()?;
        match disk::move_new(&old_handle, old_name.as_bytes(), handle, name.as_bytes()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.in_the_way(to, handle, name)?;
                self.blocked.insert(from);
                return Ok(false);
            }
            Err(error) => {
                self.cannot_place(to, name, &error);
                self.blocked.insert(from);
                return Ok(false);
            }
        }
        self.checkpoint()?;
        // What was moved is what was recorded, or a later edit of it: then the scan sees it differ from the record.
        record.fingerprint = after(handle, name.as_bytes(), &record.fingerprint);
        self.put(from, old_name, None)?;
        if let Some(child) = child {
            self.tree.relocate(child, Some(to), name.clone());
            for inside in self.tree.subtree(child) {
                self.tree.set_watched(inside, false);
            }
            if to != STAGING {
                self.scan_soon(child, Scope::All { deep: true });
            }
        }
        self.put(to, name, Stored::of(record))?;
        Ok(true)
    }

    /// Takes something that is shown elsewhere now out of the way, into the staging directory.
    pub(crate) fn set_aside(
        &mut self,
        root: &Root,
        (slot, _): (Slot, &OwnedFd),
        name: &Name,
        record: Record,
    ) -> Result<bool, StepError> {
        let Ok(staging) = self.staging(root) else {
            return Ok(false);
        };
        let aside = self.temporary_name("old");
        let Ok(aside) = Name::new(aside) else {
            return Ok(false);
        };
        let moved = self.move_recorded(root, (slot, name), (STAGING, &staging), &aside, record)?;
        // Recorded before anything else comes to the place: what is in the staging directory unrecorded goes back there.
        self.flush(&[])?;
        Ok(moved)
    }

    /// Removes what is recorded at a place and no longer in the tree.
    pub(crate) fn remove_recorded(
        &mut self,
        root: &Root,
        plan: &Plan,
        slot: Slot,
        name: &Name,
        record: &Record,
    ) -> Result<(), StepError> {
        let Some(path) = self.tree.path(slot) else {
            return Ok(());
        };
        let Ok(handle) = root.directory(&path) else {
            self.blocked.insert(slot);
            return Ok(());
        };
        match record.group() {
            None => self.remove_leaf(root, slot, &handle, name, record),
            Some(_) => self.remove_directory(root, plan, slot, &handle, name, record),
        }
    }

    fn remove_leaf(
        &mut self,
        root: &Root,
        slot: Slot,
        handle: &OwnedFd,
        name: &Name,
        record: &Record,
    ) -> Result<(), StepError> {
        match disk::stat(handle, name.as_bytes()) {
            Ok(Some(stat)) if stat.fingerprint == record.fingerprint => {}
            // Gone here too.
            Ok(None) => {
                Self::forget_offloaded(handle, name, record);
                return self.put(slot, name, None);
            }
            Ok(Some(_)) => return self.in_the_way(slot, handle, name),
            Err(error) => {
                self.cannot_place(slot, name, &error);
                return Ok(());
            }
        }
        let staging = match self.staging(root) {
            Ok(staging) => staging,
            Err(error) => {
                self.cannot_place(slot, name, &error);
                return Ok(());
            }
        };
        self.checkpoint()?;
        let aside = self.temporary_name("old");
        if let Err(error) = disk::move_new(handle, name.as_bytes(), &staging, &aside) {
            self.cannot_place(slot, name, &error);
            return Ok(());
        }
        self.checkpoint()?;
        let came_out = disk::stat(&staging, &aside).ok().flatten();
        if came_out.is_some_and(|stat| stat.fingerprint.same_but_renamed(&record.fingerprint)) {
            if let Err(error) = disk::unlink(&staging, &aside) {
                tracing::debug!(%error, "a removed file stays in the staging directory until the next start");
            }
            return self.put(slot, name, None);
        }
        match disk::move_new(&staging, &aside, handle, name.as_bytes()) {
            Ok(()) => self.in_the_way(slot, handle, name),
            Err(_) => self.keep_beside(&staging, &aside, handle, slot, name),
        }
    }

    fn remove_directory(
        &mut self,
        root: &Root,
        plan: &Plan,
        slot: Slot,
        handle: &OwnedFd,
        name: &Name,
        record: &Record,
    ) -> Result<(), StepError> {
        let Some(child) = self.tree.child(slot, name) else {
            return self.put(slot, name, None);
        };
        for (inside, stored) in self.records(child)? {
            let Some(base) = stored.base else { continue };
            if base.nodes().any(|node| plan.wanted.contains(&node)) {
                self.blocked.insert(child);
                continue;
            }
            self.remove_recorded(root, plan, child, &inside, &base)?;
        }
        let unchanged =
            disk::is_unchanged(handle, name.as_bytes(), &record.fingerprint).unwrap_or(false);
        let removed = match unchanged {
            true => disk::remove_directory(handle, name.as_bytes()),
            false => Err(io::ErrorKind::NotFound.into()),
        };
        let left = !self.records(child)?.is_empty();
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound || left => {
                if left {
                    // Something inside was changed here: the scan records that, and the directory with it.
                    self.blocked.insert(slot);
                    self.scan_soon(child, Scope::All { deep: true });
                }
                // It stays for what is not synced, and is no longer part of the folder.
                let mut husk = record.clone();
                if let Shown::Directory { husk, .. } = &mut husk.shown {
                    *husk = true;
                }
                husk.pending = false;
                husk.parts.clear();
                self.tree.set_nodes(child, Vec::new());
                self.scan_soon(child, Scope::All { deep: false });
                self.put(slot, name, Stored::of(husk))
            }
            Ok(()) | Err(_) => {
                self.forget_directory(child);
                self.put(slot, name, None)
            }
        }
    }
}

/// The fingerprint after a rename, if the thing is otherwise as before; else the one from before, so that the next scan sees the
/// difference.
fn after(directory: impl AsFd, name: &[u8], before: &Fingerprint) -> Fingerprint {
    match disk::stat(directory, name) {
        Ok(Some(stat)) if stat.fingerprint.same_but_renamed(before) => stat.fingerprint,
        // A directory's time and size move with what is in it.
        Ok(Some(stat))
            if stat.fingerprint.identity == before.identity
                && stat.fingerprint.kind == crate::fingerprint::Kind::Directory =>
        {
            stat.fingerprint
        }
        _ => *before,
    }
}
