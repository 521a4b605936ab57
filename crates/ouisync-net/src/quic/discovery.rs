//! Multicast discovery: announces this device, feeds the [`LanBook`], and lets `iroh` look devices up in it.
//!
//! Uses `swarm-discovery` (mDNS, `_ouisync._udp.local`, 224.0.0.251 and ff02::fb port 5353) on the address of each
//! interface: `iroh`'s own mDNS look-up sends on the interface of the default route only and so finds nothing on an
//! isolated network. Discovery starts anew whenever the interfaces change.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use data_encoding::BASE32_NOPAD;
use iroh::{
    EndpointId, TransportAddr, Watcher,
    address_lookup::{AddressLookup, EndpointData, EndpointInfo, Error as LookupError, Item},
};
use n0_future::{boxed::BoxStream, stream};
use ouisync_model::id::DeviceId;
use swarm_discovery::{Discoverer, DropGuard, IpClass, Peer};
use tokio::{runtime::Handle, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::lan::{LanBook, LanEvent};

/// Announced as `_ouisync._udp.local`.
const SERVICE: &str = "ouisync";
/// A newcomer is found within 1.2 times this; also about how often an idle LAN carries a query.
const CADENCE: Duration = Duration::from_secs(1);
/// Answers a second that the LAN should carry; times the cadence it must exceed 1.
const RESPONSES_PER_SECOND: f32 = 2.5;
/// When multicast can't be had now.
const RETRY: Duration = Duration::from_secs(10);

/// Runs until `closing`. A host without multicast still reaches known addresses.
pub(super) async fn run(endpoint: iroh::Endpoint, book: LanBook, closing: CancellationToken) {
    let device = DeviceId::from_bytes(*endpoint.id().as_bytes());
    let mut addresses = endpoint.watch_addr();
    let mut announced = Vec::new();
    let mut running: Option<DropGuard> = None;
    loop {
        let mut sockets: Vec<SocketAddr> = addresses
            .get()
            .ip_addrs()
            .copied()
            .filter(|socket| !socket.ip().is_loopback())
            .collect();
        sockets.sort_unstable();
        if running.is_none() || sockets != announced {
            drop(running.take());
            book.forget_all();
            running = match start(device, &sockets, book.clone()) {
                Ok(guard) => Some(guard),
                Err(error) => {
                    warn!(%error, "no discovery on the LAN for now");
                    None
                }
            };
            announced = sockets;
        }
        let wait = if running.is_some() {
            Duration::MAX
        } else {
            RETRY
        };
        tokio::select! {
            () = closing.cancelled() => return,
            changed = timeout(wait, addresses.updated()) => {
                if matches!(changed, Ok(Err(_))) {
                    return;
                }
            }
        }
    }
}

fn start(
    device: DeviceId,
    sockets: &[SocketAddr],
    book: LanBook,
) -> Result<DropGuard, Box<swarm_discovery::SpawnError>> {
    let interfaces: Vec<_> = sockets
        .iter()
        .filter_map(|socket| match socket.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        })
        .collect();
    // With both families, queries go out by IPv4 when no interface is named, even where there is only IPv6.
    let class = match (interfaces.is_empty(), sockets.is_empty()) {
        (true, false) => IpClass::V6Only,
        _ => IpClass::Auto,
    };
    let mut discoverer = Discoverer::new(SERVICE.to_owned(), label(device))
        .with_cadence(CADENCE)
        .with_response_rate(RESPONSES_PER_SECOND)
        .with_ip_class(class)
        .with_multicast_interfaces_v4(interfaces)
        .with_callback(move |label, peer| heard(&book, device, label, peer));
    for socket in sockets {
        discoverer = discoverer.with_addrs(socket.port(), [socket.ip()]);
    }
    discoverer.spawn(&Handle::current()).map_err(Box::new)
}

/// A device in a DNS label: base 32, since 64 hexadecimal digits are one too many.
fn label(device: DeviceId) -> String {
    BASE32_NOPAD.encode(device.as_bytes()).to_ascii_lowercase()
}

fn heard(book: &LanBook, local: DeviceId, label: &str, peer: &Peer) {
    let bytes = BASE32_NOPAD
        .decode(label.to_ascii_uppercase().as_bytes())
        .ok();
    let Some(bytes) = bytes.and_then(|bytes| <[u8; DeviceId::LENGTH]>::try_from(bytes).ok()) else {
        return debug!(label, "not a device on the LAN");
    };
    let device = DeviceId::from_bytes(bytes);
    if device == local {
    } else if peer.is_expiry() {
        book.gone(device);
    } else {
        book.seen(
            device,
            peer.addrs()
                .iter()
                .map(|(ip, port)| SocketAddr::new(*ip, *port))
                .collect(),
        );
    }
}

/// Resolves devices from the book while they are dialled; announcing is done elsewhere.
#[derive(Debug)]
pub(super) struct BookLookup(pub(super) LanBook);

impl AddressLookup for BookLookup {
    fn publish(&self, _data: &EndpointData) {}

    /// What is known now and every later sighting; the dialler bounds the time.
    fn resolve(&self, endpoint: EndpointId) -> Option<BoxStream<Result<Item, LookupError>>> {
        let device = DeviceId::from_bytes(*endpoint.as_bytes());
        Some(Box::pin(stream::unfold(
            self.0.subscribe(),
            move |mut events| async move {
                loop {
                    if let LanEvent::Seen {
                        device: seen,
                        sockets,
                    } = events.recv().await?
                        && seen == device
                    {
                        return Some((Ok(item(endpoint, sockets)), events));
                    }
                }
            },
        )))
    }
}

fn item(endpoint: EndpointId, sockets: Vec<SocketAddr>) -> Item {
    let data = EndpointData::from_iter(sockets.into_iter().map(TransportAddr::Ip));
    Item::new(EndpointInfo::from_parts(endpoint, data), "lan", None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fit_dns() {
        assert_eq!(label(DeviceId::from_bytes([0xff; 32])).len(), 52);
    }
}
