//! The thread stops at every step of applying; after the next start nothing is lost and all is in step.

use super::*;

/// One side's changes that need every kind of step.
fn prepare() -> (Device, Device) {
    let (one, other) = pair();
    for name in [
        "edit", "delete", "swap1", "swap2", "move", "d/inside", "gone/a", "gone/b", "over",
    ] {
        one.write(name, format!("base of {name}"));
    }
    sync(&one, &other);
    one.write("edit", "edited remotely");
    one.write("new", "new remotely");
    one.write("over", "written over remotely");
    fs::remove_file(one.path("delete")).unwrap();
    fs::remove_dir_all(one.path("gone")).unwrap();
    fs::rename(one.path("swap1"), one.path("t")).unwrap();
    fs::rename(one.path("swap2"), one.path("swap1")).unwrap();
    fs::rename(one.path("t"), one.path("swap2")).unwrap();
    fs::create_dir(one.path("to")).unwrap();
    fs::rename(one.path("move"), one.path("to/move")).unwrap();
    fs::rename(one.path("d"), one.path("to/d")).unwrap();
    one.fake.settle();
    (one, other)
}

#[test]
fn every_step_can_be_the_last() {
    stop_at_every_step(options());
}

#[test]
fn every_step_can_be_the_last_of_many_batches() {
    stop_at_every_step(WorktreeOptions {
        batch_files: 1,
        ..options()
    });
}

fn stop_at_every_step(options: WorktreeOptions) {
    let mut steps = 0;
    loop {
        let (one, mut other) = prepare();
        let left = Arc::new(AtomicU64::new(steps));
        other.worktree = None;
        other.fake.pull(&one.fake);
        other.attach_with(WorktreeOptions {
            steps_left: Some(left.clone()),
            ..options.clone()
        });
        let start = Instant::now();
        let finished = loop {
            if start.elapsed() > Duration::from_secs(40) {
                panic!("neither stopped nor settled at step {steps}");
            }
            if other.fake.is_settled() {
                break true;
            }
            if other.worktree.as_ref().unwrap().is_finished() {
                break false;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let before = one.disk();
        other.attach();
        sync(&one, &other);
        let names = |shown: BTreeMap<String, _>| shown.into_keys().collect::<Vec<_>>();
        assert_eq!(
            names(one.disk()),
            names(before.clone()),
            "stopped after {steps} steps"
        );
        assert_eq!(one.disk(), before, "stopped after {steps} steps");
        if finished {
            break;
        }
        steps += 1;
    }
    assert!(steps > 15, "{steps} steps");
}

/// A device that wrote a file, and one that applied it and was stopped after so many steps: if the file is in place then and its
/// record is not.
fn stopped_before_its_record(content: &str, steps: u64) -> Option<(Device, Device)> {
    let (one, mut other) = pair();
    one.write("file", content);
    one.fake.settle();
    other.worktree = None;
    other.fake.pull(&one.fake);
    other.attach_with(WorktreeOptions {
        steps_left: Some(Arc::new(AtomicU64::new(steps))),
        ..options()
    });
    let start = Instant::now();
    while !other.worktree.as_ref().unwrap().is_finished() && !other.fake.is_settled() {
        assert!(start.elapsed() < Duration::from_secs(40));
        std::thread::sleep(Duration::from_millis(1));
    }
    other.worktree = None;
    let unrecorded = recorded(&other).0 == 0 && other.exists("file");
    unrecorded.then_some((one, other))
}

#[test]
fn a_torn_file_is_not_taken_for_an_edit() {
    // The file is in place, its record is not; then the power goes and its content with it.
    let mut torn = 0;
    for steps in 0..12 {
        let Some((one, mut other)) = stopped_before_its_record("the right content", steps) else {
            continue;
        };
        torn += 1;
        let modified = fs::metadata(other.path("file"))
            .unwrap()
            .modified()
            .unwrap();
        let file = fs::File::options()
            .write(true)
            .open(other.path("file"))
            .unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0; 17], 0).unwrap();
        file.set_modified(modified).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        other.attach();
        sync(&one, &other);
        assert_eq!(other.read("file"), "the right content");
        assert!(one.exists("file (recovered)"), "{:?}", one.disk());
    }
    assert!(torn > 0);
}

#[test]
fn a_young_file_after_a_crash_is_not_taken_for_a_new_one() {
    // The file is in place and its record is not; at the restart it is too young to be read, so that applying comes first.
    let mut met = 0;
    for steps in 0..12 {
        let Some((_one, mut other)) = stopped_before_its_record("received", steps) else {
            continue;
        };
        met += 1;
        fs::set_permissions(other.path("file"), fs::Permissions::from_mode(0o600)).unwrap();
        let commits = other.fake.commits();
        other.attach_with(WorktreeOptions {
            fresh: Duration::from_secs(1),
            ..options()
        });
        other.fake.settle();
        other.assert_in_step();
        let entry = other.fake.entry_at("file").unwrap();
        assert_eq!(entry.nodes().count(), 1, "stopped after {steps} steps");
        assert_eq!(other.fake.commits(), commits, "stopped after {steps} steps");
    }
    assert!(met > 0);
}

#[test]
fn what_is_left_in_staging_is_kept_if_it_is_not_known() {
    let mut device = Device::new(1);
    device.write("a", "a");
    device.fake.settle();
    device.worktree = None;
    let staging = device.staging();
    fs::create_dir(&staging).unwrap();
    fs::write(staging.join("old-0001"), "somebody's work").unwrap();
    fs::write(staging.join("new-0001"), "half a file").unwrap();
    device.attach();
    device.fake.settle();
    device.assert_in_step();
    assert_eq!(device.read("file (recovered)"), "somebody's work");
    assert_eq!(device.disk().len(), 2);
}
