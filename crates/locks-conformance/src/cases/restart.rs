//! Stores that go down, lose what they knew, or are told to forget.

use std::time::Duration;

use locks_api::spi::Restart;
use locks_api::{Boottime, ErrorKind, FencingToken, LockGuard, LossReason};
use tokio::task::JoinHandle;

use super::{Case, fault};
use crate::harness::Fault;
use crate::space::{PROMPT, Space, is_busy};
use crate::verdict::{Failure, Verdict, check, pause_for, within};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "restart::never_two_holders",
        "over a restart of the store no lock has two holders, tokens grow and everything works again",
        |space| Box::pin(never_two_holders(space)),
    )
    .needs(&[fault(Fault::Restart)])
    .deadline(120),
    Case::new(
        "restart::forgotten_grants_cost_a_pause",
        "a store that has forgotten its grants grants nothing while any of them may still be relied on",
        |space| Box::pin(forgotten_grants_cost_a_pause(space)),
    )
    .needs(&[fault(Fault::DataLoss)])
    .deadline(120),
    Case::new(
        "restart::a_revoked_lock_is_lost",
        "the holder of a revoked lock hears of it, and the next one gets the lock with a higher token",
        |space| Box::pin(a_revoked_lock_is_lost(space)),
    )
    .needs(&[fault(Fault::Revocation)]),
];

/// How long a restart may keep locks from being granted.
fn pause_limit(space: &Space) -> Duration {
    space.guarantees().ttl.map_or(Duration::ZERO, |limits| limits.max) * 2 + PROMPT
}

async fn never_two_holders(space: Space) -> Verdict {
    let (locks, other) = (space.connect().await?, space.connect().await?);
    let name = space.name("held");
    let guard = crate::worker::with_ttl(locks.lock(&name), space.short_ttl()).acquire().await?;
    let token = guard.fencing_token();
    let waiting = crate::worker::with_ttl(other.lock(&name), space.short_ttl());
    let wait = tokio::spawn(async move { waiting.acquire().await });
    is_busy(&other, &name).await?;
    space.inject(Fault::Restart).await?;
    if space.guarantees().restart == Restart::Keeps {
        let until = Boottime::now().after(space.short_ttl().unwrap_or(Duration::from_millis(500)) * 2);
        while Boottime::now() < until {
            check!(guard.is_held(), "lost over a restart that keeps grants");
            check!(!wait.is_finished(), "granted to another over a restart that keeps grants");
            pause_for(Duration::from_millis(20)).await;
        }
    }
    ends_before_the_next(&space, guard, token, wait).await
}

async fn forgotten_grants_cost_a_pause(space: Space) -> Verdict {
    let (locks, other) = (space.connect().await?, space.connect().await?);
    let name = space.name("held");
    let guard = crate::worker::with_ttl(locks.lock(&name), space.short_ttl()).acquire().await?;
    let token = guard.fencing_token();
    space.inject(Fault::DataLoss).await?;
    let waiting = crate::worker::with_ttl(other.lock(&name), space.short_ttl());
    let wait = tokio::spawn(async move { waiting.acquire().await });
    ends_before_the_next(&space, guard, token, wait).await
}

/// Watches until the waiter has the lock: its guard must be the only one that says so. A holder that still has it by then releases it.
async fn ends_before_the_next(
    space: &Space,
    guard: LockGuard,
    token: FencingToken,
    wait: JoinHandle<locks_api::Result<LockGuard>>,
) -> Verdict {
    let until = Boottime::now().after(space.short_ttl().unwrap_or_default() * 2);
    while guard.is_held() && Boottime::now() < until {
        check!(!wait.is_finished() || !guard.is_held(), "granted to another while it was held");
        pause_for(Duration::from_millis(5)).await;
    }
    match within(PROMPT, "a release after a restart", guard.release()).await? {
        Err(error) if error.kind() != ErrorKind::Lost && error.kind() != ErrorKind::Unavailable => {
            return Err(error.into());
        }
        _ => {}
    }
    let next = within(pause_limit(space), "the first grant after a restart", wait).await???;
    check!(next.is_held(), "a fresh guard says that it is not held");
    check!(next.fencing_token() > token, "token {} after {token}", next.fencing_token());
    next.release().await?;
    Ok(())
}

async fn a_revoked_lock_is_lost(space: Space) -> Verdict {
    let (locks, other) = (space.connect().await?, space.connect().await?);
    let name = space.name("revoked");
    let guard = locks.lock(&name).acquire().await?;
    let waiting = other.lock(&name);
    let wait = tokio::spawn(async move { waiting.acquire().await });
    is_busy(&other, &name).await?;
    space.revoke(&name).await?;
    let reason = within(space.crash_limit(), "hearing of the revocation", guard.lost()).await?;
    check!(
        matches!(reason, LossReason::Revoked | LossReason::Taken | LossReason::SessionGone),
        "a revoked lock was lost because {reason}"
    );
    check!(!guard.is_held(), "revoked and held");
    let next = within(space.crash_limit(), "the grant after a revocation", wait).await???;
    check!(next.fencing_token() > guard.fencing_token(), "the tokens went back after a revocation");
    let released = guard.release().await.map_err(|error| error.kind());
    check!(released == Err(ErrorKind::Lost), "releasing a revoked lock gave {released:?}");
    check!(next.is_held(), "the old holder's release ended the new hold");
    next.release().await.map_err(Failure::from)
}
