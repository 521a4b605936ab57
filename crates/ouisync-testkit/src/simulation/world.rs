//! The world: its devices and links, what is to happen when, and letting it happen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use ouisync_engine::{
    engine::InvitationOptions,
    housekeeping::Housekeeping,
    repacking::RepackTerms,
    status::{Problem, Role},
    view::FolderView,
};
use ouisync_model::id::{CommitId, FolderId};
use ouisync_store::backend::faulty::{Fault, Loss};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tokio::runtime::Runtime;

use super::{
    Plan,
    around::Time,
    check,
    device::Device,
    errand::Errand,
    log::Log,
    user::{MARK, Written},
    wire::{Cargo, Link, Pair, Wire},
};

mod asks;
pub mod churn;
mod steps;

/// Time between two looks of a device at what is due.
const TICK: Duration = Duration::from_secs(1);
/// How long the members have to become of one mind once all is well.
const PATIENCE: Duration = Duration::from_secs(1800);

enum Event {
    /// Something arrives at an end of a connection.
    Arrives(Pair, u64, usize, Cargo),
    /// Work beside a device's folders is done now.
    Works(usize, u64, &'static str, Errand),
    Tick(usize),
    Dials(Pair),
    Starts(usize),
    /// If its disk didn't end it before.
    Dies(usize, u64, Loss),
    HasRoom(usize),
    Unlocks(usize),
    Resumes(usize),
}

pub(super) struct World<'a> {
    runtime: Runtime,
    time: Arc<Time>,
    rng: StdRng,
    directory: tempfile::TempDir,
    pub(super) devices: Vec<Device>,
    links: BTreeMap<Pair, Link>,
    events: BTreeMap<(Duration, u64), Event>,
    numbers: u64,
    pub(super) folder: Option<FolderId>,
    /// What people were told is kept.
    pub(super) written: Vec<Written>,
    /// Commits that were lost with the disk that was replaced by a backup, before anybody else had them.
    pub(super) excused: BTreeSet<CommitId>,
    /// What a device is to lose once its disk has stopped.
    losses: BTreeMap<usize, Loss>,
    /// History isn't kept for ever in this world.
    pub(super) forgetful: bool,
    /// How many commits make a checkpoint.
    checkpoint_commits: u64,
    /// Packs of which a bit was flipped somewhere.
    rotten: BTreeSet<std::path::PathBuf>,
    /// What was written at the owner after it had removed a device.
    pub(super) removals: Vec<(usize, CommitId)>,
    gone: BTreeSet<usize>,
    /// What came of what people asked for.
    told: (Sender<asks::Told>, Receiver<asks::Told>),
    log: &'a mut Log,
}

/// Lets a plan happen; `Err` says what is wrong with the world then.
pub(super) fn run(plan: &Plan, log: &mut Log) -> Result<(), String> {
    let mut world = World::new(plan.seed, log)?;
    world.found()?;
    for step in &plan.steps {
        world.log.note(world.time.elapsed(), || step.to_string());
        world.step(step)?;
    }
    world.heal()?;
    check::everything(&mut world)?;
    let (seconds, contents) = (world.time.elapsed().as_secs(), world.written.len());
    world.log.ends(seconds, contents);
    Ok(())
}

impl<'a> World<'a> {
    fn new(seed: u64, log: &'a mut Log) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(text)?;
        // In memory, where there is such a place.
        let memory = std::path::Path::new("/dev/shm");
        let directory = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
        Ok(Self {
            forgetful: rng.random_range(0..4) == 0,
            checkpoint_commits: rng.random_range(5..40),
            rotten: BTreeSet::new(),
            removals: Vec::new(),
            gone: BTreeSet::new(),
            runtime,
            time: Arc::new(Time::new()),
            rng,
            directory: directory.map_err(text)?,
            devices: Vec::new(),
            links: BTreeMap::new(),
            events: BTreeMap::new(),
            numbers: 0,
            folder: None,
            written: Vec::new(),
            excused: BTreeSet::new(),
            losses: BTreeMap::new(),
            told: channel(),
            log,
        })
    }

    /// An owner, a writer and a safe, and perhaps others, on an undisturbed network.
    fn found(&mut self) -> Result<(), String> {
        let mut roles = vec![Role::Owner, Role::Writer, Role::Safe];
        match self.rng.random_range(0..4) {
            0 => roles.push(Role::Writer),
            1 => roles.push(Role::Reader),
            2 => roles.push(Role::Safe),
            _ => {}
        }
        for role in &roles {
            self.add_device(*role)?;
        }
        // Everybody with everybody, or all through the first safe.
        let star = self.rng.random_range(0..3) == 0;
        for first in 0..roles.len() {
            for second in first + 1..roles.len() {
                if !star || first == 2 || second == 2 {
                    self.add_link(Pair(first, second));
                }
            }
        }
        let name = format!("folder-{MARK}");
        let owner = self.engine(0)?.clone();
        let founded = self.runtime.block_on(owner.create_folder(&name));
        self.folder = Some(founded.map_err(text)?.folder);
        for device in 1..roles.len() {
            let link = self.invitation(self.devices[device].role)?;
            self.join(device, &link)?;
        }
        self.pass(Duration::from_secs(8))
    }

    /// The owner's invitation for one device.
    fn invitation(&mut self, role: Role) -> Result<String, String> {
        let options = InvitationOptions {
            role,
            uses: 1,
            expires: None,
        };
        let owner = self.engine(0)?.clone();
        let invitation = self.wait(owner.invite(self.folder()?, options));
        Ok(invitation.map_err(text)?.link)
    }

    fn join(&mut self, device: usize, link: &str) -> Result<(), String> {
        let joiner = self.engine(device)?.clone();
        let joined = self.wait(joiner.join(link, None, Duration::ZERO));
        joined.map_err(text)?;
        self.settle(0)?;
        self.settle(device)
    }

    pub(super) fn folder(&self) -> Result<FolderId, String> {
        self.folder.ok_or_else(|| "no folder".to_owned())
    }

    fn add_device(&mut self, role: Role) -> Result<(), String> {
        let number = self.devices.len();
        let name = format!("{role:?}{number}-{MARK}");
        let root = self.directory.path().join(number.to_string());
        let short = |usual| match self.forgetful {
            true => Duration::from_secs(40),
            false => usual,
        };
        let usual = Housekeeping::default();
        let housekeeping = Housekeeping {
            release: Duration::from_secs(5),
            collect: Duration::from_secs(20),
            grace: short(usual.grace),
            floor: short(usual.floor),
            thin: Duration::from_secs(30),
            repack: RepackTerms {
                pause: Duration::from_secs(15),
                growth: 1,
                free: 100_000,
                most: 32 << 20,
            },
            checkpoint_commits: self.checkpoint_commits,
            reserve: 64 << 10,
            ..usual
        };
        let seed = self.rng.next_u64();
        let mut device = Device::new(name, role, root, self.time.clone(), seed, housekeeping);
        device.start(&self.runtime).map_err(text)?;
        if role != Role::Safe
            && let Some(running) = &device.running
        {
            let sealed = running.engine().enable_key_ring(None);
            self.runtime.block_on(sealed).map_err(text)?;
        }
        self.devices.push(device);
        self.schedule(TICK, Event::Tick(number));
        Ok(())
    }

    fn add_link(&mut self, pair: Pair) {
        let link = Link {
            latency: Duration::from_micros(self.rng.random_range(200..80_000)),
            speed: self.rng.random_range(200_000..20_000_000),
            cut_until: Duration::ZERO,
            slow_until: Duration::ZERO,
            wire: None,
            dialling: false,
        };
        self.links.insert(pair, link);
        self.dial_soon(pair);
    }

    pub(super) fn engine(&self, device: usize) -> Result<&ouisync_engine::engine::Engine, String> {
        match &self.devices[device].running {
            Some(running) => Ok(running.engine()),
            None => Err(format!("{} is off", self.devices[device].name)),
        }
    }

    /// A device's view, if it can be had now.
    pub(super) fn view(&self, device: usize) -> Option<FolderView> {
        let engine = self.engine(device).ok()?;
        engine.view(self.folder?).ok()
    }

    /// Runs something asynchronous of an engine; what comes of it happens at once.
    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.numbers += 1;
        let at = self.time.elapsed() + after;
        self.events.insert((at, self.numbers), event);
    }

    fn soon(&mut self, milliseconds: u64) -> Duration {
        Duration::from_micros(self.rng.random_range(0..milliseconds * 1000))
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, duration: Duration) -> Result<(), String> {
        let until = self.time.elapsed() + duration;
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.time.set(at);
            self.happen(event)?;
        }
        self.time.set(until);
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Arrives(pair, number, end, cargo) => {
                let Some(wire) = self
                    .links
                    .get_mut(&pair)
                    .and_then(|link| link.wire.as_mut())
                else {
                    return Ok(());
                };
                if wire.number != number {
                    return Ok(());
                }
                match cargo {
                    Cargo::Control(bytes) => {
                        self.log.seen((pair, end, bytes.as_ref()));
                        wire.ends[end].control_arrived(&bytes);
                    }
                    Cargo::Frames(frames) => {
                        self.log.seen((pair, end, frames.size()));
                        wire.ends[end].frames_arrived(frames);
                    }
                }
                self.settle(pair.ends()[end])
            }
            Event::Works(device, start, name, errand) => {
                if self.devices[device].starts() == start && self.devices[device].running.is_some()
                {
                    self.log.seen((device, name));
                    if let Some(pause) = errand.go_on() {
                        self.schedule(pause, Event::Works(device, start, name, errand));
                    }
                    self.hear();
                    self.settle(device)?;
                }
                Ok(())
            }
            Event::Tick(device) => {
                self.schedule(TICK, Event::Tick(device));
                if let Some(running) = &self.devices[device].running {
                    running.tick();
                }
                self.settle(device)
            }
            Event::Dials(pair) => self.dial(pair),
            Event::Starts(device) => self.start(device),
            Event::Dies(device, start, loss) => {
                if self.devices[device].starts() == start {
                    self.crash(device, loss)?;
                }
                Ok(())
            }
            Event::HasRoom(device) => {
                for disk in self.devices[device].around.disks() {
                    disk.set_capacity(None);
                }
                Ok(())
            }
            Event::Unlocks(device) => self.unlock(device),
            Event::Resumes(device) => self.resume(device),
        }
    }

    /// Lets a device do all that it can now: what it sends is on its way, what it began beside its folders is to be done.
    pub(super) fn settle(&mut self, device: usize) -> Result<(), String> {
        loop {
            let Some(running) = &self.devices[device].running else {
                return Ok(());
            };
            running.step();
            let disks = self.devices[device].around.disks();
            if disks.iter().any(|disk| disk.stopped()) {
                let loss = self.losses.remove(&device).unwrap_or(Loss::Nothing);
                return self.crash(device, loss);
            }
            let mut quiet = true;
            let start = self.devices[device].starts();
            for (name, errand) in self.devices[device].around.take_works() {
                let after = self.soon(30);
                self.schedule(after, Event::Works(device, start, name, errand));
            }
            let pairs: Vec<Pair> = self.links.keys().copied().collect();
            for pair in pairs
                .into_iter()
                .filter(|pair| pair.ends().contains(&device))
            {
                quiet &= !self.send(pair, device);
            }
            if quiet {
                return Ok(());
            }
        }
    }

    /// Puts on its way what a device has for the other end; whether there was anything.
    fn send(&mut self, pair: Pair, device: usize) -> bool {
        let now = self.time.elapsed();
        let mut arrivals = Vec::new();
        let Some(link) = self.links.get_mut(&pair) else {
            return false;
        };
        let slow = link.slow_until > now;
        let way = match slow {
            true => (Duration::from_millis(900), 30_000),
            false => (link.latency, link.speed),
        };
        let Some(wire) = &mut link.wire else {
            return false;
        };
        let from = usize::from(pair.1 == device);
        while let Some(cargo) = wire.next(from) {
            let at = wire.arrival(from, &cargo, now, way);
            arrivals.push((at - now, Event::Arrives(pair, wire.number, 1 - from, cargo)));
        }
        let any = !arrivals.is_empty();
        let closed = wire.ends[from].closed();
        for (after, event) in arrivals {
            self.schedule(after, event);
        }
        if let Some(reason) = closed {
            self.log.note(now, || {
                format!("{device} closed the connection of {pair:?}: {reason}")
            });
            self.disconnect(pair);
        }
        any
    }

    fn disconnect(&mut self, pair: Pair) {
        if let Some(link) = self.links.get_mut(&pair) {
            link.wire = None;
        }
        self.dial_soon(pair);
    }

    fn dial_soon(&mut self, pair: Pair) {
        let after = self.soon(3000);
        if let Some(link) = self.links.get_mut(&pair)
            && !link.dialling
        {
            link.dialling = true;
            self.schedule(after, Event::Dials(pair));
        }
    }

    fn dial(&mut self, pair: Pair) -> Result<(), String> {
        let now = self.time.elapsed();
        let Some(link) = self.links.get_mut(&pair) else {
            return Ok(());
        };
        link.dialling = false;
        if link.wire.is_some() {
            return Ok(());
        }
        let up = link.cut_until <= now;
        let (Some(first), Some(second)) =
            (&self.devices[pair.0].running, &self.devices[pair.1].running)
        else {
            self.dial_soon(pair);
            return Ok(());
        };
        let (Some(first_id), Some(second_id)) = (self.devices[pair.0].id, self.devices[pair.1].id)
        else {
            return Ok(());
        };
        if !up {
            self.dial_soon(pair);
            return Ok(());
        }
        let mut exporter = [0; 32];
        self.rng.fill_bytes(&mut exporter);
        let ends = [
            first.connect(second_id, true, exporter),
            second.connect(first_id, false, exporter),
        ];
        self.numbers += 1;
        if let Some(link) = self.links.get_mut(&pair) {
            link.wire = Some(Wire::new(self.numbers, ends));
        }
        self.settle(pair.0)?;
        self.settle(pair.1)
    }

    fn crash(&mut self, device: usize, loss: Loss) -> Result<(), String> {
        if self.devices[device].running.is_none() {
            return Ok(());
        }
        self.log
            .note(self.time.elapsed(), || format!("{device} ends: {loss:?}"));
        self.end(device, |device| device.crash(loss))
    }

    fn end(
        &mut self,
        device: usize,
        ending: impl FnOnce(&mut Device) -> std::io::Result<()>,
    ) -> Result<(), String> {
        self.losses.remove(&device);
        let result = ending(&mut self.devices[device]);
        let pairs: Vec<Pair> = self.links.keys().copied().collect();
        for pair in pairs
            .into_iter()
            .filter(|pair| pair.ends().contains(&device))
        {
            self.disconnect(pair);
        }
        result.map_err(text)
    }

    fn start(&mut self, device: usize) -> Result<(), String> {
        if self.devices[device].running.is_some() || self.devices[device].is_discarded() {
            return Ok(());
        }
        self.devices[device].start(&self.runtime).map_err(|error| {
            format!("{} doesn't start again: {error}", self.devices[device].name)
        })?;
        let status = self.wait(self.engine(device)?.status(self.folder()?));
        let status = status.map_err(text)?;
        self.log.note(self.time.elapsed(), || {
            format!("{device} starts: {:?} {:?}", status.state, status.problems)
        });
        self.settle(device)
    }

    fn unlock(&mut self, device: usize) -> Result<(), String> {
        self.devices[device]
            .ring
            .locked
            .store(false, Ordering::Relaxed);
        if let Ok(engine) = self.engine(device) {
            let engine = engine.clone();
            let unlocked = self.wait(engine.unlock(None, None));
            self.log.note(self.time.elapsed(), || {
                format!(
                    "{device} unlocks: {:?}",
                    unlocked.map(|folders| folders.len())
                )
            });
        }
        self.settle(device)
    }

    fn resume(&mut self, device: usize) -> Result<(), String> {
        if let Ok(engine) = self.engine(device) {
            let engine = engine.clone();
            let resumed = self.wait(engine.resume(None));
            self.log.note(self.time.elapsed(), || {
                format!("{device} resumes: {resumed:?}")
            });
        }
        self.settle(device)
    }

    /// Everything works again, and has the time that it needs.
    fn heal(&mut self) -> Result<(), String> {
        self.log
            .note(self.time.elapsed(), || "all is well again".to_owned());
        self.losses.clear();
        for device in 0..self.devices.len() {
            if self.devices[device].is_discarded() {
                continue;
            }
            for disk in self.devices[device].around.disks() {
                disk.set_capacity(None);
                disk.set_fault(Fault::None);
            }
            self.events
                .retain(|_, event| !matches!(event, Event::Dies(..) | Event::Starts(_)));
            self.start(device)?;
            // A folder that could not be opened says that it wants a restart.
            let engine = self.engine(device)?;
            let status = self.wait(engine.status(self.folder()?)).map_err(text)?;
            let closed = |problem: &Problem| problem.message.contains("could not be opened");
            if status.problems.iter().any(closed) {
                self.crash(device, Loss::Nothing)?;
                self.start(device)?;
            }
            self.unlock(device)?;
            self.resume(device)?;
            self.lift(device)?;
        }
        for link in self.links.values_mut() {
            (link.cut_until, link.slow_until) = (Duration::ZERO, Duration::ZERO);
        }
        // Where all went through one safe, and it was removed, others find each other.
        if (0..self.devices.len()).any(|device| self.is_gone(device)) {
            self.link_all();
        }
        self.repair()?;
        let begun = self.time.elapsed();
        loop {
            self.pass(Duration::from_secs(5))?;
            let apart = check::apart(self)?;
            if apart.is_none() {
                return Ok(());
            }
            if self.time.elapsed() - begun > PATIENCE {
                let apart = apart.unwrap_or_default();
                return Err(format!("not of one mind: {apart}"));
            }
        }
    }
}

pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
