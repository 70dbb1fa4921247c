//! Configurations at the ends of what is possible: the smallest and the largest number for every key that takes one,
//! names of every kind, ten thousand services.

#![cfg(all(feature = "server", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
mod config_support;

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use common::net;
use common::process::Process;
use common::service::Local;
use common::tunnel::{Build, Link, Plan, Role, Service};
use common::visitor::{self, UdpVisitor};
use config_support::{Load, Memory};
use rathole::config::RoleChoice;
use serde_json::Value;

mod names {
    use super::*;

    /// A character of each of Unicode's general categories, but for surrogates, which UTF-8 has not; then what means
    /// something to TOML, to a terminal, to a log, or to who reads it.
    const NAMES: &[(&str, &str)] = &[
        ("Lu", "Ж"),
        ("Ll", "ß"),
        ("Lt", "ǅ"),
        ("Lm", "ʰ"),
        ("Lo", "服"),
        ("Mn", "e\u{301}"),
        ("Mc", "का"),
        ("Me", "a\u{20dd}"),
        ("Nd", "٣"),
        ("Nl", "Ⅷ"),
        ("No", "½"),
        ("Pc", "‿"),
        ("Pd", "—"),
        ("Ps", "["),
        ("Pe", "]"),
        ("Pi", "«"),
        ("Pf", "»"),
        ("Po", "¿"),
        ("Sm", "∑"),
        ("Sc", "€"),
        ("Sk", "^"),
        ("So", "☃"),
        ("Zs", " \u{a0}"),
        ("Zl", "a\u{2028}b"),
        ("Zp", "a\u{2029}b"),
        ("Cc", "a\u{1}\u{7f}\u{85}b"),
        ("Cf", "a\u{200d}\u{202e}b\u{2066}"),
        ("Co", "\u{e000}"),
        ("Cn", "\u{378}"),
        ("a newline", "a\nb"),
        ("a false log line", "a\n2026-01-01T00:00:00.000000Z  INFO rathole::server: all is well"),
        ("a carriage return", "a\rb"),
        ("a tab", "a\tb"),
        ("zero", "a\0b"),
        ("a terminal's commands", "\u{1b}[31mred\u{1b}]0;title\u{7}"),
        ("quotes", "\"'`"),
        ("a backslash", "a\\b\\"),
        ("nothing", ""),
        ("dots", "a.b..c."),
        ("a blank at its ends", " a "),
        ("a key's name", "bind_addr"),
        ("beyond 16 bits", "𝔞🦀"),
        ("the BOM", "\u{feff}a"),
        ("a path", "../../etc/passwd"),
        ("a format", "{}%s$(id)"),
    ];

    /// A service of any name is served; and no name makes a second line in the log, or one that a terminal shows as
    /// something else.
    #[test]
    fn any_name_is_served_and_stays_in_its_line() {
        let echo = Local::echo();
        let mut services: Vec<_> = NAMES.iter().map(|(_, name)| Service::tcp(name, echo.addr)).collect();
        services.push(Service::tcp(&"long ".repeat(2000), echo.addr));
        // One that has no local service: its name comes in a warning.
        services.push(Service::tcp("lo\nst\u{202e}", common::net::address()));
        let mut plan = Plan::new(Link::tcp(), services);
        plan.server_lines = "visitor_timeout = 60\n".to_owned();
        let (mut client, mut server) = plan.start(Build::Ours, Build::Ours);
        for (service, what) in plan.services.iter().zip(NAMES.iter().map(|(what, _)| *what).chain(["long"])) {
            visitor::wait_served(service.visitors);
            visitor::echo(service.visitors, what.as_bytes(), true);
        }
        let (bytes, _) = visitor::connect_and_read(plan.services.last().unwrap().visitors);
        assert_eq!(bytes, b"");
        client.wait_for("local service unreachable");
        for process in [&mut client, &mut server] {
            process.signal(nix::sys::signal::Signal::SIGTERM);
            process.wait();
            let log = process.log();
            assert!(log.lines().count() > NAMES.len(), "{log}");
            for line in log.split('\n').filter(|line| !line.is_empty()) {
                let begins = line.len() > 20 && line.as_bytes()[4] == b'-' && line.as_bytes()[10] == b'T';
                assert!(
                    begins && !line.starts_with("2026-01-01T00:00:00.000000Z"),
                    "a second line: {line:?}"
                );
                let disturbs = |c: char| c.is_control() || "\u{2028}\u{2029}\u{202e}\u{2066}".contains(c);
                assert!(!line.contains(disturbs), "{line:?}");
            }
        }
    }
}

mod numbers {
    use super::*;

    /// Every key that takes a number, as its path; NAME stands for a service. From the schema, so that a new key is
    /// in it.
    fn keys() -> Vec<Vec<String>> {
        fn walk(table: &Value, path: &[String], found: &mut Vec<Vec<String>>) {
            for (name, key) in table["properties"].as_object().into_iter().flatten() {
                let path = [path, std::slice::from_ref(name)].concat();
                if key["type"] == "integer" {
                    found.push(path.clone());
                }
                walk(key, &path, found);
                if key["additionalProperties"].is_object() {
                    walk(&key["additionalProperties"], &[&path[..], &["NAME".to_owned()]].concat(), found);
                }
            }
        }
        let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rathole.schema.json");
        let schema: Value = serde_json::from_str(&std::fs::read_to_string(schema).unwrap()).unwrap();
        let mut found = Vec::new();
        walk(&schema, &[], &mut found);
        assert!(found.len() > 10, "{found:?}");
        found
    }

    /// A file that sets this key, for both services.
    fn overlay(path: &[String], number: u64) -> String {
        let (key, table) = path.split_last().unwrap();
        let table = table.join(".");
        if !table.contains("NAME") {
            return format!("[{table}]\n{key} = {number}\n");
        }
        ["echo", "datagrams"]
            .map(|name| format!("[{}]\n{key} = {number}\n", table.replace("NAME", name)))
            .concat()
    }

    /// What a file with this overlay is refused for.
    fn refusal(plan: &Plan, role: Role, overlay: &str) -> Option<String> {
        let toml = match role {
            Role::Server => plan.server_toml(),
            Role::Client => plan.client_toml(),
        };
        let load = Load {
            files: Memory::default().with("a.toml", toml).with("over.toml", overlay),
            overlays: &["over.toml"],
            role: RoleChoice::Auto,
            static_only: false,
        };
        load.run().err().map(|report| report.to_string())
    }

    fn start(plan: &Plan, role: Role, overlay: &str) -> Process {
        let (name, toml) = match role {
            Role::Server => ("server", plan.server_toml()),
            Role::Client => ("client", plan.client_toml()),
        };
        let mut command = Command::new(Build::Ours.program());
        command.arg(name).arg("--overlay").arg(plan.write(&format!("{name}-over.toml"), overlay));
        command.arg(plan.write(&format!("{name}.toml"), &toml)).env("RUST_LOG", "debug").env("NO_COLOR", "1");
        Process::start(format!("{role:?} with {overlay}"), command)
    }

    /// With each number at its ends, one at a time, visitors are served; or the file is refused, and it is said for
    /// which key.
    #[test]
    fn every_number_may_be_zero_and_as_large_as_it_gets() {
        let mut cases: Vec<(Vec<String>, u64)> =
            keys().into_iter().flat_map(|key| [(key.clone(), 0), (key, i64::MAX as u64)]).collect();
        cases.reverse();
        let (cases, refused) = (Mutex::new(cases), Mutex::new(Vec::new()));
        let (echo, datagrams) = (Local::echo(), Local::udp_echo());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    loop {
                        let Some((key, number)) = cases.lock().unwrap().pop() else { return };
                        if let Some(error) = served_with(&key, number, &echo, &datagrams) {
                            refused.lock().unwrap().push(error);
                        }
                    }
                });
            }
        });
        let refused = refused.into_inner().unwrap();
        assert!(
            refused.is_empty(),
            "no number is refused so far; is this one right?\n{}",
            refused.join("\n")
        );
    }

    fn served_with(key: &[String], number: u64, echo: &Local, datagrams: &Local) -> Option<String> {
        let services = vec![Service::tcp("echo", echo.addr), Service::udp("datagrams", datagrams.addr)];
        let plan = Plan::new(Link::tcp(), services);
        let overlay = overlay(key, number);
        let (on_server, on_client) = match &*key[0] {
            "server" => (&*overlay, ""),
            "client" => ("", &*overlay),
            half => panic!("{half}?"),
        };
        for (role, overlay) in [(Role::Server, on_server), (Role::Client, on_client)] {
            if let Some(error) = refusal(&plan, role, overlay) {
                assert!(error.contains(key.last().unwrap()), "{error}");
                return Some(error);
            }
        }
        let _server = start(&plan, Role::Server, on_server);
        net::wait_listening(plan.server_addr);
        let _client = start(&plan, Role::Client, on_client);
        let [tcp, udp] = &plan.services[..] else { panic!() };
        visitor::wait_served(tcp.visitors);
        for _ in 0..3 {
            visitor::echo(tcp.visitors, &visitor::random(number, 100_000), true);
        }
        let mut one = UdpVisitor::new(udp.visitors);
        one.wait_served();
        one.echo(b"datagram");
        UdpVisitor::new(udp.visitors).echo(&[7; 1400]);
        None
    }
}

mod many {
    use super::*;

    const MANY: usize = 10_000;

    /// Somewhere in 127.0.0.0/8: one port, another host for each.
    fn host(n: usize) -> String {
        format!("127.77.{}.{}", n / 250, n % 250 + 1)
    }

    /// A server's or client's half with so many services.
    fn half(role: Role, head: &str, port: u16, lines: &str) -> String {
        let (half, key) = match role {
            Role::Server => ("server", "bind_addr"),
            Role::Client => ("client", "local_addr"),
        };
        let mut text = format!("[{half}]\n{head}\n");
        for n in 0..MANY {
            let host = host(n);
            write!(text, "[{half}.services.service-{n:05}]\n{key} = \"{host}:{port}\"\n{lines}").unwrap();
        }
        text
    }

    fn load(text: &str) -> (Duration, Result<usize, usize>) {
        let load = config_support::text(text);
        let begun = on_processor();
        let loaded = load.run();
        let took = on_processor() - begun;
        let problems = |report: &rathole::config::Report| report.problems().len();
        (took, loaded.map(|loaded| problems(&loaded.report)).map_err(|report| problems(&report)))
    }

    /// What this thread has used of a processor: others use it, too.
    fn on_processor() -> Duration {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }

    const SERVER: &str = "bind_addr = \"127.0.0.1:2333\"\ndefault_token = \"0123456789abcdef\"";
    const CLIENT: &str = "remote_addr = \"127.0.0.1:2333\"\ndefault_token = \"0123456789abcdef\"";

    /// Ten thousand services are loaded as fast as they are read, and ten thousand mistakes do not take longer: in
    /// tables of their own, or all in one line.
    #[test]
    fn they_are_loaded_at_once() {
        let inline = |lines: &str| {
            let mut text = format!("[server]\n{SERVER}\nservices = {{ ");
            for n in 0..MANY {
                write!(text, "s{n} = {{ bind_addr = \"{}:1\"{lines} }}, ", host(n)).unwrap();
            }
            text + "}\n"
        };
        let same = half(Role::Server, SERVER, 2, "").replace("127.77.", "127.7.").replace(".1:2\"", ".1:3\"");
        let doubled = same.replace(".2:2\"", ".3:2\"");
        for (what, text, expected) in [
            ("a server", half(Role::Server, SERVER, 2, ""), Ok(0)),
            ("a client", half(Role::Client, CLIENT, 2, ""), Ok(0)),
            ("one line", inline(""), Ok(0)),
            ("short tokens", half(Role::Server, SERVER, 2, "token = \"short\"\n"), Ok(MANY)),
            ("unknown keys", half(Role::Client, CLIENT, 2, "local_prot = 1\n"), Err(MANY)),
            (
                "far from any key",
                half(Role::Client, CLIENT, 2, "abcdefghijklmnopqrstuvwxyz = 1\n"),
                Err(MANY),
            ),
            ("wrong types", half(Role::Client, CLIENT, 2, "nodelay = 1\n"), Err(MANY)),
            ("mistakes in one line", inline(", token = \"short\""), Ok(MANY)),
            ("unknown keys in one line", inline(", bind_adr = 1"), Err(MANY)),
            ("addresses taken", doubled, Err(40)),
        ] {
            let (took, found) = load(&text);
            println!("{what}: {} KB in {took:.1?}, {found:?}", text.len() / 1000);
            assert_eq!(found, expected, "{what}");
            // In a debug build; what is quadratic takes minutes.
            assert!(took < Duration::from_secs(5), "{what} took {took:?}");
        }
    }

    /// Raises the limit of open files for the programs that this test starts; the new limit.
    fn raise_open_files(wanted: u64) -> u64 {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted.max(hard), wanted.max(hard));
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        hard
    }

    /// A server with ten thousand services is up within seconds, and serves the first, the last, and those between.
    #[test]
    fn they_are_started_at_once() {
        let needed = MANY as u64 + 2000;
        if raise_open_files(needed) < needed {
            return common::skip("they_are_started_at_once", "not so many open files are allowed here");
        }
        let echo = Local::echo();
        let served = [0, 1, MANY / 2, MANY - 1];
        let port = net::address().port();
        let plan = Plan::new(Link::tcp(), Vec::new());
        let head = format!("bind_addr = \"{}\"\ndefault_token = \"0123456789abcdef\"", plan.server_addr);
        let config = plan.write("server.toml", &half(Role::Server, &head, port, ""));
        let begun = Instant::now();
        let mut command = Build::Ours.command(Role::Server, &config);
        command.env_remove("RUST_LOG");
        let server = Process::start("a server of many", command);
        server.wait_for("server is listening");
        let up = begun.elapsed();
        let head = format!("remote_addr = \"{}\"\ndefault_token = \"0123456789abcdef\"", plan.server_addr);
        let mut text = format!("[client]\n{head}\n");
        for n in served {
            write!(text, "[client.services.service-{n:05}]\nlocal_addr = \"{}\"\n", echo.addr).unwrap();
        }
        let _client = Build::Ours.start(Role::Client, &plan.write("client.toml", &text));
        for n in served {
            let address = format!("{}:{port}", host(n)).parse().unwrap();
            visitor::wait_served(address);
            visitor::echo(address, &visitor::random(1, 100_000), true);
        }
        println!("{MANY} services listen after {up:.1?}, the last is served after {:.1?}", begun.elapsed());
        let used = Duration::from_millis(10 * ticks(server.id()));
        // In a debug build. Seconds of a processor, for others use it, too.
        assert!(used < Duration::from_secs(10), "{used:?} of a processor");
    }

    /// What a process has used of the processors, in hundredths of a second.
    fn ticks(id: u32) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        let fields = text.rsplit(')').next().unwrap().split_whitespace();
        fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }
}
