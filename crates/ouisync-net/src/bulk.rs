//! The bulk streams, one each way: records of pack frames.
//!
//! Record: 48-byte header, all little-endian: channel u64, pack 32 bytes, first frame u32, frames u32; then
//! `frames` times 64 KiB. Opened by the first record. Frames are not verified here.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ouisync_model::id::PackId;
use tokio::io::AsyncReadExt;

use crate::stream::{ByteSink, ByteSource, Opening, StreamError};

/// Length of a frame in bytes.
pub const FRAME_LENGTH: usize = 64 << 10;
/// Most frames in one record: 2 MiB.
pub const MAX_RECORD_FRAMES: u32 = 32;
/// Length of a record's header in bytes.
pub const BULK_HEADER_LENGTH: usize = 48;

/// A payload begins at a multiple of this in memory, so that it can go to a disk past the system's cache.
const ALIGNMENT: usize = 4096;

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BulkHeader {
    /// The folder channel of this connection.
    pub channel: u64,
    /// The pack that the frames belong to.
    pub pack: PackId,
    /// Index of the first frame.
    pub first_frame: u32,
    /// Number of frames, 1 to [`MAX_RECORD_FRAMES`].
    pub frames: u32,
}

impl BulkHeader {
    /// The bytes on the wire.
    pub fn encode(&self) -> [u8; BULK_HEADER_LENGTH] {
        let mut bytes = [0; BULK_HEADER_LENGTH];
        let mut rest = &mut bytes[..];
        rest.put_u64_le(self.channel);
        rest.put_slice(self.pack.as_bytes());
        rest.put_u32_le(self.first_frame);
        rest.put_u32_le(self.frames);
        bytes
    }

    /// Reads a header; every 48 bytes are one.
    pub fn decode(bytes: &[u8; BULK_HEADER_LENGTH]) -> Self {
        let mut rest = &bytes[..];
        let channel = rest.get_u64_le();
        let mut pack = [0; PackId::LENGTH];
        rest.copy_to_slice(&mut pack);
        Self {
            channel,
            pack: PackId::from_bytes(pack),
            first_frame: rest.get_u32_le(),
            frames: rest.get_u32_le(),
        }
    }

    /// Length of the payload in bytes, or an error when the number of frames is out of bounds.
    pub fn payload_length(&self) -> Result<usize, StreamError> {
        if self.frames == 0 || self.frames > MAX_RECORD_FRAMES {
            return Err(StreamError::FrameCount {
                frames: self.frames,
            });
        }
        Ok(self.frames as usize * FRAME_LENGTH)
    }
}

enum Half<T> {
    Unopened(Opening<T>),
    Open(T),
    Broken,
}

/// Sends bulk records.
pub struct BulkSender {
    half: Half<Box<dyn ByteSink>>,
}

impl BulkSender {
    /// A sender whose stream is opened by its first record.
    pub fn new(opening: Opening<Box<dyn ByteSink>>) -> Self {
        Self {
            half: Half::Unopened(opening),
        }
    }

    /// Sends one record; `payload` is `header.frames` whole frames and is not copied. Returns when the transport
    /// has taken all of it, so a slow peer slows the caller. Not cancel safe: after a cancelled send every further
    /// one fails with [`StreamError::Broken`].
    pub async fn send(&mut self, header: BulkHeader, payload: Bytes) -> Result<(), StreamError> {
        if header.payload_length()? != payload.len() {
            return Err(StreamError::RecordLength {
                bytes: payload.len(),
                frames: header.frames,
            });
        }
        // Taken out until the record is complete, so that a cancelled send leaves `Broken` behind.
        let mut sink = match std::mem::replace(&mut self.half, Half::Broken) {
            Half::Unopened(opening) => opening.await?,
            Half::Open(sink) => sink,
            Half::Broken => return Err(StreamError::Broken),
        };
        sink.write(Bytes::copy_from_slice(&header.encode())).await?;
        sink.write(payload).await?;
        self.half = Half::Open(sink);
        Ok(())
    }
}

/// Receives bulk records.
pub struct BulkReceiver {
    half: Half<ByteSource>,
    header: Option<BulkHeader>,
    buffer: BytesMut,
}

impl BulkReceiver {
    /// A receiver whose stream arrives with the peer's first record.
    pub fn new(opening: Opening<ByteSource>) -> Self {
        Self {
            half: Half::Unopened(opening),
            header: None,
            buffer: BytesMut::new(),
        }
    }

    /// The next record; `None` when the peer finished. Cancel safe. Holds at most one record.
    pub async fn recv(&mut self) -> Result<Option<(BulkHeader, Bytes)>, StreamError> {
        if let Half::Unopened(opening) = &mut self.half {
            match opening.await {
                Ok(source) => self.half = Half::Open(source),
                Err(error) => {
                    self.half = Half::Broken;
                    return Err(error);
                }
            }
        }
        let Half::Open(source) = &mut self.half else {
            return Err(StreamError::Broken);
        };
        loop {
            let wanted = match &self.header {
                None => BULK_HEADER_LENGTH,
                Some(header) => header.payload_length()?,
            };
            if self.buffer.len() == wanted {
                match self.header.take() {
                    None => {
                        let bytes = self
                            .buffer
                            .first_chunk()
                            .expect("the buffer holds a header");
                        let header = BulkHeader::decode(bytes);
                        let length = header.payload_length()?;
                        self.header = Some(header);
                        self.buffer = aligned(length);
                    }
                    Some(header) => {
                        let payload = std::mem::take(&mut self.buffer).freeze();
                        return Ok(Some((header, payload)));
                    }
                }
                continue;
            }
            self.buffer.reserve(wanted - self.buffer.len());
            let mut rest = (&mut self.buffer).limit(0);
            rest.set_limit(wanted - rest.get_ref().len());
            let read = source
                .read_buf(&mut rest)
                .await
                .map_err(StreamError::ended)?;
            if read == 0 {
                let between = self.header.is_none() && self.buffer.is_empty();
                return if between {
                    Ok(None)
                } else {
                    Err(StreamError::Finished)
                };
            }
        }
    }
}

/// An empty buffer with room for `length` bytes.
fn aligned(length: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(length + ALIGNMENT);
    let padding = buffer.as_ptr().align_offset(ALIGNMENT);
    buffer.resize(padding, 0);
    buffer.advance(padding);
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_bytes_are_as_documented() {
        let header = BulkHeader {
            channel: 0x0807_0605_0403_0201,
            pack: PackId::from_bytes([0xaa; 32]),
            first_frame: 0x0403_0201,
            frames: 5,
        };
        let bytes = header.encode();
        assert_eq!(bytes[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(bytes[8..40], [0xaa; 32]);
        assert_eq!(bytes[40..], [1, 2, 3, 4, 5, 0, 0, 0]);
        assert_eq!(BulkHeader::decode(&bytes), header);
    }
}
