//! The running device: the engine, and a plain directory for each folder that can be read.

mod conflicts;
mod directory;
mod past;
mod retention;
mod roots;
mod service;
mod translate;
mod views;
mod write_out;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ouisync_api::{
    error::{ErrorBody, ErrorKind},
    event::Event,
};
use ouisync_engine::{
    engine::Engine,
    error::EngineError,
    status::{EngineEvent, FolderSummary},
};
use ouisync_model::id::FolderId;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use self::views::Views;
use crate::refusal;

/// Events that a slow reader may be behind.
const EVENT_BACKLOG: usize = 256;
/// Pause between attempts to attach directories that are missing, such as on an unplugged disk.
const ATTACH_AGAIN: Duration = Duration::from_secs(5);

/// The running device; clones share it.
#[derive(Clone)]
pub(crate) struct Device {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    home: PathBuf,
    views: Views,
    /// Directories of folders that this device is still joining.
    joining: Mutex<BTreeMap<FolderId, PathBuf>>,
    /// Held while views come and go, so that two requests don't choose overlapping directories.
    changing: tokio::sync::Mutex<()>,
    events: broadcast::Sender<Event>,
}

impl Device {
    /// Attaches the directories of all folders that can be read, and keeps them attached until `stopping`.
    pub(crate) async fn start(engine: Engine, home: PathBuf, stopping: CancellationToken) -> Self {
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        let inner = Inner {
            engine,
            home,
            views: Views::default(),
            joining: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            events,
        };
        let device = Self {
            inner: Arc::new(inner),
        };
        let engine_events = device.inner.engine.events();
        for summary in device.inner.engine.folders() {
            device.inner.attach_kept(&summary).await;
        }
        tokio::spawn(device.clone().follow(engine_events, stopping));
        device
    }

    /// Ends all views, then the engine.
    pub(crate) async fn shutdown(&self) {
        let changing = self.inner.changing.lock().await;
        let inner = self.inner.clone();
        blocking(move || inner.views.detach_all()).await;
        drop(changing);
        self.inner.engine.shutdown().await;
    }

    /// Passes events on, attaches the directories of folders that were joined, and tries missing directories again.
    async fn follow(
        self,
        mut events: broadcast::Receiver<EngineEvent>,
        stopping: CancellationToken,
    ) {
        let mut again = tokio::time::interval(ATTACH_AGAIN);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                event = events.recv() => match event {
                    Ok(event) => {
                        if matches!(event, EngineEvent::FoldersChanged) {
                            self.inner.attach_joined().await;
                        }
                        if let EngineEvent::Warning { message, .. } = &event {
                            tracing::warn!("{message}");
                        }
                        self.inner.tell(translate::event(event));
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => self.inner.tell(Event::Lagged),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                _ = again.tick() => {
                    self.inner.attach_joined().await;
                    self.inner.attach_failed().await;
                }
            }
        }
    }
}

impl Inner {
    fn tell(&self, event: Event) {
        // Nobody needs to listen.
        let _ = self.events.send(event);
    }

    fn find(&self, folder: &str) -> Result<FolderSummary, ErrorBody> {
        self.engine
            .find_folder(folder)
            .map_err(|error| refusal::from_engine(&error))
    }

    /// One folder, or all.
    fn select(&self, folder: Option<&str>) -> Result<Vec<FolderSummary>, ErrorBody> {
        match folder {
            Some(folder) => Ok(vec![self.find(folder)?]),
            None => Ok(self.engine.folders()),
        }
    }

    fn path_of(&self, folder: FolderId) -> Option<String> {
        self.views
            .path(folder)
            .map(|path| path.to_string_lossy().into_owned())
    }

    /// Checks a directory that a folder shall have and makes it. `changing` must be held.
    async fn prepare_root(
        self: &Arc<Self>,
        path: &str,
        except: Option<FolderId>,
    ) -> Result<PathBuf, ErrorBody> {
        let others = self.roots(except);
        let (path, home) = (PathBuf::from(path), self.home.clone());
        blocking(move || roots::prepare(&path, &home, &others)).await
    }

    /// A place that is in no folder's directory and not in the home.
    async fn outside(&self, path: &str) -> Result<PathBuf, ErrorBody> {
        let (path, home) = (write_out::absolute(path)?, self.home.clone());
        let roots = self.roots(None);
        blocking(move || roots::outside(&path, &home, &roots)).await
    }

    /// The directories of all folders but one, also of those that are being joined, with the folders' names.
    fn roots(&self, except: Option<FolderId>) -> Vec<(String, PathBuf)> {
        let names: BTreeMap<_, _> = self
            .engine
            .folders()
            .into_iter()
            .map(|summary| (summary.folder, summary.name))
            .collect();
        let mut others = self.views.others(except);
        others.extend(
            self.joining()
                .iter()
                .filter(|(folder, _)| Some(**folder) != except)
                .map(|(f, p)| (*f, p.clone())),
        );
        others
            .into_iter()
            .map(|(folder, path)| {
                (
                    names
                        .get(&folder)
                        .cloned()
                        .unwrap_or_else(|| folder.to_string()),
                    path,
                )
            })
            .collect()
    }

    fn joining(&self) -> std::sync::MutexGuard<'_, BTreeMap<FolderId, PathBuf>> {
        self.joining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a directory with its folder and attaches it. `changing` must be held.
    async fn attach_new(self: &Arc<Self>, folder: FolderId, path: &Path) -> Result<(), ErrorBody> {
        let text = path.to_str().ok_or_else(|| {
            refusal::invalid(
                "the directory's path is not UTF-8",
                "Rename it, or choose another directory.",
            )
        })?;
        let setting = views::encode_setting(text);
        self.engine
            .set_view_setting(folder, setting)
            .await
            .map_err(|error| refusal::from_engine(&error))?;
        self.attach_view(folder, path.to_owned())
            .await
            .map_err(|message| {
                ErrorBody::new(
                    ErrorKind::Unavailable,
                    message,
                    "It is tried again every few seconds; see 'ouisync status'.",
                )
            })
    }

    /// Attaches the directory that was kept with a folder, if it has one and can be read.
    async fn attach_kept(self: &Arc<Self>, summary: &FolderSummary) {
        let _changing = self.changing.lock().await;
        if self.views.attached(summary.folder) {
            return;
        }
        let setting = match self.engine.view_setting(summary.folder).await {
            Ok(setting) => setting,
            // It is attached when it is unlocked; a safe never has one.
            Err(EngineError::Locked | EngineError::Forbidden { .. }) => return,
            Err(error) => {
                tracing::error!(folder = %summary.folder, %error, "a folder's settings can't be read");
                return;
            }
        };
        let Some(path) = setting.as_deref().and_then(views::decode_setting) else {
            return;
        };
        let others: Vec<_> = self.views.others(Some(summary.folder));
        if others
            .iter()
            .any(|(_, other)| other.starts_with(&path) || path.starts_with(other))
        {
            let message = format!(
                "the directory {} is used by another folder too",
                path.display()
            );
            tracing::error!(folder = %summary.folder, "{message}");
            self.views.fail(summary.folder, &path, message);
            return;
        }
        if let Err(message) = self.attach_view(summary.folder, path).await {
            tracing::warn!(folder = %summary.folder, "{message}");
        }
    }

    /// Attaches the directories of folders that were joined in the background.
    async fn attach_joined(self: &Arc<Self>) {
        let waiting: Vec<_> = self
            .joining()
            .iter()
            .map(|(folder, path)| (*folder, path.clone()))
            .collect();
        for (folder, path) in waiting {
            if self.engine.view(folder).is_err() {
                continue;
            }
            let _changing = self.changing.lock().await;
            if self.joining().remove(&folder).is_some()
                && let Err(error) = self.attach_new(folder, &path).await
            {
                tracing::warn!(%folder, "{error}");
            }
        }
    }

    /// Tries directories again that could not be attached.
    async fn attach_failed(self: &Arc<Self>) {
        for (folder, path) in self.views.failed() {
            let _changing = self.changing.lock().await;
            if self.views.problem(folder).is_some()
                && self.attach_view(folder, path.clone()).await.is_ok()
            {
                tracing::info!(%folder, "the directory is back");
                self.tell(Event::FolderChanged {
                    folder: folder.to_string(),
                });
            }
        }
    }

    async fn attach_view(self: &Arc<Self>, folder: FolderId, path: PathBuf) -> Result<(), String> {
        let view = match self.engine.view(folder) {
            Ok(view) => view,
            Err(error) => {
                self.views.fail(folder, &path, error.to_string());
                return Err(error.to_string());
            }
        };
        let inner = self.clone();
        blocking(move || inner.views.attach(folder, view, &path)).await
    }

    async fn detach(self: &Arc<Self>, folder: FolderId) {
        let inner = self.clone();
        blocking(move || inner.views.detach(folder)).await;
    }
}

/// Runs blocking work elsewhere and waits for it; a panic there goes on here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}
