//! One holder at a time, and what callers are told.

use std::time::{Duration, Instant};

use locks_api::{ErrorKind, Outcome};
use tokio::task::JoinSet;

use super::Case;
use crate::checker::Strictness;
use crate::history::{Client, Op, Phase, Recorder};
use crate::space::{PROMPT, Space, becomes_free, check_history, is_busy};
use crate::verdict::{Failure, Verdict, check, within};
use crate::witness::Witness;

pub(super) const CASES: &[Case] = &[
    Case::new(
        "exclusive::second_try_is_busy",
        "a held lock is busy to a second try of the same process, another lock is not, and a released one is free",
        |space| Box::pin(second_try_is_busy(space)),
    ),
    Case::new(
        "exclusive::two_instances_exclude_each_other",
        "what one instance holds is busy to another on a connection of its own, until it is released",
        |space| Box::pin(two_instances_exclude_each_other(space)),
    ),
    Case::new(
        "exclusive::waiters_and_newcomers_meet",
        "whoever waited through a release and whoever comes after it contend for the same lock",
        |space| Box::pin(waiters_and_newcomers_meet(space)),
    ),
    Case::new(
        "exclusive::dropped_guard_frees",
        "dropping a guard releases the lock without anybody waiting for it",
        |space| Box::pin(dropped_guard_frees(space)),
    ),
    Case::new(
        "exclusive::second_lock_keeps_the_first",
        "taking and releasing other locks over the same connection leaves a held one held",
        |space| Box::pin(second_lock_keeps_the_first(space)),
    ),
    Case::new(
        "exclusive::one_of_many_tries_wins",
        "of many tries at once exactly one is granted and the others are told that it is busy",
        |space| Box::pin(one_of_many_tries_wins(space)),
    ),
    Case::new(
        "exclusive::hundred_tasks_never_overlap",
        "a hundred tasks over three instances are inside one at a time, and their history is that of one mutex",
        |space| Box::pin(hundred_tasks_never_overlap(space)),
    ),
    Case::new(
        "exclusive::many_locks_over_one_connection",
        "a thousand acquisitions of twenty locks over one connection overlap nowhere and none hangs",
        |space| Box::pin(many_locks_over_one_connection(space)),
    ),
    Case::new(
        "exclusive::timeout_ends_a_wait",
        "a wait with a timeout ends soon after it, names the lock and leaves the holder alone",
        |space| Box::pin(timeout_ends_a_wait(space)),
    ),
    Case::new(
        "exclusive::zero_timeout_tries_once",
        "a timeout of zero gets a free lock and is a Timeout at once on a held one",
        |space| Box::pin(zero_timeout_tries_once(space)),
    ),
    Case::new(
        "exclusive::zero_ttl_is_refused",
        "a ttl of zero is a Config error that leaves the lock free",
        |space| Box::pin(zero_ttl_is_refused(space)),
    ),
    Case::new(
        "exclusive::run_covers_its_body",
        "run holds the lock for exactly its body and try_run says whether it ran",
        |space| Box::pin(run_covers_its_body(space)),
    ),
    Case::new(
        "exclusive::close_ends_everything",
        "after close nothing is held or waited for, guards are lost, waits and new operations are Closed",
        |space| Box::pin(close_ends_everything(space)),
    ),
];

async fn second_try_is_busy(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let (name, other) = (space.name("one"), space.name("other"));
    let lock = locks.lock(&name);
    let guard = lock.acquire().await?;
    check!(guard.is_held(), "a fresh guard says that it is not held");
    check!(guard.name() == name, "the guard calls its lock {:?} instead of {name:?}", guard.name());
    check!(lock.try_acquire().await?.is_none(), "the same lock object was granted twice");
    is_busy(&locks, &name).await?;
    let Some(second) = locks.lock(&other).try_acquire().await? else {
        return Err(Failure::new("a free lock is busy because another one is held"));
    };
    second.release().await?;
    is_busy(&locks, &name).await?;
    guard.release().await?;
    check!(lock.try_acquire().await?.is_some(), "a released lock is still busy");
    Ok(())
}

async fn two_instances_exclude_each_other(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("shared");
    for (holder, other) in [(&one, &two), (&two, &one)] {
        let guard = within(PROMPT, "taking a free lock", holder.lock(&name).acquire()).await??;
        is_busy(other, &name).await?;
        check!(guard.is_held(), "a try of another instance ended the hold");
        guard.release().await?;
        let next = other.lock(&name).try_acquire().await?;
        check!(next.is_some(), "released by one instance and still busy to another");
    }
    Ok(())
}

async fn waiters_and_newcomers_meet(space: Space) -> Verdict {
    let (holder, waiter, newcomer) = (space.connect().await?, space.connect().await?, space.connect().await?);
    let name = space.name("shared");
    for _ in 0..3 {
        let guard = holder.lock(&name).acquire().await?;
        // One that was refused and one that waits: both may have kept something of the lock as it was then.
        is_busy(&newcomer, &name).await?;
        let lock = waiter.lock(&name);
        let wait = tokio::spawn(async move { lock.acquire().await });
        is_busy(&waiter, &name).await?;
        guard.release().await?;
        let waited = within(PROMPT, "a wait for a released lock", wait).await???;
        let late = space.connect().await?;
        for other in [&holder, &newcomer, &late] {
            is_busy(other, &name).await?;
        }
        check!(waited.is_held(), "the waiter's guard is not held");
        waited.release().await?;
        let guard = newcomer.lock(&name).acquire().await?;
        for other in [&holder, &waiter, &late] {
            is_busy(other, &name).await?;
        }
        guard.release().await?;
    }
    Ok(())
}

async fn dropped_guard_frees(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("dropped");
    for _ in 0..20 {
        drop(within(PROMPT, "taking a free lock", one.lock(&name).acquire()).await??);
        drop(within(PROMPT, "taking a dropped lock", two.lock(&name).acquire()).await??);
    }
    Ok(())
}

async fn second_lock_keeps_the_first(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let first = space.name("first");
    let guard = one.lock(&first).acquire().await?;
    for round in 0..10 {
        let other = one.lock(space.name(&format!("other-{round}"))).acquire().await?;
        is_busy(&two, &first).await?;
        other.release().await?;
        is_busy(&two, &first).await?;
    }
    check!(guard.is_held(), "the first lock was lost");
    guard.release().await?;
    Ok(())
}

async fn one_of_many_tries_wins(space: Space) -> Verdict {
    let instances = [space.connect().await?, space.connect().await?, space.connect().await?];
    for round in 0..10 {
        let name = space.name(&format!("prize-{round}"));
        let mut tries = JoinSet::new();
        for task in 0..30 {
            let lock = instances[task % 3].lock(&name);
            tries.spawn(async move { lock.try_acquire().await });
        }
        // Winners keep their guards until all have tried.
        let mut winners = Vec::new();
        while let Some(outcome) = within(PROMPT, "a try", tries.join_next()).await? {
            winners.extend(outcome??);
        }
        check!(winners.len() == 1, "{} of 30 tries at once were granted", winners.len());
    }
    Ok(())
}

async fn hundred_tasks_never_overlap(space: Space) -> Verdict {
    const TASKS: u32 = 100;
    let instances = [space.connect().await?, space.connect().await?, space.connect().await?];
    let (recorder, name) = (Recorder::memory(), space.name("shared"));
    let mut tasks = JoinSet::new();
    for number in 0..TASKS {
        let lock = instances[number as usize % 3].lock(&name);
        tasks.spawn(visit(lock, recorder.client(number), 3));
    }
    while let Some(outcome) = within(PROMPT, "an acquisition among many", tasks.join_next()).await? {
        outcome??;
    }
    let events = recorder.events();
    check!(events.len() == TASKS as usize * 3 * 6, "the history has {} events", events.len());
    check_history(&events, Strictness::NoFaults)
}

async fn many_locks_over_one_connection(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let recorder = Recorder::memory();
    let names: Vec<String> = (0..20).map(|number| space.name(&format!("lock-{number}"))).collect();
    let mut tasks = JoinSet::new();
    for number in 0..50 {
        let chosen: Vec<_> = (0..20).map(|_| locks.lock(&names[fastrand::usize(..names.len())])).collect();
        let client = recorder.client(number);
        tasks.spawn(async move {
            for lock in chosen {
                visit(lock, client.clone(), 1).await?;
            }
            Verdict::Ok(())
        });
    }
    while let Some(outcome) = within(PROMPT, "an acquisition among many", tasks.join_next()).await? {
        outcome??;
    }
    check_history(&recorder.events(), Strictness::NoFaults)
}

/// Takes the lock, looks around and gives it back, and writes it all down.
pub(super) async fn visit(lock: locks_api::Lock, client: Client, times: u32) -> Verdict {
    let name = lock.name().to_owned();
    for _ in 0..times {
        client.invoke(Op::Acquire, &name, None);
        let guard = lock.acquire().await?;
        let token = guard.fencing_token();
        client.end(Op::Acquire, Phase::Ok, &name, Some(guard.claim_id().to_string()), Some(token));
        let witness = match Witness::enter(&name)? {
            Ok(witness) => witness,
            Err(overlap) => {
                let what = format!("two were inside at once: {overlap:?}");
                return Err(Failure::new(what).about(&name, vec![token.get()]));
            }
        };
        // Lets others run while the lock is held.
        tokio::task::yield_now().await;
        client.invoke(Op::Check, &name, Some(token));
        let held = guard.is_held();
        client.answered(&name, token, held);
        check!(held, "the lock was lost though nothing happened to the store");
        drop(witness);
        client.invoke(Op::Release, &name, Some(token));
        let phase = match guard.release().await {
            Ok(()) => Phase::Ok,
            // On a bad line: it may have happened, and is tried again until it has.
            Err(error) if error.kind() == ErrorKind::Unavailable => Phase::Info,
            Err(error) => return Err(error.into()),
        };
        client.end(Op::Release, phase, &name, None, Some(token));
    }
    Ok(())
}

async fn timeout_ends_a_wait(space: Space) -> Verdict {
    const TIMEOUT: Duration = Duration::from_millis(200);
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("held");
    let guard = one.lock(&name).label("the holder").acquire().await?;
    let began = Instant::now();
    let error =
        match within(PROMPT, "a wait with a timeout", two.lock(&name).acquire_timeout(TIMEOUT)).await? {
            Ok(_) => return Err(Failure::new("a held lock was granted")),
            Err(error) => error,
        };
    let took = began.elapsed();
    check!(error.kind() == ErrorKind::Timeout, "{error:?} instead of a Timeout");
    check!(took >= TIMEOUT, "the wait ended after {took:?}, before its timeout");
    check!(took < TIMEOUT + Duration::from_secs(5), "the wait ended {took:?} after it began");
    check!(error.lock_name() == Some(&*name), "the error names {:?}", error.lock_name());
    check!(error.to_string().contains(&name), "the message does not name the lock: {error}");
    if let Some(pid) = error.busy().and_then(|busy| busy.holder()).and_then(|holder| holder.pid) {
        check!(pid == std::process::id(), "the error names process {pid} as the holder");
    }
    check!(guard.is_held(), "a wait of another instance ended the hold");
    guard.release().await?;
    // What the wait that ended has left in the store, it may take a moment to undo.
    becomes_free(&one, &name, PROMPT).await?;
    becomes_free(&two, &name, PROMPT).await
}

async fn zero_timeout_tries_once(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("zero");
    let guard = one.lock(&name).acquire_timeout(Duration::ZERO).await?;
    for locks in [&one, &two] {
        match within(PROMPT, "a wait of zero", locks.lock(&name).acquire_timeout(Duration::ZERO)).await? {
            Ok(_) => return Err(Failure::new("a held lock was granted")),
            Err(error) => check!(error.kind() == ErrorKind::Timeout, "{error:?} instead of a Timeout"),
        }
    }
    guard.release().await?;
    Ok(())
}

async fn zero_ttl_is_refused(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let name = space.name("zero");
    match locks.lock(&name).ttl(Duration::ZERO).try_acquire().await {
        Ok(_) => return Err(Failure::new("a ttl of zero was taken")),
        Err(error) => check!(error.kind() == ErrorKind::Config, "{error:?} instead of a Config error"),
    }
    check!(locks.lock(&name).try_acquire().await?.is_some(), "what was refused left the lock busy");
    Ok(())
}

async fn run_covers_its_body(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("run");
    let lock = one.lock(&name);
    let inside = lock
        .run(async {
            let try_of_other = two.lock(&name).try_run(async {}).await;
            let own = lock.try_acquire().await;
            (try_of_other, own.map_err(|error| error.kind()).err())
        })
        .await?;
    match inside.0? {
        Outcome::Skipped(_) => {}
        Outcome::Ran(()) => return Err(Failure::new("a body ran beside another")),
    }
    check!(inside.1 == Some(ErrorKind::WouldDeadlock), "asking again inside the body gave {:?}", inside.1);
    match two.lock(&name).try_run(async { 7 }).await? {
        Outcome::Ran(7) => Ok(()),
        other => Err(Failure::new(format!("a free lock gave {other:?}"))),
    }
}

async fn close_ends_everything(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let (name, contended) = (space.name("held"), space.name("contended"));
    let guard = one.lock(&name).acquire().await?;
    let obstacle = two.lock(&contended).acquire().await?;
    let waiting = one.lock(&contended);
    let wait = tokio::spawn(async move { waiting.acquire().await });
    is_busy(&one, &contended).await?;

    within(PROMPT, "closing", one.close()).await??;
    check!(!guard.is_held(), "a guard outlived its Locks");
    within(PROMPT, "hearing of the loss", guard.lost()).await?;
    let released = guard.release().await.map_err(|error| error.kind());
    check!(released == Err(ErrorKind::Lost), "releasing a lost guard gave {released:?}");
    let waited = within(PROMPT, "the end of the wait", wait).await??.map(drop).map_err(|error| error.kind());
    check!(waited == Err(ErrorKind::Closed), "the wait ended with {waited:?}");
    let late = one.lock(&name).try_acquire().await.map(drop).map_err(|error| error.kind());
    check!(late == Err(ErrorKind::Closed), "a closed Locks answered {late:?}");

    check!(two.lock(&name).try_acquire().await?.is_some(), "close left the lock busy");
    obstacle.release().await?;
    becomes_free(&two, &contended, PROMPT).await
}
