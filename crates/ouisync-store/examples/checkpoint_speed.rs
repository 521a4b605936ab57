//! Measures checkpoints: `cargo run --release -p ouisync-store --example checkpoint_speed -- [FILES] [FILES_A_COMMIT]`.
//!
//! Makes a history of FILES files (100,000), each written once and a tenth of them twice, in commits of FILES_A_COMMIT (20); then the
//! checkpoint of it all, and a second one after another hundredth of the files was written; then starts from it.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Instant,
};

use ouisync_crypto::{
    commit::{Commit, CommitHeader, LiveDigest, PackAdd, VERSION},
    keys::{ContentKeys, FolderKeys},
    roster::statement::LastCommit,
    secret::{EpochSecret, ReadSecret},
};
use ouisync_model::{
    id::{
        ChunkId, EpochId, FolderId, Lamport, MemberId, NodeId, NodeKind, OpId, PackId,
        RosterEntryId, Sequence, Timestamp,
    },
    name::Name,
    operation::{
        ChunkPlace, ChunkRef, Encoding, FileContent, FileData, Metadata, Operation, PackSize,
        PackTable, Value,
    },
    tree::{CommitContext, Tree},
};
use ouisync_store::{
    catalogue::Disposition,
    checkpoint::Writers,
    index::{Index, state::StateStream},
    ingest::{Ingest, IngestKeys},
    store::{Store, StoreOptions},
};
use rand::Rng;

struct Everybody;

impl Writers for Everybody {
    fn may_write(&self, _: &MemberId) -> bool {
        true
    }

    fn last_commits(&self, _: &MemberId) -> &[LastCommit] {
        &[]
    }
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    let kib = line.split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() / 1024
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

struct Folder {
    store: Store,
    index: Index,
    last: Option<Commit>,
    files: Vec<(NodeId, OpId)>,
    directory: NodeId,
}

impl Folder {
    /// One commit that writes `count` new files, or these again.
    fn commit(&mut self, new: usize, again: std::ops::Range<usize>) {
        let pack = PackId::from_bytes(random());
        let size = PackSize::from_exponent(4).unwrap();
        let lamport = Lamport(1 + self.last.as_ref().map_or(0, |last| last.header().lamport.0));
        let header = CommitHeader {
            version: VERSION,
            folder: FolderId::from_bytes([1; 32]),
            author: MemberId::from_bytes([1; 32]),
            sequence: Sequence(lamport.0),
            lamport,
            parents: self.last.iter().map(Commit::id).collect(),
            roster: vec![RosterEntryId::from_bytes([2; 32])],
            epoch: EpochId::from_bytes([1; 32]),
            time_hours: 0,
            added: vec![PackAdd { pack, size }],
            released: Vec::new(),
            forgotten: Vec::new(),
            live: LiveDigest::default(),
            checkpoint: None,
            salt: random(),
            body: vec![0; 1024],
        };
        let mut bytes = postcard::to_allocvec(&header).unwrap();
        bytes.extend([0; 64]);
        let commit = Commit::decode(bytes).unwrap();
        let time = Timestamp {
            seconds: 1_800_000_000 + lamport.0 as i64,
            nanoseconds: 123_456_789,
        };
        let mut operations = Vec::new();
        let mut chunks = Vec::new();
        let content = |chunks: &mut Vec<ChunkPlace>| {
            let chunk = ChunkId::from_bytes(random());
            let offset = chunks.len() as u32 * 3000;
            let (stored, length, encoding) = (3000, 9000, Encoding::Zstd);
            chunks.push(ChunkPlace {
                chunk,
                offset,
                stored,
                length,
                encoding,
            });
            Value::File(FileContent {
                size: 9000,
                level: 0,
                data: FileData::Chunks(vec![ChunkRef { chunk, length }]),
            })
        };
        let number = self.files.len();
        if number.is_multiple_of(1000) && new > 0 {
            self.directory = NodeId::new(NodeKind::Directory, random());
            operations.push(Operation::Place {
                node: self.directory,
                parent: NodeId::ROOT,
                name: Name::new(format!("directory {number}")).unwrap(),
            });
            operations.push(Operation::Write {
                node: self.directory,
                value: Value::Directory,
                replaces: Vec::new(),
            });
        }
        for file in number..number + new {
            let node = NodeId::new(NodeKind::Leaf, random());
            operations.push(Operation::Place {
                node,
                parent: self.directory,
                name: Name::new(format!("picture {file:06}.jpeg")).unwrap(),
            });
            operations.push(Operation::SetMetadata {
                node,
                change: Metadata {
                    executable: false,
                    modified: Timestamp {
                        seconds: 1_700_000_000 + file as i64 * 7919,
                        nanoseconds: 0,
                    },
                }
                .into(),
            });
            let index = operations.len() as u32;
            let op = OpId {
                commit: commit.id(),
                index,
            };
            self.files.push((node, op));
            operations.push(Operation::Write {
                node,
                value: content(&mut chunks),
                replaces: Vec::new(),
            });
        }
        for file in again {
            let (node, written) = self.files[file];
            self.files[file].1 = OpId {
                commit: commit.id(),
                index: operations.len() as u32,
            };
            operations.push(Operation::Write {
                node,
                value: content(&mut chunks),
                replaces: vec![written],
            });
        }
        let context = CommitContext {
            commit: commit.id(),
            lamport,
            author: header.author,
            time,
        };
        let mut tree = Tree::new(self.index.begin());
        let table = PackTable {
            pack,
            round: 0,
            chunks,
        };
        tree.store_mut()
            .add_packs(&context.commit, [&table])
            .unwrap();
        let changes = tree.apply(&context, &operations).unwrap();
        tree.store_mut().account(&changes).unwrap();
        tree.into_store().commit().unwrap();
        let one = std::slice::from_ref(&commit);
        self.store
            .put_commits(one, Disposition::Accepted, false)
            .unwrap();
        self.last = Some(commit);
    }
}

fn keys() -> (ReadSecret, ContentKeys) {
    let secret = ReadSecret::from_bytes([7; 32]);
    let mut folder = FolderKeys::new();
    let epoch = EpochId::from_bytes([1; 32]);
    folder.insert(epoch, 0, EpochSecret::Read(secret.clone()));
    (secret, folder.content_keys().unwrap())
}

fn main() {
    let mut numbers = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse::<usize>().ok());
    let files = numbers.next().unwrap_or(100_000);
    let each = numbers.next().unwrap_or(20);
    let home = std::env::temp_dir().join(format!("checkpoint-speed-{}", std::process::id()));
    let (secret, content) = keys();
    let mut folder = Folder {
        store: Store::open_directory(home.join("store"), StoreOptions::default()).unwrap(),
        index: Index::open(&home.join("index"), &content).unwrap(),
        last: None,
        files: Vec::new(),
        directory: NodeId::ROOT,
    };
    let start = Instant::now();
    while folder.files.len() < files {
        folder.commit(each, 0..0);
    }
    for file in (0..files).step_by(10 * each) {
        folder.commit(0, file..(file + each).min(files));
    }
    println!(
        "history: {files} files, {} commits, {:.1} s, peak {} MiB",
        folder.last.as_ref().unwrap().header().lamport,
        start.elapsed().as_secs_f64(),
        resident()
    );
    let mut known: HashSet<ChunkId> = HashSet::new();
    for round in 1..=2 {
        let start = Instant::now();
        let heads = folder.store.heads();
        let skeleton = folder.store.skeleton(&heads, &Everybody).unwrap();
        let commits = skeleton.digest().commits;
        println!(
            "{round}: skeleton {} bytes, {:.1} a commit, {:.2} s, peak {} MiB",
            skeleton.length(),
            skeleton.length() as f64 / commits as f64,
            start.elapsed().as_secs_f64(),
            resident()
        );
        let start = Instant::now();
        let snapshot = folder.index.snapshot();
        let digest = StateStream::new(&snapshot, &skeleton).finish().unwrap();
        println!(
            "{round}: state checked in {:.2} s",
            start.elapsed().as_secs_f64()
        );
        let start = Instant::now();
        let packs = Arc::new(Mutex::new((0u64, 0u64, Vec::new())));
        let sink = packs.clone();
        let ingest_keys = IngestKeys {
            chunk_ids: secret.chunk_id_key(),
            gear: secret.gear_table(),
            secret: secret.clone(),
        };
        let mut ingest = Ingest::new(
            ingest_keys,
            rand::make_rng(),
            Box::new(move |pack| {
                let mut packs = sink.lock().unwrap();
                packs.0 += pack.bytes.len() as u64;
                let stored = pack
                    .table
                    .chunks
                    .iter()
                    .map(|place| u64::from(place.stored));
                packs.1 += stored.sum::<u64>();
                packs
                    .2
                    .extend(pack.table.chunks.iter().map(|place| place.chunk));
                Ok(())
            }),
        );
        let mut stream = StateStream::new(&snapshot, &skeleton);
        let made = ingest
            .file(
                &mut stream,
                0,
                None,
                &mut |chunk| known.contains(chunk),
                &mut |_| (),
            )
            .unwrap();
        ingest.flush().unwrap();
        assert_eq!(stream.digest(), digest);
        let (bytes, stored, chunks) = std::mem::take(&mut *packs.lock().unwrap());
        println!(
            "{round}: state {} bytes, {stored} stored anew, {bytes} in packs, made in {:.2} s, peak {} MiB",
            made.size,
            start.elapsed().as_secs_f64(),
            resident()
        );
        known.extend(chunks);
        let start = Instant::now();
        let target = Index::open(&home.join(format!("started {round}")), &content).unwrap();
        let mut stream = StateStream::new(&snapshot, &skeleton);
        target.load_state(&mut stream, &digest, &skeleton).unwrap();
        assert_eq!(target.totals(), folder.index.totals());
        println!(
            "{round}: loaded in {:.2} s, peak {} MiB",
            start.elapsed().as_secs_f64(),
            resident()
        );
        for file in (0..files).step_by(100 * each) {
            folder.commit(0, file..(file + each).min(files));
        }
    }
    std::fs::remove_dir_all(&home).unwrap();
}
