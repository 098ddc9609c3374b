//! What all steps share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use locks_api::spi::{Claim, Grant, LeaseId};
use locks_api::{Boottime, ErrorKind, Result};
use tokio::task::JoinHandle;

use crate::address::Way;
use crate::keys::{Keys, end_of};
use crate::known::{Known, created};
use crate::leases::{Lease, Leases};
use crate::link::{Link, Refusal};
use crate::messages::{RangeRequest, TxnRequest, TxnResponse};
use crate::options::EtcdOptions;
use crate::queue::{Entry, Queue};
use crate::txns;
use crate::watcher;

/// How long to wait for the answer to what is no step of a lock.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// How many small transactions travel in one. A cluster takes 128 operations by default, of which each part has some.
pub(crate) const AT_ONCE: usize = 60;

/// A cluster, and what this process knows of its locks there.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) link: Link,
    pub(crate) known: Arc<Known>,
    leases: Leases,
    watcher: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    pub(crate) fn new(way: Way, options: &EtcdOptions) -> Self {
        let known = Arc::new(Known::new(Keys::new(&options.namespace)));
        let link = Link::new(way, Arc::clone(&known));
        Self { link, known, leases: Leases::default(), watcher: Mutex::default() }
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.known.keys
    }

    /// Has somebody listen, on the runtime of whoever asks for the first lock.
    pub(crate) fn listen(self: &Arc<Self>) {
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if watcher.as_ref().is_none_or(JoinHandle::is_finished) && !self.known.is_closed() {
            *watcher = Some(tokio::spawn(watcher::run(Arc::clone(self))));
        }
    }

    /// The lease for this claim.
    pub(crate) async fn lease(&self, claim: &Claim) -> Result<Arc<Lease>> {
        let ttl = ttl(claim);
        self.leases.lease((&self.link, self.keys()), ttl, claim.lease, patience(ttl)).await
    }

    /// Keeps the lease of a hold alive, for whoever asked at that instant. False if it is gone.
    pub(crate) async fn keep(&self, lease: &Lease, asked_at: Boottime, limit: Duration) -> Result<bool> {
        self.leases.keep((&self.link, self.keys()), lease, asked_at, limit).await
    }

    /// Whether new claims go on another lease than this one.
    pub(crate) fn is_retired(&self, lease: &Lease) -> bool {
        self.leases.is_retired(lease)
    }

    /// What a retired lease carries goes on the lease that took its place, so that it can end, and with it what nobody could be told to give up.
    pub(crate) async fn move_off(&self, lease: &Lease, number: LeaseId, ttl: Duration) -> Result<()> {
        if !self.is_retired(lease) {
            return Ok(());
        }
        let limit = patience(ttl);
        let next = self.leases.lease((&self.link, self.keys()), ttl, number, limit).await?;
        for carried in self.known.carried_by(lease.id).chunks(AT_ONCE) {
            let carry = carried.iter().map(|(_, key, created)| {
                txns::when(vec![txns::created_at(key, *created)], vec![txns::carry(key, next.id)])
            });
            let answer = self.txn(txns::all(carry.collect()), limit).await?;
            let parts = txns::parts(answer, carried.len())?;
            let moved: Vec<_> = carried.iter().zip(parts).filter(|(_, part)| part.succeeded).collect();
            let moved: Vec<_> = moved.into_iter().map(|((claim, ..), _)| *claim).collect();
            self.known.moved(&moved, &next);
        }
        self.revoke_unused().await;
        Ok(())
    }

    /// Runs a transaction that writes claims on these leases. If no answer comes it may still arrive, when the claims that it writes are long forgotten. So the leases are
    /// retired: once they have ended the cluster refuses it.
    pub(crate) async fn claim(
        &self,
        txn: TxnRequest,
        leases: impl Iterator<Item = &Lease> + Send,
        limit: Duration,
    ) -> Result<TxnResponse, Refusal> {
        // What was not sent can't arrive.
        self.link.session().await?;
        let answer = self.link.txn(txn, limit).await;
        if matches!(&answer, Err(Refusal::Failed(error)) if error.kind() == ErrorKind::Unavailable) {
            leases.for_each(Lease::retire);
        }
        answer
    }

    /// Runs a transaction that names no lease, or whose lease being gone is no more than a failure.
    pub(crate) async fn txn(&self, txn: TxnRequest, limit: Duration) -> Result<TxnResponse> {
        Ok(self.link.txn(txn, limit).await?)
    }

    /// Runs many small transactions, in as few as possible, and says which of them did what they were for.
    pub(crate) async fn each(&self, mut txns: Vec<TxnRequest>, limit: Duration) -> Vec<Result<bool>> {
        let mut done = Vec::with_capacity(txns.len());
        while !txns.is_empty() {
            let rest = txns.split_off(txns.len().min(AT_ONCE));
            let now = std::mem::replace(&mut txns, rest);
            done.extend(self.some(now, limit).await);
        }
        done
    }

    async fn some(&self, mut txns: Vec<TxnRequest>, limit: Duration) -> Vec<Result<bool>> {
        let count = txns.len();
        let single = if count == 1 { txns.pop() } else { None };
        let parts = match single {
            Some(txn) => self.txn(txn, limit).await.map(|answer| vec![answer]),
            None => self.txn(txns::all(txns), limit).await.and_then(|answer| txns::parts(answer, count)),
        };
        match parts {
            Ok(parts) => parts.into_iter().map(|part| Ok(part.succeeded)).collect(),
            Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
        }
    }

    /// Deletes these keys, if they are the ones that were created at these revisions; later, if it can't be done now.
    pub(crate) async fn delete(&self, keys: Vec<(Vec<u8>, i64)>) {
        let delete = |(key, created): &(Vec<u8>, i64)| {
            txns::when(vec![txns::created_at(key, *created)], vec![txns::delete(key)])
        };
        let done = self.each(keys.iter().map(delete).collect(), PATIENCE).await;
        let owed: Vec<_> = keys.into_iter().zip(done).filter(|(_, done)| done.is_err()).collect();
        if !owed.is_empty() {
            self.known.owe(owed.into_iter().map(|(key, _)| key).collect());
        }
    }

    /// Everything there is of the lock now, and at which revision that is.
    pub(crate) async fn queue(&self, beginning: &[u8], limit: Duration) -> Result<(Queue, i64)> {
        let range =
            RangeRequest { key: beginning.to_vec(), end: end_of(beginning), ..RangeRequest::default() };
        let answer = self.link.range(range, limit).await?;
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        Ok((Queue::read(self.keys(), answer.kvs)?, revision))
    }

    /// The key of exactly this grant, if we don't know it.
    pub(crate) async fn find(&self, grant: &Grant) -> Result<Option<Entry>> {
        let (queue, _) = self.queue(&self.keys().lock(&grant.name), PATIENCE).await?;
        Ok(queue.find(grant.claim).filter(|entry| entry.created == created(grant)).cloned())
    }

    /// Ends the connection, and the leases if nothing relies on them.
    pub(crate) async fn close(&self) {
        self.known.close();
        if !self.known.is_holding() && self.link.present().is_some() {
            for lease in self.leases.take_all() {
                // It ends by itself if that does not arrive.
                drop(self.revoke(lease).await);
            }
        }
        self.link.close();
    }

    /// Ends the leases that were retired, unless they carry something yet.
    pub(crate) async fn revoke_unused(&self) {
        for lease in self.leases.take_unused() {
            // Nobody keeps it alive any more.
            drop(self.revoke(lease).await);
        }
    }

    async fn revoke(&self, lease: i64) -> Result<(), Refusal> {
        self.link.call(PATIENCE, |caller| async move { caller.revoke_lease(lease).await }).await.map(drop)
    }
}

/// The ttl of a claim.
pub(crate) fn ttl(claim: &Claim) -> Duration {
    claim.ttl.unwrap_or(EtcdOptions::limits().default)
}

/// How long to wait for the answer to a step: a quarter of the ttl, so that a renewal can be repeated in time.
pub(crate) fn patience(ttl: Duration) -> Duration {
    (ttl / 4).clamp(Duration::from_millis(250), PATIENCE)
}

/// Somebody else was quicker, again and again.
pub(crate) fn too_quick() -> locks_api::Error {
    locks_api::Error::new(
        ErrorKind::Unavailable,
        "others changed the lock each time before it could be taken",
    )
}
