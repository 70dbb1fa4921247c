//! Text in a line that a person reads: nothing in it may look like another line, or steer a terminal.

use std::fmt::{self, Write};

/// A text whose harmful characters are escaped when it is written: control characters, Unicode's separators of lines
/// and paragraphs, and the marks that turn the direction of what follows.
pub struct Printable<W>(pub W);

/// Whether a character may stand in a line as it is.
pub fn is_printable(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let separates = matches!(c, '\u{2028}' | '\u{2029}');
    !(c.is_control() || turns || separates)
}

impl fmt::Display for Printable<&str> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printable(f).write_str(self.0)
    }
}

/// Escapes what is written through it.
impl<W: Write> Write for Printable<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if is_printable(c) {
                self.0.write_char(c)?;
            } else {
                c.escape_default().try_for_each(|c| self.0.write_char(c))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_harmful_is_escaped_and_nothing_else() {
        for (text, expected) in [
            ("a\u{1b}[2Jb\nc\u{9b}", "a\\u{1b}[2Jb\\nc\\u{9b}"),
            ("\u{2028}a\u{202e}", "\\u{2028}a\\u{202e}"),
            ("Ä 服务 👩\u{200d}🚀 \\n \"", "Ä 服务 👩\u{200d}🚀 \\n \""),
            ("", ""),
        ] {
            assert_eq!(Printable(text).to_string(), expected);
        }
    }
}
