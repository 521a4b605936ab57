//! Where chunks lie and what uses them.
//!
//! A chunk is used once for each time that a value in the tree lists it. A pack is used by the chunks in it that are. A long
//! chunk list is itself stored in chunks, which may not be here when its value arrives: until [`IndexBatch::supply_list`] tells
//! what it lists, it waits among [`Index::pending_lists`], and no pack counts as unreferenced.
//!
//! Of several places of a chunk one counts: its *home*, at first the one that was told first. A use of the chunk is a use of the home's
//! pack alone. Whoever has compared another place with the chunk may make that the home; until somebody has looked, a pack that repeats
//! chunks of others is among [`Index::repeating_packs`].
//!
//! Places outlive [`Index::clear_tree`], as the commits that told them may be gone: content of the past is found by them. What
//! uses them is counted anew for each tree.

use std::collections::{BTreeMap, BTreeSet};

use ouisync_model::{
    id::{ChunkId, CommitId, PackId},
    operation::{ChunkPlace, ChunkRef, Encoding, FileContent, FileData, PackTable, Value},
    tree::{Changes, ContentChange},
};
use serde::{Deserialize, Serialize};

use super::{Index, IndexError, IndexSnapshot, Records, batch::IndexBatch, encode, lock, table};
use crate::content::ChunkPlaces;

/// Ids or references in one record of a longer list.
pub(super) const PART: usize = 1024;

/// What is known of a chunk.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct ChunkRecord {
    /// The tree that `uses` counts for; in another there are none yet.
    generation: u32,
    /// Number of times that values in the tree list it.
    pub(super) uses: u64,
    /// The home first.
    pub(super) places: Vec<PlaceRecord>,
}

impl ChunkRecord {
    /// How often values in this tree list it.
    pub(super) fn uses_in(&self, generation: u32) -> u64 {
        if self.generation == generation {
            self.uses
        } else {
            0
        }
    }

    /// The packs that hold it.
    pub(super) fn packs(&self) -> impl Iterator<Item = PackId> {
        self.places.iter().map(|place| place.pack)
    }
}

/// What is known of a pack.
#[derive(Clone, Serialize, Deserialize)]
struct PackRecord {
    /// The tree that the used ones count for.
    generation: u32,
    counters: PackUse,
}

impl PackRecord {
    /// The counters for this tree.
    fn of(self, generation: u32) -> PackUse {
        let (used_chunks, used_bytes) = if self.generation == generation {
            (self.counters.used_chunks, self.counters.used_bytes)
        } else {
            (0, 0)
        };
        PackUse {
            used_chunks,
            used_bytes,
            ..self.counters
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PlaceRecord {
    pub(super) pack: PackId,
    offset: u32,
    pub(super) stored: u32,
    length: u32,
    encoding: Encoding,
    /// The greatest that was told of the pack with this place.
    pub(super) round: u8,
}

impl PlaceRecord {
    pub(super) fn new(pack: PackId, round: u8, place: &ChunkPlace) -> Self {
        let ChunkPlace {
            chunk: _,
            offset,
            stored,
            length,
            encoding,
        } = *place;
        Self {
            pack,
            offset,
            stored,
            length,
            encoding,
            round,
        }
    }

    /// The same place, whatever is told of the round.
    pub(super) fn is_at(&self, other: &Self) -> bool {
        let round = self.round;
        *self == Self { round, ..*other }
    }

    pub(super) fn of(&self, chunk: &ChunkId) -> ChunkPlace {
        ChunkPlace {
            chunk: *chunk,
            offset: self.offset,
            stored: self.stored,
            length: self.length,
            encoding: self.encoding,
        }
    }
}

/// How much of a pack the tree uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackUse {
    /// The pack.
    pub pack: PackId,
    /// Chunks in it.
    pub chunks: u32,
    /// Bytes that they take in it.
    pub bytes: u64,
    /// Chunks that a value in the tree lists and whose home this is.
    pub used_chunks: u32,
    /// Bytes that these take.
    pub used_bytes: u64,
}

/// A long chunk list: a name of the chunks that hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ListId(pub(super) [u8; 16]);

#[derive(Serialize, Deserialize)]
pub(super) struct ListRecord {
    /// Number of values in the tree that have it.
    pub(super) values: u64,
    /// What it lists is counted.
    pub(super) supplied: bool,
}

/// What a commit tells of the chunks in a pack, or a part of it. Kept by commit, since a checkpoint hands on what is told by the adds
/// that are in force.
#[derive(Serialize, Deserialize)]
pub(super) struct TablePart {
    commit: CommitId,
    pub(super) round: u8,
    pub(super) chunks: Vec<ChunkPlace>,
}

/// The item of a part in the group of its pack.
pub(super) fn part_item(commit: &CommitId, part: u32) -> Vec<u8> {
    [&commit.as_bytes()[..], &part.to_le_bytes()].concat()
}

fn places<R: Records>(
    records: &R,
    chunk: &ChunkId,
) -> Result<Vec<(PackId, ChunkPlace)>, IndexError> {
    let record: Option<ChunkRecord> = records.get(table::CHUNK, chunk.as_bytes(), &[])?;
    let mut places = record.map(|record| record.places).unwrap_or_default();
    // What was repacked last is likeliest to be there.
    places.sort_by_key(|place| std::cmp::Reverse(place.round));
    let place = |place: &PlaceRecord| (place.pack, place.of(chunk));
    Ok(places.iter().map(place).collect())
}

macro_rules! chunk_places {
    ($type:ty) => {
        impl ChunkPlaces for $type {
            fn places(&self, chunk: &ChunkId) -> Result<Vec<(PackId, ChunkPlace)>, IndexError> {
                places(self, chunk)
            }
        }
    };
}

chunk_places!(Index);
chunk_places!(IndexSnapshot);
chunk_places!(IndexBatch);

impl Index {
    /// Whether the index knows a place of this chunk. Whether its pack is live and here is for the caller to see.
    pub fn has_place(&self, chunk: &ChunkId) -> Result<bool, IndexError> {
        Ok(!self.places(chunk)?.is_empty())
    }

    /// How much of each known pack the tree uses, in no order.
    pub fn pack_uses(&self) -> Result<Vec<PackUse>, IndexError> {
        let generation = lock(&self.shared.meta).generation;
        let packs: Vec<PackRecord> = self.list(table::PACK, &[], usize::MAX)?;
        Ok(packs.into_iter().map(|pack| pack.of(generation)).collect())
    }

    /// How much of a pack the tree uses; `None` when its table was not added.
    pub fn pack_use(&self, pack: &PackId) -> Result<Option<PackUse>, IndexError> {
        let generation = lock(&self.shared.meta).generation;
        let record: Option<PackRecord> = self.get(table::PACK, &[], pack.as_bytes())?;
        Ok(record.map(|record| record.of(generation)))
    }

    /// The ids of a pack's chunks.
    pub fn pack_chunks(&self, pack: &PackId) -> Result<Vec<ChunkId>, IndexError> {
        pack_chunks(self, pack)
    }

    /// All that is known of where chunks lie in a pack: for a commit that adds it again.
    pub fn pack_table(&self, pack: &PackId) -> Result<PackTable, IndexError> {
        let parts: Vec<TablePart> = self.list(table::PACK_CHUNKS, pack.as_bytes(), usize::MAX)?;
        let round = parts.iter().map(|part| part.round).max();
        let mut chunks: Vec<ChunkPlace> = parts.into_iter().flat_map(|part| part.chunks).collect();
        chunks.sort_unstable_by_key(|place| (place.offset, place.chunk, place.stored));
        chunks.dedup();
        Ok(PackTable {
            pack: *pack,
            round: round.unwrap_or_default(),
            chunks,
        })
    }

    /// Packs that the tree used and uses no more: candidates for release. A pack that was never used isn't among them, as
    /// its commit may precede the one that uses it. Empty while any list is pending.
    pub fn unreferenced_packs(&self) -> Result<Vec<PackId>, IndexError> {
        if self.pending_lists(1)?.is_empty() {
            self.list(table::UNUSED, &[], usize::MAX)
        } else {
            Ok(Vec::new())
        }
    }

    /// At most `limit` contents in the tree whose long chunk list is not known yet. Read their
    /// [chunks](crate::content::ContentReader::chunks) when they are here and supply them.
    pub fn pending_lists(&self, limit: usize) -> Result<Vec<(ListId, FileContent)>, IndexError> {
        self.list(table::LIST_PENDING, &[], limit)
    }
}

impl Index {
    /// The chunks of a past content with a long list, if they were kept; their order and number mean nothing.
    pub fn past_list(&self, content: &FileContent) -> Result<Option<Vec<ChunkId>>, IndexError> {
        let group = encode(&content.data);
        let parts: Vec<Vec<ChunkId>> = self.list(table::PAST_LIST, &group, usize::MAX)?;
        Ok((!parts.is_empty()).then(|| parts.concat()))
    }
}

fn pack_chunks<R: Records>(records: &R, pack: &PackId) -> Result<Vec<ChunkId>, IndexError> {
    let parts: Vec<TablePart> = records.list(table::PACK_CHUNKS, pack.as_bytes(), usize::MAX)?;
    let places = parts.iter().flat_map(|part| &part.chunks);
    let chunks: BTreeSet<ChunkId> = places.map(|place| place.chunk).collect();
    Ok(chunks.into_iter().collect())
}

impl IndexBatch {
    /// Adds the places that a commit tells of the chunks of packs. Adding them again changes nothing; places that differ from
    /// those known are added beside them, and reading finds out which are true.
    pub fn add_packs<'t>(
        &mut self,
        commit: &CommitId,
        tables: impl IntoIterator<Item = &'t PackTable>,
    ) -> Result<(), IndexError> {
        let mut told: BTreeMap<PackId, (u8, Vec<ChunkPlace>)> = BTreeMap::new();
        for table in tables {
            let (round, chunks) = told.entry(table.pack).or_default();
            *round = table.round.max(*round);
            chunks.extend(&table.chunks);
        }
        for (pack, (round, chunks)) in told {
            for (part, chunks) in (0..).zip(chunks.chunks(PART)) {
                self.add_part(pack, commit, part, round, chunks)?;
            }
        }
        Ok(())
    }

    /// Adds one part of what a commit tells of a pack.
    pub(in crate::index) fn add_part(
        &mut self,
        pack: PackId,
        commit: &CommitId,
        part: u32,
        round: u8,
        chunks: &[ChunkPlace],
    ) -> Result<(), IndexError> {
        let mut repeats = false;
        for place in chunks {
            let mut record = self.chunk_record(&place.chunk)?;
            let new = PlaceRecord::new(pack, round, place);
            let known = record.places.iter_mut().find(|known| known.is_at(&new));
            let is_new = known.is_none();
            match known {
                Some(known) if known.round >= round => {}
                Some(known) => {
                    known.round = round;
                    self.put_chunk_record(&place.chunk, &record);
                }
                None => {
                    record.places.push(new);
                    self.put_chunk_record(&place.chunk, &record);
                }
            }
            let is_home = record.places.first().is_some_and(|home| home.is_at(&new));
            repeats |= record.places.first().is_some_and(|home| home.pack != pack);
            if !is_new {
                continue;
            }
            self.update_pack(pack, |pack| {
                pack.chunks = pack.chunks.saturating_add(1);
                pack.bytes = pack.bytes.saturating_add(u64::from(place.stored));
                if is_home && record.uses > 0 {
                    pack.count(true, place.stored);
                }
            })?;
        }
        if repeats {
            self.put(table::REPEATING, &[], pack.as_bytes(), &pack);
        }
        let record = TablePart {
            commit: *commit,
            round,
            chunks: chunks.to_vec(),
        };
        self.put(
            table::PACK_CHUNKS,
            pack.as_bytes(),
            &part_item(commit, part),
            &record,
        );
        Ok(())
    }

    /// Counts what came into and went out of the tree.
    pub fn account(&mut self, changes: &Changes) -> Result<(), IndexError> {
        // Additions first: what moves from one value to another is used all the time.
        for change in &changes.added {
            self.account_value(change, true)?;
        }
        for change in &changes.dropped {
            self.account_value(change, false)?;
        }
        Ok(())
    }

    /// Tells what a pending list lists.
    pub fn supply_list(&mut self, list: ListId, chunks: &[ChunkRef]) -> Result<(), IndexError> {
        let record: Option<ListRecord> = self.get(table::LIST, &[], &list.0)?;
        let Some(ListRecord {
            values,
            supplied: false,
        }) = record
        else {
            return Ok(());
        };
        self.put(
            table::LIST,
            &[],
            &list.0,
            &ListRecord {
                values,
                supplied: true,
            },
        );
        self.remove(table::LIST_PENDING, &[], &list.0);
        for (index, part) in chunks.chunks(PART).enumerate() {
            self.put(table::LIST_CHUNKS, &list.0, &index.to_le_bytes(), part);
        }
        self.use_chunks(chunks, true)
    }

    /// Keeps the chunks of a past content with a long list: the packs that say which they are will go.
    pub fn put_past_list(
        &mut self,
        content: &FileContent,
        chunks: &[ChunkId],
    ) -> Result<(), IndexError> {
        let group = encode(&content.data);
        for (index, part) in chunks.chunks(PART).enumerate() {
            self.put(table::PAST_LIST, &group, &index.to_le_bytes(), part);
        }
        Ok(())
    }

    fn account_value(&mut self, change: &ContentChange, added: bool) -> Result<(), IndexError> {
        let totals = &mut self.meta.totals;
        let step = |counter: &mut u64, by: u64| {
            *counter = if added {
                counter.saturating_add(by)
            } else {
                counter.saturating_sub(by)
            };
        };
        match &change.value {
            Value::Deleted => Ok(()),
            Value::Directory => {
                step(&mut totals.directories, 1);
                Ok(())
            }
            Value::Symlink(_) => {
                step(&mut totals.symlinks, 1);
                Ok(())
            }
            Value::File(content) => {
                step(&mut totals.files, 1);
                step(&mut totals.bytes, content.size);
                match &content.data {
                    FileData::Inline(..) => Ok(()),
                    FileData::Chunks(chunks) => self.use_chunks(chunks, added),
                    FileData::Indirect(parts) => {
                        self.use_chunks(parts, added)?;
                        self.use_list(content, parts, added)
                    }
                }
            }
        }
    }

    fn use_list(
        &mut self,
        content: &FileContent,
        parts: &[ChunkRef],
        added: bool,
    ) -> Result<(), IndexError> {
        let list = ListId(self.map().name(table::LIST, &encode(parts)));
        let record: Option<ListRecord> = self.get(table::LIST, &[], &list.0)?;
        let mut record = record.unwrap_or(ListRecord {
            values: 0,
            supplied: false,
        });
        let before = record.values;
        record.values = if added {
            before.saturating_add(1)
        } else {
            before.saturating_sub(1)
        };
        if record.values > 0 {
            self.put(table::LIST, &[], &list.0, &record);
            if before == 0 {
                self.put(table::LIST_PENDING, &[], &list.0, &(list, content));
            }
            return Ok(());
        }
        self.remove(table::LIST, &[], &list.0);
        self.remove(table::LIST_PENDING, &[], &list.0);
        if record.supplied {
            let (first, last) = self.group(table::LIST_CHUNKS, &list.0).range();
            for (key, value) in self.values(first, last, usize::MAX)? {
                let part: Vec<ChunkRef> = super::decode(table::LIST_CHUNKS, &value)?;
                self.use_chunks(&part, false)?;
                self.remove_at(key);
            }
        }
        Ok(())
    }

    fn use_chunks(&mut self, chunks: &[ChunkRef], added: bool) -> Result<(), IndexError> {
        for chunk in chunks {
            let mut record = self.chunk_record(&chunk.chunk)?;
            let was_used = record.uses > 0;
            record.uses = if added {
                record.uses.saturating_add(1)
            } else {
                record.uses.saturating_sub(1)
            };
            let is_used = record.uses > 0;
            self.put_chunk_record(&chunk.chunk, &record);
            if was_used != is_used
                && let Some(home) = record.places.first()
            {
                self.update_pack(home.pack, |pack| pack.count(is_used, home.stored))?;
            }
        }
        Ok(())
    }

    pub(super) fn chunk_record(&self, chunk: &ChunkId) -> Result<ChunkRecord, IndexError> {
        let generation = self.meta.generation;
        let record: Option<ChunkRecord> = self.get(table::CHUNK, chunk.as_bytes(), &[])?;
        let mut record = record.unwrap_or_default();
        if record.generation != generation {
            record.generation = generation;
            record.uses = 0;
        }
        Ok(record)
    }

    pub(super) fn put_chunk_record(&mut self, chunk: &ChunkId, record: &ChunkRecord) {
        if record.uses == 0 && record.places.is_empty() {
            self.remove(table::CHUNK, chunk.as_bytes(), &[]);
        } else {
            self.put(table::CHUNK, chunk.as_bytes(), &[], record);
        }
    }

    pub(super) fn update_pack(
        &mut self,
        pack: PackId,
        change: impl FnOnce(&mut PackUse),
    ) -> Result<(), IndexError> {
        let mut updated = self.pack_counters(&pack)?.unwrap_or(PackUse {
            pack,
            chunks: 0,
            bytes: 0,
            used_chunks: 0,
            used_bytes: 0,
        });
        let was_used = updated.used_chunks > 0;
        change(&mut updated);
        match (was_used, updated.used_chunks > 0) {
            (true, false) => self.put(table::UNUSED, &[], pack.as_bytes(), &pack),
            (false, true) => self.remove(table::UNUSED, &[], pack.as_bytes()),
            _ => {}
        }
        self.packs.insert(pack, updated);
        Ok(())
    }

    pub(super) fn pack_counters(&self, pack: &PackId) -> Result<Option<PackUse>, IndexError> {
        if let Some(known) = self.packs.get(pack) {
            return Ok(Some(*known));
        }
        let record: Option<PackRecord> = self.get(table::PACK, &[], pack.as_bytes())?;
        Ok(record.map(|record| record.of(self.meta.generation)))
    }

    /// Puts the packs' counters among the changes.
    pub(super) fn write_packs(&mut self) {
        for (pack, counters) in std::mem::take(&mut self.packs) {
            let record = PackRecord {
                generation: self.meta.generation,
                counters,
            };
            self.put(table::PACK, &[], pack.as_bytes(), &record);
        }
    }
}

impl PackUse {
    /// Counts a chunk as used, or one that was used as used no more.
    pub(super) fn count(&mut self, used: bool, stored: u32) {
        if used {
            self.used_chunks = self.used_chunks.saturating_add(1);
            self.used_bytes = self.used_bytes.saturating_add(u64::from(stored));
        } else {
            self.used_chunks = self.used_chunks.saturating_sub(1);
            self.used_bytes = self.used_bytes.saturating_sub(u64::from(stored));
        }
    }
}
