//! A store in memory whose operations can be made to fail or to stop, and which loses unsynced writes when it crashes.
//!
//! For tests; it holds everything in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{
    backend::{Backend, CatalogueLimits, Listed},
    catalogue::records::{Changes, Records, Visit},
    error::StoreError,
};

/// What goes wrong. Operations are counted from 0: each write, sync, rename, removal, directory made and catalogue batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Operation `.0` is done in part (a write) or not at all, and it and all that follow fail.
    StopAt(u64),
    /// Operation `.0` fails with this kind of error; what follows works.
    FailAt(u64, io::ErrorKind),
}

/// What a crash takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: the process was killed.
    Nothing,
    /// All that was not synced: the power was cut.
    Unsynced,
    /// A part of what was not synced, chosen by this seed.
    Mixed(u64),
}

/// A disk in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct FaultyBackend {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Clone, Debug, Default)]
struct Disk {
    operations: u64,
    fault: Fault,
    stopped: bool,
    capacity: Option<u64>,
    inodes: Vec<Inode>,
    now: Names,
    durable: Names,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    durable_records: BTreeMap<Vec<u8>, Vec<u8>>,
    unsynced_batches: Vec<Changes>,
}

#[derive(Clone, Debug, Default)]
struct Names {
    files: BTreeMap<PathBuf, usize>,
    dirs: BTreeSet<PathBuf>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

impl FaultyBackend {
    /// Sets what goes wrong from now on; counting restarts at 0.
    pub fn set_fault(&self, fault: Fault) {
        let mut disk = self.disk();
        (disk.fault, disk.operations, disk.stopped) = (fault, 0, false);
    }

    /// Operations since the last [`Self::set_fault`] or crash.
    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// Whether the fault has struck.
    pub fn stopped(&self) -> bool {
        self.disk().stopped
    }

    /// Limits the bytes of all files together; writes beyond fail with `StorageFull`.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.disk().capacity = capacity;
    }

    /// Flips one bit of a file, durably.
    pub fn corrupt(&self, file: &Path, offset: usize) {
        let mut disk = self.disk();
        if let Some(&inode) = disk.now.files.get(file) {
            disk.inodes[inode].bytes[offset] ^= 1;
            disk.inodes[inode].durable = disk.inodes[inode].bytes.clone();
        }
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.disk().used()
    }

    /// Bytes that the disk holds in memory, in files and records, with what a power cut would leave of them.
    pub fn held(&self) -> u64 {
        let disk = self.disk();
        let files = disk.inodes.iter();
        let files = files.map(|inode| inode.bytes.capacity() + inode.durable.capacity());
        let records = disk.records.iter().chain(&disk.durable_records);
        // With their places in a map that is filled by two thirds.
        let place = 3 * size_of::<Vec<u8>>();
        let records = records.map(|(key, value)| key.capacity() + value.capacity() + place);
        files.chain(records).sum::<usize>() as u64
    }

    /// The files, with their lengths.
    pub fn files(&self) -> Vec<(PathBuf, usize)> {
        let disk = self.disk();
        let files = disk.now.files.iter();
        files
            .map(|(path, &inode)| (path.clone(), disk.inodes[inode].bytes.len()))
            .collect()
    }

    /// Where these bytes are: in a file, or in a record's key or value.
    pub fn find(&self, bytes: &[u8]) -> Option<String> {
        let disk = self.disk();
        // Most places are ruled out by one byte.
        let within = |content: &[u8]| {
            let mut places = content.iter().enumerate();
            let first = bytes.first();
            places.any(|(at, byte)| Some(byte) == first && content[at..].starts_with(bytes))
        };
        let mut files = disk.now.files.iter();
        let file = files.find(|(_, inode)| within(&disk.inodes[**inode].bytes));
        let mut records = disk.records.iter();
        let record = records.find(|(key, value)| within(key) || within(value));
        file.map(|(path, _)| path.display().to_string())
            .or_else(|| record.map(|(key, _)| format!("the record {key:?}")))
    }

    /// A disk as it is found after a crash; `self` must not be used any more.
    #[must_use]
    pub fn crash(&self, loss: Loss) -> Self {
        let disk = self.disk();
        let mut random = Random(match loss {
            // What was not synced may still be lost by a later crash.
            Loss::Nothing => {
                let after = Disk {
                    operations: 0,
                    fault: Fault::None,
                    stopped: false,
                    ..disk.clone()
                };
                return Self {
                    disk: Arc::new(Mutex::new(after)),
                };
            }
            Loss::Unsynced => 0,
            Loss::Mixed(seed) => seed,
        });
        let mut after = Disk {
            capacity: disk.capacity,
            ..Disk::default()
        };
        let names = disk.surviving_names(loss, &mut random);
        for (path, inode) in names.files {
            let bytes = disk.inodes[inode].surviving(loss, &mut random);
            after.now.files.insert(path, after.inodes.len());
            after.inodes.push(Inode {
                durable: bytes.clone(),
                bytes,
            });
        }
        after.now.dirs = names.dirs;
        after.durable = after.now.clone();
        after.records = match loss {
            Loss::Nothing => disk.records.clone(),
            Loss::Unsynced | Loss::Mixed(_) => {
                let mut records = disk.durable_records.clone();
                let kept = match loss {
                    Loss::Mixed(_) => random.below(disk.unsynced_batches.len() as u64 + 1),
                    _ => 0,
                };
                for batch in disk.unsynced_batches.iter().take(kept as usize) {
                    apply(&mut records, batch.clone());
                }
                records
            }
        };
        after.durable_records = after.records.clone();
        Self {
            disk: Arc::new(Mutex::new(after)),
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    /// Counts an operation; an error when it must not happen.
    fn step(&mut self) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        match self.fault {
            Fault::StopAt(at) if number >= at => {
                self.stopped = true;
                Err(io::Error::other("stopped"))
            }
            Fault::FailAt(at, kind) if number == at => {
                self.stopped = true;
                Err(io::Error::new(kind, "injected"))
            }
            _ => Ok(()),
        }
    }

    fn sync_records(&mut self) {
        for batch in std::mem::take(&mut self.unsynced_batches) {
            apply(&mut self.durable_records, batch);
        }
    }

    fn used(&self) -> u64 {
        self.now
            .files
            .values()
            .map(|&inode| self.inodes[inode].bytes.len() as u64)
            .sum()
    }

    fn inode(&self, file: &Path) -> io::Result<usize> {
        self.now
            .files
            .get(file)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn parent_exists(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if parent.as_os_str().is_empty() || self.now.dirs.contains(parent) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn write(&mut self, file: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.parent_exists(file)?;
        let inode = match self.now.files.get(file) {
            Some(&inode) => inode,
            None => {
                self.inodes.push(Inode::default());
                self.now
                    .files
                    .insert(file.to_owned(), self.inodes.len() - 1);
                self.inodes.len() - 1
            }
        };
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        let growth = end.saturating_sub(self.inodes[inode].bytes.len()) as u64;
        if self
            .capacity
            .is_some_and(|capacity| self.used() + growth > capacity)
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let content = &mut self.inodes[inode].bytes;
        if content.len() < end {
            content.resize(end, 0);
        }
        content[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync_names(&mut self, directory: &Path) {
        let is_child = |path: &Path| path.parent() == Some(directory);
        let durable = self.durable.files.iter();
        let ending: Vec<usize> = durable
            .filter(|(path, inode)| is_child(path) && self.now.files.get(*path) != Some(inode))
            .map(|(_, inode)| *inode)
            .collect();
        self.durable.files.retain(|path, _| !is_child(path));
        self.durable.files.extend(
            self.now
                .files
                .iter()
                .filter(|(path, _)| is_child(path))
                .map(|(path, inode)| (path.clone(), *inode)),
        );
        self.durable.dirs.retain(|path| !is_child(path));
        self.durable
            .dirs
            .extend(self.now.dirs.iter().filter(|path| is_child(path)).cloned());
        ending.into_iter().for_each(|inode| self.end(inode));
    }

    /// A file lost a name; without any it takes no room.
    fn end(&mut self, ended: usize) {
        let mut named = self.now.files.values().chain(self.durable.files.values());
        if !named.any(|inode| *inode == ended) {
            self.inodes[ended] = Inode::default();
        }
    }

    /// Each directory keeps either its synced or its present names; a directory that is lost takes its files with it.
    fn surviving_names(&self, loss: Loss, random: &mut Random) -> Names {
        let mut chosen = Names::default();
        let mut waiting = vec![PathBuf::new()];
        while let Some(directory) = waiting.pop() {
            let source = match loss {
                Loss::Nothing => &self.now,
                Loss::Unsynced => &self.durable,
                Loss::Mixed(_) if random.below(2) == 0 => &self.durable,
                Loss::Mixed(_) => &self.now,
            };
            let is_child = |path: &&PathBuf| path.parent() == Some(directory.as_path());
            for (path, inode) in source.files.iter().filter(|(path, _)| is_child(path)) {
                chosen.files.insert(path.clone(), *inode);
            }
            for path in source.dirs.iter().filter(is_child) {
                chosen.dirs.insert(path.clone());
                waiting.push(path.clone());
            }
        }
        chosen
    }
}

impl Inode {
    /// Unsynced blocks survive, stay as they were, or become zeros.
    fn surviving(&self, loss: Loss, random: &mut Random) -> Vec<u8> {
        match loss {
            Loss::Nothing => self.bytes.clone(),
            Loss::Unsynced => self.durable.clone(),
            Loss::Mixed(_) if self.bytes == self.durable => self.bytes.clone(),
            Loss::Mixed(_) => {
                const BLOCK: usize = 4096;
                let mut bytes = self.bytes.clone();
                if random.below(4) == 0 {
                    bytes.truncate(self.durable.len());
                }
                for start in (0..bytes.len()).step_by(BLOCK) {
                    let end = (start + BLOCK).min(bytes.len());
                    let old = self.durable.get(start..end);
                    if old == Some(&bytes[start..end]) {
                        continue;
                    }
                    match random.below(8) {
                        0 => bytes[start..end].fill(0),
                        1 => match old {
                            Some(old) => bytes[start..end].copy_from_slice(old),
                            None => bytes[start..end].fill(0),
                        },
                        _ => {}
                    }
                }
                bytes
            }
        }
    }
}

impl Backend for FaultyBackend {
    fn create_dir(&self, directory: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        if disk.now.dirs.contains(directory) {
            return Ok(());
        }
        disk.step()?;
        for ancestor in directory
            .ancestors()
            .filter(|path| !path.as_os_str().is_empty())
        {
            disk.now.dirs.insert(ancestor.to_owned());
        }
        Ok(())
    }

    fn list_files(&self, directory: &Path) -> io::Result<Vec<Listed>> {
        let disk = self.disk();
        Ok(disk
            .now
            .files
            .iter()
            .filter(|(path, _)| path.parent() == Some(directory))
            .filter_map(|(path, &inode)| {
                let name = path.file_name()?.to_str()?.to_owned();
                Some(Listed {
                    name,
                    length: disk.inodes[inode].bytes.len() as u64,
                })
            })
            .collect())
    }

    fn list_dirs(&self, directory: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk();
        let children = disk
            .now
            .dirs
            .iter()
            .filter(|path| path.parent() == Some(directory));
        Ok(children
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect())
    }

    fn length(&self, file: &Path) -> io::Result<Option<u64>> {
        let disk = self.disk();
        Ok(disk
            .now
            .files
            .get(file)
            .map(|&inode| disk.inodes[inode].bytes.len() as u64))
    }

    fn write_at(&self, file: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        if let Err(error) = disk.step() {
            if disk
                .operations
                .checked_sub(1)
                .is_some_and(|number| disk.fault == Fault::StopAt(number))
            {
                disk.write(file, offset, &bytes[..bytes.len() / 2])?;
            }
            return Err(error);
        }
        disk.write(file, offset, bytes)
    }

    fn read_at(&self, file: &Path, offset: u64, length: usize) -> io::Result<Bytes> {
        let disk = self.disk();
        let inode = disk.inode(file)?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = start
            .checked_add(length)
            .and_then(|end| disk.inodes[inode].bytes.get(start..end));
        bytes
            .map(Bytes::copy_from_slice)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        let inode = disk.inode(from)?;
        disk.parent_exists(to)?;
        disk.now.files.remove(from);
        disk.now.files.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        if let Some(inode) = disk.now.files.remove(file) {
            disk.end(inode);
        }
        Ok(())
    }

    fn sync_file(&self, file: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        let inode = disk.inode(file)?;
        disk.inodes[inode].durable = disk.inodes[inode].bytes.clone();
        Ok(())
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        if !directory.as_os_str().is_empty() && !disk.now.dirs.contains(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.sync_names(directory);
        Ok(())
    }

    fn syncs_at_once(&self) -> usize {
        // So that what stops at an operation stops at the same one each time.
        1
    }

    fn free_space(&self) -> io::Result<u64> {
        let disk = self.disk();
        Ok(disk
            .capacity
            .map_or(u64::MAX, |capacity| capacity.saturating_sub(disk.used())))
    }

    fn open_records(&self, _limits: CatalogueLimits) -> Result<Arc<dyn Records>, StoreError> {
        Ok(Arc::new(self.clone()))
    }
}

impl Records for FaultyBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.disk().records.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        // Copied, so that the visitor may read further records.
        let found: Vec<_> = {
            let disk = self.disk();
            disk.records
                .range(from.to_vec()..to.to_vec())
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        };
        for (key, value) in found {
            if let ControlFlow::Break(()) = visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, changes: Changes, durable: bool) -> Result<(), StoreError> {
        let mut disk = self.disk();
        disk.step().map_err(StoreError::sync("a catalogue batch"))?;
        apply(&mut disk.records, changes.clone());
        disk.unsynced_batches.push(changes);
        if durable {
            disk.sync_records();
        }
        Ok(())
    }

    fn persist(&self) -> Result<(), StoreError> {
        let mut disk = self.disk();
        disk.step().map_err(StoreError::sync("the catalogue"))?;
        disk.sync_records();
        Ok(())
    }
}

fn apply(records: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: Changes) {
    for (key, value) in changes {
        match value {
            Some(value) => records.insert(key, value),
            None => records.remove(&key),
        };
    }
}

/// SplitMix64: reproducible and good enough to choose what a crash loses.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
