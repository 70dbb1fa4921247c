//! docs/recipes.md: its sections, its blocks, and the pair of files of a section, run as it stands there.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::process::{Process, run};
use super::tunnel::Build;

/// The recipe that makes keys.
pub const KEYS: &str = "Noise keys and a token";

/// The recipe that makes certificates.
pub const OWN_CA: &str = "TLS with an own CA";

/// The public key that the page shows.
const SHOWN_KEY: &str = "VraLp8mu9LQ2V+s1VS2N+ggwZCIBTtf2yR2/J6py6D0=";

/// The whole page.
pub fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/recipes.md");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The sections of the page: heading and text.
pub fn sections() -> Vec<(String, String)> {
    let page = page();
    let sections = page.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap());
    sections.map(|(heading, text)| (heading.to_owned(), text.to_owned())).collect()
}

/// The text under a heading.
pub fn section(heading: &str) -> String {
    let found = sections().into_iter().find(|(name, _)| name == heading);
    found.unwrap_or_else(|| panic!("docs/recipes.md has no section {heading:?}")).1
}

/// The fenced blocks of one language.
pub fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The TOML files of a section: the first line of each says its name.
pub fn files(text: &str) -> Vec<(String, String)> {
    let named = |block: String| {
        let name = block.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
        assert!(name.ends_with(".toml"), "a block without its file's name:\n{block}");
        (name.to_owned(), block)
    };
    blocks(text, "toml").into_iter().map(named).collect()
}

/// Replaces what must be there.
pub fn put(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from:?} in:\n{text}");
    text.replace(from, to)
}

/// A shell with our program as `rathole`, in a directory.
pub fn shell(script: &str, dir: &Path) -> Command {
    let program = Build::Ours.program();
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-e", "-c", script]).current_dir(dir).env("PATH", path);
    command
}

/// The CA and the certificate of the page, for more names or addresses: `ca.pem`, `server.pem`, `server.key`.
pub fn make_certificate(dir: &Path, also: &str) {
    let commands = blocks(&section(OWN_CA), "sh");
    let script = put(&commands[0], "DNS:example.com\\n", &format!("DNS:example.com,{also}\\n"));
    run(&mut shell(&script, dir));
}

/// The server's and the client's file of a section, in a directory with a token.
pub struct Pair {
    /// Where they go.
    pub dir: TempDir,
    /// server.toml.
    pub server: String,
    /// client.toml.
    pub client: String,
}

impl Pair {
    /// Takes them from the page.
    pub fn new(heading: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut secret = std::fs::OpenOptions::new();
        let mut token = secret.write(true).create(true).mode(0o600).open(dir.path().join("token")).unwrap();
        std::io::Write::write_all(&mut token, b"0123456789abcdef0123456789abcdef\n").unwrap();
        let [server, client] =
            <[_; 2]>::try_from(files(&section(heading))).expect("a server's file, a client's");
        assert_eq!((server.0.as_str(), client.0.as_str()), ("server.toml", "client.toml"));
        Pair { dir, server: server.1, client: client.1 }
    }

    /// Makes keys and a token with the commands of the page.
    pub fn make_keys(&self) {
        let commands = blocks(&section(KEYS), "sh");
        assert_eq!(commands.len(), 1);
        run(&mut shell(&commands[0], self.dir.path()));
    }

    /// Puts the key that was made in the place of the one that the page shows.
    pub fn use_keys(&mut self) {
        let key = std::fs::read_to_string(self.dir.path().join("noise.pub")).unwrap();
        self.put(SHOWN_KEY, key.trim_end());
    }

    /// Replaces a value that must be there.
    pub fn put(&mut self, from: &str, to: impl ToString) {
        let (from, to) = (format!("\"{from}\""), format!("\"{}\"", to.to_string()));
        let both = format!("{}{}", self.server, self.client);
        assert!(both.contains(&from), "no {from} in:\n{both}");
        self.server = self.server.replace(&from, &to);
        self.client = self.client.replace(&from, &to);
    }

    /// Starts one of them, with some variables.
    pub fn start(&self, role: &str, variables: &[(&str, &Path)]) -> Process {
        std::fs::write(self.dir.path().join("server.toml"), &self.server).unwrap();
        std::fs::write(self.dir.path().join("client.toml"), &self.client).unwrap();
        let line = format!("exec rathole {role} {role}.toml");
        let mut command = shell(&line, self.dir.path());
        command.envs(variables.iter().copied());
        Process::start(&line, command)
    }
}
