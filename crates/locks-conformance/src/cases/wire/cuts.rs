//! Connections that are cut, by the line or by the store.

use std::time::Duration;

use locks_api::{Boottime, ErrorKind, Lock};
use tokio::task::JoinSet;

use super::{EXPIRY, WIRE_AND_EXPIRY, release, stays_held};
use crate::cases::crash::still_at_work;
use crate::cases::exclusive::visit;
use crate::cases::process::PROCESSES;
use crate::cases::progress::Grants;
use crate::cases::{Case, Need, WIRE, fault, need};
use crate::checker::{HEARD_WITHIN, Strictness};
use crate::harness::Fault;
use crate::history::{Client, Op, Phase, Recorder};
use crate::proxy::Proxy;
use crate::space::{PROMPT, Space, becomes_free, check_history, check_history_file, is_busy};
use crate::verdict::{Failure, Verdict, check, pause_for, within};
use crate::worker::{Hammer, HistoryFile, Mix, Order, Worker};

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new(
        "wire::a_reset_costs_no_lock",
        "a lock that is carried by its ttl outlives its connections, whether they are reset, closed or refused for a moment",
        |space| Box::pin(a_reset_costs_no_lock(space)),
    )
    .needs(&[WIRE, EXPIRY, need(Need::OutlivesCuts, "wire::a_reset_frees_the_lock")])
    .deadline(120),
    Case::new(
        "wire::a_reset_frees_the_lock",
        "a lock that ends with its connection is another's long before its ttl has passed, and its holder hears of it within a second",
        |space| Box::pin(a_reset_frees_the_lock(space)),
    )
    .needs(&[WIRE, EXPIRY, need(Need::EndsWithCuts, "wire::a_reset_costs_no_lock")])
    .deadline(120),
    Case::new(
        "wire::a_cut_waiter_is_served",
        "a waiter whose line is cut, before, while and after the lock is handed to it, gets it when its line is back",
        |space| Box::pin(a_cut_waiter_is_served(space)),
    )
    .needs(WIRE_AND_EXPIRY)
    .deadline(240),
    Case::new(
        "wire::a_cut_off_waiter_holds_up_nobody",
        "a lock handed to a waiter behind a silent line goes on to the next one after a ttl at most",
        |space| Box::pin(a_cut_off_waiter_holds_up_nobody(space)),
    )
    .needs(WIRE_AND_EXPIRY)
    .deadline(120),
    Case::new(
        "wire::a_cut_listener_still_wakes",
        "a waiter is served although the store cut the connection over which it would have been told",
        |space| Box::pin(a_cut_listener_still_wakes(space)),
    )
    .needs(&[fault(Fault::ListenersCut)])
    .deadline(240),
    Case::new(
        "wire::a_crowd_over_breaking_lines",
        "many tasks over lines that are reset again and again are inside one at a time, and none hangs",
        |space| Box::pin(a_crowd_over_breaking_lines(space)),
    )
    .needs(WIRE_AND_EXPIRY)
    .deadline(180),
    Case::new(
        "wire::processes_over_breaking_lines",
        "the same for processes, each with a line of its own",
        |space| Box::pin(processes_over_breaking_lines(space)),
    )
    .needs(&[PROCESSES, WIRE, EXPIRY])
    .deadline(240),
    Case::new(
        "wire::cut_sessions_keep_exclusion",
        "processes whose sessions the store ends again and again are inside one at a time, and none hangs",
        |space| Box::pin(cut_sessions_keep_exclusion(space)),
    )
    .needs(&[PROCESSES, fault(Fault::SessionsCut)])
    .deadline(240),
];

async fn a_reset_costs_no_lock(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let other = space.connect().await?;
    for way in ["reset", "closed", "refused"] {
        let (locks, line) = space.connect_wired().await?;
        let name = space.name(way);
        let guard = locks.lock(&name).ttl(ttl).acquire().await?;
        for _ in 0..3 {
            match way {
                "reset" => line.reset(),
                "closed" => line.close(),
                _ => {
                    line.refuse();
                    line.reset();
                }
            }
            pause_for(ttl / 10).await;
            line.restore();
            stays_held(&guard, &other, ttl / 2).await?;
        }
        stays_held(&guard, &other, ttl * 3 / 2).await?;
        release(&space, guard).await?;
        becomes_free(&other, &name, space.crash_limit()).await?;
        becomes_free(&locks, &name, space.crash_limit()).await?;
    }
    Ok(())
}

async fn a_reset_frees_the_lock(space: Space) -> Verdict {
    let limits = space.guarantees().ttl.ok_or_else(|| Failure::new("this case needs a store with expiry"))?;
    let other = space.connect().await?;
    for way in ["reset", "closed"] {
        let (locks, line) = space.connect_wired().await?;
        let name = space.name(way);
        let guard = locks.lock(&name).ttl(limits.max).acquire().await?;
        is_busy(&other, &name).await?;
        let cut = Boottime::now();
        match way {
            "reset" => line.reset(),
            _ => line.close(),
        }
        within(HEARD_WITHIN, "hearing of the loss after a cut", guard.lost()).await?;
        check!(!guard.is_held(), "lost and held");
        let next = within(PROMPT, "the grant after a cut", other.lock(&name).acquire()).await??;
        let took = Boottime::now().since(cut);
        check!(took < limits.max / 2, "free {took:?} after the cut, with a ttl of {:?}", limits.max);
        check!(next.fencing_token() > guard.fencing_token(), "the tokens went back after a cut");
        let released = guard.release().await.map_err(|error| error.kind());
        check!(released == Err(ErrorKind::Lost), "releasing a lost lock gave {released:?}");
        check!(next.is_held(), "the old holder's release ended the new hold");
        next.release().await?;
        becomes_free(&locks, &name, space.crash_limit()).await?;
    }
    Ok(())
}

async fn a_cut_waiter_is_served(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let other = space.connect().await?;
    let name = space.name("handed");
    for moment in ["before", "while", "after"] {
        let (locks, line) = space.connect_wired().await?;
        let guard = other.lock(&name).ttl(ttl).acquire().await?;
        let lock = locks.lock(&name).ttl(ttl);
        let waiting = tokio::spawn(async move { lock.acquire().await });
        is_busy(&other, &name).await?;
        pause_for(Duration::from_millis(100)).await;
        let token = guard.fencing_token();
        match moment {
            "before" => {
                line.reset();
                guard.release().await?;
            }
            "while" => {
                // What says that it was handed over gets lost.
                line.black_hole();
                guard.release().await?;
                line.reset();
            }
            _ => {
                guard.release().await?;
                line.reset();
            }
        }
        line.restore();
        let served = within(space.crash_limit(), "the turn of a cut waiter", waiting)
            .await
            .map_err(|failure| failure.while_doing(format!("cut {moment} the hand-over")))???;
        check!(served.fencing_token() > token, "token {} after {token}", served.fencing_token());
        if space.keeps_over_a_cut() {
            check!(served.is_held(), "a fresh guard says that it is not held");
            is_busy(&other, &name).await?;
        }
        release(&space, served).await?;
        becomes_free(&other, &name, space.crash_limit()).await?;
    }
    Ok(())
}

async fn a_cut_off_waiter_holds_up_nobody(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (locks, line) = space.connect_wired().await?;
    let (other, next) = (space.connect().await?, space.connect().await?);
    let name = space.name("handed");
    let guard = other.lock(&name).ttl(ttl).acquire().await?;
    let lock = locks.lock(&name).ttl(ttl);
    let cut_off = tokio::spawn(async move { lock.acquire().await });
    pause_for(Duration::from_millis(100)).await;
    line.black_hole();
    let lock = next.lock(&name).ttl(ttl);
    let wait = tokio::spawn(async move { lock.acquire().await });
    pause_for(Duration::from_millis(100)).await;
    guard.release().await?;
    let served = within(space.crash_limit(), "the turn behind a waiter that is cut off", wait).await???;
    check!(!cut_off.is_finished(), "granted behind a silent line");
    line.restore();
    let until = Boottime::now().after(ttl);
    while Boottime::now() < until {
        check!(!cut_off.is_finished(), "a waiter came back and got a lock that is held");
        check!(served.is_held(), "a waiter came back and took the lock");
        pause_for(Duration::from_millis(20)).await;
    }
    served.release().await?;
    let back = within(space.crash_limit(), "the turn of a waiter that came back", cut_off).await???;
    check!(back.is_held(), "a fresh guard says that it is not held");
    release(&space, back).await
}

async fn a_cut_listener_still_wakes(space: Space) -> Verdict {
    let (locks, other, third) = (space.connect().await?, space.connect().await?, space.connect().await?);
    let name = space.name("listened");
    let with_ttl = |lock: Lock| crate::worker::with_ttl(lock, space.short_ttl());
    for round in 0..6 {
        let guard = with_ttl(locks.lock(&name)).acquire().await?;
        let lock = with_ttl(other.lock(&name));
        let waiting = tokio::spawn(async move { lock.acquire().await });
        is_busy(&third, &name).await?;
        pause_for(Duration::from_millis(50)).await;
        match round % 3 {
            // The message falls into the time without a listener.
            0 => {
                space.inject(Fault::ListenersCut).await?;
                guard.release().await?;
            }
            1 => {
                let (cut, released) = tokio::join!(space.inject(Fault::ListenersCut), guard.release());
                cut?;
                released?;
            }
            // The listener may be back.
            _ => {
                space.inject(Fault::ListenersCut).await?;
                pause_for(Duration::from_millis(200)).await;
                guard.release().await?;
            }
        }
        let served =
            within(space.crash_limit(), "the turn of a waiter without a listener", waiting).await???;
        check!(served.is_held(), "a fresh guard says that it is not held");
        served.release().await?;
    }
    Ok(())
}

/// How often lines and sessions are cut.
const STRIKES: u32 = 30;

/// How often each task of a crowd takes the lock.
const VISITS: u32 = 30;

/// What to expect of histories: where a cut ends a hold, holds overlap on paper.
fn strictness(space: &Space) -> Strictness {
    if space.keeps_over_a_cut() { Strictness::Crashes } else { space.strictness_over_cuts() }
}

async fn a_crowd_over_breaking_lines(space: Space) -> Verdict {
    let recorder = Recorder::memory();
    let name = space.name("crowded");
    let (mut tasks, mut lines) = (JoinSet::new(), Vec::new());
    for instance in 0..3 {
        let (locks, line) = space.connect_wired().await?;
        lines.push(line);
        for task in 0..4 {
            let (lock, client) = (locks.lock(&name), recorder.client(instance * 4 + task));
            match space.keeps_over_a_cut() {
                true => tasks.spawn(visit(lock, client, VISITS)),
                false => tasks.spawn(visit_or_lose(lock, client, VISITS)),
            };
        }
    }
    tasks.spawn(visit(space.connect().await?.lock(&name), recorder.client(12), VISITS));
    for _ in 0..STRIKES {
        pause_for(Duration::from_micros(fastrand::u64(..60_000))).await;
        lines[fastrand::usize(..lines.len())].reset();
    }
    while let Some(outcome) = within(PROMPT * 4, "turns over lines that break", tasks.join_next()).await? {
        outcome??;
    }
    check_history(&recorder.events(), strictness(&space))
}

/// Takes and gives back the lock, which may be lost meanwhile.
async fn visit_or_lose(lock: Lock, client: Client, times: u32) -> Verdict {
    let name = lock.name().to_owned();
    for _ in 0..times {
        client.invoke(Op::Acquire, &name, None);
        let guard = lock.acquire().await?;
        let token = guard.fencing_token();
        client.end(Op::Acquire, Phase::Ok, &name, Some(guard.claim_id().to_string()), Some(token));
        tokio::task::yield_now().await;
        client.invoke(Op::Check, &name, Some(token));
        client.answered(&name, token, guard.is_held());
        client.invoke(Op::Release, &name, Some(token));
        let phase = match guard.release().await {
            Ok(()) => Phase::Ok,
            Err(error) if error.kind() == ErrorKind::Unavailable => Phase::Info,
            Err(error) if error.kind() == ErrorKind::Lost => Phase::Fail,
            Err(error) => return Err(error.into()),
        };
        client.end(Op::Release, phase, &name, None, Some(token));
    }
    Ok(())
}

async fn processes_over_breaking_lines(space: Space) -> Verdict {
    let (mut workers, mut lines) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let line = space.proxy()?;
        workers.push(space.worker_through(&line).await?);
        lines.push(line);
    }
    turns_while_cut(&space, workers, Cut::Lines(lines)).await
}

async fn cut_sessions_keep_exclusion(space: Space) -> Verdict {
    let workers = space.workers(4).await?;
    turns_while_cut(&space, workers, Cut::Sessions).await
}

/// What breaks the connections of the workers.
enum Cut {
    Lines(Vec<Proxy>),
    Sessions,
}

/// Breaks them while they take turns, and sees that they go on.
async fn turns_while_cut(space: &Space, mut workers: Vec<Worker>, cut: Cut) -> Verdict {
    let name = space.name("cut");
    let history = HistoryFile::new();
    for worker in &mut workers {
        worker.order(&Order::Hammer(Hammer {
            name: name.clone(),
            mix: Mix::Exclusive,
            ttl: None,
            rounds: u32::MAX,
            until: u64::MAX,
            hold: Duration::from_millis(1),
            history: Some(history.path().to_owned()),
            witness: space.keeps_over_a_cut(),
            patient: false,
        }))?;
    }
    for _ in 0..STRIKES {
        pause_for(Duration::from_micros(fastrand::u64(..100_000))).await;
        match &cut {
            Cut::Lines(lines) => lines[fastrand::usize(..lines.len())].reset(),
            Cut::Sessions => space.inject(Fault::SessionsCut).await?,
        }
    }
    let mut grants = Grants::new(workers.len());
    for _ in 0..5 {
        grants.go_on(history.path(), PROMPT * 2).await?;
    }
    for worker in &mut workers {
        worker.kill()?;
        still_at_work(worker).await?;
    }
    let locks = space.connect().await?;
    becomes_free(&locks, &name, space.crash_limit() * 2).await?;
    check_history_file(history.path(), 1, strictness(space))
}
