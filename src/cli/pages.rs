//! Completion scripts and manual pages, made from the command line itself.

use std::io;
use std::path::Path;

use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Exit, full, output, text};

/// Prints a shell's completion script.
pub fn completions(shell: clap_complete::Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut full::command(), "rathole", &mut script);
    output::print_or(Exit::Ok, &String::from_utf8_lossy(&script))
}

/// Writes `rathole.1` and a page for each command.
pub fn man(directory: &Path) -> Exit {
    let written = std::fs::create_dir_all(directory).and_then(|()| pages(directory));
    match written {
        Ok(()) => Exit::Ok,
        Err(error) => {
            output::complain(&format!(
                "error: cannot write manual pages to {}: {error}\n",
                directory.display()
            ));
            Exit::Runtime
        }
    }
}

fn pages(directory: &Path) -> io::Result<()> {
    let mut top = full::command().disable_help_subcommand(true);
    top.build();
    write(directory, "rathole", &top)?;
    for sub in top.get_subcommands() {
        write(directory, &format!("rathole-{}", sub.get_name()), sub)?;
    }
    Ok(())
}

fn write(directory: &Path, name: &str, command: &clap::Command) -> io::Result<()> {
    let usage = command.clone().render_usage().to_string();
    let command = command.clone().display_name(name.to_owned()).bin_name(name.replace('-', " "));
    let subcommands = command.has_subcommands();
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(command.clone());
    // Not clap_mangen's own: it leaves out an empty date, so that what follows moves into the date's place.
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(
        ".TH {name} 1 \"\" \"rathole {version}\" \"User Commands\"
"
    )
    .into_bytes();
    man.render_name_section(&mut page)?;
    synopsis(&usage).to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if subcommands {
        commands(&command).to_writer(&mut page)?;
    }
    blocks(&examples).to_writer(&mut page)?;
    std::fs::write(directory.join(format!("{name}.1")), page)
}

/// One line for each way to call it.
fn synopsis(usage: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    for line in usage.trim_start_matches("Usage:").lines() {
        roff.text([roman(line.trim())]);
        roff.control("br", []);
    }
    roff
}

/// The commands and where they are described.
fn commands(command: &clap::Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    for sub in command.get_subcommands() {
        roff.control("TP", []);
        roff.text([bold(format!("rathole-{}(1)", sub.get_name()))]);
        roff.text([roman(sub.get_about().map(ToString::to_string).unwrap_or_default())]);
    }
    roff
}

/// The text after the options: each block with a heading (`Examples:`) is a section, its lines as they stand.
fn blocks(after_help: &str) -> Roff {
    let mut roff = Roff::new();
    for block in after_help.split("\n\n").filter(|block| !block.is_empty()) {
        let (heading, rest) = block.split_once('\n').unwrap_or((block, ""));
        match heading.strip_suffix(':') {
            Some(heading) => {
                let heading =
                    if heading == "Exit codes" { "EXIT STATUS".to_owned() } else { heading.to_uppercase() };
                roff.control("SH", [heading.as_str()]);
                roff.control("nf", []);
                for line in rest.lines() {
                    roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
                }
                roff.control("fi", []);
            }
            None => {
                roff.control("PP", []);
                roff.text([roman(block)]);
            }
        }
    }
    if !after_help.contains(text::EXIT_CODES) {
        return blocks_with_exit(roff);
    }
    roff
}

fn blocks_with_exit(mut roff: Roff) -> Roff {
    roff.control("SH", ["EXIT STATUS"]);
    roff.control("nf", []);
    for line in text::EXIT_CODES.lines().skip(1) {
        roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    roff.control("fi", []);
    roff
}
