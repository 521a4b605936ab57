//! What the store does, on a real directory.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use ouisync_model::id::{Lamport, Sequence};
use ouisync_store::{
    catalogue::Disposition,
    collect::{CollectPolicy, Collected},
    error::{ErrorKind, StoreError},
    store::{
        Store,
        packs::{PackState, Totals},
    },
    verify::VerifyProblem,
};
use tempfile::TempDir;

use crate::making::{Clock, Pack, commit, dot, member};

const DAY: u64 = 24 * 60 * 60;

struct Home {
    directory: TempDir,
    clock: Clock,
}

impl Home {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            clock: Clock::new(),
        }
    }

    fn open(&self) -> Store {
        Store::open_directory(self.directory.path(), self.clock.options()).unwrap()
    }

    fn file(&self, pack: &Pack) -> PathBuf {
        let id = pack.id.to_string();
        self.directory.path().join("packs").join(&id[..2]).join(id)
    }
}

fn is_clean(store: &Store) -> bool {
    store
        .verify(|_| {}, &AtomicBool::new(false))
        .unwrap()
        .is_clean()
}

#[test]
fn a_pack_comes_in_by_ranges_and_goes_on_after_reopening() {
    let home = Home::new();
    let pack = Pack::new("p", 8);
    let own = commit(1, 1, &[], &[&pack], &[]);
    let store = home.open();
    assert!(matches!(
        store.begin_pack(&pack.hashes),
        Err(StoreError::UnknownPack(_))
    ));
    store
        .put_commits(&[own], Disposition::Accepted, true)
        .unwrap();
    assert_eq!(
        store.pack(pack.id).unwrap().unwrap().state,
        PackState::Missing
    );
    assert!(matches!(
        store.write_frames(pack.id, 0, pack.frames(0, 1)),
        Err(StoreError::HashesMissing(_))
    ));
    assert!(matches!(
        store.begin_pack(&Pack::new("q", 8).hashes),
        Err(StoreError::UnknownPack(_))
    ));
    store.begin_pack(&pack.hashes).unwrap();
    assert_eq!(
        store.pack(pack.id).unwrap().unwrap().state,
        PackState::Partial
    );
    assert!(!store.write_frames(pack.id, 5, pack.frames(5, 2)).unwrap());
    let error = store
        .write_frames(pack.id, 0, pack.frames(1, 1))
        .unwrap_err();
    assert!(matches!(error, StoreError::FrameWrong { frame: 0, .. }));
    assert_eq!(error.kind(), ErrorKind::Corruption);
    for (first, bytes) in [
        (8, pack.frames(0, 1)),
        (7, pack.frames(0, 2)),
        (0, &[][..]),
        (0, &pack.bytes[..100]),
    ] {
        assert!(matches!(
            store.write_frames(pack.id, first, bytes),
            Err(StoreError::RangeWrong(_))
        ));
    }
    assert_eq!(store.missing_frames(pack.id).unwrap(), [0..5, 7..8]);
    assert_eq!(store.missing_bytes(), 6 * 65536);
    assert!(matches!(
        store.read_frames(pack.id, 5, 1),
        Err(StoreError::PackAbsent(_))
    ));
    drop(store);

    let store = home.open();
    assert_eq!(store.missing_frames(pack.id).unwrap(), [0..5, 7..8]);
    assert_eq!(store.missing_bytes(), 6 * 65536);
    assert!(!store.write_frames(pack.id, 0, pack.frames(0, 6)).unwrap());
    assert!(store.write_frames(pack.id, 7, pack.frames(7, 1)).unwrap());
    assert!(store.write_frames(pack.id, 7, pack.frames(7, 1)).unwrap());
    assert_eq!(
        store.pack(pack.id).unwrap().unwrap().state,
        PackState::Pending
    );
    assert_eq!(store.read_frames(pack.id, 2, 3).unwrap(), pack.frames(2, 3));
    assert!(matches!(
        store.read_frames(pack.id, 7, 2),
        Err(StoreError::RangeWrong(_))
    ));
    drop(store);

    let store = home.open();
    assert_eq!(store.sync_packs().unwrap(), [pack.id]);
    assert_eq!(store.sync_packs().unwrap(), []);
    assert_eq!(
        store.pack(pack.id).unwrap().unwrap().state,
        PackState::Stored
    );
    assert_eq!(store.frame_hashes(pack.id).unwrap(), pack.hashes);
    let expected = Totals {
        stored_packs: 1,
        stored_bytes: 8 * 65536,
        live_bytes: 8 * 65536,
        ..Totals::default()
    };
    assert_eq!(store.totals(), expected);
    assert!(is_clean(&store));
}

#[test]
fn chains_follow_forks() {
    let home = Home::new();
    let store = home.open();
    let first = commit(1, 1, &[], &[], &[]);
    let other = commit(2, 1, &[&first], &[], &[]);
    let left = commit(1, 2, &[&first], &[], &[]);
    let right = commit(1, 2, &[&other], &[], &[]);
    // Both number 2 are of author 1; each is followed by a number 3 that doesn't name it as its parent.
    let over_left = commit(3, 1, &[&left], &[], &[]);
    let left_end = commit(1, 3, &[&over_left], &[], &[]);
    let over_right = commit(4, 1, &[&right], &[], &[]);
    let right_end = commit(1, 3, &[&over_right], &[], &[]);
    let gap = commit(5, 2, &[&first], &[], &[]);
    assert!(matches!(
        store.put_commits(std::slice::from_ref(&other), Disposition::Accepted, false),
        Err(StoreError::ParentMissing { .. })
    ));
    store
        .put_commits(
            &[first.clone(), other.clone()],
            Disposition::Accepted,
            false,
        )
        .unwrap();
    assert!(matches!(
        store.put_commits(&[gap], Disposition::Accepted, false),
        Err(StoreError::ChainGap { .. })
    ));
    store
        .put_commits(&[left.clone(), over_left], Disposition::Accepted, false)
        .unwrap();
    assert_eq!(store.chain(member(1)).len(), 1);
    store
        .put_commits(&[right.clone(), over_right], Disposition::Accepted, false)
        .unwrap();
    assert_eq!(store.chain(member(1)).len(), 2);
    store
        .put_commits(
            &[left_end.clone(), right_end.clone()],
            Disposition::Accepted,
            false,
        )
        .unwrap();
    let mut ends: Vec<_> = store
        .chain(member(1))
        .iter()
        .map(|end| (end.sequence, end.head))
        .collect();
    ends.sort();
    let mut expected = vec![(Sequence(3), left_end.id()), (Sequence(3), right_end.id())];
    expected.sort();
    assert_eq!(ends, expected);
    let numbers: Vec<u64> = store
        .commits_of(member(1), Sequence(2), 9)
        .unwrap()
        .iter()
        .map(|(sequence, _)| sequence.0)
        .collect();
    assert_eq!(numbers, [2, 2, 3, 3]);
    let all = store.commits_in_order(None, 99).unwrap();
    assert!(all.is_sorted());
    assert_eq!(all.len(), 8);
    assert_eq!(store.commits_in_order(Some(all[2]), 2).unwrap(), all[3..5]);
    assert_eq!(store.lamport(left_end.id()).unwrap(), Some(Lamport(4)));
    assert_eq!(store.arrivals(3, 1).unwrap()[0].commit, left.id());
    drop(store);
    assert_eq!(home.open().chain(member(1)).len(), 2);
}

#[test]
fn released_packs_go_when_their_time_has_passed_and_no_sooner() {
    let home = Home::new();
    let (kept, gone, orphan) = (
        Pack::new("kept", 1),
        Pack::new("gone", 2),
        Pack::new("orphan", 1),
    );
    let store = home.open();
    for pack in [&kept, &gone, &orphan] {
        store.create_pack(&pack.hashes, &pack.bytes).unwrap();
    }
    let adding = commit(1, 1, &[], &[&kept, &gone], &[]);
    let releasing = commit(1, 2, &[&adding], &[], &[dot(&adding, &gone)]);
    store
        .put_commits(&[adding, releasing.clone()], Disposition::Accepted, true)
        .unwrap();
    let policy = CollectPolicy {
        floor: Duration::from_secs(40 * DAY),
        ..CollectPolicy::default()
    };

    // A clock that jumps a century ahead counts as a day, and one that goes back stops nothing.
    home.clock.advance(100 * 365 * DAY);
    assert_eq!(
        store.collect(home.clock.now(), &policy).unwrap(),
        Collected::default()
    );
    let back = home.clock.now() - 90 * 365 * DAY;
    assert_eq!(store.collect(back, &policy).unwrap(), Collected::default());
    for day in 1..39 {
        assert_eq!(
            store.collect(back + day * DAY, &policy).unwrap(),
            Collected::default(),
            "{day}"
        );
    }
    assert!(matches!(
        store.pack(gone.id).unwrap().unwrap().state,
        PackState::Released { durable: true, .. }
    ));
    assert_eq!(store.read_frames(gone.id, 0, 2).unwrap(), gone.bytes);
    drop(store);
    let store = home.open();
    let collected = store.collect(back + 39 * DAY, &policy).unwrap();
    assert_eq!(
        collected,
        Collected {
            packs: 2,
            bytes: gone.size.bytes() + orphan.size.bytes(),
            ..Collected::default()
        }
    );
    assert!(!home.file(&gone).exists() && home.file(&kept).exists());
    assert_eq!(store.pack(gone.id).unwrap(), None);
    assert!(is_clean(&store));

    // Added again, it is missing.
    let again = commit(1, 3, &[&releasing], &[&gone], &[]);
    store
        .put_commits(&[again], Disposition::Accepted, true)
        .unwrap();
    assert!(store.is_missing(gone.id));
}

#[test]
fn a_release_while_frames_come_in_drops_them() {
    let home = Home::new();
    let pack = Pack::new("p", 4);
    let adding = commit(1, 1, &[], &[&pack], &[]);
    let releasing = commit(1, 2, &[&adding], &[], &[dot(&adding, &pack)]);
    let store = home.open();
    store
        .put_commits(&[adding], Disposition::Accepted, false)
        .unwrap();
    store.begin_pack(&pack.hashes).unwrap();
    store.write_frames(pack.id, 0, pack.frames(0, 3)).unwrap();
    store
        .put_commits(&[releasing], Disposition::Accepted, false)
        .unwrap();
    assert!(matches!(
        store.write_frames(pack.id, 3, pack.frames(3, 1)),
        Err(StoreError::UnknownPack(_))
    ));
    assert_eq!(store.totals(), Totals::default());
    assert_eq!(
        fs::read_dir(home.directory.path().join("incoming"))
            .unwrap()
            .count(),
        0
    );
    assert!(is_clean(&store));
}

#[test]
fn damage_is_found_and_repaired() {
    let home = Home::new();
    let packs = ["a", "b", "c", "d"].map(|label| Pack::new(label, 2));
    let store = home.open();
    for pack in &packs {
        store.create_pack(&pack.hashes, &pack.bytes).unwrap();
    }
    let own = commit(1, 1, &[], &packs.each_ref(), &[]);
    store
        .put_commits(&[own], Disposition::Accepted, true)
        .unwrap();
    let [flipped, cut, removed, whole] = &packs;
    let mut bytes = flipped.bytes.clone();
    bytes[70_000] ^= 1;
    fs::write(home.file(flipped), bytes).unwrap();
    fs::write(home.file(cut), &cut.bytes[..1000]).unwrap();
    fs::remove_file(home.file(removed)).unwrap();
    let stranger = Pack::new("stranger", 1);
    fs::create_dir_all(home.file(&stranger).parent().unwrap()).unwrap();
    fs::write(home.file(&stranger), &stranger.bytes).unwrap();

    assert!(matches!(
        store.read_frames(removed.id, 0, 1),
        Err(StoreError::PackDamaged(_))
    ));
    assert!(matches!(
        store.read_checked_frame(flipped.id, 1),
        Err(StoreError::PackDamaged(_))
    ));
    let mut steps = 0;
    let report = store
        .verify(|_| steps += 1, &AtomicBool::new(false))
        .unwrap();
    assert!(steps > 1);
    let mut expected = vec![
        VerifyProblem::PackDamaged(flipped.id),
        VerifyProblem::PackFileLost(cut.id),
        VerifyProblem::PackDamaged(removed.id),
        VerifyProblem::PackUnknown(stranger.id),
    ];
    let text = |problems: &mut Vec<VerifyProblem>| {
        problems.sort_by_key(|problem| format!("{problem:?}"));
        format!("{problems:?}")
    };
    assert_eq!(text(&mut report.problems.clone()), text(&mut expected));
    assert!(matches!(
        store.receive_pack(cut.id, &cut.bytes),
        Err(StoreError::PackDamaged(_))
    ));
    assert_eq!(store.repair().unwrap().len(), 3);
    assert_eq!(store.missing_packs().len(), 3);
    assert!(is_clean(&store));
    for pack in [flipped, cut, removed] {
        store.receive_pack(pack.id, &pack.bytes).unwrap();
    }
    assert!(matches!(
        store.receive_pack(stranger.id, &stranger.bytes),
        Err(StoreError::UnknownPack(_))
    ));
    assert_eq!(store.sync_packs().unwrap().len(), 3);
    assert!(is_clean(&store) && store.missing_packs().is_empty());

    // The same found at opening.
    fs::remove_file(home.file(whole)).unwrap();
    drop(store);
    let store = home.open();
    assert!(store.is_missing(whole.id));
    assert!(is_clean(&store));

    let cancelled = AtomicBool::new(false);
    let cancel = |_| cancelled.store(true, Ordering::Relaxed);
    assert!(matches!(
        store.verify(cancel, &cancelled),
        Err(StoreError::Cancelled)
    ));
}

#[test]
fn a_header_can_tell_the_live_set_after_it() {
    let home = Home::new();
    let (a, b) = (Pack::new("a", 1), Pack::new("b", 1));
    let store = home.open();
    let first = commit(1, 1, &[], &[&a], &[]);
    store
        .put_commits(std::slice::from_ref(&first), Disposition::Accepted, false)
        .unwrap();
    assert_eq!(store.dots_of(a.id).unwrap(), [dot(&first, &a)]);
    let foretold = store
        .live_after(&[a.add(), b.add()], &[dot(&first, &a)])
        .unwrap();
    assert_eq!(store.live_digest().count, 1);
    let second = commit(1, 2, &[&first], &[&a, &b], &[dot(&first, &a)]);
    store
        .put_commits(&[second], Disposition::Accepted, false)
        .unwrap();
    assert_eq!(store.live_digest(), foretold);
    assert_eq!(foretold.count, 2);
    assert!(store.is_live(a.id).unwrap());
}

#[test]
fn notes_and_roster_entries_are_kept() {
    let home = Home::new();
    let store = home.open();
    let new = store
        .put_roster_entries(&[b"one".to_vec(), b"two".to_vec()])
        .unwrap();
    assert_eq!(new.len(), 2);
    assert!(
        store
            .put_roster_entries(&[b"two".to_vec()])
            .unwrap()
            .is_empty()
    );
    store
        .note_peer(b"bob/address", Some(b"10.0.0.1".to_vec()))
        .unwrap();
    store.note_peer(b"bob/lacks", Some(b"x".to_vec())).unwrap();
    store.note_peer(b"bob/lacks", None).unwrap();
    drop(store);
    let store = home.open();
    assert_eq!(store.roster_entry(new[0]).unwrap().unwrap(), b"one");
    assert_eq!(store.roster_entries().unwrap().len(), 2);
    assert_eq!(
        store.peer_notes(b"bob/").unwrap(),
        [(b"bob/address".to_vec(), b"10.0.0.1".to_vec())]
    );
}

#[test]
fn many_threads_share_a_store() {
    let home = Home::new();
    let store = home.open();
    let packs: Vec<Pack> = (0..40)
        .map(|index| Pack::new(&index.to_string(), 1 + index % 2))
        .collect();
    let own = commit(1, 1, &[], &packs.iter().collect::<Vec<_>>(), &[]);
    store
        .put_commits(&[own], Disposition::Accepted, true)
        .unwrap();
    let synced = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, packs, synced) = (&store, &packs, &synced);
            scope.spawn(move || {
                for (index, pack) in packs.iter().enumerate().skip(thread / 2) {
                    store.begin_pack(&pack.hashes).unwrap();
                    // Every pack by at least two threads at once, from both ends.
                    let last = pack.size.frames() as usize - 1;
                    store.write_frames(pack.id, 0, pack.frames(0, 1)).unwrap();
                    store
                        .write_frames(pack.id, last as u32, pack.frames(last, 1))
                        .unwrap();
                    if index % 8 == thread {
                        synced.lock().unwrap().extend(store.sync_packs().unwrap());
                    }
                }
            });
        }
    });
    let mut synced = synced.into_inner().unwrap();
    synced.extend(store.sync_packs().unwrap());
    synced.sort();
    let mut all: Vec<_> = packs.iter().map(|pack| pack.id).collect();
    all.sort();
    assert_eq!(synced, all);
    assert!(is_clean(&store) && store.missing_bytes() == 0);
}

#[test]
fn a_pack_of_the_past_comes_when_it_is_wanted() {
    let home = Home::new();
    let (pack, other) = (Pack::new("p", 8), Pack::new("q", 2));
    let store = home.open();
    let free = store.totals();
    assert!(store.want_pack(pack.id, pack.size).unwrap());
    assert!(store.want_pack(other.id, other.size).unwrap());
    assert!(!store.is_live(pack.id).unwrap());
    store.begin_pack(&pack.hashes).unwrap();
    store.begin_pack(&other.hashes).unwrap();
    assert!(!store.write_frames(pack.id, 0, pack.frames(0, 3)).unwrap());
    assert!(!store.write_frames(other.id, 0, other.frames(0, 1)).unwrap());
    assert_eq!(store.totals(), free, "nothing live is missing");
    assert_eq!(store.missing_packs(), []);
    store.unwant_pack(other.id).unwrap();
    assert_eq!(store.pack(other.id).unwrap(), None);
    assert!(matches!(
        store.write_frames(other.id, 1, other.frames(1, 1)),
        Err(StoreError::UnknownPack(_))
    ));
    assert!(store.write_frames(pack.id, 3, pack.frames(3, 5)).unwrap());
    assert!(store.has_pack(pack.id).unwrap());
    assert!(!store.want_pack(pack.id, pack.size).unwrap());
    store.unwant_pack(pack.id).unwrap();
    store.sync_packs().unwrap();
    assert!(is_clean(&store));
    let again = commit(1, 1, &[], &[&pack], &[]);
    store
        .put_commits(&[again], Disposition::Accepted, true)
        .unwrap();
    assert_eq!(
        store.pack(pack.id).unwrap().unwrap().state,
        PackState::Stored
    );
}

#[test]
fn what_was_wanted_and_did_not_come_is_forgotten_at_the_next_opening() {
    let home = Home::new();
    let (pack, live) = (Pack::new("p", 8), Pack::new("q", 8));
    let store = home.open();
    store.want_pack(pack.id, pack.size).unwrap();
    store.begin_pack(&pack.hashes).unwrap();
    store.write_frames(pack.id, 0, pack.frames(0, 3)).unwrap();
    store.want_pack(live.id, live.size).unwrap();
    store.begin_pack(&live.hashes).unwrap();
    store.write_frames(live.id, 0, live.frames(0, 3)).unwrap();
    // It becomes live while it comes in: what has come counts.
    let add = commit(1, 1, &[], &[&live], &[]);
    store
        .put_commits(&[add], Disposition::Accepted, true)
        .unwrap();
    assert_eq!(store.missing_bytes(), 5 * 65536);
    drop(store);
    let store = home.open();
    assert_eq!(store.pack(pack.id).unwrap(), None);
    assert_eq!(store.missing_frames(live.id).unwrap(), vec![3..8]);
    assert!(is_clean(&store));
}

#[test]
fn a_fetched_pack_of_the_past_is_kept_for_the_grace_period() {
    let home = Home::new();
    let pack = Pack::new("p", 1);
    let store = home.open();
    store
        .collect(home.clock.now(), &CollectPolicy::default())
        .unwrap();
    store.want_pack(pack.id, pack.size).unwrap();
    assert!(store.write_frames(pack.id, 0, &pack.bytes).unwrap());
    for day in 1..=31 {
        home.clock.advance(DAY);
        let collected = store.collect(home.clock.now(), &CollectPolicy::default());
        assert_eq!(collected.unwrap().packs, u64::from(day == 30), "day {day}");
    }
}
