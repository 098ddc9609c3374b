//! Processes that are killed or stopped.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use super::process::PROCESSES;
use super::{Case, Need, need};
use crate::checker::Strictness;
use crate::history::{self, Op, Phase};
use crate::space::{PROMPT, Space, becomes_free, check_history_file, is_busy, reaches_state};
use crate::verdict::{Failure, Verdict, check, eventually, pause_for, within};
use crate::worker::{Hammer, HistoryFile, Mix, Order, Reply, Worker};
use locks_api::spi::CrashRelease;

pub(super) mod kinds;

pub(super) const CASES: &[Case] = &[
    Case::new(
        "crash::a_killed_holder_frees_the_lock",
        "the lock of a killed process is free within the promised time, and the next token is higher",
        |space| Box::pin(a_killed_holder_frees_the_lock(space)),
    )
    .needs(&[PROCESSES])
    .deadline(120),
    Case::new(
        "crash::killed_waiters_hold_up_nobody",
        "waiters that are killed, at the head of the queue and in the middle, hold up those behind them no longer than promised",
        |space| Box::pin(killed_waiters_hold_up_nobody(space)),
    )
    .needs(&[PROCESSES])
    .deadline(120),
    Case::new(
        "crash::holders_killed_one_after_the_other",
        "each of many processes is killed the moment it has the lock: one holder at a time, tokens that grow, no hang",
        |space| Box::pin(holders_killed_one_after_the_other(space)),
    )
    .needs(&[PROCESSES])
    .deadline(300),
    Case::new(
        "crash::killed_at_random_moments",
        "processes that take the lock in turns are killed at random moments, 500 of them where crashes free locks at once",
        |space| Box::pin(killed_at_random_moments(space)),
    )
    .needs(&[PROCESSES])
    .deadline(300),
    Case::new(
        "crash::a_short_stop_keeps_the_lock",
        "a holder that is stopped for less than its ttl goes on holding",
        |space| Box::pin(a_short_stop_keeps_the_lock(space)),
    )
    .needs(&[PROCESSES, need(Need::Expiry, "crash::a_stopped_holder_keeps_the_lock")]),
    Case::new(
        "crash::a_long_stop_loses_the_lock",
        "a holder that is stopped past its ttl knows, on its first look afterwards, that it has lost the lock to another",
        |space| Box::pin(a_long_stop_loses_the_lock(space)),
    )
    .needs(&[PROCESSES, need(Need::Expiry, "crash::a_stopped_holder_keeps_the_lock")]),
    Case::new(
        "crash::a_stopped_waiter_holds_up_nobody",
        "a waiter that is stopped when its turn comes holds up the next one for a ttl at most",
        |space| Box::pin(a_stopped_waiter_holds_up_nobody(space)),
    )
    .needs(&[PROCESSES, need(Need::Expiry, "crash::a_stopped_holder_keeps_the_lock")]),
    Case::new(
        "crash::stopped_at_random_moments",
        "processes that are stopped at random past their ttl never say that they hold after a later holder has said so",
        |space| Box::pin(stopped_at_random_moments(space)),
    )
    .needs(&[PROCESSES, need(Need::Expiry, "crash::a_stopped_holder_keeps_the_lock")])
    .deadline(120),
    Case::new(
        "crash::a_stopped_holder_keeps_the_lock",
        "where grants don't expire, a stopped process holds its lock as long as it lives",
        |space| Box::pin(a_stopped_holder_keeps_the_lock(space)),
    )
    .needs(&[PROCESSES, need(Need::NoExpiry, "crash::a_long_stop_loses_the_lock")]),
];

async fn a_killed_holder_frees_the_lock(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let name = space.name("killed");
    for wait_before in [false, true] {
        let mut worker = space.worker().await?;
        let theirs = worker.take(&name, space.short_ttl()).await?;
        let lock = locks.lock(&name);
        let limit = space.crash_limit();
        let waiting = wait_before.then(|| {
            tokio::spawn({
                let lock = lock.clone();
                async move { lock.acquire_timeout(limit).await }
            })
        });
        is_busy(&locks, &name).await?;
        worker.kill()?;
        let guard = match waiting {
            Some(wait) => within(limit + PROMPT, "the grant after a kill", wait).await???,
            None => within(limit + PROMPT, "the grant after a kill", lock.acquire_timeout(limit)).await??,
        };
        check!(guard.fencing_token() > theirs, "token {} after {theirs}", guard.fencing_token());
        guard.release().await?;
    }
    Ok(())
}

async fn killed_waiters_hold_up_nobody(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let name = space.name("queue");
    let guard = locks.lock(&name).acquire().await?;
    let mut queue = space.workers(4).await?;
    for worker in &mut queue {
        worker.order(&Order::Acquire { name: name.clone(), ttl: space.short_ttl(), wait: true })?;
        // They ask one after the other as far as that can be had without their saying so.
        pause_for(Duration::from_millis(30)).await;
    }
    is_busy(&locks, &name).await?;
    queue[0].kill()?;
    queue[2].kill()?;
    guard.release().await?;
    // The killed ones may have been queued in any order, and each may cost a ttl.
    let limit = space.crash_limit() * 2;
    let [_, one, _, other] = &mut queue[..] else { return Err(Failure::new("there are not four workers")) };
    let mut waiting = vec![one, other];
    while !waiting.is_empty() {
        match Worker::first_reply(&mut waiting, limit).await? {
            (index, Reply::Granted { .. }) => waiting.swap_remove(index).kill()?,
            (_, other) => return Err(Failure::new(format!("a waiting process answered {other:?}"))),
        }
    }
    Ok(())
}

/// How many kills a case can afford: one costs nothing, or a ttl.
fn kills(space: &Space, at_once: usize, after_ttl: usize) -> usize {
    match space.guarantees().crash_release {
        CrashRelease::AtOnce => at_once,
        _ => after_ttl,
    }
}

async fn holders_killed_one_after_the_other(space: Space) -> Verdict {
    let name = space.name("victims");
    let order = Order::Acquire { name: name.clone(), ttl: space.short_ttl(), wait: true };
    let mut highest = 0;
    let (mut one, mut other) = (space.worker().await?, space.worker().await?);
    one.order(&order)?;
    other.order(&order)?;
    for _ in 0..kills(&space, 100, 5) {
        // While one of them holds, the other waits.
        let holder = match Worker::first_reply(&mut [&mut one, &mut other], space.crash_limit()).await? {
            (index, Reply::Granted { token }) => {
                check!(token > highest, "token {token} after token {highest}");
                highest = token;
                [&mut one, &mut other].into_iter().nth(index)
            }
            (_, reply) => return Err(Failure::new(format!("a waiting process answered {reply:?}"))),
        };
        let Some(holder) = holder else { return Err(Failure::new("there is no such worker")) };
        let mut next = space.worker().await?;
        next.order(&order)?;
        holder.kill()?;
        *holder = next;
    }
    Ok(())
}

/// So many kills hit every moment that there is.
const MANY: usize = 500;

async fn killed_at_random_moments(space: Space) -> Verdict {
    let kills = kills(&space, MANY, 15);
    let victims = Victims { mix: Mix::Exclusive, workers: 3, kills, hurried: kills == MANY };
    let (_, history) = victims.kill_at_random(&space).await?;
    let events = history::read(history.path())?;
    let released =
        events.iter().filter(|event| event.op == Op::Release && event.phase == Phase::Invoke).count();
    // By chance all of a few may have been waiters; of many, never.
    check!(grants(&events) > released || kills < MANY, "nobody was killed while it held the lock");
    check_history_file(history.path(), 1, Strictness::Crashes)
}

/// Workers that take a lock in turns until they are killed.
struct Victims {
    mix: Mix,
    workers: usize,
    kills: usize,
    /// Whether they hold it for a moment only. Otherwise it is long enough that most of the time somebody holds, also where waiters only ask now
    /// and then.
    hurried: bool,
}

impl Victims {
    /// Kills them at random moments, so many times, and the last of them in the end; sees that they got on meanwhile and that the lock becomes free.
    /// Its name, and what they did.
    async fn kill_at_random(self, space: &Space) -> Result<(String, HistoryFile), Failure> {
        let name = space.name("victims");
        let history = HistoryFile::new();
        let hammer = Order::Hammer(Hammer {
            name: name.clone(),
            mix: self.mix,
            ttl: space.short_ttl(),
            rounds: u32::MAX,
            until: u64::MAX,
            hold: Duration::from_millis(if self.hurried { 1 } else { 10 }),
            history: Some(history.path().to_owned()),
            witness: true,
            patient: false,
        });
        let mut workers = space.workers(self.workers).await?;
        for worker in &mut workers {
            worker.order(&hammer)?;
        }
        let mut written = 0;
        for _ in 0..self.kills {
            let length = || fs::metadata(history.path()).map_or(0, |file| file.len());
            eventually(space.crash_limit(), "any progress after a kill", || length() > written).await?;
            written = length();
            pause_for(Duration::from_micros(fastrand::u64(..5_000))).await;
            let victim = &mut workers[fastrand::usize(..self.workers)];
            victim.kill()?;
            // It may have had something to say before.
            still_at_work(victim).await?;
            *victim = space.worker().await?;
            victim.order(&hammer)?;
        }
        // Where a dead holder's lock is free only after its ttl, the kills leave little time for grants.
        let enough = self.kills / 3;
        let worked = || history::read(history.path()).is_ok_and(|events| grants(&events) > enough);
        eventually(space.crash_limit() * 10, "enough grants between and after the kills", worked).await?;
        for worker in &mut workers {
            worker.kill()?;
            still_at_work(worker).await?;
        }
        let locks = space.connect().await?;
        becomes_free(&locks, &name, space.crash_limit() * 2).await?;
        Ok((name, history))
    }
}

fn grants(events: &[history::Event]) -> usize {
    events.iter().filter(|event| event.op == Op::Acquire && event.phase == Phase::Ok).count()
}

/// Fails if a killed worker had said anything: there is nothing to say but that something went wrong.
pub(super) async fn still_at_work(worker: &mut Worker) -> Verdict {
    match worker.last_words().await? {
        None => Ok(()),
        Some(reply) => Err(Failure::new(format!("a worker stopped working: {reply:?}"))),
    }
}

async fn a_short_stop_keeps_the_lock(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let locks = space.connect().await?;
    let name = space.name("stopped");
    let mut worker = space.worker().await?;
    worker.take(&name, Some(ttl)).await?;
    stop_for(&worker, ttl / 5).await?;
    check!(worker.ask(&Order::Check).await? == Reply::Held(true), "lost after a stop of a fifth of the ttl");
    is_busy(&locks, &name).await?;
    check!(worker.ask(&Order::Release).await? == Reply::Released, "could not release after a short stop");
    Ok(())
}

async fn a_long_stop_loses_the_lock(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let locks = space.connect().await?;
    let name = space.name("stopped");
    let mut worker = space.worker().await?;
    let theirs = worker.take(&name, Some(ttl)).await?;
    worker.signal(Signal::STOP)?;
    reaches_state(worker.pid(), 'T').await?;
    let lock = locks.lock(&name).ttl(ttl);
    let guard = within(ttl + PROMPT, "the grant after a stop past the ttl", lock.acquire()).await??;
    check!(guard.fencing_token() > theirs, "token {} after {theirs}", guard.fencing_token());
    worker.signal(Signal::CONT)?;
    check!(
        worker.ask(&Order::Check).await? == Reply::Held(false),
        "a stopped holder says that it still holds"
    );
    check!(worker.ask(&Order::AwaitLoss).await? == Reply::Lost, "a stopped holder does not hear of its loss");
    match worker.ask(&Order::Release).await? {
        Reply::Failed { kind, .. } if kind == "Lost" => {}
        other => return Err(Failure::new(format!("releasing a lost lock gave {other:?}"))),
    }
    check!(guard.is_held(), "the old holder's release ended the new hold");
    is_busy(&space.connect().await?, &name).await?;
    guard.release().await?;
    Ok(())
}

async fn a_stopped_waiter_holds_up_nobody(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (locks, next) = (space.connect().await?, space.connect().await?);
    let name = space.name("queue");
    let guard = locks.lock(&name).ttl(ttl).acquire().await?;
    let mut worker = space.worker().await?;
    worker.order(&Order::Acquire { name: name.clone(), ttl: Some(ttl), wait: true })?;
    pause_for(Duration::from_millis(50)).await;
    worker.signal(Signal::STOP)?;
    reaches_state(worker.pid(), 'T').await?;
    let lock = next.lock(&name).ttl(ttl);
    let wait = tokio::spawn(async move { lock.acquire().await });
    is_busy(&locks, &name).await?;
    guard.release().await?;
    let guard = within(ttl + PROMPT, "the grant behind a stopped waiter", wait).await???;
    worker.signal(Signal::CONT)?;
    pause_for(Duration::from_millis(50)).await;
    check!(guard.is_held(), "a stopped waiter came back and took the lock");
    guard.release().await?;
    match worker.reply_within(ttl + PROMPT).await? {
        Reply::Granted { .. } => {}
        other => return Err(Failure::new(format!("the waiter that was stopped answered {other:?}"))),
    }
    check!(
        worker.ask(&Order::Check).await? == Reply::Held(true),
        "granted to the waiter that was stopped, and not held"
    );
    Ok(())
}

async fn stopped_at_random_moments(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let name = space.name("stopped");
    let history = HistoryFile::new();
    let mut workers = space.workers(3).await?;
    let until = locks_api::Boottime::now().after(ttl * 8).as_nanos();
    for worker in &mut workers {
        worker.order(&Order::Hammer(Hammer {
            name: name.clone(),
            mix: Mix::Exclusive,
            ttl: Some(ttl),
            rounds: u32::MAX,
            until,
            hold: Duration::from_millis(2),
            history: Some(history.path().to_owned()),
            witness: false,
            patient: false,
        }))?;
    }
    for _ in 0..5 {
        pause_for(Duration::from_micros(fastrand::u64(..20_000))).await;
        stop_for(&workers[fastrand::usize(..3)], ttl + ttl / 4).await?;
    }
    for worker in &mut workers {
        match worker.reply_within(ttl * 8 + PROMPT).await? {
            Reply::Hammered { .. } => {}
            other => return Err(Failure::new(format!("a worker answered {other:?}"))),
        }
    }
    check_history_file(history.path(), 100, Strictness::Loss)
}

async fn a_stopped_holder_keeps_the_lock(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let name = space.name("stopped");
    let mut worker = space.worker().await?;
    worker.take(&name, None).await?;
    worker.signal(Signal::STOP)?;
    reaches_state(worker.pid(), 'T').await?;
    let waited = locks.lock(&name).acquire_timeout(Duration::from_secs(1)).await;
    check!(waited.is_err(), "the lock of a stopped process was granted");
    worker.signal(Signal::CONT)?;
    check!(
        worker.ask(&Order::Check).await? == Reply::Held(true),
        "lost by being stopped, without any expiry"
    );
    is_busy(&locks, &name).await?;
    check!(worker.ask(&Order::Release).await? == Reply::Released, "could not release after a stop");
    becomes_free(&locks, &name, PROMPT).await
}

async fn stop_for(worker: &Worker, time: Duration) -> Verdict {
    worker.signal(Signal::STOP)?;
    reaches_state(worker.pid(), 'T').await?;
    pause_for(time).await;
    worker.signal(Signal::CONT)
}
