//! Makes what a folder received durable beside its thread, so that the folder goes on meanwhile.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use ouisync_model::id::PackId;
use ouisync_store::{error::StoreError, store::Store};
use tracing::warn;

use crate::{
    command::{Command, FolderSender},
    surroundings::{Running, Surroundings},
};

/// What became durable.
pub(crate) struct Flushed(pub(crate) Result<Vec<PackId>, StoreError>);

/// Flushes what was written; what is under way ends before this is dropped.
pub(crate) struct Flusher {
    store: Arc<Store>,
    folder: FolderSender,
    surroundings: Arc<dyn Surroundings>,
    /// A flush is to begin: it covers everything written before.
    waiting: Arc<AtomicBool>,
    running: Vec<Running>,
}

impl Flusher {
    pub(crate) fn new(
        store: Arc<Store>,
        folder: FolderSender,
        surroundings: Arc<dyn Surroundings>,
    ) -> Self {
        Self {
            store,
            folder,
            surroundings,
            waiting: Arc::default(),
            running: Vec::new(),
        }
    }

    /// Something was written.
    pub(crate) fn wake(&mut self) {
        if self.waiting.swap(true, Ordering::AcqRel) {
            return;
        }
        let (store, folder) = (self.store.clone(), self.folder.clone());
        let waiting = self.waiting.clone();
        let flush = move || {
            waiting.store(false, Ordering::Release);
            folder.send(Command::Flushed(Flushed(store.sync_packs())));
        };
        self.running.retain(|running| !running.is_finished());
        match self
            .surroundings
            .spawn("folder-flush", Box::new(flush.clone()))
        {
            Ok(running) => self.running.push(running),
            Err(error) => {
                warn!(%error, "can't start a thread to make packs durable");
                flush();
            }
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.running.drain(..).for_each(Running::join);
    }
}
