//! A member's own keys. They belong to one folder on one incarnation of a device and are never exported.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use ouisync_model::id::MemberId;
use rand_core::CryptoRng;
use thiserror::Error;

use crate::{
    envelope::{EnvelopePublicKey, EnvelopeSecret},
    secret::{random, secret},
};

/// Bytes of a signature.
pub const SIGNATURE_LENGTH: usize = 64;

/// The signature isn't by this key over these bytes.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("invalid signature")]
pub struct SignatureError;

secret! {
    /// The seed of a member's signing key.
    SigningSecret
}

/// Signs `domain ‖ message`.
pub(crate) fn sign(key: &SigningKey, domain: &[u8], message: &[u8]) -> [u8; SIGNATURE_LENGTH] {
    key.sign(&[domain, message].concat()).to_bytes()
}

/// Checks a signature over `domain ‖ message` by the rules of `verify_strict` (no weak keys, canonical encodings).
pub(crate) fn verify(
    key: &[u8; 32],
    domain: &[u8],
    message: &[u8],
    signature: &[u8; SIGNATURE_LENGTH],
) -> Result<(), SignatureError> {
    VerifyingKey::from_bytes(key)
        .and_then(|key| {
            key.verify_strict(
                &[domain, message].concat(),
                &Signature::from_bytes(signature),
            )
        })
        .map_err(|_| SignatureError)
}

/// The key pair that signs as a member, the one that secrets are sealed to, and the one that only blind secrets are sealed to: a
/// locked device keeps that one, so that it can follow a new epoch without its others.
#[derive(Clone)]
pub struct MemberIdentity {
    signing: SigningKey,
    envelope: EnvelopeSecret,
    blind: EnvelopeSecret,
}

impl MemberIdentity {
    /// Bytes of [`Self::to_bytes`].
    pub const LENGTH: usize = 96;

    /// Fresh keys.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self {
            signing: SigningKey::from_bytes(&random(rng)),
            envelope: EnvelopeSecret::generate(rng),
            blind: EnvelopeSecret::generate(rng),
        }
    }

    /// Fresh keys for the same seat. The blind key stays, as the seat's certificate names it.
    pub fn successor(&self, rng: &mut impl CryptoRng) -> Self {
        Self {
            blind: self.blind.clone(),
            ..Self::generate(rng)
        }
    }

    /// For the key store: the seeds of the signing, the envelope and the blind key.
    pub fn to_bytes(&self) -> zeroize::Zeroizing<[u8; Self::LENGTH]> {
        let mut bytes = zeroize::Zeroizing::new([0; Self::LENGTH]);
        bytes[..32].copy_from_slice(self.signing.as_bytes());
        bytes[32..64].copy_from_slice(self.envelope.expose());
        bytes[64..].copy_from_slice(self.blind.expose());
        bytes
    }

    /// From the key store.
    pub fn from_bytes(bytes: &[u8; Self::LENGTH]) -> Self {
        let (mut signing, mut envelope, mut blind) = ([0; 32], [0; 32], [0; 32]);
        signing.copy_from_slice(&bytes[..32]);
        envelope.copy_from_slice(&bytes[32..64]);
        blind.copy_from_slice(&bytes[64..]);
        let identity = Self {
            signing: SigningKey::from_bytes(&signing),
            envelope: EnvelopeSecret::from_bytes(envelope),
            blind: EnvelopeSecret::from_bytes(blind),
        };
        zeroize::Zeroize::zeroize(&mut signing);
        identity
    }

    /// The member that these keys are.
    pub fn member(&self) -> MemberId {
        MemberId::from_bytes(self.signing.verifying_key().to_bytes())
    }

    /// The key that secrets are sealed to.
    pub fn envelope_key(&self) -> EnvelopePublicKey {
        self.envelope.public_key()
    }

    /// What a locked device keeps: opens blind secrets and nothing else.
    pub const fn blind(&self) -> &EnvelopeSecret {
        &self.blind
    }

    pub(crate) const fn signing(&self) -> &SigningKey {
        &self.signing
    }

    pub(crate) const fn envelope(&self) -> &EnvelopeSecret {
        &self.envelope
    }
}

impl std::fmt::Debug for MemberIdentity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "MemberIdentity({:?}, redacted)", self.member())
    }
}
