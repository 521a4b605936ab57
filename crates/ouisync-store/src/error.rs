//! What can go wrong in the blind store.

use std::io;

use ouisync_model::id::{CommitId, MemberId, PackId, RosterEntryId, Sequence};
use thiserror::Error;

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Trying again later may succeed without anything else being done.
    Transient,
    /// The disk or the quota is full: nothing was lost, free some space and try again.
    Full,
    /// Bytes are not what they were or what they claim to be.
    Corruption,
    /// Trying again won't help; for a poisoned store, reopening it may.
    Permanent,
}

/// An operation of the blind store failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("{operation} failed: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A write could not be made durable. What was being written counts as lost, and the store refuses writes until reopened.
    #[error(
        "{operation} could not be made durable, the store takes no more writes until reopened: {source}"
    )]
    Sync {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// An earlier write could not be made durable: the store refuses writes until reopened.
    #[error("the store takes no more writes until reopened, since an earlier one failed")]
    Poisoned,
    /// Less free space than the reserve is left.
    #[error("only {free} bytes are free on the disk, {reserve} are kept in reserve")]
    Full {
        /// Bytes free.
        free: u64,
        /// Bytes that the store leaves free.
        reserve: u64,
    },
    /// The catalogue's engine failed.
    #[error("the catalogue failed")]
    Catalogue(#[source] Box<fjall::Error>),
    /// A record of the catalogue can't be read.
    #[error("the catalogue holds an unreadable record of kind '{table}'")]
    Record {
        /// First byte of the record's key.
        table: char,
    },
    /// A stored commit doesn't decode.
    #[error("commit {commit} can't be read")]
    CommitUnreadable {
        /// The commit.
        commit: CommitId,
    },
    /// A commit came before its parent.
    #[error("commit {commit} needs its parent {parent} first")]
    ParentMissing {
        /// The commit.
        commit: CommitId,
        /// The absent parent.
        parent: CommitId,
    },
    /// A commit came before the one that its author made just before.
    #[error(
        "commit {commit} is number {sequence} of {author}, whose number before is not among its ancestors"
    )]
    ChainGap {
        /// The commit.
        commit: CommitId,
        /// Its author.
        author: MemberId,
        /// Its number.
        sequence: Sequence,
    },
    /// No such commit here.
    #[error("commit {0} is not in the store")]
    UnknownCommit(CommitId),
    /// No such roster entry here.
    #[error("roster entry {0} is not in the store")]
    UnknownRosterEntry(RosterEntryId),
    /// The store neither has nor wants this pack.
    #[error("pack {0} is neither stored nor wanted")]
    UnknownPack(PackId),
    /// The pack isn't (wholly) here.
    #[error("pack {0} is not here")]
    PackAbsent(PackId),
    /// The pack's file is damaged or gone.
    #[error("pack {0} is damaged on disk")]
    PackDamaged(PackId),
    /// Ranges of a pack of several frames can't be taken before its frame hashes are known.
    #[error("the frame hashes of pack {0} are not known yet")]
    HashesMissing(PackId),
    /// Frame hashes do not belong to the pack.
    #[error("the frame hashes given for pack {0} do not belong to it")]
    HashesWrong(PackId),
    /// A frame isn't the one that its hash names.
    #[error("frame {frame} of pack {pack} is not what its hash names")]
    FrameWrong {
        /// The pack.
        pack: PackId,
        /// Index of the frame.
        frame: u32,
    },
    /// A range that isn't made of whole frames inside the pack.
    #[error("the range is not made of whole frames of pack {0}")]
    RangeWrong(PackId),
    /// A new pack's length is no pack size.
    #[error("{frames} frames are no pack size")]
    SizeWrong {
        /// Number of frames written.
        frames: u64,
    },
    /// The work was cancelled by its caller.
    #[error("cancelled")]
    Cancelled,
}

impl StoreError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } | Self::Sync { source, .. } => kind_of_io(source),
            Self::Full { .. } => ErrorKind::Full,
            Self::Catalogue(source) => match source.as_ref() {
                fjall::Error::Io(source) => kind_of_io(source),
                fjall::Error::Poisoned | fjall::Error::KeyspaceDeleted => ErrorKind::Permanent,
                fjall::Error::Locked => ErrorKind::Transient,
                _ => ErrorKind::Corruption,
            },
            Self::Record { .. }
            | Self::CommitUnreadable { .. }
            | Self::PackDamaged(_)
            | Self::HashesWrong(_)
            | Self::FrameWrong { .. } => ErrorKind::Corruption,
            Self::ParentMissing { .. }
            | Self::PackAbsent(_)
            | Self::HashesMissing(_)
            | Self::Cancelled => ErrorKind::Transient,
            Self::Poisoned
            | Self::ChainGap { .. }
            | Self::UnknownCommit(_)
            | Self::UnknownRosterEntry(_)
            | Self::UnknownPack(_)
            | Self::RangeWrong(_)
            | Self::SizeWrong { .. } => ErrorKind::Permanent,
        }
    }

    /// Wraps an I/O error: `result.map_err(StoreError::io("writing a pack"))`.
    pub(crate) fn io(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, source }
    }

    /// Wraps a failure to make something durable.
    pub(crate) fn sync(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Sync { operation, source }
    }
}

pub(crate) fn kind_of_io(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::Full
        }
        io::ErrorKind::Interrupted
        | io::ErrorKind::WouldBlock
        | io::ErrorKind::TimedOut
        | io::ErrorKind::ResourceBusy
        | io::ErrorKind::OutOfMemory => ErrorKind::Transient,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => ErrorKind::Corruption,
        _ => match error.raw_os_error() {
            // EMFILE and ENFILE: other files will be closed.
            Some(code)
                if code == rustix::io::Errno::MFILE.raw_os_error()
                    || code == rustix::io::Errno::NFILE.raw_os_error() =>
            {
                ErrorKind::Transient
            }
            _ => ErrorKind::Permanent,
        },
    }
}

impl From<fjall::Error> for StoreError {
    fn from(error: fjall::Error) -> Self {
        Self::Catalogue(Box::new(error))
    }
}
