//! docs/defects.md: every defect is in it, every test that it names exists, every situation is in its table.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Outcome, Situation, all};

/// D1 to D18, then S1 to S20.
const DEFECTS: [(char, usize); 2] = [('D', 18), ('S', 20)];

/// There is nothing to run: a test reads the source.
const NOT_MEASURED: [&str; 1] = ["S20"];

/// How a cell of the measured table begins.
const PASSES: &str = "passes: ";
const FAILS: &str = "**fails**: ";

/// The measured table stands between these lines.
const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->\n";

const HEAD: &str = "| defect | test | ours | rathole 0.5.0 |\n|--|--|--|--|\n";

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/defects.md")
}

fn text() -> String {
    std::fs::read_to_string(path()).unwrap()
}

/// D2 comes before D10.
pub fn order(id: &str) -> (char, usize) {
    let (letter, number) = id.split_at(1);
    (letter.chars().next().unwrap(), number.parse().unwrap())
}

/// A row of the measured table.
pub fn row(situation: &Situation, ours: &Outcome, theirs: &Outcome) -> String {
    let cell = |outcome: &Outcome| {
        let (mark, words) = match outcome {
            Ok(words) => (PASSES, words),
            Err(words) => (FAILS, words),
        };
        let words: String = words.chars().take(400).collect();
        format!("{mark}{}", words.replace('|', "\\|"))
    };
    let Situation { id, file, name, .. } = situation;
    format!("| {id} | `{file}: {name}` | {} | {} |\n", cell(ours), cell(theirs))
}

/// Puts a table in the place of the old one.
pub fn write(table: &str) {
    let text = text();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    std::fs::write(path(), format!("{before}{BEGIN}{HEAD}{table}{END}{after}")).unwrap();
}

/// D1 to D18, S1 to S20.
fn ids() -> impl Iterator<Item = String> {
    DEFECTS.iter().flat_map(|(letter, last)| (1..=*last).map(move |n| format!("{letter}{n}")))
}

#[test]
fn every_defect_is_listed_once_with_a_test_that_exists() {
    let text = text();
    let (list, _) = text.split_once(BEGIN).unwrap();
    for id in ids() {
        let rows: Vec<_> = list.lines().filter(|line| line.starts_with(&format!("| {id} |"))).collect();
        let [row] = rows[..] else { panic!("{id}: {} rows in docs/defects.md", rows.len()) };
        let tests: Vec<_> = quoted(row).filter_map(|word| word.split_once(".rs: ")).collect();
        assert!(!tests.is_empty(), "{id}: no test is named: {row}");
        for (file, test) in tests {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{file}.rs"));
            let source =
                std::fs::read_to_string(&source).unwrap_or_else(|error| panic!("{source:?}: {error}"));
            assert!(source.contains(&format!("fn {test}(")), "{id}: there is no {test} in {file}.rs");
        }
    }
}

/// And the other way round: whatever is measured is a situation of now, of a defect that is listed.
#[test]
fn every_situation_is_listed_and_measured() {
    let text = text();
    let (list, measured) = text.split_once(BEGIN).unwrap();
    let names: BTreeSet<_> = all().iter().map(|situation| situation.name).collect();
    assert_eq!(names.len(), all().len(), "two situations of one name");
    let rows: Vec<_> =
        measured.lines().filter(|line| line.starts_with("| D") || line.starts_with("| S")).collect();
    for Situation { id, file, name, .. } in all() {
        let test = format!("`{file}: {name}`");
        let row = list.lines().find(|line| line.starts_with(&format!("| {id} |")));
        assert!(row.is_some_and(|row| row.contains(&test)), "{test} is not in the row of {id}");
        let begin = format!("| {id} | {test} | ");
        let cells: Vec<_> = rows.iter().filter_map(|row| row.strip_prefix(&begin)).collect();
        let [cells] = cells[..] else {
            panic!("{test} was measured {} times: cargo test --test defects -- --ignored", cells.len())
        };
        assert!(cells.starts_with(PASSES), "by docs/defects.md ours does not pass {test}: {cells}");
        let theirs = cells.split(" | ").nth(1);
        assert!(
            theirs.is_some_and(|cell| cell.starts_with(PASSES) || cell.starts_with(FAILS)),
            "0.5.0 was not measured in {test}: {cells}"
        );
    }
    assert_eq!(rows.len(), names.len(), "measured, but no situation of now");
}

/// A defect whose situations are all gone would be missed by nobody else.
#[test]
fn every_defect_is_measured() {
    let ids: Vec<_> = ids().filter(|id| !NOT_MEASURED.contains(&id.as_str())).collect();
    for id in &ids {
        assert!(all().iter().any(|situation| situation.id == id), "{id}: no situation");
    }
    let strangers = all().into_iter().filter(|situation| !ids.iter().any(|id| id == situation.id));
    assert_eq!(strangers.count(), 0, "a situation of a defect that is not listed");
}

/// What stands in backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}
