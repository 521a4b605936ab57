//! What the state machine of a folder reads from its host: the store's catalogue, or memory in tests.

use bytes::Bytes;
use ouisync_crypto::frame_hash::FrameHash;
use ouisync_model::{
    id::{CommitId, Lamport, MemberId, PackId, RosterEntryId, Sequence},
    operation::PackSize,
};

use crate::codec::Chain;

/// Blind reads of one folder. Calls are short and local; an answer holds until the host tells the state machine of a
/// change. The host closes the folder after a failed read and meanwhile answers as if the thing were absent.
pub trait FolderFacts {
    /// Heads of the roster; empty before the first entry came.
    fn roster_heads(&self) -> Vec<RosterEntryId>;
    /// The entry is in the roster.
    fn has_roster_entry(&self, entry: &RosterEntryId) -> bool;
    /// Bytes of all entries outside the closure of `have` (unknown ids in it are skipped), parents first.
    fn roster_entries_since(&self, have: &[RosterEntryId]) -> Vec<Bytes>;

    /// The last commit of every author; after a fork one for every line that isn't an ancestor of another of that author.
    fn chains(&self) -> Vec<Chain>;
    /// The author has two commits with one sequence number.
    fn is_forked(&self, author: &MemberId) -> bool;
    /// The commit, when it is held.
    fn commit(&self, commit: &CommitId) -> Option<CommitFacts>;
    /// About `limit` commits of the author with a greater sequence number than `after`, by sequence number; commits with
    /// one number are never separated.
    fn commits_of(&self, author: &MemberId, after: Sequence, limit: usize) -> Vec<CommitFacts>;
    /// The commit's bytes; none when they were dropped because a checkpoint covers it.
    fn commit_bytes(&self, commit: &CommitId) -> Option<Bytes>;
    /// What the bytes of a commit say, unchecked. Asked for commits that are held without bytes.
    fn parse_commit(&self, bytes: &Bytes) -> Option<CommitFacts>;

    /// The newest checkpoint that a peer can start from. It covers every held commit that has no bytes.
    fn checkpoint(&self) -> Option<CheckpointFacts>;
    /// At most `length` bytes of the checkpoint's skeleton from `offset` on.
    fn skeleton(&self, checkpoint: &CommitId, offset: u64, length: usize) -> Option<Bytes>;
    /// Visits the commits that a held checkpoint covers, that is its ancestors, with their authors and numbers.
    fn visit_covered(
        &self,
        checkpoint: &CommitId,
        visit: &mut dyn FnMut(CommitId, MemberId, Sequence),
    );

    /// A pack that is live or held.
    fn pack(&self, pack: &PackId) -> Option<PackFacts>;
    /// All live packs.
    fn live_packs(&self) -> Vec<(PackId, PackSize)>;
    /// The commits whose adds of the pack are in force.
    fn adds_of(&self, pack: &PackId) -> Vec<CommitId>;
    /// Live packs that are not held and shall be fetched; offloaded ones are not among them.
    fn missing_packs(&self) -> Vec<MissingPack>;
    /// Bytes of whole packs that may still be stored; `None`: no limit but the disk. Packs that don't fit are not begun.
    fn room(&self) -> Option<u64> {
        None
    }
    /// Live packs that this device gave up: they are not fetched, and peers must know that they are lacking.
    fn offloaded_packs(&self) -> Vec<PackId>;
    /// Live packs that are held and not yet durable.
    fn undurable_packs(&self) -> Vec<PackId>;
    /// Chaining values of all frames; known for held packs and for partial ones whose list was stored with its first frames.
    fn frame_hashes(&self, pack: &PackId) -> Option<Vec<FrameHash>>;
    /// Frames of a partial pack that are already written.
    fn present_frames(&self, pack: &PackId) -> FrameSet;
}

/// Of a commit, what peers exchange it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitFacts {
    /// The commit.
    pub id: CommitId,
    /// Its author.
    pub author: MemberId,
    /// Its number among the author's.
    pub sequence: Sequence,
    /// Logical time, greater than that of any ancestor.
    pub lamport: Lamport,
    /// Packs that it adds; not known of a commit that is held without bytes, then empty.
    pub added: Vec<(PackId, PackSize)>,
}

/// A checkpoint to start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointFacts {
    /// Its commit, of which the bytes are held.
    pub commit: CommitId,
    /// Length of its skeleton in bytes.
    pub length: u64,
}

/// Of a pack, what peers exchange it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackFacts {
    /// Its size.
    pub size: PackSize,
    /// Some commit's add is not released.
    pub live: bool,
    /// How much of it is here. Of an offloaded one nothing is, whatever the disk may still hold: nobody may rely on it.
    pub state: PackState,
    /// This device gave it up and doesn't want it.
    pub offloaded: bool,
}

/// How much of a pack is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PackState {
    /// Not all.
    Missing,
    /// All, verified and readable; a crash may lose it.
    Stored,
    /// All, for good.
    Durable,
}

/// A pack to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingPack {
    /// The pack.
    pub pack: PackId,
    /// Its size.
    pub size: PackSize,
    /// Logical time of the latest commit that adds it: recent packs come first.
    pub lamport: Lamport,
}

/// A set of frames of one pack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameSet([u64; 4]);

impl FrameSet {
    /// No frame.
    pub const EMPTY: Self = Self([0; 4]);

    /// Adds frame `index`, which is below 256; greater ones are ignored.
    pub fn insert(&mut self, index: u32) {
        if let Some(word) = self.0.get_mut(index as usize / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// Takes frame `index` out.
    pub fn remove(&mut self, index: u32) {
        if let Some(word) = self.0.get_mut(index as usize / 64) {
            *word &= !(1 << (index % 64));
        }
    }

    /// Frame `index` is in the set.
    pub fn contains(&self, index: u32) -> bool {
        self.0
            .get(index as usize / 64)
            .is_some_and(|word| word & 1 << (index % 64) != 0)
    }

    /// Number of frames.
    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// The first `count` frames.
    pub fn first(count: u32) -> Self {
        let mut set = Self::EMPTY;
        (0..count).for_each(|index| set.insert(index));
        set
    }

    /// Frames of either set.
    pub fn union(self, other: Self) -> Self {
        let mut set = self;
        for (word, other) in set.0.iter_mut().zip(other.0) {
            *word |= other;
        }
        set
    }

    /// The first run of at most `limit` frames below `end` that are not in the set: first frame and number of frames.
    pub fn gap(&self, end: u32, limit: u32) -> Option<(u32, u32)> {
        let first = (0..end).find(|index| !self.contains(*index))?;
        let stop =
            (first..end.min(first.saturating_add(limit))).find(|index| self.contains(*index));
        let stop = stop.unwrap_or(end.min(first.saturating_add(limit)));
        Some((first, stop - first))
    }

    /// No frame.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }
}
