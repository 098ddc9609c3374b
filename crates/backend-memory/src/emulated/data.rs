//! What an emulated store has on its disk.

use std::collections::HashMap;
use std::time::Duration;

use locks_api::spi::{Claim, Expiry, Grant, InstanceId, Leader, LeaseId, LockState, Result};
use locks_api::{Boottime, LockName};

use super::store::{Carrier, Emulation};
use crate::row::{Held, Row};

#[derive(Clone, Debug, Default)]
pub(super) struct Data {
    pub(super) epoch: Option<Epoch>,
    /// Beside each holder, what decides when it ends; beside each waiter, when it counts as dead unless it asks again.
    pub(super) rows: HashMap<LockName, Row<Ends, Boottime>>,
    pub(super) leases: Leases,
}

/// Lives beside the grants, so that it dies with them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch {
    pub(super) id: u64,
    pub(super) run: u64,
    pub(super) grace_until: Boottime,
}

/// What decides when a grant ends unless it is renewed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ends {
    At(Boottime),
    With(InstanceId, LeaseId),
}

/// When the leases of all processes end.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases(HashMap<(InstanceId, LeaseId), Boottime>);

impl Leases {
    /// When a grant ends unless it is renewed.
    pub(super) fn ends(&self, ends: &Ends) -> Boottime {
        match ends {
            Ends::At(ends) => *ends,
            Ends::With(instance, lease) => {
                self.0.get(&(*instance, *lease)).copied().unwrap_or(Boottime::from_nanos(0))
            }
        }
    }
}

impl Data {
    /// When a grant ends unless it is renewed.
    pub(super) fn ends(&self, ends: &Ends) -> Boottime {
        self.leases.ends(ends)
    }

    /// The holder with this very grant, whether or not it has expired.
    pub(super) fn held(&self, grant: &Grant) -> Option<&Held<Ends>> {
        self.rows.get(&grant.name)?.held.iter().find(|held| held.grant.is_same_as(grant))
    }

    /// The lock without those who have expired.
    pub(super) fn live(&self, name: &LockName, now: Boottime) -> Option<Row<Ends, Boottime>> {
        let mut row = self.rows.get(name)?.clone();
        row.held.retain(|held| self.ends(&held.beside) > now);
        row.waiting.retain(|waiter| waiter.beside > now);
        Some(row)
    }

    /// What is known of a lock; without a `queue`, nothing of those who wait.
    pub(super) fn state(&self, name: &LockName, queue: bool, now: Boottime) -> LockState {
        let row = self.live(name, now);
        let remaining = |ends: &Ends| Some(self.ends(ends).since(now));
        let mut state =
            row.map_or_else(|| LockState::free(name.clone()), |row| row.state(name, remaining, now));
        state.waiters = state.waiters.filter(|_| queue);
        state
    }

    pub(super) fn list(&self, prefix: &str, queue: bool, now: Boottime) -> Vec<LockState> {
        let names = self.rows.keys().filter(|name| name.as_str().starts_with(prefix));
        let mut states: Vec<LockState> = names.map(|name| self.state(name, queue, now)).collect();
        states.retain(LockState::is_in_use);
        states.sort_by(|one, other| one.name.cmp(&other.name));
        states
    }

    pub(super) fn leader(&self, name: &LockName, now: Boottime) -> Option<Leader> {
        self.live(name, now)?.leader(|ends| Some(self.ends(ends).since(now)))
    }

    /// Grants the lock to a claim that is known to be next.
    pub(super) fn grant(&mut self, claim: &Claim, emulation: &Emulation, now: Boottime) -> Result<Grant> {
        let ttl = emulation.ttl_of(claim);
        let (ends, remaining) = self.start(claim, emulation.carrier, ttl, now);
        let epoch = self.epoch.map_or(0, |epoch| epoch.id);
        let row = self.rows.entry(claim.name.clone()).or_default();
        row.grant(claim, epoch, Expiry::In(remaining), ends, now)
    }

    fn start(&mut self, claim: &Claim, carrier: Carrier, ttl: Duration, now: Boottime) -> (Ends, Duration) {
        match carrier {
            Carrier::Grant => (Ends::At(now.after(ttl)), ttl),
            Carrier::Lease => {
                let lease = (claim.instance, claim.lease);
                // A lease that has expired is dead for ever; a claim on it starts it anew.
                let known = self.leases.0.get(&lease).copied();
                let until = known.filter(|until| *until > now).unwrap_or(now.after(ttl));
                self.leases.0.insert(lease, until);
                (Ends::With(claim.instance, claim.lease), until.since(now))
            }
        }
    }

    /// Moves the end of a grant.
    pub(super) fn extend(&mut self, grant: &Grant, later: Boottime) {
        let Some(held) = self.rows.get_mut(&grant.name).and_then(|row| row.held_mut(grant)) else { return };
        match held.beside {
            Ends::At(_) => held.beside = Ends::At(later),
            Ends::With(instance, lease) => {
                self.leases.0.insert((instance, lease), later);
            }
        }
    }
}
