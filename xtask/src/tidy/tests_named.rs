//! The tests that the threat model names exist.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Context;

const DOCUMENT: &str = "docs/threat-model.md";

/// Findings about names of tests in the threat model.
pub(super) fn check() -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(DOCUMENT).context(DOCUMENT)?;
    let mut functions = BTreeSet::new();
    for file in super::sources::rust_files(Path::new("crates"))? {
        let source = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        // A suite's `main.rs` stands for its directory.
        let module = match file.file_stem() {
            Some(stem) if stem == "main" => file.parent().and_then(Path::file_name),
            stem => stem,
        };
        let module = module.and_then(|module| module.to_str());
        functions.extend(
            functions_of(&source).map(|name| format!("{}::{name}", module.unwrap_or_default())),
        );
    }
    Ok(named(&text)
        .filter(|name| !functions.contains(*name))
        .map(|name| format!("{DOCUMENT}: there is no test `{name}`"))
        .collect())
}

/// What stands between backticks and is `module::function`.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|name| {
        let is_path =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_:".contains(&byte);
        name.contains("::") && name.bytes().all(is_path)
    })
}

fn functions_of(source: &str) -> impl Iterator<Item = &str> {
    source.lines().filter_map(|line| {
        let line = line.trim_start();
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ")?.split(['(', '<']).next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_functions_are_found() {
        let names: Vec<_> = named("a `one::two` b `x` c `docs/a.md` `A::b`").collect();
        assert_eq!(names, ["one::two"]);
        let source = "#[test]\nfn one() {}\n    async fn two(x: u8) {}\nlet fn_three = 3;";
        assert_eq!(functions_of(source).collect::<Vec<_>>(), ["one", "two"]);
    }
}
