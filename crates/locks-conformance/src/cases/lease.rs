//! Expiry, renewal and loss.

use std::sync::atomic::Ordering;
use std::time::Duration;

use locks_api::{Boottime, ErrorKind, LossReason};

use super::{Case, Need, need};
use crate::polling::{poll_now, poll_once};
use crate::space::{PROMPT, Space, becomes_free, is_busy};
use crate::verdict::{Failure, Verdict, check, pause_for, within};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "lease::renewal_outlives_the_ttl",
        "a held lock is renewed past its ttl: it is neither lost nor at risk, and nobody else gets it",
        |space| Box::pin(renewal_outlives_the_ttl(space)),
    )
    .needs(&[need(Need::Expiry, "lease::without_expiry_nothing_ends")]),
    Case::new(
        "lease::a_cut_off_holder_is_lost_in_time",
        "a holder that can't reach the store is at risk, then lost by its deadline, before anybody else gets the lock",
        |space| Box::pin(a_cut_off_holder_is_lost_in_time(space)),
    )
    .needs(&[need(Need::Expiry, "lease::without_expiry_nothing_ends")]),
    Case::new(
        "lease::reconnection_revives_nothing",
        "a lost lock stays lost when the store is back, and its old holder does the new one no harm",
        |space| Box::pin(reconnection_revives_nothing(space)),
    )
    .needs(&[need(Need::Expiry, "lease::without_expiry_nothing_ends")]),
    Case::new(
        "lease::a_short_outage_is_no_loss",
        "a store out of reach for less than a renewal can wait costs nobody a lock",
        |space| Box::pin(a_short_outage_is_no_loss(space)),
    )
    .needs(&[need(Need::Expiry, "lease::without_expiry_nothing_ends")]),
    Case::new(
        "lease::run_drops_its_body_when_lost",
        "when the lock is lost under run, its body is dropped and the outcome is Lost",
        |space| Box::pin(run_drops_its_body_when_lost(space)),
    )
    .needs(&[need(Need::Expiry, "lease::without_expiry_nothing_ends")]),
    Case::new(
        "lease::limits_are_kept",
        "a ttl below the store's smallest or above its largest is a Config error, and those two are taken",
        |space| Box::pin(limits_are_kept(space)),
    )
    .needs(&[need(Need::Expiry, "lease::without_expiry_nothing_ends")]),
    Case::new(
        "lease::without_expiry_nothing_ends",
        "where grants don't expire there is no deadline, any ttl is met and no lock is ever at risk or lost",
        |space| Box::pin(without_expiry_nothing_ends(space)),
    )
    .needs(&[need(Need::NoExpiry, "lease::renewal_outlives_the_ttl")]),
];

async fn renewal_outlives_the_ttl(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (locks, other) = (space.connect().await?, space.connect().await?);
    let name = space.name("renewed");
    let guard = locks.lock(&name).ttl(ttl).acquire().await?;
    let Some(first) = guard.deadline() else { return Err(Failure::new("a lock with a ttl has no deadline")) };
    check!(first.remaining() <= ttl, "the deadline is {:?} away, with a ttl of {ttl:?}", first.remaining());
    let until = Boottime::now().after(ttl * 5 / 2);
    let mut at_risk = Box::pin(guard.at_risk());
    while Boottime::now() < until {
        check!(guard.is_held(), "lost although it was renewed");
        check!(poll_now(at_risk.as_mut()).await.is_pending(), "at risk although it was renewed");
        is_busy(&other, &name).await?;
        pause_for(ttl / 20).await;
    }
    drop(at_risk);
    let Some(last) = guard.deadline() else { return Err(Failure::new("a held lock has no deadline")) };
    check!(last > first, "the deadline did not move");
    guard.release().await?;
    Ok(())
}

async fn a_cut_off_holder_is_lost_in_time(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (locks, line) = space.connect_flaky().await?;
    let other = space.connect().await?;
    let name = space.name("cut-off");
    let guard = locks.lock(&name).ttl(ttl).acquire().await?;
    line.cut.store(true, Ordering::SeqCst);
    let at_risk = within(ttl + PROMPT, "being at risk", guard.at_risk()).await?;
    let deadline = at_risk.instant();
    check!(guard.is_held(), "at risk only when it was lost");
    let lock = other.lock(&name).ttl(ttl);
    let rival = tokio::spawn(async move { lock.acquire().await.map(|guard| (Boottime::now(), guard)) });
    let reason = within(ttl + PROMPT, "hearing of the loss", guard.lost()).await?;
    let lost_at = Boottime::now();
    check!(reason == LossReason::Expired, "lost because {reason}");
    check!(!guard.is_held(), "lost and held");
    check!(poll_once(guard.lost()).is_ready(), "a loss that is known is not told at once");
    let late = lost_at.since(deadline);
    check!(late < Duration::from_secs(2), "heard of the loss {late:?} after the deadline");
    let (granted_at, rival) = within(ttl + PROMPT, "the grant after an expiry", rival).await???;
    check!(granted_at > deadline, "granted to another {:?} before the deadline", deadline.since(granted_at));
    check!(rival.fencing_token() > guard.fencing_token(), "the tokens of the two holders are out of order");
    let released =
        within(PROMPT, "releasing a lost lock", guard.release()).await?.map_err(|error| error.kind());
    check!(released == Err(ErrorKind::Lost), "releasing a lost lock gave {released:?}");
    check!(rival.is_held(), "the old holder's release ended the new hold");
    rival.release().await?;
    line.cut.store(false, Ordering::SeqCst);
    becomes_free(&other, &name, ttl + PROMPT).await
}

async fn reconnection_revives_nothing(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (locks, line) = space.connect_flaky().await?;
    let (other, third) = (space.connect().await?, space.connect().await?);
    let name = space.name("cut-off");
    let guard = locks.lock(&name).ttl(ttl).acquire().await?;
    line.cut.store(true, Ordering::SeqCst);
    within(ttl + PROMPT, "hearing of the loss", guard.lost()).await?;
    let lock = other.lock(&name).ttl(ttl);
    let rival = within(ttl + PROMPT, "the grant after an expiry", lock.acquire()).await??;
    line.cut.store(false, Ordering::SeqCst);
    let until = Boottime::now().after(ttl * 3 / 2);
    while Boottime::now() < until {
        check!(!guard.is_held(), "a lost lock came back to life");
        check!(rival.is_held(), "the old holder's return ended the new hold");
        is_busy(&third, &name).await?;
        pause_for(ttl / 20).await;
    }
    drop(guard);
    is_busy(&third, &name).await?;
    check!(rival.is_held(), "dropping the lost guard ended the new hold");
    rival.release().await?;
    // Its old holder may have it again, as a new grant.
    becomes_free(&locks, &name, PROMPT).await
}

async fn a_short_outage_is_no_loss(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (locks, line) = space.connect_flaky().await?;
    let other = space.connect().await?;
    let name = space.name("outage");
    let guard = locks.lock(&name).ttl(ttl).acquire().await?;
    for _ in 0..3 {
        line.cut.store(true, Ordering::SeqCst);
        pause_for(ttl / 5).await;
        line.cut.store(false, Ordering::SeqCst);
        pause_for(ttl / 2).await;
        check!(guard.is_held(), "lost after an outage of a fifth of the ttl");
        is_busy(&other, &name).await?;
    }
    guard.release().await?;
    Ok(())
}

async fn run_drops_its_body_when_lost(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (locks, line) = space.connect_flaky().await?;
    let name = space.name("run");
    let lock = locks.lock(&name).ttl(ttl);
    let run = lock.run(async {
        line.cut.store(true, Ordering::SeqCst);
        std::future::pending::<()>().await;
    });
    let outcome = within(ttl + PROMPT, "the end of a body whose lock is lost", run).await?;
    let kind = outcome.map_err(|error| error.kind());
    check!(kind == Err(ErrorKind::Lost), "run gave {kind:?} when its lock was lost");
    line.cut.store(false, Ordering::SeqCst);
    becomes_free(&space.connect().await?, &name, ttl + PROMPT).await
}

async fn limits_are_kept(space: Space) -> Verdict {
    let Some(limits) = space.guarantees().ttl else { return Err(Failure::new("no limits")) };
    let locks = space.connect().await?;
    let name = space.name("limits");
    let step = Duration::from_millis(1);
    for bad in [limits.min.saturating_sub(step), limits.max + step, Duration::MAX] {
        let kind = locks.lock(&name).ttl(bad).try_acquire().await.map(drop).map_err(|error| error.kind());
        check!(kind == Err(ErrorKind::Config), "a ttl of {bad:?} gave {kind:?}");
    }
    for good in [limits.min, limits.default, limits.max] {
        let guard = within(PROMPT, "taking a free lock", locks.lock(&name).ttl(good).acquire()).await??;
        let left = guard.deadline().map(|deadline| deadline.remaining());
        check!(left.is_some_and(|left| left <= good), "{left:?} left of a ttl of {good:?}");
        guard.release().await?;
    }
    Ok(())
}

async fn without_expiry_nothing_ends(space: Space) -> Verdict {
    let (locks, line) = space.connect_flaky().await?;
    let other = space.connect().await?;
    let name = space.name("endless");
    let guard = locks.lock(&name).ttl(Duration::from_millis(10)).acquire().await?;
    check!(guard.deadline().is_none(), "a deadline of {:?} without expiry", guard.deadline());
    line.cut.store(true, Ordering::SeqCst);
    pause_for(Duration::from_millis(200)).await;
    check!(guard.is_held(), "lost without expiry");
    check!(poll_once(guard.lost()).is_pending(), "the loss of a held lock was told");
    check!(poll_once(guard.at_risk()).is_pending(), "a lock without expiry is called at risk");
    is_busy(&other, &name).await?;
    line.cut.store(false, Ordering::SeqCst);
    guard.release().await?;
    becomes_free(&other, &name, PROMPT).await
}
