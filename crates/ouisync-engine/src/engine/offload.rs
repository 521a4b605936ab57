//! Giving up packs of files that others hold, and fetching them again.

use ouisync_model::id::FolderId;

use super::{Engine, blocking};
use crate::{
    error::{EngineError, NotHere},
    offload::{Files, Offload, OffloadRequest, ViewFile},
    recall::{LongWork, RecallProgress},
};

impl Engine {
    /// Finds the packs that can go with the chosen files, gives them up, and has members that hold them show it. The caller then
    /// drops the plain copies of those files that were not refused, and finishes.
    pub async fn offload(
        &self,
        folder: FolderId,
        request: OffloadRequest,
        mut progress: Box<dyn RecallProgress>,
    ) -> Result<Offload, EngineError> {
        let work = self.offloading(folder, request).await?;
        blocking(move || work(&mut *progress)).await
    }

    /// What [`Self::offload`] does; blocks.
    pub(crate) async fn offloading(
        &self,
        folder: FolderId,
        request: OffloadRequest,
    ) -> Result<impl LongWork<Offload> + use<>, EngineError> {
        let recall = self.recalling(folder).await?;
        let files = Files {
            readable: recall.past.readable.clone(),
            store: recall.store.clone(),
            shared: recall.shared.clone(),
            sender: recall.sender.clone(),
        };
        Ok(move |progress: &mut dyn RecallProgress| files.prepare(request, progress))
    }

    /// Fetches the content of files as far as it isn't here. Returns those, by their places in the list, that nobody reachable
    /// holds, and who was asked.
    pub async fn fetch(
        &self,
        folder: FolderId,
        files: Vec<ViewFile>,
        mut progress: Box<dyn RecallProgress>,
    ) -> Result<(Vec<usize>, NotHere), EngineError> {
        let work = self.fetching(folder, files).await?;
        blocking(move || work(&mut *progress)).await
    }

    /// What [`Self::fetch`] does; blocks.
    pub(crate) async fn fetching(
        &self,
        folder: FolderId,
        files: Vec<ViewFile>,
    ) -> Result<impl LongWork<(Vec<usize>, NotHere)> + use<>, EngineError> {
        let recall = self.recalling(folder).await?;
        Ok(move |progress: &mut dyn RecallProgress| {
            let (mut contents, mut places) = (Vec::new(), Vec::new());
            for (place, file) in files.iter().enumerate() {
                if let Some(content) = file.content(&recall.past.readable)? {
                    contents.push(content);
                    places.push(place);
                }
            }
            let contents: Vec<_> = contents.iter().collect();
            let (lost, not_here) = recall
                .fetcher()
                .fetch(&contents, progress, &mut Vec::new())?;
            Ok((lost.iter().map(|index| places[*index]).collect(), not_here))
        })
    }
}
