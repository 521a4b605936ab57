//! Binding the device's network.

use std::net::SocketAddr;

use ouisync_net::endpoint::{BindError, Endpoint, NetOptions};

use crate::{error::EngineError, keys::Keys};

/// Binds the network on the given address, or on the port chosen at the first start.
pub(super) async fn bind(
    keys: &Keys,
    listen: Option<SocketAddr>,
    lan: bool,
) -> Result<Endpoint, EngineError> {
    let mut device = keys.device();
    let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let wanted = listen.unwrap_or_else(|| any(device.port));
    let options = NetOptions {
        key: device.key(),
        listen: Some(wanted),
        lan,
    };
    let bound = match Endpoint::bind(options.clone()).await {
        // Somebody else has the port: members hear of the new one.
        Err(BindError::PortTaken { .. }) if listen.is_none() => {
            Endpoint::bind(NetOptions {
                listen: Some(any(0)),
                ..options
            })
            .await
        }
        result => result,
    };
    let endpoint = bound?;
    if listen.is_none()
        && let Some(socket) = endpoint.addresses().first()
        && socket.port() != device.port
    {
        device.port = socket.port();
        keys.put_device(device)?;
    }
    Ok(endpoint)
}
