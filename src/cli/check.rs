//! `rathole check`: every error and warning of every file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rathole::config::{self, Config, Endpoint, Host, Loaded, Problem, RoleChoice, Severity};
use rathole::tasks::Scope;
use rathole::transport::tcp;

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

/// A name may take this long to resolve; all are asked for at once.
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
    let mut loaded = match config::inspect(&request) {
        Ok(loaded) => loaded,
        Err(report) => return report.problems().to_vec(),
    };
    let mut problems = loaded.report.problems().to_vec();
    if !check.static_only {
        problems.extend(unresolvable(&loaded));
        problems.extend(Plan::prepare(&mut loaded).err().unwrap_or_default());
    }
    problems
}

/// A warning for each name that does not resolve now: when run, it would be retried.
fn unresolvable(loaded: &Loaded) -> Vec<Problem> {
    let names = names(&loaded.config);
    if names.is_empty() {
        return Vec::new();
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let failures = Arc::new(Mutex::new(Vec::new()));
    runtime.block_on(async {
        let scope = Scope::new();
        for (key, endpoint) in names {
            let failures = failures.clone();
            scope.spawn(async move {
                let found = tokio::time::timeout(RESOLVE, tcp::resolve(&endpoint)).await;
                if !found.is_ok_and(|found| found.is_ok()) {
                    failures.lock().unwrap_or_else(PoisonError::into_inner).push((key, endpoint.host));
                }
            });
        }
        scope.ended().await;
    });
    // A thread that asks the system's resolver cannot be stopped; it is not waited for.
    runtime.shutdown_background();
    let failures = std::mem::take(&mut *failures.lock().unwrap_or_else(PoisonError::into_inner));
    let warning = |(key, name): (String, Host)| {
        let message = format!("the name {name} does not resolve here and now; when run, it is tried again");
        loaded.problem(Severity::Warning, &key, message)
    };
    failures.into_iter().map(warning).collect()
}

/// Every name that this configuration makes this machine resolve, with its key.
fn names(config: &Config) -> Vec<(String, Endpoint)> {
    let mut found = Vec::new();
    let mut add = |key: String, endpoint: &Endpoint| {
        if let Host::Name(_) = &endpoint.host {
            found.push((key, endpoint.clone()));
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
