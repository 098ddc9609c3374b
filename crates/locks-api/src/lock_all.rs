//! Several locks at once.

use std::fmt;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::ask::{Ask, Kind, options, patience};
use crate::busy::Busy;
use crate::clock::Deadline;
use crate::engine::Patience;
use crate::error::{Error, ErrorKind};
use crate::guard::LockGuard;
use crate::locks::Handle;
use crate::loss::LossReason;
use crate::name::LockName;
use crate::outcome::Outcome;
use crate::request::{Request, until_lost};
use crate::scope::{self, Frame};
use crate::spi::{Mode, Offer};
use crate::token::FencingToken;

/// Several exclusive locks that are had together or not at all. Holds nothing by itself.
///
/// Made by [`Locks::lock_all`](crate::Locks::lock_all). They are always taken in the order of their names, so that callers that want the same locks can't
/// wait for each other in a circle; a name that is given twice counts once. If all are free they are taken in one step where the store can. Otherwise a wait
/// holds the first ones while it waits for the next; if it ends early, all are given back.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let locks = locks_api::Locks::new(locks_backend_memory::MemoryBackend::new());
/// let transfer = locks.lock_all(["account/7", "account/3"]);
/// let guard = transfer.acquire().await?;
/// assert_eq!(guard.guards()[0].name(), "account/3");
/// assert!(locks.lock("account/7").try_acquire().await?.is_none());
/// guard.release().await?;
/// # Ok::<(), locks_api::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
#[must_use = "locks hold nothing before they are acquired"]
pub struct LockAll {
    /// The options; its name is of no account.
    pub(crate) ask: Ask,
    names: Result<Vec<LockName>, Error>,
}

impl LockAll {
    pub(crate) fn new<N: AsRef<str>>(handle: Arc<Handle>, names: impl IntoIterator<Item = N>) -> Self {
        let names = names.into_iter().map(LockName::new).collect::<Result<Vec<_>, _>>();
        let names = names.and_then(|mut names| {
            names.sort();
            names.dedup();
            match names.is_empty() {
                true => Err(Error::new(ErrorKind::Config, "lock_all needs at least one name")),
                false => Ok(names),
            }
        });
        let first = names.clone().map(|names| names[0].clone());
        Self { ask: Ask::new(handle, first), names }
    }

    /// The names, in the order in which the locks are taken; empty if one broke the rules.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().flatten().map(LockName::as_str)
    }

    /// Waits until all locks are had.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`](crate::Lock::acquire), for the lock that failed; [`ErrorKind::Config`] if no name was given. Nothing stays held.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held or queued because of it.
    pub async fn acquire(&self) -> Result<LockAllGuard, Error> {
        self.insist(Patience::Endless).await
    }

    /// Gets the locks if all of them are free now; `None` if any is not.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held because of it.
    pub async fn try_acquire(&self) -> Result<Option<LockAllGuard>, Error> {
        Ok(self.request(Patience::Try).await?.ok())
    }

    /// Waits until all locks are had, at most for `timeout` altogether. Zero tries once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] once the time is up, naming the lock that was waited for; otherwise as [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held or queued because of it.
    pub async fn acquire_timeout(&self, timeout: Duration) -> Result<LockAllGuard, Error> {
        self.insist(patience(timeout)).await
    }

    /// Waits for all locks, runs `body` under them and releases them. See [`Lock::run`](crate::Lock::run).
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire) and [`Lock::run`](crate::Lock::run), if any of the locks is lost.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the body and releases the locks.
    pub async fn run<F: Future>(&self, body: F) -> Result<F::Output, Error> {
        self.acquire().await?.cover(body).await
    }

    /// Runs `body` under the locks if all are free now, and says why not otherwise.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run). That one is busy is not an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the body and releases the locks.
    pub async fn try_run<F: Future>(&self, body: F) -> Result<Outcome<F::Output>, Error> {
        match self.request(Patience::Try).await? {
            Ok(guard) => guard.cover(body).await.map(Outcome::Ran),
            Err((_, busy)) => Ok(Outcome::Skipped(busy)),
        }
    }

    async fn insist(&self, patience: Patience) -> Result<LockAllGuard, Error> {
        let got = self.request(patience).await?;
        got.map_err(|(ask, busy)| ask.timed_out("not free").with_busy(busy))
    }

    /// All of the locks, or which one could not be had and why.
    async fn request(&self, patience: Patience) -> Result<Result<LockAllGuard, (Ask, Busy)>, Error> {
        let asks = self.asks()?;
        let handle = &self.ask.handle;
        if asks.len() > 1 && handle.engine.guarantees().offers.has(Offer::Together) {
            match at_once(handle, &asks).await? {
                Err(busy) if patience == Patience::Try => return Ok(Err(busy)),
                Err(_) => {}
                Ok(guards) => return Ok(Ok(LockAllGuard { guards })),
            }
        }
        let mut held = LockAllGuard { guards: Vec::with_capacity(asks.len()) };
        for ask in asks {
            match ask.request(Mode::Exclusive, patience).await? {
                Ok(guard) => held.guards.push(guard),
                Err(busy) => return Ok(Err((ask, busy))),
            }
        }
        // What was had first may be lost by the time the last one came.
        if let Some(lost) = held.guards.iter().find(|guard| !guard.is_held()) {
            return Err(lost.loss());
        }
        Ok(Ok(held))
    }

    fn asks(&self) -> Result<Vec<Ask>, Error> {
        let asks = self.names.clone()?.into_iter().map(|name| Ask { name: Ok(name), ..self.ask.clone() });
        Ok(asks.collect())
    }
}

options!(LockAll: ttl renew label);

/// All of the locks in one step of the store.
async fn at_once(handle: &Arc<Handle>, asks: &[Ask]) -> Result<Result<Vec<LockGuard>, (Ask, Busy)>, Error> {
    let wish = |ask: &Ask| ask.wish(Kind::from(Mode::Exclusive), Patience::Try);
    let wishes = asks.iter().map(wish).collect::<Result<Vec<_>, _>>()?;
    let requests = Request::together(handle, wishes);
    let mut guards = Vec::with_capacity(asks.len());
    let mut busy = None;
    for (ask, request) in asks.iter().zip(requests) {
        match ask.answered(request.await)? {
            Ok(guard) => guards.push(guard),
            // Of one of them it is known why it can't be had; the others just were not granted without it.
            Err(Busy::Held { by: None }) if busy.is_some() => {}
            Err(why) => busy = Some((ask.clone(), why)),
        }
    }
    Ok(busy.map_or(Ok(guards), Err))
}

/// Several locks that are held.
///
/// Dropping it releases all of them, the last one first, without waiting.
#[must_use = "the locks are released as soon as the guard is dropped"]
pub struct LockAllGuard {
    guards: Vec<LockGuard>,
}

impl LockAllGuard {
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

    /// Waits until one of them is lost, and says which and why.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point and asked for again.
    pub async fn lost(&self) -> (&str, LossReason) {
        first_lost(&self.guards).await
    }

    /// Gives all of them back and waits until the store has taken them.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`], for the first one that fails; the others are given back all the same.
    ///
    /// # Cancel safety
    ///
    /// Once polled, all of them are given back whether or not the future is dropped.
    pub async fn release(mut self) -> Result<(), Error> {
        let mut outcome = Ok(());
        while let Some(guard) = self.guards.pop() {
            outcome = outcome.and(guard.release().await);
        }
        outcome
    }

    pub(crate) fn into_guards(mut self) -> Vec<LockGuard> {
        std::mem::take(&mut self.guards)
    }

    async fn cover<B: Future>(self, body: B) -> Result<B::Output, Error> {
        let frames: Vec<Option<Frame>> = self.guards.iter().map(|guard| Some(guard.frame())).collect();
        let output = until_lost(scope::inside(frames, body), self.lost()).await;
        match (output, self.guards.iter().find(|guard| !guard.is_held())) {
            (Ok(output), None) => match self.release().await {
                // The body ended under the locks; what the store did not take is tried again.
                Ok(()) | Err(_) => Ok(output),
            },
            (_, Some(lost)) => Err(lost.loss()),
            (Err((_, reason)), None) => Err(Error::lost(reason)),
        }
    }
}

/// Waits until one of these is lost, and says which and why.
pub(crate) async fn first_lost<'a>(guards: impl IntoIterator<Item = &'a LockGuard>) -> (&'a str, LossReason) {
    let mut losses: Vec<_> = guards.into_iter().map(|guard| (guard, Box::pin(guard.lost()))).collect();
    std::future::poll_fn(|context| {
        for (guard, loss) in &mut losses {
            if let Poll::Ready(reason) = loss.as_mut().poll(context) {
                return Poll::Ready((guard.name(), reason));
            }
        }
        Poll::Pending
    })
    .await
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
