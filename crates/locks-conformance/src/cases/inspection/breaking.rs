//! Locks that are taken from their holders, and holders who are asked.

use std::time::Duration;

use locks_api::spi::Offer;
use locks_api::{ErrorKind, LossReason};

use super::look;
use crate::cases::process::PROCESSES;
use crate::cases::wanting::{becomes_free_for, begin, gets, has, is_refused, still_waits};
use crate::cases::{Case, Need, Requirement, need};
use crate::kind::{Kind, Want};
use crate::polling::poll_once;
use crate::space::{PROMPT, Space, becomes_free, is_busy};
use crate::verdict::{Verdict, check, pause_for, within};
use crate::worker::{Order, Reply};

const BREAKING: Requirement = need(Need::Offer(Offer::Breaking), "offers::no_breaking");

const REVOKING: Requirement = need(Need::Offer(Offer::Revoking), "offers::no_revoking");

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new(
        "inspection::a_broken_lock_goes_to_the_next",
        "the holder of a broken lock hears Lost(Revoked), whoever waits gets it with a higher token, and the old holder harms nobody",
        |space| Box::pin(a_broken_lock_goes_to_the_next(space)),
    )
    .needs(&[BREAKING]),
    Case::new(
        "inspection::one_of_several_holders_is_broken",
        "breaking one claim takes the lock from that holder alone, and breaking the lock from all that are left",
        |space| Box::pin(one_of_several_holders_is_broken(space)),
    )
    .needs(&[BREAKING, need(Need::Offer(Offer::Shared), "offers::no_readers")]),
    Case::new(
        "inspection::another_process_is_broken",
        "a lock of another process, even of a stopped one, can be broken, and that process hears of it",
        |space| Box::pin(another_process_is_broken(space)),
    )
    .needs(&[BREAKING, PROCESSES]),
    Case::new(
        "inspection::a_revoked_holder_is_only_asked",
        "a holder that is asked to give up hears of it and goes on holding until it does",
        |space| Box::pin(a_revoked_holder_is_only_asked(space)),
    )
    .needs(&[REVOKING]),
];

async fn a_broken_lock_goes_to_the_next(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("broken");
    let want = Want::new(Kind::Lock, &name).ttl(space.short_ttl());
    check!(two.break_lock(&name).await? == 0, "a lock that nobody has was taken from somebody");
    for (next, breaker) in [(&two, &two), (&one, &two), (&two, &one)] {
        let held = within(PROMPT, "a free lock", want.acquire(&one)).await??;
        let waiting = begin(next, &want);
        still_waits(&waiting, "while the lock was held").await?;
        let unknown =
            within(PROMPT, "breaking", breaker.break_claim(&name, locks_api::spi::ClaimId::random()))
                .await??;
        check!(unknown == 0 && held.is_held(), "breaking an unknown claim took the lock from {unknown}");
        let taken = within(PROMPT, "breaking", breaker.break_lock(&name)).await??;
        check!(taken == 1, "a lock with one holder was taken from {taken}");
        let reason = within(space.crash_limit(), "hearing of the loss", held.guard().lost()).await?;
        check!(reason == LossReason::Revoked && !held.is_held(), "lost because {reason}");
        let got = gets(waiting, space.crash_limit(), "the lock after it was broken").await?;
        check!(got.token() > held.token(), "token {} after {}", got.token(), held.token());
        let kind = within(PROMPT, "a late release", held.release()).await?.map_err(|error| error.kind());
        check!(kind == Err(ErrorKind::Lost), "releasing a broken lock gave {kind:?}");
        check!(got.is_held(), "the old holder's release ended the new hold");
        for locks in [&one, &two] {
            is_refused(locks, &want).await?;
        }
        got.release().await?;
    }
    let alone = within(PROMPT, "a free lock", want.acquire(&one)).await??;
    check!(two.break_lock(&name).await? == 1, "a lock with one holder was not taken from it");
    let next = has(&two, &want).await?;
    drop(alone);
    is_busy(&one, &name).await?;
    check!(next.is_held(), "the old holder's drop ended the new hold");
    next.release().await?;
    Ok(())
}

async fn one_of_several_holders_is_broken(space: Space) -> Verdict {
    let (one, two, three) = (space.connect().await?, space.connect().await?, space.connect().await?);
    let name = space.name("broken");
    let read = Want::new(Kind::Read, &name).ttl(space.short_ttl());
    let write = Want::new(Kind::Write, &name).ttl(space.short_ttl());
    let mut readers = Vec::new();
    for locks in [&one, &one, &two] {
        readers.push(has(locks, &read).await?);
    }
    let broken = readers.remove(1);
    let taken = within(PROMPT, "breaking", three.break_claim(&name, broken.guard().claim_id())).await??;
    check!(taken == 1, "one of several was taken from {taken}");
    let reason = within(space.crash_limit(), "hearing of the loss", broken.guard().lost()).await?;
    check!(reason == LossReason::Revoked, "lost because {reason}");
    check!(readers.iter().all(crate::kind::Held::is_held), "breaking one reader's hold ended another one's");
    is_refused(&three, &write).await?;
    check!(
        look(&three, &name).await?.holders.len() == 2,
        "two of three readers are left, and others are told"
    );
    let writer = begin(&three, &write);
    still_waits(&writer, "while readers held").await?;
    let taken = within(PROMPT, "breaking", two.break_lock(&name)).await??;
    check!(taken == 2, "a lock with two holders was taken from {taken}");
    let writer = gets(writer, space.crash_limit(), "the writer after all readers were broken").await?;
    for reader in &readers {
        let reason = within(space.crash_limit(), "hearing of the loss", reader.guard().lost()).await?;
        check!(reason == LossReason::Revoked, "lost because {reason}");
    }
    drop(readers);
    is_refused(&one, &read).await?;
    check!(writer.is_held(), "the old readers' drop ended the writer's hold");
    writer.release().await?;
    Ok(())
}

async fn another_process_is_broken(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let name = space.name("broken");
    let want = Want::new(Kind::Lock, &name).ttl(space.short_ttl());
    let mut worker = space.worker().await?;
    for stopped in [false, true] {
        let theirs = worker.get(&want).await?;
        if stopped {
            worker.signal(rustix::process::Signal::STOP)?;
            crate::space::reaches_state(worker.pid(), 'T').await?;
        }
        let taken = within(PROMPT, "breaking", locks.break_lock(&name)).await??;
        check!(taken == 1, "a lock with one holder was taken from {taken}");
        let mine = within(PROMPT, "a broken lock", want.acquire(&locks)).await??;
        check!(mine.token() > theirs, "token {} after {theirs}", mine.token());
        if stopped {
            worker.signal(rustix::process::Signal::CONT)?;
        }
        worker.order(&Order::AwaitLoss)?;
        let reply = worker.reply_within(space.crash_limit()).await?;
        check!(reply == Reply::Lost, "the other process answered {reply:?}");
        check!(worker.ask(&Order::Check).await? == Reply::Held(false), "a broken lock is held");
        match worker.ask(&Order::Release).await? {
            Reply::Failed { kind, .. } if kind == "Lost" => {}
            other => {
                return Err(crate::verdict::Failure::new(format!("releasing a broken lock gave {other:?}")));
            }
        }
        check!(mine.is_held(), "the old holder's release ended the new hold");
        mine.release().await?;
    }
    Ok(())
}

async fn a_revoked_holder_is_only_asked(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("asked");
    check!(two.revoke(&name).await? == 0, "a lock that nobody has was asked back");
    let mut kinds = vec![vec![Kind::Lock]];
    if space.guarantees().offers.has(Offer::Shared) {
        kinds.push(vec![Kind::Read; 2]);
    }
    for kinds in kinds {
        let (mut held, wants): (Vec<_>, Vec<_>) = (
            Vec::new(),
            kinds.into_iter().map(|kind| Want::new(kind, &name).ttl(space.short_ttl())).collect(),
        );
        for want in &wants {
            held.push(has(&one, want).await?);
        }
        // A lone one is asked through its lock, one of several through its claim.
        let asked = match &held[..] {
            [_] => within(PROMPT, "asking", two.revoke(&name)).await??,
            [first, ..] => {
                within(PROMPT, "asking", two.revoke_claim(&name, first.guard().claim_id())).await??
            }
            [] => 0,
        };
        check!(asked == 1, "one was to be asked, and {asked} were reached");
        within(space.crash_limit(), "hearing of the request", held[0].guard().asked()).await?;
        if let Some(other) = held.get(1) {
            pause_for(Duration::from_millis(50)).await;
            check!(poll_once(other.guard().asked()).is_pending(), "another one's claim was asked back, too");
            let asked = within(PROMPT, "asking", two.revoke(&name)).await??;
            check!(asked == 2, "both were to be asked, and {asked} were reached");
            within(space.crash_limit(), "hearing of the request", other.guard().asked()).await?;
        }
        let until =
            locks_api::Boottime::now().after(space.short_ttl().unwrap_or(Duration::from_millis(200)) * 5 / 4);
        while locks_api::Boottime::now() < until {
            for held in &held {
                check!(held.is_held(), "lost because it was asked back");
                check!(poll_once(held.guard().lost()).is_pending(), "told lost because it was asked back");
            }
            is_busy(&two, &name).await?;
            pause_for(Duration::from_millis(20)).await;
        }
        let waiting = begin(&two, &Want::new(Kind::Lock, &name));
        still_waits(&waiting, "while the lock was held").await?;
        for held in held {
            held.release().await?;
        }
        gets(waiting, PROMPT, "the lock after it was given back").await?.release().await?;
        becomes_free_for(&one, &wants[0], PROMPT).await?;
    }
    becomes_free(&two, &name, PROMPT).await
}
