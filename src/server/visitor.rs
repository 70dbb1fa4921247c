//! One visitor, from its data channel to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::proxy_header;
use super::registry::Event;
use crate::config::{ProxyProtocol, ServerService};
use crate::counters::Counters;
use crate::relay::{Relay, Side};
use crate::tasks::Scope;
use crate::transport::{Stream, tcp};
use crate::wire::DataCommand;

/// The first bytes of a data channel fit into its socket's buffer: one that does not take them at once is dead.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a visitor is moved to another channel.
const MAX_MOVES: u8 = 2;

/// A visitor that has no relay yet.
#[derive(Debug)]
pub struct Visitor {
    /// Its connection.
    pub tcp: TcpStream,
    /// Its address.
    pub peer: SocketAddr,
    /// When it was accepted.
    pub since: Instant,
    /// How often it got a channel that failed.
    pub moves: u8,
}

impl Visitor {
    /// Ends the visitor's connection by a reset, and says why.
    pub fn refuse(self, service: &str, counters: &Counters, reason: &str) {
        Counters::add(&counters.unserved, 1);
        tracing::info!(
            target: "rathole::visitor",
            service = %service,
            visitor = %self.peer,
            duration = ?in_ms(self.since),
            reason,
            "visitor refused"
        );
        tcp::reset_on_drop(&self.tcp);
    }
}

/// Starts the channel and relays until the end. A visitor whose channel fails at the start is returned to its service.
pub async fn serve(
    visitor: Visitor,
    mut channel: Stream,
    service: Arc<ServerService>,
    proxy_protocol: Option<ProxyProtocol>,
    events: mpsc::WeakSender<Event>,
    counters: Arc<Counters>,
    scope: Scope,
) {
    let running = counters.running();
    let started = tokio::select! {
        started = timeout(START_TIMEOUT, start(&mut channel, &visitor, proxy_protocol)) => started,
        () = scope.cutting() => return visitor.refuse(&service.name, &counters, "cut by the stop of this server"),
    };
    if !matches!(started, Ok(Ok(()))) {
        tracing::debug!(service = %service.name, visitor = %visitor.peer, "data channel was dead: taking another");
        drop(channel);
        return give_back(visitor, &service, &events, &counters);
    }
    let client = channel.tcp().peer_addr().ok();
    let Visitor { tcp, peer, since, .. } = visitor;
    Counters::add(&counters.visitors, 1);
    let mut relay = Relay::new(channel, tcp, Side::Server, since, counters.clone());
    let reason = tokio::select! {
        reason = relay.run() => reason.to_string(),
        () = scope.cutting() => {
            relay.cut();
            "cut by the stop of this server".to_owned()
        }
    };
    drop(running);
    tracing::info!(
        target: "rathole::visitor",
        service = %service.name,
        visitor = %peer,
        peer = client.map(tracing::field::display),
        bytes = relay.up() + relay.down(),
        up = relay.up(),
        down = relay.down(),
        duration = ?in_ms(since),
        reason,
        "visitor ended"
    );
}

/// Time since then, without the digits nobody reads.
fn in_ms(since: Instant) -> Duration {
    Duration::from_millis(since.elapsed().as_millis() as u64)
}

/// Writes StartForward and, where wanted, the PROXY header: none of it is the visitor's.
async fn start(
    channel: &mut Stream,
    visitor: &Visitor,
    proxy_protocol: Option<ProxyProtocol>,
) -> std::io::Result<()> {
    let mut bytes = DataCommand::StartForwardTcp.encode().to_vec();
    if let Some(version) = proxy_protocol {
        bytes.extend(proxy_header::encode(version, visitor.peer, visitor.tcp.local_addr()?));
    }
    channel.write_all(&bytes).await?;
    channel.flush().await
}

fn give_back(
    mut visitor: Visitor,
    service: &ServerService,
    events: &mpsc::WeakSender<Event>,
    counters: &Counters,
) {
    visitor.moves += 1;
    if visitor.moves > MAX_MOVES {
        return visitor.refuse(&service.name, counters, "data channels failed");
    }
    let visitor = match events.upgrade() {
        Some(events) => match events.try_send(Event::Returned(visitor)) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(Event::Returned(visitor)))
            | Err(mpsc::error::TrySendError::Closed(Event::Returned(visitor))) => visitor,
            Err(_) => return,
        },
        None => visitor,
    };
    visitor.refuse(&service.name, counters, "the service has no room for it");
}
