//! The shape of a configuration: known keys, right types, nothing missing. What is wrong here is wrong in both
//! halves, whichever is run (upstream refuses it too).

use super::check::Check;
use super::hint;
use super::keys::{Key, Kind, Need};
use super::section::Section;
use super::source::{Node, Value};

/// Checks a table and all tables in it.
pub(super) fn check(check: &mut Check<'_>, section: &Section<'_>) {
    let Value::Table(entries) = &section.node.value else {
        let message = ["expected a table, found ", section.node.value.found()].concat();
        check.error(section.node.at, section.path(""), &message, "");
        return;
    };
    for (name, node) in entries.iter() {
        match section.table.key(name) {
            Some(key) => value(check, section, key, node),
            None => {
                let hint = hint::unknown(section, name);
                check.error(node.key, section.path(name), "unknown key", &hint);
            }
        }
    }
    for key in section.table.keys {
        if matches!(key.need, Need::Required) && entries.get(key.name).is_none() {
            let help = match key.kind {
                Kind::Address => [key.name, " = \"host:port\""].concat(),
                Kind::Services(_) => ["[", &section.path(key.name), ".NAME] for each service"].concat(),
                kind => expected(kind),
            };
            check.missing(section.node.key, section.path(key.name), "this key is missing", &help);
        }
        if let Kind::Secret = key.kind {
            let file_key = [key.name, "_file"].concat();
            if let (Some(literal), Some(file)) = (entries.get(key.name), entries.get(&file_key)) {
                let message = ["both ", key.name, " and ", &file_key, " are given"].concat();
                check.error(literal.at.max(file.at), section.path(&file_key), &message, "keep one of them");
            }
        }
    }
}

fn value(check: &mut Check<'_>, section: &Section<'_>, key: &'static Key, node: &Node) {
    let right = match (key.kind, &node.value) {
        (Kind::Table(table), Value::Table(_)) => {
            let inner = Section { parent: Some(section), name: key.name, node, table };
            return self::check(check, &inner);
        }
        (Kind::Services(table), Value::Table(_)) => {
            let services = Section { parent: Some(section), name: key.name, node, table };
            for service in services.children() {
                self::check(check, &service);
            }
            return;
        }
        (Kind::Choice(choices), Value::Text(text)) => {
            if !choices.contains(&text.as_str()) {
                let help = hint::nearest(text, choices.iter().copied())
                    .map(|choice| ["did you mean \"", choice, "\"?"].concat())
                    .unwrap_or_default();
                let message = ["expected ", &expected(key.kind), ", found another string"].concat();
                check.error(node.at, section.path(key.name), &message, &help);
            }
            true
        }
        (Kind::Prefixes, Value::List(entries)) => {
            for entry in entries.iter().filter(|entry| !matches!(entry.value, Value::Text(_))) {
                let message = ["expected a string in this array, found ", entry.value.found()].concat();
                check.error(entry.at, section.path(key.name), &message, "\"192.0.2.0/24\"");
            }
            true
        }
        (Kind::Text | Kind::Secret | Kind::Path | Kind::Url | Kind::Address, Value::Text(_)) => true,
        (Kind::Flag, Value::Flag(_)) | (Kind::Seconds { .. } | Kind::Count { .. }, Value::Integer(_)) => true,
        _ => false,
    };
    if !right {
        let message = ["expected ", &expected(key.kind), ", found ", node.value.found()].concat();
        check.error(node.at, section.path(key.name), &message, "");
    }
}

/// What a key takes, in words.
pub(super) fn expected(kind: Kind) -> String {
    let words = match kind {
        Kind::Text | Kind::Secret => "a string",
        Kind::Path => "a string, the path of a file",
        Kind::Url => "a string, \"http://host:port\" or \"socks5://host:port\"",
        Kind::Address => "a string \"host:port\"",
        Kind::Flag => "true or false",
        Kind::Seconds { .. } => "a whole number of seconds",
        Kind::Count { .. } => "a whole number",
        Kind::Prefixes => "an array of strings, prefixes of IP addresses",
        Kind::Table(_) => "a table",
        Kind::Services(_) => "a table with a table for each service",
        Kind::Choice(choices) => {
            let mut words = String::new();
            for (n, choice) in choices.iter().enumerate() {
                let between = match n {
                    0 => "",
                    n if n + 1 == choices.len() => " or ",
                    _ => ", ",
                };
                words.push_str(&[between, "\"", choice, "\""].concat());
            }
            return words;
        }
    };
    words.to_owned()
}
