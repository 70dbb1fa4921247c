//! A server and a client with their configurations.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::certs::{Certs, P12_PASSWORD};
use super::keys::KeyPair;
use super::net;
use super::process::Process;

/// The token of services that need no other.
pub const TOKEN: &str = "tunnel-token-7Yh2kd93LmQx";

/// Whose program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// This package's.
    Ours,
    /// rathole 0.5.0.
    Peer,
}

/// Half of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// With the public address.
    Server,
    /// Behind NAT.
    Client,
}

impl Build {
    /// Where it is.
    pub fn program(self) -> PathBuf {
        match self {
            Build::Ours => PathBuf::from(env!("CARGO_BIN_EXE_rathole")),
            Build::Peer => super::peer().expect(super::PEER_HINT),
        }
    }

    /// The command that runs one role.
    pub fn command(self, role: Role, config: &Path) -> Command {
        let mut command = Command::new(self.program());
        command.arg(match (self, role) {
            (Build::Ours, Role::Server) => "server",
            (Build::Ours, Role::Client) => "client",
            (Build::Peer, Role::Server) => "--server",
            (Build::Peer, Role::Client) => "--client",
        });
        command.arg(config).env("RUST_LOG", "debug").env("NO_COLOR", "1");
        command
    }

    /// Starts one role.
    pub fn start(self, role: Role, config: &Path) -> Process {
        Process::start(format!("{self:?} {role:?}"), self.command(role, config))
    }
}

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

/// One service in both files.
#[derive(Debug, Clone)]
pub struct Service {
    /// The key of its tables.
    pub name: String,
    /// What it carries.
    pub kind: Kind,
    /// Where visitors connect.
    pub visitors: SocketAddr,
    /// The local service.
    pub local: SocketAddr,
    /// More lines for the server's table.
    pub server_lines: String,
    /// More lines for the client's table.
    pub client_lines: String,
}

impl Service {
    /// A service with an address of its own for visitors.
    pub fn new(name: &str, kind: Kind, local: SocketAddr) -> Self {
        Service {
            name: name.to_owned(),
            kind,
            visitors: net::address(),
            local,
            server_lines: String::new(),
            client_lines: String::new(),
        }
    }

    /// A TCP service.
    pub fn tcp(name: &str, local: SocketAddr) -> Self {
        Service::new(name, Kind::Tcp, local)
    }

    /// A UDP service.
    pub fn udp(name: &str, local: SocketAddr) -> Self {
        Service::new(name, Kind::Udp, local)
    }
}

/// How bytes are carried: the transport tables of both files.
#[derive(Debug, Clone)]
pub struct Link {
    /// For reports.
    pub name: String,
    /// Everything after `[server.transport]`.
    pub server: String,
    /// Everything after `[client.transport]`; `[client.transport.tcp]` may still be appended.
    pub client: String,
    /// Whether 0.5.0 keeps half-close on it.
    pub half_close: bool,
}

impl Link {
    /// Plain.
    pub fn tcp() -> Self {
        let table = "type = \"tcp\"\n".to_owned();
        Link { name: "tcp".to_owned(), server: table.clone(), client: table, half_close: true }
    }

    /// TLS with a PKCS#12 archive, as 0.5.0 wants it.
    pub fn tls(certs: &Certs, archive: &Path) -> Self {
        let (server, client) = tls_tables(certs, archive);
        Link {
            name: "tls".to_owned(),
            server: format!("type = \"tls\"\n{server}"),
            client: format!("type = \"tls\"\n{client}"),
            half_close: true,
        }
    }

    /// TLS with PEM files, which only ours reads.
    pub fn tls_pem(certs: &Certs) -> Self {
        let mut link = Link::tls(certs, &certs.p12_modern);
        link.name = "tls-pem".to_owned();
        link.server = format!(
            "type = \"tls\"\n[server.transport.tls]\ncert = {:?}\nkey = {:?}\n",
            certs.chain.display().to_string(),
            certs.key.display().to_string()
        );
        link
    }

    /// WebSocket.
    pub fn websocket() -> Self {
        let table = |role: &str| format!("type = \"websocket\"\n[{role}.transport.websocket]\ntls = false\n");
        Link {
            name: "websocket".to_owned(),
            server: table("server"),
            client: table("client"),
            half_close: false,
        }
    }

    /// WebSocket over TLS.
    pub fn websocket_tls(certs: &Certs, archive: &Path) -> Self {
        let (server, client) = tls_tables(certs, archive);
        let table = |role: &str, tls: &str| {
            format!("type = \"websocket\"\n[{role}.transport.websocket]\ntls = true\n{tls}")
        };
        Link {
            name: "websocket+tls".to_owned(),
            server: table("server", &server),
            client: table("client", &client),
            half_close: false,
        }
    }

    /// Noise. Each side is given the keys that the pattern's letters demand: the first is the client's,
    /// the second the server's; N: none, K: known in advance, X and I: sent (and pinned by us).
    /// `pin_sent`: also give the pins of keys that are sent.
    pub fn noise(pattern: &str, server: &KeyPair, client: &KeyPair, pin_sent: bool) -> Self {
        let letters: Vec<char> =
            pattern.split('_').nth(1).unwrap().chars().filter(char::is_ascii_uppercase).collect();
        let [client_letter, server_letter] = letters[..] else { panic!("{pattern}: two letters expected") };
        let table = |role: &str, own: char, own_key: &KeyPair, other: char, other_key: &KeyPair| {
            let mut text = format!("type = \"noise\"\n[{role}.transport.noise]\npattern = {pattern:?}\n");
            if own != 'N' {
                writeln!(text, "local_private_key = {:?}", own_key.private).unwrap();
            }
            if other == 'K' || (pin_sent && other != 'N') {
                writeln!(text, "remote_public_key = {:?}", other_key.public).unwrap();
            }
            text
        };
        let short = pattern.trim_start_matches("Noise_").replace("25519_", "");
        Link {
            name: format!("noise {short}"),
            server: table("server", server_letter, server, client_letter, client),
            client: table("client", client_letter, client, server_letter, server),
            half_close: true,
        }
    }
}

fn tls_tables(certs: &Certs, archive: &Path) -> (String, String) {
    let server = format!(
        "[server.transport.tls]\npkcs12 = {:?}\npkcs12_password = {P12_PASSWORD:?}\n",
        archive.display().to_string()
    );
    let client = format!(
        "[client.transport.tls]\ntrusted_root = {:?}\nhostname = \"localhost\"\n",
        certs.ca.display().to_string()
    );
    (server, client)
}

/// As a TOML key or string, whatever it is.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => write!(quoted, "\\u{:04x}", u32::from(c)).unwrap(),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// The two files of a tunnel, and what to change in them before it starts.
pub struct Plan {
    /// Where the files go.
    pub dir: TempDir,
    /// Where the client finds the server.
    pub server_addr: SocketAddr,
    /// How bytes are carried.
    pub link: Link,
    /// What is served.
    pub services: Vec<Service>,
    /// More lines for `[server]`.
    pub server_lines: String,
    /// More lines for `[client]`.
    pub client_lines: String,
    /// A proxy's URL.
    pub proxy: Option<String>,
    /// The token of all services, as the server knows it.
    pub server_token: String,
    /// The token of all services, as the client knows it.
    pub client_token: String,
}

impl Plan {
    /// Services over a link.
    pub fn new(link: Link, services: Vec<Service>) -> Self {
        Plan {
            dir: tempfile::tempdir().unwrap(),
            server_addr: net::address(),
            link,
            services,
            server_lines: String::new(),
            client_lines: String::new(),
            proxy: None,
            server_token: TOKEN.to_owned(),
            client_token: TOKEN.to_owned(),
        }
    }

    /// The server's half.
    pub fn server_toml(&self) -> String {
        let mut text = format!(
            "[server]\nbind_addr = \"{}\"\ndefault_token = {:?}\n{}[server.transport]\n{}[server.services]\n",
            self.server_addr, self.server_token, self.server_lines, self.link.server
        );
        for service in &self.services {
            write!(
                text,
                "[server.services.{}]\ntype = {:?}\nbind_addr = \"{}\"\n{}",
                quoted(&service.name),
                service.kind.key(),
                service.visitors,
                service.server_lines
            )
            .unwrap();
        }
        text
    }

    /// The client's half.
    pub fn client_toml(&self) -> String {
        let mut text = format!(
            "[client]\nremote_addr = \"{}\"\ndefault_token = {:?}\n{}[client.transport]\n{}",
            self.server_addr, self.client_token, self.client_lines, self.link.client
        );
        if let Some(url) = &self.proxy {
            write!(text, "[client.transport.tcp]\nproxy = {url:?}\n").unwrap();
        }
        text.push_str("[client.services]\n");
        for service in &self.services {
            write!(
                text,
                "[client.services.{}]\ntype = {:?}\nlocal_addr = \"{}\"\n{}",
                quoted(&service.name),
                service.kind.key(),
                service.local,
                service.client_lines
            )
            .unwrap();
        }
        text
    }

    /// Writes a file into the plan's directory, readable by its owner only.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Starts the server and waits until it listens for clients.
    pub fn start_server(&self, build: Build) -> Process {
        let mut server = build.start(Role::Server, &self.write("server.toml", &self.server_toml()));
        net::wait(&format!("nobody listens on {}", self.server_addr), || {
            assert!(server.is_running(), "the server has ended");
            net::listens(self.server_addr)
        });
        server
    }

    /// Starts a server of ours that may have so many open files.
    pub fn start_server_with(&self, open_files: usize) -> Process {
        let server = start_with(open_files, &self.write("server.toml", &self.server_toml()));
        net::wait_listening(self.server_addr);
        server
    }

    /// Starts the client.
    pub fn start_client(&self, build: Build) -> Process {
        build.start(Role::Client, &self.write("client.toml", &self.client_toml()))
    }

    /// Starts both, and waits until visitors find somebody. Drop order: the client first.
    pub fn start(&self, server: Build, client: Build) -> (Process, Process) {
        let server = self.start_server(server);
        let client = self.start_client(client);
        for service in &self.services {
            match service.kind {
                Kind::Tcp => net::wait_listening(service.visitors),
                Kind::Udp => net::wait_bound_udp(service.visitors),
            }
        }
        (client, server)
    }
}

/// Starts what a file says, with at most so many open files.
pub fn start_with(open_files: usize, config: &Path) -> Process {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -n {open_files} && exec \"$0\" \"$1\""));
    command.arg(Build::Ours.program()).arg(config).env("RUST_LOG", "info").env("NO_COLOR", "1");
    Process::start(format!("{} with {open_files} open files", config.display()), command)
}

impl Kind {
    fn key(self) -> &'static str {
        match self {
            Kind::Tcp => "tcp",
            Kind::Udp => "udp",
        }
    }
}
