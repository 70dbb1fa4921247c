//! Sockets for code that wants a `TcpStream`: the two ends of a Unix socket pair, which cost a tenth of a loopback
//! connection and need no port.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
}

/// Runs a future on this thread's runtime. What takes longer than a few seconds hangs, which is a finding.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let bounded = async { tokio::time::timeout(Duration::from_secs(20), future).await.expect("it hangs") };
    RUNTIME.with(|runtime| runtime.block_on(bounded))
}

/// The socket to be tested, and the peer's end of it. To be called within [`block_on`].
pub(crate) fn pair() -> (TcpStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let ours = std::net::TcpStream::from(OwnedFd::from(ours));
    (TcpStream::from_std(ours).unwrap(), theirs)
}

/// What becomes of a future while the peer says all of this, piece by piece, and then ends. What the peer is told it
/// throws away, at any time; and whoever does not listen any more is not waited for.
pub(crate) async fn fed<T>(what: impl Future<Output = T>, peer: &mut UnixStream, pieces: &[&[u8]]) -> T {
    let talk = async {
        feed(peer, pieces).await;
        loop {
            drain(peer);
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        done = what => done,
        () = talk => unreachable!("it goes on for ever"),
    }
}

/// All that a stream gives, and the fault that it ends with, if it does; behind a fault there is nothing.
pub(crate) async fn read_all(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    room: usize,
) -> (Vec<u8>, Option<io::Error>) {
    let (mut got, mut buffer) = (Vec::new(), vec![0; room]);
    let read = loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break (got, None),
            Ok(n) => got.extend_from_slice(&buffer[..n]),
            Err(fault) => {
                assert!(!matches!(stream.read(&mut buffer).await, Ok(1..)), "bytes after a fault");
                break (got, Some(fault));
            }
        }
    };
    // Writing never panics either, whatever the peer did.
    let _ = stream.write_all(b"answer").await;
    let _ = stream.shutdown().await;
    read
}

async fn feed(peer: &mut UnixStream, pieces: &[&[u8]]) {
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            match peer.write(rest) {
                Ok(n) => rest = rest.split_at(n).1,
                // The buffer is full, or nobody is there any more.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
            drain(peer);
            tokio::task::yield_now().await;
        }
    }
    let _ = peer.shutdown(Shutdown::Write);
}

fn drain(peer: &mut UnixStream) {
    while matches!(peer.read(&mut [0; 1024]), Ok(1..)) {}
}
