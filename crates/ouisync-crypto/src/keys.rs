//! The key hierarchy: what is derived from the secrets of a folder's epochs, and the set of epochs that a device knows.

use std::collections::BTreeMap;

use ouisync_model::id::{ChunkId, EpochId};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    encoding::{self, DecodeError},
    pack::{PackHeader, PackKey, PackSalt},
    seal::{self, OpenError},
    secret::{EpochSecret, ReadSecret, StoreSecret, derive, secret},
};

secret! {
    /// Gives chunks their ids; the same in all epochs, so that deduplication survives rotation.
    ChunkIdKey
}
secret! {
    /// Seals records of the local index.
    IndexSealKey
}
secret! {
    /// Hides names in keys of the local index (a pseudo-random function).
    IndexNameKey
}
secret! {
    /// Seals texts of the roster that safes must not read.
    RosterTextKey
}
secret! {
    /// Proves to a connected device that one has an epoch's blind secret, or an invitation.
    PeerAuthKey
}
secret! {
    /// Where members of an epoch find each other (LAN and rendezvous).
    DiscoveryKey
}
secret! {
    /// Seals one commit's body.
    BodyKey
}

impl ChunkIdKey {
    /// The id of a chunk: keyed BLAKE3 of its plaintext.
    pub fn chunk_id(&self, plaintext: &[u8]) -> ChunkId {
        ChunkId::from_bytes(*blake3::keyed_hash(&self.0, plaintext).as_bytes())
    }
}

impl IndexNameKey {
    /// The pseudo-random function: 32 bytes that tell nothing of `input` without the key. `domain` separates uses.
    pub fn apply(&self, domain: u8, input: &[u8]) -> [u8; 32] {
        *blake3::Hasher::new_keyed(&self.0)
            .update(&[domain])
            .update(input)
            .finalize()
            .as_bytes()
    }
}

/// Bytes that sealing a record of the index adds: a random salt and the tag.
pub const RECORD_OVERHEAD: usize = RECORD_SALT + seal::TAG_LENGTH;
const RECORD_SALT: usize = 24;

impl IndexSealKey {
    /// Seals a record; `context` (its place in the index) must be the same when it is opened.
    pub fn seal_record(
        &self,
        context: &[u8],
        plaintext: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Vec<u8> {
        let mut salt = [0; RECORD_SALT];
        rng.fill_bytes(&mut salt);
        let sealed = seal::seal_once(&self.record_key(&salt), context, plaintext.to_vec());
        [&salt[..], &sealed].concat()
    }

    /// Opens what [`Self::seal_record`] made.
    pub fn open_record(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let (salt, sealed) = sealed.split_at_checked(RECORD_SALT).ok_or(OpenError)?;
        seal::open_once(&self.record_key(salt), context, sealed)
    }

    fn record_key(&self, salt: &[u8]) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(
            *blake3::Hasher::new_keyed(&self.0)
                .update(salt)
                .finalize()
                .as_bytes(),
        )
    }
}

/// The chunker's table of random numbers, secret so that boundaries tell nothing of the content.
#[derive(Clone, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct GearTable(Box<[u64; 256]>);

impl GearTable {
    /// The numbers.
    pub const fn as_array(&self) -> &[u64; 256] {
        &self.0
    }
}

impl std::fmt::Debug for GearTable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("GearTable(redacted)")
    }
}

impl ReadSecret {
    /// Key of the body of the commit with `salt`.
    pub fn body_key(&self, salt: &[u8; 32]) -> BodyKey {
        BodyKey(derive("ouisync v1 commit body key", &[self.expose(), salt]))
    }

    /// Key of texts in the roster.
    pub fn roster_text_key(&self) -> RosterTextKey {
        RosterTextKey(derive("ouisync v1 roster text key", &[self.expose()]))
    }

    /// Key of chunk ids; only the founding epoch's is used.
    pub fn chunk_id_key(&self) -> ChunkIdKey {
        ChunkIdKey(derive("ouisync v1 chunk id key", &[self.expose()]))
    }

    /// The chunker's table; only the founding epoch's is used.
    pub fn gear_table(&self) -> GearTable {
        let mut bytes = zeroize::Zeroizing::new([0; 256 * 8]);
        blake3::Hasher::new_derive_key("ouisync v1 gear table")
            .update(self.expose())
            .finalize_xof()
            .fill(&mut *bytes);
        let mut table = Box::new([0; 256]);
        for (number, bytes) in table.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *number = u64::from_le_bytes(*bytes);
        }
        GearTable(table)
    }

    /// Key of records of the local index; only the founding epoch's is used.
    pub fn index_seal_key(&self) -> IndexSealKey {
        IndexSealKey(derive("ouisync v1 index seal key", &[self.expose()]))
    }

    /// Key of names in the local index; only the founding epoch's is used.
    pub fn index_name_key(&self) -> IndexNameKey {
        IndexNameKey(derive("ouisync v1 index name key", &[self.expose()]))
    }
}

impl StoreSecret {
    /// Key of the proofs between devices.
    pub fn peer_auth_key(&self) -> PeerAuthKey {
        PeerAuthKey(derive(
            "ouisync v1 peer authentication key",
            &[self.expose()],
        ))
    }

    /// Key of discovery.
    pub fn discovery_key(&self) -> DiscoveryKey {
        DiscoveryKey(derive("ouisync v1 discovery key", &[self.expose()]))
    }

    /// What entries of the roster say of an epoch, so that receivers of its secret know that all got the same.
    pub fn commitment(&self) -> [u8; 32] {
        derive("ouisync v1 epoch commitment", &[self.expose()])
    }
}

/// What a device knows of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochKeys {
    /// 0 for the founding epoch; a rotation has one more than the greatest that it followed.
    pub generation: u64,
    /// The secret.
    pub secret: EpochSecret,
}

/// The secrets of a folder's epochs that a device knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderKeys {
    epochs: BTreeMap<EpochId, EpochKeys>,
}

/// The keys that the founding epoch's reading secret gives; the same for the folder's whole life.
#[derive(Clone, Debug)]
pub struct ContentKeys {
    /// Gives chunks their ids.
    pub chunk_id: ChunkIdKey,
    /// The chunker's table.
    pub gear: GearTable,
    /// Seals records of the local index.
    pub index_seal: IndexSealKey,
    /// Hides names in the local index.
    pub index_name: IndexNameKey,
}

impl FolderKeys {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Learns a secret. A reading secret replaces a blind one, never the other way. Gives whether this was news.
    pub fn insert(&mut self, epoch: EpochId, generation: u64, secret: EpochSecret) -> bool {
        let known = self.epochs.get(&epoch);
        let news = match known.map(|keys| &keys.secret) {
            None => true,
            Some(EpochSecret::Store(_)) => matches!(secret, EpochSecret::Read(_)),
            Some(EpochSecret::Read(_)) => false,
        };
        if news {
            self.epochs.insert(epoch, EpochKeys { generation, secret });
        }
        news
    }

    /// What is known of an epoch.
    pub fn epoch(&self, epoch: &EpochId) -> Option<&EpochKeys> {
        self.epochs.get(epoch)
    }

    /// The reading secret of an epoch.
    pub fn read_secret(&self, epoch: &EpochId) -> Option<&ReadSecret> {
        self.epochs.get(epoch)?.secret.read_secret()
    }

    /// The blind secret of an epoch.
    pub fn store_secret(&self, epoch: &EpochId) -> Option<StoreSecret> {
        Some(self.epochs.get(epoch)?.secret.store_secret())
    }

    /// All known epochs by id.
    pub fn epochs(&self) -> impl Iterator<Item = (&EpochId, &EpochKeys)> {
        self.epochs.iter()
    }

    /// The known epoch of the greatest (generation, id) whose content this device can seal and open.
    pub fn latest_readable(&self) -> Option<(EpochId, &ReadSecret)> {
        self.epochs
            .iter()
            .filter_map(|(id, keys)| Some((keys.generation, *id, keys.secret.read_secret()?)))
            .max_by_key(|(generation, id, _)| (*generation, *id))
            .map(|(_, id, secret)| (id, secret))
    }

    /// The founding epoch, if it is known.
    pub fn founding(&self) -> Option<EpochId> {
        self.epochs
            .iter()
            .find(|(_, keys)| keys.generation == 0)
            .map(|(id, _)| *id)
    }

    /// The keys of chunks and of the index; `None` for a safe or a locked folder.
    pub fn content_keys(&self) -> Option<ContentKeys> {
        let secret = self.read_secret(&self.founding()?)?;
        Some(ContentKeys {
            chunk_id: secret.chunk_id_key(),
            gear: secret.gear_table(),
            index_seal: secret.index_seal_key(),
            index_name: secret.index_name_key(),
        })
    }

    /// The key for sealing a new pack in `epoch`.
    pub fn pack_key(&self, epoch: &EpochId, salt: PackSalt) -> Option<PackKey> {
        Some(PackKey::derive(self.read_secret(epoch)?, salt))
    }

    /// The key for opening the pack with `header`: the epoch whose key it commits to, newest tried first.
    pub fn open_pack(&self, header: &PackHeader) -> Option<(EpochId, PackKey)> {
        let mut epochs: Vec<_> = self.epochs.iter().collect();
        epochs.sort_by_key(|(id, keys)| std::cmp::Reverse((keys.generation, **id)));
        epochs.into_iter().find_map(|(id, keys)| {
            Some((
                *id,
                PackKey::for_header(keys.secret.read_secret()?, header).ok()?,
            ))
        })
    }

    /// What a locked folder keeps: the blind secrets only.
    pub fn blind(&self) -> Self {
        let epochs = self.epochs.iter().map(|(id, keys)| {
            let secret = EpochSecret::Store(keys.secret.store_secret());
            (
                *id,
                EpochKeys {
                    generation: keys.generation,
                    secret,
                },
            )
        });
        Self {
            epochs: epochs.collect(),
        }
    }

    /// For sealing in a key store; never stored as it is.
    pub fn to_bytes(&self) -> zeroize::Zeroizing<Vec<u8>> {
        let stored: Vec<_> = self
            .epochs
            .iter()
            .map(|(id, keys)| StoredEpoch {
                epoch: *id,
                generation: keys.generation,
                readable: matches!(keys.secret, EpochSecret::Read(_)),
                secret: match &keys.secret {
                    EpochSecret::Read(secret) => *secret.expose(),
                    EpochSecret::Store(secret) => *secret.expose(),
                },
            })
            .collect();
        zeroize::Zeroizing::new(encoding::encode(&stored))
    }

    /// Reads [`Self::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeysError> {
        let stored: Vec<StoredEpoch> = encoding::decode(bytes).map_err(KeysError)?;
        let mut keys = Self::new();
        for epoch in &stored {
            let secret = if epoch.readable {
                EpochSecret::Read(ReadSecret::from_bytes(epoch.secret))
            } else {
                EpochSecret::Store(StoreSecret::from_bytes(epoch.secret))
            };
            keys.insert(epoch.epoch, epoch.generation, secret);
        }
        Ok(keys)
    }
}

/// Stored keys can't be read.
#[derive(Debug, Error)]
#[error("stored keys are damaged")]
pub struct KeysError(#[source] DecodeError);

#[derive(Serialize, Deserialize, zeroize::ZeroizeOnDrop)]
struct StoredEpoch {
    #[zeroize(skip)]
    epoch: EpochId,
    generation: u64,
    readable: bool,
    secret: [u8; 32],
}
