//! Starting from a checkpoint, and dropping bytes, stopped at every operation on the disk.

use std::{collections::BTreeSet, sync::Arc};

use ouisync_crypto::commit::Commit;
use ouisync_store::{
    backend::faulty::{Fault, FaultyBackend, Loss},
    catalogue::Disposition,
    checkpoint::{CheckpointCheck, CheckpointError},
    store::Store,
};

use crate::{
    dag::{Roster, bytes_of, checkpoint, new_store, spool},
    making::{Clock, Pack, commit},
    skeleton::{AT_ONCE, assert_clean},
};

const LOSSES: [Loss; 4] = [
    Loss::Nothing,
    Loss::Unsynced,
    Loss::Mixed(1),
    Loss::Mixed(2),
];

struct Script {
    clock: Clock,
    /// A chain of enough commits for several steps.
    commits: Vec<Commit>,
    checkpoint: Commit,
    skeleton: Vec<u8>,
    /// What only one device has.
    own: Commit,
}

impl Script {
    fn new() -> Self {
        let clock = Clock::new();
        let (_, store) = new_store(&clock);
        let pack = Pack::new("pack", 1);
        let mut commits = vec![commit(0, 1, &[], &[&pack], &[])];
        for sequence in 2..600 {
            let parent = commits.last().unwrap();
            commits.push(commit(0, sequence, &[parent], &[], &[]));
        }
        store
            .put_commits(&commits, Disposition::Accepted, true)
            .unwrap();
        let last = commits.last().unwrap();
        let skeleton = store.skeleton(&[last.id()], &Roster::default()).unwrap();
        Self {
            clock,
            checkpoint: checkpoint(1, &[last], &[], &[], skeleton.digest()),
            skeleton: bytes_of(&skeleton),
            own: commit(1, 1, &[&commits[3]], &[], &[]),
            commits,
        }
    }

    fn open(&self, backend: &FaultyBackend) -> Result<Store, CheckpointError> {
        Ok(Store::open(
            Arc::new(backend.clone()),
            self.clock.options(),
        )?)
    }

    fn install(&self, backend: &FaultyBackend) -> Result<Store, CheckpointError> {
        let store = self.open(backend)?;
        let had = [&self.commits[..4], std::slice::from_ref(&self.own)].concat();
        store.put_commits(&had, Disposition::Accepted, true)?;
        let mut spool = store.begin_skeleton();
        spool.push(&self.skeleton)?;
        store.install_checkpoint(&self.checkpoint, spool, &Roster::default())?;
        Ok(store)
    }

    fn drop_bytes(&self, backend: &FaultyBackend) -> Result<Store, CheckpointError> {
        let store = self.open(backend)?;
        store.put_commits(&self.commits, Disposition::Accepted, true)?;
        let one = std::slice::from_ref(&self.checkpoint);
        store.put_commits(one, Disposition::Accepted, true)?;
        store.check_checkpoint(self.checkpoint.id(), &Roster::default())?;
        store.collect(self.clock.now(), &AT_ONCE)?;
        Ok(store)
    }
}

/// Stops the work at every operation; `check` sees the store as it is when opened again.
fn stop_everywhere(
    script: &Script,
    work: impl Fn(&FaultyBackend) -> Result<Store, CheckpointError>,
    check: impl Fn(&Store, &str),
) {
    let whole = FaultyBackend::default();
    work(&whole).unwrap();
    let operations = whole.operations();
    for at in 0..operations {
        let backend = FaultyBackend::default();
        backend.set_fault(Fault::StopAt(at));
        drop(work(&backend));
        for loss in LOSSES {
            let label = format!("stopped at {at} of {operations} with {loss:?}");
            let after = backend.crash(loss);
            let store = script.open(&after).unwrap();
            assert_clean(&store);
            check(&store, &label);
            drop(store);
            // And it can be done again from there.
            let store = work(&after).unwrap_or_else(|error| panic!("{label}: {error}"));
            assert_clean(&store);
            assert_eq!(store.base(), Some(script.checkpoint.id()), "{label}");
        }
    }
}

#[test]
fn an_installation_is_all_or_nothing() {
    let script = Script::new();
    let had: BTreeSet<_> = script.commits[..4].iter().map(Commit::id).collect();
    stop_everywhere(
        &script,
        |backend| script.install(backend),
        |store, label| {
            let done = store.contains(script.checkpoint.id()).unwrap();
            assert_eq!(store.base().is_some(), done, "{label}");
            for commit in &script.commits {
                let known = store.contains(commit.id()).unwrap();
                assert!(known == done || had.contains(&commit.id()), "{label}");
            }
            if done {
                let mut heads = vec![script.checkpoint.id(), script.own.id()];
                heads.sort();
                assert_eq!(store.heads(), heads, "{label}");
                assert_eq!(store.chains().len(), 3, "{label}");
                assert_eq!(store.live_digest().count, 1, "{label}");
            }
        },
    );
}

#[test]
fn bytes_go_only_when_a_checkpoint_stands_in_for_them() {
    let script = Script::new();
    stop_everywhere(
        &script,
        |backend| script.drop_bytes(backend),
        |store, label| {
            for commit in &script.commits {
                let known = store.contains(commit.id()).unwrap();
                let here = store.commit_bytes(commit.id()).unwrap().is_some();
                let start = store.start(CheckpointCheck::Blind).unwrap();
                assert!(here || !known || start.is_some(), "{label}");
            }
        },
    );
}

#[test]
fn a_failed_installation_leaves_nothing() {
    let script = Script::new();
    let (_, store) = new_store(&script.clock);
    let mut refusing = Roster::default();
    refusing.lost.insert(crate::making::member(0), Vec::new());
    // The skeleton says that all count.
    let outcome = store.install_checkpoint(
        &script.checkpoint,
        spool(&store, &script.skeleton),
        &refusing,
    );
    assert!(matches!(outcome, Err(CheckpointError::Malformed(_))));
    assert!(store.commits_in_order(None, 1).unwrap().is_empty());
    assert!(store.chains().is_empty());
    assert_clean(&store);
    store
        .install_checkpoint(
            &script.checkpoint,
            spool(&store, &script.skeleton),
            &Roster::default(),
        )
        .unwrap();
    assert_clean(&store);
}
