//! Whole devices in simulated worlds; see `docs/simulation.md`.
//!
//! What simulations found, and where it is tested by itself:
//! - Who lacked an entry of the roster dropped every peer that knew of a fork, again and again: `ouisync-sync`,
//!   `swarm::who_lacks_the_roster_is_not_dropped_for_a_fork`.
//! - A pack that a kill left undurable was not acknowledged before another came: [`short_lists_that_failed_once`], and
//!   `ouisync-engine`, `storage::what_a_kill_left_undurable_is_acknowledged_after_the_next_start`.
//! - Who was locked while it joined lost the reading key: `ouisync-engine`,
//!   `at_rest::who_locks_before_being_let_in_reads_after_unlocking`.

use ouisync_testkit::{
    seed::seeds_and_fresh,
    simulation::{Plan, shrink::shrink},
};

const STEPS: usize = 60;
/// Seeds of a usual run, `OUISYNC_SEEDS` says otherwise; and those that are others every day. Together they take about three minutes of
/// one core, unoptimised.
const SEEDS: u64 = 240;
const FRESH: u64 = 60;
/// Tests among which they are divided; those run side by side.
const SHARES: u64 = 12;

fn live(plan: &Plan) {
    let Some(failure) = plan.run().failure else {
        return;
    };
    let short = shrink(plan, 60);
    panic!(
        "seed {}: {failure}\n{} steps suffice: {}\nagain: cargo xtask simulate --seed {} --steps {STEPS} --log",
        plan.seed,
        short.steps.len(),
        serde_json::to_string(&short.steps).expect("steps are plain data"),
        plan.seed
    );
}

/// Lets a share of the worlds live.
macro_rules! whole_devices_stay_of_one_mind_and_lose_nothing {
    ($($share:ident: $number:expr,)*) => {
        mod whole_devices_stay_of_one_mind_and_lose_nothing {
            $(#[test]
            fn $share() {
                super::live_share($number);
            })*
        }
    };
}

whole_devices_stay_of_one_mind_and_lose_nothing! {
    first: 0,
    second: 1,
    third: 2,
    fourth: 3,
    fifth: 4,
    sixth: 5,
    seventh: 6,
    eighth: 7,
    ninth: 8,
    tenth: 9,
    eleventh: 10,
    twelfth: 11,
}

fn live_share(share: u64) {
    let seeds = seeds_and_fresh(SEEDS, FRESH).into_iter();
    for seed in seeds.filter(|seed| seed % SHARES == share) {
        live(&Plan::new(seed, STEPS));
    }
}

#[test]
fn short_lists_that_failed_once() {
    let lists = [(104, include_str!("undurable-after-a-kill.json"))];
    for (seed, list) in lists {
        let steps = serde_json::from_str(list).expect("a list of steps");
        live(&Plan { seed, steps });
    }
}

#[test]
fn a_seed_decides_everything() {
    for seed in [1, 2] {
        let plan = Plan::new(seed, STEPS);
        let (first, second) = (plan.run(), plan.run());
        let mut lines = first.log.iter().zip(&second.log);
        assert_eq!(lines.find(|(first, second)| first != second), None);
        assert_eq!(first.fingerprint, second.fingerprint);
    }
}
