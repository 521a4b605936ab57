//! Content reaches others, directly and through a safe.

use std::io::{Cursor, Read};

use ouisync_engine::{
    error::{EngineError, ErrorKind},
    status::{FolderState, Role},
};
use ouisync_model::operation::FileData;

use crate::device::{Device, files_below, noise};

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
    let error = alice.engine().wait(folder, Some(limit)).await.unwrap_err();
    assert!(
        matches!(&error, EngineError::TimedOut(_, why) if why.contains("paused")),
        "{error}"
    );
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
