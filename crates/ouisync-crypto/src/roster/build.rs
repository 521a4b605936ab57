//! Making entries. Nothing here changes the roster: the caller stores the entries, then adds them.

use ed25519_dalek::SigningKey;
use ouisync_model::id::{EpochId, InvitationId, MemberId, RosterEntryId};
use rand_core::CryptoRng;
use thiserror::Error;

use crate::{
    identity::MemberIdentity,
    invitation::InvitationSecret,
    keys::FolderKeys,
    roster::{
        Roster,
        role::Role,
        secrets::{
            founder_name_key, seal_blind, seal_name_key, seal_previous, seal_profile, seal_secret,
        },
        state::Member,
        statement::{
            LastCommit, MAX_LAST, MAX_PARENTS, MAX_POLICY, MAX_PREVIOUS, MAX_RECIPIENTS, MAX_USES,
            MemberCertificate, Recipient, RosterAction, RosterEntry, RosterStatement, SealedSecret,
            VERSION,
        },
    },
    secret::{EpochSecret, ReadSecret, random},
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
        identity: &MemberIdentity,
        name: &str,
        rng: &mut impl CryptoRng,
    ) -> Result<Founded, BuildError> {
        let root = SigningKey::from_bytes(&random(rng));
        let secret = ReadSecret::generate(rng);
        let member = identity.member();
        let name_key = founder_name_key(&secret.roster_text_key());
        let owner = MemberCertificate {
            member,
            envelope: identity.envelope_key(),
            profile: seal_profile(&name_key, identity, name).ok_or(BuildError::Name)?,
        };
        let scope = root.verifying_key().to_bytes();
        let epoch_secret = EpochSecret::Read(secret.clone());
        let sealed = seal_secret(
            &scope,
            &Recipient::Member(member),
            &owner.envelope,
            &epoch_secret,
            rng,
        );
        let statement = RosterStatement {
            version: VERSION,
            folder: None,
            parents: Vec::new(),
            depth: 0,
            author: member,
            action: RosterAction::Found {
                root: scope,
                owner,
                nonce: random(rng),
                commitment: secret.store_secret().commitment(),
                sealed,
            },
        };
        let entry = RosterEntry::signed(statement, identity.signing(), Some(&root));
        let mut roster = Self::new(entry.folder());
        roster
            .add(entry.clone())
            .expect("a founding entry is always allowed");
        let mut keys = FolderKeys::new();
        keys.insert(EpochId::from_bytes(*entry.id().as_bytes()), 0, epoch_secret);
        Ok(Founded {
            roster,
            entry,
            keys,
        })
    }

    /// Opens an invitation for who has `secret`.
    pub fn invite(
        &self,
        identity: &MemberIdentity,
        keys: &FolderKeys,
        secret: &InvitationSecret,
        invitation: NewInvitation,
        rng: &mut impl CryptoRng,
    ) -> Result<RosterEntry, BuildError> {
        self.require_owner(identity)?;
        let NewInvitation {
            role,
            uses,
            expires,
        } = invitation;
        if !(1..=MAX_USES).contains(&uses) {
            return Err(BuildError::Bounds("the number of uses"));
        }
        let epoch = self.state().current_epoch().ok_or(BuildError::Empty)?.epoch;
        let read = keys.read_secret(&epoch).ok_or(BuildError::MissingKeys)?;
        let recipient = Recipient::Invitation(secret.invitation());
        let envelope = secret.envelope_key();
        let given = secret_for(role, read);
        let action = RosterAction::Invite {
            invitation: secret.invitation(),
            role,
            uses,
            expires,
            epoch,
            sealed: seal_secret(self.folder().as_bytes(), &recipient, &envelope, &given, rng),
            name_key: seal_name_key(&read.roster_text_key(), secret),
            envelope,
        };
        Ok(self.entry_by(identity, action, None))
    }

    /// Enters by an open invitation. `name` is shown to readers. `identity` must be fresh: its key seals the name once.
    pub fn join(
        &self,
        identity: &MemberIdentity,
        secret: &InvitationSecret,
        name: &str,
    ) -> Result<RosterEntry, BuildError> {
        let invitation = secret.invitation();
        self.state()
            .open_invitation(&invitation)
            .ok_or(BuildError::InvitationClosed)?;
        let member = identity.member();
        if self.evaluation.seat_of.contains_key(&member) {
            return Err(BuildError::AlreadyMember);
        }
        let certificate = MemberCertificate {
            member,
            envelope: identity.envelope_key(),
            profile: seal_profile(&secret.name_key(), identity, name).ok_or(BuildError::Name)?,
        };
        let action = RosterAction::Join {
            invitation,
            certificate,
        };
        Ok(self.entry_by(identity, action, Some(&secret.signing())))
    }

    /// Changes a role; with a rotation when the member begins or ceases to be a safe, or loses an open invitation that
    /// it could use. `last` names the newest commits of the member that this device has (kept when it may no longer write).
    pub fn set_role(
        &self,
        identity: &MemberIdentity,
        keys: &FolderKeys,
        member: &MemberId,
        role: Role,
        last: Vec<LastCommit>,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<RosterEntry>, BuildError> {
        self.require_owner(identity)?;
        let subject = self
            .state()
            .member(member)
            .ok_or(BuildError::UnknownMember(*member))?;
        if subject.role.manages() && !role.manages() {
            self.require_another_owner()?;
        }
        let last = if role.writes() {
            Vec::new()
        } else {
            own_last(subject, last)?
        };
        let action = RosterAction::SetRole {
            member: *member,
            role,
            last,
        };
        self.then_rotate(self.entry_by(identity, action, None), identity, keys, rng)
    }

    /// Removes a member and begins a new epoch: two entries, in order. `last` names the newest commits of the member
    /// (and of its retired keys) that this device has. Removing oneself is [`Self::leave`].
    pub fn remove(
        &self,
        identity: &MemberIdentity,
        keys: &FolderKeys,
        member: &MemberId,
        last: Vec<LastCommit>,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<RosterEntry>, BuildError> {
        if *member == identity.member() {
            return Ok(vec![self.leave(identity, last)?]);
        }
        self.require_owner(identity)?;
        let subject = self
            .state()
            .member(member)
            .ok_or(BuildError::UnknownMember(*member))?;
        let last = own_last(subject, last)?;
        let action = RosterAction::Remove {
            member: *member,
            last,
        };
        self.then_rotate(self.entry_by(identity, action, None), identity, keys, rng)
    }

    /// Ends the own membership; an owner's device rotates when it learns of it.
    pub fn leave(
        &self,
        identity: &MemberIdentity,
        last: Vec<LastCommit>,
    ) -> Result<RosterEntry, BuildError> {
        let member = identity.member();
        let subject = self.state().member(&member).ok_or(BuildError::NotAMember)?;
        if subject.role.manages() {
            self.require_another_owner()?;
        }
        let last = own_last(subject, last)?;
        Ok(self.entry_by(identity, RosterAction::Remove { member, last }, None))
    }

    /// Closes an invitation and begins a new epoch, since who has the link may have fetched the secret.
    pub fn revoke(
        &self,
        identity: &MemberIdentity,
        keys: &FolderKeys,
        invitation: &InvitationId,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<RosterEntry>, BuildError> {
        self.require_owner(identity)?;
        self.state()
            .open_invitation(invitation)
            .ok_or(BuildError::InvitationClosed)?;
        let action = RosterAction::RevokeInvitation {
            invitation: *invitation,
        };
        self.then_rotate(self.entry_by(identity, action, None), identity, keys, rng)
    }

    /// Begins a new epoch, sealed to all members and open invitations, its blind secret also to members' blind keys. The older
    /// reading secrets in `keys` are handed on. The current epoch's need not be among them: a hostile owner may have kept it to
    /// itself.
    pub fn rotate(
        &self,
        identity: &MemberIdentity,
        keys: &FolderKeys,
        rng: &mut impl CryptoRng,
    ) -> Result<RosterEntry, BuildError> {
        self.require_owner(identity)?;
        keys.latest_readable().ok_or(BuildError::MissingKeys)?;
        let secret = ReadSecret::generate(rng);
        let members = self.state().members().map(|member| {
            (
                Recipient::Member(member.member),
                member.role,
                member.envelope.clone(),
            )
        });
        let invitations = self.state().open_invitations().map(|invitation| {
            let recipient = Recipient::Invitation(invitation.invitation);
            (recipient, invitation.role, invitation.envelope.clone())
        });
        let mut sealed: Vec<_> = members
            .chain(invitations)
            .map(|(recipient, role, envelope)| SealedSecret {
                recipient,
                sealed: seal_secret(
                    self.folder().as_bytes(),
                    &recipient,
                    &envelope,
                    &secret_for(role, &secret),
                    rng,
                ),
            })
            .collect();
        sealed.sort_by_key(|one| one.recipient);
        if sealed.len() > MAX_RECIPIENTS {
            return Err(BuildError::Bounds("the number of members and invitations"));
        }
        // A profile that can't be read belongs to a member that made it so.
        let members = self.state().members();
        let blind_keys = members.filter_map(|member| self.blind_key(&member.member, keys));
        let store = secret.store_secret();
        let mut blind: Vec<_> = blind_keys
            .map(|key| seal_blind(&self.folder(), &key, &store, rng))
            .collect();
        blind.sort_unstable();
        let known = keys.epochs().filter_map(|(epoch, known)| {
            let entry = RosterEntryId::from_bytes(*epoch.as_bytes());
            Some((
                epoch,
                known
                    .secret
                    .read_secret()
                    .filter(|_| self.contains(&entry))?,
            ))
        });
        let previous: Vec<_> = known
            .map(|(epoch, older)| seal_previous(&secret, *epoch, older))
            .collect();
        if previous.len() > MAX_PREVIOUS {
            return Err(BuildError::Bounds("the number of epochs"));
        }
        let action = RosterAction::RotateEpoch {
            commitment: store.commitment(),
            sealed,
            blind,
            previous,
        };
        Ok(self.entry_by(identity, action, None))
    }

    /// Retires `old` in favour of `new`, its successor.
    pub fn succeed(
        &self,
        old: &MemberIdentity,
        new: &MemberIdentity,
    ) -> Result<RosterEntry, BuildError> {
        self.state()
            .member(&old.member())
            .ok_or(BuildError::NotAMember)?;
        if self.evaluation.seat_of.contains_key(&new.member()) {
            return Err(BuildError::AlreadyMember);
        }
        let action = RosterAction::Succeed {
            member: new.member(),
            envelope: new.envelope_key(),
        };
        Ok(self.entry_by(old, action, Some(new.signing())))
    }

    /// Sets the policy, at most 16 KiB.
    pub fn set_policy(
        &self,
        identity: &MemberIdentity,
        policy: Vec<u8>,
    ) -> Result<RosterEntry, BuildError> {
        self.require_owner(identity)?;
        if policy.len() > MAX_POLICY {
            return Err(BuildError::Bounds("the policy"));
        }
        Ok(self.entry_by(identity, RosterAction::Policy { policy }, None))
    }

    /// `first`, and a rotation if it makes one necessary and the author may still do it.
    fn then_rotate(
        &self,
        first: RosterEntry,
        identity: &MemberIdentity,
        keys: &FolderKeys,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<RosterEntry>, BuildError> {
        let mut after = self.clone();
        after
            .add(first.clone())
            .map_err(|_| BuildError::Bounds("the roster"))?;
        let owner = after.require_owner(identity).is_ok();
        if !owner || !after.rotation_owed() {
            return Ok(vec![first]);
        }
        let rotation = after.rotate(identity, keys, rng)?;
        Ok(vec![first, rotation])
    }

    fn require_owner(&self, identity: &MemberIdentity) -> Result<(), BuildError> {
        self.state().current_epoch().ok_or(BuildError::Empty)?;
        match self.state().role(&identity.member()) {
            Some(role) if role.manages() => Ok(()),
            Some(_) => Err(BuildError::NotAnOwner),
            None => Err(BuildError::NotAMember),
        }
    }

    fn require_another_owner(&self) -> Result<(), BuildError> {
        let owners = self
            .state()
            .members()
            .filter(|member| member.role.manages())
            .count();
        if owners > 1 {
            Ok(())
        } else {
            Err(BuildError::LastOwner)
        }
    }

    /// Signs an action on top of all known heads.
    fn entry_by(
        &self,
        identity: &MemberIdentity,
        action: RosterAction,
        second: Option<&SigningKey>,
    ) -> RosterEntry {
        let mut parents = self.heads();
        parents.truncate(MAX_PARENTS);
        let depths = parents
            .iter()
            .filter_map(|id| Some(self.entry(id)?.statement().depth));
        let statement = RosterStatement {
            version: VERSION,
            folder: Some(self.folder()),
            depth: depths.max().unwrap_or(0).saturating_add(1),
            parents,
            author: identity.member(),
            action,
        };
        RosterEntry::signed(statement, identity.signing(), second)
    }
}

/// The secret that a role is entitled to.
fn secret_for(role: Role, secret: &ReadSecret) -> EpochSecret {
    if role.reads() {
        EpochSecret::Read(secret.clone())
    } else {
        EpochSecret::Store(secret.store_secret())
    }
}

/// The commits of the member's keys, in the order that the format wants.
fn own_last(subject: &Member, mut last: Vec<LastCommit>) -> Result<Vec<LastCommit>, BuildError> {
    last.retain(|commit| {
        commit.author == subject.member || subject.retired.contains(&commit.author)
    });
    last.sort_unstable();
    last.dedup();
    if last.len() > MAX_LAST {
        Err(BuildError::Bounds("the list of last commits"))
    } else {
        Ok(last)
    }
}
