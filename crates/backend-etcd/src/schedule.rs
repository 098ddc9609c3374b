//! Minimum holds and once-per intervals.
//!
//! A minimum hold is a key of its own under a lease of its own, so it outlives its claim. The process that wrote it deletes it to the millisecond; if that process dies, its lease
//! ends it some seconds later. An interval is judged by the clocks of the machines that complete and that ask: etcd has none that a transaction could read.

use std::time::Duration;

use locks_api::spi::{Attempt, Claim, Grant, Released, Result, Schedule, async_trait};
use locks_api::{Boottime, Busy};

use crate::acquire::{Asked, Seen, TRIES, limit_mismatch};
use crate::backend::EtcdBackend;
use crate::error::strange;
use crate::known::created;
use crate::messages::{Compare, KeyValue, Request, TxnRequest};
use crate::queue::{Queue, Standing};
use crate::record::{self, Record, Rest, wall_clock};
use crate::store::{PATIENCE, Store, patience, too_quick, ttl};
use crate::txns;

/// A minimum hold's lease begins before it does, and must not end before it does.
const SPARE: Duration = Duration::from_secs(3);

/// What was read of a lock, and of its last completed hold.
#[derive(Debug)]
struct Look {
    seen: Seen,
    done: Option<KeyValue>,
}

/// What to do about a claim.
enum Next {
    Answer(Attempt),
    /// Write it down as one that holds, if these are still true. It was created at this revision, or is not there yet.
    Grant(Vec<Compare>, Option<i64>),
    /// Write it down as one that waits.
    GetInLine(Vec<Compare>),
    /// It has to leave the queue first.
    Leave(i64, Attempt),
    LookAgain,
}

impl Store {
    /// Asks for a lock with a minimum hold or an interval. Its turn alone does not make such a claim hold: the interval has to be judged then, and the minimum hold written
    /// in the same transaction.
    pub(crate) async fn acquire_scheduled(&self, claim: &Claim, sent: Boottime) -> Result<Attempt> {
        let one = self.ask(claim).await?;
        let rest = match claim.min_hold() {
            Some(min_hold) => Some(self.rest_lease(min_hold).await?),
            None => None,
        };
        let attempt = self.try_scheduled(&one, rest, sent).await;
        if let Some(lease) = rest {
            match (&attempt, self.known.hold_by(claim.id)) {
                (Ok(Attempt::Granted(_)), Some(hold)) if hold.rests_until.is_some() => {}
                // May have been granted, and its answer lost.
                (Err(_), _) => {}
                _ => {
                    // Nothing is on it, and it ends by itself.
                    drop(
                        self.link
                            .call(PATIENCE, |caller| async move { caller.revoke_lease(lease).await })
                            .await,
                    );
                }
            }
        }
        attempt
    }

    async fn try_scheduled(&self, one: &Asked<'_>, rest: Option<i64>, sent: Boottime) -> Result<Attempt> {
        let claim = one.claim;
        let limit = patience(ttl(claim));
        let done_key = self.keys().done(&claim.name);
        // Nobody has it and it was never completed, as far as is known.
        let mut next = Next::Grant(vec![txns::none_at(&one.lock), txns::created_at(&done_key, 0)], None);
        for _ in 0..TRIES {
            let read = vec![txns::range(&one.lock), txns::get(&done_key)];
            let (txn, granting) = match next {
                Next::Answer(attempt) => return Ok(attempt),
                Next::Leave(created, attempt) => {
                    let delete = vec![txns::delete(&one.key)];
                    self.txn(txns::when(vec![txns::created_at(&one.key, created)], delete), limit).await?;
                    return Ok(attempt);
                }
                Next::LookAgain => (txns::when(Vec::new(), read), None),
                Next::Grant(compare, created) => {
                    let record = Record::of(claim);
                    let success = self.holding(one, &record, created, rest);
                    (TxnRequest { compare, success, failure: read }, Some((record, created)))
                }
                Next::GetInLine(compare) => {
                    let record = Record { unconfirmed: true, ..Record::of(claim) };
                    let mut success = vec![txns::put(&one.key, record.encode(), one.lease.id)];
                    success.extend(read.clone());
                    (TxnRequest { compare, success, failure: read }, None)
                }
            };
            let answer = self.claim(txn, std::iter::once(&*one.lease), limit).await?;
            let revision = txns::revision(&answer);
            if let Some((record, created)) = granting.filter(|_| answer.succeeded) {
                let rests_until = claim.min_hold().map(|min_hold| Boottime::now().after(min_hold));
                let granted = self.granted(one, created.unwrap_or(revision), record, sent, rests_until)?;
                if let (Some(until), Some(lease)) = (rests_until, rest) {
                    self.known.rest_until(until, lease);
                }
                return Ok(granted);
            }
            let mut ranges = txns::ranges(answer.responses).into_iter();
            let (Some(queue), Some(done)) = (ranges.next(), ranges.next()) else {
                return Err(strange("no queue"));
            };
            let queue = Queue::read(self.keys(), queue.kvs)?;
            let done = done.kvs.into_iter().next();
            next = self.next(one, Look { seen: Seen { queue, revision, sent }, done }, &done_key).await?;
        }
        Err(too_quick())
    }

    async fn next(&self, one: &Asked<'_>, look: Look, done_key: &[u8]) -> Result<Next> {
        let claim = one.claim;
        let Look { mut seen, done } = look;
        let not_due = match (&done, claim.once_per()) {
            (Some(done), Some(interval)) => due_in(record::decode_done(&done.value)?, interval),
            _ => None,
        };
        let not_due = not_due.map(|remaining| Attempt::Busy(Busy::NotDue { remaining }));
        let same_done = txns::modified_at(done_key, done.map_or(0, |done| done.modified));
        if let Some((entry, standing)) = seen.queue.standing(claim.id) {
            let entry = entry.clone();
            return Ok(match (standing, not_due) {
                (Standing::Waits { .. } | Standing::HasItsTurn, Some(busy)) => {
                    Next::Leave(entry.created, busy)
                }
                (Standing::HasItsTurn, None) => {
                    let same = txns::created_at(&one.key, entry.created);
                    Next::Grant(vec![same, same_done], Some(entry.created))
                }
                (standing, _) => match self.found(one, entry, standing, &mut seen).await? {
                    Some(attempt) => Next::Answer(attempt),
                    None => Next::LookAgain,
                },
            });
        }
        if let Some(other) = seen.queue.other_limit(claim.id, claim.mode) {
            return Err(limit_mismatch(claim, other));
        }
        let mut compare =
            vec![txns::created_at(&one.key, 0), txns::unchanged_since(&one.lock, seen.revision)];
        Ok(match not_due {
            Some(busy) => Next::Answer(busy),
            None if seen.queue.has_room_for(claim.mode) => {
                compare.push(same_done);
                Next::Grant(compare, None)
            }
            None if claim.may_wait => Next::GetInLine(compare),
            None => Next::Answer(Attempt::Busy(seen.queue.refusal())),
        })
    }

    /// The writing of a claim that holds from now on, with its minimum hold.
    fn holding(
        &self,
        one: &Asked<'_>,
        record: &Record,
        created: Option<i64>,
        rest: Option<i64>,
    ) -> Vec<Request> {
        let mut writes = vec![txns::put(&one.key, record.encode(), one.lease.id)];
        if let (Some(min_hold), Some(lease)) = (one.claim.min_hold(), rest) {
            let key = self.keys().rest(&one.claim.name, one.claim.id);
            writes.push(txns::put(&key, Rest::new(created.unwrap_or(0), min_hold).encode(), lease));
        }
        writes
    }

    /// A lease that lasts for as long as a minimum hold at least.
    async fn rest_lease(&self, min_hold: Duration) -> Result<i64> {
        let seconds = i64::try_from((min_hold + SPARE).as_secs() + 1).unwrap_or(i64::MAX);
        let granted = self.link.call(PATIENCE, |caller| async move { caller.grant_lease(seconds).await });
        Ok(granted.await?.id)
    }
}

/// How long it is until the interval is over.
fn due_in(granted_at: Duration, interval: Duration) -> Option<Duration> {
    let remaining = (granted_at + interval).checked_sub(wall_clock())?.min(interval);
    (!remaining.is_zero()).then_some(remaining)
}

#[async_trait]
impl Schedule for EtcdBackend {
    async fn complete(&self, grant: &Grant) -> Result<Released> {
        let store = &self.store;
        let hold = store.known.leave(grant);
        let ended = hold.as_ref().is_some_and(|hold| hold.ends <= Boottime::now());
        let (key, granted_at) = match &hold {
            Some(hold) => (hold.key.clone(), hold.record.since),
            None => match store.find(grant).await? {
                Some(entry) => (entry.key, entry.record.since),
                None => return Ok(Released::NotHeld),
            },
        };
        let mut success = vec![txns::delete(&key)];
        if hold.as_ref().is_some_and(|hold| hold.rests_until.is_some_and(|until| until <= Boottime::now())) {
            success.push(txns::delete(&store.keys().rest(&grant.name, grant.claim)));
        }
        if !ended {
            success.push(txns::put(&store.keys().done(&grant.name), record::encode_done(granted_at), 0));
        }
        let txn = txns::when(vec![txns::created_at(&key, created(grant))], success);
        let done = store.txn(txn, PATIENCE).await?.succeeded;
        store.known.left(grant);
        Ok(if done && !ended { Released::Done } else { Released::NotHeld })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_counts_from_the_grant_and_never_for_longer() {
        let (minute, now) = (Duration::from_secs(60), wall_clock());
        assert_eq!(due_in(now - minute * 2, minute), None);
        assert!(due_in(now - minute / 2, minute).is_some_and(|left| left <= minute / 2));
        // Written by a machine whose clock is ahead.
        assert_eq!(due_in(now + minute * 10, minute), Some(minute));
    }
}
