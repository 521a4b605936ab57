//! What requests and responses about the past carry. All times are RFC 3339 in UTC; a path is names joined by `/`, from the
//! folder's top.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::error::ErrorBody;

/// Asks what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryRequest {
    /// A file or directory; the whole folder when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Nothing that counts only before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Nothing that counts only after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// At most so many, the newest; 1000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// What happened, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// The folder's name on this device.
    pub folder: String,
    /// The file or directory; empty for the whole folder.
    pub path: String,
    /// What was done to the file; absent of a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<Vec<Version>>,
    /// What was done to the directory and all in it; absent of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<Change>>,
    /// There is more than the limit.
    pub more: bool,
    /// History before this time isn't held on this device; absent when all of it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins: Option<String>,
}

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Author {
    /// The member's id.
    pub member: String,
    /// Its device's name; `null` where it can't be read.
    pub name: Option<String>,
    /// It is this device.
    pub this_device: bool,
}

/// What was done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It was new.
    Created,
    /// It got other content.
    Edited,
    /// It was deleted.
    Deleted,
    /// It was brought back after a deletion.
    Restored,
    /// It was moved or renamed.
    Moved,
    /// Only its metadata changed.
    Metadata,
    /// One of several concurrent versions was taken away.
    Settled,
}

impl Action {
    /// Its name in responses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Edited => "edited",
            Self::Deleted => "deleted",
            Self::Restored => "restored",
            Self::Moved => "moved",
            Self::Metadata => "metadata",
            Self::Settled => "settled",
        }
    }
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A file.
    File,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
}

/// A version of a file, or something else that was done to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Names it, behind an `@` or for `version`.
    pub version: String,
    /// When, by the clock of the device that did it.
    pub time: String,
    /// From when on it counts for states at a time; differs from `time` where clocks were wrong.
    pub counts_from: String,
    /// Who did it.
    pub author: Author,
    /// What was done.
    pub action: Action,
    /// Where the file was then.
    pub path: String,
    /// Where it had been, when it was moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What it was after that; absent once deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<EntryKind>,
    /// Bytes of content after that; of a link, of its target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The owner may execute it.
    pub executable: bool,
    /// Its modification time; absent when it was never set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
    /// It is what the folder shows now.
    pub current: bool,
    /// Its content can be read without fetching anything from others.
    pub here: bool,
}

/// What was done to a directory or the folder at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// Names the state after it.
    pub version: String,
    /// When, by the clock of the device that did it.
    pub time: String,
    /// From when on it counts for states at a time.
    pub counts_from: String,
    /// Who did it.
    pub author: Author,
    /// Files and links that were new or brought back.
    pub created: u32,
    /// Files and links that got other content.
    pub edited: u32,
    /// Files and links that were deleted.
    pub deleted: u32,
    /// Files and links that were moved or renamed.
    pub moved: u32,
    /// Files and links of which only metadata changed.
    pub metadata: u32,
    /// Directories that were new or brought back.
    pub directories_created: u32,
    /// Directories that were deleted.
    pub directories_deleted: u32,
    /// Directories that were moved or renamed.
    pub directories_moved: u32,
    /// Bytes in files that were new or got other content.
    pub bytes: u64,
}

/// Asks that history reach further back than what is on this device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OlderHistoryRequest {
    /// To this time; as far as anybody connected holds it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// How far back history reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OlderHistory {
    /// History before this time isn't on this device; absent when all of it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins: Option<String>,
    /// Connected members that don't hold what is before, with their roles.
    pub asked: Vec<String>,
    /// Members that aren't connected, with their roles.
    pub away: Vec<String>,
}

/// Asks what is deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeletedRequest {
    /// A directory; the whole folder when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Something that is deleted and could be brought back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deleted {
    /// Where it was.
    pub path: String,
    /// What it was: a file or a directory; links count as files.
    pub kind: EntryKind,
    /// When, by the clock of the device that deleted it.
    pub time: String,
    /// The last moment at which it was there: a time for `at`.
    pub at: String,
    /// Who deleted it.
    pub author: Author,
    /// Files in it that were deleted; 1 for a file.
    pub files: u64,
    /// Their bytes; `null` where they were deleted before the history on this device.
    pub bytes: Option<u64>,
    /// A file's last version; absent of a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// All its content can be read without fetching anything from others.
    pub here: bool,
}

/// Says which state of a path is meant: at most one of `at` and `version`; the latest when both are absent, of something
/// deleted the last one before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// A file or directory; the whole folder when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The state at this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// This version of the file, or the state that this version of anything made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Asks for the content of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ContentRequest {
    /// Of what.
    pub selection: Selection,
}

/// A version whose content can be read now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Found {
    /// Where it was.
    pub path: String,
    /// What it is; a directory has no content.
    pub kind: EntryKind,
    /// Bytes of its content; of a link, of its target.
    pub size: u64,
    /// When it was written, by its author's clock; absent of a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Who wrote it; absent of a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Author>,
    /// Names it; absent of a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Brings something back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// What, and in which state.
    pub selection: Selection,
    /// Path in the folder where it is put; where it was when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Also takes away what is there now and wasn't then; it stays in history.
    #[serde(default)]
    pub exact: bool,
    /// Brings back what can be had and tells what can't, instead of doing nothing.
    #[serde(default)]
    pub partial: bool,
}

/// Writes a past state out, outside the folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BrowseRequest {
    /// What, and in which state.
    pub selection: Selection,
    /// Absolute path of what is made: a directory that is empty or missing, or a file that is missing.
    pub target: String,
    /// Writes what can be had and tells what can't, instead of nothing.
    #[serde(default)]
    pub partial: bool,
}

/// What was brought back or written out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Restored {
    /// Files and links written.
    pub files: u64,
    /// Directories made.
    pub directories: u64,
    /// Bytes in the files.
    pub bytes: u64,
    /// Files, links and directories that were as they should be.
    pub unchanged: u64,
    /// Entries taken away, with `exact`.
    pub removed: u64,
    /// Paths at which a directory was in the way of a file, and where the file was put instead.
    pub beside: Vec<Beside>,
    /// Paths whose content nobody reachable holds, with `partial`.
    pub missing: Vec<String>,
    /// The folder's directory shows it already; `false` when that still goes on.
    pub applied: bool,
    /// Names the state after it; absent when nothing had to be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A file that was put beside what was in its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Beside {
    /// Where it should have been.
    pub path: String,
    /// Where it is.
    pub to: String,
}

/// What work that takes long tells while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Update<T> {
    /// Still at it.
    Progress {
        /// What is being done.
        phase: Phase,
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The end.
    Outcome {
        /// What came of it.
        outcome: T,
    },
    /// It could not be done.
    Failed {
        /// Why.
        error: ErrorBody,
    },
}

/// A part of long work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Looking for what is meant.
    #[default]
    Looking,
    /// Fetching what was done before the history on this device; counts commits, all others bytes.
    History,
    /// Fetching packs from whoever holds them.
    Fetching,
    /// Writing.
    Writing,
    /// Having others show that they hold packs.
    Proving,
    /// Dropping plain copies.
    Dropping,
}

impl Phase {
    /// What to tell people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Looking => "looking",
            Self::History => "fetching older history",
            Self::Fetching => "fetching",
            Self::Writing => "writing",
            Self::Proving => "having others show that they hold it",
            Self::Dropping => "dropping plain copies",
        }
    }
}
