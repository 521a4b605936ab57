//! Random histories of several owners with partial knowledge: every order of arrival gives the same state.

use ouisync_crypto::roster::{Roster, role::Role, statement::RosterEntry};

use crate::{roster::Device, seeded::Seeded};

/// A random history; gives all devices, none of which knows everything.
fn history(rng: &mut Seeded) -> Vec<Device> {
    let mut devices = vec![Device::founder(rng)];
    let mut links = Vec::new();
    for _ in 0..28 {
        let actor = rng.below(devices.len());
        let other = rng.below(devices.len());
        let role = [Role::Owner, Role::Owner, Role::Writer, Role::Safe][rng.below(4)];
        let members: Vec<_> = devices[actor]
            .roster
            .state()
            .members()
            .map(|member| member.member)
            .collect();
        let subject = members[rng.below(members.len())];
        let mut device = devices[actor].clone();
        let (identity, keys) = (device.identity.clone(), device.keys.clone());
        let entries = match rng.below(9) {
            0..=2 => {
                if device.roster.state().role(&device.id()) == Some(Role::Owner)
                    && device.roster.sealing_epoch(&keys).map(|known| known.0)
                        == device
                            .roster
                            .state()
                            .current_epoch()
                            .map(|epoch| epoch.epoch)
                {
                    links.push(device.invite(role, 1 + rng.below(2) as u32, rng));
                }
                Vec::new()
            }
            3..=4 => {
                if let Some(link) = links.get(rng.below(links.len().max(1))) {
                    let mut newcomer = device.newcomer(link, rng);
                    if let Ok(entry) = newcomer.roster.join(&newcomer.identity, link, "Somebody") {
                        newcomer.add(entry);
                        devices.push(newcomer);
                    }
                }
                Vec::new()
            }
            5 => device
                .roster
                .remove(&identity, &keys, &subject, vec![], rng)
                .unwrap_or_default(),
            6 => device
                .roster
                .set_role(&identity, &keys, &subject, role, vec![], rng)
                .unwrap_or_default(),
            7 => device
                .roster
                .rotate(&identity, &keys, rng)
                .into_iter()
                .collect(),
            _ => {
                let from = devices[other].clone();
                device.learn(&from);
                Vec::new()
            }
        };
        entries.into_iter().for_each(|entry| device.add(entry));
        devices[actor] = device;
    }
    devices
}

#[test]
fn any_order_of_arrival_gives_the_same_state() {
    let (mut entries, mut epochs, mut removed) = (0, 0, 0);
    for seed in 0..10 {
        let mut rng = Seeded::new(1000 + seed);
        let devices = history(&mut rng);
        let mut all: Vec<RosterEntry> = Vec::new();
        for device in &devices {
            for entry in device.roster.entries() {
                if !all.iter().any(|known| known.id() == entry.id()) {
                    all.push(entry.clone());
                }
            }
        }
        let add_all = |entries: &[RosterEntry]| {
            let mut roster = Roster::new(devices[0].roster.folder());
            for entry in entries.iter().chain(&entries[..entries.len() / 2]) {
                roster
                    .add(entry.clone())
                    .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            }
            roster
        };
        let expected = add_all(&all);
        assert_eq!(expected.entries().len(), all.len(), "seed {seed}");
        for _ in 0..4 {
            rng.shuffle(&mut all);
            let roster = add_all(&all);
            assert_eq!(roster.state(), expected.state(), "seed {seed}");
            assert_eq!(roster.heads(), expected.heads(), "seed {seed}");
            assert_eq!(
                roster.rotation_owed(),
                expected.rotation_owed(),
                "seed {seed}"
            );
        }
        // Whoever is a member keeps the founder as an owner: nobody is senior to it.
        let founder = devices[0].id();
        let removed_itself = expected.state().is_removed(&founder);
        assert!(
            removed_itself || expected.state().role(&founder).is_some(),
            "seed {seed}"
        );
        entries += all.len();
        epochs += expected.state().epochs().count();
        removed += devices
            .iter()
            .filter(|one| expected.state().is_removed(&one.id()))
            .count();
    }
    assert!(
        entries > 80 && epochs > 20 && removed > 3,
        "{entries} {epochs} {removed}"
    );
}
