//! What goes beyond one lock that one holder has alone: downgrades and several locks in one step.

use locks_api::spi::{
    Attempt, Claim, Downgrade, Grant, Joint, Mode, Released, Result, Together, async_trait,
};
use locks_api::{Boottime, Error, ErrorKind};

use crate::acquire::{Asked, TRIES, is_scheduled, limit_mismatch};
use crate::backend::EtcdBackend;
use crate::error::strange;
use crate::known::created;
use crate::messages::{Compare, Request, TxnRequest};
use crate::queue::{Queue, Standing};
use crate::record::Record;
use crate::store::{PATIENCE, Store, patience, too_quick, ttl};
use crate::txns;

#[async_trait]
impl Downgrade for EtcdBackend {
    async fn downgrade(&self, grant: &Grant) -> Result<Released> {
        let store = &self.store;
        let Some(hold) = store.known.hold_of(grant).filter(|hold| hold.ends > Boottime::now()) else {
            return Ok(Released::NotHeld);
        };
        match hold.record.mode {
            Mode::Shared => return Ok(Released::Done),
            Mode::Exclusive => {}
            _ => return Ok(Released::NotHeld),
        }
        let record = Record { mode: Mode::Shared, ..hold.record };
        let same = vec![txns::created_at(&hold.key, created(grant))];
        let txn = txns::when(same, vec![txns::replace(&hold.key, record.encode())]);
        if !store.txn(txn, patience(hold.ttl)).await?.succeeded {
            return Ok(Released::NotHeld);
        }
        store.known.downgraded(grant);
        Ok(Released::Done)
    }
}

/// How many locks one transaction can take.
const TOGETHER: usize = 128;

#[async_trait]
impl Together for EtcdBackend {
    async fn acquire_together(&self, claims: &[Claim]) -> Result<Joint> {
        if claims.len() > TOGETHER || claims.iter().any(is_scheduled) {
            // Each of them is asked for by itself then.
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "one transaction takes {TOGETHER} locks at most, without minimum holds and intervals"
                ),
            ));
        }
        self.store.listen();
        self.store.acquire_together(claims).await
    }
}

impl Store {
    async fn acquire_together(&self, claims: &[Claim]) -> Result<Joint> {
        let mut asked = Vec::with_capacity(claims.len());
        for claim in claims {
            asked.push(self.ask(claim).await?);
        }
        let limit = claims.iter().map(|claim| patience(ttl(claim))).min().unwrap_or(PATIENCE);
        let mut compare: Vec<Compare> = asked.iter().map(|one| txns::none_at(&one.lock)).collect();
        let mut there: Vec<Option<Grant>> = vec![None; asked.len()];
        for _ in 0..TRIES {
            let missing = asked.iter().zip(&there).filter(|(_, grant)| grant.is_none());
            let success: Vec<Request> = missing
                .map(|(one, _)| txns::put(&one.key, Record::of(one.claim).encode(), one.lease.id))
                .collect();
            let failure: Vec<Request> = asked.iter().map(|one| txns::range(&one.lock)).collect();
            let sent = Boottime::now();
            let txn = TxnRequest { compare: std::mem::take(&mut compare), success, failure };
            let answer = self.claim(txn, asked.iter().map(|one| &*one.lease), limit).await?;
            let revision = txns::revision(&answer);
            if answer.succeeded {
                return self.all_granted(&asked, there, revision, sent);
            }
            let ranges = txns::ranges(answer.responses);
            if ranges.len() != asked.len() {
                return Err(strange("another number of queues than of locks"));
            }
            there.fill(None);
            for (at, (one, range)) in asked.iter().zip(ranges).enumerate() {
                let queue = Queue::read(self.keys(), range.kvs)?;
                match queue.standing(one.claim.id) {
                    // From an earlier run whose answer was lost.
                    Some((entry, Standing::Holds)) => {
                        let (created, record) = (entry.created, entry.record.clone());
                        let Attempt::Granted(grant) = self.granted(one, created, record, sent, None)? else {
                            continue;
                        };
                        there[at] = Some(grant);
                        compare.push(txns::created_at(&one.key, created));
                    }
                    None if queue.other_limit(one.claim.id, one.claim.mode).is_some() => {
                        let other = queue.other_limit(one.claim.id, one.claim.mode).unwrap_or_default();
                        self.undo(claims).await?;
                        return Err(limit_mismatch(one.claim, other));
                    }
                    None if queue.has_room_for(one.claim.mode) => {
                        compare.push(txns::unchanged_since(&one.lock, revision));
                    }
                    _ => {
                        self.undo(claims).await?;
                        return Ok(Joint::Busy { at, busy: queue.refusal() });
                    }
                }
            }
        }
        Err(too_quick())
    }

    fn all_granted(
        &self,
        asked: &[Asked<'_>],
        there: Vec<Option<Grant>>,
        revision: i64,
        sent: Boottime,
    ) -> Result<Joint> {
        let grant = |(one, grant): (&Asked<'_>, Option<Grant>)| match grant {
            Some(grant) => Ok(grant),
            None => match self.granted(one, revision, Record::of(one.claim), sent, None)? {
                Attempt::Granted(grant) => Ok(grant),
                other => Err(strange(other)),
            },
        };
        asked.iter().zip(there).map(grant).collect::<Result<Vec<_>>>().map(Joint::Granted)
    }

    /// Nothing is left of claims that got less than all.
    async fn undo(&self, claims: &[Claim]) -> Result<()> {
        let mut deletes = Vec::new();
        for claim in claims {
            if self.known.hold_by(claim.id).is_some() {
                self.known.forget(claim);
                deletes.push(txns::delete(&self.keys().claim(&claim.name, claim.id, claim.mode)));
            }
        }
        if !deletes.is_empty() {
            self.txn(txns::when(Vec::new(), deletes), PATIENCE).await?;
        }
        Ok(())
    }
}
