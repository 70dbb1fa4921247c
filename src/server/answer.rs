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

/// The acknowledgement of a StartForward.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// When that was written.
    asked: Instant,
    /// Bytes that were acknowledged before.
    acknowledged: u64,
}

impl Answer {
    /// StartForward is going to be written.
    pub fn to_start(channel: &TcpStream) -> Self {
        // A connection that tells nothing has failed by itself.
        let acknowledged = sys::tcp_info(channel).map_or(0, |info| info.tcpi_bytes_acked);
        Answer { asked: Instant::now(), acknowledged }
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

    /// Whether it has come, or that of anything after it. (When the kernel has last heard of the other is no sign: that may
    /// have been a moment before.)
    pub fn has_come(self, channel: &TcpStream) -> bool {
        let (Ok(1..), Ok(info)) = (sys::unacknowledged(channel), sys::tcp_info(channel)) else { return true };
        // Before Linux 4.2 the kernel counts neither.
        info.tcpi_bytes_acked > self.acknowledged || info.tcpi_segs_out == 0
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
        let answer = Answer::to_start(&one);
        one.write_all(b"start").await.unwrap();
        while sys::unacknowledged(&one).unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(answer.has_come(&one));
        tokio::time::timeout(LEAST * 2, answer.is_missing(&one)).await.unwrap_err();
    }

    #[tokio::test]
    async fn it_is_the_bytes_that_count_and_not_the_time() {
        let (one, _two) = pair().await;
        // More than the other's kernel takes: some are acknowledged, some are not, and that just now.
        let before = Answer::to_start(&one);
        while one.try_write(&[0; 1 << 16]).is_ok() {}
        let until = Instant::now() + LEAST;
        while !before.has_come(&one) {
            assert!(Instant::now() < until);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut after = Answer::to_start(&one);
        while after.has_come(&one) {
            assert!(Instant::now() < until);
            tokio::time::sleep(Duration::from_millis(1)).await;
            after = Answer::to_start(&one);
        }
        assert!(sys::unacknowledged(&one).unwrap() > 0 && before.has_come(&one));
    }

    #[test]
    fn a_late_start_has_its_time_too() {
        let answer = Answer { asked: Instant::now(), acknowledged: 0 };
        assert_eq!(answer.due(answer.asked), answer.asked + LEAST);
        assert_eq!(answer.due(answer.asked + 3 * LEAST), answer.asked + 3 * LEAST);
    }
}
