//! How the trees of several files become one: an overlay replaces what is below it, fragments only add.

use std::vec::IntoIter;

use super::section::quoted;
use super::source::{Entries, Node, Place, Value};

/// A key that two of the files define that may only add.
pub(super) struct Twice {
    /// Where it was before.
    pub(super) first: Place,
    /// Where it is again.
    pub(super) again: Place,
    /// The whole key.
    pub(super) path: String,
    pub(super) is_service: bool,
}

/// Lays one tree over another: tables are merged, anything else is replaced.
pub(super) fn overlay(base: &mut Node, over: Node) {
    merge(base, over, None);
}

/// One tree of all, which may share tables, but neither a service nor any other key; the first one counts.
pub(super) fn join(trees: Vec<Node>) -> (Option<Node>, Vec<Twice>) {
    let mut adding = Adding::default();
    let count = trees.len();
    let root = halves(&mut trees.into_iter(), count, &mut adding);
    (root, adding.twice)
}

/// Joins the next `count` trees. By halves: thousands of files cost little more than one that is as long as all.
fn halves(trees: &mut IntoIter<Node>, count: usize, adding: &mut Adding) -> Option<Node> {
    let half = count / 2;
    if half == 0 {
        return trees.next();
    }
    let mut first = halves(trees, half, adding)?;
    merge(&mut first, halves(trees, count - half, adding)?, Some(adding));
    Some(first)
}

/// Where a merge is that may not replace anything, and what it could not add.
#[derive(Default)]
struct Adding {
    path: Vec<String>,
    twice: Vec<Twice>,
}

impl Adding {
    /// A service belongs to one file, whole.
    fn in_service(&self) -> bool {
        matches!(&*self.path, [_, list, _] if list == "services")
    }
}

fn merge(base: &mut Node, over: Node, adding: Option<&mut Adding>) {
    let whole = adding.as_deref().is_some_and(Adding::in_service);
    match (&mut base.value, over.value) {
        (Value::Table(below), Value::Table(above)) if !whole => entries(below, above, adding),
        (_, value) => match adding {
            None => *base = Node { value, ..over },
            Some(Adding { path, twice }) => {
                let mut whole_path = String::new();
                for part in path {
                    whole_path.push_str(if whole_path.is_empty() { "" } else { "." });
                    whole_path.push_str(&quoted(part));
                }
                twice.push(Twice { first: base.key, again: over.key, path: whole_path, is_service: whole });
            }
        },
    }
}

fn entries(below: &mut Entries, above: Entries, mut adding: Option<&mut Adding>) {
    let mut above = above.0.into_iter().peekable();
    let mut merged = Vec::with_capacity(below.0.len() + above.len());
    for (name, mut node) in below.0.drain(..) {
        while let Some(new) = above.next_if(|(new, _)| *new < name) {
            merged.push(new);
        }
        if let Some((_, over)) = above.next_if(|(same, _)| *same == name) {
            if let Some(adding) = &mut adding {
                adding.path.push(name.clone());
            }
            merge(&mut node, over, adding.as_deref_mut());
            if let Some(adding) = &mut adding {
                adding.path.pop();
            }
        }
        merged.push((name, node));
    }
    merged.extend(above);
    below.0 = merged;
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;

    fn root(text: &str, file: usize) -> Node {
        Source::new("a.toml".into(), text.to_owned())
            .parse(file)
            .unwrap_or_else(|errors| panic!("{}", errors[0].message))
    }

    fn at<'a>(node: &'a Node, key: &str) -> &'a Node {
        let Value::Table(entries) = &node.value else { panic!("{key} is not in a table") };
        entries.get(key).unwrap()
    }

    #[test]
    fn an_overlay_wins_value_by_value_and_keeps_its_own_place() {
        let mut base = root("[a]\nx = 1\ny = 2\n", 0);
        overlay(&mut base, root("[a]\ny = 3\n[b]\nz = 4\n", 1));
        let a = at(&base, "a");
        assert!(matches!(at(a, "x"), Node { value: Value::Integer(1), at: Place { file: 0, .. }, .. }));
        assert!(matches!(at(a, "y"), Node { value: Value::Integer(3), at: Place { file: 1, .. }, .. }));
        assert!(matches!(at(at(&base, "b"), "z"), Node { value: Value::Integer(4), .. }));
    }

    #[test]
    fn whatever_the_number_of_files_all_keys_come_together_in_order() {
        for count in 0..20 {
            let trees = (0..count).map(|n| root(&format!("[s.services.n{n}]\nx = {n}\n[s]\nk{n} = 1"), n));
            let (joined, twice) = join(trees.collect());
            assert!(twice.is_empty());
            let Some(joined) = joined else {
                assert_eq!(count, 0);
                continue;
            };
            for n in 0..count {
                let services = at(at(&joined, "s"), "services");
                assert_eq!(at(at(services, &format!("n{n}")), "x").at.file, n);
                at(at(&joined, "s"), &format!("k{n}"));
            }
        }
    }

    #[test]
    fn what_two_files_define_is_told_with_both_places() {
        let texts = [
            "[server]\nbind_addr = \"a\"\n[server.services.one]\nx = 1",
            "[server.services.\"t w.o\"]\nx = 1",
            "[server.services.one]\ny = 1\n[server.transport.tcp]\nz = 1",
            "[server.services.\"t w.o\"]\n[server]\nbind_addr = \"b\"\ntransport = 1",
        ];
        let trees = texts.iter().enumerate().map(|(n, text)| root(text, n)).collect();
        let (joined, twice) = join(trees);
        let mut told: Vec<_> = twice
            .iter()
            .map(|twice| (twice.path.as_str(), twice.first.file, twice.again.file, twice.is_service))
            .collect();
        told.sort_unstable();
        assert_eq!(
            told,
            [
                ("server.bind_addr", 0, 3, false),
                ("server.services.\"t w.o\"", 1, 3, true),
                ("server.services.one", 0, 2, true),
                ("server.transport", 2, 3, false),
            ]
        );
        let one = at(at(at(&joined.unwrap(), "server"), "services"), "one").at.file;
        assert_eq!(one, 0, "the first one counts");
    }
}
