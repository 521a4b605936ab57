//! Reads single chunks: finds a place whose pack is here, opens the frames that hold it, checks what comes out.

use std::{io, sync::Arc};

use bytes::BytesMut;
use ouisync_crypto::{
    keys::{ChunkIdKey, FolderKeys},
    pack::{FRAME_LENGTH, Frame, PackHeader, PackKey, frames_of_plaintext, plaintext_capacity},
};
use ouisync_model::{
    id::{ChunkId, PackId},
    operation::{ChunkPlace, ChunkRef, Encoding},
};

use super::{ChunkPlaces, ContentError, FrameSource};
use crate::{chunker::SizeLevel, pack_builder::FramePosition};

/// Opened frames kept, one a pack: neighbouring chunks share frames, and a file's chunks alternate between packs.
const FRAMES_KEPT: usize = 8;
/// Packs of which sealed frames are read ahead, and the most frames read at once: 2 MiB.
const AHEAD_KEPT: usize = 3;
const MOST_AHEAD: u32 = 32;
/// Packs whose key and length are kept.
const PACKS_KEPT: usize = 8;

/// The folder's keys that reading needs. Clones share them.
#[derive(Clone, Debug)]
pub struct ReadKeys {
    /// Checks chunks.
    pub chunk_ids: ChunkIdKey,
    /// Open packs of all known epochs.
    pub folder: Arc<FolderKeys>,
}

/// Reads chunks out of packs. Not shared between threads; make one for each reader.
pub struct ChunkReader<P, F> {
    keys: ReadKeys,
    places: P,
    source: F,
    /// Most recently used last.
    packs: Vec<OpenedPack>,
    /// Most recently used last.
    frames: Vec<OpenedFrame>,
    /// Most recently used last.
    ahead: Vec<Ahead>,
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
    stored: Vec<u8>,
}

struct OpenedPack {
    pack: PackId,
    frames: u32,
    key: Arc<PackKey>,
}

/// Sealed frames of a pack that were read along with the ones before: who reads on is not kept waiting by the disk each time.
struct Ahead {
    pack: PackId,
    /// The frame after the last one that was taken.
    next: u32,
    /// Frames from there on.
    frames: BytesMut,
    /// Frames that were read last time.
    step: u32,
}

struct OpenedFrame {
    pack: PackId,
    index: u32,
    bytes: Box<Frame>,
}

impl<P: ChunkPlaces, F: FrameSource> ChunkReader<P, F> {
    /// A reader of packs from `source` by the places that `places` knows.
    pub fn new(keys: ReadKeys, places: P, source: F) -> Self {
        Self {
            keys,
            places,
            source,
            packs: Vec::new(),
            frames: Vec::new(),
            ahead: Vec::new(),
            decompressor: None,
            stored: Vec::new(),
        }
    }

    /// Reads a chunk into `plaintext`, replacing what is there. Of several places all are tried until one gives the chunk.
    pub fn read(&mut self, chunk: ChunkRef, plaintext: &mut Vec<u8>) -> Result<(), ContentError> {
        if chunk.length as usize > SizeLevel::MAX_CHUNK {
            return Err(ContentError::Inconsistent);
        }
        let mut failure = ContentError::NotYetKnown(chunk.chunk);
        for (pack, place) in self.places.places(&chunk.chunk)? {
            if place.length != chunk.length {
                failure = ContentError::Inconsistent;
                continue;
            }
            match self.read_place(&pack, &place, plaintext) {
                Ok(()) => return Ok(()),
                // Damage is told rather than absence: it wants repair.
                Err(ContentError::MissingPack(_))
                    if matches!(failure, ContentError::Damaged(_)) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Reads the chunk at `place` in `pack` and checks it.
    pub fn read_place(
        &mut self,
        pack: &PackId,
        place: &ChunkPlace,
        plaintext: &mut Vec<u8>,
    ) -> Result<(), ContentError> {
        let read = self.read_whole(pack, place, plaintext);
        if read.is_err() {
            // The pack may be repaired meanwhile.
            self.ahead.clear();
        }
        read
    }

    fn read_whole(
        &mut self,
        pack: &PackId,
        place: &ChunkPlace,
        plaintext: &mut Vec<u8>,
    ) -> Result<(), ContentError> {
        let damaged = || ContentError::Damaged(*pack);
        let (start, length) = (place.offset as usize, place.length as usize);
        if length > SizeLevel::MAX_CHUNK || place.stored as usize > SizeLevel::MAX_CHUNK {
            return Err(damaged());
        }
        plaintext.clear();
        match place.encoding {
            Encoding::Raw if place.stored == place.length => {
                plaintext.reserve(length);
                self.read_stored(pack, start, length, plaintext)?;
            }
            Encoding::Raw => return Err(damaged()),
            Encoding::Zstd => {
                let mut stored = std::mem::take(&mut self.stored);
                stored.clear();
                let read = self.read_stored(pack, start, place.stored as usize, &mut stored);
                plaintext.resize(length, 0);
                let decompressed =
                    read.and_then(|()| self.decompress(&stored, plaintext).map_err(|_| damaged()));
                self.stored = stored;
                if decompressed? != length {
                    return Err(damaged());
                }
            }
        }
        if self.chunk_id(plaintext) == place.chunk {
            Ok(())
        } else {
            Err(damaged())
        }
    }

    pub(super) fn chunk_id(&self, plaintext: &[u8]) -> ChunkId {
        self.keys.chunk_ids.chunk_id(plaintext)
    }

    pub(super) const fn places(&self) -> &P {
        &self.places
    }

    /// Like [`Self::read_place`], for a chunk that is to be stored again: gives its bytes as they are stored.
    pub fn read_as_stored(
        &mut self,
        pack: &PackId,
        place: &ChunkPlace,
        plaintext: &'_ mut Vec<u8>,
    ) -> Result<Vec<u8>, ContentError> {
        self.read_place(pack, place, plaintext)?;
        Ok(match place.encoding {
            Encoding::Raw => std::mem::take(plaintext),
            Encoding::Zstd => std::mem::take(&mut self.stored),
        })
    }

    /// Whether a pack that isn't here will come.
    pub(super) fn is_coming(&self, pack: &PackId) -> Result<bool, ContentError> {
        self.source
            .is_coming(pack)
            .map_err(ContentError::store(*pack))
    }

    /// Whether a pack is here.
    pub(super) fn is_here(&mut self, pack: &PackId) -> Result<bool, ContentError> {
        let count = self
            .source
            .frame_count(pack)
            .map_err(ContentError::store(*pack))?;
        Ok(count.is_some())
    }

    fn decompress(&mut self, stored: &[u8], plaintext: &mut [u8]) -> io::Result<usize> {
        let decompressor = match &mut self.decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(zstd::bulk::Decompressor::new()?),
        };
        decompressor.decompress_to_buffer(stored, plaintext)
    }

    /// Appends `length` bytes from byte `start` of the pack's plaintext to `output`.
    fn read_stored(
        &mut self,
        pack: &PackId,
        start: usize,
        length: usize,
        output: &mut Vec<u8>,
    ) -> Result<(), ContentError> {
        let (frames, key) = self.open_pack(pack)?;
        let range = start as u64..(start + length) as u64;
        if range.end > plaintext_capacity(frames) {
            return Err(ContentError::Damaged(*pack));
        }
        let indices = frames_of_plaintext(range);
        let mut position = FramePosition::of(start);
        let mut rest = length;
        let mut take = |frame: &Frame| {
            let count = rest.min(position.room);
            output.extend_from_slice(&frame[position.offset..position.offset + count]);
            rest -= count;
            position = FramePosition::of(start + length - rest);
        };
        let mut next = indices.start;
        while next < indices.end
            && let Some(frame) = self.opened_frame(pack, next)
        {
            take(frame);
            next += 1;
        }
        while next < indices.end {
            let mut sealed = self.sealed_frames(pack, next, indices.end - next, frames)?;
            let (sealed, _) = sealed.as_chunks_mut::<FRAME_LENGTH>();
            for frame in &mut *sealed {
                key.open_frame(next, next + 1 == frames, frame)
                    .map_err(|_| ContentError::Damaged(*pack))?;
                take(frame);
                next += 1;
            }
            if let Some(last) = sealed.last()
                && next == indices.end
            {
                self.keep_frame(pack, next - 1, last);
            }
        }
        Ok(())
    }

    /// Between one and `most` sealed frames from frame `first` on of a pack of `total` frames.
    fn sealed_frames(
        &mut self,
        pack: &PackId,
        first: u32,
        most: u32,
        total: u32,
    ) -> Result<BytesMut, ContentError> {
        let known = self.ahead.iter().position(|ahead| ahead.pack == *pack);
        let known = known.map(|at| self.ahead.remove(at));
        let mut ahead = known
            .filter(|ahead| ahead.next == first)
            .unwrap_or_else(|| Ahead {
                pack: *pack,
                next: first,
                frames: BytesMut::new(),
                step: 0,
            });
        if ahead.frames.is_empty() {
            let step = (2 * ahead.step)
                .clamp(most, MOST_AHEAD.max(most))
                .min(total - first);
            // Not across the ends of what is written, and kept in memory, at a time.
            let whole = (first + step) / MOST_AHEAD * MOST_AHEAD;
            let step = if whole >= first + most {
                whole - first
            } else {
                step
            };
            let read = match self.source.read_frames(pack, first, step) {
                // What was not asked for must not be in the way.
                Err(_) if step > most => self.source.read_frames(pack, first, most),
                read => read,
            };
            ahead.frames = read.map_err(ContentError::store(*pack))?;
            ahead.step = step;
            let (frames, extra) = ahead.frames.as_chunks::<FRAME_LENGTH>();
            if frames.is_empty() || frames.len() > step as usize || !extra.is_empty() {
                return Err(ContentError::Damaged(*pack));
            }
        }
        let length = ahead.frames.len().min(most as usize * FRAME_LENGTH);
        let frames = ahead.frames.split_to(length);
        ahead.next += (length / FRAME_LENGTH) as u32;
        if self.ahead.len() == AHEAD_KEPT {
            self.ahead.remove(0);
        }
        self.ahead.push(ahead);
        Ok(frames)
    }

    /// A frame opened before.
    fn opened_frame(&mut self, pack: &PackId, index: u32) -> Option<&Frame> {
        let at = self
            .frames
            .iter()
            .position(|frame| frame.index == index && frame.pack == *pack)?;
        let newest = self.frames.len() - 1;
        self.frames[at..].rotate_left(1);
        Some(&self.frames[newest].bytes)
    }

    /// Keeps a frame, in the place of the pack's one before: chunks of a file follow each other in every pack.
    fn keep_frame(&mut self, pack: &PackId, index: u32, frame: &Frame) {
        let of_pack = self.frames.iter().position(|kept| kept.pack == *pack);
        match of_pack.or((self.frames.len() == FRAMES_KEPT).then_some(0)) {
            None => self.frames.push(OpenedFrame {
                pack: *pack,
                index,
                bytes: Box::new(*frame),
            }),
            Some(at) => {
                self.frames[at..].rotate_left(1);
                if let Some(newest) = self.frames.last_mut() {
                    newest.pack = *pack;
                    newest.index = index;
                    newest.bytes.copy_from_slice(frame);
                }
            }
        }
    }

    /// Length in frames and key of a pack.
    fn open_pack(&mut self, pack: &PackId) -> Result<(u32, Arc<PackKey>), ContentError> {
        if let Some(at) = self.packs.iter().position(|opened| opened.pack == *pack) {
            self.packs[at..].rotate_left(1);
            if let Some(opened) = self.packs.last() {
                return Ok((opened.frames, Arc::clone(&opened.key)));
            }
        }
        let frames = self
            .source
            .frame_count(pack)
            .map_err(ContentError::store(*pack))?;
        let frames = frames.ok_or(ContentError::MissingPack(*pack))?;
        let first = self
            .source
            .read_frames(pack, 0, 1)
            .map_err(ContentError::store(*pack))?;
        let mut first: Box<Frame> = Box::new(
            first
                .as_ref()
                .try_into()
                .map_err(|_| ContentError::Damaged(*pack))?,
        );
        let (_, key) = self
            .keys
            .folder
            .open_pack(&PackHeader::of_frame(&first))
            .ok_or(ContentError::NoKey(*pack))?;
        key.open_frame(0, frames == 1, &mut first)
            .map_err(|_| ContentError::Damaged(*pack))?;
        self.keep_frame(pack, 0, &first);
        let key = Arc::new(key);
        if self.packs.len() == PACKS_KEPT {
            let done = self.packs.remove(0);
            self.source.finished(&done.pack, done.frames);
        }
        self.packs.push(OpenedPack {
            pack: *pack,
            frames,
            key: Arc::clone(&key),
        });
        Ok((frames, key))
    }
}
