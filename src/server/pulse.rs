//! Whether a client is alive: its kernel acknowledges a heartbeat that is sent when somebody asks.
//!
//! Who asks and who holds the connection are two tasks. [`Pulse`] is the number of the last question, and that of the
//! last one with an answer: asking never blocks the connection's task, and who asks at the same time shares an answer.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::sys;
use crate::transport::Stream;

/// How long a kernel may take to acknowledge.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// How often the acknowledgement is looked for: nothing announces it.
const LOOK: Duration = Duration::from_millis(10);

/// Who has acknowledged something so short a time ago was alive.
const LATELY: Duration = Duration::from_secs(1);

/// The state TCP_ESTABLISHED.
const ESTABLISHED: u8 = 1;

/// The questions to one control channel.
#[derive(Debug, Default)]
pub struct Pulse {
    asked: AtomicU64,
    ask: Notify,
    felt: AtomicU64,
    feel: Notify,
}

impl Pulse {
    /// Whether a heartbeat that is sent from now on is acknowledged in time.
    pub async fn is_felt(&self) -> bool {
        let question = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.ask.notify_one();
        let felt = async {
            loop {
                // Made first: it notices what happens between the look and the wait.
                let feel = self.feel.notified();
                if self.felt.load(Ordering::Acquire) >= question {
                    return;
                }
                feel.await;
            }
        };
        timeout(PATIENCE, felt).await.is_ok()
    }

    /// Completes when somebody asks: a heartbeat must be sent, and then looked for.
    pub async fn asked(&self) -> Beat {
        self.ask.notified().await;
        Beat { question: self.asked.load(Ordering::Acquire), until: Instant::now() + PATIENCE }
    }

    /// Whether the search is over: the heartbeat was acknowledged, or is too late.
    fn is_over(&self, beat: Beat, tcp: &TcpStream) -> bool {
        if matches!(sys::unacknowledged(tcp), Ok(0)) {
            self.felt.fetch_max(beat.question, Ordering::AcqRel);
            self.feel.notify_waiters();
            return true;
        }
        Instant::now() >= beat.until
    }

    /// Looks for the acknowledgement, if there is a beat: call it after [`Beat::look`].
    pub fn look(&self, beat: &mut Option<Beat>, tcp: &TcpStream) {
        *beat = beat.filter(|beat| !self.is_over(*beat, tcp));
    }
}

/// A heartbeat that was asked for and not yet acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    question: u64,
    until: Instant,
}

impl Beat {
    /// Completes when it is time to look for the acknowledgement; never if there is no beat.
    pub async fn look(beat: Option<Beat>) {
        match beat {
            Some(_) => sleep(LOOK).await,
            None => std::future::pending().await,
        }
    }
}

/// Closes the control channel of a client that was replaced; says whether it had been alive: whether its kernel
/// acknowledges a last word, which is a heartbeat if the client awaits nothing else.
///
/// If the answer is a reset, or an end is here already, there are two cases: a client that hangs up as soon as it is
/// replaced, and a machine that has forgotten the connection. The latter has acknowledged nothing for a while.
pub async fn of_replaced(mut channel: Stream, last_word: &[u8]) -> bool {
    let Ok(info) = sys::tcp_info(channel.tcp()) else { return false };
    let was_lively = is_lively(&channel);
    if info.tcpi_state != ESTABLISHED {
        return was_lively;
    }
    let heard = timeout(PATIENCE, async {
        channel.write_all(last_word).await?;
        channel.flush().await?;
        if matches!(sys::unacknowledged(channel.tcp()), Ok(0)) {
            // Whether it is still there for the end is all the same.
            let _ = channel.shutdown().await;
            return Ok(());
        }
        channel.shutdown().await?;
        // The end counts as a byte. It may be acknowledged later.
        while !matches!(sys::unacknowledged(channel.tcp()), Ok(0 | 1)) {
            if let Some(error) = channel.tcp().take_error()? {
                return Err(error);
            }
            sleep(LOOK).await;
        }
        Ok(())
    });
    match heard.await {
        Ok(Ok(())) => true,
        // It may have acknowledged the last word before the reset. What shutdown says of a reset connection is not why.
        Ok(Err(error)) => {
            (was_lively || is_lively(&channel))
                && is_reset(&channel.tcp().take_error().ok().flatten().unwrap_or(error))
        }
        Err(_) => false,
    }
}

/// Whether it has acknowledged something lately. A reset is no acknowledgement.
fn is_lively(channel: &Stream) -> bool {
    let since =
        sys::tcp_info(channel.tcp()).map(|info| Duration::from_millis(info.tcpi_last_ack_recv.into()));
    since.is_ok_and(|since| since < LATELY)
}

fn is_reset(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), ConnectionReset | BrokenPipe | NotConnected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::io::AsyncReadExt;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (one, listener.accept().await.unwrap().0)
    }

    /// The task of a control channel, in small.
    async fn serve(pulse: Arc<Pulse>, mut tcp: TcpStream, beats: bool) {
        let mut beat = None;
        loop {
            tokio::select! {
                asked = pulse.asked() => {
                    beat = Some(asked);
                    if beats {
                        tcp.write_all(b"beat").await.unwrap();
                    }
                }
                () = Beat::look(beat) => pulse.look(&mut beat, &tcp),
            }
        }
    }

    #[tokio::test]
    async fn all_who_ask_are_answered() {
        let (one, _two) = pair().await;
        let pulse = Arc::new(Pulse::default());
        let task = tokio::spawn(serve(pulse.clone(), one, true));
        for _ in 0..5 {
            let (a, b, c) = tokio::join!(pulse.is_felt(), pulse.is_felt(), pulse.is_felt());
            assert!(a && b && c);
        }
        task.abort();
        let begun = Instant::now();
        // Whoever holds the connection is gone.
        let _ = task.await;
        assert!(!pulse.is_felt().await);
        assert!(begun.elapsed() >= PATIENCE);
    }

    /// Bytes that nobody's kernel takes any more.
    #[tokio::test]
    async fn a_full_kernel_acknowledges_nothing() {
        let (one, _two) = pair().await;
        while one.writable().await.is_ok() && one.try_write(&[0; 65_536]).is_ok() {}
        let pulse = Arc::new(Pulse::default());
        let task = tokio::spawn(serve(pulse.clone(), one, false));
        assert!(!pulse.is_felt().await);
        task.abort();
    }

    #[tokio::test]
    async fn who_was_replaced_is_told_and_known_to_have_been_alive() {
        let (one, mut two) = pair().await;
        let begun = Instant::now();
        // It stands still, its kernel does not.
        assert!(of_replaced(Stream::Tcp(one), b"beat").await);
        assert!(begun.elapsed() < PATIENCE);
        let mut told = Vec::new();
        two.read_to_end(&mut told).await.unwrap();
        assert_eq!(told, b"beat");
    }

    #[tokio::test]
    async fn who_hangs_up_at_once_was_alive() {
        for is_reset in [false, true] {
            let (one, two) = pair().await;
            if is_reset {
                crate::transport::tcp::reset_on_drop(&two);
            }
            drop(two);
            let begun = Instant::now();
            assert!(of_replaced(Stream::Tcp(one), b"beat").await);
            assert!(begun.elapsed() < PATIENCE);
        }
    }

    /// The same, long after it has acknowledged anything.
    #[tokio::test]
    async fn whose_machine_has_forgotten_the_connection_was_not_alive() {
        let (one, two) = pair().await;
        sleep(LATELY + LOOK).await;
        crate::transport::tcp::reset_on_drop(&two);
        drop(two);
        assert!(!of_replaced(Stream::Tcp(one), b"beat").await);
    }

    #[tokio::test]
    async fn who_takes_nothing_was_not_alive() {
        let begun = Instant::now();
        let (one, _two) = pair().await;
        while one.writable().await.is_ok() && one.try_write(&[0; 65_536]).is_ok() {}
        assert!(!of_replaced(Stream::Tcp(one), b"beat").await);
        assert!(begun.elapsed() >= PATIENCE);
    }
}
