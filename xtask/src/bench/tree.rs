//! Directory trees: making files, comparing, disk use.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

/// Numbers that no compressor can do anything with (xorshift64*); for files, not for secrets.
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`, which is not 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    fn fill(&mut self, buffer: &mut [u8]) {
        for word in buffer.chunks_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes()[..word.len()]);
        }
    }

    /// Writes a file of `length` bytes.
    pub(super) fn write(&mut self, path: &Path, length: u64) -> anyhow::Result<()> {
        let mut file = File::create(path).with_context(|| path.display().to_string())?;
        let mut buffer = vec![0; 1 << 20];
        let mut left = length;
        while left > 0 {
            let part = left.min(buffer.len() as u64) as usize;
            self.fill(&mut buffer[..part]);
            file.write_all(&buffer[..part])?;
            left -= part as u64;
        }
        if length > 1 << 20 {
            // The writing back must not be charged to whoever comes next.
            file.sync_all()?;
        }
        Ok(())
    }
}

/// Regular files below `root` by relative path; hidden names at the top are the systems' own.
pub(super) fn files(root: &Path) -> anyhow::Result<BTreeMap<PathBuf, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let entry = entry?;
            if directory == root && entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            } else {
                found.insert(entry.path().strip_prefix(root)?.to_owned(), entry.path());
            }
        }
    }
    Ok(found)
}

/// Fails with the first difference in names, sizes or content.
pub(super) fn compare(left: &Path, right: &Path) -> anyhow::Result<()> {
    let (left, right) = (files(left)?, files(right)?);
    if let Some(missing) = left.keys().find(|name| !right.contains_key(*name)) {
        bail!("{} has not arrived", missing.display());
    }
    if let Some(extra) = right.keys().find(|name| !left.contains_key(*name)) {
        bail!("{} is not in the source", extra.display());
    }
    for (name, path) in &left {
        if !same_content(path, &right[name])? {
            bail!("{} differs", name.display());
        }
    }
    Ok(())
}

fn same_content(left: &Path, right: &Path) -> anyhow::Result<bool> {
    if fs::metadata(left)?.len() != fs::metadata(right)?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (File::open(left)?, File::open(right)?);
    let (mut one, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let read = left.read(&mut one)?;
        if read == 0 {
            return Ok(true);
        }
        right.read_exact(&mut other[..read])?;
        if one[..read] != other[..read] {
            return Ok(false);
        }
    }
}

/// Bytes on disk of everything below `path`, 0 when it does not exist.
pub(super) fn disk_use(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    let mut total = metadata.blocks() * 512;
    if metadata.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            total += disk_use(&entry.path());
        }
    }
    total
}
