//! Numbers that make QUIC fast on loopback and LAN without hurting elsewhere.

use std::time::Duration;

use iroh::endpoint::{IdleTimeout, MtuDiscoveryConfig, QuicTransportConfig, VarInt};

/// Bytes that a peer may send on one stream before we read them.
///
/// Not more: noq-proto 1.4.0 keeps what is not yet read as one chunk a packet and closes the connection ("too many gaps in
/// stream buffer") when a stream holds over 2048 of them, gaps or not. This is at most 1,140 packets of the smallest
/// size (1200 bytes), so that a slow reader, or one lost packet that holds up all behind it, stays well below.
/// Enough for 10 GbE in a LAN (1 ms) and for 100 Mbit/s at 100 ms.
const STREAM_WINDOW: u32 = 1_310_720;
/// Bytes that a peer may send on all streams of a connection before we read them: bulk can't use up all of it.
const RECEIVE_WINDOW: u32 = 2 * STREAM_WINDOW;
/// Bytes that we keep until acknowledged.
const SEND_WINDOW: u64 = 4 << 20;
/// How often an idle connection says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Silence after which a connection is lost, in milliseconds.
const IDLE_TIMEOUT_MILLIS: u32 = 30_000;

/// The configuration of every connection.
pub(super) fn transport_config() -> QuicTransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    // What `iroh` announces that it takes; the default is 20 bytes below.
    discovery.upper_bound(1472);
    QuicTransportConfig::builder()
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .keep_alive_interval(KEEP_ALIVE)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(
            IDLE_TIMEOUT_MILLIS,
        ))))
        // One control and one bulk stream each way; no more is ever opened.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .mtu_discovery_config(Some(discovery))
        .datagram_receive_buffer_size(None)
        .enable_segmentation_offload(true)
        .build()
}
