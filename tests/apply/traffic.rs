//! Local services and visitors.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::common::PATIENCE;
use super::within;

/// Says its name to each visitor, then sends back what it gets.
pub async fn echo(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((mut tcp, _)) = listener.accept().await else { continue };
            tokio::spawn(async move {
                tcp.set_nodelay(true)?;
                tcp.write_all(name.as_bytes()).await?;
                let (mut read, mut write) = tcp.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

/// Answers each datagram with its name and the datagram.
pub async fn echo_udp(name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut datagram = [0; 2048];
        loop {
            let Ok((n, from)) = socket.recv_from(&mut datagram).await else { continue };
            let _ = socket.send_to(&[name.as_bytes(), &datagram[..n]].concat(), from).await;
        }
    });
    address
}

/// Which local service a visitor of this address meets.
pub async fn whom(address: SocketAddr, length: usize) -> io::Result<String> {
    let visit = async {
        let mut tcp = TcpStream::connect(address).await?;
        tcp.write_all(b"ping").await?;
        let mut answer = vec![0; length + 4];
        tcp.read_exact(&mut answer).await?;
        assert_eq!(&answer[length..], b"ping");
        Ok(String::from_utf8(answer[..length].to_vec()).unwrap())
    };
    timeout(PATIENCE, visit).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A visitor of this address meets this local service.
pub async fn meets(address: SocketAddr, name: &str) {
    let met = whom(address, name.len()).await;
    assert_eq!(met.unwrap_or_else(|error| panic!("a visitor of {address}: {error}")), name);
}

/// Visitors of this address meet this local service at last; before, they may meet another, or nobody.
pub async fn meets_at_last(address: SocketAddr, name: &str) {
    let until = Instant::now() + PATIENCE;
    while !whom(address, name.len()).await.is_ok_and(|met| met == name) {
        assert!(Instant::now() < until, "visitors of {address} never meet {name}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// One UDP visitor.
pub struct Datagrams(UdpSocket);

impl Datagrams {
    pub async fn new(address: SocketAddr) -> Datagrams {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(address).await.unwrap();
        Datagrams(socket)
    }

    /// Whether this local service answers a datagram; what comes late of others is passed over.
    pub async fn meets(&self, name: &str) -> bool {
        let word = format!("{:08x}", fastrand::u32(..));
        if self.0.send(word.as_bytes()).await.is_err() {
            return false;
        }
        let answer = async {
            let mut answer = [0; 64];
            loop {
                match self.0.recv(&mut answer).await {
                    Ok(n) if answer[..n] == *[name, &word].concat().as_bytes() => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        };
        timeout(Duration::from_millis(200), answer).await.unwrap_or(false)
    }

    /// It does at last.
    pub async fn meets_at_last(&self, name: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.meets(name).await {
            assert!(Instant::now() < until, "datagrams never reach {name}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A connection that is in use all the time: numbers go there and back.
pub struct Long {
    stop: Arc<AtomicBool>,
    task: JoinHandle<io::Result<u64>>,
}

impl Long {
    /// Begins, with the first number back.
    pub async fn begin(address: SocketAddr, name: &str) -> Long {
        let mut tcp = within(TcpStream::connect(address)).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let mut greeting = vec![0; name.len()];
        within(tcp.read_exact(&mut greeting)).await.unwrap();
        assert_eq!(greeting, name.as_bytes());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut rounds = 0u64;
            while !stopped.load(Relaxed) {
                let (word, mut answer) = (rounds.to_be_bytes().repeat(256), [0; 2048]);
                tcp.write_all(&word).await?;
                match timeout(PATIENCE, tcp.read_exact(&mut answer)).await {
                    Ok(read) => read?,
                    Err(_) => return Err(io::ErrorKind::TimedOut.into()),
                };
                assert_eq!(answer, *word);
                rounds += 1;
                sleep(Duration::from_millis(2)).await;
            }
            Ok(rounds)
        });
        Long { stop, task }
    }

    /// It was never cut, nor a byte lost; how many rounds it made.
    pub async fn end(self) -> u64 {
        assert!(!self.task.is_finished(), "a long relay was cut");
        self.stop.store(true, Relaxed);
        within(self.task).await.unwrap().expect("a long relay")
    }

    /// It ends by itself: it is cut.
    pub async fn breaks(self) {
        within(self.task).await.unwrap().expect_err("cut");
    }
}

/// Visitors who come in steady succession.
pub struct Steady {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(usize, Vec<String>)>,
}

impl Steady {
    /// One each so often, to meet one of these local services (of names of the same length).
    pub fn begin(address: SocketAddr, names: &'static [&'static str], every: Duration) -> Steady {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut visits, mut count, mut lost) = (JoinSet::new(), 0, Vec::new());
            let mut judge = |met: io::Result<String>| match met {
                Ok(met) if names.contains(&&*met) => {}
                other => lost.push(format!("{other:?}")),
            };
            while !stopped.load(Relaxed) {
                visits.spawn(whom(address, names[0].len()));
                count += 1;
                sleep(every).await;
                while let Some(met) = visits.try_join_next() {
                    judge(met.unwrap());
                }
            }
            visits.join_all().await.into_iter().for_each(&mut judge);
            (count, lost)
        });
        Steady { stop, task }
    }

    /// How many came, and what went wrong.
    pub async fn count(self) -> (usize, Vec<String>) {
        self.stop.store(true, Relaxed);
        within(self.task).await.unwrap()
    }

    /// All were served; how many.
    pub async fn end(self) -> usize {
        let (count, lost) = self.count().await;
        assert!(lost.is_empty(), "{} of {count} visitors were lost: {lost:?}", lost.len());
        count
    }
}
