//! The store's data and its atomic steps.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use locks_api::spi::{
    Attempt, Claim, ClaimId, Events, Expiry, Grant, InstanceId, LeaseId, Released, Renewed, Result,
    TokenBlock, TtlLimits,
};
use locks_api::{Boottime, Busy, Error, ErrorKind, LockName, LossReason};

use super::{EmulatedBackend, Line};

/// What kind of store is emulated.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a test names what it wants and takes the rest from the default"
)]
pub struct Emulation {
    /// Its ttls.
    pub ttl: TtlLimits,
    /// What expires: each grant, or a lease that carries all grants of a process.
    pub carrier: Carrier,
    /// Whether claims can wait in the store; if not, the engine asks again and again.
    pub queue: bool,
    /// How many claims wait behind one lock at most, beyond which the store says it is full.
    pub queue_limit: usize,
}

impl Default for Emulation {
    /// Grants that expire by themselves after 1.2 s (0.1 to 5 s), and a queue.
    fn default() -> Self {
        let [min, default, max] = [100, 1_200, 5_000].map(Duration::from_millis);
        Self {
            ttl: TtlLimits::new(min, default, max),
            carrier: Carrier::Grant,
            queue: true,
            queue_limit: usize::MAX,
        }
    }
}

/// What expires in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "stores do one or the other")]
pub enum Carrier {
    /// Every grant for itself, as on Redis.
    Grant,
    /// A lease that carries all grants of a process, as on etcd.
    Lease,
}

/// What a crash does to the store's data.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "there is nothing else that can happen to data")]
pub enum Crash {
    /// All of it is there again, and the store knows that.
    Keeping,
    /// All of it is gone.
    Forgetting,
    /// An older state is back.
    Restoring(Snapshot),
}

/// The state of a store at one moment, as a dump or a lagging replica has it.
#[derive(Clone, Debug)]
pub struct Snapshot(Data);

/// A store that [`EmulatedBackend`]s connect to.
#[derive(Clone)]
pub struct EmulatedStore {
    pub(super) emulation: Arc<Emulation>,
    state: Arc<Mutex<State>>,
}

impl EmulatedStore {
    /// An empty store that is known to be new, so that it needs no grace.
    pub fn new(emulation: Emulation) -> Self {
        let epoch = Epoch { id: 1, run: 1, grace_until: Boottime::from_nanos(0) };
        let state =
            State { run: 1, data: Data { epoch: Some(epoch), ..Data::default() }, listeners: HashMap::new() };
        Self { emulation: Arc::new(emulation), state: Arc::new(Mutex::new(state)) }
    }

    /// A backend over this store and the line between them.
    pub fn connect(&self) -> (EmulatedBackend, Line) {
        EmulatedBackend::new(self.clone())
    }

    /// Crashes and comes back at once.
    pub fn crash(&self, crash: Crash) {
        let mut state = self.state();
        state.run += 1;
        let run = state.run;
        match crash {
            Crash::Keeping => {
                if let Some(epoch) = &mut state.data.epoch {
                    epoch.run = run;
                }
            }
            Crash::Forgetting => state.data = Data::default(),
            Crash::Restoring(Snapshot(data)) => state.data = data,
        }
        drop(state);
        self.resync();
    }

    /// What a restore after a [`Crash`] would bring back.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.state().data.clone())
    }

    /// Takes the lock from its holder, as an operator would.
    pub fn revoke(&self, name: &str) {
        let mut state = self.state();
        let held = state
            .data
            .rows
            .iter()
            .find_map(|(row, value)| (row.as_str() == name).then(|| value.held.clone()).flatten());
        let Some(held) = held else { return };
        state.tell(held.instance, |events| {
            events.lost(held.grant.name.clone(), held.grant.claim, LossReason::Revoked);
        });
        self.hand_over(&mut state, &held.grant.name, Boottime::now());
    }

    /// How many claims hold or wait, of all processes; those that have expired do not count.
    pub fn claims(&self) -> usize {
        let state = self.state();
        let now = Boottime::now();
        state
            .data
            .rows
            .values()
            .map(|row| {
                usize::from(row.held.as_ref().is_some_and(|held| state.data.ends(held) > now))
                    + row.waiting.iter().filter(|waiter| waiter.gone_at > now).count()
            })
            .sum()
    }

    /// The claim that holds the lock now.
    pub fn holder_of(&self, name: &str) -> Option<ClaimId> {
        let state = self.state();
        let row = state.data.rows.iter().find(|(row, _)| row.as_str() == name);
        row.and_then(|(_, row)| row.held.as_ref()).map(|held| held.grant.claim)
    }

    /// Tells all listeners that they may have missed something.
    pub(super) fn resync(&self) {
        for (events, line) in self.state().listeners.values() {
            if line.is_up() {
                events.resync();
            }
        }
    }

    pub(super) fn listen(&self, instance: InstanceId, events: &Events, line: &Line) {
        self.state().listeners.entry(instance).or_insert_with(|| (events.clone(), line.clone()));
    }

    pub(super) fn stop_listening(&self, instance: InstanceId) {
        self.state().listeners.remove(&instance);
    }

    /// The store's present epoch; a crash that lost data, or may have, starts a new one with a grace.
    pub(super) fn epoch(&self) -> u64 {
        self.state().epoch(self.emulation.ttl.max, Boottime::now()).id
    }

    pub(super) fn acquire(&self, claim: &Claim) -> Result<Attempt> {
        let now = Boottime::now();
        let mut state = self.state();
        let epoch = state.epoch(self.emulation.ttl.max, now);
        self.reap(&mut state, &claim.name, now);
        if let Some(held) = state.data.rows.get(&claim.name).and_then(|row| row.held.as_ref()) {
            if held.grant.claim == claim.id {
                let remaining = state.data.ends(held).since(now);
                return Ok(Attempt::Granted(Grant::new(claim, held.grant.tokens, Expiry::In(remaining))));
            }
        } else if now < epoch.grace_until {
            return Ok(Attempt::Busy(Busy::Grace { remaining: epoch.grace_until.since(now) }));
        }
        let ttl = claim.ttl.unwrap_or(self.emulation.ttl.default);
        let row = state.data.rows.entry(claim.name.clone()).or_default();
        let ahead =
            row.waiting.iter().position(|waiter| waiter.claim.id == claim.id).unwrap_or(row.waiting.len());
        let Some(held) = row.held.clone() else {
            // Free, with nobody before it: whoever was first in the queue was granted when it became free.
            row.waiting.retain(|waiter| waiter.claim.id != claim.id);
            return state.grant(claim, self.emulation.carrier, ttl, now).map(Attempt::Granted);
        };
        if !claim.may_wait || !self.emulation.queue {
            return Ok(Attempt::held(Some(held.holder)));
        }
        if ahead == row.waiting.len() {
            if ahead >= self.emulation.queue_limit {
                return Err(Error::new(ErrorKind::StoreFull, "the queue is full"));
            }
            row.waiting.push_back(Waiter { claim: claim.clone(), gone_at: now.after(ttl) });
        } else {
            row.waiting[ahead].gone_at = now.after(ttl);
        }
        let check_in = state.data.ends(&held).since(now).min(ttl / 3) + Duration::from_millis(1);
        Ok(Attempt::Queued {
            position: u64::try_from(ahead).ok(),
            by: Some(held.holder),
            check_in: Some(check_in),
        })
    }

    pub(super) fn cancel(&self, claim: &Claim) {
        let now = Boottime::now();
        let mut state = self.state();
        let Some(row) = state.data.rows.get_mut(&claim.name) else { return };
        row.waiting.retain(|waiter| waiter.claim.id != claim.id);
        if row.held.as_ref().is_some_and(|held| held.grant.claim == claim.id) {
            self.hand_over(&mut state, &claim.name, now);
        }
    }

    pub(super) fn release(&self, grant: &Grant) -> Released {
        let now = Boottime::now();
        let mut state = self.state();
        let row = state.data.rows.get(&grant.name);
        match row.and_then(|row| row.held.as_ref()) {
            Some(held) if held.grant.is_same_as(grant) => {
                let live = state.data.ends(held) > now;
                self.hand_over(&mut state, &grant.name, now);
                if live { Released::Done } else { Released::NotHeld }
            }
            _ => Released::NotHeld,
        }
    }

    pub(super) fn renew(&self, grant: &Grant) -> Renewed {
        let now = Boottime::now();
        let mut state = self.state();
        let epoch = state.epoch(self.emulation.ttl.max, now);
        let held = state.data.rows.get(&grant.name).and_then(|row| row.held.clone());
        let Some(held) = held.filter(|held| held.grant.is_same_as(grant)) else {
            let forgotten = now < epoch.grace_until;
            return Renewed::Lost(if forgotten { LossReason::StoreReset } else { LossReason::Taken });
        };
        if state.data.ends(&held) <= now {
            return Renewed::Lost(LossReason::Expired);
        }
        let later = now.after(held.ttl);
        if let Ends::With(instance, lease) = held.ends {
            state.data.leases.insert((instance, lease), later);
        } else if let Some(held) = state.data.rows.get_mut(&grant.name).and_then(|row| row.held.as_mut()) {
            held.ends = Ends::At(later);
        }
        Renewed::Extended(Expiry::In(held.ttl))
    }

    pub(super) fn grants(&self, instance: InstanceId) -> Vec<Grant> {
        let state = self.state();
        state
            .data
            .rows
            .values()
            .filter_map(|row| row.held.as_ref().filter(|held| held.instance == instance))
            .map(|held| held.grant.clone())
            .collect()
    }

    /// Frees the lock if its holder has expired, and drops waiters that have gone.
    fn reap(&self, state: &mut State, name: &LockName, now: Boottime) {
        let Some(row) = state.data.rows.get_mut(name) else { return };
        row.waiting.retain(|waiter| waiter.gone_at > now);
        let Some(held) = row.held.clone() else { return };
        if state.data.ends(&held) <= now {
            state.tell(held.instance, |events| {
                events.lost(name.clone(), held.grant.claim, LossReason::Expired);
            });
            self.hand_over(state, name, now);
        }
    }

    /// Takes the lock from its holder and gives it to the next live waiter.
    fn hand_over(&self, state: &mut State, name: &LockName, now: Boottime) {
        let epoch = state.epoch(self.emulation.ttl.max, now);
        let Some(row) = state.data.rows.get_mut(name) else { return };
        row.held = None;
        row.waiting.retain(|waiter| waiter.gone_at > now);
        if now < epoch.grace_until {
            // Nothing is granted in the grace: those who wait ask again.
            return;
        }
        let Some(next) = row.waiting.pop_front() else { return };
        let ttl = next.claim.ttl.unwrap_or(self.emulation.ttl.default);
        if let Ok(grant) = state.grant(&next.claim, self.emulation.carrier, ttl, now) {
            state.tell(next.claim.instance, |events| events.granted(grant, None));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for EmulatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmulatedStore").field("emulation", &self.emulation).finish_non_exhaustive()
    }
}

/// The running store: its data, and what does not survive a crash.
struct State {
    /// Counts its starts.
    run: u64,
    data: Data,
    /// What is said on a line that is down is lost.
    listeners: HashMap<InstanceId, (Events, Line)>,
}

#[derive(Clone, Debug, Default)]
struct Data {
    epoch: Option<Epoch>,
    rows: HashMap<LockName, Row>,
    leases: HashMap<(InstanceId, LeaseId), Boottime>,
}

/// Lives beside the grants, so that it dies with them.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    id: u64,
    run: u64,
    grace_until: Boottime,
}

#[derive(Clone, Debug, Default)]
struct Row {
    /// The last token, and the epoch in which it was written.
    counter: Option<(u64, u64)>,
    held: Option<Held>,
    waiting: VecDeque<Waiter>,
}

#[derive(Clone, Debug)]
struct Held {
    grant: Grant,
    instance: InstanceId,
    holder: locks_api::Holder,
    ttl: Duration,
    ends: Ends,
}

/// What decides when a grant ends unless it is renewed.
#[derive(Clone, Copy, Debug)]
enum Ends {
    At(Boottime),
    With(InstanceId, LeaseId),
}

#[derive(Clone, Debug)]
struct Waiter {
    claim: Claim,
    /// When it counts as dead unless it asks again.
    gone_at: Boottime,
}

impl State {
    /// The present epoch. Every granting step reads it in the same step.
    fn epoch(&mut self, grace: Duration, now: Boottime) -> Epoch {
        match self.data.epoch {
            Some(epoch) if epoch.run == self.run => epoch,
            _ => {
                let epoch = Epoch { id: self.run, run: self.run, grace_until: now.after(grace) };
                self.data.epoch = Some(epoch);
                epoch
            }
        }
    }

    fn grant(&mut self, claim: &Claim, carrier: Carrier, ttl: Duration, now: Boottime) -> Result<Grant> {
        let epoch = self.data.epoch.map_or(0, |epoch| epoch.id);
        let (ends, remaining) = match carrier {
            Carrier::Grant => (Ends::At(now.after(ttl)), ttl),
            Carrier::Lease => {
                // A lease that has expired is dead for ever; a claim on it starts it anew.
                let known = self.data.leases.get(&(claim.instance, claim.lease)).copied();
                let until = known.filter(|until| *until > now).unwrap_or(now.after(ttl));
                self.data.leases.insert((claim.instance, claim.lease), until);
                (Ends::With(claim.instance, claim.lease), until.since(now))
            }
        };
        let row = self.data.rows.entry(claim.name.clone()).or_default();
        let wall = SystemTime::now();
        let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let clock = u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX);
        let tokens = match row.counter {
            Some((counter, written)) if written == epoch => TokenBlock::after(counter, clock),
            Some((counter, _)) => TokenBlock::without_counter(Some(counter), clock),
            None => TokenBlock::without_counter(None, clock),
        };
        let tokens =
            tokens.ok_or_else(|| Error::new(ErrorKind::StoreFull, "the fencing tokens are used up"))?;
        let grant = Grant::new(claim, tokens, Expiry::In(remaining));
        row.counter = Some((tokens.last().get(), epoch));
        row.held = Some(Held {
            grant: grant.clone(),
            instance: claim.instance,
            holder: (*claim.holder).clone().with_since(wall),
            ttl,
            ends,
        });
        Ok(grant)
    }

    fn tell(&self, instance: InstanceId, say: impl FnOnce(&Events)) {
        if let Some((events, line)) = self.listeners.get(&instance)
            && line.is_up()
        {
            say(events);
        }
    }
}

impl Data {
    /// When a grant ends unless it is renewed.
    fn ends(&self, held: &Held) -> Boottime {
        match held.ends {
            Ends::At(ends) => ends,
            Ends::With(instance, lease) => {
                self.leases.get(&(instance, lease)).copied().unwrap_or(Boottime::from_nanos(0))
            }
        }
    }
}
