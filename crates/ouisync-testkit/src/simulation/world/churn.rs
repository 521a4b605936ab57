//! Days of a few devices with everything that usually happens to them, in which what they hold in memory must not grow.
//!
//! Nothing is kept of what happened but a sample an hour. The tree stays small and history is forgotten after an hour, so whatever grows
//! does so with time alone.

use std::{fs, time::Duration};

use ouisync_engine::retention::{Keep, PolicyChange};
use ouisync_model::tree::edit;
use rand::RngExt;
use serde::Serialize;

use super::{World, text};
use crate::simulation::{check, log::Log, script::Step, user::walk};

const HOUR: Duration = Duration::from_secs(3600);
/// Between two acts of somebody.
const PAUSE: Duration = Duration::from_secs(60);
/// Hours between a device that comes and the next one; it leaves after half of that.
const STAY: u64 = 4;
/// More entries are not left.
const CROWD: usize = 60;
/// Commits between two checkpoints.
const CHECKPOINT: u64 = 40;

/// What a world holds at the end of an hour, at rest.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Simulated hours since the beginning.
    pub hour: u64,
    /// Bytes allocated, without those of the simulated disks.
    pub allocated: u64,
    /// Bytes on the simulated disks.
    pub disks: u64,
    /// Threads of the process.
    pub threads: usize,
    /// Open files of the process.
    pub descriptors: usize,
    /// Files and directories of the folder.
    pub entries: usize,
}

/// What grew between the first third of these samples and their end, if anything did by more than chance.
pub fn growth(samples: &[Sample]) -> Option<String> {
    let third = samples.len() / 3;
    let window = third.min(STAY as usize).max(1);
    let early = samples.get(third.checked_sub(window)?..third)?;
    let late = samples.get(samples.len() - window..)?;
    // The least of some hours: devices come and go, and what caches hold for a while doesn't count.
    let compare = |what: &str, value: fn(&Sample) -> u64, spare: u64| {
        let least = |samples: &[Sample]| samples.iter().map(value).min().unwrap_or_default();
        let (before, after) = (least(early), least(late));
        (after > before + before / 4 + spare)
            .then(|| format!("{what} grew from {before} to {after}"))
    };
    compare("allocated memory", |sample| sample.allocated, 8 << 20)
        .or_else(|| compare("what disks hold", |sample| sample.disks, 16 << 20))
        .or_else(|| compare("the number of threads", |sample| sample.threads as u64, 4))
        .or_else(|| {
            compare(
                "the number of open files",
                |sample| sample.descriptors as u64,
                16,
            )
        })
}

/// Lets a world live for so many hours; `allocated` tells the bytes that the process has allocated. Gives a sample an hour to `watch`.
pub fn live(
    seed: u64,
    hours: u64,
    allocated: &dyn Fn() -> u64,
    watch: &mut dyn FnMut(&Sample),
) -> Result<Vec<Sample>, String> {
    let mut log = Log::silent();
    let mut world = World::new(seed, &mut log)?;
    world.forgetful = true;
    world.checkpoint_commits = CHECKPOINT;
    world.found()?;
    let policy = PolicyChange {
        keep: Some(Keep::For(HOUR.as_secs())),
        ..PolicyChange::default()
    };
    let owner = world.engine(0)?.clone();
    let set = world.wait(owner.set_policy(world.folder()?, policy));
    set.map_err(text)?;
    world.settle(0)?;
    let mut samples: Vec<Sample> = Vec::with_capacity(hours as usize);
    for hour in 1..=hours {
        world.live_an_hour(hour)?;
        let sample = world.sample(hour, allocated)?;
        watch(&sample);
        samples.push(sample);
    }
    world.heal()?;
    check::everything(&mut world)?;
    Ok(samples)
}

impl World<'_> {
    fn live_an_hour(&mut self, hour: u64) -> Result<(), String> {
        // Of the last hour alone is checked what is there at the end.
        self.written.clear();
        self.excused.clear();
        self.removals.clear();
        if hour % STAY == 1 {
            let role = self.rng.random();
            self.let_join(role)?;
        }
        for _ in 0..HOUR.as_secs() / PAUSE.as_secs() {
            self.act()?;
            self.pass(PAUSE)?;
            let last = self.devices.len() - 1;
            let leaves = hour % STAY > STAY / 2 && last > 3 && !self.devices[last].is_discarded();
            if leaves && (self.is_gone(last) || self.let_leave(last)?) {
                self.discard(last)?;
            }
        }
        self.calm()
    }

    fn act(&mut self) -> Result<(), String> {
        let (device, link) = (self.rng.random_range(0..60), self.rng.random_range(0..60));
        let (seconds, choice) = (self.rng.random_range(1..30), self.rng.random());
        let step = match self.rng.random_range(0..100) {
            0..60 => return self.write_something(device, choice),
            60..70 => Step::Break { link },
            70..76 => Step::Cut { link, seconds },
            76..80 => Step::Slow { link, seconds },
            80..86 => Step::Crash {
                device,
                after: u64::from(seconds),
                power: self.rng.random::<bool>().then_some(choice),
                seconds,
            },
            86..88 => Step::Pause { device, seconds },
            88..90 => Step::Lock { device, seconds },
            90..92 => Step::Offload { device, choice },
            92..94 => Step::Fetch { device, choice },
            94..97 => Step::Resolve { device, choice },
            _ => Step::Revive { device, choice },
        };
        self.step(&step)
    }

    /// Edits, or deletes where there is a crowd.
    fn write_something(&mut self, device: usize, choice: u64) -> Result<(), String> {
        let Some(view) = self.view(0).filter(|view| view.writable()) else {
            return Ok(());
        };
        let seen = walk(&view, 4 * CROWD).map_err(text)?;
        if seen.len() <= CROWD {
            return self.step(&Step::Edit { device, choice });
        }
        let entry = &seen[self.rng.random_range(0..seen.len())].entry;
        // The owner's disk may be about to stop.
        let _ = view.commit(edit::delete(entry), Vec::new());
        drop(view);
        self.settle(0)
    }

    /// Removes a device that came, if nobody needs it; whether it is gone.
    fn let_leave(&mut self, device: usize) -> Result<bool, String> {
        self.step(&Step::Remove { device })?;
        Ok(self.is_gone(device))
    }

    fn discard(&mut self, device: usize) -> Result<(), String> {
        self.links.retain(|pair, _| !pair.ends().contains(&device));
        self.losses.remove(&device);
        self.devices[device].discard().map_err(text)
    }

    /// Waits until everybody is of one mind.
    fn calm(&mut self) -> Result<(), String> {
        for device in 0..self.devices.len() {
            self.start(device)?;
        }
        let begun = self.time.elapsed();
        while let Some(apart) = check::apart(self)? {
            if self.time.elapsed() - begun > super::PATIENCE {
                return Err(format!("not of one mind: {apart}"));
            }
            self.pass(Duration::from_secs(10))?;
        }
        Ok(())
    }

    fn sample(&self, hour: u64, allocated: &dyn Fn() -> u64) -> Result<Sample, String> {
        let disks = self.devices.iter().flat_map(|device| device.around.disks());
        let disks = disks.map(|disk| disk.held()).sum();
        let of_process = |kind: &str| {
            let entries = fs::read_dir(format!("/proc/self/{kind}"));
            entries.map(Iterator::count).map_err(text)
        };
        let view = self.view(0).ok_or("the owner has no view")?;
        Ok(Sample {
            hour,
            allocated: allocated().saturating_sub(disks),
            disks,
            threads: of_process("task")?,
            descriptors: of_process("fd")?,
            entries: walk(&view, usize::MAX).map_err(text)?.len(),
        })
    }
}
