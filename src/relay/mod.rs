//! Moving visitors' bytes: a relay is a value with a state, not an opaque future.
//!
//! What it decides: by which way bytes are moved, when an end or a reset is passed on. What it never does: open a
//! socket, set a deadline, log. What it keeps: no byte is lost, doubled or reordered; an end on one side ends one
//! direction, once its bytes are delivered; a reset or a fault on one side is a reset on the other, never an end.
//!
//! Reading order: [`Relay`], `direction`, then its two ways `copy` (with `buffer`) and `splice` (with `pipe`);
//! `watch` sees resets of half-closed peers, `hold` is for tunnels that cannot end one direction only. UDP: [`flows`],
//! `table` (with [`tally`]), [`door`], `frames`, `channel`, [`visitors`] (server), [`locals`] (client, with `address` and `ready`).

mod address;
mod buffer;
mod channel;
mod copy;
mod direction;
pub mod door;
pub mod flows;
mod frames;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod hold;
pub mod locals;
mod pipe;
mod ready;
mod splice;
mod table;
pub mod tally;
pub mod visitors;
mod watch;

#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod udp_tests;
#[cfg(test)]
mod vigil_tests;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::counters::Counters;
use crate::transport::vigil::Vigil;
use crate::transport::{Stream, tcp};
pub use channel::ChannelEnd;
use direction::{Direction, Fault};
pub use door::{Door, Terms, Turned};
use hold::Hold;
pub use locals::{Locals, serve_local};
use pipe::Pool;
pub use pipe::{ends as pipe_ends, open_files};
pub use ready::Ready;
pub use tally::{FlowEnd, OnEnd, Tally};
pub use visitors::{Visitors, drop_datagrams, serve_visitors};
use watch::Watch;

/// A time for a log line: `14ms`. (Not `Duration`'s own text, whose unit changes, and which is 2 kB of program.)
#[derive(Debug, Clone, Copy)]
pub struct Millis(pub Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0.as_millis() as u64)
    }
}

/// Which role the relay is part of: what its local socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The local socket is the visitor: from it to the tunnel is up.
    Server,
    /// The local socket is the local service: from the tunnel to it is up.
    Client,
}

/// Why a relay is over.
#[derive(Debug)]
pub enum Reason {
    /// Both directions ended, and every byte was handed over.
    Ended,
    /// The visitor reset its connection.
    VisitorReset,
    /// The local service reset its connection.
    LocalReset,
    /// The data channel was reset.
    TunnelReset,
    /// A connection failed otherwise: a timeout, a broken record.
    Failed {
        /// Which one: `visitor`, `local service`, `data channel`.
        end: &'static str,
        /// How.
        error: io::Error,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Ended => f.write_str("ended"),
            Reason::VisitorReset => f.write_str("visitor reset"),
            Reason::LocalReset => f.write_str("local service reset"),
            Reason::TunnelReset => f.write_str("data channel reset"),
            Reason::Failed { end, error } => write!(f, "{end} failed: {error}"),
        }
    }
}

/// A data channel and a local socket, and what is on its way between them.
///
/// Until both directions have ended, both sockets are set to be reset when they are closed: whatever drops a relay
/// midway (an error, a cut, the end of the process) looks like a reset, and never like the end of a stream.
#[derive(Debug)]
pub struct Relay {
    tunnel: Stream,
    local: TcpStream,
    /// From the tunnel to the local socket.
    inward: Direction,
    /// From the local socket to the tunnel.
    outward: Direction,
    watch: Watch,
    hold: Hold,
    vigil: Vigil,
    /// Set when a connection that was reset refused bytes: it may have said something before.
    gone: Option<Gone>,
    side: Side,
    since: Instant,
    counters: Arc<Counters>,
    pool: &'static Pool,
}

/// A connection that takes no bytes any more, but whose last words may not all be read yet: a service that answers
/// early, without reading all of a request, resets the connection right behind its answer.
#[derive(Debug)]
struct Gone {
    end: End,
    reason: Reason,
}

/// One end of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Tunnel,
    Local,
}

impl Relay {
    /// Nothing is moved before the first poll. On [`Side::Server`] the first byte down is counted from `since`.
    pub fn new(
        tunnel: Stream,
        local: TcpStream,
        side: Side,
        since: Instant,
        counters: Arc<Counters>,
    ) -> Self {
        tunnel.reset_on_drop();
        tcp::reset_on_drop(&local);
        let (inward, outward) = (Direction::new(), Direction::new());
        let (watch, hold, pool) = (Watch::Off, Hold::Off, &pipe::POOL);
        let vigil = Vigil::new(tunnel.tcp());
        Relay { tunnel, local, inward, outward, watch, hold, vigil, gone: None, side, since, counters, pool }
    }

    /// Moves bytes until the relay is over. Dropping the future loses nothing: the state is in the relay.
    pub async fn run(&mut self) -> Reason {
        poll_fn(|cx| match self.poll(cx) {
            Poll::Pending => self.poll_vigil(cx),
            over => over,
        })
        .await
    }

    /// Moves what can be moved now, but not so much that others starve.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        let before = (self.up(), self.down());
        let mut result = if self.gone.is_none() { self.poll_directions(cx) } else { Ok(()) };
        if let Some(gone) = self.gone.take() {
            match self.poll_last_words(cx, gone.end) {
                Poll::Ready(()) => result = Err(gone.reason),
                Poll::Pending => self.gone = Some(gone),
            }
        }
        self.account(before);
        match result {
            Err(reason) => Poll::Ready(reason),
            Ok(()) if self.gone.is_some() => Poll::Pending,
            Ok(()) if self.inward.is_closed() && self.outward.is_closed() => {
                self.watch.stop();
                self.close_orderly();
                Poll::Ready(Reason::Ended)
            }
            Ok(()) => self.poll_watch(cx),
        }
    }

    /// Payload bytes delivered towards the local service.
    pub fn up(&self) -> u64 {
        match self.side {
            Side::Server => self.outward.moved(),
            Side::Client => self.inward.moved(),
        }
    }

    /// Payload bytes delivered towards the visitor.
    pub fn down(&self) -> u64 {
        match self.side {
            Side::Server => self.inward.moved(),
            Side::Client => self.outward.moved(),
        }
    }

    /// Both connections are to be reset when this relay is dropped, whatever its state.
    pub fn cut(&self) {
        self.tunnel.reset_on_drop();
        tcp::reset_on_drop(&self.local);
    }

    fn poll_directions(&mut self, cx: &mut Context<'_>) -> Result<(), Reason> {
        if let Poll::Ready(Err(fault)) =
            self.inward.poll(cx, &mut self.tunnel, &mut self.local, true, self.pool)
        {
            return match fault {
                Fault::Source(error) => Err(self.tunnel_fault(error)),
                Fault::Sink(error) => self.refused(End::Local, error),
            };
        }
        // Second, so that it sees at once that the first has closed.
        let may_end = may_end(self.tunnel.can_half_close(), self.inward.is_closed())
            || (!self.outward.is_flowing() && self.hold.poll_over(cx, self.side, self.inward.moved()));
        if let Poll::Ready(Err(fault)) =
            self.outward.poll(cx, &mut self.local, &mut self.tunnel, may_end, self.pool)
        {
            return match fault {
                Fault::Source(error) => Err(self.local_fault(error)),
                Fault::Sink(error) => self.refused(End::Tunnel, error),
            };
        }
        // If the end came just now, its wait begins.
        if !may_end && !self.outward.is_flowing() && self.hold.poll_over(cx, self.side, self.inward.moved()) {
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// A write has failed. If that was by a reset, the relay is over when the last words are delivered.
    fn refused(&mut self, end: End, error: io::Error) -> Result<(), Reason> {
        let was_reset = is_reset(&error);
        let reason = match end {
            End::Tunnel => self.tunnel_fault(error),
            End::Local => self.local_fault(error),
        };
        if !was_reset {
            return Err(reason);
        }
        self.watch.stop();
        self.gone = Some(Gone { end, reason });
        Ok(())
    }

    /// Delivers what a reset connection has said before. Ready when that is done, or when the other end does not take
    /// it at once: nobody waits for a reader on behalf of who is gone. Never waits long for the source: a connection
    /// that was reset is readable to its end.
    fn poll_last_words(&mut self, cx: &mut Context<'_>, gone: End) -> Poll<()> {
        let (direction, result) = match gone {
            End::Tunnel => {
                let result = self.inward.poll(cx, &mut self.tunnel, &mut self.local, false, self.pool);
                (&self.inward, result)
            }
            End::Local => {
                let result = self.outward.poll(cx, &mut self.local, &mut self.tunnel, false, self.pool);
                (&self.outward, result)
            }
        };
        let done = result.is_ready() || !direction.is_flowing() || direction.is_stuck();
        if done { Poll::Ready(()) } else { Poll::Pending }
    }

    /// A peer that ended its direction and then resets is seen by the watch alone.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        match (self.inward.is_flowing(), self.outward.is_flowing()) {
            (true, false) => self.watch.poll_gone(cx, &self.local).map(|error| self.local_fault(error)),
            (false, true) => {
                self.watch.poll_gone(cx, self.tunnel.tcp()).map(|error| self.tunnel_fault(error))
            }
            (true, true) | (false, false) => {
                self.watch.stop();
                Poll::Pending
            }
        }
    }

    fn poll_vigil(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        let (tunnel, local) = (self.tunnel.tcp(), &self.local);
        let silent = self.vigil.poll(cx, &[tunnel, local]);
        silent.map(|(at, error)| if at == 0 { self.tunnel_fault(error) } else { self.local_fault(error) })
    }

    fn account(&self, (up, down): (u64, u64)) {
        let (up_now, down_now) = (self.up(), self.down());
        if up_now > up {
            Counters::add(&self.counters.up, up_now - up);
        }
        if down_now > down {
            Counters::add(&self.counters.down, down_now - down);
            if down == 0 && self.side == Side::Server {
                self.counters.first_byte(self.since.elapsed());
            }
        }
    }

    fn close_orderly(&self) {
        for socket in [self.tunnel.tcp(), &self.local] {
            // Fails only on a socket that is already gone.
            let _ = SockRef::from(socket).set_linger(None);
        }
    }

    fn tunnel_fault(&self, error: io::Error) -> Reason {
        if is_reset(&error) { Reason::TunnelReset } else { Reason::Failed { end: "data channel", error } }
    }

    fn local_fault(&self, error: io::Error) -> Reason {
        match (self.side, is_reset(&error)) {
            (Side::Server, true) => Reason::VisitorReset,
            (Side::Client, true) => Reason::LocalReset,
            (Side::Server, false) => Reason::Failed { end: "visitor", error },
            (Side::Client, false) => Reason::Failed { end: "local service", error },
        }
    }
}

/// Whether the tunnel may be told at once that the local side has ended: a tunnel that cannot end one direction only
/// must wait for the other, as long as [`Hold`] says.
fn may_end(can_half_close: bool, other_closed: bool) -> bool {
    can_half_close || other_closed
}

fn is_reset(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), ConnectionReset | BrokenPipe | ConnectionAborted)
}
