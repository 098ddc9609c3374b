//! Several locks that can't be had all at once, and several that are lost one by one.

use std::time::Duration;

use locks_api::spi::Offer;
use locks_api::{ErrorKind, LossReason};
use tokio::task::JoinSet;

use super::{all, three};
use crate::cases::process::PROCESSES;
use crate::cases::wanting::{begin, gets, still_waits};
use crate::cases::{Case, Need, need};
use crate::kind::Want;
use crate::polling::poll_at_most;
use crate::space::{PROMPT, Space, becomes_free, is_busy};
use crate::verdict::{Failure, Verdict, check, within};
use crate::witness::Witness;
use crate::worker::{Order, Reply};

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new(
        "lock_all::a_wait_gets_all_in_the_end",
        "who waits for several locks gets all of them once each was given back, whoever held which",
        |space| Box::pin(a_wait_gets_all_in_the_end(space)),
    ),
    Case::new(
        "lock_all::a_wait_that_ends_gives_all_back",
        "a wait for several locks that times out names the one that was missing, and the others are free again",
        |space| Box::pin(a_wait_that_ends_gives_all_back(space)),
    ),
    Case::new(
        "lock_all::a_wait_dropped_half_way_gives_all_back",
        "dropping a wait for several locks after any number of polls, while one of them is held, leaves the others free",
        |space| Box::pin(a_wait_dropped_half_way_gives_all_back(space)),
    ),
    Case::new(
        "lock_all::crossing_tasks_never_deadlock",
        "tasks that want the same locks in every order, and single ones of them, all come to their end, one at a time",
        |space| Box::pin(crossing_tasks_never_deadlock(space)),
    ),
    Case::new(
        "lock_all::crossing_processes_never_deadlock",
        "processes that want two locks in opposite orders all come to their end",
        |space| Box::pin(crossing_processes_never_deadlock(space)),
    )
    .needs(&[PROCESSES])
    .deadline(120),
    Case::new(
        "lock_all::the_loss_of_one_is_told_by_name",
        "when one of several locks is broken the guard says which, holds no more as a whole, and gives the others back",
        |space| Box::pin(the_loss_of_one_is_told_by_name(space)),
    )
    .needs(&[need(Need::Offer(Offer::Breaking), "offers::no_breaking")]),
];

async fn a_wait_gets_all_in_the_end(space: Space) -> Verdict {
    let (one, two, three_) = (space.connect().await?, space.connect().await?, space.connect().await?);
    let names = three(&space);
    let [a, b, c] = &names;
    for order in [[a, b, c], [c, b, a], [b, a, c]] {
        let mut held = Vec::new();
        for (name, holder) in order.into_iter().zip([&two, &three_, &one]) {
            held.push(holder.lock(name).acquire().await?);
        }
        let wait = begin(&one, &all(&[b, c, a]));
        for guard in held {
            still_waits(&wait, "before all locks were free").await?;
            guard.release().await?;
        }
        let got = gets(wait, PROMPT, "all locks").await?;
        for name in &names {
            is_busy(&two, name).await?;
        }
        got.release().await?;
    }
    Ok(())
}

async fn a_wait_that_ends_gives_all_back(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let names = three(&space);
    for obstacle in &names {
        let guard = two.lock(obstacle).acquire().await?;
        let all = one.lock_all(&names);
        let wait = all.acquire_timeout(Duration::from_millis(100));
        let error = match within(PROMPT, "a wait with a timeout", wait).await? {
            Ok(got) => return Err(Failure::new(format!("{got:?} although {obstacle:?} is held"))),
            Err(error) => error,
        };
        check!(error.kind() == ErrorKind::Timeout, "{error:?} instead of a Timeout");
        check!(error.lock_name() == Some(obstacle), "the error names {:?}", error.lock_name());
        for name in names.iter().filter(|name| *name != obstacle) {
            becomes_free(&two, name, PROMPT).await?;
        }
        check!(guard.is_held(), "a wait that ended took the lock from its holder");
        guard.release().await?;
        becomes_free(&two, obstacle, PROMPT).await?;
    }
    Ok(())
}

async fn a_wait_dropped_half_way_gives_all_back(space: Space) -> Verdict {
    let (holder, other) = (space.connect().await?, space.connect().await?);
    let names = three(&space);
    for locks in [space.connect().await?, space.connect_flaky().await?.0] {
        for obstacle in &names[1..] {
            for polls in 0..10 {
                let guard = within(PROMPT, "a free lock", holder.lock(obstacle).acquire()).await??;
                let waited = poll_at_most(polls, locks.lock_all(&names).acquire()).await.transpose()?;
                check!(waited.is_none(), "all locks were had although one is held");
                for name in names.iter().filter(|name| *name != obstacle) {
                    becomes_free(&other, name, PROMPT).await?;
                }
                guard.release().await?;
                becomes_free(&other, obstacle, PROMPT).await?;
            }
        }
    }
    Ok(())
}

async fn crossing_tasks_never_deadlock(space: Space) -> Verdict {
    let instances = [space.connect().await?, space.connect().await?, space.connect().await?];
    let names = three(&space);
    let [a, b, c] = &names;
    let orders =
        [vec![a, b], vec![b, a], vec![b, c], vec![c, a], vec![a, b, c], vec![c, b, a], vec![a], vec![b]];
    let mut tasks = JoinSet::new();
    for number in 0..24 {
        let locks = instances[number % 3].clone();
        let want: Vec<String> = orders[number % orders.len()].iter().map(|name| (*name).clone()).collect();
        tasks.spawn(async move {
            for _ in 0..10 {
                let held = locks.lock_all(&want).acquire().await?;
                let mut witnesses = Vec::new();
                for name in &want {
                    match Witness::enter(name)? {
                        Ok(witness) => witnesses.push(witness),
                        Err(overlap) => {
                            return Err(Failure::new(format!(
                                "two were inside {name:?} at once: {overlap:?}"
                            )));
                        }
                    }
                }
                tokio::task::yield_now().await;
                drop(witnesses);
                held.release().await?;
            }
            Verdict::Ok(())
        });
    }
    while let Some(outcome) = within(PROMPT * 2, "several locks among many tasks", tasks.join_next()).await? {
        outcome??;
    }
    Ok(())
}

async fn crossing_processes_never_deadlock(space: Space) -> Verdict {
    let [a, b, _] = three(&space);
    let mut workers = space.workers(4).await?;
    let wants: [Want; 2] = [all(&[&a, &b]), all(&[&b, &a])].map(|want| want.ttl(space.short_ttl()));
    for _ in 0..10 {
        for (worker, want) in workers.iter_mut().zip(wants.iter().cycle()) {
            worker.order(&Order::Take { want: want.clone(), wait: true })?;
        }
        // One after the other has both, in whatever order.
        let mut waiting: Vec<_> = workers.iter_mut().collect();
        while !waiting.is_empty() {
            match crate::worker::Worker::first_reply(&mut waiting, PROMPT).await? {
                (index, Reply::Granted { .. }) => {
                    let worker = waiting.swap_remove(index);
                    check!(worker.ask(&Order::Check).await? == Reply::Held(true), "granted and not held");
                    check!(worker.ask(&Order::Release).await? == Reply::Released, "could not release");
                }
                (_, other) => return Err(Failure::new(format!("a waiting process answered {other:?}"))),
            }
        }
    }
    Ok(())
}

async fn the_loss_of_one_is_told_by_name(space: Space) -> Verdict {
    let ttl = space.short_ttl();
    let (one, two) = (space.connect().await?, space.connect().await?);
    let names = three(&space);
    let [a, b, c] = &names;
    let mut lock = one.lock_all(&names);
    if let Some(ttl) = ttl {
        lock = lock.ttl(ttl);
    }
    for broken in &names {
        let guard = within(PROMPT, "taking free locks", lock.acquire()).await??;
        let taken = within(PROMPT, "breaking", two.break_lock(broken)).await??;
        check!(taken == 1, "a lock with one holder was taken from {taken}");
        let (name, reason) = within(space.crash_limit(), "hearing of the loss", guard.lost()).await?;
        check!(name == broken, "{broken:?} was broken and the loss of {name:?} was told");
        check!(reason == LossReason::Revoked, "lost because {reason}");
        check!(!guard.is_held() && guard.deadline().is_none(), "one of the locks is lost and all are held");
        for name in names.iter().filter(|name| *name != broken) {
            is_busy(&two, name).await?;
        }
        let kind = within(PROMPT, "a release", guard.release()).await?.map_err(|error| error.kind());
        check!(kind == Err(ErrorKind::Lost), "a release after the loss of one gave {kind:?}");
        for name in [a, b, c] {
            becomes_free(&two, name, PROMPT).await?;
        }
        let run = lock.run(async {
            two.break_lock(broken).await?;
            std::future::pending::<locks_api::Result<()>>().await
        });
        let kind = within(space.crash_limit(), "the end of a body", run).await?.map(drop);
        check!(
            kind.map_err(|error| error.kind()) == Err(ErrorKind::Lost),
            "a body went on after the loss of a lock"
        );
    }
    Ok(())
}
