//! The interop matrix: this rathole and rathole 0.5.0, each at either end, over every transport, TCP and UDP.
//!
//! One test is one column (who is the server, who the client), one row is a link. A cell is a real server and a real
//! client with three services: streams that are echoed, streams that are answered after their end, datagrams.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use common::certs::{Certs, KeyKind};
use common::forward::Forward;
use common::keys::KeyPair;
use common::raw::{FakeServer, ZERO, put, take};
use common::service::{self, Local};
use common::tunnel::{Build, Link, Plan, Service};
use common::visitor::{self, UdpVisitor};
use common::{PATIENCE, PEER_HINT, announce, peer, skip};

/// Cells that run at the same time, in the whole process.
const AT_ONCE: usize = 4;

#[test]
fn server_ours_client_peer() {
    column("server ours, client 0.5.0", Build::Ours, Build::Peer);
}

#[test]
fn server_peer_client_ours() {
    column("server 0.5.0, client ours", Build::Peer, Build::Ours);
}

/// Shows that the matrix itself is right: what fails here is no fault of ours.
#[test]
fn control_both_peer() {
    column("both 0.5.0 (control)", Build::Peer, Build::Peer);
}

#[test]
fn both_ours() {
    column("both ours", Build::Ours, Build::Ours);
}

/// Shows that what must be refused is refused, and for that reason: without the mistake the plan works.
#[test]
fn refusals_control_both_peer() {
    refusals(Build::Peer, Build::Peer, false);
}

#[test]
fn refusals_server_ours_client_peer() {
    refusals(Build::Ours, Build::Peer, true);
}

#[test]
fn refusals_server_peer_client_ours() {
    refusals(Build::Peer, Build::Ours, true);
}

/// Our server closes idle channels that are old or too many: to a client of 0.5.0 that is nothing.
#[test]
fn idle_channels_are_closed_before_a_peer_client() {
    if peer().is_none() {
        return skip("interop idle channels", PEER_HINT);
    }
    let echo = Local::echo();
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", echo.addr)]);
    let server = FakeServer::listen(plan.server_addr);
    let mut client = plan.start_client(Build::Peer);
    let (control, key) = server.accept_control("echo", &plan.client_token, [7; 32]);
    let kept = server.data(&control, &key);
    for _ in 0..5 {
        drop(server.data(&control, &key));
    }
    let new = server.data(&control, &key);
    for channel in [kept, new] {
        put(&channel, &[&ZERO[..], b"still there?"].concat());
        assert_eq!(&take::<12>(&channel), b"still there?");
    }
    assert!(client.is_running());
    let log = client.log();
    assert!(!log.contains("ERROR") && !log.contains("Retry"), "{log}");
    announce(&format!(
        "0.5.0 writes of a closed idle channel: {:?}",
        log.lines().find(|line| line.contains("WARN"))
    ));
}

/// Wrong tokens, names, roots and pins. `sent_keys`: also pins of keys that are sent, which 0.5.0 does not check.
fn refusals(server: Build, client: Build, sent_keys: bool) {
    if peer().is_none() {
        return skip("interop refusals", PEER_HINT);
    }
    let echo = Local::echo();
    let plan = |link| {
        let mut plan = Plan::new(link, vec![Service::tcp("echo", echo.addr)]);
        if server == Build::Ours {
            plan.server_lines = "visitor_timeout = 0\n".to_owned();
        }
        plan
    };
    let mut plans = vec![("wrong token", plan(Link::tcp()))];
    plans[0].1.client_token = "not-the-token-8dk3".to_owned();
    unknown_service(server, client, plan(Link::tcp()));

    let [certs, others] = [(); 2].map(|()| Certs::new(KeyKind::Ec));
    if common::certs::can_be_made("interop refusals") {
        let mut link = Link::tls(&certs, &certs.p12_modern);
        link.client = Link::tls(&others, &others.p12_modern).client;
        plans.push(("tls, another root", plan(link)));
        let mut link = Link::tls(&certs, &certs.p12_modern);
        link.client = link.client.replace("\"localhost\"", "\"another.test\"");
        plans.push(("tls, another name", plan(link)));
    }

    let [server_key, client_key, other_key] = [(); 3].map(|()| KeyPair::from(&Build::Peer.program()));
    let mut pins = |what: &'static str, pattern: &str, servers: &KeyPair, clients: &KeyPair| {
        // The server's file is right, the client's was made for other keys.
        let mut link = Link::noise(pattern, &server_key, &client_key, true);
        link.client = Link::noise(pattern, servers, clients, true).client;
        plans.push((what, plan(link)));
    };
    pins("NK, another server key", "Noise_NK_25519_ChaChaPoly_BLAKE2s", &other_key, &client_key);
    pins("KK, another server key", "Noise_KK_25519_ChaChaPoly_BLAKE2s", &other_key, &client_key);
    pins("KK, another client key", "Noise_KK_25519_ChaChaPoly_BLAKE2s", &server_key, &other_key);
    if sent_keys && client == Build::Ours {
        pins("XX, another server key", "Noise_XX_25519_ChaChaPoly_BLAKE2s", &other_key, &client_key);
        pins("NX, another server key", "Noise_NX_25519_ChaChaPoly_BLAKE2s", &other_key, &client_key);
        pins("IX, another server key", "Noise_IX_25519_ChaChaPoly_BLAKE2s", &other_key, &client_key);
    }
    if sent_keys && server == Build::Ours {
        pins("XX, another client key", "Noise_XX_25519_ChaChaPoly_BLAKE2s", &server_key, &other_key);
        pins("XK, another client key", "Noise_XK_25519_ChaChaPoly_BLAKE2s", &server_key, &other_key);
        pins("IK, another client key", "Noise_IK_25519_ChaChaPoly_BLAKE2s", &server_key, &other_key);
        pins("XN, another client key", "Noise_XN_25519_ChaChaPoly_BLAKE2s", &server_key, &other_key);
    }
    std::thread::scope(|scope| {
        for (what, plan) in &plans {
            let thread = std::thread::Builder::new().name(format!("{server:?} refuses {client:?}: {what}"));
            thread.spawn_scoped(scope, move || refused(what, plan, server, client)).unwrap();
        }
    });
}

/// The client tries, is refused, tries again; no visitor is served meanwhile.
fn refused(what: &str, plan: &Plan, server: Build, client: Build) {
    let server_process = plan.start_server(server);
    let client_process = plan.start_client(client);
    let established = if client == Build::Peer {
        client_process.wait_for_times("Failed to run the control channel", 2);
        client_process.log()
    } else {
        server_process.wait_for_times("ERROR", 2);
        server_process.log()
    };
    assert!(!established.contains("Control channel established"), "{what}: accepted:\n{established}");
    let served = visitor::try_echo(plan.services[0].visitors, b"anyone?");
    assert!(served.is_err(), "{what}: a visitor was served");
}

/// A service that only the client has is refused; the other one works.
fn unknown_service(server: Build, client: Build, mut plan: Plan) {
    plan.link.client.push_str("[client.services.stranger]\nlocal_addr = \"127.0.0.1:9\"\n");
    let server_process = plan.start_server(server);
    let client_process = plan.start_client(client);
    match (server, client) {
        (Build::Ours, _) => client_process.wait_for_times("stranger: Incorrect token", 2),
        (Build::Peer, _) => server_process.wait_for_times("No such a service", 2),
    }
    visitor::wait_served(plan.services[0].visitors);
}

/// A row: how the two are connected.
struct Row {
    link: Link,
    proxy: Option<fn(bool) -> Forward>,
    credentials: bool,
    /// Only one stream is echoed.
    brief: bool,
}

impl Row {
    fn direct(link: Link) -> Self {
        Row { link, proxy: None, credentials: false, brief: false }
    }

    fn through(link: &Link, name: &str, proxy: fn(bool) -> Forward, credentials: bool) -> Self {
        let with = if credentials { ", credentials" } else { "" };
        let link = Link { name: format!("{} via {name}{with}", link.name), ..link.clone() };
        Row { link, proxy: Some(proxy), credentials, brief: false }
    }
}

/// The keys and certificates of one column.
struct Identities {
    ec: Certs,
    rsa: Certs,
    server: KeyPair,
    client: KeyPair,
}

/// Every interactive pattern, the ciphers and hashes dealt out among them. The last two are deferred variants.
const PATTERNS: [&str; 14] = [
    "Noise_NK_25519_ChaChaPoly_BLAKE2s",
    "Noise_NN_25519_AESGCM_SHA256",
    "Noise_NX_25519_ChaChaPoly_BLAKE2b",
    "Noise_XN_25519_AESGCM_SHA512",
    "Noise_XK_25519_ChaChaPoly_SHA256",
    "Noise_XX_25519_AESGCM_BLAKE2s",
    "Noise_KN_25519_ChaChaPoly_SHA512",
    "Noise_KK_25519_AESGCM_BLAKE2b",
    "Noise_KX_25519_ChaChaPoly_BLAKE2s",
    "Noise_IN_25519_AESGCM_SHA256",
    "Noise_IK_25519_ChaChaPoly_BLAKE2b",
    "Noise_IX_25519_AESGCM_SHA512",
    "Noise_NK1_25519_ChaChaPoly_BLAKE2s",
    "Noise_X1K_25519_AESGCM_BLAKE2s",
];

/// The other deferred variants: they differ in the handshake only, so that is what their cells are about.
const DEFERRED: [&str; 21] = [
    "NX1", "X1N", "XK1", "X1K1", "X1X", "XX1", "X1X1", "K1N", "K1K", "KK1", "K1K1", "K1X", "KX1", "K1X1",
    "I1N", "I1K", "IK1", "I1K1", "I1X", "IX1", "I1X1",
];

fn rows(identities: &Identities) -> Vec<Row> {
    let Identities { ec, rsa, server, client } = identities;
    let tcp = Link::tcp();
    let named = |name: &str, link: Link| Link { name: name.to_owned(), ..link };
    let tls_ec = named("tls (EC, PBES2 archive)", Link::tls(ec, &ec.p12_modern));
    let websocket = Link::websocket();
    let mut rows = vec![
        Row::direct(tcp.clone()),
        Row::direct(tls_ec.clone()),
        Row::direct(named("tls (RSA, 3DES archive)", Link::tls(rsa, &rsa.p12_legacy))),
        Row::direct(websocket.clone()),
        Row::direct(Link::websocket_tls(ec, &ec.p12_modern)),
        Row::through(&tcp, "SOCKS5", Forward::socks5, false),
        Row::through(&tcp, "SOCKS5", Forward::socks5, true),
        Row::through(&tcp, "HTTP CONNECT", Forward::http, false),
        Row::through(&tcp, "HTTP CONNECT", Forward::http, true),
        Row::through(&tls_ec, "SOCKS5", Forward::socks5, true),
        Row::through(&websocket, "HTTP CONNECT", Forward::http, true),
        Row::through(&Link::noise(PATTERNS[0], server, client, true), "SOCKS5", Forward::socks5, false),
        Row::through(&Link::noise(PATTERNS[5], server, client, true), "HTTP CONNECT", Forward::http, false),
        Row::through(&Link::websocket_tls(ec, &ec.p12_modern), "SOCKS5", Forward::socks5, true),
    ];
    for pattern in PATTERNS {
        rows.push(Row::direct(Link::noise(pattern, server, client, true)));
    }
    for letters in DEFERRED {
        let pattern = format!("Noise_{letters}_25519_ChaChaPoly_BLAKE2s");
        let link = Link::noise(&pattern, server, client, true);
        rows.push(Row { brief: true, ..Row::direct(link) });
    }
    rows
}

fn column(name: &str, server: Build, client: Build) {
    if peer().is_none() && (server, client) != (Build::Ours, Build::Ours) {
        return skip("interop", PEER_HINT);
    }
    let identities = Identities {
        ec: Certs::new(KeyKind::Ec),
        rsa: Certs::new(KeyKind::Rsa),
        server: key(server),
        client: key(client),
    };
    let mut rows = rows(&identities);
    if !common::certs::can_be_made("interop") {
        rows.retain(|row| !row.link.name.contains("tls"));
    }
    if [server, client].contains(&Build::Ours) {
        // Of the transports that are compiled in.
        rows.retain(|row| {
            let without = |word: &str, compiled_in: bool| compiled_in || !row.link.name.contains(word);
            without("tls", cfg!(feature = "tls"))
                && without("noise", cfg!(feature = "noise"))
                && without("websocket", cfg!(feature = "websocket"))
                && without("via", cfg!(feature = "proxy"))
        });
    }
    assert!(!rows.is_empty());
    let todo: Mutex<VecDeque<&Row>> = Mutex::new(rows.iter().collect());
    let report = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(row) = todo.lock().unwrap().pop_front() else { return };
                    let _permit = Permit::take();
                    let begin = Instant::now();
                    let done = catch_unwind(AssertUnwindSafe(|| match row.brief {
                        true => brief_cell(server, client, row),
                        false => cell(server, client, row),
                    }));
                    let took = begin.elapsed().as_millis();
                    let (good, text) = match &done {
                        Ok(text) => (true, text.clone()),
                        Err(panic) => (false, format!("FAILED: {}", message(panic.as_ref()))),
                    };
                    let line = format!("{name:26} | {:47} | {took:6} ms | {text}", row.link.name);
                    report.lock().unwrap().push((good, line));
                }
            });
        }
    });
    let mut report = report.into_inner().unwrap();
    report.sort_by(|a, b| a.1.cmp(&b.1));
    let lines: Vec<_> = report.iter().map(|(_, line)| line.as_str()).collect();
    announce(&lines.join("\n"));
    let failed = report.iter().filter(|(good, _)| !good).count();
    assert_eq!(failed, 0, "{failed} of {} cells failed:\n{}", rows.len(), lines.join("\n"));
}

/// A key of one side's own making, if it can.
fn key(build: Build) -> KeyPair {
    let build = if cfg!(feature = "noise") || peer().is_none() { build } else { Build::Peer };
    KeyPair::from(&build.program())
}

/// One cell of the other deferred patterns.
fn brief_cell(server: Build, client: Build, row: &Row) -> String {
    let echo = Local::echo();
    let plan = Plan::new(row.link.clone(), vec![Service::tcp("echo", echo.addr)]);
    let visitors = plan.services[0].visitors;
    let _running = plan.start(server, client);
    visitor::wait_served(visitors);
    visitor::echo(visitors, &visitor::random(1, 70_000), true);
    "one stream".to_owned()
}

/// One cell; what was done in it.
fn cell(server: Build, client: Build, row: &Row) -> String {
    let (echo, digest, udp) = (Local::echo(), Local::digest(), Local::udp_echo());
    let page = Local::page(visitor::random(9, 700_001));
    let (gone, goes) = mpsc::channel();
    let witness = Local::tcp(move |stream| {
        service::echo(stream);
        let _ = gone.send(());
    });
    let services = vec![
        Service::tcp("echo", echo.addr),
        Service::tcp("digest", digest.addr),
        Service::udp("datagrams", udp.addr),
        Service::tcp("page", page.addr),
        Service::tcp("witness", witness.addr),
    ];
    let [echo, digest, udp, page, witness] = [0, 1, 2, 3, 4].map(|i: usize| services[i].visitors);
    let mut plan = Plan::new(row.link.clone(), services);
    let proxy = row.proxy.map(|make| make(row.credentials));
    plan.proxy = proxy.as_ref().map(Forward::url);
    let _running = plan.start(server, client);

    let mut did = Steps::new();
    visitor::wait_served(echo);
    visitor::ping_pong(echo, 100);
    let ours = (server, client) == (Build::Ours, Build::Ours);
    let half_close = row.link.half_close || ours;
    visitor::echo(echo, &visitor::random(1, 1 << 20), half_close);
    std::thread::scope(|scope| {
        for seed in 2..8 {
            scope.spawn(move || {
                visitor::echo(echo, &visitor::random(seed, 200_000 + seed as usize), half_close)
            });
        }
    });
    did.done("tcp");
    // The end of the service's answer reaches the visitor, and all that came before it.
    let mut stream = visitor::connect(page);
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let (got, end) = visitor::read_until_closed(&mut stream);
    let page = visitor::random(9, 700_001);
    // On websocket 0.5.0 tells the end at once, and loses what it has not yet written when it is told.
    let both_peer = (server, client) == (Build::Peer, Build::Peer);
    let may_lose = if both_peer && !half_close { 16 << 10 } else { 0 };
    let whole = page.starts_with(&got) && got.len() + may_lose >= page.len();
    assert!(whole, "{} bytes of the page, then {end:?}", got.len());
    // Where ours is the server it may come as a reset, if the 0.5.0 client made one of it.
    let ended = end.as_ref().map_or_else(visitor::is_reset, |()| true);
    assert!(ended, "the page's end does not reach the visitor: {end:?}");
    // And the end of a visitor who just goes reaches the service.
    let mut stream = visitor::connect(witness);
    stream.write_all(b"bye").unwrap();
    stream.read_exact(&mut [0; 3]).unwrap();
    drop(stream);
    goes.recv_timeout(PATIENCE).expect("the service does not learn that its visitor has gone");
    did.done("ends");
    if half_close {
        visitor::half_close(digest, &visitor::random(8, 300_001));
        visitor::half_close(digest, b"");
        did.done("half-close");
    }
    std::thread::scope(|scope| {
        for seed in 0..3 {
            scope.spawn(move || {
                let mut visitor = UdpVisitor::new(udp);
                visitor.wait_served();
                // 2048 bytes are the most that 0.5.0 carries.
                for size in [1, 2, 100, 512, 1000, 1472, 2047, 2048] {
                    visitor.echo(&visitor::random(seed * 10_000 + size, size as usize));
                }
                visitor.expect_silence(Duration::from_millis(50));
            });
        }
    });
    did.done("udp");
    if let Some(proxy) = &proxy {
        let asked = proxy.asked();
        assert!(asked.iter().all(|target| *target == plan.server_addr.to_string()), "{asked:?}");
        assert!(asked.len() >= 3, "not all went through the proxy: {asked:?}");
        did.done("all through the proxy");
    }
    did.text()
}

/// What was done in a cell, and what of it was slow.
struct Steps {
    since: Instant,
    done: Vec<String>,
}

impl Steps {
    fn new() -> Self {
        Steps { since: Instant::now(), done: Vec::new() }
    }

    fn done(&mut self, what: &str) {
        let took = self.since.elapsed();
        let slow = if took > Duration::from_secs(5) { format!(" ({took:.1?})") } else { String::new() };
        self.done.push(format!("{what}{slow}"));
        self.since = Instant::now();
    }

    fn text(&self) -> String {
        self.done.join(", ")
    }
}

/// The right to run a cell.
struct Permit;

static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Permit {
    fn take() -> Self {
        let (running, freed) = &RUNNING;
        *freed.wait_while(running.lock().unwrap(), |running| *running == AT_ONCE).unwrap() += 1;
        Permit
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *RUNNING.0.lock().unwrap() -= 1;
        RUNNING.1.notify_one();
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
