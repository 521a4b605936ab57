//! Runs simulations; `cargo xtask simulate` calls it.

use clap::Parser;
use ouisync_testkit::simulation::{Plan, shrink::shrink};

#[derive(Parser)]
struct Options {
    /// Decides the first run; the next one has the next seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Steps of each run
    #[arg(long, default_value_t = 60)]
    steps: usize,
    /// Runs
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Takes the steps from this file, a list in JSON as `shrunk` of a run told in JSON, in place of drawing them
    #[arg(long)]
    script: Option<std::path::PathBuf>,
    /// Tells in JSON
    #[arg(long)]
    json: bool,
    /// Tells everything that happens
    #[arg(long)]
    log: bool,
    /// Tries to make a failing list of steps shorter so many times
    #[arg(long, default_value_t = 60)]
    shrink: usize,
}

#[allow(clippy::print_stdout, reason = "it is a program")]
fn main() -> std::process::ExitCode {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let mut failed = 0;
    for seed in options.seed..options.seed + options.runs {
        let mut plan = Plan::new(seed, options.steps);
        if let Some(script) = &options.script {
            let steps = std::fs::read(script).expect("the script can be read");
            plan.steps = serde_json::from_slice(&steps).expect("the script is a list of steps");
        }
        let begun = std::time::Instant::now();
        let outcome = plan.run();
        let took = begun.elapsed().as_secs_f64();
        if options.log {
            outcome.log.iter().for_each(|line| println!("{line}"));
        }
        let shrunk = outcome
            .failure
            .as_ref()
            .map(|_| shrink(&plan, options.shrink));
        failed += u64::from(shrunk.is_some());
        if options.json {
            println!(
                "{}",
                serde_json::json!({
                    "seed": seed,
                    "steps": options.steps,
                    "failure": outcome.failure,
                    "fingerprint": format!("{:016x}", outcome.fingerprint),
                    "simulated_seconds": outcome.seconds,
                    "contents": outcome.contents,
                    "seconds": took,
                    "shrunk": shrunk.map(|plan| plan.steps),
                })
            );
            continue;
        }
        match (&outcome.failure, shrunk) {
            (Some(failure), Some(shrunk)) => {
                println!("seed {seed}: {failure}");
                if options.shrink > 0 {
                    println!("{} steps suffice:", shrunk.steps.len());
                    tracing::info!("the short run");
                    shrunk.run().log.iter().for_each(|line| println!("{line}"));
                }
                println!(
                    "again: cargo xtask simulate --seed {seed} --steps {} --log",
                    options.steps
                );
            }
            _ => println!(
                "seed {seed}: fine ({} s simulated in {took:.2} s, {} contents, fingerprint {:016x})",
                outcome.seconds, outcome.contents, outcome.fingerprint
            ),
        }
    }
    match failed {
        0 => std::process::ExitCode::SUCCESS,
        _ => std::process::ExitCode::FAILURE,
    }
}
