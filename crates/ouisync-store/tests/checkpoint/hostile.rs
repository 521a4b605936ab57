//! Skeletons that no honest device makes: nothing panics, nothing is allocated that isn't there, a refusal leaves no trace.

use ouisync_crypto::commit::{CheckpointDigest, Commit};
use ouisync_store::{
    checkpoint::{CheckpointError, MAX_SKELETON},
    store::Store,
};
use proptest::{prelude::*, sample::Index};

use crate::{
    dag::{History, Roster, bytes_of, checkpoint, new_store, plan, spool},
    making::Clock,
    skeleton::assert_clean,
};

fn install(
    store: &Store,
    parents: &[&Commit],
    commits: u64,
    bytes: &[u8],
) -> Result<(), CheckpointError> {
    let digest = CheckpointDigest {
        commits,
        skeleton: *blake3::hash(bytes).as_bytes(),
    };
    let commit = checkpoint(1, parents, &[], &[], digest);
    let installed = store.install_checkpoint(&commit, spool(store, bytes), &Roster::default());
    if installed.is_err() {
        assert!(store.chains().is_empty() && store.heads().is_empty());
        assert!(store.commits_in_order(None, 10).unwrap().is_empty());
        assert!(store.checkpoints().unwrap().is_empty());
        assert_eq!((store.live_digest().count, store.base()), (0, None));
    }
    assert_clean(store);
    installed.map(drop)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_skeletons_are_refused_without_a_trace_or_consistent(
        plans in prop::collection::vec(plan(), 1..8),
        at in any::<Index>(),
        change in any::<u8>(),
        kind in 0u8..4,
    ) {
        let history = History::new(&plans);
        let clock = Clock::new();
        let (_, full) = new_store(&clock);
        let roster = Roster::default();
        let all = (0..history.commits.len()).collect();
        history.put(&full, &history.order(&all, &[1]), &roster);
        let heads = full.heads();
        let parents: Vec<&Commit> = heads.iter().map(|id| &history.commits[history.position(id)]).collect();
        let skeleton = full.skeleton(&heads, &roster).unwrap();
        let mut bytes = bytes_of(&skeleton);
        let at = at.index(bytes.len());
        match kind {
            0 => bytes[at] ^= change.max(1),
            1 => bytes.truncate(at),
            2 => bytes.insert(at, change),
            _ => { bytes.remove(at); }
        }
        let (_, store) = new_store(&clock);
        let outcome = install(&store, &parents, skeleton.digest().commits, &bytes);
        if kind == 1 {
            prop_assert!(outcome.is_err());
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), numbered in any::<bool>()) {
        let clock = Clock::new();
        let (_, store) = new_store(&clock);
        let parent = crate::making::commit(0, 1, &[], &[], &[]);
        let mut bytes = bytes;
        if numbered && !bytes.is_empty() {
            bytes[0] = 1;
        }
        prop_assert!(install(&store, &[&parent], 1, &bytes).is_err());
    }
}

#[test]
fn huge_counts_are_refused() {
    let clock = Clock::new();
    let (_, store) = new_store(&clock);
    let parent = crate::making::commit(0, 1, &[], &[], &[]);
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let author = [[1, 1].as_slice(), &[7; 32]].concat();
    for start in [
        vec![1],
        author.clone(),
        [author, vec![1], vec![9; 32], vec![0, 1, 1, 0]].concat(),
    ] {
        let bytes = [start.as_slice(), &huge].concat();
        assert!(matches!(
            install(&store, &[&parent], 1, &bytes),
            Err(CheckpointError::Malformed(_))
        ));
    }
}

#[test]
fn a_skeleton_has_a_greatest_length() {
    let clock = Clock::new();
    let (_, store) = new_store(&clock);
    let mut spool = store.begin_skeleton();
    let part = vec![0; 32 << 20];
    for _ in 0..MAX_SKELETON / part.len() as u64 {
        spool.push(&part).unwrap();
    }
    assert!(matches!(spool.push(&[0]), Err(CheckpointError::TooLarge)));
}
