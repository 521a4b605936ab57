//! Roles, removal, rotation.

use ouisync_engine::{
    error::{EngineError, ErrorKind},
    status::{FolderState, Role},
};
use ouisync_model::{
    id::{FolderId, NodeId},
    name::Name,
    operation::Value,
    tree::edit,
};
use ouisync_store::store::{Store, StoreOptions};

use crate::device::{Device, View, eventually, files_below, fresh, noise};

/// Alice's folder with Bob in it.
async fn pair(role: Role) -> (Device, Device, FolderId) {
    let (alice, bob) = (Device::start("alice").await, Device::start("bob").await);
    let folder = alice.create().await;
    bob.join(&alice.invite(folder, role).await).await;
    bob.wait(folder).await;
    (alice, bob, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_becomes_a_writer_and_a_reader_again() {
    let (alice, bob, folder) = pair(Role::Reader).await;
    let refused = |error: EngineError| assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
    refused(bob.view(folder).write("a", b"one").unwrap_err());
    assert!(!bob.view(folder).0.writable());
    refused(
        bob.engine()
            .remove_member(folder, "alice")
            .await
            .unwrap_err(),
    );

    alice
        .engine()
        .set_role(folder, "bob", Role::Writer)
        .await
        .unwrap();
    eventually("bob may write", async || bob.view(folder).0.writable()).await;
    bob.write(folder, "a", b"two");
    alice.sees(folder, "a", b"two").await;
    refused(
        bob.engine()
            .set_role(folder, "alice", Role::Reader)
            .await
            .unwrap_err(),
    );

    alice
        .engine()
        .set_role(folder, "bob", Role::Reader)
        .await
        .unwrap();
    eventually("bob may not write", async || !bob.view(folder).0.writable()).await;
    refused(bob.view(folder).write("a", b"three").unwrap_err());
    alice.write(folder, "b", b"four");
    bob.sees(folder, "b", b"four").await;
    assert_eq!(
        bob.read(folder, "a").as_deref(),
        Some(&b"two"[..]),
        "what Bob wrote as a writer stays"
    );
    assert_eq!(alice.read(folder, "a").as_deref(), Some(&b"two"[..]));
    let error = alice
        .engine()
        .set_role(folder, "alice", Role::Writer)
        .await
        .unwrap_err();
    assert!(matches!(error, EngineError::LastOwner(_)), "{error}");
    assert_eq!(alice.status(folder).await.problems, Vec::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_writer_is_refused() {
    let (alice, mut bob, folder) = pair(Role::Writer).await;
    bob.write(folder, "before", b"from bob, before");
    alice.sees(folder, "before", b"from bob, before").await;
    alice.engine().remove_member(folder, "bob").await.unwrap();
    bob.becomes(folder, "removed", |status| {
        status.state == FolderState::Error
    })
    .await;
    let error = bob.view(folder).write("after", b"no").unwrap_err();
    assert!(matches!(error, EngineError::Removed), "{error}");
    assert_eq!(
        bob.read(folder, "before").as_deref(),
        Some(&b"from bob, before"[..]),
        "what he has stays his"
    );
    alice
        .becomes(folder, "alone", |status| status.peers.is_empty())
        .await;
    alice.write(folder, "secret", b"not for bob");

    // Coming back doesn't help.
    bob.stop().await;
    bob.go_on().await;
    bob.meet(&alice).await;
    alice.meet(&bob).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(
        alice
            .status(folder)
            .await
            .peers
            .iter()
            .all(|peer| !peer.connected)
    );
    assert_eq!(bob.status(folder).await.files, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_safe_gets_nothing_any_more() {
    let (alice, mut safe, folder) = pair(Role::Safe).await;
    alice.write(folder, "first", &noise(100_000));
    alice.wait(folder).await;
    safe.stop().await;
    let name = alice
        .engine()
        .members(folder)
        .await
        .unwrap()
        .into_iter()
        .find(|member| member.role == Role::Safe)
        .unwrap();
    alice
        .engine()
        .remove_member(folder, &name.member.to_string())
        .await
        .unwrap();
    alice.write(folder, "second", &noise(100_000));
    let size = |device: &Device| -> u64 {
        files_below(&device.store(folder).join("packs"))
            .iter()
            .map(|path| path.metadata().unwrap().len())
            .sum()
    };
    let before = size(&safe);
    safe.go_on().await;
    safe.meet(&alice).await;
    alice.meet(&safe).await;
    // It has an older epoch's secret: it may hear of its removal, and no more.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(size(&safe), before);
    assert!(size(&alice) > before);
    let status = alice.status(folder).await;
    assert!(
        status.peers.iter().all(|peer| !peer.connected),
        "{:?}",
        status.peers
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_safe_that_is_removed_while_connected_gets_nothing_from_then_on() {
    let (alice, safe, folder) = pair(Role::Safe).await;
    alice.write(folder, "first", &noise(100_000));
    alice.wait(folder).await;
    let stored = safe.status(folder).await.stored_bytes;
    let members = alice.engine().members(folder).await.unwrap();
    let removed = members
        .iter()
        .find(|member| member.role == Role::Safe)
        .unwrap()
        .member;
    alice
        .engine()
        .remove_member(folder, &removed.to_string())
        .await
        .unwrap();
    alice.write(folder, "second", &noise(100_000));
    safe.becomes(folder, "told of its removal", |status| {
        status.state == FolderState::Error
            && status
                .problems
                .iter()
                .any(|problem| problem.message.contains("removed"))
    })
    .await;
    alice
        .becomes(folder, "alone", |status| status.peers.is_empty())
        .await;
    assert_eq!(safe.status(folder).await.stored_bytes, stored);
    // What it was told to add next would have come by now.
    alice.write(folder, "third", &noise(100_000));
    let limit = std::time::Duration::from_millis(500);
    assert!(safe.engine().wait(folder, Some(limit)).await.is_err());
    assert_eq!(safe.status(folder).await.stored_bytes, stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_stored_across_a_rotation_can_be_read() {
    let (alice, bob, folder) = pair(Role::Reader).await;
    let carol = Device::start("carol").await;
    carol.join(&alice.invite(folder, Role::Reader).await).await;
    carol.wait(folder).await;
    let (first, second) = (noise(50_000), noise(50_000));
    let view = alice.view(folder);
    let store = |bytes: &[u8]| {
        tokio::task::block_in_place(|| view.0.ingest(&mut &*bytes, 50_000, None)).unwrap()
    };
    let before = store(&first);
    alice.engine().remove_member(folder, "carol").await.unwrap();
    let after = store(&second);
    let create = |name: &str, content| {
        edit::create(
            NodeId::ROOT,
            Name::new(name).unwrap(),
            fresh(),
            Value::File(content),
            None,
        )
    };
    let operations = [create("first", before), create("second", after)].concat();
    tokio::task::block_in_place(|| view.0.commit(operations, Vec::new())).unwrap();
    bob.sees(folder, "first", &first).await;
    bob.sees(folder, "second", &second).await;
}

/// Alice, Bob and Carol; Bob writes while Alice is away, which Carol gets; then Alice removes Bob.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_removed_writer_did_meanwhile_is_kept_aside_everywhere() {
    let (mut alice, mut bob, folder) = pair(Role::Writer).await;
    let mut carol = Device::start("carol").await;
    carol.join(&alice.invite(folder, Role::Writer).await).await;
    carol.meet(&bob).await;
    alice.write(folder, "common", b"of all");
    bob.write(folder, "early", b"known to all");
    for device in [&alice, &bob, &carol] {
        device.sees(folder, "common", b"of all").await;
        device.sees(folder, "early", b"known to all").await;
    }
    alice.stop().await;
    let large = noise(200_000);
    bob.write(folder, "late", &large);
    bob.write(folder, "early", b"changed meanwhile");
    carol.sees(folder, "early", b"changed meanwhile").await;
    carol.sees(folder, "late", &large).await;
    carol.write(folder, "of carol", b"built on what bob did");
    // Dave is nobody yet; Alice removes Bob alone.
    bob.stop().await;
    carol.stop().await;
    alice.go_on().await;
    alice.engine().remove_member(folder, "bob").await.unwrap();
    alice.write(folder, "after", b"in the new epoch");

    // Carol's device gets the removal, and loses power before anything follows from it.
    alice.stop().await;
    let store = |device: &Device| {
        Store::open_directory(device.store(folder), StoreOptions::default()).unwrap()
    };
    let entries: Vec<_> = store(&alice)
        .roster_entries()
        .unwrap()
        .into_iter()
        .map(|(_, bytes)| bytes)
        .collect();
    assert!(
        !store(&carol)
            .put_roster_entries(&entries)
            .unwrap()
            .is_empty()
    );
    carol.go_on().await;
    assert_eq!(carol.names(folder), ["common", "early", "of carol"]);
    assert_eq!(
        carol.read(folder, "early").as_deref(),
        Some(&b"known to all"[..])
    );
    alice.go_on().await;

    carol.meet(&alice).await;
    for device in [&alice, &carol] {
        device.sees(folder, "after", b"in the new epoch").await;
        device
            .sees(folder, "of carol", b"built on what bob did")
            .await;
        device.sees(folder, "early", b"known to all").await;
        assert_eq!(
            device.read(folder, "late"),
            None,
            "it came from a removed member"
        );
        device
            .becomes(folder, "telling of the quarantine", |status| {
                status
                    .problems
                    .iter()
                    .any(|problem| problem.message.contains("2 commits"))
            })
            .await;
        device.wait(folder).await;
        device
            .becomes(folder, "at rest", |status| {
                status.missing_bytes == 0 && status.state == FolderState::Synced
            })
            .await;
    }
    // Bob hears of it too, and can do no harm.
    bob.go_on().await;
    bob.meet(&carol).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(
        alice.names(folder),
        ["after", "common", "early", "of carol"]
    );
    assert_eq!(
        carol.names(folder),
        ["after", "common", "early", "of carol"]
    );
    // A restart finds the same.
    carol.stop().await;
    carol.go_on().await;
    assert_eq!(
        carol.names(folder),
        ["after", "common", "early", "of carol"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_follows_into_the_new_epoch() {
    let (alice, mut bob, folder) = pair(Role::Writer).await;
    let carol = Device::start("carol").await;
    carol.join(&alice.invite(folder, Role::Reader).await).await;
    carol.wait(folder).await;
    bob.stop().await;
    alice.engine().remove_member(folder, "carol").await.unwrap();
    alice.write(folder, "after", b"in the new epoch");
    bob.go_on().await;
    bob.meet(&alice).await;
    bob.sees(folder, "after", b"in the new epoch").await;
    bob.write(folder, "answer", b"also in it");
    alice.sees(folder, "answer", b"also in it").await;
    bob.wait(folder).await;
    alice.wait(folder).await;
    assert!(
        carol
            .engine()
            .view(folder)
            .map(View)
            .unwrap()
            .read("after")
            .is_none()
    );
}
