//! Drafts: large files that are put together in the staging directory while another member still reads them, and their packs come.
//!
//! Only a head start: when the file is in the tree and its packs are here, [`Transfer`](crate::content::Transfer) goes on with what
//! is written, as far as the file's own list of chunks says the same. Drafts are kept in memory; what a crash leaves of one is removed
//! with all else that was on its way.

use std::{
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use ouisync_engine::{
    error::{EngineError, ErrorKind},
    view::{ContentStream, DraftStep, FolderView},
};
use ouisync_model::{
    id::MemberId,
    operation::{ChunkRef, FileContent, FileData},
};

use crate::{
    content::{Source, TransferError, Writer},
    disk::{self, Root},
    error::StepError,
    runner::Runner,
};

/// Most drafts at once; each takes some MiB of memory while it is written.
const MOST: usize = 4;
/// Most chunks of one draft: 9 MiB of memory. What comes behind is written with the file.
const MOST_CHUNKS: usize = 256 * 1024;
/// Bytes written before other work gets its turn.
const SLICE: u64 = 16 << 20;
/// Bytes that a draft leaves free on the disk, for what the folder needs more.
const RESERVE: u64 = 256 << 20;
/// A draft with which nothing happens for so long is dropped.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// All drafts, those that began first in front.
#[derive(Default)]
pub(crate) struct Drafts {
    list: Vec<Draft>,
}

/// A file of which the beginning is known.
struct Draft {
    author: MemberId,
    /// Its chunks as far as they are known, in order.
    chunks: Vec<ChunkRef>,
    /// Where the last of them ends.
    end: u64,
    /// There will be no more chunks.
    ended: bool,
    /// How many of the chunks are written.
    written: usize,
    /// Where the last of these ends.
    at: u64,
    /// Once something is written: its name in the staging directory, and the file.
    file: Option<(Vec<u8>, Writer)>,
    /// More may be readable than at the last look.
    stirred: bool,
    /// When something happened last.
    last: Instant,
}

/// The beginning of a file that is written already.
pub(crate) struct HeadStart {
    pub(crate) temporary: Vec<u8>,
    writer: Writer,
    /// So many chunks are written.
    chunks: usize,
    /// Their bytes; more may be in the file.
    length: u64,
}

/// Why a draft goes no further.
enum Obstacle {
    Engine(EngineError),
    Disk(io::Error),
}

impl Draft {
    fn new(author: MemberId) -> Self {
        Self {
            author,
            chunks: Vec::new(),
            end: 0,
            ended: false,
            written: 0,
            at: 0,
            file: None,
            stirred: false,
            last: Instant::now(),
        }
    }

    /// The next chunks, of a slice's length.
    fn next_share(&self) -> FileContent {
        let mut size = 0;
        let mut chunks = Vec::new();
        for chunk in &self.chunks[self.written..] {
            if size >= SLICE {
                break;
            }
            size += u64::from(chunk.length);
            chunks.push(*chunk);
        }
        FileContent {
            size,
            level: 0,
            data: FileData::Chunks(chunks),
        }
    }

    /// Writes a slice more, as far as it is readable.
    fn advance(
        &mut self,
        view: &FolderView,
        staging: impl AsFd,
        fresh_name: impl FnOnce() -> Vec<u8>,
    ) -> Result<(), Obstacle> {
        let staging = staging.as_fd();
        let content = self.next_share();
        let stream = view.open(&content).map_err(Obstacle::Engine)?;
        let mut source = Source::ahead(stream);
        let mut fresh_name = Some(fresh_name);
        loop {
            let bytes = match source.next_chunk() {
                Ok(Some((_, bytes))) => bytes,
                Ok(None) => break,
                // Not here yet.
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    self.stirred = false;
                    return Ok(());
                }
                Err(error) => return Err(Obstacle::Engine(error)),
            };
            let writer = match (&mut self.file, fresh_name.take()) {
                (Some((_, writer)), _) => writer,
                (none, Some(fresh_name)) => {
                    let name = fresh_name();
                    let file = disk::create_file(staging, &name, false).map_err(Obstacle::Disk)?;
                    let direct = disk::open_direct(staging, &name).ok();
                    &mut none.insert((name, Writer::large(file, direct))).1
                }
                // The first of these comes first.
                (None, None) => break,
            };
            writer.write(self.at, &bytes).map_err(Obstacle::Disk)?;
            self.at += bytes.len() as u64;
            self.written += 1;
            self.last = Instant::now();
        }
        self.stirred = self.written < self.chunks.len();
        Ok(())
    }
}

impl Drafts {
    /// Follows what a member tells. Gives back the temporary files of no more use.
    fn hear(&mut self, step: DraftStep) -> Option<Vec<u8>> {
        let open = |draft: &Draft| draft.author == step.author && !draft.ended;
        let mut dropped = None;
        if let Some(part) = &step.part {
            let known = self.list.iter().position(open);
            match known {
                Some(index) if part.offset == 0 => {
                    dropped = self.list.remove(index).file;
                    self.list.push(Draft::new(step.author));
                }
                None if part.offset == 0 && self.list.len() < MOST => {
                    self.list.push(Draft::new(step.author));
                }
                _ => {}
            }
            if let Some(draft) = self.list.iter_mut().find(|draft| open(draft))
                && draft.end == part.offset
                && draft.chunks.len() + part.chunks.len() <= MOST_CHUNKS
            {
                draft.end = part.end();
                draft.chunks.extend_from_slice(&part.chunks);
                draft.stirred = true;
                draft.last = Instant::now();
            }
        }
        if step.ends
            && let Some(draft) = self.list.iter_mut().find(|draft| open(draft))
        {
            draft.ended = true;
        }
        dropped.map(|(temporary, _)| temporary)
    }

    /// Packs came.
    pub(crate) fn stir(&mut self) {
        for draft in &mut self.list {
            draft.stirred = draft.written < draft.chunks.len();
        }
    }

    /// There may be something to write.
    pub(crate) fn are_stirred(&self) -> bool {
        self.list.iter().any(|draft| draft.stirred)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What is written of a file with these chunks.
    pub(crate) fn take(&mut self, chunks: &[ChunkRef]) -> Option<HeadStart> {
        let common = |draft: &Draft| {
            let written = &draft.chunks[..draft.written];
            let same = written.iter().zip(chunks);
            same.take_while(|(draft, file)| draft == file).count()
        };
        let longest = self.list.iter().enumerate();
        let (index, count) = longest
            .map(|(index, draft)| (index, common(draft)))
            .max_by_key(|(_, count)| *count)?;
        if count == 0 {
            return None;
        }
        let (temporary, writer) = self.list.remove(index).file?;
        Some(HeadStart {
            temporary,
            writer,
            chunks: count,
            length: chunks[..count]
                .iter()
                .map(|chunk| u64::from(chunk.length))
                .sum(),
        })
    }
}

impl HeadStart {
    /// Takes away what else is in the file, gives it the rights of one that is made anew, and passes over what is written. Gives
    /// the writer, and where it goes on.
    pub(crate) fn go_on(
        mut self,
        executable: bool,
        stream: &mut dyn ContentStream,
    ) -> Result<(Writer, u64), TransferError> {
        for _ in 0..self.chunks {
            stream.skip_chunk().map_err(TransferError::Engine)?;
        }
        let mut prepare = || {
            self.writer.cut(self.length)?;
            let file = self.writer.file();
            if executable {
                let mode = disk::stat_handle(file)?.fingerprint.mode;
                disk::set_mode(file, disk::with_executable(mode, true))?;
            }
            Ok(())
        };
        prepare().map_err(TransferError::Disk)?;
        Ok((self.writer, self.length))
    }
}

impl Runner {
    /// Follows what others tell of files that they still read.
    pub(crate) fn hear_drafts(&mut self, steps: Vec<DraftStep>) {
        for step in steps {
            if let Some(temporary) = self.drafts.hear(step) {
                self.remove_draft(&temporary);
            }
        }
    }

    /// Writes a share of what is readable of the first draft that has any.
    pub(crate) fn advance_drafts(&mut self, root: &Root) -> Result<(), StepError> {
        let stirred = self.drafts.list.iter().position(|draft| draft.stirred);
        let Some(index) = stirred else {
            return Ok(());
        };
        self.checkpoint()?;
        let staging = self.staging(root);
        let name = self.temporary_name("new");
        let draft = &mut self.drafts.list[index];
        let advanced = match staging {
            Ok(staging) if disk::free_space(&staging).is_ok_and(|free| free >= RESERVE + SLICE) => {
                draft.advance(&self.view, &staging, || name)
            }
            Ok(_) => Err(Obstacle::Disk(io::ErrorKind::StorageFull.into())),
            Err(error) => Err(Obstacle::Disk(error)),
        };
        let Err(obstacle) = advanced else {
            return self.checkpoint();
        };
        match obstacle {
            Obstacle::Engine(error) => tracing::debug!(%error, "a draft is dropped"),
            Obstacle::Disk(error) => tracing::debug!(%error, "a draft is dropped"),
        }
        let dropped = self.drafts.list.remove(index);
        if let Some((temporary, _)) = dropped.file {
            self.remove_temporary(root, &temporary);
        }
        Ok(())
    }

    /// Nothing is left to do: drops drafts that nothing will come of. While a file waits for packs it may be one of these.
    pub(crate) fn drop_idle_drafts(&mut self) {
        if self.drafts.is_empty() {
            return;
        }
        let waits = !self.waiting.is_empty()
            || !self.ready.is_empty()
            || !self.large.is_empty()
            || self.transfer.is_some()
            || !self.behind.is_empty();
        self.drop_drafts(|draft| (draft.ended && !waits) || draft.last.elapsed() > PATIENCE);
    }

    /// Drops all drafts.
    pub(crate) fn discard_drafts(&mut self) {
        self.drop_drafts(|_| true);
    }

    fn drop_drafts(&mut self, is_idle: impl Fn(&Draft) -> bool) {
        let dropped = self.drafts.list.extract_if(.., |draft| is_idle(draft));
        let files: Vec<_> = dropped.filter_map(|draft| draft.file).collect();
        for (temporary, _) in files {
            self.remove_draft(&temporary);
        }
    }

    fn remove_draft(&self, temporary: &[u8]) {
        if let Ok(root) = Root::open(&self.path) {
            self.remove_temporary(&root, temporary);
        }
    }
}
