//! The HTTP upgrade (RFC 6455, section 4): what is sent, and what is accepted. Pure but for [`read_head`].

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Offered by our client and selected by our server: an empty binary message ends one direction. A peer that does
/// not know it ignores it.
pub const HALF_CLOSE: &str = "rathole-halfclose";

/// Longest head of a response, in bytes: a proxy may have much to say.
pub const MAX_RESPONSE: usize = 8 * 1024;

/// Most header lines.
const MAX_HEADERS: usize = 64;

/// What RFC 6455 appends to the key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The client's request: byte for byte that of rathole 0.5, and the offer of [`HALF_CLOSE`]. `host` is the server's
/// address as configured, `key` 16 random bytes.
pub fn request(host: &str, key: [u8; 16]) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {}\r\nSec-WebSocket-Protocol: {HALF_CLOSE}\r\n\r\n",
        STANDARD.encode(key)
    )
}

/// The server's answer to a request it accepts.
pub fn response(accepted: &Accepted) -> String {
    let protocol = match accepted.half_close {
        true => format!("Sec-WebSocket-Protocol: {HALF_CLOSE}\r\n"),
        false => String::new(),
    };
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n{protocol}\r\n",
        accept_value(&accepted.key)
    )
}

/// A request that the server accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The key as sent.
    pub key: String,
    /// Whether [`HALF_CLOSE`] was offered.
    pub half_close: bool,
}

/// Why a head is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What is wrong.
    pub why: String,
    /// Whether another kind of request would have been right (426) or it is no request at all (400).
    pub needs_upgrade: bool,
}

impl Refused {
    /// What the server answers.
    pub fn answer(&self) -> &'static str {
        if self.needs_upgrade {
            "HTTP/1.1 426 Upgrade Required\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n"
        } else {
            "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        }
    }
}

fn refused<T>(why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { why: why.into(), needs_upgrade: false })
}

/// Judges a complete request head. Any path and host will do.
pub fn check_request(head: &[u8]) -> Result<Accepted, Refused> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return refused("an incomplete HTTP request"),
        Err(error) => return refused(format!("no HTTP request ({error})")),
    }
    if request.method != Some("GET") || request.version != Some(1) {
        return refused("a request that is not GET with HTTP/1.1");
    }
    let headers = &*request.headers;
    if !has_token(headers, "Connection", "upgrade") || !has_token(headers, "Upgrade", "websocket") {
        return Err(Refused {
            why: "a request without upgrade to websocket".to_owned(),
            needs_upgrade: true,
        });
    }
    if !has_token(headers, "Sec-WebSocket-Version", "13") {
        return Err(Refused { why: "a WebSocket version other than 13".to_owned(), needs_upgrade: true });
    }
    let mut keys = values(headers, "Sec-WebSocket-Key");
    match (keys.next(), keys.next()) {
        (Some(key), None) if key.len() == 24 && STANDARD.decode(key).is_ok_and(|key| key.len() == 16) => {
            let half_close = has_token(headers, "Sec-WebSocket-Protocol", HALF_CLOSE);
            Ok(Accepted { key: key.to_owned(), half_close })
        }
        _ => refused("a request without one Sec-WebSocket-Key of 16 bytes"),
    }
}

/// Judges a complete response head to the request with `key`; says whether the server selected [`HALF_CLOSE`].
pub fn check_response(head: &[u8], key: [u8; 16]) -> Result<bool, Refused> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return refused("an incomplete HTTP response"),
        Err(error) => return refused(format!("no HTTP response ({error})")),
    }
    match response.code {
        Some(101) => {}
        Some(code) => {
            let reason: String = response.reason.unwrap_or_default().chars().take(60).collect();
            let hint = match code {
                200..=399 | 511 => "a web server or a captive portal, not rathole",
                502..=504 => "the web server in front does not reach rathole",
                _ => "does the web server in front pass `/` on to rathole?",
            };
            return refused(format!("HTTP status {code} {} ({hint})", reason.escape_debug()));
        }
        None => return refused("a response without status"),
    }
    let headers = &*response.headers;
    if !has_token(headers, "Connection", "upgrade") || !has_token(headers, "Upgrade", "websocket") {
        return refused("a status 101 that does not upgrade to websocket");
    }
    if !values(headers, "Sec-WebSocket-Accept").eq([accept_value(&STANDARD.encode(key)).as_str()]) {
        return refused("a Sec-WebSocket-Accept that does not answer our key (a cache in between?)");
    }
    if values(headers, "Sec-WebSocket-Extensions").next().is_some() {
        return refused("an extension that was not offered");
    }
    let mut protocols = values(headers, "Sec-WebSocket-Protocol");
    match (protocols.next(), protocols.next()) {
        (None, None) => Ok(false),
        (Some(HALF_CLOSE), None) => Ok(true),
        _ => refused("a subprotocol that was not offered"),
    }
}

/// Reads until the empty line, which ends the head. Returns all bytes and the head's length: what is behind it
/// belongs to the frames. Bytes that do not begin like `prefix` are refused without waiting for more.
pub async fn read_head(
    from: &mut (impl AsyncRead + Unpin),
    prefix: &[u8],
    most: usize,
) -> io::Result<Result<(Vec<u8>, usize), Refused>> {
    let mut head = vec![0; 1024];
    let mut len = 0;
    loop {
        if len == head.len() {
            if len >= most {
                return Ok(refused(format!("an HTTP head of more than {most} bytes")));
            }
            head.resize(most, 0);
        }
        let n = from.read(&mut head[len..]).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let searched = len.saturating_sub(3);
        len += n;
        let begun = len.min(prefix.len());
        if head[..begun] != prefix[..begun] {
            return Ok(refused("bytes that are no HTTP"));
        }
        if let Some(at) = head[searched..len].windows(4).position(|window| window == b"\r\n\r\n") {
            head.truncate(len);
            return Ok(Ok((head, searched + at + 4)));
        }
    }
}

fn accept_value(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// All values of a header that are text.
fn values<'h>(headers: &'h [httparse::Header<'_>], name: &str) -> impl Iterator<Item = &'h str> {
    let named = headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| std::str::from_utf8(header.value).unwrap_or_default().trim())
}

fn has_token(headers: &[httparse::Header<'_>], name: &str, token: &str) -> bool {
    values(headers, name)
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455, section 1.3.
    const SAMPLE: &str = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: chat, rathole-halfclose\r\nSec-WebSocket-Version: 13\r\n\r\n";

    #[test]
    fn the_sample_of_the_rfc_is_accepted() {
        let accepted = check_request(SAMPLE.as_bytes()).unwrap();
        assert!(accepted.half_close);
        let response = response(&accepted);
        assert!(response.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{response}");
        assert_eq!(check_response(response.as_bytes(), *b"the sample nonce"), Ok(true));
    }

    #[test]
    fn what_is_no_upgrade_is_refused() {
        let wrong = [
            ("GET", "POST", false),
            ("HTTP/1.1", "HTTP/1.0", false),
            ("Upgrade: websocket", "Upgrade: h2c", true),
            ("keep-alive, Upgrade", "keep-alive", true),
            ("Version: 13", "Version: 8", true),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j", false),
            ("dGhlIHNhbXBsZSBub25jZQ==", "!!!lIHNhbXBsZSBub25jZQ==", false),
            ("Sec-WebSocket-Key", "X-Key", false),
            ("Host:", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nHost:", false),
            ("\r\n\r\n", "\r\n", false),
            ("GET /", "\u{16}\u{3}\u{1}", false),
        ];
        for (from, to, needs_upgrade) in wrong {
            let head = SAMPLE.replacen(from, to, 1);
            let refused = check_request(head.as_bytes()).unwrap_err();
            assert_eq!(refused.needs_upgrade, needs_upgrade, "{to}: {refused:?}");
            assert!(refused.answer().starts_with(if needs_upgrade {
                "HTTP/1.1 426"
            } else {
                "HTTP/1.1 400"
            }));
        }
        let many = SAMPLE.replacen("Host", &format!("{}Host", "X: y\r\n".repeat(80)), 1);
        assert!(check_request(many.as_bytes()).is_err());
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let key = *b"the sample nonce";
        let good = response(&check_request(SAMPLE.as_bytes()).unwrap());
        let wrong = [
            ("101 Switching Protocols", "502 Bad Gateway", "502 Bad Gateway"),
            ("101 Switching Protocols", "200 OK", "200 OK"),
            ("101 Switching Protocols", "301 \u{1b}[31m", "HTTP"),
            ("Upgrade: websocket", "Upgrade: h2c", "does not upgrade"),
            ("s3pP", "S3pP", "Sec-WebSocket-Accept"),
            ("Sec-WebSocket-Accept", "X", "Sec-WebSocket-Accept"),
            (HALF_CLOSE, "chat", "subprotocol"),
            ("Upgrade: websocket", "Upgrade: websocket\r\nSec-WebSocket-Extensions: x", "extension"),
            ("HTTP/1.1", "<html>", "no HTTP"),
        ];
        for (from, to, why) in wrong {
            let refused = check_response(good.replacen(from, to, 1).as_bytes(), key).unwrap_err();
            assert!(refused.why.contains(why), "{to}: {refused:?}");
            assert!(!refused.why.contains('\u{1b}'));
        }
        let unselected = good.replacen("Sec-WebSocket-Protocol: rathole-halfclose\r\n", "", 1);
        assert_eq!(check_response(unselected.as_bytes(), key), Ok(false));
    }

    #[tokio::test]
    async fn a_head_ends_at_its_empty_line_and_is_bounded() {
        let bytes = [SAMPLE.as_bytes(), b"frames"].concat();
        for first in 1..bytes.len() {
            let mut pieces = (&bytes[..first]).chain(&bytes[first..]);
            let (read, len) = read_head(&mut pieces, b"GET ", 4096).await.unwrap().unwrap();
            assert_eq!(&read[..len], SAMPLE.as_bytes());
            assert!(b"frames".starts_with(&read[len..]));
        }
        let endless = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 20_000]].concat();
        let refused = read_head(&mut &endless[..], b"GET ", 4096).await.unwrap().unwrap_err();
        assert!(refused.why.contains("4096"), "{refused:?}");
        // Refused by its first bytes, without an end to wait for.
        assert!(read_head(&mut &b"\x16\x03\x01"[..], b"GET ", 4096).await.unwrap().is_err());
        let error = read_head(&mut &b"GET / HT"[..], b"GET ", 4096).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
