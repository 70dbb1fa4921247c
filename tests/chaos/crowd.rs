//! Visitors who come, want their bytes back, and complain.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fastrand::Rng;

/// A TCP visitor that hears nothing for so long is stuck. `visitor_timeout`, two channels that fail, and a slow machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// They come one after the other, several at a time.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Seen>>,
}

/// What became of them.
#[derive(Debug, Default)]
pub struct Seen {
    /// Got all bytes back, and an end.
    pub served: usize,
    /// Got an end too early.
    pub failed: usize,
    /// Datagrams that came back.
    pub datagrams: usize,
    /// Datagrams that were sent.
    pub datagrams_sent: usize,
    /// The longest visit.
    pub slowest: Duration,
    /// What must not be.
    pub wrong: Vec<String>,
}

impl Crowd {
    /// Two visitors at a time for each address, and two UDP visitors.
    pub fn start(tcp: &[SocketAddr], udp: SocketAddr, random: &mut Rng) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for addr in tcp.iter().chain(tcp).copied() {
            let (stop, random) = (stop.clone(), random.fork());
            threads.push(std::thread::spawn(move || streams(addr, random, &stop)));
        }
        for _ in 0..2 {
            let (stop, random) = (stop.clone(), random.fork());
            threads.push(std::thread::spawn(move || datagrams(udp, random, &stop)));
        }
        Crowd { stop, threads }
    }

    /// The last ones go.
    pub fn finish(self) -> Seen {
        self.stop.store(true, SeqCst);
        let mut all = Seen::default();
        for thread in self.threads {
            let seen = thread.join().expect("a visitor's thread");
            all.served += seen.served;
            all.failed += seen.failed;
            all.datagrams += seen.datagrams;
            all.datagrams_sent += seen.datagrams_sent;
            all.slowest = all.slowest.max(seen.slowest);
            all.wrong.extend(seen.wrong);
        }
        all
    }
}

fn streams(addr: SocketAddr, mut random: Rng, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(SeqCst) {
        let most = [10, 3000, 40_000, 800_000][random.usize(..4)];
        let mut bytes = vec![0; random.usize(1..=most)];
        random.fill(&mut bytes);
        let begun = Instant::now();
        let Ok(stream) = TcpStream::connect_timeout(&addr, DEADLINE) else {
            // The server is not there.
            seen.failed += 1;
            std::thread::sleep(Duration::from_millis(random.u64(5..50)));
            continue;
        };
        match visit(&stream, &bytes, random.bool()) {
            Ok(true) => seen.served += 1,
            Ok(false) => seen.failed += 1,
            Err(wrong) => seen.wrong.push(format!("a visitor of {addr} with {} bytes {wrong}", bytes.len())),
        }
        seen.slowest = seen.slowest.max(begun.elapsed());
        drop(stream);
        std::thread::sleep(Duration::from_millis(random.u64(0..20)));
    }
    seen
}

/// Sends, and reads what comes until the end. True: all of it came, and nothing more.
fn visit(stream: &TcpStream, bytes: &[u8], ends_first: bool) -> Result<bool, String> {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let written = (&*stream).write_all(bytes);
            if ends_first {
                let _ = stream.shutdown(Shutdown::Write);
            }
            written.is_err_and(|error| is_late(&error))
        });
        let mut got = 0;
        let mut chunk = vec![0; 64 << 10];
        let outcome = loop {
            match (&*stream).read(&mut chunk) {
                Ok(0) => break Ok(got == bytes.len()),
                Ok(n) if bytes.get(got..got + n) == Some(&chunk[..n]) => {
                    got += n;
                    if got == bytes.len() && !ends_first {
                        let _ = stream.shutdown(Shutdown::Write);
                    }
                }
                Ok(n) => break Err(format!("got {n} bytes that are not its own, behind {got} that are")),
                Err(error) if is_late(&error) => {
                    break Err(format!("hears nothing for {DEADLINE:?} after {got} bytes"));
                }
                Err(_) => break Ok(false),
            }
        };
        // The writer must not wait for who has gone.
        if !matches!(outcome, Ok(true)) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        match writer.join().unwrap() {
            true => Err(format!("cannot write for {DEADLINE:?}")),
            false => outcome,
        }
    })
}

fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn datagrams(addr: SocketAddr, mut random: Rng, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut socket = None;
    let mut own = HashSet::new();
    let mut answer = vec![0; 65_536];
    while !stop.load(SeqCst) {
        // Now and then it is another visitor.
        if random.u8(..) < 5 || socket.is_none() {
            let fresh = UdpSocket::bind("127.0.0.1:0").unwrap();
            fresh.connect(addr).unwrap();
            fresh.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
            own.clear();
            socket = Some(fresh);
        }
        let Some(socket) = &socket else { continue };
        let most = [8, 100, 1400, 9000][random.usize(..4)];
        let mut datagram = vec![0; random.usize(8..=most)];
        random.fill(&mut datagram);
        // Refused: the server is not there.
        if socket.send(&datagram).is_ok() {
            seen.datagrams_sent += 1;
            own.insert(datagram);
        }
        if let Ok(n) = socket.recv(&mut answer) {
            if own.contains(&answer[..n]) {
                seen.datagrams += 1;
            } else {
                seen.wrong.push(format!("a UDP visitor got {n} bytes that it did not send"));
            }
        } else {
            std::thread::sleep(Duration::from_millis(random.u64(0..10)));
        }
    }
    seen
}
