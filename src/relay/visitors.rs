//! The server's side of UDP: datagrams of visitors to frames, frames to datagrams.
//!
//! What it keeps: who may not come gets nothing done, neither way; a reply only goes to an address that wrote recently, through the socket it wrote to; a datagram that
//! cannot be sent is counted and never ends anything.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::buffer::Buffer;
use super::channel::{Channel, ChannelEnd};
use super::door::{Door, Terms};
use super::table::{Entry, Table};
use super::tally::{OnEnd, Tally};
use crate::counters::Counters;
use crate::transport::Stream;
use crate::wire::datagram::MAX_PAYLOAD;

/// Datagrams read from one socket before others get their turn.
const TURN: usize = 64;

/// Who wrote recently, and so gets replies. It outlives data channels: a client that comes back still reaches its
/// visitors.
#[derive(Debug)]
pub struct Visitors {
    table: Table<Seen>,
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
        Visitors { table: Table::new(Terms::default().most()) }
    }
}

impl Visitors {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Those who are still there, when their service ends.
    pub fn into_tallies(self) -> impl Iterator<Item = Tally> {
        self.table.into_tallies()
    }

    /// Notes who wrote. None: nothing can be answered to port 0, so nothing is asked either.
    fn wrote(
        &mut self,
        address: SocketAddr,
        socket: usize,
        now: std::time::Instant,
        on_end: OnEnd<'_>,
    ) -> Option<&mut Tally> {
        if address.port() == 0 {
            return None;
        }
        let seen = Seen { socket, address };
        if self.table.touch(address, now).is_none() {
            self.table.insert(address, seen, now, on_end);
        }
        let entry = self.table.newest_mut()?;
        entry.value = seen;
        Some(&mut entry.tally)
    }

    /// How to reach a visitor, if it wrote recently.
    fn find(&mut self, visitor: SocketAddr, now: std::time::Instant) -> Option<&mut Entry<Seen>> {
        self.table.touch(visitor, now)
    }
}

/// Carries datagrams between visitors and the client until the data channel is over. `sockets` must be the same,
/// in the same order, as long as `visitors` is. Dropping the future loses nothing but queued datagrams.
pub async fn serve_visitors(
    channel: Stream,
    sockets: &[Arc<UdpSocket>],
    visitors: &mut Visitors,
    door: &Door,
    counters: &Counters,
    on_end: OnEnd<'_>,
) -> ChannelEnd {
    let mut channel = Channel::new(channel);
    poll_fn(|cx| {
        let now = Instant::now().into_std();
        let terms = door.terms();
        visitors.table.set_most(terms.most(), on_end);
        poll_datagrams(cx, sockets, door, &terms, counters, |socket, from, payload| {
            let Some(tally) = visitors.wrote(from, socket, now, on_end) else { return false };
            let kept = channel.outbox.push(from, payload);
            if kept {
                tally.up += payload.len() as u64;
                Counters::add(&counters.up, payload.len() as u64);
            }
            kept
        });
        visitors.table.poll_expiry(cx, on_end);
        if let Poll::Ready(end) = channel.poll_write(cx) {
            return Poll::Ready(end);
        }
        // Last: what it sends needs no further poll.
        channel.poll_frames(cx, |visitor, payload| {
            let seen = visitors.find(visitor, now).filter(|_| terms.access.admits(visitor.ip()));
            match seen.filter(|seen| reply(sockets, seen.value, payload).is_ok()) {
                Some(seen) => {
                    seen.tally.down += payload.len() as u64;
                    Counters::add(&counters.down, payload.len() as u64);
                }
                None => Counters::add(&counters.dropped_datagrams, 1),
            }
        })
    })
    .await
}

/// Reads and drops: while no client is there, so that none later gets what is long out of date.
/// Visitors of an earlier client still end in time.
pub async fn drop_datagrams(
    sockets: &[Arc<UdpSocket>],
    visitors: &mut Visitors,
    door: &Door,
    counters: &Counters,
    on_end: OnEnd<'_>,
) -> Infallible {
    poll_fn(|cx| {
        poll_datagrams(cx, sockets, door, &door.terms(), counters, |_, _, _| false);
        visitors.table.poll_expiry(cx, on_end);
        Poll::Pending
    })
    .await
}

/// Hands over what has come from those who may come, within one turn for each socket; counts what is not kept. An error
/// of a socket is one lost datagram.
fn poll_datagrams(
    cx: &mut Context<'_>,
    sockets: &[Arc<UdpSocket>],
    door: &Door,
    terms: &Terms,
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
                Ok(from) if !door.admits(terms, from.ip()) => {
                    Counters::add(&counters.denied, 1);
                    false
                }
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
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};

    use super::super::table::IDLE;
    use super::super::tally::FlowEnd;
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 7], port))
    }

    #[test]
    fn port_0_is_nobody_and_a_visitor_is_forgotten_after_a_while() {
        let mut visitors = Visitors::new();
        let now = std::time::Instant::now();
        let visitor = address(9);
        let none = &mut |_: Tally, _: FlowEnd| panic!("nobody has ended");
        assert!(visitors.wrote(address(0), 0, now, none).is_none());
        assert!(visitors.table.is_at_rest());
        assert!(visitors.find(visitor, now).is_none());
        assert!(visitors.wrote(visitor, 0, now, none).is_some());
        // The last socket it wrote to is the way back.
        assert!(visitors.wrote(visitor, 1, now, none).is_some());
        assert_eq!(visitors.find(visitor, now + IDLE / 2).map(|seen| seen.value.socket), Some(1));
        assert!(visitors.find(visitor, now + IDLE).is_some(), "replies are traffic, too");
        assert!(visitors.find(visitor, now + IDLE * 2).is_none());
        // Idle, it is another visitor when it comes back, even if no timer was there to see it.
        let mut ended = Vec::new();
        visitors.wrote(visitor, 0, now + IDLE * 2, &mut |tally, end| ended.push((tally.duration(), end)));
        assert_eq!(ended, [(IDLE, FlowEnd::Idle(IDLE))]);
    }

    #[test]
    fn visitors_are_bounded_and_those_pushed_out_are_told_of() {
        let mut visitors = Visitors::new();
        let now = std::time::Instant::now();
        let mut ended = Vec::new();
        for port in 1..=u16::MAX {
            let tally = visitors.wrote(address(port), 0, now, &mut |tally, end| ended.push((tally, end)));
            tally.unwrap().up += u64::from(port);
        }
        assert_eq!(visitors.table.len(), Terms::default().most());
        assert!(ended.iter().all(|(_, end)| *end == FlowEnd::PushedOut));
        // Each is told of once, with its own numbers.
        let all = ended.into_iter().map(|(tally, _)| tally).chain(visitors.into_tallies());
        assert!(
            all.map(|tally| (tally.visitor, tally.up)).eq((1..=u16::MAX).map(|n| (address(n), n.into())))
        );
    }

    /// Waits for the ends of all; when each came, in seconds from now.
    async fn ends(run: impl AsyncFnOnce(OnEnd<'_>), all: usize) -> Vec<(u16, FlowEnd, u64)> {
        let (begun, mut ended) = (Instant::now(), Vec::new());
        let (sender, mut receiver) = tokio::sync::mpsc::channel(9);
        let mut on_end = |tally: Tally, end| {
            let after = (begun.elapsed().as_secs_f64()).round() as u64;
            sender.try_send((tally.visitor.port(), end, after)).unwrap();
        };
        let enough = async {
            while ended.len() < all {
                ended.push(receiver.recv().await.unwrap());
            }
        };
        let limit = tokio::time::sleep(Duration::from_secs(1000));
        tokio::select! {
            () = run(&mut on_end) => {}
            () = enough => {}
            () = limit => {}
        }
        ended
    }

    #[tokio::test]
    async fn idle_visitors_end_in_time_with_a_client_and_without() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let channel = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let _far = listener.accept().await.unwrap();
        let counters = Counters::default();
        tokio::time::pause();
        let mut visitors = Visitors::new();
        let begin = async |visitors: &mut Visitors| {
            for port in [1, 2] {
                let now = Instant::now().into_std();
                visitors.wrote(address(port), 0, now, &mut |_, _| panic!("nobody has ended"));
                tokio::time::advance(Duration::from_secs(10)).await;
            }
        };
        let idle = FlowEnd::Idle(IDLE);
        begin(&mut visitors).await;
        let without = ends(
            async |on_end| match drop_datagrams(&[], &mut visitors, &Door::default(), &counters, on_end).await {},
            2,
        );
        assert_eq!(without.await, [(1, idle, 40), (2, idle, 50)]);
        assert!(visitors.table.is_at_rest());
        begin(&mut visitors).await;
        let with = ends(
            async |on_end| {
                let (channel, door) = (Stream::Tcp(channel), Door::default());
                serve_visitors(channel, &[], &mut visitors, &door, &counters, on_end).await;
            },
            2,
        );
        assert_eq!(with.await, [(1, idle, 40), (2, idle, 50)]);
    }
}
