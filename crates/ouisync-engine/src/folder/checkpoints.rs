//! Checkpoints of a folder: making them, comparing those of others with what the commits say, starting from one that a peer
//! sends, and making the index from one.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use ouisync_crypto::{
    commit::{Commit, Dot},
    roster::Standing,
};
use ouisync_model::{
    id::{CommitId, MemberId},
    operation::{CheckpointState, PackSize, PackTable},
};
use ouisync_store::{
    checkpoint::{CheckpointCheck, CheckpointError, CheckpointInfo, SkeletonSpool, Uncovered},
    error::ErrorKind as StoreErrorKind,
    index::state::StateStream,
    ingest::{Ingest, PackSink},
    store::packs::PackState,
};
use ouisync_sync::folder::{PeerKey, Verdict};
use tracing::{error, info, warn};

use super::{Folder, parts::Part};
use crate::{
    command::Command,
    error::EngineError,
    flush::Flushed,
    port::ingest_keys,
    readable::{
        Readable,
        start::{Restart, Tables, checkpoint_failed},
    },
    shared::lock,
    status::Role,
    surroundings::Running,
};

/// Time between two tries to make the index anew that failed.
const RESTART_PAUSE: Duration = Duration::from_secs(30);

/// What a folder is doing about checkpoints.
#[derive(Default)]
pub(super) struct Checkpoints {
    /// A skeleton that comes in.
    spool: Option<SkeletonSpool>,
    /// Those that are not what they say, with their authors.
    pub(super) wrong: Vec<(MemberId, CommitId)>,
    /// The index has to be made anew, when the packs of the state are here.
    pub(super) stale: bool,
    /// When making it anew failed.
    failed: Option<Instant>,
    comparing: Option<Comparing>,
    /// Compared without a result at this number of arrived commits: not again until more has come.
    undecided: BTreeSet<(CommitId, u64)>,
}

/// A comparison on a thread of its own.
struct Comparing {
    stop: Arc<AtomicBool>,
    thread: Running,
}

impl Folder {
    /// Whether a peer's checkpoint is worth its skeleton.
    pub(super) fn judge_checkpoint(&mut self, peer: PeerKey, bytes: &Bytes) {
        let verdict = self.verdict_on(bytes);
        self.sync.checkpoint_judged(peer, verdict);
    }

    fn verdict_on(&self, bytes: &Bytes) -> Verdict {
        let commit = match Commit::verified(bytes.to_vec()) {
            Ok(commit) => commit,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        match self.store.contains(commit.id()) {
            Ok(true) => return Verdict::Known,
            Ok(false) => {}
            Err(error) => {
                error!(folder = %self.id, %error, "can't look for a checkpoint");
                return Verdict::Unusable;
            }
        }
        if commit.header().checkpoint.is_none() {
            return Verdict::Refused("it is no checkpoint".to_owned());
        }
        let standing = self
            .roster()
            .standing(commit.header(), |last| self.is_covered(&commit, last));
        match standing {
            Standing::Accepted => Verdict::Wanted,
            Standing::Refused(reason) => Verdict::Refused(reason.to_string()),
            Standing::Quarantined | Standing::Unknown { .. } => Verdict::Unusable,
        }
    }

    pub(super) fn keep_skeleton(&mut self, offset: u64, data: &[u8]) {
        if offset == 0 {
            self.checkpoints.spool = Some(self.store.begin_skeleton());
        }
        if let Some(spool) = &mut self.checkpoints.spool
            && let Err(error) = spool.push(data)
        {
            error!(folder = %self.id, %error, "can't keep the skeleton of a checkpoint");
            self.checkpoints.spool = None;
            if let CheckpointError::Store(error) = error {
                self.store_failed(&error);
            }
        }
    }

    /// Starts from a peer's checkpoint, whose skeleton is kept.
    pub(super) fn add_checkpoint(&mut self, peer: PeerKey, bytes: &Bytes) {
        let spool = self.checkpoints.spool.take();
        let Ok(commit) = Commit::decode(bytes.to_vec()) else {
            return self
                .sync
                .checkpoint_refused(peer, "it is no commit".to_owned());
        };
        let (Some(spool), Ok(then)) = (spool, self.roster().state_at(&commit.header().roster))
        else {
            return self.sync.checkpoint_unusable(peer);
        };
        let installed =
            self.notice_own_chain(|folder| folder.store.install_checkpoint(&commit, spool, &then));
        match installed {
            Ok(installed) => {
                info!(folder = %self.id, checkpoint = %commit.id(), commits = installed.commits, "starting from a checkpoint");
                self.checkpoints.stale = self.readable.is_some();
                if let Err(error) = self.count_quarantined() {
                    warn!(folder = %self.id, %error, "can't count quarantined commits");
                }
                self.sync.checkpoint_installed(peer);
                // Packs that it released became late.
                self.ask_anew();
                self.restart_if_stale();
            }
            Err(error) => {
                warn!(folder = %self.id, checkpoint = %commit.id(), author = %commit.header().author, %error, "can't start from a checkpoint");
                match error {
                    CheckpointError::Store(error) => {
                        self.store_failed(&error);
                        self.sync.checkpoint_unusable(peer);
                    }
                    error if error.kind() == StoreErrorKind::Corruption => {
                        self.sync.checkpoint_refused(peer, error.to_string());
                    }
                    _ => self.sync.checkpoint_unusable(peer),
                }
            }
        }
    }

    /// Makes the index anew when it has to be and can be.
    pub(super) fn restart_if_stale(&mut self) {
        let paused = |failed: Instant| self.since(failed) < RESTART_PAUSE;
        if !self.checkpoints.stale || self.checkpoints.failed.is_some_and(paused) {
            return;
        }
        if let Err(error) = self.rebuild_readable() {
            self.checkpoints.failed = Some(self.surroundings.now());
            error!(folder = %self.id, %error, "can't make the index anew");
            self.shared.fail(&error.to_string());
            self.find_wrong();
        }
    }

    /// Makes the tree anew from the store's commits; until that is done views find the folder closed. While packs of the state
    /// that it starts from are missing it stays as it was.
    pub(crate) fn rebuild_readable(&mut self) -> Result<(), EngineError> {
        let Some(readable) = self.readable.clone() else {
            return Ok(());
        };
        self.checkpoints.stale = true;
        if !readable.can_restart()? {
            return Ok(());
        }
        info!(folder = %self.id, "making the index anew");
        self.shared.set_readable(None);
        let restarted = readable.restart(&self.sync.facts().roster);
        // Half a tree must not be seen.
        let restarted = restarted?;
        self.show_anew(readable);
        if restarted == Restart::Done {
            self.checkpoints.stale = false;
            if self.checkpoints.failed.take().is_some() {
                self.shared.set_trouble(None);
            }
        }
        Ok(())
    }

    fn show_anew(&mut self, readable: Arc<Readable>) {
        readable.was_made_anew();
        self.shared.set_readable(Some(readable));
        self.shared.tree_changed();
        self.notice_conflicts();
    }

    /// Makes the tree anew from where the history held here shall begin; see [`Readable::lengthen`].
    pub(crate) fn lengthen_history(
        &mut self,
        from: Option<CommitId>,
    ) -> Result<Restart, EngineError> {
        let readable = self.readable.clone().ok_or(EngineError::Locked)?;
        if self.checkpoints.stale {
            return Ok(Restart::Waiting);
        }
        info!(folder = %self.id, "making the index anew, with what was before");
        self.shared.set_readable(None);
        let restarted = readable.lengthen(from, &self.sync.facts().roster);
        if restarted.is_err() && !readable.is_half().is_ok_and(|half| !half) {
            self.checkpoints.stale = true;
            self.restart_if_stale();
        } else {
            self.show_anew(readable);
        }
        restarted
    }

    /// What is due: a checkpoint when much happened since the last one, and a look at those of others.
    pub(super) fn tend_checkpoints(&mut self) -> Result<(), EngineError> {
        self.check_skeletons()?;
        if self.role() == Some(Role::Owner) && !self.paused && !self.checkpoints.stale {
            let most = Uncovered {
                commits: self.housekeeping.checkpoint_commits,
                bytes: self.housekeeping.checkpoint_bytes,
            };
            let found = self.store.uncovered(most)?;
            let whole = self.store.missing_packs().is_empty();
            if whole && (found.commits >= most.commits || found.bytes >= most.bytes) {
                self.make_checkpoint()?;
            }
        }
        self.compare_next();
        Ok(())
    }

    /// Compares the skeletons of checkpoints that came as commits with what is here.
    fn check_skeletons(&mut self) -> Result<(), EngineError> {
        // One that another covers comes first.
        for info in self.store.checkpoints()?.into_iter().rev() {
            if info.check != CheckpointCheck::Unchecked || !info.accepted || !info.has_bytes {
                continue;
            }
            let Some(commit) = self.store.commit(info.commit)? else {
                continue;
            };
            let Ok(then) = self.roster().state_at(&commit.header().roster) else {
                continue;
            };
            self.store
                .check_checkpoint(info.commit, &then)
                .map_err(checkpoint_failed)?;
        }
        self.find_wrong();
        Ok(())
    }

    /// Looks for false checkpoints, so that they are shown.
    pub(super) fn find_wrong(&mut self) {
        let checkpoints = self.store.checkpoints().unwrap_or_else(|error| {
            warn!(folder = %self.id, %error, "can't list checkpoints");
            Vec::new()
        });
        let wrong = checkpoints.iter().filter(|info| {
            matches!(
                info.check,
                CheckpointCheck::Wrong | CheckpointCheck::WrongState
            )
        });
        self.checkpoints.wrong = wrong.map(|info| (info.author, info.commit)).collect();
    }

    /// Makes a checkpoint of everything that is here.
    fn make_checkpoint(&mut self) -> Result<(), EngineError> {
        let all = self.compose_checkpoint()?;
        let Some(made) = self.commit_all(all, |_| Ok(()))? else {
            return Ok(());
        };
        let then = self.roster().state().clone();
        self.store
            .check_checkpoint(made, &then)
            .map_err(checkpoint_failed)?;
        self.store
            .note_state(made, true)
            .map_err(checkpoint_failed)?;
        info!(folder = %self.id, checkpoint = %made, "made a checkpoint");
        Ok(())
    }

    /// Seals the state of everything that is here; what makes a checkpoint of it.
    fn compose_checkpoint(&mut self) -> Result<Part, EngineError> {
        let readable = self.readable.clone().ok_or(EngineError::Locked)?;
        let (_, keys) = ingest_keys(self).ok_or(EngineError::Locked)?;
        self.apply_arrived();
        let before: Vec<CheckpointInfo> = self.store.checkpoints()?;
        let previous = before.iter().find(|info| info.accepted && info.has_bytes);
        let previous = previous.and_then(|info| readable.open_checkpoint(info.commit).ok());
        let (tables, content) = match &previous {
            Some((_, body)) => (
                body.tables.as_slice(),
                body.checkpoint.as_ref().map(|state| &state.content),
            ),
            None => (&[][..], None),
        };
        let known = Tables::new(tables);
        let skeleton = self
            .store
            .skeleton(&self.store.heads(), self.roster().state())
            .map_err(checkpoint_failed)?;
        let snapshot = readable.index.snapshot();
        let mut stream = StateStream::new(&snapshot, &skeleton);
        let sealed: Arc<Mutex<Vec<(PackTable, PackSize)>>> = Arc::default();
        let (store, taken) = (self.store.clone(), sealed.clone());
        let sink: PackSink = Box::new(move |pack| {
            store.create_pack(&pack.frame_hashes, &pack.bytes)?;
            lock(&taken).push((pack.table, pack.size));
            Ok(())
        });
        let mut reused = BTreeSet::new();
        let mut is_known = |chunk: &_| {
            let held = known.packs(chunk).find(|pack| {
                let info = self.store.pack(*pack).ok().flatten();
                info.is_some_and(|info| {
                    matches!(info.state, PackState::Stored | PackState::Pending)
                })
            });
            reused.extend(held);
            held.is_some()
        };
        let mut ingest = Ingest::new(keys, self.surroundings.rng(), sink);
        let hint = content.map_or(0, |content| content.size);
        let content = ingest.file(&mut stream, hint, content, &mut is_known, &mut |_| ())?;
        ingest.flush()?;
        let state = CheckpointState {
            digest: stream.digest(),
            content,
        };
        let mut packs = std::mem::take(&mut *lock(&sealed));
        for table in tables.iter().filter(|table| reused.contains(&table.pack)) {
            if let Some(info) = self.store.pack(table.pack)? {
                packs.push((table.clone(), info.size));
            }
        }
        let digest = skeleton.digest();
        drop(skeleton);
        let durable = self.store.sync_packs()?;
        self.sender.send(Command::Flushed(Flushed(Ok(durable))));
        Ok(Part {
            packs,
            released: self.adds_of_checkpoints(&before)?,
            checkpoint: Some((digest, state)),
            ..Part::default()
        })
    }

    /// Makes a checkpoint that says something else than it should.
    #[cfg(test)]
    pub(crate) fn make_false_checkpoint(&mut self, state: bool) -> Result<CommitId, EngineError> {
        let mut all = self.compose_checkpoint()?;
        if let Some((digest, body)) = &mut all.checkpoint {
            if state {
                body.digest[0] ^= 1;
            } else {
                digest.skeleton[0] ^= 1;
            }
        }
        let made = self.commit_all(all, |_| Ok(()))?;
        made.ok_or(EngineError::Stopping)
    }

    /// Adds of packs that only the states of earlier checkpoints need.
    fn adds_of_checkpoints(&self, before: &[CheckpointInfo]) -> Result<Vec<Dot>, EngineError> {
        let mut dots = Vec::new();
        for info in before.iter().filter(|info| info.accepted) {
            let Some(commit) = self.store.commit(info.commit)? else {
                continue;
            };
            for add in &commit.header().added {
                let in_force = self.store.dots_of(add.pack)?;
                dots.extend(in_force.into_iter().filter(|dot| dot.commit == info.commit));
            }
        }
        dots.truncate(ouisync_crypto::commit::MAX_RELEASED);
        Ok(dots)
    }

    /// Compares the newest checkpoint that is not known to be right, in the background.
    fn compare_next(&mut self) {
        let Some(readable) = self.readable.clone().filter(|_| !self.checkpoints.stale) else {
            return;
        };
        let busy = self.checkpoints.comparing.as_ref();
        if busy.is_some_and(|comparing| !comparing.thread.is_finished()) {
            return;
        }
        let arrived = self.store.next_arrival();
        let checkpoints = match self.store.checkpoints() {
            Ok(checkpoints) => checkpoints,
            Err(error) => {
                return warn!(folder = %self.id, %error, "can't list checkpoints");
            }
        };
        // An older one than the newest right one matters no more.
        let newer = checkpoints
            .iter()
            .take_while(|info| info.check != CheckpointCheck::Whole || !info.accepted);
        let candidate = newer.filter(|info| {
            info.check == CheckpointCheck::Blind
                && info.accepted
                && info.has_bytes
                && !self.checkpoints.undecided.contains(&(info.commit, arrived))
        });
        let Some(checkpoint) = candidate.map(|info| info.commit).next() else {
            return;
        };
        let Ok(Some(commit)) = self.store.commit(checkpoint) else {
            return;
        };
        let Ok(then) = self.roster().state_at(&commit.header().roster) else {
            return;
        };
        let roster = self.roster().clone();
        let (directory, sender) = (self.shared.directory().to_owned(), self.sender.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let work = move || {
            let compare = || -> Result<Option<bool>, EngineError> {
                let second = readable.checking(&directory)?;
                second.compare_state(checkpoint, &then, &roster, &stopped)
            };
            let result = compare();
            if let Err(error) = Readable::end_checking(&directory) {
                warn!(%error, "can't remove what a check left");
            }
            sender.send(Command::Run(Box::new(move |folder: &mut Folder| {
                folder.compared(checkpoint, arrived, result);
            })));
        };
        match self.surroundings.spawn("folder-compare", Box::new(work)) {
            Ok(thread) => self.checkpoints.comparing = Some(Comparing { stop, thread }),
            Err(error) => warn!(folder = %self.id, %error, "can't compare a checkpoint"),
        }
    }

    fn compared(
        &mut self,
        checkpoint: CommitId,
        arrived: u64,
        result: Result<Option<bool>, EngineError>,
    ) {
        let noted = match result {
            Ok(Some(right)) => {
                info!(folder = %self.id, %checkpoint, right, "compared a checkpoint with its commits");
                self.store.note_state(checkpoint, right)
            }
            Ok(None) => {
                self.checkpoints.undecided.insert((checkpoint, arrived));
                Ok(())
            }
            Err(error) => {
                warn!(folder = %self.id, %checkpoint, %error, "can't compare a checkpoint");
                self.checkpoints.undecided.insert((checkpoint, arrived));
                Ok(())
            }
        };
        if let Err(error) = noted {
            warn!(folder = %self.id, %checkpoint, %error, "can't note what a checkpoint is");
        }
        self.find_wrong();
    }

    /// Stops what goes on in the background and waits for it.
    pub(super) fn stop_comparing(&mut self) {
        if let Some(Comparing { stop, thread }) = self.checkpoints.comparing.take() {
            stop.store(true, Ordering::Relaxed);
            thread.join();
        }
    }
}
