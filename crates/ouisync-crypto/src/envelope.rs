//! Sealing to a person's key: HPKE (RFC 9180) base mode with X-Wing, HKDF-SHA256 and ChaCha20-Poly1305.

use std::fmt;

use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable, aead::ChaCha20Poly1305, kdf::HkdfSha256,
    kem::XWing, setup_receiver, setup_sender_with_rng,
};
use rand_core::CryptoRng;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    encoding,
    seal::OpenError,
    secret::{random, secret},
};

/// Bytes of a public key.
pub const PUBLIC_KEY_LENGTH: usize = 1216;
/// Bytes that sealing adds: encapsulated key and tag.
pub const OVERHEAD: usize = ENCAPSULATED_LENGTH + crate::seal::TAG_LENGTH;

const ENCAPSULATED_LENGTH: usize = 1120;

secret! {
    /// The seed of an X-Wing key pair (its private key in full).
    EnvelopeSecret
}

/// An X-Wing public key. Encoded as a byte string of exactly [`PUBLIC_KEY_LENGTH`] bytes that is a valid key.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvelopePublicKey(Vec<u8>);

impl EnvelopePublicKey {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads a key; nothing unless it is one.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let key = Self(bytes.to_vec());
        key.key().is_some().then_some(key)
    }

    fn key(&self) -> Option<<XWing as Kem>::PublicKey> {
        <XWing as Kem>::PublicKey::from_bytes(&self.0).ok()
    }

    /// Seals `plaintext` so that only the holder of the secret opens it, given the same `info` and `aad`.
    pub(crate) fn seal(
        &self,
        info: &[u8],
        aad: &[u8],
        plaintext: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Vec<u8> {
        let key = self.key().expect("checked when this was made");
        let (encapsulated, mut context) = setup_sender_with_rng::<
            ChaCha20Poly1305,
            HkdfSha256,
            XWing,
        >(&OpModeS::Base, &key, info, rng)
        .expect("base mode seals to every valid key");
        let ciphertext = context
            .seal(plaintext, aad)
            .expect("the first message of a context");
        let mut sealed = encapsulated.to_bytes().to_vec();
        sealed.extend_from_slice(&ciphertext);
        sealed
    }
}

impl EnvelopeSecret {
    /// A fresh secret.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self::from_bytes(random(rng))
    }

    /// The public key.
    pub fn public_key(&self) -> EnvelopePublicKey {
        EnvelopePublicKey(XWing::sk_to_pk(&self.key()).to_bytes().to_vec())
    }

    /// Opens what was sealed to [`Self::public_key`].
    pub(crate) fn open(
        &self,
        info: &[u8],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        let (encapsulated, ciphertext) = sealed
            .split_at_checked(ENCAPSULATED_LENGTH)
            .ok_or(OpenError)?;
        let encapsulated =
            <XWing as Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| OpenError)?;
        setup_receiver::<ChaCha20Poly1305, HkdfSha256, XWing>(
            &OpModeR::Base,
            &self.key(),
            &encapsulated,
            info,
        )
        .and_then(|mut context| context.open(ciphertext, aad))
        .map_err(|_| OpenError)
    }

    fn key(&self) -> <XWing as Kem>::PrivateKey {
        <XWing as Kem>::PrivateKey::from_bytes(self.expose()).expect("every 32 bytes are a key")
    }
}

impl fmt::Debug for EnvelopePublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "EnvelopePublicKey({})",
            blake3::hash(&self.0).to_hex().split_at(8).0
        )
    }
}

impl Serialize for EnvelopePublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        encoding::bytes::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for EnvelopePublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = Self(encoding::bytes::deserialize(deserializer)?);
        if key.key().is_none() {
            return Err(serde::de::Error::custom("not an X-Wing public key"));
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member chooses its keys; others seal to them.
    #[test]
    fn no_key_that_is_accepted_panics() {
        let mut rng = rand::rng();
        let good = EnvelopeSecret::generate(&mut rng).public_key();
        for byte in [0, 1, 0xff] {
            for range in [0..32, 1152..1184, 1184..1216, 0..1216] {
                let mut bytes = good.as_bytes().to_vec();
                bytes[range].fill(byte);
                if let Some(key) = EnvelopePublicKey::from_bytes(&bytes) {
                    key.seal(b"info", b"aad", b"plaintext", &mut rng);
                }
            }
        }
    }
}
