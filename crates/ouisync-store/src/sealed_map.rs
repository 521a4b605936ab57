//! A sorted key-value map on disk that shows neither its keys nor its values.
//!
//! Owns the sealing of single records over `fjall`. A key is 32 bytes: 16 of a pseudo-random function of the record's group, 16
//! of one of its item in that group, so that a group is a range; values are sealed one by one, bound to their key. What shows is
//! the number of groups, of records in them, and their lengths. It must not know what the records mean.
//!
//! A batch is all or nothing and reaches the operating system when it is committed, without a sync: after a power cut the map
//! is as it was after some earlier batch. So what it holds must be derived from what is durable elsewhere, and record how far.

use std::{
    io,
    ops::{Bound, RangeBounds},
    path::Path,
};

use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot,
    config::CompressionPolicy,
};
use ouisync_crypto::keys::{IndexNameKey, IndexSealKey};
use rand::Rng;
use thiserror::Error;

use crate::error::ErrorKind;

/// Version of the layout that this program writes.
const VERSION: u8 = 1;
/// Key of the only record that isn't sealed: version, and the salt of this map's names.
const HEADER_KEY: [u8; 1] = [0];
/// Key of a sealed record that is there to recognise the key.
const CHECK_KEY: [u8; 1] = [1];
/// The tables that clearing spares: places of chunks, the records of views, and history.
const KEPT_TABLES: [u8; 7] = [7, 8, 9, 15, 17, 18, 19];
/// Key of a record that is there while the map is being cleared.
const CLEARING_KEY: [u8; 1] = [2];
/// Set in the first byte of the keys of kept tables.
const KEPT_BIT: u8 = 0x80;
/// Records removed in one batch while clearing.
const CLEAR_STEP: usize = 4096;
/// Domain of the derivation of a map's own name key; tables are below.
const NAMES_DOMAIN: u8 = 0xff;

/// The map can't be opened, read or written.
#[derive(Debug, Error)]
pub enum SealedMapError {
    /// The storage engine failed.
    #[error("the index's storage failed")]
    Storage(#[source] Box<fjall::Error>),
    /// A file operation failed.
    #[error("the index's files can't be changed")]
    Io(#[source] io::Error),
    /// The map is another folder's, or its first records are damaged.
    #[error("the index is not sealed with this key")]
    OtherKey,
    /// The map has a layout that this program doesn't know.
    #[error("the index has the unknown version {0}")]
    Version(u8),
    /// A record isn't what was written at its place.
    #[error("a record of the index is damaged")]
    Damaged,
}

impl SealedMapError {
    /// What the caller can do. Whatever is wrong with the bytes is corruption: destroy the map and derive it anew.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Storage(error) => match error.as_ref() {
                fjall::Error::Io(source) => crate::error::kind_of_io(source),
                fjall::Error::Poisoned | fjall::Error::KeyspaceDeleted => ErrorKind::Permanent,
                fjall::Error::Locked => ErrorKind::Transient,
                _ => ErrorKind::Corruption,
            },
            Self::Io(source) => crate::error::kind_of_io(source),
            Self::OtherKey | Self::Version(_) | Self::Damaged => ErrorKind::Corruption,
        }
    }
}

impl From<fjall::Error> for SealedMapError {
    fn from(error: fjall::Error) -> Self {
        Self::Storage(Box::new(error))
    }
}

/// What kind of record: groups of different tables never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table(pub(crate) u8);

impl Table {
    /// Whether [`SealedMap::clear`] spares the table: it holds what can't be derived.
    fn is_kept(self) -> bool {
        KEPT_TABLES.contains(&self.0)
    }
}

/// A group of records that can be listed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    table: Table,
    prefix: [u8; 16],
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RecordKey(pub(crate) [u8; 32]);

impl Group {
    /// The keys that the group's records have.
    pub(crate) fn range(&self) -> (RecordKey, RecordKey) {
        let (mut first, mut last) = ([0; 32], [0xff; 32]);
        first[..16].copy_from_slice(&self.prefix);
        last[..16].copy_from_slice(&self.prefix);
        (RecordKey(first), RecordKey(last))
    }
}

/// The map. Reads see the last batch; there must be one writer at a time.
pub(crate) struct SealedMap {
    database: Database,
    records: Keyspace,
    names: IndexNameKey,
    seal: IndexSealKey,
}

impl SealedMap {
    /// Opens the map in `directory`, making it when it isn't there.
    pub(crate) fn open(
        directory: &Path,
        names: &IndexNameKey,
        seal: &IndexSealKey,
    ) -> Result<Self, SealedMapError> {
        // Sealed values don't compress. The limits are small, as every unlocked folder has a map.
        let database = Database::builder(directory)
            .worker_threads(1)
            .cache_size(4 << 20)
            .max_journaling_size(64 << 20)
            .max_cached_files(Some(64))
            .journal_compression(CompressionType::None)
            .open()?;
        let records = database.keyspace("records", || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(4 << 20)
                .data_block_compression_policy(CompressionPolicy::disabled())
        })?;
        let salt = match records.get(HEADER_KEY)? {
            Some(header) => {
                let (version, salt) = header.split_first().ok_or(SealedMapError::Damaged)?;
                if *version != VERSION {
                    return Err(SealedMapError::Version(*version));
                }
                let check = records.get(CHECK_KEY)?.ok_or(SealedMapError::OtherKey)?;
                seal.open_record(&header, &check)
                    .map_err(|_| SealedMapError::OtherKey)?;
                salt.to_vec()
            }
            None => {
                let mut salt = [0; 32];
                let mut rng = rand::rng();
                rng.fill_bytes(&mut salt);
                let header = [&[VERSION], &salt[..]].concat();
                let check = seal.seal_record(&header, &[], &mut rng);
                let mut batch = database.batch();
                batch.insert(&records, HEADER_KEY, header);
                batch.insert(&records, CHECK_KEY, check);
                batch.commit()?;
                salt.to_vec()
            }
        };
        let names = IndexNameKey::from_bytes(names.apply(NAMES_DOMAIN, &salt));
        let map = Self {
            database,
            records,
            names,
            seal: seal.clone(),
        };
        if map.records.contains_key(CLEARING_KEY)? {
            map.clear()?;
        }
        Ok(map)
    }

    /// Removes the map in `directory`, which must not be open.
    pub(crate) fn destroy(directory: &Path) -> Result<(), SealedMapError> {
        match std::fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SealedMapError::Io(error)),
            _ => Ok(()),
        }
    }

    /// The group named `name`.
    pub(crate) fn group(&self, table: Table, name: &[u8]) -> Group {
        let mut prefix = first_16(self.names.apply(2 * table.0, name));
        prefix[0] &= !KEPT_BIT;
        if table.is_kept() {
            prefix[0] |= KEPT_BIT;
        }
        Group { table, prefix }
    }

    /// Removes all records but those of kept tables. After a crash meanwhile the next opening goes on with it.
    pub(crate) fn clear(&self) -> Result<(), SealedMapError> {
        self.records.insert(CLEARING_KEY, [])?;
        let (first, mut last) = ([0; 32], [0xff; 32]);
        last[0] = !KEPT_BIT;
        loop {
            let mut batch = self.database.batch();
            let mut count = 0;
            for guard in self.records.range::<[u8; 32], _>(first..=last) {
                let key = guard.key()?;
                // The records with short keys are the map's own.
                if key.len() == 32 {
                    batch.remove(&self.records, key);
                    count += 1;
                }
                if count == CLEAR_STEP {
                    break;
                }
            }
            if count == 0 {
                break;
            }
            batch.commit()?;
        }
        Ok(self.records.remove(CLEARING_KEY)?)
    }

    /// The key of an item in a group.
    pub(crate) fn key(&self, group: &Group, item: &[u8]) -> RecordKey {
        let input = [&group.prefix[..], item].concat();
        let mut key = [0; 32];
        key[..16].copy_from_slice(&group.prefix);
        key[16..].copy_from_slice(&first_16(self.names.apply(2 * group.table.0 + 1, &input)));
        RecordKey(key)
    }

    /// A short pseudo-random name for bytes, of a table of its own.
    pub(crate) fn name(&self, table: Table, bytes: &[u8]) -> [u8; 16] {
        first_16(self.names.apply(2 * table.0 + 1, bytes))
    }

    /// The value at `key` in the last batch, or in `snapshot`.
    pub(crate) fn get(
        &self,
        key: &RecordKey,
        snapshot: Option<&Snapshot>,
    ) -> Result<Option<Vec<u8>>, SealedMapError> {
        let sealed = match snapshot {
            Some(snapshot) => snapshot.get(&self.records, key.0)?,
            None => self.records.get(key.0)?,
        };
        sealed
            .map(|sealed| self.open_value(&key.0, &sealed))
            .transpose()
    }

    /// The records with keys in `range`, in the order of keys.
    pub(crate) fn range(
        &self,
        range: impl RangeBounds<RecordKey>,
        snapshot: Option<&Snapshot>,
    ) -> impl DoubleEndedIterator<Item = Result<(RecordKey, Vec<u8>), SealedMapError>> {
        let bound = |bound: Bound<&RecordKey>| bound.map(|key| key.0);
        let range = (bound(range.start_bound()), bound(range.end_bound()));
        let iter = match snapshot {
            Some(snapshot) => snapshot.range::<[u8; 32], _>(&self.records, range),
            None => self.records.range::<[u8; 32], _>(range),
        };
        iter.map(|guard| {
            let (key, sealed) = guard.into_inner()?;
            let key: [u8; 32] = key
                .as_ref()
                .try_into()
                .map_err(|_| SealedMapError::Damaged)?;
            Ok((RecordKey(key), self.open_value(&key, &sealed)?))
        })
    }

    /// The map as it is now, whatever is written later. Keep it for a short while only: it holds on to old records.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.database.snapshot()
    }

    /// Puts (`Some`) and removes (`None`) records, all or nothing.
    pub(crate) fn commit(
        &self,
        changes: impl ExactSizeIterator<Item = (RecordKey, Option<Vec<u8>>)>,
        durable: bool,
    ) -> Result<(), SealedMapError> {
        let mut rng = rand::rng();
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), changes.len())
            .durability(Some(if durable {
                PersistMode::SyncData
            } else {
                PersistMode::Buffer
            }));
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(
                    &self.records,
                    key.0,
                    self.seal.seal_record(&key.0, &value, &mut rng),
                ),
                None => batch.remove(&self.records, key.0),
            }
        }
        Ok(batch.commit()?)
    }

    fn open_value(&self, key: &[u8; 32], sealed: &[u8]) -> Result<Vec<u8>, SealedMapError> {
        self.seal
            .open_record(key, sealed)
            .map_err(|_| SealedMapError::Damaged)
    }
}

fn first_16(bytes: [u8; 32]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&bytes[..16]);
    first
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ouisync_crypto::secret::ReadSecret;

    use super::*;

    fn open(directory: &Path) -> Result<SealedMap, SealedMapError> {
        let secret = ReadSecret::from_bytes([1; 32]);
        SealedMap::open(
            directory,
            &secret.index_name_key(),
            &secret.index_seal_key(),
        )
    }

    #[test]
    fn changed_exchanged_and_cut_records_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let map = open(directory.path()).unwrap();
        let group = map.group(Table(1), b"group");
        let keys = [map.key(&group, b"a"), map.key(&group, b"b")];
        let values = [Some(b"first".to_vec()), Some(b"second".to_vec())];
        map.commit(keys.into_iter().zip(values), false).unwrap();
        let sealed: Vec<_> = keys
            .iter()
            .map(|key| map.records.get(key.0).unwrap().unwrap())
            .collect();
        let mut changed = sealed[0].to_vec();
        changed[30] ^= 1;
        for bad in [&changed[..], &sealed[1], &sealed[0][..10], &[]] {
            map.records.insert(keys[0].0, bad).unwrap();
            assert!(matches!(
                map.get(&keys[0], None),
                Err(SealedMapError::Damaged)
            ));
            let (first, last) = group.range();
            assert!(map.range(first..=last, None).any(|record| record.is_err()));
            assert_eq!(map.get(&keys[1], None).unwrap().unwrap(), b"second");
        }
        map.records.insert(keys[0].0, sealed[0].clone()).unwrap();
        assert_eq!(map.get(&keys[0], None).unwrap().unwrap(), b"first");
        assert_eq!(SealedMapError::Damaged.kind(), ErrorKind::Corruption);
    }

    #[test]
    fn a_later_version_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let map = open(directory.path()).unwrap();
        let mut header = map.records.get(HEADER_KEY).unwrap().unwrap().to_vec();
        header[0] = VERSION + 1;
        map.records.insert(HEADER_KEY, header).unwrap();
        drop(map);
        assert!(matches!(
            open(directory.path()),
            Err(SealedMapError::Version(_))
        ));
    }

    #[test]
    fn a_journal_cut_anywhere_gives_an_earlier_state_or_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let map = open(directory.path()).unwrap();
        let group = map.group(Table(1), b"group");
        let keys: Vec<_> = (0u8..20).map(|item| map.key(&group, &[item])).collect();
        for key in &keys {
            map.commit([(*key, Some(vec![7; 100]))].into_iter(), false)
                .unwrap();
        }
        drop(map);
        let journal = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|extension| extension == "jnl"))
            .unwrap();
        let bytes = std::fs::read(&journal).unwrap();
        // The journal is allocated ahead: find where it is used.
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        for lost in [1, 50, 500, 1500] {
            let mut torn = bytes.clone();
            torn[used - lost..].fill(0);
            std::fs::write(&journal, &torn).unwrap();
            let Ok(map) = open(directory.path()) else {
                continue;
            };
            let found: Vec<_> = keys
                .iter()
                .map(|key| map.get(key, None).unwrap().is_some())
                .collect();
            assert!(
                found.is_sorted_by(|earlier, later| earlier >= later),
                "{found:?}"
            );
            assert!(!found[19]);
        }
    }
}
