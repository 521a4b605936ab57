//! The operating system's key ring, as the engine sees it: a place that keeps one key and may be locked or absent.
//!
//! Who runs the engine passes a [`KeyRing`] in; nothing here speaks to an operating system.

use std::fmt;

use ouisync_crypto::keystore::KeyStoreKey;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Names an entry of a key ring: random, new each time the key ring is taken into use. Were it derived from the device, a copy
/// of the home could overwrite or remove the key that the other copy needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRingEntry([u8; 16]);

impl KeyRingEntry {
    /// A name that no entry has.
    pub(crate) fn generate() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for KeyRingEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// Whether a key ring may ask the person to unlock it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// It may: somebody has just asked for it.
    Allowed,
    /// It may not: a device that starts by itself must not wait for anybody.
    Forbidden,
}

/// Why a key ring gives nothing.
#[derive(Debug, Error)]
pub enum KeyRingError {
    /// There is none in this session.
    #[error("there is no key ring: {0}")]
    Absent(String),
    /// It is locked, and nobody unlocked it.
    #[error("the key ring is locked")]
    Locked,
    /// It is open but no longer has the key.
    #[error("the key ring has no key of this device")]
    Missing,
    /// It has another key than the one that sealed the folders' secrets.
    #[error("the key in the key ring does not open this device's secrets")]
    Wrong,
    /// It failed.
    #[error("the key ring failed: {0}")]
    Failed(String),
}

/// Keeps keys for the person who is logged in. Calls block; each must end by itself within a minute.
pub trait KeyRing: fmt::Debug + Send + Sync {
    /// The key of that name; `None` when the ring is open and has none.
    fn fetch(
        &self,
        entry: &KeyRingEntry,
        asking: Asking,
    ) -> Result<Option<KeyStoreKey>, KeyRingError>;

    /// Keeps a key, durably as far as the ring allows.
    fn keep(&self, entry: &KeyRingEntry, key: &KeyStoreKey) -> Result<(), KeyRingError>;

    /// Forgets a key; nothing happens when there is none.
    fn remove(&self, entry: &KeyRingEntry) -> Result<(), KeyRingError>;
}

/// A key ring in memory.
#[cfg(test)]
pub(crate) mod fake {
    use std::sync::{Arc, Mutex, atomic::AtomicBool, atomic::Ordering};

    use super::{Asking, KeyRing, KeyRingEntry, KeyRingError, KeyStoreKey};
    use crate::home::Fault;

    #[derive(Debug, Default)]
    pub(crate) struct FakeKeyRing {
        pub(crate) locked: AtomicBool,
        pub(crate) entries: Mutex<Vec<(KeyRingEntry, KeyStoreKey)>>,
        /// What was asked of the person.
        pub(crate) asked: AtomicBool,
        pub(crate) fault: Arc<Fault>,
    }

    impl FakeKeyRing {
        fn step(&self) -> Result<(), KeyRingError> {
            self.fault
                .step()
                .map_err(|error| KeyRingError::Failed(error.to_string()))?;
            if self.locked.load(Ordering::SeqCst) {
                Err(KeyRingError::Locked)
            } else {
                Ok(())
            }
        }
    }

    impl KeyRing for FakeKeyRing {
        fn fetch(
            &self,
            entry: &KeyRingEntry,
            asking: Asking,
        ) -> Result<Option<KeyStoreKey>, KeyRingError> {
            self.asked
                .fetch_or(asking == Asking::Allowed, Ordering::SeqCst);
            self.step()?;
            let entries = self.entries.lock().unwrap();
            Ok(entries
                .iter()
                .find(|(name, _)| name == entry)
                .map(|(_, key)| key.clone()))
        }

        fn keep(&self, entry: &KeyRingEntry, key: &KeyStoreKey) -> Result<(), KeyRingError> {
            self.step()?;
            let mut entries = self.entries.lock().unwrap();
            entries.retain(|(name, _)| name != entry);
            entries.push((*entry, key.clone()));
            Ok(())
        }

        fn remove(&self, entry: &KeyRingEntry) -> Result<(), KeyRingError> {
            self.step()?;
            self.entries
                .lock()
                .unwrap()
                .retain(|(name, _)| name != entry);
            Ok(())
        }
    }
}
