//! The file that a skeleton lies in while it is made, sent or received. Not durable: it goes with its owner, and whatever a crash
//! leaves is removed at the next opening, as any unknown file in `incoming/`.

use std::path::{Path, PathBuf};

use super::{CheckpointError, MAX_SKELETON};
use crate::{error::StoreError, pack_file, store::Store};

/// Bytes gathered before they are written.
const BLOCK: usize = 256 * 1024;

/// A file of bytes that are hashed while they are appended.
#[derive(Debug)]
pub(super) struct Spool {
    store: Store,
    path: PathBuf,
    hasher: blake3::Hasher,
    /// Bytes in the file.
    written: u64,
    /// Bytes behind them.
    pending: Vec<u8>,
}

impl Spool {
    pub(super) fn new(store: &Store) -> Self {
        let name = format!("skeleton.{}", store.next_number());
        Self {
            store: store.clone(),
            path: Path::new(pack_file::INCOMING).join(name),
            hasher: blake3::Hasher::new(),
            written: 0,
            pending: Vec::new(),
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    /// BLAKE3 of all bytes.
    pub(super) fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        if self.length().saturating_add(bytes.len() as u64) > MAX_SKELETON {
            return Err(CheckpointError::TooLarge);
        }
        self.hasher.update(bytes);
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= BLOCK {
            self.flush()?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), StoreError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.store.check_space(self.pending.len() as u64)?;
        self.store
            .backend()
            .write_at(&self.path, self.written, &self.pending)
            .map_err(StoreError::io("writing a skeleton"))?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// At most `length` bytes from `offset` on; none at the end. Only what was flushed can be read.
    pub(super) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let left = self.written.saturating_sub(offset);
        let length = length.min(usize::try_from(left).unwrap_or(usize::MAX));
        if length == 0 {
            return Ok(Vec::new());
        }
        let bytes = self.store.backend().read_at(&self.path, offset, length);
        Ok(bytes.map_err(StoreError::io("reading a skeleton"))?.into())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if self.written > 0 {
            self.store.discard(&self.path);
        }
    }
}
