//! The backend itself: the shortest complete one, meant to be copied.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use locks_api::spi::{
    Abilities, Attempt, Backend, Claim, Events, Expiry, Fairness, Grant, Guarantees, Inline, LossDetection,
    Offers, Released, Renewed, Result, Scope, async_trait,
};
use locks_api::{Boottime, Busy, Error, ErrorKind, LockName};

use crate::row::{Next, Row, Standing};
use crate::watched::Watched;

/// Locks in the memory of this process. Several backends can share one store: each is to the others like another process.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use locks_api::Locks;
/// use locks_backend_memory::MemoryStore;
///
/// let store = MemoryStore::default();
/// let [here, there] = [(); 2].map(|()| Locks::new(store.connect()));
/// let guard = here.lock("x").acquire().await?;
/// assert!(there.lock("x").try_acquire().await?.is_none());
/// # drop(guard);
/// # Ok::<(), locks_api::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Rows>>);

impl MemoryStore {
    /// A backend over this store.
    pub fn connect(&self) -> MemoryBackend {
        let guarantees = Guarantees::new("memory", Scope::Process)
            .with_fairness(Fairness::Fifo)
            .with_loss(LossDetection::Pushed)
            .with_offers(Offers::ALL);
        let mut rows = self.rows();
        rows.connections += 1;
        MemoryBackend { store: self.clone(), number: rows.connections, guarantees, events: OnceLock::new() }
    }

    pub(crate) fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("locks", &self.rows().by_name.len()).finish()
    }
}

/// A [`MemoryStore`] as a backend: strictly first come, first served, without expiry.
#[derive(Debug)]
pub struct MemoryBackend {
    pub(crate) store: MemoryStore,
    /// Tells it from the others over the same store.
    pub(crate) number: u64,
    guarantees: Guarantees,
    pub(crate) events: OnceLock<Events>,
}

impl MemoryBackend {
    /// A backend over a store of its own.
    #[expect(clippy::new_without_default, reason = "a backend is made on purpose")]
    pub fn new() -> Self {
        MemoryStore::default().connect()
    }

    /// A backend over a store of its own, from the URL `memory:`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for anything else. Nothing global maps names to stores: to share one, connect twice to one [`MemoryStore`].
    pub fn from_url(url: &str) -> Result<Self> {
        match url.split_once(':') {
            Some((scheme, "")) if scheme.eq_ignore_ascii_case("memory") => Ok(Self::new()),
            _ => Err(Error::new(
                ErrorKind::Config,
                "a memory store has no name; the URL is just `memory:`, and MemoryStore is what several Locks can share",
            )),
        }
    }
}

#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) by_name: HashMap<LockName, MemoryRow>,
    pub(crate) watched: Watched<Events>,
    /// How many backends were made.
    connections: u64,
    /// When there are more rows than this, idle ones are dropped.
    sweep_above: usize,
}

/// Beside each holder and waiter: where to say what becomes of it.
pub(crate) type MemoryRow = Row<Option<Events>, Option<Events>>;

impl Rows {
    /// Drops idle rows now and then, so that one lock per customer does not grow for ever.
    fn sweep(&mut self, now: Boottime) {
        if self.by_name.len() > self.sweep_above.max(1_024) {
            self.by_name.retain(|_, row| !row.is_idle(now));
            self.sweep_above = 2 * self.by_name.len();
        }
    }

    /// Grants the lock to whoever is next, and says so.
    pub(crate) fn hand_over(&mut self, name: &LockName, now: Boottime) -> Result<()> {
        let Some(row) = self.by_name.get_mut(name) else { return Ok(()) };
        while let Some(next) = row.take_next(now) {
            match next {
                Next::Granted(waiter) => {
                    let events = waiter.beside;
                    let grant = row.grant(&waiter.claim, 0, Expiry::Never, events.clone(), now)?;
                    if let Some(events) = events {
                        events.granted(grant, None);
                    }
                }
                Next::NotDue(waiter) => {
                    if let Some(events) = waiter.beside {
                        events.hint(name.clone());
                    }
                }
            }
        }
        self.watched.changed(name);
        Ok(())
    }

    /// Somebody holds it no more: whoever is next gets it, or is to learn when it is due.
    pub(crate) fn freed(&mut self, name: &LockName) -> Result<()> {
        let now = Boottime::now();
        self.hand_over(name, now)?;
        if let Some(row) = self.by_name.get(name).filter(|row| row.due_in(now).is_some()) {
            for events in row.waiting.iter().filter_map(|waiter| waiter.beside.as_ref()) {
                events.hint(name.clone());
            }
        }
        Ok(())
    }

    /// Ends this very grant.
    pub(crate) fn release(&mut self, grant: &Grant, completed: bool) -> Result<Released> {
        let row = self.by_name.get_mut(&grant.name);
        match row.and_then(|row| row.release(grant, completed)) {
            Some(_) => self.freed(&grant.name).map(|()| Released::Done),
            None => Ok(Released::NotHeld),
        }
    }
}

impl Inline for MemoryBackend {
    fn acquire(&self, claim: &Claim) -> Result<Attempt> {
        let now = Boottime::now();
        let mut rows = self.store.rows();
        rows.sweep(now);
        if rows.by_name.get(&claim.name).is_some_and(|row| !row.waiting.is_empty()) {
            // A minimum hold may be over since the last step.
            rows.hand_over(&claim.name, now)?;
        }
        let Rows { by_name, watched, .. } = &mut *rows;
        let row = by_name.entry(claim.name.clone()).or_default();
        let events = || self.events.get().cloned();
        match row.standing(claim, now)? {
            Standing::Holds(at) => Ok(Attempt::Granted(row.held[at].grant.clone())),
            Standing::Next => {
                let grant = row.grant(claim, 0, Expiry::Never, events(), now)?;
                watched.changed(&claim.name);
                Ok(Attempt::Granted(grant))
            }
            Standing::NotDue(remaining) => Ok(Attempt::Busy(Busy::NotDue { remaining })),
            Standing::Behind(_) if !claim.may_wait => Ok(Attempt::held(row.holder())),
            Standing::Behind(ahead) => {
                row.wait(claim, ahead, events());
                let (position, by) = (u64::try_from(ahead).ok(), row.holder());
                Ok(Attempt::Queued { position, by, check_in: row.due_in(now) })
            }
        }
    }

    fn cancel(&self, claim: &Claim) -> Result<()> {
        let mut rows = self.store.rows();
        let was_there = rows.by_name.get_mut(&claim.name).is_some_and(|row| row.cancel(claim.id));
        // Who came behind it may be next now.
        if was_there { rows.freed(&claim.name) } else { Ok(()) }
    }

    fn release(&self, grant: &Grant) -> Result<Released> {
        self.store.rows().release(grant, false)
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn guarantees(&self) -> &Guarantees {
        &self.guarantees
    }

    fn subscribe(&self, events: Events) {
        self.events.get_or_init(|| events);
    }

    async fn acquire(&self, claims: &[Claim]) -> Result<Vec<Result<Attempt>>> {
        Ok(claims.iter().map(|claim| Inline::acquire(self, claim)).collect())
    }

    async fn cancel(&self, claims: &[Claim]) -> Result<Vec<Result<()>>> {
        Ok(claims.iter().map(|claim| Inline::cancel(self, claim)).collect())
    }

    async fn release(&self, grants: &[Grant]) -> Result<Vec<Result<Released>>> {
        Ok(grants.iter().map(|grant| Inline::release(self, grant)).collect())
    }

    async fn renew(&self, grants: &[Grant]) -> Result<Vec<Renewed>> {
        Ok(grants.iter().map(|_| Renewed::Extended(Expiry::Never)).collect())
    }

    async fn close(&self) -> Result<()> {
        self.store.rows().watched.leave(self.number);
        Ok(())
    }

    fn inline(&self) -> Option<&dyn Inline> {
        Some(self)
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities::none()
            .with_downgrade(self)
            .with_together(self)
            .with_schedule(self)
            .with_values(self)
            .with_inspect(self)
    }
}
