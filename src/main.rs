//! The process: argv to exit code.

fn main() {}
