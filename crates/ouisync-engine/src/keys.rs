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

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ouisync_crypto::{
    keystore::{KeyStoreError, KeyStoreKey, MachineKey},
    roster::role::Role,
};
use ouisync_model::id::{EpochId, FolderId};
use ouisync_net::key::DeviceKey;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::{info, warn};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use self::slots::{OpenError, Slots};
use crate::{
    error::{EngineError, ErrorKind},
    home::Home,
    key_ring::{Asking, KeyRing, KeyRingEntry, KeyRingError},
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

/// What seals the reading records.
enum Way {
    Machine,
    Passphrase(Slots),
    Ring(KeyRingEntry, Slots),
}

/// The way as it is written.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum WayRecord {
    Machine,
    Passphrase,
    Ring(KeyRingEntry),
}

impl Keys {
    /// Reads the key store, or makes one with a fresh device key. What a passphrase seals isn't readable yet; the key ring is asked,
    /// and when it gives nothing what it seals isn't readable either.
    pub(crate) fn open(
        home: Arc<Home>,
        device_name: &str,
        ring: Option<Arc<dyn KeyRing>>,
    ) -> Result<Self, EngineError> {
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
                key: rand::random(),
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
            match keys.unlock_by_ring(None, Asking::Forbidden) {
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

    /// What seals the reading secrets.
    pub(crate) fn sealing(&self) -> Sealing {
        match self.state().way {
            Way::Machine => Sealing::Machine,
            Way::Passphrase(_) => Sealing::Passphrase,
            Way::Ring(..) => Sealing::KeyRing,
        }
    }

    /// Why the key ring gave nothing, the last time it was asked.
    pub(crate) fn ring_trouble(&self) -> Option<String> {
        self.state().ring_trouble.clone()
    }

    /// Sets or changes the passphrase, also in place of the key ring; takes the time of Argon2id, twice for a change.
    pub(crate) fn set_passphrase(&self, old: Option<&str>, new: &str) -> Result<(), EngineError> {
        let _changing = lock(&self.changing);
        match self.slots() {
            None => {
                let mut state = self.state();
                state.check_sure()?;
                let slots = Slots::create(state.open.values(), |store| {
                    store
                        .passphrase_key(new.as_bytes())
                        .map_err(|error| from_store(error, SLOTS))
                })?;
                self.change_way(&mut state, Way::Passphrase(slots))
            }
            Some((None, slots)) => {
                let old = old.ok_or(EngineError::PassphraseNeeded)?;
                let [old, new] =
                    [old, new].map(|text| slots.store().passphrase_key(text.as_bytes()));
                let fail = |error| from_store(error, SLOTS);
                let (old, new) = (old.map_err(fail)?, new.map_err(fail)?);
                let mut state = self.state();
                state.check_sure()?;
                let changed = state.slots()?.rekeyed(&old, &new).map_err(fail)?;
                self.write_slots(&mut state.way, changed)
            }
            Some((Some(entry), slots)) => {
                let old = self.ring_key(&entry, &slots, Asking::Allowed)?;
                let fail = |error| from_store(error, RING);
                let new = slots.store().passphrase_key(new.as_bytes()).map_err(fail)?;
                let mut state = self.state();
                state.check_sure()?;
                let changed = state.slots()?.rekeyed(&old, &new).map_err(fail)?;
                self.change_way(&mut state, Way::Passphrase(changed))?;
                drop(state);
                self.forget_entry(&entry);
                Ok(())
            }
        }
    }

    /// Seals by a new key in the key ring instead; nothing happens when it is so already. The passphrase is needed where one is set.
    pub(crate) fn enable_ring(&self, passphrase: Option<&str>) -> Result<(), EngineError> {
        let _changing = lock(&self.changing);
        let old = match self.slots() {
            Some((Some(_), _)) => return Ok(()),
            Some((None, slots)) => {
                let passphrase = passphrase.ok_or(EngineError::PassphraseNeeded)?;
                let fail = |error| from_store(error, SLOTS);
                let key = slots
                    .store()
                    .passphrase_key(passphrase.as_bytes())
                    .map_err(fail)?;
                // A wrong one must not reach the key ring.
                slots.store().open(&key).map_err(fail)?;
                Some(key)
            }
            None => None,
        };
        let ring = self.ring()?;
        let (entry, key) = (
            KeyRingEntry::generate(),
            KeyStoreKey::generate(&mut rand::rng()),
        );
        ring.keep(&entry, &key)?;
        let changed = (|| {
            if ring.fetch(&entry, Asking::Allowed)?.as_ref() != Some(&key) {
                return Err(EngineError::KeyRing(KeyRingError::Wrong));
            }
            let mut state = self.state();
            state.check_sure()?;
            let slots = match &old {
                Some(old) => state
                    .slots()?
                    .rekeyed(old, &key)
                    .map_err(|error| from_store(error, SLOTS))?,
                None => Slots::create(state.open.values(), |_| Ok(key.clone()))?,
            };
            self.change_way(&mut state, Way::Ring(entry, slots))?;
            state.ring_trouble = None;
            Ok(())
        })();
        // Unless it is, or may be, in force.
        if changed.is_err() && !self.state().unsure && self.sealing() != Sealing::KeyRing {
            self.forget_entry(&entry);
        }
        changed
    }

    /// Seals by the machine's key again instead of the key ring. Every folder must be open.
    pub(crate) fn disable_ring(&self) -> Result<(), EngineError> {
        let _changing = lock(&self.changing);
        let entry = match self.slots() {
            Some((Some(entry), _)) => entry,
            _ => return Err(EngineError::KeyRingUnused),
        };
        let mut state = self.state();
        state.check_sure()?;
        let slots = state.slots()?;
        if slots.key().is_none()
            || slots
                .folders()
                .any(|folder| !state.open.contains_key(folder))
        {
            return Err(EngineError::DeviceLocked);
        }
        self.change_way(&mut state, Way::Machine)?;
        state.ring_trouble = None;
        drop(state);
        self.forget_entry(&entry);
        Ok(())
    }

    /// Forgets the reading secrets of a folder in memory, and the key of the slots with the last of them.
    pub(crate) fn lock(&self, folder: &FolderId) -> Result<(), EngineError> {
        let mut state = self.state();
        let State { open, way, .. } = &mut *state;
        let (Way::Passphrase(slots) | Way::Ring(_, slots)) = way else {
            return Err(EngineError::NoPassphrase);
        };
        open.remove(folder);
        if open.is_empty() {
            slots.forget_key();
        }
        Ok(())
    }

    /// Opens with the passphrase, or by asking the key ring again; gives the folders, the given one or all, that are now readable.
    pub(crate) fn unlock(
        &self,
        folder: Option<FolderId>,
        passphrase: Option<&str>,
    ) -> Result<Vec<FolderId>, EngineError> {
        match self.slots() {
            None => Err(EngineError::NoPassphrase),
            Some((Some(_), _)) => self.unlock_by_ring(folder, Asking::Allowed),
            Some((None, slots)) => {
                let _changing = lock(&self.changing);
                let passphrase = passphrase.ok_or(EngineError::PassphraseNeeded)?;
                let key = slots.store().passphrase_key(passphrase.as_bytes());
                let key = key.map_err(|error| from_store(error, SLOTS))?;
                self.open_slots(&key, folder, SLOTS)
            }
        }
    }

    fn unlock_by_ring(
        &self,
        folder: Option<FolderId>,
        asking: Asking,
    ) -> Result<Vec<FolderId>, EngineError> {
        let _changing = lock(&self.changing);
        let Some((Some(entry), slots)) = self.slots() else {
            return Err(EngineError::KeyRingUnused);
        };
        let opened = self
            .ring_key(&entry, &slots, asking)
            .and_then(|key| self.open_slots(&key, folder, RING));
        self.state().ring_trouble = opened.as_ref().err().map(ToString::to_string);
        opened
    }

    /// Opens the slots in force. `changing` must be held.
    fn open_slots(
        &self,
        key: &KeyStoreKey,
        folder: Option<FolderId>,
        file: &'static str,
    ) -> Result<Vec<FolderId>, EngineError> {
        let mut state = self.state();
        let State { open, way, .. } = &mut *state;
        let (Way::Passphrase(slots) | Way::Ring(_, slots)) = way else {
            return Err(EngineError::NoPassphrase);
        };
        let records = slots.open(key, file).map_err(|error| match error {
            OpenError::Store(error) => from_store(error, file),
            OpenError::Record(error) => error,
        })?;
        let mut opened = Vec::new();
        for record in records {
            if folder.is_none_or(|folder| folder == record.folder) {
                opened.push(record.folder);
                open.entry(record.folder).or_insert(record);
            }
        }
        if open.is_empty() && slots.folders().next().is_some() {
            // Nothing was opened, so nothing may stay open.
            slots.forget_key();
        }
        Ok(opened)
    }

    /// The key ring's key, from memory or from the ring.
    fn ring_key(
        &self,
        entry: &KeyRingEntry,
        slots: &Slots,
        asking: Asking,
    ) -> Result<KeyStoreKey, EngineError> {
        if let Some(key) = slots.key() {
            return Ok(key.clone());
        }
        let key = self
            .ring()?
            .fetch(entry, asking)?
            .ok_or(KeyRingError::Missing)?;
        match slots.store().open(&key) {
            Ok(_) => Ok(key),
            Err(error) => Err(from_store(error, RING)),
        }
    }

    fn ring(&self) -> Result<&dyn KeyRing, KeyRingError> {
        let none = || KeyRingError::Absent("this program was started without one".to_owned());
        self.ring.as_deref().ok_or_else(none)
    }

    /// The slots in force, with the key ring's entry where that holds their key.
    fn slots(&self) -> Option<(Option<KeyRingEntry>, Slots)> {
        match &self.state().way {
            Way::Machine => None,
            Way::Passphrase(slots) => Some((None, slots.clone())),
            Way::Ring(entry, slots) => Some((Some(*entry), slots.clone())),
        }
    }

    /// An entry that is of no use any more.
    fn forget_entry(&self, entry: &KeyRingEntry) {
        if let Err(error) = self.ring().and_then(|ring| ring.remove(entry)) {
            warn!(%error, "a key that is no longer used stays in the key ring; it opens nothing that is still there");
        }
    }

    /// Writes the new way's file, then that it is in force, then removes the old way's file. `changing` must be held.
    fn change_way(&self, state: &mut State, way: Way) -> Result<(), EngineError> {
        let before = self.home.read(WAY)?;
        let written = match &way {
            Way::Machine => self.write_open(&state.open),
            Way::Passphrase(slots) => self.home.write(SLOTS, slots.as_bytes()),
            Way::Ring(_, slots) => self.home.write(RING, slots.as_bytes()),
        };
        if let Err(error) = written.and_then(|()| self.write_sealed(WAY, &way.record())) {
            // It may have failed after the new record took its place.
            state.unsure = self.home.read(WAY).ok() != Some(before);
            if !state.unsure {
                // Leftovers that stay are removed at the next start.
                let _ = self.remove_leftovers(&state.way);
            }
            return Err(error);
        }
        state.way = way;
        self.remove_leftovers(&state.way)
    }

    /// Removes files of other ways than the given one.
    fn remove_leftovers(&self, way: &Way) -> Result<(), EngineError> {
        FILES_OF_WAYS
            .iter()
            .filter(|file| **file != way.file())
            .try_for_each(|file| self.home.remove(file))
    }

    /// Writes changed slots of the way in force, then takes them over.
    fn write_slots(&self, way: &mut Way, changed: Slots) -> Result<(), EngineError> {
        self.home.write(way.file(), changed.as_bytes())?;
        match way {
            Way::Passphrase(slots) | Way::Ring(_, slots) => *slots = changed,
            Way::Machine => {}
        }
        Ok(())
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

    fn slots(&self) -> Result<&Slots, EngineError> {
        match &self.way {
            Way::Passphrase(slots) | Way::Ring(_, slots) => Ok(slots),
            Way::Machine => Err(EngineError::NoPassphrase),
        }
    }
}

impl Way {
    const fn record(&self) -> WayRecord {
        match self {
            Self::Machine => WayRecord::Machine,
            Self::Passphrase(_) => WayRecord::Passphrase,
            Self::Ring(entry, _) => WayRecord::Ring(*entry),
        }
    }

    const fn file(&self) -> &'static str {
        match self {
            Self::Machine => OPEN,
            Self::Passphrase(_) => SLOTS,
            Self::Ring(..) => RING,
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

/// A failure of the slots in that file.
fn from_store(error: KeyStoreError, file: &'static str) -> EngineError {
    match error {
        KeyStoreError::Locked if file == RING => KeyRingError::Wrong.into(),
        KeyStoreError::Locked => EngineError::WrongPassphrase,
        KeyStoreError::Format | KeyStoreError::Blob => damaged(file),
        other => internal(&other.to_string()),
    }
}
