//! A device that was restored from a backup.

use ouisync_engine::status::Role;

use crate::device::{Device, copy_tree, noise};

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_device_fetches_its_own_newer_commits() {
    let (mut alice, bob) = (Device::start("alice").await, Device::start("bob").await);
    let folder = alice.create().await;
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    alice.write(folder, "first", b"in the backup");
    alice.wait(folder).await;
    alice.stop().await;
    let backup = tempfile::tempdir().unwrap();
    copy_tree(&alice.home(), backup.path());
    alice.go_on().await;
    alice.meet(&bob).await;
    let later = noise(100_000);
    alice.write(folder, "second", &later);
    alice.write(folder, "first", b"newer than the backup");
    alice.wait(folder).await;
    bob.wait(folder).await;
    let member = own_member(&alice, folder).await;
    alice.stop().await;
    std::fs::remove_dir_all(alice.home()).unwrap();
    copy_tree(backup.path(), &alice.home());

    alice.go_on().await;
    assert_eq!(
        alice.read(folder, "first").as_deref(),
        Some(&b"in the backup"[..])
    );
    let mut events = alice.engine().events();
    alice.meet(&bob).await;
    alice.sees(folder, "first", b"newer than the backup").await;
    alice.sees(folder, "second", &later).await;
    // It goes on under a new key.
    crate::device::eventually("the key is retired", async || {
        own_member(&alice, folder).await != member
    })
    .await;
    let mut told = false;
    while let Ok(event) = events.try_recv() {
        told |= format!("{event:?}").contains("restored from a backup");
    }
    assert!(told);
    alice.write(folder, "third", b"after the restore");
    bob.sees(folder, "third", b"after the restore").await;
    assert_eq!(alice.names(folder), ["first", "second", "third"]);
    assert_eq!(bob.names(folder), ["first", "second", "third"]);
    let members = bob.engine().members(folder).await.unwrap();
    assert_eq!(members.len(), 2, "{members:?}");
    assert!(
        members
            .iter()
            .any(|member| member.name.as_deref() == Some("alice") && member.role == Role::Owner)
    );
    alice.stop().await;
    alice.go_on().await;
    alice.meet(&bob).await;
    alice.write(folder, "fourth", b"and after a restart");
    bob.sees(folder, "fourth", b"and after a restart").await;
    for device in [&alice, &bob] {
        let outcome = device.verify(folder).await;
        assert!(outcome.ok, "{outcome:?}");
        device.wait(folder).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_before_meeting_a_peer_are_a_fork_and_nothing_is_lost() {
    let (mut alice, bob) = (Device::start("alice").await, Device::start("bob").await);
    let folder = alice.create().await;
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    alice.write(folder, "both", b"in the backup");
    alice.wait(folder).await;
    alice.stop().await;
    let backup = tempfile::tempdir().unwrap();
    copy_tree(&alice.home(), backup.path());
    alice.go_on().await;
    alice.meet(&bob).await;
    alice.write(folder, "both", b"before the disk broke");
    alice.write(folder, "lost?", b"known to bob alone");
    alice.wait(folder).await;
    alice.stop().await;
    std::fs::remove_dir_all(alice.home()).unwrap();
    copy_tree(backup.path(), &alice.home());

    // Bob is away: it can't know.
    let mut bob = bob;
    bob.stop().await;
    alice.go_on().await;
    alice.write(folder, "both", b"after the restore");
    alice.write(folder, "new", b"written on the backup");
    bob.go_on().await;
    bob.meet(&alice).await;
    alice.meet(&bob).await;
    for device in [&alice, &bob] {
        device.sees(folder, "new", b"written on the backup").await;
        device.sees(folder, "lost?", b"known to bob alone").await;
        device
            .becomes(folder, "telling of the fork", |status| {
                status.conflicts == 1
                    && status
                        .problems
                        .iter()
                        .any(|problem| problem.message.contains("two versions"))
            })
            .await;
        let mut contents: Vec<_> = device
            .names(folder)
            .iter()
            .filter(|name| name.starts_with("both"))
            .map(|name| device.read(folder, name).unwrap())
            .collect();
        contents.sort();
        assert_eq!(
            contents,
            [
                b"after the restore".to_vec(),
                b"before the disk broke".to_vec()
            ]
        );
    }
    alice.write(folder, "goes on", b"under a new key");
    bob.sees(folder, "goes on", b"under a new key").await;
    bob.write(folder, "answer", b"to the new key");
    alice.sees(folder, "answer", b"to the new key").await;
    alice.wait(folder).await;
    bob.wait(folder).await;
}

async fn own_member(
    device: &Device,
    folder: ouisync_model::id::FolderId,
) -> ouisync_model::id::MemberId {
    let members = device.engine().members(folder).await.unwrap();
    members
        .into_iter()
        .find(|member| member.this_device == Some(true))
        .map(|member| member.member)
        .unwrap_or_else(|| ouisync_model::id::MemberId::from_bytes([0; 32]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_the_key_is_retired_does_not_forget_it() {
    let (mut alice, bob) = (Device::start("alice").await, Device::start("bob").await);
    let folder = alice.create().await;
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    alice.wait(folder).await;
    let member = own_member(&alice, folder).await;
    alice.stop().await;
    // As the process left it after it had stored a commit of its own that came from a peer.
    let store = alice.home().join("folders").join(&folder.to_string()[..32]);
    std::fs::write(store.join("restored"), b"").unwrap();
    alice.go_on().await;
    crate::device::eventually("the key is retired", async || {
        own_member(&alice, folder).await != member
    })
    .await;
    assert!(!store.join("restored").exists());
    alice.meet(&bob).await;
    alice.write(folder, "after", b"under the new key");
    bob.sees(folder, "after", b"under the new key").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_a_folder_is_forgotten_leaves_nothing_behind() {
    let mut alice = Device::start("alice").await;
    let (gone, kept) = (
        alice.create().await,
        alice.engine().create_folder("kept").await.unwrap().folder,
    );
    alice.stop().await;
    let store = alice.home().join("folders").join(&gone.to_string()[..32]);
    std::fs::rename(&store, store.with_extension("forgotten")).unwrap();
    alice.go_on().await;
    let folders = alice.engine().folders();
    assert_eq!(folders.len(), 1, "{folders:?}");
    assert_eq!(folders[0].folder, kept);
    let left = std::fs::read_dir(alice.home().join("folders")).unwrap();
    assert_eq!(left.count(), 1);
    alice.stop().await;
    alice.go_on().await;
    assert_eq!(alice.engine().folders().len(), 1);
}
