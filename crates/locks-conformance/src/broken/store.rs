//! A small store in memory with a queue and, if wanted, an expiry or a defect.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use locks_api::spi::{
    Attempt, Backend, Claim, ClaimId, Events, Expiry, Grant, Guarantees, Inline, Recovery, Released, Renewed,
    Result, TokenBlock, TtlLimits,
};
use locks_api::{Boottime, Error, ErrorKind, Holder, LockName, LossReason};

use super::Defect;

/// Where a counter starts that was forgotten.
const FORGOTTEN: u64 = 1_000;

/// The store: what its connections share.
#[derive(Clone, Debug)]
pub struct Store {
    ttl: Option<TtlLimits>,
    defect: Option<Defect>,
    rows: Arc<Mutex<HashMap<LockName, Row>>>,
}

#[derive(Debug, Default)]
struct Row {
    counter: Option<u64>,
    held: Option<Held>,
    waiting: VecDeque<(Claim, Option<Events>)>,
    hand_overs: u32,
    /// Remembered only for the sake of a defect.
    released: HashSet<ClaimId>,
}

#[derive(Debug)]
struct Held {
    grant: Grant,
    by: Holder,
    ttl: Option<Duration>,
    ends: Option<Boottime>,
}

impl Held {
    fn has_ended(&self, now: Boottime) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }

    fn expiry(&self, now: Boottime) -> Expiry {
        self.ends.map_or(Expiry::Never, |ends| Expiry::In(ends.since(now)))
    }
}

impl Store {
    /// An empty store whose grants expire within these limits, or never.
    pub fn new(ttl: Option<TtlLimits>, defect: Option<Defect>) -> Self {
        Self { ttl, defect, rows: Arc::default() }
    }

    /// A new connection.
    pub fn connect(&self, guarantees: Guarantees) -> StoreBackend {
        StoreBackend { store: self.clone(), guarantees, events: OnceLock::new() }
    }

    fn rows(&self) -> MutexGuard<'_, HashMap<LockName, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    fn grant(&self, row: &mut Row, claim: &Claim, now: Boottime) -> Result<Grant> {
        let tokens = self.draw(row)?;
        let ttl = self.ttl.map(|limits| claim.ttl.unwrap_or(limits.default));
        let grant = Grant::new(claim, tokens, ttl.map_or(Expiry::Never, Expiry::In));
        row.held = Some(Held {
            grant: grant.clone(),
            by: (*claim.holder).clone().with_since(SystemTime::now()),
            ttl,
            ends: ttl.map(|ttl| now.after(ttl)),
        });
        Ok(grant)
    }

    fn draw(&self, row: &mut Row) -> Result<TokenBlock> {
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let clock = u64::try_from(clock.as_micros()).unwrap_or(u64::MAX);
        let tokens = match row.counter {
            None if self.has(Defect::ReusedToken) => TokenBlock::after(FORGOTTEN, clock),
            None => TokenBlock::without_counter(None, clock),
            Some(counter) => TokenBlock::after(counter, clock),
        };
        let tokens = tokens.ok_or_else(|| Error::new(ErrorKind::StoreFull, "the tokens are used up"))?;
        row.counter = Some(tokens.last().get());
        Ok(tokens)
    }

    /// Frees the lock and grants it to whoever is next.
    fn hand_over(&self, row: &mut Row, now: Boottime) -> Result<()> {
        row.held = None;
        match row.waiting.pop_front() {
            Some((claim, events)) => {
                let grant = self.grant(row, &claim, now)?;
                row.hand_overs += 1;
                let forgets_to_say = self.has(Defect::LostWakeUp) && row.hand_overs.is_multiple_of(5);
                if let (Some(events), false) = (events, forgets_to_say) {
                    events.granted(grant, None);
                }
            }
            None if self.has(Defect::ReusedToken) => row.counter = None,
            None => {}
        }
        Ok(())
    }

    fn reap(&self, row: &mut Row, now: Boottime) -> Result<()> {
        if row.held.as_ref().is_some_and(|held| held.has_ended(now)) {
            self.hand_over(row, now)?;
        }
        Ok(())
    }

    fn acquire(&self, claim: &Claim, events: Option<&Events>) -> Result<Attempt> {
        let now = Boottime::now();
        let mut rows = self.rows();
        let row = rows.entry(claim.name.clone()).or_default();
        if self.has(Defect::NoOp) {
            return self.grant(row, claim, now).map(Attempt::Granted);
        }
        self.reap(row, now)?;
        let Some(held) = &row.held else { return self.grant(row, claim, now).map(Attempt::Granted) };
        let expiry = held.expiry(now);
        if held.grant.claim == claim.id {
            let mut grant = held.grant.clone();
            grant.expiry = expiry;
            if self.has(Defect::TokenFetchedLater) {
                grant.tokens = self.draw(row)?;
            }
            return Ok(Attempt::Granted(grant));
        }
        let by = Some(held.by.clone());
        if !claim.may_wait {
            return Ok(Attempt::held(by));
        }
        let position =
            row.waiting.iter().position(|(waiting, _)| waiting.id == claim.id).unwrap_or_else(|| {
                row.waiting.push_back((claim.clone(), events.cloned()));
                row.waiting.len() - 1
            });
        let check_in = match expiry {
            Expiry::In(left) => Some(left + Duration::from_millis(1)),
            _ => None,
        };
        Ok(Attempt::Queued { position: u64::try_from(position).ok(), by, check_in })
    }

    fn cancel(&self, claim: &Claim) -> Result<()> {
        let mut rows = self.rows();
        let Some(row) = rows.get_mut(&claim.name) else { return Ok(()) };
        row.waiting.retain(|(waiting, _)| waiting.id != claim.id);
        if row.held.as_ref().is_some_and(|held| held.grant.claim == claim.id) {
            self.hand_over(row, Boottime::now())?;
        }
        Ok(())
    }

    fn release(&self, grant: &Grant) -> Result<Released> {
        let now = Boottime::now();
        let mut rows = self.rows();
        let Some(row) = rows.get_mut(&grant.name) else { return Ok(Released::NotHeld) };
        self.reap(row, now)?;
        let is_its_own = row.held.as_ref().is_some_and(|held| held.grant.is_same_as(grant));
        let is_let_pass = row.held.is_some()
            && (self.has(Defect::ReleaseByAnyone)
                || self.has(Defect::UnfencedRetry) && row.released.contains(&grant.claim));
        if !is_its_own && !is_let_pass {
            return Ok(Released::NotHeld);
        }
        if self.has(Defect::UnfencedRetry) {
            row.released.insert(grant.claim);
        }
        self.hand_over(row, now)?;
        Ok(Released::Done)
    }

    fn renew(&self, grant: &Grant) -> Renewed {
        let now = Boottime::now();
        let mut rows = self.rows();
        let held = rows.get_mut(&grant.name).and_then(|row| row.held.as_mut());
        let Some(held) = held.filter(|held| held.grant.is_same_as(grant)) else {
            return Renewed::Lost(LossReason::Taken);
        };
        if held.has_ended(now) && !self.has(Defect::ResurrectingRenewal) {
            return Renewed::Lost(LossReason::Expired);
        }
        held.ends = held.ttl.map(|ttl| now.after(ttl));
        Renewed::Extended(held.ttl.map_or(Expiry::Never, Expiry::In))
    }
}

/// A connection to a [`Store`].
#[derive(Debug)]
pub struct StoreBackend {
    store: Store,
    guarantees: Guarantees,
    events: OnceLock<Events>,
}

impl Inline for StoreBackend {
    fn acquire(&self, claim: &Claim) -> Result<Attempt> {
        self.store.acquire(claim, self.events.get())
    }

    fn cancel(&self, claim: &Claim) -> Result<()> {
        self.store.cancel(claim)
    }

    fn release(&self, grant: &Grant) -> Result<Released> {
        self.store.release(grant)
    }
}

#[async_trait]
impl Backend for StoreBackend {
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
        Ok(grants.iter().map(|grant| self.store.renew(grant)).collect())
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
