//! Packs that come in frame by frame, in any order, and go on after a restart.

use std::{
    ops::Range,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use ouisync_crypto::frame_hash::FrameHashes;
use ouisync_crypto::pack::FRAME_LENGTH;
use ouisync_model::{id::PackId, operation::PackSize};

use crate::{
    catalogue::{PackRecord, Presence, key, pack_of},
    error::StoreError,
    pack_file,
    store::Store,
};

/// A pack that is coming in.
pub(super) struct Partial {
    pub(super) size: PackSize,
    pub(super) hashes: FrameHashes,
    pub(super) file: PathBuf,
    /// Which frames are in the file.
    pub(super) have: Vec<bool>,
    /// Nobody wants the pack any more, or it is complete: nothing may be written to the file.
    closed: bool,
}

impl Partial {
    pub(super) fn new(hashes: FrameHashes, size: PackSize, file: PathBuf) -> Self {
        Self {
            size,
            hashes,
            file,
            have: vec![false; size.frames() as usize],
            closed: false,
        }
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.have.iter().filter(|have| **have).count() as u64 * PackSize::FRAME
    }
}

impl Store {
    /// Begins to receive a missing pack, given its frame hashes; goes on where it was left if it was begun before.
    /// Packs of one frame need no beginning.
    pub fn begin_pack(&self, hashes: &FrameHashes) -> Result<(), StoreError> {
        let pack = hashes.pack();
        self.change(false, |draft, state| {
            if state.partials.contains_key(&pack) {
                return Ok(());
            }
            match draft.pack(pack)? {
                // What comes late of a pack that was given up meanwhile is passed over.
                Some(record) if record.offloaded => Ok(()),
                Some(record) if record.presence.is_whole() => Ok(()),
                Some(record) if record.presence != Presence::Damaged => {
                    if record.size.frames() as usize != hashes.as_slice().len() {
                        return Err(StoreError::HashesWrong(pack));
                    }
                    draft.set_pack(
                        pack,
                        Some(PackRecord {
                            presence: Presence::Partial,
                            ..record
                        }),
                    )?;
                    if record.size.frames() > 1 {
                        draft.put(key::frames(pack), pack_file::encode_hashes(hashes));
                    }
                    Ok(())
                }
                Some(record) if record.presence == Presence::Damaged => {
                    Err(StoreError::PackDamaged(pack))
                }
                _ => Err(StoreError::UnknownPack(pack)),
            }
        })
    }

    /// Writes frames of a missing pack from frame `first` on, after checking each against its hash: on an error of kind
    /// Corruption nothing was written and the sender lied. Frames already here are passed over.
    ///
    /// Returns whether the pack is now whole; it is then Pending and readable.
    pub fn write_frames(&self, pack: PackId, first: u32, bytes: &[u8]) -> Result<bool, StoreError> {
        self.write_checked(pack, first, bytes, false)
    }

    /// [`Self::write_frames`] of frames that the caller has checked against the pack's frame hashes.
    pub fn write_verified_frames(
        &self,
        pack: PackId,
        first: u32,
        bytes: &[u8],
    ) -> Result<bool, StoreError> {
        self.write_checked(pack, first, bytes, true)
    }

    fn write_checked(
        &self,
        pack: PackId,
        first: u32,
        bytes: &[u8],
        verified: bool,
    ) -> Result<bool, StoreError> {
        self.check_usable()?;
        let Some(partial) = self.partial(pack)? else {
            return Ok(true);
        };
        let mut partial = partial.lock().unwrap_or_else(PoisonError::into_inner);
        if partial.closed {
            return self.has_pack(pack);
        }
        let frames = pack_file::frames(bytes).ok_or(StoreError::RangeWrong(pack))?;
        let count = u32::try_from(frames.len()).map_err(|_| StoreError::RangeWrong(pack))?;
        let range = match first.checked_add(count) {
            Some(end) if end <= partial.size.frames() && count > 0 => first..end,
            _ => return Err(StoreError::RangeWrong(pack)),
        };
        for (index, frame) in range.clone().zip(frames) {
            let known = verified || partial.have[index as usize];
            if !known && !partial.hashes.verifies(index, frame) {
                return Err(StoreError::FrameWrong { pack, frame: index });
            }
        }
        self.check_space(bytes.len() as u64)?;
        for run in runs(&partial.have, range, false) {
            let slice = &bytes[(run.start - first) as usize * FRAME_LENGTH
                ..(run.end - first) as usize * FRAME_LENGTH];
            self.backend()
                .write_at(&partial.file, pack_file::offset(run.start), slice)
                .map_err(StoreError::io("writing frames"))?;
            partial.have[run.start as usize..run.end as usize].fill(true);
            self.state().count_received(pack, slice.len() as u64);
        }
        if partial.have.contains(&false) {
            return Ok(false);
        }
        partial.closed = true;
        match self.adopt_file(&partial.file, pack, &partial.hashes, false) {
            // What left the state is this partial.
            Ok(_) => Ok(true),
            Err(StoreError::UnknownPack(_)) => {
                // Released while its last frames came in.
                self.discard(&partial.file);
                Err(StoreError::UnknownPack(pack))
            }
            Err(error) => {
                // All frames are in the file, so that the next write or opening completes it.
                partial.closed = false;
                Err(error)
            }
        }
    }

    /// The frames of a pack that are still to come, ascending; all of them when nothing is here, none when it is whole.
    pub fn missing_frames(&self, pack: PackId) -> Result<Vec<Range<u32>>, StoreError> {
        let partial = self
            .state()
            .partials
            .get(&pack)
            .map(|coming| Arc::clone(&coming.partial));
        if let Some(partial) = partial {
            let partial = partial.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(runs(&partial.have, 0..partial.size.frames(), false));
        }
        let record = pack_of(self.records(), pack)?.ok_or(StoreError::UnknownPack(pack))?;
        Ok(if record.presence.is_whole() {
            Vec::new()
        } else {
            std::iter::once(0..record.size.frames()).collect()
        })
    }

    /// The partial of a pack, made when the pack was begun or is of one frame; `None` when it is whole or offloaded.
    fn partial(&self, pack: PackId) -> Result<Option<Arc<Mutex<Partial>>>, StoreError> {
        let mut state = self.state();
        if let Some(coming) = state.partials.get(&pack) {
            return Ok(Some(Arc::clone(&coming.partial)));
        }
        let record = pack_of(self.records(), pack)?.ok_or(StoreError::UnknownPack(pack))?;
        match record.presence {
            presence if presence.is_whole() || record.offloaded => return Ok(None),
            Presence::Damaged => return Err(StoreError::PackDamaged(pack)),
            _ => {}
        }
        let hashes = self.frame_hashes(pack)?;
        let file = pack_file::incoming(pack, self.next_number());
        Ok(Some(state.add_partial(Partial::new(
            hashes,
            record.size,
            file,
        ))))
    }

    /// Completes a pack of which all frames are in its file: one that a crash left so.
    pub(super) fn complete_partial(&self, pack: PackId) -> Result<(), StoreError> {
        let Some(partial) = self.partial(pack)? else {
            return Ok(());
        };
        let mut partial = partial.lock().unwrap_or_else(PoisonError::into_inner);
        partial.closed = true;
        self.adopt_file(&partial.file, pack, &partial.hashes, false)?;
        Ok(())
    }

    /// Closes partials that left the state, and removes their files. Call without holding `state` or a partial.
    pub(super) fn abandon(&self, partials: Vec<Arc<Mutex<Partial>>>) {
        for partial in partials {
            let mut partial = partial.lock().unwrap_or_else(PoisonError::into_inner);
            if !partial.closed {
                partial.closed = true;
                self.discard(&partial.file);
            }
        }
    }
}

/// The runs of frames within `range` whose bit is `wanted`.
fn runs(have: &[bool], range: Range<u32>, wanted: bool) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for index in range {
        if have[index as usize] != wanted {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.end == index => run.end += 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs
}
