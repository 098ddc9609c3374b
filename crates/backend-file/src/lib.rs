#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(unix))]
compile_error!("locks-backend-file needs flock, which only Unix systems have");

mod abilities;
mod backend;
mod bell;
mod boot;
mod directory;
mod error;
mod existing_path;
mod file_name;
mod flocks;
mod garbage;
mod hold;
mod inode;
mod inspection;
mod line;
mod lock_file;
mod network_fs;
mod ofd;
mod options;
mod record;
mod registry;
mod schedule;
mod seats;
mod sharing;
mod store;
mod stored_name;
mod taking;
mod url;
mod value;
mod waiter;

use std::path::Path;

use locks_api::{Locks, Result};

pub use backend::FileBackend;
pub use garbage::Collected;
pub use options::{FileOptions, Share};

/// Locks in this directory, with default options. It is made, for this user alone, if it is not there.
///
/// # Errors
///
/// As [`FileBackend::open`].
///
/// ```
/// # let temp = tempfile::tempdir()?;
/// # let dir = temp.path();
/// # pollster::block_on(async {
/// let locks = locks_backend_file::open(dir)?;
/// let guard = locks.lock("reports/nightly").acquire().await?;
/// println!("token {}", guard.fencing_token());
/// guard.release().await?;
/// # Ok::<(), locks_api::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn open(dir: impl AsRef<Path>) -> Result<Locks> {
    Ok(Locks::new(FileBackend::open(dir)?))
}
