//! A view's access to a folder: reading its tree, storing content, committing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Read,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use ouisync_model::{
    id::{ChunkId, CommitId, EpochId, MemberId, NodeId, PackId},
    name::Name,
    operation::{
        ChunkPlace, ChunkRef, FileContent, FileData, Operation, PackSize, PackTable, Value,
    },
    tree::{conflict::Conflict, entry::Entry, view::View},
};
use ouisync_store::{
    content::{ContentError, ContentReader},
    index::{Index, batch::IndexBatch, views::DirtyMark},
    ingest::{Ingest, IngestKeys, PackSink},
    store::Store,
};
use rand::rngs::StdRng;
use tracing::{error, warn};

use crate::{
    command::{Command, FolderSender},
    drafts::Drafting,
    error::{EngineError, ErrorKind},
    folder::{Folder, parts::Part},
    readable::Readable,
    shared::{Shared, lock},
    status::Role,
    view::{ContentStream, FolderAccess, ViewControl, ViewEvents, ViewKey, ViewStatus},
};

mod announcer;

use announcer::{ANNOUNCE_BYTES, Announcer};

/// Inline contents of one commit above this many bytes go into packs.
const MAX_INLINE: usize = 16 << 10;

/// A view's access to a folder.
pub(crate) struct Port {
    shared: Arc<Shared>,
    store: Arc<Store>,
    sender: FolderSender,
    /// With the epoch that it seals in.
    ingest: Mutex<Option<(EpochId, Ingest)>>,
    announcer: Arc<Announcer>,
    /// Packs that hold chunks which new content has in common with old.
    reused: Mutex<BTreeMap<PackId, (PackSize, Vec<ChunkPlace>)>>,
    /// Marks behind the directories that `dirty` gave.
    marks: Mutex<HashMap<NodeId, Vec<(NodeId, DirtyMark)>>>,
}

/// Runs `job` on the folder's thread and waits for its answer.
pub(crate) fn on_folder<T: Send + 'static>(
    sender: &FolderSender,
    job: impl FnOnce(&mut Folder) -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let (reply, answer) = std::sync::mpsc::sync_channel(1);
    let job = Box::new(move |folder: &mut Folder| {
        let _ = reply.send(job(folder));
    });
    if !sender.send(Command::Run(job)) {
        return Err(EngineError::Stopping);
    }
    sender.step();
    answer.recv().map_err(|_| EngineError::Stopping)?
}

impl Port {
    pub(crate) fn new(shared: Arc<Shared>, store: Arc<Store>, sender: FolderSender) -> Self {
        let announcer = Announcer {
            store: store.clone(),
            sender: sender.clone(),
            unannounced: Mutex::default(),
            announcing: Mutex::default(),
        };
        Self {
            shared,
            store,
            sender,
            ingest: Mutex::default(),
            announcer: Arc::new(announcer),
            reused: Mutex::default(),
            marks: Mutex::default(),
        }
    }

    /// Chance for what is committed.
    pub(crate) fn rng(&self) -> StdRng {
        self.shared.surroundings.rng()
    }

    fn readable(&self) -> Result<Arc<Readable>, EngineError> {
        self.shared.readable().ok_or(EngineError::Locked)
    }

    /// An ingest whose packs are stored and wait to be announced.
    fn new_ingest(&self, keys: IngestKeys) -> Result<Ingest, EngineError> {
        let announcer = self.announcer.clone();
        let (wake, woken) = std::sync::mpsc::sync_channel::<()>(1);
        let background = announcer.clone();
        std::thread::Builder::new()
            .name("folder-announce".to_owned())
            .spawn(move || {
                while woken.recv().is_ok() {
                    if let Err(error) = background.announce() {
                        // The packs are kept; the commit that needs them meets the same error and reports it.
                        error!(%error, "can't announce new packs");
                    }
                }
            })
            .map_err(|source| EngineError::Io {
                path: "announcing thread".into(),
                source,
            })?;
        let sink: PackSink = Box::new(move |pack| {
            announcer
                .store
                .create_pack(&pack.frame_hashes, &pack.bytes)?;
            let mut unannounced = lock(&announcer.unannounced);
            unannounced.bytes += pack.size.bytes();
            unannounced.packs.push((pack.table, pack.size));
            if unannounced.bytes >= ANNOUNCE_BYTES {
                // Full: a wake-up is waiting already.
                let _ = wake.try_send(());
            }
            Ok(())
        });
        Ok(Ingest::new(keys, self.shared.surroundings.rng(), sink))
    }

    /// Uses the running ingest, or begins one.
    fn with_ingest<T>(
        &self,
        action: impl FnOnce(&mut Ingest, &mut dyn FnMut(&ChunkId) -> bool) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let readable = self.readable()?;
        let mut slot = lock(&self.ingest);
        let (epoch, keys) = self.shared.ingest_keys().ok_or(EngineError::Locked)?;
        let mut ingest = match slot.take() {
            Some((sealing, ingest)) if sealing == epoch => ingest,
            before => {
                // Whoever was removed has the secret of the epoch before: nothing more is sealed in it.
                if let Some((_, mut ingest)) = before {
                    ingest.flush()?;
                }
                self.new_ingest(keys)?
            }
        };
        let mut is_known = |chunk: &ChunkId| match readable.stored_in(chunk) {
            Some((pack, size, place)) => {
                let mut reused = lock(&self.reused);
                let (_, places) = reused.entry(pack).or_insert((size, Vec::new()));
                if !places.contains(&place) {
                    places.push(place);
                }
                true
            }
            None => false,
        };
        let result = action(&mut ingest, &mut is_known);
        let broken = matches!(&result, Err(error) if error.kind() != ErrorKind::Invalid);
        if !broken {
            *slot = Some((epoch, ingest));
        }
        result
    }

    /// Contents that would make a large commit go into packs instead.
    fn move_inline(&self, operations: &mut [Operation]) -> Result<(), EngineError> {
        let inline = operations
            .iter()
            .filter_map(inline_of)
            .map(Vec::len)
            .sum::<usize>();
        if inline <= MAX_INLINE {
            return Ok(());
        }
        for operation in operations {
            if let Operation::Write {
                value: Value::File(content),
                ..
            } = operation
                && let FileData::Inline(chunk, bytes) = &mut content.data
            {
                let (chunk, bytes) = (*chunk, std::mem::take(bytes));
                let length = bytes.len() as u32;
                self.with_ingest(|ingest, is_known| {
                    Ok(ingest.store_chunk(chunk, bytes, is_known)?)
                })?;
                content.data = FileData::Chunks(vec![ChunkRef { chunk, length }]);
            }
        }
        Ok(())
    }

    /// Like [`FolderAccess::commit`]; also adds packs again that hold what the operations refer to.
    pub(crate) fn commit_with(
        &self,
        mut operations: Vec<Operation>,
        records: Vec<(ViewKey, Option<Vec<u8>>)>,
        again: Vec<(PackTable, PackSize)>,
    ) -> Result<Option<CommitId>, EngineError> {
        self.move_inline(&mut operations)?;
        self.commit_prepared(records, again, move || Ok(operations))
    }

    /// Stores a text that is at hand.
    pub(crate) fn ingest_bytes(
        &self,
        mut bytes: &[u8],
        previous: Option<&FileContent>,
    ) -> Result<FileContent, EngineError> {
        let size = bytes.len() as u64;
        let content = self.ingest(&mut bytes, size, previous)?;
        let FileData::Inline(chunk, bytes) = content.data else {
            return Ok(content);
        };
        // Into a pack at once: the operations are made when it is too late to find out that they are too large.
        if bytes.len() <= MAX_INLINE / 64 {
            return Ok(FileContent {
                data: FileData::Inline(chunk, bytes),
                ..content
            });
        }
        let length = bytes.len() as u32;
        self.with_ingest(|ingest, is_known| Ok(ingest.store_chunk(chunk, bytes, is_known)?))?;
        Ok(FileContent {
            data: FileData::Chunks(vec![ChunkRef { chunk, length }]),
            ..content
        })
    }

    /// Commits what `operations` makes on the folder's thread, of a tree that nothing changes meanwhile.
    pub(crate) fn commit_made(
        &self,
        operations: impl FnOnce() -> Result<Vec<Operation>, EngineError> + Send + 'static,
    ) -> Result<Option<CommitId>, EngineError> {
        self.commit_prepared(Vec::new(), Vec::new(), operations)
    }

    /// Commits with everything that was ingested; contents that travel in the commit are few.
    fn commit_prepared(
        &self,
        records: Vec<(ViewKey, Option<Vec<u8>>)>,
        again: Vec<(PackTable, PackSize)>,
        operations: impl FnOnce() -> Result<Vec<Operation>, EngineError> + Send + 'static,
    ) -> Result<Option<CommitId>, EngineError> {
        if let Some((_, mut ingest)) = lock(&self.ingest).take() {
            ingest.flush()?;
        }
        let _announcing = lock(&self.announcer.announcing);
        let (mut packs, draft) = self.announcer.take_last();
        if !packs.is_empty() {
            self.announcer.sync()?;
        }
        // Packs that are referred to anew are added anew, so that a concurrent release doesn't take them away.
        let fresh: BTreeSet<_> = packs.iter().map(|(table, _)| table.pack).collect();
        let reused = std::mem::take(&mut *lock(&self.reused));
        let readable = self.readable()?;
        for (pack, (size, chunks)) in reused {
            if !fresh.contains(&pack) {
                // With the places that are referred to: what an older add told goes when that one is released.
                let table = PackTable {
                    pack,
                    round: readable.index.pack_table(&pack)?.round,
                    chunks,
                };
                packs.push((table, size));
            }
        }
        let known: BTreeSet<_> = packs.iter().map(|(table, _)| table.pack).collect();
        packs.extend(
            again
                .into_iter()
                .filter(|(table, _)| !known.contains(&table.pack)),
        );
        on_folder(&self.sender, move |folder| {
            let all = Part {
                operations: operations()?,
                packs,
                draft,
                ..Part::default()
            };
            folder.commit_all(all, |batch| {
                put_records(batch, records);
                Ok(())
            })
        })
    }

    fn write_index(
        &self,
        change: impl FnOnce(&mut IndexBatch) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let mut batch = self.readable()?.index.begin();
        change(&mut batch)?;
        Ok(batch.commit()?)
    }
}

fn inline_of(operation: &Operation) -> Option<&Vec<u8>> {
    match operation {
        Operation::Write {
            value: Value::File(content),
            ..
        } => match &content.data {
            FileData::Inline(_, bytes) => Some(bytes),
            _ => None,
        },
        _ => None,
    }
}

fn put_records(batch: &mut IndexBatch, records: Vec<(ViewKey, Option<Vec<u8>>)>) {
    for (key, value) in records {
        batch.put_view_record(&key.group, &key.item, value.as_deref());
    }
}

impl FolderAccess for Port {
    fn attach(&self, control: Arc<dyn ViewControl>) -> Result<ViewEvents, EngineError> {
        self.readable()?;
        self.shared.attach(control)
    }

    fn list(&self, directory: NodeId) -> Result<Vec<Entry>, EngineError> {
        self.readable()?.list(directory)
    }

    fn entry(&self, directory: NodeId, name: &Name) -> Result<Option<Entry>, EngineError> {
        self.readable()?.entry(directory, name)
    }

    fn conflict(&self, node: NodeId) -> Result<Option<Conflict>, EngineError> {
        self.readable()?
            .with_view(|view| Ok(view.conflict_of(node)?))
    }

    fn dirty(&self, limit: usize) -> Result<Vec<NodeId>, EngineError> {
        let readable = self.readable()?;
        let snapshot = readable.index.snapshot();
        let label = |_: &MemberId| String::new();
        let view = View::new(&snapshot, &label);
        let mut shown: BTreeSet<NodeId> = BTreeSet::new();
        let mut marks = lock(&self.marks);
        for (node, mark) in snapshot.dirty(limit)? {
            // What is no longer visible is named as it was, so that what was shown for it can go.
            let canonical = view.canonical(node)?;
            for name in [canonical, Some(node)].into_iter().flatten() {
                let behind = marks.entry(name).or_default();
                behind.retain(|(known, _)| *known != node);
                behind.push((node, mark));
            }
            shown.insert(canonical.unwrap_or(node));
        }
        Ok(shown.into_iter().collect())
    }

    fn mark_dirty(&self, directories: &[NodeId]) -> Result<(), EngineError> {
        self.write_index(|batch| {
            directories
                .iter()
                .for_each(|directory| batch.mark_dirty(*directory));
            Ok(())
        })
    }

    fn record(&self, key: &ViewKey) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.readable()?.index.view_record(&key.group, &key.item)?)
    }

    fn records(&self, group: [u8; 16]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, EngineError> {
        Ok(self.readable()?.index.view_records(&group)?)
    }

    fn update(
        &self,
        records: Vec<(ViewKey, Option<Vec<u8>>)>,
        clean: &[NodeId],
    ) -> Result<(), EngineError> {
        let marks: Vec<_> = {
            let mut marks = lock(&self.marks);
            clean
                .iter()
                .filter_map(|node| marks.remove(node))
                .flatten()
                .collect()
        };
        self.write_index(|batch| {
            put_records(batch, records);
            for (node, mark) in marks {
                batch.clear_dirty(node, mark)?;
            }
            batch.make_durable();
            Ok(())
        })
    }

    fn ingest(
        &self,
        source: &mut dyn Read,
        size_hint: u64,
        previous: Option<&FileContent>,
    ) -> Result<FileContent, EngineError> {
        let unannounced = &self.announcer.unannounced;
        let mut on_chunk = |chunk| {
            let draft = &mut lock(unannounced).draft;
            if draft.as_mut().is_some_and(|draft| !draft.push(chunk)) {
                *draft = None;
            }
        };
        self.with_ingest(|ingest, is_known| {
            lock(unannounced).draft = (size_hint >= ANNOUNCE_BYTES).then(Drafting::default);
            let ingested = ingest.file(source, size_hint, previous, is_known, &mut on_chunk);
            if ingested.is_err() {
                lock(unannounced).draft = None;
            }
            ingested.map_err(|error| match error {
                ouisync_store::ingest::IngestError::Source(source) => EngineError::Source(source),
                error => error.into(),
            })
        })
    }

    fn commit(
        &self,
        operations: Vec<Operation>,
        records: Vec<(ViewKey, Option<Vec<u8>>)>,
    ) -> Result<Option<CommitId>, EngineError> {
        self.commit_with(operations, records, Vec::new())
    }

    fn files(&self) -> Result<u64, EngineError> {
        Ok(self.readable()?.index.totals().files)
    }

    fn writable(&self) -> bool {
        let snapshot = self.shared.snapshot();
        !snapshot.removed && matches!(snapshot.role, Some(Role::Owner | Role::Writer))
    }

    fn removed(&self) -> bool {
        self.shared.snapshot().removed
    }

    fn missing_packs(&self, content: &FileContent) -> Result<Vec<PackId>, EngineError> {
        let readable = self.readable()?;
        let needs = readable.packs_of(content)?;
        if needs.missing.is_empty() && !needs.unknown.is_empty() {
            return Err(EngineError::Store {
                message: "the places of some chunks are not known yet".to_owned(),
                kind: ErrorKind::Unavailable,
            });
        }
        readable.need(&needs.missing);
        Ok(needs.missing)
    }

    fn open(&self, content: &FileContent) -> Result<Box<dyn ContentStream>, EngineError> {
        let readable = self.readable()?;
        let reader = Some(readable.content(content.clone()));
        Ok(Box::new(Stream {
            reader,
            readable,
            store: self.store.clone(),
        }))
    }

    fn set_status(&self, status: ViewStatus) {
        self.shared.set_view_status(status);
    }
}

/// Reads content with a reader that the next stream goes on with: neighbouring small files share frames.
struct Stream {
    /// Always there until it is given back.
    reader: Option<ContentReader<Index, Arc<Store>>>,
    readable: Arc<Readable>,
    store: Arc<Store>,
}

impl Stream {
    fn read<T>(
        &mut self,
        action: impl FnOnce(&mut ContentReader<Index, Arc<Store>>) -> Result<T, ContentError>,
    ) -> Result<T, EngineError> {
        let reader = self.reader.as_mut().ok_or(EngineError::Stopping)?;
        action(reader).map_err(|error| {
            // A damaged pack is noted, so that it is fetched again.
            if let ContentError::Damaged(pack) = &error
                && let Err(error) = self.store.report_damaged(*pack)
            {
                warn!(%pack, %error, "can't note a damaged pack");
            }
            error.into()
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.readable.give_back(reader.into_reader());
        }
    }
}

impl ContentStream for Stream {
    fn next_chunk(&mut self) -> Result<Option<(u64, Bytes)>, EngineError> {
        let mut plaintext = Vec::new();
        let offset = self.read(|reader| reader.next_chunk(&mut plaintext))?;
        Ok(offset.map(|offset| (offset, Bytes::from(plaintext))))
    }

    fn chunks(&mut self) -> Result<Vec<ChunkRef>, EngineError> {
        self.read(|reader| reader.chunks().map(<[ChunkRef]>::to_vec))
    }

    fn skip_chunk(&mut self) -> Result<(), EngineError> {
        self.read(|reader| reader.skip_chunk().map(drop))
    }
}

/// The keys that new content is sealed with.
pub(crate) fn ingest_keys(folder: &Folder) -> Option<(EpochId, IngestKeys)> {
    let content = folder.keys.content_keys()?;
    let (epoch, secret) = folder.roster().sealing_epoch(&folder.keys)?;
    Some((
        epoch,
        IngestKeys {
            chunk_ids: content.chunk_id,
            gear: content.gear,
            secret: secret.clone(),
        },
    ))
}
