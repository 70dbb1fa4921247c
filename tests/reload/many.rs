//! Ten thousand services, each with its listener: in one file, and in a fragment each.

use std::time::{Duration, Instant};

use super::common::{announce, net, skip};
use super::*;

const SERVICES: u16 = 10_000;

/// "Within seconds", for a build without optimisation on a busy machine.
const SECONDS: Duration = Duration::from_secs(30);

/// Ports of a host that is this test's alone.
fn services() -> Vec<(String, SocketAddr)> {
    let host = net::address().ip();
    let service = |n| (format!("tenant-{n:05}"), SocketAddr::new(host, 20_010 + n));
    (0..SERVICES).map(service).collect()
}

fn has_descriptors(test: &str) -> bool {
    use nix::sys::resource::{Resource, getrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let enough = hard > u64::from(SERVICES) + 1000;
    if !enough {
        skip(test, &format!("only {hard} descriptors"));
    }
    enough
}

/// Starts, adds one service, changes one, removes one; says how long each took.
fn start_and_reload(test: &str, site: &Site, change: &dyn Fn(&str)) {
    let timed = |what: &str, begin: Instant| {
        let took = begin.elapsed();
        announce(&format!("{test}: {what}: {} ms", took.as_millis()));
        assert!(took < SECONDS, "{what} took {took:?}");
    };
    let begin = Instant::now();
    let mut server = site.start_with("--watch");
    timed("start", begin);
    for what in ["added", "changed", "removed"] {
        change(what);
        let begin = Instant::now();
        server.hang_up();
        let line = server.reloaded();
        timed(what, begin);
        assert!(line.contains(&format!("1 service {what} (new)")), "{line}");
        // What the watch sees of it is nothing new.
        assert!(server.process.is_running());
    }
    let begin = Instant::now();
    server.process.signal(Signal::SIGTERM);
    assert_eq!(server.process.wait().code(), Some(0));
    timed("stop", begin);
    assert_eq!(server.lines().len(), 3, "{:#?}", server.lines());
}

fn new_service(what: &str, address: SocketAddr) -> String {
    match what {
        "added" => service("new", address),
        "changed" => service("new", address) + "nodelay = false\n",
        _ => String::new(),
    }
}

#[test]
fn in_one_file() {
    if !has_descriptors("in_one_file") {
        return;
    }
    let (services, new) = (services(), net::address());
    let list: Vec<_> = services.iter().map(|(name, address)| (name.as_str(), *address)).collect();
    let site = Site::new(&list);
    let text = site.main(&list);
    start_and_reload("10,000 services in one file", &site, &|what| {
        site.replace("server.toml", &(text.clone() + &new_service(what, new)));
    });
}

#[test]
fn in_a_fragment_each() {
    if !has_descriptors("in_a_fragment_each") {
        return;
    }
    let new = net::address();
    let site = Site::new(&[]);
    std::fs::create_dir(site.path("server.toml.d")).unwrap();
    for (name, address) in services() {
        site.write(&format!("server.toml.d/{name}.toml"), &service(&name, address));
    }
    start_and_reload("10,000 services in a fragment each", &site, &|what| {
        site.replace("server.toml.d/new.toml", &new_service(what, new));
    });
}
