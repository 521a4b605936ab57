//! Records in an LSM tree on disk, tuned to be small.

use std::{ops::ControlFlow, path::Path};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};

use crate::{
    backend::CatalogueLimits,
    catalogue::{
        key::{COMMIT, PAST},
        records::{Changes, Records, Visit},
    },
    error::StoreError,
};

/// Two keyspaces: bytes of commits (large values, kept apart from their keys so that compaction never rewrites them) and the rest.
pub struct FjallRecords {
    database: Database,
    commits: Keyspace,
    small: Keyspace,
}

impl std::fmt::Debug for FjallRecords {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("FjallRecords")
    }
}

impl FjallRecords {
    /// Opens or makes the database in `directory`.
    pub fn open(directory: &Path, limits: CatalogueLimits) -> Result<Self, StoreError> {
        let database = Database::builder(directory)
            .cache_size(limits.cache)
            .worker_threads(1)
            .max_cached_files(Some(32))
            .max_journaling_size(64 * 1024 * 1024)
            .open()?;
        let commits = database.keyspace("commits", || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(limits.write_buffer)
                .with_kv_separation(Some(KvSeparationOptions::default()))
        })?;
        let small = database.keyspace("records", || {
            KeyspaceCreateOptions::default().max_memtable_size(limits.write_buffer)
        })?;
        Ok(Self {
            database,
            commits,
            small,
        })
    }

    fn keyspace(&self, key: &[u8]) -> &Keyspace {
        if matches!(key.first(), Some(&(COMMIT | PAST))) {
            &self.commits
        } else {
            &self.small
        }
    }
}

impl Records for FjallRecords {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.keyspace(key).get(key)?.map(|value| value.to_vec()))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        for record in self.keyspace(from).range(from..to) {
            let (key, value) = record.into_inner()?;
            if let ControlFlow::Break(()) = visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, changes: Changes, durable: bool) -> Result<(), StoreError> {
        if changes.is_empty() {
            // The database passes over empty batches, what they ask for included.
            return if durable { self.persist() } else { Ok(()) };
        }
        let mut batch = self.database.batch();
        if durable {
            batch = batch.durability(Some(PersistMode::SyncAll));
        }
        for (key, value) in changes {
            let keyspace = self.keyspace(&key);
            match value {
                Some(value) => batch.insert(keyspace, key, value),
                None => batch.remove(keyspace, key),
            }
        }
        Ok(batch.commit()?)
    }

    fn persist(&self) -> Result<(), StoreError> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}
