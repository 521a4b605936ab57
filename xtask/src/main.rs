//! Project tasks: `cargo xtask ci`, `nightly`, `tidy`, `fuzz`, `simulate`, `bench`, `bounds`, `soak`, `release`.
//!
//! One module per task; nothing of the product is imported, so that a broken build can still be checked.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};

mod bench;
mod ci;
mod fuzz;
mod release;
mod simulate;
mod tidy;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Project tasks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Every check that a change must pass
    Ci(ci::Options),
    /// What takes hours: fuzzing, simulations, soaks, a release made twice
    Nightly(ci::Options),
    /// Look for inputs that break decoders and the sync state machine
    Fuzz(fuzz::Options),
    /// Let whole devices live through simulated faults
    Simulate(simulate::Options),
    /// Architecture, sources and licences
    Tidy,
    /// Compare with rsync and syncthing on loopback
    Bench(bench::Options),
    /// Measure memory, descriptors and idle time against what is promised
    Bounds(bench::bounds::Options),
    /// Let two devices and a safe live through churn, and see that nothing grows or is lost
    Soak(bench::soak::Options),
    /// Build the program as it is given away, with its list of parts
    Release(release::Options),
}

/// The workspace's top directory.
fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    std::env::set_current_dir(workspace()).context("entering the workspace")?;
    match arguments.task {
        Task::Ci(options) => ci::run(&options),
        Task::Nightly(options) => ci::nightly(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Simulate(options) => simulate::run(&options),
        Task::Tidy => tidy::run(),
        Task::Bench(options) => bench::run(&options),
        Task::Bounds(options) => bench::bounds::run(&options),
        Task::Soak(options) => bench::soak::run(&options),
        Task::Release(options) => release::run(&options),
    }
}
