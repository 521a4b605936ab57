//! A folder as views (plain directory, mount, …) see it. Every call blocks: call from a view's own thread.
//!
//! A view keeps records of what it shows (opaque to the engine), learns which directories changed from the durable set of
//! dirty directories, and tells the engine what a person did as model operations.

use std::{io::Read, sync::Arc};

use crate::{error::EngineError, status::Problem};
use bytes::Bytes;
use ouisync_model::{
    id::{CommitId, MemberId, NodeId, PackId},
    name::Name,
    operation::{DraftPart, FileContent, Operation},
    tree::{conflict::Conflict, entry::Entry},
};

mod events;

pub use events::{ViewEventSender, ViewEvents, view_events};

/// What a view hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViewEvent {
    /// Directories were marked dirty.
    TreeChanged,
    /// What other members tell of files that they are still reading, in order. Only to get ahead with their content.
    Drafts(Vec<DraftStep>),
    /// These packs came to this device: content that waited for them may be readable.
    PacksArrived(Vec<PackId>),
    /// The folder was paused (`true`) or resumed.
    Paused(bool),
    /// The folder is being locked or closed: drop the view.
    Closed,
}

/// A step of a member's draft: of the content of a file that it reads and has not committed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftStep {
    /// Who reads the file.
    pub author: MemberId,
    /// The next chunks of the file; the first part of a draft stands for the end of the one before.
    pub part: Option<DraftPart>,
    /// There will be no more of it: the file, or something else, was committed.
    pub ends: bool,
}

impl DraftStep {
    /// Whether a new draft begins.
    pub fn begins(&self) -> bool {
        self.part.as_ref().is_some_and(|part| part.offset == 0)
    }
}

/// Key of a view's record: records of one group can be listed together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewKey {
    /// Usually a directory.
    pub group: [u8; 16],
    /// Usually a name in it.
    pub item: Vec<u8>,
}

/// Item and value of a view's record.
pub type ViewRecord = (Vec<u8>, Vec<u8>);

/// A record to put (`Some`) or to delete (`None`).
pub type RecordChange = (ViewKey, Option<Vec<u8>>);

/// What a view tells of its own progress, for `status` and `wait`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewStatus {
    /// Every change in the view up to now is recorded as commits, and everything in the tree whose content is here is applied.
    pub settled: bool,
    /// Number of [`ViewEvent`]s that this accounts for, since the view was attached.
    pub heard: u64,
    /// What needs the user's attention. Most of it doesn't stop `settled`.
    pub problems: Vec<Problem>,
    /// The first of them that does: a full or failing disk or a missing right keeps a change from being recorded or applied. It is
    /// tried again by itself.
    pub held_up: Option<Problem>,
    /// The view is not there, or not the one that was attached: nothing is recorded or applied until it is back.
    pub failed: bool,
}

/// What a view implements so that the engine can ask it for things.
pub trait ViewControl: Send + Sync {
    /// Starts a scan for local changes now; returns at once. Before it returns the view may call
    /// [`FolderAccess::set_status`] to say that it is not settled until that scan and what follows from it is done.
    fn rescan(&self);
}

/// A folder, for one view.
#[derive(Clone)]
pub struct FolderView {
    inner: Arc<dyn FolderAccess>,
}

/// What [`FolderView`] calls; implemented by the running folder (and by fakes in tests of views).
pub trait FolderAccess: Send + Sync {
    /// Registers the view; events come until it is dropped. One view at a time.
    fn attach(&self, control: Arc<dyn ViewControl>) -> Result<ViewEvents, EngineError>;
    /// The visible entries of a directory (united with its aliases), sorted by name.
    fn list(&self, directory: NodeId) -> Result<Vec<Entry>, EngineError>;
    /// The visible entry of this name in a directory.
    fn entry(&self, directory: NodeId, name: &Name) -> Result<Option<Entry>, EngineError> {
        Ok(self
            .list(directory)?
            .into_iter()
            .find(|entry| entry.name == *name))
    }
    /// The conflict that a visible node is part of.
    fn conflict(&self, node: NodeId) -> Result<Option<Conflict>, EngineError>;
    /// Up to `limit` directories whose listing may have changed since their mark was cleared.
    fn dirty(&self, limit: usize) -> Result<Vec<NodeId>, EngineError>;
    /// Marks directories dirty again.
    fn mark_dirty(&self, directories: &[NodeId]) -> Result<(), EngineError>;
    /// A record of the view.
    fn record(&self, key: &ViewKey) -> Result<Option<Vec<u8>>, EngineError>;
    /// All records of a group.
    fn records(&self, group: [u8; 16]) -> Result<Vec<ViewRecord>, EngineError>;
    /// Puts (`Some`) and deletes (`None`) records and clears dirty marks, all or nothing.
    /// A mark made after the view read the directory survives: pass the marks' values from [`Self::dirty`] only.
    fn update(&self, records: Vec<RecordChange>, clean: &[NodeId]) -> Result<(), EngineError>;
    /// Cuts, compresses, encrypts and stores content; nothing refers to it until a [`Self::commit`] does.
    /// `previous` is the version it replaces: its chunk size is kept. Large content is announced to peers as it is stored.
    fn ingest(
        &self,
        source: &mut dyn Read,
        size_hint: u64,
        previous: Option<&FileContent>,
    ) -> Result<FileContent, EngineError>;
    /// Commits operations (as many commits as needed, in order), with `records` updated once they are durable.
    /// Returns the last commit. Whoever may not write gets `Forbidden`.
    fn commit(
        &self,
        operations: Vec<Operation>,
        records: Vec<RecordChange>,
    ) -> Result<Option<CommitId>, EngineError>;
    /// Number of visible files.
    fn files(&self) -> Result<u64, EngineError>;
    /// This device may write.
    fn writable(&self) -> bool;
    /// This device was a member and was removed.
    fn removed(&self) -> bool {
        false
    }
    /// The packs of `content` that are not here yet; empty = readable now. Those that were offloaded are fetched because of this.
    fn missing_packs(&self, content: &FileContent) -> Result<Vec<PackId>, EngineError>;
    /// Reads content from the start. Fails where a pack is missing.
    fn open(&self, content: &FileContent) -> Result<Box<dyn ContentStream>, EngineError>;
    /// Tells the view's progress.
    fn set_status(&self, status: ViewStatus);
}

/// Content in order, chunk by chunk.
pub trait ContentStream: Send {
    /// Plaintext of the next chunk with its offset in the file; `None` at the end.
    fn next_chunk(&mut self) -> Result<Option<(u64, Bytes)>, EngineError>;
    /// The file's chunks as (id, length), without reading them: lets a view copy unchanged ranges from an older version.
    fn chunks(&mut self) -> Result<Vec<ouisync_model::operation::ChunkRef>, EngineError>;
    /// Skips the next chunk without reading it.
    fn skip_chunk(&mut self) -> Result<(), EngineError>;
}

impl FolderView {
    /// Wraps a folder.
    pub fn new(inner: Arc<dyn FolderAccess>) -> Self {
        Self { inner }
    }
}

impl std::ops::Deref for FolderView {
    type Target = dyn FolderAccess;

    fn deref(&self) -> &Self::Target {
        &*self.inner
    }
}
