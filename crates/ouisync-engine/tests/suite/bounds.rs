//! Ending: nothing hangs, nothing is left behind.

use std::{fs, io::Read, time::Duration};

use ouisync_engine::status::Role;
use ouisync_model::{
    id::NodeId,
    name::Name,
    operation::{Operation, Value},
    tree::edit,
};
use tokio::time::timeout;

use crate::device::{Device, eventually, files_below, fresh, noise};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn forgetting_deletes_the_store_and_nothing_else() {
    let alice = Device::start("alice").await;
    let (kept, gone) = (
        alice.create().await,
        alice.engine().create_folder("other").await.unwrap().folder,
    );
    alice.write(kept, "a", b"stays");
    alice.write(gone, "b", b"goes");
    let beside = alice.home().join("beside");
    fs::write(&beside, b"not ours").unwrap();
    alice.engine().forget_folder(gone).await.unwrap();
    assert!(!alice.store(gone).exists());
    assert!(alice.engine().status(gone).await.is_err());
    assert_eq!(alice.read(kept, "a").as_deref(), Some(&b"stays"[..]));
    assert!(beside.exists());
    let mut alice = alice;
    alice.stop().await;
    alice.go_on().await;
    assert_eq!(alice.engine().folders().len(), 1);
    // The name is free again.
    alice.engine().create_folder("other").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn forgetting_and_stopping_are_quick_while_transfers_run() {
    let mut alice = Device::start("alice").await;
    let bob = Device::start("bob").await;
    let folder = alice.create().await;
    alice.write(folder, "large", &noise(30 << 20));
    let link = alice.invite(folder, Role::Writer).await;
    bob.join(&link).await;
    eventually("the transfer runs", async || {
        let status = bob.status(folder).await;
        status.missing_bytes > 0 && !files_below(&bob.store(folder)).is_empty()
    })
    .await;
    let view = bob.view(folder);
    timeout(SOON, bob.engine().forget_folder(folder))
        .await
        .expect("forgetting is quick")
        .unwrap();
    assert!(!bob.store(folder).exists());
    assert!(view.write("too late", b"x").is_err());

    let carol = Device::start("carol").await;
    carol.join(&alice.invite(folder, Role::Writer).await).await;
    let waiting = carol.engine().clone();
    let waiting = tokio::spawn(async move { waiting.wait(folder, None).await });
    // Alice ends in the midst of sending.
    alice.stop().await;
    let mut carol = carol;
    carol.stop().await;
    let ended = timeout(SOON, waiting)
        .await
        .expect("waiting ends with the engine")
        .unwrap();
    drop(ended);
    carol.go_on().await;
    alice.go_on().await;
    carol.meet(&alice).await;
    carol.wait(folder).await;
    let outcome = carol.verify(folder).await;
    assert!(outcome.ok, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_of_many_operations_are_cut() {
    let (alice, bob) = (Device::start("alice").await, Device::start("bob").await);
    let folder = alice.create().await;
    bob.join(&alice.invite(folder, Role::Reader).await).await;
    let view = alice.view(folder);
    let operations: Vec<Operation> = (0..6000)
        .flat_map(|number| {
            let name = Name::new(format!("{number:05}")).unwrap();
            edit::create(
                NodeId::ROOT,
                name,
                fresh(),
                Value::Symlink(b"target".to_vec()),
                None,
            )
        })
        .collect();
    tokio::task::block_in_place(|| view.0.commit(operations, Vec::new())).unwrap();
    alice.wait(folder).await;
    bob.wait(folder).await;
    assert_eq!(bob.names(folder).len(), 6000);
}

/// Bytes without end that never repeat.
struct Endless(u64);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        for bytes in buffer.chunks_mut(8) {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            bytes.copy_from_slice(&(self.0 ^ (self.0 >> 29)).to_le_bytes()[..bytes.len()]);
        }
        Ok(buffer.len())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forgetting_ends_a_view_that_is_storing() {
    let alice = Device::start("alice").await;
    let folder = alice.create().await;
    let view = alice.view(folder);
    let storing = tokio::task::spawn_blocking(move || {
        let result = view.0.ingest(&mut Endless(1), 1 << 40, None);
        (view, result.is_err())
    });
    // Far enough that packs are announced ahead.
    eventually("packs are announced ahead", async || {
        alice.status(folder).await.stored_bytes > 64 << 20
    })
    .await;
    timeout(SOON, alice.engine().forget_folder(folder))
        .await
        .expect("forgetting is quick")
        .unwrap();
    let (view, failed) = timeout(SOON, storing).await.expect("storing ends").unwrap();
    assert!(failed);
    drop(view);
    assert!(
        !alice.store(folder).exists(),
        "{:?}",
        files_below(&alice.home())
    );
}
