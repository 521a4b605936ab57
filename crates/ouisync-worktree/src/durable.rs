//! Waiting for the disk beside the work: what is put in place is recorded once a sync that began after it has ended.
//!
//! A thread of its own syncs and records one group of places at a time; what is placed meanwhile gathers for the next sync. Until
//! a group is recorded it is read from here, and whatever else concerns its places waits for it.

use std::{
    collections::{BTreeMap, HashSet},
    os::fd::OwnedFd,
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use ouisync_engine::view::{FolderView, RecordChange, ViewKey};
use ouisync_model::name::Name;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    directories::Slot,
    disk::Root,
    error::StepError,
    record::{self, Group, Intent, Stored},
    runner::Runner,
    watch::Notice,
    worktree::WorktreeOptions,
};

/// Places and bytes that gather at most while a sync runs.
const GATHERED_PLACES: usize = 2000;
const GATHERED_BYTES: u64 = 64 << 20;

/// Places whose things are visible and not yet known to be durable.
#[derive(Default)]
struct Placed {
    records: BTreeMap<ViewKey, Stored>,
    /// The groups of directories among them: a record in one of these would be lost without the directory's own.
    directories: HashSet<Group>,
    bytes: u64,
    /// Open on the file system to sync.
    handle: Option<OwnedFd>,
}

/// Both groups, and the thread.
#[derive(Default)]
pub(crate) struct Durability {
    syncer: Option<Syncer>,
    /// What the thread is at.
    running: Option<Arc<Placed>>,
    /// Waits for the next sync.
    gathered: Placed,
    /// Intents of directories that were made, to be written before anything is recorded.
    pub(crate) made: Vec<(ViewKey, Stored)>,
    /// The end of a sync was heard of since a result was last asked for: its notice may be taken in the middle of a step.
    pub(crate) ended: bool,
}

/// The thread that syncs and records.
struct Syncer {
    jobs: Option<mpsc::Sender<Arc<Placed>>>,
    results: mpsc::Receiver<Result<(), StepError>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    fn start(
        view: FolderView,
        options: WorktreeOptions,
        notices: UnboundedSender<Notice>,
    ) -> Result<Self, StepError> {
        let (jobs, next_job) = mpsc::channel::<Arc<Placed>>();
        let (send, results) = mpsc::channel();
        let run = move || {
            for placed in next_job {
                let ended = make_durable(&placed, &view, &options);
                if send.send(ended).is_err() || notices.send(Notice::Durable).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("ouisync-durable".to_owned())
            .spawn(run)
            .map_err(|source| StepError::Disk {
                step: "starting the thread that makes files durable",
                source,
            })?;
        Ok(Self {
            jobs: Some(jobs),
            results,
            thread: Some(thread),
        })
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that makes files durable ended by a panic");
        }
    }
}

/// One sync for the whole group; only then are the things recorded as ours.
fn make_durable(
    placed: &Placed,
    view: &FolderView,
    options: &WorktreeOptions,
) -> Result<(), StepError> {
    options.checkpoint()?;
    #[cfg(test)]
    if let Some(wait) = &options.before_sync {
        wait();
    }
    if let Some(handle) = &placed.handle {
        rustix::fs::syncfs(handle).map_err(|error| StepError::Disk {
            step: "making files durable",
            source: error.into(),
        })?;
    }
    options.checkpoint()?;
    let mut writes = Vec::with_capacity(placed.records.len());
    for (key, stored) in &placed.records {
        writes.push((key.clone(), Some(record::encode(stored)?)));
    }
    view.update(writes, &[])?;
    options.checkpoint()
}

impl Durability {
    /// Nothing waits to be recorded.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_none() && self.gathered.records.is_empty()
    }

    /// The record of a place that waits.
    pub(crate) fn get(&self, key: &ViewKey) -> Option<&Stored> {
        self.groups().find_map(|placed| placed.records.get(key))
    }

    /// The records of a directory that wait, the later ones last.
    pub(crate) fn in_group(&self, group: Group) -> impl Iterator<Item = (&ViewKey, &Stored)> {
        let older = self.running.as_deref().into_iter();
        older.chain([&self.gathered]).flat_map(move |placed| {
            let from = record::key(group, b"");
            let records = placed.records.range(from..);
            records.take_while(move |(key, _)| key.group == group)
        })
    }

    /// Whether a write may not be made before what waits is recorded.
    fn concerns(&self, key: &ViewKey, stored: Option<&Stored>) -> bool {
        let based = stored.is_some_and(|stored| stored.base.is_some());
        self.groups().any(|placed| {
            placed.records.contains_key(key) || (based && placed.directories.contains(&key.group))
        })
    }

    fn groups(&self) -> impl Iterator<Item = &Placed> {
        [&self.gathered].into_iter().chain(self.running.as_deref())
    }
}

impl Runner {
    /// Records what was just put at a place, once it is durable.
    pub(crate) fn record_when_durable(
        &mut self,
        root: &Root,
        slot: Slot,
        name: &Name,
        old: Option<&Stored>,
        stored: Stored,
    ) -> Result<(), StepError> {
        let Some(group) = self.tree.get(slot).map(|directory| directory.group) else {
            return Ok(());
        };
        let key = record::key(group, name.as_bytes());
        if self.writes.contains_key(&key) {
            self.flush(&[])?;
        }
        if let Some(base) = old.and_then(|old| old.base.as_ref()) {
            self.tree.forget(slot, base);
        }
        let gathered = &mut self.durable.gathered;
        if let Some(base) = &stored.base {
            self.tree.note(slot, base);
            gathered.directories.extend(base.group());
            gathered.bytes += base.fingerprint.size;
        }
        if gathered.handle.is_none() {
            let handle = root.directory(&[]).map_err(|source| StepError::Disk {
                step: "opening the directory",
                source,
            })?;
            gathered.handle = Some(handle);
        }
        if let Some(record) = stored.base.as_ref().filter(|base| base.group().is_some()) {
            // What comes into it before it is recorded has to be found after a crash.
            let intent = Intent {
                staged: Vec::new(),
                record: record.clone(),
            };
            let stored = Stored {
                base: None,
                intent: Some(intent),
            };
            self.durable.made.push((key.clone(), stored));
        }
        self.durable.gathered.records.insert(key, stored);
        Ok(())
    }

    /// Begins the next sync if none runs; waits for the one that runs if too much has gathered.
    pub(crate) fn sync_placed(&mut self) -> Result<(), StepError> {
        let gathered = &self.durable.gathered;
        if gathered.records.len() >= GATHERED_PLACES || gathered.bytes >= GATHERED_BYTES {
            self.end_sync(true)?;
        }
        if self.durable.running.is_some() || self.durable.gathered.records.is_empty() {
            return Ok(());
        }
        let made = self.intents_of_made()?;
        if !made.is_empty() {
            self.view.update(made, &[])?;
        }
        self.checkpoint()?;
        if self.durable.syncer.is_none() {
            let notices = self.control.notices();
            let syncer = Syncer::start(self.view.clone(), self.options.clone(), notices)?;
            self.durable.syncer = Some(syncer);
        }
        let placed = Arc::new(std::mem::take(&mut self.durable.gathered));
        self.durable.running = Some(placed.clone());
        // If the thread is gone, waiting for its result tells.
        if let Some(jobs) = self
            .durable
            .syncer
            .as_ref()
            .and_then(|syncer| syncer.jobs.as_ref())
        {
            let _ = jobs.send(placed);
        }
        Ok(())
    }

    /// Takes the intents of directories that were made, encoded.
    pub(crate) fn intents_of_made(&mut self) -> Result<Vec<RecordChange>, StepError> {
        let made = std::mem::take(&mut self.durable.made).into_iter();
        made.map(|(key, stored)| Ok((key, Some(record::encode(&stored)?))))
            .collect()
    }

    /// Takes the result of the sync that runs, if it has ended; goes on with the next.
    pub(crate) fn collect_durable(&mut self) -> Result<(), StepError> {
        self.durable.ended = false;
        self.end_sync(false)?;
        self.sync_placed()
    }

    /// Waits until everything that was placed is recorded.
    pub(crate) fn wait_durable(&mut self) -> Result<(), StepError> {
        while !self.durable.is_idle() {
            self.sync_placed()?;
            self.end_sync(true)?;
        }
        Ok(())
    }

    /// Has what is to be written wait for what was placed, where the order matters.
    pub(crate) fn order_writes(&mut self) -> Result<(), StepError> {
        let ordered = !self.durable.is_idle()
            && self
                .writes
                .iter()
                .any(|(key, stored)| self.durable.concerns(key, stored.as_ref()));
        if ordered {
            self.wait_durable()?;
        }
        Ok(())
    }

    /// Forgets what was placed and not recorded: its intents tell of it.
    pub(crate) fn forget_placed(&mut self) {
        // The thread must not record any of it later.
        if let Err(error) = self.end_sync(true) {
            tracing::debug!(%error, "files that were put in place could not be recorded");
        }
        self.durable.gathered = Placed::default();
        self.durable.made.clear();
    }

    fn end_sync(&mut self, wait: bool) -> Result<(), StepError> {
        let (Some(_), Some(syncer)) = (&self.durable.running, &self.durable.syncer) else {
            return Ok(());
        };
        let ended = if wait {
            syncer.results.recv().ok()
        } else {
            match syncer.results.try_recv() {
                Err(mpsc::TryRecvError::Empty) => return Ok(()),
                ended => ended.ok(),
            }
        };
        self.durable.running = None;
        ended.unwrap_or_else(|| {
            self.durable.syncer = None;
            Err(StepError::Disk {
                step: "making files durable",
                source: std::io::Error::other("its thread is gone"),
            })
        })
    }
}
