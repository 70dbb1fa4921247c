//! What both halves' services share: tokens, names.

use super::Secret;
use super::check::Check;
use super::given::{Given, secret};
use super::section::Section;

/// Tokens with fewer bytes can be found by trying (upstream-compatible hashing is fast).
const SHORT_TOKEN: usize = 16;

const DEFAULT: [&str; 2] = ["default_token", "default_token_file"];
const OWN: [&str; 2] = ["token", "token_file"];

/// The default token of a half. Unknown if the half is not run, so that no file is opened for it.
pub(super) fn default_token(check: &mut Check<'_>, half: &Section<'_>, run: bool) -> Given {
    token(check, half, DEFAULT, run)
}

/// The token of a service. None: there is none (an error was noted), or it is not known because an error was
/// noted for its file.
pub(super) fn service_token(
    check: &mut Check<'_>,
    service: &Section<'_>,
    default: &Given,
    run: bool,
) -> Option<Secret> {
    let own = token(check, service, OWN, run);
    match if let Given::Absent = own { default } else { &own } {
        Given::Known(token, _) => Some(token.clone()),
        Given::Unknown => check.static_only.then(Secret::default),
        Given::Absent => {
            let help = "token in the service, or default_token for all of them";
            check.missing(service.node.key, service.path("token"), "this service has no token", help);
            None
        }
    }
}

/// Warns of a name that is hardly meant.
pub(super) fn check_name(check: &mut Check<'_>, service: &Section<'_>) {
    if service.name.is_empty() {
        check.warn(service.node.key, service.path(""), "the name of this service is empty", "");
    }
}

fn token(check: &mut Check<'_>, section: &Section<'_>, keys: [&'static str; 2], run: bool) -> Given {
    let given = secret(check, section, keys, run);
    if let (Given::Known(token, key), true) = (&given, run) {
        if token.len() < SHORT_TOKEN {
            let message = if token.is_empty() {
                "the token is empty: anyone can take over the service"
            } else {
                "the token is short: it can be guessed"
            };
            check.warn(section.place(key), section.path(key), message, "16 random bytes or more");
        }
    }
    given
}
