//! What the state machine of a folder tells its host to do.

use std::fmt;

use bytes::Bytes;
use ouisync_crypto::{
    frame_hash::FrameHash,
    possession::{Nonce, Possession},
    proof::MemberProof,
};
use ouisync_model::{
    id::{CommitId, PackId},
    operation::PackSize,
};
use thiserror::Error;

use crate::codec::{Contact, FolderMessage, Sample};

/// A connected peer: one channel of one connection, by a number that the host never uses twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub u64);

impl fmt::Display for PeerKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write the message to the peer's control stream, then call [`sent`](super::FolderSync::sent).
    Send {
        /// The peer.
        peer: PeerKey,
        /// The message.
        message: FolderMessage,
    },
    /// Read the frames and write them as one record to the peer's bulk stream, then call
    /// [`served`](super::FolderSync::served); when they can't be read write nothing and call
    /// [`serve_failed`](super::FolderSync::serve_failed).
    Serve {
        /// The peer.
        peer: PeerKey,
        /// The pack, stored here.
        pack: PackId,
        /// First frame.
        first: u32,
        /// Number of frames.
        count: u32,
    },
    /// Check the entries and add them to the roster, then call [`roster_accepted`](super::FolderSync::roster_accepted) or
    /// [`roster_refused`](super::FolderSync::roster_refused).
    AddRosterEntries {
        /// Who sent them.
        peer: PeerKey,
        /// Their bytes, parents first.
        entries: Vec<Bytes>,
    },
    /// Check the commits and make them durable, in order and after earlier roster entries, then call
    /// [`commits_accepted`](super::FolderSync::commits_accepted) or
    /// [`commits_refused`](super::FolderSync::commits_refused). Batches of one peer are answered in order.
    AddCommits {
        /// Who sent them.
        peer: PeerKey,
        /// Their bytes in causal order; none is held yet.
        commits: Vec<Bytes>,
    },
    /// A peer offers a checkpoint: tell by [`checkpoint_judged`](super::FolderSync::checkpoint_judged) whether it is worth
    /// fetching its skeleton.
    JudgeCheckpoint {
        /// The peer.
        peer: PeerKey,
        /// Bytes of its commit.
        commit: Bytes,
        /// Length of its skeleton in bytes.
        length: u64,
    },
    /// Keep a part of the skeleton of the checkpoint that was judged last; parts come in order. One at 0 begins a new one.
    KeepSkeleton {
        /// Where in the skeleton.
        offset: u64,
        /// The part.
        data: Bytes,
    },
    /// The kept skeleton is whole: check it against the checkpoint and install that, durably, then call
    /// [`checkpoint_installed`](super::FolderSync::checkpoint_installed),
    /// [`checkpoint_unusable`](super::FolderSync::checkpoint_unusable) or
    /// [`checkpoint_refused`](super::FolderSync::checkpoint_refused).
    AddCheckpoint {
        /// Who sent it.
        peer: PeerKey,
        /// Bytes of its commit.
        commit: Bytes,
    },
    /// A commit that [`want_past`](super::FolderSync::want_past) asked for: its bytes have its id, and are not checked otherwise.
    KeepPast {
        /// The commit.
        commit: CommitId,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Check the proof for this connection and that the member is in the roster, then call [`member_proven`](super::FolderSync::member_proven) or
    /// [`member_refused`](super::FolderSync::member_refused).
    ProveMember {
        /// The peer.
        peer: PeerKey,
        /// Who it says it is, with signature.
        proof: MemberProof,
    },
    /// Keep the verified hash list of a pack that is about to be written, so that a later start can resume.
    StoreHashes {
        /// The pack.
        pack: PackId,
        /// Its size.
        size: PackSize,
        /// Chaining values of all frames.
        hashes: Vec<FrameHash>,
    },
    /// Write verified frames at `first` × 64 KiB, then call [`frames_written`](super::FolderSync::frames_written).
    WriteFrames {
        /// The pack.
        pack: PackId,
        /// First frame.
        first: u32,
        /// Whole frames.
        data: Bytes,
    },
    /// All frames have been given out and verified against the pack's id: move the pack into place, then call
    /// [`pack_stored`](super::FolderSync::pack_stored), and later [`packs_durable`](super::FolderSync::packs_durable);
    /// on failure [`pack_lost`](super::FolderSync::pack_lost).
    FinishPack {
        /// The pack.
        pack: PackId,
    },
    /// Read the samples and compute what shows possession of them on this connection, then call
    /// [`possession_ready`](super::FolderSync::possession_ready). Reading takes time: elsewhere.
    Prove {
        /// Who asks.
        peer: PeerKey,
        /// Of the challenge.
        nonce: Nonce,
        /// What to read; groups are within their packs.
        samples: Vec<Sample>,
    },
    /// A peer's answer to a challenge, if there was one. It is for the host to judge.
    Judge {
        /// Who answers.
        peer: PeerKey,
        /// Of the challenge.
        nonce: Nonce,
        /// As the peer says.
        proofs: Vec<Option<Possession>>,
    },
    /// A peer says where devices of members are.
    Contacts {
        /// Who says so.
        peer: PeerKey,
        /// The devices.
        contacts: Vec<Contact>,
    },
    /// Close the connection to this peer, which is already forgotten here: [`peer_disconnected`](super::FolderSync::peer_disconnected)
    /// need not be called.
    Disconnect {
        /// The peer.
        peer: PeerKey,
        /// Why.
        reason: DropReason,
    },
    /// An answer of the status queries may have changed. Sent at most once until the outputs have been drained.
    StatusChanged,
}

/// Why a peer was dropped. The state of the folder is unharmed.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum DropReason {
    /// A frame doesn't match the pack's hash list.
    #[error("frame {frame} of pack {pack} has the wrong hash")]
    WrongFrame {
        /// The pack.
        pack: PackId,
        /// The frame.
        frame: u32,
    },
    /// A hash list doesn't merge to the pack's id.
    #[error("hash list of pack {pack} doesn't match the pack")]
    WrongHashes {
        /// The pack.
        pack: PackId,
    },
    /// Frames or hashes that nobody asked this peer for.
    #[error("unrequested data of pack {pack}")]
    Unrequested {
        /// The pack.
        pack: PackId,
    },
    /// A record that isn't whole frames inside the pack.
    #[error("malformed frames of pack {pack}")]
    MalformedFrames {
        /// The pack.
        pack: PackId,
    },
    /// A want outside the pack.
    #[error("impossible want of pack {pack}")]
    ImpossibleWant {
        /// The pack.
        pack: PackId,
    },
    /// More waiting wants than allowed.
    #[error("too many waiting wants")]
    WantFlood,
    /// More data in flight to the host than allowed, or lists beyond what the folder can contain.
    #[error("too much unanswered data")]
    Flood,
    /// A challenge out of all bounds, or another before the first was answered.
    #[error("impossible challenge")]
    ImpossibleChallenge,
    /// A commit that the host refused.
    #[error("refused commit: {0}")]
    RefusedCommit(String),
    /// A checkpoint that the host refused.
    #[error("refused checkpoint: {0}")]
    RefusedCheckpoint(String),
    /// A checkpoint out of all bounds, or parts of one that nobody asked this peer for.
    #[error("impossible checkpoint")]
    ImpossibleCheckpoint,
    /// A second question about commits of the past before the first was answered, or an answer that wasn't asked for.
    #[error("impossible message about commits of the past")]
    ImpossiblePast,
    /// A roster entry that the host refused.
    #[error("refused roster entry: {0}")]
    RefusedRoster(String),
    /// A membership proof that the host refused.
    #[error("refused member: {0}")]
    RefusedMember(String),
    /// It acknowledged commits that were never sent.
    #[error("acknowledged what was not sent")]
    WrongAccepted,
    /// A message that this peer has no right to send.
    #[error("message without the right to it")]
    NoRight,
}
