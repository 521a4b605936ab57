//! The catalogue: commits, chains, live set, pack states and roster entries as records; blind data only.
//!
//! Owns the records' encoding and [`Draft`], the one way to change them. Layout: `docs/format/store.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use ouisync_crypto::commit::{CheckpointDigest, LiveDigest};
use ouisync_model::{
    id::{CommitId, Lamport, MemberId, PackId, Sequence},
    operation::PackSize,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    catalogue::records::{Changes, Records},
    checkpoint::CheckpointCheck,
    error::StoreError,
};

pub mod fjall_records;
pub mod key;
pub mod records;

/// Version of the on-disk format that this code writes.
pub const FORMAT_VERSION: u8 = 1;

/// Whether a commit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disposition {
    /// Merged: its adds and releases are in the live set, and it can be a parent.
    Accepted,
    /// Kept and shown, not merged; its adds and releases are void.
    Quarantined,
}

/// What the catalogue knows of a commit beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitMeta {
    /// Its author.
    pub author: MemberId,
    /// Its number among its author's.
    pub sequence: Sequence,
    /// Its logical time.
    pub lamport: Lamport,
    /// Its parents.
    pub parents: Vec<CommitId>,
    /// Whether it counts.
    pub disposition: Disposition,
    /// When it was accepted here; of no meaning while quarantined.
    pub arrival: u64,
    /// The commit that its author made just before.
    pub follows: Option<CommitId>,
    /// Why its bytes are not here; a checkpoint stands in for them.
    pub absent: Option<Absence>,
}

/// Why the bytes of a commit are not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Absence {
    /// They were dropped here, a checkpoint having covered the commit for long enough.
    Dropped,
    /// They never came: the store started from a checkpoint, for the time of this number.
    Installed(u64),
}

/// What the catalogue knows of a checkpoint, whether its commit's bytes are here or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CheckpointRecord {
    /// What its header says; not known of one that came without bytes.
    pub(crate) digest: Option<CheckpointDigest>,
    pub(crate) check: CheckpointCheck,
    /// Age of the store when its skeleton was found right, or when it came.
    pub(crate) since: u64,
    /// What it covers and doesn't count; known once it is checked.
    pub(crate) quarantined: Vec<CommitId>,
    /// The checkpoints that it covers, that count and whose skeletons are right; known once it is checked.
    pub(crate) covers: Vec<CommitId>,
    /// Everything that it allows to drop was dropped.
    pub(crate) dropped: bool,
}

/// What of a pack is on this disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Presence {
    /// Nothing.
    Missing,
    /// Its frame hashes, and perhaps some frames.
    Partial,
    /// All, but a power cut may take it.
    Pending,
    /// All, durably.
    Stored,
    /// Damaged bytes.
    Damaged,
}

impl Presence {
    /// Whether the pack can be read.
    pub(crate) fn is_whole(self) -> bool {
        matches!(self, Self::Pending | Self::Stored)
    }

    /// Whether nothing of the pack needs removing from `packs/`.
    pub(crate) fn has_file(self) -> bool {
        matches!(self, Self::Pending | Self::Stored | Self::Damaged)
    }
}

/// What the catalogue knows of a pack. There is a record for each pack that is live, was live when it was offloaded, is late, or has a
/// file in `packs/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackRecord {
    pub(crate) size: PackSize,
    pub(crate) presence: Presence,
    /// Age of the store when the pack stopped being live or came without being so; `None` while it is live.
    pub(crate) since: Option<u64>,
    /// Age of the store when an accepted commit said that the pack, which wasn't live, need not be kept for history.
    pub(crate) forgotten: Option<u64>,
    /// This device gave its copy up: it counts as lacking, and isn't fetched. Set while the file is still there, so that nobody
    /// relies on it; of no meaning, and cleared, at the next opening if it then still is.
    pub(crate) offloaded: bool,
    /// It is history that this holder is to keep, and it was not here when it stopped being live, or was lost since. The number
    /// gives its place among such packs. It stays when the pack has come: then it makes room before others do.
    pub(crate) late: Option<u64>,
}

impl PackRecord {
    /// Of a whole pack that came and that no accepted commit adds, at this age of the store.
    pub(crate) const fn unused(size: PackSize, age: u64) -> Self {
        Self {
            size,
            presence: Presence::Pending,
            since: Some(age),
            forgotten: None,
            offloaded: false,
            late: None,
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.since.is_none()
    }

    /// The number of a late pack that is still to come.
    pub(crate) fn awaited(&self) -> Option<u64> {
        let is_history = !self.is_live() && !self.presence.has_file() && self.forgotten.is_none();
        self.late.filter(|_| is_history)
    }

    /// The same pack, no longer offloaded, with this much of it here.
    pub(crate) fn with(self, presence: Presence) -> Self {
        Self {
            presence,
            offloaded: false,
            ..self
        }
    }
}

/// Measures how long released packs were kept: seconds that passed while the store could see them pass.
///
/// A step of the wall clock counts as at most [`AgeClock::MAX_STEP`], a step backwards as nothing. So a clock that jumps
/// years ahead makes nothing collectable at once, and one that was wrong for a time stops nothing for good. The error is
/// always towards keeping: a device that is off for long ages its packs more slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AgeClock {
    /// Wall time last seen, seconds since 1970.
    wall: u64,
    /// Seconds that counted.
    pub(crate) age: u64,
}

impl AgeClock {
    /// Greatest number of seconds that one observation counts for: a day.
    pub(crate) const MAX_STEP: u64 = 24 * 60 * 60;

    /// Takes note of the wall time.
    pub(crate) fn observe(&mut self, now: u64) {
        if self.wall != 0 {
            self.age += now.saturating_sub(self.wall).min(Self::MAX_STEP);
        }
        self.wall = now;
    }
}

/// What is kept about the whole store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) version: u8,
    /// Count and digest of the live packs.
    pub(crate) live: LiveDigest,
    /// Arrival number of the next accepted commit, from 1.
    pub(crate) next_arrival: u64,
    /// How often an accepted commit was quarantined.
    pub(crate) withdrawals: u64,
    pub(crate) clock: AgeClock,
    /// The checkpoint that covers every commit whose bytes are not here.
    pub(crate) base: Option<CommitId>,
    /// How often this store started from a checkpoint.
    pub(crate) installations: u64,
    /// It is just doing so: commits with a greater number are to go.
    pub(crate) installing: bool,
    /// The greatest arrival number of a commit whose bytes were dropped.
    pub(crate) dropped_through: u64,
    /// Packs that stop being live before they came are wanted nevertheless.
    pub(crate) keeps_history: bool,
}

/// Encodes a record; our types have no unencodable values.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("records always encode")
}

/// Decodes a record of `kind`.
pub(crate) fn decode<T: DeserializeOwned>(kind: u8, bytes: &[u8]) -> Result<T, StoreError> {
    postcard::from_bytes(bytes).map_err(|_| unreadable(kind))
}

/// A record's key or value can't be read.
pub(crate) fn unreadable(kind: u8) -> StoreError {
    StoreError::Record {
        table: char::from(kind),
    }
}

/// Visits the records whose keys begin with `prefix`; stops at the visitor's first error.
pub(crate) fn scan_prefix(
    records: &dyn Records,
    prefix: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError>,
) -> Result<(), StoreError> {
    scan_range(records, prefix, &key::end_of(prefix), &mut visit)
}

/// Visits the records with `from` ≤ key < `to`; stops at the visitor's first error.
pub(crate) fn scan_range(
    records: &dyn Records,
    from: &[u8],
    to: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError>,
) -> Result<(), StoreError> {
    let mut outcome = Ok(());
    records.scan(from, to, &mut |key, value| match visit(key, value) {
        Ok(flow) => flow,
        Err(error) => {
            outcome = Err(error);
            ControlFlow::Break(())
        }
    })?;
    outcome
}

/// Reads what is known of a commit.
pub(crate) fn meta_of(
    records: &dyn Records,
    commit: CommitId,
) -> Result<Option<CommitMeta>, StoreError> {
    records
        .get(&key::meta(commit))?
        .map(|bytes| decode(key::META, &bytes))
        .transpose()
}

/// Reads what is known of a pack.
pub(crate) fn pack_of(
    records: &dyn Records,
    pack: PackId,
) -> Result<Option<PackRecord>, StoreError> {
    records
        .get(&key::pack(pack))?
        .map(|bytes| decode(key::PACK, &bytes))
        .transpose()
}

/// A batch in the making; reads see its own changes.
pub(crate) struct Draft<'a> {
    records: &'a dyn Records,
    pub(crate) changes: Changes,
    /// Pack records changed: before and after.
    pub(crate) packs: BTreeMap<PackId, (Option<PackRecord>, Option<PackRecord>)>,
    pub(crate) summary: Summary,
    /// Chain heads: per author the commits that no later one of its follows.
    pub(crate) chains: BTreeMap<MemberId, BTreeMap<CommitId, Sequence>>,
    /// Accepted commits without accepted children.
    pub(crate) heads: BTreeSet<CommitId>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(
        records: &'a dyn Records,
        summary: Summary,
        chains: BTreeMap<MemberId, BTreeMap<CommitId, Sequence>>,
        heads: BTreeSet<CommitId>,
    ) -> Self {
        Self {
            records,
            changes: Changes::new(),
            packs: BTreeMap::new(),
            summary,
            chains,
            heads,
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.changes.get(key) {
            Some(change) => Ok(change.clone()),
            None => self.records.get(key),
        }
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.insert(key, Some(value));
    }

    pub(crate) fn remove(&mut self, key: Vec<u8>) {
        self.changes.insert(key, None);
    }

    /// The first key that begins with `prefix`.
    pub(crate) fn any(&self, prefix: &[u8]) -> Result<bool, StoreError> {
        let end = key::end_of(prefix);
        if self
            .changes
            .range(prefix.to_vec()..end.clone())
            .any(|(_, change)| change.is_some())
        {
            return Ok(true);
        }
        let mut found = false;
        self.records.scan(prefix, &end, &mut |key, _| {
            if self.changes.contains_key(key) {
                return ControlFlow::Continue(());
            }
            found = true;
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// All keys that begin with `prefix`, ascending.
    pub(crate) fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
        let end = key::end_of(prefix);
        let mut keys = BTreeSet::new();
        self.records.scan(prefix, &end, &mut |key, _| {
            keys.insert(key.to_vec());
            ControlFlow::Continue(())
        })?;
        for (key, change) in self.changes.range(prefix.to_vec()..end) {
            match change {
                Some(_) => keys.insert(key.clone()),
                None => keys.remove(key),
            };
        }
        Ok(keys.into_iter().collect())
    }

    pub(crate) fn meta(&self, commit: CommitId) -> Result<Option<CommitMeta>, StoreError> {
        self.get(&key::meta(commit))?
            .map(|bytes| decode(key::META, &bytes))
            .transpose()
    }

    pub(crate) fn set_meta(&mut self, commit: CommitId, meta: &CommitMeta) {
        self.put(key::meta(commit), encode(meta));
    }

    pub(crate) fn checkpoint(
        &self,
        commit: CommitId,
    ) -> Result<Option<CheckpointRecord>, StoreError> {
        self.get(&key::checkpoint(commit))?
            .map(|bytes| decode(key::CHECKPOINT, &bytes))
            .transpose()
    }

    pub(crate) fn set_checkpoint(&mut self, commit: CommitId, record: &CheckpointRecord) {
        self.put(key::checkpoint(commit), encode(record));
    }

    pub(crate) fn pack(&self, pack: PackId) -> Result<Option<PackRecord>, StoreError> {
        match self.packs.get(&pack) {
            Some((_, after)) => Ok(*after),
            None => pack_of(self.records, pack),
        }
    }

    pub(crate) fn set_pack(
        &mut self,
        pack: PackId,
        record: Option<PackRecord>,
    ) -> Result<(), StoreError> {
        let now = self.pack(pack)?;
        let before = match self.packs.get(&pack) {
            Some((before, _)) => *before,
            None => now,
        };
        let awaited = |record: Option<PackRecord>| record.and_then(|record| record.awaited());
        if let Some(number) = awaited(now) {
            self.remove(key::late(number, pack));
        }
        if let Some(number) = awaited(record) {
            self.put(key::late(number, pack), Vec::new());
        }
        self.packs.insert(pack, (before, record));
        match record {
            Some(record) => self.put(key::pack(pack), encode(&record)),
            None => {
                self.remove(key::pack(pack));
                self.remove(key::frames(pack));
            }
        }
        Ok(())
    }

    /// What becomes of a pack of which nothing is here any more: a live one is missing, history is late where history is kept.
    pub(crate) fn lost(&self, record: PackRecord) -> Option<PackRecord> {
        let missing = record.with(Presence::Missing);
        if record.is_live() {
            return Some(missing);
        }
        let late = Some(self.summary.next_arrival);
        let wanted = self.summary.keeps_history && record.forgotten.is_none();
        wanted.then_some(PackRecord { late, ..missing })
    }

    pub(crate) fn add_head(&mut self, commit: CommitId) {
        if self.heads.insert(commit) {
            self.put(key::head(commit), Vec::new());
        }
    }

    pub(crate) fn remove_head(&mut self, commit: CommitId) {
        if self.heads.remove(&commit) {
            self.remove(key::head(commit));
        }
    }
}
