//! What gets through bad lines: ours, rathole 0.5.0, and TCP without any tunnel, over the same line.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use super::common::service::Local;
use super::common::tunnel::{Build, Kind};
use super::common::{announce, net, peer};
use super::line::site::Site;
use super::line::tunnel::Tunnel;
use super::line::weather::Weather;
use super::line::{CLIENT, Line};
use super::{TRANSPORTS, Transport, meter, seed};

/// A kind of bad line.
struct Condition {
    name: &'static str,
    weather: Weather,
    /// Bytes that are sent in each direction.
    size: usize,
}

fn conditions() -> Vec<Condition> {
    const MBIT: u64 = 1_000_000;
    // 20 ms there and back, 20 Mbit/s.
    let usual = Weather { rate: 20 * MBIT, ..Weather::delay(10) };
    let loss = |name, loss| Condition { name, weather: Weather { loss, ..usual }, size: 2 << 20 };
    let jitter = Weather { jitter: Duration::from_millis(10), reorder: 0.05, ..usual };
    vec![
        Condition { name: "good line", weather: usual, size: 2 << 20 },
        loss("2 % loss", 0.02),
        loss("5 % loss", 0.05),
        loss("10 % loss", 0.1),
        Condition {
            name: "300 ms RTT",
            weather: Weather { rate: 20 * MBIT, ..Weather::delay(150) },
            size: 2 << 20,
        },
        Condition { name: "1 Mbit/s", weather: Weather { rate: MBIT, ..usual }, size: 512 << 10 },
        Condition { name: "5 % reordered", weather: jitter, size: 2 << 20 },
    ]
}

/// What was measured.
#[derive(Clone, Copy)]
struct Sample {
    /// Bit/s from visitor to local service.
    up: f64,
    /// Bit/s from local service to visitor.
    down: f64,
    /// Of the time that a visitor needs for connecting and one small request.
    median: Duration,
    /// The longest such time.
    worst: Duration,
}

impl Sample {
    /// Transfers in each direction; their median counts.
    const TRANSFERS: usize = 3;
    /// Small requests, one after the other.
    const REQUESTS: usize = 30;

    /// Panics if a visitor is not served within its deadline.
    fn take(site: &Site, addr: SocketAddr, size: usize) -> Self {
        site.run(|| {
            let mut requests: Vec<_> =
                (0..Self::REQUESTS).map(|_| meter::up(addr, 16).expect("a small request")).collect();
            requests.sort();
            let rate = |transfer: fn(SocketAddr, usize) -> std::io::Result<Duration>| {
                let mut times: Vec<_> =
                    (0..Self::TRANSFERS).map(|_| transfer(addr, size).expect("a transfer")).collect();
                times.sort();
                size as f64 * 8.0 / times[Self::TRANSFERS / 2].as_secs_f64()
            };
            Sample {
                up: rate(meter::up),
                down: rate(meter::down),
                median: requests[Self::REQUESTS / 2],
                worst: requests[Self::REQUESTS - 1],
            }
        })
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let (up, down) = (self.up / 1e6, self.down / 1e6);
        write!(f, "{up:.2} / {down:.2} | {:.0} / {:.0}", ms(self.median), ms(self.worst))
    }
}

/// Who decides how fast a TCP sends.
const CONGESTION: &str = "net/ipv4/tcp_congestion_control";

/// A line in this condition. Most systems use cubic on it, so this does; where the kernel does not let a namespace have
/// that, reno, which is alike. (bbr, which may be this machine's default, hardly minds loss.)
fn line(condition: &Condition) -> Option<Line> {
    let line = Line::new("weak::matrix", seed(1))?;
    line.set(condition.weather);
    for site in [&line.server, &line.client] {
        if site.try_set(CONGESTION, "cubic").is_err() {
            site.set(CONGESTION, "reno");
        }
    }
    Some(line)
}

/// Without a tunnel: the local service listens on the line itself.
fn direct(condition: &Condition) -> Option<Sample> {
    let line = line(condition)?;
    let local = line.client.hold(|| Local::tcp_on(TcpListener::bind((CLIENT, 0)).unwrap(), meter::serve));
    Some(Sample::take(&line.server, local.addr, condition.size))
}

/// Through a tunnel.
fn tunnelled(condition: &Condition, transport: Transport, build: Build) -> Option<Sample> {
    let line = line(condition)?;
    let (link, _certs) = transport.link("weak::matrix")?;
    let local = line.client.hold(|| Local::tcp(meter::serve));
    let mut tunnel = Tunnel::new(line, build, link, &[("meter", Kind::Tcp, local.addr)]);
    tunnel.start_both();
    let site = tunnel.line.server.clone();
    site.run(|| net::wait("no visitor is served", || meter::up(tunnel.visitors(), 1).is_ok()));
    Some(Sample::take(&site, tunnel.visitors(), condition.size))
}

/// One line of the table: a condition and a transport.
struct Row {
    text: String,
    /// What is wrong with it.
    faults: Vec<String>,
}

fn row(condition: &Condition, transport: Transport, direct: Sample) -> Option<Row> {
    let ours = tunnelled(condition, transport, Build::Ours)?;
    let peer = tunnelled(condition, transport, Build::Peer)?;
    let ratios = format!(
        "{:.2} / {:.2} | {:.2} / {:.2} | {:.2}",
        ours.up / direct.up,
        ours.down / direct.down,
        ours.up / peer.up,
        ours.down / peer.down,
        ours.median.as_secs_f64() / peer.median.as_secs_f64(),
    );
    let name = format!("{}, {transport:?}", condition.name).to_lowercase();
    let text = format!("| {name} | {direct} | {ours} | {peer} | {ratios} |");
    let mut faults = Vec::new();
    // Chance and other work on this machine make a factor; more is a defect.
    if ours.up < peer.up / 3.0 || ours.down < peer.down / 3.0 {
        faults.push(format!("{name}: a third of what 0.5.0 carries"));
    }
    if ours.median > peer.median * 3 + Duration::from_millis(50) {
        faults.push(format!("{name}: visitors wait three times as long as with 0.5.0"));
    }
    Some(Row { text, faults })
}

#[test]
#[ignore = "takes a quarter of an hour; part of the full run, docs/testing.md"]
fn throughput_and_latency_beside_direct_tcp_and_rathole_0_5_0() {
    if peer().is_none() {
        return super::common::skip("weak::matrix", super::common::PEER_HINT);
    }
    let mut conditions = conditions();
    // To look at one line again without the quarter of an hour that all of them take.
    if let Ok(only) = std::env::var("RATHOLE_WEAK_ONLY") {
        conditions.retain(|condition| condition.name.contains(&only));
    }
    let direct: Option<Vec<_>> = std::thread::scope(|scope| {
        let running: Vec<_> = conditions.iter().map(|condition| scope.spawn(|| direct(condition))).collect();
        running.into_iter().map(|direct| direct.join().unwrap()).collect()
    });
    let Some(direct) = direct else { return };
    let cells: Vec<_> =
        (0..conditions.len()).flat_map(|at| TRANSPORTS.map(|transport| (at, transport))).collect();
    let next = AtomicUsize::new(0);
    let rows: Mutex<Vec<Option<Row>>> = Mutex::new(cells.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        // Most of the time they wait; more would measure this machine.
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some((cell, (at, transport))) = {
                    let cell = next.fetch_add(1, SeqCst);
                    cells.get(cell).map(|found| (cell, *found))
                } {
                    let row = row(&conditions[at], transport, direct[at]);
                    if let Some(row) = &row {
                        announce(&row.text);
                    }
                    rows.lock().unwrap()[cell] = row;
                }
            });
        }
    });
    let rows: Vec<_> = rows.into_inner().unwrap().into_iter().flatten().collect();
    announce(
        "\nMbit/s from visitor to local service / back; ms for connecting and one request, median / worst.\n\n\
         | line | direct TCP | ms | ours | ms | 0.5.0 | ms | ours : direct, Mbit/s | ours : 0.5.0, Mbit/s | ours : 0.5.0, ms |\n\
         |--|--|--|--|--|--|--|--|--|--|",
    );
    rows.iter().for_each(|row| announce(&row.text));
    let faults: Vec<_> = rows.iter().flat_map(|row| &row.faults).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(rows.len(), cells.len(), "some transports are not here");
}
