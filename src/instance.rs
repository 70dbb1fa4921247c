//! One instance: from a configuration to running roles, and their end.
//!
//! What it decides: when the process is up, when it stops, with which exit code. What it never does: decide
//! what a role does. Invariant: roles that cannot start, or end by themselves, end the process with an error;
//! there is no idle process that says nothing.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rathole::config::{self, Loaded, Problem, Severity};
use rathole::counters::Counters;
use rathole::tasks::Scope;

use crate::cli::{Exit, Run, output};
use crate::log;
use crate::process::{Signals, raise_open_files_or_warn, runtime};

/// After a cut, tasks are given this long to end; then the process ends with them.
const AFTER_CUT: Duration = Duration::from_secs(2);

/// Runs the roles of a configuration file until a signal.
pub fn run(run: &Run) -> Exit {
    log::init("info", run.visitor_log);
    let request = config::Request {
        main: &run.config,
        overlays: &run.overlays,
        role: run.role,
        files: &config::SystemFiles,
        static_only: false,
    };
    let mut loaded = match config::load(&request) {
        Ok(loaded) => loaded,
        Err(report) => return refuse(report.problems()),
    };
    for warning in loaded.report.problems() {
        tracing::warn!("{warning}");
    }
    match Plan::prepare(&mut loaded) {
        Ok(plan) => {
            plan.run(&|_| (), &|key, message| loaded.problem(Severity::Error, key, message).to_string())
        }
        Err(problems) => refuse(&problems),
    }
}

fn refuse(problems: &[Problem]) -> Exit {
    for problem in problems {
        output::complain(&format!("{problem}\n"));
    }
    Exit::Config
}

#[cfg(feature = "server")]
type ServerPart = (config::Server, rathole::transport::Acceptor);
#[cfg(not(feature = "server"))]
type ServerPart = std::convert::Infallible;
#[cfg(feature = "client")]
type ClientPart = (config::Client, rathole::transport::Connector);
#[cfg(not(feature = "client"))]
type ClientPart = std::convert::Infallible;

/// What is to run, with everything read and prepared that can be before a socket is opened.
#[derive(Debug, Default)]
pub struct Plan {
    server: Option<ServerPart>,
    client: Option<ClientPart>,
}

/// Where a server really listens.
#[derive(Debug, Default)]
#[cfg_attr(not(feature = "server"), allow(dead_code))]
pub struct Addresses {
    /// For clients.
    pub control: Option<SocketAddr>,
    /// For visitors, by service.
    pub services: BTreeMap<Arc<str>, SocketAddr>,
}

/// A setting that cannot work: its whole key, and why.
pub type Fault = (String, String);

impl Plan {
    /// Takes the roles out of a configuration and prepares their transports.
    pub fn prepare(loaded: &mut Loaded) -> Result<Plan, Vec<Problem>> {
        Plan::new(loaded.config.server.take(), loaded.config.client.take()).map_err(|faults| {
            faults.into_iter().map(|(key, message)| loaded.problem(Severity::Error, &key, message)).collect()
        })
    }

    /// Prepares the transports of roles.
    pub fn new(server: Option<config::Server>, client: Option<config::Client>) -> Result<Plan, Vec<Fault>> {
        let mut plan = Plan::default();
        let mut faults = Vec::new();
        match server.map(server_part).transpose() {
            Ok(part) => plan.server = part,
            Err(fault) => faults.push(fault),
        }
        match client.map(client_part).transpose() {
            Ok(part) => plan.client = part,
            Err(fault) => faults.push(fault),
        }
        if faults.is_empty() { Ok(plan) } else { Err(faults) }
    }

    /// How long relays may go on after a stop signal: the longer of both roles' graces.
    fn grace(&self) -> Duration {
        let mut grace = Duration::ZERO;
        #[cfg(feature = "server")]
        if let Some((server, _)) = &self.server {
            grace = grace.max(server.shutdown_grace);
        }
        #[cfg(feature = "client")]
        if let Some((client, _)) = &self.client {
            grace = grace.max(client.shutdown_grace);
        }
        grace
    }

    /// Runs the roles until a signal. `announce` is called when all listeners are bound; `place` says where a key
    /// that made the start fail was set.
    pub fn run(self, announce: &dyn Fn(&Addresses), place: &dyn Fn(&str, String) -> String) -> Exit {
        raise_open_files_or_warn();
        let (runtime, signals) = match runtime() {
            Ok(started) => started,
            Err(error) => {
                output::complain(&format!("error: cannot start the runtime: {error}\n"));
                return Exit::Runtime;
            }
        };
        let exit = match runtime.block_on(self.serve(signals, announce)) {
            Ok(exit) => exit,
            Err((key, message)) => {
                output::complain(&format!("{}\n", place(&key, message)));
                Exit::Runtime
            }
        };
        // A thread that resolves a name cannot be stopped; it is not waited for.
        runtime.shutdown_background();
        exit
    }

    async fn serve(self, mut signals: Signals, announce: &dyn Fn(&Addresses)) -> Result<Exit, Fault> {
        let scope = Scope::new();
        let grace = self.grace();
        let counters = [Arc::default(), Arc::default()];
        let start = self.start(&scope, &counters);
        let addresses = tokio::select! {
            started = start => started?,
            name = signals.next() => {
                tracing::info!("stopped by {name} before everything was up");
                return Ok(Exit::Ok);
            }
        };
        announce(&addresses);
        let name = tokio::select! {
            name = signals.next() => name,
            () = scope.ended() => {
                output::complain("error: the roles have ended by themselves, which is a fault of rathole\n");
                return Ok(Exit::Runtime);
            }
        };
        tracing::info!("stopping on {name}: no new visitors, relays have {} s", grace.as_secs());
        let cut = stop(&scope, &counters, grace, signals.next()).await;
        match cut {
            Cut { relays: 0, .. } => tracing::info!("stopped: nothing was cut"),
            Cut { relays, hurried: false } => {
                tracing::info!("stopped: {} cut after {} s", were(relays), grace.as_secs());
            }
            Cut { relays, hurried: true } => {
                tracing::info!("stopped: {} cut by a second signal", were(relays))
            }
        }
        Ok(Exit::Ok)
    }

    /// Starts the roles as tasks of `scope`; the server's listeners are bound when it returns.
    async fn start(self, scope: &Scope, counters: &[Arc<Counters>; 2]) -> Result<Addresses, Fault> {
        #[cfg_attr(not(feature = "server"), allow(unused_mut))]
        let mut addresses = Addresses::default();
        let [_at_server, _at_client] = counters;
        #[cfg(feature = "server")]
        if let Some((config, acceptor)) = self.server {
            let names: Vec<_> = config.services.keys().cloned().collect();
            let server = rathole::server::Server::bind(config, acceptor, _at_server.clone())
                .await
                .map_err(|error| (error.key, error.message))?;
            addresses.control = server.control_addr();
            let bound =
                names.into_iter().filter_map(|name| server.service_addr(&name).map(|addr| (name, addr)));
            addresses.services = bound.collect();
            scope.spawn(server.run(scope.clone()));
        }
        #[cfg(feature = "client")]
        if let Some((config, connector)) = self.client {
            let client = rathole::client::Client::new(config, connector, _at_client.clone());
            scope.spawn(client.run(scope.clone()));
        }
        Ok(addresses)
    }
}

#[cfg(feature = "server")]
fn server_part(server: config::Server) -> Result<ServerPart, Fault> {
    match rathole::transport::Acceptor::new(&server.transport) {
        Ok(acceptor) => Ok((server, acceptor)),
        Err(error) => Err((format!("server.transport.{}", error.key), error.message)),
    }
}

#[cfg(not(feature = "server"))]
fn server_part(_: config::Server) -> Result<ServerPart, Fault> {
    let message = "this rathole was built without the feature `server`; `--client` runs the other half";
    Err(("server".to_owned(), message.to_owned()))
}

#[cfg(feature = "client")]
fn client_part(client: config::Client) -> Result<ClientPart, Fault> {
    match rathole::transport::Connector::new(&client) {
        Ok(connector) => Ok((client, connector)),
        Err(error) => Err((format!("client.transport.{}", error.key), error.message)),
    }
}

#[cfg(not(feature = "client"))]
fn client_part(_: config::Client) -> Result<ClientPart, Fault> {
    let message = "this rathole was built without the feature `client`; `--server` runs the other half";
    Err(("client".to_owned(), message.to_owned()))
}

/// How an end went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Relays that were still running.
    pub relays: u64,
    /// Whether the grace was cut short.
    pub hurried: bool,
}

/// Ends a scope in two steps: relays get `grace`, or until `hurry`; then all is cut.
pub async fn stop<T>(
    scope: &Scope,
    counters: &[Arc<Counters>],
    grace: Duration,
    hurry: impl Future<Output = T>,
) -> Cut {
    scope.drain();
    let mut hurry = pin!(hurry);
    let hurried = tokio::select! {
        biased;
        () = scope.ended() => return Cut { relays: 0, hurried: false },
        _ = &mut hurry => true,
        () = tokio::time::sleep(grace) => false,
    };
    let relays = counters.iter().map(|counters| counters.relays.load(Relaxed)).sum();
    scope.cut();
    if hurried {
        // "At once": tasks get one chance to end, no more.
        let _ = tokio::time::timeout(Duration::from_millis(100), scope.ended()).await;
    } else {
        tokio::select! {
            () = scope.ended() => (),
            _ = &mut hurry => (),
            () = tokio::time::sleep(AFTER_CUT) => (),
        }
    }
    Cut { relays, hurried }
}

/// `1 relay was`, `2 relays were`.
pub fn were(relays: u64) -> String {
    if relays == 1 { "1 relay was".to_owned() } else { format!("{relays} relays were") }
}
