//! Licences and bans of all crates in the lock file, by the lists in `deny.toml`.
//!
//! The same file serves `cargo deny`; this check needs nothing installed.

use std::fs;

use anyhow::Context;
use cargo_metadata::Metadata;
use spdx::{Expression, ParseMode};

/// Findings about licences and banned crates.
pub(super) fn check(metadata: &Metadata) -> anyhow::Result<Vec<String>> {
    let deny = fs::read_to_string("deny.toml").context("deny.toml")?;
    let allowed = list(&deny, "allow").context("deny.toml has no list `allow`")?;
    let banned = list(&deny, "deny").context("deny.toml has no list `deny`")?;
    let mut findings = Vec::new();
    if !fs::read_to_string("LICENSE").is_ok_and(|text| text.contains("Mozilla Public License")) {
        findings.push("LICENSE: the Mozilla Public License is missing".to_owned());
    }
    for package in &metadata.packages {
        let place = format!("{} {}", package.name, package.version);
        let licence = package.license.as_deref().unwrap_or_default();
        if metadata.workspace_members.contains(&package.id) {
            if licence != "MPL-2.0" {
                findings.push(format!(
                    "{place}: the workspace is under MPL-2.0, not '{licence}'"
                ));
            }
        } else if !permits(licence, &allowed) {
            findings.push(format!(
                "{place}: licence '{licence}' is not allowed by deny.toml"
            ));
        }
        if banned.iter().any(|name| *name == package.name.as_str()) {
            findings.push(format!("{place}: banned by deny.toml"));
        }
        if let Some(source) = &package.source
            && !source.is_crates_io()
        {
            findings.push(format!("{place}: comes from {source}"));
        }
    }
    Ok(findings)
}

/// The quoted words of the array `name = [...]`, up to its closing bracket; comments are left out.
fn list(toml: &str, name: &str) -> Option<Vec<String>> {
    let start = format!("{name} = [");
    let mut lines = toml.lines().skip_while(|line| !line.starts_with(&start));
    lines.next()?;
    let items = lines.take_while(|line| !line.starts_with(']'));
    Some(
        items
            .filter_map(|line| Some(line.split('#').next()?.split('"').nth(1)?.to_owned()))
            .collect(),
    )
}

/// Whether an SPDX expression can be satisfied with `allowed` licences alone.
fn permits(expression: &str, allowed: &[String]) -> bool {
    // Old packages write `MIT/Apache-2.0`.
    Expression::parse_mode(expression, ParseMode::LAX).is_ok_and(|expression| {
        expression.evaluate(|licence| allowed.contains(&licence.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let allowed = ["MIT", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
        for good in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "GPL-2.0 OR Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(permits(good, &allowed), "{good}");
        }
        for bad in [
            "",
            "Apache-2.0",
            "MIT AND GPL-3.0",
            "(MIT",
            "MIT MIT",
            "(GPL-3.0 OR ISC) AND MIT",
        ] {
            assert!(!permits(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn lists_are_read() {
        let toml = "[licenses]\nallow = [\n    \"MIT\", # why\n    \"ISC\",\n]\n";
        assert_eq!(list(toml, "allow").unwrap(), ["MIT", "ISC"]);
        assert_eq!(list(toml, "deny"), None);
    }
}
