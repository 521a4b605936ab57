//! Pairs and swarms in virtual time.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use ouisync_model::{
    id::{MemberId, PackId},
    operation::PackSize,
};
use ouisync_sync::{
    codec::{Blob, Chain, FolderMessage},
    facts::FolderFacts,
    folder::{DropReason, FolderSync, Limits, Output, PeerKey, Rights},
};
use ouisync_testkit::{
    facts::MemoryFacts,
    network::{LinkConfig, Network},
    seed::{Replay, seeds},
};
use rand::RngExt;

fn size(exponent: u8) -> PackSize {
    PackSize::from_exponent(exponent).expect("valid class")
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn pair_syncs_both_ways_and_live() {
    let mut network = Network::new(1);
    let (alice, bob) = (network.add_node(), network.add_node());
    network.commit(alice, &[size(0), size(3)]);
    network.commit(bob, &[size(1)]);
    network.commit(bob, &[]);
    network.connect(alice, bob, LinkConfig::default());
    assert!(network.run_until(MINUTE, |network| network.converged()
        && network.all_acknowledged()));
    assert_eq!(network.sync(alice).facts().commit_ids().len(), 3);
    assert_eq!(network.written(bob), size(0).bytes() + size(3).bytes());

    let packs = network.commit(alice, &[size(0)]);
    let peer = network.peer_key(alice, bob).expect("connected");
    assert!(!network.sync(alice).peer_has_all_of_ours(peer));
    assert_eq!(
        network
            .sync(alice)
            .peer_status(peer)
            .expect("peer")
            .missing_bytes,
        size(0).bytes()
    );
    let start = network.now;
    assert!(network.run_until(MINUTE, |network| network.converged()));
    assert!(
        network.now - start < Duration::from_millis(200),
        "live push took {:?}",
        network.now - start
    );
    assert!(network.sync(bob).facts().live_packs().contains(&packs[0]));
    assert!(network.run_until(MINUTE, Network::all_acknowledged));
}

#[test]
fn status_is_never_complete_early() {
    let mut network = Network::new(2);
    let (alice, bob) = (network.add_node(), network.add_node());
    network.commit(alice, &[size(2); 5]);
    network.connect(alice, bob, LinkConfig::default());
    let done = network.run_until(MINUTE, |network| {
        let key = network.peer_key(alice, bob).expect("connected");
        let complete = network.sync(alice).peer_has_all_of_ours(key);
        if complete {
            let facts = network.sync(bob).facts();
            assert_eq!(facts.live_packs().len(), 5);
            assert!(facts.undurable_packs().is_empty() && facts.missing_packs().is_empty());
        }
        complete
    });
    assert!(done);
}

#[test]
fn released_packs_are_forgotten() {
    let mut network = Network::new(3);
    let (alice, bob) = (network.add_node(), network.add_node());
    let packs = network.commit(alice, &[size(2), size(0)]);
    network.release(alice, packs[0]);
    network.connect(alice, bob, LinkConfig::default());
    assert!(network.run_until(MINUTE, |network| network.converged()
        && network.all_acknowledged()));
    assert_eq!(network.sync(bob).facts().live_packs().len(), 1);
}

#[test]
fn roster_reaches_every_node_before_commits() {
    let mut network = Network::new(4);
    let nodes: Vec<_> = (0..3).map(|_| network.add_node()).collect();
    network.connect(nodes[0], nodes[1], LinkConfig::default());
    network.connect(nodes[1], nodes[2], LinkConfig::default());
    network.sync_mut(nodes[0]).facts_mut().add_entry(7);
    network.sync_mut(nodes[0]).roster_changed();
    network.settle(nodes[0]);
    network.sync_mut(nodes[2]).facts_mut().add_entry(8);
    network.sync_mut(nodes[2]).roster_changed();
    network.commit(nodes[2], &[size(0)]);
    assert!(network.run_until(MINUTE, |network| network.converged()
        && network.all_acknowledged()));
    let heads = network.sync(nodes[0]).facts().roster_heads();
    assert_eq!(heads.len(), 2);
    for node in nodes {
        assert_eq!(network.sync(node).facts().roster_heads(), heads);
    }
}

#[test]
fn both_branches_of_a_fork_are_exchanged() {
    for (extra, seed) in [(0, 5), (3, 6), (1, 7)] {
        let mut network = Network::new(seed);
        let nodes: Vec<_> = (0..3).map(|_| network.add_node()).collect();
        let author = network.author(nodes[0]);
        network.commit(nodes[0], &[size(0)]);
        network.commit(nodes[0], &[size(0)]);
        network.connect(nodes[0], nodes[1], LinkConfig::default());
        network.connect(nodes[1], nodes[2], LinkConfig::default());
        assert!(network.run_until(MINUTE, Network::converged));
        // A restored copy of the first device writes on under the same key.
        network.cut(nodes[0], nodes[1]);
        network.run(Duration::from_secs(1));
        network.set_author(nodes[2], author);
        network.commit(nodes[2], &[size(0)]);
        for _ in 0..=extra {
            network.commit(nodes[0], &[size(1)]);
        }
        assert!(
            network.run_until(MINUTE, |network| network.sync(nodes[1]).missing_bytes()
                == 0)
        );
        network.connect(nodes[0], nodes[1], LinkConfig::default());
        assert!(
            network.run_until(MINUTE, |network| network.converged()
                && network.all_acknowledged()),
            "seed {seed}"
        );
        assert_eq!(network.sync(nodes[0]).facts().commit_ids().len(), 4 + extra);
        assert!(network.sync(nodes[2]).facts().is_forked(&author));
        // And on from there.
        network.commit(nodes[1], &[size(0)]);
        network.commit(nodes[0], &[]);
        assert!(
            network.run_until(MINUTE, |network| network.converged()
                && network.all_acknowledged()),
            "seed {seed}"
        );
    }
}

#[test]
fn who_lacks_the_roster_is_not_dropped_for_a_fork() {
    let mut network = Network::new(8);
    let nodes: Vec<_> = (0..2).map(|_| network.add_node()).collect();
    let author = network.author(nodes[0]);
    network.set_author(nodes[1], author);
    network.commit(nodes[0], &[size(0)]);
    network.commit(nodes[1], &[size(0)]);
    network.connect(nodes[0], nodes[1], LinkConfig::default());
    assert!(network.run_until(MINUTE, Network::converged));
    assert!(network.sync(nodes[0]).facts().is_forked(&author));
    // The one that a restored device takes its new key by, say.
    network.sync_mut(nodes[0]).facts_mut().add_entry(7);
    network.sync_mut(nodes[0]).roster_changed();
    network.settle(nodes[0]);
    let behind = network.add_node();
    network.connect(nodes[0], behind, LinkConfig::default());
    assert!(network.run_until(MINUTE, |network| network.converged()
        && network.all_acknowledged()));
    assert!(network.sync(behind).facts().is_forked(&author));
}

#[test]
fn swarms_converge_over_partitions_and_crashes() {
    for seed in seeds(18) {
        let _replay = Replay(seed);
        let mut network = Network::new(seed);
        let nodes: Vec<_> = (0..8).map(|_| network.add_node()).collect();
        for _ in 0..60 {
            let (a, b) = (
                network.rng.random_range(0..8),
                network.rng.random_range(0..8),
            );
            match network.rng.random_range(0..10) {
                0..4 if a != b => {
                    let config = LinkConfig::random(&mut network.rng);
                    network.connect(nodes[a], nodes[b], config);
                }
                4 => network.cut(nodes[a], nodes[b]),
                5 if network.rng.random_bool(0.4) => network.crash(nodes[a]),
                6 => {
                    let live: Vec<_> = network
                        .sync(nodes[a])
                        .facts()
                        .live_packs()
                        .into_iter()
                        .collect();
                    if live.len() > 6 {
                        let index = network.rng.random_range(0..live.len());
                        network.release(nodes[a], live[index]);
                    }
                }
                // A device that was cloned writes under the other's key.
                7 if seed % 3 == 0 && network.rng.random_bool(0.2) => {
                    let author = network.author(nodes[b]);
                    network.set_author(nodes[a], author);
                }
                _ => {
                    let count = network.rng.random_range(0..4);
                    let sizes: Vec<_> = (0..count)
                        .map(|_| size(network.rng.random_range(0..5)))
                        .collect();
                    network.commit(nodes[a], &sizes);
                }
            }
            let pause = Duration::from_millis(network.rng.random_range(0..400));
            network.run(pause);
        }
        for node in 1..8 {
            let hub = network.rng.random_range(0..node);
            network.connect(nodes[hub], nodes[node], LinkConfig::default());
        }
        // While a fork shows, an honest peer can be one commit short of what it is taken to have; connecting again heals it.
        let forks = nodes.iter().any(|node| {
            let facts = network.sync(*node).facts();
            facts
                .chains()
                .iter()
                .any(|chain| facts.is_forked(&chain.author))
        });
        let mut done = false;
        for _ in 0..4 {
            done = done
                || network.run_until(5 * MINUTE, |network| {
                    network.converged() && network.all_acknowledged()
                });
            if forks && !done {
                for (a, b, _) in std::mem::take(&mut network.dropped) {
                    network.connect(a, b, LinkConfig::default());
                }
            }
        }
        let status: Vec<_> = nodes
            .iter()
            .map(|node| {
                let sync = network.sync(*node);
                let peers: Vec<_> = sync.peers().map(|peer| sync.peer_status(peer)).collect();
                (
                    sync.missing_bytes(),
                    sync.we_have_all_announced(),
                    sync.facts().commit_ids().len(),
                    peers,
                )
            })
            .collect();
        assert!(
            done,
            "no convergence with seed {seed}: {:?} {status:?}",
            network.dropped
        );
        let orphan = DropReason::RefusedCommit("parent missing".into());
        let honest = network
            .dropped
            .iter()
            .all(|(.., reason)| forks && *reason == orphan);
        assert!(honest, "seed {seed}: {:?}", network.dropped);
    }
}

#[test]
fn download_uses_several_peers() {
    let mut network = Network::new(8);
    let nodes: Vec<_> = (0..4).map(|_| network.add_node()).collect();
    network.commit(nodes[0], &[size(6); 6]);
    network.connect(nodes[0], nodes[1], LinkConfig::default());
    network.connect(nodes[0], nodes[2], LinkConfig::default());
    assert!(
        network.run_until(MINUTE, |network| network.sync(nodes[1]).missing_bytes()
            == 0
            && network.sync(nodes[2]).missing_bytes() == 0
            && network.all_acknowledged())
    );
    let slow = LinkConfig {
        bandwidth: 4 << 20,
        ..LinkConfig::default()
    };
    for node in 0..3 {
        network.connect(nodes[node], nodes[3], slow);
    }
    let start = network.now;
    assert!(network.run_until(MINUTE, |network| network.converged()
        && network.sync(nodes[3]).missing_bytes() == 0
        && network.sync(nodes[3]).facts().live_packs().len() == 6));
    let total = 6 * size(6).bytes();
    let took = network.now - start;
    assert!(
        took < Duration::from_secs(total / (4 << 20) * 6 / 10),
        "took {took:?}"
    );
    let carried: Vec<u64> = (0..3)
        .map(|node| network.carried[&(nodes[node], nodes[3])].bulk)
        .collect();
    assert!(
        carried.iter().all(|bytes| *bytes > total / 5),
        "{carried:?}"
    );
    assert!(
        carried.iter().sum::<u64>() <= total + total / 10,
        "{carried:?}"
    );
}

#[test]
fn resume_fetches_nothing_twice() {
    let mut network = Network::new(9);
    let (alice, bob) = (network.add_node(), network.add_node());
    network.commit(alice, &[size(8), size(7)]);
    let slow = LinkConfig {
        bandwidth: 2 << 20,
        ..LinkConfig::default()
    };
    let total = size(8).bytes() + size(7).bytes();
    for _ in 0..4 {
        network.connect(alice, bob, slow);
        network.run(Duration::from_millis(2100));
        network.cut(alice, bob);
        network.run(Duration::from_millis(100));
    }
    let before = network.written(bob);
    assert!(before > total / 4 && before < total, "{before}");
    network.crash(bob);
    network.connect(alice, bob, slow);
    assert!(network.run_until(MINUTE, |network| network.converged()
        && network.all_acknowledged()));
    // A pack that was complete and not durable may be lost in the crash; these cuts end inside packs.
    assert_eq!(network.written(bob), total);
}

#[test]
fn a_safe_relays_while_it_receives() {
    let mut network = Network::new(10);
    let (alice, safe, bob) = (network.add_node(), network.add_node(), network.add_node());
    network.connect(safe, bob, LinkConfig::default());
    network.connect(
        alice,
        safe,
        LinkConfig {
            bandwidth: 8 << 20,
            ..LinkConfig::default()
        },
    );
    network.run(Duration::from_secs(1));
    let start = network.now;
    network.commit(alice, &[size(5); 16]);
    assert!(network.run_until(
        MINUTE,
        |network| network.sync(safe).facts().live_packs().len() == 16
            && network.sync(safe).missing_bytes() == 0
    ));
    let safe_took = network.now - start;
    assert!(network.run_until(MINUTE, |network| network.converged()
        && network.all_acknowledged()));
    let took = network.now - start;
    assert!(
        took < safe_took * 3 / 2 + Duration::from_millis(500),
        "{took:?} after {safe_took:?}"
    );
    // And with Alice gone, everything is at Bob.
    network.cut(alice, safe);
    assert_eq!(network.sync(bob).facts().live_packs().len(), 16);
}

#[test]
fn a_slow_peer_takes_no_memory() {
    let mut network = Network::new(11);
    let limits = Limits {
        unsent: 1 << 20,
        serving: 2 << 20,
        unaccepted: 1 << 20,
        ..Limits::default()
    };
    let (alice, bob) = (network.add_node_with(limits), network.add_node_with(limits));
    for _ in 0..300 {
        network.commit(alice, &[size(0)]);
    }
    for _ in 0..3 {
        network.commit(alice, &[size(8)]);
    }
    network.connect(
        alice,
        bob,
        LinkConfig {
            bandwidth: 100 << 10,
            ..LinkConfig::default()
        },
    );
    network.run(MINUTE);
    assert!(network.peak_waiting < 24 << 20, "{}", network.peak_waiting);
    let alice_waits = network.sync(alice).waiting_bytes();
    assert!(alice_waits <= 6 << 20, "{alice_waits}");
}

#[test]
fn a_silent_peer_is_replaced() {
    let mut network = Network::new(12);
    let nodes: Vec<_> = (0..3).map(|_| network.add_node()).collect();
    network.commit(nodes[0], &[size(4); 4]);
    network.connect(nodes[0], nodes[1], LinkConfig::default());
    assert!(network.run_until(
        MINUTE,
        |network| network.sync(nodes[1]).facts().live_packs().len() == 4
            && network.all_acknowledged()
    ));
    network.cut(nodes[0], nodes[1]);
    network.connect(
        nodes[0],
        nodes[2],
        LinkConfig {
            bandwidth: 1000,
            ..LinkConfig::default()
        },
    );
    network.run(Duration::from_secs(10));
    network.connect(nodes[1], nodes[2], LinkConfig::default());
    let start = network.now;
    assert!(network.run_until(2 * MINUTE, |network| {
        network.sync(nodes[2]).facts().live_packs().len() == 4
            && network.sync(nodes[2]).missing_bytes() == 0
    }));
    assert!(network.now - start < Duration::from_secs(40));
}

/// Alice wrote something, replaced it, and bob meets her: what he lacks of it is history.
fn replaced_before_it_came(network: &mut Network) -> (usize, usize, PackId) {
    let (alice, bob) = (network.add_node(), network.add_node());
    let old = network.commit(alice, &[size(6)])[0];
    network.commit(alice, &[size(2)]);
    network.release(alice, old);
    network.connect(alice, bob, LinkConfig::default());
    assert!(network.run_until(MINUTE, |network| network.converged()
        && network.all_acknowledged()));
    assert!(network.sync(bob).facts().read(&old, 0, 1).is_none());
    (alice, bob, old)
}

#[test]
fn history_comes_behind_what_is_needed_and_nobody_waits_for_it() {
    let mut network = Network::new(71);
    let (alice, bob, old) = replaced_before_it_came(&mut network);
    let has = |network: &Network| network.sync(bob).facts().read(&old, 0, 1).is_some();
    let needed = network.commit(alice, &[size(8); 4]);
    assert!(network.run_until(MINUTE, |network| network.sync(bob).missing_bytes() > 0));
    network.sync_mut(bob).late_packs_wanted(&[(old, size(6))]);
    network.settle(bob);
    let lacks = |network: &Network| {
        let facts = network.sync(bob).facts();
        needed.iter().any(|pack| facts.read(pack, 0, 1).is_none())
    };
    assert!(network.run_until(MINUTE, |network| !lacks(network) || has(network)));
    assert!(!has(&network), "the other came first");
    assert_eq!(network.sync(bob).missing_bytes(), 0);
    assert!(
        network.sync(bob).we_have_all_announced(),
        "it isn't waited for"
    );
    assert!(network.run_until(MINUTE, has));
    assert!(network.run_until(MINUTE, |network| network.converged()
        && network.all_acknowledged()));
}

#[test]
fn history_that_nobody_has_is_given_up_and_offered_when_somebody_does() {
    let mut network = Network::new(72);
    let (alice, bob, carol) = (network.add_node(), network.add_node(), network.add_node());
    let old = network.commit(alice, &[size(6)])[0];
    network.connect(alice, carol, LinkConfig::default());
    assert!(
        network.run_until(MINUTE, |network| network.sync(carol).missing_bytes() == 0
            && network.sync(carol).facts().read(&old, 0, 1).is_some())
    );
    network.cut(alice, carol);
    network.release(alice, old);
    network.sync_mut(alice).facts_mut().lose(&old);
    network.connect(alice, bob, LinkConfig::default());
    assert!(network.run_until(MINUTE, |network| {
        network.sync(bob).facts().commit_ids().len() == 2
    }));
    network.sync_mut(bob).late_packs_wanted(&[(old, size(6))]);
    network.settle(bob);
    let sources = |network: &Network| network.sync(bob).sources(&old).count();
    assert_eq!(sources(&network), 1);
    assert!(network.run_until(MINUTE, |network| sources(network) == 0));
    // Nothing is remembered of it.
    network.sync_mut(bob).packs_unwanted(&[old]);
    assert_eq!(sources(&network), 1);
    assert!(network.sync_mut(bob).take_offered().is_empty());
    // Alice gets it back: bob hears so, once.
    network.sync_mut(bob).facts_mut().late.insert(old);
    network.connect(alice, carol, LinkConfig::default());
    network.sync_mut(alice).late_packs_wanted(&[(old, size(6))]);
    network.settle(alice);
    let mut offered = Vec::new();
    for _ in 0..600 {
        network.run(Duration::from_millis(100));
        offered.extend(network.sync_mut(bob).take_offered());
    }
    offered.dedup();
    assert_eq!(offered, [old]);
    assert!(network.sync(alice).facts().read(&old, 0, 1).is_some());
}

#[test]
fn history_takes_no_room_of_what_is_needed() {
    let mut network = Network::new(73);
    let (alice, bob, old) = replaced_before_it_came(&mut network);
    let carol = network.add_node();
    network.cut(alice, bob);
    network.connect(alice, carol, LinkConfig::default());
    assert!(network.run_until(MINUTE, |network| {
        network.sync(carol).facts().commit_ids().len() == 3
    }));
    let needed = network.commit(carol, &[size(6)])[0];
    // Alice knows of it and hasn't got it.
    assert!(network.run_until(MINUTE, |network| {
        network.sync(alice).facts().commit_ids().len() == 4
    }));
    network.cut(alice, carol);
    network.sync_mut(alice).facts_mut().lose(&needed);
    network.sync_mut(alice).pack_lost(needed);
    network.sync_mut(bob).facts_mut().quota = Some(size(2).bytes() + size(6).bytes());
    network.connect(alice, bob, LinkConfig::default());
    let has =
        |network: &Network, pack: &PackId| network.sync(bob).facts().read(pack, 0, 1).is_some();
    assert!(network.run_until(MINUTE, |network| {
        network.sync(bob).missing_bytes() == size(6).bytes()
    }));
    network.sync_mut(bob).late_packs_wanted(&[(old, size(6))]);
    network.settle(bob);
    network.run(MINUTE);
    assert!(!has(&network, &old) && !has(&network, &needed));
    network.connect(bob, carol, LinkConfig::default());
    assert!(network.run_until(MINUTE, |network| has(network, &needed)));
    assert!(!has(&network, &old));
}

#[test]
fn a_lost_pack_is_fetched_again() {
    let mut network = Network::new(13);
    let (alice, bob) = (network.add_node(), network.add_node());
    let packs = network.commit(alice, &[size(2); 3]);
    network.connect(alice, bob, LinkConfig::default());
    assert!(network.run_until(MINUTE, |network| network.converged()
        && network.all_acknowledged()));
    let sync = network.sync_mut(alice);
    sync.facts_mut().lose(&packs[1]);
    sync.pack_lost(packs[1]);
    network.settle(alice);
    assert_eq!(network.sync(alice).missing_bytes(), size(2).bytes());
    assert!(network.run_until(MINUTE, |network| network.converged()
        && network.all_acknowledged()));
}

#[test]
fn a_pause_stops_transfers_and_a_resume_goes_on() {
    let mut network = Network::new(14);
    let (alice, bob) = (network.add_node(), network.add_node());
    network.connect(alice, bob, LinkConfig::default());
    network.commit(alice, &[size(7); 3]);
    network.run(Duration::from_millis(300));
    network.sync_mut(alice).pause();
    network.settle(alice);
    network.run(Duration::from_secs(5));
    let written = network.written(bob);
    assert!(written < 3 * size(7).bytes());
    network.run(Duration::from_secs(5));
    assert_eq!(network.written(bob), written);
    network.sync_mut(alice).resume();
    network.settle(alice);
    assert!(network.run_until(MINUTE, |network| network.converged()
        && network.all_acknowledged()));
    assert_eq!(network.written(bob), 3 * size(7).bytes());
}

#[test]
fn a_commit_that_two_peers_bring_at_once_says_of_both_what_they_hold() {
    let (mut sync, peers) = (
        FolderSync::new(MemoryFacts::default(), Limits::default(), Duration::ZERO),
        [PeerKey(1), PeerKey(2)],
    );
    let author = MemberId::from_bytes([9; 32]);
    let facts = sync.facts_mut();
    facts.add_entry(0);
    let pack = facts.add_pack(size(2), 1);
    let first = facts.compose(author, vec![(pack, size(2))]);
    let (first, _) = facts.accept_commit(first.to_bytes()).unwrap().unwrap();
    sync.commits_added(std::slice::from_ref(&first));
    let perform = |sync: &mut FolderSync<MemoryFacts>| {
        while let Some(output) = sync.poll_output() {
            match output {
                Output::Send { peer, message } => sync.sent(peer, message.size_hint()),
                Output::AddCommits { peer, commits } => {
                    let mut added = Vec::new();
                    for bytes in commits {
                        let accepted = sync.facts_mut().accept_commit(bytes).unwrap();
                        added.extend(accepted.map(|(facts, _)| facts));
                    }
                    sync.commits_accepted(peer, &added);
                }
                Output::StatusChanged => {}
                output => panic!("{output:?}"),
            }
        }
    };
    let chain = Chain {
        author,
        sequence: first.sequence,
        head: first.id,
    };
    for peer in peers {
        sync.peer_connected(peer, Rights::Current, None);
        let heads = sync.facts().roster_heads();
        sync.message(peer, FolderMessage::Roster { heads });
        let chains = vec![chain];
        sync.message(peer, FolderMessage::Heads { chains });
        sync.message(peer, FolderMessage::Accepted { commits: 0 });
        perform(&mut sync);
    }
    // The pack is added again, as by a file with the same content, and both peers bring it before anything is sent.
    let again = sync.facts().compose(author, vec![(pack, size(2))]);
    let bring = |lacking: &[PackId]| FolderMessage::Commits {
        commits: vec![Blob(again.to_bytes())],
        lacking: lacking.to_vec(),
    };
    sync.message(peers[0], bring(&[]));
    sync.message(peers[1], bring(&[]));
    perform(&mut sync);
    for peer in peers {
        let status = sync.peer_status(peer).unwrap();
        assert_eq!(status.missing_bytes, 0, "{peer}: {status:?}");
    }
    // What one says that it lacks, it does lack.
    let more = sync.facts().compose(author, vec![(pack, size(2))]);
    for (peer, lacking) in [(peers[0], vec![]), (peers[1], vec![pack])] {
        let commits = vec![Blob(more.to_bytes())];
        sync.message(peer, FolderMessage::Commits { commits, lacking });
    }
    perform(&mut sync);
    assert_eq!(sync.peer_status(peers[0]).unwrap().missing_bytes, 0);
    let lacked = sync.peer_status(peers[1]).unwrap().missing_bytes;
    assert_eq!(lacked, size(2).bytes());
}
