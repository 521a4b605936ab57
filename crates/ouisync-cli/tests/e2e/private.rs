//! Whole daemons on a LAN of their own: nothing goes to strangers.

use std::time::Duration;

use ouisync_testkit::lan::{self, Lan, Uplink};

use crate::node::{Node, converge};

/// Two devices make, join and sync a folder over a LAN that lies behind `uplink`.
fn sync_on_a_lan(uplink: Uplink) {
    if !lan::available() {
        return;
    }
    let mut network = Lan::new(uplink);
    let hosts = [network.host(), network.host()];
    let capture = network.capture();
    let (mut alice, mut bob) = (Node::idle("Alice"), Node::idle("Bob"));
    alice.host = Some(hosts[0].clone());
    bob.host = Some(hosts[1].clone());
    alice.start();
    bob.start();
    alice.write("first.txt", "first\n");
    alice.write("deep/er/second.txt", "second\n".repeat(50_000));
    alice.create();
    bob.join(&alice.invite("writer"), "writer");
    converge(&[&alice, &bob]);
    bob.write("third.txt", "third\n");
    converge(&[&alice, &bob]);
    assert_eq!(alice.read("third.txt"), "third\n");
    // They find each other again, by what they know or by the LAN.
    bob.terminate();
    bob.start();
    alice.write("fourth.txt", "fourth\n");
    converge(&[&alice, &bob]);
    // Not a wait for an event but for its absence: long enough for what programs send home soon after starting.
    std::thread::sleep(Duration::from_secs(5));
    alice.terminate();
    bob.terminate();
    let packets = capture.stop();
    eprintln!("{} packets captured", packets.len());
    assert!(
        packets.iter().any(|packet| packet.is_lan_discovery()),
        "the capture holds no discovery"
    );
    lan::assert_private(&packets, &hosts);
}

#[test]
fn no_packet_leaves_an_isolated_lan() {
    sync_on_a_lan(Uplink::None);
}

#[test]
fn no_packet_takes_the_default_route() {
    sync_on_a_lan(Uplink::Blackhole);
}
