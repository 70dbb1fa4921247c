//! A name server that never answers, and a client with 1500 services: whoever needs no name is served meanwhile, and the
//! client reloads and stops as ever. The whole tunnel is at one site; names are asked of nobody outside of it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::common::process::Process;
use super::common::service::{self, Local};
use super::common::tunnel::{Build, Kind, Link, Plan, Role, Service};
use super::common::visitor;
use super::common::{announce, net};
use super::line::Line;
use super::line::site::{Held, Site};
use super::s;

const MANY: usize = 1500;

/// Every so many services the local service has a name.
const NAMED: usize = 3;

/// What is no matter of seconds. Busy machines are slow.
const SOON: Duration = Duration::from_secs(5);

/// Lookups that may be stuck at a time, whatever there is to look up, and all other threads of a client.
const MOST_THREADS: usize = 16 * 8 + 64;

/// The service whose local service is at `localhost`, which is known here.
const HERE: usize = 1;

struct Scene {
    site: Site,
    plan: Plan,
    files: Vec<(String, PathBuf)>,
    name_server: Held<UdpSocket>,
    local: Held<Local>,
    _line: Line,
}

/// Somewhere in 127.0.0.0/8: the site is alone there.
fn address(net: u8, n: usize) -> SocketAddr {
    (Ipv4Addr::new(127, net, (n / 250) as u8, (n % 250 + 1) as u8), 4000).into()
}

impl Scene {
    /// None: it cannot be made here, which was said.
    fn set(test: &str) -> Option<Scene> {
        let line = Line::new(test, 1)?;
        let site = line.client.clone();
        let name_server = site.hold(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).unwrap());
        name_server.set_nonblocking(true).unwrap();
        let local = site.hold(Local::echo);
        let services = (0..MANY).map(|n| Service {
            name: format!("service-{n:04}"),
            kind: Kind::Tcp,
            visitors: address(77, n),
            local: if n % NAMED == 0 || n == HERE { address(78, n) } else { local.addr },
            server_lines: String::new(),
            client_lines: String::new(),
        });
        let mut plan = Plan::new(Link::tcp(), services.collect());
        plan.server_addr = site.run(|| net::address_on(Ipv4Addr::LOCALHOST.into()));
        let hidden = [
            ("/etc/hosts", "127.0.0.1 localhost\n"),
            ("/etc/nsswitch.conf", "hosts: files dns\n"),
            ("/etc/resolv.conf", "nameserver 127.0.0.1\n"),
        ];
        let files = hidden.map(|(path, text)| (path.to_owned(), plan.write(&path.replace('/', "_"), text)));
        Some(Scene { site, plan, files: files.into(), name_server, local, _line: line })
    }

    fn start(&self, role: Role, text: &str) -> Process {
        let name = format!("{role:?}.toml").to_lowercase();
        let mut command = Build::Ours.command(role, &self.plan.write(&name, text));
        command.env("RUST_LOG", "info");
        let files: &[_] = if role == Role::Client { &self.files } else { &[] };
        self.site.run_with_files(files, || Process::start(format!("{role:?}"), command))
    }

    fn server(&self) -> Process {
        let server = self.start(Role::Server, &self.plan.server_toml());
        server.wait_for("server is listening");
        server
    }

    /// The client's file, with names for the local services that shall have them.
    fn client_toml(&self) -> String {
        let here = format!("\"localhost:{}\"", self.local.addr.port());
        let text = self.plan.client_toml().replace(&format!("\"{}\"", address(78, HERE)), &here);
        (0..MANY).step_by(NAMED).fold(text, |text, n| {
            text.replace(&format!("\"{}\"", address(78, n)), &format!("\"local-{n}.test:4000\""))
        })
    }

    /// The same, with a name for the server.
    fn with_named_server(&self) -> String {
        let (addr, port) = (self.plan.server_addr, self.plan.server_addr.port());
        self.client_toml().replace(&format!("\"{addr}\""), &format!("\"server.test:{port}\""))
    }

    /// One whose local service has a number is served at once.
    fn is_served(&self, n: usize) -> Duration {
        assert_ne!(n % NAMED, 0);
        let begun = Instant::now();
        self.site.run(|| visitor::echo(address(77, n), b"hello", true));
        begun.elapsed()
    }

    /// It was asked, which is what this is about.
    fn was_asked(&self) {
        assert!(self.name_server.recv(&mut [0; 512]).is_ok(), "nobody has asked the name server");
    }
}

fn threads(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", process.id())).unwrap().count()
}

/// A reload is done within seconds.
fn reloads(client: &Process) {
    let before = client.log().matches("reloaded: ").count();
    let begun = Instant::now();
    client.signal(Signal::SIGHUP);
    client.wait_for_times("reloaded: ", before + 1);
    assert!(begun.elapsed() < SOON, "reloaded after {:?}", begun.elapsed());
}

fn stops(mut client: Process, within: Duration) {
    client.signal(Signal::SIGTERM);
    let status = client.wait_within(within);
    assert!(status.success(), "{status}");
}

#[test]
fn local_services_whose_names_nobody_knows_hold_up_no_others() {
    let Some(scene) = Scene::set("faults::resolver: local services") else { return };
    let _server = scene.server();
    let client = scene.start(Role::Client, &scene.client_toml());
    client.wait_for_times("connected to the server", MANY);
    let idle = threads(&client);
    // Two visitors for each name: more than may be looked up at a time.
    let hung: Vec<_> = (0..2 * MANY)
        .filter(|n| n % NAMED == 0)
        .map(|n| scene.site.run(|| visitor::connect(address(77, n % MANY))))
        .collect();
    net::wait("lookups are stuck", || threads(&client) >= idle + 60);
    scene.is_served(HERE);
    let slowest = (2..MANY).step_by(29).filter(|n| n % NAMED != 0).map(|n| scene.is_served(n)).max().unwrap();
    assert!(slowest < SOON, "{slowest:?}");
    reloads(&client);
    // Another service, while lookups are stuck: one that had a name gets a number.
    let number = address(78, 0).to_string();
    let text = scene.client_toml().replace("local-0.test:4000", &number);
    let moved = scene.site.hold(|| Local::tcp_on(TcpListener::bind(&number).unwrap(), service::echo));
    scene.plan.write("client.toml", &text);
    reloads(&client);
    client.wait_for("1 service changed (service-0000)");
    scene.site.run(|| visitor::wait_served(address(77, 0)));
    let most = threads(&client);
    announce(&format!(
        "silent name server: {} visitors wait for names; others are served within {slowest:.1?}; {most} threads",
        hung.len()
    ));
    assert!(most <= MOST_THREADS, "{most} threads");
    scene.was_asked();
    // With the grace for visitors.
    stops(client, s(3) + SOON);
    drop(moved);
}

#[test]
fn a_server_whose_name_nobody_knows_is_replaced_by_a_reload() {
    let Some(scene) = Scene::set("faults::resolver: the server") else { return };
    let _server = scene.server();
    let client = scene.start(Role::Client, &scene.with_named_server());
    client.wait_for("client is starting");
    net::wait("the name server is asked", || scene.name_server.peek(&mut [0; 512]).is_ok());
    reloads(&client);
    client.wait_for("resolving the server's name took too long");
    let most = threads(&client);
    assert!(most <= 8 + 64, "{most} threads");
    // Told once, not for each service.
    assert!(client.log().matches("no control channel").count() <= 2, "{}", client.log());
    scene.plan.write("client.toml", &scene.client_toml());
    reloads(&client);
    let begun = Instant::now();
    client.wait_for_times("connected to the server", MANY);
    announce(&format!(
        "silent name server: {most} threads of a client; {MANY} services are connected {:.1?} after it got an address",
        begun.elapsed()
    ));
    scene.is_served(MANY - 1);
    stops(client, SOON);
    // And while nothing is known.
    let client = scene.start(Role::Client, &scene.with_named_server());
    client.wait_for("resolving the server's name took too long");
    stops(client, SOON);
    scene.was_asked();
}
