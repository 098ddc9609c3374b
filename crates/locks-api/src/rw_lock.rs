//! The reader/writer lock.

use std::ops::Deref;
use std::time::Duration;

use crate::ask::{Ask, options};
use crate::error::{Error, ErrorKind};
use crate::guard::LockGuard;
use crate::loss::LossReason;
use crate::outcome::Outcome;
use crate::spi::{Mode, Offer, Released};
use crate::waiting::Waiting;

/// A lock that many readers share or one writer has alone. Holds nothing by itself.
///
/// Made by [`Locks::rw_lock`](crate::Locks::rw_lock). The writer's side is the exclusive [`Lock`](crate::Lock) of the same name. Whoever
/// waits keeps those out that come later and can't hold together with it: a chain of readers does not starve a writer. A reader can't become a writer, since two who
/// tried would wait for each other; a writer can become a reader ([`WriteGuard::downgrade`]).
///
/// Every operation is an [`ErrorKind::Unsupported`] on a store without reader/writer locks.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let locks = locks_api::Locks::new(locks_backend_memory::MemoryBackend::new());
/// let settings = locks.rw_lock("settings");
/// let (one, two) = (settings.read().await?, settings.read().await?);
/// assert!(settings.try_write().await?.is_none());
/// drop((one, two));
/// let writer = settings.write().await?;
/// assert!(settings.try_read().await?.is_none());
/// let reader = writer.downgrade().await?;
/// assert!(settings.try_read().await?.is_some());
/// # drop(reader);
/// # Ok::<(), locks_api::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
#[must_use = "a lock holds nothing before it is acquired"]
pub struct RwLock {
    pub(crate) ask: Ask,
}

options!(RwLock: ttl renew max_hold min_hold once_per label);

impl RwLock {
    /// Waits until the lock can be shared.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`](crate::Lock::acquire).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held or queued because of it.
    pub async fn read(&self) -> Result<ReadGuard, Error> {
        self.ask.acquire(Mode::Shared).await.map(ReadGuard::from)
    }

    /// Shares the lock if no writer has it or waits for it; `None` otherwise.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`](crate::Lock::acquire).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held because of it.
    pub async fn try_read(&self) -> Result<Option<ReadGuard>, Error> {
        Ok(self.ask.try_acquire(Mode::Shared).await?.map(ReadGuard::from))
    }

    /// Waits until the lock can be shared, at most for `timeout`. Zero tries once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] once the time is up; otherwise as [`Lock::acquire`](crate::Lock::acquire).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held or queued because of it.
    pub async fn read_timeout(&self, timeout: Duration) -> Result<ReadGuard, Error> {
        self.ask.acquire_timeout(Mode::Shared, timeout).await.map(ReadGuard::from)
    }

    /// [`read`](Self::read) as a future that tells how the wait stands.
    pub fn enqueue_read(&self) -> Waiting<ReadGuard> {
        Waiting::new(&self.ask, Mode::Shared)
    }

    /// Waits until the lock can be shared, and runs `body` under it. See [`Lock::run`](crate::Lock::run).
    ///
    /// # Errors
    ///
    /// As [`Lock::run`](crate::Lock::run).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the body and releases the lock.
    pub async fn run_read<F: Future>(&self, body: F) -> Result<F::Output, Error> {
        self.ask.run(Mode::Shared, body).await
    }

    /// Runs `body` if the lock can be shared now, and says why not otherwise.
    ///
    /// # Errors
    ///
    /// As [`Lock::run`](crate::Lock::run). That the lock is busy is not an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the body and releases the lock.
    pub async fn try_run_read<F: Future>(&self, body: F) -> Result<Outcome<F::Output>, Error> {
        self.ask.try_run(Mode::Shared, body).await
    }

    /// Waits until the lock can be had alone.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`](crate::Lock::acquire).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held or queued because of it.
    pub async fn write(&self) -> Result<WriteGuard, Error> {
        self.check()?;
        self.ask.acquire(Mode::Exclusive).await.map(WriteGuard::from)
    }

    /// Has the lock alone if nobody has it or waits for it; `None` otherwise.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`](crate::Lock::acquire).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held because of it.
    pub async fn try_write(&self) -> Result<Option<WriteGuard>, Error> {
        self.check()?;
        Ok(self.ask.try_acquire(Mode::Exclusive).await?.map(WriteGuard::from))
    }

    /// Waits until the lock can be had alone, at most for `timeout`. Zero tries once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] once the time is up; otherwise as [`Lock::acquire`](crate::Lock::acquire).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held or queued because of it.
    pub async fn write_timeout(&self, timeout: Duration) -> Result<WriteGuard, Error> {
        self.check()?;
        self.ask.acquire_timeout(Mode::Exclusive, timeout).await.map(WriteGuard::from)
    }

    /// [`write`](Self::write) as a future that tells how the wait stands.
    pub fn enqueue_write(&self) -> Waiting<WriteGuard> {
        match self.check() {
            Ok(()) => Waiting::new(&self.ask, Mode::Exclusive),
            Err(error) => Waiting::refused(&self.ask, error),
        }
    }

    /// Waits until the lock can be had alone, and runs `body` under it. See [`Lock::run`](crate::Lock::run).
    ///
    /// # Errors
    ///
    /// As [`Lock::run`](crate::Lock::run).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the body and releases the lock.
    pub async fn run_write<F: Future>(&self, body: F) -> Result<F::Output, Error> {
        self.check()?;
        self.ask.run(Mode::Exclusive, body).await
    }

    /// Runs `body` if the lock can be had alone now, and says why not otherwise.
    ///
    /// # Errors
    ///
    /// As [`Lock::run`](crate::Lock::run). That the lock is busy is not an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the body and releases the lock.
    pub async fn try_run_write<F: Future>(&self, body: F) -> Result<Outcome<F::Output>, Error> {
        self.check()?;
        self.ask.try_run(Mode::Exclusive, body).await
    }

    /// A writer could be had on any store, but without readers it would not be what was asked for.
    fn check(&self) -> Result<(), Error> {
        self.ask.handle.offers(Offer::Shared).map_err(|error| self.ask.located(error))
    }
}

/// A reader/writer lock that is shared. A [`LockGuard`] in all it can tell.
#[derive(Debug)]
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct ReadGuard(pub(crate) LockGuard);

/// A reader/writer lock that is held alone. A [`LockGuard`] in all it can tell.
#[derive(Debug)]
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct WriteGuard(pub(crate) LockGuard);

impl ReadGuard {
    /// Gives the lock back and waits until the store has taken it. See [`LockGuard::release`].
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`].
    ///
    /// # Cancel safety
    ///
    /// Once polled, the lock is given back whether or not the future is dropped.
    pub async fn release(self) -> Result<(), Error> {
        self.0.release().await
    }
}

impl WriteGuard {
    /// Gives the lock back and waits until the store has taken it. See [`LockGuard::release`].
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`].
    ///
    /// # Cancel safety
    ///
    /// Once polled, the lock is given back whether or not the future is dropped.
    pub async fn release(self) -> Result<(), Error> {
        self.0.release().await
    }

    /// Becomes a reader without letting go: readers that wait next come in, no writer does. The fencing token stays the same.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`] if the lock was lost before; [`ErrorKind::Unavailable`] if the store did not answer; [`ErrorKind::Unsupported`] on a store that
    /// can't. The lock is then released.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future releases the lock.
    pub async fn downgrade(self) -> Result<ReadGuard, Error> {
        let guard = self.0;
        // Inside this process it can't be handed on any more as what it was.
        guard.export();
        let done = guard.ask_store("downgrade", Offer::Downgrade, |engine, grant| async move {
            match engine.backend().abilities().downgrade {
                Some(downgrade) => downgrade.downgrade(&grant).await,
                None => Err(Error::new(ErrorKind::Unsupported, "the backend lacks what it offers")),
            }
        });
        match done.await? {
            Released::Done => {
                guard.downgrade();
                Ok(ReadGuard(guard))
            }
            Released::NotHeld => Err(guard.located("downgrade", Error::lost(LossReason::Taken))),
        }
    }
}

impl From<LockGuard> for ReadGuard {
    fn from(guard: LockGuard) -> Self {
        Self(guard)
    }
}

impl From<LockGuard> for WriteGuard {
    fn from(guard: LockGuard) -> Self {
        Self(guard)
    }
}

impl Deref for ReadGuard {
    type Target = LockGuard;

    fn deref(&self) -> &LockGuard {
        &self.0
    }
}

impl Deref for WriteGuard {
    type Target = LockGuard;

    fn deref(&self) -> &LockGuard {
        &self.0
    }
}
