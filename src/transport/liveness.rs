//! How a peer that has vanished is noticed by the kernel: a link that is cut says nothing, no end, no reset.
//!
//! What it decides: how long silence is borne. What it never does: give up a peer whose kernel still answers, however
//! slowly the peer itself reads.
//!
//! - A connection at rest is probed (keepalive), a known number of times.
//! - Bytes on their way are sent again until the kernel has tried `tcp_retries2` times. The pauses between grow to two
//!   minutes, a quarter of an hour in all; `TCP_RTO_MAX_MS` bounds them. (It is new in Linux 6.15; where the kernel
//!   refuses it `vigil` stands in, but in lean builds.)
//! - On a control channel the server's heartbeats must be acknowledged in time (`TCP_USER_TIMEOUT`). Nothing else can
//!   have that option: it takes a reader who pauses for a dead one, although its kernel answers each probe.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::SetSockOpt;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::config::TcpOptions;

/// Probes without an answer after which a peer is dead; Linux's own default.
const PROBES: u32 = 9;

/// The most that Linux takes.
const MOST_PROBES: u64 = 127;

/// Seconds between probes, on a control channel of the client, while there is no answer.
const SOON: u64 = 2;

/// The longest TCP_KEEPINTVL that Linux takes.
const LONGEST_INTERVAL: Duration = Duration::from_secs(32_767);

/// What the pause between two retransmissions may be bounded to: Linux takes 1 s to 120 s. Below 3 s a cut of half a
/// minute would end connections.
const RETRANSMISSION: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(120));

/// A cut of half a minute ends nothing there, either.
const SHORTEST_SILENCE: Duration = Duration::from_secs(36);

/// TCP_USER_TIMEOUT counts from the first retransmission on, which comes after 200 ms or more.
const FIRST_PAUSE: Duration = Duration::from_millis(400);

/// Whether this kernel is too old for TCP_RTO_MAX_MS: the first socket tells.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// How long a connection at rest may be without an answer.
fn patience(options: &TcpOptions) -> Duration {
    options.keepalive_idle + options.keepalive_interval * PROBES
}

/// The longest pause between two retransmissions. Of the 15 that Linux makes about 11 are that long: together they
/// take about as long as a connection at rest is given.
fn retransmission(options: &TcpOptions) -> Duration {
    let (shortest, longest) = RETRANSMISSION;
    (patience(options) / 11).clamp(shortest, longest)
}

/// Notices the death of any peer. A refused option costs nothing but itself, so it is only logged.
pub fn watch(tcp: &TcpStream, options: &TcpOptions) {
    keepalive(tcp, options.keepalive_idle, options.keepalive_interval, PROBES);
    bound_retransmission(tcp, retransmission(options));
}

/// On a control channel of the client: after a cut it must soon learn that the server has given it up meanwhile, which
/// only an answer can tell it. So probes without an answer are followed by others soon, for as long as ever; one that is
/// answered is followed by `keepalive_idle` of silence. Call after [`watch`].
pub fn ask_soon(tcp: &TcpStream, options: &TcpOptions) {
    let (interval, probes) = soon(options.keepalive_interval);
    keepalive(tcp, options.keepalive_idle, interval, probes);
    retransmit_soon(tcp);
}

/// Interval and number of probes that together take as long as [`PROBES`] at `interval`, or a little longer.
fn soon(interval: Duration) -> (Duration, u32) {
    let time = interval.as_secs() * u64::from(PROBES);
    let interval = interval.as_secs().min(SOON).max(time.div_ceil(MOST_PROBES)).max(1);
    (Duration::from_secs(interval), time.div_ceil(interval) as u32)
}

/// On a control channel of either side: after a cut it must not be the last to learn that the link is back.
fn retransmit_soon(tcp: &TcpStream) {
    bound_retransmission(tcp, RETRANSMISSION.0);
}

fn bound_retransmission(tcp: &TcpStream, longest: Duration) {
    let longest = u32::try_from(longest.as_millis()).unwrap_or(u32::MAX);
    // An older kernel does not know it: that is no news.
    if RtoMax.set(tcp, &longest) == Err(Errno::ENOPROTOOPT) {
        REFUSED.store(true, Relaxed);
    }
}

/// Where the kernel cannot bound retransmissions: how long a connection with bytes on their way may be without an answer,
/// by the options that [`watch`] has set.
pub fn silence(tcp: &TcpStream) -> Option<Duration> {
    if REFUSED.load(Relaxed) { bound(tcp) } else { None }
}

fn bound(tcp: &TcpStream) -> Option<Duration> {
    let socket = SockRef::from(tcp);
    let (idle, interval) = (socket.tcp_keepalive_time().ok()?, socket.tcp_keepalive_interval().ok()?);
    Some((idle + interval * PROBES).max(SHORTEST_SILENCE))
}

/// Notices, on a control channel of the server, the death of the client within two heartbeats: one until the next
/// heartbeat is sent, less than one until it must be acknowledged. Call after [`watch`].
pub fn watch_heartbeats(tcp: &TcpStream, options: &TcpOptions, heartbeat: Option<Duration>) {
    let (interval, acknowledged_within) = heartbeats(options, heartbeat);
    keepalive(tcp, options.keepalive_idle, interval, PROBES);
    retransmit_soon(tcp);
    if let Err(error) = SockRef::from(tcp).set_tcp_user_timeout(Some(acknowledged_within)) {
        tracing::debug!(%error, "TCP_USER_TIMEOUT refused");
    }
}

/// The interval of probes, and the time in which what was sent must be acknowledged.
///
/// The latter would also end a connection at rest, after a single lost probe. So where it is short, probes only keep
/// NAT tables fresh: a heartbeat goes out before a second one can be judged.
fn heartbeats(options: &TcpOptions, heartbeat: Option<Duration>) -> (Duration, Duration) {
    let patience = patience(options);
    let within = heartbeat
        .map(|heartbeat| (heartbeat, heartbeat - (heartbeat / 6).max(FIRST_PAUSE).min(heartbeat / 2)));
    match within {
        Some((heartbeat, within)) if within < patience => {
            let interval = options.keepalive_interval.max(whole_seconds(heartbeat)).min(LONGEST_INTERVAL);
            (interval, within)
        }
        _ => (options.keepalive_interval, patience),
    }
}

fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

fn keepalive(tcp: &TcpStream, idle: Duration, interval: Duration, probes: u32) {
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(probes);
    if let Err(error) = SockRef::from(tcp).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "keepalive refused");
    }
}

/// `TCP_RTO_MAX_MS` of Linux's `tcp.h`; the libc crate does not have it yet.
const TCP_RTO_MAX_MS: libc::c_int = 44;

/// The option, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct RtoMax;

nix::setsockopt_impl!(
    RtoMax,
    libc::IPPROTO_TCP,
    TCP_RTO_MAX_MS,
    u32,
    nix::sys::socket::sockopt::SetStruct<u32>
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::tcp;

    fn options(idle: u64, interval: u64) -> TcpOptions {
        TcpOptions {
            keepalive_idle: Duration::from_secs(idle),
            keepalive_interval: Duration::from_secs(interval),
            ..TcpOptions::default()
        }
    }

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// What Linux makes of the bound (`tcp_model_timeout`, 15 retries, first pause 200 ms).
    fn given_up_after(longest: Duration) -> Duration {
        let mut pauses = std::iter::successors(Some(Duration::from_millis(200)), |pause| Some(*pause * 2));
        (0..=15).map(|_| pauses.next().unwrap_or_default().min(longest)).sum()
    }

    #[test]
    fn bytes_on_their_way_are_given_about_as_long_as_silence() {
        assert_eq!(patience(&TcpOptions::default()), secs(92));
        for (idle, interval) in [(20, 8), (60, 10), (30, 5), (10, 30), (600, 60)] {
            let options = options(idle, interval);
            let (silence, bytes) = (patience(&options), given_up_after(retransmission(&options)));
            assert!(bytes >= silence / 2 && bytes <= silence * 3 / 2, "{silence:?} {bytes:?}");
        }
        // A link that is cut for 30 s ends nothing, whatever the keys.
        assert!(given_up_after(retransmission(&options(1, 1))) > secs(35));
        assert_eq!(retransmission(&options(32_767, 32_767)), secs(120));
    }

    #[test]
    fn probes_that_come_soon_take_as_long_in_all() {
        assert_eq!([1, 2, 8].map(|s| soon(secs(s))), [(secs(1), 9), (secs(2), 9), (secs(2), 36)]);
        for interval in (1..1000).chain([32_767]) {
            let ((pause, probes), before) = (soon(secs(interval)), secs(interval) * PROBES);
            assert!(pause <= secs(interval) && probes <= 127, "{interval}: {pause:?} {probes}");
            assert!((before..before + pause).contains(&(pause * probes)), "{interval}: {pause:?} {probes}");
        }
    }

    #[test]
    fn a_cut_is_noticed_within_two_heartbeats() {
        for heartbeat in [1, 2, 5, 30, 60, 100] {
            let (_, acknowledged_within) = heartbeats(&TcpOptions::default(), Some(secs(heartbeat)));
            assert!(secs(heartbeat) + acknowledged_within + FIRST_PAUSE <= secs(2 * heartbeat));
            assert!(acknowledged_within >= secs(heartbeat) * 6 / 10);
        }
        // Keepalive is faster than seldom heartbeats, and there even if they are off.
        for heartbeat in [Some(secs(200)), Some(secs(31_536_000)), None] {
            assert_eq!(heartbeats(&TcpOptions::default(), heartbeat), (secs(8), secs(92)));
        }
    }

    /// Else one lost probe would end a channel whose link is merely bad.
    #[test]
    fn no_second_probe_is_judged_before_a_heartbeat_was_sent() {
        for (idle, interval, heartbeat) in [(20, 8, 30), (20, 8, 25), (1, 1, 10), (20, 8, 90), (5, 60, 30)] {
            let options = options(idle, interval);
            let (probes, acknowledged_within) = heartbeats(&options, Some(secs(heartbeat)));
            assert!(probes >= secs(heartbeat) || acknowledged_within >= patience(&options));
        }
        assert_eq!(heartbeats(&options(32_767, 32_767), Some(secs(300_000))).0, LONGEST_INTERVAL);
    }

    nix::getsockopt_impl!(
        RtoMax,
        libc::IPPROTO_TCP,
        TCP_RTO_MAX_MS,
        u32,
        nix::sys::socket::sockopt::GetStruct<u32>
    );

    fn rto_max(tcp: &TcpStream) -> u32 {
        nix::sys::socket::GetSockOpt::get(&RtoMax, tcp).unwrap()
    }

    #[tokio::test]
    async fn every_option_is_set() {
        let listener = tcp::listen(([127, 0, 0, 1], 0).into()).unwrap();
        let tcp = tcp::connect(&[listener.local_addr().unwrap()]).await.unwrap();
        watch(&tcp, &options(31, 7));
        let socket = SockRef::from(&tcp);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), secs(31));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), secs(7));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), PROBES);
        // A reader who pauses must not be taken for dead.
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
        let known = RtoMax.set(&tcp, &8000);
        assert!(known.is_ok() || known == Err(nix::errno::Errno::ENOPROTOOPT), "{known:?}");
        assert_eq!(known.is_err(), REFUSED.load(Relaxed));
        // 31 s, then 9 times 7 s; what an older kernel is helped with.
        assert_eq!(bound(&tcp), Some(secs(94)));
        watch(&tcp, &options(1, 1));
        assert_eq!(bound(&tcp), Some(SHORTEST_SILENCE));
        ask_soon(&tcp, &options(31, 7));
        assert_eq!(socket.tcp_keepalive_time().unwrap(), secs(31));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), secs(2));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 32);
        assert!(known.is_err() || rto_max(&tcp) == 3000);
        ask_soon(&tcp, &options(32_767, 32_767));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 127);
        watch_heartbeats(&tcp, &options(31, 7), Some(secs(30)));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), PROBES);
        assert!(known.is_err() || rto_max(&tcp) == 3000);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(secs(25)));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), secs(30));
        // The largest values that a configuration can have.
        watch_heartbeats(&tcp, &options(32_767, 32_767), Some(secs(31_536_000)));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(secs(327_670)));
    }
}
