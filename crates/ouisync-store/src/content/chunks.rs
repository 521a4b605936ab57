//! The chunks of a file, out of whichever form its content has. What comes from other members is checked here.

use ouisync_model::operation::{ChunkRef, FileContent, FileData};

use super::{ChunkPlaces, ChunkReader, ContentError, FrameSource};
use crate::chunker::SizeLevel;

/// No chunk reference is encoded in more bytes.
const MAX_ENCODED: usize = 32 + 5;

/// The chunks in order; their lengths add up to the content's size.
pub(super) fn of<P: ChunkPlaces, F: FrameSource>(
    reader: &mut ChunkReader<P, F>,
    content: &FileContent,
) -> Result<Vec<ChunkRef>, ContentError> {
    let chunks = match &content.data {
        FileData::Inline(chunk, bytes) => {
            if reader.chunk_id(bytes) != *chunk {
                return Err(ContentError::Inconsistent);
            }
            let length = u32::try_from(bytes.len()).map_err(|_| ContentError::Inconsistent)?;
            vec![ChunkRef {
                chunk: *chunk,
                length,
            }]
        }
        FileData::Chunks(chunks) => chunks.clone(),
        FileData::Indirect(parts) => decode(reader, parts, content.size)?,
    };
    let mut size = 0u64;
    for chunk in &chunks {
        if chunk.length == 0 || chunk.length as usize > SizeLevel::MAX_CHUNK {
            return Err(ContentError::Inconsistent);
        }
        size += u64::from(chunk.length);
    }
    if size == content.size {
        Ok(chunks)
    } else {
        Err(ContentError::Inconsistent)
    }
}

/// Decodes part by part, so that memory follows what is really there and never a claimed length.
fn decode<P: ChunkPlaces, F: FrameSource>(
    reader: &mut ChunkReader<P, F>,
    parts: &[ChunkRef],
    size: u64,
) -> Result<Vec<ChunkRef>, ContentError> {
    let mut chunks = Vec::new();
    let mut count: Option<u64> = None;
    let mut covered = 0u64;
    let mut undecoded = Vec::new();
    let mut part_bytes = Vec::new();
    for part in parts {
        reader.read(*part, &mut part_bytes)?;
        undecoded.extend_from_slice(&part_bytes);
        let mut rest = undecoded.as_slice();
        loop {
            if count.is_none() {
                let Some((value, after)) = take(rest, 10)? else {
                    break;
                };
                count = Some(value);
                rest = after;
            } else {
                let Some((chunk, after)) = take::<ChunkRef>(rest, MAX_ENCODED)? else {
                    break;
                };
                covered = covered.saturating_add(u64::from(chunk.length));
                if chunk.length == 0 || covered > size {
                    return Err(ContentError::Inconsistent);
                }
                chunks.push(chunk);
                rest = after;
            }
        }
        undecoded = rest.to_vec();
    }
    if undecoded.is_empty() && count == Some(chunks.len() as u64) {
        Ok(chunks)
    } else {
        Err(ContentError::Inconsistent)
    }
}

/// The first value of `bytes`; `None` when its end may still come, which is never so at `longest` bytes.
fn take<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    longest: usize,
) -> Result<Option<(T, &[u8])>, ContentError> {
    match postcard::take_from_bytes(bytes) {
        Ok(taken) => Ok(Some(taken)),
        Err(postcard::Error::DeserializeUnexpectedEnd) if bytes.len() < longest => Ok(None),
        Err(_) => Err(ContentError::Inconsistent),
    }
}
