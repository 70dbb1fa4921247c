//! Noise keys, from `--genkey`.

use std::path::Path;
use std::process::Command;

use super::process::run;

/// A key pair, in base64.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// Stays with its owner.
    pub private: String,
    /// What the other side pins.
    pub public: String,
}

impl KeyPair {
    /// Asks `program` for one, in the exact format of rathole 0.5.0.
    pub fn from(program: &Path) -> Self {
        let text = run(Command::new(program).arg("--genkey"));
        let lines: Vec<_> = text.lines().collect();
        let ["Private Key:", private, "", "Public Key:", public] = lines[..] else {
            panic!("unexpected --genkey output: {text:?}")
        };
        assert!(private.len() == 44 && public.len() == 44 && text.ends_with('\n'), "{text:?}");
        KeyPair { private: private.to_owned(), public: public.to_owned() }
    }
}
