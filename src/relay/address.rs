//! Where a local UDP service is: its name is looked up again from time to time, and nothing waits for that but the
//! flows that need it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::config::{Endpoint, Host};
use crate::transport::tcp;

/// How long an address that was looked up is not doubted.
const FRESH: Duration = Duration::from_secs(10);

/// How long after a failure nothing is looked up.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest lookup.
const DEADLINE: Duration = Duration::from_secs(5);

/// What is known now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    Known(SocketAddr),
    /// It is being looked up.
    Wait,
    /// It could not be found, a moment ago.
    Unknown,
}

type Running = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Finds the address. At most one lookup runs at a time.
pub(super) struct Lookup {
    endpoint: Endpoint,
    prefer_ipv6: bool,
    /// What was found last.
    known: Vec<SocketAddr>,
    /// Until then `known` is not doubted, even if it is empty.
    settled_until: Option<Instant>,
    running: Option<Running>,
}

impl Lookup {
    pub(super) fn new(endpoint: &Endpoint, prefer_ipv6: bool) -> Self {
        let endpoint = endpoint.clone();
        Lookup { endpoint, prefer_ipv6, known: Vec::new(), settled_until: None, running: None }
    }

    /// The address for a new flow. On `Wait`, poll.
    pub(super) fn get(&mut self, now: Instant) -> Address {
        if let Host::Ip(ip) = self.endpoint.host {
            return Address::Known(SocketAddr::new(ip, self.endpoint.port));
        }
        if self.settled_until.is_some_and(|until| now < until) {
            return pick(&self.known, self.prefer_ipv6).map_or(Address::Unknown, Address::Known);
        }
        if self.running.is_none() {
            let endpoint = self.endpoint.clone();
            self.running = Some(Box::pin(async move { timeout(DEADLINE, tcp::resolve(&endpoint)).await? }));
        }
        Address::Wait
    }

    /// Where a flow to `address` must go on, if the service is not there any more. Never waits: until it is known
    /// better, the service has not moved.
    pub(super) fn moved(&mut self, now: Instant, address: SocketAddr) -> Option<SocketAddr> {
        if matches!(self.endpoint.host, Host::Ip(_)) {
            return None;
        }
        // Begins a lookup, if it is time for one.
        self.get(now);
        if self.known.contains(&address) { None } else { pick(&self.known, self.prefer_ipv6) }
    }

    /// Ready when a lookup has just ended: for a while, [`Lookup::get`] is not `Wait`.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let Some(running) = &mut self.running else { return Poll::Pending };
        let found = ready!(running.as_mut().poll(cx));
        self.running = None;
        match found {
            Ok(found) => {
                self.known = found;
                self.settled_until = Some(now + FRESH);
            }
            // What was known may still be right.
            Err(error) => {
                tracing::warn!(local_addr = %self.endpoint, %error, "cannot find the local service");
                self.settled_until = Some(now + if self.known.is_empty() { PAUSE } else { FRESH });
            }
        }
        Poll::Ready(())
    }
}

/// The first of the wanted family, else the first.
fn pick(found: &[SocketAddr], prefer_ipv6: bool) -> Option<SocketAddr> {
    found.iter().find(|address| address.is_ipv6() == prefer_ipv6).or(found.first()).copied()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn the_wanted_family_comes_first_and_the_other_is_better_than_none() {
        let (v4, v6) = ("127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap());
        assert_eq!(pick(&[v6, v4], false), Some(v4));
        assert_eq!(pick(&[v4, v6], true), Some(v6));
        assert_eq!(pick(&[v4], true), Some(v4));
        assert_eq!(pick(&[v6], false), Some(v6));
        assert_eq!(pick(&[], false), None);
    }

    #[tokio::test]
    async fn a_failed_lookup_pauses_and_is_tried_again() {
        let endpoint = Endpoint { host: Host::Name("no-such-name.invalid".to_owned()), port: 1 };
        let mut lookup = Lookup::new(&endpoint, false);
        let now = Instant::now();
        assert_eq!(lookup.get(now), Address::Wait);
        poll_fn(|cx| lookup.poll(cx, now)).await;
        assert_eq!(lookup.get(now), Address::Unknown);
        assert_eq!(lookup.get(now + PAUSE), Address::Wait);
    }

    #[tokio::test]
    async fn a_service_has_moved_when_its_name_has_other_addresses() {
        let endpoint = Endpoint { host: Host::Name("localhost".to_owned()), port: 7 };
        let mut lookup = Lookup::new(&endpoint, false);
        let (elsewhere, here) = ("192.0.2.1:7".parse().unwrap(), "127.0.0.1:7".parse().unwrap());
        let now = Instant::now();
        // Not before that is known.
        assert_eq!(lookup.moved(now, elsewhere), None);
        poll_fn(|cx| lookup.poll(cx, now)).await;
        assert_eq!(lookup.moved(now, elsewhere), Some(here));
        assert_eq!(lookup.moved(now, here), None);
        // Any of the name's addresses is as good as the first: flows do not wander between them.
        lookup.known.insert(0, "127.0.0.2:7".parse().unwrap());
        assert_eq!(lookup.moved(now, here), None);
        assert!(lookup.running.is_none());
        assert_eq!(lookup.moved(now + FRESH, here), None);
        assert!(lookup.running.is_some());
        // An address needs no looking up.
        let mut literal = Lookup::new(&Endpoint { host: Host::Ip(here.ip()), port: 7 }, false);
        assert_eq!(literal.moved(now, elsewhere), None);
        assert!(literal.running.is_none());
    }
}
