//! ChaCha20-Poly1305 under a key that is used once: the nonce is zero, so the key must be derived from something unique.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use thiserror::Error;

/// Sealed bytes do not open: wrong key or changed bytes; one opaque error on purpose.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("can't be opened with this key")]
pub struct OpenError;

/// Bytes of an authentication tag.
pub(crate) const TAG_LENGTH: usize = 16;

/// A ChaCha20-Poly1305 key.
pub(crate) fn key(bytes: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, bytes).expect("a key has 32 bytes"))
}

/// Seals `buffer` in place and appends the tag. `key_bytes` must never seal anything else.
pub(crate) fn seal_once(key_bytes: &[u8; 32], aad: &[u8], mut buffer: Vec<u8>) -> Vec<u8> {
    key(key_bytes)
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key([0; 12]),
            Aad::from(aad),
            &mut buffer,
        )
        .expect("far below the cipher's limit of 256 GiB");
    buffer
}

/// Opens what [`seal_once`] made.
pub(crate) fn open_once(
    key_bytes: &[u8; 32],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, OpenError> {
    let mut buffer = sealed.to_vec();
    let length = key(key_bytes)
        .open_in_place(
            Nonce::assume_unique_for_key([0; 12]),
            Aad::from(aad),
            &mut buffer,
        )
        .map_err(|_| OpenError)?
        .len();
    buffer.truncate(length);
    Ok(buffer)
}
