//! What the peer state machine reads of a folder: the store's catalogue and the roster, blind.

use std::sync::Arc;

use bytes::Bytes;
use ouisync_crypto::{frame_hash::FrameHash, roster::Roster};
use ouisync_model::id::{CommitId, MemberId, PackId, RosterEntryId, Sequence};
use ouisync_store::{
    error::StoreError,
    store::{Store, packs::PackState as Presence},
};
use ouisync_sync::{
    codec::Chain,
    facts::{CommitFacts, FolderFacts, FrameSet, MissingPack, PackFacts, PackState},
};
use tracing::error;

/// Blind reads of one folder. After a failed read `failed` is set: the folder stops taking part.
pub(crate) struct Facts {
    pub(crate) store: Arc<Store>,
    pub(crate) roster: Roster,
    pub(crate) failed: std::cell::Cell<bool>,
    /// Most bytes of packs that the host allows.
    pub(crate) quota: Option<u64>,
}

impl Facts {
    /// The value, or what stands for "absent" after a failure.
    fn or_absent<T>(&self, result: Result<T, StoreError>, absent: T) -> T {
        result.unwrap_or_else(|error| {
            error!(%error, "the catalogue can't be read");
            self.failed.set(true);
            absent
        })
    }

    /// What peers exchange a stored commit by.
    pub(crate) fn commit_facts(&self, id: CommitId) -> Result<Option<CommitFacts>, StoreError> {
        let Some(commit) = self.store.commit(id)? else {
            return Ok(None);
        };
        let header = commit.header();
        Ok(Some(CommitFacts {
            id,
            author: header.author,
            sequence: header.sequence,
            lamport: header.lamport,
            added: header
                .added
                .iter()
                .map(|add| (add.pack, add.size))
                .collect(),
        }))
    }
}

impl FolderFacts for Facts {
    fn roster_heads(&self) -> Vec<RosterEntryId> {
        self.roster.heads()
    }

    fn has_roster_entry(&self, entry: &RosterEntryId) -> bool {
        self.roster.contains(entry)
    }

    fn roster_entries_since(&self, have: &[RosterEntryId]) -> Vec<Bytes> {
        let entries = self.roster.entries_beyond(have);
        entries
            .iter()
            .map(|entry| Bytes::copy_from_slice(entry.as_bytes()))
            .collect()
    }

    fn chains(&self) -> Vec<Chain> {
        let chains = self.store.chains().into_iter();
        chains
            .map(|chain| Chain {
                author: chain.author,
                sequence: chain.sequence,
                head: chain.head,
            })
            .collect()
    }

    fn is_forked(&self, author: &MemberId) -> bool {
        self.store.chain(*author).len() > 1
    }

    fn commit(&self, commit: &CommitId) -> Option<CommitFacts> {
        self.or_absent(self.commit_facts(*commit), None)
    }

    fn commits_of(&self, author: &MemberId, after: Sequence, limit: usize) -> Vec<CommitFacts> {
        let from = Sequence(after.0.saturating_add(1));
        let mut found = self.or_absent(self.store.commits_of(*author, from, limit), Vec::new());
        // Commits of one number stay together.
        if found.len() == limit
            && let Some((last, _)) = found.last().copied()
        {
            found.retain(|(sequence, _)| *sequence < last);
            let rest = self.store.commits_of(*author, last, 1 << 16);
            let rest = self.or_absent(rest, Vec::new());
            found.extend(
                rest.into_iter()
                    .take_while(|(sequence, _)| *sequence == last),
            );
        }
        let facts = found
            .into_iter()
            .map(|(_, id)| self.or_absent(self.commit_facts(id), None));
        facts.flatten().collect()
    }

    fn commit_bytes(&self, commit: &CommitId) -> Option<Bytes> {
        self.or_absent(self.store.commit_bytes(*commit), None)
            .map(Bytes::from)
    }

    fn pack(&self, pack: &PackId) -> Option<PackFacts> {
        let info = self.or_absent(self.store.pack(*pack), None)?;
        let (live, state) = match info.state {
            Presence::Stored => (true, PackState::Durable),
            Presence::Pending => (true, PackState::Stored),
            Presence::Released { durable: true, .. } => (false, PackState::Durable),
            Presence::Released { durable: false, .. } => (false, PackState::Stored),
            Presence::Missing | Presence::Partial | Presence::Damaged => (true, PackState::Missing),
        };
        Some(PackFacts {
            size: info.size,
            live,
            state,
        })
    }

    fn missing_packs(&self) -> Vec<MissingPack> {
        let missing = self.store.missing_packs().into_iter();
        missing
            .map(|missing| {
                let dots = self.or_absent(self.store.dots_of(missing.pack), Vec::new());
                let lamports = dots
                    .iter()
                    .filter_map(|dot| self.or_absent(self.store.lamport(dot.commit), None));
                let lamport = lamports.max().unwrap_or_default();
                MissingPack {
                    pack: missing.pack,
                    size: missing.size,
                    lamport,
                }
            })
            .collect()
    }

    fn room(&self) -> Option<u64> {
        let stored = || self.store.totals().stored_bytes;
        self.quota.map(|quota| quota.saturating_sub(stored()))
    }

    fn undurable_packs(&self) -> Vec<PackId> {
        self.store.pending_packs()
    }

    fn frame_hashes(&self, pack: &PackId) -> Option<Vec<FrameHash>> {
        self.store
            .frame_hashes(*pack)
            .ok()
            .map(|hashes| hashes.as_slice().to_vec())
    }

    fn present_frames(&self, pack: &PackId) -> FrameSet {
        let mut present = FrameSet::EMPTY;
        let Ok(missing) = self.store.missing_frames(*pack) else {
            return present;
        };
        let frames = self.pack(pack).map_or(0, |facts| facts.size.frames());
        for frame in 0..frames {
            if !missing.iter().any(|range| range.contains(&frame)) {
                present.insert(frame);
            }
        }
        present
    }
}
