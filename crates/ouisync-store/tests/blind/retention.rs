//! How long packs that are not live are kept: retention, floor, what members say to forget, and the quota. Time passes day by day.

use std::time::Duration;

use ouisync_crypto::commit::Commit;
use ouisync_model::id::PackId;
use ouisync_store::{
    catalogue::Disposition,
    checkpoint::CheckpointCheck,
    collect::{CollectPolicy, Collected},
    store::{Store, packs::PackState},
};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::making::{Clock, Pack, commit, dot, forgetting};

const DAY: u64 = 24 * 60 * 60;

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * DAY)
}

/// What a safe goes by that keeps for ever.
const FOR_EVER: CollectPolicy = CollectPolicy {
    grace: days(3),
    retention: None,
    floor: days(10),
    quota: None,
    quota_floor: days(9),
    check: CheckpointCheck::Blind,
};

struct Home {
    clock: Clock,
    store: Store,
    last: Option<Commit>,
    sequence: u64,
    directory: TempDir,
}

impl Home {
    fn new() -> Self {
        let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::new());
        Self {
            store: Store::open_directory(directory.path(), clock.options()).unwrap(),
            clock,
            last: None,
            sequence: 0,
            directory,
        }
    }

    fn reopen(&mut self) {
        // Two of them must not have it open at once.
        let other = tempfile::tempdir().unwrap();
        self.store = Store::open_directory(other.path(), self.clock.options()).unwrap();
        self.store = Store::open_directory(self.directory.path(), self.clock.options()).unwrap();
    }

    /// One more commit of the only author.
    fn put(&mut self, make: impl FnOnce(u64, &[&Commit]) -> Commit) -> Commit {
        self.sequence += 1;
        let parents: Vec<&Commit> = self.last.iter().collect();
        let made = make(self.sequence, &parents);
        self.store
            .put_commits(std::slice::from_ref(&made), Disposition::Accepted, true)
            .unwrap();
        self.last = Some(made.clone());
        made
    }

    fn add(&mut self, packs: &[&Pack]) -> Commit {
        for pack in packs {
            self.store.create_pack(&pack.hashes, &pack.bytes).unwrap();
        }
        self.put(|number, parents| commit(1, number, parents, packs, &[]))
    }

    fn release(&mut self, adding: &Commit, packs: &[&Pack]) -> Commit {
        let dots: Vec<_> = packs.iter().map(|pack| dot(adding, pack)).collect();
        self.put(|number, parents| commit(1, number, parents, &[], &dots))
    }

    fn forget(&mut self, packs: &[&Pack]) -> Commit {
        self.put(|number, parents| forgetting(1, number, parents, &[], &[], packs))
    }

    fn has(&self, pack: &Pack) -> bool {
        self.store.has_pack(pack.id).unwrap()
    }

    fn collect(&self, policy: &CollectPolicy) -> Collected {
        self.store.collect(self.clock.now(), policy).unwrap()
    }

    /// Days until the pack goes, collecting daily; `None` if it stays for `limit` days.
    fn days_until_gone(&self, pack: &Pack, policy: &CollectPolicy, limit: u64) -> Option<u64> {
        for day in 0..limit {
            self.collect(policy);
            if !self.has(pack) {
                return Some(day);
            }
            self.clock.advance(DAY);
        }
        None
    }
}

#[test]
fn what_is_kept_for_ever_goes_only_when_forgotten_and_the_floor_has_passed_since() {
    let (old, other) = (Pack::new("old", 1), Pack::new("other", 1));
    let mut home = Home::new();
    let adding = home.add(&[&old, &other]);
    home.release(&adding, &[&old, &other]);
    assert_eq!(home.days_until_gone(&old, &FOR_EVER, 400), None);
    // Released for a year, and all the same kept for the whole floor after the word to forget it came.
    home.forget(&[&old]);
    let state = home.store.pack(old.id).unwrap().unwrap().state;
    assert!(matches!(
        state,
        PackState::Released {
            forgotten: true,
            ..
        }
    ));
    assert_eq!(home.days_until_gone(&old, &FOR_EVER, 20), Some(10));
    assert!(home.has(&other));
    assert_eq!(home.days_until_gone(&other, &FOR_EVER, 100), None);
}

#[test]
fn forgetting_touches_nothing_live_and_nothing_that_becomes_live_again() {
    let pack = Pack::new("pack", 1);
    let mut home = Home::new();
    let adding = home.add(&[&pack]);
    // While it is live the word has no effect, whatever comes later.
    home.forget(&[&pack]);
    assert_eq!(home.days_until_gone(&pack, &FOR_EVER, 50), None);
    home.release(&adding, &[&pack]);
    assert_eq!(home.days_until_gone(&pack, &FOR_EVER, 50), None);
    // Forgotten, then needed again, then released again: what it holds now nobody said to forget.
    home.forget(&[&pack]);
    home.clock.advance(DAY);
    home.collect(&FOR_EVER);
    let again = home.put(|number, parents| commit(1, number, parents, &[&pack], &[]));
    assert_eq!(home.days_until_gone(&pack, &FOR_EVER, 50), None);
    home.release(&again, &[&pack]);
    assert_eq!(home.days_until_gone(&pack, &FOR_EVER, 50), None);
    home.forget(&[&pack]);
    assert_eq!(home.days_until_gone(&pack, &FOR_EVER, 20), Some(10));
}

#[test]
fn what_a_quarantined_commit_forgot_is_remembered() {
    let (pack, twice) = (Pack::new("pack", 1), Pack::new("twice", 1));
    let mut home = Home::new();
    let adding = home.add(&[&pack, &twice]);
    home.release(&adding, &[&pack, &twice]);
    let hostile = home.forget(&[&pack, &twice]);
    home.forget(&[&twice]);
    home.store
        .set_disposition(&[hostile.id()], Disposition::Quarantined)
        .unwrap();
    assert_eq!(home.days_until_gone(&twice, &FOR_EVER, 20), Some(10));
    assert_eq!(home.days_until_gone(&pack, &FOR_EVER, 50), None);
    // Accepted after all: it counts from then on.
    home.store
        .set_disposition(&[hostile.id()], Disposition::Accepted)
        .unwrap();
    assert_eq!(home.days_until_gone(&pack, &FOR_EVER, 20), Some(10));
}

#[test]
fn the_longest_of_grace_retention_and_floor_counts() {
    for (grace, retention, floor) in [(3, 0, 0), (3, 7, 0), (3, 7, 9), (3, 9, 7), (12, 9, 7)] {
        let pack = Pack::new("pack", 1);
        let mut home = Home::new();
        let adding = home.add(&[&pack]);
        home.release(&adding, &[&pack]);
        let policy = CollectPolicy {
            grace: days(grace),
            retention: Some(days(retention)),
            floor: days(floor),
            quota: None,
            quota_floor: Duration::ZERO,
            check: CheckpointCheck::Blind,
        };
        let longest = grace.max(retention).max(floor);
        let later = home.store.collection(&policy, days(longest)).unwrap();
        assert_eq!(later.packs, 1, "foretold");
        let before = days(longest) - Duration::from_secs(1);
        assert_eq!(home.store.collection(&policy, before).unwrap().packs, 0);
        assert_eq!(home.days_until_gone(&pack, &policy, 20), Some(longest));
    }
}

#[test]
fn a_quota_takes_the_oldest_history_and_nothing_within_the_floor() {
    let packs: Vec<Pack> = (0..6).map(|n| Pack::new(&n.to_string(), 1)).collect();
    let live = Pack::new("live", 2);
    let mut home = Home::new();
    home.add(&[&live]);
    for pack in &packs {
        let adding = home.add(&[pack]);
        home.release(&adding, &[pack]);
        home.clock.advance(DAY);
        home.collect(&FOR_EVER);
    }
    let frame = packs[0].size.bytes();
    let quota = |frames: u64| CollectPolicy {
        quota: Some(frames * frame),
        ..FOR_EVER
    };
    // Everything is younger than what the quota spares.
    assert_eq!(home.collect(&quota(1)), Collected::default());
    home.clock.advance(DAY);
    home.collect(&FOR_EVER);
    for _ in 0..5 {
        home.clock.advance(DAY);
        home.collect(&FOR_EVER);
    }
    // Those of the first days are old enough; the oldest go first, no more than needed.
    assert_eq!(home.collect(&quota(8)), Collected::default());
    let collected = home.collect(&quota(7));
    let expected = Collected {
        packs: 1,
        bytes: frame,
        for_quota: 1,
        commits: 0,
    };
    assert_eq!(collected, expected);
    let here: Vec<_> = packs.iter().map(|pack| home.has(pack)).collect();
    assert_eq!(here, [false, true, true, true, true, true]);
    home.collect(&quota(0));
    let here: Vec<_> = packs.iter().map(|pack| home.has(pack)).collect();
    assert_eq!(here, [false, false, false, false, true, true], "younger");
    for _ in 0..20 {
        home.clock.advance(DAY);
        home.collect(&quota(0));
    }
    assert!(packs.iter().all(|pack| !home.has(pack)));
    assert!(home.has(&live), "live packs never go");
    let totals = home.store.totals();
    assert_eq!(totals.stored_bytes, live.size.bytes());
    assert_eq!(totals.live_bytes, live.size.bytes());
}

#[test]
fn history_makes_room_for_live_packs_that_are_still_to_come() {
    let (old, coming) = (Pack::new("old", 1), Pack::new("coming", 1));
    let mut home = Home::new();
    let adding = home.add(&[&old]);
    home.release(&adding, &[&old]);
    let policy = CollectPolicy {
        quota: Some(old.size.bytes()),
        quota_floor: days(1),
        ..FOR_EVER
    };
    assert_eq!(home.days_until_gone(&old, &policy, 15), None);
    home.put(|number, parents| commit(1, number, parents, &[&coming], &[]));
    assert_eq!(home.days_until_gone(&old, &policy, 15), Some(0));
}

/// What members can do, honest or not.
#[derive(Clone, Debug)]
enum Move {
    Add(usize),
    Release(usize),
    Forget(usize),
    Days(u64),
    /// Owners' word for so many days, for ever when there is none.
    Keep(Option<u64>),
    Quota(Option<u64>),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        (0..4_usize).prop_map(Move::Add),
        (0..4_usize).prop_map(Move::Release),
        (0..4_usize).prop_map(Move::Forget),
        (0..6_u64).prop_map(Move::Days),
        proptest::option::of(0..30_u64).prop_map(Move::Keep),
        proptest::option::of(0..5_u64).prop_map(Move::Quota),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever members say and whatever the quota is, nothing live ever goes, and what stopped being live stays for the floor, or for
    /// the quota's where there is one.
    #[test]
    fn no_word_of_a_member_drops_anything_within_the_floor(moves in prop::collection::vec(moves(), 1..30)) {
        let packs: Vec<Pack> = (0..4).map(|n| Pack::new(&format!("p{n}"), 1)).collect();
        let mut home = Home::new();
        let mut adds: Vec<Vec<Commit>> = vec![Vec::new(); 4];
        // For each pack that was ever here: days since it stopped being live; none while it is.
        let mut dead: [Option<u64>; 4] = [None; 4];
        let mut policy = FOR_EVER;
        for step in moves {
            match step {
                Move::Add(index) => {
                    adds[index].push(home.add(&[&packs[index]]));
                    dead[index] = None;
                }
                Move::Release(index) => {
                    for adding in std::mem::take(&mut adds[index]) {
                        home.release(&adding, &[&packs[index]]);
                        dead[index] = Some(0);
                    }
                }
                Move::Forget(index) => {
                    home.forget(&[&packs[index]]);
                }
                Move::Days(count) => for _ in 0..count {
                    home.clock.advance(DAY);
                    home.collect(&policy);
                    dead.iter_mut().flatten().for_each(|days| *days += 1);
                }
                Move::Keep(keep) => policy.retention = keep.map(days),
                Move::Quota(frames) => policy.quota = frames.map(|frames| frames * packs[0].size.bytes()),
            }
            home.collect(&policy);
            for (index, pack) in packs.iter().enumerate() {
                let protected = match dead[index] {
                    None => !adds[index].is_empty(),
                    Some(days) => days < if policy.quota.is_some() { 9 } else { 10 },
                };
                prop_assert!(!protected || home.has(pack), "pack {index}, {:?}", dead[index]);
            }
        }
    }
}

/// History that this store is to keep, and that was never here.
impl Home {
    fn announce(&mut self, packs: &[&Pack]) -> Commit {
        self.put(|number, parents| commit(1, number, parents, packs, &[]))
    }

    fn pass(&self, days: u64, policy: &CollectPolicy) {
        for _ in 0..days {
            self.clock.advance(DAY);
            self.collect(policy);
        }
    }

    fn late(&self, policy: &CollectPolicy) -> Vec<(PackId, bool)> {
        let late = self.store.late_packs(None, 100, policy).unwrap();
        late.iter().map(|late| (late.pack, late.is_due)).collect()
    }
}

#[test]
fn what_is_released_before_it_came_is_late_where_history_is_kept() {
    let mut home = Home::new();
    let packs = ["a", "b", "c", "d", "e"].map(|label| Pack::new(label, 2));
    let [unkept, first, second, again, forgotten] = &packs;
    let added = home.announce(&[unkept]);
    home.release(&added, &[unkept]);
    assert_eq!(home.store.pack(unkept.id).unwrap(), None);

    home.store.keep_history(true).unwrap();
    for pack in [first, second, again, forgotten] {
        let added = home.announce(&[pack]);
        home.release(&added, &[pack]);
    }
    home.announce(&[again]);
    home.put(|number, parents| forgetting(1, number, parents, &[], &[], &[forgotten]));
    // The latest come first; nothing of it is missing.
    assert_eq!(
        home.late(&FOR_EVER),
        [(second.id, false), (first.id, false)]
    );
    let totals = home.store.totals();
    assert_eq!((totals.late_packs, totals.late_bytes), (2, 4 * 65536));
    assert_eq!(totals.missing_bytes, 2 * 65536, "live again");
    // Whoever wanted to look at one of them does no harm.
    assert!(home.store.want_pack(first.id, first.size).unwrap());
    home.store.unwant_pack(first.id).unwrap();
    assert!(home.store.is_late(first.id).unwrap());
    // What has come of one stays over a restart.
    home.store.begin_pack(&first.hashes).unwrap();
    home.store
        .write_frames(first.id, 0, first.frames(0, 1))
        .unwrap();
    home.reopen();
    assert_eq!(home.store.missing_frames(first.id).unwrap(), vec![1..2]);
    assert_eq!(
        home.late(&FOR_EVER),
        [(second.id, false), (first.id, false)]
    );
    for pack in [first, second] {
        home.store.receive_pack(pack.id, &pack.bytes).unwrap();
    }
    home.store.sync_packs().unwrap();
    assert_eq!(home.late(&FOR_EVER), []);
    assert!(!home.store.drop_wanted_pack(first.id).unwrap());
    assert_eq!(home.store.totals().late_bytes, 0);
    // Damaged, it is to come again; one that is collected is not.
    home.store.report_damaged(second.id).unwrap();
    home.store.repair().unwrap();
    assert_eq!(home.late(&FOR_EVER), [(second.id, false)]);
    home.store.receive_pack(second.id, &second.bytes).unwrap();
    let ending = CollectPolicy {
        retention: Some(days(12)),
        ..FOR_EVER
    };
    home.pass(13, &ending);
    assert_eq!(home.late(&ending), []);
    assert_eq!(home.store.pack(second.id).unwrap(), None);
    assert_eq!(home.store.totals().late_packs, 0);
}

#[test]
fn late_packs_are_no_longer_wanted_when_they_would_go_and_make_room_first() {
    let mut home = Home::new();
    let [held, late, never, live] = ["a", "b", "c", "d"].map(|label| Pack::new(label, 1));
    home.store.keep_history(true).unwrap();
    let added = home.add(&[&held]);
    home.release(&added, &[&held]);
    let added = home.announce(&[&late, &never]);
    home.release(&added, &[&late, &never]);
    home.store.receive_pack(late.id, &late.bytes).unwrap();
    home.add(&[&live]);
    home.store.sync_packs().unwrap();
    // Within the floor, and no room: what came late goes at once, what was held before stays.
    let narrow = CollectPolicy {
        quota: Some(2 * 65536),
        ..FOR_EVER
    };
    home.pass(1, &narrow);
    assert_eq!(home.store.pack(late.id).unwrap(), None);
    assert!(home.store.has_pack(held.id).unwrap() && home.store.has_pack(live.id).unwrap());
    assert_eq!(home.late(&narrow), [(never.id, false)], "not what went");
    let ending = CollectPolicy {
        retention: Some(days(1)),
        ..FOR_EVER
    };
    home.pass(8, &narrow);
    assert_eq!(home.late(&ending), [(never.id, false)]);
    home.clock.advance(2 * DAY);
    home.store.collect(home.clock.now(), &narrow).unwrap();
    assert_eq!(home.late(&ending), [(never.id, true)], "not collected yet");
    home.pass(1, &ending);
    assert_eq!(home.store.pack(never.id).unwrap(), None);
}

#[test]
fn late_packs_are_listed_part_by_part() {
    let mut home = Home::new();
    home.store.keep_history(true).unwrap();
    let packs: Vec<Pack> = (0..200).map(|n| Pack::new(&n.to_string(), 1)).collect();
    let all: Vec<&Pack> = packs.iter().collect();
    let added = home.announce(&all);
    home.release(&added, &all);
    let (mut last, mut seen) = (None, Vec::new());
    loop {
        let late = home.store.late_packs(last, 7, &FOR_EVER).unwrap();
        assert!(late.len() <= 7);
        let Some(end) = late.last() else { break };
        last = Some(*end);
        seen.extend(late.iter().map(|late| late.pack));
    }
    let mut expected: Vec<PackId> = packs.iter().map(|pack| pack.id).collect();
    expected.sort();
    assert_eq!(seen, expected, "each once, in the order of the index");
}
