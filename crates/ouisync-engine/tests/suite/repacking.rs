//! What is left of many small packs goes into few large ones, and nothing is lost by it: not on devices, not at safes, not of the past.

use std::time::Duration;

use ouisync_engine::{
    history::{Events, HistoryQuery, RestoreRequest, When},
    housekeeping::Housekeeping,
    recall::{RecallPhase, RecallProgress},
    repacking::RepackTerms,
    retention::{Keep, PolicyChange},
    status::Role,
};
use ouisync_model::{id::FolderId, name::Name, operation::FileContent};
use tokio::task::block_in_place;

use crate::device::{Device, View, eventually, noise, packs_of, quick};

const FRAME: u64 = 65536;

struct Quiet;

impl RecallProgress for Quiet {
    fn tell(&mut self, _: RecallPhase, _: u64, _: u64) -> bool {
        true
    }
}

/// Searches all the time.
fn eager() -> Housekeeping {
    Housekeeping {
        release: Duration::from_millis(100),
        repack: RepackTerms {
            pause: Duration::from_millis(200),
            ..RepackTerms::default()
        },
        ..quick()
    }
}

/// Never searches, and releases as soon.
fn idle() -> Housekeeping {
    Housekeeping {
        release: Duration::from_millis(100),
        ..quick()
    }
}

/// What was written: the name, and every version with its bytes.
type Written = Vec<(String, Vec<(FileContent, Vec<u8>)>)>;

fn write(device: &Device, folder: FolderId, files: usize, label: &str) -> Written {
    let view = device.view(folder);
    let mut written = Vec::new();
    for number in 0..files {
        let name = format!("{label} {number}");
        // One in ten has a past.
        let versions = if number % 10 == 0 { 2 } else { 1 };
        let versions = (0..versions).map(|_| {
            let bytes = noise(6_000);
            let content = view.write_from(&name, &mut &bytes[..], 6_000).unwrap();
            (content, bytes)
        });
        let versions = versions.collect();
        written.push((name, versions));
    }
    written
}

/// What differs from what was written; `past` looks at former versions, too.
fn differs(view: &View, written: &Written, past: bool) -> Option<String> {
    for (name, versions) in written {
        let (_, now) = versions.last().unwrap();
        if view.read(name).as_ref() != Some(now) {
            return Some(name.clone());
        }
        for (content, bytes) in versions.iter().filter(|_| past) {
            if block_in_place(|| view.content(content)).as_ref() != Some(bytes) {
                return Some(format!("a version of {name}"));
            }
        }
    }
    None
}

async fn live(device: &Device, folder: FolderId) -> u64 {
    device.status(folder).await.live_bytes
}

/// Waits until no more than this is live at any of them, and everybody has it.
async fn shrinks(devices: &[&Device], folder: FolderId, bytes: u64) {
    eventually("few packs are live everywhere", async || {
        let mut all = true;
        for device in devices {
            all &= live(device, folder).await <= bytes;
        }
        all
    })
    .await;
    for device in devices {
        device.wait(folder).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_edits_leave_few_packs_and_everything_is_read_as_before() {
    let mut alice = Device::with("alice", idle()).await;
    let safe = Device::with("pi", idle()).await;
    let mut bob = Device::with("bob", idle()).await;
    let folder = alice.create().await;
    safe.join(&alice.invite(folder, Role::Safe).await).await;
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    let written = write(&alice, folder, 300, "file");
    for device in [&alice, &bob, &safe] {
        device.wait(folder).await;
    }
    shrinks(&[&alice, &bob, &safe], folder, 300 * FRAME).await;
    let before = live(&alice, folder).await;
    assert_eq!(before, 300 * FRAME);

    alice.stop().await;
    alice.set_housekeeping(eager());
    alice.go_on().await;
    alice.meet(&safe).await;
    alice.meet(&bob).await;
    shrinks(&[&alice, &bob, &safe], folder, 4 << 20).await;
    for device in [&alice, &bob] {
        assert_eq!(differs(&device.view(folder), &written, true), None);
        assert!(device.verify(folder).await.ok);
    }
    assert!(safe.verify(folder).await.ok);
    // There is nothing more to do, and nothing more is done.
    let packs = packs_of(&alice, folder).len();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(packs_of(&alice, folder).len(), packs);

    // From the safe alone, the past included.
    let link = alice.invite(folder, Role::Writer).await;
    alice.wait(folder).await;
    alice.stop().await;
    bob.stop().await;
    let carol = Device::with("carol", idle()).await;
    carol.meet(&safe).await;
    carol.join(&link).await;
    eventually("carol has everything", async || {
        let Ok(view) = carol.engine().view(folder) else {
            return false;
        };
        differs(&View(view), &written, false).is_none()
    })
    .await;
    assert_eq!(live(&carol, folder).await, live(&safe, folder).await);
    let (name, versions) = &written[0];
    let path = vec![Name::new(name.as_str()).unwrap()];
    let query = HistoryQuery {
        path: path.clone(),
        since: None,
        until: None,
        limit: 10,
    };
    let history = carol.engine().history(folder, query).await.unwrap();
    let Events::Versions(known) = history.events else {
        panic!("{history:?}");
    };
    assert_eq!(known.len(), 2, "{known:?}");
    let request = RestoreRequest {
        path,
        when: When::Version(known[1].version.clone()),
        to: Some(vec![Name::new("former").unwrap()]),
        exact: false,
        partial: false,
    };
    let engine = carol.engine();
    engine
        .restore(folder, request, Box::new(Quiet))
        .await
        .unwrap();
    carol.sees(folder, "former", &versions[0].1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_that_repack_apart_end_with_one_set_of_packs() {
    let mut alice = Device::with("alice", idle()).await;
    let mut bob = Device::with("bob", idle()).await;
    let folder = alice.create().await;
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    let mut written = write(&alice, folder, 100, "file");
    written.extend(write(&bob, folder, 20, "bob's"));
    for device in [&alice, &bob] {
        device.wait(folder).await;
        assert_eq!(differs(&device.view(folder), &written, true), None);
    }
    shrinks(&[&alice, &bob], folder, 120 * FRAME).await;
    alice.stop().await;
    bob.stop().await;
    for device in [&mut alice, &mut bob] {
        let before = packs_of(device, folder).len();
        device.set_housekeeping(eager());
        device.go_on().await;
        eventually("it repacks by itself", async || {
            packs_of(device, folder).len() > before
        })
        .await;
        // Nobody else has the new packs yet, so the old ones stay.
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(live(device, folder).await > 120 * FRAME);
        device.stop().await;
    }
    alice.go_on().await;
    bob.go_on().await;
    alice.meet(&bob).await;
    // One of the two new packs is enough.
    shrinks(&[&alice, &bob], folder, 1 << 20).await;
    for device in [&alice, &bob] {
        assert_eq!(differs(&device.view(folder), &written, true), None);
        assert!(device.verify(folder).await.ok);
    }
    assert_eq!(live(&alice, folder).await, live(&bob, folder).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_history_is_kept_for_ever_the_copies_take_the_place_of_the_old_packs() {
    let alice = Device::with("alice", eager()).await;
    let folder = alice.create().await;
    let change = PolicyChange {
        keep: Some(Keep::All),
        ..PolicyChange::default()
    };
    alice.engine().set_policy(folder, change).await.unwrap();
    let written = write(&alice, folder, 100, "file");
    eventually("few packs are live", async || {
        live(&alice, folder).await < 40 * FRAME
    })
    .await;
    assert_eq!(differs(&alice.view(folder), &written, true), None);
    eventually("the old ones need not be kept", async || {
        let retention = alice.engine().retention(folder).await.unwrap();
        retention.forgotten.packs > 50
    })
    .await;
    assert_eq!(differs(&alice.view(folder), &written, true), None);
}
