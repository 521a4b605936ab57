//! The rows of the merge table in `docs/format/tree.md`, each as a property: whichever device has the greater stamps, whatever else
//! happens, and whatever way the commits travel.

use ouisync_model::{
    id::NodeId,
    operation::{Metadata, Value},
    tree::{conflict::Conflict, edit, entry::Entry},
};
use proptest::prelude::*;

use crate::devices::{Device, file, meet, name as named};

/// How two devices come to a row: what stamps they have, what else is there.
#[derive(Clone, Copy, Debug)]
struct Setting {
    /// Commits that each makes before, so that either may have the greater stamp.
    lead: [u8; 2],
    /// Files beside, before and after.
    noise: u8,
    /// The first device's name sorts before or after.
    swapped: bool,
}

fn setting() -> impl Strategy<Value = Setting> {
    ([0..3_u8, 0..3_u8], 0..3_u8, any::<bool>()).prop_map(|(lead, noise, swapped)| Setting {
        lead,
        noise,
        swapped,
    })
}

/// Two devices with `a.txt` (content 0), `d/x` (1), `d/in/y` (2) and `e/z` (3).
fn begin(setting: Setting) -> [Device; 2] {
    let numbers = if setting.swapped { [2, 1] } else { [1, 2] };
    let [mut one, mut two] = numbers.map(Device::new);
    one.make_file("", "a.txt", 0);
    for directory in ["d", "e"] {
        one.make_directory("", directory);
    }
    one.make_directory("d", "in");
    one.make_file("d", "x", 1);
    one.make_file("d/in", "y", 2);
    one.make_file("e", "z", 3);
    two.pull(&one);
    for (device, lead) in [(&mut one, setting.lead[0]), (&mut two, setting.lead[1])] {
        for number in 0..lead {
            device.make_file("", &format!("lead {number}"), 50);
        }
    }
    [one, two]
}

/// What each does apart, then what both see.
fn apart(
    setting: Setting,
    first: impl FnOnce(&mut Device),
    second: impl FnOnce(&mut Device),
) -> [Device; 2] {
    let [mut one, mut two] = begin(setting);
    first(&mut one);
    second(&mut two);
    for number in 0..setting.noise {
        one.make_file("", &format!("noise {number}"), u64::from(number));
        two.make_file("", &format!("other noise {number}"), 60);
    }
    join([one, two])
}

fn join([mut one, mut two]: [Device; 2]) -> [Device; 2] {
    // By way of a third that hears the second first.
    let mut three = Device::new(3);
    three.pull(&two);
    three.pull(&one);
    meet(&mut [&mut three, &mut two, &mut one]);
    [one, two]
}

/// Contents and paths of all that was given this name anywhere in the root.
fn versions(device: &Device, name: &str) -> Vec<Value> {
    let view = device.view();
    let listing = view.listing(NodeId::ROOT).unwrap().unwrap();
    let found = listing
        .into_iter()
        .filter(|entry| entry.raw_name == named(name));
    let mut values: Vec<_> = found.map(|entry| entry.value).collect();
    values.sort_by_key(|value| format!("{value:?}"));
    values
}

fn sorted(mut values: Vec<Value>) -> Vec<Value> {
    values.sort_by_key(|value| format!("{value:?}"));
    values
}

fn conflict(device: &Device, at: &str) -> Conflict {
    let node = device.at(at).node;
    device
        .view()
        .conflict_of(node)
        .unwrap()
        .expect("a conflict")
}

/// Both wrote `a.txt`, contents 1 and 2.
fn in_conflict(setting: Setting) -> [Device; 2] {
    apart(
        setting,
        |one| one.write("a.txt", 1),
        |two| two.write("a.txt", 2),
    )
}

fn version(conflict: &Conflict, content: u64) -> &Entry {
    let mut leaves = conflict.leaves();
    leaves
        .find(|leaf| leaf.value == file(content))
        .expect("the version")
}

fn keep(device: &mut Device, content: u64) {
    let conflict = conflict(device, "a.txt");
    let kept = version(&conflict, content);
    let rejected: Vec<_> = conflict
        .leaves()
        .filter(|leaf| *leaf != kept)
        .cloned()
        .collect();
    device.commit(edit::resolve(kept, kept.value.clone(), &rejected));
}

/// Makes an ordinary file of the copy of `a.txt`, as somebody who renames it in a directory.
fn rename_copy(device: &mut Device, name: &str) {
    let found = conflict(device, "a.txt");
    let copy = found.entries[1].clone();
    let moves = edit::relocate(&copy, NodeId::ROOT, &named(name), device.fresh());
    device.commit(found.part(&[copy], moves, &[]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn edit_meets_delete(setting in setting()) {
        let [one, _] = apart(setting, |one| one.write("a.txt", 9), |two| two.delete("a.txt"));
        prop_assert_eq!(versions(&one, "a.txt"), [file(9)]);
    }

    #[test]
    fn rename_meets_edit(setting in setting()) {
        let [one, _] = apart(setting, |one| one.relocate("a.txt", "d", "b.txt"), |two| two.write("a.txt", 9));
        prop_assert_eq!(one.at("d/b.txt").value, file(9));
        prop_assert!(one.find("a.txt").is_none());
    }

    #[test]
    fn rename_meets_delete(setting in setting()) {
        let [one, _] = apart(setting, |one| one.relocate("a.txt", "", "b.txt"), |two| two.delete("a.txt"));
        prop_assert!(one.find("a.txt").is_none() && one.find("b.txt").is_none());
    }

    #[test]
    fn move_of_a_directory_meets_what_happens_inside(setting in setting()) {
        let [one, _] = apart(
            setting,
            |one| one.relocate("d", "e", "moved"),
            |two| {
                two.make_file("d", "new", 9);
                two.write("d/x", 8);
                two.relocate("d/in/y", "d", "out");
                two.relocate("a.txt", "d/in", "a.txt");
            },
        );
        prop_assert_eq!(one.names("e/moved"), ["in", "new", "out", "x"]);
        prop_assert_eq!(one.names("e/moved/in"), ["a.txt"]);
        prop_assert_eq!(one.at("e/moved/x").value, file(8));
        prop_assert!(one.find("d").is_none());
    }

    #[test]
    fn deletion_of_a_directory_meets_something_new_inside(setting in setting(), moved in any::<bool>()) {
        let [one, _] = apart(setting, |one| one.delete("d"), |two| {
            if moved {
                two.relocate("a.txt", "d/in", "n");
            } else {
                two.make_file("d/in", "n", 9);
            }
        });
        prop_assert_eq!(one.names("d"), ["in"]);
        prop_assert_eq!(one.names("d/in"), ["n"]);
    }

    #[test]
    fn moves_into_one_another(setting in setting()) {
        let [one, _] = apart(setting, |one| one.relocate("d", "e", "d"), |two| two.relocate("e", "d", "e"));
        let inner = [one.find("d/e/z"), one.find("e/d/x")];
        prop_assert_eq!(inner.iter().flatten().count(), 1, "one of the moves holds, and nothing is lost");
        prop_assert_eq!(one.view().counts().unwrap().directories, 3);
    }

    #[test]
    fn moves_to_two_places(setting in setting()) {
        let [one, _] = apart(setting, |one| one.relocate("a.txt", "d", "b"), |two| two.relocate("a.txt", "e", "c"));
        prop_assert_eq!([one.find("d/b"), one.find("e/c")].iter().flatten().count(), 1);
        prop_assert!(one.find("a.txt").is_none());
    }

    #[test]
    fn different_edits_stand_side_by_side(setting in setting()) {
        let [one, _] = in_conflict(setting);
        prop_assert_eq!(versions(&one, "a.txt"), sorted(vec![file(1), file(2)]));
    }

    #[test]
    fn equal_edits_are_one(setting in setting()) {
        let [one, _] = apart(setting, |one| one.write("a.txt", 9), |two| two.write("a.txt", 9));
        prop_assert_eq!(versions(&one, "a.txt"), [file(9)]);
    }

    #[test]
    fn new_files_of_one_name(setting in setting(), equal in any::<bool>()) {
        let other = if equal { 8 } else { 9 };
        let [mut one, two] = apart(
            setting,
            |one| { one.make_file("", "new", 8); },
            |two| { two.make_file("", "new", other); },
        );
        let expected = if equal { vec![file(8)] } else { vec![file(8), file(9)] };
        prop_assert_eq!(versions(&one, "new"), sorted(expected));
        if equal {
            one.write("new", 7);
            let [one, _] = join([one, two]);
            prop_assert_eq!(versions(&one, "new"), [file(7)]);
        }
    }

    #[test]
    fn new_directories_of_one_name_are_one(setting in setting()) {
        let [one, _] = apart(
            setting,
            |one| {
                one.make_directory("", "new");
                one.make_directory("new", "deep");
                one.make_file("new/deep", "1", 1);
            },
            |two| {
                two.make_directory("", "new");
                two.make_directory("new", "deep");
                two.make_file("new/deep", "2", 2);
            },
        );
        prop_assert_eq!(one.names("new"), ["deep"]);
        prop_assert_eq!(one.names("new/deep"), ["1", "2"]);
    }

    #[test]
    fn a_file_meets_a_directory(setting in setting()) {
        let [one, _] = apart(
            setting,
            |one| { one.make_file("", "new", 8); },
            |two| {
                two.make_directory("", "new");
                two.make_file("new", "inside", 9);
            },
        );
        prop_assert_eq!(one.names("new"), ["inside"]);
        prop_assert_eq!(versions(&one, "new"), sorted(vec![file(8), Value::Directory]));
    }

    /// The right to execute, the time and the content are apart.
    #[test]
    fn metadata_merges(setting in setting()) {
        let time = ouisync_model::id::Timestamp { seconds: 5, nanoseconds: 6 };
        let [one, _] = apart(
            setting,
            |one| {
                let entry = one.at("a.txt");
                let metadata = Metadata { executable: true, ..entry.metadata };
                one.commit(edit::set_metadata(&entry, metadata));
            },
            |two| {
                two.write("a.txt", 9);
                let entry = two.at("a.txt");
                let metadata = Metadata { modified: time, ..entry.metadata };
                two.commit(edit::set_metadata(&entry, metadata));
            },
        );
        prop_assert_eq!(one.at("a.txt").metadata, Metadata { executable: true, modified: time });
        prop_assert_eq!(versions(&one, "a.txt"), [file(9)]);
    }

    #[test]
    fn decisions(setting in setting(), same in any::<bool>()) {
        let [mut one, mut two] = in_conflict(setting);
        keep(&mut one, 1);
        keep(&mut two, if same { 1 } else { 2 });
        let [mut one, two] = join([one, two]);
        let expected = if same { vec![file(1)] } else { vec![file(1), file(2)] };
        prop_assert_eq!(versions(&one, "a.txt"), sorted(expected));
        if !same {
            keep(&mut one, 2);
            let [_, two] = join([one, two]);
            prop_assert_eq!(versions(&two, "a.txt"), [file(2)]);
        }
    }

    #[test]
    fn decision_meets_edit(setting in setting()) {
        let [mut one, mut two] = in_conflict(setting);
        keep(&mut one, 1);
        let rejected = version(&conflict(&two, "a.txt"), 2).clone();
        two.commit(edit::write(&rejected, file(9)));
        let [one, _] = join([one, two]);
        prop_assert_eq!(versions(&one, "a.txt"), sorted(vec![file(1), file(9)]));
    }

    /// Each deletes the side that the other keeps.
    #[test]
    fn opposite_deletions(setting in setting()) {
        let [mut one, mut two] = in_conflict(setting);
        for (device, gone) in [(&mut one, 1), (&mut two, 2)] {
            let conflict = conflict(device, "a.txt");
            let gone = version(&conflict, gone).clone();
            device.commit(conflict.reject(&[gone]));
            prop_assert!(versions(device, "a.txt").len() == 1);
        }
        let [mut one, two] = join([one, two]);
        prop_assert_eq!(versions(&one, "a.txt"), sorted(vec![file(1), file(2)]));
        // Both deleted by one.
        let conflict = conflict(&one, "a.txt");
        let all: Vec<_> = conflict.leaves().cloned().collect();
        one.commit(conflict.reject(&all));
        let [_, two] = join([one, two]);
        prop_assert_eq!(versions(&two, "a.txt"), []);
    }

    /// One makes two files of the versions; the other keeps one.
    #[test]
    fn keeping_both(setting in setting(), alone in any::<bool>(), kept in 1..3_u64) {
        let [mut one, mut two] = in_conflict(setting);
        let conflict = conflict(&one, "a.txt");
        let copy = conflict.entries[1].clone();
        let fresh = one.fresh();
        one.commit(conflict.separate(|| Ok::<_, ()>(fresh)).unwrap());
        if !alone {
            keep(&mut two, kept);
        }
        let [one, _] = join([one, two]);
        let apart = one.view().lookup(&[copy.name]).unwrap().unwrap();
        prop_assert_eq!(&apart.value, &copy.value);
        prop_assert!(!apart.conflict);
        let first = &conflict.entries[0].value;
        let mut expected = vec![first.clone()];
        if !alone && file(kept) != *first {
            expected.push(file(kept));
        }
        prop_assert_eq!(versions(&one, "a.txt"), sorted(expected));
    }

    /// The copy is renamed, while the other device keeps one side, or renames the copy otherwise.
    #[test]
    fn a_copy_is_renamed(setting in setting(), kept in 0..4_u64) {
        let [mut one, mut two] = in_conflict(setting);
        let found = conflict(&one, "a.txt");
        let (first, copy) = (found.entries[0].value.clone(), found.entries[1].value.clone());
        rename_copy(&mut one, "mine.txt");
        match kept {
            0 => {}
            3 => rename_copy(&mut two, "other.txt"),
            kept => keep(&mut two, kept),
        }
        let [one, _] = join([one, two]);
        prop_assert_eq!(&one.at("mine.txt").value, &copy);
        let mut expected = vec![first.clone()];
        if [1, 2].contains(&kept) && file(kept) != first {
            expected.push(file(kept));
        }
        prop_assert_eq!(versions(&one, "a.txt"), sorted(expected));
        prop_assert!(kept != 3 || one.at("other.txt").value == copy);
    }
}
