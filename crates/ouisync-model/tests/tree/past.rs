//! The tree as it was equals the tree that the commits known then make.

use std::{
    collections::{BTreeMap, HashSet},
    rc::Rc,
};

use ouisync_model::{
    id::{CommitId, NodeId},
    name::Name,
    tree::{
        Tree,
        entry::Entry,
        history::ChangeCounts,
        memory::MemoryTree,
        past::{Included, PastTree},
        view::View,
    },
};
use proptest::prelude::*;

use crate::{
    devices::{Commit, Device, everything, label, path},
    properties::{play, steps},
};

fn entries(past: &PastTree<'_, MemoryTree>) -> BTreeMap<Vec<Name>, Entry> {
    let mut walk = View::new(past, &label).walk(NodeId::ROOT).unwrap();
    let mut found = BTreeMap::new();
    while let Some((path, entry)) = walk.step().unwrap() {
        found.insert(path, entry);
    }
    found
}

fn extend(tree: &mut Tree<MemoryTree>, era: u32, commits: &[Rc<Commit>]) {
    for commit in commits {
        tree.record(&commit.context, era, &commit.operations)
            .unwrap();
        tree.apply(&commit.context, &commit.operations).unwrap();
    }
}

fn ids(commits: &[Rc<Commit>]) -> HashSet<CommitId> {
    commits.iter().map(|commit| commit.context.commit).collect()
}

/// Compares what every beginning of `commits` from `from` on made with what is read from `tree`.
fn check(tree: &Tree<MemoryTree>, commits: &[Rc<Commit>], from: usize, era: Option<u32>) {
    let covered = ids(&commits[..from]);
    let mut then = Tree::<MemoryTree>::default();
    for (number, commit) in (1..).zip(commits) {
        then.apply(&commit.context, &commit.operations).unwrap();
        if number < from {
            continue;
        }
        let known = ids(&commits[..number]);
        let counts = |commit: &CommitId| {
            assert!(era.is_none() || !covered.contains(commit) || known.contains(commit));
            known.contains(commit)
        };
        let past = PastTree::new(
            tree.store(),
            Included {
                counts: &counts,
                era,
            },
        )
        .unwrap();
        assert_eq!(entries(&past), everything(&then), "after {number} commits");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_past_state_is_read_as_it_was(steps in steps(60)) {
        let commits = play(&steps);
        let mut tree = Tree::default();
        extend(&mut tree, 0, &commits);
        check(&tree, &commits, 0, None);
    }

    #[test]
    fn after_a_checkpoint_every_later_state_is(steps in steps(60), part in 0..100_usize) {
        let commits = play(&steps);
        let from = commits.len() * part / 100;
        let mut tree = Tree::<MemoryTree>::default();
        for commit in &commits[..from] {
            tree.apply(&commit.context, &commit.operations).unwrap();
        }
        extend(&mut tree, 1, &commits[from..]);
        check(&tree, &commits, from, Some(1));
    }
}

#[test]
fn a_deleted_directory_is_there_before_and_not_after() {
    let mut device = Device::new(1);
    device.make_directory("", "d");
    device.make_file("d", "f", 1);
    device.write("d/f", 2);
    device.delete("d");
    let mut tree = Tree::default();
    extend(&mut tree, 0, &device.known);
    let known = ids(&device.known[..3]);
    let counts = |commit: &CommitId| known.contains(commit);
    let past = PastTree::new(
        tree.store(),
        Included {
            counts: &counts,
            era: None,
        },
    )
    .unwrap();
    let view = View::new(&past, &label);
    let entry = view.lookup(&path("d/f")).unwrap().unwrap();
    assert_eq!(entry.value, crate::devices::file(2));
    assert_eq!(device.find("d"), None);
}

#[test]
fn commits_are_counted_by_what_they_do() {
    let mut device = Device::new(1);
    device.make_directory("", "d");
    device.make_file("d", "f", 1);
    device.write("d/f", 2);
    device.relocate("d/f", "", "g");
    device.delete("g");
    let mut tree = Tree::<MemoryTree>::default();
    let mut sum = ChangeCounts::default();
    for commit in &device.known {
        let counts = tree
            .record(&commit.context, 0, &commit.operations)
            .unwrap()
            .unwrap();
        sum.add(&counts);
        tree.apply(&commit.context, &commit.operations).unwrap();
        let again = tree.record(&commit.context, 0, &commit.operations).unwrap();
        assert_eq!(again, None);
    }
    let expected = ChangeCounts {
        created: 1,
        edited: 1,
        deleted: 1,
        moved: 1,
        directories_created: 1,
        bytes: 20,
        ..ChangeCounts::default()
    };
    assert_eq!(sum, expected);
}
