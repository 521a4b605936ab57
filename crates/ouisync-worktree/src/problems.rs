//! What the user is told about single paths.

use std::{collections::BTreeMap, io};

use ouisync_engine::status::Problem;
use ouisync_model::name::Name;
use rustix::io::Errno;

use crate::directories::Slot;

/// At most so many are told one by one.
const SHOWN: usize = 100;

/// Which pass found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pass {
    Scan,
    Apply,
}

/// The current problems.
#[derive(Default)]
pub(crate) struct Problems {
    by_place: BTreeMap<(Pass, Slot, Option<Name>), Problem>,
    general: BTreeMap<&'static str, String>,
}

impl Problems {
    pub(crate) fn set(
        &mut self,
        pass: Pass,
        slot: Slot,
        name: Option<&Name>,
        path: String,
        message: String,
    ) {
        tracing::warn!(path, message, "a path needs attention");
        let path = Some(path).filter(|path| !path.is_empty());
        self.by_place
            .insert((pass, slot, name.cloned()), Problem { path, message });
    }

    /// The place is in order.
    pub(crate) fn clear(&mut self, pass: Pass, slot: Slot, name: Option<&Name>) {
        if !self.by_place.is_empty() {
            self.by_place.remove(&(pass, slot, name.cloned()));
        }
    }

    /// The whole directory is looked at anew.
    pub(crate) fn clear_directory(&mut self, pass: Pass, slot: Slot) {
        if !self.by_place.is_empty() {
            self.by_place
                .retain(|(other, place, _), _| *other != pass || *place != slot);
        }
    }

    pub(crate) fn set_general(&mut self, topic: &'static str, message: Option<String>) {
        match message {
            Some(message) => {
                if self.general.get(topic) != Some(&message) {
                    tracing::warn!(topic, message, "the directory needs attention");
                }
                self.general.insert(topic, message);
            }
            None => {
                self.general.remove(topic);
            }
        }
    }

    /// Directories with a problem of a pass.
    pub(crate) fn directories(&self, pass: Pass) -> Vec<Slot> {
        let mut slots: Vec<_> = self
            .by_place
            .keys()
            .filter(|key| key.0 == pass)
            .map(|key| key.1)
            .collect();
        slots.dedup();
        slots
    }

    pub(crate) fn has_any(&self, pass: Pass, slot: Slot) -> bool {
        self.by_place
            .range((pass, slot, None)..)
            .next()
            .is_some_and(|(key, _)| (key.0, key.1) == (pass, slot))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    pub(crate) fn list(&self) -> Vec<Problem> {
        let general = self.general.values().map(|message| Problem {
            path: None,
            message: message.clone(),
        });
        let mut all: Vec<_> = general
            .chain(self.by_place.values().take(SHOWN).cloned())
            .collect();
        if self.by_place.len() > SHOWN {
            let message = format!("{} more paths need attention.", self.by_place.len() - SHOWN);
            all.push(Problem {
                path: None,
                message,
            });
        }
        all
    }
}

/// What to do about an error of the file system.
pub(crate) fn advice(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => {
            "Free some space on the disk; it is tried again by itself."
        }
        Some(Errno::ACCESS | Errno::PERM) => {
            "Give the user who runs the daemon the right to it; it is tried again by itself."
        }
        Some(Errno::ROFS) => "The disk is mounted read-only; mount it for writing.",
        Some(Errno::NAMETOOLONG | Errno::ILSEQ | Errno::INVAL) => {
            "This file system doesn't take the name: rename it on another device."
        }
        Some(Errno::IO) => "The disk reports a failure: check it.",
        _ => "It is tried again by itself.",
    }
}
