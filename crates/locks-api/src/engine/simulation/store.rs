//! The simulated store.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::busy::Busy;
use crate::clock::Boottime;
use crate::loss::LossReason;
use crate::name::LockName;
use crate::spi::{Attempt, Claim, ClaimId, Expiry, Grant, InstanceId, Released, Renewed, TokenBlock};

/// What a store can do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It grants at once after it has forgotten its grants.
    NoGrace,
    /// A renewal revives a grant that has expired.
    ResurrectingRenewal,
    /// Whoever releases frees the lock, whoever holds it.
    ReleaseByAnyone,
    /// After it has forgotten its counters it starts again from a smaller number.
    ReusedToken,
    /// It frees a lock without telling those who wait, and they are never asked to look.
    LostWakeUp,
}

impl Flaw {
    pub(super) const ALL: [Self; 5] = [
        Self::NoGrace,
        Self::ResurrectingRenewal,
        Self::ReleaseByAnyone,
        Self::ReusedToken,
        Self::LostWakeUp,
    ];

    /// How the violation that it leads to begins.
    pub(super) fn violates(self) -> &'static str {
        match self {
            Self::NoGrace | Self::ResurrectingRenewal | Self::ReleaseByAnyone => "exclusion",
            Self::ReusedToken => "token order",
            Self::LostWakeUp => "liveness",
        }
    }
}

/// What the store tells a process on its own.
#[derive(Clone, Debug)]
pub(super) enum Push {
    Granted(Grant, Option<Boottime>),
    Lost(LockName, ClaimId, LossReason),
}

#[derive(Clone, Debug)]
pub(super) struct Store {
    flaw: Option<Flaw>,
    queue: bool,
    /// Whether its pushes say when the grant was written, and hand it over for a short time only.
    tells_time: bool,
    grace: Duration,
    rows: BTreeMap<LockName, Row>,
    /// Counts the times it has forgotten something.
    pub(super) epoch: u64,
    grace_until: Boottime,
    pub(super) pushes: Vec<(InstanceId, Push)>,
}

#[derive(Clone, Debug, Default)]
struct Row {
    counter: Option<(u64, u64)>,
    held: Option<(Grant, InstanceId, Duration, Boottime)>,
    waiting: VecDeque<(Claim, Boottime)>,
}

impl Store {
    pub(super) fn new(flaw: Option<Flaw>, queue: bool, tells_time: bool, grace: Duration) -> Self {
        Self {
            flaw,
            queue,
            tells_time,
            grace,
            rows: BTreeMap::new(),
            epoch: 1,
            grace_until: Boottime::from_nanos(0),
            pushes: Vec::new(),
        }
    }

    /// Comes back with an older state, or with none.
    pub(super) fn forget(&mut self, restored: Option<Self>, now: Boottime) {
        self.rows = restored.map(|older| older.rows).unwrap_or_default();
        self.epoch += 1;
        if self.flaw != Some(Flaw::NoGrace) {
            self.grace_until = now.after(self.grace);
        }
    }

    pub(super) fn acquire(&mut self, claim: &Claim, now: Boottime) -> Attempt {
        self.reap(&claim.name, now);
        let ttl = claim.ttl.unwrap_or(self.grace);
        let row = self.rows.entry(claim.name.clone()).or_default();
        if let Some((grant, _, _, ends)) = &row.held
            && grant.claim == claim.id
        {
            return Attempt::Granted(Grant::new(claim, grant.tokens, Expiry::In(ends.since(now))));
        }
        if now < self.grace_until {
            return Attempt::Busy(Busy::Grace { remaining: self.grace_until.since(now) });
        }
        let place = row.waiting.iter().position(|(waiter, _)| waiter.id == claim.id);
        let Some(ends) = row.held.as_ref().map(|(_, _, _, ends)| *ends) else {
            if let Some(place) = place {
                row.waiting.remove(place);
            }
            return Attempt::Granted(self.grant(claim, ttl, ttl, now));
        };
        if !claim.may_wait || !self.queue {
            return Attempt::held(None);
        }
        let gone_at = now.after(ttl);
        match place {
            Some(place) => row.waiting[place].1 = gone_at,
            None => row.waiting.push_back((claim.clone(), gone_at)),
        }
        let check_in = (self.flaw != Some(Flaw::LostWakeUp))
            .then(|| ends.since(now).min(ttl / 3) + Duration::from_millis(1));
        Attempt::Queued { position: None, by: None, check_in }
    }

    pub(super) fn cancel(&mut self, claim: &Claim, now: Boottime) {
        let Some(row) = self.rows.get_mut(&claim.name) else { return };
        row.waiting.retain(|(waiter, _)| waiter.id != claim.id);
        if row.held.as_ref().is_some_and(|(grant, ..)| grant.claim == claim.id) {
            self.hand_over(&claim.name, now);
        }
    }

    pub(super) fn release(&mut self, grant: &Grant, now: Boottime) -> Released {
        let anyone = self.flaw == Some(Flaw::ReleaseByAnyone);
        match self.rows.get(&grant.name).and_then(|row| row.held.as_ref()) {
            Some((held, _, _, ends)) if held.is_same_as(grant) || anyone => {
                let live = *ends > now;
                self.hand_over(&grant.name, now);
                if live { Released::Done } else { Released::NotHeld }
            }
            _ => Released::NotHeld,
        }
    }

    pub(super) fn renew(&mut self, grant: &Grant, now: Boottime) -> Renewed {
        let (grace, flaw) = (now < self.grace_until, self.flaw);
        let held = self.rows.get_mut(&grant.name).and_then(|row| row.held.as_mut());
        match held {
            Some((held, _, ttl, ends)) if held.is_same_as(grant) && *ends > now => {
                *ends = now.after(*ttl);
                Renewed::Extended(Expiry::In(*ttl))
            }
            _ if flaw == Some(Flaw::ResurrectingRenewal) => Renewed::Extended(Expiry::In(self.grace)),
            Some((held, ..)) if held.is_same_as(grant) => Renewed::Lost(LossReason::Expired),
            _ => Renewed::Lost(if grace { LossReason::StoreReset } else { LossReason::Taken }),
        }
    }

    pub(super) fn grants(&self, instance: InstanceId) -> Vec<Grant> {
        let held = self.rows.values().filter_map(|row| row.held.as_ref());
        held.filter(|(_, owner, ..)| *owner == instance).map(|(grant, ..)| grant.clone()).collect()
    }

    /// Claims that hold or wait and have not expired.
    pub(super) fn live_claims(&self, now: Boottime) -> usize {
        let rows = self.rows.values();
        rows.map(|row| {
            usize::from(row.held.as_ref().is_some_and(|(_, _, _, ends)| *ends > now))
                + row.waiting.iter().filter(|(_, gone_at)| *gone_at > now).count()
        })
        .sum()
    }

    fn reap(&mut self, name: &LockName, now: Boottime) {
        let Some(row) = self.rows.get_mut(name) else { return };
        row.waiting.retain(|(_, gone_at)| *gone_at > now);
        let Some((grant, instance, _, ends)) = row.held.clone() else { return };
        if ends <= now {
            self.pushes.push((instance, Push::Lost(name.clone(), grant.claim, LossReason::Expired)));
            self.hand_over(name, now);
        }
    }

    fn hand_over(&mut self, name: &LockName, now: Boottime) {
        let Some(row) = self.rows.get_mut(name) else { return };
        row.held = None;
        row.waiting.retain(|(_, gone_at)| *gone_at > now);
        if now < self.grace_until {
            return;
        }
        let Some((next, _)) = row.waiting.pop_front() else { return };
        let ttl = next.ttl.unwrap_or(self.grace);
        let grant = self.grant(&next, ttl, if self.tells_time { ttl / 2 } else { ttl }, now);
        if self.flaw != Some(Flaw::LostWakeUp) {
            self.pushes.push((next.instance, Push::Granted(grant, self.tells_time.then_some(now))));
        }
    }

    fn grant(&mut self, claim: &Claim, ttl: Duration, life: Duration, now: Boottime) -> Grant {
        let (epoch, flaw) = (self.epoch, self.flaw);
        let row = self.rows.entry(claim.name.clone()).or_default();
        let clock = now.as_nanos() / 1_000;
        let tokens = match row.counter {
            Some((counter, written)) if written == epoch => TokenBlock::after(counter, clock),
            Some((counter, _)) if flaw == Some(Flaw::ReusedToken) => TokenBlock::after(counter, clock),
            None if flaw == Some(Flaw::ReusedToken) => TokenBlock::after(0, 100),
            counter => TokenBlock::without_counter(counter.map(|(counter, _)| counter), clock),
        };
        let tokens = tokens.expect("the simulation ends before the year 2255");
        let grant = Grant::new(claim, tokens, Expiry::In(life));
        row.counter = Some((tokens.last().get(), epoch));
        row.held = Some((grant.clone(), claim.instance, ttl, now.after(life)));
        grant
    }
}
