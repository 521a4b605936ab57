//! One directory or two, over folders in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    fake::Fake,
    record,
    worktree::{Worktree, WorktreeOptions},
};

mod brake;
mod crash;
mod drafts;
mod held;
mod local;
mod oddities;
mod offload;
mod random;
mod remote;
mod speed;
mod staging;

/// A folder with its directory.
struct Device {
    fake: Arc<Fake>,
    directory: TempDir,
    worktree: Option<Worktree>,
}

fn options() -> WorktreeOptions {
    WorktreeOptions {
        debounce: Duration::from_millis(25),
        retry_interval: Duration::from_millis(300),
        watch: false,
        ..WorktreeOptions::default()
    }
}

impl Device {
    fn new(member: u8) -> Self {
        let mut device = Self::detached(member);
        device.attach();
        device.fake.settle();
        device
    }

    fn detached(member: u8) -> Self {
        Self {
            fake: Fake::new(member),
            directory: tempfile::tempdir().unwrap(),
            worktree: None,
        }
    }

    fn attach(&mut self) {
        self.attach_with(options());
    }

    fn attach_with(&mut self, options: WorktreeOptions) {
        self.worktree = None;
        self.worktree = Some(Worktree::attach(self.fake.view(), self.root(), options).unwrap());
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Where the staging directory is while it is needed.
    fn staging(&self) -> PathBuf {
        let view = self.fake.view();
        let meta = view.record(&record::meta_key()).unwrap().unwrap();
        let meta: record::Meta = record::decode(&meta).unwrap();
        self.root()
            .join(std::str::from_utf8(&meta.staging).unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8(
            fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}")),
        )
        .unwrap()
    }

    fn exists(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// What is on disk, as [`Fake::tree`] shows the tree.
    fn disk(&self) -> BTreeMap<String, Option<Vec<u8>>> {
        let mut shown = BTreeMap::new();
        list(&self.root(), "", &mut shown);
        shown
    }

    #[track_caller]
    fn assert_in_step(&self) {
        let (disk, tree) = (self.disk(), self.fake.tree());
        if disk != tree {
            let names = |shown: &BTreeMap<String, Option<Vec<u8>>>| {
                shown
                    .iter()
                    .map(|(path, content)| {
                        format!(
                            "{path} {:?}",
                            content.as_ref().map(|content| String::from_utf8_lossy(
                                &content[..content.len().min(30)]
                            )
                            .into_owned())
                        )
                    })
                    .collect::<Vec<_>>()
            };
            panic!(
                "disk {:#?}\ntree {:#?}\nproblems {:#?}",
                names(&disk),
                names(&tree),
                self.fake.problems()
            );
        }
    }
}

fn is_staging(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".ouisync-")
}

fn list(directory: &Path, prefix: &str, shown: &mut BTreeMap<String, Option<Vec<u8>>>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(b".ouisync-undone")
        {
            continue;
        }
        let path = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().unwrap();
        let content = if kind.is_dir() {
            list(&entry.path(), &path, shown);
            None
        } else if kind.is_symlink() {
            Some(
                [
                    b"-> ",
                    fs::read_link(entry.path())
                        .unwrap()
                        .as_os_str()
                        .as_encoded_bytes(),
                ]
                .concat(),
            )
        } else if kind.is_file() {
            Some(fs::read(entry.path()).unwrap())
        } else {
            continue;
        };
        shown.insert(path, content);
    }
}

/// Both get all of the other and settle, until nothing changes any more.
#[track_caller]
fn sync(one: &Device, other: &Device) {
    for _ in 0..10 {
        let before = (one.fake.commits(), other.fake.commits());
        one.fake.settle();
        other.fake.settle();
        one.fake.pull(&other.fake);
        other.fake.pull(&one.fake);
        one.fake.settle();
        other.fake.settle();
        if (one.fake.commits(), other.fake.commits()) == before {
            one.assert_in_step();
            other.assert_in_step();
            assert_eq!(one.disk(), other.disk());
            return;
        }
    }
    panic!("two directories never come to rest");
}

fn pair() -> (Device, Device) {
    (Device::new(1), Device::new(2))
}

#[track_caller]
fn wait(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(40), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Places with a record, and places with an intent.
fn recorded(device: &Device) -> (usize, usize) {
    let records = device.fake.view_records();
    let stored: Vec<_> = records
        .iter()
        .filter(|(key, _)| *key != record::meta_key())
        .map(|(_, bytes)| record::decode::<record::Stored>(bytes).unwrap())
        .collect();
    let count = |holds: fn(&record::Stored) -> bool| stored.iter().filter(|s| holds(s)).count();
    (
        count(|stored| stored.base.is_some()),
        count(|stored| stored.intent.is_some()),
    )
}
