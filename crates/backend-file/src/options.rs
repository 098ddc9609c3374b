//! How a lock directory is opened.

use std::path::Path;

use locks_api::Result;

use crate::backend::FileBackend;

/// How a [`FileBackend`] is opened.
///
/// ```
/// use locks_backend_file::FileBackend;
///
/// # let dir = tempfile::tempdir()?;
/// let backend = FileBackend::options().durable(true).open(dir.path())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "options do nothing until a directory is opened with them"]
pub struct FileOptions {
    pub(crate) durable: bool,
    pub(crate) allow_network_fs: bool,
    pub(crate) paths: bool,
    pub(crate) share: Option<Share>,
}

/// With whom a lock directory is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Share {
    /// The group of the directory.
    Group,
    /// All users of the machine.
    All,
}

impl FileOptions {
    /// Whether each grant waits until its fencing token is on the disk. Off by default.
    ///
    /// Without it, tokens increase over crashes of processes, and over crashes of the machine as long as its clock is not
    /// behind the last grant. With it they need no clock, and each grant takes as long as the disk takes to sync;
    /// it is then not taken on the caller's thread.
    pub const fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Whether the directory may lie on a network file system or on FUSE. Off by default.
    ///
    /// Many of them do not exclude holders on different machines, and some not even on one.
    pub const fn allow_network_fs(mut self, allow: bool) -> Self {
        self.allow_network_fs = allow;
        self
    }

    /// Whether the names of locks are absolute paths of files or directories, which are locked themselves, as flock(1) does. Off by default.
    ///
    /// An exclusive lock excludes `flock -x` on the same path and a shared one goes with `flock -s`, both ways, so that scripts can move over one by one.
    /// The path is opened for reading alone and never written; a file that is not there is made empty, as flock(1) makes it. Token and holder lie in
    /// the lock directory. A name that is no absolute path is an [`ErrorKind::InvalidName`](locks_api::ErrorKind::InvalidName), and permits are
    /// [`ErrorKind::Unsupported`](locks_api::ErrorKind::Unsupported): flock(1) knows nothing of them.
    ///
    /// Each held lock takes two descriptors. Linux only.
    ///
    /// ```
    /// use locks_api::Locks;
    /// use locks_backend_file::FileBackend;
    ///
    /// # let temp = tempfile::tempdir()?;
    /// # let (dir, path) = (temp.path().join("locks"), temp.path().join("backup.pid"));
    /// # pollster::block_on(async {
    /// let locks = Locks::new(FileBackend::options().paths(true).open(&dir)?);
    /// let guard = locks.lock(path.to_str().unwrap()).acquire().await?;
    /// // Now `flock --nonblock backup.pid true` fails.
    /// guard.release().await?;
    /// # Ok::<(), locks_api::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn paths(mut self, paths: bool) -> Self {
        self.paths = paths;
        self
    }

    /// Shares the directory between users. Not shared by default: files are made for their first user alone.
    ///
    /// Files are made for the group or for all, whatever the umask. The directory must be one in which nobody can replace somebody else's files: sticky,
    /// owned by root or this user and, for a group, set-group-id; otherwise it is refused in words. One that is not there is made only by root.
    /// Whoever may use the directory can also hold its locks for ever.
    pub const fn share(mut self, share: Share) -> Self {
        self.share = Some(share);
        self
    }

    /// Opens `dir` with these options. See [`FileBackend::open`].
    ///
    /// # Errors
    ///
    /// As [`FileBackend::open`].
    pub fn open(&self, dir: impl AsRef<Path>) -> Result<FileBackend> {
        FileBackend::with_options(dir.as_ref(), self)
    }
}
