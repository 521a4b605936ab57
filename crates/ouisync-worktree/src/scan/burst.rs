//! Telling a burst of deleting and rewriting from ordinary work, and putting the files of one back.

use std::{collections::HashMap, io::Read};

use ouisync_model::{name::Name, operation::Value};

use super::{pass::Found, recognise::Recognised};
use crate::{
    brake::{Loss, Place, time_text},
    directories::Slot,
    disk::{self, Root},
    error::StepError,
    fingerprint::Kind,
    record::Record,
    runner::Runner,
};

/// So much of a file's beginning is looked at.
const SAMPLE: usize = 64 << 10;
/// Less tells nothing about how a file looks.
const LEAST_SAMPLE: usize = 512;
/// Bits a byte from which content looks encrypted or compressed, and by how much more than before.
const DENSE: f64 = 7.4;
const JUMP: f64 = 1.0;

/// Where something is recorded.
type Recorded<'a> = (Slot, &'a Name);

impl Runner {
    /// Holds a pass back if it is part of a burst; else counts it.
    pub(crate) fn holds_back(
        &mut self,
        root: &Root,
        recognised: &Recognised,
    ) -> Result<bool, StepError> {
        if !self.brake.watches() || self.deletion_confirmed {
            return Ok(false);
        }
        let moved = recognised.moves.iter().filter(|moved| {
            let before = &moved.record.fingerprint;
            !before.same_but_renamed(&moved.to.stat.fingerprint)
        });
        let rewritten: Vec<(&Found, &Record, Recorded<'_>)> = recognised
            .edited
            .iter()
            .filter_map(|found| Some((found, found.record.as_ref()?, (found.slot, &found.name))))
            .chain(moved.map(|moved| (&moved.to, &moved.record, (moved.from.0, &moved.from.1))))
            .filter(|(found, record, _)| {
                found.stat.fingerprint.kind == Kind::File && record.content().is_some()
            })
            .collect();
        let mut hit = self.lost(root, recognised);
        if hit.is_empty() && rewritten.is_empty() {
            return Ok(false);
        }
        let files = self.view.files()?;
        let heaviest = hit.len() as u64 + rewritten.len() as u64 * Loss::Rewritten.heaviest();
        let look = self.brake.may_burst(heaviest, files);
        for (found, record, at) in rewritten {
            let loss = match look {
                true => self.compare(root, found, record, at)?,
                false => Some(Loss::Rewritten),
            };
            hit.extend(loss.map(|loss| (Place::of(at.0, at.1), loss)));
        }
        match self.brake.judge(&hit, files) {
            Some(burst) => {
                self.hold(burst)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// The deleted files, less objects of git repositories that are still there: git moves these into packs by itself, thousands at once.
    fn lost(&self, root: &Root, recognised: &Recognised) -> Vec<(Place, Loss)> {
        // Deleted directories have no path any more.
        let gone: HashMap<Slot, (Slot, &Name)> = recognised
            .deleted_directories
            .iter()
            .map(|limbo| (limbo.slot, (limbo.parent, &limbo.name)))
            .collect();
        let path = |slot: Slot| {
            let mut names = Vec::new();
            let mut at = slot;
            while let Some((parent, name)) = gone.get(&at) {
                names.push((*name).clone());
                at = *parent;
            }
            names.reverse();
            let mut path = self.tree.path(at)?;
            path.append(&mut names);
            Some(path)
        };
        let has_repository = |path: Vec<Name>| {
            let names =
                |pair: &[Name]| pair[0].as_bytes() == b".git" && pair[1].as_bytes() == b"objects";
            let at = path.windows(2).position(names)?;
            let repository = root.directory(&path[..=at]).ok()?;
            disk::stat(&repository, b"HEAD").ok()?
        };
        let mut packed: HashMap<Slot, bool> = HashMap::new();
        let mut hit = Vec::new();
        for missed in &recognised.deleted {
            let packed = packed
                .entry(missed.slot)
                .or_insert_with(|| path(missed.slot).and_then(has_repository).is_some());
            if !*packed {
                hit.push((Place::of(missed.slot, &missed.name), Loss::Deleted));
            }
        }
        hit
    }

    /// What became of a file's content; `None` if it is the same as recorded, as far as its size and beginning tell. Scrambled is what
    /// looked like something, and now like noise.
    fn compare(
        &self,
        root: &Root,
        found: &Found,
        record: &Record,
        place: Recorded<'_>,
    ) -> Result<Option<Loss>, StepError> {
        if self.control.stopping() {
            return Err(StepError::Stopping);
        }
        let new = self.tree.path(found.slot).and_then(|path| {
            let directory = root.directory(&path).ok()?;
            let file = disk::open_file(&directory, found.name.as_bytes()).ok()?;
            let mut sample = Vec::new();
            file.take(SAMPLE as u64).read_to_end(&mut sample).ok()?;
            Some(sample)
        });
        let (Some(new), Some(old)) = (new, self.recorded_sample(place, record)) else {
            return Ok(Some(Loss::Rewritten));
        };
        let size = record.content().map_or(0, |content| content.size);
        if size == found.stat.fingerprint.size && new == old {
            return Ok(None);
        }
        let (before, after) = (density(&old), density(&new));
        Ok(Some(match (before, after) {
            (Some(before), Some(after)) if after >= DENSE && after - before >= JUMP => {
                Loss::Scrambled
            }
            _ => Loss::Rewritten,
        }))
    }

    /// The beginning of what is recorded, as far as it is here.
    fn recorded_sample(&self, (slot, name): Recorded<'_>, record: &Record) -> Option<Vec<u8>> {
        // Small contents are in the tree's entry only.
        let entry = self
            .tree_node(slot)
            .and_then(|node| self.view.entry(node, name).ok().flatten())
            .filter(|entry| record.shares_node(entry) && record.same_value(&entry.value));
        let content = match entry.map(|entry| entry.value) {
            Some(Value::File(content)) => content,
            _ => record.content()?.clone(),
        };
        let mut stream = self.view.open(&content).ok()?;
        let mut sample = Vec::new();
        while sample.len() < SAMPLE {
            match stream.next_chunk().ok()? {
                Some((_, bytes)) => sample.extend_from_slice(&bytes),
                None => break,
            }
        }
        sample.truncate(SAMPLE);
        Some(sample)
    }

    /// Has the folder's versions come back where a pass found them deleted or rewritten. Changed versions are set aside; what is new
    /// stays and is recorded.
    pub(crate) fn put_back_burst(
        &mut self,
        root: &Root,
        recognised: &mut Recognised,
    ) -> Result<(), StepError> {
        let mut put_back = 0;
        for missed in std::mem::take(&mut recognised.deleted) {
            self.behind.entry(missed.slot).or_default();
            put_back += 1;
        }
        for limbo in std::mem::take(&mut recognised.deleted_directories) {
            self.behind.entry(limbo.parent).or_default();
            self.forget_directory(limbo.slot);
        }
        for moved in std::mem::take(&mut recognised.moves) {
            let before = &moved.record.fingerprint;
            let same = before.same_but_renamed(&moved.to.stat.fingerprint)
                || self
                    .compare(
                        root,
                        &moved.to,
                        &moved.record,
                        (moved.from.0, &moved.from.1),
                    )?
                    .is_none();
            if same {
                recognised.moves.push(moved);
                continue;
            }
            // Renamed and rewritten: the old one comes back beside it.
            self.behind.entry(moved.from.0).or_default();
            put_back += 1;
            recognised.created.push(Found {
                record: None,
                ..moved.to
            });
        }
        let mut set_aside = 0;
        for found in std::mem::take(&mut recognised.edited) {
            let same = match &found.record {
                Some(record) => {
                    let place = (found.slot, &found.name);
                    self.compare(root, &found, record, place)?.is_none()
                }
                None => true,
            };
            if same {
                recognised.edited.push(found);
                continue;
            }
            self.set_version_aside(root, found.slot, &found.name)?;
            self.put(found.slot, &found.name, None)?;
            self.behind.entry(found.slot).or_default();
            put_back += 1;
            set_aside += 1;
        }
        if let Some(undone) = &mut self.brake.state.undone {
            undone.put_back += put_back;
            undone.set_aside += set_aside;
        }
        Ok(())
    }

    /// Moves a changed version out of the synced part of the directory.
    fn set_version_aside(&mut self, root: &Root, slot: Slot, name: &Name) -> Result<(), StepError> {
        let fail = |source| StepError::Disk {
            step: "setting a changed version aside",
            source,
        };
        let path = self.tree.path(slot).ok_or(StepError::Record)?;
        let burst = self.brake.state.burst;
        let kept = format!(
            ".ouisync-undone-{}",
            time_text(burst.map_or(0, |burst| burst.since)).replace(':', "")
        );
        let kept = self.path.join(kept);
        let to = disk::system_path(&kept, &path);
        std::fs::create_dir_all(&to).map_err(fail)?;
        let to = std::fs::File::open(&to).map_err(fail)?;
        let from = root.directory(&path).map_err(fail)?;
        let mut number = 0;
        loop {
            let label = match number {
                0 => name.clone(),
                number => disk::labelled(name, "undone", number),
            };
            match disk::move_new(&from, name.as_bytes(), &to, label.as_bytes()) {
                Ok(()) => break,
                // Gone by itself.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
                Err(error)
                    if error.kind() == std::io::ErrorKind::AlreadyExists && number < 1000 =>
                {
                    number += 1;
                }
                Err(error) => return Err(fail(error)),
            }
        }
        if let Some(undone) = &mut self.brake.state.undone {
            undone.kept_in = Some(kept);
        }
        Ok(())
    }
}

/// Bits of information a byte, by the frequencies of bytes; `None` for too little to tell.
fn density(bytes: &[u8]) -> Option<f64> {
    if bytes.len() < LEAST_SAMPLE {
        return None;
    }
    let mut counts = [0_u32; 256];
    bytes
        .iter()
        .for_each(|byte| counts[usize::from(*byte)] += 1);
    let total = bytes.len() as f64;
    let bits = counts.iter().filter(|count| **count > 0).map(|count| {
        let share = f64::from(*count) / total;
        -share * share.log2()
    });
    Some(bits.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_dense_and_text_is_not() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(4096)
        .collect();
        assert!(density(&noise).unwrap() > DENSE);
        assert!(density(&noise[..512]).unwrap() > DENSE);
        let text = include_str!("burst.rs").as_bytes();
        assert!(density(text).unwrap() < DENSE - JUMP);
        assert_eq!(density(b"short"), None);
    }
}
