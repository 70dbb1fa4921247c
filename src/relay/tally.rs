//! What one UDP visitor has moved, for whoever tells of its end.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Counts of one UDP visitor. Bytes are payload, of datagrams that were passed on.
#[derive(Debug, Clone, Copy)]
pub struct Tally {
    /// Its address: on the server where its datagrams come from, on the client as the frames name it.
    pub visitor: SocketAddr,
    /// Bytes towards the local service.
    pub up: u64,
    /// Bytes towards the visitor.
    pub down: u64,
    /// When its first datagram came.
    pub(super) first: Instant,
    /// When its last datagram came, or the last one for it.
    pub(super) last: Instant,
}

impl Tally {
    /// Of a visitor that is seen now.
    pub(super) fn new(visitor: SocketAddr, now: Instant) -> Self {
        Tally { visitor, up: 0, down: 0, first: now, last: now }
    }

    /// From the first datagram to the last one.
    pub fn duration(&self) -> Duration {
        self.last.saturating_duration_since(self.first)
    }
}

/// Why a table of UDP visitors has let one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowEnd {
    /// There was no datagram for it for this long.
    Idle(Duration),
    /// There was no room left, and it was the one unused for the longest time.
    PushedOut,
}

impl fmt::Display for FlowEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlowEnd::Idle(time) => write!(f, "idle for {} s", time.as_secs()),
            FlowEnd::PushedOut => f.write_str("pushed out by a newer visitor"),
        }
    }
}

/// Is told of each end as it happens; must not block.
pub type OnEnd<'a> = &'a mut (dyn FnMut(Tally, FlowEnd) + Send);
