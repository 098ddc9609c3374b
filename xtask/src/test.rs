//! All tests.

use anyhow::Result;

use crate::conformance::AT_A_TIME;
use crate::containers;
use crate::process::{cargo, run_tests};
use crate::servers::{self, Servers};
use crate::totals::Totals;
use crate::workspace::{FACADE, root};

/// Looks for the servers, then runs every test there is.
///
/// # Errors
///
/// If a server is missing, a test fails or none runs.
pub(crate) fn prepare_and_run(args: &servers::Args) -> Result<()> {
    run(&args.prepare_all()?)
}

/// Runs every test there is and ends with one line that says how many passed and failed. Needs cargo and the servers.
///
/// # Errors
///
/// If a test fails or none runs.
pub(crate) fn run(servers: &Servers) -> Result<()> {
    let mut totals = Totals::default();
    let mut all = cargo(["test", "--locked", "--workspace", "--all-features", "--no-fail-fast"]);
    all.args(servers.exclusions()).envs(servers.environment()).env(AT_A_TIME.0, AT_A_TIME.1);
    totals += run_tests(&mut all)?;
    // What a feature that is off looks like shows only when it is off.
    totals += run_tests(&mut cargo([
        "test",
        "--locked",
        "--package",
        FACADE,
        "--no-default-features",
        "--lib",
        "--tests",
        "--no-fail-fast",
    ]))?;
    let third_party = root().join("examples/custom-backend");
    totals += run_tests(cargo(["test", "--locked", "--no-fail-fast"]).current_dir(third_party))?;
    if servers.are_in_containers() {
        totals += containers::test_keeper()?;
    }
    totals.close()
}
