//! One service is flooded in every way that its visitors and its tenant have; another's visitors do not notice.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::common::announce;
use super::common::raw::{Control, hello};
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Service};
use super::common::visitor::{self, UdpVisitor, random};
use super::limits::many_descriptors;

/// Median and worst of some hundred.
#[derive(Clone, Copy)]
struct Latency(Duration, Duration);

impl Latency {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Latency(times[times.len() / 2], times[times.len() - 1])
    }
}

impl std::fmt::Display for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "median {:.1?}, worst {:.1?}", self.0, self.1)
    }
}

/// How long a whole visit takes, from connecting to the echo: by way of the tunnel, and for comparison without it, by
/// turns. The comparison tells what the machine is busy with.
fn latencies(tunnel: SocketAddr, direct: SocketAddr) -> [Latency; 2] {
    let visit = |addr| {
        let begun = Instant::now();
        let mut stream = visitor::connect(addr);
        stream.set_nodelay(true).unwrap();
        stream.write_all(b"?").unwrap();
        stream.read_exact(&mut [0]).expect("a calm visitor is not served");
        let took = begun.elapsed();
        std::thread::sleep(Duration::from_millis(5));
        took
    };
    let (tunnelled, direct) = (0..150).map(|_| (visit(tunnel), visit(direct))).unzip();
    [Latency::of(tunnelled), Latency::of(direct)]
}

fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[test]
fn a_flooded_service_does_not_delay_another() {
    many_descriptors();
    let (echo, udp) = (Local::echo(), Local::udp_echo());
    let mut plan = Plan::new(
        Link::tcp(),
        vec![
            Service::tcp("flooded", ([127, 0, 0, 1], 9).into()),
            Service::udp("flooded-udp", udp.addr),
            Service::tcp("calm", echo.addr),
        ],
    );
    // No line for each visitor: what is measured is the server, not this test's reading of its log.
    let mut command = Build::Ours
        .command(super::common::tunnel::Role::Server, &plan.write("server.toml", &plan.server_toml()));
    command.env("RUST_LOG", "warn");
    let server = super::Process::start("server", command);
    let [flooded, flooded_udp, calm] = std::array::from_fn(|n| plan.services[n].visitors);
    super::common::net::wait_listening(plan.server_addr);
    plan.services.remove(0);
    let mut command = Build::Ours
        .command(super::common::tunnel::Role::Client, &plan.write("client.toml", &plan.client_toml()));
    command.env("RUST_LOG", "warn");
    let _client = super::Process::start("client", command);
    visitor::wait_served(calm);
    UdpVisitor::new(flooded_udp).wait_served();
    let mut measured = vec![("quiet", latencies(calm, echo.addr))];

    let control = Control::open(plan.server_addr, "flooded", &plan.server_token).accepted();
    let (stop, visits, channels) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let mut waiting = Vec::new();
    std::thread::scope(|scope| {
        // The tenant reads its commands, and does not obey.
        scope.spawn(|| {
            control.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            while !stop.load(SeqCst) {
                let _ = (&control.stream).read(&mut [0; 4096]);
            }
        });
        waiting.extend((0..2000).map(|_| visitor::connect(flooded)));
        measured.push(("2000 wait", latencies(calm, echo.addr)));
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                if let Ok(stream) = TcpStream::connect_timeout(&flooded, Duration::from_secs(5)) {
                    reset(&stream);
                    visits.fetch_add(1, SeqCst);
                }
            }
        });
        measured.push(("and visitors come and go", latencies(calm, echo.addr)));
        scope.spawn(|| {
            let flooder = UdpVisitor::new(flooded_udp);
            let datagram = random(1, 1400);
            while !stop.load(SeqCst) {
                flooder.send(&datagram);
            }
        });
        measured.push(("and datagrams", latencies(calm, echo.addr)));
        scope.spawn(|| {
            let hello = hello(1, 1, &control.key);
            while !stop.load(SeqCst) {
                if let Ok(mut stream) = TcpStream::connect_timeout(&plan.server_addr, Duration::from_secs(5))
                {
                    reset(&stream);
                    let _ = stream.write_all(&hello);
                    // It is closed, or given to a visitor.
                    let _ = stream.set_read_timeout(Some(Duration::from_millis(1)));
                    let _ = stream.read(&mut [0; 4]);
                    channels.fetch_add(1, SeqCst);
                }
            }
        });
        measured.push(("and the tenant's data channels", latencies(calm, echo.addr)));
        stop.store(true, SeqCst);
    });
    announce("a calm service beside a flooded one:");
    for (what, [tunnel, direct]) in &measured {
        announce(&format!("  {what}: {tunnel} (without a tunnel: {direct})"));
        // On a quiet machine a few milliseconds; this one may be busy with other things.
        let (median, worst) =
            (Duration::from_millis(250) + 4 * direct.0, Duration::from_secs(2) + 2 * direct.1);
        assert!(tunnel.0 < median && tunnel.1 < worst, "{what}: {tunnel}, without a tunnel {direct}");
    }
    let (visits, channels) = (visits.into_inner(), channels.into_inner());
    announce(&format!("  {visits} visitors came and went, {channels} data channels"));
    assert!(visits > 100 && channels > 50, "that was no flood: {visits} visitors, {channels} channels");
    drop(server);
}
