//! Minimum holds and intervals.

use std::sync::atomic::Ordering;
use std::time::Duration;

use locks_api::spi::{Attempt, Backend as _, Offer, Released};
use locks_api::{Boottime, Busy, ErrorKind, Lock, LockName, Outcome};

use super::process::PROCESSES;
use super::{Case, Need, Requirement, need};
use crate::direct::Direct;
use crate::kind::{Kind, Want};
use crate::polling::poll_at_most;
use crate::space::{PROMPT, Space, becomes_free, is_busy};
use crate::verdict::{Failure, Verdict, check, pause_for, within};

/// The need of every case with a schedule in it.
pub(super) const SCHEDULE: Requirement = need(Need::Offer(Offer::Schedule), "offers::no_schedule");

pub(super) const CASES: &[Case] = &[
    Case::new(
        "schedule::a_minimum_hold_outlives_a_release",
        "after an early release or drop nobody gets the lock before the minimum hold has passed since its grant, and soon after somebody does",
        |space| Box::pin(a_minimum_hold_outlives_a_release(space)),
    )
    .needs(&[SCHEDULE]),
    Case::new(
        "schedule::a_minimum_hold_outlives_its_holder",
        "when the holder is killed, also past its ttl, nobody gets the lock before the minimum hold has passed",
        |space| Box::pin(a_minimum_hold_outlives_its_holder(space)),
    )
    .needs(&[SCHEDULE, PROCESSES])
    .deadline(120),
    Case::new(
        "schedule::a_minimum_hold_outlives_a_loss",
        "when the holder is lost at its ttl nobody gets the lock before the minimum hold has passed",
        |space| Box::pin(a_minimum_hold_outlives_a_loss(space)),
    )
    .needs(&[SCHEDULE, need(Need::Expiry, "lease::without_expiry_nothing_ends")]),
    Case::new(
        "schedule::a_minimum_hold_is_no_maximum",
        "a hold that lasts longer than its minimum goes on, and its release lets the next in at once",
        |space| Box::pin(a_minimum_hold_is_no_maximum(space)),
    )
    .needs(&[SCHEDULE]),
    Case::new(
        "schedule::a_grant_that_nobody_got_leaves_no_minimum_hold",
        "dropping a wait with a minimum hold after any number of polls leaves the lock free at once",
        |space| Box::pin(a_grant_that_nobody_got_leaves_no_minimum_hold(space)),
    )
    .needs(&[SCHEDULE]),
    Case::new(
        "schedule::a_cancel_takes_the_minimum_hold_back",
        "the step `cancel` of a granted claim takes back its minimum hold, and a release does not",
        |space| Box::pin(a_cancel_takes_the_minimum_hold_back(space)),
    )
    .needs(&[SCHEDULE]),
    Case::new(
        "schedule::a_completed_hold_is_not_due_again",
        "once a hold was completed the lock is not due before the interval has passed since its grant, to those who ask for one",
        |space| Box::pin(a_completed_hold_is_not_due_again(space)),
    )
    .needs(&[SCHEDULE]),
    Case::new(
        "schedule::those_who_wait_are_served_when_due",
        "who waits before an early release gets the lock when the minimum hold is over, and who waits for what is then done, when it is due again",
        |space| Box::pin(those_who_wait_are_served_when_due(space)),
    )
    .needs(&[SCHEDULE]),
    Case::new(
        "schedule::only_completion_completes",
        "a hold that was released or dropped, or whose body was dropped, leaves the lock due, and `run` completes",
        |space| Box::pin(only_completion_completes(space)),
    )
    .needs(&[SCHEDULE]),
    Case::new(
        "schedule::a_killed_holder_has_completed_nothing",
        "what a killed process was to do is due again as soon as its lock is free",
        |space| Box::pin(a_killed_holder_has_completed_nothing(space)),
    )
    .needs(&[SCHEDULE, PROCESSES])
    .deadline(120),
    Case::new(
        "schedule::the_step_completes_its_own_grant",
        "the step `complete` releases exactly its grant and finds nothing under another claim or a second time",
        |space| Box::pin(the_step_completes_its_own_grant(space)),
    )
    .needs(&[SCHEDULE]),
    Case::new(
        "schedule::intervals_and_minimum_holds_last_longer_than_nothing",
        "an interval or a minimum hold of zero is a Config error and leaves the lock free",
        |space| Box::pin(zero_is_refused(space)),
    )
    .needs(&[SCHEDULE]),
];

/// How long a minimum hold or an interval lasts.
const LEAST: Duration = Duration::from_millis(800);

/// How much later than due somebody may get the lock, at most.
const LATE: Duration = Duration::from_secs(8);

/// How far the store's clock and ours may be apart over so short a time, and how coarse the store's is.
const SLACK: Duration = Duration::from_millis(30);

/// Fails unless the lock is not due, for no longer than `limit`.
async fn is_not_due(lock: &Lock, limit: Duration) -> Verdict {
    match within(PROMPT, "a try", lock.try_run(async {})).await?? {
        Outcome::Skipped(Busy::NotDue { remaining }) => {
            check!(remaining <= limit + SLACK, "not due for {remaining:?} instead of at most {limit:?}");
            Ok(())
        }
        Outcome::Skipped(busy) => Err(Failure::new(format!("{busy:?} instead of not being due"))),
        Outcome::Ran(()) => Err(Failure::new("it ran although it was not due")),
    }
}

/// Waits for the lock, which must be granted once `time` has passed since `since`, and not much later.
async fn is_granted_when_due(lock: &Lock, since: Boottime, time: Duration) -> Verdict<locks_api::LockGuard> {
    let guard = within(time + LATE + PROMPT, "a lock that becomes due", lock.acquire()).await??;
    let passed = Boottime::now().since(since);
    check!(passed + SLACK >= time, "granted {passed:?} after what should keep it out for {time:?}");
    check!(passed <= time + LATE, "granted {passed:?} after what should keep it out for {time:?}");
    Ok(guard)
}

async fn a_minimum_hold_outlives_a_release(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("held");
    for (holder, other, dropped) in [(&one, &two, false), (&two, &one, true), (&one, &one, false)] {
        let asked = Boottime::now();
        let lock = holder.lock(&name).min_hold(LEAST);
        let guard = within(PROMPT, "a free lock", lock.acquire()).await??;
        is_busy(other, &name).await?;
        if dropped {
            drop(guard)
        } else {
            guard.release().await?
        }
        if !dropped && Boottime::now().since(asked) < LEAST / 2 {
            for locks in [holder, other] {
                is_not_due(&locks.lock(&name), LEAST).await?;
                is_busy(locks, &name).await?;
            }
            let late = other.lock(&name).acquire_timeout(Duration::from_millis(20)).await;
            let kind = late.map(drop).map_err(|error| error.kind());
            check!(kind == Err(ErrorKind::Timeout), "a wait that ended too early gave {kind:?}");
        }
        is_granted_when_due(&other.lock(&name), asked, LEAST).await?.release().await?;
        // Nothing of it is left.
        let next = other.lock(&name).try_acquire().await?;
        check!(next.is_some(), "the lock is not free though no minimum hold was asked for");
    }
    Ok(())
}

async fn a_minimum_hold_outlives_its_holder(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let name = space.name("killed");
    // Longer than what keeps the lock taken anyway.
    let least = space.short_ttl().unwrap_or(Duration::ZERO) + Duration::from_millis(1_500);
    let mut worker = space.worker().await?;
    let asked = Boottime::now();
    let want = Want::new(Kind::Lock, &name).ttl(space.short_ttl()).min_hold(least);
    let theirs = worker.get(&want).await?;
    worker.kill()?;
    is_busy(&locks, &name).await?;
    let guard = is_granted_when_due(&locks.lock(&name), asked, least).await?;
    check!(guard.fencing_token() > theirs, "token {} after {theirs}", guard.fencing_token());
    guard.release().await?;
    Ok(())
}

async fn a_minimum_hold_outlives_a_loss(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (locks, line) = space.connect_flaky().await?;
    let other = space.connect().await?;
    let name = space.name("lost");
    let least = ttl + Duration::from_millis(1_500);
    let asked = Boottime::now();
    let guard = locks.lock(&name).ttl(ttl).min_hold(least).acquire().await?;
    line.cut.store(true, Ordering::SeqCst);
    within(ttl + PROMPT, "hearing of the loss", guard.lost()).await?;
    let next = is_granted_when_due(&other.lock(&name), asked, least).await?;
    check!(next.fencing_token() > guard.fencing_token(), "the tokens of the two holders are out of order");
    line.cut.store(false, Ordering::SeqCst);
    drop(guard);
    next.release().await?;
    Ok(())
}

async fn a_minimum_hold_is_no_maximum(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("held");
    let least = Duration::from_millis(100);
    let guard = one.lock(&name).min_hold(least).acquire().await?;
    let until = Boottime::now().after(least * 2);
    while Boottime::now() < until {
        check!(guard.is_held(), "lost after its minimum hold");
        is_busy(&two, &name).await?;
        pause_for(Duration::from_millis(10)).await;
    }
    pause_for(SLACK).await;
    guard.release().await?;
    let next = two.lock(&name).try_acquire().await?;
    check!(next.is_some(), "a lock that was held for longer than its minimum is not free");
    Ok(())
}

async fn a_grant_that_nobody_got_leaves_no_minimum_hold(space: Space) -> Verdict {
    /// Far longer than the lock may take to become free.
    const LONG: Duration = Duration::from_secs(300);
    let (holder, other) = (space.connect().await?, space.connect().await?);
    for locks in [space.connect().await?, space.connect_flaky().await?.0] {
        for polls in 0..12 {
            // One that is had stays taken, and is looked at no more.
            let name = space.short_lived_name(&format!("free-{polls}-{:08x}", fastrand::u32(..)));
            let lock = locks.lock(&name).min_hold(LONG);
            if poll_at_most(polls, lock.acquire()).await.transpose()?.is_some() {
                break;
            }
            becomes_free(&other, &name, PROMPT).await?;
        }
        for polls in 0..8 {
            let name = space.short_lived_name(&format!("passed-{polls}-{:08x}", fastrand::u32(..)));
            let guard = within(PROMPT, "a free lock", holder.lock(&name).acquire()).await??;
            let lock = locks.lock(&name).min_hold(LONG);
            let mut wait = Box::pin(lock.acquire());
            check!(poll_at_most(2, wait.as_mut()).await.is_none(), "a held lock was granted");
            guard.release().await?;
            if poll_at_most(polls, wait.as_mut()).await.transpose()?.is_some() {
                break;
            }
            drop(wait);
            becomes_free(&other, &name, PROMPT).await?;
        }
        let name = space.name("timed-out");
        let guard = within(PROMPT, "a free lock", holder.lock(&name).acquire()).await??;
        let late = locks.lock(&name).min_hold(LONG).acquire_timeout(Duration::from_millis(30)).await;
        check!(late.is_err(), "a held lock was granted");
        check!(locks.lock(&name).min_hold(LONG).try_acquire().await?.is_none(), "a held lock was granted");
        guard.release().await?;
        becomes_free(&other, &name, PROMPT).await?;
    }
    Ok(())
}

/// The answer to a claim that is not due.
fn not_due(answer: &Attempt) -> bool {
    matches!(answer, Attempt::Busy(Busy::NotDue { .. }))
}

async fn a_cancel_takes_the_minimum_hold_back(space: Space) -> Verdict {
    let name = LockName::new(space.name("steps"))?;
    let (one, two) = (Direct::new(space.backend().await?), Direct::new(space.backend().await?));
    let long = Duration::from_secs(300);
    let claim = one.claim(&name, &space).with_min_hold(long);
    let first = one.granted(&claim).await?;
    one.cancel(&claim).await?;
    let next = two.granted(&two.claim(&name, &space)).await?;
    check!(next.tokens.first() > first.tokens.last(), "the tokens went back after a cancel");
    // Late and repeated, it takes nothing from the next one.
    one.cancel(&claim).await?;
    let again = one.acquire(&one.claim(&name, &space)).await?;
    check!(matches!(again, Attempt::Busy(Busy::Held { .. })), "{again:?} while the lock is held");
    two.release(&next).await?;

    let short = two.claim(&name, &space).with_min_hold(LEAST);
    let asked = Boottime::now();
    let grant = two.granted(&short).await?;
    let rival = one.acquire(&one.claim(&name, &space)).await?;
    check!(matches!(rival, Attempt::Busy(_)), "{rival:?} while the lock is held");
    check!(two.release(&grant).await? == Released::Done, "the holder could not release");
    // A claim that is not the one that wrote it can't take it back.
    one.cancel(&claim).await?;
    one.cancel(&one.claim(&name, &space)).await?;
    let rival = one.claim(&name, &space).with_min_hold(long);
    let answer = one.acquire(&rival).await?;
    check!(not_due(&answer) || Boottime::now().since(asked) > LEAST / 2, "{answer:?} in a minimum hold");
    let next = one.granted_soon(&two.claim(&name, &space)).await?;
    let passed = Boottime::now().since(asked);
    check!(passed + SLACK >= LEAST, "granted {passed:?} after what should keep it out for {LEAST:?}");
    one.release(&next).await?;
    one.close().await?;
    two.close().await
}

async fn a_completed_hold_is_not_due_again(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("once");
    let held_for = Duration::from_millis(300);
    for (holder, other) in [(&one, &two), (&one, &one)] {
        let asked = Boottime::now();
        let guard =
            within(PROMPT, "a lock that is due", holder.lock(&name).once_per(LEAST).acquire()).await??;
        let granted = Boottime::now();
        pause_for(held_for).await;
        within(PROMPT, "a completion", guard.complete()).await??;
        // It counts from the grant and not from the end.
        let left = (LEAST - held_for).saturating_sub(Boottime::now().since(granted.after(held_for)));
        if left > SLACK * 3 {
            is_not_due(&holder.lock(&name).once_per(LEAST), LEAST - held_for).await?;
            is_not_due(&other.lock(&name).once_per(LEAST), LEAST - held_for).await?;
            is_not_due(&other.lock(&name).once_per(LEAST * 100), LEAST * 100).await?;
        }
        // Those who do not ask for an interval are not kept out.
        let plain = other.lock(&name).try_acquire().await?;
        let plain =
            plain.ok_or_else(|| Failure::new("an interval keeps out those who do not ask for one"))?;
        plain.release().await?;
        let next = is_granted_when_due(&other.lock(&name).once_per(LEAST), asked, LEAST).await?;
        next.release().await?;
    }
    Ok(())
}

async fn those_who_wait_are_served_when_due(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("waited");
    for (waiter, completes) in [(&two, false), (&two, true), (&one, false), (&one, true)] {
        let (lock, next) = match completes {
            true => (one.lock(&name).once_per(LEAST), waiter.lock(&name).once_per(LEAST)),
            false => (one.lock(&name).min_hold(LEAST), waiter.lock(&name)),
        };
        // The round before may have left an interval.
        let asked_before = Boottime::now();
        let guard = within(LEAST + LATE + PROMPT, "a lock that becomes due", lock.acquire()).await??;
        let wait = tokio::spawn(async move { is_granted_when_due(&next, asked_before, LEAST).await });
        pause_for(Duration::from_millis(30)).await;
        check!(!wait.is_finished(), "a wait for a held lock ended");
        if completes {
            within(PROMPT, "a completion", guard.complete()).await??;
        } else {
            within(PROMPT, "a release", guard.release()).await??;
        }
        within(LEAST * 2 + LATE + PROMPT, "a lock that becomes due", wait).await???.release().await?;
    }
    Ok(())
}

async fn only_completion_completes(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("once");
    let long = Duration::from_secs(300);
    let (mine, theirs) = (one.lock(&name).once_per(long), two.lock(&name).once_per(long));
    mine.acquire().await?.release().await?;
    drop(theirs.acquire().await?);
    drop(poll_at_most(2, mine.run(std::future::pending::<()>())).await);
    let dropped = within(PROMPT, "a lock whose holds all ended early", theirs.acquire()).await??;
    dropped.release().await?;
    // Without an interval of its own a run completes nothing.
    within(PROMPT, "a run", one.lock(&name).run(async {})).await??;
    let ran = within(PROMPT, "a run", theirs.try_run(async { 7 })).await??;
    check!(ran.ran() == Some(7), "what was never completed is not due");
    is_not_due(&mine, long).await?;
    is_not_due(&theirs, long).await
}

async fn a_killed_holder_has_completed_nothing(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let name = space.name("killed");
    let mut worker = space.worker().await?;
    worker.get(&Want::new(Kind::Lock, &name).ttl(space.short_ttl())).await?;
    worker.kill()?;
    let lock = locks.lock(&name).once_per(Duration::from_secs(300));
    let guard = within(space.crash_limit(), "the grant after a kill", lock.acquire()).await??;
    guard.complete().await?;
    is_not_due(&lock, Duration::from_secs(300)).await
}

async fn the_step_completes_its_own_grant(space: Space) -> Verdict {
    let name = LockName::new(space.name("steps"))?;
    let (one, two) = (Direct::new(space.backend().await?), Direct::new(space.backend().await?));
    let schedule = one.backend().abilities().schedule;
    let schedule = schedule.ok_or_else(|| Failure::new("a schedule is offered and not there"))?;
    let long = Duration::from_secs(300);
    let due = |connection: &Direct| connection.claim(&name, &space).with_once_per(long);
    let claim = due(&one);
    let grant = one.granted(&claim).await?;
    let forged = locks_api::spi::Grant::new(&two.claim(&name, &space), grant.tokens, grant.expiry);
    let answer = within(PROMPT, "the step `complete`", schedule.complete(&forged)).await??;
    check!(answer == Released::NotHeld, "completing what another claim holds gave {answer:?}");
    check!(one.release(&grant).await? == Released::Done, "the holder could not release");
    let answer = within(PROMPT, "the step `complete`", schedule.complete(&grant)).await??;
    check!(answer == Released::NotHeld, "completing after the release gave {answer:?}");
    // Neither has completed anything.
    let second = two.granted(&due(&two)).await?;
    two.release(&second).await?;
    let third = one.granted(&due(&one)).await?;
    let answer = within(PROMPT, "the step `complete`", schedule.complete(&third)).await??;
    check!(answer == Released::Done, "completing a live grant gave {answer:?}");
    let answer = within(PROMPT, "the step `complete`", schedule.complete(&third)).await??;
    check!(answer == Released::NotHeld, "the same grant was completed twice");
    for connection in [&one, &two] {
        let answer = connection.acquire(&due(connection)).await?;
        check!(not_due(&answer), "{answer:?} after a completed hold");
    }
    let free = two.granted(&two.claim(&name, &space)).await?;
    check!(free.tokens.first() > third.tokens.last(), "the tokens went back");
    two.release(&free).await?;
    one.close().await?;
    two.close().await
}

async fn zero_is_refused(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let name = space.name("zero");
    for lock in [locks.lock(&name).min_hold(Duration::ZERO), locks.lock(&name).once_per(Duration::ZERO)] {
        let kind = lock.try_acquire().await.map(drop).map_err(|error| error.kind());
        check!(kind == Err(ErrorKind::Config), "zero gave {kind:?}");
    }
    check!(locks.lock(&name).try_acquire().await?.is_some(), "what was refused left the lock busy");
    Ok(())
}
