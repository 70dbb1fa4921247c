//! stdout and stderr. A reader that has gone away ends the output, never the process with a panic.

use std::io::{self, Write};

use super::Exit;

/// Writes a result to stdout. Returns `exit`, or a runtime error if stdout cannot be written (a full disk).
pub fn print_or(exit: Exit, text: &str) -> Exit {
    match print(text) {
        Ok(()) => exit,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit,
        Err(error) => {
            complain(&format!("error: cannot write to stdout: {error}\n"));
            Exit::Runtime
        }
    }
}

/// Writes to stdout, at once.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes to stderr. There is nowhere to report a failure to.
pub fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
