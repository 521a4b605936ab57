//! Starting from checkpoints, in virtual time.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use ouisync_model::operation::PackSize;
use ouisync_sync::{
    facts::FolderFacts,
    folder::{DropReason, Limits},
};
use ouisync_testkit::{
    network::{LinkConfig, Network},
    seed::{Replay, seeds},
};
use rand::RngExt;

fn size(exponent: u8) -> PackSize {
    PackSize::from_exponent(exponent).expect("valid class")
}

const MINUTE: Duration = Duration::from_secs(60);

fn cut(network: &mut Network, node: usize) {
    network.sync_mut(node).facts_mut().cut();
}

fn settled(network: &Network) -> bool {
    network.converged() && network.all_acknowledged()
}

/// An owner with some history, a checkpoint of it, one commit more, all of it at a safe that cut.
fn owner_and_safe(network: &mut Network) -> (usize, usize) {
    owner_and_safe_with(network, Limits::default())
}

fn owner_and_safe_with(network: &mut Network, limits: Limits) -> (usize, usize) {
    let (owner, safe) = (network.add_node_with(limits), network.add_node_with(limits));
    network.connect(owner, safe, LinkConfig::default());
    let packs = network.commit(owner, &[size(0), size(1)]);
    for _ in 0..30 {
        network.commit(owner, &[size(0)]);
    }
    network.release(owner, packs[0]);
    assert!(network.run_until(MINUTE, settled));
    network.checkpoint(owner, |_| {});
    network.commit(owner, &[size(1)]);
    assert!(network.run_until(MINUTE, settled));
    cut(network, safe);
    assert_eq!(network.sync(safe).facts().commits_with_bytes(), 2);
    (owner, safe)
}

#[test]
fn a_newcomer_starts_from_a_checkpoint_at_a_safe_that_cut() {
    let mut network = Network::new(1);
    let (owner, safe) = owner_and_safe(&mut network);
    network.cut(owner, safe);
    let newcomer = network.add_node();
    network.connect(newcomer, safe, LinkConfig::default());
    assert!(network.run_until(MINUTE, settled));
    let facts = network.sync(newcomer).facts();
    assert_eq!(facts.commits_with_bytes(), 2);
    assert_eq!(facts.commit_ids(), network.sync(owner).facts().commit_ids());
    // It serves another one in turn, and goes on as everybody does.
    let second = network.add_node();
    network.connect(newcomer, second, LinkConfig::default());
    network.commit(newcomer, &[size(0)]);
    network.commit(owner, &[size(2)]);
    network.connect(owner, safe, LinkConfig::default());
    assert!(network.run_until(MINUTE, settled));
    assert!(network.dropped.is_empty(), "{:?}", network.dropped);
}

#[test]
fn a_newcomer_gets_all_commits_of_who_has_them_if_they_are_not_too_many() {
    let mut network = Network::new(12);
    let (owner, safe) = owner_and_safe(&mut network);
    network.cut(owner, safe);
    let newcomer = network.add_node();
    network.connect(owner, newcomer, LinkConfig::default());
    assert!(network.run_until(MINUTE, settled));
    let facts = network.sync(newcomer).facts();
    assert_eq!(facts.commits_with_bytes(), facts.commit_ids().len());
    assert!(facts.commit_ids().len() > 30);
}

#[test]
fn a_newcomer_takes_the_checkpoint_also_of_who_has_everything() {
    let mut network = Network::new(2);
    let limits = Limits {
        replay: 0,
        ..Limits::default()
    };
    let (owner, safe) = owner_and_safe_with(&mut network, limits);
    let newcomer = network.add_node();
    // Both offer it at once.
    network.connect(newcomer, safe, LinkConfig::default());
    network.connect(owner, newcomer, LinkConfig::default());
    assert!(network.run_until(MINUTE, settled));
    assert_eq!(network.sync(newcomer).facts().commits_with_bytes(), 2);
    assert!(network.dropped.is_empty(), "{:?}", network.dropped);
}

#[test]
fn who_has_some_commits_gets_the_others_as_long_as_there_are_bytes() {
    let mut network = Network::new(3);
    let (owner, _) = owner_and_safe(&mut network);
    let late = network.add_node();
    network.commit(late, &[size(0)]);
    network.connect(late, owner, LinkConfig::default());
    assert!(network.run_until(MINUTE, settled));
    assert_eq!(network.sync(late).facts().commits_with_bytes(), 35);
}

#[test]
fn a_device_that_was_away_keeps_its_unsent_commits() {
    let mut network = Network::new(4);
    let (owner, safe) = (network.add_node(), network.add_node());
    let away = network.add_node();
    network.connect(owner, safe, LinkConfig::default());
    network.connect(away, safe, LinkConfig::default());
    network.commit(owner, &[size(0); 3]);
    network.commit(away, &[size(0)]);
    assert!(network.run_until(MINUTE, settled));
    network.cut(away, safe);
    network.run(Duration::from_secs(1));
    let own = network.commit(away, &[size(1), size(0)]);
    network.commit(away, &[]);
    for _ in 0..20 {
        network.commit(owner, &[size(0)]);
    }
    network.checkpoint(owner, |_| {});
    network.commit(owner, &[size(0)]);
    assert!(
        network.run_until(MINUTE, |network| network.all_acknowledged()
            && network.sync(safe).missing_bytes() == 0)
    );
    cut(&mut network, safe);
    cut(&mut network, owner);
    network.connect(away, safe, LinkConfig::default());
    assert!(network.run_until(MINUTE, settled));
    let live = network.sync(owner).facts().live_packs();
    assert!(own.iter().all(|pack| live.contains(pack)));
    assert_eq!(network.sync(owner).facts().commit_ids().len(), 26);
    assert!(network.dropped.is_empty(), "{:?}", network.dropped);
}

#[test]
fn a_fork_shows_through_a_checkpoint() {
    for (extra, seed) in [(0, 5), (1, 6), (3, 7)] {
        let _replay = Replay(seed);
        let mut network = Network::new(seed);
        let (owner, safe) = (network.add_node(), network.add_node());
        network.connect(owner, safe, LinkConfig::default());
        network.commit(owner, &[size(0)]);
        let restored = network.add_node();
        network.connect(restored, safe, LinkConfig::default());
        assert!(network.run_until(MINUTE, settled));
        // A restored copy of the owner's device writes on under its key, unseen.
        network.cut(restored, safe);
        network.run(Duration::from_secs(1));
        network.set_author(restored, network.author(owner));
        for _ in 0..=extra {
            network.commit(restored, &[size(0)]);
        }
        for _ in 0..5 {
            network.commit(owner, &[size(0)]);
        }
        network.checkpoint(owner, |_| {});
        assert!(
            network.run_until(MINUTE, |network| network.sync(safe).missing_bytes() == 0
                && network.sync(owner).facts().commit_ids()
                    == network.sync(safe).facts().commit_ids())
        );
        cut(&mut network, safe);
        network.connect(restored, safe, LinkConfig::default());
        let mut done = false;
        for _ in 0..3 {
            done = done || network.run_until(MINUTE, settled);
            for (a, b, reason) in std::mem::take(&mut network.dropped) {
                let orphan = DropReason::RefusedCommit("parent missing".into());
                assert_eq!(reason, orphan);
                network.connect(a, b, LinkConfig::default());
            }
        }
        assert!(done, "seed {seed}");
        let author = network.author(owner);
        assert!(network.sync(safe).facts().is_forked(&author));
        // A newcomer hears of both branches.
        let newcomer = network.add_node();
        network.connect(newcomer, safe, LinkConfig::default());
        assert!(network.run_until(MINUTE, settled), "seed {seed}");
        assert_eq!(network.sync(newcomer).facts().commit_ids().len(), 8 + extra);
    }
}

#[test]
fn two_checkpoints_at_once_do_no_harm() {
    let mut network = Network::new(8);
    let (one, two) = (network.add_node(), network.add_node());
    network.connect(one, two, LinkConfig::default());
    for _ in 0..5 {
        network.commit(one, &[size(0)]);
        network.commit(two, &[size(0)]);
        network.run(Duration::from_secs(1));
    }
    assert!(network.run_until(MINUTE, settled));
    network.cut(one, two);
    network.run(Duration::from_secs(1));
    network.commit(one, &[size(0)]);
    network.commit(two, &[size(0)]);
    network.checkpoint(one, |_| {});
    network.checkpoint(two, |_| {});
    network.connect(one, two, LinkConfig::default());
    assert!(network.run_until(MINUTE, settled));
    cut(&mut network, one);
    cut(&mut network, two);
    let newcomer = network.add_node();
    network.connect(newcomer, one, LinkConfig::default());
    network.connect(newcomer, two, LinkConfig::default());
    assert!(network.run_until(MINUTE, settled));
    // A later checkpoint covers both.
    network.checkpoint(two, |_| {});
    assert!(network.run_until(MINUTE, settled));
    for node in [one, two, newcomer] {
        cut(&mut network, node);
        assert_eq!(network.sync(node).facts().commits_with_bytes(), 1);
    }
    let last = network.add_node();
    network.connect(last, newcomer, LinkConfig::default());
    assert!(network.run_until(MINUTE, settled));
    assert!(network.dropped.is_empty(), "{:?}", network.dropped);
}

#[test]
fn a_false_checkpoint_is_never_started_from() {
    for wrong in 0..3 {
        let mut network = Network::new(9);
        let limits = Limits {
            replay: 0,
            ..Limits::default()
        };
        let (owner, safe) = (network.add_node(), network.add_node_with(limits));
        network.connect(owner, safe, LinkConfig::default());
        for _ in 0..5 {
            network.commit(owner, &[size(0)]);
        }
        assert!(network.run_until(MINUTE, settled));
        network.checkpoint(owner, |commit| {
            let header = commit.checkpoint.as_mut().expect("a checkpoint");
            match wrong {
                0 => header.skeleton[0] ^= 1,
                1 => header.commits += 1,
                _ => header.owner = false,
            }
        });
        assert!(network.run_until(MINUTE, settled));
        if wrong != 1 {
            cut(&mut network, safe);
            assert_eq!(network.sync(safe).facts().commits_with_bytes(), 6);
        }
        let newcomer = network.add_node();
        network.connect(newcomer, safe, LinkConfig::default());
        if wrong == 1 {
            // Only a faulty safe would offer it.
            network.run(MINUTE);
            assert!(matches!(
                network.dropped.as_slice(),
                [(_, _, DropReason::RefusedCheckpoint(_))]
            ));
            assert!(network.sync(newcomer).facts().commit_ids().is_empty());
        } else {
            assert!(network.run_until(MINUTE, settled));
            assert_eq!(network.sync(newcomer).facts().commits_with_bytes(), 6);
        }
    }
}

#[test]
fn a_broken_transfer_begins_again() {
    let mut network = Network::new(10);
    let (owner, safe) = (network.add_node(), network.add_node());
    network.connect(owner, safe, LinkConfig::default());
    for _ in 0..300 {
        network.commit(owner, &[]);
    }
    network.checkpoint(owner, |_| {});
    assert!(network.run_until(MINUTE, settled));
    cut(&mut network, safe);
    let newcomer = network.add_node();
    let slow = LinkConfig {
        bandwidth: 10 << 10,
        ..LinkConfig::default()
    };
    for round in 0..6 {
        network.connect(newcomer, safe, slow);
        network.run(Duration::from_millis(500));
        if round % 2 == 0 {
            network.crash(newcomer);
        } else {
            network.cut(newcomer, safe);
        }
        network.run(Duration::from_millis(50));
    }
    assert!(network.sync(newcomer).facts().commit_ids().is_empty());
    network.connect(newcomer, safe, LinkConfig::default());
    assert!(network.run_until(MINUTE, settled));
}

#[test]
fn another_peer_goes_on_when_one_stalls() {
    let mut network = Network::new(11);
    let (owner, safe) = owner_and_safe(&mut network);
    let newcomer = network.add_node();
    let stuck = LinkConfig {
        bandwidth: 20,
        ..LinkConfig::default()
    };
    network.connect(newcomer, owner, stuck);
    network.run(MINUTE);
    network.connect(newcomer, safe, LinkConfig::default());
    assert!(network.run_until(3 * MINUTE, |network| {
        network.sync(newcomer).facts().commit_ids().len() == 34
    }));
}

#[test]
fn swarms_that_cut_converge() {
    for seed in seeds(8) {
        let _replay = Replay(seed);
        let mut network = Network::new(seed);
        let nodes: Vec<_> = (0..6).map(|_| network.add_node()).collect();
        for _ in 0..60 {
            let (a, b) = (
                network.rng.random_range(0..6),
                network.rng.random_range(0..6),
            );
            match network.rng.random_range(0..12) {
                0..4 if a != b => {
                    let config = LinkConfig::random(&mut network.rng);
                    network.connect(nodes[a], nodes[b], config);
                }
                4 => network.cut(nodes[a], nodes[b]),
                5 if network.rng.random_bool(0.4) => network.crash(nodes[a]),
                6 => {
                    let live = network.sync(nodes[a]).facts().live_packs();
                    if live.len() > 6 {
                        let index = network.rng.random_range(0..live.len());
                        network.release(nodes[a], *live.iter().nth(index).unwrap());
                    }
                }
                // One owner, so that checkpoints follow each other.
                7 => network.checkpoint(nodes[0], |_| {}),
                8 => cut(&mut network, nodes[a]),
                _ => {
                    let count = network.rng.random_range(0..4);
                    let sizes: Vec<_> = (0..count)
                        .map(|_| size(network.rng.random_range(0..3)))
                        .collect();
                    network.commit(nodes[a], &sizes);
                }
            }
            let pause = Duration::from_millis(network.rng.random_range(0..400));
            network.run(pause);
        }
        for node in 1..6 {
            let hub = network.rng.random_range(0..node);
            network.connect(nodes[hub], nodes[node], LinkConfig::default());
        }
        let done = network.run_until(5 * MINUTE, settled);
        let status: Vec<_> = nodes
            .iter()
            .map(|node| {
                let sync = network.sync(*node);
                let peers: Vec<_> = sync.peers().map(|peer| sync.peer_status(peer)).collect();
                (
                    sync.missing_bytes(),
                    sync.we_have_all_announced(),
                    sync.facts().commit_ids().len(),
                    sync.facts().commits_with_bytes(),
                    peers,
                )
            })
            .collect();
        assert!(
            done && network.dropped.is_empty(),
            "seed {seed}: {:?} {status:#?}",
            network.dropped
        );
    }
}

/// A newcomer that started from the checkpoint at a safe that cut, and wants what was before.
fn newcomer(network: &mut Network, safe: usize) -> usize {
    let newcomer = network.add_node();
    network.connect(newcomer, safe, LinkConfig::default());
    assert!(network.run_until(MINUTE, settled));
    let sync = network.sync_mut(newcomer);
    let before = sync.facts().commits_without_bytes();
    assert_eq!(before.len(), 32);
    sync.want_past(before);
    newcomer
}

#[test]
fn commits_of_the_past_come_from_whoever_holds_them() {
    let mut network = Network::new(12);
    let (owner, safe) = owner_and_safe(&mut network);
    let newcomer = newcomer(&mut network, safe);
    network.run(Duration::from_secs(5));
    let sync = network.sync(newcomer);
    assert_eq!(sync.past_coming(), 0, "the safe said that it has none");
    assert_eq!(sync.facts().commits_without_bytes().len(), 32);
    // What is new goes on meanwhile.
    network.commit(owner, &[size(1)]);
    network.connect(owner, newcomer, LinkConfig::default());
    let all_here = |network: &Network| network.sync(newcomer).facts().commits_without_bytes();
    assert!(network.run_until(MINUTE, |network| all_here(network).is_empty()));
    assert!(network.run_until(MINUTE, settled));
    assert!(network.dropped.is_empty(), "{:?}", network.dropped);
}

#[test]
fn commits_of_the_past_survive_broken_connections_and_stalls() {
    let mut network = Network::new(13);
    let (owner, safe) = owner_and_safe(&mut network);
    let newcomer = newcomer(&mut network, safe);
    let stuck = LinkConfig {
        bandwidth: 20,
        ..LinkConfig::default()
    };
    network.connect(owner, newcomer, stuck);
    network.run(2 * MINUTE);
    network.cut(owner, newcomer);
    assert_eq!(network.sync(newcomer).past_coming(), 0);
    let other = network.add_node();
    network.connect(other, owner, LinkConfig::default());
    network.commit(other, &[]);
    network.connect(owner, newcomer, LinkConfig::default());
    assert!(network.run_until(3 * MINUTE, |network| {
        network
            .sync(newcomer)
            .facts()
            .commits_without_bytes()
            .is_empty()
    }));
    assert!(network.dropped.is_empty(), "{:?}", network.dropped);
}
