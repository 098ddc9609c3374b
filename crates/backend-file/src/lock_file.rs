//! One file: opened with care, locked with flock, read and written while it is locked.
//!
//! Where the lock is an existing path, there are two: the flock is taken on the path, which is never written, and everything else lies in a side
//! file of the lock directory.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs4::{FileExt, TryLockError};
use locks_api::{Error, ErrorKind, LockName, Result};
use rustix::fs::{AtFlags, FlockOperation};

use crate::directory::Directory;
use crate::error::classify;
use crate::inode::Inode;
use crate::ofd::{self, Bytes};
use crate::record::{self, Contents, Write};
use crate::stored_name;

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
    /// What is locked instead of this file, if it is not itself.
    anchor: Option<Box<Anchor>>,
}

/// An existing file or directory that carries the flock.
#[derive(Debug)]
pub(crate) struct Anchor {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) inode: Inode,
}

/// How a file is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flock {
    Exclusive,
    Shared,
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
        Self::from_opened(directory, name, directory.open_file(name))
    }

    /// Opens the file, if it is there.
    pub(crate) fn open_if_there(directory: &Directory, name: &str) -> Result<Option<Self>> {
        Self::if_there(directory, name, directory.open_file_if_there(name))
    }

    /// Opens the file for reading alone, if it is there.
    pub(crate) fn look(directory: &Directory, name: &str) -> Result<Option<Self>> {
        Self::if_there(directory, name, directory.look_at_file(name))
    }

    fn if_there(directory: &Directory, name: &str, opened: io::Result<File>) -> Result<Option<Self>> {
        match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => Self::from_opened(directory, name, opened).map(Some),
        }
    }

    fn from_opened(directory: &Directory, name: &str, opened: io::Result<File>) -> Result<Self> {
        let path = directory.path_of(name);
        let failed =
            |error: io::Error| classify(error, format_args!("can't open lock file {}", path.display()));
        let file = opened.map_err(failed)?;
        let inode = Inode::of(&file).map_err(failed)?;
        if !inode.is_regular_file() {
            return Err(failed(rustix::io::Errno::NODEV.into()));
        }
        Ok(Self { file, path, inode, pid: directory.pid(), anchor: None })
    }

    /// The same file, with what is locked instead of it.
    pub(crate) fn anchored(self, anchor: Anchor) -> Self {
        Self { anchor: Some(Box::new(anchor)), ..self }
    }

    /// Whether something else carries the lock.
    pub(crate) fn is_anchored(&self) -> bool {
        self.anchor.is_some()
    }

    /// Locks the file if nobody is in the way. Never waits.
    pub(crate) fn try_lock(self, how: Flock) -> Result<TryLock> {
        let tried = match how {
            Flock::Exclusive => FileExt::try_lock(self.carrier()),
            Flock::Shared => FileExt::try_lock_shared(self.carrier()),
        };
        match tried {
            Ok(()) => Ok(TryLock::Locked(Locked::new(self))),
            Err(TryLockError::WouldBlock) => Ok(TryLock::Busy(self)),
            Err(TryLockError::Error(error)) => Err(self.failed("lock", error)),
        }
    }

    /// Locks the file; waits while others are in the way.
    pub(crate) fn lock(self, how: Flock) -> Result<Locked> {
        loop {
            let locked = match how {
                Flock::Exclusive => FileExt::lock(self.carrier()),
                Flock::Shared => FileExt::lock_shared(self.carrier()),
            };
            match locked {
                Ok(()) => return Ok(Locked::new(self)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("lock", error)),
            }
        }
    }

    /// The file that carries the flock.
    fn carrier(&self) -> &File {
        self.anchor.as_ref().map_or(&self.file, |anchor| &anchor.file)
    }

    /// Whether the path still leads to this file, and that of what carries the flock to that. Otherwise somebody replaced it, and the next one would lock
    /// another.
    pub(crate) fn is_in_place(&self) -> Result<bool> {
        let leads_to = |path: &Path, flags, inode| match Inode::at(path, flags) {
            Ok(found) => Ok(found == inode),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed("check", error)),
        };
        if let Some(anchor) = &self.anchor
            && !leads_to(&anchor.path, AtFlags::empty(), anchor.inode)?
        {
            return Ok(false);
        }
        leads_to(&self.path, AtFlags::SYMLINK_NOFOLLOW, self.inode)
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
        Ok(Self { file, path: self.path.clone(), inode: self.inode, pid: self.pid, anchor: None })
    }

    /// What tells the file that carries the flock from all others.
    pub(crate) fn carrier_inode(&self) -> Inode {
        self.anchor.as_ref().map_or(self.inode, |anchor| anchor.inode)
    }

    /// How long ago the file was written last.
    pub(crate) fn age(&self) -> Result<Duration> {
        let written = self.file.metadata().and_then(|metadata| metadata.modified());
        Ok(written.map_err(|error| self.failed("check", error))?.elapsed().unwrap_or_default())
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
        let path = self.anchor.as_ref().map_or(&self.path, |anchor| &anchor.path);
        classify(error, format_args!("can't {doing} lock file {}", path.display()))
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
    /// Whether bytes of the file are locked, too.
    bytes: bool,
}

/// All bytes that can be locked.
const ALL: Bytes = 0..i64::MAX;

impl Locked {
    fn new(file: LockFile) -> Self {
        Self { file, unlock: true, bytes: false }
    }

    /// Locks bytes of the file for this open file alone. False if somebody else has any of them.
    pub(crate) fn try_bytes(&mut self, bytes: &Bytes) -> Result<bool> {
        let locked = ofd::try_lock(&self.file, bytes)?;
        self.bytes |= locked;
        Ok(locked)
    }

    /// Locks bytes of the file; waits while others have them.
    pub(crate) fn wait_for_bytes(&mut self, bytes: &Bytes) -> Result<()> {
        ofd::lock(&self.file, bytes)?;
        self.bytes = true;
        Ok(())
    }

    /// From now on others may share the lock. Between the two nobody else can get it: Linux changes it in one step, from 4.1 on.
    ///
    /// # Errors
    ///
    /// If the system refuses; then the lock may be gone.
    pub(crate) fn share_lock(&self) -> Result<()> {
        rustix::fs::flock(self.file.carrier(), FlockOperation::NonBlockingLockShared)
            .map_err(|error| self.failed("share", error.into()))
    }

    /// Makes sure that this is the file of this lock, where its path holds only a hash of the name.
    pub(crate) fn check_name(&self, name: &LockName) -> Result<()> {
        let mut bytes = [0; stored_name::NAME_LEN];
        let len = self.read(&mut bytes, stored_name::NAME)?;
        match stored_name::decode_name(&bytes[..len]) {
            Some(stored) if stored == name.as_str().as_bytes() => Ok(()),
            Some(stored) => Err(Error::new(
                ErrorKind::Backend,
                format!(
                    "{} is the file of another lock, {:?}; was it copied?",
                    self.path.display(),
                    String::from_utf8_lossy(stored)
                ),
            )),
            None => self.write(&stored_name::encode_name(name), stored_name::NAME),
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
        let shared =
            rustix::io::dup(self.file.carrier()).map_err(|error| self.failed("share", error.into()))?;
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
            if std::mem::take(&mut self.bytes) {
                // Before the lock itself, so that what is left of it never stands for a holder.
                ofd::unlock(&self.file, &ALL).map_err(io::Error::other)?;
            }
            return FileExt::unlock(self.file.carrier());
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
        match LockFile::open(directory, "x.lock").unwrap().try_lock(Flock::Exclusive).unwrap() {
            TryLock::Locked(locked) => locked,
            TryLock::Busy(file) => panic!("busy: {file:?}"),
        }
    }

    #[test]
    fn a_file_that_is_replaced_between_open_and_lock_is_noticed() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path(), &crate::FileBackend::options()).unwrap();
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
            let locked = file.lock(Flock::Exclusive).unwrap();
            assert!(!locked.is_in_place().unwrap(), "{replacement:?}");
        }
    }

    #[test]
    fn dropping_and_releasing_unlock_at_once_even_if_a_copy_of_the_descriptor_lives() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path(), &crate::FileBackend::options()).unwrap();
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
        let directory = Directory::open(temp.path(), &crate::FileBackend::options()).unwrap();
        let busy = || {
            matches!(
                LockFile::open(&directory, "x.lock").unwrap().try_lock(Flock::Exclusive).unwrap(),
                TryLock::Busy(_)
            )
        };
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
