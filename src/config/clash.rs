//! Two listeners of a server that want the same address.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::check::Check;
use super::section::Section;
use super::{Endpoint, Host, ServerKind, ServerService};

/// The listeners of one protocol and port, by what they would collide with. Values are the owners' key paths.
#[derive(Default)]
struct Port {
    /// By address (or name): the first owner.
    hosts: HashMap<Host, String>,
    /// The first owner of an IPv4 address; of an IPv6 address; of anything.
    v4: Option<String>,
    v6: Option<String>,
}

/// Notes an error for each service whose address another listener has, wildcards included.
pub(super) fn check(
    check: &mut Check<'_>,
    half: &Section<'_>,
    control: Option<&Endpoint>,
    services: &BTreeMap<Arc<str>, ServerService>,
) {
    let mut ports: HashMap<(bool, u16), Port> = HashMap::new();
    if let Some(control) = control {
        ports.entry((true, control.port)).or_default().add(&control.host, half.path("bind_addr"));
    }
    let list = half.child("services");
    for section in list.iter().flat_map(|list| list.children()) {
        let Some(service) = services.get(section.name) else { continue };
        let address = &service.bind_addr;
        // The system chooses another port each time.
        if address.port == 0 {
            continue;
        }
        let is_tcp = matches!(service.kind, ServerKind::Tcp { .. });
        let port = ports.entry((is_tcp, address.port)).or_default();
        let path = section.path("bind_addr");
        if let Some(other) = port.add(&address.host, path.clone()) {
            let message = ["this address is already taken by ", &other].concat();
            check.error(
                section.place("bind_addr"),
                path,
                &message,
                "each listener needs an address of its own",
            );
        }
    }
}

impl Port {
    /// Adds a listener; the owner of an address that it collides with, if any. A name is only compared with
    /// names, for it is not resolved here.
    fn add(&mut self, host: &Host, path: String) -> Option<String> {
        let host = match host {
            Host::Ip(ip) => Host::Ip(ip.to_canonical()),
            Host::Name(name) => Host::Name(name.to_ascii_lowercase()),
        };
        let any4 = Host::Ip(IpAddr::from([0u8; 4]));
        let any6 = Host::Ip(IpAddr::from([0u16; 8]));
        let mut other = self.hosts.get(&host).cloned();
        if let Host::Ip(ip) = host {
            // The IPv6 wildcard serves IPv4 as well.
            let wildcards = if ip.is_ipv4() { vec![&any4, &any6] } else { vec![&any6] };
            other = other.or_else(|| wildcards.into_iter().find_map(|wild| self.hosts.get(wild).cloned()));
            if ip.is_unspecified() {
                let covered =
                    if ip.is_ipv6() { self.v6.as_ref().or(self.v4.as_ref()) } else { self.v4.as_ref() };
                other = other.or_else(|| covered.cloned());
            }
            let family = if ip.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
            family.get_or_insert_with(|| path.clone());
        }
        self.hosts.entry(host).or_insert(path);
        other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_collide_with_what_they_cover() {
        for (first, second, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("[::]:80", "[::1]:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::1]:80", "127.0.0.1:80", false),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
            ("localhost:80", "LOCALHOST:80", true),
            ("localhost:80", "127.0.0.1:80", false),
        ] {
            for [a, b] in [[first, second], [second, first]] {
                let mut port = Port::default();
                let host = |text| Endpoint::parse(text).unwrap().host;
                assert_eq!(port.add(&host(a), "a".to_owned()), None);
                assert_eq!(port.add(&host(b), "b".to_owned()).is_some(), expected, "{a} {b}");
            }
        }
    }
}
