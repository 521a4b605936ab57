//! Where pack files are, and how their bytes are checked.

use std::{
    io,
    path::{Path, PathBuf},
};

use ouisync_crypto::{
    frame_hash::{FrameHash, FrameHashes},
    pack::{FRAME_LENGTH, Frame},
};
use ouisync_model::{id::PackId, operation::PackSize};

use crate::backend::Backend;

/// Whole packs, in directories named by the first byte of their ids.
pub(crate) const PACKS: &str = "packs";
/// Files being written: `<pack>.<number>`.
pub(crate) const INCOMING: &str = "incoming";
/// Files about to be removed.
pub(crate) const TRASH: &str = "trash";

/// Frames read at once when a whole pack is checked: 1 MiB.
const CHECK_FRAMES: u32 = 16;

/// The directory of a pack.
pub(crate) fn directory(pack: PackId) -> PathBuf {
    Path::new(PACKS).join(format!("{:02x}", pack.as_bytes()[0]))
}

/// The file of a whole pack.
pub(crate) fn path(pack: PackId) -> PathBuf {
    directory(pack).join(pack.to_string())
}

/// A file in `incoming/` for a pack; `number` keeps a later attempt apart from an abandoned one.
pub(crate) fn incoming(pack: PackId, number: u64) -> PathBuf {
    Path::new(INCOMING).join(format!("{pack}.{number}"))
}

/// The pack that a file in `incoming/` is for.
pub(crate) fn parse_incoming(name: &str) -> Option<PackId> {
    let (pack, number) = name.split_once('.')?;
    number.parse::<u64>().ok()?;
    pack.parse().ok()
}

/// A name in `trash/`.
pub(crate) fn trash(name: &str, number: u64) -> PathBuf {
    Path::new(TRASH).join(format!("{name}.{number}"))
}

/// The pack size of a file of `length` bytes.
pub(crate) fn size_of_length(length: u64) -> Option<PackSize> {
    let size = PackSize::for_frames(length / PackSize::FRAME)?;
    (size.bytes() == length).then_some(size)
}

/// Splits bytes into frames; `None` if they are not whole frames.
pub(crate) fn frames(bytes: &[u8]) -> Option<impl ExactSizeIterator<Item = &Frame>> {
    let (frames, rest) = bytes.as_chunks::<FRAME_LENGTH>();
    rest.is_empty().then(|| frames.iter())
}

/// Hashes the frames of the file of a pack of `size`. `each` hears how many bytes were read and stops the work with `false`,
/// for which `None` is returned.
pub(crate) fn hash_file(
    backend: &dyn Backend,
    file: &Path,
    size: PackSize,
    mut each: impl FnMut(u64) -> bool,
) -> io::Result<Option<FrameHashes>> {
    let mut hashes = Vec::with_capacity(size.frames() as usize);
    let mut first = 0;
    while first < size.frames() {
        let count = CHECK_FRAMES.min(size.frames() - first);
        let bytes = backend.read_at(file, offset(first), count as usize * FRAME_LENGTH)?;
        for (index, frame) in (first..).zip(frames(&bytes).into_iter().flatten()) {
            hashes.push(FrameHash::of(size, index, frame));
        }
        if !each(bytes.len() as u64) {
            return Ok(None);
        }
        first += count;
    }
    FrameHashes::new(hashes).map(Some).map_err(io::Error::other)
}

/// Byte offset of a frame.
pub(crate) const fn offset(frame: u32) -> u64 {
    frame as u64 * PackSize::FRAME
}

/// The catalogue's form of a hash list.
pub(crate) fn encode_hashes(hashes: &FrameHashes) -> Vec<u8> {
    hashes
        .as_slice()
        .iter()
        .flat_map(|hash| hash.as_bytes())
        .copied()
        .collect()
}

/// Reads a hash list back; `None` unless it is that of `pack`.
pub(crate) fn decode_hashes(pack: PackId, size: PackSize, bytes: &[u8]) -> Option<FrameHashes> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() {
        return None;
    }
    FrameHashes::verified(
        pack,
        size,
        hashes
            .iter()
            .map(|hash| FrameHash::from_bytes(*hash))
            .collect(),
    )
    .ok()
}
