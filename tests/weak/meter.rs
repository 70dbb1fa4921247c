//! A service that is sent so many bytes, or sends them, and how long a visitor takes with it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::common::visitor::random;

/// A visitor that takes longer than this is stuck. A mebibyte at a tenth of 1 Mbit/s takes 84 s.
pub const DEADLINE: Duration = Duration::from_secs(120);

const UP: u8 = b'U';
const DOWN: u8 = b'D';
const SEED: u64 = 7;

/// One connection to the service.
pub fn serve(mut stream: TcpStream) {
    // A visitor that does not come to its end has its own deadline.
    let _ = stream.set_read_timeout(Some(DEADLINE)).and_then(|()| stream.set_write_timeout(Some(DEADLINE)));
    let _ = answer(&mut stream);
}

fn answer(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; 9];
    stream.read_exact(&mut request)?;
    let size = u64::from_be_bytes(request[1..].try_into().unwrap()) as usize;
    if request[0] == DOWN {
        return stream.write_all(&random(SEED, size));
    }
    let mut bytes = vec![0; size];
    stream.read_exact(&mut bytes)?;
    stream.write_all(&Sha256::digest(&bytes))
}

/// From connecting until all of `size` bytes were sent and the service has said what it got.
pub fn up(addr: SocketAddr, size: usize) -> io::Result<Duration> {
    let bytes = random(SEED, size);
    let begun = Instant::now();
    let mut stream = request(addr, UP, size, &bytes)?;
    let mut digest = [0; 32];
    stream.read_exact(&mut digest)?;
    let time = begun.elapsed();
    assert_eq!(digest[..], Sha256::digest(&bytes)[..], "other bytes arrived than were sent");
    Ok(time)
}

/// From connecting until all of `size` bytes have come.
pub fn down(addr: SocketAddr, size: usize) -> io::Result<Duration> {
    let begun = Instant::now();
    let mut stream = request(addr, DOWN, size, &[])?;
    let mut bytes = vec![0; size];
    stream.read_exact(&mut bytes)?;
    let time = begun.elapsed();
    assert!(bytes == random(SEED, size), "other bytes arrived than were sent");
    Ok(time)
}

fn request(addr: SocketAddr, what: u8, size: usize, bytes: &[u8]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&addr, DEADLINE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.write_all(&[&[what], &(size as u64).to_be_bytes()[..], bytes].concat())?;
    Ok(stream)
}
