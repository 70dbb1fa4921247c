//! TCP over IPv4 over Ethernet: as much of it as a router looks at.

use std::net::{Ipv4Addr, SocketAddrV4};

const ETHERNET: usize = 14;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The two ends of a connection, the lesser first.
pub type Flow = (SocketAddrV4, SocketAddrV4);

/// A TCP segment, somewhere in a frame.
pub struct Segment<'a> {
    frame: &'a [u8],
    /// Where TCP's header begins.
    tcp: usize,
}

impl<'a> Segment<'a> {
    /// None: the frame holds something else.
    pub fn find(frame: &'a [u8]) -> Option<Self> {
        let ip = frame.get(ETHERNET..)?;
        let is_tcp = frame.get(12..14)? == [8, 0] && ip.first()? >> 4 == 4 && *ip.get(9)? == 6;
        let tcp = ETHERNET + usize::from(ip.first()? & 15) * 4;
        (is_tcp && frame.len() >= tcp + 20).then_some(Segment { frame, tcp })
    }

    /// Whose it is.
    pub fn flow(&self) -> Flow {
        let (from, to) = (self.end(12, 0), self.end(16, 2));
        if from < to { (from, to) } else { (to, from) }
    }

    /// Whether it opens a connection.
    pub fn opens(&self) -> bool {
        self.flags() & (SYN | ACK) == SYN
    }

    /// What a firewall sends back to refuse it: a reset with exactly the sequence number that the sender waits for.
    pub fn reset(&self) -> Option<Vec<u8>> {
        if self.flags() & RST != 0 || self.flags() & ACK == 0 {
            return None;
        }
        let (ip, tcp) = (&self.frame[ETHERNET..], &self.frame[self.tcp..]);
        let mut frame = [&self.frame[6..12], &self.frame[..6], &[8, 0]].concat();
        let mut header = [0; 20];
        header[0] = 0x45;
        header[3] = 40;
        header[8] = 64;
        header[9] = 6;
        header[12..16].copy_from_slice(&ip[16..20]);
        header[16..20].copy_from_slice(&ip[12..16]);
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum);
        let mut segment = [0; 20];
        segment[0..2].copy_from_slice(&tcp[2..4]);
        segment[2..4].copy_from_slice(&tcp[0..2]);
        segment[4..8].copy_from_slice(&tcp[8..12]);
        segment[12] = 5 << 4;
        segment[13] = RST;
        let sum = checksum(&[&header[12..20], &[0, 6, 0, 20], &segment]);
        segment[16..18].copy_from_slice(&sum);
        frame.extend_from_slice(&header);
        frame.extend_from_slice(&segment);
        Some(frame)
    }

    fn flags(&self) -> u8 {
        self.frame[self.tcp + 13]
    }

    fn end(&self, ip: usize, port: usize) -> SocketAddrV4 {
        let (ip, port) = (&self.frame[ETHERNET + ip..], &self.frame[self.tcp + port..]);
        SocketAddrV4::new(Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]), u16::from_be_bytes([port[0], port[1]]))
    }
}

/// The Internet's checksum (RFC 1071) of parts that are all of even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
