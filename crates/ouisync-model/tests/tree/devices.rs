//! Devices that edit a tree and exchange commits.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use ouisync_model::{
    id::{ChunkId, CommitId, Lamport, MemberId, NodeId, NodeKind, OpId, Timestamp},
    name::Name,
    operation::{ChunkRef, FileContent, FileData, Operation, Value},
    tree::{
        Changes, CommitContext, Tree, edit,
        entry::Entry,
        memory::MemoryTree,
        store::TreeReader,
        tally::{Recount, Tally},
        view::View,
    },
};

/// 2026-11-23T12:00:00Z
pub(crate) const NOON: i64 = 1_795_435_200;

#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) context: CommitContext,
    pub(crate) operations: Vec<Operation>,
}

pub(crate) struct Device {
    pub(crate) tree: Tree<MemoryTree>,
    pub(crate) known: Vec<Rc<Commit>>,
    author: MemberId,
    lamport: u64,
    made: u64,
    mirror: Mirror,
    tally: Tally,
    recount: Recount,
}

/// Well spread bytes, so that no order of ids follows the order of making.
pub(crate) fn spread<const N: usize>(seed: u64) -> [u8; N] {
    let mut bytes = [0; N];
    let mut state = seed;
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mixed = (mixed ^ (mixed >> 31)).to_le_bytes();
        chunk.copy_from_slice(&mixed[..chunk.len()]);
    }
    bytes
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn path(text: &str) -> Vec<Name> {
    text.split('/')
        .filter(|part| !part.is_empty())
        .map(name)
        .collect()
}

pub(crate) fn file(content: u64) -> Value {
    let chunk = ChunkRef {
        chunk: ChunkId::from_bytes(spread(content)),
        length: 10,
    };
    Value::File(FileContent {
        size: 10,
        level: 0,
        data: FileData::Chunks(vec![chunk]),
    })
}

pub(crate) fn label(member: &MemberId) -> String {
    format!("device {}", member.as_bytes()[0])
}

impl Device {
    pub(crate) fn new(number: u8) -> Self {
        Self {
            tree: Tree::default(),
            known: Vec::new(),
            author: MemberId::from_bytes([number; 32]),
            lamport: 0,
            made: 0,
            mirror: Mirror::default(),
            tally: Tally::default(),
            recount: Recount::everything(),
        }
    }

    pub(crate) fn view(&self) -> View<'_, MemoryTree> {
        self.tree.view(&label)
    }

    pub(crate) fn at(&self, text: &str) -> Entry {
        self.find(text)
            .unwrap_or_else(|| panic!("nothing at {text}: {:?}", self.names("")))
    }

    pub(crate) fn find(&self, text: &str) -> Option<Entry> {
        self.view().lookup(&path(text)).unwrap()
    }

    pub(crate) fn directory(&self, text: &str) -> NodeId {
        if text.is_empty() {
            NodeId::ROOT
        } else {
            self.at(text).node
        }
    }

    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        let listing = self
            .view()
            .listing(self.directory(directory))
            .unwrap()
            .unwrap();
        listing.iter().map(|entry| entry.name.to_string()).collect()
    }

    pub(crate) fn fresh(&mut self) -> [u8; 16] {
        self.made += 1;
        spread(u64::from(self.author.as_bytes()[0]) << 32 | self.made)
    }

    pub(crate) fn commit(&mut self, operations: Vec<Operation>) -> Rc<Commit> {
        self.lamport += 1;
        let context = CommitContext {
            commit: CommitId::from_bytes(spread(u64::from_le_bytes(
                self.fresh()[..8].try_into().unwrap(),
            ))),
            lamport: Lamport(self.lamport),
            author: self.author,
            time: Timestamp {
                seconds: NOON,
                nanoseconds: 0,
            },
        };
        let commit = Rc::new(Commit {
            context,
            operations,
        });
        self.receive(&commit);
        commit
    }

    pub(crate) fn receive(&mut self, commit: &Rc<Commit>) {
        let changes = self
            .tree
            .apply(&commit.context, &commit.operations)
            .unwrap();
        assert!(changes.ignored.is_empty(), "{:?}", changes.ignored);
        self.mirror.follow(&self.tree, &changes);
        self.recount.add(&changes);
        // Now and then, as somebody asks.
        if self.known.len().is_multiple_of(3) {
            let recount = std::mem::take(&mut self.recount);
            let copies = self.tally.count(&self.tree.view(&label), recount).unwrap();
            assert_eq!(copies, self.view().counts().unwrap().conflicts);
        }
        self.lamport = self.lamport.max(commit.context.lamport.0);
        self.known.push(Rc::clone(commit));
    }

    /// Receives what `other` knows, in the order in which it came to know it.
    pub(crate) fn pull(&mut self, other: &Self) {
        let known: BTreeSet<_> = self
            .known
            .iter()
            .map(|commit| commit.context.commit)
            .collect();
        for commit in &other.known {
            if !known.contains(&commit.context.commit) {
                self.receive(commit);
            }
        }
    }

    pub(crate) fn check_mirror(&self) {
        self.mirror.check(&self.tree);
    }

    pub(crate) fn make_directory(&mut self, parent: &str, called: &str) -> NodeId {
        let node = NodeId::new(NodeKind::Directory, self.fresh());
        let parent = self.directory(parent);
        self.commit(edit::create(
            parent,
            name(called),
            node,
            Value::Directory,
            None,
        ));
        node
    }

    pub(crate) fn make_file(&mut self, parent: &str, called: &str, content: u64) -> NodeId {
        let node = NodeId::new(NodeKind::Leaf, self.fresh());
        let parent = self.directory(parent);
        self.commit(edit::create(
            parent,
            name(called),
            node,
            file(content),
            None,
        ));
        node
    }

    pub(crate) fn write(&mut self, at: &str, content: u64) {
        self.commit(edit::write(&self.at(at), file(content)));
    }

    pub(crate) fn delete(&mut self, at: &str) {
        let operations = self.view().delete_tree(&self.at(at)).unwrap();
        self.commit(operations);
    }

    pub(crate) fn relocate(&mut self, from: &str, directory: &str, called: &str) {
        let fresh = self.fresh();
        let parent = self.directory(directory);
        self.commit(edit::relocate(&self.at(from), parent, &name(called), fresh));
    }
}

/// Makes all devices know everything.
pub(crate) fn meet(devices: &mut [&mut Device]) {
    for _ in 0..2 {
        for one in 0..devices.len() {
            for other in 0..devices.len() {
                if one != other {
                    let [one, other] = devices.get_disjoint_mut([one, other]).unwrap();
                    one.pull(other);
                }
            }
        }
    }
    let all = everything(&devices[0].tree);
    for device in devices {
        assert_eq!(everything(&device.tree), all);
        device.check_mirror();
    }
}

/// All visible entries by path.
pub(crate) fn everything(tree: &Tree<MemoryTree>) -> BTreeMap<Vec<Name>, Entry> {
    let mut walk = tree.view(&label).walk(NodeId::ROOT).unwrap();
    let mut found = BTreeMap::new();
    while let Some((path, entry)) = walk.step().unwrap() {
        assert!(
            found.insert(path.clone(), entry).is_none(),
            "two entries at {path:?}"
        );
    }
    found
}

/// A view's copy of the tree that reads only what [`Changes`] tells it to.
#[derive(Default)]
struct Mirror {
    listings: BTreeMap<NodeId, Vec<Entry>>,
    values: BTreeMap<(NodeId, OpId), Value>,
}

impl Mirror {
    fn follow(&mut self, tree: &Tree<MemoryTree>, changes: &Changes) {
        let view = tree.view(&label);
        for directory in changes.directories.iter().chain(&changes.subtrees) {
            let canonical = view.canonical(*directory).unwrap();
            if canonical != Some(*directory) {
                self.listings.remove(directory);
            }
            if let Some(canonical) = canonical {
                self.read(&view, canonical, changes.subtrees.contains(directory));
            }
        }
        for added in &changes.added {
            let key = (added.node, added.op);
            assert_eq!(self.values.insert(key, added.value.clone()), None);
        }
        for dropped in &changes.dropped {
            let held = self.values.remove(&(dropped.node, dropped.op));
            assert_eq!(held.as_ref(), Some(&dropped.value));
        }
    }

    fn read(&mut self, view: &View<'_, MemoryTree>, directory: NodeId, all: bool) {
        let listing = view.listing(directory).unwrap().unwrap();
        let inner: Vec<_> = listing
            .iter()
            .filter(|entry| entry.is_directory())
            .map(|entry| entry.node)
            .collect();
        self.listings.insert(directory, listing);
        for directory in inner {
            if all || !self.listings.contains_key(&directory) {
                self.read(view, directory, all);
            }
        }
    }

    fn check(&self, tree: &Tree<MemoryTree>) {
        let view = tree.view(&label);
        let mut directories = vec![NodeId::ROOT];
        while let Some(directory) = directories.pop() {
            let real = view.listing(directory).unwrap().unwrap();
            let seen = self.listings.get(&directory).cloned().unwrap_or_default();
            assert_eq!(seen, real, "listing of {directory:?}");
            directories.extend(
                real.iter()
                    .filter(|e| e.is_directory())
                    .map(|entry| entry.node),
            );
        }
        let mut values = BTreeMap::new();
        for (node, state) in tree.store().nodes() {
            for (op, content) in &state.content {
                values.insert((node, *op), content.value.clone());
            }
            assert_eq!(tree.store().node(node).unwrap().as_ref(), Some(state));
        }
        assert_eq!(self.values, values);
    }
}
