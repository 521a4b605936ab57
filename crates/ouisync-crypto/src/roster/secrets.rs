//! What the roster gives to whom: epoch secrets and members' names.

use std::collections::BTreeSet;

use ouisync_model::id::{EpochId, FolderId, MemberId, RosterEntryId};
use rand_core::CryptoRng;

use crate::{
    envelope::{self, EnvelopePublicKey, EnvelopeSecret},
    identity::MemberIdentity,
    invitation::{InvitationSecret, NameKey},
    keys::{FolderKeys, RosterTextKey},
    roster::{
        Roster,
        rules::Node,
        state::Epoch,
        statement::{
            MAX_NAME, MemberCertificate, PreviousEpoch, Recipient, RosterAction, SealedBlindSecret,
        },
    },
    seal::{self, OpenError},
    secret::{EpochSecret, ReadSecret, StoreSecret, derive},
};

/// Whose sealed secrets are to be opened.
#[derive(Clone, Copy, Debug)]
pub enum Holder<'a> {
    /// A member.
    Member(&'a MemberIdentity),
    /// Somebody who has an invitation; a member keeps it until an epoch is sealed to its own key.
    Invitation(&'a InvitationSecret),
    /// A member of whose keys only the blind one is at hand: its device is locked. Gives blind secrets.
    Blind(&'a EnvelopeSecret),
}

impl Roster {
    /// Opens every epoch secret that the entries give to the holders, and older ones through them, until nothing new
    /// comes. Gives whether anything was news. Secrets that don't match the epoch's commitment are ignored.
    pub fn unseal_epochs(&self, holders: &[Holder<'_>], keys: &mut FolderKeys) -> bool {
        let mut named: Vec<(Recipient, EnvelopeSecret)> = Vec::new();
        let mut blind: Vec<&EnvelopeSecret> = Vec::new();
        for holder in holders {
            match holder {
                Holder::Member(identity) => named.push((
                    Recipient::Member(identity.member()),
                    identity.envelope().clone(),
                )),
                Holder::Invitation(secret) => named.push((
                    Recipient::Invitation(secret.invitation()),
                    secret.envelope(),
                )),
                Holder::Blind(secret) => blind.push(secret),
            }
        }
        let mut news = false;
        for node in &self.nodes {
            news |= self.unseal_direct(node, &named, keys);
        }
        news |= self.unseal_all_previous(keys);
        for secret in blind {
            // The newest first, as it gives the older ones.
            let epochs: Vec<_> = self.state().epochs().collect();
            for epoch in epochs.into_iter().rev() {
                if keys.epoch(&epoch.epoch).is_none() && self.unseal_blind(epoch, secret, keys) {
                    self.unseal_all_previous(keys);
                    news = true;
                }
            }
        }
        news
    }

    fn unseal_all_previous(&self, keys: &mut FolderKeys) -> bool {
        let mut news = false;
        while self
            .nodes
            .iter()
            .any(|node| self.unseal_previous(node, keys))
        {
            news = true;
        }
        news
    }

    /// Tries the blind key on what a rotation seals to blind keys: it doesn't say which is for whom.
    fn unseal_blind(&self, epoch: &Epoch, key: &EnvelopeSecret, keys: &mut FolderKeys) -> bool {
        let entry = RosterEntryId::from_bytes(*epoch.epoch.as_bytes());
        let Some(RosterAction::RotateEpoch {
            blind, commitment, ..
        }) = self.entry(&entry).map(|entry| &entry.statement().action)
        else {
            return false;
        };
        let info = blind_info(&self.folder());
        let opened = blind
            .iter()
            .filter_map(|sealed| key.open(&info, commitment, &sealed.0).ok())
            .filter_map(|bytes| epoch_secret(&bytes))
            .find(|secret| {
                matches!(secret, EpochSecret::Store(store) if store.commitment() == *commitment)
            });
        opened.is_some_and(|secret| keys.insert(epoch.epoch, epoch.generation, secret))
    }

    /// The epoch to seal new content in: the latest valid one whose reading secret is known. Older than the state's current epoch
    /// only until an owner has sealed that to this member.
    pub fn sealing_epoch<'a>(&self, keys: &'a FolderKeys) -> Option<(EpochId, &'a ReadSecret)> {
        let mut epochs: Vec<_> = self.state().epochs().collect();
        epochs.reverse();
        epochs
            .into_iter()
            .find_map(|known| Some((known.epoch, keys.read_secret(&known.epoch)?)))
    }

    /// All keys that entries made members, present, retired and removed ones.
    pub fn member_keys(&self) -> BTreeSet<MemberId> {
        let keys = self.nodes.iter();
        keys.filter_map(|node| match &node.entry.statement().action {
            RosterAction::Found { owner, .. } => Some(owner.member),
            RosterAction::Join { certificate, .. } => Some(certificate.member),
            RosterAction::Succeed { member, .. } => Some(*member),
            _ => None,
        })
        .collect()
    }

    /// The name of a present or former member; `None` if unknown or if the keys don't read it. Control characters are
    /// replaced.
    pub fn member_name(&self, member: &MemberId, keys: &FolderKeys) -> Option<String> {
        self.profile(member, keys)?.name()
    }

    /// The blind key of a present or former member, likewise.
    pub(crate) fn blind_key(
        &self,
        member: &MemberId,
        keys: &FolderKeys,
    ) -> Option<EnvelopePublicKey> {
        EnvelopePublicKey::from_bytes(self.profile(member, keys)?.blind())
    }

    fn profile(&self, member: &MemberId, keys: &FolderKeys) -> Option<Profile> {
        let mut key = *member;
        let mut seen = BTreeSet::new();
        while seen.insert(key) {
            for node in &self.nodes {
                match &node.entry.statement().action {
                    RosterAction::Found { owner, .. } if owner.member == key => {
                        let text = keys.read_secret(&node.entry.epoch()?)?.roster_text_key();
                        return Profile::open(&founder_name_key(&text), owner);
                    }
                    RosterAction::Join { certificate, .. } if certificate.member == key => {
                        let invite = &self.nodes[*node.grants.first()?];
                        return Profile::open(&name_key_of_invite(invite, keys)?, certificate);
                    }
                    RosterAction::Succeed { member, .. } if *member == key => {
                        key = node.entry.statement().author;
                        break;
                    }
                    _ => {}
                }
            }
        }
        None
    }

    /// Opens what an entry seals to the holders themselves.
    fn unseal_direct(
        &self,
        node: &Node,
        holders: &[(Recipient, EnvelopeSecret)],
        keys: &mut FolderKeys,
    ) -> bool {
        let (epoch, sealed): (EpochId, Vec<(Recipient, &[u8])>) =
            match &node.entry.statement().action {
                RosterAction::Found { owner, sealed, .. } => (
                    EpochId::from_bytes(*node.entry.id().as_bytes()),
                    vec![(Recipient::Member(owner.member), sealed)],
                ),
                RosterAction::RotateEpoch { sealed, .. } => (
                    EpochId::from_bytes(*node.entry.id().as_bytes()),
                    sealed
                        .iter()
                        .map(|one| (one.recipient, one.sealed.as_slice()))
                        .collect(),
                ),
                RosterAction::Invite {
                    invitation,
                    epoch,
                    sealed,
                    ..
                } => (*epoch, vec![(Recipient::Invitation(*invitation), sealed)]),
                _ => return false,
            };
        let Some((generation, commitment)) = self.epoch_facts(&epoch) else {
            return false;
        };
        let mut news = false;
        for (recipient, secret) in holders {
            for (to, sealed) in &sealed {
                if to != recipient || keys.read_secret(&epoch).is_some() {
                    continue;
                }
                let info = secret_info(&self.hpke_scope(node), recipient);
                let opened = secret.open(&info, &commitment, sealed).ok();
                if let Some(secret) = opened.and_then(|bytes| epoch_secret(&bytes))
                    && secret.store_secret().commitment() == commitment
                {
                    news |= keys.insert(epoch, generation, secret);
                }
            }
        }
        news
    }

    /// Opens the older epochs' secrets that a rotation carries, if its own is known.
    fn unseal_previous(&self, node: &Node, keys: &mut FolderKeys) -> bool {
        let RosterAction::RotateEpoch { previous, .. } = &node.entry.statement().action else {
            return false;
        };
        let epoch = EpochId::from_bytes(*node.entry.id().as_bytes());
        let Some(newer) = keys.epoch(&epoch).map(|known| known.secret.clone()) else {
            return false;
        };
        let mut news = false;
        for older in previous {
            let known = keys.epoch(&older.epoch).map(|known| &known.secret);
            let better = match known {
                None => true,
                Some(EpochSecret::Store(_)) => newer.read_secret().is_some(),
                Some(EpochSecret::Read(_)) => false,
            };
            if !better {
                continue;
            }
            if let Some((generation, commitment)) = self.epoch_facts(&older.epoch)
                && let Ok(secret) = open_previous(&newer, older)
                && secret.store_secret().commitment() == commitment
            {
                news |= keys.insert(older.epoch, generation, secret);
            }
        }
        news
    }

    /// Generation and commitment of a known epoch.
    fn epoch_facts(&self, epoch: &EpochId) -> Option<(u64, [u8; 32])> {
        let node = &self.nodes[*self
            .index
            .get(&RosterEntryId::from_bytes(*epoch.as_bytes()))?];
        Some((
            node.generation?,
            *node.entry.statement().action.commitment()?,
        ))
    }

    /// What ties a sealed secret to the folder: its id, in the founding entry (which can't know it) the root key.
    fn hpke_scope(&self, node: &Node) -> [u8; 32] {
        match &node.entry.statement().action {
            RosterAction::Found { root, .. } => *root,
            _ => *self.folder.as_bytes(),
        }
    }
}

/// Seals an epoch's secret to one recipient. `scope` is the folder's id, or its root key in the founding entry.
pub(crate) fn seal_secret(
    scope: &[u8; 32],
    recipient: &Recipient,
    envelope: &EnvelopePublicKey,
    secret: &EpochSecret,
    rng: &mut impl CryptoRng,
) -> Vec<u8> {
    let plaintext = secret_plaintext(secret);
    let commitment = secret.store_secret().commitment();
    envelope.seal(
        &secret_info(scope, recipient),
        &commitment,
        &*plaintext,
        rng,
    )
}

fn secret_plaintext(secret: &EpochSecret) -> zeroize::Zeroizing<[u8; 33]> {
    let (kind, bytes) = match secret {
        EpochSecret::Read(secret) => (0, secret.expose()),
        EpochSecret::Store(secret) => (1, secret.expose()),
    };
    let mut plaintext = zeroize::Zeroizing::new([kind; 33]);
    plaintext[1..].copy_from_slice(bytes);
    plaintext
}

fn epoch_secret(plaintext: &[u8]) -> Option<EpochSecret> {
    let (kind, bytes) = plaintext.split_first()?;
    let bytes = <[u8; 32]>::try_from(bytes).ok()?;
    match kind {
        0 => Some(EpochSecret::Read(ReadSecret::from_bytes(bytes))),
        1 => Some(EpochSecret::Store(StoreSecret::from_bytes(bytes))),
        _ => None,
    }
}

fn secret_info(scope: &[u8; 32], recipient: &Recipient) -> Vec<u8> {
    [
        &b"ouisync v1 epoch secret\0"[..],
        scope,
        recipient.as_bytes(),
    ]
    .concat()
}

/// Seals the secrets of an older epoch under a fresh epoch's.
pub(crate) fn seal_previous(
    newer: &ReadSecret,
    epoch: EpochId,
    older: &ReadSecret,
) -> PreviousEpoch {
    let store = older.store_secret();
    PreviousEpoch {
        epoch,
        read: seal::seal_once(&older_read_key(newer, &epoch), &[], older.expose().to_vec()),
        store: seal::seal_once(
            &older_store_key(&newer.store_secret(), &epoch),
            &[],
            store.expose().to_vec(),
        ),
    }
}

fn open_previous(newer: &EpochSecret, older: &PreviousEpoch) -> Result<EpochSecret, OpenError> {
    let bytes = |plaintext: Vec<u8>| <[u8; 32]>::try_from(plaintext).map_err(|_| OpenError);
    match newer {
        EpochSecret::Read(newer) => {
            let plaintext =
                seal::open_once(&older_read_key(newer, &older.epoch), &[], &older.read)?;
            Ok(EpochSecret::Read(ReadSecret::from_bytes(bytes(plaintext)?)))
        }
        EpochSecret::Store(newer) => {
            let plaintext =
                seal::open_once(&older_store_key(newer, &older.epoch), &[], &older.store)?;
            Ok(EpochSecret::Store(StoreSecret::from_bytes(bytes(
                plaintext,
            )?)))
        }
    }
}

fn older_read_key(newer: &ReadSecret, epoch: &EpochId) -> zeroize::Zeroizing<[u8; 32]> {
    zeroize::Zeroizing::new(derive(
        "ouisync v1 older epoch read key",
        &[newer.expose(), epoch.as_bytes()],
    ))
}

fn older_store_key(newer: &StoreSecret, epoch: &EpochId) -> zeroize::Zeroizing<[u8; 32]> {
    zeroize::Zeroizing::new(derive(
        "ouisync v1 older epoch store key",
        &[newer.expose(), epoch.as_bytes()],
    ))
}

/// The founder joined by no invitation; its name key comes from the founding epoch.
pub(crate) fn founder_name_key(text: &RosterTextKey) -> NameKey {
    NameKey::from_bytes(derive("ouisync v1 founder name key", &[text.expose()]))
}

/// Seals the name key of an invitation for readers; an invitation's id is fresh, so the key seals once.
pub(crate) fn seal_name_key(text: &RosterTextKey, secret: &InvitationSecret) -> Vec<u8> {
    let key = invited_names_key(text, secret.invitation().as_bytes());
    seal::seal_once(&key, &[], secret.name_key().expose().to_vec())
}

fn invited_names_key(text: &RosterTextKey, invitation: &[u8; 32]) -> zeroize::Zeroizing<[u8; 32]> {
    zeroize::Zeroizing::new(derive(
        "ouisync v1 invited names key",
        &[text.expose(), invitation],
    ))
}

fn name_key_of_invite(node: &Node, keys: &FolderKeys) -> Option<NameKey> {
    let RosterAction::Invite {
        invitation,
        epoch,
        name_key,
        ..
    } = &node.entry.statement().action
    else {
        return None;
    };
    let text = keys.read_secret(epoch)?.roster_text_key();
    let key = invited_names_key(&text, invitation.as_bytes());
    let opened = seal::open_once(&key, &[], name_key).ok()?;
    Some(NameKey::from_bytes(opened.try_into().ok()?))
}

/// Seals an epoch's blind secret to a member's blind key.
pub(crate) fn seal_blind(
    folder: &FolderId,
    key: &EnvelopePublicKey,
    secret: &StoreSecret,
    rng: &mut impl CryptoRng,
) -> SealedBlindSecret {
    let plaintext = secret_plaintext(&EpochSecret::Store(secret.clone()));
    let sealed = key.seal(&blind_info(folder), &secret.commitment(), &*plaintext, rng);
    SealedBlindSecret(sealed)
}

fn blind_info(folder: &FolderId) -> Vec<u8> {
    [&b"ouisync v1 blind epoch secret\0"[..], folder.as_bytes()].concat()
}

/// Seals the profile of a member; nothing unless the name has 1 to [`MAX_NAME`] bytes.
pub(crate) fn seal_profile(
    key: &NameKey,
    identity: &MemberIdentity,
    name: &str,
) -> Option<Vec<u8>> {
    let length = u8::try_from(name.len())
        .ok()
        .filter(|length| (1..=MAX_NAME).contains(&usize::from(*length)))?;
    let mut plaintext = vec![0; Profile::LENGTH];
    plaintext[0] = length;
    plaintext[1..=name.len()].copy_from_slice(name.as_bytes());
    plaintext[1 + MAX_NAME..].copy_from_slice(identity.blind().public_key().as_bytes());
    Some(seal::seal_once(
        &key.of_member(&identity.member()),
        &[],
        plaintext,
    ))
}

/// What a certificate says to readers: length of the name, the name and zeros, the blind key.
struct Profile(Vec<u8>);

impl Profile {
    const LENGTH: usize = 1 + MAX_NAME + envelope::PUBLIC_KEY_LENGTH;

    fn open(key: &NameKey, certificate: &MemberCertificate) -> Option<Self> {
        let key = key.of_member(&certificate.member);
        let plaintext = seal::open_once(&key, &[], &certificate.profile).ok()?;
        (plaintext.len() == Self::LENGTH).then_some(Self(plaintext))
    }

    /// Control characters are replaced.
    fn name(&self) -> Option<String> {
        let name = self.0[1..=MAX_NAME].get(..usize::from(self.0[0]))?;
        let replaced = |c: char| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        };
        Some(
            std::str::from_utf8(name)
                .ok()?
                .chars()
                .map(replaced)
                .collect(),
        )
    }

    fn blind(&self) -> &[u8] {
        &self.0[1 + MAX_NAME..]
    }
}
