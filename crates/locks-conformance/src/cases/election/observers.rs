//! Those who watch who leads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use locks_api::{ErrorKind, Leader, Locks, Observer};
use tokio::task::JoinSet;

use super::{VALUES, candidate};
use crate::cases::{Case, Need, need};
use crate::checker::Strictness;
use crate::history::{Mode, Op, Phase, Recorder};
use crate::polling::{poll_at_most, poll_now};
use crate::space::{PROMPT, Space, check_history};
use crate::verdict::{Failure, Verdict, check, pause_for, within};

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new(
        "election::observers_see_every_leader",
        "observers of several instances are told of each leader, of each new value and that nobody leads, in order and without being asked again",
        |space| Box::pin(observers_see_every_leader(space)),
    )
    .needs(&[VALUES]),
    Case::new(
        "election::an_observer_sees_a_loss",
        "when a leader is lost, observers are told soon after its time is up that nobody leads",
        |space| Box::pin(an_observer_sees_a_loss(space)),
    )
    .needs(&[VALUES, need(Need::Expiry, "lease::without_expiry_nothing_ends")]),
    Case::new(
        "election::an_observer_never_goes_back",
        "while leaders follow each other quickly no observer is told of an older one after a newer, and all are told of the last",
        |space| Box::pin(an_observer_never_goes_back(space)),
    )
    .needs(&[VALUES]),
    Case::new(
        "election::an_observer_that_leaves_leaves_nothing",
        "observing and dropping it, at every poll, costs the others nothing: those that stay are told of every change",
        |space| Box::pin(an_observer_that_leaves_leaves_nothing(space)),
    )
    .needs(&[VALUES]),
    Case::new(
        "election::an_observer_survives_an_outage",
        "a short outage of the store costs an observer nothing but time, and a long one is told as Unavailable",
        |space| Box::pin(an_observer_survives_an_outage(space)),
    )
    .needs(&[VALUES]),
];

async fn told(observer: &mut Observer) -> Verdict<Option<Leader>> {
    Ok(within(PROMPT, "what an observer is told", observer.next()).await??)
}

/// Fails unless every observer is told next that this one leads.
async fn all_are_told(observers: &mut [Observer], expected: Option<(u64, &str)>) -> Verdict {
    for observer in observers {
        let leader = told(observer).await?;
        let seen = leader.as_ref().map(|leader| (leader.token.get(), &*leader.value));
        check!(seen == expected, "an observer was told of {seen:?} instead of {expected:?}");
    }
    Ok(())
}

async fn observers_see_every_leader(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("led");
    let mut observers: Vec<Observer> =
        [&one, &two, &two].map(|locks| locks.election(&name).observe()).into_iter().collect();
    all_are_told(&mut observers, None).await?;
    for round in 0..8 {
        let locks = if round % 2 == 0 { &one } else { &two };
        for observer in &mut observers {
            let mut next = Box::pin(observer.next());
            check!(poll_now(next.as_mut()).await.is_pending(), "something was told though nothing changed");
        }
        let leadership = within(PROMPT, "a campaign", locks.election(&name).campaign("first")).await??;
        let token = leadership.fencing_token().get();
        all_are_told(&mut observers, Some((token, "first"))).await?;
        leadership.publish("second").await?;
        all_are_told(&mut observers, Some((token, "second"))).await?;
        let mut late = vec![locks.election(&name).observe()];
        all_are_told(&mut late, Some((token, "second"))).await?;
        leadership.resign().await?;
        all_are_told(&mut observers, None).await?;
    }
    Ok(())
}

async fn an_observer_sees_a_loss(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (locks, line) = space.connect_flaky().await?;
    let other = space.connect().await?;
    let name = space.name("led");
    let leadership = locks.election(&name).ttl(ttl).campaign("old").await?;
    let mut observer = other.election(&name).observe();
    let seen = told(&mut observer).await?;
    check!(seen.is_some_and(|leader| leader.token == leadership.fencing_token()), "the leader is not seen");
    line.cut.store(true, Ordering::SeqCst);
    let seen = within(ttl * 2 + PROMPT, "the end of a leader that was lost", observer.next()).await??;
    check!(seen.is_none(), "{seen:?} leads after the only leader was lost");
    check!(!leadership.is_held(), "nobody leads any more and the leader says that it does");
    line.cut.store(false, Ordering::SeqCst);
    Ok(())
}

async fn an_observer_never_goes_back(space: Space) -> Verdict {
    const CANDIDATES: u32 = 4;
    let recorder = Recorder::memory();
    let name = space.name("led");
    let over = Arc::new(AtomicBool::new(false));
    let mut observers = JoinSet::new();
    for number in 0..3 {
        let locks: Locks = space.connect().await?;
        let (client, over) = (recorder.client(100 + number), Arc::clone(&over));
        let name = name.clone();
        observers.spawn(async move {
            let mut observer = locks.election(&name).observe();
            loop {
                client.invoke(Op::Observe, &name, None);
                let seen = observer.next().await?;
                client.end(Op::Observe, Phase::Ok, &name, None, seen.as_ref().map(|leader| leader.token));
                if over.load(Ordering::SeqCst) && seen.is_some_and(|leader| &*leader.value == "last") {
                    return Ok::<_, locks_api::Error>(());
                }
            }
        });
    }
    let mut candidates = JoinSet::new();
    for number in 0..CANDIDATES {
        let (locks, client) = (space.connect().await?, recorder.client(number));
        let name = name.clone();
        candidates.spawn(async move {
            for round in 0..15 {
                client.acquiring(&name, Mode::Exclusive);
                let held = candidate(&name, &format!("{number}/{round}")).acquire(&locks).await?;
                let claim = held.guard().claim_id().to_string();
                client.end(Op::Acquire, Phase::Ok, &name, Some(claim), Some(held.token()));
                tokio::task::yield_now().await;
                client.invoke(Op::Release, &name, Some(held.token()));
                let token = held.token();
                held.release().await?;
                client.end(Op::Release, Phase::Ok, &name, None, Some(token));
            }
            Ok::<_, locks_api::Error>(())
        });
    }
    while let Some(outcome) = within(PROMPT * 2, "a turn to lead", candidates.join_next()).await? {
        outcome??;
    }
    over.store(true, Ordering::SeqCst);
    let locks = space.connect().await?;
    let client = recorder.client(CANDIDATES);
    client.acquiring(&name, Mode::Exclusive);
    let last = locks.election(&name).campaign("last").await?;
    client.end(Op::Acquire, Phase::Ok, &name, Some(last.claim_id().to_string()), Some(last.fencing_token()));
    while let Some(outcome) =
        within(PROMPT, "an observer's look at the last leader", observers.join_next()).await?
    {
        outcome??;
    }
    last.resign().await?;
    check_history(&recorder.events(), Strictness::NoFaults)
}

async fn an_observer_that_leaves_leaves_nothing(space: Space) -> Verdict {
    let other = space.connect().await?;
    let name = space.name("led");
    for locks in [space.connect().await?, space.connect_flaky().await?.0] {
        let election = locks.election(&name);
        let mut staying = vec![election.observe()];
        all_are_told(&mut staying, None).await?;
        for polls in 0..8 {
            let mut leaving = election.observe();
            drop(poll_at_most(polls, leaving.next()).await.transpose()?);
            // Dropped in the middle, it can be asked again.
            drop(poll_at_most(polls, leaving.next()).await.transpose()?);
            drop(leaving);
            let leadership = other.election(&name).campaign("here").await?;
            let token = leadership.fencing_token().get();
            all_are_told(&mut staying, Some((token, "here"))).await?;
            let mut asked_twice = election.observe();
            if poll_at_most(polls, asked_twice.next()).await.transpose()?.is_none() {
                all_are_told(std::slice::from_mut(&mut asked_twice), Some((token, "here"))).await?;
            }
            leadership.resign().await?;
            all_are_told(&mut staying, None).await?;
        }
        drop(staying);
        // The last one has left; whoever comes now is told from the beginning.
        all_are_told(&mut [election.observe()], None).await?;
        locks.close().await?;
    }
    Ok(())
}

async fn an_observer_survives_an_outage(space: Space) -> Verdict {
    let other = space.connect().await?;
    let name = space.name("led");
    let (locks, line) = space.connect_flaky().await?;
    let mut observers = vec![locks.election(&name).observe()];
    all_are_told(&mut observers, None).await?;
    line.cut.store(true, Ordering::SeqCst);
    let leadership = other.election(&name).campaign("here").await?;
    let mut next = Box::pin(observers[0].next());
    for _ in 0..5 {
        pause_for(Duration::from_millis(20)).await;
        match poll_now(next.as_mut()).await {
            Poll::Pending => {}
            Poll::Ready(told) => return Err(Failure::new(format!("{told:?} without any connection"))),
        }
    }
    line.cut.store(false, Ordering::SeqCst);
    let seen = within(PROMPT, "what an observer is told after an outage", next).await??;
    check!(seen.is_some_and(|leader| leader.token == leadership.fencing_token()), "the leader is not seen");
    let (locks, line) = {
        let (flaky, control) = crate::flaky::Flaky::new(space.backend().await?);
        (Locks::builder(flaky).store_timeout(Duration::from_millis(300)).build(), control)
    };
    line.cut.store(true, Ordering::SeqCst);
    let mut observer = locks.election(&name).observe();
    let told = within(PROMPT, "the end of an observer's patience", observer.next()).await?;
    let kind = told.map_err(|error| error.kind());
    check!(kind == Err(ErrorKind::Unavailable), "a store out of reach gave {kind:?}");
    line.cut.store(false, Ordering::SeqCst);
    let seen = within(PROMPT, "what an observer is told after an outage", observer.next()).await??;
    check!(seen.is_some_and(|leader| leader.token == leadership.fencing_token()), "the leader is not seen");
    leadership.resign().await?;
    Ok(())
}
