//! What a checkpoint covers: its ancestors, which of them count by the roster that it names, and the adds in force over these.
//!
//! A function of the covered commits and that roster alone: nothing that else is here may show in the outcome.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::ControlFlow,
};

use ouisync_crypto::commit::Dot;
use ouisync_model::{
    id::{CommitId, Lamport, MemberId, PackId, Sequence},
    operation::PackSize,
};

use super::{
    CheckpointError, Writers,
    codec::{DotEntry, ReleaseEntry},
};
use crate::{
    catalogue::{
        CheckpointRecord, CommitMeta, Disposition, decode, key, meta_of, scan_prefix, scan_range,
        unreadable,
    },
    error::StoreError,
    store::Store,
};

/// A checkpoint among the commits: its position, and those of the commits that it covers as quarantined.
pub(super) type CheckpointAt = (u32, Vec<u32>);

/// The covered commits, in causal order. Memory: about 150 bytes a commit.
pub(super) struct Cover {
    pub(super) commits: Vec<(Lamport, CommitId)>,
    pub(super) positions: HashMap<CommitId, u32>,
    /// Whether each counts.
    pub(super) accepted: Vec<bool>,
    /// Those among them whose skeletons are right, by ascending position.
    pub(super) checkpoints: Vec<CheckpointAt>,
}

impl Cover {
    pub(super) fn is_accepted(&self, commit: &CommitId) -> bool {
        self.positions
            .get(commit)
            .is_some_and(|position| self.accepted[*position as usize])
    }

    pub(super) fn id(&self, position: u32) -> CommitId {
        self.commits[position as usize].1
    }

    pub(super) fn quarantined(&self) -> Vec<CommitId> {
        let commits = self.commits.iter().zip(&self.accepted);
        commits
            .filter(|(_, accepted)| !**accepted)
            .map(|((_, id), _)| *id)
            .collect()
    }
}

impl Store {
    /// The commits that are one of `heads` or an ancestor of one, in causal order.
    pub(super) fn closure(
        &self,
        heads: &[CommitId],
    ) -> Result<Vec<(Lamport, CommitId)>, StoreError> {
        let mut wanted: HashSet<CommitId> = HashSet::new();
        let mut greatest = Lamport(0);
        for head in heads {
            let meta = self
                .commit_meta(*head)?
                .ok_or(StoreError::UnknownCommit(*head))?;
            greatest = greatest.max(meta.lamport);
            wanted.insert(*head);
        }
        let mut all: Vec<(Lamport, CommitId)> = Vec::new();
        let end = key::order(
            Lamport(greatest.0.saturating_add(1)),
            CommitId::from_bytes([0; 32]),
        );
        scan_range(self.records(), &[key::ORDER], &end, |key, _| {
            let lamport = key::number(key, 1).ok_or_else(|| unreadable(key::ORDER))?;
            let id = key::part(key, 9).ok_or_else(|| unreadable(key::ORDER))?;
            all.push((Lamport(lamport), CommitId::from_bytes(id)));
            Ok(ControlFlow::Continue(()))
        })?;
        // Parents come before their children in this order, so one way down finds every ancestor.
        let mut closure = Vec::new();
        for (lamport, id) in all.into_iter().rev() {
            if wanted.remove(&id) {
                wanted.extend(self.meta(id)?.parents);
                closure.push((lamport, id));
            }
        }
        if !wanted.is_empty() {
            return Err(unreadable(key::ORDER));
        }
        closure.reverse();
        Ok(closure)
    }

    pub(super) fn meta(&self, commit: CommitId) -> Result<CommitMeta, StoreError> {
        meta_of(self.records(), commit)?.ok_or(StoreError::UnknownCommit(commit))
    }

    /// What is known of a checkpoint.
    pub(super) fn checkpoint_record(
        &self,
        commit: CommitId,
    ) -> Result<Option<CheckpointRecord>, StoreError> {
        self.records()
            .get(&key::checkpoint(commit))?
            .map(|bytes| decode(key::CHECKPOINT, &bytes))
            .transpose()
    }

    /// What a checkpoint with these parents, made under this state of the roster, covers.
    pub(super) fn cover(
        &self,
        heads: &[CommitId],
        roster: &dyn Writers,
    ) -> Result<Cover, CheckpointError> {
        let commits = self.closure(heads)?;
        let positions: HashMap<CommitId, u32> = (0..)
            .zip(&commits)
            .map(|(position, (_, id))| (*id, position))
            .collect();
        let mut checkpoints = Vec::new();
        let mut unchecked = None;
        scan_prefix(self.records(), &[key::CHECKPOINT], |key, value| {
            let id =
                CommitId::from_bytes(key::part(key, 1).ok_or_else(|| unreadable(key::CHECKPOINT))?);
            let record: CheckpointRecord = decode(key::CHECKPOINT, value)?;
            let Some(position) = positions.get(&id) else {
                return Ok(ControlFlow::Continue(()));
            };
            match record.check.skeleton_is_right() {
                None => unchecked = Some(id),
                Some(false) => {}
                Some(true) => {
                    let quarantined = record.quarantined.iter();
                    let quarantined = quarantined.filter_map(|id| positions.get(id).copied());
                    checkpoints.push((*position, nearest_first(quarantined.collect())));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if let Some(id) = unchecked {
            return Err(CheckpointError::Unchecked(id));
        }
        checkpoints.sort_unstable();
        let mut cover = Cover {
            commits,
            positions,
            accepted: Vec::new(),
            checkpoints,
        };
        cover.accepted = self.dispositions(&cover, roster)?;
        Ok(cover)
    }

    /// Which of the commits count: those whose author writes, those that a removal names or that precede one, and those that a
    /// checkpoint among the commits, itself one that counts, covers as accepted.
    pub(super) fn dispositions(
        &self,
        cover: &Cover,
        roster: &dyn Writers,
    ) -> Result<Vec<bool>, StoreError> {
        let mut accepted = vec![true; cover.commits.len()];
        let mut lost: BTreeMap<MemberId, Vec<(u32, CommitMeta)>> = BTreeMap::new();
        for (position, (_, id)) in (0..).zip(&cover.commits) {
            let meta = self.meta(*id)?;
            if !roster.may_write(&meta.author) {
                accepted[position as usize] = false;
                lost.entry(meta.author).or_default().push((position, meta));
            }
        }
        for (author, commits) in &lost {
            for last in roster.last_commits(author) {
                if last.author != *author {
                    continue;
                }
                for position in up_to(cover, commits, last.commit, last.sequence) {
                    accepted[position as usize] = true;
                }
            }
        }
        if accepted.contains(&false) {
            self.settle(cover, &mut accepted)?;
        }
        Ok(accepted)
    }

    /// Accepts what checkpoints that count cover as accepted; later ones may settle earlier ones.
    fn settle(&self, cover: &Cover, accepted: &mut [bool]) -> Result<(), StoreError> {
        for (position, quarantined) in cover.checkpoints.iter().rev() {
            if !accepted[*position as usize] {
                continue;
            }
            let parents = self.meta(cover.id(*position))?.parents;
            let quarantined: HashSet<u32> = quarantined.iter().copied().collect();
            for (_, id) in self.closure(&parents)? {
                if let Some(covered) = cover.positions.get(&id)
                    && !quarantined.contains(covered)
                {
                    accepted[*covered as usize] = true;
                }
            }
        }
        Ok(())
    }

    /// The adds in force over the commits that count, by pack and adding commit; and the releases by them of adds by others, by
    /// adding commit, pack and releasing commit.
    pub(super) fn dots(
        &self,
        cover: &Cover,
    ) -> Result<(Vec<DotEntry>, Vec<ReleaseEntry>), StoreError> {
        // Commits that count by the checkpoint's roster and are quarantined here: not in the tables, but their bytes are here.
        let mut extra: BTreeMap<(PackId, CommitId), PackSize> = BTreeMap::new();
        let mut undone: BTreeSet<(Dot, CommitId)> = BTreeSet::new();
        scan_prefix(self.records(), &[key::QUARANTINE], |key, _| {
            let id =
                CommitId::from_bytes(key::part(key, 1).ok_or_else(|| unreadable(key::QUARANTINE))?);
            if cover.is_accepted(&id) {
                let commit = self.commit(id)?.ok_or(StoreError::UnknownCommit(id))?;
                for (dot, size) in commit.dots() {
                    extra.insert((dot.pack, dot.commit), size);
                }
                let released = commit.header().released.iter();
                undone.extend(released.map(|dot| (*dot, id)));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        scan_prefix(self.records(), &[key::RELEASE], |key, value| {
            let adding = key::part(key, 1).ok_or_else(|| unreadable(key::RELEASE))?;
            let pack = key::part(key, 33).ok_or_else(|| unreadable(key::RELEASE))?;
            let releasing = key::part(key, 65).ok_or_else(|| unreadable(key::RELEASE))?;
            let dot = Dot {
                commit: CommitId::from_bytes(adding),
                pack: PackId::from_bytes(pack),
            };
            let releasing = CommitId::from_bytes(releasing);
            let is_covered = cover.is_accepted(&releasing);
            if cover.is_accepted(&dot.commit) {
                // Released here by commits that aren't covered: in force as far as the checkpoint sees.
                if !value.is_empty() {
                    extra.insert((dot.pack, dot.commit), decode(key::RELEASE, value)?);
                }
                if is_covered {
                    undone.insert((dot, releasing));
                }
            } else if is_covered {
                undone.insert((dot, releasing));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        scan_prefix(self.records(), &[key::USE], |key, value| {
            let pack = PackId::from_bytes(key::part(key, 1).ok_or_else(|| unreadable(key::USE))?);
            let id = CommitId::from_bytes(key::part(key, 33).ok_or_else(|| unreadable(key::USE))?);
            if cover.is_accepted(&id) {
                extra.insert((pack, id), decode(key::USE, value)?);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let released: HashSet<Dot> = undone.iter().map(|(dot, _)| *dot).collect();
        let mut dots = Vec::new();
        for ((pack, commit), size) in extra {
            if !released.contains(&Dot { commit, pack })
                && let Some(adding) = cover.positions.get(&commit)
            {
                dots.push(DotEntry {
                    pack,
                    size,
                    adding: *adding,
                });
            }
        }
        let mut releases = Vec::new();
        for (dot, id) in undone {
            if !cover.is_accepted(&dot.commit)
                && let Some(releasing) = cover.positions.get(&id)
            {
                releases.push(ReleaseEntry {
                    adding: dot.commit,
                    pack: dot.pack,
                    releasing: *releasing,
                });
            }
        }
        Ok((dots, releases))
    }
}

/// By descending position.
pub(super) fn nearest_first(mut positions: Vec<u32>) -> Vec<u32> {
    positions.sort_unstable_by(|one, other| other.cmp(one));
    positions.dedup();
    positions
}

/// Of the commits of one author, those that are `last` or precede it.
fn up_to(
    cover: &Cover,
    commits: &[(u32, CommitMeta)],
    last: CommitId,
    sequence: Sequence,
) -> Vec<u32> {
    let Some(position) = cover.positions.get(&last) else {
        // Who named it had more than is covered. A chain without a fork is a part of what that was.
        let numbers: BTreeSet<Sequence> = commits.iter().map(|(_, meta)| meta.sequence).collect();
        let single = numbers.len() == commits.len();
        let before = commits
            .iter()
            .filter(|(_, meta)| single && meta.sequence < sequence);
        return before.map(|(position, _)| *position).collect();
    };
    let by_position: HashMap<u32, &CommitMeta> = commits
        .iter()
        .map(|(position, meta)| (*position, meta))
        .collect();
    let mut found = Vec::new();
    let mut at = Some(*position);
    while let Some(position) = at
        && let Some(meta) = by_position.get(&position)
    {
        found.push(position);
        at = meta
            .follows
            .and_then(|id| cover.positions.get(&id).copied());
    }
    found
}

/// Whether the commit counts here.
pub(super) fn counts(meta: &CommitMeta) -> bool {
    meta.disposition == Disposition::Accepted
}
