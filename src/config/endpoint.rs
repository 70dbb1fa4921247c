//! `host:port` as people write it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address as written: `host:port`, not yet resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// An IP address or a name.
    pub host: Host,
    /// The port; 0 lets the system choose where that makes sense (tests, the demo).
    pub port: u16,
}

/// The host part of an [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A literal address.
    Ip(IpAddr),
    /// A name for the system's resolver.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Ip(ip) => ip.fmt(f),
            Host::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            // An IPv6 address with the name of its interface.
            Host::Name(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

impl Endpoint {
    /// Reads `host:port`: an IPv4 address, an IPv6 address in brackets, or a name, and a port from 0 to 65535. Without
    /// brackets, what follows the last colon is the port: so rathole 0.5 reads it.
    ///
    /// # Errors
    /// A sentence that says what is wrong. It does not repeat the text.
    pub fn parse(text: &str) -> Result<Endpoint, String> {
        if let Some((host, port)) = text.rsplit_once(':') {
            if let Ok(ip) = host.parse::<Ipv6Addr>() {
                return Ok(Endpoint { host: Host::Ip(ip.into()), port: parse_port(port)? });
            }
        }
        let Some((host, port)) = split(text)? else {
            return Err("the port is missing: write host:port".to_owned());
        };
        Ok(Endpoint { host: Host::parse(host)?, port: parse_port(port)? })
    }

    /// Whether only this machine can be meant.
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.to_canonical().is_loopback(),
            Host::Name(name) => {
                let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
                name == "localhost" || name.ends_with(".localhost")
            }
        }
    }
}

/// Host and port; None: there is no port.
pub(super) fn split(text: &str) -> Result<Option<(&str, &str)>, String> {
    if text.starts_with('[') {
        let Some((host, rest)) = text.split_once(']') else {
            return Err("the closing ] of the IPv6 address is missing".to_owned());
        };
        // The bracket stays with the host: only an IPv6 address may be in it.
        let host = text.get(..host.len() + 1).unwrap_or(host);
        return match rest.strip_prefix(':') {
            Some(port) => Ok(Some((host, port))),
            None if rest.is_empty() => Ok(None),
            None => Err("after ] only :port may follow".to_owned()),
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() || text.bytes().filter(|byte| *byte == b':').count() > 1 {
        return Err("an IPv6 address must be in brackets: [address]:port".to_owned());
    }
    Ok(text.split_once(':'))
}

/// A port in digits.
pub(super) fn parse_port(text: &str) -> Result<u16, String> {
    let out_of_range = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if out_of_range => Ok(port),
        _ if out_of_range => Err("the port is out of range: 0 to 65535".to_owned()),
        _ if text.is_empty() => Err("the port is missing: write host:port".to_owned()),
        _ => Err("the port is not a number from 0 to 65535".to_owned()),
    }
}

impl Host {
    /// An address (IPv6 in brackets) or a name.
    pub(super) fn parse(text: &str) -> Result<Host, String> {
        if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            let (address, scope) =
                inner.split_once('%').map_or((inner, None), |(ip, scope)| (ip, Some(scope)));
            return match (address.parse::<Ipv6Addr>(), scope) {
                (Ok(ip), None) => Ok(Host::Ip(ip.into())),
                // Only the resolver knows the interface of a scope.
                (Ok(_), Some(scope)) if !scope.is_empty() && scope.bytes().all(|b| b.is_ascii_graphic()) => {
                    Ok(Host::Name(inner.to_owned()))
                }
                _ => Err("there is no IPv6 address between the brackets".to_owned()),
            };
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(Host::Ip(IpAddr::V4(ip)));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let fault = if text.is_empty() {
            "the host is missing: write 0.0.0.0:port or [::]:port for all addresses of this machine"
        } else if text == "*" {
            "write 0.0.0.0 or [::] for all addresses of this machine"
        } else if text.contains('/') {
            "this looks like a URL: write only host:port"
        } else if !text.is_ascii() {
            "a name must be in ASCII: write its xn-- form"
        } else if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
            "the host has a character that no name has"
        } else if name.len() > 253 || name.split('.').any(|label| label.is_empty() || label.len() > 63) {
            "the host is no valid name"
        } else if name.split('.').count() >= 4
            && name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        {
            "the host is no IPv4 address"
        } else {
            return Ok(Host::Name(text.to_owned()));
        };
        Err(fault.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_endpoints() {
        for text in [
            "127.0.0.1:80",
            "0.0.0.0:0",
            "[::]:65535",
            "[::1]:22",
            "localhost:2333",
            "my_host.example.com.:1",
            "xn--bcher-kva.example:443",
            "[fe80::1%eth0]:22",
            "127.1:80",
        ] {
            let endpoint = Endpoint::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn without_brackets_the_port_comes_last() {
        for (text, meant) in
            [("::1:80", "[::1]:80"), (":::2333", "[::]:2333"), ("fe80::1:2:3", "[fe80::1:2]:3")]
        {
            assert_eq!(Endpoint::parse(text).map(|endpoint| endpoint.to_string()), Ok(meant.to_owned()));
        }
    }

    #[test]
    fn bad_endpoints_say_why() {
        let long = format!("{}:80", "a".repeat(64));
        for (text, why) in [
            ("", "port is missing"),
            ("localhost", "port is missing"),
            ("localhost:", "port is missing"),
            ("[::1]", "port is missing"),
            (":80", "host is missing"),
            ("*:80", "0.0.0.0 or [::]"),
            ("::1", "in brackets"),
            ("fe80::1", "in brackets"),
            ("::1:http", "not a number"),
            ("a:b:c", "in brackets"),
            ("[::1:80", "closing ]"),
            ("[::1]80", "only :port"),
            ("[localhost]:80", "between the brackets"),
            ("[1.2.3.4]:80", "between the brackets"),
            ("[]:80", "between the brackets"),
            ("[fe80::1%]:80", "between the brackets"),
            ("a:65536", "out of range"),
            ("a:99999999999999999999", "out of range"),
            ("a:-1", "not a number"),
            ("a:+1", "not a number"),
            ("a:http", "not a number"),
            ("a: 80", "not a number"),
            ("http://a", "not a number"),
            ("a/b:80", "URL"),
            ("a b:80", "character"),
            ("bücher.example:80", "ASCII"),
            ("256.1.1.1:80", "IPv4"),
            ("1.2.3.4.5:80", "IPv4"),
            ("a..b:80", "valid name"),
            (".:80", "valid name"),
            (long.as_str(), "valid name"),
        ] {
            let error = Endpoint::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn loopback_is_known() {
        for (text, expected) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("localhost:1", true),
            ("LocalHost.:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("example.com:1", false),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().is_loopback(), expected, "{text}");
        }
    }
}
