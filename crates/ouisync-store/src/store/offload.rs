//! Live packs that this device gives up, because others hold them.
//!
//! First a pack is marked, durably: from then on it counts as lacking here, so that nobody relies on it, though its bytes are still
//! there. Once others have shown that they hold it, its file goes; otherwise it is taken back. A mark of a pack whose file is found at an
//! opening is void: whoever set it did not live to learn whether others hold the pack.
//!
//! Who must hold it is not decided here.

use ouisync_model::{id::PackId, operation::PackSize};

use crate::{
    catalogue::{PackRecord, Presence},
    error::StoreError,
    store::Store,
};

/// Packs removed in one step.
const STEP: usize = 128;

/// A pack that was offloaded and is wanted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenBack {
    /// The pack.
    pub pack: PackId,
    /// Its size.
    pub size: PackSize,
    /// Its bytes were still here.
    pub here: bool,
}

impl Store {
    /// Marks those of the packs that are live and durable here as given up; durable on return. Returns those that are marked now and
    /// weren't before, in the order given.
    pub fn begin_offload(&self, packs: &[PackId]) -> Result<Vec<PackId>, StoreError> {
        self.change(true, |draft, _| {
            let mut marked = Vec::new();
            for pack in packs {
                let Some(record) = draft.pack(*pack)? else {
                    continue;
                };
                if record.is_live() && record.presence == Presence::Stored && !record.offloaded {
                    let offloaded = true;
                    draft.set_pack(
                        *pack,
                        Some(PackRecord {
                            offloaded,
                            ..record
                        }),
                    )?;
                    marked.push(*pack);
                }
            }
            Ok(marked)
        })
    }

    /// Removes the files of packs that are marked; durable on return. Those that were taken back or released since stay. Returns
    /// the number of packs removed and their bytes.
    pub fn finish_offload(&self, packs: &[PackId]) -> Result<(u64, u64), StoreError> {
        let (mut count, mut bytes) = (0, 0);
        for step in packs.chunks(STEP) {
            let moved = self.change(true, |draft, _| {
                for pack in step {
                    let is_marked = |record: &PackRecord| {
                        record.offloaded && record.presence == Presence::Stored
                    };
                    let Some(record) = draft.pack(*pack)?.filter(is_marked) else {
                        continue;
                    };
                    // The file goes first: a marked pack without a file is offloaded at the next opening.
                    if let Err(error) = self.move_to_trash(*pack) {
                        return Ok(Err(error));
                    }
                    let presence = Presence::Missing;
                    draft.set_pack(*pack, Some(PackRecord { presence, ..record }))?;
                    count += 1;
                    bytes += record.size.bytes();
                }
                Ok(Ok(()))
            })?;
            moved?;
            self.empty_trash()?;
        }
        Ok((count, bytes))
    }

    /// Wants offloaded packs again: those that are not here are missing from now on. Returns what changed; others are passed over.
    pub fn take_back(&self, packs: &[PackId]) -> Result<Vec<TakenBack>, StoreError> {
        self.change(false, |draft, _| {
            let mut back = Vec::new();
            for pack in packs {
                let Some(record) = draft.pack(*pack)?.filter(|record| record.offloaded) else {
                    continue;
                };
                // Of one that was released meanwhile nothing is here to take back.
                let again = Some(record.with(record.presence));
                draft.set_pack(*pack, again.filter(PackRecord::is_live))?;
                if record.is_live() {
                    back.push(TakenBack {
                        pack: *pack,
                        size: record.size,
                        here: record.presence.is_whole(),
                    });
                }
            }
            Ok(back)
        })
    }

    /// Gives packs up that were taken back and have not come, with what of them has. Those that are here stay.
    pub fn offload_absent(&self, packs: &[PackId]) -> Result<Vec<PackId>, StoreError> {
        self.change(false, |draft, _| {
            let mut absent = Vec::new();
            for pack in packs {
                let is_absent = |record: &PackRecord| {
                    record.is_live() && !record.presence.has_file() && !record.offloaded
                };
                let Some(record) = draft.pack(*pack)?.filter(is_absent) else {
                    continue;
                };
                let again = PackRecord {
                    presence: Presence::Missing,
                    offloaded: true,
                    ..record
                };
                draft.set_pack(*pack, Some(again))?;
                absent.push(*pack);
            }
            Ok(absent)
        })
    }

    /// Live packs that are given up, those whose bytes are still here among them; ascending.
    pub fn offloaded_packs(&self) -> Vec<PackId> {
        self.state().offloaded.iter().copied().collect()
    }
}
