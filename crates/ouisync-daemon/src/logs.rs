//! Structured logs on standard error.
//!
//! Never carries secrets: links, tokens, passphrases and keys have no `Debug` or `Display` that shows them.

use std::str::FromStr;

use thiserror::Error;
use tracing_subscriber::{EnvFilter, filter::ParseError};

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// The logs can't be set up.
#[derive(Debug, Error)]
pub enum LogError {
    /// The filter doesn't parse.
    #[error(
        "'{0}' is no log level: use error, warn, info, debug, trace, or filters such as ouisync_net=debug"
    )]
    Filter(String, #[source] ParseError),
    /// The process logs already.
    #[error("logs are set up already")]
    Twice,
}

/// A bare level is meant for this program; the libraries below it stay at `warn`. The library of watches only at `error`: it warns
/// of every deleted directory.
fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let level = level.trim();
    let directives = match tracing::Level::from_str(level) {
        Ok(level) => format!("warn,notify=error,ouisync={level}"),
        Err(_) => level.to_owned(),
    };
    EnvFilter::from_str(&directives).map_err(|error| LogError::Filter(level.to_owned(), error))
}

/// Sets up logging for the process. `level`: `error` … `trace`, or a `tracing` filter; `$OUISYNC_LOG` or `info` without.
pub fn start(level: Option<&str>, format: LogFormat) -> Result<(), LogError> {
    let variable = std::env::var("OUISYNC_LOG").ok();
    let filter = filter(
        level
            .or(variable.as_deref().filter(|text| !text.is_empty()))
            .unwrap_or("info"),
    )?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|_| LogError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_for_this_program() {
        let filters = filter("debug").unwrap().to_string();
        assert!(
            filters.contains("ouisync=debug") && filters.contains("warn"),
            "{filters}"
        );
        assert!(filter("ouisync_net=trace,warn").is_ok());
        assert!(filter("a=b=c").is_err());
    }
}
