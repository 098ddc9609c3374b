//! One file: opened with care, locked with flock, read and written while it is locked.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use fs4::{FileExt, TryLockError};
use locks_api::{Error, ErrorKind, LockName, Result};
use rustix::fs::AtFlags;

use crate::directory::Directory;
use crate::error::classify;
use crate::inode::Inode;
use crate::record::{self, Contents, Write};

/// An open file of the lock directory, not locked by way of this descriptor.
///
/// Nobody ever deletes or truncates such a file: a process that waits with the old file open and one that makes it anew would both get the lock.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: File,
    path: PathBuf,
    inode: Inode,
    /// The process that opened the directory.
    pid: u32,
}

/// What came of trying to lock a file.
#[derive(Debug)]
#[must_use]
pub(crate) enum TryLock {
    Locked(Locked),
    Busy(LockFile),
}

impl LockFile {
    /// Opens the file, or makes it. Refuses what is not a regular file, and links to one.
    pub(crate) fn open(directory: &Directory, name: &str) -> Result<Self> {
        let path = directory.path_of(name);
        let failed =
            |error: io::Error| classify(error, format_args!("can't open lock file {}", path.display()));
        let file = directory.open_file(name).map_err(failed)?;
        let inode = Inode::of(&file).map_err(failed)?;
        if !inode.is_regular_file() {
            return Err(failed(rustix::io::Errno::NODEV.into()));
        }
        Ok(Self { file, path, inode, pid: directory.pid() })
    }

    /// Locks the file if nobody holds it. Never waits.
    pub(crate) fn try_lock(self) -> Result<TryLock> {
        match FileExt::try_lock(&self.file) {
            Ok(()) => Ok(TryLock::Locked(Locked::new(self))),
            Err(TryLockError::WouldBlock) => Ok(TryLock::Busy(self)),
            Err(TryLockError::Error(error)) => Err(self.failed("lock", error)),
        }
    }

    /// Locks the file; waits while others hold it.
    pub(crate) fn lock(self) -> Result<Locked> {
        loop {
            match FileExt::lock(&self.file) {
                Ok(()) => return Ok(Locked::new(self)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("lock", error)),
            }
        }
    }

    /// What the file says. Without the lock that is only a hint.
    pub(crate) fn contents(&self) -> Result<Contents> {
        let mut bytes = [0; record::LEN];
        self.read(&mut bytes, 0)?;
        Contents::check(bytes)
    }

    /// Says that somebody waits. Only for those who are in line.
    pub(crate) fn announce_waiting(&self) -> Result<()> {
        self.write(&[1], record::WAITING as u64)
    }

    /// Another descriptor of the same open file: what is locked by way of one is locked by way of both.
    pub(crate) fn duplicate(&self) -> Result<Self> {
        let file = self.file.try_clone().map_err(|error| self.failed("share", error))?;
        Ok(Self { file, path: self.path.clone(), ..*self })
    }

    /// Whether this process opened it, and did not get it by a fork.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.pid == std::process::id()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads as much as there is.
    pub(crate) fn read(&self, bytes: &mut [u8], offset: u64) -> Result<usize> {
        let mut len = 0;
        while len < bytes.len() {
            match self.file.read_at(&mut bytes[len..], offset + len as u64) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("read", error)),
            }
        }
        Ok(len)
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|error| self.failed("write", error))
    }

    /// The error for what could not be done with this file.
    pub(crate) fn failed(&self, doing: &str, error: io::Error) -> Error {
        classify(error, format_args!("can't {doing} lock file {}", self.path.display()))
    }
}

impl AsFd for LockFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A file that is locked by way of this descriptor. Unlocked when dropped.
///
/// The lock belongs to all descriptors that were made from this one, also those that forked processes have. So it is undone
/// explicitly, or a child between fork and exec would keep it a little longer; but only by the process that took it, or
/// a forked child would undo its parent's; and never once it was shared on purpose.
#[derive(Debug)]
pub(crate) struct Locked {
    file: LockFile,
    /// Whether it is to be undone, and not only closed.
    unlock: bool,
}

impl Locked {
    fn new(file: LockFile) -> Self {
        Self { file, unlock: true }
    }

    /// Whether the path still leads to this file. Otherwise somebody replaced it, and the next one would lock another.
    pub(crate) fn is_in_place(&self) -> Result<bool> {
        match Inode::at(&self.path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(found == self.inode),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed("check", error)),
        }
    }

    /// Makes sure that this is the file of this lock, where its path holds only a hash of the name.
    pub(crate) fn check_name(&self, name: &LockName) -> Result<()> {
        let mut bytes = [0; record::NAME_LEN];
        let len = self.read(&mut bytes, record::NAME)?;
        match record::decode_name(&bytes[..len]) {
            Some(stored) if stored == name.as_str().as_bytes() => Ok(()),
            Some(stored) => Err(Error::new(
                ErrorKind::Backend,
                format!(
                    "{} is the file of another lock, {:?}; was it copied?",
                    self.path.display(),
                    String::from_utf8_lossy(stored)
                ),
            )),
            None => self.write(&record::encode_name(name), record::NAME),
        }
    }

    /// Writes a record. With `durable` it is on the disk before this returns.
    pub(crate) fn write_record(&self, offset: u64, write: &Write, durable: bool) -> Result<()> {
        self.write(write.as_bytes(), offset)?;
        if durable {
            self.file.file.sync_data().map_err(|error| self.failed("sync", error))?;
        }
        Ok(())
    }

    /// Another descriptor of the lock that programs started from now on inherit. From here on this one is only
    /// closed: the lock ends with the last descriptor.
    pub(crate) fn share(&mut self) -> Result<OwnedFd> {
        let shared = rustix::io::dup(&self.file.file).map_err(|error| self.failed("share", error.into()))?;
        self.unlock = false;
        Ok(shared)
    }

    /// Gives the lock back.
    ///
    /// # Errors
    ///
    /// If the system refuses; the descriptor is closed all the same.
    pub(crate) fn release(mut self) -> Result<()> {
        self.unlock().map_err(|error| self.failed("unlock", error))
    }

    fn unlock(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.unlock) && self.file.is_of_this_process() {
            return FileExt::unlock(&self.file.file);
        }
        Ok(())
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // A lock that can't be undone here ends a moment later, when the descriptor is closed.
        drop(self.unlock());
    }
}

impl Deref for Locked {
    type Target = LockFile;

    fn deref(&self) -> &LockFile {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn locked(directory: &Directory) -> Locked {
        match LockFile::open(directory, "x.lock").unwrap().try_lock().unwrap() {
            TryLock::Locked(locked) => locked,
            TryLock::Busy(file) => panic!("busy: {file:?}"),
        }
    }

    #[test]
    fn a_file_that_is_replaced_between_open_and_lock_is_noticed() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path(), false, false).unwrap();
        assert!(locked(&directory).is_in_place().unwrap());
        for replacement in [None, Some(false), Some(true)] {
            let file = LockFile::open(&directory, "x.lock").unwrap();
            let path = file.path().to_owned();
            match replacement {
                None => fs::remove_file(&path).unwrap(),
                Some(false) => fs::rename(&path, temp.path().join("moved")).unwrap(),
                Some(true) => {
                    fs::write(temp.path().join("new"), "").unwrap();
                    fs::rename(temp.path().join("new"), &path).unwrap();
                }
            }
            let locked = file.lock().unwrap();
            assert!(!locked.is_in_place().unwrap(), "{replacement:?}");
        }
    }

    #[test]
    fn dropping_and_releasing_unlock_at_once_even_if_a_copy_of_the_descriptor_lives() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path(), false, false).unwrap();
        for release in [false, true] {
            let first = locked(&directory);
            let copy = first.file.file.try_clone().unwrap();
            if release {
                first.release().unwrap()
            } else {
                drop(first)
            }
            drop(locked(&directory));
            drop(copy);
        }
    }

    #[test]
    fn another_process_and_a_shared_descriptor_only_close() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path(), false, false).unwrap();
        let busy =
            || matches!(LockFile::open(&directory, "x.lock").unwrap().try_lock().unwrap(), TryLock::Busy(_));
        // As in a forked child: the descriptor came from a process of another id.
        let mut inherited = locked(&directory);
        inherited.file.pid += 1;
        let parents = inherited.file.file.try_clone().unwrap();
        drop(inherited);
        assert!(busy());
        drop(parents);

        let mut shared = locked(&directory);
        let childs = shared.share().unwrap();
        shared.release().unwrap();
        assert!(busy());
        drop(childs);
        assert!(!busy());
    }
}
