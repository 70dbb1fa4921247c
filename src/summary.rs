//! What came of a reload, in one line for the log.

use rathole::config::quoted;
use rathole::reload::Outcome;

/// So many names are told; of more only the number.
const MOST_NAMED: usize = 10;

/// One line that says what a reload did.
pub fn summary(outcomes: &[(&'static str, Outcome)]) -> String {
    let mut parts = Vec::new();
    for (role, outcome) in outcomes {
        let changes =
            [("added", &outcome.added), ("changed", &outcome.changed), ("removed", &outcome.removed)];
        let mut line = String::new();
        for (what, names) in changes.into_iter().filter(|(_, names)| !names.is_empty()) {
            let (between, noun) = match (line.is_empty(), names.len()) {
                (false, _) => (", ", ""),
                (true, 1) => ("", " service"),
                (true, _) => ("", " services"),
            };
            let names_in_words = list(names.iter().map(|name| quoted(name)));
            line.push_str(&format!("{between}{}{noun} {what} ({names_in_words})", names.len()));
        }
        if !line.is_empty() {
            parts.push(if outcomes.len() > 1 { format!("{role}: {line}") } else { line });
        }
    }
    let outcomes = || outcomes.iter().map(|(_, outcome)| outcome);
    let keys: [(&str, Vec<&String>); 3] = [
        ("settings", outcomes().flat_map(|outcome| &outcome.settings).collect()),
        ("needs restart", outcomes().flat_map(|outcome| &outcome.needs_restart).collect()),
        ("failed", outcomes().flat_map(|outcome| outcome.failed.iter().map(|(key, _)| key)).collect()),
    ];
    for (what, keys) in keys.into_iter().filter(|(_, keys)| !keys.is_empty()) {
        parts.push(format!("{what}: {}", list(keys.into_iter().cloned())));
    }
    if parts.is_empty() { "nothing has changed".to_owned() } else { parts.join("; ") }
}

/// Names one after the other, but not thousands.
fn list(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(MOST_NAMED);
    let mut text = names.take(MOST_NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let names = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
        Outcome {
            added: names(&["x"]),
            changed: names(&["a", "b c\n"]),
            removed: names(&[]),
            settings: vec!["server.visitor_timeout".to_owned()],
            needs_restart: vec!["server.bind_addr".to_owned()],
            failed: vec![("server.services.x.bind_addr".to_owned(), "address in use".to_owned())],
        }
    }

    #[test]
    fn one_line_says_all() {
        assert_eq!(
            summary(&[("server", outcome())]),
            "1 service added (x), 2 changed (a, \"b c\\u{a}\"); settings: server.visitor_timeout; \
             needs restart: server.bind_addr; failed: server.services.x.bind_addr"
        );
        assert_eq!(summary(&[("client", Outcome::default())]), "nothing has changed");
        assert_eq!(summary(&[]), "nothing has changed");
    }

    #[test]
    fn with_both_roles_it_says_whose() {
        let removed = Outcome { removed: vec!["y".into(), "z".into()], ..Outcome::default() };
        assert_eq!(
            summary(&[("server", removed.clone()), ("client", removed)]),
            "server: 2 services removed (y, z); client: 2 services removed (y, z)"
        );
        let restart = Outcome { needs_restart: vec!["client".to_owned()], ..Outcome::default() };
        assert_eq!(summary(&[("server", Outcome::default()), ("client", restart)]), "needs restart: client");
    }

    #[test]
    fn ten_thousand_names_are_not_all_told() {
        let added = (0..10_000).map(|n| format!("n{n:04}").into()).collect();
        let line = summary(&[("server", Outcome { added, ..Outcome::default() })]);
        assert!(line.starts_with("10000 services added (n0000, n0001, "), "{line}");
        assert!(line.ends_with(" and 9990 more)") && line.len() < 200, "{line}");
    }
}
