//! What the thread of a folder, its view and the engine share: the published state, and how rest is told from work.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ouisync_model::id::{CommitId, DeviceId, EpochId, FolderId, MemberId, PackId};
use ouisync_store::ingest::IngestKeys;
use tokio::sync::{broadcast, watch};
use tracing::warn;

use crate::{
    error::EngineError,
    readable::Readable,
    status::{EngineEvent, Role},
    surroundings::Surroundings,
    view::{
        DraftStep, ViewControl, ViewEvent, ViewEventSender, ViewEvents, ViewStatus, view_events,
    },
};

/// Least time between two notices that a folder's status changed.
const EVENT_PAUSE: Duration = Duration::from_millis(100);

/// A connected peer's row of the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerRow {
    pub(crate) device: DeviceId,
    pub(crate) member: Option<MemberId>,
    pub(crate) exchanged: bool,
    pub(crate) missing_bytes: u64,
    pub(crate) has_all: bool,
}

/// How a safe's quota stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    /// Most bytes of packs.
    pub(crate) bytes: u64,
    /// Bytes of live packs that it leaves no room for.
    pub(crate) refused: u64,
}

/// What the folder's thread publishes after each round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) role: Option<Role>,
    pub(crate) removed: bool,
    /// The roster doesn't know this device's key.
    pub(crate) outside: bool,
    pub(crate) paused: bool,
    pub(crate) locked: bool,
    pub(crate) missing_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) live_bytes: u64,
    pub(crate) offloaded_bytes: u64,
    pub(crate) missing_history_bytes: u64,
    pub(crate) quota: Option<Quota>,
    /// Version of a policy that this program doesn't understand.
    pub(crate) unknown_policy: Option<u8>,
    pub(crate) we_have_all: bool,
    pub(crate) peers: Vec<PeerRow>,
    pub(crate) members: Vec<(MemberId, Role)>,
    pub(crate) own_member: Option<MemberId>,
    pub(crate) quarantined: u64,
    /// Checkpoints that are not what they say, with their authors.
    pub(crate) wrong_checkpoints: Vec<(MemberId, CommitId)>,
    pub(crate) forked: Vec<MemberId>,
    /// Everything this device has was once acknowledged by some peer.
    pub(crate) delivered: bool,
}

/// How joining goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JoinState {
    Waiting,
    Joined,
    Refused(&'static str),
}

/// What of a folder is shared between its thread, its view and the engine.
pub(crate) struct Shared {
    pub(crate) id: FolderId,
    pub(crate) surroundings: Arc<dyn Surroundings>,
    directory: PathBuf,
    name: Mutex<String>,
    readable: RwLock<Option<Arc<Readable>>>,
    ingest_keys: RwLock<Option<(EpochId, IngestKeys)>>,
    names: RwLock<BTreeMap<MemberId, String>>,
    view: Mutex<ViewSlot>,
    snapshot: Mutex<Snapshot>,
    trouble: Mutex<Option<String>>,
    rates: Mutex<(u64, u64)>,
    arrived: Mutex<Vec<PackId>>,
    /// Number of packs that have come.
    arrivals: AtomicU64,
    /// Conflicts are being looked for or merged.
    merging: AtomicBool,
    conflicts: Mutex<Option<Conflicts>>,
    changed: watch::Sender<u64>,
    join: watch::Sender<JoinState>,
    events: broadcast::Sender<EngineEvent>,
    last_event: Mutex<Option<Instant>>,
    /// Held by whoever makes history reach further back.
    pub(crate) reaching_back: Mutex<()>,
}

#[derive(Default)]
struct ViewSlot {
    control: Option<Arc<dyn ViewControl>>,
    events: Option<ViewEventSender>,
    status: ViewStatus,
    /// Number of events told.
    told: u64,
    /// The folder is paused, whether there is a view or not.
    paused: bool,
}

/// The last count of conflicts.
struct Conflicts {
    /// Commits in the tree then.
    commits: u64,
    count: u64,
    took: Duration,
    at: Instant,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(
        id: FolderId,
        surroundings: Arc<dyn Surroundings>,
        directory: PathBuf,
        name: String,
        join: JoinState,
        events: broadcast::Sender<EngineEvent>,
    ) -> Self {
        Self {
            id,
            surroundings,
            directory,
            name: Mutex::new(name),
            readable: RwLock::default(),
            ingest_keys: RwLock::default(),
            names: RwLock::default(),
            view: Mutex::default(),
            snapshot: Mutex::default(),
            trouble: Mutex::default(),
            rates: Mutex::default(),
            arrived: Mutex::default(),
            arrivals: AtomicU64::new(0),
            merging: AtomicBool::new(false),
            conflicts: Mutex::default(),
            changed: watch::Sender::new(0),
            join: watch::Sender::new(join),
            events,
            last_event: Mutex::default(),
            reaching_back: Mutex::default(),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn name(&self) -> String {
        lock(&self.name).clone()
    }

    pub(crate) fn set_name(&self, name: String) {
        *lock(&self.name) = name;
    }

    pub(crate) fn readable(&self) -> Option<Arc<Readable>> {
        self.readable
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_readable(&self, readable: Option<Arc<Readable>>) {
        *self
            .readable
            .write()
            .unwrap_or_else(PoisonError::into_inner) = readable;
    }

    pub(crate) fn set_ingest_keys(&self, keys: Option<(EpochId, IngestKeys)>) {
        *self
            .ingest_keys
            .write()
            .unwrap_or_else(PoisonError::into_inner) = keys;
    }

    pub(crate) fn names(&self) -> BTreeMap<MemberId, String> {
        self.names
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_names(&self, names: BTreeMap<MemberId, String>) {
        if let Some(readable) = self.readable() {
            readable.set_names(names.clone());
        }
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Changes with everything that status or `wait` look at.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn join_state(&self) -> watch::Receiver<JoinState> {
        self.join.subscribe()
    }

    pub(crate) fn is_joining(&self) -> bool {
        *self.join.borrow() == JoinState::Waiting
    }

    pub(crate) fn joined(&self) {
        self.join.send_replace(JoinState::Joined);
    }

    pub(crate) fn refuse_join(&self, reason: &'static str) {
        self.join.send_replace(JoinState::Refused(reason));
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        lock(&self.snapshot).clone()
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        {
            let mut known = lock(&self.snapshot);
            if *known == snapshot {
                return;
            }
            *known = snapshot;
        }
        self.bump();
    }

    fn bump(&self) {
        self.changed.send_modify(|version| *version += 1);
        let mut last = lock(&self.last_event);
        if last.is_none_or(|last| last.elapsed() >= EVENT_PAUSE) {
            *last = Some(Instant::now());
            self.event(EngineEvent::FolderChanged(self.id));
        }
    }

    pub(crate) fn event(&self, event: EngineEvent) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }

    /// Something that stops the folder until a person acts.
    pub(crate) fn fail(&self, message: &str) {
        self.set_trouble(Some(message.to_owned()));
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        let mut known = lock(&self.trouble);
        if *known != trouble {
            *known = trouble;
            drop(known);
            self.bump();
        }
    }

    pub(crate) fn rates(&self) -> (u64, u64) {
        *lock(&self.rates)
    }

    pub(crate) fn set_rates(&self, sent: u64, received: u64) {
        let mut known = lock(&self.rates);
        if *known != (sent, received) {
            *known = (sent, received);
            drop(known);
            self.bump();
        }
    }

    /// Number of visible conflict entries. Counting may walk the tree, so it is done again only when the tree changed and, where it
    /// takes its time, not too often.
    pub(crate) fn conflicts(&self) -> u64 {
        let Some(readable) = self.readable() else {
            return 0;
        };
        let mut known = lock(&self.conflicts);
        let commits = readable.index.position().commits;
        if let Some(known) = &*known
            && (known.commits == commits || known.at.elapsed() < known.took * 20)
        {
            return known.count;
        }
        let begun = Instant::now();
        match readable.count_conflicts() {
            Ok(count) => {
                *known = Some(Conflicts {
                    commits,
                    count,
                    took: begun.elapsed(),
                    at: Instant::now(),
                });
                count
            }
            Err(error) => {
                warn!(%error, "can't count conflicts");
                known.as_ref().map_or(0, |known| known.count)
            }
        }
    }

    // The view

    pub(crate) fn has_view(&self) -> bool {
        lock(&self.view)
            .events
            .as_ref()
            .is_some_and(|events| !events.is_closed())
    }

    pub(crate) fn view_status(&self) -> ViewStatus {
        lock(&self.view).status.clone()
    }

    /// Asks the view to look for local changes; its status is unsettled until it has.
    pub(crate) fn rescan(&self) {
        let control = {
            let mut view = lock(&self.view);
            view.status.settled = false;
            view.control.clone()
        };
        if let Some(control) = control {
            control.rescan();
        }
    }

    /// The view has nothing left to do.
    pub(crate) fn is_view_settled(&self) -> bool {
        if !self.has_view() {
            return true;
        }
        let dirty = self
            .readable()
            .and_then(|readable| readable.index.dirty(1).ok());
        let heard_all = {
            let view = lock(&self.view);
            view.status.settled && view.status.heard == view.told
        };
        heard_all && dirty.is_none_or(|dirty| dirty.is_empty())
    }

    fn tell_view(&self, event: ViewEvent) {
        let mut view = lock(&self.view);
        if let Some(events) = &view.events {
            view.told += u64::from(events.send(event));
        }
    }

    pub(crate) fn tree_changed(&self) {
        self.tell_view(ViewEvent::TreeChanged);
        self.bump();
    }

    pub(crate) fn drafts_heard(&self, steps: Vec<DraftStep>) {
        self.tell_view(ViewEvent::Drafts(steps));
    }

    pub(crate) fn pause_view(&self, paused: bool) {
        lock(&self.view).paused = paused;
        self.tell_view(ViewEvent::Paused(paused));
    }

    pub(crate) fn close_view(&self) {
        self.tell_view(ViewEvent::Closed);
        let mut view = lock(&self.view);
        *view = ViewSlot {
            paused: view.paused,
            ..ViewSlot::default()
        };
    }

    /// A pack came; the view hears of it at the next [`Self::flush_events`].
    pub(crate) fn packs_arrived(&self, pack: PackId) {
        lock(&self.arrived).push(pack);
        self.arrivals.fetch_add(1, Ordering::Relaxed);
    }

    /// How many packs have come; two equal numbers: none in between.
    pub(crate) fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Relaxed)
    }

    /// Whether conflicts are being looked for or merged here.
    pub(crate) fn is_merging(&self) -> bool {
        self.merging.load(Ordering::Acquire)
    }

    pub(crate) fn set_merging(&self, merging: bool) {
        if self.merging.swap(merging, Ordering::AcqRel) != merging {
            self.bump();
        }
    }

    pub(crate) fn flush_events(&self) {
        let arrived = std::mem::take(&mut *lock(&self.arrived));
        if !arrived.is_empty() {
            self.tell_view(ViewEvent::PacksArrived(arrived));
        }
    }

    /// Registers a view.
    pub(crate) fn attach(&self, control: Arc<dyn ViewControl>) -> Result<ViewEvents, EngineError> {
        let (sender, receiver) = view_events();
        let mut view = lock(&self.view);
        if view
            .events
            .as_ref()
            .is_some_and(|events| !events.is_closed())
        {
            return Err(EngineError::internal("the folder has a view already"));
        }
        let paused = view.paused;
        *view = ViewSlot {
            control: Some(control),
            told: u64::from(paused && sender.send(ViewEvent::Paused(true))),
            events: Some(sender),
            paused,
            ..ViewSlot::default()
        };
        Ok(receiver)
    }

    /// The view tells how far it is.
    pub(crate) fn set_view_status(&self, status: ViewStatus) {
        {
            let mut view = lock(&self.view);
            if view.status == status {
                return;
            }
            view.status = status;
        }
        self.bump();
    }

    /// The keys that new content is sealed with; none while the folder can't be written.
    pub(crate) fn ingest_keys(&self) -> Option<(EpochId, IngestKeys)> {
        self.ingest_keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
