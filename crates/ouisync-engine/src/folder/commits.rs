//! Commits of a folder: checking those of others, making own ones.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use ouisync_crypto::{
    commit::{Commit, CommitDraft, CommitError, Dot, PackAdd},
    identity::MemberIdentity,
    roster::{Standing, statement::LastCommit},
};
use ouisync_model::{
    id::{CommitId, Lamport, PackId, Sequence, Timestamp},
    operation::{CommitBody, Operation, PackSize, PackTable},
};
use ouisync_store::{catalogue::Disposition, index::batch::IndexBatch};
use ouisync_sync::{
    facts::{CommitFacts, FolderFacts, PackState},
    folder::PeerKey,
};
use tracing::{error, warn};

use super::{
    Folder,
    parts::{Part, parts},
};
use crate::{
    drafts::Heard, error::EngineError, port::ingest_keys, readable::Readable, status::Role,
};

/// Under this name the store notes the heads of the roster that its commits were judged by.
const JUDGED: &[u8] = b"judged by";

/// A batch of commits that names roster entries that haven't come.
pub(super) struct Waiting {
    peer: PeerKey,
    /// Those of the batch that are in the store.
    accepted: Vec<CommitFacts>,
    commits: Vec<Bytes>,
}

/// What becomes of a commit of somebody else.
enum Judgement {
    Known,
    New(Box<Commit>, Disposition),
    RosterMissing,
}

impl Folder {
    /// Checks commits of a peer and keeps the valid ones.
    pub(super) fn add_commits(&mut self, peer: PeerKey, commits: Vec<Bytes>) {
        self.add_waiting(Waiting {
            peer,
            accepted: Vec::new(),
            commits,
        });
    }

    fn add_waiting(&mut self, waiting: Waiting) {
        let Waiting {
            peer,
            mut accepted,
            commits,
        } = waiting;
        let mut released = Vec::new();
        for (position, bytes) in commits.iter().enumerate() {
            match self.judge(bytes) {
                Ok(Judgement::Known) => {}
                Ok(Judgement::New(commit, disposition)) => {
                    self.notice_own(&commit);
                    match self
                        .store
                        .put_commits(std::slice::from_ref(&*commit), disposition, false)
                    {
                        Ok(_) => {
                            self.quarantined += u64::from(disposition == Disposition::Quarantined);
                            accepted.extend(facts_of(&commit, disposition));
                            released.extend(commit.header().released.iter().map(|dot| dot.pack));
                        }
                        Err(error) => {
                            error!(folder = %self.id, %error, "can't store a commit");
                            self.store_failed(&error);
                            return self.sync.commits_refused(
                                peer,
                                &accepted,
                                "not stored here".to_owned(),
                            );
                        }
                    }
                }
                Ok(Judgement::RosterMissing) => {
                    // The roster comes before commits, so this is rare: wait for it.
                    self.settle_received();
                    let commits = commits[position..].to_vec();
                    self.waiting_commits.push_back(Waiting {
                        peer,
                        accepted,
                        commits,
                    });
                    return self.forget_dead(released);
                }
                Err(reason) => {
                    self.settle_received();
                    self.sync.commits_refused(peer, &accepted, reason);
                    return self.forget_dead(released);
                }
            }
        }
        self.settle_received();
        self.accepted(peer, &accepted);
        self.forget_dead(released);
    }

    /// Of these packs, those that are not live any more are neither fetched nor owed.
    fn forget_dead(&mut self, mut packs: Vec<PackId>) {
        let facts = self.sync.facts();
        packs.retain(|pack| facts.pack(pack).is_none_or(|facts| !facts.live));
        self.sync.packs_released(&packs);
    }

    /// Tries commits again whose roster entries were missing.
    pub(super) fn retry_waiting_commits(&mut self) {
        for waiting in std::mem::take(&mut self.waiting_commits) {
            self.add_waiting(waiting);
        }
    }

    /// The peer is gone: what of its commits still waits is asked of others, what is stored of them is theirs to hear.
    pub(super) fn forget_waiting(&mut self, peer: PeerKey) {
        let (gone, stay) = std::mem::take(&mut self.waiting_commits)
            .into_iter()
            .partition(|waiting| waiting.peer == peer);
        self.waiting_commits = stay;
        let gone: VecDeque<Waiting> = gone;
        for waiting in gone {
            self.sync.commits_accepted(peer, &waiting.accepted);
        }
    }

    /// What received commits lead to: durability and the tree.
    fn settle_received(&mut self) {
        // An empty batch makes the earlier ones durable: peers count on what is accepted.
        if let Err(error) = self.store.put_commits(&[], Disposition::Accepted, true) {
            error!(folder = %self.id, %error, "can't make commits durable");
            self.store_failed(&error);
            // The index must not be ahead: after a power cut other commits would get the numbers of those that the store lost.
            return;
        }
        self.apply_arrived();
    }

    /// Brings the tree up to date with the store.
    pub(super) fn apply_arrived(&mut self) {
        let Some(readable) = self.readable.clone() else {
            return;
        };
        match readable.replay() {
            Ok(applied) => {
                if applied.tree_changed {
                    self.shared.tree_changed();
                }
                self.hear_drafts(applied.drafts);
            }
            Err(error) => {
                error!(folder = %self.id, %error, "can't apply commits");
                self.shared.fail(&error.to_string());
            }
        }
        self.notice_conflicts();
    }

    /// Passes on what others tell of their drafts; after the tree's change, so that a view knows of a file when its draft ends.
    fn hear_drafts(&mut self, heard: Vec<Heard>) {
        if heard.is_empty() {
            return;
        }
        for one in &heard {
            self.drafted.extend(self.drafts.follow(one));
        }
        self.shared
            .drafts_heard(heard.into_iter().map(|one| one.step).collect());
    }

    /// Tells the state machine of accepted commits, and what of their packs is fetched in turn.
    fn accepted(&mut self, peer: PeerKey, accepted: &[CommitFacts]) {
        self.sync.commits_accepted(peer, accepted);
        for order in std::mem::take(&mut self.drafted) {
            self.sync
                .packs_continue(&order.packs, order.begun, order.added);
        }
    }

    fn judge(&mut self, bytes: &Bytes) -> Result<Judgement, String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let commit = Commit::verified(bytes.to_vec()).map_err(|error| text(&error))?;
        if self
            .store
            .contains(commit.id())
            .map_err(|error| text(&error))?
        {
            return Ok(Judgement::Known);
        }
        let standing = self
            .roster()
            .standing(commit.header(), |last| self.is_covered(&commit, last));
        let disposition = match standing {
            Standing::Accepted => Disposition::Accepted,
            Standing::Quarantined => Disposition::Quarantined,
            Standing::Refused(reason) => return Err(reason.to_string()),
            Standing::Unknown { .. } => return Ok(Judgement::RosterMissing),
        };
        self.check_order(&commit)
            .map_err(|error| error.to_string())?;
        Ok(Judgement::New(Box::new(commit), disposition))
    }

    /// The numbers of the commit follow from those of its parents and its author's last ones.
    fn check_order(&self, commit: &Commit) -> Result<(), CommitError> {
        let header = commit.header();
        let mut greatest = None;
        for parent in &header.parents {
            match self.store.lamport(*parent).ok().flatten() {
                Some(lamport) => greatest = greatest.max(Some(lamport)),
                None => {
                    return Err(CommitError::Lamport {
                        commit: commit.id(),
                        found: header.lamport,
                        expected: Lamport(0),
                    });
                }
            }
        }
        // The store checks that the author's commit before is an ancestor.
        let previous = Sequence(header.sequence.0.saturating_sub(1));
        commit.check_order(greatest, (previous.0 > 0).then_some(previous))
    }

    /// The commit is one of the given ones or an ancestor of one: a chain of one author, so numbers tell unless it forked.
    pub(super) fn is_covered(&self, commit: &Commit, last: &[LastCommit]) -> bool {
        let header = commit.header();
        last.iter().any(|last| {
            last.author == header.author
                && (last.commit == commit.id()
                    || (header.sequence < last.sequence
                        && self.precedes(commit.id(), header.sequence, last)))
        })
    }

    fn precedes(&self, commit: CommitId, sequence: Sequence, last: &LastCommit) -> bool {
        if self.store.chain(last.author).len() <= 1 {
            return true;
        }
        // After a fork: walk back from the named commit.
        let mut at = Some(last.commit);
        while let Some(id) = at {
            if id == commit {
                return true;
            }
            at = match self.store.commit_meta(id) {
                Ok(Some(meta)) if meta.sequence > sequence => meta.follows,
                _ => None,
            };
        }
        false
    }

    /// A removal may have come after commits that it doesn't cover, or its undoing.
    pub(super) fn judge_commits_again(&mut self) -> Result<(), EngineError> {
        let cut: Vec<_> = {
            let state = self.roster().state();
            let authors: BTreeSet<_> = self
                .store
                .chains()
                .iter()
                .map(|chain| chain.author)
                .collect();
            authors
                .into_iter()
                .filter(|author| state.last_commits(author).is_some())
                .collect()
        };
        let mut suspects: Vec<CommitId> = self.store.quarantined()?;
        for author in cut {
            let commits = self.store.commits_of(author, Sequence(1), usize::MAX)?;
            suspects.extend(commits.into_iter().map(|(_, id)| id));
        }
        let (mut accept, mut quarantine) = (Vec::new(), BTreeSet::new());
        for id in suspects {
            let (Some(commit), Some(meta)) = (self.store.commit(id)?, self.store.commit_meta(id)?)
            else {
                continue;
            };
            let standing = self
                .roster()
                .standing(commit.header(), |last| self.is_covered(&commit, last));
            match (standing, meta.disposition) {
                (Standing::Accepted, Disposition::Quarantined) => accept.push(id),
                (Standing::Quarantined, Disposition::Accepted) => {
                    quarantine.insert(id);
                }
                _ => {}
            }
        }
        if !accept.is_empty() {
            self.store.set_disposition(&accept, Disposition::Accepted)?;
            for pack in self.packs_added(&accept)? {
                if self
                    .sync
                    .facts()
                    .pack(&pack)
                    .is_some_and(|facts| facts.state == PackState::Missing)
                {
                    self.sync.pack_lost(pack);
                }
            }
        }
        let settled = self.store.settled(&quarantine)?;
        let quarantine: Vec<_> = quarantine.difference(&settled).copied().collect();
        if !quarantine.is_empty() {
            warn!(folder = %self.id, commits = quarantine.len(), "quarantined what a removed member did meanwhile");
            self.store
                .set_disposition(&quarantine, Disposition::Quarantined)?;
            let packs = self.packs_added(&quarantine)?;
            self.forget_dead(packs);
            self.rebuild_readable()?;
        }
        self.count_quarantined()?;
        self.apply_arrived();
        Ok(self.store.note_peer(JUDGED, Some(self.roster_heads()))?)
    }

    fn roster_heads(&self) -> Vec<u8> {
        let mut heads = self.roster().heads();
        heads.sort_unstable();
        heads.iter().flat_map(|head| *head.as_bytes()).collect()
    }

    /// The stored commits were judged by the present roster.
    pub(super) fn was_judged(&self) -> Result<bool, EngineError> {
        let heads = self.roster_heads();
        Ok(self
            .store
            .peer_notes(JUDGED)?
            .contains(&(JUDGED.to_vec(), heads)))
    }

    fn packs_added(&self, commits: &[CommitId]) -> Result<Vec<PackId>, EngineError> {
        let mut packs = Vec::new();
        for id in commits {
            let commit = self.store.commit(*id)?;
            packs.extend(
                commit
                    .iter()
                    .flat_map(|commit| &commit.header().added)
                    .map(|add| add.pack),
            );
        }
        Ok(packs)
    }

    pub(super) fn count_quarantined(&mut self) -> Result<(), EngineError> {
        self.quarantined = self.store.quarantined()?.len() as u64;
        Ok(())
    }

    /// Opens the tree if the folder can be read.
    pub(crate) fn open_readable(&mut self) -> Result<(), EngineError> {
        if self.readable.is_some() {
            if let Some(readable) = &self.readable {
                readable.set_keys(&self.keys);
            }
            self.shared.set_ingest_keys(ingest_keys(self));
            return Ok(());
        }
        if self.keys.content_keys().is_none() || self.identity.is_none() {
            return Ok(());
        }
        let directory = self.shared.directory();
        let roster = &self.sync.facts().roster;
        let readable = Readable::open(
            directory,
            self.store.clone(),
            &self.keys,
            self.names(),
            roster,
        )?;
        self.checkpoints.stale = readable.is_stale()?;
        let half = readable.is_half()?;
        let readable = Arc::new(readable);
        self.shared.set_readable((!half).then(|| readable.clone()));
        self.readable = Some(readable);
        self.shared.set_ingest_keys(ingest_keys(self));
        self.notice_conflicts();
        Ok(())
    }

    /// Makes own commits of operations and pack tables, as many as needed, durably, and announces them. `records` goes into
    /// the index together with the last one.
    pub(crate) fn commit(
        &mut self,
        operations: Vec<Operation>,
        packs: Vec<(PackTable, PackSize)>,
        released: Vec<Dot>,
        records: impl FnOnce(&mut IndexBatch) -> Result<(), EngineError>,
    ) -> Result<Option<CommitId>, EngineError> {
        let all = Part {
            operations,
            packs,
            released,
            ..Part::default()
        };
        self.commit_all(all, records)
    }

    /// This device's identity as a member that writes.
    pub(super) fn check_writer(&self) -> Result<MemberIdentity, EngineError> {
        if self.is_removed() {
            return Err(EngineError::Removed);
        }
        let identity = self.identity.clone().ok_or(EngineError::Locked)?;
        match self.role() {
            Some(Role::Owner | Role::Writer) => Ok(identity),
            Some(role) => Err(EngineError::Forbidden {
                role: role.as_str(),
                action: "change it",
            }),
            None => Err(EngineError::Invitation(
                "this device has not been let in yet".to_owned(),
            )),
        }
    }

    /// [`Self::commit`] of everything that a commit can hold.
    pub(crate) fn commit_all(
        &mut self,
        all: Part,
        records: impl FnOnce(&mut IndexBatch) -> Result<(), EngineError>,
    ) -> Result<Option<CommitId>, EngineError> {
        let identity = self.check_writer()?;
        let readable = self.readable.clone().ok_or(EngineError::Locked)?;
        if self.checkpoints.stale {
            return Err(EngineError::BeingBroughtUpToDate);
        }
        let mut made = Vec::new();
        let mut failure = None;
        for part in parts(all) {
            match self.make_commit(&identity, part) {
                Ok(commit) => made.push(commit),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        // What is durable is announced, whatever becomes of the rest.
        let facts: Vec<_> = made
            .iter()
            .flat_map(|(commit, _)| facts_of(commit, Disposition::Accepted))
            .collect();
        self.announce(&facts);
        let released: Vec<PackId> = made
            .iter()
            .flat_map(|(commit, _)| commit.header().released.iter().map(|dot| dot.pack))
            .collect();
        self.sync.packs_released(&released);
        let complete = failure.is_none();
        let applied = readable.apply_own(
            &made,
            |batch| if complete { records(batch) } else { Ok(()) },
        )?;
        if applied.tree_changed {
            self.shared.tree_changed();
        }
        self.notice_conflicts();
        if let Some(error) = failure {
            return Err(error);
        }
        Ok(made.last().map(|(commit, _)| commit.id()))
    }

    /// Wall time by the device's clock, to the nanosecond where it is the system's.
    fn now(&self) -> Timestamp {
        let before = self.seconds();
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let after = self.seconds();
        let (seconds, nanoseconds) = if (before..=after).contains(&since.as_secs()) {
            (since.as_secs(), since.subsec_nanos())
        } else {
            (after, 0)
        };
        Timestamp {
            seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
            nanoseconds,
        }
    }

    fn make_commit(
        &mut self,
        identity: &MemberIdentity,
        part: Part,
    ) -> Result<(Commit, CommitBody), EngineError> {
        let Part {
            operations,
            packs,
            released,
            forgotten,
            checkpoint,
            draft: drafted,
        } = part;
        let now = self.now();
        let parents = self.store.heads();
        let mut lamport = Lamport(0);
        for parent in &parents {
            lamport = lamport.max(self.store.lamport(*parent)?.unwrap_or_default());
        }
        let member = identity.member();
        let previous = self
            .store
            .chain(member)
            .iter()
            .map(|chain| chain.sequence)
            .max()
            .unwrap_or_default();
        let added: Vec<_> = packs
            .iter()
            .map(|(table, size)| PackAdd {
                pack: table.pack,
                size: *size,
            })
            .collect();
        let (epoch, secret) = self
            .roster()
            .sealing_epoch(&self.keys)
            .ok_or(EngineError::Locked)?;
        let (digest, state) = checkpoint.unzip();
        let body = CommitBody {
            time: now,
            operations,
            tables: packs.into_iter().map(|(table, _)| table).collect(),
            checkpoint: state,
            draft: drafted,
        };
        let draft = CommitDraft {
            folder: self.id,
            sequence: Sequence(previous.0 + 1),
            lamport: Lamport(lamport.0 + 1),
            parents,
            roster: self.roster().heads(),
            epoch,
            time_hours: u32::try_from(self.seconds() / 3600).unwrap_or(u32::MAX),
            live: self.store.live_after(&added, &released)?,
            added,
            released,
            forgotten,
            checkpoint: digest,
        };
        let commit = Commit::create(draft, &body, secret, identity, &mut self.surroundings.rng())
            .map_err(|error| EngineError::internal(error.to_string()))?;
        self.store
            .put_commits(std::slice::from_ref(&commit), Disposition::Accepted, true)?;
        Ok((commit, body))
    }
}

fn facts_of(commit: &Commit, disposition: Disposition) -> Option<CommitFacts> {
    let header = commit.header();
    // The packs of quarantined commits aren't live.
    let added = match disposition {
        Disposition::Accepted => header
            .added
            .iter()
            .map(|add| (add.pack, add.size))
            .collect(),
        Disposition::Quarantined => Vec::new(),
    };
    Some(CommitFacts {
        id: commit.id(),
        author: header.author,
        sequence: header.sequence,
        lamport: header.lamport,
        added,
    })
}
