//! All tests.

use anyhow::Result;

use crate::process::{cargo, run_tests};
use crate::totals::Totals;
use crate::workspace::{FACADE, root};

/// Runs every test there is and ends with one line that says how many passed and failed. Needs nothing but cargo.
///
/// # Errors
///
/// If a test fails or none runs.
pub(crate) fn run() -> Result<()> {
    let mut totals = Totals::default();
    totals += run_tests(&mut cargo(["test", "--locked", "--workspace", "--all-features", "--no-fail-fast"]))?;
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
    totals.close()
}
