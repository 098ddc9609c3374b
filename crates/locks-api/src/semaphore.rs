//! The semaphore.

use std::ops::Deref;
use std::time::Duration;

use crate::ask::{Ask, options};
use crate::error::Error;
use crate::guard::LockGuard;
use crate::outcome::Outcome;
use crate::spi::Mode;
use crate::waiting::Waiting;

/// A lock that has several permits. Holds none by itself.
///
/// Made by [`Locks::semaphore`](crate::Locks::semaphore). The limit is stored with the lock while it is in use: whoever asks with another one
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
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let locks = locks_api::Locks::new(locks_backend_memory::MemoryBackend::new());
/// let downloads = locks.semaphore("downloads", 3);
/// let one = downloads.acquire().await?;
/// let two = downloads.acquire_many(2).await?;
/// assert!(downloads.try_acquire().await?.is_none());
/// two.release().await?;
/// assert!(downloads.try_acquire_many(2).await?.is_some());
/// # drop(one);
/// # Ok::<(), locks_api::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
#[must_use = "a semaphore holds nothing before it is acquired"]
pub struct Semaphore {
    pub(crate) ask: Ask,
    pub(crate) limit: u32,
}

options!(Semaphore: ttl renew max_hold min_hold once_per label);

impl Semaphore {
    /// How many permits there are.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Waits for a permit.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LimitMismatch`](crate::ErrorKind::LimitMismatch) while the semaphore is in use with another limit; otherwise as
    /// [`Lock::acquire`](crate::Lock::acquire).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held or queued because of it.
    pub async fn acquire(&self) -> Result<Permit, Error> {
        self.acquire_many(1).await
    }

    /// Waits for so many permits at once.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held or queued because of it.
    pub async fn acquire_many(&self, count: u32) -> Result<Permit, Error> {
        self.ask.acquire(self.mode(count)).await.map(Permit::from)
    }

    /// Takes a permit if there is one now and nobody waits; `None` otherwise.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held because of it.
    pub async fn try_acquire(&self) -> Result<Option<Permit>, Error> {
        self.try_acquire_many(1).await
    }

    /// Takes so many permits if they are there now and nobody waits; `None` otherwise.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held because of it.
    pub async fn try_acquire_many(&self, count: u32) -> Result<Option<Permit>, Error> {
        Ok(self.ask.try_acquire(self.mode(count)).await?.map(Permit::from))
    }

    /// Waits for a permit, at most for `timeout`. Zero tries once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) once the time is up; otherwise as [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held or queued because of it.
    pub async fn acquire_timeout(&self, timeout: Duration) -> Result<Permit, Error> {
        self.acquire_many_timeout(1, timeout).await
    }

    /// Waits for so many permits at once, at most for `timeout`. Zero tries once.
    ///
    /// # Errors
    ///
    /// As [`acquire_timeout`](Self::acquire_timeout).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held or queued because of it.
    pub async fn acquire_many_timeout(&self, count: u32, timeout: Duration) -> Result<Permit, Error> {
        self.ask.acquire_timeout(self.mode(count), timeout).await.map(Permit::from)
    }

    /// [`acquire_many`](Self::acquire_many) as a future that tells how the wait stands.
    pub fn enqueue(&self, count: u32) -> Waiting<Permit> {
        Waiting::new(&self.ask, self.mode(count))
    }

    /// Waits for a permit and runs `body` under it. See [`Lock::run`](crate::Lock::run).
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire) and [`Lock::run`](crate::Lock::run).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the body and releases the permit.
    pub async fn run<F: Future>(&self, body: F) -> Result<F::Output, Error> {
        self.ask.run(self.mode(1), body).await
    }

    /// Runs `body` under a permit if there is one now, and says why not otherwise.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run). That there is none is not an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the body and releases the permit.
    pub async fn try_run<F: Future>(&self, body: F) -> Result<Outcome<F::Output>, Error> {
        self.ask.try_run(self.mode(1), body).await
    }

    fn mode(&self, count: u32) -> Mode {
        Mode::Permits { count, limit: self.limit }
    }
}

/// One or more permits of a semaphore. A [`LockGuard`] in all it can tell.
#[derive(Debug)]
#[must_use = "the permits are given back as soon as they are dropped"]
pub struct Permit(pub(crate) LockGuard);

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
    ///
    /// # Cancel safety
    ///
    /// Once polled, the permits are given back whether or not the future is dropped.
    pub async fn release(self) -> Result<(), Error> {
        self.0.release().await
    }
}

impl From<LockGuard> for Permit {
    fn from(guard: LockGuard) -> Self {
        Self(guard)
    }
}

impl Deref for Permit {
    type Target = LockGuard;

    fn deref(&self) -> &LockGuard {
        &self.0
    }
}
