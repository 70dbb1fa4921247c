//! What visitors do, and what they must get. Every wait has a deadline; every failure says what was expected.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::service::digest_line;

/// Connects, with deadlines on everything.
pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE)
        .unwrap_or_else(|error| panic!("visitor cannot connect to {addr}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Bytes that compress and repeat nowhere, the same for the same seed.
pub fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Waits until an echo service is reached: before that, connections may be refused or closed.
pub fn wait_served(addr: SocketAddr) {
    super::net::wait(&format!("no visitor of {addr} is served"), || try_echo(addr, b"ready?").is_ok());
}

/// A visitor that has been served, and stays.
pub fn served(addr: SocketAddr) -> io::Result<TcpStream> {
    // Who finds no descriptor may be reset so soon that he is never connected.
    let mut stream = TcpStream::connect(addr).map_err(|_| ErrorKind::ConnectionReset)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

/// One short echo.
pub fn try_echo(addr: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(bytes)?;
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer)?;
    if answer == bytes { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

/// Sends `bytes` and reads them back at the same time, on one connection; then both sides end in order
/// (`half_close`: the visitor's end is seen by the service, and its end by us).
pub fn echo(addr: SocketAddr, bytes: &[u8], half_close: bool) {
    let stream = connect(addr);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(bytes).expect("visitor cannot write");
            if half_close {
                stream.shutdown(Shutdown::Write).unwrap();
            }
        });
        let mut answer = vec![0; bytes.len()];
        (&stream).read_exact(&mut answer).expect("visitor cannot read the echo");
        assert!(answer == bytes, "the echo of {} bytes differs", bytes.len());
        if half_close {
            assert_eq!(
                (&stream).read(&mut [0; 1]).expect("the end of the echo"),
                0,
                "more than was sent came back"
            );
        }
    });
}

/// Many small requests in turn on one connection.
pub fn ping_pong(addr: SocketAddr, rounds: usize) {
    let mut stream = connect(addr);
    stream.set_nodelay(true).unwrap();
    for round in 0..rounds {
        let ping = format!("ping {round:6}");
        stream.write_all(ping.as_bytes()).unwrap();
        let mut pong = vec![0; ping.len()];
        stream.read_exact(&mut pong).unwrap_or_else(|error| panic!("no answer to {ping:?}: {error}"));
        assert_eq!(pong, ping.as_bytes());
    }
}

/// Sends, ends its direction, and only then gets the answer, from [`super::service::Local::digest`].
pub fn half_close(addr: SocketAddr, bytes: &[u8]) {
    let mut stream = connect(addr);
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer after half-close");
    assert_eq!(answer, digest_line(bytes), "after half-close");
}

/// A visitor that is expected to get nothing: says nothing, reads until the end. The reset may come so early that
/// connecting reports it.
pub fn connect_and_read(addr: SocketAddr) -> (Vec<u8>, io::Result<()>) {
    let mut stream = match TcpStream::connect_timeout(&addr, PATIENCE) {
        Ok(stream) => stream,
        Err(error) if is_reset(&error) => return (Vec::new(), Err(error)),
        Err(error) => panic!("visitor cannot connect to {addr}: {error}"),
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    read_until_closed(&mut stream)
}

/// Reads until the end; a reset is an end, too. What came.
pub fn read_until_closed(stream: &mut TcpStream) -> (Vec<u8>, io::Result<()>) {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).map(drop);
    (bytes, end)
}

/// Whether this is the error of a connection that the other side has reset.
pub fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// One UDP visitor, talking to an echo service.
pub struct UdpVisitor {
    socket: UdpSocket,
    /// Datagrams that had to be sent again.
    pub lost: usize,
}

impl UdpVisitor {
    /// A visitor with an address of its own.
    pub fn new(addr: SocketAddr) -> Self {
        let any = if addr.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(addr).unwrap();
        UdpVisitor { socket, lost: 0 }
    }

    /// Waits until the service is reached.
    pub fn wait_served(&mut self) {
        let until = Instant::now() + PATIENCE;
        while !self.try_echo(b"udp ready?", Duration::from_millis(200)) {
            assert!(Instant::now() < until, "no UDP visitor is served");
        }
        self.lost = 0;
    }

    /// One datagram there and back. UDP may lose it, so it is sent again, at most 4 times.
    pub fn echo(&mut self, datagram: &[u8]) {
        for _ in 0..5 {
            if self.try_echo(datagram, Duration::from_secs(2)) {
                return;
            }
            self.lost += 1;
        }
        panic!("a datagram of {} bytes did not come back", datagram.len());
    }

    /// Sends a datagram whose answer, if any, is of no interest.
    pub fn send(&self, datagram: &[u8]) {
        // Refused: an earlier one was answered by an ICMP error.
        let _ = self.socket.send(datagram);
    }

    /// Its own address.
    pub fn addr(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// One datagram there and back within this time.
    pub fn try_echo(&self, datagram: &[u8], patience: Duration) -> bool {
        // Refused: nobody listens (yet).
        if self.socket.send(datagram).is_err() {
            std::thread::sleep(patience.min(Duration::from_millis(50)));
            return false;
        }
        let until = Instant::now() + patience;
        let mut answer = vec![0; 65_536];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            match self.socket.recv(&mut answer) {
                Ok(n) if answer[..n] == *datagram => return true,
                // Late answers to what was sent again.
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return false;
                }
                Err(_) => {
                    std::thread::sleep(left.min(Duration::from_millis(50)));
                    return false;
                }
            }
        }
    }

    /// Nothing more may come: answers to others, doubled ones.
    pub fn expect_silence(&self, for_how_long: Duration) {
        self.socket.set_read_timeout(Some(for_how_long)).unwrap();
        let mut datagram = [0; 64];
        if let Ok(n) = self.socket.recv(&mut datagram) {
            panic!("a UDP visitor got a datagram that is not its own: {:?}", &datagram[..n]);
        }
    }
}
