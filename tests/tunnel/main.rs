//! A server and a client of ours, end to end: real processes, real sockets, every transport.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../line/mod.rs"]
mod line;

mod asking;
mod datagrams;
mod descriptors;
mod duplicates;
mod fake_client;
mod fake_server;
mod gate;
mod hostile;
mod isolation;
mod limits;
mod listeners;
mod middlebox;
mod names;
mod paused;
mod pool;
mod proxy_header;
mod quiet;
mod restart;
mod roles;
mod silence;
mod stop;
mod strangers;
mod streams;
mod unanswered;

use common::certs::{Certs, KeyKind};
use common::keys::KeyPair;
use common::process::Process;
use common::tunnel::{Build, Link, Plan};

/// Starts both of ours.
fn start(plan: &Plan) -> (Process, Process) {
    plan.start(Build::Ours, Build::Ours)
}

/// A link of each kind; the certificates live as long as this.
struct Links {
    all: Vec<Link>,
    _certs: Vec<Certs>,
}

impl Links {
    /// Of the transports that are compiled in.
    fn new() -> Self {
        let (ec, rsa) = (Certs::new(KeyKind::Ec), Certs::new(KeyKind::Rsa));
        let mut all = vec![Link::tcp()];
        let tls = cfg!(feature = "tls") && common::certs::can_be_made("tunnel");
        if tls {
            all.extend([Link::tls(&ec, &ec.p12_modern), Link::tls_pem(&rsa)]);
        }
        if cfg!(feature = "noise") {
            let program = Build::Ours.program();
            let (server, client) = (KeyPair::from(&program), KeyPair::from(&program));
            let patterns = ["Noise_NK_25519_ChaChaPoly_BLAKE2s", "Noise_XX_25519_AESGCM_SHA256"];
            all.extend(patterns.map(|pattern| Link::noise(pattern, &server, &client, true)));
        }
        if cfg!(feature = "websocket") {
            all.push(Link::websocket());
        }
        if cfg!(feature = "websocket") && tls {
            all.push(Link::websocket_tls(&ec, &ec.p12_modern));
        }
        Links { all, _certs: vec![ec, rsa] }
    }

    /// Runs `test` for each, two at a time, and says which one failed.
    fn each(&self, test: impl Fn(&Link) + Sync) {
        let next = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some(link) =
                        self.all.get(next.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
                    {
                        eprintln!("link: {}", link.name);
                        test(link);
                    }
                });
            }
        });
    }
}
