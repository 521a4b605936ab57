//! A folder's tree while it can be read: the index over the store's commits.
//!
//! The index is derived: when it is damaged, or built on commits that were quarantined since, it is made anew.

pub(crate) mod start;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use ouisync_crypto::{commit::Commit, keys::FolderKeys, pack::frames_of_plaintext, roster::Roster};
use ouisync_model::{
    id::{ChunkId, CommitId, MemberId, NodeId, PackId},
    name::Name,
    operation::{ChunkPlace, CommitBody, FileContent, Operation, PackSize, PackTable},
    tree::{
        CommitContext, Tree,
        conflict::Conflict,
        entry::Entry,
        moment::CommitTime,
        store::{TreeReader, TreeStore},
        tally::{Recount, Tally},
        view::View,
    },
};
use ouisync_store::{
    content::{ChunkPlaces, ChunkReader, ContentReader, PackNeeds, ReadKeys},
    index::{Index, IndexSnapshot, batch::IndexBatch, history::AppliedCommit},
    store::{Store, packs::PackState},
};
use tracing::{info, warn};

use crate::{
    drafts::{self, Heard},
    error::{EngineError, ErrorKind},
    merging::Suspects,
    past::Timeline,
};

const ARRIVAL: &str = "arrival";
/// How often accepted commits had been quarantined when the index was built: one that applied such a commit is made anew.
const WITHDRAWALS: &str = "withdrawals";
/// The index in a folder's directory.
const INDEX: &str = "index";
/// Bytes of changes after which a replay commits.
const REPLAY_BATCH: usize = 8 << 20;
/// Commits read from the store at a time.
const REPLAY_STEP: usize = 64;
/// Directories above a node that its path names.
const MAX_DEPTH: usize = 64;

/// The tree of an unlocked folder.
pub(crate) struct Readable {
    pub(crate) index: Index,
    store: Arc<Store>,
    keys: RwLock<ReadKeys>,
    names: RwLock<BTreeMap<MemberId, String>>,
    /// Where commits that were applied may have made conflicts.
    suspects: Mutex<Suspects>,
    /// Conflicts, and where they have to be counted again.
    tally: Mutex<Tally>,
    recount: Mutex<Recount>,
    /// A reader that was used last: its opened frames are likely to be wanted again.
    idle: Mutex<Option<ChunkReader<Index, Arc<Store>>>>,
    /// The last timeline read, with what it was read at.
    timeline: Mutex<Option<DatedTimeline>>,
    /// Packs that are not here and that something waits for: those of them that were offloaded are to be fetched.
    needed: Mutex<BTreeSet<PackId>>,
}

/// What a timeline was read at: the position, the number of withdrawals, and the era.
type TimelineAt = (u64, u64, u32);
type DatedTimeline = (TimelineAt, Arc<Timeline>);

/// What applying commits changed.
#[derive(Default)]
pub(crate) struct Applied {
    /// Directories were marked dirty.
    pub(crate) tree_changed: bool,
    /// Places to look at for conflicts.
    suspects: Suspects,
    /// Directories in which conflicts have to be counted again.
    recount: Recount,
    /// What others tell of their drafts.
    pub(crate) drafts: Vec<Heard>,
}

impl Readable {
    /// Opens the index of the folder in `directory` and applies what the store has more. Makes it anew when it is of no use.
    pub(crate) fn open(
        directory: &Path,
        store: Arc<Store>,
        keys: &FolderKeys,
        names: BTreeMap<MemberId, String>,
        roster: &Roster,
    ) -> Result<Self, EngineError> {
        start::clean_up(directory);
        let content = keys.content_keys().ok_or(EngineError::Locked)?;
        let path = directory.join(INDEX);
        let index = match Index::open(&path, &content) {
            Err(error) if ErrorKind::from(error.kind()) == ErrorKind::Corruption => {
                warn!(%error, "making a damaged index anew");
                Index::destroy(&path)?;
                Index::open(&path, &content)?
            }
            result => result?,
        };
        let keys = ReadKeys {
            chunk_ids: content.chunk_id,
            folder: Arc::new(keys.clone()),
        };
        let readable = Self::over(index, store, keys, names);
        if readable.is_stale()?
            && let Err(error) = readable.restart(roster)
        {
            warn!(%error, "can't make the index anew");
        }
        readable.replay()?;
        Ok(readable)
    }

    fn over(
        index: Index,
        store: Arc<Store>,
        keys: ReadKeys,
        names: BTreeMap<MemberId, String>,
    ) -> Self {
        Self {
            index,
            store,
            keys: RwLock::new(keys),
            names: RwLock::new(names),
            suspects: Mutex::new(Suspects::everything()),
            tally: Mutex::default(),
            recount: Mutex::new(Recount::everything()),
            idle: Mutex::default(),
            timeline: Mutex::default(),
            needed: Mutex::default(),
        }
    }

    /// New epochs are known.
    pub(crate) fn set_keys(&self, keys: &FolderKeys) {
        let mut known = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        known.folder = Arc::new(keys.clone());
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// New members' names are known.
    pub(crate) fn set_names(&self, names: BTreeMap<MemberId, String>) {
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Applies the accepted commits that the store has and the index hasn't. Of no effect while the index has to be made anew.
    pub(crate) fn replay(&self) -> Result<Applied, EngineError> {
        if self.is_stale()? {
            return Ok(Applied::default());
        }
        self.replay_from(setting(&self.index, ARRIVAL)?.max(1))
    }

    /// Applies the accepted commits from this position in the order of arrival on.
    fn replay_from(&self, mut next: u64) -> Result<Applied, EngineError> {
        let mut applied = Applied::default();
        if next >= self.store.next_arrival() {
            return Ok(applied);
        }
        let count = self.store.next_arrival() - next;
        if count > 1000 {
            info!(commits = count, "building the index");
        }
        let mut tree = Tree::new(self.index.begin());
        loop {
            let arrivals = self.store.arrivals(next, REPLAY_STEP)?;
            let Some(last) = arrivals.last() else { break };
            next = last.arrival + 1;
            for arrived in &arrivals {
                if let Some(commit) = self.store.commit(arrived.commit)? {
                    self.apply_one(&mut tree, &commit, None, &mut applied)?;
                }
            }
            if tree.store().buffered_bytes() > REPLAY_BATCH {
                self.finish(tree, next, &mut applied)?;
                tree = Tree::new(self.index.begin());
            }
        }
        self.finish(tree, next, &mut applied)?;
        Ok(applied)
    }

    /// Applies an own commit whose body is at hand, together with `also`.
    pub(crate) fn apply_own(
        &self,
        commits: &[(Commit, CommitBody)],
        also: impl FnOnce(&mut IndexBatch) -> Result<(), EngineError>,
    ) -> Result<Applied, EngineError> {
        // Whatever came before these must be in.
        let mut applied = Applied::default();
        let next = setting(&self.index, ARRIVAL)?.max(1);
        let own: BTreeMap<CommitId, &CommitBody> = commits
            .iter()
            .map(|(commit, body)| (commit.id(), body))
            .collect();
        let mut tree = Tree::new(self.index.begin());
        let arrivals = self.store.arrivals(next, usize::MAX)?;
        let next = arrivals.last().map_or(next, |last| last.arrival + 1);
        for arrived in arrivals {
            if let Some(commit) = self.store.commit(arrived.commit)? {
                self.apply_one(
                    &mut tree,
                    &commit,
                    own.get(&arrived.commit).copied(),
                    &mut applied,
                )?;
            }
        }
        also(tree.store_mut())?;
        self.finish(tree, next, &mut applied)?;
        Ok(applied)
    }

    fn finish(
        &self,
        tree: Tree<IndexBatch>,
        next: u64,
        applied: &mut Applied,
    ) -> Result<(), EngineError> {
        let mut batch = tree.into_store();
        put_setting(&mut batch, ARRIVAL, next);
        put_setting(&mut batch, WITHDRAWALS, self.store.withdrawals());
        batch.commit()?;
        // Not before they can be seen.
        self.suspect(std::mem::take(&mut applied.suspects));
        self.count_again(std::mem::take(&mut applied.recount));
        Ok(())
    }

    /// The tree was made anew: everything has to be looked at.
    pub(crate) fn was_made_anew(&self) {
        self.suspect(Suspects::everything());
        self.count_again(Recount::everything());
    }

    fn count_again(&self, recount: Recount) {
        let mut known = self.recount.lock().unwrap_or_else(PoisonError::into_inner);
        known.append(recount);
    }

    /// Has these places looked at for conflicts.
    fn suspect(&self, suspects: Suspects) {
        let mut known = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        known.append(suspects);
    }

    /// Where to look for conflicts; the caller looks.
    pub(crate) fn take_suspects(&self) -> Suspects {
        std::mem::take(&mut *self.suspects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn apply_one(
        &self,
        tree: &mut Tree<IndexBatch>,
        commit: &Commit,
        body: Option<&CommitBody>,
        applied: &mut Applied,
    ) -> Result<(), EngineError> {
        if TreeStore::is_applied(tree.store(), &commit.id())? {
            return Ok(());
        }
        let header = commit.header();
        let opened;
        let body = match body {
            Some(body) => body,
            None => {
                let keys = self
                    .keys
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .folder
                    .clone();
                let Some(secret) = keys.read_secret(&header.epoch) else {
                    return Err(EngineError::internal(format!(
                        "no key for commit {}",
                        commit.id()
                    )));
                };
                match commit.open_body(secret) {
                    Ok(body) => {
                        drafts::hear(&mut applied.drafts, header, &body);
                        opened = body;
                        &opened
                    }
                    Err(error) => {
                        // A writer's device is faulty or hostile; everybody skips this commit alike.
                        warn!(commit = %commit.id(), author = %header.author, %error, "skipping a commit");
                        // It counts as one without operations, as it does in a checkpoint.
                        opened = CommitBody::default();
                        &opened
                    }
                }
            }
        };
        let batch = tree.store_mut();
        // Nothing in the tree needs a checkpoint's packs: it is the checkpoints after it that release them.
        if header.checkpoint.is_none() {
            let is_added =
                |table: &&PackTable| header.added.iter().any(|add| add.pack == table.pack);
            batch.add_packs(&commit.id(), body.tables.iter().filter(is_added))?;
        }
        batch.note_lamport(header.lamport);
        let context = CommitContext {
            commit: commit.id(),
            lamport: header.lamport,
            author: header.author,
            time: body.time,
        };
        let era = tree.store().history_start()?.era;
        if let Some(counts) = tree.record(&context, era, &body.operations)? {
            let time = CommitTime {
                commit: context.commit,
                lamport: header.lamport,
                author: header.author,
                sequence: header.sequence,
                time: body.time,
                parents: header.parents.clone(),
            };
            tree.store_mut()
                .put_applied(&AppliedCommit { time, era, counts })?;
        }
        let changes = tree.apply(&context, &body.operations)?;
        let batch = tree.store_mut();
        batch.account(&changes)?;
        for directory in changes.directories.iter().chain(&changes.subtrees) {
            batch.mark_dirty(*directory);
        }
        applied.tree_changed |= !changes.directories.is_empty() || !changes.subtrees.is_empty();
        applied.recount.add(&changes);
        applied.suspects.append(Suspects {
            all: false,
            nodes: body.operations.iter().map(Operation::node).collect(),
            subtrees: changes.subtrees.clone(),
        });
        if !changes.subtrees.is_empty() {
            self.mark_below(tree, &changes.subtrees)?;
        }
        Ok(())
    }

    /// Marks every directory below the given ones.
    fn mark_below<'a>(
        &self,
        tree: &mut Tree<IndexBatch>,
        subtrees: impl IntoIterator<Item = &'a NodeId>,
    ) -> Result<(), EngineError> {
        let mut below = Vec::new();
        let label = |member: &MemberId| self.label(member);
        for directory in subtrees {
            let view = tree.view(&label);
            let mut walk = view.walk(*directory)?;
            while let Some((_, entry)) = walk.step()? {
                if entry.is_directory() {
                    below.extend(entry.nodes());
                }
            }
        }
        for directory in below {
            tree.store_mut().mark_dirty(directory);
        }
        Ok(())
    }

    /// How a member is called in names of conflicts.
    pub(crate) fn label(&self, member: &MemberId) -> String {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names
            .get(member)
            .cloned()
            .unwrap_or_else(|| member.to_string()[..8].to_owned())
    }

    /// The visible entries of a directory; none when it isn't visible.
    pub(crate) fn list(&self, directory: NodeId) -> Result<Vec<Entry>, EngineError> {
        let label = |member: &MemberId| self.label(member);
        let snapshot = self.index.snapshot();
        Ok(View::new(&snapshot, &label)
            .listing(directory)?
            .unwrap_or_default())
    }

    /// Which packs content needs.
    pub(crate) fn packs_of(&self, content: &FileContent) -> Result<PackNeeds, EngineError> {
        Ok(self.chunk_reader().packs_of(content)?)
    }

    /// Something here waits for packs: those that were offloaded are fetched, once the folder looks.
    pub(crate) fn need(&self, packs: &[PackId]) {
        if !packs.is_empty() {
            let mut needed = self.needed.lock().unwrap_or_else(PoisonError::into_inner);
            needed.extend(packs);
        }
    }

    /// What is needed since the last look.
    pub(crate) fn take_needed(&self) -> Vec<PackId> {
        let mut needed = self.needed.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *needed).into_iter().collect()
    }

    /// Reads content.
    pub(crate) fn content(&self, content: FileContent) -> ContentReader<Index, Arc<Store>> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        ContentReader::new(idle.unwrap_or_else(|| self.chunk_reader()), content)
    }

    /// Takes a reader back for the next content.
    pub(crate) fn give_back(&self, reader: ChunkReader<Index, Arc<Store>>) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
    }

    /// The visible entry of this name in a directory.
    pub(crate) fn entry(
        &self,
        directory: NodeId,
        name: &Name,
    ) -> Result<Option<Entry>, EngineError> {
        let label = |member: &MemberId| self.label(member);
        let snapshot = self.index.snapshot();
        Ok(View::new(&snapshot, &label).entry(directory, name)?)
    }

    /// Runs `action` on what the tree shows now.
    pub(crate) fn with_view<T>(
        &self,
        action: impl FnOnce(&View<'_, IndexSnapshot>) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let label = |member: &MemberId| self.label(member);
        let snapshot = self.index.snapshot();
        action(&View::new(&snapshot, &label))
    }

    /// The conflict that a node was part of at a moment.
    pub(crate) fn conflict_in(
        &self,
        snapshot: &IndexSnapshot,
        node: NodeId,
    ) -> Result<Option<Conflict>, EngineError> {
        let label = |member: &MemberId| self.label(member);
        Ok(View::new(snapshot, &label).conflict_of(node)?)
    }

    /// A live pack that holds the chunk, and where.
    pub(crate) fn stored_in(&self, chunk: &ChunkId) -> Option<(PackId, PackSize, ChunkPlace)> {
        let places = self.index.places(chunk).ok()?;
        places.iter().find_map(|(pack, place)| {
            let info = self.store.pack(*pack).ok()??;
            matches!(info.state, PackState::Pending | PackState::Stored)
                .then_some((*pack, info.size, *place))
        })
    }

    /// Number of visible conflict entries. The first time, and after large changes, this walks the tree.
    pub(crate) fn count_conflicts(&self) -> Result<u64, EngineError> {
        let label = |member: &MemberId| self.label(member);
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let recount =
            std::mem::take(&mut *self.recount.lock().unwrap_or_else(PoisonError::into_inner));
        let snapshot = self.index.snapshot();
        let counted = tally.count(&View::new(&snapshot, &label), recount);
        Ok(counted.inspect_err(|_| self.count_again(Recount::everything()))?)
    }

    /// What a commit says; `None` when it can't be opened, as everybody skips it then.
    pub(crate) fn body(&self, commit: &Commit) -> Option<CommitBody> {
        let keys = self
            .keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .folder
            .clone();
        let secret = keys.read_secret(&commit.header().epoch)?;
        commit.open_body(secret).ok()
    }

    /// Where a node is, or was last, by the placements in force: for people to read.
    pub(crate) fn last_path(&self, node: NodeId) -> Result<String, EngineError> {
        let (mut parts, mut at) = (Vec::new(), node);
        while at != NodeId::ROOT && parts.len() < MAX_DEPTH {
            let placement = TreeReader::node(&self.index, at)?.and_then(|state| state.placement);
            let Some(placement) = placement else { break };
            parts.push(placement.name.to_string());
            at = placement.parent;
        }
        parts.reverse();
        Ok(parts.join("/"))
    }

    fn read_keys(&self) -> ReadKeys {
        let keys = self.keys.read();
        keys.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads single chunks.
    pub(crate) fn chunk_reader(&self) -> ChunkReader<Index, Arc<Store>> {
        ChunkReader::new(self.read_keys(), self.index.clone(), self.store.clone())
    }

    /// A pack's size: as the store knows it, else as its table says, since a pack is of the least class that holds its chunks.
    pub(crate) fn pack_size(&self, pack: &PackId) -> Result<PackSize, EngineError> {
        if let Some(info) = self.store.pack(*pack)? {
            return Ok(info.size);
        }
        size_of(&self.index.pack_table(pack)?)
    }

    /// What the timeline depends on; ask before the index is read.
    pub(crate) fn timeline_at(&self) -> Result<TimelineAt, EngineError> {
        let era = self.index.history_start()?.era;
        Ok((self.index.position().commits, self.store.withdrawals(), era))
    }

    /// The timeline as `read` reads it, unless nothing was applied since it was read last.
    pub(crate) fn timeline(
        &self,
        at: TimelineAt,
        read: impl FnOnce(&Store) -> Result<Timeline, EngineError>,
    ) -> Result<Arc<Timeline>, EngineError> {
        let mut known = self.timeline.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read_at, timeline)) = &*known
            && *read_at == at
        {
            return Ok(timeline.clone());
        }
        let timeline = Arc::new(read(&self.store)?);
        *known = Some((at, timeline.clone()));
        Ok(timeline)
    }

    /// Reads long chunk lists that have come, so that use of their chunks is counted.
    pub(crate) fn supply_lists(&self) -> Result<(), EngineError> {
        for (list, content) in self.index.pending_lists(16)? {
            let needs = self.packs_of(&content)?;
            if !needs.complete {
                self.need(&needs.missing);
                continue;
            }
            let mut reader = self.content(content);
            let chunks = reader.chunks()?.to_vec();
            let mut batch = self.index.begin();
            batch.supply_list(list, &chunks)?;
            batch.commit()?;
        }
        Ok(())
    }
}

/// The size of a pack as its table says: the least class that holds its chunks.
fn size_of(table: &PackTable) -> Result<PackSize, EngineError> {
    let end = table
        .chunks
        .iter()
        .map(|place| u64::from(place.offset) + u64::from(place.stored))
        .max();
    let frames = frames_of_plaintext(0..end.unwrap_or(1)).end;
    PackSize::for_frames(frames.into()).ok_or_else(|| {
        EngineError::internal(format!("the table of pack {} is too long", table.pack))
    })
}

fn setting(index: &Index, name: &str) -> Result<u64, EngineError> {
    let bytes = index
        .setting(name)?
        .and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    Ok(bytes.map_or(0, u64::from_le_bytes))
}

fn put_setting(batch: &mut IndexBatch, name: &str, value: u64) {
    batch.put_setting(name, Some(&value.to_le_bytes()));
}
