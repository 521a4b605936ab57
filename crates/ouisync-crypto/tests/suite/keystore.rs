//! The key store's slots and sealed files.

use ouisync_crypto::{
    identity::MemberIdentity,
    keys::FolderKeys,
    keystore::{
        FILE_LENGTH, KeyStore, KeyStoreError, KeyStoreKey, MachineKey, PassphraseCost,
        SLOT_CAPACITY, SLOT_LENGTH, SLOTS,
    },
    secret::{EpochSecret, ReadSecret},
};
use ouisync_model::id::EpochId;

use crate::seeded::Seeded;

const CHEAP: PassphraseCost = PassphraseCost {
    memory_kib: 64,
    passes: 1,
    lanes: 1,
};

#[test]
fn slots_open_with_their_passphrase_only() {
    let mut rng = Seeded::new(1);
    let mut store = KeyStore::create(CHEAP, &mut rng);
    let alice = store.passphrase_key(b"correct horse").unwrap();
    let other = store.passphrase_key(b"correct horsf").unwrap();
    assert_ne!(alice, other);
    assert_eq!(store.open(&alice).unwrap_err(), KeyStoreError::Locked);
    store.seal(&alice, 5, b"first", &mut rng).unwrap();
    store.seal(&alice, 63, b"second", &mut rng).unwrap();
    store.seal(&other, 7, b"hidden", &mut rng).unwrap();

    let store = KeyStore::from_bytes(store.as_bytes().to_vec()).unwrap();
    let opened = store.open(&alice).unwrap();
    let opened: Vec<_> = opened
        .iter()
        .map(|slot| (slot.slot, slot.content.to_vec()))
        .collect();
    assert_eq!(opened, [(5, b"first".to_vec()), (63, b"second".to_vec())]);
    assert_eq!(store.open(&other).unwrap().len(), 1);
    assert_eq!(
        store.open(&KeyStoreKey::generate(&mut rng)).unwrap_err(),
        KeyStoreError::Locked
    );
}

#[test]
fn a_new_passphrase_leaves_the_slots_of_others() {
    let mut rng = Seeded::new(2);
    let mut store = KeyStore::create(CHEAP, &mut rng);
    let (old, new) = (
        store.passphrase_key(b"old").unwrap(),
        store.passphrase_key(b"new").unwrap(),
    );
    let friend = store.passphrase_key(b"friend").unwrap();
    store.seal(&old, 1, b"mine", &mut rng).unwrap();
    store.seal(&friend, 2, b"theirs", &mut rng).unwrap();
    store.rekey(&old, &new, &mut rng).unwrap();
    assert_eq!(store.open(&old).unwrap_err(), KeyStoreError::Locked);
    assert_eq!(&*store.open(&new).unwrap()[0].content, b"mine");
    assert_eq!(&*store.open(&friend).unwrap()[0].content, b"theirs");
    store.erase(1, &mut rng).unwrap();
    assert!(store.open(&new).is_err());
}

#[test]
fn limits_and_damage() {
    let mut rng = Seeded::new(3);
    let mut store = KeyStore::create(CHEAP, &mut rng);
    let key = KeyStoreKey::generate(&mut rng);
    let full = vec![7; SLOT_CAPACITY];
    store.seal(&key, 0, &full, &mut rng).unwrap();
    assert_eq!(&*store.open(&key).unwrap()[0].content, &full);
    let result = store.seal(&key, 0, &vec![7; SLOT_CAPACITY + 1], &mut rng);
    assert_eq!(result, Err(KeyStoreError::TooLarge));
    assert_eq!(
        store.seal(&key, SLOTS, b"", &mut rng),
        Err(KeyStoreError::NoSuchSlot)
    );
    let mut bytes = store.as_bytes().to_vec();
    bytes[FILE_LENGTH - SLOTS * SLOT_LENGTH + 100] ^= 1;
    assert!(
        KeyStore::from_bytes(bytes.clone())
            .unwrap()
            .open(&key)
            .is_err()
    );
    bytes.pop();
    assert_eq!(
        KeyStore::from_bytes(bytes).unwrap_err(),
        KeyStoreError::Format
    );
    let dear = PassphraseCost {
        memory_kib: u32::MAX,
        ..CHEAP
    };
    let store = KeyStore::create(dear, &mut rng);
    assert_eq!(store.passphrase_key(b"x").unwrap_err(), KeyStoreError::Cost);
}

#[test]
fn a_slot_holds_a_folder_with_fifty_epochs() {
    let mut rng = Seeded::new(4);
    let mut keys = FolderKeys::new();
    for generation in 0..50 {
        let epoch = EpochId::from_bytes([generation as u8; 32]);
        keys.insert(
            epoch,
            generation,
            EpochSecret::Read(ReadSecret::generate(&mut rng)),
        );
    }
    let bytes = keys.to_bytes();
    assert!(bytes.len() + MemberIdentity::LENGTH + 512 <= SLOT_CAPACITY);
    assert_eq!(FolderKeys::from_bytes(&bytes).unwrap(), keys);
    assert!(FolderKeys::from_bytes(&bytes[1..]).is_err());
    let blind = keys.blind();
    assert!(blind.latest_readable().is_none() && blind.content_keys().is_none());
    assert_eq!(blind.epochs().count(), 50);
}

/// A crude look: used and unused slots both have every byte value about equally often, and no repeated blocks.
#[test]
fn used_slots_look_like_unused_ones() {
    let mut rng = Seeded::new(5);
    let mut store = KeyStore::create(CHEAP, &mut rng);
    let key = KeyStoreKey::generate(&mut rng);
    for slot in 0..SLOTS / 2 {
        store.seal(&key, slot, &[0; 100], &mut rng).unwrap();
    }
    let slots = &store.as_bytes()[FILE_LENGTH - SLOTS * SLOT_LENGTH..];
    for half in slots.chunks(SLOTS / 2 * SLOT_LENGTH) {
        let mut counts = [0u32; 256];
        half.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        let expected = half.len() as f64 / 256.0;
        let chi: f64 = counts
            .iter()
            .map(|n| (f64::from(*n) - expected).powi(2) / expected)
            .sum();
        // 255 degrees of freedom: mean 255, deviation 22.6.
        assert!((140.0..370.0).contains(&chi), "{chi}");
    }
    let blocks: std::collections::HashSet<_> = slots.chunks(16).collect();
    assert_eq!(blocks.len(), slots.len() / 16);
}

#[test]
fn unused_slots_are_found() {
    let mut rng = Seeded::new(6);
    let used: Vec<_> = (0..63).collect();
    assert_eq!(KeyStore::unused_slot(&used, &mut rng), Some(63));
    let all: Vec<_> = (0..64).collect();
    assert_eq!(KeyStore::unused_slot(&all, &mut rng), None);
}

#[test]
fn blobs_are_bound_to_key_and_context() {
    let mut rng = Seeded::new(7);
    let key = MachineKey::generate(&mut rng);
    let sealed = key.seal_blob(b"blind", b"content", &mut rng);
    assert_eq!(&*key.open_blob(b"blind", &sealed).unwrap(), b"content");
    assert_eq!(
        key.open_blob(b"other", &sealed).unwrap_err(),
        KeyStoreError::Blob
    );
    assert!(
        MachineKey::generate(&mut rng)
            .open_blob(b"blind", &sealed)
            .is_err()
    );
    assert!(key.open_blob(b"blind", &sealed[..10]).is_err());
    assert_ne!(sealed, key.seal_blob(b"blind", b"content", &mut rng));
}
