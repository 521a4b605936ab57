//! Short simulations of whole devices.

use ouisync_testkit::{
    seed::seeds,
    simulation::{Plan, shrink::shrink},
};

const STEPS: usize = 60;

#[test]
fn whole_devices_stay_of_one_mind_and_lose_nothing() {
    for seed in seeds(4) {
        let plan = Plan::new(seed, STEPS);
        let outcome = plan.run();
        if let Some(failure) = outcome.failure {
            let short = shrink(&plan, 100);
            panic!(
                "seed {seed}: {failure}\nshrunk: {:#?}\nrun it again with: cargo xtask simulate --seed {seed} --steps {STEPS}",
                short.steps
            );
        }
    }
}

#[test]
fn a_seed_decides_everything() {
    for seed in [1] {
        let plan = Plan::new(seed, STEPS);
        let (first, second) = (plan.run(), plan.run());
        let differs = first
            .log
            .iter()
            .zip(&second.log)
            .find(|(first, second)| first != second);
        assert_eq!(differs, None);
        assert_eq!(first.fingerprint, second.fingerprint);
    }
}
