//! What the user is told about single paths.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
};

use ouisync_engine::status::Problem;
use ouisync_model::name::Name;
use rustix::io::Errno;

use crate::directories::Slot;

/// At most so many are told one by one.
const SHOWN: usize = 100;

/// Which pass found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Pass {
    Scan,
    Apply,
}

/// What a problem means for the folder being in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// It stays so until a person does something about the file itself; everything else is in step.
    Note,
    /// Something that ought to pass (a full disk, a failing one, a missing right) keeps a change from being applied: until it has
    /// passed, nothing is settled.
    HoldsUp,
}

impl Weight {
    /// What cannot be read here is never recorded and so holds nothing up, unless the disk fails.
    pub(crate) fn of(pass: Pass, error: &io::Error) -> Self {
        match (Errno::from_io_error(error), pass) {
            (Some(Errno::IO), _)
            | (
                Some(Errno::NOSPC | Errno::DQUOT | Errno::ACCESS | Errno::PERM | Errno::ROFS),
                Pass::Apply,
            ) => Self::HoldsUp,
            _ => Self::Note,
        }
    }
}

struct Noted {
    problem: Problem,
    weight: Weight,
}

/// The current problems.
#[derive(Default)]
pub(crate) struct Problems {
    by_place: BTreeMap<(Pass, Slot, Option<Name>), Noted>,
    general: BTreeMap<&'static str, String>,
    /// Messages as they were last logged, by path: every look finds most problems again.
    logged: HashMap<(Pass, String), String>,
}

impl Problems {
    pub(crate) fn set(
        &mut self,
        pass: Pass,
        slot: Slot,
        name: Option<&Name>,
        path: String,
        message: String,
        weight: Weight,
    ) {
        let key = (pass, path.clone());
        if self.logged.get(&key) != Some(&message) {
            tracing::warn!(path, message, "a path needs attention");
            self.logged.insert(key, message.clone());
        }
        let path = Some(path).filter(|path| !path.is_empty());
        let problem = Problem { path, message };
        self.by_place
            .insert((pass, slot, name.cloned()), Noted { problem, weight });
    }

    /// All passes have had their say: what is no longer a problem is logged again when it becomes one again.
    pub(crate) fn forget_logged(&mut self) {
        if self.logged.len() > self.by_place.len() {
            let path = |noted: &Noted| noted.problem.path.clone().unwrap_or_default();
            let current = self.by_place.iter();
            let current: HashSet<_> = current.map(|(key, noted)| (key.0, path(noted))).collect();
            self.logged.retain(|key, _| current.contains(key));
        }
    }

    /// The first problem that holds something up.
    pub(crate) fn holds_up(&self) -> Option<&Problem> {
        self.by_place
            .values()
            .find(|noted| noted.weight == Weight::HoldsUp)
            .map(|noted| &noted.problem)
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

    /// There is a problem of a pass about this very place.
    pub(crate) fn has(&self, pass: Pass, slot: Slot, name: &Name) -> bool {
        !self.by_place.is_empty()
            && self
                .by_place
                .contains_key(&(pass, slot, Some(name.clone())))
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
            .chain(
                self.by_place
                    .values()
                    .take(SHOWN)
                    .map(|noted| noted.problem.clone()),
            )
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directories::ROOT;

    #[test]
    fn a_problem_is_logged_when_it_changes() {
        let mut problems = Problems::default();
        let name = Name::new(*b"f").unwrap();
        let set = |problems: &mut Problems, message: &str| {
            problems.clear_directory(Pass::Scan, ROOT);
            let before = problems.logged.clone();
            problems.set(
                Pass::Scan,
                ROOT,
                Some(&name),
                "f".to_owned(),
                message.to_owned(),
                Weight::Note,
            );
            problems.logged != before
        };
        assert!(set(&mut problems, "unreadable"));
        problems.forget_logged();
        assert!(!set(&mut problems, "unreadable"));
        assert!(set(&mut problems, "special"));
        problems.clear_directory(Pass::Scan, ROOT);
        problems.forget_logged();
        assert!(set(&mut problems, "special"));
    }

    #[test]
    fn what_cannot_be_read_holds_nothing_up() {
        let weight = |pass, errno: Errno| Weight::of(pass, &errno.into());
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::ACCESS, Errno::ROFS] {
            assert_eq!(weight(Pass::Apply, errno), Weight::HoldsUp);
            assert_eq!(weight(Pass::Scan, errno), Weight::Note);
        }
        assert_eq!(weight(Pass::Scan, Errno::IO), Weight::HoldsUp);
        assert_eq!(weight(Pass::Apply, Errno::NAMETOOLONG), Weight::Note);
    }
}
