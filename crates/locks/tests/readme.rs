//! The README's program, as a person would run it.

#![cfg(feature = "file")]

use std::process::Command;
use std::time::{Duration, Instant};

/// What the README says that it prints.
const OUTPUT: &str = "it is ours: true\na second holder: false\nfree after the release: true\n";

#[test]
fn the_program_prints_the_same_again_without_waiting() {
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(arguments).args(["--quiet", "--package", "locks", "--example", "hello"]);
        command
    };
    assert!(cargo(&["build"]).status().unwrap().success());
    let temp = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let begun = Instant::now();
        let output = cargo(&["run"]).env("TMPDIR", temp.path()).output().unwrap();
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()),
            (Some(0), OUTPUT)
        );
        // Far below any expiry, far above what cargo and a busy machine need.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
    assert!(temp.path().join("locks-hello").is_dir());
}

#[test]
fn the_readme_shows_the_example_and_its_output() {
    let readme = include_str!("../README.md");
    let example = include_str!("../examples/hello.rs");
    // Above it are its description and what concerns only our lints.
    let program = &example[example.find("use ").unwrap()..];
    assert!(readme.contains(&format!("```rust\n{program}```")), "the program differs");
    assert!(readme.contains(&format!("```text\n{OUTPUT}```")), "its output differs");
}
