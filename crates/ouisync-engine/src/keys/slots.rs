//! The sealed part of the key store: which folder's reading record is in which slot, and the key that opens them.
//!
//! Changes give a new value, so that what is in memory is what is on disk: the caller writes the bytes first. Must not touch files.

use std::collections::BTreeMap;

use ouisync_crypto::keystore::{KeyStore, KeyStoreError, KeyStoreKey, PassphraseCost};
use ouisync_model::id::FolderId;
use serde::{Deserialize, Serialize};

use super::{OpenRecord, decode, encode, internal};
use crate::error::EngineError;

/// What a slot holds.
#[derive(Serialize, Deserialize)]
enum Slot {
    /// Nothing but the sign that the key is the right one, for a device without folders.
    Marker,
    /// A folder's reading record.
    Folder(OpenRecord),
}

/// The slots, and their key unless the device is locked.
#[derive(Clone)]
pub(super) struct Slots {
    store: KeyStore,
    key: Option<KeyStoreKey>,
    /// Known while there is a key.
    marker: Option<usize>,
    places: BTreeMap<FolderId, usize>,
}

impl Slots {
    /// Reads a file, locked.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Result<Self, KeyStoreError> {
        Ok(Self {
            store: KeyStore::from_bytes(bytes)?,
            key: None,
            marker: None,
            places: BTreeMap::new(),
        })
    }

    /// New slots with the given records; `key` makes the key, which may depend on the new file's salt.
    pub(super) fn create<'a>(
        records: impl Iterator<Item = &'a OpenRecord>,
        key: impl FnOnce(&KeyStore) -> Result<KeyStoreKey, EngineError>,
    ) -> Result<Self, EngineError> {
        let mut rng = rand::rng();
        let store = KeyStore::create(cost(), &mut rng);
        let key = key(&store)?;
        let mut slots = Self {
            store,
            key: Some(key),
            marker: None,
            places: BTreeMap::new(),
        };
        slots.mark()?;
        for record in records {
            slots = slots.with(record)?;
        }
        Ok(slots)
    }

    /// The file's bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.store.as_bytes()
    }

    /// The file, for making keys of it.
    pub(super) fn store(&self) -> &KeyStore {
        &self.store
    }

    /// The key, unless the device is locked.
    pub(super) fn key(&self) -> Option<&KeyStoreKey> {
        self.key.as_ref()
    }

    /// Folders that have a record; known while there is a key.
    pub(super) fn folders(&self) -> impl Iterator<Item = &FolderId> {
        self.places.keys()
    }

    /// Forgets the key.
    pub(super) fn forget_key(&mut self) {
        self.key = None;
    }

    /// With that folder's record set; `DeviceLocked` without a key.
    pub(super) fn with(&self, record: &OpenRecord) -> Result<Self, EngineError> {
        let mut slots = self.clone();
        let place = match self.places.get(&record.folder) {
            Some(place) => *place,
            None => self.unused()?,
        };
        slots.seal(place, &Slot::Folder(record.clone()))?;
        slots.places.insert(record.folder, place);
        Ok(slots)
    }

    /// Without that folder's record; `None` when it isn't known to have one.
    pub(super) fn without(&self, folder: &FolderId) -> Result<Option<Self>, EngineError> {
        let mut slots = self.clone();
        let Some(place) = slots.places.remove(folder) else {
            return Ok(None);
        };
        slots
            .store
            .erase(place, &mut rand::rng())
            .map_err(from_store)?;
        Ok(Some(slots))
    }

    /// Sealed under another key, which is kept only if the former one was.
    pub(super) fn rekeyed(
        &self,
        old: &KeyStoreKey,
        new: &KeyStoreKey,
    ) -> Result<Self, KeyStoreError> {
        let mut slots = self.clone();
        slots.store.rekey(old, new, &mut rand::rng())?;
        slots.key = self.key.as_ref().map(|_| new.clone());
        Ok(slots)
    }

    /// All records, and from now on the key is known; [`KeyStoreError::Locked`] when it opens nothing.
    pub(super) fn open(
        &mut self,
        key: &KeyStoreKey,
        file: &'static str,
    ) -> Result<Vec<OpenRecord>, OpenError> {
        let (mut marker, mut places, mut records) = (None, BTreeMap::new(), Vec::new());
        for open in self.store.open(key)? {
            match decode(file, &open.content).map_err(OpenError::Record)? {
                Slot::Marker => marker = Some(open.slot),
                Slot::Folder(record) => {
                    places.insert(record.folder, open.slot);
                    records.push(record);
                }
            }
        }
        (self.marker, self.places, self.key) = (marker, places, Some(key.clone()));
        Ok(records)
    }

    fn mark(&mut self) -> Result<(), EngineError> {
        let place = self.unused()?;
        self.seal(place, &Slot::Marker)?;
        self.marker = Some(place);
        Ok(())
    }

    fn unused(&self) -> Result<usize, EngineError> {
        let used: Vec<_> = self.places.values().copied().chain(self.marker).collect();
        KeyStore::unused_slot(&used, &mut rand::rng())
            .ok_or_else(|| internal("the key store is full: it holds 63 folders"))
    }

    fn seal(&mut self, place: usize, content: &Slot) -> Result<(), EngineError> {
        let key = self.key.as_ref().ok_or(EngineError::DeviceLocked)?;
        self.store
            .seal(key, place, &encode(content), &mut rand::rng())
            .map_err(from_store)
    }
}

/// What a guess of a new passphrase costs; next to nothing in tests, which make many.
fn cost() -> PassphraseCost {
    if cfg!(test) {
        PassphraseCost {
            memory_kib: 8,
            passes: 1,
            lanes: 1,
        }
    } else {
        PassphraseCost::default()
    }
}

/// Why slots don't open.
#[derive(Debug)]
pub(super) enum OpenError {
    /// Not with this key, or not at all.
    Store(KeyStoreError),
    /// They open, but what is in them is damaged.
    Record(EngineError),
}

impl From<KeyStoreError> for OpenError {
    fn from(error: KeyStoreError) -> Self {
        Self::Store(error)
    }
}

fn from_store(error: KeyStoreError) -> EngineError {
    internal(&error.to_string())
}
