//! One command, either role, both roles, secrets apart.

use std::process::Command;

use nix::sys::signal::Signal;

use super::common::process::Process;
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Service, TOKEN};
use super::common::visitor;

fn rathole(arguments: &[&str]) -> Process {
    let mut command = Command::new(Build::Ours.program());
    command.args(arguments);
    Process::start(format!("rathole {}", arguments.join(" ")), command)
}

fn echo_plan(local: &Local) -> Plan {
    Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)])
}

#[test]
fn a_file_with_both_tables_runs_both_roles() {
    let local = Local::echo();
    let plan = echo_plan(&local);
    let config = plan.write("both.toml", &(plan.server_toml() + &plan.client_toml()));
    let process = rathole(&[config.to_str().unwrap()]);
    visitor::wait_served(plan.services[0].visitors);
    assert_eq!(process.stdout(), "");
    process.signal(Signal::SIGTERM);
    process.wait_for("stopped: ");
    let log = process.stderr();
    assert!(!log.contains("no control channel, next attempt"), "its own stop is no trouble: {log}");
}

#[test]
fn the_role_is_the_table_or_the_word_or_the_flag() {
    let local = Local::echo();
    for (server_word, client_word) in [
        (None, None),
        (Some("server"), Some("client")),
        (Some("-s"), Some("-c")),
        (Some("--server"), Some("--client")),
    ] {
        let plan = echo_plan(&local);
        let server = plan.write("s.toml", &plan.server_toml());
        let client = plan.write("c.toml", &plan.client_toml());
        let run = |word: Option<&str>, config: &std::path::Path| {
            let arguments: Vec<_> = word.into_iter().chain(config.to_str()).collect();
            rathole(&arguments)
        };
        let _server = run(server_word, &server);
        let _client = run(client_word, &client);
        visitor::wait_served(plan.services[0].visitors);
    }
}

#[test]
fn one_half_of_a_file_with_both() {
    let local = Local::echo();
    let plan = echo_plan(&local);
    let config = plan.write("both.toml", &(plan.server_toml() + &plan.client_toml()));
    let config = config.to_str().unwrap();
    let _server = rathole(&["server", config]);
    let mut client = rathole(&["client", config]);
    visitor::wait_served(plan.services[0].visitors);
    assert!(client.is_running(), "the client took the server's port?");
}

#[test]
fn an_overlay_brings_the_secrets() {
    let local = Local::echo();
    let plan = echo_plan(&local);
    let line = format!("default_token = {TOKEN:?}\n");
    let without = |toml: String| {
        assert!(toml.contains(&line));
        toml.replace(&line, "")
    };
    // One value is replaced, the other was not there.
    let server = plan.write("s.toml", &plan.server_toml().replace(TOKEN, "to be replaced"));
    let client = plan.write("c.toml", &without(plan.client_toml()));
    let server_secrets = plan.write("s-secrets.toml", &format!("[server]\n{line}"));
    let client_secrets = plan.write("c-secrets.toml", &format!("[client]\n{line}"));
    let run = |role: &str, config: &std::path::Path, overlay: &std::path::Path| {
        rathole(&[role, config.to_str().unwrap(), "--overlay", overlay.to_str().unwrap()])
    };
    let _server = run("server", &server, &server_secrets);
    let _client = run("client", &client, &client_secrets);
    visitor::wait_served(plan.services[0].visitors);
}
