//! What requests and responses about conflicts carry. Times are RFC 3339 in UTC; a path is names joined by `/`, from the folder's
//! top.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::history::{Author, EntryKind};

/// Versions of one file that somebody has to decide about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Conflict {
    /// The folder's name on this device.
    pub folder: String,
    /// The path that all of them have a claim to.
    pub path: String,
    /// The one that is shown under that path, then the others, the last one first.
    pub versions: Vec<ConflictVersion>,
}

/// One version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConflictVersion {
    /// Its name, the same as in the history.
    pub version: String,
    /// Its place in this list, from 1.
    pub number: u32,
    /// The path that it is shown under.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes, of a file.
    pub size: u64,
    /// Who wrote it; `null` for a directory that is there only for what is inside.
    pub author: Option<Author>,
    /// When, by the clock of the device that wrote it.
    pub time: String,
    /// Its content is on this device.
    pub here: bool,
    /// Lines that the first version hasn't; absent of the first, and of what is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines_added: Option<u32>,
    /// Lines that only the first version has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines_removed: Option<u32>,
}

/// Settles a conflict: exactly one of `keep`, `both` and `merged`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    /// The path in conflict, or that of any of its versions.
    pub path: String,
    /// The version that stays: its name or the beginning of it, its number, or its device's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<String>,
    /// All stay, as ordinary files under the names that they are shown under.
    #[serde(default)]
    pub both: bool,
    /// Absolute path of a file on this machine whose content becomes the file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<String>,
}

/// What was settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resolved {
    /// The folder's name on this device.
    pub folder: String,
    /// The path that was in conflict.
    pub path: String,
}
