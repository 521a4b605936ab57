//! Dropping the bytes of commits that a checkpoint stands in for.
//!
//! What is dropped: commits that a checkpoint covers as accepted and that are accepted here, older checkpoints included. What is
//! known of them stays, so that they count as had. The checkpoint is noted first, durably: whatever lacks bytes is covered by it.

use ouisync_model::id::CommitId;

use super::{CheckpointCheck, cover::counts};
use crate::{
    catalogue::{Absence, key},
    error::StoreError,
    store::Store,
};

/// Commits dropped in one step.
const STEP: usize = 256;

impl Store {
    /// Drops what the newest checkpoint allows that was known and right for `keep` seconds of this store's age, and checked as far
    /// as `check`. Returns the number of commits.
    pub(crate) fn drop_covered(
        &self,
        age: u64,
        keep: u64,
        check: CheckpointCheck,
    ) -> Result<u64, StoreError> {
        let old_enough = self
            .usable(check)?
            .into_iter()
            .filter(|(_, record)| age.saturating_sub(record.since) >= keep)
            .max_by_key(|(info, _)| (info.lamport, info.commit));
        let Some((info, record)) = old_enough.filter(|(_, record)| !record.dropped) else {
            return Ok(0);
        };
        let checkpoint = info.commit;
        self.change(true, |draft, _| {
            draft.summary.base = Some(checkpoint);
            Ok(())
        })?;
        let mut due: Vec<CommitId> = Vec::new();
        let mut complete = true;
        for (_, id) in self.closure(&self.meta(checkpoint)?.parents)? {
            let meta = self.meta(id)?;
            if meta.absent.is_some() || record.quarantined.contains(&id) {
                continue;
            }
            // One that the checkpoint accepts and this store quarantines will be accepted when its roster is judged again.
            if counts(&meta) {
                due.push(id);
            } else {
                complete = false;
            }
        }
        let mut dropped = 0;
        for step in due.chunks(STEP) {
            dropped += self.change(false, |draft, _| {
                let mut dropped = 0;
                for id in step {
                    let Some(mut meta) = draft.meta(*id)? else {
                        continue;
                    };
                    if meta.absent.is_some() || !counts(&meta) {
                        complete = false;
                        continue;
                    }
                    draft.remove(key::commit(*id));
                    draft.remove(key::arrival(meta.arrival));
                    let through = &mut draft.summary.dropped_through;
                    *through = (*through).max(meta.arrival);
                    meta.absent = Some(Absence::Dropped);
                    meta.arrival = 0;
                    draft.set_meta(*id, &meta);
                    dropped += 1;
                }
                Ok(dropped)
            })?;
        }
        if complete {
            self.change(true, |draft, _| {
                if let Some(mut record) = draft.checkpoint(checkpoint)? {
                    record.dropped = true;
                    draft.set_checkpoint(checkpoint, &record);
                }
                Ok(())
            })?;
        }
        Ok(dropped)
    }
}
