//! The device's secrets on disk: what is needed to sync blind, sealed under a key kept beside it, and what is needed to read,
//! sealed in one of three ways: under that key too, by a passphrase, or by a key in the operating system's key ring.
//!
//! Files under `keys/`: `machine.key`; `device`, `blind` and `way` sealed under it; and of `open` (machine key), `slots`
//! (passphrase) and `ring` (key ring) the one that `way` names. Whoever uses the machine's key relies on the file permissions and
//! the disk's encryption. The way is changed by replacing `way`, after the new file is durable and before the old one is removed;
//! files of other ways are leftovers of a crash and never read.

mod slots;
#[cfg(test)]
mod tests;
pub(crate) mod ways;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ouisync_crypto::{keystore::MachineKey, roster::role::Role};
use ouisync_model::id::{EpochId, FolderId};
use ouisync_net::key::DeviceKey;
use rand::{CryptoRng, RngExt};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::{info, warn};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use self::{
    slots::Slots,
    ways::{Chosen, Way, WayRecord},
};
use crate::{
    error::{EngineError, ErrorKind},
    home::Home,
    key_ring::{Asking, KeyRing},
    retention::Limits,
    status::Sealing,
};

const MACHINE: &str = "keys/machine.key";
const DEVICE: &str = "keys/device";
const BLIND: &str = "keys/blind";
const WAY: &str = "keys/way";
const OPEN: &str = "keys/open";
const SLOTS: &str = "keys/slots";
const RING: &str = "keys/ring";
/// Files of the ways, and what a crash leaves of writing them.
const FILES_OF_WAYS: [&str; 6] = [
    OPEN,
    SLOTS,
    RING,
    "keys/open.new",
    "keys/slots.new",
    "keys/ring.new",
];

/// This installation.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(crate) struct DeviceRecord {
    key: [u8; 32],
    /// The UDP port chosen at the first start; 0 before.
    pub(crate) port: u16,
    /// The device's name as members see it.
    pub(crate) name: String,
}

/// What a folder needs to sync blind.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(crate) struct BlindRecord {
    /// Epoch, generation, blind secret.
    #[zeroize(skip)]
    pub(crate) epochs: Vec<(EpochId, u64, [u8; 32])>,
    /// The member's blind key, which opens the blind secrets of epochs that begin while the device is locked.
    pub(crate) blind_key: [u8; 32],
    /// Of a safe, its member identity and local name; of other members they are in [`OpenRecord`].
    pub(crate) safe: Option<SafeRecord>,
    /// The invitation while the folder hasn't let this device in.
    pub(crate) joining: Option<JoiningRecord>,
    /// Stopped by the user.
    pub(crate) paused: bool,
    /// What the host allows a safe.
    #[zeroize(skip)]
    pub(crate) limits: Limits,
}

/// What only a safe keeps in its blind record.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(crate) struct SafeRecord {
    pub(crate) identity: Vec<u8>,
    pub(crate) name: String,
}

/// An invitation in use.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(crate) struct JoiningRecord {
    pub(crate) secret: [u8; 32],
    #[zeroize(skip)]
    pub(crate) role: Role,
}

/// What a folder needs to be read and written.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(crate) struct OpenRecord {
    #[zeroize(skip)]
    pub(crate) folder: FolderId,
    /// The folder's name on this device.
    pub(crate) name: String,
    /// The member identity's bytes.
    pub(crate) identity: Vec<u8>,
    /// Epoch, generation, reading secret.
    #[zeroize(skip)]
    pub(crate) epochs: Vec<(EpochId, u64, [u8; 32])>,
    /// The view's setting.
    pub(crate) setting: Option<Vec<u8>>,
}

/// The key store; shared by the engine and its folders.
pub(crate) struct Keys {
    home: Arc<Home>,
    machine: MachineKey,
    ring: Option<Arc<dyn KeyRing>>,
    /// Held while the way of sealing changes or slots are opened. Those take their time (Argon2id, a person at the key ring), in
    /// which `state` must stay free: folders' threads need it.
    changing: Mutex<()>,
    state: Mutex<State>,
}

struct State {
    device: DeviceRecord,
    blind: BTreeMap<FolderId, BlindRecord>,
    open: BTreeMap<FolderId, OpenRecord>,
    way: Way,
    /// A change of the way failed so that only reading the disk anew can tell which is in force.
    unsure: bool,
    /// Why the key ring gave nothing, the last time it was asked.
    ring_trouble: Option<String>,
}

impl Keys {
    /// Reads the key store, or makes one with a fresh device key. What a passphrase seals isn't readable yet; the key ring is asked,
    /// and when it gives nothing what it seals isn't readable either.
    pub(crate) fn open(
        home: Arc<Home>,
        device_name: &str,
        ring: Option<Arc<dyn KeyRing>>,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, EngineError> {
        let machine = match home.read(MACHINE)? {
            Some(bytes) => {
                let bytes = Zeroizing::new(bytes);
                let key = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| damaged(MACHINE))?;
                MachineKey::from_bytes(key)
            }
            None => {
                let key = MachineKey::generate(rng);
                home.write(MACHINE, key.expose())?;
                key
            }
        };
        let sealed = |name: &'static str| -> Result<Option<Zeroizing<Vec<u8>>>, EngineError> {
            let Some(bytes) = home.read(name)? else {
                return Ok(None);
            };
            machine
                .open_blob(name.as_bytes(), &bytes)
                .map(Some)
                .map_err(|_| damaged(name))
        };
        let device = match sealed(DEVICE)? {
            Some(bytes) => decode(DEVICE, &bytes)?,
            None => DeviceRecord {
                key: rng.random(),
                port: 0,
                name: device_name.to_owned(),
            },
        };
        let blind = sealed(BLIND)?
            .map(|bytes| decode(BLIND, &bytes))
            .transpose()?
            .unwrap_or_default();
        let slots = |name: &'static str| -> Result<Slots, EngineError> {
            let bytes = home.read(name)?.ok_or_else(|| damaged(name))?;
            Slots::from_bytes(bytes).map_err(|_| damaged(name))
        };
        let record = sealed(WAY)?.map(|bytes| decode(WAY, &bytes)).transpose()?;
        let mut open = Vec::<OpenRecord>::new();
        let way = match record {
            // Never changed: a home without folders has no file yet.
            None | Some(WayRecord::Machine) => {
                match sealed(OPEN)? {
                    Some(bytes) => open = decode(OPEN, &bytes)?,
                    None if record.is_some() => return Err(damaged(OPEN)),
                    None => {}
                }
                Way::Machine
            }
            Some(WayRecord::Passphrase) => Way::Passphrase(slots(SLOTS)?),
            Some(WayRecord::Ring(entry)) => Way::Ring(entry, slots(RING)?),
        };
        let open = open
            .into_iter()
            .map(|record| (record.folder, record))
            .collect();
        let state = State {
            device,
            blind,
            open,
            way,
            unsure: false,
            ring_trouble: None,
        };
        let keys = Self {
            home,
            machine,
            ring,
            changing: Mutex::default(),
            state: Mutex::new(state),
        };
        keys.remove_leftovers(&keys.state().way)?;
        let device = keys.device();
        keys.put_device(device)?;
        if keys.sealing() == Sealing::KeyRing {
            match keys.unlock_by_ring(&Chosen::All, Asking::Forbidden) {
                Ok(folders) => info!(folders = folders.len(), "opened with the key ring"),
                Err(error @ EngineError::KeyRing(_)) => {
                    warn!(%error, "folders stay locked and sync blind until 'ouisync unlock'");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(keys)
    }

    /// This installation's record.
    pub(crate) fn device(&self) -> DeviceRecord {
        self.state().device.clone()
    }

    /// Changes it.
    pub(crate) fn put_device(&self, device: DeviceRecord) -> Result<(), EngineError> {
        self.write_sealed(DEVICE, &device)?;
        self.state().device = device;
        Ok(())
    }

    /// The folders of this device.
    pub(crate) fn folders(&self) -> Vec<FolderId> {
        self.state().blind.keys().copied().collect()
    }

    /// The blind record of a folder.
    pub(crate) fn blind(&self, folder: &FolderId) -> Option<BlindRecord> {
        self.state().blind.get(folder).cloned()
    }

    /// Sets the blind record of a folder.
    pub(crate) fn put_blind(
        &self,
        folder: FolderId,
        record: BlindRecord,
    ) -> Result<(), EngineError> {
        let mut state = self.state();
        let before = state.blind.insert(folder, record);
        self.write_sealed(BLIND, &state.blind).inspect_err(|_| {
            match before {
                Some(before) => state.blind.insert(folder, before),
                None => state.blind.remove(&folder),
            };
        })
    }

    /// The reading record of an unlocked folder.
    pub(crate) fn open_record(&self, folder: &FolderId) -> Option<OpenRecord> {
        self.state().open.get(folder).cloned()
    }

    /// Sets the reading record of a folder; `DeviceLocked` when what seals it isn't known.
    pub(crate) fn put_open(&self, record: OpenRecord) -> Result<(), EngineError> {
        let mut state = self.state();
        state.check_sure()?;
        let folder = record.folder;
        let State { open, way, .. } = &mut *state;
        match way {
            Way::Machine => {
                let before = open.insert(folder, record);
                self.write_open(open).inspect_err(|_| {
                    match before {
                        Some(before) => open.insert(folder, before),
                        None => open.remove(&folder),
                    };
                })
            }
            Way::Passphrase(slots) | Way::Ring(_, slots) => {
                let changed = slots.with(&record)?;
                self.write_slots(way, changed)?;
                open.insert(folder, record);
                Ok(())
            }
        }
    }

    /// Fails unless a new folder's reading record could be kept now.
    pub(crate) fn check_unlocked(&self) -> Result<(), EngineError> {
        let state = self.state();
        state.check_sure()?;
        match &state.way {
            Way::Passphrase(slots) | Way::Ring(_, slots) if slots.key().is_none() => {
                Err(EngineError::DeviceLocked)
            }
            _ => Ok(()),
        }
    }

    /// Forgets a folder.
    pub(crate) fn remove(&self, folder: &FolderId) -> Result<(), EngineError> {
        let mut state = self.state();
        state.check_sure()?;
        let State {
            blind, open, way, ..
        } = &mut *state;
        blind.remove(folder);
        open.remove(folder);
        self.write_sealed(BLIND, blind)?;
        match way {
            Way::Machine => self.write_open(open),
            Way::Passphrase(slots) | Way::Ring(_, slots) => match slots.without(folder)? {
                Some(changed) => self.write_slots(way, changed),
                None => Ok(()),
            },
        }
    }

    /// Seals a small file that holds no keys but isn't for everybody's eyes.
    pub(crate) fn write_file(&self, name: &'static str, bytes: &[u8]) -> Result<(), EngineError> {
        let sealed = self
            .machine
            .seal_blob(name.as_bytes(), bytes, &mut rand::rng());
        self.home.write(name, &sealed)
    }

    /// Reads what [`Self::write_file`] wrote; nothing when it is missing or damaged.
    pub(crate) fn read_file(&self, name: &'static str) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = self.home.read(name).ok()??;
        self.machine.open_blob(name.as_bytes(), &bytes).ok()
    }

    fn write_open(&self, open: &BTreeMap<FolderId, OpenRecord>) -> Result<(), EngineError> {
        self.write_sealed(OPEN, &open.values().collect::<Vec<_>>())
    }

    fn write_sealed(&self, name: &'static str, value: &impl Serialize) -> Result<(), EngineError> {
        self.write_file(name, &encode(value))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn check_sure(&self) -> Result<(), EngineError> {
        if self.unsure {
            Err(EngineError::SealingUnsure)
        } else {
            Ok(())
        }
    }
}

impl DeviceRecord {
    /// The transport key.
    pub(crate) fn key(&self) -> DeviceKey {
        DeviceKey::from_bytes(self.key)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn encode(value: &impl Serialize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(postcard::to_allocvec(value).expect("records of the key store always encode"))
}

fn decode<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, EngineError> {
    postcard::from_bytes(bytes).map_err(|_| damaged(name))
}

fn damaged(name: &str) -> EngineError {
    let message = format!("the file {name} of the home is damaged; restore it from a backup");
    EngineError::Store {
        message,
        kind: ErrorKind::Corruption,
    }
}

fn internal(message: &str) -> EngineError {
    EngineError::Store {
        message: message.to_owned(),
        kind: ErrorKind::Internal,
    }
}
