//! What a caller holds.

use std::fmt;
use std::sync::Arc;

use crate::clock::Deadline;
use crate::engine::{Answer, Engine, Granted, Lease};
use crate::error::{Error, ErrorKind};
use crate::locks::Handle;
use crate::loss::LossReason;
use crate::name::LockName;
use crate::request::{Confirmation, until_lost};
use crate::scope::{self, Frame};
use crate::spi::{Backend, ClaimId, Grant, Mode, Offer};
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

/// What becomes of a body whose lock is lost.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OnLost {
    /// It is dropped at its next await.
    Stop,
    /// It goes on to its end.
    GoOn,
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

    /// How the lock is held.
    pub fn mode(&self) -> Mode {
        self.lease.mode()
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

    /// The store that keeps the lock, for what its backend offers on guards.
    pub fn backend(&self) -> &dyn Backend {
        self.handle.engine.backend()
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
        let Some(given_back) = self.give_back(false)? else { return Ok(()) };
        self.confirmed("release", given_back.await)
    }

    /// [Releases](Self::release) the lock and says that what it was taken for is done: the start of this hold is what `once_per` counts from,
    /// here and in every other process.
    ///
    /// # Errors
    ///
    /// As [`release`](Self::release), and [`ErrorKind::Unsupported`] on a store that keeps no schedule; the lock is released all the same.
    ///
    /// # Cancel safety
    ///
    /// Once polled, it is done whether or not the future is dropped.
    pub async fn complete(mut self) -> Result<(), Error> {
        self.handle.offers(Offer::Schedule).map_err(|error| self.located("complete", error))?;
        let Some(given_back) = self.give_back(true)? else { return Ok(()) };
        self.confirmed("release", given_back.await)
    }

    /// Moves the deadline to a whole ttl from now, less the margin, and returns it: for locks that are not
    /// [renewed](crate::Lock::renew) by the library, and to learn at once whether the store still knows of the lock. `None` if it does not expire.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`] if the lock is lost; [`ErrorKind::Unavailable`], or what else the store says, if it could not be extended: it is then
    /// still held until the old deadline.
    ///
    /// # Cancel safety
    ///
    /// Once polled, it is done whether or not the future is dropped.
    pub async fn extend(&self) -> Result<Option<Deadline>, Error> {
        let engine = &self.handle.engine;
        if engine.is_forked() {
            return Err(self.located("extend", Error::forked()));
        }
        let Some(granted) = &self.granted else { return Err(Error::closed()) };
        let extended = Confirmation::new(Arc::clone(engine), engine.extend(granted));
        self.confirmed("extend", extended.await)?;
        Ok(self.deadline())
    }

    /// Waits until somebody politely asks for the lock back ([`Locks::revoke`](crate::Locks::revoke)). It stays held until it is released. Also ready
    /// when it is lost.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point and asked for again.
    pub async fn asked(&self) {
        self.lease.asked().await;
    }

    /// Runs `body` under this guard and releases it; with `complete`, as what was to be done.
    pub(crate) async fn cover<B: Future>(
        mut self,
        complete: bool,
        on_lost: OnLost,
        body: B,
    ) -> Result<B::Output, Error> {
        let body = scope::inside([Some(self.frame())], body);
        let output = match on_lost {
            OnLost::Stop => until_lost(body, self.lost()).await,
            OnLost::GoOn => Ok(body.await),
        };
        match output {
            Ok(output) if self.is_held() => {
                if let Some(given_back) = self.give_back(complete)? {
                    // The body ended under the lock; what the store did not take is tried again.
                    drop(given_back.await);
                }
                Ok(output)
            }
            Ok(_) => Err(self.loss()),
            Err(reason) => Err(self.located("hold", Error::lost(reason))),
        }
    }

    /// The lock as what a body runs under.
    pub(crate) fn frame(&self) -> Frame {
        Frame::new(&self.handle, &self.name, self.token, &self.lease)
    }

    /// From now on it is held as a reader.
    pub(crate) fn downgrade(&self) {
        self.lease.downgrade();
    }

    /// The error of a guard that is not held any more.
    pub(crate) fn loss(&self) -> Error {
        self.located("hold", Error::lost(self.lease.loss().unwrap_or(LossReason::Expired)))
    }

    /// Puts a question about this grant to the store, on the library's thread, if the store offers that.
    pub(crate) async fn ask_store<T, F>(
        &self,
        operation: &'static str,
        offer: Offer,
        question: impl FnOnce(Arc<Engine>, Grant) -> F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.handle.offers(offer).map_err(|error| self.located(operation, error))?;
        let engine = &self.handle.engine;
        let grant = self.granted.as_ref().and_then(|granted| engine.grant(granted));
        let Some(grant) = grant.filter(|_| self.is_held()) else { return Err(self.loss()) };
        let answer = engine.ask(|engine| question(engine, grant)).await;
        answer.map_err(|error| self.located(operation, error))
    }

    pub(crate) fn located(&self, operation: &'static str, error: Error) -> Error {
        let operation = if error.kind() == ErrorKind::Lost { "hold" } else { operation };
        error.at(self.handle.engine.guarantees().backend, operation, &self.name)
    }

    /// Gives the lock back; what comes of it is to be awaited, unless there is nothing to wait for.
    fn give_back(&mut self, completed: bool) -> Result<Option<Confirmation>, Error> {
        let engine = &self.handle.engine;
        if engine.is_forked() {
            return Err(self.located("release", Error::forked()));
        }
        let Some(granted) = self.granted.take() else { return Err(Error::closed()) };
        let ticket = engine.release(&granted, completed, true);
        Ok(ticket.map(|ticket| Confirmation::new(Arc::clone(engine), ticket)))
    }

    fn confirmed(&self, operation: &'static str, answer: Answer) -> Result<(), Error> {
        match answer {
            Answer::Failed(error) => Err(self.located(operation, error)),
            _ => Ok(()),
        }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if let Some(granted) = self.granted.take()
            && !self.handle.engine.is_forked()
        {
            let ticket = self.handle.engine.release(&granted, false, false);
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
