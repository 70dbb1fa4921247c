//! Good configurations: what they mean, and what is warned of.

#![cfg(all(feature = "server", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod config_support;

use std::time::{Duration, Instant};

use config_support::{Load, Memory, client, good, of, server, text};
use rathole::config::{
    ClientKind, ClientTransport, ProxyProtocol, RoleChoice, Secret, ServerKind, ServerTransport, Severity,
};

const SECOND: Duration = Duration::from_secs(1);

fn warnings(toml: &str) -> Vec<String> {
    let loaded = text(toml).run().unwrap_or_else(|report| panic!("{report}\n{toml}"));
    loaded.report.problems().iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_are_upstreams() {
    assert!(warnings(&server("", "")).is_empty());
    assert!(warnings(&client("", "")).is_empty());
    let server = good(&server("", "")).server.unwrap();
    assert_eq!(server.bind_addr.to_string(), "127.0.0.1:2333");
    assert_eq!(server.transport, ServerTransport::Tcp);
    assert_eq!(server.heartbeat_interval, Some(30 * SECOND));
    assert_eq!((server.handshake_timeout, server.shutdown_grace), (5 * SECOND, 3 * SECOND));
    assert_eq!(server.visitor_timeout, 10 * SECOND);
    assert!(server.tcp.nodelay);
    assert_eq!((server.tcp.keepalive_idle, server.tcp.keepalive_interval), (20 * SECOND, 8 * SECOND));
    let service = &server.services["ssh"];
    assert_eq!((&*service.name, service.nodelay), ("ssh", true));
    assert_eq!(service.kind, ServerKind::Tcp { proxy_protocol: None });
    assert_eq!(service.token, Secret::new("0123456789abcdef"));

    let client = good(&client("", "")).client.unwrap();
    assert_eq!(client.remote_addr.to_string(), "127.0.0.1:2333");
    assert_eq!((client.transport, client.proxy), (ClientTransport::Tcp, None));
    assert_eq!(client.heartbeat_timeout, Some(40 * SECOND));
    assert_eq!((client.handshake_timeout, client.shutdown_grace), (5 * SECOND, 3 * SECOND));
    let service = &client.services["ssh"];
    assert_eq!((service.kind, service.retry_interval, service.nodelay), (ClientKind::Tcp, SECOND, true));
}

#[test]
fn what_is_written_is_what_is_meant() {
    let config = good(
        "[server]\nbind_addr = \"[::1]:1\"\nservices.a = { type = \"udp\", bind_addr = \"localhost:2\", token = \"tök€n-0123456789\" }\n\
         heartbeat_interval = 7\nhandshake_timeout = 8\nshutdown_grace = 9\nvisitor_timeout = 10\n\
         [server.services.\"服务.ü\"]\nbind_addr = \"127.0.0.1:3\"\ntoken = \"0123456789abcdef\"\nnodelay = true\nproxy_protocol = \"v2\"\n\
         [server.transport]\ntype = \"tcp\"\ntcp = { nodelay = false, keepalive_secs = 11, keepalive_interval = 12 }\n\
         [client]\nremote_addr = \"localhost:1\"\nheartbeat_timeout = 13\nretry_interval = 14\n\
         [client.services.a]\ntype = \"udp\"\nlocal_addr = \"localhost:5\"\ntoken = \"0123456789abcdef\"\nprefer_ipv6 = true\nretry_interval = 15\n\
         [client.services.b]\nlocal_addr = \"localhost:5\"\ntoken = \"0123456789abcdef\"\nnodelay = false\n",
    );
    let server = config.server.unwrap();
    assert_eq!(server.heartbeat_interval, Some(7 * SECOND));
    assert_eq!(
        [server.handshake_timeout, server.shutdown_grace, server.visitor_timeout],
        [8 * SECOND, 9 * SECOND, 10 * SECOND]
    );
    assert_eq!((server.tcp.keepalive_idle, server.tcp.keepalive_interval), (11 * SECOND, 12 * SECOND));
    assert_eq!((server.services["a"].kind, server.services["a"].nodelay), (ServerKind::Udp, false));
    assert_eq!(server.services["a"].token, Secret::new("tök€n-0123456789"));
    let unicode = &server.services["服务.ü"];
    assert_eq!(unicode.kind, ServerKind::Tcp { proxy_protocol: Some(ProxyProtocol::V2) });
    assert!(unicode.nodelay);
    let client = config.client.unwrap();
    assert_eq!(client.heartbeat_timeout, Some(13 * SECOND));
    assert_eq!(client.services["a"].kind, ClientKind::Udp { prefer_ipv6: true });
    assert_eq!(client.services["a"].retry_interval, 15 * SECOND);
    assert_eq!((client.services["b"].retry_interval, client.services["b"].nodelay), (14 * SECOND, false));
}

#[test]
fn visitors_are_let_in_by_prefix() {
    let access = |lines: &str| {
        let toml = server("", lines);
        assert!(warnings(&toml).is_empty(), "{toml}");
        good(&toml).server.unwrap().services["ssh"].access.clone()
    };
    let ip = |text: &str| text.parse().unwrap();
    let all = access("");
    assert!(all.admits(ip("192.0.2.1")) && all.admits(ip("2001:db8::1")));
    let some = access("allow = [\"10.0.0.0/8\", \"2001:db8::/32\"]\ndeny = [\"10.9.9.9\"]\n");
    assert!(
        some.admits(ip("10.0.0.1")) && some.admits(ip("::ffff:10.0.0.1")) && some.admits(ip("2001:db8::1"))
    );
    assert!(!some.admits(ip("10.9.9.9")) && !some.admits(ip("11.0.0.1")) && !some.admits(ip("2001:db9::1")));
    // Used, but worth a word.
    for (line, expected) in [
        ("allow = []", "server.services.ssh.allow: nobody may visit this service"),
        (
            "deny = [\"10.1.2.3/8\"]",
            "entry 1, \"10.1.2.3/8\": bits after the prefix do not count (write 10.0.0.0/8)",
        ),
    ] {
        let warnings = warnings(&server("", line));
        assert!(warnings.len() == 1 && warnings[0].contains(expected), "{warnings:?}");
    }
    let nobody = good(&server("", "allow = []")).server.unwrap();
    assert!(!nobody.services["ssh"].access.admits(ip("127.0.0.1")));
    // An overlay's list takes the other's place.
    let files = Memory::default()
        .with("a.toml", server("", "allow = [\"10.0.0.0/8\"]\n"))
        .with("b.toml", "[server.services.ssh]\nallow = [\"192.0.2.0/24\"]\n");
    let load = Load { files, overlays: &["b.toml"], role: RoleChoice::Auto, static_only: false };
    let access = &load.run().unwrap().config.server.unwrap().services["ssh"].access;
    assert!(access.admits(ip("192.0.2.1")) && !access.admits(ip("10.0.0.1")));
}

#[test]
fn zero_keeps_its_meaning_where_it_has_one() {
    let server =
        good(&server("heartbeat_interval = 0\nshutdown_grace = 0\nvisitor_timeout = 0", "")).server.unwrap();
    assert_eq!(server.heartbeat_interval, None);
    assert_eq!((server.shutdown_grace, server.visitor_timeout), (Duration::ZERO, Duration::ZERO));
    let toml = client("heartbeat_timeout = 0\nshutdown_grace = 0", "");
    assert!(warnings(&toml).is_empty());
    let client = good(&toml).client.unwrap();
    assert_eq!((client.heartbeat_timeout, client.shutdown_grace), (None, Duration::ZERO));
}

#[test]
fn the_senseless_is_clamped_with_a_warning() {
    let max = i64::MAX;
    let transport = |half: &str, lines: &str| {
        format!("[{half}.transport]\ntype = \"tcp\"\n[{half}.transport.tcp]\n{lines}")
    };
    let year = 31_536_000 * SECOND;
    let one = |toml: &str, key: &str| {
        let warnings = warnings(toml);
        assert!(warnings.len() == 1 && warnings[0].contains(&format!("warning: {key}: ")), "{warnings:?}");
        good(toml)
    };
    for (value, expected) in [(0, 1), (32_768, 32_767), (max, 32_767)] {
        let toml = server("", &transport("server", &format!("keepalive_secs = {value}\n")));
        let tcp = one(&toml, "server.transport.tcp.keepalive_secs").server.unwrap().tcp;
        assert_eq!(tcp.keepalive_idle, expected * SECOND);
        let toml = client("", &transport("client", &format!("keepalive_interval = {value}\n")));
        let tcp = one(&toml, "client.transport.tcp.keepalive_interval").client.unwrap().tcp;
        assert_eq!(tcp.keepalive_interval, expected * SECOND);
    }
    let large = warnings(&server(&format!("shutdown_grace = {max}\n"), ""));
    assert!(large[0].contains("(0 to 31536000 seconds)"), "0 means something here: {large:?}");
    for (value, expected) in [(0, SECOND), (max, year)] {
        let config = one(&client(&format!("retry_interval = {value}"), ""), "client.retry_interval");
        assert_eq!(config.client.unwrap().services["ssh"].retry_interval, expected);
        let config =
            one(&client("", &format!("retry_interval = {value}")), "client.services.ssh.retry_interval");
        assert_eq!(config.client.unwrap().services["ssh"].retry_interval, expected);
    }
    for (value, expected) in [(0, 5 * SECOND), (max, 3600 * SECOND)] {
        let line = format!("handshake_timeout = {value}");
        let server = one(&server(&line, ""), "server.handshake_timeout").server.unwrap();
        let client = one(&client(&line, ""), "client.handshake_timeout").client.unwrap();
        assert_eq!([server.handshake_timeout, client.handshake_timeout], [expected; 2]);
    }
    let server =
        |key: &str| one(&server(&format!("{key} = {max}"), ""), &format!("server.{key}")).server.unwrap();
    assert_eq!(server("heartbeat_interval").heartbeat_interval, Some(year));
    assert_eq!(server("shutdown_grace").shutdown_grace, year);
    assert_eq!(server("visitor_timeout").visitor_timeout, year);
    let toml = client(&format!("heartbeat_timeout = {max}"), "");
    assert_eq!(one(&toml, "client.heartbeat_timeout").client.unwrap().heartbeat_timeout, Some(year));
}

#[test]
fn weak_things_are_warned_of() {
    let both = |interval: u32, timeout: u32| {
        server(
            &format!("heartbeat_interval = {interval}"),
            &client(&format!("heartbeat_timeout = {timeout}"), ""),
        )
    };
    for (toml, key) in [
        (server("", "").replace("127.0.0.1:2333", "0.0.0.0:2333"), "server.bind_addr"),
        (server("", "").replace("127.0.0.1:2333", "example.com:2333"), "server.bind_addr"),
        (client("", "").replace("127.0.0.1:2333", "example.com:2333"), "client.remote_addr"),
        (server("", "").replace("0123456789abcdef", ""), "server.default_token"),
        (server("", "").replace("0123456789abcdef", "0123456789abcde"), "server.default_token"),
        (server("", "token = \"\"\n"), "server.services.ssh.token"),
        (client("", "token = \"short\"\n"), "client.services.ssh.token"),
        (client("heartbeat_timeout = 30", ""), "client.heartbeat_timeout"),
        (both(40, 40), "client.heartbeat_timeout"),
        (both(0, 40), "client.heartbeat_timeout"),
        (both(60, 40), "client.heartbeat_timeout"),
        (client("prefer_ipv6 = true", ""), "client.prefer_ipv6"),
        (server("", "[server.services.\"\"]\nbind_addr = \"127.0.0.1:9\"\n"), "server.services.\"\""),
        (client("", "").replace("127.0.0.1:22\"", "127.0.0.1:0\""), "client.services.ssh.local_addr"),
        (
            server("transport = { type = \"tcp\", tcp = { proxy = \"http://127.0.0.1:1\" } }", ""),
            "server.transport.tcp.proxy",
        ),
    ] {
        let warnings = warnings(&toml);
        assert!(
            warnings.len() == 1 && warnings[0].contains(&format!(": warning: {key}: ")),
            "{key}: {warnings:?}"
        );
    }
    for quiet in [both(10, 11), both(0, 0), both(60, 0), client("heartbeat_timeout = 31", "")] {
        assert!(warnings(&quiet).is_empty(), "{quiet}");
    }
}

#[test]
fn a_secret_that_others_may_read_is_warned_of() {
    let run = |load: &Load<'_>| of(Severity::Warning, load.run());
    for (mode, expected) in [(0o600, 0), (0o640, 0), (0o644, 1), (0o604, 1)] {
        let mut load = text(&server("", ""));
        load.files = load.files.mode("a.toml", mode);
        assert_eq!(run(&load).len(), expected, "{mode:o}");
    }
    let no_secret =
        server("default_token_file = \"t\"", "").replace("default_token = \"0123456789abcdef\"\n", "");
    for (mode, expected) in [(0o600, 0), (0o644, 1)] {
        let mut load = text(&no_secret);
        load.files = load.files.with("t", "0123456789abcdef\n").mode("a.toml", 0o644).mode("t", mode);
        assert_eq!(run(&load).len(), expected, "{mode:o}");
    }
    let files = Memory::default()
        .with("a.toml", no_secret)
        .with("t", "0123456789abcdef")
        .with("b.toml", "[server.services.ssh]\ntoken = \"0123456789abcdef\"\n")
        .mode("b.toml", 0o644);
    let load = Load { files, overlays: &["b.toml"], role: RoleChoice::Auto, static_only: false };
    let warnings = run(&load);
    assert!(warnings.len() == 1 && warnings[0].starts_with("b.toml:2:9: warning: "), "{warnings:?}");
}

#[test]
fn a_token_file_loses_one_newline() {
    let toml = server("default_token_file = \"t\"", "").replace("default_token = \"0123456789abcdef\"\n", "");
    for (bytes, expected) in [
        (&b"0123456789abcdef"[..], &b"0123456789abcdef"[..]),
        (b"0123456789abcdef\n", b"0123456789abcdef"),
        (b"0123456789abcdef\r\n", b"0123456789abcdef"),
        (b"0123456789abcdef\n\n", b"0123456789abcdef\n"),
        (b" 0123456789abcde\r", b" 0123456789abcde\r"),
        (b"\xff\xfe3456789abcdef0\n", b"\xff\xfe3456789abcdef0"),
    ] {
        let mut load = text(&toml);
        load.files = load.files.with("t", bytes);
        let server = load.run().unwrap().config.server.unwrap();
        assert_eq!(server.services["ssh"].token.expose(), expected);
    }
    let errors = of(Severity::Error, text(&toml).run());
    let expected = "a.toml:3:22: error: server.default_token_file: cannot read t: there is no such file";
    assert!(errors.len() == 1 && errors[0].starts_with(expected), "{errors:?}");
}

#[test]
fn a_services_own_token_wins() {
    let config = good(&server("", "token = \"fedcba9876543210\"\n"));
    assert_eq!(config.server.unwrap().services["ssh"].token, Secret::new("fedcba9876543210"));
    let mut load = text(&client("", "token_file = \"own\"\n"));
    load.files = load.files.with("own", "fedcba9876543210");
    let config = load.run().unwrap().config;
    assert_eq!(config.client.unwrap().services["ssh"].token, Secret::new("fedcba9876543210"));
}

#[test]
fn overlays_are_laid_over_in_order() {
    let files = Memory::default()
        .with("a.toml", client("", "").replace("default_token = \"0123456789abcdef\"\n", ""))
        .with("b.toml", "[client]\ndefault_token = \"from-the-first-overlay\"\nretry_interval = 5\n")
        .with("c.toml", "[client]\ndefault_token = \"from-the-second-overlay\"\n");
    let load = Load { files, overlays: &["b.toml", "c.toml"], role: RoleChoice::Auto, static_only: false };
    let client = load.run().unwrap().config.client.unwrap();
    assert_eq!(client.services["ssh"].token, Secret::new("from-the-second-overlay"));
    assert_eq!(client.services["ssh"].retry_interval, 5 * SECOND);
}

#[test]
fn an_overlay_that_cannot_be_read_is_spared_only_in_a_static_check() {
    let no_token = "[server]\n[server.services.ssh]\nbind_addr = \"127.0.0.1:5202\"\n";
    for (toml, warned) in [
        (server("", ""), vec!["b.toml: warning: "]),
        (
            no_token.to_owned(),
            vec![
                "a.toml:1:2: warning: server.bind_addr: this key is missing",
                "a.toml:2:18: warning: server.services.ssh.token: ",
                "b.toml: warning: cannot read this file: there is no such file",
            ],
        ),
        (String::new(), vec!["a.toml:1:1: warning: there is neither", "b.toml: warning: "]),
    ] {
        let load = |static_only| Load {
            files: Memory::default().with("a.toml", &toml),
            overlays: &["b.toml"],
            role: RoleChoice::Auto,
            static_only,
        };
        let loaded = load(true).run().unwrap_or_else(|report| panic!("{report}"));
        let said: Vec<_> = loaded.report.problems().iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), warned.len(), "{said:?}");
        for (said, warned) in said.iter().zip(&warned) {
            assert!(said.starts_with(warned), "{said}\n{warned}");
        }
        let errors = of(Severity::Error, load(false).run());
        assert!(errors.len() == 1 && errors[0].starts_with("b.toml: error: "), "{errors:?}");
    }
    // What no overlay can mend is an error all the same.
    let files = Memory::default().with("a.toml", server("foo = 1", ""));
    let load = Load { files, overlays: &["b.toml"], role: RoleChoice::Auto, static_only: true };
    assert_eq!(of(Severity::Error, load.run()).len(), 1);
    // An overlay that is there must be right.
    let files = Memory::default().with("a.toml", server("", "")).with("b.toml", "x = ");
    let load = Load { files, overlays: &["b.toml"], role: RoleChoice::Auto, static_only: true };
    assert_eq!(of(Severity::Error, load.run()).len(), 1);
}

#[test]
fn a_static_check_opens_no_file_that_is_named() {
    let mut load = text(
        &server("default_token_file = \"absent\"", "").replace("default_token = \"0123456789abcdef\"\n", ""),
    );
    load.static_only = true;
    let loaded = load.run().unwrap_or_else(|report| panic!("{report}"));
    assert!(loaded.report.problems().is_empty(), "{}", loaded.report);
}

/// Halves whose transports name files that are absent, and the number of those.
#[cfg(all(feature = "tls", feature = "noise", feature = "websocket"))]
fn with_files() -> Vec<(String, usize)> {
    let tls = |lines: &str| format!("type = \"tls\"\n[server.transport.tls]\n{lines}");
    let wss = "type = \"websocket\"\nwebsocket = { tls = true }\n";
    let server_of = |lines: &str| server("", &format!("[server.transport]\n{lines}"));
    let client_of = |lines: &str| client("", &format!("[client.transport]\n{lines}"));
    vec![
        (server_of(&tls("cert = \"c\"\nkey = \"k\"\n")), 2),
        (server_of(&tls("pkcs12 = \"p\"\npkcs12_password_file = \"w\"\n")), 2),
        (server_of(&tls("pkcs12 = \"p\"\npkcs12_password = \"w\"\n")), 1),
        (server_of(&format!("{wss}tls = {{ cert = \"c\", key = \"k\" }}\n")), 2),
        (client_of("type = \"tls\"\ntls = { trusted_root = \"r\" }\n"), 1),
        (client_of(&format!("{wss}tls = {{ trusted_root = \"r\" }}\n")), 1),
        (server_of("type = \"noise\"\nnoise = { local_private_key_file = \"n\" }\n"), 1),
    ]
}

#[cfg(all(feature = "tls", feature = "noise", feature = "websocket"))]
#[test]
fn files_of_transports_are_opened_only_in_a_full_check() {
    for (toml, absent) in with_files() {
        let mut load = text(&toml);
        let errors = of(Severity::Error, load.run());
        assert!(errors.len() == absent, "{errors:?}\n{toml}");
        assert!(errors.iter().all(|error| error.contains(": there is no such file")), "{errors:?}");
        load.static_only = true;
        let loaded = load.run().unwrap_or_else(|report| panic!("{report}\n{toml}"));
        assert!(loaded.report.problems().is_empty(), "{}", loaded.report);
    }
}

#[cfg(all(feature = "tls", feature = "noise", feature = "websocket"))]
#[test]
fn files_of_transports_are_what_is_in_them() {
    use rathole::config::{Noise, TlsClient, TlsServer};
    let pem = || TlsServer::Pem { cert: b"cert".to_vec(), key: Secret::new("key\n") };
    let roots = || TlsClient { hostname: None, trusted_root: Some(b"roots".to_vec()) };
    let pkcs12 =
        |password: &str| TlsServer::Pkcs12 { archive: Secret::new("p12"), password: Secret::new(password) };
    let noise = Noise {
        pattern: "Noise_NK_25519_ChaChaPoly_BLAKE2s".to_owned(),
        local_private_key: Some(Secret::new((0..32).collect::<Vec<u8>>())),
        remote_public_key: None,
    };
    let expected = [
        Ok(ServerTransport::Tls(pem())),
        Ok(ServerTransport::Tls(pkcs12("pass"))),
        Ok(ServerTransport::Tls(pkcs12("w"))),
        Ok(ServerTransport::WebSocket { tls: Some(pem()) }),
        Err(ClientTransport::Tls(roots())),
        Err(ClientTransport::WebSocket { tls: Some(roots()) }),
        Ok(ServerTransport::Noise(noise)),
    ];
    let cases = with_files();
    assert_eq!(cases.len(), expected.len());
    for ((toml, _), expected) in cases.into_iter().zip(expected) {
        let mut load = text(&toml);
        let key = format!("{}\n", config_support::KEY);
        for (name, content) in [
            ("c", "cert"),
            ("k", "key\n"),
            ("p", "p12"),
            ("w", "pass\n"),
            ("r", "roots"),
            ("n", key.as_str()),
        ] {
            load.files = load.files.with(name, content);
        }
        let config = load.run().unwrap_or_else(|report| panic!("{report}\n{toml}")).config;
        let found = match (config.server, config.client) {
            (Some(server), _) => Ok(server.transport),
            (_, Some(client)) => Err(client.transport),
            _ => panic!("no half"),
        };
        assert_eq!(found, expected, "{toml}");
    }
}

#[cfg(feature = "proxy")]
#[test]
fn a_clients_proxy_is_read() {
    let tables = "[client.transport]\ntype = \"tcp\"\ntcp = { proxy = \"socks5://u:p%40@[::1]:9\" }\n";
    let proxy = good(&client("", tables)).client.unwrap().proxy.unwrap();
    assert_eq!(proxy.endpoint.to_string(), "[::1]:9");
    assert_eq!(proxy.credentials, Some(("u".to_owned(), Secret::new("p@"))));
}

#[test]
fn a_later_problem_finds_its_place() {
    let toml = server(
        "",
        "[server.services.\"a.b\"]\nbind_addr = \"127.0.0.1:9\"\n[server.transport]\ntype = \"tcp\"\n",
    );
    let loaded = text(&toml).run().unwrap();
    for (key, line, column) in [
        ("server.bind_addr", 2, 13),
        ("server.services.ssh.bind_addr", 6, 13),
        ("server.services.a.b.bind_addr", 8, 13),
        ("server.services.\"a.b\".bind_addr", 8, 13),
        ("server.services.ssh.token", 5, 18),
        ("server.services.ssh", 5, 18),
        ("server.transport.tls.pkcs12", 9, 9),
        ("server.transport.type", 10, 8),
        ("client.remote_addr", 1, 1),
        ("", 1, 1),
    ] {
        let problem = loaded.problem(Severity::Error, key, "in use".to_owned());
        assert_eq!((problem.line, problem.column), (line, column), "{key}");
        assert_eq!((problem.key.as_str(), problem.message.as_str()), (key, "in use"));
    }
}

#[test]
fn ten_thousand_services_load_at_once() {
    let mut toml = server("", "");
    for n in 0..10_000 {
        toml.push_str(&format!(
            "[server.services.s{n}]\nbind_addr = \"127.0.{}.{}:80\"\n",
            n / 250,
            n % 250 + 1
        ));
    }
    let start = Instant::now();
    assert_eq!(good(&toml).server.unwrap().services.len(), 10_001);
    // Quadratic work would take minutes, also without optimisation.
    assert!(start.elapsed() < 10 * SECOND, "{:?}", start.elapsed());
}

/// The scenarios of upstream's own unit tests (protocol-v1.md, section 7).
#[test]
fn upstreams_scenarios() {
    let both = server("", &client("", ""));
    let runs = |toml: &str, role| {
        let mut load = text(toml);
        load.role = role;
        load.run().ok().map(|loaded| (loaded.config.server.is_some(), loaded.config.client.is_some()))
    };
    for (toml, role, expected) in [
        (String::new(), RoleChoice::Auto, None),
        (server("", ""), RoleChoice::Auto, Some((true, false))),
        (client("", ""), RoleChoice::Auto, Some((false, true))),
        // Ours runs both where upstream cannot decide.
        (both.clone(), RoleChoice::Auto, Some((true, true))),
        (both.clone(), RoleChoice::Server, Some((true, false))),
        (both, RoleChoice::Client, Some((false, true))),
    ] {
        assert_eq!(runs(&toml, role), expected, "{role:?} {toml}");
    }
    let no_token = server("", "").replace("default_token = \"0123456789abcdef\"\n", "");
    assert!(text(&no_token).run().is_err());
    let populated = "[server]\nbind_addr = \"127.0.0.1:1\"\ndefault_token = \"d\"\nheartbeat_interval = 30\n\
        [server.transport]\ntype = \"tcp\"\n[server.transport.tcp]\nnodelay = true\nkeepalive_secs = 20\nkeepalive_interval = 8\n\
        [server.transport.tls]\npkcs12 = \"identity.pfx\"\npkcs12_password = \"password\"\n\
        [server.transport.noise]\nlocal_private_key = \"k\"\n[server.transport.websocket]\ntls = true\n\
        [server.services.a]\ntype = \"tcp\"\ntoken = \"t\"\nbind_addr = \"127.0.0.1:2\"\nnodelay = true\n\
        [client]\nremote_addr = \"127.0.0.1:1\"\ndefault_token = \"d\"\nheartbeat_timeout = 40\nretry_interval = 1\n\
        [client.transport]\ntype = \"tcp\"\n[client.transport.tls]\ntrusted_root = \"ca.pem\"\nhostname = \"localhost\"\n\
        [client.transport.noise]\npattern = \"Noise_NK_25519_ChaChaPoly_BLAKE2s\"\nremote_public_key = \"k\"\n\
        [client.services.a]\ntype = \"tcp\"\ntoken = \"t\"\nlocal_addr = \"127.0.0.1:3\"\nnodelay = false\nretry_interval = 1\n";
    good(populated);
}
