//! An established TLS connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::handshake::{Established, KeyUpdates};
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::record::{Content, Keys, invalid};

/// The longest session ticket that a server may send.
const MAX_TICKET: usize = 128 * 1024;

/// The longest message that a client may send after the handshake: KeyUpdate. A stranger makes us keep no more.
const KEY_UPDATE: usize = 1;

/// Records opened in one poll: a flood of those that carry nothing must not take the others' turn.
const PATIENCE: usize = 128;

/// warning, close_notify
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// TLS over TCP, with half-close. An end without close_notify is an orderly end, because rathole 0.5 just closes.
pub struct Stream {
    pub(super) tcp: TcpStream,
    receive: Keys,
    pub(super) send: Keys,
    /// Makes the next keys; TLS 1.3 only.
    pub(super) updates: Option<Box<dyn KeyUpdates>>,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    is_client: bool,
    /// A message after the handshake of which only the beginning is here.
    message: Vec<u8>,
    reading: Reading,
    /// The peer wants us to change our key before we send more.
    pub(super) owes_key_update: bool,
    /// Our close_notify is sealed: nothing can follow it.
    ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Open,
    Ended,
    Failed,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream, established: Established) -> Self {
        Stream {
            tcp,
            receive: established.receive,
            send: established.send,
            updates: established.updates,
            incoming: Incoming::new(established.sealed, established.is_client),
            outgoing: Outgoing::default(),
            is_client: established.is_client,
            message: Vec::new(),
            reading: Reading::Open,
            owes_key_update: false,
            ended: false,
        }
    }

    /// The connection underneath.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// The peer is authenticated, and not only by its certificate.
    pub fn trust(&mut self) {
        self.incoming.trust();
    }

    fn poll_some(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut any = false;
        let mut opened = 0;
        loop {
            any |= self.incoming.read(buf);
            if buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            match self.reading {
                Reading::Open => {}
                Reading::Ended => return Poll::Ready(Ok(())),
                Reading::Failed if any => return Poll::Ready(Ok(())),
                Reading::Failed => return Poll::Ready(Err(invalid("the TLS connection has failed"))),
            }
            match self.incoming.next_record()? {
                // A record that does not fit is better opened when the reader comes with an empty buffer.
                Some(length) if any && length > buf.remaining() => return Poll::Ready(Ok(())),
                Some(_) if opened == PATIENCE && any => return Poll::Ready(Ok(())),
                Some(_) if opened == PATIENCE => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(length) => {
                    opened += 1;
                    self.open(length)?;
                }
                None if any => return Poll::Ready(Ok(())),
                None => {
                    if ready!(self.incoming.poll_fill(&mut self.tcp, cx))? == 0 {
                        self.reading = Reading::Ended;
                        if !self.incoming.is_drained() {
                            let message = "the connection ended inside a TLS record";
                            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, message)));
                        }
                    }
                }
            }
        }
    }

    /// Opens one record and does what it says.
    fn open(&mut self, length: usize) -> io::Result<()> {
        match self.incoming.open(&mut self.receive, length)? {
            (Content::Data, _) if self.message.is_empty() => Ok(()),
            (Content::Data, _) => Err(invalid("the peer sent data inside a TLS message")),
            (Content::Alert, alert) => {
                match *alert {
                    [_, 0] => self.reading = Reading::Ended,
                    // user_canceled announces a close_notify.
                    [_, 90] => {}
                    // TLS 1.2 has warnings; no_renegotiation is one.
                    [1, _] if !self.receive.are_tls13() => {}
                    [_, code] => {
                        // Nobody is there to be told or sent anything.
                        self.fail_sending();
                        return Err(invalid(format!("the peer ended TLS with alert {code}")));
                    }
                    _ => return Err(invalid("the peer sent a broken TLS alert")),
                }
                Ok(())
            }
            (Content::Handshake, []) => Err(invalid("the peer sent an empty TLS message")),
            (Content::Handshake, bytes) => {
                self.message.extend_from_slice(bytes);
                self.take_messages()
            }
        }
    }

    /// Acts on the whole messages among those after the handshake.
    fn take_messages(&mut self) -> io::Result<()> {
        while let [kind, a, b, c, ref rest @ ..] = self.message[..] {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > if self.is_client { MAX_TICKET } else { KEY_UPDATE } {
                return Err(invalid("the peer sent a TLS message that is too long"));
            }
            let Some(body) = rest.get(..length) else { break };
            match (kind, body, &mut self.updates) {
                // NewSessionTicket: we resume no sessions.
                (4, _, Some(_)) if self.is_client => {}
                // KeyUpdate, the last message under the old key; 1: the peer wants ours changed, too.
                (24, &[wish @ (0 | 1)], Some(updates)) if rest.len() == 1 => {
                    self.receive = Keys::new(true, updates.next_receive()?)?;
                    self.owes_key_update |= wish == 1;
                }
                // HelloRequest of TLS 1.2: renegotiation may be declined by silence.
                (0, [], None) if self.is_client => {}
                _ => return Err(invalid(format!("the peer sent an unexpected TLS message, type {kind}"))),
            }
            self.message.drain(..4 + length);
        }
        if self.message.is_empty() {
            self.message = Vec::new();
        }
        Ok(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.outgoing.poll_drain(&mut self.tcp, cx))?;
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let sealed = self.update_key().and_then(|()| self.outgoing.push_data(&mut self.send, slices));
        if sealed.is_err() {
            self.fail_sending();
        }
        let count = sealed?;
        // What the socket does not take now is sent by the next write or flush.
        match self.outgoing.poll_drain(&mut self.tcp, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(count)),
        }
    }

    fn update_key(&mut self) -> io::Result<()> {
        let Some(updates) = &mut self.updates else { return Ok(()) };
        if !self.owes_key_update && !self.send.are_worn_out() {
            return Ok(());
        }
        self.outgoing.push_message(&mut self.send, Content::Handshake, &[24, 0, 0, 1, 0])?;
        self.send = Keys::new(true, updates.next_send()?)?;
        self.owes_key_update = false;
        Ok(())
    }

    /// Tells the peer, if that costs no wait, that the connection failed because of what it sent.
    fn send_alert(&mut self) {
        // bad_record_mac, the most likely fault.
        let alert = [2, 20];
        if self.outgoing.is_empty()
            && !self.ended
            && self.outgoing.push_message(&mut self.send, Content::Alert, &alert).is_ok()
        {
            let _ = self.tcp.try_write(self.outgoing.sealed());
        }
        self.fail_sending();
    }

    fn fail_sending(&mut self) {
        self.outgoing.clear();
        self.ended = true;
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let mut result = this.poll_some(cx, buf);
        if let Poll::Ready(Err(error)) = &result {
            if error.kind() == io::ErrorKind::InvalidData && this.reading != Reading::Failed {
                this.send_alert();
            }
            this.reading = Reading::Failed;
            // All good bytes were given out before the next record was looked at.
            this.incoming.clear();
            // What came before the fault is delivered first; the next read tells of the fault.
            if buf.filled().len() > before {
                result = Poll::Ready(Ok(()));
            }
        }
        this.incoming.rest(result.is_pending());
        result
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.outgoing.poll_drain(&mut this.tcp, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ended {
            ready!(this.outgoing.poll_drain(&mut this.tcp, cx))?;
            this.outgoing.push_message(&mut this.send, Content::Alert, &CLOSE_NOTIFY)?;
            this.ended = true;
        }
        ready!(this.outgoing.poll_drain(&mut this.tcp, cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("tls::Stream").field("tcp", &self.tcp).field("reading", &self.reading).finish()
    }
}
