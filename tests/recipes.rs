//! docs/recipes.md: its files load, its key recipe and its move from frp run, and every link of the documentation
//! leads somewhere. Its nginx recipes are run by `nginx.rs`.

#![cfg(all(
    feature = "server",
    feature = "client",
    feature = "tls",
    feature = "noise",
    feature = "websocket",
    feature = "proxy",
    feature = "cli"
))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::net;
use common::process::run;
use common::recipe::{
    KEYS, OWN_CA, Pair, blocks, files, make_certificate, page, put, section, sections, shell,
};
use common::service::Local;
use common::visitor::{self, UdpVisitor};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_file_loads() {
    let mut seen = 0;
    for (heading, text) in sections() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(&text);
        for (name, block) in &files {
            std::fs::write(dir.path().join(name), block).unwrap();
        }
        let overlay = files.iter().any(|(name, _)| name == "secrets.toml");
        for (name, _) in files.iter().filter(|(name, _)| name != "secrets.toml") {
            let overlay = if overlay { "--overlay secrets.toml " } else { "" };
            let said = run(&mut shell(&format!("rathole check --static {overlay}{name} 2>&1"), dir.path()));
            assert!(said.contains(&format!("{name}: ok")), "{heading}: {said}");
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen}");
}

#[test]
fn keys_step_by_step() {
    if !common::has("openssl", "keys_step_by_step") {
        return;
    }
    let mut pair = Pair::new(KEYS);
    pair.make_keys();
    let (local, clients, visitors) = (Local::echo(), net::address(), net::address());
    pair.put("[::]:2333", clients);
    pair.put("[::]:5202", visitors);
    pair.put("example.com:2333", clients);
    pair.put("127.0.0.1:22", local.addr);
    let _server = pair.start("server", &[]);
    net::wait_listening(clients);

    // The key in the page is not the one just made.
    let mut stranger = pair.start("client", &[]);
    stranger.wait_for("Noise handshake");
    stranger.kill();

    pair.use_keys();
    let _client = pair.start("client", &[]);
    visitor::wait_served(visitors);
    visitor::echo(visitors, &visitor::random(1, 100_000), true);
}

#[test]
fn moving_from_frp() {
    if !common::has("openssl", "moving_from_frp") {
        return;
    }
    let mut pair = Pair::new("Moving from frp");
    pair.make_keys();
    let (ssh, dns, web) = (Local::echo(), Local::udp_echo(), Local::echo());
    let [clients, ssh_port, dns_port, web_port] = std::array::from_fn(|_| net::address());
    pair.put("0.0.0.0:7000", clients);
    pair.put("example.com:7000", clients);
    pair.put("0.0.0.0:6000", ssh_port);
    pair.put("0.0.0.0:6053", dns_port);
    pair.put("0.0.0.0:6080", web_port);
    pair.put("127.0.0.1:22", ssh.addr);
    pair.put("127.0.0.1:53", dns.addr);
    pair.put("127.0.0.1:8080", web.addr);
    pair.use_keys();
    let _server = pair.start("server", &[]);
    net::wait_listening(clients);
    let _client = pair.start("client", &[]);
    visitor::wait_served(ssh_port);
    visitor::echo(ssh_port, b"ssh", true);
    let mut asking = UdpVisitor::new(dns_port);
    asking.wait_served();
    asking.echo(b"dns");
    // The echo of a service with `proxy_protocol` begins with the header.
    net::wait("no PROXY header came", || {
        let mut visitor = visitor::connect(web_port);
        visitor.shutdown(std::net::Shutdown::Write).unwrap();
        visitor::read_until_closed(&mut visitor).0.starts_with(b"\r\n\r\n\0\r\nQUIT\n")
    });
}

#[test]
fn tls_with_an_own_ca() {
    if !common::has("openssl", "tls_with_an_own_ca") {
        return;
    }
    let mut pair = Pair::new(OWN_CA);
    let (local, clients, visitors) = (Local::echo(), net::address(), net::address());
    make_certificate(pair.dir.path(), &format!("IP:{}", clients.ip()));
    pair.put("0.0.0.0:2333", clients);
    pair.put("example.com:2333", clients);
    pair.put("0.0.0.0:5202", visitors);
    pair.put("127.0.0.1:22", local.addr);
    let mut server = pair.start("server", &[]);
    net::wait_listening(clients);
    let client = pair.start("client", &[]);
    visitor::wait_served(visitors);
    visitor::echo(visitors, b"from PEM", true);
    drop(client);
    server.kill();

    // The same as an archive, with the page's command.
    run(&mut shell(&blocks(&section(OWN_CA), "sh")[1], pair.dir.path()));
    pair.server = put(&pair.server, "cert = \"server.pem\"", "pkcs12 = \"identity.pfx\"");
    pair.server = put(&pair.server, "key = \"server.key\"", "pkcs12_password = \"1234\"");
    let _server = pair.start("server", &[]);
    net::wait_listening(clients);
    let _client = pair.start("client", &[]);
    visitor::wait_served(visitors);
    visitor::echo(visitors, b"from PKCS#12", true);
}

/// Our Markdown files.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for dir in [".", "docs", "examples"] {
        for file in std::fs::read_dir(root().join(dir)).unwrap() {
            let file = file.unwrap().path();
            if file.extension() == Some("md".as_ref()) {
                pages.push(file);
            }
        }
    }
    pages
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut seen = 0;
    for page in pages() {
        let text = read(&page);
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            seen += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: no {link}", page.display());
            let found = anchor.is_empty() || anchors(&read(&target)).contains(anchor);
            assert!(found, "{}: no heading for {link}", page.display());
        }
    }
    assert!(seen >= 30, "{seen}");
}

#[test]
fn the_contents_have_every_recipe() {
    let page = page();
    let contents = page.split("\n## ").next().unwrap();
    for (heading, _) in sections() {
        assert!(contents.contains(&format!("(#{})", anchor(&heading))), "no link to {heading:?}");
    }
}
