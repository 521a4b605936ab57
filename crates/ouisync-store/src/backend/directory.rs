//! A store in a directory of the file system.
//!
//! Large pieces go to and from the disk past the system's cache of files where the file system can do that: on the way through
//! it they would be copied once more and push out what people use.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use rustix::fs::{Advice, OFlags, fadvise};

use crate::{
    aligned::{self, AlignedBuffer},
    backend::{Backend, CatalogueLimits, Listed},
    catalogue::{fjall_records::FjallRecords, records::Records},
    error::StoreError,
};

/// Shorter pieces go through the cache.
const DIRECT_FROM: usize = 256 * 1024;

/// Files in a directory that only its owner can read.
#[derive(Debug)]
pub struct DirectoryBackend {
    root: PathBuf,
    /// The file system reads and writes past the cache, as far as is known.
    direct: AtomicBool,
}

impl DirectoryBackend {
    /// Makes the directory (mode 0700) when it doesn't exist.
    pub fn new(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)
            .map_err(StoreError::io("making the store's directory"))?;
        let parent = root
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(StoreError::sync("the name of the store's directory"))?;
        }
        Ok(Self {
            root,
            direct: AtomicBool::new(true),
        })
    }

    fn path(&self, relative: &Path) -> PathBuf {
        self.root.join(relative)
    }

    /// Tries to do something past the cache, with a file opened for that; `None` if it must go through the cache.
    fn direct<T>(
        &self,
        path: &Path,
        options: &mut OpenOptions,
        action: impl FnOnce(File) -> io::Result<T>,
    ) -> Option<io::Result<T>> {
        if !self.direct.load(Ordering::Relaxed) {
            return None;
        }
        let flags = OFlags::DIRECT.bits().cast_signed();
        match options.custom_flags(flags).open(path).and_then(action) {
            // Some file systems refuse to open a file so, others to use it.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
                ) =>
            {
                self.direct.store(false, Ordering::Relaxed);
                None
            }
            result => Some(result),
        }
    }

    fn list(
        &self,
        directory: &Path,
        mut keep: impl FnMut(String, &fs::Metadata),
    ) -> io::Result<()> {
        let entries = match fs::read_dir(self.path(directory)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                match entry.metadata() {
                    Ok(metadata) => keep(name, &metadata),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

impl Backend for DirectoryBackend {
    fn create_dir(&self, directory: &Path) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.path(directory))
    }

    fn list_files(&self, directory: &Path) -> io::Result<Vec<Listed>> {
        let mut files = Vec::new();
        self.list(directory, |name, metadata| {
            if metadata.is_file() {
                files.push(Listed {
                    name,
                    length: metadata.len(),
                });
            }
        })?;
        Ok(files)
    }

    fn list_dirs(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        self.list(directory, |name, metadata| {
            if metadata.is_dir() {
                names.push(name);
            }
        })?;
        Ok(names)
    }

    fn length(&self, file: &Path) -> io::Result<Option<u64>> {
        match fs::symlink_metadata(self.path(file)) {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write_at(&self, file: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(file);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        if bytes.len() >= DIRECT_FROM
            && aligned::is_aligned(offset, bytes)
            && let Some(written) = self.direct(&path, &mut options.clone(), |file| {
                file.write_all_at(bytes, offset)
            })
        {
            return written;
        }
        options.open(path)?.write_all_at(bytes, offset)
    }

    fn read_at(&self, file: &Path, offset: u64, length: usize) -> io::Result<Bytes> {
        let path = self.path(file);
        let mut bytes = AlignedBuffer::zeroed(length);
        if length >= DIRECT_FROM
            && aligned::is_aligned(offset, &bytes)
            && let Some(read) = self.direct(&path, OpenOptions::new().read(true), |file| {
                file.read_exact_at(&mut bytes, offset)
            })
        {
            return read.map(|()| bytes.into());
        }
        File::open(path)?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }

    fn forget_cached(&self, file: &Path) {
        if let Ok(file) = File::open(self.path(file)) {
            // A hint: what can't be forgotten stays.
            let _ = fadvise(&file, 0, None, Advice::DontNeed);
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        match fs::remove_file(self.path(file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn sync_file(&self, file: &Path) -> io::Result<()> {
        File::open(self.path(file))?.sync_data()
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        File::open(self.path(directory))?.sync_all()
    }

    fn free_space(&self) -> io::Result<u64> {
        let space = rustix::fs::statvfs(&self.root)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn open_records(&self, limits: CatalogueLimits) -> Result<Arc<dyn Records>, StoreError> {
        Ok(Arc::new(FjallRecords::open(
            &self.root.join("catalogue"),
            limits,
        )?))
    }
}
