//! Stores that go down, lose what they knew, or are told to forget.

use std::time::Duration;

use locks_api::spi::Restart;
use locks_api::{Boottime, ErrorKind, FencingToken, LockGuard, LossReason};
use tokio::task::JoinHandle;

use super::{Case, fault};

pub(super) mod crowded;

use crate::harness::Fault;
use crate::space::{PROMPT, Space, is_busy};
use crate::verdict::{Failure, Verdict, check, pause_for, within};
use crate::worker::with_ttl;

pub(super) const CASES: &[Case] = &[
    Case::new(
        "restart::never_two_holders",
        "over a restart of the store no lock has two holders, tokens grow and everything works again",
        |space| Box::pin(never_two_holders(space)),
    )
    .needs(&[fault(Fault::Restart)])
    .deadline(300),
    Case::new(
        "restart::forgotten_grants_cost_a_pause",
        "a store that has forgotten its grants grants nothing while any of them may still be relied on",
        |space| Box::pin(forgotten_grants_cost_a_pause(space)),
    )
    .needs(&[fault(Fault::DataLoss)])
    .deadline(120),
    Case::new(
        "restart::a_promotion_makes_no_second_holder",
        "over the promotion of a standby that missed the last grants no lock has two holders, and who was forgotten hears of it",
        |space| Box::pin(gone_back_makes_no_second_holder(space, Fault::Promotion)),
    )
    .needs(&[fault(Fault::Promotion)])
    .deadline(240),
    Case::new(
        "restart::a_restore_makes_no_second_holder",
        "over the restore of an older copy of the data no lock has two holders, and who was forgotten hears of it",
        |space| Box::pin(gone_back_makes_no_second_holder(space, Fault::Restore)),
    )
    .needs(&[fault(Fault::Restore)])
    .deadline(240),
    Case::new(
        "restart::a_promotion_that_undoes_a_release_blocks_nobody_for_long",
        "a lock whose release a promoted standby missed can be had after the grace and a ttl at most, and never by two",
        |space| Box::pin(undone_releases_block_nobody_for_long(space, Fault::Promotion)),
    )
    .needs(&[fault(Fault::Promotion)])
    .deadline(240),
    Case::new(
        "restart::a_restore_that_undoes_a_release_blocks_nobody_for_long",
        "a lock that is held again in a restored copy can be had after the grace and a ttl at most, and never by two",
        |space| Box::pin(undone_releases_block_nobody_for_long(space, Fault::Restore)),
    )
    .needs(&[fault(Fault::Restore)])
    .deadline(240),
    Case::new(
        "restart::a_revoked_lock_is_lost",
        "the holder of a revoked lock hears of it, and the next one gets the lock with a higher token",
        |space| Box::pin(a_revoked_lock_is_lost(space)),
    )
    .needs(&[fault(Fault::Revocation)]),
];

/// How often a restart that took too long to say anything is repeated.
const RESTARTS: u32 = 5;

async fn never_two_holders(space: Space) -> Verdict {
    let mut ttl = space.short_ttl();
    for number in 1..=RESTARTS {
        let took = restart_under(&space, &format!("held-{number}"), ttl).await?;
        if space.guarantees().restart != Restart::Keeps || is_outlived(took, ttl) {
            return Ok(());
        }
        ttl = Some(took * 5);
    }
    Err(Failure::new(format!(
        "each of {RESTARTS} restarts took longer than a quarter of the ttl; the last ttl was {ttl:?}"
    )))
}

/// A restart that takes longer than a hold lasts costs it, whatever the store keeps.
fn is_outlived(restart: Duration, ttl: Option<Duration>) -> bool {
    ttl.is_none_or(|ttl| restart * 4 <= ttl)
}

/// One restart while a lock is held and waited for. How long it took.
async fn restart_under(space: &Space, lock: &str, ttl: Option<Duration>) -> Verdict<Duration> {
    let (locks, other) = (space.connect().await?, space.connect().await?);
    let name = space.name(lock);
    let guard = with_ttl(locks.lock(&name), ttl).acquire().await?;
    let token = guard.fencing_token();
    let waiting = with_ttl(other.lock(&name), ttl);
    let wait = tokio::spawn(async move { waiting.acquire().await });
    is_busy(&other, &name).await?;
    let begun = Boottime::now();
    space.inject(Fault::Restart).await?;
    let took = Boottime::now().since(begun);
    if space.guarantees().restart == Restart::Keeps && is_outlived(took, ttl) {
        // Nothing that was written before it lasts for longer.
        let until = begun.after(ttl.unwrap_or(Duration::from_millis(500)) * 5 / 4);
        while Boottime::now() < until {
            if !guard.is_held() {
                let reason = within(PROMPT, "hearing of the loss", guard.lost()).await?;
                return Err(Failure::new(format!(
                    "lost over a restart that keeps grants and took {took:?}, with a ttl of {ttl:?}: {reason}"
                )));
            }
            check!(!wait.is_finished(), "granted to another over a restart that keeps grants");
            pause_for(Duration::from_millis(20)).await;
        }
    }
    if space.guarantees().restart != Restart::Keeps || is_outlived(took, ttl) {
        ends_before_the_next(space, guard, token, wait).await?;
        return Ok(took);
    }
    // A store that is so slow may be too slow for the next one's ttl as well, and for no other reason may that be lost.
    let next = next_after(space, guard, token, wait).await?;
    if !next.is_held() {
        let reason = within(PROMPT, "hearing of the loss", next.lost()).await?;
        check!(reason == LossReason::Expired, "the first grant after a restart was lost: {reason}");
    }
    Ok(took)
}

async fn forgotten_grants_cost_a_pause(space: Space) -> Verdict {
    let (locks, other) = (space.connect().await?, space.connect().await?);
    let name = space.name("held");
    let guard = with_ttl(locks.lock(&name), space.short_ttl()).acquire().await?;
    let token = guard.fencing_token();
    space.inject(Fault::DataLoss).await?;
    let waiting = with_ttl(other.lock(&name), space.short_ttl());
    let wait = tokio::spawn(async move { waiting.acquire().await });
    ends_before_the_next(&space, guard, token, wait).await
}

/// One grant is older than the checkpoint and one is younger; for each there is a waiter, which the store forgets as well.
async fn gone_back_makes_no_second_holder(space: Space, fault: Fault) -> Verdict {
    let (locks, other) = (space.connect().await?, space.connect().await?);
    let (known, forgotten) = (space.name("known"), space.name("forgotten"));
    let older = with_ttl(locks.lock(&known), space.short_ttl()).acquire().await?;
    let older_token = older.fencing_token();
    space.checkpoint().await?;
    let younger = with_ttl(locks.lock(&forgotten), space.short_ttl()).acquire().await?;
    let wait_for = |name: &str| {
        let lock = with_ttl(other.lock(name), space.short_ttl());
        tokio::spawn(async move { lock.acquire().await })
    };
    let (wait_for_older, wait_for_younger) = (wait_for(&known), wait_for(&forgotten));
    is_busy(&other, &known).await?;
    is_busy(&other, &forgotten).await?;
    space.inject(fault).await?;
    tokio::try_join!(
        ends_before_the_next(&space, older, older_token, wait_for_older),
        is_lost_before_the_next(&space, younger, wait_for_younger),
    )?;
    Ok(())
}

/// Watches until the holder of a forgotten grant has heard of it and the waiter has the lock.
async fn is_lost_before_the_next(
    space: &Space,
    guard: LockGuard,
    wait: JoinHandle<locks_api::Result<LockGuard>>,
) -> Verdict {
    let limit = space.short_ttl().unwrap_or_default() + PROMPT;
    let watch = async {
        loop {
            let granted = wait.is_finished();
            if !guard.is_held() {
                return Verdict::Ok(());
            }
            check!(!granted, "granted to another while the holder of a forgotten grant says that it holds");
            pause_for(Duration::from_millis(5)).await;
        }
    };
    within(limit, "the end of a forgotten grant", watch).await??;
    let reason = within(PROMPT, "hearing that the grant was forgotten", guard.lost()).await?;
    check!(
        matches!(
            reason,
            LossReason::StoreReset | LossReason::Taken | LossReason::Expired | LossReason::SessionGone
        ),
        "a forgotten grant was lost because {reason}"
    );
    let next = within(space.grace_limit(), "the grant after the grace", wait).await???;
    check!(
        next.fencing_token() > guard.fencing_token(),
        "token {} after {}",
        next.fencing_token(),
        guard.fencing_token()
    );
    let released = guard.release().await.map_err(|error| error.kind());
    check!(released == Err(ErrorKind::Lost), "releasing a forgotten grant gave {released:?}");
    check!(next.is_held(), "the old holder's release ended the new hold");
    next.release().await?;
    Ok(())
}

/// The store believes in a grant that was given back, once with nobody after it and once with somebody who holds the lock now.
async fn undone_releases_block_nobody_for_long(space: Space, fault: Fault) -> Verdict {
    let (locks, other, third) = (space.connect().await?, space.connect().await?, space.connect().await?);
    let (free, passed_on) = (space.name("free"), space.name("passed-on"));
    let first = with_ttl(locks.lock(&free), space.short_ttl()).acquire().await?;
    let second = with_ttl(locks.lock(&passed_on), space.short_ttl()).acquire().await?;
    let token = first.fencing_token();
    space.checkpoint().await?;
    first.release().await?;
    second.release().await?;
    let now_held = with_ttl(other.lock(&passed_on), space.short_ttl()).acquire().await?;
    space.inject(fault).await?;
    let limit = space.grace_limit() + space.short_ttl().unwrap_or_default();
    let wait_for = |name: &str| {
        let lock = with_ttl(third.lock(name), space.short_ttl());
        tokio::spawn(async move { lock.acquire().await })
    };
    let (wait_for_free, wait_for_passed_on) = (wait_for(&free), wait_for(&passed_on));
    is_lost_before_the_next(&space, now_held, wait_for_passed_on).await?;
    let guard = within(limit, "the grant of a lock whose release was undone", wait_for_free).await???;
    check!(guard.fencing_token() > token, "token {} after {token}", guard.fencing_token());
    guard.release().await?;
    Ok(())
}

/// Watches until the waiter has the lock: its guard must be the only one that says so. A holder that still has it by then releases it.
async fn ends_before_the_next(
    space: &Space,
    guard: LockGuard,
    token: FencingToken,
    wait: JoinHandle<locks_api::Result<LockGuard>>,
) -> Verdict {
    let next = next_after(space, guard, token, wait).await?;
    check!(next.is_held(), "a fresh guard says that it is not held");
    next.release().await?;
    Ok(())
}

/// The same. The next one's hold may have ended meanwhile.
async fn next_after(
    space: &Space,
    guard: LockGuard,
    token: FencingToken,
    wait: JoinHandle<locks_api::Result<LockGuard>>,
) -> Verdict<LockGuard> {
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
    let next = within(space.grace_limit(), "the first grant after a restart", wait).await???;
    check!(next.fencing_token() > token, "token {} after {token}", next.fencing_token());
    Ok(next)
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
