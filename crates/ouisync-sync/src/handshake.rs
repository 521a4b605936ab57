//! What two devices have in common: matched tags open channels; nothing else is revealed.
//!
//! Owns the matching of one connection. Does not judge members: see [`Rights`].

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use ouisync_crypto::{
    keys::PeerAuthKey,
    proof::{ChannelId, Exporter, MAX_TAGS, MIN_TAGS, Side, Tag, pad_tags},
};
use ouisync_model::id::{EpochId, FolderId, InvitationId};
use rand_core::CryptoRng;
use thiserror::Error;

use crate::{
    codec::{ClosedReason, Message, VERSION},
    folder::Rights,
};

/// Greatest number of Proofs of one connection.
pub const MAX_LISTS: u32 = 65_536;

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

/// What a credential's key stands for. Of several that match in one folder the greatest is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CredentialKind {
    /// An invitation that is not accepted any more. It opens nothing and is not proven; whoever proves it is told.
    Closed(InvitationId, ClosedReason),
    /// An open invitation.
    Invitation(InvitationId),
    /// An epoch of the folder.
    Epoch {
        /// Its number of rotations.
        generation: u64,
        /// The epoch.
        epoch: EpochId,
        /// It is the current one.
        current: bool,
    },
}

impl CredentialKind {
    fn rights(self) -> Option<Rights> {
        match self {
            Self::Closed(..) => None,
            Self::Invitation(invitation) => Some(Rights::Invitation(invitation)),
            Self::Epoch { current: true, .. } => Some(Rights::Current),
            Self::Epoch { current: false, .. } => Some(Rights::Older),
        }
    }
}

/// A channel and what its peer may do.
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
    /// An open channel goes on with other rights (the folder's epoch changed here).
    RightsChanged(OpenedChannel),
    /// The channel is no more. Messages and records that still come for it are ignored.
    Closed(ChannelId),
    /// The peer doesn't accept the invitation that was proven for this folder.
    Refused(FolderId, ClosedReason),
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
    side: Side,
    exporter: Exporter,
    /// What the peer's list is searched for.
    expected: HashMap<Tag, OpenedCandidate>,
    /// Own tags, sorted, to see a change.
    proven: Vec<Tag>,
    peer_tags: HashSet<Tag>,
    hello: bool,
    lists: u32,
    open: BTreeMap<FolderId, OpenedChannel>,
    /// Closed invitations that the peer was told of.
    told: HashSet<ChannelId>,
    outputs: VecDeque<HandshakeOutput>,
}

#[derive(Clone, Copy)]
struct OpenedCandidate {
    folder: FolderId,
    kind: CredentialKind,
    channel: ChannelId,
}

impl Handshake {
    /// Queues Hello and Proofs.
    pub fn new(
        side: Side,
        exporter: Exporter,
        credentials: Vec<Credential>,
        rng: &mut impl CryptoRng,
    ) -> Self {
        let mut handshake = Self {
            side,
            exporter,
            expected: HashMap::new(),
            proven: Vec::new(),
            peer_tags: HashSet::new(),
            hello: false,
            lists: 0,
            open: BTreeMap::new(),
            told: HashSet::new(),
            outputs: VecDeque::new(),
        };
        handshake.send(Message::Hello {
            version: VERSION,
            features: 0,
        });
        handshake.prove(credentials, true, rng);
        handshake
    }

    /// Folders, epochs or invitations changed: proves and matches anew. Nothing is sent when the keys are the same.
    pub fn credentials_changed(&mut self, credentials: Vec<Credential>, rng: &mut impl CryptoRng) {
        self.prove(credentials, false, rng);
        self.match_tags();
    }

    /// A Hello or Proofs of the peer; of other messages only their coming after Hello is checked.
    pub fn message(&mut self, message: &Message) -> Result<(), HandshakeError> {
        match message {
            Message::Hello {
                version,
                features: _,
            } => {
                if std::mem::replace(&mut self.hello, true) {
                    return Err(HandshakeError::HelloOrder);
                }
                if *version != VERSION {
                    return Err(HandshakeError::Version { version: *version });
                }
            }
            _ if !self.hello => return Err(HandshakeError::HelloOrder),
            Message::Proofs { tags } => {
                let count = tags.len();
                if !count.is_power_of_two() || !(MIN_TAGS..=MAX_TAGS).contains(&count) {
                    return Err(HandshakeError::TagCount { count });
                }
                self.lists += 1;
                if self.lists > MAX_LISTS {
                    return Err(HandshakeError::TooManyLists);
                }
                self.peer_tags = tags.iter().copied().collect();
                self.match_tags();
            }
            Message::InvitationClosed { channel, reason } => {
                let proven = self.expected.values().find(|candidate| {
                    candidate.channel == *channel
                        && matches!(candidate.kind, CredentialKind::Invitation(_))
                });
                if let Some(candidate) = proven {
                    self.outputs
                        .push_back(HandshakeOutput::Refused(candidate.folder, *reason));
                }
            }
            Message::Folder { .. } | Message::Observed { .. } => {}
        }
        Ok(())
    }

    /// Channels that are open now.
    pub fn channels(&self) -> impl Iterator<Item = &OpenedChannel> {
        self.open.values()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<HandshakeOutput> {
        self.outputs.pop_front()
    }

    fn send(&mut self, message: Message) {
        self.outputs.push_back(HandshakeOutput::Send(message));
    }

    fn prove(&mut self, mut credentials: Vec<Credential>, always: bool, rng: &mut impl CryptoRng) {
        // Beyond the limit of a list the newest keys matter most.
        credentials.sort_by_key(|credential| std::cmp::Reverse(credential.kind));
        credentials.truncate(MAX_TAGS);
        self.expected = credentials
            .iter()
            .map(|credential| {
                let tag = credential.key.tag(&self.exporter, self.side.other());
                let channel = credential.key.channel(&self.exporter);
                (
                    tag,
                    OpenedCandidate {
                        folder: credential.folder,
                        kind: credential.kind,
                        channel,
                    },
                )
            })
            .collect();
        let mut tags: Vec<Tag> = credentials
            .iter()
            .filter(|credential| credential.kind.rights().is_some())
            .map(|credential| credential.key.tag(&self.exporter, self.side))
            .collect();
        tags.sort_unstable();
        tags.dedup();
        if always || tags != self.proven {
            self.proven.clone_from(&tags);
            let tags = pad_tags(tags, rng);
            self.send(Message::Proofs { tags });
        }
    }

    fn match_tags(&mut self) {
        let mut best: BTreeMap<FolderId, OpenedCandidate> = BTreeMap::new();
        for tag in &self.peer_tags {
            let Some(candidate) = self.expected.get(tag) else {
                continue;
            };
            let entry = best.entry(candidate.folder).or_insert(*candidate);
            if candidate.kind > entry.kind {
                *entry = *candidate;
            }
        }
        let mut open: BTreeMap<FolderId, OpenedChannel> = BTreeMap::new();
        for (folder, OpenedCandidate { kind, channel, .. }) in best {
            if let Some(rights) = kind.rights() {
                let opened = OpenedChannel {
                    channel,
                    folder,
                    rights,
                };
                open.insert(folder, opened);
            } else if let CredentialKind::Closed(_, reason) = kind
                && self.told.insert(channel)
            {
                self.send(Message::InvitationClosed { channel, reason });
            }
        }
        for (folder, old) in &self.open {
            if open
                .get(folder)
                .is_none_or(|new| new.channel != old.channel)
            {
                self.outputs.push_back(HandshakeOutput::Closed(old.channel));
            }
        }
        for (folder, new) in &open {
            match self.open.get(folder) {
                Some(old) if old == new => {}
                Some(old) if old.channel == new.channel => {
                    self.outputs.push_back(HandshakeOutput::RightsChanged(*new));
                }
                _ => self.outputs.push_back(HandshakeOutput::Opened(*new)),
            }
        }
        self.open = open;
    }
}
