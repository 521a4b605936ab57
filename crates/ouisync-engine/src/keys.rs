//! The device's secrets on disk: what is needed to sync blind, sealed under a key kept beside it, and what is needed to read,
//! sealed by the passphrase once there is one.
//!
//! Files under `keys/`: `machine.key`; `device`, `blind` and (without a passphrase) `open` sealed under it; `slots`, the
//! passphrase's key store. Whoever has no passphrase set relies on the file permissions and the disk's encryption.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ouisync_crypto::{
    keystore::{KeyStore, KeyStoreError, KeyStoreKey, MachineKey, PassphraseCost},
    roster::role::Role,
};
use ouisync_model::id::{EpochId, FolderId};
use ouisync_net::key::DeviceKey;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    error::{EngineError, ErrorKind},
    home::Home,
};

const MACHINE: &str = "keys/machine.key";
const DEVICE: &str = "keys/device";
const BLIND: &str = "keys/blind";
const OPEN: &str = "keys/open";
const SLOTS: &str = "keys/slots";

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
    /// Of a safe, its member identity and local name; of other members they are in [`OpenRecord`].
    pub(crate) safe: Option<SafeRecord>,
    /// The invitation while the folder hasn't let this device in.
    pub(crate) joining: Option<JoiningRecord>,
    /// Stopped by the user.
    pub(crate) paused: bool,
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
    state: Mutex<State>,
}

struct State {
    device: DeviceRecord,
    blind: BTreeMap<FolderId, BlindRecord>,
    open: BTreeMap<FolderId, OpenRecord>,
    passphrase: Option<Passphrase>,
}

struct Passphrase {
    store: KeyStore,
    /// The passphrase's key while some folder is unlocked.
    key: Option<KeyStoreKey>,
    slots: BTreeMap<FolderId, usize>,
}

impl Keys {
    /// Reads the key store, or makes one with a fresh device key. With a passphrase set, nothing is readable yet.
    pub(crate) fn open(home: Arc<Home>, device_name: &str) -> Result<Self, EngineError> {
        let machine = match home.read(MACHINE)? {
            Some(bytes) => {
                let bytes = Zeroizing::new(bytes);
                let key = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| damaged(MACHINE))?;
                MachineKey::from_bytes(key)
            }
            None => {
                let key = MachineKey::generate(&mut rand::rng());
                home.write(MACHINE, key.expose())?;
                key
            }
        };
        let sealed = |name: &'static str| -> Result<Option<Zeroizing<Vec<u8>>>, EngineError> {
            let Some(bytes) = home.read(name)? else { return Ok(None) };
            machine.open_blob(name.as_bytes(), &bytes).map(Some).map_err(|_| damaged(name))
        };
        let device = match sealed(DEVICE)? {
            Some(bytes) => decode(DEVICE, &bytes)?,
            None => DeviceRecord {
                key: rand::random(),
                port: 0,
                name: device_name.to_owned(),
            },
        };
        let blind = sealed(BLIND)?.map(|bytes| decode(BLIND, &bytes)).transpose()?.unwrap_or_default();
        let open: Vec<OpenRecord> =
            sealed(OPEN)?.map(|bytes| decode(OPEN, &bytes)).transpose()?.unwrap_or_default();
        let passphrase = match home.read(SLOTS)? {
            Some(bytes) => {
                let store = KeyStore::from_bytes(bytes).map_err(|_| damaged(SLOTS))?;
                Some(Passphrase { store, key: None, slots: BTreeMap::new() })
            }
            None => None,
        };
        let open = open.into_iter().map(|record| (record.folder, record)).collect();
        let keys = Self { machine, state: Mutex::new(State { device, blind, open, passphrase }), home };
        let device = keys.device();
        keys.put_device(device)?;
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
    pub(crate) fn put_blind(&self, folder: FolderId, record: BlindRecord) -> Result<(), EngineError> {
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

    /// Sets the reading record of a folder; `Locked` when the passphrase is needed.
    pub(crate) fn put_open(&self, record: OpenRecord) -> Result<(), EngineError> {
        let mut state = self.state();
        let folder = record.folder;
        let State { open, passphrase, .. } = &mut *state;
        match passphrase {
            None => {
                let before = open.insert(folder, record);
                self.write_open(open).inspect_err(|_| {
                    match before {
                        Some(before) => open.insert(folder, before),
                        None => open.remove(&folder),
                    };
                })
            }
            Some(passphrase) => {
                passphrase.seal(&record)?;
                self.home.write(SLOTS, passphrase.store.as_bytes())?;
                open.insert(folder, record);
                Ok(())
            }
        }
    }

    /// Forgets a folder.
    pub(crate) fn remove(&self, folder: &FolderId) -> Result<(), EngineError> {
        let mut state = self.state();
        let State { blind, open, passphrase, .. } = &mut *state;
        blind.remove(folder);
        open.remove(folder);
        self.write_sealed(BLIND, blind)?;
        match passphrase {
            None => self.write_open(open),
            Some(passphrase) => {
                if let Some(slot) = passphrase.slots.remove(folder) {
                    passphrase.store.erase(slot, &mut rand::rng()).map_err(from_store)?;
                    self.home.write(SLOTS, passphrase.store.as_bytes())?;
                }
                Ok(())
            }
        }
    }

    /// A passphrase seals the reading secrets.
    pub(crate) fn has_passphrase(&self) -> bool {
        self.state().passphrase.is_some()
    }

    /// Sets or changes the passphrase; takes the time of Argon2id, twice for a change.
    pub(crate) fn set_passphrase(&self, old: Option<&str>, new: &str) -> Result<(), EngineError> {
        let mut state = self.state();
        let mut rng = rand::rng();
        match &mut state.passphrase {
            None => {
                let store = KeyStore::create(PassphraseCost::default(), &mut rng);
                let key = store.passphrase_key(new.as_bytes()).map_err(from_store)?;
                let mut passphrase = Passphrase { store, key: Some(key), slots: BTreeMap::new() };
                for record in state.open.values() {
                    passphrase.seal(record)?;
                }
                self.home.write(SLOTS, passphrase.store.as_bytes())?;
                state.passphrase = Some(passphrase);
                self.home.remove(OPEN)
            }
            Some(passphrase) => {
                let old = old.ok_or(EngineError::WrongPassphrase)?;
                let old = passphrase.store.passphrase_key(old.as_bytes()).map_err(from_store)?;
                let new = passphrase.store.passphrase_key(new.as_bytes()).map_err(from_store)?;
                passphrase.store.rekey(&old, &new, &mut rng).map_err(from_store)?;
                self.home.write(SLOTS, passphrase.store.as_bytes())?;
                if passphrase.key.is_some() {
                    passphrase.key = Some(new);
                }
                Ok(())
            }
        }
    }

    /// Forgets the reading secrets of a folder in memory, and the passphrase's key with the last of them.
    pub(crate) fn lock(&self, folder: &FolderId) -> Result<(), EngineError> {
        let mut state = self.state();
        let State { open, passphrase, .. } = &mut *state;
        let passphrase = passphrase.as_mut().ok_or(EngineError::NoPassphrase)?;
        open.remove(folder);
        if open.is_empty() {
            passphrase.key = None;
        }
        Ok(())
    }

    /// Opens with the passphrase; gives the folders that it opens, of which the given one (or all) are now readable.
    pub(crate) fn unlock(
        &self,
        folder: Option<FolderId>,
        passphrase: &str,
    ) -> Result<Vec<FolderId>, EngineError> {
        let mut state = self.state();
        let State { open, passphrase: store, .. } = &mut *state;
        let store = store.as_mut().ok_or(EngineError::NoPassphrase)?;
        let key = store.store.passphrase_key(passphrase.as_bytes()).map_err(from_store)?;
        let mut opened = Vec::new();
        for slot in store.store.open(&key).map_err(from_store)? {
            let record: OpenRecord = decode(SLOTS, &slot.content)?;
            store.slots.insert(record.folder, slot.slot);
            if folder.is_none_or(|folder| folder == record.folder) {
                opened.push(record.folder);
                open.entry(record.folder).or_insert(record);
            }
        }
        if opened.is_empty() {
            return Err(EngineError::WrongPassphrase);
        }
        store.key = Some(key);
        Ok(opened)
    }

    /// Seals a small file that holds no keys but isn't for everybody's eyes.
    pub(crate) fn write_file(&self, name: &'static str, bytes: &[u8]) -> Result<(), EngineError> {
        let sealed = self.machine.seal_blob(name.as_bytes(), bytes, &mut rand::rng());
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DeviceRecord {
    /// The transport key.
    pub(crate) fn key(&self) -> DeviceKey {
        DeviceKey::from_bytes(self.key)
    }
}

impl Passphrase {
    fn seal(&mut self, record: &OpenRecord) -> Result<(), EngineError> {
        let key = self.key.as_ref().ok_or(EngineError::Locked)?;
        let mut rng = rand::rng();
        let slot = match self.slots.get(&record.folder) {
            Some(slot) => *slot,
            None => {
                let used: Vec<_> = self.slots.values().copied().collect();
                KeyStore::unused_slot(&used, &mut rng)
                    .ok_or_else(|| internal("the key store is full: it holds 64 folders"))?
            }
        };
        self.store.seal(key, slot, &encode(record), &mut rng).map_err(from_store)?;
        self.slots.insert(record.folder, slot);
        Ok(())
    }
}

fn encode(value: &impl Serialize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(postcard::to_allocvec(value).expect("records of the key store always encode"))
}

fn decode<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, EngineError> {
    postcard::from_bytes(bytes).map_err(|_| damaged(name))
}

fn damaged(name: &str) -> EngineError {
    let message = format!("the file {name} of the home is damaged; restore it from a backup");
    EngineError::Store { message, kind: ErrorKind::Corruption }
}

fn internal(message: &str) -> EngineError {
    EngineError::Store { message: message.to_owned(), kind: ErrorKind::Internal }
}

fn from_store(error: KeyStoreError) -> EngineError {
    match error {
        KeyStoreError::Locked => EngineError::WrongPassphrase,
        KeyStoreError::Format | KeyStoreError::Blob => damaged(SLOTS),
        other => internal(&other.to_string()),
    }
}
