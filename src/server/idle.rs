//! Data channels that wait for a visitor: each is watched, so that a dead one is known when it dies, not when it is used.
//!
//! Nobody speaks on an idle channel: an end, a reset, a byte, each makes it useless. The watch costs a waker for each
//! channel, and work only for those that something happens to.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::ReadBuf;

use super::budget::Share;
use crate::relay::Ready;
use crate::transport::Stream;

/// Channels that are looked at before others get their turn.
const TURN: usize = 64;

/// Names an idle channel of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChannelId(u64);

/// The idle channels of one service.
#[derive(Debug)]
pub struct IdleChannels {
    channels: HashMap<ChannelId, Watched>,
    ready: Arc<Ready<ChannelId>>,
    last: u64,
    share: Share,
}

#[derive(Debug)]
struct Watched {
    stream: Stream,
    waker: Waker,
}

impl IdleChannels {
    /// None yet; those that come are this share.
    pub fn new(share: Share) -> Self {
        IdleChannels { channels: HashMap::new(), ready: Arc::default(), last: 0, share }
    }

    /// How many there may be.
    pub fn allowed(&self) -> usize {
        self.share.allowed()
    }

    /// Watches a channel.
    pub fn insert(&mut self, stream: Stream) -> ChannelId {
        self.last += 1;
        let id = ChannelId(self.last);
        let waker = self.ready.waker(id);
        // To be looked at once: from then on its socket wakes it.
        waker.wake_by_ref();
        self.channels.insert(id, Watched { stream, waker });
        self.share.set(self.channels.len());
        id
    }

    /// Takes a channel out, to use it or to close it.
    pub fn take(&mut self, id: ChannelId) -> Option<Stream> {
        let taken = self.channels.remove(&id)?;
        self.share.set(self.channels.len());
        Some(taken.stream)
    }

    /// The next channel that has died. It must be taken out: it is not told of again.
    pub fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<ChannelId> {
        self.ready.register(cx);
        for _ in 0..TURN {
            let Some(id) = self.ready.next() else { return Poll::Pending };
            // One that is not here any more was woken before it went.
            let Some(watched) = self.channels.get(&id) else { continue };
            if poll_sign(&watched.stream, &mut Context::from_waker(&watched.waker)).is_ready() {
                return Poll::Ready(id);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Whether a channel is dead, as far as can be known now.
pub fn is_dead(stream: &Stream) -> bool {
    poll_sign(stream, &mut Context::from_waker(Waker::noop())).is_ready()
}

/// Ready: it has ended, or says something before it is asked.
fn poll_sign(stream: &Stream, cx: &mut Context<'_>) -> Poll<()> {
    let mut byte = [0];
    stream.tcp().poll_peek(cx, &mut ReadBuf::new(&mut byte)).map(drop)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::super::budget::Budget;
    use super::*;
    use crate::transport::tcp;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    async fn next_dead(idle: &mut IdleChannels) -> ChannelId {
        timeout(PATIENCE, poll_fn(|cx| idle.poll_dead(cx))).await.expect("no channel died")
    }

    #[tokio::test]
    async fn an_end_a_reset_and_a_byte_are_seen_and_silence_is_not() {
        let mut idle = IdleChannels::new(Budget::new(1).idle());
        let mut far = Vec::new();
        let mut ids = Vec::new();
        for _ in 0..4 {
            let (near, other) = pair().await;
            ids.push(idle.insert(Stream::Tcp(near)));
            far.push(other);
        }
        let quiet = timeout(Duration::from_millis(50), poll_fn(|cx| idle.poll_dead(cx))).await;
        assert!(quiet.is_err(), "{quiet:?}");
        let mut far = far.into_iter();
        let (_alive, ends, resets, mut speaks) =
            (far.next().unwrap(), far.next().unwrap(), far.next().unwrap(), far.next().unwrap());
        drop(ends);
        assert_eq!(next_dead(&mut idle).await, ids[1]);
        tcp::reset_on_drop(&resets);
        drop(resets);
        assert_eq!(next_dead(&mut idle).await, ids[2]);
        speaks.write_all(b"?").await.unwrap();
        assert_eq!(next_dead(&mut idle).await, ids[3]);
        let alive = idle.take(ids[0]).unwrap();
        assert!(!is_dead(&alive));
        for dead in &ids[1..] {
            assert!(is_dead(&idle.take(*dead).unwrap()));
        }
    }

    /// Also one that died before it was watched, and one that is used: that is not the watch's business any more.
    #[tokio::test]
    async fn the_watch_begins_at_once_and_ends_at_once() {
        let mut idle = IdleChannels::new(Budget::new(1).idle());
        let (near, far) = pair().await;
        drop(far);
        let dead = idle.insert(Stream::Tcp(near));
        assert_eq!(next_dead(&mut idle).await, dead);
        let (near, far) = pair().await;
        let used = idle.insert(Stream::Tcp(near));
        let quiet = timeout(Duration::from_millis(50), poll_fn(|cx| idle.poll_dead(cx))).await;
        assert!(quiet.is_err(), "{quiet:?}");
        let _used = idle.take(used).unwrap();
        drop(far);
        let quiet = timeout(Duration::from_millis(50), poll_fn(|cx| idle.poll_dead(cx))).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }
}
