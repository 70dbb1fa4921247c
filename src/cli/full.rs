//! The command line with clap: help, suggestions, completions, manual pages.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};

use rathole::config::RoleChoice;

use super::role::RoleArgs;
use super::text;
use super::{Check, Command, Exit, Stop, WatchArgs, version};
use crate::adhoc::PlanArgs;

/// Reads the arguments, the program's name first.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Stop> {
    let top = Top::try_parse_from(args).map_err(stop)?;
    let Some(verb) = top.verb else {
        return match top.genkey {
            Some(curve) => super::curve(&curve),
            None => {
                let visitor_log = !top.no_visitor_log;
                super::top_level(
                    top.config,
                    top.overlay,
                    top.server,
                    top.client,
                    visitor_log,
                    top.watch.into(),
                )
            }
        };
    };
    match verb {
        Verb::Server(server) => server.into_args().command(RoleChoice::Server),
        Verb::Client(client) => client.into_args().command(RoleChoice::Client),
        Verb::Check(check) => Ok(Command::Check(Check {
            files: check.config,
            overlays: check.overlay,
            json: check.json,
            static_only: check.static_only,
        })),
        Verb::Genkey { curve } => super::curve(&curve),
        Verb::Demo { seconds } => Ok(Command::Demo { seconds }),
        Verb::Completions { shell } => Ok(Command::Completions(shell)),
        Verb::Man { dir } => Ok(Command::Man(dir)),
    }
}

/// The whole command line, for completions and manual pages.
pub fn command() -> clap::Command {
    Top::command()
}

fn stop(error: clap::Error) -> Stop {
    use std::io::IsTerminal;

    // After CONFIG, clap takes whatever follows for a command.
    if let (ErrorKind::ArgumentConflict, Some(ContextValue::String(surplus))) =
        (error.kind(), error.get(ContextKind::InvalidSubcommand))
    {
        return Stop::usage(format!(
            "'{surplus}' is too much here: a command (server, client, check ...) comes first, and there is only one CONFIG"
        ));
    }
    let result = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let terminal = if result { std::io::stdout().is_terminal() } else { std::io::stderr().is_terminal() };
    let text = error.render();
    let text = if terminal { text.ansi().to_string() } else { text.to_string() };
    if result { Stop::result(text) } else { Stop::failed(text, Exit::Usage) }
}

fn after(examples: &str) -> String {
    format!("{examples}\n\n{}\n\n{}\n\n{}", text::SIGNALS, text::ENVIRONMENT, text::EXIT_CODES)
}

static LONG_VERSION: LazyLock<String> = LazyLock::new(version::long);

#[derive(Debug, Parser)]
#[command(
    name = "rathole",
    about = text::ABOUT,
    version = version::VERSION,
    long_version = LONG_VERSION.as_str(),
    after_help = after(text::EXAMPLES),
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    override_usage = "rathole [--server | --client] [--overlay FILE]... CONFIG\n       \
                      rathole --genkey [x25519]\n       \
                      rathole COMMAND ..."
)]
struct Top {
    /// The configuration: TOML with [server], [client] or both; both present = both run in this process
    #[arg(value_name = "CONFIG", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Run only the [server] half
    #[arg(short, long, conflicts_with = "client")]
    server: bool,
    /// Run only the [client] half
    #[arg(short, long)]
    client: bool,
    /// Print a fresh key pair for the Noise transport
    #[arg(
        long,
        value_name = "CURVE",
        num_args = 0..=1,
        default_missing_value = "x25519",
        conflicts_with_all = ["config", "server", "client", "overlay", "no_visitor_log", "watch", "no_watch"]
    )]
    genkey: Option<String>,
    /// Merge this TOML file over CONFIG; may be repeated, the last one wins
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    overlay: Vec<PathBuf>,
    /// Leave out the log line for each ended visitor
    #[arg(long)]
    no_visitor_log: bool,
    #[command(flatten)]
    watch: WatchFlags,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the [server] half of CONFIG, or a server without a file
    #[command(
        after_help = after(text::SERVER_EXAMPLES),
        override_usage = "rathole server [--overlay FILE]... CONFIG\n       \
                          rathole server --bind ADDR --service NAME=[udp:]ADDR...\n           \
                          [--noise-key-file PATH | --plain-tcp] [--token-file PATH | --token-env NAME]"
    )]
    Server(ServerArgs),
    /// Run the [client] half of CONFIG, or a client without a file
    #[command(
        after_help = after(text::CLIENT_EXAMPLES),
        override_usage = "rathole client [--overlay FILE]... CONFIG\n       \
                          rathole client --to HOST:PORT --service NAME=[udp:]ADDR...\n           \
                          <--noise-pin KEY | --plain-tcp> [--token-file PATH | --token-env NAME]"
    )]
    Client(ClientArgs),
    /// Check configurations: every error and warning, with file:line:column
    #[command(after_help = text::CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Print a fresh key pair for the Noise transport
    #[command(after_help = text::GENKEY_EXAMPLES)]
    Genkey {
        /// The only curve there is
        #[arg(value_name = "CURVE", default_value = "x25519")]
        curve: String,
    },
    /// See it work: a server, a client and a web page in this process, joined by an encrypted tunnel
    #[command(after_help = text::DEMO_EXAMPLES)]
    Demo {
        /// End by itself after this many seconds
        #[arg(long, value_name = "N")]
        seconds: Option<u64>,
    },
    /// Print a completion script for a shell
    #[command(after_help = text::COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory, which is made if absent
    #[command(after_help = text::MAN_EXAMPLES)]
    Man {
        /// The directory
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Files to check
    #[arg(value_name = "CONFIG", required = true, value_hint = ValueHint::FilePath)]
    config: Vec<PathBuf>,
    /// Merge this TOML file over each CONFIG; may be repeated, the last one wins
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    overlay: Vec<PathBuf>,
    /// Print the findings as one JSON document
    #[arg(long)]
    json: bool,
    /// Open only the given files and resolve no name, for build sandboxes
    #[arg(long = "static")]
    static_only: bool,
}

#[derive(Debug, Args)]
struct WatchFlags {
    /// Take over changes of CONFIG, its fragments and the files they name by itself [default: unless under systemd]
    #[arg(long, conflicts_with = "no_watch")]
    watch: bool,
    /// Take over changes only on SIGHUP
    #[arg(long)]
    no_watch: bool,
}

impl From<WatchFlags> for WatchArgs {
    fn from(WatchFlags { watch, no_watch }: WatchFlags) -> Self {
        WatchArgs { watch, no_watch }
    }
}

#[derive(Debug, Args)]
struct CommonArgs {
    /// The configuration file
    #[arg(value_name = "CONFIG", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Merge this TOML file over CONFIG; may be repeated, the last one wins
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    overlay: Vec<PathBuf>,
    /// Leave out the log line for each ended visitor
    #[arg(long)]
    no_visitor_log: bool,
    #[command(flatten)]
    watch: WatchFlags,
    /// Read the token from this file (`-`: from stdin); one trailing newline is not part of it
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, help_heading = "Without a file")]
    token_file: Option<PathBuf>,
    /// Read the token from this environment variable [default: RATHOLE_TOKEN, if set]
    #[arg(long, value_name = "NAME", help_heading = "Without a file")]
    token_env: Option<String>,
    /// Do not encrypt; the other end must say so too
    #[arg(long, help_heading = "Without a file")]
    plain_tcp: bool,
    /// Does not exist; here to say why.
    #[arg(long, hide = true, num_args = 0..=1, value_name = "NEVER")]
    token: Option<Option<String>>,
}

#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
struct ServerArgs {
    /// Where clients connect
    #[arg(long, value_name = "ADDR", help_heading = "Without a file")]
    bind: Option<String>,
    /// A service and where its visitors connect; may be repeated
    #[arg(long, value_name = "NAME=[udp:]ADDR", help_heading = "Without a file")]
    service: Vec<String>,
    /// Keep the private key in this file; made with mode 0600 if absent
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, help_heading = "Without a file")]
    noise_key_file: Option<PathBuf>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
struct ClientArgs {
    /// The server
    #[arg(long, value_name = "HOST:PORT", help_heading = "Without a file")]
    to: Option<String>,
    /// A service and where it really is; may be repeated
    #[arg(long, value_name = "NAME=[udp:]ADDR", help_heading = "Without a file")]
    service: Vec<String>,
    /// The server's public key: no other server is spoken to
    #[arg(long, value_name = "KEY", help_heading = "Without a file")]
    noise_pin: Option<String>,
    #[command(flatten)]
    common: CommonArgs,
}

impl ServerArgs {
    fn into_args(self) -> RoleArgs {
        let plan = PlanArgs {
            bind: self.bind,
            services: self.service,
            noise_key_file: self.noise_key_file,
            ..PlanArgs::default()
        };
        self.common.into_args(plan)
    }
}

impl ClientArgs {
    fn into_args(self) -> RoleArgs {
        let plan = PlanArgs {
            to: self.to,
            services: self.service,
            noise_pin: self.noise_pin,
            ..PlanArgs::default()
        };
        self.common.into_args(plan)
    }
}

impl CommonArgs {
    fn into_args(self, plan: PlanArgs) -> RoleArgs {
        RoleArgs {
            config: self.config,
            overlays: self.overlay,
            no_visitor_log: self.no_visitor_log,
            watch: self.watch.into(),
            token: self.token.is_some(),
            plan: PlanArgs {
                token_file: self.token_file,
                token_env: self.token_env,
                plain_tcp: self.plain_tcp,
                ..plan
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
