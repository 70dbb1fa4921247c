//! From files to a [`Config`]: reads, adds the fragments, lays overlays over it, checks, resolves.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::check::{self, Check};
use super::files::{self, Files};
use super::keys;
use super::problem::{Problem, Report, Severity};
use super::section::{Section, quoted};
use super::source::{Entries, Node, Place, Source, Value};
use super::{Config, client, fragments, merge, server, shape};

/// So many files with exposed secrets are warned of one by one.
const MOST_EXPOSED: usize = 10;

/// Which half of a configuration is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleChoice {
    /// The half that is there; both if both are.
    Auto,
    /// The server, whatever else is there.
    Server,
    /// The client, whatever else is there.
    Client,
}

/// What to load.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The configuration; its fragments are in the directory beside it.
    pub main: &'a Path,
    /// Files laid over it, the last one on top.
    pub overlays: &'a [PathBuf],
    /// What is to be run.
    pub role: RoleChoice,
    /// Where files come from.
    pub files: &'a dyn Files,
    /// Open only the files above, none that they name; an overlay that cannot be read is then no error, and what
    /// it might supply is a warning.
    pub static_only: bool,
}

/// A configuration that can be used.
///
/// After a static check it cannot: secrets and certificates from files are empty in it, and what an
/// absent overlay should complete, a service or a whole half, is missing.
pub struct Loaded {
    /// What was resolved.
    pub config: Config,
    /// The warnings; errors, too, after [`inspect`].
    pub report: Report,
    sources: Vec<Source>,
    root: Node,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("config", &self.config)
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

/// Loads a configuration.
///
/// # Errors
/// All errors of all files, with the warnings.
pub fn load(request: &Request<'_>) -> Result<Loaded, Report> {
    inspect(request).and_then(|found| if found.report.has_errors() { Err(found.report) } else { Ok(found) })
}

/// Loads what can be loaded, for a check that wants to look further in spite of errors: those of the files are in the
/// report, and what they leave unknown is absent.
///
/// # Errors
/// All errors of all files, if there is nothing to look at.
pub fn inspect(request: &Request<'_>) -> Result<Loaded, Report> {
    let mut check = Check::new(request.files, request.static_only);
    let Some(root) = read_all(&mut check, request) else { return Err(check.finish().0) };
    let top = Section { parent: None, name: "", node: &root, table: &keys::ROOT };
    shape::check(&mut check, &top);
    let (server_half, client_half) = (top.child("server"), top.child("client"));
    let run @ [run_server, run_client] = roles(&mut check, &top, request.role);
    let server = server_half.as_ref().and_then(|half| server::resolve(&mut check, half, run_server));
    let client = client_half.as_ref().and_then(|half| client::resolve(&mut check, half, run_client));
    heartbeats(&mut check, &[server_half, client_half], run);
    exposed_secrets(&mut check, &top);
    let (report, sources) = check.finish();
    Ok(Loaded { config: Config { server, client }, report, sources, root })
}

impl Loaded {
    /// A later problem (a transport's [`SettingError`](crate::transport::SettingError), an address that cannot be
    /// bound) at the place of its key, for example `server.services.ssh.bind_addr`; if the key is absent, at the
    /// nearest table around it.
    pub fn problem(&self, severity: Severity, key: &str, message: String) -> Problem {
        let (mut node, mut rest, mut at) = (&self.root, key, self.root.key);
        while let Value::Table(entries) = &node.value {
            let Some((inner, after)) = first_part(entries, rest) else { break };
            (node, rest) = (inner, after);
            at = if rest.is_empty() && !matches!(node.value, Value::Table(_)) { node.at } else { node.key };
        }
        check::place(&self.sources, severity, at, key.to_owned(), message, String::new())
    }
}

/// The entry that a key path begins with, and the rest of the path. A service's name may have dots in it, quoted
/// or not: the longest match is meant.
fn first_part<'a, 'p>(entries: &'a Entries, path: &'p str) -> Option<(&'a Node, &'p str)> {
    if path.is_empty() {
        return None;
    }
    let rest = |after: &'p str| after.strip_prefix('.').unwrap_or(after);
    if path.starts_with('"') {
        let mut quotes =
            entries.iter().filter_map(|(name, node)| Some((node, path.strip_prefix(&quoted(name))?)));
        return quotes.next().map(|(node, after)| (node, rest(after)));
    }
    let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
    ends.rev().find_map(|end| {
        let (name, after) = path.split_at_checked(end)?;
        Some((entries.get(name)?, rest(after)))
    })
}

/// The tree of all files. None: an error was noted, and there is nothing to check.
fn read_all(check: &mut Check<'_>, request: &Request<'_>) -> Option<Node> {
    let main = read(check, request.main, Severity::Error);
    let mut root = fragments::add(check, request.main, main);
    let unread = if request.static_only { Severity::Warning } else { Severity::Error };
    for name in request.overlays {
        match (&mut root, read(check, name, unread)) {
            (Some(root), Some(over)) => merge::overlay(root, over),
            (_, None) => check.incomplete = true,
            (None, Some(_)) => {}
        }
    }
    root
}

fn read(check: &mut Check<'_>, name: &Path, unread: Severity) -> Option<Node> {
    let bytes = check.files.read(name);
    parse(check, name, bytes, unread)
}

/// The tree of one file; one more source. None: a problem was noted, `unread` if the file could not be read.
pub(super) fn parse(
    check: &mut Check<'_>,
    name: &Path,
    bytes: io::Result<Vec<u8>>,
    unread: Severity,
) -> Option<Node> {
    let file = check.sources.len();
    let mut text = String::new();
    let mut fault = None;
    match bytes {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(valid) => text = valid,
            Err(error) => {
                let bytes = zeroize::Zeroizing::new(error.into_bytes());
                let at = bytes.utf8_chunks().next().map_or(0, |chunk| chunk.valid().len());
                fault =
                    Some((Severity::Error, format!("this is no text file: byte {} is not UTF-8", at + 1)));
            }
        },
        Err(error) => {
            fault = Some((unread, ["cannot read this file: ", &files::reason(&error)].concat()));
        }
    }
    check.sources.push(Source::new(name.to_owned(), text));
    if let Some((severity, message)) = fault {
        check.file_problem(severity, file, name, &message);
        return None;
    }
    match check.sources.last()?.parse(file) {
        Ok(root) => Some(root),
        Err(errors) => {
            for error in errors {
                check.error(Place { file, offset: error.offset }, String::new(), &error.message, "");
            }
            None
        }
    }
}

/// Which halves are run: server, client.
fn roles(check: &mut Check<'_>, top: &Section<'_>, choice: RoleChoice) -> [bool; 2] {
    let halves =
        [("server", "client", cfg!(feature = "server")), ("client", "server", cfg!(feature = "client"))];
    let present = halves.map(|(name, ..)| top.get(name).is_some());
    if present == [false; 2] {
        let message = "there is neither a table [server] nor a table [client]";
        check.missing(top.node.key, String::new(), message, "one of them is needed");
        return present;
    }
    let run = match choice {
        RoleChoice::Auto => present,
        RoleChoice::Server => [true, false],
        RoleChoice::Client => [false, true],
    };
    for (((name, other, built), present), run) in halves.into_iter().zip(present).zip(run) {
        if !run {
            continue;
        }
        if !present {
            let message = ["there is no table [", name, "], but the ", name, " is to be run"].concat();
            let help = ["this file has only [", other, "]"].concat();
            check.missing(top.node.key, name.to_owned(), &message, &help);
        } else {
            let at = top.get(name).map_or(top.node.key, |node| node.key);
            check.built_with(built, name, at, name.to_owned());
        }
    }
    run
}

/// Warns if a client gives up a control channel before the server's heartbeat can come.
fn heartbeats(check: &mut Check<'_>, [server, client]: &[Option<Section<'_>>; 2], run: [bool; 2]) {
    let Some(client) = client else { return };
    let key = "heartbeat_timeout";
    let timeout = client.number(key).unwrap_or(0);
    let interval = match server {
        Some(server) => server.number("heartbeat_interval"),
        None => keys::SERVER.key("heartbeat_interval").and_then(keys::Key::default_number),
    };
    let interval = interval.unwrap_or(0);
    // 0 turns either off.
    if run == [false; 2] || timeout == 0 || (interval != 0 && timeout > interval) {
        return;
    }
    let (whose, help) = match (server.is_some(), interval) {
        (true, 0) => {
            ("the server sends no heartbeats: its heartbeat_interval is 0".to_owned(), "0 turns it off")
        }
        (true, n) => {
            (format!("not above the server's heartbeat_interval, {n}"), "a few seconds more than that")
        }
        (false, n) => (
            format!("not above {n}, a server's usual heartbeat_interval"),
            "a few seconds more than the server's",
        ),
    };
    let message = [&whose, ": an idle connection would be given up and made anew again and again"].concat();
    check.warn(client.place(key), client.path(key), &message, help);
}

/// Warns of each file that holds a secret and that other users may read.
fn exposed_secrets(check: &mut Check<'_>, top: &Section<'_>) {
    let mut seen: Vec<Option<(Place, String)>> = check.sources.iter().map(|_| None).collect();
    find_secrets(top, &mut seen);
    let mut exposed = 0;
    for (at, path) in seen.into_iter().flatten() {
        let mode = check.sources.get(at.file).and_then(|source| check.files.mode(&source.name));
        if !mode.is_some_and(check::others_may_read) {
            continue;
        }
        exposed += 1;
        if exposed <= MOST_EXPOSED {
            let message = "a secret in a file that other users may read";
            let help = "chmod 600, or keep the secret in a file of its own or in an overlay";
            check.warn(at, path, message, help);
        }
    }
    if exposed > MOST_EXPOSED {
        let message = format!("{exposed} files hold secrets that other users may read");
        check.warn(top.node.key, String::new(), &message, "chmod 600");
    }
}

/// The first secret of each file.
fn find_secrets(section: &Section<'_>, seen: &mut [Option<(Place, String)>]) {
    for key in section.table.keys {
        let Some(node) = section.get(key.name) else { continue };
        let holds = match (key.kind, &node.value) {
            (keys::Kind::Secret, Value::Text(text)) => !text.is_empty(),
            (keys::Kind::Url, Value::Text(url)) => url.contains('@'),
            (keys::Kind::Table(_), _) => {
                if let Some(inner) = section.child(key.name) {
                    find_secrets(&inner, seen);
                }
                false
            }
            (keys::Kind::Services(_), _) => {
                if let Some(services) = section.child(key.name) {
                    services.children().for_each(|service| find_secrets(&service, seen));
                }
                false
            }
            _ => false,
        };
        let Some(first) = seen.get_mut(node.at.file).filter(|_| holds) else { continue };
        if first.as_ref().is_none_or(|(at, _)| node.at < *at) {
            *first = Some((node.at, section.path(key.name)));
        }
    }
}
