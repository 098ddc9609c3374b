//! What decorated functions expand to: the library's part, and which locks they use when they name none.

use std::env::{self, VarError};

use locks_api::{Error, ErrorKind, Locks, Result};

pub use locks_api::decorated::*;

use crate::connect;

/// Names the store of those who name none.
const VARIABLE: &str = "LOCKS_URL";

/// A call under a lock of the default.
pub fn on_default(name: impl AsRef<str>) -> Call {
    locks_api::decorated::on_default(open_default, name)
}

/// A call under a lock of the file backend.
#[cfg(feature = "file")]
pub fn on_files(name: impl AsRef<str>) -> Call {
    locks_api::decorated::on_files(open_files, name)
}

/// The default itself.
pub(crate) fn of_process() -> Result<Locks> {
    default_locks(open_default)
}

/// What `LOCKS_URL` names, else the file backend.
fn open_default() -> Result<Locks> {
    match env::var(VARIABLE) {
        Ok(url) if !url.is_empty() => Ok(connect::open(&url)?.build()),
        Err(error @ VarError::NotUnicode(_)) => {
            let message = format!("the environment variable {VARIABLE} is not UTF-8");
            Err(Error::new(ErrorKind::Config, message).with_source(error))
        }
        _ => without_url(),
    }
}

/// Decorated functions share the locks of the file backend, whichever way they come to it.
#[cfg(feature = "file")]
fn without_url() -> Result<Locks> {
    file_locks(open_files)
}

#[cfg(not(feature = "file"))]
fn without_url() -> Result<Locks> {
    let message =
        "no locks were installed, LOCKS_URL is not set, and this build is without the feature \"file\"";
    Err(Error::new(ErrorKind::Config, message))
}

#[cfg(feature = "file")]
fn open_files() -> Result<Locks> {
    connect::open("file:").map(locks_api::LocksBuilder::build)
}
