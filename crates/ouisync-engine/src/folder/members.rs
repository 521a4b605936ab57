//! Members of a folder: own changes of the roster, and what a grown roster means here.

use std::collections::{BTreeMap, BTreeSet};

use ouisync_crypto::{
    envelope::EnvelopeSecret,
    identity::MemberIdentity,
    invitation::{Contact, InvitationLink, InvitationSecret},
    roster::{
        build::NewInvitation as InvitationDraft,
        secrets::Holder,
        state::Member,
        statement::{LastCommit, RosterAction, RosterEntry},
    },
    secret::EpochSecret,
};
use ouisync_model::id::{InvitationId, MemberId};
use ouisync_sync::{
    codec::ClosedReason,
    handshake::{Credential, CredentialKind},
};
use tracing::{info, warn};

use super::Folder;
use crate::{
    engine::InvitationOptions,
    error::EngineError,
    keys::OpenRecord,
    status::{EngineEvent, MemberInfo, NewInvitation, Role},
};

const SPENT: &str = "it was used up or revoked; ask for a new one";

impl Folder {
    /// Adds own entries to the roster, durably, and tells peers.
    pub(super) fn publish_entries(&mut self, entries: Vec<RosterEntry>) -> Result<(), EngineError> {
        let bytes: Vec<_> = entries
            .iter()
            .map(|entry| entry.as_bytes().to_vec())
            .collect();
        self.store.put_roster_entries(&bytes)?;
        for entry in entries {
            let added = self.sync.facts_mut().roster.add(entry);
            added.map_err(|error| EngineError::internal(error.to_string()))?;
        }
        self.roster_grew(true)?;
        self.sync.roster_changed();
        Ok(())
    }

    /// Draws the consequences of new roster entries: secrets, joining, standing of commits, credentials.
    pub(super) fn roster_grew(&mut self, judge_again: bool) -> Result<(), EngineError> {
        self.unseal()?;
        if self.joining.is_some() {
            self.try_to_join()?;
        }
        self.publish_credentials();
        self.heed_history()?;
        if judge_again {
            self.judge_commits_again()?;
            self.retry_waiting_commits();
            self.rotate_if_owed();
        }
        self.shared.set_names(self.names());
        self.judge_claims();
        Ok(())
    }

    /// What proves to peers that this device has the folder.
    pub(super) fn publish_credentials(&mut self) {
        let current = self
            .roster()
            .state()
            .current_epoch()
            .map(|epoch| epoch.epoch);
        if std::mem::replace(&mut self.epoch, current) != current {
            self.sync.epoch_changed();
        }
        let mut credentials: Vec<_> = self
            .keys
            .epochs()
            .map(|(epoch, keys)| Credential {
                folder: self.id,
                kind: CredentialKind::Epoch {
                    generation: keys.generation,
                    epoch: *epoch,
                    current: Some(*epoch) == current,
                },
                key: keys.secret.store_secret().peer_auth_key(),
            })
            .collect();
        let mut invitations = self.invitations();
        if let Some(secret) = &self.joining
            && credentials.is_empty()
        {
            let invitation = secret.invitation();
            invitations.insert(invitation, CredentialKind::Invitation(invitation));
        }
        // Who was removed, or came too late to be let in, proves nothing; nor is a paused folder to be found.
        if self.paused || self.is_removed() || self.is_outside() {
            credentials.clear();
            invitations.clear();
        }
        credentials.extend(
            invitations
                .into_iter()
                .map(|(invitation, kind)| Credential {
                    folder: self.id,
                    kind,
                    key: ouisync_crypto::keys::PeerAuthKey::of_invitation(&invitation),
                }),
        );
        self.sender.set_credentials(credentials);
        self.network.credentials_changed();
    }

    /// All invitations and whether they are accepted. Notes when that changes by itself.
    fn invitations(&mut self) -> BTreeMap<InvitationId, CredentialKind> {
        let now = self.seconds();
        let roster = &self.sync.facts().roster;
        let mut invitations = BTreeMap::new();
        for entry in roster.entries() {
            if let RosterAction::Invite { invitation, .. } = &entry.statement().action {
                invitations.insert(
                    *invitation,
                    CredentialKind::Closed(*invitation, ClosedReason::Spent),
                );
            }
        }
        let mut next = None;
        for open in roster.state().open_invitations() {
            let invitation = open.invitation;
            let kind = if open.is_expired(now) {
                CredentialKind::Closed(invitation, ClosedReason::Expired)
            } else {
                next = [next, open.expires].into_iter().flatten().min();
                CredentialKind::Invitation(invitation)
            };
            invitations.insert(invitation, kind);
        }
        self.next_expiry = next;
        invitations
    }

    /// Learns epoch secrets from the roster, and keeps them.
    fn unseal(&mut self) -> Result<(), EngineError> {
        let mut keys = self.keys.clone();
        let blind = self
            .key_store
            .blind(&self.id)
            .map(|record| EnvelopeSecret::from_bytes(record.blind_key));
        let mut holders = Vec::new();
        match (&self.identity, &blind) {
            (Some(identity), _) => holders.push(Holder::Member(identity)),
            (None, Some(blind)) => holders.push(Holder::Blind(blind)),
            (None, None) => {}
        }
        if let Some(secret) = &self.joining {
            holders.push(Holder::Invitation(secret));
        }
        let news = self.sync.facts().roster.unseal_epochs(&holders, &mut keys);
        if news {
            // While this device is locked nothing that reads is in memory, and none could be kept: the invitation gives it again.
            self.keys = match self.identity {
                Some(_) => keys,
                None => keys.blind(),
            };
            self.save_keys()?;
        }
        // Also when only the current epoch changed.
        self.open_readable()
    }

    /// Writes the known secrets to the key store.
    pub(super) fn save_keys(&mut self) -> Result<(), EngineError> {
        let blind: Vec<_> = self
            .keys
            .epochs()
            .map(|(epoch, keys)| {
                (
                    *epoch,
                    keys.generation,
                    *keys.secret.store_secret().expose(),
                )
            })
            .collect();
        let record = self.key_store.blind(&self.id);
        if let Some(mut record) = record {
            record.epochs = blind;
            self.key_store.put_blind(self.id, record)?;
        }
        if let Some(open) = self.key_store.open_record(&self.id) {
            let epochs = self.keys.epochs();
            let epochs = epochs.filter_map(|(epoch, keys)| match &keys.secret {
                EpochSecret::Read(secret) => Some((*epoch, keys.generation, *secret.expose())),
                EpochSecret::Store(_) => None,
            });
            let mut record: OpenRecord = open.clone();
            record.epochs = epochs.collect();
            self.key_store.put_open(record)?;
        }
        Ok(())
    }

    /// Enters the folder once its roster is here.
    fn try_to_join(&mut self) -> Result<(), EngineError> {
        let (Some(secret), Some(identity)) = (&self.joining, &self.identity) else {
            return Ok(());
        };
        let invitation = secret.invitation();
        let state = self.roster().state();
        if state.role(&identity.member()).is_some() {
            return self.joined();
        }
        if state.members().next().is_none() {
            // The roster hasn't come yet.
            return Ok(());
        }
        let Some(open) = state.open_invitation(&invitation) else {
            let known = self.roster().entries().any(|entry| {
                matches!(&entry.statement().action,
                    RosterAction::Invite { invitation: id, .. } if *id == invitation)
            });
            // Otherwise the peer that answered doesn't have it yet.
            if known {
                self.join_refused(ClosedReason::Spent);
            }
            return Ok(());
        };
        if open
            .expires
            .is_some_and(|expires| self.seconds() >= expires)
        {
            self.join_refused(ClosedReason::Expired);
            return Ok(());
        }
        let name = self.key_store.device().name.clone();
        let entry = self
            .roster()
            .join(identity, secret, &name)
            .map_err(|error| EngineError::Invitation(error.to_string()))?;
        info!(folder = %self.id, "joining");
        let bytes = vec![entry.as_bytes().to_vec()];
        self.store.put_roster_entries(&bytes)?;
        let added = self.sync.facts_mut().roster.add(entry);
        added.map_err(|error| EngineError::internal(error.to_string()))?;
        self.sync.roster_changed();
        self.unseal()?;
        self.joined()
    }

    /// A member doesn't accept the invitation any more.
    pub(crate) fn join_refused(&mut self, reason: ClosedReason) {
        if self.joining.is_none() || self.role().is_some() {
            return;
        }
        self.shared.refuse_join(match reason {
            ClosedReason::Spent => SPENT,
            ClosedReason::Expired => "it has expired; ask for a new one",
        });
    }

    /// This device is a member: the invitation is no longer needed once an epoch's secret is known.
    fn joined(&mut self) -> Result<(), EngineError> {
        if self.keys.epochs().next().is_none() {
            return Ok(());
        }
        self.joining = None;
        if let Some(record) = self.key_store.blind(&self.id) {
            let mut record = record.clone();
            record.joining = None;
            self.key_store.put_blind(self.id, record)?;
        }
        Ok(())
    }

    /// A join is told as done once a peer has it, too: only then can nobody else be let in in its place by that peer.
    pub(super) fn note_joined(&mut self) {
        let waits = self.joining.is_none() && self.shared.is_joining();
        if waits && self.peers.keys().any(|peer| self.sync.same_roster(*peer)) {
            if self.role().is_some() {
                self.shared.joined();
                self.shared.event(EngineEvent::FoldersChanged);
            } else {
                self.shared.refuse_join(SPENT);
            }
        }
    }

    /// An owner's device begins a new epoch when somebody has left or epochs were begun concurrently.
    pub(super) fn rotate_if_owed(&mut self) {
        if self.role() != Some(Role::Owner) || !self.roster().rotation_owed() {
            return;
        }
        let Some(identity) = self.identity.clone() else {
            return;
        };
        match self
            .roster()
            .rotate(&identity, &self.keys, &mut self.surroundings.rng())
        {
            Ok(entry) => {
                if let Err(error) = self.publish_entries(vec![entry]) {
                    warn!(folder = %self.id, %error, "can't begin a new epoch");
                }
            }
            Err(error) => warn!(folder = %self.id, %error, "can't begin a new epoch"),
        }
    }

    /// This device's identity as an owner.
    pub(super) fn owner(&self, action: &'static str) -> Result<MemberIdentity, EngineError> {
        if self.is_removed() {
            return Err(EngineError::Removed);
        }
        let identity = self.identity.clone().ok_or(EngineError::Locked)?;
        match self.role() {
            Some(Role::Owner) => Ok(identity),
            Some(role) => Err(EngineError::Forbidden {
                role: role.as_str(),
                action,
            }),
            None => Err(EngineError::Invitation(
                "this device has not been let in yet".to_owned(),
            )),
        }
    }

    /// Makes an invitation and its link.
    pub(crate) fn invite(
        &mut self,
        options: InvitationOptions,
    ) -> Result<NewInvitation, EngineError> {
        let identity = self.owner("invite")?;
        let mut rng = self.surroundings.rng();
        let secret = InvitationSecret::generate(&mut rng);
        let role = ouisync_crypto::roster::role::Role::from(options.role);
        let expires = options
            .expires
            .map(|expires| self.seconds().saturating_add(expires.as_secs()));
        let draft = InvitationDraft {
            role,
            uses: options.uses,
            expires,
        };
        let entry = self
            .roster()
            .invite(&identity, &self.keys, &secret, draft, &mut rng)
            .map_err(|error| EngineError::Invitation(error.to_string()))?;
        self.publish_entries(vec![entry])?;
        let own = Contact {
            device: self.key_store.device().key().device(),
            addresses: self.network.addresses(),
        };
        let known = self.network.contacts(&self.id).into_iter();
        let known = known
            .filter(|(_, sockets)| !sockets.is_empty())
            .map(|(device, addresses)| Contact { device, addresses });
        // A safe isn't told what the folder is called.
        let name = match options.role {
            Role::Safe => String::new(),
            _ => self.shared.name(),
        };
        let contacts = std::iter::once(own).chain(known).collect();
        let invitation = secret.invitation();
        let link = InvitationLink {
            folder: self.id,
            role,
            secret,
            name,
            contacts,
        }
        .encode();
        Ok(NewInvitation { invitation, link })
    }

    /// Takes an invitation back.
    pub(crate) fn revoke(&mut self, invitation: InvitationId) -> Result<(), EngineError> {
        let identity = self.owner("revoke an invitation")?;
        let entries = self
            .roster()
            .revoke(
                &identity,
                &self.keys,
                &invitation,
                &mut self.surroundings.rng(),
            )
            .map_err(|error| EngineError::Invitation(error.to_string()))?;
        self.publish_entries(entries)
    }

    /// Finds a member by id, beginning of its id, or name.
    fn find_member(&self, text: &str) -> Result<MemberId, EngineError> {
        let names = self.names();
        let found: BTreeSet<_> = self
            .roster()
            .state()
            .members()
            .map(|member| member.member)
            .filter(|member| {
                names.get(member).is_some_and(|name| name == text)
                    || (text.len() >= 4 && member.to_string().starts_with(&text.to_lowercase()))
            })
            .collect();
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some(member), None) => Ok(member),
            (Some(_), Some(_)) => Err(EngineError::AmbiguousMember(text.to_owned())),
            (None, _) => Err(EngineError::UnknownMember(text.to_owned())),
        }
    }

    /// What this device has of a member's commits, its retired keys' included.
    fn last_commits(&self, member: &MemberId) -> Vec<LastCommit> {
        let retired = self
            .roster()
            .state()
            .member(member)
            .map(|member| member.retired.clone());
        let keys = retired.unwrap_or_default().into_iter().chain([*member]);
        let chains = keys.flat_map(|author| self.store.chain(author));
        let mut last: Vec<_> = chains
            .map(|chain| LastCommit {
                author: chain.author,
                sequence: chain.sequence,
                commit: chain.head,
            })
            .collect();
        last.sort_unstable();
        last
    }

    /// Removes a member and begins a new epoch.
    pub(crate) fn remove_member(&mut self, text: &str) -> Result<(), EngineError> {
        let member = self.find_member(text)?;
        let identity = self.owner("remove members")?;
        self.keep_an_owner(&member, None)?;
        let last = self.last_commits(&member);
        let entries = self
            .roster()
            .remove(
                &identity,
                &self.keys,
                &member,
                last,
                &mut self.surroundings.rng(),
            )
            .map_err(|error| EngineError::internal(error.to_string()))?;
        self.publish_entries(entries)
    }

    /// Changes a member's role.
    pub(crate) fn set_role(&mut self, text: &str, role: Role) -> Result<(), EngineError> {
        let member = self.find_member(text)?;
        let identity = self.owner("change roles")?;
        self.keep_an_owner(&member, Some(role))?;
        let last = self.last_commits(&member);
        let entries = self
            .roster()
            .set_role(
                &identity,
                &self.keys,
                &member,
                role.into(),
                last,
                &mut self.surroundings.rng(),
            )
            .map_err(|error| EngineError::internal(error.to_string()))?;
        self.publish_entries(entries)
    }

    fn keep_an_owner(&self, member: &MemberId, role: Option<Role>) -> Result<(), EngineError> {
        let state = self.roster().state();
        let owner = |role: ouisync_crypto::roster::role::Role| role.manages();
        let others = state.members().filter(|other| other.member != *member);
        let others = others.filter(|other| owner(other.role)).count();
        let was_owner = state.role(member).is_some_and(owner);
        if was_owner && role != Some(Role::Owner) && others == 0 {
            return Err(EngineError::LastOwner(*member));
        }
        Ok(())
    }

    /// The members, this device first, then by name.
    pub(crate) fn members(&self) -> Vec<MemberInfo> {
        let names = self.names();
        let own = self.own_member();
        let connected: BTreeSet<_> = self.peers.values().filter_map(|peer| peer.member).collect();
        let members = self.roster().state().members();
        let mut members: Vec<_> = members
            .map(|member| MemberInfo {
                member: member.member,
                name: names.get(&member.member).cloned(),
                role: member.role.into(),
                this_device: own.map(|own| member.member == own),
                connected: connected.contains(&member.member),
                newer: self.newer(member, &names),
            })
            .collect();
        members.sort_by(|left, right| {
            let key = |member: &MemberInfo| (member.this_device != Some(true), member.name.clone());
            (key(left), left.member).cmp(&(key(right), right.member))
        });
        members
    }

    /// A member of the same name that joined when this one was a member already.
    fn newer(&self, member: &Member, names: &BTreeMap<MemberId, String>) -> Option<MemberId> {
        let name = names.get(&member.member)?;
        let namesakes = self.roster().state().members().filter(|other| {
            other.member != member.member && names.get(&other.member) == Some(name)
        });
        let is_newer = |other: &&Member| {
            self.roster()
                .state_at(&[other.joined])
                .is_ok_and(|then| then.members().any(|known| known.joined == member.joined))
        };
        namesakes.filter(is_newer).map(|other| other.member).next()
    }
}
