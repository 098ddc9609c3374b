//! A wait that tells how it stands.

use std::fmt;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use crate::ask::{Ask, Kind};
use crate::busy::Busy;
use crate::caller::Manner;
use crate::engine::Patience;
use crate::error::Error;
use crate::guard::LockGuard;
use crate::request::Request;

/// A wait for a lock that tells, while it lasts, how it stands. A future: await it, or poll it beside others by `&mut`.
///
/// Made by `enqueue` of the kinds of locks. Nothing is asked before the first poll.
///
/// # Cancel safety
///
/// Dropping it ends the wait: nothing stays held or queued because of it.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// # let locks = locks_api::Locks::new(locks_backend_memory::MemoryBackend::new());
/// use std::time::Duration;
///
/// let guard = locks.lock("x").acquire().await?;
/// let mut waiting = locks.lock("x").enqueue();
/// tokio::select! {
///     _ = &mut waiting => unreachable!("it is held"),
///     () = tokio::time::sleep(Duration::from_millis(10)) => {
///         assert_eq!(waiting.status().position, Some(0));
///     }
/// }
/// drop(guard);
/// let guard = waiting.await?;
/// # drop(guard);
/// # Ok::<(), locks_api::Error>(())
/// # }).unwrap();
/// ```
#[must_use = "nothing is asked for before it is awaited"]
pub struct Waiting<G = LockGuard> {
    ask: Ask,
    state: State,
    guard: PhantomData<fn() -> G>,
}

enum State {
    Refused(Option<Error>),
    Asked(Request),
}

/// How a wait stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitStatus {
    /// How many who wait are served before this one; `None` if that is not known (yet). Those of other processes count as the store told
    /// last: it falls at the latest when the store is asked again.
    pub position: Option<u64>,
    /// What is in the way, as far as it was known when the store was last asked.
    pub busy: Option<Busy>,
}

impl<G: From<LockGuard>> Waiting<G> {
    /// A wait that ends at once.
    pub(crate) fn refused(ask: &Ask, error: Error) -> Self {
        Self { ask: ask.clone(), state: State::Refused(Some(error)), guard: PhantomData }
    }

    pub(crate) fn new(ask: &Ask, kind: impl Into<Kind>) -> Self {
        let state = match ask.pending(kind, Patience::Endless) {
            Ok(request) => State::Asked(request),
            Err(error) => State::Refused(Some(error)),
        };
        Self { ask: ask.clone(), state, guard: PhantomData }
    }
}

impl<G> Waiting<G> {
    /// Says how it is waited for from now on, and refuses what could never end.
    pub(crate) fn continue_as(&mut self, manner: Manner) -> Result<(), Error> {
        match &mut self.state {
            State::Asked(request) => request.continue_as(manner).map_err(|error| self.ask.located(error)),
            State::Refused(_) => Ok(()),
        }
    }

    /// The same for another kind of guard.
    pub(crate) fn of<H>(self) -> Waiting<H> {
        Waiting { ask: self.ask, state: self.state, guard: PhantomData }
    }

    /// How it stands. Nothing is known before the first poll and after the end.
    pub fn status(&self) -> WaitStatus {
        let State::Asked(request) = &self.state else { return WaitStatus::default() };
        let (position, busy) = request.standing();
        WaitStatus { position, busy }
    }
}

impl<G: From<LockGuard>> Future for Waiting<G> {
    type Output = Result<G, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match &mut this.state {
            State::Refused(error) => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending,
            },
            State::Asked(request) => pin!(request).poll(context).map(|answer| {
                let got = this.ask.answered(answer)?;
                got.map(G::from).map_err(|busy| this.ask.timed_out("not free").with_busy(busy))
            }),
        }
    }
}

impl<G> fmt::Debug for Waiting<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("name", &self.ask.name()).field("status", &self.status()).finish()
    }
}
