//! Hearing of changes from the operating system. One watch a directory, set before the directory is listed.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind},
};
use tokio::sync::mpsc::UnboundedSender;

use crate::{brake::BrakeOrder, offload::Order};

/// So many notices wait at most; what comes on top is answered by a full scan.
const BACKLOG: usize = 50_000;

/// What the directory's thread is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Something happened at a path. `subtree`: a directory may have come there, with all that is in it.
    Touched {
        path: PathBuf,
        subtree: bool,
    },
    /// Notices were lost: scan everything.
    Lost,
    /// The user or the engine asks for a scan.
    Rescan,
    /// A sync ended.
    Durable,
    ConfirmDeletion,
    AdoptRoot,
    Brake(BrakeOrder),
    Copies(Arc<Order>),
    Stop,
}

/// The watches.
pub(crate) struct Watch {
    watcher: RecommendedWatcher,
    backlog: Arc<AtomicUsize>,
}

/// Why a directory is not watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchFailure {
    /// The system's limit is reached.
    Limit,
    /// It is gone already, or can't be read.
    Other,
}

impl Watch {
    pub(crate) fn new(notices: UnboundedSender<Notice>) -> Result<Self, notify::Error> {
        let backlog = Arc::new(AtomicUsize::new(0));
        let waiting = backlog.clone();
        let send = move |notice| {
            match waiting.fetch_add(1, Ordering::Relaxed) {
                // The receiver is gone only when nobody listens any more.
                0..BACKLOG => drop(notices.send(notice)),
                BACKLOG => drop(notices.send(Notice::Lost)),
                _ => {
                    waiting.fetch_sub(1, Ordering::Relaxed);
                }
            }
        };
        let watcher =
            notify::recommended_watcher(move |event: Result<Event, notify::Error>| match event {
                Ok(event) if event.need_rescan() => send(Notice::Lost),
                Ok(event) => {
                    let subtree = match event.kind {
                        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
                        EventKind::Access(_) => return,
                        EventKind::Create(CreateKind::Folder)
                        | EventKind::Modify(ModifyKind::Name(_)) => true,
                        _ => false,
                    };
                    for path in event.paths {
                        send(Notice::Touched { path, subtree });
                    }
                }
                Err(_) => send(Notice::Lost),
            })?;
        Ok(Self { watcher, backlog })
    }

    /// A notice that this made was received.
    pub(crate) fn received(&self) {
        let _ = self
            .backlog
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                count.checked_sub(1)
            });
    }

    pub(crate) fn add(&mut self, directory: &Path) -> Result<(), WatchFailure> {
        self.watcher
            .watch(directory, RecursiveMode::NonRecursive)
            .map_err(|error| match error.kind {
                notify::ErrorKind::MaxFilesWatch => WatchFailure::Limit,
                _ => WatchFailure::Other,
            })
    }
}
