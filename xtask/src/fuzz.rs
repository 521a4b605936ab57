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
    let list = plain(&["list"])
        .stdout(Stdio::piped())
        .output()
        .context("building the targets")?;
    if !list.status.success() {
        bail!("{}", String::from_utf8_lossy(&list.stderr));
    }
    let list = String::from_utf8(list.stdout)?;
    let all: Vec<&str> = list.lines().collect();
    let chosen: Vec<&str> = match &options.target {
        Some(target) if all.contains(&target.as_str()) => vec![target],
        Some(target) => bail!(
            "there is no target '{target}'; there are: {}",
            all.join(", ")
        ),
        None => all,
    };
    let guided = !options.plain && has_cargo_fuzz();
    if !guided {
        println!(
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
    let corpus = Path::new(FUZZ).join("corpus").join(target);
    std::fs::create_dir_all(&corpus)?;
    plain(&["seeds", target]).status()?;
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
