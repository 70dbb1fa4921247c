//! Relays between real sockets on loopback: what goes in comes out, ends are ends, resets are resets.

use std::io::ErrorKind;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

/// A visitor, a server's relay, a client's relay and a local service, in a row.
struct Row {
    visitor: TcpStream,
    service: TcpStream,
    server: JoinHandle<(Reason, u64, u64)>,
    client: JoinHandle<(Reason, u64, u64)>,
    counters: Arc<Counters>,
    pool: &'static Pool,
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

fn relay(
    tunnel: TcpStream,
    local: TcpStream,
    side: Side,
    counters: &Arc<Counters>,
    pool: &'static Pool,
) -> Relay {
    let mut relay = Relay::new(Stream::Tcp(tunnel), local, side, Instant::now(), counters.clone());
    relay.pool = pool;
    relay
}

fn spawn(mut relay: Relay) -> JoinHandle<(Reason, u64, u64)> {
    tokio::spawn(async move {
        let reason = relay.run().await;
        assert!(!matches!(reason, Reason::Ended) || (relay.inward.is_idle() && relay.outward.is_idle()));
        (reason, relay.up(), relay.down())
    })
}

fn pool(most: usize) -> &'static Pool {
    Box::leak(Box::new(Pool::new(most)))
}

async fn row(most_pipes: usize) -> Row {
    let pool = pool(most_pipes);
    let (visitor, at_server) = pair().await;
    let (near, far) = pair().await;
    let (at_client, service) = pair().await;
    for socket in [&visitor, &at_server, &near, &far, &at_client, &service] {
        socket.set_nodelay(true).unwrap();
    }
    let counters = Arc::new(Counters::default());
    let server = spawn(relay(near, at_server, Side::Server, &counters, pool));
    let client = spawn(relay(far, at_client, Side::Client, &Arc::default(), pool));
    Row { visitor, service, server, client, counters, pool }
}

/// Sends `total` random bytes in chunks of random size, and ends; gives their checksum.
async fn send(
    mut to: impl tokio::io::AsyncWrite + Unpin,
    total: usize,
    sizes: &[usize],
    seed: u64,
) -> [u8; 32] {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut hash, mut sent) = (Sha256::new(), 0);
    let mut noise = vec![0; 1 << 20];
    random.fill(&mut noise);
    while sent < total {
        let most = sizes[random.usize(..sizes.len())];
        let size = random.usize(1..=most).min(total - sent);
        let start = random.usize(..=noise.len() - size);
        let chunk = &noise[start..start + size];
        hash.update(chunk);
        to.write_all(chunk).await.unwrap();
        sent += size;
        if random.u8(..) < 8 {
            tokio::task::yield_now().await;
        }
    }
    to.shutdown().await.unwrap();
    hash.finalize().into()
}

/// Reads to the end; gives count and checksum.
async fn receive(mut from: impl tokio::io::AsyncRead + Unpin) -> (usize, [u8; 32]) {
    let (mut hash, mut got) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 18];
    loop {
        match from.read(&mut buffer).await.unwrap() {
            0 => return (got, hash.finalize().into()),
            n => {
                hash.update(&buffer[..n]);
                got += n;
            }
        }
    }
}

/// Both directions at once; everything must arrive, and every pipe must come back.
async fn both_ways(row: Row, total: usize, sizes: &'static [usize], seed: u64) {
    let Row { visitor, service, server, client, counters, pool } = row;
    let (visitor_in, visitor_out) = visitor.into_split();
    let (service_in, service_out) = service.into_split();
    let up = tokio::spawn(send(visitor_out, total, sizes, seed));
    let down = tokio::spawn(send(service_out, total, sizes, seed + 1000));
    let got_up = tokio::spawn(receive(service_in));
    let got_down = receive(visitor_in).await;
    assert_eq!(got_down, (total, down.await.unwrap()));
    assert_eq!(got_up.await.unwrap(), (total, up.await.unwrap()));
    for relay in [server, client] {
        let (reason, up, down) = relay.await.unwrap();
        assert!(matches!(reason, Reason::Ended), "{reason}");
        assert_eq!((up, down), (total as u64, total as u64));
    }
    use std::sync::atomic::Ordering::Relaxed;
    assert_eq!(counters.up.load(Relaxed), total as u64);
    assert_eq!(counters.down.load(Relaxed), total as u64);
    assert!(counters.first_byte_us.load(Relaxed) > 0);
    assert_eq!(pool.lent(), 0, "a pipe was not given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_both_ways_through_pipes() {
    let row = row(4).await;
    let pool = row.pool;
    both_ways(row, 100 << 20, &[1 << 20], 1).await;
    assert!(pool.free() > 0, "bulk between bare sockets must have used a pipe");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_both_ways_without_pipes() {
    let row = row(0).await;
    both_ways(row, 50 << 20, &[1 << 20], 2).await;
}

#[tokio::test]
async fn any_mixture_of_sizes_arrives_whole() {
    for seed in 0..20 {
        // Small and huge chunks take turns, so that each direction changes between copying and splicing.
        let row = row(usize::try_from(seed).unwrap() % 5).await;
        both_ways(row, 3 << 20, &[1, 10, 100, 4000, 70_000, 900_000], seed).await;
    }
}

#[tokio::test]
async fn small_messages_take_no_pipe() {
    let mut row = row(4).await;
    let mut buffer = [0; 64];
    for n in 0..2000u32 {
        let size = 1 + n as usize % 64;
        let message = vec![n as u8; size];
        row.visitor.write_all(&message).await.unwrap();
        row.service.read_exact(&mut buffer[..size]).await.unwrap();
        assert_eq!(buffer[..size], message);
        row.service.write_all(&message).await.unwrap();
        row.visitor.read_exact(&mut buffer[..size]).await.unwrap();
    }
    assert_eq!((row.pool.lent(), row.pool.free()), (0, 0));
}

#[tokio::test]
async fn a_direction_leaves_the_pipe_when_bulk_is_over() {
    let Row { mut visitor, mut service, pool, .. } = row(4).await;
    let mut random = fastrand::Rng::with_seed(7);
    let mut data = vec![0; 8 << 20];
    random.fill(&mut data);
    for round in 0..5 {
        let (_, got) = tokio::join!(async { visitor.write_all(&data).await.unwrap() }, async {
            let mut got = vec![0; data.len()];
            service.read_exact(&mut got).await.unwrap();
            got
        });
        assert!(got == data, "round {round}");
        assert!(pool.free() > 0, "round {round}: bulk must use a pipe");
        // All is delivered, so nothing is in flight; small messages from here on.
        for _ in 0..10 {
            visitor.write_all(b"ping").await.unwrap();
            service.read_exact(&mut [0; 4]).await.unwrap();
            assert_eq!(pool.lent(), 0);
        }
    }
}

#[tokio::test]
async fn bulk_is_spliced_and_small_messages_are_copied() {
    let (mut near, mut source) = pair().await;
    let (mut sink, mut far) = pair().await;
    let (mut direction, pool) = (Direction::new(), pool(1));
    for (size, spliced) in [(100, false), (8 << 20, true), (100, false), (100, false), (8 << 20, true)] {
        let message = vec![size as u8; size];
        let exchange = async {
            let mut got = vec![0; size];
            let (sent, read) = tokio::join!(near.write_all(&message), far.read_exact(&mut got));
            sent.unwrap();
            read.unwrap();
            assert!(got == message);
        };
        let mut was_spliced = false;
        tokio::select! {
            biased;
            _ = poll_fn(|cx| {
                let result = direction.poll(cx, &mut source, &mut sink, true, pool);
                was_spliced |= direction.is_splicing();
                result
            }) => panic!("ended"),
            () = exchange => {}
        }
        assert!(was_spliced || !spliced, "{size} bytes");
        poll_fn(|cx| {
            let _ = direction.poll(cx, &mut source, &mut sink, true, pool);
            Poll::Ready(())
        })
        .await;
        assert!(!direction.is_splicing() || spliced, "{size} bytes");
        assert_eq!(pool.lent(), 0, "{size} bytes");
    }
}

#[tokio::test]
async fn a_slow_reader_gets_everything_and_the_other_direction_goes_on() {
    for pipes in [0, 4] {
        let Row { mut visitor, service, server, client, pool, .. } = row(pipes).await;
        let (service_in, mut service_out) = service.into_split();
        let sender = tokio::spawn(async move {
            let mut hash = Sha256::new();
            let chunk: Vec<u8> = (0..=255).cycle().take(99_991).collect();
            for _ in 0..300 {
                service_out.write_all(&chunk).await.unwrap();
                hash.update(&chunk);
            }
            service_out.shutdown().await.unwrap();
            <[u8; 32]>::from(hash.finalize())
        });
        // Down is stuffed: nobody reads it, and the sender cannot end.
        visitor.write_all(b"up goes on").await.unwrap();
        visitor.shutdown().await.unwrap();
        assert_eq!(receive(service_in).await.0, 10);
        assert!(!sender.is_finished());
        let mut hash = Sha256::new();
        let mut got = 0;
        let mut piece = [0; 7001];
        loop {
            let n = visitor.read(&mut piece).await.unwrap();
            if n == 0 {
                break;
            }
            got += n;
            hash.update(&piece[..n]);
            tokio::task::yield_now().await;
        }
        assert_eq!(got, 300 * 99_991);
        assert_eq!(<[u8; 32]>::from(hash.finalize()), sender.await.unwrap());
        for relay in [server, client] {
            assert!(matches!(relay.await.unwrap().0, Reason::Ended));
        }
        assert_eq!(pool.lent(), 0);
    }
}

#[tokio::test]
async fn an_end_ends_one_direction_only() {
    for from_visitor in [true, false] {
        let Row { visitor, service, server, client, .. } = row(4).await;
        let (mut first, mut second) = if from_visitor { (visitor, service) } else { (service, visitor) };
        first.write_all(b"question").await.unwrap();
        first.shutdown().await.unwrap();
        let mut got = Vec::new();
        second.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"question");
        // The other direction is still open, long after.
        for _ in 0..3 {
            second.write_all(b"answer").await.unwrap();
            let mut got = [0; 6];
            first.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"answer");
        }
        second.shutdown().await.unwrap();
        assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
        for relay in [server, client] {
            assert!(matches!(relay.await.unwrap().0, Reason::Ended));
        }
    }
}

async fn expect_reset(socket: &mut TcpStream) {
    let mut rest = Vec::new();
    let error = socket.read_to_end(&mut rest).await.expect_err("an orderly end instead of a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

fn reset(socket: TcpStream) {
    tcp::reset_on_drop(&socket);
}

#[tokio::test]
async fn a_visitors_reset_reaches_the_service() {
    let Row { mut visitor, mut service, server, client, .. } = row(4).await;
    visitor.write_all(b"x").await.unwrap();
    service.read_exact(&mut [0]).await.unwrap();
    reset(visitor);
    expect_reset(&mut service).await;
    assert!(matches!(server.await.unwrap().0, Reason::VisitorReset));
    assert!(matches!(client.await.unwrap().0, Reason::TunnelReset));
}

#[tokio::test]
async fn a_services_reset_reaches_the_visitor() {
    let Row { mut visitor, mut service, server, client, .. } = row(4).await;
    visitor.write_all(b"x").await.unwrap();
    service.read_exact(&mut [0]).await.unwrap();
    reset(service);
    expect_reset(&mut visitor).await;
    assert!(matches!(server.await.unwrap().0, Reason::TunnelReset));
    assert!(matches!(client.await.unwrap().0, Reason::LocalReset));
}

#[tokio::test]
async fn a_tunnels_reset_reaches_both_ends() {
    let (mut visitor, at_server) = pair().await;
    let (near, far) = pair().await;
    let server = spawn(relay(near, at_server, Side::Server, &Arc::default(), pool(4)));
    reset(far);
    expect_reset(&mut visitor).await;
    assert!(matches!(server.await.unwrap().0, Reason::TunnelReset));
}

#[tokio::test]
async fn a_reset_after_an_end_is_noticed() {
    // The one who ended its direction goes away, while nobody writes to it.
    for from_visitor in [true, false] {
        let Row { visitor, service, server, client, .. } = row(4).await;
        let (mut first, mut second) = if from_visitor { (visitor, service) } else { (service, visitor) };
        first.shutdown().await.unwrap();
        assert_eq!(second.read(&mut [0]).await.unwrap(), 0);
        reset(first);
        // Its read side has ended: the reset shows as an error of the next write, or as the socket's own error.
        let gone = async {
            loop {
                if second.write_all(b"into the void").await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        // The relays must be over before anything is written.
        let over = async { (server.await.unwrap().0, client.await.unwrap().0) };
        let (server, client) = timeout(PATIENCE, over).await.expect("the reset was not noticed");
        let seen = format!("{server}, {client}");
        let expected = if from_visitor {
            "visitor reset, data channel reset"
        } else {
            "data channel reset, local service reset"
        };
        assert_eq!(seen, expected);
        gone.await;
    }
}

#[tokio::test]
async fn a_cut_and_a_drop_are_resets() {
    for cut in [true, false] {
        let (mut visitor, at_server) = pair().await;
        let (near, mut far) = pair().await;
        let mut relay = relay(near, at_server, Side::Server, &Arc::default(), pool(4));
        visitor.write_all(b"half a request").await.unwrap();
        let mut got = [0; 14];
        tokio::select! {
            reason = relay.run() => panic!("{reason}"),
            read = far.read_exact(&mut got) => assert_eq!(read.unwrap(), 14),
        }
        assert_eq!((relay.up(), relay.down()), (14, 0));
        if cut {
            relay.cut();
        }
        drop(relay);
        expect_reset(&mut visitor).await;
        expect_reset(&mut far).await;
    }
}

#[tokio::test]
async fn an_end_is_held_back_where_half_close_is_impossible() {
    assert!(may_end(true, false) && may_end(true, true) && may_end(false, true));
    assert!(!may_end(false, false));
    // One direction, as the relay drives it on such a tunnel.
    let (mut local, mut source) = pair().await;
    let (mut sink, mut far) = pair().await;
    let mut direction = Direction::new();
    let pool = pool(4);
    local.write_all(b"last words").await.unwrap();
    local.shutdown().await.unwrap();
    let mut may_end = false;
    let mut words = [0; 10];
    tokio::select! {
        biased;
        _ = poll_fn(|cx| direction.poll(cx, &mut source, &mut sink, may_end, pool)) => panic!("not held back"),
        read = far.read_exact(&mut words) => { read.unwrap(); }
    }
    assert_eq!(&words, b"last words");
    // The end was read too, at the latest now; the sink must stay open.
    poll_fn(|cx| {
        let _ = direction.poll(cx, &mut source, &mut sink, may_end, pool);
        if direction.is_flowing() { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    assert!(!direction.is_closed());
    assert_eq!(far.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    may_end = true;
    poll_fn(|cx| direction.poll(cx, &mut source, &mut sink, may_end, pool)).await.unwrap();
    assert!(direction.is_closed());
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
}

/// A sink that keeps what it is given until it is flushed, as an encrypted stream may.
struct Keeps {
    inner: TcpStream,
    kept: Vec<u8>,
    flushes: usize,
}

impl direction::Plain for Keeps {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

impl tokio::io::AsyncWrite for Keeps {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.kept.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.flushes += 1;
        let (n, result) = copy::deliver(cx, &mut this.inner, &this.kept);
        this.kept.drain(..n);
        result
    }

    fn poll_shutdown(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.as_mut().poll_flush(cx))?;
        std::pin::Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn what_a_sink_keeps_is_flushed_when_the_source_pauses() {
    let (mut local, mut source) = pair().await;
    let (near, mut far) = pair().await;
    let mut sink = Keeps { inner: near, kept: Vec::new(), flushes: 0 };
    let mut direction = Direction::new();
    local.write_all(b"question").await.unwrap();
    let (mut got, pool) = ([0; 8], pool(0));
    tokio::select! {
        _ = poll_fn(|cx| direction.poll(cx, &mut source, &mut sink, true, pool)) => panic!("ended"),
        read = timeout(PATIENCE, far.read_exact(&mut got)) => { read.expect("it was kept").unwrap(); }
    }
    assert_eq!(&got, b"question");
    assert_eq!(sink.flushes, 1, "one flush for one message");
}

#[tokio::test]
async fn an_idle_relay_is_small() {
    // The last pointer is its vigil's: null on kernels that keep watch themselves.
    assert!(size_of::<Relay>() <= 328, "{}", size_of::<Relay>());
}
