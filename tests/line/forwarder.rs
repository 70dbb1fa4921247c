//! The thread between two TAP devices.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::middlebox::{Middlebox, Verdict};
use super::weather::Weather;

/// The thread looks this often whether it shall end.
const IDLE: Duration = Duration::from_millis(50);

/// Carries frames until it is dropped.
pub struct Forwarder {
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread goes by; index 0 is the way from the first device to the second.
pub struct State {
    /// What befalls frames.
    pub weather: [Weather; 2],
    /// Nothing arrives.
    pub cut: [bool; 2],
    /// A router on the way.
    pub middlebox: Middlebox,
    /// What happened.
    pub counts: Counts,
    stop: bool,
}

/// Frames, both directions together.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    /// Delivered.
    pub delivered: u64,
    /// Lost: by chance, by a cut, by a router, by a full queue.
    pub lost: u64,
    /// Overtaken by others.
    pub reordered: u64,
}

/// A frame on its way: when it arrives, its number, where, and its bytes.
type Travelling = Reverse<(Instant, u64, usize, Vec<u8>)>;

impl Forwarder {
    /// Carries frames between these two.
    pub fn start(ends: [File; 2], seed: u64) -> Self {
        let state = Arc::new(Mutex::new(State {
            weather: [Weather::default(); 2],
            cut: [false; 2],
            middlebox: Middlebox::default(),
            counts: Counts::default(),
            stop: false,
        }));
        let road = Road {
            ends,
            rng: fastrand::Rng::with_seed(seed),
            travelling: BinaryHeap::new(),
            number: 0,
            free: [Instant::now(); 2],
            last: [Instant::now(); 2],
        };
        let shared = state.clone();
        let thread = std::thread::spawn(move || road.run(&shared));
        Forwarder { state, thread: Some(thread) }
    }

    /// Looks at, or changes, what the thread goes by.
    pub fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap())
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.with(|state| state.stop = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What only the thread knows.
struct Road {
    ends: [File; 2],
    rng: fastrand::Rng,
    travelling: BinaryHeap<Travelling>,
    number: u64,
    /// When the narrow place of each way is free again.
    free: [Instant; 2],
    /// When the latest frame of each way arrives that kept its order.
    last: [Instant; 2],
}

impl Road {
    fn run(mut self, shared: &Mutex<State>) {
        let mut frame = vec![0; 64 << 10];
        loop {
            self.wait();
            let mut state = shared.lock().unwrap();
            if state.stop {
                return;
            }
            for way in [0, 1] {
                // Not for ever: the other way wants its turn.
                for _ in 0..64 {
                    let Ok(n) = (&self.ends[way]).read(&mut frame) else { break };
                    self.on_frame(&mut state, way, &frame[..n]);
                }
            }
            self.deliver(&mut state);
        }
    }

    fn wait(&self) {
        let next = self.travelling.peek().map(|Reverse((arrives, ..))| *arrives);
        let time = next.map_or(IDLE, |next| next.saturating_duration_since(Instant::now()).min(IDLE));
        let [a, b] = &self.ends;
        let mut ends = [a, b].map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN));
        // Whatever it says, there is a look at both.
        let _ = ppoll(&mut ends, Some(TimeSpec::from_duration(time)), None);
    }

    fn on_frame(&mut self, state: &mut State, way: usize, frame: &[u8]) {
        let weather = state.weather[way];
        match state.middlebox.on_frame(frame) {
            Verdict::Pass => {}
            Verdict::Drop => return state.counts.lost += 1,
            Verdict::Answer(answer) => {
                state.counts.lost += 1;
                // The router is near.
                let _ = (&self.ends[way]).write(&answer);
                return;
            }
        }
        if state.cut[way] || self.rng.f64() < weather.loss {
            state.counts.lost += 1;
            return;
        }
        let copies = if self.rng.f64() < weather.duplicate { 2 } else { 1 };
        for _ in 0..copies {
            self.send(state, way, frame);
        }
    }

    fn send(&mut self, state: &mut State, way: usize, frame: &[u8]) {
        let weather = state.weather[way];
        let now = Instant::now();
        let mut leaves = now;
        if weather.rate > 0 {
            let time = |bytes: usize| Duration::from_secs_f64(bytes as f64 * 8.0 / weather.rate as f64);
            if self.free[way].saturating_duration_since(now) > time(weather.queue) {
                state.counts.lost += 1;
                return;
            }
            leaves = now.max(self.free[way]) + time(frame.len());
            self.free[way] = leaves;
        }
        let on_time = leaves + weather.delay;
        let arrives = if self.rng.f64() < weather.reorder {
            state.counts.reordered += 1;
            on_time + weather.jitter
        } else {
            let arrives = on_time + weather.jitter.mul_f64(self.rng.f64());
            self.last[way] = arrives.max(self.last[way]);
            self.last[way]
        };
        self.number += 1;
        self.travelling.push(Reverse((arrives, self.number, 1 - way, frame.to_vec())));
    }

    fn deliver(&mut self, state: &mut State) {
        let now = Instant::now();
        while self.travelling.peek().is_some_and(|Reverse((arrives, ..))| *arrives <= now) {
            let Some(Reverse((_, _, end, frame))) = self.travelling.pop() else { return };
            // What is on the cable when it is cut is lost.
            let delivered = !state.cut[1 - end] && (&self.ends[end]).write(&frame).is_ok();
            if delivered {
                state.counts.delivered += 1;
            } else {
                state.counts.lost += 1;
            }
        }
    }
}
