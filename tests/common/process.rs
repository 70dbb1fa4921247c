//! A child process: its output is read as it comes, and it does not outlive its guard.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::PATIENCE;

/// A running program. Dropped: killed and reaped.
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
}

#[derive(Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Both, in the order in which they came.
    both: Vec<u8>,
    /// Streams that have not ended.
    open: usize,
}

impl Process {
    /// Starts `command`; `name` is what failures call it.
    pub fn start(name: impl Into<String>, mut command: Command) -> Self {
        let name = name.into();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        let output = Arc::new(Output::default());
        output.lock().open = 2;
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        output.clone().collect(stdout, |state| &mut state.stdout);
        output.clone().collect(stderr, |state| &mut state.stderr);
        Process { name, child, output }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything written so far.
    pub fn log(&self) -> String {
        text(&self.output.lock().both)
    }

    /// What was written to standard output.
    pub fn stdout(&self) -> String {
        text(&self.output.lock().stdout)
    }

    /// What was written to standard error.
    pub fn stderr(&self) -> String {
        text(&self.output.lock().stderr)
    }

    /// Waits until `pattern` was written, to either stream.
    pub fn wait_for(&self, pattern: &str) {
        self.wait_for_times(pattern, 1);
    }

    /// Waits until `pattern` was written `times` times.
    pub fn wait_for_times(&self, pattern: &str, times: usize) {
        let seen = |state: &State| text(&state.both).matches(pattern).count() >= times;
        if !self.wait_until(PATIENCE, seen) {
            panic!("{} did not write {pattern:?} {times} time(s):\n{}", self.name, self.log());
        }
    }

    /// Waits for something about the output; false: it did not come, and the process ended or time is up.
    fn wait_until(&self, patience: Duration, holds: impl Fn(&State) -> bool) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.output.lock();
        loop {
            if holds(&state) {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.open == 0 {
                return false;
            }
            state = self.output.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Sends a signal. The process was not reaped, so the id is still its own.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal)
            .unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
    }

    /// Waits for the end of the process, which closes its streams.
    pub fn wait(&mut self) -> ExitStatus {
        self.wait_within(PATIENCE)
    }

    /// Like [`Process::wait`], with a time limit that is part of the test.
    pub fn wait_within(&mut self, limit: Duration) -> ExitStatus {
        if !self.wait_until(limit, |state| state.open == 0) {
            panic!("{} still runs after {limit:?}:\n{}", self.name, self.log());
        }
        self.child.wait().unwrap()
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Kills it, without warning, and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {} wrote:\n{}---", self.name, self.log());
        }
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn collect(self: Arc<Self>, mut from: impl Read + Send + 'static, to: fn(&mut State) -> &mut Vec<u8>) {
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            loop {
                let read = from.read(&mut chunk).unwrap_or(0);
                let mut state = self.lock();
                to(&mut state).extend_from_slice(&chunk[..read]);
                state.both.extend_from_slice(&chunk[..read]);
                if read == 0 {
                    state.open -= 1;
                }
                self.changed.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a program to its end, which must be good; its standard output.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output.stderr));
    text(&output.stdout)
}
