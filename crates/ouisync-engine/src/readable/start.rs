//! Making the index anew: from the state that a checkpoint carries, and the commits that it doesn't cover; and comparing the
//! states of checkpoints with what the commits say.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ouisync_crypto::{
    commit::Commit,
    roster::{Roster, state::RosterState},
};
use ouisync_model::{
    id::{ChunkId, CommitId, PackId, Timestamp},
    operation::{CheckpointState, ChunkPlace, CommitBody, PackSize, PackTable},
    tree::{Tree, store::TreeStore},
};
use ouisync_store::{
    catalogue::Disposition,
    checkpoint::{CheckpointCheck, CheckpointError, CheckpointInfo},
    content::{ChunkPlaces, ChunkReader, ContentError, ContentReader},
    error::ErrorKind as StoreErrorKind,
    index::{
        Index, IndexError,
        state::{StateError, StateStream},
    },
    store::Store,
};
use tracing::{info, warn};

use super::{
    ARRIVAL, Applied, INDEX, REPLAY_BATCH, REPLAY_STEP, Readable, WITHDRAWALS, put_setting,
    setting, size_of,
};
use crate::error::EngineError;

/// Set while a state is being loaded: a crash leaves half of one.
const LOADING: &str = "loading";
/// The index that states are compared with, in a folder's directory.
const CHECKING: &str = "checking";

/// How making the index anew went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    /// The index says what the store's commits say.
    Done,
    /// Packs of the state that it starts from are still to come.
    Waiting,
}

/// Places of chunks by the tables of one commit.
pub(crate) struct Tables(BTreeMap<ChunkId, Vec<(PackId, ChunkPlace)>>);

impl Tables {
    pub(crate) fn new<'a>(tables: impl IntoIterator<Item = &'a PackTable>) -> Self {
        let mut places: BTreeMap<ChunkId, Vec<(PackId, ChunkPlace)>> = BTreeMap::new();
        for table in tables {
            for place in &table.chunks {
                places
                    .entry(place.chunk)
                    .or_default()
                    .push((table.pack, *place));
            }
        }
        Self(places)
    }

    /// The packs that hold the chunk.
    pub(crate) fn packs(&self, chunk: &ChunkId) -> impl Iterator<Item = PackId> + '_ {
        let places = self.0.get(chunk).into_iter().flatten();
        places.map(|(pack, _)| *pack)
    }
}

impl ChunkPlaces for Tables {
    fn places(&self, chunk: &ChunkId) -> Result<Vec<(PackId, ChunkPlace)>, IndexError> {
        Ok(self.0.get(chunk).cloned().unwrap_or_default())
    }
}

/// The state that a checkpoint's packs hold, as a stream.
struct StoredState {
    reader: ContentReader<Arc<Tables>, Arc<Store>>,
    chunk: Vec<u8>,
    read: usize,
}

impl Read for StoredState {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.chunk.len() {
            self.read = 0;
            let next = self.reader.next_chunk(&mut self.chunk);
            if next.map_err(io::Error::other)?.is_none() {
                self.chunk.clear();
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.chunk.len() - self.read);
        buffer[..count].copy_from_slice(&self.chunk[self.read..self.read + count]);
        self.read += count;
        Ok(count)
    }
}

impl Readable {
    /// The index was built on other commits than those that count now, or building it was interrupted.
    pub(crate) fn is_stale(&self) -> Result<bool, EngineError> {
        let dropped = self.store.dropped_through();
        Ok(setting(&self.index, LOADING)? != 0
            || setting(&self.index, WITHDRAWALS)? != self.store.withdrawals()
            || (dropped > 0 && setting(&self.index, ARRIVAL)? <= dropped))
    }

    /// Making the index anew was interrupted: nobody may read it.
    pub(crate) fn is_half(&self) -> Result<bool, EngineError> {
        Ok(setting(&self.index, LOADING)? != 0)
    }

    /// All that [`Self::restart`] needs is here.
    pub(crate) fn can_restart(&self) -> Result<bool, EngineError> {
        let Some(base) = self.base()? else {
            return Ok(true);
        };
        let (_, body) = self.open_checkpoint(base.commit)?;
        let Some(state) = &body.checkpoint else {
            return Ok(true);
        };
        Ok(self.stored_state(&body, state)?.is_some())
    }

    /// Makes the tree anew. What views recorded stays; nobody else may read meanwhile. While packs of the state to start from
    /// are missing the tree stays as it was.
    pub(crate) fn restart(&self, roster: &Roster) -> Result<Restart, EngineError> {
        match self.base()? {
            Some(base) => self.start_from(&base, roster),
            None => self.start_from_nothing(),
        }
    }

    /// Makes the tree anew as [`Self::restart`] does, from an older checkpoint or from the first commit, so that history reaches
    /// back to there. The bytes of all accepted commits that it doesn't cover are here, those of the past included; while one
    /// isn't, the tree stays as it was.
    pub(crate) fn lengthen(
        &self,
        from: Option<CommitId>,
        roster: &Roster,
    ) -> Result<Restart, EngineError> {
        let covered: HashSet<CommitId> = match from {
            Some(checkpoint) => self.covered(checkpoint)?.into_iter().collect(),
            None => HashSet::new(),
        };
        for commit in self.store.commits_without_bytes()? {
            if !covered.contains(&commit) && !self.store.has_past(commit)? {
                return Ok(Restart::Waiting);
            }
        }
        let Some(checkpoint) = from else {
            return self.start_from_nothing();
        };
        let info = self.store.checkpoint(checkpoint)?;
        let info = info.ok_or_else(|| checkpoint_failed(CheckpointError::NotOne(checkpoint)))?;
        self.start_from(&info, roster)
    }

    fn start_from_nothing(&self) -> Result<Restart, EngineError> {
        self.begin_loading()?;
        self.index.clear_tree()?;
        if self.index.history_start()?.checkpoint.is_some() {
            let mut batch = self.index.begin();
            batch.start_history(None)?;
            batch.commit()?;
        }
        self.end_loading()?;
        Ok(Restart::Done)
    }

    fn start_from(&self, base: &CheckpointInfo, roster: &Roster) -> Result<Restart, EngineError> {
        let (commit, body) = self.open_checkpoint(base.commit)?;
        let Some(state) = &body.checkpoint else {
            return Err(self.wrong(base, "it carries no state"));
        };
        let Some(source) = self.stored_state(&body, state)? else {
            return Ok(Restart::Waiting);
        };
        info!(checkpoint = %base.commit, "making the index from a checkpoint");
        self.begin_loading()?;
        self.index.clear_tree()?;
        self.start_history(base.commit, body.time)?;
        if let Err(error) = self.load(&commit, state, source, roster) {
            if error.kind() == StoreErrorKind::Corruption {
                return Err(self.wrong(base, &error.to_string()));
            }
            return Err(EngineError::internal(error.to_string()));
        }
        if base.check < CheckpointCheck::Whole {
            self.store
                .note_state(base.commit, true)
                .map_err(checkpoint_failed)?;
        }
        self.end_loading()?;
        Ok(Restart::Done)
    }

    fn begin_loading(&self) -> Result<(), EngineError> {
        let mut batch = self.index.begin();
        put_setting(&mut batch, LOADING, 1);
        batch.make_durable();
        Ok(batch.commit()?)
    }

    /// Leaves the index as an end of the process while it is made anew leaves it.
    #[cfg(test)]
    pub(crate) fn break_off(&self, cleared: bool) -> Result<(), EngineError> {
        self.begin_loading()?;
        if cleared {
            self.index.clear_tree()?;
        }
        Ok(())
    }

    /// History goes on as it was when all that the checkpoint covers was applied here since history began.
    fn start_history(&self, checkpoint: CommitId, time: Timestamp) -> Result<(), EngineError> {
        let start = self.index.history_start()?;
        let before: HashSet<CommitId> = match start.checkpoint {
            Some((before, _)) => self.covered(before)?.into_iter().collect(),
            None => HashSet::new(),
        };
        let covered = self.covered(checkpoint)?;
        let older = covered.len() < before.len();
        for commit in covered {
            if before.contains(&commit) && !older {
                continue;
            }
            let applied = self.index.applied_commit(&commit)?;
            let goes_on = |era| start.checkpoint.is_none() || era == start.era;
            if older || !applied.is_some_and(|applied| goes_on(applied.era)) {
                let mut batch = self.index.begin();
                batch.start_history(Some((checkpoint, time)))?;
                return Ok(batch.commit()?);
            }
        }
        Ok(())
    }

    /// Applies the commits that the state doesn't have, in causal order: what is recorded of one tells what was before it.
    fn end_loading(&self) -> Result<(), EngineError> {
        let mut tree = Tree::new(self.index.begin());
        let mut position = None;
        loop {
            let step = self.store.commits_in_order(position, REPLAY_STEP)?;
            let Some(last) = step.last() else { break };
            position = Some(*last);
            for (_, id) in step {
                if TreeStore::is_applied(tree.store(), &id)? {
                    continue;
                }
                let meta = self.store.commit_meta(id)?;
                if meta.is_some_and(|meta| meta.disposition == Disposition::Accepted)
                    && let Some(commit) = self.store.past_commit(id)?
                {
                    self.apply_one(&mut tree, &commit, None, &mut Applied::default())?;
                }
            }
            if tree.store().buffered_bytes() > REPLAY_BATCH {
                tree.into_store().commit()?;
                tree = Tree::new(self.index.begin());
            }
        }
        tree.into_store().commit()?;
        let mut batch = self.index.begin();
        put_setting(&mut batch, LOADING, 0);
        put_setting(&mut batch, ARRIVAL, self.store.next_arrival());
        put_setting(&mut batch, WITHDRAWALS, self.store.withdrawals());
        Ok(batch.commit()?)
    }

    /// Where to start from: what this device found right, or must believe because it never had the commits.
    fn base(&self) -> Result<Option<CheckpointInfo>, EngineError> {
        if let Some(whole) = self.store.start(CheckpointCheck::Whole)? {
            return Ok(Some(whole));
        }
        if self.store.base().is_none() {
            return Ok(None);
        }
        let blind = self.store.start(CheckpointCheck::Blind)?;
        blind.map(Some).ok_or_else(|| {
            EngineError::internal(
                "the folder's first commits are not here, and no checkpoint that stands in for them is right: \
                 another one has to come from an owner's device"
                    .to_owned(),
            )
        })
    }

    /// The commits that a checkpoint covers and that count, in causal order.
    fn covered(&self, checkpoint: CommitId) -> Result<Vec<CommitId>, EngineError> {
        let mut covered = Vec::new();
        self.store
            .visit_covered(checkpoint, &mut |commit| {
                if commit.accepted {
                    covered.push(commit.commit);
                }
            })
            .map_err(checkpoint_failed)?;
        Ok(covered)
    }

    /// The commit and what it says inside.
    pub(crate) fn open_checkpoint(
        &self,
        checkpoint: CommitId,
    ) -> Result<(Commit, CommitBody), EngineError> {
        let lost = || EngineError::internal(format!("checkpoint {checkpoint} can't be opened"));
        let commit = self.store.past_commit(checkpoint)?.ok_or_else(lost)?;
        let keys = self.read_keys().folder;
        let secret = keys.read_secret(&commit.header().epoch).ok_or_else(lost)?;
        let body = commit.open_body(secret).map_err(|_| lost())?;
        Ok((commit, body))
    }

    /// The packs of a checkpoint's state that are not here.
    pub(crate) fn lacks_of_state(
        &self,
        checkpoint: CommitId,
    ) -> Result<Vec<(PackId, PackSize)>, EngineError> {
        let (commit, body) = self.open_checkpoint(checkpoint)?;
        let mut lacks = BTreeMap::new();
        for table in &body.tables {
            if !self.store.has_pack(table.pack)? {
                let added = &commit.header().added;
                let size = match added.iter().find(|add| add.pack == table.pack) {
                    Some(add) => add.size,
                    None => size_of(table)?,
                };
                lacks.insert(table.pack, size);
            }
        }
        Ok(lacks.into_iter().collect())
    }

    /// The state's stream, when all its packs are here.
    fn stored_state(
        &self,
        body: &CommitBody,
        state: &CheckpointState,
    ) -> Result<Option<StoredState>, EngineError> {
        let places = Arc::new(Tables::new(&body.tables));
        let mut reader = ChunkReader::new(self.read_keys(), places, self.store.clone());
        let needs = match reader.packs_of(&state.content) {
            Ok(needs) => needs,
            Err(ContentError::MissingPack(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !needs.missing.is_empty() || !needs.complete {
            return Ok(None);
        }
        Ok(Some(StoredState {
            reader: ContentReader::new(reader, state.content.clone()),
            chunk: Vec::new(),
            read: 0,
        }))
    }

    fn load(
        &self,
        commit: &Commit,
        state: &CheckpointState,
        mut source: StoredState,
        roster: &Roster,
    ) -> Result<(), StateError> {
        let header = commit.header();
        let then = roster
            .state_at(&header.roster)
            .map_err(|_| StateError::Malformed("it names unknown entries of the roster"))?;
        let skeleton = self.store.skeleton(&header.parents, &then)?;
        self.index.load_state(&mut source, &state.digest, &skeleton)
    }

    /// Notes that a checkpoint is false.
    fn wrong(&self, checkpoint: &CheckpointInfo, reason: &str) -> EngineError {
        warn!(checkpoint = %checkpoint.commit, author = %checkpoint.author, reason, "a checkpoint is false");
        if let Err(error) = self.store.note_state(checkpoint.commit, false) {
            warn!(%error, "can't note that a checkpoint is false");
        }
        EngineError::internal(format!(
            "the checkpoint {} by {} is false: {reason}",
            checkpoint.commit, checkpoint.author
        ))
    }

    /// A second index beside the folder's own, to compare states with; it goes with [`Self::end_checking`].
    pub(crate) fn checking(&self, directory: &Path) -> Result<Self, EngineError> {
        let path = directory.join(CHECKING);
        Index::destroy(&path)?;
        let keys = self.read_keys();
        let content = keys.folder.content_keys().ok_or(EngineError::Locked)?;
        let index = Index::open(&path, &content)?;
        Ok(Self::over(index, self.store.clone(), keys, BTreeMap::new()))
    }

    /// Removes the second index, also one that a crash left.
    pub(crate) fn end_checking(directory: &Path) -> Result<(), EngineError> {
        Ok(Index::destroy(&directory.join(CHECKING))?)
    }

    /// Whether the state of a checkpoint is what its commits say; on an index of its own. `None`: that can't be told (yet).
    pub(crate) fn compare_state(
        &self,
        checkpoint: CommitId,
        then: &RosterState,
        roster: &Roster,
        stop: &AtomicBool,
    ) -> Result<Option<bool>, EngineError> {
        let (commit, body) = self.open_checkpoint(checkpoint)?;
        let Some(state) = &body.checkpoint else {
            return Ok(Some(false));
        };
        let Some(mut theirs) = self.stored_state(&body, state)? else {
            return Ok(None);
        };
        let covered = self.covered(checkpoint)?;
        if let Some(base) = self.store.start(CheckpointCheck::Whole)?
            && covered.contains(&base.commit)
        {
            let (commit, body) = self.open_checkpoint(base.commit)?;
            if let Some(state) = &body.checkpoint
                && let Some(source) = self.stored_state(&body, state)?
                && let Err(error) = self.load(&commit, state, source, roster)
            {
                return Err(EngineError::internal(error.to_string()));
            }
        }
        let mut tree = Tree::new(self.index.begin());
        for (count, id) in covered.into_iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            if self.index.is_applied(&id)? {
                continue;
            }
            let Some(commit) = self.store.commit(id)? else {
                return Ok(None);
            };
            self.apply_one(&mut tree, &commit, None, &mut Applied::default())?;
            if count % REPLAY_STEP == 0 && tree.store().buffered_bytes() > REPLAY_BATCH {
                tree.into_store().commit()?;
                tree = Tree::new(self.index.begin());
            }
        }
        tree.into_store().commit()?;
        let skeleton = self
            .store
            .skeleton(&commit.header().parents, then)
            .map_err(checkpoint_failed)?;
        let snapshot = self.index.snapshot();
        let mut ours = StateStream::new(&snapshot, &skeleton);
        let same = same_bytes(&mut ours, &mut theirs, stop)?;
        Ok(same.map(|same| same && ours.digest() == state.digest))
    }
}

/// Whether two streams give the same; `None` when told to stop.
fn same_bytes(
    left: &mut dyn Read,
    right: &mut dyn Read,
    stop: &AtomicBool,
) -> Result<Option<bool>, EngineError> {
    let failed = |source| EngineError::Io {
        path: "state of a checkpoint".into(),
        source,
    };
    let (mut one, mut two) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let (first, second) = (
            fill(left, &mut one).map_err(failed)?,
            fill(right, &mut two).map_err(failed)?,
        );
        if one[..first] != two[..second] {
            return Ok(Some(false));
        }
        if first == 0 {
            return Ok(Some(true));
        }
    }
}

/// Reads until the buffer is full or the stream ends.
fn fill(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// What a failed use of a checkpoint means to whoever asked for it.
pub(crate) fn checkpoint_failed(error: CheckpointError) -> EngineError {
    match error {
        CheckpointError::Store(error) => error.into(),
        error => EngineError::internal(error.to_string()),
    }
}

/// Removes a checking index that a crash left.
pub(super) fn clean_up(directory: &Path) {
    if directory.join(CHECKING).exists()
        && let Err(error) = Readable::end_checking(directory)
    {
        warn!(%error, index = INDEX, "can't remove what a check left");
    }
}
