//! Progress on standard error, for people at a terminal only, and only of what takes more than a second.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ouisync_api::history::Phase;

/// Shorter work shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Work that goes on; what is shown goes when it is dropped.
pub(crate) struct Activity {
    bar: ProgressBar,
    appearing: tokio::task::JoinHandle<()>,
}

impl Activity {
    /// Begins; shown after a second.
    pub(crate) fn start(message: impl Into<String>) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_style(style("{spinner} {msg}  {elapsed}"));
        bar.set_message(message.into());
        let shown = bar.clone();
        let appearing = tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            if std::io::stderr().is_terminal() {
                shown.set_draw_target(ProgressDrawTarget::stderr());
                shown.enable_steady_tick(Duration::from_millis(120));
            }
        });
        Self { bar, appearing }
    }

    /// Says what is being done.
    pub(crate) fn say(&self, message: impl Into<String>) {
        self.bar.set_message(message.into());
    }

    /// Says what is being done, and how far it is where that is known.
    pub(crate) fn work(&self, phase: Phase, done: u64, total: u64) {
        self.say(phase.name());
        if phase == Phase::History {
            self.say(format!("{}: {done} of {total} changes", phase.name()));
        } else if total > 0 {
            self.bytes(done, total);
        }
    }

    /// Shows how far it is.
    pub(crate) fn bytes(&self, done: u64, total: u64) {
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
            self.bar.set_style(style(
                "{msg} {bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
            ));
        }
        self.bar.set_position(done);
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.appearing.abort();
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are this module's own; a wrong one would only look plain.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
