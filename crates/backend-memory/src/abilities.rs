//! What the memory backend can do beyond the exclusive lock: all there is.

use locks_api::spi::{
    Claim, ClaimId, Downgrade, Expiry, Grant, Inspect, Joint, Leader, LockState, Mode, Released, Result,
    Schedule, Together, Values, async_trait,
};
use locks_api::{Boottime, LockName, LossReason};

use crate::backend::{MemoryBackend, Rows};
use crate::row::Standing;

#[async_trait]
impl Downgrade for MemoryBackend {
    async fn downgrade(&self, grant: &Grant) -> Result<Released> {
        let mut rows = self.store.rows();
        let held = rows.by_name.get_mut(&grant.name).and_then(|row| row.held_mut(grant));
        let Some(held) = held else { return Ok(Released::NotHeld) };
        held.claim.mode = Mode::Shared;
        rows.freed(&grant.name).map(|()| Released::Done)
    }
}

#[async_trait]
impl Together for MemoryBackend {
    async fn acquire_together(&self, claims: &[Claim]) -> Result<Joint> {
        let now = Boottime::now();
        let mut rows = self.store.rows();
        for (at, claim) in claims.iter().enumerate() {
            let row = rows.by_name.entry(claim.name.clone()).or_default();
            if let Some(busy) = row.standing(claim, now)?.busy(row.holder()) {
                return Ok(Joint::Busy { at, busy });
            }
        }
        let Rows { by_name, watched, .. } = &mut *rows;
        let mut grants = Vec::with_capacity(claims.len());
        for claim in claims {
            let row = by_name.entry(claim.name.clone()).or_default();
            grants.push(match row.standing(claim, now)? {
                Standing::Holds(at) => row.held[at].grant.clone(),
                _ => row.grant(claim, 0, Expiry::Never, self.events.get().cloned(), now)?,
            });
            watched.changed(&claim.name);
        }
        Ok(Joint::Granted(grants))
    }
}

#[async_trait]
impl Schedule for MemoryBackend {
    async fn complete(&self, grant: &Grant) -> Result<Released> {
        self.store.rows().release(grant, true)
    }
}

#[async_trait]
impl Values for MemoryBackend {
    async fn publish(&self, grant: &Grant, value: &str) -> Result<Released> {
        let mut rows = self.store.rows();
        let held = rows.by_name.get_mut(&grant.name).and_then(|row| row.held_mut(grant));
        let Some(held) = held else { return Ok(Released::NotHeld) };
        held.publish(value);
        rows.watched.changed(&grant.name);
        Ok(Released::Done)
    }

    async fn leader(&self, name: &LockName) -> Result<Option<Leader>> {
        Ok(self.store.rows().by_name.get(name).and_then(|row| row.leader(|_| None)))
    }

    async fn watch(&self, name: &LockName) -> Result<()> {
        if let Some(events) = self.events.get() {
            self.store.rows().watched.watch(name, self.number, events.clone());
        }
        Ok(())
    }

    async fn unwatch(&self, name: &LockName) -> Result<()> {
        self.store.rows().watched.unwatch(name, self.number);
        Ok(())
    }
}

#[async_trait]
impl Inspect for MemoryBackend {
    async fn state(&self, name: &LockName) -> Result<LockState> {
        let now = Boottime::now();
        let rows = self.store.rows();
        let row = rows.by_name.get(name);
        Ok(row.map_or_else(|| LockState::free(name.clone()), |row| row.state(name, |_| None, now)))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>> {
        let now = Boottime::now();
        let rows = self.store.rows();
        let named = rows.by_name.iter().filter(|(name, _)| name.as_str().starts_with(prefix));
        let mut states: Vec<LockState> = named.map(|(name, row)| row.state(name, |_| None, now)).collect();
        states.retain(LockState::is_in_use);
        states.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(states)
    }

    async fn break_lock(&self, name: &LockName, claim: Option<ClaimId>) -> Result<u32> {
        let mut rows = self.store.rows();
        let Some(row) = rows.by_name.get_mut(name) else { return Ok(0) };
        let is_meant = |id: ClaimId| claim.is_none_or(|claim| claim == id);
        let (broken, kept) =
            std::mem::take(&mut row.held).into_iter().partition(|held| is_meant(held.claim.id));
        row.held = kept;
        let broken: Vec<_> = broken;
        for held in &broken {
            if let Some(events) = &held.beside {
                events.lost(name.clone(), held.claim.id, None, LossReason::Revoked);
            }
        }
        rows.freed(name)?;
        Ok(u32::try_from(broken.len()).unwrap_or(u32::MAX))
    }

    async fn revoke(&self, name: &LockName, claim: Option<ClaimId>) -> Result<u32> {
        let rows = self.store.rows();
        let held = rows.by_name.get(name).into_iter().flat_map(|row| &row.held);
        let mut reached = 0;
        for held in held.filter(|held| claim.is_none_or(|claim| claim == held.claim.id)) {
            if let Some(events) = &held.beside {
                events.asked(name.clone(), held.claim.id);
                reached += 1;
            }
        }
        Ok(reached)
    }
}
