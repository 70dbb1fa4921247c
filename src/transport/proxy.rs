//! Asking a proxy for a connection to the server: HTTP CONNECT and SOCKS5 (protocol-v1.md, section 3.5).
//!
//! The proxy resolves the server's name. Unlike rathole 0.5, credentials are percent-decoded (by the
//! configuration) and an IPv6 literal is sent to a SOCKS5 proxy as an address, not as a name in brackets. Not one
//! byte behind the proxy's answer is read. The caller sets the deadline.

use std::io;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use crate::config::{Endpoint, Host, Proxy, ProxyKind};

/// The longest header of an HTTP proxy's answer.
const MAX_HEADER: usize = 4096;
/// Header lines in an HTTP proxy's answer.
const MAX_LINES: usize = 16;

/// Asks the proxy at the other end of `tcp` for a tunnel to `remote`.
///
/// # Errors
/// One line that names the proxy and says what it, or the way behind it, refused.
pub async fn handshake(proxy: &Proxy, tcp: &mut TcpStream, remote: &Endpoint) -> io::Result<()> {
    let done = match proxy.kind {
        ProxyKind::Http => http(proxy, tcp, remote).await,
        ProxyKind::Socks5 => socks5(proxy, tcp, remote).await,
    };
    done.map_err(|fault| {
        let at = &proxy.endpoint;
        let message = match fault.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                format!("the proxy {at} closed the connection instead of connecting to {remote}")
            }
            _ => format!("the proxy {at} does not connect to {remote}: {fault}"),
        };
        io::Error::new(fault.kind(), message)
    })
}

async fn http(proxy: &Proxy, tcp: &mut TcpStream, remote: &Endpoint) -> io::Result<()> {
    tcp.write_all(&connect_request(proxy, remote)).await?;
    match read_status(tcp).await? {
        200 => Ok(()),
        407 if proxy.credentials.is_some() => Err(refused("it does not take these credentials (407)")),
        407 => Err(refused("it wants credentials (407): write http://USER:PASSWORD@HOST:PORT")),
        403 => Err(refused("it forbids this host or port (403)")),
        status @ (502..=504) => Err(refused(format!("it cannot reach it ({status})"))),
        status => Err(refused(format!("it answers with status {status}"))),
    }
}

/// The request, with rathole's header lines in rathole's order.
fn connect_request(proxy: &Proxy, remote: &Endpoint) -> Zeroizing<Vec<u8>> {
    let mut request = Zeroizing::new(
        format!("CONNECT {remote} HTTP/1.1\r\nHost: {remote}\r\nProxy-Connection: Keep-Alive\r\n")
            .into_bytes(),
    );
    if let Some((user, password)) = &proxy.credentials {
        let pair = Zeroizing::new([user.as_bytes(), b":", password.expose()].concat());
        let basic = Zeroizing::new(STANDARD.encode(&*pair));
        request.extend_from_slice(b"Proxy-Authorization: Basic ");
        request.extend_from_slice(basic.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request
}

/// Reads the answer's header and nothing behind it: bytes are looked at before they are taken.
async fn read_status(tcp: &mut TcpStream) -> io::Result<u16> {
    let mut header = Vec::new();
    let mut chunk = [0; MAX_HEADER];
    loop {
        let known = header.len();
        let room = chunk.get_mut(known..).unwrap_or_default();
        let seen = tcp.peek(room).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        header.extend_from_slice(room.get(..seen).unwrap_or_default());
        let mut lines = [httparse::EMPTY_HEADER; MAX_LINES];
        let mut response = httparse::Response::new(&mut lines);
        let parsed = response.parse(&header);
        let status = response.code;
        let length = match parsed {
            Ok(httparse::Status::Complete(length)) => Some(length),
            Ok(httparse::Status::Partial) => None,
            Err(httparse::Error::TooManyHeaders) => {
                return Err(refused(format!("its answer has more than {MAX_LINES} header lines")));
            }
            Err(_) => return Err(refused("its answer is not HTTP; is it an HTTP proxy?")),
        };
        let take = length.unwrap_or(header.len()).saturating_sub(known);
        tcp.read_exact(room.get_mut(..take).unwrap_or_default()).await?;
        match (length, status) {
            (Some(_), Some(status)) => return Ok(status),
            _ if header.len() >= MAX_HEADER => {
                return Err(refused(format!("the header of its answer is longer than {MAX_HEADER} bytes")));
            }
            _ => {}
        }
    }
}

/// Methods of RFC 1928.
const NO_CREDENTIALS: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;

async fn socks5(proxy: &Proxy, tcp: &mut TcpStream, remote: &Endpoint) -> io::Result<()> {
    // Both are made before a byte is sent: what cannot be said must not leave half a talk.
    let request = socks5_request(remote)?;
    let login = proxy.credentials.as_ref().map(|(user, password)| socks5_login(user, password.expose()));
    let login = login.transpose()?;
    let greeting: &[u8] =
        if login.is_some() { &[5, 2, NO_CREDENTIALS, USER_AND_PASSWORD] } else { &[5, 1, 0] };
    tcp.write_all(greeting).await?;
    let mut answer = [0; 2];
    tcp.read_exact(&mut answer).await?;
    match (answer, &login) {
        ([5, NO_CREDENTIALS], _) => {}
        ([5, USER_AND_PASSWORD], Some(login)) => {
            tcp.write_all(login).await?;
            tcp.read_exact(&mut answer).await?;
            // The version of RFC 1929 is 1, but proxies are known to answer with 5.
            if answer[1] != 0 {
                return Err(refused("it does not take these credentials"));
            }
        }
        ([5, USER_AND_PASSWORD | 0xff], None) => {
            return Err(refused("it wants credentials: write socks5://USER:PASSWORD@HOST:PORT"));
        }
        ([5, 0xff], Some(_)) => return Err(refused("it takes no user and password")),
        ([5, method], _) => return Err(refused(format!("it chose method {method}, which was not offered"))),
        _ => return Err(refused("its answer is not SOCKS5; is it a SOCKS5 proxy?")),
    }
    tcp.write_all(&request).await?;
    read_reply(tcp).await
}

/// User and password, for RFC 1929.
fn socks5_login(user: &str, password: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).ok().filter(|length| *length > 0);
    match (length(user.as_bytes()), length(password)) {
        (Some(user_length), Some(password_length)) => {
            let parts = [&[1, user_length], user.as_bytes(), &[password_length], password];
            Ok(Zeroizing::new(parts.concat()))
        }
        _ => Err(unfit("SOCKS5 takes a user and a password of 1 to 255 bytes each")),
    }
}

/// CONNECT. A name goes as a name; so does an IPv4 literal, as rathole does it; an IPv6 literal as an address.
fn socks5_request(remote: &Endpoint) -> io::Result<Vec<u8>> {
    let mut request = vec![5, 1, 0];
    match &remote.host {
        Host::Ip(IpAddr::V6(ip)) => {
            request.push(4);
            request.extend_from_slice(&ip.octets());
        }
        host => {
            let host = host.to_string();
            let length =
                u8::try_from(host.len()).map_err(|_| unfit("SOCKS5 takes names of up to 255 bytes"))?;
            request.extend_from_slice(&[3, length]);
            request.extend_from_slice(host.as_bytes());
        }
    }
    request.extend_from_slice(&remote.port.to_be_bytes());
    Ok(request)
}

/// The reply to CONNECT, with the address in it that nobody needs.
async fn read_reply(tcp: &mut TcpStream) -> io::Result<()> {
    let mut head = [0; 4];
    tcp.read_exact(&mut head).await?;
    match head {
        [5, 0, ..] => {}
        [5, code, ..] => return Err(refused(reply_text(code))),
        _ => return Err(refused("its reply is not SOCKS5")),
    }
    let length = match head[3] {
        1 => 4,
        4 => 16,
        3 => usize::from(tcp.read_u8().await?),
        kind => return Err(refused(format!("its reply has an address of unknown type {kind}"))),
    };
    let mut rest = [0; 255 + 2];
    tcp.read_exact(rest.get_mut(..length + 2).unwrap_or_default()).await?;
    Ok(())
}

fn reply_text(code: u8) -> String {
    match code {
        1 => "general failure (1)".to_owned(),
        2 => "its rules forbid it (2)".to_owned(),
        3 => "the network is unreachable (3)".to_owned(),
        4 => "the host is unreachable, or its name unknown (4)".to_owned(),
        5 => "the connection was refused (5)".to_owned(),
        6 => "the time to live expired (6)".to_owned(),
        7 => "it does not do CONNECT (7)".to_owned(),
        8 => "it does not take this type of address (8)".to_owned(),
        code => format!("it replied with code {code}"),
    }
}

fn refused(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, message.into())
}

fn unfit(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use tokio::net::TcpListener;

    fn proxy(kind: ProxyKind, with_credentials: bool) -> Proxy {
        Proxy {
            kind,
            endpoint: Endpoint { host: Host::Name("proxy.test".to_owned()), port: 3128 },
            credentials: with_credentials.then(|| ("user".to_owned(), Secret::new("hunter2"))),
        }
    }

    fn remote() -> Endpoint {
        Endpoint { host: Host::Name("server.test".to_owned()), port: 2333 }
    }

    /// What the client makes of a proxy that answers all it hears with `answers`, byte by byte if `slowly`.
    async fn answered(
        proxy: &Proxy,
        remote: &Endpoint,
        answers: &[&[u8]],
        slowly: bool,
    ) -> io::Result<Vec<u8>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        far.set_nodelay(true).unwrap();
        let playing = async {
            for answer in answers {
                if far.read(&mut [0; 1000]).await.unwrap_or(0) == 0 {
                    return;
                }
                for part in answer.chunks(if slowly { 1 } else { answer.len().max(1) }) {
                    // The client may have left.
                    if far.write_all(part).await.is_err() {
                        return;
                    }
                    if slowly {
                        tokio::task::yield_now().await;
                    }
                }
            }
            let _ = far.shutdown().await;
        };
        let asking = async {
            handshake(proxy, &mut client, remote).await?;
            let mut tunnel = Vec::new();
            client.read_to_end(&mut tunnel).await?;
            Ok(tunnel)
        };
        tokio::join!(asking, playing).0
    }

    async fn refusal(kind: ProxyKind, with_credentials: bool, answers: &[&[u8]]) -> String {
        let proxy = proxy(kind, with_credentials);
        let mut texts = Vec::new();
        for slowly in [false, true] {
            let text = answered(&proxy, &remote(), answers, slowly).await.unwrap_err().to_string();
            assert!(text.contains("proxy.test:3128") && text.contains("server.test:2333"), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
            texts.push(text);
        }
        texts.remove(0)
    }

    #[test]
    fn credentials_cannot_add_lines_to_the_request() {
        let proxy = Proxy::parse("http://me%0d%0aX-Evil:pass%0d%0a%0d%0aGET%20%2f@proxy.test:3128").unwrap();
        let request = connect_request(&proxy, &remote());
        let request = std::str::from_utf8(&request).unwrap();
        assert!(!request.contains("Evil") && !request.contains("GET"), "{request}");
        assert_eq!(request.lines().count(), 5, "{request}");
    }

    #[tokio::test]
    async fn http_takes_the_header_and_nothing_else() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(4000));
        for header in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200 \r\nA: b\r\n\r\n", &long] {
            let answer = [header.as_bytes(), b"\r\n\r\nHTTP/1.1 tunnel"].concat();
            for slowly in [false, true] {
                let proxy = proxy(ProxyKind::Http, false);
                let tunnel = answered(&proxy, &remote(), &[&answer], slowly).await.unwrap();
                assert_eq!(tunnel, b"\r\n\r\nHTTP/1.1 tunnel");
            }
        }
    }

    #[tokio::test]
    async fn http_refusals_are_told_plainly() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(5000));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(17));
        for (answer, with_credentials, expected) in [
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", false, "wants credentials (407)"),
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", true, "does not take these credentials"),
            ("HTTP/1.1 403 Forbidden\r\n\r\n<html>", false, "forbids"),
            ("HTTP/1.1 502 Bad Gateway\r\n\r\n", false, "cannot reach"),
            ("HTTP/1.1 204 No Content\r\n\r\n", false, "status 204"),
            ("HTTP/1.1 100 Continue\r\n\r\n", false, "status 100"),
            ("<html>hello</html>\r\n\r\n", false, "not HTTP"),
            ("SSH-2.0-OpenSSH\r\n", false, "not HTTP"),
            ("HTTP/1.1 200 OK\r\nA: b\r\n", false, "closed the connection"),
            ("", false, "closed the connection"),
            (&long, false, "longer than 4096"),
            (&many, false, "more than 16"),
        ] {
            let text = refusal(ProxyKind::Http, with_credentials, &[answer.as_bytes()]).await;
            assert!(text.contains(expected), "{text}");
        }
    }

    #[tokio::test]
    async fn socks5_takes_the_reply_and_nothing_else() {
        let mut by_name = vec![5, 0, 0, 3, 255];
        by_name.extend([b'x'; 257]);
        let replies = [
            vec![5, 0, 0, 1, 1, 2, 3, 4, 5, 6],
            [vec![5, 0, 0, 4], vec![7; 18]].concat(),
            by_name,
            vec![5, 0, 0, 3, 0, 1, 2],
        ];
        for reply in replies {
            let reply = [&reply[..], b"\x05\x00tunnel"].concat();
            for slowly in [false, true] {
                let tunnel =
                    answered(&proxy(ProxyKind::Socks5, false), &remote(), &[&[5, 0], &reply], slowly)
                        .await
                        .unwrap();
                assert_eq!(tunnel, b"\x05\x00tunnel");
                let answers: [&[u8]; 3] = [&[5, 2], &[1, 0], &reply];
                let tunnel =
                    answered(&proxy(ProxyKind::Socks5, true), &remote(), &answers, slowly).await.unwrap();
                assert_eq!(tunnel, b"\x05\x00tunnel");
            }
        }
    }

    #[tokio::test]
    async fn socks5_refusals_are_told_plainly() {
        let cases: [(&[&[u8]], bool, &str); 13] = [
            (&[&[5, 255]], false, "wants credentials"),
            (&[&[5, 2]], false, "wants credentials"),
            (&[&[5, 255]], true, "takes no user and password"),
            (&[&[5, 1]], false, "method 1"),
            (&[b"HTTP/1.1 400"], false, "not SOCKS5"),
            (&[&[4, 0]], false, "not SOCKS5"),
            (&[&[5, 2], &[1, 1]], true, "does not take these credentials"),
            (&[&[5, 0], &[5, 2, 0, 1]], false, "rules forbid"),
            (&[&[5, 0], &[5, 4, 0, 1]], false, "host is unreachable"),
            (&[&[5, 0], &[5, 5, 0, 1]], false, "refused (5)"),
            (&[&[5, 0], &[5, 99, 0, 1]], false, "code 99"),
            (&[&[5, 0], &[5, 0, 0, 9]], false, "unknown type 9"),
            (&[&[5, 0], &[5, 0, 0, 1, 1]], false, "closed the connection"),
        ];
        for (answers, with_credentials, expected) in cases {
            let text = refusal(ProxyKind::Socks5, with_credentials, answers).await;
            assert!(text.contains(expected), "{text}");
        }
        for code in 1..=8 {
            assert!(reply_text(code).ends_with(&format!("({code})")));
        }
    }

    #[tokio::test]
    async fn socks5_says_nothing_that_it_cannot_finish() {
        let long = "x".repeat(256);
        let mut asking = proxy(ProxyKind::Socks5, false);
        let far = Endpoint { host: Host::Name(long.clone()), port: 1 };
        let fault = answered(&asking, &far, &[], false).await.unwrap_err();
        assert!(fault.to_string().contains("up to 255 bytes"), "{fault}");
        for (user, password) in [(long.as_str(), "p"), ("", "p"), ("u", ""), ("u", &long)] {
            asking.credentials = Some((user.to_owned(), Secret::new(password)));
            let fault = answered(&asking, &remote(), &[], false).await.unwrap_err();
            assert!(fault.to_string().contains("1 to 255 bytes"), "{fault}");
        }
    }
}
