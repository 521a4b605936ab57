//! What a simulation asks of an engine that nobody else does.

use std::borrow::Cow;

use ouisync_model::{
    id::{CommitId, DeviceId, FolderId},
    operation::FileContent,
};

use super::{Engine, report::lacking};
use crate::{connection::by_hand::CarriedConnection, error::EngineError};

impl Engine {
    pub(crate) fn step_folders(&self) {
        for folder in self.running() {
            folder.sender.step();
        }
    }

    pub(crate) fn connect_by_hand(
        &self,
        peer: DeviceId,
        is_dialer: bool,
        exporter: [u8; 32],
    ) -> CarriedConnection {
        let rng = self.inner.surroundings.rng();
        CarriedConnection::open(&self.inner.network, peer, is_dialer, exporter, rng)
    }

    pub(crate) async fn want_content(
        &self,
        folder: FolderId,
        content: FileContent,
    ) -> Result<usize, EngineError> {
        let folder = self.folder(&folder)?;
        let readable = folder.shared.readable().ok_or(EngineError::Locked)?;
        let needs = readable.packs_of(&content)?;
        let mut wanted = Vec::new();
        for pack in &needs.missing {
            wanted.push((*pack, readable.pack_size(pack)?));
        }
        let count = wanted.len() + needs.unknown.len();
        folder.run(move |folder| folder.want(&wanted)).await?;
        Ok(count)
    }

    pub(crate) fn reading_secrets(&self, folder: FolderId) -> Vec<[u8; 32]> {
        let record = self.inner.keys.open_record(&folder);
        let epochs = record.iter().flat_map(|record| &record.epochs);
        epochs.map(|(_, _, secret)| *secret).collect()
    }

    pub(crate) fn has_commit(
        &self,
        folder: FolderId,
        commit: CommitId,
    ) -> Result<bool, EngineError> {
        Ok(self.folder(&folder)?.store.contains(commit)?)
    }

    pub(crate) fn unrest(
        &self,
        folder: FolderId,
    ) -> Result<Option<Cow<'static, str>>, EngineError> {
        Ok(lacking(&self.folder(&folder)?))
    }
}
