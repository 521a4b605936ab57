//! Bringing content of the past back: finding it, fetching it from whoever holds it, putting it into the folder or elsewhere.
//!
//! Everything here blocks and runs beside the folder's thread; what changes the folder is handed to that thread as one job, so
//! that nothing is half done when a caller goes away.

pub(crate) mod fetch;
pub mod older;
pub mod parts;
mod plan;
mod source;

use std::sync::Arc;

use ouisync_store::store::Store;

use ouisync_model::name::Name;

use self::{fetch::Fetcher, source::Item};
use crate::{
    command::FolderSender,
    error::EngineError,
    history::{Recalled, When},
    past::Past,
    readable::Readable,
    shared::Shared,
};

/// What long work tells, and how it is stopped.
pub trait RecallProgress: Send {
    /// Bytes (or commits) done of those in all; `false` stops the work.
    fn tell(&mut self, phase: RecallPhase, done: u64, total: u64) -> bool;
}

/// Such work, ready to be done on any thread that may wait.
pub(crate) trait LongWork<T>:
    FnOnce(&mut dyn RecallProgress) -> Result<T, EngineError> + Send + 'static
{
}

impl<T, W> LongWork<T> for W where
    W: FnOnce(&mut dyn RecallProgress) -> Result<T, EngineError> + Send + 'static
{
}

/// A part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecallPhase {
    /// Looking for what is meant.
    Looking,
    /// Fetching what was done before the history held here: in commits, not bytes.
    History,
    /// Fetching packs.
    Fetching,
    /// Writing.
    Writing,
    /// Asking others to show that they hold packs.
    Proving,
}

/// A folder whose past is brought back.
pub(crate) struct Recall {
    pub(crate) shared: Arc<Shared>,
    pub(crate) store: Arc<Store>,
    pub(crate) sender: FolderSender,
    pub(crate) past: Past,
}

impl Recall {
    fn readable(&self) -> &Arc<Readable> {
        &self.past.readable
    }

    pub(crate) fn fetcher(&self) -> Fetcher<'_> {
        Fetcher {
            shared: &self.shared,
            store: &self.store,
            sender: &self.sender,
            readable: &self.past.readable,
        }
    }

    /// Finds what `when` means of `path` and fetches the content of a file.
    pub(crate) fn recall(
        &mut self,
        path: &[Name],
        when: &When,
        progress: &mut dyn RecallProgress,
    ) -> Result<Recalled, EngineError> {
        if !progress.tell(RecallPhase::Looking, 0, 0) {
            return Err(EngineError::Cancelled);
        }
        let mut source = self.find_held(path, when, progress)?;
        let is_leaf = source.leaf().is_some();
        let fetched: &[usize] = match source.leaf().and_then(Item::content) {
            Some(_) => &[0],
            None => &[],
        };
        self.fetch_items(&mut source, fetched, false, progress, &mut Vec::new())?;
        Ok(Recalled {
            path: source.path,
            is_leaf,
            entries: source.items.into_iter().map(Item::into_entry).collect(),
            written: source.written,
            version: source.version,
        })
    }
}
