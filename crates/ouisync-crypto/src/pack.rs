//! Packs: frames sealed and opened in place, and where plaintext lies in them.
//!
//! Must not cut or compress chunks, and must not touch files.

use std::ops::Range;

use rand_core::CryptoRng;
use ring::aead::{Aad, LessSafeKey, Nonce, Tag};
use thiserror::Error;

use crate::{
    seal,
    secret::{ReadSecret, derive, equal, random, secret},
};

/// Bytes of a sealed frame (header and tag included).
pub const FRAME_LENGTH: usize = 64 * 1024;
/// Bytes of the header at the start of frame 0: salt and key commitment.
pub const HEADER_LENGTH: usize = 64;
/// Bytes of the tag at the end of every frame.
pub const TAG_LENGTH: usize = seal::TAG_LENGTH;
/// Bytes of plaintext in frame 0.
pub const FIRST_PLAINTEXT: usize = FRAME_LENGTH - HEADER_LENGTH - TAG_LENGTH;
/// Bytes of plaintext in every later frame.
pub const LATER_PLAINTEXT: usize = FRAME_LENGTH - TAG_LENGTH;
/// Most frames of a pack.
pub const MAX_FRAMES: u32 = 256;

/// One frame.
pub type Frame = [u8; FRAME_LENGTH];

/// Bytes of plaintext in a pack of `frames` frames.
pub const fn plaintext_capacity(frames: u32) -> u64 {
    if frames == 0 {
        0
    } else {
        FIRST_PLAINTEXT as u64 + (frames as u64 - 1) * LATER_PLAINTEXT as u64
    }
}

/// Where plaintext lies within frame `index`.
pub const fn plaintext_in_frame(index: u32) -> Range<usize> {
    (if index == 0 { HEADER_LENGTH } else { 0 })..FRAME_LENGTH - TAG_LENGTH
}

/// Which bytes of the pack's plaintext frame `index` holds.
pub const fn plaintext_of_frame(index: u32) -> Range<u64> {
    plaintext_capacity(index)..plaintext_capacity(index + 1)
}

/// The frames that hold the bytes `range` of the pack's plaintext; empty for an empty range.
pub fn frames_of_plaintext(range: Range<u64>) -> Range<u32> {
    let frame = |offset: u64| match offset.checked_sub(FIRST_PLAINTEXT as u64) {
        None => 0,
        Some(later) => {
            u32::try_from(later / LATER_PLAINTEXT as u64).map_or(u32::MAX, |n| n.saturating_add(1))
        }
    };
    if range.is_empty() {
        return 0..0;
    }
    frame(range.start)..frame(range.end - 1).saturating_add(1)
}

/// Random bytes that make a pack's key its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackSalt([u8; 32]);

impl PackSalt {
    /// A fresh salt. Every pack needs its own: nonces repeat from pack to pack.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self(random(rng))
    }

    /// Wraps the bytes of a known pack's salt.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The first 64 bytes of a pack: enough to open any of its frames, together with the epoch's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackHeader {
    /// The pack's salt.
    pub salt: PackSalt,
    /// Commits to the pack's key, so that no second key opens it.
    pub commitment: [u8; 32],
}

impl PackHeader {
    /// Reads the header from frame 0.
    pub fn of_frame(frame: &Frame) -> Self {
        let mut bytes = [0; HEADER_LENGTH];
        bytes.copy_from_slice(&frame[..HEADER_LENGTH]);
        Self::from_bytes(&bytes)
    }

    /// Reads the header; every 64 bytes are one.
    pub fn from_bytes(bytes: &[u8; HEADER_LENGTH]) -> Self {
        let mut salt = [0; 32];
        let mut commitment = [0; 32];
        salt.copy_from_slice(&bytes[..32]);
        commitment.copy_from_slice(&bytes[32..]);
        Self {
            salt: PackSalt(salt),
            commitment,
        }
    }

    /// The header's bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[..32].copy_from_slice(&self.salt.0);
        bytes[32..].copy_from_slice(&self.commitment);
        bytes
    }
}

/// Why a frame or header does not open.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum PackError {
    /// The header commits to another key: the pack is of another epoch or folder, or damaged.
    #[error("pack is sealed with another key")]
    OtherKey,
    /// The frame was changed, moved, or cut from another pack.
    #[error("frame {index} can't be opened")]
    Frame {
        /// Index of the frame in its pack.
        index: u32,
    },
}

secret! {
    /// The bytes of a pack's key.
    PackKeyBytes
}

/// Seals and opens the frames of one pack.
pub struct PackKey {
    key: LessSafeKey,
    header: PackHeader,
}

impl PackKey {
    /// The key of the pack with `salt`, for sealing it.
    pub fn derive(secret: &ReadSecret, salt: PackSalt) -> Self {
        let bytes =
            PackKeyBytes::from_bytes(derive("ouisync v1 pack key", &[secret.expose(), &salt.0]));
        let commitment = derive("ouisync v1 pack key commitment", &[bytes.expose()]);
        Self {
            key: seal::key(bytes.expose()),
            header: PackHeader { salt, commitment },
        }
    }

    /// The key of the pack with `header`, for opening it; [`PackError::OtherKey`] if `secret` is not its epoch's.
    pub fn for_header(secret: &ReadSecret, header: &PackHeader) -> Result<Self, PackError> {
        let key = Self::derive(secret, header.salt);
        if equal(&key.header.commitment, &header.commitment) {
            Ok(key)
        } else {
            Err(PackError::OtherKey)
        }
    }

    /// The header that frame 0 begins with.
    pub const fn header(&self) -> &PackHeader {
        &self.header
    }

    /// Seals frame `index` in place: the plaintext stands at [`plaintext_in_frame`]; header (frame 0) and tag are
    /// written around it. Each index is sealed once per key; `last` is whether it is the pack's last frame.
    pub fn seal_frame(&self, index: u32, last: bool, frame: &mut Frame) {
        if index == 0 {
            frame[..HEADER_LENGTH].copy_from_slice(&self.header.to_bytes());
        }
        let tag = self
            .key
            .seal_in_place_separate_tag(
                nonce(index, last),
                Aad::empty(),
                &mut frame[plaintext_in_frame(index)],
            )
            .expect("a frame is far below the cipher's limit");
        frame[FRAME_LENGTH - TAG_LENGTH..].copy_from_slice(tag.as_ref());
    }

    /// Opens frame `index` in place; the plaintext then stands at [`plaintext_in_frame`]. On error the frame's
    /// bytes are unspecified.
    pub fn open_frame(&self, index: u32, last: bool, frame: &mut Frame) -> Result<(), PackError> {
        if index == 0 && PackHeader::of_frame(frame) != self.header {
            return Err(PackError::OtherKey);
        }
        let (rest, tag) = frame.split_at_mut(FRAME_LENGTH - TAG_LENGTH);
        let failed = PackError::Frame { index };
        let tag = Tag::try_from(&*tag).map_err(|_| failed)?;
        self.key
            .open_in_place_separate_tag(
                nonce(index, last),
                Aad::empty(),
                tag,
                &mut rest[plaintext_in_frame(index)],
                0..,
            )
            .map_err(|_| failed)?;
        Ok(())
    }
}

impl std::fmt::Debug for PackKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PackKey(redacted)")
    }
}

fn nonce(index: u32, last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&u64::from(index).to_le_bytes());
    bytes[8..].copy_from_slice(&u32::from(last).to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}
