//! Running: ports that are taken, signals, the log, ad hoc.
#![allow(clippy::unwrap_used)]
#![cfg(all(feature = "server", feature = "client"))]

mod cli_support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use cli_support::*;

const TOKEN: &str = "a-token-that-is-long-enough-0123456789";

fn server_toml(bind: &str, service: &str) -> String {
    format!(
        "[server]\nbind_addr = \"{bind}\"\ndefault_token = \"{TOKEN}\"\nshutdown_grace = 1\n\
         [server.services.echo]\nbind_addr = \"{service}\"\n"
    )
}

/// A free port of loopback, for a file that cannot say 0.
fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Sends back whatever comes, until the peer's end.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let mut tcp = tcp.unwrap();
            std::thread::spawn(move || {
                let mut reader = tcp.try_clone().unwrap();
                let _ = std::io::copy(&mut reader, &mut tcp);
                let _ = tcp.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    port
}

fn visit(port: u16) -> TcpStream {
    let tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp
}

fn says(tcp: &mut TcpStream, text: &str) {
    tcp.write_all(text.as_bytes()).unwrap();
    let mut back = vec![0; text.len()];
    tcp.read_exact(&mut back).unwrap();
    assert_eq!(back, text.as_bytes());
}

/// The command for the other side, as arguments and a token.
struct Offer {
    token: String,
    args: Vec<String>,
}

impl Offer {
    fn read(line: &str) -> Offer {
        let (token, rest) = line.split_once(' ').unwrap();
        let token = token.strip_prefix("RATHOLE_TOKEN=").unwrap().to_owned();
        let args = rest.strip_prefix("rathole ").unwrap();
        Offer { token, args: args.split(' ').map(str::to_owned).collect() }
    }

    /// With the real local address.
    fn start(&self, local: u16) -> Running {
        let mut args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let at = args.iter().position(|arg| arg.starts_with("echo=")).unwrap();
        let service = format!("echo=127.0.0.1:{local}");
        args[at] = &service;
        let mut command = rathole(&args);
        command.env("RATHOLE_TOKEN", &self.token);
        Running::start(command)
    }
}

/// Where a server says a service is (its local address is the same port, for a name that nobody knows).
fn service_port(offer: &Offer) -> u16 {
    offer.args.last().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

#[test]
fn a_port_that_is_taken_exits_1_and_names_the_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let control = file(directory.path(), "control.toml", &server_toml(&taken, "127.0.0.1:0"));
    let said = run(&[&control]);
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{said:?}");
    assert!(
        said.err.contains(&format!("{control}:2:")) && said.err.contains("server.bind_addr"),
        "{}",
        said.err
    );
    let service = file(directory.path(), "service.toml", &server_toml("127.0.0.1:0", &taken));
    let said = run(&[&service]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains(&format!("{service}:6:")), "{}", said.err);
    assert!(said.err.contains("server.services.echo.bind_addr"), "{}", said.err);
    assert_eq!(said.err.matches(&taken).count(), 1, "the address is named once: {}", said.err);

    let said = run(&["server", "--bind", &taken, "--service", "a=127.0.0.1:0", "--plain-tcp"]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (Some(1), ""),
        "nothing is printed before all is bound: {said:?}"
    );
    assert!(said.err.contains("--bind") && said.err.contains(&taken), "{}", said.err);
}

#[test]
fn a_signal_ends_a_server_with_exit_0_and_a_line() {
    let directory = tempfile::tempdir().unwrap();
    let config = file(directory.path(), "server.toml", &server_toml("127.0.0.1:0", "127.0.0.1:0"));
    for (name, args) in
        [("TERM", &[config.as_str()] as &[&str]), ("INT", &["-s", &config]), ("TERM", &["server", &config])]
    {
        let mut server = Running::start(rathole(args));
        server.err.wait_for("listening");
        server.signal(name);
        assert_eq!(server.exit(), Some(0));
        let log = server.err.rest();
        assert!(log.contains(&format!("SIG{name}")) && log.contains("nothing was cut"), "{log}");
        assert_eq!(server.out.rest(), "", "stdout holds results only");
    }
}

#[test]
fn a_client_ends_on_a_signal_while_its_server_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "[client]\nremote_addr = \"127.0.0.1:{}\"\ndefault_token = \"{TOKEN}\"\n\
         [client.services.echo]\nlocal_addr = \"127.0.0.1:1\"\n",
        free()
    );
    let config = file(directory.path(), "client.toml", &text);
    let mut client = Running::start(rathole(&[&config]));
    client.err.wait_for("client");
    client.signal("TERM");
    assert_eq!(client.exit(), Some(0));
    assert!(client.err.rest().contains("nothing was cut"));
}

#[test]
fn both_halves_of_a_file_run_in_one_process() {
    let (control, visitors, local) = (free(), free(), echo());
    let directory = tempfile::tempdir().unwrap();
    let text = server_toml(&format!("127.0.0.1:{control}"), &format!("127.0.0.1:{visitors}"))
        + &format!(
            "[client]\nremote_addr = \"127.0.0.1:{control}\"\ndefault_token = \"{TOKEN}\"\n\
             [client.services.echo]\nlocal_addr = \"127.0.0.1:{local}\"\n"
        );
    let config = file(directory.path(), "both.toml", &text);
    let mut both = Running::start(rathole(&[&config]));
    both.err.wait_for("server is listening");
    let mut visitor = visit(visitors);
    says(&mut visitor, "hello");
    both.signal("TERM");
    // New visitors are refused, this one goes on.
    both.err.wait_for("stopping on SIGTERM");
    says(&mut visitor, "still here");
    drop(visitor);
    assert_eq!(both.exit(), Some(0));
    let log = both.err.rest();
    assert!(log.contains("nothing was cut"), "{log}");
    assert!(!log.contains(TOKEN), "{log}");
}

#[test]
fn relays_are_cut_after_the_grace_and_at_once_by_a_second_signal() {
    for hurry in [false, true] {
        let local = echo();
        let directory = tempfile::tempdir().unwrap();
        let grace = if hurry { 60 } else { 1 };
        let (control, visitors) = (free(), free());
        let text = server_toml(&format!("127.0.0.1:{control}"), &format!("127.0.0.1:{visitors}"))
            .replace("shutdown_grace = 1", &format!("shutdown_grace = {grace}"));
        let config = file(directory.path(), "server.toml", &text);
        let mut server = Running::start(rathole(&[&config]));
        server.err.wait_for("server is listening");
        let text = format!(
            "[client]\nremote_addr = \"127.0.0.1:{control}\"\ndefault_token = \"{TOKEN}\"\n\
             [client.services.echo]\nlocal_addr = \"127.0.0.1:{local}\"\n"
        );
        let config = file(directory.path(), "client.toml", &text);
        let _client = Running::start(rathole(&[&config]));
        let mut visitor = visit(visitors);
        says(&mut visitor, "hello");
        let begin = Instant::now();
        server.signal("TERM");
        server.err.wait_for("stopping on SIGTERM");
        if hurry {
            server.signal("INT");
        }
        assert_eq!(server.exit(), Some(0));
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(10) && (hurry || took >= Duration::from_secs(1)), "{took:?}");
        let log = server.err.rest();
        let line = if hurry { "1 relay was cut by a second signal" } else { "1 relay was cut after 1 s" };
        assert!(log.contains(line), "{log}");
        assert!(!matches!(visitor.read(&mut [0; 1]), Ok(1..)), "the visitor's connection has ended");
    }
}

#[test]
fn rust_log_decides_and_nonsense_is_info() {
    let directory = tempfile::tempdir().unwrap();
    let config = file(directory.path(), "server.toml", &server_toml("127.0.0.1:0", "127.0.0.1:0"));
    let started = |wish: &str| {
        let mut command = rathole(&[&config]);
        command.env("RUST_LOG", wish);
        Running::start(command)
    };
    let mut server = started("rathole=loud,,=");
    let line = server.err.wait_for("RUST_LOG");
    assert!(line.contains(" WARN ") && line.contains("info"), "{line}");
    let line = server.err.wait_for("server is listening");
    // RFC 3339, UTC, microseconds; level; target.
    assert!(line.as_bytes()[10] == b'T' && line.as_bytes()[26] == b'Z', "{line}");
    assert!(line[27..].starts_with("  INFO rathole::"), "{line}");
    assert!(!line.contains('\x1b'), "no colours in a pipe: {line:?}");
    server.signal("TERM");
    assert_eq!(server.exit(), Some(0));

    // One part is quiet, the others are not.
    let port = free();
    let text = server_toml(&format!("127.0.0.1:{port}"), "127.0.0.1:0");
    let config = file(directory.path(), "quiet.toml", &text);
    let mut command = rathole(&[&config]);
    command.env("RUST_LOG", "info,rathole::server=off");
    let mut server = Running::start(command);
    let begin = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    server.signal("TERM");
    assert_eq!(server.exit(), Some(0));
    let log = server.err.rest();
    assert!(log.contains("stopping on SIGTERM") && !log.contains("server is listening"), "{log}");
}

#[test]
fn ad_hoc_plain() {
    adhoc(&["--plain-tcp"]);
}

#[cfg(feature = "noise")]
#[test]
fn ad_hoc_encrypted() {
    adhoc(&[]);
}

#[cfg(feature = "noise")]
#[test]
fn ad_hoc_with_a_key_file() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    let args = ["--noise-key-file", key.to_str().unwrap()];
    let first = adhoc(&args);
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let second = adhoc(&args);
    let pin = |args: &[String]| args[args.iter().position(|arg| arg == "--noise-pin").unwrap() + 1].clone();
    assert_eq!(pin(&first.args), pin(&second.args), "the key is kept");
    assert_ne!(first.token, second.token, "the token is new");
    let private = std::fs::read_to_string(&key).unwrap();
    assert!(!first.args.iter().any(|arg| arg.contains(private.trim())));

    std::fs::write(&key, "nonsense").unwrap();
    let said = run(&["server", "--bind", "127.0.0.1:0", "--service", "a=127.0.0.1:0", args[0], args[1]]);
    assert_eq!((said.code, said.out.as_str()), (Some(78), ""), "{said:?}");
    assert!(said.err.contains(args[1]) && !said.err.contains("nonsense"), "{}", said.err);
}

/// Runs a server and the client that it asks for.
fn adhoc(more: &[&str]) -> Offer {
    let mut args = vec!["server", "--bind", "127.0.0.1:0", "--service", "echo=127.0.0.1:0"];
    args.extend(more);
    let mut server = Running::start(rathole(&args));
    let offer = Offer::read(&server.out.wait_for("rathole client"));
    assert!(offer.token.len() >= 32, "{}", offer.token);
    let mut client = offer.start(echo());
    let mut visitor = visit(service_port(&offer));
    says(&mut visitor, "hello");
    drop(visitor);
    for process in [&mut client, &mut server] {
        process.signal("TERM");
        assert_eq!(process.exit(), Some(0));
        let log = process.err.rest();
        assert!(!log.contains(&offer.token), "{log}");
    }
    assert_eq!(server.out.rest().lines().count(), 1, "one line on stdout");
    assert_eq!(client.out.rest(), "");
    offer
}

#[test]
fn a_given_token_is_used_and_not_printed() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "token", &format!("{TOKEN}\n"));
    let server = ["server", "--bind", "127.0.0.1:0", "--service", "echo=127.0.0.1:0", "--plain-tcp"];
    for way in ["default", "env", "file", "stdin"] {
        let mut command = match way {
            "default" => rathole(&server),
            "env" => rathole(&[&server[..], &["--token-env", "MY_TOKEN"]].concat()),
            "file" => rathole(&[&server[..], &["--token-file", &path]].concat()),
            _ => rathole(&[&server[..], &["--token-file", "-"]].concat()),
        };
        match way {
            "default" => command.env("RATHOLE_TOKEN", TOKEN),
            "env" => command.env("MY_TOKEN", TOKEN),
            _ => command.stdin(Stdio::piped()),
        };
        let mut server = Running::start(command);
        if way == "stdin" {
            let mut stdin = server.stdin();
            stdin.write_all(format!("{TOKEN}\n").as_bytes()).unwrap();
        }
        let line = server.out.wait_for("rathole client");
        assert!(!line.contains(TOKEN), "{line}");
        // The printed command is run by a shell, as a person would.
        let binary_directory = std::path::Path::new(env!("CARGO_BIN_EXE_rathole")).parent().unwrap();
        let search = format!("{}:{}", binary_directory.display(), std::env::var("PATH").unwrap());
        let (line, port) = {
            let (head, port) = line.trim().rsplit_once(':').unwrap();
            (format!("{head}:{}", echo()), port.parse::<u16>().unwrap())
        };
        let mut shell = std::process::Command::new("sh");
        let exec = line
            .replace("rathole client", "exec rathole client")
            .replacen("RATHOLE_TOKEN=\"$RATHOLE_TOKEN\" ", "", 1)
            .replacen("MY_TOKEN=\"$MY_TOKEN\" ", "", 1);
        shell.args(["-c", &exec]).env("PATH", search).env("RATHOLE_TOKEN", TOKEN).env("MY_TOKEN", TOKEN);
        shell.env_remove("RUST_LOG").stdin(Stdio::piped());
        let mut client = Running::start(shell);
        let mut stdin = client.stdin();
        stdin.write_all(TOKEN.as_bytes()).unwrap();
        drop(stdin);
        says(&mut visit(port), way);
        for process in [&mut client, &mut server] {
            process.signal("TERM");
            assert_eq!(process.exit(), Some(0), "{way}");
            assert!(!process.err.rest().contains(TOKEN));
        }
    }
}

#[test]
fn unreadable_secrets_exit_78_and_name_their_source() {
    let directory = tempfile::tempdir().unwrap();
    let empty = file(directory.path(), "empty", "\n");
    let absent = directory.path().join("absent");
    let server = ["server", "--bind", "127.0.0.1:0", "--service", "a=127.0.0.1:0", "--plain-tcp"];
    for (more, part) in [
        (["--token-file", absent.to_str().unwrap()], absent.to_str().unwrap()),
        (["--token-file", directory.path().to_str().unwrap()], "it is a directory"),
        (["--token-file", &empty], "empty"),
        (["--token-env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE"),
    ] {
        let said = run(&[&server[..], &more].concat());
        assert_eq!((said.code, said.out.as_str()), (Some(78), ""), "{said:?}");
        assert!(said.err.contains(part), "{}", said.err);
    }
}
