//! How long history is kept, by whom: policies, floors, quotas, thinning. Clocks are simulated.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ouisync_engine::{
    error::EngineError,
    housekeeping::Housekeeping,
    retention::{Keep, Limits, PolicyChange},
    status::{FolderState, Role},
};
use ouisync_model::{id::FolderId, name::Name};

use crate::device::{Device, eventually, noise, packs_of, quick};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * DAY)
}

/// A clock of several devices.
#[derive(Clone)]
struct Clock(Arc<AtomicU64>);

impl Clock {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_800_000_000)))
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Lets time pass in steps that every device sees.
    async fn pass(&self, seconds: u64) {
        let mut left = seconds;
        while left > 0 {
            let step = left.min(DAY);
            self.0.fetch_add(step, Ordering::Relaxed);
            left -= step;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Safes keep nothing for less than four days, devices for two; searches happen all the time.
    fn housekeeping(&self) -> Housekeeping {
        let now = self.0.clone();
        Housekeeping {
            tick: Duration::from_millis(20),
            release: Duration::from_millis(20),
            collect: Duration::from_millis(20),
            thin: Duration::from_millis(60),
            grace: days(2),
            floor: days(4),
            clock: Arc::new(move || now.load(Ordering::Relaxed)),
            ..quick()
        }
    }
}

fn names(device: &Device, folder: FolderId) -> BTreeSet<String> {
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    packs_of(device, folder).iter().map(name).collect()
}

fn keep(keep: Keep) -> PolicyChange {
    PolicyChange {
        keep: Some(keep),
        ..PolicyChange::default()
    }
}

/// Alice and a safe, by one clock.
struct Pair {
    clock: Clock,
    alice: Device,
    safe: Device,
    folder: FolderId,
}

impl Pair {
    async fn new() -> Self {
        let clock = Clock::new();
        let alice = Device::with("alice", clock.housekeeping()).await;
        let safe = Device::with("pi", clock.housekeeping()).await;
        let folder = alice.create().await;
        safe.join(&alice.invite(folder, Role::Safe).await).await;
        alice.wait(folder).await;
        Self {
            clock,
            alice,
            safe,
            folder,
        }
    }

    /// Writes a file and returns the packs that it needed.
    async fn write(&self, name: &str, length: usize) -> BTreeSet<String> {
        let before = names(&self.safe, self.folder);
        self.alice.write(self.folder, name, &noise(length));
        self.alice.wait(self.folder).await;
        let after = names(&self.safe, self.folder);
        after.difference(&before).cloned().collect()
    }

    fn safe_has(&self, packs: &BTreeSet<String>) -> bool {
        packs.is_subset(&names(&self.safe, self.folder))
    }

    /// Waits until the safe knows that so much of what it stores is history.
    async fn history(&self, bytes: u64) {
        self.safe
            .becomes(self.folder, "left with that history", |status| {
                status.stored_bytes - status.live_bytes == bytes
            })
            .await;
    }

    async fn policy(&self, change: PolicyChange) {
        let engine = self.alice.engine();
        let now = engine.set_policy(self.folder, change).await.unwrap();
        eventually("the safe knows the policy", async || {
            let there = self.safe.engine().retention(self.folder).await.unwrap();
            there.policy == now.policy
        })
        .await;
    }

    /// Days until the safe no longer has these packs.
    async fn days_until_gone(&self, packs: &BTreeSet<String>, limit: u64) -> Option<u64> {
        for day in 0..limit {
            if !self.safe_has(packs) {
                return Some(day);
            }
            self.clock.pass(DAY).await;
        }
        None
    }
}

const FRAME: u64 = 65536;

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_turns_hostile_makes_a_safe_drop_nothing_within_its_floor() {
    let pair = Pair::new().await;
    pair.policy(keep(Keep::All)).await;
    let first = pair.write("diary", 50_000).await;
    pair.write("diary", 50_000).await;
    pair.history(FRAME).await;
    assert_eq!(pair.days_until_gone(&first, 30).await, None);
    // Shortened, lengthened and shortened again: it counts from the last word that was shorter.
    pair.policy(keep(Keep::For(1))).await;
    let told = pair.safe.engine().retention(pair.folder).await.unwrap();
    assert_eq!(told.held, Some((Keep::All, days(4))));
    pair.clock.pass(3 * DAY).await;
    assert!(pair.safe_has(&first));
    pair.policy(keep(Keep::For(300 * DAY))).await;
    pair.policy(keep(Keep::For(0))).await;
    let gone = pair.days_until_gone(&first, 10).await;
    assert!(matches!(gone, Some(4..6)), "{gone:?}");
    // What stops being live from now on stays for the floor, too.
    let second = pair.write("other", 50_000).await;
    pair.write("other", 50_000).await;
    pair.history(FRAME).await;
    let gone = pair.days_until_gone(&second, 10).await;
    assert!(matches!(gone, Some(3..6)), "{gone:?}");
    assert!(pair.alice.verify(pair.folder).await.ok && pair.safe.verify(pair.folder).await.ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_owners_set_the_policy_and_every_holder_obeys_it() {
    let clock = Clock::new();
    let alice = Device::with("alice", clock.housekeeping()).await;
    let bob = Device::with("bob", clock.housekeeping()).await;
    let folder = alice.create().await;
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    let refused = bob.engine().set_policy(folder, keep(Keep::All)).await;
    assert!(
        matches!(refused, Err(EngineError::Forbidden { .. })),
        "{refused:?}"
    );
    let refused = bob.engine().set_limits(folder, Limits::default()).await;
    assert!(matches!(refused, Err(EngineError::NotASafe)), "{refused:?}");

    // Devices keep little for want of a word, and as much as they are told.
    for (change, stays) in [
        (keep(Keep::All), true),
        (
            PolicyChange {
                devices: Some(Some(Keep::LITTLE)),
                ..PolicyChange::default()
            },
            false,
        ),
    ] {
        alice.engine().set_policy(folder, change).await.unwrap();
        eventually("bob knows the policy", async || {
            let (one, other) = (
                alice.engine().retention(folder).await.unwrap(),
                bob.engine().retention(folder).await.unwrap(),
            );
            one.policy == other.policy
        })
        .await;
        alice.write(folder, "a", &noise(20_000));
        alice.wait(folder).await;
        alice.write(folder, "a", &noise(20_000));
        alice.wait(folder).await;
        for device in [&alice, &bob] {
            device
                .becomes(folder, "left with history", |status| {
                    status.stored_bytes > status.live_bytes
                })
                .await;
        }
        clock.pass(10 * DAY).await;
        for device in [&alice, &bob] {
            device
                .becomes(folder, "as the policy says", |status| {
                    (status.stored_bytes > status.live_bytes) == stays
                })
                .await;
        }
    }
}

/// Which of these edits the rule keeps at `now`, the last one always: of each span the last.
fn kept(times: &[u64], now: u64) -> BTreeSet<u64> {
    let span = |time: u64| match now.saturating_sub(time) {
        ..HOUR => 30,
        HOUR..DAY => HOUR,
        age if age < 30 * DAY => DAY,
        _ => 7 * DAY,
    };
    let stays = |time: &&u64| {
        let span = span(**time);
        let same = |other: &&u64| **other > **time && **other / span == **time / span;
        !times.iter().any(|other| same(&other))
    };
    times.iter().filter(stays).copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_staggered_safe_keeps_exactly_what_the_rule_says_after_a_month_of_edits() {
    let pair = Pair::new().await;
    pair.policy(keep(Keep::Staggered)).await;
    let deleted = pair.write("deleted", 20_000).await;
    pair.alice.view(pair.folder).delete("deleted");
    let mut edits: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for day in 0..33 {
        // Two versions every other day.
        let pauses: &[u64] = if day % 2 == 0 {
            &[7 * HOUR, 17 * HOUR]
        } else {
            &[DAY]
        };
        for pause in pauses.iter().copied() {
            edits.insert(pair.clock.now(), pair.write("diary", 20_000).await);
            pair.clock.pass(pause).await;
        }
    }
    let times: Vec<u64> = edits.keys().copied().collect();
    // Time stands still until all that is to go by now is published, and goes on for the floor.
    let may = kept(&times, pair.clock.now());
    eventually("what is to go is published", async || {
        let due: BTreeSet<_> = times.iter().filter(|time| !may.contains(time)).collect();
        let forgotten = pair.safe.engine().retention(pair.folder).await.unwrap();
        let gone = due
            .iter()
            .filter(|time| !pair.safe_has(&edits[time]))
            .count() as u64;
        forgotten.forgotten.packs + gone >= due.len() as u64
    })
    .await;
    pair.clock.pass(5 * DAY).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let must = kept(&times, pair.clock.now());
    let has = |time: &u64| pair.safe_has(&edits[time]);
    let here: BTreeSet<u64> = times.iter().filter(|time| has(time)).copied().collect();
    assert!(
        must.is_subset(&here),
        "dropped {:?}",
        must.difference(&here)
    );
    assert!(here.is_subset(&may), "kept {:?}", here.difference(&may));
    assert!(
        must.len() > 25 && here.len() < 40,
        "{} {}",
        must.len(),
        here.len()
    );
    assert!(
        pair.safe_has(&deleted),
        "the last content of what was deleted"
    );
    // What stays is really there.
    let outcome = pair.safe.verify(pair.folder).await;
    assert!(outcome.ok, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_tells_what_a_change_would_drop_and_changes_nothing() {
    let pair = Pair::new().await;
    pair.policy(keep(Keep::All)).await;
    for _ in 0..3 {
        pair.write("diary", 50_000).await;
        pair.clock.pass(DAY).await;
    }
    pair.history(2 * FRAME).await;
    pair.clock.pass(20 * DAY).await;
    let engine = pair.alice.engine();
    let before = engine.retention(pair.folder).await.unwrap();
    let preview = |change| engine.preview_policy(pair.folder, change);
    let shorter = preview(keep(Keep::For(5 * DAY))).await.unwrap();
    assert!(shorter.shortens);
    assert_eq!((shorter.here.packs, shorter.here.bytes), (2, 2 * FRAME));
    assert_eq!(
        (shorter.each_safe.packs, shorter.each_safe.bytes),
        (2, 2 * FRAME)
    );
    assert_eq!((shorter.safes, shorter.safes_after), (1, days(4)));
    assert_eq!((shorter.going, shorter.staying), (2, 0));
    assert_eq!(shorter.examples.len(), 2);
    assert_eq!(shorter.examples[0].path, "diary");
    assert_eq!(shorter.examples[0].size, 50_000);
    assert!(shorter.examples[0].written > shorter.examples[1].written);
    let longer = preview(keep(Keep::For(500 * DAY))).await.unwrap();
    assert_eq!((longer.going, longer.here.packs), (0, 0));
    assert!(longer.examples.is_empty());
    // A version a day stays in a month.
    let thinner = preview(keep(Keep::Staggered)).await.unwrap();
    assert!(thinner.shortens);
    assert_eq!(
        (thinner.going, thinner.staying, thinner.here.packs),
        (0, 2, 0)
    );
    assert_eq!(engine.retention(pair.folder).await.unwrap(), before);
    // And what was foretold comes true.
    pair.policy(keep(Keep::For(5 * DAY))).await;
    pair.clock.pass(5 * DAY).await;
    pair.history(0).await;
    pair.alice
        .becomes(pair.folder, "without history", |status| {
            status.stored_bytes == status.live_bytes
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_safe_loses_nothing_says_so_and_goes_on_when_there_is_room() {
    let pair = Pair::new().await;
    let (safe, alice, folder) = (&pair.safe, &pair.alice, pair.folder);
    let limit = async |frames: Option<u64>| {
        let limits = Limits {
            quota: frames.map(|frames| frames * FRAME),
            floor: None,
        };
        safe.engine().set_limits(folder, limits).await.unwrap()
    };
    limit(Some(4)).await;
    let first = pair.write("a", 120_000).await;
    let old = pair.write("b", 50_000).await;
    pair.write("b", 50_000).await;
    pair.history(FRAME).await;
    // No room for this one: history is younger than a day.
    alice.write(folder, "c", &noise(50_000));
    safe.becomes(folder, "full", |status| {
        let says_so = |problem: &str| problem.contains("quota of 262144 bytes");
        status.state == FolderState::Error
            && status.refused_bytes == FRAME
            && status.quota_bytes == Some(4 * FRAME)
            && status
                .problems
                .iter()
                .any(|problem| says_so(&problem.message))
    })
    .await;
    alice
        .becomes(folder, "aware of what the safe lacks", |status| {
            status.peers.iter().any(|peer| peer.missing_bytes == FRAME)
        })
        .await;
    assert!(pair.safe_has(&first) && pair.safe_has(&old));
    // A host that insists on more than a day for it doesn't make room then.
    let insisting = Limits {
        quota: Some(4 * FRAME),
        floor: Some(2 * DAY),
    };
    safe.engine().set_limits(folder, insisting).await.unwrap();
    pair.clock.pass(DAY + DAY / 2).await;
    assert_eq!(safe.status(folder).await.refused_bytes, FRAME);
    assert!(pair.safe_has(&old));
    // Otherwise the oldest history makes room, long before the floor for what members say.
    limit(Some(4)).await;
    safe.becomes(folder, "whole again", |status| {
        status.refused_bytes == 0 && status.missing_bytes == 0 && status.problems.is_empty()
    })
    .await;
    alice.wait(folder).await;
    assert!(!pair.safe_has(&old) && pair.safe_has(&first));
    // Live data alone exceed it: what is here stays and is served, the rest is owed, whatever time passes.
    alice.write(folder, "d", &noise(50_000));
    alice.write(folder, "e", &noise(50_000));
    pair.clock.pass(8 * DAY).await;
    safe.becomes(folder, "full", |status| status.refused_bytes == 2 * FRAME)
        .await;
    let status = safe.status(folder).await;
    assert_eq!(status.stored_bytes, 4 * FRAME);
    assert_eq!(status.live_bytes, 4 * FRAME);
    // Room for one of the two, then for all.
    limit(Some(5)).await;
    safe.becomes(folder, "nearly whole", |status| {
        status.stored_bytes == 5 * FRAME && status.refused_bytes == FRAME
    })
    .await;
    limit(None).await;
    alice.wait(folder).await;
    assert_eq!(safe.status(folder).await.problems, Vec::new());
    assert!(safe.verify(folder).await.ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_outlive_a_restart() {
    let mut pair = Pair::new().await;
    let limits = Limits {
        quota: Some(1 << 20),
        floor: Some(7 * DAY),
    };
    let told = pair
        .safe
        .engine()
        .set_limits(pair.folder, limits)
        .await
        .unwrap();
    assert_eq!((told.limits, told.least), (limits, days(7)));
    pair.safe.stop().await;
    pair.safe.go_on().await;
    let told = pair.safe.engine().retention(pair.folder).await.unwrap();
    assert_eq!((told.limits, told.least), (limits, days(7)));
    let status = pair.safe.status(pair.folder).await;
    assert_eq!(status.quota_bytes, Some(1 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_writer_gives_up_goes_after_the_floor_and_nothing_else_does() {
    let pair = Pair::new().await;
    pair.policy(keep(Keep::All)).await;
    let bob = Device::with("bob", pair.clock.housekeeping()).await;
    bob.join(&pair.alice.invite(pair.folder, Role::Writer).await)
        .await;
    let first = pair.write("secret", 50_000).await;
    let second = pair.write("secret", 50_000).await;
    let other = pair.write("other", 50_000).await;
    pair.write("other", 50_000).await;
    let last = pair.write("secret", 50_000).await;
    pair.history(3 * FRAME).await;
    // What was given up before it came to bob comes to him later, if at all: what he says counts all the same.
    bob.wait(pair.folder).await;
    // Kept for a month already: that doesn't make it go any sooner.
    pair.clock.pass(30 * DAY).await;
    let path = || vec![Name::new("secret").unwrap()];
    let forget = |preview| bob.engine().forget_versions(pair.folder, path(), preview);
    let preview = forget(true).await.unwrap();
    assert_eq!(
        (preview.versions, preview.shared, preview.inline),
        (2, 0, 0)
    );
    assert_eq!(preview.packs.packs, 2);
    assert_eq!(forget(false).await.unwrap(), preview);
    eventually("the safe knows", async || {
        let there = pair.safe.engine().retention(pair.folder).await.unwrap();
        there.forgotten.packs == 2
    })
    .await;
    // Said again, nothing is left to say.
    assert_eq!(forget(true).await.unwrap().packs.packs, 0);
    pair.clock.pass(3 * DAY).await;
    assert!(pair.safe_has(&first) && pair.safe_has(&second));
    eventually("both are gone", async || {
        pair.clock.pass(DAY / 8).await;
        !pair.safe_has(&first) && !pair.safe_has(&second)
    })
    .await;
    assert!(pair.safe_has(&other) && pair.safe_has(&last));
    let unknown = bob
        .engine()
        .forget_versions(pair.folder, vec![Name::new("no").unwrap()], true);
    assert!(matches!(unknown.await, Err(EngineError::UnknownPath(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hijacked_writer_gave_up_can_be_kept_on() {
    let pair = Pair::new().await;
    pair.policy(keep(Keep::All)).await;
    let first = pair.write("diary", 50_000).await;
    pair.write("diary", 50_000).await;
    pair.history(FRAME).await;
    // Only the safe has it now.
    let change = PolicyChange {
        devices: Some(Some(Keep::LITTLE)),
        ..PolicyChange::default()
    };
    pair.policy(change).await;
    pair.clock.pass(4 * DAY).await;
    pair.alice
        .becomes(pair.folder, "without history", |status| {
            status.stored_bytes == status.live_bytes
        })
        .await;
    let path = vec![Name::new("diary").unwrap()];
    let engine = pair.alice.engine();
    let said = engine.forget_versions(pair.folder, path, false).await;
    assert_eq!(said.unwrap().packs.packs, 1);
    eventually("the safe knows", async || {
        let there = pair.safe.engine().retention(pair.folder).await.unwrap();
        there.forgotten.packs == 1
    })
    .await;
    pair.clock.pass(3 * DAY).await;
    let kept = engine.keep_forgotten(pair.folder).await.unwrap();
    assert_eq!((kept.packs, kept.bytes), (1, FRAME));
    eventually(
        "it is history again, and nobody said to forget it",
        async || {
            let there = pair.safe.engine().retention(pair.folder).await.unwrap();
            there.forgotten.packs == 0 && there.history_bytes == FRAME
        },
    )
    .await;
    assert_eq!(pair.days_until_gone(&first, 15).await, None);
    let kept = engine.keep_forgotten(pair.folder).await.unwrap();
    assert_eq!(kept.packs, 0, "nothing is left to take back");
    pair.alice.wait(pair.folder).await;
}
