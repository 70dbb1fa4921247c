//! The schema, `docs/config.md` and the examples say the same as the code.

#![cfg(all(feature = "server", feature = "client", feature = "cli"))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod config_support;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use rathole::config::schema::{fragment, schema};
use rathole::config::{Files, Request, RoleChoice, Severity, load};
use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files and what is to be in them.
fn schemas() -> [(&'static str, String); 2] {
    let text = |schema: Value| serde_json::to_string_pretty(&schema).unwrap() + "\n";
    [("docs/rathole.schema.json", text(schema())), ("docs/rathole-fragment.schema.json", text(fragment()))]
}

/// `cargo test --test config_docs -- --ignored` writes the files anew.
#[test]
#[ignore = "writes docs/rathole.schema.json and docs/rathole-fragment.schema.json"]
fn write_the_schema() {
    for (file, text) in schemas() {
        std::fs::write(root().join(file), text).unwrap();
    }
}

#[test]
fn the_schema_file_is_the_code() {
    for (file, text) in schemas() {
        assert!(read(file) == text, "{file}: write it anew: cargo test --test config_docs -- --ignored");
    }
}

/// One tenant's file needs nothing of the rest, but its services must be whole.
#[test]
fn a_fragment_has_a_schema_of_its_own() {
    let good = "[server.services.x]\nbind_addr = \"127.0.0.1:1\"\n[client.services.x]\nlocal_addr = \"127.0.0.1:1\"\n";
    assert!(validate(&schema(), &to_json(good), "").is_err());
    assert_eq!(validate(&fragment(), &to_json(good), ""), Ok(()));
    for bad in ["[server.services.x]\n", "[server.services.x]\nbind_addr = \"127.0.0.1:1\"\ncolour = 1\n"] {
        assert!(validate(&fragment(), &to_json(bad), "").is_err(), "{bad}");
    }
}

/// Paths of all leaf keys (with their default) and of all tables; a service is NAME.
fn keys(
    schema: &Value,
    path: &str,
    leaves: &mut BTreeMap<String, Option<Value>>,
    tables: &mut BTreeSet<String>,
) {
    let inner = schema["additionalProperties"].as_object().map(|_| ("NAME", &schema["additionalProperties"]));
    let properties = schema["properties"].as_object().into_iter().flatten();
    for (name, schema) in properties.map(|(name, schema)| (name.as_str(), schema)).chain(inner) {
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        if schema["type"] == "object" {
            keys(schema, &path, leaves, tables);
            if schema["properties"].is_object() {
                tables.insert(path);
            }
        } else {
            leaves.insert(path, schema.get("default").cloned());
        }
    }
}

#[test]
fn every_key_is_in_the_manual_and_the_other_way_round() {
    let (mut leaves, mut tables) = (BTreeMap::new(), BTreeSet::new());
    keys(&schema(), "", &mut leaves, &mut tables);
    assert!(leaves.len() > 50 && tables.len() == 14, "{} {}", leaves.len(), tables.len());
    let manual = read("docs/config.md");
    let mut documented = BTreeMap::new();
    for row in manual.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [key, _, default, meaning] = cells[..] else { panic!("not four cells: {row}") };
        assert!(!meaning.is_empty(), "{row}");
        let key = key.trim_matches('`').to_owned();
        assert!(documented.insert(key, default.to_owned()).is_none(), "twice: {row}");
    }
    assert_eq!(leaves.keys().collect::<Vec<_>>(), documented.keys().collect::<Vec<_>>());
    for (key, default) in leaves.iter().filter_map(|(key, default)| Some((key, default.as_ref()?))) {
        assert_eq!(documented[key], format!("`{default}`"), "{key}");
    }
    let headings: BTreeSet<String> = manual
        .lines()
        .filter(|line| line.starts_with('#'))
        .flat_map(|line| line.split('`').filter_map(|part| part.strip_prefix('[')?.strip_suffix(']')))
        .map(str::to_owned)
        .collect();
    assert_eq!(tables, headings);
}

#[test]
fn the_manuals_examples_load() {
    let manual = read("docs/config.md");
    let blocks: Vec<&str> =
        manual.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect();
    assert!(blocks.len() >= 8, "{}", blocks.len());
    for block in blocks {
        // A part of a half is made whole.
        let mut text = block.to_owned();
        for (half, address) in [("server", "bind_addr"), ("client", "remote_addr")] {
            if block.contains(&format!("[{half}.")) && !block.contains(&format!("[{half}]")) {
                text.push_str(&format!(
                    "[{half}]\n{address} = \"127.0.0.1:2333\"\ndefault_token = \"0123456789abcdef\"\n"
                ));
                if !block.contains(&format!("[{half}.services")) {
                    text.push_str(&format!("[{half}.services]\n"));
                }
            }
        }
        validate(&schema(), &to_json(&text), "").unwrap_or_else(|fault| panic!("{fault}\n{text}"));
        check(&[("config.md".into(), text)], false);
    }
}

/// Files that examples name hold a key; the others are the given ones.
struct Shown<'a>(&'a [(PathBuf, String)]);

impl Files for Shown<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let given = self.0.iter().find(|(name, _)| name == path).map(|(_, text)| text.clone());
        Ok(given.unwrap_or_else(|| format!("{}\n", config_support::KEY)).into_bytes())
    }

    fn mode(&self, _: &Path) -> Option<u32> {
        Some(0o600)
    }
}

/// Loads a file and its overlays: no error but for what this build has not got, and the right half.
fn check(files: &[(PathBuf, String)], static_only: bool) {
    let overlays: Vec<PathBuf> = files[1..].iter().map(|(name, _)| name.clone()).collect();
    let outcome = load(&Request {
        main: &files[0].0,
        overlays: &overlays,
        role: RoleChoice::Auto,
        files: &Shown(files),
        static_only,
    });
    match outcome {
        Ok(loaded) => {
            let json = merged(files);
            assert_eq!(loaded.config.server.is_some(), json.get("server").is_some(), "{files:?}");
            assert_eq!(loaded.config.client.is_some(), json.get("client").is_some(), "{files:?}");
        }
        Err(report) => {
            for problem in report.problems().iter().filter(|problem| problem.severity == Severity::Error) {
                assert!(problem.message.contains("built without the feature"), "{problem}");
            }
        }
    }
}

#[test]
fn every_example_loads_and_fits_the_schema() {
    let mut seen = Vec::new();
    for directory in std::fs::read_dir(root().join("examples")).unwrap() {
        let directory = directory.unwrap().path();
        if !directory.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&directory).unwrap() {
            let file = file.unwrap().path();
            if file.extension() != Some("toml".as_ref()) || file.to_string_lossy().ends_with("-secrets.toml")
            {
                continue;
            }
            let overlay =
                file.with_file_name(format!("{}-secrets.toml", file.file_stem().unwrap().to_string_lossy()));
            let names = [Some(file.clone()), overlay.exists().then_some(overlay)];
            let files: Vec<_> = names.into_iter().flatten().map(|name| (name.clone(), read(&name))).collect();
            validate(&schema(), &merged(&files), "")
                .unwrap_or_else(|fault| panic!("{}: {fault}", file.display()));
            check(&files, false);
            check(&files, true);
            seen.push(file.strip_prefix(root()).unwrap().to_string_lossy().into_owned());
        }
    }
    let index = read("examples/README.md");
    for path in &seen {
        let directory = path.split('/').nth(1).unwrap();
        assert!(index.contains(&format!("| `{directory}` |")), "{directory} is not in examples/README.md");
    }
    assert!(seen.len() >= 26, "{seen:?}");
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let mut tried = 0;
    for text in [
        "",
        "foo = 1",
        "[server]\nservices = {}",
        "[server]\nbind_addr = \"a:1\"",
        "[server]\nbind_addr = \"a\"\nservices = {}",
        "[server]\nbind_addr = 1\nservices = {}",
        "[server]\nbind_addr = \"a:1\"\nservices = {}\nheartbeat_interval = -1",
        "[server]\nbind_addr = \"a:1\"\nservices = {}\nheartbeat_interval = 1.5",
        "[server]\nbind_addr = \"a:1\"\nservices = {}\ndefault_token = \"a\"\ndefault_token_file = \"b\"",
        "[server]\nbind_addr = \"a:1\"\nservices.x = { bind_addr = \"a:1\", token = \"a\", type = \"sctp\" }",
        "[server]\nbind_addr = \"a:1\"\nservices.x = { bind_addr = \"a:1\", token = \"a\", name = \"x\" }",
        "[server]\nbind_addr = \"a:1\"\nservices.x = { bind_addr = \"a:1\", token = \"a\", allow = \"::/0\" }",
        "[server]\nbind_addr = \"a:1\"\nservices.x = { bind_addr = \"a:1\", token = \"a\", deny = [1] }",
        "[client]\nremote_addr = \"a:1\"\nservices = {}\ntransport = { tcp = {} }",
        "[client]\nremote_addr = \"a:1\"\nservices = {}\ntransport = { type = \"tcp\", tcp = { proxy = \"ftp://x\" } }",
    ] {
        assert!(validate(&schema(), &to_json(text), "").is_err(), "{text}");
        assert!(config_support::text(text).run().is_err(), "{text}");
        tried += 1;
    }
    assert!(tried > 10);
}

fn to_json(text: &str) -> Value {
    fn value(from: &DeValue<'_>) -> Value {
        match from {
            DeValue::Table(table) => table_to_json(table),
            DeValue::String(text) => Value::from(text.as_ref()),
            DeValue::Boolean(flag) => Value::from(*flag),
            DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix()).unwrap().into(),
            DeValue::Float(digits) => digits.as_str().parse::<f64>().unwrap().into(),
            DeValue::Array(entries) => entries.iter().map(|entry| value(entry.get_ref())).collect(),
            other => panic!("{other:?} is not used here"),
        }
    }
    fn table_to_json(table: &DeTable<'_>) -> Value {
        table
            .iter()
            .map(|(key, inner)| (key.get_ref().to_string(), value(inner.get_ref())))
            .collect::<Map<_, _>>()
            .into()
    }
    let table = DeTable::parse(text).unwrap_or_else(|error| panic!("{error}"));
    table_to_json(table.get_ref())
}

fn merged(files: &[(PathBuf, String)]) -> Value {
    fn merge(base: &mut Value, over: Value) {
        match (base, over) {
            (Value::Object(base), Value::Object(over)) => {
                for (key, value) in over {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
            (base, over) => *base = over,
        }
    }
    let mut all = Value::Object(Map::new());
    for (_, text) in files {
        merge(&mut all, to_json(text));
    }
    all
}

/// As much of JSON Schema as ours uses; a word it does not know is a panic.
fn validate(schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    let fault = |what: &str| Err(format!("{path}: {what}"));
    for (word, rule) in schema.as_object().expect("a schema") {
        let list = || rule.as_array().expect("a list").iter();
        match word.as_str() {
            "$schema" | "title" | "description" | "default" | "properties" => {}
            "type" => {
                let right = match rule.as_str().unwrap() {
                    "object" => value.is_object(),
                    "string" => value.is_string(),
                    "integer" => value.is_i64(),
                    "boolean" => value.is_boolean(),
                    "array" => value.is_array(),
                    other => panic!("type {other}"),
                };
                if !right {
                    return fault(&format!("is no {rule}"));
                }
            }
            "required" => {
                if let Some(missing) = list().find(|key| value.get(key.as_str().unwrap()).is_none()) {
                    return fault(&format!("{missing} is missing"));
                }
            }
            "additionalProperties" => {
                for (key, inner) in value.as_object().into_iter().flatten() {
                    let path = format!("{path}.{key}");
                    match schema["properties"].get(key) {
                        Some(known) => validate(known, inner, &path)?,
                        None if rule.is_object() => validate(rule, inner, &path)?,
                        None => return Err(format!("{path}: unknown")),
                    }
                }
            }
            "items" => {
                for (n, entry) in value.as_array().into_iter().flatten().enumerate() {
                    validate(rule, entry, &format!("{path}[{n}]"))?;
                }
            }
            "enum" if !list().any(|choice| choice == value) => return fault("is no choice"),
            "minimum" if value.as_i64() < rule.as_i64() => return fault("too small"),
            "maximum" if value.as_i64() > rule.as_i64() => return fault("too large"),
            "enum" | "minimum" | "maximum" => {}
            "pattern" => {
                let text = value.as_str().unwrap_or_default();
                let right = match rule.as_str().unwrap() {
                    "^.+:[0-9]+$" => text.rsplit_once(':').is_some_and(|(host, port)| {
                        !host.is_empty() && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
                    }),
                    "^([Hh][Tt][Tt][Pp]|[Ss][Oo][Cc][Kk][Ss]5)://" => {
                        text.split_once("://").is_some_and(|(scheme, _)| {
                            ["http", "socks5"].contains(&scheme.to_lowercase().as_str())
                        })
                    }
                    other => panic!("pattern {other}"),
                };
                if !right {
                    return fault("does not fit the pattern");
                }
            }
            "allOf" => list().try_for_each(|each| validate(each, value, path))?,
            "anyOf" if list().all(|each| validate(each, value, path).is_err()) => {
                return fault("none of anyOf");
            }
            "anyOf" => {}
            "not" if validate(rule, value, path).is_ok() => return fault("is what it must not be"),
            "not" => {}
            other => panic!("schema word {other}"),
        }
    }
    Ok(())
}
