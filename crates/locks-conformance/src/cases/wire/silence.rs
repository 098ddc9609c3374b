//! Lines and stores that stay silent, one way or both, and those that are slow.

use std::time::Duration;

use locks_api::spi::Restart;
use locks_api::{Boottime, ErrorKind, LossReason};

use super::{EXPIRY, WIRE_AND_EXPIRY, lost_within, release, stays_held, warm_up};
use crate::cases::{Case, fault};
use crate::harness::Fault;
use crate::proxy::Direction;
use crate::space::{PROMPT, Space, becomes_free, is_busy};
use crate::verdict::{Failure, Verdict, check, eventually, pause_for, within};

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new(
        "wire::a_black_hole_loses_in_time",
        "behind a silent line a holder is lost by its deadline, another gets the lock after that, and what arrives late does no harm",
        |space| Box::pin(a_black_hole_loses_in_time(space)),
    )
    .needs(WIRE_AND_EXPIRY)
    .deadline(120),
    Case::new(
        "wire::everything_ends_in_a_black_hole",
        "on a silent line claims, releases and closing end in bounded time, and the store frees what was held after its ttl",
        |space| Box::pin(everything_ends_in_a_black_hole(space)),
    )
    .needs(WIRE_AND_EXPIRY)
    .deadline(240),
    Case::new(
        "wire::an_unanswered_claim_is_undone",
        "a claim that arrived and whose answer did not ends as Unavailable, holds up nobody and takes nothing from the next holder",
        |space| Box::pin(an_unanswered_claim_is_undone(space)),
    )
    .needs(WIRE_AND_EXPIRY)
    .deadline(120),
    Case::new(
        "wire::a_claim_that_arrives_late_is_undone",
        "a claim that arrives after nobody waits for it any more holds up nobody and takes nothing from the next holder",
        |space| Box::pin(a_claim_that_arrives_late_is_undone(space)),
    )
    .needs(WIRE_AND_EXPIRY)
    .deadline(180),
    Case::new(
        "wire::a_late_grant_is_not_held",
        "a grant whose answer arrives when another holds the lock is nobody's: whoever waited gets a later one",
        |space| Box::pin(a_late_grant_is_not_held(space)),
    )
    .needs(WIRE_AND_EXPIRY)
    .deadline(180),
    Case::new(
        "wire::a_slow_line_loses_nothing",
        "tens of milliseconds each way, and as much jitter, cost nobody a lock and no waiter its turn",
        |space| Box::pin(a_slow_line_loses_nothing(space)),
    )
    .needs(WIRE_AND_EXPIRY)
    .deadline(120),
    Case::new(
        "wire::a_narrow_line_loses_nothing",
        "a thousand bytes a second are enough to keep a lock of some seconds",
        |space| Box::pin(a_narrow_line_loses_nothing(space)),
    )
    .needs(WIRE_AND_EXPIRY)
    .deadline(180),
    Case::new(
        "wire::a_paused_store_loses_in_time",
        "while the store stands still a holder is lost by its deadline and claims end in bounded time, and later the next one gets the lock",
        |space| Box::pin(a_paused_store_loses_in_time(space)),
    )
    .needs(&[EXPIRY, fault(Fault::Pause)])
    .deadline(180),
    Case::new(
        "wire::a_short_pause_is_no_loss",
        "a store that stands still for less than a renewal can wait costs nobody a lock",
        |space| Box::pin(a_short_pause_is_no_loss(space)),
    )
    .needs(&[EXPIRY, fault(Fault::Pause)])
    .deadline(120),
];

/// So that a store out of reach is told soon.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);

async fn a_black_hole_loses_in_time(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (locks, line) = space.connect_wired().await?;
    let (other, third) = (space.connect().await?, space.connect().await?);
    let name = space.name("silent");
    let guard = locks.lock(&name).ttl(ttl).acquire().await?;
    line.black_hole();
    let deadline = within(ttl + PROMPT, "being at risk", guard.at_risk()).await?.instant();
    let lock = other.lock(&name).ttl(ttl);
    let rival = tokio::spawn(async move { lock.acquire().await.map(|guard| (Boottime::now(), guard)) });
    let reason = within(ttl + PROMPT, "hearing of the loss", guard.lost()).await?;
    check!(reason == LossReason::Expired, "lost because {reason}");
    check!(!guard.is_held(), "lost and held");
    let (granted_at, rival) = within(space.crash_limit(), "the grant after an expiry", rival).await???;
    check!(granted_at > deadline, "granted to another {:?} before the deadline", deadline.since(granted_at));
    check!(rival.fencing_token() > guard.fencing_token(), "the tokens of the two holders are out of order");
    let released = within(space.crash_limit(), "releasing a lost lock", guard.release())
        .await?
        .map_err(|error| error.kind());
    check!(released == Err(ErrorKind::Lost), "releasing a lost lock gave {released:?}");
    // Renewals of the lost grant, and perhaps its release, arrive now.
    line.restore();
    stays_held(&rival, &third, ttl * 3 / 2).await?;
    rival.release().await?;
    becomes_free(&locks, &name, space.crash_limit()).await
}

async fn everything_ends_in_a_black_hole(space: Space) -> Verdict {
    let (locks, line) = space.connect_wired_with(|builder| builder.store_timeout(STORE_TIMEOUT)).await?;
    let other = space.connect().await?;
    let (held, kept, wanted) = (space.name("held"), space.name("kept"), space.name("wanted"));
    let guard = locks.lock(&held).ttl(space.ttl()?).acquire().await?;
    let still_there = locks.lock(&kept).ttl(space.ttl()?).acquire().await?;
    line.black_hole();
    let limit = space.crash_limit();
    match within(limit, "a release on a silent line", guard.release()).await? {
        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Lost) => {}
        other => return Err(Failure::new(format!("a release on a silent line gave {other:?}"))),
    }
    let lock = locks.lock(&wanted);
    for outcome in [
        within(limit, "a wait on a silent line", lock.acquire()).await?.map(drop),
        within(limit, "a try on a silent line", lock.try_acquire()).await?.map(drop),
        within(limit, "a wait on a silent line", lock.acquire_timeout(limit)).await?.map(drop),
    ] {
        let kind = outcome.map_err(|error| error.kind());
        check!(kind == Err(ErrorKind::Unavailable), "{kind:?} on a silent line");
    }
    becomes_free(&other, &held, limit).await?;
    becomes_free(&other, &kept, limit).await?;
    // It can't say that all went, and says so or finds that all has expired meanwhile.
    match within(limit, "closing on a silent line", locks.close()).await? {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::Unavailable => {}
        Err(error) => return Err(error.into()),
    }
    drop(still_there);
    // Whatever arrives now comes from nobody.
    line.restore();
    becomes_free(&other, &held, limit).await?;
    becomes_free(&other, &wanted, limit).await
}

async fn an_unanswered_claim_is_undone(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (locks, line) = space.connect_wired_with(|builder| builder.store_timeout(STORE_TIMEOUT)).await?;
    let (other, third) = (space.connect().await?, space.connect().await?);
    warm_up(&space, &locks).await?;
    let name = space.name("unanswered");
    let before = line.requests();
    line.half_open(Direction::Replies);
    let lock = locks.lock(&name).ttl(ttl);
    let kind = within(space.crash_limit(), "the end of a claim without an answer", lock.acquire())
        .await?
        .map(drop)
        .map_err(|error| error.kind());
    check!(kind == Err(ErrorKind::Unavailable), "{kind:?} without an answer");
    check!(line.requests() > before, "the claim never arrived");
    let lock = other.lock(&name).ttl(ttl);
    let wait = tokio::spawn(async move { lock.acquire().await });
    line.restore();
    let guard = within(space.crash_limit(), "the grant after an unanswered claim", wait).await???;
    stays_held(&guard, &third, ttl * 3 / 2).await?;
    guard.release().await?;
    becomes_free(&locks, &name, space.crash_limit()).await
}

async fn a_claim_that_arrives_late_is_undone(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (other, third) = (space.connect().await?, space.connect().await?);
    for taken_before_it_arrives in [true, false] {
        let (locks, line) = space.connect_wired_with(|builder| builder.store_timeout(STORE_TIMEOUT)).await?;
        warm_up(&space, &locks).await?;
        let name = space.name(if taken_before_it_arrives { "taken" } else { "free" });
        line.half_open(Direction::Requests);
        let lock = locks.lock(&name).ttl(ttl);
        let kind = within(space.crash_limit(), "the end of a claim that does not arrive", lock.acquire())
            .await?
            .map(drop)
            .map_err(|error| error.kind());
        check!(kind == Err(ErrorKind::Unavailable), "{kind:?} on a line that lets nothing through");
        let lock = other.lock(&name).ttl(ttl);
        let guard = if taken_before_it_arrives {
            let guard = within(PROMPT, "taking a free lock", lock.acquire()).await??;
            line.restore();
            guard
        } else {
            line.restore();
            within(space.crash_limit(), "the grant beside a late claim", lock.acquire()).await??
        };
        stays_held(&guard, &third, ttl * 3 / 2).await?;
        guard.release().await?;
        becomes_free(&third, &name, space.crash_limit()).await?;
        becomes_free(&locks, &name, space.crash_limit()).await?;
    }
    Ok(())
}

async fn a_late_grant_is_not_held(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (locks, line) = space.connect_wired().await?;
    let (other, third) = (space.connect().await?, space.connect().await?);
    warm_up(&space, &locks).await?;
    let name = space.name("late");
    let before = line.requests();
    line.half_open(Direction::Replies);
    let lock = locks.lock(&name).ttl(ttl);
    let claim = tokio::spawn(async move { lock.acquire().await });
    eventually(PROMPT, "the arrival of a claim", || line.requests() > before).await?;
    // Nobody renews what it was granted.
    let lock = other.lock(&name).ttl(ttl);
    let guard = within(space.crash_limit(), "the grant after an expiry", lock.acquire()).await??;
    line.restore();
    let until = Boottime::now().after(ttl);
    while Boottime::now() < until {
        check!(!claim.is_finished(), "a claim ended while another holds the lock");
        check!(guard.is_held(), "a late answer ended the hold of another");
        is_busy(&third, &name).await?;
        pause_for(Duration::from_millis(20)).await;
    }
    let token = guard.fencing_token();
    guard.release().await?;
    let late = within(space.crash_limit(), "the grant of a claim that was long under way", claim).await???;
    check!(late.fencing_token() > token, "token {} after {token}", late.fencing_token());
    check!(late.is_held(), "a fresh guard says that it is not held");
    release(&space, late).await
}

async fn a_slow_line_loses_nothing(space: Space) -> Verdict {
    const DELAY: Duration = Duration::from_millis(20);
    let ttl = space.ttl()?;
    let (locks, line) = space.connect_wired().await?;
    let other = space.connect().await?;
    let name = space.name("slow");
    line.delay(DELAY);
    line.jitter(Duration::ZERO..=DELAY * 2);
    let guard = within(PROMPT, "taking a free lock", locks.lock(&name).ttl(ttl).acquire()).await??;
    stays_held(&guard, &other, ttl * 5 / 2).await?;
    within(PROMPT, "a release on a slow line", guard.release()).await??;
    for _ in 0..3 {
        let guard = other.lock(&name).ttl(ttl).acquire().await?;
        let lock = locks.lock(&name).ttl(ttl);
        let wait = tokio::spawn(async move { lock.acquire().await });
        is_busy(&other, &name).await?;
        pause_for(DELAY * 4).await;
        guard.release().await?;
        let served = within(PROMPT, "a turn on a slow line", wait).await???;
        check!(served.is_held(), "a fresh guard says that it is not held");
        within(PROMPT, "a release on a slow line", served.release()).await??;
    }
    Ok(())
}

async fn a_narrow_line_loses_nothing(space: Space) -> Verdict {
    const BYTES_A_SECOND: u32 = 1_000;
    let Some(limits) = space.guarantees().ttl else { return Err(Failure::new("no limits")) };
    let ttl = Duration::from_secs(6).clamp(limits.min, limits.max);
    let (locks, line) = space.connect_wired().await?;
    let other = space.connect().await?;
    let name = space.name("narrow");
    warm_up(&space, &locks).await?;
    let guard = locks.lock(&name).ttl(ttl).acquire().await?;
    // The first renewal may say more than those after it.
    pause_for(ttl / 2).await;
    line.bandwidth(BYTES_A_SECOND);
    stays_held(&guard, &other, ttl * 2).await?;
    within(space.crash_limit(), "a release on a narrow line", guard.release()).await??;
    becomes_free(&other, &name, PROMPT).await
}

/// How many grants are looked at that a store makes after a pause, if it may be about to elect a leader: one that keeps grants over a restart. Any other has no reason to
/// lose even the first.
const GRANTS_AFTER_A_PAUSE: u32 = 3;

async fn a_paused_store_loses_in_time(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let locks = space.connect_with(|builder| builder.store_timeout(STORE_TIMEOUT)).await?;
    let other = space.connect().await?;
    let (name, wanted) = (space.name("held"), space.name("wanted"));
    let guard = locks.lock(&name).ttl(ttl).acquire().await?;
    let lock = other.lock(&name).ttl(ttl);
    let rival = tokio::spawn(async move { lock.acquire().await });
    is_busy(&locks, &name).await?;
    space.inject(Fault::Pause).await?;
    let reason = within(ttl + PROMPT, "hearing of the loss", guard.lost()).await?;
    check!(reason == LossReason::Expired, "lost because {reason}");
    let tried =
        within(space.crash_limit(), "a try of a paused store", locks.lock(&wanted).try_acquire()).await?;
    let kind = tried.map(drop).map_err(|error| error.kind());
    check!(kind == Err(ErrorKind::Unavailable), "{kind:?} from a paused store");
    let released = within(space.crash_limit(), "releasing a lost lock", guard.release()).await?;
    check!(
        released.as_ref().is_err_and(|error| error.kind() == ErrorKind::Lost),
        "releasing a lost lock gave {released:?}"
    );
    check!(!rival.is_finished(), "a paused store granted a lock");
    space.heal(Fault::Pause).await?;
    // A store may have taken its pause for a failure, and have more to do about that than the ttl of a grant allows.
    let grants = if space.guarantees().restart == Restart::Keeps { GRANTS_AFTER_A_PAUSE } else { 1 };
    let mut rival = within(space.grace_limit(), "the grant after a pause", rival).await???;
    for further in (0..grants).rev() {
        match lost_within(&rival, &locks, ttl).await? {
            None => break,
            Some(LossReason::Expired) if further > 0 => {
                let lock = other.lock(&name).ttl(ttl);
                rival = within(space.grace_limit(), "another grant after a pause", lock.acquire()).await??;
            }
            Some(reason) => return Err(Failure::new(format!("lost after a pause: {reason}"))),
        }
    }
    rival.release().await?;
    becomes_free(&locks, &wanted, space.grace_limit()).await
}

async fn a_short_pause_is_no_loss(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (locks, other) = (space.connect().await?, space.connect().await?);
    let name = space.name("held");
    let guard = locks.lock(&name).ttl(ttl).acquire().await?;
    for _ in 0..3 {
        space.inject(Fault::Pause).await?;
        pause_for(ttl / 5).await;
        space.heal(Fault::Pause).await?;
        stays_held(&guard, &other, ttl / 2).await?;
    }
    guard.release().await?;
    Ok(())
}
