//! What people ask of a device beside editing: bringing something of the past back, giving packs up and fetching them again, settling
//! conflicts, having versions forgotten. What takes its time goes on beside the world and may wait.

use std::collections::BTreeSet;

use ouisync_engine::{
    engine::conflicts::Resolution,
    error::EngineError,
    history::{Events, FolderPath, HistoryQuery, RestoreRequest, When},
    offload::{OffloadRequest, ViewFile},
    recall::{RecallPhase, RecallProgress},
    simulation::SimulatedDevice,
};
use ouisync_model::{name::Name, operation::Value};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{Event, World, text};
use crate::simulation::{
    errand::Errand,
    user::{Seen, walk},
};

/// A device that can be asked, what its folder shows, and chance.
type Asked<'a> = (&'a SimulatedDevice, Vec<Seen>, StdRng);

/// Entries that are looked at.
const MANY: usize = 200;

/// What a device told of something that was asked of it.
pub(super) struct Told {
    device: usize,
    start: u64,
    what: String,
}

/// Somebody who waits without a word.
struct Patient;

impl RecallProgress for Patient {
    fn tell(&mut self, _: RecallPhase, _: u64, _: u64) -> bool {
        true
    }
}

impl World<'_> {
    /// Has a device begin something soon that may take its time; what it tells is heard in [`Self::hear`].
    fn ask(
        &mut self,
        device: usize,
        name: &'static str,
        work: impl FnOnce() -> String + Send + 'static,
    ) -> Result<(), String> {
        let start = self.devices[device].starts();
        let teller = self.told.0.clone();
        let errand = Errand::new(Box::new(move || {
            let what = format!("{name}: {}", work());
            // Nobody listens when the world has ended.
            let _ = teller.send(Told {
                device,
                start,
                what,
            });
        }));
        self.devices[device].ask(errand.clone());
        let after = self.soon(30);
        self.schedule(after, Event::Works(device, start, name, errand));
        self.settle(device)
    }

    /// Notes what devices told; of a start that is over nobody heard it.
    pub(super) fn hear(&mut self) {
        while let Ok(told) = self.told.1.try_recv() {
            if self.devices[told.device].starts() == told.start {
                let now = self.time.elapsed();
                self.log
                    .note(now, || format!("{} told of {}", told.device, told.what));
            }
        }
    }

    fn asked(&self, device: usize, choice: u64) -> Result<Option<Asked<'_>>, String> {
        let (Some(running), Some(view)) = (&self.devices[device].running, self.view(device)) else {
            return Ok(None);
        };
        let seen = walk(&view, MANY).map_err(text)?;
        Ok(Some((running, seen, StdRng::seed_from_u64(choice))))
    }

    fn could_not(&mut self, device: usize, error: &EngineError) -> Result<(), String> {
        let now = self.time.elapsed();
        self.log
            .note(now, || format!("{device} could not be asked: {error}"));
        self.settle(device)
    }

    pub(super) fn revive(&mut self, device: usize, choice: u64) -> Result<(), String> {
        let folder = self.folder()?;
        let Some((running, seen, mut rng)) = self.asked(device, choice)? else {
            return Ok(());
        };
        let engine = running.engine();
        let of = |path: FolderPath| HistoryQuery {
            path,
            since: None,
            until: None,
            limit: 30,
        };
        let found: Result<Option<(FolderPath, When)>, EngineError> = self.wait(async {
            Ok(match rng.random_range(0..3) {
                0 => {
                    let deleted = engine.deleted(folder, Vec::new()).await?;
                    let entry = one(&mut rng, &deleted);
                    entry.map(|entry| (entry.path.clone(), When::Latest))
                }
                1 => {
                    let Some(seen) = one(&mut rng, &seen) else {
                        return Ok(None);
                    };
                    let path = names(seen);
                    let history = engine.history(folder, of(path.clone())).await?;
                    match history.events {
                        Events::Versions(versions) => one(&mut rng, &versions)
                            .map(|version| (path, When::Version(version.version.clone()))),
                        Events::Changes(changes) => one(&mut rng, &changes)
                            .map(|change| (path, When::Version(change.version()))),
                    }
                }
                _ => {
                    let history = engine.history(folder, of(Vec::new())).await?;
                    match history.events {
                        Events::Versions(_) => None,
                        Events::Changes(changes) => one(&mut rng, &changes)
                            .map(|change| (Vec::new(), When::Version(change.version()))),
                    }
                }
            })
        });
        let request = match found {
            Ok(Some((path, when))) => RestoreRequest {
                to: (rng.random_range(0..4) == 0)
                    .then(|| path.clone())
                    .filter(|path| !path.is_empty()),
                path,
                when,
                exact: rng.random(),
                partial: rng.random(),
            },
            Ok(None) => return Ok(()),
            Err(error) => return self.could_not(device, &error),
        };
        let asking = format!("{request:?}");
        let Some(running) = &self.devices[device].running else {
            return Ok(());
        };
        match self.wait(running.restoring(folder, request)) {
            Ok(work) => self.ask(device, "a restore", move || {
                format!("{asking}: {:?}", work(&mut Patient))
            }),
            Err(error) => self.could_not(device, &error),
        }
    }

    pub(super) fn offload(&mut self, device: usize, choice: u64) -> Result<(), String> {
        let folder = self.folder()?;
        let Some((running, seen, mut rng)) = self.asked(device, choice)? else {
            return Ok(());
        };
        let mut request = OffloadRequest::default();
        let mut told = String::new();
        let keeps_others = rng.random::<bool>();
        for file in seen.iter().filter(|seen| is_file(seen)) {
            if rng.random() {
                told += &file.path;
                request.chosen.push(place(file));
            } else if !keeps_others {
                request.others.push(place(file));
            }
        }
        let is_finished = rng.random_range(0..6) > 0;
        match self.wait(running.offloading(folder, request)) {
            Ok(work) => self.ask(device, "an offload", move || {
                let freed = work(&mut Patient).and_then(|offload| {
                    let chosen = 0..MANY;
                    let given: BTreeSet<usize> = chosen
                        .filter(|index| !offload.refused.contains_key(index))
                        .collect();
                    is_finished.then(|| offload.finish(&given)).transpose()
                });
                format!("{told}: {freed:?}")
            }),
            Err(error) => self.could_not(device, &error),
        }
    }

    pub(super) fn fetch(&mut self, device: usize, choice: u64) -> Result<(), String> {
        let folder = self.folder()?;
        let Some((running, seen, mut rng)) = self.asked(device, choice)? else {
            return Ok(());
        };
        let files = seen.iter().filter(|seen| is_file(seen) && rng.random());
        let files: Vec<ViewFile> = files.map(place).collect();
        match self.wait(running.fetching(folder, files)) {
            Ok(work) => self.ask(device, "a fetch", move || {
                format!("{:?}", work(&mut Patient))
            }),
            Err(error) => self.could_not(device, &error),
        }
    }

    pub(super) fn resolve(&mut self, device: usize, choice: u64) -> Result<(), String> {
        let folder = self.folder()?;
        let Some((running, _, mut rng)) = self.asked(device, choice)? else {
            return Ok(());
        };
        let engine = running.engine();
        let settled = self.wait(async {
            let conflicts = engine.conflicts(folder).await?;
            let Some(conflict) = one(&mut rng, &conflicts) else {
                return Ok(None);
            };
            let resolution = match rng.random_range(0..=conflict.versions.len()) {
                0 => Resolution::Both,
                number => Resolution::Keep(number.to_string()),
            };
            let path = conflict.path.clone();
            engine.resolve(folder, path, resolution).await.map(Some)
        });
        match settled {
            Ok(None) => Ok(()),
            Ok(Some(path)) => {
                let now = self.time.elapsed();
                self.log
                    .note(now, || format!("{device} settles the conflict at {path:?}"));
                self.settle(device)
            }
            Err(error) => self.could_not(device, &error),
        }
    }

    pub(super) fn forget(&mut self, device: usize, choice: u64) -> Result<(), String> {
        let folder = self.folder()?;
        if !self.forgetful {
            return Ok(());
        }
        let Some((running, seen, mut rng)) = self.asked(device, choice)? else {
            return Ok(());
        };
        let files: Vec<&Seen> = seen.iter().filter(|seen| is_file(seen)).collect();
        let Some(file) = one(&mut rng, &files) else {
            return Ok(());
        };
        let path = names(file);
        let forgotten = self.wait(running.engine().forget_versions(folder, path, false));
        let now = self.time.elapsed();
        let told = format!("{device} has versions of {} forgotten", file.path);
        self.log.note(now, || format!("{told}: {forgotten:?}"));
        self.settle(device)
    }
}

fn one<'a, T>(rng: &mut StdRng, all: &'a [T]) -> Option<&'a T> {
    all.get(rng.random_range(0..all.len().max(1)))
}

fn is_file(seen: &Seen) -> bool {
    matches!(seen.entry.value, Value::File(_))
}

fn place(seen: &Seen) -> ViewFile {
    ViewFile {
        directory: seen.parent,
        name: seen.entry.name.clone(),
    }
}

fn names(seen: &Seen) -> FolderPath {
    let names = seen.path.split('/').filter(|name| !name.is_empty());
    names.filter_map(|name| Name::new(name).ok()).collect()
}
