//! The command line without clap: the same commands and rules in a few kilobytes. An option's value is the next
//! argument, or follows a `=`; short options stand alone.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rathole::config::RoleChoice;

use super::role::RoleArgs;
use super::{Check, Command, Exit, Stop, text, version};

/// Reads the arguments, the program's name first.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Stop> {
    let mut args: VecDeque<OsString> = args.into_iter().skip(1).collect();
    let verb = args.front().and_then(|first| first.to_str()).and_then(Verb::named);
    if verb.is_some() {
        args.pop_front();
    } else if args.is_empty() {
        return Err(Stop::failed(help(), Exit::Usage));
    }
    let mut given = Given::default();
    while let Some(argument) = args.pop_front() {
        given.take(argument, &mut args)?;
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
    seconds: Option<String>,
    /// After `--`.
    only_words: bool,
    role: RoleArgs,
}

/// A place for a value.
enum Target<'a> {
    Path(&'a mut Option<PathBuf>),
    Paths(&'a mut Vec<PathBuf>),
    Text(&'a mut Option<String>),
    Texts(&'a mut Vec<String>),
}

impl Given {
    /// Takes one argument, and its value from those that follow.
    fn take(&mut self, argument: OsString, rest: &mut VecDeque<OsString>) -> Result<(), Stop> {
        let bytes = argument.as_bytes();
        if self.only_words || !bytes.starts_with(b"-") || bytes == b"-" {
            self.words.push(argument);
            return Ok(());
        }
        let mut parts = bytes.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default();
        let attached = parts.next().map(|value| OsStr::from_bytes(value).to_owned());
        let name = &*String::from_utf8_lossy(name);
        if let Some(flag) = self.flag(name)? {
            *flag = true;
            match attached {
                // The curve may be attached, or be the next word.
                Some(curve) if name == "--genkey" => self.words.push(curve),
                Some(_) if name != "--token" => return Err(Stop::usage(format!("'{name}' takes no value"))),
                _ => {}
            }
            return Ok(());
        }
        let Some(target) = self.option(name) else {
            return Err(Stop::usage(format!("unexpected argument '{name}'")));
        };
        let Some(value) = attached.or_else(|| rest.pop_front()) else {
            return Err(Stop::usage(format!("'{name}' needs a value")));
        };
        match target {
            Target::Path(path) => *path = Some(PathBuf::from(value)),
            Target::Paths(paths) => paths.push(PathBuf::from(value)),
            Target::Text(to) => *to = Some(value.to_string_lossy().into_owned()),
            Target::Texts(to) => to.push(value.to_string_lossy().into_owned()),
        }
        Ok(())
    }

    /// Where an option without a value is noted.
    fn flag(&mut self, name: &str) -> Result<Option<&mut bool>, Stop> {
        Ok(Some(match name {
            "-h" | "--help" => return Err(Stop::result(help())),
            "-V" => return Err(Stop::result(version::short() + "\n")),
            "--version" => return Err(Stop::result(format!("rathole {}\n", version::long()))),
            "--" => &mut self.only_words,
            "-s" | "--server" => &mut self.server,
            "-c" | "--client" => &mut self.client,
            "--genkey" => &mut self.genkey,
            "--json" => &mut self.json,
            "--static" => &mut self.static_only,
            "--no-visitor-log" => &mut self.role.no_visitor_log,
            "--watch" => &mut self.role.watch.watch,
            "--no-watch" => &mut self.role.watch.no_watch,
            "--plain-tcp" => &mut self.role.plan.plain_tcp,
            "--token" => &mut self.role.token,
            _ => return Ok(None),
        }))
    }

    /// Where an option's value goes.
    fn option(&mut self, name: &str) -> Option<Target<'_>> {
        let plan = &mut self.role.plan;
        Some(match name {
            "--overlay" => Target::Paths(&mut self.role.overlays),
            "--bind" => Target::Text(&mut plan.bind),
            "--to" => Target::Text(&mut plan.to),
            "--service" => Target::Texts(&mut plan.services),
            "--noise-key-file" => Target::Path(&mut plan.noise_key_file),
            "--noise-pin" => Target::Text(&mut plan.noise_pin),
            "--token-file" => Target::Path(&mut plan.token_file),
            "--token-env" => Target::Text(&mut plan.token_env),
            "--seconds" => Target::Text(&mut self.seconds),
            _ => return None,
        })
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
                let watch = self.role.watch;
                super::top_level(config, self.role.overlays, self.server, self.client, visitor_log, watch)
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
            () if self.seconds.is_some() && verb != Some(Verb::Demo) => Some("--seconds"),
            () if verb.is_some() && !adhoc && self.role.watch.first_given().is_some() => {
                self.role.watch.first_given()
            }
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
    format!("{}\n\n{USAGE}\n\n{EXAMPLES}\n\n{}\n\n{}\n", text::ABOUT, text::ENVIRONMENT, text::EXIT_CODES)
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
      --watch            take over changes of the files by itself (default: unless under systemd)
      --no-watch         take over changes only on SIGHUP
      --token-file PATH  without a file: read the token from PATH ('-': stdin)
      --token-env NAME   without a file: read it from this variable (default: RATHOLE_TOKEN, if set)
      --static           open only the given files and resolve no name

This is the small build: demo, completions, man and check --json need the feature `cli`.";

const EXAMPLES: &str = "\
Examples:
  rathole client client.toml --overlay secrets.toml
  rathole check client.toml
  rathole client --to example.org:2333 --noise-pin KEY --service ssh=127.0.0.1:22";
