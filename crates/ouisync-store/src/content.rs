//! Reads files' content back out of packs.
//!
//! Owns the way from a file's content to its plaintext: where its chunks are, which frames hold them, opening, decompressing,
//! checking every chunk against its id. Must not fetch anything: what isn't here is an error that names it.

use std::{
    io::{self, Read},
    sync::Arc,
};

use bytes::BytesMut;
use ouisync_model::{
    id::{ChunkId, PackId},
    operation::{ChunkPlace, ChunkRef, FileContent, FileData, PackSize},
};
use thiserror::Error;

use crate::{
    error::{ErrorKind, StoreError},
    index::IndexError,
    store::{
        Store,
        packs::{PackInfo, PackState},
    },
};

mod chunk_reader;
mod chunks;

pub use chunk_reader::{ChunkReader, ReadKeys};

/// Where packs' frames come from; the store of the folder.
pub trait FrameSource {
    /// Number of frames of a pack; `None` when it isn't wholly here.
    fn frame_count(&self, pack: &PackId) -> Result<Option<u32>, StoreError>;

    /// Reads `count` whole sealed frames from frame `first` on.
    fn read_frames(&self, pack: &PackId, first: u32, count: u32) -> Result<BytesMut, StoreError>;

    /// Whether a pack that isn't here will come: one that isn't live may be nowhere any more.
    fn is_coming(&self, pack: &PackId) -> Result<bool, StoreError> {
        let _ = pack;
        Ok(false)
    }

    /// A reader goes on to other packs; only a hint.
    fn finished(&self, pack: &PackId, frames: u32) {
        let _ = (pack, frames);
    }
}

/// Where chunks lie; the index of the folder.
pub trait ChunkPlaces {
    /// The known places of a chunk; empty when no commit told one yet.
    fn places(&self, chunk: &ChunkId) -> Result<Vec<(PackId, ChunkPlace)>, IndexError>;
}

impl FrameSource for Store {
    fn frame_count(&self, pack: &PackId) -> Result<Option<u32>, StoreError> {
        let whole = |info: &PackInfo| match info.state {
            PackState::Pending | PackState::Stored | PackState::Released { .. } => true,
            PackState::Missing | PackState::Partial | PackState::Damaged => false,
            PackState::Offloaded { here } => here,
        };
        Ok(self
            .pack(*pack)?
            .filter(whole)
            .map(|info| info.size.frames()))
    }

    fn read_frames(&self, pack: &PackId, first: u32, count: u32) -> Result<BytesMut, StoreError> {
        let frames = Store::read_frames(self, *pack, first, count)?;
        Ok(frames
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&*shared)))
    }

    fn is_coming(&self, pack: &PackId) -> Result<bool, StoreError> {
        self.is_live(*pack)
    }

    fn finished(&self, pack: &PackId, frames: u32) {
        if let Some(size) = PackSize::for_frames(frames.into()) {
            self.forget_cached(*pack, size);
        }
    }
}

impl<T: FrameSource + ?Sized> FrameSource for &T {
    fn frame_count(&self, pack: &PackId) -> Result<Option<u32>, StoreError> {
        (**self).frame_count(pack)
    }

    fn is_coming(&self, pack: &PackId) -> Result<bool, StoreError> {
        (**self).is_coming(pack)
    }

    fn read_frames(&self, pack: &PackId, first: u32, count: u32) -> Result<BytesMut, StoreError> {
        (**self).read_frames(pack, first, count)
    }

    fn finished(&self, pack: &PackId, frames: u32) {
        (**self).finished(pack, frames);
    }
}

impl<T: FrameSource + ?Sized> FrameSource for Arc<T> {
    fn frame_count(&self, pack: &PackId) -> Result<Option<u32>, StoreError> {
        (**self).frame_count(pack)
    }

    fn is_coming(&self, pack: &PackId) -> Result<bool, StoreError> {
        (**self).is_coming(pack)
    }

    fn read_frames(&self, pack: &PackId, first: u32, count: u32) -> Result<BytesMut, StoreError> {
        (**self).read_frames(pack, first, count)
    }

    fn finished(&self, pack: &PackId, frames: u32) {
        (**self).finished(pack, frames);
    }
}

impl<T: ChunkPlaces + ?Sized> ChunkPlaces for &T {
    fn places(&self, chunk: &ChunkId) -> Result<Vec<(PackId, ChunkPlace)>, IndexError> {
        (**self).places(chunk)
    }
}

impl<T: ChunkPlaces + ?Sized> ChunkPlaces for Arc<T> {
    fn places(&self, chunk: &ChunkId) -> Result<Vec<(PackId, ChunkPlace)>, IndexError> {
        (**self).places(chunk)
    }
}

/// Why content can't be read.
#[derive(Debug, Error)]
pub enum ContentError {
    /// The chunk is in a pack that isn't here.
    #[error("pack {0} is not here")]
    MissingPack(PackId),
    /// No commit told yet where the chunk is.
    #[error("the place of chunk {0} is not known")]
    NotYetKnown(ChunkId),
    /// The pack doesn't hold what it should.
    #[error("pack {0} is damaged")]
    Damaged(PackId),
    /// The pack is sealed for an epoch whose secret this device doesn't have.
    #[error("no key for pack {0}")]
    NoKey(PackId),
    /// The content contradicts itself: whoever wrote it is broken or hostile.
    #[error("the content's description contradicts itself")]
    Inconsistent,
    /// The index can't be read.
    #[error("the index can't be read")]
    Index(#[from] IndexError),
    /// A pack can't be read.
    #[error("pack {pack} can't be read")]
    Store {
        /// The pack.
        pack: PackId,
        /// Why.
        source: StoreError,
    },
}

impl ContentError {
    /// What the caller can do: transient ones pass when the pack or the commit arrives.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::MissingPack(_) | Self::NotYetKnown(_) => ErrorKind::Transient,
            Self::Damaged(_) => ErrorKind::Corruption,
            Self::NoKey(_) | Self::Inconsistent => ErrorKind::Permanent,
            Self::Index(error) => error.kind(),
            Self::Store { source, .. } => source.kind(),
        }
    }

    fn store(pack: PackId) -> impl FnOnce(StoreError) -> Self {
        move |source| match source {
            StoreError::PackAbsent(_) | StoreError::UnknownPack(_) => Self::MissingPack(pack),
            StoreError::PackDamaged(_) | StoreError::RangeWrong(_) => Self::Damaged(pack),
            source => Self::Store { pack, source },
        }
    }
}

/// Which packs a file's content needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackNeeds {
    /// Packs that are here and used.
    pub present: Vec<PackId>,
    /// Packs that are not here and needed.
    pub missing: Vec<PackId>,
    /// Chunks with no known place.
    pub unknown: Vec<ChunkId>,
    /// Whether this is all. A long chunk list is itself content: while it isn't here, only its packs are named, and when
    /// they have come the question must be asked again.
    pub complete: bool,
}

impl PackNeeds {
    /// Whether the content can be read now.
    pub fn is_readable(&self) -> bool {
        self.complete && self.missing.is_empty() && self.unknown.is_empty()
    }
}

/// Reads one file's content, in order or at any place.
///
/// Each chunk is opened whole and checked before any byte of it is given. Needs memory for about three chunks of the greatest
/// length, seven MiB of frames, and 36 bytes for each chunk of the file.
pub struct ContentReader<P, F> {
    reader: ChunkReader<P, F>,
    content: FileContent,
    /// The file's chunks, once known.
    chunks: Option<Vec<ChunkRef>>,
    /// Ends of the chunks in the file, once a place was asked for.
    ends: Vec<u64>,
    next: usize,
    offset: u64,
    /// The chunk opened last for [`ContentReader::read_at`] and [`Read`].
    opened: Option<usize>,
    plaintext: Vec<u8>,
    position: u64,
}

impl<P: ChunkPlaces, F: FrameSource> ContentReader<P, F> {
    /// A reader of `content` through `reader`.
    pub fn new(reader: ChunkReader<P, F>, content: FileContent) -> Self {
        Self {
            reader,
            content,
            chunks: None,
            ends: Vec::new(),
            next: 0,
            offset: 0,
            opened: None,
            plaintext: Vec::new(),
            position: 0,
        }
    }

    /// The chunk reader, for other content.
    pub fn into_reader(self) -> ChunkReader<P, F> {
        self.reader
    }

    /// Length of the file in bytes.
    pub const fn size(&self) -> u64 {
        self.content.size
    }

    /// The file's chunks in order. Reads no content but a long chunk list.
    pub fn chunks(&mut self) -> Result<&[ChunkRef], ContentError> {
        if self.chunks.is_none() {
            self.chunks = Some(chunks::of(&mut self.reader, &self.content)?);
        }
        Ok(self.chunks.as_deref().unwrap_or_default())
    }

    /// Reads the next chunk into `plaintext` and gives its offset in the file; `None` at the end.
    pub fn next_chunk(&mut self, plaintext: &mut Vec<u8>) -> Result<Option<u64>, ContentError> {
        let Some(chunk) = self.peek_chunk()? else {
            return Ok(None);
        };
        self.read_chunk(chunk, plaintext)?;
        let offset = self.offset;
        self.next += 1;
        self.offset += u64::from(chunk.length);
        Ok(Some(offset))
    }

    /// Passes over the next chunk without reading it; `None` at the end.
    pub fn skip_chunk(&mut self) -> Result<Option<ChunkRef>, ContentError> {
        let chunk = self.peek_chunk()?;
        if let Some(chunk) = chunk {
            self.next += 1;
            self.offset += u64::from(chunk.length);
        }
        Ok(chunk)
    }

    /// The chunk that [`Self::next_chunk`] reads.
    pub fn peek_chunk(&mut self) -> Result<Option<ChunkRef>, ContentError> {
        let next = self.next;
        Ok(self.chunks()?.get(next).copied())
    }

    /// Reads bytes from `offset` on into `buffer`; returns how many, 0 at the end. Fewer than asked for at a chunk's end.
    pub fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, ContentError> {
        if offset >= self.content.size || buffer.is_empty() {
            return Ok(0);
        }
        if self.ends.is_empty() {
            let mut end = 0;
            let ends = self.chunks()?.iter().map(|chunk| {
                end += u64::from(chunk.length);
                end
            });
            self.ends = ends.collect();
        }
        let index = self.ends.partition_point(|end| *end <= offset);
        let Some(chunk) = self.chunks()?.get(index).copied() else {
            return Err(ContentError::Inconsistent);
        };
        if self.opened != Some(index) {
            self.opened = None;
            let mut plaintext = std::mem::take(&mut self.plaintext);
            let read = self.read_chunk(chunk, &mut plaintext);
            self.plaintext = plaintext;
            read?;
            self.opened = Some(index);
        }
        let start = self.ends[index] - u64::from(chunk.length);
        let within = &self.plaintext[(offset - start) as usize..];
        let count = within.len().min(buffer.len());
        buffer[..count].copy_from_slice(&within[..count]);
        Ok(count)
    }

    fn read_chunk(&mut self, chunk: ChunkRef, plaintext: &mut Vec<u8>) -> Result<(), ContentError> {
        match &self.content.data {
            FileData::Inline(_, bytes) => {
                plaintext.clear();
                plaintext.extend_from_slice(bytes);
                Ok(())
            }
            FileData::Chunks(_) | FileData::Indirect(_) => self.reader.read(chunk, plaintext),
        }
    }
}

impl<P: ChunkPlaces, F: FrameSource> Read for ContentReader<P, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self
            .read_at(self.position, buffer)
            .map_err(io::Error::other)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl<P: ChunkPlaces, F: FrameSource> ChunkReader<P, F> {
    /// Which packs `content` needs.
    pub fn packs_of(&mut self, content: &FileContent) -> Result<PackNeeds, ContentError> {
        match &content.data {
            FileData::Inline(..) => Ok(PackNeeds {
                complete: true,
                ..PackNeeds::default()
            }),
            FileData::Chunks(chunks) => self.packs_of_chunks(chunks, true),
            FileData::Indirect(parts) => {
                let needs = self.packs_of_chunks(parts, false)?;
                if !needs.missing.is_empty() || !needs.unknown.is_empty() {
                    return Ok(needs);
                }
                let chunks = chunks::of(self, content)?;
                let mut all = self.packs_of_chunks(&chunks, true)?;
                all.present.extend(needs.present);
                all.present.sort_unstable();
                all.present.dedup();
                Ok(all)
            }
        }
    }

    fn packs_of_chunks(
        &mut self,
        chunks: &[ChunkRef],
        complete: bool,
    ) -> Result<PackNeeds, ContentError> {
        let mut needs = PackNeeds {
            complete,
            ..PackNeeds::default()
        };
        for chunk in chunks {
            let places = self.places().places(&chunk.chunk)?;
            let (mut present, mut coming) = (None, None);
            for (pack, _) in &places {
                if self.is_here(pack)? {
                    present = Some(*pack);
                    break;
                }
                if coming.is_none() && self.is_coming(pack)? {
                    coming = Some(*pack);
                }
            }
            let absent = coming.or(places.first().map(|(pack, _)| *pack));
            match (present, absent) {
                (Some(pack), _) => needs.present.push(pack),
                (None, Some(pack)) => needs.missing.push(pack),
                (None, None) => needs.unknown.push(chunk.chunk),
            }
        }
        for packs in [&mut needs.present, &mut needs.missing] {
            packs.sort_unstable();
            packs.dedup();
        }
        Ok(needs)
    }
}
