//! The command line: argv to a [`Command`], and what each command does.
//!
//! Two front ends make the same commands: `full` (clap; feature `cli`) and `lean` (a loop of our own). The rules that both
//! share, and all their messages, are here. No secret is ever an argument's value.

mod check;
#[cfg(feature = "cli")]
mod full;
mod genkey;
#[cfg(not(feature = "cli"))]
mod lean;
pub mod output;
#[cfg(feature = "cli")]
mod pages;
mod role;
mod text;
mod version;

use std::ffi::OsString;
use std::path::PathBuf;

use rathole::config::RoleChoice;

use crate::{adhoc, instance};
pub use check::Check;

/// What a command line asks for.
#[derive(Debug)]
#[cfg_attr(not(feature = "cli"), allow(dead_code))]
pub enum Command {
    /// Run the roles of a configuration.
    Run(Run),
    /// A server without a file.
    AdHocServer(adhoc::ServerPlan),
    /// A client without a file.
    AdHocClient(adhoc::ClientPlan),
    /// Check configurations.
    Check(Check),
    /// Make a Noise key pair.
    GenKey,
    /// Show it work.
    Demo {
        /// End by itself after so many seconds.
        seconds: Option<u64>,
    },
    /// A shell's completion script on stdout.
    #[cfg(feature = "cli")]
    Completions(clap_complete::Shell),
    /// Manual pages into a directory.
    Man(PathBuf),
}

/// Which configuration to run, and how.
#[derive(Debug)]
pub struct Run {
    /// Its file.
    pub config: PathBuf,
    /// TOML files merged over it, in this order.
    pub overlays: Vec<PathBuf>,
    /// Which half.
    pub role: RoleChoice,
    /// Whether each ended visitor is a log line.
    pub visitor_log: bool,
    /// Whether changes of the files are taken over by themselves. None: unless a service manager has started this.
    #[cfg_attr(not(feature = "hot-reload"), allow(dead_code))]
    pub watch: Option<bool>,
}

/// `--watch` and `--no-watch`.
#[derive(Debug, Default, Clone, Copy)]
pub struct WatchArgs {
    pub watch: bool,
    pub no_watch: bool,
}

impl WatchArgs {
    fn choice(self) -> Result<Option<bool>, Stop> {
        match (self.watch, self.no_watch) {
            (true, true) => Err(Stop::usage("'--watch' cannot be used with '--no-watch'")),
            (true, false) if cfg!(not(feature = "hot-reload")) => {
                Err(Stop::usage("'--watch' is not in this build; build it with `--features hot-reload`"))
            }
            (false, false) => Ok(None),
            (watch, _) => Ok(Some(watch)),
        }
    }

    fn first_given(self) -> Option<&'static str> {
        match (self.watch, self.no_watch) {
            (true, _) => Some("--watch"),
            (false, true) => Some("--no-watch"),
            (false, false) => None,
        }
    }
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// Something failed while running: an address that cannot be bound, a file that cannot be written.
    Runtime,
    /// The command line makes no sense.
    Usage,
    /// The configuration cannot be run (`EX_CONFIG` of sysexits.h).
    Config,
}

impl Exit {
    /// As the system is told.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Runtime => 1,
            Exit::Usage => 2,
            Exit::Config => 78,
        }
    }
}

/// A command line that ends here: help, version, or a mistake.
#[derive(Debug)]
pub struct Stop {
    text: String,
    exit: Exit,
}

impl Stop {
    /// A result, for stdout.
    pub fn result(text: impl Into<String>) -> Stop {
        Stop { text: text.into(), exit: Exit::Ok }
    }

    /// A usage error: one line that says what is wrong and what would be right.
    pub fn usage(message: impl AsRef<str>) -> Stop {
        let text = format!("error: {}\n\nFor more information, try '--help'.\n", message.as_ref());
        Stop { text, exit: Exit::Usage }
    }

    /// A finished text for stderr.
    pub fn failed(text: impl Into<String>, exit: Exit) -> Stop {
        Stop { text: text.into(), exit }
    }

    /// Says it; returns the exit code to end with.
    pub fn print(self) -> Exit {
        match self.exit {
            Exit::Ok => output::print_or(self.exit, &self.text),
            exit => {
                output::complain(&self.text);
                exit
            }
        }
    }
}

/// Reads the process's arguments, its own name first.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Stop> {
    #[cfg(feature = "cli")]
    return full::parse(args.into_iter().collect::<Vec<_>>());
    #[cfg(not(feature = "cli"))]
    lean::parse(args)
}

/// Does what was asked for.
pub fn run(command: Command) -> Exit {
    match command {
        Command::Run(run) => instance::run(run),
        Command::AdHocServer(plan) => adhoc::run_server(plan),
        Command::AdHocClient(plan) => adhoc::run_client(plan),
        Command::Check(check) => check::run(&check),
        Command::GenKey => genkey::run(),
        Command::Demo { seconds } => demo(seconds),
        #[cfg(feature = "cli")]
        Command::Completions(shell) => pages::completions(shell),
        #[cfg(feature = "cli")]
        Command::Man(directory) => pages::man(&directory),
        #[cfg(not(feature = "cli"))]
        Command::Man(_) => needs("man", "cli"),
    }
}

fn demo(seconds: Option<u64>) -> Exit {
    #[cfg(all(feature = "cli", feature = "server", feature = "client", feature = "noise"))]
    return crate::demo::run(seconds);
    #[cfg(not(all(feature = "cli", feature = "server", feature = "client", feature = "noise")))]
    {
        let _ = seconds;
        needs("demo", "cli,server,client,noise")
    }
}

/// A command that this build does not have.
#[allow(dead_code)]
pub fn needs(command: &str, features: &str) -> Exit {
    output::complain(&format!(
        "error: `{command}` is not in this build; build it with `--features {features}`\n"
    ));
    Exit::Usage
}

/// The rule of `-s`, `-c`, `--genkey` and CONFIG at the top level, the same in both front ends.
fn top_level(
    config: Option<PathBuf>,
    overlays: Vec<PathBuf>,
    server: bool,
    client: bool,
    visitor_log: bool,
    watch: WatchArgs,
) -> Result<Command, Stop> {
    let role = match (server, client) {
        (true, true) => return Err(Stop::usage("'--server' cannot be used with '--client'")),
        (true, false) => RoleChoice::Server,
        (false, true) => RoleChoice::Client,
        (false, false) => RoleChoice::Auto,
    };
    let config = config.ok_or_else(|| {
        Stop::usage("a configuration file is missing: rathole [--server | --client] CONFIG")
    })?;
    Ok(Command::Run(Run { config, overlays, role, visitor_log, watch: watch.choice()? }))
}

/// A curve of `--genkey`: upstream knows two names, and has never had the second.
fn curve(name: &str) -> Result<Command, Stop> {
    match name {
        "x25519" => Ok(Command::GenKey),
        "x448" => Err(Stop::failed("error: the curve x448 is not supported; use x25519\n", Exit::Runtime)),
        other => Err(Stop::usage(format!("'{other}' is no curve; the only curve is x25519"))),
    }
}
