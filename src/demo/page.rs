//! The demo's local service: a web page. It knows as much HTTP as a page needs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rathole::tasks::Scope;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Requests at a time; more wait in the listener's backlog.
const AT_ONCE: usize = 256;

/// A request's head (bytes).
const LONGEST: usize = 16 << 10;

/// From accept to the last byte.
const DEADLINE: Duration = Duration::from_secs(10);

/// Serves it on a free port of loopback until the scope drains.
pub async fn start(scope: &Scope) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let inner = scope.clone();
    scope.spawn_until_drain(async move { accept(listener, inner).await });
    Ok(address)
}

async fn accept(listener: TcpListener, scope: Scope) {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let requests = Arc::new(AtomicU64::new(0));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(_) => {
                // Out of descriptors: wait until some are free.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (requests, cut) = (requests.clone(), scope.clone());
        scope.spawn(async move {
            tokio::select! {
                _ = tokio::time::timeout(DEADLINE, serve(tcp, &requests)) => (),
                () = cut.cutting() => (),
            }
            drop(permit);
        });
    }
}

/// One request; the connection then ends.
async fn serve(mut tcp: TcpStream, requests: &AtomicU64) -> io::Result<()> {
    let head = head(&mut tcp).await?;
    let answer = answer(&head, || requests.fetch_add(1, Relaxed) + 1);
    tcp.write_all(answer.as_bytes()).await?;
    tcp.shutdown().await?;
    // The reader's end, so that no byte of the answer is lost in a reset.
    let mut rest = [0; 1024];
    for _ in 0..64 {
        if tcp.read(&mut rest).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// Everything up to the empty line. It may be incomplete if the peer ends or says too much.
async fn head(tcp: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut some = [0; 2048];
    while head.len() < LONGEST && !is_whole(&head) {
        match tcp.read(&mut some).await? {
            0 => break,
            n => head.extend_from_slice(some.get(..n).unwrap_or_default()),
        }
    }
    Ok(head)
}

fn is_whole(head: &[u8]) -> bool {
    head.windows(4).any(|four| four == b"\r\n\r\n") || head.windows(2).any(|two| two == b"\n\n")
}

fn answer(head: &[u8], count: impl FnOnce() -> u64) -> String {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let (method, path, version) = (words.next(), words.next(), words.next());
    if !is_whole(head) || !version.is_some_and(|version| version.starts_with("HTTP/1.")) {
        return response("400 Bad Request", "text/plain", "", "This is no HTTP request.\n", false);
    }
    let only_head = method == Some("HEAD");
    if method != Some("GET") && !only_head {
        return response(
            "405 Method Not Allowed",
            "text/plain",
            "Allow: GET, HEAD\r\n",
            "Only GET and HEAD.\n",
            false,
        );
    }
    let path = path.unwrap_or_default();
    match path.split('?').next().unwrap_or_default() {
        "/" | "/index.html" => response(
            "200 OK",
            "text/html; charset=utf-8",
            "",
            &PAGE.replace("{count}", &count().to_string()),
            only_head,
        ),
        _ => response("404 Not Found", "text/plain", "", "There is only one page: /\n", only_head),
    }
}

fn response(status: &str, kind: &str, more: &str, body: &str, only_head: bool) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n{more}Connection: close\r\n\r\n{}",
        body.len(),
        if only_head { "" } else { body }
    )
}

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<title>rathole demo</title>
<style>
body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 36rem; margin: 12vh auto; padding: 0 1rem; color: #222 }
code { background: #eee; padding: .1em .3em; border-radius: .2em }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } code { background: #333 } }
</style>
</head>
<body>
<h1>It works.</h1>
<p>This page has come through the tunnel: your browser asked the rathole <em>server</em>, which handed the
request to the rathole <em>client</em> over an encrypted connection, and the client fetched it from this small
web server.</p>
<p>Request number {count}. Reload, and watch the counters in the terminal.</p>
<p>The terminal also shows the two files <code>server.toml</code> and <code>client.toml</code>; edit the marked
lines to do the same between two machines.</p>
</body>
</html>
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_answered() {
        let text = answer(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", || 7);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert!(body.contains("Request number 7."));
    }

    #[test]
    fn a_head_has_no_body_but_its_length() {
        let text = answer(b"HEAD / HTTP/1.0\n\n", || 1);
        assert!(text.ends_with("\r\n\r\n") && !text.contains("Content-Length: 0"));
    }

    #[test]
    fn garbage_is_answered_too() {
        for (request, status) in [
            (&b""[..], "400"),
            (b"\r\n\r\n", "400"),
            (b"GET /\r\n\r\n", "400"),
            (b"\xff\xfe\x00\r\n\r\n", "400"),
            (b"GET / HTTP/1.1\r\nHost:", "400"),
            (b"POST / HTTP/1.1\r\n\r\n", "405"),
            (b"GET /../etc HTTP/1.1\r\n\r\n", "404"),
        ] {
            assert_eq!(answer(request, || 1).split(' ').nth(1), Some(status), "{request:?}");
        }
    }
}
