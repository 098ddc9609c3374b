//! What the operating system's errors mean for a lock.

use std::fmt::Display;
use std::io;

use locks_api::{Error, ErrorKind};
use rustix::io::Errno;

/// The error for `doing`, such as "can't open lock file /locks/a.lock", that failed with `error`.
///
/// Never [`ErrorKind::Unavailable`]: whatever fails here has not happened, and nothing stays locked.
#[cold]
pub(crate) fn classify(error: impl Into<io::Error>, doing: impl Display) -> Error {
    let error = error.into();
    let (kind, advice) = match Errno::from_io_error(&error) {
        Some(Errno::NOSPC | Errno::DQUOT) => {
            (ErrorKind::StoreFull, "the disk or the quota is full; free some space")
        }
        Some(Errno::FBIG) => (ErrorKind::StoreFull, "the file may not grow; raise the limit on file sizes"),
        Some(Errno::MFILE) => {
            (ErrorKind::StoreFull, "this process has too many files open; raise `ulimit -n`")
        }
        Some(Errno::NFILE) => (ErrorKind::StoreFull, "the system has too many files open"),
        Some(Errno::NOMEM | Errno::NOLCK) => (ErrorKind::StoreFull, "the kernel has no memory left for it"),
        Some(Errno::AGAIN) => (ErrorKind::StoreFull, "the limit on threads or processes is reached"),
        Some(Errno::ACCESS | Errno::PERM) => (
            ErrorKind::PermissionDenied,
            "this user may not; check the owner and the mode, or choose another directory",
        ),
        Some(Errno::ROFS) => (
            ErrorKind::PermissionDenied,
            "the file system is read-only; choose a directory that can be written",
        ),
        Some(Errno::LOOP) => (ErrorKind::Unsupported, "it is a symbolic link, which is refused; remove it"),
        Some(Errno::ISDIR | Errno::NXIO | Errno::NODEV) => {
            (ErrorKind::Unsupported, "it is not a regular file, which is refused; remove it")
        }
        Some(Errno::NOTDIR) => {
            (ErrorKind::Config, "a part of the path is not a directory; choose another one")
        }
        Some(Errno::NOSYS | Errno::OPNOTSUPP) => {
            (ErrorKind::Unsupported, "the file system has no flock; choose a directory on another one")
        }
        Some(Errno::NOENT) => {
            (ErrorKind::Backend, "the lock directory is gone; make it again and open it again")
        }
        Some(Errno::IO) => (ErrorKind::Backend, "the disk reports an error"),
        _ if error.kind() == io::ErrorKind::WriteZero => {
            (ErrorKind::StoreFull, "the disk took only a part of it")
        }
        _ => (ErrorKind::Backend, "the system refuses it"),
    };
    Error::new(kind, format!("{doing}: {advice}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn the_kind_says_what_to_do_and_the_source_is_the_systems_own() {
        for (errno, kind) in [
            (Errno::NOSPC, ErrorKind::StoreFull),
            (Errno::MFILE, ErrorKind::StoreFull),
            (Errno::ACCESS, ErrorKind::PermissionDenied),
            (Errno::ROFS, ErrorKind::PermissionDenied),
            (Errno::LOOP, ErrorKind::Unsupported),
            (Errno::IO, ErrorKind::Backend),
            (Errno::INVAL, ErrorKind::Backend),
        ] {
            let error = classify(errno, "can't open lock file /l/a.lock");
            assert_eq!(error.kind(), kind, "{errno}");
            assert!(error.to_string().starts_with("can't open lock file /l/a.lock: "), "{error}");
            let source = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
            assert_eq!(source.raw_os_error(), Some(errno.raw_os_error()));
        }
    }
}
