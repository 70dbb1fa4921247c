//! The PROXY protocol header: a local service behind the tunnel sees its visitor's real address.
//!
//! Written by the server as the first bytes of the visitor's stream, so that any client passes it on unknowingly.
//! Format: the PROXY protocol specification, versions 1 (text) and 2 (binary).

use std::net::{IpAddr, SocketAddr};

use crate::config::ProxyProtocol;

/// What every version 2 header begins with.
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, command PROXY.
const V2_PROXY: u8 = 0x21;

/// The header for a connection that `visitor` made to `service`.
pub fn encode(version: ProxyProtocol, visitor: SocketAddr, service: SocketAddr) -> Vec<u8> {
    // A dual-stack listener shows IPv4 visitors as mapped addresses: both ends become what they really are.
    let (from, to) = match (visitor.ip().to_canonical(), service.ip().to_canonical()) {
        (IpAddr::V6(from), IpAddr::V4(to)) => (IpAddr::V6(from), IpAddr::V6(to.to_ipv6_mapped())),
        (IpAddr::V4(from), IpAddr::V6(to)) => (IpAddr::V6(from.to_ipv6_mapped()), IpAddr::V6(to)),
        same => same,
    };
    match version {
        ProxyProtocol::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {from} {to} {} {}\r\n", visitor.port(), service.port()).into_bytes()
        }
        ProxyProtocol::V2 => {
            let (family, mut addresses) = match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => (0x11, [from.octets(), to.octets()].concat()),
                (from, to) => (0x21, [octets(from), octets(to)].concat()),
            };
            addresses.extend(visitor.port().to_be_bytes());
            addresses.extend(service.port().to_be_bytes());
            let mut header = V2_SIGNATURE.to_vec();
            header.extend([V2_PROXY, family]);
            header.extend((addresses.len() as u16).to_be_bytes());
            header.extend(addresses);
            header
        }
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn v1_is_the_specification_s_line() {
        let header = encode(ProxyProtocol::V1, address("192.0.2.7:56324"), address("198.51.100.1:443"));
        assert_eq!(header, b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n");
        let header = encode(ProxyProtocol::V1, address("[2001:db8::7]:1"), address("[2001:db8::1]:2"));
        assert_eq!(header, b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n");
    }

    #[test]
    fn a_mapped_visitor_is_an_ipv4_visitor() {
        let header =
            encode(ProxyProtocol::V1, address("[::ffff:192.0.2.7]:9"), address("[::ffff:192.0.2.1]:443"));
        assert_eq!(header, b"PROXY TCP4 192.0.2.7 192.0.2.1 9 443\r\n");
    }

    #[test]
    fn v2_is_binary() {
        let header = encode(ProxyProtocol::V2, address("192.0.2.7:258"), address("198.51.100.1:443"));
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        expected.extend([192, 0, 2, 7, 198, 51, 100, 1, 1, 2, 1, 187]);
        assert_eq!(header, expected);
        let header = encode(ProxyProtocol::V2, address("[2001:db8::7]:1"), address("[2001:db8::1]:2"));
        assert_eq!(header.len(), 16 + 36);
        assert_eq!(header[13..16], [0x21, 0, 36]);
    }
}
