//! The handle of an attached directory.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use ouisync_engine::view::{FolderView, ViewControl, ViewStatus};
use tokio::sync::{mpsc, oneshot};

use crate::{
    brake::{BrakeOrder, BrakeState},
    error::{StepError, WorktreeError},
    location,
    offload::{Copies, CopiesProgress, FilePath, Listing, OffloadOutcome, Order, Reply, Task},
    runner::Runner,
    watch::Notice,
};

/// What a test does between a check and the step after it.
#[cfg(test)]
pub(crate) type Meddler = dyn Fn(&ouisync_model::name::Name) + Send + Sync;

/// How a directory is watched.
#[derive(Clone)]
pub struct WorktreeOptions {
    /// How long nothing more must happen before changes are looked at.
    pub debounce: Duration,
    /// How long changes wait at most while more keep coming.
    pub debounce_limit: Duration,
    /// Time between full scans.
    pub rescan_interval: Duration,
    /// Time after which what failed is tried again.
    pub retry_interval: Duration,
    /// Listen to the file system; without it only scans find changes.
    pub watch: bool,
    /// After so many steps the thread stops as if it had crashed.
    #[cfg(test)]
    pub(crate) steps_left: Option<Arc<std::sync::atomic::AtomicU64>>,
    /// Called between the check of a file and its replacement.
    #[cfg(test)]
    pub(crate) before_replace: Option<Arc<Meddler>>,
    /// Called before each sync, on the thread that does it.
    #[cfg(test)]
    pub(crate) before_sync: Option<Arc<dyn Fn() + Send + Sync>>,
    /// Files that are staged before they are put in place.
    pub(crate) batch_files: usize,
    /// What changed this recently may change again within the same tick of the file system's clock.
    pub(crate) fresh: Duration,
}

impl Default for WorktreeOptions {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(50),
            debounce_limit: Duration::from_millis(500),
            rescan_interval: Duration::from_secs(600),
            retry_interval: Duration::from_secs(30),
            watch: true,
            #[cfg(test)]
            steps_left: None,
            #[cfg(test)]
            before_replace: None,
            #[cfg(test)]
            before_sync: None,
            batch_files: 1000,
            fresh: Duration::from_millis(20),
        }
    }
}

impl WorktreeOptions {
    /// A step is about to be done or was done: tests stop here.
    pub(crate) fn checkpoint(&self) -> Result<(), StepError> {
        #[cfg(test)]
        if let Some(left) = &self.steps_left {
            let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
            taken.map_err(|_| StepError::Stopping)?;
        }
        Ok(())
    }
}

/// An attached directory: one thread owns its state. Dropping it detaches.
pub struct Worktree {
    path: PathBuf,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

impl Worktree {
    /// Attaches the directory at `path` (made when it is missing, unless the folder was attached before) to a folder.
    ///
    /// Returns when the directory is open and the thread runs; the first full scan follows. Check `path` with
    /// [`location::check`] first.
    pub fn attach(
        view: FolderView,
        path: PathBuf,
        options: WorktreeOptions,
    ) -> Result<Self, WorktreeError> {
        let path = location::check(&path, &[])?;
        let (sender, notices) = mpsc::unbounded_channel();
        let control = Arc::new(Control::new(view.clone(), sender));
        let runner = view
            .attach(control.clone())
            .map_err(WorktreeError::from)
            .and_then(|events| {
                Runner::open(
                    view,
                    path.clone(),
                    options,
                    control.clone(),
                    notices,
                    events,
                )
            })
            .inspect_err(|_| control.told().view = None)?;
        let thread = std::thread::Builder::new()
            .name("ouisync-worktree".to_owned())
            .spawn(move || runner.run())
            .map_err(WorktreeError::Thread)?;
        Ok(Self {
            path,
            control,
            thread: Some(thread),
        })
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Scans for local changes now; returns at once. The folder counts as unsettled until that is done.
    pub fn rescan(&self) {
        self.control.rescan();
    }

    /// The user says that the emptied directory was emptied on purpose: its files are to be deleted everywhere.
    pub fn confirm_deletion(&self) {
        self.control.send(Notice::ConfirmDeletion);
    }

    /// The user says that another directory than before is at the path on purpose. It is taken over as at first attaching: what is
    /// equal unites, what differs becomes a conflict, nothing is deleted.
    pub fn adopt_root(&self) {
        self.control.send(Notice::AdoptRoot);
    }

    /// The brake: its settings, what it holds, what the last undo did.
    pub fn brake(&self) -> BrakeState {
        self.control.told().brake.clone()
    }

    /// Changes the brake's settings, or says what a burst that it holds was. Shows in [`Self::brake`] at once; what it means is done
    /// later.
    pub fn order_brake(&self, order: BrakeOrder) {
        {
            let brake = &mut self.control.told().brake;
            match order {
                BrakeOrder::Set(settings) => brake.settings = settings,
                BrakeOrder::Allow => brake.burst = None,
                BrakeOrder::Undo => brake.undoing = brake.burst.is_some(),
            }
        }
        self.control.send(Notice::Brake(order));
    }

    /// The files at or below a path, and those elsewhere whose plain copies were dropped.
    pub fn list_copies(&self, path: FilePath) -> oneshot::Receiver<Result<Listing, String>> {
        let (reply, outcome) = Reply::new();
        let task = Task::List(reply);
        self.control
            .send(Notice::Copies(Arc::new(Order { path, task })));
        outcome
    }

    /// Drops the plain copies of a file, or of all files in a directory, or brings them back, but for those in `except`. The outcome
    /// comes once that is done or, for copies that come back, begun; an error says why nothing could be done, and so does a closed
    /// channel.
    pub fn set_copies(
        &self,
        path: FilePath,
        copies: Copies,
        except: BTreeSet<FilePath>,
        progress: CopiesProgress,
    ) -> oneshot::Receiver<Result<OffloadOutcome, String>> {
        let (reply, outcome) = Reply::new();
        let task = Task::Set {
            copies,
            except,
            progress,
            reply,
        };
        self.control
            .send(Notice::Copies(Arc::new(Order { path, task })));
        outcome
    }

    /// Ends the thread and waits for it. A change that is being recorded or applied is finished or left for the next attaching.
    pub fn detach(mut self) {
        self.stop();
    }

    #[cfg(test)]
    pub(crate) fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn stop(&mut self) {
        self.control.stopping.store(true, Ordering::Release);
        self.control.send(Notice::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(path = %self.path.display(), "the directory's thread ended by a panic");
        }
        self.control.told().view = None;
    }
}

impl Drop for Worktree {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the thread shares with its handle and the engine.
pub(crate) struct Control {
    notices: mpsc::UnboundedSender<Notice>,
    stopping: AtomicBool,
    told: Mutex<Told>,
}

/// What the engine was last told.
struct Told {
    /// `None` once detached: the engine holds the control, which must not hold the engine.
    view: Option<FolderView>,
    /// Number of scans asked for.
    requested: u64,
    status: ViewStatus,
    brake: BrakeState,
}

impl Control {
    pub(crate) fn new(view: FolderView, notices: mpsc::UnboundedSender<Notice>) -> Self {
        Self {
            notices,
            stopping: AtomicBool::new(false),
            told: Mutex::new(Told {
                view: Some(view),
                requested: 1,
                status: ViewStatus::default(),
                brake: BrakeState::default(),
            }),
        }
    }

    pub(crate) fn send(&self, notice: Notice) {
        // Without a receiver the thread is gone and nobody waits.
        let _ = self.notices.send(notice);
    }

    /// Whether the thread is to end.
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Number of scans asked for up to now.
    pub(crate) fn requested(&self) -> u64 {
        self.told().requested
    }

    /// A sender for the watcher.
    pub(crate) fn notices(&self) -> mpsc::UnboundedSender<Notice> {
        self.notices.clone()
    }

    /// Tells the engine. `done`: the scan number up to which everything is recorded, if all else is settled; it decides whether
    /// `status` is.
    pub(crate) fn tell(&self, done: Option<u64>, mut status: ViewStatus) {
        let mut told = self.told();
        status.settled = done == Some(told.requested);
        if status != told.status {
            told.status = status.clone();
            if let Some(view) = &told.view {
                view.set_status(status);
            }
        }
    }

    /// Keeps what the handle tells of the brake.
    pub(crate) fn tell_brake(&self, state: &BrakeState) {
        let mut told = self.told();
        if told.brake != *state {
            told.brake = state.clone();
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ViewControl for Control {
    fn rescan(&self) {
        {
            // Unsettled before this returns: whoever asks afterwards can't see the state from before the scan.
            let mut told = self.told();
            told.requested += 1;
            if told.status.settled {
                told.status.settled = false;
                let status = told.status.clone();
                if let Some(view) = &told.view {
                    view.set_status(status);
                }
            }
        }
        self.send(Notice::Rescan);
    }
}
