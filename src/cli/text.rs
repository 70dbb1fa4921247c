//! What help and manual pages say beyond the list of options.
#![cfg_attr(not(feature = "cli"), allow(dead_code))]

/// One sentence.
pub const ABOUT: &str =
    "A reverse proxy for NAT traversal: visitors reach services behind a client through a server";

/// Of the whole program.
pub const EXAMPLES: &str = "\
Examples:
  rathole demo                   see it work, in one process
  rathole server.toml            run what is in it: [server], [client] or both
  rathole -c both.toml           run only the [client] half
  rathole check *.toml           every error and warning of every file
  rathole client --overlay secrets.toml client.toml
                                 secrets kept apart from the configuration
  rathole server --bind 0.0.0.0:2333 --service ssh=0.0.0.0:5202
                                 no file: prints the other side's command
  rathole ./server               a file that is named like a command";

/// Of every command that runs a role.
pub const ENVIRONMENT: &str = "\
Environment:
  RUST_LOG       what is logged, on stderr (default: info): off, error, warn,
                 info, debug, trace, or a list such as
                 info,rathole::visitor=off (no line for each ended visitor)
  RATHOLE_TOKEN  the token of a server or client without a file
  NO_COLOR       no colours in the log";

/// The contract with scripts and service managers.
pub const EXIT_CODES: &str = "\
Exit codes:
  0   done; stopped by SIGTERM or SIGINT (a second signal ends at once)
  1   a runtime failure: an address cannot be bound, a file cannot be written
  2   a wrong command line
  78  a configuration that cannot be run";

/// Of every command that runs a role.
pub const SIGNALS: &str = "\
Signals:
  SIGHUP           read CONFIG, its fragments (CONFIG.d/*.toml), its overlays and the
                   files they name again; an error in them changes nothing
  SIGTERM, SIGINT  stop: connections may finish (shutdown_grace); a second signal
                   ends at once";

/// `rathole server --help`.
pub const SERVER_EXAMPLES: &str = "\
Examples:
  rathole server server.toml
  rathole server --bind 0.0.0.0:2333 --service ssh=0.0.0.0:5202
  rathole server --bind '[::]:2333' --service dns=udp:0.0.0.0:53 \\
      --noise-key-file noise.key --token-file token

Without a file, the server makes a Noise key and a token at each start, unless they
are given, and prints the complete command for the client on stdout.

Traffic is encrypted unless both ends say --plain-tcp. No secret is ever the
value of an argument.";

/// `rathole client --help`.
pub const CLIENT_EXAMPLES: &str = "\
Examples:
  rathole client client.toml
  RATHOLE_TOKEN=... rathole client --to example.org:2333 --noise-pin KEY \\
      --service ssh=127.0.0.1:22
  rathole client --to example.org:2333 --noise-pin KEY --token-file token \\
      --service dns=udp:127.0.0.1:53

Without a file: the server prints this command, with its KEY.

Traffic is encrypted unless both ends say --plain-tcp. No secret is ever the
value of an argument.";

/// `rathole check --help`.
pub const CHECK_EXAMPLES: &str = "\
Examples:
  rathole check server.toml client.toml
  rathole check --json client.toml | jq '.files[].problems[]'
  rathole check --static --overlay /run/secrets/token.toml client.toml

--static is for build sandboxes: only the given files are opened, no name is
resolved, and what an absent overlay may supply is a warning.

The exit code is 0 (there may be warnings) or 78 (there are errors).";

/// `rathole demo --help`.
pub const DEMO_EXAMPLES: &str = "\
Examples:
  rathole demo                 open the printed URL; Ctrl-C ends it
  rathole demo --seconds 10    ends by itself";

/// `rathole genkey --help`.
pub const GENKEY_EXAMPLES: &str = "\
Examples:
  rathole genkey               the private key is the server's local_private_key,
                               the public key the client's remote_public_key
  rathole --genkey             the same, as rathole 0.5.0 writes it";

/// `rathole completions --help`.
pub const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  rathole completions bash > /etc/bash_completion.d/rathole
  rathole completions zsh  > ~/.zfunc/_rathole
  rathole completions fish > ~/.config/fish/completions/rathole.fish";

/// `rathole man --help`.
pub const MAN_EXAMPLES: &str = "\
Examples:
  rathole man ./man && man -l ./man/rathole.1";
