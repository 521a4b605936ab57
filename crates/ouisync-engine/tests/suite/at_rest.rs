//! Locking: a locked folder goes on blind, and nothing but the passphrase opens it.

use std::time::Duration;

use ouisync_engine::{
    error::{EngineError, ErrorKind},
    status::{FolderState, Role},
};

use crate::device::{Device, eventually, files_below, noise, packs_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_folder_goes_on_syncing_blind() {
    let alice = Device::start("alice").await;
    let mut bob = Device::start("bob").await;
    let folder = alice.create().await;
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    bob.write(folder, "own", b"from bob");
    bob.wait(folder).await;

    let error = bob.engine().lock(None).await.unwrap_err();
    assert!(matches!(error, EngineError::NoPassphrase), "{error}");
    let error = bob
        .engine()
        .unlock(None, Some("anything".to_owned()))
        .await
        .unwrap_err();
    assert!(matches!(error, EngineError::NoPassphrase), "{error}");
    bob.engine()
        .set_passphrase(None, "open sesame".to_owned())
        .await
        .unwrap();
    bob.engine().lock(Some(folder)).await.unwrap();
    assert_eq!(bob.status(folder).await.state, FolderState::Locked);
    let error = bob.engine().view(folder).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");

    let before = packs_of(&bob, folder).len();
    let large = noise(300_000);
    alice.write(folder, "large", &large);
    alice.write(folder, "small", b"while bob was locked");
    alice.wait(folder).await;
    assert!(
        packs_of(&bob, folder).len() > before,
        "packs come while it is locked"
    );
    assert_eq!(bob.status(folder).await.files, 0);

    // A restart leaves it locked, and connected.
    bob.stop().await;
    bob.go_on().await;
    assert_eq!(bob.status(folder).await.state, FolderState::Locked);
    bob.meet(&alice).await;
    alice.write(folder, "later", b"after the restart");
    alice.wait(folder).await;

    let error = bob
        .engine()
        .unlock(None, Some("open barley".to_owned()))
        .await
        .unwrap_err();
    assert!(matches!(error, EngineError::WrongPassphrase), "{error}");
    let opened = bob
        .engine()
        .unlock(None, Some("open sesame".to_owned()))
        .await
        .unwrap();
    assert_eq!(
        opened
            .iter()
            .map(|summary| summary.name.as_str())
            .collect::<Vec<_>>(),
        ["voyage"]
    );
    assert_eq!(bob.names(folder), ["large", "later", "own", "small"]);
    assert!(bob.read(folder, "large").as_deref() == Some(&large[..]));
    bob.write(folder, "own", b"from bob again");
    alice.sees(folder, "own", b"from bob again").await;
    // Whom Alice talks to is known again without a new connection.
    alice
        .becomes(folder, "sure of Bob", |status| {
            status
                .peers
                .iter()
                .any(|peer| peer.connected && peer.member.is_some())
        })
        .await;
    for path in files_below(&bob.home()) {
        let bytes = std::fs::read(&path).unwrap();
        assert!(
            !bytes.windows(11).any(|window| window == b"open sesame"),
            "{}",
            path.display()
        );
    }
}

/// After a start the names of locked folders are sealed: they can be unlocked by name nevertheless.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_unlocked_by_a_name_that_was_sealed() {
    let mut alice = Device::start("alice").await;
    let folder = alice.create().await;
    let name = alice.status(folder).await.name;
    alice
        .engine()
        .set_passphrase(None, "open sesame".to_owned())
        .await
        .unwrap();
    alice.stop().await;
    alice.go_on().await;
    let unknown = alice.engine().find_folder(&name).unwrap_err();
    assert!(matches!(unknown, EngineError::SealedName(_)), "{unknown}");
    let unlock = async |name: &str| {
        let passphrase = Some("open sesame".to_owned());
        alice.engine().unlock_named(name, passphrase).await
    };
    let unknown = unlock("another").await.unwrap_err();
    assert!(
        matches!(unknown, EngineError::UnknownFolder(_)),
        "{unknown}"
    );
    assert!(alice.engine().find_folder(&name).is_err());
    assert_eq!(unlock(&name).await.unwrap()[0].folder, folder);
    assert_eq!(alice.engine().find_folder(&name).unwrap().folder, folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_device_follows_a_rotation_blind() {
    let alice = Device::start("alice").await;
    let mut bob = Device::start("bob").await;
    let carol = Device::start("carol").await;
    let folder = alice.create().await;
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    carol.join(&alice.invite(folder, Role::Reader).await).await;
    bob.wait(folder).await;
    carol.wait(folder).await;
    bob.engine()
        .set_passphrase(None, "open sesame".to_owned())
        .await
        .unwrap();
    bob.engine().lock(Some(folder)).await.unwrap();
    // After a restart it doesn't know who it is, and the epoch begins while it is away.
    bob.stop().await;
    alice.engine().remove_member(folder, "carol").await.unwrap();
    let before = packs_of(&bob, folder).len();
    alice.write(folder, "large", &noise(300_000));
    alice.write(folder, "after", b"in the new epoch");
    bob.go_on().await;
    bob.meet(&alice).await;
    eventually("packs of the new epoch come", async || {
        packs_of(&bob, folder).len() > before
    })
    .await;
    alice.wait(folder).await;
    // Once more while it runs, and it passes on what it can't read.
    let dave = Device::start("dave").await;
    dave.join(&alice.invite(folder, Role::Reader).await).await;
    dave.wait(folder).await;
    alice.engine().remove_member(folder, "dave").await.unwrap();
    alice.write(folder, "later", b"in yet another epoch");
    alice.wait(folder).await;
    assert_eq!(bob.status(folder).await.state, FolderState::Locked);
    assert_eq!(bob.status(folder).await.role, None);
    bob.engine()
        .unlock(None, Some("open sesame".to_owned()))
        .await
        .unwrap();
    bob.sees(folder, "after", b"in the new epoch").await;
    bob.write(folder, "answer", b"from bob");
    alice.sees(folder, "answer", b"from bob").await;
    eventually("carol stays out", async || {
        alice
            .status(folder)
            .await
            .peers
            .iter()
            .filter(|peer| peer.connected)
            .count()
            == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_locks_before_being_let_in_reads_after_unlocking() {
    let (mut alice, mut bob) = (Device::start("alice").await, Device::start("bob").await);
    let folder = alice.create().await;
    alice.write(folder, "note", b"from alice");
    let link = alice.invite(folder, Role::Writer).await;
    let passphrase = || "open sesame".to_owned();
    bob.engine()
        .set_passphrase(None, passphrase())
        .await
        .unwrap();
    alice.stop().await;
    bob.engine()
        .join(&link, None, Duration::from_millis(10))
        .await
        .unwrap();
    bob.engine().lock(Some(folder)).await.unwrap();
    alice.go_on().await;
    bob.meet(&alice).await;
    // What the invitation opens comes while it is locked.
    bob.becomes(folder, "connected", |status| {
        status.peers.iter().any(|peer| peer.connected)
    })
    .await;
    eventually("the roster comes", async || {
        !bob.engine().members(folder).await.unwrap().is_empty()
    })
    .await;
    bob.engine()
        .unlock(Some(folder), Some(passphrase()))
        .await
        .unwrap();
    bob.sees(folder, "note", b"from alice").await;
    bob.stop().await;
    bob.go_on().await;
    bob.engine()
        .unlock(Some(folder), Some(passphrase()))
        .await
        .unwrap();
    assert_eq!(
        bob.read(folder, "note").as_deref(),
        Some(&b"from alice"[..])
    );
}
