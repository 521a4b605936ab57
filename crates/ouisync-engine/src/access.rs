//! What views and status see of a running folder, and how a view changes it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use ouisync_model::{
    id::{ChunkId, CommitId, DeviceId, FolderId, MemberId, NodeId, PackId},
    operation::{ChunkRef, FileContent, FileData, Operation, PackSize, PackTable, Value},
    tree::{entry::Entry, view::View},
};
use ouisync_store::{
    content::ContentReader,
    index::{Index, batch::IndexBatch, views::DirtyMark},
    ingest::{Ingest, IngestKeys, PackSink},
    store::Store,
};
use rand::{SeedableRng, rngs::StdRng};
use tokio::sync::{broadcast, mpsc, watch};
use tracing::{error, warn};

use crate::{
    command::{Command, FolderSender},
    error::{EngineError, ErrorKind},
    flush::Flushed,
    folder::Folder,
    readable::Readable,
    status::{EngineEvent, Role},
    view::{ContentStream, FolderAccess, ViewControl, ViewEvent, ViewKey, ViewStatus},
};

/// Inline contents of one commit above this many bytes go into packs.
const MAX_INLINE: usize = 16 << 10;
/// Bytes of new packs after which they are announced before the file that they belong to is complete.
const ANNOUNCE_BYTES: u64 = 48 << 20;
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
    pub(crate) we_have_all: bool,
    pub(crate) peers: Vec<PeerRow>,
    pub(crate) members: Vec<(MemberId, Role)>,
    pub(crate) own_member: Option<MemberId>,
    pub(crate) quarantined: u64,
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
    directory: PathBuf,
    name: Mutex<String>,
    readable: RwLock<Option<Arc<Readable>>>,
    ingest_keys: RwLock<Option<IngestKeys>>,
    names: RwLock<BTreeMap<MemberId, String>>,
    view: Mutex<ViewSlot>,
    snapshot: Mutex<Snapshot>,
    trouble: Mutex<Option<String>>,
    rates: Mutex<(u64, u64)>,
    arrived: Mutex<Vec<PackId>>,
    conflicts: Mutex<Option<Conflicts>>,
    changed: watch::Sender<u64>,
    join: watch::Sender<JoinState>,
    events: broadcast::Sender<EngineEvent>,
    last_event: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct ViewSlot {
    control: Option<Arc<dyn ViewControl>>,
    events: Option<mpsc::UnboundedSender<ViewEvent>>,
    status: ViewStatus,
    /// Number of events told.
    told: u64,
}

/// The last count of conflicts.
struct Conflicts {
    /// Commits in the tree then.
    commits: u64,
    count: u64,
    took: Duration,
    at: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(
        id: FolderId,
        directory: PathBuf,
        name: String,
        join: JoinState,
        events: broadcast::Sender<EngineEvent>,
    ) -> Self {
        Self {
            id,
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
            conflicts: Mutex::default(),
            changed: watch::Sender::new(0),
            join: watch::Sender::new(join),
            events,
            last_event: Mutex::default(),
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
        self.readable.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_readable(&self, readable: Option<Arc<Readable>>) {
        *self.readable.write().unwrap_or_else(PoisonError::into_inner) = readable;
    }

    pub(crate) fn set_ingest_keys(&self, keys: Option<IngestKeys>) {
        *self.ingest_keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    pub(crate) fn names(&self) -> BTreeMap<MemberId, String> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).clone()
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

    /// Number of visible conflict entries. Counting walks the tree, so it is done again only when the tree changed and, in a
    /// large tree, not too often.
    pub(crate) fn conflicts(&self) -> u64 {
        let Some(readable) = self.readable() else { return 0 };
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
                *known = Some(Conflicts { commits, count, took: begun.elapsed(), at: Instant::now() });
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
        lock(&self.view).events.as_ref().is_some_and(|events| !events.is_closed())
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
        let dirty = self.readable().and_then(|readable| readable.index.dirty(1).ok());
        let heard_all = {
            let view = lock(&self.view);
            view.status.settled && view.status.heard == view.told
        };
        heard_all && dirty.is_none_or(|dirty| dirty.is_empty())
    }

    fn tell_view(&self, event: ViewEvent) {
        let mut view = lock(&self.view);
        if let Some(events) = &view.events {
            // A view that is gone needs no news.
            let _ = events.send(event);
            view.told += 1;
        }
    }

    pub(crate) fn tree_changed(&self) {
        self.tell_view(ViewEvent::TreeChanged);
        self.bump();
    }

    pub(crate) fn pause_view(&self, paused: bool) {
        self.tell_view(ViewEvent::Paused(paused));
    }

    pub(crate) fn close_view(&self) {
        self.tell_view(ViewEvent::Closed);
        *lock(&self.view) = ViewSlot::default();
    }

    /// A pack came; the view hears of it at the next [`Self::flush_events`].
    pub(crate) fn packs_arrived(&self, pack: PackId) {
        lock(&self.arrived).push(pack);
    }

    pub(crate) fn flush_events(&self) {
        let arrived = std::mem::take(&mut *lock(&self.arrived));
        if !arrived.is_empty() {
            self.tell_view(ViewEvent::PacksArrived(arrived));
        }
    }
}

/// New packs that no commit has announced yet.
#[derive(Default)]
struct Unannounced {
    packs: Vec<(PackTable, PackSize)>,
    bytes: u64,
}

/// A view's access to a folder.
pub(crate) struct Port {
    shared: Arc<Shared>,
    store: Arc<Store>,
    sender: FolderSender,
    ingest: Mutex<Option<Ingest>>,
    announcer: Arc<Announcer>,
    /// Packs that hold chunks which new content has in common with old.
    reused: Mutex<BTreeMap<PackId, PackSize>>,
    /// Marks behind the directories that `dirty` gave.
    marks: Mutex<HashMap<NodeId, Vec<(NodeId, DirtyMark)>>>,
}

/// Makes new packs durable and announces them.
struct Announcer {
    store: Arc<Store>,
    sender: FolderSender,
    unannounced: Mutex<Unannounced>,
    /// Held while packs are taken, made durable and committed, so that a later commit comes after.
    announcing: Mutex<()>,
}

impl Announcer {
    fn take(&self) -> Vec<(PackTable, PackSize)> {
        std::mem::take(&mut *lock(&self.unannounced)).packs
    }

    /// Makes everything written durable.
    fn sync(&self) -> Result<(), EngineError> {
        let durable = self.store.sync_packs()?;
        self.sender.send(Command::Flushed(Flushed(Ok(durable))));
        Ok(())
    }

    /// Announces what is there, ahead of the operations that need it.
    fn announce(&self) -> Result<(), EngineError> {
        let _announcing = lock(&self.announcing);
        let packs = self.take();
        if packs.is_empty() {
            return Ok(());
        }
        let announced = packs.clone();
        let result = self.sync().and_then(|()| {
            on_folder(&self.sender, move |folder| folder.commit(Vec::new(), announced, Vec::new(), |_| Ok(())))
        });
        if result.is_err() {
            // Content that was ingested before refers to them: the commit of that announces them.
            lock(&self.unannounced).packs.extend(packs);
        }
        result.map(drop)
    }
}

/// Runs `job` on the folder's thread and waits for its answer.
fn on_folder<T: Send + 'static>(
    sender: &FolderSender,
    job: impl FnOnce(&mut Folder) -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let (reply, answer) = std::sync::mpsc::sync_channel(1);
    let job = Box::new(move |folder: &mut Folder| {
        let _ = reply.send(job(folder));
    });
    if !sender.send(Command::Run(job)) {
        return Err(EngineError::Stopping);
    }
    answer.recv().map_err(|_| EngineError::Stopping)?
}

impl Port {
    pub(crate) fn new(shared: Arc<Shared>, store: Arc<Store>, sender: FolderSender) -> Self {
        let announcer = Announcer {
            store: store.clone(),
            sender: sender.clone(),
            unannounced: Mutex::default(),
            announcing: Mutex::default(),
        };
        Self {
            shared,
            store,
            sender,
            ingest: Mutex::default(),
            announcer: Arc::new(announcer),
            reused: Mutex::default(),
            marks: Mutex::default(),
        }
    }

    fn readable(&self) -> Result<Arc<Readable>, EngineError> {
        self.shared.readable().ok_or(EngineError::Locked)
    }

    /// An ingest whose packs are stored and wait to be announced.
    fn new_ingest(&self) -> Result<Ingest, EngineError> {
        let keys = self.shared.ingest_keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let keys = keys.ok_or(EngineError::Locked)?;
        let announcer = self.announcer.clone();
        let (wake, woken) = std::sync::mpsc::sync_channel::<()>(1);
        let background = announcer.clone();
        std::thread::Builder::new()
            .name("folder-announce".to_owned())
            .spawn(move || {
                while woken.recv().is_ok() {
                    if let Err(error) = background.announce() {
                        // The packs are kept; the commit that needs them meets the same error and reports it.
                        error!(%error, "can't announce new packs");
                    }
                }
            })
            .map_err(|source| EngineError::Io { path: "announcing thread".into(), source })?;
        let sink: PackSink = Box::new(move |pack| {
            announcer.store.create_pack(&pack.frame_hashes, &pack.bytes)?;
            let mut unannounced = lock(&announcer.unannounced);
            unannounced.bytes += pack.size.bytes();
            unannounced.packs.push((pack.table, pack.size));
            if unannounced.bytes >= ANNOUNCE_BYTES {
                // Full: a wake-up is waiting already.
                let _ = wake.try_send(());
            }
            Ok(())
        });
        Ok(Ingest::new(keys, StdRng::from_rng(&mut rand::rng()), sink))
    }

    /// Uses the running ingest, or begins one.
    fn with_ingest<T>(
        &self,
        action: impl FnOnce(&mut Ingest, &mut dyn FnMut(&ChunkId) -> bool) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let readable = self.readable()?;
        let mut slot = lock(&self.ingest);
        let mut ingest = match slot.take() {
            Some(ingest) => ingest,
            None => self.new_ingest()?,
        };
        let mut is_known = |chunk: &ChunkId| match readable.stored_in(chunk) {
            Some((pack, size)) => {
                lock(&self.reused).insert(pack, size);
                true
            }
            None => false,
        };
        let result = action(&mut ingest, &mut is_known);
        let broken = matches!(&result, Err(error) if error.kind() != ErrorKind::Invalid);
        if !broken {
            *slot = Some(ingest);
        }
        result
    }

    /// Contents that would make a large commit go into packs instead.
    fn move_inline(&self, operations: &mut [Operation]) -> Result<(), EngineError> {
        let inline = operations.iter().filter_map(inline_of).map(Vec::len).sum::<usize>();
        if inline <= MAX_INLINE {
            return Ok(());
        }
        for operation in operations {
            if let Operation::Write { value: Value::File(content), .. } = operation
                && let FileData::Inline(chunk, bytes) = &mut content.data
            {
                let (chunk, bytes) = (*chunk, std::mem::take(bytes));
                let length = bytes.len() as u32;
                self.with_ingest(|ingest, is_known| Ok(ingest.store_chunk(chunk, bytes, is_known)?))?;
                content.data = FileData::Chunks(vec![ChunkRef { chunk, length }]);
            }
        }
        Ok(())
    }

    fn write_index(
        &self,
        change: impl FnOnce(&mut IndexBatch) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let mut batch = self.readable()?.index.begin();
        change(&mut batch)?;
        Ok(batch.commit()?)
    }
}

fn inline_of(operation: &Operation) -> Option<&Vec<u8>> {
    match operation {
        Operation::Write { value: Value::File(content), .. } => match &content.data {
            FileData::Inline(_, bytes) => Some(bytes),
            _ => None,
        },
        _ => None,
    }
}

fn put_records(batch: &mut IndexBatch, records: Vec<(ViewKey, Option<Vec<u8>>)>) {
    for (key, value) in records {
        batch.put_view_record(&key.group, &key.item, value.as_deref());
    }
}

impl FolderAccess for Port {
    fn attach(
        &self,
        control: Arc<dyn ViewControl>,
    ) -> Result<mpsc::UnboundedReceiver<ViewEvent>, EngineError> {
        self.readable()?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut view = lock(&self.shared.view);
        if view.events.as_ref().is_some_and(|events| !events.is_closed()) {
            return Err(EngineError::internal("the folder has a view already"));
        }
        *view = ViewSlot { control: Some(control), events: Some(sender), ..ViewSlot::default() };
        Ok(receiver)
    }

    fn list(&self, directory: NodeId) -> Result<Vec<Entry>, EngineError> {
        self.readable()?.list(directory)
    }

    fn dirty(&self, limit: usize) -> Result<Vec<NodeId>, EngineError> {
        let readable = self.readable()?;
        let snapshot = readable.index.snapshot();
        let label = |_: &MemberId| String::new();
        let view = View::new(&snapshot, &label);
        let mut shown: BTreeSet<NodeId> = BTreeSet::new();
        let mut marks = lock(&self.marks);
        for (node, mark) in snapshot.dirty(limit)? {
            // What is no longer visible is named as it was, so that what was shown for it can go.
            let canonical = view.canonical(node)?;
            for name in [canonical, Some(node)].into_iter().flatten() {
                let behind = marks.entry(name).or_default();
                behind.retain(|(known, _)| *known != node);
                behind.push((node, mark));
            }
            shown.insert(canonical.unwrap_or(node));
        }
        Ok(shown.into_iter().collect())
    }

    fn mark_dirty(&self, directories: &[NodeId]) -> Result<(), EngineError> {
        self.write_index(|batch| {
            directories.iter().for_each(|directory| batch.mark_dirty(*directory));
            Ok(())
        })
    }

    fn record(&self, key: &ViewKey) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.readable()?.index.view_record(&key.group, &key.item)?)
    }

    fn records(&self, group: [u8; 16]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, EngineError> {
        Ok(self.readable()?.index.view_records(&group)?)
    }

    fn update(
        &self,
        records: Vec<(ViewKey, Option<Vec<u8>>)>,
        clean: &[NodeId],
    ) -> Result<(), EngineError> {
        let marks: Vec<_> = {
            let mut marks = lock(&self.marks);
            clean.iter().filter_map(|node| marks.remove(node)).flatten().collect()
        };
        self.write_index(|batch| {
            put_records(batch, records);
            for (node, mark) in marks {
                batch.clear_dirty(node, mark)?;
            }
            Ok(())
        })
    }

    fn ingest(
        &self,
        source: &mut dyn Read,
        size_hint: u64,
        previous: Option<&FileContent>,
    ) -> Result<FileContent, EngineError> {
        self.with_ingest(|ingest, is_known| {
            ingest.file(source, size_hint, previous, is_known).map_err(|error| match error {
                ouisync_store::ingest::IngestError::Source(source) => EngineError::Source(source),
                error => error.into(),
            })
        })
    }

    fn commit(
        &self,
        mut operations: Vec<Operation>,
        records: Vec<(ViewKey, Option<Vec<u8>>)>,
    ) -> Result<Option<CommitId>, EngineError> {
        self.move_inline(&mut operations)?;
        if let Some(mut ingest) = lock(&self.ingest).take() {
            ingest.flush()?;
        }
        let _announcing = lock(&self.announcer.announcing);
        let mut packs = self.announcer.take();
        if !packs.is_empty() {
            self.announcer.sync()?;
        }
        // Packs that are referred to anew are added anew, so that a concurrent release doesn't take them away.
        let fresh: BTreeSet<_> = packs.iter().map(|(table, _)| table.pack).collect();
        let reused = std::mem::take(&mut *lock(&self.reused));
        packs.extend(
            reused
                .into_iter()
                .filter(|(pack, _)| !fresh.contains(pack))
                .map(|(pack, size)| (PackTable { pack, chunks: Vec::new() }, size)),
        );
        on_folder(&self.sender, move |folder| {
            folder.commit(operations, packs, Vec::new(), |batch| {
                put_records(batch, records);
                Ok(())
            })
        })
    }

    fn writable(&self) -> bool {
        let snapshot = lock(&self.shared.snapshot);
        !snapshot.removed && matches!(snapshot.role, Some(Role::Owner | Role::Writer))
    }

    fn missing_packs(&self, content: &FileContent) -> Result<Vec<PackId>, EngineError> {
        let needs = self.readable()?.packs_of(content)?;
        if needs.missing.is_empty() && !needs.unknown.is_empty() {
            return Err(EngineError::Store {
                message: "the places of some chunks are not known yet".to_owned(),
                kind: ErrorKind::Unavailable,
            });
        }
        Ok(needs.missing)
    }

    fn open(&self, content: &FileContent) -> Result<Box<dyn ContentStream>, EngineError> {
        let reader = self.readable()?.content(content.clone());
        Ok(Box::new(Stream { reader, store: self.store.clone() }))
    }

    fn set_status(&self, status: ViewStatus) {
        {
            let mut view = lock(&self.shared.view);
            if view.status == status {
                return;
            }
            view.status = status;
        }
        self.shared.bump();
    }
}

struct Stream {
    reader: ContentReader<Index, Arc<Store>>,
    store: Arc<Store>,
}

impl Stream {
    /// A damaged pack is noted, so that it is fetched again.
    fn note(&self, error: ouisync_store::content::ContentError) -> EngineError {
        if let ouisync_store::content::ContentError::Damaged(pack) = &error
            && let Err(error) = self.store.report_damaged(*pack)
        {
            warn!(%pack, %error, "can't note a damaged pack");
        }
        error.into()
    }
}

impl ContentStream for Stream {
    fn next_chunk(&mut self) -> Result<Option<(u64, Bytes)>, EngineError> {
        let mut plaintext = Vec::new();
        match self.reader.next_chunk(&mut plaintext) {
            Ok(offset) => Ok(offset.map(|offset| (offset, Bytes::from(plaintext)))),
            Err(error) => Err(self.note(error)),
        }
    }

    fn chunks(&mut self) -> Result<Vec<ChunkRef>, EngineError> {
        match self.reader.chunks() {
            Ok(chunks) => Ok(chunks.to_vec()),
            Err(error) => Err(self.note(error)),
        }
    }

    fn skip_chunk(&mut self) -> Result<(), EngineError> {
        match self.reader.skip_chunk() {
            Ok(_) => Ok(()),
            Err(error) => Err(self.note(error)),
        }
    }
}

/// The keys that new content is sealed with.
pub(crate) fn ingest_keys(folder: &Folder) -> Option<IngestKeys> {
    let content = folder.keys.content_keys()?;
    let (_, secret) = folder.roster().sealing_epoch(&folder.keys)?;
    Some(IngestKeys { chunk_ids: content.chunk_id, gear: content.gear, secret: secret.clone() })
}
