//! Writing the index: changes gather in memory, reads see them, and one commit makes all of them visible.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ouisync_model::id::{Lamport, PackId};
use serde::Serialize;

use super::{
    IndexError, Meta, Position, Records, Shared, Totals, contents::PackUse, encode, lock, table,
};
use crate::sealed_map::{RecordKey, SealedMap, SealedMapError, Table};

/// Changes of the index that are committed together. Dropping it drops them.
///
/// After an error of any method the batch may hold half of a change: drop it.
pub struct IndexBatch {
    shared: Arc<Shared>,
    changes: BTreeMap<RecordKey, Option<Vec<u8>>>,
    /// Bytes in `changes`.
    bytes: usize,
    /// Packs' counters, decoded, as they change with every chunk.
    pub(super) packs: HashMap<PackId, PackUse>,
    pub(super) meta: Meta,
    durable: bool,
}

impl IndexBatch {
    pub(super) fn new(shared: Arc<Shared>, meta: Meta) -> Self {
        Self {
            shared,
            changes: BTreeMap::new(),
            bytes: 0,
            packs: HashMap::new(),
            meta,
            durable: false,
        }
    }

    /// Number of records that the batch changes so far.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.packs.is_empty() && self.meta == *lock(&self.shared.meta)
    }

    /// Bytes that the changes hold in memory, roughly. Commit a long replay every few MiB.
    pub const fn buffered_bytes(&self) -> usize {
        self.bytes
    }

    /// Notes the Lamport time of an applied commit; the greatest is kept.
    pub fn note_lamport(&mut self, lamport: Lamport) {
        self.meta.position.lamport = self.meta.position.lamport.max(lamport);
    }

    /// How far the index has come with this batch.
    pub const fn position(&self) -> Position {
        self.meta.position
    }

    /// How much is in the tree with this batch.
    pub const fn totals(&self) -> Totals {
        self.meta.totals
    }

    /// Makes the commit survive a power cut, as records that can't be derived must.
    pub const fn make_durable(&mut self) {
        self.durable = true;
    }

    /// Commits everything.
    pub fn commit(mut self) -> Result<(), IndexError> {
        self.commit_part()
    }

    /// Commits everything so far and goes on: for work that is begun anew if it isn't finished.
    pub(in crate::index) fn commit_part(&mut self) -> Result<(), IndexError> {
        if self.is_empty() {
            return Ok(());
        }
        self.write_packs();
        let meta = self.meta;
        self.put(table::META, &[], &[], &meta);
        self.shared
            .map
            .commit(std::mem::take(&mut self.changes).into_iter(), self.durable)?;
        self.bytes = 0;
        *lock(&self.shared.meta) = meta;
        Ok(())
    }

    pub(super) fn put<T: Serialize + ?Sized>(
        &mut self,
        table: Table,
        group: &[u8],
        item: &[u8],
        value: &T,
    ) {
        self.put_at(self.key(table, group, item), encode(value));
    }

    pub(super) fn remove(&mut self, table: Table, group: &[u8], item: &[u8]) {
        self.remove_at(self.key(table, group, item));
    }

    pub(super) fn put_at(&mut self, key: RecordKey, value: Vec<u8>) {
        self.bytes += value.len() + size_of::<RecordKey>() + size_of::<Option<Vec<u8>>>();
        if let Some(Some(before)) = self.changes.insert(key, Some(value)) {
            self.bytes = self.bytes.saturating_sub(before.len());
        }
    }

    pub(super) fn remove_at(&mut self, key: RecordKey) {
        if let Some(Some(before)) = self.changes.insert(key, None) {
            self.bytes = self.bytes.saturating_sub(before.len());
        }
    }
}

impl Drop for IndexBatch {
    fn drop(&mut self) {
        *lock(&self.shared.writing) = false;
        self.shared.written.notify_one();
    }
}

impl Records for IndexBatch {
    fn map(&self) -> &SealedMap {
        &self.shared.map
    }

    fn value(&self, key: &RecordKey) -> Result<Option<Vec<u8>>, SealedMapError> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.shared.map.get(key, None),
        }
    }

    fn values(
        &self,
        first: RecordKey,
        last: RecordKey,
        limit: usize,
    ) -> Result<Vec<(RecordKey, Vec<u8>)>, SealedMapError> {
        let mut values = Vec::new();
        let mut changed = self.changes.range(first..=last).peekable();
        let mut stored = self.shared.map.range(first..=last, None);
        let mut next = stored.next().transpose()?;
        while values.len() < limit {
            let take_changed = match (changed.peek(), &next) {
                (None, None) => break,
                (None, Some(_)) => false,
                (Some(_), None) => true,
                (Some((changed, _)), Some((stored, _))) => *changed <= stored,
            };
            if take_changed {
                let Some((key, value)) = changed.next() else {
                    break;
                };
                if next.as_ref().is_some_and(|(stored, _)| stored == key) {
                    next = stored.next().transpose()?;
                }
                if let Some(value) = value {
                    values.push((*key, value.clone()));
                }
            } else {
                values.extend(next.take());
                next = stored.next().transpose()?;
            }
        }
        Ok(values)
    }
}
