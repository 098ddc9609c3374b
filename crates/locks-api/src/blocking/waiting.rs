//! A wait in steps.

use std::fmt;
use std::time::Duration;

use super::LockGuard;
use super::park::{wait, wait_timeout};
use crate::caller::Manner;
use crate::error::Error;
use crate::waiting::WaitStatus;

/// A wait for a lock in steps, between which it tells how it stands. Its place in the queue stays the same.
///
/// Made by `enqueue` of the kinds of locks. Nothing is asked before the first step. Dropping it ends the wait: nothing stays held or queued
/// because of it. Between two steps the lock may come to it, and is then kept for the next one.
///
/// ```
/// # let locks = locks_api::blocking::Locks::new(locks_backend_memory::MemoryBackend::new());
/// use std::time::Duration;
///
/// let mut held = Some(locks.lock("x").acquire()?);
/// let mut waiting = locks.lock("x").enqueue();
/// let guard = loop {
///     match waiting.wait_timeout(Duration::from_millis(20))? {
///         Ok(guard) => break guard,
///         Err(still) => {
///             assert_eq!(still.status().position, Some(0));
///             held.take(); // somebody gives it back
///             waiting = still;
///         }
///     }
/// };
/// assert!(guard.is_held());
/// # Ok::<(), locks_api::Error>(())
/// ```
#[must_use = "nothing is asked for before the first step"]
pub struct Waiting<G = LockGuard> {
    inner: crate::Waiting<G>,
}

impl<G: From<crate::LockGuard>> Waiting<G> {
    /// `A` is to the asynchronous API what `G` is to this one.
    pub(super) fn new<A>(inner: crate::Waiting<A>) -> Self {
        Self { inner: inner.of() }
    }

    /// Waits until the lock is had.
    ///
    /// # Errors
    ///
    /// As `acquire` of the lock.
    pub fn wait(mut self) -> Result<G, Error> {
        self.inner.continue_as(Manner::Blocks)?;
        wait(self.inner)
    }

    /// Waits until the lock is had, at most for `timeout`: the guard, or the wait that is not over. Zero asks and does not wait.
    ///
    /// # Errors
    ///
    /// As `acquire` of the lock. That ends the wait.
    pub fn wait_timeout(mut self, timeout: Duration) -> Result<Result<G, Self>, Error> {
        self.inner.continue_as(if timeout.is_zero() { Manner::Looks } else { Manner::Blocks })?;
        if let Some(guard) = wait_timeout(&mut self.inner, timeout) {
            return guard.map(Ok);
        }
        self.inner.continue_as(Manner::Looks)?;
        Ok(Err(self))
    }
}

impl<G> Waiting<G> {
    /// How it stands. Nothing is known before the first step.
    pub fn status(&self) -> WaitStatus {
        self.inner.status()
    }
}

impl<G> fmt::Debug for Waiting<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
