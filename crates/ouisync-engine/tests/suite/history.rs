//! A month of edits on two devices under a simulated clock: every past state is read as it was, and comes back.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ouisync_engine::{
    engine::Engine,
    history::{Action, Events, HistoryQuery, RecalledEntry, RestoreRequest, When},
    housekeeping::Housekeeping,
    recall::{RecallPhase, RecallProgress},
    status::Role,
    view::FolderView,
};
use ouisync_model::{
    id::{FolderId, NodeId, NodeKind, Timestamp},
    name::Name,
    operation::{FileContent, Value},
    tree::{edit, entry::Entry},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::task::block_in_place;

use crate::device::{Device, eventually, noise, packs_of, quick};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// 2026-11-01T00:00:00Z
const BEGIN: u64 = 1_793_491_200;

/// Content of files by path; directories end in `/`.
type Tree = BTreeMap<String, Vec<u8>>;

struct Patient;

impl RecallProgress for Patient {
    fn tell(&mut self, _: RecallPhase, _: u64, _: u64) -> bool {
        true
    }
}

fn clock(now: &Arc<AtomicU64>) -> Housekeeping {
    let now = now.clone();
    Housekeeping {
        clock: Arc::new(move || now.load(Ordering::Relaxed)),
        ..quick()
    }
}

fn read(view: &FolderView, content: &FileContent) -> Vec<u8> {
    let mut stream = view.open(content).unwrap();
    let mut bytes = Vec::new();
    while let Some((_, chunk)) = stream.next_chunk().unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

/// All entries with their paths, and the directory that each is in.
fn entries(view: &FolderView) -> Vec<(String, NodeId, Entry)> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), NodeId::ROOT)];
    while let Some((path, directory)) = open.pop() {
        for entry in view.list(directory).unwrap() {
            let path = format!("{path}{}", entry.name);
            if entry.is_directory() {
                open.push((format!("{path}/"), entry.node));
            }
            found.push((path, directory, entry));
        }
    }
    found
}

fn present(engine: &Engine, folder: FolderId) -> Tree {
    let view = engine.view(folder).unwrap();
    block_in_place(|| {
        let shown = entries(&view)
            .into_iter()
            .map(|(path, _, entry)| match &entry.value {
                Value::File(content) => (path, read(&view, content)),
                _ => (format!("{path}/"), Vec::new()),
            });
        shown.collect()
    })
}

fn recalled(engine: &Engine, folder: FolderId, found: &[RecalledEntry]) -> Tree {
    let view = engine.view(folder).unwrap();
    block_in_place(|| {
        let shown = found.iter().map(|entry| {
            let names: Vec<String> = entry.path.iter().map(ToString::to_string).collect();
            match &entry.value {
                Value::File(content) => (names.join("/"), read(&view, content)),
                _ => (format!("{}/", names.join("/")), Vec::new()),
            }
        });
        shown.collect()
    })
}

/// Does something at random.
fn act(engine: &Engine, folder: FolderId, random: &mut StdRng) {
    let view = engine.view(folder).unwrap();
    block_in_place(|| {
        let all = entries(&view);
        let (inner, leaves): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|(_, _, entry)| entry.is_directory());
        let mut parents = vec![NodeId::ROOT];
        parents.extend(inner.iter().map(|(_, _, entry)| entry.node));
        let parent = parents[random.random_range(0..parents.len())];
        let name = Name::new(format!("n{}", random.random_range(0..6))).unwrap();
        let is_free = view.entry(parent, &name).unwrap().is_none();
        let mut content = |size: usize| {
            let mut bytes = vec![0; size];
            random.fill(&mut bytes[..]);
            bytes
        };
        let bytes = content(if leaves.len() % 5 == 0 { 9000 } else { 40 });
        let ingest = |bytes: &[u8]| {
            let mut source = bytes;
            Value::File(view.ingest(&mut source, bytes.len() as u64, None).unwrap())
        };
        let operations = match random.random_range(0..10) {
            0..=2 if is_free => {
                let node = NodeId::new(NodeKind::Leaf, random.random());
                edit::create(parent, name, node, ingest(&bytes), None)
            }
            3 if is_free => {
                let node = NodeId::new(NodeKind::Directory, random.random());
                edit::create(parent, name, node, Value::Directory, None)
            }
            4..=6 if !leaves.is_empty() => {
                let (_, _, entry) = &leaves[random.random_range(0..leaves.len())];
                edit::write(entry, ingest(&bytes))
            }
            7 if !leaves.is_empty() => {
                let (_, _, entry) = &leaves[random.random_range(0..leaves.len())];
                edit::delete(entry)
            }
            8 if !leaves.is_empty() && is_free => {
                let (_, _, entry) = &leaves[random.random_range(0..leaves.len())];
                edit::relocate(entry, parent, &name, random.random())
            }
            9 if inner.len() > 2 => {
                let (path, _, entry) = &inner[random.random_range(0..inner.len())];
                let mut operations = edit::delete(entry);
                let prefix = format!("{path}/");
                let below = leaves.iter().chain(&inner);
                let below = below.filter(|(path, _, _)| path.starts_with(&prefix));
                operations.extend(below.flat_map(|(_, _, entry)| edit::delete(entry)));
                operations
            }
            _ => return,
        };
        view.commit(operations, Vec::new()).unwrap();
    });
}

fn at(seconds: u64) -> When {
    When::At(Timestamp {
        seconds: seconds as i64,
        nanoseconds: 999_999_999,
    })
}

async fn then(device: &Device, folder: FolderId, when: When) -> Tree {
    in_parts(device, folder, when, u64::MAX, |_| {}).await
}

/// All of a past state, in parts of so many bytes; `at_each` is told the number of the part while its content is here.
async fn in_parts(
    device: &Device,
    folder: FolderId,
    when: When,
    limit: u64,
    mut at_each: impl FnMut(usize),
) -> Tree {
    let recalling =
        device
            .engine()
            .recall_parts(folder, Vec::new(), when, false, Box::new(Patient));
    let mut found = recalling.await.unwrap();
    let mut tree = Tree::new();
    for number in 0.. {
        let part = block_in_place(|| found.next_part(limit, &mut Patient)).unwrap();
        let Some(part) = part else { break };
        tree.extend(recalled(device.engine(), folder, &part));
        at_each(number);
    }
    assert!(found.missing().is_empty());
    tree
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_of_edits_is_read_back_as_it_was_at_every_moment() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (now, bobs) = (
        Arc::new(AtomicU64::new(BEGIN)),
        Arc::new(AtomicU64::new(BEGIN)),
    );
    let alice = Device::with("alice", clock(&now)).await;
    let bob = Device::with("bob", clock(&bobs)).await;
    let folder = alice.create().await;
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    let pass = |seconds: u64| {
        now.fetch_add(seconds, Ordering::Relaxed);
        bobs.store(now.load(Ordering::Relaxed), Ordering::Relaxed);
    };
    let meet = async || {
        alice.wait(folder).await;
        bob.wait(folder).await;
        eventually("both show the same", async || {
            present(alice.engine(), folder) == present(bob.engine(), folder)
        })
        .await;
    };
    let mut seen: Vec<(u64, Tree)> = Vec::new();
    for day in 0..30 {
        // On some days one after the other, on others at the same time.
        act(alice.engine(), folder, &mut random);
        if day % 3 == 0 {
            meet().await;
            pass(HOUR);
        }
        if day == 12 || day == 20 {
            // A clock that is a year ahead, or years behind, for one edit that builds on one of the same day.
            alice.write(folder, &format!("day {day}"), b"today");
            meet().await;
            pass(HOUR);
            let wrong = if day == 12 {
                BEGIN + 400 * DAY
            } else {
                5 * DAY
            };
            bobs.store(wrong, Ordering::Relaxed);
            act(bob.engine(), folder, &mut random);
            pass(HOUR);
        }
        for _ in 0..random.random_range(1..4) {
            act(bob.engine(), folder, &mut random);
            pass(HOUR);
            act(alice.engine(), folder, &mut random);
        }
        meet().await;
        pass(HOUR);
        seen.push((now.load(Ordering::Relaxed), present(alice.engine(), folder)));
        pass(HOUR);
    }
    for (time, tree) in &seen {
        for device in [&alice, &bob] {
            assert_eq!(&then(device, folder, at(*time)).await, tree, "at {time}");
        }
    }

    // Three of them come back, exactly, and everywhere; what there was in between is in history.
    for _ in 0..3 {
        let (time, tree) = &seen[random.random_range(0..seen.len())];
        pass(HOUR);
        let before = (now.load(Ordering::Relaxed), present(bob.engine(), folder));
        pass(HOUR);
        let request = RestoreRequest {
            path: Vec::new(),
            when: at(*time),
            to: None,
            exact: true,
            partial: false,
        };
        let restoring = bob.engine().restore(folder, request, Box::new(Patient));
        let restored = restoring.await.unwrap();
        assert!(restored.missing.is_empty() && restored.applied);
        assert_eq!(&present(bob.engine(), folder), tree);
        meet().await;
        assert_eq!(&present(alice.engine(), folder), tree);
        assert_eq!(then(&alice, folder, at(before.0)).await, before.1);
    }

    // A tree that is made anew has the same past.
    bob.engine().repair(folder).await.unwrap();
    for (time, tree) in seen.iter().step_by(7) {
        assert_eq!(&then(&bob, folder, at(*time)).await, tree, "at {time}");
    }
}

/// A directory that was deleted while something was put into it is shown for that alone. Restored, it is there by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_directory_stays_when_what_had_kept_it_goes() {
    let now = Arc::new(AtomicU64::new(BEGIN));
    let alice = Device::with("alice", clock(&now)).await;
    let folder = alice.create().await;
    let view = alice.engine().view(folder).unwrap();
    let commit = |operations| block_in_place(|| view.commit(operations, Vec::new())).unwrap();
    let name = |name: &str| Name::new(name).unwrap();
    let directory = NodeId::new(NodeKind::Directory, rand::random());
    let made = edit::create(NodeId::ROOT, name("d"), directory, Value::Directory, None);
    commit(made);
    let empty = (
        now.fetch_add(HOUR, Ordering::Relaxed),
        present(alice.engine(), folder),
    );
    let file = NodeId::new(NodeKind::Leaf, rand::random());
    let link = Value::Symlink(b"elsewhere".to_vec());
    let deleted = edit::delete(&view.entry(NodeId::ROOT, &name("d")).unwrap().unwrap());
    commit(
        [
            edit::create(directory, name("new"), file, link, None),
            deleted,
        ]
        .concat(),
    );
    assert_eq!(entries(&view).len(), 2, "kept by what is inside");
    now.fetch_add(HOUR, Ordering::Relaxed);
    let request = RestoreRequest {
        path: Vec::new(),
        when: at(empty.0),
        to: None,
        exact: true,
        partial: false,
    };
    let restoring = alice.engine().restore(folder, request, Box::new(Patient));
    let restored = restoring.await.unwrap();
    assert_eq!((restored.directories, restored.removed), (1, 1));
    assert_eq!(present(alice.engine(), folder), empty.1);
}

/// A device that keeps old packs for a day, and a safe of its folder.
async fn forgetful_with_safe(now: &Arc<AtomicU64>) -> (Device, Device, FolderId) {
    let fast = Housekeeping {
        release: std::time::Duration::from_millis(200),
        collect: std::time::Duration::from_millis(50),
        grace: std::time::Duration::from_secs(DAY),
        ..clock(now)
    };
    let alice = Device::with("alice", fast).await;
    let safe = Device::with("pi", clock(now)).await;
    let folder = alice.create().await;
    safe.join(&alice.invite(folder, Role::Safe).await).await;
    (alice, safe, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn collected_content_comes_back_from_the_safe_and_is_live_again() {
    let now = Arc::new(AtomicU64::new(BEGIN));
    let (alice, safe, folder) = forgetful_with_safe(&now).await;
    let (first, second) = (noise(400_000), noise(400_000));
    alice.write(folder, "changing", &first);
    alice.wait(folder).await;
    let old = packs_of(&alice, folder);
    alice.write(folder, "changing", &second);
    alice.wait(folder).await;
    eventually("the old packs are collected", async || {
        now.fetch_add(HOUR, Ordering::Relaxed);
        old.iter().all(|pack| !pack.exists())
    })
    .await;

    let query = HistoryQuery {
        path: vec![Name::new("changing").unwrap()],
        since: None,
        until: None,
        limit: 10,
    };
    let history = alice.engine().history(folder, query.clone()).await.unwrap();
    let Events::Versions(versions) = history.events else {
        panic!("a file's history: {history:?}");
    };
    let actions: Vec<_> = versions.iter().map(|version| version.action).collect();
    assert_eq!(actions, [Action::Edited, Action::Created]);
    assert!(versions[0].here && versions[0].current && !versions[1].here);

    let request = RestoreRequest {
        path: query.path.clone(),
        when: When::Version(versions[1].version.clone()),
        to: None,
        exact: false,
        partial: false,
    };
    let restoring = alice.engine().restore(folder, request, Box::new(Patient));
    let restored = restoring.await.unwrap();
    assert_eq!((restored.files, restored.bytes), (1, 400_000));
    assert_eq!(alice.read(folder, "changing"), Some(first.clone()));
    alice.wait(folder).await;
    // Live again: whoever comes now gets it, and the other version is what goes.
    let bob = Device::start("bob").await;
    bob.join(&alice.invite(folder, Role::Reader).await).await;
    bob.sees(folder, "changing", &first).await;
    let found = bob
        .engine()
        .recall(
            folder,
            query.path,
            When::Version(versions[0].version.clone()),
            Box::new(Patient),
        )
        .await
        .unwrap();
    let tree = recalled(bob.engine(), folder, &found.entries);
    assert_eq!(tree.into_values().collect::<Vec<_>>(), [second]);
    for device in [&alice, &bob, &safe] {
        let outcome = device.verify(folder).await;
        assert!(outcome.ok, "{outcome:?}");
    }
}

/// A small device writes out a past state that is larger than what it has room for.
#[tokio::test(flavor = "multi_thread")]
async fn a_past_state_comes_part_by_part_and_goes_again() {
    let now = Arc::new(AtomicU64::new(BEGIN));
    let (alice, _safe, folder) = forgetful_with_safe(&now).await;
    let mut expected = Tree::new();
    for number in 0..6 {
        let bytes = noise(100_000 + number * 50_000);
        alice.write(folder, &format!("file {number}"), &bytes);
        expected.insert(format!("file {number}"), bytes);
        alice.write(folder, "note", b"inline");
        // Packs of their own.
        alice.wait(folder).await;
    }
    expected.insert("note".to_owned(), b"inline".to_vec());
    let then = now.load(Ordering::Relaxed);
    now.fetch_add(HOUR, Ordering::Relaxed);
    let old = packs_of(&alice, folder);
    for number in 0..6 {
        alice.view(folder).delete(&format!("file {number}"));
    }
    alice.wait(folder).await;
    eventually("the old packs are collected", async || {
        now.fetch_add(HOUR, Ordering::Relaxed);
        old.iter().all(|pack| !pack.exists())
    })
    .await;
    let before = packs_of(&alice, folder).len();
    let (mut parts, mut most) = (0, 0);
    let tree = in_parts(&alice, folder, at(then), 700_000, |number| {
        parts = number + 1;
        most = most.max(packs_of(&alice, folder).len() - before);
    })
    .await;
    assert!(tree == expected);
    assert!(
        parts > 2 && most < old.len(),
        "{parts} {most} {}",
        old.len()
    );
    eventually("all of it goes again", async || {
        packs_of(&alice, folder).len() == before
    })
    .await;
    let outcome = alice.verify(folder).await;
    assert!(outcome.ok, "{outcome:?}");
}
