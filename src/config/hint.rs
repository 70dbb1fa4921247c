//! What someone may have meant by an unknown key: the nearest known one, or the place where it belongs.

use super::keys::{self, Key};
use super::section::Section;

/// Words of other programs (frp) and of habit, and what says it here. In snake case.
const WORDS: &[(&str, &str)] = &[
    ("remote_port", "the public port is set on the server: bind_addr in [server.services.NAME]"),
    ("local_ip", "write local_addr = \"host:port\" in [client.services.NAME]"),
    ("local_port", "write local_addr = \"host:port\" in [client.services.NAME]"),
    ("server_addr", "write remote_addr = \"host:port\" in [client]"),
    ("server_port", "write remote_addr = \"host:port\" in [client]"),
    ("bind_port", "write bind_addr = \"host:port\" in [server]"),
    ("name", "the name of a service is the key of its table: [server.services.NAME], [client.services.NAME]"),
    ("auth", "write token in a service or default_token in [server] and [client]"),
    ("common", "the two halves are [server] and [client]"),
    ("proxies", "write [server.services.NAME] and [client.services.NAME]"),
    (
        "use_encryption",
        "encryption is chosen by type = \"noise\" or \"tls\" in [server.transport] and [client.transport]",
    ),
    ("custom_domains", "put a web server in front for domains: see docs/recipes.md"),
    ("subdomain", "put a web server in front for domains: see docs/recipes.md"),
];

/// Longer names are no slip of the fingers.
const LONGEST: usize = 40;

/// Help for an unknown key of a table.
pub(super) fn unknown(section: &Section<'_>, name: &str) -> String {
    let name = snake_case(name);
    let here = || section.table.keys.iter().map(|key| key.name);
    if let Some(same) = here().find(|known| *known == name) {
        return ["did you mean ", same, "?"].concat();
    }
    if let Some((_, words)) = WORDS.iter().find(|(word, _)| *word == name) {
        return (*words).to_owned();
    }
    if let Some(places) = elsewhere(section, &name) {
        return [&name, " belongs in ", &places].concat();
    }
    if let Some(near) = nearest(&name, here()) {
        return ["did you mean ", near, "?"].concat();
    }
    let mut all: Vec<&'static str> = Vec::new();
    keys::each_key(&mut |_, key: &'static Key| {
        if !all.contains(&key.name) {
            all.push(key.name);
        }
    });
    if let Some(near) = nearest(&name, all.into_iter()) {
        if let Some(places) = elsewhere(section, near) {
            return ["did you mean ", near, "? It belongs in ", &places].concat();
        }
    }
    let mut help = String::from("known here: ");
    for (n, known) in here().enumerate() {
        help.push_str(if n > 0 { ", " } else { "" });
        help.push_str(known);
    }
    help
}

/// The tables that know a key: those of the same half if there are any.
fn elsewhere(section: &Section<'_>, name: &str) -> Option<String> {
    let here = section.path("");
    let half = here.split('.').next().unwrap_or_default();
    let mut places: Vec<String> = Vec::new();
    keys::each_key(&mut |path, key| {
        if key.name == name {
            places.push(path.to_owned());
        }
    });
    let same_half = |path: &String| path.split('.').next() == Some(half);
    if places.iter().any(same_half) {
        places.retain(same_half);
    }
    let mut text = String::new();
    for (n, path) in places.iter().enumerate() {
        text.push_str(if n > 0 { " or " } else { "" });
        if path.is_empty() {
            text.push_str("the top level");
        } else {
            text.push_str(&["[", path, "]"].concat());
        }
    }
    (!places.is_empty()).then_some(text)
}

/// The name that differs least, if it differs little.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    if name.len() > LONGEST {
        return None;
    }
    let name: Vec<char> = name.chars().collect();
    let near = known.filter_map(|known| {
        let most = (known.len() / 3).max(1);
        Some((distance(&name, known, most)?, known))
    });
    near.min().map(|(_, known)| known)
}

/// Letters to insert, delete, change, or swap with their neighbour; None: more than `most`, and soon found out, because
/// a file may have thousands of unknown keys.
fn distance(a: &[char], b: &str, most: usize) -> Option<usize> {
    let b: Vec<char> = b.chars().collect();
    if a.len().abs_diff(b.len()) > most {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut last_least = 0;
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        let mut row_least = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = cell(&last, j) + usize::from(x != y);
            let mut least = change.min(cell(&last, j + 1) + 1).min(cell(&row, j) + 1);
            if i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x) {
                least = least.min(cell(&before, j - 1) + 1);
            }
            row_least = row_least.min(least);
            row.push(least);
        }
        // Every later cell comes from this row or, by a swap, from the one before.
        if row_least > most && last_least >= most {
            return None;
        }
        last_least = row_least;
        before = std::mem::replace(&mut last, row);
    }
    Some(cell(&last, b.len())).filter(|steps| *steps <= most)
}

/// A cell of a row; far away if the row has none there.
fn cell(row: &[usize], at: usize) -> usize {
    row.get(at).map_or(usize::MAX / 2, |steps| *steps)
}

/// `bindAddr` and `bind-addr` as `bind_addr`.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    let mut after_lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && after_lower {
            snake.push('_');
        }
        after_lower = c.is_ascii_lowercase();
        snake.push(if c == '-' { '_' } else { c.to_ascii_lowercase() });
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_slips() {
        for (a, b, expected) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("token", "tokne", 1),
            ("tcp", "tpc", 1),
            ("ab", "ab", 0),
        ] {
            let a: Vec<char> = a.chars().collect();
            for most in 0..4 {
                let expected = Some(expected).filter(|steps| *steps <= most);
                assert_eq!(distance(&a, b, most), expected, "{a:?} {b} {most}");
            }
        }
    }

    #[test]
    fn other_spellings_are_understood() {
        assert_eq!(snake_case("bindAddr"), "bind_addr");
        assert_eq!(snake_case("bind-addr"), "bind_addr");
        assert_eq!(snake_case("localIP"), "local_ip");
        assert_eq!(snake_case("TYPE"), "type");
    }

    #[test]
    fn no_word_is_a_key() {
        let mut checked = 0;
        keys::each_key(&mut |_, key| {
            assert!(WORDS.iter().all(|(word, _)| *word != key.name), "{}", key.name);
            checked += 1;
        });
        assert!(checked > 50);
    }
}
