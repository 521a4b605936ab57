//! Giving up packs that others hold, and having them again.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ouisync_engine::{
    error::EngineError,
    history::When,
    offload::{Freed, Offload, OffloadRequest, ViewFile},
    recall::{RecallPhase, RecallProgress},
    retention::{Keep, PolicyChange},
    status::{FolderStatus, Role},
};
use ouisync_model::{
    id::{FolderId, NodeId},
    name::Name,
};
use tokio::task::block_in_place;

use crate::device::{DEADLINE, Device, files_below, noise};

struct Quiet;

impl RecallProgress for Quiet {
    fn tell(&mut self, _: RecallPhase, _: u64, _: u64) -> bool {
        true
    }
}

fn file(name: &str) -> ViewFile {
    ViewFile {
        directory: NodeId::ROOT,
        name: Name::new(name).unwrap(),
    }
}

async fn prepare(
    device: &Device,
    folder: FolderId,
    chosen: &[&str],
    others: &[&str],
) -> Result<Offload, EngineError> {
    let request = OffloadRequest {
        chosen: chosen.iter().map(|name| file(name)).collect(),
        others: others.iter().map(|name| file(name)).collect(),
    };
    device
        .engine()
        .offload(folder, request, Box::new(Quiet))
        .await
}

/// Offloads files that are not refused once everybody has what was written just now.
async fn offload(device: &Device, folder: FolderId, chosen: &[&str], others: &[&str]) -> Freed {
    let begun = Instant::now();
    let offload = loop {
        let offload = prepare(device, folder, chosen, others).await.unwrap();
        if offload.refused.is_empty() {
            break offload;
        }
        assert!(begun.elapsed() < DEADLINE, "{:?}", offload.refused);
        drop(offload);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let all: BTreeSet<usize> = (0..chosen.len()).collect();
    block_in_place(|| offload.finish(&all)).unwrap()
}

async fn set_policy(device: &Device, folder: FolderId, replicas: u16, devices: Option<Keep>) {
    let change = PolicyChange {
        replicas: Some(replicas),
        devices: devices.map(Some),
        ..PolicyChange::default()
    };
    device.engine().set_policy(folder, change).await.unwrap();
}

fn packs(store: &Path) -> Vec<(std::path::PathBuf, u64)> {
    let files = files_below(&store.join("packs")).into_iter();
    files
        .map(|path| {
            let length = std::fs::metadata(&path).unwrap().len();
            (path, length)
        })
        .collect()
}

fn bytes_on_disk(store: &Path) -> u64 {
    packs(store).iter().map(|(_, length)| length).sum()
}

/// Alice, a safe and Bob, all with everything.
async fn three() -> (Device, Device, Device, FolderId) {
    let (alice, pi, bob) = (
        Device::start("alice").await,
        Device::start("pi").await,
        Device::start("bob").await,
    );
    let folder = alice.create().await;
    pi.join(&alice.invite(folder, Role::Safe).await).await;
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    (alice, pi, bob, folder)
}

async fn all_wait(devices: &[&Device], folder: FolderId) {
    for device in devices {
        device.wait(folder).await;
    }
    // That one of the others has everything is not enough here.
    for device in devices {
        let served = |status: &FolderStatus| {
            let mut peers = status.peers.iter().filter(|peer| peer.connected);
            peers.all(|peer| peer.missing_bytes == 0)
        };
        device.becomes(folder, "followed by all", served).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offloaded_content_goes_from_the_disk_and_comes_back_when_it_is_read() {
    let (mut alice, pi, bob, folder) = three().await;
    let (film, note) = (noise(3_000_000), noise(300_000));
    alice.write(folder, "film", &film);
    alice.write(folder, "note", &note);
    all_wait(&[&alice, &pi, &bob], folder).await;
    let before = bytes_on_disk(&alice.store(folder));
    let freed = offload(&alice, folder, &["film"], &[]).await;
    assert!(freed.packs > 0 && freed.bytes > 3_000_000, "{freed:?}");
    assert_eq!(bytes_on_disk(&alice.store(folder)), before - freed.bytes);
    alice
        .becomes(folder, "without it", |status| {
            status.offloaded_bytes == freed.bytes && status.missing_bytes == 0
        })
        .await;
    // Nobody waits for it, and it isn't fetched, also not after a start.
    all_wait(&[&alice, &bob, &pi], folder).await;
    alice.stop().await;
    alice.go_on().await;
    alice.meet(&bob).await;
    alice.meet(&pi).await;
    alice.write(folder, "later", &noise(100_000));
    all_wait(&[&alice, &bob, &pi], folder).await;
    assert_eq!(alice.status(folder).await.offloaded_bytes, freed.bytes);
    assert!(alice.verify(folder).await.ok);
    assert_eq!(alice.read(folder, "note"), Some(note), "another pack");
    // Whoever reads it has it fetched.
    alice.sees(folder, "film", &film).await;
    alice
        .becomes(folder, "with all", |status| {
            status.offloaded_bytes == 0 && status.missing_bytes == 0
        })
        .await;
    alice.wait(folder).await;
    // And it can go again.
    assert_eq!(offload(&alice, folder, &["film"], &[]).await, freed);
    let recalled = alice
        .engine()
        .recall(
            folder,
            vec![Name::new("film").unwrap()],
            When::Latest,
            Box::new(Quiet),
        )
        .await
        .unwrap();
    assert!(recalled.is_leaf);
    assert_eq!(alice.read(folder, "film"), Some(film), "fetched at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_something_else_needs_stays() {
    let (alice, pi, bob, folder) = three().await;
    let content = noise(500_000);
    alice.write(folder, "one", &content);
    alice.write(folder, "copy", &content);
    all_wait(&[&alice, &pi, &bob], folder).await;
    let nothing = Freed::default();
    assert_eq!(offload(&alice, folder, &["one"], &[]).await, nothing);
    let freed = offload(&alice, folder, &["copy"], &["one"]).await;
    assert!(freed.bytes >= 500_000);
    // A file that needs it, made elsewhere, has it fetched.
    bob.write(folder, "third", &content);
    alice.sees(folder, "third", &content).await;

    // Where devices are to keep history, what former versions need stays.
    set_policy(&alice, folder, 2, Some(Keep::All)).await;
    alice.write(folder, "edited", &noise(400_000));
    let edited = [&noise(200_000)[..], &content[..200_000]].concat();
    alice.write(folder, "edited", &edited);
    all_wait(&[&alice, &pi, &bob], folder).await;
    let names = ["third", "one", "copy", "edited"];
    let kept = offload(&alice, folder, &names, &[]).await;
    set_policy(&alice, folder, 2, Some(Keep::LITTLE)).await;
    let rest = offload(&alice, folder, &names, &[]).await;
    assert!(rest.bytes + kept.bytes >= 500_000, "{kept:?} {rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_enough_who_show_it_nothing_goes() {
    let (alice, mut pi, bob, folder) = three().await;
    let film = noise(1_000_000);
    alice.write(folder, "film", &film);
    all_wait(&[&alice, &pi, &bob], folder).await;
    let before = bytes_on_disk(&alice.store(folder));
    let refused = async |device: &Device| {
        let offload = prepare(device, folder, &["film"], &[]).await.unwrap();
        assert!(!offload.shows_any());
        let replicas = offload.refused[&0].clone();
        // Even who goes on regardless drops nothing.
        let freed = block_in_place(|| offload.finish(&BTreeSet::from([0]))).unwrap();
        assert_eq!(freed, Freed::default());
        replicas
    };
    // One is away.
    pi.stop().await;
    let replicas = refused(&alice).await;
    assert_eq!((replicas.wanted, replicas.shown.len()), (2, 1));
    assert_eq!(replicas.shown, ["bob (writer)"]);
    assert_eq!(replicas.away, ["pi (safe)"], "{replicas}");

    // The safe says that it holds what it has lost: one pack's bytes are others, behind its back.
    pi.go_on().await;
    pi.meet(&alice).await;
    all_wait(&[&alice, &pi], folder).await;
    for (path, length) in packs(&pi.store(folder)) {
        std::fs::write(path, vec![7; length as usize]).unwrap();
    }
    let replicas = refused(&alice).await;
    assert_eq!(replicas.shown, ["bob (writer)"]);
    assert_eq!(replicas.failed, ["pi (safe)"], "{replicas}");
    assert!(
        EngineError::TooFewReplicas(replicas)
            .to_string()
            .starts_with("1 of 2 wanted replicas")
    );
    assert_eq!(bytes_on_disk(&alice.store(folder)), before);
    // What was to go is held again, and others know that.
    alice
        .becomes(folder, "whole again", |status| status.offloaded_bytes == 0)
        .await;
    set_policy(&alice, folder, 1, None).await;
    bob.wait(folder).await;
    let freed = offload(&bob, folder, &["film"], &[]).await;
    assert!(freed.bytes >= 1_000_000, "alice shows it to bob");
    assert_eq!(alice.read(folder, "film"), Some(film));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_read_doesnt_count() {
    let (alice, carol) = (Device::start("alice").await, Device::start("carol").await);
    let folder = alice.create().await;
    carol.join(&alice.invite(folder, Role::Reader).await).await;
    alice.write(folder, "film", &noise(200_000));
    all_wait(&[&alice, &carol], folder).await;
    set_policy(&alice, folder, 1, None).await;
    let offloading = prepare(&alice, folder, &["film"], &[]).await.unwrap();
    assert!(!offloading.shows_any());
    assert_eq!(offloading.refused[&0].shown.len(), 0);
    drop(offloading);
    carol.wait(folder).await;
    // It may rely on others itself.
    let freed = offload(&carol, folder, &["film"], &[]).await;
    assert!(freed.bytes >= 200_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_rely_on_each_other_dont_both_let_go() {
    for round in 0..3 {
        let (alice, bob) = (Device::start("alice").await, Device::start("bob").await);
        let folder = alice.create().await;
        bob.join(&alice.invite(folder, Role::Writer).await).await;
        set_policy(&alice, folder, 1, None).await;
        let film = noise(400_000);
        alice.write(folder, "film", &film);
        all_wait(&[&alice, &bob], folder).await;
        let one = async |device: &Device| {
            let offload = prepare(device, folder, &["film"], &[]).await.unwrap();
            block_in_place(|| offload.finish(&BTreeSet::from([0]))).unwrap()
        };
        let (at_alice, at_bob) = tokio::join!(one(&alice), one(&bob));
        assert!(
            at_alice.packs == 0 || at_bob.packs == 0,
            "round {round}: {at_alice:?} {at_bob:?}"
        );
        for device in [&alice, &bob] {
            device.sees(folder, "film", &film).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offload_that_is_given_up_takes_everything_back() {
    struct Stopping(Arc<AtomicBool>);
    impl RecallProgress for Stopping {
        fn tell(&mut self, phase: RecallPhase, _: u64, _: u64) -> bool {
            let stop = phase == RecallPhase::Proving;
            self.0.fetch_or(stop, Ordering::Relaxed);
            !stop
        }
    }
    let (alice, pi, bob, folder) = three().await;
    alice.write(folder, "film", &noise(400_000));
    all_wait(&[&alice, &pi, &bob], folder).await;
    let stopped = Arc::new(AtomicBool::new(false));
    let request = OffloadRequest {
        chosen: vec![file("film")],
        others: Vec::new(),
    };
    let progress = Box::new(Stopping(stopped.clone()));
    let outcome = alice.engine().offload(folder, request, progress).await;
    assert!(matches!(outcome, Err(EngineError::Cancelled)));
    assert!(stopped.load(Ordering::Relaxed));
    // One at a time; and one that is dropped makes room for the next.
    let first = prepare(&alice, folder, &["film"], &[]).await.unwrap();
    let second = prepare(&alice, folder, &["film"], &[]).await;
    assert!(matches!(second, Err(EngineError::Offloading)));
    drop(first);
    let freed = offload(&alice, folder, &["film"], &[]).await;
    assert!(freed.packs > 0);
}
