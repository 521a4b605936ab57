//! Listing directories and sorting what differs from the records.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    io,
    os::fd::OwnedFd,
};

use ouisync_model::name::Name;

use super::Scope;
use crate::{
    directories::Slot,
    disk::{self, Root},
    error::StepError,
    fingerprint::{Identity, Kind, Stat},
    problems::{Pass as ProblemPass, Weight, advice},
    record::{Record, Stored},
    recover::Settled,
    runner::Runner,
};

/// A file or link on disk that is not the recorded one of its place.
pub(crate) struct Found {
    pub(crate) slot: Slot,
    pub(crate) name: Name,
    pub(crate) stat: Stat,
    /// What is recorded at the place.
    pub(crate) record: Option<Record>,
}

/// A recorded file or link that is not at its place. Its record is taken out already.
pub(crate) struct Missed {
    pub(crate) slot: Slot,
    pub(crate) name: Name,
    pub(crate) record: Record,
}

/// A recorded directory that is not at its place. Its record is taken out already.
pub(crate) struct Limbo {
    pub(crate) slot: Slot,
    pub(crate) record: Record,
    pub(crate) parent: Slot,
    pub(crate) name: Name,
}

/// The state of one pass.
#[derive(Default)]
pub(crate) struct Pass {
    pub(super) queue: VecDeque<(Slot, Scope)>,
    listed: HashSet<Slot>,
    pub(crate) found: Vec<Found>,
    /// The recorded file, changed.
    pub(crate) edited: Vec<Found>,
    pub(crate) missed: Vec<Missed>,
    pub(crate) limbo: HashMap<Identity, Limbo>,
    seen: HashSet<(Slot, Name)>,
}

impl Pass {
    pub(crate) fn new(scopes: BTreeMap<Slot, Scope>) -> Self {
        Self {
            queue: scopes.into_iter().collect(),
            ..Self::default()
        }
    }

    pub(crate) fn extend(&mut self, more: Vec<(Slot, Scope)>) {
        self.queue.extend(more);
    }

    /// Nothing could be a half of a rename.
    pub(crate) fn is_settled(&self) -> bool {
        self.missed.is_empty() && self.limbo.is_empty() && self.found.is_empty()
    }

    /// Whether the scope holds anything not looked at yet.
    pub(crate) fn wants(&self, slot: Slot, scope: &Scope) -> bool {
        !self.listed.contains(&slot)
            && match scope {
                Scope::All { .. } => true,
                Scope::Names(names) => names.iter().any(|name| !self.saw(slot, name)),
            }
    }

    /// What of something heard this pass has still to look at, and what is left for the next one: this one looks at nothing
    /// twice, and what it saw may have changed since.
    pub(crate) fn split(&self, slot: Slot, scope: Scope) -> (Option<Scope>, Option<Scope>) {
        match scope {
            scope if self.listed.contains(&slot) => (None, Some(scope)),
            Scope::Names(names) => {
                let (later, now): (BTreeSet<_>, BTreeSet<_>) =
                    names.into_iter().partition(|name| self.saw(slot, name));
                let some = |names: BTreeSet<_>| (!names.is_empty()).then_some(Scope::Names(names));
                (some(now), some(later))
            }
            all if self.seen.iter().any(|(seen, _)| *seen == slot) => {
                (Some(all.clone()), Some(all))
            }
            all => (Some(all), None),
        }
    }

    pub(crate) fn saw(&self, slot: Slot, name: &Name) -> bool {
        self.listed.contains(&slot) || self.seen.contains(&(slot, name.clone()))
    }
}

impl Runner {
    pub(crate) fn list_all(&mut self, root: &Root, pass: &mut Pass) -> Result<(), StepError> {
        while let Some((slot, scope)) = pass.queue.pop_front() {
            if self.control.stopping() {
                return Err(StepError::Stopping);
            }
            self.list_directory(root, pass, slot, scope)?;
        }
        Ok(())
    }

    fn list_directory(
        &mut self,
        root: &Root,
        pass: &mut Pass,
        slot: Slot,
        scope: Scope,
    ) -> Result<(), StepError> {
        let Some(path) = self.tree.path(slot) else {
            return Ok(());
        };
        if pass.listed.contains(&slot) && scope != (Scope::All { deep: true }) {
            return Ok(());
        }
        self.watch_directory(slot);
        let handle = match root.directory(&path) {
            Ok(handle) => handle,
            Err(error) => {
                self.cannot_list(pass, slot, &path, &error);
                return Ok(());
            }
        };
        let shown = disk::shown_path(&path);
        let deep = matches!(scope, Scope::All { deep: true });
        let changed_rules = match self.rules.refresh(slot, &handle) {
            Ok(changed) => changed,
            Err(error) => {
                self.problem(
                    slot,
                    None,
                    format!(
                        "The rules in .ouisyncignore can't be read ({error}). {}",
                        advice(&error)
                    ),
                    Weight::of(ProblemPass::Scan, &error),
                );
                false
            }
        };
        let scope = if changed_rules {
            Scope::All { deep: true }
        } else {
            scope
        };
        let deep = deep || changed_rules;
        let all = matches!(scope, Scope::All { .. });
        let (names, mut records): (Vec<Name>, BTreeMap<Name, Stored>) = match scope {
            Scope::All { .. } => {
                self.problems.clear_directory(ProblemPass::Scan, slot);
                let mut names = match disk::names(&handle) {
                    Ok(names) => names,
                    Err(error) => {
                        let what = format!(
                            "The directory can't be listed ({error}); what is in it stays as it is everywhere. {}",
                            advice(&error)
                        );
                        let weight = Weight::of(ProblemPass::Scan, &error);
                        self.problems
                            .set(ProblemPass::Scan, slot, None, shown, what, weight);
                        return Ok(());
                    }
                };
                let records = self.records(slot)?;
                names.sort_unstable();
                let gone: Vec<_> = records
                    .keys()
                    .filter(|name| names.binary_search(name).is_err())
                    .cloned()
                    .collect();
                names.extend(gone);
                (names, records)
            }
            Scope::Names(names) => {
                let mut records = BTreeMap::new();
                for name in &names {
                    self.problems.clear(ProblemPass::Scan, slot, Some(name));
                    if let Some(stored) = self.stored(slot, name)? {
                        records.insert(name.clone(), stored);
                    }
                }
                (names.into_iter().collect(), records)
            }
        };
        let mut arrived = Vec::new();
        for name in names {
            if pass.saw(slot, &name) {
                if deep && let Some(child) = self.tree.child(slot, &name) {
                    pass.queue.push_back((child, Scope::All { deep: true }));
                }
                continue;
            }
            if !all {
                pass.seen.insert((slot, name.clone()));
            }
            let stored = records.remove(&name);
            self.sort_out(
                root,
                pass,
                (slot, &handle),
                name,
                stored,
                deep,
                &mut arrived,
            )?;
        }
        if all {
            pass.listed.insert(slot);
        }
        // Directories known from elsewhere first: they are moves and free their old names.
        arrived.sort_by_key(|(_, stat): &(Name, Stat)| {
            !pass.limbo.contains_key(&stat.fingerprint.identity)
                && self.tree.with_inode(&stat.fingerprint.identity).is_empty()
        });
        for (name, stat) in arrived {
            self.arrive(root, pass, slot, name, stat)?;
        }
        self.drop_empty_husk(root, slot, &handle)
    }

    fn cannot_list(&mut self, pass: &mut Pass, slot: Slot, path: &[Name], error: &io::Error) {
        use rustix::io::Errno;
        match Errno::from_io_error(error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                // Its place tells more.
                if let Some((parent, name)) = self
                    .tree
                    .get(slot)
                    .and_then(|directory| Some((directory.parent?, directory.name.clone())))
                    && !pass.saw(parent, &name)
                {
                    pass.queue.push_back((parent, Scope::Names([name].into())));
                }
            }
            Some(Errno::XDEV) => {
                let message = "Another file system is mounted here: what is on it is not synced, and nothing is deleted elsewhere.";
                self.problems.set(
                    ProblemPass::Scan,
                    slot,
                    None,
                    disk::shown_path(path),
                    message.to_owned(),
                    Weight::Note,
                );
            }
            _ => {
                let message = format!(
                    "The directory can't be opened ({error}); what is in it stays as it is everywhere. {}",
                    advice(error)
                );
                self.problems.set(
                    ProblemPass::Scan,
                    slot,
                    None,
                    disk::shown_path(path),
                    message,
                    Weight::of(ProblemPass::Scan, error),
                );
            }
        }
    }

    /// Compares one place with its record.
    #[expect(clippy::too_many_arguments, reason = "the parts of one place")]
    fn sort_out(
        &mut self,
        root: &Root,
        pass: &mut Pass,
        (slot, handle): (Slot, &OwnedFd),
        name: Name,
        stored: Option<Stored>,
        deep: bool,
        arrived: &mut Vec<(Name, Stat)>,
    ) -> Result<(), StepError> {
        let mut stat = match disk::stat(handle, name.as_bytes()) {
            Ok(stat) => stat,
            Err(error) => {
                self.problem(
                    slot,
                    Some(&name),
                    format!("It can't be examined ({error}). {}", advice(&error)),
                    Weight::of(ProblemPass::Scan, &error),
                );
                return Ok(());
            }
        };
        let mut stored = stored.unwrap_or_default();
        if let Some(intent) = stored.intent.take() {
            match self.settle_intent(
                (slot, handle),
                &name,
                stored.base.take(),
                intent,
                &mut stat,
            )? {
                Settled::Base(base) => stored.base = base.map(|base| *base),
                Settled::Later => return Ok(()),
            }
        }
        let mut record = stored.base;
        if let Some(record) = &mut record {
            let found = stat.as_ref().map(|stat| &stat.fingerprint);
            if self.is_still_offloaded((slot, handle), &name, record, found)? {
                return Ok(());
            }
        }
        if stat.is_none() && record.is_none() {
            return Ok(());
        }
        if let Some(stat) = &stat {
            if stat.fingerprint.kind == Kind::Special {
                if !self.rules.is_ignored(&self.tree, slot, &name, false) {
                    self.problem(
                        slot,
                        Some(&name),
                        "A device, socket or pipe can't be synced; it is left alone.".to_owned(),
                        Weight::Note,
                    );
                }
                return Ok(());
            }
            if stat.mount != root.mount() {
                self.problem(slot, Some(&name), "Another file system is mounted here: what is on it is not synced, and nothing is deleted elsewhere.".to_owned(), Weight::Note);
                return Ok(());
            }
        }
        let here_directory = stat.is_some_and(|stat| stat.fingerprint.kind == Kind::Directory);
        let was_directory = record
            .as_ref()
            .is_some_and(|record| record.group().is_some());
        let ignored = self.rules.is_ignored(
            &self.tree,
            slot,
            &name,
            here_directory || (stat.is_none() && was_directory),
        );
        match (stat, record) {
            (Some(stat), Some(record)) if here_directory && was_directory => {
                if stat.fingerprint.identity != record.fingerprint.identity {
                    arrived.push((name, stat));
                } else if deep
                    && !ignored
                    && let Some(child) = self.tree.child(slot, &name)
                {
                    pass.queue.push_back((child, Scope::All { deep: true }));
                }
            }
            // What is recorded and ignored is left as it is on both sides.
            _ if ignored => {}
            (Some(stat), None) if here_directory => arrived.push((name, stat)),
            (Some(stat), None) => pass.found.push(Found {
                slot,
                name,
                stat,
                record: None,
            }),
            (Some(stat), Some(record)) if !here_directory && !was_directory => {
                if stat.fingerprint == record.fingerprint {
                    self.is_quiet(slot, &name);
                } else {
                    let same = stat.fingerprint.identity == record.fingerprint.identity;
                    let list = if same {
                        &mut pass.edited
                    } else {
                        &mut pass.found
                    };
                    list.push(Found {
                        slot,
                        name,
                        stat,
                        record: Some(record),
                    });
                }
            }
            (stat, Some(record)) => {
                self.miss(pass, slot, &name, record)?;
                match stat {
                    Some(stat) if here_directory => arrived.push((name, stat)),
                    Some(stat) => pass.found.push(Found {
                        slot,
                        name,
                        stat,
                        record: None,
                    }),
                    None => {}
                }
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// A recorded thing is not at its place.
    pub(crate) fn miss(
        &mut self,
        pass: &mut Pass,
        slot: Slot,
        name: &Name,
        record: Record,
    ) -> Result<(), StepError> {
        self.put(slot, name, None)?;
        if record.group().is_none() {
            pass.missed.push(Missed {
                slot,
                name: name.clone(),
                record,
            });
        } else if let Some(child) = self.tree.child(slot, name) {
            self.tree.relocate(child, None, name.clone());
            let identity = record.fingerprint.identity;
            pass.limbo.insert(
                identity,
                Limbo {
                    slot: child,
                    record,
                    parent: slot,
                    name: name.clone(),
                },
            );
        }
        Ok(())
    }

    /// Reports about a place of a scan.
    pub(crate) fn problem(
        &mut self,
        slot: Slot,
        name: Option<&Name>,
        message: String,
        weight: Weight,
    ) {
        let mut path = self.tree.path(slot).unwrap_or_default();
        path.extend(name.cloned());
        self.problems.set(
            ProblemPass::Scan,
            slot,
            name,
            disk::shown_path(&path),
            message,
            weight,
        );
    }

    /// Something was changed here by a device that may not write.
    pub(crate) fn not_sent(&mut self, slot: Slot, name: &Name) {
        let why = if self.view.removed() {
            REMOVED
        } else {
            READ_ONLY
        };
        self.problem(slot, Some(name), why.to_owned(), Weight::Note);
    }
}

/// What a reader is told of its own changes.
const READ_ONLY: &str = "It was changed here, but this device may only read the folder: the change stays here and is not sent. \
     Move it elsewhere to get the folder's version back.";
/// What a removed member is told of its own changes.
const REMOVED: &str = "It was changed here after this device was removed from the folder: the change is kept here, in this directory, and is not sent. \
     Copy what others should have to a folder of which this device is a member, or ask an owner for a new invitation.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directories::ROOT;

    fn names(names: &[&str]) -> BTreeSet<Name> {
        let names = names.iter();
        names.map(|name| Name::new(*name).unwrap()).collect()
    }

    #[test]
    fn what_is_heard_of_something_seen_is_left_for_the_next_pass() {
        let all = |deep| Scope::All { deep };
        let mut pass = Pass::default();
        let split = pass.split(ROOT, all(true));
        assert_eq!(split, (Some(all(true)), None));
        pass.seen
            .extend(names(&["a"]).into_iter().map(|name| (ROOT, name)));
        assert_eq!(
            pass.split(ROOT, Scope::Names(names(&["a", "b"]))),
            (
                Some(Scope::Names(names(&["b"]))),
                Some(Scope::Names(names(&["a"])))
            )
        );
        assert_eq!(
            pass.split(ROOT, all(false)),
            (Some(all(false)), Some(all(false)))
        );
        pass.listed.insert(ROOT);
        let heard = Scope::Names(names(&["made after the listing"]));
        assert_eq!(pass.split(ROOT, heard.clone()), (None, Some(heard)));
    }
}
