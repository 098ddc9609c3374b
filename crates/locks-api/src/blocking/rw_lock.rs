//! The reader/writer lock, for synchronous code.

use std::time::Duration;

use super::guard::kind_of_guard;
use super::park::wait;
use super::{LockGuard, Waiting};
use crate::ask::options;
use crate::caller::Manner;
use crate::error::Error;
use crate::outcome::Outcome;

/// A lock that many readers share or one writer has alone. Holds nothing by itself.
///
/// Made by [`Locks::rw_lock`](super::Locks::rw_lock). The writer's side is the exclusive [`Lock`](super::Lock) of the same name. Whoever
/// waits keeps those out that come later and can't hold together with it: a chain of readers does not starve a writer. So a thread that reads and reads again waits
/// for itself if a writer came between. A reader can't become a writer, since two who tried would wait for each other; a writer can become a reader
/// ([`WriteGuard::downgrade`]).
///
/// Every operation is an [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) on a store without reader/writer locks.
///
/// ```
/// # let locks = locks_api::blocking::Locks::new(locks_backend_memory::MemoryBackend::new());
/// let settings = locks.rw_lock("settings");
/// let (one, two) = (settings.read()?, settings.read()?);
/// assert!(settings.try_write()?.is_none());
/// drop((one, two));
/// let writer = settings.write()?;
/// assert!(settings.try_read()?.is_none());
/// let reader = writer.downgrade()?;
/// assert!(settings.try_read()?.is_some());
/// # drop(reader);
/// # Ok::<(), locks_api::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a lock holds nothing before it is acquired"]
pub struct RwLock {
    inner: crate::RwLock,
}

options!(RwLock [inner]: ttl renew max_hold min_hold once_per label);

impl RwLock {
    /// Waits until the lock can be shared.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`](super::Lock::acquire).
    pub fn read(&self) -> Result<ReadGuard, Error> {
        wait(self.inner.read()).map(ReadGuard::from)
    }

    /// Shares the lock if no writer has it or waits for it; `None` otherwise.
    ///
    /// # Errors
    ///
    /// As [`Lock::try_acquire`](super::Lock::try_acquire).
    pub fn try_read(&self) -> Result<Option<ReadGuard>, Error> {
        Ok(wait(self.inner.try_read())?.map(ReadGuard::from))
    }

    /// Waits until the lock can be shared, at most for `timeout`. Zero tries once.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire_timeout`](super::Lock::acquire_timeout).
    pub fn read_timeout(&self, timeout: Duration) -> Result<ReadGuard, Error> {
        wait(self.inner.read_timeout(timeout)).map(ReadGuard::from)
    }

    /// [`read`](Self::read) in steps, between which it can be told how the wait stands.
    pub fn enqueue_read(&self) -> Waiting<ReadGuard> {
        Waiting::new(self.inner.enqueue_read())
    }

    /// Waits until the lock can be shared, and runs `body` under it. See [`Lock::run`](super::Lock::run).
    ///
    /// # Errors
    ///
    /// As [`Lock::run`](super::Lock::run).
    pub fn run_read<T>(&self, body: impl FnOnce() -> T) -> Result<T, Error> {
        wait(self.inner.run_read(async { body() }))
    }

    /// Runs `body` if the lock can be shared now, and says why not otherwise.
    ///
    /// # Errors
    ///
    /// As [`Lock::run`](super::Lock::run). That the lock is busy is not an error.
    pub fn try_run_read<T>(&self, body: impl FnOnce() -> T) -> Result<Outcome<T>, Error> {
        wait(self.inner.try_run_read(async { body() }))
    }

    /// Waits until the lock can be had alone.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`](super::Lock::acquire).
    pub fn write(&self) -> Result<WriteGuard, Error> {
        wait(self.inner.write()).map(WriteGuard::from)
    }

    /// Has the lock alone if nobody has it or waits for it; `None` otherwise.
    ///
    /// # Errors
    ///
    /// As [`Lock::try_acquire`](super::Lock::try_acquire).
    pub fn try_write(&self) -> Result<Option<WriteGuard>, Error> {
        Ok(wait(self.inner.try_write())?.map(WriteGuard::from))
    }

    /// Waits until the lock can be had alone, at most for `timeout`. Zero tries once.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire_timeout`](super::Lock::acquire_timeout).
    pub fn write_timeout(&self, timeout: Duration) -> Result<WriteGuard, Error> {
        wait(self.inner.write_timeout(timeout)).map(WriteGuard::from)
    }

    /// [`write`](Self::write) in steps, between which it can be told how the wait stands.
    pub fn enqueue_write(&self) -> Waiting<WriteGuard> {
        Waiting::new(self.inner.enqueue_write())
    }

    /// Waits until the lock can be had alone, and runs `body` under it. See [`Lock::run`](super::Lock::run).
    ///
    /// # Errors
    ///
    /// As [`Lock::run`](super::Lock::run).
    pub fn run_write<T>(&self, body: impl FnOnce() -> T) -> Result<T, Error> {
        wait(self.inner.run_write(async { body() }))
    }

    /// Runs `body` if the lock can be had alone now, and says why not otherwise.
    ///
    /// # Errors
    ///
    /// As [`Lock::run`](super::Lock::run). That the lock is busy is not an error.
    pub fn try_run_write<T>(&self, body: impl FnOnce() -> T) -> Result<Outcome<T>, Error> {
        wait(self.inner.try_run_write(async { body() }))
    }
}

impl From<crate::RwLock> for RwLock {
    fn from(mut inner: crate::RwLock) -> Self {
        inner.ask.manner = Manner::Blocks;
        Self { inner }
    }
}

/// A reader/writer lock that is shared. A [`LockGuard`] in all it can tell.
#[derive(Debug)]
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct ReadGuard(LockGuard);

/// A reader/writer lock that is held alone. A [`LockGuard`] in all it can tell.
#[derive(Debug)]
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct WriteGuard(LockGuard);

impl ReadGuard {
    /// Gives the lock back and waits until the store has taken it. See [`LockGuard::release`].
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`].
    pub fn release(self) -> Result<(), Error> {
        self.0.release()
    }
}

impl WriteGuard {
    /// Gives the lock back and waits until the store has taken it. See [`LockGuard::release`].
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`].
    pub fn release(self) -> Result<(), Error> {
        self.0.release()
    }

    /// Becomes a reader without letting go: readers that wait next come in, no writer does. The fencing token stays the same.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost) if the lock was lost before; [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the store did
    /// not answer; [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) on a store that can't. The lock is then released.
    pub fn downgrade(self) -> Result<ReadGuard, Error> {
        wait(crate::WriteGuard::from(self).downgrade()).map(ReadGuard::from)
    }
}

kind_of_guard!(ReadGuard);
kind_of_guard!(WriteGuard);

impl From<crate::LockGuard> for ReadGuard {
    fn from(guard: crate::LockGuard) -> Self {
        Self(guard.into())
    }
}

impl From<crate::LockGuard> for WriteGuard {
    fn from(guard: crate::LockGuard) -> Self {
        Self(guard.into())
    }
}
