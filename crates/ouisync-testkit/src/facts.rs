//! A folder in memory. Commits and roster entries are plain postcard values without signatures.

pub mod checkpoint;
mod packs;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::{Bytes, BytesMut};
use ouisync_crypto::{frame_hash::FrameHash, pack::Frame};
use ouisync_model::{
    id::{CommitId, Lamport, MemberId, PackId, RosterEntryId, Sequence},
    operation::PackSize,
};
use ouisync_sync::{
    codec::Chain,
    facts::{
        CheckpointFacts, CommitFacts, FolderFacts, FrameSet, MissingPack, PackFacts, PackState,
    },
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::checkpoint::FakeCheckpoint;

const FRAME: usize = PackSize::FRAME as usize;

/// A commit of tests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FakeCommit {
    /// Its author.
    pub author: MemberId,
    /// Its number.
    pub sequence: Sequence,
    /// Its logical time.
    pub lamport: Lamport,
    /// Its parents.
    pub parents: Vec<CommitId>,
    /// Packs that it adds.
    pub added: Vec<(PackId, PackSize)>,
    /// Adds that it releases.
    pub released: Vec<(CommitId, PackId)>,
    /// It is a checkpoint.
    pub checkpoint: Option<FakeCheckpoint>,
    /// False makes every checker refuse it.
    pub valid: bool,
    /// Takes room.
    pub filler: Vec<u8>,
}

impl FakeCommit {
    /// Its bytes.
    pub fn to_bytes(&self) -> Bytes {
        postcard::to_extend(self, Vec::new())
            .expect("plain data")
            .into()
    }
}

/// A roster entry of tests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FakeEntry {
    /// Its parents.
    pub parents: Vec<RosterEntryId>,
    /// Makes it different from others.
    pub number: u64,
}

/// A test checker refused something.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Not the postcard form.
    #[error("malformed")]
    Malformed,
    /// Marked as invalid.
    #[error("invalid")]
    Invalid,
    /// A parent is not here.
    #[error("parent missing")]
    Orphan,
    /// The logical time isn't 1 + the greatest of the parents'.
    #[error("wrong logical time")]
    Lamport,
    /// The author's previous commit is not here.
    #[error("sequence broken")]
    Sequence,
}

struct StoredCommit {
    facts: CommitFacts,
    parents: Vec<CommitId>,
    checkpoint: Option<FakeCheckpoint>,
    /// None of a commit that only a checkpoint tells of.
    bytes: Option<Bytes>,
}

#[derive(Default)]
struct StoredPack {
    size: Option<PackSize>,
    dots: BTreeSet<CommitId>,
    lamport: Lamport,
    data: Option<Bytes>,
    durable: bool,
    partial: Option<(BytesMut, FrameSet)>,
    hashes: Option<Vec<FrameHash>>,
    /// Given up; the data may still be here.
    offloaded: bool,
}

/// One device's folder.
#[derive(Default)]
pub struct MemoryFacts {
    roster: BTreeMap<RosterEntryId, (FakeEntry, Bytes, u64)>,
    commits: HashMap<CommitId, StoredCommit>,
    authors: BTreeMap<MemberId, BTreeSet<(Sequence, CommitId)>>,
    forked: HashSet<MemberId>,
    heads: BTreeSet<CommitId>,
    ancestors_of_author: BTreeMap<MemberId, BTreeSet<CommitId>>,
    packs: BTreeMap<PackId, StoredPack>,
    released: HashSet<(CommitId, PackId)>,
    /// The checkpoint that covers all commits without bytes.
    base: Option<CommitId>,
    /// A skeleton that comes in.
    spool: Vec<u8>,
    /// Packs of the past that are to come.
    pub late: BTreeSet<PackId>,
    /// Most bytes of packs that may be held.
    pub quota: Option<u64>,
    /// Bytes that were ever written by [`write`](Self::write).
    pub written: u64,
}

/// Bytes of a pack of `size` that no other `number` gives, its id and frame hashes.
pub fn fake_pack(size: PackSize, number: u64) -> (PackId, Bytes, Vec<FrameHash>) {
    let mut data = vec![0; size.bytes() as usize];
    let mut hashes = Vec::new();
    for (index, frame) in (0..).zip(data.chunks_exact_mut(FRAME)) {
        frame[..8].copy_from_slice(&number.to_le_bytes());
        frame[8..12].copy_from_slice(&u32::to_le_bytes(index));
        let frame: &Frame = (&*frame).try_into().expect("a whole frame");
        hashes.push(FrameHash::of(size, index, frame));
    }
    (
        PackId::from_bytes(*blake3::hash(&data).as_bytes()),
        data.into(),
        hashes,
    )
}

impl MemoryFacts {
    /// Adds an entry on top of the roster.
    pub fn add_entry(&mut self, number: u64) -> RosterEntryId {
        let entry = FakeEntry {
            parents: self.roster_heads(),
            number,
        };
        let bytes: Bytes = postcard::to_extend(&entry, Vec::new())
            .expect("plain data")
            .into();
        self.accept_entry(bytes).expect("valid")
    }

    /// Checks and adds an entry of a peer.
    pub fn accept_entry(&mut self, bytes: Bytes) -> Result<RosterEntryId, Refused> {
        let entry: FakeEntry = postcard::from_bytes(&bytes).map_err(|_| Refused::Malformed)?;
        let id = RosterEntryId::from_bytes(*blake3::hash(&bytes).as_bytes());
        let mut depth = 0;
        for parent in &entry.parents {
            depth = depth.max(self.roster.get(parent).ok_or(Refused::Orphan)?.2 + 1);
        }
        self.roster.insert(id, (entry, bytes, depth));
        Ok(id)
    }

    /// A valid commit by `author` on top of everything here.
    pub fn compose(&self, author: MemberId, added: Vec<(PackId, PackSize)>) -> FakeCommit {
        let last = self.authors.get(&author).and_then(|commits| commits.last());
        let parents: Vec<_> = self.heads.iter().copied().collect();
        let lamport = parents
            .iter()
            .filter_map(|parent| self.commits.get(parent))
            .map(|parent| parent.facts.lamport.0);
        FakeCommit {
            author,
            sequence: Sequence(last.map_or(0, |(sequence, _)| sequence.0) + 1),
            lamport: Lamport(lamport.max().unwrap_or(0) + 1),
            parents,
            added,
            released: Vec::new(),
            checkpoint: None,
            valid: true,
            filler: Vec::new(),
        }
    }

    /// Puts own content in place, durably.
    pub fn add_pack(&mut self, size: PackSize, number: u64) -> PackId {
        let (id, data, hashes) = fake_pack(size, number);
        let pack = self.packs.entry(id).or_default();
        *pack = StoredPack {
            size: Some(size),
            data: Some(data),
            durable: true,
            hashes: Some(hashes),
            ..StoredPack::default()
        };
        id
    }

    /// Checks and adds a commit. `None` when it was known; else its facts and packs that are not live any more.
    pub fn accept_commit(
        &mut self,
        bytes: Bytes,
    ) -> Result<Option<(CommitFacts, Vec<PackId>)>, Refused> {
        let id = CommitId::from_bytes(*blake3::hash(&bytes).as_bytes());
        if self.commits.contains_key(&id) {
            return Ok(None);
        }
        let commit: FakeCommit = postcard::from_bytes(&bytes).map_err(|_| Refused::Malformed)?;
        if !commit.valid {
            return Err(Refused::Invalid);
        }
        let mut lamport = 0;
        for parent in &commit.parents {
            lamport = lamport.max(
                self.commits
                    .get(parent)
                    .ok_or(Refused::Orphan)?
                    .facts
                    .lamport
                    .0,
            );
        }
        if commit.lamport.0 != lamport + 1 {
            return Err(Refused::Lamport);
        }
        let own = self.authors.entry(commit.author).or_default();
        if commit.sequence.0 > 1
            && !own
                .iter()
                .any(|(sequence, _)| sequence.0 == commit.sequence.0 - 1)
        {
            return Err(Refused::Sequence);
        }
        for (pack, size) in &commit.added {
            let stored = self.packs.entry(*pack).or_default();
            stored.size = Some(*size);
            stored.lamport = stored.lamport.max(commit.lamport);
            if !self.released.contains(&(id, *pack)) {
                stored.dots.insert(id);
            }
        }
        let mut gone = Vec::new();
        for (dot, pack) in &commit.released {
            self.released.insert((*dot, *pack));
            if let Some(stored) = self.packs.get_mut(pack)
                && stored.dots.remove(dot)
                && stored.dots.is_empty()
            {
                gone.push(*pack);
            }
        }
        let facts = facts_of(id, &commit);
        self.note(
            facts.clone(),
            commit.parents,
            commit.checkpoint,
            Some(bytes),
        );
        Ok(Some((facts, gone)))
    }

    /// Puts a commit into chains and heads; its parents are here.
    fn note(
        &mut self,
        facts: CommitFacts,
        parents: Vec<CommitId>,
        checkpoint: Option<FakeCheckpoint>,
        bytes: Option<Bytes>,
    ) {
        let own = self.authors.entry(facts.author).or_default();
        if own.iter().any(|(sequence, _)| *sequence == facts.sequence) {
            self.forked.insert(facts.author);
        }
        own.insert((facts.sequence, facts.id));
        for parent in &parents {
            self.heads.remove(parent);
        }
        self.heads.insert(facts.id);
        // Every author's commits that have a successor of the same author reachable: enough for linear test histories.
        let previous: Vec<_> = own
            .iter()
            .filter(|(sequence, _)| sequence.0 + 1 == facts.sequence.0)
            .map(|(_, id)| *id)
            .collect();
        let forked = self.forked.contains(&facts.author);
        let covered = self.ancestors_of_author.entry(facts.author).or_default();
        for before in previous {
            if !forked || parents.contains(&before) {
                covered.insert(before);
            }
        }
        let stored = StoredCommit {
            facts,
            parents,
            checkpoint,
            bytes,
        };
        self.commits.insert(stored.facts.id, stored);
    }

    /// All commits.
    pub fn commit_ids(&self) -> BTreeSet<CommitId> {
        self.commits.keys().copied().collect()
    }

    /// All live packs.
    pub fn live_packs(&self) -> BTreeSet<PackId> {
        self.packs
            .iter()
            .filter(|(_, stored)| !stored.dots.is_empty())
            .map(|(id, _)| *id)
            .collect()
    }

    /// The adds of a pack that are not released.
    pub fn dots(&self, pack: &PackId) -> Vec<(CommitId, PackId)> {
        self.packs
            .get(pack)
            .map(|stored| stored.dots.iter().map(|dot| (*dot, *pack)).collect())
            .unwrap_or_default()
    }

    fn closure(&self, heads: &[RosterEntryId]) -> HashSet<RosterEntryId> {
        let mut seen = HashSet::new();
        let mut stack: Vec<_> = heads.to_vec();
        while let Some(id) = stack.pop() {
            if let Some((entry, ..)) = self.roster.get(&id)
                && seen.insert(id)
            {
                stack.extend(&entry.parents);
            }
        }
        seen
    }
}

impl FolderFacts for MemoryFacts {
    fn roster_heads(&self) -> Vec<RosterEntryId> {
        let parents: HashSet<_> = self
            .roster
            .values()
            .flat_map(|(entry, ..)| &entry.parents)
            .collect();
        self.roster
            .keys()
            .filter(|id| !parents.contains(id))
            .copied()
            .collect()
    }

    fn has_roster_entry(&self, entry: &RosterEntryId) -> bool {
        self.roster.contains_key(entry)
    }

    fn roster_entries_since(&self, have: &[RosterEntryId]) -> Vec<Bytes> {
        let known = self.closure(have);
        let mut entries: Vec<_> = self
            .roster
            .iter()
            .filter(|(id, _)| !known.contains(id))
            .collect();
        entries.sort_by_key(|(id, (_, _, depth))| (*depth, **id));
        entries
            .into_iter()
            .map(|(_, (_, bytes, _))| bytes.clone())
            .collect()
    }

    fn chains(&self) -> Vec<Chain> {
        let mut chains = Vec::new();
        for (author, commits) in &self.authors {
            let covered = self.ancestors_of_author.get(author);
            for (sequence, head) in commits {
                if covered.is_none_or(|covered| !covered.contains(head)) {
                    chains.push(Chain {
                        author: *author,
                        sequence: *sequence,
                        head: *head,
                    });
                }
            }
        }
        chains
    }

    fn is_forked(&self, author: &MemberId) -> bool {
        self.forked.contains(author)
    }

    fn commit(&self, commit: &CommitId) -> Option<CommitFacts> {
        self.commits.get(commit).map(|stored| stored.facts.clone())
    }

    fn commits_of(&self, author: &MemberId, after: Sequence, limit: usize) -> Vec<CommitFacts> {
        let Some(commits) = self.authors.get(author) else {
            return Vec::new();
        };
        let mut list: Vec<CommitFacts> = Vec::new();
        for (sequence, id) in commits.iter().filter(|(sequence, _)| *sequence > after) {
            if list.len() >= limit && list.last().is_some_and(|last| last.sequence < *sequence) {
                break;
            }
            list.extend(self.commits.get(id).map(|stored| stored.facts.clone()));
        }
        list
    }

    fn commit_bytes(&self, commit: &CommitId) -> Option<Bytes> {
        self.commits.get(commit)?.bytes.clone()
    }

    fn parse_commit(&self, bytes: &Bytes) -> Option<CommitFacts> {
        let commit: FakeCommit = postcard::from_bytes(bytes).ok()?;
        let id = CommitId::from_bytes(*blake3::hash(bytes).as_bytes());
        Some(facts_of(id, &commit))
    }

    fn checkpoint(&self) -> Option<CheckpointFacts> {
        self.newest_checkpoint()
    }

    fn skeleton(&self, checkpoint: &CommitId, offset: u64, length: usize) -> Option<Bytes> {
        let skeleton = self.skeleton_of(checkpoint);
        let offset = usize::try_from(offset).ok()?;
        (offset < skeleton.len())
            .then(|| skeleton.slice(offset..skeleton.len().min(offset + length)))
    }

    fn visit_covered(
        &self,
        checkpoint: &CommitId,
        visit: &mut dyn FnMut(CommitId, MemberId, Sequence),
    ) {
        for id in self.ancestors(checkpoint) {
            let facts = &self.commits[&id].facts;
            visit(id, facts.author, facts.sequence);
        }
    }

    fn room(&self) -> Option<u64> {
        let held = self.packs.values().filter_map(|pack| pack.data.as_ref());
        let held: u64 = held.map(|data| data.len() as u64).sum();
        self.quota.map(|quota| quota.saturating_sub(held))
    }

    fn live_packs(&self) -> Vec<(PackId, PackSize)> {
        let live = self
            .packs
            .iter()
            .filter(|(_, stored)| !stored.dots.is_empty());
        live.filter_map(|(pack, stored)| Some((*pack, stored.size?)))
            .collect()
    }

    fn adds_of(&self, pack: &PackId) -> Vec<CommitId> {
        let stored = self.packs.get(pack).into_iter();
        stored.flat_map(|stored| &stored.dots).copied().collect()
    }

    fn pack(&self, pack: &PackId) -> Option<PackFacts> {
        let stored = self.packs.get(pack)?;
        let state = match (&stored.data, stored.durable) {
            _ if stored.offloaded => PackState::Missing,
            (Some(_), true) => PackState::Durable,
            (Some(_), false) => PackState::Stored,
            (None, _) => PackState::Missing,
        };
        let live = !stored.dots.is_empty();
        (live || state != PackState::Missing || self.late.contains(pack)).then_some(())?;
        Some(PackFacts {
            size: stored.size?,
            live,
            state,
            offloaded: stored.offloaded,
        })
    }

    fn missing_packs(&self) -> Vec<MissingPack> {
        let missing = self.packs.iter().filter(|(_, stored)| {
            stored.data.is_none() && !stored.dots.is_empty() && !stored.offloaded
        });
        missing
            .filter_map(|(pack, stored)| {
                Some(MissingPack {
                    pack: *pack,
                    size: stored.size?,
                    lamport: stored.lamport,
                })
            })
            .collect()
    }

    fn offloaded_packs(&self) -> Vec<PackId> {
        let offloaded = |stored: &StoredPack| stored.offloaded && !stored.dots.is_empty();
        self.packs
            .iter()
            .filter(|(_, stored)| offloaded(stored))
            .map(|(pack, _)| *pack)
            .collect()
    }

    fn undurable_packs(&self) -> Vec<PackId> {
        let undurable = |stored: &StoredPack| {
            stored.data.is_some() && !stored.durable && !stored.offloaded && !stored.dots.is_empty()
        };
        self.packs
            .iter()
            .filter(|(_, stored)| undurable(stored))
            .map(|(pack, _)| *pack)
            .collect()
    }

    fn frame_hashes(&self, pack: &PackId) -> Option<Vec<FrameHash>> {
        self.packs.get(pack)?.hashes.clone()
    }

    fn present_frames(&self, pack: &PackId) -> FrameSet {
        let stored = self.packs.get(pack);
        stored
            .and_then(|stored| stored.partial.as_ref())
            .map_or(FrameSet::EMPTY, |(_, present)| *present)
    }
}

fn facts_of(id: CommitId, commit: &FakeCommit) -> CommitFacts {
    CommitFacts {
        id,
        author: commit.author,
        sequence: commit.sequence,
        lamport: commit.lamport,
        added: commit.added.clone(),
    }
}
