//! Offloading: a file's plain copy is dropped, a placeholder of another name stays, and the record says that this was meant.
//!
//! The placeholder is a small text under the file's name with [`SUFFIX`] behind it, so that no program takes it for the content. It is
//! never synced; one that is missing is written again and means nothing. The content stays in this device's sealed store.

use std::{
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    sync::Mutex,
};

use ouisync_model::{name::Name, operation::Value, tree::entry::Entry};
use tokio::sync::oneshot;

use crate::{
    directories::Slot,
    disk::{self, Root},
    error::StepError,
    record::{Record, Shown, Stored, outline},
    runner::Runner,
};

/// What the name of a placeholder ends with.
pub(crate) const SUFFIX: &[u8] = b".ouisync-offloaded";
/// At most so many skipped files are told one by one.
const SKIPPED: usize = 100;

/// What to do with a file, or with all files in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// Drop the plain copies.
    Offload,
    /// Bring them back.
    Fetch,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffloadOutcome {
    /// Files whose plain copy was dropped, or comes back.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that stay as they are, and why; the first of them.
    pub skipped: Vec<(String, String)>,
    /// Nothing is recorded at the path.
    pub unknown: bool,
}

/// An order and where its outcome is told.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) path: Vec<Name>,
    pub(crate) copies: Copies,
    pub(crate) reply: Mutex<Option<oneshot::Sender<Result<OffloadOutcome, String>>>>,
}

/// Orders are as different as their askers.
impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Order {}

impl Order {
    fn answer(&self, outcome: Result<OffloadOutcome, String>) {
        let reply = self
            .reply
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(reply) = reply {
            // Nobody waits any more.
            let _ = reply.send(outcome);
        }
    }
}

/// Where the placeholder of a file is; `None` if its name would be too long.
fn placeholder(name: &Name) -> Option<Name> {
    Name::new([name.as_bytes(), SUFFIX].concat()).ok()
}

/// Whether a name is a placeholder's.
pub(crate) fn is_placeholder(name: &[u8]) -> bool {
    name.ends_with(SUFFIX)
}

fn write_placeholder(directory: impl AsFd, name: &Name, size: u64) -> io::Result<()> {
    let directory = directory.as_fd();
    let at = placeholder(name).ok_or(io::ErrorKind::InvalidFilename)?;
    remove_placeholder(directory, name)?;
    let mut file = disk::create_file(directory, at.as_bytes(), false)?;
    let shown = String::from_utf8_lossy(name.as_bytes()).into_owned();
    writeln!(
        file,
        "The file '{shown}' ({size} bytes) is in the folder and offloaded on this device.\n\
         To have it here again: ouisync fetch '{shown}'\n\
         This note is not the file and is not synced."
    )
}

fn remove_placeholder(directory: impl AsFd, name: &Name) -> io::Result<()> {
    let Some(at) = placeholder(name) else {
        return Ok(());
    };
    match disk::unlink(directory, at.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Runner {
    /// Carries an order out and answers it.
    pub(crate) fn carry_out(&mut self, root: &Root, order: &Order) -> Result<(), StepError> {
        if self.brake.holds() {
            order.answer(Err("a burst of changes is held back first".to_owned()));
            return Ok(());
        }
        let outcome = self.handle_copies(root, order);
        match outcome {
            Ok(outcome) => {
                order.answer(Ok(outcome));
                Ok(())
            }
            Err(error) => {
                order.answer(Err(error.to_string()));
                Err(error)
            }
        }
    }

    fn handle_copies(&mut self, root: &Root, order: &Order) -> Result<OffloadOutcome, StepError> {
        let mut outcome = OffloadOutcome::default();
        let mut files = Vec::new();
        match self.find(&order.path)? {
            Some(Place::Directory(slot)) => self.files_below(slot, &mut files)?,
            Some(Place::File(slot, name)) => files.push((slot, name)),
            None => outcome.unknown = true,
        }
        for (slot, name) in files {
            if self.control.stopping() {
                return Err(StepError::Stopping);
            }
            let Some(record) = self.stored(slot, &name)?.and_then(|stored| stored.base) else {
                continue;
            };
            let Some(content) = record.content() else {
                continue;
            };
            let size = content.size;
            let wanted = order.copies == Copies::Offload;
            if record.offloaded == wanted {
                continue;
            }
            let done = match order.copies {
                Copies::Offload => self.offload_one(root, slot, &name, record)?,
                Copies::Fetch => self.fetch_one(root, slot, &name)?,
            };
            match done {
                None => {
                    outcome.files += 1;
                    outcome.bytes += size;
                }
                Some(why) => {
                    let mut path = self.tree.path(slot).unwrap_or_default();
                    path.push(name);
                    if outcome.skipped.len() < SKIPPED {
                        outcome.skipped.push((disk::shown_path(&path), why));
                    }
                }
            }
        }
        self.flush(&[])?;
        Ok(outcome)
    }

    fn find(&self, path: &[Name]) -> Result<Option<Place>, StepError> {
        let Some((last, above)) = path.split_last() else {
            return Ok(Some(Place::Directory(crate::directories::ROOT)));
        };
        let mut slot = crate::directories::ROOT;
        for name in above {
            match self.tree.child(slot, name) {
                Some(child) => slot = child,
                None => return Ok(None),
            }
        }
        if let Some(child) = self.tree.child(slot, last) {
            return Ok(Some(Place::Directory(child)));
        }
        let known = self
            .stored(slot, last)?
            .is_some_and(|stored| stored.base.is_some());
        Ok(known.then(|| Place::File(slot, last.clone())))
    }

    fn files_below(&self, slot: Slot, files: &mut Vec<(Slot, Name)>) -> Result<(), StepError> {
        for inside in self.tree.subtree(slot) {
            for (name, stored) in self.records(inside)? {
                if stored.base.is_some_and(|base| base.content().is_some()) {
                    files.push((inside, name));
                }
            }
        }
        Ok(())
    }

    /// Drops one plain copy; tells why not.
    fn offload_one(
        &mut self,
        root: &Root,
        slot: Slot,
        name: &Name,
        mut record: Record,
    ) -> Result<Option<String>, StepError> {
        let skip = |why: &str| Ok(Some(why.to_owned()));
        if placeholder(name).is_none() {
            return skip("its name is too long for a placeholder");
        }
        let entry = match self.tree_node(slot) {
            Some(node) => self.view.entry(node, name)?,
            None => None,
        };
        let content = match entry.map(|entry| (record.same_value(&entry.value), entry.value)) {
            Some((true, Value::File(content))) => content,
            _ => return skip("it is not in step with the folder now"),
        };
        if !self.view.missing_packs(&content)?.is_empty() {
            return skip("the folder's version of it is not on this device yet");
        }
        let path = self.tree.path(slot).ok_or(StepError::Record)?;
        let Ok(handle) = root.directory(&path) else {
            return skip("its directory can't be opened");
        };
        let unchanged = disk::is_unchanged(&handle, name.as_bytes(), &record.fingerprint);
        if !unchanged.unwrap_or(false) {
            return skip("it was changed and is not recorded yet");
        }
        if let Err(error) = write_placeholder(&handle, name, content.size) {
            return Ok(Some(format!("its placeholder can't be written ({error})")));
        }
        let before = record.clone();
        record.offloaded = true;
        self.put(slot, name, Stored::of(record))?;
        // Recorded before it goes, so that its absence is never taken for a deletion.
        self.flush(&[])?;
        self.wait_durable()?;
        self.checkpoint()?;
        if self.drop_copy(root, (slot, &handle), name, &before)? {
            return Ok(None);
        }
        self.put(slot, name, Stored::of(before))?;
        let _ = remove_placeholder(&handle, name);
        self.queue_later(slot, name.clone(), self.options.debounce);
        skip("it was changed at this moment")
    }

    /// Removes a file if it still is what is recorded.
    fn drop_copy(
        &mut self,
        root: &Root,
        (slot, handle): (Slot, &OwnedFd),
        name: &Name,
        record: &Record,
    ) -> Result<bool, StepError> {
        let staging = self.staging(root).map_err(|source| StepError::Disk {
            step: "opening the staging directory",
            source,
        })?;
        let aside = self.temporary_name("old");
        if disk::move_new(handle, name.as_bytes(), &staging, &aside).is_err() {
            return Ok(false);
        }
        self.checkpoint()?;
        let came_out = disk::stat(&staging, &aside).ok().flatten();
        if came_out.is_some_and(|stat| stat.fingerprint.same_but_renamed(&record.fingerprint)) {
            return Ok(disk::unlink(&staging, &aside).is_ok());
        }
        if disk::move_new(&staging, &aside, handle, name.as_bytes()).is_err() {
            self.keep_beside(&staging, &aside, handle, slot, name)?;
        }
        Ok(false)
    }

    /// Has one file placed again.
    fn fetch_one(
        &mut self,
        root: &Root,
        slot: Slot,
        name: &Name,
    ) -> Result<Option<String>, StepError> {
        let path = self.tree.path(slot).ok_or(StepError::Record)?;
        let handle = match root.directory(&path) {
            Ok(handle) => handle,
            Err(error) => return Ok(Some(format!("its directory can't be opened ({error})"))),
        };
        // A file of the name that is there now is a person's, and meets the folder's as any other.
        self.put(slot, name, None)?;
        self.flush(&[])?;
        let _ = remove_placeholder(&handle, name);
        self.behind.entry(slot).or_default();
        Ok(None)
    }

    /// What a scan does about the place of an offloaded file. `true`: nothing more.
    pub(crate) fn is_still_offloaded(
        &mut self,
        (slot, handle): (Slot, &OwnedFd),
        name: &Name,
        record: &mut Record,
        found: Option<&crate::fingerprint::Fingerprint>,
    ) -> Result<bool, StepError> {
        if !record.offloaded {
            return Ok(false);
        }
        if found.is_none() {
            let there = placeholder(name)
                .is_some_and(|at| matches!(disk::stat(handle, at.as_bytes()), Ok(Some(_))));
            if !there {
                let size = record.content().map_or(0, |content| content.size);
                // Without it the file is as safe; the next scan tries again.
                let _ = write_placeholder(handle, name, size);
            }
            return Ok(true);
        }
        // The program ended before the copy went, or somebody saved a file of that name.
        record.offloaded = false;
        self.put(slot, name, Stored::of(record.clone()))?;
        let _ = remove_placeholder(handle, name);
        Ok(false)
    }

    /// The folder has another version of an offloaded file: it stays offloaded.
    pub(crate) fn follow_offloaded(
        &mut self,
        (slot, handle): (Slot, &OwnedFd),
        entry: &Entry,
        mut record: Record,
    ) -> Result<(), StepError> {
        let Value::File(content) = &entry.value else {
            let _ = remove_placeholder(handle, &entry.name);
            self.behind.entry(slot).or_default();
            return self.put(slot, &entry.name, None);
        };
        let before = record.clone();
        record.follow(entry);
        record.shown = Shown::File(outline(content));
        record.metadata = entry.metadata;
        if !before.same_value(&entry.value) {
            let _ = write_placeholder(handle, &entry.name, content.size);
        }
        if record == before {
            return Ok(());
        }
        self.put(slot, &entry.name, Stored::of(record))
    }

    /// An offloaded file got another place: its placeholder goes along.
    pub(crate) fn move_offloaded(
        &mut self,
        (from, old_handle, old_name): (Slot, &OwnedFd, &Name),
        (to, handle, name): (Slot, &OwnedFd, &Name),
        record: Record,
    ) -> Result<(), StepError> {
        let size = record.content().map_or(0, |content| content.size);
        let _ = write_placeholder(handle, name, size);
        let _ = remove_placeholder(old_handle, old_name);
        self.put(from, old_name, None)?;
        self.put(to, name, Stored::of(record))
    }

    /// An offloaded file is no longer in the folder.
    pub(crate) fn forget_offloaded(handle: &OwnedFd, name: &Name, record: &Record) {
        if record.offloaded {
            let _ = remove_placeholder(handle, name);
        }
    }
}

/// Something recorded.
enum Place {
    Directory(Slot),
    File(Slot, Name),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_named_after_their_files() {
        let name = Name::new(*b"photo.jpg").unwrap();
        let at = placeholder(&name).unwrap();
        assert_eq!(at.as_bytes(), b"photo.jpg.ouisync-offloaded");
        assert!(is_placeholder(at.as_bytes()) && !is_placeholder(name.as_bytes()));
        assert_eq!(placeholder(&Name::new(vec![b'x'; 250]).unwrap()), None);
    }
}
