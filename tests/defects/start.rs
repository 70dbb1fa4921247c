//! Starting: what cannot work is said, at once.

use std::net::{Ipv6Addr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use super::common::certs::{Certs, KeyKind, can_be_made};
use super::common::net;
use super::common::process::Process;
use super::common::raw::FakeServer;
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Role, Service};
use super::hand::accepts_in_time;
use super::{Outcome, after, seconds, served, until, verdict};

situations! {
    "D18" => addresses_that_cannot_work_are_refused,
    "S1" => failures_to_start_end_the_process_with_a_word,
    "S2" => no_configuration_kills_the_process,
    "S3" => without_inotify_the_server_serves,
    "S12" => keepalive_0_makes_no_errors,
}

const NOWHERE: ([u8; 4], u16) = ([127, 0, 0, 1], 9);

fn plan() -> Plan {
    Plan::new(Link::tcp(), vec![Service::tcp("echo", NOWHERE.into())])
}

/// How a process ends, if it does within 5 s.
fn end(build: Build, role: Role, config: &Path) -> (Option<ExitStatus>, String) {
    let mut process = build.start(role, config);
    until(Duration::from_secs(5), || !process.is_running());
    let status = (!process.is_running()).then(|| process.wait());
    (status, process.log())
}

/// Starts each; it must end with an exit code that is not 0 and say the word.
fn must_refuse(build: Build, cases: &[(&str, Role, String, &str)]) -> Outcome {
    let plan = plan();
    let mut bad = Vec::new();
    for (what, role, toml, word) in cases {
        let (status, log) = end(build, *role, &plan.write("config.toml", toml));
        match status {
            None => bad.push(format!("{what}: keeps running")),
            Some(status) => match (status.signal(), status.code()) {
                (Some(signal), _) => bad.push(format!("{what}: killed by signal {signal}")),
                (_, Some(0)) => bad.push(format!("{what}: exit code 0")),
                _ if build == Build::Ours && !log.contains(word) => {
                    bad.push(format!("{what}: no {word:?} in: {log}"))
                }
                _ => {}
            },
        }
    }
    match bad.is_empty() {
        true => Ok(format!("{} of {0} refused with exit code and reason", cases.len())),
        false => Err(bad.join("; ")),
    }
}

/// Addresses of services that can never be bound, or not both.
fn addresses_that_cannot_work_are_refused(build: Build) -> Outcome {
    let plan = plan();
    let visitors = plan.services[0].visitors.to_string();
    let twice = format!("{}[server.services.b]\nbind_addr = \"{visitors}\"\n", plan.server_toml());
    let with = |address: &str| plan.server_toml().replace(&visitors, address);
    must_refuse(
        build,
        &[
            ("no port", Role::Server, with("127.0.0.1"), "echo"),
            ("port 99999", Role::Server, with("127.0.0.1:99999"), "echo"),
            ("two services at one address", Role::Server, twice, "already taken"),
        ],
    )
}

/// Files and tables that are missing or wrong, an address in use, a role without its table.
fn failures_to_start_end_the_process_with_a_word(build: Build) -> Outcome {
    let plan = plan();
    let text = plan.server_toml();
    let table = |table: &str| {
        text.replace("type = \"tcp\"\n[server.services]", &format!("{table}\n[server.services]"))
    };
    let bad_archive = plan.write("bad.p12", "this is no archive");
    let _taken = std::net::TcpListener::bind(plan.server_addr).unwrap();
    let cases = [
        ("address in use", Role::Server, text.clone(), "in use"),
        ("noise without its table", Role::Server, table("type = \"noise\""), "noise"),
        ("websocket without its table", Role::Server, table("type = \"websocket\""), "websocket"),
        (
            "an archive that is none",
            Role::Server,
            table(&format!(
                "type = \"tls\"\n[server.transport.tls]\npkcs12 = {bad_archive:?}\npkcs12_password = \"x\""
            )),
            "pkcs12",
        ),
        (
            "a root that cannot be read",
            Role::Client,
            plan.client_toml().replace(
                "type = \"tcp\"\n[client.services]",
                "type = \"tls\"\n[client.transport.tls]\ntrusted_root = \"/nowhere.pem\"\n[client.services]",
            ),
            "/nowhere.pem",
        ),
        ("--client with only [server]", Role::Client, text.clone(), "[client]"),
    ];
    must_refuse(build, &cases)
}

/// What 0.5.0 notices only when it is connected to, and dies of.
fn no_configuration_kills_the_process(build: Build) -> Outcome {
    let certs = Certs::new(KeyKind::Ec);
    let plan = plan();
    let (server, client) = (plan.server_toml(), plan.client_toml());
    let server = |table: &str| {
        server.replace("type = \"tcp\"\n[server.services]", &format!("{table}\n[server.services]"))
    };
    let websocket = "type = \"websocket\"\n[server.transport.websocket]\ntls = true";
    let archive = format!("{websocket}\n[server.transport.tls]\npkcs12 = {:?}", certs.p12_modern);
    // 40 bytes.
    let long_key = format!(
        "type = \"noise\"\n[server.transport.noise]\nlocal_private_key = \"{}AA==\"",
        "AAAA".repeat(13)
    );
    let proxy = |url: &str| {
        client.replace(
            "[client.services]",
            &format!("[client.transport.tcp]\nproxy = {url:?}\n[client.services]"),
        )
    };
    let host = plan.server_addr.ip();
    let mut cases = vec![
        ("wss server without pkcs12", Role::Server, server(websocket)),
        ("Noise key of 40 bytes", Role::Server, server(&long_key)),
        ("proxy URL without port", Role::Client, proxy(&format!("http://{host}"))),
        ("proxy URL with default port", Role::Client, proxy(&format!("http://{host}:80"))),
    ];
    if can_be_made("defects") {
        cases.push(("pkcs12 without password under wss", Role::Server, server(&archive)));
    }
    let six = net::has_ipv6().then(|| net::address_on(Ipv6Addr::LOCALHOST.into()));
    let _listening = six.map(FakeServer::listen);
    if let Some(six) = six {
        let mut plan = Plan::new(Link::websocket(), vec![]);
        plan.server_addr = six;
        let toml = plan.client_toml().replace(&six.to_string(), &format!("[::1%1]:{}", six.port()));
        let toml = format!("{toml}[client.services.echo]\nlocal_addr = \"127.0.0.1:9\"\n");
        cases.push(("websocket to an IPv6 address with scope", Role::Client, toml));
    }
    let mut bad = Vec::new();
    for (what, role, toml) in &cases {
        let mut process = build.start(*role, &plan.write("config.toml", toml));
        until(Duration::from_secs(5), || {
            // The first connection.
            let connected = *role == Role::Server && TcpStream::connect(plan.server_addr).is_ok();
            std::thread::sleep(Duration::from_millis(500));
            connected || !process.is_running()
        });
        until(Duration::from_secs(1), || !process.is_running());
        if !process.is_running() {
            let status = process.wait();
            match status.signal() {
                Some(signal) => bad.push(format!("{what}: killed by signal {signal}")),
                None if status.success() => bad.push(format!("{what}: exit code 0")),
                None => {}
            }
        }
        if process.log().contains("panicked") && build == Build::Ours {
            bad.push(format!("{what}: a panic: {}", process.log()));
        }
    }
    match bad.is_empty() {
        true => Ok(format!("{} of {0} are refused or survived", cases.len())),
        false => Err(bad.join("; ")),
    }
}

/// The user has no inotify instance left.
fn without_inotify_the_server_serves(build: Build) -> Outcome {
    let isolate = "unshare -Ur sh -c 'echo 0 >/proc/sys/user/max_inotify_instances'";
    let possible = Command::new("sh").args(["-c", isolate]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        super::common::skip("defects: without_inotify_the_server_serves", "no user namespaces here");
        return Ok("skipped: no user namespaces".to_owned());
    }
    let local = Local::echo();
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    let config = plan.write("server.toml", &plan.server_toml());
    // In a user namespace of its own, where the limit is its own, too.
    let limited =
        after("echo 0 >/proc/sys/user/max_inotify_instances", &build.command(Role::Server, &config));
    let mut command = Command::new("unshare");
    command.args(["-U", "-r"]).arg(limited.get_program()).args(limited.get_args());
    for (key, value) in limited.get_envs() {
        command.env(key, value.unwrap_or_default());
    }
    let mut server = Process::start("server without inotify", command);
    let _client = plan.start_client(build);
    let served = served(plan.services[0].visitors, Duration::from_secs(10));
    until(Duration::from_secs(2), || !server.is_running());
    if !server.is_running() {
        let status = server.wait();
        let code = status.code().map_or(status.to_string(), |code| format!("exit code {code}"));
        return Err(format!("ends with {code}"));
    }
    if served.is_none() {
        return Err("does not serve".to_owned());
    }
    // It looks at the file from time to time.
    plan.services.push(Service::tcp("added", NOWHERE.into()));
    plan.write("server.toml", &plan.server_toml());
    match accepts_in_time(&plan, "added", Duration::from_secs(30)) {
        Some(time) => Ok(format!("serves, and takes up a change after {}", seconds(time))),
        None => Err("serves, but does not take up a change within 30 s".to_owned()),
    }
}

/// The least that can be written for keepalive, and what is said of it for ten visitors.
fn keepalive_0_makes_no_errors(build: Build) -> Outcome {
    let local = Local::echo();
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    plan.link.server.push_str("[server.transport.tcp]\nkeepalive_secs = 0\n");
    let (_client, server) = plan.start(build, build);
    let visitors = plan.services[0].visitors;
    let all = (0..11).all(|_| served(visitors, Duration::from_secs(10)).is_some());
    assert!(all, "not served");
    let log = server.log();
    let complaints = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
    let complaints = complaints.filter(|line| line.to_lowercase().contains("keepalive")).count();
    verdict(complaints == 1, format!("{complaints} complaint(s) for 11 visitors"))
}
