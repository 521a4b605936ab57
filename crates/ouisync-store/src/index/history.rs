//! What was: every operation by node, every commit by time, and where leaves used to be.
//!
//! These records outlive [`Index::clear_tree`] and the bytes of the commits: they are made when a commit is applied, and
//! applying it again makes the same ones. What a quarantined commit left here must be passed over by the reader.

use ouisync_model::{
    id::{CommitId, NodeId, Stamp, Timestamp},
    name::Name,
    tree::{
        history::{ChangeCounts, HistoryReader, HistoryStore, NodeChange},
        moment::CommitTime,
        state::DirectoryPlacement,
    },
};
use serde::{Deserialize, Serialize};

use super::{
    Index, IndexError, IndexSnapshot, Records, batch::IndexBatch, decode, table, tree::Links,
};

/// Group of the timeline's commits, and of the one record that says where history begins.
const COMMITS: &[u8] = b"commits";
const START: &[u8] = b"start";

/// A commit that was applied here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedCommit {
    /// What its moment depends on.
    #[serde(with = "commit_time")]
    pub time: CommitTime,
    /// The era in which it was applied.
    pub era: u32,
    /// How much it did.
    pub counts: ChangeCounts,
}

/// Where history begins on this device: with the folder, unless the tree was started from a checkpoint that covers
/// commits which were never applied here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryStart {
    /// Number of such starts.
    pub era: u32,
    /// The last such checkpoint, and its wall time; none since all commits were applied.
    pub checkpoint: Option<(CommitId, Timestamp)>,
}

/// [`CommitTime`] as a tuple.
mod commit_time {
    use ouisync_model::{
        id::{CommitId, Lamport, MemberId, Sequence, Timestamp},
        tree::moment::CommitTime,
    };
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Fields<P> = (CommitId, Lamport, MemberId, Sequence, Timestamp, P);

    pub(super) fn serialize<S: Serializer>(
        time: &CommitTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let fields: Fields<&[CommitId]> = (
            time.commit,
            time.lamport,
            time.author,
            time.sequence,
            time.time,
            &time.parents,
        );
        fields.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<CommitTime, D::Error> {
        let (commit, lamport, author, sequence, time, parents) =
            Fields::<Vec<CommitId>>::deserialize(deserializer)?;
        Ok(CommitTime {
            commit,
            lamport,
            author,
            sequence,
            time,
            parents,
        })
    }
}

fn former<R: Records>(records: &R, parent: NodeId) -> Result<Vec<(Name, NodeId)>, IndexError> {
    let all: Vec<Links> = records.list(table::FORMER, parent.as_bytes(), usize::MAX)?;
    let links = all.into_iter().flat_map(|links| {
        let name = links.name;
        let nodes = links.nodes.into_iter();
        nodes.map(move |node| (name.clone(), node))
    });
    Ok(links.collect())
}

fn former_named<R: Records>(
    records: &R,
    parent: NodeId,
    name: &Name,
) -> Result<Vec<NodeId>, IndexError> {
    let links: Option<Links> = records.get(table::FORMER, parent.as_bytes(), name.as_bytes())?;
    Ok(links.map(|links| links.nodes).unwrap_or_default())
}

fn placements<R: Records>(records: &R) -> Result<Vec<(Stamp, DirectoryPlacement)>, IndexError> {
    let (mut first, mut last) = records.group(table::PLACEMENT, &[]).range();
    // Beyond the first 8 bytes the log's keys are stamps.
    first.0[8..].fill(0);
    last.0[8..].fill(0xff);
    let mut all = Vec::new();
    for (_, value) in records.values(first, last, usize::MAX)? {
        let some: Vec<(Stamp, DirectoryPlacement)> = decode(table::PLACEMENT, &value)?;
        all.extend(some);
    }
    Ok(all)
}

macro_rules! history_reader {
    ($type:ty) => {
        impl HistoryReader for $type {
            fn changes(&self, node: NodeId) -> Result<Vec<NodeChange>, IndexError> {
                self.list(table::CHANGE, node.as_bytes(), usize::MAX)
            }

            fn former_children(&self, parent: NodeId) -> Result<Vec<(Name, NodeId)>, IndexError> {
                former(self, parent)
            }

            fn former_children_named(
                &self,
                parent: NodeId,
                name: &Name,
            ) -> Result<Vec<NodeId>, IndexError> {
                former_named(self, parent, name)
            }

            fn placements(&self) -> Result<Vec<(Stamp, DirectoryPlacement)>, IndexError> {
                placements(self)
            }
        }

        impl $type {
            /// All commits that were ever applied here, in no order.
            pub fn applied_commits(&self) -> Result<Vec<AppliedCommit>, IndexError> {
                self.list(table::TIMELINE, COMMITS, usize::MAX)
            }

            /// A commit that was ever applied here, so that its changes are recorded.
            pub fn applied_commit(
                &self,
                commit: &CommitId,
            ) -> Result<Option<AppliedCommit>, IndexError> {
                self.get(table::TIMELINE, COMMITS, commit.as_bytes())
            }

            /// What one commit did to a node.
            pub fn change(
                &self,
                node: NodeId,
                commit: &CommitId,
            ) -> Result<Option<NodeChange>, IndexError> {
                self.get(table::CHANGE, node.as_bytes(), commit.as_bytes())
            }

            /// Where history begins.
            pub fn history_start(&self) -> Result<HistoryStart, IndexError> {
                Ok(self.get(table::TIMELINE, START, &[])?.unwrap_or_default())
            }
        }
    };
}

history_reader!(Index);
history_reader!(IndexSnapshot);
history_reader!(IndexBatch);

impl HistoryStore for IndexBatch {
    fn put_change(&mut self, node: NodeId, change: &NodeChange) -> Result<(), IndexError> {
        let item = change.commit;
        self.put(table::CHANGE, node.as_bytes(), item.as_bytes(), change);
        Ok(())
    }

    fn put_former(&mut self, parent: NodeId, name: &Name, child: NodeId) -> Result<(), IndexError> {
        let mut nodes = former_named(self, parent, name)?;
        if !nodes.contains(&child) {
            nodes.push(child);
            let links = Links {
                name: name.clone(),
                nodes,
            };
            self.put(table::FORMER, parent.as_bytes(), name.as_bytes(), &links);
        }
        Ok(())
    }
}

impl IndexBatch {
    /// Adds a commit to the timeline.
    pub fn put_applied(&mut self, commit: &AppliedCommit) -> Result<(), IndexError> {
        let id = commit.time.commit;
        self.put(table::TIMELINE, COMMITS, id.as_bytes(), commit);
        Ok(())
    }

    /// The tree was emptied and loaded from this checkpoint with its wall time, or not loaded: what is applied from now on follows
    /// it. Not to be called when all that it covers [was applied](IndexSnapshot::applied_commit) since history began: then history
    /// goes on as it was.
    pub fn start_history(
        &mut self,
        checkpoint: Option<(CommitId, Timestamp)>,
    ) -> Result<(), IndexError> {
        let start = HistoryStart {
            era: self.history_start()?.era.saturating_add(1),
            checkpoint,
        };
        self.put(table::TIMELINE, START, &[], &start);
        Ok(())
    }
}
