//! What stands in for TCP_RTO_MAX_MS on kernels that do not have it (before Linux 6.15): a look, now and then, at what
//! the kernel knows of a connection.
//!
//! What it decides: that a peer is gone, of which nothing was heard for too long while bytes were on their way to it.
//! What it never does: take a reader who pauses for a dead one. His kernel answers each probe, but the pauses between
//! probes grow to two minutes, too: so silence counts only when it is longer than such a pause.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::libc::tcp_info;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::liveness;
use crate::sys;

/// Looks in the time of silence that is borne.
const LOOKS: u32 = 4;

/// A window that is closed is probed; so many probes without an answer are not bad luck.
const PROBES: u8 = 3;

/// Looks at one or two connections. On newer kernels it is nothing, and does nothing.
#[derive(Debug, Default)]
pub struct Vigil(Option<Box<Looks>>);

#[derive(Debug)]
struct Looks {
    bound: Duration,
    timer: Pin<Box<Sleep>>,
    /// Of each connection: looks in a row that found bytes on their way.
    waiting: [u32; 2],
}

impl Vigil {
    /// As long as the options of `tcp` say, if the kernel needs it.
    pub fn new(tcp: &TcpStream) -> Self {
        liveness::silence(tcp).map_or(Vigil(None), Vigil::of)
    }

    /// Whatever the kernel can do: silence is borne for `bound`, and up to half of it more.
    pub fn of(bound: Duration) -> Self {
        let timer = Box::pin(sleep(bound / LOOKS));
        Vigil(Some(Box::new(Looks { bound, timer, waiting: [0; 2] })))
    }

    /// Ready when one of these connections is dead: which one, and why. They must be the same each time.
    pub fn poll(&mut self, cx: &mut Context<'_>, connections: &[&TcpStream]) -> Poll<(usize, io::Error)> {
        let Some(looks) = &mut self.0 else { return Poll::Pending };
        while looks.timer.as_mut().poll(cx).is_ready() {
            for (at, (tcp, waiting)) in connections.iter().zip(&mut looks.waiting).enumerate() {
                // A connection that tells nothing has failed by itself.
                let (Ok(bytes), Ok(info)) = (sys::unacknowledged(tcp), sys::tcp_info(tcp)) else { continue };
                if is_dead(waiting, bytes, &info, looks.bound) {
                    let text = format!("no answer for {} s", info.tcpi_last_ack_recv / 1000);
                    return Poll::Ready((at, io::Error::new(io::ErrorKind::TimedOut, text)));
                }
            }
            looks.timer.as_mut().reset(Instant::now() + looks.bound / LOOKS);
        }
        Poll::Pending
    }
}

/// What a look tells. Bytes that were written just now, after a long silence, are given their time, too.
fn is_dead(waiting: &mut u32, bytes: usize, info: &tcp_info, bound: Duration) -> bool {
    *waiting = if bytes == 0 { 0 } else { waiting.saturating_add(1) };
    let silence = u64::from(info.tcpi_last_ack_recv);
    if *waiting <= LOOKS || silence < bound.as_millis() as u64 {
        return false;
    }
    if info.tcpi_unacked == 0 {
        // Nothing is on its way but probes, and each answer sets their number back.
        return info.tcpi_probes >= PROBES;
    }
    // Microseconds until the next retransmission. A live peer that has no room answers each of them.
    silence * 1000 > u64::from(info.tcpi_rto) * 3 / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(92);

    /// What the kernel says: silence in milliseconds, packets on their way, probes, pause until the next one.
    fn info(silence: u64, unacked: u32, probes: u8, pause: u64) -> tcp_info {
        // All its other fields are as good as any.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let one = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut info = sys::tcp_info(&one).unwrap();
        info.tcpi_last_ack_recv = u32::try_from(silence).unwrap();
        (info.tcpi_unacked, info.tcpi_probes) = (unacked, probes);
        info.tcpi_rto = u32::try_from(pause * 1000).unwrap();
        info
    }

    /// The time of each look, in milliseconds, until a connection is given up; None: it is not.
    fn given_up(seen: impl Fn(u64) -> (usize, tcp_info)) -> Option<u64> {
        let mut waiting = 0;
        let looks = (1..100).map(|look| look * BOUND.as_millis() as u64 / u64::from(LOOKS));
        looks.into_iter().find(|now| {
            let (bytes, info) = seen(*now);
            is_dead(&mut waiting, bytes, &info, BOUND)
        })
    }

    /// When, after the first, things come whose pauses double: the last one that was, and the pause after it.
    fn last(now: u64, longest: u64) -> (u64, u64) {
        let (mut at, mut pause) = (0, 200);
        while at + pause <= now {
            at += pause;
            pause = (pause * 2).min(longest);
        }
        (at, pause)
    }

    #[test]
    fn the_dead_are_given_up_after_the_bound_and_half_of_it() {
        // Bytes are sent again and again.
        let sent = given_up(|now| (100, info(now, 1, 0, last(now, 120_000).1)));
        assert!(sent.is_some_and(|after| (92_000..=161_000).contains(&after)), "{sent:?}");
        // A closed window is probed again and again.
        let probed = given_up(|now| (100, info(now, 0, 9, 200)));
        assert_eq!(probed, Some(115_000));
    }

    #[test]
    fn whoever_answers_however_seldom_is_not() {
        // Each probe is answered, and each retransmission to one who has no room.
        for unacked in [0, 1] {
            let seen = |now| {
                let (at, pause) = last(now, 120_000);
                (100, info(now - at, unacked, u8::from(unacked == 0), pause))
            };
            assert_eq!(given_up(seen), None);
        }
        // Nothing is on its way: keepalive sees to that.
        assert_eq!(given_up(|now| (0, info(now, 0, 0, 200))), None);
    }

    #[test]
    fn what_is_said_after_a_long_silence_has_its_time() {
        let begun = 1_000_000;
        let after = given_up(|now| (usize::from(now >= begun), info(now, 1, 0, 200)));
        assert!(after.is_some_and(|after| after >= begun + 92_000), "{after:?}");
    }
}
