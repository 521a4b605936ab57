//! What two devices have in common: matched tags open channels; nothing else is revealed.
//!
//! Owns the matching of one connection. Does not judge members: see [`Rights`](crate::folder::Rights).

use std::collections::VecDeque;

use ouisync_crypto::{
    keys::PeerAuthKey,
    proof::{ChannelId, Exporter, Side},
};
use ouisync_model::id::{EpochId, FolderId, InvitationId};
use rand_core::CryptoRng;
use thiserror::Error;

use crate::{codec::Message, folder::Rights};

/// A key whose knowledge opens a channel.
#[derive(Clone)]
pub struct Credential {
    /// The folder.
    pub folder: FolderId,
    /// What the key stands for.
    pub kind: CredentialKind,
    /// The peer-authentication key of the epoch, or the invitation's.
    pub key: PeerAuthKey,
}

/// What a credential's key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CredentialKind {
    /// An open invitation.
    Invitation(InvitationId),
    /// An epoch of the folder.
    Epoch {
        /// Its number of rotations.
        generation: u32,
        /// The epoch.
        epoch: EpochId,
        /// It is the current one.
        current: bool,
    },
}

/// A channel that opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedChannel {
    /// The channel.
    pub channel: ChannelId,
    /// The folder.
    pub folder: FolderId,
    /// What the peer may do.
    pub rights: Rights,
}

/// What the host must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeOutput {
    /// Write the message to the control stream.
    Send(Message),
    /// Both ends share this folder.
    Opened(OpenedChannel),
    /// The channel is no more. Messages and records that still come for it are ignored.
    Closed(ChannelId),
}

/// The peer broke the protocol: close the connection.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeError {
    /// Anything before Hello, or a second one.
    #[error("Hello out of order")]
    HelloOrder,
    /// The peer speaks another version.
    #[error("protocol version {version} is not supported")]
    Version {
        /// Its version.
        version: u32,
    },
    /// Fewer than 16 tags, too many, or not a power of two.
    #[error("proof list of {count} tags")]
    TagCount {
        /// Their number.
        count: usize,
    },
    /// The list of tags was replaced too often.
    #[error("too many proof lists")]
    TooManyLists,
}

/// The handshake of one connection; lives as long as it.
pub struct Handshake {
    outputs: VecDeque<HandshakeOutput>,
}

impl Handshake {
    /// Queues Hello and Proofs.
    pub fn new(
        side: Side,
        exporter: Exporter,
        credentials: Vec<Credential>,
        rng: &mut impl CryptoRng,
    ) -> Self {
        let _ = (side, exporter, credentials, rng);
        Self {
            outputs: VecDeque::new(),
        }
    }

    /// Folders, epochs or invitations changed: proves and matches anew. Nothing happens when the list is the same.
    pub fn credentials_changed(&mut self, credentials: Vec<Credential>, rng: &mut impl CryptoRng) {
        let _ = (credentials, rng);
    }

    /// A Hello or Proofs of the peer; other messages are only checked to come after Hello.
    pub fn message(&mut self, message: &Message) -> Result<(), HandshakeError> {
        let _ = message;
        Ok(())
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<HandshakeOutput> {
        self.outputs.pop_front()
    }
}
