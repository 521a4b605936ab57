//! What a simulated device finds around it: the world's time with a wall clock that can be wrong, its own chance, disks in memory,
//! and a list of the work that goes on beside its folders.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ouisync_engine::surroundings::{Running, Surroundings, Work};
use ouisync_store::{
    backend::faulty::{FaultyBackend, Loss},
    error::StoreError,
    store::{Store, StoreOptions},
};
use rand::{SeedableRng, rngs::StdRng};

use super::errand::{self, Errand};

/// Wall time at which worlds begin: one that no real clock shows, so that nobody takes it for that.
const BEGINNING: u64 = 2_000_000_000;

/// The world's time.
#[derive(Debug)]
pub(super) struct Time {
    beginning: Instant,
    nanoseconds: AtomicU64,
}

impl Time {
    pub(super) fn new() -> Self {
        Self {
            beginning: Instant::now(),
            nanoseconds: AtomicU64::new(0),
        }
    }

    /// Since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }

    /// Goes on to that time.
    pub(super) fn set(&self, elapsed: Duration) {
        let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_max(nanoseconds, Ordering::Relaxed);
    }
}

/// One start of a device.
#[derive(Debug)]
pub(super) struct Around {
    time: Arc<Time>,
    /// By how many seconds the device's wall clock is wrong.
    pub(super) wrong: Arc<AtomicI64>,
    rng: Mutex<StdRng>,
    works: Mutex<Vec<(&'static str, Errand)>>,
    disks: Mutex<BTreeMap<PathBuf, FaultyBackend>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Around {
    /// The first start of a device, whose chance comes from this seed.
    pub(super) fn new(time: Arc<Time>, seed: u64) -> Self {
        Self {
            time,
            wrong: Arc::default(),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            works: Mutex::default(),
            disks: Mutex::default(),
        }
    }

    /// The start after this one, on the disks as they are found after that loss.
    pub(super) fn next(&self, loss: Loss) -> Self {
        let disks = lock(&self.disks);
        let disks = disks
            .iter()
            .map(|(name, disk)| (name.clone(), disk.crash(loss)));
        self.with(disks.collect())
    }

    /// The start after this one, on other disks.
    pub(super) fn with(&self, disks: BTreeMap<PathBuf, FaultyBackend>) -> Self {
        Self {
            time: self.time.clone(),
            wrong: self.wrong.clone(),
            rng: Mutex::new(self.rng()),
            works: Mutex::default(),
            disks: Mutex::new(disks),
        }
    }

    /// A copy of the disks.
    pub(super) fn copy_disks(&self) -> BTreeMap<PathBuf, FaultyBackend> {
        let disks = lock(&self.disks);
        let copy =
            |(name, disk): (&PathBuf, &FaultyBackend)| (name.clone(), disk.crash(Loss::Nothing));
        disks.iter().map(copy).collect()
    }

    /// The disks; one for each folder.
    pub(super) fn disks(&self) -> Vec<FaultyBackend> {
        lock(&self.disks).values().cloned().collect()
    }

    /// The work that was begun since the last call.
    pub(super) fn take_works(&self) -> Vec<(&'static str, Errand)> {
        std::mem::take(&mut *lock(&self.works))
    }

    /// The device's wall clock in seconds since 1970.
    pub(super) fn seconds(&self) -> u64 {
        let right = BEGINNING + self.time.elapsed().as_secs();
        right.saturating_add_signed(self.wrong.load(Ordering::Relaxed))
    }
}

impl Surroundings for Around {
    fn now(&self) -> Instant {
        self.time.beginning + self.time.elapsed()
    }

    fn rng(&self) -> StdRng {
        StdRng::from_rng(&mut *lock(&self.rng))
    }

    fn spawn(&self, name: &'static str, work: Work) -> io::Result<Running> {
        let errand = Errand::new(work);
        lock(&self.works).push((name, errand.clone()));
        Ok(Running::new(Box::new(errand)))
    }

    fn pause(&self, duration: Duration) -> bool {
        errand::pause(duration)
    }

    fn in_steps(&self) -> bool {
        true
    }

    fn open_store(&self, directory: &Path, options: StoreOptions) -> Result<Store, StoreError> {
        let name = directory.file_name().unwrap_or_default();
        let disk = lock(&self.disks).entry(name.into()).or_default().clone();
        Store::open(Arc::new(disk), options)
    }
}
