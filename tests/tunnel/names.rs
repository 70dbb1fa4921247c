//! Names whose addresses come late and change: looked up again whenever that may help, never the end of anything.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;

use super::common::process::Process;
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Service};
use super::common::visitor::{self, UdpVisitor};
use super::common::{net, skip};
use super::silence::Silent;

/// A file in place of /etc/hosts, for one process; no name is asked of anybody else.
struct Hosts {
    hosts: PathBuf,
    switch: PathBuf,
    /// How this user gets a mount namespace.
    unshare: &'static [&'static str],
}

impl Hosts {
    /// None: this user may not mount anything; `test` is skipped then.
    fn new(plan: &Plan, test: &str) -> Option<Self> {
        let works = |flags: &&&[&str]| {
            let mounts =
                Command::new("unshare").args(**flags).args(["mount", "--bind", "/etc", "/etc"]).output();
            mounts.is_ok_and(|output| output.status.success())
        };
        let ways: [&'static [&'static str]; 2] = [&["-m"], &["-rm"]];
        let Some(unshare) = ways.iter().find(works) else {
            skip(test, "no mount namespace for this user");
            return None;
        };
        let (hosts, switch) = (plan.write("hosts", ""), plan.write("nsswitch.conf", "hosts: files\n"));
        Some(Hosts { hosts, switch, unshare })
    }

    /// From now on the name has these addresses, and no others.
    fn set(&self, name: &str, addresses: &[IpAddr]) {
        let lines: String = addresses.iter().map(|address| format!("{address} {name}\n")).collect();
        // In place: it is mounted.
        std::fs::write(&self.hosts, lines).unwrap();
    }

    /// A client of ours that sees these names.
    fn client(&self, plan: &Plan, toml: &str) -> Process {
        let script = "mount --bind \"$1\" /etc/hosts && mount --bind \"$2\" /etc/nsswitch.conf && exec \"$0\" client \"$3\"";
        let mut command = Command::new("unshare");
        command.args(self.unshare).args(["sh", "-c", script]).arg(Build::Ours.program());
        command.args([&self.hosts, &self.switch, &plan.write("client.toml", toml)]);
        command.env("RUST_LOG", "debug").env("NO_COLOR", "1");
        Process::start("client with names of its own", command)
    }
}

const NAME: &str = "tunnel.test";

/// The name comes late, then has another address, then several of which one does not answer.
#[test]
fn the_server_s_name_is_looked_up_at_each_attempt() {
    let local = Local::echo();
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    let visitors = plan.services[0].visitors;
    let Some(hosts) = Hosts::new(&plan, "tunnel::names::the_server_s_name_is_looked_up_at_each_attempt")
    else {
        return;
    };
    let port = plan.server_addr.port();
    let toml = plan.client_toml().replace(&plan.server_addr.to_string(), &format!("{NAME}:{port}"));
    let client = hosts.client(&plan, &toml);
    client.wait_for_times(&format!("cannot resolve {NAME}"), 2);
    for round in 1..=3 {
        // Another host of this process alone, but the port of the configuration.
        plan.server_addr = SocketAddr::new(net::address().ip(), port);
        let silent = (round == 3).then(|| Silent::on(SocketAddr::new(net::address().ip(), port)));
        let mut server = plan.start_server(Build::Ours);
        let addresses: Vec<_> =
            silent.iter().map(|silent| silent.addr.ip()).chain([plan.server_addr.ip()]).collect();
        hosts.set(NAME, &addresses);
        visitor::wait_served(visitors);
        // More than there are idle channels: new ones go to the address that answered.
        for _ in 0..30 {
            visitor::echo(visitors, b"hello", true);
        }
        server.kill();
        client.wait_for_times("closed by the server", round);
    }
}

/// A visitor that is there all the time finds the local service where it has moved.
#[test]
fn a_local_udp_service_moves() {
    let (old, new) = (net::address(), net::address());
    let new = SocketAddr::new(new.ip(), old.port());
    let plan = Plan::new(Link::tcp(), vec![Service::udp("udp", old)]);
    let Some(hosts) = Hosts::new(&plan, "tunnel::names::a_local_udp_service_moves") else { return };
    hosts.set(NAME, &[old.ip()]);
    let first = Local::udp_echo_on(UdpSocket::bind(old).unwrap());
    let _server = plan.start_server(Build::Ours);
    let toml = plan.client_toml().replace(&old.to_string(), &format!("{NAME}:{}", old.port()));
    let _client = hosts.client(&plan, &toml);
    let mut visitor = UdpVisitor::new(plan.services[0].visitors);
    visitor.wait_served();
    drop(first);
    let _second = Local::udp_echo_on(UdpSocket::bind(new).unwrap());
    hosts.set(NAME, &[new.ip()]);
    visitor.wait_served();
}
