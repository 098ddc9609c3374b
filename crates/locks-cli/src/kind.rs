//! The kinds of locks that a command can hold.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::time::Duration;

use locks::{Error, LockGuard, LockName, Locks, Permit, ReadGuard, WaitStatus, Waiting};

/// How the lock is to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Exclusive,
    Shared,
    /// As one of so many permits.
    Permit(u32),
}

/// What is asked of the store.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) name: LockName,
    pub(crate) kind: Kind,
    pub(crate) ttl: Option<Duration>,
    pub(crate) min_hold: Option<Duration>,
    pub(crate) once_per: Option<Duration>,
    pub(crate) label: String,
}

/// What a command runs under.
#[derive(Debug)]
pub(crate) enum Held {
    Exclusive(LockGuard),
    Shared(ReadGuard),
    Permit(Permit),
}

/// A wait for it.
pub(crate) trait Wait: Future<Output = Result<Held, Error>> {
    fn status(&self) -> WaitStatus;
}

/// The options, which every kind has.
macro_rules! with_options {
    ($lock:expr, $wish:expr) => {{
        let mut lock = $lock.label($wish.label.clone());
        if let Some(ttl) = $wish.ttl {
            lock = lock.ttl(ttl);
        }
        if let Some(least) = $wish.min_hold {
            lock = lock.min_hold(least);
        }
        if let Some(interval) = $wish.once_per {
            lock = lock.once_per(interval);
        }
        lock
    }};
}

impl Wish {
    /// Asks once.
    pub(crate) async fn attempt(&self, locks: &Locks) -> Result<Held, Error> {
        let now = Duration::ZERO;
        match self.kind {
            Kind::Exclusive => {
                with_options!(locks.lock(&self.name), self).acquire_timeout(now).await.map(Held::from)
            }
            Kind::Shared => {
                with_options!(locks.rw_lock(&self.name), self).read_timeout(now).await.map(Held::from)
            }
            Kind::Permit(limit) => {
                let semaphore = with_options!(locks.semaphore(&self.name, limit), self);
                semaphore.acquire_timeout(now).await.map(Held::from)
            }
        }
    }

    /// Waits without limit. Dropping it ends the wait.
    pub(crate) fn wait(&self, locks: &Locks) -> Pin<Box<dyn Wait>> {
        match self.kind {
            Kind::Exclusive => Box::pin(Asked(with_options!(locks.lock(&self.name), self).enqueue())),
            Kind::Shared => Box::pin(Asked(with_options!(locks.rw_lock(&self.name), self).enqueue_read())),
            Kind::Permit(limit) => {
                Box::pin(Asked(with_options!(locks.semaphore(&self.name, limit), self).enqueue(1)))
            }
        }
    }
}

struct Asked<G>(Waiting<G>);

impl<G: From<LockGuard>> Future for Asked<G>
where
    Held: From<G>,
{
    type Output = Result<Held, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|got| got.map(Held::from))
    }
}

impl<G: From<LockGuard>> Wait for Asked<G>
where
    Held: From<G>,
{
    fn status(&self) -> WaitStatus {
        self.0.status()
    }
}

impl Held {
    /// Gives it back; with `completed`, as what was to be done once per interval.
    pub(crate) async fn release(self, completed: bool) -> Result<(), Error> {
        match self {
            Self::Exclusive(guard) if completed => guard.complete().await,
            Self::Exclusive(guard) => guard.release().await,
            Self::Shared(guard) => guard.release().await,
            Self::Permit(permit) => permit.release().await,
        }
    }
}

impl Deref for Held {
    type Target = LockGuard;

    fn deref(&self) -> &LockGuard {
        match self {
            Self::Exclusive(guard) => guard,
            Self::Shared(guard) => guard,
            Self::Permit(permit) => permit,
        }
    }
}

impl From<LockGuard> for Held {
    fn from(guard: LockGuard) -> Self {
        Self::Exclusive(guard)
    }
}

impl From<ReadGuard> for Held {
    fn from(guard: ReadGuard) -> Self {
        Self::Shared(guard)
    }
}

impl From<Permit> for Held {
    fn from(permit: Permit) -> Self {
        Self::Permit(permit)
    }
}
