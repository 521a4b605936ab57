//! Licences and bans of all crates in the lock file, by the lists in `deny.toml`.
//!
//! The same file serves `cargo deny`; this check needs nothing installed.

use std::fs;

use anyhow::Context;
use cargo_metadata::Metadata;

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
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        words: &words,
        allowed,
    };
    let result = parser.any();
    result && parser.words.is_empty() && !words.is_empty()
}

/// Recursive descent: OR binds weakest, then AND; `X WITH Y` is one licence.
struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a [String],
}

impl Parser<'_> {
    fn take(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    fn any(&mut self) -> bool {
        let mut result = self.all();
        while self.take("OR") {
            result |= self.all();
        }
        result
    }

    fn all(&mut self) -> bool {
        let mut result = self.one();
        while self.take("AND") {
            result &= self.one();
        }
        result
    }

    fn one(&mut self) -> bool {
        if self.take("(") {
            let result = self.any();
            return self.take(")") && result;
        }
        let Some((first, rest)) = self.words.split_first() else {
            return false;
        };
        let mut name = (*first).to_owned();
        self.words = rest;
        if self.take("WITH")
            && let Some((exception, rest)) = self.words.split_first()
        {
            name = format!("{name} WITH {exception}");
            self.words = rest;
        }
        self.allowed.contains(&name)
    }
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
            "(GPL-3.0 OR X) AND MIT",
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
