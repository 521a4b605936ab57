//! Multicast discovery: announces this device, feeds the [`LanBook`], and lets `iroh` look devices up in it.
//!
//! The look-up of the mDNS crate gives up after 10 s and hides devices being dialled from its subscribers, so only its
//! announcing and its events are used, and looking up goes through the book.

use std::net::SocketAddr;

use iroh::{
    EndpointId, TransportAddr,
    address_lookup::{AddressLookup, EndpointData, EndpointInfo, Error as LookupError, Item},
};
use iroh_mdns_address_lookup::{DiscoveryEvent, MdnsAddressLookup};
use n0_future::{StreamExt, boxed::BoxStream, stream};
use ouisync_model::id::DeviceId;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::lan::{LanBook, LanEvent};

/// Announced as `_ouisync._udp.local`.
const SERVICE: &str = "ouisync";

/// Discovery that runs until dropped.
pub(super) struct Discovery {
    _listener: AbortOnDropHandle<()>,
}

impl Discovery {
    pub(super) async fn start(
        endpoint: &iroh::Endpoint,
        book: LanBook,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mdns = MdnsAddressLookup::builder()
            .service_name(SERVICE)
            .build(endpoint.id())?;
        let mut events = mdns.subscribe().await;
        endpoint.address_lookup()?.add(BookLookup {
            mdns: mdns.clone(),
            book: book.clone(),
        });
        let listener = tokio::spawn(async move {
            // Owned here, so that discovery stops with this task.
            let _mdns = mdns;
            while let Some(event) = events.next().await {
                match event {
                    DiscoveryEvent::Discovered { endpoint_info, .. } => {
                        let device = DeviceId::from_bytes(*endpoint_info.endpoint_id.as_bytes());
                        book.seen(device, endpoint_info.data.ip_addrs().copied().collect());
                    }
                    DiscoveryEvent::Expired { endpoint_id } => {
                        book.gone(DeviceId::from_bytes(*endpoint_id.as_bytes()));
                    }
                    other => debug!(?other, "unknown discovery event"),
                }
            }
        });
        Ok(Self {
            _listener: AbortOnDropHandle::new(listener),
        })
    }
}

/// Announces through mDNS, resolves from the book.
#[derive(Debug)]
struct BookLookup {
    mdns: MdnsAddressLookup,
    book: LanBook,
}

impl AddressLookup for BookLookup {
    fn publish(&self, data: &EndpointData) {
        self.mdns.publish(data);
    }

    /// What is known now and every later sighting; the dialler bounds the time.
    fn resolve(&self, endpoint: EndpointId) -> Option<BoxStream<Result<Item, LookupError>>> {
        let device = DeviceId::from_bytes(*endpoint.as_bytes());
        Some(Box::pin(stream::unfold(
            self.book.subscribe(),
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
