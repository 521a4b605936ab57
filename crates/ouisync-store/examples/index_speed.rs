//! Measures the index: `cargo run --release -p ouisync-store --example index_speed -- [FILES] [INLINE_BYTES] [BATCH]`.
//!
//! Applies commits that create FILES files (100,000) in batches of 2,000, as a first synchronisation would.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use ouisync_crypto::{
    keys::FolderKeys,
    secret::{EpochSecret, ReadSecret},
};
use ouisync_model::{
    id::{ChunkId, CommitId, EpochId, Lamport, MemberId, NodeId, NodeKind, PackId, Timestamp},
    name::Name,
    operation::{
        ChunkPlace, ChunkRef, Encoding, FileContent, FileData, Metadata, Operation, PackTable,
        Value,
    },
    tree::{CommitContext, Tree},
};
use ouisync_store::index::Index;
use rand::Rng;

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
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

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|argument| argument.parse::<usize>().unwrap());
    let files = arguments.next().unwrap_or(100_000);
    let inline = arguments.next().unwrap_or(0);
    let batch = arguments.next().unwrap_or(2_000);
    let directory_count = files / 100;

    let secret = ReadSecret::generate(&mut rand::rng());
    let mut keys = FolderKeys::new();
    keys.insert(EpochId::from_bytes([0; 32]), 0, EpochSecret::Read(secret));
    let keys = keys.content_keys().unwrap();
    let home = std::env::temp_dir().join(format!("index-speed-{}", std::process::id()));
    let index = Index::open(&home, &keys).unwrap();
    println!("resident at start {} MiB", status("VmRSS"));

    let directories: Vec<_> = (0..directory_count)
        .map(|_| NodeId::new(NodeKind::Directory, random()))
        .collect();
    let mut operations = Vec::new();
    for (number, node) in directories.iter().enumerate() {
        let name = Name::new(format!("directory {number}")).unwrap();
        operations.push(Operation::Place {
            node: *node,
            parent: NodeId::ROOT,
            name,
        });
        operations.push(Operation::Write {
            node: *node,
            value: Value::Directory,
            replaces: vec![],
        });
    }
    let mut lamport = 0;
    let mut total = 0.0;
    let mut apply = |operations: &[Operation], table: &PackTable| {
        lamport += 1;
        let context = CommitContext {
            commit: CommitId::from_bytes(random()),
            lamport: Lamport(lamport),
            author: MemberId::from_bytes([7; 32]),
            time: Timestamp::default(),
        };
        let start = Instant::now();
        let mut tree = Tree::new(index.begin());
        let commit = &context.commit;
        tree.store_mut().add_packs(commit, [table]).unwrap();
        let changes = tree.apply(&context, operations).unwrap();
        let mut batch = tree.into_store();
        batch.account(&changes).unwrap();
        for directory in &changes.directories {
            batch.mark_dirty(*directory);
        }
        let applied = start.elapsed();
        let records = batch.len();
        batch.commit().unwrap();
        let wall = start.elapsed().as_secs_f64();
        total += wall;
        if lamport % 10 <= 1 {
            println!(
                "commit {lamport}: {wall:.3} s ({:.3} s of it committing {records} records), resident {} MiB",
                wall - applied.as_secs_f64(),
                status("VmRSS")
            );
        }
    };
    let cpu = cpu_seconds();
    apply(
        &operations,
        &PackTable {
            pack: PackId::from_bytes(random()),
            round: 0,
            chunks: vec![],
        },
    );
    let mut made = 0;
    while made < files {
        operations.clear();
        let mut table = PackTable {
            pack: PackId::from_bytes(random()),
            round: 0,
            chunks: vec![],
        };
        for number in made..(made + batch).min(files) {
            let node = NodeId::new(NodeKind::Leaf, random());
            let parent = match directories.len() {
                0 => NodeId::ROOT,
                count => directories[number % count],
            };
            let name = Name::new(format!("a file of some length {number}.txt")).unwrap();
            let chunk = ChunkId::from_bytes(random());
            let data = if inline > 0 {
                FileData::Inline(chunk, vec![number as u8; inline])
            } else {
                let place = ChunkPlace {
                    chunk,
                    offset: 0,
                    stored: 3000,
                    length: 9000,
                    encoding: Encoding::Zstd,
                };
                table.chunks.push(place);
                FileData::Chunks(vec![ChunkRef {
                    chunk,
                    length: 9000,
                }])
            };
            let content = FileContent {
                size: inline.max(9000) as u64,
                level: 0,
                data,
            };
            operations.push(Operation::Place { node, parent, name });
            operations.push(Operation::Write {
                node,
                value: Value::File(content),
                replaces: vec![],
            });
            operations.push(Operation::SetMetadata {
                node,
                change: Metadata::default().into(),
            });
        }
        made += batch;
        apply(&operations, &table);
    }
    println!(
        "{files} files: {total:.2} s, {:.2} CPU-s, resident {} MiB, peak {} MiB",
        cpu_seconds() - cpu,
        status("VmRSS"),
        status("VmHWM")
    );
    println!("{:?}", index.totals());
    drop(index);
    let start = Instant::now();
    let index = Index::open(&home, &keys).unwrap();
    println!("opened again in {:.3} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let listed = ouisync_model::tree::store::TreeReader::children(&index, directories[0]).unwrap();
    println!(
        "{} children in {:.4} s",
        listed.len(),
        start.elapsed().as_secs_f64()
    );
    drop(index);
    Index::destroy(&home).unwrap();
}
