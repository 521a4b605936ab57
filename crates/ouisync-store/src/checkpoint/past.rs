//! Bytes of commits that a checkpoint stands in for, fetched again for what they tell of the past.
//!
//! They are kept beside the commits and change nothing of what these count for: not the live set, not what a peer is offered. An
//! index is made anew from them, and then they go.

use std::ops::ControlFlow;

use ouisync_crypto::commit::Commit;
use ouisync_model::id::{CommitId, Lamport};

use super::{CheckpointCheck, CheckpointError, CheckpointInfo, cover::counts};
use crate::{
    catalogue::{key, meta_of, scan_prefix, unreadable},
    error::StoreError,
    store::{Store, commits::decode_commit},
};

/// Commits let go in one step.
const STEP: usize = 256;
/// Commits looked at in one step.
const LOOK: usize = 4096;

impl Store {
    /// Accepted commits without bytes, the latest first (by Lamport time, then id), whether or not they came for the past.
    pub fn commits_without_bytes(&self) -> Result<Vec<CommitId>, StoreError> {
        let mut found = Vec::new();
        let mut position: Option<(Lamport, CommitId)> = None;
        loop {
            let step = self.commits_in_order(position, LOOK)?;
            let Some(last) = step.last() else { break };
            position = Some(*last);
            for (_, id) in step {
                let meta = self.meta(id)?;
                if meta.absent.is_some() && counts(&meta) {
                    found.push(id);
                }
            }
        }
        found.reverse();
        Ok(found)
    }

    /// Keeps a commit whose bytes are not here until [`Self::forget_past`], not durably. Its signature was checked; refused when a
    /// checkpoint said otherwise of it. One that isn't known, or whose bytes are here, is passed over.
    pub fn keep_past(&self, commit: &Commit) -> Result<(), CheckpointError> {
        let (id, header) = (commit.id(), commit.header());
        let Some(meta) = self.commit_meta(id)?.filter(|meta| meta.absent.is_some()) else {
            return Ok(());
        };
        let agrees = meta.author == header.author
            && meta.sequence == header.sequence
            && meta.lamport == header.lamport
            && meta.parents == header.parents;
        if !agrees {
            return Err(CheckpointError::Contradicts(id));
        }
        self.change(false, |draft, _| {
            draft.put(key::past(id), commit.as_bytes().to_vec());
            Ok(())
        })?;
        Ok(())
    }

    /// A commit whose bytes are here, also those that were fetched for the past.
    pub fn past_commit(&self, id: CommitId) -> Result<Option<Commit>, StoreError> {
        if let Some(commit) = self.commit(id)? {
            return Ok(Some(commit));
        }
        let bytes = self.records().get(&key::past(id))?;
        bytes.map(|bytes| decode_commit(id, bytes)).transpose()
    }

    /// Whether [`Self::past_commit`] has it.
    pub fn has_past(&self, id: CommitId) -> Result<bool, StoreError> {
        let records = self.records();
        Ok(
            meta_of(records, id)?.is_some_and(|meta| meta.absent.is_none())
                || records.get(&key::past(id))?.is_some(),
        )
    }

    /// Checkpoints that an index can be made from as long as the accepted commits that one doesn't cover are here: accepted, not
    /// known to be wrong, and their own bytes are here. The oldest first.
    pub fn past_starts(&self) -> Result<Vec<CheckpointInfo>, StoreError> {
        let mut starts = Vec::new();
        for info in self.checkpoints()?.into_iter().rev() {
            let right = info.check >= CheckpointCheck::Blind;
            if right && info.accepted && self.has_past(info.commit)? {
                starts.push(info);
            }
        }
        Ok(starts)
    }

    /// Lets the bytes go that came for the past.
    pub fn forget_past(&self) -> Result<(), StoreError> {
        loop {
            let mut step = Vec::new();
            scan_prefix(self.records(), &[key::PAST], |key, _| {
                let id = key::part(key, 1).ok_or_else(|| unreadable(key::PAST))?;
                step.push(CommitId::from_bytes(id));
                Ok(if step.len() == STEP {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                })
            })?;
            if step.is_empty() {
                return Ok(());
            }
            self.change(false, |draft, _| {
                step.iter().for_each(|id| draft.remove(key::past(*id)));
                Ok(())
            })?;
        }
    }
}
