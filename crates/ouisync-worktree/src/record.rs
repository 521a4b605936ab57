//! What this view remembers of each thing it shows, and how that is written into the engine's opaque records.

use ouisync_engine::view::ViewKey;
use ouisync_model::{
    id::{NodeId, OpId, Timestamp},
    name::Name,
    operation::{ChunkRef, FileContent, FileData, Metadata, Value},
    tree::entry::{Entry, RegisterOps},
};
use serde::{Deserialize, Serialize};

use crate::{
    error::StepError,
    fingerprint::{Fingerprint, Identity},
};

/// First byte of every record.
const VERSION: u8 = 1;

/// Names one directory's records for good, however it is renamed or united.
pub(crate) type Group = [u8; 16];

/// The records of the top directory.
pub(crate) const ROOT_GROUP: Group = [0; 16];
/// The records of what was set aside in the staging directory.
pub(crate) const STAGING_GROUP: Group = [0xfe; 16];
/// The record of the whole view.
const META_GROUP: Group = [0xff; 16];

/// The record of the whole view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// The top directory.
    pub(crate) root: Identity,
    /// Name of the staging directory: random, so that it also marks the root as this folder's.
    pub(crate) staging: Vec<u8>,
}

/// What is remembered at a place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// What the person sees there.
    pub(crate) base: Option<Record>,
    /// What is being put there.
    pub(crate) intent: Option<Intent>,
}

impl Stored {
    /// A place that is in step.
    pub(crate) fn settled(record: Record) -> Self {
        Self {
            base: Some(record),
            intent: None,
        }
    }

    /// The same, as it is put.
    pub(crate) fn of(record: Record) -> Option<Self> {
        Some(Self::settled(record))
    }
}

/// Written before a received file is renamed into place, so that after a power cut a torn file of ours is not taken for a
/// person's edit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intent {
    /// Name in the staging directory.
    pub(crate) staged: Vec<u8>,
    /// What will be recorded; its fingerprint is from before the rename.
    pub(crate) record: Record,
}

/// What a person sees at a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The entry's nodes and the operations that made it; what an edit replaces.
    pub(crate) parts: Vec<Part>,
    /// It is this device's own change and `parts` don't name its operation yet.
    pub(crate) pending: bool,
    /// The entry has a derived name.
    pub(crate) conflict: bool,
    /// It is one side of a conflict.
    pub(crate) contested: bool,
    /// What is there.
    pub(crate) shown: Shown,
    /// The tree's metadata.
    pub(crate) metadata: Metadata,
    /// What the disk said when it was last in step.
    pub(crate) fingerprint: Fingerprint,
    /// The plain copy was dropped on purpose; a placeholder is beside its place.
    pub(crate) offloaded: bool,
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Shown {
    /// A directory with its records' group. `husk`: deleted in the tree, and here only for what is not synced.
    Directory { group: Group, husk: bool },
    /// A file; inline bytes are left out.
    File(FileContent),
    /// The target.
    Symlink(Vec<u8>),
}

/// As [`RegisterOps`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) node: NodeId,
    shown: Vec<OpId>,
    deleted: Vec<OpId>,
    pub(crate) shared: bool,
}

impl Part {
    /// Of a node that this device just made or wrote.
    pub(crate) fn own(node: NodeId) -> Self {
        Self {
            node,
            shown: Vec::new(),
            deleted: Vec::new(),
            shared: false,
        }
    }
}

impl Record {
    /// What `entry` looks like on disk.
    pub(crate) fn of(entry: &Entry, shown: Shown, fingerprint: Fingerprint) -> Self {
        Self {
            parts: parts(entry),
            pending: false,
            conflict: entry.conflict,
            contested: entry.contested,
            shown,
            metadata: entry.metadata,
            fingerprint,
            offloaded: false,
        }
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.parts.iter().map(|part| part.node)
    }

    pub(crate) fn node(&self) -> Option<NodeId> {
        self.nodes().next()
    }

    pub(crate) fn shares_node(&self, entry: &Entry) -> bool {
        self.nodes()
            .any(|node| entry.nodes().any(|other| other == node))
    }

    pub(crate) fn group(&self) -> Option<Group> {
        match self.shown {
            Shown::Directory { group, .. } => Some(group),
            _ => None,
        }
    }

    pub(crate) fn is_husk(&self) -> bool {
        matches!(self.shown, Shown::Directory { husk: true, .. })
    }

    pub(crate) fn content(&self) -> Option<&FileContent> {
        match &self.shown {
            Shown::File(content) => Some(content),
            _ => None,
        }
    }

    /// Shows the same bytes as the entry.
    pub(crate) fn same_value(&self, value: &Value) -> bool {
        match (&self.shown, value) {
            (Shown::Directory { husk, .. }, Value::Directory) => !husk,
            (Shown::File(content), Value::File(other)) => same_content(content, other),
            (Shown::Symlink(target), Value::Symlink(other)) => target == other,
            _ => false,
        }
    }

    /// Takes over how the tree now stands to what is shown; tells whether that changes the record.
    pub(crate) fn follow(&mut self, entry: &Entry) -> bool {
        let before = self.clone();
        self.parts = parts(entry);
        self.pending = false;
        self.conflict = entry.conflict;
        self.contested = entry.contested;
        *self != before
    }

    /// The entry that the person saw, to make operations from. The value of a file that travelled inline is not whole.
    pub(crate) fn seen(&self, name: &Name) -> Option<Entry> {
        let node = self.node()?;
        Some(Entry {
            name: name.clone(),
            raw_name: name.clone(),
            node,
            aliases: self.nodes().skip(1).collect(),
            op: None,
            value: match &self.shown {
                Shown::Directory { .. } => Value::Directory,
                Shown::File(content) => Value::File(content.clone()),
                Shown::Symlink(target) => Value::Symlink(target.clone()),
            },
            metadata: self.metadata,
            author: None,
            time: Timestamp::default(),
            conflict: self.conflict,
            contested: self.contested,
            register_ops: self
                .parts
                .iter()
                .map(|part| RegisterOps {
                    node: part.node,
                    shown: part.shown.clone(),
                    deleted: part.deleted.clone(),
                    shared: part.shared,
                })
                .collect(),
        })
    }
}

fn parts(entry: &Entry) -> Vec<Part> {
    let parts = entry.register_ops.iter().map(|ops| Part {
        node: ops.node,
        shown: ops.shown.clone(),
        deleted: ops.deleted.clone(),
        shared: ops.shared,
    });
    let mut parts: Vec<_> = parts.collect();
    if parts.is_empty() {
        parts = entry.nodes().map(Part::own).collect();
    }
    // The entry's own node leads.
    parts.sort_by_key(|part| (part.node != entry.node, part.node));
    parts
}

/// The content without bytes that travel in commits.
pub(crate) fn outline(content: &FileContent) -> FileContent {
    FileContent {
        data: outline_data(content),
        ..content.clone()
    }
}

fn outline_data(content: &FileContent) -> FileData {
    match &content.data {
        FileData::Inline(chunk, bytes) => {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let length = u32::try_from(content.size).unwrap_or(length);
            FileData::Chunks(vec![ChunkRef {
                chunk: *chunk,
                length,
            }])
        }
        data => data.clone(),
    }
}

/// The same bytes, as far as the chunks tell.
pub(crate) fn same_content(one: &FileContent, other: &FileContent) -> bool {
    one.size == other.size
        && match (&one.data, &other.data) {
            (FileData::Chunks(one), FileData::Chunks(other)) => one == other,
            (FileData::Indirect(one), FileData::Indirect(other)) => one == other,
            _ => one.size == 0 || outline_data(one) == outline_data(other),
        }
}

pub(crate) fn key(group: Group, name: &[u8]) -> ViewKey {
    ViewKey {
        group,
        item: name.to_vec(),
    }
}

pub(crate) fn meta_key() -> ViewKey {
    key(META_GROUP, b"view")
}

/// The brake's settings and what it holds.
pub(crate) fn brake_key() -> ViewKey {
    key(META_GROUP, b"brake")
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StepError> {
    let mut bytes = vec![VERSION];
    bytes.extend(postcard::to_allocvec(value).map_err(|_| StepError::Record)?);
    Ok(bytes)
}

pub(crate) fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, StepError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| StepError::Record),
        _ => Err(StepError::Record),
    }
}
