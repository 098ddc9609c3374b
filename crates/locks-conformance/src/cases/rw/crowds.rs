//! Many readers and writers, judged by their history.

use std::time::Duration;

use locks_api::spi::Offer;
use locks_api::{ErrorKind, Locks};
use tokio::task::JoinSet;

use super::{READERS, both};
use crate::cases::Case;
use crate::cases::process::PROCESSES;
use crate::cases::wanting::{has, is_refused};
use crate::checker::Strictness;
use crate::history::{Client, Op, Phase, Recorder};
use crate::kind::{Held, Want};
use crate::space::{PROMPT, Space, check_history, check_history_file};
use crate::verdict::{Failure, Verdict, check, within};
use crate::witness::Witness;
use crate::worker::{Hammer, HistoryFile, Mix, Order, Reply};

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new(
        "rw::tasks_are_inside_as_they_may",
        "sixty reading, writing and downgrading tasks over three instances: nobody is inside with a writer, tokens grow, one lock could have done it",
        |space| Box::pin(async move { crowd(&space, Mix::ReadersAndWriters { readers: 60 }).await }),
    )
    .needs(&[READERS]),
    Case::new(
        "rw::processes_exclude_each_other",
        "readers of several processes hold together, and a writer of one keeps out readers and writers of another, both ways",
        |space| Box::pin(processes_exclude_each_other(space)),
    )
    .needs(&[READERS, PROCESSES]),
    Case::new(
        "rw::processes_are_inside_as_they_may",
        "six reading and writing processes: nobody is inside with a writer, tokens grow, one lock could have done it",
        |space| Box::pin(async move { processes(&space, Mix::ReadersAndWriters { readers: 60 }).await }),
    )
    .needs(&[READERS, PROCESSES]),
];

async fn processes_exclude_each_other(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let (read, write) = both(&space, "shared");
    let mut worker = space.worker().await?;
    let theirs = |want: &Want| want.clone().ttl(space.short_ttl());
    for (held, beside, refused) in [(&read, Some(&read), vec![&write]), (&write, None, vec![&read, &write])] {
        worker.get(&theirs(held)).await?;
        for want in &refused {
            is_refused(&locks, want).await?;
        }
        if let Some(beside) = beside {
            has(&locks, beside).await?.release().await?;
        }
        check!(worker.ask(&Order::Check).await? == Reply::Held(true), "the other process lost its lock");
        check!(worker.ask(&Order::Release).await? == Reply::Released, "the other process could not release");
        let mine = has(&locks, held).await?;
        for want in &refused {
            let answer = worker.ask(&Order::Take { want: theirs(want), wait: false }).await?;
            check!(
                answer == Reply::Busy,
                "another process that wants {want:?} beside {held:?} got {answer:?}"
            );
        }
        if let Some(beside) = beside {
            worker.get(&theirs(beside)).await?;
            check!(
                worker.ask(&Order::Release).await? == Reply::Released,
                "the other process could not release"
            );
        }
        mine.release().await?;
    }
    Ok(())
}

/// Tasks of several instances that take the lock in turns.
pub(in crate::cases) async fn crowd(space: &Space, mix: Mix) -> Verdict {
    let instances = [space.connect().await?, space.connect().await?, space.connect().await?];
    let downgrades = space.guarantees().offers.has(Offer::Downgrade);
    crowd_over(space, &instances, mix, downgrades).await
}

/// The same, over these connections.
pub(in crate::cases) async fn crowd_over(
    space: &Space,
    instances: &[Locks],
    mix: Mix,
    downgrades: bool,
) -> Verdict {
    const TASKS: u32 = 60;
    let (recorder, name) = (Recorder::memory(), space.name("crowded"));
    let mut tasks = JoinSet::new();
    for number in 0..TASKS {
        let locks = instances[number as usize % instances.len()].clone();
        let (client, name) = (recorder.client(number), name.clone());
        tasks.spawn(async move {
            for _ in 0..3 {
                let want = Want::new(mix.draw(), &name);
                client.acquiring(&name, want.kind.mode().into());
                let held = want.acquire(&locks).await?;
                let claim = held.guard().claim_id().to_string();
                client.end(Op::Acquire, Phase::Ok, &name, Some(claim), Some(held.token()));
                look_around(held, mix.places(&want.kind), &client, downgrades).await?;
            }
            Verdict::Ok(())
        });
    }
    while let Some(outcome) = within(PROMPT * 2, "an acquisition among many", tasks.join_next()).await? {
        outcome??;
    }
    check_history(&recorder.events(), Strictness::NoFaults)
}

/// Sees who else is inside, sometimes becomes a reader, and leaves.
async fn look_around(
    held: Held,
    places: crate::witness::Places,
    client: &Client,
    downgrades: bool,
) -> Verdict {
    let (name, token) = (held.guard().name().to_owned(), held.token());
    let witness = match Witness::take(&name, places)? {
        Ok(witness) => witness,
        Err(overlap) => {
            let what = format!("too many were inside at once: {overlap:?}");
            return Err(Failure::new(what).about(&name, vec![token.get()]));
        }
    };
    tokio::task::yield_now().await;
    client.invoke(Op::Check, &name, Some(token));
    let is_held = held.is_held();
    client.answered(&name, token, is_held);
    check!(is_held, "the lock was lost though nothing happened to the store");
    drop(witness);
    let held = match held {
        Held::Write(writer) if downgrades && fastrand::bool() => {
            client.invoke(Op::Downgrade, &name, Some(token));
            let reader = writer.downgrade().await?;
            client.end(Op::Downgrade, Phase::Ok, &name, None, Some(token));
            Held::Read(reader)
        }
        held => held,
    };
    client.invoke(Op::Release, &name, Some(token));
    let phase = match held.release().await {
        Ok(()) => Phase::Ok,
        // On a bad line: it may have happened, and is tried again until it has.
        Err(error) if error.kind() == ErrorKind::Unavailable => Phase::Info,
        Err(error) => return Err(error.into()),
    };
    client.end(Op::Release, phase, &name, None, Some(token));
    Ok(())
}

/// Processes that take the lock in turns.
pub(in crate::cases) async fn processes(space: &Space, mix: Mix) -> Verdict {
    const ROUNDS: u32 = 25;
    let (name, history) = (space.name("crowded"), HistoryFile::new());
    let mut workers = space.workers(6).await?;
    for worker in &mut workers {
        worker.order(&Order::Hammer(Hammer {
            name: name.clone(),
            mix,
            ttl: None,
            rounds: ROUNDS,
            until: u64::MAX,
            hold: Duration::from_micros(200),
            history: Some(history.path().to_owned()),
            witness: true,
            patient: false,
        }))?;
    }
    for worker in &mut workers {
        match worker.reply_within(PROMPT * 2).await? {
            Reply::Hammered { rounds: ROUNDS } => {}
            other => return Err(Failure::new(format!("a worker answered {other:?}"))),
        }
    }
    check_history_file(history.path(), 6 * ROUNDS as usize * 8, Strictness::NoFaults)
}
