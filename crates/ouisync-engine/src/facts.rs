//! What the peer state machine reads of a folder: the store's catalogue and the roster, blind.

use std::{cell::RefCell, sync::Arc};

use bytes::Bytes;
use ouisync_crypto::{commit::Commit, frame_hash::FrameHash, roster::Roster};
use ouisync_model::{
    id::{CommitId, MemberId, PackId, RosterEntryId, Sequence},
    operation::PackSize,
};
use ouisync_store::{
    checkpoint::{CheckpointCheck, Skeleton},
    error::StoreError,
    store::{Store, packs::PackState as Presence},
};
use ouisync_sync::{
    codec::Chain,
    facts::{
        CheckpointFacts, CommitFacts, FolderFacts, FrameSet, MissingPack, PackFacts, PackState,
    },
};
use tracing::error;

/// Blind reads of one folder. After a failed read `failed` is set: the folder stops taking part.
pub(crate) struct Facts {
    pub(crate) store: Arc<Store>,
    pub(crate) roster: Roster,
    pub(crate) failed: std::cell::Cell<bool>,
    /// Most bytes of packs that the host allows.
    pub(crate) quota: Option<u64>,
    /// The skeleton that was offered last.
    pub(crate) skeleton: RefCell<Option<(CommitId, Skeleton)>>,
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

    /// Reads the skeleton of a checkpoint that is here; it is kept for the parts that are asked for next.
    fn with_skeleton<T>(
        &self,
        checkpoint: CommitId,
        read: impl FnOnce(&Skeleton) -> Result<T, StoreError>,
    ) -> Option<T> {
        let mut kept = self.skeleton.borrow_mut();
        if kept.as_ref().is_none_or(|(of, _)| *of != checkpoint) {
            *kept = None;
            let commit = self.or_absent(self.store.commit(checkpoint), None)?;
            let header = commit.header();
            let then = self.roster.state_at(&header.roster).ok()?;
            match self.store.skeleton(&header.parents, &then) {
                Ok(skeleton) => *kept = Some((checkpoint, skeleton)),
                Err(error) => {
                    error!(%checkpoint, %error, "a checkpoint can't be offered");
                    return None;
                }
            }
        }
        let (_, skeleton) = kept.as_ref()?;
        self.or_absent(read(skeleton).map(Some), None)
    }

    /// What peers exchange a stored commit by.
    pub(crate) fn commit_facts(&self, id: CommitId) -> Result<Option<CommitFacts>, StoreError> {
        if let Some(commit) = self.store.commit(id)? {
            return Ok(Some(facts_of(&commit)));
        }
        let meta = self.store.commit_meta(id)?;
        Ok(meta.map(|meta| CommitFacts {
            id,
            author: meta.author,
            sequence: meta.sequence,
            lamport: meta.lamport,
            added: Vec::new(),
        }))
    }
}

fn facts_of(commit: &Commit) -> CommitFacts {
    let header = commit.header();
    CommitFacts {
        id: commit.id(),
        author: header.author,
        sequence: header.sequence,
        lamport: header.lamport,
        added: header
            .added
            .iter()
            .map(|add| (add.pack, add.size))
            .collect(),
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

    fn parse_commit(&self, bytes: &Bytes) -> Option<CommitFacts> {
        let commit = Commit::decode(bytes.to_vec()).ok()?;
        Some(facts_of(&commit))
    }

    fn checkpoint(&self) -> Option<CheckpointFacts> {
        let start = self.store.start(CheckpointCheck::Blind);
        let commit = self.or_absent(start, None)?.commit;
        let length = self.with_skeleton(commit, |skeleton| Ok(skeleton.length()))?;
        Some(CheckpointFacts { commit, length })
    }

    fn skeleton(&self, checkpoint: &CommitId, offset: u64, length: usize) -> Option<Bytes> {
        self.with_skeleton(*checkpoint, |skeleton| skeleton.read(offset, length))
            .map(Bytes::from)
    }

    fn visit_covered(
        &self,
        checkpoint: &CommitId,
        visit: &mut dyn FnMut(CommitId, MemberId, Sequence),
    ) {
        let visited = self.store.visit_covered(*checkpoint, &mut |covered| {
            visit(covered.commit, covered.author, covered.sequence);
        });
        if let Err(error) = visited {
            error!(%error, "the commits of a checkpoint can't be read");
            self.failed.set(true);
        }
    }

    fn live_packs(&self) -> Vec<(PackId, PackSize)> {
        self.or_absent(self.store.live_packs(None, usize::MAX), Vec::new())
    }

    fn adds_of(&self, pack: &PackId) -> Vec<CommitId> {
        let dots = self.or_absent(self.store.dots_of(*pack), Vec::new());
        dots.iter().map(|dot| dot.commit).collect()
    }

    fn pack(&self, pack: &PackId) -> Option<PackFacts> {
        let info = self.or_absent(self.store.pack(*pack), None)?;
        let (live, state) = match info.state {
            Presence::Stored => (true, PackState::Durable),
            Presence::Pending => (true, PackState::Stored),
            Presence::Released { durable: true, .. } => (false, PackState::Durable),
            Presence::Released { durable: false, .. } => (false, PackState::Stored),
            // What is wanted of the past is missing without being live.
            Presence::Missing
            | Presence::Partial
            | Presence::Damaged
            | Presence::Offloaded { .. } => {
                let live = self.or_absent(self.store.is_live(*pack), false);
                (live, PackState::Missing)
            }
        };
        Some(PackFacts {
            size: info.size,
            live,
            state,
            offloaded: matches!(info.state, Presence::Offloaded { .. }),
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

    fn offloaded_packs(&self) -> Vec<PackId> {
        self.store.offloaded_packs()
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
