//! What peers send, and what of it lies on disk.

use bytes::Bytes;
use ouisync_crypto::{
    commit::{Commit, CommitDraft, LiveDigest, PackAdd},
    identity::MemberIdentity,
    proof::{ChannelId, Tag},
    secret::ReadSecret,
};
use ouisync_model::{
    id::{
        ChunkId, CommitId, EpochId, FolderId, Lamport, MemberId, NodeId, NodeKind, OpId, PackId,
        RosterEntryId, Sequence, Timestamp,
    },
    name::Name,
    operation::{
        ChunkPlace, ChunkRef, CommitBody, DraftPart, Encoding, FileContent, FileData, MetadataChange,
        Operation, PackSize, PackTable, Value,
    },
};
use ouisync_sync::codec::{self, Blob, Chain, FolderMessage, Message};

/// The control stream, in pieces.
pub(crate) fn wire(data: &[u8]) {
    let mut decoder = codec::Decoder::new();
    'pieces: for piece in data.chunks(97) {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(message)) => again(&message),
                Ok(None) => break,
                Err(_) => break 'pieces,
            }
        }
    }
    if let Ok(message) = codec::decode(data) {
        again(&message);
    }
}

/// What was understood is understood alike when it is sent on.
fn again(message: &Message) {
    let bytes = codec::encode(message).expect("a decoded message is within the limits");
    assert_eq!(codec::decode(&bytes[4..]).expect("own encoding"), *message);
}

pub(crate) fn wire_seeds() -> Vec<Vec<u8>> {
    let folder = |message| Message::Folder {
        channel: ChannelId(7),
        message,
    };
    let chain = Chain {
        author: MemberId::from_bytes([1; 32]),
        sequence: Sequence(3),
        head: CommitId::from_bytes([2; 32]),
    };
    let pack = PackId::from_bytes([3; 32]);
    let messages = [
        Message::Hello {
            version: 1,
            features: 0,
        },
        Message::Proofs {
            tags: vec![Tag([1; 16]); 16],
        },
        folder(FolderMessage::Roster {
            heads: vec![RosterEntryId::from_bytes([4; 32])],
        }),
        folder(FolderMessage::RosterEntries {
            entries: vec![Blob(Bytes::from_static(b"entry"))],
            more: true,
        }),
        folder(FolderMessage::Heads {
            chains: vec![chain],
        }),
        folder(FolderMessage::Commits {
            commits: vec![Blob(Bytes::from_static(b"commit"))],
            lacking: vec![pack],
        }),
        folder(FolderMessage::Holds { packs: vec![pack] }),
        folder(FolderMessage::Checkpoint {
            commit: Blob(Bytes::from_static(b"commit")),
            length: 70,
        }),
        folder(FolderMessage::Skeleton {
            checkpoint: chain.head,
            offset: 0,
            data: Blob(Bytes::from_static(b"skeleton")),
        }),
        folder(FolderMessage::PastWant {
            commits: vec![chain.head],
        }),
        folder(FolderMessage::Past {
            commits: vec![Blob(Bytes::from_static(b"commit"))],
            answered: 1,
        }),
        folder(FolderMessage::Want {
            pack,
            first: 0,
            count: 4,
            hashes: true,
        }),
    ];
    let encoded = messages
        .iter()
        .filter_map(|message| codec::encode(message).ok());
    let encoded: Vec<_> = encoded.map(|bytes| bytes.to_vec()).collect();
    std::iter::once(encoded.concat())
        .chain(encoded.clone())
        .collect()
}

/// A commit's header and signature.
pub(crate) fn commit(data: &[u8]) {
    if let Ok(commit) = Commit::decode(data.to_vec()) {
        assert_eq!(commit.as_bytes(), data);
        let _ = commit.verify();
        let _ = commit.open_body(&ReadSecret::from_bytes([9; 32]));
    }
}

pub(crate) fn commit_seeds() -> Vec<Vec<u8>> {
    let identity = MemberIdentity::from_bytes(&[5; MemberIdentity::LENGTH]);
    let id = [6; 32];
    let parents = [
        Vec::new(),
        vec![CommitId::from_bytes([1; 32]), CommitId::from_bytes([2; 32])],
    ];
    let made = parents.into_iter().map(|parents| {
        let draft = CommitDraft {
            folder: FolderId::from_bytes(id),
            sequence: Sequence(1 + parents.len() as u64),
            lamport: Lamport(1 + parents.len() as u64),
            parents,
            roster: vec![RosterEntryId::from_bytes(id)],
            epoch: EpochId::from_bytes(id),
            time_hours: 1,
            added: vec![PackAdd {
                pack: PackId::from_bytes(id),
                size: PackSize::MAX,
            }],
            released: Vec::new(),
            forgotten: Vec::new(),
            live: LiveDigest::default(),
            checkpoint: None,
        };
        let body = example(1);
        let secret = ReadSecret::from_bytes([9; 32]);
        Commit::create(draft, &body, &secret, &identity, &mut rand::rng())
    });
    made.filter_map(|commit| Some(commit.ok()?.as_bytes().to_vec()))
        .collect()
}

/// A commit's body once it is open: what a member may write there. The first byte says in which form the rest is.
pub(crate) fn body(data: &[u8]) {
    let Some((form, rest)) = data.split_first() else {
        return;
    };
    let body = match form {
        0 => ouisync_crypto::fuzzing::body(rest),
        _ => ouisync_crypto::fuzzing::plain_body(rest),
    };
    if let Some(body) = body {
        let bytes = postcard::to_allocvec(&body).expect("a decoded body");
        let again = ouisync_crypto::fuzzing::plain_body(&bytes).expect("own encoding");
        assert_eq!(again, body);
    }
}

pub(crate) fn body_seeds() -> Vec<Vec<u8>> {
    let plain = (0..3).filter_map(|seed| postcard::to_allocvec(&example(seed)).ok());
    plain.map(|bytes| [&[1][..], &bytes].concat()).collect()
}

/// A body with something of every kind.
pub(crate) fn example(seed: u8) -> CommitBody {
    let name = |text: &str| Name::new(text).expect("a name");
    let leaf = NodeId::new(NodeKind::Leaf, [seed; 16]);
    let directory = NodeId::new(NodeKind::Directory, [seed; 16]);
    let chunk = ChunkId::from_bytes([seed; 32]);
    let file = |size, data| {
        Value::File(FileContent {
            size,
            level: 0,
            data,
        })
    };
    let write = |node, value, replaces| Operation::Write {
        node,
        value,
        replaces,
    };
    let part = ChunkRef { chunk, length: 9 };
    let replaced = OpId {
        commit: CommitId::from_bytes([seed; 32]),
        index: 1,
    };
    CommitBody {
        time: Timestamp {
            seconds: 1_700_000_000,
            nanoseconds: 5,
        },
        operations: vec![
            Operation::Place {
                node: directory,
                parent: NodeId::ROOT,
                name: name("d"),
            },
            write(directory, Value::Directory, vec![]),
            Operation::Place {
                node: leaf,
                parent: directory,
                name: name("file.txt"),
            },
            write(
                leaf,
                file(3, FileData::Inline(chunk, vec![1, 2, 3])),
                vec![],
            ),
            write(leaf, file(9, FileData::Chunks(vec![part])), vec![replaced]),
            write(leaf, file(90, FileData::Indirect(vec![part])), vec![]),
            write(leaf, Value::Symlink(b"../x".to_vec()), vec![]),
            write(leaf, Value::Deleted, vec![replaced]),
            Operation::SetMetadata {
                node: leaf,
                change: MetadataChange {
                    executable: Some(true),
                    modified: Some(Timestamp::default()),
                },
            },
        ],
        tables: vec![PackTable {
            pack: PackId::from_bytes([seed; 32]),
            round: seed,
            chunks: vec![ChunkPlace {
                chunk,
                offset: 0,
                stored: 7,
                length: 9,
                encoding: Encoding::Zstd,
            }],
        }],
        checkpoint: None,
        draft: Some(DraftPart {
            offset: u64::from(seed),
            chunks: vec![part],
        }),
    }
}
