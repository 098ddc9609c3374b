//! The backend itself: the shortest complete one, meant to be copied.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use locks_api::spi::{
    Attempt, Backend, Claim, Events, Expiry, Fairness, Grant, Guarantees, Inline, Recovery, Released,
    Renewed, Result, Scope, TokenBlock, async_trait,
};
use locks_api::{Error, ErrorKind, Holder, LockName};

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
        let guarantees = Guarantees::new("memory", Scope::Process).with_fairness(Fairness::Fifo);
        MemoryBackend { store: self.clone(), guarantees, events: OnceLock::new() }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
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
    store: MemoryStore,
    guarantees: Guarantees,
    events: OnceLock<Events>,
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
struct Rows {
    by_name: HashMap<LockName, Row>,
    /// When there are more rows than this, idle ones are dropped.
    sweep_above: usize,
}

/// One lock.
#[derive(Default)]
struct Row {
    /// The last token handed out, if this row has handed out any.
    counter: Option<u64>,
    held: Option<(Grant, Holder)>,
    waiting: VecDeque<(Claim, Option<Events>)>,
}

impl Row {
    /// The one atomic step that grants: it takes the tokens too.
    fn grant(&mut self, claim: &Claim) -> Result<Grant> {
        let now = SystemTime::now();
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let clock = u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX);
        let tokens = match self.counter {
            Some(counter) => TokenBlock::after(counter, clock),
            None => TokenBlock::without_counter(None, clock),
        };
        let tokens =
            tokens.ok_or_else(|| Error::new(ErrorKind::StoreFull, "the fencing tokens are used up"))?;
        let grant = Grant::new(claim, tokens, Expiry::Never);
        self.counter = Some(tokens.last().get());
        self.held = Some((grant.clone(), (*claim.holder).clone().with_since(now)));
        Ok(grant)
    }

    /// Grants the lock to whoever is next, and says so.
    fn hand_over(&mut self) -> Result<()> {
        self.held = None;
        if let Some((claim, events)) = self.waiting.pop_front() {
            let grant = self.grant(&claim)?;
            if let Some(events) = events {
                events.granted(grant, None);
            }
        }
        Ok(())
    }
}

impl Inline for MemoryBackend {
    fn acquire(&self, claim: &Claim) -> Result<Attempt> {
        let mut rows = self.store.rows();
        rows.sweep();
        let row = rows.by_name.entry(claim.name.clone()).or_default();
        let position = row.waiting.iter().position(|(waiter, _)| waiter.id == claim.id);
        match &row.held {
            None => row.grant(claim).map(Attempt::Granted),
            Some((grant, _)) if grant.claim == claim.id => Ok(Attempt::Granted(grant.clone())),
            Some((_, holder)) if claim.may_wait => {
                let holder = holder.clone();
                let position = position.unwrap_or_else(|| {
                    row.waiting.push_back((claim.clone(), self.events.get().cloned()));
                    row.waiting.len() - 1
                });
                Ok(Attempt::queued(u64::try_from(position).ok(), Some(holder)))
            }
            Some((_, holder)) => Ok(Attempt::held(Some(holder.clone()))),
        }
    }

    fn cancel(&self, claim: &Claim) -> Result<()> {
        let mut rows = self.store.rows();
        let Some(row) = rows.by_name.get_mut(&claim.name) else { return Ok(()) };
        row.waiting.retain(|(waiter, _)| waiter.id != claim.id);
        match &row.held {
            Some((grant, _)) if grant.claim == claim.id => row.hand_over(),
            _ => Ok(()),
        }
    }

    fn release(&self, grant: &Grant) -> Result<Released> {
        let mut rows = self.store.rows();
        match rows.by_name.get_mut(&grant.name) {
            Some(row) if row.held.as_ref().is_some_and(|(held, _)| held.is_same_as(grant)) => {
                row.hand_over().map(|()| Released::Done)
            }
            _ => Ok(Released::NotHeld),
        }
    }
}

impl Rows {
    /// Drops idle rows now and then, so that one lock per customer does not grow for ever. A counter that is gone goes on at the
    /// clock, above everything it has handed out.
    fn sweep(&mut self) {
        if self.by_name.len() > self.sweep_above.max(1_024) {
            self.by_name.retain(|_, row| row.held.is_some());
            self.sweep_above = 2 * self.by_name.len();
        }
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
        Ok(())
    }

    fn inline(&self) -> Option<&dyn Inline> {
        Some(self)
    }

    fn recovery(&self) -> Option<&dyn Recovery> {
        None
    }
}
