//! Which sockets to bind and which addresses they make reachable.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::endpoint::BindError;

/// The sockets to bind for `listen`, each tried first, so that a taken port gives a clear error instead of being
/// shared or moved. All interfaces means both families with one port; a host without IPv6 gets IPv4 alone.
pub(super) fn check(listen: Option<SocketAddr>) -> Result<Vec<SocketAddr>, BindError> {
    let listen = listen.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    if !listen.ip().is_unspecified() {
        probe(listen)?;
        return Ok(vec![listen]);
    }
    let v4 = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let v6 = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    if listen.port() != 0 {
        probe(v4(listen.port()))?;
        return match probe(v6(listen.port())) {
            Err(BindError::Socket { .. }) => Ok(vec![v4(listen.port())]),
            Err(error) => Err(error),
            Ok(_) => Ok(vec![v4(listen.port()), v6(listen.port())]),
        };
    }
    // Any port, but the same for both families.
    let mut tries = 0;
    loop {
        let port = probe(v4(0))?.port();
        match probe(v6(port)) {
            Ok(_) => return Ok(vec![v4(port), v6(port)]),
            Err(BindError::PortTaken { .. }) if tries < 16 => tries += 1,
            Err(_) => return Ok(vec![v4(port)]),
        }
    }
}

/// Binds and frees a socket; gives its actual address.
fn probe(socket: SocketAddr) -> Result<SocketAddr, BindError> {
    UdpSocket::bind(socket)
        .and_then(|bound| bound.local_addr())
        .map_err(|source| match source.kind() {
            ErrorKind::AddrInUse => BindError::PortTaken { socket },
            _ => BindError::Socket { socket, source },
        })
}

/// Waits until the sockets of a closed endpoint are free; its tasks end on their own, a moment later.
pub(super) async fn until_free(bound: &[SocketAddr]) {
    while bound
        .iter()
        .any(|socket| matches!(probe(*socket), Err(BindError::PortTaken { .. })))
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Sockets of this process's endpoints that are still being closed: an endpoint that follows on one of them waits for it.
static CLOSING: Mutex<Vec<SocketAddr>> = Mutex::new(Vec::new());
/// How long it waits at most.
const CLOSING_LIMIT: Duration = Duration::from_secs(5);

/// Marks sockets as being closed, until it is dropped.
pub(super) struct Closing(Vec<SocketAddr>);

impl Closing {
    pub(super) fn begin(sockets: Vec<SocketAddr>) -> Self {
        closing().extend(&sockets);
        Self(sockets)
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        closing().retain(|socket| !self.0.contains(socket));
    }
}

fn closing() -> MutexGuard<'static, Vec<SocketAddr>> {
    CLOSING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until this process itself no longer holds the port.
pub(super) async fn until_closed(listen: Option<SocketAddr>) {
    let Some(port) = listen.map(|listen| listen.port()).filter(|port| *port != 0) else {
        return;
    };
    let closed = async {
        while closing().iter().any(|socket| socket.port() == port) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // If it takes longer, binding tells that the port is taken.
    let _ = tokio::time::timeout(CLOSING_LIMIT, closed).await;
}

/// Where the endpoint can be reached now; loopback only when there is nothing else.
pub(super) fn reachable(endpoint: &iroh::Endpoint) -> Vec<SocketAddr> {
    let mut sockets: Vec<SocketAddr> = endpoint.addr().ip_addrs().copied().collect();
    for bound in endpoint.bound_sockets() {
        let concrete = match bound.ip() {
            ip if !ip.is_unspecified() => bound,
            // The interfaces are not known yet, or there are none but loopback.
            IpAddr::V4(_) if sockets.is_empty() => {
                SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port()))
            }
            _ => continue,
        };
        if !sockets.contains(&concrete) {
            sockets.push(concrete);
        }
    }
    sockets
}
