//! The ways of sealing the reading records, and changing from one to another without a moment in which a crash loses them.
//!
//! Order of a change: the key ring's new entry, the new file, the record of the way (from then on the new way is in force), the old
//! file away, the key ring's old entry away.

use ouisync_crypto::keystore::{KeyStoreError, KeyStoreKey};
use ouisync_model::id::FolderId;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{
    FILES_OF_WAYS, Keys, OPEN, OpenRecord, RING, SLOTS, State, WAY, damaged, internal, lock,
    slots::{OpenError, Slots},
};
use crate::{
    error::EngineError,
    key_ring::{Asking, KeyRing, KeyRingEntry, KeyRingError},
    status::Sealing,
};

/// What seals the reading records.
pub(super) enum Way {
    Machine,
    Passphrase(Slots),
    Ring(KeyRingEntry, Slots),
}

/// The way as it is written.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum WayRecord {
    Machine,
    Passphrase,
    Ring(KeyRingEntry),
}

/// Which folders are to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chosen {
    All,
    Folder(FolderId),
    /// The folder's name here, which nobody knows before its record is open.
    Named(String),
}

impl Chosen {
    fn has(&self, record: &OpenRecord) -> bool {
        match self {
            Self::All => true,
            Self::Folder(folder) => *folder == record.folder,
            Self::Named(name) => *name == record.name,
        }
    }
}

impl Keys {
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

    /// Refuses whoever doesn't know the passphrase, where one is set; takes the time of Argon2id.
    pub(crate) fn check_passphrase(&self, passphrase: Option<&str>) -> Result<(), EngineError> {
        let Some((None, slots)) = self.slots() else {
            return Ok(());
        };
        passphrase_key(&slots, passphrase).map(|_| ())
    }

    /// Seals by a new key in the key ring instead; nothing happens when it is so already. The passphrase is needed where one is set.
    pub(crate) fn enable_ring(&self, passphrase: Option<&str>) -> Result<(), EngineError> {
        let _changing = lock(&self.changing);
        let old = match self.slots() {
            Some((Some(_), _)) => return Ok(()),
            // A wrong one must not reach the key ring.
            Some((None, slots)) => Some(passphrase_key(&slots, passphrase)?),
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

    /// Opens with the passphrase, or by asking the key ring again; gives the chosen folders, which are now readable.
    pub(crate) fn unlock(
        &self,
        chosen: &Chosen,
        passphrase: Option<&str>,
    ) -> Result<Vec<FolderId>, EngineError> {
        match self.slots() {
            None => Err(EngineError::NoPassphrase),
            Some((Some(_), _)) => self.unlock_by_ring(chosen, Asking::Allowed),
            Some((None, slots)) => {
                let _changing = lock(&self.changing);
                let passphrase = passphrase.ok_or(EngineError::PassphraseNeeded)?;
                let key = slots.store().passphrase_key(passphrase.as_bytes());
                let key = key.map_err(|error| from_store(error, SLOTS))?;
                self.open_slots(&key, chosen, SLOTS)
            }
        }
    }

    pub(super) fn unlock_by_ring(
        &self,
        chosen: &Chosen,
        asking: Asking,
    ) -> Result<Vec<FolderId>, EngineError> {
        let _changing = lock(&self.changing);
        let Some((Some(entry), slots)) = self.slots() else {
            return Err(EngineError::KeyRingUnused);
        };
        let opened = self
            .ring_key(&entry, &slots, asking)
            .and_then(|key| self.open_slots(&key, chosen, RING));
        self.state().ring_trouble = opened.as_ref().err().map(ToString::to_string);
        opened
    }

    /// Opens the slots in force. `changing` must be held.
    fn open_slots(
        &self,
        key: &KeyStoreKey,
        chosen: &Chosen,
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
            if chosen.has(&record) {
                opened.push(record.folder);
                open.entry(record.folder).or_insert(record);
            }
        }
        // Slots are in random order.
        opened.sort_unstable();
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
    pub(super) fn remove_leftovers(&self, way: &Way) -> Result<(), EngineError> {
        FILES_OF_WAYS
            .iter()
            .filter(|file| **file != way.file())
            .try_for_each(|file| self.home.remove(file))
    }

    /// Writes changed slots of the way in force, then takes them over.
    pub(super) fn write_slots(&self, way: &mut Way, changed: Slots) -> Result<(), EngineError> {
        self.home.write(way.file(), changed.as_bytes())?;
        match way {
            Way::Passphrase(slots) | Way::Ring(_, slots) => *slots = changed,
            Way::Machine => {}
        }
        Ok(())
    }
}

impl State {
    fn slots(&self) -> Result<&Slots, EngineError> {
        match &self.way {
            Way::Passphrase(slots) | Way::Ring(_, slots) => Ok(slots),
            Way::Machine => Err(EngineError::NoPassphrase),
        }
    }
}

impl Way {
    pub(super) const fn record(&self) -> WayRecord {
        match self {
            Self::Machine => WayRecord::Machine,
            Self::Passphrase(_) => WayRecord::Passphrase,
            Self::Ring(entry, _) => WayRecord::Ring(*entry),
        }
    }

    pub(super) const fn file(&self) -> &'static str {
        match self {
            Self::Machine => OPEN,
            Self::Passphrase(_) => SLOTS,
            Self::Ring(..) => RING,
        }
    }
}

/// The key of a passphrase that opens the slots; takes the time of Argon2id.
fn passphrase_key(slots: &Slots, passphrase: Option<&str>) -> Result<KeyStoreKey, EngineError> {
    let passphrase = passphrase.ok_or(EngineError::PassphraseNeeded)?;
    let fail = |error| from_store(error, SLOTS);
    let store = slots.store();
    let key = store.passphrase_key(passphrase.as_bytes()).map_err(fail)?;
    store.open(&key).map_err(fail)?;
    Ok(key)
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
