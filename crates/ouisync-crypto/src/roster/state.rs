//! What a set of roster entries means: members, invitations, the current epoch.

use std::collections::{BTreeMap, BTreeSet};

use ouisync_model::id::{EpochId, InvitationId, MemberId, RosterEntryId};

use crate::{
    envelope::EnvelopePublicKey,
    roster::{policy::PolicyInForce, role::Role, statement::LastCommit},
};

/// A current member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its present key.
    pub member: MemberId,
    /// Its role.
    pub role: Role,
    /// Secrets are sealed to it.
    pub envelope: EnvelopePublicKey,
    /// The entry that made it a member.
    pub joined: RosterEntryId,
    /// The invitation that it joined by; `None` for the founder.
    pub invitation: Option<InvitationId>,
    /// The keys that it had before, oldest first.
    pub retired: Vec<MemberId>,
}

/// An invitation that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Its public name.
    pub invitation: InvitationId,
    /// The role of its joiners.
    pub role: Role,
    /// How many more may join.
    pub remaining: u32,
    /// Seconds since 1970 from which a device no longer accepts it.
    pub expires: Option<u64>,
    /// Secrets for its joiners are sealed to it.
    pub envelope: EnvelopePublicKey,
    /// Who issued it.
    pub issuer: MemberId,
}

impl Invitation {
    /// Whether a device whose clock shows `now` (seconds since 1970) no longer accepts it.
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }
}

/// An epoch of the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch {
    /// 0 for the founding one.
    pub generation: u64,
    /// Its id.
    pub epoch: EpochId,
}

/// What a set of entries means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RosterState {
    pub(crate) members: BTreeMap<MemberId, Member>,
    pub(crate) invitations: BTreeMap<InvitationId, Invitation>,
    pub(crate) epochs: BTreeSet<Epoch>,
    pub(crate) cut: BTreeMap<MemberId, Vec<LastCommit>>,
    pub(crate) removed: BTreeSet<MemberId>,
    /// The keys, retired ones included, of members that write.
    pub(crate) writing: BTreeSet<MemberId>,
    pub(crate) policy: Option<Vec<u8>>,
}

impl RosterState {
    /// The members by key.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// A member by its present key.
    pub fn member(&self, member: &MemberId) -> Option<&Member> {
        self.members.get(member)
    }

    /// The role of a member; `None` for everybody else.
    pub fn role(&self, member: &MemberId) -> Option<Role> {
        Some(self.members.get(member)?.role)
    }

    /// Whether the commits of this key count whenever they were made: it is, or was before it retired, that of a member who
    /// writes.
    pub fn may_write(&self, author: &MemberId) -> bool {
        self.writing.contains(author)
    }

    /// Whether this key was removed (not merely never a member, nor retired by its owner).
    pub fn is_removed(&self, member: &MemberId) -> bool {
        self.removed.contains(member)
    }

    /// The invitations that may be used, expired ones included: time is the caller's to judge.
    pub fn open_invitations(&self) -> impl Iterator<Item = &Invitation> {
        self.invitations.values()
    }

    /// An open invitation.
    pub fn open_invitation(&self, invitation: &InvitationId) -> Option<&Invitation> {
        self.invitations.get(invitation)
    }

    /// The epoch to seal in: the valid one of the greatest (generation, id). `None` only before the founding entry is known.
    pub fn current_epoch(&self) -> Option<Epoch> {
        self.epochs.last().copied()
    }

    /// All valid epochs in order.
    pub fn epochs(&self) -> impl Iterator<Item = &Epoch> {
        self.epochs.iter()
    }

    /// The policy that holds, as the roster has it.
    pub fn policy(&self) -> Option<&[u8]> {
        self.policy.as_deref()
    }

    /// The policy that holds.
    pub fn folder_policy(&self) -> PolicyInForce {
        PolicyInForce::read(self.policy())
    }

    /// For a member that was removed, or may no longer write: what those who decided it had of its commits.
    pub fn last_commits(&self, author: &MemberId) -> Option<&[LastCommit]> {
        self.cut.get(author).map(Vec::as_slice)
    }
}
