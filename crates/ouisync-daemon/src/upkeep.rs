//! The host's settings of upkeep: `daemon.toml` in the home, which nobody needs. Read at the start, never written.
//!
//! Only a table of whole numbers, so a few lines of TOML are enough: `[upkeep]`, `key = number`, comments.

use std::{fs, io, path::Path, time::Duration};

use ouisync_engine::housekeeping::Housekeeping;
use thiserror::Error;

const FILE: &str = "daemon.toml";

/// Why the settings can't be used.
#[derive(Debug, Error)]
pub enum UpkeepError {
    /// The file can't be read.
    #[error("daemon.toml can't be read")]
    File(#[source] io::Error),
    /// A line says nothing known.
    #[error("daemon.toml, line {line}: '{text}' is no setting of upkeep")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What it says.
        text: String,
    },
}

/// The settings of the home; the defaults where it says nothing.
pub(crate) fn settings(home: &Path) -> Result<Housekeeping, UpkeepError> {
    match fs::read_to_string(home.join(FILE)) {
        Ok(text) => parse(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Housekeeping::default()),
        Err(error) => Err(UpkeepError::File(error)),
    }
}

fn parse(text: &str) -> Result<Housekeeping, UpkeepError> {
    let mut settings = Housekeeping::default();
    for (index, full) in text.lines().enumerate() {
        let line = full.split('#').next().unwrap_or_default().trim();
        if line.is_empty() || line == "[upkeep]" {
            continue;
        }
        let known = line.split_once('=').is_some_and(|(key, number)| {
            number
                .trim()
                .parse()
                .is_ok_and(|number| set(&mut settings, key.trim(), number))
        });
        if !known {
            return Err(UpkeepError::Line {
                line: index + 1,
                text: full.chars().take(100).collect(),
            });
        }
    }
    Ok(settings)
}

/// False: no such setting.
fn set(settings: &mut Housekeeping, key: &str, number: u64) -> bool {
    let seconds = Duration::from_secs(number);
    match key {
        "release_seconds" if number > 0 => settings.release = seconds,
        "collect_seconds" if number > 0 => settings.collect = seconds,
        "grace_seconds" => settings.grace = seconds,
        "floor_seconds" => settings.floor = seconds,
        "safe_retention_seconds" => settings.safe_retention = Some(seconds),
        "checkpoint_commits" if number > 0 => settings.checkpoint_commits = number,
        "checkpoint_bytes" if number > 0 => settings.checkpoint_bytes = number,
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_and_nothing_else() {
        let text = "# for tests\n[upkeep]\ncheckpoint_commits = 5\n\ngrace_seconds=0 # none\n";
        let settings = parse(text).unwrap();
        assert_eq!(settings.checkpoint_commits, 5);
        assert_eq!(settings.grace, Duration::ZERO);
        assert_eq!(settings.collect, Housekeeping::default().collect);
        for wrong in [
            "colour = 3",
            "checkpoint_commits = many",
            "release_seconds = 0",
            "x",
        ] {
            let error = parse(&format!("[upkeep]\n{wrong}\n")).unwrap_err();
            assert!(error.to_string().contains("line 2"), "{error}");
        }
    }
}
