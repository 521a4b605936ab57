//! Random histories, with forks, and what a roster says of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ouisync_crypto::{
    commit::{CheckpointDigest, Commit, Dot},
    roster::statement::LastCommit,
};
use ouisync_model::id::{CommitId, MemberId};
use ouisync_store::{
    backend::faulty::FaultyBackend,
    catalogue::Disposition,
    checkpoint::{Skeleton, SkeletonSpool, Writers},
    store::Store,
};
use proptest::{prelude::*, sample::Index};

use crate::making::{Clock, Pack, commit, member};

pub(crate) const AUTHORS: u8 = 3;
pub(crate) const OWNER: u8 = 9;
const PACKS: usize = 5;

/// How a random commit is made.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    author: u8,
    /// Which of its author's commits it goes on from: mostly the last one.
    base: Option<Index>,
    parents: Vec<Index>,
    added: Vec<usize>,
    released: Vec<Index>,
}

pub(crate) fn plan() -> impl Strategy<Value = Plan> {
    (
        0..AUTHORS,
        prop::option::weighted(0.1, any::<Index>()),
        prop::collection::vec(any::<Index>(), 0..3),
        prop::collection::vec(0..PACKS, 0..3),
        prop::collection::vec(any::<Index>(), 0..3),
    )
        .prop_map(|(author, base, parents, added, released)| Plan {
            author,
            base,
            parents,
            added,
            released,
        })
}

pub(crate) struct History {
    pub(crate) packs: Vec<Pack>,
    /// Parents before children.
    pub(crate) commits: Vec<Commit>,
    /// The commit of the same author that each goes on from.
    pub(crate) follows: Vec<Option<usize>>,
}

impl History {
    pub(crate) fn new(plans: &[Plan]) -> Self {
        let packs: Vec<Pack> = (0..PACKS)
            .map(|number| Pack::new(&number.to_string(), 1))
            .collect();
        let mut history = Self {
            packs,
            commits: Vec::new(),
            follows: Vec::new(),
        };
        for plan in plans {
            history.add(plan);
        }
        history
    }

    fn add(&mut self, plan: &Plan) {
        let commits = &self.commits;
        let mut parents: BTreeSet<usize> = plan
            .parents
            .iter()
            .filter(|_| !commits.is_empty())
            .map(|index| index.index(commits.len()))
            .collect();
        let own: Vec<usize> = (0..commits.len())
            .filter(|index| commits[*index].header().author == member(plan.author))
            .collect();
        let base = match plan.base {
            Some(index) if !own.is_empty() => Some(own[index.index(own.len())]),
            _ => own.last().copied(),
        };
        parents.extend(base);
        let sequence = base.map_or(1, |base| commits[base].header().sequence.0 + 1);
        let dots: Vec<Dot> = commits
            .iter()
            .flat_map(|commit| commit.dots().map(|(dot, _)| dot))
            .collect();
        let released: Vec<Dot> = plan
            .released
            .iter()
            .filter(|_| !dots.is_empty())
            .map(|index| dots[index.index(dots.len())])
            .collect();
        let parents: Vec<&Commit> = parents.iter().map(|index| &commits[*index]).collect();
        let added: Vec<&Pack> = plan.added.iter().map(|index| &self.packs[*index]).collect();
        let made = commit(plan.author, sequence, &parents, &added, &released);
        // Two plans may make the very same commit.
        if commits.iter().all(|commit| commit.id() != made.id()) {
            self.commits.push(made);
            self.follows.push(base);
        }
    }

    pub(crate) fn position(&self, id: &CommitId) -> usize {
        self.commits
            .iter()
            .position(|commit| commit.id() == *id)
            .unwrap()
    }

    /// The given commits and their ancestors.
    pub(crate) fn closure(&self, heads: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
        let mut waiting: Vec<usize> = heads.into_iter().collect();
        let mut found = BTreeSet::new();
        while let Some(index) = waiting.pop() {
            if found.insert(index) {
                let parents = self.commits[index].header().parents.iter();
                waiting.extend(parents.map(|parent| self.position(parent)));
            }
        }
        found
    }

    /// Those that are nobody's parent among them.
    pub(crate) fn heads(&self, of: &BTreeSet<usize>) -> Vec<CommitId> {
        let parents: BTreeSet<CommitId> = of
            .iter()
            .flat_map(|index| self.commits[*index].header().parents.clone())
            .collect();
        let ids = of.iter().map(|index| self.commits[*index].id());
        ids.filter(|id| !parents.contains(id)).collect()
    }

    /// A causal order of the given commits by random priorities.
    pub(crate) fn order(&self, of: &BTreeSet<usize>, priorities: &[u32]) -> Vec<usize> {
        let mut waiting: Vec<usize> = of.iter().copied().collect();
        waiting.sort_by_key(|index| priorities[index % priorities.len()] ^ *index as u32);
        let mut placed = Vec::new();
        while !waiting.is_empty() {
            let next = waiting.iter().position(|index| {
                let mut parents = self.commits[*index].header().parents.iter();
                parents.all(|parent| {
                    let parent = self.position(parent);
                    !of.contains(&parent) || placed.contains(&parent)
                })
            });
            placed.push(waiting.remove(next.unwrap()));
        }
        placed
    }

    /// Puts commits as the roster says.
    pub(crate) fn put(&self, store: &Store, order: &[usize], roster: &Roster) {
        for index in order {
            let disposition = if roster.accepts(self, *index) {
                Disposition::Accepted
            } else {
                Disposition::Quarantined
            };
            let commit = std::slice::from_ref(&self.commits[*index]);
            store.put_commits(commit, disposition, false).unwrap();
        }
    }
}

/// Who lost the right to write, and what was named of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    pub(crate) lost: BTreeMap<MemberId, Vec<LastCommit>>,
}

impl Roster {
    /// `author` was removed by somebody who had `last` of it.
    pub(crate) fn without(author: u8, last: Option<&Commit>) -> Self {
        let last = last.map(|commit| LastCommit {
            author: member(author),
            sequence: commit.header().sequence,
            commit: commit.id(),
        });
        Self {
            lost: [(member(author), last.into_iter().collect())].into(),
        }
    }

    /// What the rule says, told in another way.
    pub(crate) fn accepts(&self, history: &History, index: usize) -> bool {
        let author = history.commits[index].header().author;
        let Some(last) = self.lost.get(&author) else {
            return true;
        };
        last.iter().any(|last| {
            let mut at = Some(history.position(&last.commit));
            while let Some(position) = at {
                if position == index {
                    return true;
                }
                at = history.follows[position];
            }
            false
        })
    }
}

impl Writers for Roster {
    fn may_write(&self, author: &MemberId) -> bool {
        !self.lost.contains_key(author)
    }

    fn last_commits(&self, author: &MemberId) -> &[LastCommit] {
        self.lost.get(author).map_or(&[], Vec::as_slice)
    }
}

/// A checkpoint by the owner.
pub(crate) fn checkpoint(
    sequence: u64,
    parents: &[&Commit],
    added: &[&Pack],
    released: &[Dot],
    digest: CheckpointDigest,
) -> Commit {
    let mut header = commit(OWNER, sequence, parents, added, released)
        .header()
        .clone();
    header.checkpoint = Some(digest);
    let mut bytes = postcard::to_allocvec(&header).unwrap();
    bytes.extend_from_slice(&[0; 64]);
    Commit::decode(bytes).unwrap()
}

pub(crate) fn new_store(clock: &Clock) -> (FaultyBackend, Store) {
    let backend = FaultyBackend::default();
    let store = Store::open(Arc::new(backend.clone()), clock.options()).unwrap();
    (backend, store)
}

pub(crate) fn bytes_of(skeleton: &Skeleton) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let part = skeleton.read(bytes.len() as u64, 1000).unwrap();
        if part.is_empty() {
            return bytes;
        }
        bytes.extend(part);
    }
}

pub(crate) fn spool(store: &Store, bytes: &[u8]) -> SkeletonSpool {
    let mut spool = store.begin_skeleton();
    for part in bytes.chunks(777) {
        spool.push(part).unwrap();
    }
    spool
}
