//! Damage, release, collection, a full disk.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ouisync_engine::{
    error::ErrorKind,
    housekeeping::Housekeeping,
    status::{FolderState, PeerStatus, Role},
};
use ouisync_store::store::{Store, StoreOptions};

use crate::device::{Device, eventually, files_below, noise, packs_of, quick};

#[tokio::test(flavor = "multi_thread")]
async fn damaged_packs_are_found_and_fetched_again() {
    let (alice, bob) = (Device::start("alice").await, Device::start("bob").await);
    let folder = alice.create().await;
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    let content = noise(1_500_000);
    alice.write(folder, "precious", &content);
    alice.wait(folder).await;
    bob.wait(folder).await;
    let outcome = alice.verify(folder).await;
    assert!(
        outcome.ok && outcome.packs > 0 && outcome.bytes > 1_500_000,
        "{outcome:?}"
    );

    let packs = packs_of(&alice, folder);
    let mut bytes = fs::read(&packs[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes[100] ^= 0x80;
    fs::write(&packs[0], &bytes).unwrap();
    if let Some(gone) = packs.get(1) {
        fs::remove_file(gone).unwrap();
    }
    let outcome = alice.verify(folder).await;
    assert!(!outcome.ok);
    assert_eq!(outcome.problems.len(), packs.len().min(2), "{outcome:?}");
    alice.engine().repair(folder).await.unwrap();
    alice.sees(folder, "precious", &content).await;
    alice.wait(folder).await;
    let outcome = alice.verify(folder).await;
    assert!(outcome.ok, "{outcome:?}");
    assert_eq!(packs_of(&alice, folder).len(), packs.len());
    bob.wait(folder).await;
    // It serves them again.
    let carol = Device::start("carol").await;
    let link = alice.invite(folder, Role::Reader).await;
    carol.join(&link).await;
    carol.sees(folder, "precious", &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_a_damaged_pack_is_an_error_and_never_wrong_bytes() {
    let alice = Device::start("alice").await;
    let folder = alice.create().await;
    alice.write(folder, "precious", &noise(300_000));
    for pack in packs_of(&alice, folder) {
        let mut bytes = fs::read(&pack).unwrap();
        for byte in bytes.iter_mut().step_by(1000) {
            *byte ^= 1;
        }
        fs::write(&pack, &bytes).unwrap();
    }
    assert_eq!(alice.read(folder, "precious"), None);
    assert!(!alice.verify(folder).await.ok);
}

/// A clock that a test moves.
fn clock(now: &Arc<AtomicU64>) -> Arc<dyn Fn() -> u64 + Send + Sync> {
    let now = now.clone();
    Arc::new(move || now.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_uses_is_released_and_collected_in_time() {
    const DAY: u64 = 24 * 3600;
    let now = Arc::new(AtomicU64::new(1_700_000_000));
    let housekeeping = Housekeeping {
        release: Duration::from_millis(200),
        collect: Duration::from_millis(50),
        grace: Duration::from_secs(3 * DAY),
        floor: Duration::ZERO,
        safe_retention: Some(Duration::from_secs(10 * DAY)),
        clock: clock(&now),
        ..quick()
    };
    let alice = Device::with("alice", housekeeping.clone()).await;
    let safe = Device::with("pi", housekeeping).await;
    let folder = alice.create().await;
    safe.join(&alice.invite(folder, Role::Safe).await).await;
    let first = noise(400_000);
    alice.write(folder, "changing", &first);
    alice.write(folder, "staying", &noise(50_000));
    alice.wait(folder).await;
    let old = packs_of(&alice, folder);
    let second = noise(400_000);
    alice.write(folder, "changing", &second);
    alice.wait(folder).await;
    let all = packs_of(&alice, folder);
    assert!(all.len() > old.len());

    // Once released, time passes day by day: a clock that jumps must not drop anything.
    let left = async |device: &Device| packs_of(device, folder).len();
    let mut days = 0;
    eventually("alice collects what she released", async || {
        now.fetch_add(DAY, Ordering::Relaxed);
        days += 1;
        tokio::time::sleep(Duration::from_millis(80)).await;
        left(&alice).await < all.len()
    })
    .await;
    assert!(days > 3, "the grace period was kept");
    assert_eq!(left(&safe).await, all.len(), "the safe keeps it for longer");
    eventually("the safe collects it", async || {
        now.fetch_add(DAY, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(80)).await;
        left(&safe).await < all.len()
    })
    .await;
    assert!(alice.read(folder, "changing").as_deref() == Some(&second[..]));
    assert!(alice.read(folder, "staying").is_some());
    for device in [&alice, &safe] {
        device.wait(folder).await;
        let outcome = device.verify(folder).await;
        assert!(outcome.ok, "{outcome:?}");
    }

    // The old content comes back: what was dropped is stored again.
    alice.write(folder, "again", &first);
    alice.wait(folder).await;
    assert!(alice.read(folder, "again").as_deref() == Some(&first[..]));
    let bob = Device::start("bob").await;
    bob.join(&alice.invite(folder, Role::Reader).await).await;
    bob.sees(folder, "again", &first).await;
    bob.sees(folder, "changing", &second).await;
}

/// Bob refers to content again whose release he has not seen.
#[tokio::test(flavor = "multi_thread")]
async fn content_used_again_while_it_was_released_is_live_again() {
    let slow = quick();
    let fast = Housekeeping {
        release: Duration::from_millis(200),
        ..quick()
    };
    let alice = Device::with("alice", fast).await;
    let mut bob = Device::with("bob", slow).await;
    let folder = alice.create().await;
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    let content = noise(200_000);
    alice.write(folder, "original", &content);
    alice.wait(folder).await;
    bob.sees(folder, "original", &content).await;
    bob.stop().await;
    alice.view(folder).delete("original");
    let live = async || alice.status(folder).await.stored_bytes;
    let _ = live().await;
    // Long enough for two looks; what matters holds whenever the release happens.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    bob.go_on().await;
    bob.write(folder, "copy", &content);
    bob.meet(&alice).await;
    alice.meet(&bob).await;
    alice.sees(folder, "copy", &content).await;
    bob.wait(folder).await;
    alice.wait(folder).await;
    let carol = Device::start("carol").await;
    carol.join(&alice.invite(folder, Role::Reader).await).await;
    carol.sees(folder, "copy", &content).await;
    carol.wait(folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_pauses_and_resume_goes_on() {
    let alice = Device::start("alice").await;
    // Too little for content, enough for the catalogue.
    let disk = rustix::fs::statvfs(std::env::temp_dir().as_path()).unwrap();
    let reserve = disk.f_bavail * disk.f_frsize * 2;
    let mut bob = Device::with("bob", Housekeeping { reserve, ..quick() }).await;
    let folder = alice.create().await;
    let content = noise(300_000);
    alice.write(folder, "large", &content);
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    bob.becomes(folder, "out of space", |status| {
        status.state == FolderState::Error
            && status
                .problems
                .iter()
                .any(|problem| problem.message.contains("free some space"))
    })
    .await;
    let error = bob.view(folder).write("own", &noise(100_000)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    // Still full: resuming says so again.
    bob.engine().resume(Some(folder)).await.unwrap();
    bob.becomes(folder, "out of space again", |status| {
        status.state == FolderState::Error
    })
    .await;
    bob.stop().await;
    bob.set_housekeeping(quick());
    bob.go_on().await;
    bob.meet(&alice).await;
    bob.sees(folder, "large", &content).await;
    assert_eq!(bob.status(folder).await.problems, Vec::new());
    bob.write(folder, "own", b"there is room");
    alice.sees(folder, "own", b"there is room").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_opened_stops_no_other() {
    let mut alice = Device::start("alice").await;
    let good = alice.create().await;
    alice.write(good, "a", b"well");
    let broken = alice.engine().create_folder("broken").await.unwrap().folder;
    alice.stop().await;
    for file in files_below(&alice.store(broken).join("catalogue")) {
        fs::write(file, b"not what was here").unwrap();
    }
    alice.go_on().await;
    assert_eq!(alice.read(good, "a").as_deref(), Some(&b"well"[..]));
    for name in ["broken", &broken.to_string()] {
        assert_eq!(alice.engine().find_folder(name).unwrap().folder, broken);
    }
    let status = alice.engine().status(broken).await.unwrap();
    assert_eq!(status.state, FolderState::Error);
    let problem = &status.problems[0].message;
    assert!(problem.contains("could not be opened"), "{problem}");
    let error = alice.engine().members(broken).await.unwrap_err();
    assert_ne!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("could not be opened"), "{error}");
    alice.engine().forget_folder(broken).await.unwrap();
    assert_eq!(
        alice.engine().find_folder("broken").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert!(!alice.store(broken).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_kill_left_undurable_is_acknowledged_after_the_next_start() {
    let (alice, mut safe) = (Device::start("alice").await, Device::start("safe").await);
    let folder = alice.create().await;
    safe.join(&alice.invite(folder, Role::Safe).await).await;
    alice.write(folder, "precious", &noise(50_000));
    alice.wait(folder).await;
    safe.stop().await;
    // As a process that was killed leaves it: a pack has come, and its file wasn't synced yet.
    let store = Store::open_directory(safe.store(folder), StoreOptions::default()).unwrap();
    let (pack, size) = store.live_packs(None, 1).unwrap()[0];
    let bytes = store.read_frames(pack, 0, size.frames()).unwrap();
    store.report_damaged(pack).unwrap();
    store.repair().unwrap();
    store.receive_pack(pack, &bytes).unwrap();
    assert_eq!(store.pending_packs(), [pack]);
    drop(store);

    safe.go_on().await;
    safe.meet(&alice).await;
    alice
        .becomes(folder, "sure that the safe has all", |status| {
            let safe = |peer: &&PeerStatus| peer.connected && peer.role == Some(Role::Safe);
            let mut peers = status.peers.iter();
            peers.find(safe).is_some_and(|peer| peer.missing_bytes == 0)
                && status.state == FolderState::Synced
        })
        .await;
    alice.wait(folder).await;
}
