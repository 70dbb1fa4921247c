//! Forward proxies between client and server: SOCKS5 and HTTP CONNECT, strict about what they are asked.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use super::service::Local;

/// The user that the proxies know: percent-encoded in a URL where it must be.
pub const USER: &str = "proxy-user";
/// Its password.
pub const PASSWORD: &str = "proxy-pass-Wk3s";

/// A running proxy.
pub struct Forward {
    local: Local,
    scheme: &'static str,
    credentials: bool,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Forward {
    /// HTTP CONNECT; with `credentials`, Basic authorization is demanded.
    pub fn http(credentials: bool) -> Self {
        Self::new("http", credentials, http)
    }

    /// SOCKS5; with `credentials`, user and password are demanded.
    pub fn socks5(credentials: bool) -> Self {
        Self::new("socks5", credentials, socks5)
    }

    fn new(
        scheme: &'static str,
        credentials: bool,
        handshake: fn(&mut TcpStream, bool) -> io::Result<String>,
    ) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let local = Local::tcp(move |mut stream| {
            let Ok(target) = handshake(&mut stream, credentials) else { return };
            log.lock().unwrap().push(target.clone());
            let Ok(server) = TcpStream::connect(target) else { return };
            let reply: &[u8] = match scheme {
                "http" => b"HTTP/1.1 200 Connection established\r\n\r\n",
                _ => &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0],
            };
            if stream.write_all(reply).is_ok() {
                both_ways(stream, server);
            }
        });
        Forward { local, scheme, credentials, asked }
    }

    /// For `transport.tcp.proxy`.
    pub fn url(&self) -> String {
        let user = if self.credentials { format!("{USER}:{PASSWORD}@") } else { String::new() };
        format!("{}://{user}{}", self.scheme, self.local.addr)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.local.addr
    }

    /// The targets it was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn both_ways(a: TcpStream, b: TcpStream) {
    let pump = |mut from: &TcpStream, mut to: &TcpStream| {
        // The deadline was for the handshake; a tunnel may idle.
        let _ = from.set_read_timeout(None);
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| pump(&a, &b));
        pump(&b, &a);
    });
}

fn http(stream: &mut TcpStream, credentials: bool) -> io::Result<String> {
    let mut request = Vec::new();
    // Byte by byte: what follows the head is the tunnel's.
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).map_err(|_| refused("not UTF-8"))?;
    let mut lines = request.split("\r\n");
    let target = lines.next().and_then(|line| line.strip_prefix("CONNECT ")?.strip_suffix(" HTTP/1.1"));
    let target = target.ok_or_else(|| refused("not CONNECT"))?.to_owned();
    let headers: Vec<_> = lines.collect();
    let basic = format!("Proxy-Authorization: Basic {}", base64(format!("{USER}:{PASSWORD}").as_bytes()));
    if credentials && !headers.contains(&basic.as_str()) {
        stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")?;
        return Err(refused("no credentials"));
    }
    Ok(target)
}

fn socks5(stream: &mut TcpStream, credentials: bool) -> io::Result<String> {
    let [5, count] = take(stream)? else { return Err(refused("not SOCKS5")) };
    let mut methods = vec![0; count.into()];
    stream.read_exact(&mut methods)?;
    let method = if credentials { 2 } else { 0 };
    if !methods.contains(&method) {
        stream.write_all(&[5, 0xff])?;
        return Err(refused("no acceptable method"));
    }
    stream.write_all(&[5, method])?;
    if credentials {
        let [1, len] = take(stream)? else { return Err(refused("not RFC 1929")) };
        let mut user = vec![0; len.into()];
        stream.read_exact(&mut user)?;
        let [len] = take(stream)?;
        let mut password = vec![0; len.into()];
        stream.read_exact(&mut password)?;
        let right = user == USER.as_bytes() && password == PASSWORD.as_bytes();
        stream.write_all(&[1, u8::from(!right)])?;
        if !right {
            return Err(refused("wrong credentials"));
        }
    }
    let [5, 1, 0, address_type] = take(stream)? else { return Err(refused("not CONNECT")) };
    let host = match address_type {
        1 => std::net::Ipv4Addr::from(take::<4>(stream)?).to_string(),
        4 => format!("[{}]", std::net::Ipv6Addr::from(take::<16>(stream)?)),
        3 => {
            let [len] = take(stream)?;
            let mut name = vec![0; len.into()];
            stream.read_exact(&mut name)?;
            String::from_utf8(name).map_err(|_| refused("not UTF-8"))?
        }
        _ => return Err(refused("unknown address type")),
    };
    let port = u16::from_be_bytes(take(stream)?);
    Ok(format!("{host}:{port}"))
}

fn take<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

/// Standard base64, padded.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let value = (word >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[value]) } else { '=' });
        }
    }
    text
}
