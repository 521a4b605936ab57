//! How fast many small files are applied. Run on a quiet machine:
//! `cargo test --release -p ouisync-worktree many_small_files -- --ignored --nocapture`

use super::*;

/// Seconds of processor time that this process took.
fn processor_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[test]
#[ignore = "a measurement"]
fn many_small_files() {
    for _ in 0..3 {
        let (one, mut other) = pair();
        for index in 0..10_000_u32 {
            let mut content = vec![0xa5; 4096 + 1];
            content[..4].copy_from_slice(&index.to_le_bytes());
            one.write(&format!("d{}/f{index}", index / 100), content);
        }
        one.fake.settle();
        other.attach_with(WorktreeOptions {
            watch: true,
            ..WorktreeOptions::default()
        });
        other.fake.settle();
        let (start, processor, lookups) = (Instant::now(), processor_time(), other.fake.lookups());
        other.fake.pull(&one.fake);
        let merged = start.elapsed();
        std::thread::sleep(Duration::from_millis(1));
        other
            .fake
            .wait_until("settled", |status| status.settled && status.heard > 0);
        println!(
            "settled in {:.2?} ({merged:.2?} of it merging), {:.2} s of processor time, {} records looked up",
            start.elapsed(),
            processor_time() - processor,
            other.fake.lookups() - lookups,
        );
        std::thread::sleep(Duration::from_millis(300));
        println!(
            "  and {:.2} s in all when quiet",
            processor_time() - processor
        );
        assert_eq!(one.disk(), other.disk());
    }
}
