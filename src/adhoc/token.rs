//! Where an ad hoc run's token comes from. Never from an argument.

use std::io::{self, Read};
use std::path::PathBuf;

use rathole::config::Secret;
use zeroize::Zeroizing;

use super::SHORT_TOKEN;
use super::key_file::{reason, warn_if_open};

/// The variable that is looked at if nothing else is said.
pub const DEFAULT_ENV: &str = "RATHOLE_TOKEN";

/// A token is no longer than this (bytes): whatever is, is another file.
const LONGEST: u64 = 64 << 10;

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// A file.
    File(PathBuf),
    /// stdin.
    Stdin,
    /// A variable that must be set.
    Env(String),
    /// [`DEFAULT_ENV`], if it is set.
    Default,
}

impl TokenSource {
    /// Of `--token-file` and `--token-env`, of which at most one may be given.
    pub fn new(file: Option<PathBuf>, env: Option<String>) -> Result<TokenSource, String> {
        match (file, env) {
            (Some(_), Some(_)) => Err("'--token-file' cannot be used with '--token-env'".to_owned()),
            (Some(path), None) if path.as_os_str() == "-" => Ok(TokenSource::Stdin),
            (Some(path), None) => Ok(TokenSource::File(path)),
            (None, Some(name)) if name.is_empty() || name.contains(['=', '\0']) => {
                Err("'--token-env' must be the name of an environment variable".to_owned())
            }
            (None, Some(name)) => Ok(TokenSource::Env(name)),
            (None, None) => Ok(TokenSource::Default),
        }
    }

    /// The token; None if nothing was said and the default variable is not set. Errors name the source.
    pub fn read(&self) -> Result<Option<Secret>, String> {
        let (token, name) = match self {
            TokenSource::File(path) => {
                let name = path.display().to_string();
                let file = std::fs::File::open(path)
                    .map_err(|error| format!("cannot read the token from {name}: {}", reason(&error)))?;
                warn_if_open(path, &file);
                (read(file, &name)?, name)
            }
            TokenSource::Stdin => (read(io::stdin().lock(), "stdin")?, "stdin".to_owned()),
            TokenSource::Env(name) => match env(name)? {
                Some(token) => (token, format!("the environment variable {name}")),
                None => return Err(format!("the environment variable {name} is not set")),
            },
            TokenSource::Default => match env(DEFAULT_ENV)? {
                Some(token) => (token, format!("the environment variable {DEFAULT_ENV}")),
                None => return Ok(None),
            },
        };
        if token.is_empty() {
            return Err(format!("the token is empty in {name}"));
        }
        if token.len() < SHORT_TOKEN {
            tracing::warn!("the token has fewer than {SHORT_TOKEN} characters and may be guessed ({name})");
        }
        Ok(Some(token))
    }
}

fn env(name: &str) -> Result<Option<Secret>, String> {
    match std::env::var(name) {
        Ok(token) => Ok(Some(Secret::new(token))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(format!("the environment variable {name} is not UTF-8"))
        }
    }
}

/// All of it but one trailing newline.
fn read(from: impl Read, name: &str) -> Result<Secret, String> {
    let mut bytes = Zeroizing::new(Vec::new());
    from.take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot read the token from {name}: {}", reason(&error)))?;
    if bytes.len() as u64 > LONGEST {
        return Err(format!("{name} is longer than any token ({LONGEST} bytes)"));
    }
    if std::str::from_utf8(&bytes).is_err() {
        return Err(format!("{name} is not UTF-8 text"));
    }
    let token = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    Ok(Secret::new(token.strip_suffix(b"\r").unwrap_or(token)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_newline_is_stripped() {
        for (text, token) in [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a ")] {
            assert_eq!(read(text.as_bytes(), "test").unwrap().expose(), token.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        assert!(read(&[0xff, 0xfe][..], "test").unwrap_err().contains("UTF-8"));
        assert!(read(io::repeat(b'a'), "test").unwrap_err().contains("longer"));
        let directory = TokenSource::File(PathBuf::from("/"));
        assert!(directory.read().unwrap_err().contains("it is a directory"));
    }
}
