//! Checkpoints: starting from a state instead of from all commits, and dropping the bytes of commits that a state stands in for.
//!
//! Owns the blind half: skeletons (what is known of covered commits without their bytes), which checkpoints are here and how far
//! they were checked, installing one from a peer. The readers' half, the state itself, is [`crate::index::state`]. Who may make
//! one is the roster's to say. Format: `docs/format/checkpoints.md`.

use ouisync_crypto::{
    commit::CheckpointDigest,
    roster::{state::RosterState, statement::LastCommit},
};
use ouisync_model::id::{CommitId, Lamport, MemberId, PackId, Sequence};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    error::{ErrorKind, StoreError},
    store::Store,
};

mod codec;
mod cover;
mod drop;
mod install;
mod known;
mod past;
mod spool;

use codec::Reader;
use spool::Spool;

/// Most bytes of a skeleton: about six million commits.
pub const MAX_SKELETON: u64 = 256 << 20;

/// Who may write, as of the roster that a checkpoint names.
pub trait Writers {
    /// Whether all commits of this author count.
    fn may_write(&self, author: &MemberId) -> bool;

    /// For an author who lost the right: what those who decided it had of its commits.
    fn last_commits(&self, author: &MemberId) -> &[LastCommit];
}

impl Writers for RosterState {
    fn may_write(&self, author: &MemberId) -> bool {
        Self::may_write(self, author)
    }

    fn last_commits(&self, author: &MemberId) -> &[LastCommit] {
        Self::last_commits(self, author).unwrap_or_default()
    }
}

/// How far a checkpoint was checked on this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CheckpointCheck {
    /// Its skeleton isn't that of the commits that it covers: it counts for nothing.
    Wrong,
    /// Its skeleton is right, its state isn't: nothing starts from it or is dropped because of it.
    WrongState,
    /// Not yet.
    Unchecked,
    /// Its skeleton is right, or it came from a peer and this store started from it. More can't be checked without reading keys.
    Blind,
    /// Its state is right as well.
    Whole,
}

impl CheckpointCheck {
    /// Whether the skeleton is right; `None` before it was checked.
    pub const fn skeleton_is_right(self) -> Option<bool> {
        match self {
            Self::Wrong => Some(false),
            Self::Unchecked => None,
            Self::WrongState | Self::Blind | Self::Whole => Some(true),
        }
    }
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
    /// What it says of the commits that it covers; not known of one that came without bytes.
    pub digest: Option<CheckpointDigest>,
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
    /// A checkpoint among the covered commits was not checked yet: that comes first.
    #[error("checkpoint {0} must be checked first")]
    Unchecked(CommitId),
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
            Self::Unchecked(_) => ErrorKind::Transient,
            Self::NotOne(_) | Self::TooLarge | Self::NotBeyond(_) => ErrorKind::Permanent,
        }
    }
}

/// A skeleton that this store made, in a file of its directory that goes when this is dropped (and at the next opening).
#[derive(Debug)]
pub struct Skeleton {
    spool: Spool,
    digest: CheckpointDigest,
    quarantined: Vec<CommitId>,
    covers: Vec<CommitId>,
}

impl Skeleton {
    /// Length in bytes, at most [`MAX_SKELETON`].
    pub fn length(&self) -> u64 {
        self.spool.length()
    }

    /// What a checkpoint with this skeleton says.
    pub const fn digest(&self) -> CheckpointDigest {
        self.digest
    }

    /// At most `length` bytes from `offset` on; none at the end.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        self.spool.read(offset, length)
    }

    /// The commits covered and not counted.
    pub fn quarantined(&self) -> &[CommitId] {
        &self.quarantined
    }

    /// Visits the commits that count, in causal order.
    pub(crate) fn visit_accepted<E: From<CheckpointError>>(
        &self,
        mut visit: impl FnMut(Lamport, CommitId) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut reader = Reader::new(&self.spool)?;
        while let Some(entry) = reader.next_commit()? {
            if entry.accepted {
                visit(entry.lamport, entry.commit)?;
            }
        }
        Ok(())
    }

    /// The adds in force over the commits that count, by pack and adding commit.
    pub(crate) fn dots(&self) -> Result<Vec<(PackId, CommitId)>, CheckpointError> {
        let mut reader = Reader::new(&self.spool)?;
        while reader.next_commit()?.is_some() {}
        let mut dots = Vec::new();
        while let Some(dot) = reader.next_dot()? {
            let adding = reader.commit_at(dot.adding);
            dots.extend(adding.map(|adding| (dot.pack, adding)));
        }
        Ok(dots)
    }
}

/// Takes the bytes of a skeleton as they come from a peer, into a file that goes when this is dropped.
#[derive(Debug)]
pub struct SkeletonSpool(Spool);

impl SkeletonSpool {
    /// Appends what comes next; refused beyond [`MAX_SKELETON`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.0.push(bytes)
    }

    /// Bytes taken so far.
    pub fn length(&self) -> u64 {
        self.0.length()
    }
}

impl Store {
    /// Begins to take a skeleton from a peer.
    pub fn begin_skeleton(&self) -> SkeletonSpool {
        SkeletonSpool(Spool::new(self))
    }
}
