//! Who holds and who waits, and taking locks away.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use locks_api::LockName;
use locks_api::spi::{ClaimId, HeldBy, Inspect, LockState, Result, WaitingFor, async_trait};

use crate::backend::EtcdBackend;
use crate::keys::end_of;
use crate::known::tokens;
use crate::messages::{KeyValue, RangeRequest, TxnRequest};
use crate::queue::{Entry, Queue, Standing};
use crate::record::Record;
use crate::store::{PATIENCE, Store};
use crate::txns;

/// How many keys one answer of a list has.
const PAGE: i64 = 1_000;

#[async_trait]
impl Inspect for EtcdBackend {
    async fn state(&self, name: &LockName) -> Result<LockState> {
        let (queue, _) = self.store.queue(&self.store.keys().lock(name), PATIENCE).await?;
        let mut leases = HashMap::new();
        self.store.state(name, &queue, &mut leases).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>> {
        let mut found: BTreeMap<String, (LockName, Vec<KeyValue>)> = BTreeMap::new();
        for kv in self.store.pages(prefix).await? {
            if let Some((name, _)) = self.store.keys().parse(&kv.key) {
                let of_name = found.entry(name.as_str().to_owned()).or_insert_with(|| (name, Vec::new()));
                of_name.1.push(kv);
            }
        }
        let (mut states, mut leases) = (Vec::new(), HashMap::new());
        for (name, kvs) in found.into_values() {
            let queue = Queue::read(self.store.keys(), kvs)?;
            let state = self.store.state(&name, &queue, &mut leases).await?;
            if state.is_in_use() {
                states.push(state);
            }
        }
        Ok(states)
    }

    async fn break_lock(&self, name: &LockName, claim: Option<ClaimId>) -> Result<u32> {
        let delete = |entry: &Entry| {
            txns::when(vec![txns::created_at(&entry.key, entry.created)], vec![txns::delete(&entry.key)])
        };
        self.store.with_holders(name, claim, delete).await
    }

    async fn revoke(&self, name: &LockName, claim: Option<ClaimId>) -> Result<u32> {
        let ask = |entry: &Entry| {
            let record = Record { asked: true, ..entry.record.clone() };
            let same = vec![txns::modified_at(&entry.key, entry.modified)];
            txns::when(same, vec![txns::replace(&entry.key, record.encode())])
        };
        self.store.with_holders(name, claim, ask).await
    }
}

impl Store {
    /// Does something with all who hold the lock, or with this one. How many they were.
    async fn with_holders(
        &self,
        name: &LockName,
        claim: Option<ClaimId>,
        act: impl Fn(&Entry) -> TxnRequest + Send,
    ) -> Result<u32> {
        let (queue, _) = self.queue(&self.keys().lock(name), PATIENCE).await?;
        let is_meant = |entry: &&Entry| claim.is_none_or(|claim| claim == entry.claim);
        let txns: Vec<TxnRequest> = queue.holders().filter(is_meant).map(act).collect();
        let mut count = 0;
        for done in self.each(txns, PATIENCE).await {
            count += u32::from(done?);
        }
        Ok(count)
    }

    /// All keys of locks whose names begin like this, as they were at one revision.
    async fn pages(&self, prefix: &str) -> Result<Vec<KeyValue>> {
        let mut key = self.keys().beginning(prefix);
        let end = end_of(&key);
        let (mut kvs, mut revision) = (Vec::new(), 0);
        loop {
            let range =
                RangeRequest { key, end: end.clone(), limit: PAGE, revision, ..RangeRequest::default() };
            let answer = self.link.range(range, PATIENCE).await?;
            if revision == 0 {
                revision = answer.header.as_ref().map_or(0, |header| header.revision);
            }
            kvs.extend(answer.kvs);
            match kvs.last() {
                Some(last) if answer.more => {
                    key = last.key.clone();
                    key.push(0);
                }
                _ => return Ok(kvs),
            }
        }
    }

    /// `leases` are those that were looked at already.
    async fn state(
        &self,
        name: &LockName,
        queue: &Queue,
        leases: &mut HashMap<i64, Option<Duration>>,
    ) -> Result<LockState> {
        let mut state = LockState::free(name.clone());
        state.not_due_for = queue.rests_for();
        let mut waiters = Vec::new();
        for (entry, standing) in queue.standings() {
            if standing == Standing::Holds {
                let mut held = HeldBy::new(entry.record.mode);
                held.claim = Some(entry.claim);
                held.token = Some(tokens(entry.created, &entry.record)?.first());
                held.holder = Some(entry.record.holder());
                if let std::collections::hash_map::Entry::Vacant(lease) = leases.entry(entry.lease) {
                    lease.insert(self.remaining(entry.lease).await?);
                }
                held.remaining = leases.get(&entry.lease).copied().flatten();
                state.holders.push(held);
            } else {
                let mut waiting = WaitingFor::new();
                waiting.mode = Some(entry.record.mode);
                waiting.claim = Some(entry.claim);
                waiting.holder = Some(entry.record.holder.clone());
                waiters.push(waiting);
            }
        }
        state.waiters = Some(waiters);
        Ok(state)
    }
}
