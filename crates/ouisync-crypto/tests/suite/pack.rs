//! Frames and their hashes.

use ouisync_crypto::{
    frame_hash::{FrameHash, FrameHashError, FrameHashes},
    keys::FolderKeys,
    pack::{
        FIRST_PLAINTEXT, FRAME_LENGTH, Frame, LATER_PLAINTEXT, PackError, PackHeader, PackKey,
        PackSalt, frames_of_plaintext, plaintext_capacity, plaintext_in_frame, plaintext_of_frame,
    },
    secret::{EpochSecret, ReadSecret},
};
use ouisync_model::{
    id::{EpochId, PackId},
    operation::PackSize,
};

use crate::seeded::Seeded;

fn sealed(frames: u32, seed: u64) -> (ReadSecret, Vec<Box<Frame>>) {
    let mut rng = Seeded::new(seed);
    let secret = ReadSecret::generate(&mut rng);
    let key = PackKey::derive(&secret, PackSalt::generate(&mut rng));
    let frames = (0..frames)
        .map(|index| {
            let mut frame = Box::new([0; FRAME_LENGTH]);
            frame[plaintext_in_frame(index)].fill(index as u8 + 1);
            key.seal_frame(index, index + 1 == frames, &mut frame);
            frame
        })
        .collect();
    (secret, frames)
}

fn key_of(secret: &ReadSecret, first: &Frame) -> PackKey {
    PackKey::for_header(secret, &PackHeader::of_frame(first)).unwrap()
}

#[test]
fn frames_open_where_they_were_sealed_and_nowhere_else() {
    let (secret, frames) = sealed(4, 1);
    let key = key_of(&secret, &frames[0]);
    for (index, frame) in frames.iter().enumerate() {
        let index = index as u32;
        let mut opened = frame.clone();
        key.open_frame(index, index == 3, &mut opened).unwrap();
        assert!(
            opened[plaintext_in_frame(index)]
                .iter()
                .all(|byte| *byte == index as u8 + 1)
        );
        assert!(
            key.open_frame(index, index != 3, &mut frame.clone())
                .is_err(),
            "last flag is bound"
        );
        assert!(
            key.open_frame(index + 1, false, &mut frame.clone())
                .is_err(),
            "index is bound"
        );
    }
}

#[test]
fn changed_frames_are_refused() {
    let (secret, frames) = sealed(2, 2);
    let key = key_of(&secret, &frames[0]);
    for position in [
        64,
        1000,
        FRAME_LENGTH - 17,
        FRAME_LENGTH - 16,
        FRAME_LENGTH - 1,
    ] {
        for (index, frame) in frames.iter().enumerate() {
            let mut frame = frame.clone();
            frame[position] ^= 1;
            let index = index as u32;
            assert_eq!(
                key.open_frame(index, index == 1, &mut frame),
                Err(PackError::Frame { index })
            );
        }
    }
    for position in [0, 31, 32, 63] {
        let mut frame = frames[0].clone();
        frame[position] ^= 1;
        assert_eq!(
            key.open_frame(0, false, &mut frame),
            Err(PackError::OtherKey)
        );
        assert!(PackKey::for_header(&secret, &PackHeader::of_frame(&frame)).is_err());
    }
}

#[test]
fn another_secret_is_told_apart_by_the_commitment() {
    let (_, frames) = sealed(1, 3);
    let other = ReadSecret::generate(&mut Seeded::new(4));
    let header = PackHeader::of_frame(&frames[0]);
    assert_eq!(
        PackKey::for_header(&other, &header).err(),
        Some(PackError::OtherKey)
    );
    assert_eq!(PackHeader::from_bytes(&header.to_bytes()), header);
}

#[test]
fn plaintext_ranges_map_to_frames() {
    assert_eq!((FIRST_PLAINTEXT, LATER_PLAINTEXT), (65456, 65520));
    assert_eq!(plaintext_capacity(0), 0);
    assert_eq!(plaintext_capacity(256), 65456 + 255 * 65520);
    assert_eq!(frames_of_plaintext(0..1), 0..1);
    assert_eq!(frames_of_plaintext(65455..65457), 0..2);
    assert_eq!(frames_of_plaintext(65456..65457), 1..2);
    assert_eq!(frames_of_plaintext(5..5), 0..0);
    for index in 0..256 {
        let range = plaintext_of_frame(index);
        assert_eq!(frames_of_plaintext(range.clone()), index..index + 1);
        assert_eq!(
            range.end - range.start,
            plaintext_in_frame(index).len() as u64
        );
    }
}

#[test]
fn frame_hashes_merge_to_the_hash_of_the_file() {
    let (_, frames) = sealed(1, 5);
    for exponent in 0..=8 {
        let size = PackSize::from_exponent(exponent).unwrap();
        let mut file = Vec::new();
        let mut hashes = Vec::new();
        for index in 0..size.frames() {
            let mut frame = frames[0].clone();
            frame[..4].copy_from_slice(&index.to_le_bytes());
            hashes.push(FrameHash::of(size, index, &frame));
            file.extend_from_slice(&frame[..]);
        }
        let id = PackId::from_bytes(*blake3::hash(&file).as_bytes());
        let list = FrameHashes::verified(id, size, hashes.clone()).unwrap();
        let mut frame = frames[0].clone();
        frame[..4].copy_from_slice(&(size.frames() - 1).to_le_bytes());
        assert!(list.verifies(size.frames() - 1, &frame));
        frame[FRAME_LENGTH - 1] ^= 1;
        assert!(!list.verifies(size.frames() - 1, &frame));
        assert!(!list.verifies(size.frames(), &frame));
        if exponent == 0 {
            assert_eq!(FrameHashes::of_single_frame(id), list);
        } else {
            hashes.swap(0, 1);
            assert_eq!(
                FrameHashes::verified(id, size, hashes.clone()),
                Err(FrameHashError::OtherPack(id))
            );
        }
        hashes.pop();
        assert!(FrameHashes::verified(id, size, hashes).is_err());
    }
    assert_eq!(FrameHashes::new(Vec::new()), Err(FrameHashError::Count(0)));
    assert_eq!(
        FrameHashes::new(vec![FrameHash::from_bytes([0; 32]); 512]),
        Err(FrameHashError::Count(512))
    );
}

#[test]
fn a_folder_finds_the_epoch_of_a_pack() {
    let mut rng = Seeded::new(6);
    let mut keys = FolderKeys::new();
    let epochs: Vec<_> = (0..3).map(|byte| EpochId::from_bytes([byte; 32])).collect();
    for (generation, epoch) in epochs.iter().enumerate() {
        let secret = EpochSecret::Read(ReadSecret::generate(&mut rng));
        assert!(keys.insert(*epoch, generation as u64, secret.clone()));
        assert!(!keys.insert(
            *epoch,
            generation as u64,
            EpochSecret::Store(secret.store_secret())
        ));
    }
    assert_eq!(keys.latest_readable().unwrap().0, epochs[2]);
    assert_eq!(keys.founding(), Some(epochs[0]));
    let key = keys
        .pack_key(&epochs[1], PackSalt::generate(&mut rng))
        .unwrap();
    assert_eq!(keys.open_pack(key.header()).unwrap().0, epochs[1]);
    assert!(keys.blind().open_pack(key.header()).is_none());
    let mut foreign = *key.header();
    foreign.commitment[0] ^= 1;
    assert!(keys.open_pack(&foreign).is_none());
}
