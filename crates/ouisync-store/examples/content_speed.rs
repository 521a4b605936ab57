//! Measures ingest and reading: `cargo run --release -p ouisync-store --example content_speed -- FILE`.
//!
//! Ingests FILE (from the page cache: it is read once before) into packs that are dropped, then into packs that are kept in
//! memory, and reads the content back from these.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    sync::{Arc, Mutex},
    time::Instant,
};

use bytes::BytesMut;
use ouisync_crypto::{
    keys::FolderKeys,
    secret::{EpochSecret, ReadSecret},
};
use ouisync_model::{
    id::{ChunkId, EpochId, PackId},
    operation::{ChunkPlace, FileContent},
};
use ouisync_store::{
    chunker::{Chunker, Cutter, SizeLevel},
    content::{ChunkPlaces, ChunkReader, ContentReader, FrameSource, ReadKeys},
    error::StoreError,
    index::IndexError,
    ingest::{Ingest, IngestKeys, PackSink},
    pack_builder::SealedPack,
};

#[derive(Default)]
struct Packs {
    packs: HashMap<PackId, SealedPack>,
    places: HashMap<ChunkId, (PackId, ChunkPlace)>,
}

impl FrameSource for Packs {
    fn frame_count(&self, pack: &PackId) -> Result<Option<u32>, StoreError> {
        Ok(self.packs.get(pack).map(|pack| pack.size.frames()))
    }

    fn read_frames(&self, pack: &PackId, first: u32, count: u32) -> Result<BytesMut, StoreError> {
        let pack = self.packs.get(pack).ok_or(StoreError::PackAbsent(*pack))?;
        let (first, count) = (first as usize * 65536, count as usize * 65536);
        Ok(BytesMut::from(&pack.bytes[first..first + count]))
    }
}

impl ChunkPlaces for Packs {
    fn places(&self, chunk: &ChunkId) -> Result<Vec<(PackId, ChunkPlace)>, IndexError> {
        Ok(self.places.get(chunk).copied().into_iter().collect())
    }
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}

fn measure<T>(name: &str, bytes: u64, work: impl FnOnce() -> T) -> T {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let result = work();
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let speed = bytes as f64 / 1e6;
    println!(
        "{name}: {wall:.2} s, {cpu:.2} CPU-s, {:.0} MB/s, {:.0} MB per CPU-s; peak {} MiB",
        speed / wall,
        speed / cpu,
        peak_mib()
    );
    result
}

fn ingest(secret: &ReadSecret, path: &str, size: u64, sink: PackSink) -> FileContent {
    let keys = IngestKeys {
        chunk_ids: secret.chunk_id_key(),
        gear: secret.gear_table(),
        secret: secret.clone(),
    };
    let mut ingest = Ingest::new(keys, rand::make_rng(), sink);
    let mut file = File::open(path).unwrap();
    let content = ingest
        .file(&mut file, size, None, &mut |_| false, &mut |_| ())
        .unwrap();
    ingest.flush().unwrap();
    content
}

fn main() {
    let path = std::env::args().nth(1).expect("a file to ingest");
    let size = io::copy(&mut File::open(&path).unwrap(), &mut io::sink()).unwrap();
    let secret = ReadSecret::generate(&mut rand::rng());
    let level = SizeLevel::for_size(size);

    let cutter = Cutter::new(secret.gear_table());
    measure("cut only", size, || {
        let mut chunker = Chunker::new(&cutter, level, File::open(&path).unwrap());
        let mut count = 0u64;
        while chunker.next_chunk().unwrap().is_some() {
            count += 1;
        }
        println!("{count} chunks, {} KiB on average", size / count / 1024);
    });
    let ids = secret.chunk_id_key();
    measure("cut and name", size, || {
        let mut chunker = Chunker::new(&cutter, level, File::open(&path).unwrap());
        while let Some(chunk) = chunker.next_chunk().unwrap() {
            std::hint::black_box(ids.chunk_id(chunk));
        }
    });
    for _ in 0..3 {
        measure("ingest", size, || {
            ingest(&secret, &path, size, Box::new(|_| Ok(())))
        });
    }

    let packs = Arc::new(Mutex::new(Packs::default()));
    let kept = Arc::clone(&packs);
    let content = ingest(
        &secret,
        &path,
        size,
        Box::new(move |pack| {
            let mut packs = kept.lock().unwrap();
            for place in &pack.table.chunks {
                packs.places.insert(place.chunk, (pack.id, *place));
            }
            packs.packs.insert(pack.id, pack);
            Ok(())
        }),
    );
    let packs = Arc::into_inner(packs).unwrap().into_inner().unwrap();
    let stored: u64 = packs.packs.values().map(|pack| pack.size.bytes()).sum();
    println!(
        "{} packs, {stored} bytes stored of {size}",
        packs.packs.len()
    );
    let mut folder = FolderKeys::new();
    folder.insert(
        EpochId::from_bytes([0; 32]),
        0,
        EpochSecret::Read(secret.clone()),
    );
    let keys = ReadKeys {
        chunk_ids: secret.chunk_id_key(),
        folder: Arc::new(folder),
    };
    let reader = || {
        ContentReader::new(
            ChunkReader::new(keys.clone(), &packs, &packs),
            content.clone(),
        )
    };
    measure("read by chunk", size, || {
        let mut reader = reader();
        let mut chunk = Vec::new();
        while reader.next_chunk(&mut chunk).unwrap().is_some() {}
    });
    measure("read as a stream", size, || {
        let mut reader = reader();
        let mut buffer = vec![0; 64 * 1024];
        while reader.read(&mut buffer).unwrap() > 0 {}
    });
}
