//! The staging directory comes and goes; what is in place is recorded after it is durable.

use std::{
    process::Command,
    sync::{Condvar, Mutex},
};

use super::*;
use crate::{runner::Runner, watch::Notice, worktree::Control};

/// Holds every sync until it is opened.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
    waited: AtomicU64,
}

impl Gate {
    fn options(self: &Arc<Self>, batch_files: usize) -> WorktreeOptions {
        let gate = self.clone();
        let wait = move || {
            gate.waited.fetch_add(1, Ordering::SeqCst);
            let mut open = gate.open.lock().unwrap();
            while !*open {
                open = gate.changed.wait(open).unwrap();
            }
        };
        WorktreeOptions {
            before_sync: Some(Arc::new(wait)),
            batch_files,
            ..options()
        }
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

/// Opens the gate when a test ends, however it ends.
struct Opens(Arc<Gate>);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

#[test]
fn nothing_of_ours_stays_between_the_files() {
    let (one, other) = pair();
    for name in ["edit", "delete", "swap1", "swap2", "d/move"] {
        one.write(name, format!("base of {name}"));
    }
    one.write("large", vec![7; 17 << 20]);
    sync(&one, &other);
    one.write("edit", "edited");
    one.write("large", vec![8; 18 << 20]);
    fs::remove_file(one.path("delete")).unwrap();
    fs::rename(one.path("swap1"), one.path("t")).unwrap();
    fs::rename(one.path("swap2"), one.path("swap1")).unwrap();
    fs::rename(one.path("t"), one.path("swap2")).unwrap();
    fs::rename(one.path("d"), one.path("e")).unwrap();
    sync(&one, &other);
    let differences = Command::new("diff")
        .arg("-r")
        .args([one.root(), other.root()])
        .output()
        .unwrap();
    assert!(
        differences.status.success() && differences.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&differences.stdout)
    );
    for device in [&one, &other] {
        assert!(!device.staging().exists());
    }
}

#[test]
fn a_root_with_new_numbers_is_known_by_its_mark() {
    let mut device = Device::new(1);
    device.write("a", "a");
    device.fake.settle();
    let mut mark = [0; 64];
    let length = rustix::fs::getxattr(device.root(), "user.ouisync.root", &mut mark[..]);
    // Without extended attributes the staging directory stays instead.
    let Ok(length) = length else {
        assert!(device.staging().exists());
        return;
    };
    device.worktree = None;
    let away = device.directory.path().join("away");
    fs::rename(device.root(), &away).unwrap();
    fs::create_dir(device.root()).unwrap();
    fs::rename(away.join("a"), device.path("a")).unwrap();
    device.attach();
    let fake = device.fake.clone();
    fake.wait_until("held", |status| !status.problems.is_empty());
    assert!(device.fake.problems()[0].contains("Another directory"));
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(device.root(), "user.ouisync.root", &mark[..length], flags).unwrap();
    device.fake.settle();
    assert!(device.fake.problems().is_empty());
    device.assert_in_step();
}

#[test]
fn files_are_recorded_after_they_are_durable_and_visible_before() {
    let (one, mut other) = pair();
    for index in 0..12 {
        one.write(&format!("{index}"), format!("content {index}"));
    }
    one.fake.settle();
    let gate = Arc::new(Gate::default());
    other.attach_with(gate.options(3));
    let _opens = Opens(gate.clone());
    other.fake.settle();
    other.fake.pull(&one.fake);
    // One sync hangs, and all else goes on.
    wait("all are visible", || {
        (0..12).all(|index| other.exists(&index.to_string()))
    });
    wait("a sync waits", || gate.waited.load(Ordering::SeqCst) == 1);
    assert_eq!(recorded(&other), (0, 12));
    assert!(!other.fake.is_settled());
    // A change of what is not recorded yet is seen as one.
    other.write("3", "edited here");
    one.write("4", "edited there");
    one.fake.settle();
    other.fake.pull(&one.fake);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(recorded(&other), (0, 12));
    gate.open();
    other.fake.settle();
    assert_eq!(recorded(&other), (12, 0));
    assert!(gate.waited.load(Ordering::SeqCst) < 6, "syncs are shared");
    sync(&one, &other);
    assert_eq!(one.read("3"), "edited here");
    assert_eq!(other.read("4"), "edited there");
    assert_eq!(one.disk().len(), 12);
}

#[test]
fn a_crash_between_batches_leaves_intents() {
    // The first batch hangs in its sync, others are placed or staged; then the program ends, and one file is torn.
    for steps in [8, 12, 17] {
        let (one, mut other) = pair();
        for index in 0..9 {
            one.write(&format!("d/{index}"), format!("content {index}"));
        }
        one.fake.settle();
        other.worktree = None;
        other.fake.pull(&one.fake);
        let gate = Arc::new(Gate::default());
        let _opens = Opens(gate.clone());
        let left = Arc::new(AtomicU64::new(steps));
        other.attach_with(WorktreeOptions {
            steps_left: Some(left.clone()),
            ..gate.options(2)
        });
        wait("stopped", || left.load(Ordering::SeqCst) == 0);
        gate.open();
        wait("ended", || other.worktree.as_ref().unwrap().is_finished());
        other.worktree = None;
        assert_eq!(recorded(&other).0, 0, "nothing was durable");
        let visible = other
            .disk()
            .into_keys()
            .find(|path| path.starts_with("/d/"));
        let torn = visible.expect("something was placed");
        let file = fs::File::options()
            .write(true)
            .open(other.path(&torn[1..]))
            .unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0; 9], 0).unwrap();
        file.set_modified(modified).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        other.attach();
        sync(&one, &other);
        for index in 0..9 {
            assert_eq!(
                other.read(&format!("d/{index}")),
                format!("content {index}")
            );
        }
        // The directory, its files, the torn one.
        assert_eq!(one.disk().len(), 11, "{:?}", one.disk().keys());
    }
}

#[test]
fn what_this_program_wrote_is_not_scanned_again() {
    let (one, mut other) = pair();
    other.attach_with(WorktreeOptions {
        watch: true,
        ..options()
    });
    other.fake.settle();
    for index in 0..300 {
        one.write(&format!("d{}/{index}", index % 3), vec![1; 5000]);
    }
    one.fake.settle();
    let before = other.fake.lookups();
    other.fake.pull(&one.fake);
    wait("applied", || {
        (0..300).all(|index| other.exists(&format!("d{}/{index}", index % 3)))
            && other.fake.is_settled()
    });
    std::thread::sleep(Duration::from_millis(200));
    let lookups = other.fake.lookups() - before;
    assert!(lookups < 700, "{lookups} records looked up for 300 files");
    assert!(other.fake.is_settled());
    // What somebody else does there is still heard.
    other.write("d1/1", "edited");
    other.write("d2/new", "new");
    wait("heard", || {
        let tree = other.fake.tree();
        tree.contains_key("/d2/new") && tree["/d1/1"].as_deref() == Some(b"edited")
    });
}

#[test]
fn the_end_of_a_sync_that_is_heard_of_within_a_step_is_not_forgotten() {
    let device = Device::detached(1);
    let (sender, notices) = tokio::sync::mpsc::unbounded_channel();
    let control = Arc::new(Control::new(device.fake.view(), sender));
    let events = device.fake.view().attach(control.clone()).unwrap();
    let mut runner = Runner::open(
        device.fake.view(),
        device.root(),
        options(),
        control.clone(),
        notices,
        events,
    )
    .unwrap();
    runner.full_scan = false;
    runner.next_full_scan += Duration::from_secs(60);
    runner.behind.clear();
    assert!(runner.idle_until().is_some());
    control.send(Notice::Durable);
    // As a scan does that looks for the other half of a rename.
    runner.drain();
    assert!(runner.idle_until().is_none(), "the result is asked for");
    runner.collect_durable().unwrap();
    assert!(runner.idle_until().is_some());
}
