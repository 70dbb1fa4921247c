//! A secret from its key or from the file that a second key names.

use super::Secret;
use super::check::Check;
use super::section::Section;
use super::source::Value;

/// A secret, and how it came.
pub(super) enum Given {
    /// Neither the key nor its `_file` is there.
    Absent,
    /// It is there, and is not (or cannot be) known: a static check, an error already noted.
    Unknown,
    /// Here it is, and the key that gave it.
    Known(Secret, &'static str),
}

/// A secret from `key` or from the file that `file_key` names. Opens the file only if `open`.
pub(super) fn secret(
    check: &mut Check<'_>,
    section: &Section<'_>,
    [key, file_key]: [&'static str; 2],
    open: bool,
) -> Given {
    if let Some(node) = section.get(key) {
        return match &node.value {
            Value::Text(text) => Given::Known(Secret::new(text.as_bytes()), key),
            _ => Given::Unknown,
        };
    }
    if section.get(file_key).is_none() {
        return Given::Absent;
    }
    if !open || check.static_only {
        return Given::Unknown;
    }
    let Some(bytes) = check.read(section, file_key, true) else { return Given::Unknown };
    let bytes = zeroize::Zeroizing::new(bytes);
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = if line.len() < bytes.len() { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
    Given::Known(Secret::new(line), file_key)
}
