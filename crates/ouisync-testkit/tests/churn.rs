//! What simulated devices hold stays within bounds while they live; see `docs/simulation.md`. The long form, in which it may not grow
//! either, is part of `cargo xtask nightly`.

use ouisync_testkit::simulation::churn::live;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Of four devices; they have about half of it after a day.
const MOST_MEMORY: u64 = 64 << 20;

#[test]
fn hours_of_churn_stay_within_bounds() {
    const HOURS: u64 = 6;
    let allocated = || ALLOCATOR.current_usage() as u64;
    let samples = live(1, HOURS, &allocated, &mut |_| {}).expect("a good life");
    assert_eq!(samples.len() as u64, HOURS);
    for sample in &samples {
        assert!(sample.allocated < MOST_MEMORY, "{sample:?}");
        assert!(sample.threads < 24 && sample.descriptors < 64, "{sample:?}");
    }
}
