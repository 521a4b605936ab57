//! Exchange of commits: what each peer has, by sequence numbers of unforked authors and by single ids of forked ones;
//! sending in causal order; receiving through the host.

use std::collections::{HashMap, HashSet, VecDeque};

use ouisync_model::id::{CommitId, MemberId, PackId, Sequence};

use super::{
    DropReason, FolderSync, Output, PeerKey,
    peer::{Batch, Peer, PeerCommits},
};
use crate::{
    codec::{BATCH_BYTES, Blob, Chain, FolderMessage, MAX_CHAINS, MAX_COMMITS, MAX_IDS},
    facts::{CommitFacts, FolderFacts, PackState},
};

/// Commits of one author that are queued at a time.
const LOAD: usize = 64;
/// Bytes of commits of one peer that may wait for the host; senders keep to a quarter of it.
const MAX_PENDING_BYTES: usize = 64 << 20;
/// Heads that one peer may announce and never deliver.
const MAX_CLAIMED: usize = 2 * MAX_CHAINS;

/// Own commits of one author.
#[derive(Default)]
pub(super) struct OwnChain {
    pub(super) last: Sequence,
    pub(super) forked: bool,
}

impl<F: FolderFacts> FolderSync<F> {
    pub(super) fn load_chains(facts: &F) -> HashMap<MemberId, OwnChain> {
        let mut chains: HashMap<MemberId, OwnChain> = HashMap::new();
        for Chain {
            author, sequence, ..
        } in facts.chains()
        {
            let chain = chains.entry(author).or_default();
            chain.last = chain.last.max(sequence);
            chain.forked = facts.is_forked(&author);
        }
        chains
    }

    /// Owes our first inventory and Heads once the peer may have them and we know its roster.
    pub(super) fn open_exchange(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        if state.commits.ready || !state.allowed() {
            return;
        }
        state.commits.ready = true;
        state.commits.opening = true;
        for (author, chain) in &self.chains {
            if chain.forked {
                state.commits.owe_list(*author);
            }
        }
        let early = std::mem::take(&mut state.commits.early_heads)
            .then(|| std::mem::take(&mut state.commits.early));
        self.owe_inventory(peer);
        if let Some(chains) = early {
            self.on_heads(peer, chains);
        }
    }

    pub(super) fn on_heads(&mut self, peer: PeerKey, chains: Vec<Chain>) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        if !state.commits.ready {
            state.commits.early_heads = true;
            state.commits.early.extend(chains);
            if state.commits.early.len() > MAX_CLAIMED {
                self.drop_peer(peer, DropReason::Flood);
            }
            return;
        }
        let first = !std::mem::replace(&mut state.commits.heard, true);
        for Chain {
            author,
            sequence,
            head,
        } in chains
        {
            let own = self.chains.get(&author);
            let last = own.map_or(Sequence(0), |own| own.last);
            let before = state.commits.chains.entry(author).or_default().upto;
            let known = self
                .facts
                .commit(&head)
                .filter(|commit| commit.author == author);
            if known.is_none() {
                state.commits.claimed.insert(head);
            }
            let chain = state.commits.chains.entry(author).or_default();
            match (&known, &mut chain.exact) {
                (Some(_), Some(exact)) => {
                    exact.insert(head);
                }
                (None, Some(_)) => {}
                // Another commit of ours has this number, or some number has two: only lists tell.
                (known, None)
                    if own.is_some_and(|own| own.forked)
                        || (known.is_none() && sequence <= last) =>
                {
                    let known = known.iter().map(|commit| commit.id).collect();
                    chain.awaiting = true;
                    state.commits.set_exact(author, known);
                    state.commits.owe_list(author);
                }
                _ => {
                    state.commits.advance(author, sequence);
                    if !first && before < sequence && before < last {
                        Self::owe_skipped(&self.facts, state, author, before, sequence);
                    }
                }
            }
        }
        if state.commits.claimed.len() > MAX_CLAIMED {
            return self.drop_peer(peer, DropReason::Flood);
        }
        if first {
            state.commits.acknowledge = true;
            state.commits.behind.extend(self.chains.keys());
            self.refresh_all();
        }
        self.dirty = true;
    }

    /// The peer has these commits from others and doesn't know which of their packs we lack.
    fn owe_skipped(facts: &F, state: &mut Peer, author: MemberId, after: Sequence, upto: Sequence) {
        let mut after = after;
        loop {
            let commits = facts.commits_of(&author, after, LOAD);
            let Some(last) = commits.last() else { return };
            after = last.sequence;
            for commit in &commits {
                if commit.sequence > upto {
                    return;
                }
                for (pack, _) in &commit.added {
                    Self::owe_lack(facts, state, *pack);
                }
            }
        }
    }

    /// Tells whether we lack the pack of a commit that the peer has, too, but not from us: it takes us to lack it.
    fn owe_lack(facts: &F, state: &mut Peer, pack: PackId) {
        match facts.pack(&pack) {
            // Here before the commit was: the pack was live once and is again.
            Some(pack_facts) if pack_facts.live && pack_facts.state == PackState::Durable => {
                state.packs.received_owed.push(pack);
            }
            Some(pack_facts) if pack_facts.live && pack_facts.state != PackState::Durable => {
                state.packs.inventory_owed.push_back(pack);
                if pack_facts.state == PackState::Stored {
                    state.packs.holds_owed.push(pack);
                }
            }
            _ => {}
        }
    }

    pub(super) fn on_author_commits(
        &mut self,
        peer: PeerKey,
        author: MemberId,
        commits: &[CommitId],
        more: bool,
    ) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        if !state.commits.ready {
            return self.drop_peer(peer, DropReason::NoRight);
        }
        if state
            .commits
            .listing
            .as_ref()
            .is_none_or(|(of, _)| *of != author)
        {
            state.commits.listing = Some((author, HashSet::new()));
        }
        if let Some((_, known)) = &mut state.commits.listing {
            // Ids that we don't have are of no use, so hostile lists take no room.
            known.extend(commits.iter().filter(|commit| {
                self.facts
                    .commit(commit)
                    .is_some_and(|commit| commit.author == author)
            }));
        }
        if !more && let Some((author, known)) = state.commits.listing.take() {
            state.commits.set_exact(author, known);
            state.commits.chains.entry(author).or_default().awaiting = false;
            state.commits.owe_list(author);
        }
    }

    pub(super) fn on_commits(&mut self, peer: PeerKey, commits: Vec<Blob>, lacking: Vec<PackId>) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        if !state.commits.ready {
            return self.drop_peer(peer, DropReason::NoRight);
        }
        self.on_inventory(peer, lacking);
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let mut batch = Batch {
            commits: Vec::with_capacity(commits.len()),
            parsed: Vec::new(),
            bytes: 0,
            asked: false,
        };
        let mut unknown = Vec::new();
        for Blob(bytes) in commits {
            let id = CommitId::from_bytes(*blake3::hash(&bytes).as_bytes());
            batch.commits.push(id);
            if self.facts.commit(&id).is_none() {
                batch.bytes += bytes.len();
                unknown.push(bytes);
            } else if self.facts.commit_bytes(&id).is_none() {
                batch.parsed.extend(self.facts.parse_commit(&bytes));
            }
        }
        batch.asked = !unknown.is_empty();
        state.commits.batch_bytes += batch.bytes;
        if state.commits.batch_bytes > MAX_PENDING_BYTES {
            return self.drop_peer(peer, DropReason::Flood);
        }
        state.commits.batches.push_back(batch);
        if unknown.is_empty() {
            self.finish_batches(peer, false);
        } else {
            self.outputs.push_back(Output::AddCommits {
                peer,
                commits: unknown,
            });
        }
    }

    pub(super) fn on_accepted(&mut self, peer: PeerKey, count: u32) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        state.commits.acknowledged = true;
        for _ in 0..count {
            let Some((.., bytes)) = state.commits.unaccepted.pop_front() else {
                return self.drop_peer(peer, DropReason::WrongAccepted);
            };
            state.commits.unaccepted_bytes -= bytes;
        }
        self.dirty = true;
    }

    /// Own commits are durable.
    pub fn commits_added(&mut self, commits: &[CommitFacts]) {
        for commit in commits {
            self.integrate(commit, None);
        }
        self.dirty = true;
    }

    /// The oldest unanswered [`Output::AddCommits`] of the peer is checked and durable. `commits`: those of it that were
    /// new. Call it also after the peer has gone.
    pub fn commits_accepted(&mut self, peer: PeerKey, commits: &[CommitFacts]) {
        for commit in commits {
            self.integrate(commit, Some(peer));
        }
        self.finish_batches(peer, true);
        self.dirty = true;
    }

    /// The oldest unanswered [`Output::AddCommits`] of the peer holds an invalid commit: the peer is dropped.
    /// `accepted`: valid ones before it, durable.
    pub fn commits_refused(&mut self, peer: PeerKey, accepted: &[CommitFacts], reason: String) {
        for commit in accepted {
            self.integrate(commit, Some(peer));
        }
        self.drop_peer(peer, DropReason::RefusedCommit(reason));
        self.dirty = true;
    }

    /// Takes the batches that are done from the front: the host's answer and those that needed none.
    fn finish_batches(&mut self, peer: PeerKey, mut answered: bool) {
        while let Some(state) = self.peers.get_mut(&peer)
            && let Some(batch) = state.commits.batches.front()
            && (!batch.asked || std::mem::take(&mut answered))
            && let Some(batch) = state.commits.batches.pop_front()
        {
            state.commits.batch_bytes -= batch.bytes;
            state.commits.accepted_owed += u32::try_from(batch.commits.len()).unwrap_or(u32::MAX);
            let mut touched = Vec::new();
            for id in &batch.commits {
                let Some(commit) = self.facts.commit(id) else {
                    continue;
                };
                state.commits.mark(&commit);
                state.commits.claimed.remove(id);
                let parsed = batch.parsed.iter().find(|parsed| parsed.id == *id);
                for (pack, _) in &parsed.unwrap_or(&commit).added {
                    let Some(facts) = self.facts.pack(pack) else {
                        continue;
                    };
                    // Whoever announces a commit holds what it adds, unless it says otherwise.
                    let lack = state.packs.lacking.get(pack);
                    let untold = lack.is_some_and(|lack| !lack.told.listed);
                    if untold && self.facts.adds_of(pack).contains(id) {
                        state.packs.forget(pack);
                    }
                    // It takes us to lack what it announces.
                    match facts.state {
                        PackState::Durable => state.packs.received_owed.push(*pack),
                        PackState::Stored => state.packs.holds_owed.push(*pack),
                        PackState::Missing if facts.offloaded => {
                            state.packs.inventory_owed.push_back(*pack);
                        }
                        PackState::Missing => touched.push(*pack),
                    }
                    if facts.live
                        && let Some(told) = state.packs.unknown_lacking.remove(pack)
                    {
                        state.packs.lack(*pack, facts.size, told);
                    }
                }
            }
            for pack in touched {
                self.refresh(&pack);
            }
        }
    }

    /// A new commit is here, from `source` or from this device.
    fn integrate(&mut self, commit: &CommitFacts, source: Option<PeerKey>) {
        let own = self.chains.entry(commit.author).or_default();
        let forks = commit.sequence <= own.last && !own.forked;
        own.last = own.last.max(commit.sequence);
        if forks {
            own.forked = true;
            self.fork(commit);
        }
        let mut live = Vec::with_capacity(commit.added.len());
        for (pack, size) in &commit.added {
            let Some(facts) = self.facts.pack(pack).filter(|facts| facts.live) else {
                continue;
            };
            live.push((*pack, *size));
            if facts.state == PackState::Missing && !facts.offloaded {
                self.fetches.insert(*pack, *size, commit.lamport);
            }
        }
        for (key, state) in &mut self.peers {
            state.commits.claimed.remove(&commit.id);
            if !state.commits.ready || Some(*key) == source {
                continue;
            }
            let has = state.commits.has(commit);
            for (pack, size) in &live {
                match state.packs.unknown_lacking.remove(pack) {
                    Some(told) => state.packs.lack(*pack, *size, told),
                    None if !has && state.commits.heard => {
                        state.packs.take_to_lack(*pack, *size);
                    }
                    None => {}
                }
            }
            if has {
                // It announced the commit and would send it in vain; and it doesn't know which packs we lack.
                state.commits.heads_owed.insert(commit.author);
                for (pack, _) in &live {
                    Self::owe_lack(&self.facts, state, *pack);
                }
            } else if state.commits.heard {
                match state.commits.chains.get(&commit.author) {
                    Some(chain) if chain.exact.is_some() => state.commits.enqueue(commit),
                    _ => {
                        state.commits.behind.insert(commit.author);
                    }
                }
            }
        }
        for (pack, _) in &live {
            self.refresh(pack);
        }
    }

    /// The first second commit with one number: from now on sequence numbers don't tell who has what.
    fn fork(&mut self, commit: &CommitFacts) {
        let all = self
            .facts
            .commits_of(&commit.author, Sequence(0), usize::MAX);
        for state in self.peers.values_mut().filter(|state| state.commits.ready) {
            let chain = state.commits.chains.entry(commit.author).or_default();
            if chain.exact.is_none() {
                let upto = chain.upto;
                let known = all
                    .iter()
                    .filter(|other| other.sequence <= upto && other.id != commit.id);
                let known = known.map(|other| other.id).collect();
                state.commits.set_exact(commit.author, known);
            }
            state.commits.owe_list(commit.author);
        }
    }

    /// Sends Heads that are owed, after the inventory that goes with them.
    pub(super) fn flush_heads(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        if !state.commits.ready || !state.packs.inventory_owed.is_empty() {
            return;
        }
        if state.commits.opening {
            state.commits.opening = false;
            state.commits.heads_owed.clear();
            let mut chains = self.facts.chains();
            chains.truncate(MAX_CHAINS);
            self.dirty = true;
            self.send(peer, FolderMessage::Heads { chains });
        } else if !state.commits.heads_owed.is_empty() {
            let owed = std::mem::take(&mut state.commits.heads_owed);
            let mut chains = self.facts.chains();
            chains.retain(|chain| owed.contains(&chain.author));
            chains.truncate(MAX_CHAINS);
            self.send(peer, FolderMessage::Heads { chains });
        }
        self.flush_lists(peer);
    }

    /// Not before its Heads came: until then it may still lack our roster, and takes no list.
    fn flush_lists(&mut self, peer: PeerKey) {
        while let Some(state) = self.peers.get_mut(&peer)
            && state.commits.heard
            && state.unsent <= self.limits.unsent
            && let Some(author) = state.commits.lists_owed.pop_first()
        {
            let mut ids: VecDeque<_> = self
                .facts
                .commits_of(&author, Sequence(0), usize::MAX)
                .iter()
                .map(|commit| commit.id)
                .collect();
            loop {
                let commits: Vec<_> = ids.drain(..ids.len().min(MAX_IDS)).collect();
                let more = !ids.is_empty();
                self.send(
                    peer,
                    FolderMessage::AuthorCommits {
                        author,
                        commits,
                        more,
                    },
                );
                if !more {
                    break;
                }
            }
        }
    }

    pub(super) fn flush_commits(&mut self, peer: PeerKey) {
        while let Some(state) = self.peers.get_mut(&peer)
            && state.exchanged()
            && state.commits.comparable()
            && state.allowed()
            && state.checkpoints.offered.is_none()
            && state.unsent <= self.limits.unsent
            && state.commits.unaccepted_bytes < self.limits.unaccepted
        {
            if !std::mem::replace(&mut state.checkpoints.considered, true)
                && state.commits.has_nothing()
                && self.offer_checkpoint(peer, self.limits.replay)
            {
                return;
            }
            let Some(state) = self.peers.get_mut(&peer) else {
                return;
            };
            let mut cut = false;
            let (mut commits, mut lacking, mut size) = (Vec::new(), HashSet::new(), 0);
            while size < BATCH_BYTES && commits.len() < MAX_COMMITS {
                Self::refill(&self.facts, &self.chains, &mut state.commits);
                let Some((key, _)) = state.commits.queue.first_key_value() else {
                    break;
                };
                let key = *key;
                let Some(commit) = self.facts.commit(&key.1) else {
                    state.commits.unqueue(&key);
                    continue;
                };
                let Some(bytes) = self.facts.commit_bytes(&key.1) else {
                    cut = true;
                    break;
                };
                if !commits.is_empty()
                    && (size + bytes.len() > BATCH_BYTES
                        || lacking.len() + commit.added.len() > MAX_IDS)
                {
                    break;
                }
                state.commits.unqueue(&key);
                state.commits.mark(&commit);
                for (pack, pack_size) in &commit.added {
                    let Some(facts) = self.facts.pack(pack).filter(|facts| facts.live) else {
                        continue;
                    };
                    state.packs.take_to_lack(*pack, *pack_size);
                    if facts.state != PackState::Durable && lacking.len() < MAX_IDS {
                        lacking.insert(*pack);
                    }
                    if facts.state == PackState::Stored {
                        state.packs.holds_owed.push(*pack);
                    }
                }
                size += bytes.len();
                state
                    .commits
                    .unaccepted
                    .push_back((commit.id, commit.author, bytes.len()));
                state.commits.unaccepted_bytes += bytes.len();
                commits.push(Blob(bytes));
            }
            if commits.is_empty() {
                if cut {
                    // Of no use there: then others have to bring the peer what it lacks.
                    self.offer_checkpoint(peer, 0);
                }
                return;
            }
            let mut lacking: Vec<_> = lacking.into_iter().collect();
            lacking.sort_unstable();
            self.dirty = true;
            let offloaded = self.offloaded_of(&lacking);
            self.send(peer, FolderMessage::Commits { commits, lacking });
            self.send_offloaded(peer, offloaded);
        }
    }

    /// Every author the peer is behind in has its earliest unsent commit in the queue, so the queue's first is next in
    /// causal order.
    fn refill(facts: &F, own: &HashMap<MemberId, OwnChain>, state: &mut PeerCommits) {
        let authors: Vec<_> = state
            .behind
            .iter()
            .filter(|author| state.queued.get(author).is_none_or(|count| *count == 0))
            .copied()
            .collect();
        for author in authors {
            let chain = state.chains.entry(author).or_default();
            if chain.awaiting {
                continue;
            }
            let commits = match &chain.exact {
                Some(exact) => {
                    let mut commits = facts.commits_of(&author, Sequence(0), usize::MAX);
                    commits.retain(|commit| !exact.contains(&commit.id));
                    state.behind.remove(&author);
                    commits
                }
                None => {
                    let last = own.get(&author).map_or(Sequence(0), |own| own.last);
                    let commits = if chain.loaded < last {
                        facts.commits_of(&author, chain.loaded, LOAD)
                    } else {
                        Vec::new()
                    };
                    match commits.last() {
                        Some(commit) => chain.loaded = commit.sequence,
                        None => {
                            state.behind.remove(&author);
                        }
                    }
                    commits
                }
            };
            commits.iter().for_each(|commit| state.enqueue(commit));
        }
    }

    pub(super) fn flush_accepted(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let owed = state.commits.accepted_owed > 0
            || state.commits.acknowledge
                && state.exchanged_opening()
                && state.commits.lists_owed.is_empty();
        if owed {
            state.commits.acknowledge = false;
            let commits = std::mem::take(&mut state.commits.accepted_owed);
            self.send(peer, FolderMessage::Accepted { commits });
        }
    }
}
