//! A device in somebody else's hands: its time, threads, disks and network are a simulation's. For tests.
//!
//! All else is the program's own: the engine, its folders, the store, the session of each connection.

use std::{borrow::Cow, sync::Arc};

use ouisync_model::{
    id::{CommitId, DeviceId, FolderId},
    operation::FileContent,
};
use ouisync_net::{endpoint::Endpoint, memory::MemoryNetwork};

pub use crate::connection::by_hand::{CarriedConnection, CarriedFrames};
use crate::{
    engine::{Engine, EngineOptions},
    error::{EngineError, NotHere},
    history::{RestoreRequest, Restored},
    offload::{Offload, OffloadRequest, ViewFile},
    recall::RecallProgress,
    surroundings::Surroundings,
};

/// Long work that is to be done.
pub type ToDo<T> = Box<dyn FnOnce(&mut dyn RecallProgress) -> Result<T, EngineError> + Send>;

/// A device that does nothing by itself.
pub struct SimulatedDevice {
    engine: Engine,
}

impl SimulatedDevice {
    /// Starts a device; `listen` and `lan` are of no meaning.
    pub async fn start(
        options: EngineOptions,
        surroundings: Arc<dyn Surroundings>,
    ) -> Result<Self, EngineError> {
        // Nobody else is in this network: connections are carried.
        let bind = async |keys: &crate::keys::Keys| -> Result<Endpoint, EngineError> {
            Ok(MemoryNetwork::default().endpoint(keys.device().key().device()))
        };
        let engine = Engine::start_in(options, surroundings, bind).await?;
        Ok(Self { engine })
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Lets the folders look what is due by their clock.
    pub fn tick(&self) {
        self.engine.pass_time();
        self.step();
    }

    /// Lets the folders do everything that waits for them.
    pub fn step(&self) {
        self.engine.step_folders();
    }

    /// This end of a new connection to a device; both ends are given the same `exporter`, which no other connection has.
    pub fn connect(
        &self,
        peer: DeviceId,
        is_dialer: bool,
        exporter: [u8; 32],
    ) -> CarriedConnection {
        self.engine.connect_by_hand(peer, is_dialer, exporter)
    }

    /// Has the packs of a content fetched that are not here, live or not; gives how many those are.
    pub async fn want(
        &self,
        folder: FolderId,
        content: &FileContent,
    ) -> Result<usize, EngineError> {
        self.engine.want_content(folder, content.clone()).await
    }

    /// What [`Engine::restore`] does, for work of these surroundings, which can wait.
    pub async fn restoring(
        &self,
        folder: FolderId,
        request: RestoreRequest,
    ) -> Result<ToDo<Restored>, EngineError> {
        Ok(Box::new(self.engine.restoring(folder, request).await?))
    }

    /// What [`Engine::offload`] does, in the same way.
    pub async fn offloading(
        &self,
        folder: FolderId,
        request: OffloadRequest,
    ) -> Result<ToDo<Offload>, EngineError> {
        Ok(Box::new(self.engine.offloading(folder, request).await?))
    }

    /// What [`Engine::fetch`] does, in the same way.
    pub async fn fetching(
        &self,
        folder: FolderId,
        files: Vec<ViewFile>,
    ) -> Result<ToDo<(Vec<usize>, NotHere)>, EngineError> {
        Ok(Box::new(self.engine.fetching(folder, files).await?))
    }

    /// The reading secrets that this device knows.
    pub fn reading_secrets(&self, folder: FolderId) -> Vec<[u8; 32]> {
        self.engine.reading_secrets(folder)
    }

    /// Whether the folder's store knows a commit.
    pub fn has_commit(&self, folder: FolderId, commit: CommitId) -> Result<bool, EngineError> {
        self.engine.has_commit(folder, commit)
    }

    /// Why the folder is not at rest, which it is when everything the device has is acknowledged, everything announced is here, and
    /// nothing is being merged.
    pub fn unrest(&self, folder: FolderId) -> Result<Option<Cow<'static, str>>, EngineError> {
        self.engine.unrest(folder)
    }
}
