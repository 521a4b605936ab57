//! Reads captures (pcap, Ethernet) as far as needed to say where a packet goes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One packet's addressing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Ethernet type, for example 0x0806 for ARP.
    pub ethertype: u16,
    /// Source address; `None` when not IP.
    pub source: Option<IpAddr>,
    /// Destination address; `None` when not IP.
    pub destination: Option<IpAddr>,
    /// IP protocol, after IPv6 hop-by-hop options; 0 when not IP.
    pub protocol: u8,
    /// Destination port of UDP and TCP, ICMPv6 type for ICMPv6, else 0.
    pub selector: u16,
}

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const IGMP: u8 = 2;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

impl Packet {
    /// What every host sends of itself: ARP, IGMP, neighbour discovery, multicast listener reports.
    pub fn is_link_upkeep(&self) -> bool {
        match self.ethertype {
            ARP => true,
            IPV4 => self.protocol == IGMP && self.destination.is_some_and(|to| to.is_multicast()),
            // 130–132 and 143: multicast listeners; 133–137: routers and neighbours.
            IPV6 => self.protocol == ICMPV6 && matches!(self.selector, 130..=137 | 143),
            _ => false,
        }
    }

    /// Multicast DNS.
    pub fn is_lan_discovery(&self) -> bool {
        let groups = [
            IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)),
            IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb)),
        ];
        let to_group = self.destination.is_some_and(|to| groups.contains(&to));
        to_group && self.protocol == UDP && self.selector == 5353
    }

    fn parse(frame: &[u8]) -> Option<Self> {
        let ethertype = u16::from_be_bytes(*frame.get(12..)?.first_chunk()?);
        let payload = frame.get(14..)?;
        let (source, destination, protocol, rest): (IpAddr, IpAddr, u8, &[u8]) = match ethertype {
            IPV4 => {
                let address =
                    |at: usize| Some(Ipv4Addr::from(*payload.get(at..)?.first_chunk::<4>()?));
                let header = usize::from(payload.first()? & 0x0f) * 4;
                let protocol = *payload.get(9)?;
                (
                    address(12)?.into(),
                    address(16)?.into(),
                    protocol,
                    payload.get(header..)?,
                )
            }
            IPV6 => {
                let address =
                    |at: usize| Some(Ipv6Addr::from(*payload.get(at..)?.first_chunk::<16>()?));
                let (mut protocol, mut rest) = (*payload.get(6)?, payload.get(40..)?);
                if protocol == 0 {
                    protocol = *rest.first()?;
                    rest = rest.get(8 + usize::from(*rest.get(1)?) * 8..)?;
                }
                (address(8)?.into(), address(24)?.into(), protocol, rest)
            }
            _ => {
                return Some(Self {
                    ethertype,
                    source: None,
                    destination: None,
                    protocol: 0,
                    selector: 0,
                });
            }
        };
        let selector = match protocol {
            6 | UDP => u16::from_be_bytes(*rest.get(2..)?.first_chunk()?),
            ICMPV6 => u16::from(*rest.first()?),
            _ => 0,
        };
        Some(Self {
            ethertype,
            source: Some(source),
            destination: Some(destination),
            protocol,
            selector,
        })
    }
}

/// The packets of a little-endian pcap file with Ethernet frames; a cut last packet is left out.
///
/// # Panics
/// When it is no such file, or a packet is too short for its own headers (rather than overlook it).
pub fn read_capture(bytes: &[u8]) -> Vec<Packet> {
    let magic = u32::from_le_bytes(*bytes.first_chunk().expect("a capture has a header"));
    assert!(
        magic == 0xa1b2_c3d4 || magic == 0xa1b2_3c4d,
        "not a little-endian pcap file"
    );
    let mut packets = Vec::new();
    let mut rest = bytes.get(24..).expect("a capture has a header");
    while let Some(header) = rest.first_chunk::<16>() {
        let captured = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let Some(frame) = rest.get(16..16 + captured) else {
            break;
        };
        packets
            .push(Packet::parse(frame).unwrap_or_else(|| panic!("unreadable packet {frame:02x?}")));
        rest = &rest[16 + captured..];
    }
    packets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(frame: &[u8]) -> Vec<u8> {
        let mut bytes = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
        bytes.resize(24 + 8, 0);
        bytes.extend((frame.len() as u32).to_le_bytes());
        bytes.extend((frame.len() as u32).to_le_bytes());
        bytes.extend(frame);
        bytes
    }

    fn udp(to: [u8; 4], port: u16) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(IPV4.to_be_bytes());
        frame.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, UDP, 0, 0, 10, 77, 0, 1]);
        frame.extend(to);
        frame.extend([0x12, 0x34]);
        frame.extend(port.to_be_bytes());
        frame
    }

    #[test]
    fn destinations_are_told_apart() {
        let dns = &read_capture(&capture(&udp([8, 8, 8, 8], 53)))[0];
        assert_eq!(dns.destination, Some(IpAddr::from([8, 8, 8, 8])));
        assert!(!dns.is_lan_discovery() && !dns.is_link_upkeep());
        let mdns = &read_capture(&capture(&udp([224, 0, 0, 251], 5353)))[0];
        assert!(mdns.is_lan_discovery());
        let ssdp = &read_capture(&capture(&udp([239, 255, 255, 250], 1900)))[0];
        assert!(!ssdp.is_lan_discovery() && !ssdp.is_link_upkeep());
    }

    #[test]
    fn multicast_listener_report_behind_hop_by_hop_is_upkeep() {
        let mut frame = vec![0; 12];
        frame.extend(IPV6.to_be_bytes());
        frame.extend([0x60, 0, 0, 0, 0, 0, 0, 1]);
        frame.extend([0; 16]);
        frame.extend(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16).octets());
        frame.extend([ICMPV6, 0, 5, 2, 0, 0, 1, 0, 143, 0]);
        assert!(read_capture(&capture(&frame))[0].is_link_upkeep());
    }

    #[test]
    fn a_cut_last_packet_is_left_out() {
        let bytes = capture(&udp([1, 1, 1, 1], 53));
        assert!(read_capture(&bytes[..bytes.len() - 1]).is_empty());
    }
}
