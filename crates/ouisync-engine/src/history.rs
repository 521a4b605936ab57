//! Plain data about what was: versions of files, the timeline of a folder, what is deleted and what can be brought back.

use ouisync_model::{
    id::{CommitId, MemberId, NodeId, OpId, Timestamp},
    name::Name,
    operation::{Metadata, Value},
    tree::history::ChangeCounts,
};

/// Digits of a commit's id that name a version.
const DIGITS: usize = 12;

/// Names from the folder's top; empty for the top itself.
pub type FolderPath = Vec<Name>;

/// Which state is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// The present one. For what is deleted now: the last one before.
    Latest,
    /// The state at a moment.
    At(Timestamp),
    /// The state that a commit made, or a version of a file: at least 4 digits of the commit's id, for one of several
    /// operations a dot and its index.
    Version(String),
}

/// What to tell of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// A file, a directory or the folder.
    pub path: FolderPath,
    /// Nothing that counts only before this.
    pub since: Option<Timestamp>,
    /// Nothing that counts only after this.
    pub until: Option<Timestamp>,
    /// At most so many, the newest.
    pub limit: usize,
}

/// What happened, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Of a file, its versions; of a directory or folder, its changes.
    pub events: Events,
    /// There is more than the limit.
    pub more: bool,
    /// History before this isn't held here; `None` when it is whole.
    pub begins: Option<Timestamp>,
}

/// What happened to a file, or to all in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Events {
    /// Of a file or link.
    Versions(Vec<FileVersion>),
    /// Of a directory or the folder.
    Changes(Vec<FolderChange>),
}

/// What was done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    Described,
    /// One of several concurrent versions was taken away.
    Settled,
}

/// What one commit did to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileVersion {
    /// The file.
    pub node: NodeId,
    /// Names the version: the commit, and the index of the operation among several of that commit in this history.
    pub version: String,
    /// The operation: the write, where there is one.
    pub op: OpId,
    /// Wall time of the author's device.
    pub time: Timestamp,
    /// From when on it counts; see `docs/format/tree.md`, "Moments".
    pub moment: Timestamp,
    /// Who did it.
    pub author: MemberId,
    /// What was done.
    pub action: Action,
    /// Where the file was then.
    pub path: FolderPath,
    /// Where it had been, when it was moved.
    pub from: Option<FolderPath>,
    /// Its content after that; `None` once deleted.
    pub value: Option<Value>,
    /// Its metadata after that.
    pub metadata: Metadata,
    /// It is what the folder shows now.
    pub current: bool,
    /// Its content can be read without fetching anything.
    pub here: bool,
}

/// What one commit did to a directory or the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderChange {
    /// The commit.
    pub commit: CommitId,
    /// Wall time of the author's device.
    pub time: Timestamp,
    /// From when on it counts.
    pub moment: Timestamp,
    /// Who did it.
    pub author: MemberId,
    /// How much was done.
    pub counts: ChangeCounts,
}

impl Restored {
    /// Names the state after it.
    pub fn version(&self) -> Option<String> {
        self.commit.as_ref().map(short)
    }
}

impl FolderChange {
    /// Names the state after it.
    pub fn version(&self) -> String {
        short(&self.commit)
    }
}

/// The beginning of a commit's id, by which people name it.
pub(crate) fn short(commit: &CommitId) -> String {
    commit.to_string()[..DIGITS].to_owned()
}

/// Something that is deleted and could be brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedEntry {
    /// Where it was.
    pub path: FolderPath,
    /// It is a directory.
    pub is_directory: bool,
    /// Wall time of the device that deleted it.
    pub time: Timestamp,
    /// The last moment at which it was there.
    pub last: Timestamp,
    /// Who deleted it.
    pub author: MemberId,
    /// Files and links in it that were deleted; 1 for a file.
    pub files: u64,
    /// Their bytes when they were deleted; `None` where that was before the history held here.
    pub bytes: Option<u64>,
    /// A file's last version.
    pub version: Option<String>,
    /// A file's last content can be read without fetching anything.
    pub here: bool,
}

/// Brings something back into the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreRequest {
    /// A file, a directory or the folder.
    pub path: FolderPath,
    /// In which state.
    pub when: When,
    /// Where to put it; where it was when absent.
    pub to: Option<FolderPath>,
    /// Take away what is there now and wasn't then.
    pub exact: bool,
    /// Bring back what can be had, and tell what can't.
    pub partial: bool,
}

/// What was brought back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Files and links written.
    pub files: u64,
    /// Directories made.
    pub directories: u64,
    /// Bytes in the files.
    pub bytes: u64,
    /// Entries that were as they should be.
    pub unchanged: u64,
    /// Entries taken away, each with all that was in it.
    pub removed: u64,
    /// Where a directory was in the way of a file, and where the file was put instead.
    pub beside: Vec<(FolderPath, FolderPath)>,
    /// What nobody reachable holds.
    pub missing: Vec<FolderPath>,
    /// The folder's view shows it.
    pub applied: bool,
    /// The last commit of it; `None` when there was nothing to change.
    pub commit: Option<CommitId>,
}

/// A past state whose content is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// Where it was.
    pub path: FolderPath,
    /// It is a file or link: the only entry.
    pub is_leaf: bool,
    /// Directories before what is in them; the folder's top is none of them.
    pub entries: Vec<RecalledEntry>,
    /// Who wrote a file or link, and when.
    pub written: Option<(MemberId, Timestamp)>,
    /// Names the version of a file or link.
    pub version: Option<String>,
}

/// An entry of a past state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecalledEntry {
    /// Names from what was asked for; empty for itself.
    pub path: FolderPath,
    /// What it was.
    pub value: Value,
    /// Its metadata.
    pub metadata: Metadata,
}
