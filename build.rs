//! Linker options of the minimal build (`--profile minimal`): what an unwinder needs is left out, because nothing
//! unwinds there, and relocations are packed. Costs: no stack traces in debuggers and profilers. All other builds are
//! left alone.

use std::env;
use std::fs;
use std::path::Path;

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
    let script = Path::new(&out).join("no-unwind-tables.ld");
    if fs::write(&script, NO_UNWIND_TABLES).is_ok() {
        println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr,-T,{}", script.display());
    }
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}

/// Added to the linker's own script. The C library's start files refer to their own empty tables.
const NO_UNWIND_TABLES: &str = "\
SECTIONS
{
  /DISCARD/ : { *(EXCLUDE_FILE(*crtbegin*.o *crtend*.o) .eh_frame) *(.eh_frame_hdr) *(.gcc_except_table .gcc_except_table.*) }
}
INSERT BEFORE .text;
";
