//! Data about a folder's plain directory on this device: the brake, and copies that are offloaded.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The brake of a folder's directory: when a burst of deleting and rewriting is held back, and whether one is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Brake {
    /// Whether bursts are held back at all.
    pub enabled: bool,
    /// So many files at least,
    pub files: u64,
    /// and so many of a hundred of the folder's files,
    pub percent: u8,
    /// within so many seconds.
    pub window_seconds: u64,
    /// The burst that is held back now; `null` for none.
    pub burst: Option<Burst>,
    /// An undo is going on: files come back.
    pub undoing: bool,
    /// What the last undo did since the daemon started; `null` for none.
    pub undone: Option<Undone>,
}

/// A burst that is held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Burst {
    /// When it began, as RFC 3339.
    pub since: String,
    /// Files deleted.
    pub deleted: u64,
    /// Files rewritten.
    pub rewritten: u64,
    /// Those of them that look encrypted now and did not before.
    pub scrambled: u64,
    /// Files of the folder.
    pub of: u64,
}

/// What an undo did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Undone {
    /// Files that came back.
    pub put_back: u64,
    /// Changed versions that were set aside.
    pub set_aside: u64,
    /// Where they are.
    pub kept_in: Option<String>,
}

/// Changes the brake or says what a burst was. What is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BrakeRequest {
    /// What the burst that is held back was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Whether bursts are held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Number of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Share of the folder's files, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// Time in seconds, 1 to 86,400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<u64>,
}

/// What a burst was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It was meant: record it and send it.
    Allow,
    /// It was not: put the files back.
    Undo,
}

/// Names a file or directory that is to be offloaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OffloadRequest {
    /// Names from the folder's top, joined by `/`; the whole folder when empty.
    pub path: String,
    /// Drop the plain copies only: the sealed ones stay, and nobody else is asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plain: bool,
}

/// What was offloaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Offloaded {
    /// Files whose plain copy was dropped.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sealed packs that were dropped, too.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Files that stay as they are; at most the first hundred.
    pub skipped: Vec<Skipped>,
}

/// Names a file or directory whose plain copies are to come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FetchRequest {
    /// Names from the folder's top, joined by `/`; the whole folder when empty.
    pub path: String,
}

/// What comes back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fetched {
    /// Files whose plain copy comes back.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that don't; at most the first hundred.
    pub skipped: Vec<Skipped>,
}

/// A file that stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Skipped {
    /// Where it is in the folder.
    pub path: String,
    /// Why.
    pub reason: String,
}
