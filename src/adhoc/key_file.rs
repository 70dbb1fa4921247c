//! Files that hold a secret: the server's Noise key, which is made if absent.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A warning if others may read a secret's file.
pub fn warn_if_open(path: &Path, file: &File) {
    let Ok(metadata) = file.metadata() else { return };
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        let path = path.display();
        tracing::warn!("{path} holds a secret, and others may read it; chmod 600 {path}");
    }
}

/// The reason in a few words, without the system's number.
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(all(feature = "noise", feature = "server"))]
pub use noise::read_or_make;

#[cfg(all(feature = "noise", feature = "server"))]
mod noise {
    use super::*;

    use std::fs::OpenOptions;
    use std::io::{Read, Write};
    use std::os::unix::fs::OpenOptionsExt;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use rathole::config::Secret;
    use rathole::transport::noise::{Keypair, public_key, to_base64};
    use zeroize::Zeroizing;

    /// The pair whose private key is in the file, which is made with mode 0600 if absent.
    pub fn read_or_make(path: &Path) -> Result<Keypair, String> {
        let name = path.display();
        match File::open(path) {
            Ok(file) => {
                warn_if_open(path, &file);
                read(file).map_err(|why| format!("no Noise key in {name}: {why}"))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(path).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => {
                        format!("cannot make the key file {name}: there is no such directory")
                    }
                    _ => format!("cannot make the key file {name}: {}", reason(&error)),
                })
            }
            Err(error) => Err(format!("cannot read the key file {name}: {}", reason(&error))),
        }
    }

    fn read(file: File) -> Result<Keypair, String> {
        let mut text = Zeroizing::new(Vec::new());
        file.take(1024).read_to_end(&mut text).map_err(|error| reason(&error))?;
        let private = Zeroizing::new(STANDARD.decode(text.trim_ascii()).unwrap_or_default());
        match public_key(&private) {
            Some(public) => Ok(Keypair { private: Secret::new(private.to_vec()), public }),
            None => Err("it must be the base64 of 32 bytes, as `rathole genkey` prints it".to_owned()),
        }
    }

    fn make(path: &Path) -> io::Result<Keypair> {
        let pair = Keypair::generate()?;
        let text = Zeroizing::new(to_base64(pair.private.expose()) + "\n");
        // Whoever is quicker has the file; it is never overwritten.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        if written.is_err() {
            let _ = std::fs::remove_file(path);
        }
        written.map(|()| pair)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_key_is_made_once_and_read_again() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("key");
            let made = read_or_make(&path).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(std::fs::read(&path).unwrap().len(), 45);
            assert_eq!(read_or_make(&path).unwrap().public, made.public);
        }

        #[test]
        fn what_is_no_key_is_told_without_quoting_it() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("key");
            for text in ["", "c2hvcnQ=\n", "not base64", &"QUFB".repeat(11)] {
                std::fs::write(&path, text).unwrap();
                let error = read_or_make(&path).err().unwrap();
                assert!(error.contains("32 bytes") && error.contains("key"), "{error}");
                assert!(text.is_empty() || !error.contains(text.trim()), "{error}");
            }
            assert!(read_or_make(directory.path()).err().unwrap().contains("it is a directory"));
            assert!(read_or_make(&path.join("x")).is_err());
            let nowhere = directory.path().join("absent").join("key");
            assert!(read_or_make(&nowhere).err().unwrap().contains("no such directory"));
        }
    }
}
