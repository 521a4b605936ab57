//! The blind store of one folder: packs, commits, live set, roster entries. Needs no keys.
//!
//! Calls block and may be made from any thread; clones share one store. Nobody else may open the directory meanwhile (the
//! daemon's lock sees to that). Validity of commits (signature, roster, Lamport time) is checked by the caller before.
//!
//! Crash ordering and its case analysis: `docs/format/store.md`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use ouisync_model::{
    id::{CommitId, MemberId, PackId, Sequence},
    operation::PackSize,
};

use crate::{
    backend::{Backend, CatalogueLimits, directory::DirectoryBackend},
    catalogue::{Draft, PackRecord, Presence, Summary, encode, key, records::Records},
    error::StoreError,
    pack_file,
    store::{incoming::Partial, recent::Recent},
};

pub mod commits;
mod incoming;
pub mod late;
pub mod notes;
pub mod offload;
mod open;
pub mod packs;
mod recent;
mod sync;
mod wanted;

/// How a store behaves.
#[derive(Clone)]
pub struct StoreOptions {
    /// Bytes of the catalogue's block cache.
    pub cache: u64,
    /// Bytes of each of the catalogue's two write buffers.
    pub write_buffer: u64,
    /// Bytes left free on the disk: pack data is refused when less is free, so that the catalogue never meets a full disk.
    pub reserve: u64,
    /// Seconds since 1970 by the device's clock; used only to age released packs.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache: 4 << 20,
            write_buffer: 2 << 20,
            reserve: 64 << 20,
            clock: Arc::new(|| {
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| since.as_secs())
            }),
        }
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("StoreOptions")
            .field("cache", &self.cache)
            .field("write_buffer", &self.write_buffer)
            .field("reserve", &self.reserve)
            .finish_non_exhaustive()
    }
}

/// A folder's store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Arc<dyn Backend>,
    records: Arc<dyn Records>,
    options: StoreOptions,
    /// Never held while files are written or synced. Lock order: `syncing`, a partial, `state`.
    state: Mutex<State>,
    recent: Recent,
    /// Held by the one `sync_packs` at a time.
    syncing: Mutex<()>,
    /// Makes names in `incoming/` and `trash/` unique.
    next_file: AtomicU64,
}

impl fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Store")
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

/// What is kept in memory: whole-store figures, and the packs that something is to be done about.
pub(crate) struct State {
    pub(crate) summary: Summary,
    chains: BTreeMap<MemberId, BTreeMap<CommitId, Sequence>>,
    pub(crate) heads: BTreeSet<CommitId>,
    /// Live packs that are not whole here.
    missing: BTreeMap<PackId, PackSize>,
    /// Packs of which frames come in: missing, late or wanted ones.
    partials: HashMap<PackId, Coming>,
    /// Whole packs that are not durable.
    pending: BTreeSet<PackId>,
    pub(crate) damaged: BTreeSet<PackId>,
    /// Bytes of whole packs and their number.
    stored_bytes: u64,
    stored_packs: u64,
    /// Those of them that are live, in bytes.
    live_bytes: u64,
    /// Bytes of all packs in `missing`.
    missing_bytes: u64,
    /// Live packs that are given up, those still here among them.
    offloaded: BTreeSet<PackId>,
    /// Those of them that are not here, and their bytes.
    offloaded_packs: u64,
    offloaded_bytes: u64,
    /// Late packs that are to come, and their bytes.
    late_packs: u64,
    late_bytes: u64,
    /// The catalogue has batches that a power cut may take.
    dirty: bool,
    /// Directories under `packs/` that exist; names of new ones are not durable yet.
    directories: BTreeSet<u8>,
    new_directories: bool,
    poisoned: bool,
}

/// A pack that is coming in, and how many bytes of it have.
struct Coming {
    partial: Arc<Mutex<Partial>>,
    received: u64,
}

impl Store {
    /// Opens the store in a directory of the file system, making it when it doesn't exist. Finishes or undoes what a crash
    /// interrupted: packs that may not have reached the disk are hashed again.
    pub fn open_directory(
        directory: impl AsRef<Path>,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        Self::open(
            Arc::new(DirectoryBackend::new(directory.as_ref())?),
            options,
        )
    }

    /// Opens the store that `backend` holds; see [`Self::open_directory`].
    pub fn open(backend: Arc<dyn Backend>, options: StoreOptions) -> Result<Self, StoreError> {
        let limits = CatalogueLimits {
            cache: options.cache,
            write_buffer: options.write_buffer,
        };
        for directory in [pack_file::PACKS, pack_file::INCOMING, pack_file::TRASH] {
            backend
                .create_dir(Path::new(directory))
                .map_err(StoreError::io("making the store's directories"))?;
        }
        let records = backend.open_records(limits)?;
        // The names of the catalogue and of these directories.
        backend
            .sync_dir(Path::new(""))
            .map_err(StoreError::sync("the store's directory"))?;
        let state = open::load(records.as_ref())?;
        let store = Self {
            inner: Arc::new(Inner {
                backend,
                records,
                options,
                state: Mutex::new(state),
                recent: Recent::default(),
                syncing: Mutex::new(()),
                next_file: AtomicU64::new(0),
            }),
        };
        store.recover()?;
        Ok(store)
    }

    /// Whether a write failed to become durable, so that the store refuses writes until reopened.
    pub fn is_poisoned(&self) -> bool {
        self.state().poisoned
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // State changes only after a batch succeeded and without panics in between.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn records(&self) -> &dyn Records {
        self.inner.records.as_ref()
    }

    fn recent(&self) -> &Recent {
        &self.inner.recent
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        self.inner.backend.as_ref()
    }

    pub(crate) fn summary(&self) -> Summary {
        self.state().summary.clone()
    }

    pub(crate) fn now(&self) -> u64 {
        (self.inner.options.clock)()
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.inner.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// A batch that starts from the present state.
    fn draft(&self, state: &State) -> Result<Draft<'_>, StoreError> {
        if state.poisoned {
            return Err(StoreError::Poisoned);
        }
        Ok(Draft::new(
            self.records(),
            state.summary.clone(),
            state.chains.clone(),
            state.heads.clone(),
        ))
    }

    /// Writes a batch and then brings the state up to date. After an error the state is as before and the store is
    /// poisoned, since the catalogue's own state is unknown.
    ///
    /// Returns the partials that are of no use any more; the caller abandons them once `state` is unlocked.
    fn apply(
        &self,
        state: &mut State,
        draft: Draft<'_>,
        durable: bool,
    ) -> Result<Vec<Arc<Mutex<Partial>>>, StoreError> {
        let Draft {
            mut changes,
            packs,
            summary,
            chains,
            heads,
            ..
        } = draft;
        if summary != state.summary {
            changes.insert(key::summary(), Some(encode(&summary)));
        }
        if changes.is_empty() && !(durable && state.dirty) {
            return Ok(Vec::new());
        }
        let free = self
            .inner
            .backend
            .free_space()
            .map_err(StoreError::io("asking for free space"))?;
        // A full disk would poison the catalogue; the reserve that pack data leaves makes this rare.
        let needed = changes
            .values()
            .flatten()
            .map(|value| value.len() as u64)
            .sum::<u64>()
            * 2
            + self.inner.options.reserve / 4;
        if free < needed {
            return Err(StoreError::Full {
                free,
                reserve: needed,
            });
        }
        self.inner
            .records
            .commit(changes, durable)
            .inspect_err(|_| state.poisoned = true)?;
        state.dirty = !durable;
        state.summary = summary;
        state.chains = chains;
        state.heads = heads;
        Ok(packs
            .into_iter()
            .filter_map(|(pack, (before, after))| state.replace_pack(pack, before, after))
            .collect())
    }

    /// Locks the state, lets `change` make a batch, and applies it.
    pub(crate) fn change<T>(
        &self,
        durable: bool,
        change: impl FnOnce(&mut Draft<'_>, &State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (result, abandoned) = {
            let mut state = self.state();
            let mut draft = self.draft(&state)?;
            let result = change(&mut draft, &state)?;
            (result, self.apply(&mut state, draft, durable)?)
        };
        self.abandon(abandoned);
        Ok(result)
    }

    /// Whether the disk has room for a pack of the greatest size.
    pub fn has_room(&self) -> bool {
        self.has_room_for(PackSize::MAX.bytes())
    }

    /// Whether there is room for so many bytes.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        self.check_space(bytes).is_ok()
    }

    /// Bytes that the disk has beyond those that are left free.
    pub fn room(&self) -> Result<u64, StoreError> {
        let free = self.inner.backend.free_space();
        let free = free.map_err(StoreError::io("asking for free space"))?;
        Ok(free.saturating_sub(self.inner.options.reserve))
    }

    /// Refuses pack data when the disk is almost full.
    pub(crate) fn check_space(&self, bytes: u64) -> Result<(), StoreError> {
        let reserve = self.inner.options.reserve;
        let free = self
            .inner
            .backend
            .free_space()
            .map_err(StoreError::io("asking for free space"))?;
        if free < reserve.saturating_add(bytes) {
            Err(StoreError::Full { free, reserve })
        } else {
            Ok(())
        }
    }

    fn check_usable(&self) -> Result<(), StoreError> {
        if self.state().poisoned {
            Err(StoreError::Poisoned)
        } else {
            Ok(())
        }
    }
}

impl State {
    /// Something is half done that only an opening can undo.
    pub(crate) fn poison(&mut self) {
        self.poisoned = true;
    }

    /// The ends of an author's chain.
    pub(crate) fn chain_heads(&self, author: &MemberId) -> BTreeMap<CommitId, Sequence> {
        self.chains.get(author).cloned().unwrap_or_default()
    }

    /// Brings figures and sets up to date after the record of a pack changed.
    fn replace_pack(
        &mut self,
        pack: PackId,
        before: Option<PackRecord>,
        after: Option<PackRecord>,
    ) -> Option<Arc<Mutex<Partial>>> {
        if let Some(record) = before {
            self.count_out(pack, &record);
        }
        if let Some(record) = after {
            self.count_in(pack, &record);
        }
        if after.is_some_and(|record| !record.presence.has_file() && !record.offloaded) {
            return None;
        }
        let coming = self.partials.remove(&pack)?;
        Some(coming.partial)
    }

    fn add_partial(&mut self, partial: Partial) -> Arc<Mutex<Partial>> {
        let (pack, received) = (partial.hashes.pack(), partial.received_bytes());
        let partial = Arc::new(Mutex::new(partial));
        self.partials.insert(
            pack,
            Coming {
                partial: Arc::clone(&partial),
                received,
            },
        );
        partial
    }

    fn count_received(&mut self, pack: PackId, bytes: u64) {
        if let Some(coming) = self.partials.get_mut(&pack) {
            coming.received += bytes;
        }
    }

    fn count_out(&mut self, pack: PackId, record: &PackRecord) {
        self.pending.remove(&pack);
        self.damaged.remove(&pack);
        if self.offloaded.remove(&pack) && !record.presence.has_file() {
            self.offloaded_packs -= 1;
            self.offloaded_bytes -= record.size.bytes();
        }
        if record.presence.is_whole() {
            self.stored_bytes -= record.size.bytes();
            self.stored_packs -= 1;
            if record.is_live() {
                self.live_bytes -= record.size.bytes();
            }
        }
        if record.awaited().is_some() {
            self.late_packs -= 1;
            self.late_bytes -= record.size.bytes();
        }
        if self.missing.remove(&pack).is_some() {
            self.missing_bytes -= record.size.bytes();
        }
    }

    fn count_in(&mut self, pack: PackId, record: &PackRecord) {
        match record.presence {
            Presence::Pending => {
                self.pending.insert(pack);
            }
            Presence::Damaged => {
                self.damaged.insert(pack);
            }
            _ => {}
        }
        if record.presence.is_whole() {
            self.stored_bytes += record.size.bytes();
            self.stored_packs += 1;
            if record.is_live() {
                self.live_bytes += record.size.bytes();
            }
        }
        if record.offloaded {
            if record.is_live() {
                self.offloaded.insert(pack);
                if !record.presence.has_file() {
                    self.offloaded_packs += 1;
                    self.offloaded_bytes += record.size.bytes();
                }
            }
        } else if record.is_live() && !record.presence.has_file() {
            self.missing.insert(pack, record.size);
            self.missing_bytes += record.size.bytes();
        }
        if record.awaited().is_some() {
            self.late_packs += 1;
            self.late_bytes += record.size.bytes();
        }
    }
}
