//! The index of an unlocked folder: the tree, where chunks lie, what uses them, what views must look at.
//!
//! Everything in it is derived from the commits, except views' records and settings, which say only what this device did with
//! them: so it can be destroyed and built anew at any time, by applying all commits again. (History reaches further back than
//! the commits whose bytes are kept: clearing spares it.) Records are sealed one by one.
//!
//! **Order.** A commit must be durable in the catalogue before its batch is committed here: the index may be behind the
//! catalogue, never ahead. A batch changes the tree, marks the commits applied, and updates all that is counted, as one.
//! It needs no sync: after a power cut the index is as after some earlier batch, its marks say which commits it lacks, and these
//! are applied again. Applying a commit twice changes nothing.
//!
//! The index must not read packs or decrypt commits: the engine hands over what they say.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use fjall::Snapshot;
use ouisync_crypto::keys::ContentKeys;
use ouisync_model::id::Lamport;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::{
    error::ErrorKind,
    sealed_map::{Group, RecordKey, SealedMap, SealedMapError, Table},
};

pub mod batch;
pub mod contents;
pub mod exclusive;
pub mod history;
pub mod homes;
pub mod state;
mod tree;
pub mod views;

use batch::IndexBatch;

/// The index can't be read or written.
#[derive(Debug, Error)]
pub enum IndexError {
    /// The records can't be read or written.
    #[error(transparent)]
    Map(#[from] SealedMapError),
    /// A record is sealed as it should be, but makes no sense.
    #[error("a record of the index (table {table}) can't be understood")]
    Record {
        /// Number of the record's table.
        table: u8,
        /// Why.
        source: postcard::Error,
    },
}

impl IndexError {
    /// What the caller can do. On corruption: drop all handles, [`Index::destroy`], open, apply all commits.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Map(error) => error.kind(),
            Self::Record { .. } => ErrorKind::Corruption,
        }
    }
}

/// The kinds of records. Numbers are part of the format.
mod table {
    use crate::sealed_map::Table;

    pub(super) const META: Table = Table(1);
    pub(super) const NODE: Table = Table(2);
    pub(super) const LINK: Table = Table(3);
    pub(super) const PLACEMENT: Table = Table(4);
    pub(super) const APPLIED: Table = Table(5);
    pub(super) const REPLACED_EARLY: Table = Table(6);
    pub(super) const CHUNK: Table = Table(7);
    pub(super) const PACK: Table = Table(8);
    pub(super) const PACK_CHUNKS: Table = Table(9);
    pub(super) const UNUSED: Table = Table(10);
    pub(super) const LIST: Table = Table(11);
    pub(super) const LIST_CHUNKS: Table = Table(12);
    pub(super) const LIST_PENDING: Table = Table(13);
    pub(super) const DIRTY: Table = Table(14);
    pub(super) const VIEW: Table = Table(15);
    pub(super) const SETTING: Table = Table(16);
    pub(super) const CHANGE: Table = Table(17);
    pub(super) const TIMELINE: Table = Table(18);
    pub(super) const FORMER: Table = Table(19);
    pub(super) const PAST_LIST: Table = Table(24);
    pub(super) const REPEATING: Table = Table(33);
    /// Commits that [`REPLACED_EARLY`] speaks of.
    pub(super) const AWAITED: Table = Table(32);
}

/// Group of the record that says how often the tree was emptied; like history it outlives that.
const GENERATION: &[u8] = b"generation";

/// How much is in the tree: all values of all content registers, so a conflict counts once for each side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// Bytes in files.
    pub bytes: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Directories, without the top.
    pub directories: u64,
}

/// How far the index has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Number of commits applied.
    pub commits: u64,
    /// Greatest Lamport time among those noted by [`IndexBatch::note_lamport`].
    pub lamport: Lamport,
}

/// What changes with nearly every batch, in one record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Meta {
    position: Position,
    totals: Totals,
    /// The next dirty mark.
    next_mark: u64,
    /// Greatest Lamport time in the placement log.
    last_placement: Lamport,
    /// Number of times that the tree was emptied.
    generation: u32,
}

/// The index of one folder. Clones share it. Reads see the last committed batch; [`Index::begin`] waits for the batch before.
#[derive(Clone)]
pub struct Index {
    shared: Arc<Shared>,
}

struct Shared {
    map: SealedMap,
    meta: Mutex<Meta>,
    writing: Mutex<bool>,
    written: Condvar,
}

impl Index {
    /// Opens the index in `directory`, making an empty one when there is none.
    pub fn open(directory: &Path, keys: &ContentKeys) -> Result<Self, IndexError> {
        let map = SealedMap::open(directory, &keys.index_name, &keys.index_seal)?;
        let records = Latest { map: &map };
        let mut meta: Meta = records.get(table::META, &[], &[])?.unwrap_or_default();
        let generation = records.get(table::TIMELINE, GENERATION, &[])?;
        let generation = generation.unwrap_or_default();
        if meta.generation != generation {
            // Emptying it was interrupted.
            map.clear()?;
            meta = Meta {
                generation,
                ..Meta::default()
            };
        }
        let shared = Shared {
            map,
            meta: Mutex::new(meta),
            writing: Mutex::new(false),
            written: Condvar::new(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Removes the index in `directory`, which must not be open. The next [`Index::open`] makes an empty one.
    pub fn destroy(directory: &Path) -> Result<(), IndexError> {
        Ok(SealedMap::destroy(directory)?)
    }

    /// Empties the index but for what can't be derived, the records of views, history and the places of chunks: apply all commits again. Meanwhile readers see
    /// an incomplete tree; an interrupted clearing goes on at the next opening.
    pub fn clear_tree(&self) -> Result<(), IndexError> {
        let mut batch = self.begin();
        let generation = batch.meta.generation.wrapping_add(1);
        let key = self.key(table::TIMELINE, GENERATION, &[]);
        let noted = [(key, Some(encode(&generation)))];
        self.shared.map.commit(noted.into_iter(), false)?;
        self.shared.map.clear()?;
        // Marks go on from where they were, so that none that a view holds comes to mean another.
        batch.meta = Meta {
            next_mark: batch.meta.next_mark,
            generation,
            ..Meta::default()
        };
        batch.commit()
    }

    /// Begins to write; waits until the batch before is committed or dropped.
    pub fn begin(&self) -> IndexBatch {
        let mut writing = lock(&self.shared.writing);
        while *writing {
            writing = self
                .shared
                .written
                .wait(writing)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *writing = true;
        drop(writing);
        IndexBatch::new(Arc::clone(&self.shared), *lock(&self.shared.meta))
    }

    /// The index as it is now, whatever is written later. Keep it for a short while only.
    pub fn snapshot(&self) -> IndexSnapshot {
        IndexSnapshot {
            snapshot: self.shared.map.snapshot(),
            shared: Arc::clone(&self.shared),
        }
    }

    /// How far the index has come.
    pub fn position(&self) -> Position {
        lock(&self.shared.meta).position
    }

    /// How much is in the tree.
    pub fn totals(&self) -> Totals {
        lock(&self.shared.meta).totals
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Index")
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

/// The index at one moment.
pub struct IndexSnapshot {
    snapshot: Snapshot,
    shared: Arc<Shared>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reading records: of the last batch, of a snapshot, or through a batch that is being written.
trait Records {
    fn map(&self) -> &SealedMap;

    fn value(&self, key: &RecordKey) -> Result<Option<Vec<u8>>, SealedMapError>;

    /// Records with keys from `first` to `last`, at most `limit`, by key.
    fn values(
        &self,
        first: RecordKey,
        last: RecordKey,
        limit: usize,
    ) -> Result<Vec<(RecordKey, Vec<u8>)>, SealedMapError>;

    fn key(&self, table: Table, group: &[u8], item: &[u8]) -> RecordKey {
        let map = self.map();
        map.key(&map.group(table, group), item)
    }

    fn group(&self, table: Table, group: &[u8]) -> Group {
        self.map().group(table, group)
    }

    /// The record of `item` in `group`, decoded.
    fn get<T: DeserializeOwned>(
        &self,
        table: Table,
        group: &[u8],
        item: &[u8],
    ) -> Result<Option<T>, IndexError> {
        let value = self.value(&self.key(table, group, item))?;
        value.map(|value| decode(table, &value)).transpose()
    }

    /// All records of `group`, decoded, in no meaningful order.
    fn list<T: DeserializeOwned>(
        &self,
        table: Table,
        group: &[u8],
        limit: usize,
    ) -> Result<Vec<T>, IndexError> {
        let (first, last) = self.group(table, group).range();
        let values = self.values(first, last, limit)?;
        values
            .into_iter()
            .map(|(_, value)| decode(table, &value))
            .collect()
    }
}

fn decode<T: DeserializeOwned>(table: Table, value: &[u8]) -> Result<T, IndexError> {
    postcard::from_bytes(value).map_err(|source| IndexError::Record {
        table: table.0,
        source,
    })
}

fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("the index's own values always encode")
}

/// The last committed batch.
struct Latest<'a> {
    map: &'a SealedMap,
}

impl Records for Latest<'_> {
    fn map(&self) -> &SealedMap {
        self.map
    }

    fn value(&self, key: &RecordKey) -> Result<Option<Vec<u8>>, SealedMapError> {
        self.map.get(key, None)
    }

    fn values(
        &self,
        first: RecordKey,
        last: RecordKey,
        limit: usize,
    ) -> Result<Vec<(RecordKey, Vec<u8>)>, SealedMapError> {
        self.map.range(first..=last, None).take(limit).collect()
    }
}

impl Records for Index {
    fn map(&self) -> &SealedMap {
        &self.shared.map
    }

    fn value(&self, key: &RecordKey) -> Result<Option<Vec<u8>>, SealedMapError> {
        Latest {
            map: &self.shared.map,
        }
        .value(key)
    }

    fn values(
        &self,
        first: RecordKey,
        last: RecordKey,
        limit: usize,
    ) -> Result<Vec<(RecordKey, Vec<u8>)>, SealedMapError> {
        Latest {
            map: &self.shared.map,
        }
        .values(first, last, limit)
    }
}

impl Records for IndexSnapshot {
    fn map(&self) -> &SealedMap {
        &self.shared.map
    }

    fn value(&self, key: &RecordKey) -> Result<Option<Vec<u8>>, SealedMapError> {
        self.shared.map.get(key, Some(&self.snapshot))
    }

    fn values(
        &self,
        first: RecordKey,
        last: RecordKey,
        limit: usize,
    ) -> Result<Vec<(RecordKey, Vec<u8>)>, SealedMapError> {
        self.shared
            .map
            .range(first..=last, Some(&self.snapshot))
            .take(limit)
            .collect()
    }
}
