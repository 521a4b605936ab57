//! Commits: round trips, and refusal of everything that is not exactly one.

use ouisync_crypto::{
    commit::{
        BodyError, CheckpointDigest, Commit, CommitDraft, CommitError, CreateCommitError, Dot,
        LiveDigest, MAX_FORGOTTEN, MAX_PARENTS, MIN_BODY, PackAdd,
    },
    identity::MemberIdentity,
    secret::ReadSecret,
};
use ouisync_model::{
    id::{
        CommitId, EpochId, FolderId, Lamport, NodeId, NodeKind, PackId, RosterEntryId, Sequence,
        Timestamp,
    },
    operation::{CommitBody, Operation, PackSize, Value},
};
use proptest::prelude::*;
use rand_core::Rng;

use crate::seeded::Seeded;

fn draft() -> CommitDraft {
    CommitDraft {
        folder: FolderId::from_bytes([1; 32]),
        sequence: Sequence(3),
        lamport: Lamport(7),
        parents: vec![CommitId::from_bytes([9; 32]), CommitId::from_bytes([8; 32])],
        roster: vec![RosterEntryId::from_bytes([4; 32])],
        epoch: EpochId::from_bytes([5; 32]),
        time_hours: 490_000,
        added: vec![PackAdd {
            pack: PackId::from_bytes([6; 32]),
            size: PackSize::MAX,
        }],
        released: vec![Dot {
            commit: CommitId::from_bytes([9; 32]),
            pack: PackId::from_bytes([7; 32]),
        }],
        forgotten: vec![PackId::from_bytes([8; 32]), PackId::from_bytes([3; 32])],
        live: LiveDigest {
            count: 1,
            digest: [2; 32],
        },
        checkpoint: None,
    }
}

fn body(operations: usize, rng: &mut Seeded) -> CommitBody {
    let mut random = || {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        NodeId::new(NodeKind::Leaf, bytes)
    };
    let operations = (0..operations).map(|_| Operation::Write {
        node: random(),
        value: Value::Deleted,
        replaces: Vec::new(),
    });
    CommitBody {
        time: Timestamp {
            seconds: 1_800_000_000,
            nanoseconds: 5,
        },
        operations: operations.collect(),
        ..CommitBody::default()
    }
}

pub(crate) fn fixture(seed: u64) -> (MemberIdentity, ReadSecret, CommitBody, Commit) {
    let mut rng = Seeded::new(seed);
    let identity = MemberIdentity::generate(&mut rng);
    let secret = ReadSecret::generate(&mut rng);
    let body = body(3, &mut rng);
    let commit = Commit::create(draft(), &body, &secret, &identity, &mut rng).unwrap();
    (identity, secret, body, commit)
}

#[test]
fn round_trip() {
    let (identity, secret, body, commit) = fixture(1);
    let read = Commit::verified(commit.as_bytes().to_vec()).unwrap();
    assert_eq!(read, commit);
    assert_eq!(
        read.id().as_bytes(),
        blake3::hash(commit.as_bytes()).as_bytes()
    );
    assert_eq!(read.header().author, identity.member());
    assert_eq!(
        read.header().parents[0],
        CommitId::from_bytes([8; 32]),
        "sorted"
    );
    assert_eq!(read.header().body.len(), MIN_BODY);
    assert_eq!(read.open_body(&secret).unwrap(), body);
    let dots: Vec<_> = read.dots().collect();
    assert_eq!(dots[0].0.commit, commit.id());
}

#[test]
fn another_secret_does_not_open_the_body() {
    let (_, _, _, commit) = fixture(2);
    let other = ReadSecret::generate(&mut Seeded::new(99));
    assert!(matches!(commit.open_body(&other), Err(BodyError::Open(_))));
}

#[test]
fn body_lengths_are_powers_of_two() {
    let mut rng = Seeded::new(3);
    let (identity, secret, ..) = fixture(3);
    for count in [0, 60, 200, 1000, 5000] {
        let body = body(count, &mut rng);
        let commit = Commit::create(draft(), &body, &secret, &identity, &mut rng).unwrap();
        assert!(commit.header().body.len().is_power_of_two());
        assert_eq!(commit.open_body(&secret).unwrap(), body);
    }
}

#[test]
fn too_large_bodies_are_an_error_not_a_panic() {
    let mut rng = Seeded::new(4);
    let (identity, secret, ..) = fixture(4);
    let body = body(300_000, &mut rng);
    let result = Commit::create(draft(), &body, &secret, &identity, &mut rng);
    assert!(matches!(
        result,
        Err(CreateCommitError::Body(BodyError::TooLarge))
    ));
}

#[test]
fn every_changed_byte_is_refused() {
    let (.., commit) = fixture(5);
    let bytes = commit.as_bytes();
    // All of the header and the signature; the body's inside byte by byte would only repeat itself.
    let positions = (0..520).chain(bytes.len() - 80..bytes.len());
    for position in positions {
        let mut changed = bytes.to_vec();
        changed[position] ^= 1;
        assert!(Commit::verified(changed).is_err(), "byte {position}");
    }
    for length in 0..bytes.len() {
        assert!(
            Commit::decode(bytes[..length].to_vec()).is_err(),
            "cut to {length}"
        );
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(Commit::verified(longer).is_err());
    assert!(matches!(
        Commit::decode(vec![2; 2000]),
        Err(CommitError::Version(2))
    ));
}

#[test]
fn numbers_must_follow_from_history() {
    let (.., commit) = fixture(6);
    commit
        .check_order(Some(Lamport(6)), Some(Sequence(2)))
        .unwrap();
    assert!(matches!(
        commit.check_order(Some(Lamport(7)), Some(Sequence(2))),
        Err(CommitError::Lamport { .. })
    ));
    assert!(matches!(
        commit.check_order(Some(Lamport(6)), Some(Sequence(3))),
        Err(CommitError::Sequence { .. })
    ));
    assert!(commit.check_order(None, None).is_err());
}

#[test]
fn lists_have_limits() {
    let mut rng = Seeded::new(7);
    let (identity, secret, body, _) = fixture(7);
    let many = (0..=MAX_PARENTS).map(|index| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(index as u64).to_le_bytes());
        CommitId::from_bytes(bytes)
    });
    let draft_with_many = CommitDraft {
        parents: many.collect(),
        ..draft()
    };
    assert!(Commit::create(draft_with_many, &body, &secret, &identity, &mut rng).is_err());
    let without_roster = CommitDraft {
        roster: Vec::new(),
        ..draft()
    };
    assert!(Commit::create(without_roster, &body, &secret, &identity, &mut rng).is_err());
    let forgets_too_much = CommitDraft {
        forgotten: (0..=MAX_FORGOTTEN)
            .map(|number| PackId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes()))
            .collect(),
        ..draft()
    };
    assert!(Commit::create(forgets_too_much, &body, &secret, &identity, &mut rng).is_err());
    let number_zero = CommitDraft {
        sequence: Sequence(0),
        ..draft()
    };
    assert!(Commit::create(number_zero, &body, &secret, &identity, &mut rng).is_err());
}

#[test]
fn live_digest_is_a_set() {
    let packs: Vec<_> = (0..5).map(|byte| PackId::from_bytes([byte; 32])).collect();
    let mut forward = LiveDigest::default();
    packs.iter().for_each(|pack| forward.add(pack));
    let mut backward = LiveDigest::default();
    packs.iter().rev().for_each(|pack| backward.add(pack));
    assert_eq!(forward, backward);
    backward.remove(&packs[2]);
    assert_ne!(forward, backward);
    backward.add(&packs[2]);
    assert_eq!(forward, backward);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = Commit::verified(bytes);
    }

    #[test]
    fn damaged_commits_never_panic(position in 0usize..500, value: u8) {
        let (.., commit) = fixture(8);
        let mut bytes = commit.as_bytes().to_vec();
        bytes[position] = value;
        let _ = Commit::decode(bytes);
    }
}

#[test]
fn a_checkpoint_covers_something() {
    let mut rng = Seeded::new(51);
    let identity = MemberIdentity::generate(&mut rng);
    let secret = ReadSecret::generate(&mut rng);
    let mut make = |commits, parents: &[CommitId]| {
        let draft = CommitDraft {
            parents: parents.to_vec(),
            checkpoint: Some(CheckpointDigest {
                commits,
                skeleton: [3; 32],
            }),
            ..draft()
        };
        Commit::create(draft, &body(0, &mut rng), &secret, &identity, &mut rng)
    };
    let parent = CommitId::from_bytes([1; 32]);
    let made = make(1, &[parent]).unwrap();
    let read = Commit::verified(made.as_bytes().to_vec()).unwrap();
    assert_eq!(read.header().checkpoint, made.header().checkpoint);
    assert!(make(0, &[parent]).is_err());
    assert!(make(1, &[]).is_err());
}
