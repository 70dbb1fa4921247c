//! Tokens are replaced where one end is rathole 0.5.0, which takes over a change of its file by itself: the whole half
//! anew, but for relays.

use std::io::Write as _;

use super::common::process::Process;
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Service};
use super::common::{PEER_HINT, announce, peer, skip};
use super::traffic::{Long, Steady, meets};
use super::*;

const NEW: &str = "the-token-that-comes-after-it-93Lm";

/// Two processes, an echo service that says its name, visitors in steady succession, and one who stays.
struct Scene {
    plan: Plan,
    client: Process,
    server: Process,
    steady: Steady,
    long: Long,
    _local: Local,
}

impl Scene {
    /// None: there is no 0.5.0 here.
    async fn set(test: &str, server: Build, client: Build) -> Option<Scene> {
        if peer().is_none() {
            skip(test, PEER_HINT);
            return None;
        }
        let local = Local::tcp(|mut stream| {
            stream.set_nodelay(true).unwrap();
            if stream.write_all(b"here").is_ok() {
                super::common::service::echo(stream);
            }
        });
        let plan = Plan::new(Link::tcp(), vec![Service::tcp("rotated", local.addr)]);
        let forks = FORKS.write().await;
        let (client, server) = plan.start(server, client);
        drop(forks);
        let address = plan.services[0].visitors;
        super::traffic::meets_at_last(address, "here").await;
        let long = Long::begin(address, "here").await;
        let steady = Steady::begin(address, &["here"], Duration::from_millis(20));
        Some(Scene { plan, client, server, steady, long, _local: local })
    }

    fn change_server(&mut self) {
        self.plan.server_token = NEW.to_owned();
        self.plan.write("server.toml", &self.plan.server_toml());
    }

    fn change_client(&mut self) {
        self.plan.client_token = NEW.to_owned();
        self.plan.write("client.toml", &self.plan.client_toml());
    }

    fn visitors(&self) -> SocketAddr {
        self.plan.services[0].visitors
    }
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(700)).await;
}

/// Our server, 0.5.0 behind it: nobody is lost, whichever file is changed first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_server_rotates_with_a_client_of_rathole_0_5() {
    for server_first in [true, false] {
        let Some(mut scene) =
            Scene::set("our_server_rotates_with_a_client_of_rathole_0_5", Build::Ours, Build::Peer).await
        else {
            return;
        };
        if server_first {
            scene.change_server();
            scene.server.wait_for("reloaded: 1 service changed (rotated)");
            pause().await;
            assert!(!scene.server.log().contains("client lost"), "the old control channel goes on");
            scene.change_client();
        } else {
            scene.change_client();
            scene.server.wait_for("client lost");
            pause().await;
            scene.change_server();
        }
        let connected = || {
            scene.server.log().matches("client connected").count()
                + scene.server.log().matches("client replaced another").count()
        };
        eventually("the new token", || connected() >= 2).await;
        meets(scene.visitors(), "here").await;
        pause().await;
        let count = scene.steady.end().await;
        let rounds = scene.long.end().await;
        announce(&format!(
            "our server, client 0.5.0, server first {server_first}: {count} visitors, none lost; {rounds} rounds"
        ));
    }
}

/// Our client at a server of 0.5.0, which closes its listeners for a moment when its file changes: who comes just then is
/// lost, and nobody else is, nor any relay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_client_rotates_with_a_server_of_rathole_0_5() {
    for server_first in [true, false] {
        let Some(mut scene) =
            Scene::set("our_client_rotates_with_a_server_of_rathole_0_5", Build::Peer, Build::Ours).await
        else {
            return;
        };
        let mut early = 0;
        if server_first {
            scene.change_server();
            scene.client.wait_for("no control channel, next attempt");
            scene.change_client();
            scene.client.wait_for("reloaded: 1 service changed (rotated)");
        } else {
            scene.change_client();
            scene.client.wait_for("the earlier one stays");
            pause().await;
            let address = scene.visitors();
            let steady = std::mem::replace(
                &mut scene.steady,
                Steady::begin(address, &["here"], Duration::from_millis(20)),
            );
            early = steady.end().await;
            assert_eq!(scene.client.log().matches("the earlier one stays").count(), 1);
            scene.change_server();
        }
        scene.client.wait_for_times("connected to the server", 2);
        super::traffic::meets_at_last(scene.visitors(), "here").await;
        let (count, lost) = scene.steady.count().await;
        let rounds = scene.long.end().await;
        announce(&format!(
            "server 0.5.0, our client, server first {server_first}: {early} visitors before its change, none lost; \
             then {} of {count} lost; {rounds} rounds",
            lost.len()
        ));
    }
}
