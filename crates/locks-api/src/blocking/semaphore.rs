//! The semaphore, for synchronous code.

use std::time::Duration;

use super::guard::kind_of_guard;
use super::park::wait;
use super::{LockGuard, Waiting};
use crate::ask::options;
use crate::caller::Manner;
use crate::error::Error;
use crate::outcome::Outcome;

/// A lock that has several permits. Holds none by itself.
///
/// Made by [`Locks::semaphore`](super::Locks::semaphore). The limit is stored with the lock while it is in use: whoever asks with another one
/// gets an [`ErrorKind::LimitMismatch`](crate::ErrorKind::LimitMismatch). To change the limit, let all holders end first. An exclusive or shared lock of the
/// same name excludes all permits.
///
/// Permits belong to who took them: those of a dead process come back like any lock. Nobody who asks for few passes somebody who waits for
/// many.
///
/// Every operation is an [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) on a store without semaphores, and an
/// [`ErrorKind::Config`](crate::ErrorKind::Config) for zero permits or more than the limit.
///
/// ```
/// # let locks = locks_api::blocking::Locks::new(locks_backend_memory::MemoryBackend::new());
/// let downloads = locks.semaphore("downloads", 3);
/// let one = downloads.acquire()?;
/// let two = downloads.acquire_many(2)?;
/// assert!(downloads.try_acquire()?.is_none());
/// two.release()?;
/// assert!(downloads.try_acquire_many(2)?.is_some());
/// # drop(one);
/// # Ok::<(), locks_api::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a semaphore holds nothing before it is acquired"]
pub struct Semaphore {
    inner: crate::Semaphore,
}

options!(Semaphore [inner]: ttl renew max_hold min_hold once_per label);

impl Semaphore {
    /// How many permits there are.
    pub fn limit(&self) -> u32 {
        self.inner.limit()
    }

    /// Waits for a permit.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LimitMismatch`](crate::ErrorKind::LimitMismatch) while the semaphore is in use with another limit; otherwise as
    /// [`Lock::acquire`](super::Lock::acquire).
    pub fn acquire(&self) -> Result<Permit, Error> {
        wait(self.inner.acquire()).map(Permit::from)
    }

    /// Waits for so many permits at once.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    pub fn acquire_many(&self, count: u32) -> Result<Permit, Error> {
        wait(self.inner.acquire_many(count)).map(Permit::from)
    }

    /// Takes a permit if there is one now and nobody waits; `None` otherwise.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LimitMismatch`](crate::ErrorKind::LimitMismatch), and as [`Lock::try_acquire`](super::Lock::try_acquire).
    pub fn try_acquire(&self) -> Result<Option<Permit>, Error> {
        Ok(wait(self.inner.try_acquire())?.map(Permit::from))
    }

    /// Takes so many permits if they are there now and nobody waits; `None` otherwise.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_many(&self, count: u32) -> Result<Option<Permit>, Error> {
        Ok(wait(self.inner.try_acquire_many(count))?.map(Permit::from))
    }

    /// Waits for a permit, at most for `timeout`. Zero tries once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) once the time is up; otherwise as [`acquire`](Self::acquire).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit, Error> {
        wait(self.inner.acquire_timeout(timeout)).map(Permit::from)
    }

    /// Waits for so many permits at once, at most for `timeout`. Zero tries once.
    ///
    /// # Errors
    ///
    /// As [`acquire_timeout`](Self::acquire_timeout).
    pub fn acquire_many_timeout(&self, count: u32, timeout: Duration) -> Result<Permit, Error> {
        wait(self.inner.acquire_many_timeout(count, timeout)).map(Permit::from)
    }

    /// [`acquire_many`](Self::acquire_many) in steps, between which it can be told how the wait stands.
    pub fn enqueue(&self, count: u32) -> Waiting<Permit> {
        Waiting::new(self.inner.enqueue(count))
    }

    /// Waits for a permit and runs `body` under it. See [`Lock::run`](super::Lock::run).
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire) and [`Lock::run`](super::Lock::run).
    pub fn run<T>(&self, body: impl FnOnce() -> T) -> Result<T, Error> {
        wait(self.inner.run(async { body() }))
    }

    /// Runs `body` if there is a permit now, and says why not otherwise.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run). That there is none is not an error.
    pub fn try_run<T>(&self, body: impl FnOnce() -> T) -> Result<Outcome<T>, Error> {
        wait(self.inner.try_run(async { body() }))
    }
}

impl From<crate::Semaphore> for Semaphore {
    fn from(mut inner: crate::Semaphore) -> Self {
        inner.ask.manner = Manner::Blocks;
        Self { inner }
    }
}

/// One or more permits of a semaphore. A [`LockGuard`] in all it can tell.
#[derive(Debug)]
#[must_use = "the permits are given back as soon as they are dropped"]
pub struct Permit(LockGuard);

impl Permit {
    /// How many permits these are.
    pub fn count(&self) -> u32 {
        self.0.mode().permits()
    }

    /// Gives the permits back and waits until the store has taken them. See [`LockGuard::release`].
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`].
    pub fn release(self) -> Result<(), Error> {
        self.0.release()
    }
}

kind_of_guard!(Permit);

impl From<crate::LockGuard> for Permit {
    fn from(guard: crate::LockGuard) -> Self {
        Self(guard.into())
    }
}
