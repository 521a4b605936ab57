//! The few file operations that packs need, so that tests can fail, stop or lose each of them.
//!
//! Paths are relative to the store's directory. A backend does no caching of its own and knows nothing of packs.

use std::{fmt, io, path::Path, sync::Arc};

use bytes::Bytes;

use crate::catalogue::records::Records;

pub mod directory;
pub mod faulty;

/// A file in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its name; names that are not UTF-8 are no work of the store and left out.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
}

/// Memory limits of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogueLimits {
    /// Bytes of the block cache.
    pub cache: u64,
    /// Bytes of each write buffer.
    pub write_buffer: u64,
}

/// Where a store keeps its files.
///
/// An implementation keeps to these rules (checked by `tests/backend_conformance.rs`):
/// - A file's bytes survive a power cut after [`Backend::sync_file`] *and* a [`Backend::sync_dir`] of its directory that began
///   after its name was made; a rename survives after a `sync_dir` of the new directory. Without them anything may survive.
/// - [`Backend::rename`] is atomic and replaces.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Makes a directory and its parents; succeeds when it exists.
    fn create_dir(&self, directory: &Path) -> io::Result<()>;

    /// The regular files in a directory; empty when it doesn't exist.
    fn list_files(&self, directory: &Path) -> io::Result<Vec<Listed>>;

    /// The names of the directories in a directory; empty when it doesn't exist.
    fn list_dirs(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// A file's length, `None` when it doesn't exist.
    fn length(&self, file: &Path) -> io::Result<Option<u64>>;

    /// Writes all of `bytes` at `offset`, making the file when it doesn't exist; a gap before `offset` reads as zeros.
    fn write_at(&self, file: &Path, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reads exactly `length` bytes at `offset`; `UnexpectedEof` when the file is shorter.
    fn read_at(&self, file: &Path, offset: u64, length: usize) -> io::Result<Bytes>;

    /// Moves a file, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// The file won't be read again soon: what is cached of it may go. Only a hint.
    fn forget_cached(&self, file: &Path) {
        let _ = file;
    }

    /// Removes a file; succeeds when it doesn't exist.
    fn remove(&self, file: &Path) -> io::Result<()>;

    /// Makes a file's bytes and length durable. After an error the bytes count as lost.
    fn sync_file(&self, file: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;

    /// Files worth syncing at once: a journaling file system then commits them together.
    fn syncs_at_once(&self) -> usize {
        4
    }

    /// Bytes that may still be written.
    fn free_space(&self) -> io::Result<u64>;

    /// Opens the catalogue's records, making them when they don't exist.
    fn open_records(
        &self,
        limits: CatalogueLimits,
    ) -> Result<Arc<dyn Records>, crate::error::StoreError>;
}
