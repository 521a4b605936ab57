//! Proofs of a connection, and links.

use std::collections::HashSet;

use ouisync_crypto::{
    identity::MemberIdentity,
    invitation::{Contact, InvitationLink, InvitationSecret, LinkError, PREFIX},
    keys::PeerAuthKey,
    proof::{ChannelId, Exporter, MemberProof, Side, Tag, pad_tags},
    roster::role::Role,
    secret::ReadSecret,
};
use ouisync_model::id::{DeviceId, FolderId};
use proptest::prelude::*;

use crate::seeded::Seeded;

#[test]
fn both_sides_match_and_strangers_do_not() {
    let mut rng = Seeded::new(1);
    let key = ReadSecret::generate(&mut rng)
        .store_secret()
        .peer_auth_key();
    let other = ReadSecret::generate(&mut rng)
        .store_secret()
        .peer_auth_key();
    let exporter = Exporter([3; 32]);
    let dialer = key.tag(&exporter, Side::Dialer);
    assert_eq!(dialer, key.tag(&exporter, Side::Acceptor.other()));
    assert_ne!(
        dialer,
        key.tag(&exporter, Side::Acceptor),
        "a tag can't be reflected"
    );
    assert_ne!(
        dialer,
        key.tag(&Exporter([4; 32]), Side::Dialer),
        "nor replayed"
    );
    assert_ne!(dialer, other.tag(&exporter, Side::Dialer));
    let ChannelId(channel) = key.channel(&exporter);
    assert_eq!(channel.to_le_bytes(), dialer.0[..8]);
}

#[test]
fn lists_of_tags_hide_their_number() {
    let mut rng = Seeded::new(2);
    for (given, sent) in [(0, 16), (1, 16), (16, 16), (17, 32)] {
        let tags: Vec<_> = (0..given).map(|byte| Tag([byte as u8; 16])).collect();
        let padded = pad_tags(tags.clone(), &mut rng);
        assert_eq!(padded.len(), sent);
        let distinct: HashSet<_> = padded.iter().collect();
        assert_eq!(distinct.len(), sent);
        assert!(tags.iter().all(|tag| distinct.contains(tag)));
    }
}

#[test]
fn invitations_have_a_credential() {
    let secret = InvitationSecret::generate(&mut Seeded::new(3));
    let mine = PeerAuthKey::of_invitation(&secret.invitation());
    assert_eq!(mine, PeerAuthKey::of_invitation(&secret.invitation()));
}

#[test]
fn member_proofs_are_bound_to_connection_side_and_folder() {
    let mut rng = Seeded::new(4);
    let identity = MemberIdentity::generate(&mut rng);
    let (exporter, folder) = (Exporter([1; 32]), FolderId::from_bytes([2; 32]));
    let proof = MemberProof::new(&identity, &exporter, Side::Dialer, &folder);
    proof.verify(&exporter, Side::Dialer, &folder).unwrap();
    assert!(proof.verify(&exporter, Side::Acceptor, &folder).is_err());
    assert!(
        proof
            .verify(&Exporter([9; 32]), Side::Dialer, &folder)
            .is_err()
    );
    assert!(
        proof
            .verify(&exporter, Side::Dialer, &FolderId::from_bytes([3; 32]))
            .is_err()
    );
    let stranger = MemberProof {
        member: MemberIdentity::generate(&mut rng).member(),
        ..proof
    };
    assert!(stranger.verify(&exporter, Side::Dialer, &folder).is_err());
    let restored = MemberIdentity::from_bytes(&identity.to_bytes());
    assert_eq!(
        MemberProof::new(&restored, &exporter, Side::Dialer, &folder),
        proof
    );
    assert!(!format!("{identity:?}").contains("signing"));
}

fn link() -> InvitationLink {
    InvitationLink {
        folder: FolderId::from_bytes([1; 32]),
        role: Role::Writer,
        secret: InvitationSecret::generate(&mut Seeded::new(5)),
        name: "Voyage pictures ✈".into(),
        contacts: vec![Contact {
            device: DeviceId::from_bytes([2; 32]),
            addresses: vec![
                "192.0.2.1:22000".parse().unwrap(),
                "[2001:db8::1]:1".parse().unwrap(),
            ],
        }],
    }
}

#[test]
fn links_round_trip() {
    let text = link().encode();
    assert!(text.starts_with(PREFIX));
    assert_eq!(
        InvitationLink::parse(&format!("  {text}\n")).unwrap(),
        link()
    );
    assert!(!format!("{:?}", link()).contains(&text[PREFIX.len()..PREFIX.len() + 8]));
}

#[test]
fn links_that_are_none_say_why() {
    let text = link().encode();
    let error = |text: &str| InvitationLink::parse(text).unwrap_err();
    assert_eq!(error("https://example.org"), LinkError::NotALink);
    assert_eq!(error("ouisync://join/v2#AAAA"), LinkError::Version);
    assert_eq!(error(&text[..text.len() - 1]), LinkError::Damaged);
    assert_eq!(error(&format!("{text}AA")), LinkError::Damaged);
    assert_eq!(error(PREFIX), LinkError::Damaged);
    assert_eq!(error(&text.repeat(100)), LinkError::TooLong);
    for position in PREFIX.len()..text.len() {
        let mut mistyped = text.clone().into_bytes();
        mistyped[position] = if mistyped[position] == b'A' {
            b'B'
        } else {
            b'A'
        };
        assert!(InvitationLink::parse(std::str::from_utf8(&mistyped).unwrap()).is_err());
    }
}

proptest! {
    #[test]
    fn arbitrary_links_never_panic(text in "[A-Za-z0-9_-]{0,300}") {
        let _ = InvitationLink::parse(&format!("{PREFIX}{text}"));
    }
}
