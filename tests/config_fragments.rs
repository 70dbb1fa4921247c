//! Fragments: `a.toml.d/*.toml` adds to `a.toml`.

#![cfg(all(feature = "server", feature = "client", feature = "hot-reload"))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod config_support;

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use config_support::{Load, Memory, client, of, server, text};
use rathole::config::{Files, NoFiles, Request, RoleChoice, Severity, SystemFiles, inspect, load};

/// A server's service in a file of its own.
fn service(name: &str, port: u16) -> String {
    format!("[server.services.{name}]\nbind_addr = \"127.0.0.1:{port}\"\n")
}

/// `a.toml` is [`server`]; the others are as given.
fn with(fragments: &[(&str, String)]) -> Load<'static> {
    let mut load = text(&server("", ""));
    for (name, text) in fragments {
        load.files = load.files.with(name, text);
    }
    load
}

fn names(load: &Load<'_>) -> Vec<String> {
    let config = load.run().unwrap_or_else(|report| panic!("{report}")).config;
    config.server.unwrap().services.keys().map(|name| name.to_string()).collect()
}

#[test]
fn fragments_add_services_and_other_keys() {
    let load = with(&[
        ("a.toml.d/one.toml", service("one", 1)),
        (
            "a.toml.d/two.toml",
            service("two", 2)
                + "[server]\nhandshake_timeout = 7\n[server.transport.tcp]\nnodelay = false\n[server.transport]\ntype = \"tcp\"\n",
        ),
    ]);
    assert_eq!(names(&load), ["one", "ssh", "two"]);
    let server = load.run().unwrap().config.server.unwrap();
    assert_eq!(server.handshake_timeout.as_secs(), 7);
    assert!(!server.services["one"].nodelay, "a table of one fragment is in force for all services");
    assert_eq!(server.services["one"].token, server.services["ssh"].token, "the default token as well");
}

#[test]
fn only_toml_files_that_are_not_hidden_are_fragments() {
    let broken = || "this is no TOML".to_owned();
    let load = with(&[
        ("a.toml.d/one.toml", service("one", 1)),
        ("a.toml.d/.one.toml.Xy12ab", broken()),
        ("a.toml.d/.hidden.toml", broken()),
        ("a.toml.d/one.toml~", broken()),
        ("a.toml.d/README", broken()),
        ("a.toml.d/toml", broken()),
        ("a.toml.d/deeper/two.toml", broken()),
        ("b.toml.d/two.toml", broken()),
    ]);
    assert_eq!(names(&load), ["one", "ssh"]);
}

#[test]
fn a_service_that_is_defined_twice_is_an_error_that_names_both_files() {
    let load = with(&[
        ("a.toml.d/1.toml", service("web", 1)),
        ("a.toml.d/2.toml", String::from("\n[server.services.web]\ntoken = \"0123456789abcdef-\"\n")),
        ("a.toml.d/3.toml", service("ssh", 3)),
    ]);
    assert_eq!(
        of(Severity::Error, load.run()),
        [
            "a.toml.d/2.toml:2:18: error: server.services.web: this service is already defined in a.toml.d/1.toml:1 \
             (keep one of them; only an overlay replaces)",
            "a.toml.d/3.toml:1:18: error: server.services.ssh: this service is already defined in a.toml:5 \
             (keep one of them; only an overlay replaces)",
        ]
    );
}

#[test]
fn any_key_that_is_defined_twice_is_an_error_even_if_the_values_are_equal() {
    let load = with(&[("a.toml.d/1.toml", "[server]\ndefault_token = \"0123456789abcdef\"\n".to_owned())]);
    let errors = of(Severity::Error, load.run());
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(
        errors[0].starts_with(
            "a.toml.d/1.toml:2:1: error: server.default_token: this key is already defined in a.toml:3"
        ),
        "{errors:#?}"
    );
}

/// Overlays come last and keep their right, also over a fragment.
#[test]
fn an_overlay_replaces_what_a_fragment_says() {
    let mut load = with(&[("a.toml.d/1.toml", service("web", 1))]);
    load.files = load.files.with("over.toml", service("web", 99));
    load.overlays = &["over.toml"];
    let config = load.run().unwrap().config;
    assert_eq!(config.server.unwrap().services["web"].bind_addr.port, 99);
}

#[test]
fn errors_are_those_of_the_fragment_and_all_are_found() {
    let load = with(&[
        ("a.toml.d/1.toml", "[server.services.web]\nbind_addr = 1\ncolour = \"red\"\n".to_owned()),
        ("a.toml.d/2.toml", "[server.services.two\n".to_owned()),
        ("a.toml.d/3.toml", "[server.services.three]\n".to_owned()),
    ]);
    let errors = of(Severity::Error, load.run());
    let starts = [
        "a.toml.d/1.toml:2:13: error",
        "a.toml.d/1.toml:3:1: error",
        "a.toml.d/2.toml:1",
        "a.toml.d/3.toml:1",
    ];
    assert_eq!(errors.len(), starts.len(), "{errors:#?}");
    for (error, start) in errors.iter().zip(starts) {
        assert!(error.starts_with(start), "{start}: {errors:#?}");
    }
}

#[test]
fn both_halves_and_a_client_may_have_fragments() {
    let fragment = "[client.services.web]\nlocal_addr = \"127.0.0.1:80\"\n".to_owned() + &service("web", 1);
    let mut load = text(&(server("", "") + &client("", "")));
    load.files = load.files.with("a.toml.d/web.toml", &fragment);
    let config = load.run().unwrap().config;
    assert!(config.server.unwrap().services.contains_key("web"));
    assert!(config.client.unwrap().services.contains_key("web"));
    // A whole half may come from a fragment, too.
    let mut load = text(&server("", ""));
    load.files = load.files.with("a.toml.d/client.toml", client("", ""));
    assert!(load.run().unwrap().config.client.is_some());
}

#[test]
fn a_broken_main_file_hides_no_syntax_error_of_a_fragment_and_adds_none() {
    for (fragment, errors) in [("= 1\n".to_owned(), 2), (service("web", 1), 1)] {
        let mut load = with(&[("a.toml.d/1.toml", fragment)]);
        load.files = load.files.with("a.toml", "= 2\n");
        let found = of(Severity::Error, load.run());
        assert_eq!(found.len(), errors, "{found:#?}");
    }
}

/// A directory that may not be looked into is not taken for an empty one.
#[test]
fn a_directory_that_may_not_be_listed_is_an_error() {
    struct Closed(Memory);
    impl Files for Closed {
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            self.0.read(path)
        }

        fn mode(&self, path: &Path) -> Option<u32> {
            Files::mode(&self.0, path)
        }

        fn list(&self, _: &Path) -> io::Result<Vec<OsString>> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
    let files = Closed(Memory::default().with("a.toml", server("", "")));
    let request = Request {
        main: Path::new("a.toml"),
        overlays: &[],
        role: RoleChoice::Auto,
        files: &files,
        static_only: false,
    };
    let expected = "a.toml.d: error: cannot read this directory of fragments: permission denied";
    assert_eq!(of(Severity::Error, load(&request)), [expected]);
}

#[test]
fn the_warning_of_exposed_secrets_does_not_fill_the_log() {
    let mut files = Memory::default().with("a.toml", server("", ""));
    for n in 0..30 {
        let name = format!("a.toml.d/{n:02}.toml");
        let text = service(&format!("s{n}"), 100 + n) + "token = \"0123456789abcdef\"\n";
        files = files.with(&name, text).mode(&name, 0o644);
    }
    let load = Load { files, overlays: &[], role: RoleChoice::Auto, static_only: false };
    let warnings = of(Severity::Warning, load.run());
    assert_eq!(warnings.len(), 11, "{warnings:#?}");
    assert!(warnings.iter().any(|warning| warning.contains("30 files hold secrets")), "{warnings:#?}");
}

#[test]
fn unreadable_fragments_and_directories_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("server.toml");
    std::fs::write(&main, server("", "")).unwrap();
    let errors = |static_only: bool| {
        let given = NoFiles::but(&main, &[]);
        let request = Request {
            main: &main,
            overlays: &[],
            role: RoleChoice::Auto,
            files: if static_only { &given } else { &SystemFiles },
            static_only,
        };
        of(Severity::Error, load(&request))
    };
    let fragments = directory.path().join("server.toml.d");
    assert!(errors(false).is_empty(), "no directory: no fragments");
    std::fs::write(&fragments, "").unwrap();
    let whole = format!(
        "{}: error: cannot read this directory of fragments: it is no directory",
        fragments.display()
    );
    assert_eq!([errors(false), errors(true)], [[whole.clone()], [whole]]);
    std::fs::remove_file(&fragments).unwrap();
    std::fs::create_dir(&fragments).unwrap();
    std::os::unix::fs::symlink("absent", fragments.join("x.toml")).unwrap();
    // Directories are not looked at, whatever their names.
    std::fs::create_dir(fragments.join("y.toml")).unwrap();
    let named = [format!(
        "{}: error: cannot read this file: there is no such file",
        fragments.join("x.toml").display()
    )];
    assert_eq!(errors(false), named);
    assert_eq!(errors(true), named);
}

#[test]
fn the_number_and_size_of_fragments_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("server.toml");
    std::fs::write(&main, server("", "")).unwrap();
    let fragments = directory.path().join("server.toml.d");
    std::fs::create_dir(&fragments).unwrap();
    let comment = "#".repeat(15 << 20);
    for n in 0..5 {
        std::fs::write(fragments.join(format!("{n}.toml")), &comment).unwrap();
    }
    let errors = || {
        let request = Request {
            main: &main,
            overlays: &[],
            role: RoleChoice::Auto,
            files: &SystemFiles,
            static_only: false,
        };
        of(Severity::Error, load(&request))
    };
    let large = errors();
    assert_eq!(large.len(), 1, "{large:#?}");
    assert!(large[0].contains("4.toml: error: with this one the fragments are larger than"), "{large:#?}");
    for n in 0..=20_000 {
        std::fs::write(fragments.join(format!("{n}.toml")), "").unwrap();
    }
    let many = errors();
    assert_eq!(many.len(), 1, "{many:#?}");
    assert!(many[0].contains("more than 20000 fragments"), "{many:#?}");
}

/// 10,000 tenants, each with a file, are read within seconds; in one file, too.
#[test]
fn ten_thousand_services_are_read_within_seconds() {
    let whole = |n: usize| {
        format!(
            "[server.services.tenant-{n}]\ntoken = \"token-of-tenant-{n:08}\"\nbind_addr = \"127.0.{}.{}:7000\"\n",
            n / 250,
            n % 250 + 1
        )
    };
    let mut files = Memory::default().with("a.toml", server("", ""));
    let mut one = server("", "");
    for n in 0..10_000 {
        files = files.with(&format!("a.toml.d/{n}.toml"), whole(n));
        one.push_str(&whole(n));
    }
    let overlays = [];
    for files in [files, Memory::default().with("a.toml", one)] {
        let request = Request {
            main: Path::new("a.toml"),
            overlays: &overlays,
            role: RoleChoice::Auto,
            files: &files,
            static_only: false,
        };
        let begin = std::time::Instant::now();
        let found = inspect(&request).unwrap();
        let took = begin.elapsed();
        println!("{took:?}");
        assert_eq!(found.config.server.unwrap().services.len(), 10_001);
        assert!(took.as_secs() < 20, "{took:?}");
    }
}

/// Nobody writes to it: the start would wait for ever, without a word.
#[test]
fn a_fragment_that_is_a_pipe_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("a.toml");
    std::fs::write(&main, server("", "")).unwrap();
    std::fs::create_dir(directory.path().join("a.toml.d")).unwrap();
    let pipe = directory.path().join("a.toml.d/pipe.toml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for files in [&SystemFiles as &(dyn Files + Sync), &NoFiles::but(&main, &[])] {
        let (done, result) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let request =
                    Request { main: &main, overlays: &[], role: RoleChoice::Auto, files, static_only: false };
                done.send(load(&request).map(drop)).unwrap();
            });
            let report = result.recv_timeout(std::time::Duration::from_secs(10));
            let ended = report.is_ok();
            // Its end, if it is read.
            let mut writer = std::fs::File::options();
            drop(writer.write(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(&pipe));
            assert!(ended, "it is read, and never ends");
            assert!(
                report
                    .unwrap()
                    .unwrap_err()
                    .to_string()
                    .contains("pipe.toml: error: cannot read this file: it is no regular file")
            );
        });
    }
}
