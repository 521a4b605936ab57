//! Makes what a folder received durable, on a thread of its own, so that the folder goes on meanwhile.

use std::{sync::Arc, thread::JoinHandle};

use ouisync_model::id::PackId;
use ouisync_store::{error::StoreError, store::Store};
use tokio::sync::mpsc;

use crate::command::{Command, FolderSender};

/// What became durable.
pub(crate) struct Flushed(pub(crate) Result<Vec<PackId>, StoreError>);

/// The thread; ends when this is dropped.
pub(crate) struct Flusher {
    wake: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(crate) fn start(store: Arc<Store>, folder: FolderSender) -> std::io::Result<Self> {
        // One waiting wake-up covers everything written before it is taken.
        let (wake, mut woken) = mpsc::channel(1);
        let thread = std::thread::Builder::new()
            .name("folder-flush".to_owned())
            .spawn(move || {
                while woken.blocking_recv() == Some(()) {
                    folder.send(Command::Flushed(Flushed(store.sync_packs())));
                }
            })?;
        Ok(Self {
            wake: Some(wake),
            thread: Some(thread),
        })
    }

    /// Something was written.
    pub(crate) fn wake(&self) {
        if let Some(wake) = &self.wake {
            // Full: a wake-up is waiting already.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}
