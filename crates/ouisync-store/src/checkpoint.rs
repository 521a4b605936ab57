//! Checkpoints: starting from a state instead of from all commits, and dropping the bytes of commits that a state stands in for.
//!
//! Owns the blind half: skeletons (what is known of covered commits without their bytes), which checkpoints are here and how far
//! they were checked, installing one from a peer. The readers' half, the state itself, is [`crate::index::state`]. Who may make
//! one is the roster's to say. Format: `docs/format/checkpoints.md`.

use ouisync_crypto::{
    commit::{CheckpointDigest, Commit},
    roster::state::RosterState,
};
use ouisync_model::id::{CommitId, Lamport, MemberId, Sequence};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    error::{ErrorKind, StoreError},
    store::Store,
};

/// Most bytes of a skeleton: about six million commits.
pub const MAX_SKELETON: u64 = 256 << 20;

/// How far a checkpoint was checked on this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CheckpointCheck {
    /// Its skeleton isn't that of the commits that it covers: never used for anything.
    Wrong,
    /// Not yet.
    Unchecked,
    /// Its skeleton is right, or it came from a peer and this store started from it. More can't be checked without reading keys.
    Blind,
    /// Its state is right as well.
    Whole,
}

/// A checkpoint that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// Its commit.
    pub commit: CommitId,
    /// Who made it.
    pub author: MemberId,
    /// Its logical time.
    pub lamport: Lamport,
    /// What it says of the commits that it covers.
    pub digest: CheckpointDigest,
    /// How far it was checked here.
    pub check: CheckpointCheck,
    /// Its commit counts.
    pub accepted: bool,
    /// The bytes of its commit are here.
    pub has_bytes: bool,
}

/// What is known of a covered commit without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoveredCommit {
    /// The commit.
    pub commit: CommitId,
    /// Its author.
    pub author: MemberId,
    /// Its number among its author's.
    pub sequence: Sequence,
    /// Its logical time.
    pub lamport: Lamport,
    /// Its parents.
    pub parents: Vec<CommitId>,
    /// It counts; a quarantined one isn't in the state.
    pub accepted: bool,
}

/// What no newest checkpoint covers yet: whether to make one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uncovered {
    /// Number of accepted commits.
    pub commits: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What an installation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// Commits that came without bytes.
    pub commits: u64,
    /// Commits that the checkpoint covers and that were here already.
    pub known: u64,
}

/// Why a checkpoint can't be checked, made or installed.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The commit is no checkpoint, or isn't here.
    #[error("commit {0} is no checkpoint that is here")]
    NotOne(CommitId),
    /// The skeleton has more than [`MAX_SKELETON`] bytes.
    #[error("the skeleton has more than {MAX_SKELETON} bytes")]
    TooLarge,
    /// The skeleton isn't the one that the checkpoint names: the peer that sent it is faulty.
    #[error("the skeleton isn't that of checkpoint {0}")]
    OtherSkeleton(CommitId),
    /// The skeleton breaks the format or contradicts itself: the checkpoint's author is faulty or hostile.
    #[error("the skeleton of the checkpoint breaks the rules: {0}")]
    Malformed(&'static str),
    /// The skeleton contradicts a commit that is here.
    #[error("the checkpoint contradicts commit {0}")]
    Contradicts(CommitId),
    /// It doesn't cover the checkpoint that already stands in for dropped commits here.
    #[error("the checkpoint doesn't cover checkpoint {0}, which this store started from")]
    NotBeyond(CommitId),
}

impl CheckpointError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::OtherSkeleton(_) | Self::Malformed(_) | Self::Contradicts(_) => {
                ErrorKind::Corruption
            }
            Self::NotOne(_) | Self::TooLarge | Self::NotBeyond(_) => ErrorKind::Permanent,
        }
    }
}

/// A skeleton, in a file of the store's directory that goes when this is dropped (and at the next opening).
#[derive(Debug)]
pub struct Skeleton {
    store: Store,
    length: u64,
    digest: CheckpointDigest,
}

impl Skeleton {
    /// Length in bytes, at most [`MAX_SKELETON`].
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// What a checkpoint with this skeleton says.
    pub const fn digest(&self) -> CheckpointDigest {
        self.digest
    }

    /// At most `length` bytes from `offset` on; none at the end.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let (_, _, _) = (&self.store, offset, length);
        Ok(Vec::new())
    }
}

/// Takes the bytes of a skeleton as they come from a peer, into a file that goes when this is dropped.
#[derive(Debug)]
pub struct SkeletonSpool {
    store: Store,
    length: u64,
}

impl SkeletonSpool {
    /// Appends what comes next; refused beyond [`MAX_SKELETON`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        let _ = &self.store;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Bytes taken so far.
    pub const fn length(&self) -> u64 {
        self.length
    }
}

impl Store {
    /// The checkpoints that are here, newest first (by Lamport time, then id); those that another one covers and that came
    /// without bytes included.
    pub fn checkpoints(&self) -> Result<Vec<CheckpointInfo>, StoreError> {
        Ok(Vec::new())
    }

    /// What is known of one checkpoint.
    pub fn checkpoint(&self, commit: CommitId) -> Result<Option<CheckpointInfo>, StoreError> {
        Ok(self
            .checkpoints()?
            .into_iter()
            .find(|info| info.commit == commit))
    }

    /// The newest accepted checkpoint that was checked at least so far, whose bytes are here, and that covers every commit
    /// without bytes: what a peer, and an index, can start from.
    pub fn start(&self, check: CheckpointCheck) -> Result<Option<CheckpointInfo>, StoreError> {
        Ok(self.checkpoints()?.into_iter().find(|info| {
            info.accepted && info.has_bytes && info.check >= check.max(CheckpointCheck::Blind)
        }))
    }

    /// The skeleton of the commits that `parents` and their ancestors are: for a new checkpoint, or of one that is here.
    /// `roster` is the state at the checkpoint's own heads of the roster. Takes some microseconds a commit.
    pub fn skeleton(
        &self,
        parents: &[CommitId],
        roster: &RosterState,
    ) -> Result<Skeleton, CheckpointError> {
        let _ = (parents, roster);
        Err(CheckpointError::Malformed("not built yet"))
    }

    /// Compares a checkpoint's skeleton with the commits that are here and notes the outcome durably. One that was checked
    /// before stays as it is. `roster` is the state at the checkpoint's own heads of the roster.
    pub fn check_checkpoint(
        &self,
        checkpoint: CommitId,
        roster: &RosterState,
    ) -> Result<CheckpointCheck, CheckpointError> {
        let _ = roster;
        Err(CheckpointError::NotOne(checkpoint))
    }

    /// Notes, durably, whether the state of a checkpoint is the one that this device computed.
    pub fn note_state(&self, checkpoint: CommitId, right: bool) -> Result<(), CheckpointError> {
        let _ = right;
        Err(CheckpointError::NotOne(checkpoint))
    }

    /// Visits the commits that a checkpoint covers in causal order. The checkpoint must be here.
    pub fn visit_covered(
        &self,
        checkpoint: CommitId,
        visit: &mut dyn FnMut(CoveredCommit),
    ) -> Result<(), CheckpointError> {
        let _ = visit;
        Err(CheckpointError::NotOne(checkpoint))
    }

    /// Of commits that the roster alone would quarantine, those that stay accepted because a checkpoint that counts covers them
    /// as accepted, or because their bytes are not here any more.
    pub fn settled(
        &self,
        quarantine: &std::collections::BTreeSet<CommitId>,
    ) -> Result<std::collections::BTreeSet<CommitId>, StoreError> {
        let _ = quarantine;
        Ok(std::collections::BTreeSet::new())
    }

    /// What was accepted since the newest checkpoint that was checked; counting stops at `most`.
    pub fn uncovered(&self, most: Uncovered) -> Result<Uncovered, StoreError> {
        let _ = most;
        Ok(Uncovered::default())
    }

    /// Begins to take a skeleton from a peer.
    pub fn begin_skeleton(&self) -> Result<SkeletonSpool, StoreError> {
        Ok(SkeletonSpool {
            store: self.clone(),
            length: 0,
        })
    }

    /// Starts from a checkpoint that a peer sent: what its skeleton says of commits that are not here becomes known, without their
    /// bytes, the live set follows, and the checkpoint's commit is put as accepted. Durable on return, all or nothing.
    ///
    /// The commit's signature and the author's right must be checked before; `roster` is the state at the checkpoint's own heads of
    /// the roster. Commits that are here stay, and what the checkpoint doesn't cover counts on top of it. Index: make it anew
    /// (see [`Store::withdrawals`]).
    pub fn install_checkpoint(
        &self,
        commit: &Commit,
        skeleton: SkeletonSpool,
        roster: &RosterState,
    ) -> Result<Installed, CheckpointError> {
        let _ = (skeleton, roster);
        Err(CheckpointError::NotOne(commit.id()))
    }
}
