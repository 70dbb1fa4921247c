//! A server and a client at the two ends of a line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::site::Site;
use super::{Line, SERVER};
use crate::common::net;
use crate::common::process::Process;
use crate::common::tunnel::{Build, Kind, Link, Plan, Role, Service};

/// Both processes and their files. Visitors are in the server's site, so that only what is between server and client
/// passes the line; local services are in the client's.
pub struct Tunnel {
    client: Option<Process>,
    server: Option<Process>,
    /// Whose programs.
    pub build: Build,
    /// The configuration; changes are for processes that are started later.
    pub plan: Plan,
    /// Where the client finds the server, if not at the plan's address.
    pub remote: Option<String>,
    /// Environment of both processes.
    pub environment: Vec<(String, String)>,
    /// Files that the client shall see in the place of others.
    pub files: Vec<(String, PathBuf)>,
    /// What is between them.
    pub line: Line,
}

impl Tunnel {
    /// Of services with these names, kinds and local addresses; nothing is started yet.
    pub fn new(line: Line, build: Build, link: Link, services: &[(&str, Kind, SocketAddr)]) -> Self {
        let visitors = || line.server.run(|| net::address_on(Ipv4Addr::LOCALHOST.into()));
        let services = services
            .iter()
            .map(|(name, kind, local)| Service { visitors: visitors(), ..Service::new(name, *kind, *local) })
            .collect();
        let mut plan = Plan::new(link, services);
        plan.server_addr = line.server.run(|| net::address_on(SERVER.into()));
        Tunnel {
            client: None,
            server: None,
            build,
            plan,
            remote: None,
            environment: Vec::new(),
            files: Vec::new(),
            line,
        }
    }

    /// Dead peers shall be noticed soon: a heartbeat every so many seconds, silence of twice as many is death.
    pub fn heartbeat(&mut self, seconds: u32) {
        self.plan.server_lines += &format!("heartbeat_interval = {seconds}\n");
        self.plan.client_lines += &format!("heartbeat_timeout = {}\n", 2 * seconds);
    }

    /// Where visitors of the first service come.
    pub fn visitors(&self) -> SocketAddr {
        self.plan.services[0].visitors
    }

    /// Where processes of a role are.
    pub fn site(&self, role: Role) -> &Site {
        match role {
            Role::Server => &self.line.server,
            Role::Client => &self.line.client,
        }
    }

    /// Starts a process, or starts it again; a server listens when this returns.
    pub fn start(&mut self, role: Role) {
        let (name, mut text) = match role {
            Role::Server => ("server.toml", self.plan.server_toml()),
            Role::Client => ("client.toml", self.plan.client_toml()),
        };
        if let (Role::Client, Some(remote)) = (role, &self.remote) {
            text = text.replace(&self.plan.server_addr.to_string(), remote);
        }
        let config = self.plan.write(name, &text);
        let mut command = self.build.command(role, &config);
        // At debug, a long run would be about logging.
        command.env("RUST_LOG", "info").envs(self.environment.iter().cloned());
        let files: &[_] = if role == Role::Client { &self.files } else { &[] };
        let label = format!("{:?} {role:?}", self.build);
        let process = self.site(role).run_with_files(files, || Process::start(label, command));
        match role {
            Role::Client => self.client = Some(process),
            Role::Server => self.server = Some(process),
        }
        if role == Role::Server {
            let address = self.plan.server_addr;
            self.line.server.run(|| net::wait_listening(address));
        }
    }

    /// Starts both.
    pub fn start_both(&mut self) {
        self.start(Role::Server);
        self.start(Role::Client);
    }

    /// The running process of a role.
    pub fn process(&mut self, role: Role) -> &mut Process {
        match role {
            Role::Server => self.server.as_mut(),
            Role::Client => self.client.as_mut(),
        }
        .expect("it was started")
    }

    /// Both running processes: the server, the client.
    pub fn processes(&self) -> (&Process, &Process) {
        (self.server.as_ref().expect("it was started"), self.client.as_ref().expect("it was started"))
    }
}
