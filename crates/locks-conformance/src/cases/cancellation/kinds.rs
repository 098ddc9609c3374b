//! Futures of all kinds of locks that are dropped, at every point at which that can happen.

use locks_api::Locks;
use tokio::task::JoinSet;

use super::{POLLS, connections};
use crate::cases::Case;
use crate::cases::election::VALUES;
use crate::cases::rw::READERS;
use crate::cases::schedule::SCHEDULE;
use crate::cases::semaphore::PERMITS;
use crate::cases::wanting::{becomes_free_for, gets};
use crate::kind::{Kind, Want};
use crate::polling::poll_at_most;
use crate::space::{PROMPT, Space, becomes_free};
use crate::verdict::{Verdict, check, pause_for, within};

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new(
        "cancellation::readers_and_writers_dropped_at_every_poll",
        "dropping the futures of readers and writers after any number of polls leaves nothing held or queued, whatever they waited for",
        |space| Box::pin(readers_and_writers(space)),
    )
    .needs(&[READERS]),
    Case::new(
        "cancellation::permits_dropped_at_every_poll",
        "dropping the futures of permits after any number of polls leaves every permit there, whatever they waited for",
        |space| Box::pin(permits(space)),
    )
    .needs(&[PERMITS]),
    Case::new(
        "cancellation::several_locks_dropped_at_every_poll",
        "dropping the futures of several locks after any number of polls leaves all of them free",
        |space| Box::pin(several_locks(space)),
    ),
    Case::new(
        "cancellation::campaigns_dropped_at_every_poll",
        "dropping campaigns, publications and resignations after any number of polls leaves nobody to lead",
        |space| Box::pin(campaigns(space)),
    )
    .needs(&[VALUES]),
    Case::new(
        "cancellation::completions_dropped_at_every_poll",
        "dropping a completion after any number of polls releases the lock, and once it was polled what was done is done",
        |space| Box::pin(completions(space)),
    )
    .needs(&[SCHEDULE]),
    Case::new(
        "cancellation::readers_and_writers_aborted_at_random",
        "readers, writers and holders of permits that are aborted at random while the lock goes round leave nothing behind",
        |space| Box::pin(aborted_at_random(space)),
    )
    .needs(&[READERS, PERMITS]),
];

/// Drops the futures for `wanted` at every poll: with the lock free, with `obstacle` in the way, and from its release on. What is looked for
/// afterwards is whether all of it can be had.
async fn dropped_at_every_poll(space: &Space, wanted: &Want, obstacle: &Want) -> Verdict {
    let (holder, other) = (space.connect().await?, space.connect().await?);
    let names = [&wanted.name, &obstacle.name];
    let all_free = async |other: &Locks| {
        for name in names {
            becomes_free(other, name, PROMPT).await?;
        }
        Verdict::Ok(())
    };
    for locks in connections(space).await? {
        let mut had = false;
        for polls in 0..POLLS {
            had |= poll_at_most(polls, wanted.acquire(&locks)).await.transpose()?.is_some();
            had |= poll_at_most(polls, wanted.acquire_timeout(&locks, PROMPT)).await.transpose()?.is_some();
            drop(poll_at_most(polls, wanted.try_acquire(&locks)).await.transpose()?);
            all_free(&other).await?;

            let held = within(PROMPT, "taking what is free", obstacle.acquire(&holder)).await??;
            let waited = poll_at_most(polls, wanted.acquire(&locks)).await.transpose()?;
            check!(waited.is_none(), "{wanted:?} was granted beside {obstacle:?}");
            let tried = poll_at_most(polls, wanted.try_acquire(&locks)).await.transpose()?.flatten();
            check!(tried.is_none(), "{wanted:?} was granted beside {obstacle:?}");
            let mut wait = Box::pin(wanted.acquire(&locks));
            check!(poll_at_most(1 + polls % 2, wait.as_mut()).await.is_none(), "{wanted:?} was granted");
            check!(held.is_held(), "a wait that was dropped ended the hold");
            drop(held);
            drop(poll_at_most(polls, wait.as_mut()).await.transpose()?);
            drop(wait);
            all_free(&other).await?;

            let held = within(PROMPT, "taking what is free", wanted.acquire(&locks)).await??;
            poll_at_most(polls, held.release()).await.transpose()?;
            all_free(&other).await?;
        }
        check!(had, "{wanted:?} was not had within {POLLS} polls");
    }
    Ok(())
}

async fn readers_and_writers(space: Space) -> Verdict {
    let name = space.name("dropped");
    let (read, write) = (Want::new(Kind::Read, &name), Want::new(Kind::Write, &name));
    dropped_at_every_poll(&space, &read, &write).await?;
    dropped_at_every_poll(&space, &write, &read).await?;
    dropped_at_every_poll(&space, &write, &write).await
}

async fn permits(space: Space) -> Verdict {
    let name = space.name("dropped");
    let permits = |count| Want::new(Kind::Permits { count, limit: 3 }, &name);
    dropped_at_every_poll(&space, &permits(1), &permits(3)).await?;
    dropped_at_every_poll(&space, &permits(2), &permits(2)).await?;
    dropped_at_every_poll(&space, &permits(3), &permits(1)).await?;
    let other = space.connect().await?;
    becomes_free_for(&other, &permits(3), PROMPT).await
}

async fn several_locks(space: Space) -> Verdict {
    let names = ["a", "b", "c"].map(|tag| space.name(tag));
    let [a, b, c] = &names;
    let all = Want::new(Kind::All { also: vec![a.clone(), b.clone()] }, c);
    for obstacle in [a, c] {
        dropped_at_every_poll(&space, &all, &Want::new(Kind::Lock, obstacle)).await?;
    }
    let other = space.connect().await?;
    for name in &names {
        becomes_free(&other, name, PROMPT).await?;
    }
    Ok(())
}

async fn campaigns(space: Space) -> Verdict {
    let name = space.name("led");
    let candidate = Want::new(Kind::Leader { value: "me".into() }, &name);
    dropped_at_every_poll(&space, &candidate, &candidate).await?;
    let other = space.connect().await?;
    for locks in connections(&space).await? {
        for polls in 0..POLLS {
            let leadership = within(PROMPT, "a campaign", locks.election(&name).campaign("0")).await??;
            poll_at_most(polls, leadership.publish("1")).await.transpose()?;
            check!(leadership.is_held(), "a publication that was dropped ended the lead");
            // Whatever became of it, the next one counts.
            within(PROMPT, "publishing", leadership.publish("2")).await??;
            drop(poll_at_most(polls, other.election(&name).leader()).await.transpose()?);
            poll_at_most(polls, leadership.resign()).await.transpose()?;
            becomes_free(&other, &name, PROMPT).await?;
            let leader = other.election(&name).leader().await?;
            check!(leader.is_none(), "{leader:?} leads after its resignation");
        }
    }
    Ok(())
}

async fn completions(space: Space) -> Verdict {
    let other = space.connect().await?;
    let interval = std::time::Duration::from_secs(300);
    for locks in connections(&space).await? {
        for polls in 0..POLLS {
            let name = space.name(&format!("done-{polls}-{:08x}", fastrand::u32(..)));
            let lock = locks.lock(&name).once_per(interval);
            let guard = within(PROMPT, "a free lock", lock.acquire()).await??;
            poll_at_most(polls, guard.complete()).await.transpose()?;
            becomes_free(&other, &name, PROMPT).await?;
            let again = other.lock(&name).once_per(interval).try_acquire().await?;
            check!(again.is_some() == (polls == 0), "after {polls} polls, due again is {}", again.is_some());
        }
    }
    Ok(())
}

async fn aborted_at_random(space: Space) -> Verdict {
    let instances = [space.connect().await?, space.connect().await?, space.connect().await?];
    let name = space.name("round");
    let limit = 3;
    let kinds = [
        Kind::Read,
        Kind::Write,
        Kind::Read,
        Kind::Permits { count: 1, limit },
        Kind::Lock,
        Kind::Permits { count: 3, limit },
    ];
    for _ in 0..8 {
        let mut tasks = JoinSet::new();
        let mut handles = Vec::new();
        for number in 0..18 {
            let (locks, want) =
                (instances[number % 3].clone(), Want::new(kinds[number % kinds.len()].clone(), &name));
            handles.push(tasks.spawn(async move {
                loop {
                    let held = want.acquire(&locks).await?;
                    tokio::task::yield_now().await;
                    if fastrand::bool() { drop(held) } else { held.release().await? }
                }
            }));
        }
        while !handles.is_empty() {
            pause_for(std::time::Duration::from_micros(fastrand::u64(..600))).await;
            handles.swap_remove(fastrand::usize(..handles.len())).abort();
        }
        while let Some(end) = within(PROMPT, "the end of an aborted task", tasks.join_next()).await? {
            match end {
                Err(end) if end.is_cancelled() => {}
                Err(panic) => return Err(panic.into()),
                Ok(outcome) => {
                    let outcome: locks_api::Result<()> = outcome;
                    outcome?;
                }
            }
        }
        becomes_free(&instances[0], &name, PROMPT).await?;
        let all = Want::new(Kind::Permits { count: limit, limit }, &name);
        let wait = tokio::spawn({
            let locks = instances[1].clone();
            async move { all.acquire(&locks).await }
        });
        gets(wait, PROMPT, "all permits after all were aborted").await?.release().await?;
    }
    Ok(())
}
