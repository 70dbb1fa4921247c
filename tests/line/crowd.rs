//! Visitors of an echo service that keep coming, and what became of each.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::site::Site;
use crate::common::visitor::random;

/// What became of a visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All that was sent came back.
    Served,
    /// An error: refused, or reset.
    Failed,
    /// An orderly end before all had come back: who does not count bytes takes it for a whole answer.
    CutShort,
    /// Bytes came back that were not sent.
    Corrupt,
    /// Neither a byte nor an error for as long as the deadline.
    Stuck,
}

/// Connects, sends `bytes` and wants them back. With each byte that comes `deadline` begins anew: over a line that is cut
/// again and again whoever is served may be served slowly, and lose his connection then.
pub fn visit(addr: SocketAddr, bytes: &[u8], deadline: Duration) -> Outcome {
    let stream = match TcpStream::connect_timeout(&addr, deadline) {
        Ok(stream) => stream,
        Err(error) => return failed(error.kind()),
    };
    std::thread::scope(|scope| {
        let written = scope.spawn(|| {
            stream.set_write_timeout(Some(deadline))?;
            (&stream).write_all(bytes)
        });
        let outcome = read_echo(&stream, bytes, deadline);
        // Ends the writer, too.
        let _ = stream.shutdown(Shutdown::Both);
        match (outcome, written.join().unwrap()) {
            // A reset is told once; if the writer was told, the reader saw an end.
            (Outcome::CutShort, Err(error)) if error.kind() == ErrorKind::ConnectionReset => Outcome::Failed,
            _ => outcome,
        }
    })
}

fn read_echo(mut stream: &TcpStream, bytes: &[u8], deadline: Duration) -> Outcome {
    let mut chunk = vec![0; 32 << 10];
    let mut rest = bytes;
    stream.set_read_timeout(Some(deadline)).unwrap();
    while !rest.is_empty() {
        match stream.read(&mut chunk) {
            Ok(0) => return Outcome::CutShort,
            Ok(n) if !rest.starts_with(&chunk[..n]) => return Outcome::Corrupt,
            Ok(n) => rest = &rest[n..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return failed(error.kind()),
        }
    }
    Outcome::Served
}

fn failed(kind: ErrorKind) -> Outcome {
    match kind {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Outcome::Stuck,
        _ => Outcome::Failed,
    }
}

/// From now until the first visitor is served, who come ten times a second; None: none was within `limit`.
pub fn first_served(site: &Site, addr: SocketAddr, limit: Duration) -> Option<Duration> {
    const EVERY: Duration = Duration::from_millis(100);
    const DEADLINE: Duration = Duration::from_secs(5);
    let begun = Instant::now();
    site.run(|| {
        let (served, first) = mpsc::channel();
        while begun.elapsed() < limit {
            let served = served.clone();
            std::thread::spawn(move || {
                if visit(addr, b"is anybody there?", DEADLINE) == Outcome::Served {
                    let _ = served.send(begun.elapsed());
                }
            });
            if let Ok(time) = first.recv_timeout(EVERY) {
                return Some(time);
            }
        }
        first.recv_timeout(DEADLINE).ok()
    })
}

/// One visitor's fate.
#[derive(Debug, Clone, Copy)]
pub struct Visit {
    /// When it came, from the crowd's beginning on.
    pub came: Duration,
    /// How long it stayed.
    pub stayed: Duration,
    /// How many bytes it sent.
    pub sent: usize,
    /// What became of it.
    pub outcome: Outcome,
}

/// How a crowd behaves.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// One comes this often, whatever became of those before.
    pub every: Duration,
    /// What each expects: a byte, or an error, within this time.
    pub deadline: Duration,
    /// Each sends from 1 to this many bytes.
    pub most: usize,
    /// Which bytes, and how many.
    pub seed: u64,
}

/// Visitors that come until they are told not to.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    visits: Arc<Mutex<Vec<Visit>>>,
    thread: JoinHandle<()>,
}

impl Crowd {
    /// Lets them come to `addr`.
    pub fn start(site: &Site, addr: SocketAddr, manners: Manners) -> Self {
        let (stop, visits) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Vec<Visit>>>::default());
        let (stopped, log) = (stop.clone(), visits.clone());
        let thread = site.run(|| {
            std::thread::spawn(move || {
                let begun = Instant::now();
                let mut rng = fastrand::Rng::with_seed(manners.seed);
                std::thread::scope(|scope| {
                    let mut next = begun;
                    while !stopped.load(SeqCst) {
                        let (seed, sent) = (rng.u64(..), rng.usize(1..=manners.most));
                        let log = &log;
                        scope.spawn(move || {
                            let came = begun.elapsed();
                            let outcome = visit(addr, &random(seed, sent), manners.deadline);
                            let stayed = begun.elapsed() - came;
                            log.lock().unwrap().push(Visit { came, stayed, sent, outcome });
                        });
                        next += manners.every;
                        std::thread::sleep(next.saturating_duration_since(Instant::now()));
                    }
                });
            })
        });
        Crowd { stop, visits, thread }
    }

    /// No more come; waits for those who are there.
    pub fn finish(self) -> Tally {
        self.stop.store(true, SeqCst);
        self.thread.join().unwrap();
        let mut visits = std::mem::take(&mut *self.visits.lock().unwrap());
        visits.sort_by_key(|visit| visit.came);
        Tally { visits }
    }
}

/// All visits of a crowd.
pub struct Tally {
    /// In the order in which they came.
    pub visits: Vec<Visit>,
}

impl Tally {
    /// How many ended like this.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.visits.iter().filter(|visit| visit.outcome == outcome).count()
    }

    /// Those that ended like this.
    pub fn list(&self, outcome: Outcome) -> String {
        let those = self.visits.iter().filter(|visit| visit.outcome == outcome);
        those.map(|visit| format!("  {visit:?}\n")).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = self.visits.iter().map(|visit| visit.stayed).max().unwrap_or_default();
        write!(
            f,
            "{} visitors: {} served, {} got an error, {} cut short, {} corrupt, {} stuck; the longest stayed {longest:.1?}",
            self.visits.len(),
            self.count(Outcome::Served),
            self.count(Outcome::Failed),
            self.count(Outcome::CutShort),
            self.count(Outcome::Corrupt),
            self.count(Outcome::Stuck),
        )
    }
}
