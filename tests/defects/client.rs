//! The client, and what servers, middleboxes and proxies do to it.

use std::net::{Ipv6Addr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use super::common::certs::{Certs, KeyKind, can_be_made};
use super::common::forward::{Forward, PASSWORD, USER};
use super::common::keys::KeyPair;
use super::common::net;
use super::common::process::Process;
use super::common::raw::{FakeServer, ZERO, hello, put, rest, take};
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Role, Service};
use super::hand::{accept_within, sockets, socks5_target};
use super::{Outcome, ended, seconds, served, until, verdict};

situations! {
    "D14" => a_silent_server_is_given_up,
    "D15" => a_server_that_asks_without_end_is_bounded,
    "S2" => a_refused_upgrade_kills_no_client,
    "S11" => proxies_are_spoken_to_properly,
    "S12" => retry_interval_0_is_no_busy_loop,
}

const NOWHERE: ([u8; 4], u16) = ([127, 0, 0, 1], 9);

fn plan(link: Link) -> Plan {
    Plan::new(link, vec![Service::tcp("echo", NOWHERE.into())])
}

/// A server accepts and says nothing, or says hello and no more.
fn a_silent_server_is_given_up(build: Build) -> Outcome {
    let (certs, key) = (Certs::new(KeyKind::Ec), KeyPair::from(&build.program()));
    let pattern = "Noise_NK_25519_ChaChaPoly_BLAKE2s";
    let mut cases = vec![
        ("tcp", Link::tcp()),
        ("tcp after its hello", Link::tcp()),
        ("noise", Link::noise(pattern, &key, &key, true)),
        ("websocket", Link::websocket()),
    ];
    if can_be_made("defects") {
        cases.push(("tls", Link::tls(&certs, &certs.p12_modern)));
    }
    let limit = Duration::from_secs(25);
    let one = |name: &str, link: &Link| {
        let plan = plan(link.clone());
        let server = FakeServer::listen(plan.server_addr);
        let _client = plan.start_client(build);
        let stream = server.accept();
        if name.contains("hello") {
            take::<37>(&stream);
            put(&stream, &hello(0, 1, &[7; 32]));
        }
        ended(&stream, limit)
    };
    let times: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = cases.iter().map(|(name, link)| scope.spawn(|| one(name, link))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let still: Vec<_> =
        times.iter().zip(&cases).filter(|(time, _)| time.is_none()).map(|(_, (name, _))| *name).collect();
    let last = times.iter().flatten().max().copied().unwrap_or_default();
    match still.is_empty() {
        true => Ok(format!(
            "given up on all of {} silent servers, on the last after {}",
            cases.len(),
            seconds(last)
        )),
        false => Err(format!("waits for more than 25 s: {}", still.join(", "))),
    }
}

/// A server asks for 3000 data channels in one write.
fn a_server_that_asks_without_end_is_bounded(build: Build) -> Outcome {
    super::many_descriptors();
    let plan = plan(Link::tcp());
    let server = FakeServer::listen(plan.server_addr);
    let mut client = plan.start_client(build);
    let (control, _) = server.accept_control("echo", &plan.client_token, [7; 32]);
    put(&control, &ZERO.repeat(3000));
    let mut open = Vec::new();
    let mut most = 0;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        most = most.max(sockets(&client));
        match accept_within(&server, Duration::from_secs(1)) {
            Some(stream) => open.push(stream),
            None => break,
        }
    }
    most = most.max(sockets(&client));
    verdict(most < 1200 && client.is_running(), format!("3000 requests make {most} sockets"))
}

/// Whatever answers the upgrade of a WebSocket.
fn a_refused_upgrade_kills_no_client(build: Build) -> Outcome {
    let plan = plan(Link::websocket());
    let server = FakeServer::listen(plan.server_addr);
    let mut client = plan.start_client(build);
    let answers: [(&str, &[u8]); 5] = [
        ("502", b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
        ("a redirection", b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n"),
        ("a page", b"HTTP/1.1 200 OK\r\n\r\n<html>log in first</html>"),
        ("a close", b""),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
    ];
    for (what, answer) in answers {
        let stream = accept_within(&server, Duration::from_secs(20));
        if let Some(stream) = &stream {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.extend(take::<1>(stream));
            }
            put(stream, answer);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            rest(stream);
        }
        // It comes again, or it has ended.
        until(Duration::from_millis(500), || !client.is_running());
        if !client.is_running() {
            return Err(format!("killed by signal {} when {what} answers the upgrade", signal(&mut client)));
        }
        stream.ok_or_else(|| format!("does not try again after {what}"))?;
    }
    Ok("tries again after 502, a redirection, a page, a close, SSH".to_owned())
}

/// What ended a process.
fn signal(process: &mut Process) -> i32 {
    process.wait().signal().unwrap_or_default()
}

/// Credentials in percent encoding; a server that only the proxy can resolve; IPv6 on either side of the proxy.
fn proxies_are_spoken_to_properly(build: Build) -> Outcome {
    let limit = Duration::from_secs(10);
    let mut good = Vec::new();
    let mut bad = Vec::new();
    let mut note = |what, works: bool| if works { good.push(what) } else { bad.push(what) };

    let encoded = format!("{}:{}@", USER.replace('-', "%2D"), PASSWORD.replace('-', "%2D"));
    let through = |url: String| {
        let local = Local::echo();
        let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
        plan.proxy = Some(url);
        let _running = (plan.start_server(build), plan.start_client(build));
        served(plan.services[0].visitors, limit).is_some()
    };
    for (what, proxy) in [
        ("percent-encoded credentials (HTTP)", Forward::http(true)),
        ("percent-encoded credentials (SOCKS5)", Forward::socks5(true)),
    ] {
        note(what, through(proxy.url().replace(&format!("{USER}:{PASSWORD}@"), &encoded)));
    }

    // What a proxy is asked for, when the client is told to go to `remote`.
    let asked = |listener: TcpListener, remote: &str| {
        let mut plan = plan(Link::tcp());
        plan.proxy = Some(format!("socks5://{}", listener.local_addr().unwrap()));
        let toml = plan.client_toml().replace(&plan.server_addr.to_string(), remote);
        let _client = build.start(Role::Client, &plan.write("client.toml", &toml));
        socks5_target(&listener, limit)
    };
    let proxy = || TcpListener::bind("127.0.0.1:0").unwrap();
    let target = asked(proxy(), "only-the-proxy-knows.invalid:2333");
    note(
        "a name that only the proxy knows",
        target.is_some_and(|target| target.starts_with("only-the-proxy")),
    );
    let target = asked(proxy(), "[::1]:2333");
    note("an IPv6 server without brackets", target.is_some_and(|target| target == "::1"));
    if net::has_ipv6() {
        let proxy = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        note("a proxy on IPv6", asked(proxy, "127.0.0.1:2333").is_some());
    }
    match bad.is_empty() {
        true => Ok(format!("right: {}", good.join(", "))),
        false => Err(format!("wrong: {}", bad.join(", "))),
    }
}

/// Told to try again without a pause.
fn retry_interval_0_is_no_busy_loop(build: Build) -> Outcome {
    let mut plan = plan(Link::tcp());
    plan.client_lines = "retry_interval = 0\n".to_owned();
    let server = FakeServer::listen(plan.server_addr);
    let _client = plan.start_client(build);
    drop(server.accept());
    let begun = Instant::now();
    let mut attempts = 1;
    while begun.elapsed() < Duration::from_secs(3) {
        // Closed at once.
        attempts += usize::from(accept_within(&server, Duration::from_millis(100)).is_some());
    }
    verdict((1..=12).contains(&attempts), format!("{attempts} attempts to connect in 3 s"))
}
