//! An authenticated control channel: commands go out, nothing comes in, silence is filled with heartbeats.
//!
//! The read side is watched: a client's end is seen at once, not at the second failing write. A write has a
//! deadline: a client that takes nothing is gone.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::pulse::{Beat, Pulse};
use crate::transport::Stream;
use crate::wire::ControlCommand;

/// A command that is not taken within this time ends the channel.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Commands in one write.
const BATCH: usize = 256;

/// Data channels that a service wants: a number, so that asking never blocks and is never lost.
#[derive(Debug, Default)]
pub struct Demand {
    wanted: AtomicUsize,
    changed: Notify,
    /// By which others ask whether the client is alive.
    pub pulse: Pulse,
}

impl Demand {
    /// Asks for `n` more channels.
    pub fn add(&self, n: usize) {
        self.wanted.fetch_add(n, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// How many are wanted since the last call; waits until there is one.
    async fn take(&self) -> usize {
        loop {
            match self.wanted.swap(0, Ordering::Relaxed) {
                0 => self.changed.notified().await,
                n => return n,
            }
        }
    }
}

/// Why a control channel ended.
#[derive(Debug)]
pub enum End {
    /// The client closed it.
    Closed,
    /// The client sent something: nobody who speaks this protocol does.
    Spoke,
    /// Reading or writing failed.
    Failed(io::Error),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Closed => f.write_str("closed by the client"),
            End::Spoke => f.write_str("the client sent data on its control channel"),
            // The kernel's own word.
            End::Failed(error)
                if error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_some() =>
            {
                f.write_str("no answer from the client's machine, or the link to it is cut")
            }
            End::Failed(error) => error.fmt(f),
        }
    }
}

/// Serves the channel until it ends.
pub async fn serve(channel: &mut Stream, demand: &Demand, heartbeat: Option<Duration>) -> End {
    let mut unexpected = [0];
    let mut beat = None;
    loop {
        let (command, mut count) = tokio::select! {
            read = channel.read(&mut unexpected) => return match read {
                Ok(0) => End::Closed,
                Ok(_) => End::Spoke,
                Err(error) => End::Failed(error),
            },
            n = demand.take() => (ControlCommand::CreateDataChannel, n),
            () = silence(heartbeat) => (ControlCommand::HeartBeat, 1),
            asked = demand.pulse.asked() => {
                beat = Some(asked);
                (ControlCommand::HeartBeat, 1)
            }
            () = Beat::look(beat) => {
                demand.pulse.look(&mut beat, channel.tcp());
                continue;
            }
        };
        while count > 0 {
            let batch = count.min(BATCH);
            count -= batch;
            let written = timeout(WRITE_TIMEOUT, async {
                channel.write_all(&command.encode().repeat(batch)).await?;
                channel.flush().await
            });
            match written.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return End::Failed(error),
                Err(_) => {
                    return End::Failed(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the client takes no commands",
                    ));
                }
            }
        }
    }
}

/// Completes when it is time for a heartbeat: after as much silence.
async fn silence(heartbeat: Option<Duration>) {
    match heartbeat {
        Some(interval) => sleep(interval).await,
        None => std::future::pending().await,
    }
}
