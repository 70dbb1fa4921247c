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

/// How long a new flow may use an address that was looked up.
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
    /// The last one that was found.
    known: Option<SocketAddr>,
    /// Until then `known` is not doubted, even if it is None.
    settled_until: Option<Instant>,
    running: Option<Running>,
}

impl Lookup {
    pub(super) fn new(endpoint: &Endpoint, prefer_ipv6: bool) -> Self {
        let endpoint = endpoint.clone();
        Lookup { endpoint, prefer_ipv6, known: None, settled_until: None, running: None }
    }

    /// The address for a new flow. On `Wait`, poll.
    pub(super) fn get(&mut self, now: Instant) -> Address {
        if let Host::Ip(ip) = self.endpoint.host {
            return Address::Known(SocketAddr::new(ip, self.endpoint.port));
        }
        if self.settled_until.is_some_and(|until| now < until) {
            return self.known.map_or(Address::Unknown, Address::Known);
        }
        if self.running.is_none() {
            let endpoint = self.endpoint.clone();
            self.running = Some(Box::pin(async move { timeout(DEADLINE, tcp::resolve(&endpoint)).await? }));
        }
        Address::Wait
    }

    /// Ready when a lookup has just ended: for a while, [`Lookup::get`] is not `Wait`.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let Some(running) = &mut self.running else { return Poll::Pending };
        let found = ready!(running.as_mut().poll(cx));
        self.running = None;
        match found.and_then(|found| {
            pick(&found, self.prefer_ipv6)
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no address"))
        }) {
            Ok(address) => {
                self.known = Some(address);
                self.settled_until = Some(now + FRESH);
            }
            // What was known may still be right.
            Err(error) => {
                tracing::warn!(local_addr = %self.endpoint, %error, "cannot find the local service");
                self.settled_until = Some(now + PAUSE);
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
}
