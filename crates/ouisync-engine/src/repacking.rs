//! Repacking: what is still used of packs that are small or mostly unused goes into new packs.
//!
//! Owns which packs are worth it, copying their chunks, and comparing copies with the chunks before anything relies on them. Runs beside the
//! folder's thread. Nothing here releases a pack: once the copies are the chunks' homes, nothing uses the old packs any more, and
//! the search for such packs releases them. Why it is done like this: `docs/adr/018-repacking.md`.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use ouisync_crypto::secret::ReadSecret;
use ouisync_model::{
    id::{ChunkId, PackId},
    operation::{PackSize, PackTable},
};
use ouisync_store::{
    content::ContentError,
    index::Index,
    pack_builder::{PackBuffers, PackBuilder, SealedPack, StoredChunk},
    store::{Store, packs::PackState},
};
use rand::rngs::StdRng;
use tracing::{debug, warn};

use crate::{error::EngineError, readable::Readable};

/// Packs up to this class are small: 2 MiB, so that merging makes even these eight times larger.
const SMALL: u8 = 5;
/// A pack is mostly unused when less than one part in so many is used.
const SPARSE: u64 = 3;
/// Bytes that go into new packs with one commit.
const BATCH: u64 = 24 << 20;

/// When packs are repacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepackTerms {
    /// About the time between two searches.
    pub pause: Duration,
    /// Small packs are merged once what is used of them fills the largest of them so many times.
    pub growth: u64,
    /// Mostly unused packs are rewritten once that frees so many bytes.
    pub free: u64,
    /// Most bytes rewritten by one search.
    pub most: u64,
}

impl Default for RepackTerms {
    fn default() -> Self {
        Self {
            pause: Duration::from_secs(24 * 3600),
            growth: 8,
            free: PackSize::MAX.bytes(),
            most: 256 << 20,
        }
    }
}

/// A live pack that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    pack: PackId,
    size: PackSize,
    /// Bytes that would be copied.
    kept: u64,
}

/// The packs to be rewritten, small ones first. With `sparse` also those that are mostly unused.
fn choose(candidates: &[Candidate], terms: &RepackTerms, sparse: bool) -> Vec<Candidate> {
    let kept = |set: &[Candidate]| set.iter().map(|one| one.kept).sum::<u64>();
    let mut chosen = Vec::new();
    let mut small: Vec<Candidate> = candidates.to_vec();
    small.retain(|one| one.size.exponent() <= SMALL);
    small.sort_unstable_by_key(|one| (one.size.exponent(), one.kept, one.pack));
    // All up to the greatest class for which the new packs are so much larger that a byte is copied only a few times in its life.
    while let Some(largest) = small.last().map(|one| one.size) {
        if kept(&small) >= terms.growth.saturating_mul(largest.bytes()) {
            chosen = small;
            break;
        }
        small.retain(|one| one.size < largest);
    }
    if sparse {
        let is_sparse = |one: &&Candidate| {
            // The least class is padded most; there only merging helps.
            one.size.frames() > 1
                && one.kept.saturating_mul(SPARSE) <= one.size.bytes()
                && !chosen.contains(one)
        };
        let mut found: Vec<Candidate> = candidates.iter().filter(is_sparse).copied().collect();
        found.sort_unstable_by_key(|one| (one.kept, one.pack));
        let free: u64 = found.iter().map(|one| one.size.bytes() - one.kept).sum();
        if free >= terms.free {
            chosen.extend(found);
        }
    }
    let mut left = terms.most;
    let within = |one: &Candidate| {
        let fits = one.kept <= left;
        left = left.saturating_sub(one.kept);
        fits
    };
    chosen.into_iter().take_while(within).collect()
}

/// Rewrites packs on behalf of one search.
pub(crate) struct Repack<'a> {
    pub(crate) store: &'a Store,
    pub(crate) readable: &'a Readable,
    pub(crate) terms: RepackTerms,
    /// History is kept for ever: what is not used any more is copied, too, and only small packs are merged.
    pub(crate) everything: bool,
    /// Seals the new packs.
    pub(crate) secret: ReadSecret,
    pub(crate) cancelled: &'a AtomicBool,
}

/// What a search did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repacked {
    /// Packs that were copied from.
    pub(crate) old: usize,
    /// New packs, and their bytes.
    pub(crate) new: usize,
    pub(crate) bytes: u64,
}

impl Repack<'_> {
    /// Finds packs and rewrites them; `announce` makes the new ones of a batch live, with which they are durable.
    pub(crate) fn run(
        &self,
        rng: &mut StdRng,
        announce: &mut dyn FnMut(Vec<(PackTable, PackSize)>) -> Result<(), EngineError>,
    ) -> Result<Repacked, EngineError> {
        let chosen = choose(&self.candidates()?, &self.terms, !self.everything);
        let mut done = Repacked::default();
        let mut rest = chosen.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let within = |one: &&Candidate| {
                bytes += one.kept;
                bytes <= BATCH
            };
            let count = rest.iter().take_while(within).count().max(1);
            let (batch, after) = rest.split_at(count);
            rest = after;
            let mut new = Vec::new();
            let made = self.rewrite(batch, rng, &mut new);
            let (count, size) = (
                new.len(),
                new.iter().map(|(_, size)| size.bytes()).sum::<u64>(),
            );
            let packs: Vec<PackId> = new.iter().map(|(table, _)| table.pack).collect();
            if let Err(error) = made.and_then(|()| announce(new)) {
                // Those that were announced nevertheless are live and stay.
                for pack in packs {
                    self.store.drop_wanted_pack(pack)?;
                }
                return Err(error);
            }
            done.old += batch.len();
            done.new += count;
            done.bytes += size;
        }
        Ok(done)
    }

    fn check(&self) -> Result<(), EngineError> {
        match self.cancelled.load(Ordering::Relaxed) {
            true => Err(EngineError::Stopping),
            false => Ok(()),
        }
    }

    fn candidates(&self) -> Result<Vec<Candidate>, EngineError> {
        let mut found = Vec::new();
        for usage in self.readable.index.pack_uses()? {
            self.check()?;
            if usage.used_chunks == 0 {
                continue;
            }
            // Not what is offloaded or still to come: nothing is fetched for this.
            let info = self.store.pack(usage.pack)?;
            let Some(info) = info.filter(|info| info.state == PackState::Stored) else {
                continue;
            };
            found.push(Candidate {
                pack: usage.pack,
                size: info.size,
                kept: match self.everything {
                    true => usage.bytes,
                    false => usage.used_bytes,
                },
            });
        }
        Ok(found)
    }

    /// Copies a batch into new packs, which are put into `new`.
    fn rewrite(
        &self,
        batch: &[Candidate],
        rng: &mut StdRng,
        new: &mut Vec<(PackTable, PackSize)>,
    ) -> Result<(), EngineError> {
        let kept = batch.iter().map(|one| one.kept).sum::<u64>();
        if !self.store.has_room_for(kept + 2 * PackSize::MAX.bytes()) {
            return Err(EngineError::internal(
                "there is no room on the disk to repack",
            ));
        }
        let rng: StdRng = rand::SeedableRng::from_rng(rng);
        let mut builder = PackBuilder::new(self.secret.clone(), PackBuffers::default(), rng);
        let mut sink = |pack: SealedPack| -> Result<(), EngineError> {
            self.store.create_pack(&pack.frame_hashes, &pack.bytes)?;
            new.push((pack.table, pack.size));
            Ok(())
        };
        let mut reader = self.readable.chunk_reader();
        let (mut plaintext, mut round) = (Vec::new(), 0);
        for one in batch {
            let table = self.readable.index.pack_table(&one.pack)?;
            let Some(next) = table.round.checked_add(1) else {
                continue;
            };
            for place in &table.chunks {
                self.check()?;
                let known = self.readable.index.chunk_use(&place.chunk)?;
                let at_home = known.filter(|known| {
                    known.home.pack == one.pack
                        && known.home.place == *place
                        && (known.is_used || self.everything)
                });
                if at_home.is_none() {
                    continue;
                }
                let bytes = match reader.read_as_stored(&one.pack, place, &mut plaintext) {
                    Ok(bytes) => bytes,
                    Err(ContentError::Damaged(pack)) => {
                        // The rest of it is copied; this is for a repair.
                        self.store.report_damaged(pack)?;
                        break;
                    }
                    Err(error) => return Err(error.into()),
                };
                let stored = StoredChunk {
                    chunk: place.chunk,
                    length: place.length,
                    encoding: place.encoding,
                    bytes: &bytes,
                };
                builder.push(&stored, &mut sink)?;
                round = next.max(round);
            }
        }
        builder.finish(&mut sink)?;
        for (table, _) in new {
            table.round = round;
        }
        Ok(())
    }
}

/// A pack that repeats chunks of others, and is live.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repeating {
    pub(crate) pack: PackId,
    /// It was offloaded, so its copies can't be read.
    pub(crate) absent: bool,
}

/// Compares what packs repeat with the chunks, and lets copies that are right and preferred count from now on.
pub(crate) fn look(
    store: &Store,
    readable: &Readable,
    packs: &[Repeating],
    cancelled: &AtomicBool,
) -> Result<(), EngineError> {
    let index = &readable.index;
    let mut reader = readable.chunk_reader();
    let mut plaintext = Vec::new();
    'packs: for repeating in packs {
        let pack = repeating.pack;
        let table = index.pack_table(&pack)?;
        let (mut homes, mut spare) = (Vec::new(), true);
        for place in &table.chunks {
            if cancelled.load(Ordering::Relaxed) {
                return Err(EngineError::Stopping);
            }
            let Some(known) = index.chunk_use(&place.chunk)? else {
                continue;
            };
            if known.home.pack == pack {
                // What was not repacked may be waiting for the commit that uses it.
                spare &= table.round > 0;
                continue;
            }
            let mut others = known.others.iter();
            let Some(copy) = others.find(|other| other.pack == pack && other.place == *place)
            else {
                continue;
            };
            if store.is_live(known.home.pack)? && !copy.is_above(&known.home) {
                continue;
            }
            // Of what others hold for this device there is nothing to compare.
            let compared = match repeating.absent {
                true => Ok(()),
                false => reader.read_place(&pack, place, &mut plaintext),
            };
            match compared {
                Ok(()) => homes.push(*place),
                Err(ContentError::MissingPack(_)) => continue 'packs,
                Err(error) => warn!(%pack, %error, "a copy of a chunk is not used"),
            }
        }
        debug!(%pack, chunks = homes.len(), of = table.chunks.len(), "looked at copies");
        let mut batch = index.begin();
        for place in &homes {
            batch.set_home(&pack, place)?;
        }
        batch.looked_at(&pack, spare)?;
        batch.commit()?;
    }
    Ok(())
}

/// Whether everything that a pack holds counts elsewhere, in packs that are live: nobody needs it for anything.
pub(crate) fn is_repeated(
    store: &Store,
    index: &Index,
    pack: &PackId,
) -> Result<bool, EngineError> {
    let chunks = index.pack_chunks(pack)?;
    for chunk in &chunks {
        if !counts_elsewhere(store, index, chunk, pack)? {
            return Ok(false);
        }
    }
    Ok(!chunks.is_empty())
}

/// Whether another pack than this one is the chunk's home, and live.
pub(crate) fn counts_elsewhere(
    store: &Store,
    index: &Index,
    chunk: &ChunkId,
    pack: &PackId,
) -> Result<bool, EngineError> {
    let home = index.chunk_use(chunk)?.map(|known| known.home.pack);
    match home.filter(|home| home != pack) {
        Some(home) => Ok(store.is_live(home)?),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests;
