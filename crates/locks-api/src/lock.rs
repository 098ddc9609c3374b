//! The exclusive lock.

use std::time::Duration;

use crate::ask::{Ask, options};
use crate::error::Error;
use crate::guard::LockGuard;
use crate::name::LockName;
use crate::outcome::Outcome;
use crate::spi::{Backend, Mode};
use crate::waiting::Waiting;

/// An exclusive lock: a name and how to hold it. Holds nothing by itself.
///
/// Made by [`Locks::lock`](crate::Locks::lock). Locks are not re-entrant: a task that holds the lock and asks
/// for it again waits for itself, except inside [`Lock::run`], where that is an error.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let locks = locks_api::Locks::new(locks_backend_memory::MemoryBackend::new());
/// use std::time::Duration;
///
/// let lock = locks.lock("reports/nightly").label("nightly report");
/// let first = lock.acquire().await?;
/// let late = lock.acquire_timeout(Duration::from_millis(20)).await.unwrap_err();
/// assert_eq!(late.kind(), locks_api::ErrorKind::Timeout);
/// drop(first);
/// assert!(lock.try_acquire().await?.is_some());
/// # Ok::<(), locks_api::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
#[must_use = "a lock holds nothing before it is acquired"]
pub struct Lock {
    pub(crate) ask: Ask,
}

options!(Lock: ttl renew max_hold min_hold once_per label);

impl Lock {
    /// Waits until the lock is had.
    ///
    /// Inside a `Locks` callers are served first come, first served; between processes as the store promises.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the store is out of reach for longer than the store timeout (30 s);
    /// [`ErrorKind::InvalidName`](crate::ErrorKind::InvalidName) and [`ErrorKind::Config`](crate::ErrorKind::Config) for a bad name or ttl, before any I/O; [`ErrorKind::Closed`](crate::ErrorKind::Closed),
    /// [`ErrorKind::Forked`](crate::ErrorKind::Forked); [`ErrorKind::WouldDeadlock`](crate::ErrorKind::WouldDeadlock) inside the body of [`Lock::run`] of the same lock; and what the store refuses: [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied),
    /// [`ErrorKind::StoreFull`](crate::ErrorKind::StoreFull), [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held or queued because of it.
    pub async fn acquire(&self) -> Result<LockGuard, Error> {
        self.ask.acquire(Mode::Exclusive).await
    }

    /// Gets the lock if it is free now; `None` if it is not.
    ///
    /// It never passes anybody who waits, and asks the store once. Who is in the way is told by
    /// [`Lock::acquire_timeout`] with a time of zero, and by [`Lock::try_run`].
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`].
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held because of it.
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>, Error> {
        self.ask.try_acquire(Mode::Exclusive).await
    }

    /// Waits until the lock is had, at most for `timeout`. Zero tries once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) once the time is up; [`Error::busy`] then says what was in the way, as far as it was known when
    /// it was last asked. Otherwise as [`Lock::acquire`].
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held or queued because of it.
    pub async fn acquire_timeout(&self, timeout: Duration) -> Result<LockGuard, Error> {
        self.ask.acquire_timeout(Mode::Exclusive, timeout).await
    }

    /// The store that would keep the lock, for what its backend offers on locks.
    pub fn backend(&self) -> &dyn Backend {
        self.ask.handle.engine.backend()
    }

    /// The lock's name, for the same.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidName`](crate::ErrorKind::InvalidName) if it broke the rules.
    pub fn lock_name(&self) -> Result<&LockName, Error> {
        self.ask.name.as_ref().map_err(Clone::clone)
    }

    /// [`acquire`](Self::acquire) as a future that tells how the wait stands: how many are before it, and who holds the lock.
    pub fn enqueue(&self) -> Waiting {
        Waiting::new(&self.ask, Mode::Exclusive)
    }

    /// Waits for the lock, runs `body` under it and releases it.
    ///
    /// If the lock is lost meanwhile, the body is dropped at its next await. Asking for the same lock inside the body is an
    /// error instead of a deadlock. A release that the store did not take at once does not hide the body's output: it is
    /// tried again in the background.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost) if the lock was lost before the body had ended; its output is then not returned. Otherwise as
    /// [`Lock::acquire`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the body and releases the lock.
    ///
    /// # Example
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let locks = locks_api::Locks::new(locks_backend_memory::MemoryBackend::new());
    /// let sum = locks.lock("sums").run(async { 1 + 2 }).await?;
    /// assert_eq!(sum, 3);
    /// # Ok::<(), locks_api::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn run<F: Future>(&self, body: F) -> Result<F::Output, Error> {
        self.ask.run(Mode::Exclusive, body).await
    }

    /// Runs `body` under the lock if it is free now, and says why not otherwise.
    ///
    /// # Errors
    ///
    /// As [`Lock::run`]. That the lock is busy is not an error.
    ///
    /// # Cancel safety
    ///
    /// As [`Lock::run`].
    ///
    /// # Example
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let locks = locks_api::Locks::new(locks_backend_memory::MemoryBackend::new());
    /// use locks_api::Outcome;
    ///
    /// match locks.lock("sums").try_run(async { 1 + 2 }).await? {
    ///     Outcome::Ran(sum) => assert_eq!(sum, 3),
    ///     Outcome::Skipped(busy) => println!("skipped: {busy}"),
    /// }
    /// # Ok::<(), locks_api::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn try_run<F: Future>(&self, body: F) -> Result<Outcome<F::Output>, Error> {
        self.ask.try_run(Mode::Exclusive, body).await
    }
}
