//! Stores that are reached over TCP, over a line that breaks, falls silent, slows down or loses an answer.

pub(super) mod cuts;
pub(super) mod replies;
pub(super) mod silence;

use std::time::Duration;

use locks_api::{Boottime, ErrorKind, LockGuard, Locks, LossReason};

use super::{Need, Requirement, WIRE, need};
use crate::space::{PROMPT, Space, is_busy};
use crate::verdict::{Failure, Verdict, check, pause_for, within};

/// What cases need that wait for something to expire.
const EXPIRY: Requirement = need(Need::Expiry, "lease::without_expiry_nothing_ends");

/// The need of those over a line.
const WIRE_AND_EXPIRY: &[Requirement] = &[WIRE, EXPIRY];

/// Does everything once, so that what a connection sends only at first is behind it.
async fn warm_up(space: &Space, locks: &Locks) -> Verdict {
    let lock = locks.lock(space.name("warm-up")).ttl(space.ttl()?);
    within(PROMPT, "taking and releasing a free lock", lock.acquire()).await??.release().await?;
    Ok(())
}

/// Fails unless the lock stays held so long, for its holder and for `other`.
async fn stays_held(guard: &LockGuard, other: &Locks, time: Duration) -> Verdict {
    match lost_within(guard, other, time).await? {
        None => Ok(()),
        Some(reason) => Err(Failure::new(format!("lost: {reason}"))),
    }
}

/// Why the lock is lost, if it is within this time. Fails if `other` gets it before that.
async fn lost_within(guard: &LockGuard, other: &Locks, time: Duration) -> Verdict<Option<LossReason>> {
    let until = Boottime::now().after(time);
    while Boottime::now() < until {
        let busy = is_busy(other, guard.name()).await;
        if !guard.is_held() {
            return within(PROMPT, "hearing of the loss", guard.lost()).await.map(Some);
        }
        busy?;
        pause_for(Duration::from_millis(20)).await;
    }
    Ok(None)
}

/// Fails unless the lock is held on by whoever keeps it over a cut connection, and is known to be lost by whoever does not.
async fn outlives_a_cut(space: &Space, guard: &LockGuard, other: &Locks, time: Duration) -> Verdict {
    if space.keeps_over_a_cut() {
        return stays_held(guard, other, time).await;
    }
    within(space.crash_limit(), "hearing of the loss after a cut", guard.lost()).await?;
    check!(!guard.is_held(), "lost and held");
    Ok(())
}

/// Gives the lock back over a bad line: it may have happened without an answer, and is repeated until it has.
async fn release(space: &Space, guard: LockGuard) -> Verdict {
    match within(space.crash_limit(), "a release over a bad line", guard.release()).await? {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::Unavailable => Ok(()),
        Err(error) if error.kind() == ErrorKind::Lost && !space.keeps_over_a_cut() => Ok(()),
        Err(error) => Err(Failure::from(error)),
    }
}
