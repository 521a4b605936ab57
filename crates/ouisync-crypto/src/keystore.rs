//! The key store's bytes: slots sealed by a passphrase, all of one size and random to the eye, used or not.
//!
//! Must not touch files; who writes them decides where and when.

use rand_core::CryptoRng;
use thiserror::Error;

use crate::{
    seal::{self, TAG_LENGTH},
    secret::{derive, random, secret},
};

/// Number of slots.
pub const SLOTS: usize = 64;
/// Bytes of a slot: salt, ciphertext, tag.
pub const SLOT_LENGTH: usize = 8192;
/// Most bytes that a slot holds.
pub const SLOT_CAPACITY: usize = SLOT_LENGTH - SALT_LENGTH - TAG_LENGTH - LENGTH_PREFIX;
/// Bytes of the file.
pub const FILE_LENGTH: usize = HEADER_LENGTH + SLOTS * SLOT_LENGTH;

const MAGIC: &[u8; 8] = b"ouikeys\x01";
const SALT_LENGTH: usize = 32;
const LENGTH_PREFIX: usize = 4;
/// Magic, memory in KiB, passes, lanes (u32 LE each), four zero bytes, salt.
const HEADER_LENGTH: usize = 8 + 3 * 4 + 4 + SALT_LENGTH;

secret! {
    /// Opens slots: from a passphrase, or random and kept in the key ring of the operating system.
    KeyStoreKey
}
secret! {
    /// Kept on the machine beside what it seals; hides blind secrets from who sees only the data, no more.
    MachineKey
}

/// Why a key store can't be used.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum KeyStoreError {
    /// The bytes are not a key store of this version.
    #[error("the key store is damaged or from another version")]
    Format,
    /// No slot opens: a wrong passphrase, or damage. One error for both on purpose.
    #[error("wrong passphrase")]
    Locked,
    /// The secret is larger than [`SLOT_CAPACITY`].
    #[error("a slot of the key store holds {SLOT_CAPACITY} bytes at most")]
    TooLarge,
    /// The slot's index is not below [`SLOTS`].
    #[error("the key store has {SLOTS} slots")]
    NoSuchSlot,
    /// The cost parameters are refused by Argon2id, or beyond what this program is willing to spend.
    #[error("the key store asks for unreasonable work")]
    Cost,
    /// A blob doesn't open under the machine's key.
    #[error("sealed file can't be opened")]
    Blob,
}

/// How dear a guess of the passphrase is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassphraseCost {
    /// Memory in KiB, at most 1 GiB.
    pub memory_kib: u32,
    /// Passes, at most 16.
    pub passes: u32,
    /// Lanes, at most 8.
    pub lanes: u32,
}

impl Default for PassphraseCost {
    /// 64 MiB, three passes, one lane: 0.2 s on a small machine.
    fn default() -> Self {
        Self {
            memory_kib: 64 * 1024,
            passes: 3,
            lanes: 1,
        }
    }
}

/// An opened slot.
#[derive(Debug)]
pub struct OpenSlot {
    /// Its index.
    pub slot: usize,
    /// What it holds.
    pub content: zeroize::Zeroizing<Vec<u8>>,
}

/// The key store's bytes.
#[derive(Clone)]
pub struct KeyStore {
    bytes: Vec<u8>,
}

impl KeyStore {
    /// A key store whose slots are all unused.
    pub fn create(cost: PassphraseCost, rng: &mut impl CryptoRng) -> Self {
        let mut bytes = vec![0; FILE_LENGTH];
        rng.fill_bytes(&mut bytes);
        bytes[..8].copy_from_slice(MAGIC);
        for (index, number) in [cost.memory_kib, cost.passes, cost.lanes, 0]
            .into_iter()
            .enumerate()
        {
            bytes[8 + 4 * index..12 + 4 * index].copy_from_slice(&number.to_le_bytes());
        }
        Self { bytes }
    }

    /// Reads a file's bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, KeyStoreError> {
        if bytes.len() != FILE_LENGTH || !bytes.starts_with(MAGIC) || bytes[20..24] != [0; 4] {
            return Err(KeyStoreError::Format);
        }
        Ok(Self { bytes })
    }

    /// The file's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key of a passphrase; takes [`PassphraseCost`]. Any passphrase gives a key: [`Self::open`] tells whether it opens anything.
    pub fn passphrase_key(&self, passphrase: &[u8]) -> Result<KeyStoreKey, KeyStoreError> {
        let number = |index: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&self.bytes[8 + 4 * index..12 + 4 * index]);
            u32::from_le_bytes(bytes)
        };
        let (memory, passes, lanes) = (number(0), number(1), number(2));
        if memory > 1024 * 1024 || passes > 16 || lanes > 8 {
            return Err(KeyStoreError::Cost);
        }
        let params = argon2::Params::new(memory, passes, lanes, Some(32))
            .map_err(|_| KeyStoreError::Cost)?;
        let argon2 =
            argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let mut key = zeroize::Zeroizing::new([0; 32]);
        argon2
            .hash_password_into(passphrase, &self.bytes[24..HEADER_LENGTH], &mut *key)
            .map_err(|_| KeyStoreError::Cost)?;
        Ok(KeyStoreKey::from_bytes(*key))
    }

    /// Opens every slot that `key` opens; [`KeyStoreError::Locked`] if there is none.
    pub fn open(&self, key: &KeyStoreKey) -> Result<Vec<OpenSlot>, KeyStoreError> {
        let slots: Vec<_> = (0..SLOTS)
            .filter_map(|slot| {
                Some(OpenSlot {
                    slot,
                    content: self.open_slot(key, slot)?,
                })
            })
            .collect();
        if slots.is_empty() {
            Err(KeyStoreError::Locked)
        } else {
            Ok(slots)
        }
    }

    /// Seals `content` into a slot; what it held is gone. Only slots that the caller opened, or knows to be unused, may be
    /// given: a slot of another passphrase looks unused.
    pub fn seal(
        &mut self,
        key: &KeyStoreKey,
        slot: usize,
        content: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(), KeyStoreError> {
        if slot >= SLOTS {
            return Err(KeyStoreError::NoSuchSlot);
        }
        if content.len() > SLOT_CAPACITY {
            return Err(KeyStoreError::TooLarge);
        }
        let salt = random(rng);
        let mut plaintext = Vec::with_capacity(SLOT_LENGTH);
        // Lengths up to SLOT_CAPACITY fit.
        plaintext.extend_from_slice(&(content.len() as u32).to_le_bytes());
        plaintext.extend_from_slice(content);
        plaintext.resize(LENGTH_PREFIX + SLOT_CAPACITY, 0);
        let sealed = seal::seal_once(&slot_key(key, &salt), &slot_context(slot), plaintext);
        let place = &mut self.bytes[HEADER_LENGTH + slot * SLOT_LENGTH..][..SLOT_LENGTH];
        place[..SALT_LENGTH].copy_from_slice(&salt);
        place[SALT_LENGTH..].copy_from_slice(&sealed);
        Ok(())
    }

    /// A random slot that is not among `used`; `None` if all are.
    pub fn unused_slot(used: &[usize], rng: &mut impl CryptoRng) -> Option<usize> {
        let unused: Vec<_> = (0..SLOTS).filter(|slot| !used.contains(slot)).collect();
        let index = usize::try_from(rng.next_u64() % unused.len().max(1) as u64).ok()?;
        unused.get(index).copied()
    }

    /// Fills a slot with random bytes.
    pub fn erase(&mut self, slot: usize, rng: &mut impl CryptoRng) -> Result<(), KeyStoreError> {
        if slot >= SLOTS {
            return Err(KeyStoreError::NoSuchSlot);
        }
        rng.fill_bytes(&mut self.bytes[HEADER_LENGTH + slot * SLOT_LENGTH..][..SLOT_LENGTH]);
        Ok(())
    }

    /// Seals every slot that `old` opens under `new` instead; slots of other passphrases stay as they are.
    pub fn rekey(
        &mut self,
        old: &KeyStoreKey,
        new: &KeyStoreKey,
        rng: &mut impl CryptoRng,
    ) -> Result<(), KeyStoreError> {
        for OpenSlot { slot, content } in self.open(old)? {
            self.seal(new, slot, &content, rng)?;
        }
        Ok(())
    }

    fn open_slot(&self, key: &KeyStoreKey, slot: usize) -> Option<zeroize::Zeroizing<Vec<u8>>> {
        let place = &self.bytes[HEADER_LENGTH + slot * SLOT_LENGTH..][..SLOT_LENGTH];
        let (salt, sealed) = place.split_first_chunk::<SALT_LENGTH>()?;
        let plaintext = seal::open_once(&slot_key(key, salt), &slot_context(slot), sealed).ok()?;
        let plaintext = zeroize::Zeroizing::new(plaintext);
        let (length, rest) = plaintext.split_first_chunk::<LENGTH_PREFIX>()?;
        let content = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        Some(zeroize::Zeroizing::new(content.to_vec()))
    }
}

impl std::fmt::Debug for KeyStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("KeyStore(sealed)")
    }
}

fn slot_key(key: &KeyStoreKey, salt: &[u8; SALT_LENGTH]) -> zeroize::Zeroizing<[u8; 32]> {
    zeroize::Zeroizing::new(derive("ouisync v1 key store slot", &[key.expose(), salt]))
}

fn slot_context(slot: usize) -> [u8; 8] {
    (slot as u64).to_le_bytes()
}

impl KeyStoreKey {
    /// A random key, for the key ring of the operating system.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self::from_bytes(random(rng))
    }
}

impl MachineKey {
    /// A fresh key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self::from_bytes(random(rng))
    }

    /// Seals a file's content: salt, ciphertext, tag. `context` says which file it is.
    pub fn seal_blob(&self, context: &[u8], content: &[u8], rng: &mut impl CryptoRng) -> Vec<u8> {
        let salt = random(rng);
        let sealed = seal::seal_once(&self.blob_key(&salt), context, content.to_vec());
        [&salt[..], &sealed].concat()
    }

    /// Opens what [`Self::seal_blob`] made.
    pub fn open_blob(
        &self,
        context: &[u8],
        sealed: &[u8],
    ) -> Result<zeroize::Zeroizing<Vec<u8>>, KeyStoreError> {
        let (salt, sealed) = sealed
            .split_first_chunk::<SALT_LENGTH>()
            .ok_or(KeyStoreError::Blob)?;
        seal::open_once(&self.blob_key(salt), context, sealed)
            .map(zeroize::Zeroizing::new)
            .map_err(|_| KeyStoreError::Blob)
    }

    fn blob_key(&self, salt: &[u8; SALT_LENGTH]) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(derive("ouisync v1 machine blob", &[self.expose(), salt]))
    }
}
