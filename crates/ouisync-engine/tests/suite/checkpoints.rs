//! Starting from checkpoints when the first commits are gone everywhere.

use std::time::Duration;

use ouisync_engine::{
    history::{Events, HistoryQuery, RestoreRequest, When},
    housekeeping::Housekeeping,
    recall::{RecallPhase, RecallProgress},
    status::Role,
    view::ViewKey,
};
use ouisync_model::{
    id::{FolderId, Timestamp},
    name::Name,
};
use ouisync_store::{
    checkpoint::CheckpointCheck,
    store::{Store, StoreOptions},
};

use crate::device::{Device, View, eventually, noise, quick};

/// Makes a checkpoint after a few commits and drops what it covers soon: not before new packs have had time to be committed.
fn eager() -> Housekeeping {
    Housekeeping {
        release: Duration::from_millis(200),
        collect: Duration::from_millis(200),
        grace: Duration::from_secs(3),
        floor: Duration::ZERO,
        safe_retention: Some(Duration::ZERO),
        checkpoint_commits: 6,
        ..quick()
    }
}

/// Commits whose bytes a stopped device has, and those that it knows without.
fn commits(device: &Device, folder: FolderId) -> (usize, usize) {
    let store = Store::open_directory(device.store(folder), StoreOptions::default()).unwrap();
    let all = store.commits_in_order(None, usize::MAX).unwrap();
    let whole = all
        .iter()
        .filter(|(_, id)| store.commit_bytes(*id).unwrap().is_some());
    let whole = whole.count();
    (whole, all.len() - whole)
}

/// Waits until the device has dropped bytes of commits.
async fn drops(device: &mut Device, folder: FolderId) {
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        device.stop().await;
        let (_, cut) = commits(device, folder);
        device.go_on().await;
        if cut > 0 {
            return;
        }
    }
    panic!("nothing was dropped");
}

fn files(count: usize) -> Vec<(String, Vec<u8>)> {
    let content = |number: usize| match number % 3 {
        0 => noise(150_000),
        1 => format!("a small file, number {number}\n").into_bytes(),
        _ => noise(5000),
    };
    (0..count)
        .map(|number| (format!("file {number:02}"), content(number)))
        .collect()
}

async fn sees_all(device: &Device, folder: FolderId, files: &[(String, Vec<u8>)]) {
    for (name, content) in files {
        device.sees(folder, name, content).await;
    }
    device.wait(folder).await;
    assert_eq!(device.names(folder).len(), files.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn newcomers_get_everything_through_a_safe_that_cut() {
    let mut alice = Device::with("alice", eager()).await;
    let mut safe = Device::with("safe", eager()).await;
    let folder = alice.create().await;
    safe.join(&alice.invite(folder, Role::Safe).await).await;
    let mut all = files(15);
    for (name, content) in &all {
        alice.write(folder, name, content);
    }
    alice.view(folder).delete("file 03");
    all.retain(|(name, _)| name != "file 03");
    alice.write(folder, "file 04", b"edited");
    all.iter_mut()
        .find(|(name, _)| name == "file 04")
        .unwrap()
        .1 = b"edited".to_vec();
    alice.wait(folder).await;
    drops(&mut safe, folder).await;
    alice.meet(&safe).await;
    let link = alice.invite(folder, Role::Writer).await;
    let second = alice.invite(folder, Role::Reader).await;
    alice.wait(folder).await;
    alice.stop().await;

    let mut bob = Device::with("bob", eager()).await;
    bob.meet(&safe).await;
    bob.join(&link).await;
    sees_all(&bob, folder, &all).await;
    // He goes on from there, also after a restart, and the owner hears of it.
    bob.write(folder, "file 99", b"Bob's");
    all.push(("file 99".to_owned(), b"Bob's".to_vec()));
    bob.stop().await;
    let (whole, cut) = commits(&bob, folder);
    assert!(cut >= 6 && whole < 12, "{whole} {cut}");
    bob.go_on().await;
    bob.meet(&safe).await;
    bob.write(folder, "file 04", b"edited by Bob");
    all.iter_mut()
        .find(|(name, _)| name == "file 04")
        .unwrap()
        .1 = b"edited by Bob".to_vec();
    bob.wait(folder).await;
    alice.go_on().await;
    alice.meet(&safe).await;
    sees_all(&alice, folder, &all).await;
    alice.stop().await;
    safe.stop().await;
    // Who started from a checkpoint lets others start from it.
    let carol = Device::with("carol", eager()).await;
    carol.meet(&bob).await;
    carol.join(&second).await;
    sees_all(&carol, folder, &all).await;
    for device in [&bob, &carol] {
        let outcome = device.verify(folder).await;
        assert!(outcome.ok, "{outcome:?}");
        let status = device.status(folder).await;
        assert!(
            status.problems.is_empty() && status.conflicts == 0,
            "{status:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_while_everybody_cut_loses_nothing() {
    let mut alice = Device::with("alice", eager()).await;
    let mut safe = Device::with("safe", eager()).await;
    let mut bob = Device::with("bob", quick()).await;
    let mut carol = Device::with("carol", quick()).await;
    let folder = alice.create().await;
    safe.join(&alice.invite(folder, Role::Safe).await).await;
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    carol.join(&alice.invite(folder, Role::Reader).await).await;
    alice.write(folder, "both", b"before");
    alice.write(folder, "old", b"untouched");
    for device in [&alice, &bob, &carol] {
        device.wait(folder).await;
        device.sees(folder, "old", b"untouched").await;
    }
    // What Carol's view noted stays through the restart from a checkpoint.
    let key = ViewKey {
        group: [7; 16],
        item: b"note".to_vec(),
    };
    let note = |device: &Device| View(device.engine().view(folder).unwrap()).0.record(&key);
    let View(view) = carol.view(folder);
    tokio::task::block_in_place(|| view.update(vec![(key.clone(), Some(b"mine".to_vec()))], &[]))
        .unwrap();
    drop(view);
    for device in [&mut bob, &mut carol, &mut alice, &mut safe] {
        device.stop().await;
    }

    // Nobody hears of it.
    bob.go_on().await;
    let alone = noise(200_000);
    bob.write(folder, "alone", &alone);
    bob.write(folder, "both", b"by Bob");
    bob.stop().await;
    alice.go_on().await;
    safe.go_on().await;
    alice.meet(&safe).await;

    let all = files(14);
    for (name, content) in &all {
        alice.write(folder, name, content);
    }
    alice.write(folder, "both", b"by Alice");
    alice.wait(folder).await;
    drops(&mut safe, folder).await;
    drops(&mut alice, folder).await;

    bob.go_on().await;
    carol.go_on().await;
    bob.meet(&safe).await;
    carol.meet(&safe).await;
    alice.meet(&safe).await;
    for device in [&alice, &bob, &carol] {
        device.sees(folder, "alone", &alone).await;
        device.sees(folder, "old", b"untouched").await;
        for (name, content) in &all {
            device.sees(folder, name, content).await;
        }
        eventually("both edits are kept", async || {
            let mut both: Vec<_> = device
                .names(folder)
                .iter()
                .filter(|name| name.starts_with("both"))
                .filter_map(|name| device.read(folder, name))
                .collect();
            both.sort();
            both == [b"by Alice".to_vec(), b"by Bob".to_vec()]
        })
        .await;
        assert_eq!(device.names(folder).len(), all.len() + 4);
        device.wait(folder).await;
    }
    assert_eq!(note(&carol).unwrap().as_deref(), Some(&b"mine"[..]));
    carol.stop().await;
    let (_, cut) = commits(&carol, folder);
    assert!(cut > 0, "Carol started from the checkpoint");
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_follow_each_other_and_share_what_they_store() {
    let mut alice = Device::with("alice", eager()).await;
    let mut safe = Device::with("safe", eager()).await;
    let folder = alice.create().await;
    safe.join(&alice.invite(folder, Role::Safe).await).await;
    for round in 0..4 {
        for number in 0..8 {
            alice.write(folder, &format!("{round} {number}"), &noise(3000));
        }
        alice.wait(folder).await;
        tokio::time::sleep(Duration::from_millis(800)).await;
    }
    drops(&mut safe, folder).await;
    safe.stop().await;
    alice.stop().await;
    for device in [&alice, &safe] {
        let (whole, cut) = commits(device, folder);
        assert!(whole < 20 && cut >= 20, "{whole} {cut}");
    }
    // An index that is lost is made from the last of them.
    std::fs::remove_dir_all(alice.store(folder).join("index")).unwrap();
    alice.go_on().await;
    eventually("the tree is there again", async || {
        alice.names(folder).len() == 32
    })
    .await;
    alice.write(folder, "more", b"of it");
    assert!(alice.verify(folder).await.ok);
}

struct Patient;

impl RecallProgress for Patient {
    fn tell(&mut self, _: RecallPhase, _: u64, _: u64) -> bool {
        true
    }
}

/// The checkpoints that a stopped device found right.
fn right_checkpoints(device: &Device, folder: FolderId) -> usize {
    let store = Store::open_directory(device.store(folder), StoreOptions::default()).unwrap();
    let all = store.checkpoints().unwrap().into_iter();
    all.filter(|info| info.check >= CheckpointCheck::Blind && info.has_bytes)
        .count()
}

fn path(name: &str) -> Vec<Name> {
    vec![Name::new(name).unwrap()]
}

/// Where history begins, and how many changes it has.
async fn history(device: &Device, folder: FolderId) -> (Option<Timestamp>, usize) {
    let query = HistoryQuery {
        path: Vec::new(),
        since: None,
        until: None,
        limit: 10_000,
    };
    let found = device.engine().history(folder, query).await.unwrap();
    let Events::Changes(changes) = found.events else {
        panic!("no folder")
    };
    (found.begins, changes.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn history_reaches_back_to_the_checkpoint_that_a_safe_cut_at() {
    let mut alice = Device::with("alice", eager()).await;
    let mut safe = Device::with("safe", eager()).await;
    let folder = alice.create().await;
    safe.join(&alice.invite(folder, Role::Safe).await).await;
    alice.write(folder, "never back", b"before everything that is held");
    alice.view(folder).delete("never back");
    for (name, content) in files(12) {
        alice.write(folder, &name, &content);
    }
    alice.wait(folder).await;
    drops(&mut safe, folder).await;
    // From now on it keeps everything.
    safe.stop().await;
    let before = right_checkpoints(&safe, folder);
    safe.set_housekeeping(Housekeeping {
        release: Duration::from_millis(200),
        ..quick()
    });
    safe.go_on().await;
    alice.meet(&safe).await;
    let gone = noise(200_000);
    alice.write(folder, "gone", &gone);
    alice.write(folder, "file 01", b"in between");
    alice.view(folder).delete("gone");
    alice.write(folder, "file 01", b"at last");
    for number in 0..8 {
        alice.write(folder, &format!("later {number}"), &noise(3000));
    }
    let link = alice.invite(folder, Role::Writer).await;
    alice.wait(folder).await;
    let mut after = before;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        alice.wait(folder).await;
        safe.stop().await;
        after = right_checkpoints(&safe, folder);
        safe.go_on().await;
        alice.meet(&safe).await;
        if after > before {
            break;
        }
    }
    assert!(after > before, "no other checkpoint came");
    let present = history(&alice, folder).await;
    alice.stop().await;

    let mut bob = Device::with("bob", quick()).await;
    bob.meet(&safe).await;
    bob.join(&link).await;
    bob.wait(folder).await;
    let (begins, few) = history(&bob, folder).await;
    let begins = begins.expect("Bob started from a checkpoint");
    let deleted = bob.engine().deleted(folder, Vec::new()).await.unwrap();
    let entry = |name: &str| deleted.iter().find(|entry| entry.path == path(name));
    let unknown = entry("gone").expect("the tree knows that it was");
    assert_eq!((unknown.bytes, unknown.here), (None, false));

    // It is brought back at once, with the history between the two checkpoints.
    let request = RestoreRequest {
        path: path("gone"),
        when: When::Latest,
        to: None,
        exact: false,
        partial: false,
    };
    let restoring = bob.engine().restore(folder, request, Box::new(Patient));
    assert_eq!(restoring.await.unwrap().files, 1);
    assert_eq!(bob.read(folder, "gone").unwrap(), gone);
    let (earlier, more) = history(&bob, folder).await;
    let earlier = earlier.expect("the safe has no bytes of the first commits");
    assert!(earlier < begins, "{earlier:?} {begins:?}");
    assert!(
        few < more && more <= present.1 + 1,
        "{few} {more} {present:?}"
    );
    let query = HistoryQuery {
        path: path("file 01"),
        since: None,
        until: None,
        limit: 100,
    };
    let Events::Versions(versions) = bob.engine().history(folder, query).await.unwrap().events
    else {
        panic!("no file")
    };
    let found = bob.engine().recall(
        folder,
        path("file 01"),
        When::Version(versions[1].version.clone()),
        Box::new(Patient),
    );
    assert_eq!(found.await.unwrap().entries.len(), 1);
    // Nobody has more, and that is no failure.
    let reach = bob.engine().reach_back(folder, None, Box::new(Patient));
    let reach = reach.await.unwrap();
    assert_eq!(reach.begins, Some(earlier));
    assert_eq!(reach.not_here.asked.len(), 1, "{reach:?}");
    let deleted = bob.engine().deleted(folder, Vec::new()).await.unwrap();
    let lost = deleted
        .iter()
        .find(|entry| entry.path == path("never back"));
    assert_eq!(lost.map(|entry| entry.here), Some(false));

    // What was fetched for it has gone, and history stays through a restart.
    bob.write(folder, "Bob's", b"own");
    bob.wait(folder).await;
    let outcome = bob.verify(folder).await;
    assert!(outcome.ok, "{outcome:?}");
    bob.stop().await;
    let store = Store::open_directory(bob.store(folder), StoreOptions::default()).unwrap();
    let absent = store.commits_without_bytes().unwrap();
    assert!(!absent.is_empty());
    for commit in absent {
        assert!(!store.has_past(commit).unwrap());
    }
    drop(store);
    bob.go_on().await;
    assert_eq!(history(&bob, folder).await, (Some(earlier), more + 1));
}
