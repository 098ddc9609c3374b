//! Several locks at once, for synchronous code.

use std::fmt;
use std::time::Duration;

use super::LockGuard;
use super::park::{wait, wait_timeout};
use crate::ask::options;
use crate::caller::Manner;
use crate::clock::Deadline;
use crate::error::Error;
use crate::lock_all::first_lost;
use crate::loss::LossReason;
use crate::outcome::Outcome;
use crate::token::FencingToken;

/// Several exclusive locks that are had together or not at all. Holds nothing by itself.
///
/// Made by [`Locks::lock_all`](super::Locks::lock_all). They are always taken in the order of their names, so that callers that want the same locks can't
/// wait for each other in a circle; a name that is given twice counts once. If all are free they are taken in one step where the store can. Otherwise a wait
/// holds the first ones while it waits for the next; if it ends early, all are given back.
///
/// ```
/// # let locks = locks_api::blocking::Locks::new(locks_backend_memory::MemoryBackend::new());
/// let transfer = locks.lock_all(["account/7", "account/3"]);
/// let guard = transfer.acquire()?;
/// assert_eq!(guard.guards()[0].name(), "account/3");
/// assert!(locks.lock("account/7").try_acquire()?.is_none());
/// guard.release()?;
/// # Ok::<(), locks_api::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "locks hold nothing before they are acquired"]
pub struct LockAll {
    inner: crate::LockAll,
}

impl LockAll {
    /// The names, in the order in which the locks are taken; empty if one broke the rules.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.inner.names()
    }

    /// Waits until all locks are had.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`](super::Lock::acquire), for the lock that failed; [`ErrorKind::Config`](crate::ErrorKind::Config) if no name was given. Nothing
    /// stays held.
    pub fn acquire(&self) -> Result<LockAllGuard, Error> {
        wait(self.inner.acquire()).map(LockAllGuard::new)
    }

    /// Gets the locks if all of them are free now; `None` if any is not.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if no name was given, and as [`Lock::try_acquire`](super::Lock::try_acquire).
    pub fn try_acquire(&self) -> Result<Option<LockAllGuard>, Error> {
        Ok(wait(self.inner.try_acquire())?.map(LockAllGuard::new))
    }

    /// Waits until all locks are had, at most for `timeout` altogether. Zero tries once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) once the time is up, naming the lock that was waited for; otherwise as [`acquire`](Self::acquire).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<LockAllGuard, Error> {
        wait(self.inner.acquire_timeout(timeout)).map(LockAllGuard::new)
    }

    /// Waits for all locks, runs `body` under them and releases them. See [`Lock::run`](super::Lock::run).
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire) and [`Lock::run`](super::Lock::run), if any of the locks is lost.
    pub fn run<T>(&self, body: impl FnOnce() -> T) -> Result<T, Error> {
        wait(self.inner.run(async { body() }))
    }

    /// Runs `body` under the locks if all are free now, and says why not otherwise.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run). That one is busy is not an error.
    pub fn try_run<T>(&self, body: impl FnOnce() -> T) -> Result<Outcome<T>, Error> {
        wait(self.inner.try_run(async { body() }))
    }
}

options!(LockAll [inner]: ttl renew label);

impl From<crate::LockAll> for LockAll {
    fn from(mut inner: crate::LockAll) -> Self {
        inner.ask.manner = Manner::Blocks;
        Self { inner }
    }
}

/// Several locks that are held.
///
/// Dropping it releases all of them, the last one first, without waiting.
#[must_use = "the locks are released as soon as the guard is dropped"]
pub struct LockAllGuard {
    guards: Vec<LockGuard>,
}

impl LockAllGuard {
    fn new(inner: crate::LockAllGuard) -> Self {
        Self { guards: inner.into_guards().into_iter().map(LockGuard::from).collect() }
    }

    /// The guards, in the order of the names.
    pub fn guards(&self) -> &[LockGuard] {
        &self.guards
    }

    /// The fencing token of the lock of this name, if it is one of these.
    pub fn fencing_token(&self, name: &str) -> Option<FencingToken> {
        self.guards.iter().find(|guard| guard.name() == name).map(LockGuard::fencing_token)
    }

    /// Whether all of them are held at this instant: a local check, without asking the store.
    pub fn is_held(&self) -> bool {
        self.guards.iter().all(LockGuard::is_held)
    }

    /// Until when all of them are held if none is renewed; `None` if none expires, or one is lost.
    pub fn deadline(&self) -> Option<Deadline> {
        if !self.is_held() {
            return None;
        }
        self.guards.iter().filter_map(LockGuard::deadline).min()
    }

    /// Waits until one of them is lost, and says which and why: for a thread of its own.
    pub fn lost(&self) -> (&str, LossReason) {
        wait(first_lost(self.guards.iter().map(|guard| &guard.inner)))
    }

    /// [`lost`](Self::lost), at most for `timeout`: `None` if all were held until then. Zero only looks.
    pub fn lost_timeout(&self, timeout: Duration) -> Option<(&str, LossReason)> {
        wait_timeout(first_lost(self.guards.iter().map(|guard| &guard.inner)), timeout)
    }

    /// Gives all of them back and waits until the store has taken them.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`], for the first one that fails; the others are given back all the same.
    pub fn release(mut self) -> Result<(), Error> {
        let mut outcome = Ok(());
        while let Some(guard) = self.guards.pop() {
            outcome = outcome.and(guard.release());
        }
        outcome
    }
}

/// Gives back the last one first.
impl Drop for LockAllGuard {
    fn drop(&mut self) {
        while self.guards.pop().is_some() {}
    }
}

impl fmt::Debug for LockAllGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.guards).finish()
    }
}
