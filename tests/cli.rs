//! The command line: usage rules, exit codes, help, version, keys, completions, manual pages.
#![allow(clippy::unwrap_used)]

mod cli_support;
use cli_support::*;

#[test]
fn usage_errors_exit_2_and_say_something() {
    let directory = tempfile::tempdir().unwrap();
    let config = file(directory.path(), "a.toml", "");
    let config = config.as_str();
    for args in [
        &[] as &[&str],
        &["-s"],
        &["-c"],
        &["-s", "-c", config],
        &["--server", "--client", config],
        &["--genkey", "x25519", config],
        &[config, "--genkey"],
        &["--genkey", "-s"],
        &["--genkey", "foo.toml"],
        &["--genkey", "X25519"],
        &["genkey", "ed25519"],
        &["--no-such-option"],
        &[config, config],
        &["check"],
        &["check", "--seconds", "1", config],
        &["server"],
        &["client"],
        &["server", "--overlay", config],
        &["--watch"],
        &["--watch", "--no-watch", config],
        &["server", "--watch", "--no-watch", config],
        &["check", "--no-watch", config],
        &["genkey", "--watch"],
        &["server", "--watch", "--bind", "127.0.0.1:0", "--service", "a=127.0.0.1:0"],
        &["client", "--no-watch", "--to", "127.0.0.1:1", "--plain-tcp", "--service", "a=127.0.0.1:0"],
        &["server", "--service", "a=127.0.0.1:0"],
        &["server", "--bind", "127.0.0.1:0"],
        &["server", "--bind", "127.0.0.1", "--service", "a=127.0.0.1:0"],
        &["server", "--bind", "127.0.0.1:0", "--service", "a"],
        &["server", "--bind", "127.0.0.1:0", "--service", "a=127.0.0.1:0", config],
        &["client", "--bind", "127.0.0.1:0"],
        &["client", "--to", "127.0.0.1:1", "--plain-tcp"],
        &["demo", "--seconds", "x"],
        &["demo", "extra"],
    ] {
        let said = run(args);
        assert_eq!(said.code, Some(2), "{args:?}: {said:?}");
        assert_eq!(said.out, "", "{args:?}");
        assert!(!said.err.is_empty(), "{args:?}");
    }
}

#[test]
fn a_curve_that_never_was_is_no_usage_error() {
    for args in [&["--genkey", "x448"] as &[&str], &["genkey", "x448"]] {
        let said = run(args);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains("x448") && said.out.is_empty());
    }
}

#[test]
#[cfg(feature = "noise")]
fn keys_have_ratholes_own_format() {
    let mut seen = std::collections::BTreeSet::new();
    for args in [&["--genkey"] as &[&str], &["--genkey", "x25519"], &["--genkey=x25519"], &["genkey"]] {
        let said = run(args);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{args:?}");
        let lines: Vec<&str> = said.out.split('\n').collect();
        let [private_title, private, empty, public_title, public, end] = lines[..] else {
            panic!("{:?}", said.out)
        };
        assert_eq!([private_title, empty, public_title, end], ["Private Key:", "", "Public Key:", ""]);
        assert_eq!((private.len(), public.len()), (44, 44));
        assert!(private.ends_with('=') && public.ends_with('='));
        assert_ne!(private, public);
        assert!(seen.insert(private.to_owned()), "a private key came twice");
    }
}

#[test]
fn a_secret_is_never_an_argument() {
    for args in [
        &["client", "--token", "hunter2hunter2", "--to", "h:1"] as &[&str],
        &["server", "--token=hunter2hunter2", "--bind", "127.0.0.1:0"],
    ] {
        let said = run(args);
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.err.contains("RATHOLE_TOKEN") && said.err.contains("--token-file"), "{}", said.err);
        assert!(!said.err.contains("hunter2"), "{}", said.err);
    }
}

#[test]
fn a_client_without_a_pin_or_a_token_refuses() {
    let said = run(&["client", "--to", "127.0.0.1:1", "--service", "a=127.0.0.1:1"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("--noise-pin") && said.err.contains("--plain-tcp"), "{}", said.err);
    let said = run(&["client", "--to", "127.0.0.1:1", "--service", "a=127.0.0.1:1", "--plain-tcp"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("token") && said.err.contains("RATHOLE_TOKEN"), "{}", said.err);
}

#[test]
fn version_says_target_and_features() {
    let short = run(&["-V"]);
    assert_eq!(
        (short.code, short.out.as_str()),
        (Some(0), concat!("rathole ", env!("CARGO_PKG_VERSION"), "\n"))
    );
    let long = run(&["--version"]);
    assert_eq!(long.code, Some(0));
    assert!(long.out.starts_with(short.out.trim_end()), "{}", long.out);
    let target = format!("target: {}-{}", std::env::consts::ARCH, std::env::consts::OS);
    assert!(long.out.contains(&target), "{}", long.out);
    let features = long.out.lines().find_map(|line| line.strip_prefix("features: ")).unwrap();
    assert_eq!(features.split(' ').any(|name| name == "client"), cfg!(feature = "client"));
    assert_eq!(features.split(' ').any(|name| name == "cli"), cfg!(feature = "cli"));
}

#[test]
fn help_has_examples_and_exit_codes() {
    let said = run(&["--help"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    for part in ["--server", "--client", "--genkey", "--overlay", "Examples:", "RUST_LOG", "78"] {
        assert!(said.out.contains(part), "{part} is not in\n{}", said.out);
    }
    assert_eq!(said.out, run(&["-h"]).out);
}

#[cfg(feature = "cli")]
mod full {
    use super::*;

    #[test]
    fn a_surplus_argument_is_named() {
        let said = run(&["sever", "x.toml"]);
        assert_eq!(said.code, Some(2));
        assert!(said.err.contains("'x.toml'") && said.err.contains("only one CONFIG"), "{}", said.err);
    }

    #[test]
    fn every_commands_help_has_its_options_and_examples() {
        let commands: &[(&str, &[&str])] = &[
            (
                "server",
                &[
                    "CONFIG",
                    "--overlay",
                    "--bind",
                    "--service",
                    "--noise-key-file",
                    "--token-file",
                    "--token-env",
                    "--plain-tcp",
                    "Exit codes",
                    "--no-visitor-log",
                    "--watch",
                    "--no-watch",
                    "SIGHUP",
                ],
            ),
            (
                "client",
                &["CONFIG", "--overlay", "--to", "--noise-pin", "--service", "--token-file", "--plain-tcp"],
            ),
            ("check", &["CONFIG", "--overlay", "--json", "--static", "78"]),
            ("genkey", &["local_private_key"]),
            ("demo", &["--seconds"]),
            ("completions", &["bash", "zsh", "fish"]),
            ("man", &["DIR"]),
        ];
        for (command, parts) in commands {
            let said = run(&[command, "--help"]);
            assert_eq!(said.code, Some(0));
            for part in parts.iter().chain(&["Examples:", "rathole"]) {
                assert!(said.out.contains(part), "{part} is not in the help of {command}:\n{}", said.out);
            }
        }
        assert!(
            !run(&["server", "--help"]).out.contains("--token "),
            "the option that does not exist is hidden"
        );
    }

    #[test]
    fn help_of_the_program_names_every_command() {
        let help = run(&["--help"]).out;
        for command in ["server", "client", "check", "genkey", "demo", "completions", "man"] {
            assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command}");
        }
    }

    #[test]
    fn completions_know_the_commands() {
        for shell in ["bash", "zsh", "fish"] {
            let said = run(&["completions", shell]);
            assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
            for part in ["rathole", "check", "genkey", "overlay", "noise-pin"] {
                assert!(said.out.contains(part), "{part} is not in the completions for {shell}");
            }
        }
        assert_eq!(run(&["completions", "cobol"]).code, Some(2));
    }

    #[test]
    fn the_bash_completion_is_valid() {
        let directory = tempfile::tempdir().unwrap();
        let script = file(directory.path(), "rathole.bash", &run(&["completions", "bash"]).out);
        assert!(std::process::Command::new("bash").args(["-n", &script]).status().unwrap().success());
    }

    #[test]
    fn manual_pages_are_written() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("new");
        let said = run(&["man", target.to_str().unwrap()]);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
        for (page, parts) in [
            ("rathole.1", &["genkey", "EXIT STATUS", "RUST_LOG", "EXAMPLES", "78"] as &[&str]),
            ("rathole-server.1", &["noise\\-key\\-file", "EXIT STATUS"]),
            ("rathole-client.1", &["noise\\-pin"]),
            ("rathole-check.1", &["static", "EXIT STATUS"]),
            ("rathole-demo.1", &["seconds"]),
            ("rathole-genkey.1", &["x25519"]),
            ("rathole-completions.1", &["zsh"]),
            ("rathole-man.1", &["DIR"]),
        ] {
            let text = std::fs::read_to_string(target.join(page)).unwrap();
            assert!(text.contains(".TH"), "{page}");
            for part in parts {
                assert!(text.contains(part), "{part} is not in {page}:\n{text}");
            }
        }
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 8);
    }

    #[test]
    fn manual_pages_into_a_file_fail() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(directory.path(), "file", "");
        let said = run(&["man", &file]);
        assert_eq!(said.code, Some(1));
        assert!(said.err.contains(&file), "{}", said.err);
    }

    #[test]
    fn a_reader_that_goes_away_is_no_panic() {
        let script =
            format!("'{}' completions zsh | true; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_rathole"));
        let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    }
}

#[cfg(not(feature = "cli"))]
#[test]
fn the_small_build_says_what_it_has_not() {
    for args in [&["demo"] as &[&str], &["completions", "bash"], &["man", "x"], &["check", "--json", "x"]] {
        let said = run(args);
        assert_eq!(said.code, Some(2), "{args:?}");
        assert!(said.err.contains("`cli") || said.err.contains("--features cli"), "{args:?}: {}", said.err);
    }
}

#[test]
fn a_file_that_is_named_like_a_command_can_be_run() {
    let directory = tempfile::tempdir().unwrap();
    file(directory.path(), "server", "[nonsense]\n");
    let mut command = rathole(&["./server"]);
    command.current_dir(directory.path());
    let said = finish(command);
    assert_eq!(said.code, Some(78), "{said:?}");
    assert!(said.err.contains("./server:"), "{}", said.err);
    // After an option, a word is a file too.
    let mut command = rathole(&["-s", "server"]);
    command.current_dir(directory.path());
    assert_eq!(finish(command).code, Some(78));
}
