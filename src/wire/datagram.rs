//! UDP frames on a data channel (protocol-v1.md, section 1.6).
//!
//! ```text
//! u8 header length H: 12 (IPv4) or 24 (IPv6); more is tolerated, the surplus is skipped
//! u32 family: 0 IPv4, 1 IPv6    address in network order    port u16 LE    payload length u16 LE
//! payload
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::message::Malformed;

/// The longest header that can be announced, length byte included.
pub const MAX_HEADER: usize = 256;

/// The longest header that we send, length byte included.
pub const MAX_SENT_HEADER: usize = 25;

/// The longest payload that UDP over IPv4 can carry.
pub const MAX_PAYLOAD: usize = 65_507;

/// The head of one frame: the visitor, and how many payload bytes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The visitor, in both directions.
    pub visitor: SocketAddr,
    /// Payload bytes.
    pub len: u16,
}

impl Header {
    /// To bytes; the count says how many of them are used. Flow label and scope are not carried.
    pub fn encode(&self) -> ([u8; MAX_SENT_HEADER], usize) {
        let (port, len) = (self.visitor.port().to_le_bytes(), self.len.to_le_bytes());
        let mut bytes = [0; MAX_SENT_HEADER];
        let used = match self.visitor.ip() {
            IpAddr::V4(ip) => {
                bytes[0] = 12;
                bytes[5..9].copy_from_slice(&ip.octets());
                bytes[9..11].copy_from_slice(&port);
                bytes[11..13].copy_from_slice(&len);
                13
            }
            IpAddr::V6(ip) => {
                bytes[0] = 24;
                bytes[1] = 1;
                bytes[5..21].copy_from_slice(&ip.octets());
                bytes[21..23].copy_from_slice(&port);
                bytes[23..25].copy_from_slice(&len);
                25
            }
        };
        (bytes, used)
    }

    /// From the beginning of `bytes`. `Ok(None)`: more bytes are needed. Else the header and its length,
    /// after which the payload begins.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
        let Some(&announced) = bytes.first() else { return Ok(None) };
        let end = 1 + usize::from(announced);
        if announced < 12 {
            return Err(Malformed::Datagram("the header is shorter than an IPv4 address needs"));
        }
        let Some(header) = bytes.get(1..end) else { return Ok(None) };
        let (ip, rest): (IpAddr, &[u8]) = match header {
            [0, 0, 0, 0, a, b, c, d, rest @ ..] => (Ipv4Addr::new(*a, *b, *c, *d).into(), rest),
            [1, 0, 0, 0, rest @ ..] => match rest.split_first_chunk::<16>() {
                Some((octets, rest)) if rest.len() >= 4 => (Ipv6Addr::from(*octets).into(), rest),
                _ => return Err(Malformed::Datagram("the header is shorter than an IPv6 address needs")),
            },
            _ => return Err(Malformed::Datagram("unknown address family")),
        };
        let [p0, p1, l0, l1, ..] = rest else { return Err(Malformed::Datagram("the header is too short")) };
        let visitor = SocketAddr::new(ip, u16::from_le_bytes([*p0, *p1]));
        Ok(Some((Header { visitor, len: u16::from_le_bytes([*l0, *l1]) }, end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame header with `announced` bytes, of a family, its address and port and length where they belong, the
    /// rest filled.
    fn header(announced: u8, family: u32) -> Vec<u8> {
        let mut bytes = vec![0xAA; 1 + usize::from(announced)];
        bytes[0] = announced;
        let good: Vec<u8> = match family {
            0 => [&family.to_le_bytes()[..], &[192, 0, 2, 7], &[0x34, 0x12], &[5, 0]].concat(),
            _ => [&family.to_le_bytes()[..], &[0x20; 16], &[0x34, 0x12], &[5, 0]].concat(),
        };
        let fits = good.len().min(usize::from(announced));
        bytes[1..1 + fits].copy_from_slice(&good[..fits]);
        bytes
    }

    #[test]
    fn every_header_length() {
        let visitor4 = "192.0.2.7:4660".parse().unwrap();
        let visitor6 = SocketAddr::new([0x20; 16].into(), 4660);
        for (family, least, visitor) in [(0, 12, visitor4), (1, 24, visitor6)] {
            for announced in 0..=255u8 {
                let bytes = header(announced, family);
                let decoded = Header::decode(&bytes);
                if announced < least {
                    assert!(decoded.is_err(), "family {family}, {announced} bytes: {decoded:?}");
                } else {
                    let end = 1 + usize::from(announced);
                    assert_eq!(decoded, Ok(Some((Header { visitor, len: 5 }, end))), "{announced}");
                    // The payload that follows changes nothing.
                    let longer = [&bytes[..], b"hello, and another frame"].concat();
                    assert_eq!(Header::decode(&longer), decoded);
                }
                // A header that has not come whole is never judged wrong for what is missing, nor accepted.
                for end in 0..bytes.len() {
                    match Header::decode(&bytes[..end]) {
                        Ok(None) => {}
                        Err(_) if announced < least => {}
                        other => panic!("{end} of {announced} bytes, family {family}: {other:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn unknown_families() {
        for family in [2u32, 3, 256, 1 << 16, 0x0100_0001, u32::MAX] {
            for announced in 0..=255u8 {
                assert!(Header::decode(&header(announced, family)).is_err(), "family {family}, {announced}");
            }
        }
    }

    #[test]
    fn every_length_and_port_survives() {
        for ip in ["192.0.2.7", "2001:db8::1:2", "::ffff:192.0.2.7", "0.0.0.0", "::"] {
            for n in (0..=u16::MAX).step_by(251).chain([255, 256, u16::MAX]) {
                let sent = Header { visitor: SocketAddr::new(ip.parse().unwrap(), n), len: n.swap_bytes() };
                let (bytes, used) = sent.encode();
                assert_eq!(Header::decode(&bytes[..used]), Ok(Some((sent, used))));
            }
        }
    }
}
