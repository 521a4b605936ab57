//! The folder's policy: encoding, defaults, and what an unknown one means.

use std::time::Duration;

use ouisync_crypto::roster::policy::{FolderPolicy, Keep, PolicyInForce};
use proptest::prelude::*;

const DAY: u64 = 24 * 60 * 60;

fn keeps() -> impl Strategy<Value = Keep> {
    prop_oneof![
        Just(Keep::All),
        any::<u64>().prop_map(Keep::For),
        Just(Keep::Staggered)
    ]
}

#[test]
fn without_a_policy_safes_keep_90_days_and_devices_little() {
    let none = PolicyInForce::read(None);
    assert_eq!(none, PolicyInForce::Default);
    assert_eq!(none.safes(), Keep::For(90 * DAY));
    assert_eq!(none.devices(), Keep::For(0));
    assert_eq!(none.replicas(), 2);
    assert_eq!(
        PolicyInForce::Set(FolderPolicy::initial()).devices(),
        none.devices()
    );
}

#[test]
fn one_word_counts_for_all_holders_unless_devices_have_their_own() {
    let all = PolicyInForce::Set(FolderPolicy::new(Keep::Staggered, None, 3));
    assert_eq!(
        (all.safes(), all.devices()),
        (Keep::Staggered, Keep::Staggered)
    );
    let apart = PolicyInForce::Set(FolderPolicy::new(Keep::All, Some(Keep::LITTLE), 3));
    assert_eq!((apart.safes(), apart.devices()), (Keep::All, Keep::For(0)));
    assert_eq!(Keep::All.limit(), None);
    assert_eq!(Keep::Staggered.limit(), None);
    assert_eq!(Keep::For(5).limit(), Some(Duration::from_secs(5)));
}

#[test]
fn the_encoding_is_fixed() {
    let policy = FolderPolicy::new(Keep::For(300), Some(Keep::Staggered), 2);
    assert_eq!(policy.to_bytes(), [1, 1, 0xac, 2, 1, 2, 2]);
    assert_eq!(
        FolderPolicy::new(Keep::All, None, 1).to_bytes(),
        [1, 0, 0, 1]
    );
}

#[test]
fn what_this_program_does_not_understand_keeps_everything() {
    let known = FolderPolicy::new(Keep::For(1), None, 1).to_bytes();
    let longer = [&known[..], &[0]].concat();
    let newer = [&[2], &known[1..]].concat();
    for (bytes, version) in [(&longer[..], 1), (&newer[..], 2), (&[][..], 0)] {
        let policy = PolicyInForce::read(Some(bytes));
        assert_eq!(policy, PolicyInForce::Unknown(version));
        assert_eq!((policy.safes(), policy.devices()), (Keep::All, Keep::All));
        assert_eq!(policy.replicas(), u16::MAX);
    }
}

proptest! {
    #[test]
    fn round_trip(keep in keeps(), devices in proptest::option::of(keeps()), replicas in any::<u16>()) {
        let policy = FolderPolicy::new(keep, devices, replicas);
        prop_assert_eq!(PolicyInForce::read(Some(&policy.to_bytes())), PolicyInForce::Set(policy));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        PolicyInForce::read(Some(&bytes));
    }
}
