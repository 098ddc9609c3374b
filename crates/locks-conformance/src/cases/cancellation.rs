//! Futures that are dropped, at every point at which that can happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use locks_api::Locks;
use tokio::task::JoinHandle;

use super::Case;
use crate::polling::{counting_polls, poll_at_most};
use crate::space::{PROMPT, Space, becomes_free};
use crate::verdict::{Failure, Verdict, check, pause_for, within};
use crate::witness::Witness;

pub(super) mod kinds;

pub(super) const CASES: &[Case] = &[
    Case::new(
        "cancellation::acquire_dropped_at_every_poll",
        "acquiring a free lock and dropping the future after any number of polls leaves it free",
        |space| Box::pin(acquire_dropped_at_every_poll(space)),
    ),
    Case::new(
        "cancellation::wait_dropped_at_every_poll",
        "waiting for a held lock and dropping the future after any number of polls leaves no waiter and no holder",
        |space| Box::pin(wait_dropped_at_every_poll(space)),
    ),
    Case::new(
        "cancellation::grant_dropped_at_every_poll",
        "dropping a wait after any number of polls from the holder's release on leaves the lock free",
        |space| Box::pin(grant_dropped_at_every_poll(space)),
    ),
    Case::new(
        "cancellation::release_dropped_at_every_poll",
        "dropping a release after any number of polls gives the lock back all the same",
        |space| Box::pin(release_dropped_at_every_poll(space)),
    ),
    Case::new(
        "cancellation::run_dropped_at_every_poll",
        "dropping run after any number of polls drops its body and frees the lock",
        |space| Box::pin(run_dropped_at_every_poll(space)),
    ),
    Case::new(
        "cancellation::close_dropped_at_every_poll",
        "dropping close after any number of polls closes all the same and leaves nothing held",
        |space| Box::pin(close_dropped_at_every_poll(space)),
    ),
    Case::new(
        "cancellation::waits_aborted_during_hand_offs",
        "tasks that are aborted at random while the lock goes round leave nothing behind",
        |space| Box::pin(waits_aborted_during_hand_offs(space)),
    ),
];

/// More polls than any of these futures is ever ready after, if they are polled when they ask for it.
const POLLS: usize = 12;

/// A connection as it comes, and one whose steps all go through the library's thread.
async fn connections(space: &Space) -> Verdict<[Locks; 2]> {
    Ok([space.connect().await?, space.connect_flaky().await?.0])
}

async fn acquire_dropped_at_every_poll(space: Space) -> Verdict {
    let other = space.connect().await?;
    for locks in connections(&space).await? {
        let name = space.name("free");
        for polls in 0..POLLS {
            for timeout in [None, Some(PROMPT)] {
                let lock = locks.lock(&name);
                let guard = match timeout {
                    None => poll_at_most(polls, lock.acquire()).await,
                    Some(timeout) => poll_at_most(polls, lock.acquire_timeout(timeout)).await,
                };
                drop(guard.transpose()?);
                becomes_free(&other, &name, PROMPT).await?;
            }
        }
        let (guard, polls) =
            within(PROMPT, "a free lock", counting_polls(locks.lock(&name).acquire())).await?;
        guard?.release().await?;
        check!(polls <= POLLS, "a free lock was had after {polls} polls, more than are tried");
    }
    Ok(())
}

async fn wait_dropped_at_every_poll(space: Space) -> Verdict {
    let (holder, other) = (space.connect().await?, space.connect().await?);
    for locks in connections(&space).await? {
        let name = space.name("held");
        for polls in 0..POLLS {
            let guard = within(PROMPT, "taking a free lock", holder.lock(&name).acquire()).await??;
            let waited = poll_at_most(polls, locks.lock(&name).acquire()).await.transpose()?;
            check!(waited.is_none(), "a held lock was granted");
            let timed = poll_at_most(polls, locks.lock(&name).acquire_timeout(PROMPT)).await.transpose()?;
            check!(timed.is_none(), "a held lock was granted");
            check!(guard.is_held(), "a wait that was dropped ended the hold");
            guard.release().await?;
            becomes_free(&other, &name, PROMPT).await?;
        }
    }
    Ok(())
}

async fn grant_dropped_at_every_poll(space: Space) -> Verdict {
    let (holder, other) = (space.connect().await?, space.connect().await?);
    for locks in connections(&space).await? {
        let name = space.name("handed-over");
        for before in 1..3 {
            for after in 0..POLLS {
                let guard = within(PROMPT, "taking a free lock", holder.lock(&name).acquire()).await??;
                let lock = locks.lock(&name);
                let mut wait = Box::pin(lock.acquire());
                check!(poll_at_most(before, wait.as_mut()).await.is_none(), "a held lock was granted");
                drop(guard);
                drop(poll_at_most(after, wait.as_mut()).await.transpose()?);
                drop(wait);
                becomes_free(&other, &name, PROMPT).await?;
            }
        }
    }
    Ok(())
}

async fn release_dropped_at_every_poll(space: Space) -> Verdict {
    let other = space.connect().await?;
    for locks in connections(&space).await? {
        let name = space.name("released");
        for polls in 0..POLLS {
            let guard = within(PROMPT, "taking a free lock", locks.lock(&name).acquire()).await??;
            poll_at_most(polls, guard.release()).await.transpose()?;
            becomes_free(&other, &name, PROMPT).await?;
        }
    }
    Ok(())
}

async fn run_dropped_at_every_poll(space: Space) -> Verdict {
    struct Alive(Arc<AtomicU32>);
    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    let other = space.connect().await?;
    for locks in connections(&space).await? {
        let name = space.name("run");
        let bodies = Arc::new(AtomicU32::new(0));
        for polls in 0..POLLS {
            bodies.fetch_add(1, Ordering::SeqCst);
            let body = Alive(Arc::clone(&bodies));
            let lock = locks.lock(&name);
            let run = lock.run(async move {
                let _body = body;
                // Two more points at which to be dropped.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
            });
            poll_at_most(polls, run).await.transpose()?;
            let alive = bodies.load(Ordering::SeqCst);
            check!(alive == 0, "{alive} bodies live on after run was dropped");
            becomes_free(&other, &name, PROMPT).await?;
        }
        let body = async {
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        };
        let (ran, polls) = within(PROMPT, "run", counting_polls(locks.lock(&name).run(body))).await?;
        ran?;
        check!(polls <= POLLS, "run ended after {polls} polls, more than are tried");
    }
    Ok(())
}

async fn close_dropped_at_every_poll(space: Space) -> Verdict {
    let other = space.connect().await?;
    for polls in 1..POLLS {
        for locks in connections(&space).await? {
            let name = space.name("closed");
            let guard = within(PROMPT, "taking a free lock", locks.lock(&name).acquire()).await??;
            poll_at_most(polls, locks.close()).await.transpose()?;
            check!(!guard.is_held(), "a guard outlived its Locks");
            becomes_free(&other, &name, PROMPT).await?;
            check!(locks.lock(&name).try_acquire().await.is_err(), "a closed Locks granted a lock");
        }
    }
    Ok(())
}

async fn waits_aborted_during_hand_offs(space: Space) -> Verdict {
    let instances = [space.connect().await?, space.connect().await?, space.connect().await?];
    let name = space.name("round");
    let visits = Arc::new(AtomicU32::new(0));
    for _ in 0..20 {
        let mut tasks = Vec::new();
        for task in 0..12 {
            let (lock, visits) = (instances[task % 3].lock(&name), Arc::clone(&visits));
            tasks.push(tokio::spawn(async move {
                loop {
                    let guard = lock.acquire().await?;
                    let witness = match Witness::enter(lock.name())? {
                        Ok(witness) => witness,
                        Err(overlap) => {
                            return Err(Failure::new(format!("two were inside at once: {overlap:?}")));
                        }
                    };
                    visits.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    drop(witness);
                    drop(guard);
                }
            }));
        }
        while !tasks.is_empty() {
            pause_for(Duration::from_micros(fastrand::u64(..400))).await;
            let task: JoinHandle<Verdict> = tasks.swap_remove(fastrand::usize(..tasks.len()));
            task.abort();
            match within(PROMPT, "the end of an aborted task", task).await? {
                Err(end) if end.is_cancelled() => {}
                Err(panic) => return Err(panic.into()),
                Ok(verdict) => verdict?,
            }
        }
        becomes_free(&instances[0], &name, PROMPT).await?;
    }
    let visits = visits.load(Ordering::SeqCst);
    check!(visits > 0, "nobody ever got the lock");
    Ok(())
}
