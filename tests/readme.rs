//! Every command of README.md is run, with its own words; only addresses, keys and `cargo run` are put in their place.

#![cfg(all(feature = "server", feature = "client", feature = "noise", feature = "cli"))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use common::keys::KeyPair;
use common::net;
use common::process::{Process, run};
use common::service::Local;
use common::tunnel::Build;
use common::visitor;

/// What README tells people to type, and the test below that does it.
const COMMANDS: [(&str, &str); 7] = [
    (DEMO, "the_demo"),
    ("cargo test", "all_tests"),
    (AD_HOC_SERVER, "ad_hoc"),
    (AD_HOC_CLIENT, "ad_hoc"),
    ("rathole check server.toml client.toml", "two_files"),
    ("rathole server server.toml", "two_files"),
    ("rathole client client.toml", "two_files"),
];
const DEMO: &str = "cargo run --release -- demo";
const AD_HOC_SERVER: &str = "rathole server --bind 0.0.0.0:2333 --service ssh=0.0.0.0:5202";
const AD_HOC_CLIENT: &str =
    "RATHOLE_TOKEN=… rathole client --to HOST:2333 --noise-pin KEY --service ssh=127.0.0.1:22";

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The fenced blocks of one language.
fn blocks(language: &str) -> Vec<String> {
    let readme = file("README.md");
    let mut blocks = readme.split("```").skip(1).step_by(2);
    let blocks: Vec<_> = blocks
        .by_ref()
        .filter_map(|block| block.strip_prefix(&format!("{language}\n")))
        .map(str::to_owned)
        .collect();
    assert!(!blocks.is_empty(), "README.md has no {language} block");
    blocks
}

/// Replaces what must be there.
fn put(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from:?} in:\n{text}");
    text.replace(from, to)
}

/// A shell line with our program as `rathole`, in a directory.
fn shell(line: &str, dir: &Path) -> Command {
    let program = Build::Ours.program();
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    // `exec`: signals and exit codes are rathole's own.
    let (variables, words) = match line.split_once(" rathole ") {
        Some((variables, words)) => (variables, words),
        None => ("", line.strip_prefix("rathole ").expect("a command of ours")),
    };
    command.arg("-c").arg(format!("{variables} exec rathole {words}")).current_dir(dir).env("PATH", path);
    command.env_remove("RATHOLE_TOKEN");
    command
}

fn start(line: &str, dir: &Path) -> Process {
    Process::start(line, shell(line, dir))
}

#[test]
fn every_command_has_its_test() {
    let lines: Vec<_> = blocks("sh").iter().flat_map(|block| block.lines().map(str::to_owned)).collect();
    let known: Vec<_> = COMMANDS.iter().map(|(line, _)| (*line).to_owned()).collect();
    assert_eq!(lines, known, "README.md's commands (left), the commands that are tested (right)");
    let here = include_str!("readme.rs");
    for (line, test) in COMMANDS {
        assert!(here.contains(&format!("fn {test}()")), "{line}: no test {test}");
    }
}

#[test]
fn all_tests() {
    // This runs in it. CI must run the same command.
    assert!(file(".ci/run").contains("TEST_COMMAND=\"cargo test\""));
}

#[test]
fn the_demo() {
    if !common::has("curl", "the_demo") {
        return;
    }
    let words = DEMO.strip_prefix("cargo run --release -- ").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut demo = start(&format!("rathole {words} --seconds 60"), dir.path());
    demo.wait_for("http://");
    let text = demo.stdout();
    let url = text.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap();
    let addr: SocketAddr = url.trim_end_matches('/').parse().unwrap_or_else(|error| panic!("{url}: {error}"));
    let page = run(Command::new("curl").args([
        "--silent",
        "--fail",
        "--max-time",
        "20",
        &format!("http://{addr}/"),
    ]));
    assert!(page.contains("<html"), "{page}");
    demo.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(demo.wait().code(), Some(0));
}

#[test]
fn ad_hoc() {
    let (dir, local) = (tempfile::tempdir().unwrap(), Local::echo());
    let (clients, visitors) = (net::address(), net::address());
    let line = put(AD_HOC_SERVER, "0.0.0.0:2333", &clients.to_string());
    let server = start(&put(&line, "0.0.0.0:5202", &visitors.to_string()), dir.path());
    server.wait_for("--noise-pin");
    net::wait("the command for the other side has no end", || server.stdout().ends_with('\n'));
    let printed = server.stdout();
    let printed = printed.lines().find(|line| line.contains("rathole client")).unwrap();

    // README shows the same words in the same order.
    let shown: Vec<_> = AD_HOC_CLIENT.split(' ').collect();
    let got: Vec<_> = printed.split(' ').collect();
    assert_eq!(shown.len(), got.len(), "README: {AD_HOC_CLIENT}\nprinted: {printed}");
    let mut secret = "";
    for (shown, got) in shown.iter().zip(&got) {
        match *shown {
            "RATHOLE_TOKEN=…" => secret = got.strip_prefix("RATHOLE_TOKEN=").unwrap(),
            "HOST:2333" => assert!(got.ends_with(&format!(":{}", clients.port())), "{got}"),
            "KEY" => assert_eq!(got.len(), 44, "{got}"),
            _ => assert_eq!(shown, got),
        }
    }
    assert!(secret.len() >= 32, "a token of {} characters", secret.len());
    assert!(!server.stderr().contains(secret), "the token is in the log");

    let host = got[shown.iter().position(|word| *word == "HOST:2333").unwrap()];
    let line = put(&put(printed, host, &clients.to_string()), "127.0.0.1:22", &local.addr.to_string());
    let client = start(&line, dir.path());
    visitor::wait_served(visitors);
    visitor::echo(visitors, &visitor::random(1, 100_000), true);
    assert!(!client.log().contains(secret), "the token is in the client's log");
    assert_eq!(client.stdout(), "");
}

#[test]
fn two_files() {
    let blocks = blocks("toml");
    let [server, client, server_noise, client_noise] = &blocks[..] else {
        panic!("README.md has {} toml blocks, 4 are known here", blocks.len())
    };
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("server.toml", server);
    write("client.toml", client);
    let check = "rathole check server.toml client.toml";
    let mut process = start(check, dir.path());
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
    assert!(process.log().contains("encrypt"), "README says that there is a warning:\n{}", process.log());

    let (local, clients, visitors) = (Local::echo(), net::address(), net::address());
    let mut server = put(server, "0.0.0.0:2333", &clients.to_string());
    server = put(&server, "0.0.0.0:5202", &visitors.to_string());
    let mut client = put(client, "example.com:2333", &clients.to_string());
    client = put(&client, "127.0.0.1:22", &local.addr.to_string());
    let serve = |server: &str, client: &str| {
        write("server.toml", server);
        write("client.toml", client);
        let mut server = start("rathole server server.toml", dir.path());
        net::wait_listening(clients);
        let mut client = start("rathole client client.toml", dir.path());
        visitor::wait_served(visitors);
        for process in [&mut client, &mut server] {
            process.signal(nix::sys::signal::Signal::SIGTERM);
            assert_eq!(process.wait().code(), Some(0));
        }
    };
    serve(&server, &client);

    // With the two more tables, and keys from `rathole genkey`.
    let keys = KeyPair::from(&Build::Ours.program());
    assert!(file("README.md").contains("`rathole genkey`"));
    server += &put(server_noise, "the private key", &keys.private);
    client += &put(client_noise, "the public key", &keys.public);
    serve(&server, &client);
    let mut process = start(check, dir.path());
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
    assert!(!process.log().contains("encrypt"), "{}", process.log());
}
