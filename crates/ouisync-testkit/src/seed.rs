//! Seeds of tests: `OUISYNC_SEED=n cargo test` replays one.

/// The seeds that a test runs: the one of the environment variable `OUISYNC_SEED`, else `0..count`.
pub fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("OUISYNC_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
    {
        Some(seed) => vec![seed],
        None => (0..count).collect(),
    }
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
