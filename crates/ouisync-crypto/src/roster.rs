//! The roster: the signed, hash-linked history of who is a member in which role, readable by safes.
//!
//! A [`Roster`] holds the set of known entries; its meaning is a pure function of that set. Must not keep time: expiry
//! of invitations is enforced where they are presented.

pub mod build;
mod entry_set;
pub mod policy;
pub mod role;
mod rotation;
mod rules;
pub mod secrets;
pub mod state;
pub mod statement;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use ouisync_model::id::{FolderId, RosterEntryId};
use thiserror::Error;

use crate::{
    commit::CommitHeader,
    roster::{
        entry_set::EntrySet,
        rules::{Evaluation, Node},
        state::RosterState,
        statement::{LastCommit, RosterEntry},
    },
};

/// Most entries of a roster.
pub const MAX_ENTRIES: usize = 8192;
/// Most entries, and bytes, that wait for their parents.
pub const MAX_PENDING: usize = 1024;
const MAX_PENDING_BYTES: usize = 16 * 1024 * 1024;

/// Why an entry is not accepted.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum RosterError {
    /// It belongs to another folder.
    #[error("roster entry {0} belongs to another folder")]
    OtherFolder(RosterEntryId),
    /// Its depth doesn't follow from its parents'.
    #[error("roster entry {0} has a wrong depth")]
    Depth(RosterEntryId),
    /// As of its own parents, its author had no right to it, or its subject is unknown there.
    #[error("roster entry {entry} is not allowed: {reason}")]
    NotAllowed {
        /// The entry.
        entry: RosterEntryId,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// The roster has [`MAX_ENTRIES`] entries, or too many wait.
    #[error("roster is full, entry {0} is not kept")]
    Full(RosterEntryId),
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// Accepted; and with it those of the waiting entries that only waited for it, in causal order.
    New(Vec<RosterEntryId>),
    /// Known already.
    Known,
    /// Waits for parents.
    Pending {
        /// The unknown parents.
        missing: Vec<RosterEntryId>,
    },
}

/// Whether a commit counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It counts.
    Accepted,
    /// Its author was allowed to as far as it knew, but lost the right concurrently: kept and shown, its operations and
    /// releases do not count.
    Quarantined,
    /// Its author had no right to it as of the roster that it names: to be dropped.
    Refused(RefusedReason),
    /// It names entries that are not known yet.
    Unknown {
        /// The unknown entries.
        missing: Vec<RosterEntryId>,
    },
}

/// Why a commit is refused.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum RefusedReason {
    /// Of another folder.
    #[error("the commit belongs to another folder")]
    OtherFolder,
    /// Not a member in the roster that the commit names.
    #[error("the author is not a member")]
    NotAMember,
    /// A reader or safe there.
    #[error("the author may not write")]
    MayNotWrite,
    /// A checkpoint by somebody who isn't an owner there.
    #[error("only an owner makes checkpoints")]
    MayNotCheckpoint,
    /// The epoch doesn't exist there.
    #[error("the epoch is unknown to the roster that the commit names")]
    UnknownEpoch,
}

/// The known entries of a folder's roster and what they mean.
#[derive(Clone, Debug)]
pub struct Roster {
    folder: FolderId,
    nodes: Vec<Node>,
    index: HashMap<RosterEntryId, usize>,
    heads: BTreeSet<RosterEntryId>,
    pending: BTreeMap<RosterEntryId, RosterEntry>,
    pending_bytes: usize,
    evaluation: Evaluation,
}

impl Roster {
    /// A roster of which nothing is known but the folder.
    pub fn new(folder: FolderId) -> Self {
        Self {
            folder,
            nodes: Vec::new(),
            index: HashMap::new(),
            heads: BTreeSet::new(),
            pending: BTreeMap::new(),
            pending_bytes: 0,
            evaluation: Evaluation::default(),
        }
    }

    /// The folder.
    pub const fn folder(&self) -> FolderId {
        self.folder
    }

    /// What the known entries mean.
    pub const fn state(&self) -> &RosterState {
        &self.evaluation.state
    }

    /// The entries that no other known entry has as a parent; ascending.
    pub fn heads(&self) -> Vec<RosterEntryId> {
        self.heads.iter().copied().collect()
    }

    /// Whether the entry is known and accepted.
    pub fn contains(&self, entry: &RosterEntryId) -> bool {
        self.index.contains_key(entry)
    }

    /// An accepted entry.
    pub fn entry(&self, entry: &RosterEntryId) -> Option<&RosterEntry> {
        Some(&self.nodes[*self.index.get(entry)?].entry)
    }

    /// The accepted entries, parents before children.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &RosterEntry> {
        self.nodes.iter().map(|node| &node.entry)
    }

    /// The entries that waiting ones need and nobody has brought yet; ascending.
    pub fn missing(&self) -> Vec<RosterEntryId> {
        let wanted = self
            .pending
            .values()
            .flat_map(|entry| &entry.statement().parents);
        let missing: BTreeSet<_> = wanted
            .filter(|id| !self.contains(id) && !self.pending.contains_key(*id))
            .copied()
            .collect();
        missing.into_iter().collect()
    }

    /// The entries that somebody who has `heads` (and all before them) lacks, parents before children. Unknown heads
    /// are ignored.
    pub fn entries_beyond(&self, heads: &[RosterEntryId]) -> Vec<&RosterEntry> {
        let had = self.closure(heads.iter().filter_map(|id| self.index.get(id).copied()));
        (0..self.nodes.len())
            .filter(|index| !had.contains(*index))
            .map(|index| &self.nodes[index].entry)
            .collect()
    }

    /// What the closure of `heads` means; the unknown ones among them on error.
    pub fn state_at(&self, heads: &[RosterEntryId]) -> Result<RosterState, Vec<RosterEntryId>> {
        self.borrowed_state_at(heads).map(Cow::into_owned)
    }

    fn borrowed_state_at(
        &self,
        heads: &[RosterEntryId],
    ) -> Result<Cow<'_, RosterState>, Vec<RosterEntryId>> {
        let missing: Vec<_> = heads
            .iter()
            .filter(|id| !self.contains(id))
            .copied()
            .collect();
        if !missing.is_empty() {
            return Err(missing);
        }
        if heads.len() == self.heads.len() && heads.iter().all(|id| self.heads.contains(id)) {
            return Ok(Cow::Borrowed(self.state()));
        }
        let set = self.closure(heads.iter().filter_map(|id| self.index.get(id).copied()));
        Ok(Cow::Owned(self.evaluate(&set).state))
    }

    /// Adds an entry; the order of arrival doesn't matter. An entry that waits for its parents is kept, in bounds.
    pub fn add(&mut self, entry: RosterEntry) -> Result<Added, RosterError> {
        let id = entry.id();
        if self.contains(&id) {
            return Ok(Added::Known);
        }
        if entry.folder() != self.folder {
            return Err(RosterError::OtherFolder(id));
        }
        let missing: Vec<_> = entry
            .statement()
            .parents
            .iter()
            .filter(|id| !self.contains(id))
            .copied()
            .collect();
        if !missing.is_empty() {
            if self.pending.contains_key(&id) {
                return Ok(Added::Pending { missing });
            }
            let bytes = self.pending_bytes + entry.as_bytes().len();
            if self.pending.len() >= MAX_PENDING || bytes > MAX_PENDING_BYTES {
                return Err(RosterError::Full(id));
            }
            self.pending_bytes = bytes;
            self.pending.insert(id, entry);
            return Ok(Added::Pending { missing });
        }
        self.forget_pending(&id);
        self.accept(entry)?;
        let mut accepted = vec![id];
        while let Some(ready) = self.ready() {
            // A waiting entry that turns out not to be allowed is dropped; nobody asked about it now.
            if let Some(entry) = self.forget_pending(&ready)
                && self.accept(entry).is_ok()
            {
                accepted.push(ready);
            }
        }
        Ok(Added::New(accepted))
    }

    /// Whether a commit counts. `is_covered` is asked only when its author has lost the right to write: whether the
    /// commit is one of the given ones or an ancestor of one, or an accepted checkpoint covers it as accepted.
    pub fn standing(
        &self,
        header: &CommitHeader,
        is_covered: impl FnOnce(&[LastCommit]) -> bool,
    ) -> Standing {
        if header.folder != self.folder {
            return Standing::Refused(RefusedReason::OtherFolder);
        }
        let then = match self.borrowed_state_at(&header.roster) {
            Ok(state) => state,
            Err(missing) => return Standing::Unknown { missing },
        };
        match then.role(&header.author) {
            None => return Standing::Refused(RefusedReason::NotAMember),
            Some(role) if !role.writes() => return Standing::Refused(RefusedReason::MayNotWrite),
            Some(role) if header.checkpoint.is_some() && !role.manages() => {
                return Standing::Refused(RefusedReason::MayNotCheckpoint);
            }
            Some(_) => {}
        }
        if !then.epochs().any(|epoch| epoch.epoch == header.epoch) {
            return Standing::Refused(RefusedReason::UnknownEpoch);
        }
        let state = self.state();
        let may_write_now = state.writing.contains(&header.author);
        if may_write_now || is_covered(state.last_commits(&header.author).unwrap_or_default()) {
            Standing::Accepted
        } else {
            Standing::Quarantined
        }
    }

    fn forget_pending(&mut self, id: &RosterEntryId) -> Option<RosterEntry> {
        let entry = self.pending.remove(id)?;
        self.pending_bytes -= entry.as_bytes().len();
        Some(entry)
    }

    /// A waiting entry whose parents are all known.
    fn ready(&self) -> Option<RosterEntryId> {
        let mut waiting = self.pending.values();
        waiting
            .find(|entry| entry.statement().parents.iter().all(|id| self.contains(id)))
            .map(RosterEntry::id)
    }

    fn all(&self) -> EntrySet {
        EntrySet::full(self.nodes.len())
    }

    fn closure(&self, indices: impl Iterator<Item = usize>) -> EntrySet {
        let mut set = EntrySet::default();
        for index in indices {
            set.insert(index);
            set.extend(&self.nodes[index].ancestors);
        }
        set
    }
}
