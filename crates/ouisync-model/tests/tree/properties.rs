//! Three devices do random things, meet at random, and must agree in the end whatever way the commits travel.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    rc::Rc,
};

use ouisync_model::{
    id::{NodeId, NodeKind, OpId},
    name::Name,
    operation::{Metadata, MetadataChange, Operation, Value},
    tree::{
        Tree, edit,
        entry::Entry,
        memory::MemoryTree,
        store::{TreeReader, TreeStore},
    },
};
use proptest::prelude::*;

use crate::devices::{Commit, Device, everything, file, label, name, path};

#[derive(Clone, Debug)]
pub(crate) struct Step {
    device: usize,
    action: Action,
    /// What the action is done to: an index into whatever there is.
    which: usize,
    target: usize,
    called: usize,
    content: u64,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    MakeFile,
    MakeDirectory,
    Write,
    Delete,
    DeleteEntryOnly,
    Relocate,
    RelocateDirectory,
    SetMetadata,
    Resolve,
    Pull,
}

const NAMES: [&str; 5] = [
    "a",
    "b.txt",
    "c",
    "b (conflict 2026-11-23 device 1).txt",
    ".d",
];

pub(crate) fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    use Action::{
        Delete, DeleteEntryOnly, MakeDirectory, MakeFile, Pull, Relocate, RelocateDirectory,
        Resolve, SetMetadata, Write,
    };
    let action = prop_oneof![
        4 => Just(MakeFile),
        3 => Just(MakeDirectory),
        3 => Just(Write),
        1 => Just(Delete),
        1 => Just(DeleteEntryOnly),
        2 => Just(Relocate),
        4 => Just(RelocateDirectory),
        1 => Just(SetMetadata),
        1 => Just(Resolve),
        2 => Just(Pull),
    ];
    let step = (
        0..3_usize,
        action,
        0..64_usize,
        0..64_usize,
        0..NAMES.len(),
        0..4_u64,
    )
        .prop_map(|(device, action, which, target, called, content)| Step {
            device,
            action,
            which,
            target,
            called,
            content,
        });
    prop::collection::vec(step, 1..most)
}

fn pick<T: Clone>(from: &[T], which: usize) -> Option<T> {
    (!from.is_empty()).then(|| from[which % from.len()].clone())
}

/// Lets three devices act; all their commits in an order that respects causes.
pub(crate) fn play(steps: &[Step]) -> Vec<Rc<Commit>> {
    let mut devices = [Device::new(1), Device::new(2), Device::new(3)];
    for step in steps {
        act(&mut devices, step);
    }
    let [one, two, three] = &mut devices;
    crate::devices::meet(&mut [one, two, three]);
    one.known.clone()
}

fn act(devices: &mut [Device; 3], step: &Step) {
    if matches!(step.action, Action::Pull) {
        let other = (step.device + 1 + step.which % 2) % 3;
        let [device, other] = devices.get_disjoint_mut([step.device, other]).unwrap();
        device.pull(other);
        return;
    }
    let device = &mut devices[step.device];
    let fresh = device.fresh();
    let view = device.view();
    let entries: Vec<Entry> = everything(&device.tree).into_values().collect();
    let (inner, leaves): (Vec<Entry>, Vec<Entry>) =
        entries.iter().cloned().partition(Entry::is_directory);
    let mut directories = vec![NodeId::ROOT];
    directories.extend(inner.iter().map(|entry| entry.node));
    let parent = pick(&directories, step.target).unwrap();
    // Few names for directories, so that they often unite, at several levels.
    let called = match step.action {
        Action::MakeDirectory | Action::RelocateDirectory => name(NAMES[step.called % 2]),
        _ => name(NAMES[step.called]),
    };
    let operations = match step.action {
        Action::Pull => None,
        Action::MakeFile => {
            let node = NodeId::new(NodeKind::Leaf, fresh);
            Some(edit::create(parent, called, node, file(step.content), None))
        }
        Action::MakeDirectory => {
            let node = NodeId::new(NodeKind::Directory, fresh);
            Some(edit::create(
                parent,
                called,
                node,
                Value::Directory,
                Some(Metadata::default()),
            ))
        }
        Action::Write => {
            pick(&leaves, step.which).map(|entry| edit::write(&entry, file(step.content)))
        }
        Action::Delete => pick(&entries, step.which).map(|entry| view.delete_tree(&entry).unwrap()),
        Action::DeleteEntryOnly => pick(&entries, step.which).map(|entry| edit::delete(&entry)),
        Action::Relocate => {
            pick(&entries, step.which).map(|entry| edit::relocate(&entry, parent, &called, fresh))
        }
        Action::RelocateDirectory => {
            pick(&inner, step.which).map(|entry| edit::relocate(&entry, parent, &called, fresh))
        }
        Action::SetMetadata => pick(&entries, step.which).map(|entry| {
            let metadata = Metadata {
                executable: !entry.metadata.executable,
                ..entry.metadata
            };
            edit::set_metadata(&entry, metadata)
        }),
        Action::Resolve => pick(&leaves, step.which).map(|kept| {
            let rejected = entries.iter().filter(|entry| {
                !entry.is_directory() && entry.raw_name == kept.raw_name && **entry != kept
            });
            let rejected: Vec<Entry> = rejected.cloned().collect();
            edit::resolve(&kept, kept.value.clone(), &rejected)
        }),
    };
    if let Some(operations) = operations {
        device.commit(operations);
    }
}

fn replay<'a>(commits: impl IntoIterator<Item = &'a Rc<Commit>>) -> Tree<MemoryTree> {
    let mut tree = Tree::new(MemoryTree::new());
    for commit in commits {
        tree.apply(&commit.context, &commit.operations).unwrap();
    }
    tree
}

/// The operations whose values no operation has replaced.
fn standing(commits: &[Rc<Commit>]) -> BTreeSet<OpId> {
    let mut written = BTreeMap::new();
    let mut replaced = HashSet::new();
    for commit in commits {
        for (index, operation) in (0..).zip(&commit.operations) {
            if let Operation::Write {
                node,
                value,
                replaces,
            } = operation
            {
                let op = commit.context.stamp(index).op;
                if *value != Value::Deleted {
                    written.insert(op, *node);
                }
                replaced.extend(replaces.iter().map(|op| (*op, *node)));
            }
        }
    }
    written.retain(|op, node| !replaced.contains(&(*op, *node)));
    written.into_keys().collect()
}

/// What must hold of every tree, however it came to be.
fn check(tree: &Tree<MemoryTree>) {
    let view = tree.view(&label);
    let all = everything(tree);
    for (path, entry) in &all {
        assert_eq!(view.lookup(path).unwrap().as_ref(), Some(entry));
        assert!(view.entries_of(entry.node).unwrap().contains(entry));
        assert_eq!(entry.conflict, entry.name != entry.raw_name);
        if entry.is_directory() {
            for node in entry.nodes() {
                assert_eq!(view.path(node).unwrap().as_ref(), Some(path));
                assert_eq!(view.canonical(node).unwrap(), Some(entry.node));
            }
            let listing = view.listing(entry.node).unwrap().unwrap();
            let names: Vec<_> = listing.iter().map(|entry| entry.name.clone()).collect();
            assert!(names.is_sorted_by(|one, other| one < other), "{names:?}");
        } else {
            let shown = view.path(entry.node).unwrap().unwrap();
            assert!(all[&shown].nodes().any(|node| node == entry.node));
        }
        assert!(view.is_ancestor(NodeId::ROOT, entry.node).unwrap());
        for (other, inside) in &all {
            if entry.is_directory() {
                let ancestor = view.is_ancestor(entry.node, inside.node).unwrap();
                let same = entry.node == inside.node;
                assert!(
                    !ancestor || same || inside.node.kind() == NodeKind::Leaf || {
                        other.starts_with(path)
                    }
                );
                assert!(ancestor || !other.starts_with(path));
            }
        }
    }
    let mut paged = Vec::new();
    loop {
        let after = paged
            .last()
            .map(|(path, _): &(Vec<Name>, Entry)| path.clone());
        let page = view.page(after.as_deref(), 3).unwrap();
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    let mut walk = view.walk(NodeId::ROOT).unwrap();
    let mut walked = Vec::new();
    while let Some(found) = walk.step().unwrap() {
        walked.push(found);
    }
    assert_eq!(paged, walked);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    /// Order, repetition and grouping of deliveries don't matter; nothing that nobody replaced is out of sight.
    #[test]
    fn every_delivery_gives_the_same_tree(
        (steps, seeds) in (steps(60), prop::collection::vec(any::<u64>(), 4)),
    ) {
        let commits = play(&steps);
        let tree = replay(&commits);
        check(&tree);
        let all = everything(&tree);
        let shown: BTreeSet<OpId> = all
            .values()
            .flat_map(|entry| entry.register_ops.iter().flat_map(|part| part.shown.clone()))
            .collect();
        prop_assert_eq!(shown, standing(&commits));
        prop_assert_eq!(tree.store().replaced_early_count(), 0);

        for seed in seeds {
            let mut shuffled: Vec<_> = commits.iter().chain(commits.iter().step_by(3)).collect();
            let mut state = seed | 1;
            for at in (1..shuffled.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_041);
                shuffled.swap(at, usize::try_from(state >> 33).unwrap() % (at + 1));
            }
            let other = replay(shuffled);
            prop_assert_eq!(other.store(), tree.store());
            prop_assert_eq!(everything(&other), all.clone());
        }
    }

    /// On the way, whatever has arrived so far makes a sound tree, also without what came before.
    #[test]
    fn every_prefix_is_sound(steps in steps(40), backwards in any::<bool>()) {
        let mut commits = play(&steps);
        if backwards {
            commits.reverse();
        }
        let mut tree = Tree::new(MemoryTree::new());
        for commit in &commits {
            tree.apply(&commit.context, &commit.operations).unwrap();
            let paths = everything(&tree);
            for path in paths.keys().filter(|path| path.len() > 1) {
                prop_assert!(paths[&path[..path.len() - 1]].is_directory());
            }
        }
        check(&tree);
    }

    /// Operations that no honest device writes: the outcome still depends only on the set of commits.
    #[test]
    fn hostile_operations_converge(
        commits in prop::collection::vec(
            (prop::collection::vec(operation(), 1..5), 1..6_u64), 1..14),
        seed in any::<u64>(),
    ) {
        let mut devices = Vec::new();
        for (number, (operations, lamport)) in (1..).zip(commits) {
            let mut context = Device::new(number).commit(Vec::new()).context;
            context.lamport = ouisync_model::id::Lamport(lamport);
            devices.push(Rc::new(Commit { context, operations }));
        }
        let tree = replay(&devices);
        check(&tree);
        let mut shuffled: Vec<_> = devices.iter().collect();
        shuffled.sort_by_key(|commit| commit.context.commit.as_bytes()[usize::try_from(seed % 32).unwrap()]);
        let other = replay(shuffled);
        prop_assert_eq!(other.store(), tree.store());
    }
}

/// Operations on few nodes, of any kind and sense, naming each other's writes.
fn operation() -> impl Strategy<Value = Operation> {
    let node = (0..6_u8, any::<bool>()).prop_map(|(number, directory)| match number {
        0 => NodeId::ROOT,
        _ if directory => NodeId::new(NodeKind::Directory, [number; 16]),
        _ => NodeId::new(NodeKind::Leaf, [number; 16]),
    });
    let value = prop_oneof![
        1 => Just(Value::Deleted),
        2 => Just(Value::Directory),
        2 => (0..2_u64).prop_map(file),
        1 => Just(Value::Symlink(b"target".to_vec())),
    ];
    let ops = prop::collection::vec((1..15_u8, 0..5_u32), 0..3).prop_map(|ops| {
        let ops = ops.into_iter().map(|(number, index)| {
            let commit = Device::new(number).commit(Vec::new()).context.commit;
            OpId { commit, index }
        });
        ops.collect::<Vec<_>>()
    });
    prop_oneof![
        3 => (node.clone(), node.clone(), 0..2_usize).prop_map(|(node, parent, called)| {
            Operation::Place { node, parent, name: name(NAMES[called]) }
        }),
        3 => (node.clone(), value, ops)
            .prop_map(|(node, value, replaces)| Operation::Write { node, value, replaces }),
        1 => (node, any::<bool>()).prop_map(|(node, executable)| Operation::SetMetadata {
            node,
            change: MetadataChange { executable: Some(executable), modified: None },
        }),
    ]
}

#[test]
fn page_resumes_behind_what_has_gone() {
    let mut device = Device::new(1);
    device.make_directory("", "a");
    device.make_file("a", "x", 1);
    device.make_file("a", "y", 2);
    device.make_file("", "b", 3);
    device.delete("a/x");
    let page = device.view().page(Some(&path("a/x")), 10).unwrap();
    assert_eq!(
        page.iter().map(|(at, _)| at.clone()).collect::<Vec<_>>(),
        [path("a/y"), path("b")]
    );
    device.delete("a");
    let page = device.view().page(Some(&path("a/x")), 10).unwrap();
    assert_eq!(page.len(), 1);
    assert!(
        !device
            .tree
            .store()
            .is_applied(&Device::new(9).commit(Vec::new()).context.commit)
            .unwrap()
    );
    assert!(device.tree.store().node(NodeId::ROOT).unwrap().is_some());
}
