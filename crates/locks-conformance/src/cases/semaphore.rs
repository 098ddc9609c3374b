//! Permits.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use locks_api::LockName;
use locks_api::spi::{Attempt, Grant, Mode, Offer, Released};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::wanting::{becomes_refused, begin, gets, has, is_refused, still_waits};
use super::{Case, Need, Requirement, need};
use crate::direct::Direct;
use crate::kind::{Kind, Want};
use crate::space::{PROMPT, Space, is_busy};
use crate::verdict::{Verdict, check, within};

pub(super) mod crowds;
pub(super) mod limits;

/// The need of every case with permits in it.
pub(super) const PERMITS: Requirement = need(Need::Offer(Offer::Permits), "offers::no_permits");

/// Those who wait are known to the store, so that nobody passes them.
const ORDER: Requirement = need(Need::Order, "semaphore::everybody_gets_a_turn");

pub(super) const CASES: &[Case] = &[
    Case::new(
        "semaphore::as_many_as_there_are_permits",
        "as many hold a permit as there are, over all instances, one more is busy, and each release lets one in",
        |space| Box::pin(as_many_as_there_are_permits(space)),
    )
    .needs(&[PERMITS]),
    Case::new(
        "semaphore::every_number_up_to_the_limit",
        "of a hundred tasks over three instances one, two and so on up to the limit are inside at once, and never more",
        |space| Box::pin(every_number_up_to_the_limit(space)),
    )
    .needs(&[PERMITS]),
    Case::new(
        "semaphore::drained_and_refilled",
        "whoever has all permits keeps everybody out; given back one by one, each lets one in",
        |space| Box::pin(drained_and_refilled(space)),
    )
    .needs(&[PERMITS]),
    Case::new(
        "semaphore::many_wait_for_enough",
        "who asks for many permits waits until so many are free at once, and gets them then",
        |space| Box::pin(many_wait_for_enough(space)),
    )
    .needs(&[PERMITS]),
    Case::new(
        "semaphore::few_do_not_pass_many",
        "while somebody waits for many permits nobody who comes later gets the few that are free",
        |space| Box::pin(few_do_not_pass_many(space)),
    )
    .needs(&[PERMITS, ORDER]),
    Case::new(
        "semaphore::everybody_gets_a_turn",
        "tasks of several instances that always want one, several or all permits all come to their end",
        |space| Box::pin(everybody_gets_a_turn(space)),
    )
    .needs(&[PERMITS]),
    Case::new(
        "semaphore::other_modes_exclude_all_permits",
        "the exclusive lock of the same name keeps out every permit and is kept out by each",
        |space| Box::pin(other_modes_exclude_all_permits(space)),
    )
    .needs(&[PERMITS]),
    Case::new(
        "semaphore::tokens_rise",
        "every grant of permits has a token of its own, above those of all that were granted before",
        |space| Box::pin(tokens_rise(space)),
    )
    .needs(&[PERMITS]),
    Case::new(
        "semaphore::each_step_hits_one_claim",
        "releasing, cancelling or repeating one claim of permits gives back or takes exactly what that claim has",
        |space| Box::pin(each_step_hits_one_claim(space)),
    )
    .needs(&[PERMITS]),
];

/// So many permits of a new semaphore.
fn permits(space: &Space, tag: &str, limit: u32) -> impl Fn(u32) -> Want + use<> {
    let name = space.name(tag);
    move |count| Want::new(Kind::Permits { count, limit }, &name)
}

async fn as_many_as_there_are_permits(space: Space) -> Verdict {
    let instances = [space.connect().await?, space.connect().await?, space.connect().await?];
    let one = permits(&space, "three", 3)(1);
    let mut held = Vec::new();
    for locks in &instances {
        held.push(has(locks, &one).await?);
    }
    for round in 0..6 {
        for locks in &instances {
            is_refused(locks, &one).await?;
        }
        let (freed, taker) = (held.remove(0), &instances[round % 3]);
        if round % 2 == 0 {
            freed.release().await?;
            held.push(has(taker, &one).await?);
        } else {
            let wait = begin(taker, &one);
            still_waits(&wait, "while all permits were held").await?;
            drop(freed);
            held.push(gets(wait, PROMPT, "a permit that was given back").await?);
        }
    }
    check!(held.iter().all(crate::kind::Held::is_held), "somebody else's release ended a hold");
    let mode = held[0].guard().mode();
    check!(mode == Mode::Permits { count: 1, limit: 3 }, "a permit is held as {mode}");
    for permit in held {
        permit.release().await?;
    }
    Ok(())
}

async fn every_number_up_to_the_limit(space: Space) -> Verdict {
    const LIMIT: u32 = 5;
    let instances = [space.connect().await?, space.connect().await?, space.connect().await?];
    let one = permits(&space, "crowded", LIMIT)(1);
    let (inside, seen) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new([0; 100])));
    // The first to come wait until the semaphore is full: it has to let that many in.
    let (entered, full) = (Arc::new(AtomicU32::new(0)), Arc::new(Barrier::new(LIMIT as usize)));
    let mut tasks = JoinSet::new();
    for number in 0..100 {
        let (locks, one) = (instances[number % 3].clone(), one.clone());
        let (inside, seen) = (Arc::clone(&inside), Arc::clone(&seen));
        let (entered, full) = (Arc::clone(&entered), Arc::clone(&full));
        tasks.spawn(async move {
            let permit = one.acquire(&locks).await?;
            let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
            seen.lock().unwrap_or_else(PoisonError::into_inner)[now as usize - 1] += 1;
            if entered.fetch_add(1, Ordering::SeqCst) < LIMIT {
                full.wait().await;
            }
            tokio::task::yield_now().await;
            inside.fetch_sub(1, Ordering::SeqCst);
            permit.release().await
        });
    }
    while let Some(outcome) = within(PROMPT, "a permit among many", tasks.join_next()).await? {
        outcome??;
    }
    let seen = *seen.lock().unwrap_or_else(PoisonError::into_inner);
    for (number, times) in (1..).zip(seen) {
        check!(
            (times > 0) == (number <= LIMIT),
            "{number} were inside at once {times} times, with {LIMIT} permits"
        );
    }
    Ok(())
}

async fn drained_and_refilled(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let permits = permits(&space, "drained", 4);
    let all = has(&one, &permits(4)).await?;
    for locks in [&one, &two] {
        is_refused(locks, &permits(1)).await?;
        is_refused(locks, &permits(4)).await?;
    }
    all.release().await?;
    let mut held = Vec::new();
    for count in [2, 1, 1] {
        held.push(has(&one, &permits(count)).await?);
    }
    for given_back in [2, 1, 1] {
        is_refused(&two, &permits(1)).await?;
        held.remove(0).release().await?;
        is_refused(&two, &permits(given_back + 1)).await?;
        for _ in 0..given_back {
            held.push(has(&two, &permits(1)).await?);
        }
    }
    for permit in held {
        permit.release().await?;
    }
    has(&two, &permits(4)).await?.release().await?;
    Ok(())
}

async fn many_wait_for_enough(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let permits = permits(&space, "many", 4);
    for waiter in [&two, &one] {
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(has(&one, &permits(1)).await?);
        }
        let wait = begin(waiter, &permits(3));
        for _ in 0..3 {
            still_waits(&wait, "before enough permits were free").await?;
            held.remove(0).release().await?;
        }
        let many = gets(wait, PROMPT, "three permits when three are free").await?;
        is_refused(waiter, &permits(1)).await?;
        many.release().await?;
        has(waiter, &permits(3)).await?.release().await?;
        held.remove(0).release().await?;
    }
    Ok(())
}

async fn few_do_not_pass_many(space: Space) -> Verdict {
    let (one, two, three) = (space.connect().await?, space.connect().await?, space.connect().await?);
    let permits = permits(&space, "queue", 3);
    for (holder, waiter, late) in [(&one, &two, &three), (&one, &one, &one)] {
        let first = has(holder, &permits(2)).await?;
        let many = begin(waiter, &permits(3));
        // One is free, and kept for who waits longer.
        becomes_refused(late, &permits(1)).await?;
        let few = begin(late, &permits(1));
        still_waits(&few, "before somebody who waits longer").await?;
        still_waits(&many, "before enough permits were free").await?;
        first.release().await?;
        let all = gets(many, PROMPT, "all permits").await?;
        still_waits(&few, "while all permits were held").await?;
        all.release().await?;
        gets(few, PROMPT, "one permit after all of them").await?.release().await?;
    }
    Ok(())
}

async fn everybody_gets_a_turn(space: Space) -> Verdict {
    let permits = permits(&space, "wanted", 3);
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        let locks = space.connect().await?;
        for count in [1, 1, 2, 3] {
            let (locks, want) = (locks.clone(), permits(count));
            tasks.spawn(async move {
                for _ in 0..15 {
                    let held = want.acquire(&locks).await?;
                    tokio::task::yield_now().await;
                    held.release().await?;
                }
                Ok::<_, locks_api::Error>(())
            });
        }
    }
    while let Some(outcome) = within(PROMPT * 2, "fifteen turns for everybody", tasks.join_next()).await? {
        outcome??;
    }
    Ok(())
}

async fn other_modes_exclude_all_permits(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let permits = permits(&space, "both", 3);
    let name = permits(1).name;
    let guard = one.lock(&name).acquire().await?;
    for locks in [&one, &two] {
        is_refused(locks, &permits(1)).await?;
    }
    let wait = begin(&two, &permits(2));
    still_waits(&wait, "beside an exclusive lock").await?;
    guard.release().await?;
    let held = gets(wait, PROMPT, "permits after an exclusive lock").await?;
    for locks in [&one, &two] {
        is_busy(locks, &name).await?;
    }
    if space.guarantees().offers.has(Offer::Shared) {
        is_refused(&one, &Want::new(Kind::Read, &name)).await?;
        is_refused(&two, &Want::new(Kind::Write, &name)).await?;
    }
    held.release().await?;
    if space.guarantees().offers.has(Offer::Shared) {
        let reader = has(&one, &Want::new(Kind::Read, &name)).await?;
        is_refused(&one, &permits(1)).await?;
        is_refused(&two, &permits(1)).await?;
        reader.release().await?;
    }
    Ok(())
}

async fn tokens_rise(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let permits = permits(&space, "numbered", 3);
    let mut highest = 0;
    for round in 0..10 {
        let mut held = Vec::new();
        for locks in [&one, &two, &one] {
            held.push(has(locks, &permits(1)).await?);
        }
        if round % 3 == 0 {
            // The lock that excludes them counts on, too.
            for permit in held.drain(..) {
                check!(permit.token().get() > highest, "token {} after token {highest}", permit.token());
                highest = permit.token().get();
                permit.release().await?;
            }
            held.push(has(&two, &Want::new(Kind::Lock, &permits(1).name)).await?);
        }
        for permit in held {
            check!(permit.token().get() > highest, "token {} after token {highest}", permit.token());
            highest = permit.token().get();
            permit.release().await?;
        }
    }
    Ok(())
}

async fn each_step_hits_one_claim(space: Space) -> Verdict {
    let name = LockName::new(space.name("steps"))?;
    let (one, two) = (Direct::new(space.backend().await?), Direct::new(space.backend().await?));
    let claim = |connection: &Direct, count| {
        connection.claim(&name, &space).with_mode(Mode::Permits { count, limit: 6 })
    };
    let claims = [claim(&one, 1), claim(&one, 2), claim(&two, 3)];
    let mut grants = Vec::new();
    for (connection, claim) in [&one, &one, &two].into_iter().zip(&claims) {
        grants.push(connection.granted(claim).await?);
    }
    for (connection, (claim, grant)) in [&one, &one, &two].into_iter().zip(claims.iter().zip(&grants)) {
        let again = connection.granted(claim).await?;
        check!(again.tokens == grant.tokens, "a claim that was sent again has {:?}", again.tokens);
        let more = connection.acquire(&connection.claim(&name, &space)).await?;
        check!(matches!(more, Attempt::Busy(_)), "{more:?} to an exclusive claim beside permits");
    }
    let forged = Grant::new(&claim(&two, 1), grants[0].tokens, grants[0].expiry);
    check!(two.release(&forged).await? == Released::NotHeld, "another claim released somebody's permits");
    // Repeated claims and foreign releases took nothing and gave nothing back.
    let answer = two.acquire(&claim(&two, 1)).await?;
    check!(matches!(answer, Attempt::Busy(_)), "{answer:?} although all permits are held");
    check!(one.release(&grants[1]).await? == Released::Done, "permits could not be released");
    check!(one.release(&grants[1]).await? == Released::NotHeld, "permits were released twice");
    let answer = two.acquire(&claim(&two, 3)).await?;
    check!(matches!(answer, Attempt::Busy(_)), "{answer:?} to three although two are free");
    let both = two.granted(&claim(&two, 2)).await?;
    two.cancel(&claims[2]).await?;
    two.cancel(&claims[2]).await?;
    let answer = one.acquire(&claim(&one, 4)).await?;
    check!(matches!(answer, Attempt::Busy(_)), "{answer:?} to four although three are free");
    let rest = one.granted(&claim(&one, 3)).await?;
    for (connection, grant) in [(&one, &grants[0]), (&two, &both), (&one, &rest)] {
        check!(connection.release(grant).await? == Released::Done, "permits could not be released");
    }
    let all = two.granted(&claim(&two, 6)).await?;
    check!(all.tokens.first() > rest.tokens.last(), "the tokens went back");
    two.release(&all).await?;
    one.close().await?;
    two.close().await
}
