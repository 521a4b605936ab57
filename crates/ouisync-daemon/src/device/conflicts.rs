//! The device's answers about conflicts.

use std::path::Path;

use ouisync_api::{
    conflicts::{Conflict, ConflictVersion, ResolveRequest, Resolved},
    error::ErrorBody,
    history::EntryKind,
};
use ouisync_engine::engine::{
    conflicts::{ConflictInfo, Resolution, VersionKind},
    history::Authors,
};

use super::{
    Device,
    past::{author, names, text},
    service::engine,
};
use crate::{
    refusal::invalid,
    service::{ConflictService, Reply},
};

impl ConflictService for Device {
    fn conflicts(&self, folder: String) -> Reply<'_, Vec<Conflict>> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            let found = engine(self.inner.engine.conflicts(summary.folder).await)?;
            let authors = engine(self.inner.engine.authors(summary.folder))?;
            Ok(found
                .iter()
                .map(|found| conflict(&summary.name, found, &authors))
                .collect())
        })
    }

    fn resolve(&self, folder: String, request: ResolveRequest) -> Reply<'_, Resolved> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            let path = names(&request.path)?;
            let resolution = resolution(request).await?;
            let settled = self
                .inner
                .engine
                .resolve(summary.folder, path, resolution)
                .await;
            Ok(Resolved {
                folder: summary.name,
                path: text(&engine(settled)?),
            })
        })
    }
}

async fn resolution(request: ResolveRequest) -> Result<Resolution, ErrorBody> {
    match (request.keep, request.both, request.merged) {
        (Some(version), false, None) => Ok(Resolution::Keep(version)),
        (None, true, None) => Ok(Resolution::Both),
        (None, false, Some(path)) => merged(path).await,
        _ => Err(invalid(
            "a conflict is settled in exactly one way",
            "Give one of 'keep', 'both' and 'merged'; nothing was changed.",
        )),
    }
}

async fn merged(path: String) -> Result<Resolution, ErrorBody> {
    let unusable = |why: String| {
        invalid(
            format!("'{path}' can't be the merged content: {why}"),
            "Give the absolute path of a file that you may read; nothing was changed.",
        )
    };
    if !Path::new(&path).is_absolute() {
        return Err(unusable("it is no absolute path".to_owned()));
    }
    let opened = tokio::fs::File::open(&path).await;
    let file = opened.map_err(|error| unusable(error.to_string()))?;
    let metadata = file.metadata().await;
    let metadata = metadata.map_err(|error| unusable(error.to_string()))?;
    if !metadata.is_file() {
        return Err(unusable("it is no file".to_owned()));
    }
    Ok(Resolution::Merged(
        metadata.len(),
        Box::new(file.into_std().await),
    ))
}

fn conflict(folder: &str, found: &ConflictInfo, authors: &Authors) -> Conflict {
    let versions = (1..).zip(&found.versions);
    Conflict {
        folder: folder.to_owned(),
        path: text(&found.path),
        versions: versions
            .map(|(number, version)| ConflictVersion {
                version: version.version.clone(),
                number,
                path: text(&version.path),
                kind: match version.kind {
                    VersionKind::File => EntryKind::File,
                    VersionKind::Symlink => EntryKind::Symlink,
                    VersionKind::Directory => EntryKind::Directory,
                },
                size: version.size,
                author: version.author.map(|member| author(&member, authors)),
                time: version.time.to_rfc3339(),
                here: version.here,
                lines_added: version.changes.map(|changes| changes.added),
                lines_removed: version.changes.map(|changes| changes.removed),
            })
            .collect(),
    }
}
