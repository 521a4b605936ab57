//! The state: the same stream on every device, and a tree that goes on from it as one that had all commits.

use std::{collections::BTreeSet, io::Read};

use ouisync_crypto::{
    keys::{ContentKeys, FolderKeys},
    secret::{EpochSecret, ReadSecret},
};
use ouisync_model::{
    id::{ChunkId, EpochId, MemberId, NodeId, NodeKind, OpId, Timestamp},
    name::Name,
    operation::{
        ChunkPlace, ChunkRef, Encoding, FileContent, FileData, Metadata, Operation, PackTable,
        Value,
    },
    tree::{CommitContext, Tree, memory::MemoryTree, store::TreeReader},
};
use ouisync_store::{
    checkpoint::Skeleton,
    error::ErrorKind,
    index::{
        Index,
        state::{StateError, StateStream},
    },
};
use proptest::{prelude::*, sample::Index as Pick};
use tempfile::TempDir;

use crate::{
    dag::{History, Roster, new_store, plan},
    making::Clock,
};

fn keys() -> ContentKeys {
    let mut folder = FolderKeys::new();
    let secret = EpochSecret::Read(ReadSecret::from_bytes([1; 32]));
    folder.insert(EpochId::from_bytes([1; 32]), 0, secret);
    folder.content_keys().unwrap()
}

struct Home {
    _directory: TempDir,
    index: Index,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let index = Index::open(directory.path(), &keys()).unwrap();
        Self {
            _directory: directory,
            index,
        }
    }
}

fn node(number: u8) -> NodeId {
    match number {
        0 => NodeId::ROOT,
        number if number % 2 == 0 => NodeId::new(NodeKind::Directory, [number; 16]),
        number => NodeId::new(NodeKind::Leaf, [number; 16]),
    }
}

/// An operation whose replaced ones are named by a commit's position and an index.
#[derive(Clone, Debug)]
enum Planned {
    Place(u8, u8, u8),
    Write(u8, u8, Vec<(Pick, u32)>),
    Describe(u8, bool),
}

fn planned() -> impl Strategy<Value = Planned> {
    let number = 1u8..14;
    prop_oneof![
        3 => (number.clone(), (0u8..7).prop_map(|n| 2 * n), 0u8..4)
            .prop_map(|(node, parent, name)| Planned::Place(node, parent, name)),
        3 => (number.clone(), any::<u8>(), prop::collection::vec((any::<Pick>(), 0u32..4), 0..3))
            .prop_map(|(node, value, replaces)| Planned::Write(node, value, replaces)),
        1 => (number, any::<bool>()).prop_map(|(node, executable)| Planned::Describe(node, executable)),
    ]
}

fn operations(history: &History, planned: &[Planned]) -> Vec<Operation> {
    let one = |planned: &Planned| match planned {
        Planned::Place(at, parent, name) => Operation::Place {
            node: node(*at),
            parent: node(*parent),
            name: Name::new(format!("name {name}")).unwrap(),
        },
        Planned::Write(at, number, replaces) => {
            let (node, number) = (node(*at), *number);
            let chunk = ChunkRef {
                chunk: ChunkId::from_bytes([number; 32]),
                length: 1000,
            };
            let value = match (number % 3, node.kind()) {
                (0, _) => Value::Deleted,
                (_, NodeKind::Directory) => Value::Directory,
                (1, NodeKind::Leaf) => Value::Symlink(vec![number]),
                (_, NodeKind::Leaf) => Value::File(FileContent {
                    size: 1000,
                    level: 0,
                    data: FileData::Chunks(vec![chunk]),
                }),
            };
            let replaces = replaces.iter().map(|(commit, index)| OpId {
                commit: history.commits[commit.index(history.commits.len())].id(),
                index: *index,
            });
            Operation::Write {
                node,
                value,
                replaces: replaces.collect(),
            }
        }
        Planned::Describe(at, executable) => Operation::SetMetadata {
            node: node(*at),
            change: Metadata {
                executable: *executable,
                modified: Timestamp::default(),
            }
            .into(),
        },
    };
    planned.iter().map(one).collect()
}

struct Case {
    history: History,
    operations: Vec<Vec<Operation>>,
}

impl Case {
    fn context(&self, at: usize) -> CommitContext {
        let commit = &self.history.commits[at];
        CommitContext {
            commit: commit.id(),
            lamport: commit.header().lamport,
            author: commit.header().author,
            time: Timestamp {
                seconds: at as i64,
                nanoseconds: 0,
            },
        }
    }

    /// What a commit tells of the packs that it adds: its own places.
    fn tables(&self, at: usize) -> Vec<PackTable> {
        let added = self.history.commits[at].header().added.iter();
        let place = |number: u8| ChunkPlace {
            chunk: ChunkId::from_bytes([number; 32]),
            offset: u32::from(number),
            stored: 500,
            length: 1000,
            encoding: Encoding::Raw,
        };
        added
            .map(|add| PackTable {
                pack: add.pack,
                round: at as u8 % 3,
                chunks: vec![place(at as u8), place(at as u8 + 40)],
            })
            .collect()
    }

    fn apply(&self, index: &Index, order: &[usize]) {
        for at in order {
            let mut tree = Tree::new(index.begin());
            let context = self.context(*at);
            let tables = self.tables(*at);
            tree.store_mut()
                .add_packs(&context.commit, &tables)
                .unwrap();
            let changes = tree.apply(&context, &self.operations[*at]).unwrap();
            tree.store_mut().account(&changes).unwrap();
            tree.into_store().commit().unwrap();
        }
    }

    fn memory(&self, order: &[usize]) -> MemoryTree {
        let mut tree = Tree::new(MemoryTree::new());
        for at in order {
            tree.apply(&self.context(*at), &self.operations[*at])
                .unwrap();
        }
        tree.into_store()
    }
}

fn state(index: &Index, skeleton: &Skeleton) -> (Vec<u8>, [u8; 32]) {
    let snapshot = index.snapshot();
    let mut stream = StateStream::new(&snapshot, skeleton);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(stream.digest(), *blake3::hash(&bytes).as_bytes());
    assert_eq!(
        StateStream::new(&snapshot, skeleton).finish().unwrap(),
        stream.digest()
    );
    (bytes, stream.digest())
}

fn assert_tree(index: &Index, memory: &MemoryTree) {
    for number in 0..14 {
        let node = node(number);
        assert_eq!(index.node(node).unwrap(), memory.node(node).unwrap());
        let children: BTreeSet<_> = index.children(node).unwrap().into_iter().collect();
        let expected: BTreeSet<_> = memory.children(node).unwrap().into_iter().collect();
        assert_eq!(children, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_goes_on_from_a_state_as_from_all_commits(
        plans in prop::collection::vec(plan(), 1..14),
        planned in prop::collection::vec(prop::collection::vec(planned(), 0..6), 14),
        heads in prop::collection::vec(any::<Pick>(), 1..3),
        orders in prop::collection::vec(prop::collection::vec(any::<u32>(), 14), 4),
    ) {
        let history = History::new(&plans);
        let operations = (0..history.commits.len())
            .map(|at| operations(&history, &planned[at]))
            .collect();
        let case = Case { history, operations };
        let all: BTreeSet<usize> = (0..case.operations.len()).collect();
        let covered = case.history.closure(heads.iter().map(|head| head.index(all.len())));
        let rest: BTreeSet<usize> = all.difference(&covered).copied().collect();
        let (_, store) = new_store(&Clock::new());
        case.history.put(&store, &case.history.order(&all, &orders[0]), &Roster::default());
        let skeleton = store.skeleton(&case.history.heads(&covered), &Roster::default()).unwrap();
        let everything = store.skeleton(&store.heads(), &Roster::default()).unwrap();

        // Any order at all gives the same stream, also one in which values are replaced before they come.
        let mut unordered: Vec<usize> = covered.iter().copied().collect();
        unordered.sort_by_key(|at| orders[1][*at]);
        let (one, other) = (Home::new(), Home::new());
        case.apply(&one.index, &case.history.order(&covered, &orders[2]));
        case.apply(&other.index, &unordered);
        let (bytes, digest) = state(&one.index, &skeleton);
        prop_assert_eq!(&state(&other.index, &skeleton).0, &bytes);

        let started = Home::new();
        started.index.load_state(&mut bytes.as_slice(), &digest, &skeleton).unwrap();
        prop_assert_eq!(&state(&started.index, &skeleton).0, &bytes);
        prop_assert_eq!(started.index.totals(), one.index.totals());
        prop_assert_eq!(started.index.position(), {
            let batch = one.index.begin();
            let mut position = batch.position();
            position.lamport = started.index.position().lamport;
            position
        });
        assert_tree(&started.index, &case.memory(&unordered));

        // What wasn't covered, in any order.
        let mut late: Vec<usize> = rest.iter().copied().collect();
        late.sort_by_key(|at| orders[3][*at]);
        case.apply(&started.index, &late);
        case.apply(&one.index, &case.history.order(&rest, &orders[1]));
        let full = Home::new();
        case.apply(&full.index, &case.history.order(&all, &orders[3]));
        assert_tree(&started.index, &case.memory(&case.history.order(&all, &orders[0])));
        let expected = state(&full.index, &everything).0;
        prop_assert_eq!(&state(&started.index, &everything).0, &expected);
        prop_assert_eq!(&state(&one.index, &everything).0, &expected);
        prop_assert_eq!(started.index.totals(), full.index.totals());
        // Applying again what is covered changes nothing.
        case.apply(&started.index, &case.history.order(&covered, &orders[0]));
        prop_assert_eq!(&state(&started.index, &everything).0, &expected);
    }

    #[test]
    fn changed_states_are_refused_or_give_a_sound_tree(
        planned in prop::collection::vec(planned(), 1..20),
        at in any::<Pick>(),
        change in any::<u8>(),
        kind in 0u8..4,
    ) {
        let plans = [];
        let mut history = History::new(&plans);
        history.commits.push(crate::making::commit(0, 1, &[], &[&history.packs[0]], &[]));
        history.follows.push(None);
        let operations = vec![operations(&history, &planned)];
        let case = Case { history, operations };
        let (_, store) = new_store(&Clock::new());
        case.history.put(&store, &[0], &Roster::default());
        let skeleton = store.skeleton(&store.heads(), &Roster::default()).unwrap();
        let home = Home::new();
        case.apply(&home.index, &[0]);
        let (mut bytes, digest) = state(&home.index, &skeleton);
        let at = at.index(bytes.len());
        match kind {
            0 => bytes[at] ^= change.max(1),
            1 => bytes.truncate(at),
            2 => bytes.insert(at, change),
            _ => { bytes.remove(at); }
        }
        let target = Home::new();
        prop_assert!(target.index.load_state(&mut bytes.as_slice(), &digest, &skeleton).is_err());
        // With a digest to match it may load; whatever it is then can be walked and loaded once more.
        target.index.clear_tree().unwrap();
        let digest = *blake3::hash(&bytes).as_bytes();
        match target.index.load_state(&mut bytes.as_slice(), &digest, &skeleton) {
            Ok(()) => {
                let (again, digest) = state(&target.index, &skeleton);
                let other = Home::new();
                other.index.load_state(&mut again.as_slice(), &digest, &skeleton).unwrap();
                let label = |_: &MemberId| String::new();
                Tree::new(other.index.snapshot()).view(&label).counts().unwrap();
            }
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Corruption),
        }
    }
}

#[test]
fn a_record_is_as_long_as_what_is_there() {
    let (_, store) = new_store(&Clock::new());
    let first = crate::making::commit(0, 1, &[], &[], &[]);
    store
        .put_commits(
            std::slice::from_ref(&first),
            ouisync_store::catalogue::Disposition::Accepted,
            true,
        )
        .unwrap();
    let skeleton = store.skeleton(&[first.id()], &Roster::default()).unwrap();
    for bytes in [
        [1, 0xff, 0xff, 0xff, 0x0f, 0].as_slice(),
        &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[2],
        &[],
        &[1, 1],
    ] {
        let home = Home::new();
        let digest = *blake3::hash(bytes).as_bytes();
        let mut source: &[u8] = bytes;
        assert!(matches!(
            home.index.load_state(&mut source, &digest, &skeleton),
            Err(StateError::Malformed(_))
        ));
    }
}
