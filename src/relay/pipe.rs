//! Pipes for splice(2): a bounded pool that lends them out.
//!
//! A pipe's pages count against a limit of its user (64 MiB by default); past it new pipes silently get two slots
//! and are far slower than copying. So few are in use at a time, the size is read back, and whoever gets none copies.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::sys::resource::{Resource, getrlimit};

/// What a pipe should hold, in bytes.
const WANTED: i32 = 1 << 20;

/// A pipe that holds less is not worth its system calls.
const LEAST: usize = 64 * 1024;

/// Pipes at once: half of what an unprivileged user may have by default.
const MOST: usize = 32;

/// They stay open, for the next relay. So where few files may be open, a sixteenth of those at most are ends of pipes.
const OPEN_FILES_EACH: usize = 32;

/// After a pipe could not be made, so many wishes are refused unheard: making one costs four system calls.
const REFUSALS: u32 = 256;

/// The process's pipes: the limit they must respect is the user's, so there is one pool.
pub(super) static POOL: Pool = Pool::new(MOST);

/// How many files this process may have open, at most a quarter of what a number can hold: so that sums stay in range.
pub fn open_files() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    usize::try_from(limit).unwrap_or(usize::MAX).min(usize::MAX / 4)
}

/// Files that pipes take, of so many that may be open.
pub fn ends(open_files: usize) -> usize {
    2 * most(open_files)
}

fn most(open_files: usize) -> usize {
    (open_files / OPEN_FILES_EACH).min(MOST)
}

/// Lends pipes.
#[derive(Debug)]
pub(super) struct Pool {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: Vec<Ends>,
    lent: usize,
    refusals: u32,
}

#[derive(Debug)]
struct Ends {
    reader: OwnedFd,
    writer: OwnedFd,
    capacity: usize,
}

impl Pool {
    /// A pool of at most `most` pipes, made when they are first wanted.
    pub(super) const fn new(most: usize) -> Self {
        Pool { most, state: Mutex::new(State { free: Vec::new(), lent: 0, refusals: 0 }) }
    }

    /// An empty pipe, or None: then copy.
    pub(super) fn lend(&'static self) -> Option<Pipe> {
        let mut state = self.state();
        if state.lent >= self.most {
            return None;
        }
        let ends = match state.free.pop() {
            Some(ends) => ends,
            None if state.refusals > 0 => {
                state.refusals -= 1;
                return None;
            }
            // None is free, so those that are lent are all.
            None if state.lent >= most(open_files()) => {
                state.refusals = REFUSALS;
                return None;
            }
            None => match Ends::new() {
                Ok(ends) if ends.capacity >= LEAST => ends,
                Ok(_) | Err(_) => {
                    state.refusals = REFUSALS;
                    return None;
                }
            },
        };
        state.lent += 1;
        Some(Pipe { ends: Some(ends), filled: 0, pool: self })
    }

    /// Pipes that are lent out now.
    #[cfg(test)]
    pub(super) fn lent(&self) -> usize {
        self.state().lent
    }

    /// Pipes that wait for use.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.state().free.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ends {
    fn new() -> Result<Self, Errno> {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let capacity = match fcntl(&writer, FcntlArg::F_SETPIPE_SZ(WANTED)) {
            Ok(capacity) => capacity,
            Err(_) => fcntl(&writer, FcntlArg::F_GETPIPE_SZ)?,
        };
        Ok(Ends { reader, writer, capacity: usize::try_from(capacity).unwrap_or(0) })
    }
}

/// A lent pipe and how many bytes are in it. Dropped empty, it goes back; dropped with bytes in it, it is closed.
#[derive(Debug)]
pub(super) struct Pipe {
    /// None only within `drop`.
    ends: Option<Ends>,
    filled: usize,
    pool: &'static Pool,
}

impl Pipe {
    /// Bytes in it.
    pub(super) fn filled(&self) -> usize {
        self.filled
    }

    /// Moves what `source` has now into the pipe, which must be empty: so WouldBlock means an empty source.
    /// 0: the source's end.
    pub(super) fn fill(&mut self, source: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let n = moved(source.as_fd(), ends.writer.as_fd(), ends.capacity)?;
        self.filled += n;
        Ok(n)
    }

    /// Moves bytes of the pipe, which must have some, into `sink`: so WouldBlock means a full sink.
    pub(super) fn drain(&mut self, sink: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let n = moved(ends.reader.as_fd(), sink.as_fd(), self.filled)?;
        self.filled = self.filled.saturating_sub(n);
        Ok(n)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        state.lent = state.lent.saturating_sub(1);
        if self.filled == 0 {
            state.free.extend(self.ends.take());
        }
    }
}

fn moved(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    loop {
        match splice(&from, None, &to, None, most, flags) {
            Err(Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pool(most: usize) -> &'static Pool {
        Box::leak(Box::new(Pool::new(most)))
    }

    #[test]
    fn lends_no_more_than_its_bound_and_takes_empty_ones_back() {
        let pool = pool(2);
        let (a, b) = (pool.lend().unwrap(), pool.lend().unwrap());
        assert!(pool.lend().is_none());
        assert_eq!((pool.lent(), pool.free()), (2, 0));
        drop(a);
        assert_eq!((pool.lent(), pool.free()), (1, 1));
        let again = pool.lend().unwrap();
        drop((again, b));
        assert_eq!((pool.lent(), pool.free()), (0, 2));
    }

    #[test]
    fn pipes_take_a_small_part_of_the_files_that_may_be_open() {
        for (open_files, ends_of_pipes) in [(0, 0), (31, 0), (48, 2), (200, 12), (1024, 64), (1 << 20, 64)] {
            assert_eq!(ends(open_files), ends_of_pipes, "{open_files}");
        }
    }

    #[test]
    fn a_pipe_with_bytes_in_it_never_comes_back() {
        let pool = pool(1);
        let (mut far, near) = UnixStream::pair().unwrap();
        far.write_all(b"in flight").unwrap();
        let mut pipe = pool.lend().unwrap();
        assert_eq!(pipe.fill(&near).unwrap(), 9);
        drop(pipe);
        assert_eq!((pool.lent(), pool.free()), (0, 0));
    }

    #[test]
    fn moves_bytes_and_tells_empty_from_ended() {
        let pool = pool(1);
        let (mut a, b) = UnixStream::pair().unwrap();
        let (c, mut d) = UnixStream::pair().unwrap();
        let mut pipe = pool.lend().unwrap();
        assert_eq!(pipe.fill(&b).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        a.write_all(b"hello").unwrap();
        assert_eq!((pipe.fill(&b).unwrap(), pipe.filled()), (5, 5));
        assert_eq!((pipe.drain(&c).unwrap(), pipe.filled()), (5, 0));
        let mut got = [0; 5];
        d.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        drop(a);
        assert_eq!(pipe.fill(&b).unwrap(), 0);
    }

    #[test]
    fn a_pipe_is_as_large_as_it_says() {
        let ends = Ends::new().unwrap();
        assert!(ends.capacity >= LEAST, "{}", ends.capacity);
        assert_eq!(fcntl(&ends.reader, FcntlArg::F_GETPIPE_SZ).unwrap() as usize, ends.capacity);
    }
}
