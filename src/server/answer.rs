//! Whether a client's machine has said anything since a data channel was started.
//!
//! v1 has no answer to StartForward, and a channel that a router has forgotten, or whose cable is cut, looks like one
//! whose visitor and service have nothing to say. But the client's kernel acknowledges StartForward. What it decides: until
//! when that must have come, and whether it has. Established connections are no concern of this: once heard is enough.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use crate::sys;

/// The least that a machine is given, whatever its visitor's deadline: several retransmissions on a bad line.
const LEAST: Duration = Duration::from_secs(3);

/// The kernel counts in ticks of up to this length.
const TICK: Duration = Duration::from_millis(10);

/// The acknowledgement of a StartForward.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// When that was written.
    asked: Instant,
}

impl Answer {
    /// StartForward is written now.
    pub fn to_start() -> Self {
        Answer { asked: Instant::now() }
    }

    /// Completes if it is missing so late that the channel is given up, and the visitor, who has said nothing, moved to
    /// another.
    pub async fn is_missing(self, channel: &TcpStream) {
        sleep_until(self.asked + LEAST).await;
        if self.has_come(channel) {
            std::future::pending::<()>().await;
        }
    }

    /// When a visitor who was to be served until then, and cannot be moved any more, is given up if it is missing.
    pub fn due(self, until: Instant) -> Instant {
        until.max(self.asked + LEAST)
    }

    /// Whether it has come, or anything after it.
    pub fn has_come(self, channel: &TcpStream) -> bool {
        let since = self.asked.elapsed() + TICK;
        let (bytes, info) = (sys::unacknowledged(channel), sys::tcp_info(channel));
        // A connection that tells nothing has failed by itself.
        !matches!(bytes, Ok(1..))
            || info.map_or(true, |info| Duration::from_millis(info.tcpi_last_ack_recv.into()) <= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (one, two) = tokio::join!(TcpStream::connect(addr), listener.accept());
        (one.unwrap(), two.unwrap().0)
    }

    #[tokio::test]
    async fn a_kernel_answers_though_nobody_reads() {
        let (mut one, _two) = pair().await;
        let answer = Answer::to_start();
        one.write_all(b"start").await.unwrap();
        while sys::unacknowledged(&one).unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(answer.has_come(&one));
        tokio::time::timeout(LEAST * 2, answer.is_missing(&one)).await.unwrap_err();
    }

    #[test]
    fn a_late_start_has_its_time_too() {
        let answer = Answer { asked: Instant::now() };
        assert_eq!(answer.due(answer.asked), answer.asked + LEAST);
        assert_eq!(answer.due(answer.asked + 3 * LEAST), answer.asked + 3 * LEAST);
    }
}
