//! History that was replaced before a holder fetched it: it comes afterwards, from whoever still has it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ouisync_engine::{
    housekeeping::Housekeeping,
    retention::{Keep, Limits, PolicyChange},
    status::Role,
};
use ouisync_model::id::FolderId;

use crate::device::{Device, eventually, noise, packs_of, quick};

const FRAME: u64 = 65536;
const DAY: u64 = 24 * 3600;

/// What is not used any more is released at once; time stands still.
fn settings(now: &Arc<AtomicU64>) -> Housekeeping {
    let now = now.clone();
    Housekeeping {
        tick: Duration::from_millis(20),
        release: Duration::from_millis(20),
        collect: Duration::from_millis(20),
        grace: Duration::from_secs(2 * DAY),
        floor: Duration::from_secs(4 * DAY),
        clock: Arc::new(move || now.load(Ordering::Relaxed)),
        ..quick()
    }
}

fn clock() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(1_800_000_000))
}

/// Time passes in steps that every device sees.
async fn pass(now: &Arc<AtomicU64>, days: u64) {
    for _ in 0..days {
        now.fetch_add(DAY, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Time passes until the device has no history any more; how many days that took.
async fn pass_history(now: &Arc<AtomicU64>, device: &Device, folder: FolderId) -> u64 {
    for days in 0..60 {
        let status = device.status(folder).await;
        if status.stored_bytes == status.live_bytes {
            return days;
        }
        pass(now, 1).await;
    }
    panic!("history that stays for ever");
}

/// Saves a file so many times more; of each former version the packs are released.
async fn save(device: &Device, folder: FolderId, name: &str, times: u64) {
    let before = device.status(folder).await;
    for saved in 1..=times {
        device.write(folder, name, &noise(50_000));
        device
            .becomes(folder, "done with the former version", |status| {
                status.live_bytes == before.live_bytes
                    && status.stored_bytes == before.stored_bytes + saved * FRAME
            })
            .await;
    }
}

async fn has_history(device: &Device, folder: FolderId, packs: u64) {
    device
        .becomes(folder, "in possession of history", |status| {
            status.stored_bytes - status.live_bytes == packs * FRAME
                && status.missing_history_bytes == 0
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_saves_while_the_safe_is_away_reach_it() {
    let now = clock();
    let alice = Device::with("alice", settings(&now)).await;
    let mut safe = Device::with("pi", settings(&now)).await;
    let bob = Device::with("bob", settings(&now)).await;
    let folder = alice.create().await;
    safe.join(&alice.invite(folder, Role::Safe).await).await;
    alice.write(folder, "letter", &noise(50_000));
    alice.wait(folder).await;
    safe.stop().await;
    save(&alice, folder, "letter", 10).await;
    safe.go_on().await;
    safe.meet(&alice).await;
    // The first version was here before.
    has_history(&safe, folder, 10).await;
    safe.wait(folder).await;
    // A device keeps little: what was replaced before it came isn't fetched.
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    bob.wait(folder).await;
    pass(&now, 1).await;
    let status = bob.status(folder).await;
    assert_eq!(status.stored_bytes, status.live_bytes);
    assert_eq!(status.missing_history_bytes, 0);
    for device in [&alice, &safe, &bob] {
        assert!(device.verify(folder).await.ok);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_that_nobody_has_is_told_and_not_waited_for() {
    let now = clock();
    let mut alice = Device::with("alice", settings(&now)).await;
    let mut safe = Device::with("pi", settings(&now)).await;
    let folder = alice.create().await;
    safe.join(&alice.invite(folder, Role::Safe).await).await;
    alice.write(folder, "letter", &noise(50_000));
    alice.wait(folder).await;
    safe.stop().await;
    save(&alice, folder, "letter", 3).await;
    // Her grace period passes: only the present version is left.
    pass_history(&now, &alice, folder).await;
    safe.go_on().await;
    safe.meet(&alice).await;
    safe.wait(folder).await;
    alice.wait(folder).await;
    safe.becomes(folder, "aware of what it lacks", |status| {
        status.missing_history_bytes == 2 * FRAME && status.missing_bytes == 0
    })
    .await;
    assert!(safe.status(folder).await.problems.is_empty());
    // Nor is it forgotten over a restart.
    alice.stop().await;
    safe.stop().await;
    safe.go_on().await;
    let status = safe.status(folder).await;
    assert_eq!(status.missing_history_bytes, 2 * FRAME);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_safe_gets_the_history_of_the_first_and_what_went_does_not_come_back() {
    let now = clock();
    let alice = Device::with("alice", settings(&now)).await;
    let (first, second) = (
        Device::with("pi", settings(&now)).await,
        Device::with("host", settings(&now)).await,
    );
    let folder = alice.create().await;
    let keep = |keep| PolicyChange {
        keep: Some(keep),
        devices: Some(Some(Keep::LITTLE)),
        ..PolicyChange::default()
    };
    let ten_days = keep(Keep::For(10 * DAY));
    alice.engine().set_policy(folder, ten_days).await.unwrap();
    first.join(&alice.invite(folder, Role::Safe).await).await;
    alice.write(folder, "letter", &noise(50_000));
    alice.wait(folder).await;
    save(&alice, folder, "letter", 3).await;
    has_history(&first, folder, 3).await;
    pass_history(&now, &alice, folder).await;
    pass(&now, 2).await;
    second.join(&alice.invite(folder, Role::Safe).await).await;
    second.meet(&first).await;
    has_history(&second, folder, 3).await;
    // The first safe's time is over before that of the second: it doesn't fetch them again.
    pass_history(&now, &first, folder).await;
    pass(&now, 1).await;
    let status = first.status(folder).await;
    assert_eq!(
        (status.stored_bytes, status.missing_history_bytes),
        (status.live_bytes, 0)
    );
    assert_eq!(packs_of(&second, folder).len(), 4);
    pass_history(&now, &second, folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_history_comes_again() {
    let now = clock();
    let alice = Device::with("alice", settings(&now)).await;
    let safe = Device::with("pi", settings(&now)).await;
    let folder = alice.create().await;
    safe.join(&alice.invite(folder, Role::Safe).await).await;
    alice.write(folder, "letter", &noise(50_000));
    alice.wait(folder).await;
    let old = packs_of(&safe, folder);
    save(&alice, folder, "letter", 1).await;
    alice.wait(folder).await;
    has_history(&safe, folder, 1).await;
    let mut bytes = std::fs::read(&old[0]).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&old[0], &bytes).unwrap();
    assert!(!safe.verify(folder).await.ok);
    let repaired = safe.engine().repair(folder).await.unwrap();
    assert!(repaired.ok, "{repaired:?}");
    has_history(&safe, folder, 1).await;
    bytes[1000] ^= 1;
    assert_eq!(std::fs::read(&old[0]).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_that_came_late_makes_room_for_what_is_needed() {
    let now = clock();
    let alice = Device::with("alice", settings(&now)).await;
    let mut safe = Device::with("pi", settings(&now)).await;
    let folder = alice.create().await;
    safe.join(&alice.invite(folder, Role::Safe).await).await;
    alice.write(folder, "letter", &noise(50_000));
    alice.wait(folder).await;
    let limits = Limits {
        quota: Some(10 * FRAME),
        floor: None,
    };
    safe.engine().set_limits(folder, limits).await.unwrap();
    safe.stop().await;
    save(&alice, folder, "letter", 12).await;
    safe.go_on().await;
    safe.meet(&alice).await;
    safe.wait(folder).await;
    // A tenth is left for what will be needed: one live, the first version, and seven of eleven that came late.
    safe.becomes(folder, "full of history", |status| {
        status.stored_bytes == 9 * FRAME && status.missing_history_bytes == 4 * FRAME
    })
    .await;
    for name in ["a", "b", "c", "d", "e"] {
        alice.write(folder, name, &noise(50_000));
    }
    alice.wait(folder).await;
    safe.becomes(folder, "in possession of what is needed", |status| {
        status.live_bytes == 6 * FRAME
            && status.stored_bytes <= 10 * FRAME
            && status.missing_bytes == 0
            && status.problems.is_empty()
    })
    .await;
    // The first version was held before it was replaced: the floor protects it. What went for want of room doesn't come back.
    let went = safe.status(folder).await;
    let unlimited = Limits {
        quota: None,
        floor: None,
    };
    safe.engine().set_limits(folder, unlimited).await.unwrap();
    eventually("all that did not come yet is here", async || {
        safe.status(folder).await.missing_history_bytes == 0
    })
    .await;
    let status = safe.status(folder).await;
    assert_eq!(status.stored_bytes, went.stored_bytes + 4 * FRAME);
    assert!(safe.verify(folder).await.ok);
}
