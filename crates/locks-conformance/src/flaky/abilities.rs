//! What a backend can do beyond the exclusive lock, over the same bad connection.

use async_trait::async_trait;
use locks_api::spi::{
    Abilities, Backend as _, Claim, ClaimId, Downgrade, Grant, Inspect, Joint, Leader, LockState, Recovery,
    Released, Result as StepResult, Schedule, Together, Values,
};
use locks_api::{Error, ErrorKind, LockName};

use super::Flaky;

impl Flaky {
    /// What is there, is there over a bad connection, too.
    pub(super) fn abilities_of_inner(&self) -> Abilities<'_> {
        let inner = self.inner.abilities();
        let mut abilities = Abilities::none();
        abilities.recovery = inner.recovery.map(|_| self as &dyn Recovery);
        abilities.downgrade = inner.downgrade.map(|_| self as &dyn Downgrade);
        abilities.together = inner.together.map(|_| self as &dyn Together);
        abilities.schedule = inner.schedule.map(|_| self as &dyn Schedule);
        abilities.values = inner.values.map(|_| self as &dyn Values);
        abilities.inspect = inner.inspect.map(|_| self as &dyn Inspect);
        abilities
    }
}

/// Does a step of an ability over the bad connection: as often as it arrives, and its last answer may get lost.
macro_rules! over_the_line {
    ($self:ident.$ability:ident.$step:ident($($argument:expr),*)) => {{
        let arrivals = $self.control.arrivals()?;
        let Some(ability) = $self.inner.abilities().$ability else { return Err(lacking()) };
        for _ in 1..arrivals {
            $self.control.answer(ability.$step($($argument),*).await)?;
        }
        $self.control.answer(ability.$step($($argument),*).await)
    }};
}

fn lacking() -> Error {
    Error::new(ErrorKind::Unsupported, "the backend behind the bad connection lacks it")
}

#[async_trait]
impl Recovery for Flaky {
    async fn grants(&self) -> StepResult<Vec<Grant>> {
        over_the_line!(self.recovery.grants())
    }
}

#[async_trait]
impl Downgrade for Flaky {
    async fn downgrade(&self, grant: &Grant) -> StepResult<Released> {
        over_the_line!(self.downgrade.downgrade(grant))
    }
}

#[async_trait]
impl Together for Flaky {
    async fn acquire_together(&self, claims: &[Claim]) -> StepResult<Joint> {
        over_the_line!(self.together.acquire_together(claims))
    }
}

#[async_trait]
impl Schedule for Flaky {
    async fn complete(&self, grant: &Grant) -> StepResult<Released> {
        let arrivals = self.control.arrivals()?;
        let Some(schedule) = self.inner.abilities().schedule else { return Err(lacking()) };
        let answer = schedule.complete(grant).await;
        if arrivals > 1 {
            // The second arrival finds nothing to complete; the first answer is the one that counts.
            schedule.complete(grant).await?;
        }
        self.control.answer(answer)
    }
}

#[async_trait]
impl Values for Flaky {
    async fn publish(&self, grant: &Grant, value: &str) -> StepResult<Released> {
        over_the_line!(self.values.publish(grant, value))
    }

    async fn leader(&self, name: &LockName) -> StepResult<Option<Leader>> {
        over_the_line!(self.values.leader(name))
    }

    async fn watch(&self, name: &LockName) -> StepResult<()> {
        over_the_line!(self.values.watch(name))
    }

    async fn unwatch(&self, name: &LockName) -> StepResult<()> {
        over_the_line!(self.values.unwatch(name))
    }
}

#[async_trait]
impl Inspect for Flaky {
    async fn state(&self, name: &LockName) -> StepResult<LockState> {
        over_the_line!(self.inspect.state(name))
    }

    async fn list(&self, prefix: &str) -> StepResult<Vec<LockState>> {
        over_the_line!(self.inspect.list(prefix))
    }

    async fn break_lock(&self, name: &LockName, claim: Option<ClaimId>) -> StepResult<u32> {
        over_the_line!(self.inspect.break_lock(name, claim))
    }

    async fn revoke(&self, name: &LockName, claim: Option<ClaimId>) -> StepResult<u32> {
        over_the_line!(self.inspect.revoke(name, claim))
    }
}
