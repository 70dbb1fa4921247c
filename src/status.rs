//! What an instance has to say of itself, in one line: what it serves, and what is not as its configuration wants it.
//! Values only.

use std::fmt;
use std::sync::Arc;

use rathole::config::quoted;
use rathole::reload::{Outcome, Unbound};

/// So many are named; of more only the number.
const MOST_NAMED: usize = 3;

/// How a running instance is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The roles that run, each with the number of its services.
    roles: Vec<(&'static str, usize)>,
    /// Keys that only a restart takes over.
    needs_restart: Vec<String>,
    /// Services that lack their address, and why: the first few,
    unbound: Vec<(Arc<str>, Arc<str>)>,
    /// and how many there are.
    all_unbound: usize,
    /// Of the last reading, if it was refused.
    errors: usize,
}

impl Status {
    /// Of roles that have just started, each with the number of its services.
    pub fn new(roles: Vec<(&'static str, usize)>) -> Self {
        Status { roles, ..Status::default() }
    }

    /// A configuration was taken over: of these services, with this outcome, by role.
    pub fn on_reload(&mut self, roles: &[(&'static str, usize)], outcomes: &[(&'static str, Outcome)]) {
        for (role, services) in &mut self.roles {
            // One that should not run any more goes on with what it has.
            if let Some((_, now)) = roles.iter().find(|(name, _)| name == role) {
                *services = *now;
            }
        }
        self.needs_restart = outcomes.iter().flat_map(|(_, outcome)| outcome.needs_restart.clone()).collect();
        self.errors = 0;
    }

    /// A configuration was refused for so many errors.
    pub fn on_refusal(&mut self, errors: usize) {
        self.errors = errors;
    }

    /// Other services lack their address.
    pub fn on_unbound(&mut self, unbound: &Unbound) {
        self.all_unbound = unbound.len();
        let few = unbound.iter().take(MOST_NAMED);
        self.unbound = few.map(|(name, why)| (name.clone(), why.clone())).collect();
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = |(role, services): &(&str, usize)| {
            let plural = if *services == 1 { "" } else { "s" };
            let of = if self.roles.len() > 1 { format!("{role}: ") } else { String::new() };
            format!("{of}{services} service{plural}")
        };
        let mut parts = vec![self.roles.iter().map(role).collect::<Vec<_>>().join(", ")];
        if !self.needs_restart.is_empty() {
            let keys = self.needs_restart.iter().take(MOST_NAMED).cloned();
            parts.push(format!("needs restart: {}", list(keys, self.needs_restart.len())));
        }
        if self.all_unbound > 0 {
            let services = self.unbound.iter().map(|(name, why)| format!("{} ({why})", quoted(name)));
            parts.push(format!("not bound: {}", list(services, self.all_unbound)));
        }
        match self.errors {
            0 => {}
            1 => parts.push("1 error in the files: what was before goes on".to_owned()),
            errors => parts.push(format!("{errors} errors in the files: what was before goes on")),
        }
        f.write_str(&parts.join("; "))
    }
}

fn list(first: impl Iterator<Item = String>, all: usize) -> String {
    let text = first.collect::<Vec<_>>().join(", ");
    match all.saturating_sub(MOST_NAMED) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unbound(names: &[&str]) -> Unbound {
        names.iter().map(|name| ((*name).into(), "127.0.0.1:80: Address already in use".into())).collect()
    }

    #[test]
    fn what_is_not_as_it_should_be_is_told_until_it_is() {
        let mut status = Status::new(vec![("server", 1)]);
        assert_eq!(status.to_string(), "1 service");
        let needs_restart = vec!["server.bind_addr".to_owned()];
        status.on_reload(&[("server", 3)], &[("server", Outcome { needs_restart, ..Outcome::default() })]);
        status.on_unbound(&unbound(&["web"]));
        let line = "3 services; needs restart: server.bind_addr; \
                    not bound: web (127.0.0.1:80: Address already in use)";
        assert_eq!(status.to_string(), line);
        status.on_refusal(2);
        assert_eq!(status.to_string(), format!("{line}; 2 errors in the files: what was before goes on"));
        status.on_reload(&[("server", 3)], &[("server", Outcome::default())]);
        status.on_unbound(&unbound(&[]));
        assert_eq!(status.to_string(), "3 services");
    }

    #[test]
    fn both_roles_are_told_and_one_that_should_end_keeps_its_number() {
        let mut status = Status::new(vec![("server", 2), ("client", 1)]);
        assert_eq!(status.to_string(), "server: 2 services, client: 1 service");
        let needs_restart = vec!["client".to_owned()];
        status.on_reload(&[("server", 0)], &[("client", Outcome { needs_restart, ..Outcome::default() })]);
        assert_eq!(status.to_string(), "server: 0 services, client: 1 service; needs restart: client");
    }

    #[test]
    fn of_thousands_a_few_are_named() {
        let names: Vec<_> = (0..10_000).map(|n| format!("s{n:04}")).collect();
        let mut status = Status::new(vec![("server", 10_000)]);
        status.on_unbound(&unbound(&names.iter().map(String::as_str).collect::<Vec<_>>()));
        let line = status.to_string();
        assert!(line.ends_with(", s0002 (127.0.0.1:80: Address already in use) and 9997 more"), "{line}");
    }
}
