//! Writing a file's content into the staging directory: streamed, holes as holes, unchanged ranges from the version on disk.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::FileExt},
};

use ouisync_engine::{
    error::EngineError,
    view::{ContentStream, FolderView},
};
use ouisync_model::{
    id::ChunkId,
    name::Name,
    operation::{ChunkRef, Value},
    tree::entry::Entry,
};

pub(crate) use self::{ahead::Source, writer::Writer};
use crate::{
    directories::Slot,
    disk,
    drafts::Drafts,
    files::{LARGE, record_of},
    place::Staged,
    record::Record,
};

mod ahead;
mod writer;

/// Why content can't be brought into the staging directory.
#[derive(Debug)]
pub(crate) enum TransferError {
    Engine(EngineError),
    Disk(io::Error),
    /// The old version changed while ranges were copied from it.
    Changed,
}

/// A file that is being written.
pub(crate) struct Transfer {
    slot: Slot,
    entry: Entry,
    replaced: Option<Record>,
    temporary: Vec<u8>,
    output: Output,
}

/// Where the bytes come from and go.
enum Output {
    File {
        writer: Writer,
        source: Source,
        at: u64,
        size: u64,
        old: Option<Old>,
    },
    Symlink(crate::fingerprint::Fingerprint),
}

/// The version on disk, to copy unchanged chunks from.
struct Old {
    file: File,
    offsets: HashMap<ChunkId, u64>,
    /// The new version's chunks that are to come.
    next: VecDeque<ChunkRef>,
}

/// What a transfer begins with.
pub(crate) struct Beginning {
    pub(crate) slot: Slot,
    pub(crate) entry: Entry,
    pub(crate) replaced: Option<Record>,
    /// The version on disk.
    pub(crate) old: Option<File>,
}

impl Transfer {
    /// Begins with what one of the drafts has of the file, or a file of the name `fresh`.
    pub(crate) fn begin(
        view: &FolderView,
        staging: impl AsFd,
        fresh: Vec<u8>,
        beginning: Beginning,
        drafts: &mut Drafts,
    ) -> Result<Self, TransferError> {
        let staging = staging.as_fd();
        let Beginning {
            slot,
            entry,
            replaced,
            old,
        } = beginning;
        let mut temporary = fresh;
        let output = match &entry.value {
            Value::File(content) => {
                let mut stream = view.open(content).map_err(TransferError::Engine)?;
                let executable = entry.metadata.executable;
                let large = content.size >= LARGE;
                let start = match large && !drafts.is_empty() {
                    true => stream.chunks().ok().and_then(|chunks| drafts.take(&chunks)),
                    false => None,
                };
                let old = match (&start, old, replaced.as_ref().and_then(Record::content)) {
                    (None, Some(file), Some(before)) => Old::new(view, file, before, &mut *stream),
                    _ => None,
                };
                let (writer, at) = match start {
                    Some(start) => {
                        temporary = start.temporary.clone();
                        start
                            .go_on(executable, &mut *stream)
                            .inspect_err(|_| drop(disk::unlink(staging, &temporary)))?
                    }
                    None => {
                        let file = disk::create_file(staging, &temporary, executable)
                            .map_err(TransferError::Disk)?;
                        let writer = match large {
                            true => {
                                Writer::large(file, disk::open_direct(staging, &temporary).ok())
                            }
                            false => Writer::small(file),
                        };
                        (writer, 0)
                    }
                };
                let source = match large && old.is_none() {
                    true => Source::ahead(stream),
                    // What is copied from the old version is not read, so reading ahead would be in vain.
                    false => Source::new(stream),
                };
                Output::File {
                    writer,
                    source,
                    at,
                    size: content.size,
                    old,
                }
            }
            Value::Symlink(target) => {
                let link = || {
                    rustix::fs::symlinkat(target.as_slice(), staging, temporary.as_slice())?;
                    disk::stat(staging, &temporary)?.ok_or_else(|| io::ErrorKind::NotFound.into())
                };
                Output::Symlink(link().map_err(TransferError::Disk)?.fingerprint)
            }
            Value::Deleted | Value::Directory => return Err(TransferError::Changed),
        };
        Ok(Self {
            slot,
            entry,
            replaced,
            temporary,
            output,
        })
    }

    pub(crate) fn place(&self) -> (Slot, Name) {
        (self.slot, self.entry.name.clone())
    }

    pub(crate) fn temporary(&self) -> &[u8] {
        &self.temporary
    }

    pub(crate) fn replaced(&self) -> Option<&Record> {
        self.replaced.as_ref()
    }

    /// Whether the tree still shows this at the place.
    pub(crate) fn still_fits(&self, entry: &Entry) -> bool {
        entry.node == self.entry.node && entry.value == self.entry.value
    }

    /// Writes about `budget` bytes more; tells whether all is written.
    pub(crate) fn advance(&mut self, budget: u64) -> Result<bool, TransferError> {
        let Output::File {
            writer,
            source,
            at,
            size,
            old,
        } = &mut self.output
        else {
            return Ok(true);
        };
        let end = at.saturating_add(budget);
        while *at < end {
            if let Some(old) = old
                && let Some(chunk) = old.next.pop_front()
                && let Some(offset) = old.offsets.get(&chunk.chunk)
            {
                let length = u64::from(chunk.length);
                writer
                    .copy_in(*at, length, |file| {
                        copy_range(&old.file, *offset, file, *at, length)
                    })
                    .map_err(TransferError::Disk)?;
                source.skip_chunk().map_err(TransferError::Engine)?;
                *at += length;
                continue;
            }
            match source.next_chunk().map_err(TransferError::Engine)? {
                Some((offset, bytes)) => {
                    writer.write(offset, &bytes).map_err(TransferError::Disk)?;
                    *at = offset + bytes.len() as u64;
                }
                None => {
                    writer.finish(*size).map_err(TransferError::Disk)?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// All is written: sets what belongs to the file beside its content.
    pub(crate) fn finish(&mut self) -> Result<Staged, TransferError> {
        let fingerprint = match &self.output {
            Output::Symlink(fingerprint) => *fingerprint,
            Output::File { writer, old, .. } => {
                let file = writer.file();
                if let (Some(old), Some(replaced)) = (old, &self.replaced) {
                    let now = disk::stat_handle(&old.file).map_err(TransferError::Disk)?;
                    if now.fingerprint != replaced.fingerprint {
                        return Err(TransferError::Changed);
                    }
                }
                let describe = || {
                    if let Some(replaced) = self
                        .replaced
                        .as_ref()
                        .filter(|replaced| replaced.content().is_some())
                    {
                        let mode = disk::with_executable(
                            replaced.fingerprint.mode,
                            self.entry.metadata.executable,
                        );
                        disk::set_mode(file, mode)?;
                    }
                    disk::set_modified(file, &self.entry.metadata)?;
                    disk::stat_handle(file)
                };
                describe().map_err(TransferError::Disk)?.fingerprint
            }
        };
        let record = record_of(&self.entry, fingerprint).ok_or(TransferError::Changed)?;
        Ok(Staged {
            slot: self.slot,
            name: self.entry.name.clone(),
            record,
            temporary: self.temporary.clone(),
            replaced: self.replaced.clone(),
        })
    }
}

impl Old {
    /// `None` when nothing could be gained.
    fn new(
        view: &FolderView,
        file: File,
        before: &ouisync_model::operation::FileContent,
        stream: &mut dyn ContentStream,
    ) -> Option<Self> {
        let old_chunks = view.open(before).ok()?.chunks().ok()?;
        let next = stream.chunks().ok()?;
        let mut offsets = HashMap::with_capacity(old_chunks.len());
        let mut at = 0;
        for chunk in old_chunks {
            offsets.insert(chunk.chunk, at);
            at += u64::from(chunk.length);
        }
        next.iter()
            .any(|chunk| offsets.contains_key(&chunk.chunk))
            .then(|| Self {
                file,
                offsets,
                next: next.into(),
            })
    }
}

/// Copies a range, by sharing blocks where the file system can.
fn copy_range(from: &File, mut offset: u64, to: &File, mut at: u64, length: u64) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let step = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut offset), to, Some(&mut at), step) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(copied) => left -= copied as u64,
            Err(_) => {
                let mut buffer = vec![0; step.min(1 << 20)];
                from.read_exact_at(&mut buffer, offset)?;
                to.write_all_at(&buffer, at)?;
                offset += buffer.len() as u64;
                at += buffer.len() as u64;
                left -= buffer.len() as u64;
            }
        }
    }
    Ok(())
}
