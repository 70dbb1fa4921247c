//! Which entries of which directories decide what a path leads to: its own name, every directory above it, and the
//! same for each symbolic link on the way. When none of them changes, the path leads to the same file.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use rathole::config::fragments::is_fragment;

/// The kernel follows no more.
const MOST_LINKS: usize = 40;

/// What matters in one directory.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Names {
    exact: HashSet<OsString>,
    fragments: bool,
}

impl Names {
    /// Whether a change of this entry may matter.
    pub fn matter(&self, name: &OsStr) -> bool {
        self.exact.contains(name) || (self.fragments && is_fragment(name))
    }

    /// What matters by another name of the same directory, matters too.
    pub fn extend(&mut self, other: &Names) {
        self.exact.extend(other.exact.iter().cloned());
        self.fragments |= other.fragments;
    }
}

/// Collects what matters, by directory.
pub struct Entries<'a> {
    /// Where a link leads; None: no link.
    link: &'a dyn Fn(&Path) -> Option<PathBuf>,
    known: HashMap<PathBuf, Option<PathBuf>>,
    found: BTreeMap<PathBuf, Names>,
}

impl<'a> Entries<'a> {
    /// Nothing yet; `link` says where a link leads.
    pub fn new(link: &'a dyn Fn(&Path) -> Option<PathBuf>) -> Self {
        Entries { link, known: HashMap::new(), found: BTreeMap::new() }
    }

    /// Adds all that an absolute path depends on. Returns what it leads to.
    pub fn add(&mut self, path: &Path) -> PathBuf {
        let mut todo: Vec<OsString> = Vec::new();
        push(&mut todo, path);
        let (mut at, mut links) = (PathBuf::from("/"), 0);
        while let Some(part) = todo.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            let whole = at.join(&part);
            self.found.entry(at.clone()).or_default().exact.insert(part);
            let target = match self.known.entry(whole.clone()) {
                Entry::Occupied(known) => known.get().clone(),
                Entry::Vacant(new) => new.insert((self.link)(&whole)).clone(),
            };
            match target {
                Some(target) if links < MOST_LINKS => {
                    links += 1;
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    push(&mut todo, &target);
                }
                _ => at = whole,
            }
        }
        at
    }

    /// Adds a directory of fragments, of which every one matters.
    pub fn add_fragments(&mut self, directory: &Path) {
        let real = self.add(directory);
        self.found.entry(real).or_default().fragments = true;
    }

    /// All of it.
    pub fn found(self) -> BTreeMap<PathBuf, Names> {
        self.found
    }
}

/// The parts of a path that are still to be walked, the next one last.
fn push(todo: &mut Vec<OsString>, path: &Path) {
    for part in path.components().rev() {
        if let Component::Normal(_) | Component::ParentDir = part {
            todo.push(part.as_os_str().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `directory: name name`, in order.
    fn entries(links: &[(&str, &str)], paths: &[&str]) -> Vec<String> {
        let link = |path: &Path| {
            links.iter().find(|(from, _)| Path::new(from) == path).map(|(_, to)| PathBuf::from(to))
        };
        let mut entries = Entries::new(&link);
        paths.iter().for_each(|path| drop(entries.add(Path::new(path))));
        let line = |(directory, names): (PathBuf, Names)| {
            let mut names: Vec<_> = names.exact.iter().map(|name| name.to_str().unwrap()).collect();
            names.sort_unstable();
            format!("{}: {}", directory.display(), names.join(" "))
        };
        entries.found().into_iter().map(line).collect()
    }

    #[test]
    fn a_plain_path_depends_on_each_directory_above() {
        assert_eq!(entries(&[], &["/etc/r/a.toml"]), ["/: etc", "/etc: r", "/etc/r: a.toml"]);
        assert_eq!(entries(&[], &["/etc/./x/../a"]), ["/: etc", "/etc: a x"]);
    }

    /// The swap is that of `..data`.
    #[test]
    fn kubernetes() {
        let links = [("/c/a.toml", "..data/a.toml"), ("/c/..data", "..2024_1"), ("/c/s", "..data/s")];
        assert_eq!(
            entries(&links, &["/c/a.toml", "/c/s"]),
            ["/: c", "/c: ..2024_1 ..data a.toml s", "/c/..2024_1: a.toml s"]
        );
    }

    /// The swap is that of `/etc/static`.
    #[test]
    fn nixos() {
        let links = [
            ("/etc/rathole", "static/rathole"),
            ("/etc/static", "/nix/store/1-etc"),
            ("/nix/store/1-etc/rathole", "/nix/store/2-rathole"),
        ];
        assert_eq!(
            entries(&links, &["/etc/rathole/a.toml"]),
            [
                "/: etc nix",
                "/etc: rathole static",
                "/nix: store",
                "/nix/store: 1-etc 2-rathole",
                "/nix/store/1-etc: rathole",
                "/nix/store/2-rathole: a.toml"
            ]
        );
    }

    #[test]
    fn links_that_lead_in_a_circle_end() {
        assert_eq!(entries(&[("/a", "b"), ("/b", "a")], &["/a/x"]).len(), 2);
        let growing = entries(&[("/a", "a/a/a")], &["/a"]);
        assert!(growing.len() < 100, "{growing:?}");
    }

    #[test]
    fn every_fragment_matters_and_nothing_else_there() {
        let mut entries = Entries::new(&|path| (path == Path::new("/d")).then(|| "/real".into()));
        entries.add_fragments(Path::new("/d"));
        let found = entries.found();
        let matter = |name: &str| found[Path::new("/real")].matter(OsStr::new(name));
        assert_eq!(["x.toml", ".x.toml", "x.toml~"].map(matter), [true, false, false]);
        assert!(found[Path::new("/")].matter(OsStr::new("d")));
    }
}
