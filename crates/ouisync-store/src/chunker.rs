//! Content-defined chunking with a secret gear table.
//!
//! Owns where a file is cut. Every boundary comes from the folder's secret table, so a device without the secret can't
//! predict one; which bytes a chunk holds must never show outside, see the pack format. Must not hash, compress or store.
//!
//! The rolling hash is `h = (h << 1) + gear[byte]`, as in Xia et al., "FastCDC" (2016). A chunk ends after the first byte, at
//! least the minimum in, at which the masked hash is zero; the mask is harder before the average length and easier after it
//! (normalised chunking, two bits each way), and the maximum ends it anyway.

use std::io::{self, Read};

use ouisync_crypto::keys::GearTable;

/// How large the chunks of a file are: the average is 64 KiB shifted left by the level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SizeLevel(u8);

impl SizeLevel {
    /// The finest level: chunks of 64 KiB on average.
    pub const MIN: Self = Self(0);
    /// The coarsest level: chunks of 1 MiB on average, 4 MiB at most.
    pub const MAX: Self = Self(4);
    /// No chunk is longer than this, in bytes.
    pub const MAX_CHUNK: usize = Self::MAX.maximum();

    /// The level `level`; `None` above 4.
    pub const fn new(level: u8) -> Option<Self> {
        if level <= Self::MAX.0 {
            Some(Self(level))
        } else {
            None
        }
    }

    /// The level as it is recorded with the content.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The level for a new file of `size` bytes.
    pub const fn for_size(size: u64) -> Self {
        const MIB: u64 = 1 << 20;
        Self(match size {
            0..67_108_864 => 0,
            size if size < 512 * MIB => 1,
            size if size < 4096 * MIB => 2,
            size if size < 32768 * MIB => 3,
            _ => 4,
        })
    }

    /// The level for a new version, now `size` bytes long, of a file that was cut at the level `previous`: the same,
    /// so that unchanged parts keep their chunks, unless the size asks for one that differs by two or more.
    pub fn for_version(previous: u8, size: u64) -> Self {
        let wanted = Self::for_size(size);
        match Self::new(previous) {
            Some(previous) if previous.0.abs_diff(wanted.0) < 2 => previous,
            _ => wanted,
        }
    }

    /// Average length in bytes.
    pub const fn average(self) -> usize {
        (64 * 1024) << self.0
    }

    /// Least length in bytes of any chunk but a file's last.
    pub const fn minimum(self) -> usize {
        self.average() / 4
    }

    /// Greatest length in bytes.
    pub const fn maximum(self) -> usize {
        self.average() * 4
    }
}

/// The hash depends on this many bytes before a boundary.
const WINDOW: usize = 64;

/// The top `bits` bits, which depend on the whole window.
const fn mask(bits: u32) -> u64 {
    u64::MAX << (64 - bits)
}

/// Finds boundaries.
#[derive(Debug)]
pub struct Cutter {
    gear: GearTable,
}

impl Cutter {
    /// A cutter over the folder's secret table.
    pub const fn new(gear: GearTable) -> Self {
        Self { gear }
    }

    /// Length of the first chunk of `data`. `data` holds at least the level's maximum, or all that is left of the file.
    pub fn cut(&self, level: SizeLevel, data: &[u8]) -> usize {
        let data = &data[..data.len().min(level.maximum())];
        if data.len() <= level.minimum() {
            return data.len();
        }
        let bits = level.average().trailing_zeros();
        let middle = level.average().min(data.len());
        // The bytes just before the minimum prime the hash, so that a boundary depends only on the bytes around it.
        let gear = self.gear.as_array();
        let mut hash = 0u64;
        for byte in &data[level.minimum() - WINDOW..level.minimum()] {
            hash = (hash << 1).wrapping_add(gear[usize::from(*byte)]);
        }
        match scan(
            gear,
            &mut hash,
            &data[level.minimum()..middle],
            mask(bits + 2),
        ) {
            Some(length) => level.minimum() + length,
            None => match scan(gear, &mut hash, &data[middle..], mask(bits - 2)) {
                Some(length) => middle + length,
                None => data.len(),
            },
        }
    }
}

/// Rolls over `data` and returns how many bytes it took until the masked hash was zero.
#[inline]
fn scan(gear: &[u64; 256], state: &mut u64, data: &[u8], mask: u64) -> Option<usize> {
    let mut hash = *state;
    let (pairs, rest) = data.as_chunks::<2>();
    for (index, [first, second]) in pairs.iter().enumerate() {
        let first = gear[usize::from(*first)];
        let second = gear[usize::from(*second)];
        let between = (hash << 1).wrapping_add(first);
        // Not by way of `between`: the shorter the chain of dependent steps, the faster.
        hash = (hash << 2).wrapping_add((first << 1).wrapping_add(second));
        if between & mask == 0 {
            return Some(2 * index + 1);
        }
        if hash & mask == 0 {
            return Some(2 * index + 2);
        }
    }
    for byte in rest {
        hash = (hash << 1).wrapping_add(gear[usize::from(*byte)]);
        if hash & mask == 0 {
            return Some(data.len());
        }
    }
    *state = hash;
    None
}

/// Cuts what a reader gives into chunks, through one buffer of twice the greatest chunk.
pub struct Chunker<'cutter, R> {
    cutter: &'cutter Cutter,
    level: SizeLevel,
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    at_end: bool,
}

impl<'cutter, R: Read> Chunker<'cutter, R> {
    /// A chunker that reads `reader` to its end.
    pub fn new(cutter: &'cutter Cutter, level: SizeLevel, reader: R) -> Self {
        let buffer = vec![0; 2 * level.maximum()];
        Self {
            cutter,
            level,
            reader,
            buffer,
            start: 0,
            end: 0,
            at_end: false,
        }
    }

    /// The next chunk; `None` at the end of the input.
    pub fn next_chunk(&mut self) -> io::Result<Option<&[u8]>> {
        if self.end - self.start < self.level.maximum() && !self.at_end {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            self.end += fill(
                &mut self.reader,
                &mut self.buffer[self.end..],
                &mut self.at_end,
            )?;
        }
        if self.start == self.end {
            return Ok(None);
        }
        let length = self
            .cutter
            .cut(self.level, &self.buffer[self.start..self.end]);
        let chunk = self.start..self.start + length;
        self.start += length;
        Ok(Some(&self.buffer[chunk]))
    }
}

/// Reads until `buffer` is full or the reader ends, and returns how many bytes it read.
pub(crate) fn fill(
    reader: &mut (impl Read + ?Sized),
    buffer: &mut [u8],
    at_end: &mut bool,
) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => {
                *at_end = true;
                break;
            }
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ouisync_crypto::secret::ReadSecret;
    use proptest::prelude::*;
    use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};

    use super::*;

    fn cutter(seed: u64) -> Cutter {
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&seed.to_le_bytes());
        Cutter::new(ReadSecret::from_bytes(secret).gear_table())
    }

    fn random(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
        bytes
    }

    /// Gives few bytes at a time, as a pipe does.
    struct Dribble<'a>(&'a [u8], SmallRng);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self
                .1
                .random_range(1..100_000)
                .min(buffer.len())
                .min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn chunks(cutter: &Cutter, level: SizeLevel, data: &[u8]) -> Vec<Vec<u8>> {
        let reader = Dribble(data, SmallRng::seed_from_u64(1));
        let mut chunker = Chunker::new(cutter, level, reader);
        let mut chunks = Vec::new();
        while let Some(chunk) = chunker.next_chunk().unwrap() {
            chunks.push(chunk.to_vec());
        }
        chunks
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn chunks_concatenate_to_the_input_within_bounds(
            seed: u64, length in 0usize..3_000_000, level in 0u8..3,
        ) {
            let data = random(seed, length);
            let level = SizeLevel::new(level).unwrap();
            let chunks = chunks(&cutter(seed ^ 1), level, &data);
            for (index, chunk) in chunks.iter().enumerate() {
                prop_assert!(chunk.len() <= level.maximum());
                prop_assert!(chunk.len() >= level.minimum() || index + 1 == chunks.len());
                prop_assert!(!chunk.is_empty());
            }
            prop_assert_eq!(chunks.concat(), data);
        }

        #[test]
        fn an_insertion_changes_few_chunks(
            seed: u64, at in 0usize..4_000_000, insert in 1usize..1000,
        ) {
            let mut data = random(seed, 4_000_000);
            let cutter = cutter(seed ^ 1);
            let before = chunks(&cutter, SizeLevel::MIN, &data);
            data.splice(at..at, random(seed ^ 2, insert));
            let after = chunks(&cutter, SizeLevel::MIN, &data);
            let new = after.iter().filter(|chunk| !before.contains(chunk)).count();
            prop_assert!(new <= 8, "{} of {} chunks are new", new, after.len());
        }
    }

    #[test]
    fn the_average_is_near_the_level() {
        let data = random(3, 32 << 20);
        for level in [0, 1, 2] {
            let level = SizeLevel::new(level).unwrap();
            let count = chunks(&cutter(4), level, &data).len();
            let mean = data.len() / count;
            assert!(mean > level.average() * 3 / 4, "{mean}");
            assert!(mean < level.average() * 3 / 2, "{mean}");
        }
    }

    #[test]
    fn the_table_decides_the_boundaries() {
        let data = random(5, 1 << 20);
        let lengths = |seed| -> Vec<_> {
            chunks(&cutter(seed), SizeLevel::MIN, &data)
                .iter()
                .map(Vec::len)
                .collect()
        };
        assert_eq!(lengths(1), lengths(1));
        assert_ne!(lengths(1), lengths(2));
    }

    #[test]
    fn uniform_data_is_cut_at_the_maximum_or_the_minimum() {
        let zeros = vec![0; 1 << 20];
        for chunk in chunks(&cutter(6), SizeLevel::MIN, &zeros) {
            assert!(chunk.len() <= SizeLevel::MIN.maximum());
        }
        assert!(chunks(&cutter(6), SizeLevel::MIN, &[]).is_empty());
    }

    #[test]
    fn levels_follow_the_size_and_stay() {
        assert_eq!(SizeLevel::for_size(0).get(), 0);
        assert_eq!(SizeLevel::for_size(64 << 20).get(), 1);
        assert_eq!(SizeLevel::for_size(1 << 30).get(), 2);
        assert_eq!(SizeLevel::for_size(10 << 30).get(), 3);
        assert_eq!(SizeLevel::for_size(1 << 40).get(), 4);
        assert_eq!(SizeLevel::for_version(0, 64 << 20).get(), 0);
        assert_eq!(SizeLevel::for_version(0, 1 << 30).get(), 2);
        assert_eq!(SizeLevel::for_version(200, 5).get(), 0);
    }
}
