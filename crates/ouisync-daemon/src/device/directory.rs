//! The device's answers about folders' plain directories.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ouisync_api::{
    directory::{
        Brake, BrakeRequest, Burst, Fetched, OffloadRequest, Offloaded, Skipped, Undone, Verdict,
    },
    error::{ErrorBody, ErrorKind},
    history::Phase,
    moment::Moment,
};
use ouisync_engine::{
    error::EngineError,
    offload::{self, ViewFile},
    status::FolderSummary,
};
use ouisync_worktree::{
    brake::{BrakeOrder, BrakeState},
    offload::{Copies, FilePath, ListedFile, Listing, OffloadOutcome},
    worktree::Worktree,
};
use tokio::sync::oneshot::error::RecvError;

use super::{
    Device, Inner,
    past::{Telling, names, text},
    service::engine,
};
use crate::{
    refusal::{from_engine, invalid},
    service::{DirectoryService, Reply, WorkWatch},
};

/// Longest time over which a burst may stretch.
const LONGEST_WINDOW: u64 = 86_400;

impl DirectoryService for Device {
    fn brake(&self, folder: String) -> Reply<'_, Brake> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            self.inner
                .with_directory(&summary, |worktree| as_data(&worktree.brake()))
        })
    }

    fn set_brake(&self, folder: String, request: BrakeRequest) -> Reply<'_, Brake> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            let orders = |worktree: &Worktree| order(worktree, &request);
            self.inner.with_directory(&summary, orders)??;
            self.inner
                .with_directory(&summary, |worktree| as_data(&worktree.brake()))
        })
    }

    fn offload(
        &self,
        folder: String,
        request: OffloadRequest,
        progress: WorkWatch,
    ) -> Reply<'_, Offloaded> {
        Box::pin(async move { self.inner.offload(&folder, &request, progress).await })
    }

    fn fetch(&self, folder: String, path: String, progress: WorkWatch) -> Reply<'_, Fetched> {
        Box::pin(async move { self.inner.fetch(&folder, &path, progress).await })
    }
}

/// Most files that are named one by one.
const NAMED: usize = 100;

impl Inner {
    async fn offload(
        &self,
        folder: &str,
        request: &OffloadRequest,
        progress: WorkWatch,
    ) -> Result<Offloaded, ErrorBody> {
        let (summary, progress) = (self.find(folder)?, Arc::new(progress));
        let path = names(&request.path)?;
        if request.plain {
            let kept = BTreeSet::new();
            let dropped = self.set_copies(&summary, path, Copies::Offload, kept, &progress);
            let dropped = dropped.await?;
            return Ok(Offloaded {
                files: dropped.files,
                bytes: dropped.bytes,
                skipped: named(&dropped),
                ..Offloaded::default()
            });
        }
        let listing = self.list_copies(&summary, &path).await?;
        let offload = self.engine.offload(
            summary.folder,
            offload::OffloadRequest {
                chosen: listing.below.iter().map(view_file).collect(),
                others: listing.offloaded.iter().map(view_file).collect(),
            },
            Box::new(Telling(progress.clone())),
        );
        let offload = engine(offload.await)?;
        if let Some(replicas) = offload
            .refused
            .values()
            .next()
            .filter(|_| !offload.shows_any())
        {
            return Err(from_engine(&EngineError::TooFewReplicas(replicas.clone())));
        }
        let refused: BTreeSet<FilePath> = offload
            .refused
            .keys()
            .filter_map(|index| Some(listing.below.get(*index)?.path.clone()))
            .collect();
        let dropped = self
            .set_copies(&summary, path, Copies::Offload, refused.clone(), &progress)
            .await?;
        let mut skipped = named(&dropped);
        for (index, replicas) in &offload.refused {
            if let Some(file) = listing.below.get(*index)
                && skipped.len() < NAMED
            {
                skipped.push(Skipped {
                    path: text(&file.path),
                    reason: replicas.to_string(),
                });
            }
        }
        let gone = listing.below.iter().enumerate();
        let gone = gone.filter(|(_, file)| {
            !refused.contains(&file.path) && !dropped.kept.contains(&file.path)
        });
        let gone: BTreeSet<usize> = gone.map(|(index, _)| index).collect();
        let freed = super::blocking(move || engine(offload.finish(&gone))).await?;
        Ok(Offloaded {
            files: dropped.files,
            bytes: dropped.bytes,
            packs: freed.packs,
            pack_bytes: freed.bytes,
            skipped,
        })
    }

    async fn fetch(
        &self,
        folder: &str,
        path: &str,
        progress: WorkWatch,
    ) -> Result<Fetched, ErrorBody> {
        let (summary, progress) = (self.find(folder)?, Arc::new(progress));
        let path = names(path)?;
        let listing = self.list_copies(&summary, &path).await?;
        let wanted: Vec<&ListedFile> = listing.below.iter().filter(|file| file.offloaded).collect();
        let files = wanted.iter().map(|file| view_file(file)).collect();
        let telling = Box::new(Telling(progress.clone()));
        let fetching = self.engine.fetch(summary.folder, files, telling);
        let (lost, not_here) = engine(fetching.await)?;
        if let Some(first) = lost.first().filter(|_| lost.len() == wanted.len()) {
            return Err(from_engine(&EngineError::NotReachable {
                path: text(&wanted[*first].path),
                others: lost.len() - 1,
                not_here,
            }));
        }
        let lost: BTreeSet<FilePath> = lost
            .iter()
            .map(|index| wanted[*index].path.clone())
            .collect();
        let back = self
            .set_copies(&summary, path, Copies::Fetch, lost.clone(), &progress)
            .await?;
        let mut skipped = named(&back);
        let reason = "no connected member holds it".to_owned();
        skipped.extend(
            lost.iter()
                .take(NAMED - skipped.len().min(NAMED))
                .map(|path| Skipped {
                    path: text(path),
                    reason: reason.clone(),
                }),
        );
        Ok(Fetched {
            files: back.files,
            bytes: back.bytes,
            skipped,
        })
    }

    async fn list_copies(
        &self,
        summary: &FolderSummary,
        path: &FilePath,
    ) -> Result<Listing, ErrorBody> {
        let list = |worktree: &Worktree| worktree.list_copies(path.clone());
        let listing = told(self.with_directory(summary, list)?.await)?;
        if listing.unknown {
            return Err(nothing_at(&text(path), summary));
        }
        Ok(listing)
    }

    /// Drops plain copies or brings them back; what of them is done is told as bytes.
    async fn set_copies(
        &self,
        summary: &FolderSummary,
        path: FilePath,
        copies: Copies,
        except: BTreeSet<FilePath>,
        progress: &Arc<WorkWatch>,
    ) -> Result<OffloadOutcome, ErrorBody> {
        let phase = match copies {
            Copies::Offload => Phase::Dropping,
            Copies::Fetch => Phase::Writing,
        };
        let watch = progress.clone();
        let tell = Box::new(move |done, total| {
            watch.send_replace((phase, done, total));
            !watch.is_closed()
        });
        let shown = text(&path);
        let set = |worktree: &Worktree| worktree.set_copies(path, copies, except, tell);
        let outcome = told(self.with_directory(summary, set)?.await)?;
        if outcome.unknown {
            return Err(nothing_at(&shown, summary));
        }
        Ok(outcome)
    }

    /// Does something with a folder's directory.
    fn with_directory<T>(
        &self,
        summary: &FolderSummary,
        action: impl FnOnce(&Worktree) -> T,
    ) -> Result<T, ErrorBody> {
        self.views
            .with(summary.folder, action)
            .ok_or_else(|| no_directory(&summary.name))
    }
}

fn nothing_at(path: &str, summary: &FolderSummary) -> ErrorBody {
    ErrorBody::new(
        ErrorKind::NotFound,
        format!(
            "there is nothing at '{path}' in the folder '{}'",
            summary.name
        ),
        "Give a path inside the folder's directory, or FOLDER:path.",
    )
}

fn view_file(file: &ListedFile) -> ViewFile {
    ViewFile {
        directory: file.directory,
        name: file.name.clone(),
    }
}

fn named(outcome: &OffloadOutcome) -> Vec<Skipped> {
    let skipped = outcome.skipped.iter().cloned();
    skipped
        .map(|(path, reason)| Skipped { path, reason })
        .collect()
}

/// What the directory's thread told.
fn told<T>(outcome: Result<Result<T, String>, RecvError>) -> Result<T, ErrorBody> {
    match outcome {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(why)) => Err(cannot(&why)),
        Err(_) => Err(cannot("the directory is not attached any more")),
    }
}

fn cannot(why: &str) -> ErrorBody {
    ErrorBody::new(
        ErrorKind::Unavailable,
        format!("the plain copies stay as they are: {why}"),
        "See 'ouisync status'.",
    )
}

pub(super) fn no_directory(folder: &str) -> ErrorBody {
    ErrorBody::new(
        ErrorKind::NotFound,
        format!("the folder '{folder}' has no directory attached"),
        "Give it one with 'ouisync folder attach'.",
    )
}

fn order(worktree: &Worktree, request: &BrakeRequest) -> Result<(), ErrorBody> {
    let state = worktree.brake();
    let mut settings = state.settings;
    settings.enabled = request.enabled.unwrap_or(settings.enabled);
    settings.files = request.files.unwrap_or(settings.files);
    settings.percent = request.percent.unwrap_or(settings.percent);
    if settings.percent > 100 {
        return Err(invalid("the share is above 100 %", "Give 0 to 100."));
    }
    if let Some(seconds) = request.window_seconds {
        if !(1..=LONGEST_WINDOW).contains(&seconds) {
            return Err(invalid(
                "the time is out of range",
                "Give 1 to 86,400 seconds.",
            ));
        }
        settings.window = Duration::from_secs(seconds);
    }
    if settings != state.settings {
        worktree.order_brake(BrakeOrder::Set(settings));
    }
    let verdict = match request.verdict {
        None => return Ok(()),
        Some(Verdict::Allow) => BrakeOrder::Allow,
        Some(Verdict::Undo) => BrakeOrder::Undo,
    };
    if state.burst.is_none() || state.undoing {
        return Err(ErrorBody::new(
            ErrorKind::Conflict,
            "no burst of changes is held back",
            "What was sent already is brought back by 'ouisync restore'.",
        ));
    }
    worktree.order_brake(verdict);
    Ok(())
}

fn as_data(state: &BrakeState) -> Brake {
    let since = |seconds: u64| {
        let moment = i64::try_from(seconds)
            .ok()
            .and_then(|seconds| Moment::new(seconds, 0));
        moment.map_or_else(String::new, |moment| moment.to_rfc3339())
    };
    Brake {
        enabled: state.settings.enabled,
        files: state.settings.files,
        percent: state.settings.percent,
        window_seconds: state.settings.window.as_secs(),
        burst: state.burst.map(|burst| Burst {
            since: since(burst.since),
            deleted: burst.deleted,
            rewritten: burst.rewritten,
            scrambled: burst.scrambled,
            of: burst.of,
        }),
        undoing: state.undoing,
        undone: state.undone.as_ref().map(|undone| Undone {
            put_back: undone.put_back,
            set_aside: undone.set_aside,
            kept_in: undone
                .kept_in
                .as_ref()
                .map(|path| path.to_string_lossy().into_owned()),
        }),
    }
}
