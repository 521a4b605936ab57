//! Devices that give packs up, all at once and with everything that can go wrong in between: the wanted number of holders stays.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ouisync_crypto::possession::Nonce;
use ouisync_model::{id::PackId, operation::PackSize};
use ouisync_sync::{
    codec::{FolderMessage, Sample},
    facts::FolderFacts,
    folder::DropReason,
};
use ouisync_testkit::{
    facts::fake_pack,
    network::{LinkConfig, Network},
    seed::{Replay, seeds},
};
use rand::{RngExt, rngs::SmallRng};

const MINUTE: Duration = Duration::from_secs(60);

fn size(exponent: u8) -> PackSize {
    PackSize::from_exponent(exponent).unwrap()
}

/// What a device does about an order to give packs up.
struct Order {
    nonce: Nonce,
    samples: Vec<Sample>,
}

impl Order {
    /// Gives up all that the node holds and asks everybody.
    fn begin(network: &mut Network, node: usize, nonce: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&nonce.to_le_bytes());
        let nonce = Nonce(bytes);
        let sync = network.sync_mut(node);
        let packs = sync.facts_mut().begin_offload();
        sync.packs_offloaded(&packs);
        let samples: Vec<Sample> = packs
            .into_iter()
            .map(|pack| Sample {
                pack,
                groups: vec![0, 3],
            })
            .collect();
        let mut holders: BTreeMap<_, Vec<Sample>> = BTreeMap::new();
        for sample in &samples {
            for holder in sync.holders(&sample.pack) {
                holders.entry(holder).or_default().push(sample.clone());
            }
        }
        for (holder, samples) in holders {
            sync.challenge(holder, nonce, samples);
        }
        network.settle(node);
        Self { nonce, samples }
    }

    /// Drops what enough others have shown, and takes the rest back. Returns how many packs went.
    fn finish(self, network: &mut Network, node: usize, replicas: usize) -> usize {
        let answers = network.answers.clone();
        let sync = network.sync_mut(node);
        let (mut dropped, mut back) = (0, Vec::new());
        for sample in &self.samples {
            let facts = sync.facts().pack(&sample.pack);
            if !facts.is_some_and(|facts| facts.offloaded) {
                // A crash, or somebody who wanted it, took it back.
                continue;
            }
            let expected = sync.facts().show(&self.nonce, sample).unwrap();
            let shown: BTreeSet<usize> = answers
                .iter()
                .filter(|(asker, _, nonce, proofs)| {
                    *asker == node && *nonce == self.nonce && proofs.contains(&Some(expected))
                })
                .map(|(_, holder, ..)| *holder)
                .collect();
            if shown.len() >= replicas {
                sync.facts_mut().finish_offload(&sample.pack);
                dropped += 1;
            } else {
                sync.facts_mut().take_back(&sample.pack);
                back.push(sample.pack);
            }
        }
        sync.packs_taken_back(&back);
        network.settle(node);
        dropped
    }
}

fn holders(network: &Network, nodes: &[usize], pack: &PackId) -> usize {
    let has = |node: &&usize| network.sync(**node).facts().read(pack, 0, 1).is_some();
    nodes.iter().filter(has).count()
}

fn mesh(network: &mut Network, count: usize) -> Vec<usize> {
    let nodes: Vec<_> = (0..count).map(|_| network.add_node()).collect();
    for (index, node) in nodes.iter().enumerate() {
        for other in &nodes[..index] {
            network.connect(*node, *other, LinkConfig::default());
        }
    }
    nodes
}

fn settled(network: &Network) -> bool {
    network.converged() && network.all_acknowledged()
}

#[test]
fn an_offloaded_pack_is_lacking_and_not_waited_for() {
    let mut network = Network::new(1);
    let nodes = mesh(&mut network, 3);
    let packs = network.commit(nodes[0], &[size(2), size(0)]);
    assert!(network.run_until(MINUTE, settled));
    let order = Order::begin(&mut network, nodes[0], 1);
    network.run(Duration::from_secs(2));
    assert_eq!(order.finish(&mut network, nodes[0], 2), 2);
    let written = network.written(nodes[0]);
    // Others know that it lacks them and don't count it, and don't wait for it either.
    assert!(network.run_until(MINUTE, settled));
    let peer = network.peer_key(nodes[1], nodes[0]).unwrap();
    assert!(
        !network
            .sync(nodes[1])
            .holders(&packs[0])
            .any(|key| key == peer)
    );
    let status = network.sync(nodes[1]).peer_status(peer).unwrap();
    assert!(status.has_all && status.missing_bytes == 0, "{status:?}");
    // Also after everybody has met again, and when somebody new asks.
    network.crash(nodes[0]);
    network.crash(nodes[1]);
    let newcomer = network.add_node();
    network.connect(nodes[0], nodes[1], LinkConfig::default());
    network.connect(newcomer, nodes[0], LinkConfig::default());
    network.run(Duration::from_secs(3));
    assert_eq!(network.written(newcomer), 0, "who offloaded serves nothing");
    network.connect(newcomer, nodes[1], LinkConfig::default());
    assert!(network.run_until(MINUTE, settled));
    assert_eq!(network.written(newcomer), size(2).bytes() + size(0).bytes());
    assert_eq!(network.written(nodes[0]), written, "nothing was fetched");
    let peer = network.peer_key(newcomer, nodes[0]).unwrap();
    assert!(
        !network
            .sync(newcomer)
            .holders(&packs[1])
            .any(|key| key == peer)
    );
    // Wanted again it comes from the others, which know that it has it then.
    let sync = network.sync_mut(nodes[0]);
    sync.facts_mut().take_back(&packs[0]);
    sync.packs_taken_back(&packs[..1]);
    network.settle(nodes[0]);
    assert_eq!(network.sync(nodes[0]).missing_bytes(), size(2).bytes());
    assert!(network.run_until(MINUTE, settled));
    assert_eq!(network.written(nodes[0]), written + size(2).bytes());
    assert!(
        network
            .sync(newcomer)
            .holders(&packs[0])
            .any(|key| key == peer)
    );
}

#[test]
fn a_pack_that_is_added_again_stays_offloaded() {
    let mut network = Network::new(2);
    let nodes = mesh(&mut network, 2);
    let packs = network.commit(nodes[0], &[size(2)]);
    assert!(network.run_until(MINUTE, settled));
    let order = Order::begin(&mut network, nodes[0], 1);
    network.run(Duration::from_secs(1));
    assert_eq!(order.finish(&mut network, nodes[0], 1), 1);
    network.add_again(nodes[1], packs[0], size(2));
    assert!(network.run_until(MINUTE, settled));
    assert_eq!(network.written(nodes[0]), 0);
    // Away from each other while it happens, too.
    network.cut(nodes[0], nodes[1]);
    network.add_again(nodes[1], packs[0], size(2));
    network.commit(nodes[0], &[]);
    network.connect(nodes[0], nodes[1], LinkConfig::default());
    assert!(network.run_until(MINUTE, settled));
    assert_eq!(network.written(nodes[0]), 0);
}

#[test]
fn of_devices_that_give_up_at_once_enough_keep_their_copy() {
    for replicas in 1..4 {
        let mut network = Network::new(3);
        let nodes = mesh(&mut network, 4);
        let packs = network.commit(nodes[0], &[size(0), size(3)]);
        assert!(network.run_until(MINUTE, settled));
        let orders: Vec<_> = nodes
            .iter()
            .map(|node| (*node, Order::begin(&mut network, *node, *node as u64)))
            .collect();
        network.run(Duration::from_secs(2));
        for (node, order) in orders {
            assert_eq!(order.finish(&mut network, node, replicas), 0);
        }
        // Everybody hears that everybody holds it again.
        network.run(Duration::from_secs(2));
        assert!(settled(&network));
        // One after the other they may, until just enough are left.
        let mut gone = 0;
        for node in &nodes {
            let order = Order::begin(&mut network, *node, 100 + *node as u64);
            network.run(Duration::from_secs(2));
            gone += order.finish(&mut network, *node, replicas);
        }
        assert_eq!(gone, packs.len() * (nodes.len() - replicas));
        for pack in &packs {
            assert_eq!(holders(&network, &nodes, pack), replicas);
        }
    }
}

/// Any of the things that may happen meanwhile.
fn disturb(network: &mut Network, nodes: &[usize], packs: &[PackId]) {
    let random = |rng: &mut SmallRng| nodes[rng.random_range(0..nodes.len())];
    let (a, b) = (random(&mut network.rng), random(&mut network.rng));
    match network.rng.random_range(0..8) {
        0 => network.crash(a),
        1 if a != b => network.cut(a, b),
        2 => {
            let pack = packs[network.rng.random_range(0..packs.len())];
            let sync = network.sync_mut(a);
            sync.facts_mut().take_back(&pack);
            sync.packs_taken_back(&[pack]);
            network.settle(a);
        }
        _ if a != b => {
            let config = LinkConfig::random(&mut network.rng);
            network.connect(a, b, config);
        }
        _ => {}
    }
}

#[test]
fn whatever_happens_the_wanted_number_of_holders_stays() {
    let mut dropped = 0;
    for seed in seeds(40) {
        let _replay = Replay(seed);
        let mut network = Network::new(seed);
        let count = network.rng.random_range(2..6);
        let replicas = network.rng.random_range(1..count);
        let nodes = mesh(&mut network, count);
        let packs = network.commit(nodes[0], &[size(0), size(1), size(0)]);
        assert!(network.run_until(MINUTE, settled));
        let mut orders: BTreeMap<usize, Order> = BTreeMap::new();
        for step in 0..80 {
            let node = nodes[network.rng.random_range(0..count)];
            match (network.rng.random_range(0..4), orders.remove(&node)) {
                (0, order) => {
                    orders.extend(order.map(|order| (node, order)));
                    disturb(&mut network, &nodes, &packs);
                }
                (_, None) => {
                    orders.insert(node, Order::begin(&mut network, node, step));
                }
                (1, Some(order)) => dropped += order.finish(&mut network, node, replicas),
                (_, order) => orders.extend(order.map(|order| (node, order))),
            }
            for pack in &packs {
                let left = holders(&network, &nodes, pack);
                assert!(left >= replicas, "seed {seed}: {left} of {replicas}");
            }
            let pause = Duration::from_millis(network.rng.random_range(0..300));
            network.run(pause);
        }
        assert!(network.dropped.is_empty(), "{:?}", network.dropped);
    }
    assert!(dropped > 50, "only {dropped} packs were ever dropped");
}

#[test]
fn only_what_is_held_is_shown() {
    let mut network = Network::new(4);
    let nodes = mesh(&mut network, 2);
    let packs = network.commit(nodes[0], &[size(1), size(1)]);
    assert!(network.run_until(MINUTE, settled));
    network.release(nodes[0], packs[1]);
    assert!(network.run_until(MINUTE, settled));
    let (unknown, ..) = fake_pack(size(0), 99);
    let ask = |network: &mut Network, nonce: u8, asked: &[(PackId, &[u16])]| {
        let key = network.peer_key(nodes[0], nodes[1]).unwrap();
        let mut samples: Vec<_> = asked
            .iter()
            .map(|(pack, groups)| Sample {
                pack: *pack,
                groups: groups.to_vec(),
            })
            .collect();
        samples.sort();
        let (nonce, sync) = (Nonce([nonce; 32]), network.sync_mut(nodes[0]));
        sync.challenge(key, nonce, samples.clone());
        network.settle(nodes[0]);
        network.run(Duration::from_secs(1));
        let (.., proofs) = network.answers.pop().filter(|(.., of, _)| *of == nonce)?;
        let packs = samples.into_iter().map(|sample| sample.pack);
        let shown: BTreeMap<_, _> = packs.zip(proofs).collect();
        Some(
            asked
                .iter()
                .map(|(pack, _)| shown[pack])
                .collect::<Vec<_>>(),
        )
    };
    let facts = network.sync(nodes[1]).facts();
    let sample = Sample {
        pack: packs[0],
        groups: vec![2, 7],
    };
    let right = facts.show(&Nonce([1; 32]), &sample).unwrap();
    // A pack that isn't live may go at any time, and a group outside of its pack is none.
    let asked = [(packs[0], &[2, 7][..]), (packs[1], &[0]), (unknown, &[0])];
    let proofs = ask(&mut network, 1, &asked).unwrap();
    assert_eq!(proofs, [Some(right), None, None]);
    let outside = [(packs[0], &[2, 8][..])];
    assert_eq!(ask(&mut network, 5, &outside).unwrap(), [None]);
    network.sync_mut(nodes[1]).pause();
    assert_eq!(ask(&mut network, 2, &asked[..1]).unwrap(), [None]);
    network.sync_mut(nodes[1]).resume();
    assert!(ask(&mut network, 3, &asked[..1]).unwrap()[0].is_some());
    for wrong in [
        &[(packs[0], &[3, 3][..])][..],
        &[(packs[0], &[])],
        &[(packs[0], &[1]), (packs[0], &[2])],
    ] {
        assert!(ask(&mut network, 4, wrong).is_none());
        let (.., reason) = network.dropped.pop().unwrap();
        assert_eq!(reason, DropReason::ImpossibleChallenge);
        network.connect(nodes[0], nodes[1], LinkConfig::default());
        network.run(Duration::from_secs(1));
    }
}

#[test]
fn an_answer_that_was_not_asked_for_is_the_hosts_to_pass_over() {
    let mut network = Network::new(5);
    let nodes = mesh(&mut network, 2);
    network.run(Duration::from_secs(1));
    let key = network.peer_key(nodes[0], nodes[1]).unwrap();
    let message = FolderMessage::Possession {
        nonce: Nonce([1; 32]),
        proofs: vec![None],
    };
    network.sync_mut(nodes[0]).message(key, message);
    network.settle(nodes[0]);
    assert_eq!(network.answers.len(), 1);
    assert!(network.dropped.is_empty());
}
