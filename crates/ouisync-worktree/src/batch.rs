//! Putting a batch of staged files in place: intents first, then the renames; the records follow when all is durable.

use std::{collections::HashMap, io, os::fd::OwnedFd, rc::Rc};

use ouisync_model::name::Name;

use crate::{
    apply::Plan,
    directories::{Directories, Slot},
    disk::{self, Root},
    error::StepError,
    place::{Outcome, Staged},
    record::{Intent, Record, Stored},
    runner::Runner,
};

/// Directories kept open during a pass.
const OPEN: usize = 64;

/// Directories that a pass has open.
#[derive(Default)]
pub(crate) struct Handles {
    open: HashMap<Slot, Rc<OwnedFd>>,
}

impl Handles {
    /// A directory may be replaced on disk meanwhile; then what is done in it is done in the old one.
    pub(crate) fn get(
        &mut self,
        root: &Root,
        tree: &Directories,
        slot: Slot,
    ) -> io::Result<Rc<OwnedFd>> {
        if let Some(handle) = self.open.get(&slot) {
            return Ok(handle.clone());
        }
        let path = tree.path(slot).ok_or(io::ErrorKind::NotFound)?;
        let handle = Rc::new(root.directory(&path)?);
        if self.open.len() >= OPEN {
            self.open.clear();
        }
        self.open.insert(slot, handle.clone());
        Ok(handle)
    }
}

impl Runner {
    /// Puts everything that is staged in place; it is recorded when it is durable.
    pub(crate) fn place_staged(&mut self, root: &Root, plan: &mut Plan) -> Result<(), StepError> {
        let staged = std::mem::take(&mut plan.staged);
        plan.staged_bytes = 0;
        if staged.is_empty() {
            return Ok(());
        }
        let mut before = Vec::with_capacity(staged.len());
        for one in &staged {
            let old = self.stored(one.slot, &one.name)?;
            let intent = Stored {
                base: old.as_ref().and_then(|old| old.base.clone()),
                intent: Some(Intent {
                    staged: one.temporary.clone(),
                    record: one.record.clone(),
                }),
            };
            self.write(one.slot, &one.name, Some(intent));
            before.push(old);
        }
        self.checkpoint()?;
        self.flush(&[])?;
        self.checkpoint()?;
        let staging = self.staging(root).map_err(|source| StepError::Disk {
            step: "opening the staging directory",
            source,
        })?;
        for (one, old) in staged.into_iter().zip(before) {
            self.checkpoint()?;
            let handle = plan.handles.get(root, &self.tree, one.slot);
            let placed = match &handle {
                Ok(directory) => self.place_one(&staging, directory, &one)?,
                Err(error) => Err(error.kind().into()),
            };
            match placed {
                Ok(Outcome::Done(fingerprint)) => {
                    self.is_ours(one.slot, &one.name, fingerprint);
                    let base = Record {
                        fingerprint,
                        ..one.record
                    };
                    let stored = Stored::settled(base);
                    self.record_when_durable(root, one.slot, &one.name, old.as_ref(), stored)?;
                    continue;
                }
                Ok(Outcome::InTheWay) => {
                    let _ = disk::unlink(&staging, &one.temporary);
                    self.take_back_intent(&one, old);
                    if let Ok(directory) = &handle {
                        self.in_the_way(one.slot, directory, &one.name)?;
                    }
                }
                Err(error) => {
                    let _ = disk::unlink(&staging, &one.temporary);
                    self.take_back_intent(&one, old);
                    self.cannot_place(one.slot, &one.name, &error);
                }
            }
        }
        self.sync_placed()
    }

    fn take_back_intent(&mut self, one: &Staged, old: Option<Stored>) {
        let base = old.and_then(|old| old.base);
        let stored = base.map(|base| Stored {
            base: Some(base),
            intent: None,
        });
        self.write(one.slot, &one.name, stored);
    }

    /// Sets what is recorded at a place without a change of what is based there.
    fn write(&mut self, slot: Slot, name: &Name, stored: Option<Stored>) {
        if let Some(directory) = self.tree.get(slot) {
            let key = crate::record::key(directory.group, name.as_bytes());
            self.writes.insert(key, stored);
        }
    }
}
