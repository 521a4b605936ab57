//! The real transport: QUIC with TLS 1.3 by `iroh`, over plain UDP.
//!
//! Everything of `iroh` that would contact a third party is off: relays, DNS, look-up servers, port mapping, metrics.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use iroh::{
    EndpointAddr, EndpointId, RelayMode, TransportAddr,
    dns::DnsResolver,
    endpoint::{
        ConnectWithOptsError, Incoming, IncomingAddr, VarInt, WeakConnectionHandle, presets,
    },
};
use ouisync_model::id::DeviceId;
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, warn};

use crate::{
    address::{DeviceAddress, MAX_SOCKETS, is_dialable, network_of},
    connection::{CloseCode, Connection},
    endpoint::{BindError, ConnectError, NetOptions, Transport},
    lan::{LanBook, LanEvents},
    quic::places::{Admission, Places},
    stream::BoxFuture,
};

mod discovery;
mod link;
mod places;
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
/// How long peers get to hear of the end, at least and at most.
const FAREWELL: (Duration, Duration) = (Duration::from_millis(400), Duration::from_secs(1));
/// Connections that wait to be accepted.
const ACCEPT_QUEUE: usize = 16;

/// The device on UDP.
pub(crate) struct QuicTransport {
    /// `None` once closed: the sockets stay bound as long as any clone of it lives.
    endpoint: RwLock<Option<iroh::Endpoint>>,
    device: DeviceId,
    accepted: Mutex<mpsc::Receiver<Connection>>,
    closing: CancellationToken,
    open: OpenConnections,
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
        socket::until_closed(options.listen).await;
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
        let discoverable = is_discoverable(&options);
        if discoverable {
            let lookup = discovery::BookLookup(lan.clone());
            builder = builder.address_lookup(lookup);
        }
        let endpoint = builder
            .bind()
            .await
            .map_err(|error| BindError::Transport(Box::new(error)))?;
        let closing = CancellationToken::new();
        let open = OpenConnections::default();
        let discovery = discoverable.then(|| {
            let run = discovery::run(endpoint.clone(), lan.clone(), closing.clone());
            AbortOnDropHandle::new(tokio::spawn(run))
        });
        let (sender, receiver) = mpsc::channel(ACCEPT_QUEUE);
        let acceptor = tokio::spawn(accept_all(
            endpoint.clone(),
            sender,
            closing.clone(),
            open.clone(),
        ));
        Ok(Self {
            endpoint: RwLock::new(Some(endpoint)),
            device,
            accepted: Mutex::new(receiver),
            closing,
            open,
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
            self.open.add(&connection);
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
            // Every connection sends its last packet at once; what is waited for is that a peer answers it. A dial that nobody answers
            // would hold this up for seconds: then closing ends by itself, later.
            let farewell = self.open.farewell();
            let closing_sockets = socket::Closing::begin(bound.clone());
            let closing = tokio::spawn(async move {
                let _closing = closing_sockets;
                endpoint.close().await;
                drop(endpoint);
                socket::until_free(&bound).await;
            });
            if timeout(farewell, closing).await.is_err() {
                debug!("some peers may not have heard of the end");
            }
        })
    }
}

/// Whether others on the LAN could reach what would be announced there.
fn is_discoverable(options: &NetOptions) -> bool {
    let Some(listen) = options.listen.filter(|_| options.lan) else {
        return options.lan;
    };
    if listen.ip().is_loopback() {
        warn!(
            %listen,
            "no discovery on the LAN: this device listens on this machine only, where nobody else can reach it"
        );
    }
    !listen.ip().is_loopback()
}

/// The connections whose handshake has ended, as long as they last.
#[derive(Clone, Default)]
struct OpenConnections(Arc<std::sync::Mutex<Vec<WeakConnectionHandle>>>);

impl OpenConnections {
    fn add(&self, connection: &iroh::endpoint::Connection) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|known| known.upgrade().is_some());
        open.push(connection.weak_handle());
    }

    /// How long it takes until the peers that still answer have heard of the end.
    fn farewell(&self) -> Duration {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answering = open
            .iter()
            .filter_map(WeakConnectionHandle::upgrade)
            .filter(|connection| connection.close_reason().is_none());
        let slowest = answering
            .map(|connection| link::rtt(&connection).unwrap_or_default())
            .max();
        (slowest.unwrap_or_default() * 5).clamp(FAREWELL.0, FAREWELL.1)
    }
}

/// Takes newcomers through their handshakes, a bounded number at a time, until closed.
async fn accept_all(
    endpoint: iroh::Endpoint,
    sender: mpsc::Sender<Connection>,
    closing: CancellationToken,
    open: OpenConnections,
) {
    let mut handshakes = JoinSet::new();
    let places = Places::default();
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            Some(_) = handshakes.join_next(), if !handshakes.is_empty() => {}
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { return };
                let network = match incoming.remote_addr() {
                    IncomingAddr::Ip(remote) => Some(network_of(remote.ip())),
                    _ => None,
                };
                match places.admit(network, incoming.remote_addr_validated()) {
                    Admission::Refused => incoming.refuse(),
                    // An error means that it was validated meanwhile; dropping it refuses it.
                    Admission::Prove => drop(incoming.retry()),
                    Admission::Admitted(place) => {
                        let accepted = accept_one(incoming, sender.clone(), closing.clone(), open.clone());
                        handshakes.spawn(async move {
                            let _place = place;
                            timeout(ACCEPT_TIMEOUT, accepted).await
                        });
                    }
                }
            }
        }
    }
}

async fn accept_one(
    incoming: Incoming,
    sender: mpsc::Sender<Connection>,
    closing: CancellationToken,
    open: OpenConnections,
) {
    let connection = match incoming.await {
        Ok(connection) => connection,
        Err(error) => return debug!(%error, "an incoming connection failed"),
    };
    open.add(&connection);
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
