//! Noise settings: which keys a pattern needs, and whether the given ones can be keys.

use zeroize::Zeroizing;

use super::check::Check;
use super::given::{Given, secret};
use super::section::Section;
use super::{Noise, Secret};

/// How a static key of one side becomes known to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// There is none.
    None,
    /// It is sent in the handshake.
    Sent,
    /// The other side must know it before.
    Known,
}

/// Who has which key in a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pattern {
    client: Key,
    server: Key,
}

/// Reads `[transport.noise]`; `run`: the half will be run. None: an error was noted.
pub(super) fn resolve(check: &mut Check<'_>, transport: &Section<'_>, server: bool) -> Option<Noise> {
    let Some(section) = transport.child("noise") else {
        let help = ["[", &transport.path("noise"), "] with the keys that the pattern needs"].concat();
        check.missing(
            transport.place("type"),
            transport.path("noise"),
            "type = \"noise\" needs this table",
            &help,
        );
        return None;
    };
    let name = section.text("pattern")?;
    let pattern = match Pattern::parse(name) {
        Ok(pattern) => pattern,
        Err(message) => {
            check.error(
                section.place("pattern"),
                section.path("pattern"),
                &message,
                super::DEFAULT_NOISE_PATTERN,
            );
            return None;
        }
    };
    let (mine, theirs) =
        if server { (pattern.server, pattern.client) } else { (pattern.client, pattern.server) };
    let (local_private_key, local_ok) = local_key(check, &section, mine);
    let remote_public_key = remote_key(check, &section, theirs, server);
    let (local, remote) = (local_ok.then_some(local_private_key)?, remote_public_key?);
    Some(Noise { pattern: name.to_owned(), local_private_key: local, remote_public_key: remote })
}

/// Our own key, and whether all is well with it.
fn local_key(check: &mut Check<'_>, section: &Section<'_>, mine: Key) -> (Option<Secret>, bool) {
    let keys = ["local_private_key", "local_private_key_file"];
    match secret(check, section, keys, true) {
        Given::Absent if mine == Key::Known => {
            let message = "the pattern needs this key: the other side must know its public key beforehand";
            check.missing(section.node.key, section.path(keys[0]), message, "made by `rathole genkey`");
            (None, check.incomplete)
        }
        Given::Absent => (None, true),
        Given::Unknown => (None, check.static_only),
        Given::Known(text, from) => {
            if mine == Key::None {
                let message = "the pattern does not use this key";
                check.warn(section.place(from), section.path(from), message, "");
            }
            match key(text.expose()) {
                Ok(bytes) => (Some(Secret::new(bytes.to_vec())), true),
                Err(message) => {
                    check.error(
                        section.place(from),
                        section.path(from),
                        &message,
                        "made by `rathole genkey`",
                    );
                    (None, false)
                }
            }
        }
    }
}

/// The other side's key. None: an error was noted.
fn remote_key(
    check: &mut Check<'_>,
    section: &Section<'_>,
    theirs: Key,
    server: bool,
) -> Option<Option<[u8; 32]>> {
    let name = "remote_public_key";
    let (at, path) = (section.place(name), section.path(name));
    if section.get(name).is_none() {
        let side = if server { "client" } else { "server" };
        if theirs == Key::Known {
            let message = ["the pattern needs this key: the public key of the ", side].concat();
            check.missing(at, path, &message, "printed by `rathole genkey` there");
            return check.incomplete.then_some(None);
        }
        if !server {
            let message =
                "nothing proves that the server is the right one: whoever is on the way can read along";
            check.warn(
                at,
                path,
                message,
                "give the server's public key, and a pattern that sends it or knows it",
            );
        }
        return Some(None);
    }
    let text = section.text(name)?;
    if theirs == Key::None {
        let message = "the pattern never shows a key of the other side: this one cannot be checked";
        check.warn(at, path.clone(), message, "NK or XX, for example");
    }
    match key(text.as_bytes()) {
        Ok(bytes) => Some(Some(*bytes)),
        Err(message) => {
            check.error(at, path, &message, "printed by `rathole genkey`");
            None
        }
    }
}

impl Pattern {
    /// Reads `Noise_NK_25519_ChaChaPoly_BLAKE2s`.
    fn parse(name: &str) -> Result<Pattern, String> {
        let parts: Vec<&str> = name.split('_').collect();
        let [noise, pattern, curve, cipher, hash] = parts[..] else {
            return Err("this is not of the form Noise_PATTERN_25519_CIPHER_HASH".to_owned());
        };
        let fault = if noise != "Noise" {
            "a pattern begins with Noise_"
        } else if pattern.contains("psk") {
            "patterns with a pre-shared key are not supported"
        } else if curve != "25519" {
            "the only curve is 25519"
        } else if !["ChaChaPoly", "AESGCM"].contains(&cipher) {
            "the ciphers are ChaChaPoly and AESGCM"
        } else if !["BLAKE2s", "BLAKE2b", "SHA256", "SHA512"].contains(&hash) {
            "the hashes are BLAKE2s, BLAKE2b, SHA256 and SHA512"
        } else if let Some(pattern) = Self::letters(pattern) {
            return Ok(pattern);
        } else {
            "the patterns are NN NK NX XN XK XX KN KK KX IN IK IX and their deferred variants (NK1, X1K ...)"
        };
        Err(fault.to_owned())
    }

    /// The two letters, each perhaps followed by the 1 of a deferred pattern.
    fn letters(text: &str) -> Option<Pattern> {
        let (client, rest) = Self::letter(text)?;
        let (server, rest) = Self::letter(rest)?;
        let responder = !text.ends_with('I') && !text.ends_with("I1");
        (rest.is_empty() && responder).then_some(Pattern { client, server })
    }

    fn letter(text: &str) -> Option<(Key, &str)> {
        let mut letters = text.chars();
        let first = letters.next()?;
        let rest = letters.as_str();
        let key = match first {
            'N' => return Some((Key::None, rest)),
            'K' => Key::Known,
            'X' | 'I' => Key::Sent,
            _ => return None,
        };
        Some((key, rest.strip_prefix('1').unwrap_or(rest)))
    }
}

/// 32 bytes from base64.
fn key(text: &[u8]) -> Result<Zeroizing<[u8; 32]>, String> {
    let Some(bytes) = base64(text) else {
        return Err("this is not base64 (with its = at the end)".to_owned());
    };
    let mut key = Zeroizing::new([0; 32]);
    if bytes.len() != key.len() {
        return Err(format!("a key has 32 bytes, this has {}", bytes.len()));
    }
    key.copy_from_slice(&bytes);
    Ok(key)
}

/// Standard base64 with padding, nothing lax.
fn base64(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let body = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    if text.len() % 4 != 0 {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let (mut bits, mut held) = (0u32, 0);
    for byte in body {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    // Bits that belong to no byte must be zero: else two texts would mean one key.
    (bits == 0 && held < 6).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_strict() {
        let zeros = "A".repeat(43) + "=";
        assert_eq!(*key(zeros.as_bytes()).unwrap(), [0; 32]);
        for (text, expected) in
            [("", Some("")), ("Zg==", Some("f")), ("Zm8=", Some("fo")), ("Zm9v", Some("foo")), ("+/+/", None)]
        {
            let decoded = base64(text.as_bytes()).unwrap();
            if let Some(expected) = expected {
                assert_eq!(decoded.as_slice(), expected.as_bytes());
            }
        }
        for text in ["Zg", "Zg=", "Zh==", "Zm9=", "Zm9v\n", "Z===", "====", "Zm9-", "Zm 9", "Z=g="] {
            assert!(base64(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn a_key_has_32_bytes() {
        for (text, why) in [("Zm9v", "this has 3"), ("", "this has 0"), ("%%%%", "not base64")] {
            let error = key(text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(key(("A".repeat(44) + "AAA=").as_bytes()).unwrap_err().contains("32 bytes"));
    }

    #[test]
    fn all_interactive_patterns_and_no_others() {
        let pattern = |letters: &str| Pattern::parse(&format!("Noise_{letters}_25519_AESGCM_SHA512"));
        let (none, sent, known) = (Key::None, Key::Sent, Key::Known);
        for (letters, client, server) in [
            ("NN", none, none),
            ("NK", none, known),
            ("NX", none, sent),
            ("XN", sent, none),
            ("XK", sent, known),
            ("XX", sent, sent),
            ("KN", known, none),
            ("KK", known, known),
            ("KX", known, sent),
            ("IN", sent, none),
            ("IK", sent, known),
            ("IX", sent, sent),
            ("NK1", none, known),
            ("X1K", sent, known),
            ("X1K1", sent, known),
            ("I1X1", sent, sent),
            ("K1N", known, none),
        ] {
            assert_eq!(pattern(letters), Ok(Pattern { client, server }), "{letters}");
        }
        for letters in
            ["", "N", "K", "X", "NI", "XI1", "N1K", "NN1", "NKX", "NK2", "nk", "NKpsk0", "XXfallback"]
        {
            assert!(pattern(letters).is_err(), "{letters}");
        }
        for name in [
            "",
            "NK",
            "noise_NK_25519_ChaChaPoly_BLAKE2s",
            "Noise_NK_448_ChaChaPoly_BLAKE2s",
            "Noise_NK_25519_XChaChaPoly_BLAKE2s",
            "Noise_NK_25519_ChaChaPoly_BLAKE3",
            "Noise_NK_25519_ChaChaPoly_BLAKE2s_x",
            "Noise_NK_25519_ChaChaPoly",
        ] {
            assert!(Pattern::parse(name).is_err(), "{name}");
        }
    }
}
