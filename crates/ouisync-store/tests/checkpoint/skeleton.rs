//! Skeletons: the same on every device; starting from one is as good as having the commits; so is having dropped their bytes.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use ouisync_crypto::commit::Commit;
use ouisync_model::id::{CommitId, PackId};
use ouisync_store::{
    catalogue::Disposition,
    checkpoint::{CheckpointCheck, CheckpointError, Uncovered},
    collect::CollectPolicy,
    store::Store,
};
use proptest::{prelude::*, sample::Index};

use crate::{
    dag::{History, Plan, Roster, bytes_of, checkpoint, new_store, plan, spool},
    making::{Clock, Pack, commit, dot},
};

pub(crate) const AT_ONCE: CollectPolicy = CollectPolicy {
    grace: Duration::ZERO,
    retention: Some(Duration::ZERO),
    floor: Duration::ZERO,
    quota: None,
    quota_floor: Duration::ZERO,
    check: CheckpointCheck::Blind,
};

pub(crate) fn assert_clean(store: &Store) {
    let report = store.verify(|_| {}, &AtomicBool::new(false)).unwrap();
    assert_eq!(report.problems, []);
}

fn live(store: &Store) -> BTreeSet<PackId> {
    let packs = store.live_packs(None, usize::MAX).unwrap();
    packs.into_iter().map(|(pack, _)| pack).collect()
}

fn assert_same(one: &Store, other: &Store) {
    assert_eq!(one.live_digest(), other.live_digest());
    assert_eq!(live(one), live(other));
    assert_eq!(one.heads(), other.heads());
    assert_eq!(one.chains(), other.chains());
    assert_eq!(one.quarantined().unwrap(), other.quarantined().unwrap());
    for pack in live(one) {
        assert_eq!(one.dots_of(pack).unwrap(), other.dots_of(pack).unwrap());
    }
    assert_clean(one);
    assert_clean(other);
}

/// A roster in which, perhaps, one author lost its right, and a commit of it in `among` is named.
fn roster(history: &History, among: &BTreeSet<usize>, lost: Option<(u8, Index)>) -> Roster {
    let Some((author, index)) = lost else {
        return Roster::default();
    };
    let own: Vec<&usize> = among
        .iter()
        .filter(|at| history.commits[**at].header().author == crate::making::member(author))
        .collect();
    let last = (!own.is_empty()).then(|| &history.commits[*own[index.index(own.len())]]);
    Roster::without(author, last)
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    prop::collection::vec(plan(), 1..24)
}

fn lost() -> impl Strategy<Value = Option<(u8, Index)>> {
    prop::option::of((0..crate::dag::AUTHORS, any::<Index>()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_skeleton_is_a_function_of_what_it_covers(
        plans in plans(),
        heads in prop::collection::vec(any::<Index>(), 1..3),
        orders in prop::collection::vec(prop::collection::vec(any::<u32>(), 24), 2),
        lost in lost(),
        quarantined in prop::collection::vec(any::<Index>(), 0..4),
    ) {
        let history = History::new(&plans);
        let all: BTreeSet<usize> = (0..history.commits.len()).collect();
        let covered = history.closure(heads.iter().map(|head| head.index(all.len())));
        let roster = roster(&history, &covered, lost);
        let parents = history.heads(&covered);
        let clock = Clock::new();

        let (_, only) = new_store(&clock);
        history.put(&only, &history.order(&covered, &orders[0]), &roster);
        let expected = only.skeleton(&parents, &roster).unwrap();
        prop_assert_eq!(expected.digest().commits, covered.len() as u64);
        let bytes = bytes_of(&expected);
        let hash = *blake3::hash(&bytes).as_bytes();
        prop_assert_eq!(hash, expected.digest().skeleton);
        let mut void: Vec<CommitId> = expected.quarantined().to_vec();
        void.sort();
        let mut refused: Vec<CommitId> = covered.iter().filter(|index| !roster.accepts(&history, **index))
            .map(|index| history.commits[*index].id()).collect();
        refused.sort();
        prop_assert_eq!(void, refused);

        // Beside other commits, in another order, and whatever the present roster says.
        let (_, more) = new_store(&clock);
        history.put(&more, &history.order(&all, &orders[1]), &Roster::default());
        for index in quarantined {
            let id = history.commits[index.index(all.len())].id();
            more.set_disposition(&[id], Disposition::Quarantined).unwrap();
        }
        let found = more.skeleton(&parents, &roster).unwrap();
        prop_assert_eq!(bytes_of(&found), bytes);
    }

    #[test]
    fn starting_from_a_checkpoint_and_dropping_bytes_change_nothing(
        plans in plans(),
        heads in prop::collection::vec(any::<Index>(), 1..3),
        had in prop::collection::vec(any::<Index>(), 0..3),
        orders in prop::collection::vec(prop::collection::vec(any::<u32>(), 24), 3),
        lost in lost(),
        changes in prop::collection::vec((any::<Index>(), any::<bool>()), 0..6),
    ) {
        let history = History::new(&plans);
        let all: BTreeSet<usize> = (0..history.commits.len()).collect();
        let covered = history.closure(heads.iter().map(|head| head.index(all.len())));
        let roster = roster(&history, &covered, lost);
        let clock = Clock::new();
        let own = Pack::new("state", 1);

        let (_, full) = new_store(&clock);
        history.put(&full, &history.order(&all, &orders[0]), &roster);
        let parents = history.heads(&covered);
        let skeleton = full.skeleton(&parents, &roster).unwrap();
        let by_id: Vec<&Commit> = parents.iter().map(|id| &history.commits[history.position(id)]).collect();
        let first = checkpoint(1, &by_id, &[&own], &[], skeleton.digest());
        full.put_commits(std::slice::from_ref(&first), Disposition::Accepted, true).unwrap();
        prop_assert_eq!(full.check_checkpoint(first.id(), &roster).unwrap(), CheckpointCheck::Blind);
        prop_assert_eq!(full.start(CheckpointCheck::Blind).unwrap().unwrap().commit, first.id());
        prop_assert!(full.start(CheckpointCheck::Whole).unwrap().is_none());

        // A newcomer, or somebody who was away and has commits that nobody else got.
        let (backend, newcomer) = new_store(&clock);
        let had = history.closure(had.iter().map(|index| index.index(all.len())));
        history.put(&newcomer, &history.order(&had, &orders[1]), &Roster::default());
        let bytes = bytes_of(&skeleton);
        let installed = newcomer.install_checkpoint(&first, spool(&newcomer, &bytes), &roster).unwrap();
        prop_assert_eq!(installed.commits, covered.difference(&had).count() as u64);
        prop_assert_eq!(newcomer.base(), Some(first.id()));
        assert_clean(&newcomer);
        let rest: BTreeSet<usize> = all.difference(&covered).filter(|index| !had.contains(index)).copied().collect();
        history.put(&newcomer, &history.order(&rest, &orders[2]), &roster);
        // What was here is judged by the roster that came with the checkpoint.
        for index in &had {
            if !roster.accepts(&history, *index) {
                newcomer.set_disposition(&[history.commits[*index].id()], Disposition::Quarantined).unwrap();
            }
        }
        assert_same(&full, &newcomer);

        // Dropping bytes here: everything covered, nothing else.
        let (_, cut) = new_store(&clock);
        history.put(&cut, &history.order(&all, &orders[1]), &roster);
        cut.put_commits(std::slice::from_ref(&first), Disposition::Accepted, true).unwrap();
        cut.check_checkpoint(first.id(), &roster).unwrap();
        let waiting = CollectPolicy { grace: Duration::from_secs(10), ..AT_ONCE };
        prop_assert_eq!(cut.collect(clock.now(), &waiting).unwrap().commits, 0);
        let counted = covered.len() - skeleton.quarantined().len();
        prop_assert_eq!(cut.collect(clock.now(), &AT_ONCE).unwrap().commits, counted as u64);
        prop_assert_eq!(cut.collect(clock.now(), &AT_ONCE).unwrap().commits, 0);
        assert_same(&full, &cut);
        for (index, commit) in history.commits.iter().enumerate() {
            let dropped = covered.contains(&index) && !skeleton.quarantined().contains(&commit.id());
            prop_assert_eq!(cut.commit_bytes(commit.id()).unwrap().is_none(), dropped);
            prop_assert!(cut.contains(commit.id()).unwrap());
        }
        // The same skeleton from what is left, and for a checkpoint of everything.
        let ids: BTreeSet<CommitId> = full.heads().into_iter().collect();
        let everything = bytes_of(&full.skeleton(&full.heads(), &roster).unwrap());
        for store in [&cut, &newcomer] {
            prop_assert_eq!(bytes_of(&store.skeleton(&parents, &roster).unwrap()), bytes.clone());
            let heads: Vec<CommitId> = ids.iter().copied().collect();
            prop_assert_eq!(bytes_of(&store.skeleton(&heads, &roster).unwrap()), everything.clone());
        }
        let mut visited = 0;
        cut.visit_covered(first.id(), &mut |commit| {
            visited += 1;
            assert_eq!(commit.accepted, !skeleton.quarantined().contains(&commit.commit));
        }).unwrap();
        prop_assert_eq!(visited, covered.len());

        // Later changes of mind about commits that aren't covered.
        for (index, accept) in changes {
            let index = index.index(all.len());
            if covered.contains(&index) {
                continue;
            }
            let disposition = if accept { Disposition::Accepted } else { Disposition::Quarantined };
            for store in [&full, &cut, &newcomer] {
                store.set_disposition(&[history.commits[index].id()], disposition).unwrap();
            }
        }
        assert_same(&full, &cut);
        assert_same(&full, &newcomer);

        // And after reopening.
        drop(newcomer);
        let reopened = Store::open(Arc::new(backend), clock.options()).unwrap();
        assert_same(&full, &reopened);
        prop_assert_eq!(reopened.base(), Some(first.id()));
    }
}

#[test]
fn what_a_checkpoint_accepted_stays_accepted() {
    let clock = Clock::new();
    let (_, store) = new_store(&clock);
    let pack = Pack::new("pack", 1);
    let first = commit(0, 1, &[], &[&pack], &[]);
    let before = commit(1, 1, &[&first], &[], &[]);
    store
        .put_commits(
            &[first.clone(), before.clone()],
            Disposition::Accepted,
            true,
        )
        .unwrap();
    let everybody = Roster::default();
    let digest = store.skeleton(&[before.id()], &everybody).unwrap().digest();
    let old = checkpoint(1, &[&before], &[], &[], digest);
    let after = commit(1, 2, &[&before], &[], &[]);
    store
        .put_commits(&[old.clone(), after.clone()], Disposition::Accepted, true)
        .unwrap();

    // A later checkpoint needs to know the earlier one.
    let heads = [old.id(), after.id()];
    let removed = Roster::without(1, None);
    assert!(matches!(
        store.skeleton(&heads, &removed),
        Err(CheckpointError::Unchecked(id)) if id == old.id()
    ));
    store.check_checkpoint(old.id(), &everybody).unwrap();
    let skeleton = store.skeleton(&heads, &removed).unwrap();
    assert_eq!(skeleton.quarantined(), [after.id()]);
    let both = [before.id(), after.id()].into();
    assert_eq!(store.settled(&both).unwrap(), [before.id()].into());
    // Not if the checkpoint doesn't count itself.
    let all = [old.id(), before.id(), after.id()].into();
    assert_eq!(store.settled(&all).unwrap(), [].into());
}

#[test]
fn a_wrong_checkpoint_is_of_no_use() {
    let clock = Clock::new();
    let (_, store) = new_store(&clock);
    let first = commit(0, 1, &[], &[], &[]);
    store
        .put_commits(std::slice::from_ref(&first), Disposition::Accepted, true)
        .unwrap();
    let everybody = Roster::default();
    let mut digest = store.skeleton(&[first.id()], &everybody).unwrap().digest();
    digest.skeleton[0] ^= 1;
    let wrong = checkpoint(1, &[&first], &[], &[], digest);
    store
        .put_commits(std::slice::from_ref(&wrong), Disposition::Accepted, true)
        .unwrap();
    let checked = store.check_checkpoint(wrong.id(), &everybody).unwrap();
    assert_eq!(checked, CheckpointCheck::Wrong);
    assert!(store.note_state(wrong.id(), true).is_err());
    assert!(store.start(CheckpointCheck::Blind).unwrap().is_none());
    assert_eq!(store.collect(clock.now(), &AT_ONCE).unwrap().commits, 0);

    let digest = store.skeleton(&[wrong.id()], &everybody).unwrap().digest();
    let right = checkpoint(2, &[&wrong], &[], &[], digest);
    store
        .put_commits(std::slice::from_ref(&right), Disposition::Accepted, true)
        .unwrap();
    store.check_checkpoint(right.id(), &everybody).unwrap();
    // Its state is wrong: nothing is dropped because of it.
    store.note_state(right.id(), false).unwrap();
    assert_eq!(store.collect(clock.now(), &AT_ONCE).unwrap().commits, 0);
    store.note_state(right.id(), true).unwrap();
    let whole = CollectPolicy {
        check: CheckpointCheck::Whole,
        ..AT_ONCE
    };
    assert_eq!(store.collect(clock.now(), &whole).unwrap().commits, 2);
    assert_eq!(store.dropped_through(), 2);
    assert_clean(&store);
}

#[test]
fn only_a_checkpoint_beyond_the_base_is_gone_on_from() {
    let clock = Clock::new();
    let everybody = Roster::default();
    let (_, full) = new_store(&clock);
    let first = commit(0, 1, &[], &[], &[]);
    let one = commit(0, 2, &[&first], &[], &[]);
    let other = commit(1, 1, &[&first], &[], &[]);
    full.put_commits(
        &[first.clone(), one.clone(), other.clone()],
        Disposition::Accepted,
        true,
    )
    .unwrap();
    let make = |parent: &Commit| {
        let skeleton = full.skeleton(&[parent.id()], &everybody).unwrap();
        (
            checkpoint(1, &[parent], &[], &[], skeleton.digest()),
            bytes_of(&skeleton),
        )
    };
    let (of_one, of_other) = (make(&one), make(&other));
    let (_, store) = new_store(&clock);
    let install = |(commit, bytes): &(Commit, Vec<u8>)| {
        store.install_checkpoint(commit, spool(&store, bytes), &everybody)
    };
    install(&of_one).unwrap();
    assert!(
        matches!(install(&of_other), Err(CheckpointError::NotBeyond(base)) if base == of_one.0.id())
    );
    assert_eq!(install(&of_one).unwrap().commits, 0, "known");
    assert!(!store.contains(other.id()).unwrap());
    assert_clean(&store);
    let most = Uncovered {
        commits: 10,
        bytes: 1 << 20,
    };
    assert_eq!(store.uncovered(most).unwrap().commits, 0);
    store
        .put_commits(&[other], Disposition::Accepted, true)
        .unwrap();
    let counted = store.uncovered(most).unwrap();
    assert!(counted.commits == 1 && counted.bytes > 1024);
}

#[test]
fn a_release_by_a_covered_commit_is_final() {
    let clock = Clock::new();
    let everybody = Roster::default();
    let (_, full) = new_store(&clock);
    let pack = Pack::new("pack", 1);
    let adding = commit(0, 1, &[], &[&pack], &[]);
    let releasing = commit(0, 2, &[&adding], &[], &[dot(&adding, &pack)]);
    full.put_commits(
        &[adding.clone(), releasing.clone()],
        Disposition::Accepted,
        true,
    )
    .unwrap();
    let skeleton = full.skeleton(&[releasing.id()], &everybody).unwrap();
    let made = checkpoint(1, &[&releasing], &[], &[], skeleton.digest());
    let (_, store) = new_store(&clock);
    store
        .install_checkpoint(&made, spool(&store, &bytes_of(&skeleton)), &everybody)
        .unwrap();
    // Somebody released it as well; taking that back doesn't bring the pack back.
    let again = commit(1, 1, &[&releasing], &[], &[dot(&adding, &pack)]);
    for disposition in [Disposition::Accepted, Disposition::Quarantined] {
        store
            .put_commits(std::slice::from_ref(&again), disposition, true)
            .unwrap();
        store.set_disposition(&[again.id()], disposition).unwrap();
        assert!(!store.is_live(pack.id).unwrap());
        assert_clean(&store);
    }
}
