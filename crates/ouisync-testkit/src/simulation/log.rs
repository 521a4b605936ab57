//! What happens in a world: lines for people, and a fingerprint by which two runs are compared.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use super::Outcome;

/// What happened, for people and for comparing runs.
#[derive(Default)]
pub(super) struct Log {
    lines: Vec<String>,
    hash: DefaultHasher,
    seconds: u64,
    contents: usize,
    /// Nothing is told.
    silent: bool,
}

impl Log {
    /// One that keeps nothing.
    pub(super) fn silent() -> Self {
        Self {
            silent: true,
            ..Self::default()
        }
    }

    /// Tells people.
    pub(super) fn note(&mut self, at: Duration, what: impl FnOnce() -> String) {
        if self.silent {
            return;
        }
        let what = what();
        (at, &what).hash(&mut self.hash);
        self.lines.push(format!("{:10.3} {what}", at.as_secs_f64()));
    }

    /// Something that must be the same each time.
    pub(super) fn seen(&mut self, what: impl Hash) {
        what.hash(&mut self.hash);
    }

    /// The figures at the end.
    pub(super) fn ends(&mut self, seconds: u64, contents: usize) {
        (self.seconds, self.contents) = (seconds, contents);
    }

    pub(super) fn outcome(self, failure: Option<String>) -> Outcome {
        Outcome {
            failure,
            fingerprint: self.hash.finish(),
            log: self.lines,
            seconds: self.seconds,
            contents: self.contents,
        }
    }
}
