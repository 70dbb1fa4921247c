//! TOML text as a tree whose every node knows its file and place, so that files can be laid over one another.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

/// Tables deeper than this are not looked into: no known key lies so deep.
const DEEPEST: usize = 16;

/// More syntax errors of one file are not worth reading: they follow from the first.
const MOST_SYNTAX_ERRORS: usize = 10;

/// A file of the configuration.
pub(super) struct Source {
    pub(super) name: PathBuf,
    text: Zeroizing<String>,
    /// Offset of each line's first byte.
    lines: Vec<usize>,
}

/// A byte in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Which of the sources, in the order given.
    pub(super) file: usize,
    pub(super) offset: usize,
}

/// A value, and where it stands.
pub(super) struct Node {
    /// Where its key is.
    pub(super) key: Place,
    /// Where the value is.
    pub(super) at: Place,
    pub(super) value: Value,
}

pub(super) enum Value {
    Table(Entries),
    Text(Zeroizing<String>),
    /// 0 to 2^63-1.
    Integer(u64),
    Flag(bool),
    /// The keys of its entries are their own places.
    List(Vec<Node>),
    /// What no key takes, in words.
    Other(&'static str),
}

impl Value {
    /// In words, for "found ...".
    pub(super) fn found(&self) -> &'static str {
        match self {
            Value::Table(_) => "a table",
            Value::Text(_) => "a string",
            Value::Integer(_) => "a number",
            Value::Flag(_) => "a boolean",
            Value::List(_) => "an array",
            Value::Other(what) => what,
        }
    }
}

/// The entries of a table, sorted by name. A sorted list costs the small build less than a tree.
#[derive(Default)]
pub(super) struct Entries(pub(super) Vec<(String, Node)>);

impl Entries {
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        let at = self.0.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok()?;
        self.0.get(at).map(|(_, node)| node)
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, (String, Node)> {
        self.0.iter()
    }
}

/// Why a text is no TOML.
pub(super) struct SyntaxError {
    pub(super) offset: usize,
    pub(super) message: String,
}

impl Source {
    pub(super) fn new(name: PathBuf, text: String) -> Self {
        let text = Zeroizing::new(text);
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(newlines).collect();
        Source { name, text, lines }
    }

    /// How many bytes it has.
    pub(super) fn size(&self) -> usize {
        self.text.len()
    }

    /// Line and column of a byte, both from 1, the column in characters.
    pub(super) fn position(&self, offset: usize) -> (u32, u32) {
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let before = self.text.get(self.lines[line - 1]..offset).unwrap_or_default();
        let column = before.trim_start_matches('\u{feff}').chars().count() + 1;
        (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
    }

    /// The tree, or every syntax error. The errors hold no text of the file.
    pub(super) fn parse(&self, file: usize) -> Result<Node, Vec<SyntaxError>> {
        if let Some(offset) = self.text.find('\0') {
            return Err(vec![SyntaxError { offset, message: "this is no text file".to_owned() }]);
        }
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        if errors.is_empty() {
            let start = Place { file, offset: 0 };
            return Ok(Node { key: start, at: start, value: tree(table.get_ref(), file, 0) });
        }
        let starts = errors.iter().map(|error| error.span().map_or(self.text.len(), |span| span.start));
        let order = in_order(starts.map(|offset| Place { file, offset }));
        let mut found: Vec<SyntaxError> = Vec::new();
        let mut last_line = 0;
        for (Place { offset, .. }, n) in order {
            let (line, _) = self.position(offset);
            // A second error in the same line follows from the first.
            if line != last_line && found.len() < MOST_SYNTAX_ERRORS {
                found.push(SyntaxError { offset, message: errors[n].message().to_owned() });
            }
            last_line = line;
        }
        Err(found)
    }
}

/// The places in their order, each with its index; equal ones as they came. (A heap is a tenth of a sort's code.)
pub(super) fn in_order(places: impl Iterator<Item = Place>) -> impl Iterator<Item = (Place, usize)> {
    let mut heap: BinaryHeap<Reverse<(Place, usize)>> =
        places.enumerate().map(|(n, place)| Reverse((place, n))).collect();
    std::iter::from_fn(move || heap.pop().map(|Reverse(next)| next))
}

fn tree(table: &DeTable<'_>, file: usize, depth: usize) -> Value {
    if depth > DEEPEST {
        return Value::Other("a table nested too deep");
    }
    // The parser's own table is sorted.
    let mut entries = Vec::with_capacity(table.len());
    for (key, value) in table.iter() {
        let key_at = Place { file, offset: key.span().start };
        entries.push((key.get_ref().as_ref().to_owned(), node(key_at, value, file, depth)));
    }
    Value::Table(Entries(entries))
}

/// A value of a table or a list that is `depth` deep.
fn node(key: Place, value: &Spanned<DeValue<'_>>, file: usize, depth: usize) -> Node {
    let at = |value: &Spanned<DeValue<'_>>| Place { file, offset: value.span().start };
    let inner = match value.get_ref() {
        DeValue::Table(inner) => tree(inner, file, depth + 1),
        DeValue::String(text) => Value::Text(Zeroizing::new(text.as_ref().to_owned())),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Integer(digits) => integer(digits.as_str(), digits.radix()),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date or time"),
        DeValue::Array(_) if depth >= DEEPEST => Value::Other("an array nested too deep"),
        DeValue::Array(entries) => {
            Value::List(entries.iter().map(|entry| node(at(entry), entry, file, depth + 1)).collect())
        }
    };
    Node { key, at: at(value), value: inner }
}

fn integer(digits: &str, radix: u32) -> Value {
    if digits.starts_with('-') && digits != "-0" {
        return Value::Other("a negative number");
    }
    match i64::from_str_radix(digits, radix) {
        Ok(number) => Value::Integer(number.unsigned_abs()),
        Err(_) => Value::Other("a number above 9223372036854775807"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("a.toml".into(), text.to_owned())
    }

    fn root(text: &str, file: usize) -> Node {
        source(text).parse(file).unwrap_or_else(|errors| panic!("{}", errors[0].message))
    }

    fn at<'a>(node: &'a Node, key: &str) -> &'a Node {
        let Value::Table(entries) = &node.value else { panic!("{key} is not in a table") };
        entries.get(key).unwrap()
    }

    #[test]
    fn a_column_is_counted_in_characters() {
        let text = "\u{feff}# eins\n\"schlüssel\" = 1\r\nb = 2\n";
        let (source, root) = (source(text), root(text, 0));
        assert_eq!(source.position(at(&root, "schlüssel").at.offset), (2, 15));
        assert_eq!(source.position(at(&root, "b").key.offset), (3, 1));
        assert_eq!(source.position(text.len()), (4, 1));
        let first = "\u{feff}a = 1";
        assert_eq!(self::source(first).position(at(&self::root(first, 0), "a").key.offset), (1, 1));
    }

    #[test]
    fn integers_end_where_upstream_ends_them() {
        for (text, expected) in
            [("0", 0), ("9223372036854775807", i64::MAX as u64), ("0x1F", 31), ("1_000", 1000)]
        {
            let root = root(&format!("a = {text}"), 0);
            assert!(matches!(at(&root, "a").value, Value::Integer(n) if n == expected), "{text}");
        }
        for text in ["-1", "9223372036854775808", "1.5", "99999999999999999999999999"] {
            assert!(matches!(at(&root(&format!("a = {text}"), 0), "a").value, Value::Other(_)), "{text}");
        }
    }

    #[test]
    fn hostile_depth_is_an_error_and_not_a_crash() {
        for text in [
            format!("{}x = 1", "a.".repeat(200_000)),
            format!("[{}x]", "a.".repeat(200_000)),
            format!("a = {}", "[".repeat(200_000)),
            format!("a = {}", "{b=".repeat(200_000)),
            format!("a = {{ {}x = 1 }}", "a.".repeat(200_000)),
            format!("\"a\".{}x = 1", "a.".repeat(200_000)),
        ] {
            assert!(source(&text).parse(0).is_err(), "{}", &text[..20]);
        }
    }

    #[test]
    fn every_syntax_error_is_told_once() {
        let errors = source("a = \nb = 1\nc = = 3\n").parse(0).err().unwrap();
        let source = source("a = \nb = 1\nc = = 3\n");
        let lines: Vec<_> = errors.iter().map(|error| source.position(error.offset).0).collect();
        assert_eq!(lines, [1, 3]);
    }
}
