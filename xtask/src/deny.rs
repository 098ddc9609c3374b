//! Licences, sources and unwanted crates among the dependencies, as `deny.toml` says.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::process::{cargo, run};
use crate::workspace::{TEST_CONTAINERS, root};

/// The one that `deny.toml` was written for.
const VERSION: &str = "0.20.2";

/// Runs cargo-deny, and installs it first if there is none: below `target/`, unoptimised, in a minute or two.
///
/// Advisories are left out: their database is a git repository, which not every machine may fetch, and a check that
/// depends on the day can't gate a change. `cargo deny check advisories` does it by hand.
///
/// # Errors
///
/// If it can't be installed or finds something.
pub(crate) fn check() -> Result<()> {
    for dir in [root().to_owned(), root().join(TEST_CONTAINERS)] {
        let mut deny = cargo_deny()?;
        deny.args(["--all-features", "--locked", "--config"]).arg(root().join("deny.toml"));
        run(deny.args(["check", "bans", "licenses", "sources"]).current_dir(dir))?;
    }
    Ok(())
}

fn cargo_deny() -> Result<Command> {
    let is_there = |program: &PathBuf| {
        Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    let tools = root().join("target/tools");
    let ours = tools.join("bin/cargo-deny");
    if let Some(program) = [PathBuf::from("cargo-deny"), ours.clone()].into_iter().find(is_there) {
        return Ok(Command::new(program));
    }
    run(cargo(["install", "cargo-deny", "--version", VERSION, "--locked", "--debug", "--root"])
        .arg(&tools)
        .env_remove("CARGO_TARGET_DIR"))?;
    Ok(Command::new(ours))
}
