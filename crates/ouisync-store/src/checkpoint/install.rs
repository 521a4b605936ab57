//! Starting from a checkpoint of a peer, and undoing what a crash left of that.
//!
//! Order: a mark in the summary, durable; then what is known of the commits that are not here, in steps, where nothing else refers to
//! them yet; then one durable batch with chains, heads, live set and the checkpoint's commit, which takes the mark away. While the
//! mark is there the commits of the unfinished installation don't count, and an opening removes them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::ControlFlow,
};

use ouisync_crypto::commit::{Commit, Dot};
use ouisync_model::id::{CommitId, MemberId, PackId, Sequence};

use super::{
    CheckpointCheck, CheckpointError, Installed, SkeletonSpool, Writers,
    codec::{DotEntry, Entry, Reader, ReleaseEntry},
    cover::{Cover, counts},
    spool::Spool,
};
use crate::{
    catalogue::{
        Absence, CheckpointRecord, CommitMeta, Disposition, Draft, decode, encode, key, meta_of,
        scan_prefix, unreadable,
    },
    error::StoreError,
    live,
    store::{
        Store,
        commits::{change_disposition, previous_of_author, put_commit, recompute_heads},
    },
};

/// Commits made known in one step.
const STEP: usize = 512;

/// What a skeleton says, beside its commits.
struct Told {
    cover: Cover,
    /// Those not here.
    new: HashSet<CommitId>,
    dots: Vec<DotEntry>,
    releases: Vec<ReleaseEntry>,
}

impl Store {
    /// Starts from a checkpoint that a peer sent: what its skeleton says of commits that are not here becomes known, without their
    /// bytes, the live set follows, and the checkpoint's commit is put as accepted. Durable on return, all or nothing.
    ///
    /// The commit's signature and its author's right must be checked before; `roster` is the state at the checkpoint's own heads of
    /// the roster. Commits that are here stay, and what the checkpoint doesn't cover counts on top of it. An index must be made anew
    /// (see [`Store::withdrawals`]). Commits must not be put meanwhile.
    pub fn install_checkpoint(
        &self,
        commit: &Commit,
        skeleton: SkeletonSpool,
        roster: &dyn Writers,
    ) -> Result<Installed, CheckpointError> {
        let mut spool = skeleton.0;
        spool.flush()?;
        let id = commit.id();
        if let Some(meta) = meta_of(self.records(), id)? {
            return match meta.absent {
                None => Ok(Installed::default()),
                Some(_) => Err(CheckpointError::NotBeyond(self.base().unwrap_or(id))),
            };
        }
        let told = self.read_skeleton(commit, &spool)?;
        let now = self.now();
        self.change(true, |draft, _| {
            draft.summary.clock.observe(now);
            draft.summary.installing = true;
            Ok(())
        })?;
        let finished = self
            .make_known(&spool, &told)
            .and_then(|()| self.check_dispositions(&told, roster))
            .and_then(|()| self.finish_installation(commit, &spool, &told));
        if let Err(error) = finished {
            if let Err(undoing) = self.undo_installation() {
                // The next opening does it; until then what is half known must not be built upon.
                tracing::error!(error = %undoing, "an unfinished start from a checkpoint can't be undone");
                self.state().poison();
            }
            return Err(error);
        }
        let commits = told.new.len() as u64;
        Ok(Installed {
            commits,
            known: told.cover.commits.len() as u64 - commits,
        })
    }

    /// Checks everything that can be checked without changing anything.
    fn read_skeleton(&self, commit: &Commit, spool: &Spool) -> Result<Told, CheckpointError> {
        let (id, header) = (commit.id(), commit.header());
        let Some(digest) = header.checkpoint else {
            return Err(CheckpointError::NotOne(id));
        };
        if spool.hash() != digest.skeleton {
            return Err(CheckpointError::OtherSkeleton(id));
        }
        let mut reader = Reader::new(spool)?;
        let mut cover = Cover {
            commits: Vec::new(),
            positions: HashMap::new(),
            accepted: Vec::new(),
            checkpoints: Vec::new(),
        };
        let mut new = HashSet::new();
        let mut parents: HashSet<CommitId> = header.parents.iter().copied().collect();
        let mut is_parent: Vec<bool> = Vec::new();
        let base = self.base();
        let mut goes_on = base.is_none();
        let mut greatest = 0;
        while let Some(entry) = reader.next_commit()? {
            let position = cover.commits.len() as u32;
            for parent in &entry.parents {
                is_parent[*parent as usize] = true;
            }
            // Whoever is nobody's parent here is one of the checkpoint's.
            is_parent.push(parents.remove(&entry.commit));
            if is_parent[position as usize] {
                greatest = greatest.max(entry.lamport.0);
            }
            if !self.agrees(&entry, &reader)? {
                new.insert(entry.commit);
            }
            goes_on |= base == Some(entry.commit) && entry.accepted && entry.checkpoint.is_some();
            cover.positions.insert(entry.commit, position);
            cover.commits.push((entry.lamport, entry.commit));
            cover.accepted.push(entry.accepted);
            if let Some(quarantined) = entry.checkpoint {
                cover.checkpoints.push((position, quarantined));
            }
        }
        let (mut dots, mut releases) = (Vec::new(), Vec::new());
        while let Some(dot) = reader.next_dot()? {
            if !cover.accepted[dot.adding as usize] {
                return Err(CheckpointError::Malformed("add that doesn't count"));
            }
            dots.push(dot);
        }
        while let Some(release) = reader.next_release()? {
            if !cover.accepted[release.releasing as usize] || cover.is_accepted(&release.adding) {
                return Err(CheckpointError::Malformed("release that doesn't count"));
            }
            releases.push(release);
        }
        reader.finish()?;
        if digest.commits != cover.commits.len() as u64 {
            return Err(CheckpointError::Malformed("number of commits"));
        }
        if !parents.is_empty() || is_parent.contains(&false) {
            return Err(CheckpointError::Malformed("parents of the checkpoint"));
        }
        if cover.positions.len() != cover.commits.len() || cover.positions.contains_key(&id) {
            return Err(CheckpointError::Malformed("commits"));
        }
        if Some(header.lamport.0)
            != greatest_lamport(&cover, header.parents.as_slice()).checked_add(1)
            || greatest == 0
        {
            return Err(CheckpointError::Malformed("Lamport time of the checkpoint"));
        }
        match base {
            Some(base) if !goes_on => Err(CheckpointError::NotBeyond(base)),
            _ => Ok(Told {
                cover,
                new,
                dots,
                releases,
            }),
        }
    }

    /// Whether the commit is here; an error if the skeleton says otherwise of it than its own bytes.
    fn agrees(&self, entry: &Entry, reader: &Reader<'_>) -> Result<bool, CheckpointError> {
        let Some(meta) = meta_of(self.records(), entry.commit)? else {
            return Ok(false);
        };
        let same = meta.author == entry.author
            && meta.sequence == entry.sequence
            && meta.lamport == entry.lamport
            && meta.parents == parents_of(entry, reader);
        let right = match self.checkpoint_record(entry.commit)? {
            Some(record) => record.check.skeleton_is_right(),
            None => Some(false),
        };
        if same && right.is_none_or(|right| right == entry.checkpoint.is_some()) {
            Ok(true)
        } else {
            Err(CheckpointError::Contradicts(entry.commit))
        }
    }

    /// Puts what is known of the new commits beside what is here, where it doesn't count yet.
    fn make_known(&self, spool: &Spool, told: &Told) -> Result<(), CheckpointError> {
        let mut reader = Reader::new(spool)?;
        loop {
            let mut step = Vec::new();
            while step.len() < STEP
                && let Some(entry) = reader.next_commit()?
            {
                step.push(entry);
            }
            if step.is_empty() {
                return Ok(());
            }
            self.change(false, |draft, _| {
                let number = draft.summary.installations + 1;
                for entry in &step {
                    if told.new.contains(&entry.commit) {
                        put_known(draft, entry, parents_of(entry, &reader), number)?;
                        if let Some(quarantined) = &entry.checkpoint {
                            let ids = quarantined.iter().map(|at| told.cover.id(*at));
                            let record = CheckpointRecord {
                                digest: None,
                                check: CheckpointCheck::Blind,
                                since: draft.summary.clock.age,
                                quarantined: ids.collect(),
                                covers: Vec::new(),
                                dropped: false,
                            };
                            draft.set_checkpoint(entry.commit, &record);
                        }
                    }
                }
                Ok(())
            })?;
        }
    }

    fn check_dispositions(&self, told: &Told, roster: &dyn Writers) -> Result<(), CheckpointError> {
        if self.dispositions(&told.cover, roster)? == told.cover.accepted {
            Ok(())
        } else {
            Err(CheckpointError::Malformed("which commits count"))
        }
    }

    /// Lets it all count.
    fn finish_installation(
        &self,
        commit: &Commit,
        spool: &Spool,
        told: &Told,
    ) -> Result<(), CheckpointError> {
        let chains = self.chains_after(spool, told)?;
        let cover = &told.cover;
        // Adds that are in force here and that commits which weren't here released.
        let in_force: HashSet<Dot> = told
            .dots
            .iter()
            .map(|dot| Dot {
                commit: cover.id(dot.adding),
                pack: dot.pack,
            })
            .collect();
        let mut gone = BTreeSet::new();
        let mut forgotten_sizes = Vec::new();
        scan_prefix(self.records(), &[key::RELEASE], |key, value| {
            let adding = key::part(key, 1).ok_or_else(|| unreadable(key::RELEASE))?;
            let pack = key::part(key, 33).ok_or_else(|| unreadable(key::RELEASE))?;
            let dot = Dot {
                commit: CommitId::from_bytes(adding),
                pack: PackId::from_bytes(pack),
            };
            if !value.is_empty() && cover.is_accepted(&dot.commit) && !in_force.contains(&dot) {
                gone.insert(dot);
                forgotten_sizes.push(key.to_vec());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        scan_prefix(self.records(), &[key::USE], |key, _| {
            let pack = PackId::from_bytes(key::part(key, 1).ok_or_else(|| unreadable(key::USE))?);
            let id = CommitId::from_bytes(key::part(key, 33).ok_or_else(|| unreadable(key::USE))?);
            let dot = Dot { commit: id, pack };
            if cover.is_accepted(&id) && !in_force.contains(&dot) {
                gone.insert(dot);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.change(true, |draft, _| {
            // Commits that are here and count now.
            for (position, (_, id)) in (0u32..).zip(&cover.commits) {
                if told.new.contains(id) {
                    continue;
                }
                if let Some(mut record) = draft.checkpoint(*id)?
                    && record.check == CheckpointCheck::Unchecked
                {
                    let right = cover.checkpoints.iter().find(|(at, _)| *at == position);
                    record.check = match right {
                        Some(_) => CheckpointCheck::Blind,
                        None => CheckpointCheck::Wrong,
                    };
                    let quarantined = right.into_iter().flat_map(|(_, quarantined)| quarantined);
                    record.quarantined = quarantined.map(|at| cover.id(*at)).collect();
                    draft.set_checkpoint(*id, &record);
                }
                if !cover.accepted[position as usize] {
                    continue;
                }
                if let Some(meta) = draft.meta(*id)?
                    && !counts(&meta)
                    && meta.absent.is_none()
                {
                    change_disposition(draft, *id, meta, Disposition::Accepted)?;
                }
            }
            for dot in &told.dots {
                put_use(draft, dot, cover.id(dot.adding))?;
            }
            for release in forgotten_sizes {
                draft.put(release, Vec::new());
            }
            for Dot { commit: id, pack } in gone {
                // Which commit released it isn't told: one that the checkpoint covers, for good.
                draft.put(key::release(id, pack, commit.id()), Vec::new());
                live::remove_use(draft, id, pack, live::History::Kept)?;
            }
            for release in &told.releases {
                let dot = Dot {
                    commit: release.adding,
                    pack: release.pack,
                };
                let record = key::release(dot.commit, dot.pack, cover.id(release.releasing));
                if draft.get(&record)?.is_none() {
                    let size = live::released_size(draft, &dot)?;
                    draft.put(record, size);
                    live::remove_use(draft, dot.commit, dot.pack, live::History::Kept)?;
                }
            }
            for (author, (heads, old)) in chains {
                for (id, sequence) in &heads {
                    draft.put(
                        key::chain_head(author, *id),
                        sequence.0.to_be_bytes().to_vec(),
                    );
                }
                for id in old.into_keys().filter(|id| !heads.contains_key(id)) {
                    draft.remove(key::chain_head(author, id));
                }
                draft.chains.insert(author, heads);
            }
            recompute_heads(self, draft)?;
            put_commit(draft, commit, Disposition::Accepted)?;
            if let Some(mut record) = draft.checkpoint(commit.id())? {
                record.check = CheckpointCheck::Blind;
                record.quarantined = cover.quarantined();
                let counting = cover.checkpoints.iter();
                let counting = counting.filter(|(at, _)| cover.accepted[*at as usize]);
                record.covers = counting.map(|(at, _)| cover.id(*at)).collect();
                draft.set_checkpoint(commit.id(), &record);
            }
            draft.summary.base = Some(commit.id());
            draft.summary.installations += 1;
            draft.summary.installing = false;
            draft.summary.withdrawals += 1;
            Ok(())
        })?;
        Ok(())
    }

    /// The ends of the chains that change: as they will be, and as they are.
    fn chains_after(&self, spool: &Spool, told: &Told) -> Result<Chains, CheckpointError> {
        let mut chains = Chains::new();
        let mut reader = Reader::new(spool)?;
        while let Some(entry) = reader.next_commit()? {
            if !told.new.contains(&entry.commit) {
                continue;
            }
            let (heads, _) = chains.entry(entry.author).or_insert_with(|| {
                let heads = self.state().chain_heads(&entry.author);
                (heads.clone(), heads)
            });
            heads.insert(entry.commit, entry.sequence);
            if let Some(follows) = self.meta(entry.commit)?.follows {
                heads.remove(&follows);
            }
        }
        Ok(chains)
    }

    /// Removes what an unfinished installation left.
    pub(crate) fn undo_installation(&self) -> Result<(), StoreError> {
        let (installing, finished) = {
            let summary = &self.state().summary;
            (summary.installing, summary.installations)
        };
        if !installing {
            return Ok(());
        }
        let mut unfinished: Vec<(CommitId, CommitMeta)> = Vec::new();
        scan_prefix(self.records(), &[key::META], |key, value| {
            let meta: CommitMeta = decode(key::META, value)?;
            if matches!(meta.absent, Some(Absence::Installed(number)) if number > finished) {
                let id = key::part(key, 1).ok_or_else(|| unreadable(key::META))?;
                unfinished.push((CommitId::from_bytes(id), meta));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for step in unfinished.chunks(STEP) {
            self.change(false, |draft, _| {
                for (id, meta) in step {
                    draft.remove(key::meta(*id));
                    draft.remove(key::order(meta.lamport, *id));
                    draft.remove(key::chain(meta.author, meta.sequence, *id));
                    draft.remove(key::quarantine(*id));
                    draft.remove(key::checkpoint(*id));
                }
                Ok(())
            })?;
        }
        self.change(true, |draft, _| {
            draft.summary.installing = false;
            Ok(())
        })
    }
}

type Heads = BTreeMap<CommitId, Sequence>;
type Chains = BTreeMap<MemberId, (Heads, Heads)>;

fn greatest_lamport(cover: &Cover, parents: &[CommitId]) -> u64 {
    let parents = parents.iter().filter_map(|id| cover.positions.get(id));
    parents
        .map(|position| cover.commits[*position as usize].0.0)
        .max()
        .unwrap_or(u64::MAX)
}

fn parents_of(entry: &Entry, reader: &Reader<'_>) -> Vec<CommitId> {
    let mut parents: Vec<CommitId> = entry
        .parents
        .iter()
        .filter_map(|parent| reader.commit_at(*parent))
        .collect();
    parents.sort_unstable();
    parents
}

fn put_known(
    draft: &mut Draft<'_>,
    entry: &Entry,
    parents: Vec<CommitId>,
    number: u64,
) -> Result<(), StoreError> {
    let id = entry.commit;
    let follows = previous_of_author(draft, id, entry.author, entry.sequence, &parents)?;
    let disposition = if entry.accepted {
        Disposition::Accepted
    } else {
        draft.put(key::quarantine(id), Vec::new());
        Disposition::Quarantined
    };
    draft.put(key::order(entry.lamport, id), Vec::new());
    draft.put(key::chain(entry.author, entry.sequence, id), Vec::new());
    let meta = CommitMeta {
        author: entry.author,
        sequence: entry.sequence,
        lamport: entry.lamport,
        parents,
        disposition,
        arrival: 0,
        follows,
        absent: Some(Absence::Installed(number)),
    };
    draft.set_meta(id, &meta);
    Ok(())
}

/// Puts an add into force, unless a commit that is here released it.
fn put_use(draft: &mut Draft<'_>, dot: &DotEntry, adding: CommitId) -> Result<(), StoreError> {
    if draft.get(&key::use_of(dot.pack, adding))?.is_some() {
        return Ok(());
    }
    let releases = draft.keys(&key::releases_of(adding, dot.pack))?;
    if releases.is_empty() {
        return live::add_use(draft, adding, dot.pack, dot.size);
    }
    for release in releases {
        draft.put(release, encode(&dot.size));
    }
    Ok(())
}
