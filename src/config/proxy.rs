//! A proxy between client and server, and its URL. No error repeats a part of it: it may hold a password.

use super::endpoint::{parse_port, split};
use super::{Endpoint, Host, Secret};

/// A proxy between client and server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its protocol.
    pub kind: ProxyKind,
    /// Its address.
    pub endpoint: Endpoint,
    /// User and password, percent-decoded.
    pub credentials: Option<(String, Secret)>,
}

/// A proxy's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP CONNECT.
    Http,
    /// SOCKS5 (RFC 1928), with user and password (RFC 1929) if given.
    Socks5,
}

/// What RFC 1929 can carry of a user or a password (bytes).
const LONGEST_SOCKS5: usize = 255;

impl Proxy {
    /// Reads `http://[user:password@]host[:port]` or `socks5://...`; user and password may be percent-encoded.
    /// Without a port: 80 and 1080. A path is ignored.
    ///
    /// # Errors
    /// A sentence that says what is wrong and does not repeat the URL.
    pub fn parse(url: &str) -> Result<Proxy, String> {
        let (kind, default_port, rest) = match url
            .split_once(':')
            .and_then(|(scheme, rest)| Some((scheme, rest.strip_prefix("//")?)))
        {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (ProxyKind::Http, 80, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("socks5") => (ProxyKind::Socks5, 1080, rest),
            Some(_) => return Err("the scheme is not supported: http:// or socks5://".to_owned()),
            None => return Err("this is no URL: write http://host:port or socks5://host:port".to_owned()),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user_info, address) = match authority.rsplit_once('@') {
            Some((user_info, address)) => (Some(user_info), address),
            None => (None, authority),
        };
        // A slash in a password would end the address early, and the error would be about a port.
        if user_info.is_none() && rest.contains('@') {
            return Err("user and password must be percent-encoded: / is %2F, ? is %3F, # is %23".to_owned());
        }
        let (host, port) = match split(address)? {
            Some((host, port)) if !port.is_empty() => (host, parse_port(port)?),
            Some((host, _)) => (host, default_port),
            None => (address, default_port),
        };
        if host.is_empty() {
            return Err("the host of the proxy is missing".to_owned());
        }
        let endpoint = Endpoint { host: Host::parse(host)?, port };
        let credentials = match user_info {
            Some(user_info) if !user_info.is_empty() && user_info != ":" => {
                Some(credentials(user_info, kind)?)
            }
            _ => None,
        };
        Ok(Proxy { kind, endpoint, credentials })
    }
}

fn credentials(user_info: &str, kind: ProxyKind) -> Result<(String, Secret), String> {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let (user, password) = (percent_decoded(user), Secret::new(percent_decoded(password)));
    let user = String::from_utf8(user).map_err(|_| "the user of the proxy is not UTF-8".to_owned())?;
    if kind == ProxyKind::Socks5 && user.len().max(password.len()) > LONGEST_SOCKS5 {
        return Err("user and password of a SOCKS5 proxy have at most 255 bytes".to_owned());
    }
    if kind == ProxyKind::Http && user.contains(':') {
        return Err("the user of an HTTP proxy cannot hold a colon".to_owned());
    }
    Ok((user, password))
}

/// Decodes %XX; a percent sign that starts no such thing stands for itself.
fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls() {
        for (url, kind, endpoint, credentials) in [
            ("http://127.0.0.1:8080", ProxyKind::Http, "127.0.0.1:8080", None),
            ("HTTP://proxy", ProxyKind::Http, "proxy:80", None),
            ("http://proxy:80/", ProxyKind::Http, "proxy:80", None),
            ("http://proxy:/x?y#z", ProxyKind::Http, "proxy:80", None),
            ("socks5://proxy", ProxyKind::Socks5, "proxy:1080", None),
            ("socks5://[::1]:9", ProxyKind::Socks5, "[::1]:9", None),
            ("socks5://[::1]", ProxyKind::Socks5, "[::1]:1080", None),
            ("socks5://@proxy:9", ProxyKind::Socks5, "proxy:9", None),
            ("http://me:p%3Ass%2f@proxy:9", ProxyKind::Http, "proxy:9", Some(("me", "p:ss/"))),
            ("http://me@proxy:9", ProxyKind::Http, "proxy:9", Some(("me", ""))),
            ("socks5://:pass@proxy:9", ProxyKind::Socks5, "proxy:9", Some(("", "pass"))),
            ("socks5://a%40b:c@d:100%@proxy:9", ProxyKind::Socks5, "proxy:9", Some(("a@b", "c@d:100%"))),
        ] {
            let proxy = Proxy::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(proxy.kind, kind, "{url}");
            assert_eq!(proxy.endpoint.to_string(), endpoint, "{url}");
            let expected = credentials.map(|(user, password)| (user.to_owned(), Secret::new(password)));
            assert_eq!(proxy.credentials, expected, "{url}");
        }
    }

    #[test]
    fn bad_urls_say_why_and_show_no_password() {
        let long = format!("socks5://hunter2:{}@proxy:1", "x".repeat(256));
        for (url, why) in [
            ("", "no URL"),
            ("proxy:8080", "no URL"),
            ("https://me:hunter2@proxy:1", "scheme"),
            ("socks5h://me:hunter2@proxy:1", "scheme"),
            ("http://", "host"),
            ("http://me:hunter2@", "host"),
            ("http://me:hunter2@:80", "host"),
            ("http://me:hunter2@proxy:x", "not a number"),
            ("http://me:hunter2@proxy:65536", "out of range"),
            ("http://me:hunter2@::1:80", "brackets"),
            ("http://me:hunter2@[proxy]:80", "brackets"),
            ("http://me:hunter2/x@proxy:80", "percent-encoded"),
            ("http://me%ff:hunter2@proxy:80", "UTF-8"),
            ("http://a%3ab:hunter2@proxy:80", "colon"),
            (long.as_str(), "255"),
        ] {
            let error = Proxy::parse(url).expect_err(url);
            assert!(error.contains(why), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{url}: {error}");
        }
    }
}
