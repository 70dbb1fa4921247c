//! `rathole demo`: a page through the tunnel.
#![allow(clippy::unwrap_used)]
#![cfg(all(feature = "server", feature = "client", feature = "noise", feature = "cli"))]

mod cli_support;

use std::io::{Read, Write};
use std::net::TcpStream;

use cli_support::*;

/// The URL's host and port.
fn address(line: &str) -> String {
    let (_, rest) = line.split_once("http://").unwrap();
    rest.split('/').next().unwrap().to_owned()
}

fn get(address: &str) -> String {
    let mut tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_visitor_sees_the_page_and_is_counted() {
    let mut demo = Running::start(rathole(&["demo"]));
    let address = address(&demo.out.wait_for("http://"));
    let mut lines = Vec::new();
    loop {
        let line = demo.out.wait_for("");
        if line.contains("ends it") {
            break;
        }
        lines.push(line);
    }
    for _ in 0..3 {
        let answer = get(&address);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("has come through the tunnel"), "{answer}");
    }
    let line = demo.out.wait_for("visitors 3");
    assert!(line.contains(" ms"), "time to first byte: {line}");
    assert!(!line.contains("to them 0,") && !line.contains('\x1b') && !line.contains('\r'), "{line}");
    demo.signal("INT");
    assert_eq!(demo.exit(), Some(0));
    let out = demo.out.rest();
    let summary = out.lines().last().unwrap();
    assert!(summary.starts_with("Summary: visitors 3") && summary.contains("nothing was cut"), "{summary}");
    assert_eq!(demo.err.rest(), "", "nothing to warn of");

    // The files that are shown are the files that work, with the secrets on stdout only.
    let text = lines.join("\n");
    let (_, files) = text.split_once("# ---- server.toml").unwrap();
    let (server, client) = files.split_once("# ---- client.toml").unwrap();
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [("server.toml", server), ("client.toml", client)] {
        let (_, text) = text.split_once('\n').unwrap();
        assert!(text.matches("# <- edit").count() >= 4, "{text}");
        let path = file(directory.path(), name, text);
        let said = run(&["check", &path]);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert_eq!(said.out, format!("{path}: ok\n"), "no warning either");
    }
}

#[test]
fn it_ends_by_itself() {
    let said = run(&["demo", "--seconds", "1"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    assert!(said.out.lines().last().unwrap().starts_with("Summary: visitors 0"), "{}", said.out);
}

#[test]
fn sigterm_is_a_clean_end_too() {
    let mut demo = Running::start(rathole(&["demo"]));
    demo.out.wait_for("visitors 0");
    demo.signal("TERM");
    assert_eq!(demo.exit(), Some(0));
    assert!(demo.out.rest().contains("Summary: "));
}

#[test]
fn a_reader_that_goes_away_ends_it_without_a_panic() {
    let script =
        format!("'{}' demo --seconds 15 | head -n 1; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_rathole"));
    let mut command = std::process::Command::new("bash");
    command.args(["-c", &script]).env_remove("RUST_LOG");
    let said = finish(command);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    assert_eq!(said.out.lines().count(), 1);
}
