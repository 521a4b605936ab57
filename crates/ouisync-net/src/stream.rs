//! The byte streams under control and bulk: what a transport gives for each.
//!
//! Framing lives in [`crate::control`] and [`crate::bulk`]; a transport only moves bytes in order.

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use thiserror::Error;
use tokio::io::AsyncRead;

/// A boxed future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A stream that is opened when it is first used (QUIC shows a stream to the other side only once it carries data).
pub type Opening<T> = BoxFuture<'static, Result<T, StreamError>>;

/// Receiving half: bytes in order; end of file when the sender finished.
pub type ByteSource = Box<dyn AsyncRead + Send + Unpin>;

/// Sending half.
pub trait ByteSink: Send {
    /// Queues all of `bytes`, waiting while the windows are full. Not cancel safe: after a cancelled write the
    /// stream must not be used again.
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), StreamError>>;
}

/// Why a stream of a connection failed. The connection is then of no more use: drop it and dial again.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The connection ended, or the peer reset the stream.
    #[error("the stream ended: {0}")]
    Ended(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The peer finished the stream in an orderly way in the middle of a message, or where none may end.
    #[error("the peer finished the stream")]
    Finished,
    /// The peer announced a message longer than allowed.
    #[error("a message of {length} bytes, at most {max} are allowed")]
    TooLong {
        /// Announced length in bytes.
        length: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// The peer announced a bulk record of no frames or too many.
    #[error("a bulk record of {frames} frames")]
    FrameCount {
        /// Announced number of frames.
        frames: u32,
    },
    /// The caller's record is not `frames` whole frames long.
    #[error("{bytes} bytes given for {frames} frames")]
    RecordLength {
        /// Length of the payload in bytes.
        bytes: usize,
        /// Frames according to the header.
        frames: u32,
    },
    /// An earlier send was cancelled or failed, so the place in the stream is unknown.
    #[error("an earlier send was not completed")]
    Broken,
}

impl StreamError {
    /// Whether the peer broke the protocol (as opposed to the connection having ended).
    pub fn is_violation(&self) -> bool {
        matches!(self, Self::TooLong { .. } | Self::FrameCount { .. })
    }

    pub(crate) fn ended(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Ended(Box::new(source))
    }
}
