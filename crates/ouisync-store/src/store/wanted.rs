//! Packs that are not live and are wanted nevertheless, for the content of the past.
//!
//! A wanted pack has a record like a released one, without a file. Once it has come it is kept as long as one that was released at
//! that moment. What hasn't come when the store is opened again is no longer wanted. Late packs, which are to come anyway, stay what
//! they are.

use ouisync_model::{id::PackId, operation::PackSize};

use crate::{
    catalogue::{PackRecord, Presence},
    error::StoreError,
    store::Store,
};

impl Store {
    /// Makes room for a pack that is not live, or takes one back that was offloaded. Returns whether it isn't here yet: then its
    /// frames can be written. Any other live one is fetched anyway. `size` must be its size.
    pub fn want_pack(&self, pack: PackId, size: PackSize) -> Result<bool, StoreError> {
        let now = self.now();
        let mut moved = false;
        let wanted = self.change(false, |draft, _| {
            draft.summary.clock.observe(now);
            match draft.pack(pack)? {
                Some(record) if record.offloaded => {
                    draft.set_pack(pack, Some(record.with(record.presence)))?;
                    Ok(!record.presence.is_whole())
                }
                Some(record) if record.presence.is_whole() => Ok(false),
                Some(record) if record.presence != Presence::Damaged => Ok(true),
                Some(record) if record.is_live() => Err(StoreError::PackDamaged(pack)),
                found => {
                    if found.is_some() {
                        self.move_to_trash(pack)?;
                        moved = true;
                    }
                    let record = PackRecord {
                        size,
                        presence: Presence::Missing,
                        since: Some(draft.summary.clock.age),
                        forgotten: None,
                        offloaded: false,
                        late: found.and_then(|record| record.late),
                    };
                    draft.set_pack(pack, Some(record))?;
                    Ok(true)
                }
            }
        })?;
        if moved {
            self.empty_trash()?;
        }
        Ok(wanted)
    }

    /// Removes a pack that is not live, whether it has come or not. Only for one that was wanted and wasn't here before: others are
    /// kept for their time. Returns whether it was there; a live or late one stays.
    pub fn drop_wanted_pack(&self, pack: PackId) -> Result<bool, StoreError> {
        let dropped = self.change(false, |draft, _| match draft.pack(pack)? {
            Some(record) if !record.is_live() && record.late.is_none() => {
                // As in a collection: the record of a pack that isn't live and has no file goes at the next opening.
                self.move_to_trash(pack)?;
                draft.set_pack(pack, None)?;
                Ok(true)
            }
            _ => Ok(false),
        })?;
        if dropped {
            self.empty_trash()?;
        }
        Ok(dropped)
    }

    /// Gives up a wanted pack that hasn't come, with what of it has. One that is live, late or here stays.
    pub fn unwant_pack(&self, pack: PackId) -> Result<(), StoreError> {
        self.change(false, |draft, _| match draft.pack(pack)? {
            Some(record)
                if !record.is_live() && !record.presence.has_file() && record.late.is_none() =>
            {
                draft.set_pack(pack, None)
            }
            _ => Ok(()),
        })
    }
}
