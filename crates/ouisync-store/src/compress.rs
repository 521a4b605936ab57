//! How a chunk is stored: as it is, or as one zstd frame.
//!
//! Owns the choice and its cost. Chunks are compressed one by one: a window over several would tell one file's content by the
//! length of another's. Must not know packs.

use std::io;

use ouisync_model::operation::Encoding;

use crate::chunker::SizeLevel;

/// After this many chunks of a file in a row that didn't compress, most are stored without trying.
const GIVE_UP_AFTER: u32 = 2;
/// Of those, one in so many is tried, as a file may change its nature.
const SAMPLE_EVERY: u32 = 16;
/// Chunks up to this length get the better and slower level.
const THOROUGH_LIMIT: usize = 256 * 1024;

/// What the last chunks of one file taught.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trials {
    failures: u32,
    skipped: u32,
}

impl Trials {
    fn worth_trying(&mut self) -> bool {
        if self.failures < GIVE_UP_AFTER || self.skipped + 1 >= SAMPLE_EVERY {
            self.skipped = 0;
            return true;
        }
        self.skipped += 1;
        false
    }

    fn note(&mut self, compressed: bool) {
        self.failures = if compressed {
            0
        } else {
            self.failures.saturating_add(1)
        };
    }
}

/// Compresses into a buffer of its own.
pub(crate) struct Compressor {
    fast: zstd::bulk::Compressor<'static>,
    thorough: zstd::bulk::Compressor<'static>,
    output: Vec<u8>,
}

impl Compressor {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            fast: zstd::bulk::Compressor::new(1)?,
            thorough: zstd::bulk::Compressor::new(3)?,
            output: Vec::new(),
        })
    }

    /// What to store for `plaintext`: itself unless compression saves at least 3 %.
    pub(crate) fn encode<'a>(
        &'a mut self,
        trials: &mut Trials,
        plaintext: &'a [u8],
    ) -> (Encoding, &'a [u8]) {
        let limit = plaintext.len() - plaintext.len().div_ceil(32);
        if limit == 0 || !trials.worth_trying() {
            return (Encoding::Raw, plaintext);
        }
        if self.output.len() < limit {
            self.output
                .resize(limit.next_power_of_two().min(SizeLevel::MAX_CHUNK), 0);
        }
        let zstd = if plaintext.len() <= THOROUGH_LIMIT {
            &mut self.thorough
        } else {
            &mut self.fast
        };
        // It fails where the output would be longer than what is worth while.
        match zstd.compress_to_buffer(plaintext, &mut self.output[..limit]) {
            Ok(length) => {
                trials.note(true);
                (Encoding::Zstd, &self.output[..length])
            }
            Err(_) => {
                trials.note(false);
                (Encoding::Raw, plaintext)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::SmallRng};

    use super::*;

    #[test]
    fn text_is_compressed_and_random_data_is_not() {
        let mut compressor = Compressor::new().unwrap();
        let text = b"the quick brown fox ".repeat(5000);
        let (encoding, stored) = compressor.encode(&mut Trials::default(), &text);
        assert_eq!(encoding, Encoding::Zstd);
        assert!(stored.len() < text.len() / 10);
        let stored = stored.to_vec();
        assert_eq!(zstd::bulk::decompress(&stored, text.len()).unwrap(), text);

        let mut random = vec![0; 100_000];
        SmallRng::seed_from_u64(1).fill_bytes(&mut random);
        assert_eq!(
            compressor.encode(&mut Trials::default(), &random),
            (Encoding::Raw, &random[..])
        );
        assert_eq!(
            compressor.encode(&mut Trials::default(), &[]),
            (Encoding::Raw, &[][..])
        );
        assert_eq!(
            compressor.encode(&mut Trials::default(), b"a"),
            (Encoding::Raw, &b"a"[..])
        );
    }

    #[test]
    fn a_file_that_changes_its_nature_is_compressed_again_soon() {
        let mut compressor = Compressor::new().unwrap();
        let mut trials = Trials::default();
        let mut random = vec![0; 10_000];
        let mut rng = SmallRng::seed_from_u64(2);
        for _ in 0..100 {
            rng.fill_bytes(&mut random);
            compressor.encode(&mut trials, &random);
        }
        let text = b"to be or not to be ".repeat(500);
        let raw = (0..100)
            .filter(|_| compressor.encode(&mut trials, &text).0 == Encoding::Raw)
            .count();
        assert!(raw < SAMPLE_EVERY as usize, "{raw} stayed raw");
    }
}
