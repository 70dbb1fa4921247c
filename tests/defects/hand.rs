//! Clients, local services and sockets made by hand.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::common::process::Process;
use super::common::raw::{Control, FakeServer, ZERO, hello, sha256};
use super::common::service;
use super::common::tunnel::Plan;

/// Reads commands from a control channel until it is asked for a data channel; false: not within the limit, or the
/// channel has ended. Heartbeats may come between.
pub fn asked(control: &Control, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        control.stream.set_read_timeout(Some(left)).unwrap();
        let mut command = [0; 4];
        match (&control.stream).read_exact(&mut command) {
            Ok(()) if command == ZERO => return true,
            Ok(()) => {}
            Err(_) => return false,
        }
    }
}

/// How many data channels are asked for until there is silence for this long.
pub fn count_asked(control: &Control, silence: Duration) -> usize {
    let mut count = 0;
    while asked(control, silence) {
        count += 1;
    }
    count
}

/// From now on, opens a channel for every request, and echoes what its visitor says; ends with the control channel.
pub fn obey(control: &Arc<Control>, server: SocketAddr) {
    let control = control.clone();
    std::thread::spawn(move || {
        while asked(&control, Duration::from_secs(60)) {
            let channel = control.data(server);
            std::thread::spawn(move || echo(channel));
        }
    });
}

/// The client's end of a data channel whose local service is an echo.
pub fn echo(mut channel: TcpStream) {
    if channel.read_exact(&mut [0; 4]).is_ok() {
        service::echo(channel);
    }
}

/// The next connection to a server by hand, if it comes in time.
pub fn accept_within(server: &FakeServer, limit: Duration) -> Option<TcpStream> {
    (!server.nobody_for(limit)).then(|| server.accept())
}

/// A control channel of a service that the server accepted.
pub fn control(plan: &Plan, service: &str) -> Control {
    Control::open(plan.server_addr, service, &plan.server_token).accepted()
}

/// A UDP service: what it answers to whom. Ends with its guard.
pub struct Datagrams {
    /// Where it is.
    pub addr: SocketAddr,
    /// Its socket.
    pub socket: Arc<UdpSocket>,
    stop: Arc<AtomicBool>,
}

impl Datagrams {
    /// Calls `serve` for each datagram.
    pub fn new(serve: impl Fn(&UdpSocket, &[u8], SocketAddr) + Send + 'static) -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        socket2::SockRef::from(&*socket).set_recv_buffer_size(4 << 20).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let addr = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, own) = (stop.clone(), socket.clone());
        std::thread::spawn(move || {
            let mut datagram = vec![0; 65_536];
            while !stopped.load(SeqCst) {
                if let Ok((n, from)) = own.recv_from(&mut datagram) {
                    serve(&own, &datagram[..n], from);
                }
            }
        });
        Datagrams { addr, socket, stop }
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
    }
}

/// A UDP visitor's socket.
pub fn udp_visitor(addr: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(addr).unwrap();
    socket
}

/// Sends once; the answer, if there is one in time.
pub fn ask(socket: &UdpSocket, datagram: &[u8], patience: Duration) -> Option<Vec<u8>> {
    socket.send(datagram).ok()?;
    socket.set_read_timeout(Some(patience)).unwrap();
    let mut answer = vec![0; 65_536];
    let n = socket.recv(&mut answer).ok()?;
    answer.truncate(n);
    Some(answer)
}

/// A frame for an IPv4 visitor.
pub fn frame(visitor: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let std::net::IpAddr::V4(ip) = visitor.ip() else { panic!("IPv4 expected") };
    let len = (payload.len() as u16).to_le_bytes();
    [&[12, 0, 0, 0, 0][..], &ip.octets(), &visitor.port().to_le_bytes(), &len, payload].concat()
}

/// How many sockets a process has.
pub fn sockets(process: &Process) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", process.id())).into_iter().flatten();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|to| to.to_string_lossy().starts_with("socket:")).count()
}

/// Resident memory in kB; 0: it has ended.
pub fn memory(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The most memory that a process has while `work` runs and for a second after, above what it had before, in kB.
pub fn memory_grown(process: &Process, work: impl FnOnce() + Send) -> u64 {
    let before = memory(process);
    let mut most = before;
    std::thread::scope(|scope| {
        let working = scope.spawn(work);
        let mut done = None;
        while done.is_none_or(|done: Instant| done.elapsed() < Duration::from_secs(1)) {
            most = most.max(memory(process));
            if done.is_none() && working.is_finished() {
                done = Some(Instant::now());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    most.saturating_sub(before)
}

/// Writes as much as the other side takes.
pub fn pour(mut stream: &TcpStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}

/// The host that the first client of a SOCKS5 proxy asks for; None: nobody comes in time, or speaks something else.
pub fn socks5_target(listener: &TcpListener, limit: Duration) -> Option<String> {
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    super::until(limit, || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (mut stream, _) = accepted?;
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(limit)).unwrap();
    let mut take = |len: u8| {
        let mut bytes = vec![0; len.into()];
        stream.read_exact(&mut bytes).ok().map(|()| bytes)
    };
    let greeting = take(2)?;
    take(greeting[1])?;
    stream.write_all(&[5, 0]).ok()?;
    let mut take = |len: u8| {
        let mut bytes = vec![0; len.into()];
        stream.read_exact(&mut bytes).ok().map(|()| bytes)
    };
    match take(4)?[3] {
        1 => Some(std::net::Ipv4Addr::from(<[u8; 4]>::try_from(take(4)?).ok()?).to_string()),
        4 => Some(std::net::Ipv6Addr::from(<[u8; 16]>::try_from(take(16)?).ok()?).to_string()),
        3 => {
            let len = take(1)?[0];
            String::from_utf8(take(len)?).ok()
        }
        _ => None,
    }
}

/// Whether the server has a service of this name, with the plan's token. It takes the service over.
pub fn accepts(plan: &Plan, service: &str) -> bool {
    let attempt = || -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&plan.server_addr, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(&hello(0, 1, &sha256(&[service.as_bytes()])))?;
        let mut challenge = [0; 37];
        stream.read_exact(&mut challenge)?;
        stream.write_all(&sha256(&[plan.server_token.as_bytes(), &challenge[5..]]))?;
        let mut ack = [0; 4];
        stream.read_exact(&mut ack)?;
        Ok(ack == ZERO)
    };
    attempt().unwrap_or(false)
}

/// Asks for a service from time to time; how long it took until the server had it.
pub fn accepts_in_time(plan: &Plan, service: &str, limit: Duration) -> Option<Duration> {
    super::until(limit, || {
        let accepted = accepts(plan, service);
        if !accepted {
            // Failures are answered late by who counts them.
            std::thread::sleep(Duration::from_millis(200));
        }
        accepted
    })
}

/// Whether the server has not ended a control channel.
pub fn still_open(control: &Control) -> bool {
    control.stream.set_nonblocking(true).unwrap();
    let mut chunk = [0; 4096];
    let open = loop {
        match (&control.stream).read(&mut chunk) {
            Ok(0) => break false,
            Ok(_) => {}
            Err(error) => break error.kind() == io::ErrorKind::WouldBlock,
        }
    };
    control.stream.set_nonblocking(false).unwrap();
    open
}
