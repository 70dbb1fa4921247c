//! The arguments of an ad hoc run, checked: pure, nothing is opened.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use rathole::config::Endpoint;

use super::token::TokenSource;

/// The arguments as given, of either role.
#[derive(Debug, Default)]
pub struct PlanArgs {
    pub bind: Option<String>,
    pub to: Option<String>,
    pub services: Vec<String>,
    pub noise_key_file: Option<PathBuf>,
    pub noise_pin: Option<String>,
    pub token_file: Option<PathBuf>,
    pub token_env: Option<String>,
    pub plain_tcp: bool,
}

impl PlanArgs {
    /// The first of these options that was given, for an error.
    pub fn first_given(&self) -> Option<&'static str> {
        let options = [
            (self.bind.is_some(), "--bind"),
            (self.to.is_some(), "--to"),
            (!self.services.is_empty(), "--service"),
            (self.noise_key_file.is_some(), "--noise-key-file"),
            (self.noise_pin.is_some(), "--noise-pin"),
            (self.token_file.is_some(), "--token-file"),
            (self.token_env.is_some(), "--token-env"),
            (self.plain_tcp, "--plain-tcp"),
        ];
        options.into_iter().find(|(given, _)| *given).map(|(_, option)| option)
    }
}

/// A server without a file.
#[derive(Debug)]
pub struct ServerPlan {
    pub bind: Endpoint,
    pub services: Vec<Service>,
    pub token: TokenSource,
    /// None: plain TCP.
    pub noise: Option<KeySource>,
    pub visitor_log: bool,
}

/// Where a server's private key comes from.
#[derive(Debug)]
#[cfg_attr(not(feature = "noise"), allow(dead_code))]
pub enum KeySource {
    /// Made for this run.
    Fresh,
    /// Kept in a file, which is made if absent.
    File(PathBuf),
}

/// A client without a file.
#[derive(Debug)]
pub struct ClientPlan {
    pub to: Endpoint,
    pub services: Vec<Service>,
    pub token: TokenSource,
    /// The server's public key; None: plain TCP.
    pub pin: Option<[u8; 32]>,
    pub visitor_log: bool,
}

/// `NAME=[udp:]ADDR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub name: Arc<str>,
    pub udp: bool,
    pub addr: Endpoint,
}

impl ServerPlan {
    /// Checks them, or says in one sentence what is wrong.
    pub fn new(args: PlanArgs, visitor_log: bool) -> Result<ServerPlan, String> {
        let bind = args.bind.ok_or("a CONFIG is missing, or '--bind ADDR' to run without a file")?;
        let noise = match (args.noise_key_file, args.plain_tcp) {
            (Some(_), true) => return Err("'--noise-key-file' cannot be used with '--plain-tcp'".to_owned()),
            (None, true) => None,
            (Some(path), false) => Some(KeySource::File(path)),
            (None, false) => Some(KeySource::Fresh),
        };
        if noise.is_some() && cfg!(not(feature = "noise")) {
            return Err(NO_NOISE.to_owned());
        }
        Ok(ServerPlan {
            bind: endpoint("--bind", &bind)?,
            services: services(&args.services)?,
            token: TokenSource::new(args.token_file, args.token_env)?,
            noise,
            visitor_log,
        })
    }
}

impl ClientPlan {
    /// Checks them, or says in one sentence what is wrong.
    pub fn new(args: PlanArgs, visitor_log: bool) -> Result<ClientPlan, String> {
        let to = args.to.ok_or("a CONFIG is missing, or '--to HOST:PORT' to run without a file")?;
        let pin = match (args.noise_pin, args.plain_tcp) {
            (Some(_), true) => return Err("'--noise-pin' cannot be used with '--plain-tcp'".to_owned()),
            (None, false) => {
                return Err(
                    "'--noise-pin KEY' is missing: without it anybody could be the server. The server \
                            prints its KEY when it starts; '--plain-tcp' on both ends goes without encryption"
                        .to_owned(),
                );
            }
            (None, true) => None,
            (Some(key), false) => Some(pin(&key)?),
        };
        let to = endpoint("--to", &to)?;
        if to.port == 0 {
            return Err("'--to' must have the server's port, from 1 to 65535".to_owned());
        }
        Ok(ClientPlan {
            to,
            services: services(&args.services)?,
            token: TokenSource::new(args.token_file, args.token_env)?,
            pin,
            visitor_log,
        })
    }
}

const NO_NOISE: &str = "this rathole was built without the feature `noise`: '--plain-tcp' on both ends goes without \
                        encryption";

#[cfg(feature = "noise")]
fn pin(key: &str) -> Result<[u8; 32], String> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(key.trim())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| "'--noise-pin' must be a public key: the base64 of 32 bytes, 44 characters".to_owned())
}

#[cfg(not(feature = "noise"))]
fn pin(_: &str) -> Result<[u8; 32], String> {
    Err(NO_NOISE.to_owned())
}

fn endpoint(option: &str, text: &str) -> Result<Endpoint, String> {
    Endpoint::parse(text).map_err(|why| format!("'{option}' is no address: {why}"))
}

fn services(texts: &[String]) -> Result<Vec<Service>, String> {
    if texts.is_empty() {
        return Err("'--service NAME=[udp:]ADDR' is missing".to_owned());
    }
    let services = texts.iter().map(|text| service(text)).collect::<Result<Vec<_>, _>>()?;
    let mut names = BTreeSet::new();
    match services.iter().find(|service| !names.insert(&service.name)) {
        Some(twice) => Err(format!("the service '{}' is given twice", twice.name)),
        None => Ok(services),
    }
}

fn service(text: &str) -> Result<Service, String> {
    let wrong = |why: &str| format!("'--service {text}' is not NAME=[udp:]ADDR: {why}");
    let (name, rest) = text.split_once('=').ok_or_else(|| wrong("there is no '='"))?;
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(wrong("the name is empty or has control characters"));
    }
    let (udp, addr) = match rest.strip_prefix("udp:") {
        Some(addr) => (true, addr),
        None => (false, rest.strip_prefix("tcp:").unwrap_or(rest)),
    };
    let addr = Endpoint::parse(addr).map_err(|why| wrong(&why))?;
    Ok(Service { name: name.into(), udp, addr })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(services: &[&str]) -> PlanArgs {
        PlanArgs {
            bind: Some("0.0.0.0:2333".to_owned()),
            services: services.iter().map(|text| (*text).to_owned()).collect(),
            plain_tcp: true,
            ..PlanArgs::default()
        }
    }

    #[test]
    fn services_are_read() {
        let plan = ServerPlan::new(server(&["ssh=0.0.0.0:5202", "a=b=udp:[::1]:53"]), true);
        // The name ends at the first '='.
        assert!(plan.unwrap_err().contains("a=b="));
        let plan = ServerPlan::new(server(&["ssh=0.0.0.0:5202", "dns=udp:[::1]:53"]), true).unwrap();
        assert_eq!(plan.services[0].addr.to_string(), "0.0.0.0:5202");
        assert!(!plan.services[0].udp);
        assert_eq!(plan.services[1].addr.to_string(), "[::1]:53");
        assert!(plan.services[1].udp);
    }

    #[test]
    fn mistakes_are_told() {
        for (services, part) in [
            (&["ssh"] as &[&str], "no '='"),
            (&["=1.2.3.4:5"], "name is empty"),
            (&["ssh=1.2.3.4"], "'--service ssh=1.2.3.4'"),
            (&["a=1.2.3.4:5", "a=1.2.3.4:6"], "'a' is given twice"),
            (&[], "is missing"),
        ] {
            let error = ServerPlan::new(server(services), true).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_client_without_a_pin_refuses() {
        let args =
            PlanArgs { bind: None, to: Some("h:1".to_owned()), plain_tcp: false, ..server(&["a=b:1"]) };
        assert!(ClientPlan::new(args, true).unwrap_err().contains("'--noise-pin KEY' is missing"));
        let args = PlanArgs { bind: None, to: Some("h:1".to_owned()), ..server(&["a=b:1"]) };
        assert!(ClientPlan::new(args, true).unwrap().pin.is_none());
    }
}
