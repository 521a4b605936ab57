//! The control stream: length-delimited messages, u32 little-endian length then that many bytes.
//!
//! A message of length 0 is never delivered: the dialler sends one to open the stream, and receivers skip it. What a
//! message means is not known here.

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use crate::stream::{ByteSink, ByteSource, StreamError};

/// Longest control message in bytes.
pub const MAX_CONTROL_MESSAGE: usize = 8 << 20;

/// Messages up to this length are joined with their length into one buffer.
const JOIN_LIMIT: usize = 16 << 10;

/// Sends control messages.
pub struct ControlSender {
    sink: Box<dyn ByteSink>,
    broken: bool,
}

impl ControlSender {
    /// Wraps the sending half of a control stream.
    pub fn new(sink: Box<dyn ByteSink>) -> Self {
        Self {
            sink,
            broken: false,
        }
    }

    /// Sends one message of 1 to [`MAX_CONTROL_MESSAGE`] bytes; returns when the transport has taken all of it.
    /// Not cancel safe: after a cancelled send every further one fails with [`StreamError::Broken`].
    pub async fn send(&mut self, message: Bytes) -> Result<(), StreamError> {
        if message.len() > MAX_CONTROL_MESSAGE {
            return Err(StreamError::TooLong {
                length: message.len() as u64,
                max: MAX_CONTROL_MESSAGE as u64,
            });
        }
        if message.is_empty() {
            return Ok(());
        }
        self.write(message).await
    }

    /// Sends the empty message that makes the stream visible to the acceptor.
    pub(crate) async fn open(&mut self) -> Result<(), StreamError> {
        self.write(Bytes::new()).await
    }

    async fn write(&mut self, message: Bytes) -> Result<(), StreamError> {
        if self.broken {
            return Err(StreamError::Broken);
        }
        self.broken = true;
        let length = u32::try_from(message.len()).expect("checked against MAX_CONTROL_MESSAGE");
        if message.len() <= JOIN_LIMIT {
            let mut joined = BytesMut::with_capacity(4 + message.len());
            joined.put_u32_le(length);
            joined.put_slice(&message);
            self.sink.write(joined.freeze()).await?;
        } else {
            self.sink
                .write(Bytes::copy_from_slice(&length.to_le_bytes()))
                .await?;
            self.sink.write(message).await?;
        }
        self.broken = false;
        Ok(())
    }
}

/// Receives control messages.
pub struct ControlReceiver {
    source: ByteSource,
    /// Length and body as far as they have arrived; grows with what arrives, never with what is announced.
    buffer: BytesMut,
}

impl ControlReceiver {
    /// Wraps the receiving half of a control stream.
    pub fn new(source: ByteSource) -> Self {
        Self {
            source,
            buffer: BytesMut::new(),
        }
    }

    /// The next message, at most `max` bytes (and never more than [`MAX_CONTROL_MESSAGE`]); `None` when the peer
    /// finished. Cancel safe.
    pub async fn recv(&mut self, max: usize) -> Result<Option<Bytes>, StreamError> {
        let max = max.min(MAX_CONTROL_MESSAGE);
        loop {
            if let Some(header) = self.buffer.first_chunk::<4>() {
                let length = u32::from_le_bytes(*header) as usize;
                if length > max {
                    return Err(StreamError::TooLong {
                        length: length as u64,
                        max: max as u64,
                    });
                }
                if self.buffer.len() >= 4 + length {
                    let message = self.buffer.split_to(4 + length).split_off(4).freeze();
                    if message.is_empty() {
                        continue;
                    }
                    return Ok(Some(message));
                }
            }
            // `reserve` here would only double on demand; 64 KiB keeps the number of reads of a large message small.
            self.buffer.reserve(64 << 10);
            let read = self
                .source
                .read_buf(&mut self.buffer)
                .await
                .map_err(StreamError::ended)?;
            if read == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(StreamError::Finished)
                };
            }
        }
    }
}
