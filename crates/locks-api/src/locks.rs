//! The connection to a store, as the user holds it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::ask::Ask;
use crate::election::Election;
use crate::engine::{Answer, Engine, Settings};
use crate::error::{Error, ErrorKind};
use crate::holder::Holder;
use crate::lock::Lock;
use crate::lock_all::LockAll;
use crate::name::LockName;
use crate::request::Confirmation;
use crate::rw_lock::RwLock;
use crate::semaphore::Semaphore;
use crate::spi::{Backend, Guarantees, Offer};

/// Named locks over one store.
///
/// Cloning is cheap and gives the same connection; dropping the last clone, lock and guard delivers outstanding
/// releases for at most 500 ms. There is no global state: two `Locks` of one process exclude each other like
/// two processes do.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use locks_api::Locks;
/// use locks_backend_memory::MemoryBackend;
///
/// let locks = Locks::new(MemoryBackend::new());
/// let guard = locks.lock("reports/nightly").acquire().await?;
/// assert!(guard.is_held());
/// assert!(locks.lock("reports/nightly").try_acquire().await?.is_none());
/// guard.release().await?;
/// # Ok::<(), locks_api::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Locks {
    handle: Arc<Handle>,
}

impl Locks {
    /// Locks over this backend, with the defaults of [`LocksBuilder`].
    pub fn new(backend: impl Backend) -> Self {
        Self::builder(backend).build()
    }

    /// Locks over this backend, with other options.
    pub fn builder(backend: impl Backend) -> LocksBuilder {
        LocksBuilder {
            backend: Box::new(backend),
            label: None,
            store_timeout: Duration::from_secs(30),
            hand_on: true,
        }
    }

    /// The exclusive lock of this name. Nothing is sent yet; a name that breaks the rules of [`LockName`] is an error of the
    /// operations on the lock, before any I/O.
    pub fn lock(&self, name: impl AsRef<str>) -> Lock {
        Lock { ask: self.ask(name) }
    }

    /// The reader/writer lock of this name. As with [`lock`](Self::lock), nothing is sent yet.
    pub fn rw_lock(&self, name: impl AsRef<str>) -> RwLock {
        RwLock { ask: self.ask(name) }
    }

    /// The semaphore of this name, with `limit` permits. As with [`lock`](Self::lock), nothing is sent yet.
    pub fn semaphore(&self, name: impl AsRef<str>, limit: u32) -> Semaphore {
        Semaphore { ask: self.ask(name), limit }
    }

    /// The exclusive locks of all these names, to be had together. As with [`lock`](Self::lock), nothing is sent yet.
    pub fn lock_all<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) -> LockAll {
        LockAll::new(Arc::clone(&self.handle), names)
    }

    /// The election of this name. As with [`lock`](Self::lock), nothing is sent yet.
    pub fn election(&self, name: impl AsRef<str>) -> Election {
        Election { ask: self.ask(name) }
    }

    /// What the store promises.
    pub fn guarantees(&self) -> &Guarantees {
        self.handle.engine.guarantees()
    }

    /// The backend itself, for what only it can do: upcast to [`Any`](std::any::Any) and downcast.
    pub fn backend(&self) -> &dyn Backend {
        self.handle.engine.backend()
    }

    /// Gives everything back and ends the connection; says whether all of it went.
    ///
    /// From now on every operation is an [`ErrorKind::Closed`], waits that are under way end with it, and guards
    /// that are alive have lost their lock ([`LossReason::Closed`](crate::LossReason::Closed)).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] if the store did not take every release within the store timeout; the locks then end
    /// with their ttl. [`ErrorKind::Forked`] in a forked child.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves it closed; only the outcome is not known.
    pub async fn close(&self) -> Result<(), Error> {
        let engine = &self.handle.engine;
        if engine.is_forked() {
            return Err(Error::forked());
        }
        let ticket = engine.close();
        let delivered = match Confirmation::new(Arc::clone(engine), ticket).await {
            Answer::Failed(error) => Err(error),
            _ => Ok(()),
        };
        delivered.and(engine.close_backend().await)
    }
}

impl Locks {
    pub(crate) fn ask(&self, name: impl AsRef<str>) -> Ask {
        Ask::new(Arc::clone(&self.handle), LockName::new(name))
    }

    pub(crate) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locks").field("backend", self.backend()).finish_non_exhaustive()
    }
}

/// Options of a [`Locks`].
///
/// ```
/// use std::time::Duration;
///
/// use locks_api::Locks;
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
    backend: Box<dyn Backend>,
    label: Option<String>,
    store_timeout: Duration,
    hand_on: bool,
}

impl LocksBuilder {
    /// What others are told about this process beside its host and pid. Default: nothing.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// How long a store may be out of reach before operations that wait for it end with
    /// [`ErrorKind::Unavailable`]. Default: 30 s. Longer rides out longer outages; shorter hears of them sooner.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.store_timeout = timeout;
        self
    }

    /// Whether a released lock may pass to the next waiter of this process without asking the store: at most 64 times or for 5 ms in
    /// a row. Default: yes. Without it every hand-off costs the store's round trips and other processes
    /// come in sooner.
    pub fn hand_on(mut self, hand_on: bool) -> Self {
        self.hand_on = hand_on;
        self
    }

    /// The locks. Nothing is sent before the first operation.
    #[must_use]
    pub fn build(self) -> Locks {
        let guarantees = self.backend.guarantees();
        let settings = Settings {
            backend: guarantees.backend,
            ttl: guarantees.ttl,
            store_timeout: self.store_timeout,
            hand_on: self.hand_on,
            inline: self.backend.inline().is_some(),
            seed: fastrand::u64(..),
        };
        let mut holder = Holder::this_process();
        holder.label = self.label;
        let engine = Engine::new(self.backend, settings);
        Locks { handle: Arc::new(Handle { engine, holder: Arc::new(holder) }) }
    }
}

/// What `Locks`, locks and guards share. The last one to go ends the library's thread.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) engine: Arc<Engine>,
    pub(crate) holder: Arc<Holder>,
}

impl Handle {
    /// Refuses what this store does not offer.
    pub(crate) fn offers(&self, offer: Offer) -> Result<(), Error> {
        if self.engine.guarantees().offers.has(offer) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unsupported, format!("this store does not offer {offer}")))
    }

    /// The ttl that a lock gets that asks for `wanted`. A store whose grants end with their process meets any.
    pub(crate) fn ttl(&self, wanted: Option<Duration>) -> Result<Option<Duration>, Error> {
        if wanted.is_some_and(|ttl| ttl.is_zero()) {
            return Err(Error::new(ErrorKind::Config, "a ttl can't be zero"));
        }
        let Some(limits) = self.engine.guarantees().ttl else { return Ok(None) };
        let ttl = wanted.unwrap_or(limits.default);
        if ttl < limits.min || ttl > limits.max {
            let (min, max) = (limits.min, limits.max);
            return Err(Error::new(
                ErrorKind::Config,
                format!("a ttl of {ttl:?} is out of this store's limits, {min:?} to {max:?}"),
            ));
        }
        Ok(Some(ttl))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A forked child has no such thread, and its parent's is none of its business.
        if !self.engine.is_forked() {
            self.engine.shut_down();
        }
    }
}
