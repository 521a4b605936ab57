//! Garbage collection: removing packs that have not been live for long enough. Needs no keys.

use std::{ops::ControlFlow, time::Duration};

use ouisync_model::id::PackId;

use crate::{
    catalogue::{PackRecord, decode, key, scan_prefix, unreadable},
    checkpoint::CheckpointCheck,
    error::StoreError,
    pack_file,
    store::Store,
};

/// How long packs that are no longer live are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectPolicy {
    /// Kept by every device: others may refer to the pack again without having seen its release.
    pub grace: Duration,
    /// What the folder's owners ask for; `None`: never drop what nobody said to forget.
    pub retention: Option<Duration>,
    /// What this device's host insists on, whatever any member says.
    pub floor: Duration,
    /// Most bytes that packs may take. Above it the packs that are not live go, those that stopped being live first before the
    /// others, but none before `quota_floor`. Before all of them go late ones, at any time: they came only because there was room.
    pub quota: Option<u64>,
    /// What must have passed since a pack was live before it may make room.
    pub quota_floor: Duration,
    /// How far a checkpoint must have been checked here before the bytes of commits that it covers are dropped:
    /// [`CheckpointCheck::Whole`] on a device that reads the folder, [`CheckpointCheck::Blind`] on others.
    pub check: CheckpointCheck,
}

impl CollectPolicy {
    /// The grace period that devices keep to: 30 days.
    pub const GRACE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    /// Whether a pack that is not live has been kept for long enough at this age of the store, whatever the quota.
    pub(crate) fn is_due(&self, record: &PackRecord, age: u64) -> bool {
        let passed = |since: Option<u64>, keep: Duration| {
            since.is_some_and(|since| age.saturating_sub(since) >= keep.as_secs())
        };
        let least = self.grace.max(self.floor);
        // What is forgotten counts from when this store learned of it: nobody can make it go at once.
        let forgotten = record.forgotten.max(record.since);
        passed(record.forgotten.and(forgotten), least)
            || self
                .retention
                .is_some_and(|retention| passed(record.since, least.max(retention)))
    }
}

impl Default for CollectPolicy {
    fn default() -> Self {
        Self {
            grace: Self::GRACE,
            retention: Some(Duration::ZERO),
            floor: Duration::ZERO,
            quota: None,
            quota_floor: Duration::ZERO,
            check: CheckpointCheck::Whole,
        }
    }
}

/// What a collection removed, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Number of packs.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of the packs went only because of the quota.
    pub for_quota: u64,
    /// Number of commits whose bytes were dropped.
    pub commits: u64,
}

/// Packs removed in one step.
const STEP: usize = 128;

/// A pack that may go, and why.
struct Candidate {
    pack: PackId,
    since: u64,
    bytes: u64,
    /// Not so of one that was offloaded.
    has_file: bool,
    for_quota: bool,
    is_late: bool,
}

impl Store {
    /// Removes packs that have not been live for as long as `policy` says, by the time that this store saw pass since it took
    /// note (a clock step counts as at most a day, so a wrong clock drops nothing at once), and the bytes of commits that a checkpoint
    /// which was known and right for as long stands in for. `now` is in seconds since 1970.
    /// Call it every few hours: only observed time counts. Live packs are never touched.
    pub fn collect(&self, now: u64, policy: &CollectPolicy) -> Result<Collected, StoreError> {
        let age = self.change(false, |draft, _| {
            draft.summary.clock.observe(now);
            Ok(draft.summary.clock.age)
        })?;
        let candidates = self.collectable(policy, age)?;
        let mut collected = Collected::default();
        for step in candidates.chunks(STEP) {
            let (part, moved) = self.change(true, |draft, _| {
                let (mut part, mut moved) = (Collected::default(), Ok(()));
                for candidate in step {
                    let Candidate {
                        pack,
                        since,
                        for_quota,
                        ..
                    } = *candidate;
                    // It may have become live again since the scan, or live and released; from here on the state is locked.
                    let is_same = |record: &PackRecord| record.since == Some(since);
                    let Some(record) = draft.pack(pack)?.filter(is_same) else {
                        continue;
                    };
                    // The file goes first: if the batch is lost in a crash, the record of a pack that isn't live goes at the
                    // next opening.
                    moved = self.move_to_trash(pack);
                    if moved.is_err() {
                        break;
                    }
                    draft.set_pack(pack, None)?;
                    if !record.presence.has_file() {
                        continue;
                    }
                    part.packs += 1;
                    part.bytes += record.size.bytes();
                    part.for_quota += u64::from(for_quota);
                }
                Ok((part, moved))
            })?;
            moved?;
            collected.add(&part);
            tracing::debug!(
                packs = collected.packs,
                of = candidates.len(),
                bytes = collected.bytes,
                "collecting"
            );
            self.empty_trash()?;
        }
        if let Some(retention) = policy.retention {
            let keep = policy.grace.max(policy.floor).max(retention).as_secs();
            collected.commits = self.drop_covered(age, keep, policy.check)?;
        }
        Ok(collected)
    }

    /// What [`Self::collect`] would remove if `later` had passed since now.
    pub fn collection(
        &self,
        policy: &CollectPolicy,
        later: Duration,
    ) -> Result<Collected, StoreError> {
        let age = self.age().saturating_add(later.as_secs());
        let mut collected = Collected::default();
        for candidate in self.collectable(policy, age)? {
            if !candidate.has_file {
                continue;
            }
            collected.add(&Collected {
                packs: 1,
                bytes: candidate.bytes,
                for_quota: u64::from(candidate.for_quota),
                commits: 0,
            });
        }
        Ok(collected)
    }

    /// What is here, not live, and said to be forgotten.
    pub fn forgotten(&self) -> Result<Collected, StoreError> {
        let mut found = Collected::default();
        scan_prefix(self.records(), &[key::PACK], |_, value| {
            let record: PackRecord = decode(key::PACK, value)?;
            if record.forgotten.is_some() && record.presence.has_file() {
                found.packs += 1;
                found.bytes += record.size.bytes();
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// Seconds that this store saw pass, as of the last observation.
    pub fn age(&self) -> u64 {
        self.summary().clock.age
    }

    /// The packs that may go at this age.
    fn collectable(&self, policy: &CollectPolicy, age: u64) -> Result<Vec<Candidate>, StoreError> {
        let (mut due, mut spare, mut gone) = (Vec::new(), Vec::new(), 0);
        scan_prefix(self.records(), &[key::PACK], |key, value| {
            let record: PackRecord = decode(key::PACK, value)?;
            let Some(since) = record.since else {
                return Ok(ControlFlow::Continue(()));
            };
            let pack = key::part(key, 1).ok_or_else(|| unreadable(key::PACK))?;
            let mut candidate = Candidate {
                pack: PackId::from_bytes(pack),
                since,
                bytes: record.size.bytes(),
                has_file: record.presence.has_file(),
                for_quota: false,
                is_late: record.late.is_some(),
            };
            let (is_whole, is_late) = (record.presence.is_whole(), candidate.is_late);
            if policy.is_due(&record, age) {
                gone += if is_whole { candidate.bytes } else { 0 };
                due.push(candidate);
            } else if policy.quota.is_some()
                && is_whole
                && (is_late || age.saturating_sub(since) >= policy.quota_floor.as_secs())
            {
                candidate.for_quota = true;
                spare.push(candidate);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if let Some(quota) = policy.quota {
            let totals = self.totals();
            // What is live and still to come needs room, too.
            let mut taken = (totals.stored_bytes + self.missing_live_bytes()).saturating_sub(gone);
            spare.sort_unstable_by_key(|candidate| {
                (!candidate.is_late, candidate.since, candidate.pack)
            });
            for candidate in spare {
                if taken <= quota {
                    break;
                }
                taken = taken.saturating_sub(candidate.bytes);
                due.push(candidate);
            }
        }
        Ok(due)
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

impl Collected {
    fn add(&mut self, other: &Self) {
        self.packs += other.packs;
        self.bytes += other.bytes;
        self.for_quota += other.for_quota;
        self.commits += other.commits;
    }
}
