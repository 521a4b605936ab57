//! One simulated device: its home on a real directory in memory, its disks, its key ring; starting, crashing, backups.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use ouisync_crypto::keystore::KeyStoreKey;
use ouisync_engine::{
    engine::EngineOptions,
    error::EngineError,
    housekeeping::Housekeeping,
    key_ring::{Asking, KeyRing, KeyRingEntry, KeyRingError},
    simulation::SimulatedDevice,
    status::Role,
    surroundings::Begun,
};
use ouisync_model::id::DeviceId;
use ouisync_store::backend::faulty::{FaultyBackend, Loss};
use rustix::fs::{SeekFrom, seek};
use tokio::runtime::Runtime;

use super::{
    around::{Around, Time},
    errand::Errand,
};

/// A device.
pub(super) struct Device {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) id: Option<DeviceId>,
    /// Where its homes are; each start after a crash has another.
    root: PathBuf,
    starts: u64,
    pub(super) around: Arc<Around>,
    pub(super) ring: Arc<Ring>,
    /// While it runs.
    pub(super) running: Option<SimulatedDevice>,
    backup: Option<Backup>,
    /// It was put back from a backup.
    pub(super) restored: bool,
    /// Bits of its packs were flipped.
    pub(super) rotten: bool,
    pub(super) housekeeping: Housekeeping,
    /// What people asked of it that takes its time.
    asked: Vec<Errand>,
    discarded: bool,
}

struct Backup {
    home: PathBuf,
    disks: BTreeMap<PathBuf, FaultyBackend>,
}

/// A key ring in memory; it outlives the device's starts.
#[derive(Debug, Default)]
pub(super) struct Ring {
    keys: Mutex<Vec<(KeyRingEntry, KeyStoreKey)>>,
    pub(super) locked: AtomicBool,
}

impl KeyRing for Ring {
    fn fetch(
        &self,
        entry: &KeyRingEntry,
        _asking: Asking,
    ) -> Result<Option<KeyStoreKey>, KeyRingError> {
        if self.locked.load(Ordering::Relaxed) {
            return Err(KeyRingError::Locked);
        }
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let found = keys.iter().find(|(name, _)| name == entry);
        Ok(found.map(|(_, key)| key.clone()))
    }

    fn keep(&self, entry: &KeyRingEntry, key: &KeyStoreKey) -> Result<(), KeyRingError> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.push((*entry, key.clone()));
        Ok(())
    }

    fn remove(&self, _entry: &KeyRingEntry) -> Result<(), KeyRingError> {
        // A backup may need it again.
        Ok(())
    }
}

impl Device {
    pub(super) fn new(
        name: String,
        role: Role,
        root: PathBuf,
        time: Arc<Time>,
        seed: u64,
        housekeeping: Housekeeping,
    ) -> Self {
        let around = Arc::new(Around::new(time, seed));
        Self {
            name,
            role,
            id: None,
            root,
            starts: 0,
            around,
            ring: Arc::default(),
            running: None,
            backup: None,
            restored: false,
            rotten: false,
            housekeeping,
            asked: Vec::new(),
            discarded: false,
        }
    }

    /// Takes on something that takes its time.
    pub(super) fn ask(&mut self, errand: Errand) {
        self.asked.retain(|errand| !errand.is_finished());
        self.asked.push(errand);
    }

    /// Whether any such thing is under way.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.iter().any(|errand| !errand.is_finished())
    }

    /// Whether it was switched off for ever.
    pub(super) fn is_discarded(&self) -> bool {
        self.discarded
    }

    fn give_up(&mut self) {
        for errand in self.asked.drain(..) {
            errand.give_up();
        }
    }

    /// Switches it off for ever; nothing of it is left.
    pub(super) fn discard(&mut self) -> io::Result<()> {
        self.give_up();
        self.running = None;
        self.around.take_works();
        self.around = Arc::new(self.around.with(BTreeMap::new()));
        self.backup = None;
        self.discarded = true;
        fs::remove_dir_all(&self.root)
    }

    /// Its home as it is now.
    pub(super) fn home(&self) -> PathBuf {
        self.root.join(format!("home-{}", self.starts))
    }

    /// How often it was started.
    pub(super) fn starts(&self) -> u64 {
        self.starts
    }

    /// Starts it on what its home and disks hold.
    pub(super) fn start(&mut self, runtime: &Runtime) -> Result<(), EngineError> {
        let clock = self.around.clone();
        let options = EngineOptions {
            home: self.home(),
            listen: None,
            lan: false,
            device_name: self.name.clone(),
            key_ring: Some(self.ring.clone()),
            housekeeping: Housekeeping {
                clock: Arc::new(move || clock.seconds()),
                ..self.housekeeping.clone()
            },
        };
        let around = self.around.clone();
        let device = runtime.block_on(SimulatedDevice::start(options, around))?;
        self.id = Some(device.engine().device().device);
        self.running = Some(device);
        Ok(())
    }

    /// Ends it as a kill or a power cut does; what is left is what the next start finds.
    pub(super) fn crash(&mut self, loss: Loss) -> io::Result<()> {
        let next = self.around.next(loss);
        self.replace(|_, to, from| copy(from, to), next)
    }

    /// Copies what it holds, as a backup program would while it runs.
    pub(super) fn back_up(&mut self) -> io::Result<()> {
        let home = self.root.join("backup");
        if home.exists() {
            fs::remove_dir_all(&home)?;
        }
        copy(&self.home(), &home)?;
        let disks = self.around.copy_disks();
        self.backup = Some(Backup { home, disks });
        Ok(())
    }

    /// Whether there is a backup.
    pub(super) fn has_backup(&self) -> bool {
        self.backup.is_some()
    }

    /// Ends it, and puts the backup in the place of its home and disks.
    pub(super) fn restore(&mut self) -> io::Result<()> {
        let Some(backup) = &self.backup else {
            return Ok(());
        };
        self.restored = true;
        let disks = backup.disks.iter();
        let disks = disks.map(|(name, disk)| (name.clone(), disk.crash(Loss::Nothing)));
        let next = self.around.with(disks.collect());
        self.replace(
            |device, to, _| match &device.backup {
                Some(backup) => copy(&backup.home, to),
                None => Ok(()),
            },
            next,
        )
    }

    fn replace(
        &mut self,
        fill: impl FnOnce(&Self, &Path, &Path) -> io::Result<()>,
        next: Around,
    ) -> io::Result<()> {
        let before = self.home();
        let after = self.root.join(format!("home-{}", self.starts + 1));
        fill(self, &after, &before)?;
        self.starts += 1;
        // It closes in order, on what nobody looks at any more.
        self.give_up();
        self.running = None;
        self.around.take_works();
        self.around = Arc::new(next);
        fs::remove_dir_all(before)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Copies a directory. Holes stay holes: databases make large ones.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            copy_file(&entry.path(), &target)?;
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let (from, to) = (fs::File::open(from)?, fs::File::create(to)?);
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut at = 0;
    // Nothing but a hole is left where there is no data.
    while let Ok(data) = seek(&from, SeekFrom::Data(at)) {
        at = seek(&from, SeekFrom::Hole(data))?;
        let mut bytes = vec![0; usize::try_from(at - data).map_err(io::Error::other)?];
        from.read_exact_at(&mut bytes, data)?;
        to.write_all_at(&bytes, data)?;
    }
    Ok(())
}
