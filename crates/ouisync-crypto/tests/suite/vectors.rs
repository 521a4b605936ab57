//! Fixed vectors: if one of these changes, stored folders can't be read any more and the format needs a new version.

use ouisync_crypto::{
    commit::Commit,
    identity::MemberIdentity,
    invitation::{InvitationLink, InvitationSecret},
    keystore::{KeyStore, KeyStoreKey, MachineKey, PassphraseCost},
    pack::{FRAME_LENGTH, Frame, PackKey, PackSalt, plaintext_in_frame},
    proof::{Exporter, Side},
    roster::role::Role,
    secret::ReadSecret,
};
use ouisync_model::id::FolderId;

use crate::{commit, roster::Device, seeded::Seeded};

fn short(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..16].to_owned()
}

fn vectors() -> Vec<(&'static str, String)> {
    let secret = ReadSecret::from_bytes([7; 32]);
    let store = secret.store_secret();
    let mut gear = Vec::new();
    secret
        .gear_table()
        .as_array()
        .iter()
        .for_each(|number| gear.extend(number.to_le_bytes()));

    let key = PackKey::derive(&secret, PackSalt::from_bytes([8; 32]));
    let mut pack = Vec::new();
    for index in 0..2 {
        let mut frame: Box<Frame> = Box::new([0; FRAME_LENGTH]);
        frame[plaintext_in_frame(index)].fill(9);
        key.seal_frame(index, index == 1, &mut frame);
        pack.extend_from_slice(&frame[..]);
    }

    let mut rng = Seeded::new(42);
    let mut alice = Device::founder(&mut rng);
    let link = alice.invite(Role::Safe, 2, &mut rng);
    let bob = alice.join(&link, "Bob", &mut rng);
    alice.learn(&bob);
    alice.remove(bob.id(), Vec::new(), &mut rng);
    let mut roster = Vec::new();
    alice
        .roster
        .entries()
        .for_each(|entry| roster.extend_from_slice(entry.as_bytes()));

    let mut rng = Seeded::new(43);
    let cost = PassphraseCost {
        memory_kib: 64,
        passes: 1,
        lanes: 1,
    };
    let mut keystore = KeyStore::create(cost, &mut rng);
    let passphrase = keystore.passphrase_key(b"passphrase").unwrap();
    keystore
        .seal(&KeyStoreKey::from_bytes([1; 32]), 3, b"content", &mut rng)
        .unwrap();

    let link = InvitationLink {
        folder: FolderId::from_bytes([1; 32]),
        role: Role::Safe,
        secret: InvitationSecret::from_bytes([2; 32]),
        name: "Folder".into(),
        contacts: Vec::new(),
    };
    vec![
        ("store secret", short(store.expose())),
        ("peer authentication", short(store.peer_auth_key().expose())),
        ("discovery", short(store.discovery_key().expose())),
        ("commitment", short(&store.commitment())),
        ("body key", short(secret.body_key(&[1; 32]).expose())),
        ("roster text", short(secret.roster_text_key().expose())),
        (
            "chunk id",
            short(secret.chunk_id_key().chunk_id(b"chunk").as_bytes()),
        ),
        ("gear", short(&gear)),
        ("index seal", short(secret.index_seal_key().expose())),
        (
            "index name",
            short(&secret.index_name_key().apply(1, b"name")),
        ),
        ("pack", short(&pack)),
        ("roster", short(&roster)),
        (
            "identity",
            short(
                MemberIdentity::from_bytes(&[5; MemberIdentity::LENGTH])
                    .envelope_key()
                    .as_bytes(),
            ),
        ),
        (
            "tag",
            short(
                &store
                    .peer_auth_key()
                    .tag(&Exporter([3; 32]), Side::Acceptor)
                    .0,
            ),
        ),
        ("link", short(link.encode().as_bytes())),
        ("passphrase", short(passphrase.expose())),
        ("key store", short(keystore.as_bytes())),
        (
            "blob",
            short(&MachineKey::from_bytes([6; 32]).seal_blob(b"x", b"y", &mut rng)),
        ),
    ]
}

#[test]
fn formats_have_not_changed() {
    let found: Vec<_> = vectors()
        .into_iter()
        .map(|(name, hash)| format!("{name} {hash}"))
        .collect();
    let expected: Vec<_> = include_str!("vectors.txt")
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(found, expected, "found:\n{}", found.join("\n"));
}

/// Bytes, not a hash: another release of zstd may compress differently, but must read this.
#[test]
fn a_stored_commit_is_still_read() {
    let (_, secret, body, made_now) = commit::fixture(77);
    let stored = Commit::verified(include_bytes!("commit.bin").to_vec()).unwrap();
    assert_eq!(stored.header().author, made_now.header().author);
    assert_eq!(stored.header().salt, made_now.header().salt);
    assert_eq!(stored.open_body(&secret).unwrap(), body);
}
