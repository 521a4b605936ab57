//! A store on whose disk records of the catalogue are other than they were written.

use std::{
    ops::ControlFlow,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use ouisync_crypto::commit::Commit;
use ouisync_store::{
    backend::{
        Backend, CatalogueLimits,
        faulty::{FaultyBackend, Loss},
    },
    catalogue::{Disposition, records::Changes},
    checkpoint::CheckpointCheck,
    collect::CollectPolicy,
    error::StoreError,
    store::{Store, StoreOptions},
};

use crate::wire;

const LIMITS: CatalogueLimits = CatalogueLimits {
    cache: 0,
    write_buffer: 0,
};
/// Seconds since 1970, by the store's clock.
const NOW: u64 = 1_800_000_000;

fn open(disk: &FaultyBackend) -> Result<Store, StoreError> {
    let options = StoreOptions {
        reserve: 0,
        clock: Arc::new(|| NOW),
        ..StoreOptions::default()
    };
    Store::open(Arc::new(disk.clone()), options)
}

/// A disk with accepted and quarantined commits, roster entries, notes and packs that are missing.
fn valid() -> &'static FaultyBackend {
    static DISK: OnceLock<FaultyBackend> = OnceLock::new();
    DISK.get_or_init(|| {
        let disk = FaultyBackend::default();
        let store = open(&disk).expect("an empty store");
        for (commit, disposition) in wire::commit_seeds()
            .into_iter()
            .zip([Disposition::Accepted, Disposition::Quarantined])
        {
            let commit = Commit::decode(commit).expect("a seed");
            // One whose parents are unknown is refused.
            let _ = store.put_commits(&[commit], disposition, true);
        }
        store
            .put_roster_entries(&[vec![1; 70]])
            .expect("a roster entry");
        store.note_peer(b"peer", Some(vec![2; 20])).expect("a note");
        drop(store);
        disk
    })
}

fn records(disk: &FaultyBackend) -> Vec<(Vec<u8>, Vec<u8>)> {
    let records = disk.open_records(LIMITS).expect("records in memory");
    let mut found = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        found.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    let all = records.scan(&[], &[0xff], &mut visit);
    all.expect("records in memory");
    found
}

/// Replaces, adds and takes away records as the program says, opens the store, and uses it.
pub(crate) fn catalogue(data: &[u8]) {
    let disk = valid().crash(Loss::Nothing);
    let valid = records(&disk);
    let mut program = data;
    let mut changes = Changes::new();
    while let [what, which, length, rest @ ..] = program {
        let (part, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        program = rest;
        let part = part.to_vec();
        let (key, value) = &valid[usize::from(*which) % valid.len()];
        match what % 5 {
            // Other bytes in the place of a value, or of its end.
            0 => changes.insert(key.clone(), Some(part)),
            1 => {
                let kept = value.len().saturating_sub(part.len());
                changes.insert(key.clone(), Some([&value[..kept], &part[..]].concat()))
            }
            // A value under another key of its kind.
            2 => changes.insert([&key[..1], &part[..]].concat(), Some(value.clone())),
            3 => changes.insert(key.clone(), None),
            // Any record of any kind.
            _ => {
                let kind = b"CBMOASHDQUVWPFKRNX"[usize::from(*which) % 18];
                let (key, value) = part.split_at(part.len().min(64));
                changes.insert([&[kind], key].concat(), Some(value.to_vec()))
            }
        };
    }
    let written = disk
        .open_records(LIMITS)
        .map(|records| records.commit(changes, true));
    written.expect("records in memory").expect("a batch");
    if let Ok(store) = open(&disk) {
        // Errors are right; panics and endless lists are not.
        let _ = use_all(&store);
    }
}

fn use_all(store: &Store) -> Result<(), StoreError> {
    let _ = store.verify(|_| {}, &AtomicBool::new(false));
    let _ = (
        store.roster_entries(),
        store.peer_notes(b""),
        store.quarantined(),
    );
    let _ = (
        store.chains(),
        store.heads(),
        store.totals(),
        store.missing_packs(),
    );
    let _ = (
        store.missing_bytes(),
        store.offloaded_packs(),
        store.released_packs(),
    );
    for arrived in store.arrivals(0, 100).unwrap_or_default() {
        let _ = (
            store.commit(arrived.commit),
            store.commit_meta(arrived.commit),
        );
        let _ = store.set_disposition(&[arrived.commit], Disposition::Quarantined);
        let _ = store.set_disposition(&[arrived.commit], Disposition::Accepted);
    }
    let _ = store.commits_in_order(None, 100);
    let policy = CollectPolicy {
        grace: Duration::ZERO,
        retention: Some(Duration::ZERO),
        floor: Duration::ZERO,
        quota: Some(0),
        quota_floor: Duration::ZERO,
        check: CheckpointCheck::Blind,
    };
    store.collect(NOW + 1, &policy)?;
    store.repair()?;
    Ok(())
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    vec![
        b"\x03\x01\x00\x03\x02\x00".to_vec(),
        b"\x01\x05\x02\xff\xff\x01\x07\x01\xff".to_vec(),
        b"\x04\x0c\x21Pabcdefghijklmnopqrstuvwxyzabcdef\x02\x03\x03abc".to_vec(),
    ]
}
