//! Symbolic links are swapped, as Kubernetes and NixOS do it.

use std::os::unix::fs::symlink;

use super::common::net;
use super::*;

/// Lays a link where another one is, in one step.
fn swap(target: &str, link: &Path) {
    let beside = link.with_file_name("..swap");
    symlink(target, &beside).unwrap();
    std::fs::rename(beside, link).unwrap();
}

/// A mounted ConfigMap: `server.toml -> ..data/server.toml`, `..data -> ..1`; an update makes `..2`, swaps `..data`
/// and removes `..1`.
#[test]
fn kubernetes_swaps_data() {
    let [one, two, three] = [(); 3].map(|()| net::address());
    let site = Site::new(&[]);
    let fill = |directory: &str, services: &[(&str, SocketAddr)]| {
        std::fs::create_dir(site.path(directory)).unwrap();
        site.write(&format!("{directory}/server.toml"), &site.main(services));
    };
    std::fs::remove_file(site.path("server.toml")).unwrap();
    fill("..1", &[("one", one)]);
    symlink("..1", site.path("..data")).unwrap();
    symlink("..data/server.toml", site.path("server.toml")).unwrap();
    let mut server = site.start();
    fill("..2", &[("two", two)]);
    swap("..2", &site.path("..data"));
    std::fs::remove_dir_all(site.path("..1")).unwrap();
    let line = server.reloaded();
    assert!(line.contains("1 service added (two), 1 removed (one)"), "{line}");
    // And again: what is watched follows.
    fill("..3", &[("three", three)]);
    swap("..3", &site.path("..data"));
    std::fs::remove_dir_all(site.path("..2")).unwrap();
    let line = server.reloaded();
    assert!(line.contains("1 service added (three), 1 removed (two)"), "{line}");
    // The file at the end of the chain is watched, too.
    site.write("..3/server.toml", &site.main(&[("one", one)]));
    let line = server.reloaded();
    assert!(line.contains("1 service added (one), 1 removed (three)"), "{line}");
    server.stop();
}

/// `etc/rathole -> static/rathole`, `etc/static -> store/1`; a new generation swaps `etc/static`.
#[test]
fn nixos_swaps_the_static_directory() {
    let [one, two, three] = [(); 3].map(|()| net::address());
    let site = Site::new(&[]);
    std::fs::create_dir(site.path("etc")).unwrap();
    let generation = |name: &str, services: &[(&str, SocketAddr)]| {
        let directory = site.path("store").join(name).join("rathole");
        std::fs::create_dir_all(&directory).unwrap();
        write(&directory.join("real.toml"), &site.main(services));
        symlink("real.toml", directory.join("server.toml")).unwrap();
    };
    generation("1", &[("one", one)]);
    symlink(site.path("store/1"), site.path("etc/static")).unwrap();
    symlink("static/rathole", site.path("etc/rathole")).unwrap();
    let mut command = Build::Ours.command(Role::Server, &site.path("etc/rathole/server.toml"));
    command.env_remove("NOTIFY_SOCKET");
    let mut server = site.start_command(command);
    server.hang_up();
    server.reloaded();
    let watched = server.watched();
    assert!(watched > 5, "{watched}");
    for (name, services, expected) in [
        ("2", [("two", two)], "1 service added (two), 1 removed (one)"),
        ("3", [("three", three)], "1 service added (three), 1 removed (two)"),
    ] {
        generation(name, &services);
        swap(site.path("store").join(name).to_str().unwrap(), &site.path("etc/static"));
        let line = server.reloaded();
        assert!(line.contains(expected), "{line}");
    }
    // The same contents at another place: nobody is told.
    generation("4", &[("three", three)]);
    swap(site.path("store/4").to_str().unwrap(), &site.path("etc/static"));
    server.process.wait_for(AS_BEFORE);
    // Those of former generations are not watched any more.
    assert_eq!(server.watched(), watched);
    // Fragments are beside the link, not beside the file that it leads to.
    std::fs::create_dir(site.path("store/4/rathole/server.toml.d")).unwrap();
    write(&site.path("store/4/rathole/server.toml.d/x.toml"), &service("one", one));
    let line = server.reloaded();
    assert!(line.contains("1 service added (one)"), "{line}");
    server.stop();
}

/// A directory above is moved away, and another one takes its place.
#[test]
fn a_directory_above_is_replaced() {
    let (one, two) = (net::address(), net::address());
    let site = Site::new(&[]);
    for (directory, services) in [("a/conf", [("one", one)]), ("b/conf", [("two", two)])] {
        std::fs::create_dir_all(site.path(directory)).unwrap();
        site.write(&format!("{directory}/server.toml"), &site.main(&services));
    }
    let command = Build::Ours.command(Role::Server, &site.path("a/conf/server.toml"));
    let mut server = site.start_command(command);
    std::fs::rename(site.path("a"), site.path("c")).unwrap();
    std::fs::rename(site.path("b"), site.path("a")).unwrap();
    let line = server.reloaded();
    assert!(line.contains("1 service added (two), 1 removed (one)"), "{line}");
    server.stop();
}
