//! Numbers that make QUIC fast on loopback and LAN without hurting elsewhere.

use std::time::Duration;

use iroh::endpoint::{IdleTimeout, QuicTransportConfig, VarInt};

/// Bytes that a peer may send on one stream before we read them.
const STREAM_WINDOW: u32 = 16 << 20;
/// Bytes that a peer may send on all streams of a connection before we read them: bulk can't use up all of it.
const RECEIVE_WINDOW: u32 = 24 << 20;
/// Bytes that we keep until acknowledged.
const SEND_WINDOW: u64 = 16 << 20;
/// How often an idle connection says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Silence after which a connection is lost, in milliseconds.
const IDLE_TIMEOUT_MILLIS: u32 = 30_000;

/// The configuration of every connection.
pub(super) fn transport_config() -> QuicTransportConfig {
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
        .datagram_receive_buffer_size(None)
        .enable_segmentation_offload(true)
        .build()
}
