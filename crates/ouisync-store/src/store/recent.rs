//! Frames that came a moment ago, in memory: who puts a file together while it comes reads them next, and the disk has enough to do.
//!
//! Packs never change, so nothing here can be out of date; whether a pack may be read is asked of the catalogue each time. What is
//! kept stays until it is read to its end or too old, so that who reads in the order of writing finds what comes next; what
//! comes while there is no room is read from the disk.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use ouisync_crypto::pack::FRAME_LENGTH;
use ouisync_model::id::PackId;

use super::Store;

/// Bytes kept at most.
const ROOM: usize = 32 << 20;
/// What nobody has read after this time goes.
const AGE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(crate) struct Recent {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// In the order of writing.
    pieces: VecDeque<Piece>,
    bytes: usize,
}

#[derive(Debug)]
struct Piece {
    pack: PackId,
    first: u32,
    frames: Bytes,
    since: Instant,
}

impl Piece {
    fn range(&self) -> Range<u32> {
        self.first..self.first + (self.frames.len() / FRAME_LENGTH) as u32
    }
}

impl Kept {
    fn has_room(&self, length: usize) -> bool {
        self.bytes + length <= ROOM
    }

    fn push(&mut self, pack: PackId, first: u32, frames: Bytes) {
        self.bytes += frames.len();
        self.pieces.push_back(Piece {
            pack,
            first,
            frames,
            since: Instant::now(),
        });
    }

    fn remove(&mut self, index: usize) -> Option<Piece> {
        let piece = self.pieces.remove(index)?;
        self.bytes -= piece.frames.len();
        Some(piece)
    }

    fn forget_old(&mut self) {
        while let Some(oldest) = self.pieces.front()
            && oldest.since.elapsed() >= AGE
        {
            self.remove(0);
        }
    }

    /// The kept frames from the range's first on, within it and one piece; forgets the piece at its end.
    fn take(&mut self, pack: PackId, range: &Range<u32>) -> Option<Bytes> {
        let holds = |piece: &Piece| piece.pack == pack && piece.range().contains(&range.start);
        let index = self.pieces.iter().position(holds)?;
        let piece = &self.pieces[index];
        let (whole, at) = (piece.range(), |frame: u32| {
            (frame - piece.first) as usize * FRAME_LENGTH
        });
        let end = range.end.min(whole.end);
        let frames = piece.frames.slice(at(range.start)..at(end));
        if end == whole.end {
            self.remove(index);
        }
        Some(frames)
    }
}

impl Recent {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames of a pack, if all of them are kept.
    pub(super) fn read(&self, pack: PackId, range: Range<u32>) -> Option<Bytes> {
        let mut kept = self.kept();
        let has = |frame: u32| {
            let mut pieces = kept.pieces.iter();
            pieces.any(|piece| piece.pack == pack && piece.range().contains(&frame))
        };
        if kept.pieces.is_empty() || !range.clone().all(has) {
            return None;
        }
        let first = kept.take(pack, &range)?;
        let length = range.len() * FRAME_LENGTH;
        if first.len() == length {
            return Some(first);
        }
        let mut frames = BytesMut::with_capacity(length);
        frames.extend_from_slice(&first);
        while frames.len() < length {
            let next = range.start + (frames.len() / FRAME_LENGTH) as u32;
            frames.extend_from_slice(&kept.take(pack, &(next..range.end))?);
        }
        Some(frames.freeze())
    }
}

impl Store {
    /// Keeps frames of a pack in memory for a moment, if there is room. They are those in the pack's file, or will be before it is
    /// whole.
    pub fn keep_recent(&self, pack: PackId, first: u32, frames: Bytes) {
        let mut kept = self.recent().kept();
        kept.forget_old();
        if kept.has_room(frames.len()) {
            kept.push(pack, first, frames);
        }
    }

    /// Gives up what was kept and not read for some seconds; call it from time to time.
    pub fn forget_recent(&self) {
        self.recent().kept().forget_old();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PACK: PackId = PackId::from_bytes([1; 32]);

    fn frames(range: Range<u32>) -> Bytes {
        range
            .flat_map(|frame| vec![frame as u8; FRAME_LENGTH])
            .collect()
    }

    #[test]
    fn what_is_kept_is_read_once() {
        let recent = Recent::default();
        recent.kept().push(PACK, 0, frames(0..4));
        recent.kept().push(PACK, 8, frames(8..16));
        recent.kept().push(PACK, 4, frames(4..8));
        assert_eq!(recent.read(PackId::from_bytes([2; 32]), 0..1), None);
        assert_eq!(recent.read(PACK, 15..17), None);
        assert_eq!(recent.read(PACK, 1..3), Some(frames(1..3)));
        assert_eq!(recent.read(PACK, 1..10), Some(frames(1..10)));
        assert_eq!(recent.read(PACK, 0..1), None, "read to its end");
        assert_eq!(recent.kept().bytes, 8 * FRAME_LENGTH);
        assert_eq!(recent.read(PACK, 10..16), Some(frames(10..16)));
        assert_eq!(recent.kept().bytes, 0);
    }

    #[test]
    fn a_last_reader_gets_the_memory_itself() {
        let recent = Recent::default();
        recent.kept().push(PACK, 0, frames(0..4));
        drop(recent.read(PACK, 0..1).unwrap());
        let rest = recent.read(PACK, 1..4).unwrap();
        assert!(rest.try_into_mut().is_ok());
    }
}
