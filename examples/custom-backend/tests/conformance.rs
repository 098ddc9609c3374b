//! The conformance kit on this backend.

use std::path::PathBuf;

use locks_api::spi::Guarantees;
use locks_backend_rename::RenameBackend;
use locks_conformance::{Harness, SetupError};

locks_conformance::main!(Renaming);

/// A directory of locks. The process that made it removes it.
struct Renaming {
    directory: PathBuf,
    is_owner: bool,
}

impl Harness for Renaming {
    const NAME: &'static str = "rename";
    type Backend = RenameBackend;

    fn guarantees() -> Guarantees {
        RenameBackend::promises()
    }

    async fn start() -> Result<Self, SetupError> {
        let directory = std::env::temp_dir().join(format!("rename-conformance-{}", std::process::id()));
        Ok(Self { directory, is_owner: true })
    }

    async fn connect(&self) -> locks_api::Result<RenameBackend> {
        RenameBackend::open(&self.directory)
    }

    fn worker_url(&self) -> Option<String> {
        self.directory.to_str().map(str::to_owned)
    }

    async fn attach(url: &str) -> Result<Self, SetupError> {
        Ok(Self { directory: url.into(), is_owner: false })
    }
}

impl Drop for Renaming {
    fn drop(&mut self) {
        if self.is_owner {
            // If no case ran, it was never made.
            std::fs::remove_dir_all(&self.directory).unwrap_or_default();
        }
    }
}
