//! The rules of the roster, one story each.

use ouisync_crypto::{
    commit::{CheckpointDigest, Commit, CommitDraft, LiveDigest},
    identity::MemberIdentity,
    invitation::InvitationSecret,
    keys::FolderKeys,
    roster::{
        Added, RefusedReason, Roster, RosterError, Standing,
        build::{BuildError, NewInvitation},
        role::Role,
        secrets::Holder,
        statement::{LastCommit, RosterEntry},
    },
    secret::EpochSecret,
};
use ouisync_model::{
    id::{CommitId, EpochId, Lamport, MemberId, Sequence},
    operation::CommitBody,
};

use crate::seeded::Seeded;

/// A device with its own view of the roster.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) identity: MemberIdentity,
    pub(crate) invitation: Option<InvitationSecret>,
    pub(crate) keys: FolderKeys,
    pub(crate) roster: Roster,
}

impl Device {
    pub(crate) fn founder(rng: &mut Seeded) -> Self {
        let identity = MemberIdentity::generate(rng);
        let founded = Roster::found(&identity, "Alice's phone", rng).unwrap();
        Self {
            identity,
            invitation: None,
            keys: founded.keys,
            roster: founded.roster,
        }
    }

    pub(crate) fn id(&self) -> MemberId {
        self.identity.member()
    }

    pub(crate) fn add(&mut self, entry: RosterEntry) {
        let entry = RosterEntry::verified(entry.as_bytes().to_vec()).unwrap();
        self.roster.add(entry).unwrap();
        self.unseal();
    }

    pub(crate) fn unseal(&mut self) {
        let mut holders = vec![Holder::Member(&self.identity)];
        holders.extend(self.invitation.as_ref().map(Holder::Invitation));
        self.roster.unseal_epochs(&holders, &mut self.keys);
    }

    pub(crate) fn learn(&mut self, other: &Self) {
        for entry in other.roster.entries_beyond(&self.roster.heads()) {
            let _ = self.roster.add(entry.clone());
        }
        self.unseal();
    }

    pub(crate) fn invite(&mut self, role: Role, uses: u32, rng: &mut Seeded) -> InvitationSecret {
        let secret = InvitationSecret::generate(rng);
        let what = NewInvitation {
            role,
            uses,
            expires: None,
        };
        let entry = self
            .roster
            .invite(&self.identity, &self.keys, &secret, what, rng)
            .unwrap();
        self.add(entry);
        secret
    }

    /// A newcomer that has this device's roster and a link.
    pub(crate) fn newcomer(&self, secret: &InvitationSecret, rng: &mut Seeded) -> Self {
        let mut device = Self {
            identity: MemberIdentity::generate(rng),
            invitation: Some(secret.clone()),
            keys: FolderKeys::new(),
            roster: Roster::new(self.roster.folder()),
        };
        device.learn(self);
        device
    }

    pub(crate) fn join(&self, secret: &InvitationSecret, name: &str, rng: &mut Seeded) -> Self {
        let mut device = self.newcomer(secret, rng);
        let entry = device.roster.join(&device.identity, secret, name).unwrap();
        device.add(entry);
        device
    }

    /// Invites and lets join, both known here.
    fn admit(&mut self, role: Role, name: &str, rng: &mut Seeded) -> Self {
        let secret = self.invite(role, 1, rng);
        let device = self.join(&secret, name, rng);
        self.learn(&device);
        device
    }

    pub(crate) fn remove(&mut self, member: MemberId, last: Vec<LastCommit>, rng: &mut Seeded) {
        let entries = self
            .roster
            .remove(&self.identity, &self.keys, &member, last, rng)
            .unwrap();
        assert_eq!(entries.len(), 2, "a removal comes with a rotation");
        entries.into_iter().for_each(|entry| self.add(entry));
    }

    fn set_role(&mut self, member: MemberId, role: Role, rng: &mut Seeded) {
        let entries = self
            .roster
            .set_role(&self.identity, &self.keys, &member, role, Vec::new(), rng)
            .unwrap();
        entries.into_iter().for_each(|entry| self.add(entry));
    }

    fn epochs(&self) -> Vec<EpochId> {
        self.roster.state().epochs().map(|one| one.epoch).collect()
    }

    fn role(&self, member: &Self) -> Option<Role> {
        self.roster.state().role(&member.id())
    }

    fn epoch(&self) -> EpochId {
        self.roster.state().current_epoch().unwrap().epoch
    }

    fn reads(&self, epoch: &EpochId) -> bool {
        self.keys.read_secret(epoch).is_some()
    }

    fn commit(&self, sequence: u64, rng: &mut Seeded) -> Commit {
        let (epoch, secret) = self.roster.sealing_epoch(&self.keys).unwrap();
        let draft = CommitDraft {
            folder: self.roster.folder(),
            sequence: Sequence(sequence),
            lamport: Lamport(sequence),
            parents: Vec::new(),
            roster: self.roster.heads(),
            epoch,
            time_hours: 0,
            added: Vec::new(),
            released: Vec::new(),
            forgotten: Vec::new(),
            live: LiveDigest::default(),
            checkpoint: None,
        };
        Commit::create(draft, &CommitBody::default(), secret, &self.identity, rng).unwrap()
    }

    fn standing(&self, commit: &Commit) -> Standing {
        self.roster.standing(commit.header(), |last| {
            last.iter().any(|one| one.commit == commit.id())
        })
    }
}

#[test]
fn a_family_enrols_and_reads_names() {
    let mut rng = Seeded::new(1);
    let mut alice = Device::founder(&mut rng);
    let pi = alice.admit(Role::Safe, "Pi", &mut rng);
    let bob = alice.admit(Role::Writer, "Bob's laptop", &mut rng);
    assert_eq!(alice.role(&alice), Some(Role::Owner));
    assert_eq!(
        (alice.role(&pi), alice.role(&bob)),
        (Some(Role::Safe), Some(Role::Writer))
    );
    for (device, name) in [
        (&alice, "Alice's phone"),
        (&pi, "Pi"),
        (&bob, "Bob's laptop"),
    ] {
        assert_eq!(
            alice
                .roster
                .member_name(&device.id(), &alice.keys)
                .as_deref(),
            Some(name)
        );
        assert_eq!(
            pi.roster.member_name(&device.id(), &pi.keys),
            None,
            "a safe reads no names"
        );
    }
    assert!(!alice.roster.rotation_owed());
    assert_eq!(
        alice.roster.state().open_invitations().count(),
        0,
        "both are used up"
    );
    // The founder's device needs nothing but its identity.
    let mut again = FolderKeys::new();
    alice
        .roster
        .unseal_epochs(&[Holder::Member(&alice.identity)], &mut again);
    assert_eq!(again, alice.keys);
}

#[test]
fn enrolment_works_through_a_safe() {
    let mut rng = Seeded::new(2);
    let mut alice = Device::founder(&mut rng);
    let mut pi = alice.admit(Role::Safe, "Pi", &mut rng);
    let link = alice.invite(Role::Writer, 1, &mut rng);
    pi.learn(&alice);
    let bob = pi.join(&link, "Bob", &mut rng);
    pi.learn(&bob);
    assert_eq!(pi.role(&bob), Some(Role::Writer));
    let commit = bob.commit(1, &mut rng);
    assert_eq!(pi.standing(&commit), Standing::Accepted);
    assert_eq!(
        alice.standing(&commit),
        Standing::Unknown {
            missing: bob.roster.heads()
        }
    );
}

#[test]
fn a_safe_has_no_read_secret_but_all_blind_ones() {
    let mut rng = Seeded::new(3);
    let mut alice = Device::founder(&mut rng);
    let founding = alice.epoch();
    let bob = alice.admit(Role::Reader, "Bob", &mut rng);
    alice.remove(bob.id(), Vec::new(), &mut rng);
    let mut pi = alice.admit(Role::Safe, "Pi", &mut rng);
    pi.learn(&alice);
    for epoch in [founding, alice.epoch()] {
        assert!(matches!(
            pi.keys.epoch(&epoch).unwrap().secret,
            EpochSecret::Store(_)
        ));
        assert_eq!(
            pi.keys.store_secret(&epoch),
            alice.keys.store_secret(&epoch)
        );
    }
    assert!(pi.keys.content_keys().is_none());
}

#[test]
fn newcomers_read_old_epochs_and_removed_ones_no_new_epoch() {
    let mut rng = Seeded::new(4);
    let mut alice = Device::founder(&mut rng);
    let founding = alice.epoch();
    let mut bob = alice.admit(Role::Writer, "Bob", &mut rng);
    let link = alice.invite(Role::Reader, 2, &mut rng);
    for _ in 0..2 {
        let rotation = alice
            .roster
            .rotate(&alice.identity, &alice.keys, &mut rng)
            .unwrap();
        alice.add(rotation);
    }
    bob.learn(&alice);
    assert!(bob.reads(&alice.epoch()));
    let before = alice.epoch();
    alice.remove(bob.id(), Vec::new(), &mut rng);
    bob.learn(&alice);
    assert!(bob.reads(&before) && !bob.reads(&alice.epoch()));
    assert!(bob.keys.store_secret(&alice.epoch()).is_none());
    assert!(bob.roster.state().is_removed(&bob.id()));

    // The link was made before three rotations, and still works.
    let carol = alice.join(&link, "Carol", &mut rng);
    assert!(carol.reads(&alice.epoch()) && carol.reads(&founding));
    assert_eq!(carol.keys, alice.keys);
    assert!(carol.keys.content_keys().is_some());
    alice.learn(&carol);
    assert!(!alice.roster.rotation_owed());
    assert_eq!(
        alice
            .roster
            .member_name(&carol.id(), &alice.keys)
            .as_deref(),
        Some("Carol")
    );
}

#[test]
fn commits_of_a_removed_writer() {
    let mut rng = Seeded::new(5);
    let mut alice = Device::founder(&mut rng);
    let mut bob = alice.admit(Role::Writer, "Bob", &mut rng);
    let known = bob.commit(1, &mut rng);
    let concurrent = bob.commit(2, &mut rng);
    assert_eq!(alice.standing(&concurrent), Standing::Accepted);
    let last = LastCommit {
        author: bob.id(),
        sequence: Sequence(1),
        commit: known.id(),
    };
    alice.remove(bob.id(), vec![last], &mut rng);
    assert_eq!(alice.standing(&known), Standing::Accepted);
    assert_eq!(alice.standing(&concurrent), Standing::Quarantined);
    bob.roster = alice.roster.clone();
    let later = bob.commit(3, &mut rng);
    assert_eq!(
        alice.standing(&later),
        Standing::Refused(RefusedReason::NotAMember)
    );
}

#[test]
fn only_writers_write() {
    let mut rng = Seeded::new(6);
    let mut alice = Device::founder(&mut rng);
    let reader = alice.admit(Role::Reader, "Reader", &mut rng);
    let commit = reader.commit(1, &mut rng);
    assert_eq!(
        alice.standing(&commit),
        Standing::Refused(RefusedReason::MayNotWrite)
    );
    let mut bob = alice.admit(Role::Writer, "Bob", &mut rng);
    let before = bob.commit(1, &mut rng);
    alice.set_role(bob.id(), Role::Reader, &mut rng);
    assert_eq!(
        alice.standing(&before),
        Standing::Quarantined,
        "not covered by the demotion"
    );
    bob.learn(&alice);
    let after = bob.commit(2, &mut rng);
    assert_eq!(
        alice.standing(&after),
        Standing::Refused(RefusedReason::MayNotWrite)
    );
    let entry = bob.roster.rotate(&bob.identity, &bob.keys, &mut rng);
    assert_eq!(entry.unwrap_err(), BuildError::NotAnOwner);
}

#[test]
fn removal_beats_what_the_removed_did_concurrently() {
    let mut rng = Seeded::new(7);
    let mut alice = Device::founder(&mut rng);
    let mut bob = alice.admit(Role::Owner, "Bob", &mut rng);
    let carol = alice.admit(Role::Reader, "Carol", &mut rng);
    bob.learn(&alice);
    let fork = alice.clone();
    alice.remove(bob.id(), Vec::new(), &mut rng);
    // Bob doesn't know yet: he promotes Carol, opens a link, and somebody joins by it as an owner.
    bob.set_role(carol.id(), Role::Owner, &mut rng);
    let link = bob.invite(Role::Owner, 5, &mut rng);
    let mut mallory = bob.join(&link, "Mallory", &mut rng);
    mallory.remove(alice.id(), Vec::new(), &mut rng);
    alice.learn(&mallory);
    assert_eq!(alice.role(&bob), None);
    assert_eq!(alice.role(&carol), Some(Role::Reader));
    assert_eq!(alice.role(&mallory), None);
    assert_eq!(alice.role(&alice), Some(Role::Owner));
    assert_eq!(alice.roster.state().open_invitations().count(), 0);
    // Everybody sees it so, in whatever order it came.
    let mut other = fork;
    other.learn(&mallory);
    other.learn(&alice);
    assert_eq!(other.roster.state(), alice.roster.state());
}

#[test]
fn what_came_before_a_removal_stays() {
    let mut rng = Seeded::new(8);
    let mut alice = Device::founder(&mut rng);
    let mut bob = alice.admit(Role::Owner, "Bob", &mut rng);
    bob.learn(&alice);
    let carol = bob.admit(Role::Writer, "Carol", &mut rng);
    alice.learn(&bob);
    alice.remove(bob.id(), Vec::new(), &mut rng);
    assert_eq!(alice.role(&carol), Some(Role::Writer));
}

#[test]
fn of_two_owners_that_remove_each_other_the_earlier_member_stays() {
    let mut rng = Seeded::new(9);
    let mut alice = Device::founder(&mut rng);
    let mut bob = alice.admit(Role::Owner, "Bob", &mut rng);
    let mut carol = alice.admit(Role::Owner, "Carol", &mut rng);
    bob.learn(&alice);
    carol.learn(&alice);
    carol.remove(bob.id(), Vec::new(), &mut rng);
    bob.remove(carol.id(), Vec::new(), &mut rng);
    let mut first = alice.clone();
    first.learn(&bob);
    first.learn(&carol);
    alice.learn(&carol);
    alice.learn(&bob);
    assert_eq!(alice.roster.state(), first.roster.state());
    assert_eq!(
        (alice.role(&bob), alice.role(&carol)),
        (Some(Role::Owner), None)
    );
    assert!(
        !alice
            .roster
            .state()
            .epochs()
            .any(|epoch| epoch.epoch == carol.epoch())
    );
}

#[test]
fn a_demoted_owner_cannot_act_from_the_past() {
    let mut rng = Seeded::new(10);
    let mut alice = Device::founder(&mut rng);
    let mut bob = alice.admit(Role::Owner, "Bob", &mut rng);
    bob.learn(&alice);
    alice.set_role(bob.id(), Role::Writer, &mut rng);
    let link = bob.invite(Role::Owner, 1, &mut rng);
    let mallory = bob.join(&link, "Mallory", &mut rng);
    alice.learn(&mallory);
    assert_eq!(alice.role(&bob), Some(Role::Writer));
    assert_eq!(alice.role(&mallory), None);
}

#[test]
fn concurrent_roles_resolve_to_the_lesser() {
    let mut rng = Seeded::new(11);
    let mut alice = Device::founder(&mut rng);
    let mut bob = alice.admit(Role::Owner, "Bob", &mut rng);
    let carol = alice.admit(Role::Reader, "Carol", &mut rng);
    bob.learn(&alice);
    alice.set_role(carol.id(), Role::Owner, &mut rng);
    bob.set_role(carol.id(), Role::Writer, &mut rng);
    alice.learn(&bob);
    assert_eq!(alice.role(&carol), Some(Role::Writer));
    alice.set_role(carol.id(), Role::Owner, &mut rng);
    assert_eq!(
        alice.role(&carol),
        Some(Role::Owner),
        "a later decision holds"
    );
}

#[test]
fn uses_are_limited_also_when_nobody_could_know() {
    let mut rng = Seeded::new(12);
    let mut alice = Device::founder(&mut rng);
    let link = alice.invite(Role::Reader, 1, &mut rng);
    let one = alice.join(&link, "One", &mut rng);
    let two = alice.join(&link, "Two", &mut rng);
    let mut pi = alice.clone();
    pi.learn(&two);
    assert_eq!(pi.role(&two), Some(Role::Reader));
    pi.learn(&one);
    alice.learn(&one);
    alice.learn(&two);
    assert_eq!(alice.roster.state(), pi.roster.state());
    assert_eq!(alice.roster.state().members().count(), 2);
    assert!(
        alice.roster.rotation_owed(),
        "the link is known to one too many"
    );
    let rotation = alice
        .roster
        .rotate(&alice.identity, &alice.keys, &mut rng)
        .unwrap();
    alice.add(rotation);
    assert!(!alice.roster.rotation_owed());
    let late = alice.newcomer(&link, &mut rng);
    let result = late.roster.join(&late.identity, &link, "Late");
    assert_eq!(result.unwrap_err(), BuildError::InvitationClosed);
    assert!(!late.reads(&alice.epoch()));
}

#[test]
fn a_revoked_invitation_gives_nothing() {
    let mut rng = Seeded::new(13);
    let mut alice = Device::founder(&mut rng);
    let link = alice.invite(Role::Writer, 3, &mut rng);
    let old = alice.clone();
    let entries = alice
        .roster
        .revoke(&alice.identity, &alice.keys, &link.invitation(), &mut rng)
        .unwrap();
    assert_eq!(entries.len(), 2);
    entries.into_iter().for_each(|entry| alice.add(entry));
    let mut mallory = old.join(&link, "Mallory", &mut rng);
    alice.learn(&mallory);
    mallory.learn(&alice);
    assert_eq!(alice.role(&mallory), None);
    assert!(!mallory.reads(&alice.epoch()));
    let commit = mallory.commit(1, &mut rng);
    assert_eq!(
        alice.standing(&commit),
        Standing::Refused(RefusedReason::NotAMember)
    );
}

#[test]
fn a_removed_member_cannot_come_back_by_the_link_it_came_by() {
    let mut rng = Seeded::new(14);
    let mut alice = Device::founder(&mut rng);
    let link = alice.invite(Role::Writer, 5, &mut rng);
    let bob = alice.join(&link, "Bob", &mut rng);
    alice.learn(&bob);
    let old = alice.clone();
    alice.remove(bob.id(), Vec::new(), &mut rng);
    assert_eq!(alice.roster.state().open_invitations().count(), 0);
    let bob_again = old.join(&link, "Bob again", &mut rng);
    alice.learn(&bob_again);
    assert_eq!(alice.role(&bob_again), None);
    let mut with_link = bob_again;
    with_link.learn(&alice);
    assert!(!with_link.reads(&alice.epoch()));
}

#[test]
fn a_seat_passes_to_a_new_key_and_is_removed_with_all_its_keys() {
    let mut rng = Seeded::new(15);
    let mut alice = Device::founder(&mut rng);
    let mut bob = alice.admit(Role::Writer, "Bob", &mut rng);
    bob.learn(&alice);
    let old = bob.clone();
    let new = bob.identity.successor(&mut rng);
    let entry = bob.roster.succeed(&bob.identity, &new).unwrap();
    bob.add(entry);
    bob.identity = new;
    alice.learn(&bob);
    assert_eq!(
        (alice.role(&old), alice.role(&bob)),
        (None, Some(Role::Writer))
    );
    assert_eq!(
        alice.roster.member_name(&bob.id(), &alice.keys).as_deref(),
        Some("Bob")
    );
    let commit = old.commit(1, &mut rng);
    assert_eq!(
        alice.standing(&commit),
        Standing::Accepted,
        "made before the key was retired"
    );
    assert_eq!(alice.standing(&bob.commit(1, &mut rng)), Standing::Accepted);
    alice.remove(bob.id(), Vec::new(), &mut rng);
    assert_eq!(alice.standing(&commit), Standing::Quarantined);
    let clone = old.identity.successor(&mut rng);
    let mut ghost = old.clone();
    let entry = ghost.roster.succeed(&ghost.identity, &clone).unwrap();
    ghost.add(entry);
    alice.learn(&ghost);
    assert_eq!(alice.roster.state().role(&clone.member()), None);
}

/// What a device that is locked knows of the epochs: the blind secrets, by nothing but its blind key.
#[test]
fn a_locked_member_follows_new_epochs_blind() {
    let mut rng = Seeded::new(61);
    let mut alice = Device::founder(&mut rng);
    let bob = alice.admit(Role::Writer, "Bob", &mut rng);
    let pi = alice.admit(Role::Safe, "Pi", &mut rng);
    let carol = alice.admit(Role::Reader, "Carol", &mut rng);
    alice.remove(carol.id(), Vec::new(), &mut rng);
    alice.remove(pi.id(), Vec::new(), &mut rng);
    let epochs = alice.epochs();
    assert_eq!(epochs.len(), 3);

    let follow = |device: &Device, keys: &mut FolderKeys| {
        let holder = [Holder::Blind(device.identity.blind())];
        alice.roster.unseal_epochs(&holder, keys)
    };
    let mut locked = bob.keys.blind();
    assert!(follow(&bob, &mut locked));
    for epoch in &epochs {
        assert_eq!(
            locked.store_secret(epoch),
            alice.keys.store_secret(epoch),
            "also of the epoch in between"
        );
        assert!(locked.read_secret(epoch).is_none());
    }
    assert!(!follow(&bob, &mut locked), "nothing new");
    // Unlocked again, everything can be read.
    let identity = [Holder::Member(&bob.identity)];
    assert!(alice.roster.unseal_epochs(&identity, &mut locked));
    assert!(
        epochs
            .iter()
            .all(|epoch| locked.read_secret(epoch).is_some())
    );

    // Also after the seat passed to a new key.
    let new = bob.identity.successor(&mut rng);
    let entry = alice.roster.succeed(&bob.identity, &new).unwrap();
    alice.add(entry);
    let rotation = alice.roster.rotate(&alice.identity, &alice.keys, &mut rng);
    alice.add(rotation.unwrap());
    let mut locked = bob.keys.blind();
    let holder = [Holder::Blind(new.blind())];
    assert!(alice.roster.unseal_epochs(&holder, &mut locked));
    assert!(locked.store_secret(&alice.epoch()).is_some());

    // Who was removed gets nothing.
    for removed in [&carol, &pi] {
        let mut keys = removed.keys.blind();
        let holder = [Holder::Blind(removed.identity.blind())];
        alice.roster.unseal_epochs(&holder, &mut keys);
        assert!(keys.store_secret(&alice.epoch()).is_none());
    }
    // What a rotation says in the clear doesn't tell whose device is locked.
    for entry in alice.roster.entries() {
        for device in [&alice, &bob, &carol, &pi] {
            let key = device.identity.blind().public_key();
            let bytes = entry.as_bytes();
            assert!(
                !bytes
                    .windows(32)
                    .any(|window| window == &key.as_bytes()[..32])
            );
        }
    }
}

#[test]
fn a_safe_that_becomes_a_reader_gets_the_secrets_and_back() {
    let mut rng = Seeded::new(16);
    let mut alice = Device::founder(&mut rng);
    let mut pi = alice.admit(Role::Safe, "Pi", &mut rng);
    let founding = alice.epoch();
    alice.set_role(pi.id(), Role::Reader, &mut rng);
    pi.learn(&alice);
    assert!(pi.reads(&alice.epoch()) && pi.reads(&founding));
    alice.set_role(pi.id(), Role::Safe, &mut rng);
    pi.learn(&alice);
    assert!(!pi.reads(&alice.epoch()));
    assert!(pi.keys.store_secret(&alice.epoch()).is_some());
}

#[test]
fn concurrent_rotations_are_joined_by_the_next() {
    let mut rng = Seeded::new(17);
    let mut alice = Device::founder(&mut rng);
    let mut bob = alice.admit(Role::Owner, "Bob", &mut rng);
    bob.learn(&alice);
    for device in [&mut alice, &mut bob] {
        let rotation = device
            .roster
            .rotate(&device.identity, &device.keys, &mut rng)
            .unwrap();
        device.add(rotation);
    }
    alice.learn(&bob);
    bob.learn(&alice);
    assert_eq!(alice.epoch(), bob.epoch());
    assert!(alice.roster.rotation_owed());
    let rotation = alice
        .roster
        .rotate(&alice.identity, &alice.keys, &mut rng)
        .unwrap();
    alice.add(rotation);
    assert!(!alice.roster.rotation_owed());
    let carol = alice.admit(Role::Reader, "Carol", &mut rng);
    assert_eq!(carol.keys.epochs().count(), 4, "both branches are readable");
}

#[test]
fn the_last_owner_stays() {
    let mut rng = Seeded::new(18);
    let mut alice = Device::founder(&mut rng);
    let leave = alice.roster.leave(&alice.identity, Vec::new());
    assert_eq!(leave.unwrap_err(), BuildError::LastOwner);
    let mut bob = alice.admit(Role::Writer, "Bob", &mut rng);
    bob.learn(&alice);
    let entry = bob.roster.leave(&bob.identity, Vec::new()).unwrap();
    alice.add(entry);
    assert_eq!(alice.role(&bob), None);
    assert!(alice.roster.rotation_owed());
}

#[test]
fn entries_that_are_not_allowed_are_refused() {
    let mut rng = Seeded::new(19);
    let mut alice = Device::founder(&mut rng);
    let link = alice.invite(Role::Reader, 1, &mut rng);
    let bob = alice.join(&link, "Bob", &mut rng);
    let foreign = Device::founder(&mut rng);
    let error = alice
        .roster
        .add(foreign.roster.entries().next().unwrap().clone());
    assert!(matches!(error, Err(RosterError::OtherFolder(_))));
    // Every changed byte of an entry is refused; the large ciphertexts in the middle are sampled.
    for entry in bob.roster.entries() {
        let bytes = entry.as_bytes();
        for position in (0..bytes.len())
            .step_by(61)
            .chain(bytes.len() - 130..bytes.len())
        {
            let mut changed = bytes.to_vec();
            changed[position] ^= 1;
            // The founding entry names its own keys: a change there makes another folder, at best.
            let accepted = RosterEntry::verified(changed)
                .is_ok_and(|changed| bob.roster.clone().add(changed).is_ok());
            assert!(!accepted, "byte {position}");
        }
        assert!(RosterEntry::verified(bytes[..bytes.len() - 1].to_vec()).is_err());
        assert!(RosterEntry::verified([bytes, &[0]].concat()).is_err());
    }
}

#[test]
fn children_wait_for_their_parents() {
    let mut rng = Seeded::new(20);
    let mut alice = Device::founder(&mut rng);
    let _bob = alice.admit(Role::Reader, "Bob", &mut rng);
    let entries: Vec<_> = alice.roster.entries().cloned().collect();
    let mut roster = Roster::new(alice.roster.folder());
    let added = roster.add(entries[2].clone()).unwrap();
    assert_eq!(
        added,
        Added::Pending {
            missing: vec![entries[1].id()]
        }
    );
    assert_eq!(roster.missing(), [entries[1].id()]);
    roster.add(entries[1].clone()).unwrap();
    assert_eq!(roster.missing(), [entries[0].id()]);
    let ids: Vec<_> = entries.iter().map(RosterEntry::id).collect();
    assert_eq!(roster.add(entries[0].clone()).unwrap(), Added::New(ids));
    assert_eq!(roster.add(entries[0].clone()).unwrap(), Added::Known);
    assert_eq!(roster.state(), alice.roster.state());
    assert_eq!(roster.entries_beyond(&[entries[1].id()]), [&entries[2]]);
    assert_eq!(
        roster
            .state_at(&[entries[0].id()])
            .unwrap()
            .members()
            .count(),
        1,
        "the past is as it was"
    );
    let unknown = CommitId::from_bytes([0; 32]);
    let unknown = ouisync_model::id::RosterEntryId::from_bytes(*unknown.as_bytes());
    assert_eq!(roster.state_at(&[unknown]), Err(vec![unknown]));
}

#[test]
fn only_owners_make_checkpoints() {
    let mut rng = Seeded::new(50);
    let mut alice = Device::founder(&mut rng);
    let bob = alice.admit(Role::Writer, "Bob", &mut rng);
    let refused = Standing::Refused(RefusedReason::MayNotCheckpoint);
    for (device, expected) in [(&alice, Standing::Accepted), (&bob, refused)] {
        let mut header = device.commit(1, &mut rng).header().clone();
        assert_eq!(
            alice.roster.standing(&header, |_| false),
            Standing::Accepted
        );
        header.checkpoint = Some(CheckpointDigest {
            commits: 1,
            skeleton: [0; 32],
        });
        assert_eq!(alice.roster.standing(&header, |_| false), expected);
    }
}
