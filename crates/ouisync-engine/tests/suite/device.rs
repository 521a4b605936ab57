//! A device for tests: an engine on a home of its own, and a view that writes and reads whole files in the root.

use std::{
    io::Read,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use ouisync_engine::{
    engine::{CheckProgress, Engine, EngineOptions, InvitationOptions},
    error::EngineError,
    housekeeping::Housekeeping,
    status::{FolderStatus, Role, VerifyOutcome},
    view::FolderView,
};
use ouisync_model::{
    id::{FolderId, NodeId, NodeKind},
    name::Name,
    operation::{FileContent, Value},
    tree::{edit, entry::Entry},
};
use tokio::task::block_in_place;

/// Nothing in these tests takes longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A device with its home; it can stop and start again on the same address.
pub(crate) struct Device {
    name: String,
    home: tempfile::TempDir,
    engine: Option<Engine>,
    listen: SocketAddr,
    housekeeping: Housekeeping,
}

pub(crate) fn quick() -> Housekeeping {
    Housekeeping {
        tick: Duration::from_millis(50),
        merge: Duration::from_millis(100),
        reserve: 0,
        ..Housekeeping::default()
    }
}

impl Device {
    pub(crate) async fn start(name: &str) -> Self {
        Self::with(name, quick()).await
    }

    pub(crate) async fn with(name: &str, housekeeping: Housekeeping) -> Self {
        let mut device = Self {
            name: name.to_owned(),
            home: tempfile::tempdir().unwrap(),
            engine: None,
            listen: own_address(),
            housekeeping,
        };
        device.go_on().await;
        device
    }

    /// Starts it again where it was.
    pub(crate) async fn go_on(&mut self) {
        let options = EngineOptions {
            home: self.home(),
            listen: Some(self.listen),
            lan: false,
            device_name: self.name.clone(),
            housekeeping: self.housekeeping.clone(),
            key_ring: None,
        };
        let engine = Engine::start(options).await.unwrap();
        self.listen = engine.device().sockets[0];
        self.engine = Some(engine);
    }

    pub(crate) async fn stop(&mut self) {
        let engine = self.engine.take().unwrap();
        tokio::time::timeout(Duration::from_secs(10), engine.shutdown())
            .await
            .expect("the shutdown is bounded");
    }

    /// As it starts the next time.
    pub(crate) fn set_housekeeping(&mut self, housekeeping: Housekeeping) {
        self.housekeeping = housekeeping;
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.home.path().join("home")
    }

    pub(crate) fn store(&self, folder: FolderId) -> PathBuf {
        self.home().join("folders").join(&folder.to_string()[..32])
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    pub(crate) async fn create(&self) -> FolderId {
        self.engine().create_folder("voyage").await.unwrap().folder
    }

    pub(crate) async fn invite(&self, folder: FolderId, role: Role) -> String {
        let options = InvitationOptions {
            role,
            uses: 1,
            expires: None,
        };
        self.engine().invite(folder, options).await.unwrap().link
    }

    pub(crate) async fn join(&self, link: &str) {
        self.engine().join(link, None, DEADLINE).await.unwrap();
    }

    /// Makes it dial the other now, so that no test waits for a pause between dials to pass.
    pub(crate) async fn meet(&self, other: &Device) {
        let info = other.engine().device();
        self.engine()
            .connect(&format!("{}@{}", info.device, info.sockets[0]))
            .await
            .unwrap();
    }

    pub(crate) async fn wait(&self, folder: FolderId) {
        self.engine()
            .wait(folder, Some(DEADLINE))
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    pub(crate) async fn status(&self, folder: FolderId) -> FolderStatus {
        self.engine().status(folder).await.unwrap()
    }

    pub(crate) async fn verify(&self, folder: FolderId) -> VerifyOutcome {
        self.engine().verify(folder, Box::new(Quiet)).await.unwrap()
    }

    pub(crate) fn view(&self, folder: FolderId) -> View {
        View(self.engine().view(folder).unwrap())
    }

    /// Writes a file through a view of its own.
    pub(crate) fn write(&self, folder: FolderId, name: &str, bytes: &[u8]) {
        self.view(folder)
            .write(name, bytes)
            .unwrap_or_else(|error| panic!("{}: {name}: {error}", self.name));
    }

    pub(crate) fn read(&self, folder: FolderId, name: &str) -> Option<Vec<u8>> {
        self.view(folder).read(name)
    }

    pub(crate) fn names(&self, folder: FolderId) -> Vec<String> {
        self.view(folder).names()
    }

    /// Waits until the file is there with that content.
    pub(crate) async fn sees(&self, folder: FolderId, name: &str, bytes: &[u8]) {
        let what = format!("{} sees {name}", self.name);
        eventually(&what, async || {
            let Ok(view) = self.engine().view(folder) else {
                return false;
            };
            View(view).read(name).as_deref() == Some(bytes)
        })
        .await;
    }

    /// Waits until the condition holds for the folder's status.
    pub(crate) async fn becomes(
        &self,
        folder: FolderId,
        what: &str,
        condition: impl Fn(&FolderStatus) -> bool,
    ) {
        let begun = Instant::now();
        loop {
            let status = self.status(folder).await;
            if condition(&status) {
                return;
            }
            assert!(
                begun.elapsed() < DEADLINE,
                "{} never was {what}: {status:#?}",
                self.name
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A loopback address that no other device of the tests has, so that a port is still free when its device comes back.
fn own_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    SocketAddr::from((
        [127, high.max(1), low, NEXT.fetch_add(1, Ordering::Relaxed)],
        0,
    ))
}

/// Polls until the condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < DEADLINE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Quiet;

impl CheckProgress for Quiet {
    fn progress(&mut self, _done: u64, _total: u64) -> bool {
        true
    }
}

/// A folder as a view has it.
pub(crate) struct View(pub(crate) FolderView);

impl View {
    pub(crate) fn entries(&self) -> Vec<Entry> {
        block_in_place(|| self.0.list(NodeId::ROOT)).unwrap_or_default()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.entries()
            .iter()
            .map(|entry| entry.name.to_string())
            .collect()
    }

    pub(crate) fn entry(&self, name: &str) -> Option<Entry> {
        self.entries()
            .into_iter()
            .find(|entry| entry.name.as_bytes() == name.as_bytes())
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), EngineError> {
        self.write_from(name, &mut &bytes[..], bytes.len() as u64)
            .map(|_| ())
    }

    pub(crate) fn write_from(
        &self,
        name: &str,
        source: &mut dyn Read,
        size_hint: u64,
    ) -> Result<FileContent, EngineError> {
        let before = self.entry(name);
        let previous = before.as_ref().and_then(|entry| match &entry.value {
            Value::File(content) => Some(content.clone()),
            _ => None,
        });
        block_in_place(|| {
            let content = self.0.ingest(source, size_hint, previous.as_ref())?;
            let value = Value::File(content.clone());
            let operations = match &before {
                Some(entry) => edit::write(entry, value),
                None => edit::create(NodeId::ROOT, Name::new(name).unwrap(), fresh(), value, None),
            };
            self.0.commit(operations, Vec::new())?;
            Ok(content)
        })
    }

    pub(crate) fn delete(&self, name: &str) {
        let entry = self.entry(name).unwrap();
        block_in_place(|| self.0.commit(edit::delete(&entry), Vec::new())).unwrap();
    }

    /// The content of a file; none while it is not there or something of it is missing.
    pub(crate) fn read(&self, name: &str) -> Option<Vec<u8>> {
        let Some(Value::File(content)) = self.entry(name).map(|entry| entry.value) else {
            return None;
        };
        block_in_place(|| self.content(&content))
    }

    /// Some content; none while something of it is missing.
    pub(crate) fn content(&self, content: &FileContent) -> Option<Vec<u8>> {
        if !self.0.missing_packs(content).ok()?.is_empty() {
            return None;
        }
        let mut stream = self.0.open(content).ok()?;
        let mut bytes = Vec::new();
        while let Some((offset, chunk)) = stream.next_chunk().ok()? {
            assert_eq!(offset, bytes.len() as u64);
            bytes.extend_from_slice(&chunk);
        }
        assert_eq!(bytes.len() as u64, content.size);
        Some(bytes)
    }
}

pub(crate) fn fresh() -> NodeId {
    NodeId::new(NodeKind::Leaf, rand::random())
}

/// Bytes that don't compress.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::fill(&mut bytes[..]);
    bytes
}

/// The files below a directory.
pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path)
            } else {
                found.push(path)
            }
        }
    }
    found
}

/// Copies a directory with everything in it.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    for path in files_below(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&path, &target).unwrap();
    }
}

/// What one file of the device's packs is called.
pub(crate) fn packs_of(device: &Device, folder: FolderId) -> Vec<PathBuf> {
    files_below(&device.store(folder).join("packs"))
}
