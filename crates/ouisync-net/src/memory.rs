//! A transport within one process: for tests of everything above, with the same rules as the real one.
//!
//! Connections are authenticated by construction. Sockets play no part: a device is found by its id alone.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use ouisync_model::id::DeviceId;
use tokio::{
    io::{AsyncRead, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf, duplex},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    address::DeviceAddress,
    bulk::{BulkReceiver, BulkSender},
    connection::{CloseCode, Closed, Connection, ConnectionHandle, Facts, Link, Traffic},
    control::{ControlReceiver, ControlSender},
    endpoint::{ConnectError, Endpoint, Transport},
    lan::{LanBook, LanEvents},
    stream::{BoxFuture, ByteSink, ByteSource, StreamError},
};

/// How many bytes a stream holds before its sender waits.
const WINDOW: usize = 1 << 20;

/// Devices that can reach each other.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    devices: Mutex<HashMap<DeviceId, mpsc::Sender<Incoming>>>,
    connections: AtomicU64,
}

impl Shared {
    fn devices(&self) -> MutexGuard<'_, HashMap<DeviceId, mpsc::Sender<Incoming>>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryNetwork {
    /// An endpoint for `device` in this network, replacing an earlier one of the same device.
    pub fn endpoint(&self, device: DeviceId) -> Endpoint {
        let (sender, receiver) = mpsc::channel(16);
        self.shared.devices().insert(device, sender);
        Endpoint::new(Arc::new(MemoryTransport {
            device,
            shared: self.shared.clone(),
            incoming: tokio::sync::Mutex::new(receiver),
            closing: CancellationToken::new(),
            lan: LanBook::default(),
        }))
    }
}

struct MemoryTransport {
    device: DeviceId,
    shared: Arc<Shared>,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Incoming>>,
    closing: CancellationToken,
    lan: LanBook,
}

impl Transport for MemoryTransport {
    fn device(&self) -> DeviceId {
        self.device
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        vec![SocketAddr::from(([127, 0, 0, 1], 1))]
    }

    fn connect<'a>(
        &'a self,
        address: &'a DeviceAddress,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        Box::pin(async move {
            let device = address.device;
            if device == self.device {
                return Err(ConnectError::SelfDial);
            }
            if self.closing.is_cancelled() {
                return Err(ConnectError::Closed);
            }
            let sender = self.shared.devices().get(&device).cloned();
            let sender = sender.ok_or(ConnectError::NoAddress { device })?;
            let number = self.shared.connections.fetch_add(1, Ordering::Relaxed);
            let (here, there, state) = pair(self.device, device, number);
            close_with(self.device, state.clone(), self.closing.clone());
            sender
                .send((there, state))
                .await
                .map_err(|_| ConnectError::TimedOut { device })?;
            Ok(here)
        })
    }

    fn accept(&self) -> BoxFuture<'_, Option<Connection>> {
        Box::pin(async move {
            let mut incoming = self.incoming.lock().await;
            tokio::select! {
                () = self.closing.cancelled() => None,
                connection = incoming.recv() => {
                    let (connection, state) = connection?;
                    close_with(self.device, state, self.closing.clone());
                    Some(connection)
                }
            }
        })
    }

    fn lan_events(&self) -> LanEvents {
        self.lan.subscribe()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.shared.devices().remove(&self.device);
            self.closing.cancel();
            self.lan.close();
        })
    }
}

type Incoming = (Connection, Arc<State>);

/// What both ends share: who closed the connection and how, once somebody has.
type State = watch::Sender<Option<(DeviceId, CloseCode, String)>>;

fn close(state: &State, by: DeviceId, code: CloseCode, reason: &str) {
    state.send_if_modified(|state| {
        let open = state.is_none();
        if open {
            *state = Some((by, code, reason.to_owned()));
        }
        open
    });
}

/// Closes the connection when its endpoint closes; ends with the connection.
fn close_with(local: DeviceId, state: Arc<State>, closing: CancellationToken) {
    tokio::spawn(async move {
        let mut closed = state.subscribe();
        tokio::select! {
            _ = closed.wait_for(Option::is_some) => {}
            () = closing.cancelled() => close(&state, local, CloseCode::Finished, "endpoint closed"),
        }
    });
}

/// One end; the connection closes when the last handle and half of an end is dropped.
struct MemoryLink {
    local: DeviceId,
    state: Arc<State>,
}

impl MemoryLink {
    fn until_closed(&self) -> BoxFuture<'static, ()> {
        let mut receiver = self.state.subscribe();
        Box::pin(async move {
            // An error means that both ends are gone.
            let _ = receiver.wait_for(Option::is_some).await;
        })
    }
}

impl Link for MemoryLink {
    fn remote_address(&self) -> Option<SocketAddr> {
        None
    }

    fn rtt(&self) -> Option<Duration> {
        None
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn close(&self, code: CloseCode, reason: &str) {
        close(&self.state, self.local, code, reason);
    }

    fn closed(&self) -> BoxFuture<'_, Closed> {
        Box::pin(async move {
            self.until_closed().await;
            match &*self.state.borrow() {
                Some((by, _, _)) if *by == self.local => Closed::Here,
                Some((_, code, reason)) => Closed::ByPeer {
                    code: *code,
                    reason: reason.clone(),
                },
                None => Closed::Lost,
            }
        })
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        self.close(CloseCode::Finished, "");
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the connection is closed")]
struct ConnectionClosed;

struct MemorySink {
    stream: WriteHalf<DuplexStream>,
    link: Arc<MemoryLink>,
}

impl ByteSink for MemorySink {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), StreamError>> {
        Box::pin(async move {
            tokio::select! {
                biased;
                () = self.link.until_closed() => Err(StreamError::ended(ConnectionClosed)),
                result = self.stream.write_all(&bytes) => result.map_err(StreamError::ended),
            }
        })
    }
}

struct MemorySource {
    stream: ReadHalf<DuplexStream>,
    closed: Mutex<BoxFuture<'static, ()>>,
    _link: Arc<MemoryLink>,
}

impl AsyncRead for MemorySource {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let closed = this
            .closed
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if closed.as_mut().poll(context).is_ready() {
            // A finished future must not be polled again.
            *closed = Box::pin(std::future::ready(()));
            return Poll::Ready(Err(io::Error::other(ConnectionClosed)));
        }
        Pin::new(&mut this.stream).poll_read(context, buffer)
    }
}

fn pair(dialer: DeviceId, acceptor: DeviceId, number: u64) -> (Connection, Connection, Arc<State>) {
    let mut exporter = [0; 32];
    exporter[..8].copy_from_slice(&number.to_le_bytes());
    exporter[8..16].copy_from_slice(&dialer.as_bytes()[..8]);
    exporter[16..24].copy_from_slice(&acceptor.as_bytes()[..8]);
    let state = Arc::new(State::new(None));
    let (control_here, control_there) = duplex(WINDOW);
    let (bulk_here, bulk_there) = duplex(WINDOW);
    let end = |local, facts, control, bulk| {
        let link = Arc::new(MemoryLink {
            local,
            state: state.clone(),
        });
        let (control_source, control_sink) = halves(control, &link);
        let (bulk_source, bulk_sink) = halves(bulk, &link);
        Connection {
            handle: ConnectionHandle::new(link, facts),
            control_sender: ControlSender::new(control_sink),
            control_receiver: ControlReceiver::new(control_source),
            bulk_sender: BulkSender::new(Box::pin(async move { Ok(bulk_sink) })),
            bulk_receiver: BulkReceiver::new(Box::pin(async move { Ok(bulk_source) })),
        }
    };
    let here = end(
        dialer,
        Facts {
            peer: acceptor,
            is_dialer: true,
            exporter,
        },
        control_here,
        bulk_here,
    );
    let there = end(
        acceptor,
        Facts {
            peer: dialer,
            is_dialer: false,
            exporter,
        },
        control_there,
        bulk_there,
    );
    (here, there, state)
}

fn halves(stream: DuplexStream, link: &Arc<MemoryLink>) -> (ByteSource, Box<dyn ByteSink>) {
    let (source, sink) = tokio::io::split(stream);
    let closed = Mutex::new(link.until_closed());
    (
        Box::new(MemorySource {
            stream: source,
            closed,
            _link: link.clone(),
        }),
        Box::new(MemorySink {
            stream: sink,
            link: link.clone(),
        }),
    )
}
