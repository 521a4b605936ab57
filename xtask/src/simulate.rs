//! `cargo xtask simulate`: whole devices in simulated worlds, by the test kit's program.

use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;

#[derive(Args)]
pub(crate) struct Options {
    /// Options of the program; `-- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
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
    command.args(&options.options);
    let status = command.status().context("running the simulation")?;
    if !status.success() {
        bail!("a run failed");
    }
    Ok(())
}
