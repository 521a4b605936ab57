//! Each merge rule by example.

use ouisync_model::{
    id::{NodeId, NodeKind},
    operation::{FileContent, FileData, Metadata, Operation, Value},
    tree::{IgnoredReason, edit},
};

use crate::devices::{Device, file, label, meet, name, path};

fn pair() -> (Device, Device) {
    (Device::new(1), Device::new(2))
}

/// Two devices that both have the file `a.txt` with content 0.
fn pair_with_file() -> (Device, Device) {
    let (mut one, mut two) = pair();
    one.make_file("", "a.txt", 0);
    two.pull(&one);
    (one, two)
}

/// Both devices wrote `a.txt`: contents 1 and 2.
fn pair_in_conflict() -> (Device, Device) {
    let (mut one, mut two) = pair_with_file();
    one.write("a.txt", 1);
    two.write("a.txt", 2);
    meet(&mut [&mut one, &mut two]);
    (one, two)
}

fn contents(device: &Device) -> Vec<Value> {
    let listing = device.view().listing(NodeId::ROOT).unwrap().unwrap();
    listing.into_iter().map(|entry| entry.value).collect()
}

#[test]
fn rename_and_edit_merge() {
    let (mut one, mut two) = pair_with_file();
    one.relocate("a.txt", "", "b.txt");
    two.write("a.txt", 1);
    meet(&mut [&mut one, &mut two]);
    assert_eq!(one.names(""), ["b.txt"]);
    assert_eq!(one.at("b.txt").value, file(1));
}

#[test]
fn edit_beats_delete() {
    let (mut one, mut two) = pair_with_file();
    one.write("a.txt", 1);
    two.delete("a.txt");
    meet(&mut [&mut one, &mut two]);
    assert_eq!(one.at("a.txt").value, file(1));
    one.delete("a.txt");
    meet(&mut [&mut one, &mut two]);
    assert_eq!(two.names(""), [""; 0]);
}

#[test]
fn a_move_brings_nothing_back() {
    let (mut one, mut two) = pair_with_file();
    one.relocate("a.txt", "", "b.txt");
    two.delete("a.txt");
    meet(&mut [&mut one, &mut two]);
    assert_eq!(
        one.names(""),
        [""; 0],
        "a move does not bring back what another deleted"
    );
}

#[test]
fn two_edits_are_shown_side_by_side() {
    let (one, _) = pair_in_conflict();
    let names = one.names("");
    assert_eq!(names.len(), 2);
    let conflict = names.iter().find(|name| *name != "a.txt").unwrap();
    let loser = one.at(conflict);
    let keeper = one.at("a.txt");
    assert_eq!(
        *conflict,
        format!(
            "a (conflict 2026-11-23 {}).txt",
            label(&loser.author.unwrap())
        )
    );
    assert!(loser.conflict && !keeper.conflict);
    assert_eq!(loser.node, keeper.node);
    assert_ne!(loser.op, keeper.op);
    assert!(loser.register_ops[0].shared);
}

#[test]
fn editing_a_conflict_entry_leaves_the_other() {
    let (mut one, mut two) = pair_in_conflict();
    let conflict = one
        .names("")
        .into_iter()
        .find(|name| name != "a.txt")
        .unwrap();
    let other = one.at("a.txt").value;
    one.write(&conflict, 9);
    meet(&mut [&mut one, &mut two]);
    let mut found = contents(&two);
    found.sort_by_key(|value| *value == file(9));
    assert_eq!(found, [other, file(9)]);
}

#[test]
fn deleting_a_conflict_entry_takes_only_it() {
    let (mut one, mut two) = pair_in_conflict();
    let kept = one.at("a.txt").value;
    let conflict = one
        .names("")
        .into_iter()
        .find(|name| name != "a.txt")
        .unwrap();
    one.delete(&conflict);
    meet(&mut [&mut one, &mut two]);
    assert_eq!(two.names(""), ["a.txt"]);
    assert_eq!(two.at("a.txt").value, kept);

    let (mut one, mut two) = pair_in_conflict();
    let conflict = one
        .names("")
        .into_iter()
        .find(|name| name != "a.txt")
        .unwrap();
    let kept = one.at(&conflict).value;
    two.delete("a.txt");
    meet(&mut [&mut one, &mut two]);
    assert_eq!(
        one.names(""),
        ["a.txt"],
        "the other value takes the name over"
    );
    assert_eq!(one.at("a.txt").value, kept);
}

#[test]
fn resolving_settles_everywhere_and_cleans_the_register() {
    let (mut one, mut two) = pair_in_conflict();
    let listing = one.view().listing(NodeId::ROOT).unwrap().unwrap();
    one.commit(edit::resolve(&listing[0], file(7), &listing[1..]));
    meet(&mut [&mut one, &mut two]);
    assert_eq!(two.names(""), ["a.txt"]);
    let entry = two.at("a.txt");
    assert_eq!(entry.value, file(7));
    assert_eq!(entry.register_ops[0].replaces().len(), 1);
}

#[test]
fn opposite_resolutions_lose_neither_choice() {
    let (mut one, mut two) = pair_in_conflict();
    let listing = one.view().listing(NodeId::ROOT).unwrap().unwrap();
    let [first, second] = listing.as_slice() else {
        panic!()
    };
    one.commit(edit::resolve(
        first,
        first.value.clone(),
        std::slice::from_ref(second),
    ));
    two.commit(edit::resolve(
        second,
        second.value.clone(),
        std::slice::from_ref(first),
    ));
    meet(&mut [&mut one, &mut two]);
    assert_eq!(one.names("").len(), 2);
    let chosen = contents(&one);
    assert!(chosen.contains(&first.value) && chosen.contains(&second.value));
}

#[test]
fn equal_edits_are_no_conflict() {
    let (mut one, mut two) = pair_with_file();
    one.write("a.txt", 5);
    two.write("a.txt", 5);
    meet(&mut [&mut one, &mut two]);
    assert_eq!(one.names(""), ["a.txt"]);
    assert_eq!(one.at("a.txt").register_ops[0].shown.len(), 2);
    one.write("a.txt", 6);
    assert_eq!(one.at("a.txt").register_ops[0].shown.len(), 1);
}

#[test]
fn equal_files_of_one_name_are_one() {
    let (mut one, mut two) = pair();
    let first = one.make_file("", "a", 1);
    let second = two.make_file("", "a", 1);
    meet(&mut [&mut one, &mut two]);
    assert_eq!(one.names(""), ["a"]);
    let entry = one.at("a");
    assert_eq!(entry.node, first.min(second));
    assert_eq!(entry.aliases, [first.max(second)]);

    one.write("a", 2);
    meet(&mut [&mut one, &mut two]);
    assert_eq!(two.names(""), ["a"]);
    assert_eq!((two.at("a").aliases.len(), two.at("a").value), (0, file(2)));
}

#[test]
fn equal_files_move_and_go_together() {
    let (mut one, mut two) = pair();
    one.make_file("", "a", 1);
    two.make_file("", "a", 1);
    meet(&mut [&mut one, &mut two]);
    one.relocate("a", "", "b");
    meet(&mut [&mut one, &mut two]);
    assert_eq!(two.names(""), ["b"]);
    two.delete("b");
    meet(&mut [&mut one, &mut two]);
    assert_eq!(one.names(""), [""; 0]);
}

#[test]
fn an_edit_of_one_twin_parts_them() {
    let (mut one, mut two) = pair();
    one.make_file("", "a", 1);
    two.make_file("", "a", 1);
    two.write("a", 2);
    meet(&mut [&mut one, &mut two]);
    let mut found = contents(&one);
    found.sort_by_key(|value| *value == file(2));
    assert_eq!(found, [file(1), file(2)]);
}

#[test]
fn inline_and_packed_bytes_are_equal() {
    let (mut one, mut two) = pair();
    one.make_file("", "a", 1);
    let Value::File(FileContent {
        data: FileData::Chunks(chunks),
        ..
    }) = file(1)
    else {
        panic!()
    };
    let data = FileData::Inline(chunks[0].chunk, vec![0; 10]);
    let inline = Value::File(FileContent {
        size: 10,
        level: 3,
        data,
    });
    let node = NodeId::new(NodeKind::Leaf, two.fresh());
    two.commit(edit::create(NodeId::ROOT, name("a"), node, inline, None));
    meet(&mut [&mut one, &mut two]);
    assert_eq!(one.names(""), ["a"]);
}

#[test]
fn different_files_of_one_name_both_stay() {
    let (mut one, mut two) = pair();
    one.make_file("", "a.tar.gz", 1);
    two.make_file("", "a.tar.gz", 2);
    meet(&mut [&mut one, &mut two]);
    let names = one.names("");
    assert_eq!(names.len(), 2);
    assert!(
        names[0].starts_with("a.tar (conflict 2026-11-23 device "),
        "{names:?}"
    );
    // A conflict between nodes: renaming the entry renames its node, and leaves nothing to settle.
    one.relocate(&names[0], "", "other");
    meet(&mut [&mut one, &mut two]);
    assert_eq!(two.names(""), ["a.tar.gz", "other"]);
}

#[test]
fn a_conflict_entry_moves_as_a_leaf_of_its_own() {
    let (mut one, mut two) = pair_in_conflict();
    let conflict = one
        .names("")
        .into_iter()
        .find(|name| name != "a.txt")
        .unwrap();
    let (kept, moved) = (one.at("a.txt"), one.at(&conflict));
    one.relocate(&conflict, "", "mine.txt");
    meet(&mut [&mut one, &mut two]);
    assert_eq!(two.names(""), ["a.txt", "mine.txt"]);
    assert_eq!(two.at("a.txt").value, kept.value);
    assert_eq!(two.at("mine.txt").value, moved.value);
    assert_ne!(two.at("mine.txt").node, kept.node);
}

#[test]
fn the_keeper_of_the_name_moves_with_all_values() {
    let (mut one, mut two) = pair_in_conflict();
    one.relocate("a.txt", "", "b.txt");
    meet(&mut [&mut one, &mut two]);
    assert!(
        two.names("").iter().all(|name| name.starts_with('b')),
        "{:?}",
        two.names("")
    );
    assert_eq!(two.names("").len(), 2);
}

#[test]
fn a_directory_keeps_its_name_before_a_file() {
    let (mut one, mut two) = pair();
    one.make_directory("", "a");
    two.make_file("", "a", 1);
    two.make_file("", "b", 1);
    two.write("b", 2);
    meet(&mut [&mut one, &mut two]);
    assert_eq!(
        one.names(""),
        ["a", "a (conflict 2026-11-23 device 2)", "b"]
    );
    assert!(one.at("a").is_directory());
}

#[test]
fn derived_names_avoid_what_is_there() {
    let (mut one, mut two) = pair();
    one.make_directory("", "a");
    one.make_file("", "a (conflict 2026-11-23 device 2)", 3);
    two.make_file("", "a", 1);
    meet(&mut [&mut one, &mut two]);
    let names = one.names("");
    assert_eq!(names.len(), 3);
    assert_eq!(one.at("a (conflict 2026-11-23 device 2)").value, file(3));
    let tagged = names.iter().find(|name| name.len() > 35).unwrap();
    assert_eq!(one.at(tagged).value, file(1));
}

#[test]
fn directories_of_one_name_are_one() {
    let (mut one, mut two) = pair();
    let first = one.make_directory("", "d");
    one.make_file("d", "x", 1);
    one.make_directory("d", "inner");
    one.make_file("d/inner", "deep", 1);
    let second = two.make_directory("", "d");
    two.make_file("d", "y", 2);
    two.make_directory("d", "inner");
    two.make_file("d/inner", "deeper", 2);
    meet(&mut [&mut one, &mut two]);
    assert_eq!(one.names("d"), ["inner", "x", "y"]);
    assert_eq!(one.names("d/inner"), ["deep", "deeper"]);
    assert_eq!(one.at("d").node, first.min(second));
    assert_eq!(one.view().path(first.max(second)).unwrap(), Some(path("d")));

    one.relocate("d", "", "e");
    meet(&mut [&mut one, &mut two]);
    assert_eq!(two.names("e/inner"), ["deep", "deeper"]);
    two.delete("e");
    meet(&mut [&mut one, &mut two]);
    assert_eq!(one.names(""), [""; 0]);
}

#[test]
fn something_new_inside_keeps_a_deleted_directory() {
    let (mut one, mut two) = pair();
    one.make_directory("", "d");
    one.make_directory("d", "inner");
    one.make_file("d/inner", "old", 1);
    two.pull(&one);
    one.delete("d");
    two.make_file("d/inner", "new", 2);
    meet(&mut [&mut one, &mut two]);
    assert_eq!(one.names("d/inner"), ["new"]);
    assert_eq!(one.at("d").op, None);
    one.delete("d/inner/new");
    meet(&mut [&mut one, &mut two]);
    assert_eq!(
        two.names(""),
        [""; 0],
        "nothing holds the deleted directories any more"
    );
}

#[test]
fn a_file_moved_into_a_deleted_directory_stays() {
    let (mut one, mut two) = pair_with_file();
    one.make_directory("", "d");
    two.pull(&one);
    one.delete("d");
    two.relocate("a.txt", "d", "a.txt");
    meet(&mut [&mut one, &mut two]);
    assert_eq!(one.names(""), ["d"]);
    assert_eq!(one.names("d"), ["a.txt"]);
}

#[test]
fn opposite_moves_of_directories_make_no_cycle() {
    let (mut one, mut two) = pair();
    one.make_directory("", "a");
    one.make_directory("", "b");
    one.make_file("a", "x", 1);
    one.make_file("b", "y", 2);
    two.pull(&one);
    one.relocate("a", "b", "a");
    two.relocate("b", "a", "b");
    meet(&mut [&mut one, &mut two]);
    assert_eq!(one.names("").len(), 1);
    let counts = one.view().counts().unwrap();
    assert_eq!((counts.directories, counts.files), (2, 2));
}

#[test]
fn a_late_move_is_sorted_in() {
    // Three devices: a into b, b into c, c into a; whatever arrives last, one of them has no effect.
    for order in 0..3 {
        let mut devices = [Device::new(1), Device::new(2), Device::new(3)];
        for called in ["a", "b", "c"] {
            devices[0].make_directory("", called);
        }
        let [one, two, three] = &mut devices;
        two.pull(one);
        three.pull(one);
        one.relocate("a", "b", "a");
        two.relocate("b", "c", "b");
        three.relocate("c", "a", "c");
        let mut order: Vec<_> = {
            let mut devices = vec![one, two, three];
            devices.rotate_left(order);
            devices
        };
        meet(&mut order);
        assert_eq!(order[0].view().counts().unwrap().directories, 3);
        assert_eq!(order[0].names("").len(), 1);
    }
}

#[test]
fn moves_to_two_places_have_one_winner() {
    let (mut one, mut two) = pair_with_file();
    one.make_directory("", "d");
    two.make_directory("", "e");
    one.relocate("a.txt", "d", "a.txt");
    two.relocate("a.txt", "e", "a.txt");
    meet(&mut [&mut one, &mut two]);
    assert_eq!(one.view().counts().unwrap().files, 1);
    assert_eq!(one.names(""), ["d", "e"]);
}

#[test]
fn metadata_is_apart_from_content() {
    let (mut one, mut two) = pair_with_file();
    let executable = Metadata {
        executable: true,
        ..Metadata::default()
    };
    one.commit(edit::set_metadata(&one.at("a.txt"), executable));
    two.write("a.txt", 1);
    meet(&mut [&mut one, &mut two]);
    assert!(two.at("a.txt").metadata.executable);
    assert_eq!(two.at("a.txt").value, file(1));
    assert_eq!(two.names("").len(), 1);
}

#[test]
fn a_replaced_value_that_arrives_late_stays_away() {
    let (mut one, mut two) = pair_with_file();
    let late = one.known[0].clone();
    one.write("a.txt", 1);
    let mut three = Device::new(3);
    three.receive(&one.known[1]);
    assert_eq!(three.tree.store().replaced_early_count(), 1);
    assert_eq!(three.names(""), [""; 0], "content without a place");
    three.receive(&late);
    assert_eq!(three.tree.store().replaced_early_count(), 0);
    meet(&mut [&mut one, &mut two, &mut three]);
    assert_eq!(three.at("a.txt").value, file(1));
    assert_eq!(three.names(""), ["a.txt"]);
}

#[test]
fn what_is_placed_in_an_unknown_directory_waits() {
    let mut one = Device::new(1);
    one.make_directory("", "d");
    one.make_file("d", "x", 1);
    let mut two = Device::new(2);
    two.receive(&one.known[1]);
    assert_eq!(two.names(""), [""; 0]);
    two.receive(&one.known[0]);
    assert_eq!(two.names("d"), ["x"]);
    two.check_mirror();
}

#[test]
fn an_applied_commit_changes_nothing() {
    let (mut one, _) = pair_with_file();
    one.write("a.txt", 1);
    let before = one.tree.store().clone();
    for commit in one.known.clone() {
        assert!(
            one.tree
                .apply(&commit.context, &commit.operations)
                .unwrap()
                .is_empty()
        );
    }
    assert_eq!(*one.tree.store(), before);
}

#[test]
fn senseless_operations_are_ignored_and_reported() {
    let mut one = Device::new(1);
    let leaf = one.make_file("", "a", 1);
    let directory = one.make_directory("", "d");
    let before = crate::devices::everything(&one.tree);
    let operations = [
        Operation::Place {
            node: NodeId::ROOT,
            parent: directory,
            name: name("r"),
        },
        Operation::Write {
            node: NodeId::ROOT,
            value: Value::Deleted,
            replaces: Vec::new(),
        },
        Operation::SetMetadata {
            node: NodeId::ROOT,
            change: Metadata::default().into(),
        },
        Operation::Write {
            node: leaf,
            value: Value::Directory,
            replaces: Vec::new(),
        },
        Operation::Write {
            node: directory,
            value: file(1),
            replaces: Vec::new(),
        },
        Operation::Place {
            node: directory,
            parent: leaf,
            name: name("x"),
        },
        Operation::Place {
            node: directory,
            parent: directory,
            name: name("x"),
        },
    ];
    let context = Device::new(2).commit(Vec::new()).context;
    let changes = one.tree.apply(&context, &operations).unwrap();
    let reasons: Vec<_> = changes
        .ignored
        .iter()
        .map(|ignored| ignored.reason)
        .collect();
    use IgnoredReason::{ParentIsLeaf, Root, WrongKind};
    assert_eq!(
        reasons,
        [Root, Root, Root, WrongKind, WrongKind, ParentIsLeaf]
    );
    assert_eq!(crate::devices::everything(&one.tree), before);
    assert_eq!(one.view().entries_of(leaf).unwrap().len(), 1);
}

#[test]
fn states_survive_serialisation() {
    let (one, _) = pair_in_conflict();
    for (_, state) in one.tree.store().nodes() {
        let bytes = postcard::to_allocvec(state).unwrap();
        assert_eq!(
            postcard::from_bytes::<ouisync_model::tree::state::NodeState>(&bytes).unwrap(),
            *state
        );
    }
}

#[test]
fn a_move_unites_and_parts_what_is_inside() {
    let (mut one, mut two) = pair();
    for top in ["d", "e"] {
        one.make_directory("", top);
        one.make_directory(top, "inner");
        one.make_file(&format!("{top}/inner"), top, 1);
    }
    two.pull(&one);
    two.check_mirror();
    // The user interface would refuse it; two devices that rename at the same time do just this.
    one.relocate("e", "", "d");
    meet(&mut [&mut one, &mut two]);
    assert_eq!(two.names("d/inner"), ["d", "e"]);
    let node = one.at("d").aliases[0];
    one.commit(vec![Operation::Place {
        node,
        parent: NodeId::ROOT,
        name: name("f"),
    }]);
    meet(&mut [&mut one, &mut two]);
    assert_eq!(
        (two.names("d/inner").len(), two.names("f/inner").len()),
        (1, 1)
    );
}
