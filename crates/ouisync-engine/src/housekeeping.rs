//! How a device looks after its stores: how often, how long it keeps what was released, and how much of the disk it leaves free.
//!
//! Plain settings; what is done by them is in the folder's upkeep.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::repacking::RepackTerms;

/// Settings of a device's upkeep. The default is right for real devices; tests shorten it.
#[derive(Clone)]
pub struct Housekeeping {
    /// Time between two looks at what is due.
    pub tick: Duration,
    /// Time between two searches for packs that nothing uses any more; what two searches in a row find is released.
    pub release: Duration,
    /// Time between two collections of released packs.
    pub collect: Duration,
    /// How long every device keeps released packs, by the time that it observes.
    pub grace: Duration,
    /// How long safes keep them at least, whatever members say, where their host doesn't say otherwise.
    pub floor: Duration,
    /// How long safes keep them where owners have set no policy; `None`: what every safe does then.
    pub safe_retention: Option<Duration>,
    /// Time between two searches for versions that a staggered policy no longer keeps.
    pub thin: Duration,
    /// When packs are repacked.
    pub repack: RepackTerms,
    /// Accepted commits, and their bytes, after which an owner's device makes another checkpoint: either.
    pub checkpoint_commits: u64,
    /// See [`checkpoint_commits`](Self::checkpoint_commits).
    pub checkpoint_bytes: u64,
    /// Least time from when a conflict is found until it is merged; at most eight times that, the more the less this device had
    /// to do with it, so that normally one device merges.
    pub merge: Duration,
    /// Bytes left free on the disk.
    pub reserve: u64,
    /// Seconds since 1970.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Default for Housekeeping {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            tick: Duration::from_secs(1),
            release: Duration::from_secs(60),
            collect: Duration::from_secs(3600),
            grace: 30 * DAY,
            // The grace period again, so that nothing goes sooner by any rule. It is longer than most holidays: the time in which
            // somebody notices that a device was hijacked.
            floor: 30 * DAY,
            safe_retention: None,
            thin: DAY,
            repack: RepackTerms::default(),
            checkpoint_commits: 1000,
            checkpoint_bytes: 32 << 20,
            merge: Duration::from_secs(1),
            reserve: 64 << 20,
            clock: Arc::new(|| {
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| since.as_secs())
            }),
        }
    }
}

impl fmt::Debug for Housekeeping {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Housekeeping")
            .field("tick", &self.tick)
            .field("release", &self.release)
            .field("collect", &self.collect)
            .field("grace", &self.grace)
            .field("floor", &self.floor)
            .field("safe_retention", &self.safe_retention)
            .field("thin", &self.thin)
            .field("repack", &self.repack)
            .field("checkpoint_commits", &self.checkpoint_commits)
            .field("checkpoint_bytes", &self.checkpoint_bytes)
            .field("merge", &self.merge)
            .field("reserve", &self.reserve)
            .finish_non_exhaustive()
    }
}
