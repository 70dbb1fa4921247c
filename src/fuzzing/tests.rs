//! The targets over their seeds, so that what once failed stays found; and the seeds' making.

use std::fs;
use std::path::{Path, PathBuf};

use super::TARGETS;

fn seeds(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)
}

#[test]
fn every_target_takes_its_seeds() {
    let mut taken = 0;
    for (name, target) in TARGETS {
        let mut files: Vec<_> =
            fs::read_dir(seeds(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() > 2, "{name}: {} seeds", files.len());
        for file in files {
            // The panic's own text does not name it.
            let caught = std::panic::catch_unwind(|| target(&fs::read(&file).unwrap()));
            assert!(caught.is_ok(), "{}", file.display());
            taken += 1;
        }
    }
    assert!(taken > 30, "{taken} seeds");
}

/// Each target has its binary, and no other is there.
#[test]
fn every_target_has_its_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let mut files: Vec<_> = fs::read_dir(root.join("fuzz_targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    files.sort();
    assert!(files.len() > 5);
    for name in &files {
        let text = fs::read_to_string(root.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("run(\"{name}\", ")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
    }
    if cfg!(all(feature = "tls", feature = "noise", feature = "websocket", feature = "proxy")) {
        assert_eq!(files, TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }
}
