//! Messages of the control stream: types, limits, encoding, and the incremental decoder.
//!
//! Knows shapes and limits only; whether a message makes sense at its time is judged by the state machines.

mod list;

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use ouisync_crypto::{
    frame_hash::FrameHash,
    possession::{Nonce, Possession},
    proof::{ChannelId, MAX_TAGS, MemberProof, Tag},
};
use ouisync_model::id::{CommitId, DeviceId, MemberId, PackId, RosterEntryId, Sequence};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::list::{bounded, bounded_text};

/// Version of the protocol, sent in [`Message::Hello`].
pub const VERSION: u32 = 1;
/// Greatest length of an encoded message in bytes, without its length prefix.
pub const MAX_MESSAGE: usize = 8 << 20;
/// Greatest number of roster heads in one message.
pub const MAX_ROSTER_HEADS: usize = 1024;
/// Greatest number of roster entries in one message.
pub const MAX_ROSTER_ENTRIES: usize = 4096;
/// Greatest number of chains in one message.
pub const MAX_CHAINS: usize = 65_536;
/// Greatest number of commits in one message.
pub const MAX_COMMITS: usize = 4096;
/// Length in bytes after which a sender closes a batch of commits or roster entries.
pub const BATCH_BYTES: usize = 1 << 20;
/// Greatest number of pack or commit ids in one list.
pub const MAX_IDS: usize = 65_536;
/// Greatest length of a checkpoint's skeleton in bytes.
pub const MAX_SKELETON: u64 = 256 << 20;
/// Length of a part of a skeleton in bytes; only the last one may be shorter.
pub const SKELETON_PART: usize = 1 << 20;
/// Greatest number of commits of the past in one question.
pub const MAX_PAST: usize = 256;
/// Greatest number of frames in a pack.
pub const MAX_FRAMES: usize = 256;
/// Greatest number of contacts in one message.
pub const MAX_CONTACTS: usize = 256;
/// Greatest number of addresses of one contact.
pub const MAX_ADDRESSES: usize = 16;
/// Greatest length of an address in bytes.
pub const MAX_ADDRESS: usize = 256;
/// Packs of one challenge.
pub const MAX_SAMPLES: usize = 256;
/// Groups of one challenge, of all its packs together, and so of each.
pub const MAX_GROUPS: usize = 4096;

/// A message of the control stream. The index of a variant is part of the format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// First message of each side.
    Hello {
        /// [`VERSION`] of the sender.
        version: u32,
        /// Bits of optional abilities; none is defined yet, unknown ones are ignored.
        features: u64,
    },
    /// What the sender can prove; replaces its earlier list.
    Proofs {
        /// Shuffled and padded to a power of two, at least 16.
        #[serde(deserialize_with = "bounded::<MAX_TAGS, _, _>")]
        tags: Vec<Tag>,
    },
    /// A message of one folder.
    Folder {
        /// The channel that the handshake opened for it.
        channel: ChannelId,
        /// The message.
        message: FolderMessage,
    },
    /// The address at which the sender sees the receiver, as `ip:port`.
    Observed {
        /// At most [`MAX_ADDRESS`] bytes.
        #[serde(deserialize_with = "bounded_text::<MAX_ADDRESS, _>")]
        address: String,
    },
    /// The receiver proved an invitation that the sender no longer accepts.
    InvitationClosed {
        /// The channel that the invitation would have opened.
        channel: ChannelId,
        /// Why.
        reason: ClosedReason,
    },
}

/// Why an invitation is not accepted any more. The index of a variant is part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ClosedReason {
    /// It was used up or revoked.
    Spent,
    /// Its time is over.
    Expired,
}

/// A message of one folder. The index of a variant is part of the format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FolderMessage {
    /// Proves that the sender is a member.
    Member {
        /// Bound to this connection and folder.
        proof: MemberProof,
    },
    /// Heads of the sender's roster.
    Roster {
        /// Entries that no other entry has as parent.
        #[serde(deserialize_with = "bounded::<MAX_ROSTER_HEADS, _, _>")]
        heads: Vec<RosterEntryId>,
    },
    /// Asks for all roster entries that are not in the closure of `have`.
    RosterWant {
        /// Heads of the asker's roster.
        #[serde(deserialize_with = "bounded::<MAX_ROSTER_HEADS, _, _>")]
        have: Vec<RosterEntryId>,
    },
    /// Roster entries, parents first.
    RosterEntries {
        /// Their bytes.
        #[serde(deserialize_with = "bounded::<MAX_ROSTER_ENTRIES, _, _>")]
        entries: Vec<Blob>,
        /// The answer or push goes on in the next such message.
        more: bool,
    },
    /// The sender has these commits with all their ancestors, and their live packs unless it listed them as lacking. The
    /// first one of a channel also says that the sender knows every roster entry the receiver announced and is ready for
    /// commits.
    Heads {
        /// The last commit of every author; several of one author after a fork.
        #[serde(deserialize_with = "bounded::<MAX_CHAINS, _, _>")]
        chains: Vec<Chain>,
    },
    /// All commits of one author that the sender has, because their sequence numbers don't tell (a fork).
    AuthorCommits {
        /// The author.
        author: MemberId,
        /// By sequence number.
        #[serde(deserialize_with = "bounded::<MAX_IDS, _, _>")]
        commits: Vec<CommitId>,
        /// The list goes on in the next message.
        more: bool,
    },
    /// Commits in causal order.
    Commits {
        /// Their bytes.
        #[serde(deserialize_with = "bounded::<MAX_COMMITS, _, _>")]
        commits: Vec<Blob>,
        /// Live packs added by these commits that the sender doesn't hold durably.
        #[serde(deserialize_with = "bounded::<MAX_IDS, _, _>")]
        lacking: Vec<PackId>,
    },
    /// So many more commits, in the order in which they came, are checked and durable. The first one follows the first
    /// Heads of the receiver and the lists that those call for; it may tell of none.
    Accepted {
        /// Since the last such message.
        commits: u32,
    },
    /// Live packs that the sender doesn't hold durably; comes before the Heads that announce them.
    Inventory {
        /// The packs.
        #[serde(deserialize_with = "bounded::<MAX_IDS, _, _>")]
        lacking: Vec<PackId>,
    },
    /// The sender can serve these packs now, though they may still be lost in a crash.
    Holds {
        /// The packs.
        #[serde(deserialize_with = "bounded::<MAX_IDS, _, _>")]
        packs: Vec<PackId>,
    },
    /// The sender holds these packs durably.
    Received {
        /// The packs.
        #[serde(deserialize_with = "bounded::<MAX_IDS, _, _>")]
        packs: Vec<PackId>,
    },
    /// Asks for frames; answered by exactly these frames on the bulk stream or by [`Unavailable`](Self::Unavailable).
    Want {
        /// The pack.
        pack: PackId,
        /// First frame.
        first: u32,
        /// Number of frames, at least 1.
        count: u32,
        /// Send the pack's [`Hashes`](Self::Hashes) too.
        hashes: bool,
    },
    /// Chaining values of all frames of a pack.
    Hashes {
        /// The pack.
        pack: PackId,
        /// One a frame.
        #[serde(deserialize_with = "bounded::<MAX_FRAMES, _, _>")]
        hashes: Vec<FrameHash>,
    },
    /// The sender will not answer this want.
    Unavailable {
        /// The pack.
        pack: PackId,
        /// First frame as wanted.
        first: u32,
        /// Number of frames as wanted.
        count: u32,
    },
    /// Where devices of members of this folder can be reached.
    Contacts {
        /// The devices.
        #[serde(deserialize_with = "bounded::<MAX_CONTACTS, _, _>")]
        contacts: Vec<Contact>,
    },
    /// A checkpoint that the receiver can start from, instead of the commits that it covers. No commits follow until it is
    /// answered by [`Settled`](Self::Settled).
    Checkpoint {
        /// The bytes of the checkpoint's commit.
        commit: Blob,
        /// Length of its skeleton in bytes, at most [`MAX_SKELETON`].
        length: u64,
    },
    /// Asks for the part of an offered checkpoint's skeleton at `offset`.
    SkeletonWant {
        /// The checkpoint.
        checkpoint: CommitId,
        /// A multiple of [`SKELETON_PART`].
        offset: u64,
    },
    /// A part of a skeleton.
    Skeleton {
        /// The checkpoint.
        checkpoint: CommitId,
        /// As wanted.
        offset: u64,
        /// [`SKELETON_PART`] bytes, or what is left.
        data: Blob,
    },
    /// What became of the checkpoint that the receiver had offered.
    Settled {
        /// The checkpoint.
        checkpoint: CommitId,
        /// The sender has it with all that it covers; otherwise it can't use it.
        installed: bool,
    },
    /// Packs, listed as lacking before, that the sender gave up and doesn't want.
    Offloaded {
        /// The packs.
        #[serde(deserialize_with = "bounded::<MAX_IDS, _, _>")]
        packs: Vec<PackId>,
    },
    /// Asks the receiver to show that it holds packs; answered by [`Possession`](Self::Possession).
    Challenge {
        /// Never used before.
        nonce: Nonce,
        /// What to show.
        #[serde(deserialize_with = "bounded::<MAX_SAMPLES, _, _>")]
        samples: Vec<Sample>,
    },
    /// Answers a challenge.
    Possession {
        /// That of the challenge.
        nonce: Nonce,
        /// One for each sample, in order; none of a pack that the sender doesn't hold durably, or is giving up itself.
        #[serde(deserialize_with = "bounded::<MAX_SAMPLES, _, _>")]
        proofs: Vec<Option<Possession>>,
    },
    /// Asks for the bytes of commits that the sender knows without them. One question at a time; answered by
    /// [`Past`](Self::Past).
    PastWant {
        /// At least one.
        #[serde(deserialize_with = "bounded::<MAX_PAST, _, _>")]
        commits: Vec<CommitId>,
    },
    /// Answers the first of the commits that were asked for.
    Past {
        /// The bytes of those of them that the sender holds, in the order of the question.
        #[serde(deserialize_with = "bounded::<MAX_PAST, _, _>")]
        commits: Vec<Blob>,
        /// How many this answers, at least one; the others may be asked for again.
        answered: u32,
    },
}

/// Bytes of a pack whose possession is to be shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sample {
    /// The pack.
    pub pack: PackId,
    /// Groups of 16 KiB in it, strictly ascending, at least one.
    #[serde(deserialize_with = "bounded::<MAX_GROUPS, _, _>")]
    pub groups: Vec<u16>,
}

/// The last commit of one line of an author's commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Chain {
    /// The author.
    pub author: MemberId,
    /// The commit's number.
    pub sequence: Sequence,
    /// The commit.
    pub head: CommitId,
}

/// Where a device can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The device.
    pub device: DeviceId,
    /// Addresses as `ip:port`, at most [`MAX_ADDRESSES`].
    #[serde(deserialize_with = "list::addresses")]
    pub addresses: Vec<String>,
}

/// Opaque bytes, shared without copying.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob(pub Bytes);

impl fmt::Debug for Blob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Blob({} bytes)", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        list::blob(deserializer).map(Self)
    }
}

/// Why bytes of the control stream are not a message. The connection must be closed.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum CodecError {
    /// The length prefix is above [`MAX_MESSAGE`], or the message to encode is longer.
    #[error("a message of {length} bytes is above the limit")]
    TooLong {
        /// Claimed length in bytes.
        length: usize,
    },
    /// Not a known message, or a list above its limit.
    #[error("malformed message")]
    Malformed(#[source] postcard::Error),
    /// Bytes follow the message inside its length.
    #[error("{count} bytes follow the message")]
    Trailing {
        /// Number of bytes.
        count: usize,
    },
}

/// The message with its length prefix.
///
/// Fails only with [`CodecError::TooLong`]: senders keep to the limits.
pub fn encode(message: &Message) -> Result<Bytes, CodecError> {
    let bytes = postcard::to_extend(message, vec![0; 4]).map_err(CodecError::Malformed)?;
    let length = bytes.len() - 4;
    let prefix = u32::try_from(length).ok().filter(|_| length <= MAX_MESSAGE);
    let prefix = prefix.ok_or(CodecError::TooLong { length })?;
    let mut bytes = bytes;
    bytes[..4].copy_from_slice(&prefix.to_le_bytes());
    Ok(bytes.into())
}

/// Cuts the control stream into messages, whatever pieces it arrives in.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// An empty decoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes as they arrive. Call [`next`](Self::next) until `None` before the next push, so that at most one
    /// message waits here.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message.
    #[allow(
        clippy::should_implement_trait,
        reason = "fallible, and resumes after None"
    )]
    pub fn next(&mut self) -> Result<Option<Message>, CodecError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > MAX_MESSAGE {
            return Err(CodecError::TooLong { length });
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        let bytes = self.buffer.split_to(length);
        decode(&bytes).map(Some)
    }
}

/// The message in `bytes`, without length prefix.
pub fn decode(bytes: &[u8]) -> Result<Message, CodecError> {
    let (message, rest) = postcard::take_from_bytes(bytes).map_err(CodecError::Malformed)?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(CodecError::Trailing { count: rest.len() })
    }
}

impl FolderMessage {
    /// About its encoded length in bytes; the same on both sides of a queue.
    pub fn size_hint(&self) -> usize {
        16 + match self {
            Self::Member { .. } => 96,
            Self::Roster { heads } | Self::RosterWant { have: heads } => 32 * heads.len(),
            Self::RosterEntries { entries, .. } => {
                entries.iter().map(|entry| entry.0.len() + 4).sum()
            }
            Self::Heads { chains } => 74 * chains.len(),
            Self::AuthorCommits { commits, .. } => 32 + 32 * commits.len(),
            Self::Commits { commits, lacking } => {
                commits
                    .iter()
                    .map(|commit| commit.0.len() + 4)
                    .sum::<usize>()
                    + 32 * lacking.len()
            }
            Self::Accepted { .. } => 4,
            Self::Inventory { lacking: packs }
            | Self::Offloaded { packs }
            | Self::Holds { packs }
            | Self::Received { packs } => 32 * packs.len(),
            Self::Want { .. } | Self::Unavailable { .. } => 40,
            Self::Hashes { hashes, .. } => 32 + 32 * hashes.len(),
            Self::Contacts { contacts } => contacts
                .iter()
                .map(|contact| {
                    34 + contact
                        .addresses
                        .iter()
                        .map(|text| text.len() + 2)
                        .sum::<usize>()
                })
                .sum(),
            Self::Checkpoint { commit: data, .. } | Self::Skeleton { data, .. } => {
                64 + data.0.len()
            }
            Self::SkeletonWant { .. } | Self::Settled { .. } => 44,
            Self::Challenge { samples, .. } => {
                32 + samples
                    .iter()
                    .map(|sample| 36 + 2 * sample.groups.len())
                    .sum::<usize>()
            }
            Self::Possession { proofs, .. } => 32 + 33 * proofs.len(),
            Self::PastWant { commits } => 32 * commits.len(),
            Self::Past { commits, .. } => {
                8 + commits
                    .iter()
                    .map(|commit| commit.0.len() + 4)
                    .sum::<usize>()
            }
        }
    }
}
