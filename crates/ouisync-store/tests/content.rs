//! What goes in through ingest comes out through the reader, and nothing else does.
#![allow(clippy::unwrap_used)]

use std::{
    cell::RefCell,
    collections::HashMap,
    io::{self, Read},
    sync::{Arc, Mutex},
};

use bytes::BytesMut;
use ouisync_crypto::{
    keys::FolderKeys,
    secret::{EpochSecret, ReadSecret},
};
use ouisync_model::{
    id::{ChunkId, EpochId, PackId},
    operation::{ChunkPlace, ChunkRef, FileContent, FileData, PackSize},
};
use ouisync_store::{
    content::{ChunkPlaces, ChunkReader, ContentError, ContentReader, FrameSource, ReadKeys},
    error::StoreError,
    index::IndexError,
    ingest::{Ingest, IngestError, IngestKeys},
};
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};

/// Packs in memory, with places as an index would know them.
#[derive(Default)]
struct Packs {
    packs: HashMap<PackId, Vec<u8>>,
    places: HashMap<ChunkId, Vec<(PackId, ChunkPlace)>>,
    read: RefCell<HashMap<(PackId, u32), u32>>,
}

impl FrameSource for Packs {
    fn frame_count(&self, pack: &PackId) -> Result<Option<u32>, StoreError> {
        Ok(self
            .packs
            .get(pack)
            .map(|bytes| (bytes.len() / 65536) as u32))
    }

    fn read_frames(&self, pack: &PackId, first: u32, count: u32) -> Result<BytesMut, StoreError> {
        for frame in first..first + count {
            *self.read.borrow_mut().entry((*pack, frame)).or_default() += 1;
        }
        let bytes = self.packs.get(pack).ok_or(StoreError::PackAbsent(*pack))?;
        Ok(BytesMut::from(
            &bytes[first as usize * 65536..(first + count) as usize * 65536],
        ))
    }
}

impl ChunkPlaces for Packs {
    fn places(&self, chunk: &ChunkId) -> Result<Vec<(PackId, ChunkPlace)>, IndexError> {
        Ok(self.places.get(chunk).cloned().unwrap_or_default())
    }
}

fn secret() -> ReadSecret {
    ReadSecret::from_bytes([5; 32])
}

fn ingest_with(
    files: &mut dyn FnMut(&mut Ingest) -> Vec<FileContent>,
) -> (Vec<FileContent>, Packs) {
    let packs = Arc::new(Mutex::new(Packs::default()));
    let sink = Arc::clone(&packs);
    let secret = secret();
    let keys = IngestKeys {
        chunk_ids: secret.chunk_id_key(),
        gear: secret.gear_table(),
        secret,
    };
    let mut ingest = Ingest::new(
        keys,
        rand::make_rng(),
        Box::new(move |pack| {
            assert_eq!(pack.id.as_bytes(), blake3::hash(&pack.bytes).as_bytes());
            assert_eq!(pack.bytes.len() as u64, pack.size.bytes());
            assert_eq!(
                pack.frame_hashes.as_slice().len(),
                pack.size.frames() as usize
            );
            assert!(pack.table.chunks.is_sorted_by_key(|place| place.offset));
            let mut packs = sink.lock().unwrap();
            for place in &pack.table.chunks {
                packs
                    .places
                    .entry(place.chunk)
                    .or_default()
                    .push((pack.id, *place));
            }
            packs.packs.insert(pack.id, pack.bytes.to_vec());
            Ok(())
        }),
    );
    let contents = files(&mut ingest);
    ingest.flush().unwrap();
    drop(ingest);
    (
        contents,
        Arc::into_inner(packs).unwrap().into_inner().unwrap(),
    )
}

fn ingest(files: &[&[u8]]) -> (Vec<FileContent>, Packs) {
    ingest_with(&mut |ingest| {
        let one = |file: &&[u8]| {
            ingest
                .file(
                    &mut &**file,
                    file.len() as u64,
                    None,
                    &mut |_| false,
                    &mut |_| (),
                )
                .unwrap()
        };
        files.iter().map(one).collect()
    })
}

fn reader<'a>(packs: &'a Packs, content: &FileContent) -> ContentReader<&'a Packs, &'a Packs> {
    ContentReader::new(chunk_reader(packs), content.clone())
}

fn chunk_reader(packs: &Packs) -> ChunkReader<&Packs, &Packs> {
    let mut folder = FolderKeys::new();
    folder.insert(
        EpochId::from_bytes([1; 32]),
        1,
        EpochSecret::Read(ReadSecret::from_bytes([6; 32])),
    );
    folder.insert(EpochId::from_bytes([0; 32]), 0, EpochSecret::Read(secret()));
    let keys = ReadKeys {
        chunk_ids: secret().chunk_id_key(),
        folder: Arc::new(folder),
    };
    ChunkReader::new(keys, packs, packs)
}

fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn text(length: usize) -> Vec<u8> {
    (0u32..)
        .flat_map(|number| format!("line {number} of a long text\n").into_bytes())
        .take(length)
        .collect()
}

#[test]
fn files_of_all_sizes_come_back() {
    let files: Vec<Vec<u8>> = vec![
        vec![],
        vec![1],
        random(1, 4096),
        random(2, 4097),
        text(70_000),
        vec![0; 700_000],
        random(3, 3_000_000),
        [text(900_000), random(4, 900_000)].concat(),
    ];
    let slices: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let (contents, packs) = ingest(&slices);
    assert_eq!(contents[0].data, FileData::Chunks(vec![]));
    assert!(matches!(&contents[1].data, FileData::Inline(_, bytes) if bytes == &files[1]));
    assert!(matches!(&contents[2].data, FileData::Inline(..)));
    assert!(matches!(&contents[3].data, FileData::Chunks(chunks) if chunks.len() == 1));
    assert_eq!(packs.packs.len(), 1, "a small batch is one pack");
    for (file, content) in files.iter().zip(&contents) {
        assert_eq!(content.size, file.len() as u64);
        let mut bytes = Vec::new();
        reader(&packs, content).read_to_end(&mut bytes).unwrap();
        assert!(bytes == *file);
        let mut bytes = Vec::new();
        let mut reader = reader(&packs, content);
        let mut chunk = Vec::new();
        while let Some(offset) = reader.next_chunk(&mut chunk).unwrap() {
            assert_eq!(offset, bytes.len() as u64);
            bytes.extend_from_slice(&chunk);
        }
        assert!(bytes == *file);
        assert!(
            chunk_reader(&packs)
                .packs_of(content)
                .unwrap()
                .is_readable()
        );
    }
    let zeros = &contents[5];
    let FileData::Chunks(chunks) = &zeros.data else {
        panic!("{zeros:?}")
    };
    let stored: usize = packs.places[&chunks[0].chunk].len();
    assert_eq!(stored, 1, "what repeats is stored once");
}

#[test]
fn any_range_can_be_read_and_frames_are_opened_once() {
    let file = random(7, 40_000_000);
    let (contents, packs) = ingest(&[&file]);
    assert!(packs.packs.len() >= 3);
    assert!(
        packs
            .packs
            .values()
            .any(|bytes| bytes.len() as u64 == PackSize::MAX.bytes())
    );
    let mut reader_all = reader(&packs, &contents[0]);
    let mut bytes = Vec::new();
    reader_all.read_to_end(&mut bytes).unwrap();
    assert!(bytes == file);
    assert!(
        packs
            .read
            .borrow()
            .iter()
            .all(|((_, frame), count)| *count == 1 || *frame == 0)
    );
    let mut reader = reader(&packs, &contents[0]);
    let mut rng = SmallRng::seed_from_u64(8);
    for _ in 0..50 {
        let offset = rng.random_range(0..file.len());
        let mut buffer = vec![0; rng.random_range(1..200_000)];
        let count = reader.read_at(offset as u64, &mut buffer).unwrap();
        assert!(count > 0);
        assert!(buffer[..count] == file[offset..offset + count]);
    }
    assert_eq!(reader.read_at(file.len() as u64, &mut [0]).unwrap(), 0);
}

/// Random bytes from a position up to a length, without holding them.
struct Source {
    position: usize,
    length: usize,
    block: Vec<u8>,
}

impl Source {
    const BLOCK: usize = 1 << 16;

    fn new(position: usize, length: usize) -> Self {
        let block = random((position / Self::BLOCK) as u64, Self::BLOCK);
        Self {
            position,
            length,
            block,
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let within = &self.block[self.position % Self::BLOCK..];
        let count = within
            .len()
            .min(buffer.len())
            .min(self.length - self.position);
        buffer[..count].copy_from_slice(&within[..count]);
        self.position += count;
        if self.position.is_multiple_of(Self::BLOCK) {
            *self = Self::new(self.position, self.length);
        }
        Ok(count)
    }
}

#[test]
fn a_long_chunk_list_is_stored_in_parts_that_change_little() {
    const LENGTH: usize = 150_000_000;
    let (contents, packs) = ingest_with(&mut |ingest| {
        let mut file = |source: &mut dyn Read| {
            ingest
                .file(source, 0, None, &mut |_| false, &mut |_| ())
                .unwrap()
        };
        let first = file(&mut Source::new(0, LENGTH));
        let changed = Source::new(0, 70_000_000)
            .chain(&b"inserted"[..])
            .chain(Source::new(70_000_000, LENGTH));
        let changed = file(&mut { changed });
        vec![first, changed]
    });
    let (FileData::Indirect(first), FileData::Indirect(changed)) =
        (&contents[0].data, &contents[1].data)
    else {
        panic!("a list of over 1024 chunks is indirect");
    };
    assert!(first.len() >= 3);
    let new: Vec<_> = changed
        .iter()
        .filter(|part| !first.contains(part))
        .collect();
    // The one with the change, and the first, which tells the number of chunks.
    assert!(new.len() <= 3, "{} of {} parts", new.len(), changed.len());
    let mut list = reader(&packs, &contents[0]);
    let chunks = list.chunks().unwrap().to_vec();
    assert!(chunks.len() > FileData::DIRECT_LIMIT);
    let mut original = Source::new(0, LENGTH);
    let mut chunk = Vec::new();
    let mut expected = Vec::new();
    while list.next_chunk(&mut chunk).unwrap().is_some() {
        expected.resize(chunk.len(), 0);
        original.read_exact(&mut expected).unwrap();
        assert!(chunk == expected);
    }
    assert_eq!(original.position, LENGTH);

    // Where the list's own packs are missing, only these are asked for.
    let mut absent = Packs {
        places: packs.places.clone(),
        ..Packs::default()
    };
    let needs = chunk_reader(&absent).packs_of(&contents[0]).unwrap();
    assert!(!needs.complete && !needs.is_readable() && !needs.missing.is_empty());
    for pack in &needs.missing {
        absent.packs.insert(*pack, packs.packs[pack].clone());
    }
    let needs = chunk_reader(&absent).packs_of(&contents[0]).unwrap();
    assert!(needs.complete);
    for pack in &needs.missing {
        absent.packs.insert(*pack, packs.packs[pack].clone());
    }
    assert!(
        chunk_reader(&absent)
            .packs_of(&contents[0])
            .unwrap()
            .is_readable()
    );
}

#[test]
fn errors_name_what_is_wrong() {
    let file = random(10, 500_000);
    let (contents, mut packs) = ingest(&[&file]);
    let content = &contents[0];
    let FileData::Chunks(chunks) = content.data.clone() else {
        panic!("{content:?}")
    };
    let pack = *packs.packs.keys().next().unwrap();
    let bytes = packs.packs[&pack].clone();
    let error = |packs: &Packs, content: &FileContent| {
        let mut chunk = Vec::new();
        let mut reader = reader(packs, content);
        loop {
            match reader.next_chunk(&mut chunk) {
                Ok(Some(_)) => {}
                Ok(None) => panic!("read in spite of all"),
                Err(error) => return error,
            }
        }
    };
    packs.packs.clear();
    assert!(
        matches!(error(&packs, content), ContentError::MissingPack(missing) if missing == pack)
    );
    for position in [100, 65_536, 300_000] {
        let mut damaged = bytes.clone();
        damaged[position] ^= 1;
        packs.packs.insert(pack, damaged);
        assert!(
            matches!(error(&packs, content), ContentError::Damaged(damaged) if damaged == pack)
        );
    }
    packs.packs.insert(pack, bytes[..65536].to_vec());
    assert!(matches!(error(&packs, content), ContentError::Damaged(_)));
    packs.packs.insert(pack, random(1, 65536));
    assert!(matches!(error(&packs, content), ContentError::NoKey(_)));
    packs.packs.insert(pack, bytes);

    // A place that lies: another chunk's, or beyond the pack.
    let honest = packs.places[&chunks[0].chunk].clone();
    let mut other = packs.places[&chunks[1].chunk][0];
    other.1.length = chunks[0].length;
    other.1.stored = chunks[0].length;
    let mut beyond = honest[0];
    beyond.1.offset = u32::MAX;
    for lie in [other, beyond] {
        packs.places.insert(chunks[0].chunk, vec![lie]);
        assert!(matches!(error(&packs, content), ContentError::Damaged(_)));
        packs.places.insert(
            chunks[0].chunk,
            vec![lie, (PackId::from_bytes([0; 32]), lie.1), honest[0]],
        );
        let mut chunk = Vec::new();
        assert!(
            reader(&packs, content)
                .next_chunk(&mut chunk)
                .unwrap()
                .is_some(),
            "the true place is found"
        );
    }
    packs.places.remove(&chunks[0].chunk);
    assert!(
        matches!(error(&packs, content), ContentError::NotYetKnown(unknown) if unknown == chunks[0].chunk)
    );
    packs.places.insert(chunks[0].chunk, honest);

    // Contents that contradict themselves.
    let data = |data| FileContent {
        size: content.size,
        level: 0,
        data,
    };
    let huge = ChunkRef {
        chunk: chunks[0].chunk,
        length: u32::MAX,
    };
    for bad in [
        FileContent {
            size: content.size + 1,
            ..content.clone()
        },
        data(FileData::Chunks(vec![huge; 5])),
        data(FileData::Chunks(vec![ChunkRef {
            length: 0,
            ..chunks[0]
        }])),
        data(FileData::Indirect(chunks.clone())),
        data(FileData::Indirect(vec![])),
        data(FileData::Inline(chunks[0].chunk, vec![1, 2])),
    ] {
        assert!(
            matches!(error(&packs, &bad), ContentError::Inconsistent),
            "{bad:?}"
        );
    }
}

#[test]
fn what_is_known_is_not_stored_again() {
    let file = random(11, 2_000_000);
    let (first, packs) = ingest(&[&file]);
    let (second, more) = ingest_with(&mut |ingest| {
        let mut is_known = |chunk: &ChunkId| packs.places.contains_key(chunk);
        vec![
            ingest
                .file(
                    &mut &file[..],
                    file.len() as u64,
                    Some(&first[0]),
                    &mut is_known,
                    &mut |_| (),
                )
                .unwrap(),
        ]
    });
    assert_eq!(first, second);
    assert!(more.packs.is_empty());
}

#[test]
fn an_unreadable_file_harms_no_other_and_a_refused_pack_ends_all() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
    let file = random(12, 200_000);
    let (contents, packs) = ingest_with(&mut |ingest| {
        let mut source = (&file[..100_000]).chain(Broken);
        let broken = ingest.file(&mut source, 0, None, &mut |_| false, &mut |_| ());
        assert!(matches!(broken, Err(IngestError::Source(_))));
        vec![
            ingest
                .file(&mut &file[..], 0, None, &mut |_| false, &mut |_| ())
                .unwrap(),
        ]
    });
    let mut bytes = Vec::new();
    reader(&packs, &contents[0])
        .read_to_end(&mut bytes)
        .unwrap();
    assert!(bytes == file);

    let secret = secret();
    let keys = IngestKeys {
        chunk_ids: secret.chunk_id_key(),
        gear: secret.gear_table(),
        secret,
    };
    let mut ingest = Ingest::new(
        keys,
        rand::make_rng(),
        Box::new(|_| Err("disk full".into())),
    );
    ingest
        .file(&mut &file[..], 0, None, &mut |_| false, &mut |_| ())
        .unwrap();
    assert!(matches!(ingest.flush(), Err(IngestError::Sink(_))));
    ingest
        .file(&mut &file[..], 0, None, &mut |_| false, &mut |_| ())
        .unwrap();
    assert!(matches!(ingest.flush(), Err(IngestError::Stopped(_))));
}
