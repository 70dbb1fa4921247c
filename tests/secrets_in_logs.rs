//! No secret is ever written: everything is run at trace, over every transport, and all that was written is searched
//! for every secret in use, in every spelling it might have.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::process::Command;

use nix::sys::signal::Signal;

use common::certs::{Certs, KeyKind, P12_PASSWORD};
use common::forward::{Forward, PASSWORD, USER, base64};
use common::keys::KeyPair;
use common::process::Process;
use common::raw::{Control, FakeServer, ZERO, put, rest, take};
use common::service::Local;
use common::tunnel::{Build, Link, Plan, Role, Service, TOKEN};
use common::visitor::{self, UdpVisitor};

const WRONG_TOKEN: &str = "a-wrong-token-Bq7xLw20";

/// The secrets of one run.
#[derive(Default)]
struct Secrets {
    spellings: Vec<(String, String)>,
}

impl Secrets {
    /// A secret text, and its bytes.
    fn text(mut self, what: &str, secret: &str) -> Self {
        self.spellings.push((what.to_owned(), secret.to_owned()));
        self.bytes(what, secret.as_bytes())
    }

    /// Secret bytes: hex, base64, and as `Debug` shows slices.
    fn bytes(mut self, what: &str, secret: &[u8]) -> Self {
        assert!(secret.len() >= 8, "{what}: too short to be looked for");
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let decimal = format!("{secret:?}");
        let list = decimal.trim_matches(['[', ']']).to_owned();
        for spelling in [hex.to_uppercase(), hex, list, base64(secret).trim_end_matches('=').to_owned()] {
            self.spellings.push((what.to_owned(), spelling));
        }
        self
    }

    /// A private key in base64.
    fn key(self, what: &str, pair: &KeyPair) -> Self {
        let raw = unbase64(&pair.private);
        assert_eq!(raw.len(), 32);
        self.text(what, &pair.private).bytes(what, &raw)
    }

    /// What of all this is in `log`.
    fn found_in(&self, log: &str) -> Vec<&str> {
        self.spellings
            .iter()
            .filter(|(_, spelling)| log.contains(spelling))
            .map(|(what, _)| &**what)
            .collect()
    }

    fn expect_none(&self, process: &Process) {
        let log = process.log();
        assert!(!log.is_empty());
        let found = self.found_in(&log);
        assert!(found.is_empty(), "written to a log: {found:?}\n{log}");
    }
}

fn unbase64(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    let (mut word, mut bits) = (0u32, 0);
    for c in text.bytes().filter(|c| *c != b'=') {
        word = (word << 6) | u32::from(digit(c));
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
        }
    }
    bytes
}

fn trace(role: Role, plan: &Plan) -> Process {
    let (name, toml) = match role {
        Role::Server => ("server.toml", plan.server_toml()),
        Role::Client => ("client.toml", plan.client_toml()),
    };
    let config = plan.write(name, &toml);
    let mut command = Build::Ours.command(role, &config);
    command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full");
    Process::start(format!("{role:?}"), command)
}

#[test]
fn over_every_transport() {
    let (ec, rsa) = (Certs::new(KeyKind::Ec), Certs::new(KeyKind::Rsa));
    let mut links = vec![Link::tcp()];
    let tls = cfg!(feature = "tls") && common::certs::can_be_made("secrets_in_logs");
    if tls {
        links.extend([Link::tls(&ec, &ec.p12_modern), Link::tls_pem(&rsa)]);
    }
    if cfg!(feature = "websocket") {
        links.push(Link::websocket());
    }
    if cfg!(feature = "websocket") && tls {
        links.push(Link::websocket_tls(&ec, &ec.p12_legacy));
    }
    let mut secrets = Secrets::default()
        .text("token", TOKEN)
        .text("wrong token", WRONG_TOKEN)
        .text("archive password", P12_PASSWORD)
        .text("proxy password", PASSWORD)
        .text("proxy credentials", &format!("{USER}:{PASSWORD}"));
    if cfg!(feature = "noise") {
        let program = Build::Ours.program();
        let (server, client) = (KeyPair::from(&program), KeyPair::from(&program));
        for pattern in ["NK_25519_ChaChaPoly_BLAKE2s", "KK_25519_AESGCM_SHA256", "XX_25519_ChaChaPoly_SHA512"]
        {
            links.push(Link::noise(&format!("Noise_{pattern}"), &server, &client, true));
        }
        secrets = secrets.key("server's Noise key", &server).key("client's Noise key", &client);
    }
    for certs in [&ec, &rsa].into_iter().filter(|_| tls) {
        let pem = std::fs::read_to_string(&certs.key).unwrap();
        let lines: Vec<_> = pem.lines().filter(|line| line.len() > 40 && !line.starts_with('-')).collect();
        assert!(!lines.is_empty());
        for line in lines {
            secrets = secrets.text("TLS key", line).bytes("TLS key", &unbase64(line));
        }
    }
    for (i, link) in links.iter().enumerate() {
        let proxy = if i % 2 == 0 { Forward::http(true) } else { Forward::socks5(true) };
        run(link, cfg!(feature = "proxy").then_some(&proxy), &secrets);
    }
}

/// Traffic, a wrong token, a proxy that wants other credentials, an orderly end.
fn run(link: &Link, proxy: Option<&Forward>, secrets: &Secrets) {
    let (local, udp) = (Local::echo(), Local::udp_echo());
    let mut plan =
        Plan::new(link.clone(), vec![Service::tcp("echo", local.addr), Service::udp("udp", udp.addr)]);
    plan.proxy = proxy.map(Forward::url);
    let mut server = trace(Role::Server, &plan);
    common::net::wait_listening(plan.server_addr);
    let mut client = trace(Role::Client, &plan);
    let addr = plan.services[0].visitors;
    visitor::wait_served(addr);
    visitor::echo(addr, &visitor::random(1, 100_000), true);
    let mut visitor = UdpVisitor::new(plan.services[1].visitors);
    visitor.wait_served();
    visitor.echo(b"hello");
    client.signal(Signal::SIGTERM);
    client.wait();

    plan.client_token = WRONG_TOKEN.to_owned();
    let mut wrong = trace(Role::Client, &plan);
    wrong.wait_for("token is wrong");
    // Credentials that the proxy does not know.
    plan.proxy = proxy.map(|proxy| proxy.url().replace(PASSWORD, &format!("{PASSWORD}-not")));
    let mut refused = trace(Role::Client, &plan);
    refused.wait_for_times("next attempt", 2);
    for process in [&mut wrong, &mut refused, &mut server] {
        process.signal(Signal::SIGTERM);
        process.wait();
    }
    for process in [&server, &client, &wrong, &refused] {
        secrets.expect_none(process);
    }
    assert!(server.stderr().contains("visitor ended"), "{}", server.stderr());
}

/// The key that names a session is a credential as long as its control channel lives.
#[test]
fn session_keys() {
    let local = Local::echo();
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    let server = trace(Role::Server, &plan);
    common::net::wait_listening(plan.server_addr);
    let control = Control::open(plan.server_addr, "echo", TOKEN).accepted();
    let data = control.data(plan.server_addr);
    let visitor = visitor::connect(plan.services[0].visitors);
    put(&visitor, b"hello");
    take::<9>(&data);
    let wrong = Control::open(plan.server_addr, "echo", WRONG_TOKEN);
    rest(&wrong.stream);
    server.wait_for("authentication failed");
    Secrets::default()
        .text("token", TOKEN)
        .bytes("session key", &control.key)
        .bytes("wrong session key", &wrong.key)
        .expect_none(&server);

    let plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    let server = FakeServer::listen(plan.server_addr);
    let client = trace(Role::Client, &plan);
    let (control, key) = server.accept_control("echo", TOKEN, [5; 32]);
    let data = server.data(&control, &key);
    put(&data, &[&ZERO[..], b"hello"].concat());
    assert_eq!(&take::<5>(&data), b"hello");
    drop((control, data));
    client.wait_for("next attempt");
    Secrets::default().text("token", TOKEN).bytes("session key", &key).expect_none(&client);
}

/// Files that are wrong at, before and after a secret: errors name the place, and do not quote the line.
#[test]
fn errors_in_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let secret = "s3cr3t-0f-a-br0ken-f1le";
    let key = "c2VjcmV0LW9mLWEtYnJva2VuLWZpbGUtbm90LTMy";
    let pem = dir.path().join("not.pem");
    std::fs::write(&pem, format!("-----BEGIN PRIVATE KEY-----\n{key}\n")).unwrap();
    let ok = "[server]\nbind_addr = \"127.0.0.1:2333\"\n";
    let broken = [
        format!("{ok}default_token = \"{secret}\n[server.services]\n"),
        format!("{ok}default_token = {secret}\n[server.services]\n"),
        format!("{ok}default_token = [\"{secret}\"]\n[server.services]\n"),
        format!("{ok}default_tokn = \"{secret}\"\n[server.services]\n"),
        format!("{ok}default_token = \"{secret}\" bind = 1\n[server.services]\n"),
        format!("{ok}default_token = \"{secret}\"\ndefault_token = \"{secret}\"\n[server.services]\n"),
        format!("{ok}default_token = \"{secret}\"\ndefault_token_file = \"/nowhere\"\n[server.services]\n"),
        format!("{ok}default_token = '''{secret}\n[server.services]\n"),
        format!("{ok}\"{secret}\" = 1\n[server.services]\n").replace(secret, "unknown"),
        format!("{ok}default_token = \"\\q{secret}\"\n[server.services]\n"),
        format!(
            "{ok}[server.services]\n[server.transport]\ntype = \"noise\"\n[server.transport.noise]\nlocal_private_key = \"{key}\"\n"
        ),
        format!(
            "{ok}[server.services]\n[server.transport]\ntype = \"noise\"\n[server.transport.noise]\nlocal_private_key = \"{secret}\"\n"
        ),
        format!(
            "{ok}[server.services]\n[server.transport]\ntype = \"tls\"\n[server.transport.tls]\npkcs12 = \"/nowhere\"\npkcs12_password = \"{secret}\"\n"
        ),
        format!(
            "{ok}[server.services]\n[server.transport]\ntype = \"tls\"\n[server.transport.tls]\npkcs12 = {pem:?}\npkcs12_password = \"{secret}\"\n"
        ),
        format!(
            "{ok}[server.services]\n[server.transport]\ntype = \"tls\"\n[server.transport.tls]\ncert = {pem:?}\nkey = {pem:?}\n"
        ),
        format!(
            "[client]\nremote_addr = \"127.0.0.1:1\"\n[client.services]\n[client.transport]\ntype = \"tcp\"\n[client.transport.tcp]\nproxy = \"http://user:{secret}@:0\"\n"
        ),
        format!(
            "[client]\nremote_addr = \"127.0.0.1:1\"\n[client.services]\n[client.transport]\ntype = \"tcp\"\n[client.transport.tcp]\nproxy = \"ftp://user:{secret}@host:1\"\n"
        ),
        format!(
            "[client]\nremote_addr = \"127.0.0.1:1\"\n[client.services]\n[client.transport]\ntype = \"tcp\"\n[client.transport.tcp]\nproxy = \"http://user:{secret}%zz@:1\"\n"
        ),
    ];
    let secrets = Secrets::default().text("the secret", secret).text("the key", key);
    for (i, toml) in broken.iter().enumerate() {
        let path = dir.path().join(format!("{i}.toml"));
        std::fs::write(&path, toml).unwrap();
        for (arguments, code) in [(&["check"][..], 78), (&["check", "--json"], 78), (&[], 78)] {
            let mut command = Command::new(Build::Ours.program());
            command.args(arguments).arg(&path).env("RUST_LOG", "trace");
            let mut process = Process::start(format!("rathole {arguments:?} {i}.toml"), command);
            assert_eq!(process.wait().code(), Some(code), "{arguments:?}: this should be an error:\n{toml}");
            assert!(process.log().contains(&format!("{i}.toml")), "{}", process.log());
            secrets.expect_none(&process);
        }
    }
}

#[test]
fn this_search_finds() {
    let secrets = Secrets::default().text("token", TOKEN).bytes("key", &[0xAB; 32]);
    assert_eq!(secrets.found_in(&format!("token={TOKEN}")), ["token"]);
    assert_eq!(secrets.found_in(&format!("{:?}", TOKEN.as_bytes())), ["token"]);
    assert_eq!(secrets.found_in(&format!("key {}", "ab".repeat(32))), ["key"]);
    assert_eq!(secrets.found_in(&format!("key {}", base64(&[0xAB; 32]))), ["key"]);
    assert!(secrets.found_in("nothing of that kind").is_empty());
    assert_eq!(unbase64(&base64(b"any carnal pleas")), b"any carnal pleas");
}
