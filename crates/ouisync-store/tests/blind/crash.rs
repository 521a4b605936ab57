//! A scripted workload that is stopped, or meets an error, at every single operation on the disk; after a crash that loses
//! nothing, everything or some of what was not synced, the store opens, is consistent, and has all that was acknowledged.

use std::{
    collections::BTreeSet,
    io,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use ouisync_crypto::commit::Commit;
use ouisync_model::id::{CommitId, PackId};
use ouisync_store::{
    backend::faulty::{Fault, FaultyBackend, Loss},
    catalogue::Disposition,
    checkpoint::CheckpointCheck,
    collect::CollectPolicy,
    error::{ErrorKind, StoreError},
    store::Store,
    verify::VerifyProblem,
};

use crate::making::{Clock, Pack, commit, dot, forgetting};

const AT_ONCE: CollectPolicy = CollectPolicy {
    grace: Duration::ZERO,
    retention: Some(Duration::ZERO),
    floor: Duration::ZERO,
    quota: None,
    quota_floor: Duration::ZERO,
    check: CheckpointCheck::Blind,
};

/// Where history is kept for ever but for what is forgotten.
const FORGOTTEN_AT_ONCE: CollectPolicy = CollectPolicy {
    retention: None,
    ..AT_ONCE
};

/// The things that the workload stores.
struct Script {
    a: Pack,
    b: Pack,
    c: Pack,
    d: Pack,
    e: Pack,
    f: Pack,
    own: Commit,
    others: Commit,
    releasing: Commit,
    last: Commit,
    repacking: Commit,
    letting_go: Commit,
    clock: Clock,
}

/// What the store promised to keep.
#[derive(Clone, Default)]
struct Promised {
    packs: BTreeSet<PackId>,
    commits: BTreeSet<CommitId>,
    roster: usize,
}

impl Script {
    fn new() -> Self {
        let (a, b, c) = (Pack::new("a", 1), Pack::new("b", 2), Pack::new("c", 4));
        let (d, e, f) = (Pack::new("d", 1), Pack::new("e", 4), Pack::new("f", 2));
        let own = commit(1, 1, &[], &[&a, &b], &[]);
        let others = commit(2, 1, &[&own], &[&c, &d], &[]);
        let releasing = commit(1, 2, &[&others], &[], &[dot(&own, &a)]);
        let last = commit(2, 2, &[&releasing], &[&e], &[]);
        let repacking = commit(1, 3, &[&last], &[&f], &[]);
        let letting_go = forgetting(1, 4, &[&repacking], &[], &[dot(&own, &b)], &[&b]);
        Self {
            a,
            b,
            c,
            d,
            e,
            f,
            own,
            others,
            releasing,
            last,
            repacking,
            letting_go,
            clock: Clock::new(),
        }
    }

    fn open(&self, backend: &FaultyBackend) -> Result<Store, StoreError> {
        Store::open(Arc::new(backend.clone()), self.clock.options())
    }

    /// The whole workload; may be run again from any state that it leaves. Notes what is promised as soon as it is.
    fn run(&self, store: &Store, promised: &mut Promised) -> Result<(), StoreError> {
        if store.contains(self.others.id())? {
            store.set_disposition(&[self.others.id()], Disposition::Accepted)?;
        }
        store.repair()?;
        store.take_back(&store.offloaded_packs())?;
        store.put_roster_entries(&[b"found".to_vec(), b"join".to_vec()])?;
        promised.roster = 2;

        // Own packs and commit.
        store.create_pack(&self.a.hashes, &self.a.bytes)?;
        store.create_pack(&self.b.hashes, &self.b.bytes)?;
        store.put_commits(std::slice::from_ref(&self.own), Disposition::Accepted, true)?;
        promised.commits.insert(self.own.id());
        promised.packs.insert(self.a.id);
        if store.is_live(self.b.id)? {
            promised.packs.insert(self.b.id);
        }

        // Another's commit and packs.
        store.put_commits(
            std::slice::from_ref(&self.others),
            Disposition::Accepted,
            false,
        )?;
        store.begin_pack(&self.c.hashes)?;
        store.write_frames(self.c.id, 2, self.c.frames(2, 2))?;
        store.write_frames(self.c.id, 0, self.c.frames(0, 2))?;
        store.write_frames(self.d.id, 0, &self.d.bytes)?;
        promised.packs.extend(store.sync_packs()?);
        promised.commits.insert(self.others.id());
        assert!(promised.packs.contains(&self.c.id) || store.has_pack(self.c.id)?);

        // A release, and its collection.
        store.put_commits(
            std::slice::from_ref(&self.releasing),
            Disposition::Accepted,
            true,
        )?;
        promised.commits.insert(self.releasing.id());
        promised.packs.remove(&self.a.id);
        self.clock.advance(60);
        store.collect(self.clock.now(), &AT_ONCE)?;
        assert!(!store.has_pack(self.a.id)?);

        // A pack that stays half here.
        store.put_commits(
            std::slice::from_ref(&self.last),
            Disposition::Accepted,
            false,
        )?;
        store.begin_pack(&self.e.hashes)?;
        store.write_frames(self.e.id, 1, self.e.frames(1, 2))?;

        // Damage and repair.
        promised.packs.remove(&self.b.id);
        if store.is_live(self.b.id)? {
            store.report_damaged(self.b.id)?;
        }
        store.repair()?;
        if store.is_missing(self.b.id) {
            store.receive_pack(self.b.id, &self.b.bytes)?;
        }
        promised.packs.extend(store.sync_packs()?);
        promised.commits.insert(self.last.id());

        // A pack that is given up and fetched again. Until others are asked it stays promised.
        assert_eq!(store.begin_offload(&[self.c.id])?, [self.c.id]);
        promised.packs.remove(&self.c.id);
        store.finish_offload(&[self.c.id])?;
        assert!(!store.has_pack(self.c.id)? && !store.is_missing(self.c.id));
        store.take_back(&[self.c.id])?;
        store.receive_pack(self.c.id, &self.c.bytes)?;
        promised.packs.extend(store.sync_packs()?);

        store.set_disposition(&[self.others.id()], Disposition::Quarantined)?;
        store.set_disposition(&[self.others.id()], Disposition::Accepted)?;

        // What is in one pack is copied to another; once that is live the first is released, forgotten, and goes.
        store.create_pack(&self.f.hashes, &self.f.bytes)?;
        store.put_commits(
            std::slice::from_ref(&self.repacking),
            Disposition::Accepted,
            true,
        )?;
        promised.commits.insert(self.repacking.id());
        promised.packs.insert(self.f.id);
        promised.packs.remove(&self.b.id);
        store.put_commits(
            std::slice::from_ref(&self.letting_go),
            Disposition::Accepted,
            true,
        )?;
        promised.commits.insert(self.letting_go.id());
        self.clock.advance(60);
        store.collect(self.clock.now(), &FORGOTTEN_AT_ONCE)?;
        assert!(!store.has_pack(self.b.id)? && store.has_pack(self.f.id)?);
        Ok(())
    }

    fn check(&self, store: &Store, promised: &Promised, label: &str) {
        let report = store.verify(|_| {}, &AtomicBool::new(false)).unwrap();
        // The script itself reports this pack as damaged, and may have stopped before the repair.
        let expected = if store.totals().damaged_packs == 0 {
            vec![]
        } else {
            vec![VerifyProblem::PackDamaged(self.b.id)]
        };
        assert_eq!(report.problems, expected, "{label}");
        for pack in &promised.packs {
            assert!(store.has_pack(*pack).unwrap(), "{label}: {pack} is gone");
        }
        for commit in &promised.commits {
            assert!(
                store.commit(*commit).unwrap().is_some(),
                "{label}: {commit} is gone"
            );
        }
        assert!(
            store.roster_entries().unwrap().len() >= promised.roster,
            "{label}: roster entries are gone"
        );
        // The workload succeeds from here, and its end is always the same.
        let mut promised = promised.clone();
        self.run(store, &mut promised)
            .unwrap_or_else(|error| panic!("{label}: {error}"));
        store.write_frames(self.e.id, 0, &self.e.bytes).unwrap();
        store.sync_packs().unwrap();
        let report = store.verify(|_| {}, &AtomicBool::new(false)).unwrap();
        assert_eq!(report.problems, [], "{label}");
        assert_eq!(
            (report.packs, report.missing, report.commits),
            (4, 0, 6),
            "{label}"
        );
        assert_eq!(store.live_digest().count, 4);
        assert_eq!(store.missing_bytes(), 0);
        assert_eq!(
            store.stored_bytes(),
            [&self.c, &self.d, &self.e, &self.f]
                .map(|pack| pack.size.bytes())
                .iter()
                .sum()
        );
        assert_eq!(store.heads(), [self.letting_go.id()]);
    }

    /// What is promised after [`Self::check`].
    fn everything(&self) -> Promised {
        Promised {
            packs: [&self.c, &self.d, &self.e, &self.f]
                .map(|pack| pack.id)
                .into(),
            commits: [
                &self.own,
                &self.others,
                &self.releasing,
                &self.last,
                &self.repacking,
                &self.letting_go,
            ]
            .map(Commit::id)
            .into(),
            roster: 2,
        }
    }

    fn operations(&self) -> u64 {
        let backend = FaultyBackend::default();
        let store = self.open(&backend).unwrap();
        self.run(&store, &mut Promised::default()).unwrap();
        backend.operations()
    }
}

#[test]
fn every_stop_leaves_a_sound_store() {
    let script = Script::new();
    let operations = script.operations();
    assert!(operations > 40, "{operations}");
    for at in 0..operations {
        let backend = FaultyBackend::default();
        backend.set_fault(Fault::StopAt(at));
        let mut promised = Promised::default();
        let outcome = script
            .open(&backend)
            .and_then(|store| script.run(&store, &mut promised));
        assert!(
            backend.stopped() && (outcome.is_err() || at + 3 > operations),
            "{at}: {outcome:?}"
        );
        for loss in [
            Loss::Nothing,
            Loss::Unsynced,
            Loss::Mixed(1),
            Loss::Mixed(2),
            Loss::Mixed(3),
        ] {
            let label = format!("stopped at {at} with {loss:?}");
            let after = backend.crash(loss);
            let store = script
                .open(&after)
                .unwrap_or_else(|error| panic!("{label}: {error}"));
            script.check(&store, &promised, &label);
            // A later power cut takes what neither run synced.
            drop(store);
            let store = script.open(&after.crash(Loss::Unsynced)).unwrap();
            script.check(&store, &script.everything(), &format!("{label}, then cut"));
        }
    }
}

#[test]
fn a_stop_while_recovering_leaves_a_sound_store() {
    let script = Script::new();
    let operations = script.operations();
    for at in (0..operations).step_by(3) {
        let backend = FaultyBackend::default();
        backend.set_fault(Fault::StopAt(at));
        let mut promised = Promised::default();
        script
            .open(&backend)
            .and_then(|store| script.run(&store, &mut promised))
            .ok();
        for again in 0.. {
            let broken = backend.crash(Loss::Mixed(at));
            broken.set_fault(Fault::StopAt(again));
            let opened = script.open(&broken).is_ok();
            let finished = !broken.stopped();
            let label = format!("stopped at {at} and at {again}");
            let store = script
                .open(&broken.crash(Loss::Mixed(again)))
                .unwrap_or_else(|error| panic!("{label}: {error}"));
            script.check(&store, &promised, &label);
            if finished {
                assert!(opened);
                break;
            }
        }
    }
}

#[test]
fn every_error_is_clean() {
    let script = Script::new();
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        for at in 0..script.operations() {
            let backend = FaultyBackend::default();
            backend.set_fault(Fault::FailAt(at, kind));
            let mut promised = Promised::default();
            let label = format!("{kind} at {at}");
            let Ok(store) = script.open(&backend) else {
                script.check(&script.open(&backend).unwrap(), &promised, &label);
                continue;
            };
            match script.run(&store, &mut promised) {
                // A removal of a file of no use may fail unseen.
                Ok(()) => {}
                Err(error) if store.is_poisoned() => {
                    assert!(
                        matches!(error, StoreError::Sync { .. }),
                        "{label}: {error:?}"
                    );
                    assert!(matches!(
                        store.create_pack(&script.e.hashes, &script.e.bytes),
                        Err(StoreError::Poisoned)
                    ));
                    assert!(matches!(store.sync_packs(), Err(StoreError::Poisoned)));
                    drop(store);
                    script.check(&script.open(&backend).unwrap(), &promised, &label);
                    continue;
                }
                Err(error) => {
                    let expected = if kind == io::ErrorKind::StorageFull {
                        ErrorKind::Full
                    } else {
                        ErrorKind::Permanent
                    };
                    assert_eq!(error.kind(), expected, "{label}: {error:?}");
                }
            }
            // The same store goes on.
            script.check(&store, &promised, &label);
        }
    }
}

#[test]
fn an_unsynced_pack_is_never_trusted_after_a_failed_sync() {
    let (clock, backend) = (Clock::new(), FaultyBackend::default());
    let pack = Pack::new("lost", 2);
    let own = commit(1, 1, &[], &[&pack], &[]);
    let store = Store::open(Arc::new(backend.clone()), clock.options()).unwrap();
    store
        .put_commits(&[own], Disposition::Accepted, false)
        .unwrap();
    store.receive_pack(pack.id, &pack.bytes).unwrap();
    backend.set_fault(Fault::FailAt(0, io::ErrorKind::Other));
    assert!(matches!(store.sync_packs(), Err(StoreError::Sync { .. })));
    assert!(store.is_poisoned());
    assert!(store.is_missing(pack.id));
    drop(store);
    let store = Store::open(Arc::new(backend.clone()), clock.options()).unwrap();
    assert!(!store.has_pack(pack.id).unwrap());
    store.receive_pack(pack.id, &pack.bytes).unwrap();
    assert_eq!(store.sync_packs().unwrap(), [pack.id]);
}

#[test]
fn a_full_disk_loses_nothing_and_a_retry_works() {
    let (clock, backend) = (Clock::new(), FaultyBackend::default());
    let (small, large) = (Pack::new("small", 1), Pack::new("large", 8));
    let own = commit(1, 1, &[], &[&small, &large], &[]);
    let store = Store::open(Arc::new(backend.clone()), clock.options()).unwrap();
    store
        .put_commits(&[own], Disposition::Accepted, true)
        .unwrap();
    backend.set_capacity(Some(200_000));
    store.receive_pack(small.id, &small.bytes).unwrap();
    let error = store.receive_pack(large.id, &large.bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    store.begin_pack(&large.hashes).unwrap();
    assert_eq!(
        store
            .write_frames(large.id, 0, &large.bytes)
            .unwrap_err()
            .kind(),
        ErrorKind::Full
    );
    assert!(!store.is_poisoned());
    assert_eq!(store.sync_packs().unwrap(), [small.id]);
    assert_eq!(store.missing_bytes(), large.size.bytes());
    backend.set_capacity(None);
    assert!(store.write_frames(large.id, 0, &large.bytes).unwrap());
    assert_eq!(store.sync_packs().unwrap(), [large.id]);
    let report = store.verify(|_| {}, &AtomicBool::new(false)).unwrap();
    assert!(report.is_clean() && report.packs == 2);
    assert!(backend_is_tidy(&backend));
}

fn backend_is_tidy(backend: &FaultyBackend) -> bool {
    use ouisync_store::backend::Backend;
    ["incoming", "trash"]
        .iter()
        .all(|directory| backend.list_files(Path::new(directory)).unwrap().is_empty())
}

#[test]
fn what_a_killed_process_left_unsynced_is_synced_before_it_is_promised() {
    let clock = Clock::new();
    let pack = Pack::new("left", 2);
    let others = commit(1, 1, &[], &[&pack], &[]);
    let open =
        |backend: &FaultyBackend| Store::open(Arc::new(backend.clone()), clock.options()).unwrap();
    let first = FaultyBackend::default();
    let store = open(&first);
    store
        .put_commits(std::slice::from_ref(&others), Disposition::Accepted, false)
        .unwrap();
    store.receive_pack(pack.id, &pack.bytes).unwrap();

    let killed = first.crash(Loss::Nothing);
    let store = open(&killed);
    store
        .put_commits(std::slice::from_ref(&others), Disposition::Accepted, true)
        .unwrap();
    assert!(
        open(&killed.crash(Loss::Unsynced))
            .contains(others.id())
            .unwrap()
    );

    let killed = first.crash(Loss::Nothing);
    let store_again = open(&killed);
    assert_eq!(store_again.sync_packs().unwrap(), [pack.id]);
    let cut = open(&killed.crash(Loss::Unsynced));
    assert!(cut.has_pack(pack.id).unwrap() && cut.contains(others.id()).unwrap());
    drop(store);
}
