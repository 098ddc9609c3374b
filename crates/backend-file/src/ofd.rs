//! Locks on bytes of a file that belong to the open file (OFD locks, Linux 3.15).
//!
//! Plain POSIX locks are lost when any descriptor of the file is closed. These end with the last descriptor of the open file, and so with its process,
//! however it ends. Bytes are locked far behind anything that is ever written.

use std::ops::Range;

use locks_api::Result;

use crate::lock_file::LockFile;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use elsewhere::{SUPPORTED, find, is_locked, lock, try_lock, try_share, unlock, wait};
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::{SUPPORTED, find, is_locked, lock, try_lock, try_share, unlock, wait};

/// A range of bytes, as large as the system allows.
pub(crate) type Bytes = Range<i64>;

/// A range that somebody else has locked.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) bytes: Bytes,
    /// Whether it is locked for somebody alone.
    pub(crate) alone: bool,
}

/// One after the other, the parts of a range that others have locked or nobody has.
#[derive(Debug)]
pub(crate) enum Part {
    Locked(Found),
    /// Free parts come in ascending order.
    Free(Bytes),
}

/// Goes through a range with one question for each part, until `visit` says that it has seen enough.
pub(crate) fn walk(file: &LockFile, range: Bytes, mut visit: impl FnMut(Part) -> bool) -> Result<()> {
    let mut rest = vec![range];
    while let Some(part) = rest.pop() {
        if part.is_empty() {
            continue;
        }
        let Some(mut found) = find(file, &part)? else {
            if !visit(Part::Free(part)) {
                return Ok(());
            }
            continue;
        };
        found.bytes = found.bytes.start.max(part.start)..found.bytes.end.min(part.end);
        rest.push(found.bytes.end..part.end);
        rest.push(part.start..found.bytes.start);
        if !visit(Part::Locked(found)) {
            return Ok(());
        }
    }
    Ok(())
}

/// The single bytes of a range that others have locked for themselves, ascending.
pub(crate) fn locked_bytes(file: &LockFile, range: Bytes) -> Result<Vec<i64>> {
    let mut bytes = Vec::new();
    walk(file, range, |part| {
        if let Part::Locked(found) = part
            && found.alone
        {
            bytes.extend(found.bytes);
        }
        true
    })?;
    bytes.sort_unstable();
    Ok(bytes)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use locks_api::Result;
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    use super::{Bytes, Found};
    use crate::lock_file::LockFile;

    pub(crate) const SUPPORTED: bool = true;

    /// Locks bytes for this open file alone. False if somebody else has any of them.
    pub(crate) fn try_lock(file: &LockFile, bytes: &Bytes) -> Result<bool> {
        set(file, libc::F_WRLCK, bytes)
    }

    /// Locks bytes together with others that share them. False if somebody has any of them alone.
    pub(crate) fn try_share(file: &LockFile, bytes: &Bytes) -> Result<bool> {
        set(file, libc::F_RDLCK, bytes)
    }

    pub(crate) fn unlock(file: &LockFile, bytes: &Bytes) -> Result<()> {
        set(file, libc::F_UNLCK, bytes).map(drop)
    }

    /// Locks bytes for this open file alone; waits while others have them.
    pub(crate) fn lock(file: &LockFile, bytes: &Bytes) -> Result<()> {
        blocking(file, libc::F_WRLCK, bytes)
    }

    /// Waits until nobody else has the bytes alone.
    pub(crate) fn wait(file: &LockFile, bytes: &Bytes) -> Result<()> {
        blocking(file, libc::F_RDLCK, bytes)?;
        unlock(file, bytes)
    }

    /// Some part of the range that somebody else has locked.
    pub(crate) fn find(file: &LockFile, range: &Bytes) -> Result<Option<Found>> {
        let mut found = region(libc::F_WRLCK, range);
        match fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)) {
            Ok(_) if libc::c_int::from(found.l_type) == libc::F_UNLCK => Ok(None),
            Ok(_) => {
                let end = if found.l_len == 0 { i64::MAX } else { found.l_start + found.l_len };
                let alone = libc::c_int::from(found.l_type) == libc::F_WRLCK;
                Ok(Some(Found { bytes: found.l_start..end, alone }))
            }
            Err(error) => Err(file.failed("check", error.into())),
        }
    }

    /// Whether somebody else has locked any of the bytes.
    pub(crate) fn is_locked(file: &LockFile, bytes: &Bytes) -> Result<bool> {
        Ok(find(file, bytes)?.is_some())
    }

    fn set(file: &LockFile, kind: libc::c_int, bytes: &Bytes) -> Result<bool> {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&region(kind, bytes))) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(error) => Err(file.failed("lock", error.into())),
        }
    }

    fn blocking(file: &LockFile, kind: libc::c_int, bytes: &Bytes) -> Result<()> {
        loop {
            match fcntl(file, FcntlArg::F_OFD_SETLKW(&region(kind, bytes))) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(file.failed("lock", error.into())),
            }
        }
    }

    fn region(kind: libc::c_int, bytes: &Bytes) -> libc::flock {
        libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: bytes.start,
            // To the end of all bytes is said with 0.
            l_len: if bytes.end == i64::MAX { 0 } else { bytes.end - bytes.start },
            l_pid: 0, // as OFD locks demand
        }
    }
}

/// Without them there is only the exclusive lock, and nothing here is reached.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod elsewhere {
    use locks_api::{Error, ErrorKind, Result};

    use super::{Bytes, Found};
    use crate::lock_file::LockFile;

    pub(crate) const SUPPORTED: bool = false;

    fn unsupported<T>() -> Result<T> {
        Err(Error::new(ErrorKind::Unsupported, "this system has no locks of the open file"))
    }

    pub(crate) fn try_lock(_file: &LockFile, _bytes: &Bytes) -> Result<bool> {
        unsupported()
    }

    pub(crate) fn try_share(_file: &LockFile, _bytes: &Bytes) -> Result<bool> {
        unsupported()
    }

    pub(crate) fn unlock(_file: &LockFile, _bytes: &Bytes) -> Result<()> {
        unsupported()
    }

    pub(crate) fn lock(_file: &LockFile, _bytes: &Bytes) -> Result<()> {
        unsupported()
    }

    pub(crate) fn wait(_file: &LockFile, _bytes: &Bytes) -> Result<()> {
        unsupported()
    }

    pub(crate) fn find(_file: &LockFile, _range: &Bytes) -> Result<Option<Found>> {
        Ok(None)
    }

    pub(crate) fn is_locked(_file: &LockFile, _bytes: &Bytes) -> Result<bool> {
        Ok(false)
    }
}
