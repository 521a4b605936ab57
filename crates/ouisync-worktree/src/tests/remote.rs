//! What others did comes to the disk, and nothing that is not recorded is lost.

use super::*;

#[test]
fn everything_travels() {
    let (one, other) = pair();
    one.write("a", "one");
    one.write("d/e/f", "two");
    fs::create_dir(one.path("empty")).unwrap();
    symlink("../../outside", one.path("d/link")).unwrap();
    one.write("large", vec![7; 300_000]);
    one.write("nothing", "");
    sync(&one, &other);
    other.write("a", "edited");
    fs::remove_file(other.path("d/link")).unwrap();
    fs::rename(other.path("d/e"), other.path("moved")).unwrap();
    fs::remove_dir_all(other.path("empty")).unwrap();
    sync(&one, &other);
    assert_eq!(one.read("a"), "edited");
    assert_eq!(one.read("moved/f"), "two");
    assert!(!one.exists("empty"));
}

#[test]
fn moves_are_applied_as_moves() {
    let (one, other) = pair();
    for index in 0..20 {
        one.write(&format!("x/y/{index}"), format!("{index}"));
    }
    one.write("a", "a");
    one.write("b", "b");
    sync(&one, &other);
    let inode = |name: &str| fs::symlink_metadata(other.path(name)).unwrap().ino();
    let before = (inode("x/y"), inode("x/y/3"), inode("a"), inode("b"));
    let read = other.fake.bytes_read();
    fs::create_dir_all(one.path("new/deep")).unwrap();
    fs::rename(one.path("x/y"), one.path("new/deep/z")).unwrap();
    fs::rename(one.path("a"), one.path("t")).unwrap();
    fs::rename(one.path("b"), one.path("a")).unwrap();
    fs::rename(one.path("t"), one.path("b")).unwrap();
    sync(&one, &other);
    assert_eq!(
        before,
        (
            inode("new/deep/z"),
            inode("new/deep/z/3"),
            inode("b"),
            inode("a")
        )
    );
    assert_eq!(other.fake.bytes_read(), read);
    // Parent and child change places.
    fs::rename(one.path("new/deep"), one.path("deep")).unwrap();
    fs::rename(one.path("new"), one.path("deep/new")).unwrap();
    sync(&one, &other);
    assert_eq!(before.1, inode("deep/z/3"));
}

#[test]
fn concurrent_edits_become_a_conflict() {
    let (one, other) = pair();
    one.write("a.txt", "base");
    sync(&one, &other);
    one.write("a.txt", "of one");
    other.write("a.txt", "of other");
    sync(&one, &other);
    let contents: Vec<_> = one
        .disk()
        .into_values()
        .flatten()
        .map(|bytes| String::from_utf8(bytes).unwrap())
        .collect();
    assert_eq!(contents.len(), 2);
    assert!(contents.contains(&"of one".to_owned()) && contents.contains(&"of other".to_owned()));
    // Deleting one of them settles it.
    let conflict = one
        .disk()
        .into_keys()
        .find(|name| name.contains("conflict"))
        .unwrap();
    fs::remove_file(one.path(&conflict[1..])).unwrap();
    sync(&one, &other);
    assert_eq!(one.disk().len(), 1);
    // A conflicting copy that gets a name of its own.
    one.write("a.txt", "again one");
    other.write("a.txt", "again other");
    sync(&one, &other);
    let conflict = one
        .disk()
        .into_keys()
        .find(|name| name.contains("conflict"))
        .unwrap();
    fs::rename(one.path(&conflict[1..]), one.path("mine.txt")).unwrap();
    sync(&one, &other);
    assert_eq!(one.disk().len(), 2);
    assert!(other.exists("mine.txt"));
}

/// Names in conflict.
fn conflicts(device: &Device) -> Vec<String> {
    let listing = device.fake.view().list(ouisync_model::id::NodeId::ROOT);
    let entries = listing.unwrap().into_iter();
    let holders = entries.filter(|entry| entry.contested && !entry.conflict);
    holders.map(|entry| entry.name.to_string()).collect()
}

/// Two devices in conflict about `a.txt`, and the name of the copy.
fn conflicting() -> (Device, Device, String) {
    let (one, other) = pair();
    one.write("a.txt", "base");
    sync(&one, &other);
    one.write("a.txt", "of one");
    other.write("a.txt", "of other");
    sync(&one, &other);
    assert_eq!(conflicts(&one), ["a.txt"]);
    let copy = one
        .disk()
        .into_keys()
        .find(|name| name.contains("conflict"));
    let copy = copy.unwrap()[1..].to_owned();
    (one, other, copy)
}

#[test]
fn deleting_different_sides_of_a_conflict_deletes_neither() {
    let (one, other, copy) = conflicting();
    let both = one.disk();
    fs::remove_file(one.path(&copy)).unwrap();
    fs::remove_file(other.path("a.txt")).unwrap();
    sync(&one, &other);
    assert_eq!(conflicts(&one), ["a.txt"]);
    let contents = |disk: BTreeMap<String, Option<Vec<u8>>>| {
        let mut contents: Vec<_> = disk.into_values().collect();
        contents.sort();
        contents
    };
    assert_eq!(contents(one.disk()), contents(both));
    // The same choice on both is one.
    let copy = one
        .disk()
        .into_keys()
        .find(|name| name.contains("conflict"));
    let copy = copy.unwrap()[1..].to_owned();
    fs::remove_file(one.path(&copy)).unwrap();
    fs::remove_file(other.path(&copy)).unwrap();
    sync(&one, &other);
    assert_eq!(conflicts(&one), [""; 0]);
    assert_eq!(one.disk().len(), 1);
}

#[test]
fn deleting_all_sides_of_a_conflict_deletes_the_file() {
    let (one, other, copy) = conflicting();
    one.write("stays", "");
    sync(&one, &other);
    fs::remove_file(one.path(&copy)).unwrap();
    fs::remove_file(one.path("a.txt")).unwrap();
    sync(&one, &other);
    assert_eq!((one.disk().len(), other.disk().len()), (1, 1));
    // One after the other.
    let (one, other, _) = conflicting();
    one.write("stays", "");
    sync(&one, &other);
    fs::remove_file(one.path("a.txt")).unwrap();
    sync(&one, &other);
    assert_eq!(other.disk().len(), 2);
    fs::remove_file(other.path("a.txt")).unwrap();
    sync(&one, &other);
    assert_eq!((one.disk().len(), other.disk().len()), (1, 1));
}

#[test]
fn a_person_merges_by_hand() {
    for edited_copy in [false, true] {
        let (one, other, copy) = conflicting();
        let (kept, gone) = if edited_copy {
            (copy.as_str(), "a.txt")
        } else {
            ("a.txt", copy.as_str())
        };
        // Seen by one scan, in whatever order.
        one.write(kept, "of one and other");
        fs::remove_file(one.path(gone)).unwrap();
        sync(&one, &other);
        assert_eq!(conflicts(&other), [""; 0]);
        assert_eq!(other.read("a.txt"), "of one and other");
        assert_eq!(other.disk().len(), 1);
    }
}

/// Whoever renames the copy wants both; whoever deletes the other side at the same time wants the copy alone. That is for them to decide.
#[test]
fn a_renamed_copy_leaves_the_other_side_chosen() {
    for same_node in [true, false] {
        let (one, other, copy) = if same_node {
            conflicting()
        } else {
            let (one, other) = pair();
            one.write("a.txt", "of one");
            other.write("a.txt", "of other");
            sync(&one, &other);
            let mut disk = one.disk().into_keys();
            let copy = disk.find(|name| name.contains("conflict"));
            (one, other, copy.unwrap()[1..].to_owned())
        };
        let (first, second) = (one.read("a.txt"), one.read(&copy));
        fs::rename(one.path(&copy), one.path("mine.txt")).unwrap();
        fs::remove_file(other.path("a.txt")).unwrap();
        sync(&one, &other);
        assert_eq!(one.read("mine.txt"), second, "same node: {same_node}");
        let contents: Vec<_> = one.disk().into_values().flatten().collect();
        assert!(
            contents.contains(&first.into_bytes()),
            "same node: {same_node}"
        );
        other.write("mine.txt", "edited");
        sync(&one, &other);
        assert_eq!(one.read("mine.txt"), "edited");
    }
}

/// A copy that is moved over the other side is what the person chose.
#[test]
fn a_copy_takes_the_place_of_the_other_side() {
    let (one, other, copy) = conflicting();
    let chosen = one.read(&copy);
    fs::rename(one.path(&copy), one.path("a.txt")).unwrap();
    sync(&one, &other);
    for device in [&one, &other] {
        assert_eq!(conflicts(device), [""; 0]);
        assert_eq!(device.disk().len(), 1);
        assert_eq!(device.read("a.txt"), chosen);
    }
}

#[test]
fn editing_a_copy_is_that_versions_content() {
    let (one, other, copy) = conflicting();
    let name_holder = one.read("a.txt");
    one.write(&copy, "edited");
    sync(&one, &other);
    assert_eq!(conflicts(&other), ["a.txt"]);
    let contents: Vec<_> = other.disk().into_values().flatten().collect();
    assert_eq!(contents.len(), 2);
    assert!(contents.contains(&b"edited".to_vec()));
    assert!(contents.contains(&name_holder.into_bytes()));
}

#[test]
fn files_of_one_name_from_two_devices_are_settled_by_deleting() {
    let (one, other) = pair();
    one.write("a.txt", "of one");
    other.write("a.txt", "of other");
    sync(&one, &other);
    assert_eq!(one.disk().len(), 2);
    let copy = one
        .disk()
        .into_keys()
        .find(|name| name.contains("conflict"));
    fs::remove_file(one.path(&copy.unwrap()[1..])).unwrap();
    fs::remove_file(other.path("a.txt")).unwrap();
    sync(&one, &other);
    assert_eq!(conflicts(&one), ["a.txt"]);
    assert_eq!(one.disk().len(), 2);
}

#[test]
fn an_edit_of_what_was_not_yet_applied_is_concurrent() {
    let (one, other) = pair();
    one.write("a", "base");
    sync(&one, &other);
    one.write("a", "newer");
    one.fake.settle();
    other.write("a", "edited without seeing it");
    other.fake.pull(&one.fake);
    sync(&one, &other);
    assert_eq!(one.disk().len(), 2);
}

#[test]
fn directories_with_files_join() {
    let mut other = Device::detached(2);
    let one = Device::new(1);
    for device in [&one, &other] {
        device.write("same", "same");
        device.write("d/same", vec![3; 200_000]);
    }
    one.write("differs", "one");
    other.write("differs", "other");
    one.write("d/only one", "1");
    other.write("d/only other", "2");
    one.fake.settle();
    other.fake.pull(&one.fake);
    other.attach();
    sync(&one, &other);
    let names: Vec<_> = one.disk().into_keys().collect();
    assert_eq!(names.len(), 7, "{names:?}");
    assert_eq!(
        names
            .iter()
            .filter(|name| name.contains("conflict"))
            .count(),
        1
    );
}

#[test]
fn directories_made_on_both_sides_are_one() {
    let (one, other) = pair();
    one.write("d/e/a", "a");
    other.write("d/e/b", "b");
    sync(&one, &other);
    assert_eq!(one.disk().len(), 4);
    one.write("d/e/c", "c");
    fs::rename(other.path("d"), other.path("renamed")).unwrap();
    sync(&one, &other);
    assert_eq!(one.disk().len(), 5);
}

#[test]
fn deletion_meets_an_edit_and_something_new() {
    let (one, other) = pair();
    one.write("d/a", "a");
    one.write("d/b", "b");
    one.write("keep", "k");
    sync(&one, &other);
    fs::remove_dir_all(one.path("d")).unwrap();
    other.write("d/a", "edited");
    other.write("d/new", "new");
    sync(&one, &other);
    assert_eq!(one.read("d/a"), "edited");
    assert_eq!(one.read("d/new"), "new");
    assert!(!one.exists("d/b"));
}

#[test]
fn a_change_of_the_same_instant_is_kept() {
    let (one, mut other) = pair();
    one.write("a", "base");
    one.write("b", "base");
    sync(&one, &other);
    one.write("a", "remote");
    one.write("b", "remote");
    one.fake.settle();
    // Between the check and the replacement the file is edited (a) or replaced (b).
    let root = other.root();
    let once = AtomicU64::new(0);
    let meddle = move |name: &ouisync_model::name::Name| {
        if once.fetch_add(1, Ordering::SeqCst) < 2 {
            match name.as_bytes() {
                b"a" => fs::write(root.join("a"), "local").unwrap(),
                _ => {
                    fs::write(root.join("t"), "local").unwrap();
                    fs::rename(root.join("t"), root.join("b")).unwrap();
                }
            }
        }
    };
    other.attach_with(WorktreeOptions {
        before_replace: Some(Arc::new(meddle)),
        ..options()
    });
    other.fake.settle();
    other.fake.pull(&one.fake);
    sync(&one, &other);
    let contents: Vec<_> = one.disk().into_values().flatten().collect();
    for content in ["local", "remote"] {
        assert_eq!(
            contents
                .iter()
                .filter(|bytes| *bytes == content.as_bytes())
                .count(),
            2,
            "{:?}",
            one.disk()
        );
    }
}

#[test]
fn content_that_comes_later_is_applied_as_it_comes() {
    let (one, other) = pair();
    for index in 0..30_u8 {
        one.write(&format!("d/{index}"), vec![index; 10_000]);
    }
    one.write("small", "travels inline");
    one.fake.settle();
    other.fake.withhold();
    other.fake.pull(&one.fake);
    other.fake.settle();
    assert_eq!(other.read("small"), "travels inline");
    assert_eq!(other.disk().len(), 2);
    other.fake.deliver(10);
    other.fake.settle();
    assert_eq!(other.disk().len(), 12);
    // What waits may be deleted or changed meanwhile.
    fs::remove_file(one.path("d/3")).unwrap();
    one.write("d/4", vec![99; 20_000]);
    one.fake.settle();
    other.fake.pull(&one.fake);
    other.fake.settle();
    while other.fake.deliver(1000) > 0 {}
    sync(&one, &other);
}

#[test]
fn unchanged_ranges_are_copied_and_holes_stay() {
    let (one, other) = pair();
    let mut content = vec![0; 20 << 20];
    for (index, byte) in content[..4 << 20].iter_mut().enumerate() {
        *byte = (index / 1000) as u8;
    }
    one.write("big", &content);
    sync(&one, &other);
    assert!(fs::metadata(other.path("big")).unwrap().blocks() * 512 < 6 << 20);
    fs::set_permissions(other.path("big"), fs::Permissions::from_mode(0o640)).unwrap();
    sync(&one, &other);
    content[2_000_000] ^= 1;
    content.extend([5; 1000]);
    one.write("big", &content);
    sync(&one, &other);
    assert_eq!(
        fs::metadata(other.path("big")).unwrap().mode() & 0o777,
        0o640
    );
}

#[test]
fn a_reader_keeps_its_changes_to_itself() {
    let (one, other) = pair();
    for name in ["a", "b", "c", "d/e"] {
        one.write(name, "base");
    }
    sync(&one, &other);
    other.fake.set_writable(false);
    other.write("a", "mine");
    other.write("new", "mine");
    other.write("newdir/x", "mine");
    fs::remove_file(other.path("b")).unwrap();
    fs::remove_dir_all(other.path("d")).unwrap();
    fs::rename(other.path("c"), other.path("c2")).unwrap();
    one.write("a", "theirs");
    one.fake.settle();
    other.fake.pull(&one.fake);
    other.fake.settle();
    assert_eq!(other.read("a"), "mine");
    assert_eq!(other.read("b"), "base");
    assert_eq!(other.read("c"), "base");
    assert_eq!(other.read("d/e"), "base");
    assert!(
        other
            .fake
            .problems()
            .iter()
            .any(|problem| problem.starts_with("a: ")),
        "{:?}",
        other.fake.problems()
    );
    assert!(
        other
            .fake
            .problems()
            .iter()
            .any(|problem| problem.starts_with("new: "))
    );
    fs::remove_file(other.path("a")).unwrap();
    other.fake.settle();
    assert_eq!(other.read("a"), "theirs");
}

#[test]
fn nothing_leaves_the_root() {
    let (one, other) = pair();
    one.write("d/f", "base");
    one.write("d/gone", "base");
    sync(&one, &other);
    // The directory is exchanged for a link out of the root.
    let outside = other.directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), "outside").unwrap();
    fs::write(outside.join("gone"), "outside").unwrap();
    fs::rename(other.path("d"), other.directory.path().join("away")).unwrap();
    symlink(&outside, other.path("d")).unwrap();
    one.write("d/f", "changed");
    one.write("d/new", "new");
    fs::remove_file(one.path("d/gone")).unwrap();
    one.fake.settle();
    other.fake.pull(&one.fake);
    sync(&one, &other);
    assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "outside");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 2);
}
