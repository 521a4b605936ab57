//! The tree of a folder under any operations in any order.

use std::collections::BTreeSet;

use ouisync_model::{
    id::{ChunkId, CommitId, Lamport, MemberId, NodeId, NodeKind, OpId, Timestamp},
    name::Name,
    operation::{ChunkRef, FileContent, FileData, MetadataChange, Operation, Value},
    tree::{CommitContext, Tree, memory::MemoryTree},
};

use crate::operations::Program;

const NAMES: [&[u8]; 6] = [
    b"a",
    b"b.txt",
    b".c",
    b"\xff",
    b"a (conflict 1970-01-01 x)",
    &[b'n'; 255],
];

/// Any set of operations is valid; the order in which commits come makes no difference; names shown are different.
pub(crate) fn tree(data: &[u8]) {
    let mut program = Program(data);
    let mut commits = Vec::new();
    while !program.is_empty() && commits.len() < 24 {
        let number = commits.len() as u8;
        let count = 1 + program.below(5);
        let operations: Vec<_> = (0..count)
            .map(|_| operation(&mut program, number))
            .collect();
        let context = CommitContext {
            commit: CommitId::from_bytes([number; 32]),
            lamport: Lamport(1 + program.below(6) as u64),
            author: MemberId::from_bytes([number % 3; 32]),
            time: Timestamp {
                seconds: match program.below(8) {
                    0 => i64::MIN,
                    1 => i64::MAX,
                    other => other as i64 * 86_400,
                },
                nanoseconds: 0,
            },
        };
        commits.push((context, operations));
    }
    let shown = of(commits.iter());
    assert_eq!(shown, of(commits.iter().rev()), "the order of arrival");
    let (late, early): (Vec<_>, Vec<_>) = commits
        .iter()
        .partition(|(context, _)| context.lamport.0 % 2 == 0);
    assert_eq!(
        shown,
        of(late.into_iter().chain(early)),
        "the order of arrival"
    );
}

/// Paths and what is there, depth first.
fn of<'a>(commits: impl Iterator<Item = &'a (CommitContext, Vec<Operation>)>) -> Vec<String> {
    let mut tree = Tree::new(MemoryTree::new());
    for (context, operations) in commits {
        let Ok(_) = tree.apply(context, operations);
    }
    let label = |member: &MemberId| match member.as_bytes()[0] {
        0 => String::new(),
        1 => "../\u{202e} x\n".to_owned(),
        _ => "\u{e9}".repeat(60),
    };
    let view = tree.view(&label);
    let mut shown = Vec::new();
    let mut waiting = vec![(NodeId::ROOT, 0)];
    while let Some((directory, depth)) = waiting.pop() {
        assert!(depth < 64, "a cycle");
        let Ok(listing) = view.listing(directory);
        let listing = listing.expect("a visible directory");
        let names: BTreeSet<_> = listing.iter().map(|entry| &entry.name).collect();
        assert_eq!(names.len(), listing.len(), "two entries of one name");
        for entry in &listing {
            shown.push(format!(
                "{depth} {:?} {:?}",
                entry.name.as_bytes(),
                entry.value
            ));
            assert_eq!(view.entry(directory, &entry.name), Ok(Some(entry.clone())));
            if entry.is_directory() {
                waiting.push((entry.node, depth + 1));
            }
        }
    }
    shown
}

fn node(program: &mut Program<'_>) -> NodeId {
    match program.below(9) {
        0 => NodeId::ROOT,
        number if number < 5 => NodeId::new(NodeKind::Directory, [number as u8; 16]),
        number => NodeId::new(NodeKind::Leaf, [number as u8; 16]),
    }
}

fn operation(program: &mut Program<'_>, now: u8) -> Operation {
    let node = node(program);
    match program.below(4) {
        0 | 3 => Operation::Place {
            node,
            parent: self::node(program),
            name: Name::new(NAMES[program.below(NAMES.len())]).expect("a name"),
        },
        1 => Operation::Write {
            node,
            value: value(program),
            replaces: (0..program.below(3))
                .map(|_| OpId {
                    commit: CommitId::from_bytes([program.below(usize::from(now) + 2) as u8; 32]),
                    index: program.below(5) as u32,
                })
                .collect(),
        },
        _ => Operation::SetMetadata {
            node,
            change: MetadataChange {
                executable: [None, Some(false), Some(true)][program.below(3)],
                modified: None,
            },
        },
    }
}

fn value(program: &mut Program<'_>) -> Value {
    let part = ChunkRef {
        chunk: ChunkId::from_bytes([program.below(2) as u8; 32]),
        length: 3,
    };
    let data = match program.below(6) {
        0 => return Value::Deleted,
        1 => return Value::Directory,
        2 => return Value::Symlink(vec![b'x'; program.below(2)]),
        3 => FileData::Inline(part.chunk, vec![1, 2, 3]),
        4 => FileData::Chunks(vec![part; program.below(2)]),
        _ => FileData::Indirect(vec![part]),
    };
    let size = match &data {
        FileData::Chunks(chunks) if chunks.is_empty() => 0,
        _ => 3,
    };
    Value::File(FileContent {
        size,
        level: program.below(3) as u8,
        data,
    })
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    (1..5u8)
        .map(|seed| {
            (0..200u8)
                .map(|at| at.wrapping_mul(seed.wrapping_mul(37)).rotate_left(3))
                .collect()
        })
        .collect()
}
