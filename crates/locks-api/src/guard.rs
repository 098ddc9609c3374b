//! What a caller holds.

use std::fmt;
use std::sync::Arc;

use crate::clock::Deadline;
use crate::engine::{Answer, Granted, Lease};
use crate::error::{Error, ErrorKind};
use crate::lock::{Confirmation, until_lost};
use crate::locks::Handle;
use crate::loss::LossReason;
use crate::name::LockName;
use crate::scope;
use crate::spi::ClaimId;
use crate::token::FencingToken;

/// A lock that is held.
///
/// Dropping it releases the lock without waiting: it never blocks, never panics and needs no runtime. **Release on drop is not
/// immediate** on a store behind a network; [`release`](Self::release) says when the store has taken it, and whether the
/// lock was held until then. Beware of `let _ = lock.acquire().await?`, which drops the guard at once.
///
/// A guard can be lost. It then stays so: [`is_held`](Self::is_held) never turns true again.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let locks = locks_api::Locks::new(locks_backend_memory::MemoryBackend::new());
/// let first = locks.lock("x").acquire().await?;
/// let earlier = first.fencing_token();
/// first.release().await?;
/// let second = locks.lock("x").acquire().await?;
/// assert!(second.fencing_token() > earlier);
/// # Ok::<(), locks_api::Error>(())
/// # }).unwrap();
/// ```
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct LockGuard {
    handle: Arc<Handle>,
    name: LockName,
    token: FencingToken,
    lease: Arc<Lease>,
    /// What is to be given back; `None` once that has begun.
    granted: Option<Granted>,
}

impl LockGuard {
    pub(crate) fn new(handle: Arc<Handle>, granted: Granted, name: LockName) -> Self {
        let (token, lease) = (granted.token, Arc::clone(&granted.lease));
        Self { handle, name, token, lease, granted: Some(granted) }
    }

    /// The lock's name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The number of this grant: larger than that of every earlier holder of this lock. It stays readable after a loss.
    pub fn fencing_token(&self) -> FencingToken {
        self.token
    }

    /// Whether the lock is held at this instant: a local check, without asking the store.
    ///
    /// Two guards of one lock never both say yes at the same instant, given that clocks run at about the same rate. What
    /// happens between this check and the act that follows it only a [fencing token](Self::fencing_token) can cover.
    pub fn is_held(&self) -> bool {
        self.lease.is_held() && !self.handle.engine.is_forked()
    }

    /// Until when the lock is held if it is not renewed; `None` if it does not expire, or is lost.
    pub fn deadline(&self) -> Option<Deadline> {
        self.lease.deadline().map(Deadline)
    }

    /// Waits until a renewal is overdue, and returns the deadline that is left: time to stop starting things.
    ///
    /// Never ready on stores without expiry. If the lock is lost already it is ready at once, with a deadline that
    /// has passed. A lock at risk may recover.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point.
    pub async fn at_risk(&self) -> Deadline {
        self.lease.at_risk().await;
        self.deadline().unwrap_or(Deadline(crate::clock::Boottime::now()))
    }

    /// Waits until the lock is lost, and says why. Not ready when it is released.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point and asked for again.
    pub async fn lost(&self) -> LossReason {
        self.lease.lost().await
    }

    /// The claim that holds the lock at the store. Guards that got the lock from each other inside the
    /// process share it; the fencing token tells them apart.
    pub fn claim_id(&self) -> ClaimId {
        self.lease.claim()
    }

    /// Says that somebody outside this process relies on this grant (a child process, a transaction, a script), and returns the
    /// claim that names it. Such a grant is never handed on inside the process; its release goes to the store.
    pub fn export(&self) -> ClaimId {
        self.lease.export();
        self.lease.claim()
    }

    /// Gives the lock back and waits until the store has taken it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`] if the lock was lost before; [`ErrorKind::Unavailable`] if the store could not be
    /// told, or another kind if it refused; either way it is tried again in the background until the ttl has passed;
    /// [`ErrorKind::Forked`] in a forked child, where it does nothing.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the lock is given back whether or not the future is dropped.
    pub async fn release(mut self) -> Result<(), Error> {
        let engine = &self.handle.engine;
        if engine.is_forked() {
            return Err(self.located(Error::forked()));
        }
        let Some(granted) = self.granted.take() else { return Err(Error::closed()) };
        let Some(ticket) = engine.release(&granted, true) else { return Ok(()) };
        match Confirmation::new(Arc::clone(engine), ticket).await {
            Answer::Failed(error) => Err(self.located(error)),
            _ => Ok(()),
        }
    }

    /// Runs `body` under this guard and releases it.
    pub(crate) async fn cover<B: Future>(self, body: B) -> Result<B::Output, Error> {
        let output = until_lost(scope::inside(&self.handle, &self.name, body), self.lost()).await;
        match output {
            Ok(output) if self.is_held() => match self.release().await {
                // The body ended under the lock; what the store did not take is tried again.
                Ok(()) | Err(_) => Ok(output),
            },
            Ok(_) => Err(self.located(Error::lost(self.lease.loss().unwrap_or(LossReason::Expired)))),
            Err(reason) => Err(self.located(Error::lost(reason))),
        }
    }

    fn located(&self, error: Error) -> Error {
        let operation = if error.kind() == ErrorKind::Lost { "hold" } else { "release" };
        error.at(self.handle.engine.guarantees().backend, operation, &self.name)
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if let Some(granted) = self.granted.take()
            && !self.handle.engine.is_forked()
        {
            let ticket = self.handle.engine.release(&granted, false);
            debug_assert!(ticket.is_none(), "nobody waits for the answer");
        }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("name", &self.name)
            .field("token", &self.token.get())
            .field("held", &self.is_held())
            .finish_non_exhaustive()
    }
}
