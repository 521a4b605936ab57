//! Content that the fake gives.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use ouisync_engine::{error::EngineError, view::ContentStream};
use ouisync_model::{id::ChunkId, operation::ChunkRef};

use super::unavailable;

/// Content as it was here when it was opened.
pub(super) struct Stream {
    /// `None`: not here.
    pub(super) chunks: Vec<(ChunkRef, Option<Bytes>)>,
    pub(super) next: usize,
    pub(super) at: u64,
    pub(super) read: Arc<AtomicU64>,
}

impl ContentStream for Stream {
    fn next_chunk(&mut self) -> Result<Option<(u64, Bytes)>, EngineError> {
        let Some((chunk, bytes)) = self.chunks.get(self.next) else {
            return Ok(None);
        };
        let bytes = bytes
            .clone()
            .ok_or_else(|| unavailable("a pack is missing"))?;
        self.read
            .fetch_add(u64::from(chunk.length), Ordering::Relaxed);
        let at = self.at;
        self.next += 1;
        self.at += u64::from(chunk.length);
        Ok(Some((at, bytes)))
    }

    fn chunks(&mut self) -> Result<Vec<ChunkRef>, EngineError> {
        Ok(self.chunks.iter().map(|(chunk, _)| *chunk).collect())
    }

    fn skip_chunk(&mut self) -> Result<(), EngineError> {
        if let Some((chunk, _)) = self.chunks.get(self.next) {
            self.next += 1;
            self.at += u64::from(chunk.length);
        }
        Ok(())
    }
}

pub(super) fn chunk_id(bytes: &[u8]) -> ChunkId {
    let mut id = [0; 32];
    for (index, part) in id.chunks_mut(8).enumerate() {
        let mut hasher = DefaultHasher::new();
        (index, bytes).hash(&mut hasher);
        part.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    ChunkId::from_bytes(id)
}
