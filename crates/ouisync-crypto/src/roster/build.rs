//! Making entries. Nothing here changes the roster: the caller stores the entries, then adds them.

use ouisync_model::id::{InvitationId, MemberId};
use rand_core::CryptoRng;
use thiserror::Error;

use crate::{
    identity::MemberIdentity,
    invitation::InvitationSecret,
    keys::FolderKeys,
    roster::{
        Roster,
        role::Role,
        statement::{LastCommit, RosterEntry},
    },
};

/// Why an entry can't be made.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum BuildError {
    /// The founding entry isn't known yet.
    #[error("the folder's members aren't known yet")]
    Empty,
    /// The identity is not an owner now.
    #[error("only an owner may do this")]
    NotAnOwner,
    /// The identity is not a member now.
    #[error("this device is not a member")]
    NotAMember,
    /// The subject is not a member now.
    #[error("{0} is not a member")]
    UnknownMember(MemberId),
    /// The folder would have no owner left.
    #[error("a folder needs an owner: name another one first")]
    LastOwner,
    /// The invitation is unknown, closed or used up.
    #[error("the invitation is closed or used up")]
    InvitationClosed,
    /// The keys of the current epoch aren't known.
    #[error("the folder's current keys aren't known on this device; is it locked?")]
    MissingKeys,
    /// A name has 1 to 127 bytes.
    #[error("a member's name has 1 to 127 bytes")]
    Name,
    /// Uses are 1 to 1024; a list is too long.
    #[error("{0} is out of bounds")]
    Bounds(&'static str),
    /// The key is a member already.
    #[error("this key is a member already")]
    AlreadyMember,
}

/// A new folder.
#[derive(Debug)]
pub struct Founded {
    /// The roster with its first entry.
    pub roster: Roster,
    /// That entry.
    pub entry: RosterEntry,
    /// The founding epoch's secret.
    pub keys: FolderKeys,
}

/// What a new invitation is to allow.
#[derive(Clone, Copy, Debug)]
pub struct NewInvitation {
    /// The role of its joiners.
    pub role: Role,
    /// How many may join, 1 to 1024.
    pub uses: u32,
    /// Seconds since 1970 from which devices no longer accept it.
    pub expires: Option<u64>,
}

impl Roster {
    /// Makes a folder with `identity` as its first owner. The root key signs once and is forgotten.
    pub fn found(
        _identity: &MemberIdentity,
        _name: &str,
        _rng: &mut impl CryptoRng,
    ) -> Result<Founded, BuildError> {
        Err(BuildError::Empty)
    }

    /// Opens an invitation for who has `secret`.
    pub fn invite(
        &self,
        _identity: &MemberIdentity,
        _keys: &FolderKeys,
        _secret: &InvitationSecret,
        _invitation: NewInvitation,
        _rng: &mut impl CryptoRng,
    ) -> Result<RosterEntry, BuildError> {
        Err(BuildError::Empty)
    }

    /// Enters by an open invitation. `name` is shown to readers.
    pub fn join(
        &self,
        _identity: &MemberIdentity,
        _secret: &InvitationSecret,
        _name: &str,
    ) -> Result<RosterEntry, BuildError> {
        Err(BuildError::Empty)
    }

    /// Changes a role; with a rotation when the member begins or ceases to be a safe. `last` names the newest commits of
    /// the member that this device has (used when it may no longer write).
    pub fn set_role(
        &self,
        _identity: &MemberIdentity,
        _keys: &FolderKeys,
        _member: &MemberId,
        _role: Role,
        _last: Vec<LastCommit>,
        _rng: &mut impl CryptoRng,
    ) -> Result<Vec<RosterEntry>, BuildError> {
        Err(BuildError::Empty)
    }

    /// Removes a member and begins a new epoch: two entries, in order. `last` names the newest commits of the member
    /// (and of its retired keys) that this device has.
    pub fn remove(
        &self,
        _identity: &MemberIdentity,
        _keys: &FolderKeys,
        _member: &MemberId,
        _last: Vec<LastCommit>,
        _rng: &mut impl CryptoRng,
    ) -> Result<Vec<RosterEntry>, BuildError> {
        Err(BuildError::Empty)
    }

    /// Ends the own membership; an owner's device rotates when it learns of it.
    pub fn leave(
        &self,
        _identity: &MemberIdentity,
        _last: Vec<LastCommit>,
    ) -> Result<RosterEntry, BuildError> {
        Err(BuildError::Empty)
    }

    /// Closes an invitation and begins a new epoch, since who has the link may have fetched the secret.
    pub fn revoke(
        &self,
        _identity: &MemberIdentity,
        _keys: &FolderKeys,
        _invitation: &InvitationId,
        _rng: &mut impl CryptoRng,
    ) -> Result<Vec<RosterEntry>, BuildError> {
        Err(BuildError::Empty)
    }

    /// Begins a new epoch, sealed to all members and open invitations.
    pub fn rotate(
        &self,
        _identity: &MemberIdentity,
        _keys: &FolderKeys,
        _rng: &mut impl CryptoRng,
    ) -> Result<RosterEntry, BuildError> {
        Err(BuildError::Empty)
    }

    /// Retires `old` in favour of `new`, a fresh identity.
    pub fn succeed(
        &self,
        _old: &MemberIdentity,
        _new: &MemberIdentity,
    ) -> Result<RosterEntry, BuildError> {
        Err(BuildError::Empty)
    }

    /// Sets the policy, at most 16 KiB.
    pub fn set_policy(
        &self,
        _identity: &MemberIdentity,
        _policy: Vec<u8>,
    ) -> Result<RosterEntry, BuildError> {
        Err(BuildError::Empty)
    }
}
