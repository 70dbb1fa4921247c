//! How long an end is held back from a tunnel that cannot end one direction only.
//!
//! Such a peer (rathole 0.5 over websocket) drops the answer when it is told of the visitor's end. So it is told late:
//! when the answer has ended, or when nothing of it has come for a while. Then there is none to lose, or the visitor
//! has simply gone, and the local service must learn of it.
//!
//! A service's end must be told, for a visitor may wait for it; but not at once: what the peer has read and not yet
//! written to its visitor is lost when it hears of the end (measured: the last 1.6 KB of 700 KB, one time in ten).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::Side;

/// Silence of the other side after which the end is told.
fn patience(side: Side) -> Duration {
    match side {
        // The service may think about its answer.
        Side::Server => Duration::from_secs(10),
        // The peer hands over what it has.
        Side::Client => Duration::from_secs(1),
    }
}

/// The state of an end that is held back.
#[derive(Debug, Default)]
pub(super) enum Hold {
    /// Nothing is held back.
    #[default]
    Off,
    /// The other side is listened to.
    On(Box<Wait>),
    /// The end may be told.
    Over,
}

/// Since the other side last said something.
#[derive(Debug)]
pub(super) struct Wait {
    timer: Pin<Box<Sleep>>,
    /// Bytes that it had said then.
    moved: u64,
}

impl Hold {
    /// Whether the end may be told, of a relay on `side` to which `moved` bytes have come by the tunnel. If not, the waker is
    /// registered.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>, side: Side, moved: u64) -> bool {
        loop {
            match self {
                Hold::Over => return true,
                Hold::On(wait) if wait.moved == moved => match wait.timer.as_mut().poll(cx) {
                    Poll::Ready(()) => *self = Hold::Over,
                    Poll::Pending => return false,
                },
                Hold::On(wait) => {
                    wait.moved = moved;
                    wait.timer.as_mut().reset(Instant::now() + patience(side));
                }
                Hold::Off => {
                    let timer = Box::pin(sleep_until(Instant::now() + patience(side)));
                    *self = Hold::On(Box::new(Wait { timer, moved }));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_prolong_the_wait_and_silence_ends_it() {
        for side in [Side::Server, Side::Client] {
            let (mut hold, begun) = (Hold::default(), Instant::now());
            let nearly = patience(side) - Duration::from_millis(200);
            for moved in 0..3 {
                let over = poll_fn(|cx| Poll::Ready(hold.poll_over(cx, side, moved))).await;
                assert!(!over, "{side:?}");
                tokio::time::advance(nearly).await;
            }
            poll_fn(|cx| if hold.poll_over(cx, side, 2) { Poll::Ready(()) } else { Poll::Pending }).await;
            let took = begun.elapsed() - 2 * nearly;
            let expected = patience(side)..patience(side) + Duration::from_millis(50);
            assert!(expected.contains(&took), "{side:?}: {took:?}");
        }
    }
}
