//! What a crash left behind: files in the staging directory, and places whose intent says that a file of ours was on its way.

use std::{collections::HashMap, io, os::fd::OwnedFd};

use ouisync_model::name::Name;

use crate::{
    directories::{ROOT, STAGING, Slot},
    disk::{self, Root},
    error::StepError,
    fingerprint::{Kind, Stat},
    place::KEPT_LABEL,
    record::{Intent, Record, Stored},
    runner::Runner,
    scan::{Reading, Scope},
};

/// What is known of a place whose file went through the staging directory.
struct Passing {
    slot: Slot,
    name: Name,
    stored: Stored,
}

/// What becomes of a place with an intent.
pub(crate) enum Settled {
    /// Compare the disk with this.
    Base(Option<Box<Record>>),
    /// Look again later.
    Later,
}

impl Runner {
    /// Empties the staging directory but for what is recorded there. What is not known to be in the folder is kept.
    pub(crate) fn clear_staging(&mut self) -> Result<(), StepError> {
        let Ok(root) = Root::open(&self.path) else {
            return Ok(());
        };
        let Ok(staging) = self.existing_staging(&root) else {
            return Ok(());
        };
        let Ok(names) = disk::names(&staging) else {
            return Ok(());
        };
        if names.is_empty() {
            return Ok(());
        }
        let mut intents = HashMap::new();
        for slot in self.tree.all().collect::<Vec<_>>() {
            for (name, stored) in self.records(slot)? {
                if let Some(intent) = &stored.intent {
                    intents.insert(intent.staged.clone(), Passing { slot, name, stored });
                }
            }
        }
        for name in names {
            if self.stored(STAGING, &name)?.is_some() {
                continue;
            }
            let Ok(Some(stat)) = disk::stat(&staging, name.as_bytes()) else {
                continue;
            };
            let passing = intents.get(name.as_bytes());
            if crate::offload::is_placeholder(name.as_bytes()) {
                let _ = disk::unlink(&staging, name.as_bytes());
                continue;
            }
            if self.put_back_recorded(&root, &staging, &name, &stat)? {
                continue;
            }
            if is_expendable(&name, &stat, passing) {
                let _ = disk::unlink(&staging, name.as_bytes());
                continue;
            }
            let (slot, kept) = match passing {
                Some(passing) => (passing.slot, passing.name.clone()),
                None => (ROOT, Name::new(*b"file").map_err(|_| StepError::Record)?),
            };
            let opened = self
                .tree
                .path(slot)
                .and_then(|path| root.directory(&path).ok());
            let (slot, directory) = match opened {
                Some(directory) => (slot, directory),
                None => match root.directory(&[]) {
                    Ok(directory) => (ROOT, directory),
                    Err(_) => continue,
                },
            };
            self.keep_beside(&staging, name.as_bytes(), directory, slot, &kept)?;
        }
        Ok(())
    }

    /// Something recorded was on its way out of its place: back to it, as else its absence would look like a person's deletion.
    fn put_back_recorded(
        &mut self,
        root: &Root,
        staging: &OwnedFd,
        name: &Name,
        stat: &Stat,
    ) -> Result<bool, StepError> {
        let found = &stat.fingerprint;
        for slot in self.tree.with_inode(&found.identity) {
            for (place, stored) in self.records(slot)? {
                let Some(base) = &stored.base else { continue };
                let directory = base.group().is_some() && found.kind == Kind::Directory;
                let same = base.fingerprint.identity == found.identity
                    && (directory || base.fingerprint.same_but_renamed(found));
                let opened = self.tree.path(slot).map(|path| root.directory(&path));
                let (true, Some(Ok(handle))) = (same, opened) else {
                    continue;
                };
                match disk::move_new(staging, name.as_bytes(), &handle, place.as_bytes()) {
                    Ok(()) => {
                        let mut stored = stored.clone();
                        if let (Some(base), Ok(Some(now))) =
                            (&mut stored.base, disk::stat(&handle, place.as_bytes()))
                        {
                            base.fingerprint = now.fingerprint;
                        }
                        self.put(slot, &place, Some(stored))?;
                        return Ok(true);
                    }
                    // Something is there again; what is recorded needs no second copy.
                    Err(_) if !directory && disk::unlink(staging, name.as_bytes()).is_ok() => {
                        return Ok(true);
                    }
                    Err(_) => {}
                }
            }
        }
        Ok(false)
    }

    /// Decides about a place where a file of ours was to be put when the program ended.
    pub(crate) fn settle_intent(
        &mut self,
        (slot, handle): (Slot, &OwnedFd),
        name: &Name,
        base: Option<Record>,
        intent: Intent,
        stat: &mut Option<Stat>,
    ) -> Result<Settled, StepError> {
        let ours =
            stat.filter(|stat| stat.fingerprint.identity == intent.record.fingerprint.identity);
        if intent.record.group().is_some() {
            return self.settle_made((slot, name), intent.record, ours.is_some());
        }
        let Some(ours) = ours else {
            // It was never put there, or a person replaced it.
            let stored = Stored {
                base: base.clone(),
                intent: None,
            };
            self.put(
                slot,
                name,
                Some(stored).filter(|stored| stored.base.is_some()),
            )?;
            self.behind.entry(slot).or_default();
            return Ok(Settled::Base(base.map(Box::new)));
        };
        let previous = intent.record.content().cloned();
        match self.read(handle, slot, name, previous.as_ref())? {
            Reading::Value(read, value) if intent.record.same_value(&value) => {
                let mut record = intent.record;
                if record.fingerprint.same_but_renamed(&read.fingerprint) {
                    record.fingerprint = read.fingerprint;
                }
                self.put(slot, name, Stored::of(record.clone()))?;
                Ok(Settled::Base(Some(Box::new(record))))
            }
            Reading::Value(..) => {
                tracing::warn!(%name, size = ours.fingerprint.size, "a file that was being written at a crash is set aside");
                self.set_beside(handle, slot, name)?;
                self.put(slot, name, None)?;
                self.behind.entry(slot).or_default();
                *stat = None;
                Ok(Settled::Base(None))
            }
            Reading::Busy => {
                self.queue_later(slot, name.clone(), self.options.debounce);
                Ok(Settled::Later)
            }
            Reading::Nothing => Ok(Settled::Later),
        }
    }

    /// Decides about a directory that was made when the program ended.
    fn settle_made(
        &mut self,
        (slot, name): (Slot, &Name),
        record: Record,
        there: bool,
    ) -> Result<Settled, StepError> {
        if there {
            let stored = Stored::settled(record.clone());
            self.put(slot, name, Some(stored))?;
            return Ok(Settled::Base(Some(Box::new(record))));
        }
        if let Some(child) = self.tree.child(slot, name) {
            for inside in self.records(child)?.into_keys() {
                self.put(child, &inside, None)?;
            }
            self.forget_directory(child);
        }
        self.put(slot, name, None)?;
        self.behind.entry(slot).or_default();
        Ok(Settled::Base(None))
    }

    /// Renames a file to a name of its own in its directory.
    fn set_beside(&mut self, handle: &OwnedFd, slot: Slot, name: &Name) -> Result<(), StepError> {
        for number in 0..1000 {
            let kept = disk::labelled(name, KEPT_LABEL, number);
            match disk::move_new(handle, name.as_bytes(), handle, kept.as_bytes()) {
                Ok(()) => {
                    self.scan_soon(slot, Scope::Names([kept].into()));
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => {
                    return Err(StepError::Disk {
                        step: "setting a torn file aside",
                        source,
                    });
                }
            }
        }
        Err(StepError::Disk {
            step: "setting a torn file aside",
            source: io::ErrorKind::AlreadyExists.into(),
        })
    }
}

/// Whether a file in the staging directory is only ours.
fn is_expendable(name: &Name, stat: &Stat, passing: Option<&Passing>) -> bool {
    match passing.and_then(|passing| passing.stored.intent.as_ref()) {
        Some(intent) => intent.record.fingerprint.identity == stat.fingerprint.identity,
        // Its intent would have been written before it could leave this directory.
        None => name.as_bytes().starts_with(b"new-"),
    }
}
