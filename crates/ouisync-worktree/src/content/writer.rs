//! Writing a file from its beginning to its end: zeros become holes, and a large file goes to the disk in large pieces past the
//! system's cache, where the file system can do that: on its way through it would push out what people use.

use std::{fs::File, io, os::unix::fs::FileExt};

/// Zeros are looked for in pieces of this length. Addresses, offsets and lengths of what goes past the cache are multiples of it.
const BLOCK: usize = 4096;
/// A large file is written in pieces that end at multiples of this many bytes.
const PIECE: usize = 4 << 20;
/// What is shorter goes through the cache.
const DIRECT_FROM: usize = 64 << 10;

/// Writes one new file.
pub(crate) struct Writer {
    file: File,
    /// The same file, opened to write past the cache.
    direct: Option<File>,
    /// End of what is on disk or in `piece`; a hole may follow.
    written: u64,
    piece: Option<Piece>,
}

/// The part of a large file that is gathered.
struct Piece {
    bytes: Vec<u8>,
    /// Where in `bytes` the byte of the file is whose offset is a multiple of [`PIECE`]: at a multiple of [`BLOCK`] in memory.
    zero: usize,
    /// The part of the file that is in it.
    from: u64,
    to: u64,
}

impl Piece {
    fn new() -> Self {
        let bytes = vec![0; PIECE + BLOCK];
        let zero = bytes.as_ptr().align_offset(BLOCK);
        Self {
            bytes,
            zero,
            from: 0,
            to: 0,
        }
    }

    /// Takes as many of the bytes that follow as fit; tells how many.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let within = (self.to % PIECE as u64) as usize;
        let count = bytes.len().min(PIECE - within);
        let at = self.zero + within;
        self.bytes[at..at + count].copy_from_slice(&bytes[..count]);
        self.to += count as u64;
        count
    }

    fn is_full(&self) -> bool {
        self.to > self.from && self.to.is_multiple_of(PIECE as u64)
    }

    fn filled(&self) -> &[u8] {
        let at = self.zero + (self.from % PIECE as u64) as usize;
        &self.bytes[at..at + (self.to - self.from) as usize]
    }
}

impl Writer {
    /// For a file of a few pieces at most.
    pub(super) fn small(file: File) -> Self {
        Self {
            file,
            direct: None,
            written: 0,
            piece: None,
        }
    }

    /// For a large file; `direct` is the same file, opened to write past the cache, if that can be done.
    pub(crate) fn large(file: File, direct: Option<File>) -> Self {
        Self {
            file,
            direct,
            written: 0,
            piece: Some(Piece::new()),
        }
    }

    /// The file; what was written last may not be in it before [`Self::finish`].
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Writes the bytes at `offset`, at or after the end of all before.
    pub(crate) fn write(&mut self, offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        let Some(piece) = &mut self.piece else {
            return self.write_sparse(offset, bytes);
        };
        if piece.to != offset {
            self.flush()?;
        }
        if let Some(piece) = &mut self.piece
            && piece.from == piece.to
        {
            (piece.from, piece.to) = (offset, offset);
        }
        while !bytes.is_empty()
            && let Some(piece) = &mut self.piece
        {
            bytes = &bytes[piece.take(bytes)..];
            if piece.is_full() {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Has `copy` put `length` bytes into the file at `offset`, at or after the end of all before.
    pub(super) fn copy_in(
        &mut self,
        offset: u64,
        length: u64,
        copy: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<()> {
        self.flush()?;
        copy(&self.file)?;
        self.written = self.written.max(offset + length);
        Ok(())
    }

    /// Takes away all but the first `length` bytes.
    pub(crate) fn cut(&mut self, length: u64) -> io::Result<()> {
        self.flush()?;
        self.file.set_len(length)?;
        self.written = length;
        Ok(())
    }

    /// Writes what is left, and makes the file `size` bytes long.
    pub(super) fn finish(&mut self, size: u64) -> io::Result<()> {
        self.flush()?;
        if self.written != size {
            self.file.set_len(size)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Out of its place meanwhile; after an error nothing more is written.
        let Some(mut piece) = self.piece.take() else {
            return Ok(());
        };
        self.write_sparse(piece.from, piece.filled())?;
        piece.from = piece.to;
        self.piece = Some(piece);
        Ok(())
    }

    /// Writes all but blocks of zeros.
    fn write_sparse(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // Blocks end at multiples of their length in the file, where holes can begin.
        let mut from = 0;
        let mut written_from: Option<usize> = None;
        while from < bytes.len() {
            let in_block = (offset + from as u64) as usize % BLOCK;
            let to = (from + BLOCK - in_block).min(bytes.len());
            let zero = bytes[from..to].iter().all(|byte| *byte == 0);
            match (zero, written_from) {
                (true, Some(start)) => {
                    self.write_run(offset + start as u64, &bytes[start..from])?;
                    written_from = None;
                }
                (false, None) => written_from = Some(from),
                _ => {}
            }
            from = to;
        }
        match written_from {
            Some(start) => self.write_run(offset + start as u64, &bytes[start..]),
            None => Ok(()),
        }
    }

    fn write_run(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let head = (offset.next_multiple_of(BLOCK as u64) - offset) as usize;
        self.written = offset + bytes.len() as u64;
        if let Some(direct) = &self.direct
            && let Some(rest) = bytes.get(head..)
            && rest.len() >= DIRECT_FROM
            && rest.as_ptr().align_offset(BLOCK) == 0
        {
            let body = rest.len() / BLOCK * BLOCK;
            match direct.write_all_at(&rest[..body], offset + head as u64) {
                Ok(()) => {
                    self.file.write_all_at(&bytes[..head], offset)?;
                    let end = head + body;
                    return self.file.write_all_at(&bytes[end..], offset + end as u64);
                }
                // Some file systems let a file be opened so and not be used so.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.direct = None,
                Err(error) => return Err(error),
            }
        }
        self.file.write_all_at(bytes, offset)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt, path::Path};

    use super::*;

    fn create(path: &Path) -> File {
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .unwrap()
    }

    fn large(path: &Path) -> Writer {
        let file = create(path);
        let directory = File::open(path.parent().unwrap()).unwrap();
        let direct =
            crate::disk::open_direct(&directory, path.file_name().unwrap().as_encoded_bytes());
        Writer::large(file, direct.ok())
    }

    /// No block of it is zero.
    fn noise(length: usize) -> Vec<u8> {
        (0..length as u64)
            .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 | 1)
            .collect()
    }

    #[test]
    fn zeros_become_holes() {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; 1 << 20];
        bytes[5] = 1;
        bytes[700_000] = 2;
        for (name, mut writer) in [
            (
                "small",
                Writer::small(create(&directory.path().join("small"))),
            ),
            ("large", large(&directory.path().join("large"))),
        ] {
            // In pieces that don't fit the blocks.
            for (index, piece) in bytes.chunks(100_001).enumerate() {
                writer.write(index as u64 * 100_001, piece).unwrap();
            }
            writer.finish(1 << 20).unwrap();
            assert_eq!(fs::read(directory.path().join(name)).unwrap(), bytes);
            assert!(writer.file().metadata().unwrap().blocks() * 512 < 100_000);
        }
    }

    #[test]
    fn a_large_file_is_written_as_it_came() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let mut bytes = noise(11_000_003);
        bytes[3_000_000..6_500_000].fill(0);
        let mut writer = large(&path);
        let mut at = 0;
        for (index, piece) in bytes.chunks(700_001).enumerate() {
            if index % 5 == 3 {
                writer
                    .copy_in(at, piece.len() as u64, |file| file.write_all_at(piece, at))
                    .unwrap();
            } else {
                writer.write(at, piece).unwrap();
            }
            at += piece.len() as u64;
        }
        writer.finish(at).unwrap();
        assert!(fs::read(&path).unwrap() == bytes);
    }

    #[test]
    fn a_file_that_ends_in_zeros_has_its_length() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let mut bytes = noise(5 << 20);
        bytes.extend([0; 100_000]);
        let mut writer = large(&path);
        writer.write(0, &bytes).unwrap();
        writer.finish(bytes.len() as u64).unwrap();
        assert!(fs::read(&path).unwrap() == bytes);
    }
}
