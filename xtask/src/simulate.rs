//! `cargo xtask simulate`: whole devices in simulated worlds, by the test kit's program.

use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;

#[derive(Args)]
pub(crate) struct Options {
    /// Decides the first run; each further run has the next seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Steps of each run
    #[arg(long, default_value_t = 60)]
    steps: usize,
    /// Runs
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Tell in JSON, one line a run
    #[arg(long)]
    json: bool,
    /// Tell everything that happens
    #[arg(long)]
    log: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command.args([
        "run",
        "--quiet",
        "--package",
        "ouisync-testkit",
        "--bin",
        "simulate",
        "--",
    ]);
    command.args(["--seed", &options.seed.to_string()]);
    command.args(["--steps", &options.steps.to_string()]);
    command.args(["--runs", &options.runs.to_string()]);
    command.args(options.json.then_some("--json"));
    command.args(options.log.then_some("--log"));
    let status = command.status().context("running the simulation")?;
    if !status.success() {
        bail!("a run failed");
    }
    Ok(())
}
