//! The client's side of UDP: frames to datagrams of the local service, and back.
//!
//! Each visitor has a socket of its own, connected to the local service. One task drives them all, so that they end
//! with their data channel; no flow can block another, as nothing here waits: a queue that is full drops.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::address::{Address, Lookup};
use super::buffer::Buffer;
use super::channel::{Channel, ChannelEnd};
use super::frames::Outbox;
use super::ready::Ready;
use super::table::{Entry, Table};
use super::tally::{OnEnd, Tally};
use crate::config::Endpoint;
use crate::counters::Counters;
use crate::transport::{Stream, tcp};
use crate::wire::datagram::MAX_PAYLOAD;

/// Flows of one data channel, and so descriptors, at a time.
const MOST: usize = 1024;

/// Flows that are read in one poll before others get their turn.
const FLOWS_A_TURN: usize = 32;

/// Datagrams that are read from one flow before others get their turn.
const DATAGRAMS_A_TURN: usize = 16;

/// Datagrams that may wait for the local service's address.
const MOST_WAITING: usize = 256;

/// Bytes of them.
const MOST_WAITING_BYTES: usize = 256 * 1024;

/// Carries datagrams between the data channel and the local service until the channel is over.
pub async fn serve_local(channel: Stream, locals: &mut Locals<'_>) -> ChannelEnd {
    let mut channel = Channel::new(channel);
    poll_fn(|cx| {
        if let Poll::Ready(end) =
            channel.poll_frames(cx, |visitor, payload| locals.on_frame(visitor, payload))
        {
            return Poll::Ready(end);
        }
        locals.poll(cx, &mut channel.outbox);
        channel.poll_write(cx)
    })
    .await
}

/// The flows of one data channel. Dropped: all are closed.
pub struct Locals<'a> {
    lookup: Lookup,
    flows: Table<Flow>,
    ready: Arc<Ready<SocketAddr>>,
    /// Datagrams whose flow cannot be opened yet.
    waiting: Vec<(SocketAddr, Box<[u8]>)>,
    waiting_bytes: usize,
    counters: &'a Counters,
    on_end: OnEnd<'a>,
}

/// One visitor's socket. Whoever removes it from the table closes it: nothing else holds it.
struct Flow {
    socket: UdpSocket,
    /// Where it is connected.
    local: SocketAddr,
    waker: Waker,
}

impl<'a> Locals<'a> {
    /// No flow yet. `on_end` is told of each that ends while the channel goes on.
    pub fn new(local: &Endpoint, prefer_ipv6: bool, counters: &'a Counters, on_end: OnEnd<'a>) -> Self {
        Locals::at_most(MOST, Lookup::new(local, prefer_ipv6), counters, on_end)
    }

    /// The flows that are there, when their channel ends.
    pub fn into_tallies(self) -> impl Iterator<Item = Tally> {
        self.flows.into_tallies()
    }

    fn at_most(most: usize, lookup: Lookup, counters: &'a Counters, on_end: OnEnd<'a>) -> Self {
        let (flows, ready, waiting) = (Table::new(most), Arc::default(), Vec::new());
        Locals { lookup, flows, ready, waiting, waiting_bytes: 0, counters, on_end }
    }

    /// A datagram of a visitor: sent at once, or kept until the address is known, or dropped.
    fn on_frame(&mut self, visitor: SocketAddr, payload: &[u8]) {
        let kept = match self.lookup_if_new(visitor) {
            _ if visitor.port() == 0 || payload.len() > MAX_PAYLOAD => false,
            None => self.send(visitor, payload),
            Some(Address::Known(local)) => self.open(visitor, local).is_ok() && self.send(visitor, payload),
            Some(Address::Wait) => self.wait(visitor, payload),
            Some(Address::Unknown) => false,
        };
        if !kept {
            Counters::add(&self.counters.dropped_datagrams, 1);
        }
    }

    /// Reads what the flows have, closes idle ones.
    fn poll(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) {
        self.ready.register(cx);
        if self.lookup.poll(cx, Instant::now()).is_ready() {
            self.waiting_bytes = 0;
            for (visitor, payload) in std::mem::take(&mut self.waiting) {
                self.on_frame(visitor, &payload);
            }
        }
        for _ in 0..FLOWS_A_TURN {
            let Some(visitor) = self.ready.next() else { break };
            self.poll_flow(visitor, outbox);
        }
        if !self.ready.is_empty() {
            cx.waker().wake_by_ref();
        }
        self.flows.poll_expiry(cx, self.on_end);
    }

    /// None: the flow is there, used now, and leads to where the service is.
    fn lookup_if_new(&mut self, visitor: SocketAddr) -> Option<Address> {
        let now = Instant::now();
        let Some(Entry { value: flow, .. }) = self.flows.touch(visitor, now.into_std()) else {
            return Some(self.lookup.get(now));
        };
        if let Some(local) = self.lookup.moved(now, flow.local) {
            // Without a descriptor the old socket has to do, and the next datagram tries again.
            if let Ok(socket) = connect(local) {
                (flow.socket, flow.local) = (socket, local);
                flow.waker.wake_by_ref();
            }
        }
        None
    }

    fn open(&mut self, visitor: SocketAddr, local: SocketAddr) -> io::Result<()> {
        let socket = match connect(local) {
            // The oldest flow's descriptor will do.
            Err(error) if is_out_of_descriptors(&error) && self.flows.evict(self.on_end) => connect(local)?,
            result => result?,
        };
        let waker = self.ready.waker(visitor);
        waker.wake_by_ref();
        self.flows.insert(visitor, Flow { socket, local, waker }, Instant::now().into_std(), self.on_end);
        Ok(())
    }

    /// Sends at once or not at all.
    fn send(&mut self, visitor: SocketAddr, payload: &[u8]) -> bool {
        let Some(flow) = self.flows.get_mut(visitor) else { return false };
        let socket = SockRef::from(&flow.value.socket);
        let sent = match socket.send(payload) {
            // That is the fate of an earlier datagram; the service may be back by now.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Counters::add(&self.counters.dropped_datagrams, 1);
                socket.send(payload)
            }
            result => result,
        };
        if sent.is_ok() {
            flow.tally.up += payload.len() as u64;
            Counters::add(&self.counters.up, payload.len() as u64);
        }
        sent.is_ok()
    }

    fn wait(&mut self, visitor: SocketAddr, payload: &[u8]) -> bool {
        if self.waiting.len() >= MOST_WAITING || self.waiting_bytes + payload.len() > MOST_WAITING_BYTES {
            return false;
        }
        self.waiting_bytes += payload.len();
        self.waiting.push((visitor, payload.into()));
        true
    }

    fn poll_flow(&mut self, visitor: SocketAddr, outbox: &mut Outbox) {
        let Some(Entry { value: flow, tally }) = self.flows.get_mut(visitor) else { return };
        let mut buffer = Buffer::borrow();
        let mut used = false;
        for turn in 0.. {
            if turn == DATAGRAMS_A_TURN {
                flow.waker.wake_by_ref();
                break;
            }
            let mut datagram = ReadBuf::new(&mut buffer);
            let result = flow.socket.poll_recv(&mut Context::from_waker(&flow.waker), &mut datagram);
            let Poll::Ready(result) = result else { break };
            used |= result.is_ok();
            // An error is the fate of one datagram, usually that nobody listened.
            if result.is_ok() && outbox.push(visitor, datagram.filled()) {
                tally.down += datagram.filled().len() as u64;
                Counters::add(&self.counters.down, datagram.filled().len() as u64);
            } else {
                Counters::add(&self.counters.dropped_datagrams, 1);
            }
        }
        if used {
            self.flows.touch(visitor, Instant::now().into_std());
        }
    }
}

/// A connected socket; it is not bound first, so that a sandbox may forbid bind.
fn connect(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    tcp::enlarge_queue(SockRef::from(&socket));
    socket.connect(&local.into())?;
    UdpSocket::from_std(socket.into())
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    [Errno::EMFILE, Errno::ENFILE].iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    use super::super::tally::FlowEnd;
    use super::*;
    use crate::config::Host;

    fn visitor(n: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], n))
    }

    async fn poll(locals: &mut Locals<'_>) {
        poll_fn(|cx| {
            locals.poll(cx, &mut Outbox::default());
            Poll::Ready(())
        })
        .await;
    }

    async fn service() -> (UdpSocket, Endpoint) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        (socket, Endpoint { host: Host::Ip(address.ip()), port: address.port() })
    }

    #[tokio::test]
    async fn flows_are_bounded_and_the_one_in_use_stays() {
        let (service, endpoint) = service().await;
        let counters = Counters::default();
        let mut ended = Vec::new();
        let mut on_end = |tally: Tally, end| ended.push((tally, end));
        let mut locals = Locals::at_most(20, Lookup::new(&endpoint, false), &counters, &mut on_end);
        let mut buffer = [0; 9];
        locals.on_frame(visitor(1), b"kept");
        let (_, kept) = service.recv_from(&mut buffer).await.unwrap();
        for n in 2..5000 {
            locals.on_frame(visitor(n), b"flood");
            service.recv_from(&mut buffer).await.unwrap();
            if n % 10 == 0 {
                locals.on_frame(visitor(1), b"kept");
                assert_eq!(service.recv_from(&mut buffer).await.unwrap(), (4, kept));
            }
            assert!(locals.flows.len() <= 20);
        }
        poll(&mut locals).await;
        assert_eq!(counters.dropped_datagrams.load(Relaxed), 0);
        let left: Vec<_> = locals.into_tallies().collect();
        assert_eq!(left.len(), 20);
        assert!(left.iter().any(|tally| (tally.visitor, tally.up) == (visitor(1), 4 * 500)));
        // Each is told of once, in order, with its own numbers.
        assert!(ended.iter().all(|(tally, end)| (tally.up, *end) == (5, FlowEnd::PushedOut)));
        assert!(ended.iter().map(|(tally, _)| tally.visitor).eq((2..=4980).map(visitor)));
    }

    #[tokio::test]
    async fn idle_flows_are_closed_and_used_ones_are_not() {
        let (service, endpoint) = service().await;
        let counters = Counters::default();
        let mut ended = Vec::new();
        let mut on_end = |tally: Tally, end: FlowEnd| {
            ended.push((tally.visitor, tally.up, tally.down, tally.duration().as_secs(), end.to_string()));
        };
        let mut locals = Locals::at_most(20, Lookup::new(&endpoint, false), &counters, &mut on_end);
        let mut buffer = [0; 9];
        locals.on_frame(visitor(1), b"one");
        let (_, one) = service.recv_from(&mut buffer).await.unwrap();
        locals.on_frame(visitor(2), b"two");
        locals.on_frame(visitor(3), b"three");
        poll(&mut locals).await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(50)).await;
        // One is used by its visitor, two by the service, three not at all.
        locals.on_frame(visitor(1), b"one");
        let (_, two) = service.recv_from(&mut buffer).await.unwrap();
        service.send_to(b"two", two).await.unwrap();
        let mut outbox = Outbox::default();
        poll_fn(|cx| {
            locals.poll(cx, &mut outbox);
            if counters.down.load(Relaxed) == 3 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_ne!(one, two);
        tokio::time::advance(Duration::from_secs(11)).await;
        poll(&mut locals).await;
        let left: Vec<bool> = (1..=3).map(|n| locals.flows.get_mut(visitor(n)).is_some()).collect();
        assert_eq!(left, [true, true, false]);
        tokio::time::advance(Duration::from_secs(50)).await;
        poll(&mut locals).await;
        assert!(locals.flows.is_at_rest());
        let idle = "idle for 60 s".to_owned();
        ended.sort();
        assert_eq!(
            ended,
            [
                (visitor(1), 6, 0, 50, idle.clone()),
                (visitor(2), 3, 3, 50, idle.clone()),
                (visitor(3), 5, 0, 0, idle)
            ]
        );
    }

    #[tokio::test]
    async fn a_name_that_is_not_found_costs_a_bounded_queue_only() {
        let endpoint = Endpoint { host: Host::Name("no-such-name.invalid".to_owned()), port: 1 };
        let counters = Counters::default();
        let mut on_end = |_, _| {};
        let mut locals = Locals::at_most(20, Lookup::new(&endpoint, false), &counters, &mut on_end);
        for n in 1..=1000 {
            locals.on_frame(visitor(n), &[0; 1000]);
        }
        assert!(locals.waiting_bytes <= MOST_WAITING_BYTES && locals.waiting.len() <= MOST_WAITING);
        assert!(!locals.waiting.is_empty());
        poll_fn(|cx| {
            locals.poll(cx, &mut Outbox::default());
            if counters.dropped_datagrams.load(Relaxed) == 1000 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert!(locals.waiting.is_empty() && locals.flows.is_at_rest());
    }
}
