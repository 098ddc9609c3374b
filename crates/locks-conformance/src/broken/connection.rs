//! A connection to the small store.

use std::sync::OnceLock;

use async_trait::async_trait;
use locks_api::spi::{
    Abilities, Attempt, Backend, Claim, ClaimId, Downgrade, Events, Grant, Guarantees, Inline, Inspect,
    Joint, Leader, LockState, Offer, Released, Renewed, Result, Schedule, Together, Values,
};
use locks_api::{Error, ErrorKind, LockName};

use super::store::Store;

/// A connection to a [`Store`]. It offers what its guarantees say.
#[derive(Debug)]
pub struct StoreBackend {
    pub(super) store: Store,
    pub(super) number: u64,
    pub(super) guarantees: Guarantees,
    pub(super) events: OnceLock<Events>,
}

impl StoreBackend {
    fn offers(&self, offer: Offer) -> bool {
        self.guarantees.offers.has(offer)
    }

    fn check(&self, offer: Offer) -> Result<()> {
        if self.offers(offer) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unsupported, format!("this connection does not offer {offer}")))
    }
}

impl Inline for StoreBackend {
    fn acquire(&self, claim: &Claim) -> Result<Attempt> {
        self.store.acquire(claim, self.events.get())
    }

    fn cancel(&self, claim: &Claim) -> Result<()> {
        self.store.cancel(claim)
    }

    fn release(&self, grant: &Grant) -> Result<Released> {
        self.store.release(grant, false)
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

    fn abilities(&self) -> Abilities<'_> {
        let mut abilities = Abilities::none();
        abilities.downgrade = self.offers(Offer::Downgrade).then_some(self);
        abilities.together = self.offers(Offer::Together).then_some(self);
        abilities.schedule = self.offers(Offer::Schedule).then_some(self);
        abilities.values = self.offers(Offer::Values).then_some(self);
        abilities.inspect = self.offers(Offer::Inspection).then_some(self);
        abilities
    }
}

#[async_trait]
impl Downgrade for StoreBackend {
    async fn downgrade(&self, grant: &Grant) -> Result<Released> {
        self.store.downgrade(grant)
    }
}

#[async_trait]
impl Together for StoreBackend {
    async fn acquire_together(&self, claims: &[Claim]) -> Result<Joint> {
        self.store.acquire_together(claims, self.events.get())
    }
}

#[async_trait]
impl Schedule for StoreBackend {
    async fn complete(&self, grant: &Grant) -> Result<Released> {
        self.store.release(grant, true)
    }
}

#[async_trait]
impl Values for StoreBackend {
    async fn publish(&self, grant: &Grant, value: &str) -> Result<Released> {
        self.store.publish(grant, value)
    }

    async fn leader(&self, name: &LockName) -> Result<Option<Leader>> {
        self.store.leader(name)
    }

    async fn watch(&self, name: &LockName) -> Result<()> {
        self.store.watch(name, self.number, self.events.get());
        Ok(())
    }

    async fn unwatch(&self, name: &LockName) -> Result<()> {
        self.store.unwatch(name, self.number);
        Ok(())
    }
}

#[async_trait]
impl Inspect for StoreBackend {
    async fn state(&self, name: &LockName) -> Result<LockState> {
        let mut state = self.store.state(name);
        if !self.offers(Offer::Waiters) {
            state.waiters = None;
        }
        Ok(state)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>> {
        let mut states = self.store.list(prefix);
        if !self.offers(Offer::Waiters) {
            states.iter_mut().for_each(|state| state.waiters = None);
        }
        Ok(states)
    }

    async fn break_lock(&self, name: &LockName, claim: Option<ClaimId>) -> Result<u32> {
        self.check(Offer::Breaking)?;
        self.store.break_lock(name, claim)
    }

    async fn revoke(&self, name: &LockName, claim: Option<ClaimId>) -> Result<u32> {
        self.check(Offer::Revoking)?;
        self.store.revoke(name, claim)
    }
}
