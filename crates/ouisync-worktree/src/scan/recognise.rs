//! Which of the things that are gone and the things that came are the same.
//!
//! A thing that is elsewhere now was renamed. Two exceptions serve the ways programs save: what was renamed over a recorded file
//! is an edit of that file, and a new file under a recorded file's name is an edit too, wherever the old one went.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use ouisync_model::name::Name;

use super::{
    Scope,
    pass::{Found, Limbo, Missed, Pass},
};
use crate::{
    directories::{ROOT, Slot},
    error::StepError,
    fingerprint::Identity,
    record::{self, ROOT_GROUP, Record, Stored},
    runner::Runner,
};

/// A renamed file or link.
pub(crate) struct Move {
    pub(crate) from: (Slot, Name),
    pub(crate) record: Record,
    pub(crate) to: Found,
}

/// What a pass is to record.
#[derive(Default)]
pub(crate) struct Recognised {
    pub(crate) moves: Vec<Move>,
    /// With the record of what was there before.
    pub(crate) edited: Vec<Found>,
    pub(crate) created: Vec<Found>,
    pub(crate) deleted: Vec<Missed>,
    /// Directories that are gone, with what was in them.
    pub(crate) deleted_directories: Vec<Limbo>,
    /// Of what is deleted, how many were in the root itself.
    pub(crate) from_root: usize,
}

impl Runner {
    /// Where what came was recorded before, as far as the pass has not looked there.
    pub(crate) fn old_places(&self, pass: &Pass) -> Result<Vec<(Slot, Scope)>, StepError> {
        let mut places = Vec::new();
        for found in &pass.found {
            let identity = found.stat.fingerprint.identity;
            for slot in self.tree.with_inode(&identity) {
                let records = self.records(slot)?;
                let names = records.into_iter().filter_map(|(name, stored)| {
                    let record = stored.base?;
                    let same = record.group().is_none() && record.fingerprint.identity == identity;
                    (same && !pass.saw(slot, &name)).then_some(name)
                });
                let names: std::collections::BTreeSet<_> = names.collect();
                if !names.is_empty() {
                    places.push((slot, Scope::Names(names)));
                }
            }
        }
        Ok(places)
    }

    /// Pairs what is gone with what came. Consumes the pass's lists of files; directories were paired while listing.
    pub(crate) fn recognise(&mut self, pass: &mut Pass) -> Result<Recognised, StepError> {
        let mut result = Recognised {
            edited: std::mem::take(&mut pass.edited),
            ..Recognised::default()
        };
        let limbo: Vec<Slot> = pass.limbo.values().map(|limbo| limbo.slot).collect();
        // A file that came out of a directory that is gone counts as missed there.
        for found in &pass.found {
            let identity = found.stat.fingerprint.identity;
            for slot in self.tree.with_inode(&identity) {
                if !limbo.iter().any(|gone| self.tree.is_inside(slot, *gone)) {
                    continue;
                }
                let records = self.records(slot)?;
                let out = records.into_iter().find_map(|(name, stored)| {
                    let record = stored.base?;
                    (record.group().is_none() && record.fingerprint.identity == identity)
                        .then_some((name, record))
                });
                if let Some((name, record)) = out {
                    self.put(slot, &name, None)?;
                    pass.missed.push(Missed { slot, name, record });
                }
            }
        }
        let found = std::mem::take(&mut pass.found);
        let known: HashSet<Identity> = pass
            .missed
            .iter()
            .map(|missed| missed.record.fingerprint.identity)
            .chain(
                found
                    .iter()
                    .filter_map(|found| Some(found.record.as_ref()?.fingerprint.identity)),
            )
            .collect();
        let here: HashSet<Identity> = found
            .iter()
            .map(|found| found.stat.fingerprint.identity)
            .collect();
        // What was recorded at a place that something unknown holds now stays there as an edit.
        let stays = |found: &Found| {
            found.record.as_ref().is_some_and(|record| {
                !known.contains(&found.stat.fingerprint.identity)
                    || !here.contains(&record.fingerprint.identity)
            })
        };
        let mut sources: HashMap<Identity, ((Slot, Name), Record)> = HashMap::new();
        let mut left: Vec<Missed> = Vec::new();
        for missed in std::mem::take(&mut pass.missed) {
            let identity = missed.record.fingerprint.identity;
            let source = ((missed.slot, missed.name.clone()), missed.record.clone());
            match sources.entry(identity) {
                Entry::Occupied(_) => left.push(missed),
                Entry::Vacant(entry) => drop(entry.insert(source)),
            }
        }
        for place in &found {
            if !stays(place)
                && let Some(record) = &place.record
            {
                let source = ((place.slot, place.name.clone()), record.clone());
                sources.entry(record.fingerprint.identity).or_insert(source);
            }
        }
        for place in found {
            if stays(&place) {
                result.edited.push(place);
                continue;
            }
            let identity = place.stat.fingerprint.identity;
            match sources.remove(&identity) {
                Some((from, record)) => {
                    self.take_out(&from, &record)?;
                    result.moves.push(Move {
                        from,
                        record,
                        to: place,
                    });
                }
                None => result.created.push(place),
            }
        }
        for ((slot, name), record) in sources.into_values() {
            self.take_out(&(slot, name.clone()), &record)?;
            left.push(Missed { slot, name, record });
        }
        result.deleted = left;
        Ok(result)
    }

    /// A recorded file is no longer at its place: the place is free for what is there now.
    fn take_out(&mut self, (slot, name): &(Slot, Name), record: &Record) -> Result<(), StepError> {
        let here = self.stored(*slot, name)?.and_then(|stored| stored.base);
        if here.as_ref() == Some(record) {
            self.put(*slot, name, None)?;
        }
        Ok(())
    }

    /// Leaves what is gone for a later pass, except where something else is at its place now: the place can't be both.
    pub(crate) fn put_back(
        &mut self,
        pass: &mut Pass,
        recognised: &mut Recognised,
    ) -> Result<(), StepError> {
        let came = recognised
            .created
            .iter()
            .chain(recognised.moves.iter().map(|moved| &moved.to));
        let taken: HashSet<(Slot, Name)> =
            came.map(|found| (found.slot, found.name.clone())).collect();
        for missed in std::mem::take(&mut recognised.deleted) {
            let place = (missed.slot, missed.name);
            if taken.contains(&place) || self.stored(place.0, &place.1)?.is_some() {
                recognised.deleted.push(Missed {
                    slot: place.0,
                    name: place.1,
                    record: missed.record,
                });
                continue;
            }
            let stored = Stored::of(missed.record);
            self.put(place.0, &place.1, stored)?;
            self.queue_scan(place.0, Scope::Names([place.1].into()));
        }
        let limbo: Vec<_> = pass.limbo.drain().map(|(_, limbo)| limbo).collect();
        for limbo in limbo {
            let taken = taken.contains(&(limbo.parent, limbo.name.clone()));
            if taken || self.stored(limbo.parent, &limbo.name)?.is_some() {
                self.sink(limbo, recognised)?;
                continue;
            }
            self.tree
                .relocate(limbo.slot, Some(limbo.parent), limbo.name.clone());
            let stored = Stored::of(limbo.record);
            self.put(limbo.parent, &limbo.name, stored)?;
            self.queue_scan(limbo.parent, Scope::Names([limbo.name].into()));
        }
        Ok(())
    }

    /// What is still in limbo is deleted, with all that was inside.
    pub(crate) fn sink_limbo(
        &mut self,
        pass: &mut Pass,
        recognised: &mut Recognised,
    ) -> Result<(), StepError> {
        recognised.from_root += recognised
            .deleted
            .iter()
            .filter(|missed| missed.slot == ROOT)
            .count();
        let gone: Vec<_> = pass.limbo.drain().map(|(_, limbo)| limbo).collect();
        recognised.from_root += gone
            .iter()
            .filter(|limbo| limbo.parent == ROOT && !limbo.record.is_husk())
            .count();
        for limbo in gone {
            self.sink(limbo, recognised)?;
        }
        Ok(())
    }

    fn sink(&mut self, limbo: Limbo, recognised: &mut Recognised) -> Result<(), StepError> {
        for (name, stored) in self.records(limbo.slot)? {
            self.put(limbo.slot, &name, None)?;
            let Some(record) = stored.base else { continue };
            if record.group().is_none() {
                recognised.deleted.push(Missed {
                    slot: limbo.slot,
                    name,
                    record,
                });
            } else if let Some(child) = self.tree.child(limbo.slot, &name) {
                self.sink(
                    Limbo {
                        slot: child,
                        record,
                        parent: limbo.slot,
                        name,
                    },
                    recognised,
                )?;
            }
        }
        recognised.deleted_directories.push(limbo);
        Ok(())
    }

    /// Whether the pass would delete all that the root has: then it is more likely that its content is away.
    pub(crate) fn is_emptied(&self, recognised: &Recognised) -> Result<bool, StepError> {
        if self.deletion_confirmed || recognised.from_root == 0 || recognised.deleted.len() < 2 {
            return Ok(false);
        }
        let mut left = false;
        for (name, bytes) in self.view.records(ROOT_GROUP)? {
            let name = Name::new(name).map_err(|_| StepError::Record)?;
            let before = record::decode::<Stored>(&bytes)?
                .base
                .is_some_and(|base| !base.is_husk());
            // Something else under the name of a recorded thing is a person's doing, too.
            let replaced = recognised
                .created
                .iter()
                .any(|found| found.slot == ROOT && found.name == name);
            left |= before
                && (replaced
                    || self
                        .stored(ROOT, &name)?
                        .is_some_and(|stored| stored.base.is_some()));
        }
        let moved = recognised
            .moves
            .iter()
            .any(|moved| moved.from.0 == ROOT || moved.to.slot == ROOT);
        Ok(!left && !moved)
    }

    /// A reader records nothing: what it changed is reported, what it deleted comes back.
    pub(crate) fn forget_read_only(&mut self, mut pass: Pass) -> Result<(), StepError> {
        for found in pass.found.drain(..).chain(pass.edited.drain(..)) {
            self.not_sent(found.slot, &found.name);
        }
        let mut recognised = Recognised::default();
        for missed in pass.missed.drain(..) {
            self.behind.entry(missed.slot).or_default();
        }
        let limbo: Vec<_> = pass.limbo.drain().map(|(_, limbo)| limbo).collect();
        for limbo in limbo {
            self.behind.entry(limbo.parent).or_default();
            self.sink(limbo, &mut recognised)?;
        }
        for limbo in recognised.deleted_directories {
            self.forget_directory(limbo.slot);
        }
        Ok(())
    }

    pub(crate) fn forget_directory(&mut self, slot: Slot) {
        self.tree.remove(slot);
        self.rules.forget(slot);
        self.behind.remove(&slot);
        self.blocked.remove(&slot);
        self.problems
            .clear_directory(crate::problems::Pass::Scan, slot);
        self.problems
            .clear_directory(crate::problems::Pass::Apply, slot);
    }
}
