//! The index against the model's tree in memory, and what it counts.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, path::Path};

use ouisync_crypto::{
    keys::{ContentKeys, FolderKeys},
    secret::{EpochSecret, ReadSecret},
};
use ouisync_model::{
    id::{
        ChunkId, CommitId, EpochId, Lamport, MemberId, NodeId, NodeKind, OpId, PackId, Stamp,
        Timestamp,
    },
    name::Name,
    operation::{
        ChunkPlace, ChunkRef, Encoding, FileContent, FileData, Metadata, Operation, PackTable,
        Value,
    },
    tree::{
        Changes, CommitContext, ContentChange, Tree,
        history::{HistoryReader, NodeChange},
        memory::MemoryTree,
        state::DirectoryPlacement,
        store::{TreeReader, TreeStore},
    },
};
use ouisync_store::{
    content::ChunkPlaces,
    error::ErrorKind,
    index::{Index, IndexError, batch::IndexBatch, exclusive::ContentUses, history::HistoryStart},
    sealed_map::SealedMapError,
};
use proptest::prelude::*;

fn keys(seed: u8) -> ContentKeys {
    let mut folder = FolderKeys::new();
    let secret = EpochSecret::Read(ReadSecret::from_bytes([seed; 32]));
    folder.insert(EpochId::from_bytes([1; 32]), 0, secret);
    folder.content_keys().unwrap()
}

fn open(directory: &Path) -> Index {
    Index::open(directory, &keys(1)).unwrap()
}

fn commit_id(number: u8) -> CommitId {
    CommitId::from_bytes([number; 32])
}

fn node_id(number: u8) -> NodeId {
    match number {
        0 => NodeId::ROOT,
        number if number % 2 == 0 => NodeId::new(NodeKind::Directory, [number; 16]),
        number => NodeId::new(NodeKind::Leaf, [number; 16]),
    }
}

fn name(number: u8) -> Name {
    Name::new(format!("name {number}")).unwrap()
}

fn chunk(number: u8) -> ChunkRef {
    ChunkRef {
        chunk: ChunkId::from_bytes([number; 32]),
        length: 1000,
    }
}

fn file(chunks: &[u8]) -> FileContent {
    let chunks: Vec<_> = chunks.iter().copied().map(chunk).collect();
    FileContent {
        size: 1000 * chunks.len() as u64,
        level: 0,
        data: FileData::Chunks(chunks),
    }
}

fn pack_table(pack: u8, chunks: &[u8]) -> PackTable {
    let places = chunks.iter().zip(0..).map(|(number, index)| ChunkPlace {
        chunk: ChunkId::from_bytes([*number; 32]),
        offset: index * 500,
        stored: 500,
        length: 1000,
        encoding: Encoding::Zstd,
    });
    PackTable {
        pack: PackId::from_bytes([pack; 32]),
        round: 0,
        chunks: places.collect(),
    }
}

fn value(number: u8) -> impl Fn(NodeKind) -> Value {
    move |kind| match (number % 3, kind) {
        (0, _) => Value::Deleted,
        (_, NodeKind::Directory) => Value::Directory,
        (1, NodeKind::Leaf) => Value::Symlink(vec![number]),
        (_, NodeKind::Leaf) => Value::File(file(&[number, number / 2])),
    }
}

fn operation() -> impl Strategy<Value = Operation> {
    let node = 1u8..12;
    prop_oneof![
        (node.clone(), (0u8..6).prop_map(|n| 2 * n), 0u8..4).prop_map(|(node, parent, named)| {
            Operation::Place {
                node: node_id(node),
                parent: node_id(parent),
                name: name(named),
            }
        }),
        (
            node.clone(),
            any::<u8>(),
            prop::collection::vec((0u8..20, 0u32..4), 0..3)
        )
            .prop_map(|(node, number, replaces)| {
                let node = node_id(node);
                let replaces = replaces.into_iter().map(|(commit, index)| OpId {
                    commit: commit_id(commit),
                    index,
                });
                Operation::Write {
                    node,
                    value: value(number)(node.kind()),
                    replaces: replaces.collect(),
                }
            }),
        (node, any::<bool>()).prop_map(|(node, executable)| Operation::SetMetadata {
            node: node_id(node),
            change: Metadata {
                executable,
                modified: Timestamp::default()
            }
            .into(),
        }),
    ]
}

fn context(number: u8) -> CommitContext {
    CommitContext {
        commit: commit_id(number),
        // Some share their Lamport time.
        lamport: Lamport(u64::from(number / 2)),
        author: MemberId::from_bytes([number % 3; 32]),
        time: Timestamp::default(),
    }
}

/// Compares all that a tree can read.
fn assert_same<R: TreeReader>(index: &R, memory: &MemoryTree)
where
    R::Error: std::fmt::Debug,
{
    for number in 0..14 {
        let node = node_id(number);
        assert_eq!(index.node(node).unwrap(), memory.node(node).unwrap());
        let children: BTreeSet<_> = index.children(node).unwrap().into_iter().collect();
        assert_eq!(
            children,
            memory.children(node).unwrap().into_iter().collect()
        );
        for named in 0..5 {
            let named = name(named);
            let nodes: BTreeSet<_> = index
                .children_named(node, &named)
                .unwrap()
                .into_iter()
                .collect();
            assert_eq!(
                nodes,
                memory
                    .children_named(node, &named)
                    .unwrap()
                    .into_iter()
                    .collect()
            );
        }
    }
}

fn assert_same_history(index: &Index, memory: &MemoryTree) {
    let sorted = |mut placements: Vec<(Stamp, DirectoryPlacement)>| {
        placements.sort_by_key(|(stamp, _)| *stamp);
        placements
    };
    for number in 0..14 {
        let node = node_id(number);
        let changes = |mut changes: Vec<NodeChange>| {
            changes.sort_by_key(|change| change.commit);
            changes
        };
        assert_eq!(
            changes(index.changes(node).unwrap()),
            changes(memory.changes(node).unwrap())
        );
        let former: BTreeSet<_> = index.former_children(node).unwrap().into_iter().collect();
        assert_eq!(
            former,
            memory.former_children(node).unwrap().into_iter().collect()
        );
    }
    assert_eq!(
        sorted(index.placements().unwrap()),
        sorted(memory.placements().unwrap())
    );
}

fn assert_same_store(index: &IndexBatch, memory: &MemoryTree) {
    for number in 0..20 {
        let id = commit_id(number);
        assert_eq!(
            index.is_applied(&id).unwrap(),
            memory.is_applied(&id).unwrap()
        );
        for lamport in [0, 1, 5, 9] {
            let stamp = Stamp {
                lamport: Lamport(lamport),
                op: OpId {
                    commit: id,
                    index: 1,
                },
            };
            assert_eq!(
                index.placements_after(stamp).unwrap(),
                memory.placements_after(stamp).unwrap()
            );
        }
    }
    assert_same(index, memory);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// In every order of commits, with batches of several commits, restarts and repetitions.
    #[test]
    fn the_index_is_the_same_tree_as_in_memory(
        commits in prop::collection::vec((prop::collection::vec(operation(), 0..6), 0u8..4), 1..20),
        order in any::<prop::sample::Index>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut index = open(directory.path());
        let mut memory = Tree::new(MemoryTree::new());
        let mut tree = Tree::new(index.begin());
        let start = order.index(commits.len());
        for step in 0..commits.len() + 3 {
            let number = (start + step) % commits.len();
            let (operations, what_next) = &commits[number];
            let context = context(number as u8);
            let counts = tree.record(&context, 0, operations).unwrap();
            prop_assert_eq!(counts, memory.record(&context, 0, operations).unwrap());
            let changes = tree.apply(&context, operations).unwrap();
            prop_assert_eq!(&changes, &memory.apply(&context, operations).unwrap());
            tree.store_mut().account(&changes).unwrap();
            assert_same_store(tree.store(), memory.store());
            if *what_next < 2 {
                let batch = tree.into_store();
                let totals = batch.totals();
                batch.commit().unwrap();
                if *what_next == 0 {
                    drop(index);
                    index = open(directory.path());
                }
                prop_assert_eq!(index.totals(), totals);
                assert_same(&index, memory.store());
                assert_same(&index.snapshot(), memory.store());
                assert_same_history(&index, memory.store());
                tree = Tree::new(index.begin());
            }
        }
        let mut files = 0;
        for (_, state) in memory.store().nodes() {
            files += state.content.values().filter(|value| matches!(value.value, Value::File(_))).count();
        }
        prop_assert_eq!(tree.store().totals().files, files as u64);
    }

    /// The storage itself, also with calls that no tree makes.
    #[test]
    fn the_index_stores_as_memory_does(
        steps in prop::collection::vec((0u8..7, 0u8..8, 0u8..4, 0u8..12), 1..60),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let index = open(directory.path());
        let mut batch = index.begin();
        let mut memory = MemoryTree::new();
        for (what, a, b, c) in steps {
            let stamp = Stamp {
                lamport: Lamport(u64::from(a)),
                op: OpId { commit: commit_id(b), index: u32::from(c) },
            };
            let placement =
                DirectoryPlacement { node: node_id(c), parent: node_id(a), name: name(b), previous: None };
            match what {
                0 | 1 => {
                    batch.link(node_id(a), &name(b), node_id(c)).unwrap();
                    memory.link(node_id(a), &name(b), node_id(c)).unwrap();
                }
                2 => {
                    batch.unlink(node_id(a), &name(b), node_id(c)).unwrap();
                    memory.unlink(node_id(a), &name(b), node_id(c)).unwrap();
                }
                3 => {
                    batch.put_placement(stamp, &placement).unwrap();
                    memory.put_placement(stamp, &placement).unwrap();
                }
                4 => {
                    batch.put_replaced_early(stamp.op, node_id(a)).unwrap();
                    memory.put_replaced_early(stamp.op, node_id(a)).unwrap();
                }
                5 => {
                    let taken = batch.take_replaced_early(&commit_id(b)).unwrap();
                    prop_assert_eq!(taken, memory.take_replaced_early(&commit_id(b)).unwrap());
                }
                _ => {
                    batch.commit().unwrap();
                    batch = index.begin();
                }
            }
            assert_same_store(&batch, &memory);
        }
    }
}

#[test]
fn a_dropped_batch_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let index = open(directory.path());
    let mut batch = index.begin();
    batch.mark_applied(&commit_id(1)).unwrap();
    batch
        .add_packs(&commit_id(1), [&pack_table(1, &[1])])
        .unwrap();
    batch.put_setting("a", Some(b"b"));
    drop(batch);
    assert!(!index.is_applied(&commit_id(1)).unwrap());
    assert!(index.begin().is_empty());
    assert_eq!(index.setting("a").unwrap(), None);
    assert_eq!(index.position(), ouisync_store::index::Position::default());
}

#[test]
fn another_key_is_told_and_the_index_can_be_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    let mut batch = open(&path).begin();
    batch.put_setting("a", Some(b"b"));
    batch.commit().unwrap();
    let error = Index::open(&path, &keys(2)).unwrap_err();
    assert!(
        matches!(error, IndexError::Map(SealedMapError::OtherKey)),
        "{error:?}"
    );
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert_eq!(open(&path).setting("a").unwrap().unwrap(), b"b");
    Index::destroy(&path).unwrap();
    Index::destroy(&path).unwrap();
    assert_eq!(
        Index::open(&path, &keys(2)).unwrap().setting("a").unwrap(),
        None
    );
}

#[test]
fn nothing_readable_is_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let index = open(directory.path());
    let mut batch = index.begin();
    let secret_name = Name::new("a very private name").unwrap();
    batch.link(NodeId::ROOT, &secret_name, node_id(1)).unwrap();
    batch.put_view_record(
        &[1; 16],
        secret_name.as_bytes(),
        Some(b"a very private value"),
    );
    batch.put_setting("a very private setting", Some(b"a very private value"));
    batch.commit().unwrap();
    drop(index);
    let mut found = 0;
    let mut directories = vec![directory.path().to_owned()];
    while let Some(path) = directories.pop() {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let bytes = std::fs::read(path).unwrap();
                found += bytes
                    .windows(12)
                    .filter(|window| window == b"very private")
                    .count();
            }
        }
    }
    assert_eq!(found, 0);
}

#[test]
fn marks_made_later_survive_clearing() {
    let directory = tempfile::tempdir().unwrap();
    let index = open(directory.path());
    let mut batch = index.begin();
    for number in [2, 4, 6] {
        batch.mark_dirty(node_id(number));
    }
    batch.commit().unwrap();
    assert_eq!(index.dirty(2).unwrap().len(), 2);
    let seen = index.dirty(10).unwrap();
    assert_eq!(seen.len(), 3);
    let mut batch = index.begin();
    batch.mark_dirty(node_id(4));
    batch.commit().unwrap();
    let mut batch = index.begin();
    for (directory, mark) in seen {
        assert_eq!(
            batch.clear_dirty(directory, mark).unwrap(),
            directory != node_id(4)
        );
    }
    batch.put_view_record(&[2; 16], b"x", Some(b"1"));
    batch.put_view_record(&[2; 16], b"y", Some(b"2"));
    batch.put_view_record(&[3; 16], b"x", Some(b"3"));
    batch.commit().unwrap();
    assert_eq!(
        index.dirty(10).unwrap().into_keys().collect::<Vec<_>>(),
        [node_id(4)]
    );
    assert_eq!(index.view_record(&[3; 16], b"x").unwrap().unwrap(), b"3");
    let mut records = index.view_records(&[2; 16]).unwrap();
    records.sort();
    assert_eq!(
        records,
        [
            (b"x".to_vec(), b"1".to_vec()),
            (b"y".to_vec(), b"2".to_vec())
        ]
    );
    let mut batch = index.begin();
    batch.put_view_record(&[2; 16], b"x", None);
    assert_eq!(batch.view_records(&[2; 16]).unwrap().len(), 1);
    batch.commit().unwrap();
    assert_eq!(index.view_record(&[2; 16], b"x").unwrap(), None);
    drop(index);
    let index = open(directory.path());
    let mut batch = index.begin();
    let marks = batch.dirty(10).unwrap();
    batch.mark_dirty(node_id(4));
    assert_ne!(
        batch.dirty(10).unwrap(),
        marks,
        "marks are never given twice"
    );
}

fn changes(added: &[FileContent], dropped: &[FileContent]) -> Changes {
    let change = |content: &FileContent| ContentChange {
        node: node_id(1),
        op: OpId {
            commit: commit_id(1),
            index: 0,
        },
        value: Value::File(content.clone()),
    };
    Changes {
        added: added.iter().map(change).collect(),
        dropped: dropped.iter().map(change).collect(),
        ..Changes::default()
    }
}

#[test]
fn packs_count_the_chunks_that_the_tree_uses() {
    let directory = tempfile::tempdir().unwrap();
    let index = open(directory.path());
    let (a, b) = (PackId::from_bytes([1; 32]), PackId::from_bytes([2; 32]));
    let mut batch = index.begin();
    batch
        .add_packs(&commit_id(1), [&pack_table(1, &[1, 2, 3])])
        .unwrap();
    batch
        .add_packs(&commit_id(1), [&pack_table(1, &[1, 2, 3])])
        .unwrap();
    batch.account(&changes(&[file(&[1, 2, 2])], &[])).unwrap();
    // Also a pack whose table comes after the value.
    batch
        .add_packs(&commit_id(2), [&pack_table(2, &[2, 4])])
        .unwrap();
    batch.commit().unwrap();
    let used = |pack| {
        index
            .pack_use(&pack)
            .unwrap()
            .map(|used| (used.chunks, used.used_chunks, used.used_bytes))
    };
    assert_eq!(used(a), Some((3, 2, 1000)));
    assert_eq!(used(b), Some((2, 0, 0)), "another pack is the home");
    assert_eq!(index.places(&chunk(2).chunk).unwrap().len(), 2);
    assert_eq!(index.pack_chunks(&a).unwrap().len(), 3);
    assert_eq!(index.unreferenced_packs().unwrap(), []);

    let mut batch = index.begin();
    batch
        .account(&changes(&[file(&[1])], &[file(&[1, 2, 2])]))
        .unwrap();
    batch.commit().unwrap();
    assert_eq!(used(a), Some((3, 1, 500)));
    assert_eq!(index.unreferenced_packs().unwrap(), []);
    assert_eq!(index.totals().files, 1);
    assert_eq!(index.totals().bytes, 1000);
}

#[test]
fn a_use_counts_for_the_pack_that_is_the_home_of_the_chunk() {
    let directory = tempfile::tempdir().unwrap();
    let index = open(directory.path());
    let [old, other, new] = [1, 2, 3].map(|pack| PackId::from_bytes([pack; 32]));
    let repacked = PackTable {
        round: 1,
        ..pack_table(3, &[1, 2, 9])
    };
    let mut batch = index.begin();
    let first = [pack_table(1, &[1, 2]), pack_table(2, &[3])];
    batch.add_packs(&commit_id(1), &first).unwrap();
    batch.account(&changes(&[file(&[1, 2, 3])], &[])).unwrap();
    batch.add_packs(&commit_id(2), [&repacked]).unwrap();
    batch.commit().unwrap();
    let used = |pack| index.pack_use(&pack).unwrap().unwrap().used_chunks;
    assert_eq!([old, other, new].map(used), [2, 1, 0]);
    assert_eq!(index.repeating_packs(5).unwrap(), [new]);
    let known = index.chunk_use(&chunk(1).chunk).unwrap().unwrap();
    assert!(known.is_used && known.home.pack == old);
    assert!(known.others[0].is_above(&known.home) && known.others[0].pack == new);
    // For reading, what was repacked comes first.
    assert_eq!(index.places(&chunk(1).chunk).unwrap()[0].0, new);

    let mut batch = index.begin();
    for place in &repacked.chunks {
        batch.set_home(&new, place).unwrap();
        batch.set_home(&new, place).unwrap();
    }
    // A place that nobody told is none.
    batch.set_home(&other, &repacked.chunks[0]).unwrap();
    batch.looked_at(&new, true).unwrap();
    batch.commit().unwrap();
    assert_eq!([old, other, new].map(used), [0, 1, 2]);
    assert_eq!(index.unreferenced_packs().unwrap(), [old]);
    assert_eq!(index.repeating_packs(5).unwrap(), []);
    assert_eq!(index.pack_table(&new).unwrap(), repacked);

    // Told again, also without the round, nothing changes; what is told of the old one is to be looked at.
    let mut batch = index.begin();
    batch
        .add_packs(&commit_id(3), [&pack_table(3, &[1, 2])])
        .unwrap();
    batch.commit().unwrap();
    assert_eq!(index.repeating_packs(5).unwrap(), []);
    let mut batch = index.begin();
    batch
        .add_packs(&commit_id(4), [&pack_table(1, &[1, 2])])
        .unwrap();
    batch.looked_at(&other, true).unwrap();
    batch.commit().unwrap();
    assert_eq!(index.repeating_packs(5).unwrap(), [old]);
    assert_eq!([old, other, new].map(used), [0, 1, 2]);
    let known = index.chunk_use(&chunk(1).chunk).unwrap().unwrap();
    assert_eq!((known.home.round, known.others.len()), (1, 1));

    // What the tree gives up, it gives up where it counts.
    let mut batch = index.begin();
    batch.account(&changes(&[], &[file(&[1, 2, 3])])).unwrap();
    batch.commit().unwrap();
    assert_eq!([old, other, new].map(used), [0, 0, 0]);
    let unused: BTreeSet<_> = index.unreferenced_packs().unwrap().into_iter().collect();
    assert_eq!(unused, [old, other, new].into());
}

#[test]
fn long_lists_hold_release_back_until_they_are_known() {
    let directory = tempfile::tempdir().unwrap();
    let index = open(directory.path());
    let long = FileContent {
        size: 5000,
        level: 0,
        data: FileData::Indirect(vec![chunk(9)]),
    };
    let mut batch = index.begin();
    batch
        .add_packs(&commit_id(1), [&pack_table(1, &[1, 2])])
        .unwrap();
    batch
        .add_packs(&commit_id(2), [&pack_table(2, &[9])])
        .unwrap();
    batch
        .add_packs(&commit_id(3), [&pack_table(3, &[3])])
        .unwrap();
    batch
        .account(&changes(
            &[long.clone(), long.clone(), file(&[3])],
            &[file(&[3])],
        ))
        .unwrap();
    batch.commit().unwrap();
    assert_eq!(index.unreferenced_packs().unwrap(), []);
    let pending = index.pending_lists(5).unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].1, long);

    let mut batch = index.begin();
    batch
        .supply_list(pending[0].0, &[chunk(1), chunk(1), chunk(2)])
        .unwrap();
    batch
        .supply_list(pending[0].0, &[chunk(1), chunk(1), chunk(2)])
        .unwrap();
    batch.commit().unwrap();
    assert_eq!(
        index.unreferenced_packs().unwrap(),
        [PackId::from_bytes([3; 32])]
    );
    assert_eq!(
        index
            .pack_use(&PackId::from_bytes([1; 32]))
            .unwrap()
            .unwrap()
            .used_chunks,
        2
    );

    let mut batch = index.begin();
    batch
        .account(&changes(&[], std::slice::from_ref(&long)))
        .unwrap();
    assert_eq!(batch.totals().files, 1);
    batch.account(&changes(&[], &[long])).unwrap();
    batch.commit().unwrap();
    let unused: BTreeSet<_> = index.unreferenced_packs().unwrap().into_iter().collect();
    assert_eq!(
        unused,
        [1, 2, 3]
            .map(|number| PackId::from_bytes([number; 32]))
            .into()
    );
    assert_eq!(index.pending_lists(5).unwrap(), []);
}

#[test]
fn readers_see_whole_batches_while_one_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let index = open(directory.path());
    std::thread::scope(|scope| {
        let writer = index.clone();
        scope.spawn(move || {
            for round in 0u8..50 {
                let mut batch = writer.begin();
                for name in ["a", "b"] {
                    batch.put_setting(name, Some(&[round]));
                }
                batch.commit().unwrap();
            }
        });
        loop {
            let snapshot = index.snapshot();
            let (a, b) = (
                snapshot.setting("a").unwrap(),
                snapshot.setting("b").unwrap(),
            );
            assert_eq!(a, b);
            if a == Some(vec![49]) {
                break;
            }
        }
    });
}

#[test]
fn history_outlives_the_tree() {
    let directory = tempfile::tempdir().unwrap();
    let index = open(directory.path());
    let operations = [
        Operation::Place {
            node: node_id(1),
            parent: NodeId::ROOT,
            name: name(1),
        },
        Operation::Write {
            node: node_id(1),
            value: value(2)(NodeKind::Leaf),
            replaces: Vec::new(),
        },
    ];
    let apply = |era| {
        let mut tree = Tree::new(index.begin());
        tree.record(&context(1), era, &operations).unwrap();
        tree.apply(&context(1), &operations).unwrap();
        tree.into_store().commit().unwrap();
    };
    apply(0);
    let before = index.changes(node_id(1)).unwrap();
    assert_eq!(before.len(), 1);
    index.clear_tree().unwrap();
    assert_eq!(index.node(node_id(1)).unwrap(), None);
    assert_eq!(index.changes(node_id(1)).unwrap(), before);
    apply(0);
    assert_eq!(index.changes(node_id(1)).unwrap(), before);

    let mut batch = index.begin();
    assert_eq!(batch.history_start().unwrap(), HistoryStart::default());
    batch
        .start_history(Some((commit_id(9), Timestamp::default())))
        .unwrap();
    batch.commit().unwrap();
    index.clear_tree().unwrap();
    let start = index.history_start().unwrap();
    assert_eq!(start.era, 1);
    assert_eq!(start.checkpoint, Some((commit_id(9), Timestamp::default())));
}

#[test]
fn places_outlive_the_tree_and_uses_are_counted_anew() {
    let directory = tempfile::tempdir().unwrap();
    let mut index = open(directory.path());
    let added = |number| Changes {
        added: vec![ContentChange {
            node: node_id(1),
            op: OpId {
                commit: commit_id(number),
                index: 0,
            },
            value: Value::File(file(&[1, 2])),
        }],
        ..Changes::default()
    };
    let pack = PackId::from_bytes([1; 32]);
    let fill = |index: &Index| {
        let mut batch = index.begin();
        let table = pack_table(1, &[1, 2, 3]);
        batch.add_packs(&commit_id(1), [&table]).unwrap();
        batch.account(&added(1)).unwrap();
        batch.commit().unwrap();
    };
    fill(&index);
    let full = index.pack_use(&pack).unwrap().unwrap();
    assert_eq!((full.chunks, full.used_chunks), (3, 2));
    for reopened in [false, true] {
        index.clear_tree().unwrap();
        if reopened {
            drop(index);
            index = open(directory.path());
        }
        assert!(index.has_place(&ChunkId::from_bytes([2; 32])).unwrap());
        assert_eq!(index.pack_chunks(&pack).unwrap().len(), 3);
        let empty = index.pack_use(&pack).unwrap().unwrap();
        assert_eq!((empty.chunks, empty.used_chunks), (3, 0));
        assert_eq!(index.pack_uses().unwrap(), [empty]);
        assert_eq!(index.unreferenced_packs().unwrap(), []);
        fill(&index);
        assert_eq!(index.pack_use(&pack).unwrap().unwrap(), full);
        fill(&index);
        let mut batch = index.begin();
        let gone = Changes {
            dropped: added(1).added,
            ..Changes::default()
        };
        batch.account(&gone).unwrap();
        batch.account(&gone).unwrap();
        batch.commit().unwrap();
        assert_eq!(index.unreferenced_packs().unwrap(), [pack]);
    }
}

#[test]
fn a_pack_is_exclusive_to_contents_while_nothing_else_uses_a_chunk_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let index = open(directory.path());
    let [a, b, c] = [1, 2, 3].map(|pack| PackId::from_bytes([pack; 32]));
    let (one, two) = (file(&[1, 2, 2]), file(&[3, 4]));
    let mut batch = index.begin();
    let tables = [
        pack_table(1, &[1, 2]),
        pack_table(2, &[2, 3]),
        pack_table(3, &[4, 9]),
    ];
    batch.add_packs(&commit_id(1), &tables).unwrap();
    batch
        .account(&changes(&[one.clone(), two.clone()], &[]))
        .unwrap();
    batch.commit().unwrap();
    let exclusive = |contents: &[&FileContent]| {
        let mut uses = ContentUses::default();
        for content in contents {
            index.count_content(&mut uses, content);
        }
        index.count_lists(&mut uses).unwrap();
        let mut packs = BTreeSet::new();
        for content in contents {
            for pack in index.packs_with(content).unwrap() {
                if index.exclusive_use(&uses, &pack).unwrap().is_some() {
                    packs.insert(pack);
                }
            }
        }
        packs
    };
    assert_eq!(exclusive(&[&one]), BTreeSet::from([a]));
    assert_eq!(exclusive(&[&two]), BTreeSet::from([c]));
    assert_eq!(exclusive(&[&one, &two]), BTreeSet::from([a, b, c]));
    // The unused chunk is some former version's.
    let usage = index.pack_use(&c).unwrap().unwrap();
    assert!(usage.used_chunks < usage.chunks);
    // A copy of the file, anywhere in the tree, needs it.
    let mut batch = index.begin();
    batch
        .account(&changes(std::slice::from_ref(&one), &[]))
        .unwrap();
    batch.commit().unwrap();
    assert_eq!(exclusive(&[&one, &two]), BTreeSet::from([c]));
    assert_eq!(exclusive(&[&one, &one, &two]), BTreeSet::from([a, b, c]));
    // A long list that nobody has read yet may need any pack.
    let long = FileContent {
        size: 5000,
        level: 0,
        data: FileData::Indirect(vec![chunk(9)]),
    };
    let mut batch = index.begin();
    batch
        .account(&changes(std::slice::from_ref(&long), &[]))
        .unwrap();
    batch.commit().unwrap();
    assert_eq!(exclusive(&[&one, &one, &two]), BTreeSet::new());
    let (list, _) = index.pending_lists(1).unwrap()[0].clone();
    let mut batch = index.begin();
    batch.supply_list(list, &[chunk(1), chunk(3)]).unwrap();
    batch.commit().unwrap();
    assert_eq!(exclusive(&[&one, &one, &two]), BTreeSet::new());
    assert_eq!(
        exclusive(&[&one, &one, &two, &long]),
        BTreeSet::from([a, b, c])
    );
}
