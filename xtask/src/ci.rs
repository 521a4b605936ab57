//! `cargo xtask ci` and `cargo xtask nightly`: run checks one after the other and say at the end which failed.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::bail;
use clap::Args;

#[derive(Args)]
pub(crate) struct Options {
    /// Stop at the first failure
    #[arg(long)]
    fail_fast: bool,
}

/// One check: what it is called and the command with its environment.
struct Check {
    name: &'static str,
    program: String,
    arguments: Vec<&'static str>,
    environment: Option<(&'static str, &'static str)>,
}

fn cargo(name: &'static str, arguments: &str) -> Check {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    // The arguments are literals of this file; leaking them would be no worse than naming each.
    let arguments = arguments
        .split(' ')
        .map(|word| &*word.to_owned().leak())
        .collect();
    Check {
        name,
        program,
        arguments,
        environment: None,
    }
}

fn installed(subcommand: &str) -> bool {
    let status = Command::new("cargo")
        .args([subcommand, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut checks = vec![
        cargo("format", "fmt --all --check"),
        cargo("tidy", "xtask tidy"),
        cargo(
            "clippy",
            "clippy --workspace --all-targets --locked -- -D warnings",
        ),
    ];
    if installed("nextest") {
        checks.push(cargo(
            "tests",
            "nextest run --workspace --locked --no-fail-fast",
        ));
        checks.push(cargo(
            "documentation tests",
            "test --workspace --doc --locked",
        ));
    } else {
        checks.push(cargo("tests", "test --workspace --locked --no-fail-fast"));
    }
    checks.push(Check {
        // Private items are documented too, so links to them lead somewhere.
        environment: Some((
            "RUSTDOCFLAGS",
            "-D warnings -A rustdoc::private_intra_doc_links",
        )),
        ..cargo(
            "documentation",
            "doc --workspace --no-deps --document-private-items --locked",
        )
    });
    // Licences, bans and sources are checked by tidy too; cargo-deny takes longer to build than all the rest.
    if installed("deny") {
        checks.push(cargo("deny", "deny --offline check bans licenses sources"));
    }
    run_all(checks, options)
}

/// What takes too long for every change: looks for what random input, random faults and long life bring to light.
pub(crate) fn nightly(options: &Options) -> anyhow::Result<()> {
    let checks = vec![
        cargo("fuzzing", "xtask fuzz --seconds 60"),
        cargo("simulations", "xtask simulate --runs 2000 --steps 200"),
        cargo("churn", "xtask simulate --churn 72"),
        cargo("soak", "xtask soak --minutes 20"),
        cargo("kills", "xtask soak --minutes 20 --kill-every 5"),
        cargo("reproduced release", "xtask release --check"),
    ];
    run_all(checks, options)
}

fn run_all(checks: Vec<Check>, options: &Options) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for check in checks {
        eprintln!("── {}: cargo {}", check.name, check.arguments.join(" "));
        let start = Instant::now();
        let status = Command::new(&check.program)
            .args(&check.arguments)
            .envs(check.environment)
            .status()?;
        eprintln!(
            "── {}: {status}, {:.0} s",
            check.name,
            start.elapsed().as_secs_f64()
        );
        if !status.success() {
            failed.push(check.name);
            if options.fail_fast {
                break;
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    eprintln!("── all checks passed");
    Ok(())
}
