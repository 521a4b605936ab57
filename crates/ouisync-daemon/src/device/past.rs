//! The device's answers about folders' past.

use ouisync_api::{
    error::ErrorBody,
    history::{
        Action, Author, Change, Deleted, DeletedRequest, EntryKind, History, HistoryRequest,
        Version,
    },
    moment::Moment,
};
use ouisync_engine::{
    engine::history::Authors,
    history::{self, DeletedEntry, Events, FileVersion, FolderChange, FolderPath, HistoryQuery},
};
use ouisync_model::{
    id::{MemberId, Timestamp},
    name::Name,
    operation::Value,
};

use super::{Device, service::engine};
use crate::{
    refusal::invalid,
    service::{PastService, Reply},
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

    fn deleted(&self, folder: String, request: DeletedRequest) -> Reply<'_, Vec<Deleted>> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            let path = names(&request.path.unwrap_or_default())?;
            let found = engine(self.inner.engine.deleted(summary.folder, path).await)?;
            let authors = engine(self.inner.engine.authors(summary.folder))?;
            Ok(found.iter().map(|entry| deleted(entry, &authors)).collect())
        })
    }
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
