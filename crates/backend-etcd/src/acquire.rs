//! The step that grants or queues a claim.

use std::collections::HashSet;
use std::sync::Arc;

use locks_api::spi::{Attempt, Claim, Expiry, Grant, Mode};
use locks_api::{Boottime, Error, ErrorKind, LockName, Result};
use tokio::task::JoinSet;

use crate::error::strange;
use crate::known::{Granted, Waiting};
use crate::leases::Lease;
use crate::link::Refusal;
use crate::messages::{Op, Request, TxnRequest, TxnResponse};
use crate::queue::{Entry, Queue, Standing};
use crate::record::{self, Record, wall_clock};
use crate::store::{Store, patience, too_quick, ttl};
use crate::txns;

/// How many claims travel in one transaction.
const AT_ONCE: usize = 32;

/// How often a claim is tried that others get in the way of.
pub(crate) const TRIES: usize = 32;

/// What a claim is to the store.
#[derive(Clone, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) claim: &'a Claim,
    pub(crate) lease: Arc<Lease>,
    /// The beginning of the lock's keys.
    pub(crate) lock: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

/// What was read of a lock.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) queue: Queue,
    pub(crate) revision: i64,
    /// When the step began, from which on a grant counts.
    pub(crate) sent: Boottime,
}

impl Store {
    /// Grants, queues or refuses each claim.
    pub(crate) async fn acquire(self: &Arc<Self>, claims: &[Claim]) -> Vec<Result<Attempt>> {
        self.listen();
        let attempts = self.acquire_all(claims).await;
        self.revoke_unused().await;
        attempts
    }

    async fn acquire_all(self: &Arc<Self>, claims: &[Claim]) -> Vec<Result<Attempt>> {
        let sent = Boottime::now();
        let jobs = jobs(claims);
        if jobs.len() == 1 {
            return self.acquire_at_once(claims, sent).await;
        }
        let mut running = JoinSet::new();
        for job in jobs {
            let own: Vec<Claim> = job.iter().map(|at| claims[*at].clone()).collect();
            let store = Arc::clone(self);
            running.spawn(async move { (job, store.acquire_at_once(&own, sent).await) });
        }
        let mut attempts: Vec<Option<Result<Attempt>>> = claims.iter().map(|_| None).collect();
        while let Some(done) = running.join_next().await {
            let Ok((job, answers)) = done else { continue };
            for (at, answer) in job.into_iter().zip(answers) {
                attempts[at] = Some(answer);
            }
        }
        let unknown = || Err(Error::new(ErrorKind::Unavailable, "the step ended without an answer"));
        attempts.into_iter().map(|attempt| attempt.unwrap_or_else(unknown)).collect()
    }

    async fn acquire_at_once(&self, claims: &[Claim], sent: Boottime) -> Vec<Result<Attempt>> {
        match claims {
            [claim] if is_scheduled(claim) => vec![match record::check(claim) {
                Ok(()) => self.acquire_scheduled(claim, sent).await,
                Err(error) => Err(error),
            }],
            _ => self.acquire_plain(claims, sent).await,
        }
    }

    /// Asks for these locks, which are different ones.
    async fn acquire_plain(&self, claims: &[Claim], sent: Boottime) -> Vec<Result<Attempt>> {
        for _ in 0..2 {
            let mut asked = Vec::with_capacity(claims.len());
            let mut failed = None;
            for claim in claims {
                match self.ask(claim).await {
                    Ok(one) => asked.push(one),
                    // Another ttl may be possible, so those with this one alone hear of it; a cluster out of reach is so for all.
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                if claims.len() == 1 || error.kind() == ErrorKind::Unavailable {
                    return claims.iter().map(|_| Err(error.clone())).collect();
                }
                let mut attempts = Vec::new();
                for claim in claims {
                    attempts.extend(Box::pin(self.acquire_plain(std::slice::from_ref(claim), sent)).await);
                }
                return attempts;
            }
            match self.grant_or_queue(&asked).await {
                Ok((answers, revision)) => {
                    let mut attempts = Vec::with_capacity(asked.len());
                    for (one, answer) in asked.iter().zip(answers) {
                        attempts.push(self.settle(one, answer, revision, sent).await);
                    }
                    return attempts;
                }
                Err(Refusal::LeaseGone) => asked.iter().for_each(|one| one.lease.mark_gone()),
                Err(Refusal::Failed(error)) => return claims.iter().map(|_| Err(error.clone())).collect(),
            }
        }
        let error = Error::new(ErrorKind::Unavailable, "the cluster ends leases as soon as they are made");
        claims.iter().map(|_| Err(error.clone())).collect()
    }

    pub(crate) async fn ask<'a>(&self, claim: &'a Claim) -> Result<Asked<'a>> {
        let lease = self.lease(claim).await?;
        let lock = self.keys().lock(&claim.name);
        let key = self.keys().claim(&claim.name, claim.id, claim.mode);
        Ok(Asked { claim, lease, lock, key })
    }

    /// One transaction for all: each of them is granted if nobody has the lock, and gets in line otherwise if it may wait.
    async fn grant_or_queue(&self, asked: &[Asked<'_>]) -> Result<(Vec<TxnResponse>, i64), Refusal> {
        let limit = asked.iter().map(|one| patience(ttl(one.claim))).min().unwrap_or_default();
        let mut txns: Vec<TxnRequest> = asked.iter().map(|one| self.grant_or_queue_one(one)).collect();
        let (count, single) = (txns.len(), if txns.len() == 1 { txns.pop() } else { None });
        let batch = single.is_none();
        let leases = asked.iter().map(|one| &*one.lease);
        let answer = self.claim(single.unwrap_or_else(|| txns::all(txns)), leases, limit).await?;
        let revision = txns::revision(&answer);
        let answers = if batch { txns::parts(answer, count)? } else { vec![answer] };
        Ok((answers, revision))
    }

    fn grant_or_queue_one(&self, one: &Asked<'_>) -> TxnRequest {
        let put = txns::put(&one.key, Record::of(one.claim).encode(), one.lease.id);
        let mut failure = vec![txns::range(&one.lock)];
        if one.claim.may_wait {
            failure.insert(0, self.queue_up(one, put.clone()));
        }
        TxnRequest { compare: vec![txns::none_at(&one.lock)], success: vec![put], failure }
    }

    /// Puts a claim in line unless it is there already, or others have another limit.
    fn queue_up(&self, one: &Asked<'_>, put: Request) -> Request {
        let mut compare = vec![txns::created_at(&one.key, 0)];
        if let Mode::Permits { limit, .. } = one.claim.mode {
            let others = self.keys().other_limits(&one.claim.name, limit);
            compare.extend(others.map(|(from, to)| txns::none_in(from, to)));
        }
        txns::of(Op::Txn(txns::when(compare, vec![put])))
    }

    async fn settle(
        &self,
        one: &Asked<'_>,
        answer: TxnResponse,
        revision: i64,
        sent: Boottime,
    ) -> Result<Attempt> {
        if answer.succeeded {
            return self.granted(one, revision, Record::of(one.claim), sent, None);
        }
        let range = txns::ranges(answer.responses).pop().ok_or_else(|| strange("no queue"))?;
        let queue = Queue::read(self.keys(), range.kvs)?;
        self.judge(one, Seen { queue, revision, sent }).await
    }

    /// What becomes of a claim at a lock that is not free.
    pub(crate) async fn judge(&self, one: &Asked<'_>, mut seen: Seen) -> Result<Attempt> {
        let claim = one.claim;
        for _ in 0..TRIES {
            if let Some((entry, standing)) = seen.queue.standing(claim.id) {
                let entry = entry.clone();
                if let Some(attempt) = self.found(one, entry, standing, &mut seen).await? {
                    return Ok(attempt);
                }
            } else if let Some(other) = seen.queue.other_limit(claim.id, claim.mode) {
                return Err(limit_mismatch(claim, other));
            } else if seen.queue.has_room_for(claim.mode) {
                let compare =
                    vec![txns::created_at(&one.key, 0), txns::unchanged_since(&one.lock, seen.revision)];
                let record = Record::of(claim);
                let success = vec![txns::put(&one.key, record.encode(), one.lease.id)];
                let txn = TxnRequest { compare, success, failure: vec![txns::range(&one.lock)] };
                let answer = self.claim(txn, std::iter::once(&*one.lease), patience(ttl(claim))).await?;
                let revision = txns::revision(&answer);
                if answer.succeeded {
                    return self.granted(one, revision, record, seen.sent, None);
                }
                let range = txns::ranges(answer.responses).pop().ok_or_else(|| strange("no queue"))?;
                seen = Seen { queue: Queue::read(self.keys(), range.kvs)?, revision, ..seen };
                continue;
            } else if claim.may_wait {
                let put = txns::put(&one.key, Record::of(claim).encode(), one.lease.id);
                let txn = txns::when(Vec::new(), vec![self.queue_up(one, put)]);
                self.claim(txn, std::iter::once(&*one.lease), patience(ttl(claim))).await?;
            } else {
                return Ok(Attempt::Busy(seen.queue.refusal()));
            }
            let (queue, revision) = self.queue(&one.lock, patience(ttl(claim))).await?;
            seen = Seen { queue, revision, ..seen };
        }
        Err(too_quick())
    }

    /// What becomes of a claim that is there already. `None` if it has to be looked at again.
    pub(crate) async fn found(
        &self,
        one: &Asked<'_>,
        entry: Entry,
        standing: Standing,
        seen: &mut Seen,
    ) -> Result<Option<Attempt>> {
        let (claim, limit) = (one.claim, patience(ttl(one.claim)));
        if let Some(hold) = self.known.hold_by(claim.id).filter(|hold| hold.created == entry.created) {
            if hold.ends > Boottime::now() && hold.lease.is_good(&self.link) {
                let left = Expiry::In(hold.ends.since(seen.sent).min(hold.ttl));
                return Ok(Some(Attempt::Granted(Grant::new(claim, hold.tokens, left))));
            }
            // It has ended unseen, and is over for good: whoever asks again gets another grant.
            self.known.forget(claim);
            let delete = vec![txns::delete(&one.key)];
            self.txn(txns::when(vec![txns::created_at(&one.key, entry.created)], delete), limit).await?;
            return Ok(None);
        }
        // Another step for this claim may have moved it, while this one took its time: to the lease that is the present one, from which it is not moved back.
        let anew = if self.is_retired(&one.lease) { Some(self.ask(claim).await?) } else { None };
        let one = anew.as_ref().unwrap_or(one);
        if entry.lease != one.lease.id {
            let carry = vec![txns::carry(&one.key, one.lease.id)];
            let carry = txns::when(vec![txns::modified_at(&one.key, entry.modified)], carry);
            if !self.txn(carry, limit).await?.succeeded {
                return Ok(None);
            }
        }
        match standing {
            Standing::Holds => {
                let record = Record { since: wall_clock(), ..entry.record };
                self.granted(one, entry.created, record, seen.sent, None).map(Some)
            }
            Standing::Waits { ahead } if claim.may_wait => {
                Ok(Some(self.queued(one, entry.created, ahead, seen)))
            }
            // It was sent once as one that may wait, or has to be confirmed.
            Standing::Waits { .. } | Standing::HasItsTurn => {
                let delete = vec![txns::delete(&one.key)];
                self.txn(txns::when(vec![txns::created_at(&one.key, entry.created)], delete), limit).await?;
                Ok(None)
            }
        }
    }

    pub(crate) fn queued(&self, one: &Asked<'_>, created: i64, ahead: u64, seen: &mut Seen) -> Attempt {
        let ttl = ttl(one.claim);
        let by = seen.queue.first().map(|first| first.record.holder());
        let waiting = Waiting::new(one.claim, one.key.clone(), created, &one.lease, ttl);
        self.known.wait(waiting, std::mem::take(&mut seen.queue), seen.revision);
        // Which also keeps its lease alive.
        Attempt::Queued { position: Some(ahead), by, check_in: Some(ttl / 3) }
    }

    pub(crate) fn granted(
        &self,
        one: &Asked<'_>,
        created: i64,
        record: Record,
        sent: Boottime,
        rests_until: Option<Boottime>,
    ) -> Result<Attempt> {
        let (claim, key, lease) = (one.claim, one.key.clone(), &one.lease);
        let granted = Granted { claim, key, created, record, lease, ttl: ttl(claim), sent, rests_until };
        self.known.grant(granted).map(Attempt::Granted)
    }
}

pub(crate) fn is_scheduled(claim: &Claim) -> bool {
    claim.min_hold().is_some() || claim.once_per().is_some()
}

pub(crate) fn limit_mismatch(claim: &Claim, other: u32) -> Error {
    let asked = claim.mode.limit().unwrap_or_default();
    Error::new(
        ErrorKind::LimitMismatch,
        format!("the semaphore is in use with a limit of {other} and was asked for with {asked}"),
    )
}

/// Which claims travel together. Those of one lock don't: their keys would have one create revision.
fn jobs(claims: &[Claim]) -> Vec<Vec<usize>> {
    let mut jobs = Vec::new();
    let mut open: Vec<(HashSet<&LockName>, Vec<usize>)> = Vec::new();
    for (at, claim) in claims.iter().enumerate() {
        if is_scheduled(claim) {
            jobs.push(vec![at]);
            continue;
        }
        let fits = |(names, job): &&mut (HashSet<&LockName>, Vec<usize>)| {
            job.len() < AT_ONCE && !names.contains(&claim.name)
        };
        match open.iter_mut().find(fits) {
            Some((names, job)) => {
                names.insert(&claim.name);
                job.push(at);
            }
            None => open.push((HashSet::from([&claim.name]), vec![at])),
        }
    }
    jobs.extend(open.into_iter().map(|(_, job)| job));
    jobs
}

#[cfg(test)]
mod tests {
    use locks_api::spi::InstanceId;

    use std::time::Duration;

    use super::*;

    fn claim(name: &str) -> Claim {
        Claim::new(LockName::new(name).unwrap(), InstanceId::random())
    }

    #[test]
    fn claims_of_one_lock_travel_apart() {
        let claims = ["a", "b", "a", "a", "c"].map(claim);
        assert_eq!(jobs(&claims), [vec![0, 1, 4], vec![2], vec![3]]);
        let scheduled = [claim("a"), claim("b").with_min_hold(Duration::from_secs(1)), claim("c")];
        assert_eq!(jobs(&scheduled), [vec![1], vec![0, 2]]);
        assert_eq!(jobs(&[]), Vec::<Vec<usize>>::new());
        let many: Vec<Claim> = (0..70).map(|number| claim(&number.to_string())).collect();
        assert_eq!(jobs(&many).iter().map(Vec::len).collect::<Vec<_>>(), [32, 32, 6]);
    }
}
