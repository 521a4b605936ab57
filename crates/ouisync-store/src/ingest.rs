//! From a file's bytes to sealed packs: cuts, names, sorts out what is known, compresses, seals.
//!
//! Owns the pipeline of two threads: the caller's reads, cuts and hashes; another compresses, seals and hands packs on. Memory
//! is bounded whatever a file's size. Must not touch the disk or decide when something is committed.

use std::{
    collections::{HashSet, VecDeque},
    error::Error,
    io::{self, Read},
    ops::Range,
    sync::mpsc::{self, Receiver, SyncSender},
    thread::{self, JoinHandle},
};

use ouisync_crypto::{
    keys::{ChunkIdKey, GearTable},
    secret::ReadSecret,
};
use ouisync_model::{
    id::ChunkId,
    operation::{ChunkRef, FileContent, FileData},
};
use rand::rngs::StdRng;
use thiserror::Error;

use crate::{
    chunker::{Cutter, SizeLevel, fill},
    compress::{Compressor, Trials},
    pack_builder::{PackBuffers, PackBuilder, SealedPack, StoredChunk},
};

mod chunk_list;

use chunk_list::ChunkList;

/// Bytes handed from thread to thread at once are between these two.
const MIN_BLOCK: usize = 1024 * 1024;
const MAX_BLOCK: usize = 2 * SizeLevel::MAX_CHUNK;
/// Small chunks handed from thread to thread at once.
const SMALL_PIECES: usize = 256;
/// Chunks remembered as stored by this ingest. Older ones are found through the index or stored a second time.
const RECENT: usize = 64 * 1024;

/// Why content could not be ingested.
#[derive(Debug, Error)]
pub enum IngestError {
    /// The file can't be read. The ingest can go on with another.
    #[error("the content can't be read")]
    Source(#[source] io::Error),
    /// What takes the packs refused one. The ingest can't go on.
    #[error("a finished pack was not taken")]
    Sink(#[source] Box<dyn Error + Send + Sync>),
    /// The pipeline could not be set up (no memory, no thread), or has ended after an earlier error.
    #[error("the pipeline has stopped")]
    Stopped(#[source] Option<io::Error>),
}

/// Takes finished packs, on the sealing thread; an error ends the ingest. Blocking slows the ingest down.
pub type PackSink = Box<dyn FnMut(SealedPack) -> Result<(), Box<dyn Error + Send + Sync>> + Send>;

/// The folder's keys that ingest needs.
#[derive(Clone)]
pub struct IngestKeys {
    /// Names chunks.
    pub chunk_ids: ChunkIdKey,
    /// Cuts files.
    pub gear: GearTable,
    /// Seals packs: the current epoch's.
    pub secret: ReadSecret,
}

/// Turns files into chunks in packs, many files with one ingest.
///
/// Packs come out of the sink when they are full and at [`Ingest::flush`]; only then may the content refer to them. Up to
/// about 60 MiB of memory for the greatest files, 35 MiB for files below 64 MiB, little for small batches.
pub struct Ingest {
    chunk_ids: ChunkIdKey,
    cutter: Cutter,
    block: Block,
    recent: Recent,
    sealing: Option<Sealing>,
    to_start: Option<(ReadSecret, StdRng, PackSink)>,
}

impl Ingest {
    /// An ingest whose packs go to `sink`. The second thread starts with the first chunk.
    pub fn new(keys: IngestKeys, rng: StdRng, sink: PackSink) -> Self {
        Self {
            cutter: Cutter::new(keys.gear),
            chunk_ids: keys.chunk_ids,
            block: Block::default(),
            recent: Recent::default(),
            sealing: None,
            to_start: Some((keys.secret, rng, sink)),
        }
    }

    /// Ingests all that `source` gives. `size_hint` is the expected length, `previous` the content that this one replaces:
    /// together they choose the chunk size. `is_known` tells chunks that are stored already and stay so; `on_chunk` hears of
    /// every chunk of the file in order.
    pub fn file(
        &mut self,
        source: &mut dyn Read,
        size_hint: u64,
        previous: Option<&FileContent>,
        is_known: &mut dyn FnMut(&ChunkId) -> bool,
        on_chunk: &mut dyn FnMut(ChunkRef),
    ) -> Result<FileContent, IngestError> {
        let level = match previous {
            Some(previous) => SizeLevel::for_version(previous.level, size_hint),
            None => SizeLevel::for_size(size_hint),
        };
        let mut list = ChunkList::default();
        let mut size = 0u64;
        let mut first = true;
        let mut at_end = false;
        // The bytes of this file that are read and not cut yet.
        let mut waiting = self.block.filled..self.block.filled;
        loop {
            if waiting.len() < level.maximum() && !at_end {
                waiting = self.make_room(waiting, level)?;
                let count = fill(source, &mut self.block.bytes[waiting.end..], &mut at_end)
                    .map_err(IngestError::Source)?;
                waiting.end += count;
                if first && at_end && waiting.len() <= FileData::INLINE_LIMIT {
                    return Ok(self.small_file(level, &self.block.bytes[waiting]));
                }
            }
            if waiting.is_empty() {
                break;
            }
            let length = self.cutter.cut(level, &self.block.bytes[waiting.clone()]);
            let range = waiting.start..waiting.start + length;
            let chunk = self.chunk_ids.chunk_id(&self.block.bytes[range.clone()]);
            if self.recent.is_new(&chunk, is_known) {
                self.block.pieces.push(Piece {
                    chunk,
                    bytes: PieceBytes::InBlock(range),
                    begins_file: first,
                });
                first = false;
            }
            size += length as u64;
            waiting.start += length;
            self.block.filled = waiting.start;
            let cut = ChunkRef {
                chunk,
                length: length as u32,
            };
            on_chunk(cut);
            let complete = list.push(cut);
            if let Some(bytes) = complete {
                let reference = self.list_chunk(bytes, is_known);
                list.stored(reference);
            }
        }
        let data = match list.finish() {
            chunk_list::Finished::Direct(chunks) => FileData::Chunks(chunks),
            chunk_list::Finished::Indirect {
                first,
                mut stored,
                last,
            } => {
                if let Some(last) = last {
                    stored.push(self.list_chunk(last, is_known));
                }
                stored.insert(0, self.list_chunk(first, is_known));
                FileData::Indirect(stored)
            }
        };
        Ok(FileContent {
            size,
            level: level.get(),
            data,
        })
    }

    /// Ends the open packs and waits until the sink has taken all.
    pub fn flush(&mut self) -> Result<(), IngestError> {
        self.send_block(Vec::new())?;
        let Some(sealing) = &self.sealing else {
            return if self.to_start.is_some() {
                Ok(())
            } else {
                Err(IngestError::Stopped(None))
            };
        };
        let (reply, done) = mpsc::sync_channel(1);
        let sent = sealing.work.send(Work::Flush(reply));
        if sent.is_err() || done.recv().is_err() {
            return Err(self.stopped());
        }
        Ok(())
    }

    fn small_file(&self, level: SizeLevel, bytes: &[u8]) -> FileContent {
        let data = match bytes {
            [] => FileData::Chunks(Vec::new()),
            bytes => FileData::Inline(self.chunk_ids.chunk_id(bytes), bytes.to_vec()),
        };
        FileContent {
            size: bytes.len() as u64,
            level: level.get(),
            data,
        }
    }

    /// Stores one chunk of at most [`FileData::INLINE_LIMIT`] bytes, whose id is known: content that was to travel in a
    /// commit and shall not.
    pub fn store_chunk(
        &mut self,
        chunk: ChunkId,
        bytes: Vec<u8>,
        is_known: &mut dyn FnMut(&ChunkId) -> bool,
    ) -> Result<(), IngestError> {
        if self.recent.is_new(&chunk, is_known) {
            self.block.pieces.push(Piece {
                chunk,
                bytes: PieceBytes::Owned(bytes),
                begins_file: true,
            });
        }
        if self.block.pieces.len() >= SMALL_PIECES {
            self.send_block(Vec::new())
        } else {
            Ok(())
        }
    }

    /// Stores a part of a chunk list.
    fn list_chunk(
        &mut self,
        bytes: Vec<u8>,
        is_known: &mut dyn FnMut(&ChunkId) -> bool,
    ) -> ChunkRef {
        let chunk = self.chunk_ids.chunk_id(&bytes);
        let length = bytes.len() as u32;
        if self.recent.is_new(&chunk, is_known) {
            self.block.pieces.push(Piece {
                chunk,
                bytes: PieceBytes::Owned(bytes),
                begins_file: false,
            });
        }
        ChunkRef { chunk, length }
    }

    /// Makes sure that a chunk of the greatest length fits behind `waiting.start`, passing the block on where it doesn't.
    /// Returns where the waiting bytes are then.
    fn make_room(
        &mut self,
        waiting: Range<usize>,
        level: SizeLevel,
    ) -> Result<Range<usize>, IngestError> {
        let wanted = (4 * level.maximum()).clamp(MIN_BLOCK, MAX_BLOCK);
        if self.block.bytes.len() >= waiting.start + level.maximum() {
            return Ok(waiting);
        }
        let length = waiting.len();
        if self.block.pieces.is_empty() {
            self.block.bytes.copy_within(waiting, 0);
        } else {
            let mut next = self
                .sealing
                .as_ref()
                .and_then(|sealing| sealing.spare.try_recv().ok())
                .unwrap_or_default();
            next.resize(next.len().max(wanted), 0);
            next[..length].copy_from_slice(&self.block.bytes[waiting]);
            self.send_block(next)?;
        }
        self.block.filled = 0;
        if self.block.bytes.len() < wanted {
            self.block.bytes.resize(wanted, 0);
        }
        Ok(0..length)
    }

    /// Passes the block on, if it holds anything, and goes on with one over `next`.
    fn send_block(&mut self, next: Vec<u8>) -> Result<(), IngestError> {
        if self.block.pieces.is_empty() {
            return Ok(());
        }
        if let Some((secret, rng, sink)) = self.to_start.take() {
            self.sealing = Some(Sealing::start(secret, rng, sink)?);
        }
        let block = std::mem::replace(
            &mut self.block,
            Block {
                bytes: next,
                ..Block::default()
            },
        );
        let sent = match &self.sealing {
            Some(sealing) => sealing.work.send(Work::Block(block)).is_ok(),
            None => false,
        };
        if sent { Ok(()) } else { Err(self.stopped()) }
    }

    /// Why the sealing thread is gone.
    fn stopped(&mut self) -> IngestError {
        match self.sealing.take().map(Sealing::join) {
            Some(Ok(Err(error))) => error,
            _ => IngestError::Stopped(None),
        }
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if let Some(sealing) = self.sealing.take() {
            // A panic there was reported there.
            let _ = sealing.join();
        }
    }
}

/// Chunks stored lately.
#[derive(Default)]
struct Recent {
    set: HashSet<ChunkId>,
    order: VecDeque<ChunkId>,
}

impl Recent {
    /// Whether the chunk must be stored; it counts as stored from now on.
    fn is_new(&mut self, chunk: &ChunkId, is_known: &mut dyn FnMut(&ChunkId) -> bool) -> bool {
        if self.set.contains(chunk) || is_known(chunk) {
            return false;
        }
        if self.order.len() == RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
        self.set.insert(*chunk);
        self.order.push_back(*chunk);
        true
    }
}

/// Bytes of one or many files, with the chunks in them that are to be stored.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    /// Everything before is cut.
    filled: usize,
    pieces: Vec<Piece>,
}

struct Piece {
    chunk: ChunkId,
    bytes: PieceBytes,
    /// Trials of the file before say nothing of this one.
    begins_file: bool,
}

enum PieceBytes {
    InBlock(Range<usize>),
    Owned(Vec<u8>),
}

enum Work {
    Block(Block),
    Flush(SyncSender<()>),
}

/// The other thread.
struct Sealing {
    work: SyncSender<Work>,
    spare: Receiver<Vec<u8>>,
    thread: JoinHandle<Result<(), IngestError>>,
}

impl Sealing {
    fn start(secret: ReadSecret, rng: StdRng, sink: PackSink) -> Result<Self, IngestError> {
        let stopped = |error| IngestError::Stopped(Some(error));
        let (work, received) = mpsc::sync_channel(1);
        let (give_back, spare) = mpsc::sync_channel(2);
        let sealer = Sealer {
            compressor: Compressor::new().map_err(stopped)?,
            builder: PackBuilder::new(secret, PackBuffers::default(), rng),
            sink,
        };
        let thread = thread::Builder::new()
            .name("seal".into())
            .spawn(move || sealer.run(&received, &give_back))
            .map_err(stopped)?;
        Ok(Self {
            work,
            spare,
            thread,
        })
    }

    fn join(self) -> thread::Result<Result<(), IngestError>> {
        drop(self.work);
        self.thread.join()
    }
}

struct Sealer {
    compressor: Compressor,
    builder: PackBuilder<StdRng>,
    sink: PackSink,
}

impl Sealer {
    fn run(
        mut self,
        work: &Receiver<Work>,
        give_back: &SyncSender<Vec<u8>>,
    ) -> Result<(), IngestError> {
        let mut trials = Trials::default();
        for work in work {
            match work {
                Work::Block(block) => {
                    for piece in &block.pieces {
                        if piece.begins_file {
                            trials = Trials::default();
                        }
                        // A chunk list says nothing of the file's content.
                        let (trials, plaintext) = match &piece.bytes {
                            PieceBytes::InBlock(range) => {
                                (&mut trials, &block.bytes[range.clone()])
                            }
                            PieceBytes::Owned(bytes) => (&mut Trials::default(), bytes.as_slice()),
                        };
                        self.store(piece.chunk, trials, plaintext)?;
                    }
                    // When enough are spare this one is freed.
                    let _ = give_back.try_send(block.bytes);
                }
                Work::Flush(done) => {
                    self.builder
                        .finish(&mut self.sink)
                        .map_err(IngestError::Sink)?;
                    // Nobody waits when the ingest was dropped.
                    let _ = done.send(());
                }
            }
        }
        Ok(())
    }

    fn store(
        &mut self,
        chunk: ChunkId,
        trials: &mut Trials,
        plaintext: &[u8],
    ) -> Result<(), IngestError> {
        let (encoding, bytes) = self.compressor.encode(trials, plaintext);
        let stored = StoredChunk {
            chunk,
            length: plaintext.len() as u32,
            encoding,
            bytes,
        };
        self.builder
            .push(&stored, &mut self.sink)
            .map_err(IngestError::Sink)
    }
}
