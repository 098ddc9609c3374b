//! What few ask for: an end of the hold, renewal by hand, how a wait stands, guards that move.

use std::collections::VecDeque;
use std::time::Duration;

use locks_api::spi::Offer;
use locks_api::{
    Boottime, Busy, ErrorKind, Leadership, LockAllGuard, LockGuard, LossReason, Permit, ReadGuard, WriteGuard,
};

use super::wanting::{begin, gets, has};
use super::{Case, Need, need};
use crate::kind::{Held, Kind, Want};
use crate::polling::{poll_now, poll_once};
use crate::space::{PROMPT, Space, becomes_free, is_busy};
use crate::verdict::{Failure, Verdict, check, eventually, pause_for, within};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "options::a_maximum_hold_ends",
        "a guard whose maximum hold is over is lost for that reason, its lock goes to who waits, and its release is Lost and harms nobody",
        |space| Box::pin(a_maximum_hold_ends(space)),
    ),
    Case::new(
        "options::a_maximum_hold_ends_its_body",
        "a body that runs for longer than the maximum hold is dropped, and the outcome is Lost; a shorter one ends as usual",
        |space| Box::pin(a_maximum_hold_ends_its_body(space)),
    ),
    Case::new(
        "options::without_renewal_the_deadline_counts",
        "a lock that is not renewed is lost at its deadline for all to see, unless it is extended by hand in time",
        |space| Box::pin(without_renewal_the_deadline_counts(space)),
    )
    .needs(&[need(Need::Expiry, "options::without_expiry_there_is_nothing_to_extend")]),
    Case::new(
        "options::an_extension_says_what_is_lost",
        "extending a lock that is lost is Lost, and one that is renewed anyway may be extended too",
        |space| Box::pin(an_extension_says_what_is_lost(space)),
    )
    .needs(&[need(Need::Expiry, "options::without_expiry_there_is_nothing_to_extend")]),
    Case::new(
        "options::without_expiry_there_is_nothing_to_extend",
        "where locks don't expire a lock that is not renewed is held until its release, and an extension changes nothing",
        |space| Box::pin(without_expiry_there_is_nothing_to_extend(space)),
    )
    .needs(&[need(Need::NoExpiry, "options::without_renewal_the_deadline_counts")]),
    Case::new(
        "options::a_wait_tells_its_position",
        "waits behind a holder of the same instance tell how many are before them, fewer and fewer, and what is in the way",
        |space| Box::pin(a_wait_tells_its_position(space)),
    ),
    Case::new(
        "options::a_wait_elsewhere_never_falls_back",
        "a wait behind other instances tells what is in the way, and its position, if known, never grows",
        |space| Box::pin(a_wait_elsewhere_never_falls_back(space)),
    ),
    Case::new(
        "options::guards_move",
        "a guard moves to another task and to another thread, holds on there, and is released there",
        |space| Box::pin(guards_move(space)),
    ),
];

/// All kinds of locks that this store offers, under one name.
pub(super) fn kinds(space: &Space) -> Vec<Kind> {
    let kinds = [
        Kind::Lock,
        Kind::Write,
        Kind::Read,
        Kind::Permits { count: 2, limit: 2 },
        Kind::Leader { value: "me".into() },
        Kind::All { also: vec![] },
    ];
    let offers = space.guarantees().offers;
    kinds.into_iter().filter(|kind| kind.offer().is_none_or(|offer| offers.has(offer))).collect()
}

async fn a_maximum_hold_ends(space: Space) -> Verdict {
    const MOST: Duration = Duration::from_millis(150);
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("limited");
    for (holder, other) in [(&one, &two), (&one, &one)] {
        let asked = Boottime::now();
        let guard = within(PROMPT, "a free lock", holder.lock(&name).max_hold(MOST).acquire()).await??;
        check!(guard.is_held(), "a fresh guard says that it is not held");
        let next = begin(other, &Want::new(Kind::Lock, &name));
        let reason = within(MOST + PROMPT, "the end of a maximum hold", guard.lost()).await?;
        let lasted = Boottime::now().since(asked);
        check!(reason == LossReason::MaxHold && !guard.is_held(), "lost because {reason}");
        check!(lasted >= MOST, "a maximum hold of {MOST:?} was over after {lasted:?}");
        let next = gets(next, PROMPT, "the lock after a maximum hold").await?;
        check!(next.token() > guard.fencing_token(), "the tokens of the two holders are out of order");
        let kind = within(PROMPT, "a release", guard.release()).await?.map_err(|error| error.kind());
        check!(kind == Err(ErrorKind::Lost), "releasing what was held too long gave {kind:?}");
        check!(next.is_held(), "the old holder's release ended the new hold");
        is_busy(holder, &name).await?;
        next.release().await?;
    }
    if space.guarantees().offers.has(Offer::Shared) {
        // One of several readers ends, and the other does not.
        let lock = one.rw_lock(&name);
        let (ends, stays) = (lock.clone().max_hold(MOST).read().await?, lock.read().await?);
        let reason = within(MOST + PROMPT, "the end of a maximum hold", ends.lost()).await?;
        check!(
            reason == LossReason::MaxHold && stays.is_held(),
            "one of two readers was lost because {reason}"
        );
        is_busy(&two, &name).await?;
        stays.release().await?;
    }
    let kind = one.lock(&name).max_hold(Duration::ZERO).try_acquire().await.map(drop);
    check!(kind.map_err(|error| error.kind()) == Err(ErrorKind::Config), "a maximum hold of zero was taken");
    becomes_free(&two, &name, PROMPT).await
}

async fn a_maximum_hold_ends_its_body(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("limited");
    let lock = one.lock(&name).max_hold(Duration::from_millis(100));
    let kind = within(PROMPT, "the end of a body", lock.run(std::future::pending::<()>()))
        .await?
        .map_err(|error| error.kind());
    check!(kind == Err(ErrorKind::Lost), "a body that ran too long gave {kind:?}");
    becomes_free(&two, &name, PROMPT).await?;
    let lock = one.lock(&name).max_hold(PROMPT);
    check!(
        within(PROMPT, "a body", lock.run(async { 7 })).await?? == 7,
        "a body that ended in time has another output"
    );
    becomes_free(&two, &name, PROMPT).await
}

async fn without_renewal_the_deadline_counts(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("by-hand");
    for times in [0, 2] {
        let guard = within(PROMPT, "a free lock", one.lock(&name).ttl(ttl).renew(false).acquire()).await??;
        let mut deadline =
            guard.deadline().ok_or_else(|| Failure::new("a lock with a ttl has no deadline"))?;
        for _ in 0..times {
            pause_for(deadline.remaining() / 2).await;
            check!(guard.deadline() == Some(deadline), "the deadline moved by itself");
            let extended = within(PROMPT, "an extension", guard.extend()).await??;
            check!(
                extended > Some(deadline),
                "an extension moved the deadline from {deadline:?} to {extended:?}"
            );
            check!(extended == guard.deadline(), "{extended:?} was told and {:?} counts", guard.deadline());
            let left = guard.deadline().map(|deadline| deadline.remaining());
            check!(left.is_some_and(|left| left <= ttl), "{left:?} left of a ttl of {ttl:?}");
            deadline = extended.unwrap_or(deadline);
        }
        let next = begin(&two, &Want::new(Kind::Lock, &name).ttl(Some(ttl)));
        check!(guard.is_held(), "lost before its deadline");
        let reason = within(ttl + PROMPT, "hearing of the loss", guard.lost()).await?;
        check!(reason == LossReason::Expired && !guard.is_held(), "lost because {reason}");
        check!(deadline.instant() <= Boottime::now(), "lost {:?} before its deadline", deadline.remaining());
        let next = gets(next, ttl + PROMPT, "the lock after its deadline").await?;
        check!(next.token() > guard.fencing_token(), "the tokens of the two holders are out of order");
        next.release().await?;
    }
    Ok(())
}

async fn an_extension_says_what_is_lost(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("by-hand");
    let guard = one.lock(&name).ttl(ttl).renew(false).acquire().await?;
    within(ttl + PROMPT, "hearing of the loss", guard.lost()).await?;
    let kind = within(PROMPT, "an extension", guard.extend()).await?.map(drop).map_err(|error| error.kind());
    check!(kind == Err(ErrorKind::Lost), "extending a lost lock gave {kind:?}");
    check!(!guard.is_held(), "an extension brought a lost lock back");
    drop(guard);
    let lock = two.lock(&name).ttl(ttl);
    let renewed = within(ttl + PROMPT, "the lock after a loss", lock.acquire()).await??;
    for _ in 0..3 {
        let before = renewed.deadline();
        let extended = within(PROMPT, "an extension", renewed.extend()).await??;
        check!(extended.is_some() && extended >= before, "an extension moved {before:?} to {extended:?}");
    }
    pause_for(ttl * 3 / 2).await;
    check!(renewed.is_held(), "a lock that is renewed was lost after an extension");
    is_busy(&one, &name).await?;
    renewed.release().await?;
    Ok(())
}

async fn without_expiry_there_is_nothing_to_extend(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("by-hand");
    let guard = one.lock(&name).ttl(Duration::from_millis(10)).renew(false).acquire().await?;
    pause_for(Duration::from_millis(100)).await;
    check!(guard.is_held() && guard.deadline().is_none(), "{:?} without expiry", guard.deadline());
    let extended = within(PROMPT, "an extension", guard.extend()).await??;
    check!(extended.is_none(), "an extension of what does not expire gave {extended:?}");
    check!(poll_once(guard.lost()).is_pending(), "the loss of a held lock was told");
    is_busy(&two, &name).await?;
    guard.release().await?;
    becomes_free(&two, &name, PROMPT).await
}

async fn a_wait_tells_its_position(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let name = space.name("queue");
    let guard = locks.lock(&name).label("the holder").acquire().await?;
    let mut waits: VecDeque<_> = (0..4).map(|_| Box::pin(locks.lock(&name).enqueue())).collect();
    for wait in &waits {
        let status = wait.status();
        check!(status.position.is_none() && status.busy.is_none(), "{status:?} before it was asked for");
    }
    let mut holder = Some(guard);
    while !waits.is_empty() {
        for wait in &mut waits {
            check!(poll_now(wait.as_mut()).await.is_pending(), "a wait for a held lock ended");
        }
        for (expected, wait) in (0..).zip(&waits) {
            let status = wait.status();
            check!(status.position == Some(expected), "{status:?} with {expected} before it");
            check!(matches!(status.busy, Some(Busy::Held { .. })), "{status:?} while the lock is held");
        }
        // One in the middle gives up.
        if waits.len() == 4 {
            drop(waits.remove(1));
            continue;
        }
        if let Some(holder) = holder.take() {
            within(PROMPT, "a release", holder.release()).await??;
        }
        let first = waits.pop_front().ok_or_else(|| Failure::new("nobody waits"))?;
        holder = Some(within(PROMPT, "the lock after a release", first).await??);
    }
    if let Some(holder) = holder {
        holder.release().await?;
    }
    Ok(())
}

async fn a_wait_elsewhere_never_falls_back(space: Space) -> Verdict {
    let instances = [space.connect().await?, space.connect().await?, space.connect().await?];
    let name = space.name("queue");
    let holder = instances[0].lock(&name).acquire().await?;
    {
        let lock = instances[2].lock(&name);
        let mut alone = Box::pin(lock.enqueue());
        check!(poll_now(alone.as_mut()).await.is_pending(), "a wait for a held lock ended");
        eventually(PROMPT, "what is in the way", || alone.status().busy.is_some()).await?;
        let position = alone.status().position;
        check!(
            position.is_none_or(|position| position == 0),
            "position {position:?} with nobody before it but the holder"
        );
    }
    let earlier: Vec<_> = (0..4)
        .map(|number| {
            let lock = instances[number % 2].lock(&name);
            tokio::spawn(async move { lock.acquire().await?.release().await })
        })
        .collect();
    pause_for(Duration::from_millis(20)).await;
    let lock = instances[2].lock(&name);
    let mut wait = Box::pin(lock.enqueue());
    check!(poll_now(wait.as_mut()).await.is_pending(), "a wait for a held lock ended");
    eventually(PROMPT, "what is in the way", || wait.status().busy.is_some()).await?;
    let status = wait.status();
    check!(matches!(status.busy, Some(Busy::Held { .. })), "{status:?} while the lock is held");
    holder.release().await?;
    let mut last = u64::MAX;
    let served = async {
        loop {
            if let std::task::Poll::Ready(guard) = poll_now(wait.as_mut()).await {
                return Verdict::Ok(guard?);
            }
            if let Some(position) = wait.status().position {
                check!(position <= last, "position {position} after position {last}");
                last = position;
            }
            pause_for(Duration::from_micros(200)).await;
        }
    };
    within(PROMPT, "the lock behind others", served).await??.release().await?;
    for task in earlier {
        within(PROMPT, "the lock for who was before", task).await???;
    }
    Ok(())
}

/// Guards can be kept anywhere and moved anywhere.
const fn moves<T: Send + Sync + 'static>() {}

const _: () = {
    moves::<LockGuard>();
    moves::<ReadGuard>();
    moves::<WriteGuard>();
    moves::<Permit>();
    moves::<LockAllGuard>();
    moves::<Leadership>();
};

async fn guards_move(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    for kind in kinds(&space) {
        let want = Want::new(kind, &space.name("moved"));
        let held = has(&one, &want).await?;
        let moved = tokio::spawn(async move {
            tokio::task::yield_now().await;
            held
        });
        let held: Held = moved.await?;
        check!(held.is_held(), "{want:?} was lost when it moved to a task");
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let was_held = held.is_held();
            // A thread without any runtime drops it.
            drop(held);
            sender.send(was_held).unwrap_or_default();
        });
        check!(
            within(PROMPT, "another thread", receiver).await??,
            "{want:?} was lost when it moved to a thread"
        );
        thread.join().map_err(|_| Failure::new("the other thread panicked"))?;
        becomes_free(&two, &want.name, PROMPT).await?;
        let held = has(&two, &want).await?;
        let released = tokio::spawn(held.release());
        within(PROMPT, "a release in another task", released).await???;
        becomes_free(&one, &want.name, PROMPT).await?;
    }
    Ok(())
}
