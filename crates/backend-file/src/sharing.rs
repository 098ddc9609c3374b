//! Lock directories that several users share.
//!
//! Whoever may write to a directory may replace files in it, unless it is sticky: then only the owner of a file, of the directory, and root
//! may. So it has to be sticky and its owner has to be trusted. Its files are made with a mode that lets all others in who share it, whatever the umask.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use locks_api::{Error, ErrorKind, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::directory::is_trusted;
use crate::options::Share;

impl Share {
    /// The mode of the directory: sticky, and set-group-id, so that files belong to its group.
    fn directory_mode(self) -> Mode {
        Mode::from_raw_mode(match self {
            Self::Group => 0o3770,
            Self::All => 0o1777,
        })
    }

    fn file_mode(self) -> Mode {
        Mode::from_raw_mode(match self {
            Self::Group => 0o660,
            Self::All => 0o666,
        })
    }

    /// What root does to make such a directory.
    fn remedy(self, path: &Path) -> String {
        match self {
            Self::Group => format!("install -d -o root -g GROUP -m 3770 {}", path.display()),
            Self::All => format!("install -d -o root -m 1777 {}", path.display()),
        }
    }
}

/// Makes the directory if it is not there. The inner result is what making it gave.
///
/// # Errors
///
/// [`ErrorKind::PermissionDenied`] if it is not there and this is not root: its owner could replace the files of others.
pub(crate) fn make(path: &Path, share: Share) -> Result<io::Result<()>> {
    if path.exists() {
        return Ok(Ok(()));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            format!(
                "lock directory {} is not there, and one that is shared is made by root: `{}`",
                path.display(),
                share.remedy(path)
            ),
        ));
    }
    let parents = path.parent().filter(|parent| !parent.exists());
    let made = parents.map_or(Ok(()), make_parents).and_then(|()| {
        let mode = share.directory_mode();
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            // Another one was faster, and gives it its mode.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other?,
        }
        Ok(rustix::fs::chmodat(CWD, path, mode, AtFlags::empty())?)
    });
    Ok(made)
}

/// Others have to get through, whatever the umask.
fn make_parents(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        match std::fs::DirBuilder::new().mode(0o755).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(0o755), AtFlags::empty())?,
        }
    }
    Ok(())
}

/// Refuses a directory in which somebody could replace what belongs to others, or that does not let in those with whom it is to be shared.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`], which says what to do.
pub(crate) fn check(path: &Path, stat: &Stat, share: Share) -> Result<()> {
    let mode = Mode::from_raw_mode(stat.st_mode);
    let complaint = if !is_trusted(stat.st_uid) {
        format!("belongs to user {}, who could replace the files of others", stat.st_uid)
    } else if !mode.contains(Mode::SVTX) {
        format!(
            "is not sticky (mode {:o}), so that its users could replace each other's files",
            mode.as_raw_mode()
        )
    } else if share == Share::Group && mode.contains(Mode::WOTH) {
        format!("lets all users in (mode {:o}) and not only its group", mode.as_raw_mode())
    } else if !mode.contains(share.directory_mode()) {
        let (is, wanted) = (mode.as_raw_mode(), share.directory_mode().as_raw_mode());
        format!("has mode {is:o} and has to have {wanted:o} to be shared")
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("lock directory {} {complaint}; as root, `{}`", path.display(), share.remedy(path)),
    ))
}

/// Makes an empty file for those who share the directory, unless it is there by now. It appears with its mode or not at all.
pub(crate) fn make_file(directory: impl AsFd, name: &str, share: Share) -> io::Result<()> {
    let new = format!("{NEW}{:032x}", locks_api::spi::ClaimId::random().to_bits());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = File::from(rustix::fs::openat(&directory, &new, flags, Mode::RUSR | Mode::WUSR)?);
    let made = rustix::fs::fchmod(&file, share.file_mode())
        .and_then(|()| rustix::fs::linkat(&directory, &new, &directory, name, AtFlags::empty()));
    rustix::fs::unlinkat(&directory, &new, AtFlags::empty())?;
    match made {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// How the names of files begin that are being made. Never those of locks, which do not begin with a dot.
pub(crate) const NEW: &str = ".new-";
