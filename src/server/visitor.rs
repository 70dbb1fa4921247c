//! One visitor, from its data channel to its end.
//!
//! A channel may have died without a sign: v1 has no answer to StartForward. What it keeps: a visitor whose channel fails
//! is moved to another only while not one of its own bytes was written, so nothing can happen twice. What cannot be known:
//! once its bytes are written they may be lost with the channel; then the visitor is reset, and knows as much as with
//! any connection that breaks. An orderly end after StartForward is what the local service says, and is passed on.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::answer::Answer;
use super::proxy_header;
use super::registry::Event;
use super::seats::Seat;
use crate::config::{ProxyProtocol, ServerKind, ServerService};
use crate::counters::Counters;
use crate::relay::{Millis, Reason, Relay, Side};
use crate::tasks::Scope;
use crate::transport::vigil::Vigil;
use crate::transport::{Stream, tcp};
use crate::wire::DataCommand;

/// The first bytes of a data channel fit into its socket's buffer: one that does not take them at once is dead.
const START_TIMEOUT: Duration = Duration::from_secs(5);

const UNANSWERED: &str = "the client's machine acknowledged nothing in time";

const CUT: &str = "cut by the stop of this server";

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
    /// Until when it may be moved to another channel.
    pub until: Instant,
    /// How often it got a channel that failed.
    pub moves: u8,
    /// Its place among the service's visitors.
    pub seat: Seat,
}

impl Visitor {
    /// Whether it has reset its connection. One that has only ended its direction may want an answer.
    pub fn is_gone(&self) -> bool {
        let mut byte = [0];
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.tcp.poll_peek(&mut cx, &mut ReadBuf::new(&mut byte)), Poll::Ready(Err(_)))
    }

    /// Whether its channels have failed too often, or for too long, for another one.
    pub fn is_spent(&self) -> bool {
        self.moves > MAX_MOVES || self.until <= Instant::now()
    }

    /// Ends the visitor's connection by a reset, and says why: for what happens when the service ends.
    pub fn refuse(self, service: &str, counters: &Counters, reason: &str) {
        Counters::add(&counters.unserved, 1);
        tracing::info!(
            target: "rathole::visitor",
            service = %service,
            visitor = %self.peer,
            duration = %Millis(self.since.elapsed()),
            reason,
            "visitor refused"
        );
        tcp::reset_on_drop(&self.tcp);
    }
}

/// Starts the channel and relays until the end. A visitor whose channel fails before it has said anything is returned to
/// its service.
pub async fn serve(
    visitor: Visitor,
    mut channel: Stream,
    service: Arc<ServerService>,
    events: mpsc::WeakSender<Event>,
    counters: Arc<Counters>,
    scope: Scope,
) {
    let running = counters.running();
    let client = channel.tcp().peer_addr().ok();
    // Whatever drops them midway must not look like an end.
    channel.reset_on_drop();
    tcp::reset_on_drop(&visitor.tcp);
    let beginning = tokio::select! {
        beginning = Box::pin(begin(&mut channel, &visitor, &service)) => beginning,
        () = scope.cutting() => {
            return log_end(&service, visitor.peer, client, (0, 0), visitor.since, CUT);
        }
    };
    let answer = match beginning {
        Beginning::Sign(answer) => answer,
        Beginning::Left => {
            let reason = Reason::VisitorReset.to_string();
            return log_end(&service, visitor.peer, client, (0, 0), visitor.since, &reason);
        }
        Beginning::Dead(error) => {
            tracing::debug!(service = %service.name, visitor = %visitor.peer, %error, "data channel was dead");
            drop(channel);
            drop(running);
            return give_back(visitor, &service, &events, &counters);
        }
    };
    let Visitor { tcp, peer, since, seat, until, .. } = visitor;
    Counters::add(&counters.visitors, 1);
    let mut relay = Relay::new(channel, tcp, Side::Server, since, counters.clone());
    let reason = tokio::select! {
        reason = run(&mut relay, answer, until) => reason,
        () = scope.cutting() => {
            relay.cut();
            CUT.to_owned()
        }
    };
    drop(running);
    drop(seat);
    log_end(&service, peer, client, (relay.up(), relay.down()), since, &reason);
}

/// Relays until the end, or gives up if the client's machine turns out not to be there; says why it is over.
async fn run(relay: &mut Relay, answer: Answer, until: Instant) -> String {
    if let Ok(reason) = timeout_at(answer.due(until), relay.run()).await {
        return reason.to_string();
    }
    if answer.has_come(relay.tunnel()) {
        return relay.run().await.to_string();
    }
    relay.cut();
    UNANSWERED.to_owned()
}

/// The line for each ended visitor; `peer` is the client, `moved` is up and down.
fn log_end(
    service: &ServerService,
    visitor: SocketAddr,
    peer: Option<SocketAddr>,
    moved: (u64, u64),
    since: Instant,
    reason: &str,
) {
    let (up, down) = moved;
    tracing::info!(
        target: "rathole::visitor",
        service = %service.name,
        visitor = %visitor,
        peer = peer.map(tracing::field::display),
        bytes = up + down,
        up,
        down,
        duration = %Millis(since.elapsed()),
        reason,
        "visitor ended"
    );
}

/// How a channel begins.
enum Beginning {
    /// One of the two has something to say, or has ended.
    Sign(Answer),
    /// The channel failed, and nothing of the visitor's was written to it.
    Dead(io::Error),
    /// The visitor has reset its connection.
    Left,
}

/// Starts the channel, and watches it until the visitor or the service has something to say. (A look at a socket takes
/// its error away, so whoever has failed here is not for the relay.)
async fn begin(channel: &mut Stream, visitor: &Visitor, service: &ServerService) -> Beginning {
    let deadline = visitor.until.min(Instant::now() + START_TIMEOUT);
    let answer = Answer::to_start(channel.tcp());
    let started = timeout_at(deadline, start(channel, visitor, service)).await;
    if let Err(error) = started.unwrap_or_else(|late| Err(late.into())) {
        return Beginning::Dead(error);
    }
    let (mut sign, mut word, mut vigil) = ([0], [0], Vigil::new(channel.tcp()));
    tokio::select! {
        biased;
        sign = channel.tcp().peek(&mut sign) => sign.map_or_else(Beginning::Dead, |_| Beginning::Sign(answer)),
        () = answer.is_missing(channel.tcp()) => Beginning::Dead(io::Error::new(io::ErrorKind::TimedOut, UNANSWERED)),
        (_, error) = poll_fn(|cx| vigil.poll(cx, &[channel.tcp()])) => Beginning::Dead(error),
        word = visitor.tcp.peek(&mut word) => word.map_or(Beginning::Left, |_| Beginning::Sign(answer)),
    }
}

/// Writes StartForward and, where wanted, the PROXY header: none of it is the visitor's.
async fn start(channel: &mut Stream, visitor: &Visitor, service: &ServerService) -> io::Result<()> {
    let mut bytes = DataCommand::StartForwardTcp.encode().to_vec();
    if let Some(version) = proxy_protocol(service) {
        bytes.extend(proxy_header::encode(version, visitor.peer, visitor.tcp.local_addr()?));
    }
    channel.write_all(&bytes).await?;
    channel.flush().await
}

fn proxy_protocol(service: &ServerService) -> Option<ProxyProtocol> {
    match service.kind {
        ServerKind::Tcp { proxy_protocol } => proxy_protocol,
        ServerKind::Udp => None,
    }
}

fn give_back(
    mut visitor: Visitor,
    service: &ServerService,
    events: &mpsc::WeakSender<Event>,
    counters: &Counters,
) {
    visitor.moves += 1;
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
