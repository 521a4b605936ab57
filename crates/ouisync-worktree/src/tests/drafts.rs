//! Files that another member still reads are put together ahead, and only what the tree says of them counts in the end.

use ouisync_engine::view::DraftStep;
use ouisync_model::{
    id::MemberId,
    operation::{ChunkRef, DraftPart},
};

use super::*;

const CHUNK: u64 = 64 << 10;
/// Chunks of a file, and of its draft's beginning.
const ALL: usize = 270;
const DRAFTED: usize = 200;

/// A large file of which every chunk is different.
fn content(seed: u8) -> Vec<u8> {
    let mut content = vec![seed; ALL * CHUNK as usize];
    for (index, chunk) in content.chunks_mut(CHUNK as usize).enumerate() {
        chunk[..8].copy_from_slice(&index.to_le_bytes());
    }
    content
}

fn step(author: u8, chunks: &[ChunkRef], from: usize, to: usize, ends: bool) -> DraftStep {
    let part = DraftPart {
        offset: from as u64 * CHUNK,
        chunks: chunks[from..to].to_vec(),
    };
    DraftStep {
        author: MemberId::from_bytes([author; 32]),
        part: (from < to).then_some(part),
        ends,
    }
}

/// Files of ours in the staging directory, with their lengths.
fn staged(device: &Device) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(device.staging()) else {
        return Vec::new();
    };
    let lengths = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    lengths.collect()
}

/// A device with a file, another that shall get it, and the file's chunks.
fn drafting(seed: u8) -> (Device, Device, Vec<ChunkRef>) {
    let (one, other) = pair();
    one.write("large", content(seed));
    one.fake.settle();
    let chunks = one.fake.chunks_of("large");
    assert_eq!(chunks.len(), ALL);
    (one, other, chunks)
}

/// The other hears of the first chunks and gets them.
fn hear_and_get(one: &Device, other: &Device, chunks: &[ChunkRef]) {
    let read = other.fake.bytes_read();
    other.fake.draft(step(1, chunks, 0, 50, false));
    other.fake.copy_content(&one.fake, &chunks[..100]);
    other.fake.draft(step(1, chunks, 50, DRAFTED, false));
    wait("the first are written", || {
        other.fake.bytes_read() - read == 100 * CHUNK
    });
    other
        .fake
        .copy_content(&one.fake, &chunks[100..DRAFTED + 20]);
    wait("the others are written", || {
        other.fake.bytes_read() - read == DRAFTED as u64 * CHUNK
    });
}

#[test]
fn a_draft_is_a_head_start() {
    let (one, other) = pair();
    one.write("small", "small");
    sync(&one, &other);
    one.write("large", content(1));
    fs::set_permissions(one.path("large"), fs::Permissions::from_mode(0o755)).unwrap();
    one.fake.settle();
    let chunks = one.fake.chunks_of("large");
    hear_and_get(&one, &other, &chunks);
    assert_eq!(staged(&other).len(), 1);
    // It hinders nothing else.
    assert!(other.fake.is_settled() && other.read("small") == "small");
    let read = other.fake.bytes_read();
    other.fake.pull(&one.fake);
    other.fake.draft(step(1, &chunks, DRAFTED, ALL, true));
    sync(&one, &other);
    assert!(fs::read(other.path("large")).unwrap() == content(1));
    let mode = fs::metadata(other.path("large")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o755);
    let rest = (ALL - DRAFTED) as u64 * CHUNK;
    assert_eq!(
        other.fake.bytes_read() - read,
        rest,
        "nothing is read twice"
    );
    assert!(!other.staging().exists());
}

#[test]
fn the_tree_says_what_a_file_holds() {
    let (one, other, chunks) = drafting(1);
    hear_and_get(&one, &other, &chunks);
    // The file was changed while it was read, and became shorter.
    let mut changed = content(1);
    changed[120 * CHUNK as usize + 100] ^= 1;
    changed.truncate(ALL / 2 * 2 * CHUNK as usize - 77);
    one.write("large", &changed);
    one.fake.settle();
    let read = other.fake.bytes_read();
    other.fake.pull(&one.fake);
    other.fake.draft(step(1, &chunks, 0, 0, true));
    sync(&one, &other);
    assert!(fs::read(other.path("large")).unwrap() == changed);
    let anew = changed.len() as u64 - 120 * CHUNK;
    assert_eq!(other.fake.bytes_read() - read, anew);
    assert!(!other.staging().exists());
}

#[test]
fn what_is_replaced_stays_until_the_file_is_there() {
    let (one, other) = pair();
    one.write("large", content(7));
    sync(&one, &other);
    one.write("large", content(8));
    one.fake.settle();
    let chunks = one.fake.chunks_of("large");
    hear_and_get(&one, &other, &chunks);
    assert!(fs::read(other.path("large")).unwrap() == content(7));
    sync(&one, &other);
    assert!(fs::read(other.path("large")).unwrap() == content(8));
}

#[test]
fn a_draft_that_comes_to_nothing_goes() {
    let (one, other, chunks) = drafting(1);
    hear_and_get(&one, &other, &chunks);
    // What does not go on where the last part ended belongs to nothing.
    other.fake.draft(step(1, &chunks, DRAFTED + 1, ALL, false));
    other.fake.draft(step(2, &chunks, 10, 20, false));
    other.fake.copy_content(&one.fake, &chunks);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(staged(&other).len(), 1);
    // The same member begins anew.
    let read = other.fake.bytes_read();
    other.fake.draft(step(1, &chunks, 0, 30, false));
    wait("written", || other.fake.bytes_read() - read == 30 * CHUNK);
    wait("one is left", || staged(&other).len() == 1);
    other.fake.draft(step(1, &chunks, 0, 0, true));
    wait("gone", || !other.staging().exists());
    assert_eq!(other.disk(), BTreeMap::new());
}

#[test]
fn a_draft_is_kept_while_its_file_waits_for_packs() {
    let (one, other, chunks) = drafting(1);
    hear_and_get(&one, &other, &chunks);
    other.fake.withhold();
    other.fake.pull(&one.fake);
    other.fake.draft(step(1, &chunks, DRAFTED, ALL, true));
    other.fake.settle();
    assert_eq!(staged(&other).len(), 1);
    let read = other.fake.bytes_read();
    while other.fake.deliver(7) > 0 {}
    wait("there", || other.exists("large"));
    sync(&one, &other);
    let rest = (ALL - DRAFTED - 20) as u64 * CHUNK;
    assert_eq!(other.fake.bytes_read() - read, rest);
}

#[test]
fn every_step_of_a_draft_can_be_the_last() {
    let (one, _, chunks) = drafting(1);
    let mut steps = 0;
    loop {
        let mut other = Device::new(2);
        let left = Arc::new(AtomicU64::new(steps));
        other.attach_with(WorktreeOptions {
            steps_left: Some(left.clone()),
            ..options()
        });
        for (from, to) in [(0, 60), (60, 140), (140, DRAFTED)] {
            other.fake.draft(step(1, &chunks, from, to, false));
            other.fake.copy_content(&one.fake, &chunks[from..to]);
            std::thread::sleep(Duration::from_millis(20));
        }
        other.fake.pull(&one.fake);
        other.fake.draft(step(1, &chunks, DRAFTED, ALL, true));
        let finished = loop {
            if other.fake.is_settled() && other.exists("large") {
                break true;
            }
            if other.worktree.as_ref().unwrap().is_finished() {
                break false;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        other.attach();
        other.fake.pull(&one.fake);
        other.fake.settle();
        assert!(
            other.disk() == one.disk() && !other.staging().exists(),
            "stopped after {steps} steps: {:?}",
            staged(&other)
        );
        if finished {
            break;
        }
        steps += 1;
    }
    assert!(steps > 8, "{steps} steps");
}
