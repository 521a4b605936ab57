//! Plain copies that are dropped and come back.

use super::*;
use crate::offload::{Copies, OffloadOutcome};
use ouisync_model::name::Name;

fn set(device: &Device, path: &str, copies: Copies) -> OffloadOutcome {
    let names = path.split('/').filter(|name| !name.is_empty());
    let path = names.map(|name| Name::new(name).unwrap()).collect();
    let worktree = device.worktree.as_ref().unwrap();
    let outcome = worktree
        .set_copies(path, copies, BTreeSet::new(), Box::new(|_, _| true))
        .blocking_recv();
    let outcome = outcome.unwrap().unwrap();
    device.fake.settle();
    outcome
}

fn is_offloaded(device: &Device, name: &str) -> bool {
    assert_ne!(
        device.exists(name),
        device.exists(&format!("{name}.ouisync-offloaded")),
        "{name}"
    );
    !device.exists(name)
}

#[test]
fn an_offloaded_file_is_no_deletion_and_comes_back() {
    let (one, mut other) = pair();
    one.write("d/big", "x".repeat(200_000));
    one.write("d/small", "y");
    one.write("e", "z");
    sync(&one, &other);
    let tree = other.fake.tree();
    let outcome = set(&other, "d", Copies::Offload);
    assert_eq!((outcome.files, outcome.bytes), (2, 200_001));
    assert!(outcome.skipped.is_empty());
    assert!(is_offloaded(&other, "d/big") && is_offloaded(&other, "d/small"));
    assert!(
        other
            .read("d/big.ouisync-offloaded")
            .contains("ouisync fetch")
    );
    // Nothing of it is recorded, also not after a restart or when a placeholder goes.
    other.attach();
    other.fake.settle();
    fs::remove_file(other.path("d/big.ouisync-offloaded")).unwrap();
    other.fake.settle();
    assert!(is_offloaded(&other, "d/big"));
    assert_eq!(other.fake.tree(), tree);
    one.fake.pull(&other.fake);
    one.fake.settle();
    assert_eq!(one.fake.tree(), tree);
    assert!(set(&other, "nowhere", Copies::Fetch).unknown);
    let outcome = set(&other, "", Copies::Fetch);
    assert_eq!(outcome.files, 2);
    assert!(!is_offloaded(&other, "d/big"));
    other.assert_in_step();
    sync(&one, &other);
}

#[test]
fn others_may_edit_move_and_delete_it_meanwhile() {
    let (one, other) = pair();
    for name in ["edit", "move", "delete", "gone/a", "swap"] {
        one.write(name, format!("base of {name}"));
    }
    sync(&one, &other);
    set(&other, "", Copies::Offload);
    one.write("edit", "edited elsewhere");
    fs::create_dir(one.path("to")).unwrap();
    fs::rename(one.path("move"), one.path("to/moved")).unwrap();
    fs::remove_file(one.path("delete")).unwrap();
    fs::remove_dir_all(one.path("gone")).unwrap();
    one.fake.settle();
    other.fake.pull(&one.fake);
    other.fake.settle();
    assert!(is_offloaded(&other, "edit") && is_offloaded(&other, "to/moved"));
    for name in ["move", "delete", "gone"] {
        assert!(!other.exists(name), "{name}");
        assert!(
            !other.exists(&format!("{name}.ouisync-offloaded")),
            "{name}"
        );
    }
    set(&other, "edit", Copies::Fetch);
    assert_eq!(other.read("edit"), "edited elsewhere");
    set(&other, "to/moved", Copies::Fetch);
    assert_eq!(other.read("to/moved"), "base of move");
    set(&other, "", Copies::Fetch);
    sync(&one, &other);
}

#[test]
fn a_file_saved_over_an_offloaded_one_is_an_edit() {
    let (one, other) = pair();
    one.write("file", "before");
    one.write("changed", "before");
    sync(&one, &other);
    other.write("changed", "edited and not recorded");
    let outcome = set(&other, "", Copies::Offload);
    assert_eq!(outcome.files + outcome.skipped.len() as u64, 2);
    set(&other, "file", Copies::Offload);
    assert!(is_offloaded(&other, "file"));
    other.write("file", "saved again");
    other.fake.settle();
    assert!(!is_offloaded(&other, "file"));
    set(&other, "", Copies::Fetch);
    sync(&one, &other);
    assert_eq!(one.read("file"), "saved again");
    assert_eq!(one.read("changed"), "edited and not recorded");
}

#[test]
fn every_step_of_offloading_can_be_the_last() {
    for steps in 0.. {
        let (one, mut other) = pair();
        one.write("a", "a".repeat(5000));
        one.write("b", "b");
        sync(&one, &other);
        let tree = other.fake.tree();
        other.attach_with(WorktreeOptions {
            steps_left: Some(Arc::new(AtomicU64::new(steps))),
            ..options()
        });
        let worktree = other.worktree.as_ref().unwrap();
        let outcome = worktree.set_copies(
            Vec::new(),
            Copies::Offload,
            BTreeSet::new(),
            Box::new(|_, _| true),
        );
        let finished = matches!(outcome.blocking_recv(), Ok(Ok(_)));
        other.attach();
        other.fake.settle();
        assert_eq!(other.fake.tree(), tree, "stopped after {steps} steps");
        set(&other, "", Copies::Fetch);
        other.assert_in_step();
        assert_eq!(other.disk(), one.disk(), "stopped after {steps} steps");
        if finished {
            assert!(steps > 2, "{steps} steps");
            break;
        }
    }
}
