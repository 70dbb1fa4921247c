//! The server's side of UDP: datagrams of visitors to frames, frames to datagrams.
//!
//! What it keeps: a reply only goes to an address that wrote recently, through the socket it wrote to; a datagram that
//! cannot be sent is counted and never ends anything.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::buffer::Buffer;
use super::channel::{Channel, ChannelEnd};
use super::flows::Flows;
use crate::counters::Counters;
use crate::transport::Stream;
use crate::wire::datagram::MAX_PAYLOAD;

/// Visitors of one service at a time.
const MOST: usize = 4096;

/// A visitor without traffic for this long gets no replies any more.
const IDLE: Duration = Duration::from_secs(60);

/// Datagrams read from one socket before others get their turn.
const TURN: usize = 64;

/// Who wrote recently. It outlives data channels: a client that comes back still reaches its visitors.
#[derive(Debug)]
pub struct Visitors {
    table: Flows<Seen>,
}

/// How a visitor is reached.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Which of the service's sockets.
    socket: usize,
    /// With its scope, which frames do not carry.
    address: SocketAddr,
}

impl Default for Visitors {
    fn default() -> Self {
        Visitors { table: Flows::new(MOST, IDLE) }
    }
}

impl Visitors {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes who wrote. False: nothing can be answered to port 0, so nothing is asked either.
    fn wrote(&mut self, address: SocketAddr, socket: usize, now: std::time::Instant) -> bool {
        if address.port() == 0 {
            return false;
        }
        self.table.expire(now);
        let seen = Seen { socket, address };
        match self.table.touch(address, now) {
            Some(known) => *known = seen,
            None => drop(self.table.insert(address, seen, now)),
        }
        true
    }

    /// How to reach a visitor, if it wrote recently.
    fn find(&mut self, visitor: SocketAddr, now: std::time::Instant) -> Option<Seen> {
        self.table.touch(visitor, now).copied()
    }
}

/// Carries datagrams between visitors and the client until the data channel is over. `sockets` must be the same,
/// in the same order, as long as `visitors` is. Dropping the future loses nothing but queued datagrams.
pub async fn serve_visitors(
    channel: Stream,
    sockets: &[Arc<UdpSocket>],
    visitors: &mut Visitors,
    counters: &Counters,
) -> ChannelEnd {
    let mut channel = Channel::new(channel);
    poll_fn(|cx| {
        let now = Instant::now().into_std();
        poll_datagrams(cx, sockets, counters, |socket, from, payload| {
            let kept = visitors.wrote(from, socket, now) && channel.outbox.push(from, payload);
            if kept {
                Counters::add(&counters.up, payload.len() as u64);
            }
            kept
        });
        if let Poll::Ready(end) = channel.poll_write(cx) {
            return Poll::Ready(end);
        }
        // Last: what it sends needs no further poll.
        channel.poll_frames(cx, |visitor, payload| {
            let sent = visitors.find(visitor, now).is_some_and(|seen| reply(sockets, seen, payload).is_ok());
            if sent {
                Counters::add(&counters.down, payload.len() as u64);
            } else {
                Counters::add(&counters.dropped_datagrams, 1);
            }
        })
    })
    .await
}

/// Reads and drops: while no client is there, so that none later gets what is long out of date.
pub async fn drop_datagrams(sockets: &[Arc<UdpSocket>], counters: &Counters) -> Infallible {
    poll_fn(|cx| {
        poll_datagrams(cx, sockets, counters, |_, _, _| false);
        Poll::Pending
    })
    .await
}

/// Hands over what has come, within one turn for each socket; counts what is not kept. An error of a socket is one
/// lost datagram.
fn poll_datagrams(
    cx: &mut Context<'_>,
    sockets: &[Arc<UdpSocket>],
    counters: &Counters,
    mut keep: impl FnMut(usize, SocketAddr, &[u8]) -> bool,
) {
    let mut buffer = Buffer::borrow();
    for (index, socket) in sockets.iter().enumerate() {
        let mut turn = 0;
        loop {
            let mut datagram = ReadBuf::new(&mut buffer);
            let Poll::Ready(result) = socket.poll_recv_from(cx, &mut datagram) else { break };
            let kept = match result {
                Ok(from) => keep(index, from, datagram.filled()),
                Err(_) => false,
            };
            if !kept {
                Counters::add(&counters.dropped_datagrams, 1);
            }
            turn += 1;
            if turn == TURN {
                cx.waker().wake_by_ref();
                break;
            }
        }
    }
}

/// Sends at once or not at all.
fn reply(sockets: &[Arc<UdpSocket>], seen: Seen, payload: &[u8]) -> io::Result<()> {
    let socket = sockets.get(seen.socket).ok_or(io::ErrorKind::NotFound)?;
    if payload.len() > MAX_PAYLOAD {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    SockRef::from(socket.as_ref()).send_to(payload, &seen.address.into()).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_0_is_nobody_and_a_visitor_is_forgotten_after_a_while() {
        let mut visitors = Visitors::new();
        let now = std::time::Instant::now();
        let visitor: SocketAddr = "192.0.2.7:9".parse().unwrap();
        assert!(!visitors.wrote("192.0.2.7:0".parse().unwrap(), 0, now));
        assert!(visitors.table.is_empty());
        assert!(visitors.find(visitor, now).is_none());
        assert!(visitors.wrote(visitor, 0, now));
        // The last socket it wrote to is the way back.
        assert!(visitors.wrote(visitor, 1, now));
        assert_eq!(visitors.find(visitor, now + IDLE / 2).map(|seen| seen.socket), Some(1));
        assert!(visitors.find(visitor, now + IDLE).is_some(), "replies are traffic, too");
        assert!(visitors.find(visitor, now + IDLE * 2).is_none());
    }

    #[test]
    fn visitors_are_bounded() {
        let mut visitors = Visitors::new();
        let now = std::time::Instant::now();
        for port in 1..=u16::MAX {
            assert!(visitors.wrote(SocketAddr::from(([192, 0, 2, 7], port)), 0, now));
        }
        assert_eq!(visitors.table.len(), MOST);
    }
}
