//! Content reaches others, directly and through a safe.

use std::io::{Cursor, Read};

use ouisync_engine::{
    error::{EngineError, ErrorKind},
    status::{FolderState, Role},
};
use ouisync_model::operation::FileData;

use crate::device::{Device, files_below, noise, packs_of};

#[tokio::test(flavor = "multi_thread")]
async fn contents_of_every_size_arrive() {
    let (alice, bob) = (Device::start("alice").await, Device::start("bob").await);
    let folder = alice.create().await;
    let files: Vec<_> = [0, 10, 4096, 4097, 70_000, 5 << 20]
        .into_iter()
        .map(|size| (format!("file of {size}"), noise(size)))
        .collect();
    for (name, bytes) in &files {
        alice.write(folder, name, bytes);
    }
    let status = alice.status(folder).await;
    assert_eq!(
        (status.state, status.files),
        (FolderState::Synced, 6),
        "alone is at rest: {status:?}"
    );
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    bob.wait(folder).await;
    alice.wait(folder).await;
    for (name, bytes) in &files {
        assert_eq!(
            bob.read(folder, name).as_deref(),
            Some(&bytes[..]),
            "{name}"
        );
    }
    for device in [&alice, &bob] {
        device
            .becomes(folder, "synced", |status| {
                status.state == FolderState::Synced
            })
            .await;
        let status = device.status(folder).await;
        assert_eq!(status.files, 6);
        assert_eq!(
            status.bytes,
            files
                .iter()
                .map(|(_, bytes)| bytes.len() as u64)
                .sum::<u64>()
        );
        assert_eq!(status.missing_bytes, 0);
        assert_eq!(status.problems, Vec::new());
        assert_eq!(status.conflicts, 0);
        assert!(status.stored_bytes > 5 << 20);
        let [peer] = &status.peers[..] else {
            panic!("one peer: {:?}", status.peers)
        };
        assert!(peer.connected && peer.missing_bytes == 0 && peer.member.is_some());
        let (name, role) = if device.engine().device().name == "alice" {
            ("bob", Role::Writer)
        } else {
            ("alice", Role::Owner)
        };
        assert_eq!((peer.name.as_deref(), peer.role), (Some(name), Some(role)));
    }

    // And the other way, and new versions.
    bob.write(folder, "file of 10", b"bob was here");
    alice.sees(folder, "file of 10", b"bob was here").await;
    alice.view(folder).delete("file of 4096");
    alice.wait(folder).await;
    bob.wait(folder).await;
    assert!(bob.read(folder, "file of 4096").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn long_chunk_lists_arrive() {
    let (alice, bob) = (Device::start("alice").await, Device::start("bob").await);
    let folder = alice.create().await;
    bob.join(&alice.invite(folder, Role::Reader).await).await;
    // The same bytes again and again: many chunks, few packs. The small hint keeps the chunks small.
    let part = noise(2 << 20);
    let whole = part.repeat(64);
    let mut source = Cursor::new(&whole).take(u64::MAX);
    let content = alice
        .view(folder)
        .write_from("long", &mut source, 1)
        .unwrap();
    assert!(
        matches!(content.data, FileData::Indirect(_)),
        "the list must be long for this test"
    );
    alice.wait(folder).await;
    bob.wait(folder).await;
    assert!(bob.read(folder, "long").as_deref() == Some(&whole[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_says_what_it_waits_for() {
    let alice = Device::start("alice").await;
    let folder = alice.create().await;
    let limit = std::time::Duration::from_millis(100);
    let error = alice.engine().wait(folder, Some(limit)).await.unwrap_err();
    assert!(
        matches!(&error, EngineError::TimedOut(_, why) if why.contains("no other member")),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    alice.engine().pause(Some(folder)).await.unwrap();
    let error = alice.engine().wait(folder, None).await.unwrap_err();
    assert!(matches!(&error, EngineError::Paused), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

/// Nothing goes in either direction, not even names of commits, until it goes on; also after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_folder_is_not_there_for_peers() {
    let alice = Device::start("alice").await;
    let mut bob = Device::start("bob").await;
    let folder = alice.create().await;
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    bob.wait(folder).await;
    bob.engine().pause(Some(folder)).await.unwrap();
    bob.write(folder, "for nobody yet", b"hello");
    let connected = async |device: &Device| {
        let peers = device.status(folder).await.peers;
        peers.iter().filter(|peer| peer.connected).count()
    };
    assert_eq!(connected(&bob).await, 0);
    alice
        .becomes(folder, "alone", |status| {
            status.peers.iter().all(|peer| !peer.connected)
        })
        .await;
    alice.write(folder, "small", b"while bob was paused");
    alice.write(folder, "large", &noise(300_000));
    let before = packs_of(&bob, folder).len();
    bob.stop().await;
    bob.go_on().await;
    bob.meet(&alice).await;
    assert_eq!(bob.status(folder).await.state, FolderState::Paused);
    // Another folder of the two goes on, so the devices do meet.
    let other = alice.engine().create_folder("other").await.unwrap().folder;
    bob.join(&alice.invite(other, Role::Writer).await).await;
    bob.wait(other).await;
    assert_eq!(connected(&bob).await, 0);
    assert!(!bob.names(folder).contains(&"small".to_owned()));
    assert_eq!(packs_of(&bob, folder).len(), before);
    assert!(alice.read(folder, "for nobody yet").is_none());

    bob.engine().resume(Some(folder)).await.unwrap();
    bob.wait(folder).await;
    assert_eq!(
        bob.names(folder),
        ["for nobody yet", "large", "small"],
        "it caught up"
    );
    alice.sees(folder, "for nobody yet", b"hello").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_safe_enrols_and_forwards_and_shows_nothing() {
    let mut alice = Device::start("alices-own-laptop").await;
    let safe = Device::start("pi").await;
    let bob = Device::start("bobs-own-phone").await;
    let folder = alice.create().await;
    safe.join(&alice.invite(folder, Role::Safe).await).await;
    let secret = b"the treasure lies under the old oak tree, three steps north".repeat(200);
    alice.write(folder, "treasure-map.txt", &secret);
    alice.write(folder, "little-note.txt", b"do not tell anybody of this");
    let for_bob = alice.invite(folder, Role::Writer).await;
    alice.wait(folder).await;
    safe.wait(folder).await;
    alice.stop().await;

    bob.join(&for_bob).await;
    bob.wait(folder).await;
    assert_eq!(
        bob.read(folder, "treasure-map.txt").as_deref(),
        Some(&secret[..])
    );
    bob.write(
        folder,
        "answer-from-bob.txt",
        b"I have found the place already",
    );
    bob.wait(folder).await;
    safe.wait(folder).await;

    let error = safe.engine().view(folder).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden);
    assert_eq!(safe.status(folder).await.files, 0);
    assert!(
        safe.engine()
            .members(folder)
            .await
            .unwrap()
            .iter()
            .all(|member| member.name.is_none() || member.this_device == Some(true))
    );

    alice.go_on().await;
    alice.meet(&safe).await;
    alice
        .sees(
            folder,
            "answer-from-bob.txt",
            b"I have found the place already",
        )
        .await;
    let words: [&[u8]; 9] = [
        b"treasure",
        b"oak tree",
        b"little-note",
        b"do not tell",
        b"answer-from",
        b"found the place",
        b"voyage",
        b"alices-own",
        b"bobs-own",
    ];
    for path in files_below(&safe.home()) {
        let bytes = std::fs::read(&path).unwrap();
        for word in words {
            let shown = bytes.windows(word.len()).any(|window| window == word);
            assert!(
                !shown,
                "{} shows {:?}",
                path.display(),
                String::from_utf8_lossy(word)
            );
        }
    }
}
