//! An etcd cluster as a backend.

use std::sync::Arc;

use locks_api::spi::{
    Abilities, Attempt, Backend, Claim, Events, Fairness, Grant, Guarantees, Inline, LossDetection, Offers,
    Released, Renewed, Restart, Result, Scope, async_trait,
};
use locks_api::{Boottime, LossReason};
use tonic::transport::Channel;

use crate::address::{self, Way};
use crate::known::{Hold, created};
use crate::messages::TxnRequest;
use crate::options::EtcdOptions;
use crate::renewals::{Carried, Renewals, UNKNOWN};
use crate::store::{PATIENCE, Store, patience, ttl};
use crate::txns;

/// Locks in an etcd cluster.
///
/// Makes one connection of its own when the first lock is asked for, whatever the number of locks, to one member at a time. A step is one transaction. One lease
/// carries all locks with the same ttl, and one stream tells what happens to those that are waited for or held for longer than a moment.
#[derive(Debug)]
pub struct EtcdBackend {
    pub(crate) store: Arc<Store>,
    guarantees: Guarantees,
}

impl EtcdBackend {
    /// The cluster that this URL names: `etcd://[user:password@]host[:2379][,host…][/namespace]`, `etcds://…` for TLS (feature `rustls`). `?namespace=` says the
    /// same as the path; see [`EtcdOptions`].
    ///
    /// Does no I/O: the cluster is reached when the first lock is asked for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](locks_api::ErrorKind::Config) if the URL or an option makes no sense.
    ///
    /// ```
    /// use locks_backend_etcd::EtcdBackend;
    ///
    /// let backend = EtcdBackend::from_url("etcd://etcd1,etcd2,etcd3/billing")?;
    /// assert!(EtcdBackend::from_url("etcd://etcd1?ttl=soon").is_err());
    /// # Ok::<(), locks_api::Error>(())
    /// ```
    pub fn from_url(url: &str) -> Result<Self> {
        let (way, options) = address::parse(url)?;
        Ok(Self::new(way, &options))
    }

    /// The cluster that this channel reaches, with its endpoints, TLS settings and logins. Does no I/O. The channel has to be of the runtime on which the locks
    /// are used, or one that connects late.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](locks_api::ErrorKind::Config) if an option makes no sense.
    pub fn from_channel(channel: Channel, options: &EtcdOptions) -> Result<Self> {
        options.check()?;
        Ok(Self::new(Way::Given(channel), options))
    }

    fn new(way: Way, options: &EtcdOptions) -> Self {
        Self { store: Arc::new(Store::new(way, options)), guarantees: Self::promises() }
    }

    /// What a backend promises.
    pub fn promises() -> Guarantees {
        Guarantees::new("etcd", Scope::Cluster)
            .with_ttl(EtcdOptions::limits())
            .with_fairness(Fairness::Fifo)
            .with_loss(LossDetection::Pushed)
            .with_restart(Restart::Keeps)
            .with_offers(Offers::ALL)
    }

    /// Asks the cluster who it is, which is all that has to be done before the first lock.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](locks_api::ErrorKind::Unsupported) if the cluster is too old,
    /// [`ErrorKind::PermissionDenied`](locks_api::ErrorKind::PermissionDenied) if it refuses us,
    /// [`ErrorKind::Unavailable`](locks_api::ErrorKind::Unavailable) if it can't be reached.
    ///
    /// # Cancel safety
    ///
    /// Nothing happens that a drop could cut short.
    pub async fn set_up(&self) -> Result<()> {
        let lock = self.store.keys().beginning("");
        self.store
            .txn(txns::when(vec![txns::created_at(&lock, 0)], vec![txns::get(&lock)]), PATIENCE)
            .await?;
        Ok(())
    }

    /// Gives back this grant, if it is still there.
    async fn give_back(&self, grants: &[Grant]) -> Vec<Result<Released>> {
        let now = Boottime::now();
        let mut txns: Vec<TxnRequest> = Vec::with_capacity(grants.len());
        let mut held = Vec::with_capacity(grants.len());
        let mut limit = PATIENCE;
        for grant in grants {
            let hold = self.store.known.leave(grant);
            let key = match &hold {
                Some(hold) => Ok(Some(hold.key.clone())),
                None => self.store.find(grant).await.map(|entry| entry.map(|entry| entry.key)),
            };
            limit = limit.min(hold.as_ref().map_or(limit, |hold| patience(hold.ttl)));
            held.push(match key {
                Ok(Some(key)) => {
                    txns.push(self.release(grant, &key, hold.as_ref(), now));
                    Ok(hold.is_none_or(|hold| hold.ends > now))
                }
                // Nobody has it.
                Ok(None) => {
                    txns.push(txns::when(vec![txns::created_at(b"\0", -1)], Vec::new()));
                    Ok(false)
                }
                Err(error) => {
                    txns.push(txns::when(vec![txns::created_at(b"\0", -1)], Vec::new()));
                    Err(error)
                }
            });
        }
        let done = self.store.each(txns, limit).await;
        grants
            .iter()
            .zip(held.into_iter().zip(done))
            .map(|(grant, (held, done))| {
                let (held, done) = (held?, done?);
                self.store.known.left(grant);
                Ok(if held && done { Released::Done } else { Released::NotHeld })
            })
            .collect()
    }

    fn release(&self, grant: &Grant, key: &[u8], hold: Option<&Hold>, now: Boottime) -> TxnRequest {
        let mut success = vec![txns::delete(key)];
        if hold.is_some_and(|hold| hold.rests_until.is_some_and(|until| until <= now)) {
            success.push(txns::delete(&self.store.keys().rest(&grant.name, grant.claim)));
        }
        txns::when(vec![txns::created_at(key, created(grant))], success)
    }
}

#[async_trait]
impl Backend for EtcdBackend {
    fn guarantees(&self) -> &Guarantees {
        &self.guarantees
    }

    fn subscribe(&self, events: Events) {
        self.store.known.subscribe(events);
    }

    async fn acquire(&self, claims: &[Claim]) -> Result<Vec<Result<Attempt>>> {
        Ok(self.store.acquire(claims).await)
    }

    /// A copy of a claim that is still under way names a lease that is revoked before its debt is forgotten, and then comes to nothing.
    async fn cancel(&self, claims: &[Claim]) -> Result<Vec<Result<()>>> {
        let delete = |claim: &Claim| {
            self.store.known.forget(claim);
            let keys = self.store.keys();
            let mut deletes = vec![txns::delete(&keys.claim(&claim.name, claim.id, claim.mode))];
            if claim.min_hold().is_some() {
                deletes.push(txns::delete(&keys.rest(&claim.name, claim.id)));
            }
            txns::when(Vec::new(), deletes)
        };
        let limit = claims.iter().map(|claim| patience(ttl(claim))).min().unwrap_or(PATIENCE);
        let done = self.store.each(claims.iter().map(delete).collect(), limit).await;
        Ok(done.into_iter().map(|done| done.map(drop)).collect())
    }

    async fn release(&self, grants: &[Grant]) -> Result<Vec<Result<Released>>> {
        Ok(self.give_back(grants).await)
    }

    async fn renew(&self, grants: &[Grant]) -> Result<Vec<Renewed>> {
        let asked_at = Boottime::now();
        let Renewals { leases, mut answers } = self.store.known.renewals(grants);
        for Carried { lease, ttl, grants: carried } in leases {
            if !self.store.keep(&lease, asked_at, patience(ttl)).await? {
                for at in carried {
                    answers[at] = Some(Renewed::Lost(LossReason::SessionGone));
                }
                continue;
            }
            self.store.known.extend(grants, &carried, &lease, &mut answers);
            if let Some(grant) = carried.first().and_then(|at| grants.get(*at)) {
                self.store.move_off(&lease, grant.lease, ttl).await?;
            }
        }
        let renewed = answers;
        let mut ended = Vec::new();
        for (grant, renewed) in grants.iter().zip(&renewed) {
            // One that is being given back is deleted by that.
            if matches!(renewed, Some(Renewed::Lost(_)))
                && let Some(hold) = self.store.known.hold_of(grant).filter(|hold| !hold.leaves)
            {
                self.store.known.left(grant);
                ended.push((hold.key, hold.created));
            }
        }
        if !ended.is_empty() {
            self.store.delete(ended).await;
        }
        Ok(renewed.into_iter().map(|renewed| renewed.unwrap_or(UNKNOWN)).collect())
    }

    async fn close(&self) -> Result<()> {
        self.store.close().await;
        Ok(())
    }

    fn inline(&self) -> Option<&dyn Inline> {
        None
    }

    /// No recovery is needed: the cluster forgets nothing, and one that was restored is another one, in which none of our leases is kept alive.
    fn abilities(&self) -> Abilities<'_> {
        Abilities::none()
            .with_downgrade(self)
            .with_together(self)
            .with_schedule(self)
            .with_values(self)
            .with_inspect(self)
    }
}

impl Drop for EtcdBackend {
    fn drop(&mut self) {
        self.store.known.close();
        self.store.link.close();
    }
}
