//! A whole tunnel, whose two ends are changed while a visitor talks through it.

use super::common::net;
use super::common::service::Local;
use super::common::tunnel::{Link, Plan, Service};
use super::common::visitor;
use super::*;

use std::io::{Read, Write as _};

/// Both ends learn of a second service by the change of their files alone; the first one's relay goes on.
#[test]
fn a_service_is_added_at_both_ends_while_another_is_in_use() {
    let echo = Local::echo();
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("one", echo.addr)]);
    let (client, server) = plan.start(Build::Ours, Build::Ours);
    visitor::wait_served(plan.services[0].visitors);
    let mut talk = visitor::connect(plan.services[0].visitors);
    let mut say = |word: &[u8; 4]| {
        talk.write_all(word).unwrap();
        let mut answer = [0; 4];
        talk.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, word);
    };
    say(b"one1");
    plan.services.push(Service::tcp("two", echo.addr));
    plan.write("server.toml", &plan.server_toml());
    server.wait_for("reloaded: 1 service added (two)");
    say(b"one2");
    plan.write("client.toml", &plan.client_toml());
    client.wait_for("reloaded: 1 service added (two)");
    visitor::wait_served(plan.services[1].visitors);
    say(b"one3");
    // Its end at the client, by a fragment that comes and goes.
    plan.services.truncate(1);
    plan.write("client.toml", &plan.client_toml());
    client.wait_for("reloaded: 1 service removed (two)");
    std::fs::create_dir(plan.dir.path().join("client.toml.d")).unwrap();
    let fragment = format!("[client.services.two]\nlocal_addr = \"{}\"\n", echo.addr);
    plan.write("client.toml.d/two.toml", &fragment);
    client.wait_for_times("reloaded: 1 service added (two)", 2);
    say(b"one4");
    net::wait_listening(plan.services[0].visitors);
}
