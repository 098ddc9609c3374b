//! The store's data and its atomic steps.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use locks_api::spi::{
    Attempt, Claim, ClaimId, Events, Expiry, Grant, InstanceId, Joint, Released, Renewed, Result, TtlLimits,
};
use locks_api::{Boottime, Busy, Error, ErrorKind, LockName, LossReason};

use super::data::{Data, Epoch};
use super::{EmulatedBackend, Line};
use crate::row::{Next, Standing};
use crate::watched::Watched;

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
        let data = Data { epoch: Some(epoch), ..Data::default() };
        let (listeners, watched) = (HashMap::new(), Watched::default());
        let state = State { run: 1, connections: 0, data, listeners, watched };
        Self { emulation: Arc::new(emulation), state: Arc::new(Mutex::new(state)) }
    }

    /// A backend over this store and the line between them.
    pub fn connect(&self) -> (EmulatedBackend, Line) {
        let number = self.state().count_connection();
        EmulatedBackend::new(self.clone(), number)
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

    /// Takes the lock from all who hold it, as an operator would.
    pub fn revoke(&self, name: &str) {
        let mut state = self.state();
        if let Some(name) = state.data.rows.keys().find(|row| row.as_str() == name).cloned() {
            self.take_from(&mut state, &name, None);
        }
    }

    /// How many claims hold or wait, of all processes; those that have expired do not count.
    pub fn claims(&self) -> usize {
        let state = self.state();
        let now = Boottime::now();
        let rows = state.data.rows.keys().filter_map(|name| state.data.live(name, now));
        rows.map(|row| row.held.len() + row.waiting.len()).sum()
    }

    /// The claim that holds the lock now, or the first of them.
    pub fn holder_of(&self, name: &str) -> Option<ClaimId> {
        let state = self.state();
        let row = state.data.rows.iter().find(|(row, _)| row.as_str() == name);
        row.and_then(|(_, row)| row.held.first()).map(|held| held.grant.claim)
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
        let mut claim = claim.clone();
        claim.may_wait &= self.emulation.queue;
        self.reap(&mut state, &claim.name, now);
        let data = &mut state.data;
        let row = data.rows.entry(claim.name.clone()).or_default();
        let standing = row.standing(&claim, now)?;
        let grace = now < epoch.grace_until && (row.held.is_empty() || matches!(standing, Standing::Next));
        match standing {
            Standing::Holds(at) => {
                let held = row.held[at].clone();
                let remaining = data.ends(&held.beside).since(now);
                Ok(Attempt::Granted(Grant::new(&claim, held.grant.tokens, Expiry::In(remaining))))
            }
            _ if grace => Ok(Attempt::Busy(Busy::Grace { remaining: epoch.grace_until.since(now) })),
            Standing::Next => {
                let grant = data.grant(&claim, &self.emulation, now)?;
                state.tell_watchers(&claim.name);
                Ok(Attempt::Granted(grant))
            }
            Standing::NotDue(remaining) => Ok(Attempt::Busy(Busy::NotDue { remaining })),
            Standing::Behind(_) if !claim.may_wait => Ok(Attempt::held(row.holder())),
            Standing::Behind(ahead) => {
                if ahead >= self.emulation.queue_limit {
                    return Err(Error::new(ErrorKind::StoreFull, "the queue is full"));
                }
                let ttl = self.emulation.ttl_of(&claim);
                row.wait(&claim, ahead, now.after(ttl));
                let (by, due_in) = (row.holder(), row.due_in(now));
                let first_end = row.held.iter().map(|held| data.leases.ends(&held.beside)).min();
                let until = first_end.map_or(ttl, |end| end.since(now)).min(ttl / 3);
                let check_in = due_in.map_or(until, |due_in| until.min(due_in)) + Duration::from_millis(1);
                Ok(Attempt::Queued { position: u64::try_from(ahead).ok(), by, check_in: Some(check_in) })
            }
        }
    }

    /// All of these claims or none.
    pub(super) fn acquire_together(&self, claims: &[Claim]) -> Result<Joint> {
        let now = Boottime::now();
        let mut state = self.state();
        let epoch = state.epoch(self.emulation.ttl.max, now);
        for (at, claim) in claims.iter().enumerate() {
            self.reap(&mut state, &claim.name, now);
            let row = state.data.rows.entry(claim.name.clone()).or_default();
            let busy = match row.standing(claim, now)? {
                Standing::Next if now < epoch.grace_until => {
                    Some(Busy::Grace { remaining: epoch.grace_until.since(now) })
                }
                standing => standing.busy(row.holder()),
            };
            if let Some(busy) = busy {
                return Ok(Joint::Busy { at, busy });
            }
        }
        let mut grants = Vec::with_capacity(claims.len());
        for claim in claims {
            let row = state.data.rows.get(&claim.name);
            let known = row.and_then(|row| row.held.iter().find(|held| held.claim.id == claim.id));
            grants.push(match known {
                Some(held) => {
                    let remaining = state.data.ends(&held.beside).since(now);
                    Grant::new(claim, held.grant.tokens, Expiry::In(remaining))
                }
                None => state.data.grant(claim, &self.emulation, now)?,
            });
            state.tell_watchers(&claim.name);
        }
        Ok(Joint::Granted(grants))
    }

    pub(super) fn cancel(&self, claim: &Claim) {
        let now = Boottime::now();
        let mut state = self.state();
        let row = state.data.rows.get_mut(&claim.name);
        if row.is_some_and(|row| row.cancel(claim.id)) {
            self.freed(&mut state, &claim.name, now);
        }
    }

    pub(super) fn release(&self, grant: &Grant, completed: bool) -> Released {
        let now = Boottime::now();
        let mut state = self.state();
        let live = state.data.held(grant).is_some_and(|held| state.data.ends(&held.beside) > now);
        let row = state.data.rows.get_mut(&grant.name);
        if row.and_then(|row| row.release(grant, completed && live)).is_none() {
            return Released::NotHeld;
        }
        self.freed(&mut state, &grant.name, now);
        if live { Released::Done } else { Released::NotHeld }
    }

    pub(super) fn renew(&self, grant: &Grant) -> Renewed {
        let now = Boottime::now();
        let mut state = self.state();
        let epoch = state.epoch(self.emulation.ttl.max, now);
        let Some(held) = state.data.held(grant) else {
            let forgotten = now < epoch.grace_until;
            return Renewed::Lost(if forgotten { LossReason::StoreReset } else { LossReason::Taken });
        };
        let (ttl, ends) = (self.emulation.ttl_of(&held.claim), held.beside);
        if state.data.ends(&ends) <= now {
            return Renewed::Lost(LossReason::Expired);
        }
        state.data.extend(grant, now.after(ttl));
        Renewed::Extended(Expiry::In(ttl))
    }

    /// Changes a grant that holds. False if it does not.
    pub(super) fn change(&self, grant: &Grant, change: impl FnOnce(&mut Claim)) -> bool {
        let now = Boottime::now();
        let mut state = self.state();
        if state.data.held(grant).is_none_or(|held| state.data.ends(&held.beside) <= now) {
            return false;
        }
        if let Some(held) = state.data.rows.get_mut(&grant.name).and_then(|row| row.held_mut(grant)) {
            change(&mut held.claim);
        }
        self.hand_over(&mut state, &grant.name, now);
        true
    }

    pub(super) fn break_lock(&self, name: &LockName, claim: Option<ClaimId>) -> u32 {
        self.take_from(&mut self.state(), name, claim)
    }

    pub(super) fn ask_back(&self, name: &LockName, claim: Option<ClaimId>) -> u32 {
        let state = self.state();
        let Some(row) = state.data.live(name, Boottime::now()) else { return 0 };
        let meant = row.held.iter().filter(|held| claim.is_none_or(|claim| claim == held.claim.id));
        let told = meant.filter(|held| {
            state.tell(held.claim.instance, |events| events.asked(name.clone(), held.claim.id))
        });
        u32::try_from(told.count()).unwrap_or(u32::MAX)
    }

    /// What the store knows, for those who only look.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Data, Boottime) -> T) -> T {
        look(&self.state().data, Boottime::now())
    }

    pub(super) fn watch(&self, name: &LockName, who: u64, events: Events, line: Line) {
        self.state().watched.watch(name, who, (events, line));
    }

    pub(super) fn unwatch(&self, name: &LockName, who: u64) {
        self.state().watched.unwatch(name, who);
    }

    pub(super) fn leave(&self, who: u64) {
        self.state().watched.leave(who);
    }

    pub(super) fn grants(&self, instance: InstanceId) -> Vec<Grant> {
        let state = self.state();
        let held = state.data.rows.values().flat_map(|row| &row.held);
        held.filter(|held| held.claim.instance == instance).map(|held| held.grant.clone()).collect()
    }

    /// Ends the grants of those who have expired, and drops waiters that have gone.
    fn reap(&self, state: &mut State, name: &LockName, now: Boottime) {
        let State { data, .. } = state;
        let Data { rows, leases, .. } = data;
        let Some(row) = rows.get_mut(name) else { return };
        row.waiting.retain(|waiter| waiter.beside > now);
        let (live, expired): (Vec<_>, Vec<_>) =
            std::mem::take(&mut row.held).into_iter().partition(|held| leases.ends(&held.beside) > now);
        row.held = live;
        // A minimum hold may be over, too.
        let may_move = !expired.is_empty() || !row.waiting.is_empty();
        for held in expired {
            state.tell(held.claim.instance, |events| {
                events.lost(name.clone(), held.claim.id, None, LossReason::Expired);
            });
        }
        if may_move {
            self.hand_over(state, name, now);
        }
    }

    /// Grants the lock to the next live waiters, as long as it can be shared.
    fn hand_over(&self, state: &mut State, name: &LockName, now: Boottime) {
        let epoch = state.epoch(self.emulation.ttl.max, now);
        let Some(row) = state.data.rows.get_mut(name) else { return };
        row.waiting.retain(|waiter| waiter.beside > now);
        // Nothing is granted in the grace: those who wait ask again.
        while now >= epoch.grace_until
            && let Some(next) = state.data.rows.get_mut(name).and_then(|row| row.take_next(now))
        {
            match next {
                Next::Granted(waiter) => {
                    if let Ok(grant) = state.data.grant(&waiter.claim, &self.emulation, now) {
                        state.tell(waiter.claim.instance, |events| events.granted(grant, None));
                    }
                }
                Next::NotDue(waiter) => {
                    state.tell(waiter.claim.instance, |events| events.hint(name.clone()));
                }
            }
        }
        state.tell_watchers(name);
    }

    /// Somebody holds it no more: whoever is next gets it, or is to learn when it is due.
    fn freed(&self, state: &mut State, name: &LockName, now: Boottime) {
        self.hand_over(state, name, now);
        if let Some(row) = state.data.rows.get(name).filter(|row| row.due_in(now).is_some()) {
            for waiter in &row.waiting {
                state.tell(waiter.claim.instance, |events| events.hint(name.clone()));
            }
        }
    }

    fn take_from(&self, state: &mut State, name: &LockName, claim: Option<ClaimId>) -> u32 {
        let now = Boottime::now();
        self.reap(state, name, now);
        let Some(row) = state.data.rows.get_mut(name) else { return 0 };
        let is_meant = |id: ClaimId| claim.is_none_or(|claim| claim == id);
        let (broken, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut row.held).into_iter().partition(|held| is_meant(held.claim.id));
        row.held = kept;
        for held in &broken {
            state.tell(held.claim.instance, |events| {
                events.lost(name.clone(), held.claim.id, None, LossReason::Revoked);
            });
        }
        self.freed(state, name, now);
        u32::try_from(broken.len()).unwrap_or(u32::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Emulation {
    /// The ttl of a claim.
    pub(super) fn ttl_of(&self, claim: &Claim) -> Duration {
        claim.ttl.unwrap_or(self.ttl.default)
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
    /// How many backends were made.
    connections: u64,
    data: Data,
    /// What is said on a line that is down is lost.
    listeners: HashMap<InstanceId, (Events, Line)>,
    watched: Watched<(Events, Line)>,
}

impl State {
    /// The number of the next backend.
    fn count_connection(&mut self) -> u64 {
        self.connections += 1;
        self.connections
    }

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

    /// Says something to a process. False if it can't be reached.
    fn tell(&self, instance: InstanceId, say: impl FnOnce(&Events)) -> bool {
        match self.listeners.get(&instance) {
            Some((events, line)) if line.is_up() => {
                say(events);
                true
            }
            _ => false,
        }
    }

    fn tell_watchers(&self, name: &LockName) {
        for (events, line) in self.watched.of(name) {
            if line.is_up() {
                events.changed(name.clone());
            }
        }
    }
}
