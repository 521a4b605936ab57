//! One suite for every transport: run on the in-memory one and on QUIC over loopback.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use ouisync_model::id::PackId;
use ouisync_net::{
    address::DeviceAddress,
    bulk::{BulkHeader, FRAME_LENGTH, MAX_RECORD_FRAMES},
    connection::{CloseCode, Closed, Connection},
    control::MAX_CONTROL_MESSAGE,
    endpoint::{BindError, ConnectError, Endpoint, NetOptions},
    key::DeviceKey,
    memory::MemoryNetwork,
    stream::StreamError,
};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

fn key(seed: u8) -> DeviceKey {
    DeviceKey::from_bytes([seed; 32])
}

fn loopback(seed: u8) -> NetOptions {
    NetOptions {
        key: key(seed),
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        lan: false,
    }
}

/// A pair of endpoints that can reach each other.
struct Pair {
    alice: Endpoint,
    bob: Endpoint,
}

impl Pair {
    async fn quic() -> Self {
        Self {
            alice: Endpoint::bind(loopback(1)).await.unwrap(),
            bob: Endpoint::bind(loopback(2)).await.unwrap(),
        }
    }

    fn memory() -> Self {
        let network = MemoryNetwork::default();
        Self {
            alice: network.endpoint(key(1).device()),
            bob: network.endpoint(key(2).device()),
        }
    }

    /// Alice dials Bob.
    async fn connect(&self) -> (Connection, Connection) {
        let address = DeviceAddress::new(self.bob.device(), self.bob.addresses());
        let both = async { tokio::join!(self.alice.connect(&address), self.bob.accept()) };
        let (alice, bob) = timeout(DEADLINE, both).await.unwrap();
        (alice.unwrap(), bob.unwrap())
    }
}

/// Runs each test on each transport.
macro_rules! on_each_transport {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                tokio::time::timeout(super::DEADLINE, super::$name(super::Pair::memory())).await.unwrap();
            })*
        }
        mod quic {
            $(#[tokio::test]
            async fn $name() {
                tokio::time::timeout(super::DEADLINE, super::$name(super::Pair::quic().await)).await.unwrap();
            })*
        }
    };
}

on_each_transport! {
    identities_are_known_at_both_ends,
    exporter_is_shared_and_new_each_time,
    control_messages_arrive_whole_and_in_order,
    bulk_records_arrive_whole_and_in_order,
    the_acceptor_may_speak_first,
    control_overtakes_bulk_that_nobody_reads,
    receiving_survives_cancellation,
    a_cancelled_send_breaks_the_sender,
    too_long_a_message_is_refused,
    malformed_records_are_refused_before_sending,
    closing_tells_the_peer_why,
    dropping_closes,
    closing_the_endpoint_ends_everything,
    dialling_oneself_is_an_error,
}

async fn identities_are_known_at_both_ends(pair: Pair) {
    let (alice, bob) = pair.connect().await;
    assert_eq!((alice.peer(), alice.is_dialer()), (pair.bob.device(), true));
    assert_eq!((bob.peer(), bob.is_dialer()), (pair.alice.device(), false));
    assert_eq!(pair.alice.device(), key(1).device());
}

async fn exporter_is_shared_and_new_each_time(pair: Pair) {
    let (alice, bob) = pair.connect().await;
    assert_eq!(alice.exporter(), bob.exporter());
    assert_ne!(alice.exporter(), [0; 32]);
    let (again, _bob) = pair.connect().await;
    assert_ne!(again.exporter(), alice.exporter());
}

async fn control_messages_arrive_whole_and_in_order(pair: Pair) {
    let (mut alice, mut bob) = pair.connect().await;
    let lengths = [
        1,
        3,
        4,
        5,
        16 << 10,
        (16 << 10) + 1,
        1 << 20,
        MAX_CONTROL_MESSAGE,
    ];
    let sending = tokio::spawn(async move {
        for (number, length) in lengths.into_iter().enumerate() {
            alice
                .control_sender
                .send(Bytes::from(vec![number as u8; length]))
                .await
                .unwrap();
            // An empty message is nothing.
            alice.control_sender.send(Bytes::new()).await.unwrap();
        }
        alice
    });
    for (number, length) in lengths.into_iter().enumerate() {
        let message = bob
            .control_receiver
            .recv(MAX_CONTROL_MESSAGE)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(message.len(), length);
        assert!(message.iter().all(|byte| *byte == number as u8));
    }
    sending.await.unwrap();
}

fn record(number: u8, frames: u32) -> (BulkHeader, Bytes) {
    let header = BulkHeader {
        channel: u64::from(number) << 40,
        pack: PackId::from_bytes([number; 32]),
        first_frame: u32::from(number),
        frames,
    };
    (
        header,
        Bytes::from(vec![number; frames as usize * FRAME_LENGTH]),
    )
}

async fn bulk_records_arrive_whole_and_in_order(pair: Pair) {
    let (mut alice, mut bob) = pair.connect().await;
    let counts = [1, 2, MAX_RECORD_FRAMES, 1, 31, MAX_RECORD_FRAMES];
    let to_bob = async {
        for (number, frames) in counts.into_iter().enumerate() {
            let (header, payload) = record(number as u8, frames);
            alice.bulk_sender.send(header, payload).await.unwrap();
        }
    };
    let at_bob = async {
        for (number, frames) in counts.into_iter().enumerate() {
            assert_eq!(
                bob.bulk_receiver.recv().await.unwrap().unwrap(),
                record(number as u8, frames)
            );
        }
    };
    let to_alice = async {
        let (header, payload) = record(9, 3);
        bob.bulk_sender.send(header, payload).await.unwrap();
    };
    let at_alice = async {
        assert_eq!(
            alice.bulk_receiver.recv().await.unwrap().unwrap(),
            record(9, 3)
        );
    };
    tokio::join!(to_bob, at_bob, to_alice, at_alice);
}

async fn the_acceptor_may_speak_first(pair: Pair) {
    let (mut alice, mut bob) = pair.connect().await;
    bob.control_sender
        .send(Bytes::from_static(b"hello"))
        .await
        .unwrap();
    assert_eq!(
        alice.control_receiver.recv(5).await.unwrap().unwrap(),
        "hello"
    );
}

async fn control_overtakes_bulk_that_nobody_reads(pair: Pair) {
    let (mut alice, mut bob) = pair.connect().await;
    let mut bulk = alice.bulk_sender;
    let flood = tokio::spawn(async move {
        loop {
            let (header, payload) = record(1, MAX_RECORD_FRAMES);
            if bulk.send(header, payload).await.is_err() {
                return;
            }
        }
    });
    // The first record is there, so the stream is open; nobody reads any more of it.
    bob.bulk_receiver.recv().await.unwrap().unwrap();
    for _ in 0..20 {
        alice
            .control_sender
            .send(Bytes::from_static(b"now"))
            .await
            .unwrap();
        assert_eq!(bob.control_receiver.recv(9).await.unwrap().unwrap(), "now");
    }
    flood.abort();
}

async fn receiving_survives_cancellation(pair: Pair) {
    let (mut alice, mut bob) = pair.connect().await;
    let sending = async {
        for number in 0..8 {
            let (header, payload) = record(number, 8);
            alice.bulk_sender.send(header, payload).await.unwrap();
            alice
                .control_sender
                .send(Bytes::from(vec![number; 300_000]))
                .await
                .unwrap();
        }
    };
    let receiving = async {
        let (mut records, mut messages) = (0, 0);
        while records < 8 || messages < 8 {
            // Each turn drops the half-done receive of the other stream.
            tokio::select! {
                result = bob.bulk_receiver.recv(), if records < 8 => {
                    assert_eq!(result.unwrap().unwrap(), record(records, 8));
                    records += 1;
                }
                result = bob.control_receiver.recv(1 << 20), if messages < 8 => {
                    assert_eq!(result.unwrap().unwrap(), vec![messages; 300_000]);
                    messages += 1;
                }
                () = tokio::task::yield_now() => {}
            }
        }
    };
    tokio::join!(sending, receiving);
}

async fn a_cancelled_send_breaks_the_sender(pair: Pair) {
    let (mut alice, _bob) = pair.connect().await;
    // Bob reads nothing, so sooner or later a send waits for good.
    loop {
        let (header, payload) = record(1, MAX_RECORD_FRAMES);
        match timeout(
            Duration::from_millis(200),
            alice.bulk_sender.send(header, payload),
        )
        .await
        {
            Ok(result) => result.unwrap(),
            Err(_) => break,
        }
    }
    let (header, payload) = record(1, 1);
    assert!(matches!(
        alice.bulk_sender.send(header, payload).await,
        Err(StreamError::Broken)
    ));
}

async fn too_long_a_message_is_refused(pair: Pair) {
    let (mut alice, mut bob) = pair.connect().await;
    let too_long = Bytes::from(vec![0; MAX_CONTROL_MESSAGE + 1]);
    assert!(matches!(
        alice.control_sender.send(too_long).await,
        Err(StreamError::TooLong { .. })
    ));
    alice
        .control_sender
        .send(Bytes::from_static(b"12345"))
        .await
        .unwrap();
    let error = bob.control_receiver.recv(4).await.unwrap_err();
    assert!(matches!(error, StreamError::TooLong { length: 5, max: 4 }));
    assert!(error.is_violation());
}

async fn malformed_records_are_refused_before_sending(pair: Pair) {
    let (mut alice, _bob) = pair.connect().await;
    for frames in [0, MAX_RECORD_FRAMES + 1] {
        let (header, payload) = record(0, frames);
        let result = alice.bulk_sender.send(header, payload).await;
        assert!(matches!(result, Err(StreamError::FrameCount { .. })));
    }
    let (header, payload) = record(0, 2);
    let result = alice.bulk_sender.send(header, payload.slice(1..)).await;
    assert!(matches!(
        result,
        Err(StreamError::RecordLength { frames: 2, .. })
    ));
}

async fn closing_tells_the_peer_why(pair: Pair) {
    let (alice, mut bob) = pair.connect().await;
    alice.handle.close(CloseCode::Violation, "bad message");
    assert_eq!(alice.handle.closed().await, Closed::Here);
    let expected = Closed::ByPeer {
        code: CloseCode::Violation,
        reason: "bad message".to_owned(),
    };
    assert_eq!(bob.handle.closed().await, expected);
    assert!(bob.control_receiver.recv(9).await.is_err());
    assert!(
        bob.control_sender
            .send(Bytes::from_static(b"x"))
            .await
            .is_err()
    );
}

async fn dropping_closes(pair: Pair) {
    let (alice, bob) = pair.connect().await;
    drop(alice);
    let closed = bob.handle.closed().await;
    assert!(
        matches!(
            closed,
            Closed::ByPeer {
                code: CloseCode::Finished,
                ..
            }
        ),
        "{closed}"
    );
}

async fn closing_the_endpoint_ends_everything(pair: Pair) {
    let (alice, bob) = pair.connect().await;
    let waiting = pair.bob.clone();
    let accept = tokio::spawn(async move { waiting.accept().await.is_none() });
    let mut lan = pair.bob.lan_events();
    pair.bob.close().await;
    assert!(accept.await.unwrap());
    assert_eq!(lan.recv().await, None);
    assert_eq!(bob.handle.closed().await, Closed::Here);
    let closed = alice.handle.closed().await;
    assert!(
        matches!(
            closed,
            Closed::ByPeer {
                code: CloseCode::Finished,
                ..
            }
        ),
        "{closed}"
    );
    let address = DeviceAddress::new(pair.alice.device(), pair.alice.addresses());
    assert!(matches!(
        pair.bob.connect(&address).await,
        Err(ConnectError::Closed)
    ));
    assert!(pair.bob.accept().await.is_none());
}

async fn dialling_oneself_is_an_error(pair: Pair) {
    let address = DeviceAddress::new(pair.alice.device(), pair.alice.addresses());
    assert!(matches!(
        pair.alice.connect(&address).await,
        Err(ConnectError::SelfDial)
    ));
}

#[tokio::test]
async fn another_device_at_the_socket_is_refused() {
    let pair = Pair::quic().await;
    let address = DeviceAddress::new(key(3).device(), pair.bob.addresses());
    let error = timeout(DEADLINE, pair.alice.connect(&address))
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Failed { .. } | ConnectError::TimedOut { .. }
        ),
        "{error:?}"
    );
    assert!(error.is_transient());
}

#[tokio::test]
async fn nobody_at_the_socket_is_a_time_out() {
    let pair = Pair::quic().await;
    let sockets = pair.bob.addresses();
    pair.bob.close().await;
    let address = DeviceAddress::new(pair.bob.device(), sockets);
    let error = timeout(DEADLINE, pair.alice.connect(&address))
        .await
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut { .. }), "{error:?}");
}

#[tokio::test]
async fn without_any_address_there_is_nothing_to_dial() {
    let pair = Pair::quic().await;
    let address = DeviceAddress::new(pair.bob.device(), vec!["0.0.0.0:0".parse().unwrap()]);
    assert!(matches!(
        pair.alice.connect(&address).await,
        Err(ConnectError::NoAddress { .. })
    ));
}

#[tokio::test]
async fn a_dead_socket_beside_a_live_one_does_no_harm() {
    let pair = Pair::quic().await;
    let gone = std::net::UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut sockets = vec![gone];
    sockets.extend(pair.bob.addresses());
    let address = DeviceAddress::new(pair.bob.device(), sockets);
    let (alice, bob) = timeout(DEADLINE, async {
        tokio::join!(pair.alice.connect(&address), pair.bob.accept())
    })
    .await
    .unwrap();
    assert_eq!(alice.unwrap().exporter(), bob.unwrap().exporter());
}

#[tokio::test]
async fn a_taken_port_is_a_clear_error() {
    let bob = Endpoint::bind(loopback(2)).await.unwrap();
    let socket = bob.addresses()[0];
    for listen in [socket, SocketAddr::from(([0, 0, 0, 0], socket.port()))] {
        let options = NetOptions {
            key: key(1),
            listen: Some(listen),
            lan: false,
        };
        let error = Endpoint::bind(options).await.err().unwrap();
        assert!(matches!(error, BindError::PortTaken { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            format!("port {} is already in use", socket.port())
        );
    }
}

#[tokio::test]
async fn a_port_is_free_again_after_closing() {
    let bob = Endpoint::bind(loopback(2)).await.unwrap();
    let listen = bob.addresses()[0];
    bob.close().await;
    let again = Endpoint::bind(NetOptions {
        key: key(2),
        listen: Some(listen),
        lan: false,
    })
    .await
    .unwrap();
    assert_eq!(again.addresses(), [listen]);
}

#[tokio::test]
async fn unspecified_gives_concrete_addresses_of_one_port() {
    let options = NetOptions {
        key: key(1),
        listen: None,
        lan: false,
    };
    let endpoint = Endpoint::bind(options).await.unwrap();
    let addresses = endpoint.addresses();
    assert!(!addresses.is_empty());
    for address in &addresses {
        assert!(
            !address.ip().is_unspecified() && address.port() == addresses[0].port(),
            "{addresses:?}"
        );
    }
}

/// A host without manners: connections that never open a control stream, as many as it gets.
#[tokio::test(flavor = "multi_thread")]
async fn who_never_ends_its_handshakes_keeps_nobody_else_out() {
    let alice = Endpoint::bind(loopback(1)).await.unwrap();
    let [socket] = alice.addresses()[..] else {
        panic!("one socket")
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "as in the program: contacts nobody"
    )]
    let builder = iroh::Endpoint::builder(iroh::endpoint::presets::Minimal)
        .relay_mode(iroh::RelayMode::Disabled)
        .clear_ip_transports();
    let rude = builder
        .bind_addr("127.0.0.2:0")
        .unwrap()
        .bind()
        .await
        .unwrap();
    let id = iroh::EndpointId::from_bytes(alice.device().as_bytes()).unwrap();
    let dial = || {
        let rude = rude.clone();
        let address = iroh::EndpointAddr::new(id).with_ip_addr(socket);
        tokio::spawn(async move { rude.connect(address, b"ouisync/1").await })
    };
    let dials: Vec<_> = (0..80).map(|_| dial()).collect();
    let mut held = Vec::new();
    for dial in dials {
        held.extend(dial.await.unwrap());
    }
    // One place of another address is enough, and this is long before the first of those are given up.
    let options = NetOptions {
        listen: Some(SocketAddr::from(([127, 0, 0, 3], 0))),
        ..loopback(2)
    };
    let bob = Endpoint::bind(options).await.unwrap();
    let address = DeviceAddress::new(alice.device(), vec![socket]);
    let both = async { tokio::join!(bob.connect(&address), alice.accept()) };
    let (at_bob, at_alice) = timeout(DEADLINE, both).await.unwrap();
    assert_eq!(at_bob.unwrap().peer(), alice.device());
    assert_eq!(at_alice.unwrap().peer(), bob.device());
    assert!((8..=16).contains(&held.len()), "{}", held.len());
}
