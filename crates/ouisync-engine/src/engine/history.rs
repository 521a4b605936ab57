//! What the engine tells of folders' history.

use std::{collections::BTreeMap, time::Duration};

use ouisync_model::id::{FolderId, MemberId, Timestamp};

use super::{Engine, blocking};
use crate::{
    error::EngineError,
    history::{
        DeletedEntry, FolderPath, History, HistoryQuery, Recalled, RestoreRequest, Restored, When,
    },
    past::Past,
    recall::{LongWork, Recall, RecallProgress, older::Reach, parts::RecalledParts},
    status::Role,
};

/// Who wrote what history tells of.
#[derive(Clone, Debug, Default)]
pub struct Authors {
    /// Devices' names, where they can be read.
    pub names: BTreeMap<MemberId, String>,
    /// This device's present key.
    pub own: Option<MemberId>,
}

impl Engine {
    /// What happened to a file, in a directory, or in the folder.
    pub async fn history(
        &self,
        folder: FolderId,
        query: HistoryQuery,
    ) -> Result<History, EngineError> {
        let past = self.past(folder).await?;
        blocking(move || past.history(&query)).await
    }

    /// What is deleted below a directory and could be brought back, by path.
    pub async fn deleted(
        &self,
        folder: FolderId,
        directory: FolderPath,
    ) -> Result<Vec<DeletedEntry>, EngineError> {
        let past = self.past(folder).await?;
        blocking(move || past.deleted(&directory)).await
    }

    /// Makes history reach back to `until`, or as far as any connected member holds it; of no effect where it does.
    pub async fn reach_back(
        &self,
        folder: FolderId,
        until: Option<Timestamp>,
        mut progress: Box<dyn RecallProgress>,
    ) -> Result<Reach, EngineError> {
        let mut recall = self.recalling(folder).await?;
        blocking(
            move || match recall.reach_back(until, Duration::ZERO, &mut *progress) {
                // Nobody can be asked.
                Err(EngineError::Paused) => Ok(recall.reach()),
                reach => reach,
            },
        )
        .await
    }

    /// The members that wrote, by name.
    pub fn authors(&self, folder: FolderId) -> Result<Authors, EngineError> {
        let folder = self.folder(&folder)?;
        Ok(Authors {
            names: folder.shared.names(),
            own: folder.shared.snapshot().own_member,
        })
    }

    /// Brings something back into the folder, as an ordinary change.
    pub async fn restore(
        &self,
        folder: FolderId,
        request: RestoreRequest,
        mut progress: Box<dyn RecallProgress>,
    ) -> Result<Restored, EngineError> {
        let work = self.restoring(folder, request).await?;
        blocking(move || work(&mut *progress)).await
    }

    /// What [`Self::restore`] does; blocks.
    pub(crate) async fn restoring(
        &self,
        folder: FolderId,
        request: RestoreRequest,
    ) -> Result<impl LongWork<Restored> + use<>, EngineError> {
        let recall = self.recalling(folder).await?;
        Ok(move |progress: &mut dyn RecallProgress| recall.restore(&request, progress))
    }

    /// Finds a past state and fetches a file's content from whoever holds it; [`Self::view`] reads that.
    pub async fn recall(
        &self,
        folder: FolderId,
        path: FolderPath,
        when: When,
        mut progress: Box<dyn RecallProgress>,
    ) -> Result<Recalled, EngineError> {
        let mut recall = self.recalling(folder).await?;
        blocking(move || recall.recall(&path, &when, &mut *progress)).await
    }

    /// Finds a past state, to be fetched part by part. With `partial` what nobody reachable holds is left out; otherwise it is an
    /// error.
    pub async fn recall_parts(
        &self,
        folder: FolderId,
        path: FolderPath,
        when: When,
        partial: bool,
        mut progress: Box<dyn RecallProgress>,
    ) -> Result<RecalledParts, EngineError> {
        let recall = self.recalling(folder).await?;
        blocking(move || RecalledParts::find(recall, &path, &when, partial, &mut *progress)).await
    }

    pub(super) async fn recalling(&self, folder: FolderId) -> Result<Recall, EngineError> {
        let past = self.past(folder).await?;
        let running = self.folder(&folder)?;
        Ok(Recall {
            shared: running.shared.clone(),
            store: running.store.clone(),
            sender: running.sender.clone(),
            past,
        })
    }

    /// The folder's history as it is now; a folder that can't be read has none.
    pub(super) async fn past(&self, folder: FolderId) -> Result<Past, EngineError> {
        let folder = self.folder(&folder)?;
        let Some(readable) = folder.shared.readable() else {
            return Err(match folder.shared.snapshot().role {
                Some(Role::Safe) => EngineError::Forbidden {
                    role: "safe",
                    action: "read it",
                },
                _ => EngineError::Locked,
            });
        };
        blocking(move || Past::new(readable)).await
    }
}
