//! Whoever can reach the port and has no token: however many come, whatever they send, clients get in, visitors are
//! served, and memory stays bounded.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rathole::config::{RoleChoice, SystemFiles};
use rathole::transport::{Connector, Stream};
use tokio::io::AsyncWriteExt;

use super::Links;
use super::common::announce;
use super::common::net;
use super::common::process::Process;
use super::common::raw::{AUTH_FAILED, Control, connect, put, rest, take};
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Role, Service};
use super::common::visitor::{self, random};
use super::limits::{many_descriptors, rss};

/// What one stranger may cost the server, in bytes: docs/limits.md says so.
fn stated(link: &Link) -> u64 {
    let kib = match link.name.as_str() {
        "tcp" => 4,
        "websocket" => 8,
        "websocket+tls" => 16,
        name if name.starts_with("tls") => 12,
        _ => 8,
    };
    kib * 1024
}

/// Strangers of a crowd.
const CROWD: usize = 1000;

/// How strangers make the server hold as much as they can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Greed {
    /// They say nothing.
    Silent,
    /// The longest first message, but for its last byte.
    Early,
    /// The transport's handshake, then the longest record, but for its last byte.
    Late,
}

/// A client's side of the plan's transport, for a stranger who knows the pinned key or root, but no token. Over TLS the
/// upgrade is left to the stranger.
fn connector(plan: &Plan) -> Connector {
    let websocket = "type = \"websocket\"\n[client.transport.websocket]\ntls = true\n";
    let toml = plan.client_toml().replace(websocket, "type = \"tls\"\n");
    let path = plan.write("stranger.toml", &toml);
    let loaded = rathole::config::load(&rathole::config::Request {
        main: Path::new(&path),
        overlays: &[],
        role: RoleChoice::Client,
        files: &SystemFiles,
        static_only: false,
    })
    .unwrap();
    Connector::new(&loaded.config.client.unwrap()).unwrap()
}

/// `len` bytes of a head that does not end.
fn head(len: usize) -> Vec<u8> {
    [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; len - 19]].concat()
}

/// Comes, sends what its greed says, and stays.
async fn stranger(connector: Connector, link: Link, server: SocketAddr, greed: Greed, nth: u64) -> Stream {
    let over_tls = link.name.contains("tls");
    let (mut stream, last) = match greed {
        Greed::Silent => (tcp(server).await, Vec::new()),
        Greed::Early => {
            let first = match link.name.as_str() {
                "tcp" => random(nth, 36),
                "websocket" => head(4095),
                // A ClientHello.
                _ if over_tls => {
                    [&[22, 3, 1, 0x0f, 0xfb, 1, 0, 0x0f, 0xf7, 3, 3][..], &random(nth, 4095 - 11)].concat()
                }
                _ => [&[0, 2][..], &random(nth, 511)].concat(),
            };
            (tcp(server).await, first)
        }
        Greed::Late => {
            let mut stream = connector.connect(&[server], true).await.unwrap();
            if over_tls && link.name.contains("websocket") {
                stream.write_all(&head(4000)).await.unwrap();
                stream.flush().await.unwrap();
            }
            let record = match link.name.as_str() {
                "tcp" => random(nth, 36),
                // A frame.
                "websocket" => [&[0x82, 0xfe, 0x0f, 0xff, 1, 2, 3, 4][..], &random(nth, 30)].concat(),
                _ if over_tls => [&[23, 3, 3, 0x0f, 0xfb][..], &random(nth, 4095 - 5)].concat(),
                _ => [&[0xfe, 0x0f][..], &random(nth, 4095 - 2)].concat(),
            };
            (stream, record)
        }
    };
    if let Stream::Tcp(tcp) = &mut stream {
        tcp.write_all(&last).await.unwrap();
        return stream;
    }
    // Past the transport: it would make a proper record of it.
    let mut rest = &last[..];
    while !rest.is_empty() {
        stream.tcp().writable().await.unwrap();
        match stream.tcp().try_write(rest) {
            Ok(n) => rest = &rest[n..],
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}"),
        }
    }
    stream
}

async fn tcp(server: SocketAddr) -> Stream {
    Stream::Tcp(tokio::net::TcpStream::connect(server).await.unwrap())
}

/// How much memory `CROWD` strangers cost, each, in bytes. All of them must have been there.
fn cost(link: &Link, greed: Greed) -> u64 {
    let mut plan = Plan::new(link.clone(), vec![Service::tcp("echo", ([127, 0, 0, 1], 9).into())]);
    plan.server_lines =
        "handshake_timeout = 120\nmax_unauthenticated = 5000\nmax_unauthenticated_per_address = 5000\n"
            .to_owned();
    let config = plan.write("server.toml", &plan.server_toml());
    let mut command = Build::Ours.command(Role::Server, &config);
    command.env("RUST_LOG", "info");
    let server = Process::start("server", command);
    net::wait_listening(plan.server_addr);
    let own = sockets(&server);
    let connector = connector(&plan);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    // What the first few cost once: caches, threads' buffers.
    drop(runtime.block_on(crowd(&connector, &plan, greed, 64)));
    net::wait("the first strangers stay", || sockets(&server) <= own);
    let before = rss(&server);
    let crowd = runtime.block_on(crowd(&connector, &plan, greed, CROWD));
    net::wait("not all strangers are there", || sockets(&server) >= own + CROWD);
    // Until all that was sent is taken in.
    let mut last = 0;
    net::wait("its memory does not settle", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = rss(&server);
        std::mem::replace(&mut last, now) == now
    });
    assert!(sockets(&server) >= own + CROWD, "{}, {greed:?}: some were dropped", link.name);
    drop(crowd);
    last.saturating_sub(before) * 1024 / CROWD as u64
}

async fn crowd(connector: &Connector, plan: &Plan, greed: Greed, count: usize) -> Vec<Stream> {
    let mut crowd = Vec::new();
    for first in (0..count).step_by(32) {
        let some = (first..count.min(first + 32)).map(|nth| {
            let (connector, link) = (connector.clone(), plan.link.clone());
            tokio::spawn(stranger(connector, link, plan.server_addr, greed, nth as u64))
        });
        for stranger in some.collect::<Vec<_>>() {
            crowd.push(stranger.await.unwrap());
        }
    }
    crowd
}

/// Sockets that a process has open.
fn sockets(process: &Process) -> usize {
    let fds = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
    let sockets = fds.filter(|fd| {
        let target = fd.as_ref().ok().and_then(|fd| std::fs::read_link(fd.path()).ok());
        target.is_some_and(|target| target.to_string_lossy().starts_with("socket:"))
    });
    sockets.count()
}

/// A thousand strangers cost what docs/limits.md says, silent or as greedy as can be (D3).
#[test]
fn a_thousand_strangers_take_little_memory() {
    many_descriptors();
    let mut links = Links::new();
    // The same as with PKCS#12.
    links.all.retain(|link| link.name != "tls-pem");
    links.each(|link| {
        let costs = [Greed::Silent, Greed::Early, Greed::Late].map(|greed| cost(link, greed));
        announce(&format!("bytes of a stranger (silent, early, late), {}: {costs:?}", link.name));
        assert!(costs.iter().all(|cost| *cost <= stated(link)), "{}: {costs:?}", link.name);
    });
}

/// Two hundred strangers that send garbage, and a thousand silent ones.
fn siege(server: SocketAddr) -> Vec<TcpStream> {
    let garbage = (0..200).map(|seed| {
        let stream = connect(server);
        stream.set_nonblocking(true).unwrap();
        // It may have been dropped already.
        let _ = std::io::Write::write(&mut &stream, &random(seed, 1 + seed as usize * 7));
        stream
    });
    garbage.chain((0..1000).map(|_| connect(server))).collect()
}

/// In the midst of them a client comes, and a visitor: served within a second (D1, D2).
#[test]
fn a_client_gets_in_through_a_thousand_strangers() {
    many_descriptors();
    let links = Links::new();
    for link in &links.all {
        let local = Local::echo();
        let mut plan = Plan::new(link.clone(), vec![Service::tcp("echo", local.addr)]);
        let serve = |plan: &Plan| {
            let begun = Instant::now();
            let _client = plan.start_client(Build::Ours);
            visitor::wait_served(plan.services[0].visitors);
            begun.elapsed()
        };
        for (caps, lines, stay) in [
            ("default caps", "", 128),
            ("no caps", "max_unauthenticated = 5000\nmax_unauthenticated_per_address = 5000\n", 1000),
        ] {
            plan.server_lines = format!("handshake_timeout = 60\n{lines}");
            let server = plan.start_server(Build::Ours);
            let own = sockets(&server);
            // What this machine needs when nobody else is there.
            let alone = serve(&plan);
            net::wait("the client's connections stay", || sockets(&server) <= own);
            let strangers = siege(plan.server_addr);
            net::wait("the strangers are not there", || sockets(&server) >= own + stay);
            // This machine may be busy with other things: it has three attempts.
            let attempts: Vec<_> = std::iter::repeat_with(|| serve(&plan)).take(3).collect();
            let took = *attempts.iter().min().unwrap();
            let name = &link.name;
            announce(&format!(
                "client and visitor among 1200 strangers, {name}, {caps}: {attempts:.0?}; alone {alone:.0?}"
            ));
            assert!(took < Duration::from_secs(1), "{name}, {caps}: {attempts:?}, alone {alone:?}");
            drop(strangers);
        }
    }
}

/// A hundred services behind one address: when the server restarts they all come at once, and all get in.
#[test]
fn a_hundred_services_behind_one_address_reconnect() {
    many_descriptors();
    for lines in [
        "",
        "max_unauthenticated_per_address = 3\n",
        "max_unauthenticated_per_address = 3\nmax_unauthenticated = 20\n",
    ] {
        let local = Local::echo();
        let services = (0..100).map(|n| Service::tcp(&format!("s{n}"), local.addr)).collect();
        let mut plan = Plan::new(Link::tcp(), services);
        plan.server_lines = lines.to_owned();
        let mut server = plan.start_server(Build::Ours);
        let _client = plan.start_client(Build::Ours);
        for round in 0..2 {
            let begun = Instant::now();
            server.wait_for_times("client connected", 100);
            announce(&format!(
                "100 services of one address, round {round}, {lines:?}: {:.0?}",
                begun.elapsed()
            ));
            for service in [&plan.services[0], &plan.services[99]] {
                visitor::wait_served(service.visitors);
            }
            server.kill();
            server = plan.start_server(Build::Ours);
        }
    }
}

/// The cap for one address is not for one that has a client: as many as want may be in their handshake.
#[test]
fn a_client_s_address_is_exempt_from_its_cap() {
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", ([127, 0, 0, 1], 9).into())]);
    plan.server_lines = "handshake_timeout = 60\nmax_unauthenticated_per_address = 3\n".to_owned();
    let server = plan.start_server(Build::Ours);
    let own = sockets(&server);
    let strangers: Vec<_> = (0..50).map(|_| connect(plan.server_addr)).collect();
    rest(&strangers[46]);
    net::wait("not three strangers", || sockets(&server) == own + 3);
    let control = Control::open(plan.server_addr, "echo", &plan.server_token).accepted();
    let more: Vec<_> = (0..50).map(|_| connect(plan.server_addr)).collect();
    // One of the three strangers had to go for the control channel, no one for the others.
    net::wait("not all may come", || sockets(&server) == own + 2 + 1 + 50);
    drop(control);
    server.wait_for("client lost");
    let again: Vec<_> = (0..50).map(|_| connect(plan.server_addr)).collect();
    rest(&again[46]);
    net::wait("not the cap again", || sockets(&server) == own + 50 + 3);
    drop((strangers, more));
}

/// Silent strangers take every descriptor. A client drops the oldest of them, and so does each of its data channels
/// and visitors: nobody waits for a deadline (D2).
#[test]
fn strangers_that_take_all_descriptors_make_room() {
    let local = Local::echo();
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    plan.server_lines = "handshake_timeout = 60\n".to_owned();
    let mut server = plan.start_server_with(64);
    net::wait_listening(plan.server_addr);
    let strangers: Vec<_> = (0..80).map(|_| connect(plan.server_addr)).collect();
    let begun = Instant::now();
    let _client = plan.start_client(Build::Ours);
    visitor::wait_served(plan.services[0].visitors);
    announce(&format!("a client and a visitor where strangers had all descriptors: {:.0?}", begun.elapsed()));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // The oldest went first, and the youngest are still there.
    rest(&strangers[0]);
    strangers[79].set_nonblocking(true).unwrap();
    let youngest = std::io::Read::read(&mut &strangers[79], &mut [0]);
    assert_eq!(youngest.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    visitor::echo(plan.services[0].visitors, &random(1, 50_000), true);
    assert!(server.is_running());
    server.signal(nix::sys::signal::Signal::SIGTERM);
    server.wait();
    assert!(server.stderr().contains("dropped because no file descriptors were left"), "{}", server.stderr());
}

/// Each further failure of an address waits longer for its answer, but gets one; who knows the token does not wait.
#[test]
fn failures_are_held_back_and_clients_are_not() {
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", ([127, 0, 0, 1], 9).into())]);
    plan.server_lines = "handshake_timeout = 3\n".to_owned();
    let _server = plan.start_server(Build::Ours);
    let fail = || {
        let stranger = Control::open(plan.server_addr, "echo", "a wrong token, but a long one");
        let begun = Instant::now();
        assert_eq!(take(&stranger.stream), AUTH_FAILED);
        assert!(rest(&stranger.stream).is_empty());
        begun.elapsed()
    };
    let times: Vec<_> = (0..5).map(|_| fail()).collect();
    let least = [0, 100, 200, 400, 800].map(Duration::from_millis);
    for (took, least) in times.iter().zip(least) {
        assert!(*took >= least && *took < least + Duration::from_secs(1), "{times:?}");
    }
    // Many at once: each has its answer before the deadline, and a client has it at once.
    let failing: Vec<_> =
        (0..20).map(|_| Control::open(plan.server_addr, "echo", "a wrong token, but a long one")).collect();
    let begun = Instant::now();
    let client = Control::open(plan.server_addr, "echo", &plan.server_token).accepted();
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
    for stranger in &failing {
        assert_eq!(take(&stranger.stream), AUTH_FAILED);
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    drop(client);
}

/// An unknown service and a wrong token: the same bytes, after the same time.
#[test]
fn an_unknown_service_looks_like_a_wrong_token() {
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", ([127, 0, 0, 1], 9).into())]);
    // Each failure comes from an address of its own: what is held back would hide everything else.
    plan.server_lines = "handshake_timeout = 20\n".to_owned();
    let _server = plan.start_server(Build::Ours);
    let mut times = [Vec::new(), Vec::new()];
    for n in 0..150u8 {
        for (times, service) in times.iter_mut().zip(["echo", "no such service"]) {
            let own = SocketAddr::from(([127, 77, if service == "echo" { 1 } else { 2 }, n], 0));
            let stream = connect_from(own, plan.server_addr);
            put(
                &stream,
                &super::common::raw::hello(0, 1, &super::common::raw::sha256(&[service.as_bytes()])),
            );
            let challenge: [u8; 37] = take(&stream);
            assert_eq!(challenge[..5], [0, 0, 0, 0, 1]);
            let begun = Instant::now();
            put(&stream, &[7; 32]);
            assert_eq!(take(&stream), AUTH_FAILED);
            assert!(rest(&stream).is_empty());
            times.push(begun.elapsed());
        }
    }
    let [wrong, unknown] = times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    });
    announce(&format!("median answer to a wrong token {wrong:?}, to an unknown service {unknown:?}"));
    let (less, more) = (wrong.min(unknown), wrong.max(unknown));
    assert!(more < less * 2 + Duration::from_micros(200), "{wrong:?} {unknown:?}");
}

/// A connection from a given address.
fn connect_from(own: SocketAddr, server: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&own.into()).unwrap();
    socket.connect(&server.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(super::common::PATIENCE)).unwrap();
    stream
}

/// A client of rathole 0.5 takes a late answer for an answer.
#[test]
fn an_old_client_hears_a_late_refusal() {
    if super::common::peer().is_none() {
        return super::common::skip(
            "tunnel::strangers::an_old_client_hears_a_late_refusal",
            super::common::PEER_HINT,
        );
    }
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", ([127, 0, 0, 1], 9).into())]);
    plan.client_token = "another token, which is wrong".to_owned();
    let server = plan.start_server(Build::Ours);
    for _ in 0..4 {
        let stranger = Control::open(plan.server_addr, "echo", "wrong");
        assert_eq!(take(&stranger.stream), AUTH_FAILED);
    }
    let client = plan.start_client(Build::Peer);
    client.wait_for("Authentication failed");
    server.wait_for("authentication failed: wrong token");
}

/// What the log says of strangers: each failure's address, one line for many; the rest in one line.
#[test]
fn strangers_are_told_in_few_lines() {
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", ([127, 0, 0, 1], 9).into())]);
    plan.server_lines = "handshake_timeout = 1\nmax_unauthenticated_per_address = 8\n".to_owned();
    let config = plan.write("server.toml", &plan.server_toml());
    let mut command = Build::Ours.command(Role::Server, &config);
    command.env("RUST_LOG", "info");
    let mut server = Process::start("server", command);
    net::wait_listening(plan.server_addr);
    let own: SocketAddr = ([127, 77, 3, 1], 0).into();
    let fail = || {
        let stream = connect_from(own, plan.server_addr);
        put(&stream, &super::common::raw::hello(0, 1, &[9; 32]));
        let _: [u8; 37] = take(&stream);
        put(&stream, &[7; 32]);
        assert_eq!(take(&stream), AUTH_FAILED);
    };
    (0..4).for_each(|_| fail());
    let garbage: Vec<_> = (0..5).map(|_| connect(plan.server_addr)).collect();
    garbage.iter().for_each(|stream| put(stream, &[0xff; 64]));
    garbage.iter().for_each(|stream| drop(rest(stream)));
    // Eight may stay: twelve are dropped for newer ones, eight are silent until their deadline.
    let silent: Vec<_> = (0..20).map(|_| connect(plan.server_addr)).collect();
    silent.iter().for_each(|stream| drop(rest(stream)));
    server.signal(nix::sys::signal::Signal::SIGTERM);
    server.wait();
    let log = server.stderr();
    let failures: Vec<_> = log.lines().filter(|line| line.contains("authentication failed")).collect();
    assert_eq!(failures.len(), 2, "{log}");
    // The words are right for any count: once more may be only once.
    let (first, again) =
        ("authentication failed: no service of this name peer=", "authentication failed again peer=");
    for (line, (words, count)) in failures.iter().zip([(first, "failures=1"), (again, "failures=3")]) {
        assert!(
            line.contains(&format!("{words}127.77.3.1:")) && line.contains(count) && line.contains("INFO"),
            "{line}"
        );
    }
    let junk = "in the last minute 25 connections were no client's: 5 garbage, 8 silent, 12 dropped for newer ones \
                (max_unauthenticated_per_address), from 1 address";
    assert_eq!(log.matches(junk).count(), 1, "{log}");
    assert!(log.lines().count() < 12, "{log}");
}
