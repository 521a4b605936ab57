//! The demo's voice: plain words, checks that are counted, progress bars at a terminal.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::blind::Disk;
use crate::output;

/// What was claimed, and whether it held.
struct Check {
    held: bool,
    what: String,
}

pub(super) struct Narrator {
    json: bool,
    checks: Vec<Check>,
    chapter: u32,
    bar: Option<ProgressBar>,
}

impl Narrator {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            checks: Vec::new(),
            chapter: 0,
            bar: None,
        }
    }

    /// A line for people: on standard output, unless that is for a JSON document.
    pub(super) fn say(&self, text: &str) {
        if self.json {
            output::note(text);
        } else {
            // A reader that went away misses the rest; the exit code still tells.
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }

    pub(super) fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        self.say(&format!("\n{}. {title}", self.chapter));
    }

    pub(super) fn fact(&self, text: &str) {
        self.say(&format!("   {text}"));
    }

    /// Counts a claim.
    pub(super) fn check(&mut self, held: bool, what: impl Into<String>) {
        let what = what.into();
        self.say(&format!(
            "   {} {what}",
            if held { "✓" } else { "✗ NOT SO:" }
        ));
        self.checks.push(Check { held, what });
    }

    pub(super) fn all_held(&self) -> bool {
        self.checks.iter().all(|check| check.held)
    }

    pub(super) fn count(&self) -> usize {
        self.checks.len()
    }

    /// Shows bytes of bytes, at a terminal.
    pub(super) fn progress(&mut self, label: &str, done: u64, total: u64) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(
                "   {msg:18} {bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  {elapsed}",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        bar.set_message(label.to_owned());
        bar.set_length(total);
        bar.set_position(done);
    }

    /// Takes the progress bar away.
    pub(super) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    pub(super) fn logs(&self, logs: &[(String, String)]) {
        for (name, text) in logs.iter().filter(|(_, text)| !text.is_empty()) {
            self.say(&format!("\nLast lines of {name}'s log:\n{text}"));
        }
    }

    pub(super) fn document(&self, safe: &Disk) -> Value {
        let checks: Vec<_> = self
            .checks
            .iter()
            .map(|check| json!({ "ok": check.held, "what": check.what }))
            .collect();
        json!({ "ok": self.all_held(), "checks": checks, "safe": { "packs": safe.packs, "bytes": safe.bytes } })
    }
}
