//! The defects that were reproduced in rathole 0.5.0, each as a situation that ours must pass (docs/defects.md).
//!
//! A situation is a function over the build under test. `cargo test` puts ours into each; [`upstream`] puts 0.5.0 into
//! the same ones, and writes down what it did: a test that somebody fails is known to be able to fail.

#![cfg(all(
    feature = "server",
    feature = "client",
    feature = "tls",
    feature = "noise",
    feature = "websocket",
    feature = "proxy"
))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

/// Declares the situations of a file, and a test for each that puts ours into it.
macro_rules! situations {
    ($($id:literal => $name:ident,)+) => {
        /// Every situation of this file.
        pub const ALL: &[crate::Situation] =
            &[$(crate::Situation { id: $id, file: file!(), name: stringify!($name), run: $name }),+];

        mod ours {
            $(#[test]
            fn $name() {
                crate::ours(super::ALL, stringify!($name));
            })+
        }
    };
}

mod client;
mod datagrams;
mod docs;
mod hand;
mod reload;
mod security;
mod start;
mod strangers;
mod tenants;
mod transports;
mod visitors;
mod watching;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use common::tunnel::Build;
use common::{PEER_HINT, announce, peer};

/// What was measured: in words, for the table. Err: the build did not pass.
type Outcome = Result<String, String>;

/// One situation.
pub struct Situation {
    /// Of the defect.
    pub id: &'static str,
    /// Where it stands.
    pub file: &'static str,
    /// Of the function, and of the test.
    pub name: &'static str,
    /// Puts a build into it. It may panic: that is not passed, either.
    pub run: fn(Build) -> Outcome,
}

/// All of them.
fn all() -> Vec<&'static Situation> {
    let files = [
        strangers::ALL,
        tenants::ALL,
        visitors::ALL,
        datagrams::ALL,
        client::ALL,
        start::ALL,
        reload::ALL,
        watching::ALL,
        transports::ALL,
        security::ALL,
    ];
    let mut all: Vec<_> = files.into_iter().flatten().collect();
    all.sort_by_key(|situation| docs::order(situation.id));
    all
}

/// The body of each test.
fn ours(all: &[Situation], name: &str) {
    let situation = all.iter().find(|situation| situation.name == name).unwrap();
    match (situation.run)(Build::Ours) {
        Ok(words) => announce(&format!("{} {name}: {words}", situation.id)),
        Err(words) => panic!("{} {name}: {words}", situation.id),
    }
}

/// Puts ours and 0.5.0 into every situation, prints the table, and writes it into docs/defects.md.
///
/// `cargo test --test defects -- --ignored upstream`; a word in `RATHOLE_SITUATIONS` leaves only the situations whose
/// name or id has it, and writes nothing.
#[test]
#[ignore = "some minutes, and needs rathole 0.5.0; writes docs/defects.md"]
fn upstream() {
    assert!(peer().is_some(), "{PEER_HINT}");
    let only = std::env::var("RATHOLE_SITUATIONS").ok();
    let chosen = |situation: &&Situation| {
        only.as_ref().is_none_or(|word| situation.name.contains(word) || situation.id == word)
    };
    let todo: Mutex<VecDeque<_>> = Mutex::new(all().into_iter().filter(chosen).enumerate().collect());
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        // Mostly they wait.
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let Some((at, situation)) = todo.lock().unwrap().pop_front() else { return };
                    let [ours, theirs] = [Build::Ours, Build::Peer].map(|build| attempt(situation, build));
                    announce(&format!("{} {}: {ours:?} / {theirs:?}", situation.id, situation.name));
                    rows.lock().unwrap().push((at, situation, ours, theirs));
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap();
    assert!(!rows.is_empty(), "no situation of that name");
    rows.sort_by_key(|(at, ..)| *at);
    let table: String = rows.iter().map(|(_, s, ours, theirs)| docs::row(s, ours, theirs)).collect();
    announce(&table);
    if only.is_none() {
        docs::write(&table);
    }
    let failed: Vec<_> =
        rows.iter().filter(|(_, _, ours, _)| ours.is_err()).map(|(_, s, ..)| s.name).collect();
    assert!(failed.is_empty(), "ours fails: {failed:?}");
}

/// An outcome, whatever happens.
fn attempt(situation: &Situation, build: Build) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| (situation.run)(build))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(text.unwrap_or_default().lines().next().unwrap_or_default().to_owned())
    })
}

/// Looks until `holds`; how long it took, or None if that was longer than `limit`.
fn until(limit: Duration, mut holds: impl FnMut() -> bool) -> Option<Duration> {
    let begun = Instant::now();
    loop {
        if holds() {
            return Some(begun.elapsed());
        }
        if begun.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Passed or not, in the same words.
fn verdict(passed: bool, words: String) -> Outcome {
    if passed { Ok(words) } else { Err(words) }
}

/// For the table.
fn seconds(time: Duration) -> String {
    if time < Duration::from_millis(100) {
        return "less than 0.1 s".to_owned();
    }
    format!("{:.1} s", time.as_secs_f64())
}

/// Visits an echo service again and again; how long it took until it was served.
fn served(addr: SocketAddr, limit: Duration) -> Option<Duration> {
    until(limit, || echo_once(addr, b"hello", Duration::from_secs(2)).is_ok())
}

/// One short echo.
fn echo_once(addr: SocketAddr, bytes: &[u8], patience: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&addr, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(bytes)?;
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer)?;
    if answer == bytes { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

/// When the other side ended the connection; None if it did not within the limit.
fn ended(stream: &TcpStream, limit: Duration) -> Option<Duration> {
    let begun = Instant::now();
    let mut stream = stream;
    let mut chunk = [0; 4096];
    loop {
        let left = limit.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return None;
        }
        stream.set_read_timeout(Some(left)).unwrap();
        match stream.read(&mut chunk) {
            Ok(1..) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(0) | Err(_) => return Some(begun.elapsed()),
        }
    }
}

/// The same command, after what a shell is told first.
fn after(prelude: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{prelude} && exec \"$0\" \"$@\""));
    shell.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        shell.env(key, value.unwrap_or_default());
    }
    shell
}

/// Lets this process have as many descriptors as it may.
fn many_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}
