//! Whole packs: states and figures, storing, reading.

use std::{
    io::ErrorKind,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use ouisync_crypto::{
    frame_hash::{FrameHash, FrameHashes},
    pack::{FRAME_LENGTH, Frame},
};
use ouisync_model::{id::PackId, operation::PackSize};

use crate::{
    catalogue::{PackRecord, Presence, key, pack_of},
    error::StoreError,
    pack_file,
    store::{State, Store, incoming::Partial},
};

/// Packs below this many bytes are left to the system's cache.
const FORGET_FROM: u64 = 4 << 20;

/// What of a pack is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackState {
    /// Live or wanted, nothing of it is here.
    Missing,
    /// Live or wanted, its frame hashes are known and some frames may be here.
    Partial,
    /// Whole and readable, but a power cut may take it.
    Pending,
    /// Whole and durable.
    Stored,
    /// Whole, but no longer (or not yet) live.
    Released {
        /// Age of the store when that began, in seconds (see `AgeClock` in `docs/format/store.md`).
        since: u64,
        /// Whether it is durable.
        durable: bool,
        /// A member said that it need not be kept for history.
        forgotten: bool,
    },
    /// Its file is damaged or gone; [`Store::repair`] makes it missing.
    Damaged,
    /// This device gave it up: it counts as lacking and isn't fetched.
    Offloaded {
        /// Its bytes are still here.
        here: bool,
    },
}

/// A pack that the store has or wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackInfo {
    /// Its size.
    pub size: PackSize,
    /// What of it is here.
    pub state: PackState,
}

/// A live pack that isn't whole here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissingPack {
    /// The pack.
    pub pack: PackId,
    /// Its size.
    pub size: PackSize,
}

/// Figures about a store's packs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of whole packs, live or not.
    pub stored_packs: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// Bytes of those of them that are live; the others are history.
    pub live_bytes: u64,
    /// Number of live packs that are not whole here.
    pub missing_packs: u64,
    /// Bytes that are still to come.
    pub missing_bytes: u64,
    /// Whole packs that are not durable yet.
    pub pending_packs: u64,
    /// Packs found damaged and not repaired yet.
    pub damaged_packs: u64,
    /// Live packs that were offloaded and are not here.
    pub offloaded_packs: u64,
    /// Their bytes.
    pub offloaded_bytes: u64,
    /// Late packs that are to come: history, so none of them is missing.
    pub late_packs: u64,
    /// Their bytes.
    pub late_bytes: u64,
}

impl Store {
    /// What is known of a pack; `None` if it is neither here nor live.
    pub fn pack(&self, pack: PackId) -> Result<Option<PackInfo>, StoreError> {
        Ok(pack_of(self.records(), pack)?.map(|record| {
            let durable = record.presence == Presence::Stored;
            let forgotten = record.forgotten.is_some();
            let state = match (record.presence, record.since) {
                (presence, _) if record.offloaded => PackState::Offloaded {
                    here: presence.is_whole(),
                },
                (Presence::Missing, _) => PackState::Missing,
                (Presence::Partial, _) => PackState::Partial,
                (Presence::Damaged, _) => PackState::Damaged,
                (Presence::Pending | Presence::Stored, Some(since)) => PackState::Released {
                    since,
                    durable,
                    forgotten,
                },
                (Presence::Pending, None) => PackState::Pending,
                (Presence::Stored, None) => PackState::Stored,
            };
            PackInfo {
                size: record.size,
                state,
            }
        }))
    }

    /// Whether the whole pack can be read here.
    pub fn has_pack(&self, pack: PackId) -> Result<bool, StoreError> {
        Ok(pack_of(self.records(), pack)?.is_some_and(|record| record.presence.is_whole()))
    }

    /// Figures about the store's packs; costs nothing.
    pub fn totals(&self) -> Totals {
        let state = self.state();
        // What came of packs that are only wanted isn't missed.
        let received = state.partials.iter();
        let received: u64 = received
            .filter(|(pack, _)| state.missing.contains_key(pack))
            .map(|(_, coming)| coming.received)
            .sum();
        Totals {
            stored_packs: state.stored_packs,
            stored_bytes: state.stored_bytes,
            live_bytes: state.live_bytes,
            missing_packs: state.missing.len() as u64,
            missing_bytes: state.missing_bytes.saturating_sub(received),
            pending_packs: state.pending.len() as u64,
            damaged_packs: state.damaged.len() as u64,
            offloaded_packs: state.offloaded_packs,
            offloaded_bytes: state.offloaded_bytes,
            late_packs: state.late_packs,
            late_bytes: state.late_bytes,
        }
    }

    /// Bytes of live packs that are still to come.
    pub fn missing_bytes(&self) -> u64 {
        self.totals().missing_bytes
    }

    /// Bytes of all live packs that are not whole here, whatever of them has come in.
    pub(crate) fn missing_live_bytes(&self) -> u64 {
        self.state().missing_bytes
    }

    /// Bytes of whole packs, live or not.
    pub fn stored_bytes(&self) -> u64 {
        self.totals().stored_bytes
    }

    /// Live packs that are not whole here, ascending.
    pub fn missing_packs(&self) -> Vec<MissingPack> {
        self.state()
            .missing
            .iter()
            .map(|(pack, size)| MissingPack {
                pack: *pack,
                size: *size,
            })
            .collect()
    }

    /// Live packs that are whole here and not durable yet, ascending.
    pub fn pending_packs(&self) -> Vec<PackId> {
        self.state().pending.iter().copied().collect()
    }

    /// Whether a live pack is not whole here.
    pub fn is_missing(&self, pack: PackId) -> bool {
        self.state().missing.contains_key(&pack)
    }

    /// Stores a pack sealed on this device, as Pending. It isn't live until a commit adds it, and like a released one it is
    /// collected if none ever does. `hashes` were computed from `bytes` when it was sealed and are not computed again.
    pub fn create_pack(&self, hashes: &FrameHashes, bytes: &[u8]) -> Result<(), StoreError> {
        self.store_whole(hashes, bytes, true)
    }

    /// Stores a missing pack that came whole from outside, as Pending, after checking its bytes.
    pub fn receive_pack(&self, pack: PackId, bytes: &[u8]) -> Result<(), StoreError> {
        let record = pack_of(self.records(), pack)?.ok_or(StoreError::UnknownPack(pack))?;
        if record.presence.is_whole() {
            return Ok(());
        }
        if bytes.len() as u64 != record.size.bytes() {
            return Err(StoreError::RangeWrong(pack));
        }
        let frames = pack_file::frames(bytes).ok_or(StoreError::RangeWrong(pack))?;
        let hashes = (0..)
            .zip(frames)
            .map(|(index, frame)| FrameHash::of(record.size, index, frame))
            .collect();
        let hashes = FrameHashes::verified(pack, record.size, hashes)
            .map_err(|_| StoreError::FrameWrong { pack, frame: 0 })?;
        self.store_whole(&hashes, bytes, false)
    }

    fn store_whole(
        &self,
        hashes: &FrameHashes,
        bytes: &[u8],
        unasked: bool,
    ) -> Result<(), StoreError> {
        let pack = hashes.pack();
        let size = PackSize::for_frames(hashes.as_slice().len() as u64)
            .filter(|size| size.bytes() == bytes.len() as u64)
            .ok_or(StoreError::RangeWrong(pack))?;
        self.check_usable()?;
        self.check_space(size.bytes())?;
        let file = pack_file::incoming(pack, self.next_number());
        let written = self
            .backend()
            .write_at(&file, 0, bytes)
            .map_err(StoreError::io("writing a pack"));
        match written.and_then(|()| self.adopt_file(&file, pack, hashes, unasked)) {
            Ok(abandoned) => {
                self.abandon(abandoned);
                Ok(())
            }
            Err(error) => {
                self.discard(&file);
                Err(error)
            }
        }
    }

    /// Makes a complete, verified file in `incoming/` the pack's, as Pending. An `unasked` pack may be one that isn't live.
    /// Returns the partial of this pack that is of no use any more. After an error the file is where it was.
    pub(super) fn adopt_file(
        &self,
        file: &Path,
        pack: PackId,
        hashes: &FrameHashes,
        unasked: bool,
    ) -> Result<Vec<Arc<Mutex<Partial>>>, StoreError> {
        let count = hashes.as_slice().len() as u64;
        let size = PackSize::for_frames(count).ok_or(StoreError::HashesWrong(pack))?;
        let now = self.now();
        self.make_pack_directory(pack)?;
        // The rename happens under the lock, so that nobody collects or adopts the same pack in between.
        let mut state = self.state();
        let mut draft = self.draft(&state)?;
        let record = match draft.pack(pack)? {
            Some(record) if record.presence.is_whole() => {
                self.discard(file);
                return Ok(Vec::new());
            }
            // The catalogue must durably know the old bytes as gone before new ones come.
            Some(record) if record.presence == Presence::Damaged => {
                return Err(StoreError::PackDamaged(pack));
            }
            Some(record) if record.size == size => record.with(Presence::Pending),
            None if unasked => {
                draft.summary.clock.observe(now);
                PackRecord::unused(size, draft.summary.clock.age)
            }
            _ => return Err(StoreError::UnknownPack(pack)),
        };
        draft.set_pack(pack, Some(record))?;
        if size.frames() > 1 {
            draft.put(key::frames(pack), pack_file::encode_hashes(hashes));
        }
        let place = pack_file::path(pack);
        self.backend()
            .rename(file, &place)
            .map_err(StoreError::io("moving a pack to its place"))?;
        self.apply(&mut state, draft, false).inspect_err(|_| {
            if let Err(error) = self.backend().rename(&place, file) {
                tracing::debug!(%pack, %error, "a pack's file stays until the store is next opened");
            }
        })
    }

    fn make_pack_directory(&self, pack: PackId) -> Result<(), StoreError> {
        let byte = pack.as_bytes()[0];
        if self.state().directories.contains(&byte) {
            return Ok(());
        }
        let directory = pack_file::directory(pack);
        self.backend()
            .create_dir(&directory)
            .map_err(StoreError::io("making a directory for packs"))?;
        let State {
            directories,
            new_directories,
            ..
        } = &mut *self.state();
        directories.insert(byte);
        *new_directories = true;
        Ok(())
    }

    /// Removes a file that is of no use; the next opening does it if this fails.
    pub(crate) fn discard(&self, file: &Path) {
        if let Err(error) = self.backend().remove(file) {
            tracing::debug!(file = %file.display(), %error, "an unused file stays until the store is next opened");
        }
    }

    /// Reads `count` frames from frame `first` on, of a whole pack. The bytes are not checked against their hashes.
    pub fn read_frames(&self, pack: PackId, first: u32, count: u32) -> Result<Bytes, StoreError> {
        let record = self.whole(pack)?;
        let end = first
            .checked_add(count)
            .filter(|end| *end <= record.size.frames() && count > 0);
        let end = end.ok_or(StoreError::RangeWrong(pack))?;
        if let Some(frames) = self.recent().read(pack, first..end) {
            return Ok(frames);
        }
        let read = self.backend().read_at(
            &pack_file::path(pack),
            pack_file::offset(first),
            count as usize * FRAME_LENGTH,
        );
        match read {
            Ok(bytes) => Ok(bytes),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) =>
            {
                self.report_damaged(pack)?;
                // It may have been collected meanwhile.
                self.whole(pack)?;
                Err(StoreError::PackDamaged(pack))
            }
            Err(error) => Err(StoreError::io("reading a pack")(error)),
        }
    }

    /// The pack won't be read again soon: its pages leave the memory that the system caches files in, if they are durable.
    /// Small packs stay.
    pub fn forget_cached(&self, pack: PackId, size: PackSize) {
        if size.bytes() >= FORGET_FROM {
            self.backend().forget_cached(&pack_file::path(pack));
        }
    }

    /// Reads one frame of a whole pack and checks it against its hash; a wrong one makes the pack Damaged.
    pub fn read_checked_frame(&self, pack: PackId, index: u32) -> Result<Box<Frame>, StoreError> {
        let bytes = self.read_frames(pack, index, 1)?;
        let mut frame = Box::new([0; FRAME_LENGTH]);
        frame.copy_from_slice(&bytes);
        if self.frame_hashes(pack)?.verifies(index, &frame) {
            return Ok(frame);
        }
        self.report_damaged(pack)?;
        Err(StoreError::PackDamaged(pack))
    }

    /// The frame hashes of a pack that is whole or partly here.
    pub fn frame_hashes(&self, pack: PackId) -> Result<FrameHashes, StoreError> {
        let record = pack_of(self.records(), pack)?.ok_or(StoreError::PackAbsent(pack))?;
        if record.size.frames() == 1 {
            return Ok(FrameHashes::of_single_frame(pack));
        }
        let bytes = self
            .records()
            .get(&key::frames(pack))?
            .ok_or(StoreError::HashesMissing(pack))?;
        pack_file::decode_hashes(pack, record.size, &bytes).ok_or(StoreError::Record {
            table: char::from(key::FRAMES),
        })
    }

    /// Marks a whole pack as damaged: for a reader that could not open a frame of it.
    pub fn report_damaged(&self, pack: PackId) -> Result<(), StoreError> {
        self.change(false, |draft, _| match draft.pack(pack)? {
            Some(record) if record.presence.is_whole() => {
                tracing::warn!(%pack, "a stored pack is damaged");
                draft.set_pack(pack, Some(record.with(Presence::Damaged)))
            }
            _ => Ok(()),
        })
    }

    fn whole(&self, pack: PackId) -> Result<PackRecord, StoreError> {
        match pack_of(self.records(), pack)? {
            Some(record) if record.presence.is_whole() => Ok(record),
            Some(record) if record.presence == Presence::Damaged => {
                Err(StoreError::PackDamaged(pack))
            }
            _ => Err(StoreError::PackAbsent(pack)),
        }
    }
}
