//! Seeds of tests: `OUISYNC_SEED=n cargo test` replays one, `OUISYNC_SEEDS=n cargo test` runs so many.

use std::time::{SystemTime, UNIX_EPOCH};

/// The seeds that a test runs: the one of the environment variable `OUISYNC_SEED`, else `0..count`.
pub fn seeds(count: u64) -> Vec<u64> {
    match number("OUISYNC_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("OUISYNC_SEEDS").unwrap_or(count)).collect(),
    }
}

/// Like [`seeds`], and in the same run `fresh` more, which are others every day.
pub fn seeds_and_fresh(count: u64, fresh: u64) -> Vec<u64> {
    let mut all = seeds(count);
    if number("OUISYNC_SEED").is_none() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let day = now.unwrap_or_default().as_secs() / (24 * 3600);
        all.extend((0..fresh).map(|seed| day * 100_000 + seed));
    }
    all
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Prints how to replay when the test panics while this lives.
pub struct Replay(pub u64);

impl Drop for Replay {
    #[allow(clippy::print_stderr, reason = "how a failing test is replayed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with OUISYNC_SEED={}", self.0);
        }
    }
}
