//! Changed files are taken over by themselves.

use std::io::Write;
use std::time::Duration;

use super::common::net;
use super::*;

#[test]
fn an_editor_writes_or_renames_over() {
    let (one, two) = (net::address(), net::address());
    let site = Site::new(&[("one", one)]);
    let mut server = site.start();
    assert!(server.watches());
    site.write("server.toml", &site.main(&[("one", one), ("two", two)]));
    let line = server.reloaded();
    assert!(line.contains("1 service added (two)"), "{line}");
    site.replace("server.toml", &site.main(&[("two", two)]));
    let line = server.reloaded();
    assert!(line.contains("1 service removed (one)"), "{line}");
    // vim: the old file is moved away, a new one is written, the old one is removed.
    std::fs::rename(site.path("server.toml"), site.path("server.toml~")).unwrap();
    site.write("server.toml", &site.main(&[("one", one)]));
    std::fs::remove_file(site.path("server.toml~")).unwrap();
    let line = server.reloaded();
    assert!(line.contains("1 service added (one), 1 removed (two)"), "{line}");
    // From another directory: only the arrival is seen.
    let elsewhere = tempfile::tempdir_in(site.dir.path().parent().unwrap()).unwrap();
    write(&elsewhere.path().join("x"), &site.main(&[("two", two)]));
    std::fs::rename(elsewhere.path().join("x"), site.path("server.toml")).unwrap();
    let line = server.reloaded();
    assert!(line.contains("1 service added (two), 1 removed (one)"), "{line}");
    server.stop();
}

#[test]
fn fragments_come_and_go_also_their_directory() {
    let [one, two, three] = [(); 3].map(|()| net::address());
    let site = Site::new(&[("one", one)]);
    let mut server = site.start();
    std::fs::create_dir(site.path("server.toml.d")).unwrap();
    site.replace("server.toml.d/two.toml", &service("two", two));
    let line = server.reloaded();
    assert!(line.contains("1 service added (two)"), "{line}");
    // The directory itself is watched by now.
    site.write("server.toml.d/three.toml", &service("three", three));
    let line = server.reloaded();
    assert!(line.contains("1 service added (three)"), "{line}");
    std::fs::remove_file(site.path("server.toml.d/two.toml")).unwrap();
    let line = server.reloaded();
    assert!(line.contains("1 service removed (two)"), "{line}");
    net::wait_closed(two);
    // A new directory takes the place of the old one, at once.
    std::fs::create_dir(site.path("new")).unwrap();
    site.write("new/two.toml", &service("two", two));
    std::fs::rename(site.path("server.toml.d"), site.path("old")).unwrap();
    std::fs::rename(site.path("new"), site.path("server.toml.d")).unwrap();
    let line = server.reloaded();
    assert!(line.contains("1 service added (two), 1 removed (three)"), "{line}");
    site.write("server.toml.d/three.toml", &service("three", three));
    let line = server.reloaded();
    assert!(line.contains("1 service added (three)"), "{line}");
    std::fs::remove_dir_all(site.path("server.toml.d")).unwrap();
    let line = server.reloaded();
    assert!(line.contains("2 services removed (three, two)"), "{line}");
    server.stop();
}

/// The first half is an error by itself, and later one that is none. Neither is taken: the file is still open.
#[test]
fn a_file_that_is_still_written_is_waited_for() {
    let (one, two) = (net::address(), net::address());
    let site = Site::new(&[("one", one)]);
    let mut server = site.start();
    let text = site.main(&[("one", one), ("two", two)]);
    let (first, rest) = text.split_at(text.find("[server.services.\"one\"]").unwrap() + 3);
    let mut file = std::fs::File::create(site.path("server.toml")).unwrap();
    file.write_all(first.as_bytes()).unwrap();
    // Longer than any burst is waited for, if nobody had the file open.
    std::thread::sleep(Duration::from_secs(3));
    file.write_all(rest.as_bytes()).unwrap();
    drop(file);
    let line = server.reloaded();
    assert!(line.contains("1 service added (two)"), "{line}");
    server.stop();
}

/// Several files that belong together are written one after the other: no error is told that is none any more.
#[test]
fn a_change_in_several_files_is_one() {
    // Whoever takes longer than a second for it is not believed; a busy machine may have to try again.
    let told: Vec<String> = (0..4).map_while(|_| change_in_two_files().err()).collect();
    assert!(told.len() < 4, "{told:#?}");
}

/// A service moves from the main file to a fragment: for a moment it is in both. What is told, if that is an error.
fn change_in_two_files() -> Result<(), String> {
    let (one, two) = (net::address(), net::address());
    let site = Site::new(&[("one", one)]);
    std::fs::create_dir(site.path("server.toml.d")).unwrap();
    let mut server = site.start();
    site.write("server.toml.d/one.toml", &service("one", one));
    server.process.wait_for("is this all of the change?");
    // Longer than it takes to read again.
    std::thread::sleep(Duration::from_millis(200));
    site.write("server.toml", &site.main(&[("two", two)]));
    let line = server.reloaded();
    if line.contains("refused") {
        return Err(line);
    }
    assert!(line.contains("1 service added (two)"), "{line}");
    assert!(!server.process.log().contains("already defined"));
    server.stop();
    Ok(())
}

#[test]
fn a_bad_file_is_told_once_and_changes_nothing() {
    let one = net::address();
    let site = Site::new(&[("one", one)]);
    let mut server = site.start();
    let bad = site.main(&[("one", one)]) + "colour = 1\n";
    site.write("server.toml", &bad);
    let line = server.reloaded();
    assert!(line.contains("reload refused: 1 error;"), "{line}");
    site.write("server.toml", &bad);
    server.process.wait_for(AS_BEFORE);
    assert!(net::listens(one));
    assert_eq!(server.count("unknown key"), 1);
    site.write("server.toml", &site.main(&[]));
    let line = server.reloaded();
    assert!(line.contains("1 service removed (one)"), "{line}");
    server.stop();
}

/// Written again with the same bytes, touched, given another mode: no reload, no line.
#[test]
fn what_holds_the_same_is_not_read_out_again() {
    let site = Site::new(&[]);
    let server = site.start();
    site.write("server.toml", &site.main(&[]));
    server.process.wait_for_times(AS_BEFORE, 1);
    site.replace("server.toml", &site.main(&[]));
    server.process.wait_for_times(AS_BEFORE, 2);
    std::fs::File::options()
        .write(true)
        .open(site.path("server.toml"))
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    server.process.wait_for_times(AS_BEFORE, 3);
    server.stop();
}

/// Other files in the same directory are nobody's business: the log may be one of them.
#[test]
fn other_files_in_the_directory_wake_nobody() {
    let one = net::address();
    let site = Site::new(&[("one", one)]);
    let mut server = site.start();
    std::fs::create_dir(site.path("server.toml.d")).unwrap();
    server.process.wait_for_times(AS_BEFORE, 1);
    for name in ["log", "server.toml.bak", "server.toml.d/.x.toml", "server.toml.d/README"] {
        site.write(name, "x");
    }
    // Long enough for a burst to end, had there been one.
    std::thread::sleep(Duration::from_millis(1500));
    site.write("server.toml", &site.main(&[]));
    server.reloaded();
    assert_eq!(server.count(AS_BEFORE), 1);
    server.stop();
}

/// Secrets, certificates and overlays are as much part of it as the main file, wherever they are.
#[test]
fn files_that_the_configuration_names_are_watched() {
    let one = net::address();
    let site = Site::new(&[]);
    for directory in ["secrets", "over"] {
        std::fs::create_dir(site.path(directory)).unwrap();
    }
    site.write("secrets/token", "a-token-in-a-file-0001\n");
    let text = service("one", one)
        + &format!("token_file = {:?}\n", site.path("secrets/token").display().to_string());
    site.write("server.toml", &(site.main(&[]) + &text));
    site.write("over/over.toml", "");
    let mut command = site.command();
    command.arg("--overlay").arg(site.path("over/over.toml"));
    let mut server = site.start_command(command);
    site.replace("secrets/token", "a-token-in-a-file-0002\n");
    let line = server.reloaded();
    assert!(line.contains("1 service changed (one)"), "{line}");
    site.write("over/over.toml", "[server]\nhandshake_timeout = 9\n");
    let line = server.reloaded();
    assert!(line.contains("settings: server.handshake_timeout"), "{line}");
    // One that is gone is missed, and seen to come back.
    std::fs::remove_dir_all(site.path("secrets")).unwrap();
    let line = server.reloaded();
    assert!(line.contains("refused: 1 error"), "{line}");
    std::fs::create_dir(site.path("secrets")).unwrap();
    site.write("secrets/token", "a-token-in-a-file-0003\n");
    let line = server.reloaded();
    assert!(line.contains("1 service changed (one)"), "{line}");
    server.stop();
}

/// An edit of the half that is not run does nothing to the half that is.
#[test]
fn the_other_half_of_the_file_is_not_this_ones_business() {
    let one = net::address();
    let site = Site::new(&[("one", one)]);
    let client = |name: &str| {
        format!(
            "[client]\nremote_addr = \"127.0.0.1:9\"\ndefault_token = \"token-of-the-reload-tests\"\n\
             [client.services.{name}]\nlocal_addr = \"127.0.0.1:9\"\n"
        )
    };
    site.write("server.toml", &(site.main(&[("one", one)]) + &client("x")));
    let mut server = site.start();
    site.write("server.toml", &(site.main(&[("one", one)]) + &client("y")));
    let line = server.reloaded();
    assert!(line.contains("reloaded: nothing has changed"), "{line}");
    server.stop();
}

#[test]
fn who_is_to_watch_can_be_said_and_systemd_says_it_itself() {
    let one = net::address();
    let site = Site::new(&[]);
    let watches = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = site.command();
        command.args(arguments).envs(environment.iter().copied());
        let server = site.start_command(command);
        // What is to be watched is watched before the server says that it listens, or soon after.
        server.hang_up();
        server.process.wait_for(RELOAD);
        server.watches()
    };
    let systemd = [("NOTIFY_SOCKET", "/run/systemd/notify")];
    assert!(watches(&[], &[]));
    assert!(!watches(&["--no-watch"], &[]));
    assert!(!watches(&[], &systemd));
    assert!(watches(&["--watch"], &systemd));
    // Of another process: a shell that systemd has started, say.
    assert!(watches(&[], &[("SYSTEMD_EXEC_PID", "1"), ("INVOCATION_ID", "0123456789abcdef")]));
    let mut command = Command::new("sh");
    command.args(["-c", "export SYSTEMD_EXEC_PID=$$; exec \"$0\" server \"$1\""]);
    command
        .arg(Build::Ours.program())
        .arg(site.path("server.toml"))
        .env("RUST_LOG", "debug")
        .env("NO_COLOR", "1");
    let mut server = site.start_command(command);
    server.hang_up();
    server.reloaded();
    assert!(!server.watches());
    // Not watched, but read when it is asked for.
    site.write("server.toml", &site.main(&[("one", one)]));
    server.hang_up();
    let line = server.reloaded();
    assert!(line.contains("1 service added (one)"), "{line}");
    server.stop();
}
