//! Entries of the roster: what they say, their bytes and signatures. What they mean together is `state`'s.

use ed25519_dalek::SigningKey;
use ouisync_model::id::{
    CommitId, EpochId, FolderId, InvitationId, MemberId, RosterEntryId, Sequence,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    encoding::{self, DecodeError, ascending},
    envelope::{self, EnvelopePublicKey},
    identity::{SIGNATURE_LENGTH, SignatureError, sign, verify},
    roster::role::Role,
    seal::TAG_LENGTH,
};

/// The version of the format.
pub const VERSION: u8 = 1;
/// Most bytes of an entry.
pub const MAX_ENTRY: usize = 4 * 1024 * 1024;
/// Most parents of an entry.
pub const MAX_PARENTS: usize = 256;
/// Most recipients of a rotation.
pub const MAX_RECIPIENTS: usize = 1024;
/// Most older epochs in a rotation.
pub const MAX_PREVIOUS: usize = 4096;
/// Most commits named by a removal.
pub const MAX_LAST: usize = 256;
/// Most bytes of a policy.
pub const MAX_POLICY: usize = 16 * 1024;
/// Most members that join by one invitation.
pub const MAX_USES: u32 = 1024;
/// Most bytes of a member's name (UTF-8).
pub const MAX_NAME: usize = 127;

/// Bytes of a sealed epoch secret: one byte for its kind, 32 of secret.
pub(crate) const SEALED_SECRET: usize = envelope::OVERHEAD + 33;
/// Bytes of a sealed profile: length byte, [`MAX_NAME`] bytes, blind key, tag.
pub(crate) const SEALED_PROFILE: usize = 1 + MAX_NAME + envelope::PUBLIC_KEY_LENGTH + TAG_LENGTH;
/// Bytes of a 32-byte key sealed under another key.
pub(crate) const SEALED_KEY: usize = 32 + TAG_LENGTH;

const DOMAIN: &[u8] = b"ouisync v1 roster entry\0";

/// A member's public keys and sealed profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberCertificate {
    /// Signs as the member.
    pub member: MemberId,
    /// Secrets are sealed to it.
    pub envelope: EnvelopePublicKey,
    /// The member's name and blind key under the key of its invitation; readable by readers.
    #[serde(with = "encoding::bytes")]
    pub profile: Vec<u8>,
}

/// Whom a secret is sealed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Recipient {
    /// A member.
    Member(MemberId),
    /// Whoever joins by an open invitation.
    Invitation(InvitationId),
}

impl Recipient {
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        match self {
            Self::Member(member) => member.as_bytes(),
            Self::Invitation(invitation) => invitation.as_bytes(),
        }
    }
}

/// An epoch's secret for one recipient: the reading one or the blind one, by the recipient's role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret {
    /// The recipient.
    pub recipient: Recipient,
    /// The ciphertext.
    #[serde(with = "encoding::bytes")]
    pub sealed: Vec<u8>,
}

/// An epoch's blind secret for one member, who isn't named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SealedBlindSecret(#[serde(with = "encoding::bytes")] pub Vec<u8>);

/// The secrets of an older epoch under those of a newer one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousEpoch {
    /// The older epoch.
    pub epoch: EpochId,
    /// Its reading secret under the newer reading secret.
    #[serde(with = "encoding::bytes")]
    pub read: Vec<u8>,
    /// Its blind secret under the newer blind secret.
    #[serde(with = "encoding::bytes")]
    pub store: Vec<u8>,
}

/// The last commit of one author that a remover had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LastCommit {
    /// The author: the removed member or a key that it had before.
    pub author: MemberId,
    /// The commit's number.
    pub sequence: Sequence,
    /// The commit.
    pub commit: CommitId,
}

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RosterAction {
    /// Makes the folder, its first owner and its first epoch.
    Found {
        /// The folder's root key; signs this entry and nothing else.
        root: [u8; 32],
        /// The first owner.
        owner: MemberCertificate,
        /// Random.
        nonce: [u8; 32],
        /// Commitment of the founding epoch.
        commitment: [u8; 32],
        /// The founding reading secret for the owner.
        #[serde(with = "encoding::bytes")]
        sealed: Vec<u8>,
    },
    /// Opens an invitation.
    Invite {
        /// Its public name.
        invitation: InvitationId,
        /// Secrets for its joiners are sealed to it.
        envelope: EnvelopePublicKey,
        /// The role that joiners get.
        role: Role,
        /// How many may join.
        uses: u32,
        /// Seconds since 1970 from which devices no longer accept it; not part of the state's rules.
        expires: Option<u64>,
        /// The epoch whose secret is sealed here and whose text key seals the name key.
        epoch: EpochId,
        /// That epoch's secret for the role.
        #[serde(with = "encoding::bytes")]
        sealed: Vec<u8>,
        /// The key of its joiners' names, for readers.
        #[serde(with = "encoding::bytes")]
        name_key: Vec<u8>,
    },
    /// A new member enters by an invitation. Signed by the new member and by the invitation's key.
    Join {
        /// The invitation.
        invitation: InvitationId,
        /// The new member.
        certificate: MemberCertificate,
    },
    /// Changes a member's role.
    SetRole {
        /// The member.
        member: MemberId,
        /// Its new role.
        role: Role,
        /// When the role doesn't write: what the author had of the member's commits; ascending.
        last: Vec<LastCommit>,
    },
    /// Ends a membership. Owners may remove anybody, others themselves.
    Remove {
        /// The member.
        member: MemberId,
        /// What the author had of the member's commits; ascending.
        last: Vec<LastCommit>,
    },
    /// Closes an invitation.
    RevokeInvitation {
        /// The invitation.
        invitation: InvitationId,
    },
    /// Begins an epoch, whose id is this entry's.
    RotateEpoch {
        /// Commitment of the epoch.
        commitment: [u8; 32],
        /// The secret for every member and open invitation; ascending by recipient.
        sealed: Vec<SealedSecret>,
        /// The blind secret for every member's blind key; ascending.
        blind: Vec<SealedBlindSecret>,
        /// Older epochs; ascending by epoch.
        previous: Vec<PreviousEpoch>,
    },
    /// The author retires its key; a new one takes its seat. Signed by the old and the new key.
    Succeed {
        /// The new signing key.
        member: MemberId,
        /// The new envelope key.
        envelope: EnvelopePublicKey,
    },
    /// Sets the folder's policy (retention and so on); opaque here.
    Policy {
        /// The policy, as the engine encodes it.
        #[serde(with = "encoding::bytes")]
        policy: Vec<u8>,
    },
}

/// The signed part of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterStatement {
    /// [`VERSION`].
    pub version: u8,
    /// The folder; `None` in the founding entry, whose hash is the folder's id.
    pub folder: Option<FolderId>,
    /// The heads that the author knew; ascending; none in the founding entry.
    pub parents: Vec<RosterEntryId>,
    /// 1 + the greatest of the parents', 0 for the founding entry.
    pub depth: u64,
    /// Who says it.
    pub author: MemberId,
    /// What it does.
    pub action: RosterAction,
}

/// Why bytes are not an entry. None of these is transient.
#[derive(Debug, Error)]
pub enum EntryError {
    /// More than [`MAX_ENTRY`] bytes.
    #[error("roster entry has more than {MAX_ENTRY} bytes")]
    TooLarge,
    /// The statement doesn't decode.
    #[error("roster entry can't be read")]
    Statement(#[source] DecodeError),
    /// A version that this program doesn't know.
    #[error("roster entry has unknown version {0}")]
    Version(u8),
    /// A field breaks the format.
    #[error("roster entry {0} breaks the rules for its {1}")]
    Field(RosterEntryId, &'static str),
    /// A signature is missing or wrong.
    #[error("roster entry {0} is not signed as it must be")]
    Signature(RosterEntryId, #[source] SignatureError),
}

/// A signed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterEntry {
    id: RosterEntryId,
    bytes: Vec<u8>,
    statement: RosterStatement,
}

impl RosterEntry {
    /// Signs a statement. `second` is the root key (found), the invitation's key (join) or the new key (succeed).
    pub(crate) fn signed(
        statement: RosterStatement,
        author: &SigningKey,
        second: Option<&SigningKey>,
    ) -> Self {
        let mut bytes = encoding::encode(&statement);
        let first = sign(author, DOMAIN, &bytes);
        let second = second.map(|key| sign(key, DOMAIN, &bytes));
        bytes.extend_from_slice(&first);
        bytes.extend_from_slice(second.as_ref().map_or(&[], |signature| &signature[..]));
        Self {
            id: id_of(&bytes),
            bytes,
            statement,
        }
    }

    /// Reads an entry that came from outside: format, limits and signatures.
    pub fn verified(bytes: Vec<u8>) -> Result<Self, EntryError> {
        let (entry, signatures) = Self::read(bytes)?;
        let signed = &entry.bytes[..entry.bytes.len() - signatures.len()];
        let (signatures, _) = signatures.as_chunks::<SIGNATURE_LENGTH>();
        let keys = [
            Some(*entry.statement.author.as_bytes()),
            entry.statement.second_key(),
        ];
        for (key, signature) in keys.iter().flatten().zip(signatures) {
            verify(key, DOMAIN, signed, signature)
                .map_err(|error| EntryError::Signature(entry.id, error))?;
        }
        Ok(entry)
    }

    /// Reads an entry whose signatures were checked before (the own store's); format and limits only.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, EntryError> {
        Ok(Self::read(bytes)?.0)
    }

    fn read(bytes: Vec<u8>) -> Result<(Self, Vec<u8>), EntryError> {
        if bytes.len() > MAX_ENTRY {
            return Err(EntryError::TooLarge);
        }
        match bytes.first() {
            Some(&VERSION) | None => {}
            Some(&version) => return Err(EntryError::Version(version)),
        }
        let (statement, signatures) =
            encoding::decode_prefix::<RosterStatement>(&bytes).map_err(EntryError::Statement)?;
        let signatures = signatures.to_vec();
        let id = id_of(&bytes);
        statement
            .check()
            .map_err(|field| EntryError::Field(id, field))?;
        let count = 1 + usize::from(statement.second_key().is_some());
        if signatures.len() != count * SIGNATURE_LENGTH {
            return Err(EntryError::Field(id, "signatures"));
        }
        Ok((
            Self {
                id,
                bytes,
                statement,
            },
            signatures,
        ))
    }

    /// BLAKE3 of the bytes.
    pub const fn id(&self) -> RosterEntryId {
        self.id
    }

    /// Statement, then signatures.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it says.
    pub const fn statement(&self) -> &RosterStatement {
        &self.statement
    }

    /// The folder that it belongs to; that of a founding entry is its own hash.
    pub fn folder(&self) -> FolderId {
        self.statement
            .folder
            .unwrap_or(FolderId::from_bytes(*self.id.as_bytes()))
    }

    /// The epoch that it begins, if it begins one.
    pub fn epoch(&self) -> Option<EpochId> {
        self.statement
            .action
            .commitment()
            .map(|_| EpochId::from_bytes(*self.id.as_bytes()))
    }
}

impl RosterAction {
    /// The commitment of the epoch that the action begins.
    pub(crate) const fn commitment(&self) -> Option<&[u8; 32]> {
        match self {
            Self::Found { commitment, .. } | Self::RotateEpoch { commitment, .. } => {
                Some(commitment)
            }
            _ => None,
        }
    }
}

impl RosterStatement {
    /// The key of the second signature.
    fn second_key(&self) -> Option<[u8; 32]> {
        match &self.action {
            RosterAction::Found { root, .. } => Some(*root),
            RosterAction::Join { invitation, .. } => Some(*invitation.as_bytes()),
            RosterAction::Succeed { member, .. } => Some(*member.as_bytes()),
            _ => None,
        }
    }

    /// The rules that need no other entry; gives the name of the field that breaks one.
    fn check(&self) -> Result<(), &'static str> {
        let require = |holds: bool, field| if holds { Ok(()) } else { Err(field) };
        let founding = matches!(self.action, RosterAction::Found { .. });
        require(self.version == VERSION, "version")?;
        require(self.folder.is_none() == founding, "folder")?;
        require(self.parents.is_empty() == founding, "parents")?;
        require(
            self.parents.len() <= MAX_PARENTS && ascending(&self.parents),
            "parents",
        )?;
        require((self.depth == 0) == founding, "depth")?;
        match &self.action {
            RosterAction::Found { owner, sealed, .. } => {
                require(owner.member == self.author, "author")?;
                require(owner.profile.len() == SEALED_PROFILE, "profile")?;
                require(sealed.len() == SEALED_SECRET, "sealed secret")
            }
            RosterAction::Invite {
                uses,
                sealed,
                name_key,
                ..
            } => {
                require((1..=MAX_USES).contains(uses), "uses")?;
                require(sealed.len() == SEALED_SECRET, "sealed secret")?;
                require(name_key.len() == SEALED_KEY, "name key")
            }
            RosterAction::Join { certificate, .. } => {
                require(certificate.member == self.author, "author")?;
                require(certificate.profile.len() == SEALED_PROFILE, "profile")
            }
            RosterAction::SetRole { role, last, .. } => {
                require(last.is_empty() || !role.writes(), "last commits")?;
                require(last.len() <= MAX_LAST && ascending(last), "last commits")
            }
            RosterAction::Remove { last, .. } => {
                require(last.len() <= MAX_LAST && ascending(last), "last commits")
            }
            RosterAction::RotateEpoch {
                sealed,
                blind,
                previous,
                ..
            } => {
                let recipients_ascend = sealed
                    .windows(2)
                    .all(|pair| pair[0].recipient < pair[1].recipient);
                let epochs_ascend = previous
                    .windows(2)
                    .all(|pair| pair[0].epoch < pair[1].epoch);
                require(
                    sealed.len() <= MAX_RECIPIENTS && recipients_ascend,
                    "recipients",
                )?;
                require(
                    sealed.iter().all(|one| one.sealed.len() == SEALED_SECRET),
                    "recipients",
                )?;
                require(
                    blind.len() <= MAX_RECIPIENTS && ascending(blind),
                    "blind secrets",
                )?;
                require(
                    blind.iter().all(|one| one.0.len() == SEALED_SECRET),
                    "blind secrets",
                )?;
                require(
                    previous.len() <= MAX_PREVIOUS && epochs_ascend,
                    "older epochs",
                )?;
                let keys = previous
                    .iter()
                    .flat_map(|one| [one.read.len(), one.store.len()]);
                require(
                    keys.into_iter().all(|length| length == SEALED_KEY),
                    "older epochs",
                )
            }
            RosterAction::Succeed { member, .. } => require(*member != self.author, "successor"),
            RosterAction::Policy { policy } => require(policy.len() <= MAX_POLICY, "policy"),
            RosterAction::RevokeInvitation { .. } => Ok(()),
        }
    }
}

fn id_of(bytes: &[u8]) -> RosterEntryId {
    RosterEntryId::from_bytes(*blake3::hash(bytes).as_bytes())
}
