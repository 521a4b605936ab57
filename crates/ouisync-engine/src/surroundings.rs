//! What a device finds around it: time that passes, chance, threads and disks.
//!
//! The program has [`Real`]. A simulation has its own: then nothing happens but what it lets happen, so that one seed decides all.

use std::{
    fmt, io,
    path::Path,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ouisync_store::{
    error::StoreError,
    store::{Store, StoreOptions},
};
use rand::{SeedableRng, rngs::StdRng};

/// Work beside a folder's thread; it changes the folder only by what it tells that thread.
pub type Work = Box<dyn FnOnce() + Send>;

/// Where a device runs.
pub trait Surroundings: Send + Sync + fmt::Debug {
    /// Time that never goes back. (Wall time is the housekeeping's clock.)
    fn now(&self) -> Instant;

    /// A generator of its own.
    fn rng(&self) -> StdRng;

    /// Waits, in work of [`Self::spawn`] or on a thread of the caller's; `false` when it can't, so that what is waited for won't come.
    fn pause(&self, duration: Duration) -> bool;

    /// Begins work that goes on beside everything else.
    fn spawn(&self, name: &'static str, work: Work) -> io::Result<Running>;

    /// Folders have no threads of their own: whoever tells one something lets it work, too.
    fn in_steps(&self) -> bool;

    /// Opens the store in a folder's directory.
    fn open_store(&self, directory: &Path, options: StoreOptions) -> Result<Store, StoreError>;
}

/// The machine that the program runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Real;

impl Surroundings for Real {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn rng(&self) -> StdRng {
        StdRng::from_rng(&mut rand::rng())
    }

    fn spawn(&self, name: &'static str, work: Work) -> io::Result<Running> {
        let thread = std::thread::Builder::new().name(name.to_owned());
        Ok(Running(Box::new(thread.spawn(work)?)))
    }

    fn pause(&self, duration: Duration) -> bool {
        std::thread::sleep(duration);
        true
    }

    fn in_steps(&self) -> bool {
        false
    }

    fn open_store(&self, directory: &Path, options: StoreOptions) -> Result<Store, StoreError> {
        Store::open_directory(directory, options)
    }
}

/// Work that was begun.
pub struct Running(Box<dyn Begun>);

/// What can be asked of work that was begun.
pub trait Begun: Send {
    /// Whether it has ended.
    fn is_finished(&self) -> bool;

    /// Waits for its end.
    fn join(self: Box<Self>);
}

impl Running {
    /// Work of other surroundings.
    pub fn new(begun: Box<dyn Begun>) -> Self {
        Self(begun)
    }

    /// Whether it has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for its end.
    pub(crate) fn join(self) {
        self.0.join();
    }
}

impl Begun for JoinHandle<()> {
    fn is_finished(&self) -> bool {
        Self::is_finished(self)
    }

    fn join(self: Box<Self>) {
        // A panic was reported when it happened.
        let _ = (*self).join();
    }
}
