//! One lock, and the ways to get it.

use std::borrow::Cow;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::coop::cooperative;

use crate::busy::Busy;
use crate::clock::Boottime;
use crate::engine::{Answer, Engine, Patience, TicketKey, Wish};
use crate::error::{Error, ErrorKind};
use crate::guard::LockGuard;
use crate::locks::Handle;
use crate::name::LockName;
use crate::observe::Span;
use crate::outcome::Outcome;
use crate::scope;

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
    handle: Arc<Handle>,
    name: Result<LockName, Error>,
    ttl: Option<Duration>,
    label: Option<String>,
}

impl Lock {
    pub(crate) fn new(handle: Arc<Handle>, name: Result<LockName, Error>) -> Self {
        Self { handle, name, ttl: None, label: None }
    }

    /// At most how long the store keeps others out after this process has vanished. Default: the store's, 15 s for most.
    ///
    /// Stores whose locks end with their process meet any ttl. Elsewhere a longer one rides out longer outages
    /// of the store and longer pauses of this process, and a shorter one frees the lock of a dead process sooner. A ttl
    /// that is zero, or that the store can't do, is an [`ErrorKind::Config`] of the operations.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// What others are told about the holder beside host and pid.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The lock's name; empty if it broke the rules.
    pub fn name(&self) -> &str {
        self.name.as_ref().map_or("", LockName::as_str)
    }

    /// Waits until the lock is had.
    ///
    /// Inside a `Locks` callers are served first come, first served; between processes as the store promises.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] if the store is out of reach for longer than the store timeout (30 s);
    /// [`ErrorKind::InvalidName`] and [`ErrorKind::Config`] for a bad name or ttl, before any I/O; [`ErrorKind::Closed`],
    /// [`ErrorKind::Forked`]; [`ErrorKind::WouldDeadlock`] inside the body of [`Lock::run`] of the same lock; and what the store refuses: [`ErrorKind::PermissionDenied`],
    /// [`ErrorKind::StoreFull`], [`ErrorKind::Unsupported`].
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held or queued because of it.
    pub async fn acquire(&self) -> Result<LockGuard, Error> {
        self.request(Patience::Endless).await?.map_err(|busy| self.timed_out("not free").with_busy(busy))
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
        Ok(self.request(Patience::Try).await?.ok())
    }

    /// Waits until the lock is had, at most for `timeout`. Zero tries once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] once the time is up; [`Error::busy`] then says what was in the way, as far as it was known when
    /// it was last asked. Otherwise as [`Lock::acquire`].
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nothing stays held or queued because of it.
    pub async fn acquire_timeout(&self, timeout: Duration) -> Result<LockGuard, Error> {
        let deadline = Boottime::now().after(timeout);
        let patience = match timeout {
            Duration::ZERO => Patience::Try,
            _ if deadline == Boottime::NEVER => Patience::Endless,
            _ => Patience::Until(deadline),
        };
        match self.request(patience).await {
            Ok(Ok(guard)) => Ok(guard),
            Ok(Err(busy)) => Err(self.timed_out("not free").with_busy(busy)),
            Err(error) if error.kind() == ErrorKind::Timeout => {
                let late = self.timed_out(format!("not acquired within {timeout:?}"));
                Err(match error.busy() {
                    Some(busy) => late.with_busy(busy.clone()),
                    None => late,
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Waits for the lock, runs `body` under it and releases it.
    ///
    /// If the lock is lost meanwhile, the body is dropped at its next await. Asking for the same lock inside the body is an
    /// error instead of a deadlock. A release that the store did not take at once does not hide the body's output: it is
    /// tried again in the background.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`] if the lock was lost before the body had ended; its output is then not returned. Otherwise as
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
        self.acquire().await?.cover(body).await
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
        match self.request(Patience::Try).await? {
            Ok(guard) => guard.cover(body).await.map(Outcome::Ran),
            Err(busy) => Ok(Outcome::Skipped(busy)),
        }
    }

    /// Asks the engine: a guard, or why not now.
    async fn request(&self, patience: Patience) -> Result<Result<LockGuard, Busy>, Error> {
        let name = self.name.clone()?;
        let engine = &self.handle.engine;
        if engine.is_forked() {
            return Err(self.located(Error::forked()));
        }
        let ttl = self.handle.ttl(self.ttl).map_err(|error| self.located(error))?;
        if scope::is_inside(&self.handle, &name) {
            let message = "this task already runs under this lock and would wait for itself";
            return Err(self.located(Error::new(ErrorKind::WouldDeadlock, message)));
        }
        let holder = match &self.label {
            None => Arc::clone(&self.handle.holder),
            Some(label) => Arc::new((*self.handle.holder).clone().with_label(label)),
        };
        let span = Span::acquire(engine.guarantees().backend, &name);
        let wish = Wish { name: name.clone(), ttl, holder, patience };
        // A free lock never waits: without a budget, a task that takes one after the other would keep its thread for itself.
        match cooperative(Request { engine, span, state: State::New(Some(wish)) }).await {
            Answer::Granted(granted) => Ok(Ok(LockGuard::new(Arc::clone(&self.handle), granted, name))),
            Answer::Busy(busy) => Ok(Err(busy)),
            Answer::Failed(error) => Err(self.located(error)),
            Answer::Done => Err(Error::closed()),
        }
    }

    fn timed_out(&self, message: impl Into<Cow<'static, str>>) -> Error {
        self.located(Error::new(ErrorKind::Timeout, message))
    }

    fn located(&self, error: Error) -> Error {
        match &self.name {
            Ok(name) => error.at(self.handle.engine.guarantees().backend, "acquire", name),
            Err(_) => error,
        }
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// A caller's request, from the first poll to the answer. Dropping it takes the request back.
struct Request<'a> {
    engine: &'a Arc<Engine>,
    span: Span,
    state: State,
}

enum State {
    New(Option<Wish>),
    Waiting(TicketKey),
    Over,
}

impl Future for Request<'_> {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let this = &mut *self;
        let (engine, state) = (this.engine, &mut this.state);
        this.span.within(|| {
            let answer = match state {
                State::New(wish) => match wish.take() {
                    Some(wish) => {
                        let (ticket, answer) = engine.acquire(wish, context);
                        *state = State::Waiting(ticket);
                        answer
                    }
                    None => Poll::Pending,
                },
                State::Waiting(ticket) => engine.poll(*ticket, context),
                State::Over => Poll::Pending,
            };
            if answer.is_ready() {
                *state = State::Over;
            }
            answer
        })
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        if let State::Waiting(ticket) = self.state
            && !self.engine.is_forked()
        {
            self.engine.abandon(ticket);
        }
    }
}

/// Waits until the engine has confirmed something. Dropping it changes nothing about that.
pub(crate) struct Confirmation {
    engine: Arc<Engine>,
    ticket: Option<TicketKey>,
}

impl Confirmation {
    pub(crate) fn new(engine: Arc<Engine>, ticket: TicketKey) -> Self {
        Self { engine, ticket: Some(ticket) }
    }
}

impl Future for Confirmation {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let Some(ticket) = self.ticket else { return Poll::Pending };
        let answer = self.engine.poll(ticket, context);
        if answer.is_ready() {
            self.ticket = None;
        }
        answer
    }
}

impl Drop for Confirmation {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket
            && !self.engine.is_forked()
        {
            self.engine.abandon(ticket);
        }
    }
}

/// Runs `body` until it ends or `lost` does, whichever comes first; the body goes first.
pub(crate) async fn until_lost<B: Future, L: Future>(body: B, lost: L) -> Result<B::Output, L::Output> {
    let mut body = pin!(body);
    let mut lost = pin!(lost);
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = body.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        lost.as_mut().poll(context).map(Err)
    })
    .await
}
