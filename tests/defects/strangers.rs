//! Who reaches the server's port and has no token.

use std::net::TcpStream;
use std::time::Duration;

use super::common::certs::{Certs, KeyKind, can_be_made};
use super::common::keys::KeyPair;
use super::common::process::Process;
use super::common::raw::{Control, connect, hello, put, rest, sha256, take};
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Role, Service};
use super::common::{net, visitor};
use super::hand::{memory_grown, pour};
use super::{Outcome, after, ended, many_descriptors, seconds, served, verdict};

situations! {
    "D1" => silent_connections_delay_no_client,
    "D2" => silent_connections_do_not_take_all_descriptors,
    "D2" => unfinished_handshakes_end,
    "D3" => messages_before_authentication_take_little_memory,
    "D3" => noise_handshakes_take_little_memory,
    "D17" => junk_does_not_flood_the_log,
    "S13" => an_unknown_name_and_a_wrong_token_look_alike,
}

const NOISE: &str = "Noise_NK_25519_ChaChaPoly_BLAKE2s";

/// Every transport; the certificates must live as long.
fn links(certs: &Certs, server: &KeyPair) -> Vec<Link> {
    let mut links = vec![Link::tcp(), Link::noise(NOISE, server, server, true), Link::websocket()];
    if can_be_made("defects") {
        links.push(Link::tls(certs, &certs.p12_modern));
    }
    links
}

/// Three say nothing; then a client comes.
fn silent_connections_delay_no_client(build: Build) -> Outcome {
    let (certs, key) = (Certs::new(KeyKind::Ec), KeyPair::from(&build.program()));
    let one = |link: &Link| {
        let local = Local::echo();
        let plan = Plan::new(link.clone(), vec![Service::tcp("echo", local.addr)]);
        let _server = plan.start_server(build);
        let _silent = [(); 3].map(|()| connect(plan.server_addr));
        let _client = plan.start_client(build);
        served(plan.services[0].visitors, Duration::from_secs(40))
    };
    let links = links(&certs, &key);
    let times: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = links.iter().map(|link| scope.spawn(|| one(link))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let words = times.iter().zip(&links).map(|(time, link)| {
        let name = link.name.split(' ').next().unwrap_or_default();
        format!("{name} {}", time.map_or("never".to_owned(), seconds))
    });
    let words = format!("a client's first visitor is served after: {}", words.collect::<Vec<_>>().join(", "));
    verdict(times.iter().all(|time| time.is_some_and(|time| time < Duration::from_secs(10))), words)
}

/// More silent ones than the server has descriptors, and they stay.
fn silent_connections_do_not_take_all_descriptors(build: Build) -> Outcome {
    let local = Local::echo();
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    let config = plan.write("server.toml", &plan.server_toml());
    let command = after("ulimit -n 64", &build.command(Role::Server, &config));
    let _server = Process::start("server with 64 descriptors", command);
    net::wait_listening(plan.server_addr);
    // One may be sent away so early that connecting reports it.
    let _silent: Vec<_> = (0..80).map(|_| TcpStream::connect(plan.server_addr)).collect();
    let _client = plan.start_client(build);
    match served(plan.services[0].visitors, Duration::from_secs(25)) {
        Some(time) => Ok(format!("served after {}", seconds(time))),
        None => Err("not served within 25 s".to_owned()),
    }
}

/// Nothing, half a hello, a hello without Auth; a transport's handshake that does not begin.
fn unfinished_handshakes_end(build: Build) -> Outcome {
    let (certs, key) = (Certs::new(KeyKind::Ec), KeyPair::from(&build.program()));
    let mut servers = Vec::new();
    let mut open = Vec::new();
    let hello = hello(0, 1, &sha256(&[b"echo"]));
    for link in links(&certs, &key) {
        let plan = Plan::new(link, vec![Service::tcp("echo", ([127, 0, 0, 1], 9).into())]);
        servers.push(plan.start_server(build));
        let said: &[usize] = if plan.link.name == "tcp" { &[0, 20, 37] } else { &[0] };
        for len in said {
            let stream = connect(plan.server_addr);
            put(&stream, &hello[..*len]);
            open.push((format!("{}, {len} bytes", plan.link.name), stream));
        }
    }
    let limit = Duration::from_secs(20);
    let times: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = open.iter().map(|(_, stream)| scope.spawn(|| ended(stream, limit))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let last = times.iter().flatten().max().copied().unwrap_or_default();
    let still: Vec<_> =
        times.iter().zip(&open).filter(|(time, _)| time.is_none()).map(|(_, (s, _))| &**s).collect();
    match still.is_empty() {
        true => Ok(format!("all {} closed, the last after {}", open.len(), seconds(last))),
        false => {
            Err(format!("{} of {} still open after 20 s: {}", still.len(), open.len(), still.join("; ")))
        }
    }
}

/// Four send the beginning of a WebSocket message of 60 MiB each.
fn messages_before_authentication_take_little_memory(build: Build) -> Outcome {
    let plan = Plan::new(Link::websocket(), vec![Service::tcp("echo", ([127, 0, 0, 1], 9).into())]);
    let server = plan.start_server(build);
    let upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let mut payload = hello(0, 1, &sha256(&[b"echo"]));
    payload.resize(15 << 20, 0);
    let strangers: Vec<_> = (0..4).map(|_| connect(plan.server_addr)).collect();
    let grown = memory_grown(&server, || {
        std::thread::scope(|scope| {
            for stream in &strangers {
                scope.spawn(|| {
                    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
                    pour(stream, upgrade);
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.extend(take::<1>(stream));
                    }
                    for part in 0..4u8 {
                        // Not the last part: binary, then continuations; masked with zeros.
                        let opcode = if part == 0 { 2 } else { 0 };
                        let head = [&[opcode, 0xff][..], &(15u64 << 20).to_be_bytes(), &[0; 4]].concat();
                        if !pour(stream, &head) || !pour(stream, &payload) {
                            return;
                        }
                    }
                });
            }
        });
    });
    verdict(grown < 10_000, format!("4 strangers cost {} MB", grown / 1000))
}

/// Three hundred finish the Noise handshake, for which no secret is needed, and say nothing more.
fn noise_handshakes_take_little_memory(build: Build) -> Outcome {
    use base64::Engine;
    many_descriptors();
    let key = KeyPair::from(&build.program());
    let link = Link::noise(NOISE, &key, &key, true);
    let plan = Plan::new(link, vec![Service::tcp("echo", ([127, 0, 0, 1], 9).into())]);
    let server = plan.start_server(build);
    let public = base64::engine::general_purpose::STANDARD.decode(&key.public).unwrap();
    let mut strangers = Vec::new();
    let grown = memory_grown(&server, || {
        for _ in 0..300 {
            let builder = snow::Builder::new(NOISE.parse().unwrap());
            let mut initiator = builder.remote_public_key(&public).unwrap().build_initiator().unwrap();
            let mut message = [0; 128];
            let len = initiator.write_message(&[], &mut message).unwrap();
            let stream = connect(plan.server_addr);
            put(&stream, &[&(len as u16).to_le_bytes(), &message[..len]].concat());
            let answer: [u8; 50] = take(&stream);
            initiator.read_message(&answer[2..], &mut message).unwrap();
            assert!(initiator.is_handshake_finished());
            strangers.push(stream);
        }
    });
    verdict(grown < 300 * 40, format!("300 strangers cost {:.1} MB", grown as f64 / 1000.0))
}

/// Two hundred connections that speak something else.
fn junk_does_not_flood_the_log(build: Build) -> Outcome {
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", ([127, 0, 0, 1], 9).into())]);
    let config = plan.write("server.toml", &plan.server_toml());
    let mut command = build.command(Role::Server, &config);
    command.env("RUST_LOG", "info");
    let server = Process::start("server", command);
    net::wait_listening(plan.server_addr);
    for _ in 0..200 {
        let stream = connect(plan.server_addr);
        put(&stream, &hello(0, 9, &[1; 32]));
        rest(&stream);
    }
    // Whatever is written for the last one is written now.
    let lines = || server.log().lines().count();
    let mut before = usize::MAX;
    let _ = super::until(Duration::from_secs(5), || {
        let calm = before == lines();
        before = lines();
        std::thread::sleep(Duration::from_millis(300));
        calm
    });
    verdict(lines() < 30, format!("200 junk connections make {} line(s)", lines()))
}

/// What a stranger can learn about which services there are.
fn an_unknown_name_and_a_wrong_token_look_alike(build: Build) -> Outcome {
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", ([127, 0, 0, 1], 9).into())]);
    let _server = plan.start_server(build);
    let stream = connect(plan.server_addr);
    put(&stream, &hello(0, 1, &sha256(&[b"nobody"])));
    take::<37>(&stream);
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    if visitor::read_until_closed(&mut stream.try_clone().unwrap()).0.len() == 4 {
        return Err("an unknown name is told as such before Auth".to_owned());
    }
    let [unknown, wrong] =
        ["nobody", "echo"].map(|name| rest(&Control::open(plan.server_addr, name, "wrong").stream));
    if unknown.len() != 4 || wrong.len() != 4 {
        return Err("there is no answer".to_owned());
    }
    verdict(unknown == wrong, format!("both are answered after Auth, with {} and {}", unknown[0], wrong[0]))
}
