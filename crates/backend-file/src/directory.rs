//! The lock directory: made private, checked, and kept open.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use locks_api::{Error, ErrorKind, Result};
use nix::unistd::{User, geteuid};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::classify;
use crate::inode::Inode;
use crate::network_fs;
use crate::options::{FileOptions, Share};
use crate::sharing;

/// A directory that only trusted users can tamper with.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: File,
    path: PathBuf,
    inode: Inode,
    pid: u32,
    share: Option<Share>,
}

impl Directory {
    /// Opens `path`; makes it and its parents, for this user alone or for those with whom it is shared, if it is not there. If `durable`, what is made is on the
    /// disk before this returns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if others could tamper with it, or if it lies on a network file system that is not
    /// allowed; otherwise what making and opening it gives.
    pub(crate) fn open(path: &Path, options: &FileOptions) -> Result<Self> {
        let path = std::path::absolute(path)
            .map_err(|error| classify(error, format_args!("can't tell where {} is", path.display())))?;
        let refused = |error: io::Error, doing: &str| {
            classify(error, format_args!("can't {doing} lock directory {}", path.display()))
        };
        let first_there = path.ancestors().find(|path| path.exists());
        let made = match options.share {
            None => DirBuilder::new().recursive(true).mode(0o700).create(&path),
            Some(share) => sharing::make(&path, share)?,
        };
        made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => not_a_directory(&path),
            _ => refused(error, "make"),
        })?;
        check_link(&path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| refused(error.into(), "open"))?;
        let stat = rustix::fs::fstat(&fd).map_err(|error| refused(error.into(), "check"))?;
        match options.share {
            None => check_owner(&path, &stat)?,
            Some(share) => sharing::check(&path, &stat, share)?,
        }
        if !options.allow_network_fs {
            network_fs::refuse(&fd, &path)?;
        }
        if options.durable {
            sync_new(&path, first_there).map_err(|error| refused(error, "sync"))?;
        }
        let inode = Inode::of(&fd).map_err(|error| refused(error, "check"))?;
        Ok(Self { fd: fd.into(), path, inode, pid: std::process::id(), share: options.share })
    }

    /// Where it is: an absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The process that opened it.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Opens the file `name` of this directory for reading and writing; makes it, for this user alone or for those with whom it is shared, if it is not there.
    /// Never waits, whatever is there.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        let flags = READ | OFlags::RDWR;
        let open = |flags| rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR);
        if let Some(share) = self.share {
            // Without O_CREAT, which Linux refuses in such directories on files of others.
            return match open(flags) {
                Err(Errno::NOENT) => {
                    sharing::make_file(&self.fd, name, share)?;
                    Ok(File::from(open(flags)?))
                }
                other => Ok(File::from(other?)),
            };
        }
        let file = match open(flags | OFlags::CREATE) {
            // In a sticky directory Linux refuses O_CREAT on a file of somebody else, even if it may be written.
            Err(Errno::ACCESS) => open(flags).map_err(|error| match error {
                Errno::NOENT => Errno::ACCESS,
                other => other,
            }),
            other => other,
        };
        Ok(File::from(file?))
    }

    /// Opens the file `name` of this directory for reading and writing, if it is there.
    pub(crate) fn open_file_if_there(&self, name: &str) -> io::Result<File> {
        Ok(File::from(rustix::fs::openat(&self.fd, name, READ | OFlags::RDWR, Mode::empty())?))
    }

    /// Opens the file `name` of this directory for reading alone.
    pub(crate) fn look_at_file(&self, name: &str) -> io::Result<File> {
        Ok(File::from(rustix::fs::openat(&self.fd, name, READ | OFlags::RDONLY, Mode::empty())?))
    }

    /// Removes the file `name` of this directory.
    pub(crate) fn remove_file(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())?)
    }

    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether its path still leads to it.
    pub(crate) fn is_in_place(&self) -> bool {
        Inode::at(&self.path, AtFlags::empty()).is_ok_and(|found| found == self.inode)
    }

    /// Waits until the names in it are on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.fd.sync_all()
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How every file of a directory is opened: close-on-exec, no link, no waiting for the other end of a FIFO.
const READ: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// The directory for users who name none: `.local/state/locks` in the home of the effective user.
///
/// The home comes from the user database, never from the environment, so that a cron job and a terminal of one user
/// meet.
///
/// # Errors
///
/// [`ErrorKind::Config`] if the user is not in the database or has no home, [`ErrorKind::PermissionDenied`] if the
/// directory is not there and can't be made.
pub(crate) fn default_dir() -> Result<PathBuf> {
    let uid = geteuid();
    let user = User::from_uid(uid)
        .map_err(|error| {
            Error::new(ErrorKind::Config, format!("can't look up user {uid} in the user database; {INSTEAD}"))
                .with_source(error)
        })?
        .ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("user {uid} is not in the user database; {INSTEAD}"))
        })?;
    default_dir_in(&user.name, &user.dir)
}

/// What to do where there is no default directory.
const INSTEAD: &str = "name a directory instead, as in file:/var/lib/locks";

fn default_dir_in(user: &str, home: &Path) -> Result<PathBuf> {
    if !home.is_absolute() || !home.is_dir() {
        return Err(Error::new(
            ErrorKind::Config,
            format!("user {user} has no home directory ({} in the user database); {INSTEAD}", home.display()),
        ));
    }
    let dir = home.join(".local/state/locks");
    let nearest = dir.ancestors().find(|path| path.exists()).unwrap_or(home);
    rustix::fs::accessat(CWD, nearest, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).map_err(
        |error| {
            Error::new(
                ErrorKind::PermissionDenied,
                format!(
                    "user {user} can't write to {}, where {} would be; {INSTEAD}",
                    nearest.display(),
                    dir.display()
                ),
            )
            .with_source(io::Error::from(error))
        },
    )?;
    Ok(dir)
}

fn not_a_directory(path: &Path) -> Error {
    Error::new(
        ErrorKind::Config,
        format!(
            "lock directory {} is not a directory; choose another path or remove what is there",
            path.display()
        ),
    )
}

/// A link may lead anywhere its owner likes, so its owner must be trusted.
fn check_link(path: &Path) -> Result<()> {
    let stat = rustix::fs::lstat(path)
        .map_err(|error| classify(error, format_args!("can't check lock directory {}", path.display())))?;
    let is_link = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Symlink;
    if is_link && !is_trusted(stat.st_uid) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "lock directory {} is a symbolic link of user {}, who could point it elsewhere; name its target",
                path.display(),
                stat.st_uid
            ),
        ));
    }
    Ok(())
}

/// Whoever may replace files in the directory can let two holders in.
fn check_owner(path: &Path, stat: &Stat) -> Result<()> {
    let mode = Mode::from_raw_mode(stat.st_mode);
    let sticky = mode.contains(Mode::SVTX);
    let complaint = if mode.intersects(Mode::WGRP | Mode::WOTH) && !sticky {
        format!(
            "can be written by others (mode {:o}), who could replace its files; \
             `chmod go-w` it, or `chmod +t` it to share it",
            mode.as_raw_mode()
        )
    } else if !is_trusted(stat.st_uid) && !sticky {
        format!(
            "belongs to user {}, who could replace its files; choose a directory of your own",
            stat.st_uid
        )
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Unsupported, format!("lock directory {} {complaint}", path.display())))
}

pub(crate) fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == geteuid().as_raw()
}

/// Syncs each directory that got a new entry.
fn sync_new(path: &Path, first_there: Option<&Path>) -> io::Result<()> {
    for parent in path.ancestors().skip(1).take_while(|_| first_there != Some(path)) {
        File::open(parent)?.sync_all()?;
        if Some(parent) == first_there {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn open(path: &Path) -> Result<Directory> {
        Directory::open(path, &FileOptions::default())
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_missing_directory_is_made_private_with_its_parents() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        Directory::open(&path, &FileOptions::default().durable(true)).unwrap();
        assert_eq!((mode(&path), mode(&temp.path().join("a"))), (0o700, 0o700));
        // What is there already keeps its mode.
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        open(&path).unwrap();
        assert_eq!(mode(&path), 0o755);
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused_unless_sticky() {
        let temp = tempfile::tempdir().unwrap();
        for (mode, accepted) in
            [(0o700, true), (0o755, true), (0o770, false), (0o702, false), (0o777, false), (0o1777, true)]
        {
            fs::set_permissions(temp.path(), Permissions::from_mode(mode)).unwrap();
            let opened = open(temp.path());
            assert_eq!(opened.is_ok(), accepted, "{mode:o}");
            if let Err(error) = opened {
                assert_eq!(error.kind(), ErrorKind::Unsupported);
                assert!(error.to_string().contains(&format!("{mode:o}")), "{error}");
            }
        }
    }

    #[test]
    fn a_file_is_no_lock_directory() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        for path in [temp.path().to_owned(), temp.path().join("below")] {
            let error = open(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
    }

    #[test]
    fn a_link_of_ones_own_is_followed() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("real")).unwrap();
        symlink(temp.path().join("real"), temp.path().join("link")).unwrap();
        open(&temp.path().join("link")).unwrap();
        symlink(temp.path().join("nowhere"), temp.path().join("dangling")).unwrap();
        assert_eq!(open(&temp.path().join("dangling")).unwrap_err().kind(), ErrorKind::Config);
    }

    /// Only root can make what belongs to others.
    #[test]
    fn a_directory_or_link_of_somebody_else_is_refused() {
        if !geteuid().is_root() {
            eprintln!("skipped: not root");
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let theirs = temp.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        std::os::unix::fs::chown(&theirs, Some(12_345), None).unwrap();
        let error = open(&theirs).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("12345"), "{error}");
        fs::set_permissions(&theirs, Permissions::from_mode(0o1777)).unwrap();
        open(&theirs).unwrap();

        let link = temp.path().join("link");
        fs::create_dir(temp.path().join("ours")).unwrap();
        symlink(temp.path().join("ours"), &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(12_345), None).unwrap();
        assert_eq!(open(&link).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_directory_that_was_replaced_is_noticed() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("locks");
        let directory = open(&path).unwrap();
        assert!(directory.is_in_place());
        fs::rename(&path, temp.path().join("moved")).unwrap();
        assert!(!directory.is_in_place());
        fs::create_dir(&path).unwrap();
        assert!(!directory.is_in_place());
    }

    #[test]
    fn the_default_directory_follows_the_user_database_alone() {
        let user = User::from_uid(geteuid()).unwrap().unwrap();
        assert_eq!(default_dir().unwrap(), user.dir.join(".local/state/locks"));
        let error = default_dir_in("nobody", Path::new("/nonexistent")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            error.to_string().contains("nobody") && error.to_string().contains("/nonexistent"),
            "{error}"
        );
    }
}
