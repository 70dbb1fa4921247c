//! Bad configurations: what is said, of which file, line, column and key.

#![cfg(all(feature = "server", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod config_support;

#[cfg(feature = "noise")]
use config_support::KEY;
use config_support::{Load, Memory, client, of, problems, server, text};
use rathole::config::{RoleChoice, Severity};

/// The one error of a text, but for what this build has not got.
fn error(toml: &str) -> String {
    let mut errors = of(Severity::Error, text(toml).run());
    if errors.len() > 1 {
        errors.retain(|error| !error.contains("built without"));
    }
    assert_eq!(errors.len(), 1, "{errors:#?}\n{toml}");
    errors[0].clone()
}

#[test]
fn each_error_names_its_place_and_key() {
    let base = server("", "");
    let with = |tail: &str| server("", tail);
    let service = |tail: &str| format!("[server]\nbind_addr = \"127.0.0.1:1\"\n[server.services.a]\n{tail}");
    let ws = "[server.transport]\ntype = \"websocket\"\n";
    for (toml, expected) in [
        // Syntax.
        ("[server\n".to_owned(), "a.toml:1:8: error: "),
        ("a = = 1\n".to_owned(), "a.toml:1:5: error: "),
        (format!("{base}[server]\n"), "a.toml:7:2: error: duplicate key"),
        ("# é\n[server]\n\"é\" = tru\n".to_owned(), "a.toml:3:7: error: "),
        ("\u{feff}[server] x".to_owned(), "a.toml:1:10: error: "),
        ("a\0b".to_owned(), "a.toml:1:2: error: this is no text file"),
        // Roles.
        (String::new(), "a.toml:1:1: error: there is neither a table [server] nor a table [client]"),
        ("server = 3".to_owned(), "a.toml:1:10: error: server: expected a table, found a number"),
        ("[[server]]".to_owned(), "a.toml:1:1: error: server: expected a table, found an array"),
        // Missing.
        (
            "[server]\nservices = {}\n".to_owned(),
            "a.toml:1:2: error: server.bind_addr: this key is missing (bind_addr = \"host:port\")",
        ),
        (
            "[server]\nbind_addr = \"127.0.0.1:1\"\n".to_owned(),
            "a.toml:1:2: error: server.services: this key is missing ([server.services.NAME] for each service)",
        ),
        (
            service("token = \"0123456789abcdef\"\n"),
            "a.toml:3:18: error: server.services.a.bind_addr: this key is missing",
        ),
        (
            service("bind_addr = \"127.0.0.1:2\"\n"),
            "a.toml:3:18: error: server.services.a.token: this service has no token",
        ),
        (
            with("[server.transport.tcp]\nnodelay = true\n"),
            "a.toml:7:9: error: server.transport.type: this key is missing",
        ),
        (
            with(&format!("{ws}[server.transport.websocket]\n")),
            "a.toml:9:19: error: server.transport.websocket.tls: this key is missing",
        ),
        // Types.
        (
            server("heartbeat_interval = \"30\"", ""),
            "a.toml:4:22: error: server.heartbeat_interval: expected a whole number of seconds, found a string",
        ),
        (
            server("heartbeat_interval = -1", ""),
            "a.toml:4:22: error: server.heartbeat_interval: expected a whole number of seconds, found a negative number",
        ),
        (
            server("heartbeat_interval = 1.5", ""),
            "a.toml:4:22: error: server.heartbeat_interval: expected a whole number of seconds, found a number with a fraction",
        ),
        (
            server("heartbeat_interval = 9223372036854775808", ""),
            "a.toml:4:22: error: server.heartbeat_interval: expected a whole number of seconds, found a number above 9223372036854775807",
        ),
        (
            server("transport = 1", ""),
            "a.toml:4:13: error: server.transport: expected a table, found a number",
        ),
        (
            with("nodelay = 1\n"),
            "a.toml:7:11: error: server.services.ssh.nodelay: expected true or false, found a number",
        ),
        (
            with("type = \"TCP\"\n"),
            "a.toml:7:8: error: server.services.ssh.type: expected \"tcp\" or \"udp\", found another string",
        ),
        (
            with("type = \"tpc\"\n"),
            "a.toml:7:8: error: server.services.ssh.type: expected \"tcp\" or \"udp\", found another string (did you mean \"tcp\"?)",
        ),
        (
            with("[server.services]\nx = 1\n"),
            "a.toml:8:5: error: server.services.x: expected a table, found a number",
        ),
        (
            with("[server.services.\"a b\"]\nx = 1\nbind_addr = \"127.0.0.1:3\"\n"),
            "a.toml:8:1: error: server.services.\"a b\".x: unknown key",
        ),
        // Addresses.
        (
            client("", "[client.services.x]\nlocal_addr = \"localhost\"\n"),
            "a.toml:8:14: error: client.services.x.local_addr: the port is missing: write host:port",
        ),
        (
            with("[server.services.x]\nbind_addr = \"fe80::1\"\n"),
            "a.toml:8:13: error: server.services.x.bind_addr: an IPv6 address must be in brackets",
        ),
        (
            with("[server.services.x]\nbind_addr = \"127.0.0.1:5202\"\n"),
            "a.toml:8:13: error: server.services.x.bind_addr: this address is already taken by server.services.ssh.bind_addr",
        ),
        (
            with("[server.services.x]\nbind_addr = \"0.0.0.0:2333\"\n"),
            "a.toml:8:13: error: server.services.x.bind_addr: this address is already taken by server.bind_addr",
        ),
        (
            with("[server.services.x]\nbind_addr = \"[::]:5202\"\n"),
            "a.toml:8:13: error: server.services.x.bind_addr: this address is already taken by server.services.ssh.bind_addr",
        ),
        // Secrets twice.
        (
            server("default_token_file = \"x\"", ""),
            "a.toml:4:22: error: server.default_token_file: both default_token and default_token_file are given (keep one of them)",
        ),
        // New keys.
        (
            with("type = \"udp\"\nproxy_protocol = \"v1\"\n"),
            "a.toml:8:18: error: server.services.ssh.proxy_protocol: only a service of type = \"tcp\" can have this",
        ),
        (
            with("proxy_protocol = \"v3\"\n"),
            "a.toml:7:18: error: server.services.ssh.proxy_protocol: expected \"v1\" or \"v2\", found another string",
        ),
        (
            with("allow = \"10.0.0.0/8\"\n"),
            "a.toml:7:9: error: server.services.ssh.allow: expected an array of strings, prefixes of IP addresses, found a string",
        ),
        (
            with("deny = [\n  \"10.0.0.0/8\",\n  7,\n]\n"),
            "a.toml:9:3: error: server.services.ssh.deny: expected a string in this array, found a number (\"192.0.2.0/24\")",
        ),
        (
            with("deny = [[\"10.0.0.0/8\"]]\n"),
            "a.toml:7:9: error: server.services.ssh.deny: expected a string in this array, found an array",
        ),
        (
            with("allow = [\"10.0.0.0/8\", \"10.0.0.0/33\"]\n"),
            "a.toml:7:24: error: server.services.ssh.allow: entry 2, \"10.0.0.0/33\": after the slash of an IPv4 prefix stands a number from 0 to 32",
        ),
        (
            with("deny = [\"example.com\"]\n"),
            "a.toml:7:9: error: server.services.ssh.deny: entry 1, \"example.com\": this is no IP address: write 192.0.2.0/24",
        ),
        (
            client("", "allow = []\n"),
            "a.toml:7:1: error: client.services.ssh.allow: unknown key (allow belongs in [server.services.NAME])",
        ),
        // Proxy.
        (
            with("[server.transport]\ntype=\"tcp\"\n[server.transport.tcp]\nproxy = \"ftp://x\"\n"),
            "a.toml:10:9: error: server.transport.tcp.proxy: the scheme is not supported",
        ),
        (
            client("", "[client.transport]\ntype=\"tcp\"\n[client.transport.tcp]\nproxy = \"http://x:y\"\n"),
            "a.toml:10:9: error: client.transport.tcp.proxy: the port is not a number",
        ),
        // TLS, refused by upstream too.
        (
            with("[server.transport]\ntype = \"tls\"\n"),
            "a.toml:8:8: error: server.transport.tls: type = \"tls\" needs this table",
        ),
        (
            client("", "[client.transport]\ntype = \"tls\"\n"),
            "a.toml:8:8: error: client.transport.tls: type = \"tls\" needs this table",
        ),
        (
            with("[server.transport]\ntype = \"tls\"\n[server.transport.tls]\n"),
            "a.toml:9:19: error: server.transport.tls.cert: a server needs a certificate and a key",
        ),
        (
            with("[server.transport]\ntype = \"tls\"\n[server.transport.tls]\npkcs12_password = \"x\"\n"),
            "a.toml:9:19: error: server.transport.tls.cert: ",
        ),
        (
            with("[server.transport]\ntype = \"tls\"\n[server.transport.tls]\npkcs12 = \"x\"\n"),
            "a.toml:9:19: error: server.transport.tls.pkcs12_password: ",
        ),
        (
            with("[server.transport]\ntype = \"tls\"\n[server.transport.tls]\ncert = \"x\"\n"),
            "a.toml:9:19: error: server.transport.tls.key: ",
        ),
        (
            with("[server.transport]\ntype = \"tls\"\n[server.transport.tls]\nkey = \"x\"\n"),
            "a.toml:9:19: error: server.transport.tls.cert: ",
        ),
        (
            with(
                "[server.transport]\ntype = \"tls\"\n[server.transport.tls]\npkcs12 = \"x\"\npkcs12_password = \"\"\ncert = \"x\"\n",
            ),
            "a.toml:12:8: error: server.transport.tls.pkcs12: both pkcs12 and cert or key are given",
        ),
    ] {
        let error = error(&toml);
        assert!(error.starts_with(expected), "\n got: {error}\nwant: {expected}\n{toml}");
    }
}

#[test]
fn a_transport_that_is_not_built_in_is_named() {
    let mut seen = 0;
    for (feature, present, more) in [
        ("tls", cfg!(feature = "tls"), "[server.transport.tls]\ncert = \"c\"\nkey = \"k\"\n"),
        ("noise", cfg!(feature = "noise"), ""),
        ("websocket", cfg!(feature = "websocket"), "[server.transport.websocket]\ntls = false\n"),
    ] {
        if !present {
            let error = error(&server("", &format!("[server.transport]\ntype = \"{feature}\"\n{more}")));
            let expected = format!(
                "a.toml:8:8: error: server.transport.type: this rathole was built without the feature `{feature}`"
            );
            assert!(error.starts_with(&expected), "{error}");
        }
        seen += 1;
    }
    assert_eq!(seen, 3);
    if !cfg!(feature = "proxy") {
        let toml = client(
            "",
            "[client.transport]\ntype = \"tcp\"\n[client.transport.tcp]\nproxy = \"http://p:1\"\n",
        );
        assert!(error(&toml).contains("without the feature `proxy`"));
    }
}

#[cfg(feature = "noise")]
#[test]
fn noise_keys_must_fit_the_pattern() {
    let both = |half: &str, lines: &str| {
        let tables = format!("[{half}.transport]\ntype = \"noise\"\n[{half}.transport.noise]\n{lines}");
        if half == "server" { server("", &tables) } else { client("", &tables) }
    };
    let pattern = |letters: &str| format!("pattern = \"Noise_{letters}_25519_ChaChaPoly_BLAKE2s\"\n");
    let local = format!("local_private_key = \"{KEY}\"\n");
    let remote = format!("remote_public_key = \"{KEY}\"\n");
    let missing_table = |half: &str| both(half, "").replace(&format!("[{half}.transport.noise]\n"), "");
    for (toml, expected) in [
        (
            missing_table("server"),
            "a.toml:8:8: error: server.transport.noise: type = \"noise\" needs this table",
        ),
        (
            missing_table("client"),
            "a.toml:8:8: error: client.transport.noise: type = \"noise\" needs this table",
        ),
        (
            both("server", ""),
            "a.toml:9:19: error: server.transport.noise.local_private_key: the pattern needs this key",
        ),
        (
            both("client", ""),
            "a.toml:9:19: error: client.transport.noise.remote_public_key: the pattern needs this key",
        ),
        (
            both("server", &[&pattern("KK"), &*local].concat()),
            "a.toml:9:19: error: server.transport.noise.remote_public_key: the pattern needs",
        ),
        (
            both("client", &[&pattern("KK"), &*remote].concat()),
            "a.toml:9:19: error: client.transport.noise.local_private_key: the pattern needs",
        ),
        (
            both("client", &[&pattern("XK"), &*local].concat()),
            "a.toml:9:19: error: client.transport.noise.remote_public_key: the pattern needs",
        ),
        (
            both("client", &pattern("NKpsk0")),
            "a.toml:10:11: error: client.transport.noise.pattern: patterns with a pre-shared key",
        ),
        (
            both("client", &pattern("N")),
            "a.toml:10:11: error: client.transport.noise.pattern: the patterns are NN NK",
        ),
        (
            both("client", "remote_public_key = \"AAAA\"\n"),
            "a.toml:10:21: error: client.transport.noise.remote_public_key: a key has 32 bytes, this has 3",
        ),
        (
            both("client", "remote_public_key = \"no\"\n"),
            "a.toml:10:21: error: client.transport.noise.remote_public_key: this is not base64",
        ),
        (
            both("server", "local_private_key = \"AAAA\"\n"),
            "a.toml:10:21: error: server.transport.noise.local_private_key: a key has 32 bytes",
        ),
        (
            both("server", "local_private_key_file = \"absent\"\n"),
            "a.toml:10:26: error: server.transport.noise.local_private_key_file: cannot read absent: there is no such file",
        ),
    ] {
        let error = error(&toml);
        assert!(error.starts_with(expected), "\n got: {error}\nwant: {expected}\n{toml}");
    }
    for (half, lines) in [
        ("server", pattern("NN")),
        ("client", pattern("NN")),
        ("server", local.clone()),
        ("client", remote.clone()),
        ("server", pattern("XX")),
        ("client", [&pattern("XX"), &*remote].concat()),
        ("server", [&pattern("XX"), &*local, &*remote].concat()),
        ("client", [&pattern("IK"), &*remote].concat()),
        ("client", [&pattern("KK1"), &*local, &*remote].concat()),
    ] {
        let errors = of(Severity::Error, text(&both(half, &lines)).run());
        assert!(errors.is_empty(), "{half} {lines}: {errors:?}");
    }
}

#[cfg(feature = "websocket")]
#[test]
fn a_websocket_needs_its_tables() {
    let ws = |half: &str, more: &str| {
        let tables = format!("[{half}.transport]\ntype = \"websocket\"\n{more}");
        if half == "server" { server("", &tables) } else { client("", &tables) }
    };
    assert!(error(&ws("server", "")).starts_with("a.toml:8:8: error: server.transport.websocket: "));
    assert!(error(&ws("client", "")).starts_with("a.toml:8:8: error: client.transport.websocket: "));
    for half in ["server", "client"] {
        let error = error(&ws(half, &format!("[{half}.transport.websocket]\ntls = true\n")));
        let (needs, without) =
            ("tls: a websocket with tls = true needs this table", "built without the feature `tls`");
        assert!(error.contains(if cfg!(feature = "tls") { needs } else { without }), "{error}");
    }
}

#[test]
fn an_unknown_key_is_told_what_was_meant() {
    let in_client = |line: &str| client(line, "");
    let in_service = |line: &str| client("", line);
    for (toml, key, help) in [
        (
            in_client("heartbeat_interval = 30"),
            "client.heartbeat_interval",
            "heartbeat_interval belongs in [server]",
        ),
        (
            server("heartbeat_timeout = 30", ""),
            "server.heartbeat_timeout",
            "heartbeat_timeout belongs in [client]",
        ),
        (
            in_client("transport = { type = \"tcp\", keepalive_secs = 3 }"),
            "client.transport.keepalive_secs",
            "keepalive_secs belongs in [client.transport.tcp]",
        ),
        (
            server("transport = { type = \"tcp\", keepalive_secs = 3 }", ""),
            "server.transport.keepalive_secs",
            "keepalive_secs belongs in [server.transport.tcp]",
        ),
        (
            in_client("nodelay = true"),
            "client.nodelay",
            "nodelay belongs in [client.transport.tcp] or [client.services.NAME]",
        ),
        (
            in_service("remote_port = 22"),
            "client.services.ssh.remote_port",
            "the public port is set on the server: bind_addr in [server.services.NAME]",
        ),
        (in_service("local_port = 22"), "client.services.ssh.local_port", "local_addr"),
        (in_service("localIP = \"x\""), "client.services.ssh.localIP", "local_addr"),
        (in_service("name = \"x\""), "client.services.ssh.name", "key of its table"),
        (
            in_service("remote_addr = \"x\""),
            "client.services.ssh.remote_addr",
            "remote_addr belongs in [client]",
        ),
        (in_service("bind_addr = \"x\""), "client.services.ssh.bind_addr", "[server.services.NAME]"),
        (in_service("cert = \"x\""), "client.services.ssh.cert", "[server.transport.tls]"),
        (in_service("tokne = \"x\""), "client.services.ssh.tokne", "did you mean token?"),
        (in_service("localAddr = \"x\""), "client.services.ssh.localAddr", "did you mean local_addr?"),
        (in_client("server_addr = \"x\""), "client.server_addr", "remote_addr"),
        (
            in_client("heartbeat_intervall = 1"),
            "client.heartbeat_intervall",
            "did you mean heartbeat_interval? It belongs in [server]",
        ),
        (in_client("zzzzzzzz = 1"), "client.zzzzzzzz", "known here: remote_addr, default_token"),
        (format!("bind_addr = \"x\"\n{}", server("", "")), "bind_addr", "[server]"),
        (format!("{}[common]\n", server("", "")), "common", "[server] and [client]"),
        (format!("{}[Server]\n", client("", "")), "Server", "did you mean server?"),
    ] {
        let found = problems(text(&toml).run());
        let errors: Vec<_> = found.iter().filter(|problem| problem.severity == Severity::Error).collect();
        assert_eq!(errors.len(), 1, "{errors:#?}");
        assert_eq!((errors[0].key.as_str(), errors[0].message.as_str()), (key, "unknown key"));
        assert!(errors[0].help.contains(help), "{key}: {}", errors[0].help);
    }
}

#[test]
fn all_errors_of_all_files_come_in_one_run() {
    let files = Memory::default()
        .with("a.toml", "[server]\nbind_addr = \"x\"\nfoo = 1\n[server.services.a]\nbind_addr = 3\n")
        .with("b.toml", "[server]\nheartbeat_interval = false\n")
        .with("c.toml", "[client]\nremote_addr = 1\n");
    let load = Load { files, overlays: &["b.toml", "c.toml"], role: RoleChoice::Auto, static_only: false };
    let errors = of(Severity::Error, load.run());
    let places: Vec<_> = errors.iter().map(|error| error.split(": ").next().unwrap()).collect();
    let expected = [
        "a.toml:2:13",
        "a.toml:3:1",
        "a.toml:4:18",
        "a.toml:5:13",
        "b.toml:2:22",
        "c.toml:1:2",
        "c.toml:2:15",
    ];
    assert_eq!(places, expected, "{errors:#?}");
}

#[test]
fn syntax_errors_of_all_files_come_in_one_run() {
    let files = Memory::default().with("a.toml", "x = = 1\n[server\n").with("b.toml", "= 1\n");
    let load = Load { files, overlays: &["b.toml"], role: RoleChoice::Auto, static_only: false };
    let errors = of(Severity::Error, load.run());
    for place in ["a.toml:1:", "a.toml:2:", "b.toml:1:"] {
        assert!(errors.iter().any(|error| error.starts_with(place)), "{place} {errors:#?}");
    }
}

#[test]
fn a_file_that_is_no_configuration_is_one_clear_line() {
    for (bytes, expected) in [
        (&b"\x7fELF\xff\xfe\0\0"[..], "a.toml: error: this is no text file: byte 5 is not UTF-8"),
        (&b"\0\0\0\0"[..], "a.toml:1:1: error: this is no text file"),
    ] {
        let files = Memory::default().with("a.toml", bytes);
        let load = Load { files, overlays: &[], role: RoleChoice::Auto, static_only: false };
        assert_eq!(of(Severity::Error, load.run()), [expected]);
    }
    let absent = Load { files: Memory::default(), overlays: &[], role: RoleChoice::Auto, static_only: true };
    assert_eq!(
        of(Severity::Error, absent.run()),
        ["a.toml: error: cannot read this file: there is no such file"]
    );
}

#[test]
fn the_half_that_is_not_run_is_held_to_what_upstream_refuses_and_no_more() {
    let refused_by_all = [
        "[client]\nremote_addr = 1\nservices = {}\n",
        "[client]\nremote_addr = \"x\"\n",
        "[client]\nremote_addr = \"x\"\n[client.services.a]\nlocal_addr = \"x\"\n",
        "[client]\nremote_addr = \"x\"\nservices = {}\ntransport = { type = \"tls\" }\n",
        "[client]\nremote_addr = \"x\"\nservices = {}\ntransport = { type = \"tcp\", tcp = { proxy = \"x\" } }\n",
        "[client]\nremote_addr = \"x\"\nservices = {}\nfoo = 1\n",
    ];
    let checked_when_run = [
        "[client]\nremote_addr = \"no port\"\nservices = {}\n",
        "[client]\nremote_addr = \"x\"\nservices = {}\ntransport = { type = \"noise\" }\n",
        "[client]\nremote_addr = \"x\"\nservices = {}\ntransport = { type = \"websocket\" }\n",
        "[client]\nremote_addr = \"x\"\ndefault_token_file = \"absent\"\n[client.services.a]\nlocal_addr = \"x\"\n",
        "[client]\nremote_addr = \"x\"\nservices = {}\ntransport = { type = \"tls\", tls = { trusted_root = \"absent\" } }\n",
    ];
    let run = |half: &str, role| {
        let mut load = text(&format!("{half}{}", server("", "")));
        load.role = role;
        load.run()
    };
    for half in refused_by_all {
        assert!(run(half, RoleChoice::Server).is_err(), "{half}");
    }
    for half in checked_when_run {
        let loaded = run(half, RoleChoice::Server).unwrap_or_else(|report| panic!("{report}\n{half}"));
        assert!(loaded.config.server.is_some() && loaded.config.client.is_none());
        assert!(run(half, RoleChoice::Client).is_err(), "{half}");
        assert!(run(half, RoleChoice::Auto).is_err(), "{half}");
    }
    let server_half =
        "[server]\nbind_addr = \"x\"\nservices = {}\ntransport = { type = \"tls\", tls = {} }\n";
    let mut load = text(&format!("{server_half}{}", client("", "")));
    load.role = RoleChoice::Client;
    assert!(load.run().is_err(), "a server's TLS without identity is refused by upstream's client too");
}

#[test]
fn the_role_must_be_there() {
    for (toml, role, key) in
        [(client("", ""), RoleChoice::Server, "server"), (server("", ""), RoleChoice::Client, "client")]
    {
        let mut load = text(&toml);
        load.role = role;
        let expected =
            format!("a.toml:1:1: error: {key}: there is no table [{key}], but the {key} is to be run");
        let errors = of(Severity::Error, load.run());
        assert!(errors.len() == 1 && errors[0].starts_with(&expected), "{errors:?}");
    }
}

/// Every kind of error and warning, with a marker wherever a secret can be.
#[test]
fn no_secret_is_ever_shown() {
    let marker = "hunter2hunter2";
    let mut tried = 0;
    let texts = [
        format!("default_token = {marker}\n"),
        format!("default_token = \"{marker}\n"),
        format!("default_token = '{marker}\n"),
        format!("default_token = \"\"\"{marker}\n"),
        format!("default_token \"{marker}\"\n"),
        format!("default_token = \"{marker}\" \"{marker}\"\n"),
        format!("default_token = \"\\q{marker}\"\n"),
        format!("default_token = \"\\u{{{marker}\"\n"),
        format!("default_token = \"{marker}\"\ndefault_token = \"{marker}\"\n"),
        format!("default_token = [\"{marker}\"]\n"),
        format!("default_token = {{ x = \"{marker}\" }}\n"),
        format!("default_token = 2020-13-13T{marker}\n"),
        format!("default_token = 0x{marker}\n"),
        format!("default_token.x = \"{marker}\"\n"),
        format!("default_token = \"{marker}\"\ndefault_token_file = \"x\"\n"),
        format!("default_token = \"{marker}\"\ntransport = {{ type = \"{marker}\" }}\n"),
        format!(
            "bind_addr = \"{marker}\"\nservices = {{ a = {{ bind_addr = \"{marker}\", token = \"{marker}\" }} }}\n"
        ),
        format!("default_tokne = \"{marker}\"\n"),
        format!(
            "transport = {{ type = \"tls\", tls = {{ pkcs12 = \"x\", pkcs12_password = \"{marker}\" }} }}\n"
        ),
        format!("transport = {{ type = \"tcp\", tcp = {{ proxy = \"http://{marker}\" }} }}\n"),
        format!("transport = {{ type = \"tcp\", tcp = {{ proxy = \"http://u:{marker}@h:x\" }} }}\n"),
        format!("transport = {{ type = \"tcp\", tcp = {{ proxy = \"ftp://u:{marker}@h:1\" }} }}\n"),
        format!("transport = {{ type = \"tcp\", tcp = {{ proxy = \"{marker}\" }} }}\n"),
        format!("transport = {{ type = \"noise\", noise = {{ pattern = \"{marker}\" }} }}\n"),
        format!("transport = {{ type = \"noise\", noise = {{ local_private_key = \"{marker}\" }} }}\n"),
        format!("transport = {{ type = \"noise\", noise = {{ remote_public_key = \"{marker}\" }} }}\n"),
    ];
    for lines in &texts {
        for half in ["server", "client"] {
            for mode in [0o600, 0o644] {
                let mut load = text(&format!("[{half}]\n{lines}"));
                load.files = load.files.mode("a.toml", mode);
                let found = problems(load.run());
                assert!(!found.is_empty(), "{lines}");
                for problem in found {
                    assert!(!format!("{problem} {problem:?}").contains(marker), "{problem}\n{lines}");
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > texts.len() * 4, "{tried}");
    let loaded = text(&server(&format!("# {marker}"), &format!("token = \"{marker}\"\n"))).run().unwrap();
    assert!(!format!("{loaded:?}").contains(marker));
}
