//! One QUIC connection with its streams.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use iroh::endpoint::{Connection as QuicConnection, ConnectionError, SendStream, VarInt};
use ouisync_model::id::DeviceId;
use tokio_util::sync::CancellationToken;

use crate::{
    bulk::{BulkReceiver, BulkSender},
    connection::{CloseCode, Closed, Connection, ConnectionHandle, Facts, Link, Traffic},
    control::{ControlReceiver, ControlSender},
    stream::{BoxFuture, ByteSink, ByteSource, StreamError},
};

/// Label of the exporter.
const EXPORTER_LABEL: &[u8] = b"ouisync v1 peer proof";
/// Control overtakes bulk: a higher number goes first.
const CONTROL_PRIORITY: i32 = 1;
const BULK_PRIORITY: i32 = 0;

/// Completes a connection that this side dialled: opens the control stream.
pub(super) async fn dialled(
    quic: QuicConnection,
    closing: CancellationToken,
) -> Result<Connection, StreamError> {
    let (send, receive) = quic.open_bi().await.map_err(StreamError::ended)?;
    let mut control_sender = ControlSender::new(sink(send, CONTROL_PRIORITY)?);
    control_sender.open().await?;
    assemble(quic, closing, true, control_sender, Box::new(receive))
}

/// Completes a connection that the peer dialled: waits for its control stream.
pub(super) async fn accepted(
    quic: QuicConnection,
    closing: CancellationToken,
) -> Result<Connection, StreamError> {
    let (send, receive) = quic.accept_bi().await.map_err(StreamError::ended)?;
    let control_sender = ControlSender::new(sink(send, CONTROL_PRIORITY)?);
    assemble(quic, closing, false, control_sender, Box::new(receive))
}

fn assemble(
    quic: QuicConnection,
    closing: CancellationToken,
    is_dialer: bool,
    control_sender: ControlSender,
    control_source: ByteSource,
) -> Result<Connection, StreamError> {
    let mut exporter = [0; 32];
    quic.export_keying_material(&mut exporter, EXPORTER_LABEL, b"")
        .map_err(|error| StreamError::Ended(format!("no exporter: {error:?}").into()))?;
    let peer = DeviceId::from_bytes(*quic.remote_id().as_bytes());
    let (sending, receiving) = (quic.clone(), quic.clone());
    let bulk_sender = BulkSender::new(Box::pin(async move {
        sink(
            sending.open_uni().await.map_err(StreamError::ended)?,
            BULK_PRIORITY,
        )
    }));
    let bulk_receiver = BulkReceiver::new(Box::pin(async move {
        let stream = receiving.accept_uni().await.map_err(StreamError::ended)?;
        Ok(Box::new(stream) as ByteSource)
    }));
    Ok(Connection {
        handle: ConnectionHandle::new(
            Arc::new(QuicLink { quic, closing }),
            Facts {
                peer,
                is_dialer,
                exporter,
            },
        ),
        control_sender,
        control_receiver: ControlReceiver::new(control_source),
        bulk_sender,
        bulk_receiver,
    })
}

fn sink(stream: SendStream, priority: i32) -> Result<Box<dyn ByteSink>, StreamError> {
    stream.set_priority(priority).map_err(StreamError::ended)?;
    Ok(Box::new(QuicSink(stream)))
}

/// Round-trip time of the path in use.
pub(super) fn rtt(quic: &QuicConnection) -> Option<Duration> {
    let paths = quic.paths();
    let path = paths
        .iter()
        .find(|path| path.is_selected())
        .or_else(|| paths.iter().next())?;
    Some(path.rtt())
}

struct QuicSink(SendStream);

impl ByteSink for QuicSink {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), StreamError>> {
        Box::pin(async move { self.0.write_chunk(bytes).await.map_err(StreamError::ended) })
    }
}

struct QuicLink {
    quic: QuicConnection,
    /// Cancelled once this endpoint closes.
    closing: CancellationToken,
}

impl Link for QuicLink {
    fn remote_address(&self) -> Option<SocketAddr> {
        let paths = self.quic.paths();
        let path = paths
            .iter()
            .find(|path| path.is_selected())
            .or_else(|| paths.iter().next())?;
        match path.remote_addr() {
            iroh::TransportAddr::Ip(socket) => Some(*socket),
            _ => None,
        }
    }

    fn rtt(&self) -> Option<Duration> {
        rtt(&self.quic)
    }

    fn traffic(&self) -> Traffic {
        let stats = self.quic.stats();
        Traffic {
            sent: stats.udp_tx.bytes,
            received: stats.udp_rx.bytes,
        }
    }

    fn close(&self, code: CloseCode, reason: &str) {
        self.quic
            .close(VarInt::from_u32(code.to_wire()), reason.as_bytes());
    }

    fn closed(&self) -> BoxFuture<'_, Closed> {
        Box::pin(async move {
            match self.quic.closed().await {
                ConnectionError::LocallyClosed => Closed::Here,
                ConnectionError::ApplicationClosed(close) => {
                    let code = u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX);
                    let reason = &close.reason[..close.reason.len().min(256)];
                    Closed::ByPeer {
                        code: CloseCode::from_wire(code),
                        reason: String::from_utf8_lossy(reason).into_owned(),
                    }
                }
                ConnectionError::TimedOut | ConnectionError::Reset => Closed::Lost,
                // The endpoint may be gone before it has told its own connections.
                _ if self.closing.is_cancelled() => Closed::Here,
                error => Closed::Failed(error.to_string()),
            }
        })
    }
}
