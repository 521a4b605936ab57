//! People at simulated devices: what they do to the folder through a view, and what they were told is kept.

use std::sync::Arc;

use ouisync_engine::{error::EngineError, view::FolderView};
use ouisync_model::{
    id::{CommitId, NodeId, NodeKind},
    name::Name,
    operation::{FileContent, Value},
    tree::{edit, entry::Entry},
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

/// Stands in every name and text that people make: a safe must not have it anywhere.
pub(super) const MARK: &str = "kept-from-safes";

/// Entries that a person looks at.
const MANY: usize = 200;

/// Something that a device told a person is kept.
#[derive(Clone)]
pub(super) struct Written {
    pub(super) device: usize,
    pub(super) commit: CommitId,
    pub(super) name: String,
    pub(super) content: FileContent,
    pub(super) bytes: Arc<Vec<u8>>,
}

/// An entry with the directory that it is in.
pub(super) struct Seen {
    pub(super) parent: NodeId,
    pub(super) path: String,
    pub(super) entry: Entry,
}

/// Everything that the view shows, parents first; not more than `limit`.
pub(super) fn walk(view: &FolderView, limit: usize) -> Result<Vec<Seen>, EngineError> {
    let mut seen: Vec<Seen> = Vec::new();
    let mut waiting = vec![(NodeId::ROOT, String::new())];
    while let Some((parent, above)) = waiting.pop() {
        for entry in view.list(parent)? {
            let path = format!("{above}/{}", entry.name);
            if entry.is_directory() {
                waiting.push((entry.node, path.clone()));
            }
            seen.push(Seen {
                parent,
                path,
                entry,
            });
            if seen.len() >= limit {
                return Ok(seen);
            }
        }
    }
    Ok(seen)
}

/// Reads a file; `None` when some of it is not here.
pub(super) fn read(
    view: &FolderView,
    content: &FileContent,
) -> Result<Option<Vec<u8>>, EngineError> {
    if !view.missing_packs(content)?.is_empty() {
        return Ok(None);
    }
    let mut stream = view.open(content)?;
    let mut bytes = Vec::new();
    while let Some((_, chunk)) = stream.next_chunk()? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

/// What somebody does at a device.
pub(super) struct Person<'a> {
    pub(super) view: &'a FolderView,
    pub(super) device: usize,
    pub(super) rng: StdRng,
}

impl<'a> Person<'a> {
    pub(super) fn new(view: &'a FolderView, device: usize, choice: u64) -> Self {
        let rng = StdRng::seed_from_u64(choice);
        Self { view, device, rng }
    }

    /// Does something; tells what, and what was acknowledged.
    pub(super) fn act(&mut self) -> Result<(String, Option<Written>), EngineError> {
        let seen = walk(self.view, MANY)?;
        let files: Vec<&Seen> = seen
            .iter()
            .filter(|seen| matches!(seen.entry.value, Value::File(_)))
            .collect();
        let picked = |rng: &mut StdRng, count: usize| rng.random_range(0..count.max(1));
        match self.rng.random_range(0..20) {
            0..8 if !files.is_empty() => {
                let index = picked(&mut self.rng, files.len());
                self.edit(files[index])
            }
            8..11 if !seen.is_empty() => {
                let index = picked(&mut self.rng, seen.len());
                self.move_away(&seen, &seen[index])
            }
            11..13 if !seen.is_empty() => {
                let index = picked(&mut self.rng, seen.len());
                let operations = edit::delete(&seen[index].entry);
                self.view.commit(operations, Vec::new())?;
                Ok((format!("deleted {}", seen[index].path), None))
            }
            13..15 => {
                let parent = self.directory(&seen);
                let name = self.name("dir");
                let node = NodeId::new(NodeKind::Directory, self.rng.random());
                let made = edit::create(parent, name.clone(), node, Value::Directory, None);
                self.view.commit(made, Vec::new())?;
                Ok((format!("made the directory {name}"), None))
            }
            _ => self.create(&seen),
        }
    }

    /// Few names, so that they meet.
    fn name(&mut self, kind: &str) -> Name {
        let number = self.rng.random_range(0..6);
        Name::new(format!("{kind}-{MARK}-{number}")).expect("a name")
    }

    fn directory(&mut self, seen: &[Seen]) -> NodeId {
        let directories: Vec<_> = seen
            .iter()
            .filter(|seen| seen.entry.is_directory())
            .collect();
        match self.rng.random_range(0..=directories.len()) {
            0 => NodeId::ROOT,
            index => directories[index - 1].entry.node,
        }
    }

    /// New bytes: short or long, text or noise.
    fn bytes(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..10) {
            0 => Vec::new(),
            1..6 => {
                let lines = self.rng.random_range(1..40);
                let line = |rng: &mut StdRng| format!("{MARK} {}\n", rng.random::<u64>());
                let text: String = (0..lines).map(|_| line(&mut self.rng)).collect();
                text.into_bytes()
            }
            6..9 => {
                let mut bytes = vec![0; self.rng.random_range(4000..60_000)];
                self.rng.fill_bytes(&mut bytes);
                bytes.extend_from_slice(MARK.as_bytes());
                bytes
            }
            _ => {
                let mut bytes = vec![0; self.rng.random_range(60_000..600_000)];
                self.rng.fill_bytes(&mut bytes);
                bytes
            }
        }
    }

    fn store(
        &mut self,
        path: String,
        bytes: Vec<u8>,
        previous: Option<&FileContent>,
        operations: impl FnOnce(Value) -> Vec<ouisync_model::operation::Operation>,
    ) -> Result<Option<Written>, EngineError> {
        let size = bytes.len() as u64;
        let content = self.view.ingest(&mut bytes.as_slice(), size, previous)?;
        let operations = operations(Value::File(content.clone()));
        let commit = self.view.commit(operations, Vec::new())?;
        Ok(commit.map(|commit| Written {
            device: self.device,
            commit,
            name: path,
            content,
            bytes: Arc::new(bytes),
        }))
    }

    fn create(&mut self, seen: &[Seen]) -> Result<(String, Option<Written>), EngineError> {
        let parent = self.directory(seen);
        let name = self.name("file");
        let node = NodeId::new(NodeKind::Leaf, self.rng.random());
        let bytes = self.bytes();
        let did = format!("made {name} of {} bytes", bytes.len());
        let written = self.store(name.to_string(), bytes, None, |value| {
            edit::create(parent, name, node, value, None)
        })?;
        Ok((did, written))
    }

    fn edit(&mut self, seen: &Seen) -> Result<(String, Option<Written>), EngineError> {
        let Value::File(previous) = &seen.entry.value else {
            return Ok((String::new(), None));
        };
        let before = read(self.view, previous)?;
        let bytes = match before.and_then(|bytes| String::from_utf8(bytes).ok()) {
            // A line of a text, so that edits merge.
            Some(text) if !text.is_empty() => {
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                let index = self.rng.random_range(0..lines.len());
                lines[index] = format!("{MARK} {}", self.rng.random::<u64>());
                lines
                    .iter()
                    .flat_map(|line| [line, "\n"])
                    .collect::<String>()
                    .into_bytes()
            }
            _ => self.bytes(),
        };
        let did = format!("wrote {} bytes to {}", bytes.len(), seen.path);
        let entry = seen.entry.clone();
        let written = self.store(seen.path.clone(), bytes, Some(previous), |value| {
            edit::write(&entry, value)
        })?;
        Ok((did, written))
    }

    fn move_away(
        &mut self,
        all: &[Seen],
        seen: &Seen,
    ) -> Result<(String, Option<Written>), EngineError> {
        let parent = match self.rng.random::<bool>() {
            true => self.directory(all),
            false => seen.parent,
        };
        // Never into itself; what others do meanwhile is the tree's business.
        let mut above = Some(parent);
        while let Some(node) = above {
            if node == seen.entry.node {
                return Ok((format!("left {} where it is", seen.path), None));
            }
            above = all
                .iter()
                .find(|other| other.entry.node == node)
                .map(|other| other.parent);
        }
        let kind = if seen.entry.is_directory() {
            "dir"
        } else {
            "file"
        };
        let name = self.name(kind);
        let operations = edit::relocate(&seen.entry, parent, &name, self.rng.random());
        self.view.commit(operations, Vec::new())?;
        Ok((format!("moved {} to {name}", seen.path), None))
    }
}
