//! Readers and writers.

use std::sync::atomic::Ordering;

use locks_api::spi::{Attempt, Backend as _, Grant, Mode, Offer, Released};
use locks_api::{ErrorKind, LockName};

use super::wanting::{begin, gets, has, is_refused, still_waits};
use super::{Case, Need, Requirement, need};
use crate::direct::Direct;
use crate::kind::{Kind, Want};
use crate::space::{PROMPT, Space, becomes_free, is_busy};
use crate::verdict::{Failure, Verdict, check, within};

pub(super) mod crowds;
pub(super) mod queue;

/// The need of every case with readers in it.
pub(super) const READERS: Requirement = need(Need::Offer(Offer::Shared), "offers::no_readers");

const DOWNGRADE: Requirement = need(Need::Offer(Offer::Downgrade), "offers::no_downgrade");

pub(super) const CASES: &[Case] = &[
    Case::new(
        "rw::readers_hold_together",
        "readers of one instance and of others hold together, each until it is released itself, and keep a writer out until the last one",
        |space| Box::pin(readers_hold_together(space)),
    )
    .needs(&[READERS]),
    Case::new(
        "rw::a_writer_is_alone",
        "a writer keeps out readers and writers, of its own instance and of others, and is kept out by each of them",
        |space| Box::pin(a_writer_is_alone(space)),
    )
    .needs(&[READERS]),
    Case::new(
        "rw::the_exclusive_lock_is_the_writer",
        "the exclusive lock of the same name keeps out readers and writers and is kept out by them",
        |space| Box::pin(the_exclusive_lock_is_the_writer(space)),
    )
    .needs(&[READERS]),
    Case::new(
        "rw::tokens_rise_over_all_modes",
        "every reader and writer has a token of its own, above those of all that were granted before",
        |space| Box::pin(tokens_rise_over_all_modes(space)),
    )
    .needs(&[READERS]),
    Case::new(
        "rw::a_dropped_reader_frees_its_share",
        "dropping one of several readers frees nothing but its own share",
        |space| Box::pin(a_dropped_reader_frees_its_share(space)),
    )
    .needs(&[READERS]),
    Case::new(
        "rw::each_step_hits_one_reader",
        "releasing or cancelling one reader's claim, or repeating it, leaves the other readers' grants as they are",
        |space| Box::pin(each_step_hits_one_reader(space)),
    )
    .needs(&[READERS]),
    Case::new(
        "rw::a_downgrade_lets_readers_in",
        "a writer that becomes a reader keeps its token and its hold, lets in the readers that wait and keeps writers out",
        |space| Box::pin(a_downgrade_lets_readers_in(space)),
    )
    .needs(&[READERS, DOWNGRADE]),
    Case::new(
        "rw::a_downgrade_hits_its_own_grant",
        "the step `downgrade` grants readers that wait and no writer, may be repeated, and finds nothing under another claim or after the release",
        |space| Box::pin(a_downgrade_hits_its_own_grant(space)),
    )
    .needs(&[READERS, DOWNGRADE]),
    Case::new(
        "rw::a_downgrade_after_a_loss_is_lost",
        "a writer that has lost its lock does not become a reader",
        |space| Box::pin(a_downgrade_after_a_loss_is_lost(space)),
    )
    .needs(&[READERS, DOWNGRADE, need(Need::Expiry, "lease::without_expiry_nothing_ends")]),
];

/// A reader and a writer of a new name.
fn both(space: &Space, tag: &str) -> (Want, Want) {
    let name = space.name(tag);
    (Want::new(Kind::Read, &name), Want::new(Kind::Write, &name))
}

async fn readers_hold_together(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let (read, write) = both(&space, "shared");
    let mut readers = Vec::new();
    for locks in [&one, &two, &one, &two] {
        readers.push(has(locks, &read).await?);
    }
    // One that waits although it need not.
    readers.push(within(PROMPT, "a reader among readers", read.acquire(&one)).await??);
    check!(readers.iter().all(|reader| reader.guard().mode() == Mode::Shared), "a reader is not a reader");
    while let Some(reader) = readers.pop() {
        for locks in [&one, &two] {
            is_refused(locks, &write).await?;
        }
        check!(readers.iter().all(crate::kind::Held::is_held), "a reader's release ended another one's hold");
        reader.release().await?;
    }
    for locks in [&one, &two] {
        has(locks, &write).await?.release().await?;
    }
    Ok(())
}

async fn a_writer_is_alone(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let (read, write) = both(&space, "written");
    for (holder, other) in [(&one, &two), (&two, &one)] {
        for (held, refused) in [(&write, vec![&read, &write]), (&read, vec![&write])] {
            let guard = has(holder, held).await?;
            for locks in [holder, other] {
                for want in &refused {
                    is_refused(locks, want).await?;
                }
            }
            check!(guard.is_held(), "a try of somebody else ended the hold");
            guard.release().await?;
        }
    }
    Ok(())
}

async fn the_exclusive_lock_is_the_writer(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let (read, write) = both(&space, "both");
    let guard = one.lock(&read.name).acquire().await?;
    for want in [&read, &write] {
        is_refused(&one, want).await?;
        is_refused(&two, want).await?;
    }
    guard.release().await?;
    for want in [&read, &write] {
        let held = has(&one, want).await?;
        is_busy(&one, &read.name).await?;
        is_busy(&two, &read.name).await?;
        held.release().await?;
    }
    Ok(())
}

async fn tokens_rise_over_all_modes(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let (read, write) = both(&space, "numbered");
    let exclusive = Want::new(Kind::Lock, &read.name);
    let mut highest = 0;
    for round in 0..30 {
        let locks = if round % 2 == 0 { &one } else { &two };
        let mut held = Vec::new();
        match fastrand::u32(..4) {
            0 => held.push(has(locks, &write).await?),
            1 => held.push(has(locks, &exclusive).await?),
            _ => {
                for locks in [&one, &one, &two] {
                    held.push(has(locks, &read).await?);
                }
            }
        }
        for guard in held {
            check!(guard.token().get() > highest, "token {} after token {highest}", guard.token());
            highest = guard.token().get();
            guard.release().await?;
        }
    }
    Ok(())
}

async fn a_dropped_reader_frees_its_share(space: Space) -> Verdict {
    let (one, two, three) = (space.connect().await?, space.connect().await?, space.connect().await?);
    let (read, write) = both(&space, "dropped");
    for (first, second) in [(&one, &two), (&one, &one)] {
        let (dropped, kept) = (has(first, &read).await?, has(second, &read).await?);
        let writer = begin(&three, &write);
        drop(dropped);
        still_waits(&writer, "while a reader held on").await?;
        check!(kept.is_held(), "dropping one reader ended another one's hold");
        drop(kept);
        gets(writer, PROMPT, "the writer after the last reader").await?.release().await?;
    }
    Ok(())
}

/// The claim of a reader over this connection.
fn reader(connection: &Direct, name: &LockName, space: &Space) -> locks_api::spi::Claim {
    connection.claim(name, space).with_mode(Mode::Shared)
}

async fn each_step_hits_one_reader(space: Space) -> Verdict {
    let name = LockName::new(space.name("steps"))?;
    let (one, two) = (Direct::new(space.backend().await?), Direct::new(space.backend().await?));
    let claims = [reader(&one, &name, &space), reader(&one, &name, &space), reader(&two, &name, &space)];
    let mut grants = Vec::new();
    for (connection, claim) in [&one, &one, &two].into_iter().zip(&claims) {
        grants.push(connection.granted(claim).await?);
    }
    for (connection, (claim, grant)) in [&one, &one, &two].into_iter().zip(claims.iter().zip(&grants)) {
        let again = connection.granted(claim).await?;
        check!(again.tokens == grant.tokens, "a reader that asked again has {:?}", again.tokens);
    }
    let forged = Grant::new(&reader(&two, &name, &space), grants[0].tokens, grants[0].expiry);
    check!(two.release(&forged).await? == Released::NotHeld, "another claim released a reader's grant");
    check!(one.release(&grants[0]).await? == Released::Done, "a reader could not release");
    check!(one.release(&grants[0]).await? == Released::NotHeld, "a reader released twice");
    one.cancel(&claims[1]).await?;
    one.cancel(&claims[1]).await?;
    let writer = one.claim(&name, &space);
    let answer = one.acquire(&writer).await?;
    check!(matches!(answer, Attempt::Busy(_)), "{answer:?} to a writer while a reader holds");
    let again = two.granted(&claims[2]).await?;
    check!(again.tokens == grants[2].tokens, "the last reader's claim now has {:?}", again.tokens);
    check!(two.release(&grants[2]).await? == Released::Done, "the last reader could not release");
    let alone = one.granted(&one.claim(&name, &space)).await?;
    check!(alone.tokens.first() > grants[2].tokens.last(), "the tokens went back after the readers");
    one.release(&alone).await?;
    one.close().await?;
    two.close().await
}

async fn a_downgrade_lets_readers_in(space: Space) -> Verdict {
    let (one, two, three) = (space.connect().await?, space.connect().await?, space.connect().await?);
    let (read, write) = both(&space, "downgraded");
    for _ in 0..3 {
        let writer = within(PROMPT, "a free lock", one.rw_lock(&read.name).write()).await??;
        let waits = [begin(&one, &read), begin(&two, &read)];
        for wait in &waits {
            still_waits(wait, "while a writer held").await?;
        }
        let token = writer.fencing_token();
        let reader = within(PROMPT, "a downgrade", writer.downgrade()).await??;
        check!(
            reader.is_held() && reader.mode() == Mode::Shared,
            "a downgraded writer is {:?}",
            reader.mode()
        );
        check!(reader.fencing_token() == token, "a downgrade changed the token");
        let mut held = Vec::new();
        for wait in waits {
            held.push(gets(wait, PROMPT, "a reader after the downgrade").await?);
        }
        held.push(has(&three, &read).await?);
        check!(held.iter().all(|held| held.token() > token), "a reader's token is not above the writer's");
        for locks in [&one, &two, &three] {
            is_refused(locks, &write).await?;
            is_busy(locks, &read.name).await?;
        }
        for held in held {
            held.release().await?;
        }
        is_refused(&two, &write).await?;
        check!(reader.is_held(), "the downgraded hold ended with the others");
        reader.release().await?;
        has(&two, &write).await?.release().await?;
    }
    Ok(())
}

async fn a_downgrade_hits_its_own_grant(space: Space) -> Verdict {
    let name = LockName::new(space.name("steps"))?;
    let (one, two) = (Direct::new(space.backend().await?), Direct::new(space.backend().await?));
    let Some(downgrade) = one.backend().abilities().downgrade else {
        return Err(Failure::new("a downgrade is offered and not there"));
    };
    let claim = one.claim(&name, &space);
    let grant = one.granted(&claim).await?;
    let waiting = reader(&two, &name, &space).waiting();
    let answer = two.acquire(&waiting).await?;
    check!(!matches!(answer, Attempt::Granted(_)), "a reader was granted beside a writer");
    let forged = Grant::new(&two.claim(&name, &space), grant.tokens, grant.expiry);
    let answer = within(PROMPT, "the step `downgrade`", downgrade.downgrade(&forged)).await??;
    check!(answer == Released::NotHeld, "a downgrade under another claim gave {answer:?}");
    for _ in 0..2 {
        let answer = within(PROMPT, "the step `downgrade`", downgrade.downgrade(&grant)).await??;
        check!(answer == Released::Done, "a downgrade of a live grant gave {answer:?}");
        let again = one.granted(&claim.clone().with_mode(Mode::Shared)).await?;
        check!(again.tokens == grant.tokens, "a downgrade changed the tokens to {:?}", again.tokens);
    }
    let beside = two.granted_soon(&waiting).await?;
    for connection in [&one, &two] {
        let answer = connection.acquire(&connection.claim(&name, &space)).await?;
        check!(matches!(answer, Attempt::Busy(_)), "{answer:?} to a writer beside a downgraded one");
    }
    check!(two.release(&beside).await? == Released::Done, "a reader could not release");
    let answer = one.acquire(&one.claim(&name, &space)).await?;
    check!(matches!(answer, Attempt::Busy(_)), "{answer:?} to a writer beside a downgraded one");
    check!(one.release(&grant).await? == Released::Done, "a downgraded grant could not be released");
    let answer = within(PROMPT, "the step `downgrade`", downgrade.downgrade(&grant)).await??;
    check!(answer == Released::NotHeld, "a downgrade after the release gave {answer:?}");
    one.close().await?;
    two.close().await
}

async fn a_downgrade_after_a_loss_is_lost(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (locks, line) = space.connect_flaky().await?;
    let other = space.connect().await?;
    let (read, write) = both(&space, "lost");
    let writer = locks.rw_lock(&read.name).ttl(ttl).write().await?;
    line.cut.store(true, Ordering::SeqCst);
    within(ttl + PROMPT, "hearing of the loss", writer.lost()).await?;
    line.cut.store(false, Ordering::SeqCst);
    let kind =
        within(PROMPT, "a downgrade", writer.downgrade()).await?.map(drop).map_err(|error| error.kind());
    check!(kind == Err(ErrorKind::Lost), "a downgrade of a lost lock gave {kind:?}");
    within(ttl + PROMPT, "the next writer", write.acquire(&other)).await??.release().await?;
    becomes_free(&other, &read.name, PROMPT).await
}
