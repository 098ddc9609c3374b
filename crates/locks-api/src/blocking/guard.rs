//! What a thread holds.

use std::fmt;
use std::time::Duration;

use super::park::{wait, wait_timeout};
use crate::clock::Deadline;
use crate::error::Error;
use crate::loss::LossReason;
use crate::spi::{ClaimId, Mode};
use crate::token::FencingToken;

/// A lock that is held. The guard of the [asynchronous API](crate::LockGuard), with calls that block; either is made from the other.
///
/// Dropping it releases the lock without waiting: it never blocks and never panics. **Release on drop is not immediate** on a store behind a
/// network; [`release`](Self::release) says when the store has taken it, and whether the lock was held until then. Beware of
/// `let _ = lock.acquire()?`, which drops the guard at once.
///
/// A guard can be lost. It then stays so: [`is_held`](Self::is_held) never turns true again.
///
/// ```
/// # let locks = locks_api::blocking::Locks::new(locks_backend_memory::MemoryBackend::new());
/// let first = locks.lock("x").acquire()?;
/// let earlier = first.fencing_token();
/// first.release()?;
/// let second = locks.lock("x").acquire()?;
/// assert!(second.is_held());
/// assert!(second.fencing_token() > earlier);
/// # Ok::<(), locks_api::Error>(())
/// ```
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct LockGuard {
    pub(super) inner: crate::LockGuard,
}

impl LockGuard {
    /// The lock's name.
    pub fn name(&self) -> &str {
        self.inner.name()
    }

    /// The number of this grant: larger than that of every earlier holder of this lock. It stays readable after a loss.
    pub fn fencing_token(&self) -> FencingToken {
        self.inner.fencing_token()
    }

    /// How the lock is held.
    pub fn mode(&self) -> Mode {
        self.inner.mode()
    }

    /// Whether the lock is held at this instant: a local check, without asking the store.
    ///
    /// Two guards of one lock never both say yes at the same instant, given that clocks run at about the same rate. What
    /// happens between this check and the act that follows it only a [fencing token](Self::fencing_token) can cover.
    pub fn is_held(&self) -> bool {
        self.inner.is_held()
    }

    /// Until when the lock is held if it is not renewed; `None` if it does not expire, or is lost.
    pub fn deadline(&self) -> Option<Deadline> {
        self.inner.deadline()
    }

    /// Waits until a renewal is overdue, and returns the deadline that is left: time to stop starting things.
    ///
    /// It waits for ever on stores without expiry. If the lock is lost already it returns at once, with a deadline that has passed. A lock
    /// at risk may recover.
    pub fn at_risk(&self) -> Deadline {
        wait(self.inner.at_risk())
    }

    /// [`at_risk`](Self::at_risk), at most for `timeout`: `None` if all was well until then. Zero only looks.
    pub fn at_risk_timeout(&self, timeout: Duration) -> Option<Deadline> {
        wait_timeout(self.inner.at_risk(), timeout)
    }

    /// Waits until the lock is lost, and says why: for a thread of its own.
    pub fn lost(&self) -> LossReason {
        wait(self.inner.lost())
    }

    /// [`lost`](Self::lost), at most for `timeout`: `None` if the lock was held until then. Zero only looks.
    ///
    /// ```
    /// # let locks = locks_api::blocking::Locks::new(locks_backend_memory::MemoryBackend::new());
    /// use std::time::Duration;
    ///
    /// let guard = locks.lock("x").acquire()?;
    /// assert_eq!(guard.lost_timeout(Duration::from_millis(10)), None);
    /// locks.break_lock("x")?;
    /// assert_eq!(guard.lost_timeout(Duration::from_secs(10)), Some(locks_api::LossReason::Revoked));
    /// # Ok::<(), locks_api::Error>(())
    /// ```
    pub fn lost_timeout(&self, timeout: Duration) -> Option<LossReason> {
        wait_timeout(self.inner.lost(), timeout)
    }

    /// Waits until somebody politely asks for the lock back ([`Locks::revoke`](super::Locks::revoke)). It stays held until it is released. Also
    /// returns when the lock is lost.
    pub fn asked(&self) {
        wait(self.inner.asked());
    }

    /// [`asked`](Self::asked), at most for `timeout`: whether anybody did or the lock was lost. Zero only looks.
    pub fn asked_timeout(&self, timeout: Duration) -> bool {
        wait_timeout(self.inner.asked(), timeout).is_some()
    }

    /// The claim that holds the lock at the store. Guards that got the lock from each other inside the
    /// process share it; the fencing token tells them apart.
    pub fn claim_id(&self) -> ClaimId {
        self.inner.claim_id()
    }

    /// Says that somebody outside this process relies on this grant (a child process, a transaction, a script), and returns the
    /// claim that names it. Such a grant is never handed on inside the process; its release goes to the store.
    pub fn export(&self) -> ClaimId {
        self.inner.export()
    }

    /// Gives the lock back and waits until the store has taken it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost) if the lock was lost before; [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the store could
    /// not be told, or another kind if it refused; either way it is tried again in the background until the ttl has passed;
    /// [`ErrorKind::Forked`](crate::ErrorKind::Forked) in a forked child, where it does nothing.
    pub fn release(self) -> Result<(), Error> {
        wait(self.inner.release())
    }

    /// [Releases](Self::release) the lock and says that what it was taken for is done: the start of this hold is what `once_per` counts from,
    /// here and in every other process.
    ///
    /// # Errors
    ///
    /// As [`release`](Self::release), and [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) on a store that keeps no schedule; the lock is
    /// released all the same.
    pub fn complete(self) -> Result<(), Error> {
        wait(self.inner.complete())
    }

    /// Moves the deadline to a whole ttl from now, less the margin, and returns it: for locks that are not
    /// [renewed](super::Lock::renew) by the library, and to learn at once whether the store still knows of the lock. `None` if it does not expire.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost) if the lock is lost; [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable), or what else the store
    /// says, if it could not be extended: it is then still held until the old deadline.
    pub fn extend(&self) -> Result<Option<Deadline>, Error> {
        wait(self.inner.extend())
    }
}

impl From<crate::LockGuard> for LockGuard {
    fn from(inner: crate::LockGuard) -> Self {
        Self { inner }
    }
}

impl From<LockGuard> for crate::LockGuard {
    fn from(guard: LockGuard) -> Self {
        guard.inner
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// What makes a newtype of a [`LockGuard`] a guard: it can all that one can, and is made from its asynchronous namesake and into it.
macro_rules! kind_of_guard {
    ($type:ident) => {
        impl std::ops::Deref for $type {
            type Target = crate::blocking::LockGuard;

            fn deref(&self) -> &crate::blocking::LockGuard {
                &self.0
            }
        }

        impl From<crate::$type> for $type {
            fn from(guard: crate::$type) -> Self {
                Self(guard.0.into())
            }
        }

        impl From<$type> for crate::$type {
            fn from(guard: $type) -> Self {
                Self(guard.0.into())
            }
        }
    };
}

pub(super) use kind_of_guard;
