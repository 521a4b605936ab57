//! What is stored of a node, and of the history of directory placements. Serialised by the store with postcard.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    id::{MemberId, NodeId, OpId, Stamp, Timestamp},
    name::Name,
    operation::{Metadata, MetadataChange, Value},
};

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The operation that put it there.
    pub stamp: Stamp,
    /// Its directory.
    pub parent: NodeId,
    /// Its name there.
    pub name: Name,
}

/// A value in a content register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentValue {
    /// The operation that wrote it.
    pub stamp: Stamp,
    /// Who wrote it.
    pub author: MemberId,
    /// When, by the author's clock.
    pub time: Timestamp,
    /// The value.
    pub value: Value,
}

/// The metadata of a node: each part is a register of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataState {
    /// The last right to execute.
    pub executable: Option<(Stamp, bool)>,
    /// The last modification time.
    pub modified: Option<(Stamp, Timestamp)>,
}

impl MetadataState {
    /// Of each part the greater by stamp.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        fn later<T>(one: Option<(Stamp, T)>, other: Option<(Stamp, T)>) -> Option<(Stamp, T)> {
            match (one, other) {
                (Some(one), Some(other)) => Some(if one.0 < other.0 { other } else { one }),
                (one, other) => one.or(other),
            }
        }
        Self {
            executable: later(self.executable, other.executable),
            modified: later(self.modified, other.modified),
        }
    }

    /// The metadata to show; the default of what was never set.
    pub fn shown(&self) -> Metadata {
        let default = Metadata::default();
        Metadata {
            executable: self.executable.map_or(default.executable, |(_, held)| held),
            modified: self.modified.map_or(default.modified, |(_, held)| held),
        }
    }

    pub(super) fn set_by(stamp: Stamp, change: &MetadataChange) -> Self {
        Self {
            executable: change.executable.map(|executable| (stamp, executable)),
            modified: change.modified.map(|modified| (stamp, modified)),
        }
    }
}

/// Everything known of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Where it is; `None` until a placement arrives.
    pub placement: Option<Placement>,
    /// The values of its content register.
    pub content: BTreeMap<OpId, ContentValue>,
    /// The last metadata.
    pub metadata: MetadataState,
    /// Number of the values in `content` that are not [`Value::Deleted`].
    pub live_values: u64,
    /// Number of nodes placed directly in it that exist.
    pub existing_children: u64,
    /// The placement log has records of this node.
    pub in_log: bool,
    /// The placement log has records that place something in this node.
    pub parent_in_log: bool,
}

impl NodeState {
    /// Whether the node exists: by a value of its own or by something inside. (It is visible when it is also placed.)
    pub const fn exists(&self) -> bool {
        self.existing_children > 0 || self.live_values > 0
    }

    pub(super) fn insert_value(&mut self, content: ContentValue) {
        self.live_values += u64::from(content.value != Value::Deleted);
        self.content.insert(content.stamp.op, content);
    }

    pub(super) fn remove_value(&mut self, op: &OpId) -> Option<ContentValue> {
        let content = self.content.remove(op)?;
        let live = u64::from(content.value != Value::Deleted);
        self.live_values = self.live_values.saturating_sub(live);
        Some(content)
    }
}

/// A record of the log of directory placements, kept by stamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryPlacement {
    /// The directory.
    pub node: NodeId,
    /// The directory it is put in.
    pub parent: NodeId,
    /// Its name there.
    pub name: Name,
    /// Where it was just before this record, in the order of stamps.
    pub previous: Option<Placement>,
}
