//! The shape of the source (ARCHITECTURE.md): imports point downward, pure code stays pure, and so on. These are
//! rules that a compiler does not know; this test reads the source text.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

/// The top-level modules of each layer, the lowest first. A module may use its own layer and those before it.
const LAYERS: [(&str, &[&str]); 5] = [
    ("sys", &["sys"]),
    ("pure", &["wire", "config", "counters", "backoff", "reload"]),
    ("I/O", &["tasks", "latest", "transport", "relay", "systemd"]),
    ("roles", &["server", "client", "api"]),
    (
        "process",
        &[
            "main", "lib", "process", "instance", "live", "log", "reader", "running", "status", "stopping",
            "summary", "watch", "adhoc", "demo", "cli",
        ],
    ),
];

/// Where `cfg(feature)` may stand: the architecture's list, as path prefixes.
const FEATURES_IN: [&str; 12] = [
    "lib.rs",
    "main.rs",
    "process.rs",
    "cli",
    "log",
    "instance.rs",
    "reader.rs",
    "running.rs",
    "config",
    "transport",
    "adhoc",
    "latest.rs",
];

/// One source file that is not a unit test's.
struct Source {
    /// Relative to `src`.
    path: PathBuf,
    /// Without comments, string contents and the unit tests at its end.
    code: String,
}

impl Source {
    fn module(&self) -> String {
        let first = self.path.components().next().unwrap();
        Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned()
    }

    fn is_under(&self, prefixes: &[&str]) -> bool {
        prefixes.iter().any(|prefix| self.path.starts_with(prefix))
    }
}

fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut todo) = (Vec::new(), vec![src.clone()]);
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.to_string_lossy().ends_with("tests.rs")
                // Only for cargo-fuzz: no part of what is built.
                && !path.to_string_lossy().contains("fuzzing")
            {
                let code = code_only(&std::fs::read_to_string(&path).unwrap());
                found.push(Source { path: path.strip_prefix(&src).unwrap().to_owned(), code });
            }
        }
    }
    assert!(found.len() > 10, "{} source files under {}", found.len(), src.display());
    found
}

/// Drops comments, the insides of strings, and everything from the unit tests on.
fn code_only(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let mut code = String::new();
    for line in text.lines() {
        let mut quoted = false;
        let mut characters = line.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '\\' if quoted => drop(characters.next()),
                '"' => quoted = !quoted,
                '/' if !quoted && characters.peek() == Some(&'/') => break,
                _ if quoted => {}
                other => code.push(other),
            }
        }
        code.push('\n');
    }
    code
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, modules)| modules.contains(&module))
}

/// The words that follow `prefix`, those in `prefix{a::b, c}` included.
fn named_after<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let word = |text: &'a str| {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        &text[..end]
    };
    let mut words = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => words.push(word(rest)),
            Some(group) => {
                let mut depth = 1;
                let mut item = 0;
                for (i, character) in group.char_indices() {
                    match character {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        _ => {}
                    }
                    if (character == ',' && depth == 1) || depth == 0 {
                        words.push(word(group[item..i].trim_start()));
                        item = i + 1;
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn imports_point_downward() {
    let mut wrong = Vec::new();
    let mut imports = 0;
    for source in sources() {
        let module = source.module();
        let Some(own) = layer_of(&module) else {
            wrong.push(format!("{}: give its module a layer in tests/layers.rs", source.path.display()));
            continue;
        };
        for used in named_after(&source.code, "crate::") {
            // Not a module: a macro or an item of lib.rs.
            let Some(layer) = layer_of(used) else { continue };
            imports += 1;
            if layer > own {
                let (above, below) = (LAYERS[layer].0, LAYERS[own].0);
                wrong.push(format!(
                    "{}: `crate::{used}` ({above}) is above {module} ({below})",
                    source.path.display()
                ));
            }
        }
        if own < LAYERS.len() - 1 && source.code.contains("rathole::") {
            wrong.push(format!("{}: names its own crate by its outer name", source.path.display()));
        }
    }
    assert!(imports > 10, "only {imports} imports were found: is this test blind?");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn pure_code_is_pure() {
    let impure =
        ["tokio::", "Instant::now", "SystemTime", "std::env", "std::fs", "std::net::Tcp", "std::net::Udp"];
    let pure = [
        "wire",
        "backoff.rs",
        "counters.rs",
        "reload.rs",
        "server/pool.rs",
        "server/forgetful.rs",
        "server/gate.rs",
        "server/junk.rs",
        "server/seldom.rs",
        "server/strangers.rs",
        "server/takeovers.rs",
        "server/requests.rs",
        "server/stock.rs",
        "server/refusals.rs",
        "server/tokens.rs",
        "relay/flows.rs",
        "config",
    ];
    let mut looked_at = 0;
    let mut wrong = Vec::new();
    // `Files`, by which alone the others reach the disk, is declared beside its real implementation.
    let files = Path::new("config/files.rs");
    for source in sources().iter().filter(|source| source.is_under(&pure) && source.path != files) {
        looked_at += 1;
        wrong.extend(
            impure
                .iter()
                .filter(|word| source.code.contains(*word))
                .map(|word| format!("{}: {word}", source.path.display())),
        );
    }
    assert!(looked_at >= 20, "{looked_at}");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn features_stay_where_they_belong() {
    let mut seen = 0;
    for source in sources() {
        if named_after(&source.code, "feature = ").is_empty() && !source.code.contains("feature =") {
            continue;
        }
        seen += 1;
        assert!(
            source.is_under(&FEATURES_IN) && !source.is_under(&["server", "client", "relay", "wire"]),
            "{}: cfg(feature) has no place here",
            source.path.display()
        );
    }
    assert!(seen > 0, "no cfg(feature) anywhere: is this test blind?");
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    for source in sources() {
        let words = source.code.split(|c: char| !c.is_alphanumeric() && c != '_');
        let count = words.filter(|word| *word == "unsafe").count();
        assert!(count == 0 || source.is_under(&["sys.rs", "sys"]), "{}: unsafe code", source.path.display());
    }
}

/// clippy denies what may panic; nobody but these turns it off again.
#[test]
fn what_may_panic_stays_denied() {
    let lints =
        ["unwrap_used", "expect_used", "indexing_slicing", "string_slice", "panic", "unreachable", "todo"];
    let mut exceptions = Vec::new();
    for source in sources() {
        let is_root = ["lib.rs", "main.rs"].map(Path::new).contains(&&*source.path);
        for lint in lints.map(|lint| format!("clippy::{lint}")) {
            let mentions = source.code.matches(&lint).count();
            if is_root {
                assert!(source.code.contains("#![deny(") && mentions == 1, "{lint} in {:?}", source.path);
            } else if mentions > 0 {
                exceptions.push(format!("{}: {lint}", source.path.display()));
            }
        }
    }
    exceptions.sort();
    assert_eq!(
        exceptions,
        ["transport/noise/keys.rs: clippy::unreachable", "transport/noise/session.rs: clippy::unreachable"]
    );
}

#[test]
fn only_tasks_spawns() {
    for source in sources() {
        let own = layer_of(&source.module()).unwrap_or(0);
        let io_or_role = (2..=3).contains(&own) && source.path != Path::new("tasks.rs");
        for spawner in ["tokio::spawn", "task::spawn(", "thread::spawn", "JoinSet", "unbounded_channel"] {
            assert!(!io_or_role || !source.code.contains(spawner), "{}: {spawner}", source.path.display());
        }
    }
}

#[test]
fn this_test_sees() {
    let code = code_only(
        "use crate::{relay::{a, b}, wire}; // crate::cli\nlet s = \"crate::demo\"; crate::tasks::x();",
    );
    assert_eq!(named_after(&code, "crate::"), ["relay", "wire", "tasks"]);
    assert!(layer_of("wire") < layer_of("relay") && layer_of("relay") < layer_of("server"));
}
