//! `rathole server --bind ...`, and the command it prints for the other side.

use super::*;

/// Runs it until a signal.
pub fn run_server(plan: ServerPlan) -> Exit {
    #[cfg(feature = "server")]
    return run::run(plan);
    #[cfg(not(feature = "server"))]
    {
        let _ = plan;
        crate::cli::needs("server", "server")
    }
}

#[cfg(feature = "server")]
mod run {
    use super::*;

    use std::fmt::Write as _;
    use std::net::{IpAddr, SocketAddr};

    use rathole::config::{
        self, Endpoint, Host, Secret, ServerKind, ServerService, ServerTransport, TcpOptions,
    };

    use crate::adhoc::plan::{KeySource, Service};
    use crate::adhoc::token::{DEFAULT_ENV, TokenSource};
    use crate::instance::{self, Addresses};

    pub(super) fn run(plan: ServerPlan) -> Exit {
        crate::log::init("info", plan.visitor_log);
        let (token, made) = match plan.token.read() {
            Ok(Some(token)) => (token, false),
            Ok(None) => match make_token() {
                Ok(token) => (token, true),
                Err(why) => return refuse(&why, Exit::Runtime),
            },
            Err(why) => return refuse(&why, Exit::Config),
        };
        let (transport, pin) = match transport(plan.noise.as_ref()) {
            Ok(transport) => transport,
            Err(why) => return refuse(&why, Exit::Config),
        };
        if pin.is_none() && !matches!(plan.bind.host, Host::Ip(ip) if ip.is_loopback()) {
            tracing::warn!(
                "--plain-tcp: everybody between client and server can read and change what is sent"
            );
        }
        let offer = Offer { bind: plan.bind, services: plan.services, source: plan.token, made, pin };
        let server = config(&offer, transport, &token);
        match instance::Plan::new(Some(server), None) {
            Ok(ready) => ready.run(None, &|addresses| offer.print(addresses, &token), &|key, message| {
                format!("error: {}: {message}", option(key))
            }),
            Err(faults) => {
                for (key, message) in faults {
                    refuse(&format!("{key}: {message}"), Exit::Config);
                }
                Exit::Config
            }
        }
    }

    /// The argument that a configuration key came from.
    fn option(key: &str) -> String {
        match key.strip_prefix("server.services.").and_then(|rest| rest.strip_suffix(".bind_addr")) {
            Some(service) => format!("--service {service}"),
            None if key == "server.bind_addr" => "--bind".to_owned(),
            None => key.to_owned(),
        }
    }

    /// 192 random bits, in characters that need no quotes.
    fn make_token() -> Result<Secret, String> {
        let mut bytes = zeroize::Zeroizing::new([0u8; 24]);
        getrandom::fill(&mut *bytes).map_err(|error| format!("cannot make a token: {error}"))?;
        let mut text = String::with_capacity(48);
        for byte in bytes.iter() {
            let _ = write!(text, "{byte:02x}");
        }
        Ok(Secret::new(text))
    }

    /// The transport, and the public key that a client is to pin.
    fn transport(noise: Option<&KeySource>) -> Result<(ServerTransport, Option<String>), String> {
        let Some(_source) = noise else { return Ok((ServerTransport::Tcp, None)) };
        #[cfg(feature = "noise")]
        {
            use rathole::transport::noise::{Keypair, to_base64};
            let pair = match _source {
                KeySource::File(path) => crate::adhoc::key_file::read_or_make(path)?,
                KeySource::Fresh => {
                    Keypair::generate().map_err(|error| format!("cannot make a key: {error}"))?
                }
            };
            let noise = config::Noise {
                pattern: config::DEFAULT_NOISE_PATTERN.to_owned(),
                local_private_key: Some(pair.private),
                remote_public_key: None,
            };
            Ok((ServerTransport::Noise(noise), Some(to_base64(&pair.public))))
        }
        // The plan has refused it.
        #[cfg(not(feature = "noise"))]
        Err("this rathole was built without the feature `noise`".to_owned())
    }

    fn config(offer: &Offer, transport: ServerTransport, token: &Secret) -> config::Server {
        let tcp = TcpOptions::default();
        let services = offer.services.iter().map(|service| {
            let kind = if service.udp { ServerKind::Udp } else { ServerKind::Tcp { proxy_protocol: None } };
            let config = ServerService {
                name: service.name.clone(),
                bind_addr: service.addr.clone(),
                token: token.clone(),
                nodelay: tcp.nodelay,
                kind,
                limits: config::Limits::DEFAULT,
                access: config::Access::default(),
            };
            (service.name.clone(), config)
        });
        config::Server {
            bind_addr: offer.bind.clone(),
            transport,
            tcp,
            heartbeat_interval: Some(HEARTBEAT_INTERVAL),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            shutdown_grace: SHUTDOWN_GRACE,
            visitor_timeout: VISITOR_TIMEOUT,
            on_duplicate: config::OnDuplicate::Replace,
            token_grace: config::DEFAULT_TOKEN_GRACE,
            max_unauthenticated: config::MaxUnauthenticated::DEFAULT,
            services: services.collect(),
        }
    }

    /// What the other side needs to know.
    struct Offer {
        bind: Endpoint,
        services: Vec<Service>,
        source: TokenSource,
        /// Whether the token was made here: then nobody knows it yet.
        made: bool,
        /// None: plain TCP.
        pin: Option<String>,
    }

    impl Offer {
        fn print(&self, addresses: &Addresses, token: &Secret) {
            let command = zeroize::Zeroizing::new(self.command(addresses, token));
            // If nobody reads it, the server works all the same.
            if let Err(error) = output::print(&command) {
                tracing::warn!("cannot print the client's command: {error}");
            }
            let mut hints = Vec::new();
            if command.contains(" HOST:") {
                hints.push("HOST is this machine's public name or address");
            }
            hints.push("the addresses after --service are on the client's side");
            if !self.made {
                hints.push("the client needs the same token");
            }
            tracing::info!("listening; on the other side run the command on stdout ({})", hints.join("; "));
        }

        /// One line for a shell.
        fn command(&self, addresses: &Addresses, token: &Secret) -> String {
            let mut command = String::new();
            let (before, after) = match &self.source {
                TokenSource::Default if self.made => {
                    (format!("{DEFAULT_ENV}={} ", String::from_utf8_lossy(token.expose())), String::new())
                }
                TokenSource::Default => (format!("{DEFAULT_ENV}=\"${DEFAULT_ENV}\" "), String::new()),
                TokenSource::Env(name) => {
                    (format!("{name}=\"${name}\" "), format!(" --token-env {}", quoted(name)))
                }
                TokenSource::File(path) => {
                    (String::new(), format!(" --token-file {}", quoted(&path.to_string_lossy())))
                }
                TokenSource::Stdin => (String::new(), " --token-file -".to_owned()),
            };
            command += &before;
            command += "rathole client --to ";
            let port = addresses.control.map_or(self.bind.port, |addr| addr.port());
            command += &match &self.bind.host {
                Host::Ip(ip) if ip.is_unspecified() => format!("HOST:{port}"),
                Host::Ip(IpAddr::V6(ip)) => quoted(&format!("[{ip}]:{port}")),
                host => format!("{host}:{port}"),
            };
            match &self.pin {
                Some(pin) => command += &format!(" --noise-pin {pin}"),
                None => command += " --plain-tcp",
            }
            command += &after;
            for service in &self.services {
                let bound = addresses.services.get(&service.name).map_or(service.addr.port, SocketAddr::port);
                let port = local_port(&service.name, service.udp).unwrap_or(bound);
                let udp = if service.udp { "udp:" } else { "" };
                command +=
                    &format!(" --service {}", quoted(&format!("{}={udp}127.0.0.1:{port}", service.name)));
            }
            command.push('\n');
            command
        }
    }

    /// Where a service of this name usually is. Others: the port that visitors use.
    fn local_port(name: &str, udp: bool) -> Option<u16> {
        let port = match (name.to_ascii_lowercase().as_str(), udp) {
            ("ssh" | "sftp", false) => 22,
            ("smtp", false) => 25,
            ("dns", _) => 53,
            ("http" | "web" | "www" | "nginx" | "caddy", false) => 80,
            ("ntp", true) => 123,
            ("imap", false) => 143,
            ("https", _) => 443,
            ("mysql" | "mariadb", false) => 3306,
            ("rdp", _) => 3389,
            ("postgres" | "postgresql", false) => 5432,
            ("vnc", false) => 5900,
            ("redis", false) => 6379,
            ("minecraft", false) => 25565,
            ("wireguard", true) => 51820,
            _ => return None,
        };
        Some(port)
    }

    /// In single quotes if a shell would see more than a word.
    fn quoted(word: &str) -> String {
        let plain = |c: char| c.is_alphanumeric() || "-_./:=@%+,".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.to_owned()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn offer(bind: &str, source: TokenSource, pin: Option<&str>) -> String {
            let services = vec![
                Service { name: "ssh".into(), udp: false, addr: Endpoint::parse("0.0.0.0:5202").unwrap() },
                Service { name: "it's".into(), udp: true, addr: Endpoint::parse("0.0.0.0:5300").unwrap() },
            ];
            let made = source == TokenSource::Default;
            let bind = Endpoint::parse(bind).unwrap();
            let offer = Offer { bind, services, source, made, pin: pin.map(str::to_owned) };
            offer.command(&Addresses::default(), &Secret::new("abc"))
        }

        #[test]
        fn the_command_is_complete() {
            assert_eq!(
                offer("0.0.0.0:2333", TokenSource::Default, Some("KEY=")),
                "RATHOLE_TOKEN=abc rathole client --to HOST:2333 --noise-pin KEY= --service ssh=127.0.0.1:22 \
                 --service 'it'\\''s=udp:127.0.0.1:5300'\n"
            );
            assert_eq!(
                offer("[::1]:7", TokenSource::File("a b".into()), None),
                "rathole client --to '[::1]:7' --plain-tcp --token-file 'a b' --service ssh=127.0.0.1:22 \
                 --service 'it'\\''s=udp:127.0.0.1:5300'\n"
            );
        }

        #[test]
        fn a_given_token_is_not_printed() {
            for source in
                [TokenSource::Env("T".to_owned()), TokenSource::Stdin, TokenSource::File("f".into())]
            {
                assert!(!offer("h:1", source, None).contains("abc"));
            }
        }
    }
}
