//! Which checkpoints are here, what they cover, and how far they were checked.

use std::{
    collections::{BTreeSet, HashSet},
    ops::ControlFlow,
};

use ouisync_crypto::commit::CheckpointDigest;
use ouisync_model::id::{CommitId, MemberId};

use super::{
    CheckpointCheck, CheckpointError, CheckpointInfo, CoveredCommit, Skeleton, Uncovered, Writers,
    codec::{Entry, Writer},
    cover::{Cover, counts, nearest_first},
    spool::Spool,
};
use crate::{
    catalogue::{CheckpointRecord, decode, key, meta_of, scan_prefix, unreadable},
    error::StoreError,
    store::Store,
};

/// Commits looked at in one step of counting.
const STEP: usize = 256;

impl Store {
    /// The checkpoints that are here, newest first (by Lamport time, then id), those included that came without bytes.
    pub fn checkpoints(&self) -> Result<Vec<CheckpointInfo>, StoreError> {
        let mut found: Vec<CheckpointInfo> = self
            .checkpoint_records()?
            .iter()
            .map(|(info, _)| *info)
            .collect();
        found.sort_unstable_by_key(|info| std::cmp::Reverse((info.lamport, info.commit)));
        Ok(found)
    }

    /// What is known of one checkpoint.
    pub fn checkpoint(&self, commit: CommitId) -> Result<Option<CheckpointInfo>, StoreError> {
        let Some(record) = self.checkpoint_record(commit)? else {
            return Ok(None);
        };
        self.info(commit, &record).map(Some)
    }

    /// The newest accepted checkpoint that was checked at least so far, whose bytes are here, and that covers every commit
    /// without bytes: what a peer, and an index, can start from.
    pub fn start(&self, check: CheckpointCheck) -> Result<Option<CheckpointInfo>, StoreError> {
        let newest = self
            .usable(check)?
            .into_iter()
            .max_by_key(|(info, _)| (info.lamport, info.commit));
        Ok(newest.map(|(info, _)| info))
    }

    /// The checkpoint that covers every commit whose bytes are not here; `None` while all bytes are.
    pub fn base(&self) -> Option<CommitId> {
        self.state().summary.base
    }

    /// Accepted checkpoints, checked at least so far and at least blindly, with bytes, that cover every commit without.
    pub(super) fn usable(
        &self,
        check: CheckpointCheck,
    ) -> Result<Vec<(CheckpointInfo, CheckpointRecord)>, StoreError> {
        let base = self.base();
        let least = check.max(CheckpointCheck::Blind);
        let mut usable = self.checkpoint_records()?;
        usable.retain(|(info, record)| {
            let goes_on = |base| base == info.commit || record.covers.contains(&base);
            info.accepted && info.has_bytes && info.check >= least && base.is_none_or(goes_on)
        });
        Ok(usable)
    }

    fn checkpoint_records(&self) -> Result<Vec<(CheckpointInfo, CheckpointRecord)>, StoreError> {
        let mut found = Vec::new();
        scan_prefix(self.records(), &[key::CHECKPOINT], |key, value| {
            let id = key::part(key, 1).ok_or_else(|| unreadable(key::CHECKPOINT))?;
            let record = decode(key::CHECKPOINT, value)?;
            found.push((self.info(CommitId::from_bytes(id), &record)?, record));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    fn info(
        &self,
        commit: CommitId,
        record: &CheckpointRecord,
    ) -> Result<CheckpointInfo, StoreError> {
        let meta = self.meta(commit)?;
        Ok(CheckpointInfo {
            commit,
            author: meta.author,
            lamport: meta.lamport,
            digest: record.digest,
            check: record.check,
            accepted: counts(&meta),
            has_bytes: meta.absent.is_none(),
        })
    }

    /// The skeleton of `parents` and their ancestors: for a new checkpoint, or of one that is here (compare its digest with the
    /// header's then). `roster` is the state at the
    /// checkpoint's own heads of the roster. Takes some microseconds, and about 200 bytes of memory, a commit.
    pub fn skeleton(
        &self,
        parents: &[CommitId],
        roster: &dyn Writers,
    ) -> Result<Skeleton, CheckpointError> {
        let cover = self.cover(parents, roster)?;
        let (dots, releases) = self.dots(&cover)?;
        let mut authors = BTreeSet::new();
        for (_, id) in &cover.commits {
            authors.insert(self.meta(*id)?.author);
        }
        let authors: Vec<MemberId> = authors.into_iter().collect();
        let mut spool = Spool::new(self);
        let mut writer = Writer::new(&mut spool, &authors)?;
        writer.count(cover.commits.len())?;
        let mut checkpoints = cover.checkpoints.iter().peekable();
        for (position, (lamport, id)) in (0u32..).zip(&cover.commits) {
            let meta = self.meta(*id)?;
            let parents = meta.parents.iter();
            let parents = parents.filter_map(|parent| cover.positions.get(parent).copied());
            let checkpoint = checkpoints.next_if(|(at, _)| *at == position);
            writer.commit(&Entry {
                commit: *id,
                author: meta.author,
                sequence: meta.sequence,
                lamport: *lamport,
                parents: nearest_first(parents.collect()),
                accepted: cover.accepted[position as usize],
                checkpoint: checkpoint.map(|(_, quarantined)| quarantined.clone()),
            })?;
        }
        writer.count(dots.len())?;
        for dot in &dots {
            writer.dot(dot)?;
        }
        writer.count(releases.len())?;
        for release in &releases {
            writer.release(release)?;
        }
        spool.flush()?;
        let digest = CheckpointDigest {
            commits: cover.commits.len() as u64,
            skeleton: spool.hash(),
        };
        Ok(Skeleton {
            spool,
            digest,
            quarantined: cover.quarantined(),
            covers: counting_checkpoints(&cover),
        })
    }

    /// Compares a checkpoint's skeleton with the commits that are here and notes the outcome durably. One that was checked before
    /// stays as it is. `roster` is the state at the checkpoint's own heads of the roster.
    pub fn check_checkpoint(
        &self,
        checkpoint: CommitId,
        roster: &dyn Writers,
    ) -> Result<CheckpointCheck, CheckpointError> {
        let not_one = CheckpointError::NotOne(checkpoint);
        let Some(known) = self.checkpoint_record(checkpoint)? else {
            return Err(not_one);
        };
        if known.check != CheckpointCheck::Unchecked {
            return Ok(known.check);
        }
        let commit = self.commit(checkpoint)?.ok_or(not_one)?;
        let skeleton = match self.skeleton(&commit.header().parents, roster) {
            Err(CheckpointError::TooLarge) => None,
            result => Some(result?),
        };
        let right = skeleton.filter(|skeleton| Some(skeleton.digest) == commit.header().checkpoint);
        let check = if right.is_some() {
            CheckpointCheck::Blind
        } else {
            CheckpointCheck::Wrong
        };
        let (quarantined, covers) = right.map_or_else(Default::default, |skeleton| {
            (skeleton.quarantined.clone(), skeleton.covers.clone())
        });
        let now = self.now();
        self.change(true, |draft, _| {
            draft.summary.clock.observe(now);
            let record = CheckpointRecord {
                check,
                since: draft.summary.clock.age,
                quarantined,
                covers,
                ..known
            };
            draft.set_checkpoint(checkpoint, &record);
            Ok(())
        })?;
        Ok(check)
    }

    /// Notes, durably, whether the state of a checkpoint whose skeleton is right is the one that this device computed.
    pub fn note_state(&self, checkpoint: CommitId, right: bool) -> Result<(), CheckpointError> {
        let noted = self.change(true, |draft, _| {
            let Some(mut record) = draft.checkpoint(checkpoint)? else {
                return Ok(false);
            };
            if record.check.skeleton_is_right() != Some(true) {
                return Ok(false);
            }
            record.check = if right {
                CheckpointCheck::Whole
            } else {
                CheckpointCheck::WrongState
            };
            draft.set_checkpoint(checkpoint, &record);
            Ok(true)
        })?;
        if noted {
            Ok(())
        } else {
            Err(CheckpointError::NotOne(checkpoint))
        }
    }

    /// Visits the commits that a checkpoint covers, in causal order. The checkpoint must be here; `accepted` is what it says itself
    /// once it is checked.
    pub fn visit_covered(
        &self,
        checkpoint: CommitId,
        visit: &mut dyn FnMut(CoveredCommit),
    ) -> Result<(), CheckpointError> {
        let record = self
            .checkpoint_record(checkpoint)?
            .ok_or(CheckpointError::NotOne(checkpoint))?;
        let quarantined: HashSet<CommitId> = record.quarantined.into_iter().collect();
        for (lamport, commit) in self.closure(&self.meta(checkpoint)?.parents)? {
            let meta = self.meta(commit)?;
            visit(CoveredCommit {
                commit,
                author: meta.author,
                sequence: meta.sequence,
                lamport,
                parents: meta.parents,
                accepted: !quarantined.contains(&commit),
            });
        }
        Ok(())
    }

    /// Of all commits that the present roster alone would quarantine, those that stay accepted because a checkpoint that counts
    /// covers them as accepted, or because their bytes are not here any more.
    pub fn settled(
        &self,
        quarantine: &BTreeSet<CommitId>,
    ) -> Result<BTreeSet<CommitId>, StoreError> {
        let mut settled = BTreeSet::new();
        for id in quarantine {
            if meta_of(self.records(), *id)?
                .is_some_and(|meta| meta.absent.is_some() && counts(&meta))
            {
                settled.insert(*id);
            }
        }
        if settled.len() == quarantine.len() {
            return Ok(settled);
        }
        let mut checkpoints = self.checkpoint_records()?;
        checkpoints.sort_unstable_by_key(|(info, _)| (info.lamport, info.commit));
        // A later checkpoint may settle an earlier one.
        for (info, record) in checkpoints.iter().rev() {
            let stays = !quarantine.contains(&info.commit) || settled.contains(&info.commit);
            if !stays || record.check.skeleton_is_right() != Some(true) {
                continue;
            }
            for (_, id) in self.closure(&self.meta(info.commit)?.parents)? {
                if quarantine.contains(&id) && !record.quarantined.contains(&id) {
                    settled.insert(id);
                }
            }
        }
        Ok(settled)
    }

    /// What was accepted after the newest checkpoint whose skeleton is right; counting stops at `most`.
    pub fn uncovered(&self, most: Uncovered) -> Result<Uncovered, StoreError> {
        let newest = self.start(CheckpointCheck::Blind)?;
        let from = match newest {
            Some(info) => self.meta(info.commit)?.arrival + 1,
            None => 1,
        };
        let mut counted = Uncovered::default();
        let mut next = from;
        loop {
            let arrivals = self.arrivals(next, STEP)?;
            let Some(last) = arrivals.last() else {
                return Ok(counted);
            };
            next = last.arrival + 1;
            for arrived in arrivals {
                counted.commits += 1;
                let bytes = self.commit_bytes(arrived.commit)?;
                counted.bytes += bytes.map_or(0, |bytes| bytes.len() as u64);
                if counted.commits >= most.commits || counted.bytes >= most.bytes {
                    return Ok(counted);
                }
            }
        }
    }
}

fn counting_checkpoints(cover: &Cover) -> Vec<CommitId> {
    let checkpoints = cover.checkpoints.iter();
    checkpoints
        .filter(|(position, _)| cover.accepted[*position as usize])
        .map(|(position, _)| cover.id(*position))
        .collect()
}
