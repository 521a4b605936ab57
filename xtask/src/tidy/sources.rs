//! Rules about source files: sizes, names, opening comments, output.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// Lines that a module may have, its tests apart.
const MODULE_LINES: usize = 600;
/// Lines that a `lib.rs` may have.
const LIB_LINES: usize = 150;
/// Names that say nothing.
const BANNED_NAMES: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "manager", "managers", "misc", "mod",
];
/// The packages that are programs and may print.
const PROGRAMS: &[&str] = &["crates/ouisync-cli", "xtask"];

/// Findings about every Rust file of the workspace.
pub(super) fn check() -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    for package in packages()? {
        let manifest = fs::read_to_string(package.join("Cargo.toml"))?;
        if !manifest.contains("[lints]\nworkspace = true") {
            findings.push(format!(
                "{}: does not take the workspace's lints",
                package.display()
            ));
        }
        for file in rust_files(&package)? {
            let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let place = file.display().to_string();
            findings.extend(
                check_file(&place, &text)
                    .into_iter()
                    .map(|what| format!("{place}: {what}")),
            );
        }
    }
    Ok(findings)
}

fn packages() -> anyhow::Result<Vec<PathBuf>> {
    let mut packages = vec![PathBuf::from("xtask")];
    for entry in fs::read_dir("crates")? {
        let path = entry?.path();
        if path.join("Cargo.toml").exists() {
            packages.push(path);
        }
    }
    packages.sort();
    Ok(packages)
}

pub(super) fn rust_files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What is wrong with a file at `place`, relative to the workspace.
fn check_file(place: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let stem = Path::new(place)
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    for part in Path::new(place).with_extension("").components() {
        if let Some(name) = part.as_os_str().to_str()
            && BANNED_NAMES.contains(&name)
        {
            findings.push(format!("the name '{name}' says nothing"));
        }
    }
    if !text.starts_with("//!") {
        findings.push("does not open with '//!'".to_owned());
    }
    let code = without_tests(text);
    let lines = code.lines().count();
    if stem == "lib" && text.lines().count() >= LIB_LINES {
        findings.push(format!(
            "a lib.rs is a table of contents under {LIB_LINES} lines"
        ));
    }
    let in_tests = place.contains("/tests/") || place.contains("/examples/") || stem == "tests";
    if lines > MODULE_LINES && !in_tests {
        findings.push(format!(
            "{lines} lines without tests, {MODULE_LINES} are allowed"
        ));
    }
    let program = PROGRAMS.iter().any(|program| place.starts_with(program));
    for (number, line) in code.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with("//") {
            continue;
        }
        let prints = line.contains("println!(") || line.contains("print!(");
        if prints && !line.contains("eprint") && !program && !in_tests {
            findings.push(format!("line {}: a library prints nothing", number + 1));
        }
        // Built from parts, so that this file does not find itself.
        let preset = concat!("presets", "::");
        if let Some((_, rest)) = line.split_once(preset)
            && !rest.starts_with("Minimal")
        {
            findings.push(format!(
                "line {}: only the Minimal preset contacts no vendor",
                number + 1
            ));
        }
    }
    findings
}

/// The text up to its `#[cfg(test)] mod`, which comes last by convention.
fn without_tests(text: &str) -> &str {
    let mut at = 0;
    while let Some(found) = text[at..].find("#[cfg(test)]\n") {
        let start = at + found;
        let rest = &text[start + "#[cfg(test)]\n".len()..];
        if rest.starts_with("mod ") && rest.lines().next().is_some_and(|line| line.ends_with('{')) {
            return &text[..start];
        }
        at = start + 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tidy_file_has_no_findings() {
        let text = "//! Owns.\n\nfn a() {}\n\n#[cfg(test)]\nmod tests {\n    println!();\n}\n";
        assert_eq!(check_file("crates/a/src/b.rs", text), Vec::<String>::new());
    }

    #[test]
    fn each_rule_finds() {
        let long = format!("//! Owns.\n{}", "\n".repeat(MODULE_LINES));
        for (place, text) in [
            ("crates/a/src/b.rs", "fn a() {}\n"),
            ("crates/a/src/utils.rs", "//! Owns.\n"),
            ("crates/a/src/b/mod.rs", "//! Owns.\n"),
            ("crates/a/src/helpers/b.rs", "//! Owns.\n"),
            (
                "crates/a/src/b.rs",
                "//! Owns.\nfn a() { println!(\"\") }\n",
            ),
            (
                "crates/a/src/b.rs",
                concat!("//! Owns.\nuse presets", "::N0;\n"),
            ),
            ("crates/a/src/b.rs", &long),
            ("crates/a/src/lib.rs", &long[..LIB_LINES + 20]),
        ] {
            assert_eq!(
                check_file(place, text).len(),
                1,
                "{place} {:?}",
                check_file(place, text)
            );
        }
    }
}
