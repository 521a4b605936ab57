//! What the handshake reveals and what it opens.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::HashSet;

use ouisync_crypto::{
    keys::PeerAuthKey,
    proof::{Exporter, Side, Tag},
};
use ouisync_model::id::{EpochId, FolderId, InvitationId};
use ouisync_sync::{
    codec::{ClosedReason, Message},
    folder::Rights,
    handshake::{
        Credential, CredentialKind, Handshake, HandshakeError, HandshakeOutput, OpenedChannel,
    },
};
use rand::{SeedableRng, rngs::StdRng};

fn epoch(folder: u8, generation: u8, current: bool) -> Credential {
    let kind = CredentialKind::Epoch {
        generation: generation.into(),
        epoch: EpochId::from_bytes([generation; 32]),
        current,
    };
    let mut key = [folder; 32];
    key[0] = generation;
    Credential {
        folder: FolderId::from_bytes([folder; 32]),
        kind,
        key: PeerAuthKey::from_bytes(key),
    }
}

fn invitation(folder: u8, number: u8) -> Credential {
    let id = InvitationId::from_bytes([number; 32]);
    Credential {
        folder: FolderId::from_bytes([folder; 32]),
        kind: CredentialKind::Invitation(id),
        key: PeerAuthKey::of_invitation(&id),
    }
}

struct Pair {
    ends: [Handshake; 2],
    tags: [Vec<Tag>; 2],
    opened: [Vec<OpenedChannel>; 2],
    refused: [Vec<(FolderId, ClosedReason)>; 2],
    rng: StdRng,
}

impl Pair {
    fn new(dialer: Vec<Credential>, acceptor: Vec<Credential>) -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let exporter = Exporter([5; 32]);
        let ends = [
            Handshake::new(Side::Dialer, exporter, dialer, &mut rng),
            Handshake::new(Side::Acceptor, exporter, acceptor, &mut rng),
        ];
        let mut pair = Self {
            ends,
            tags: Default::default(),
            opened: Default::default(),
            refused: Default::default(),
            rng,
        };
        pair.run();
        pair
    }

    fn run(&mut self) {
        loop {
            let mut idle = true;
            for end in 0..2 {
                while let Some(output) = self.ends[end].poll_output() {
                    idle = false;
                    match output {
                        HandshakeOutput::Send(message) => {
                            if let Message::Proofs { tags } = &message {
                                self.tags[end].clone_from(tags);
                            }
                            self.ends[1 - end].message(&message).expect("valid");
                        }
                        HandshakeOutput::Opened(channel) => self.opened[end].push(channel),
                        HandshakeOutput::RightsChanged(channel) => {
                            self.opened[end].retain(|open| open.channel != channel.channel);
                            self.opened[end].push(channel);
                        }
                        HandshakeOutput::Refused(folder, reason) => {
                            self.refused[end].push((folder, reason))
                        }
                        HandshakeOutput::Closed(closed) => {
                            self.opened[end].retain(|open| open.channel != closed)
                        }
                    }
                }
            }
            if idle {
                return;
            }
        }
    }
}

#[test]
fn nothing_in_common_reveals_nothing() {
    let pair = Pair::new(
        vec![epoch(1, 0, true), epoch(2, 0, true)],
        (3..13).map(|n| epoch(n, 0, true)).collect(),
    );
    assert!(pair.opened.iter().all(Vec::is_empty));
    // Same length whatever the number of folders; no tag in common, none of the other role's.
    assert_eq!(pair.tags.each_ref().map(Vec::len), [16, 16]);
    let all: HashSet<_> = pair.tags.iter().flatten().collect();
    assert_eq!(all.len(), 32);
    // The same folder gives other tags on another connection.
    let mut rng = StdRng::seed_from_u64(2);
    let mut other = Handshake::new(
        Side::Dialer,
        Exporter([6; 32]),
        vec![epoch(1, 0, true)],
        &mut rng,
    );
    let Some(HandshakeOutput::Send(Message::Hello { .. })) = other.poll_output() else {
        panic!("no Hello")
    };
    let Some(HandshakeOutput::Send(Message::Proofs { tags })) = other.poll_output() else {
        panic!("no Proofs")
    };
    assert!(tags.iter().all(|tag| !all.contains(tag)));
}

#[test]
fn common_folders_open_with_the_best_credential() {
    let pair = Pair::new(
        vec![
            epoch(1, 0, false),
            epoch(1, 1, true),
            epoch(2, 0, true),
            invitation(3, 9),
        ],
        vec![
            epoch(1, 0, false),
            epoch(1, 1, false),
            epoch(1, 2, true),
            invitation(3, 9),
            invitation(3, 8),
            epoch(4, 0, true),
        ],
    );
    let [dialer, acceptor] = &pair.opened;
    assert_eq!(dialer.len(), 2);
    assert_eq!(
        dialer.iter().map(|open| open.channel).collect::<Vec<_>>(),
        acceptor.iter().map(|open| open.channel).collect::<Vec<_>>()
    );
    assert_eq!(dialer[0].rights, Rights::Current);
    assert_eq!(acceptor[0].rights, Rights::Older);
    assert_eq!(
        dialer[1].rights,
        Rights::Invitation(InvitationId::from_bytes([9; 32]))
    );
}

#[test]
fn new_keys_match_anew_on_both_ends() {
    let mut pair = Pair::new(vec![epoch(1, 0, true)], vec![epoch(1, 0, true)]);
    let old = pair.opened[0][0].channel;
    let Pair {
        ends: [dialer, _],
        rng,
        ..
    } = &mut pair;
    dialer.credentials_changed(vec![epoch(1, 0, false), epoch(1, 1, true)], rng);
    pair.run();
    assert_eq!(
        (pair.opened[0][0].channel, pair.opened[0][0].rights),
        (old, Rights::Older)
    );
    assert_eq!(pair.opened[1][0].rights, Rights::Current);
    let Pair {
        ends: [_, acceptor_end],
        rng,
        ..
    } = &mut pair;
    acceptor_end.credentials_changed(vec![epoch(1, 0, false), epoch(1, 1, true)], rng);
    pair.run();
    assert_eq!(pair.opened[0], pair.opened[1]);
    assert_eq!(pair.opened[0].len(), 1);
    assert_ne!(pair.opened[0][0].channel, old);
    let Pair {
        ends: [_, acceptor_end],
        rng,
        ..
    } = &mut pair;
    acceptor_end.credentials_changed(Vec::new(), rng);
    pair.run();
    assert!(pair.opened.iter().all(Vec::is_empty));
}

#[test]
fn broken_handshakes_are_refused() {
    let mut rng = StdRng::seed_from_u64(3);
    let mut fresh = || {
        Handshake::new(
            Side::Acceptor,
            Exporter([1; 32]),
            vec![epoch(1, 0, true)],
            &mut rng,
        )
    };
    let hello = Message::Hello {
        version: 1,
        features: u64::MAX,
    };
    let proofs = |count| Message::Proofs {
        tags: vec![Tag([0; 16]); count],
    };
    assert_eq!(
        fresh().message(&proofs(16)),
        Err(HandshakeError::HelloOrder)
    );
    assert_eq!(
        fresh().message(&Message::Hello {
            version: 2,
            features: 0
        }),
        Err(HandshakeError::Version { version: 2 })
    );
    for count in [0, 8, 17, 8192] {
        let mut handshake = fresh();
        handshake.message(&hello).expect("valid");
        assert_eq!(
            handshake.message(&proofs(count)),
            Err(HandshakeError::TagCount { count })
        );
    }
    let mut handshake = fresh();
    handshake.message(&hello).expect("valid");
    assert_eq!(handshake.message(&hello), Err(HandshakeError::HelloOrder));
    handshake.message(&proofs(4096)).expect("valid");
}

#[test]
fn a_closed_invitation_opens_nothing_and_says_why() {
    let closed = |folder: u8, number: u8, reason| {
        let mut credential = invitation(folder, number);
        credential.kind = CredentialKind::Closed(InvitationId::from_bytes([number; 32]), reason);
        credential
    };
    let mut pair = Pair::new(
        vec![invitation(1, 9), invitation(2, 8)],
        vec![
            epoch(1, 0, true),
            closed(1, 9, ClosedReason::Spent),
            invitation(2, 8),
        ],
    );
    let [one, two] = [1, 2].map(|folder| FolderId::from_bytes([folder; 32]));
    assert_eq!(pair.refused[0], [(one, ClosedReason::Spent)]);
    assert_eq!(pair.refused[1], []);
    for end in &pair.opened {
        assert_eq!(
            end.iter().map(|open| open.folder).collect::<Vec<_>>(),
            [two]
        );
    }
    // Nobody proves a closed one, so two that know it learn nothing of each other.
    let strangers = Pair::new(
        vec![closed(1, 9, ClosedReason::Spent)],
        vec![closed(1, 9, ClosedReason::Spent)],
    );
    assert!(strangers.refused.iter().all(Vec::is_empty));
    // Time goes by.
    let expired = vec![closed(2, 8, ClosedReason::Expired)];
    pair.ends[1].credentials_changed(expired, &mut pair.rng);
    pair.run();
    assert!(pair.opened.iter().all(Vec::is_empty));
    assert_eq!(pair.refused[0][1..], [(two, ClosedReason::Expired)]);
}
