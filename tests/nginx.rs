//! The nginx recipes of docs/, run by a real nginx. Only addresses and directories are put in their place.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use common::nginx::{Nginx, absent, recipe};
use common::recipe::put;
use common::service::Local;
use common::tunnel::{Build, Link, Plan, Service};
use common::{net, peer, visitor};

/// A local web service that tells who it is and what it was sent.
fn web(name: &'static str) -> Local {
    Local::tcp(move |mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let body = format!("{name}\n{head}");
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// A visitor's request on a connection that ends with the answer; the visitor's address, and the answer.
fn get(addr: SocketAddr, host: &str) -> (SocketAddr, String) {
    let mut stream = visitor::connect(addr);
    let me = stream.local_addr().unwrap();
    write!(stream, "GET /page?x=1 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer and its end");
    (me, answer)
}

#[test]
fn in_front_one_domain_per_service() {
    if absent() {
        return;
    }
    let (blog, wiki) = (web("the blog"), web("the wiki"));
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("blog", blog.addr), Service::tcp("wiki", wiki.addr)]);
    let _running = plan.start(Build::Ours, Build::Ours);
    let addr = net::address();
    let mut blocks = put(&recipe("nginx-in-front.conf"), "listen 80", &format!("listen {addr}"));
    blocks = put(&blocks, "http://127.0.0.1:8001", &format!("http://{}", plan.services[0].visitors));
    blocks = put(&blocks, "http://127.0.0.1:8002", &format!("http://{}", plan.services[1].visitors));
    let mut nginx = Nginx::http(&blocks, addr);

    for _ in 0..20 {
        for (host, name) in [("blog.example.com", "the blog"), ("wiki.example.com", "the wiki")] {
            let (_, answer) = get(addr, host);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
            assert!(answer.contains(name), "{host}: {answer}");
            for line in
                [format!("Host: {host}"), "X-Real-IP: 127.0.0.1".to_owned(), "GET /page?x=1 ".to_owned()]
            {
                assert!(answer.contains(&line), "{host}: no {line:?} in what the service got:\n{answer}");
            }
        }
    }
    let (_, answer) = get(addr, "another.example.com");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(nginx.process.is_running());
}

#[test]
fn behind_with_the_visitors_address() {
    if absent() {
        return;
    }
    let clients = if peer().is_some() { vec![Build::Ours, Build::Peer] } else { vec![Build::Ours] };
    for client in clients {
        for version in ["v1", "v2"] {
            behind(version, client);
        }
    }
}

fn behind(version: &str, client: Build) {
    let addr = net::address();
    let mut block = put(&recipe("nginx-behind.conf"), "127.0.0.1:8080", &addr.to_string());
    let tell = "return 200 \"visitor $remote_addr $remote_port, proxy $realip_remote_addr\\n\";";
    block = put(&block, "root /var/www/html;", tell);
    let _nginx = Nginx::http(&block, addr);
    let mut service = Service::tcp("web", addr);
    service.server_lines = format!("proxy_protocol = {version:?}\n");
    let plan = Plan::new(Link::tcp(), vec![service]);
    let _running = plan.start(Build::Ours, client);
    for _ in 0..5 {
        let (me, answer) = get(plan.services[0].visitors, "blog.example.com");
        let expected = format!("visitor {} {}, proxy 127.0.0.1", me.ip(), me.port());
        assert!(answer.contains(&expected), "{version}, client {client:?}: no {expected:?} in {answer}");
    }
}

#[test]
fn the_recipes_are_in_the_documentation() {
    for name in ["nginx-in-front.conf", "nginx-proxy.conf", "nginx-behind.conf"] {
        assert!(
            recipe("recipes.md").contains(recipe(name).trim_end()),
            "docs/recipes.md does not have docs/{name}"
        );
    }
}
