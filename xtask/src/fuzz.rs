//! `cargo xtask fuzz`: runs the targets of `fuzz/`, by `cargo-fuzz` where that and a nightly compiler are installed, else blindly.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use clap::Args;

/// The targets' directory.
const FUZZ: &str = "fuzz";
/// Memory that a target may take in MiB; claimed lengths must not make it take more.
const MEMORY: u32 = 1024;
/// Seconds for one input.
const PATIENCE: u32 = 20;

#[derive(Args)]
pub(crate) struct Options {
    /// The target [default: all]
    target: Option<String>,
    /// For so long each
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Without libFuzzer, although it is there: mutates blindly
    #[arg(long)]
    plain: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let all = targets().context("listing the targets")?;
    let chosen: Vec<&str> = match &options.target {
        Some(target) if all.contains(target) => vec![target],
        Some(target) => bail!(
            "there is no target '{target}'; there are: {}",
            all.join(", ")
        ),
        None => all.iter().map(String::as_str).collect(),
    };
    let guided = !options.plain && has_cargo_fuzz();
    if !guided {
        eprintln!(
            "without libFuzzer (for it: rustup toolchain install nightly, cargo install cargo-fuzz)"
        );
    }
    let seconds = options.seconds.to_string();
    let mut failed = Vec::new();
    for target in chosen {
        let status = match guided {
            true => guide(target, options.seconds),
            false => plain(&[target, &seconds]).status(),
        };
        if !status.context("running a target")?.success() {
            failed.push(target);
        }
    }
    if !failed.is_empty() {
        bail!(
            "found something: {} (the inputs are in {FUZZ}/artifacts)",
            failed.join(", ")
        );
    }
    Ok(())
}

/// What `fuzz_targets` holds.
fn targets() -> std::io::Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in std::fs::read_dir(Path::new(FUZZ).join("fuzz_targets"))? {
        let path = entry?.path();
        targets.extend(
            path.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned()),
        );
    }
    targets.sort_unstable();
    Ok(targets)
}

fn plain(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    command
        .args([
            "run",
            "--quiet",
            "--release",
            "--bin",
            "plain",
            "--manifest-path",
        ])
        .arg(Path::new(FUZZ).join("Cargo.toml"))
        .arg("--")
        .args(arguments);
    command
}

fn has_cargo_fuzz() -> bool {
    let status = Command::new("cargo")
        .args(["+nightly", "fuzz", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn guide(target: &str, seconds: u64) -> std::io::Result<std::process::ExitStatus> {
    Command::new("cargo")
        .args([
            "+nightly",
            "fuzz",
            "run",
            "--features",
            "libfuzzer",
            "--fuzz-dir",
            FUZZ,
            target,
            "--",
        ])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg(format!("-timeout={PATIENCE}"))
        .args(["-max_len=65536", "-print_final_stats=1"])
        // A toolchain chosen by the outer cargo would go before the one named here.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .status()
}
