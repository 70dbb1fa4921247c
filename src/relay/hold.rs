//! How long a visitor's end is held back from a tunnel that cannot end one direction only.
//!
//! Such a peer (rathole 0.5 over websocket) drops the answer when it is told of the visitor's end. So it is told late:
//! when the answer has ended, or when nothing of it has come for a while. Then there is none to lose, or the visitor
//! has simply gone, and the local service must learn of it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Silence of the local service after which the end is told.
const PATIENCE: Duration = Duration::from_secs(10);

/// The state of an end that is held back.
#[derive(Debug, Default)]
pub(super) enum Hold {
    /// Nothing is held back.
    #[default]
    Off,
    /// The service is listened to.
    On(Box<Wait>),
    /// The end may be told.
    Over,
}

/// Since the service last said something.
#[derive(Debug)]
pub(super) struct Wait {
    timer: Pin<Box<Sleep>>,
    /// Bytes that it had said then.
    moved: u64,
}

impl Hold {
    /// Whether the end may be told, of a relay whose answer so far has `moved` bytes. If not, the waker is registered.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>, moved: u64) -> bool {
        loop {
            match self {
                Hold::Over => return true,
                Hold::On(wait) if wait.moved == moved => match wait.timer.as_mut().poll(cx) {
                    Poll::Ready(()) => *self = Hold::Over,
                    Poll::Pending => return false,
                },
                Hold::On(wait) => {
                    wait.moved = moved;
                    wait.timer.as_mut().reset(Instant::now() + PATIENCE);
                }
                Hold::Off => {
                    let timer = Box::pin(sleep_until(Instant::now() + PATIENCE));
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
    async fn an_answer_prolongs_the_wait_and_silence_ends_it() {
        let mut hold = Hold::default();
        let begun = Instant::now();
        for moved in 0..3 {
            let over = poll_fn(|cx| Poll::Ready(hold.poll_over(cx, moved))).await;
            assert!(!over);
            tokio::time::advance(PATIENCE - Duration::from_secs(1)).await;
        }
        let until_over = poll_fn(|cx| if hold.poll_over(cx, 2) { Poll::Ready(()) } else { Poll::Pending });
        until_over.await;
        let took = begun.elapsed() - 2 * (PATIENCE - Duration::from_secs(1));
        assert!((PATIENCE..PATIENCE + Duration::from_millis(50)).contains(&took), "{took:?}");
    }
}
