//! The protocol by hand: a client and a server that are nothing but bytes. Independent of `rathole::wire` on purpose.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::PATIENCE;

/// CreateDataChannel, StartForwardTcp, Ack::Ok.
pub const ZERO: [u8; 4] = [0; 4];
/// HeartBeat, StartForwardUdp, Ack::ServiceNotExist.
pub const ONE: [u8; 4] = [1, 0, 0, 0];
/// Ack::AuthFailed.
pub const AUTH_FAILED: [u8; 4] = [2, 0, 0, 0];

/// Hex digits to bytes.
pub fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// SHA-256 of the parts together.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// A hello: tag 0 opens a control channel, 1 a data channel.
pub fn hello(tag: u8, version: u8, digest: &[u8; 32]) -> Vec<u8> {
    [&[tag, 0, 0, 0, version], &digest[..]].concat()
}

/// Connects with deadlines.
pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = super::visitor::connect(addr);
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads exactly so many bytes.
pub fn take<const N: usize>(mut stream: &TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).unwrap_or_else(|error| panic!("{N} bytes expected: {error}"));
    bytes
}

/// Writes all.
pub fn put(mut stream: &TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
}

/// Everything until the other side ends; an orderly end or a reset, but an end.
pub fn rest(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => bytes,
        Err(error) if super::visitor::is_reset(&error) => bytes,
        Err(error) => panic!("neither an end nor a reset: {error}"),
    }
}

/// A control channel by hand, and the session's key. Everything but the verdict is checked.
pub struct Control {
    /// The channel, after Auth was sent.
    pub stream: TcpStream,
    /// What data channels present.
    pub key: [u8; 32],
}

impl Control {
    /// Says hello and authenticates; the verdict is still to be read.
    pub fn open(server: SocketAddr, service: &str, token: &str) -> Self {
        let stream = connect(server);
        put(&stream, &hello(0, 1, &sha256(&[service.as_bytes()])));
        let challenge: [u8; 37] = take(&stream);
        assert_eq!(challenge[..5], [0, 0, 0, 0, 1], "the server's hello");
        let key = sha256(&[token.as_bytes(), &challenge[5..]]);
        put(&stream, &key);
        Control { stream, key }
    }

    /// The verdict must be yes.
    pub fn accepted(self) -> Self {
        assert_eq!(take(&self.stream), ZERO, "ack");
        self
    }

    /// Opens a data channel.
    pub fn data(&self, server: SocketAddr) -> TcpStream {
        let stream = connect(server);
        put(&stream, &hello(1, 1, &self.key));
        stream
    }
}

/// A server by hand: accepts what a client opens.
pub struct FakeServer {
    listener: TcpListener,
}

impl FakeServer {
    /// On an address that was reserved for it.
    pub fn listen(addr: SocketAddr) -> Self {
        FakeServer { listener: TcpListener::bind(addr).unwrap() }
    }

    /// The next connection; a test that waits in vain fails.
    pub fn accept(&self) -> TcpStream {
        self.try_accept().unwrap_or_else(|error| panic!("the client does not connect: {error}"))
    }

    /// Whether no connection comes for this long; one that does is still to be accepted.
    pub fn nobody_for(&self, time: Duration) -> bool {
        !self.is_called(time).unwrap()
    }

    /// Whether a connection is there, at the latest after `time`.
    fn is_called(&self, time: Duration) -> io::Result<bool> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(time).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(poll(&mut fds, timeout)? > 0)
    }

    fn try_accept(&self) -> io::Result<TcpStream> {
        if !self.is_called(PATIENCE)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (stream, _) = self.listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A control channel: checks hello and auth against `service` and `token`, says yes.
    pub fn accept_control(&self, service: &str, token: &str, nonce: [u8; 32]) -> (TcpStream, [u8; 32]) {
        let stream = self.accept();
        let given: [u8; 37] = take(&stream);
        assert_eq!(given[..], hello(0, 1, &sha256(&[service.as_bytes()])), "the client's hello");
        put(&stream, &hello(0, 1, &nonce));
        let key = sha256(&[token.as_bytes(), &nonce]);
        assert_eq!(take::<32>(&stream), key, "auth");
        put(&stream, &ZERO);
        (stream, key)
    }

    /// Asks for a data channel and takes it.
    pub fn data(&self, mut control: &TcpStream, key: &[u8; 32]) -> TcpStream {
        control.write_all(&ZERO).unwrap();
        let stream = self.accept();
        assert_eq!(take::<37>(&stream)[..], hello(1, 1, key), "the data channel's hello");
        stream
    }
}
