//! Checkpoints of a folder in memory: making, cutting, installing. The skeleton is a plain postcard value; there is no tree.

use std::collections::BTreeSet;

use bytes::Bytes;
use ouisync_model::{
    id::{CommitId, Lamport, MemberId, PackId, Sequence},
    operation::PackSize,
};
use ouisync_sync::facts::{CheckpointFacts, CommitFacts};
use serde::{Deserialize, Serialize};

use super::{FakeCommit, MemoryFacts};

/// What a checkpoint's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FakeCheckpoint {
    /// Its author is an owner; otherwise every checker refuses it.
    pub owner: bool,
    /// Number of covered commits.
    pub commits: u64,
    /// BLAKE3 of the skeleton.
    pub skeleton: [u8; 32],
}

/// What a skeleton says: all covered commits by (Lamport time, id), and the adds in force over them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FakeSkeleton {
    /// The commits.
    pub commits: Vec<FakeMeta>,
    /// The adds.
    pub dots: Vec<(PackId, PackSize, CommitId)>,
}

/// A covered commit.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FakeMeta {
    id: CommitId,
    author: MemberId,
    sequence: Sequence,
    lamport: Lamport,
    parents: Vec<CommitId>,
}

/// What came of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Install {
    /// It is in.
    Done,
    /// A commit that it doesn't cover has no bytes here.
    Unusable,
    /// It isn't what its header says.
    Refused,
}

impl MemoryFacts {
    /// A valid checkpoint by `author` over everything here.
    pub fn compose_checkpoint(&self, author: MemberId) -> FakeCommit {
        let mut commit = self.compose(author, Vec::new());
        let covered = self.closure_of(&commit.parents);
        let skeleton = self.skeleton_over(&covered);
        commit.checkpoint = Some(FakeCheckpoint {
            owner: true,
            commits: covered.len() as u64,
            skeleton: *blake3::hash(&skeleton).as_bytes(),
        });
        commit
    }

    /// Drops the bytes of everything that the newest checkpoint covers.
    pub fn cut(&mut self) {
        let Some(checkpoint) = self.newest_checkpoint() else {
            return;
        };
        for id in self.ancestors(&checkpoint.commit) {
            if let Some(stored) = self.commits.get_mut(&id) {
                stored.bytes = None;
                stored.facts.added.clear();
            }
        }
        self.base = Some(checkpoint.commit);
    }

    /// Commits without bytes, the latest first.
    pub fn commits_without_bytes(&self) -> Vec<CommitId> {
        let mut without: Vec<_> = self
            .commits
            .iter()
            .filter(|(_, stored)| stored.bytes.is_none())
            .map(|(id, stored)| (stored.facts.lamport, *id))
            .collect();
        without.sort_unstable_by(|one, other| other.cmp(one));
        without.into_iter().map(|(_, id)| id).collect()
    }

    /// Takes bytes of a commit that were asked for.
    pub fn keep_past(&mut self, commit: CommitId, bytes: Bytes) {
        assert_eq!(commit.as_bytes(), blake3::hash(&bytes).as_bytes());
        let stored = self.commits.get_mut(&commit).expect("asked for");
        assert!(stored.bytes.replace(bytes).is_none(), "came twice");
    }

    /// Number of commits whose bytes are here.
    pub fn commits_with_bytes(&self) -> usize {
        let with = self
            .commits
            .values()
            .filter(|stored| stored.bytes.is_some());
        with.count()
    }

    /// What a peer's host thinks of an offered checkpoint before it has the skeleton; `None`: it has the commit.
    pub fn would_install(&self, bytes: &Bytes) -> Option<bool> {
        let id = CommitId::from_bytes(*blake3::hash(bytes).as_bytes());
        if self.commits.contains_key(&id) {
            return None;
        }
        let commit: Option<FakeCommit> = postcard::from_bytes(bytes).ok();
        let honest = commit.and_then(|commit| commit.checkpoint.filter(|_| commit.valid));
        Some(honest.is_some_and(|checkpoint| checkpoint.owner))
    }

    /// Keeps a part of a skeleton that comes in; one at 0 begins a new one.
    pub fn keep(&mut self, offset: u64, part: &[u8]) {
        if offset == 0 {
            self.spool.clear();
        }
        self.spool.extend_from_slice(part);
    }

    /// Starts from a checkpoint with the kept skeleton.
    pub fn install(&mut self, bytes: Bytes) -> Install {
        let spool = std::mem::take(&mut self.spool);
        let Ok(commit) = postcard::from_bytes::<FakeCommit>(&bytes) else {
            return Install::Refused;
        };
        let Some(header) = commit.checkpoint else {
            return Install::Refused;
        };
        if *blake3::hash(&spool).as_bytes() != header.skeleton {
            return Install::Refused;
        }
        let Ok(skeleton) = postcard::from_bytes::<FakeSkeleton>(&spool) else {
            return Install::Refused;
        };
        let covered: BTreeSet<CommitId> = skeleton.commits.iter().map(|meta| meta.id).collect();
        if covered.len() as u64 != header.commits {
            return Install::Refused;
        }
        let uncovered = |id: &CommitId| !covered.contains(id);
        let lost = self
            .commits
            .iter()
            .any(|(id, stored)| stored.bytes.is_none() && uncovered(id));
        if lost {
            return Install::Unusable;
        }
        let parents = self.commits.values().flat_map(|stored| &stored.parents);
        let parents: BTreeSet<CommitId> = parents.copied().collect();
        for meta in skeleton.commits {
            if self.commits.contains_key(&meta.id) {
                continue;
            }
            let facts = CommitFacts {
                id: meta.id,
                author: meta.author,
                sequence: meta.sequence,
                lamport: meta.lamport,
                added: Vec::new(),
            };
            let had_children = parents.contains(&meta.id);
            self.note(facts, meta.parents, None, None);
            if had_children {
                self.heads.remove(&meta.id);
            }
        }
        for stored in self.packs.values_mut() {
            stored.dots.retain(uncovered);
        }
        for (pack, size, add) in skeleton.dots {
            let lamport = self.commits.get(&add).map(|stored| stored.facts.lamport);
            let stored = self.packs.entry(pack).or_default();
            stored.size = Some(size);
            stored.lamport = stored.lamport.max(lamport.unwrap_or_default());
            if !self.released.contains(&(add, pack)) {
                stored.dots.insert(add);
            }
        }
        let id = CommitId::from_bytes(*blake3::hash(&bytes).as_bytes());
        if self.accept_commit(bytes).is_err() {
            return Install::Refused;
        }
        self.base = Some(id);
        Install::Done
    }

    /// The newest checkpoint that is what it says and covers everything without bytes.
    pub(super) fn newest_checkpoint(&self) -> Option<CheckpointFacts> {
        let usable = self.commits.values().filter_map(|stored| {
            let header = stored.checkpoint.filter(|header| header.owner)?;
            let id = stored.facts.id;
            let fits = stored.bytes.is_some()
                && self
                    .base
                    .is_none_or(|base| base == id || self.ancestors(&id).contains(&base));
            let skeleton = fits.then(|| self.skeleton_of(&id))?;
            let honest = *blake3::hash(&skeleton).as_bytes() == header.skeleton;
            honest.then_some((stored.facts.lamport, id, skeleton.len() as u64))
        });
        let (_, commit, length) = usable.max()?;
        Some(CheckpointFacts { commit, length })
    }

    pub(super) fn skeleton_of(&self, checkpoint: &CommitId) -> Bytes {
        self.skeleton_over(&self.ancestors(checkpoint))
    }

    pub(super) fn ancestors(&self, commit: &CommitId) -> BTreeSet<CommitId> {
        let parents = self.commits.get(commit).map(|stored| &stored.parents[..]);
        self.closure_of(parents.unwrap_or_default())
    }

    fn closure_of(&self, heads: &[CommitId]) -> BTreeSet<CommitId> {
        let mut seen = BTreeSet::new();
        let mut stack = heads.to_vec();
        while let Some(id) = stack.pop() {
            if let Some(stored) = self.commits.get(&id)
                && seen.insert(id)
            {
                stack.extend(&stored.parents);
            }
        }
        seen
    }

    fn skeleton_over(&self, covered: &BTreeSet<CommitId>) -> Bytes {
        let stored = covered.iter().filter_map(|id| self.commits.get(id));
        let mut commits: Vec<_> = stored
            .map(|stored| FakeMeta {
                id: stored.facts.id,
                author: stored.facts.author,
                sequence: stored.facts.sequence,
                lamport: stored.facts.lamport,
                parents: stored.parents.clone(),
            })
            .collect();
        commits.sort_by_key(|meta| (meta.lamport, meta.id));
        // What later commits release was in force at the checkpoint.
        let released_later = self.commits.iter().filter(|(id, _)| !covered.contains(*id));
        let released_later: BTreeSet<_> = released_later
            .filter_map(|(_, stored)| stored.bytes.as_ref())
            .filter_map(|bytes| postcard::from_bytes::<FakeCommit>(bytes).ok())
            .flat_map(|commit| commit.released)
            .collect();
        let mut dots = Vec::new();
        for (pack, stored) in &self.packs {
            let Some(size) = stored.size else { continue };
            for id in covered {
                if stored.dots.contains(id) || released_later.contains(&(*id, *pack)) {
                    dots.push((*pack, size, *id));
                }
            }
        }
        let skeleton = FakeSkeleton { commits, dots };
        postcard::to_extend(&skeleton, Vec::new())
            .expect("plain data")
            .into()
    }
}
