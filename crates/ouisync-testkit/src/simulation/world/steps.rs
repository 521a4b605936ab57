//! What each step does to the world, and what is to be undone when all is to be well.

use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use ouisync_engine::{
    retention::{Keep, Limits, PolicyChange},
    status::Role,
};
use ouisync_model::id::PackId;
use ouisync_store::backend::faulty::{Fault, Loss};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{Event, World, text};
use crate::simulation::{check::Silent, script::Step, user::Person, wire::Pair};

/// Most devices of a world.
const MOST: usize = 6;
/// Removals leave so many members.
const LEAST: usize = 3;

impl World<'_> {
    /// From now on everybody can reach everybody.
    pub(super) fn link_all(&mut self) {
        for first in 0..self.devices.len() {
            for second in first + 1..self.devices.len() {
                if !self.links.contains_key(&Pair(first, second)) {
                    self.add_link(Pair(first, second));
                }
            }
        }
    }

    pub(super) fn step(&mut self, step: &Step) -> Result<(), String> {
        let count = self.devices.len();
        let pairs: Vec<Pair> = self.links.keys().copied().collect();
        let pair = |link: usize| pairs[link % pairs.len()];
        let now = self.time.elapsed();
        let of_seconds = |seconds: u32| Duration::from_secs(seconds.into());
        match *step {
            Step::Pass { milliseconds } => self.pass(Duration::from_millis(milliseconds.into())),
            Step::Edit { device, choice } => self.edit(device, choice),
            Step::Break { link } => {
                self.disconnect(pair(link));
                Ok(())
            }
            Step::Cut { link, seconds } => {
                if let Some(link) = self.links.get_mut(&pair(link)) {
                    link.cut_until = now + of_seconds(seconds);
                }
                self.disconnect(pair(link));
                Ok(())
            }
            Step::Slow { link, seconds } => {
                if let Some(link) = self.links.get_mut(&pair(link)) {
                    link.slow_until = now + of_seconds(seconds);
                }
                Ok(())
            }
            Step::Crash {
                device,
                after,
                power,
                seconds,
            } => {
                let loss = power.map_or(Loss::Nothing, Loss::Mixed);
                self.let_crash(device % count, after, loss, of_seconds(seconds))
            }
            Step::Full {
                device,
                room,
                seconds,
            } => {
                let device = device % count;
                for disk in self.devices[device].around.disks() {
                    disk.set_capacity(Some(disk.used() + room));
                }
                self.schedule(of_seconds(seconds), Event::HasRoom(device));
                Ok(())
            }
            Step::Rot { device, choice } => {
                self.rot(device % count, choice);
                Ok(())
            }
            Step::Jump { device, seconds } => {
                let wrong = &self.devices[device % count].around.wrong;
                wrong.fetch_add(seconds, Ordering::Relaxed);
                Ok(())
            }
            Step::Backup { device } => self.devices[device % count].back_up().map_err(text),
            Step::Restore { device } => self.restore(device % count),
            Step::Lock { device, seconds } => self.lock(device % count, of_seconds(seconds)),
            Step::Pause { device, seconds } => {
                let device = device % count;
                if let Ok(engine) = self.engine(device).cloned() {
                    let paused = self.wait(engine.pause(None));
                    self.log
                        .note(now, || format!("{device} pauses: {paused:?}"));
                    self.schedule(of_seconds(seconds), Event::Resumes(device));
                }
                self.settle(device)
            }
            Step::Join { role } => self.let_join(role),
            Step::Remove { device } => self.remove(device % count),
            Step::Policy { choice } => self.set_policy(choice),
            Step::Revive { device, choice } => self.revive(device % count, choice),
            Step::Offload { device, choice } => self.offload(device % count, choice),
            Step::Fetch { device, choice } => self.fetch(device % count, choice),
            Step::Resolve { device, choice } => self.resolve(device % count, choice),
            Step::Forget { device, choice } => self.forget(device % count, choice),
            Step::Quota { device, bytes } => self.set_quota(device % count, bytes),
        }
    }

    fn edit(&mut self, device: usize, choice: u64) -> Result<(), String> {
        let writers = self.devices.iter().enumerate();
        let writers =
            writers.filter(|(_, device)| matches!(device.role, Role::Owner | Role::Writer));
        let writers: Vec<usize> = writers.map(|(number, _)| number).collect();
        let device = writers[device % writers.len()];
        let Some(view) = self.view(device).filter(|view| view.writable()) else {
            return Ok(());
        };
        let done = Person::new(&view, device, choice).act();
        let now = self.time.elapsed();
        match done {
            Ok((did, written)) => {
                let commit = written.as_ref().map(|written| written.commit);
                self.log.note(now, || format!("{device} {did} {commit:?}"));
                if self.gone.contains(&device) {
                    // Nobody else gets it; it is kept there.
                    self.excused.extend(commit);
                }
                if device == 0 {
                    let gone = self.gone.iter();
                    let since = gone.flat_map(|gone| Some((*gone, commit?)));
                    self.removals.extend(since);
                }
                self.written.extend(written);
            }
            Err(error) => self
                .log
                .note(now, || format!("{device} could not: {error}")),
        }
        self.settle(device)
    }

    fn let_crash(
        &mut self,
        device: usize,
        after: u64,
        loss: Loss,
        down: Duration,
    ) -> Result<(), String> {
        if after == 0 {
            self.crash(device, loss)?;
            self.schedule(down, Event::Starts(device));
            return Ok(());
        }
        for disk in self.devices[device].around.disks() {
            disk.set_fault(Fault::StopAt(after));
        }
        self.losses.insert(device, loss);
        let limit = Duration::from_secs(20);
        let start = self.devices[device].starts();
        self.schedule(limit, Event::Dies(device, start, loss));
        self.schedule(limit + down, Event::Starts(device));
        Ok(())
    }

    /// Packs that a device has whole, by their file names.
    fn packs_of(&self, device: usize) -> Vec<PathBuf> {
        let disks = self.devices[device].around.disks();
        let files = disks.iter().flat_map(|disk| disk.files());
        let packs = files.map(|(path, _)| path);
        packs.filter(|path| path.starts_with("packs")).collect()
    }

    /// Who has files of these packs.
    pub(in crate::simulation) fn holders(&self, packs: &[PackId]) -> Vec<(PackId, Vec<usize>)> {
        let has = |device: usize, pack: &PackId| {
            let name = pack.to_string();
            self.packs_of(device)
                .iter()
                .any(|path| path.ends_with(&name))
        };
        let holders = packs.iter().map(|pack| {
            let devices = (0..self.devices.len()).filter(|device| has(*device, pack));
            (*pack, devices.collect())
        });
        holders.collect()
    }

    /// Of members other than this one, somebody has the pack unharmed.
    fn others_have(&self, device: usize, pack: &Path) -> bool {
        let others = (0..self.devices.len()).filter(|other| *other != device);
        let mut others = others.filter(|other| !self.gone.contains(other));
        !self.rotten.contains(pack)
            && others.any(|other| self.packs_of(other).iter().any(|path| path == pack))
    }

    fn rot(&mut self, device: usize, choice: u64) {
        let mut rng = StdRng::seed_from_u64(choice);
        let mut packs = self.packs_of(device);
        packs.retain(|pack| self.others_have(device, pack));
        let asked = self.devices.iter().any(|device| device.is_asked());
        if packs.is_empty() || asked || self.gone.contains(&device) {
            return;
        }
        let pack = packs.swap_remove(rng.random_range(0..packs.len()));
        for disk in self.devices[device].around.disks() {
            let files = disk.files();
            if let Some((_, length)) = files.iter().find(|(path, _)| *path == pack) {
                disk.corrupt(&pack, rng.random_range(0..*length));
            }
        }
        self.log.note(self.time.elapsed(), || {
            format!("{device} has a flipped bit in {}", pack.display())
        });
        self.devices[device].rotten = true;
        self.rotten.insert(pack);
    }

    /// Others have each of its packs, and none is about to give up some on its word: without it no file is left half.
    fn can_be_spared(&self, device: usize) -> bool {
        let packs = self.packs_of(device);
        self.devices.iter().all(|device| !device.is_asked())
            && packs.iter().all(|pack| self.others_have(device, pack))
    }

    /// Commits that nobody but this device has are lost with it, and nobody is to blame.
    fn excuse(&mut self, device: usize) -> Result<(), String> {
        let folder = self.folder()?;
        let others = (0..self.devices.len()).filter(|other| *other != device);
        let others: Vec<usize> = others.filter(|other| !self.gone.contains(other)).collect();
        let is_known = |commit| {
            let mut running = others
                .iter()
                .filter_map(|other| self.devices[*other].running.as_ref());
            running.any(|running| running.has_commit(folder, commit).unwrap_or(false))
        };
        let commits = self.written.iter().map(|written| written.commit);
        let lost: Vec<_> = commits.filter(|commit| !is_known(*commit)).collect();
        self.excused.extend(lost);
        Ok(())
    }

    /// Everybody runs and can be asked.
    fn all_awake(&self) -> bool {
        (0..self.devices.len()).all(|device| {
            self.devices[device].is_discarded()
                || self.devices[device].running.is_some()
                    && (self.devices[device].role == Role::Safe
                        || self.gone.contains(&device)
                        || self.view(device).is_some())
        })
    }

    fn restore(&mut self, device: usize) -> Result<(), String> {
        // What only sleepers have can't be told.
        if !self.devices[device].has_backup() || !self.all_awake() || !self.can_be_spared(device) {
            return Ok(());
        }
        self.excuse(device)?;
        self.log.note(self.time.elapsed(), || {
            format!("{device} is put back from its backup")
        });
        self.end(device, |device| device.restore())?;
        self.start(device)
    }

    fn lock(&mut self, device: usize, seconds: Duration) -> Result<(), String> {
        // What has begun holds the index, which can't be opened a second time: `docs/STATUS.md`.
        if self.devices[device].role == Role::Safe || self.devices[device].is_asked() {
            return Ok(());
        }
        if let Ok(engine) = self.engine(device).cloned() {
            self.devices[device]
                .ring
                .locked
                .store(true, Ordering::Relaxed);
            let locked = self.wait(engine.lock(None));
            self.log.note(self.time.elapsed(), || {
                format!("{device} locks: {locked:?}")
            });
            self.schedule(seconds, Event::Unlocks(device));
        }
        self.settle(device)
    }

    pub(super) fn let_join(&mut self, role: u64) -> Result<(), String> {
        let device = self.devices.len();
        let present = self.devices.iter().filter(|device| !device.is_discarded());
        if present.count() >= MOST || self.view(0).is_none() {
            return Ok(());
        }
        let roles = [Role::Writer, Role::Reader, Role::Safe, Role::Owner];
        let role = roles[usize::try_from(role % 4).unwrap_or_default()];
        // The owner's disk may be about to stop.
        let link = match self.invitation(role) {
            Ok(link) => link,
            Err(error) => {
                self.log
                    .note(self.time.elapsed(), || format!("0 can't invite: {error}"));
                return self.settle(0);
            }
        };
        self.add_device(role)?;
        for other in 0..device {
            if !self.devices[other].is_discarded() {
                self.add_link(Pair(other, device));
            }
        }
        self.join(device, &link)
    }

    fn remove(&mut self, device: usize) -> Result<(), String> {
        let remaining = self.devices.len() - self.gone.len();
        if device == 0 || self.gone.contains(&device) || remaining <= LEAST {
            return Ok(());
        }
        if self.view(0).is_none() || !self.all_awake() || !self.can_be_spared(device) {
            return Ok(());
        }
        self.excuse(device)?;
        let engine = self.engine(0)?.clone();
        let name = self.devices[device].name.clone();
        let removed = self.wait(engine.remove_member(self.folder()?, &name));
        self.log.note(self.time.elapsed(), || {
            format!("0 removes {name}: {removed:?}")
        });
        if removed.is_ok() {
            self.gone.insert(device);
        }
        self.settle(0)
    }

    fn set_policy(&mut self, choice: u64) -> Result<(), String> {
        if self.view(0).is_none() {
            return Ok(());
        }
        let keeps = [Keep::All, Keep::For(30), Keep::For(300), Keep::Staggered];
        let keep = |choice: u64| keeps[usize::try_from(choice % 4).unwrap_or_default()];
        let change = PolicyChange {
            keep: self.forgetful.then(|| keep(choice)),
            devices: (self.forgetful && choice & 32 != 0)
                .then(|| (choice & 64 != 0).then(|| keep(choice >> 7))),
            replicas: Some(1 + u16::from(choice & 16 != 0)),
        };
        let told = format!("{change:?}");
        let engine = self.engine(0)?.clone();
        let set = self.wait(engine.set_policy(self.folder()?, change));
        self.log.note(self.time.elapsed(), || {
            format!("0 sets {told}: {:?}", set.map(drop))
        });
        self.settle(0)
    }

    fn set_quota(&mut self, device: usize, quota: Option<u64>) -> Result<(), String> {
        if self.devices[device].role != Role::Safe {
            return Ok(());
        }
        if let Ok(engine) = self.engine(device).cloned() {
            let limits = Limits { quota, floor: None };
            let set = self.wait(engine.set_limits(self.folder()?, limits));
            self.log.note(self.time.elapsed(), || {
                format!("{device} has the quota {quota:?}: {:?}", set.map(drop))
            });
        }
        self.settle(device)
    }

    /// No quota.
    pub(super) fn lift(&mut self, device: usize) -> Result<(), String> {
        self.set_quota(device, None)
    }

    /// Who was removed.
    pub(crate) fn is_gone(&self, device: usize) -> bool {
        self.gone.contains(&device)
    }

    /// Has what is damaged repaired.
    pub(super) fn repair(&mut self) -> Result<(), String> {
        for device in 0..self.devices.len() {
            if self.devices[device].rotten && !self.gone.contains(&device) {
                let engine = self.engine(device)?.clone();
                // As the manual says: what is found is repaired.
                let found = self.wait(engine.verify(self.folder()?, Box::new(Silent)));
                found.map_err(text)?;
                let repaired = self.wait(engine.repair(self.folder()?));
                self.log.note(self.time.elapsed(), || {
                    format!(
                        "{device} repairs: {:?}",
                        repaired.map(|outcome| outcome.problems)
                    )
                });
                self.settle(device)?;
            }
        }
        Ok(())
    }
}
