//! Names, kinds and rules that other programs produce.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, os::unix::net::UnixListener};

use super::*;

#[test]
fn odd_names_travel() {
    let (one, other) = pair();
    let long = "x".repeat(255);
    let names: [&[u8]; 8] = [
        b"-leading",
        b"new\nline",
        b"\xff\xfe not text",
        long.as_bytes(),
        b" ",
        b"A",
        b"a",
        b"...".as_slice(),
    ];
    for name in names {
        let directory = one.root().join(OsStr::from_bytes(name));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(OsStr::from_bytes(name)), name).unwrap();
    }
    sync(&one, &other);
    assert_eq!(other.disk().len(), 16);
    let mut deep = one.root();
    for _ in 0..30 {
        deep.push(&long[..200]);
        let _ = fs::create_dir(&deep);
    }
    sync(&one, &other);
}

#[test]
fn special_files_are_reported_and_left_alone() {
    let (one, other) = pair();
    one.write("a", "a");
    one.write("was", "recorded");
    sync(&one, &other);
    let _socket = UnixListener::bind(one.path("socket")).unwrap();
    fs::remove_file(one.path("was")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        one.path("was"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    other.write("socket", "in its place");
    other.fake.settle();
    one.fake.pull(&other.fake);
    one.fake.settle();
    let problems = one.fake.problems();
    assert!(
        problems
            .iter()
            .any(|problem| problem.starts_with("socket: ")),
        "{problems:?}"
    );
    assert!(
        problems.iter().any(|problem| problem.starts_with("was: ")),
        "{problems:?}"
    );
    assert!(one.fake.tree().contains_key("/was"), "not deleted");
    fs::remove_file(one.path("socket")).unwrap();
    fs::remove_file(one.path("was")).unwrap();
    one.write("was", "again");
    sync(&one, &other);
    assert_eq!(one.read("socket"), "in its place");
    assert!(one.fake.problems().is_empty(), "{:?}", one.fake.problems());
}

#[test]
fn ignore_rules_hold() {
    let (one, other) = pair();
    one.write(".ouisyncignore", "*.o\n/build/\n!keep.o\n");
    one.write("a.o", "ignored");
    one.write("keep.o", "kept");
    one.write("build/x", "ignored");
    one.write("sub/build/x", "synced");
    one.write("sub/.ouisyncignore", "local\n");
    one.write("sub/local", "ignored");
    one.write("sub/deep/b.o", "ignored");
    one.write("tracked", "before");
    one.fake.settle();
    let expected = [
        "/.ouisyncignore",
        "/keep.o",
        "/sub",
        "/sub/.ouisyncignore",
        "/sub/build",
        "/sub/build/x",
        "/sub/deep",
        "/tracked",
    ];
    assert_eq!(one.fake.tree().into_keys().collect::<Vec<_>>(), expected);
    other.fake.pull(&one.fake);
    other.fake.settle();
    other.assert_in_step();
    // What is recorded and becomes ignored is left alone on both sides.
    one.write(".ouisyncignore", "tracked\n/build/\n");
    one.fake.settle();
    one.write("tracked", "after");
    one.fake.settle();
    other.fake.pull(&one.fake);
    other.fake.settle();
    assert_eq!(other.read("tracked"), "before");
    assert!(one.fake.tree().contains_key("/a.o"), "no longer ignored");
    // A directory that is deleted elsewhere stays for what is ignored.
    other.write("dir/file", "x");
    other.write("keep/file", "x");
    other.fake.settle();
    one.fake.pull(&other.fake);
    one.fake.settle();
    one.write("dir/tracked", "ignored");
    one.fake.settle();
    fs::remove_dir_all(other.path("dir")).unwrap();
    other.fake.settle();
    one.fake.pull(&other.fake);
    one.fake.settle();
    assert!(!one.exists("dir/file"));
    assert_eq!(one.read("dir/tracked"), "ignored");
    assert!(!one.fake.tree().contains_key("/dir"));
    // Something new in it brings it back.
    one.write("dir/new", "new");
    one.fake.settle();
    other.fake.pull(&one.fake);
    other.fake.settle();
    assert_eq!(other.read("dir/new"), "new");
}

#[test]
fn another_mount_is_not_crossed() {
    let device = Device::new(1);
    device.write("mnt/a", "a");
    device.write("b", "b");
    device.fake.settle();
    let target = device.path("mnt");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(&target)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return;
    }
    struct Unmount(PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg(&self.0).status();
        }
    }
    let mount = Unmount(target);
    device.write("mnt/other", "x");
    device.fake.settle();
    assert!(device.fake.tree().contains_key("/mnt/a"), "not deleted");
    assert!(!device.fake.tree().contains_key("/mnt/other"));
    assert!(!device.fake.problems().is_empty());
    drop(mount);
    device.fake.settle();
    device.assert_in_step();
    assert!(device.fake.problems().is_empty());
}

#[test]
fn a_file_that_is_being_written_waits() {
    let device = Device::new(1);
    let stop = Arc::new(AtomicBool::new(false));
    let (path, done) = (device.path("log"), stop.clone());
    let writer = std::thread::spawn(move || {
        let mut written = 0_u32;
        while !done.load(Ordering::SeqCst) {
            written += 1;
            fs::write(&path, vec![1; written as usize * 1000]).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        written
    });
    device.worktree.as_ref().unwrap().rescan();
    std::thread::sleep(Duration::from_millis(200));
    stop.store(true, Ordering::SeqCst);
    let written = writer.join().unwrap();
    device.fake.settle();
    device.assert_in_step();
    assert_eq!(
        device.fake.tree()["/log"].as_ref().unwrap().len(),
        written as usize * 1000
    );
}

#[test]
fn names_of_its_own_are_not_synced() {
    let (one, other) = pair();
    one.write(".ouisync-staging-mine", "x");
    one.write("d/.ouisync-x", "x");
    one.fake.settle();
    assert_eq!(one.fake.tree().len(), 1);
    other.fake.pull(&one.fake);
    other.fake.settle();
    assert!(other.exists("d"));
}
