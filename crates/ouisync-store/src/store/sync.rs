//! Making packs and the catalogue durable, many at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
};

use ouisync_model::{id::PackId, operation::PackSize};

use crate::{
    catalogue::{PackRecord, Presence},
    error::StoreError,
    pack_file,
    store::Store,
};

impl Store {
    /// Makes all Pending packs, and all that the catalogue took so far, durable: files, then their directories (once each),
    /// then the catalogue. Returns the packs that became Stored: what a peer may now be told is received.
    ///
    /// Costs nothing when there is nothing to do. When a pack can't be made durable it counts as lost (live ones are missing
    /// again) and the store refuses writes until reopened; packs that were made durable stay.
    pub fn sync_packs(&self) -> Result<Vec<PackId>, StoreError> {
        let _one_at_a_time = self
            .inner
            .syncing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (packs, new_directories) = {
            let mut state = self.state();
            if state.poisoned {
                return Err(StoreError::Poisoned);
            }
            if state.pending.is_empty() && !state.dirty {
                return Ok(Vec::new());
            }
            let packs: Vec<PackId> = state.pending.iter().copied().collect();
            (packs, std::mem::take(&mut state.new_directories))
        };
        let mut failed = self.sync_files(&packs);
        let directories: BTreeSet<_> = packs
            .iter()
            .map(|pack| pack_file::directory(*pack))
            .collect();
        let mut names = Ok(());
        if new_directories {
            names = self.backend().sync_dir(Path::new(pack_file::PACKS));
        }
        for directory in &directories {
            names = names.and_then(|()| self.backend().sync_dir(directory));
        }
        if let Err(error) = names {
            // Any of the names may be lost.
            let kind = error.kind();
            failed.extend(packs.iter().map(|pack| (*pack, io::Error::from(kind))));
        }
        let stored = {
            let mut state = self.state();
            let mut draft = self.draft(&state)?;
            let mut stored = Vec::new();
            for pack in packs {
                // Collected or found damaged meanwhile?
                let Some(record) = draft
                    .pack(pack)?
                    .filter(|record| record.presence == Presence::Pending)
                else {
                    continue;
                };
                if failed.contains_key(&pack) {
                    // What the page cache still shows may not be on the disk: never trust this file again.
                    self.discard(&pack_file::path(pack));
                    let lost = draft.lost(record);
                    draft.set_pack(pack, lost)?;
                } else {
                    draft.set_pack(
                        pack,
                        Some(PackRecord {
                            presence: Presence::Stored,
                            ..record
                        }),
                    )?;
                    stored.push((pack, record.size));
                }
            }
            let applied = self.apply(&mut state, draft, true);
            if let Some((pack, source)) = failed.into_iter().next() {
                tracing::error!(%pack, error = %source, "a pack could not be made durable");
                state.poisoned = true;
                return Err(StoreError::Sync {
                    operation: "a pack",
                    source,
                });
            }
            // Only live, incomplete packs have partials.
            applied?;
            stored
        };
        for (pack, size) in &stored {
            // Full packs come from much data: to keep it all in memory until it is read again costs more than reading it.
            if *size == PackSize::MAX {
                self.forget_cached(*pack, *size);
            }
        }
        Ok(stored.into_iter().map(|(pack, _)| pack).collect())
    }

    /// Syncs the packs' files; returns those that failed.
    fn sync_files(&self, packs: &[PackId]) -> BTreeMap<PackId, io::Error> {
        let failed = Mutex::new(BTreeMap::new());
        let sync = |share: &[PackId]| {
            for pack in share {
                match self.backend().sync_file(&pack_file::path(*pack)) {
                    Ok(()) => {}
                    // Collected meanwhile.
                    Err(error)
                        if error.kind() == io::ErrorKind::NotFound && !self.is_pending(*pack) => {}
                    Err(error) => {
                        failed
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .insert(*pack, error);
                    }
                }
            }
        };
        let share = packs.len().div_ceil(self.backend().syncs_at_once()).max(1);
        if packs.len() <= share {
            sync(packs);
        } else {
            thread::scope(|scope| {
                for part in packs.chunks(share) {
                    scope.spawn(|| sync(part));
                }
            });
        }
        failed.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_pending(&self, pack: PackId) -> bool {
        self.state().pending.contains(&pack)
    }
}
