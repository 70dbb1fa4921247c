//! Who pauses is not dead: as long as its kernel answers, a relay waits.

use std::io::{Read, Write};
use std::time::Duration;

use super::common::raw::rest;
use super::common::service::{Local, digest_line};
use super::common::tunnel::{Link, Plan, Service};
use super::common::visitor::{self, random};
use super::start;

/// With these keys a peer that does not answer for 10 s is dead.
const SHORT: &str = "keepalive_secs = 1\nkeepalive_interval = 1\n";

/// Longer than that.
const PAUSE: Duration = Duration::from_secs(14);

/// More than all buffers on the way hold.
const MUCH: usize = 64 << 20;

#[test]
fn who_stops_reading_for_a_while_gets_the_rest() {
    let page = random(1, MUCH);
    let local = Local::page(page.clone());
    let slow = Local::tcp(|mut stream| {
        let mut bytes = vec![0; 1000];
        stream.read_exact(&mut bytes).unwrap();
        std::thread::sleep(PAUSE);
        stream.read_to_end(&mut bytes).unwrap();
        stream.write_all(digest_line(&bytes).as_bytes()).unwrap();
    });
    let mut link = Link::tcp();
    link.server.push_str(&format!("[server.transport.tcp]\n{SHORT}"));
    link.client.push_str(&format!("[client.transport.tcp]\n{SHORT}"));
    let plan = Plan::new(link, vec![Service::tcp("page", local.addr), Service::tcp("slow", slow.addr)]);
    let _running = start(&plan);
    let [down, up] = [0, 1].map(|i| plan.services[i].visitors);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut visitor = visitor::connect(down);
            visitor.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            let mut first = [0; 1000];
            visitor.read_exact(&mut first).unwrap();
            std::thread::sleep(PAUSE);
            assert!(page == [&first[..], &rest(&visitor)].concat(), "the visitor paused");
        });
        // The other way round: the local service pauses.
        scope.spawn(|| visitor::half_close(up, &page));
    });
}
