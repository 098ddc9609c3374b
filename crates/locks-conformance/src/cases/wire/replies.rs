//! One answer that gets lost with its connection: nobody knows whether the request was carried out.

use std::future::{Future, pending};

use locks_api::{ErrorKind, FencingToken, LockGuard, Locks};

use super::{WIRE_AND_EXPIRY, outlives_a_cut, release, stays_held, warm_up};
use crate::cases::Case;
use crate::proxy::Proxy;
use crate::space::{PROMPT, Space, is_busy};
use crate::verdict::{Failure, Verdict, check, eventually, within};

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new(
        "wire::an_acquire_without_an_answer_happens_once",
        "a claim whose answer is lost with its connection is granted once, and free again after one release",
        |space| Box::pin(an_acquire_happens_once(space)),
    )
    .needs(WIRE_AND_EXPIRY)
    .deadline(240),
    Case::new(
        "wire::a_release_without_an_answer_happens_once",
        "a release whose answer is lost with its connection frees the lock, and later nobody else's hold",
        |space| Box::pin(a_release_happens_once(space)),
    )
    .needs(WIRE_AND_EXPIRY)
    .deadline(240),
    Case::new(
        "wire::a_renewal_without_an_answer_costs_no_lock",
        "a renewal whose answer is lost with its connection is repeated in time",
        |space| Box::pin(a_renewal_costs_no_lock(space)),
    )
    .needs(WIRE_AND_EXPIRY)
    .deadline(120),
    Case::new(
        "wire::a_connection_that_breaks_while_it_is_made",
        "whichever of its first answers a new connection loses, it is repaired or refused as Unavailable, and the lock has one holder",
        |space| Box::pin(a_connection_that_breaks_while_it_is_made(space)),
    )
    .needs(WIRE_AND_EXPIRY)
    .deadline(240),
];

/// Which of a step's answers get lost, and how many in a row.
const LOSSES: [(u32, u32); 5] = [(1, 1), (2, 1), (3, 1), (1, 2), (1, 3)];

/// Those of a new connection: most shake hands first.
const FIRST: u32 = 8;

async fn an_acquire_happens_once(space: Space) -> Verdict {
    let (other, third) = (space.connect().await?, space.connect().await?);
    let name = space.name("acquired");
    let mut highest = None;
    for (nth, times) in LOSSES {
        let (locks, proxy) = space.connect_wired().await?;
        warm_up(&space, &locks).await?;
        let lock = locks.lock(&name).ttl(space.ttl()?);
        let acquire = over_lost_answers(&proxy, nth, times, lock.acquire());
        let guard = within(space.crash_limit(), "a claim without an answer", acquire).await???;
        check!(highest < Some(guard.fencing_token()), "a token that went back: {guard:?}");
        stays_held(&guard, &other, space.ttl()? / 4).await?;
        let token = guard.fencing_token();
        release(&space, guard).await?;
        highest = Some(is_given_to_one(&space, &other, &third, &name, token).await?);
    }
    Ok(())
}

async fn a_release_happens_once(space: Space) -> Verdict {
    let (other, third) = (space.connect().await?, space.connect().await?);
    let name = space.name("released");
    for (nth, times) in LOSSES {
        let (locks, proxy) = space.connect_wired().await?;
        let guard = locks.lock(&name).ttl(space.ttl()?).acquire().await?;
        let token = guard.fencing_token();
        let lock = other.lock(&name).ttl(space.ttl()?);
        let wait = tokio::spawn(async move { lock.acquire().await });
        is_busy(&other, &name).await?;
        over_lost_answers(&proxy, nth, times, release(&space, guard)).await??;
        let next =
            within(space.crash_limit(), "the grant after a release without an answer", wait).await???;
        holds_alone(&space, next, &third, token).await?;
        locks.close().await?;
    }
    Ok(())
}

async fn a_renewal_costs_no_lock(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let other = space.connect().await?;
    let name = space.name("renewed");
    for nth in 1..=3 {
        let (locks, proxy) = space.connect_wired().await?;
        let guard = locks.lock(&name).ttl(ttl).acquire().await?;
        proxy.lose_reply(nth);
        eventually(ttl + PROMPT, "the loss of a renewal's answer", || proxy.replies_lost() == 1).await?;
        outlives_a_cut(&space, &guard, &other, ttl * 3 / 2).await?;
        release(&space, guard).await?;
    }
    Ok(())
}

async fn a_connection_that_breaks_while_it_is_made(space: Space) -> Verdict {
    let (other, third) = (space.connect().await?, space.connect().await?);
    let name = space.name("fresh");
    for nth in 1..=FIRST {
        let proxy = space.proxy()?;
        proxy.lose_reply(nth);
        let backend = match space.backend_through(&proxy).await? {
            Err(error) if error.kind() == ErrorKind::Unavailable => space.backend_through(&proxy).await??,
            outcome => outcome?,
        };
        let locks = Locks::new(backend);
        let lock = locks.lock(&name).ttl(space.ttl()?);
        let guard = within(space.crash_limit(), "a claim on a new connection", lock.acquire()).await??;
        is_busy(&other, &name).await?;
        let token = guard.fencing_token();
        release(&space, guard).await?;
        is_given_to_one(&space, &other, &third, &name, token).await?;
    }
    Ok(())
}

/// Carries out `step` while the `nth` answer from now is lost, and so on, so many times.
async fn over_lost_answers<T>(
    proxy: &Proxy,
    nth: u32,
    times: u32,
    step: impl Future<Output = T> + Send,
) -> Verdict<T> {
    let lose = async {
        let before = proxy.replies_lost();
        for lost in 1..=times {
            proxy.lose_reply(nth);
            eventually(PROMPT * 2, "the loss of an answer", || {
                proxy.replies_lost() >= before + u64::from(lost)
            })
            .await?;
        }
        pending::<Verdict>().await
    };
    let outcome = tokio::select! {
        biased;
        lost = lose => Err(lost.err().unwrap_or_else(|| Failure::new("answers are lost for ever"))),
        outcome = step => Ok(outcome),
    };
    // It may not have had so many answers.
    proxy.restore();
    outcome
}

/// Fails unless `other` gets the lock soon, under a token above `after`, and keeps it from `third`; its token.
async fn is_given_to_one(
    space: &Space,
    other: &Locks,
    third: &Locks,
    name: &str,
    after: FencingToken,
) -> Verdict<FencingToken> {
    let lock = other.lock(name).ttl(space.ttl()?);
    let next = within(space.crash_limit(), "the next grant", lock.acquire()).await??;
    holds_alone(space, next, third, after).await
}

async fn holds_alone(
    space: &Space,
    next: LockGuard,
    third: &Locks,
    after: FencingToken,
) -> Verdict<FencingToken> {
    let token = next.fencing_token();
    check!(token > after, "token {token} after {after}");
    // Whatever is repeated arrives meanwhile.
    stays_held(&next, third, space.ttl()? / 2).await?;
    next.release().await?;
    Ok(token)
}
