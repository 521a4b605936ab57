//! A file's chunk list as it grows: direct while short, else cut into parts that become chunks themselves.
//!
//! The parts are cut where a chunk's id says so, so that a changed chunk changes one part. The encoding begins with the number
//! of chunks, known only at the end: so the first part is held back.

use ouisync_model::operation::{ChunkRef, FileData};

/// Fewest chunks in a part that isn't the last.
const MIN_PART: usize = 256;
/// Most chunks in a part.
const MAX_PART: usize = 1024;
/// A part ends after a chunk with these bits zero in the last byte of its id: 256 more on average.
const BOUNDARY: u8 = 0xff;

#[derive(Default)]
pub(super) struct ChunkList {
    count: u64,
    /// The whole list while it is short, then the chunks of the part that grows.
    pending: Vec<ChunkRef>,
    /// How many of `pending` were looked at for a boundary.
    looked_at: usize,
    indirect: bool,
    first: Option<Vec<u8>>,
    stored: Vec<ChunkRef>,
}

pub(super) enum Finished {
    Direct(Vec<ChunkRef>),
    Indirect {
        /// The encoding's first part, to be stored now.
        first: Vec<u8>,
        /// The parts after it that are stored.
        stored: Vec<ChunkRef>,
        /// The last part, to be stored now.
        last: Option<Vec<u8>>,
    },
}

impl ChunkList {
    /// Adds a chunk. Returns a part that is complete; the caller stores it and tells by [`ChunkList::stored`].
    #[must_use]
    pub(super) fn push(&mut self, chunk: ChunkRef) -> Option<Vec<u8>> {
        self.count += 1;
        self.pending.push(chunk);
        self.indirect |= self.pending.len() > FileData::DIRECT_LIMIT;
        if !self.indirect {
            return None;
        }
        // When the list has just become indirect, a short list's worth of chunks is looked at: at most MAX_PART + 1, and each
        // part that ends among them but the last is returned by a later push.
        let length = self.part_length()?;
        let rest = self.pending.split_off(length);
        let part = encode(&std::mem::replace(&mut self.pending, rest));
        self.looked_at = 0;
        match self.first {
            None => {
                self.first = Some(part);
                None
            }
            Some(_) => Some(part),
        }
    }

    /// A complete part became this chunk.
    pub(super) fn stored(&mut self, part: ChunkRef) {
        self.stored.push(part);
    }

    /// Length of the first part of `pending`, if it is complete.
    fn part_length(&mut self) -> Option<usize> {
        let from = self.looked_at.max(MIN_PART - 1);
        let boundary = (from..self.pending.len().min(MAX_PART)).find(|index| {
            *index + 1 == MAX_PART || self.pending[*index].chunk.as_bytes()[31] & BOUNDARY == 0
        });
        self.looked_at = self.pending.len();
        boundary.map(|index| index + 1)
    }

    pub(super) fn finish(mut self) -> Finished {
        if !self.indirect {
            return Finished::Direct(self.pending);
        }
        let count = postcard::to_allocvec(&self.count).expect("a number always encodes");
        let mut first = count;
        let mut last = None;
        match self.first.take() {
            Some(part) => {
                first.extend_from_slice(&part);
                last = (!self.pending.is_empty()).then(|| encode(&self.pending));
            }
            None => first.extend_from_slice(&encode(&self.pending)),
        }
        Finished::Indirect {
            first,
            stored: self.stored,
            last,
        }
    }
}

/// The chunks' encodings without a length before them.
fn encode(chunks: &[ChunkRef]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(chunks.len() * 36);
    for chunk in chunks {
        bytes = postcard::to_extend(chunk, bytes).expect("a chunk reference always encodes");
    }
    bytes
}
