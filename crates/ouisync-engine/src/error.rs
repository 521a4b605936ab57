//! Why an operation of the engine failed, in a form that an edge can map once.

use std::{fmt, time::Duration};

use ouisync_model::id::{FolderId, MemberId, Timestamp};
use ouisync_net::endpoint::BindError;
use ouisync_store::{
    content::ContentError,
    error::{ErrorKind as StoreErrorKind, StoreError},
    index::IndexError,
    ingest::IngestError,
};
use thiserror::Error;

use crate::key_ring::KeyRingError;

/// What a caller can do about an [`EngineError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request is wrong: say it differently.
    Invalid,
    /// What it names doesn't exist here.
    NotFound,
    /// It contradicts what exists.
    Conflict,
    /// This member's role doesn't allow it.
    Forbidden,
    /// The folder is locked: unlock it first.
    Locked,
    /// May work later: no peer, full disk, time-out.
    Unavailable,
    /// Stored bytes are damaged: verify and repair.
    Corruption,
    /// A defect or a failure of the machine.
    Internal,
}

/// Failure of an operation of the engine.
#[derive(Debug, Error)]
pub enum EngineError {
    /// No folder of that name or id.
    #[error("there is no folder '{0}' on this device")]
    UnknownFolder(String),
    /// A folder of that name exists.
    #[error("there is already a folder '{0}' on this device")]
    NameTaken(String),
    /// A folder's name breaks the rules.
    #[error(
        "'{0}' can't be a folder's name: use 1 to 64 characters, none of them a control character or '/'"
    )]
    BadName(String),
    /// This device is a member already.
    #[error("this device already has the folder {0}")]
    AlreadyMember(FolderId),
    /// No such member.
    #[error("the folder has no member '{0}'")]
    UnknownMember(String),
    /// Several members match.
    #[error("'{0}' fits several members: give more of its id")]
    AmbiguousMember(String),
    /// Nothing is or was at this path.
    #[error("nothing is or was at '{0}'")]
    UnknownPath(String),
    /// No such version.
    #[error("there is no version '{0}'")]
    UnknownVersion(String),
    /// Several versions match.
    #[error("'{0}' fits several versions: give more digits")]
    AmbiguousVersion(String),
    /// There was nothing at that path then.
    #[error("there was nothing at '{path}' at {when}", path = .0, when = .1.to_rfc3339())]
    NotThen(String, Timestamp),
    /// The version is a deletion.
    #[error("with the version '{0}' it was deleted or moved away: choose the one before it")]
    DeletedVersion(String),
    /// A file can't take the place of the folder's top.
    #[error("'{0}' is a directory")]
    IsDirectory(String),
    /// Content of the past isn't here and nobody connected holds it.
    #[error("{}", not_reachable(path, *others, not_here))]
    NotReachable {
        /// A path that it belongs to.
        path: String,
        /// Number of other files of which that is true.
        others: usize,
        /// Who was asked and who couldn't be.
        not_here: NotHere,
    },
    /// Whoever asked for it stopped it.
    #[error("stopped")]
    Cancelled,
    /// Nothing is sent, received, recorded or applied while the folder is paused.
    #[error("the folder is paused: nothing is sent or received, and its directory rests")]
    Paused,
    /// Not enough members have shown that they hold what would be given up.
    #[error("{0}")]
    TooFewReplicas(Replicas),
    /// Content is being offloaded already.
    #[error("content of this folder is being offloaded already")]
    Offloading,
    /// History doesn't reach so far back on this device, and nobody else could be asked for more.
    #[error("history before {when} isn't on this device{}", who_was_asked(.1), when = .0.to_rfc3339())]
    NotHeld(Timestamp, NotHere),
    /// The role of this device is too small.
    #[error("this device is a {role} of the folder and may not {action}")]
    Forbidden {
        /// Role of this device.
        role: &'static str,
        /// What was tried.
        action: &'static str,
    },
    /// This device was removed from the folder.
    #[error(
        "this device was removed from the folder; what it holds is kept, but it no longer takes part"
    )]
    Removed,
    /// The last owner can't go.
    #[error("the member {0} is the folder's last owner: make another member an owner first")]
    LastOwner(MemberId),
    /// Only a safe's host limits what is stored.
    #[error(
        "only a safe has a quota and a floor: this device reads the folder and keeps all that it needs"
    )]
    NotASafe,
    /// The folder's policy is of a newer version.
    #[error(
        "the folder's policy (version {0}) was set by a newer program: update this one, or decide anew what is to be kept"
    )]
    UnknownPolicy(u8),
    /// The index is being made from a checkpoint.
    #[error("the folder is being brought up to date; try again when it is")]
    BeingBroughtUpToDate,
    /// Reading needs the passphrase.
    #[error("the folder is locked; it goes on syncing but can't be read")]
    Locked,
    /// No folder of this name is known, and there are locked ones, whose names are sealed.
    #[error("no folder '{0}' is known here while folders are locked, which seals their names")]
    SealedName(String),
    /// The passphrase doesn't open the key store.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    /// The passphrase has to be given.
    #[error("the passphrase is needed")]
    PassphraseNeeded,
    /// Locking needs a passphrase.
    #[error("no passphrase is set, so the folder could never be unlocked")]
    NoPassphrase,
    /// A new folder's secrets can't be kept while what seals them isn't known.
    #[error("this device is locked, so the secrets of a new folder can't be kept")]
    DeviceLocked,
    /// The operating system's key ring is needed and gives nothing.
    #[error(transparent)]
    KeyRing(#[from] KeyRingError),
    /// The key ring isn't in use.
    #[error("the key ring isn't used on this device")]
    KeyRingUnused,
    /// What seals the secrets is being changed; the change failed at a point where only a restart can tell how it ended.
    #[error(
        "a change of what seals this device's secrets broke off; nothing is lost, but the daemon must be restarted"
    )]
    SealingUnsure,
    /// The invitation can't be used.
    #[error("the invitation can't be used: {0}")]
    Invitation(String),
    /// An address doesn't parse or answer.
    #[error("the address can't be used: {0}")]
    Address(String),
    /// Not in the time given.
    #[error("not done within {seconds} seconds: {why}", seconds = .0.as_secs_f32(), why = .1)]
    TimedOut(Duration, String),
    /// Another daemon runs on the home.
    #[error("another daemon already uses {}", .0.display())]
    HomeInUse(std::path::PathBuf),
    /// The engine is stopping.
    #[error("the daemon is shutting down")]
    Stopping,
    /// Nothing is in conflict there.
    #[error("'{0}' is not in conflict")]
    NoConflict(String),
    /// The conflict can't be settled in that way.
    #[error("{0}")]
    Unsettled(&'static str),
    /// Reading or writing the store failed.
    #[error("the store failed: {message}")]
    Store {
        /// What failed.
        message: String,
        /// What can be done.
        kind: ErrorKind,
    },
    /// What was to be stored could not be read; nothing of it was kept.
    #[error("the content can't be read: {0}")]
    Source(#[source] std::io::Error),
    /// The network can't be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A file of the home failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// The failure.
        source: std::io::Error,
    },
}

/// Who was asked for content that isn't here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotHere {
    /// Members that are connected and don't hold it (any more), with their roles.
    pub asked: Vec<String>,
    /// Members that aren't connected, with their roles.
    pub away: Vec<String>,
}

/// Who has shown that it holds what would be given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// How many are wanted.
    pub wanted: u16,
    /// Members that have shown it, with their roles.
    pub shown: Vec<String>,
    /// Members that are connected and have not, with their roles.
    pub failed: Vec<String>,
    /// Members that aren't connected, with their roles.
    pub away: Vec<String>,
}

impl fmt::Display for Replicas {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            wanted,
            shown,
            failed,
            away,
        } = self;
        let of = |shown: usize| format!("{shown} of {wanted} wanted replicas");
        match shown.as_slice() {
            [] => write!(formatter, "{} have shown that they hold it", of(0))?,
            shown => write!(
                formatter,
                "{} have shown that they hold it ({})",
                of(shown.len()),
                shown.join(", ")
            )?,
        }
        if !failed.is_empty() {
            write!(formatter, "; not shown by: {}", failed.join(", "))?;
        }
        if !away.is_empty() {
            write!(formatter, "; not connected: {}", away.join(", "))?;
        }
        Ok(())
    }
}

fn not_reachable(path: &str, others: usize, not_here: &NotHere) -> String {
    let mut text = format!("the content of '{path}'");
    if others > 0 {
        text.push_str(&format!(" and of {others} others"));
    }
    text.push_str(" isn't on this device");
    text.push_str(&who_was_asked(not_here));
    text
}

fn who_was_asked(not_here: &NotHere) -> String {
    let mut text = String::new();
    if not_here.asked.is_empty() {
        text.push_str(", and no other member is connected");
    } else {
        text.push_str(&format!(
            ", and no connected member holds it (asked: {})",
            not_here.asked.join(", ")
        ));
    }
    if !not_here.away.is_empty() {
        text.push_str(&format!(
            "; not connected, and may hold it: {}",
            not_here.away.join(", ")
        ));
    }
    text
}

impl EngineError {
    /// A defect, or a failure of the machine.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::Store {
            message: message.into(),
            kind: ErrorKind::Internal,
        }
    }

    /// The address to listen on is taken, or none of this machine's.
    pub fn is_about_the_address(&self) -> bool {
        matches!(
            self,
            Self::Bind(BindError::PortTaken { .. } | BindError::Socket { .. })
        )
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownFolder(_)
            | Self::UnknownMember(_)
            | Self::UnknownPath(_)
            | Self::UnknownVersion(_)
            | Self::NotThen(..)
            | Self::NoConflict(_)
            | Self::NotHeld(..) => ErrorKind::NotFound,
            Self::Unsettled(_)
            | Self::NameTaken(_)
            | Self::AlreadyMember(_)
            | Self::LastOwner(_)
            | Self::NotASafe
            | Self::UnknownPolicy(_)
            | Self::Offloading
            | Self::HomeInUse(_) => ErrorKind::Conflict,
            Self::BadName(_)
            | Self::AmbiguousMember(_)
            | Self::AmbiguousVersion(_)
            | Self::DeletedVersion(_)
            | Self::IsDirectory(_)
            | Self::WrongPassphrase
            | Self::PassphraseNeeded
            | Self::KeyRingUnused
            | Self::NoPassphrase
            | Self::Invitation(_)
            | Self::Source(_)
            | Self::Address(_) => ErrorKind::Invalid,
            Self::Bind(_) if self.is_about_the_address() => ErrorKind::Conflict,
            Self::Bind(_) => ErrorKind::Internal,
            Self::Forbidden { .. } | Self::Removed => ErrorKind::Forbidden,
            Self::BeingBroughtUpToDate => ErrorKind::Unavailable,
            Self::Locked | Self::DeviceLocked | Self::SealedName(_) => ErrorKind::Locked,
            Self::NotReachable { .. }
            | Self::TooFewReplicas(_)
            | Self::Cancelled
            | Self::Paused => ErrorKind::Unavailable,
            Self::KeyRing(_) | Self::TimedOut(..) | Self::Stopping => ErrorKind::Unavailable,
            Self::SealingUnsure => ErrorKind::Internal,
            Self::Store { kind, .. } => *kind,
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull => ErrorKind::Unavailable,
                _ => ErrorKind::Internal,
            },
        }
    }

    /// What to do next, in a sentence.
    pub fn hint(&self) -> &'static str {
        if matches!(self, Self::NoConflict(_)) {
            return "List the conflicts and their versions with 'ouisync conflicts'; nothing was changed.";
        }
        match self.kind() {
            ErrorKind::Invalid => "Check the request and try again; nothing was changed.",
            ErrorKind::NotFound => {
                "List what there is with 'ouisync status' and 'ouisync members'."
            }
            ErrorKind::Conflict => {
                "Choose another name or change the other thing first; nothing was changed."
            }
            ErrorKind::Forbidden => "Ask an owner of the folder.",
            ErrorKind::Locked => "Unlock it with 'ouisync unlock'.",
            ErrorKind::Unavailable => "Nothing is lost; try again when the cause is gone.",
            ErrorKind::Corruption => {
                "Run 'ouisync verify' and then 'ouisync repair'; peers that hold the data will send it again."
            }
            ErrorKind::Internal => "Look at the daemon's log; what was acknowledged is safe.",
        }
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        Self::Store {
            message: chain_text(&error),
            kind: error.kind().into(),
        }
    }
}

impl From<IndexError> for EngineError {
    fn from(error: IndexError) -> Self {
        Self::Store {
            message: chain_text(&error),
            kind: error.kind().into(),
        }
    }
}

impl From<ContentError> for EngineError {
    fn from(error: ContentError) -> Self {
        Self::Store {
            message: chain_text(&error),
            kind: error.kind().into(),
        }
    }
}

impl From<IngestError> for EngineError {
    fn from(error: IngestError) -> Self {
        let full = std::iter::successors(Some(&error as &dyn std::error::Error), |error| {
            error.source()
        })
        .any(|error| {
            error
                .downcast_ref::<StoreError>()
                .is_some_and(|error| error.kind() == StoreErrorKind::Full)
        });
        let kind = if full {
            ErrorKind::Unavailable
        } else {
            ErrorKind::Internal
        };
        Self::Store {
            message: chain_text(&error),
            kind,
        }
    }
}

impl From<StoreErrorKind> for ErrorKind {
    fn from(kind: StoreErrorKind) -> Self {
        match kind {
            StoreErrorKind::Transient | StoreErrorKind::Full => Self::Unavailable,
            StoreErrorKind::Corruption => Self::Corruption,
            StoreErrorKind::Permanent => Self::Internal,
        }
    }
}

/// An error with its causes in one line.
fn chain_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}
