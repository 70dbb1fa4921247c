//! Changes of the file that nobody announces.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use super::common::net;
use super::common::tunnel::{Build, Link, Plan, Role, Service};
use super::hand::{accepts_in_time, control, still_open};
use super::{Outcome, seconds, until};

situations! {
    "S4" => a_file_renamed_from_elsewhere_is_taken_up,
    "S4" => a_swapped_symlink_is_taken_up,
    "S4" => a_file_that_is_half_written_is_not_taken_up,
}

const NOWHERE: ([u8; 4], u16) = ([127, 0, 0, 1], 9);

fn plan() -> Plan {
    Plan::new(Link::tcp(), ["one", "two"].map(|name| Service::tcp(name, NOWHERE.into())).into())
}

/// The configuration with one more service.
fn more(plan: &mut Plan) -> String {
    plan.services.push(Service::tcp("added", NOWHERE.into()));
    plan.server_toml()
}

fn taken_up(plan: &Plan) -> Outcome {
    match accepts_in_time(plan, "added", Duration::from_secs(15)) {
        Some(time) => Ok(format!("taken up after {}", seconds(time))),
        None => Err("not taken up within 15 s".to_owned()),
    }
}

/// As editors and deployment tools do it.
fn a_file_renamed_from_elsewhere_is_taken_up(build: Build) -> Outcome {
    let mut plan = plan();
    let _server = plan.start_server(build);
    let dir = plan.dir.path().to_owned();
    std::fs::create_dir(dir.join("elsewhere")).unwrap();
    let text = more(&mut plan);
    let new = plan.write("elsewhere/new.toml", &text);
    std::fs::rename(new, dir.join("server.toml")).unwrap();
    taken_up(&plan)
}

/// As Kubernetes does it: the file is a symlink into a directory that is itself a symlink, which is replaced.
fn a_swapped_symlink_is_taken_up(build: Build) -> Outcome {
    let mut plan = plan();
    let dir = plan.dir.path().to_owned();
    let version = |plan: &Plan, name: &str, text: &str| {
        std::fs::create_dir(dir.join(name)).unwrap();
        plan.write(&format!("{name}/server.toml"), text);
    };
    version(&plan, "v1", &plan.server_toml());
    symlink("v1", dir.join("..data")).unwrap();
    symlink("..data/server.toml", dir.join("linked.toml")).unwrap();
    let _server = build.start(Role::Server, &dir.join("linked.toml"));
    net::wait_listening(plan.server_addr);
    let text = more(&mut plan);
    version(&plan, "v2", &text);
    symlink("v2", dir.join("..data_tmp")).unwrap();
    std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    taken_up(&plan)
}

/// The same text is written again, in two steps. Then a change, so that it is known that somebody watches.
fn a_file_that_is_half_written_is_not_taken_up(build: Build) -> Outcome {
    let mut plan = plan();
    let _server = plan.start_server(build);
    let path = plan.dir.path().join("server.toml");
    let text = plan.server_toml();
    let control = control(&plan, "two");
    write_slowly(&path, &text);
    let cut = until(Duration::from_secs(5), || !still_open(&control)).is_some();
    let text = more(&mut plan);
    plan.write("server.toml", &text);
    let change = taken_up(&plan)?;
    match cut {
        false => Ok(format!("half a file cuts nobody; a change is {change}")),
        true => Err("half a file is taken up, and a client cut".to_owned()),
    }
}

fn write_slowly(path: &Path, text: &str) {
    // The first half is a whole configuration with one service less.
    let half = text.find("[server.services.\"two\"]").unwrap();
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(&text.as_bytes()[..half]).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    file.write_all(&text.as_bytes()[half..]).unwrap();
}
