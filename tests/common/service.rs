//! Local services: each has its port, its threads, and ends with its guard.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use sha2::{Digest, Sha256};
use socket2::SockRef;

use super::PATIENCE;

/// A service on a port of its own.
pub struct Local {
    /// Where it is.
    pub addr: SocketAddr,
    stop: Arc<AtomicBool>,
    udp: bool,
}

impl Local {
    /// Runs `serve` for each connection to a new port of 127.0.0.1.
    pub fn tcp(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::tcp_on(TcpListener::bind("127.0.0.1:0").unwrap(), serve)
    }

    /// Runs `serve` for each connection, in a thread of its own.
    pub fn tcp_on(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let addr = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, serve) = (stop.clone(), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                let serve = serve.clone();
                std::thread::spawn(move || serve(stream));
            }
        });
        Local { addr, stop, udp: false }
    }

    /// Sends back what it gets, then ends.
    pub fn echo() -> Self {
        Self::tcp(echo)
    }

    /// Answers only when the visitor's direction has ended: with the bytes' count and digest.
    pub fn digest() -> Self {
        Self::tcp(|mut stream| {
            let mut bytes = Vec::new();
            if stream.read_to_end(&mut bytes).is_ok() {
                let _ = stream.write_all(digest_line(&bytes).as_bytes());
            }
        })
    }

    /// A web page as HTTP/1.0 has it: reads the request's head, answers, and closes; the end is the answer's end.
    pub fn page(page: Vec<u8>) -> Self {
        Self::tcp(move |mut stream| {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read(&mut byte) {
                    Ok(1) => head.push(byte[0]),
                    _ => return,
                }
            }
            let _ = stream.write_all(&page);
        })
    }

    /// Reads one byte, then resets the connection.
    pub fn reset() -> Self {
        Self::tcp(|mut stream| {
            let _ = stream.read(&mut [0]);
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        })
    }

    /// Sends back each datagram, to whoever sent it.
    pub fn udp_echo() -> Self {
        Self::udp_echo_on(UdpSocket::bind("127.0.0.1:0").unwrap())
    }

    /// Like [`Local::udp_echo`], on a given socket.
    pub fn udp_echo_on(socket: UdpSocket) -> Self {
        let addr = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        // Bursts of several visitors' largest datagrams should not be lost here.
        SockRef::from(&socket).set_recv_buffer_size(4 << 20).unwrap();
        std::thread::spawn(move || {
            let mut datagram = vec![0; 65_536];
            while let Ok((n, from)) = socket.recv_from(&mut datagram) {
                if stopped.load(SeqCst) {
                    return;
                }
                // To a visitor that has gone: its loss.
                let _ = socket.send_to(&datagram[..n], from);
            }
        });
        Local { addr, stop, udp: true }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        // Wakes the thread that waits for somebody.
        if self.udp {
            let any = if self.addr.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
            let _ = UdpSocket::bind(any).and_then(|socket| socket.send_to(&[], self.addr));
        } else {
            let _ = TcpStream::connect(self.addr);
        }
    }
}

/// What [`Local::digest`] answers.
pub fn digest_line(bytes: &[u8]) -> String {
    format!("{} {:x}\n", bytes.len(), Sha256::digest(bytes))
}

/// Sends back what comes until the end, then ends its own direction.
pub fn echo(mut stream: TcpStream) {
    let mut chunk = vec![0; 64 << 10];
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        if stream.write_all(&chunk[..n]).is_err() {
            return;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}
