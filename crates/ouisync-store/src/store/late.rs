//! Late packs: history that this holder is to keep and that was not here when it stopped being live, or was lost since.
//!
//! Each has a record like a released pack without a file, and a place in an index, the latest first, until it comes, is live again, is
//! forgotten, or has been late for as long as it would have been kept. A pack that was collected here has no record any more, so it
//! doesn't come again.

use std::ops::ControlFlow;

use ouisync_model::{id::PackId, operation::PackSize};

use crate::{
    catalogue::{key, pack_of, scan_range, unreadable},
    collect::CollectPolicy,
    error::StoreError,
    store::Store,
};

/// A late pack that is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatePack {
    /// Greater than that of all packs that were late before the commit that made it so.
    pub number: u64,
    /// The pack.
    pub pack: PackId,
    /// Its size.
    pub size: PackSize,
    /// It would be collected at once.
    pub is_due: bool,
}

impl Store {
    /// Whether packs that stop being live from now on are to come nevertheless. Kept until it is told otherwise.
    pub fn keep_history(&self, keeps: bool) -> Result<(), StoreError> {
        if self.summary().keeps_history == keeps {
            return Ok(());
        }
        self.change(false, |draft, _| {
            draft.summary.keeps_history = keeps;
            Ok(())
        })
    }

    /// Late packs behind `after`, the latest first, at most `limit`.
    pub fn late_packs(
        &self,
        after: Option<LatePack>,
        limit: usize,
        policy: &CollectPolicy,
    ) -> Result<Vec<LatePack>, StoreError> {
        let mut start = vec![key::LATE];
        if let Some(after) = after {
            start = key::late(after.number, after.pack);
            // The least key above it.
            start.push(0);
        }
        let mut places = Vec::new();
        scan_range(self.records(), &start, &[key::LATE + 1], |key, _| {
            if places.len() == limit {
                return Ok(ControlFlow::Break(()));
            }
            let number = key::number(key, 1).ok_or_else(|| unreadable(key::LATE))?;
            let pack = key::part(key, 9).ok_or_else(|| unreadable(key::LATE))?;
            places.push((u64::MAX - number, PackId::from_bytes(pack)));
            Ok(ControlFlow::Continue(()))
        })?;
        let mut found = Vec::with_capacity(places.len());
        for (number, pack) in places {
            // It may have come meanwhile.
            let late = self.late_pack(pack, policy)?;
            found.extend(late.filter(|late| late.number == number));
        }
        Ok(found)
    }

    /// The pack, if it is late and still to come.
    pub fn late_pack(
        &self,
        pack: PackId,
        policy: &CollectPolicy,
    ) -> Result<Option<LatePack>, StoreError> {
        let record = pack_of(self.records(), pack)?;
        Ok(record.and_then(|record| {
            Some(LatePack {
                number: record.awaited()?,
                pack,
                size: record.size,
                is_due: policy.is_due(&record, self.age()),
            })
        }))
    }

    /// Whether the pack is late and still to come.
    pub fn is_late(&self, pack: PackId) -> Result<bool, StoreError> {
        let record = pack_of(self.records(), pack)?;
        Ok(record.is_some_and(|record| record.awaited().is_some()))
    }
}
