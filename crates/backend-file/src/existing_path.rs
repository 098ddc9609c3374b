//! Existing files and directories as locks, opened as flock(1) opens them.

use std::fs::File;
use std::io;
use std::path::Path;

use locks_api::{Error, ErrorKind, LockName, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::classify;
use crate::inode::Inode;
use crate::lock_file::Anchor;
use crate::network_fs;

/// A path alone: neither is permission to read needed nor does anything notice.
#[cfg(any(target_os = "linux", target_os = "android"))]
const LOOK: OFlags = OFlags::PATH;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
const LOOK: OFlags = OFlags::RDONLY;

/// Refuses a name that is no absolute path. Does no I/O.
///
/// # Errors
///
/// [`ErrorKind::InvalidName`].
pub(crate) fn check(name: &LockName) -> Result<()> {
    if name.as_str().starts_with('/') {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidName,
        format!(
            "the names of these locks are paths, and {:?} is not an absolute one; write /where/it/is",
            name.as_str()
        ),
    ))
}

/// Opens what the path leads to; makes an empty file if nothing is there. Never writes and never waits.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] if it is neither a file nor a directory, or lies on a network file system that is not allowed;
/// otherwise what opening it gives.
pub(crate) fn open(name: &LockName, allow_network_fs: bool) -> Result<Anchor> {
    let path = Path::new(name.as_str());
    let failed = |error: io::Error| classify(error, format_args!("can't open {} to lock it", path.display()));
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let readable = Mode::from_raw_mode(0o666);
    let opened = match rustix::fs::open(path, flags | OFlags::CREATE, readable) {
        // A directory; or somebody else's file in a sticky directory, on which Linux refuses O_CREAT.
        Err(Errno::ISDIR | Errno::ACCESS) => rustix::fs::open(path, flags, Mode::empty()),
        other => other,
    };
    let file = File::from(opened.map_err(|error| failed(error.into()))?);
    anchor(file, path, allow_network_fs)
}

/// Opens what the path leads to, if anything.
pub(crate) fn look(name: &LockName, allow_network_fs: bool) -> Result<Option<Anchor>> {
    let path = Path::new(name.as_str());
    match rustix::fs::open(path, LOOK | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => anchor(File::from(file), path, allow_network_fs).map(Some),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(classify(error, format_args!("can't look at {}", path.display()))),
    }
}

fn anchor(file: File, path: &Path, allow_network_fs: bool) -> Result<Anchor> {
    let inode = Inode::of(&file)
        .map_err(|error| classify(error, format_args!("can't open {} to lock it", path.display())))?;
    if !inode.is_regular_file() && !inode.is_directory() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{} is neither a file nor a directory, so it is not locked; choose another path",
                path.display()
            ),
        ));
    }
    if !allow_network_fs {
        network_fs::refuse(&file, path)?;
    }
    Ok(Anchor { file, path: path.to_owned(), inode })
}
