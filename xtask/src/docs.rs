//! The documentation, warnings denied.

use anyhow::Result;

use crate::process::{cargo, run};

/// Builds the documentation of all packages with all features.
///
/// # Errors
///
/// If rustdoc finds fault with it.
pub(crate) fn build() -> Result<()> {
    run(cargo(["doc", "--locked", "--workspace", "--no-deps", "--all-features"])
        .env("RUSTDOCFLAGS", "-D warnings"))
}
