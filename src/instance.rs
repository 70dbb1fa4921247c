//! One instance: from a configuration to running roles, and their end.
//!
//! What it decides: when the process is up, when it stops, with which exit code. What it never does: decide
//! what a role does. Invariant: roles that cannot start, or end by themselves, end the process with an error;
//! there is no idle process that says nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rathole::config::{self, Loaded, Problem, Severity};
use rathole::counters::Counters;
use rathole::tasks::Scope;

use crate::cli::{Exit, Run, output};
#[cfg(feature = "hot-reload")]
use crate::live::{Early, Live};
use crate::log;
#[cfg(feature = "hot-reload")]
use crate::process::is_managed;
use crate::process::{Signals, raise_open_files_or_warn, runtime};
use crate::reader::Reader;
use crate::running::Running;
use crate::stopping::stop_on;
#[cfg(feature = "hot-reload")]
use crate::watch::Seen;

/// Runs the roles of a configuration file until a signal.
pub fn run(run: Run) -> Exit {
    log::init("info", run.visitor_log);
    let reader = Reader { main: run.config, overlays: run.overlays, role: run.role };
    let reading = reader.first();
    let (plan, loaded) = match reading.found {
        Ok(found) => found,
        Err(problems) => return refuse(&problems),
    };
    for warning in loaded.report.problems() {
        tracing::warn!("{warning}");
    }
    #[cfg(not(feature = "hot-reload"))]
    let again = Again;
    #[cfg(feature = "hot-reload")]
    let again = Again { reader, seen: reading.seen, watched: run.watch.unwrap_or_else(|| !is_managed()) };
    let place = |key: &str, message| loaded.problem(Severity::Error, key, message).to_string();
    plan.run(Some(again), &|_| (), &place)
}

fn refuse(problems: &[Problem]) -> Exit {
    for problem in problems {
        output::complain(&format!("{problem}\n"));
    }
    Exit::Config
}

/// How to read the configuration again while it runs.
#[cfg(feature = "hot-reload")]
pub struct Again {
    reader: Reader,
    /// What was read at the start.
    seen: Seen,
    /// Whether the files are to be watched.
    watched: bool,
}

/// This build cannot.
#[cfg(not(feature = "hot-reload"))]
pub struct Again;

#[cfg(feature = "server")]
pub type ServerPart = (config::Server, rathole::transport::Acceptor);
#[cfg(not(feature = "server"))]
pub type ServerPart = std::convert::Infallible;
#[cfg(feature = "client")]
pub type ClientPart = (config::Client, rathole::transport::Connector);
#[cfg(not(feature = "client"))]
pub type ClientPart = std::convert::Infallible;

/// What is to run, with everything read and prepared that can be before a socket is opened.
#[derive(Debug, Default)]
pub struct Plan {
    /// The half with the public address.
    pub server: Option<ServerPart>,
    /// The half behind NAT.
    pub client: Option<ClientPart>,
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
    pub fn grace(&self) -> Duration {
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

    /// Its roles, each with the number of its services.
    #[cfg(feature = "hot-reload")]
    pub fn services(&self) -> Vec<(&'static str, usize)> {
        let mut services = Vec::new();
        #[cfg(feature = "server")]
        services.extend(self.server.iter().map(|(server, _)| ("server", server.services.len())));
        #[cfg(feature = "client")]
        services.extend(self.client.iter().map(|(client, _)| ("client", client.services.len())));
        services
    }

    /// Runs the roles until a signal. `again`: how to reload; without it SIGHUP ends the process as it does any other.
    /// `announce` is called when all listeners are bound; `place` says where a key that made the start fail was set.
    pub fn run(
        self,
        again: Option<Again>,
        announce: &dyn Fn(&Addresses),
        place: &dyn Fn(&str, String) -> String,
    ) -> Exit {
        raise_open_files_or_warn();
        let (runtime, signals) = match runtime(again.is_some()) {
            Ok(started) => started,
            Err(error) => {
                output::complain(&format!(
                    "error: cannot start the runtime: {error} (ulimit -n, or LimitNOFILE= in systemd's unit, may be too \
                     low)\n"
                ));
                return Exit::Runtime;
            }
        };
        let exit = runtime.block_on(self.serve(again, signals, announce, place)).unwrap_or_else(|fault| {
            output::complain(&format!("{fault}\n"));
            Exit::Runtime
        });
        // A thread that resolves a name cannot be stopped; it is not waited for.
        runtime.shutdown_background();
        exit
    }

    #[cfg(feature = "hot-reload")]
    async fn serve(
        mut self,
        again: Option<Again>,
        mut signals: Signals,
        announce: &dyn Fn(&Addresses),
        place: &dyn Fn(&str, String) -> String,
    ) -> Result<Exit, String> {
        let scope = Scope::new();
        let counters = [Arc::default(), Arc::default()];
        let mut live = match again {
            Some(Again { reader, seen, watched }) => Some(Live::new(reader, seen, watched).await),
            None => None,
        };
        // Where the plan comes from, if it is not that of the start.
        let mut newer: Option<Loaded> = None;
        let (mut running, addresses) = loop {
            let early = async {
                match &mut live {
                    Some(live) => live.early(&mut signals).await,
                    None => Early::Stop(signals.stop().await),
                }
            };
            let early = tokio::select! {
                started = self.start(&scope, &counters) => {
                    break started.map_err(|(key, message)| match &newer {
                        Some(loaded) => loaded.problem(Severity::Error, &key, message).to_string(),
                        None => place(&key, message),
                    })?;
                }
                early = early => early,
            };
            match early {
                Early::Stop(name) => return Ok(stopped_early(name)),
                Early::Other(found) => (self, newer) = (found.0, Some(found.1)),
            }
        };
        drop(newer);
        announce(&addresses);
        let name = tokio::select! {
            name = async {
                match live {
                    Some(live) => live.run(&mut signals, &mut running).await,
                    None => signals.stop().await,
                }
            } => name,
            () = scope.ended() => return Ok(ended_alone()),
        };
        Ok(stop_on(name, &scope, &counters, running.grace, signals).await)
    }

    #[cfg(not(feature = "hot-reload"))]
    async fn serve(
        self,
        _: Option<Again>,
        mut signals: Signals,
        announce: &dyn Fn(&Addresses),
        place: &dyn Fn(&str, String) -> String,
    ) -> Result<Exit, String> {
        let scope = Scope::new();
        let counters = [Arc::default(), Arc::default()];
        let (running, addresses) = tokio::select! {
            started = self.start(&scope, &counters) => started.map_err(|(key, message)| place(&key, message))?,
            name = signals.stop() => return Ok(stopped_early(name)),
        };
        announce(&addresses);
        let name = tokio::select! {
            name = signals.stop() => name,
            () = scope.ended() => return Ok(ended_alone()),
        };
        Ok(stop_on(name, &scope, &counters, running.grace, signals).await)
    }

    /// Starts the roles as tasks of `scope`; the server's listeners are bound when it returns.
    async fn start(
        self,
        scope: &Scope,
        counters: &[Arc<Counters>; 2],
    ) -> Result<(Running, Addresses), Fault> {
        #[cfg_attr(not(feature = "hot-reload"), allow(unused_mut))]
        let mut running = Running::new(&self);
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
            #[cfg(feature = "hot-reload")]
            {
                let handle = server.handle();
                (running.unbound, running.server) = (Some(handle.unbound()), Some(handle));
            }
            scope.spawn(server.run(scope.clone()));
        }
        #[cfg(feature = "client")]
        if let Some((config, connector)) = self.client {
            let client = rathole::client::Client::new(config, connector, _at_client.clone());
            #[cfg(feature = "hot-reload")]
            {
                running.client = Some(client.handle());
            }
            scope.spawn(client.run(scope.clone()));
        }
        Ok((running, addresses))
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

fn stopped_early(name: &str) -> Exit {
    tracing::info!("stopped by {name} before everything was up");
    Exit::Ok
}

fn ended_alone() -> Exit {
    output::complain("error: the roles have ended by themselves, which is a fault of rathole\n");
    Exit::Runtime
}
