//! `rathole check`: every error and warning of every file.

use std::collections::BTreeSet;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rathole::config::{self, Config, Endpoint, Host, Loaded, Problem, RoleChoice, Severity};

use super::{Exit, output};
use crate::instance::Plan;

/// What to check, and how.
#[derive(Debug)]
pub struct Check {
    pub files: Vec<PathBuf>,
    pub overlays: Vec<PathBuf>,
    pub json: bool,
    pub static_only: bool,
}

/// All names together may take this long to resolve.
const RESOLVE: Duration = Duration::from_secs(5);

/// Prints the findings; a configuration error if there is an error among them.
pub fn run(check: &Check) -> Exit {
    if check.json && cfg!(not(feature = "cli")) {
        return super::needs("check --json", "cli");
    }
    let findings: Vec<(&Path, Vec<Problem>)> =
        check.files.iter().map(|file| (file.as_path(), problems(check, file))).collect();
    let ok = findings.iter().all(|(_, problems)| is_ok(problems));
    let text = if check.json { json(&findings, ok) } else { lines(&findings) };
    output::print_or(if ok { Exit::Ok } else { Exit::Config }, &text)
}

fn is_ok(problems: &[Problem]) -> bool {
    problems.iter().all(|problem| problem.severity != Severity::Error)
}

fn problems(check: &Check, file: &Path) -> Vec<Problem> {
    let system = config::SystemFiles;
    let given = config::NoFiles::but(file, &check.overlays);
    let request = config::Request {
        main: file,
        overlays: &check.overlays,
        role: RoleChoice::Auto,
        files: if check.static_only { &given } else { &system },
        static_only: check.static_only,
    };
    let loaded = match config::load(&request) {
        Ok(loaded) => loaded,
        Err(report) => return report.problems().to_vec(),
    };
    let mut problems = loaded.report.problems().to_vec();
    if !check.static_only {
        problems.extend(Plan::prepare(&loaded).err().unwrap_or_default());
        problems.extend(unresolvable(&loaded));
    }
    problems
}

/// A warning for each name that does not resolve now: when run, it would be retried.
fn unresolvable(loaded: &Loaded) -> Vec<Problem> {
    let named = names(&loaded.config);
    let distinct: BTreeSet<&str> = named.iter().map(|(_, name)| name.as_str()).collect();
    let (answer, answers) = mpsc::channel();
    for name in &distinct {
        let (name, answer) = ((*name).to_owned(), answer.clone());
        // The resolver cannot be stopped; a thread that is late ends with the process.
        let thread = std::thread::Builder::new().name("resolve".to_owned());
        let _ = thread.spawn(move || {
            let found = (name.as_str(), 0).to_socket_addrs().map(|_| ()).map_err(|error| error.to_string());
            let _ = answer.send((name, found));
        });
    }
    drop(answer);
    let deadline = Instant::now() + RESOLVE;
    let mut resolved = BTreeSet::new();
    while let Ok((name, found)) = answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if found.is_ok() {
            resolved.insert(name);
        }
    }
    named
        .into_iter()
        .filter(|(_, name)| !resolved.contains(name))
        .map(|(key, name)| {
            let message =
                format!("the name {name} does not resolve here and now; when run, it is tried again");
            loaded.problem(Severity::Warning, &key, message)
        })
        .collect()
}

/// Every name that this configuration makes this machine resolve, with its key.
fn names(config: &Config) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut add = |key: String, endpoint: &Endpoint| {
        if let Host::Name(name) = &endpoint.host {
            found.push((key, name.clone()));
        }
    };
    if let Some(server) = &config.server {
        add("server.bind_addr".to_owned(), &server.bind_addr);
        for (name, service) in &server.services {
            add(format!("server.services.{name}.bind_addr"), &service.bind_addr);
        }
    }
    if let Some(client) = &config.client {
        match &client.proxy {
            // The proxy resolves the server's name.
            Some(proxy) => add("client.transport.tcp.proxy".to_owned(), &proxy.endpoint),
            None => add("client.remote_addr".to_owned(), &client.remote_addr),
        }
        for (name, service) in &client.services {
            add(format!("client.services.{name}.local_addr"), &service.local_addr);
        }
    }
    found
}

fn lines(findings: &[(&Path, Vec<Problem>)]) -> String {
    let mut text = String::new();
    for (file, problems) in findings {
        for problem in problems {
            text += &format!("{problem}\n");
        }
        if is_ok(problems) {
            text += &format!("{}: ok\n", file.display());
        }
    }
    text
}

#[cfg(feature = "cli")]
fn json(findings: &[(&Path, Vec<Problem>)], ok: bool) -> String {
    let files: Vec<_> = findings
        .iter()
        .map(|(file, problems)| {
            let listed: Vec<_> = problems.iter().map(Problem::to_json).collect();
            serde_json::json!({ "file": file.to_string_lossy(), "ok": is_ok(problems), "problems": listed })
        })
        .collect();
    format!("{:#}\n", serde_json::json!({ "ok": ok, "files": files }))
}

#[cfg(not(feature = "cli"))]
fn json(_: &[(&Path, Vec<Problem>)], _: bool) -> String {
    String::new()
}
