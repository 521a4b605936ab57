//! What a safe's disk shows: its pack files, and whether any name or content can be found in it.

use std::{
    collections::HashMap,
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use super::tree::{Entry, Tree};

/// Shortest name that is searched for: shorter ones would turn up by chance among random bytes.
const SHORTEST: usize = 6;
/// Length of a sample of content.
const SAMPLE: usize = 24;
/// Bytes read at once.
const PART: usize = 4 << 20;

/// Pack files on a disk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Disk {
    pub(super) packs: u64,
    pub(super) bytes: u64,
    pub(super) smallest: u64,
    pub(super) largest: u64,
}

/// Counts the pack files of a home.
pub(super) fn packs(home: &Path) -> io::Result<Disk> {
    let mut disk = Disk::default();
    for path in files(home)? {
        if path.components().any(|part| part.as_os_str() == "packs") {
            let size = fs::metadata(&path)?.len();
            disk.smallest = if disk.packs == 0 {
                size
            } else {
                disk.smallest.min(size)
            };
            disk.largest = disk.largest.max(size);
            disk.packs += 1;
            disk.bytes += size;
        }
    }
    Ok(disk)
}

/// All files under a path, or the file itself.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            // A running daemon's files come and go.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        } else if metadata.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}

/// What must not be found: names, and samples of contents.
#[derive(Default)]
pub(super) struct Needles {
    needles: Vec<(Vec<u8>, String)>,
    by_start: HashMap<[u8; SHORTEST], Vec<usize>>,
    longest: usize,
    pub(super) names: u64,
    pub(super) too_short: u64,
    pub(super) samples: u64,
}

impl Needles {
    /// A name.
    pub(super) fn name(&mut self, name: &[u8]) {
        if name.len() < SHORTEST {
            self.too_short += 1;
        } else if self.add(
            name,
            format!("the name '{}'", String::from_utf8_lossy(name)),
        ) {
            self.names += 1;
        }
    }

    /// All names of a tree, and samples from the beginning, middle and end of its files.
    pub(super) fn tree(&mut self, root: &Path, tree: &Tree) -> io::Result<()> {
        for (path, entry) in tree {
            if let Some(name) = path.file_name() {
                self.name(name.as_encoded_bytes());
            }
            if let Entry::File { size, .. } = entry
                && *size >= SAMPLE as u64
            {
                let bytes = sample(&root.join(path), *size)?;
                for sample in bytes {
                    // Bytes that repeat are everywhere, also in ciphertext's surroundings.
                    let mut distinct = sample.clone();
                    distinct.sort_unstable();
                    distinct.dedup();
                    if distinct.len() >= 8
                        && self.add(&sample, format!("content of '{}'", path.display()))
                    {
                        self.samples += 1;
                    }
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, needle: &[u8], what: String) -> bool {
        let Some(start) = needle.first_chunk::<SHORTEST>() else {
            return false;
        };
        let known = self.by_start.entry(*start).or_default();
        if known.iter().any(|index| self.needles[*index].0 == needle) {
            return false;
        }
        known.push(self.needles.len());
        self.longest = self.longest.max(needle.len());
        self.needles.push((needle.to_owned(), what));
        true
    }

    /// Searches all files under the paths, their own names included; gives bytes searched and what was found.
    pub(super) fn search(&self, paths: &[&Path]) -> io::Result<(u64, Vec<String>)> {
        let mut found = Vec::new();
        let mut searched = 0;
        let mut starts = vec![0u64; 1 << 14];
        for start in self.by_start.keys() {
            let bit = mark(start);
            starts[bit / 64] |= 1 << (bit % 64);
        }
        for root in paths {
            for path in files(root)? {
                if let Some(name) = path.file_name() {
                    self.scan(name.as_encoded_bytes(), &starts, &path, &mut found);
                }
                searched += self.search_file(&path, &starts, &mut found)?;
            }
        }
        found.sort();
        found.dedup();
        Ok((searched, found))
    }

    fn search_file(&self, path: &Path, starts: &[u64], found: &mut Vec<String>) -> io::Result<u64> {
        let mut file = match fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            file => file?,
        };
        let mut window: Vec<u8> = Vec::new();
        let mut searched = 0;
        loop {
            // What may be the beginning of a needle stays for the next part.
            let keep = window.len().min(self.longest.saturating_sub(1));
            window.drain(..window.len() - keep);
            let read = (&mut file).take(PART as u64).read_to_end(&mut window)?;
            if read == 0 {
                return Ok(searched);
            }
            searched += read as u64;
            self.scan(&window, starts, path, found);
        }
    }

    fn scan(&self, bytes: &[u8], starts: &[u64], path: &Path, found: &mut Vec<String>) {
        for (position, start) in bytes.windows(SHORTEST).enumerate() {
            let Some(start) = start.first_chunk::<SHORTEST>() else {
                continue;
            };
            let bit = mark(start);
            if starts[bit / 64] & (1 << (bit % 64)) == 0 {
                continue;
            }
            for index in self.by_start.get(start).into_iter().flatten() {
                let (needle, what) = &self.needles[*index];
                if bytes[position..].starts_with(needle) {
                    found.push(format!("{what} in {}", path.display()));
                }
            }
        }
    }
}

/// A bit for a beginning, in a table of 2^20.
fn mark(start: &[u8; SHORTEST]) -> usize {
    let [a, b, c, d, e, f] = *start;
    let number = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44) as usize
}

fn sample(path: &Path, size: u64) -> io::Result<Vec<Vec<u8>>> {
    use io::{Seek, SeekFrom};
    let mut file = fs::File::open(path)?;
    let last = size - SAMPLE as u64;
    let mut samples = Vec::new();
    for position in [0, last / 2, last] {
        let mut bytes = vec![0; SAMPLE];
        file.seek(SeekFrom::Start(position))?;
        file.read_exact(&mut bytes)?;
        samples.push(bytes);
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_contents_are_found_wherever_they_are() {
        let temporary = tempfile::tempdir().unwrap();
        let plain = temporary.path().join("plain");
        fs::create_dir(&plain).unwrap();
        fs::write(
            plain.join("secret plan.txt"),
            "abcdefghijklmnopqrstuvwxyz0123456789".repeat(9),
        )
        .unwrap();
        let mut needles = Needles::default();
        needles
            .tree(&plain, &super::super::tree::read(&plain).unwrap())
            .unwrap();
        needles.name(b"short");
        assert_eq!((needles.names, needles.too_short), (1, 1));
        assert!(needles.samples >= 2);
        let disk = temporary.path().join("disk");
        fs::create_dir_all(disk.join("packs")).unwrap();
        fs::write(disk.join("packs/x"), vec![7; PART + 100]).unwrap();
        assert_eq!(
            needles.search(&[&disk]).unwrap(),
            (PART as u64 + 100, vec![])
        );
        assert_eq!(packs(&disk).unwrap().packs, 1);
        // Across the border of two parts.
        let mut bytes = vec![7; PART - 5];
        bytes.extend_from_slice(b"secret plan.txt");
        fs::write(disk.join("packs/x"), &bytes).unwrap();
        assert_eq!(needles.search(&[&disk]).unwrap().1.len(), 1);
        fs::write(disk.join("packs/x"), "").unwrap();
        fs::write(disk.join("a secret plan.txt"), "").unwrap();
        assert_eq!(needles.search(&[&disk]).unwrap().1.len(), 1);
    }
}
