//! The connection to a store, for synchronous code.

use std::fmt;
use std::time::Duration;

use super::park::wait;
use super::{Election, Lock, LockAll, RwLock, Semaphore};
use crate::error::Error;
use crate::spi::{Backend, Guarantees};

/// Named locks over one store, with calls that block.
///
/// Cloning is cheap and gives the same connection, and so does making one from a [`locks_api::Locks`](crate::Locks) or the other way round. Dropping the last clone, lock and
/// guard delivers outstanding releases for at most 500 ms.
///
/// ```
/// use locks_api::blocking::Locks;
/// use locks_backend_memory::MemoryBackend;
///
/// let locks = Locks::new(MemoryBackend::new());
/// let guard = locks.lock("reports/nightly").acquire()?;
/// assert!(guard.is_held());
/// let same_connection = locks_api::Locks::from(locks.clone());
/// assert!(locks.lock("reports/nightly").try_acquire()?.is_none());
/// guard.release()?;
/// # drop(same_connection);
/// # Ok::<(), locks_api::Error>(())
/// ```
#[derive(Clone)]
pub struct Locks {
    pub(super) inner: crate::Locks,
}

impl Locks {
    /// Locks over this backend, with the defaults of [`LocksBuilder`].
    pub fn new(backend: impl Backend) -> Self {
        crate::Locks::new(backend).into()
    }

    /// Locks over this backend, with other options.
    pub fn builder(backend: impl Backend) -> LocksBuilder {
        crate::Locks::builder(backend).into()
    }

    /// The exclusive lock of this name. Nothing is sent yet; a name that breaks the rules of [`LockName`](crate::LockName) is an error of the
    /// operations on the lock, before any I/O.
    pub fn lock(&self, name: impl AsRef<str>) -> Lock {
        self.inner.lock(name).into()
    }

    /// The reader/writer lock of this name. As with [`lock`](Self::lock), nothing is sent yet.
    pub fn rw_lock(&self, name: impl AsRef<str>) -> RwLock {
        self.inner.rw_lock(name).into()
    }

    /// The semaphore of this name, with `limit` permits. As with [`lock`](Self::lock), nothing is sent yet.
    pub fn semaphore(&self, name: impl AsRef<str>, limit: u32) -> Semaphore {
        self.inner.semaphore(name, limit).into()
    }

    /// The exclusive locks of all these names, to be had together. As with [`lock`](Self::lock), nothing is sent yet.
    pub fn lock_all<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) -> LockAll {
        self.inner.lock_all(names).into()
    }

    /// The election of this name. As with [`lock`](Self::lock), nothing is sent yet.
    pub fn election(&self, name: impl AsRef<str>) -> Election {
        self.inner.election(name).into()
    }

    /// What the store promises.
    pub fn guarantees(&self) -> &Guarantees {
        self.inner.guarantees()
    }

    /// The backend itself, for what only it can do: upcast to [`Any`](std::any::Any) and downcast.
    pub fn backend(&self) -> &dyn Backend {
        self.inner.backend()
    }

    /// Gives everything back, ends the connection and waits until that is done; says whether all of it went.
    ///
    /// From now on every operation is an [`ErrorKind::Closed`](crate::ErrorKind::Closed), waits that are under way end with it, and guards
    /// that are alive have lost their lock ([`LossReason::Closed`](crate::LossReason::Closed)). So it is for everybody who shares the connection,
    /// asynchronous code included.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the store did not take every release within the store timeout; the locks then end
    /// with their ttl. [`ErrorKind::Forked`](crate::ErrorKind::Forked) in a forked child.
    pub fn close(&self) -> Result<(), Error> {
        wait(self.inner.close())
    }
}

impl From<crate::Locks> for Locks {
    fn from(inner: crate::Locks) -> Self {
        Self { inner }
    }
}

impl From<Locks> for crate::Locks {
    fn from(locks: Locks) -> Self {
        locks.inner
    }
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Options of a [`Locks`].
///
/// ```
/// use std::time::Duration;
///
/// use locks_api::blocking::Locks;
/// use locks_backend_memory::MemoryBackend;
///
/// let locks = Locks::builder(MemoryBackend::new())
///     .label("billing")
///     .store_timeout(Duration::from_secs(5))
///     .build();
/// # drop(locks);
/// ```
#[derive(Debug)]
#[must_use = "nothing happens before `build`"]
pub struct LocksBuilder {
    inner: crate::LocksBuilder,
}

impl LocksBuilder {
    /// What others are told about this process beside its host and pid. Default: nothing.
    pub fn label(self, label: impl Into<String>) -> Self {
        self.inner.label(label).into()
    }

    /// How long a store may be out of reach before operations that wait for it end with
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable). Default: 30 s. Longer rides out longer outages; shorter hears of them sooner.
    pub fn store_timeout(self, timeout: Duration) -> Self {
        self.inner.store_timeout(timeout).into()
    }

    /// Whether a released lock may pass to the next waiter of this process without asking the store: at most 64 times or for 5 ms in
    /// a row. Default: yes. Without it every hand-off costs the store's round trips and other processes
    /// come in sooner.
    pub fn hand_on(self, hand_on: bool) -> Self {
        self.inner.hand_on(hand_on).into()
    }

    /// The locks. Nothing is sent before the first operation.
    #[must_use]
    pub fn build(self) -> Locks {
        self.inner.build().into()
    }
}

impl From<crate::LocksBuilder> for LocksBuilder {
    fn from(inner: crate::LocksBuilder) -> Self {
        Self { inner }
    }
}
