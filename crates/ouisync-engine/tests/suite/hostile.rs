//! Attackers at a real connection: what they send changes nothing but their own standing. `docs/threat-model.md` names these tests.

mod attacker;

use std::time::Duration;

use bytes::Bytes;
use ouisync_crypto::{commit::PackAdd, frame_hash::FrameHash, identity::MemberIdentity};
use ouisync_engine::{error::ErrorKind, status::Role};
use ouisync_model::{
    id::{
        ChunkId, CommitId, FolderId, Lamport, MemberId, NodeId, NodeKind, PackId, Sequence,
        Timestamp,
    },
    name::Name,
    operation::{ChunkRef, CommitBody, FileContent, FileData, Operation, PackSize, Value},
    tree::edit,
};
use ouisync_net::connection::{CloseCode, Closed};
use ouisync_sync::codec::{self, Chain, FolderMessage, MAX_CHAINS, MAX_IDS, Message};

use self::attacker::{Attacker, dial, endpoint};
use crate::device::{DEADLINE, Device, eventually, files_below, fresh, noise, packs_of};

fn is_violation(closed: &Closed) -> bool {
    matches!(
        closed,
        Closed::ByPeer {
            code: CloseCode::Violation,
            ..
        }
    )
}

fn create(name: &str, content: FileContent) -> Vec<Operation> {
    edit::create(
        NodeId::ROOT,
        Name::new(name).unwrap(),
        fresh(),
        Value::File(content),
        None,
    )
}

fn body(operations: Vec<Operation>) -> CommitBody {
    CommitBody {
        operations,
        ..CommitBody::default()
    }
}

/// Alice with one file, and the attacker as a member, with all commits.
async fn scene(role: Role) -> (Device, FolderId, Attacker) {
    let alice = Device::start("alice").await;
    let folder = alice.create().await;
    alice.write(folder, "kept", b"as it was");
    let link = alice.invite(folder, role).await;
    let mut attacker = Attacker::enrol(&link, &alice).await;
    attacker.open(Vec::new()).await;
    attacker.fetch_commits(1).await;
    (alice, folder, attacker)
}

/// Alice goes on as if nothing had happened.
async fn is_unharmed(alice: &Device, folder: FolderId) {
    assert_eq!(
        alice.read(folder, "kept").as_deref(),
        Some(&b"as it was"[..])
    );
    alice.write(folder, "after", b"still at work");
    assert_eq!(
        alice.read(folder, "after").as_deref(),
        Some(&b"still at work"[..])
    );
    let outcome = alice.verify(folder).await;
    assert!(outcome.ok, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_write_is_dropped_for_writing() {
    for role in [Role::Reader, Role::Safe] {
        let (alice, folder, mut attacker) = scene(role).await;
        let draft = attacker.draft();
        let commit = attacker.sign(draft, &body(Vec::new()));
        attacker.send_commits(&[commit], Vec::new()).await;
        let closed = attacker.until_dropped().await;
        assert!(is_violation(&closed), "{closed}");
        assert_eq!(alice.names(folder), ["kept"]);
        is_unharmed(&alice, folder).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_commits_of_a_writer_are_refused() {
    let (alice, folder, mut attacker) = scene(Role::Writer).await;
    let honest = attacker.draft();
    let mut drafts = Vec::new();
    let mut spoilt = |spoil: &dyn Fn(&mut ouisync_crypto::commit::CommitDraft)| {
        let mut draft = honest.clone();
        spoil(&mut draft);
        drafts.push(draft);
    };
    // A parent that nobody has, and Lamport times and numbers that don't follow from the parents.
    spoilt(&|draft| draft.parents.push(CommitId::from_bytes([7; 32])));
    spoilt(&|draft| draft.lamport = Lamport(1 << 60));
    spoilt(&|draft| draft.lamport = Lamport(u64::MAX));
    spoilt(&|draft| draft.lamport = Lamport(1));
    spoilt(&|draft| draft.sequence = Sequence(u64::MAX));
    spoilt(&|draft| draft.sequence = Sequence(2));
    spoilt(&|draft| draft.folder = FolderId::from_bytes([9; 32]));
    for draft in drafts {
        let commit = attacker.sign(draft.clone(), &body(Vec::new()));
        attacker.send_commits(&[commit], Vec::new()).await;
        let closed = attacker.until_dropped().await;
        assert!(is_violation(&closed), "{closed}: {draft:?}");
        attacker.connect(&alice).await;
        attacker.open(Vec::new()).await;
    }
    // In the name of a key that is no member's.
    let own = std::mem::replace(
        &mut attacker.identity,
        MemberIdentity::generate(&mut rand::rng()),
    );
    let commit = attacker.sign(honest.clone(), &body(Vec::new()));
    attacker.identity = own;
    attacker.send_commits(&[commit], Vec::new()).await;
    assert!(is_violation(&attacker.until_dropped().await));
    assert_eq!(alice.names(folder), ["kept"]);
    is_unharmed(&alice, folder).await;
}

/// What a writer may say, however senseless, is stored; it costs nobody else anything.
#[tokio::test(flavor = "multi_thread")]
async fn senseless_commits_of_a_writer_harm_nobody() {
    let (alice, folder, mut attacker) = scene(Role::Writer).await;
    let chunk = ChunkRef {
        chunk: ChunkId::from_bytes([5; 32]),
        length: u32::MAX,
    };
    let huge = FileContent {
        size: u64::MAX,
        level: u8::MAX,
        data: FileData::Chunks(vec![chunk]),
    };
    // Sizes whose sum overflows, directories inside each other, a clock at the end of time, a pack that nobody will ever have.
    let mut operations = create("huge", huge.clone());
    operations.extend(create("also huge", huge));
    let [one, other] = [1, 2].map(|byte| NodeId::new(NodeKind::Directory, [byte; 16]));
    for (node, parent) in [(one, other), (other, one), (one, one), (NodeId::ROOT, one)] {
        let name = Name::new("x".repeat(Name::MAX_LENGTH)).unwrap();
        operations.extend(edit::create(parent, name, node, Value::Directory, None));
    }
    let late = CommitBody {
        time: Timestamp {
            seconds: i64::MAX,
            nanoseconds: u32::MAX,
        },
        operations,
        ..CommitBody::default()
    };
    let mut draft = attacker.draft();
    draft.time_hours = u32::MAX;
    draft.added = vec![PackAdd {
        pack: PackId::from_bytes([3; 32]),
        size: PackSize::MAX,
    }];
    let commit = attacker.sign(draft, &late);
    attacker
        .send_commits(&[commit], vec![PackId::from_bytes([3; 32])])
        .await;
    eventually("alice has the commit", async || {
        alice.names(folder).contains(&"huge".to_owned())
    })
    .await;
    let status = alice.status(folder).await;
    assert!(status.files >= 3, "{status:?}");
    assert!(alice.read(folder, "huge").is_none());
    assert_eq!(
        alice.read(folder, "kept").as_deref(),
        Some(&b"as it was"[..])
    );
    // Later words of others still count, whatever the clock said.
    alice.view(folder).delete("huge");
    assert!(!alice.names(folder).contains(&"huge".to_owned()));
    alice.write(folder, "after", b"still at work");
    attacker.listen(Duration::from_millis(200)).await;
    let mut alice = alice;
    alice.stop().await;
    alice.go_on().await;
    assert_eq!(
        alice.read(folder, "after").as_deref(),
        Some(&b"still at work"[..])
    );
    assert!(!alice.names(folder).contains(&"huge".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_safe_that_serves_garbage_is_dropped_and_stores_nothing() {
    let (mut alice, bob) = (Device::start("alice").await, Device::start("bob").await);
    let folder = alice.create().await;
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    let link = alice.invite(folder, Role::Safe).await;
    let mut attacker = Attacker::enrol(&link, &alice).await;
    bob.wait(folder).await;
    // Bob knows of the safe, and then only the safe hears of what is new.
    eventually("bob knows the safe", async || {
        bob.engine().members(folder).await.unwrap().len() == 3
    })
    .await;
    bob.engine().pause(Some(folder)).await.unwrap();
    let content = noise(300_000);
    alice.write(folder, "large", &content);
    attacker.open(Vec::new()).await;
    attacker.fetch_commits(1).await;
    let commits = attacker.commits.clone();
    alice.stop().await;
    bob.engine().resume(Some(folder)).await.unwrap();
    let before = packs_of(&bob, folder).len();
    // Once with a list of hashes that is not the pack's, once with an honest-looking answer of other bytes.
    for lie in [true, false] {
        attacker.connect(&bob).await;
        attacker.open(Vec::new()).await;
        attacker.send_commits(&commits, Vec::new()).await;
        let packs = commits.iter().flat_map(|commit| &commit.header().added);
        let packs = packs.map(|add| add.pack).collect();
        attacker.say(FolderMessage::Holds { packs }).await;
        let closed = loop {
            match attacker.next().await {
                Ok(FolderMessage::Want {
                    pack,
                    first,
                    count,
                    hashes,
                }) => {
                    if !lie {
                        let frames = noise(count as usize * 65_536);
                        attacker.send_frames(pack, first, frames.into()).await;
                    }
                    if hashes {
                        let hashes = (0..count).map(|_| FrameHash::from_bytes(rand::random()));
                        let hashes = hashes.collect();
                        attacker.say(FolderMessage::Hashes { pack, hashes }).await;
                    }
                }
                Ok(_) => {}
                Err(closed) => break closed,
            }
        };
        assert!(is_violation(&closed), "{closed}");
        assert_eq!(packs_of(&bob, folder).len(), before);
        assert!(bob.read(folder, "large").is_none());
    }
    // The commits themselves are Alice's and stay; the bytes come from her.
    assert_eq!(bob.names(folder), ["large"]);
    alice.go_on().await;
    bob.meet(&alice).await;
    bob.sees(folder, "large", &content).await;
    assert!(bob.verify(folder).await.ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_heads_and_withheld_commits_take_nothing_back() {
    let (alice, folder, mut attacker) = scene(Role::Safe).await;
    let old = attacker.commits.clone();
    alice.write(folder, "kept", b"newer than the safe says");
    let bob = Device::start("bob").await;
    // The safe knows better, and says to each that there is but the first commit.
    attacker.connect(&alice).await;
    let first = old[0].header();
    let replayed = Chain {
        author: first.author,
        sequence: first.sequence,
        head: old[0].id(),
    };
    attacker.open(vec![replayed]).await;
    attacker.send_commits(&old, Vec::new()).await;
    attacker.listen(Duration::from_millis(300)).await;
    assert_eq!(
        alice.read(folder, "kept").as_deref(),
        Some(&b"newer than the safe says"[..])
    );
    // What it withholds comes from anybody else.
    bob.join(&alice.invite(folder, Role::Reader).await).await;
    attacker.connect(&bob).await;
    attacker.open(vec![replayed]).await;
    bob.sees(folder, "kept", b"newer than the safe says").await;
    bob.wait(folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_claims_are_empty() {
    let (alice, folder, mut attacker) = scene(Role::Safe).await;
    attacker.connect(&alice).await;
    let nobody = |number: usize| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_le_bytes());
        id
    };
    let own = attacker.chain(u64::MAX, CommitId::from_bytes([1; 32]));
    let author = attacker.commits[0].header().author;
    let ahead = Chain { author, ..own };
    attacker.open(vec![own, ahead]).await;
    let chains = (0..MAX_CHAINS).map(|number| Chain {
        author: MemberId::from_bytes(nobody(number)),
        sequence: Sequence(u64::MAX),
        head: CommitId::from_bytes(nobody(number)),
    });
    attacker
        .say(FolderMessage::Heads {
            chains: chains.collect(),
        })
        .await;
    for _ in 0..6 {
        let lacking: Vec<_> = (0..MAX_IDS)
            .map(|number| PackId::from_bytes(nobody(number)))
            .collect();
        attacker
            .say(FolderMessage::Holds {
                packs: lacking.clone(),
            })
            .await;
        attacker.say(FolderMessage::Inventory { lacking }).await;
    }
    attacker.listen(Duration::from_millis(500)).await;
    assert_eq!(alice.status(folder).await.missing_bytes, 0);
    is_unharmed(&alice, folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outsider_is_told_nothing_and_garbage_ends_the_connection() {
    let alice = Device::start("alice").await;
    let folder = alice.create().await;
    alice.write(folder, "kept", b"as it was");
    let empty = Device::start("empty").await;
    let outsider = endpoint().await;
    // With a folder and without one a device answers alike: a greeting and a list of sixteen tags; guesses are not answered.
    for device in [&alice, &empty] {
        let mut connection = dial(&outsider, device).await;
        let tags = (0..4096_u32).map(|_| ouisync_crypto::proof::Tag(rand::random()));
        let guesses = [
            Message::Hello {
                version: codec::VERSION,
                features: u64::MAX,
            },
            Message::Proofs {
                tags: tags.collect(),
            },
            Message::Folder {
                channel: ouisync_crypto::proof::ChannelId(rand::random()),
                message: FolderMessage::RosterWant { have: Vec::new() },
            },
        ];
        for message in guesses {
            let bytes = codec::encode(&message).unwrap();
            connection
                .control_sender
                .send(bytes.slice(4..))
                .await
                .unwrap();
        }
        let mut heard = Vec::new();
        let listen = async {
            while let Ok(Some(bytes)) = connection.control_receiver.recv(1 << 20).await {
                heard.push(codec::decode(&bytes).unwrap());
            }
        };
        assert!(
            tokio::time::timeout(Duration::from_millis(400), listen)
                .await
                .is_err()
        );
        assert!(
            matches!(&heard[..], [Message::Hello { .. }, Message::Proofs { tags }] if tags.len() == 16),
            "{heard:?}"
        );
        connection
            .control_sender
            .send(Bytes::from_static(&[0xff; 99]))
            .await
            .unwrap();
        let closed = tokio::time::timeout(DEADLINE, connection.handle.closed())
            .await
            .unwrap();
        assert!(is_violation(&closed), "{closed}");
    }
    is_unharmed(&alice, folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_take_no_places_from_members() {
    let alice = Device::start("alice").await;
    let folder = alice.create().await;
    let link = alice.invite(folder, Role::Writer).await;
    let mut strangers = Vec::new();
    for _ in 0..20 {
        let outsider = endpoint().await;
        let connection = dial(&outsider, &alice).await;
        strangers.push((outsider, connection));
    }
    // Of one address there are 16 at most: who came first goes, and is told why.
    let (_, first) = &strangers[0];
    let closed = tokio::time::timeout(DEADLINE, first.handle.closed())
        .await
        .unwrap();
    assert!(
        matches!(
            closed,
            Closed::ByPeer {
                code: CloseCode::Overloaded,
                ..
            }
        ),
        "{closed}"
    );
    let (_, last) = strangers.last().unwrap();
    let open = tokio::time::timeout(Duration::from_millis(100), last.handle.closed()).await;
    assert!(open.is_err(), "{open:?}");
    // A member is no stranger.
    let bob = Device::start("bob").await;
    bob.join(&link).await;
    bob.wait(folder).await;
    drop(strangers);
}

/// The home of a locked device that is off, as a thief finds it.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_home_shows_a_thief_nothing_readable() {
    let (mut alice, bob) = (
        Device::start("alices-own-laptop").await,
        Device::start("bobs-own-phone").await,
    );
    let folder = alice.create().await;
    alice
        .engine()
        .set_passphrase(None, "open sesame".to_owned())
        .await
        .unwrap();
    let content = b"the treasure lies under the old oak tree, three steps north".repeat(300);
    alice.write(folder, "treasure-map.txt", &content);
    alice.write(folder, "little-note.txt", b"do not tell anybody of this");
    let link = alice.invite(folder, Role::Writer).await;
    bob.join(&link).await;
    bob.write(folder, "answer-of-bob.txt", b"nobody will hear of it");
    alice
        .sees(folder, "answer-of-bob.txt", b"nobody will hear of it")
        .await;
    alice.engine().lock(Some(folder)).await.unwrap();
    alice.stop().await;
    let words = [
        "treasure",
        "oak tree",
        "little-note",
        "do not tell",
        "answer-of",
        "will hear",
        "voyage",
        "bobs-own",
        "open sesame",
        &link[link.len() - 40..],
    ];
    for path in files_below(&alice.home()) {
        let bytes = std::fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for word in words {
            assert!(!text.contains(word), "{} shows {word}", path.display());
        }
    }
    // Nor does its own program: a start with all of it stays locked.
    alice.go_on().await;
    let error = alice.engine().view(folder).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
}
