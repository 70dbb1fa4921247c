//! Random sequences of events for what a relay is made of. A failure names its seed.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, advance};

use super::Side;
use super::buffer::SIZE;
use super::direction::{Direction, Fault, Plain};
use super::hold::Hold;
use super::pipe::Pool;

/// What a source does when it is asked.
#[derive(Debug)]
enum Say {
    Bytes(Vec<u8>),
    Wait,
    Fail,
}

/// Says what is written for it, and then its end.
struct Source {
    script: VecDeque<Say>,
    /// All that was taken from it.
    given: Vec<u8>,
    ended: bool,
}

/// Takes what it likes.
struct Sink {
    random: Rng,
    taken: Vec<u8>,
    unflushed: bool,
    shut: usize,
    fails_after: usize,
}

impl Plain for Source {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

impl Plain for Sink {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

impl AsyncRead for Source {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        assert!(!this.ended, "read again after its end");
        match this.script.pop_front() {
            Some(Say::Bytes(mut bytes)) => {
                if bytes.len() > buf.remaining() {
                    this.script.push_front(Say::Bytes(bytes.split_off(buf.remaining())));
                }
                buf.put_slice(&bytes);
                this.given.extend_from_slice(&bytes);
            }
            Some(Say::Wait) => return Poll::Pending,
            Some(Say::Fail) => {
                this.ended = true;
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            None => this.ended = true,
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sink {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        assert!(this.shut == 0 && !bytes.is_empty());
        if this.taken.len() >= this.fails_after {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let n = match this.random.u8(..10) {
            0..3 => return Poll::Pending,
            3..6 => this.random.usize(1..=bytes.len()),
            _ => bytes.len(),
        };
        this.taken.extend_from_slice(&bytes[..n]);
        this.unflushed = true;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.random.bool() {
            return Poll::Pending;
        }
        this.shut += 1;
        Poll::Ready(Ok(()))
    }
}

/// Whatever a source says and a sink takes, at every moment:
/// - the sink has a beginning of what the source gave, and `moved` says how much;
/// - what is in flight fits into one buffer, and while there is any nothing more is read;
/// - the sink is told the end once, after all bytes, and only when it may be told;
/// - when nothing happens any more, nothing waits to be flushed;
/// - a source's fault is told after its bytes were delivered, a sink's at once.
#[test]
fn a_direction_loses_and_invents_nothing() {
    let (mut ended, mut failed) = (0, 0);
    for seed in 0..600 {
        let mut random = Rng::with_seed(seed);
        let mut script = VecDeque::new();
        for _ in 0..random.usize(..12) {
            script.push_back(match random.u8(..10) {
                0..4 => Say::Wait,
                4..9 => {
                    let most = [1, 5000, SIZE + 9, 2 * SIZE][random.usize(..4)];
                    Say::Bytes((0..random.usize(1..=most)).map(|n| n as u8 ^ seed as u8).collect())
                }
                _ => Say::Fail,
            });
        }
        let will_fail = script.iter().any(|say| matches!(say, Say::Fail));
        let fails_after = if random.u8(..10) == 0 { random.usize(..9000) } else { usize::MAX };
        let mut source = Source { script, given: Vec::new(), ended: false };
        let mut sink =
            Sink { random: random.fork(), taken: Vec::new(), unflushed: false, shut: 0, fails_after };
        let pool: &'static Pool = Box::leak(Box::new(Pool::new(0)));
        let mut direction = Direction::new();
        let mut cx = Context::from_waker(Waker::noop());
        let may_end_at = random.usize(..60);
        for step in 0.. {
            assert!(step < 20_000, "seed {seed}: no end");
            let may_end = step >= may_end_at;
            let given = source.given.len();
            let was_stuck = direction.is_stuck();
            let before = sink.taken.len();
            let polled = direction.poll(&mut cx, &mut source, &mut sink, may_end, pool);
            assert_eq!(direction.moved(), sink.taken.len() as u64, "seed {seed}");
            assert!(source.given.starts_with(&sink.taken), "seed {seed}: other bytes");
            assert!(source.given.len() - sink.taken.len() <= SIZE, "seed {seed}: too much in flight");
            let delivered = sink.taken.len() == given;
            assert!(!was_stuck || delivered || before < given || source.given.len() == given, "seed {seed}");
            match polled {
                Poll::Ready(Ok(())) => {
                    assert!(!will_fail && may_end && sink.shut == 1, "seed {seed}");
                    assert!(
                        sink.taken == source.given && source.script.is_empty(),
                        "seed {seed}: lost bytes"
                    );
                    assert!(direction.is_closed() && direction.is_idle(), "seed {seed}");
                    ended += 1;
                    break;
                }
                Poll::Ready(Err(Fault::Source(_))) => {
                    assert!(will_fail && sink.shut == 0, "seed {seed}");
                    failed += 1;
                    break;
                }
                Poll::Ready(Err(Fault::Sink(_))) => {
                    assert!(sink.taken.len() >= fails_after, "seed {seed}");
                    failed += 1;
                    break;
                }
                Poll::Pending => {
                    assert!(sink.shut == 0, "seed {seed}: told the end too soon, or twice");
                    // Else it goes on at once: its turn was over, or it is telling the end.
                    let waits = sink.taken.len() - before < 2 << 20 && !(source.ended && may_end);
                    assert!(!waits || direction.is_stuck() || !sink.unflushed, "seed {seed}: not flushed");
                }
            }
        }
    }
    assert!(ended > 150 && failed > 30, "{ended} {failed}");
}

/// An end is held back until the other side was silent for its patience, and not a moment longer: whatever it says, and
/// whenever it is looked at. Once it may be told it may be told for ever.
#[tokio::test(start_paused = true)]
async fn an_end_is_held_back_for_exactly_one_silence() {
    for seed in 0..300 {
        let mut random = Rng::with_seed(seed);
        let (side, patience) = match random.bool() {
            true => (Side::Server, Duration::from_secs(10)),
            false => (Side::Client, Duration::from_secs(1)),
        };
        let mut hold = Hold::default();
        let mut cx = Context::from_waker(Waker::noop());
        let (mut moved, mut heard, mut over) = (0, None, false);
        for step in 0..60 {
            let is_over = hold.poll_over(&mut cx, side, moved);
            let now = Instant::now();
            let (last, silent_since) = *heard.get_or_insert((moved, now));
            if last != moved && !over {
                heard = Some((moved, now));
                assert!(!is_over, "seed {seed}, step {step}: over, and it has just spoken");
            } else {
                // tokio's timers are exact to a millisecond.
                let silence = now - silent_since;
                assert!(
                    over || !is_over || silence >= patience,
                    "seed {seed}, step {step}: after {silence:?}"
                );
                let late = silence > patience + Duration::from_millis(2);
                assert!(is_over || !late, "seed {seed}, step {step}: still not after {silence:?}");
            }
            over |= is_over;
            assert_eq!(over, is_over, "seed {seed}, step {step}: held back again");
            if random.u8(..3) == 0 {
                moved += random.u64(1..1000);
            }
            advance(patience.mul_f64(random.f64() * random.f64() * 1.2)).await;
        }
    }
}
