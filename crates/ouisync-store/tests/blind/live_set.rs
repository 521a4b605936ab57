//! The live set against a plain model: whatever the order, batches and changes of disposition, it is what the set of accepted
//! commits says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicBool},
};

use ouisync_crypto::commit::{Commit, Dot, LiveDigest};
use ouisync_model::id::{CommitId, PackId};
use ouisync_store::{backend::faulty::FaultyBackend, catalogue::Disposition, store::Store};
use proptest::prelude::*;

use crate::making::{Clock, Pack, commit};

const AUTHORS: u8 = 3;
const PACKS: usize = 5;

/// How a random commit is made.
#[derive(Clone, Debug)]
struct Plan {
    author: u8,
    /// Which earlier commits are parents beside the author's last.
    parents: Vec<prop::sample::Index>,
    added: Vec<usize>,
    released: Vec<prop::sample::Index>,
    accepted: bool,
}

fn plan() -> impl Strategy<Value = Plan> {
    (
        0..AUTHORS,
        prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        prop::collection::vec(0..PACKS, 0..3),
        prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        prop::bool::weighted(0.8),
    )
        .prop_map(|(author, parents, added, released, accepted)| Plan {
            author,
            parents,
            added,
            released,
            accepted,
        })
}

fn make(plans: &[Plan], packs: &[Pack]) -> Vec<Commit> {
    let mut commits: Vec<Commit> = Vec::new();
    let mut last: BTreeMap<u8, (u64, usize)> = BTreeMap::new();
    for plan in plans {
        let mut parents: BTreeSet<usize> = plan
            .parents
            .iter()
            .filter(|_| !commits.is_empty())
            .map(|index| index.index(commits.len()))
            .collect();
        let (sequence, previous) = last
            .get(&plan.author)
            .map_or((1, None), |(n, index)| (n + 1, Some(*index)));
        parents.extend(previous);
        let parents: Vec<&Commit> = parents.iter().map(|index| &commits[*index]).collect();
        let added: Vec<&Pack> = plan.added.iter().map(|index| &packs[*index]).collect();
        // Any earlier add at all, even one that the author can't have seen: the rule is the same.
        let dots: Vec<Dot> = commits
            .iter()
            .flat_map(|commit| commit.dots().map(|(dot, _)| dot))
            .collect();
        let released: Vec<Dot> = plan
            .released
            .iter()
            .filter(|_| !dots.is_empty())
            .map(|index| dots[index.index(dots.len())])
            .collect();
        let made = commit(plan.author, sequence, &parents, &added, &released);
        last.insert(plan.author, (sequence, commits.len()));
        commits.push(made);
    }
    commits
}

fn expected_live(commits: &[Commit], accepted: &BTreeSet<CommitId>) -> BTreeSet<PackId> {
    let counted: Vec<&Commit> = commits
        .iter()
        .filter(|commit| accepted.contains(&commit.id()))
        .collect();
    let released: BTreeSet<Dot> = counted
        .iter()
        .flat_map(|commit| commit.header().released.clone())
        .collect();
    let dots = counted
        .iter()
        .flat_map(|commit| commit.dots())
        .map(|(dot, _)| dot);
    dots.filter(|dot| !released.contains(dot))
        .map(|dot| dot.pack)
        .collect()
}

fn expected_heads(commits: &[Commit], accepted: &BTreeSet<CommitId>) -> Vec<CommitId> {
    let counted: Vec<&Commit> = commits
        .iter()
        .filter(|commit| accepted.contains(&commit.id()))
        .collect();
    let parents: BTreeSet<CommitId> = counted
        .iter()
        .flat_map(|commit| commit.header().parents.clone())
        .collect();
    let mut heads: Vec<_> = counted
        .iter()
        .map(|commit| commit.id())
        .filter(|id| !parents.contains(id))
        .collect();
    heads.sort();
    heads
}

fn check(store: &Store, commits: &[Commit], accepted: &BTreeSet<CommitId>) {
    let live = expected_live(commits, accepted);
    let mut digest = LiveDigest::default();
    live.iter().for_each(|pack| digest.add(pack));
    assert_eq!(store.live_digest(), digest);
    let found: BTreeSet<PackId> = store
        .live_packs(None, usize::MAX)
        .unwrap()
        .iter()
        .map(|(pack, _)| *pack)
        .collect();
    assert_eq!(found, live);
    let missing: BTreeSet<PackId> = store
        .missing_packs()
        .iter()
        .map(|missing| missing.pack)
        .collect();
    assert_eq!(missing, live);
    assert_eq!(store.heads(), expected_heads(commits, accepted));
    assert_eq!(store.arrivals(0, usize::MAX).unwrap().len(), accepted.len());
    let report = store.verify(|_| {}, &AtomicBool::new(false)).unwrap();
    assert_eq!(report.problems, []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn live_set_is_a_function_of_the_accepted_commits(
        plans in prop::collection::vec(plan(), 1..20),
        order in prop::collection::vec(any::<u32>(), 20),
        batch in 1_usize..5,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..8),
    ) {
        let packs: Vec<Pack> = (0..PACKS).map(|index| Pack::new(&index.to_string(), 1)).collect();
        let commits = make(&plans, &packs);
        let clock = Clock::new();
        let backend = FaultyBackend::default();
        let store = Store::open(Arc::new(backend.clone()), clock.options()).unwrap();

        // A random order with parents first, in random batches.
        let mut accepted = BTreeSet::new();
        let mut waiting: Vec<usize> = (0..commits.len()).collect();
        waiting.sort_by_key(|index| order[*index]);
        let mut ready: Vec<usize> = Vec::new();
        let mut placed = BTreeSet::new();
        while !waiting.is_empty() {
            let next = waiting.iter().position(|index| {
                commits[*index].header().parents.iter().all(|parent| placed.contains(parent))
            }).unwrap();
            let index = waiting.remove(next);
            placed.insert(commits[index].id());
            ready.push(index);
        }
        // Runs of one disposition go in together, at most `batch` at a time.
        let is_accepted = |index: &usize| plans[*index].accepted;
        for run in ready.chunk_by(|a, b| is_accepted(a) == is_accepted(b)) {
            for chunk in run.chunks(batch) {
                let commits: Vec<Commit> = chunk.iter().map(|index| commits[*index].clone()).collect();
                let disposition = if is_accepted(&chunk[0]) { Disposition::Accepted } else { Disposition::Quarantined };
                if disposition == Disposition::Accepted {
                    accepted.extend(commits.iter().map(Commit::id));
                }
                store.put_commits(&commits, disposition, false).unwrap();
            }
        }
        check(&store, &commits, &accepted);

        // Everything again changes nothing.
        prop_assert!(store.put_commits(&commits, Disposition::Accepted, false).unwrap().is_empty());

        for (index, accept) in changes {
            let id = commits[index.index(commits.len())].id();
            let disposition = if accept { Disposition::Accepted } else { Disposition::Quarantined };
            store.set_disposition(&[id], disposition).unwrap();
            if accept { accepted.insert(id) } else { accepted.remove(&id) };
        }
        check(&store, &commits, &accepted);

        // All at once into another store gives the same set.
        let all = Store::open(Arc::new(FaultyBackend::default()), clock.options()).unwrap();
        all.put_commits(&commits, Disposition::Accepted, false).unwrap();
        let everything: BTreeSet<CommitId> = commits.iter().map(Commit::id).collect();
        check(&all, &commits, &everything);
        let quarantined: Vec<CommitId> = everything.difference(&accepted).copied().collect();
        all.set_disposition(&quarantined, Disposition::Quarantined).unwrap();
        prop_assert_eq!(all.live_digest(), store.live_digest());
        prop_assert_eq!(all.heads(), store.heads());
        check(&all, &commits, &accepted);

        // And it is all there after reopening.
        drop(store);
        let reopened = Store::open(Arc::new(backend), clock.options()).unwrap();
        check(&reopened, &commits, &accepted);
        prop_assert_eq!(reopened.chains(), all.chains());
    }
}
