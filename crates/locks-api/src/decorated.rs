//! What decorated functions expand to. For the macros alone: nothing here is promised to anybody else.

use std::fmt;
use std::time::Duration;

use crate::ask::Ask;
use crate::blocking::wait;
use crate::caller::Manner;
use crate::engine::Patience;
use crate::error::Error;
use crate::guard::OnLost;
use crate::locks::Locks;
use crate::outcome::Outcome;
use crate::process_default::{of_files, of_process};
use crate::spi::Mode;

/// A decorated call: its lock and how to ask for it. An error on the way here is returned by `run`.
#[must_use = "the body runs in `run`"]
pub struct Call {
    ask: Result<Ask, Error>,
    mode: Mode,
    timeout: Option<Duration>,
    on_lost: OnLost,
}

/// A call under a lock of these `Locks`.
pub fn on(locks: &Locks, name: impl AsRef<str>) -> Call {
    Call::new(Ok(locks.ask(name)))
}

/// A call under a lock of the default, which `open` opens if there is none.
pub fn on_default(open: fn() -> Result<Locks, Error>, name: impl AsRef<str>) -> Call {
    Call::new(of_process(open, |locks| locks.ask(name)))
}

/// A call under a lock of the file backend, which `open` opens if it is not open.
pub fn on_files(open: fn() -> Result<Locks, Error>, name: impl AsRef<str>) -> Call {
    Call::new(of_files(open, |locks| locks.ask(name)))
}

/// The default itself.
pub fn default_locks(open: fn() -> Result<Locks, Error>) -> Result<Locks, Error> {
    of_process(open, Locks::clone)
}

/// The file backend's, which decorated functions share.
pub fn file_locks(open: fn() -> Result<Locks, Error>) -> Result<Locks, Error> {
    of_files(open, Locks::clone)
}

impl Call {
    fn new(ask: Result<Ask, Error>) -> Self {
        Self { ask, mode: Mode::Exclusive, timeout: None, on_lost: OnLost::Stop }
    }

    /// `ttl = …`
    pub fn ttl(mut self, ttl: Duration) -> Self {
        if let Ok(ask) = &mut self.ask {
            ask.ttl = Some(ttl);
        }
        self
    }

    /// `label = …`
    pub fn label(mut self, label: impl Into<String>) -> Self {
        if let Ok(ask) = &mut self.ask {
            ask.label = Some(label.into());
        }
        self
    }

    /// `timeout = …`
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// `shared`
    pub fn shared(mut self) -> Self {
        self.mode = Mode::Shared;
        self
    }

    /// `permits = …`
    pub fn permits(mut self, limit: u32) -> Self {
        self.mode = Mode::Permits { count: 1, limit };
        self
    }

    /// `on_lost = "continue"`
    pub fn go_on_when_lost(mut self) -> Self {
        self.on_lost = OnLost::GoOn;
        self
    }

    /// An async body, when the lock is had.
    pub async fn run<B: Future>(self, body: B) -> Result<B::Output, Error> {
        let ask = self.ask?;
        let guard = match self.timeout {
            None => ask.acquire(self.mode).await?,
            Some(timeout) => ask.acquire_timeout(self.mode, timeout).await?,
        };
        guard.cover(false, self.on_lost, body).await
    }

    /// An async body, if the lock is free.
    pub async fn try_run<B: Future>(self, body: B) -> Result<Outcome<B::Output>, Error> {
        let ask = self.ask?;
        match ask.request(self.mode, Patience::Try).await? {
            Ok(guard) => guard.cover(false, self.on_lost, body).await.map(Outcome::Ran),
            Err(busy) => Ok(Outcome::Skipped(busy)),
        }
    }

    /// A synchronous body, when the lock is had.
    pub fn run_blocking<T>(self, body: impl FnOnce() -> T) -> Result<T, Error> {
        wait(self.blocks().run(async { body() }))
    }

    /// A synchronous body, if the lock is free.
    pub fn try_run_blocking<T>(self, body: impl FnOnce() -> T) -> Result<Outcome<T>, Error> {
        wait(self.blocks().try_run(async { body() }))
    }

    fn blocks(mut self) -> Self {
        if let Ok(ask) = &mut self.ask {
            ask.manner = Manner::Blocks;
        }
        self
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.ask.as_ref().map_or("", Ask::name);
        f.debug_struct("Call").field("name", &name).field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// A `Result` of the function's own takes the error of the lock in.
pub fn flat<T, E: From<Error>>(called: Result<Result<T, E>, Error>) -> Result<T, E> {
    called.unwrap_or_else(|error| Err(E::from(error)))
}

/// The same around an outcome.
pub fn flat_outcome<T, E: From<Error>>(
    called: Result<Outcome<Result<T, E>>, Error>,
) -> Result<Outcome<T>, E> {
    match called {
        Ok(Outcome::Ran(output)) => output.map(Outcome::Ran),
        Ok(Outcome::Skipped(busy)) => Ok(Outcome::Skipped(busy)),
        Err(error) => Err(E::from(error)),
    }
}

/// What `returns = …` names, made of a call whose body gives an `Output`.
#[diagnostic::on_unimplemented(
    message = "a decorated function whose body gives `{Output}` can't return `{Self}`",
    note = "`returns` is a `Result` of what the body gives or, if that is a `Result`, the same; its error converts from \
            `locks::Error`"
)]
pub trait Returned<Output>: Sized {
    /// Makes it.
    fn returned(called: Result<Output, Error>) -> Self;
}

impl<T, E: From<Error>> Returned<T> for Result<T, E> {
    fn returned(called: Result<T, Error>) -> Self {
        called.map_err(E::from)
    }
}

impl<T, E: From<Error>> Returned<Self> for Result<T, E> {
    fn returned(called: Result<Self, Error>) -> Self {
        flat(called)
    }
}

impl<T, E: From<Error>> Returned<Outcome<Result<T, E>>> for Result<Outcome<T>, E> {
    fn returned(called: Result<Outcome<Result<T, E>>, Error>) -> Self {
        flat_outcome(called)
    }
}

/// A `Result` under whatever name, so that the outcome of a try can be put into it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `Result`",
    note = "a decorated function's return type that is named `Result` is taken for one; `returns = …` names another"
)]
pub trait AnyResult {
    /// The same with an outcome around what it is a result of.
    type Tried;
}

impl<T, E> AnyResult for Result<T, E> {
    type Tried = Result<Outcome<T>, E>;
}
