//! Commits, chains and heads.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use ouisync_crypto::commit::{Commit, Dot, LiveDigest, PackAdd};
use ouisync_model::id::{CommitId, Lamport, MemberId, Sequence};

use crate::{
    catalogue::{
        CheckpointRecord, CommitMeta, Disposition, Draft, key, meta_of, scan_prefix, scan_range,
        unreadable,
    },
    checkpoint::CheckpointCheck,
    error::StoreError,
    live,
    store::Store,
};

/// The end of an author's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainHead {
    /// The author.
    pub author: MemberId,
    /// Number of the last commit.
    pub sequence: Sequence,
    /// The last commit.
    pub head: CommitId,
}

/// An accepted commit and when it was accepted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrived {
    /// Position in the order of acceptance, from 1.
    pub arrival: u64,
    /// The commit.
    pub commit: CommitId,
}

impl Store {
    /// Stores commits in the given order, parents before children, all or none; those already here are passed over.
    /// Returns the new ones.
    ///
    /// The live set, chain and heads change in the same step. With `durable` (a device's own commits, before they are
    /// announced) packs that the commits add are made durable first, and the commits are durable on return; without it
    /// (commits of others) the next [`Self::sync_packs`] makes them so.
    pub fn put_commits(
        &self,
        commits: &[Commit],
        disposition: Disposition,
        durable: bool,
    ) -> Result<Vec<CommitId>, StoreError> {
        if durable {
            let pending = {
                let state = self.state();
                commits
                    .iter()
                    .flat_map(|commit| &commit.header().added)
                    .any(|add| state.pending.contains(&add.pack))
            };
            if pending {
                self.sync_packs()?;
            }
        }
        let now = self.now();
        self.change(durable, |draft, _| {
            draft.summary.clock.observe(now);
            let mut new = Vec::new();
            for commit in commits {
                if put_commit(draft, commit, disposition)? {
                    new.push(commit.id());
                }
            }
            Ok(new)
        })
    }

    /// Changes what commits count for (when a removal, or its undoing, arrives later) and recomputes heads and live set.
    /// Commits that already have the disposition are passed over. Returns those changed.
    ///
    /// Newly accepted commits get new arrival numbers; quarantining counts as a withdrawal (see [`Self::withdrawals`]).
    pub fn set_disposition(
        &self,
        commits: &[CommitId],
        disposition: Disposition,
    ) -> Result<Vec<CommitId>, StoreError> {
        let now = self.now();
        self.change(true, |draft, _| {
            draft.summary.clock.observe(now);
            let mut changed = Vec::new();
            for id in commits {
                let meta = draft.meta(*id)?.ok_or(StoreError::UnknownCommit(*id))?;
                // A commit without bytes is settled for good.
                if meta.disposition != disposition && meta.absent.is_none() {
                    change_disposition(draft, *id, meta, disposition)?;
                    changed.push(*id);
                }
            }
            if !changed.is_empty() {
                recompute_heads(self, draft)?;
            }
            Ok(changed)
        })
    }

    /// Whether the commit is here, whatever it counts for and whether or not its bytes are.
    pub fn contains(&self, commit: CommitId) -> Result<bool, StoreError> {
        Ok(self.records().get(&key::meta(commit))?.is_some())
    }

    /// A commit's bytes; none either when a checkpoint stands in for them.
    pub fn commit_bytes(&self, commit: CommitId) -> Result<Option<Vec<u8>>, StoreError> {
        self.records().get(&key::commit(commit))
    }

    /// A commit, decoded; its signature was checked before it was stored.
    pub fn commit(&self, commit: CommitId) -> Result<Option<Commit>, StoreError> {
        self.commit_bytes(commit)?
            .map(|bytes| decode_commit(commit, bytes))
            .transpose()
    }

    /// What is known of a commit beside its bytes.
    pub fn commit_meta(&self, commit: CommitId) -> Result<Option<CommitMeta>, StoreError> {
        meta_of(self.records(), commit)
    }

    /// A commit's logical time.
    pub fn lamport(&self, commit: CommitId) -> Result<Option<Lamport>, StoreError> {
        Ok(self.commit_meta(commit)?.map(|meta| meta.lamport))
    }

    /// The ends of all authors' chains, quarantined commits included, ascending; several of one author when it forked.
    pub fn chains(&self) -> Vec<ChainHead> {
        let state = self.state();
        let heads = state.chains.iter().flat_map(|(author, heads)| {
            heads.iter().map(|(head, sequence)| ChainHead {
                author: *author,
                sequence: *sequence,
                head: *head,
            })
        });
        heads.collect()
    }

    /// The ends of one author's chain; several when it forked.
    pub fn chain(&self, author: MemberId) -> Vec<ChainHead> {
        let state = self.state();
        let heads = state.chains.get(&author).into_iter().flatten();
        heads
            .map(|(head, sequence)| ChainHead {
                author,
                sequence: *sequence,
                head: *head,
            })
            .collect()
    }

    /// An author's commits from number `from` on, at most `limit`, ascending; a fork has several of one number.
    pub fn commits_of(
        &self,
        author: MemberId,
        from: Sequence,
        limit: usize,
    ) -> Result<Vec<(Sequence, CommitId)>, StoreError> {
        let (start, end) = (
            key::chain_from(author, from),
            key::end_of(&key::chain_of(author)),
        );
        let mut found = Vec::new();
        scan_range(self.records(), &start, &end, |key, _| {
            if found.len() == limit {
                return Ok(ControlFlow::Break(()));
            }
            let sequence = key::number(key, 33).ok_or_else(|| unreadable(key::CHAIN))?;
            found.push((Sequence(sequence), commit_in(key, 41, key::CHAIN)?));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// Accepted commits without accepted children, ascending: the parents of the next commit.
    pub fn heads(&self) -> Vec<CommitId> {
        self.state().heads.iter().copied().collect()
    }

    /// Commits after `position` in causal order (Lamport time, then id), at most `limit`, whatever they count for.
    /// A commit that arrives later may belong before a position already passed: to follow what arrives use [`Self::arrivals`].
    pub fn commits_in_order(
        &self,
        position: Option<(Lamport, CommitId)>,
        limit: usize,
    ) -> Result<Vec<(Lamport, CommitId)>, StoreError> {
        let mut start = position.map_or(vec![key::ORDER], |(lamport, commit)| {
            key::order(lamport, commit)
        });
        if position.is_some() {
            // The least key above it.
            start.push(0);
        }
        let mut found = Vec::new();
        scan_range(self.records(), &start, &[key::ORDER + 1], |key, _| {
            if found.len() == limit {
                return Ok(ControlFlow::Break(()));
            }
            let lamport = key::number(key, 1).ok_or_else(|| unreadable(key::ORDER))?;
            found.push((Lamport(lamport), commit_in(key, 9, key::ORDER)?));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// Accepted commits whose bytes are here, in the order of acceptance here, which is causal among commits accepted at first sight, from
    /// position `from` on (0 or 1 for all), at most `limit`. An index replays these; its next position is the last + 1.
    pub fn arrivals(&self, from: u64, limit: usize) -> Result<Vec<Arrived>, StoreError> {
        let mut found = Vec::new();
        scan_range(
            self.records(),
            &key::arrival(from),
            &[key::ARRIVAL + 1],
            |key, value| {
                if found.len() == limit {
                    return Ok(ControlFlow::Break(()));
                }
                let arrival = key::number(key, 1).ok_or_else(|| unreadable(key::ARRIVAL))?;
                found.push(Arrived {
                    arrival,
                    commit: commit_in(value, 0, key::ARRIVAL)?,
                });
                Ok(ControlFlow::Continue(()))
            },
        )?;
        Ok(found)
    }

    /// The position that the next accepted commit will get.
    pub fn next_arrival(&self) -> u64 {
        self.state().summary.next_arrival
    }

    /// How often an accepted commit was quarantined, or the store started from a checkpoint. An index built at another number is of
    /// no use: rebuild it.
    pub fn withdrawals(&self) -> u64 {
        self.state().summary.withdrawals
    }

    /// The greatest position of a commit whose bytes were dropped. An index whose next position is not above it may lack such
    /// commits, and must be made anew from a checkpoint.
    pub fn dropped_through(&self) -> u64 {
        self.state().summary.dropped_through
    }

    /// Quarantined commits, ascending.
    pub fn quarantined(&self) -> Result<Vec<CommitId>, StoreError> {
        let mut found = Vec::new();
        scan_prefix(self.records(), &[key::QUARANTINE], |key, _| {
            found.push(commit_in(key, 1, key::QUARANTINE)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// The live set as it would be after a commit that adds and releases these: for the header of a new commit.
    pub fn live_after(
        &self,
        added: &[PackAdd],
        released: &[Dot],
    ) -> Result<LiveDigest, StoreError> {
        let state = self.state();
        let mut draft = self.draft(&state)?;
        // No commit has this id: the new one's isn't known yet.
        let unborn = CommitId::from_bytes([0; 32]);
        let effects = live::Effects {
            added,
            released,
            forgotten: &[],
        };
        live::accept(&mut draft, unborn, effects)?;
        Ok(draft.summary.live)
    }
}

pub(crate) fn decode_commit(commit: CommitId, bytes: Vec<u8>) -> Result<Commit, StoreError> {
    let unreadable = StoreError::CommitUnreadable { commit };
    match Commit::decode(bytes) {
        Ok(decoded) if decoded.id() == commit => Ok(decoded),
        _ => Err(unreadable),
    }
}

fn commit_in(bytes: &[u8], offset: usize, kind: u8) -> Result<CommitId, StoreError> {
    key::part(bytes, offset)
        .map(CommitId::from_bytes)
        .ok_or_else(|| unreadable(kind))
}

/// Whether the commit is new.
pub(crate) fn put_commit(
    draft: &mut Draft<'_>,
    commit: &Commit,
    disposition: Disposition,
) -> Result<bool, StoreError> {
    let (id, header) = (commit.id(), commit.header());
    if draft.get(&key::meta(id))?.is_some() {
        return Ok(false);
    }
    for parent in &header.parents {
        if draft.get(&key::meta(*parent))?.is_none() {
            return Err(StoreError::ParentMissing {
                commit: id,
                parent: *parent,
            });
        }
    }
    let follows = previous_of_author(draft, id, header.author, header.sequence, &header.parents)?;
    let mut meta = CommitMeta {
        author: header.author,
        sequence: header.sequence,
        lamport: header.lamport,
        parents: header.parents.clone(),
        disposition,
        arrival: 0,
        follows,
        absent: None,
    };
    if let Some(digest) = header.checkpoint {
        let record = CheckpointRecord {
            digest: Some(digest),
            check: CheckpointCheck::Unchecked,
            since: draft.summary.clock.age,
            quarantined: Vec::new(),
            covers: Vec::new(),
            dropped: false,
        };
        draft.set_checkpoint(id, &record);
    }
    draft.put(key::commit(id), commit.as_bytes().to_vec());
    draft.put(key::order(meta.lamport, id), Vec::new());
    draft.put(key::chain(meta.author, meta.sequence, id), Vec::new());
    draft.put(
        key::chain_head(meta.author, id),
        meta.sequence.0.to_be_bytes().to_vec(),
    );
    let heads = draft.chains.entry(meta.author).or_default();
    heads.insert(id, meta.sequence);
    if let Some(follows) = follows
        && heads.remove(&follows).is_some()
    {
        draft.remove(key::chain_head(meta.author, follows));
    }
    match disposition {
        Disposition::Accepted => {
            accept(draft, id, &mut meta);
            for parent in &header.parents {
                draft.remove_head(*parent);
            }
            draft.add_head(id);
            live::accept(draft, id, header.into())?;
        }
        Disposition::Quarantined => draft.put(key::quarantine(id), Vec::new()),
    }
    draft.set_meta(id, &meta);
    Ok(true)
}

fn accept(draft: &mut Draft<'_>, id: CommitId, meta: &mut CommitMeta) {
    meta.disposition = Disposition::Accepted;
    meta.arrival = draft.summary.next_arrival;
    draft.summary.next_arrival += 1;
    draft.put(key::arrival(meta.arrival), id.as_bytes().to_vec());
}

/// The commit that the author made just before; with a fork there, the one among the ancestors.
pub(crate) fn previous_of_author(
    draft: &Draft<'_>,
    commit: CommitId,
    author: MemberId,
    sequence: Sequence,
    parents: &[CommitId],
) -> Result<Option<CommitId>, StoreError> {
    if sequence.0 <= 1 {
        return Ok(None);
    }
    let gap = StoreError::ChainGap {
        commit,
        author,
        sequence,
    };
    let previous = Sequence(sequence.0 - 1);
    let candidates = draft.keys(&key::chain_from(author, previous))?;
    let candidates: BTreeSet<CommitId> = candidates
        .iter()
        .map(|key| commit_in(key, 41, key::CHAIN))
        .collect::<Result<_, _>>()?;
    if candidates.len() < 2 {
        return candidates.first().copied().map(Some).ok_or(gap);
    }
    // Walks down the ancestors; nothing earlier than the earliest candidate matters.
    let mut earliest = u64::MAX;
    for candidate in &candidates {
        if let Some(meta) = draft.meta(*candidate)? {
            earliest = earliest.min(meta.lamport.0);
        }
    }
    let mut waiting = parents.to_vec();
    let mut seen: BTreeSet<CommitId> = waiting.iter().copied().collect();
    while let Some(ancestor) = waiting.pop() {
        if candidates.contains(&ancestor) {
            return Ok(Some(ancestor));
        }
        if let Some(meta) = draft.meta(ancestor)?
            && meta.lamport.0 > earliest
        {
            waiting.extend(meta.parents.iter().filter(|parent| seen.insert(**parent)));
        }
    }
    Err(gap)
}

pub(crate) fn change_disposition(
    draft: &mut Draft<'_>,
    id: CommitId,
    mut meta: CommitMeta,
    disposition: Disposition,
) -> Result<(), StoreError> {
    let bytes = draft
        .get(&key::commit(id))?
        .ok_or(StoreError::UnknownCommit(id))?;
    let commit = decode_commit(id, bytes)?;
    let header = commit.header();
    match disposition {
        Disposition::Accepted => {
            draft.remove(key::quarantine(id));
            accept(draft, id, &mut meta);
            draft.set_meta(id, &meta);
            live::accept(draft, id, header.into())
        }
        Disposition::Quarantined => {
            draft.put(key::quarantine(id), Vec::new());
            draft.remove(key::arrival(meta.arrival));
            (meta.disposition, meta.arrival) = (Disposition::Quarantined, 0);
            draft.summary.withdrawals += 1;
            draft.set_meta(id, &meta);
            live::withdraw(draft, id, header.into())
        }
    }
}

/// Finds the heads anew from all commits: for the rare change of a disposition.
pub(crate) fn recompute_heads(store: &Store, draft: &mut Draft<'_>) -> Result<(), StoreError> {
    let mut all = Vec::new();
    scan_prefix(store.records(), &[key::META], |key, _| {
        all.push(commit_in(key, 1, key::META)?);
        Ok(ControlFlow::Continue(()))
    })?;
    let mut accepted = BTreeMap::new();
    for id in all {
        if let Some(meta) = draft.meta(id)?
            && meta.disposition == Disposition::Accepted
        {
            accepted.insert(id, meta.parents);
        }
    }
    let parents: BTreeSet<&CommitId> = accepted.values().flatten().collect();
    for old in draft.heads.clone() {
        if parents.contains(&old) || !accepted.contains_key(&old) {
            draft.remove_head(old);
        }
    }
    for id in accepted.keys().filter(|id| !parents.contains(id)) {
        draft.add_head(*id);
    }
    Ok(())
}
