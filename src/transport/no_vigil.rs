//! Lean builds have no [`Vigil`]: on kernels before Linux 6.15 they wait for the kernel's own quarter of an hour.

use std::io;
use std::task::{Context, Poll};

use tokio::net::TcpStream;

/// Nothing, and does nothing.
#[derive(Debug)]
pub struct Vigil;

impl Vigil {
    /// Of no connection.
    pub fn new(_tcp: &TcpStream) -> Self {
        Vigil
    }

    /// Never ready.
    pub fn poll(&mut self, _cx: &mut Context<'_>, _connections: &[&TcpStream]) -> Poll<(usize, io::Error)> {
        Poll::Pending
    }
}
