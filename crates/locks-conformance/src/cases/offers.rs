//! What a store offers beyond the exclusive lock, and that it says so where it does not.

use std::sync::atomic::Ordering;
use std::time::Duration;

use locks_api::spi::{Backend as _, Inspect, Offer};
use locks_api::{ErrorKind, LockName, Locks};

use super::inspection::INSPECTION;
use super::rw::READERS;
use super::{Case, Need, need};
use crate::space::{PROMPT, Space, becomes_free};
use crate::verdict::{Failure, Verdict, check, within};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "offers::what_is_said_is_there",
        "each ability of a connection is there exactly if the backend says that it offers it, and none without what it builds on",
        |space| Box::pin(what_is_said_is_there(space)),
    ),
    Case::new(
        "offers::no_readers",
        "without reader/writer locks, reading and writing are Unsupported in words, before any I/O",
        |space| Box::pin(no_readers(space)),
    )
    .needs(&[need(Need::NoOffer(Offer::Shared), "rw::readers_hold_together")]),
    Case::new(
        "offers::no_permits",
        "without semaphores, asking for permits is Unsupported in words, before any I/O",
        |space| Box::pin(no_permits(space)),
    )
    .needs(&[need(Need::NoOffer(Offer::Permits), "semaphore::as_many_as_there_are_permits")]),
    Case::new(
        "offers::no_downgrade",
        "without downgrades, asking for one is Unsupported in words and releases the lock",
        |space| Box::pin(no_downgrade(space)),
    )
    .needs(&[READERS, need(Need::NoOffer(Offer::Downgrade), "rw::a_downgrade_lets_readers_in")]),
    Case::new(
        "offers::no_step_for_several",
        "where several locks are not taken in one step, they are had together or not at all nevertheless",
        |space| Box::pin(no_step_for_several(space)),
    )
    .needs(&[need(Need::NoOffer(Offer::Together), "lock_all::one_step_takes_all_or_none")]),
    Case::new(
        "offers::no_schedule",
        "without schedules, a minimum hold, an interval and a completion are Unsupported in words, and the lock is free afterwards",
        |space| Box::pin(no_schedule(space)),
    )
    .needs(&[need(Need::NoOffer(Offer::Schedule), "schedule::a_minimum_hold_outlives_a_release")]),
    Case::new(
        "offers::no_elections",
        "without elections, campaigning and observing are Unsupported in words, before any I/O",
        |space| Box::pin(no_elections(space)),
    )
    .needs(&[need(Need::NoOffer(Offer::Values), "election::everybody_sees_who_leads")]),
    Case::new(
        "offers::no_inspection",
        "without inspection, asking who holds and listing are Unsupported in words",
        |space| Box::pin(no_inspection(space)),
    )
    .needs(&[need(Need::NoOffer(Offer::Inspection), "inspection::holders_are_told")]),
    Case::new(
        "offers::no_waiters",
        "a store that can't tell who waits says that it does not know, instead of that nobody does",
        |space| Box::pin(no_waiters(space)),
    )
    .needs(&[INSPECTION, need(Need::NoOffer(Offer::Waiters), "inspection::waiters_are_told")]),
    Case::new(
        "offers::no_breaking",
        "without breaking, it is Unsupported in words and the holder goes on holding",
        |space| Box::pin(no_breaking(space)),
    )
    .needs(&[need(Need::NoOffer(Offer::Breaking), "inspection::a_broken_lock_goes_to_the_next")]),
    Case::new(
        "offers::no_revoking",
        "without revoking, it is Unsupported in words and the holder is not asked",
        |space| Box::pin(no_revoking(space)),
    )
    .needs(&[need(Need::NoOffer(Offer::Revoking), "inspection::a_revoked_holder_is_only_asked")]),
];

async fn what_is_said_is_there(space: Space) -> Verdict {
    let backend = space.backend().await?;
    let (offers, abilities) = (space.guarantees().offers, backend.abilities());
    let inspects = [Offer::Inspection, Offer::Waiters, Offer::Breaking, Offer::Revoking];
    for (said, there, what) in [
        (offers.has(Offer::Downgrade), abilities.downgrade.is_some(), "a downgrade"),
        (offers.has(Offer::Together), abilities.together.is_some(), "several locks in one step"),
        (offers.has(Offer::Schedule), abilities.schedule.is_some(), "a schedule"),
        (offers.has(Offer::Values), abilities.values.is_some(), "values"),
        (inspects.into_iter().any(|offer| offers.has(offer)), abilities.inspect.is_some(), "inspection"),
    ] {
        check!(said == there, "{what}: offered is {said}, there is {there}");
    }
    for (offer, base) in [
        (Offer::Downgrade, Offer::Shared),
        (Offer::Waiters, Offer::Inspection),
        (Offer::Breaking, Offer::Inspection),
        (Offer::Revoking, Offer::Inspection),
    ] {
        check!(!offers.has(offer) || offers.has(base), "{offer} is offered without {base}");
    }
    if let Some(inspect) = abilities.inspect {
        what_it_can_not_it_says(&space, inspect).await?;
    }
    Ok(backend.close().await?)
}

/// The store itself says in words what it can't do to a lock.
async fn what_it_can_not_it_says(space: &Space, inspect: &dyn Inspect) -> Verdict {
    let name = LockName::new(space.name("asked"))?;
    let breaking = within(PROMPT, "breaking", inspect.break_lock(&name, None)).await?;
    let revoking = within(PROMPT, "revoking", inspect.revoke(&name, None)).await?;
    for (offer, answer) in [(Offer::Breaking, breaking), (Offer::Revoking, revoking)] {
        match answer {
            Ok(0) if space.guarantees().offers.has(offer) => {}
            Err(error) if !space.guarantees().offers.has(offer) => {
                check!(error.kind() == ErrorKind::Unsupported, "{error:?} for what is not offered");
                check!(error.to_string().contains(' '), "{error} says nothing in words");
            }
            other => return Err(Failure::new(format!("{offer} of a free lock gave {other:?}"))),
        }
    }
    Ok(())
}

/// Fails unless this is the refusal of what is not offered, in words that say what.
fn is_unsupported<T>(outcome: locks_api::Result<T>, offer: Offer) -> Verdict {
    match outcome {
        Ok(_) => Err(Failure::new(format!("{offer}: not offered and done all the same"))),
        Err(error) => {
            check!(error.kind() == ErrorKind::Unsupported, "{offer}: {error:?} instead of Unsupported");
            let words = error.to_string();
            check!(words.contains(&offer.to_string()), "{words:?} does not say that {offer} are missing");
            Ok(())
        }
    }
}

/// A connection whose steps are counted, and a name.
async fn counted(space: &Space) -> Verdict<(Locks, impl Fn() -> u64, String)> {
    let (locks, line) = space.connect_flaky().await?;
    Ok((locks, move || line.steps.load(Ordering::Relaxed), space.name("refused")))
}

async fn no_readers(space: Space) -> Verdict {
    let (locks, steps, name) = counted(&space).await?;
    let lock = locks.rw_lock(&name);
    is_unsupported(lock.read().await, Offer::Shared)?;
    is_unsupported(lock.try_read().await, Offer::Shared)?;
    is_unsupported(lock.read_timeout(PROMPT).await, Offer::Shared)?;
    is_unsupported(lock.enqueue_read().await, Offer::Shared)?;
    is_unsupported(lock.run_read(async {}).await, Offer::Shared)?;
    is_unsupported(lock.try_run_read(async {}).await, Offer::Shared)?;
    is_unsupported(lock.write().await, Offer::Shared)?;
    is_unsupported(lock.try_write().await, Offer::Shared)?;
    is_unsupported(lock.write_timeout(PROMPT).await, Offer::Shared)?;
    is_unsupported(lock.enqueue_write().await, Offer::Shared)?;
    is_unsupported(lock.run_write(async {}).await, Offer::Shared)?;
    is_unsupported(lock.try_run_write(async {}).await, Offer::Shared)?;
    check!(steps() == 0, "what is not offered made {} steps", steps());
    Ok(())
}

async fn no_permits(space: Space) -> Verdict {
    let (locks, steps, name) = counted(&space).await?;
    let semaphore = locks.semaphore(&name, 3);
    is_unsupported(semaphore.acquire().await, Offer::Permits)?;
    is_unsupported(semaphore.acquire_many(2).await, Offer::Permits)?;
    is_unsupported(semaphore.try_acquire().await, Offer::Permits)?;
    is_unsupported(semaphore.try_acquire_many(2).await, Offer::Permits)?;
    is_unsupported(semaphore.acquire_timeout(PROMPT).await, Offer::Permits)?;
    is_unsupported(semaphore.run(async {}).await, Offer::Permits)?;
    check!(steps() == 0, "what is not offered made {} steps", steps());
    Ok(())
}

async fn no_downgrade(space: Space) -> Verdict {
    let (locks, other) = (space.connect().await?, space.connect().await?);
    let name = space.name("written");
    let writer = within(PROMPT, "taking a free lock", locks.rw_lock(&name).write()).await??;
    is_unsupported(writer.downgrade().await, Offer::Downgrade)?;
    becomes_free(&other, &name, PROMPT).await
}

async fn no_step_for_several(space: Space) -> Verdict {
    let (locks, other) = (space.connect().await?, space.connect().await?);
    let names = ["a", "b", "c"].map(|tag| space.name(tag));
    let guard = within(PROMPT, "taking free locks", locks.lock_all(&names).acquire()).await??;
    check!(other.lock_all(&names).try_acquire().await?.is_none(), "held locks were granted");
    for name in &names {
        check!(other.lock(name).try_acquire().await?.is_none(), "{name:?} is held and was granted");
    }
    guard.release().await?;
    let obstacle = other.lock(&names[2]).acquire().await?;
    check!(locks.lock_all(&names).try_acquire().await?.is_none(), "a held lock was granted");
    becomes_free(&other, &names[0], PROMPT).await?;
    becomes_free(&other, &names[1], PROMPT).await?;
    obstacle.release().await?;
    Ok(())
}

async fn no_schedule(space: Space) -> Verdict {
    let (locks, steps, name) = counted(&space).await?;
    for lock in [
        locks.lock(&name).min_hold(Duration::from_secs(1)),
        locks.lock(&name).once_per(Duration::from_secs(1)),
    ] {
        is_unsupported(lock.acquire().await, Offer::Schedule)?;
        is_unsupported(lock.try_acquire().await, Offer::Schedule)?;
        is_unsupported(lock.acquire_timeout(PROMPT).await, Offer::Schedule)?;
        is_unsupported(lock.run(async {}).await, Offer::Schedule)?;
        is_unsupported(lock.try_run(async {}).await, Offer::Schedule)?;
    }
    check!(steps() == 0, "what is not offered made {} steps", steps());
    let guard = within(PROMPT, "taking a free lock", locks.lock(&name).acquire()).await??;
    is_unsupported(guard.complete().await, Offer::Schedule)?;
    becomes_free(&space.connect().await?, &name, PROMPT).await
}

async fn no_elections(space: Space) -> Verdict {
    let (locks, steps, name) = counted(&space).await?;
    let election = locks.election(&name);
    is_unsupported(election.campaign("me").await, Offer::Values)?;
    is_unsupported(election.try_campaign("me").await, Offer::Values)?;
    is_unsupported(election.campaign_timeout("me", PROMPT).await, Offer::Values)?;
    is_unsupported(election.leader().await, Offer::Values)?;
    is_unsupported(election.observe().next().await, Offer::Values)?;
    check!(steps() == 0, "what is not offered made {} steps", steps());
    Ok(())
}

async fn no_inspection(space: Space) -> Verdict {
    let (locks, steps, name) = counted(&space).await?;
    is_unsupported(locks.inspect(&name).await, Offer::Inspection)?;
    is_unsupported(locks.list("").await, Offer::Inspection)?;
    check!(steps() == 0, "what is not offered made {} steps", steps());
    Ok(())
}

async fn no_waiters(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let name = space.name("held");
    let guard = locks.lock(&name).acquire().await?;
    let state = within(PROMPT, "an inspection", locks.inspect(&name)).await??;
    check!(state.waiters.is_none(), "who waits is not known, and {:?} was told", state.waiters);
    guard.release().await?;
    Ok(())
}

async fn no_breaking(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let name = space.name("held");
    let guard = locks.lock(&name).acquire().await?;
    is_unsupported(locks.break_lock(&name).await, Offer::Breaking)?;
    is_unsupported(locks.break_claim(&name, guard.claim_id()).await, Offer::Breaking)?;
    check!(guard.is_held(), "a lock was broken though that is not offered");
    guard.release().await?;
    Ok(())
}

async fn no_revoking(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let name = space.name("held");
    let guard = locks.lock(&name).acquire().await?;
    is_unsupported(locks.revoke(&name).await, Offer::Revoking)?;
    is_unsupported(locks.revoke_claim(&name, guard.claim_id()).await, Offer::Revoking)?;
    check!(
        crate::polling::poll_once(guard.asked()).is_pending(),
        "a holder was asked though that is not offered"
    );
    guard.release().await?;
    Ok(())
}
