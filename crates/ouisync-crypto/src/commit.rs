//! Commits: the blind-visible header, its signature, and the sealed body.
//!
//! Checks what one commit says of itself. Whether its author may write is the roster's to say; what it does to the
//! tree is the model's.

use ouisync_model::{
    id::{CommitId, EpochId, FolderId, Lamport, MemberId, PackId, RosterEntryId, Sequence},
    operation::{CommitBody, PackSize},
};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    encoding::{self, DecodeError, ascending},
    identity::{MemberIdentity, SIGNATURE_LENGTH, SignatureError, sign, verify},
    seal::{self, OpenError, TAG_LENGTH},
    secret::{ReadSecret, random},
};

/// The version of the format.
pub const VERSION: u8 = 1;
/// Most bytes of a commit.
pub const MAX_COMMIT: usize = MAX_BODY + 2 * 1024 * 1024;
/// Most bytes of the sealed body.
pub const MAX_BODY: usize = 4 * 1024 * 1024;
/// Fewest bytes of the sealed body.
pub const MIN_BODY: usize = 1024;
/// Most bytes of the encoded body before compression.
pub const MAX_PLAIN_BODY: usize = 32 * 1024 * 1024;
/// Most parents.
pub const MAX_PARENTS: usize = 1024;
/// Most heads of the roster.
pub const MAX_ROSTER_HEADS: usize = 256;
/// Most packs added.
pub const MAX_ADDED: usize = 8192;
/// Most packs released.
pub const MAX_RELEASED: usize = 16384;
/// Most packs that may be forgotten.
pub const MAX_FORGOTTEN: usize = 8192;

const DOMAIN: &[u8] = b"ouisync v1 commit\0";
const COMPRESSION_LEVEL: i32 = 3;
/// The compressed body's length stands before it.
const LENGTH_PREFIX: usize = 4;

/// A pack that a commit adds to the live set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PackAdd {
    /// The pack.
    pub pack: PackId,
    /// Its size.
    pub size: PackSize,
}

/// One addition of a pack, by the commit that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// The commit that added the pack.
    pub commit: CommitId,
    /// The pack.
    pub pack: PackId,
}

/// Tells sets of live packs apart: their number and the XOR of the BLAKE3 hashes of their ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LiveDigest {
    /// Number of live packs.
    pub count: u64,
    /// XOR of BLAKE3(pack id).
    pub digest: [u8; 32],
}

impl LiveDigest {
    /// A pack that was not live is now.
    pub fn add(&mut self, pack: &PackId) {
        self.count = self.count.wrapping_add(1);
        self.toggle(pack);
    }

    /// A pack that was live is no longer.
    pub fn remove(&mut self, pack: &PackId) {
        self.count = self.count.wrapping_sub(1);
        self.toggle(pack);
    }

    fn toggle(&mut self, pack: &PackId) {
        for (byte, hashed) in self
            .digest
            .iter_mut()
            .zip(blake3::hash(pack.as_bytes()).as_bytes())
        {
            *byte ^= hashed;
        }
    }
}

/// What a checkpoint says of the commits that it covers: its ancestors, not itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CheckpointDigest {
    /// Number of commits covered.
    pub commits: u64,
    /// BLAKE3 of their skeleton; its encoding is in `docs/format/checkpoints.md`.
    pub skeleton: [u8; 32],
}

/// What everybody sees of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitHeader {
    /// [`VERSION`].
    pub version: u8,
    /// The folder.
    pub folder: FolderId,
    /// Who made the commit.
    pub author: MemberId,
    /// Its number among the author's, from 1.
    pub sequence: Sequence,
    /// 1 + the greatest of the parents', 1 without parents.
    pub lamport: Lamport,
    /// The heads that the author merged; ascending.
    pub parents: Vec<CommitId>,
    /// The heads of the roster that the author knew; ascending, at least one.
    pub roster: Vec<RosterEntryId>,
    /// Whose secret seals the body and the added packs.
    pub epoch: EpochId,
    /// Hours since 1970-01-01T00:00Z; coarse on purpose, and no rule depends on it.
    pub time_hours: u32,
    /// Packs added to the live set, ascending by pack.
    pub added: Vec<PackAdd>,
    /// Additions taken back; ascending.
    pub released: Vec<Dot>,
    /// Packs whose retention the author waives, where they are not live: holders may drop them once their grace period and
    /// floor have passed since they learned of it. Ascending.
    pub forgotten: Vec<PackId>,
    /// The live set after this commit, over everything that the author had.
    pub live: LiveDigest,
    /// The commit is a checkpoint, which only an owner makes.
    pub checkpoint: Option<CheckpointDigest>,
    /// Makes the body's key its own.
    pub salt: [u8; 32],
    /// The sealed body.
    #[serde(with = "encoding::bytes")]
    pub body: Vec<u8>,
}

/// What the author decides of a new commit; the rest is computed. Lists may be in any order.
#[derive(Clone, Debug)]
pub struct CommitDraft {
    /// The folder.
    pub folder: FolderId,
    /// 1 + the sequence number of the author's previous commit.
    pub sequence: Sequence,
    /// 1 + the greatest of the parents'.
    pub lamport: Lamport,
    /// The heads merged.
    pub parents: Vec<CommitId>,
    /// The heads of the roster known.
    pub roster: Vec<RosterEntryId>,
    /// The epoch of `ReadSecret` given beside the draft.
    pub epoch: EpochId,
    /// Hours since 1970.
    pub time_hours: u32,
    /// Packs added.
    pub added: Vec<PackAdd>,
    /// Additions taken back.
    pub released: Vec<Dot>,
    /// Released packs that need not be kept for history any more.
    pub forgotten: Vec<PackId>,
    /// The live set after the commit.
    pub live: LiveDigest,
    /// What a checkpoint says of the commits that it covers.
    pub checkpoint: Option<CheckpointDigest>,
}

/// Why a commit is refused for what it says itself. None of these is transient.
#[derive(Debug, Error)]
pub enum CommitError {
    /// More bytes than any commit has.
    #[error("commit has more than {MAX_COMMIT} bytes")]
    TooLarge,
    /// The header doesn't decode.
    #[error("commit header can't be read")]
    Header(#[source] DecodeError),
    /// A version that this program doesn't know.
    #[error("commit has unknown version {0}")]
    Version(u8),
    /// A list is too long, unsorted or has duplicates.
    #[error("commit's list of {0} breaks the rules")]
    List(&'static str),
    /// Sequence numbers and Lamport times begin with 1.
    #[error("commit has number zero")]
    Zero,
    /// A checkpoint covers at least one commit.
    #[error("checkpoint covers nothing")]
    EmptyCheckpoint,
    /// The body's length is no padding class.
    #[error("commit body has {0} bytes, which is no padding class")]
    BodyLength(usize),
    /// The author didn't sign it.
    #[error("commit {0} is not signed by its author")]
    Signature(CommitId, #[source] SignatureError),
    /// The Lamport time doesn't follow from the parents'.
    #[error("commit {commit} has Lamport time {found}, its parents give {expected}")]
    Lamport {
        /// The commit.
        commit: CommitId,
        /// The time it claims.
        found: Lamport,
        /// The time it should have.
        expected: Lamport,
    },
    /// The sequence number doesn't follow the author's previous one.
    #[error("commit {commit} has number {found}, its history gives {expected}")]
    Sequence {
        /// The commit.
        commit: CommitId,
        /// The number it claims.
        found: Sequence,
        /// The number it should have.
        expected: Sequence,
    },
}

/// Why a body can't be sealed or read.
#[derive(Debug, Error)]
pub enum BodyError {
    /// Sealed with another key, or changed.
    #[error("commit body can't be opened")]
    Open(#[from] OpenError),
    /// More than [`MAX_PLAIN_BODY`] bytes before, or [`MAX_BODY`] bytes after compression.
    #[error("commit body is too large")]
    TooLarge,
    /// Opened, but its content breaks the format: the author's device is faulty or hostile.
    #[error("commit body breaks the format")]
    Malformed,
}

/// A signed commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    id: CommitId,
    bytes: Vec<u8>,
    header: CommitHeader,
}

impl Commit {
    /// Seals `body` under `secret` (of `draft.epoch`) and signs. Fails only if the body, or a list, is too large.
    pub fn create(
        draft: CommitDraft,
        body: &CommitBody,
        secret: &ReadSecret,
        identity: &MemberIdentity,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, CreateCommitError> {
        let CommitDraft {
            folder,
            sequence,
            lamport,
            mut parents,
            mut roster,
            epoch,
            time_hours,
            mut added,
            mut released,
            mut forgotten,
            live,
            checkpoint,
        } = draft;
        parents.sort_unstable();
        parents.dedup();
        roster.sort_unstable();
        roster.dedup();
        added.sort_unstable();
        added.dedup();
        released.sort_unstable();
        released.dedup();
        forgotten.sort_unstable();
        forgotten.dedup();
        let author = identity.member();
        let salt = random(rng);
        let body = seal_body(body, secret, &salt, &body_aad(&folder, &author, sequence))?;
        let header = CommitHeader {
            version: VERSION,
            folder,
            author,
            sequence,
            lamport,
            parents,
            roster,
            epoch,
            time_hours,
            added,
            released,
            forgotten,
            live,
            checkpoint,
            salt,
            body,
        };
        check_header(&header)?;
        let mut bytes = encoding::encode(&header);
        let signature = sign(identity.signing(), DOMAIN, &bytes);
        bytes.extend_from_slice(&signature);
        Ok(Self {
            id: id_of(&bytes),
            bytes,
            header,
        })
    }

    /// Reads a commit that came from outside: format, limits and signature.
    pub fn verified(bytes: Vec<u8>) -> Result<Self, CommitError> {
        let commit = Self::decode(bytes)?;
        commit.verify()?;
        Ok(commit)
    }

    /// Reads a commit whose signature was checked before (the own store's); format and limits only.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, CommitError> {
        if bytes.len() > MAX_COMMIT {
            return Err(CommitError::TooLarge);
        }
        match bytes.first() {
            Some(&VERSION) | None => {}
            Some(&version) => return Err(CommitError::Version(version)),
        }
        let signed = bytes.len().saturating_sub(SIGNATURE_LENGTH);
        let header: CommitHeader =
            encoding::decode(&bytes[..signed]).map_err(CommitError::Header)?;
        check_header(&header)?;
        Ok(Self {
            id: id_of(&bytes),
            bytes,
            header,
        })
    }

    /// Checks the author's signature.
    pub fn verify(&self) -> Result<(), CommitError> {
        let (header, signature) = self.bytes.split_at(self.bytes.len() - SIGNATURE_LENGTH);
        let mut fixed = [0; SIGNATURE_LENGTH];
        fixed.copy_from_slice(signature);
        verify(self.header.author.as_bytes(), DOMAIN, header, &fixed)
            .map_err(|error| CommitError::Signature(self.id, error))
    }

    /// Checks the numbers against history: the greatest Lamport time of the parents (all of them must be known), and the
    /// greatest sequence number of the same author among the ancestors.
    pub fn check_order(
        &self,
        parents: Option<Lamport>,
        previous: Option<Sequence>,
    ) -> Result<(), CommitError> {
        let expected = Lamport(parents.unwrap_or_default().0.saturating_add(1));
        if self.header.lamport != expected {
            return Err(CommitError::Lamport {
                commit: self.id,
                found: self.header.lamport,
                expected,
            });
        }
        let expected = Sequence(previous.unwrap_or_default().0.saturating_add(1));
        if self.header.sequence != expected {
            return Err(CommitError::Sequence {
                commit: self.id,
                found: self.header.sequence,
                expected,
            });
        }
        Ok(())
    }

    /// Opens the body; `secret` is that of the header's epoch.
    pub fn open_body(&self, secret: &ReadSecret) -> Result<CommitBody, BodyError> {
        let header = &self.header;
        let aad = body_aad(&header.folder, &header.author, header.sequence);
        let plaintext =
            seal::open_once(secret.body_key(&header.salt).expose(), &aad, &header.body)?;
        read_body(&plaintext).ok_or(BodyError::Malformed)
    }

    /// BLAKE3 of the bytes.
    pub const fn id(&self) -> CommitId {
        self.id
    }

    /// Header, then signature.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The header.
    pub const fn header(&self) -> &CommitHeader {
        &self.header
    }

    /// The additions that this commit makes.
    pub fn dots(&self) -> impl Iterator<Item = (Dot, PackSize)> {
        self.header.added.iter().map(|add| {
            (
                Dot {
                    commit: self.id,
                    pack: add.pack,
                },
                add.size,
            )
        })
    }
}

/// Why a commit can't be made.
#[derive(Debug, Error)]
pub enum CreateCommitError {
    /// The body is too large; make several commits.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The header breaks a limit; make several commits.
    #[error(transparent)]
    Header(#[from] CommitError),
}

fn id_of(bytes: &[u8]) -> CommitId {
    CommitId::from_bytes(*blake3::hash(bytes).as_bytes())
}

fn check_header(header: &CommitHeader) -> Result<(), CommitError> {
    if header.version != VERSION {
        return Err(CommitError::Version(header.version));
    }
    if header.sequence.0 == 0 || header.lamport.0 == 0 {
        return Err(CommitError::Zero);
    }
    if header.parents.len() > MAX_PARENTS || !ascending(&header.parents) {
        return Err(CommitError::List("parents"));
    }
    if !(1..=MAX_ROSTER_HEADS).contains(&header.roster.len()) || !ascending(&header.roster) {
        return Err(CommitError::List("roster heads"));
    }
    let packs_ascend = header
        .added
        .windows(2)
        .all(|pair| pair[0].pack < pair[1].pack);
    if header.added.len() > MAX_ADDED || !packs_ascend {
        return Err(CommitError::List("added packs"));
    }
    if header.released.len() > MAX_RELEASED || !ascending(&header.released) {
        return Err(CommitError::List("released packs"));
    }
    if header.forgotten.len() > MAX_FORGOTTEN || !ascending(&header.forgotten) {
        return Err(CommitError::List("forgotten packs"));
    }
    if let Some(checkpoint) = &header.checkpoint
        && (checkpoint.commits == 0 || header.parents.is_empty())
    {
        return Err(CommitError::EmptyCheckpoint);
    }
    let length = header.body.len();
    if !length.is_power_of_two() || !(MIN_BODY..=MAX_BODY).contains(&length) {
        return Err(CommitError::BodyLength(length));
    }
    Ok(())
}

fn body_aad(folder: &FolderId, author: &MemberId, sequence: Sequence) -> Vec<u8> {
    [
        &folder.as_bytes()[..],
        author.as_bytes(),
        &sequence.0.to_le_bytes(),
    ]
    .concat()
}

fn seal_body(
    body: &CommitBody,
    secret: &ReadSecret,
    salt: &[u8; 32],
    aad: &[u8],
) -> Result<Vec<u8>, BodyError> {
    let plain = encoding::encode(body);
    if plain.len() > MAX_PLAIN_BODY {
        return Err(BodyError::TooLarge);
    }
    let compressed =
        zstd::bulk::compress(&plain, COMPRESSION_LEVEL).map_err(|_| BodyError::TooLarge)?;
    let length = (LENGTH_PREFIX + compressed.len() + TAG_LENGTH)
        .next_power_of_two()
        .max(MIN_BODY);
    if length > MAX_BODY {
        return Err(BodyError::TooLarge);
    }
    let prefix = u32::try_from(compressed.len()).map_err(|_| BodyError::TooLarge)?;
    let mut padded = Vec::with_capacity(length);
    padded.extend_from_slice(&prefix.to_le_bytes());
    padded.extend_from_slice(&compressed);
    padded.resize(length - TAG_LENGTH, 0);
    Ok(seal::seal_once(secret.body_key(salt).expose(), aad, padded))
}

pub(crate) fn read_body(plaintext: &[u8]) -> Option<CommitBody> {
    let (prefix, rest) = plaintext.split_first_chunk::<LENGTH_PREFIX>()?;
    let length = usize::try_from(u32::from_le_bytes(*prefix)).ok()?;
    let (compressed, padding) = rest.split_at_checked(length)?;
    if padding.iter().any(|byte| *byte != 0) {
        return None;
    }
    let plain = zstd::bulk::decompress(compressed, MAX_PLAIN_BODY).ok()?;
    encoding::decode(&plain).ok()
}
