//! Bringing content of the past back: finding it, fetching it from whoever holds it, putting it into the folder or elsewhere.
//!
//! Everything here blocks and runs beside the folder's thread; what changes the folder is handed to that thread as one job, so
//! that nothing is half done when a caller goes away.

pub(crate) mod fetch;
mod plan;
mod source;

use std::sync::Arc;

use ouisync_store::store::Store;

use ouisync_model::name::Name;

use self::fetch::Fetcher;
use crate::{
    command::FolderSender,
    error::EngineError,
    history::{Recalled, RecalledEntry, Wanted, When},
    past::Past,
    readable::Readable,
    shared::Shared,
};

/// What long work tells, and how it is stopped.
pub trait RecallProgress: Send {
    /// Bytes done of bytes in all; `false` stops the work.
    fn tell(&mut self, phase: RecallPhase, done: u64, total: u64) -> bool;
}

/// A part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecallPhase {
    /// Looking for what is meant.
    Looking,
    /// Fetching packs.
    Fetching,
    /// Writing.
    Writing,
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

    fn fetcher(&self) -> Fetcher<'_> {
        Fetcher {
            shared: &self.shared,
            store: &self.store,
            sender: &self.sender,
            readable: &self.past.readable,
        }
    }

    /// Finds what `when` means of `path` and fetches its content as far as it is wanted.
    pub(crate) fn recall(
        &self,
        path: &[Name],
        when: &When,
        wanted: Wanted,
        progress: &mut dyn RecallProgress,
    ) -> Result<Recalled, EngineError> {
        if !progress.tell(RecallPhase::Looking, 0, 0) {
            return Err(EngineError::Cancelled);
        }
        let mut source = self.find(path, when)?;
        let is_leaf = source.leaf().is_some();
        let fetched: Vec<usize> = (0..source.items.len())
            .filter(|index| source.items[*index].content().is_some())
            .filter(|_| is_leaf || wanted != Wanted::File)
            .collect();
        let partial = wanted == Wanted::Reachable;
        let missing = self.fetch_items(&mut source, &fetched, partial, progress)?;
        let entries = source.items.into_iter().map(|item| RecalledEntry {
            path: item.path,
            value: item.value,
            metadata: item.metadata,
        });
        Ok(Recalled {
            path: source.path,
            is_leaf,
            entries: entries.collect(),
            missing,
            written: source.written,
            version: source.version,
        })
    }
}
