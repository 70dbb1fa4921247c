//! The nginx recipes of docs/recipes.md that end TLS, look into it, or carry the tunnel, run by a real nginx. Only
//! addresses, and the page's own CA in the place of a public one, are put in their place.

#![cfg(all(
    feature = "server",
    feature = "client",
    feature = "tls",
    feature = "noise",
    feature = "websocket",
    feature = "cli"
))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use common::nginx::{Nginx, absent, recipe, stream_absent};
use common::process::{Process, run};
use common::recipe::{Pair, blocks, make_certificate, put, section};
use common::service::Local;
use common::{net, visitor};

const IN_FRONT: &str = "nginx in front: one domain per service";

/// Where the page has its public certificate.
const LIVE: &str = "/etc/letsencrypt/live/example.com";

/// A certificate for all names of the page; the lines of an nginx block that name it name ours.
fn certify(pair: &Pair, block: &str, also: &str) -> String {
    let dir = pair.dir.path();
    make_certificate(dir, &format!("DNS:*.example.com,{also}"));
    let chain =
        ["server.pem", "ca.pem"].map(|name| std::fs::read_to_string(dir.join(name)).unwrap()).concat();
    std::fs::write(dir.join("fullchain.pem"), chain).unwrap();
    std::fs::copy(dir.join("server.key"), dir.join("privkey.pem")).unwrap();
    put(block, LIVE, &dir.display().to_string())
}

/// What curl gets, and the address it came from: `address port`.
fn curl(pair: &Pair, host: &str, addr: SocketAddr) -> (String, String) {
    let resolve = format!("{host}:{}:{}", addr.port(), addr.ip());
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--resolve", &resolve]);
    command
        .args(["--write-out", "\n%{local_ip} %{local_port}", "--cacert"])
        .arg(pair.dir.path().join("ca.pem"));
    let said = run(command.arg(format!("https://{host}:{}/", addr.port())));
    let (body, from) = said.rsplit_once('\n').unwrap();
    (body.to_owned(), from.to_owned())
}

/// The pair of a section between given addresses, running.
fn start(pair: &mut Pair, addresses: &[(&str, SocketAddr)]) -> (Process, Process) {
    let clients = net::address();
    pair.put("0.0.0.0:2333", clients);
    pair.put("example.com:2333", clients);
    for (from, to) in addresses {
        pair.put(from, to);
    }
    let server = pair.start("server", &[]);
    net::wait_listening(clients);
    let client = pair.start("client", &[]);
    (client, server)
}

#[test]
fn tls_ends_in_front() {
    if absent() {
        return;
    }
    let page = |text: &str| Local::page(format!("HTTP/1.0 200 OK\r\n\r\n{text}").into_bytes());
    let (blog, wiki) = (page("the blog"), page("the wiki"));
    let [blog_port, wiki_port, http, https] = std::array::from_fn(|_| net::address());
    let mut pair = Pair::new(IN_FRONT);

    // The page: "each name's server block becomes two".
    let plain = recipe("nginx-in-front.conf");
    let begin = plain.find("server {\n    listen 80;\n    server_name blog.example.com;").unwrap();
    let length = plain[begin..].find("\n}\n").unwrap() + 3;
    let two = &blocks(&section(IN_FRONT), "nginx")[2];
    let mut all = format!("{}{two}{}", &plain[..begin], &plain[begin + length..]);
    all = certify(&pair, &all, "DNS:localhost");
    all = put(&all, "listen 80", &format!("listen {http}"));
    all = put(&all, "listen 443", &format!("listen {https}"));
    all = put(&all, "127.0.0.1:8001", &blog_port.to_string());
    all = put(&all, "127.0.0.1:8002", &wiki_port.to_string());
    let _running = start(
        &mut pair,
        &[
            ("127.0.0.1:8001", blog_port),
            ("127.0.0.1:8002", wiki_port),
            ("127.0.0.1:8080", blog.addr),
            ("127.0.0.1:3000", wiki.addr),
        ],
    );
    let _nginx = Nginx::http(&all, https);
    net::wait("the blog does not come", || curl(&pair, "blog.example.com", https).0 == "the blog");
    let plain = run(Command::new("curl")
        .args(["--silent", "--include", "--header", "Host: blog.example.com"])
        .arg(format!("http://{http}/page")));
    assert!(plain.contains("Location: https://blog.example.com/page"), "{plain}");
}

#[test]
fn tls_is_passed_through_with_the_visitors_address() {
    if stream_absent() {
        return;
    }
    let [blog_port, wiki_port, https, local] = std::array::from_fn(|_| net::address());
    let mut pair = Pair::new(IN_FRONT);
    let front = &blocks(&section("TLS passed through"), "nginx")[0];
    let mut front = put(front, "listen 443", &format!("listen {https}"));
    front = put(&front, "127.0.0.1:8001", &blog_port.to_string());
    front = put(&front, "127.0.0.1:8002", &wiki_port.to_string());
    // The page: "reads it as in nginx behind (listen 127.0.0.1:8443 ssl proxy_protocol)".
    let listen = format!(
        "listen {local} ssl proxy_protocol;\nssl_certificate {LIVE}/fullchain.pem;\nssl_certificate_key {LIVE}/privkey.pem;"
    );
    let mut behind = put(&recipe("nginx-behind.conf"), "listen 127.0.0.1:8080 proxy_protocol;", &listen);
    behind = put(&behind, "root /var/www/html;", "return 200 \"$remote_addr $remote_port\";");
    behind = certify(&pair, &behind, "DNS:localhost");
    let _behind = Nginx::http(&behind, local);
    let _running = start(
        &mut pair,
        &[("127.0.0.1:8001", blog_port), ("127.0.0.1:8002", wiki_port), ("127.0.0.1:8080", local)],
    );
    net::wait_listening(blog_port);
    let _front = Nginx::stream(&front, https);
    for _ in 0..5 {
        let (seen, from) = curl(&pair, "blog.example.com", https);
        assert_eq!(seen, from, "what the local nginx saw, who it was");
    }
}

#[test]
fn the_tunnel_goes_through_a_web_server() {
    if absent() {
        return;
    }
    const HEADING: &str = "The tunnel through a web server";
    let (local, clients, visitors, https) = (Local::echo(), net::address(), net::address(), net::address());
    let mut pair = Pair::new(HEADING);
    let block = &blocks(&section(HEADING), "nginx")[0];
    let mut block = put(block, "listen 443", &format!("listen {https}"));
    block = put(&block, "http://127.0.0.1:2333", &format!("http://{clients}"));
    block = certify(&pair, &block, &format!("IP:{}", https.ip()));
    let _nginx = Nginx::http(&block, https);
    pair.put("127.0.0.1:2333", clients);
    pair.put("tunnel.example.com:443", https);
    pair.put("0.0.0.0:5202", visitors);
    pair.put("127.0.0.1:22", local.addr);
    let _server = pair.start("server", &[]);
    net::wait_listening(clients);
    let root = pair.dir.path().join("ca.pem");
    let _client = pair.start("client", &[("SSL_CERT_FILE", root.as_path())]);
    visitor::wait_served(visitors);
    visitor::echo(visitors, &visitor::random(1, 1_000_000), true);
}

#[test]
fn nginx_writes_down_who_comes_to_sshd() {
    if stream_absent() {
        return;
    }
    const HEADING: &str = "sshd with the visitor's address";
    let (local, visitors, filter) = (Local::echo(), net::address(), net::address());
    let mut pair = Pair::new(HEADING);
    let log = pair.dir.path().join("ssh.log");
    let block = &blocks(&section(HEADING), "nginx")[0];
    let mut block = put(block, "127.0.0.1:2222", &filter.to_string());
    block = put(&block, "127.0.0.1:22;", &format!("{};", local.addr));
    block = put(&block, "/var/log/nginx/ssh.log", &log.display().to_string());
    let _nginx = Nginx::stream(&block, filter);
    let _running = start(&mut pair, &[("0.0.0.0:5202", visitors), ("127.0.0.1:2222", filter)]);
    visitor::wait_served(visitors);
    visitor::echo(visitors, b"no PROXY header reaches sshd", true);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    net::wait("no line for the visitor", || read(&log).contains("127.0.0.1 "));
}
