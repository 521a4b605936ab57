//! Where a device may be reached, and the text form that people and invitations carry.
//!
//! Text: `<device id, 64 hexadecimal digits>`, then optionally `@` and sockets `ip:port` separated by commas; IPv6 in
//! brackets. Without sockets the device is looked for on the LAN.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use ouisync_model::id::{DeviceId, IdFormatError};
use thiserror::Error;

/// At most this many sockets are kept or dialled for one device.
pub const MAX_SOCKETS: usize = 16;

/// A device and the sockets where it may listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceAddress {
    /// Who must answer.
    pub device: DeviceId,
    /// Where to try, best first; empty means: look on the LAN.
    pub sockets: Vec<SocketAddr>,
}

/// The text is not a device address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AddressFormatError {
    /// The part before `@` is not a device id.
    #[error("the part before '@' is not a device id")]
    Device(#[source] IdFormatError),
    /// A part after `@` is not `ip:port`.
    #[error("'{text}' is not IP:PORT")]
    Socket {
        /// The offending part.
        text: String,
        /// What the parser said.
        source: std::net::AddrParseError,
    },
    /// More sockets than [`MAX_SOCKETS`].
    #[error("more than {MAX_SOCKETS} sockets")]
    TooMany,
}

impl DeviceAddress {
    /// A device at the given sockets.
    pub fn new(device: DeviceId, sockets: Vec<SocketAddr>) -> Self {
        Self { device, sockets }
    }

    /// One address for each socket, as listings show them; the bare device when there is none.
    pub fn split(&self) -> Vec<Self> {
        if self.sockets.is_empty() {
            return vec![self.clone()];
        }
        self.sockets
            .iter()
            .map(|socket| Self::new(self.device, vec![*socket]))
            .collect()
    }
}

/// Whether a datagram may sensibly be sent to `socket`: not port 0, unspecified, multicast or broadcast. Sockets
/// come from peers, so this also keeps them from aiming us at a multicast group.
pub fn is_dialable(socket: &SocketAddr) -> bool {
    let ip = socket.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    socket.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// What one host has of addresses: an IPv4 address, or the 64 bits that a provider gives out of IPv6.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
        address => address,
    }
}

impl fmt::Display for DeviceAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.device)?;
        for (index, socket) in self.sockets.iter().enumerate() {
            write!(formatter, "{}{socket}", if index == 0 { '@' } else { ',' })?;
        }
        Ok(())
    }
}

impl FromStr for DeviceAddress {
    type Err = AddressFormatError;

    fn from_str(text: &str) -> Result<Self, AddressFormatError> {
        let (device, sockets) = match text.split_once('@') {
            Some((device, sockets)) => (device, Some(sockets)),
            None => (text, None),
        };
        let device = device.parse().map_err(AddressFormatError::Device)?;
        let sockets = match sockets {
            None => Vec::new(),
            Some(list) => {
                if list.split(',').count() > MAX_SOCKETS {
                    return Err(AddressFormatError::TooMany);
                }
                list.split(',')
                    .map(|text| {
                        text.parse().map_err(|source| AddressFormatError::Socket {
                            text: text.to_owned(),
                            source,
                        })
                    })
                    .collect::<Result<_, _>>()?
            }
        };
        Ok(Self { device, sockets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let id = "ab".repeat(32);
        for text in [
            id.clone(),
            format!("{id}@127.0.0.1:5000"),
            format!("{id}@10.0.0.7:5000,[fd00::1]:5000,[fe80::1%3]:9"),
        ] {
            assert_eq!(text.parse::<DeviceAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let id = "ab".repeat(32);
        assert!(matches!(
            "x@1.2.3.4:5".parse::<DeviceAddress>(),
            Err(AddressFormatError::Device(_))
        ));
        for bad in ["", "1.2.3.4", "host:80", "1.2.3.4:5,", "1.2.3.4:70000"] {
            assert!(matches!(
                format!("{id}@{bad}").parse::<DeviceAddress>(),
                Err(AddressFormatError::Socket { .. })
            ));
        }
        let many = vec!["1.2.3.4:5"; MAX_SOCKETS + 1].join(",");
        assert_eq!(
            format!("{id}@{many}").parse::<DeviceAddress>(),
            Err(AddressFormatError::TooMany)
        );
    }

    #[test]
    fn undialable_sockets_are_recognised() {
        for bad in [
            "0.0.0.0:1",
            "1.2.3.4:0",
            "224.0.0.251:5353",
            "[ff02::fb]:5353",
            "[::]:4",
            "255.255.255.255:9",
        ] {
            assert!(!is_dialable(&bad.parse().unwrap()), "{bad}");
        }
        for good in ["127.0.0.1:1", "[::1]:1", "192.168.1.4:22000"] {
            assert!(is_dialable(&good.parse().unwrap()), "{good}");
        }
    }

    #[test]
    fn splits_into_one_address_a_socket() {
        let id = "ab".repeat(32);
        let address: DeviceAddress = format!("{id}@1.2.3.4:5,1.2.3.4:6").parse().unwrap();
        let texts: Vec<String> = address.split().iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [format!("{id}@1.2.3.4:5"), format!("{id}@1.2.3.4:6")]
        );
    }
}
