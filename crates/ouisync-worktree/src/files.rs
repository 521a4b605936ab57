//! Bringing the content of files: which wait for packs, which are large and come in slices, which fail.

use std::io;

use ouisync_engine::error::EngineError;
use ouisync_model::{name::Name, operation::Value, tree::entry::Entry};

use crate::{
    apply::Plan,
    content::{Beginning, Transfer, TransferError},
    directories::Slot,
    disk::{self, Root},
    error::StepError,
    problems::{Pass, Weight, advice},
    record::{Record, Shown, outline},
    runner::Runner,
};

/// Files from this size on come after all others, one at a time, in slices.
pub(crate) const LARGE: u64 = 16 << 20;
/// Bytes of a large file written before other work gets its turn.
const SLICE: u64 = 64 << 20;
/// Bytes staged before they are put in place.
const BATCH_BYTES: u64 = 32 << 20;

impl Runner {
    /// Brings a file's content into the staging directory, now or when it is here or its turn comes.
    pub(crate) fn stage(
        &mut self,
        root: &Root,
        plan: &mut Plan,
        slot: Slot,
        entry: Entry,
        replaced: Option<Record>,
        large: bool,
    ) -> Result<(), StepError> {
        let name = entry.name.clone();
        if let Value::File(content) = &entry.value {
            if let Some(pack) = self.view.missing_packs(content)?.first() {
                self.waiting.entry(*pack).or_default().push((slot, name));
                return Ok(());
            }
            if content.size >= LARGE && !large {
                self.large.insert((content.size, slot, name));
                return Ok(());
            }
        }
        match self.begin_transfer(root, plan, slot, entry, replaced) {
            Ok(mut transfer) if large => {
                transfer.advance(0).ok();
                self.transfer = Some(transfer);
            }
            Ok(mut transfer) => match transfer.advance(u64::MAX).and_then(|_| transfer.finish()) {
                Ok(staged) => {
                    plan.staged_bytes += staged.record.fingerprint.size;
                    plan.staged.push(staged);
                    if plan.staged.len() >= self.options.batch_files
                        || plan.staged_bytes >= BATCH_BYTES
                    {
                        self.place_staged(root, plan)?;
                    }
                }
                Err(error) => {
                    self.remove_temporary(root, transfer.temporary());
                    self.cannot_transfer(slot, &name, error)?;
                }
            },
            Err(error) => self.cannot_transfer(slot, &name, error)?,
        }
        Ok(())
    }

    /// Goes on with large files: one slice.
    pub(crate) fn apply_large(&mut self, root: &Root) -> Result<(), StepError> {
        if self.transfer.is_none()
            && let Some((_, slot, name)) = self.large.pop_first()
        {
            let mut plan = Plan::default();
            self.apply_single(root, &mut plan, slot, &name, true)?;
            self.finish_plan(root, plan, &[])?;
        }
        let Some(mut transfer) = self.transfer.take() else {
            return Ok(());
        };
        match transfer.advance(SLICE) {
            Ok(false) => self.transfer = Some(transfer),
            Ok(true) => {
                let (slot, name) = transfer.place();
                let node = self.tree_node(slot);
                let entry = node
                    .map(|node| self.view.entry(node, &name))
                    .transpose()?
                    .flatten();
                let base = self.stored(slot, &name)?.and_then(|stored| stored.base);
                if entry.is_none_or(|entry| !transfer.still_fits(&entry))
                    || base.as_ref() != transfer.replaced()
                {
                    // The tree or the disk went on meanwhile.
                    self.remove_temporary(root, transfer.temporary());
                    self.behind.entry(slot).or_default();
                    return Ok(());
                }
                match transfer.finish() {
                    Ok(staged) => {
                        let mut plan = Plan::default();
                        plan.staged.push(staged);
                        self.place_staged(root, &mut plan)?;
                        self.flush(&[])?;
                    }
                    Err(error) => {
                        self.remove_temporary(root, transfer.temporary());
                        self.cannot_transfer(slot, &name, error)?;
                    }
                }
            }
            Err(error) => {
                let (slot, name) = transfer.place();
                self.remove_temporary(root, transfer.temporary());
                self.cannot_transfer(slot, &name, error)?;
            }
        }
        Ok(())
    }

    /// Gives up large files that are being written; what is in the tree is begun again later.
    pub(crate) fn discard_transfer(&mut self) {
        self.discard_drafts();
        if let Some(transfer) = self.transfer.take() {
            let (slot, _) = transfer.place();
            if let Ok(root) = Root::open(&self.path) {
                self.remove_temporary(&root, transfer.temporary());
            }
            self.behind.entry(slot).or_default();
        }
    }

    pub(crate) fn remove_temporary(&self, root: &Root, name: &[u8]) {
        if let Ok(staging) = self.existing_staging(root) {
            // What stays is removed at the next attaching.
            let _ = disk::unlink(&staging, name);
        }
    }

    fn cannot_transfer(
        &mut self,
        slot: Slot,
        name: &Name,
        error: TransferError,
    ) -> Result<(), StepError> {
        match error {
            TransferError::Engine(
                error @ (EngineError::Stopping | EngineError::Locked | EngineError::Removed),
            ) => {
                return Err(error.into());
            }
            TransferError::Engine(error) => {
                self.blocked.insert(slot);
                let message = format!(
                    "The folder's version can't be read ({error}); what is here stays. {}",
                    error.hint()
                );
                self.apply_problem(slot, name, message, Weight::HoldsUp);
            }
            TransferError::Disk(error) => self.cannot_place(slot, name, &error),
            TransferError::Changed => {
                self.blocked.insert(slot);
                self.queue_later(slot, name.clone(), self.options.debounce);
            }
        }
        Ok(())
    }

    pub(crate) fn cannot_place(&mut self, slot: Slot, name: &Name, error: &io::Error) {
        self.blocked.insert(slot);
        let message = format!(
            "The folder's version can't be written here ({error}); what is here stays. {}",
            advice(error)
        );
        self.apply_problem(slot, name, message, Weight::of(Pass::Apply, error));
    }

    fn begin_transfer(
        &mut self,
        root: &Root,
        plan: &mut Plan,
        slot: Slot,
        entry: Entry,
        replaced: Option<Record>,
    ) -> Result<Transfer, TransferError> {
        let staging = match plan.staging.take() {
            Some(staging) => staging,
            None => self.staging(root).map_err(TransferError::Disk)?,
        };
        let fresh = self.temporary_name("new");
        let old = match &replaced {
            Some(record) => self.old_version(root, slot, &entry.name, record),
            None => None,
        };
        let beginning = Beginning {
            slot,
            entry,
            replaced,
            old,
        };
        let begun = Transfer::begin(&self.view, &staging, fresh, beginning, &mut self.drafts);
        plan.staging = Some(staging);
        begun
    }

    fn old_version(
        &self,
        root: &Root,
        slot: Slot,
        name: &Name,
        record: &Record,
    ) -> Option<std::fs::File> {
        if record.content()?.size < LARGE / 16 {
            return None;
        }
        let handle = root.directory(&self.tree.path(slot)?).ok()?;
        let file = disk::open_file(&handle, name.as_bytes()).ok()?;
        let stat = disk::stat_handle(&file).ok()?;
        (stat.fingerprint == record.fingerprint).then_some(file)
    }
}

/// The record of a file that was brought into the staging directory.
pub(crate) fn record_of(
    entry: &Entry,
    fingerprint: crate::fingerprint::Fingerprint,
) -> Option<Record> {
    match &entry.value {
        Value::File(content) => Some(Record::of(
            entry,
            Shown::File(outline(content)),
            fingerprint,
        )),
        Value::Symlink(target) => Some(Record::of(
            entry,
            Shown::Symlink(target.clone()),
            fingerprint,
        )),
        _ => None,
    }
}
