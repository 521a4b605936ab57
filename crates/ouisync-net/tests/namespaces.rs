//! Devices in network namespaces: discovery on an isolated LAN, and nothing sent to strangers.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use ouisync_net::key::DeviceKey;
use ouisync_testkit::lan::{self, Host, Lan, Uplink};

const DEADLINE: Duration = Duration::from_secs(30);

/// The example `peer`, built beside this test.
fn peer_program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/peer");
    assert!(
        program.exists(),
        "{} is missing: cargo build -p ouisync-net --examples",
        program.display()
    );
    program
}

/// A running `peer`; killed when dropped.
struct Peer {
    process: Child,
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
}

impl Peer {
    fn start(host: &Host, seed: u8, dial: &[String]) -> Self {
        let mut process = host
            .command(peer_program())
            .arg(seed.to_string())
            .args(dial)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        let mut peer = Self {
            process,
            lines,
            said: Vec::new(),
        };
        peer.wait_for("ready ");
        peer
    }

    /// Waits for a line with this beginning.
    fn wait_for(&mut self, beginning: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line '{beginning}…' came, but: {:#?}", self.said);
            };
            self.said.push(line.clone());
            if line.starts_with(beginning) {
                return line;
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn id(seed: u8) -> String {
    DeviceKey::from_bytes([seed; 32]).device().to_string()
}

#[test]
fn devices_find_each_other_by_id_on_an_isolated_network() {
    if !lan::available() {
        return;
    }
    let mut network = Lan::new(Uplink::None);
    let (left, right) = (network.host(), network.host());
    let start = Instant::now();
    let mut alice = Peer::start(&left, 1, &[id(2)]);
    let mut bob = Peer::start(&right, 2, &[]);
    let connected = alice.wait_for(&format!("heard {}", id(2)));
    eprintln!("connected by id after {:?}: {connected}", start.elapsed());
    bob.wait_for(&format!("heard {}", id(1)));
    let seen = alice
        .said
        .iter()
        .find(|line| line.starts_with(&format!("lan {}", id(2))))
        .unwrap();
    assert!(seen.contains(&format!("{}:4400", right.v4)), "{seen}");
    // One that leaves is reported gone, and found again when it comes back.
    drop(bob);
    alice.wait_for(&format!("gone {}", id(2)));
    let _bob = Peer::start(&right, 2, &[]);
    alice.wait_for(&format!("lan {}", id(2)));
}

#[test]
fn no_packet_goes_to_strangers() {
    if !lan::available() {
        return;
    }
    let mut network = Lan::new(Uplink::Blackhole);
    let hosts = [network.host(), network.host(), network.host()];
    let capture = network.capture();
    // One by static address, one by id alone.
    let mut alice = Peer::start(
        &hosts[0],
        1,
        &[format!("{}@{}:4400", id(2), hosts[1].v4), id(3)],
    );
    let mut bob = Peer::start(&hosts[1], 2, &[]);
    let mut carol = Peer::start(&hosts[2], 3, &[id(2)]);
    for (peer, others) in [
        (&mut alice, [2, 3]),
        (&mut bob, [1, 3]),
        (&mut carol, [1, 2]),
    ] {
        let mut missing: Vec<String> = others.map(|seed| format!("heard {}", id(seed))).into();
        while !missing.is_empty() {
            let line = peer.wait_for("heard ");
            missing.retain(|beginning| !line.starts_with(beginning));
        }
    }
    // Not a wait for an event but for its absence: long enough for what programs send home soon after starting.
    std::thread::sleep(Duration::from_secs(15));
    let packets = capture.stop();
    eprintln!("{} packets captured", packets.len());
    assert!(
        packets.iter().any(|packet| packet.is_lan_discovery()),
        "the capture holds no discovery"
    );
    lan::assert_private(&packets, &hosts);
}

#[test]
fn a_stray_packet_is_noticed() {
    if !lan::available() {
        return;
    }
    let mut network = Lan::new(Uplink::Blackhole);
    let hosts = [network.host(), network.host()];
    let capture = network.capture();
    let script = format!(
        "echo x > /dev/udp/{}/53; echo x > /dev/udp/{}/9",
        lan::RESOLVER,
        hosts[1].v4
    );
    let status = hosts[0]
        .command("bash")
        .args(["-c", &script])
        .status()
        .unwrap();
    assert!(status.success());
    // The packets pass through the bridge before the command ends; the capture has them once a later one is there.
    std::thread::sleep(Duration::from_millis(500));
    let packets = capture.stop();
    let caught = std::panic::catch_unwind(|| lan::assert_private(&packets, &hosts));
    assert!(caught.is_err(), "{packets:#?}");
}
