//! The real transport: QUIC with TLS 1.3 by `iroh`, over plain UDP.
//!
//! Everything of `iroh` that would contact a third party is off: relays, DNS, look-up servers, port mapping, metrics.

use std::{
    net::SocketAddr,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use iroh::{
    EndpointAddr, EndpointId, RelayMode, TransportAddr,
    dns::DnsResolver,
    endpoint::{ConnectWithOptsError, Incoming, VarInt, presets},
};
use ouisync_model::id::DeviceId;
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::debug;

use crate::{
    address::{DeviceAddress, MAX_SOCKETS, is_dialable},
    connection::{CloseCode, Connection},
    endpoint::{BindError, ConnectError, NetOptions, Transport},
    lan::{LanBook, LanEvents},
    stream::BoxFuture,
};

mod discovery;
mod link;
mod socket;
mod tuning;

/// Name of the protocol in the TLS handshake.
const ALPN: &[u8] = b"ouisync/1";
/// How long a dial to known sockets may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a dial may take that must first find the device on the LAN.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a newcomer may take from its first packet to an open control stream.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Newcomers in the handshake at a time; beyond half of it they must prove their address first.
const MAX_HANDSHAKES: usize = 64;
/// Connections that wait to be accepted.
const ACCEPT_QUEUE: usize = 16;

/// The device on UDP.
pub(crate) struct QuicTransport {
    /// `None` once closed: the sockets stay bound as long as any clone of it lives.
    endpoint: RwLock<Option<iroh::Endpoint>>,
    device: DeviceId,
    accepted: Mutex<mpsc::Receiver<Connection>>,
    closing: CancellationToken,
    lan: LanBook,
    discovery: Option<AbortOnDropHandle<()>>,
    acceptor: AbortOnDropHandle<()>,
}

impl QuicTransport {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place, with the preset that contacts nobody"
    )]
    pub(crate) async fn bind(options: NetOptions) -> Result<Self, BindError> {
        let device = options.key.device();
        let sockets = socket::check(options.listen)?;
        let mut builder = iroh::Endpoint::builder(presets::Minimal)
            .relay_mode(RelayMode::Disabled)
            // Never asked, since no name is ever looked up; without the fall-back servers it could not leave the host's own.
            .dns_resolver(DnsResolver::builder().disable_fallback().build())
            .secret_key(options.key.secret())
            .alpns(vec![ALPN.to_vec()])
            .transport_config(tuning::transport_config())
            .clear_ip_transports();
        for socket in sockets {
            builder = builder
                .bind_addr(socket)
                .map_err(|error| BindError::Transport(Box::new(error)))?;
        }
        let lan = LanBook::default();
        if options.lan {
            let lookup = discovery::BookLookup(lan.clone());
            builder = builder.address_lookup(lookup);
        }
        let endpoint = builder
            .bind()
            .await
            .map_err(|error| BindError::Transport(Box::new(error)))?;
        let closing = CancellationToken::new();
        let discovery = options.lan.then(|| {
            let run = discovery::run(endpoint.clone(), lan.clone(), closing.clone());
            AbortOnDropHandle::new(tokio::spawn(run))
        });
        let (sender, receiver) = mpsc::channel(ACCEPT_QUEUE);
        let acceptor = tokio::spawn(accept_all(endpoint.clone(), sender, closing.clone()));
        Ok(Self {
            endpoint: RwLock::new(Some(endpoint)),
            device,
            accepted: Mutex::new(receiver),
            closing,
            lan,
            discovery,
            acceptor: AbortOnDropHandle::new(acceptor),
        })
    }

    fn endpoint(&self) -> Option<iroh::Endpoint> {
        self.endpoint
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn dial(&self, address: &DeviceAddress) -> Result<Connection, ConnectError> {
        let device = address.device;
        if device == self.device {
            return Err(ConnectError::SelfDial);
        }
        let endpoint = self.endpoint().ok_or(ConnectError::Closed)?;
        let failed = |source| ConnectError::Failed { device, source };
        let id =
            EndpointId::from_bytes(device.as_bytes()).map_err(|error| failed(Box::new(error)))?;
        let mut sockets: Vec<SocketAddr> = Vec::new();
        for socket in address
            .sockets
            .iter()
            .copied()
            .chain(self.lan.sockets(device))
        {
            if is_dialable(&socket) && !sockets.contains(&socket) && sockets.len() < MAX_SOCKETS {
                sockets.push(socket);
            }
        }
        if sockets.is_empty() && self.discovery.is_none() {
            return Err(ConnectError::NoAddress { device });
        }
        let limit = if sockets.is_empty() {
            SEARCH_TIMEOUT
        } else {
            DIAL_TIMEOUT
        };
        let address = EndpointAddr::from_parts(id, sockets.into_iter().map(TransportAddr::Ip));
        let connecting = async {
            let connection =
                endpoint
                    .connect(address, ALPN)
                    .await
                    .map_err(|error| match error {
                        iroh::endpoint::ConnectError::Connect {
                            source: ConnectWithOptsError::NoAddress { .. },
                            ..
                        } => ConnectError::NoAddress { device },
                        iroh::endpoint::ConnectError::Connect {
                            source: ConnectWithOptsError::EndpointClosed { .. },
                            ..
                        } => ConnectError::Closed,
                        error => failed(Box::new(error)),
                    })?;
            link::dialled(connection, self.closing.clone())
                .await
                .map_err(|error| failed(Box::new(error)))
        };
        tokio::select! {
            () = self.closing.cancelled() => Err(ConnectError::Closed),
            result = timeout(limit, connecting) => result.unwrap_or(Err(ConnectError::TimedOut { device })),
        }
    }
}

impl Transport for QuicTransport {
    fn device(&self) -> DeviceId {
        self.device
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.endpoint()
            .map_or_else(Vec::new, |endpoint| socket::reachable(&endpoint))
    }

    fn connect<'a>(
        &'a self,
        address: &'a DeviceAddress,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        Box::pin(self.dial(address))
    }

    fn accept(&self) -> BoxFuture<'_, Option<Connection>> {
        Box::pin(async move {
            let mut accepted = self.accepted.lock().await;
            tokio::select! {
                () = self.closing.cancelled() => None,
                connection = accepted.recv() => connection,
            }
        })
    }

    fn lan_events(&self) -> LanEvents {
        self.lan.subscribe()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.closing.cancel();
            self.lan.close();
            let endpoint = self
                .endpoint
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let Some(endpoint) = endpoint else { return };
            self.acceptor.abort();
            if let Some(discovery) = &self.discovery {
                discovery.abort();
            }
            let bound = endpoint.bound_sockets();
            let closing = async {
                endpoint.close().await;
                drop(endpoint);
                socket::until_free(&bound).await;
            };
            if timeout(CLOSE_TIMEOUT, closing).await.is_err() {
                debug!("closing the endpoint took too long");
            }
        })
    }
}

/// Takes newcomers through their handshakes, a bounded number at a time, until closed.
async fn accept_all(
    endpoint: iroh::Endpoint,
    sender: mpsc::Sender<Connection>,
    closing: CancellationToken,
) {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            Some(_) = handshakes.join_next(), if !handshakes.is_empty() => {}
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { return };
                if handshakes.len() >= MAX_HANDSHAKES {
                    incoming.refuse();
                } else if handshakes.len() >= MAX_HANDSHAKES / 2 && !incoming.remote_addr_validated() {
                    // An error means that it was validated meanwhile; dropping it refuses it.
                    let _ = incoming.retry();
                } else {
                    handshakes.spawn(timeout(ACCEPT_TIMEOUT, accept_one(incoming, sender.clone(), closing.clone())));
                }
            }
        }
    }
}

async fn accept_one(
    incoming: Incoming,
    sender: mpsc::Sender<Connection>,
    closing: CancellationToken,
) {
    let connection = match incoming.await {
        Ok(connection) => connection,
        Err(error) => return debug!(%error, "an incoming connection failed"),
    };
    let raw = connection.clone();
    match link::accepted(connection, closing).await {
        // The caller takes too long: turn the newcomer away rather than keep it in the dark.
        Ok(connection) => {
            if sender.try_send(connection).is_err() {
                raw.close(VarInt::from_u32(CloseCode::Overloaded.to_wire()), b"busy");
            }
        }
        Err(error) => debug!(%error, "an incoming connection opened no control stream"),
    }
}
