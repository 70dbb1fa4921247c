//! What only unsafe code can ask of the kernel, each as one small safe function. What it decides: nothing. (The other
//! unsafe file is `sys/lean.rs`: the binary's own, for lean builds.)
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;

/// Bytes that were written to a TCP socket and are not yet acknowledged by the peer's kernel (SIOCOUTQ).
///
/// # Errors
/// The socket is none, or not connected.
pub fn unacknowledged(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, because it is borrowed; TIOCOUTQ, which is SIOCOUTQ's number, writes one int to
    // its argument and reads nothing (tcp(7)), and `bytes` is an int that lives through the call.
    let failed =
        unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ as _, &raw mut bytes) } == -1;
    if failed {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// What the kernel knows of a TCP connection (TCP_INFO). Fields that it does not know are zero.
///
/// # Errors
/// The socket is not one of TCP.
pub fn tcp_info(socket: impl AsFd) -> io::Result<libc::tcp_info> {
    // SAFETY: `tcp_info` is made of integers only, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut size = size_of::<libc::tcp_info>() as libc::socklen_t;
    let (value, fd) = ((&raw mut info).cast(), socket.as_fd().as_raw_fd());
    // SAFETY: the descriptor is open, because it is borrowed; the kernel writes at most `size` bytes to `info`, which
    // has that many and lives through the call, and the number of bytes to `size`.
    let failed =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, value, &raw mut size) } == -1;
    if failed {
        return Err(io::Error::last_os_error());
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_a_kernel_has_taken_is_acknowledged_though_nobody_reads() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut two, _) = listener.accept().unwrap();
        assert_eq!(unacknowledged(&one).unwrap(), 0);
        one.write_all(b"beat").unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while unacknowledged(&one).unwrap() > 0 {
            assert!(std::time::Instant::now() < until);
        }
        // More than both kernels' buffers hold: somebody must read before all of it is acknowledged.
        one.set_nonblocking(true).unwrap();
        while one.write(&[0; 65_536]).is_ok() {}
        assert!(unacknowledged(&one).unwrap() > 0);
        two.read_exact(&mut [0; 4]).unwrap();
        assert!(unacknowledged(&one).unwrap() > 0);
        assert!(unacknowledged(std::fs::File::open("/dev/null").unwrap()).is_err());
    }

    #[test]
    fn the_kernel_tells_of_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let info = tcp_info(&one).unwrap();
        // TCP_ESTABLISHED.
        assert_eq!((info.tcpi_state, info.tcpi_unacked, info.tcpi_probes), (1, 0, 0));
        assert!(info.tcpi_rto >= 200_000);
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(tcp_info(&one).unwrap().tcpi_last_ack_recv >= 30);
        assert!(tcp_info(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
