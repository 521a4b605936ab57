//! Buffers whose bytes begin where the disk can take them directly, past the system's cache of files.
//!
//! A large pack is written once and read once or twice, so its copy in that cache costs more than it ever saves.

use std::{
    fmt,
    ops::{Deref, DerefMut},
};

use bytes::Bytes;

/// Addresses, offsets and lengths of what goes past the cache are multiples of this many bytes: no common disk asks for more.
pub(crate) const ALIGNMENT: usize = 4096;

/// Whether bytes in memory, and their place in a file, may go past the cache.
pub(crate) fn is_aligned(offset: u64, bytes: &[u8]) -> bool {
    offset.is_multiple_of(ALIGNMENT as u64)
        && bytes.len().is_multiple_of(ALIGNMENT)
        && padding(bytes.as_ptr()) == 0
}

fn padding(address: *const u8) -> usize {
    address.align_offset(ALIGNMENT)
}

/// Bytes that begin at a multiple of [`ALIGNMENT`] in memory.
#[derive(Default)]
pub(crate) struct AlignedBuffer {
    bytes: Vec<u8>,
    /// Where they begin in `bytes`.
    start: usize,
}

impl AlignedBuffer {
    /// A buffer of `length` zeros.
    pub(crate) fn zeroed(length: usize) -> Self {
        let mut bytes = vec![0; length + ALIGNMENT];
        let start = padding(bytes.as_ptr());
        bytes.truncate(start + length);
        Self { bytes, start }
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.truncate(self.start);
    }

    /// Cuts, or fills up with zeros, to `length` bytes.
    pub(crate) fn resize(&mut self, length: usize) {
        self.reserve(length);
        self.bytes.resize(self.start + length, 0);
    }

    pub(crate) fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.reserve(self.len() + bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Makes room for `length` bytes in all. A vector that grew by itself would begin anywhere.
    fn reserve(&mut self, length: usize) {
        if self.start + length <= self.bytes.capacity() {
            return;
        }
        let room = length.max(2 * self.len());
        let mut bytes = Vec::with_capacity(room + ALIGNMENT);
        let start = padding(bytes.as_ptr());
        bytes.resize(start, 0);
        bytes.extend_from_slice(self);
        *self = Self { bytes, start };
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

impl From<AlignedBuffer> for Bytes {
    fn from(buffer: AlignedBuffer) -> Self {
        Bytes::from(buffer.bytes).slice(buffer.start..)
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AlignedBuffer({})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_aligned_while_they_grow() {
        let mut buffer = AlignedBuffer::default();
        let mut expected = Vec::new();
        for step in 1..200u32 {
            let piece = vec![step as u8; 1000 * step as usize % 70_001];
            buffer.extend_from_slice(&piece);
            expected.extend_from_slice(&piece);
            if step % 17 == 0 {
                buffer.resize(buffer.len().next_multiple_of(ALIGNMENT));
                expected.resize(expected.len().next_multiple_of(ALIGNMENT), 0);
                assert!(is_aligned(0, &buffer));
            }
        }
        assert_eq!(*buffer, *expected);
        assert_eq!(Bytes::from(buffer), expected);
    }

    #[test]
    fn a_cleared_buffer_is_used_again() {
        let mut buffer = AlignedBuffer::zeroed(3 * ALIGNMENT);
        assert!(is_aligned(0, &buffer));
        buffer.clear();
        assert!(buffer.is_empty());
        buffer.extend_from_slice(&[7; ALIGNMENT]);
        assert!(is_aligned(ALIGNMENT as u64, &buffer));
        assert!(!is_aligned(1, &buffer));
        assert!(!is_aligned(0, &buffer[1..]));
    }
}
