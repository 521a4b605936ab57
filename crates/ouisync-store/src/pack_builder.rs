//! Builds packs: places chunks back to back, seals frames as they fill, hashes them, pads the end.
//!
//! Owns the layout of a pack as it is written. Chunks of a batch are shuffled over two open packs, so that the length at which
//! a pack ends says nothing about the chunks in it. Must not read files, decide what to store, or touch the disk.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use ouisync_crypto::{
    frame_hash::{FrameHash, FrameHashes},
    pack::{
        FIRST_PLAINTEXT, FRAME_LENGTH, Frame, LATER_PLAINTEXT, MAX_FRAMES, PackKey, PackSalt,
        plaintext_capacity, plaintext_in_frame,
    },
    secret::ReadSecret,
};
use ouisync_model::{
    id::{ChunkId, PackId},
    operation::{ChunkPlace, Encoding, PackSize, PackTable},
};
use rand_core::CryptoRng;

use crate::aligned::AlignedBuffer;

/// Bytes of plaintext in the largest pack: no stored chunk can be longer.
pub const MAX_PLAINTEXT: usize = plaintext_capacity(MAX_FRAMES) as usize;
/// A second pack is opened when the first one holds this much: a small batch is one pack, which shows least.
const SHUFFLE_FROM: usize = MAX_PLAINTEXT / 2;

/// Where in a pack a byte of its plaintext is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FramePosition {
    /// Index of the frame.
    pub(crate) frame: u32,
    /// Offset in the opened frame.
    pub(crate) offset: usize,
    /// Bytes of plaintext in the frame from there on.
    pub(crate) room: usize,
}

impl FramePosition {
    /// Position of byte `plaintext` of a pack's plaintext.
    pub(crate) fn of(plaintext: usize) -> Self {
        let (frame, within) = match plaintext.checked_sub(FIRST_PLAINTEXT) {
            None => (0, plaintext),
            Some(later) => (
                1 + (later / LATER_PLAINTEXT) as u32,
                later % LATER_PLAINTEXT,
            ),
        };
        let range = plaintext_in_frame(frame);
        Self {
            frame,
            offset: range.start + within,
            room: range.len() - within,
        }
    }
}

/// Large buffers for reuse. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct PackBuffers {
    spare: Arc<Mutex<Vec<AlignedBuffer>>>,
}

impl PackBuffers {
    /// Buffers kept when nobody uses them.
    const SPARE: usize = 3;

    fn take(&self) -> AlignedBuffer {
        self.spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default()
    }

    fn give_back(&self, mut buffer: AlignedBuffer) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < Self::SPARE {
            buffer.clear();
            spare.push(buffer);
        }
    }
}

/// The bytes of a finished pack; its buffer is reused when this is dropped.
pub struct PackBytes {
    bytes: AlignedBuffer,
    buffers: PackBuffers,
}

impl Deref for PackBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for PackBytes {
    fn drop(&mut self) {
        self.buffers.give_back(std::mem::take(&mut self.bytes));
    }
}

impl fmt::Debug for PackBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PackBytes({})", self.bytes.len())
    }
}

/// A finished pack, ready to be stored and announced.
#[derive(Debug)]
pub struct SealedPack {
    /// BLAKE3 of `bytes`.
    pub id: PackId,
    /// Its size class.
    pub size: PackSize,
    /// Its bytes, `size.bytes()` of them.
    pub bytes: PackBytes,
    /// The frames' hashes in order, as the pack format defines them.
    pub frame_hashes: FrameHashes,
    /// Where its chunks lie; goes into the commit that adds the pack.
    pub table: PackTable,
}

/// A chunk as it goes into a pack.
#[derive(Clone, Copy, Debug)]
pub struct StoredChunk<'a> {
    /// The chunk.
    pub chunk: ChunkId,
    /// Length of its plaintext in bytes.
    pub length: u32,
    /// How `bytes` stand for the plaintext.
    pub encoding: Encoding,
    /// What is stored; at most [`MAX_PLAINTEXT`] bytes.
    pub bytes: &'a [u8],
}

/// A pack that is being filled.
struct OpenPack {
    key: PackKey,
    bytes: AlignedBuffer,
    /// Plaintext bytes so far.
    filled: usize,
    /// Hashes of the frames sealed so far.
    hashes: Vec<FrameHash>,
    chunks: Vec<ChunkPlace>,
}

impl OpenPack {
    fn new(secret: &ReadSecret, buffers: &PackBuffers, rng: &mut impl CryptoRng) -> Self {
        Self {
            key: PackKey::derive(secret, PackSalt::generate(rng)),
            bytes: buffers.take(),
            filled: 0,
            hashes: Vec::new(),
            chunks: Vec::new(),
        }
    }

    fn room(&self) -> usize {
        MAX_PLAINTEXT - self.filled
    }

    fn push(&mut self, stored: &StoredChunk<'_>) {
        self.chunks.push(ChunkPlace {
            chunk: stored.chunk,
            offset: self.filled as u32,
            stored: stored.bytes.len() as u32,
            length: stored.length,
            encoding: stored.encoding,
        });
        let mut rest = stored.bytes;
        while !rest.is_empty() {
            let position = FramePosition::of(self.filled);
            // A frame is sealed when the next one begins: only then is it known that it isn't the last.
            self.seal_before(position.frame);
            let (part, after) = rest.split_at(rest.len().min(position.room));
            self.bytes
                .resize(position.frame as usize * FRAME_LENGTH + position.offset);
            self.bytes.extend_from_slice(part);
            self.filled += part.len();
            rest = after;
        }
    }

    /// Seals all frames below `frame`, none of which is the last.
    fn seal_before(&mut self, frame: u32) {
        for index in self.hashes.len() as u32..frame {
            self.seal(index, false, PackSize::MAX);
        }
    }

    /// Seals the first frame that isn't. `size` matters only where it is one frame.
    fn seal(&mut self, index: u32, last: bool, size: PackSize) {
        let start = index as usize * FRAME_LENGTH;
        self.bytes.resize(start + FRAME_LENGTH);
        let frame: &mut Frame = (&mut self.bytes[start..])
            .try_into()
            .expect("resized to one frame");
        self.key.seal_frame(index, last, frame);
        self.hashes.push(FrameHash::of(size, index, frame));
    }

    fn finish(mut self, buffers: &PackBuffers) -> SealedPack {
        let frames = self.bytes.len().div_ceil(FRAME_LENGTH) as u64;
        let size = PackSize::for_frames(frames).expect("a pack never grows over its maximum");
        let last = size.frames() - 1;
        self.seal_before(last);
        self.seal(last, true, size);
        let frame_hashes = FrameHashes::new(self.hashes).expect("a pack size is a power of two");
        let id = frame_hashes.pack();
        SealedPack {
            id,
            size,
            bytes: PackBytes {
                bytes: self.bytes,
                buffers: buffers.clone(),
            },
            frame_hashes,
            table: PackTable {
                pack: id,
                round: 0,
                chunks: self.chunks,
            },
        }
    }
}

/// Fills packs with chunks. Holds at most two packs of 16 MiB.
pub struct PackBuilder<R> {
    secret: ReadSecret,
    rng: R,
    buffers: PackBuffers,
    open: Vec<OpenPack>,
}

impl<R: CryptoRng> PackBuilder<R> {
    /// A builder whose packs open with `secret`, that of the folder's current epoch.
    pub fn new(secret: ReadSecret, buffers: PackBuffers, rng: R) -> Self {
        Self {
            secret,
            rng,
            buffers,
            open: Vec::with_capacity(2),
        }
    }

    /// Places a chunk. A pack that has no room for it goes to `sink` first, so that its buffer can be used again. The caller
    /// doesn't push a chunk twice.
    ///
    /// # Panics
    /// When the stored bytes are longer than [`MAX_PLAINTEXT`].
    pub fn push<E>(
        &mut self,
        stored: &StoredChunk<'_>,
        sink: &mut impl FnMut(SealedPack) -> Result<(), E>,
    ) -> Result<(), E> {
        let length = stored.bytes.len();
        assert!(
            length <= MAX_PLAINTEXT,
            "a chunk is far shorter than a pack"
        );
        let want_another = match self.open.as_slice() {
            [] => true,
            [only] => only.filled >= SHUFFLE_FROM || only.room() < length,
            _ => false,
        };
        if !want_another && self.open.iter().all(|pack| pack.room() < length) {
            // There are two: the fuller one ends here.
            let fuller = usize::from(self.open[1].filled > self.open[0].filled);
            sink(self.open.swap_remove(fuller).finish(&self.buffers))?;
        }
        if self.open.len() < 2
            && (want_another || self.open.iter().all(|pack| pack.room() < length))
        {
            self.open
                .push(OpenPack::new(&self.secret, &self.buffers, &mut self.rng));
        }
        let choice = self.rng.next_u32() as usize % self.open.len();
        let other = self.open.len() - 1 - choice;
        let index = if self.open[choice].room() >= length {
            choice
        } else {
            other
        };
        self.open[index].push(stored);
        Ok(())
    }

    /// Ends the open packs, padded to their size class.
    pub fn finish<E>(
        &mut self,
        sink: &mut impl FnMut(SealedPack) -> Result<(), E>,
    ) -> Result<(), E> {
        for pack in self.open.drain(..).filter(|pack| pack.filled > 0) {
            sink(pack.finish(&self.buffers))?;
        }
        Ok(())
    }
}
