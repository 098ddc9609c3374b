//! Other processes.

use std::time::Duration;

use locks_api::spi::Scope;

use super::{Case, Need, Requirement, need};
use crate::checker::Strictness;
use crate::space::{PROMPT, Space, becomes_free, check_history_file, is_busy};
use crate::verdict::{Failure, Verdict, check, within};
use crate::worker::{Hammer, HistoryFile, Mix, Order, Reply};

/// The need of every case with other processes in it.
pub(super) const PROCESSES: Requirement = need(Need::Processes, "process::one_process_offers_no_others");

pub(super) const CASES: &[Case] = &[
    Case::new(
        "process::another_process_is_kept_out",
        "what one process holds is busy to another until it is released, in both directions",
        |space| Box::pin(another_process_is_kept_out(space)),
    )
    .needs(&[PROCESSES]),
    Case::new(
        "process::a_waiting_process_is_woken",
        "a process that waits gets the lock soon after another has released it",
        |space| Box::pin(a_waiting_process_is_woken(space)),
    )
    .needs(&[PROCESSES]),
    Case::new(
        "process::eight_processes_never_overlap",
        "eight processes that take the lock in turns are inside one at a time, and their history is that of one mutex",
        |space| Box::pin(eight_processes_never_overlap(space)),
    )
    .needs(&[PROCESSES]),
    Case::new(
        "process::an_exit_frees_the_lock",
        "a process that ends without releasing frees its lock within the promised time",
        |space| Box::pin(an_exit_frees_the_lock(space)),
    )
    .needs(&[PROCESSES]),
    Case::new(
        "process::one_process_offers_no_others",
        "a backend whose locks end at the process says so, and its harness has no way for others to attach",
        |space| Box::pin(async move { one_process_offers_no_others(&space) }),
    )
    .needs(&[need(Need::OneProcess, "process::another_process_is_kept_out")]),
];

async fn another_process_is_kept_out(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let name = space.name("shared");
    let mut worker = space.worker().await?;
    let theirs = worker.take(&name, space.short_ttl()).await?;
    is_busy(&locks, &name).await?;
    check!(worker.ask(&Order::Check).await? == Reply::Held(true), "the other process lost its lock");
    check!(worker.ask(&Order::Release).await? == Reply::Released, "the other process could not release");
    let Some(guard) = locks.lock(&name).try_acquire().await? else {
        return Err(Failure::new("released by another process and still busy"));
    };
    check!(guard.fencing_token() > theirs, "token {} after {theirs}", guard.fencing_token());
    let order = Order::Acquire { name: name.clone(), ttl: space.short_ttl(), wait: false };
    check!(worker.ask(&order).await? == Reply::Busy, "another process was granted a held lock");
    guard.release().await?;
    worker.take(&name, space.short_ttl()).await?;
    check!(worker.ask(&Order::Release).await? == Reply::Released, "the other process could not release");
    Ok(())
}

async fn a_waiting_process_is_woken(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let name = space.name("shared");
    let mut worker = space.worker().await?;
    for _ in 0..5 {
        let guard = within(PROMPT, "taking a free lock", locks.lock(&name).acquire()).await??;
        worker.order(&Order::Acquire { name: name.clone(), ttl: space.short_ttl(), wait: true })?;
        is_busy(&locks, &name).await?;
        let token = guard.fencing_token();
        guard.release().await?;
        match worker.reply_within(Duration::from_secs(5)).await? {
            Reply::Granted { token: theirs } => check!(theirs > token.get(), "token {theirs} after {token}"),
            other => return Err(Failure::new(format!("a waiting process answered {other:?}"))),
        }
        check!(worker.ask(&Order::Release).await? == Reply::Released, "the other process could not release");
    }
    Ok(())
}

async fn eight_processes_never_overlap(space: Space) -> Verdict {
    const ROUNDS: u32 = 25;
    let name = space.name("shared");
    let history = HistoryFile::new();
    let mut workers = space.workers(8).await?;
    for worker in &mut workers {
        worker.order(&Order::Hammer(Hammer {
            name: name.clone(),
            mix: Mix::Exclusive,
            ttl: None,
            rounds: ROUNDS,
            until: u64::MAX,
            hold: Duration::from_micros(100),
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
    check_history_file(history.path(), 8 * ROUNDS as usize * 8, Strictness::NoFaults)
}

async fn an_exit_frees_the_lock(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let name = space.name("abandoned");
    let mut worker = space.worker().await?;
    worker.take(&name, space.short_ttl()).await?;
    is_busy(&locks, &name).await?;
    worker.order(&Order::Exit)?;
    worker.ended().await?;
    becomes_free(&locks, &name, space.crash_limit()).await
}

fn one_process_offers_no_others(space: &Space) -> Verdict {
    check!(space.guarantees().scope == Scope::Process, "the scope is {:?}", space.guarantees().scope);
    check!(space.worker_url().is_none(), "the scope is one process and there is a worker_url");
    Ok(())
}
