//! The running device: its key, its connections and its folders.

mod bind;
#[cfg(test)]
mod checkpoint_tests;
pub mod conflicts;
mod folders;
pub mod history;
mod locks;
mod offload;
mod recovery;
#[cfg(test)]
mod repack_tests;
mod report;
mod retention;
mod simulated;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ouisync_model::id::{FolderId, InvitationId};
use ouisync_net::{address::DeviceAddress, endpoint::Endpoint};
use tokio::{sync::broadcast, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    book::Book,
    command::Command,
    error::{EngineError, ErrorKind},
    folder::RunningFolder,
    home::Home,
    housekeeping::Housekeeping,
    key_ring::KeyRing,
    keys::Keys,
    network::Network,
    port::Port,
    shared::lock,
    status::{DeviceInfo, EngineEvent, FolderSummary, MemberInfo, NewInvitation, Role},
    surroundings::{Real, Surroundings},
    view::FolderView,
};

/// Where the book of addresses is kept, sealed.
const BOOK: &str = "keys/book";

/// How long a pause waits for channels to close.
const CLOSING: Duration = Duration::from_secs(2);

/// How to start an engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The home directory; made when missing, mode 0700.
    pub home: PathBuf,
    /// UDP address to listen on; `None`: all interfaces on a port that is chosen once and kept.
    pub listen: Option<SocketAddr>,
    /// Find peers on the local network.
    pub lan: bool,
    /// This device's name, as other members see it.
    pub device_name: String,
    /// The operating system's key ring, where there is one.
    pub key_ring: Option<Arc<dyn KeyRing>>,
    /// How it looks after its stores.
    pub housekeeping: Housekeeping,
}

/// What an invitation allows.
#[derive(Clone, Debug)]
pub struct InvitationOptions {
    /// Role of whoever joins.
    pub role: Role,
    /// How many may join.
    pub uses: u32,
    /// How long it can be used.
    pub expires: Option<Duration>,
}

/// A running device; clones share it.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    home: Arc<Home>,
    keys: Arc<Keys>,
    network: Network,
    housekeeping: Housekeeping,
    surroundings: Arc<dyn Surroundings>,
    folders: Mutex<BTreeMap<FolderId, Arc<RunningFolder>>>,
    /// Folders that could not be opened.
    broken: Mutex<BTreeMap<FolderId, BrokenFolder>>,
    events: broadcast::Sender<EngineEvent>,
    stopping: CancellationToken,
    /// What makes time pass for the folders, where that happens by itself.
    ticking: Mutex<Option<JoinHandle<()>>>,
}

/// A folder that could not be opened, and why.
struct BrokenFolder {
    summary: FolderSummary,
    message: String,
    kind: ErrorKind,
}

/// Cancels and reports a long check.
pub trait CheckProgress: Send {
    /// Bytes checked of bytes in all; return `false` to stop.
    fn progress(&mut self, done: u64, total: u64) -> bool;
}

impl Engine {
    /// Opens the home (locking it against a second daemon), its key store and folders, and begins to listen.
    pub async fn start(options: EngineOptions) -> Result<Self, EngineError> {
        let (listen, lan) = (options.listen, options.lan);
        let engine = Self::start_in(options, Arc::new(Real), async |keys| {
            bind::bind(keys, listen, lan).await
        })
        .await?;
        let ticking = tokio::spawn(engine.clone().tick());
        *lock(&engine.inner.ticking) = Some(ticking);
        info!(device = %engine.inner.keys.device().key().device(), "started");
        Ok(engine)
    }

    /// Starts in given surroundings, on the network that `bind` gives. Nothing happens there by the passing of time until
    /// [`Self::pass_time`] is called.
    pub(crate) async fn start_in(
        options: EngineOptions,
        surroundings: Arc<dyn Surroundings>,
        bind: impl AsyncFnOnce(&Keys) -> Result<Endpoint, EngineError>,
    ) -> Result<Self, EngineError> {
        let EngineOptions {
            home,
            device_name,
            key_ring,
            housekeeping,
            ..
        } = options;
        let mut rng = surroundings.rng();
        let (home, keys) = blocking(move || {
            let home = Arc::new(Home::open(&home)?);
            let keys = Keys::open(home.clone(), &device_name, key_ring, &mut rng)?;
            Ok((home, Arc::new(keys)))
        })
        .await?;
        let endpoint = bind(&keys).await?;
        let book = keys
            .read_file(BOOK)
            .map(|bytes| Book::from_bytes(&bytes))
            .unwrap_or_default();
        let network = Network::start(endpoint, book);
        let (events, _) = broadcast::channel(256);
        let inner = Inner {
            home,
            keys,
            network,
            housekeeping,
            surroundings,
            folders: Mutex::default(),
            broken: Mutex::default(),
            events,
            stopping: CancellationToken::new(),
            ticking: Mutex::default(),
        };
        let engine = Self {
            inner: Arc::new(inner),
        };
        let opening = engine.clone();
        let opened = blocking(move || {
            opening.open_folders();
            Ok(())
        });
        if let Err(error) = opened.await {
            engine.shutdown().await;
            return Err(error);
        }
        Ok(engine)
    }

    /// Drives the folders' time and keeps the book of addresses.
    async fn tick(self) {
        let mut interval = tokio::time::interval(self.inner.housekeeping.tick);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.inner.stopping.cancelled() => return,
                _ = interval.tick() => {}
            }
            self.pass_time();
            self.save_book().await;
        }
    }

    /// Lets the folders look what is due.
    pub(crate) fn pass_time(&self) {
        for folder in self.running() {
            folder.sender.send(Command::Tick);
        }
    }

    async fn save_book(&self) {
        if let Some(book) = self.inner.network.book_to_save() {
            let keys = self.inner.keys.clone();
            if let Err(error) = blocking(move || keys.write_file(BOOK, &book)).await {
                warn!(%error, "can't keep the addresses of peers");
                self.inner.network.book_not_saved();
            }
        }
    }

    /// This installation.
    pub fn device(&self) -> DeviceInfo {
        let device = self.inner.keys.device();
        DeviceInfo {
            device: device.key().device(),
            name: device.name.clone(),
            sockets: self.inner.network.addresses(),
        }
    }

    /// Makes an invitation.
    pub async fn invite(
        &self,
        folder: FolderId,
        options: InvitationOptions,
    ) -> Result<NewInvitation, EngineError> {
        self.folder(&folder)?
            .run(move |folder| folder.invite(options))
            .await
    }

    /// Takes an invitation back (by its link or id).
    pub async fn revoke_invitation(
        &self,
        folder: FolderId,
        invitation: &str,
    ) -> Result<(), EngineError> {
        let invitation = if invitation.starts_with("ouisync:") {
            folders::parse_link(invitation)?.secret.invitation()
        } else {
            let bad = |_| {
                EngineError::Invitation("this is neither a link nor an invitation's id".to_owned())
            };
            invitation.parse::<InvitationId>().map_err(bad)?
        };
        self.folder(&folder)?
            .run(move |folder| folder.revoke(invitation))
            .await
    }

    /// Adds a static address (`DEVICE@IP:PORT`), kept for later, and dials it.
    pub async fn connect(&self, address: &str) -> Result<(), EngineError> {
        let address: DeviceAddress = address
            .parse()
            .map_err(|error| EngineError::Address(format!("{error}")))?;
        if address.device == self.device().device {
            return Err(EngineError::Address("it is this device's own".to_owned()));
        }
        self.inner.network.add_static(&address);
        self.save_book().await;
        Ok(())
    }

    /// The members.
    pub async fn members(&self, folder: FolderId) -> Result<Vec<MemberInfo>, EngineError> {
        self.folder(&folder)?
            .run(|folder| Ok(folder.members()))
            .await
    }

    /// Removes a member (by id, prefix of the id, or name) and starts a new epoch.
    pub async fn remove_member(&self, folder: FolderId, member: &str) -> Result<(), EngineError> {
        let member = member.to_owned();
        self.folder(&folder)?
            .run(move |folder| folder.remove_member(&member))
            .await
    }

    /// Changes a member's role.
    pub async fn set_role(
        &self,
        folder: FolderId,
        member: &str,
        role: Role,
    ) -> Result<(), EngineError> {
        let member = member.to_owned();
        self.folder(&folder)?
            .run(move |folder| folder.set_role(&member, role))
            .await
    }

    /// The folders in order of name, those included that could not be opened.
    pub fn folders(&self) -> Vec<FolderSummary> {
        let mut summaries: Vec<_> = self
            .running()
            .iter()
            .map(|folder| self.summary(folder))
            .collect();
        summaries.extend(
            self.lock_broken()
                .values()
                .map(|broken| broken.summary.clone()),
        );
        summaries
            .sort_by(|left, right| (&left.name, left.folder).cmp(&(&right.name, right.folder)));
        summaries
    }

    /// The folder of that name or id.
    pub fn find_folder(&self, name: &str) -> Result<FolderSummary, EngineError> {
        let summaries = self.folders();
        let by_name = summaries.iter().find(|summary| summary.name == name);
        by_name
            .or_else(|| {
                summaries
                    .iter()
                    .find(|summary| summary.folder.to_string() == name)
            })
            .cloned()
            .ok_or_else(|| self.why_not(name))
    }

    /// Stops a folder (all without one): its channels to peers close, and nothing is recorded or applied.
    pub async fn pause(&self, folder: Option<FolderId>) -> Result<(), EngineError> {
        let chosen = self.chosen(folder)?;
        for folder in &chosen {
            folder.run(|folder| folder.set_paused(true)).await?;
        }
        let closed = async {
            for folder in &chosen {
                let mut changed = folder.shared.subscribe();
                while !folder.shared.snapshot().peers.is_empty() {
                    if changed.changed().await.is_err() {
                        break;
                    }
                }
            }
        };
        // A connection that doesn't get to it ends by itself; nothing is sent to it any more.
        let _ = tokio::time::timeout(CLOSING, closed).await;
        Ok(())
    }

    /// Goes on.
    pub async fn resume(&self, folder: Option<FolderId>) -> Result<(), EngineError> {
        for folder in self.chosen(folder)? {
            folder.run(|folder| folder.set_paused(false)).await?;
        }
        Ok(())
    }

    /// Access for a view; `Locked` while the folder can't be read, `Forbidden` on a safe.
    pub fn view(&self, folder: FolderId) -> Result<FolderView, EngineError> {
        let folder = self.folder(&folder)?;
        if folder.shared.readable().is_none() {
            return Err(match folder.shared.snapshot().role {
                Some(Role::Safe) => EngineError::Forbidden {
                    role: "safe",
                    action: "read it",
                },
                _ => EngineError::Locked,
            });
        }
        let store = folder.store.clone();
        Ok(FolderView::new(Arc::new(Port::new(
            folder.shared.clone(),
            store,
            folder.sender.clone(),
        ))))
    }

    /// Where a view keeps its settings (a plain directory's path): small, sealed with the folder's reading secrets.
    pub async fn view_setting(&self, folder: FolderId) -> Result<Option<Vec<u8>>, EngineError> {
        self.folder(&folder)?;
        let record = self
            .inner
            .keys
            .open_record(&folder)
            .ok_or(EngineError::Locked)?;
        Ok(record.setting.clone())
    }

    /// Sets it.
    pub async fn set_view_setting(
        &self,
        folder: FolderId,
        setting: Vec<u8>,
    ) -> Result<(), EngineError> {
        let keys = self.inner.keys.clone();
        blocking(move || {
            let mut record = keys.open_record(&folder).ok_or(EngineError::Locked)?;
            record.setting = Some(setting);
            keys.put_open(record)
        })
        .await
    }

    /// Everything that happens from now on.
    pub fn events(&self) -> broadcast::Receiver<EngineEvent> {
        self.inner.events.subscribe()
    }

    /// Ends connections, makes everything durable, closes.
    pub async fn shutdown(&self) {
        self.inner.stopping.cancel();
        self.save_book().await;
        let folders = std::mem::take(&mut *self.lock_folders());
        for folder in folders.values() {
            folder.sender.send(Command::Stop);
        }
        let ended = blocking(move || {
            // Others may still hold one, who waits for it above all.
            folders.values().for_each(|folder| folder.stop());
            Ok(())
        });
        // A failure here was reported by the folder's thread.
        let _ = ended.await;
        self.inner.network.close().await;
        let ticking = lock(&self.inner.ticking).take();
        if let Some(ticking) = ticking {
            // It holds the home, which may be opened again from here on.
            let _ = ticking.await;
        }
    }

    fn running(&self) -> Vec<Arc<RunningFolder>> {
        self.lock_folders().values().cloned().collect()
    }

    fn folder(&self, folder: &FolderId) -> Result<Arc<RunningFolder>, EngineError> {
        let found = self.lock_folders().get(folder).cloned();
        found.ok_or_else(|| self.why_not(&folder.to_string()))
    }

    /// Why a folder of this name or id isn't running.
    fn why_not(&self, folder: &str) -> EngineError {
        let broken = self.lock_broken();
        let found = broken
            .iter()
            .find(|(id, broken)| broken.summary.name == folder || id.to_string() == folder);
        match found {
            Some((
                _,
                BrokenFolder {
                    summary,
                    message,
                    kind,
                },
            )) => EngineError::Store {
                message: format!(
                    "the folder '{}' could not be opened: {message}",
                    summary.name
                ),
                kind: *kind,
            },
            None if self
                .running()
                .iter()
                .any(|running| self.has_sealed_name(running)) =>
            {
                EngineError::SealedName(folder.to_owned())
            }
            None => EngineError::UnknownFolder(folder.to_owned()),
        }
    }

    /// The folder is locked, so its name may be one that this process never knew.
    fn has_sealed_name(&self, running: &RunningFolder) -> bool {
        let id = &running.shared.id;
        let is_safe = self
            .inner
            .keys
            .blind(id)
            .is_some_and(|blind| blind.safe.is_some());
        !is_safe && self.inner.keys.open_record(id).is_none()
    }

    fn lock_broken(&self) -> MutexGuard<'_, BTreeMap<FolderId, BrokenFolder>> {
        self.inner
            .broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The given folder, or all.
    fn chosen(&self, folder: Option<FolderId>) -> Result<Vec<Arc<RunningFolder>>, EngineError> {
        match folder {
            Some(folder) => Ok(vec![self.folder(&folder)?]),
            None => Ok(self.running()),
        }
    }

    fn lock_folders(&self) -> MutexGuard<'_, BTreeMap<FolderId, Arc<RunningFolder>>> {
        self.inner
            .folders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs blocking work beside the async tasks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| EngineError::internal("a task ended early"))?
}
