//! What the commands need to know about this workspace: where it is and what is in it.

use std::path::Path;

use anyhow::{Context as _, Result};
use cargo_metadata::{Metadata, MetadataCommand, Package};

/// The facade: the package that applications depend on.
pub(crate) const FACADE: &str = "locks";

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// What cargo says about the workspace at `root`, its members only.
///
/// # Errors
///
/// If cargo can't read it.
pub(crate) fn members(root: &Path) -> Result<Metadata> {
    MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .with_context(|| format!("cargo can't read the workspace at {}", root.display()))
}

/// The technologies that have a backend: `crates/backend-memory` is `memory`. Sorted.
///
/// # Errors
///
/// If cargo can't read the workspace.
pub(crate) fn backends() -> Result<Vec<String>> {
    let metadata = members(root())?;
    let mut backends: Vec<String> =
        metadata.packages.iter().filter_map(|package| backend(package)).map(str::to_owned).collect();
    backends.sort();
    Ok(backends)
}

/// The technology of a backend's package, or `None` for any other package.
fn backend(package: &Package) -> Option<&str> {
    package.manifest_path.parent()?.file_name()?.strip_prefix("backend-")
}

/// The workspaces beside this one, which must stay healthy too. They have a lock file of their own.
pub(crate) const SATELLITES: [&str; 3] = ["bench", "examples/custom-backend", TEST_CONTAINERS];

/// The one that keeps servers in containers.
pub(crate) const TEST_CONTAINERS: &str = "test-containers";
