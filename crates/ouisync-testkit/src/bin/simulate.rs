//! Runs simulations; `cargo xtask simulate` calls it.

use std::{io::Write, process::ExitCode};

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

fn main() -> std::io::Result<ExitCode> {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let mut failed = false;
    for seed in options.seed..options.seed.saturating_add(options.runs) {
        let mut plan = Plan::new(seed, options.steps);
        if let Some(script) = &options.script {
            plan.steps = serde_json::from_slice(&std::fs::read(script)?)?;
        }
        failed |= !run(&options, &plan)?;
    }
    Ok(match failed {
        false => ExitCode::SUCCESS,
        true => ExitCode::FAILURE,
    })
}

/// Runs a plan and tells what came of it; whether all was well.
fn run(options: &Options, plan: &Plan) -> std::io::Result<bool> {
    let mut out = std::io::stdout().lock();
    let (seed, steps) = (plan.seed, options.steps);
    let begun = std::time::Instant::now();
    let outcome = plan.run();
    let took = begun.elapsed().as_secs_f64();
    let tell = |out: &mut dyn Write, log: &[String]| {
        let mut lines = log.iter();
        lines.try_for_each(|line| writeln!(out, "{line}"))
    };
    if options.log {
        tell(&mut out, &outcome.log)?;
    }
    let short = outcome.failure.as_ref();
    let short = short.map(|_| shrink(plan, options.shrink));
    let fingerprint = format!("{:016x}", outcome.fingerprint);
    if options.json {
        let line = serde_json::json!({
            "seed": seed,
            "steps": steps,
            "failure": outcome.failure,
            "fingerprint": fingerprint,
            "simulated_seconds": outcome.seconds,
            "contents": outcome.contents,
            "seconds": took,
            "shrunk": short.map(|plan| plan.steps),
        });
        writeln!(out, "{line}")?;
        return Ok(outcome.failure.is_none());
    }
    match (&outcome.failure, short) {
        (Some(failure), Some(short)) => {
            writeln!(out, "seed {seed}: {failure}")?;
            if options.shrink > 0 {
                writeln!(out, "{} steps suffice:", short.steps.len())?;
                tell(&mut out, &short.run().log)?;
            }
            writeln!(
                out,
                "again: cargo xtask simulate --seed {seed} --steps {steps} --log"
            )?;
        }
        _ => writeln!(
            out,
            "seed {seed}: fine ({} s simulated in {took:.2} s, {} contents, fingerprint {fingerprint})",
            outcome.seconds, outcome.contents
        )?,
    }
    Ok(outcome.failure.is_none())
}
