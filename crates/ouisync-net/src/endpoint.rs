//! Binding, dialling and accepting; the trait that every transport implements.
//!
//! An [`Endpoint`] is a cheap handle; retrying, back-off and which peers to dial are the caller's.

use std::{net::SocketAddr, sync::Arc};

use ouisync_model::id::DeviceId;
use thiserror::Error;

use crate::{
    address::DeviceAddress, connection::Connection, key::DeviceKey, lan::LanEvents,
    quic::QuicTransport, stream::BoxFuture,
};

/// How to bind.
#[derive(Clone, Debug)]
pub struct NetOptions {
    /// Who this device is.
    pub key: DeviceKey,
    /// Where to listen. `None`: all interfaces, any port. `0.0.0.0:PORT` or `[::]:PORT`: all interfaces, both
    /// families, that port. Another address: only there.
    pub listen: Option<SocketAddr>,
    /// Announce this device on the LAN by multicast and look for others. It tells everybody on the LAN the device
    /// id and its sockets.
    pub lan: bool,
}

/// The endpoint could not be bound.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another program has the port.
    #[error("port {} is already in use", socket.port())]
    PortTaken {
        /// The socket that was asked for.
        socket: SocketAddr,
    },
    /// The address can't be bound, for example because no interface has it.
    #[error("can't listen on {socket}: {source}")]
    Socket {
        /// The socket that was asked for.
        socket: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The transport could not be set up.
    #[error("can't set up the network")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A device could not be reached. All but [`ConnectError::SelfDial`] and [`ConnectError::Closed`] may pass: retry
/// with back-off.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The address is this device's own.
    #[error("this is the device itself")]
    SelfDial,
    /// No socket is known and the device was not seen on the LAN.
    #[error("no address is known for {device}")]
    NoAddress {
        /// The device.
        device: DeviceId,
    },
    /// Nobody answered in time.
    #[error("no answer from {device}")]
    TimedOut {
        /// The device.
        device: DeviceId,
    },
    /// Another device answered, or the peer refused.
    #[error("can't connect to {device}")]
    Failed {
        /// The device.
        device: DeviceId,
        /// What the transport said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The endpoint has been closed.
    #[error("the endpoint is closed")]
    Closed,
}

impl ConnectError {
    /// Whether trying again later may work.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::SelfDial | Self::Closed)
    }
}

/// A way for devices to reach each other with authenticated connections.
pub trait Transport: Send + Sync {
    /// See [`Endpoint::device`].
    fn device(&self) -> DeviceId;
    /// See [`Endpoint::addresses`].
    fn addresses(&self) -> Vec<SocketAddr>;
    /// See [`Endpoint::connect`].
    fn connect<'a>(
        &'a self,
        address: &'a DeviceAddress,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>>;
    /// See [`Endpoint::accept`].
    fn accept(&self) -> BoxFuture<'_, Option<Connection>>;
    /// See [`Endpoint::lan_events`].
    fn lan_events(&self) -> LanEvents;
    /// See [`Endpoint::close`].
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// This device on the network; cheap to clone.
#[derive(Clone)]
pub struct Endpoint {
    transport: Arc<dyn Transport>,
}

impl Endpoint {
    /// Binds the real network.
    pub async fn bind(options: NetOptions) -> Result<Self, BindError> {
        Ok(Self::new(Arc::new(QuicTransport::bind(options).await?)))
    }

    /// Uses another transport.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    /// This device.
    pub fn device(&self) -> DeviceId {
        self.transport.device()
    }

    /// The sockets where this device can be reached now: concrete interface addresses with the actual port, loopback
    /// only when there is nothing else; changes as interfaces come and go.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.transport.addresses()
    }

    /// Dials a device at all its sockets and wherever the LAN has seen it; with neither, waits a while for the LAN.
    /// Takes at most 10 s (15 s when it has to look). Cancel safe: a dropped dial leaves nothing behind.
    pub async fn connect(&self, address: &DeviceAddress) -> Result<Connection, ConnectError> {
        self.transport.connect(address).await
    }

    /// The next connection that another device dialled; `None` once closed. Cancel safe. One task should call this
    /// and never wait for anything else, or newcomers queue up and are turned away.
    pub async fn accept(&self) -> Option<Connection> {
        self.transport.accept().await
    }

    /// Subscribes to what is seen on the LAN; silent when discovery is off.
    pub fn lan_events(&self) -> LanEvents {
        self.transport.lan_events()
    }

    /// Closes all connections with [`crate::connection::CloseCode::Finished`], tells the peers, and frees the port.
    /// Takes at most 1 s; a peer that was being dialled and doesn't answer can hold the port for some seconds more.
    pub async fn close(&self) {
        self.transport.close().await;
    }
}
