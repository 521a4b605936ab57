//! One authenticated connection between two devices: who is there, what binds it, how it ends.
//!
//! A [`Connection`] comes apart into a cloneable [`ConnectionHandle`] and four stream halves, each of which a task of
//! its own can own.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use ouisync_model::id::DeviceId;

use crate::{
    bulk::{BulkReceiver, BulkSender},
    control::{ControlReceiver, ControlSender},
    stream::BoxFuture,
};

/// Why a side closes a connection; the number goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// Going away: shutdown or pause. The peer may dial again later.
    Finished,
    /// Another connection between the same devices stays.
    Duplicate,
    /// The peer broke the protocol.
    Violation,
    /// The devices have no folder in common, or the peer was removed.
    Refused,
    /// Too many connections; try later.
    Overloaded,
    /// A code that this version does not know.
    Other(u32),
}

impl CloseCode {
    /// The number on the wire.
    pub const fn to_wire(self) -> u32 {
        match self {
            Self::Finished => 0,
            Self::Duplicate => 1,
            Self::Violation => 2,
            Self::Refused => 3,
            Self::Overloaded => 4,
            Self::Other(code) => code,
        }
    }

    /// The code of a number from the wire.
    pub const fn from_wire(code: u32) -> Self {
        match code {
            0 => Self::Finished,
            1 => Self::Duplicate,
            2 => Self::Violation,
            3 => Self::Refused,
            4 => Self::Overloaded,
            other => Self::Other(other),
        }
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// This side closed it.
    Here,
    /// The peer closed it.
    ByPeer {
        /// Its code.
        code: CloseCode,
        /// Its words, at most 256 bytes, from an untrusted side: escape before showing.
        reason: String,
    },
    /// Nothing was heard for the idle time-out, or the peer restarted.
    Lost,
    /// The transport failed.
    Failed(String),
}

impl fmt::Display for Closed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here => formatter.write_str("closed here"),
            Self::ByPeer { code, reason } => {
                write!(formatter, "closed by the peer: {code:?} {:?}", reason)
            }
            Self::Lost => formatter.write_str("lost"),
            Self::Failed(text) => write!(formatter, "failed: {text}"),
        }
    }
}

/// Bytes that a connection put on and took from the network, headers of the transport included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
}

/// What a transport does for a connection besides its streams.
pub trait Link: Send + Sync {
    /// See [`ConnectionHandle::remote_address`].
    fn remote_address(&self) -> Option<SocketAddr>;
    /// See [`ConnectionHandle::rtt`].
    fn rtt(&self) -> Option<Duration>;
    /// See [`ConnectionHandle::traffic`].
    fn traffic(&self) -> Traffic;
    /// See [`ConnectionHandle::close`].
    fn close(&self, code: CloseCode, reason: &str);
    /// See [`ConnectionHandle::closed`].
    fn closed(&self) -> BoxFuture<'_, Closed>;
}

/// Identity and life of a connection; cheap to clone.
#[derive(Clone)]
pub struct ConnectionHandle {
    link: Arc<dyn Link>,
    facts: Facts,
}

/// What is fixed for the whole life of a connection.
#[derive(Clone, Copy)]
pub struct Facts {
    /// The authenticated peer.
    pub peer: DeviceId,
    /// Whether this side dialled.
    pub is_dialer: bool,
    /// Secret shared by the two ends of just this connection.
    pub exporter: [u8; 32],
}

impl ConnectionHandle {
    /// Joins what a transport knows about a connection.
    pub fn new(link: Arc<dyn Link>, facts: Facts) -> Self {
        Self { link, facts }
    }

    /// The device at the other end, proven by its key.
    pub fn peer(&self) -> DeviceId {
        self.facts.peer
    }

    /// Whether this side dialled. The two ends always see opposite values.
    pub fn is_dialer(&self) -> bool {
        self.facts.is_dialer
    }

    /// 32 bytes that only the two ends of this very connection know: the TLS exporter (RFC 8446, 7.5) with label
    /// `ouisync v1 peer proof` and empty context. Equal at both ends, different for each connection.
    pub fn exporter(&self) -> [u8; 32] {
        self.facts.exporter
    }

    /// The peer's socket on the path in use; changes when the peer roams.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.link.remote_address()
    }

    /// Smoothed round-trip time of the path in use.
    pub fn rtt(&self) -> Option<Duration> {
        self.link.rtt()
    }

    /// Bytes sent and received so far.
    pub fn traffic(&self) -> Traffic {
        self.link.traffic()
    }

    /// Closes at once; what was sent and not yet acknowledged may be lost. `reason` is for the peer's log (cut to
    /// 256 bytes) and must hold no secret. Closing twice is harmless.
    pub fn close(&self, code: CloseCode, reason: &str) {
        let mut end = reason.len().min(256);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        self.link.close(code, &reason[..end]);
    }

    /// Waits until the connection has ended, from either side.
    pub async fn closed(&self) -> Closed {
        self.link.closed().await
    }
}

impl fmt::Debug for ConnectionHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ConnectionHandle")
            .field("peer", &self.facts.peer)
            .field("is_dialer", &self.facts.is_dialer)
            .finish_non_exhaustive()
    }
}

/// A connection in parts; take it apart and give each half to the task that owns it. The connection closes with
/// [`CloseCode::Finished`] when the handles and halves are all dropped.
pub struct Connection {
    /// Identity and life.
    pub handle: ConnectionHandle,
    /// Outgoing control messages; never wait behind bulk.
    pub control_sender: ControlSender,
    /// Incoming control messages.
    pub control_receiver: ControlReceiver,
    /// Outgoing bulk records.
    pub bulk_sender: BulkSender,
    /// Incoming bulk records.
    pub bulk_receiver: BulkReceiver,
}

impl Connection {
    /// See [`ConnectionHandle::peer`].
    pub fn peer(&self) -> DeviceId {
        self.handle.peer()
    }

    /// See [`ConnectionHandle::is_dialer`].
    pub fn is_dialer(&self) -> bool {
        self.handle.is_dialer()
    }

    /// See [`ConnectionHandle::exporter`].
    pub fn exporter(&self) -> [u8; 32] {
        self.handle.exporter()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.fmt(formatter)
    }
}
