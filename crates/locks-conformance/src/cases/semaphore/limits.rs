//! How many permits there are.

use std::sync::atomic::Ordering;

use locks_api::{ErrorKind, Locks};

use super::{ORDER, PERMITS, permits};
use crate::cases::wanting::{begin, gets, has, is_refused, still_waits};
use crate::cases::{Case, Need, need};
use crate::kind::{Kind, Want};
use crate::space::{PROMPT, Space};
use crate::verdict::{Failure, Verdict, check, pause_for, within};

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new(
        "semaphore::another_limit_is_refused",
        "while permits are held, asking with another limit is a LimitMismatch that names both and leaves nothing; an idle one takes any",
        |space| Box::pin(another_limit_is_refused(space)),
    )
    .needs(&[PERMITS]),
    Case::new(
        "semaphore::another_limit_is_refused_to_the_waiting",
        "the limit of somebody who waits for permits is in force, too",
        |space| Box::pin(another_limit_is_refused_to_the_waiting(space)),
    )
    .needs(&[PERMITS, need(Need::Order, "semaphore::another_limit_is_refused")]),
    Case::new(
        "semaphore::impossible_counts_are_refused",
        "no permits, or more than there are, is a Config error before any I/O",
        |space| Box::pin(impossible_counts_are_refused(space)),
    )
    .needs(&[PERMITS]),
    Case::new(
        "semaphore::the_largest_limit_works",
        "a semaphore may have as many permits as a u32 can count, and one may take all of them",
        |space| Box::pin(the_largest_limit_works(space)),
    )
    .needs(&[PERMITS]),
    Case::new(
        "semaphore::expired_permits_come_back_once",
        "permits whose holder was lost can be had again, and its late release is Lost and gives back nothing more",
        |space| Box::pin(expired_permits_come_back_once(space)),
    )
    .needs(&[PERMITS, need(Need::Expiry, "lease::without_expiry_nothing_ends")]),
    Case::new(
        "semaphore::a_wait_that_ends_takes_nothing",
        "waits for permits that are dropped or time out leave every permit there and let in who waits behind them",
        |space| Box::pin(a_wait_that_ends_takes_nothing(space)),
    )
    .needs(&[PERMITS, ORDER]),
];

/// Fails unless asking with this limit is refused, whether one waits or not.
async fn mismatches(locks: &Locks, want: &Want, limits: [u32; 2]) -> Verdict {
    let tried = within(PROMPT, "a try", want.try_acquire(locks)).await?;
    let waited = within(PROMPT, "a wait with another limit", want.acquire(locks)).await?;
    for outcome in [tried, waited.map(Some)] {
        let Err(error) = outcome else {
            return Err(Failure::new(format!("{outcome:?} with another limit")));
        };
        check!(error.kind() == ErrorKind::LimitMismatch, "{error:?} instead of a LimitMismatch");
        let words = error.to_string();
        for limit in limits {
            check!(words.contains(&limit.to_string()), "{words:?} does not name the limit {limit}");
        }
    }
    Ok(())
}

async fn another_limit_is_refused(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("limited");
    let with = |count, limit| Want::new(Kind::Permits { count, limit }, &name);
    for (limit, other) in [(13, 14), (14, 11), (1, 13)] {
        let first = has(&one, &with(1, limit)).await?;
        for locks in [&one, &two] {
            mismatches(locks, &with(1, other), [limit, other]).await?;
        }
        // Nothing of what was refused is left: all other permits are there.
        if limit > 1 {
            has(&two, &with(limit - 1, limit)).await?.release().await?;
        }
        check!(first.is_held(), "a claim with another limit ended the hold");
        first.release().await?;
    }
    has(&two, &with(2, 2)).await?.release().await?;
    Ok(())
}

async fn another_limit_is_refused_to_the_waiting(space: Space) -> Verdict {
    let (one, two, three) = (space.connect().await?, space.connect().await?, space.connect().await?);
    let name = space.name("limited");
    let with = |limit| Want::new(Kind::Permits { count: 1, limit }, &name);
    let guard = one.lock(&name).acquire().await?;
    let wait = begin(&two, &with(13));
    still_waits(&wait, "beside an exclusive lock").await?;
    // Until the waiter is in the queue the lock is just busy.
    let refused = async {
        loop {
            match with(14).try_acquire(&three).await {
                Ok(None) => pause_for(std::time::Duration::from_millis(1)).await,
                other => break other,
            }
        }
    };
    match within(PROMPT, "the refusal of another limit", refused).await? {
        Err(error) if error.kind() == ErrorKind::LimitMismatch => {}
        other => return Err(Failure::new(format!("another limit than that of who waits gave {other:?}"))),
    }
    mismatches(&three, &with(14), [13, 14]).await?;
    is_refused(&three, &with(13)).await?;
    guard.release().await?;
    gets(wait, PROMPT, "a permit after an exclusive lock").await?.release().await?;
    has(&three, &with(14)).await?.release().await?;
    Ok(())
}

async fn impossible_counts_are_refused(space: Space) -> Verdict {
    let (locks, line) = space.connect_flaky().await?;
    let name = space.name("impossible");
    for (count, limit) in [(0, 3), (4, 3), (u32::MAX, u32::MAX - 1), (1, 0), (0, 0)] {
        let want = Want::new(Kind::Permits { count, limit }, &name);
        let outcomes = [
            want.acquire(&locks).await.map(drop),
            want.try_acquire(&locks).await.map(drop),
            want.acquire_timeout(&locks, PROMPT).await.map(drop),
        ];
        for outcome in outcomes {
            let kind = outcome.map_err(|error| error.kind());
            check!(kind == Err(ErrorKind::Config), "{count} of {limit} permits gave {kind:?}");
        }
    }
    let steps = line.steps.load(Ordering::Relaxed);
    check!(steps == 0, "impossible numbers of permits made {steps} steps");
    Ok(())
}

async fn the_largest_limit_works(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let permits = permits(&space, "large", u32::MAX);
    let single = has(&one, &permits(1)).await?;
    is_refused(&two, &permits(u32::MAX)).await?;
    let rest = has(&two, &permits(u32::MAX - 1)).await?;
    for locks in [&one, &two] {
        is_refused(locks, &permits(1)).await?;
        is_refused(locks, &permits(u32::MAX)).await?;
    }
    let wait = begin(&one, &permits(u32::MAX));
    still_waits(&wait, "while all permits were held").await?;
    single.release().await?;
    still_waits(&wait, "while most permits were held").await?;
    rest.release().await?;
    gets(wait, PROMPT, "all permits").await?.release().await?;
    Ok(())
}

async fn expired_permits_come_back_once(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (locks, line) = space.connect_flaky().await?;
    let other = space.connect().await?;
    let permits = permits(&space, "expired", 3);
    let lost = has(&locks, &permits(2).ttl(Some(ttl))).await?;
    let kept = has(&other, &permits(1).ttl(Some(ttl))).await?;
    is_refused(&other, &permits(1)).await?;
    line.cut.store(true, Ordering::SeqCst);
    within(ttl + PROMPT, "hearing of the loss", lost.guard().lost()).await?;
    let again = within(ttl + PROMPT, "permits that expired", permits(2).acquire(&other)).await??;
    line.cut.store(false, Ordering::SeqCst);
    let kind = within(PROMPT, "a late release", lost.release()).await?.map_err(|error| error.kind());
    check!(kind == Err(ErrorKind::Lost), "releasing expired permits gave {kind:?}");
    is_refused(&other, &permits(1)).await?;
    is_refused(&locks, &permits(1)).await?;
    check!(kept.is_held() && again.is_held(), "a late release ended somebody else's hold");
    kept.release().await?;
    again.release().await?;
    let all = has(&other, &permits(3)).await?;
    is_refused(&locks, &permits(1)).await?;
    all.release().await?;
    Ok(())
}

async fn a_wait_that_ends_takes_nothing(space: Space) -> Verdict {
    let (one, two, three) = (space.connect().await?, space.connect().await?, space.connect().await?);
    let permits = permits(&space, "left", 3);
    for (waiter, late) in [(&two, &three), (&one, &one)] {
        // What the last round's waits have left in the store, it may take a moment to undo.
        let first = within(PROMPT, "a permit that is free soon", permits(1).acquire(&one)).await??;
        let many = begin(waiter, &permits(3));
        still_waits(&many, "before enough permits were free").await?;
        let few = [begin(late, &permits(1)), begin(late, &permits(1))];
        many.abort();
        let mut held = vec![first];
        for wait in few {
            held.push(gets(wait, PROMPT, "a permit behind one who left").await?);
        }
        let late = permits(1).acquire_timeout(late, std::time::Duration::from_millis(30)).await;
        check!(
            late.map(drop).map_err(|error| error.kind()) == Err(ErrorKind::Timeout),
            "a fourth of three permits was had"
        );
        for permit in held {
            permit.release().await?;
        }
        within(PROMPT, "all permits", permits(3).acquire(waiter)).await??.release().await?;
    }
    Ok(())
}
