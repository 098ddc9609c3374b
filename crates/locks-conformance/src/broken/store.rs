//! A small store in memory that does all there is to do and, if wanted, has an expiry or a defect.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use locks_api::spi::{
    Attempt, Claim, ClaimId, Events, Expiry, Grant, Guarantees, Joint, Leader, LockState, Mode, Released,
    Renewed, Result, TtlLimits,
};
use locks_api::{Boottime, Busy, LockName, LossReason};

use super::Defect;
use super::connection::StoreBackend;
use super::row::{Held, Row};

/// The store: what its connections share.
#[derive(Clone, Debug)]
pub struct Store {
    ttl: Option<TtlLimits>,
    defect: Option<Defect>,
    state: Arc<Mutex<State>>,
    connections: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<LockName, Row>,
    /// Who wants to hear of changes, by the number of the connection.
    watchers: HashMap<LockName, HashMap<u64, Events>>,
}

impl Store {
    /// An empty store whose grants expire within these limits, or never.
    pub fn new(ttl: Option<TtlLimits>, defect: Option<Defect>) -> Self {
        Self { ttl, defect, state: Arc::default(), connections: Arc::default() }
    }

    /// A new connection.
    pub fn connect(&self, guarantees: Guarantees) -> StoreBackend {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        StoreBackend { store: self.clone(), number, guarantees, events: OnceLock::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    /// Does something to the lock once those whose time is up are out of it; then whoever may come in does.
    fn step<T>(
        &self,
        state: &mut State,
        name: &LockName,
        step: impl FnOnce(&mut Row, Boottime) -> Result<T>,
    ) -> Result<T> {
        let now = Boottime::now();
        let row = state.rows.entry(name.clone()).or_insert_with(|| Row::new(self.defect));
        let before: Vec<ClaimId> = row.held.iter().map(|held| held.grant.claim).collect();
        if row.reap(now) {
            self.let_in(row, now)?;
        }
        let outcome = step(row, now);
        self.let_in(row, now)?;
        row.forget_if_idle();
        if !row.held.iter().map(|held| held.grant.claim).eq(before) {
            state.tell_watchers(name);
        }
        outcome
    }

    /// Grants the lock to those who wait, first come first, as long as they may hold it beside each other.
    fn let_in(&self, row: &mut Row, now: Boottime) -> Result<()> {
        while let Some((first, events)) = row.waiting.front().cloned() {
            if row.interval_left(&first, now).is_some() {
                row.waiting.pop_front();
                if let Some(events) = events {
                    // It asks again, and is told when it is due.
                    events.hint(first.name.clone());
                }
                continue;
            }
            if row.due_in(now).is_some() || !row.fits(first.mode) {
                break;
            }
            let grant = row.grant(&first, self.ttl_of(&first), events.clone(), now)?;
            row.hand_overs += 1;
            let forgets_to_say = self.has(Defect::LostWakeUp) && row.hand_overs.is_multiple_of(5);
            if let (Some(events), false) = (events, forgets_to_say) {
                events.granted(grant, None);
            }
        }
        Ok(())
    }

    fn ttl_of(&self, claim: &Claim) -> Option<std::time::Duration> {
        self.ttl.map(|limits| claim.ttl.unwrap_or(limits.default))
    }

    pub(super) fn acquire(&self, claim: &Claim, events: Option<&Events>) -> Result<Attempt> {
        self.step(&mut self.lock(), &claim.name, |row, now| self.decide(row, claim, events, now))
    }

    /// Grants, queues or refuses.
    fn decide(
        &self,
        row: &mut Row,
        claim: &Claim,
        events: Option<&Events>,
        now: Boottime,
    ) -> Result<Attempt> {
        let ttl = self.ttl_of(claim);
        if self.has(Defect::NoOp) {
            return row.grant(claim, ttl, events.cloned(), now).map(Attempt::Granted);
        }
        if let Some(at) = row.held.iter().position(|held| held.grant.claim == claim.id) {
            let mut grant = row.held[at].grant.clone();
            grant.expiry = row.held[at].expiry(now);
            if self.has(Defect::TokenFetchedLater) {
                grant.tokens = row.draw()?;
            }
            return Ok(Attempt::Granted(grant));
        }
        row.check_limit(claim)?;
        if let Some(remaining) = row.interval_left(claim, now) {
            row.waiting.retain(|(waiting, _)| waiting.id != claim.id);
            return Ok(Attempt::Busy(Busy::NotDue { remaining }));
        }
        let (ahead, due_in) = (row.ahead(claim), row.due_in(now));
        if ahead == 0 && due_in.is_none() && row.fits(claim.mode) {
            return row.grant(claim, ttl, events.cloned(), now).map(Attempt::Granted);
        }
        if !claim.may_wait {
            let not_due = due_in.filter(|_| row.held.is_empty()).map(|remaining| Busy::NotDue { remaining });
            return Ok(not_due.map_or_else(|| Attempt::held(row.holder()), Attempt::Busy));
        }
        if row.waiting.iter().all(|(waiting, _)| waiting.id != claim.id) {
            row.waiting.push_back((claim.clone(), events.cloned()));
        }
        let position = u64::try_from(ahead).ok();
        Ok(Attempt::Queued { position, by: row.holder(), check_in: row.check_in(now) })
    }

    pub(super) fn acquire_together(&self, claims: &[Claim], events: Option<&Events>) -> Result<Joint> {
        let mut state = self.lock();
        let mut grants = Vec::new();
        for (at, claim) in claims.iter().enumerate() {
            let busy =
                match self.step(&mut state, &claim.name, |row, now| self.decide(row, claim, events, now))? {
                    Attempt::Granted(grant) => {
                        grants.push(grant);
                        continue;
                    }
                    Attempt::Busy(busy) => busy,
                    _ => Busy::Held { by: None },
                };
            // Nobody has seen them: all of this is one step.
            for claim in &claims[..at] {
                self.undo(&mut state, claim)?;
            }
            return Ok(Joint::Busy { at, busy });
        }
        Ok(Joint::Granted(grants))
    }

    pub(super) fn cancel(&self, claim: &Claim) -> Result<()> {
        self.undo(&mut self.lock(), claim)
    }

    fn undo(&self, state: &mut State, claim: &Claim) -> Result<()> {
        self.step(state, &claim.name, |row, _| {
            row.waiting.retain(|(waiting, _)| waiting.id != claim.id);
            row.held.retain(|held| held.grant.claim != claim.id);
            row.not_before.take_if(|(_, by)| *by == claim.id);
            Ok(())
        })
    }

    pub(super) fn release(&self, grant: &Grant, completed: bool) -> Result<Released> {
        self.step(&mut self.lock(), &grant.name, |row, _| {
            let own = row.held.iter().position(|held| held.grant.is_same_as(grant));
            let is_let_pass = self.has(Defect::ReleaseByAnyone)
                || self.has(Defect::UnfencedRetry) && row.released.contains(&grant.claim);
            let Some(at) = own.or((is_let_pass && !row.held.is_empty()).then_some(0)) else {
                return Ok(Released::NotHeld);
            };
            if self.has(Defect::UnfencedRetry) {
                row.released.insert(grant.claim);
            }
            let held = row.held.remove(at);
            if completed {
                row.last_completed = row.last_completed.max(Some(held.since));
            }
            Ok(Released::Done)
        })
    }

    pub(super) fn renew(&self, grant: &Grant) -> Renewed {
        let now = Boottime::now();
        let mut state = self.lock();
        let row = state.rows.get_mut(&grant.name);
        let held = row.and_then(|row| row.held.iter_mut().find(|held| held.grant.is_same_as(grant)));
        let Some(held) = held else { return Renewed::Lost(LossReason::Taken) };
        if held.has_ended(now) && !self.has(Defect::ResurrectingRenewal) {
            return Renewed::Lost(LossReason::Expired);
        }
        held.ends = held.ttl.map(|ttl| now.after(ttl));
        Renewed::Extended(held.ttl.map_or(Expiry::Never, Expiry::In))
    }

    pub(super) fn downgrade(&self, grant: &Grant) -> Result<Released> {
        self.change(grant, |row, at| {
            row.held[at].mode = Mode::Shared;
            if self.has(Defect::ReleasingDowngrade) {
                // Whoever waits comes in as if nobody were there.
                let now = Boottime::now();
                let reader = row.held.remove(at);
                self.let_in(row, now)?;
                row.held.push(reader);
            }
            Ok(())
        })
    }

    pub(super) fn publish(&self, grant: &Grant, value: &str) -> Result<Released> {
        let published = self.change(grant, |row, at| {
            row.held[at].value = Some(value.into());
            Ok(())
        })?;
        self.lock().tell_watchers(&grant.name);
        Ok(published)
    }

    /// Changes something about this very grant.
    fn change(&self, grant: &Grant, change: impl FnOnce(&mut Row, usize) -> Result<()>) -> Result<Released> {
        self.step(&mut self.lock(), &grant.name, |row, _| {
            match row.held.iter().position(|held| held.grant.is_same_as(grant)) {
                Some(at) => change(row, at).map(|()| Released::Done),
                None => Ok(Released::NotHeld),
            }
        })
    }

    pub(super) fn leader(&self, name: &LockName) -> Result<Option<Leader>> {
        self.step(&mut self.lock(), name, |row, now| Ok(row.leader(now)))
    }

    pub(super) fn watch(&self, name: &LockName, number: u64, events: Option<&Events>) {
        if let Some(events) = events {
            self.lock().watchers.entry(name.clone()).or_default().insert(number, events.clone());
        }
    }

    pub(super) fn unwatch(&self, name: &LockName, number: u64) {
        if let Some(watchers) = self.lock().watchers.get_mut(name) {
            watchers.remove(&number);
        }
    }

    /// All locks in use whose names begin like this.
    pub(super) fn list(&self, prefix: &str) -> Vec<LockState> {
        let now = Boottime::now();
        let state = self.lock();
        let all = state.rows.iter().filter(|(name, _)| name.as_str().starts_with(prefix));
        all.map(|(name, row)| row.state(name, now)).filter(LockState::is_in_use).collect()
    }

    pub(super) fn state(&self, name: &LockName) -> LockState {
        let state = self.lock();
        let row = state.rows.get(name);
        row.map_or_else(|| LockState::free(name.clone()), |row| row.state(name, Boottime::now()))
    }

    pub(super) fn break_lock(&self, name: &LockName, claim: Option<ClaimId>) -> Result<u32> {
        self.step(&mut self.lock(), name, |row, _| {
            let (broken, kept): (Vec<Held>, Vec<Held>) =
                row.held.drain(..).partition(|held| claim.is_none_or(|claim| held.grant.claim == claim));
            row.held = kept;
            for held in &broken {
                if let Some(events) = &held.events {
                    events.lost(name.clone(), held.grant.claim, None, LossReason::Revoked);
                }
            }
            Ok(u32::try_from(broken.len()).unwrap_or(u32::MAX))
        })
    }

    pub(super) fn revoke(&self, name: &LockName, claim: Option<ClaimId>) -> Result<u32> {
        self.step(&mut self.lock(), name, |row, _| {
            let asked = row.held.iter().filter(|held| claim.is_none_or(|claim| held.grant.claim == claim));
            let mut count = 0;
            for held in asked {
                if let Some(events) = &held.events {
                    events.asked(name.clone(), held.grant.claim);
                    count += 1;
                }
            }
            Ok(count)
        })
    }
}

impl State {
    fn tell_watchers(&self, name: &LockName) {
        for events in self.watchers.get(name).into_iter().flat_map(HashMap::values) {
            events.changed(name.clone());
        }
    }
}
