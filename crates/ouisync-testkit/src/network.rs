//! Nodes with links between them, in virtual time. Each link carries two ordered streams in each direction; messages
//! are lost only with the whole connection.

mod host;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use bytes::Bytes;
use ouisync_crypto::possession::{Nonce, Possession};
use ouisync_model::{
    id::{MemberId, PackId},
    operation::PackSize,
};
use ouisync_sync::{
    codec::{Decoder, Message, Sample},
    folder::{DropReason, FolderSync, Limits, PeerKey, Rights},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::facts::{FakeCommit, MemoryFacts};

/// How a link behaves.
#[derive(Clone, Copy, Debug)]
pub struct LinkConfig {
    /// One way.
    pub latency: Duration,
    /// Up to so much is added at random, so that the two streams overtake each other.
    pub jitter: Duration,
    /// Bytes a second of each stream in each direction.
    pub bandwidth: u64,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(10),
            jitter: Duration::from_millis(10),
            bandwidth: 20 << 20,
        }
    }
}

impl LinkConfig {
    /// From a fast LAN to a slow line.
    pub fn random(rng: &mut SmallRng) -> Self {
        Self {
            latency: Duration::from_millis(rng.random_range(1..80)),
            jitter: Duration::from_millis(rng.random_range(0..50)),
            bandwidth: 1 << rng.random_range(18..24),
        }
    }
}

/// What a connection carried in one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Carried {
    /// Bytes of the control stream.
    pub control: u64,
    /// Bytes of the bulk stream.
    pub bulk: u64,
}

struct Node {
    sync: Option<FolderSync<MemoryFacts>>,
    author: MemberId,
    limits: Limits,
}

struct Connection {
    ends: [usize; 2],
    keys: [PeerKey; 2],
    config: LinkConfig,
    /// By direction, then control and bulk: when the stream is free, and the latest arrival.
    busy: [[Duration; 2]; 2],
    arrived: [[Duration; 2]; 2],
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Control {
        connection: u64,
        to: usize,
        bytes: Bytes,
    },
    Bulk {
        connection: u64,
        to: usize,
        pack: PackId,
        first: u32,
        data: Bytes,
    },
    Sent {
        connection: u64,
        from: usize,
        bytes: usize,
    },
    Served {
        connection: u64,
        from: usize,
        count: u32,
    },
    Closed {
        node: usize,
        key: u64,
    },
    Durable {
        node: usize,
        packs: Vec<PackId>,
    },
    Prove {
        node: usize,
        key: u64,
        nonce: Nonce,
        samples: Vec<Sample>,
    },
    Tick,
}

/// The simulator.
pub struct Network {
    /// Virtual time.
    pub now: Duration,
    /// Randomness of the test.
    pub rng: SmallRng,
    /// Who dropped whom and why.
    pub dropped: Vec<(usize, usize, DropReason)>,
    /// Answers to challenges: who asked, who answered, and what.
    pub answers: Vec<(usize, usize, Nonce, Vec<Option<Possession>>)>,
    /// By sender and receiver, over all connections.
    pub carried: BTreeMap<(usize, usize), Carried>,
    /// Greatest [`waiting_bytes`](FolderSync::waiting_bytes) of any node.
    pub peak_waiting: u64,
    nodes: Vec<Node>,
    connections: BTreeMap<u64, Connection>,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    counter: u64,
}

impl Network {
    /// An empty network.
    pub fn new(seed: u64) -> Self {
        let mut network = Self {
            now: Duration::ZERO,
            rng: SmallRng::seed_from_u64(seed),
            dropped: Vec::new(),
            answers: Vec::new(),
            carried: BTreeMap::new(),
            peak_waiting: 0,
            nodes: Vec::new(),
            connections: BTreeMap::new(),
            events: BinaryHeap::new(),
            counter: 0,
        };
        network.schedule(Duration::ZERO, Event::Tick);
        network
    }

    /// A node with the first roster entry in common with all others.
    pub fn add_node(&mut self) -> usize {
        self.add_node_with(Limits::default())
    }

    /// A node with other limits.
    pub fn add_node_with(&mut self, limits: Limits) -> usize {
        let index = self.nodes.len();
        let mut facts = MemoryFacts::default();
        facts.add_entry(0);
        let sync = Some(FolderSync::new(facts, limits, self.now));
        let author = MemberId::from_bytes([u8::try_from(index).expect("few nodes") + 1; 32]);
        self.nodes.push(Node {
            sync,
            author,
            limits,
        });
        index
    }

    /// The node's state machine.
    pub fn sync(&self, node: usize) -> &FolderSync<MemoryFacts> {
        self.nodes[node].sync.as_ref().expect("node runs")
    }

    /// The node's state machine, to call it; then [`settle`](Self::settle).
    pub fn sync_mut(&mut self, node: usize) -> &mut FolderSync<MemoryFacts> {
        self.nodes[node].sync.as_mut().expect("node runs")
    }

    /// The node's member key.
    pub fn author(&self, node: usize) -> MemberId {
        self.nodes[node].author
    }

    /// Gives a node another's member key, as after a restored backup.
    pub fn set_author(&mut self, node: usize, author: MemberId) {
        self.nodes[node].author = author;
    }

    /// Opens a connection, unless there is one.
    pub fn connect(&mut self, dialer: usize, acceptor: usize, config: LinkConfig) {
        if self.connection(dialer, acceptor).is_some() {
            return;
        }
        self.counter += 2;
        let (id, keys) = (
            self.counter,
            [PeerKey(self.counter), PeerKey(self.counter + 1)],
        );
        let times = [[self.now; 2]; 2];
        let ends = [dialer, acceptor];
        self.connections.insert(
            id,
            Connection {
                ends,
                keys,
                config,
                busy: times,
                arrived: times,
            },
        );
        for (end, key) in ends.into_iter().zip(keys) {
            self.sync_mut(end)
                .peer_connected(key, Rights::Current, None);
            self.settle(end);
        }
    }

    /// Cuts a connection: what is on its way is lost.
    pub fn cut(&mut self, a: usize, b: usize) {
        if let Some(id) = self.connection(a, b) {
            self.close(id);
        }
    }

    /// The key under which `node` knows its connected peer.
    pub fn peer_key(&self, node: usize, peer: usize) -> Option<PeerKey> {
        let connection = self.connections.get(&self.connection(node, peer)?)?;
        let end = connection.ends.iter().position(|end| *end == node)?;
        Some(connection.keys[end])
    }

    /// The node commits new packs of these sizes on top of all it has.
    pub fn commit(&mut self, node: usize, sizes: &[PackSize]) -> Vec<PackId> {
        let author = self.nodes[node].author;
        let numbers: Vec<u64> = sizes.iter().map(|_| self.rng.random()).collect();
        let facts = self.sync_mut(node).facts_mut();
        let packs: Vec<_> = sizes
            .iter()
            .zip(numbers)
            .map(|(size, number)| facts.add_pack(*size, number))
            .collect();
        let commit = facts.compose(
            author,
            packs.iter().copied().zip(sizes.iter().copied()).collect(),
        );
        self.add_commit(node, &commit);
        packs
    }

    /// The node adds a commit of its own that releases nothing.
    fn add_commit(&mut self, node: usize, commit: &FakeCommit) {
        let sync = self.sync_mut(node);
        let (added, _) = sync
            .facts_mut()
            .accept_commit(commit.to_bytes())
            .expect("valid")
            .expect("new");
        sync.commits_added(&[added]);
        self.settle(node);
    }

    /// The node adds a pack again that it holds.
    pub fn add_again(&mut self, node: usize, pack: PackId, size: PackSize) {
        let author = self.nodes[node].author;
        let facts = self.sync_mut(node).facts();
        let commit = facts.compose(author, vec![(pack, size)]);
        self.add_commit(node, &commit);
    }

    /// The node releases a live pack.
    pub fn release(&mut self, node: usize, pack: PackId) {
        let author = self.nodes[node].author;
        let sync = self.sync_mut(node);
        let facts = sync.facts_mut();
        let mut commit = facts.compose(author, Vec::new());
        commit.released = facts.dots(&pack);
        let (added, gone) = facts
            .accept_commit(commit.to_bytes())
            .expect("valid")
            .expect("new");
        sync.commits_added(&[added]);
        sync.packs_released(&gone);
        self.settle(node);
    }

    /// The node makes a checkpoint of all it has, as `change` alters it.
    pub fn checkpoint(&mut self, node: usize, change: impl FnOnce(&mut FakeCommit)) {
        let author = self.nodes[node].author;
        let mut commit = self.sync_mut(node).facts().compose_checkpoint(author);
        change(&mut commit);
        self.add_commit(node, &commit);
    }

    /// The node stops without warning and starts again with what was durable.
    pub fn crash(&mut self, node: usize) {
        let ids: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, one)| one.ends.contains(&node))
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter().for_each(|id| self.close(id));
        let limits = self.nodes[node].limits;
        let mut facts = self.nodes[node]
            .sync
            .take()
            .expect("node runs")
            .into_facts();
        facts.crash();
        self.nodes[node].sync = Some(FolderSync::new(facts, limits, self.now));
        self.settle(node);
    }

    /// Runs until `done` or for `limit`; true when done.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !done(self) {
            let Some(Reverse((at, ..))) = self.events.peek() else {
                return false;
            };
            if *at > end {
                self.now = end;
                return false;
            }
            if let Some(Reverse((at, _, event))) = self.events.pop() {
                self.now = self.now.max(at);
                self.handle(event);
            }
        }
        true
    }

    /// Runs for a time.
    pub fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// All nodes have the same commits, roster and live packs.
    pub fn converged(&self) -> bool {
        let facts = |node: usize| self.sync(node).facts();
        let first = facts(0);
        let (commits, live) = (first.commit_ids(), first.live_packs());
        (0..self.nodes.len()).all(|node| {
            self.sync(node).missing_bytes() == 0
                && self.sync(node).we_have_all_announced()
                && facts(node).commit_ids() == commits
                && facts(node).live_packs() == live
        })
    }

    /// Every node knows that all its connected peers have all.
    pub fn all_acknowledged(&self) -> bool {
        (0..self.nodes.len()).all(|node| {
            let sync = self.sync(node);
            sync.peers().all(|peer| sync.peer_has_all_of_ours(peer))
        })
    }

    /// Bytes of packs that the node received and wrote.
    pub fn written(&self, node: usize) -> u64 {
        self.sync(node).facts().written
    }

    fn connection(&self, a: usize, b: usize) -> Option<u64> {
        let found = self
            .connections
            .iter()
            .find(|(_, one)| one.ends == [a, b] || one.ends == [b, a]);
        found.map(|(id, _)| *id)
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.counter += 2;
        self.events.push(Reverse((at, self.counter, event)));
    }

    fn close(&mut self, id: u64) {
        if let Some(connection) = self.connections.remove(&id) {
            for (end, key) in connection.ends.into_iter().zip(connection.keys) {
                self.schedule(
                    self.now,
                    Event::Closed {
                        node: end,
                        key: key.0,
                    },
                );
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let node = match event {
            Event::Control {
                connection,
                to,
                bytes,
            } => {
                let Some(key) = self.key_at(connection, to) else {
                    return;
                };
                let mut decoder = Decoder::new();
                decoder.push(&bytes);
                let Ok(Some(Message::Folder { message, .. })) = decoder.next() else {
                    panic!("a message that was encoded must decode")
                };
                self.sync_mut(to).message(key, message);
                to
            }
            Event::Bulk {
                connection,
                to,
                pack,
                first,
                data,
            } => {
                let Some(key) = self.key_at(connection, to) else {
                    return;
                };
                self.sync_mut(to).bulk_received(key, pack, first, data);
                to
            }
            Event::Sent {
                connection,
                from,
                bytes,
            } => {
                let Some(key) = self.key_at(connection, from) else {
                    return;
                };
                self.sync_mut(from).sent(key, bytes);
                from
            }
            Event::Served {
                connection,
                from,
                count,
            } => {
                let Some(key) = self.key_at(connection, from) else {
                    return;
                };
                self.sync_mut(from).served(key, count);
                from
            }
            Event::Closed { node, key } => {
                self.sync_mut(node).peer_disconnected(PeerKey(key));
                node
            }
            Event::Durable { node, packs } => {
                let sync = self.sync_mut(node);
                let durable = sync.facts_mut().sync(&packs);
                sync.packs_durable(&durable);
                node
            }
            Event::Prove {
                node,
                key,
                nonce,
                samples,
            } => {
                let sync = self.sync_mut(node);
                let show =
                    |sample: &Sample| Some((sample.pack, sync.facts().show(&nonce, sample)?));
                let shown: Vec<_> = samples.iter().filter_map(show).collect();
                sync.possession_ready(PeerKey(key), nonce, &shown);
                node
            }
            Event::Tick => {
                self.schedule(self.now + Duration::from_millis(500), Event::Tick);
                let now = self.now;
                for node in 0..self.nodes.len() {
                    self.sync_mut(node).tick(now);
                    self.settle(node);
                }
                return;
            }
        };
        self.settle(node);
    }

    fn key_at(&self, connection: u64, node: usize) -> Option<PeerKey> {
        let connection = self.connections.get(&connection)?;
        let end = connection.ends.iter().position(|end| *end == node)?;
        Some(connection.keys[end])
    }

    /// Does what the node's state machine asks for.
    pub fn settle(&mut self, node: usize) {
        let now = self.now;
        self.sync_mut(node).tick(now);
        while let Some(output) = self.sync_mut(node).poll_output() {
            self.perform(node, output);
        }
        self.peak_waiting = self.peak_waiting.max(self.sync(node).waiting_bytes());
    }
}
