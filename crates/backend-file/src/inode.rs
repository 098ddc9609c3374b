//! Which file a descriptor or a path leads to.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType};

/// What tells one file from all others of the machine, and what kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    device: u64,
    number: u64,
    kind: FileType,
}

impl Inode {
    /// The file behind a descriptor.
    pub(crate) fn of(fd: impl AsFd) -> io::Result<Self> {
        look(fd, Path::new(""), AtFlags::EMPTY_PATH)
    }

    /// The file at a path.
    pub(crate) fn at(path: &Path, flags: AtFlags) -> io::Result<Self> {
        look(CWD, path, flags)
    }

    pub(crate) fn is_regular_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// The number of its device and its own.
    pub(crate) fn numbers(&self) -> (u64, u64) {
        (self.device, self.number)
    }
}

/// Asks for no times: Linux gives a file a finer time stamp at the next write after somebody looked at the last one, and
/// then has to write the inode too.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn look(dir: impl AsFd, path: &Path, flags: AtFlags) -> io::Result<Inode> {
    use rustix::fs::StatxFlags;
    use rustix::io::Errno;

    match rustix::fs::statx(dir.as_fd(), path, flags, StatxFlags::TYPE | StatxFlags::INO) {
        Ok(stat) => Ok(Inode {
            device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            number: stat.stx_ino,
            kind: FileType::from_raw_mode(stat.stx_mode.into()),
        }),
        // Kernels and sandboxes from before statx.
        Err(Errno::NOSYS | Errno::PERM) => look_with_times(dir, path, flags),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
use look_with_times as look;

fn look_with_times(dir: impl AsFd, path: &Path, flags: AtFlags) -> io::Result<Inode> {
    let stat = match path.as_os_str().is_empty() {
        true => rustix::fs::fstat(dir)?,
        false => rustix::fs::statat(dir, path, flags)?,
    };
    Ok(Inode {
        device: stat.st_dev as u64,
        number: stat.st_ino as u64,
        kind: FileType::from_raw_mode(stat.st_mode),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn both_ways_to_look_agree_and_tell_files_apart() {
        let temp = tempfile::tempdir().unwrap();
        let (path, other, link) = (temp.path().join("a"), temp.path().join("b"), temp.path().join("link"));
        let file = File::create(&path).unwrap();
        File::create(&other).unwrap();
        symlink(&path, &link).unwrap();
        let inode = Inode::of(&file).unwrap();
        assert!(inode.is_regular_file());
        assert_eq!(Inode::at(&path, AtFlags::SYMLINK_NOFOLLOW).unwrap(), inode);
        assert_eq!(Inode::at(&link, AtFlags::empty()).unwrap(), inode);
        assert_eq!(look_with_times(&file, Path::new(""), AtFlags::EMPTY_PATH).unwrap(), inode);
        assert_eq!(look_with_times(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).unwrap(), inode);
        for different in [&other, &link] {
            assert_ne!(Inode::at(different, AtFlags::SYMLINK_NOFOLLOW).unwrap(), inode);
        }
        let gone = Inode::at(&temp.path().join("gone"), AtFlags::empty()).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }
}
