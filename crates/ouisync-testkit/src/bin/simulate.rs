//! Runs simulations; `cargo xtask simulate` calls it.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use ouisync_testkit::simulation::{Plan, churn, shrink::shrink};
use peak_alloc::PeakAlloc;

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
    /// In place of runs of steps: so many simulated hours of one world, in which nothing may grow
    #[arg(long, conflicts_with_all = ["script", "runs", "log"])]
    churn: Option<u64>,
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

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn main() -> std::io::Result<ExitCode> {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    if let Some(hours) = options.churn {
        return live(&options, hours);
    }
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

/// Lets one world live and tells what it holds, hour by hour.
fn live(options: &Options, hours: u64) -> std::io::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let mut written = Ok(());
    let mut tell = |sample: &churn::Sample| {
        let line = match options.json {
            true => serde_json::json!(sample).to_string(),
            false => format!("{sample:?}"),
        };
        if written.is_ok() {
            written = writeln!(out, "{line}");
        }
    };
    let allocated = || ALLOCATOR.current_usage() as u64;
    let lived = churn::live(options.seed, hours, &allocated, &mut tell);
    written?;
    let failure = match lived {
        Ok(samples) => churn::growth(&samples),
        Err(failure) => Some(failure),
    };
    match failure {
        None => {
            writeln!(out, "seed {}: nothing grew in {hours} hours", options.seed)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(failure) => {
            writeln!(out, "seed {}: {failure}", options.seed)?;
            Ok(ExitCode::FAILURE)
        }
    }
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
