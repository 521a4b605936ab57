//! The inbox of conflicts: what is in conflict, who wrote it, what differs, and settling it.

use std::{io::Read, sync::Arc};

use ouisync_model::{
    id::{FolderId, MemberId, NodeId, NodeKind, OpId, Timestamp},
    merge::text::{self, LineChanges},
    name::Name,
    operation::{Operation, Value},
    tree::{conflict::Conflict, edit, entry::Entry},
};

use rand::RngExt;

use super::{Engine, blocking};
use crate::{
    error::EngineError,
    history::short,
    merging::{Had, Settler},
    past::events::show,
    port::Port,
    readable::Readable,
    status::Role,
    view::FolderAccess,
};

/// Conflicts that are listed at once.
pub const LISTED: usize = 1000;
/// Bytes of texts that are compared for one list.
const COMPARED: u64 = 64 << 20;

/// Versions of one file that people have to decide about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictInfo {
    /// The path that all of them have a claim to.
    pub path: Vec<Name>,
    /// The one that is shown under that path, then the others, the last one first.
    pub versions: Vec<VersionInfo>,
}

/// One version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionInfo {
    /// Its name, the same as in the history.
    pub version: String,
    /// The path that it is shown under.
    pub path: Vec<Name>,
    /// What it is.
    pub kind: VersionKind,
    /// Bytes, of a file.
    pub size: u64,
    /// Who wrote it; `None` for a directory that is there only for what is inside.
    pub author: Option<MemberId>,
    /// When it was written, by its author's clock.
    pub time: Timestamp,
    /// Its content is on this device.
    pub here: bool,
    /// How it differs from the first version, where both are texts that are here.
    pub changes: Option<LineChanges>,
}

/// What a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionKind {
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
}

/// How a conflict is settled.
pub enum Resolution {
    /// This version stays, by its name or the beginning of it, its number in the list, or its device's name.
    Keep(String),
    /// All stay, as ordinary files under the names that they are shown under.
    Both,
    /// This becomes the content: its length, and the bytes.
    Merged(u64, Box<dyn Read + Send>),
}

impl Engine {
    /// The conflicts of a folder, at most [`LISTED`].
    pub async fn conflicts(&self, folder: FolderId) -> Result<Vec<ConflictInfo>, EngineError> {
        self.with_port(folder, |readable, _, _| {
            let settler = Settler::new(readable.clone());
            let mut left = COMPARED;
            let conflicts = readable.with_view(|view| Ok(view.conflicts(LISTED)?))?;
            conflicts
                .iter()
                .map(|(directory, conflict)| describe(&settler, directory, conflict, &mut left))
                .collect()
        })
        .await
    }

    /// Settles the conflict that the entry at `path` is part of, for everybody; returns its path. What is rejected stays in
    /// the history.
    pub async fn resolve(
        &self,
        folder: FolderId,
        path: Vec<Name>,
        resolution: Resolution,
    ) -> Result<Vec<Name>, EngineError> {
        self.with_port(folder, move |readable, port, names| {
            let shown = show(&path);
            let (conflict, directory) = readable.with_view(|view| {
                let Some(entry) = view.lookup(&path)? else {
                    return Ok((None, Vec::new()));
                };
                let conflict = view.conflict_of(entry.node)?;
                let directory = path.split_last().map(|(_, above)| above.to_vec());
                Ok((conflict, directory.unwrap_or_default()))
            })?;
            let conflict = conflict.ok_or_else(|| EngineError::NoConflict(shown.clone()))?;
            let expected = conflict.clone();
            let mut settled = directory;
            settled.push(conflict.name.clone());
            let operations = match resolution {
                Resolution::Keep(version) => keep(&conflict, &version, &names)?,
                Resolution::Both => {
                    let mut rng = port.rng();
                    conflict.separate(|| Ok::<_, EngineError>(rng.random()))?
                }
                Resolution::Merged(size, mut bytes) => {
                    let leaves: Vec<Entry> = conflict.leaves().cloned().collect();
                    let first = conflict.entries.first().filter(|first| !first.is_directory());
                    let (Some(kept), true) = (first, leaves.len() > 1) else {
                        return Err(EngineError::Unsettled(
                            "a directory has the name, and content can't be merged into it: keep both, or rename the file",
                        ));
                    };
                    let previous = match &kept.value {
                        Value::File(content) => Some(content),
                        _ => None,
                    };
                    let content = port.ingest(&mut bytes, size, previous)?;
                    let rejected: Vec<Entry> =
                        leaves.iter().filter(|leaf| *leaf != kept).cloned().collect();
                    edit::resolve(kept, Value::File(content), &rejected)
                }
            };
            let again = readable.clone();
            let node = expected.entries.first().map_or(NodeId::ROOT, |entry| entry.node);
            port.commit_made(move || {
                let now = again.with_view(|view| Ok(view.conflict_of(node)?))?;
                if now.is_some_and(|now| now.entries == expected.entries) {
                    Ok(operations)
                } else {
                    Err(EngineError::Unsettled(
                        "the versions have changed since they were looked at: look again and decide again",
                    ))
                }
            })?;
            Ok(settled)
        })
        .await
    }
}

/// The operations that keep one version and reject the others.
fn keep(
    conflict: &Conflict,
    wanted: &str,
    names: &dyn Fn(&MemberId) -> Option<String>,
) -> Result<Vec<Operation>, EngineError> {
    let chosen = choose(conflict, wanted, names)?;
    if chosen.node.kind() == NodeKind::Directory
        || conflict.entries.iter().any(|entry| entry.is_directory())
    {
        return Err(EngineError::Unsettled(
            "a directory has the name: keep both, or delete or rename what you don't want in the folder",
        ));
    }
    let rejected = conflict.entries.iter().filter(|entry| *entry != chosen);
    let rejected: Vec<Entry> = rejected.cloned().collect();
    Ok(edit::resolve(chosen, chosen.value.clone(), &rejected))
}

fn choose<'a>(
    conflict: &'a Conflict,
    wanted: &str,
    names: &dyn Fn(&MemberId) -> Option<String>,
) -> Result<&'a Entry, EngineError> {
    let entries = &conflict.entries;
    let number = wanted.parse::<usize>().ok().filter(|_| wanted.len() <= 3);
    if let Some(number) = number {
        let entry = number.checked_sub(1).and_then(|index| entries.get(index));
        return entry.ok_or_else(|| EngineError::UnknownVersion(wanted.to_owned()));
    }
    let by_id = entries.iter().filter(|entry| {
        wanted.len() >= 4 && version_name(entry, entries).starts_with(&wanted.to_ascii_lowercase())
    });
    let mut fitting: Vec<_> = by_id.collect();
    if fitting.is_empty() {
        let by_name = entries.iter().filter(|entry| {
            let author = entry.author.as_ref();
            author.and_then(names).is_some_and(|name| name == wanted)
        });
        fitting = by_name.collect();
    }
    match fitting.as_slice() {
        [one] => Ok(one),
        [] => Err(EngineError::UnknownVersion(wanted.to_owned())),
        _ => Err(EngineError::AmbiguousVersion(wanted.to_owned())),
    }
}

fn describe(
    settler: &Settler,
    directory: &[Name],
    conflict: &Conflict,
    left: &mut u64,
) -> Result<ConflictInfo, EngineError> {
    let place = |name: &Name| directory.iter().chain([name]).cloned().collect::<Vec<_>>();
    let first = match conflict.entries.first() {
        Some(first) => limited_text(settler, &first.value, left)?,
        None => None,
    };
    let mut versions = Vec::new();
    for (index, entry) in conflict.entries.iter().enumerate() {
        let changes = match &first {
            Some(first) if index > 0 => {
                limited_text(settler, &entry.value, left)?.map(|other| text::changes(first, &other))
            }
            _ => None,
        };
        versions.push(VersionInfo {
            version: version_name(entry, &conflict.entries),
            path: place(&entry.name),
            kind: match entry.value {
                Value::File(_) => VersionKind::File,
                Value::Symlink(_) => VersionKind::Symlink,
                Value::Directory | Value::Deleted => VersionKind::Directory,
            },
            size: match &entry.value {
                Value::File(content) => content.size,
                _ => 0,
            },
            author: entry.author,
            time: entry.time,
            here: settler.is_here(&entry.value)?,
            changes,
        });
    }
    Ok(ConflictInfo {
        path: place(&conflict.name),
        versions,
    })
}

/// The text, unless so much was compared that it would take long.
fn limited_text(
    settler: &Settler,
    value: &Value,
    left: &mut u64,
) -> Result<Option<Vec<u8>>, EngineError> {
    let Value::File(content) = value else {
        return Ok(None);
    };
    if content.size > *left {
        return Ok(None);
    }
    *left -= content.size;
    Ok(match settler.text_of(value)? {
        Had::Is(text) => Some(text),
        Had::Later | Had::No => None,
    })
}

/// The version's name as history tells it: the beginning of its commit's id, with the operation's index where that isn't enough.
fn version_name(entry: &Entry, among: &[Entry]) -> String {
    let Some(OpId { commit, index }) = &entry.op else {
        return entry.node.to_string()[..8].to_owned();
    };
    let of_commit = among
        .iter()
        .filter(|other| other.op.is_some_and(|op| op.commit == *commit));
    if of_commit.count() > 1 {
        format!("{}.{index}", short(commit))
    } else {
        short(commit)
    }
}

impl Engine {
    /// Runs `action` where it may block, on a folder that can be read.
    async fn with_port<T: Send + 'static>(
        &self,
        folder: FolderId,
        action: impl FnOnce(
            Arc<Readable>,
            Port,
            Box<dyn Fn(&MemberId) -> Option<String>>,
        ) -> Result<T, EngineError>
        + Send
        + 'static,
    ) -> Result<T, EngineError> {
        let running = self.folder(&folder)?;
        blocking(move || {
            let shared = running.shared.clone();
            let readable = shared
                .readable()
                .ok_or_else(|| match shared.snapshot().role {
                    Some(Role::Safe) => EngineError::Forbidden {
                        role: "safe",
                        action: "read it",
                    },
                    _ => EngineError::Locked,
                })?;
            let names = shared.names();
            let port = Port::new(shared, running.store.clone(), running.sender.clone());
            let names = Box::new(move |member: &MemberId| names.get(member).cloned());
            action(readable, port, names)
        })
        .await
    }
}
