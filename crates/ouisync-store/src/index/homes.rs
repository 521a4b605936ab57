//! Which of several places of a chunk counts: its home.
//!
//! Owns comparing places and moving homes. Must not read packs: the caller has compared a place with the chunk before it makes it the home.

use ouisync_model::{
    id::{ChunkId, PackId},
    operation::ChunkPlace,
};

use super::{
    Index, IndexError, Records,
    batch::IndexBatch,
    contents::{ChunkRecord, PlaceRecord},
    lock, table,
};

/// A place of a chunk, and how it compares with others: of two the greater is preferred, on every device alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// How often the pack was repacked.
    pub round: u8,
    /// The pack.
    pub pack: PackId,
    /// Where in it.
    pub place: ChunkPlace,
}

impl Holding {
    /// Whether this place is to be preferred to the other.
    pub fn is_above(&self, other: &Self) -> bool {
        (self.round, self.pack) > (other.round, other.pack)
    }
}

/// What is known of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkUse {
    /// A value in the tree lists it.
    pub is_used: bool,
    /// The place that counts.
    pub home: Holding,
    /// The other places.
    pub others: Vec<Holding>,
}

impl Index {
    /// What is known of a chunk; `None` without a place.
    pub fn chunk_use(&self, chunk: &ChunkId) -> Result<Option<ChunkUse>, IndexError> {
        let record: Option<ChunkRecord> = self.get(table::CHUNK, chunk.as_bytes(), &[])?;
        let Some(record) = record else {
            return Ok(None);
        };
        let is_used = record.uses_in(lock(&self.shared.meta).generation) > 0;
        let mut places = record.places.iter().map(|place| Holding {
            round: place.round,
            pack: place.pack,
            place: place.of(chunk),
        });
        Ok(places.next().map(|home| ChunkUse {
            is_used,
            home,
            others: places.collect(),
        }))
    }

    /// At most `limit` packs with places of chunks whose home is elsewhere, which nobody has looked at yet.
    pub fn repeating_packs(&self, limit: usize) -> Result<Vec<PackId>, IndexError> {
        self.list(table::REPEATING, &[], limit)
    }
}

impl IndexBatch {
    /// Makes a known place of a chunk its home: the caller has compared it with the chunk.
    pub fn set_home(&mut self, pack: &PackId, place: &ChunkPlace) -> Result<(), IndexError> {
        let mut record = self.chunk_record(&place.chunk)?;
        let wanted = PlaceRecord::new(*pack, 0, place);
        let known = record.places.iter().position(|known| known.is_at(&wanted));
        let Some(at) = known.filter(|at| *at > 0) else {
            return Ok(());
        };
        let (before, after) = (record.places[0], record.places[at]);
        record.places[..=at].rotate_right(1);
        self.put_chunk_record(&place.chunk, &record);
        if record.uses > 0 {
            self.update_pack(after.pack, |pack| pack.count(true, after.stored))?;
            self.update_pack(before.pack, |pack| pack.count(false, before.stored))?;
        }
        Ok(())
    }

    /// Somebody has looked at a pack that repeats chunks of others. One that is `spare` and that nothing uses counts as unreferenced
    /// from now on.
    pub fn looked_at(&mut self, pack: &PackId, spare: bool) -> Result<(), IndexError> {
        self.remove(table::REPEATING, &[], pack.as_bytes());
        let used = self.pack_counters(pack)?;
        if spare && used.is_some_and(|counters| counters.used_chunks == 0) {
            self.put(table::UNUSED, &[], pack.as_bytes(), pack);
        }
        Ok(())
    }
}
