//! Without inotify: the limits of a user namespace of its own are used up from the start.

use super::common::{has, net, skip};
use super::*;

/// The server, where a limit of the kernel is so low. None: this machine allows no such thing.
fn start_with_limit(site: &Site, limit: &str, value: u32, test: &str) -> Option<Server> {
    if !has("unshare", test) {
        return None;
    }
    let set = format!("echo {value} > /proc/sys/user/{limit}");
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", script]);
        command
    };
    if !unshare(&set).output().unwrap().status.success() {
        skip(test, "no user namespace can be made here");
        return None;
    }
    let mut command = unshare(&format!("{set}; exec \"$0\" server \"$1\""));
    command.arg(Build::Ours.program()).arg(site.path("server.toml"));
    command.env("RUST_LOG", "debug").env("NO_COLOR", "1").env_remove("NOTIFY_SOCKET");
    Some(site.start_command(command))
}

fn works_by_polling(limit: &str, value: u32, test: &str) {
    let [one, two, three] = [(); 3].map(|()| net::address());
    let site = Site::new(&[("one", one)]);
    let Some(mut server) = start_with_limit(&site, limit, value, test) else { return };
    server.process.wait_for("changes of files cannot be watched (");
    assert_eq!(server.count("WARN"), 1);
    assert!(!server.watches());
    site.replace("server.toml", &site.main(&[("one", one), ("two", two)]));
    let line = server.reloaded();
    assert!(line.contains("1 service added (two)"), "{line}");
    std::fs::create_dir(site.path("server.toml.d")).unwrap();
    site.write("server.toml.d/three.toml", &service("three", three));
    let line = server.reloaded();
    assert!(line.contains("1 service added (three)"), "{line}");
    site.write("server.toml.d/three.toml", "");
    let line = server.reloaded();
    assert!(line.contains("1 service removed (three)"), "{line}");
    site.write("server.toml", "[server]\n");
    let line = server.reloaded();
    assert!(line.contains("reload refused: 2 errors"), "{line}");
    server.hang_up();
    let line = server.reloaded();
    assert!(line.contains("reload refused: 2 errors"), "{line}");
    assert!(server.process.is_running());
    server.stop();
}

#[test]
fn no_inotify_instance_is_left() {
    works_by_polling("max_inotify_instances", 0, "no_inotify_instance_is_left");
}

#[test]
fn no_inotify_watch_is_left() {
    works_by_polling("max_inotify_watches", 1, "no_inotify_watch_is_left");
}

/// The limit is reached later, by the directory of fragments.
#[test]
fn the_last_inotify_watch_is_used_up_while_it_runs() {
    let (one, two) = (net::address(), net::address());
    let site = Site::new(&[("one", one)]);
    // One for each directory above the file.
    let above = u32::try_from(site.path("server.toml").ancestors().count()).unwrap() - 1;
    let test = "the_last_inotify_watch_is_used_up_while_it_runs";
    let Some(mut server) = start_with_limit(&site, "max_inotify_watches", above, test) else { return };
    server.hang_up();
    server.reloaded();
    assert!(server.watches(), "{}", server.process.log());
    std::fs::create_dir(site.path("server.toml.d")).unwrap();
    server.process.wait_for("changes of files cannot be watched (");
    site.write("server.toml.d/two.toml", &service("two", two));
    let line = server.reloaded();
    assert!(line.contains("1 service added (two)"), "{line}");
    server.stop();
}

/// A directory that may be walked through but not read cannot be watched: that alone is polled.
#[test]
fn a_directory_that_may_not_be_read_is_polled() {
    let test = "a_directory_that_may_not_be_read_is_polled";
    if !nix::unistd::geteuid().is_root() {
        return skip(test, "only root can become somebody else");
    }
    if !has("setpriv", test) {
        return;
    }
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let (one, two) = (net::address(), net::address());
    let site = Site::new(&[("one", one)]);
    let program = site.path("rathole");
    std::fs::copy(Build::Ours.program(), &program).unwrap();
    mode(&program, 0o755);
    mode(site.dir.path(), 0o711);
    mode(&site.path("server.toml"), 0o644);
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--clear-groups"])
        .arg(&program)
        .arg("server")
        .arg(site.path("server.toml"));
    command.env("RUST_LOG", "debug").env("NO_COLOR", "1").env_remove("NOTIFY_SOCKET");
    let mut server = site.start_command(command);
    server.process.wait_for(&format!("{} cannot be watched (EACCES", site.dir.path().display()));
    assert!(server.watches());
    write(&site.path("new"), &site.main(&[("one", one), ("two", two)]));
    mode(&site.path("new"), 0o644);
    std::fs::rename(site.path("new"), site.path("server.toml")).unwrap();
    let line = server.reloaded();
    assert!(line.contains("1 service added (two)"), "{line}");
    server.stop();
}
