//! `cargo xtask tidy`: the rules of the house that no compiler knows.
//!
//! Each rule gives its findings as lines `place: what is wrong`; all are shown, any is a failure.

use anyhow::{Context, bail};
use cargo_metadata::MetadataCommand;

mod arrows;
mod licences;
mod sources;
mod tests_named;

pub(crate) fn run() -> anyhow::Result<()> {
    let metadata = MetadataCommand::new()
        .other_options(vec!["--locked".to_owned()])
        .exec()
        .context("cargo metadata")?;
    let mut findings = arrows::check(&metadata);
    findings.extend(licences::check(&metadata)?);
    findings.extend(sources::check()?);
    findings.extend(tests_named::check()?);
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    eprintln!("tidy: nothing to say");
    Ok(())
}
