//! What is not as the configuration wants it is told again until it is.

use super::common::net;
use super::*;

impl Server {
    /// Waits for the next line for the status; what it says.
    fn status(&self, nth: usize) -> String {
        const STATUS: &str = "status: ";
        self.process.wait_for_times(STATUS, nth);
        let log = self.process.log();
        let line = log.lines().filter_map(|line| line.split_once(STATUS)).nth(nth - 1);
        line.unwrap().1.trim_end().to_owned()
    }
}

#[test]
fn the_status_says_what_is_left_to_do_until_it_is_done() {
    let [one, taken, elsewhere] = [(); 3].map(|()| net::address());
    let site = Site::new(&[("one", one)]);
    let mut server = site.start_with("--no-watch");
    let occupant = std::net::TcpListener::bind(taken).unwrap();
    let moved =
        site.main(&[("one", one), ("web", taken)]).replace(&site.control.to_string(), &elsewhere.to_string());
    site.write("server.toml", &moved);
    server.hang_up();
    server.reloaded();
    let left = "2 services; needs restart: server.bind_addr";
    let unbound =
        format!("{left}; not bound: web (cannot bind TCP {taken}: Address already in use (os error 98)");
    assert!(server.status(1).starts_with(&unbound), "{}", server.status(1));
    // An error adds to it.
    site.write("server.toml", &(moved.clone() + "colour = 1\n"));
    server.hang_up();
    server.reloaded();
    let status = server.status(2);
    assert!(
        status.starts_with(&unbound) && status.ends_with("; 1 error in the files: what was before goes on"),
        "{status}"
    );
    // Nothing else is asked for, and yet all is told again.
    site.write("server.toml", &moved);
    server.hang_up();
    let line = server.reloaded();
    assert!(
        line.contains("needs restart: server.bind_addr; failed: server.services.web.bind_addr"),
        "{line}"
    );
    assert_eq!(server.status(3), server.status(1));
    drop(occupant);
    // Without any reload.
    assert_eq!(server.status(4), left);
    server.process.wait_for("service listens at last");
    site.write("server.toml", &site.main(&[("web", taken)]));
    server.hang_up();
    server.reloaded();
    assert_eq!(server.status(5), "1 service");
    // The same as before: no line.
    server.hang_up();
    server.reloaded();
    let log = server.stop();
    assert_eq!(log.matches("status: ").count(), 5, "{log}");
}

#[test]
fn an_error_that_was_corrected_before_everything_was_up_is_not_told_of_afterwards() {
    let site = Site::new(&[]);
    let text = site.main(&[]);
    let nameless = text.replace(&site.control.to_string(), "no-such-host.invalid:2333");
    site.write("server.toml", &nameless);
    let mut command = site.command();
    command.arg("--no-watch");
    let process = Process::start("server", command);
    process.wait_for("waiting for its name to resolve");
    let mut server = Server { process, told: 0 };
    site.write("server.toml", "[server]\ncolour = 1\n");
    server.hang_up();
    assert!(server.reloaded().contains("refused: "));
    site.write("server.toml", &text);
    server.hang_up();
    server.reloaded();
    net::wait_listening(site.control);
    server.hang_up();
    server.reloaded();
    let log = server.stop();
    assert!(!log.contains("status: "), "{log}");
}
