//! The checker: compares everything on disk with what its hashes and the commits say. Needs no keys.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
};

use ouisync_crypto::commit::LiveDigest;
use ouisync_model::{
    id::{CommitId, PackId, RosterEntryId},
    operation::PackSize,
};

use crate::{
    catalogue::{
        CommitMeta, Disposition, PackRecord, Presence, decode, key, meta_of, pack_of,
        records::Records, scan_prefix, unreadable,
    },
    error::StoreError,
    pack_file,
    store::{Store, commits::decode_commit},
};

/// Something that isn't as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyProblem {
    /// A pack's bytes are not what its id names.
    #[error("pack {0} is damaged")]
    PackDamaged(PackId),
    /// A pack's file is gone or has another length.
    #[error("the file of pack {0} is gone or has another length")]
    PackFileLost(PackId),
    /// A whole pack's frame hashes are not recorded, or wrong.
    #[error("the frame hashes of pack {0} are missing or wrong")]
    FrameHashesWrong(PackId),
    /// A file that is named as a pack, but no pack that the catalogue knows.
    #[error("the file of pack {0} isn't in the catalogue")]
    PackUnknown(PackId),
    /// A commit's bytes are gone, unreadable or not what its id names.
    #[error("commit {0} is damaged")]
    CommitDamaged(CommitId),
    /// A commit's parent isn't here.
    #[error("commit {commit} lacks its parent {parent}")]
    ParentMissing {
        /// The commit.
        commit: CommitId,
        /// The parent.
        parent: CommitId,
    },
    /// What the catalogue derived from a commit doesn't agree with it.
    #[error("what the catalogue derived from commit {0} is wrong")]
    CommitIndexWrong(CommitId),
    /// A roster entry's bytes are not what its id names.
    #[error("roster entry {0} is damaged")]
    RosterEntryDamaged(RosterEntryId),
    /// A pack is counted as live without an add in force, or the other way round.
    #[error("the catalogue is wrong about the need of pack {0}")]
    LivenessWrong(PackId),
    /// The recorded live digest isn't that of the live packs.
    #[error("the digest of the live packs is wrong")]
    LiveDigestWrong,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Whole packs checked.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Commits checked.
    pub commits: u64,
    /// Live packs that are not here yet; no problem in itself.
    pub missing: u64,
    /// What is wrong.
    pub problems: Vec<VerifyProblem>,
}

impl VerifyReport {
    /// Whether all is as it should be.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

/// How far a check is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Bytes of packs read.
    pub bytes: u64,
    /// Bytes of packs to read in all.
    pub total_bytes: u64,
}

/// Problems listed at most; what is wrong beyond is wrong in the same way.
const MAX_PROBLEMS: usize = 10_000;

impl Store {
    /// Reads and hashes everything. The store may be in use meanwhile. Damaged packs are marked so: they are not served any
    /// more, and [`Self::repair`] makes them missing so that they are fetched again.
    pub fn verify(
        &self,
        mut progress: impl FnMut(VerifyProgress),
        cancel: &AtomicBool,
    ) -> Result<VerifyReport, StoreError> {
        let mut report = VerifyReport::default();
        self.verify_packs(&mut report, &mut progress, cancel)?;
        self.verify_commits(&mut report, cancel)?;
        self.verify_roster(&mut report)?;
        self.verify_live(&mut report)?;
        report.problems.truncate(MAX_PROBLEMS);
        Ok(report)
    }

    /// Moves the files of damaged packs aside and makes those that are live missing, so that they are fetched again, and those of
    /// history late where history is kept; durable on return. Removes files that are no known pack. Returns the packs that were damaged.
    pub fn repair(&self) -> Result<Vec<PackId>, StoreError> {
        for pack in self.unknown_packs()? {
            self.move_to_trash(pack)?;
        }
        let damaged: Vec<PackId> = self.state().damaged.iter().copied().collect();
        self.change(true, |draft, _| {
            for pack in &damaged {
                let Some(record) = draft
                    .pack(*pack)?
                    .filter(|record| record.presence == Presence::Damaged)
                else {
                    continue;
                };
                self.move_to_trash(*pack)?;
                let lost = draft.lost(record);
                draft.set_pack(*pack, lost)?;
            }
            Ok(())
        })?;
        self.empty_trash()?;
        Ok(damaged)
    }

    fn verify_packs(
        &self,
        report: &mut VerifyReport,
        progress: &mut impl FnMut(VerifyProgress),
        cancel: &AtomicBool,
    ) -> Result<(), StoreError> {
        let mut whole = Vec::new();
        scan_prefix(self.records(), &[key::PACK], |key, value| {
            let pack = PackId::from_bytes(key::part(key, 1).ok_or_else(|| unreadable(key::PACK))?);
            let record: PackRecord = decode(key::PACK, value)?;
            match record.presence {
                Presence::Pending | Presence::Stored => whole.push((pack, record.size)),
                Presence::Damaged => report.problems.push(VerifyProblem::PackDamaged(pack)),
                Presence::Missing | Presence::Partial => {
                    report.missing += u64::from(!record.offloaded && record.late.is_none());
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut done = VerifyProgress {
            bytes: 0,
            total_bytes: whole.iter().map(|(_, size)| size.bytes()).sum(),
        };
        progress(done);
        for (pack, size) in whole {
            let problem = self.verify_pack(pack, size, cancel, |bytes| {
                done.bytes += bytes;
                progress(done);
            })?;
            if let Some(problem) = problem
                && pack_of(self.records(), pack)?.is_some_and(|record| record.presence.is_whole())
            {
                // Neither collected nor replaced meanwhile.
                self.report_damaged(pack)?;
                report.problems.push(problem);
            }
            report.packs += 1;
            report.bytes += size.bytes();
        }
        report.problems.extend(
            self.unknown_packs()?
                .into_iter()
                .map(VerifyProblem::PackUnknown),
        );
        Ok(())
    }

    fn verify_pack(
        &self,
        pack: PackId,
        size: PackSize,
        cancel: &AtomicBool,
        mut each: impl FnMut(u64),
    ) -> Result<Option<VerifyProblem>, StoreError> {
        let path = pack_file::path(pack);
        if self
            .backend()
            .length(&path)
            .map_err(StoreError::io("looking for a pack"))?
            != Some(size.bytes())
        {
            return Ok(Some(VerifyProblem::PackFileLost(pack)));
        }
        let hashes = pack_file::hash_file(self.backend(), &path, size, |bytes| {
            each(bytes);
            !cancel.load(Ordering::Relaxed)
        });
        match hashes {
            Ok(None) => Err(StoreError::Cancelled),
            Ok(Some(hashes)) if hashes.pack() != pack => Ok(Some(VerifyProblem::PackDamaged(pack))),
            Ok(Some(hashes)) => Ok(match self.frame_hashes(pack) {
                Ok(recorded) if recorded == hashes => None,
                _ => Some(VerifyProblem::FrameHashesWrong(pack)),
            }),
            // An unreadable sector is as good as a wrong one.
            Err(_) => Ok(Some(VerifyProblem::PackDamaged(pack))),
        }
    }

    /// Files under `packs/` that the catalogue doesn't know.
    fn unknown_packs(&self) -> Result<Vec<PackId>, StoreError> {
        let mut unknown = Vec::new();
        for pack in self.list_packs()?.into_keys() {
            // The lock keeps out whoever is just between moving the file and recording it.
            let _state = self.state();
            if !pack_of(self.records(), pack)?.is_some_and(|record| record.presence.has_file())
                && self
                    .backend()
                    .length(&pack_file::path(pack))
                    .map_err(StoreError::io("looking for a pack"))?
                    .is_some()
            {
                unknown.push(pack);
            }
        }
        Ok(unknown)
    }

    fn verify_commits(
        &self,
        report: &mut VerifyReport,
        cancel: &AtomicBool,
    ) -> Result<(), StoreError> {
        // The lock is taken per commit, so the list is of one moment and each look at the next may be later.
        let next_arrival = self.next_arrival();
        let mut ids = Vec::new();
        scan_prefix(self.records(), &[key::META], |key, _| {
            ids.push(CommitId::from_bytes(
                key::part(key, 1).ok_or_else(|| unreadable(key::META))?,
            ));
            Ok(ControlFlow::Continue(()))
        })?;
        for id in &ids {
            if cancel.load(Ordering::Relaxed) {
                return Err(StoreError::Cancelled);
            }
            let state = self.state();
            report.commits += 1;
            if let Some(meta) = meta_of(self.records(), *id)?
                && meta.absent.is_some()
            {
                self.verify_absent(*id, &meta, state.summary.base, report)?;
                continue;
            }
            let bytes = self.records().get(&key::commit(*id))?;
            let Some(commit) = bytes.and_then(|bytes| decode_commit(*id, bytes).ok()) else {
                report.problems.push(VerifyProblem::CommitDamaged(*id));
                continue;
            };
            let Some(meta) = meta_of(self.records(), *id)? else {
                continue;
            };
            let header = commit.header();
            for parent in &header.parents {
                if meta_of(self.records(), *parent)?.is_none() {
                    report.problems.push(VerifyProblem::ParentMissing {
                        commit: *id,
                        parent: *parent,
                    });
                }
            }
            let agrees = meta.author == header.author
                && meta.sequence == header.sequence
                && meta.lamport == header.lamport
                && meta.parents == header.parents;
            if !(agrees && self.is_indexed(*id, &meta)? && self.dots_agree(*id, &meta, &commit)?) {
                report.problems.push(VerifyProblem::CommitIndexWrong(*id));
            }
        }
        self.verify_heads(&ids, next_arrival, report)
    }

    /// A commit without bytes: only what is known of it can be compared.
    fn verify_absent(
        &self,
        id: CommitId,
        meta: &CommitMeta,
        base: Option<CommitId>,
        report: &mut VerifyReport,
    ) -> Result<(), StoreError> {
        for parent in &meta.parents {
            if meta_of(self.records(), *parent)?.is_none() {
                report.problems.push(VerifyProblem::ParentMissing {
                    commit: id,
                    parent: *parent,
                });
            }
        }
        // Without a checkpoint that stands in for it the commit is simply lost.
        let has_base = match base {
            Some(base) => self.records().get(&key::commit(base))?.is_some(),
            None => false,
        };
        if !has_base {
            report.problems.push(VerifyProblem::CommitDamaged(id));
        }
        if !self.is_indexed(id, meta)? {
            report.problems.push(VerifyProblem::CommitIndexWrong(id));
        }
        Ok(())
    }

    fn is_indexed(&self, id: CommitId, meta: &CommitMeta) -> Result<bool, StoreError> {
        let has = |key: Vec<u8>| Ok::<_, StoreError>(self.records().get(&key)?.is_some());
        let quarantined = meta.disposition == Disposition::Quarantined;
        let arrived = !quarantined
            && self
                .records()
                .get(&key::arrival(meta.arrival))?
                .is_some_and(|found| found == id.as_bytes());
        let in_order = if meta.absent.is_some() {
            meta.arrival == 0
        } else {
            arrived != quarantined
        };
        Ok(has(key::order(meta.lamport, id))?
            && has(key::chain(meta.author, meta.sequence, id))?
            && has(key::quarantine(id))? == quarantined
            && in_order)
    }

    /// Whether each add is either in force or released, and each release recorded.
    fn dots_agree(
        &self,
        id: CommitId,
        meta: &CommitMeta,
        commit: &ouisync_crypto::commit::Commit,
    ) -> Result<bool, StoreError> {
        let accepted = meta.disposition == Disposition::Accepted;
        for add in &commit.header().added {
            let in_force = self.records().get(&key::use_of(add.pack, id))?.is_some();
            let released = has_any(self.records(), &key::releases_of(id, add.pack))?;
            if in_force != (accepted && !released) {
                return Ok(false);
            }
        }
        for dot in &commit.header().released {
            if self
                .records()
                .get(&key::release(dot.commit, dot.pack, id))?
                .is_some()
                != accepted
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn verify_heads(
        &self,
        ids: &[CommitId],
        next_arrival: u64,
        report: &mut VerifyReport,
    ) -> Result<(), StoreError> {
        let state = self.state();
        let mut inner = BTreeSet::new();
        let mut accepted = BTreeSet::new();
        for id in ids {
            if let Some(meta) = meta_of(self.records(), *id)?
                && meta.disposition == Disposition::Accepted
            {
                inner.extend(meta.parents);
                accepted.insert(*id);
            }
        }
        // A commit that came since the list was made may be the child of one in it.
        let unchanged = state.summary.next_arrival == next_arrival;
        for id in accepted
            .iter()
            .filter(|id| unchanged && !inner.contains(*id) && !state.heads.contains(*id))
        {
            report.problems.push(VerifyProblem::CommitIndexWrong(*id));
        }
        for id in state.heads.iter().filter(|id| inner.contains(*id)) {
            report.problems.push(VerifyProblem::CommitIndexWrong(*id));
        }
        Ok(())
    }

    fn verify_roster(&self, report: &mut VerifyReport) -> Result<(), StoreError> {
        for (id, bytes) in self.roster_entries()? {
            if blake3::hash(&bytes).as_bytes() != id.as_bytes() {
                report.problems.push(VerifyProblem::RosterEntryDamaged(id));
            }
        }
        Ok(())
    }

    /// Counts the live packs anew from the adds in force.
    fn verify_live(&self, report: &mut VerifyReport) -> Result<(), StoreError> {
        let state = self.state();
        let mut counted = LiveDigest::default();
        let mut last = None;
        scan_prefix(self.records(), &[key::USE], |key, _| {
            let pack = PackId::from_bytes(key::part(key, 1).ok_or_else(|| unreadable(key::USE))?);
            if last.replace(pack) != Some(pack) {
                counted.add(&pack);
                if !pack_of(self.records(), pack)?.is_some_and(|record| record.is_live()) {
                    report.problems.push(VerifyProblem::LivenessWrong(pack));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut live = 0;
        scan_prefix(self.records(), &[key::PACK], |_, value| {
            live += u64::from(decode::<PackRecord>(key::PACK, value)?.is_live());
            Ok(ControlFlow::Continue(()))
        })?;
        if counted != state.summary.live || live != counted.count {
            report.problems.push(VerifyProblem::LiveDigestWrong);
        }
        Ok(())
    }
}

fn has_any(records: &dyn Records, prefix: &[u8]) -> Result<bool, StoreError> {
    let mut found = false;
    scan_prefix(records, prefix, |_, _| {
        found = true;
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}
