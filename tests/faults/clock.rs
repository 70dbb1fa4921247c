//! The clocks of both processes jump (libfaketime).

use std::path::PathBuf;
use std::process::Command;

use super::common::process::run;
use super::common::tunnel::Build;
use super::fault::Fault;
use super::line::tunnel::Tunnel;

/// The library that gives threads a false clock.
fn library() -> Option<PathBuf> {
    let directories = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    let files = directories.map(|directory| directory.join("faketime/libfaketimeMT.so.1"));
    files.into_iter().find(|file| file.exists())
}

/// Whether it is here; if not, a line says so.
pub fn can_jump(test: &str) -> bool {
    let there = library().is_some();
    if !there {
        super::common::skip(test, "no libfaketimeMT.so.1 here (Debian: apt-get install faketime)");
    }
    there
}

/// Both processes see another day, forward ("+1d") or back ("-1d"); with `monotonic`, their timers see it, too.
pub fn jump(how_far: &'static str, monotonic: bool) -> Fault {
    let which = if monotonic { ", the monotonic clocks, too" } else { "" };
    let prepare = move |tunnel: &mut Tunnel| {
        let clock = tunnel.plan.write("clock", "+0");
        let mut set = |name: &str, value: String| tunnel.environment.push((name.to_owned(), value));
        set("LD_PRELOAD", library().map(|file| file.display().to_string()).unwrap_or_default());
        set("FAKETIME_TIMESTAMP_FILE", clock.display().to_string());
        set("FAKETIME_NO_CACHE", "1".to_owned());
        if !monotonic {
            set("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned());
        }
    };
    let strike = move |tunnel: &mut Tunnel| {
        tunnel.plan.write("clock", how_far);
        let offset = how_far.replace('d', " day");
        let date = run(Command::new("date").args(["--utc", "--date", &offset, "+%FT"]));
        // They have seen it: with the next line that either writes about a visitor. (0.5.0 writes none.)
        if tunnel.build == Build::Ours {
            let (server, client) = tunnel.processes();
            server.wait_for(date.trim());
            client.wait_for(date.trim());
        }
    };
    Fault { prepare: Box::new(prepare), ..Fault::new(format!("clock jump {how_far}{which}"), strike) }
}
