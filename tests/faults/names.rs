//! The server has a name, and the name has its own fate.

use std::net::Ipv4Addr;

use super::common::tunnel::Role;
use super::fault::Fault;
use super::line::tunnel::Tunnel;
use super::line::{Line, SERVER, SERVER_MOVED};
use super::s;

/// The server's name. Nobody is asked for it but a file that the client alone sees.
const NAME: &str = "server.test";

/// The client knows the server by name, and asks its own /etc/hosts for it; if it is not there, a name server.
fn prepare(tunnel: &mut Tunnel, name_server: Ipv4Addr) {
    let resolver = format!("nameserver {name_server}\n");
    for (hidden, text) in [("/etc/hosts", ""), ("/etc/resolv.conf", &resolver)] {
        let file = tunnel.plan.write(&hidden.replace('/', "_"), text);
        tunnel.files.push((hidden.to_owned(), file));
    }
    tunnel.remote = Some(format!("{NAME}:{}", tunnel.plan.server_addr.port()));
}

/// Gives the name this address.
fn set(tunnel: &Tunnel, address: Ipv4Addr) {
    let line = format!("127.0.0.1 localhost\n{address} {NAME}\n");
    // In place: the file is mounted over the other one.
    std::fs::write(&tunnel.files[0].1, line).unwrap();
}

/// It does not exist when the client starts, which it is told at once: where the name server should be, nobody is.
pub fn appears() -> Fault {
    late("server's name appears late", Ipv4Addr::LOCALHOST)
}

/// It does not exist when the client starts, and the name server says nothing at all.
pub fn appears_while_the_name_server_is_silent() -> Fault {
    // On the other side of the line, where nobody has this address.
    late("server's name appears late, name server silent", SERVER_MOVED)
}

fn late(name: &str, name_server: Ipv4Addr) -> Fault {
    // How long it is missing.
    let strike = |tunnel: &mut Tunnel| {
        std::thread::sleep(s(4));
        set(tunnel, SERVER);
    };
    let prepare = move |tunnel: &mut Tunnel| prepare(tunnel, name_server);
    Fault { prepare: Box::new(prepare), begins_down: true, ..Fault::new(name, strike) }
}

/// The server's machine is gone without a word; another one, with another address, takes its name.
pub fn moves() -> Fault {
    let prepare = |tunnel: &mut Tunnel| {
        prepare(tunnel, Ipv4Addr::LOCALHOST);
        set(tunnel, SERVER);
    };
    let strike = |tunnel: &mut Tunnel| {
        tunnel.line.cut(true);
        tunnel.process(Role::Server).kill();
        Line::move_site(&tunnel.line.server, SERVER, SERVER_MOVED);
        tunnel.plan.server_addr.set_ip(SERVER_MOVED.into());
        tunnel.start(Role::Server);
        set(tunnel, SERVER_MOVED);
        tunnel.line.cut(false);
    };
    Fault {
        prepare: Box::new(prepare),
        ..Fault::new("server moves to another address, its name follows", strike)
    }
}
