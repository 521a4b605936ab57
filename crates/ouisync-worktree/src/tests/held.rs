//! What holds a directory up: a full disk, a root that is away, a member that was removed.

use std::process::Command;

use super::*;

/// A small file system at a directory; unmounted when dropped.
struct Small(PathBuf);

impl Small {
    /// `None` where nothing can be mounted.
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "none"])
            .arg(&at)
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self(at))
    }

    fn grow(&self) {
        let grown = Command::new("mount")
            .args(["-o", "remount,size=8m"])
            .arg(&self.0)
            .status();
        assert!(grown.unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_holds_a_file_up_until_there_is_room() {
    let (one, mut other) = (Device::new(1), Device::detached(2));
    let Some(disk) = Small::mount(other.root()) else {
        eprintln!("SKIPPED: nothing can be mounted here");
        return;
    };
    other.attach();
    other.fake.settle();
    one.write("big", vec![7; 1 << 20]);
    one.write("small", "fits");
    one.fake.settle();
    other.fake.pull(&one.fake);
    other
        .fake
        .wait_until("held up", |status| status.held_up.is_some());
    let start = Instant::now();
    while !other.exists("small") {
        assert!(start.elapsed() < Duration::from_secs(40));
        std::thread::sleep(Duration::from_millis(5));
    }
    // It stays so through further tries.
    std::thread::sleep(Duration::from_millis(700));
    let status = other.fake.status();
    assert!(!status.settled && !status.failed, "{status:?}");
    let problem = status.held_up.unwrap();
    assert_eq!(problem.path.as_deref(), Some("big"));
    assert!(problem.message.contains("space"), "{}", problem.message);
    disk.grow();
    other.fake.settle();
    other.assert_in_step();
    assert_eq!(other.fake.status().held_up, None);
    other.worktree = None;
    drop(disk);
}

#[test]
fn a_root_that_is_away_is_a_failure_until_it_is_back() {
    let device = Device::new(1);
    device.write("a", "a");
    device.fake.settle();
    let away = device.directory.path().join("away");
    fs::rename(device.root(), &away).unwrap();
    device.worktree.as_ref().unwrap().rescan();
    device
        .fake
        .wait_until("a failure", |status| status.failed && !status.settled);
    fs::rename(&away, device.root()).unwrap();
    device.fake.wait_until("back", |status| !status.failed);
    device.fake.settle();
    device.assert_in_step();
}

#[test]
fn a_removed_member_is_told_that_its_edits_stay_here() {
    let device = Device::new(1);
    device.write("a", "base");
    device.fake.settle();
    device.fake.remove();
    device.write("a", "edited afterwards");
    device.worktree.as_ref().unwrap().rescan();
    device.fake.wait_until("told", |status| {
        status.problems.iter().any(|problem| {
            problem.path.as_deref() == Some("a") && problem.message.contains("removed")
        })
    });
    assert_eq!(device.read("a"), "edited afterwards");
}
