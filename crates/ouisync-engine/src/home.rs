//! The home directory of a device: where it is locked and how its small files are written.
//!
//! Knows paths and atomic replacement; not what the files say.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use ouisync_model::id::FolderId;
use rustix::fs::{FlockOperation, flock};

use crate::error::EngineError;

/// How the directory of a forgotten folder ends until it is deleted.
const FORGOTTEN: &str = "forgotten";

/// An open home; no second process can open it.
pub(crate) struct Home {
    path: PathBuf,
    _lock: File,
    /// Where a test ends the process.
    #[cfg(test)]
    pub(crate) fault: std::sync::Arc<Fault>,
}

impl Home {
    /// Opens or makes the directory (mode 0700) and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, EngineError> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| EngineError::Io { path, source }
        };
        for directory in [path.to_owned(), path.join("keys"), path.join("folders")] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(fail(&directory))?;
        }
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(fail(&lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
                #[cfg(test)]
                fault: std::sync::Arc::default(),
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(EngineError::HomeInUse(path.to_owned())),
            Err(errno) => Err(fail(&lock_path)(errno.into())),
        }
    }

    /// The directory of a folder's store.
    pub(crate) fn folder(&self, folder: &FolderId) -> PathBuf {
        self.path.join("folders").join(&folder.to_string()[..32])
    }

    /// Name, in this home, of a small file that belongs to a folder.
    pub(crate) fn name_in_folder(folder: &FolderId, name: &str) -> String {
        format!("folders/{}/{name}", &folder.to_string()[..32])
    }

    /// Where a folder's store is once it is forgotten, until it is deleted.
    fn aside(&self, folder: &FolderId) -> PathBuf {
        self.folder(folder).with_extension(FORGOTTEN)
    }

    /// Marks a folder's store, durably, as one to delete.
    pub(crate) fn set_aside_folder(&self, folder: &FolderId) -> Result<(), EngineError> {
        let (directory, aside) = (self.folder(folder), self.aside(folder));
        self.delete_set_aside(folder)?;
        let result = match fs::rename(&directory, &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync_directory_of(&aside),
        };
        result.map_err(|source| EngineError::Io {
            path: directory,
            source,
        })
    }

    /// Whether a folder's store is one to delete.
    pub(crate) fn is_set_aside(&self, folder: &FolderId) -> bool {
        self.aside(folder).exists()
    }

    /// Deletes a store that was set aside.
    pub(crate) fn delete_set_aside(&self, folder: &FolderId) -> Result<(), EngineError> {
        delete_all_in(self.aside(folder))
    }

    /// Deletes what a writer of the folder made where its store was, before it heard of the end.
    pub(crate) fn delete_folder(&self, folder: &FolderId) -> Result<(), EngineError> {
        delete_all_in(self.folder(folder))
    }

    /// Deletes all stores that were set aside.
    pub(crate) fn delete_all_set_aside(&self) -> Result<(), EngineError> {
        let folders = self.path.join("folders");
        let fail = |source| EngineError::Io {
            path: folders.clone(),
            source,
        };
        for entry in fs::read_dir(&folders).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            if path.extension().is_some_and(|end| end == FORGOTTEN) {
                delete_all_in(path)?;
            }
        }
        Ok(())
    }

    /// Reads a small file; `None` when there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, EngineError> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(EngineError::Io { path, source }),
        }
    }

    /// Replaces a small file (mode 0600) so that after a crash it is either as before or as given.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), EngineError> {
        let path = self.path.join(name);
        let temporary = self.path.join(format!("{name}.new"));
        let result = (|| {
            self.step()?;
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&temporary)?;
            self.step()?;
            file.write_all(bytes)?;
            self.step()?;
            file.sync_all()?;
            self.step()?;
            fs::rename(&temporary, &path)?;
            self.sync_directory_of(&path)
        })();
        result.map_err(|source| EngineError::Io { path, source })
    }

    /// Deletes a small file, if it is there; once this returns it doesn't come back.
    pub(crate) fn remove(&self, name: &str) -> Result<(), EngineError> {
        let path = self.path.join(name);
        let result = (|| {
            self.step()?;
            match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
                Ok(()) => self.sync_directory_of(&path),
            }
        })();
        result.map_err(|source| EngineError::Io { path, source })
    }

    fn sync_directory_of(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        File::open(path.parent().unwrap_or(&self.path))?.sync_all()
    }

    /// One step that reaches the disk.
    #[cfg_attr(
        not(test),
        expect(
            clippy::unused_self,
            clippy::unnecessary_wraps,
            reason = "a test may end here"
        )
    )]
    fn step(&self) -> io::Result<()> {
        #[cfg(test)]
        self.fault.step()?;
        Ok(())
    }
}

fn delete_all_in(path: PathBuf) -> Result<(), EngineError> {
    match fs::remove_dir_all(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(EngineError::Io { path, source })
        }
        _ => Ok(()),
    }
}

/// Ends a process at a chosen step, as far as its disk and key ring can tell: from there on nothing happens.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Fault(std::sync::atomic::AtomicUsize);

#[cfg(test)]
impl Default for Fault {
    fn default() -> Self {
        Self(usize::MAX.into())
    }
}

#[cfg(test)]
impl Fault {
    /// Lets that many steps happen.
    pub(crate) fn after(&self, steps: usize) {
        self.0.store(steps, std::sync::atomic::Ordering::SeqCst);
    }

    pub(crate) fn step(&self) -> io::Result<()> {
        use std::sync::atomic::Ordering::SeqCst;
        let less = |left: usize| {
            if left == usize::MAX {
                Some(left)
            } else {
                left.checked_sub(1)
            }
        };
        self.0
            .fetch_update(SeqCst, SeqCst, less)
            .map(drop)
            .map_err(|_| io::Error::other("the process ended"))
    }
}
