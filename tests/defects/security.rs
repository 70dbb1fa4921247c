//! Keys, tokens and what is said of them.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::common::keys::KeyPair;
use super::common::net;
use super::common::process::Process;
use super::common::raw::{connect, hello, put, rest, sha256, take};
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Role, Service};
use super::{Outcome, echo_once, until, verdict};

situations! {
    "S7" => wrong_noise_pins_are_refused,
    "S7" => short_noise_keys_are_refused,
    "S8" => plain_tcp_and_weak_tokens_are_warned_of,
    "S10" => the_proxy_s_password_is_not_logged,
    "S15" => the_expected_digest_is_not_logged,
}

const NOWHERE: ([u8; 4], u16) = ([127, 0, 0, 1], 9);

/// A pin that is not the other side's key, in patterns that send that key.
fn wrong_noise_pins_are_refused(build: Build) -> Outcome {
    let program = build.program();
    let [server, client, other] = [(); 3].map(|()| KeyPair::from(&program));
    let cases = [
        ("XX, server's key", &other, &client),
        ("NX, server's key", &other, &client),
        ("IX, server's key", &other, &client),
        ("XK, client's key", &server, &other),
        ("IK, client's key", &server, &other),
        ("KX, server's key", &other, &client),
    ];
    let accepted = |(what, servers, clients): &(&str, &KeyPair, &KeyPair)| {
        let local = Local::echo();
        let pattern = format!("Noise_{}_25519_ChaChaPoly_BLAKE2s", &what[..2]);
        // The server's file is right; the client's was made for a pair of which one key is another.
        let mut link = Link::noise(&pattern, &server, &client, true);
        link.client = Link::noise(&pattern, servers, clients, true).client;
        let plan = Plan::new(link, vec![Service::tcp("echo", local.addr)]);
        let _server = plan.start_server(build);
        let process = plan.start_client(build);
        let short = Duration::from_millis(500);
        let mut served = false;
        until(Duration::from_secs(10), || {
            served = net::listens(plan.services[0].visitors)
                && echo_once(plan.services[0].visitors, b"hello", short).is_ok();
            // It was refused, and more than once.
            served || process.log().matches("next attempt").count() > 1
        });
        served
    };
    let bad: Vec<_> = cases.iter().filter(|case| accepted(case)).map(|(what, ..)| *what).collect();
    match bad.is_empty() {
        true => Ok(format!("{} wrong pins refused", cases.len())),
        false => Err(format!("wrong pins accepted: {}", bad.join("; "))),
    }
}

/// 16 bytes.
fn short_noise_keys_are_refused(build: Build) -> Outcome {
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", NOWHERE.into())]);
    plan.link.server = format!(
        "type = \"noise\"\n[server.transport.noise]\nlocal_private_key = \"{}AA==\"\n",
        "AAEC".repeat(5)
    );
    let mut server = build.start(Role::Server, &plan.write("server.toml", &plan.server_toml()));
    until(Duration::from_secs(10), || !server.is_running() || net::listens(plan.server_addr));
    if server.is_running() {
        return Err("a key of 16 bytes is accepted".to_owned());
    }
    let status = server.wait();
    verdict(status.code().is_some_and(|code| code != 0), format!("refused, {status}"))
}

/// A server that the world can reach, without encryption, with a token that can be guessed.
fn plain_tcp_and_weak_tokens_are_warned_of(build: Build) -> Outcome {
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", NOWHERE.into())]);
    plan.server_addr = net::address_on(Ipv4Addr::UNSPECIFIED.into());
    plan.server_token = "secret".to_owned();
    let server = plan.start_server(build);
    let warned = |word: &str| server.log().lines().any(|line| line.contains("WARN") && line.contains(word));
    let both = until(Duration::from_secs(3), || warned("encrypt") && warned("token"));
    let words = if both.is_some() { "warned of both" } else { "no warning" };
    verdict(both.is_some(), words.to_owned())
}

/// In the log at debug.
fn the_proxy_s_password_is_not_logged(build: Build) -> Outcome {
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", NOWHERE.into())]);
    let password = "proxy-password-Gk31";
    plan.proxy = Some(format!("http://user:{password}@{}", net::address()));
    let client = plan.start_client(build);
    // It has read its configuration, and failed to connect.
    let failed = until(Duration::from_secs(10), || {
        ["next attempt", "Failed to run the control channel", "Retry"]
            .iter()
            .any(|word| client.log().contains(word))
    });
    assert!(failed.is_some(), "no attempt to connect: {}", client.log());
    let found = client.log().contains(password);
    verdict(
        !found,
        if found { "the password is in the log" } else { "the password is not in the log" }.to_owned(),
    )
}

/// Who may read the log, and sees a failed attempt, must not learn what would have been right.
fn the_expected_digest_is_not_logged(build: Build) -> Outcome {
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", NOWHERE.into())]);
    let config = plan.write("server.toml", &plan.server_toml());
    let mut command = build.command(Role::Server, &config);
    command.env("RUST_LOG", "trace");
    let server = Process::start("server", command);
    net::wait_listening(plan.server_addr);
    let stream = connect(plan.server_addr);
    put(&stream, &hello(0, 1, &sha256(&[b"echo"])));
    let challenge: [u8; 37] = take(&stream);
    put(&stream, &[7; 32]);
    rest(&stream);
    let expected = sha256(&[plan.server_token.as_bytes(), &challenge[5..]]);
    let hex: String = expected.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{expected:?}");
    let logged = until(Duration::from_secs(2), || {
        let log = server.log().to_lowercase();
        log.contains(&hex) || log.contains(list.trim_matches(['[', ']']))
    });
    let words = if logged.is_some() {
        "the right answer is in the log"
    } else {
        "the right answer is not in the log"
    };
    verdict(logged.is_none(), words.to_owned())
}
