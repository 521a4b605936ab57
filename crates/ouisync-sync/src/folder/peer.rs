//! What is known of one connected peer, and what is owed to it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use ouisync_crypto::possession::Nonce;
use ouisync_model::{
    id::{CommitId, Lamport, MemberId, PackId, RosterEntryId, Sequence},
    operation::PackSize,
};

use super::{Rights, past::PeerPast};
use crate::{
    codec::Chain,
    facts::{CommitFacts, FrameSet},
};

pub(super) struct Peer {
    pub(super) rights: Rights,
    pub(super) member: Option<MemberId>,
    /// Bytes of control messages that the host has not sent yet.
    pub(super) unsent: usize,
    pub(super) roster: PeerRoster,
    pub(super) commits: PeerCommits,
    pub(super) packs: PeerPacks,
    pub(super) serving: Serving,
    pub(super) requests: Requests,
    pub(super) checkpoints: PeerCheckpoints,
    /// The challenge of the peer that the host is working on: its nonce and packs.
    pub(super) challenged: Option<(Nonce, Vec<PackId>)>,
    pub(super) past: PeerPast,
}

impl Peer {
    pub(super) fn new(rights: Rights, window: u64, now: Duration) -> Self {
        Self {
            rights,
            member: None,
            unsent: 0,
            roster: PeerRoster::default(),
            commits: PeerCommits::default(),
            packs: PeerPacks::default(),
            serving: Serving::default(),
            requests: Requests::new(window, now),
            checkpoints: PeerCheckpoints::default(),
            challenged: None,
            past: PeerPast::default(),
        }
    }

    /// It may have more than the roster.
    pub(super) fn allowed(&self) -> bool {
        match self.rights {
            Rights::Current => true,
            Rights::Older => self.member.is_some(),
            Rights::Invitation(_) => false,
        }
    }

    /// Both sides have told what they have.
    pub(super) fn exchanged(&self) -> bool {
        self.exchanged_opening() && self.commits.heard
    }

    /// Our inventory and Heads are out: changes of them may follow.
    pub(super) fn exchanged_opening(&self) -> bool {
        self.allowed() && self.commits.ready && !self.commits.opening
    }

    pub(super) fn can_serve(&self, pack: &PackId) -> bool {
        self.commits.heard
            && self
                .packs
                .lacking
                .get(pack)
                .is_none_or(|lack| lack.told.servable)
            && !self.packs.unavailable.contains(pack)
    }
}

#[derive(Default)]
pub(super) struct PeerRoster {
    /// Its heads, sorted, once it told them.
    pub(super) heads: Option<Vec<RosterEntryId>>,
    /// Our heads as it was last told.
    pub(super) told: Vec<RosterEntryId>,
    /// It asks for what is not in the closure of these.
    pub(super) wanted: Option<Vec<RosterEntryId>>,
    /// How often its present heads were asked for.
    pub(super) asked: u8,
    /// Batches of entries that the host has not judged yet.
    pub(super) pending: u32,
}

/// A batch of commits that the host has not judged yet.
pub(super) struct Batch {
    pub(super) commits: Vec<CommitId>,
    /// What those of them say that are held without bytes.
    pub(super) parsed: Vec<CommitFacts>,
    pub(super) bytes: usize,
    /// The host was asked; otherwise all were known.
    pub(super) asked: bool,
}

/// Which commits of one author the peer has.
#[derive(Default)]
pub(super) struct PeerChain {
    /// All up to this number, unless `exact`.
    pub(super) upto: Sequence,
    /// All between `upto` and this are in the queue, unless `exact`.
    pub(super) loaded: Sequence,
    /// Exactly these of ours, because numbers don't tell after a fork.
    pub(super) exact: Option<HashSet<CommitId>>,
    /// Its list must come before anything of this author is sent.
    pub(super) awaiting: bool,
}

#[derive(Default)]
pub(super) struct PeerCommits {
    /// Our first Heads is owed or sent: it may send commits.
    pub(super) ready: bool,
    /// Our first inventory and Heads are still owed.
    pub(super) opening: bool,
    /// Its first Heads came and was used.
    pub(super) heard: bool,
    /// Its first Heads must be acknowledged, after the lists that it calls for.
    pub(super) acknowledge: bool,
    /// It acknowledged our first Heads, so that its lists have come.
    pub(super) acknowledged: bool,
    /// Its Heads that came before it was allowed to exchange.
    pub(super) early: Vec<Chain>,
    pub(super) early_heads: bool,
    pub(super) chains: HashMap<MemberId, PeerChain>,
    /// Heads it announced that we don't have.
    pub(super) claimed: HashSet<CommitId>,
    /// Authors with commits that it may lack and that are not all queued.
    pub(super) behind: BTreeSet<MemberId>,
    pub(super) queue: BTreeMap<(Lamport, CommitId), (MemberId, Sequence)>,
    pub(super) queued: HashMap<MemberId, usize>,
    pub(super) unaccepted: VecDeque<(CommitId, MemberId, usize)>,
    pub(super) unaccepted_bytes: usize,
    pub(super) batches: VecDeque<Batch>,
    pub(super) batch_bytes: usize,
    pub(super) accepted_owed: u32,
    /// Authors whose heads it doesn't know that we have.
    pub(super) heads_owed: BTreeSet<MemberId>,
    pub(super) lists_owed: BTreeSet<MemberId>,
    pub(super) listed: HashSet<MemberId>,
    /// Its list that is coming in.
    pub(super) listing: Option<(MemberId, HashSet<CommitId>)>,
}

impl PeerCommits {
    pub(super) fn has(&self, commit: &CommitFacts) -> bool {
        self.chains
            .get(&commit.author)
            .is_some_and(|chain| match &chain.exact {
                Some(exact) => exact.contains(&commit.id),
                None => commit.sequence <= chain.upto,
            })
    }

    /// It has this commit and so all before it.
    pub(super) fn mark(&mut self, commit: &CommitFacts) {
        let chain = self.chains.entry(commit.author).or_default();
        match &mut chain.exact {
            Some(exact) => {
                exact.insert(commit.id);
                self.unqueue(&(commit.lamport, commit.id));
            }
            None => self.advance(commit.author, commit.sequence),
        }
    }

    /// It has all of the author's commits up to `sequence`.
    pub(super) fn advance(&mut self, author: MemberId, sequence: Sequence) {
        let chain = self.chains.entry(author).or_default();
        if sequence <= chain.upto {
            return;
        }
        chain.upto = sequence;
        chain.loaded = chain.loaded.max(sequence);
        if self.queued.get(&author).is_some_and(|count| *count > 0) {
            let stale: Vec<_> = self
                .queue
                .iter()
                .filter(|(_, (of, number))| *of == author && *number <= sequence)
                .map(|(key, _)| *key)
                .collect();
            stale.iter().for_each(|key| self.unqueue(key));
        }
    }

    pub(super) fn enqueue(&mut self, commit: &CommitFacts) {
        let key = (commit.lamport, commit.id);
        if self
            .queue
            .insert(key, (commit.author, commit.sequence))
            .is_none()
        {
            *self.queued.entry(commit.author).or_default() += 1;
        }
    }

    pub(super) fn unqueue(&mut self, key: &(Lamport, CommitId)) {
        if let Some((author, _)) = self.queue.remove(key)
            && let Some(count) = self.queued.get_mut(&author)
        {
            *count -= 1;
        }
    }

    /// Counts single commits of `author` from now on; it has exactly those of `known`, and those that are on their way.
    pub(super) fn set_exact(&mut self, author: MemberId, mut known: HashSet<CommitId>) {
        known.extend(
            self.unaccepted
                .iter()
                .filter(|(_, of, _)| *of == author)
                .map(|(commit, ..)| *commit),
        );
        let queued: Vec<_> = self
            .queue
            .iter()
            .filter(|(_, (of, _))| *of == author)
            .map(|(key, _)| *key)
            .collect();
        queued.iter().for_each(|key| self.unqueue(key));
        self.chains.entry(author).or_default().exact = Some(known);
        self.behind.insert(author);
    }

    /// Owes the author's list once.
    pub(super) fn owe_list(&mut self, author: MemberId) {
        if self.listed.insert(author) {
            self.lists_owed.insert(author);
        }
    }

    /// It told that it has no commit.
    pub(super) fn has_nothing(&self) -> bool {
        self.claimed.is_empty()
            && self.chains.values().all(|chain| {
                chain.upto == Sequence(0) && chain.exact.as_ref().is_none_or(HashSet::is_empty)
            })
    }

    /// Numbers and lists tell what it has, so that what is sent leaves no gap.
    pub(super) fn comparable(&self) -> bool {
        self.acknowledged
            && !self
                .behind
                .iter()
                .any(|author| self.chains.get(author).is_some_and(|chain| chain.awaiting))
    }

    /// Nothing is on its way or waiting to be sent.
    pub(super) fn all_accepted(&self) -> bool {
        self.acknowledged
            && self.behind.is_empty()
            && self.queue.is_empty()
            && self.unaccepted.is_empty()
    }
}

/// A live pack that the peer doesn't hold durably.
#[derive(Clone, Copy)]
pub(super) struct Lack {
    pub(super) size: PackSize,
    pub(super) told: Told,
}

/// What a peer told of a pack that it lacks.
#[derive(Clone, Copy, Default)]
pub(super) struct Told {
    /// It can serve it nevertheless.
    pub(super) servable: bool,
    /// It gave it up: nobody waits until it has it.
    pub(super) offloaded: bool,
    /// It said so itself; otherwise it is only taken to lack it, as it isn't known to have a commit that adds it.
    pub(super) listed: bool,
}

impl Told {
    /// It has just listed the pack.
    pub(super) const LISTED: Self = Self {
        servable: false,
        offloaded: false,
        listed: true,
    };
}

#[derive(Default)]
pub(super) struct PeerPacks {
    pub(super) lacking: HashMap<PackId, Lack>,
    /// Those of them that it wants, and their bytes.
    pub(super) awaited: usize,
    pub(super) awaited_bytes: u64,
    /// Listed as lacking, but not live here yet.
    pub(super) unknown_lacking: HashMap<PackId, Told>,
    /// It refused to serve these.
    pub(super) unavailable: HashSet<PackId>,
    pub(super) inventory_owed: VecDeque<PackId>,
    pub(super) holds_owed: Vec<PackId>,
    pub(super) received_owed: Vec<PackId>,
}

impl PeerPacks {
    pub(super) fn lack(&mut self, pack: PackId, size: PackSize, told: Told) {
        self.forget(&pack);
        if !told.offloaded {
            self.awaited += 1;
            self.awaited_bytes += size.bytes();
        }
        self.lacking.insert(pack, Lack { size, told });
    }

    /// It isn't known to have a commit that adds the pack; what it said of the pack itself stays.
    pub(super) fn take_to_lack(&mut self, pack: PackId, size: PackSize) {
        if !self.lacking.contains_key(&pack) {
            self.lack(pack, size, Told::default());
        }
    }

    /// It gave up a pack that it lacks.
    pub(super) fn offload(&mut self, pack: PackId) {
        if let Some(lack) = self.lacking.get(&pack).copied() {
            let told = Told {
                offloaded: true,
                ..lack.told
            };
            self.lack(pack, lack.size, told);
        } else if let Some(told) = self.unknown_lacking.get_mut(&pack) {
            told.offloaded = true;
        }
    }

    /// It holds the pack durably, or the pack is of no interest any more.
    pub(super) fn forget(&mut self, pack: &PackId) {
        if let Some(lack) = self.lacking.remove(pack)
            && !lack.told.offloaded
        {
            self.awaited -= 1;
            self.awaited_bytes -= lack.size.bytes();
        }
    }
}

/// Starting from a checkpoint, in both directions.
#[derive(Default)]
pub(super) struct PeerCheckpoints {
    /// Offered to it and not answered yet; no commits are sent meanwhile.
    pub(super) offered: Option<CommitId>,
    /// Offered to it and of no use there.
    pub(super) refused: HashSet<CommitId>,
    /// Whether it may start from a checkpoint was decided.
    pub(super) considered: bool,
    /// Parts that it wants of the offered one.
    pub(super) wanted: VecDeque<u64>,
    /// What it offers.
    pub(super) offer: Option<Offer>,
    /// Parts that it was asked for, in order: checkpoint, offset and length.
    pub(super) asked: VecDeque<(CommitId, u64, u64)>,
    /// The answer that it is owed.
    pub(super) answer: Option<(CommitId, bool)>,
}

/// A checkpoint that a peer offers.
pub(super) struct Offer {
    pub(super) commit: CommitId,
    pub(super) bytes: bytes::Bytes,
    /// Of its skeleton, in bytes.
    pub(super) length: u64,
    /// Given up for another peer's.
    pub(super) stalled: bool,
}

/// A waiting want of the peer.
#[derive(Clone, Copy)]
pub(super) struct WaitingWant {
    pub(super) pack: PackId,
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) hashes: bool,
}

#[derive(Default)]
pub(super) struct Serving {
    pub(super) wants: VecDeque<WaitingWant>,
    /// Bytes given to the host and not yet served.
    pub(super) bytes: u64,
    /// Packs refused during a pause.
    pub(super) refused: HashSet<PackId>,
}

/// A want that the peer has not fully answered.
pub(super) struct Request {
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) got: FrameSet,
    pub(super) at: Duration,
    pub(super) hashes: bool,
}

impl Request {
    pub(super) fn range(&self) -> std::ops::Range<u32> {
        self.first..self.first + self.count
    }

    pub(super) fn open_frames(&self) -> impl Iterator<Item = u32> + '_ {
        self.range().filter(|index| !self.got.contains(*index))
    }
}

pub(super) struct Requests {
    pub(super) open: HashMap<PackId, Vec<Request>>,
    /// Hash lists it was asked for.
    pub(super) hashes_due: HashMap<PackId, u32>,
    /// Bytes wanted and not received.
    pub(super) outstanding: u64,
    pub(super) window: u64,
    /// It made no progress for long; its ranges were given to others.
    pub(super) stalled: bool,
    pub(super) progress: Duration,
    pub(super) measured: Duration,
    pub(super) measured_bytes: u64,
    /// Where the next search for a range begins.
    pub(super) cursor: Option<super::fetch::Key>,
}

impl Requests {
    fn new(window: u64, now: Duration) -> Self {
        Self {
            open: HashMap::new(),
            hashes_due: HashMap::new(),
            outstanding: 0,
            window,
            stalled: false,
            progress: now,
            measured: now,
            measured_bytes: 0,
            cursor: None,
        }
    }
}
