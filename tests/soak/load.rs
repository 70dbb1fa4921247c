//! Visitors of all kinds, at a rate that does not change.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use super::common::visitor::UdpVisitor;
use super::line::crowd::{Crowd, Manners, Tally};
use super::line::site::Site;

/// What a visitor expects; longer than the 10 s that one waits for a client.
const DEADLINE: Duration = Duration::from_secs(45);

/// They come until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    crowds: Vec<Crowd>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Visitors of a TCP service, of a guest that comes and goes, and of a UDP service.
    pub fn start(site: &Site, tcp: SocketAddr, guest: SocketAddr, udp: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let crowd = |addr, every, most| {
            let manners =
                Manners { every: Duration::from_millis(every), deadline: DEADLINE, most, seed: every };
            Crowd::start(site, addr, manners)
        };
        let crowds = vec![crowd(tcp, 101, 4 << 10), crowd(tcp, 2003, 4 << 20), crowd(guest, 307, 64 << 10)];
        let mut threads = Vec::new();
        let mut repeat = |every, work: fn(SocketAddr), addr| {
            threads.push(repeat(site, stop.clone(), Duration::from_millis(every), move || work(addr)));
        };
        repeat(2003, sleeper, tcp);
        repeat(503, rude, tcp);
        repeat(709, silent, tcp);
        repeat(1009, udp_once, udp);
        // The same UDP visitor all the time.
        let mut visitor = site.run(|| UdpVisitor::new(udp));
        threads.push(self::repeat_in_turn(stop.clone(), Duration::from_millis(53), move || {
            visitor.wait_served()
        }));
        Load { stop, crowds, threads }
    }

    /// Ends it; what became of those who expected an answer.
    pub fn finish(self) -> Tally {
        self.stop.store(true, SeqCst);
        let visits = self.crowds.into_iter().flat_map(|crowd| crowd.finish().visits).collect();
        for thread in self.threads {
            thread.join().expect("a UDP visitor was not served");
        }
        Tally { visits }
    }
}

/// Starts `work` in a thread of its own again and again.
fn repeat(
    site: &Site,
    stop: Arc<AtomicBool>,
    every: Duration,
    work: impl Fn() + Clone + Send + 'static,
) -> JoinHandle<()> {
    site.run(|| {
        repeat_in_turn(stop, every, move || {
            let work = work.clone();
            std::thread::spawn(work);
        })
    })
}

/// Does `work` again and again.
fn repeat_in_turn(
    stop: Arc<AtomicBool>,
    every: Duration,
    mut work: impl FnMut() + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        while !stop.load(SeqCst) {
            work();
            std::thread::sleep(every);
        }
    })
}

fn connect(addr: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, DEADLINE).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    stream.set_write_timeout(Some(DEADLINE)).ok()?;
    Some(stream)
}

/// Says something now, and something more after 20 s.
fn sleeper(addr: SocketAddr) {
    let Some(mut stream) = connect(addr) else { return };
    for _ in 0..2 {
        // A reset in between is part of the run.
        if stream.write_all(b"still here").and_then(|()| stream.read_exact(&mut [0; 10])).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_secs(20));
    }
}

/// Sends a lot, reads a little, and resets.
fn rude(addr: SocketAddr) {
    let Some(mut stream) = connect(addr) else { return };
    let _ = stream.write_all(&[7; 30_000]).and_then(|()| stream.read_exact(&mut [0; 100]));
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// Comes, and leaves without a word.
fn silent(addr: SocketAddr) {
    drop(connect(addr));
}

/// A UDP visitor who comes once, with an address of its own.
fn udp_once(addr: SocketAddr) {
    UdpVisitor::new(addr).send(b"once");
}
