//! SIGHUP.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::common::net;
use super::common::process::Process;
use super::common::tunnel::Build;
use super::common::visitor;
use super::*;

#[test]
fn a_good_file_is_taken_over() {
    let (old, new, kept) = (net::address(), net::address(), net::address());
    let site = Site::new(&[("old", old), ("kept", kept)]);
    let mut server = site.start_with("--no-watch");
    site.write("server.toml", &site.main(&[("new", new), ("kept", kept)]));
    server.hang_up();
    let line = server.reloaded();
    assert!(line.contains("INFO") && line.contains("1 service added (new), 1 removed (old)"), "{line}");
    net::wait_listening(new);
    net::wait_closed(old);
    assert!(net::listens(kept));
    server.hang_up();
    let line = server.reloaded();
    assert!(line.contains("reloaded: nothing has changed"), "{line}");
    server.stop();
}

#[test]
fn a_bad_file_changes_nothing_and_all_of_its_errors_are_told() {
    let (old, new) = (net::address(), net::address());
    let site = Site::new(&[("old", old)]);
    let mut server = site.start_with("--no-watch");
    site.write("server.toml", &(site.main(&[("new", new)]) + "colour = 1\nnodelay = \"yes\"\n"));
    server.hang_up();
    let line = server.reloaded();
    assert!(
        line.contains("ERROR")
            && line.contains("reload refused: 2 errors; the old configuration stays in force"),
        "{line}"
    );
    let file = site.path("server.toml");
    for (place, key) in [("7:1", "colour"), ("8:11", "nodelay")] {
        let start = format!("{}:{place}: error: server.services.new.{key}: ", file.display());
        let log = server.process.log();
        assert!(log.lines().any(|line| line.contains("ERROR") && line.contains(&start)), "{start}\n{log}");
    }
    assert!(net::listens(old) && !net::listens(new));
    // A good one helps at once.
    site.write("server.toml", &site.main(&[("new", new)]));
    server.hang_up();
    server.reloaded();
    net::wait_listening(new);
    server.stop();
}

/// What only the preparation of a transport finds is an error, too.
#[cfg(feature = "tls")]
#[test]
fn a_certificate_that_is_none_is_refused() {
    let site = Site::new(&[]);
    let mut server = site.start_with("--no-watch");
    site.write("cert.pem", "no certificate\n");
    let tls = format!(
        "[server.transport]\ntype = \"tls\"\n[server.transport.tls]\ncert = {0:?}\nkey = {0:?}\n",
        site.path("cert.pem").display().to_string()
    );
    site.write("server.toml", &(site.main(&[]) + &tls));
    server.hang_up();
    let line = server.reloaded();
    assert!(line.contains("reload refused: 1 error;"), "{line}");
    assert!(server.process.log().contains("server.toml:8:8: error: server.transport.tls.cert: "), "{line}");
    server.stop();
}

#[test]
fn overlays_fragments_and_named_files_are_read_again() {
    let (one, two) = (net::address(), net::address());
    let site = Site::new(&[("one", one)]);
    site.write("over.toml", "");
    let mut command = site.command();
    command.arg("--no-watch").arg("--overlay").arg(site.path("over.toml"));
    let mut server = site.start_command(command);
    site.write("over.toml", "[server]\nvisitor_timeout = 77\n");
    server.hang_up();
    let line = server.reloaded();
    assert!(line.contains("settings: server.visitor_timeout"), "{line}");
    std::fs::create_dir(site.path("server.toml.d")).unwrap();
    let text =
        service("two", two) + &format!("token_file = {:?}\n", site.path("token").display().to_string());
    site.write("server.toml.d/two.toml", &text);
    server.hang_up();
    let line = server.reloaded();
    assert!(line.contains("refused: 1 error"), "{line}");
    assert_eq!(server.count("two.toml:3:14: error: server.services.two.token_file: cannot read "), 1);
    site.write("token", "a-token-in-a-file-0001");
    server.hang_up();
    let line = server.reloaded();
    assert!(line.contains("1 service added (two)"), "{line}");
    net::wait_listening(two);
    site.write("token", "a-token-in-a-file-0002");
    server.hang_up();
    let line = server.reloaded();
    assert!(line.contains("1 service changed (two)"), "{line}");
    let log = server.stop();
    assert!(!log.contains("a-token-in-a-file"), "{log}");
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_is_done() {
    let (old, new) = (net::address(), net::address());
    let mut site = Site::new(&[]);
    let mut server = site.start_with("--no-watch");
    let first = std::mem::replace(&mut site.control, old);
    site.write("server.toml", &site.main(&[("new", new)]));
    server.hang_up();
    let line = server.reloaded();
    assert!(line.contains("1 service added (new); needs restart: server.bind_addr"), "{line}");
    assert_eq!(
        server.count("server.toml:2:13: warning: server.bind_addr: only a restart takes this over"),
        1
    );
    net::wait_listening(new);
    assert!(net::listens(first) && !net::listens(old));
    server.stop();
}

/// The half that is not run is not started behind anybody's back, nor is one that runs ended.
#[test]
fn a_half_that_appears_or_vanishes_needs_a_restart() {
    let (one, two) = (net::address(), net::address());
    let site = Site::new(&[("one", one)]);
    let mut command = Command::new(Build::Ours.program());
    command.arg(site.path("server.toml")).arg("--no-watch").env("RUST_LOG", "debug").env("NO_COLOR", "1");
    let mut server = site.start_command(command);
    let client = format!(
        "[client]\nremote_addr = \"{}\"\ndefault_token = \"token-of-the-reload-tests\"\n[client.services]\n",
        net::address()
    );
    site.write("server.toml", &(site.main(&[("one", one), ("two", two)]) + &client));
    server.hang_up();
    let line = server.reloaded();
    assert!(line.contains("1 service added (two)") && line.contains("needs restart: client"), "{line}");
    site.write("server.toml", &client);
    server.hang_up();
    let line = server.reloaded();
    assert!(line.contains("needs restart: server, client"), "{line}");
    assert!(net::listens(one) && net::listens(two));
    server.stop();
}

/// The first reading is from a pipe, so that it lasts as long as the test wants. The reload then finds that a pipe
/// cannot be read twice, and does not wait for one who writes.
#[test]
fn a_hangup_while_the_process_starts_does_not_kill_it_and_is_heard() {
    let one = net::address();
    let site = Site::new(&[("one", one)]);
    let (mut server, mut pipe, text) = start_with_pipe(&site, "server.toml");
    server.process.signal(Signal::SIGHUP);
    server.process.signal(Signal::SIGHUP);
    pipe.write_all(text.as_bytes()).unwrap();
    drop(pipe);
    net::wait_listening(one);
    let line = server.reloaded();
    assert!(line.contains("reload refused: 1 error"), "{line}");
    assert_eq!(server.count("it is no regular file, it cannot be read again"), 1);
    // It is not even watched.
    assert!(!server.watches());
    server.stop();
}

/// What changes between the first reading and the first watching is not missed.
#[test]
fn a_change_while_the_process_starts_is_seen() {
    let one = net::address();
    let site = Site::new(&[("one", one)]);
    site.write("over.toml", "");
    let (mut server, pipe, _) = start_with_pipe(&site, "over.toml");
    // The main file was read before.
    site.write("server.toml", &site.main(&[]));
    drop(pipe);
    let line = server.reloaded();
    // That it looks again is enough: it finds that the overlay is a pipe.
    assert!(line.contains("reload refused: 1 error"), "{line}");
    assert!(net::listens(one));
    server.stop();
}

/// A server whose file of this name is a pipe that it waits to read from; the other end, and what the file held.
fn start_with_pipe(site: &Site, name: &str) -> (Server, std::fs::File, String) {
    let path = site.path(name);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut command = site.command();
    if name != "server.toml" {
        command.arg("--overlay").arg(&path);
    }
    let process = Process::start("server", command);
    // Opens when the other end is opened.
    let pipe = OpenOptions::new().write(true).open(&path).unwrap();
    (Server { process, told: 0 }, pipe, text)
}

/// A name that does not resolve is waited for, at the start too. The file that names another address helps.
#[test]
fn a_start_that_waits_begins_anew_with_another_file() {
    let one = net::address();
    let site = Site::new(&[("one", one)]);
    let good = std::fs::read_to_string(site.path("server.toml")).unwrap();
    let waiting = good.replace(&site.control.to_string(), "no-such-host.invalid:2333");
    site.write("server.toml", &waiting);
    let process = Process::start("server", site.command());
    process.wait_for("no-such-host.invalid");
    let mut server = Server { process, told: 0 };
    server.hang_up();
    let line = server.reloaded();
    assert!(line.contains("reloaded: nothing has changed"), "{line}");
    site.write("server.toml", &(waiting.clone() + "colour = 1\n"));
    let line = server.reloaded();
    assert!(line.contains("reload refused: 1 error;"), "{line}");
    site.write("server.toml", &good);
    let line = server.reloaded();
    assert!(line.contains("reloaded before everything was up: beginning anew"), "{line}");
    server.process.wait_for("server is listening");
    assert!(net::listens(one) && net::listens(site.control));
    // From here on it is a reload like any other.
    site.write("server.toml", &site.main(&[]));
    let line = server.reloaded();
    assert!(line.contains("1 service removed (one)"), "{line}");
    server.stop();
}

/// An error of a start that began anew is at its place in the newer file.
#[test]
fn a_start_that_begins_anew_may_fail() {
    let one = net::address();
    let site = Site::new(&[("one", one)]);
    let good = std::fs::read_to_string(site.path("server.toml")).unwrap();
    site.write("server.toml", &good.replace(&site.control.to_string(), "no-such-host.invalid:2333"));
    let mut process = Process::start("server", site.command());
    process.wait_for("no-such-host.invalid");
    let _taken = std::net::TcpListener::bind(one).unwrap();
    site.write("server.toml", &format!("# moved down\n\n{good}"));
    assert_eq!(process.wait().code(), Some(1));
    let place =
        format!("{}:8:13: error: server.services.one.bind_addr: ", site.path("server.toml").display());
    assert!(process.log().contains(&place), "{place}\n{}", process.log());
}

/// An address that is in use fails its own service, at its place; all else is done.
#[test]
fn what_fails_has_a_line_of_its_own() {
    let (taken, free) = (net::address(), net::address());
    let site = Site::new(&[]);
    let mut server = site.start_with("--no-watch");
    let occupant = std::net::TcpListener::bind(taken).unwrap();
    site.write("server.toml", &site.main(&[("taken", taken), ("free", free)]));
    server.hang_up();
    let line = server.reloaded();
    assert!(
        line.contains("2 services added (free, taken); failed: server.services.taken.bind_addr"),
        "{line}"
    );
    let place =
        format!("{}:6:13: error: server.services.taken.bind_addr: ", site.path("server.toml").display());
    assert_eq!(server.count(&place), 1);
    net::wait_listening(free);
    drop(occupant);
    net::wait_listening(taken);
    server.stop();
}

/// `shutdown_grace` is that of the last reload: an established relay is cut after it.
#[test]
fn the_grace_of_a_stop_is_the_last_one_that_was_read() {
    let site = Site::new(&[]);
    let mut server = site.start_with("--no-watch");
    site.write(
        "server.toml",
        &site.main(&[]).replace("[server.services]", "shutdown_grace = 123\n[server.services]"),
    );
    server.hang_up();
    let line = server.reloaded();
    assert!(line.contains("settings: server.shutdown_grace"), "{line}");
    assert!(server.stop().contains("relays have 123 s"));
}

#[test]
fn a_storm_of_hangups_leaves_a_working_process() {
    for argument in ["--watch", "--no-watch"] {
        storm(argument);
    }
}

fn storm(argument: &str) {
    let (one, two) = (net::address(), net::address());
    let site = Site::new(&[("one", one)]);
    let mut server = site.start_with(argument);
    server.hang_up();
    server.reloaded();
    let fds = server.fds();
    let texts =
        [site.main(&[("one", one), ("two", two)]), site.main(&[("one", one)]), "[server]\n".to_owned()];
    let begin = Instant::now();
    let mut sent = 0;
    while begin.elapsed() < Duration::from_secs(3) {
        if sent % 10 == 0 {
            site.replace("server.toml", &texts[sent / 10 % texts.len()]);
        }
        server.hang_up();
        sent += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    site.replace("server.toml", &texts[1]);
    let done = server.lines().len();
    server.hang_up();
    net::wait("the last hangup is not heard", || server.lines().len() > done);
    // Reloads that were asked for together are done together; the last one is about the last file.
    net::wait("the last file is not in force", || !net::listens(two) && net::listens(one));
    net::wait("descriptors are left open", || server.fds() == fds);
    let done = server.lines().len();
    println!("{sent} hangups, {done} reloads");
    assert!(done <= sent + 10, "{sent} hangups, {done} reloads");
    assert!(server.process.is_running());
    assert!(server.count("panicked") == 0);
    drop(visitor::connect(one));
    server.process.signal(Signal::SIGTERM);
    assert_eq!(server.process.wait().code(), Some(0));
}

/// What is asked for during a reload is about files that may be newer than those that it has read.
#[test]
fn a_hangup_during_a_reload_is_done_after_it() {
    let (one, two) = (net::address(), net::address());
    let site = Site::new(&[]);
    let mut server = site.start_with("--no-watch");
    // A reload waits a while for a name to resolve.
    let nameless = "[server.services.two]\nbind_addr = \"no-such-host.invalid:7000\"\n";
    site.write("server.toml", &(site.main(&[("one", one)]) + nameless));
    server.hang_up();
    net::wait_listening(one);
    site.write("server.toml", &site.main(&[("one", one), ("two", two)]));
    server.hang_up();
    let line = server.reloaded();
    assert!(line.contains("2 services added (one, two); failed: server.services.two.bind_addr"), "{line}");
    let line = server.reloaded();
    assert!(line.contains("1 service changed (two)"), "{line}");
    net::wait_listening(two);
    server.stop();
}

/// A stop signal is not kept waiting by the reload that was asked for before it.
#[test]
fn a_stop_signal_overtakes_a_reload() {
    let site = Site::new(&[]);
    let mut text = site.main(&[]);
    let address = net::address();
    for n in 0..5000 {
        let port = 20_010 + n;
        text.push_str(&service(&format!("s{n}"), SocketAddr::new(address.ip(), port)));
    }
    let mut server = site.start_with("--no-watch");
    site.write("server.toml", &text);
    server.hang_up();
    server.process.signal(Signal::SIGTERM);
    assert_eq!(server.process.wait_within(Duration::from_secs(10)).code(), Some(0));
    server.process.wait_for("stopping on SIGTERM");
    assert!(server.lines().is_empty(), "{:#?}", server.lines());
}

/// Without a file there is nothing to read: a terminal that closes ends it, as it ends any program.
#[test]
fn without_a_file_a_hangup_ends_the_process() {
    use std::os::unix::process::ExitStatusExt;
    let (control, one) = (net::address(), net::address());
    // Whoever runs these tests under nohup has SIGHUP ignored, in every child, too.
    let mut command = Command::new("env");
    command.arg("--default-signal=HUP").arg(Build::Ours.program()).args([
        "server",
        "--plain-tcp",
        "--bind",
        &control.to_string(),
        "--service",
        &format!("one={one}"),
    ]);
    let mut process = Process::start("ad hoc", command);
    process.wait_for("listening");
    process.signal(Signal::SIGHUP);
    assert_eq!(process.wait().signal(), Some(Signal::SIGHUP as i32));
}

/// Descriptors that visitors have used up say nothing about the configuration: it is read when there are some again.
#[test]
fn what_cannot_be_read_for_want_of_descriptors_is_read_later() {
    if !super::common::has("prlimit", "reload::signals::what_cannot_be_read") {
        return;
    }
    let (old, new) = (net::address(), net::address());
    let site = Site::new(&[("old", old)]);
    let mut server = site.start_with("--no-watch");
    net::wait_listening(old);
    let limit = |files: &str| {
        let mut command = std::process::Command::new("prlimit");
        command.args([format!("--pid={}", server.process.id()), format!("--nofile={files}:")]);
        super::common::process::run(&mut command);
    };
    limit("4");
    site.write("server.toml", &site.main(&[("new", new)]));
    server.hang_up();
    server.process.wait_for("the configuration cannot be read now: ");
    assert!(net::listens(old) && !net::listens(new));
    limit("1024");
    let line = server.reloaded();
    assert!(line.contains("1 service added (new), 1 removed (old)"), "{line}");
    net::wait_listening(new);
    server.stop();
}
