//! The device's answers about folders' past.

use std::sync::Arc;

use bytes::Bytes;
use ouisync_api::{
    error::ErrorBody,
    history::{
        Action, Author, Beside, BrowseRequest, Change, ContentRequest, Deleted, DeletedRequest,
        EntryKind, Found, History, HistoryRequest, OlderHistory, OlderHistoryRequest, Phase,
        RestoreRequest, Restored, Selection, Version,
    },
    moment::Moment,
};
use ouisync_engine::{
    engine::history::Authors,
    error::EngineError,
    history::{
        self, DeletedEntry, Events, FileVersion, FolderChange, FolderPath, HistoryQuery, Recalled,
        When,
    },
    recall::{RecallPhase, RecallProgress},
    status::FolderSummary,
    view::FolderView,
};
use ouisync_model::{
    id::{MemberId, Timestamp},
    name::Name,
    operation::{FileContent, Value},
};
use tokio::sync::{mpsc, watch};

use super::{Device, service::engine, write_out};
use crate::{
    refusal::invalid,
    service::{Content, PastService, Reply, WorkWatch},
};

/// Entries of history when the request doesn't say.
const LIMIT: u32 = 1000;

impl PastService for Device {
    fn history(&self, folder: String, request: HistoryRequest) -> Reply<'_, History> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            let shown = request.path.unwrap_or_default();
            let query = HistoryQuery {
                path: names(&shown)?,
                since: request.since.as_deref().map(moment).transpose()?,
                until: request.until.as_deref().map(moment).transpose()?,
                limit: request.limit.unwrap_or(LIMIT) as usize,
            };
            let path = text(&query.path);
            let found = engine(self.inner.engine.history(summary.folder, query).await)?;
            let authors = engine(self.inner.engine.authors(summary.folder))?;
            let (versions, changes) = match found.events {
                Events::Versions(versions) => {
                    let versions = versions.iter().map(|found| version(found, &authors));
                    (Some(versions.collect()), None)
                }
                Events::Changes(changes) => {
                    let changes = changes.iter().map(|found| change(found, &authors));
                    (None, Some(changes.collect()))
                }
            };
            Ok(History {
                folder: summary.name,
                path,
                versions,
                changes,
                more: found.more,
                begins: found.begins.map(|begins| begins.to_rfc3339()),
            })
        })
    }

    fn older_history(
        &self,
        folder: String,
        request: OlderHistoryRequest,
        progress: WorkWatch,
    ) -> Reply<'_, OlderHistory> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            let until = request.since.as_deref().map(moment).transpose()?;
            let progress = Box::new(Telling(Arc::new(progress)));
            let reaching = self
                .inner
                .engine
                .reach_back(summary.folder, until, progress);
            let reach = engine(reaching.await)?;
            Ok(OlderHistory {
                begins: reach.begins.map(|begins| begins.to_rfc3339()),
                asked: reach.not_here.asked,
                away: reach.not_here.away,
            })
        })
    }

    fn deleted(&self, folder: String, request: DeletedRequest) -> Reply<'_, Vec<Deleted>> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            let path = names(&request.path.unwrap_or_default())?;
            let found = engine(self.inner.engine.deleted(summary.folder, path).await)?;
            let authors = engine(self.inner.engine.authors(summary.folder))?;
            Ok(found.iter().map(|entry| deleted(entry, &authors)).collect())
        })
    }

    fn find_version(
        &self,
        folder: String,
        request: ContentRequest,
        progress: WorkWatch,
    ) -> Reply<'_, Found> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            let found = self.recall(&summary, &request.selection, progress).await?;
            let authors = engine(self.inner.engine.authors(summary.folder))?;
            let leaf = found.entries.first().filter(|_| found.is_leaf);
            let (kind, size) = leaf
                .and_then(|entry| kind(&entry.value))
                .unwrap_or((EntryKind::Directory, 0));
            let written = found.written.as_ref();
            Ok(Found {
                path: text(&found.path),
                kind,
                size,
                time: written.map(|(_, time)| time.to_rfc3339()),
                author: written.map(|(member, _)| author(member, &authors)),
                version: found.version,
            })
        })
    }

    fn content(&self, folder: String, request: ContentRequest) -> Reply<'_, Content> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            let (progress, _listening) = watch::channel((Phase::Looking, 0, 0));
            let found = self.recall(&summary, &request.selection, progress).await?;
            let Some(entry) = found.entries.into_iter().next().filter(|_| found.is_leaf) else {
                return Err(invalid(
                    format!("'{}' is a directory and has no content", text(&found.path)),
                    "Write it out with 'ouisync browse'.",
                ));
            };
            let view = engine(self.inner.engine.view(summary.folder))?;
            let (sender, receiver) = mpsc::channel(4);
            match entry.value {
                Value::File(content) => {
                    tokio::task::spawn_blocking(move || send_content(&view, &content, &sender));
                }
                Value::Symlink(target) => {
                    // The channel is new and has room.
                    let _ = sender.try_send(Ok(Bytes::from(target)));
                }
                Value::Directory | Value::Deleted => {}
            }
            Ok(receiver)
        })
    }

    fn restore(
        &self,
        folder: String,
        request: RestoreRequest,
        progress: WorkWatch,
    ) -> Reply<'_, Restored> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            let (path, when) = selected(&request.selection)?;
            let request = history::RestoreRequest {
                path,
                when,
                to: request.to.as_deref().map(names).transpose()?,
                exact: request.exact,
                partial: request.partial,
            };
            let progress = Box::new(Telling(Arc::new(progress)));
            let restoring = self.inner.engine.restore(summary.folder, request, progress);
            let done = engine(restoring.await)?;
            let beside = done.beside.iter().map(|(path, to)| Beside {
                path: text(path),
                to: text(to),
            });
            Ok(Restored {
                files: done.files,
                directories: done.directories,
                bytes: done.bytes,
                unchanged: done.unchanged,
                removed: done.removed,
                beside: beside.collect(),
                missing: done.missing.iter().map(|path| text(path)).collect(),
                applied: done.applied,
                version: done.version(),
            })
        })
    }

    fn browse(
        &self,
        folder: String,
        request: BrowseRequest,
        progress: WorkWatch,
    ) -> Reply<'_, Restored> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            let target = self.inner.outside(&request.target).await?;
            let (path, when) = selected(&request.selection)?;
            let progress = Arc::new(progress);
            let recalling = self.inner.engine.recall_parts(
                summary.folder,
                path,
                when,
                request.partial,
                Box::new(Telling(progress.clone())),
            );
            let found = engine(recalling.await)?;
            let view = engine(self.inner.engine.view(summary.folder))?;
            let written = super::blocking(move || {
                write_out::write(&view, found, &target, &mut Telling(progress))
            });
            written.await
        })
    }
}

impl Device {
    async fn recall(
        &self,
        summary: &FolderSummary,
        selection: &Selection,
        progress: WorkWatch,
    ) -> Result<Recalled, ErrorBody> {
        let (path, when) = selected(selection)?;
        let telling = Box::new(Telling(Arc::new(progress)));
        let recalling = self
            .inner
            .engine
            .recall(summary.folder, path, when, telling);
        engine(recalling.await)
    }
}

/// Tells the work's progress to whoever listens.
pub(super) struct Telling(pub(super) Arc<WorkWatch>);

impl RecallProgress for Telling {
    fn tell(&mut self, phase: RecallPhase, done: u64, total: u64) -> bool {
        let phase = match phase {
            RecallPhase::Looking => Phase::Looking,
            RecallPhase::History => Phase::History,
            RecallPhase::Fetching => Phase::Fetching,
            RecallPhase::Writing => Phase::Writing,
            RecallPhase::Proving => Phase::Proving,
        };
        self.0.send_if_modified(|told| {
            let changed = *told != (phase, done, total);
            *told = (phase, done, total);
            changed
        });
        !self.0.is_closed()
    }
}

/// Sends content until its end or until nobody takes it.
fn send_content(
    view: &FolderView,
    content: &FileContent,
    sender: &mpsc::Sender<Result<Bytes, std::io::Error>>,
) {
    let read = || -> Result<(), EngineError> {
        let mut stream = view.open(content)?;
        while let Some((_, bytes)) = stream.next_chunk()? {
            if sender.blocking_send(Ok(bytes)).is_err() {
                break;
            }
        }
        Ok(())
    };
    if let Err(error) = read() {
        tracing::warn!(%error, "content of a version can't be read");
        // The reader may be gone; then nobody needs to know.
        let _ = sender.blocking_send(Err(std::io::Error::other(error)));
    }
}

/// What a request selects.
fn selected(selection: &Selection) -> Result<(FolderPath, When), ErrorBody> {
    let path = names(selection.path.as_deref().unwrap_or_default())?;
    let when = match (&selection.at, &selection.version) {
        (None, None) => When::Latest,
        (Some(at), None) => When::At(moment(at)?),
        (None, Some(version)) => When::Version(version.clone()),
        (Some(_), Some(_)) => {
            return Err(invalid(
                "both a time and a version are given",
                "Give one of them.",
            ));
        }
    };
    Ok((path, when))
}

/// The names of a path; empty parts and a leading `/` don't count.
pub(super) fn names(path: &str) -> Result<FolderPath, ErrorBody> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    let name = |part: &str| {
        Name::new(part).map_err(|error| {
            invalid(
                format!("'{path}' is no path in a folder: {error}"),
                "Write names joined by '/', from the folder's top.",
            )
        })
    };
    parts.map(name).collect()
}

/// A path's text.
pub(super) fn text(path: &[Name]) -> String {
    let names: Vec<String> = path.iter().map(ToString::to_string).collect();
    names.join("/")
}

/// Reads RFC 3339.
pub(super) fn moment(text: &str) -> Result<Timestamp, ErrorBody> {
    let moment = Moment::parse(text)
        .map_err(|_| invalid(format!("'{text}' is no time"), "Write RFC 3339."))?;
    Ok(Timestamp {
        seconds: moment.seconds(),
        nanoseconds: moment.nanoseconds(),
    })
}

/// Who a member is.
pub(super) fn author(member: &MemberId, authors: &Authors) -> Author {
    Author {
        member: member.to_string(),
        name: authors.names.get(member).cloned(),
        this_device: authors.own == Some(*member),
    }
}

/// What a value is, and its size.
pub(super) fn kind(value: &Value) -> Option<(EntryKind, u64)> {
    match value {
        Value::Deleted => None,
        Value::Directory => Some((EntryKind::Directory, 0)),
        Value::File(content) => Some((EntryKind::File, content.size)),
        Value::Symlink(target) => Some((EntryKind::Symlink, target.len() as u64)),
    }
}

fn version(found: &FileVersion, authors: &Authors) -> Version {
    let kind = found.value.as_ref().and_then(kind);
    let modified = found.metadata.modified;
    Version {
        version: found.version.clone(),
        time: found.time.to_rfc3339(),
        counts_from: found.moment.to_rfc3339(),
        author: author(&found.author, authors),
        action: match found.action {
            history::Action::Created => Action::Created,
            history::Action::Edited => Action::Edited,
            history::Action::Deleted => Action::Deleted,
            history::Action::Restored => Action::Restored,
            history::Action::Moved => Action::Moved,
            history::Action::Described => Action::Metadata,
            history::Action::Settled => Action::Settled,
        },
        path: text(&found.path),
        from: found.from.as_deref().map(text),
        kind: kind.map(|(kind, _)| kind),
        size: kind.map(|(_, size)| size),
        executable: found.metadata.executable,
        modified: (modified != Timestamp::default()).then(|| modified.to_rfc3339()),
        current: found.current,
        here: found.here,
    }
}

fn change(found: &FolderChange, authors: &Authors) -> Change {
    let counts = found.counts;
    Change {
        version: found.version(),
        time: found.time.to_rfc3339(),
        counts_from: found.moment.to_rfc3339(),
        author: author(&found.author, authors),
        created: counts.created,
        edited: counts.edited,
        deleted: counts.deleted,
        moved: counts.moved,
        metadata: counts.described,
        directories_created: counts.directories_created,
        directories_deleted: counts.directories_deleted,
        directories_moved: counts.directories_moved,
        bytes: counts.bytes,
    }
}

fn deleted(found: &DeletedEntry, authors: &Authors) -> Deleted {
    Deleted {
        path: text(&found.path),
        kind: if found.is_directory {
            EntryKind::Directory
        } else {
            EntryKind::File
        },
        time: found.time.to_rfc3339(),
        at: found.last.to_rfc3339(),
        author: author(&found.author, authors),
        files: found.files,
        bytes: found.bytes,
        version: found.version.clone(),
        here: found.here,
    }
}
