//! Invitations: the secret that a link carries, and the link's text.

use std::{fmt, net::SocketAddr};

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::SigningKey;
use ouisync_model::id::{DeviceId, FolderId, InvitationId, MemberId};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    encoding,
    envelope::{EnvelopePublicKey, EnvelopeSecret},
    roster::role::Role,
    secret::{derive, random, secret},
};

/// What every link begins with.
pub const PREFIX: &str = "ouisync://join/v1#";
/// Most characters of a link.
pub const MAX_LINK: usize = 8192;
/// Most bytes of the folder's display name.
pub const MAX_NAME: usize = 255;
/// Most devices in a link.
pub const MAX_CONTACTS: usize = 8;
/// Most addresses of one device in a link.
pub const MAX_ADDRESSES: usize = 8;

const VERSION: u8 = 1;

secret! {
    /// The secret of a link. Who has it can join in the invitation's role while it is open.
    InvitationSecret
}
secret! {
    /// Seals the names of the members that join by one invitation.
    NameKey
}

impl InvitationSecret {
    /// A fresh secret.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self::from_bytes(random(rng))
    }

    /// The invitation's public name in the roster.
    pub fn invitation(&self) -> InvitationId {
        InvitationId::from_bytes(self.signing().verifying_key().to_bytes())
    }

    /// The key that epoch secrets are sealed to for those who join.
    pub fn envelope_key(&self) -> EnvelopePublicKey {
        self.envelope().public_key()
    }

    pub(crate) fn signing(&self) -> SigningKey {
        SigningKey::from_bytes(&derive(
            "ouisync v1 invitation signing key",
            &[self.expose()],
        ))
    }

    pub(crate) fn envelope(&self) -> EnvelopeSecret {
        EnvelopeSecret::from_bytes(derive(
            "ouisync v1 invitation envelope key",
            &[self.expose()],
        ))
    }

    pub(crate) fn name_key(&self) -> NameKey {
        NameKey::from_bytes(derive("ouisync v1 invitation name key", &[self.expose()]))
    }
}

impl NameKey {
    /// The key of one member's name: a member key is fresh, so this key seals once.
    pub(crate) fn of_member(&self, member: &MemberId) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(derive(
            "ouisync v1 member name key",
            &[self.expose(), member.as_bytes()],
        ))
    }
}

/// Where a device may be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The device.
    pub device: DeviceId,
    /// Socket addresses, best first.
    pub addresses: Vec<SocketAddr>,
}

/// What a link says.
#[derive(Clone, PartialEq, Eq)]
pub struct InvitationLink {
    /// The folder.
    pub folder: FolderId,
    /// The role that joiners get, for display: the roster decides.
    pub role: Role,
    /// The secret.
    pub secret: InvitationSecret,
    /// The folder's display name.
    pub name: String,
    /// Devices to ask.
    pub contacts: Vec<Contact>,
}

/// Why a text is not a link.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum LinkError {
    /// Another kind of text.
    #[error("this is not an OuiSync link; it begins with ouisync://join/")]
    NotALink,
    /// A newer program made it.
    #[error("this link was made by a newer version of OuiSync; update to use it")]
    Version,
    /// Too long for a link.
    #[error("this is longer than any OuiSync link")]
    TooLong,
    /// Cut off or mistyped.
    #[error("this link is incomplete or mistyped; copy it again as a whole")]
    Damaged,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    version: u8,
    folder: FolderId,
    role: Role,
    secret: [u8; 32],
    name: String,
    contacts: Vec<PayloadContact>,
    check: [u8; 4],
}

#[derive(Serialize, Deserialize)]
struct PayloadContact {
    device: DeviceId,
    addresses: Vec<String>,
}

impl InvitationLink {
    /// The link's text. A name or list beyond the limits is cut, since it is only a hint.
    pub fn encode(&self) -> String {
        let mut name = self.name.clone();
        while name.len() > MAX_NAME {
            name.pop();
        }
        let contacts = self
            .contacts
            .iter()
            .take(MAX_CONTACTS)
            .map(|contact| PayloadContact {
                device: contact.device,
                addresses: contact
                    .addresses
                    .iter()
                    .take(MAX_ADDRESSES)
                    .map(ToString::to_string)
                    .collect(),
            });
        let mut payload = Payload {
            version: VERSION,
            folder: self.folder,
            role: self.role,
            secret: *self.secret.expose(),
            name,
            contacts: contacts.collect(),
            check: [0; 4],
        };
        payload.check = payload.checksum();
        let bytes = zeroize::Zeroizing::new(encoding::encode(&payload));
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }

    /// Reads a link's text; white space around it is ignored.
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        let text = text.trim();
        if text.len() > MAX_LINK {
            return Err(LinkError::TooLong);
        }
        let Some(payload) = text.strip_prefix(PREFIX) else {
            let ours =
                text.starts_with("ouisync://join/v") && !text.starts_with("ouisync://join/v1");
            return Err(if ours {
                LinkError::Version
            } else {
                LinkError::NotALink
            });
        };
        let bytes = zeroize::Zeroizing::new(
            BASE64URL_NOPAD
                .decode(payload.as_bytes())
                .map_err(|_| LinkError::Damaged)?,
        );
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&newer) if newer > VERSION => return Err(LinkError::Version),
            Some(_) => return Err(LinkError::Damaged),
            None => return Err(LinkError::Damaged),
        }
        let payload: Payload = encoding::decode(&bytes).map_err(|_| LinkError::Damaged)?;
        let within_limits = payload.name.len() <= MAX_NAME
            && payload.contacts.len() <= MAX_CONTACTS
            && payload
                .contacts
                .iter()
                .all(|contact| contact.addresses.len() <= MAX_ADDRESSES);
        if !within_limits || payload.check != payload.checksum() {
            return Err(LinkError::Damaged);
        }
        let contacts = payload.contacts.iter().map(|contact| {
            let addresses = contact.addresses.iter().map(|text| text.parse());
            Ok(Contact {
                device: contact.device,
                addresses: addresses
                    .collect::<Result<_, _>>()
                    .map_err(|_| LinkError::Damaged)?,
            })
        });
        Ok(Self {
            folder: payload.folder,
            role: payload.role,
            secret: InvitationSecret::from_bytes(payload.secret),
            contacts: contacts.collect::<Result<_, _>>()?,
            name: payload.name.clone(),
        })
    }
}

impl Payload {
    /// Finds a mistyped character; the first bytes of BLAKE3 over the payload with zeros in place of this field.
    fn checksum(&self) -> [u8; 4] {
        let mut bytes = zeroize::Zeroizing::new(encoding::encode(self));
        let end = bytes.len() - 4;
        bytes.truncate(end);
        let mut check = [0; 4];
        check.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..4]);
        check
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.secret);
    }
}

impl fmt::Debug for InvitationLink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("InvitationLink")
            .field("folder", &self.folder)
            .field("role", &self.role)
            .field("contacts", &self.contacts)
            .finish_non_exhaustive()
    }
}
