//! The way between client and server, which can stall, be cut, and let nobody through.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use socket2::SockRef;

use super::common::service::Local;

/// A forwarder, and what it is told to do.
pub struct Mischief {
    /// Where the client finds it.
    pub addr: SocketAddr,
    state: Arc<State>,
    _local: Local,
}

#[derive(Default)]
struct State {
    stalled: AtomicBool,
    refusing: AtomicBool,
    connections: Mutex<Vec<(TcpStream, TcpStream)>>,
}

impl Mischief {
    /// In front of a server.
    pub fn before(server: SocketAddr) -> Self {
        let state = Arc::new(State::default());
        let own = state.clone();
        let local = Local::tcp(move |client| {
            let server = if own.refusing.load(SeqCst) { None } else { TcpStream::connect(server).ok() };
            let Some(server) = server else {
                reset(&client);
                return;
            };
            let both = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let mut connections = own.connections.lock().unwrap();
            connections.retain(|(client, _)| client.take_error().is_ok() && client.peer_addr().is_ok());
            connections.push(both);
            drop(connections);
            client.set_read_timeout(None).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| own.copy(&client, &server));
                own.copy(&server, &client);
            });
        });
        Mischief { addr: local.addr, state, _local: local }
    }

    /// Nothing gets through, until it does again.
    pub fn stall(&self, stalled: bool) {
        self.state.stalled.store(stalled, SeqCst);
    }

    /// New connections are reset.
    pub fn refuse(&self, refusing: bool) {
        self.state.refusing.store(refusing, SeqCst);
    }

    /// Resets all connections.
    pub fn cut_all(&self) {
        self.state.connections.lock().unwrap().drain(..).for_each(cut);
    }

    /// Resets one of them.
    pub fn cut_one(&self, random: &mut Rng) {
        let mut connections = self.state.connections.lock().unwrap();
        if !connections.is_empty() {
            let at = random.usize(..connections.len());
            cut(connections.swap_remove(at));
        }
    }
}

impl State {
    fn copy(&self, mut from: &TcpStream, mut to: &TcpStream) {
        let mut chunk = vec![0; 16 << 10];
        loop {
            let read = from.read(&mut chunk);
            while self.stalled.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            match read {
                Ok(0) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(n) if to.write_all(&chunk[..n]).is_ok() => {}
                Ok(_) | Err(_) => {
                    reset(from);
                    reset(to);
                    return;
                }
            }
        }
    }
}

fn cut((client, server): (TcpStream, TcpStream)) {
    reset(&client);
    reset(&server);
}

/// The other end gets a reset, or an end if there is still a copy of this one for a moment.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Both);
}
