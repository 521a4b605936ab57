//! Whole devices in a world that one seed makes: engines with their real folders, stores, indexes, key stores and sessions, over
//! simulated time, chance, disks and network.
//!
//! **How it is made the same each time.** One thing happens at a time: folders do what waits for them when the world lets them,
//! and work beside them (flushes, merges, checks), which may wait for something, goes on only while the world stands still, at moments
//! that it draws. Time passes only from event to
//! event. Randomness comes from the seed. Three things are not the world's: the index's database has a thread of its own for
//! compaction (it changes nothing that is read), packs are compressed on a thread that the one who writes waits for, and some nonces
//! of the key store (nothing depends on them).
//!
//! What is simulated and what isn't, how to run it and read a failure: `docs/simulation.md`.

mod around;
mod check;
mod device;
mod errand;
mod log;
pub mod script;
pub mod shrink;
mod user;
mod wire;
mod world;

pub use world::churn;

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::{SeedableRng, rngs::StdRng};
use script::Step;

/// A world to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything that the steps don't.
    pub seed: u64,
    /// What happens.
    pub steps: Vec<Step>,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What is wrong, if anything.
    pub failure: Option<String>,
    /// What happened, line by line; for people.
    pub log: Vec<String>,
    /// Two runs of one plan have the same.
    pub fingerprint: u64,
    /// Simulated seconds.
    pub seconds: u64,
    /// Contents that were acknowledged.
    pub contents: usize,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64, steps: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let steps = script::script(&mut rng, steps);
        Self { seed, steps }
    }

    /// Makes the world and lets it happen.
    pub fn run(&self) -> Outcome {
        let mut log = log::Log::default();
        let result = catch_unwind(AssertUnwindSafe(|| world::run(self, &mut log)));
        let failure = match result {
            Ok(Ok(())) => None,
            Ok(Err(violation)) => Some(violation),
            Err(panic) => Some(format!("panicked: {}", message(&*panic))),
        };
        log.outcome(failure)
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "with something that is no text".to_owned())
}
