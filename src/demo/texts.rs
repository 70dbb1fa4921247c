//! The two configuration files of the demo, with throw-away secrets.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rathole::config;
use rathole::transport::noise::{Keypair, to_base64};

/// The service's name.
pub const SERVICE: &str = "web";

/// Fresh keys and a fresh token.
pub struct Texts {
    token: String,
    private: String,
    public: String,
}

impl Texts {
    /// Fails only if the system gives no randomness.
    pub fn new() -> io::Result<Texts> {
        let pair = Keypair::generate()?;
        let token = Keypair::generate()?;
        Ok(Texts {
            token: to_base64(token.private.expose()),
            private: to_base64(pair.private.expose()),
            public: to_base64(&pair.public),
        })
    }

    /// `server.toml`.
    pub fn server(&self, control: SocketAddr, visitors: SocketAddr) -> String {
        let Texts { token, private, .. } = self;
        format!(
            "[server]
bind_addr = \"{control}\"  # <- edit: \"0.0.0.0:2333\", where clients connect

[server.transport]
type = \"noise\"

[server.transport.noise]
local_private_key = \"{private}\"  # <- edit: make your own with `rathole genkey`

[server.services.{SERVICE}]
token = \"{token}\"  # <- edit: your own, the same on both sides
bind_addr = \"{visitors}\"  # <- edit: \"0.0.0.0:8080\", where visitors connect
"
        )
    }

    /// `client.toml`.
    pub fn client(&self, server: SocketAddr, local: SocketAddr) -> String {
        let Texts { token, public, .. } = self;
        format!(
            "[client]
remote_addr = \"{server}\"  # <- edit: \"your-server.example:2333\"

[client.transport]
type = \"noise\"

[client.transport.noise]
remote_public_key = \"{public}\"  # <- edit: the public key of the server's pair

[client.services.{SERVICE}]
token = \"{token}\"  # <- edit: your own, the same on both sides
local_addr = \"{local}\"  # <- edit: \"127.0.0.1:80\", your own service
"
        )
    }

    /// What there is to see.
    pub fn introduction(&self, control: SocketAddr, visitors: SocketAddr, page: SocketAddr) -> String {
        format!(
            "A server, a client and a small web page are running in this process.

Open http://{visitors}/ in a browser, or: curl http://{visitors}/

  visitor -> server {visitors} == Noise tunnel through {control} ==> client -> page {page}

For two machines: edit the marked lines (the secrets below are for this demo only).

# ---- server.toml: on the machine with a public address, run: rathole server.toml
{}
# ---- client.toml: on the machine with the service, run: rathole client.toml
{}
# ---- {} ends it. Counters (bytes up: from visitors, down: to them):
",
            self.server(control, visitors),
            self.client(control, page),
            "Ctrl-C"
        )
    }
}

/// One text as the only file there is.
pub struct Files {
    name: PathBuf,
    text: String,
}

impl Files {
    /// Under this name.
    pub fn new(name: &str, text: String) -> Files {
        Files { name: name.into(), text }
    }
}

impl config::Files for Files {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path == self.name {
            Ok(self.text.clone().into_bytes())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn mode(&self, _: &Path) -> Option<u32> {
        None
    }
}
