//! Format and clippy, warnings denied.

use anyhow::Result;

use crate::process::{cargo, run};
use crate::satellite::cargo_in;
use crate::workspace::{SATELLITES, members, root};

/// What follows a call of clippy.
pub(crate) const DENY_WARNINGS: [&str; 3] = ["--", "-D", "warnings"];

/// Checks the whole workspace, then each package alone: with others beside it, features and dependencies that it forgot to
/// ask for are there by chance.
///
/// # Errors
///
/// If something is found.
pub(crate) fn lint() -> Result<()> {
    run(&mut cargo(["fmt", "--all", "--check"]))?;
    clippy(&["--workspace", "--all-features"])?;
    for package in members(root())?.packages {
        clippy(&["--package", &package.name])?;
    }
    for satellite in SATELLITES {
        run(&mut cargo_in(satellite, ["fmt", "--all", "--check"])?)?;
        run(cargo_in(satellite, ["clippy", "--locked", "--all-targets"])?.args(DENY_WARNINGS))?;
    }
    Ok(())
}

fn clippy(selection: &[&str]) -> Result<()> {
    run(cargo(["clippy", "--locked", "--all-targets"]).args(selection).args(DENY_WARNINGS))
}
