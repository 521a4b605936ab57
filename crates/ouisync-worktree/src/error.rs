//! Why a plain directory can't be attached, or a step of it failed.

use std::{io, path::PathBuf};

use ouisync_engine::error::EngineError;
use thiserror::Error;

/// Failure to attach a plain directory to a folder.
#[derive(Debug, Error)]
pub enum WorktreeError {
    /// The path names something that is no directory.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// The directory is in a file system that the kernel makes up.
    #[error("{} is in {system}, which the kernel makes up: files can't be kept there", path.display())]
    NoStorage {
        /// The directory asked for.
        path: PathBuf,
        /// The file system.
        system: &'static str,
    },
    /// The directory and another of OuiSync's would contain one another.
    #[error("{} and {} may not contain one another", path.display(), other.display())]
    Overlap {
        /// The directory asked for.
        path: PathBuf,
        /// The home of the daemon or the directory of another folder.
        other: PathBuf,
    },
    /// The directory can't be made or opened.
    #[error("{}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
    /// The thread that owns the directory can't be started.
    #[error("can't start the directory's thread: {0}")]
    Thread(#[source] io::Error),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Failure of a step of scanning or applying.
#[derive(Debug, Error)]
pub(crate) enum StepError {
    /// The engine failed: the whole pass stops and is tried again.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The file system failed where it concerns everything (the root, the staging directory).
    #[error("{step}: {source}")]
    Disk {
        /// What was done.
        step: &'static str,
        /// The failure.
        source: io::Error,
    },
    /// A record of this view can't be read.
    #[error("a record of the directory is damaged")]
    Record,
    /// The worktree is being detached.
    #[error("the directory is being detached")]
    Stopping,
}
