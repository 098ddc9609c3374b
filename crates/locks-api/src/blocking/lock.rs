//! The exclusive lock, for synchronous code.

use std::time::Duration;

use super::park::wait;
use super::{LockGuard, Waiting};
use crate::ask::options;
use crate::caller::Manner;
use crate::error::Error;
use crate::outcome::Outcome;

/// An exclusive lock: a name and how to hold it. Holds nothing by itself.
///
/// Made by [`Locks::lock`](super::Locks::lock). Locks are not re-entrant: a thread that holds the lock and asks for it again waits until another thread drops the
/// guard, except inside [`Lock::run`], where that is an error.
///
/// ```
/// # let locks = locks_api::blocking::Locks::new(locks_backend_memory::MemoryBackend::new());
/// use std::time::Duration;
///
/// let lock = locks.lock("reports/nightly").label("nightly report");
/// let first = lock.acquire()?;
/// let late = lock.acquire_timeout(Duration::from_millis(20)).unwrap_err();
/// assert_eq!(late.kind(), locks_api::ErrorKind::Timeout);
/// drop(first);
/// assert!(lock.try_acquire()?.is_some());
/// # Ok::<(), locks_api::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a lock holds nothing before it is acquired"]
pub struct Lock {
    inner: crate::Lock,
}

options!(Lock [inner]: ttl renew max_hold min_hold once_per label);

impl Lock {
    /// Waits until the lock is had.
    ///
    /// Inside a `Locks` callers are served first come, first served; between processes as the store promises.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldDeadlock`](crate::ErrorKind::WouldDeadlock) inside the body of [`Lock::run`] of the same lock, and where a blocked thread
    /// [could wait for ever](super#inside-a-runtime). Otherwise as the asynchronous [`Lock::acquire`](crate::Lock::acquire):
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the store is out of reach for longer than the store timeout (30 s), and what the name, the options
    /// or the store are refused for.
    pub fn acquire(&self) -> Result<LockGuard, Error> {
        wait(self.inner.acquire()).map(LockGuard::from)
    }

    /// Gets the lock if it is free now; `None` if it is not.
    ///
    /// It never passes anybody who waits, and asks the store once, for whose answer it waits. Who is in the way is told by
    /// [`Lock::acquire_timeout`] with a time of zero, and by [`Lock::try_run`].
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`]; a [`ErrorKind::WouldDeadlock`](crate::ErrorKind::WouldDeadlock) only inside [`Lock::run`].
    pub fn try_acquire(&self) -> Result<Option<LockGuard>, Error> {
        Ok(wait(self.inner.try_acquire())?.map(LockGuard::from))
    }

    /// Waits until the lock is had, at most for `timeout`. Zero tries once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) once the time is up; [`Error::busy`] then says what was in the way, as far as it was known when
    /// it was last asked. Otherwise as [`Lock::acquire`].
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<LockGuard, Error> {
        wait(self.inner.acquire_timeout(timeout)).map(LockGuard::from)
    }

    /// [`acquire`](Self::acquire) in steps, between which it can be told how the wait stands. Nothing is asked before the first step.
    pub fn enqueue(&self) -> Waiting {
        Waiting::new(self.inner.enqueue())
    }

    /// Waits for the lock, runs `body` under it and releases it.
    ///
    /// Asking for the same lock inside the body is an error instead of a deadlock. If the body panics, the lock is released. A release that the
    /// store did not take at once does not hide the body's output: it is tried again in the background.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost) if the lock was lost before the body had ended. The body can't be stopped: it has run to its end all the
    /// same, partly without the lock, and its output is not returned. Otherwise as [`Lock::acquire`].
    ///
    /// # Example
    ///
    /// ```
    /// # let locks = locks_api::blocking::Locks::new(locks_backend_memory::MemoryBackend::new());
    /// let sum = locks.lock("sums").run(|| 1 + 2)?;
    /// assert_eq!(sum, 3);
    /// # Ok::<(), locks_api::Error>(())
    /// ```
    pub fn run<T>(&self, body: impl FnOnce() -> T) -> Result<T, Error> {
        wait(self.inner.run(async { body() }))
    }

    /// Runs `body` under the lock if it is free now, and says why not otherwise.
    ///
    /// # Errors
    ///
    /// As [`Lock::run`]. That the lock is busy is not an error.
    ///
    /// # Example
    ///
    /// ```
    /// # let locks = locks_api::blocking::Locks::new(locks_backend_memory::MemoryBackend::new());
    /// use locks_api::Outcome;
    ///
    /// match locks.lock("sums").try_run(|| 1 + 2)? {
    ///     Outcome::Ran(sum) => assert_eq!(sum, 3),
    ///     Outcome::Skipped(busy) => println!("skipped: {busy}"),
    /// }
    /// # Ok::<(), locks_api::Error>(())
    /// ```
    pub fn try_run<T>(&self, body: impl FnOnce() -> T) -> Result<Outcome<T>, Error> {
        wait(self.inner.try_run(async { body() }))
    }
}

impl From<crate::Lock> for Lock {
    fn from(mut inner: crate::Lock) -> Self {
        inner.ask.manner = Manner::Blocks;
        Self { inner }
    }
}
