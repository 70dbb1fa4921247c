//! A data channel that carries UDP frames: what both sides have in common.
//!
//! Reading and writing never wait for each other: a stalled write fills the queue, and a full queue drops.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use super::frames::{Broken, Inbox, Outbox};
use crate::transport::Stream;
use crate::transport::vigil::Vigil;
use crate::wire::Malformed;

/// Why a data channel for UDP is over.
#[derive(Debug)]
pub enum ChannelEnd {
    /// The peer ended it, between two frames.
    Closed,
    /// It broke.
    Failed(io::Error),
    /// The peer sent what is no frame.
    Malformed(Malformed),
}

impl fmt::Display for ChannelEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChannelEnd::Closed => f.write_str("data channel ended"),
            ChannelEnd::Failed(error) => write!(f, "data channel failed: {error}"),
            ChannelEnd::Malformed(malformed) => malformed.fmt(f),
        }
    }
}

/// The stream, and what waits on its two sides.
#[derive(Debug)]
pub(super) struct Channel {
    stream: Stream,
    inbox: Inbox,
    pub(super) outbox: Outbox,
    pub(super) vigil: Vigil,
}

impl Channel {
    pub(super) fn new(stream: Stream) -> Self {
        let vigil = Vigil::new(stream.tcp());
        Channel { stream, inbox: Inbox::default(), outbox: Outbox::default(), vigil }
    }

    /// Hands over the frames that are there. Ready: the channel is over.
    pub(super) fn poll_frames(
        &mut self,
        cx: &mut Context<'_>,
        on_frame: impl FnMut(SocketAddr, &[u8]),
    ) -> Poll<ChannelEnd> {
        self.inbox.poll(cx, &mut self.stream, on_frame).map(|broken| match broken {
            Broken::Ended => ChannelEnd::Closed,
            Broken::Failed(error) => ChannelEnd::Failed(error),
            Broken::Malformed(malformed) => ChannelEnd::Malformed(malformed),
        })
    }

    /// Writes what can be written. Ready: the channel is over.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<ChannelEnd> {
        match self.outbox.poll_write(cx, &mut self.stream) {
            Poll::Ready(Err(error)) => Poll::Ready(ChannelEnd::Failed(error)),
            Poll::Ready(Ok(())) | Poll::Pending => {
                self.vigil.poll(cx, &[self.stream.tcp()]).map(|(_, error)| ChannelEnd::Failed(error))
            }
        }
    }
}
