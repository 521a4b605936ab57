//! Garbage collection: removing packs that have not been live for long enough. Needs no keys.

use std::{ops::ControlFlow, time::Duration};

use ouisync_model::id::PackId;

use crate::{
    catalogue::{PackRecord, decode, key, scan_prefix, unreadable},
    error::StoreError,
    pack_file,
    store::Store,
};

/// How long packs that are no longer live are kept. The longest of these counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectPolicy {
    /// Kept by every device: others may refer to the pack again without having seen its release.
    pub grace: Duration,
    /// What the folder's owners ask for.
    pub retention: Duration,
    /// What this device's host insists on, whatever any member says.
    pub floor: Duration,
}

impl CollectPolicy {
    /// The grace period that devices keep to: 30 days.
    pub const GRACE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    fn keep(&self) -> u64 {
        self.grace.max(self.retention).max(self.floor).as_secs()
    }
}

impl Default for CollectPolicy {
    fn default() -> Self {
        Self {
            grace: Self::GRACE,
            retention: Duration::ZERO,
            floor: Duration::ZERO,
        }
    }
}

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Number of packs.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Packs removed in one step.
const STEP: usize = 128;

impl Store {
    /// Removes packs that have not been live for as long as `policy` says, by the time that this store saw pass since it took
    /// note (a clock step counts as at most a day, so a wrong clock drops nothing at once). `now` is in seconds since 1970.
    /// Call it every few hours: only observed time counts. Live packs are never touched.
    pub fn collect(&self, now: u64, policy: &CollectPolicy) -> Result<Collected, StoreError> {
        let age = self.change(false, |draft, _| {
            draft.summary.clock.observe(now);
            Ok(draft.summary.clock.age)
        })?;
        let keep = policy.keep();
        let is_old = |record: &PackRecord| {
            record
                .since
                .is_some_and(|since| age.saturating_sub(since) >= keep)
        };
        let mut candidates = Vec::new();
        scan_prefix(self.records(), &[key::PACK], |key, value| {
            if is_old(&decode(key::PACK, value)?) {
                candidates.push(PackId::from_bytes(
                    key::part(key, 1).ok_or_else(|| unreadable(key::PACK))?,
                ));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut collected = Collected::default();
        for step in candidates.chunks(STEP) {
            let (packs, bytes, moved) = self.change(true, |draft, _| {
                let (mut packs, mut bytes, mut moved) = (0, 0, Ok(()));
                for pack in step {
                    // It may have become live again since the scan; from here on the state is locked.
                    let Some(record) = draft.pack(*pack)?.filter(is_old) else {
                        continue;
                    };
                    // The file goes first: if the batch is lost in a crash, the record of a pack that isn't live goes at the
                    // next opening.
                    moved = self.move_to_trash(*pack);
                    if moved.is_err() {
                        break;
                    }
                    draft.set_pack(*pack, None)?;
                    (packs, bytes) = (packs + 1, bytes + record.size.bytes());
                }
                Ok((packs, bytes, moved))
            })?;
            moved?;
            collected.packs += packs;
            collected.bytes += bytes;
            self.empty_trash()?;
        }
        Ok(collected)
    }

    /// Moves a pack's file to the trash; succeeds when there is none.
    pub(crate) fn move_to_trash(&self, pack: PackId) -> Result<(), StoreError> {
        let target = pack_file::trash(&pack.to_string(), self.next_number());
        match self.backend().rename(&pack_file::path(pack), &target) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(StoreError::io("moving a pack to the trash")),
        }
    }
}
