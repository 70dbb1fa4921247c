//! Transports: ends that are none, frames in between, and whom TLS trusts.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::common::certs::{Certs, KeyKind, can_be_made};
use super::common::keys::KeyPair;
use super::common::net;
use super::common::process::Process;
use super::common::raw::{connect, hello, put, sha256, take};
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Role, Service};
use super::common::visitor::{self, random};
use super::{Outcome, served, verdict};

situations! {
    "S16" => every_root_of_a_bundle_is_trusted,
    "S16" => other_roots_than_the_given_are_not_trusted,
    "S16" => the_server_speaks_tls_1_3,
    "S17" => a_cut_transfer_is_no_complete_one,
    "S17" => a_websocket_ping_is_answered,
}

const NOWHERE: ([u8; 4], u16) = ([127, 0, 0, 1], 9);

/// `trusted_root` has two certificates; the second is the server's CA.
fn every_root_of_a_bundle_is_trusted(build: Build) -> Outcome {
    if !can_be_made("defects: every_root_of_a_bundle_is_trusted") {
        return Ok("skipped: no openssl".to_owned());
    }
    let [certs, others] = [(); 2].map(|()| Certs::new(KeyKind::Ec));
    let local = Local::echo();
    let mut plan = Plan::new(Link::tls(&certs, &certs.p12_modern), vec![Service::tcp("echo", local.addr)]);
    let bundle = [&others.ca, &certs.ca].map(|path| std::fs::read_to_string(path).unwrap()).concat();
    let bundle = plan.write("bundle.pem", &bundle);
    plan.link.client = plan.link.client.replace(certs.ca.to_str().unwrap(), bundle.to_str().unwrap());
    let _running = (plan.start_server(build), plan.start_client(build));
    match served(plan.services[0].visitors, Duration::from_secs(10)) {
        Some(_) => Ok("the second root of a bundle is trusted".to_owned()),
        None => Err("only the first root of a bundle is trusted".to_owned()),
    }
}

/// `trusted_root` is one CA, the system's is the server's.
fn other_roots_than_the_given_are_not_trusted(build: Build) -> Outcome {
    if !can_be_made("defects: other_roots_than_the_given_are_not_trusted") {
        return Ok("skipped: no openssl".to_owned());
    }
    let [certs, others] = [(); 2].map(|()| Certs::new(KeyKind::Ec));
    let local = Local::echo();
    let mut plan = Plan::new(Link::tls(&certs, &certs.p12_modern), vec![Service::tcp("echo", local.addr)]);
    plan.link.client = Link::tls(&others, &others.p12_modern).client;
    let _server = plan.start_server(build);
    let mut command = build.command(Role::Client, &plan.write("client.toml", &plan.client_toml()));
    command.env("SSL_CERT_FILE", &certs.ca);
    let client = Process::start("client", command);
    let served = served(plan.services[0].visitors, Duration::from_secs(4));
    if build == Build::Ours {
        // It has tried, and says why not.
        client.wait_for("certificate");
    }
    match served {
        None => Ok("refused".to_owned()),
        Some(_) => Err("a server whose root is only the system's is accepted".to_owned()),
    }
}

/// Asked by openssl.
fn the_server_speaks_tls_1_3(build: Build) -> Outcome {
    if !can_be_made("defects: the_server_speaks_tls_1_3") {
        return Ok("skipped: no openssl".to_owned());
    }
    let certs = Certs::new(KeyKind::Ec);
    let plan = Plan::new(Link::tls(&certs, &certs.p12_modern), vec![Service::tcp("echo", NOWHERE.into())]);
    let _server = plan.start_server(build);
    let speaks = |version: &str| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-brief", version, "-connect", &plan.server_addr.to_string()]);
        command.stdin(Stdio::null()).output().unwrap().status.success()
    };
    let spoken = [("-tls1_2", "1.2"), ("-tls1_3", "1.3")];
    let spoken: Vec<_> =
        spoken.iter().filter(|(version, _)| speaks(version)).map(|(_, name)| *name).collect();
    verdict(spoken == ["1.2", "1.3"], format!("speaks TLS {}", spoken.join(" and ")))
}

/// Something on the way closes connections in the midst of a download, in order.
fn a_cut_transfer_is_no_complete_one(build: Build) -> Outcome {
    let key = KeyPair::from(&build.program());
    let page = random(1, 1_000_000);
    let local = Local::page(page.clone());
    let link = Link::noise("Noise_NK_25519_ChaChaPoly_BLAKE2s", &key, &key, true);
    let plan = Plan::new(link, vec![Service::tcp("page", local.addr)]);
    let _server = plan.start_server(build);
    let cutter = cutter(plan.server_addr, 300_001);
    let toml = plan.client_toml().replace(&plan.server_addr.to_string(), &cutter.to_string());
    let _client = build.start(Role::Client, &plan.write("client.toml", &toml));
    net::wait_listening(plan.services[0].visitors);
    let mut visitor = connect(plan.services[0].visitors);
    put(&visitor, b"GET / HTTP/1.0\r\n\r\n");
    let (got, end) = visitor::read_until_closed(&mut visitor);
    assert!(got.len() < page.len() && page.starts_with(&got));
    match end {
        Err(error) if visitor::is_reset(&error) => Ok("the visitor is reset".to_owned()),
        Err(error) => Err(format!("the visitor hangs: {error}")),
        Ok(()) => Err(format!("the visitor takes {} of {} bytes for all", got.len(), page.len())),
    }
}

/// Passes connections on, and ends each when its client has sent so much.
fn cutter(server: SocketAddr, limit: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(server) else { continue };
            let down = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut &down.0, &mut &down.1));
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut (&client).take(limit), &mut &server);
                let _ = server.shutdown(Shutdown::Write);
                // Whatever else comes is of no interest.
                let _ = std::io::copy(&mut &client, &mut std::io::sink());
            });
        }
    });
    addr
}

/// A masked frame from a client; the mask is zero.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    [&[0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

/// Between hello and Auth, as a proxy on the way may do it.
fn a_websocket_ping_is_answered(build: Build) -> Outcome {
    let plan = Plan::new(Link::websocket(), vec![Service::tcp("echo", NOWHERE.into())]);
    let _server = plan.start_server(build);
    let stream = connect(plan.server_addr);
    put(
        &stream,
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    );
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(take::<1>(&stream));
    }
    put(&stream, &frame(2, &hello(0, 1, &sha256(&[b"echo"]))));
    let challenge: [u8; 39] = take(&stream);
    assert_eq!(challenge[..2], [0x82, 37]);
    put(&stream, &frame(9, b"are you there?"));
    put(&stream, &frame(2, &sha256(&[plan.server_token.as_bytes(), &challenge[7..]])));
    // A Pong, and the verdict, in any order.
    let (mut pong, mut accepted) = (false, false);
    while !(pong && accepted) {
        let mut head = [0; 2];
        if (&stream).read_exact(&mut head).is_err() {
            return Err("a Ping ends the connection".to_owned());
        }
        let mut payload = vec![0; (head[1] & 0x7f).into()];
        (&stream).read_exact(&mut payload).unwrap();
        pong |= head[0] == 0x8a && payload == b"are you there?";
        accepted |= head[0] == 0x82 && payload.starts_with(&[0; 4]);
    }
    let _ = (&stream).flush();
    Ok("a Ping is answered, the session goes on".to_owned())
}
