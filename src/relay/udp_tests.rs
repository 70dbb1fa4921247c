//! UDP between real sockets on loopback: visitors, the server's side, the client's side, a local service.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::config::{Endpoint, Host};
use crate::wire::datagram::{Header, MAX_PAYLOAD};
use std::net::SocketAddr;

const PATIENCE: Duration = Duration::from_secs(20);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// As roles bind a service's sockets.
fn bind(address: &str) -> Arc<UdpSocket> {
    Arc::new(tcp::bind_udp(address.parse().unwrap()).unwrap())
}

async fn connected(to: SocketAddr) -> UdpSocket {
    let from = if to.is_ipv6() { "[::1]:0" } else { "127.0.0.1:0" };
    let socket = UdpSocket::bind(from).await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint { host: Host::Ip(address.ip()), port: address.port() }
}

fn echo(socket: UdpSocket) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_535];
        loop {
            let (n, from) = socket.recv_from(&mut buffer).await.unwrap();
            socket.send_to(&buffer[..n], from).await.unwrap();
        }
    })
}

/// The server's side on one end of a data channel; the other end is the test's.
fn serve(
    sockets: &[Arc<UdpSocket>],
    channel: TcpStream,
    visitors: Visitors,
) -> (JoinHandle<(ChannelEnd, Visitors)>, Arc<Counters>) {
    serve_at(sockets, channel, visitors, Arc::default())
}

fn serve_at(
    sockets: &[Arc<UdpSocket>],
    channel: TcpStream,
    mut visitors: Visitors,
    door: Arc<Door>,
) -> (JoinHandle<(ChannelEnd, Visitors)>, Arc<Counters>) {
    let (sockets, counters) = (sockets.to_vec(), Arc::<Counters>::default());
    let shared = counters.clone();
    let task = tokio::spawn(async move {
        let end =
            serve_visitors(Stream::Tcp(channel), &sockets, &mut visitors, &door, &shared, &mut |_, _| {})
                .await;
        (end, visitors)
    });
    (task, counters)
}

fn local(channel: TcpStream, service: Endpoint) -> (JoinHandle<ChannelEnd>, Arc<Counters>) {
    let counters = Arc::<Counters>::default();
    let shared = counters.clone();
    let task = tokio::spawn(async move {
        let mut on_end = |_, _| {};
        let mut locals = Locals::new(&service, false, &shared, &mut on_end);
        serve_local(Stream::Tcp(channel), &mut locals).await
    });
    (task, counters)
}

fn frame(visitor: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let (header, used) = Header { visitor, len: payload.len() as u16 }.encode();
    [&header[..used], payload].concat()
}

async fn read_frame(from: &mut (impl tokio::io::AsyncRead + Unpin)) -> (SocketAddr, Vec<u8>) {
    let mut bytes = vec![from.read_u8().await.unwrap()];
    bytes.resize(1 + usize::from(bytes[0]), 0);
    from.read_exact(&mut bytes[1..]).await.unwrap();
    let (header, _) = Header::decode(&bytes).unwrap().unwrap();
    let mut payload = vec![0; usize::from(header.len)];
    from.read_exact(&mut payload).await.unwrap();
    (header.visitor, payload)
}

async fn exchange(visitor: &UdpSocket, payload: &[u8]) {
    visitor.send(payload).await.unwrap();
    let mut got = vec![0; 65_535];
    let n = timeout(PATIENCE, visitor.recv(&mut got)).await.expect("no answer").unwrap();
    assert!(got[..n] == *payload, "{n} bytes came back for {}", payload.len());
}

#[tokio::test]
async fn datagrams_of_every_size_and_family_come_back_whole() {
    for service in ["127.0.0.1:0", "[::1]:0"] {
        let service = UdpSocket::bind(service).await.unwrap();
        let to = endpoint(service.local_addr().unwrap());
        let service = echo(service);
        let (near, far) = pair().await;
        let sockets = [bind("127.0.0.1:0"), bind("[::1]:0")];
        let (_server, up) = serve(&sockets, near, Visitors::new());
        let (_client, down) = local(far, to);
        for socket in &sockets {
            let visitors = [
                connected(socket.local_addr().unwrap()).await,
                connected(socket.local_addr().unwrap()).await,
            ];
            for size in [1, 0, 1472, 2049, 9000, MAX_PAYLOAD, 0, 1] {
                for (n, visitor) in visitors.iter().enumerate() {
                    exchange(visitor, &vec![n as u8 + 1; size]).await;
                }
            }
        }
        let bytes = 2 * 2 * (1 + 1472 + 2049 + 9000 + MAX_PAYLOAD + 1) as u64;
        for counters in [up, down] {
            assert_eq!((counters.up.load(Relaxed), counters.down.load(Relaxed)), (bytes, bytes));
            assert_eq!(counters.dropped_datagrams.load(Relaxed), 0);
        }
        service.abort();
    }
}

#[tokio::test]
async fn a_dual_stack_socket_shows_mapped_addresses_and_takes_them_back() {
    let socket = bind("[::]:0");
    let port = socket.local_addr().unwrap().port();
    let (near, mut far) = pair().await;
    let (_server, _) = serve(&[socket], near, Visitors::new());
    let visitor = connected(([127, 0, 0, 1], port).into()).await;
    visitor.send(b"hello").await.unwrap();
    let (from, payload) = read_frame(&mut far).await;
    assert_eq!(payload, b"hello");
    assert_eq!(from.to_string(), format!("[::ffff:127.0.0.1]:{}", visitor.local_addr().unwrap().port()));
    far.write_all(&frame(from, b"back")).await.unwrap();
    let mut got = [0; 9];
    assert_eq!(timeout(PATIENCE, visitor.recv(&mut got)).await.unwrap().unwrap(), 4);
}

#[tokio::test]
async fn replies_go_only_to_who_wrote_and_no_bad_one_ends_anything() {
    let socket = bind("127.0.0.1:0");
    let (near, mut far) = pair().await;
    let (_server, counters) = serve(std::slice::from_ref(&socket), near, Visitors::new());
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let visitor = connected(socket.local_addr().unwrap()).await;
    visitor.send(b"hello").await.unwrap();
    let (from, _) = read_frame(&mut far).await;
    let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{}", from.port()).parse().unwrap();
    let bad = [
        frame(stranger.local_addr().unwrap(), b"cannon"),
        frame("192.0.2.1:9".parse().unwrap(), b"cannon"),
        frame("127.0.0.1:0".parse().unwrap(), b"port 0"),
        frame("[::1]:5".parse().unwrap(), b"other family"),
        frame(mapped, b"mapped"),
        frame(from, &vec![0; MAX_PAYLOAD + 1]),
        frame(from, &vec![0; 65_535]),
    ];
    for bad in &bad {
        far.write_all(bad).await.unwrap();
    }
    far.write_all(&frame(from, b"good")).await.unwrap();
    let mut got = [0; 9];
    let n = timeout(PATIENCE, visitor.recv(&mut got)).await.unwrap().unwrap();
    assert_eq!(&got[..n], b"good");
    assert_eq!(counters.dropped_datagrams.load(Relaxed), bad.len() as u64);
    assert!(stranger.try_recv(&mut got).is_err(), "a stranger got a datagram");
    exchange_with(&visitor, &mut far).await;
}

/// The server's side works: a datagram up, one down.
async fn exchange_with(visitor: &UdpSocket, far: &mut TcpStream) {
    visitor.send(b"ask").await.unwrap();
    let (from, payload) = timeout(PATIENCE, read_frame(far)).await.unwrap();
    assert_eq!((from, &payload[..]), (visitor.local_addr().unwrap(), &b"ask"[..]));
    far.write_all(&frame(from, b"answer")).await.unwrap();
    let mut got = [0; 9];
    assert_eq!(timeout(PATIENCE, visitor.recv(&mut got)).await.unwrap().unwrap(), 6);
}

#[tokio::test]
async fn a_malformed_frame_ends_the_channel_and_says_so() {
    let socket = bind("127.0.0.1:0");
    let (near, mut far) = pair().await;
    let (server, _) = serve(std::slice::from_ref(&socket), near, Visitors::new());
    let visitor = connected(socket.local_addr().unwrap()).await;
    exchange_with(&visitor, &mut far).await;
    far.write_all(&[12, 9, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).await.unwrap();
    let (end, visitors) = server.await.unwrap();
    assert_eq!(end.to_string(), "malformed UDP frame: unknown address family");
    // The service goes on with the next channel, and knows its visitors.
    let (near, mut far) = pair().await;
    let (server, _) = serve(&[socket], near, visitors);
    far.write_all(&frame(visitor.local_addr().unwrap(), b"late")).await.unwrap();
    let mut got = [0; 9];
    assert_eq!(timeout(PATIENCE, visitor.recv(&mut got)).await.unwrap().unwrap(), 4);
    exchange_with(&visitor, &mut far).await;
    far.shutdown().await.unwrap();
    assert!(matches!(server.await.unwrap().0, ChannelEnd::Closed));
}

#[tokio::test]
async fn an_end_within_a_frame_is_a_fault() {
    let (near, mut far) = pair().await;
    let (server, _) = serve(&[bind("127.0.0.1:0")], near, Visitors::new());
    far.write_all(&[12, 0, 0]).await.unwrap();
    far.shutdown().await.unwrap();
    assert!(matches!(server.await.unwrap().0, ChannelEnd::Failed(_)));
}

/// Small socket buffers, so that a stalled channel is stuffed soon.
fn narrow(socket: &TcpStream) {
    SockRef::from(socket).set_send_buffer_size(16 * 1024).unwrap();
    SockRef::from(socket).set_recv_buffer_size(16 * 1024).unwrap();
}

async fn until(mut what: impl FnMut() -> bool) {
    timeout(PATIENCE, async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("it never happened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_visitor_on_a_stalled_channel_stops_nobody() {
    let socket = bind("127.0.0.1:0");
    let to = socket.local_addr().unwrap();
    let (near, mut far) = pair().await;
    narrow(&near);
    narrow(&far);
    let (_server, counters) = serve(&[socket], near, Visitors::new());
    let (flood, other) = (connected(to).await, connected(to).await);
    // Nobody reads the channel: the flood must be dropped, and counted, at some time.
    let dropped = || counters.dropped_datagrams.load(Relaxed) > 100;
    until(|| {
        for _ in 0..50 {
            let _ = flood.try_send(&[7; 1400]);
        }
        dropped()
    })
    .await;
    // The other direction works all the while.
    far.write_all(&frame(flood.local_addr().unwrap(), b"down")).await.unwrap();
    let mut got = [0; 9];
    assert_eq!(timeout(PATIENCE, flood.recv(&mut got)).await.unwrap().unwrap(), 4);
    // There is room for the other visitor, and its datagram is among what comes out at last.
    let queued = counters.up.load(Relaxed);
    other.send(b"me too").await.unwrap();
    until(|| counters.up.load(Relaxed) >= queued + 6).await;
    let found =
        async { while read_frame(&mut far).await != (other.local_addr().unwrap(), b"me too".to_vec()) {} };
    timeout(PATIENCE, found).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_flow_on_the_client_stops_nobody() {
    let service = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = endpoint(service.local_addr().unwrap());
    let _service = echo(service);
    let (mut near, far) = pair().await;
    narrow(&near);
    narrow(&far);
    let (_client, counters) = local(far, to);
    let (flood, other) = (SocketAddr::from(([192, 0, 2, 1], 1)), SocketAddr::from(([192, 0, 2, 2], 2)));
    // Nobody reads the answers, but all that is written must be taken: it never waits for them.
    let bytes = frame(flood, &[7; 1400]).repeat(100);
    let stuffed = async {
        while counters.dropped_datagrams.load(Relaxed) < 100 {
            near.write_all(&bytes).await.unwrap();
        }
    };
    timeout(PATIENCE, stuffed).await.expect("the client stopped reading");
    let before = counters.down.load(Relaxed);
    timeout(PATIENCE, near.write_all(&frame(other, b"me too"))).await.unwrap().unwrap();
    until(|| counters.down.load(Relaxed) >= before + 6).await;
    let found = async { while read_frame(&mut near).await != (other, b"me too".to_vec()) {} };
    timeout(PATIENCE, found).await.unwrap();
}

#[tokio::test]
async fn a_stalled_channel_can_be_dropped_and_another_serves_at_once() {
    let socket = bind("127.0.0.1:0");
    let to = socket.local_addr().unwrap();
    let (near, far) = pair().await;
    narrow(&near);
    narrow(&far);
    let (server, counters) = serve(std::slice::from_ref(&socket), near, Visitors::new());
    let flood = connected(to).await;
    until(|| {
        for _ in 0..50 {
            let _ = flood.try_send(&[7; 1400]);
        }
        counters.dropped_datagrams.load(Relaxed) > 0
    })
    .await;
    server.abort();
    assert!(server.await.unwrap_err().is_cancelled());
    let (near, mut far) = pair().await;
    let (_server, _) = serve(&[socket], near, Visitors::new());
    let visitor = connected(to).await;
    visitor.send(b"hello").await.unwrap();
    let found =
        async { while read_frame(&mut far).await != (visitor.local_addr().unwrap(), b"hello".to_vec()) {} };
    timeout(PATIENCE, found).await.unwrap();
}

#[tokio::test]
async fn a_flow_lives_on_when_its_service_was_away() {
    let service = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = service.local_addr().unwrap();
    drop(service);
    let (mut near, far) = pair().await;
    let (_client, counters) = local(far, endpoint(address));
    let visitors: Vec<SocketAddr> = (1..=50).map(|n| SocketAddr::from(([192, 0, 2, 1], n))).collect();
    for _ in 0..5 {
        for visitor in &visitors {
            near.write_all(&frame(*visitor, b"anybody there?")).await.unwrap();
        }
    }
    until(|| counters.dropped_datagrams.load(Relaxed) >= 50).await;
    let service = UdpSocket::bind(address).await.unwrap();
    let _service = echo(service);
    for visitor in &visitors {
        near.write_all(&frame(*visitor, b"again")).await.unwrap();
        let (from, payload) = timeout(PATIENCE, async {
            loop {
                let answer = read_frame(&mut near).await;
                if answer.1 == b"again" {
                    return answer;
                }
            }
        })
        .await
        .expect("a flow is dead for good");
        assert_eq!((from, &payload[..]), (*visitor, &b"again"[..]));
    }
}

#[tokio::test]
async fn a_service_named_by_name_is_found_and_nothing_is_lost_meanwhile() {
    let service = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = service.local_addr().unwrap().port();
    let _service = echo(service);
    let (mut near, far) = pair().await;
    let (_client, _) = local(far, Endpoint { host: Host::Name("localhost".to_owned()), port });
    for n in 1..=20 {
        near.write_all(&frame(SocketAddr::from(([192, 0, 2, 1], n)), &n.to_le_bytes())).await.unwrap();
    }
    for _ in 1..=20 {
        let (from, payload) = timeout(PATIENCE, read_frame(&mut near)).await.unwrap();
        assert_eq!(payload, from.port().to_le_bytes());
    }
}

#[tokio::test]
async fn what_comes_without_a_client_is_dropped_and_counted() {
    let socket = bind("127.0.0.1:0");
    let visitor = connected(socket.local_addr().unwrap()).await;
    let (sockets, counters) = ([socket], Arc::<Counters>::default());
    let (shared, readers) = (counters.clone(), sockets.clone());
    let dropper = tokio::spawn(async move {
        drop_datagrams(&readers, &mut Visitors::new(), &Door::default(), &shared, &mut |_, _| {}).await
    });
    for _ in 0..10 {
        visitor.send(b"stale").await.unwrap();
    }
    until(|| counters.dropped_datagrams.load(Relaxed) == 10).await;
    dropper.abort();
    assert!(dropper.await.unwrap_err().is_cancelled());
    let (near, mut far) = pair().await;
    let (_server, counters) = serve(&sockets, near, Visitors::new());
    // Dropped datagrams gave no right to replies.
    far.write_all(&frame(visitor.local_addr().unwrap(), b"uninvited")).await.unwrap();
    until(|| counters.dropped_datagrams.load(Relaxed) == 1).await;
    exchange_with(&visitor, &mut far).await;
}

/// `allow` and `deny`, for datagrams and for replies, also when they change while the channel is in use.
#[tokio::test]
async fn who_may_not_come_is_dropped_and_counted() {
    let access = |deny: &[&str]| {
        let deny: Vec<_> = deny.iter().map(|text| crate::config::Prefix::parse(text).unwrap().0).collect();
        crate::config::Access::new(None, &deny)
    };
    let terms = |deny: &[&str]| Terms { access: access(deny), most: 10 };
    let door = Arc::new(Door::new(terms(&["127.0.0.2"])));
    let socket = bind("[::]:0");
    let port = socket.local_addr().unwrap().port();
    let (near, mut far) = pair().await;
    let (_server, counters) = serve_at(&[socket], near, Visitors::new(), door.clone());
    let visitor = async |from: &str| {
        let visitor = UdpSocket::bind(from).await.unwrap();
        visitor.connect(("127.0.0.1", port)).await.unwrap();
        visitor
    };
    let (good, bad) = (visitor("127.0.0.1:0").await, visitor("127.0.0.2:0").await);
    bad.send(b"no").await.unwrap();
    good.send(b"yes").await.unwrap();
    let (from, payload) = timeout(PATIENCE, read_frame(&mut far)).await.unwrap();
    assert_eq!((from.port(), &payload[..]), (good.local_addr().unwrap().port(), &b"yes"[..]));
    assert_eq!(timeout(PATIENCE, door.turned()).await.unwrap(), Turned { away: 1, out: 0 });
    assert_eq!((counters.denied.load(Relaxed), counters.dropped_datagrams.load(Relaxed)), (1, 1));
    // The other way round, and not even a reply goes to who may not come any more.
    door.set(terms(&["::ffff:127.0.0.1"]));
    far.write_all(&frame(from, b"reply")).await.unwrap();
    good.send(b"no").await.unwrap();
    bad.send(b"yes").await.unwrap();
    let (now, payload) = timeout(PATIENCE, read_frame(&mut far)).await.unwrap();
    assert_eq!((now.port(), &payload[..]), (bad.local_addr().unwrap().port(), &b"yes"[..]));
    assert_eq!(counters.down.load(Relaxed), 0);
    far.write_all(&frame(now, b"reply")).await.unwrap();
    let mut got = [0; 9];
    assert_eq!(timeout(PATIENCE, bad.recv(&mut got)).await.unwrap().unwrap(), 5);
}

/// A lower limit makes the quietest visitors leave.
#[tokio::test]
async fn fewer_visitors_than_are_there() {
    let door = Arc::new(Door::new(Terms { most: 3, ..Terms::default() }));
    let socket = bind("127.0.0.1:0");
    let to = socket.local_addr().unwrap();
    let (near, mut far) = pair().await;
    let (server, _) = serve_at(&[socket], near, Visitors::new(), door.clone());
    let mut visitors = Vec::new();
    for n in 0..5u8 {
        let visitor = connected(to).await;
        visitor.send(&[n]).await.unwrap();
        assert_eq!(read_frame(&mut far).await.1, [n]);
        visitors.push(visitor);
    }
    door.set(Terms { most: 1, ..Terms::default() });
    visitors[3].send(b"still here").await.unwrap();
    read_frame(&mut far).await;
    drop(far);
    let (_, left) = timeout(PATIENCE, server).await.unwrap().unwrap();
    let left: Vec<_> = left.into_tallies().map(|tally| tally.visitor).collect();
    assert_eq!(left, [visitors[3].local_addr().unwrap()]);
}
