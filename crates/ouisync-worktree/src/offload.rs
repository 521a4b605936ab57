//! Offloading: a file's plain copy is dropped, a placeholder of another name stays, and the record says that this was meant.
//!
//! The placeholder is a small text under the file's name with [`SUFFIX`] behind it, so that no program takes it for the content. It is
//! never synced; one that is missing is written again and means nothing. Whether the content stays in this device's sealed store is not
//! decided here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    sync::Mutex,
};

use ouisync_model::{id::NodeId, name::Name, operation::Value, tree::entry::Entry};
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
/// Files whose records are made durable together before their copies go.
const BATCH: usize = 256;

/// What to do with a file, or with all files in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// Drop the plain copies.
    Offload,
    /// Bring them back.
    Fetch,
}

/// Names from the top of the directory on.
pub type FilePath = Vec<Name>;

/// A recorded file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Where it is.
    pub path: FilePath,
    /// The folder's directory that it is in, and its name there.
    pub directory: NodeId,
    /// See [`directory`](Self::directory).
    pub name: Name,
    /// Its bytes.
    pub size: u64,
    /// Its plain copy was dropped.
    pub offloaded: bool,
}

/// The files that an order is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Those at or below the path.
    pub below: Vec<ListedFile>,
    /// Those elsewhere whose plain copies were dropped.
    pub offloaded: Vec<ListedFile>,
    /// Nothing is recorded at the path.
    pub unknown: bool,
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
    /// All files that stay as they are although the order is about them.
    pub kept: BTreeSet<FilePath>,
    /// Nothing is recorded at the path.
    pub unknown: bool,
}

/// Hears of the bytes done and of all; `false` ends the work.
pub type CopiesProgress = Box<dyn Fn(u64, u64) -> bool + Send + Sync>;

/// An order and where its outcome is told.
pub(crate) struct Order {
    pub(crate) path: FilePath,
    pub(crate) task: Task,
}

/// What to do.
pub(crate) enum Task {
    List(Reply<Listing>),
    Set {
        copies: Copies,
        /// These are left alone.
        except: BTreeSet<FilePath>,
        progress: CopiesProgress,
        reply: Reply<OffloadOutcome>,
    },
}

/// Where an outcome, or why there is none, is told once.
pub(crate) struct Reply<T>(Mutex<Option<oneshot::Sender<Result<T, String>>>>);

impl<T> Reply<T> {
    pub(crate) fn new() -> (Self, oneshot::Receiver<Result<T, String>>) {
        let (reply, outcome) = oneshot::channel();
        (Self(Mutex::new(Some(reply))), outcome)
    }

    fn answer(&self, outcome: Result<T, String>) {
        let reply = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(reply) = reply {
            // Nobody waits any more.
            let _ = reply.send(outcome);
        }
    }

    /// Answers with the outcome of a step, whose error is the step's as well.
    fn report(&self, outcome: Result<T, StepError>) -> Result<(), StepError> {
        match outcome {
            Ok(value) => {
                self.answer(Ok(value));
                Ok(())
            }
            Err(error) => {
                self.answer(Err(error.to_string()));
                Err(error)
            }
        }
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Order")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Orders are as different as their askers.
impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Order {}

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
        match &order.task {
            Task::List(reply) => {
                let listing = self.list_copies(&order.path);
                reply.report(listing)
            }
            Task::Set { reply, .. } if self.brake.holds() => {
                reply.answer(Err("a burst of changes is held back first".to_owned()));
                Ok(())
            }
            Task::Set {
                copies,
                except,
                progress,
                reply,
            } => {
                let outcome = self.handle_copies(root, &order.path, *copies, except, progress);
                reply.report(outcome)
            }
        }
    }

    fn list_copies(&self, path: &[Name]) -> Result<Listing, StepError> {
        let mut listing = Listing::default();
        let (mut below, mut all) = (Vec::new(), Vec::new());
        match self.find(path)? {
            Some(Place::Directory(slot)) => self.files_below(slot, &mut below)?,
            Some(Place::File(slot, name)) => below.push((slot, name)),
            None => listing.unknown = true,
        }
        self.files_below(crate::directories::ROOT, &mut all)?;
        let chosen: BTreeSet<(Slot, Name)> = below.into_iter().collect();
        for (slot, name) in all {
            let record = self.stored(slot, &name)?.and_then(|stored| stored.base);
            let (Some(record), Some(directory)) = (record, self.tree_node(slot)) else {
                continue;
            };
            let Some(content) = record.content() else {
                continue;
            };
            let file = ListedFile {
                path: self.path_of(slot, &name),
                directory,
                name: name.clone(),
                size: content.size,
                offloaded: record.offloaded,
            };
            if chosen.contains(&(slot, name)) {
                listing.below.push(file);
            } else if file.offloaded {
                listing.offloaded.push(file);
            }
        }
        Ok(listing)
    }

    fn handle_copies(
        &mut self,
        root: &Root,
        path: &[Name],
        copies: Copies,
        except: &BTreeSet<FilePath>,
        progress: &CopiesProgress,
    ) -> Result<OffloadOutcome, StepError> {
        let mut outcome = OffloadOutcome::default();
        let mut found = Vec::new();
        match self.find(path)? {
            Some(Place::Directory(slot)) => self.files_below(slot, &mut found)?,
            Some(Place::File(slot, name)) => found.push((slot, name)),
            None => outcome.unknown = true,
        }
        let (mut files, mut total) = (Vec::new(), 0);
        for (slot, name) in found {
            let record = self.stored(slot, &name)?.and_then(|stored| stored.base);
            let size = record
                .as_ref()
                .and_then(|record| Some(record.content()?.size));
            let (Some(record), Some(size)) = (record, size) else {
                continue;
            };
            let done = record.offloaded == (copies == Copies::Offload);
            if done || except.contains(&self.path_of(slot, &name)) {
                continue;
            }
            total += size;
            files.push(Copy {
                slot,
                name,
                record,
                size,
            });
        }
        let (mut seen, mut wanted) = (0, true);
        for batch in files.chunks(BATCH) {
            if self.control.stopping() {
                return Err(StepError::Stopping);
            }
            wanted = wanted && progress(seen, total);
            if !wanted {
                let left = batch.iter().map(|file| self.path_of(file.slot, &file.name));
                outcome.kept.extend(left);
                continue;
            }
            match copies {
                Copies::Offload => self.offload_batch(root, batch, &mut outcome)?,
                Copies::Fetch => {
                    for file in batch {
                        let why = self.fetch_one(root, file.slot, &file.name)?;
                        self.note_copy(file, why, &mut outcome);
                    }
                }
            }
            seen += batch.iter().map(|file| file.size).sum::<u64>();
        }
        self.flush(&[])?;
        Ok(outcome)
    }

    fn path_of(&self, slot: Slot, name: &Name) -> FilePath {
        let mut path = self.tree.path(slot).unwrap_or_default();
        path.push(name.clone());
        path
    }

    fn note_copy(&self, file: &Copy, why: Option<String>, outcome: &mut OffloadOutcome) {
        let Some(why) = why else {
            outcome.files += 1;
            outcome.bytes += file.size;
            return;
        };
        let path = self.path_of(file.slot, &file.name);
        if outcome.skipped.len() < SKIPPED {
            outcome.skipped.push((disk::shown_path(&path), why));
        }
        outcome.kept.insert(path);
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

    /// Drops plain copies, or tells why not.
    fn offload_batch(
        &mut self,
        root: &Root,
        batch: &[Copy],
        outcome: &mut OffloadOutcome,
    ) -> Result<(), StepError> {
        let (mut handles, mut going) = (BTreeMap::new(), Vec::new());
        for file in batch {
            match self.begin_offload(root, &mut handles, file)? {
                None => going.push(file),
                why => self.note_copy(file, why, outcome),
            }
        }
        // Recorded before they go, so that their absence is never taken for a deletion.
        self.flush(&[])?;
        self.wait_durable()?;
        self.checkpoint()?;
        for file in going {
            let Copy {
                slot, name, record, ..
            } = file;
            let Some(handle) = handles.get(slot) else {
                continue;
            };
            let why = if self.drop_copy(root, (*slot, handle), name, record)? {
                None
            } else {
                self.put(*slot, name, Stored::of(record.clone()))?;
                let _ = remove_placeholder(handle, name);
                self.queue_later(*slot, name.clone(), self.options.debounce);
                Some("it was changed at this moment".to_owned())
            };
            self.note_copy(file, why, outcome);
        }
        Ok(())
    }

    /// Writes the placeholder of a file and records that its copy is to go; tells why not.
    fn begin_offload(
        &mut self,
        root: &Root,
        handles: &mut BTreeMap<Slot, OwnedFd>,
        file: &Copy,
    ) -> Result<Option<String>, StepError> {
        let Copy {
            slot, name, record, ..
        } = file;
        let skip = |why: &str| Ok(Some(why.to_owned()));
        if placeholder(name).is_none() {
            return skip("its name is too long for a placeholder");
        }
        let entry = match self.tree_node(*slot) {
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
        if !handles.contains_key(slot) {
            let path = self.tree.path(*slot).ok_or(StepError::Record)?;
            let Ok(handle) = root.directory(&path) else {
                return skip("its directory can't be opened");
            };
            handles.insert(*slot, handle);
        }
        let Some(handle) = handles.get(slot) else {
            return skip("its directory can't be opened");
        };
        let unchanged = disk::is_unchanged(handle, name.as_bytes(), &record.fingerprint);
        if !unchanged.unwrap_or(false) {
            return skip("it was changed and is not recorded yet");
        }
        if let Err(error) = write_placeholder(handle, name, content.size) {
            return Ok(Some(format!("its placeholder can't be written ({error})")));
        }
        let offloaded = Record {
            offloaded: true,
            ..record.clone()
        };
        self.put(*slot, name, Stored::of(offloaded))?;
        Ok(None)
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

/// A file that an order is about.
struct Copy {
    slot: Slot,
    name: Name,
    record: Record,
    size: u64,
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
