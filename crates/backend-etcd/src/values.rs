//! Values beside holds, for elections.

use std::time::Duration;

use locks_api::spi::{Grant, Leader, Released, Result, Values, async_trait};
use locks_api::{Boottime, LockName};

use crate::backend::EtcdBackend;
use crate::known::{created, tokens};
use crate::link::Refusal;
use crate::record::Record;
use crate::store::{PATIENCE, Store, patience};
use crate::txns;

#[async_trait]
impl Values for EtcdBackend {
    async fn publish(&self, grant: &Grant, value: &str) -> Result<Released> {
        let store = &self.store;
        let Some(hold) = store.known.hold_of(grant).filter(|hold| hold.ends > Boottime::now()) else {
            return Ok(Released::NotHeld);
        };
        let record = Record { value: Some(value.to_owned()), ..hold.record };
        let same = vec![txns::created_at(&hold.key, created(grant))];
        let txn = txns::when(same, vec![txns::replace(&hold.key, record.encode())]);
        if !store.txn(txn, patience(hold.ttl)).await?.succeeded {
            return Ok(Released::NotHeld);
        }
        store.known.update(grant, |hold| hold.record = record);
        Ok(Released::Done)
    }

    async fn leader(&self, name: &LockName) -> Result<Option<Leader>> {
        let store = &self.store;
        let (queue, _) = store.queue(&store.keys().lock(name), PATIENCE).await?;
        let leads = queue.holders().filter(|entry| entry.record.value.is_some()).last();
        let Some(entry) = leads else { return Ok(None) };
        let value = entry.record.value.clone().unwrap_or_default();
        let mut leader = Leader::new(tokens(entry.created, &entry.record)?.first(), value);
        leader.holder = Some(entry.record.holder());
        leader.remaining = store.remaining(entry.lease).await?;
        Ok(Some(leader))
    }

    async fn watch(&self, name: &LockName) -> Result<()> {
        // Whoever watches hears that its value may have changed once the watch has begun, so nothing is missed.
        self.store.known.follow(name);
        self.store.listen();
        Ok(())
    }

    async fn unwatch(&self, name: &LockName) -> Result<()> {
        self.store.known.unfollow(name);
        Ok(())
    }
}

impl Store {
    /// How long this lease has to live, by the cluster.
    pub(crate) async fn remaining(&self, lease: i64) -> Result<Option<Duration>> {
        let asked = self.link.call(PATIENCE, |caller| async move { caller.time_to_live(lease).await });
        match asked.await {
            Ok(answer) => Ok(Some(Duration::from_secs(u64::try_from(answer.ttl).unwrap_or(0)))),
            Err(Refusal::LeaseGone) => Ok(Some(Duration::ZERO)),
            Err(Refusal::Failed(error)) => Err(error),
        }
    }
}
