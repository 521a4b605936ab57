//! Packs and the content in them, as a hostile member could write it.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use bytes::BytesMut;
use ouisync_crypto::{
    frame_hash::{FrameHash, FrameHashes},
    keys::FolderKeys,
    pack::{FRAME_LENGTH, Frame, PackHeader, PackKey, PackSalt},
    secret::{EpochSecret, ReadSecret},
};
use ouisync_model::{
    id::{ChunkId, EpochId, PackId},
    operation::{ChunkPlace, ChunkRef, Encoding, FileContent, FileData, PackSize},
};
use ouisync_store::{
    content::{ChunkPlaces, ChunkReader, ContentReader, FrameSource, ReadKeys},
    error::StoreError,
    index::IndexError,
};

use crate::operations::Program;

const SECRET: [u8; 32] = [7; 32];

/// A pack's first bytes, a frame, a list of hashes.
pub(crate) fn pack(data: &[u8]) {
    if let Some(header) = data.first_chunk() {
        let header = PackHeader::from_bytes(header);
        if let Ok(key) = PackKey::for_header(&ReadSecret::from_bytes(SECRET), &header) {
            let mut frame = [0; FRAME_LENGTH];
            let length = data.len().min(FRAME_LENGTH);
            frame[..length].copy_from_slice(&data[..length]);
            let _ = key.open_frame(0, true, &mut frame);
        }
    }
    let (hashes, _) = data.as_chunks::<32>();
    let hashes: Vec<_> = hashes
        .iter()
        .map(|hash| FrameHash::from_bytes(*hash))
        .collect();
    let _ = FrameHashes::new(hashes.clone());
    for exponent in 0..9 {
        if let Some(size) = PackSize::from_exponent(exponent) {
            let _ = FrameHashes::verified(PackId::from_bytes([1; 32]), size, hashes.clone());
        }
    }
}

pub(crate) fn pack_seeds() -> Vec<Vec<u8>> {
    let mut rng = rand::rng();
    let key = PackKey::derive(
        &ReadSecret::from_bytes(SECRET),
        PackSalt::generate(&mut rng),
    );
    let mut frame: Frame = [0; FRAME_LENGTH];
    key.seal_frame(0, true, &mut frame);
    vec![frame[..256].to_vec(), vec![3; 96]]
}

/// One pack of one frame with any plaintext; chunks lie anywhere in it.
struct Hostile {
    pack: PackId,
    frame: Vec<u8>,
    places: RefCell<BTreeMap<ChunkId, Vec<ChunkPlace>>>,
}

impl FrameSource for &Hostile {
    fn frame_count(&self, pack: &PackId) -> Result<Option<u32>, StoreError> {
        Ok((*pack == self.pack).then_some(1))
    }

    fn read_frames(&self, _: &PackId, first: u32, count: u32) -> Result<BytesMut, StoreError> {
        assert_eq!((first, count), (0, 1), "only what is there");
        Ok(BytesMut::from(&self.frame[..]))
    }
}

impl ChunkPlaces for &Hostile {
    fn places(&self, chunk: &ChunkId) -> Result<Vec<(PackId, ChunkPlace)>, IndexError> {
        let places = self.places.borrow();
        let places = places.get(chunk).cloned().unwrap_or_default();
        Ok(places.into_iter().map(|place| (self.pack, place)).collect())
    }
}

/// The chunks of a file: claimed places, lengths and lists. What is read is never more than was claimed.
pub(crate) fn content(data: &[u8]) {
    let mut program = Program(data);
    let secret = ReadSecret::from_bytes(SECRET);
    let mut folder = FolderKeys::new();
    let epoch = EpochId::from_bytes([1; 32]);
    folder.insert(epoch, 0, EpochSecret::Read(secret.clone()));
    let Some(keys) = folder.content_keys() else {
        return;
    };
    let key = PackKey::derive(&secret, PackSalt::generate(&mut rand::rng()));
    let mut frame: Frame = [0; FRAME_LENGTH];
    let plain = 64;
    let count = 1 + program.below(4);
    let mut claims = Vec::new();
    for _ in 0..count {
        let mut number = || match program.below(4) {
            0 => u32::from(program.byte()),
            1 => 65_456 - u32::from(program.byte()),
            2 => u32::MAX - u32::from(program.byte()),
            _ => 1 << program.below(32),
        };
        let (offset, stored, length) = (number(), number(), number());
        let right = program.byte().is_multiple_of(2);
        claims.push((
            offset,
            stored,
            length,
            program.byte().is_multiple_of(2),
            right,
        ));
    }
    let (form, size) = (program.below(3), u64::from(program.byte()));
    let rest = program.0;
    let length = rest.len().min(FRAME_LENGTH - plain - 16);
    frame[plain..plain + length].copy_from_slice(&rest[..length]);
    let whole = frame[plain..FRAME_LENGTH - 16].to_vec();
    let mut places = BTreeMap::<_, Vec<_>>::new();
    let mut parts = Vec::new();
    for (offset, stored, length, raw, right) in claims {
        let there = whole
            .get(offset as usize..)
            .and_then(|rest| rest.get(..length as usize));
        let chunk = match there.filter(|_| right) {
            Some(bytes) => keys.chunk_id.chunk_id(bytes),
            None => ChunkId::from_bytes([stored as u8; 32]),
        };
        let place = ChunkPlace {
            chunk,
            offset,
            stored: if right { length } else { stored },
            length,
            encoding: if raw { Encoding::Raw } else { Encoding::Zstd },
        };
        places.entry(chunk).or_default().push(place);
        parts.push(ChunkRef { chunk, length });
    }
    key.seal_frame(0, true, &mut frame);
    let hostile = Hostile {
        pack: PackId::from_bytes([2; 32]),
        frame: frame.to_vec(),
        places: RefCell::new(places),
    };
    let total: u64 = parts.iter().map(|part| u64::from(part.length)).sum();
    let content = FileContent {
        size: if size == 0 { total } else { size },
        level: 0,
        data: match form {
            0 => FileData::Chunks(parts),
            1 => FileData::Indirect(parts),
            _ => FileData::Inline(parts[0].chunk, rest.to_vec()),
        },
    };
    let read_keys = ReadKeys {
        chunk_ids: keys.chunk_id.clone(),
        folder: Arc::new(folder),
    };
    let mut reader = ContentReader::new(
        ChunkReader::new(read_keys, &hostile, &hostile),
        content.clone(),
    );
    let mut read = 0;
    let mut plaintext = Vec::new();
    for _ in 0..16 {
        match reader.next_chunk(&mut plaintext) {
            Ok(Some(_)) => read += plaintext.len() as u64,
            Ok(None) => {
                assert_eq!(read, content.size);
                break;
            }
            Err(_) => break,
        }
    }
    let mut buffer = [0; 64];
    for offset in [0, size, u64::MAX] {
        let _ = reader.read_at(offset, &mut buffer);
    }
    let _ = reader.into_reader().packs_of(&content);
}

pub(crate) fn content_seeds() -> Vec<Vec<u8>> {
    let file = [0, 0, 0, 0, 5, 0, 5, 0, 0, 0, 0];
    let list = [0, 0, 0, 0, 34, 0, 34, 0, 0, 1, 3, 1];
    vec![
        [&file[..], b"hello"].concat(),
        [&list[..], &[4; 32], &[3]].concat(),
        vec![9; 80],
    ]
}
