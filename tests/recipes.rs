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
use std::process::Command;

use common::net;
use common::process::{Process, run};
use common::service::Local;
use common::tunnel::Build;
use common::visitor::{self, UdpVisitor};

const KEYS: &str = "Noise keys and a token";

/// The public key that the page shows.
const SHOWN_KEY: &str = "VraLp8mu9LQ2V+s1VS2N+ggwZCIBTtf2yR2/J6py6D0=";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The sections of the page: heading and text.
fn sections() -> Vec<(String, String)> {
    let page = read(&root().join("docs/recipes.md"));
    let sections = page.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap());
    sections.map(|(heading, text)| (heading.to_owned(), text.to_owned())).collect()
}

fn section(heading: &str) -> String {
    let found = sections().into_iter().find(|(name, _)| name == heading);
    found.unwrap_or_else(|| panic!("docs/recipes.md has no section {heading:?}")).1
}

/// The fenced blocks of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    blocks.collect()
}

/// The TOML files of a section: the first line of each says its name.
fn files(text: &str) -> Vec<(String, String)> {
    let named = |block: String| {
        let name = block.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
        assert!(name.ends_with(".toml"), "a block without its file's name:\n{block}");
        (name.to_owned(), block)
    };
    blocks(text, "toml").into_iter().map(named).collect()
}

/// A shell with our program as `rathole`, in a directory.
fn shell(script: &str, dir: &Path) -> Command {
    let program = Build::Ours.program();
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-e", "-c", script]).current_dir(dir).env("PATH", path);
    command
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

/// The commands that make keys, as they stand; then a pair of the page with those keys.
struct Pair {
    dir: tempfile::TempDir,
    server: String,
    client: String,
    key: String,
}

impl Pair {
    fn new(heading: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let commands = blocks(&section(KEYS), "sh");
        assert_eq!(commands.len(), 1);
        run(&mut shell(&commands[0], dir.path()));
        let key = read(&dir.path().join("noise.pub")).trim_end().to_owned();
        let [server, client] =
            <[_; 2]>::try_from(files(&section(heading))).expect("a server's file, a client's");
        assert_eq!((server.0.as_str(), client.0.as_str()), ("server.toml", "client.toml"));
        Pair { dir, server: server.1, client: client.1, key }
    }

    /// Replaces a value that must be there.
    fn put(&mut self, from: &str, to: impl ToString) {
        let (from, to) = (format!("\"{from}\""), format!("\"{}\"", to.to_string()));
        let both = format!("{}{}", self.server, self.client);
        assert!(both.contains(&from), "no {from} in:\n{both}");
        self.server = self.server.replace(&from, &to);
        self.client = self.client.replace(&from, &to);
    }

    fn start(&self, role: &str) -> Process {
        std::fs::write(self.dir.path().join("server.toml"), &self.server).unwrap();
        std::fs::write(self.dir.path().join("client.toml"), &self.client).unwrap();
        let line = format!("exec rathole {role} {role}.toml");
        Process::start(&line, shell(&line, self.dir.path()))
    }
}

#[test]
fn keys_step_by_step() {
    let mut pair = Pair::new(KEYS);
    let (local, clients, visitors) = (Local::echo(), net::address(), net::address());
    pair.put("[::]:2333", clients);
    pair.put("[::]:5202", visitors);
    pair.put("example.com:2333", clients);
    pair.put("127.0.0.1:22", local.addr);
    let _server = pair.start("server");
    net::wait_listening(clients);

    // The key in the page is not the one just made.
    let mut stranger = pair.start("client");
    stranger.wait_for("Noise handshake");
    stranger.kill();

    pair.put(SHOWN_KEY, pair.key.clone());
    let _client = pair.start("client");
    visitor::wait_served(visitors);
    visitor::echo(visitors, &visitor::random(1, 100_000), true);
}

#[test]
fn moving_from_frp() {
    let mut pair = Pair::new("Moving from frp");
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
    pair.put(SHOWN_KEY, pair.key.clone());
    let _server = pair.start("server");
    net::wait_listening(clients);
    let _client = pair.start("client");
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
    let page = read(&root().join("docs/recipes.md"));
    let contents = page.split("\n## ").next().unwrap();
    for (heading, _) in sections() {
        assert!(contents.contains(&format!("(#{})", anchor(&heading))), "no link to {heading:?}");
    }
}
