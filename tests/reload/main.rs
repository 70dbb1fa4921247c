//! The configuration is read again: on SIGHUP, and when its files change.

#![cfg(all(feature = "server", feature = "client", feature = "hot-reload"))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod files;
mod links;
mod many;
mod polling;
mod signals;
mod status;
mod tunnels;

use std::fmt::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use common::net;
use common::process::Process;
use common::tunnel::{Build, Role};

/// A server's configuration in a directory of its own.
struct Site {
    dir: TempDir,
    control: SocketAddr,
}

impl Site {
    /// With these services in the main file.
    fn new(services: &[(&str, SocketAddr)]) -> Site {
        let site = Site { dir: tempfile::tempdir().unwrap(), control: net::address() };
        site.write("server.toml", &site.main(services));
        site
    }

    /// The text of a main file.
    fn main(&self, services: &[(&str, SocketAddr)]) -> String {
        let mut text = format!(
            "[server]\nbind_addr = \"{}\"\ndefault_token = \"token-of-the-reload-tests\"\n[server.services]\n",
            self.control
        );
        for (name, address) in services {
            text.push_str(&service(name, *address));
        }
        text
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file in place, as a careless editor does.
    fn write(&self, name: &str, text: &str) {
        write(&self.path(name), text);
    }

    /// Writes a file beside and renames it over, as a careful editor and rsync do.
    fn replace(&self, name: &str, text: &str) {
        let (to, mut beside) = (self.path(name), self.path(name));
        beside.set_file_name(format!(".{}.x7Yq2", to.file_name().unwrap().to_str().unwrap()));
        write(&beside, text);
        std::fs::rename(beside, to).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Build::Ours.command(Role::Server, &self.path("server.toml"));
        command.env_remove("NOTIFY_SOCKET").env_remove("SYSTEMD_EXEC_PID");
        command
    }

    /// Starts the server; it is up, and watches if it is to.
    fn start(&self) -> Server {
        self.start_command(self.command())
    }

    fn start_with(&self, argument: &str) -> Server {
        let mut command = self.command();
        command.arg(argument);
        self.start_command(command)
    }

    fn start_command(&self, command: Command) -> Server {
        let process = Process::start("server", command);
        process.wait_for("server is listening");
        net::wait_listening(self.control);
        Server { process, told: 0 }
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A service's table.
fn service(name: &str, address: SocketAddr) -> String {
    let mut text = String::new();
    write!(text, "[server.services.{name:?}]\nbind_addr = \"{address}\"\n").unwrap();
    text
}

/// A server that runs, and how many lines of reloads were seen.
struct Server {
    process: Process,
    told: usize,
}

impl Server {
    fn hang_up(&self) {
        self.process.signal(Signal::SIGHUP);
    }

    /// Waits for the next reload, of which there must be only one, and returns its line.
    fn reloaded(&mut self) -> String {
        self.told += 1;
        self.process.wait_for_times(RELOAD, self.told);
        self.lines().swap_remove(self.told - 1)
    }

    /// All lines that say what came of a reload.
    fn lines(&self) -> Vec<String> {
        let log = self.process.log();
        log.lines().filter(|line| line.contains(RELOAD)).map(str::to_owned).collect()
    }

    /// Lines of the log with this part.
    fn count(&self, part: &str) -> usize {
        self.process.log().lines().filter(|line| line.contains(part)).count()
    }

    /// Ends it in order. There were no more reloads than were seen.
    fn stop(mut self) -> String {
        self.process.signal(Signal::SIGTERM);
        assert_eq!(self.process.wait().code(), Some(0));
        assert_eq!(self.lines().len(), self.told, "{:#?}", self.lines());
        self.process.log()
    }

    /// Whether it has an inotify instance.
    fn watches(&self) -> bool {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap();
        let targets = fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        targets.into_iter().any(|target| target == Path::new("anon_inode:inotify"))
    }

    /// How many directories it watches.
    fn watched(&self) -> usize {
        let infos = std::fs::read_dir(format!("/proc/{}/fdinfo", self.process.id())).unwrap();
        let texts = infos.filter_map(|info| std::fs::read_to_string(info.unwrap().path()).ok());
        texts.map(|text| text.lines().filter(|line| line.starts_with("inotify wd:")).count()).sum()
    }

    /// Its open descriptors.
    fn fds(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }
}

/// Whatever came of a reload.
const RELOAD: &str = " reload";

/// Of the line for a change of files that changes nothing.
const AS_BEFORE: &str = "the files of the configuration hold what they held";
