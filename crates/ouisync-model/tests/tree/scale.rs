//! Big directories, deep trees and long logs take time in proportion. The limits are generous: a quadratic step exceeds them by
//! orders of magnitude.

use std::time::{Duration, Instant};

use ouisync_model::{
    id::{CommitId, Lamport, MemberId, NodeId, NodeKind, Timestamp},
    name::Name,
    operation::{Operation, Value},
    tree::{CommitContext, Tree, edit, memory::MemoryTree},
};

use crate::devices::{file, label, name, spread};

fn context(number: u64, lamport: u64) -> CommitContext {
    CommitContext {
        commit: CommitId::from_bytes(spread(number)),
        lamport: Lamport(lamport),
        author: MemberId::from_bytes([1; 32]),
        time: Timestamp::default(),
    }
}

fn directory(number: u64) -> NodeId {
    NodeId::new(NodeKind::Directory, spread(number))
}

fn number_name(number: u64) -> Name {
    name(&format!("{number:08}"))
}

#[test]
fn a_hundred_thousand_files_in_one_directory() {
    let started = Instant::now();
    let mut tree = Tree::new(MemoryTree::new());
    for batch in 0..10 {
        let operations: Vec<Operation> = (batch * 10_000..(batch + 1) * 10_000)
            .flat_map(|number| {
                let node = NodeId::new(NodeKind::Leaf, spread(number));
                edit::create(NodeId::ROOT, number_name(number), node, file(number), None)
            })
            .collect();
        tree.apply(&context(batch, batch + 1), &operations).unwrap();
    }
    let view = tree.view(&label);
    assert_eq!(view.counts().unwrap().files, 100_000);
    for number in 0..1000 {
        assert!(view.lookup(&[number_name(number * 99)]).unwrap().is_some());
    }
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
}

/// New directories that arrive with old stamps need no replay of the log.
#[test]
fn directories_of_two_devices_arrive_newest_first() {
    let started = Instant::now();
    let mut tree = Tree::new(MemoryTree::new());
    for batch in (0..200).rev() {
        let operations: Vec<Operation> = (batch * 100..(batch + 1) * 100)
            .flat_map(|number| {
                let node = directory(number);
                edit::create(
                    NodeId::ROOT,
                    number_name(number),
                    node,
                    Value::Directory,
                    None,
                )
            })
            .collect();
        tree.apply(&context(batch, batch + 1), &operations).unwrap();
    }
    assert_eq!(tree.view(&label).counts().unwrap().directories, 20_000);
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn a_deep_tree_overflows_nothing() {
    const DEPTH: u64 = 1500;
    let mut tree = Tree::new(MemoryTree::new());
    let mut parent = NodeId::ROOT;
    for number in 0..DEPTH {
        let node = directory(number);
        let operations = edit::create(parent, name("d"), node, Value::Directory, None);
        tree.apply(&context(number, number + 1), &operations)
            .unwrap();
        parent = node;
    }
    let view = tree.view(&label);
    assert_eq!(view.counts().unwrap().directories, DEPTH);
    assert_eq!(
        view.path(parent).unwrap().unwrap().len(),
        usize::try_from(DEPTH).unwrap()
    );
    let top = view.lookup(&[name("d")]).unwrap().unwrap();
    assert!(view.is_ancestor(top.node, parent).unwrap());
    let operations = view.delete_tree(&top).unwrap();
    tree.apply(&context(DEPTH, DEPTH + 1), &operations).unwrap();
    assert_eq!(tree.view(&label).counts().unwrap().directories, 0);
}
