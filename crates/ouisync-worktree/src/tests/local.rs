//! What a person does on disk becomes the right operations.

use super::*;

fn node(device: &Device, name: &str) -> Option<ouisync_model::id::NodeId> {
    device.fake.entry_at(name).map(|entry| entry.node)
}

#[test]
fn records_what_is_there_and_what_changes() {
    let device = Device::new(1);
    device.write("a", "one");
    device.write("d/e/f", "two");
    fs::create_dir(device.path("empty")).unwrap();
    symlink("../outside", device.path("link")).unwrap();
    device.fake.settle();
    device.assert_in_step();
    let first = node(&device, "a");
    device.write("a", "changed");
    fs::remove_dir_all(device.path("d")).unwrap();
    fs::remove_file(device.path("link")).unwrap();
    symlink("elsewhere", device.path("link")).unwrap();
    device.fake.settle();
    device.assert_in_step();
    assert_eq!(node(&device, "a"), first);
    assert!(!device.fake.tree().contains_key("/d"));
}

#[test]
fn unchanged_files_are_not_read_again() {
    let mut device = Device::new(1);
    for index in 0..50 {
        device.write(
            &format!("d{}/{index}", index % 5),
            format!("content {index}"),
        );
    }
    device.fake.settle();
    assert_eq!(device.fake.ingested(), 50);
    device.attach();
    device.fake.settle();
    assert_eq!(device.fake.ingested(), 50);
    device.assert_in_step();
}

#[test]
fn renames_are_moves_and_read_nothing() {
    let device = Device::new(1);
    for index in 0..5 {
        device.write(&format!("top/deep/{index}"), format!("content {index}"));
    }
    device.write("a", "a");
    device.write("b", "b");
    device.write("edited", "before");
    device.write("case", "case");
    device.fake.settle();
    let before: Vec<_> = ["top", "a", "b", "edited", "case"]
        .iter()
        .map(|name| node(&device, name))
        .collect();
    let ingested = device.fake.ingested();
    fs::create_dir(device.path("new")).unwrap();
    fs::rename(device.path("top/deep"), device.path("new/deeper")).unwrap();
    fs::rename(device.path("top"), device.path("other")).unwrap();
    // Two names exchanged.
    fs::rename(device.path("a"), device.path("swap")).unwrap();
    fs::rename(device.path("b"), device.path("a")).unwrap();
    fs::rename(device.path("swap"), device.path("b")).unwrap();
    fs::rename(device.path("edited"), device.path("new/edited")).unwrap();
    fs::write(device.path("new/edited"), "after!").unwrap();
    fs::rename(device.path("case"), device.path("CASE")).unwrap();
    device.fake.settle();
    device.assert_in_step();
    assert_eq!(
        device.fake.ingested(),
        ingested + 1,
        "only the edited file is read"
    );
    assert_eq!(node(&device, "other"), before[0]);
    assert_eq!(node(&device, "b"), before[1]);
    assert_eq!(node(&device, "a"), before[2]);
    assert_eq!(node(&device, "CASE"), before[4]);
}

#[test]
fn swapped_directories_keep_their_nodes() {
    let device = Device::new(1);
    device.write("x/1", "1");
    device.write("y/2", "2");
    device.fake.settle();
    let (x, y) = (node(&device, "x"), node(&device, "y"));
    fs::rename(device.path("x"), device.path("z")).unwrap();
    fs::rename(device.path("y"), device.path("x")).unwrap();
    fs::rename(device.path("z"), device.path("y")).unwrap();
    let ingested = device.fake.ingested();
    device.fake.settle();
    device.assert_in_step();
    assert_eq!((node(&device, "x"), node(&device, "y")), (y, x));
    // Turned inside out.
    fs::rename(device.path("x"), device.path("y/x")).unwrap();
    device.fake.settle();
    fs::rename(device.path("y/x"), device.path("x")).unwrap();
    fs::rename(device.path("y"), device.path("x/y")).unwrap();
    device.fake.settle();
    device.assert_in_step();
    assert_eq!(device.fake.ingested(), ingested);
}

#[test]
fn a_save_by_rename_is_an_edit() {
    let device = Device::new(1);
    device.write("document", "one");
    device.write("other", "two");
    device.fake.settle();
    let (document, other) = (node(&device, "document"), node(&device, "other"));
    // Unseen temporary file.
    device.write("document.tmp", "three");
    fs::rename(device.path("document.tmp"), device.path("document")).unwrap();
    // Seen temporary file.
    device.write("other.tmp", "four");
    device.fake.settle();
    fs::rename(device.path("other.tmp"), device.path("other")).unwrap();
    device.fake.settle();
    device.assert_in_step();
    assert_eq!(
        (node(&device, "document"), node(&device, "other")),
        (document, other)
    );
    // With a backup of the old one.
    fs::rename(device.path("document"), device.path("document~")).unwrap();
    device.write("document", "five");
    device.fake.settle();
    device.assert_in_step();
    assert_eq!(node(&device, "document"), document);
    assert_eq!(device.read("document~"), "three");
}

#[test]
fn hard_links_are_separate_files() {
    let device = Device::new(1);
    device.write("a", "content");
    device.fake.settle();
    fs::hard_link(device.path("a"), device.path("b")).unwrap();
    device.fake.settle();
    device.assert_in_step();
    assert_ne!(node(&device, "a"), node(&device, "b"));
    fs::remove_file(device.path("a")).unwrap();
    device.fake.settle();
    device.assert_in_step();
}

#[test]
fn kinds_may_change_under_a_name() {
    let device = Device::new(1);
    device.write("x", "file");
    device.write("y/inside", "file");
    device.fake.settle();
    fs::remove_file(device.path("x")).unwrap();
    device.write("x/now", "a directory");
    fs::remove_dir_all(device.path("y")).unwrap();
    symlink("x", device.path("y")).unwrap();
    device.fake.settle();
    device.assert_in_step();
}

#[test]
fn kinds_may_change_while_deletions_wait_for_the_rest_of_a_rename() {
    let mut device = Device::detached(1);
    // Whatever was heard of is fresh, so that what is gone is waited with.
    device.attach_with(WorktreeOptions {
        debounce: Duration::from_millis(500),
        rescan_interval: Duration::from_secs(3600),
        ..WorktreeOptions::default()
    });
    let kinds = ["file", "empty", "full", "link"];
    let remove = |path: &Path| match fs::symlink_metadata(path).unwrap().is_dir() {
        true => fs::remove_dir_all(path).unwrap(),
        false => fs::remove_file(path).unwrap(),
    };
    let make = |path: &Path, kind: &str| match kind {
        "file" => fs::write(path, "text").unwrap(),
        "link" => symlink("elsewhere", path).unwrap(),
        _ => {
            fs::create_dir(path).unwrap();
            if kind == "full" {
                fs::write(path.join("inside"), "text").unwrap();
            }
        }
    };
    let pairs = || {
        kinds.iter().flat_map(|before| {
            let others = kinds.iter().filter(move |after| before != *after);
            others.map(move |after| (*before, *after))
        })
    };
    for (before, after) in pairs() {
        make(&device.path(&format!("{before}-{after}")), before);
    }
    device.fake.settle();
    for (before, after) in pairs() {
        let path = device.path(&format!("{before}-{after}"));
        remove(&path);
        make(&path, after);
    }
    std::thread::sleep(Duration::from_millis(100));
    device.worktree.as_ref().unwrap().rescan();
    device.fake.settle();
    device.assert_in_step();
    assert_eq!(
        device.fake.tree().len(),
        pairs().count() + pairs().filter(|(_, after)| *after == "full").count()
    );
}

#[test]
fn permission_and_time_are_described() {
    let (one, other) = pair();
    one.write("tool", "#!/bin/sh\n");
    sync(&one, &other);
    let file = fs::File::open(one.path("tool")).unwrap();
    let time = std::time::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    file.set_modified(time).unwrap();
    fs::set_permissions(one.path("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    sync(&one, &other);
    let metadata = fs::metadata(other.path("tool")).unwrap();
    assert_eq!(metadata.mode() & 0o111, 0o111);
    assert_eq!(metadata.modified().unwrap(), time);
    let commits = one.fake.commits();
    sync(&one, &other);
    assert_eq!(one.fake.commits(), commits, "nothing goes to and fro");
}

#[test]
fn an_emptied_root_deletes_nothing() {
    let mut device = Device::new(1);
    for name in ["a", "b", "d/c"] {
        device.write(name, name);
    }
    device.fake.settle();
    let tree = device.fake.tree();
    for name in ["a", "b"] {
        fs::remove_file(device.path(name)).unwrap();
    }
    fs::rename(device.path("d"), device.directory.path().join("away")).unwrap();
    device.worktree.as_ref().unwrap().rescan();
    device
        .fake
        .wait_until("held", |status| !status.problems.is_empty());
    assert_eq!(device.fake.tree(), tree);
    // Also after a start.
    device.attach();
    device
        .fake
        .wait_until("held", |status| !status.problems.is_empty());
    assert_eq!(device.fake.tree(), tree);
    // One thing comes back: then the rest was deleted.
    fs::rename(device.directory.path().join("away"), device.path("d")).unwrap();
    device.fake.settle();
    device.assert_in_step();
    assert_eq!(device.fake.tree().len(), 2);
    assert!(device.fake.problems().is_empty());
}

#[test]
fn an_emptied_root_can_be_confirmed() {
    let device = Device::new(1);
    for name in ["a", "b", "c"] {
        device.write(name, name);
    }
    device.fake.settle();
    for name in ["a", "b", "c"] {
        fs::remove_file(device.path(name)).unwrap();
    }
    device.worktree.as_ref().unwrap().rescan();
    device
        .fake
        .wait_until("held", |status| !status.problems.is_empty());
    device.worktree.as_ref().unwrap().confirm_deletion();
    device.fake.wait_until("settled", |status| status.settled);
    assert!(device.fake.tree().is_empty());
    // The only file is no mass.
    device.write("last", "one");
    device.fake.settle();
    fs::remove_file(device.path("last")).unwrap();
    device.fake.settle();
    assert!(device.fake.tree().is_empty());
}

#[test]
fn a_missing_or_replaced_root_pauses() {
    let device = Device::new(1);
    device.write("a", "a");
    device.write("b", "b");
    device.fake.settle();
    let tree = device.fake.tree();
    let away = device.directory.path().join("away");
    fs::rename(device.root(), &away).unwrap();
    device.worktree.as_ref().unwrap().rescan();
    device
        .fake
        .wait_until("held", |status| !status.problems.is_empty());
    fs::create_dir(device.root()).unwrap();
    device.worktree.as_ref().unwrap().rescan();
    device.fake.wait_until("replaced", |status| {
        status
            .problems
            .iter()
            .any(|p| p.message.contains("Another directory"))
    });
    assert_eq!(device.fake.tree(), tree);
    fs::remove_dir(device.root()).unwrap();
    fs::rename(&away, device.root()).unwrap();
    device.fake.settle();
    device.assert_in_step();
    assert_eq!(device.fake.tree(), tree);
    // Another one on purpose.
    fs::rename(device.root(), &away).unwrap();
    device.write("a", "different");
    device.write("c", "c");
    device.worktree.as_ref().unwrap().rescan();
    device.fake.wait_until("replaced", |status| {
        status
            .problems
            .iter()
            .any(|p| p.message.contains("Another directory"))
    });
    device.worktree.as_ref().unwrap().adopt_root();
    device.fake.wait_until("settled", |status| status.settled);
    device.fake.settle();
    device.assert_in_step();
    assert_eq!(device.fake.tree().len(), 4, "both versions of a, b and c");
}

#[test]
fn watching_finds_changes_soon() {
    let mut device = Device::detached(1);
    device.attach_with(WorktreeOptions {
        rescan_interval: Duration::from_secs(3600),
        ..WorktreeOptions::default()
    });
    device.fake.settle();
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !done() {
            assert!(
                start.elapsed() < Duration::from_secs(40),
                "{what}: {:?}",
                device.fake.tree()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        start.elapsed()
    };
    device.write("a", "one");
    let took = wait("a file", &|| device.fake.tree().contains_key("/a"));
    assert!(took < Duration::from_millis(1000), "{took:?}");
    device.write("d/e/f", "two");
    wait("in new directories", &|| {
        device.fake.tree().contains_key("/d/e/f")
    });
    device.write("d/e/g", "three");
    wait("in a watched directory", &|| {
        device.fake.tree().contains_key("/d/e/g")
    });
    let ingested = device.fake.ingested();
    fs::rename(device.path("d"), device.path("moved")).unwrap();
    wait("a directory's rename", &|| {
        device.fake.tree().contains_key("/moved/e/g")
    });
    assert_eq!(device.fake.ingested(), ingested);
    device.write("moved/e/h", "four");
    wait("below a renamed directory", &|| {
        device.fake.tree().contains_key("/moved/e/h")
    });
    fs::remove_file(device.path("moved/e/f")).unwrap();
    wait("a deletion", &|| {
        !device.fake.tree().contains_key("/moved/e/f")
    });
    fs::rename(device.path("moved/e/h"), device.path("h")).unwrap();
    wait("a move", &|| {
        device.fake.tree().contains_key("/h") && !device.fake.tree().contains_key("/moved/e/h")
    });
    device.assert_in_step();
}

#[test]
fn a_failing_engine_loses_nothing() {
    let device = Device::new(1);
    device.fake.set_failing(true);
    device.write("a", "content");
    device.worktree.as_ref().unwrap().rescan();
    device
        .fake
        .wait_until("a problem", |status| !status.problems.is_empty());
    device.fake.set_failing(false);
    device.fake.settle();
    device.assert_in_step();
    assert!(device.fake.problems().is_empty());
}

#[test]
fn a_pause_ends_a_recording_that_is_under_way() {
    let one = Device::detached(1);
    const FILES: usize = 3000;
    for index in 0..FILES {
        one.write(
            &format!("d{}/{index}", index % 10),
            format!("content {index}"),
        );
    }
    let mut one = one;
    one.attach();
    let start = Instant::now();
    while one.fake.ingested() < 20 {
        assert!(start.elapsed() < Duration::from_secs(40));
        std::thread::yield_now();
    }
    one.fake.pause(true);
    std::thread::sleep(Duration::from_millis(300));
    let then = one.fake.ingested();
    assert!(then < FILES as u64, "{then}");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(one.fake.ingested(), then, "it rests");
    one.fake.pause(false);
    one.fake.settle();
    one.assert_in_step();
    assert_eq!(one.fake.ingested(), FILES as u64, "none twice");
}

#[test]
fn a_paused_folder_neither_records_nor_applies() {
    let (one, other) = pair();
    one.write("a", "one");
    one.fake.settle();
    other.fake.pause(true);
    other.fake.pull(&one.fake);
    other.write("b", "two");
    other.worktree.as_ref().unwrap().rescan();
    // Longer than it waits after a change otherwise.
    std::thread::sleep(Duration::from_millis(500));
    assert!(!other.fake.tree().contains_key("/b"));
    assert!(!other.exists("a"));
    other.fake.pause(false);
    sync(&one, &other);
    assert!(one.exists("b") && other.exists("a"));
}
