//! `rathole demo`: the main job, shown on one machine.
//!
//! A server and a client run in this process as two real instances: each from its own TOML text, with sockets of its
//! own on loopback, joined by the Noise transport with fresh keys and a fresh token. A small web page is the local
//! service. What it never does: listen anywhere but on loopback, write a file, keep a secret.

mod board;
mod page;
mod texts;

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rathole::client::Client;
use rathole::config::{self, Loaded, RoleChoice};
use rathole::counters::Counters;
use rathole::server::Server;
use rathole::tasks::Scope;
use rathole::transport::{Acceptor, Connector};

use crate::cli::{Exit, output};
use crate::process::{self, Signals};
use crate::stopping;
use board::Board;
use texts::{Files, Texts};

/// The client connects within this time, or something is broken.
const CONNECT: Duration = Duration::from_secs(10);

/// Relays of pages are short; nobody wants to wait for more at the end.
const GRACE: Duration = Duration::from_secs(1);

/// Shows it, until a signal or for so many seconds.
pub fn run(seconds: Option<u64>) -> Exit {
    // The numbers and the URL are what is to be read here.
    crate::log::init("warn", true);
    process::raise_open_files_or_warn();
    let (runtime, signals) = match process::runtime(false) {
        Ok(started) => started,
        Err(error) => return fail(&format!("cannot start the runtime: {error}")),
    };
    let exit = match runtime.block_on(show(signals, seconds.map(Duration::from_secs))) {
        Ok(()) => Exit::Ok,
        Err(why) => fail(&why),
    };
    runtime.shutdown_background();
    exit
}

fn fail(why: &str) -> Exit {
    output::complain(&format!("error: the demo failed: {why}\n"));
    Exit::Runtime
}

async fn show(mut signals: Signals, limit: Option<Duration>) -> Result<(), String> {
    let begin = Instant::now();
    let scope = Scope::new();
    let started = tokio::select! {
        started = Demo::start(&scope) => started?,
        _ = signals.stop() => return Ok(()),
    };
    let end = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit.saturating_sub(begin.elapsed())).await,
            None => std::future::pending().await,
        }
    };
    let mut board = Board::new(started.at_server.clone());
    // A reader that has gone away (`demo | head`) ends the demo.
    let reader = match board.say(&started.introduction) {
        Ok(()) => watch(&mut board, &scope, signals.stop(), end).await?,
        Err(_) => false,
    };
    let at_client = started.at_client.clone();
    let cut = stopping::stop(&scope, &[at_client], GRACE, signals.stop()).await;
    if reader {
        let _ = board.summary(begin.elapsed(), cut.relays);
    }
    Ok(())
}

/// Keeps the counters shown. Returns whether somebody still reads them.
async fn watch(
    board: &mut Board,
    scope: &Scope,
    signal: impl Future<Output = &'static str>,
    end: impl Future<Output = ()>,
) -> Result<bool, String> {
    let mut tick = tokio::time::interval(board.pace());
    let (mut signal, mut end) = (std::pin::pin!(signal), std::pin::pin!(end));
    loop {
        tokio::select! {
            _ = &mut signal => return Ok(true),
            () = &mut end => return Ok(true),
            () = scope.ended() => return Err("the instances have ended by themselves".to_owned()),
            _ = tick.tick() => if board.show().is_err() { return Ok(false) },
        }
    }
}

/// What is running.
struct Demo {
    introduction: String,
    at_server: Arc<Counters>,
    at_client: Arc<Counters>,
}

impl Demo {
    /// The page, then the server, then the client, whose file needs the server's port.
    async fn start(scope: &Scope) -> Result<Demo, String> {
        let (at_server, at_client) = (Arc::<Counters>::default(), Arc::<Counters>::default());
        let page = page::start(scope).await.map_err(|error| format!("cannot start the page: {error}"))?;
        let texts = Texts::new().map_err(|error| format!("cannot make keys: {error}"))?;

        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let loaded = load("server.toml", texts.server(any, any))?;
        let config = loaded.config.server.ok_or("the server's file has no [server]")?;
        let acceptor = Acceptor::new(&config.transport).map_err(|error| error.to_string())?;
        let server = Server::bind(config, acceptor, at_server.clone())
            .await
            .map_err(|error| format!("{}: {}", error.key, error.message))?;
        let control = server.control_addr().ok_or("the server is not bound")?;
        let visitors = server.service_addr(texts::SERVICE).ok_or("the service is not bound")?;
        scope.spawn(server.run(scope.clone()));

        let loaded = load("client.toml", texts.client(control, page))?;
        let config = loaded.config.client.ok_or("the client's file has no [client]")?;
        let connector = Connector::new(&config).map_err(|error| error.to_string())?;
        scope.spawn(Client::new(config, connector, at_client.clone()).run(scope.clone()));
        connected(&at_server).await?;

        let introduction = texts.introduction(control, visitors, page);
        Ok(Demo { introduction, at_server, at_client })
    }
}

/// Waits until the client has proved itself to the server.
async fn connected(counters: &Counters) -> Result<(), String> {
    let wait = async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while counters.channels.load(Relaxed) == 0 {
            tick.tick().await;
        }
    };
    tokio::time::timeout(CONNECT, wait)
        .await
        .map_err(|_| format!("the client did not connect within {} s", CONNECT.as_secs()))
}

/// Reads a text as if it were a file.
fn load(name: &str, text: String) -> Result<Loaded, String> {
    let files = Files::new(name, text);
    let main = Path::new(name);
    let request =
        config::Request { main, overlays: &[], role: RoleChoice::Auto, files: &files, static_only: false };
    config::load(&request)
        .map_err(|report| report.problems().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}
