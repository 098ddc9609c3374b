//! What the emulated store can do beyond the exclusive lock, each step over the line.

use locks_api::LockName;
use locks_api::spi::{
    Claim, ClaimId, Downgrade, Grant, Inspect, Joint, Leader, LockState, Mode, Recovery, Released, Result,
    Schedule, Together, Values, async_trait,
};

use super::EmulatedBackend;

#[async_trait]
impl Recovery for EmulatedBackend {
    async fn grants(&self) -> Result<Vec<Grant>> {
        match self.instance.get() {
            Some(instance) => self.line.carry(|| self.store.grants(*instance)).await,
            None => Ok(Vec::new()),
        }
    }
}

#[async_trait]
impl Downgrade for EmulatedBackend {
    async fn downgrade(&self, grant: &Grant) -> Result<Released> {
        let done = self.line.carry(|| self.store.change(grant, |claim| claim.mode = Mode::Shared)).await?;
        Ok(if done { Released::Done } else { Released::NotHeld })
    }
}

#[async_trait]
impl Together for EmulatedBackend {
    async fn acquire_together(&self, claims: &[Claim]) -> Result<Joint> {
        self.listen(claims);
        let grants = self.line.carry(|| self.store.acquire_together(claims)).await?;
        self.compare_epoch();
        grants
    }
}

#[async_trait]
impl Schedule for EmulatedBackend {
    async fn complete(&self, grant: &Grant) -> Result<Released> {
        self.line.carry_release(|| self.store.release(grant, true)).await
    }
}

#[async_trait]
impl Values for EmulatedBackend {
    async fn publish(&self, grant: &Grant, value: &str) -> Result<Released> {
        let publish = |claim: &mut Claim| *claim = claim.clone().with_value(value);
        let done = self.line.carry(|| self.store.change(grant, publish)).await?;
        Ok(if done { Released::Done } else { Released::NotHeld })
    }

    async fn leader(&self, name: &LockName) -> Result<Option<Leader>> {
        self.line.carry(|| self.store.look(|data, now| data.leader(name, now))).await
    }

    async fn watch(&self, name: &LockName) -> Result<()> {
        let Some(events) = self.events.get() else { return Ok(()) };
        self.line.carry(|| self.store.watch(name, self.number, events.clone(), self.line.clone())).await
    }

    async fn unwatch(&self, name: &LockName) -> Result<()> {
        self.line.carry(|| self.store.unwatch(name, self.number)).await
    }
}

#[async_trait]
impl Inspect for EmulatedBackend {
    async fn state(&self, name: &LockName) -> Result<LockState> {
        let queue = self.store.emulation.queue;
        self.line.carry(|| self.store.look(|data, now| data.state(name, queue, now))).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>> {
        let queue = self.store.emulation.queue;
        self.line.carry(|| self.store.look(|data, now| data.list(prefix, queue, now))).await
    }

    async fn break_lock(&self, name: &LockName, claim: Option<ClaimId>) -> Result<u32> {
        self.line.carry(|| self.store.break_lock(name, claim)).await
    }

    async fn revoke(&self, name: &LockName, claim: Option<ClaimId>) -> Result<u32> {
        self.line.carry(|| self.store.ask_back(name, claim)).await
    }
}
