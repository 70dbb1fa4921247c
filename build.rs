//! Linker options of the minimal build (`--profile minimal`): what an unwinder needs is left out, because nothing
//! unwinds there; relocations are packed; on musl Rust's own linker is used, if it is there, and folds equal functions.
//! Costs: no stack traces in debuggers and profilers. All other builds are left alone.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let Some(out) = env::var_os("OUT_DIR") else { return };
    // Cargo tells a build script neither the profile's name nor its panic strategy; the directory has the name.
    let profile = Path::new(&out).components().any(|part| part.as_os_str() == "minimal");
    let minimal = profile && is("OPT_LEVEL", "z") && env::var_os("CARGO_FEATURE_CLI").is_none();
    if !minimal || !is("CARGO_CFG_TARGET_OS", "linux") {
        return;
    }
    let direct = lld_itself_links();
    let musl = is("CARGO_CFG_TARGET_ENV", "musl");
    // With the GNU linker a musl program is 10 kB bigger.
    let directory = if musl && !direct { rust_lld() } else { None };
    if let Some(directory) = &directory {
        println!("cargo::rustc-link-arg-bins=-B{}", directory.display());
        println!("cargo::rustc-link-arg-bins=-fuse-ld=lld");
    }
    if direct || directory.is_some() {
        option(direct, &["--icf=all"]);
    }
    let script = Path::new(&out).join("no-unwind-tables.ld");
    if fs::write(&script, NO_UNWIND_TABLES).is_ok() {
        option(direct, &["--no-eh-frame-hdr", "-T", &script.to_string_lossy()]);
    }
    // A static program unpacks them itself: musl can since 1.2.4, and Rust 1.93 is the first with a newer one.
    // Before, `-C relocation-model=static` saves as much.
    if !musl || rustc_minor().is_none_or(|minor| minor >= 93) {
        option(direct, &["-z", "pack-relative-relocs"]);
    }
}

/// An option of the linker: a compiler that links hands it on.
fn option(direct: bool, words: &[&str]) {
    if direct {
        words.iter().for_each(|word| println!("cargo::rustc-link-arg-bins={word}"));
    } else {
        println!("cargo::rustc-link-arg-bins=-Wl,{}", words.join(","));
    }
}

/// Whether rustc calls lld, not a C compiler (`-C linker=rust-lld`, as in cross builds without one).
fn lld_itself_links() -> bool {
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let mut flagged =
        flags.split('\x1f').filter_map(|flag| flag.trim_start_matches("-C").strip_prefix("linker="));
    let linker = flagged.next_back().map(str::to_owned).or_else(|| env::var("RUSTC_LINKER").ok());
    linker.is_some_and(|path| {
        Path::new(&path).file_name().is_some_and(|name| name.to_string_lossy().contains("lld"))
    })
}

/// Where a C compiler finds the `ld.lld` that comes with Rust. Distributions may leave it out.
fn rust_lld() -> Option<PathBuf> {
    let sysroot = rustc(&["--print", "sysroot"])?;
    let directory =
        Path::new(sysroot.trim()).join("lib/rustlib").join(env::var("HOST").ok()?).join("bin/gcc-ld");
    directory.join("ld.lld").exists().then_some(directory)
}

/// 85 of Rust 1.85.
fn rustc_minor() -> Option<u32> {
    rustc(&["--version"])?.split('.').nth(1)?.parse().ok()
}

fn rustc(arguments: &[&str]) -> Option<String> {
    let output = Command::new(env::var_os("RUSTC")?).args(arguments).output().ok()?;
    String::from_utf8(output.stdout).ok()
}

/// Added to the linker's own script. The C library's start files refer to their own empty tables.
const NO_UNWIND_TABLES: &str = "\
SECTIONS
{
  /DISCARD/ : { *(EXCLUDE_FILE(*crtbegin*.o *crtend*.o) .eh_frame) *(.eh_frame_hdr) *(.gcc_except_table .gcc_except_table.*) }
}
INSERT BEFORE .text;
";
