//! The command line without clap: the same commands and rules in a few kilobytes.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;
use rathole::config::RoleChoice;

use super::role::RoleArgs;
use super::{Check, Command, Exit, Stop, text, version};

/// Reads the arguments, the program's name first.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Stop> {
    let mut args = args.into_iter().peekable();
    args.next();
    let verb = args.peek().and_then(|first| first.to_str()).and_then(Verb::named);
    if verb.is_some() {
        args.next();
    }
    let args: Vec<OsString> = args.collect();
    if args.is_empty() && verb.is_none() {
        return Err(Stop::failed(help(), Exit::Usage));
    }
    let mut given = Given::default();
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(stop) = given.next(&mut parser).map_err(|error| Stop::usage(error.to_string()))? {
        if let Some(stop) = stop {
            return Err(stop);
        }
    }
    given.command(verb)
}

/// The commands by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Server,
    Client,
    Check,
    GenKey,
    Demo,
    Completions,
    Man,
    Help,
}

impl Verb {
    fn named(name: &str) -> Option<Verb> {
        Some(match name {
            "server" => Verb::Server,
            "client" => Verb::Client,
            "check" => Verb::Check,
            "genkey" => Verb::GenKey,
            "demo" => Verb::Demo,
            "completions" => Verb::Completions,
            "man" => Verb::Man,
            "help" => Verb::Help,
            _ => return None,
        })
    }
}

/// All options of all commands; [`Given::command`] refuses those that do not belong.
#[derive(Debug, Default)]
struct Given {
    words: Vec<OsString>,
    server: bool,
    client: bool,
    genkey: bool,
    json: bool,
    static_only: bool,
    seconds: bool,
    role: RoleArgs,
}

impl Given {
    /// Takes one argument. `Some(Some(stop))`: the command line ends here; None: there are no more.
    fn next(&mut self, parser: &mut lexopt::Parser) -> Result<Option<Option<Stop>>, lexopt::Error> {
        let Some(argument) = parser.next()? else { return Ok(None) };
        let plan = &mut self.role.plan;
        match argument {
            Value(word) => self.words.push(word),
            Short('h') | Long("help") => return Ok(Some(Some(Stop::result(help())))),
            Short('V') => return Ok(Some(Some(Stop::result(version::short() + "\n")))),
            Long("version") => return Ok(Some(Some(Stop::result(format!("rathole {}\n", version::long()))))),
            Short('s') | Long("server") => self.server = true,
            Short('c') | Long("client") => self.client = true,
            Long("genkey") => {
                self.genkey = true;
                self.words.extend(parser.optional_value());
            }
            Long("json") => self.json = true,
            Long("static") => self.static_only = true,
            Long("overlay") => self.role.overlays.push(PathBuf::from(parser.value()?)),
            Long("no-visitor-log") => self.role.no_visitor_log = true,
            Long("bind") => plan.bind = Some(parser.value()?.string()?),
            Long("to") => plan.to = Some(parser.value()?.string()?),
            Long("service") => plan.services.push(parser.value()?.string()?),
            Long("noise-key-file") => plan.noise_key_file = Some(PathBuf::from(parser.value()?)),
            Long("noise-pin") => plan.noise_pin = Some(parser.value()?.string()?),
            Long("token-file") => plan.token_file = Some(PathBuf::from(parser.value()?)),
            Long("token-env") => plan.token_env = Some(parser.value()?.string()?),
            Long("plain-tcp") => plan.plain_tcp = true,
            Long("token") => {
                self.role.token = true;
                let _ = parser.optional_value();
            }
            Long("seconds") => {
                self.seconds = true;
                let _ = parser.value()?;
            }
            other => return Err(other.unexpected()),
        }
        Ok(Some(None))
    }

    fn command(mut self, verb: Option<Verb>) -> Result<Command, Stop> {
        if self.role.token {
            return self.role.command(RoleChoice::Client);
        }
        self.refuse_strangers(verb)?;
        let words = std::mem::take(&mut self.words);
        match verb {
            Some(Verb::Server) => self.role(RoleChoice::Server, words),
            Some(Verb::Client) => self.role(RoleChoice::Client, words),
            Some(Verb::Check) if words.is_empty() => {
                Err(Stop::usage("a file is missing: rathole check CONFIG..."))
            }
            Some(Verb::Check) => Ok(Command::Check(Check {
                files: words.into_iter().map(PathBuf::from).collect(),
                overlays: self.role.overlays,
                json: self.json,
                static_only: self.static_only,
            })),
            Some(Verb::GenKey) => curve(one(words)?),
            Some(Verb::Demo) => Ok(Command::Demo { seconds: None }),
            Some(Verb::Completions) => {
                Err(Stop::usage("`completions` is not in this build; build it with `--features cli`"))
            }
            Some(Verb::Man) => Ok(Command::Man(PathBuf::new())),
            Some(Verb::Help) => Err(Stop::result(help())),
            None if self.genkey => {
                if self.server || self.client || !self.role.overlays.is_empty() {
                    return Err(Stop::usage("'--genkey' cannot be used with other options"));
                }
                curve(one(words)?)
            }
            None => {
                let config = one(words)?.map(PathBuf::from);
                let visitor_log = !self.role.no_visitor_log;
                super::top_level(config, self.role.overlays, self.server, self.client, visitor_log)
            }
        }
    }

    fn role(mut self, role: RoleChoice, words: Vec<OsString>) -> Result<Command, Stop> {
        self.role.config = one(words)?.map(PathBuf::from);
        self.role.command(role)
    }

    fn refuse_strangers(&self, verb: Option<Verb>) -> Result<(), Stop> {
        let plan = &self.role.plan;
        let adhoc = matches!(verb, Some(Verb::Server | Verb::Client));
        let check = verb == Some(Verb::Check);
        let stranger = match () {
            () if verb.is_some() && self.server => Some("--server"),
            () if verb.is_some() && self.client => Some("--client"),
            () if verb.is_some() && self.genkey => Some("--genkey"),
            () if self.json && !check => Some("--json"),
            () if self.static_only && !check => Some("--static"),
            () if self.seconds && verb != Some(Verb::Demo) => Some("--seconds"),
            () if !adhoc => plan.first_given(),
            () if verb == Some(Verb::Server) && plan.to.is_some() => Some("--to"),
            () if verb == Some(Verb::Server) && plan.noise_pin.is_some() => Some("--noise-pin"),
            () if verb == Some(Verb::Client) && plan.bind.is_some() => Some("--bind"),
            () if verb == Some(Verb::Client) && plan.noise_key_file.is_some() => Some("--noise-key-file"),
            () => None,
        };
        match stranger {
            Some(option) => Err(Stop::usage(format!("unexpected argument '{option}'"))),
            None => Ok(()),
        }
    }
}

/// At most one word.
fn one(words: Vec<OsString>) -> Result<Option<OsString>, Stop> {
    let mut words = words.into_iter();
    let first = words.next();
    match words.next() {
        Some(second) => Err(Stop::usage(format!("unexpected argument '{}'", second.to_string_lossy()))),
        None => Ok(first),
    }
}

fn curve(name: Option<OsString>) -> Result<Command, Stop> {
    super::curve(&name.unwrap_or_else(|| "x25519".into()).to_string_lossy())
}

fn help() -> String {
    format!("{}\n\n{USAGE}\n\n{}\n\n{}\n", text::ABOUT, text::ENVIRONMENT, text::EXIT_CODES)
}

const USAGE: &str = "\
Usage: rathole [-s | --server | -c | --client] [--overlay FILE]... CONFIG
       rathole server|client [--overlay FILE]... CONFIG
       rathole server --bind ADDR --service NAME=[udp:]ADDR... [--noise-key-file PATH | --plain-tcp]
       rathole client --to HOST:PORT --service NAME=[udp:]ADDR... <--noise-pin KEY | --plain-tcp>
       rathole check [--static] [--overlay FILE]... CONFIG...
       rathole genkey | --genkey [x25519]
       rathole -h | --help | -V | --version

Options:
  -s, --server           run only the [server] half
  -c, --client           run only the [client] half
      --overlay FILE     merge this TOML file over CONFIG; may be repeated, the last one wins
      --no-visitor-log   leave out the log line for each ended visitor
      --token-file PATH  without a file: read the token from PATH ('-': stdin)
      --token-env NAME   without a file: read it from this variable (default: RATHOLE_TOKEN, if set)
      --static           open only the given files and resolve no name

This is the small build: demo, completions, man and check --json need the feature `cli`.";
