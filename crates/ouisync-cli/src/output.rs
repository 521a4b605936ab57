//! What commands print: JSON for programs, plain words for people.

use std::io::{self, Write};

use ouisync_api::{data::Role, error::ErrorBody};
use serde::Serialize;

use crate::context::failure;

/// Prints a document on one line.
pub(crate) fn json(document: &impl Serialize) -> Result<(), ErrorBody> {
    let text = serde_json::to_string(document).map_err(|error| failure(error.to_string()))?;
    line(&text)
}

/// Prints a line on standard output. A reader that has gone away ends the program quietly.
pub(crate) fn line(text: &str) -> Result<(), ErrorBody> {
    text_block(&format!("{text}\n"))
}

/// Prints text as it is.
pub(crate) fn text_block(text: &str) -> Result<(), ErrorBody> {
    bytes(text.as_bytes())
}

/// Prints bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), ErrorBody> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        outcome => {
            outcome.map_err(|error| failure(format!("standard output can't be written: {error}")))
        }
    }
}

/// Prints a line on standard error.
pub(crate) fn note(text: &str) {
    // Notes are for people; without a place to show them the command goes on.
    let _ = writeln!(io::stderr(), "{text}");
}

/// A role for people.
pub(crate) fn role_name(role: Option<Role>) -> &'static str {
    role.map_or("role unknown while locked", Role::name)
}

/// A size for people, in powers of 1000.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A span of time for people.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Text of other devices without what could steer a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect()
}

/// Rows with aligned columns, the first row being the head.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1000), "1.0 kB");
        assert_eq!(size(999_999), "1.0 MB");
        assert_eq!(size(u64::MAX), "18.4 EB");
        assert_eq!(span(59), "59 s");
        assert_eq!(span(3661), "1 h 01 min");
        assert_eq!(span(90_000), "1 d 1 h");
    }

    #[test]
    fn names_can_not_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["NAME".into(), "ROLE".into()],
            vec!["ü".into(), "owner".into()],
        ];
        assert_eq!(table(&rows), "NAME  ROLE\nü     owner\n");
    }
}
