//! Ways of sealing, and crashes at every step of changing them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use tempfile::TempDir;

use ouisync_crypto::keystore::KeyStoreKey;

use super::*;
use crate::key_ring::{KeyRingError, fake::FakeKeyRing};

/// A home and the person's key ring, which outlive the process.
struct Place {
    directory: TempDir,
    ring: Arc<FakeKeyRing>,
}

impl Place {
    fn new() -> Self {
        // In memory where that can be: hundreds of homes are made durable many times each.
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        Self {
            directory: directory.unwrap(),
            ring: Arc::default(),
        }
    }

    fn start_with(&self, ring: Option<Arc<dyn KeyRing>>) -> Result<Keys, EngineError> {
        let mut home = Home::open(self.directory.path()).unwrap();
        home.fault = self.ring.fault.clone();
        Keys::open(Arc::new(home), "test", ring, &mut rand::rng())
    }

    fn start(&self) -> Keys {
        self.start_with(Some(self.ring.clone())).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    fn entries(&self) -> usize {
        self.ring.entries.lock().unwrap().len()
    }

    fn set_locked(&self, locked: bool) {
        self.ring.locked.store(locked, Ordering::SeqCst);
    }
}

fn folder(number: u8) -> FolderId {
    FolderId::from_bytes([number; 32])
}

fn record(number: u8) -> OpenRecord {
    OpenRecord {
        folder: folder(number),
        name: format!("folder {number}"),
        identity: vec![number; 96],
        epochs: vec![(EpochId::from_bytes([number; 32]), 7, [number; 32])],
        setting: Some(vec![number]),
    }
}

/// Founds a folder as the engine does.
fn add(keys: &Keys, number: u8) {
    keys.put_open(record(number)).unwrap();
    keys.put_blind(
        folder(number),
        BlindRecord {
            epochs: vec![],
            blind_key: [0; 32],
            safe: None,
            joining: None,
            paused: false,
            limits: Limits::default(),
        },
    )
    .unwrap();
}

#[track_caller]
fn assert_open(keys: &Keys, numbers: &[u8]) {
    for number in numbers {
        let found = keys
            .open_record(&folder(*number))
            .unwrap_or_else(|| panic!("folder {number} is lost"));
        assert_eq!(encode(&found), encode(&record(*number)));
    }
}

/// A way of sealing, as a test names it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seal {
    Machine,
    Passphrase(&'static str),
    Ring,
}

const ONE: Seal = Seal::Passphrase("one");
const TWO: Seal = Seal::Passphrase("two");

impl Seal {
    fn sealing(self) -> Sealing {
        match self {
            Self::Machine => Sealing::Machine,
            Self::Passphrase(_) => Sealing::Passphrase,
            Self::Ring => Sealing::KeyRing,
        }
    }

    /// Changes from one way to another.
    fn change(self, to: Self, keys: &Keys) -> Result<(), EngineError> {
        match (self, to) {
            (Self::Passphrase(old), Self::Passphrase(new)) => keys.set_passphrase(Some(old), new),
            (_, Self::Passphrase(new)) => keys.set_passphrase(None, new),
            (Self::Passphrase(old), Self::Ring) => keys.enable_ring(Some(old)),
            (_, Self::Ring) => keys.enable_ring(None),
            (Self::Ring, Self::Machine) => keys.disable_ring(),
            (from, Self::Machine) => panic!("there is no way from {from:?} to {to:?}"),
        }
    }
}

const CHANGES: [(Seal, Seal); 6] = [
    (Seal::Machine, ONE),
    (Seal::Machine, Seal::Ring),
    (ONE, TWO),
    (ONE, Seal::Ring),
    (Seal::Ring, ONE),
    (Seal::Ring, Seal::Machine),
];

/// A device with two folders, sealed so.
fn device(from: Seal) -> (Place, Keys) {
    let place = Place::new();
    let keys = place.start();
    add(&keys, 1);
    if from != Seal::Machine {
        Seal::Machine.change(from, &keys).unwrap();
    }
    add(&keys, 2);
    (place, keys)
}

/// Starts again; the way is one of the two and all folders open in it. Gives which.
#[track_caller]
fn restart(place: &Place, ways: [Seal; 2], numbers: &[u8]) -> (Keys, Seal) {
    let keys = place.start();
    let way = ways.into_iter().find(|way| match way {
        Seal::Passphrase(passphrase) => {
            keys.sealing() == Sealing::Passphrase
                && keys.unlock(&Chosen::All, Some(passphrase)).is_ok()
        }
        way => keys.sealing() == way.sealing(),
    });
    let way = way.unwrap_or_else(|| panic!("neither of {ways:?} opens"));
    assert_open(&keys, numbers);
    let files = [
        ("keys/open", Sealing::Machine),
        ("keys/slots", Sealing::Passphrase),
        ("keys/ring", Sealing::KeyRing),
    ];
    for (file, sealing) in files {
        assert_eq!(
            place.exists(file),
            sealing == way.sealing(),
            "{file} with {way:?}"
        );
        assert!(
            !place.exists(&format!("{file}.new")),
            "a leftover of {file}"
        );
    }
    (keys, way)
}

#[test]
fn a_crash_at_any_step_of_a_change_loses_nothing() {
    for (from, to) in CHANGES {
        let mut outcomes = Vec::new();
        for steps in 0.. {
            assert!(steps < 200, "{from:?} to {to:?} never ends");
            let (place, keys) = device(from);
            place.ring.fault.after(steps);
            let outcome = from.change(to, &keys);
            drop(keys);
            place.ring.fault.after(usize::MAX);
            let (keys, way) = restart(&place, [from, to], &[1, 2]);
            assert!(
                outcome.is_err() || way == to,
                "{from:?} to {to:?}: an acknowledged change was undone"
            );
            // It goes on as if nothing had happened.
            add(&keys, 3);
            drop(keys);
            let (keys, again) = restart(&place, [way, way], &[1, 2, 3]);
            assert_eq!(again, way);
            if way == from {
                from.change(to, &keys).unwrap();
                drop(keys);
                assert_eq!(restart(&place, [from, to], &[1, 2, 3]).1, to);
            }
            outcomes.push(way);
            // A key that is of no use may stay in the ring: failing to remove it is no failure.
            if outcome.is_ok() && place.entries() == usize::from(to == Seal::Ring) {
                break;
            }
        }
        assert!(
            outcomes.len() > 4,
            "{from:?} to {to:?} had {} steps",
            outcomes.len()
        );
        let turn = outcomes.iter().position(|way| *way == to).unwrap();
        assert!(
            turn > 0 && outcomes[turn..].iter().all(|way| *way == to),
            "{outcomes:?}"
        );
    }
}

#[test]
fn a_change_that_fails_leaves_a_device_that_keeps_what_it_is_given() {
    for (from, to) in CHANGES {
        for steps in 0.. {
            let (place, keys) = device(from);
            place.ring.fault.after(steps);
            let outcome = from.change(to, &keys);
            // A full disk that isn't full any more.
            place.ring.fault.after(usize::MAX);
            let kept = keys.put_open(record(3));
            drop(keys);
            match kept {
                Ok(()) => drop(restart(&place, [from, to], &[1, 2, 3])),
                Err(EngineError::SealingUnsure) => drop(restart(&place, [from, to], &[1, 2])),
                Err(error) => panic!("{from:?} to {to:?} after {steps}: {error}"),
            }
            if outcome.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn a_file_that_comes_back_is_not_taken_for_the_one_in_force() {
    for (from, to) in CHANGES {
        if from.sealing() == to.sealing() {
            continue;
        }
        let (place, keys) = device(from);
        let names = ["keys/open", "keys/slots", "keys/ring"];
        let name = names.into_iter().find(|name| place.exists(name)).unwrap();
        let before = fs::read(place.path(name)).unwrap();
        from.change(to, &keys).unwrap();
        assert!(!place.exists(name), "{from:?} to {to:?}");
        add(&keys, 3);
        drop(keys);
        fs::write(place.path(name), before).unwrap();
        assert_eq!(restart(&place, [to, to], &[1, 2, 3]).1, to);
    }
}

#[test]
fn the_key_ring_opens_folders_without_anybody() {
    let (place, keys) = device(Seal::Ring);
    assert_eq!(place.entries(), 1);
    keys.enable_ring(None).unwrap();
    assert_eq!(place.entries(), 1, "enabling again changes nothing");
    drop(keys);
    place.ring.asked.store(false, Ordering::SeqCst);
    let keys = place.start();
    assert_open(&keys, &[1, 2]);
    assert!(
        !place.ring.asked.load(Ordering::SeqCst),
        "a start must not ask anybody"
    );
    assert_eq!(keys.ring_trouble(), None);
    keys.lock(&folder(1)).unwrap();
    keys.lock(&folder(2)).unwrap();
    assert!(matches!(
        keys.put_open(record(3)),
        Err(EngineError::DeviceLocked)
    ));
    place.set_locked(true);
    assert!(matches!(
        keys.unlock(&Chosen::All, None),
        Err(EngineError::KeyRing(KeyRingError::Locked))
    ));
    place.set_locked(false);
    assert_eq!(
        keys.unlock(&Chosen::Folder(folder(2)), None).unwrap(),
        [folder(2)]
    );
    assert!(keys.open_record(&folder(1)).is_none());
    assert!(
        matches!(keys.disable_ring(), Err(EngineError::DeviceLocked)),
        "folder 1 would be lost"
    );
    keys.unlock(&Chosen::All, None).unwrap();
    keys.disable_ring().unwrap();
    assert_eq!(place.entries(), 0, "the key is of no use any more");
    drop(keys);
    restart(&place, [Seal::Machine; 2], &[1, 2]);
}

#[test]
fn without_the_key_ring_a_device_starts_locked_and_says_so() {
    let (place, keys) = device(Seal::Ring);
    drop(keys);
    let assert_locked = |keys: &Keys, why: &str| {
        assert_eq!(keys.sealing(), Sealing::KeyRing);
        assert_eq!(keys.folders().len(), 2, "it syncs blind");
        assert!(keys.open_record(&folder(1)).is_none());
        assert!(
            keys.ring_trouble().unwrap().contains(why),
            "{:?}",
            keys.ring_trouble()
        );
        assert!(matches!(
            keys.check_unlocked(),
            Err(EngineError::DeviceLocked)
        ));
        assert!(matches!(
            keys.put_open(record(3)),
            Err(EngineError::DeviceLocked)
        ));
    };
    assert_locked(&place.start_with(None).unwrap(), "no key ring");
    place.set_locked(true);
    let keys = place.start();
    assert_locked(&keys, "locked");
    place.set_locked(false);
    assert_eq!(
        keys.unlock(&Chosen::All, None).unwrap(),
        [folder(1), folder(2)]
    );
    assert_open(&keys, &[1, 2]);
    assert_eq!(keys.ring_trouble(), None);
    drop(keys);
    let entries = std::mem::take(&mut *place.ring.entries.lock().unwrap());
    assert_locked(&place.start(), "has no key");
    let (entry, key) = entries[0].clone();
    place
        .ring
        .keep(&entry, &KeyStoreKey::generate(&mut rand::rng()))
        .unwrap();
    assert_locked(&place.start(), "does not open");
    place.ring.keep(&entry, &key).unwrap();
    restart(&place, [Seal::Ring; 2], &[1, 2]);
}

#[test]
fn the_key_ring_replaces_a_passphrase_only_when_it_is_given() {
    let (place, keys) = device(ONE);
    assert!(matches!(
        keys.enable_ring(None),
        Err(EngineError::PassphraseNeeded)
    ));
    assert!(matches!(
        keys.enable_ring(Some("wrong")),
        Err(EngineError::WrongPassphrase)
    ));
    assert_eq!(place.entries(), 0);
    place.set_locked(true);
    assert!(matches!(
        keys.enable_ring(Some("one")),
        Err(EngineError::KeyRing(KeyRingError::Locked))
    ));
    place.set_locked(false);
    drop(keys);
    // Also while locked; it stays so.
    let keys = place.start();
    keys.enable_ring(Some("one")).unwrap();
    assert!(keys.open_record(&folder(1)).is_none());
    assert!(matches!(
        keys.check_unlocked(),
        Err(EngineError::DeviceLocked)
    ));
    keys.unlock(&Chosen::All, None).unwrap();
    assert_open(&keys, &[1, 2]);
}

#[test]
fn a_passphrase_is_verified_without_any_folder() {
    let place = Place::new();
    place.start().set_passphrase(None, "one").unwrap();
    let keys = place.start();
    assert!(matches!(
        keys.check_unlocked(),
        Err(EngineError::DeviceLocked)
    ));
    assert!(matches!(
        keys.unlock(&Chosen::All, Some("wrong")),
        Err(EngineError::WrongPassphrase)
    ));
    assert!(matches!(
        keys.unlock(&Chosen::All, None),
        Err(EngineError::PassphraseNeeded)
    ));
    assert!(matches!(
        keys.set_passphrase(Some("wrong"), "two"),
        Err(EngineError::WrongPassphrase)
    ));
    keys.set_passphrase(Some("one"), "two").unwrap();
    assert!(matches!(
        keys.unlock(&Chosen::All, Some("one")),
        Err(EngineError::WrongPassphrase)
    ));
    assert_eq!(keys.unlock(&Chosen::All, Some("two")).unwrap(), []);
    add(&keys, 1);
    drop(keys);
    restart(&place, [TWO; 2], &[1]);
}

#[test]
fn after_a_change_of_passphrase_new_folders_are_sealed_by_the_new_one() {
    let (place, keys) = device(ONE);
    keys.set_passphrase(Some("one"), "two").unwrap();
    add(&keys, 3);
    keys.remove(&folder(1)).unwrap();
    drop(keys);
    let keys = place.start();
    assert!(matches!(
        keys.unlock(&Chosen::All, Some("one")),
        Err(EngineError::WrongPassphrase)
    ));
    assert_eq!(keys.unlock(&Chosen::All, Some("two")).unwrap().len(), 2);
    assert_open(&keys, &[2, 3]);
    assert!(keys.open_record(&folder(1)).is_none());
}

#[test]
fn a_full_key_store_refuses_and_keeps_what_it_has() {
    let (place, keys) = device(ONE);
    for number in 3..=63 {
        add(&keys, number);
    }
    assert!(keys.put_open(record(64)).is_err());
    drop(keys);
    let (keys, _) = restart(&place, [ONE; 2], &(1..=63).collect::<Vec<_>>());
    keys.remove(&folder(7)).unwrap();
    add(&keys, 64);
}
