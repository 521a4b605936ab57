//! A folder in memory for tests: the model's tree, content by chunk, and peers that exchange commits when told to.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io::Read,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use ouisync_engine::{
    error::{EngineError, ErrorKind},
    view::{
        ContentStream, DraftStep, FolderAccess, FolderView, ViewControl, ViewEvent,
        ViewEventSender, ViewEvents, ViewKey, ViewStatus, view_events,
    },
};
use ouisync_model::{
    id::{ChunkId, CommitId, Lamport, MemberId, NodeId, PackId, Timestamp},
    name::Name,
    operation::{ChunkRef, FileContent, FileData, Operation, Value},
    tree::{Changes, CommitContext, Tree, conflict::Conflict, entry::Entry, memory::MemoryTree},
};

mod stream;

use stream::{Stream, chunk_id};

const CHUNK: usize = 64 * 1024;

/// One member's folder.
pub(crate) struct Fake {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    member: MemberId,
    tree: Tree<MemoryTree>,
    log: Vec<(CommitContext, Vec<Operation>)>,
    known: HashSet<CommitId>,
    lamport: u64,
    commits: u64,
    marks: BTreeMap<NodeId, u64>,
    read_marks: BTreeMap<NodeId, u64>,
    next_mark: u64,
    records: BTreeMap<ViewKey, Vec<u8>>,
    chunks: HashMap<ChunkId, Bytes>,
    withheld: HashMap<ChunkId, Bytes>,
    withholding: bool,
    writable: bool,
    removed: bool,
    status: ViewStatus,
    control: Option<Arc<dyn ViewControl>>,
    events: Option<ViewEventSender>,
    ingested: u64,
    /// Of content that was opened.
    bytes_read: Arc<AtomicU64>,
    failing: bool,
    lookups: u64,
}

impl Fake {
    pub(crate) fn new(member: u8) -> Arc<Self> {
        let state = State {
            member: MemberId::from_bytes([member; 32]),
            tree: Tree::new(MemoryTree::new()),
            log: Vec::new(),
            known: HashSet::new(),
            lamport: 0,
            commits: 0,
            marks: BTreeMap::new(),
            read_marks: BTreeMap::new(),
            next_mark: 0,
            records: BTreeMap::new(),
            chunks: HashMap::new(),
            withheld: HashMap::new(),
            withholding: false,
            writable: true,
            removed: false,
            status: ViewStatus::default(),
            control: None,
            events: None,
            ingested: 0,
            bytes_read: Arc::default(),
            failing: false,
            lookups: 0,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    pub(crate) fn view(self: &Arc<Self>) -> FolderView {
        FolderView::new(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn set_writable(&self, writable: bool) {
        self.state().writable = writable;
    }

    /// The device is no longer a member.
    pub(crate) fn remove(&self) {
        let mut state = self.state();
        state.writable = false;
        state.removed = true;
    }

    /// What the view told last.
    pub(crate) fn status(&self) -> ViewStatus {
        self.state().status.clone()
    }

    pub(crate) fn withhold(&self) {
        self.state().withholding = true;
    }

    pub(crate) fn set_failing(&self, failing: bool) {
        self.state().failing = failing;
    }

    /// Lets up to `count` withheld chunks come.
    pub(crate) fn deliver(&self, count: usize) -> usize {
        let mut state = self.state();
        let some: Vec<_> = state.withheld.keys().copied().take(count).collect();
        for chunk in &some {
            let bytes = state.withheld.remove(chunk).unwrap();
            state.chunks.insert(*chunk, bytes);
        }
        let packs = some
            .iter()
            .map(|chunk| PackId::from_bytes(*chunk.as_bytes()))
            .collect();
        state.send(ViewEvent::PacksArrived(packs));
        some.len()
    }

    /// Tells of another member's draft.
    pub(crate) fn draft(&self, step: DraftStep) {
        self.state().send(ViewEvent::Drafts(vec![step]));
    }

    /// Lets some of the other's content come.
    pub(crate) fn copy_content(&self, other: &Self, chunks: &[ChunkRef]) {
        let come: Vec<_> = {
            let other = other.state();
            let come = chunks.iter().map(|chunk| chunk.chunk);
            come.map(|chunk| (chunk, other.chunks[&chunk].clone()))
                .collect()
        };
        let packs = come
            .iter()
            .map(|(chunk, _)| PackId::from_bytes(*chunk.as_bytes()))
            .collect();
        let mut state = self.state();
        state.chunks.extend(come);
        state.send(ViewEvent::PacksArrived(packs));
    }

    /// The chunks of a file in the root.
    pub(crate) fn chunks_of(&self, name: &str) -> Vec<ChunkRef> {
        let entry = self.entry_at(name).expect("a file of this name");
        match entry.value {
            Value::File(FileContent {
                data: FileData::Chunks(chunks),
                ..
            }) => chunks,
            value => panic!("{name} is {value:?}"),
        }
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.state().send(ViewEvent::Paused(paused));
    }

    pub(crate) fn ingested(&self) -> u64 {
        self.state().ingested
    }

    pub(crate) fn bytes_read(&self) -> u64 {
        self.state().bytes_read.load(Ordering::Relaxed)
    }

    /// Records read one by one.
    pub(crate) fn lookups(&self) -> u64 {
        self.state().lookups
    }

    /// All records of the view.
    pub(crate) fn view_records(&self) -> Vec<(ViewKey, Vec<u8>)> {
        let state = self.state();
        let records = state.records.iter();
        records
            .map(|(key, bytes)| (key.clone(), bytes.clone()))
            .collect()
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.state().status.settled
    }

    pub(crate) fn commits(&self) -> usize {
        self.state().log.len()
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        let state = self.state();
        state
            .status
            .problems
            .iter()
            .map(|problem| {
                format!(
                    "{}: {}",
                    problem.path.clone().unwrap_or_default(),
                    problem.message
                )
            })
            .collect()
    }

    /// Merges all of `other`'s commits.
    pub(crate) fn pull(&self, other: &Self) {
        let (log, chunks) = {
            let other = other.state();
            (other.log.clone(), other.chunks.clone())
        };
        let mut state = self.state();
        for (id, bytes) in chunks {
            if !state.chunks.contains_key(&id) {
                let withholding = state.withholding;
                let to = if withholding {
                    &mut state.withheld
                } else {
                    &mut state.chunks
                };
                to.insert(id, bytes);
            }
        }
        let mut any = false;
        for (context, operations) in log {
            if state.known.insert(context.commit) {
                state.merge(context, operations);
                any = true;
            }
        }
        if any {
            state.send(ViewEvent::TreeChanged);
        }
    }

    /// Asks for a scan and waits until everything is settled.
    #[track_caller]
    pub(crate) fn settle(&self) {
        let control = self.state().control.clone().expect("attached");
        control.rescan();
        self.wait_until("settled", |status| status.settled);
    }

    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, done: impl Fn(&ViewStatus) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut state = self.state();
        while !done(&state.status) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not {what} in time; {:?}", state.status);
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// What the tree shows: path, and content or `None` for a directory.
    pub(crate) fn tree(&self) -> BTreeMap<String, Option<Vec<u8>>> {
        let state = self.state();
        let mut shown = BTreeMap::new();
        let mut next = vec![(String::new(), NodeId::ROOT)];
        while let Some((path, node)) = next.pop() {
            for entry in state.listing(node) {
                let path = format!("{path}/{}", String::from_utf8_lossy(entry.name.as_bytes()));
                let content = match &entry.value {
                    Value::Directory => {
                        next.push((path.clone(), entry.node));
                        None
                    }
                    Value::File(content) => Some(state.bytes(content)),
                    Value::Symlink(target) => Some([b"-> ", target.as_slice()].concat()),
                    Value::Deleted => unreachable!(),
                };
                shown.insert(path, content);
            }
        }
        shown
    }

    pub(crate) fn entry_at(&self, name: &str) -> Option<Entry> {
        let name = Name::new(name).unwrap();
        self.state()
            .listing(NodeId::ROOT)
            .into_iter()
            .find(|entry| entry.name == name)
    }
}

fn label(member: &MemberId) -> String {
    format!("device {}", member.as_bytes()[0])
}

impl State {
    fn send(&self, event: ViewEvent) {
        if let Some(events) = &self.events {
            let _ = events.send(event);
        }
    }

    fn listing(&self, node: NodeId) -> Vec<Entry> {
        self.tree
            .view(&label)
            .listing(node)
            .unwrap()
            .unwrap_or_default()
    }

    fn merge(&mut self, context: CommitContext, operations: Vec<Operation>) {
        self.lamport = self.lamport.max(context.lamport.0);
        let changes = self.tree.apply(&context, &operations).unwrap();
        self.mark(&changes);
        self.log.push((context, operations));
    }

    fn mark(&mut self, changes: &Changes) {
        let label = |_: &MemberId| String::new();
        let mut marked = BTreeSet::new();
        for node in changes.directories.iter().chain(&changes.subtrees) {
            marked.extend(self.tree.view(&label).canonical(*node).unwrap());
        }
        let mut below: Vec<_> = changes.subtrees.iter().copied().collect();
        while let Some(node) = below.pop() {
            for entry in self.listing(node).into_iter().filter(Entry::is_directory) {
                marked.insert(entry.node);
                below.push(entry.node);
            }
        }
        for node in marked {
            self.next_mark += 1;
            self.marks.insert(node, self.next_mark);
        }
    }

    fn bytes(&self, content: &FileContent) -> Vec<u8> {
        match &content.data {
            FileData::Inline(_, bytes) => bytes.clone(),
            FileData::Chunks(chunks) => chunks
                .iter()
                .flat_map(|chunk| {
                    self.chunks
                        .get(&chunk.chunk)
                        .or(self.withheld.get(&chunk.chunk))
                        .expect("a known chunk")
                        .to_vec()
                })
                .collect(),
            FileData::Indirect(_) => unreachable!(),
        }
    }

    fn write(&mut self, records: Vec<(ViewKey, Option<Vec<u8>>)>) {
        for (key, value) in records {
            match value {
                Some(value) => self.records.insert(key, value),
                None => self.records.remove(&key),
            };
        }
    }
}

fn unavailable(why: &str) -> EngineError {
    EngineError::Store {
        message: why.to_owned(),
        kind: ErrorKind::Unavailable,
    }
}

impl FolderAccess for Fake {
    fn attach(&self, control: Arc<dyn ViewControl>) -> Result<ViewEvents, EngineError> {
        let (sender, receiver) = view_events();
        let mut state = self.state();
        state.control = Some(control);
        state.events = Some(sender);
        state.status = ViewStatus::default();
        Ok(receiver)
    }

    fn list(&self, directory: NodeId) -> Result<Vec<Entry>, EngineError> {
        Ok(self.state().listing(directory))
    }

    fn conflict(&self, node: NodeId) -> Result<Option<Conflict>, EngineError> {
        Ok(self.state().tree.view(&label).conflict_of(node).unwrap())
    }

    fn dirty(&self, limit: usize) -> Result<Vec<NodeId>, EngineError> {
        let mut state = self.state();
        let marks: Vec<_> = state
            .marks
            .iter()
            .take(limit)
            .map(|(node, mark)| (*node, *mark))
            .collect();
        state.read_marks.extend(marks.iter().copied());
        Ok(marks.into_iter().map(|(node, _)| node).collect())
    }

    fn mark_dirty(&self, directories: &[NodeId]) -> Result<(), EngineError> {
        let mut state = self.state();
        for node in directories {
            state.next_mark += 1;
            let mark = state.next_mark;
            state.marks.insert(*node, mark);
        }
        Ok(())
    }

    fn record(&self, key: &ViewKey) -> Result<Option<Vec<u8>>, EngineError> {
        let mut state = self.state();
        state.lookups += 1;
        Ok(state.records.get(key).cloned())
    }

    fn records(&self, group: [u8; 16]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, EngineError> {
        let state = self.state();
        let from = ViewKey {
            group,
            item: Vec::new(),
        };
        let found = state
            .records
            .range(from..)
            .take_while(|(key, _)| key.group == group);
        Ok(found
            .map(|(key, value)| (key.item.clone(), value.clone()))
            .collect())
    }

    fn update(
        &self,
        records: Vec<(ViewKey, Option<Vec<u8>>)>,
        clean: &[NodeId],
    ) -> Result<(), EngineError> {
        let mut state = self.state();
        state.write(records);
        for node in clean {
            if state.marks.get(node) == state.read_marks.get(node) {
                state.marks.remove(node);
            }
        }
        Ok(())
    }

    fn ingest(
        &self,
        source: &mut dyn Read,
        _: u64,
        _: Option<&FileContent>,
    ) -> Result<FileContent, EngineError> {
        let mut bytes = Vec::new();
        let fail = |error: std::io::Error| EngineError::Store {
            message: error.to_string(),
            kind: ErrorKind::Internal,
        };
        source.read_to_end(&mut bytes).map_err(fail)?;
        let mut state = self.state();
        if state.failing {
            return Err(unavailable("no space"));
        }
        state.ingested += 1;
        let size = bytes.len() as u64;
        let data = if bytes.is_empty() {
            FileData::Chunks(Vec::new())
        } else if bytes.len() <= FileData::INLINE_LIMIT {
            FileData::Inline(chunk_id(&bytes), bytes)
        } else {
            let chunks = bytes.chunks(CHUNK).map(|chunk| {
                let id = chunk_id(chunk);
                state.chunks.insert(id, Bytes::copy_from_slice(chunk));
                ChunkRef {
                    chunk: id,
                    length: chunk.len() as u32,
                }
            });
            FileData::Chunks(chunks.collect())
        };
        Ok(FileContent {
            size,
            level: 0,
            data,
        })
    }

    fn commit(
        &self,
        operations: Vec<Operation>,
        records: Vec<(ViewKey, Option<Vec<u8>>)>,
    ) -> Result<Option<CommitId>, EngineError> {
        let mut state = self.state();
        assert!(state.writable, "a reader commits");
        if operations.is_empty() {
            state.write(records);
            return Ok(None);
        }
        state.commits += 1;
        state.lamport += 1;
        let mut id = [state.member.as_bytes()[0]; 32];
        id[..8].copy_from_slice(
            chunk_id(&state.commits.to_le_bytes())
                .as_bytes()
                .first_chunk::<8>()
                .unwrap(),
        );
        id[8..16].copy_from_slice(&state.commits.to_le_bytes());
        let commit = CommitId::from_bytes(id);
        let context = CommitContext {
            commit,
            lamport: Lamport(state.lamport),
            author: state.member,
            time: Timestamp::default(),
        };
        state.known.insert(commit);
        state.merge(context, operations);
        state.write(records);
        state.send(ViewEvent::TreeChanged);
        Ok(Some(commit))
    }

    fn files(&self) -> Result<u64, EngineError> {
        Ok(self.tree().values().flatten().count() as u64)
    }

    fn removed(&self) -> bool {
        self.state().removed
    }

    fn writable(&self) -> bool {
        self.state().writable
    }

    fn missing_packs(&self, content: &FileContent) -> Result<Vec<PackId>, EngineError> {
        let state = self.state();
        Ok(match &content.data {
            FileData::Chunks(chunks) => chunks
                .iter()
                .filter(|chunk| !state.chunks.contains_key(&chunk.chunk))
                .map(|chunk| PackId::from_bytes(*chunk.chunk.as_bytes()))
                .collect(),
            _ => Vec::new(),
        })
    }

    fn open(&self, content: &FileContent) -> Result<Box<dyn ContentStream>, EngineError> {
        let state = self.state();
        let chunks = match &content.data {
            FileData::Inline(id, bytes) => {
                vec![(
                    ChunkRef {
                        chunk: *id,
                        length: bytes.len() as u32,
                    },
                    Some(Bytes::copy_from_slice(bytes)),
                )]
            }
            FileData::Chunks(chunks) => chunks
                .iter()
                .map(|chunk| (*chunk, state.chunks.get(&chunk.chunk).cloned()))
                .collect(),
            FileData::Indirect(_) => unreachable!(),
        };
        Ok(Box::new(Stream {
            chunks,
            next: 0,
            at: 0,
            read: state.bytes_read.clone(),
        }))
    }

    fn set_status(&self, status: ViewStatus) {
        self.state().status = status;
        self.changed.notify_all();
    }
}
