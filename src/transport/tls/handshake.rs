//! The handshake: rustls decides, this file carries the bytes and takes over the traffic keys at the end.

use std::io;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, Error, ExtractedSecrets, PeerMisbehaved, ProtocolVersion,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::record::{Keys, MAX_RECORD, record_length};
use crate::transport::STRANGER;

/// Bytes asked for at a time: a stranger gets no large buffer.
const READ: usize = 4096;

/// The longest handshake message that rustls takes.
const MAX_MESSAGE: usize = 64 * 1024;

/// Makes the next traffic keys of a TLS 1.3 connection.
pub trait KeyUpdates: Send + Sync {
    /// For the records to come from the peer.
    fn next_receive(&mut self) -> io::Result<(u64, ConnectionTrafficSecrets)>;
    /// For the records to send.
    fn next_send(&mut self) -> io::Result<(u64, ConnectionTrafficSecrets)>;
}

impl<Data> KeyUpdates for KernelConnection<Data>
where
    KernelConnection<Data>: Send + Sync,
{
    fn next_receive(&mut self) -> io::Result<(u64, ConnectionTrafficSecrets)> {
        self.update_rx_secret().map_err(io::Error::other)
    }

    fn next_send(&mut self) -> io::Result<(u64, ConnectionTrafficSecrets)> {
        self.update_tx_secret().map_err(io::Error::other)
    }
}

/// What a connection is after the handshake.
pub struct Established {
    /// Opens records from the peer.
    pub receive: Keys,
    /// Seals records to the peer.
    pub send: Keys,
    /// Makes new keys; None in TLS 1.2.
    pub updates: Option<Box<dyn KeyUpdates>>,
    /// Records, or a part of one, that came with the end of the handshake.
    pub sealed: Vec<u8>,
    /// Whether the peer is the server.
    pub is_client: bool,
}

/// Why a handshake failed.
pub enum Failure {
    /// The socket failed, or ended.
    Io(io::Error),
    /// TLS failed.
    Tls(Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Tls(error)
    }
}

/// A rustls connection of either role.
pub trait Side: Sized {
    /// The role, as rustls calls it.
    type Data: 'static;
    /// Whether this is the client.
    const IS_CLIENT: bool;
    /// Bytes of the peer that may wait for the rest of a handshake message. A client's hello has a few hundred, with
    /// keys that withstand quantum computers two thousand.
    const MOST: usize = if Self::IS_CLIENT { MAX_MESSAGE + MAX_RECORD } else { STRANGER };

    /// See `UnbufferedConnectionCommon::process_tls_records`.
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    /// Whether the handshake goes on.
    fn is_handshaking(&self) -> bool;
    /// Hands over keys.
    fn finish(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error>;
}

macro_rules! side {
    ($connection:ty, $data:ty, $is_client:expr) => {
        impl Side for $connection {
            type Data = $data;
            const IS_CLIENT: bool = $is_client;

            fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, $data> {
                self.process_tls_records(incoming)
            }

            fn is_handshaking(&self) -> bool {
                (**self).is_handshaking()
            }

            fn finish(self) -> Result<(ExtractedSecrets, KernelConnection<$data>), Error> {
                self.dangerous_into_kernel_connection()
            }
        }
    };
}

side!(UnbufferedClientConnection, ClientConnectionData, true);
side!(UnbufferedServerConnection, ServerConnectionData, false);

/// Does the whole handshake. The caller sets the deadline.
pub async fn run<S: Side>(tcp: &mut TcpStream, session: S) -> Result<Established, Failure>
where
    KernelConnection<S::Data>: Send + Sync,
{
    let mut pending = Pending { session, received: Vec::new(), given: 0, to_send: Vec::new() };
    loop {
        let step = pending.step();
        if step.is_err() {
            pending.encode_alert();
        }
        let sent = tcp.write_all(&pending.to_send).await;
        pending.to_send.clear();
        let step = step?;
        sent?;
        if let Step::Done = step {
            break;
        }
        if pending.received.len() > S::MOST {
            return Err(Failure::Tls(Error::PeerSentOversizedRecord));
        }
        // A buffer only once there is something to read.
        tcp.readable().await?;
        pending.received.reserve(READ);
        match tcp.try_read_buf(&mut pending.received) {
            Ok(0) => return Err(Failure::Io(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        // What a stranger makes us keep takes no more than it is.
        if !S::IS_CLIENT {
            pending.received.shrink_to_fit();
        }
    }
    let (secrets, kernel) = pending.session.finish()?;
    let tls13 = kernel.protocol_version() == ProtocolVersion::TLSv1_3;
    Ok(Established {
        receive: Keys::new(tls13, secrets.rx)?,
        send: Keys::new(tls13, secrets.tx)?,
        updates: tls13.then(|| Box::new(kernel) as Box<dyn KeyUpdates>),
        sealed: pending.received,
        is_client: S::IS_CLIENT,
    })
}

/// A handshake under way.
struct Pending<S> {
    session: S,
    received: Vec<u8>,
    /// How much of `received` rustls has seen: whole records, of which it waits for a message's rest.
    given: usize,
    to_send: Vec<u8>,
}

/// What comes next, after all that is to be sent is sent.
enum Step {
    Read,
    Done,
}

impl<S: Side> Pending<S> {
    fn step(&mut self) -> Result<Step, Error> {
        loop {
            let UnbufferedStatus { discard, state, .. } =
                self.session.process(&mut self.received[..self.given]);
            let blocked = match state? {
                ConnectionState::EncodeTlsData(data) => {
                    encode(data, &mut self.to_send)?;
                    false
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    false
                }
                ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => true,
                ConnectionState::PeerClosed => {
                    return Err(Error::AlertReceived(AlertDescription::CloseNotify));
                }
                _ => return Err(Error::General("an unexpected state of the handshake".to_owned())),
            };
            let discard = discard.min(self.given);
            self.received.drain(..discard);
            self.given -= discard;
            if !blocked {
                continue;
            }
            match self.session.is_handshaking() {
                true if self.give_record() => {}
                true => return Ok(Step::Read),
                false if self.given == 0 => return Ok(Step::Done),
                // Part of a message in the same record as the last one: no TLS has that.
                false => return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into()),
            }
        }
    }

    /// Gives rustls one more whole record; says whether there was one. It must see none behind the handshake's last:
    /// what it does upon those is lost when its keys are taken (its answer to a KeyUpdate would never be sent, but its
    /// key be changed).
    fn give_record(&mut self) -> bool {
        let rest = &self.received[self.given..];
        let more = match record_length(rest) {
            Ok(Some(length)) if length <= rest.len() => length,
            Ok(_) => 0,
            // rustls says best what is wrong.
            Err(_) => rest.len(),
        };
        self.given += more;
        more > 0
    }

    /// Puts the alert that tells the peer of a failure into what is to be sent. It is the first thing that rustls
    /// offers after the failure; nothing may be asked of it after that.
    fn encode_alert(&mut self) {
        if let Ok(ConnectionState::EncodeTlsData(data)) =
            self.session.process(&mut self.received[..self.given]).state
        {
            // What cannot be encoded is not sent; the connection is over in any case.
            let _ = encode(data, &mut self.to_send);
        }
    }
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, into: &mut Vec<u8>) -> Result<(), Error> {
    let start = into.len();
    let required = match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        _ => 0,
    };
    into.resize(start + required, 0);
    data.encode(&mut into[start..]).map(drop).map_err(|error| Error::General(error.to_string()))
}
