//! Header of a record of the bulk stream. The frames follow it as raw bytes.

use ouisync_crypto::proof::ChannelId;
use ouisync_model::{id::PackId, operation::PackSize};
use thiserror::Error;

use super::MAX_FRAMES;

/// 48 bytes before `frames` × 64 KiB of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkHeader {
    /// The folder's channel.
    pub channel: ChannelId,
    /// The pack.
    pub pack: PackId,
    /// First frame.
    pub first: u32,
    /// Number of frames, 1 to 256.
    pub frames: u32,
}

/// The range of a bulk header is empty or beyond the greatest pack. The connection must be closed.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("bulk record of {frames} frames from {first}")]
pub struct BulkHeaderError {
    /// First frame.
    pub first: u32,
    /// Number of frames.
    pub frames: u32,
}

impl BulkHeader {
    /// Length in bytes.
    pub const LENGTH: usize = 48;

    /// Length of the data that follows, in bytes.
    pub const fn data_length(&self) -> usize {
        self.frames as usize * PackSize::FRAME as usize
    }

    /// The bytes.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..8].copy_from_slice(&self.channel.0.to_le_bytes());
        bytes[8..40].copy_from_slice(self.pack.as_bytes());
        bytes[40..44].copy_from_slice(&self.first.to_le_bytes());
        bytes[44..].copy_from_slice(&self.frames.to_le_bytes());
        bytes
    }

    /// Reads and checks a header.
    pub fn decode(bytes: &[u8; Self::LENGTH]) -> Result<Self, BulkHeaderError> {
        let (mut channel, mut pack, mut first, mut frames) = ([0; 8], [0; 32], [0; 4], [0; 4]);
        channel.copy_from_slice(&bytes[..8]);
        pack.copy_from_slice(&bytes[8..40]);
        first.copy_from_slice(&bytes[40..44]);
        frames.copy_from_slice(&bytes[44..]);
        let header = Self {
            channel: ChannelId(u64::from_le_bytes(channel)),
            pack: PackId::from_bytes(pack),
            first: u32::from_le_bytes(first),
            frames: u32::from_le_bytes(frames),
        };
        let end = header.first.checked_add(header.frames);
        if header.frames == 0 || end.is_none_or(|end| end as usize > MAX_FRAMES) {
            return Err(BulkHeaderError {
                first: header.first,
                frames: header.frames,
            });
        }
        Ok(header)
    }
}
