//! Waiting, being woken, and in which order.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use locks_api::spi::Attempt;
use locks_api::{Boottime, LockGuard, LockName};
use tokio::task::JoinSet;

use super::exclusive::visit;
use super::{Case, Need, need};
use crate::checker::Strictness;
use crate::direct::Direct;
use crate::history::Recorder;
use crate::polling::poll_now;
use crate::space::{PROMPT, Space, check_history, is_busy};
use crate::verdict::{Failure, Verdict, check, pause_for, within};
use crate::worker::{Hammer, Mix, Order, Reply, Worker};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "waiting::a_waiter_is_served_after_a_release",
        "who waits gets the lock soon after another instance has released it, every time",
        |space| Box::pin(a_waiter_is_served_after_a_release(space)),
    ),
    Case::new(
        "waiting::a_waiter_is_served_after_a_drop",
        "who waits gets the lock soon after another instance has dropped its guard",
        |space| Box::pin(a_waiter_is_served_after_a_drop(space)),
    ),
    Case::new(
        "waiting::hand_offs_never_stall",
        "three instances that take the lock in turns, hundreds of times, always come to their end",
        |space| Box::pin(hand_offs_never_stall(space)),
    ),
    Case::new(
        "waiting::tasks_are_served_in_order",
        "the tasks of one instance get the lock in the order in which they asked for it",
        |space| Box::pin(tasks_are_served_in_order(space)),
    ),
    Case::new(
        "waiting::a_waiter_that_leaves_lets_the_next_in",
        "waits that are dropped or time out, in one instance and in another, hold up nobody behind them",
        |space| Box::pin(a_waiter_that_leaves_lets_the_next_in(space)),
    ),
    Case::new(
        "waiting::fair_inside_a_process",
        "sixteen tasks of one instance that always want the lock get equal shares (Jain's index at least 0.99)",
        |space| Box::pin(fair_inside_a_process(space)),
    ),
    Case::new(
        "waiting::nobody_starves",
        "each of eight instances that always want the lock gets it twenty times before long",
        |space| Box::pin(nobody_starves(space)),
    ),
    Case::new(
        "waiting::fair_between_processes",
        "eight processes that always want the lock get nearly equal shares (Jain's index at least 0.95)",
        |space| Box::pin(fair_between_processes(space)),
    )
    .needs(&[
        need(Need::Processes, "process::one_process_offers_no_others"),
        need(Need::Order, "waiting::nobody_starves"),
    ]),
    Case::new(
        "waiting::the_store_serves_in_order",
        "claims that wait in the store are granted in the order in which they came, and a try passes none of them",
        |space| Box::pin(the_store_serves_in_order(space)),
    )
    .needs(&[need(Need::StrictOrder, "waiting::nobody_starves")]),
];

/// How long a wake-up may take: far less than any ttl, far more than any machine needs.
const WAKE_UP: Duration = Duration::from_secs(5);

async fn a_waiter_is_served_after_a_release(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("handed-over");
    let mut delays = Vec::new();
    let mut holder = one.lock(&name).acquire().await?;
    for round in 0..20 {
        let waiting = if round % 2 == 0 { &two } else { &one }.lock(&name);
        let wait = tokio::spawn(async move { waiting.acquire().await });
        is_waiting(&wait).await?;
        let released = Instant::now();
        holder.release().await?;
        holder = within(WAKE_UP, "the grant to a waiter after a release", wait).await???;
        delays.push(released.elapsed());
    }
    delays.sort_unstable();
    let median = delays[delays.len() / 2];
    check!(
        median < Duration::from_secs(1),
        "waiters got the lock {median:?} after its release, in the median"
    );
    holder.release().await?;
    Ok(())
}

async fn a_waiter_is_served_after_a_drop(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("dropped");
    let mut holder = one.lock(&name).acquire().await?;
    for round in 0..10 {
        let waiting = if round % 2 == 0 { &two } else { &one }.lock(&name);
        let wait = tokio::spawn(async move { waiting.acquire().await });
        is_waiting(&wait).await?;
        drop(holder);
        holder = within(WAKE_UP, "the grant to a waiter after a drop", wait).await???;
    }
    Ok(())
}

/// Lets a wait get as far as it gets while the lock is held: into the store's queue, if there is one. Nothing tells
/// when it is there; if it is not, the round is merely easier.
async fn is_waiting(wait: &tokio::task::JoinHandle<locks_api::Result<LockGuard>>) -> Verdict {
    pause_for(Duration::from_millis(5)).await;
    check!(!wait.is_finished(), "a wait for a held lock ended");
    Ok(())
}

async fn hand_offs_never_stall(space: Space) -> Verdict {
    let recorder = Recorder::memory();
    let name = space.name("ping-pong");
    let mut tasks = JoinSet::new();
    for number in 0..3 {
        let locks = space.connect().await?;
        let client = recorder.client(number);
        let lock = locks.lock(&name);
        tasks.spawn(visit(lock, client, 100));
    }
    while let Some(outcome) = within(PROMPT * 2, "a hundred hand-offs", tasks.join_next()).await? {
        outcome??;
    }
    check_history(&recorder.events(), Strictness::NoFaults)
}

async fn tasks_are_served_in_order(space: Space) -> Verdict {
    const TASKS: usize = 50;
    let (locks, other) = (space.connect().await?, space.connect().await?);
    let name = space.name("queue");
    let lock = locks.lock(&name);
    // Once with the lock in the process, once with it elsewhere.
    for holder in [&locks, &other] {
        let guard = within(PROMPT, "taking a free lock", holder.lock(&name).acquire()).await??;
        let served = Mutex::new(Vec::new());
        let mut waits: Vec<Pin<Box<dyn Future<Output = locks_api::Result<()>> + Send + '_>>> = Vec::new();
        for number in 0..TASKS {
            let (lock, served) = (&lock, &served);
            waits.push(Box::pin(async move {
                let guard = lock.acquire().await?;
                served.lock().unwrap_or_else(PoisonError::into_inner).push(number);
                guard.release().await
            }));
        }
        for wait in &mut waits {
            check!(poll_now(wait.as_mut()).await.is_pending(), "a wait for a held lock ended");
        }
        guard.release().await?;
        // Polled in the reverse order, so that only the queue can put them right.
        let all = async {
            while !waits.is_empty() {
                for index in (0..waits.len()).rev() {
                    if let Poll::Ready(outcome) = poll_now(waits[index].as_mut()).await {
                        drop(waits.remove(index));
                        outcome?;
                    }
                }
                tokio::task::yield_now().await;
            }
            Ok::<_, locks_api::Error>(())
        };
        within(PROMPT, "serving everybody", all).await??;
        let served = served.lock().unwrap_or_else(PoisonError::into_inner).clone();
        check!(served.is_sorted(), "served in the order {served:?}");
    }
    Ok(())
}

async fn a_waiter_that_leaves_lets_the_next_in(space: Space) -> Verdict {
    let (holder, near, far) = (space.connect().await?, space.connect().await?, space.connect().await?);
    let name = space.name("left");
    for leaver in [&near, &far] {
        let guard = within(PROMPT, "taking a free lock", holder.lock(&name).acquire()).await??;
        let leaving = leaver.lock(&name);
        let dropped = tokio::spawn({
            let lock = leaving.clone();
            async move { lock.acquire().await }
        });
        is_waiting(&dropped).await?;
        let timed_out = tokio::spawn(async move { leaving.acquire_timeout(Duration::from_millis(50)).await });
        is_waiting(&timed_out).await?;
        let mut staying = Vec::new();
        for locks in [&near, &far] {
            let lock = locks.lock(&name);
            let wait = tokio::spawn(async move { lock.acquire().await });
            is_waiting(&wait).await?;
            staying.push(wait);
        }
        dropped.abort();
        check!(dropped.await.is_err(), "a wait for a held lock ended");
        let error = within(PROMPT, "the end of a timeout", timed_out).await??.map(drop);
        check!(error.is_err(), "a held lock was granted");
        is_busy(&far, &name).await?;
        guard.release().await?;
        // Whoever comes first lets the other in.
        let mut all = JoinSet::new();
        for wait in staying {
            all.spawn(async move {
                within(WAKE_UP * 2, "the grant behind one that left", wait)
                    .await???
                    .release()
                    .await
                    .map_err(Failure::from)
            });
        }
        while let Some(outcome) = all.join_next().await {
            outcome??;
        }
    }
    Ok(())
}

async fn fair_inside_a_process(space: Space) -> Verdict {
    const TASKS: usize = 16;
    let locks = space.connect().await?;
    let name = space.name("wanted");
    let shares = Arc::new(Mutex::new([0_u32; TASKS]));
    let enough = Boottime::now().after(Duration::from_millis(700));
    let mut tasks = JoinSet::new();
    for number in 0..TASKS {
        let (lock, shares) = (locks.lock(&name), Arc::clone(&shares));
        tasks.spawn(async move {
            while Boottime::now() < enough {
                let guard = lock.acquire().await?;
                shares.lock().unwrap_or_else(PoisonError::into_inner)[number] += 1;
                tokio::task::yield_now().await;
                guard.release().await?;
            }
            Ok::<_, locks_api::Error>(())
        });
    }
    while let Some(outcome) = within(PROMPT, "a turn", tasks.join_next()).await? {
        outcome??;
    }
    let shares = *shares.lock().unwrap_or_else(PoisonError::into_inner);
    let index = jain(&shares);
    check!(index >= 0.99, "Jain's index is {index:.3}: {shares:?}");
    Ok(())
}

async fn nobody_starves(space: Space) -> Verdict {
    let name = space.name("wanted");
    let mut tasks = JoinSet::new();
    let unserved = Arc::new(Mutex::new(8));
    for _ in 0..8 {
        let (lock, unserved) = (space.connect().await?.lock(&name), Arc::clone(&unserved));
        tasks.spawn(async move {
            let mut turns = 0;
            // Goes on competing until everybody has had enough.
            while *unserved.lock().unwrap_or_else(PoisonError::into_inner) > 0 {
                let guard = lock.acquire().await?;
                turns += 1;
                if turns == 20 {
                    *unserved.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
                }
                tokio::task::yield_now().await;
                guard.release().await?;
            }
            Ok::<_, locks_api::Error>(())
        });
    }
    while let Some(outcome) = within(PROMPT * 2, "twenty turns for everybody", tasks.join_next()).await? {
        outcome??;
    }
    Ok(())
}

async fn fair_between_processes(space: Space) -> Verdict {
    let name = space.name("wanted");
    let mut workers = space.workers(8).await?;
    // Whoever has a connection first would have the lock for itself until the others have theirs.
    take_turns(&space, &mut workers, &name, 1, PROMPT).await?;
    let shares = take_turns(&space, &mut workers, &name, u32::MAX, Duration::from_secs(3)).await?;
    let index = jain(&shares);
    check!(shares.iter().all(|share| *share > 0), "somebody got nothing: {shares:?}");
    check!(index >= 0.95, "Jain's index is {index:.3}: {shares:?}");
    Ok(())
}

/// How often each of them got the lock within this time, up to so many times.
async fn take_turns(
    space: &Space,
    workers: &mut [Worker],
    name: &str,
    rounds: u32,
    time: Duration,
) -> Verdict<Vec<u32>> {
    let until = Boottime::now().after(time).as_nanos();
    for worker in &mut *workers {
        worker.order(&Order::Hammer(Hammer {
            name: name.to_owned(),
            mix: Mix::Exclusive,
            ttl: space.short_ttl(),
            rounds,
            until,
            hold: Duration::from_micros(200),
            history: None,
            witness: true,
            patient: false,
        }))?;
    }
    let mut shares = Vec::new();
    for worker in workers {
        match worker.reply_within(PROMPT).await? {
            Reply::Hammered { rounds } => shares.push(rounds),
            other => return Err(Failure::new(format!("a worker answered {other:?}"))),
        }
    }
    Ok(shares)
}

/// 1 if all shares are equal, 1/n if one has it all.
fn jain(shares: &[u32]) -> f64 {
    let sum: f64 = shares.iter().copied().map(f64::from).sum();
    let squares: f64 = shares.iter().copied().map(|share| f64::from(share).powi(2)).sum();
    let count = u32::try_from(shares.len()).map_or(f64::INFINITY, f64::from);
    if squares == 0.0 { 0.0 } else { sum * sum / (count * squares) }
}

async fn the_store_serves_in_order(space: Space) -> Verdict {
    let name = LockName::new(space.name("queue"))?;
    let holder = Direct::new(space.backend().await?);
    let mut grant = holder.granted(&holder.claim(&name, &space)).await?;
    let mut queue = Vec::new();
    for _ in 0..5 {
        let waiter = Direct::new(space.backend().await?);
        let claim = waiter.claim(&name, &space).waiting();
        match waiter.acquire(&claim).await? {
            Attempt::Queued { .. } => queue.push((waiter, claim)),
            other => {
                return Err(Failure::new(format!("{other:?} for a claim that may wait, in a strict store")));
            }
        }
    }
    let newcomer = Direct::new(space.backend().await?);
    holder.release(&grant).await?;
    for turn in 0..queue.len() {
        let rival = newcomer.claim(&name, &space);
        check!(matches!(newcomer.acquire(&rival).await?, Attempt::Busy(_)), "a try passed those who wait");
        for (waiter, claim) in queue.iter().skip(turn + 1) {
            let answer = waiter.acquire(claim).await?;
            check!(matches!(answer, Attempt::Queued { .. }), "{answer:?} before its turn");
        }
        let (waiter, claim) = &queue[turn];
        grant = waiter.granted(claim).await?;
        waiter.release(&grant).await?;
    }
    let rival = newcomer.claim(&name, &space);
    let last = newcomer.granted(&rival).await?;
    newcomer.release(&last).await?;
    for connection in queue.iter().map(|(waiter, _)| waiter).chain([&holder, &newcomer]) {
        connection.close().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::jain;

    #[test]
    fn jains_index_runs_from_equal_to_all_for_one() {
        assert!((jain(&[5, 5, 5, 5]) - 1.0).abs() < 1e-9);
        assert!((jain(&[8, 0, 0, 0]) - 0.25).abs() < 1e-9);
        assert!(jain(&[0, 0]) < 1e-9);
    }
}
