//! `proxy_protocol`: the local service reads its visitor's real address first, then what the visitor says.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::sync::mpsc;

use super::common::service::Local;
use super::common::tunnel::{Link, Plan, Service};
use super::common::visitor::connect;
use super::common::{PATIENCE, announce, net};
use super::{Links, start};

#[test]
fn version_1_over_every_transport() {
    Links::new().each(|link| {
        check(link, "v1", net::address(), None);
    });
}

#[test]
fn version_2() {
    check(&Link::tcp(), "v2", net::address(), None);
}

#[test]
fn ipv6_and_dual_stack() {
    if !net::has_ipv6() {
        return announce("SKIPPED tunnel::proxy_header::ipv6_and_dual_stack: no ::1 here");
    }
    for version in ["v1", "v2"] {
        check(&Link::tcp(), version, net::address_on(Ipv6Addr::LOCALHOST.into()), None);
        // A visitor over IPv4 of a dual-stack listener is an IPv4 visitor.
        let dual = || net::address_on(Ipv6Addr::UNSPECIFIED.into());
        check(&Link::tcp(), version, dual(), Some(Ipv4Addr::LOCALHOST.into()));
        check(&Link::tcp(), version, dual(), Some(Ipv6Addr::LOCALHOST.into()));
    }
}

fn check(link: &Link, version: &str, bind: SocketAddr, host: Option<IpAddr>) {
    let (heard, hears) = mpsc::channel();
    let local = Local::tcp(move |mut stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let _ = heard.send(bytes);
    });
    let mut service = Service::tcp("web", local.addr);
    service.visitors = bind;
    service.server_lines = format!("proxy_protocol = {version:?}\n");
    let plan = Plan::new(link.clone(), vec![service]);
    let _running = start(&plan);
    let target = SocketAddr::new(host.unwrap_or(bind.ip()), bind.port());
    let mut stream = connect(target);
    let me = stream.local_addr().unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let bytes = hears.recv_timeout(PATIENCE).expect("the service was not reached");
    let mut expected = header(version, me, target);
    expected.extend(b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(bytes, expected, "{}: {:?}", link.name, String::from_utf8_lossy(&bytes));
}

/// The header as the PROXY protocol's specification has it, sections 2.1 and 2.2.
fn header(version: &str, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    if version == "v1" {
        let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
        return format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
            .into_bytes();
    }
    let mut bytes = vec![0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A, 0x21];
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            bytes.extend([0x11, 0, 12]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            bytes.extend([0x21, 0, 36]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
        }
        _ => unreachable!("one connection has one family"),
    }
    bytes.extend(from.port().to_be_bytes());
    bytes.extend(to.port().to_be_bytes());
    bytes
}
