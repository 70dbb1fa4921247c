//! `rathole check`, and the exit codes of configurations that cannot be run.
#![allow(clippy::unwrap_used)]

mod cli_support;
use cli_support::*;

const GOOD: &str = "[client]
remote_addr = \"127.0.0.1:2333\"
default_token = \"a-token-that-is-long-enough-0123456789\"

[client.services.ssh]
local_addr = \"127.0.0.1:22\"
";

const BAD: &str = "[client]
remote_adr = \"127.0.0.1:2333\"

[client.services.ssh]
local_addr = 22
";

#[test]
fn a_good_file_is_ok() {
    let directory = tempfile::tempdir().unwrap();
    let good = file(directory.path(), "good.toml", GOOD);
    let said = run(&["check", &good]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    assert_eq!(said.out.lines().last(), Some(format!("{good}: ok").as_str()));
}

#[test]
fn every_problem_of_every_file_is_told_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let good = file(directory.path(), "good.toml", GOOD);
    let bad = file(directory.path(), "bad.toml", BAD);
    let absent = directory.path().join("absent.toml");
    let said = run(&["check", &bad, &good, absent.to_str().unwrap()]);
    assert_eq!(said.code, Some(78), "{said:?}");
    assert_eq!(said.err, "");
    let line = said.out.lines().find(|line| line.contains("remote_adr")).unwrap();
    assert!(line.starts_with(&format!("{bad}:2:1: error: ")), "{line}");
    assert!(line.contains("remote_addr"), "the nearest key: {line}");
    assert!(said.out.lines().any(|line| line.starts_with(&format!("{bad}:5:"))), "{}", said.out);
    assert!(said.out.contains(&format!("{good}: ok\n")), "{}", said.out);
    assert!(!said.out.contains(&format!("{bad}: ok")));
    assert!(said.out.contains("absent.toml: error: "), "{}", said.out);
}

/// What only a transport finds is told beside the errors of the file itself.
#[cfg(feature = "tls")]
#[test]
fn an_error_hides_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let root = file(directory.path(), "root.pem", "this is no certificate");
    let text = GOOD.replace("remote_addr", "bogus = 1\nremote_addr").replace("127.0.0.1:22", "22")
        + &format!("[client.transport]\ntype = \"tls\"\n[client.transport.tls]\ntrusted_root = {root:?}\n");
    let config =
        file(directory.path(), "client.toml", &text.replace("127.0.0.1:2333", "absent.invalid:2333"));
    let said = run(&["check", &config]);
    assert_eq!(said.code, Some(78));
    for part in
        ["client.bogus", "client.remote_addr: the name absent.invalid", "local_addr", "tls.trusted_root"]
    {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
}

#[cfg(feature = "cli")]
#[test]
fn json_has_the_same_for_machines() {
    let directory = tempfile::tempdir().unwrap();
    let good = file(directory.path(), "good.toml", GOOD);
    let bad = file(directory.path(), "bad.toml", BAD);
    let said = run(&["check", "--json", &good, &bad]);
    assert_eq!((said.code, said.err.as_str()), (Some(78), ""));
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["files"][0]["file"], good.as_str());
    assert_eq!(json["files"][0]["ok"], true);
    assert_eq!(json["files"][1]["ok"], false);
    let problems = json["files"][1]["problems"].as_array().unwrap();
    assert!(problems.len() >= 2);
    let problem = problems.iter().find(|problem| problem["key"] == "client.remote_adr").unwrap();
    assert_eq!(problem["line"], 2);
    assert_eq!(problem["column"], 1);
    assert_eq!(problem["severity"], "error");
    assert_eq!(problem["file"], bad.as_str());
    assert!(problem["message"].is_string());
}

#[test]
fn a_static_check_takes_an_absent_overlay_as_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let without = GOOD.replace("default_token = \"a-token-that-is-long-enough-0123456789\"\n", "");
    let config = file(directory.path(), "client.toml", &without);
    let absent = directory.path().join("secrets.toml");
    let absent = absent.to_str().unwrap();
    let said = run(&["check", &config]);
    assert_eq!(said.code, Some(78), "the token is missing: {said:?}");
    let said = run(&["check", "--static", "--overlay", absent, &config]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("warning"), "{}", said.out);
    let said = run(&["check", "--overlay", absent, &config]);
    assert_eq!(said.code, Some(78), "{said:?}");
    let overlay =
        file(directory.path(), "there.toml", "[client]\ndefault_token = \"0123456789abcdef0123456789\"\n");
    assert_eq!(run(&["check", "--overlay", &overlay, &config]).code, Some(0));
}

#[test]
fn an_error_in_an_overlay_names_the_overlay() {
    let directory = tempfile::tempdir().unwrap();
    let config = file(directory.path(), "client.toml", GOOD);
    let overlay = file(directory.path(), "over.toml", "[client]\nretry_interval = \"soon\"\n");
    let said = run(&["check", "--overlay", &overlay, &config]);
    assert_eq!(said.code, Some(78));
    assert!(said.out.contains(&format!("{overlay}:2:")), "{}", said.out);
}

#[test]
fn a_name_that_does_not_resolve_is_a_warning_but_not_in_a_static_check() {
    let directory = tempfile::tempdir().unwrap();
    let config =
        file(directory.path(), "client.toml", &GOOD.replace("127.0.0.1:2333", "no-such-host.invalid:2333"));
    let said = run(&["check", &config]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.out.contains(":2:") && said.out.contains("no-such-host.invalid does not resolve"),
        "{}",
        said.out
    );
    assert!(!run(&["check", "--static", &config]).out.contains("resolve"));
}

#[test]
fn what_cannot_be_loaded_exits_78_with_one_line_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let broken = file(directory.path(), "broken.toml", "[client\n");
    std::fs::write(path("binary"), [0u8, 159, 146, 150, 255]).unwrap();
    let empty = file(directory.path(), "empty.toml", "");
    let wrong_half = file(directory.path(), "client.toml", GOOD);
    let cases: &[(&[&str], &str)] = &[
        (&[&path("absent")], "absent"),
        (&[directory.path().to_str().unwrap()], directory.path().to_str().unwrap()),
        (&[&broken], "broken.toml:1:"),
        (&[&path("binary")], "binary"),
        (&[&empty], "empty.toml"),
        (&["--server", &wrong_half], "client.toml"),
        (&["server", &wrong_half], "client.toml"),
        (&["--overlay", &path("absent"), &wrong_half], "absent"),
    ];
    for (args, part) in cases {
        let said = run(args);
        assert_eq!(said.code, Some(78), "{args:?}: {said:?}");
        assert_eq!(said.out, "", "{args:?}");
        assert_eq!(said.err.lines().count(), 1, "{args:?}: {}", said.err);
        assert!(said.err.contains(part), "{args:?}: {}", said.err);
        assert!(!said.err.contains("panicked"), "{args:?}");
    }
}
