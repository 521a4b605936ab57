//! The device's answers about folders' plain directories.

use std::time::Duration;

use ouisync_api::{
    directory::{Brake, BrakeRequest, Burst, CopiesOutcome, Skipped, Undone, Verdict},
    error::{ErrorBody, ErrorKind},
    moment::Moment,
};
use ouisync_engine::status::FolderSummary;
use ouisync_worktree::{
    brake::{BrakeOrder, BrakeState},
    offload::Copies,
    worktree::Worktree,
};

use super::{Device, Inner, past::names};
use crate::{
    refusal::invalid,
    service::{DirectoryService, Reply},
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

    fn offload(&self, folder: String, path: String) -> Reply<'_, CopiesOutcome> {
        Box::pin(async move { self.inner.set_copies(&folder, &path, Copies::Offload).await })
    }

    fn fetch(&self, folder: String, path: String) -> Reply<'_, CopiesOutcome> {
        Box::pin(async move { self.inner.set_copies(&folder, &path, Copies::Fetch).await })
    }
}

impl Inner {
    async fn set_copies(
        &self,
        folder: &str,
        path: &str,
        copies: Copies,
    ) -> Result<CopiesOutcome, ErrorBody> {
        let summary = self.find(folder)?;
        let names = names(path)?;
        let outcome =
            self.with_directory(&summary, |worktree| worktree.set_copies(names, copies))?;
        let outcome = match outcome.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(why)) => return Err(cannot(&why)),
            Err(_) => return Err(cannot("the directory is not attached any more")),
        };
        if outcome.unknown {
            return Err(ErrorBody::new(
                ErrorKind::NotFound,
                format!(
                    "there is nothing at '{path}' in the folder '{}'",
                    summary.name
                ),
                "Give a path inside the folder's directory, or FOLDER:path.",
            ));
        }
        let skipped = outcome.skipped.into_iter();
        Ok(CopiesOutcome {
            files: outcome.files,
            bytes: outcome.bytes,
            skipped: skipped
                .map(|(path, reason)| Skipped { path, reason })
                .collect(),
        })
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
